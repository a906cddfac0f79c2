"""The page of several runs: their figures in a table, and their curves laid over each other."""

from collections.abc import Sequence
from typing import Any

from .. import own
from ..config import FREE_ON_RESUME
from .charts import COLOURS, Chart, Missing, Panel, Series, line_chart
from .figures import WORDS, beside
from .html import Html, details, element, join, plain, shortened, table
from .runs import deviations
from .stored import StoredRun

MOST = 20
"""Runs on one page."""

_LONGEST = 60  # letters of a run's name
_DASHES = ("-", "--")

_CURVES: tuple[tuple[str, str, str, bool], ...] = (
    ("test_loss", "Test loss", "Cross-entropy.", False),
    ("train_loss", "Training loss", "Losses of different methods cannot be compared.", False),
    ("mislabelled_memorised", "Memorised wrong labels", "Share of the mislabelled training samples.", True),
    ("correction_accuracy", "Correction accuracy", "Training samples whose corrected label is the true one.", True),
    ("gradient_clean", "Gradients of clean samples", "Mean length at the logits.", False),
    ("gradient_mislabelled", "Gradients of mislabelled samples", "Mean length at the logits.", False),
    ("gradient_norm", "Gradient norm", "Over all weights before clipping, mean over an epoch's steps.", False),
    ("learning_rate", "Learning rate", "", False),
    ("images_per_second", "Images per second", "Training only, without evaluation.", False),
    ("memory_gib", "GPU memory", "GiB that PyTorch had reserved after each epoch.", False),
)
"""Key of metrics.jsonl, title, caption, whether it is a share."""


def names_of(runs: Sequence[StoredRun]) -> list[str]:
    """A name for each run: that of its folder, with those above it as far as they tell runs of one name apart."""
    parts = [run.path.resolve().parts for run in runs]
    names = []
    for own_parts in parts:
        depth = 1
        while sum(other[-depth:] == own_parts[-depth:] for other in parts) > 1 and depth < len(own_parts):
            depth += 1
        names.append(plain("/".join(own_parts[-depth:])))
    short = shortened(names, _LONGEST)
    return [short[name] for name in names]


def head(runs: Sequence[StoredRun]) -> Html:
    """A row of figures for each run, then the options in which they differ."""
    names = names_of(runs)
    score = runs[0].score
    header = ["run", "method", "data set", "noise", "seed", "epochs", f"last {score.title}", f"best {score.title}"]
    header += ["published", "difference", "images/s", "minutes"]
    notes: list[str] = []
    rows = []
    for name, run in zip(names, runs, strict=True):
        epochs, values = run.series(f"test_{run.score.name}")
        best = (max(values) if run.score.higher else min(values)) if values else None
        seconds = run.series("epoch_seconds")[1] or run.series("seconds")[1]
        speed = run.figure("throughput", "images_per_second")
        found = beside(run)
        published, difference = "", ""
        if found:
            note = f"{WORDS[found[0].metric]}; {found[0].note}"
            if note not in notes:
                notes.append(note)
            published, difference = f"{found[0].published.describe()} ({notes.index(note) + 1})", found[0].difference
        rows.append(
            [
                name,
                *(own.short(plain(run.config.get(key, "-"))) for key in ("method", "dataset", "noise")),
                run.config.get("seed", "-"),
                f"{epochs[-1] if epochs else 0} of {run.epochs}" if run.epochs is not None else "-",
                run.score.shown(values[-1]) if values else "-",
                "-" if best is None else run.score.shown(best),
                published,
                difference,
                "-" if speed is None else f"{speed:,.0f}",
                f"{sum(seconds) / 60:.1f}" if seconds else "-",
            ]
        )
    used = [place for place, name in enumerate(header) if name not in ("published", "difference") or notes]
    shown = [[row[place] for place in used] for row in rows]
    right = [number for number, place in enumerate(used) if place >= 4]
    parts = [
        problems(runs, names),
        element("h2", "Runs", id="runs"),
        table(shown, [header[p] for p in used], numbers=right, whole=True),
    ]
    parts += [element("p", f"({number}) {note}", class_="missing") for number, note in enumerate(notes, 1)]
    different = differences(runs)
    if different:
        parts += [element("h2", "What differs", id="what-differs"), table(different, ("option", *names), whole=True)]
    return join(parts)


def problems(runs: Sequence[StoredRun], names: Sequence[str]) -> Html:
    """A note of runs that have not ended, and of files that cannot be used."""
    notes = []
    for name, run in zip(names, runs, strict=True):
        if run.summary is None:
            done = run.history[-1]["epoch"] if run.history else 0
            notes.append(f"{name} has not ended: {done} of {run.epochs} epochs are recorded.")
        notes += [f"{name}: {problem}" for problem in run.problems]
    return element("div", *(element("p", note) for note in notes), class_="note", role="status") if notes else Html()


def differences(runs: Sequence[StoredRun]) -> list[list[Any]]:
    """Options whose values differ between runs: the option, then each run's value."""
    options = dict.fromkeys(name for run in runs for name in run.config if name not in FREE_ON_RESUME)
    rows = []
    for name in options:
        values = [run.config.get(name, "-") for run in runs]
        if len({str(value) for value in values}) > 1:
            rows.append([name.replace("_", " "), *(own.short(plain(value)) for value in values)])
    return rows


def sections(runs: Sequence[StoredRun]) -> list[tuple[str, list[Chart | Missing]]]:
    """The charts by heading: a line for each run."""
    names = names_of(runs)
    score = runs[0].score
    curves = [
        (f"{part}_{score.name}", f"{part.capitalize()} {score.title}", _without(runs, part), score.share)
        for part in ("test", "validation")
    ]
    charts = [_curves(runs, names, *curve) for curve in (*curves, *_CURVES)]
    found: list[Chart | Missing] = [chart for chart in charts if chart is not None]
    return [("Curves", found or ["No run has ended an epoch"])]


def _without(runs: Sequence[StoredRun], part: str) -> str:
    """What the caption says of runs of other tasks."""
    score = runs[0].score
    others = sum(run.score.name != score.name for run in runs)
    return f"{others} runs have another figure and no line." if others and part == "test" else ""


def _curves(
    runs: Sequence[StoredRun], names: Sequence[str], key: str, title: str, caption: str, share: bool
) -> Chart | None:
    """A line of one figure for each run that has it; None if none has."""
    series = []
    for place, (name, run) in enumerate(zip(names, runs, strict=True)):
        epochs, values = run.series(key)
        if values:
            colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % 2]
            series.append(Series(f"{key} {name}", name, epochs, values, colour, dash))
    if not series:
        return None
    return line_chart(
        key,
        f"{title} over epochs.",
        caption,
        [Panel(series, shares=share)],
    )


def appendix(runs: Sequence[StoredRun]) -> Html:
    """Deviations from the authors' code, and each run's configuration, folded."""
    parts = [deviations(run.config for run in runs)]
    for name, run in zip(names_of(runs), runs, strict=True):
        parts.append(details(f"Configuration of {name}", table(sorted(run.config.items()))))
    return join(parts)
