"""The results of a sweep: one row per job, and tables of means over seeds with the published values."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..config import RunConfig
from ..errors import CheckpointError
from ..files import write_text
from ..options import AUTO
from ..recipes.deviations import deviations_of
from ..recipes.published import SECOND_TESTS, Published, deviations, published
from ..tasks.names import DEFAULT, SCORES, Score, numbers, score_in
from ..texts import counted
from .job import run_folder, summary_file
from .spec import SEEDS, Job

_NOT_FIGURES = frozenset({"title", "run_dir", "network", "throughput", "selections", "score"})
"""Keys of summary.json that are not results. Throughput is not a result, since it differs each time."""

_Group = tuple[tuple[str, Any], ...]
"""The varied fields of a group of jobs with their values."""
_Members = Sequence[tuple[Job, Mapping[str, Any]]]
"""Its jobs with their rows of results."""

METRICS = {
    "last": "test_accuracy_last",
    "best": "test_accuracy_best",
    "mean_last_10": "test_accuracy_mean_last_10",
    "validation": "validation_accuracy_test_at_best",
}
"""Convention of a published accuracy -> the column of results.csv that follows it."""

_TITLES = {
    "last": "Test accuracy, last epoch",
    "best": "Test accuracy, best epoch, selected on test data",
    "mean_last_10": "Test accuracy, mean of the last ten epochs",
    "validation": "Test accuracy at the best validation epoch",
}

_MOST_COLUMNS = 12

_REALISED = "noise_realised_rate"
"""Column of results.csv: the share of wrong labels that a run trained on."""


def figures(summary: Mapping[str, Any]) -> dict[str, float | int]:
    """The numbers in a summary. Numbers in nested tables have joined names, as test_accuracy_last."""
    return dict(numbers(summary, "_", lists=False, without={*_NOT_FIGURES, *SEEDS}))


@dataclass
class SweepResult:
    """The results of a sweep so far."""

    jobs: list[Job]
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The finished jobs in the order of `jobs`, as in results.csv: name, varied fields, seed, noise_seed, figures."""
    failed: dict[str, str] = field(default_factory=dict)
    """Job name -> error in one line."""

    def run_folder(self, name: str) -> Path:
        """The folder of a job."""
        return run_folder(self.folder, name)

    def summary(self, name: str) -> dict[str, Any]:
        """A finished job's summary.json; CheckpointError if there is none, or a damaged one."""
        return read_summary(self.folder, name)


def read_summary(folder: Path, name: str) -> dict[str, Any]:
    """summary.json of a job; CheckpointError if there is none, or a damaged one."""
    path = summary_file(folder, name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable summary ({error}); remove it and run the sweep again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a summary; remove it and run the sweep again")
    return content


def make_row(job: Job, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A finished job's row, with the method that was chosen if its method is auto."""
    fields = job.fields
    seeds = {key: fields[key] for key in SEEDS if key in fields}
    chosen = {"chosen": summary.get("method")} if fields.get("method") == AUTO else {}
    return {"name": job.name, **job.varied, **seeds, **chosen, **figures(summary)}


class ResultsFile:
    """results.csv. A row is added when a job ends, so that a sweep of thousands writes each row once. `rewrite` puts
    all rows in the order of the jobs, in one step. If a kill cuts off a line, the next start rewrites the file."""

    def __init__(self, folder: Path, jobs: Sequence[Job]):
        self.path = folder / "results.csv"
        varied = dict.fromkeys(key for job in jobs for key in job.varied)
        seeds = [key for key in SEEDS if any(key in job.fields for job in jobs)]
        self._columns = ["name", *varied, *seeds]
        self._order = {job.name: number for number, job in enumerate(jobs)}
        self._rows: dict[str, dict[str, Any]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows in the order of the jobs."""
        return sorted(self._rows.values(), key=lambda row: self._order[row["name"]])

    def keep(self, row: dict[str, Any]) -> bool:
        """Keep a row without writing it. Returns False if the row has a new column."""
        self._rows[row["name"]] = row
        known = len(self._columns)
        self._columns += [key for key in row if key not in set(self._columns)]
        return len(self._columns) == known

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row and append it to the file. If the row has a new column, the whole file is rewritten."""
        if not self.keep(row):
            self.rewrite()
            return
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            stream.write(self._text([row]))

    def rewrite(self) -> None:
        """Write all rows in order."""
        write_text(self.path, self._text([dict(zip(self._columns, self._columns, strict=True)), *self.rows]))

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, self._columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return stream.getvalue()


@dataclass(frozen=True)
class ResultTable:
    """A table as text, for Markdown and for the terminal."""

    title: str
    columns: tuple[str, ...]
    labels: int
    """Number of columns, from the left, that are labels."""
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """The table in Markdown."""
        marks = ["---" if number < self.labels else "---:" for number in range(len(self.columns))]
        lines = [f"## {self.title}", ""]
        lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in (self.columns, marks, *self.rows)]
        return "\n".join([*lines, "", *(f"{note}  " for note in self.notes)]) + "\n"

    def rich(self) -> Any:
        """The table for a rich console."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.title, caption="\n".join(self.notes), caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(Text(column), justify="left" if number < self.labels else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def make_tables(result: SweepResult) -> list[ResultTable]:
    """Mean and standard deviation over seeds of each combination of the varied fields.

    Training runs get a table of last-epoch accuracies. If a published value follows another convention, such as that of
    the best epoch, there is a table for it too. Runs of other tasks than classification get a table of their task's
    score. Other jobs get a table of their first figure.
    """
    if not result.rows:
        return []
    by_name = {row["name"]: row for row in result.rows}
    groups: dict[tuple[tuple[str, Any], ...], list[tuple[Job, dict[str, Any]]]] = {}
    for job in result.jobs:
        if job.name in by_name:
            groups.setdefault(tuple(job.varied.items()), []).append((job, by_name[job.name]))
    runs = {key: members[0][0].config for key, members in groups.items() if isinstance(members[0][0].config, RunConfig)}
    if not runs:
        first = next((key for key in figures(result.summary(result.rows[0]["name"]))), None)
        return [] if first is None else [_table(first, first, 1.0, groups, {})]
    known: dict[str, dict[tuple[tuple[str, Any], ...], Published]] = {"last": {}}
    for key, config in runs.items():
        for metric, entry in published(config).items():
            # Runs without held-out samples have no best validation epoch: their last one stands beside such a value.
            name = metric if METRICS[metric] in groups[key][0][1] else "last"
            known.setdefault(name, {}).setdefault(key, entry)
    accuracies = [
        _table(_TITLES[name], column, 100.0, groups, known[name]) for name, column in METRICS.items() if name in known
    ]
    accuracies += _others_tested(groups, runs)
    scores = dict.fromkeys(_score(result, members[0][1]) for members in groups.values())
    others = [
        _table(f"Test {score.title}, last epoch", f"test_{score.name}_last", 100.0 if score.share else 1.0, groups, {})
        for score in scores
        if score != SCORES[DEFAULT]
    ]
    return [*(accuracies if SCORES[DEFAULT] in scores else []), *others]


def _others_tested(groups: Mapping[_Group, _Members], runs: Mapping[_Group, RunConfig]) -> list[ResultTable]:
    """Tables of what the papers of WebVision have: accuracies on second test sets, and top-5 accuracies."""
    tables = []
    columns = {column for members in groups.values() for _, row in members for column in row}
    for test in ("test", *SECOND_TESTS):
        for name, top in (("accuracy", 1), ("top5", 5)):
            column = f"{test}_{name}_last"
            if column in columns and column != METRICS["last"]:
                known = {key: found for key, config in runs.items() if (found := published(config, test, top))}
                if top == 5 and not known:
                    continue
                entries = {key: found.get("last", next(iter(found.values()))) for key, found in known.items()}
                title = f"{test.capitalize()} {'accuracy' if top == 1 else 'top-5 accuracy'}, last epoch"
                tables.append(_table(title, column, 100.0, groups, entries))
    return tables


def _score(result: SweepResult, row: Mapping[str, Any]) -> Score:
    """The score of a training run, found by its columns, or for a user's own task by its summary."""
    for score in SCORES.values():
        if any(column.startswith(f"test_{score.name}_") for column in row):
            return score
    return score_in(result.summary(row["name"]))


def _table(
    title: str,
    metric: str,
    factor: float,
    groups: Mapping[tuple[tuple[str, Any], ...], Sequence[tuple[Job, Mapping[str, Any]]]],
    known: Mapping[tuple[tuple[str, Any], ...], Published],
) -> ResultTable:
    values: dict[str, dict[Any, None]] = {}
    for key in groups:
        for name, value in key:
            values.setdefault(name, {})[value] = None
    everywhere = [name for name in ("noise", *reversed(values)) if all(name in dict(key) for key in groups)]
    fitting = [name for name in everywhere if 1 < len(values[name]) <= _MOST_COLUMNS]
    across = fitting[0] if fitting and len(values) > 1 else None
    down = [name for name in values if name != across]
    most = max(len(members) for members in groups.values())
    sources: dict[str, int] = {}
    cells: dict[tuple[str, ...], dict[Any, str]] = {}
    for key, members in groups.items():
        varied = dict(key)
        numbers = [factor * row[metric] for _, row in members if metric in row]
        if not numbers:
            continue
        average = mean(numbers)
        text = f"{average:.2f}" if factor == 100 else f"{average:.4g}"
        if len(numbers) > 1:
            text += f" ± {stdev(numbers):.2f}" if factor == 100 else f" ± {stdev(numbers):.2g}"
        if len(numbers) < most:
            text += f" (n={len(numbers)})"
        entry = known.get(key)
        if entry is not None:
            config = members[0][0].config
            rates = [row[_REALISED] for _, row in members if _REALISED in row]
            realised = mean(rates) if rates else None
            note = entry.cite() + (deviations(config, entry, realised) if isinstance(config, RunConfig) else "")
            mark = sources.setdefault(note, len(sources) + 1)
            text += f" [{entry.describe()}, {average - entry.mean:+.2f}] ({mark})"
        cells.setdefault(tuple(_label(varied.get(name)) for name in down), {})[varied.get(across or "")] = text
    heads = list(values[across]) if across else [None]
    unit = f"{title}, %" if factor == 100 else title
    columns = (*down, *(f"{across}={_label(head)}" if across else unit for head in heads))
    rows = tuple((*labels, *(row.get(head, "-") for head in heads)) for labels, row in cells.items())
    notes = [f"Mean{' ± standard deviation over ' + str(most) + ' seeds' if most > 1 else ' of one seed'}."]
    if sources:
        notes[0] += " In brackets the published value and the difference from it."
    notes += [f"({mark}) {note}" for note, mark in sources.items()]
    if sources:
        runs = [members[0][0].config for key, members in groups.items() if known.get(key) is not None]
        notes += [line for line in dict.fromkeys(_further(run) for run in runs if isinstance(run, RunConfig)) if line]
    return ResultTable(unit, columns, len(down), rows, tuple(notes))


def _further(config: RunConfig) -> str:
    """How to read what stays different from the authors' code, which a citation does not say."""
    count = len(deviations_of(config))
    words = f"--method {config.method.method} --dataset {config.data.dataset} --deviations"
    if config.optim.recipe != "published":
        words += f" --recipe {config.optim.recipe}"
    return (
        f"{counted(count, 'deviation stays', 'deviations stay')} from the authors' code: fastnoise train {words}."
        if count
        else ""
    )


def _label(value: Any) -> str:
    return "" if value is None else str(value)


def write_tables(result: SweepResult, title: str) -> list[ResultTable]:
    """Write tables.md with the tables and the failed jobs. Returns the tables."""
    tables = make_tables(result)
    text = f"# {title}\n\n{len(result.rows)} of {counted(len(result.jobs), 'job')} done.\n\n"
    text += "\n".join(table.markdown() for table in tables)
    if result.failed:
        names = {job.name: job for job in result.jobs}
        text += "\n## Failed\n\n" if tables else "## Failed\n\n"
        text += "".join(f"- {name} ({names[name].describe()}): {error}\n" for name, error in result.failed.items())
    write_text(result.folder / "tables.md", text)
    return tables
