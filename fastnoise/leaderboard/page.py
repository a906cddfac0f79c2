"""The page of a leaderboard, made from its rows alone."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import write_atomically
from ..report.charts import COLOURS, Chart, Missing, Panel, Series, dot_chart, line_chart
from ..report.document import document
from ..report.html import element, markdown
from ..report.page import Pictures, drawn
from ..report.runs import deviations
from ..report.script import SCRIPT, STYLE
from ..report.sweeps import rows_table
from ..texts import counted
from .submission import Submission
from .tables import HOW, csv_of, label_of, markdown_of, ranked, records_of, tables_of, title_of

_STYLE = "body{max-width:95rem} main td{overflow-wrap:normal}"
"""Rows are wide, and their cells hold words."""

PAGE, TEXT, TABLE = "leaderboard.html", "leaderboard.md", "leaderboard.csv"


def write_pages(
    folder: Path, rows: Sequence[Submission], target: float, missing: Sequence[str] = (), what: str = ""
) -> Path:
    """Write a leaderboard as HTML, Markdown and CSV into a folder; returns the HTML file's path.

    Args:
        folder: it exists.
        rows: in any order.
        target: accuracy, a share, to which the time is given.
        missing: lines on runs that failed.
        what: where the rows come from, for the page's second line.

    DataError if a file can't be written.
    """
    contents = {
        TABLE: csv_of(records_of(rows, target)),
        TEXT: markdown_of(rows, target, missing),
        PAGE: _page(rows, target, missing, what),
    }
    for name, text in contents.items():
        write_atomically(folder / name, lambda stream, text=text: stream.write(text.encode()), DataError)  # type: ignore[misc]
    return folder / PAGE


def _page(rows: Sequence[Submission], target: float, missing: Sequence[str], what: str) -> str:
    groups = ranked(rows)
    names = list(dict.fromkeys(label_of(row, members) for members in groups.values() for row in members))
    sections = [
        (title_of(setting), _charts(place, members, names)) for place, (setting, members) in enumerate(groups.items())
    ]
    body = []
    if missing:
        body.append(element("div", *(element("p", line) for line in missing), class_="note", role="status"))
    pictures = Pictures(None)
    for table, section in zip(tables_of(rows, target), sections, strict=True):
        body += [pictures.draw([section]), markdown("\n".join(table.markdown().split("\n")[1:]))]
    known = [row.configuration for row in rows if row.config is not None]
    all_rows = list(csv.reader(csv_of(records_of(rows, target)).splitlines()))
    body += [
        element("h2", "How it is counted"),
        *(element("p", paragraph) for paragraph in HOW),
        deviations(known),
        rows_table(f"All figures, as in {TABLE}", all_rows),
    ]
    count = f"{counted(len(rows), 'row')}, {counted(sum(len(row.runs) for row in rows), 'run')}"
    subtitle = f"{count}{what and '. '}{what}"
    return document("Leaderboard", subtitle, drawn(sections), *body, style=STYLE + _STYLE, script=SCRIPT)


def _charts(place: int, rows: Sequence[Submission], names: list[str]) -> list[Chart | Missing]:
    """The accuracy of a setting's rows over time, and after the last epoch. `names` are the labels of all rows of the
    page: one has the same colour in every chart, if there are enough."""
    labels = [label_of(row, rows) for row in rows]
    finals = [(label, *_mean_sd(row.values("last")), len(row.runs)) for label, row in zip(labels, rows, strict=True)]
    header = ("row", "mean", "sd", "runs")
    last = dot_chart(
        f"last_{place}",
        "Test accuracy after the last epoch.",
        "Mean over seeds; bars: one standard deviation.",
        finals,
        header,
        "test accuracy",
    )
    if len(rows) > len(COLOURS):
        return [last, f"Accuracy over time: {len(rows)} rows are too many to tell apart; see the table"]
    colours = COLOURS[: len(rows)]
    if len(names) <= len(COLOURS) and len(set(labels)) == len(rows):  # runs of two machines may have one label
        colours = tuple(COLOURS[names.index(label)] for label in labels)
    panel = Panel([_curve(row, *look) for row, *look in zip(rows, labels, colours, strict=True)], label="test accuracy")
    text = "A point for each epoch: the mean accuracy at the mean time. Bands: one standard deviation of the accuracy."
    return [line_chart(f"time_{place}", "Test accuracy over time.", text, [panel], axis="minutes"), last]


def _curve(row: Submission, label: str, colour: str) -> Series:
    """Mean accuracy and mean minutes of the epochs that all runs of a row have."""
    epochs = min(len(run.test_accuracy) for run in row.runs)
    minutes = np.array([np.cumsum(run.epoch_seconds)[:epochs] for run in row.runs]).mean(0) / 60
    accuracy = np.array([run.test_accuracy[:epochs] for run in row.runs])
    spread = accuracy.std(0, ddof=1).tolist() if len(row.runs) > 1 else None
    return Series(label, label, minutes.tolist(), accuracy.mean(0).tolist(), colour, spread=spread)


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
