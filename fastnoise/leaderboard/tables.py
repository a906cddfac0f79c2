"""The tables of a leaderboard: one for each data set and noise, best methods first, and one CSV of all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from .. import own
from ..files import csv_text
from ..recipes.published import Published, deviations, published
from ..recipes.published_table import Metric
from ..sweeps.results import ResultTable
from .submission import Submission

CONVENTIONS: dict[Metric, str] = {
    "last": "last epoch",
    "best": "best epoch",
    "mean_last_10": "mean of the last ten epochs",
    "validation": "best validation epoch",
}
_MACHINE = ("machine", "gpu", "torch", "fastnoise", "commit", "date")


@dataclass(frozen=True)
class Comparison:
    """A published value beside ours."""

    metric: Metric
    published: Published
    difference: float
    """Ours minus theirs, in per cent."""
    note: str
    """Its source, and how our runs are known to differ from the published ones."""


def compared(row: Submission) -> list[Comparison]:
    """The published values of a row, by the rules of `recipes.published`. None for a row that names a user's code."""
    config = row.config
    if config is None:
        return []
    found = []
    for metric, entry in published(config).items():
        # Runs without held-out samples have no best validation epoch: their last one stands beside such a value.
        ours = 100 * mean(row.values(metric) or row.values("last"))
        note = entry.cite() + deviations(config, entry, row.realised_rate)
        found.append(Comparison(metric, entry, ours - entry.mean, note))
    return found


def ranked(rows: Sequence[Submission]) -> dict[tuple[str, str], list[Submission]]:
    """Rows by data set and noise, in alphabetical order; in each the most accurate after the last epoch first."""
    groups: dict[tuple[str, str], list[Submission]] = {}
    for row in sorted(rows, key=lambda row: row.setting):
        groups.setdefault(row.setting, []).append(row)
    return {key: sorted(members, key=lambda row: -mean(row.values("last"))) for key, members in groups.items()}


def title_of(setting: tuple[str, str]) -> str:
    """The heading of a data set and noise."""
    dataset, noise = map(own.short, setting)
    return f"{dataset}, {'its given labels' if noise == 'none' else noise}"


def label_of(row: Submission, others: Sequence[Submission]) -> str:
    """The row's method, with network, recipe and options if others have the same method."""
    method = _method(row)
    if sum(_method(other) == method for other in others) == 1:
        return method
    return " ".join(part for part in (method, row.network, row.recipe, row.options) if part)


def tables_of(rows: Sequence[Submission], target: float, *, brief: bool = False) -> list[ResultTable]:
    """A table for each data set and noise.

    Args:
        target: the accuracy, a share, to which the time is given.
        brief: only what fits on a terminal.
    """
    return [_table(title_of(setting), members, target, brief) for setting, members in ranked(rows).items()]


def _table(title: str, rows: Sequence[Submission], target: float, brief: bool) -> ResultTable:
    notes: dict[str, int] = {}

    def mark(note: str) -> str:
        return f"({notes.setdefault(note, len(notes) + 1)})"

    published_ones = [compared(row) for row in rows]
    columns: dict[str, list[str]] = {"method": [label_of(row, rows) if brief else _method(row) for row in rows]}
    if not brief:
        columns["network"] = [row.network for row in rows]
        columns["recipe"] = [row.recipe for row in rows]
        columns["beside its recipe"] = [row.options for row in rows]
    labels = len(columns)
    for name, words in (("last", "last"), ("best", "best"), ("mean_last_10", "mean of last 10")):
        columns[f"{words}, %"] = [_spread([100 * value for value in row.values(name)]) for row in rows]
    columns["minutes"] = [_spread(row.values("minutes")) for row in rows]
    columns["images/s"] = [f"{mean(row.values('images_per_second')):,.0f}" for row in rows]
    columns[f"minutes to {100 * target:g} %"] = [time_to(row, target) for row in rows]
    columns["published, %"] = [
        "; ".join(f"{each.published.describe()}, {CONVENTIONS[each.metric]}" for each in found)
        for found in published_ones
    ]
    columns["difference"] = [
        "; ".join(f"{each.difference:+.2f} {mark(each.note)}" for each in found) for found in published_ones
    ]
    if not brief:
        columns["seeds"] = [str(len(row.runs)) for row in rows]
        columns["wrong labels, %"] = [
            "" if row.realised_rate is None else f"{100 * row.realised_rate:.1f}" for row in rows
        ]
        columns["measured"] = [mark(measured(row)) for row in rows]
    labels -= sum(not any(cells) for cells in list(columns.values())[:labels])
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return ResultTable(
        title,
        tuple(shown),
        labels,
        tuple(zip(*([cell or "-" for cell in cells] for cells in shown.values()), strict=True)),
        tuple(f"({place}) {note}" for note, place in notes.items()),
    )


def _method(row: Submission) -> str:
    return own.short(row.marked("method"))


def measured(row: Submission) -> str:
    """Machine, versions, commit and date of a row."""
    gpu = "" if row.said("gpu") == "none" else f", {row.said('gpu')}"
    commits = dict.fromkeys(run.commit[:12] + "+changes" * run.commit.endswith("+changes") for run in row.runs)
    commit = "".join(f", commit {each}" for each in commits if each)
    again = sum(run.starts > 1 for run in row.runs)
    stopped = f"; {again} of {len(row.runs)} runs were stopped and resumed" if again else ""
    return (
        f"{row.said('machine')}{gpu}; {row.where}; torch {row.said('torch')}, fastnoise {row.said('fastnoise')}"
        f"{commit}; {row.said('date')}{stopped}"
    )


def time_to(row: Submission, target: float) -> str:
    """Mean minutes to an accuracy, over the runs that reach it; the cell says how many these are if not all do."""
    times = row.minutes_to(target)
    if not times:
        return "not reached"
    return _spread(times) + ("" if len(times) == len(row.runs) else f" ({len(times)} of {len(row.runs)})")


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


HOW = (
    "Accuracies are of the test set: mean and standard deviation over seeds. The best epoch is chosen on test data. "
    "Rows are ranked by the last epoch.",
    "Minutes count training, evaluation after each epoch and what the method does between epochs, from a run's first "
    "batch on, compilation included. Starting the process, reading the images and writing checkpoints are left out. "
    "Images per second are those of training alone.",
    "Minutes to an accuracy end with the first epoch after which the test accuracy reaches it. Its evaluation is "
    "included. They are a mean over the runs that get there.",
    "A published value stands beside a row of the same method, data set, noise and network. What is known to differ is "
    "in its note, the share of wrong labels among it.",
    "Digits after # tell data sets, files and code of one name apart.",
)
"""How the figures are counted, a paragraph each."""


def markdown_of(rows: Sequence[Submission], target: float, missing: Sequence[str] = ()) -> str:
    """The leaderboard in Markdown. `missing` are lines on runs that failed."""
    parts = ["# Leaderboard", *missing, *(table.markdown() for table in tables_of(rows, target)), *HOW]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def records_of(rows: Sequence[Submission], target: float) -> list[dict[str, Any]]:
    """Each row with all its figures: accuracies are shares, published values and differences in per cent."""
    found = []
    for members in ranked(rows).values():
        for row in members:
            times = row.minutes_to(target)
            record: dict[str, Any] = {
                "dataset": row.setting[0],
                "noise": row.setting[1],
                "method": row.marked("method"),
                "network": row.network,
                "recipe": row.recipe or "published",
                "options": row.options,
                "seeds": " ".join(str(run.seed) for run in row.runs),
                "noise_seeds": " ".join(str(run.noise_seed) for run in row.runs),
                "realised_rate": row.realised_rate,
                **row.figures(),
                "target_accuracy": target,
                "minutes_to_target": mean(times) if times else None,
                "minutes_to_target_sd": stdev(times) if len(times) > 1 else None,
                "runs_that_reach_it": len(times),
            }
            for each in compared(row):
                record |= {
                    f"published_{each.metric}": each.published.mean,
                    f"published_{each.metric}_sd": each.published.sd,
                    f"difference_{each.metric}": each.difference,
                    f"published_{each.metric}_source": each.note,
                }
            found.append(record | {name: row.said(name) for name in _MACHINE} | {"where": row.where})
    return found


def csv_of(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV; a figure that a row lacks is an empty cell."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    return csv_text(columns, ([_cell(record.get(name)) for name in columns] for record in records))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
