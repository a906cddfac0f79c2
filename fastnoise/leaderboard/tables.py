"""The tables of a leaderboard: one for each data set and noise, best methods first, and one CSV of all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from .. import own
from ..files import csv_text
from ..recipes.published import Published, deviations, published
from ..recipes.published_tables import Metric
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
    """The row's method, with network and options if others have the same method."""
    method = own.short(str(row.configuration["method"]))
    if sum(other.configuration["method"] == row.configuration["method"] for other in others) == 1:
        return method
    return " ".join(part for part in (method, row.network, row.options) if part)


def tables_of(rows: Sequence[Submission], target: float) -> list[ResultTable]:
    """A table for each data set and noise. `target` is the accuracy, a share, to which the time is given."""
    return [_table(title_of(setting), members, target) for setting, members in ranked(rows).items()]


def _table(title: str, rows: Sequence[Submission], target: float) -> ResultTable:
    notes: dict[str, int] = {}

    def mark(note: str) -> str:
        return f"({notes.setdefault(note, len(notes) + 1)})"

    cells = []
    for row in rows:
        found = compared(row)
        cells.append(
            (
                own.short(str(row.configuration["method"])),
                row.network,
                row.options or "-",
                *(_spread([100 * value for value in row.values(name)]) for name in ("last", "best", "mean_last_10")),
                _spread(row.values("minutes")),
                f"{mean(row.values('images_per_second')):,.0f}",
                time_to(row, target),
                "; ".join(f"{each.published.describe()}, {CONVENTIONS[each.metric]}" for each in found) or "-",
                "; ".join(f"{each.difference:+.2f} {mark(each.note)}" for each in found) or "-",
                str(len(row.runs)),
                "-" if row.realised_rate is None else f"{100 * row.realised_rate:.1f}",
                mark(measured(row)),
            )
        )
    columns = (
        *("method", "network", "beside its recipe"),
        *("last, %", "best, %", "mean of last 10, %"),
        *("minutes", "images/s", f"minutes to {100 * target:g} %"),
        *("published, %", "difference", "seeds", "wrong labels, %", "measured"),
    )
    return ResultTable(title, columns, 3, tuple(cells), tuple(f"({place}) {note}" for note, place in notes.items()))


def measured(row: Submission) -> str:
    """Machine, versions, commit and date of a row."""
    gpu = "" if row.said("gpu") == "none" else f", {row.said('gpu')}"
    commit = f", commit {row.said('commit')}" if row.said("commit") else ""
    again = sum(run.starts > 1 for run in row.runs)
    stopped = f"; {again} of {len(row.runs)} runs were stopped and resumed" if again else ""
    return (
        f"{row.said('machine')}{gpu}; {row.where}; torch {row.said('torch')}, fastnoise {row.said('fastnoise')}"
        f"{commit}; {row.said('date')}{stopped}"
    )


def time_to(row: Submission, target: float) -> str:
    """Mean minutes to an accuracy, over the runs that reach it; the cell says how many these are if not all do."""
    times = [minutes for run in row.runs if (minutes := run.minutes_to(target)) is not None]
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
            times = [minutes for run in row.runs if (minutes := run.minutes_to(target)) is not None]
            record: dict[str, Any] = {
                "dataset": row.configuration["dataset"],
                "noise": row.setting[1],
                "method": row.configuration["method"],
                "network": row.network,
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
