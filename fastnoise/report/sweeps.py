"""The report of a sweep: its tables, the curves of its jobs by the varied fields, and failed jobs with errors."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..texts import counted
from .charts import COLOURS, HALF, WIDE, Chart, Missing, Panel, Series, dot_chart, line_chart
from .html import Html, details, element, join, markdown, plain, shortened, table
from .stored import StoredRun, StoredSweep, is_numeric, ranking

_MOST_LINES = 8  # in one panel, that can still be told apart
_MOST_PANELS = 12
_MOST_DOTS = 40
_MOST_ROWS = 1000  # of results.csv on the page


def head(sweep: StoredSweep, again: Html) -> Html:
    """How many jobs are done, which failed and why, and the command `again` that continues the sweep."""
    done = [job for job in sweep.jobs if job.summary is not None]
    failed = [job for job in sweep.jobs if job.summary is None and job.error]
    open_ = [job for job in sweep.jobs if job.summary is None and not job.error]
    counts = f"{counted(len(done), 'job')} done, {len(failed)} failed, {len(open_)} not ended"
    varied = f"; they differ in {', '.join(sweep.varied)}" if sweep.varied else ""
    parts: list[Html] = [element("p", f"{counts}{varied}.")]
    notes = [element("p", problem) for problem in sweep.problems]
    notes += [element("p", f"{job.path.name}: {problem}") for job in done for problem in job.problems]
    if failed or open_:
        notes.insert(
            0,
            element(
                "p",
                "Not all jobs are done. Jobs that have not begun are not listed. To continue: ",
                again,
            ),
        )
    if notes:
        parts.append(element("div", *notes, class_="note", role="status"))
    if failed:
        rows = [(element("code", job.path.name), _values(sweep, job), _last_line(job.error)) for job in failed]
        parts += [element("h2", "Failed jobs"), table(rows, ("job", "with", "error"))]
        parts += [
            details(f"Whole error of {job.path.name}", element("pre", plain(job.error, 20_000))) for job in failed
        ]
    if open_:
        rows = [(element("code", job.path.name), _values(sweep, job), _progress(job)) for job in open_]
        parts += [element("h2", "Jobs not ended"), table(rows, ("job", "with", "epochs"), numbers=[2])]
    return join(parts)


def tables(sweep: StoredSweep) -> Html:
    """The sweep's own tables, and the results of each job folded."""
    parts: list[Html] = []
    if sweep.tables:
        # Failed jobs come with their whole errors above.
        parts += [element("h2", "Tables"), markdown(sweep.tables.partition("\n## Failed\n")[0])]
    else:
        parts.append(element("p", "tables.md, which a sweep writes when it ends, is not there yet.", class_="missing"))
    if len(sweep.results) > 1:
        parts.append(rows_table("Results of each job", sweep.results))
    return join(parts)


def rows_table(title: str, content: list[list[str]]) -> Html:
    """The rows of a CSV file, its header first, folded."""
    header, *rows = content
    width = len(header)
    rows = [(row + [""] * width)[:width] for row in rows]
    right = [place for place in range(width) if all(_is_number(row[place]) for row in rows)]
    title = f"{title} ({counted(len(rows), 'row')}" + (f", the first {_MOST_ROWS})" if len(rows) > _MOST_ROWS else ")")
    shown = [[_short(cell) for cell in row] for row in rows[:_MOST_ROWS]]
    return details(title, table(shown, [name.replace("_", " ") for name in header], numbers=right))


def sweep_sections(sweep: StoredSweep) -> list[tuple[str, list[Chart | Missing]]]:
    """The charts by heading. A text in place of a chart says why it is missing."""
    fields = [curves_of(sweep, name) for name in sweep.varied] if len(sweep.varied) > 1 else []
    return [
        ("Results by what varies", [final(sweep), *against(sweep)]),
        ("Accuracy curves", [curves(sweep), *fields]),
    ]


def _values(sweep: StoredSweep, job: StoredRun) -> str:
    names = [*sweep.varied, *(name for name in ("seed", "noise_seed") if name in job.config)]
    return ", ".join(f"{name.replace('_', ' ')} {job.config.get(name, '-')}" for name in names)


def _progress(job: StoredRun) -> str:
    done = job.history[-1]["epoch"] if job.history else 0
    return f"{done} of {job.epochs}" if job.epochs is not None else str(done)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    """A number with six digits."""
    return f"{float(text):.6g}" if "." in text and _is_number(text) else text


# -- curves --------------------------------------------------------------------------------------------------------


_LONGEST = 40  # letters of a value in a label


def _labels(keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A label for each combination of values, which no other has."""
    keys = list(keys)
    short = [shortened(values, _LONGEST) for values in zip(*keys, strict=True)]
    return {key: " · ".join(part[value] for part, value in zip(short, key, strict=True)) or "all jobs" for key in keys}


def _test_curves(jobs: Sequence[StoredRun]) -> list[dict[int, float]]:
    """The test accuracy over epochs of each job that has ended an epoch."""
    curves = [dict(zip(*job.series(f"test_{job.score.name}"), strict=True)) for job in jobs]
    return [curve for curve in curves if curve]


def _mean_curve(jobs: Sequence[StoredRun], key: str, label: str, colour: str) -> Series | None:
    """Mean and standard deviation of the jobs' test accuracy over the epochs that all of them have."""
    curves = _test_curves(jobs)
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    if not common:
        return None
    values = np.array([[curve[epoch] for epoch in common] for curve in curves])
    spread = values.std(0, ddof=1).tolist() if len(curves) > 1 else None
    return Series(key, label, common, values.mean(0).tolist(), colour, spread=spread)


def _of(groups: Iterable[Sequence[StoredRun]]) -> str:
    """Part of a caption: how many jobs each line is the mean of. Some job has ended an epoch."""
    counts = [count for jobs in groups if (count := len(_test_curves(jobs)))]
    number = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
    if max(counts) == 1:
        return "One job each."
    return f"Means over {number} jobs, up to the last epoch that all of them have. Bands: one standard deviation."


def curves(sweep: StoredSweep) -> Chart | Missing:
    """Test accuracy over epochs of each combination of the varied values, in several panels if there are many."""
    groups = sweep.groups()
    split = _split(sweep)
    if split is None:
        return (
            f"Accuracy of each combination: {len(groups)} of them are too many to tell apart; "
            "see the curves by single fields"
        )
    places = [place for place, name in enumerate(sweep.varied) if name not in split]
    rest = list(dict.fromkeys(tuple(key[place] for place in places) for key in groups))
    labels, inner_labels = _labels(groups), _labels(rest)
    panels: dict[tuple[str, ...], list[Series]] = {}
    for key, jobs in groups.items():
        title = tuple(key[place] for place, name in enumerate(sweep.varied) if name in split)
        inner = tuple(key[place] for place in places)
        series = _mean_curve(jobs, labels[key], inner_labels[inner], COLOURS[rest.index(inner) % len(COLOURS)])
        panels.setdefault(title, []).extend([series] if series else [])
    titles = _labels(panels)
    drawn = [
        Panel(series, title=titles[title] if split else "", label=f"test {sweep.score.title}", shares=sweep.score.share)
        for title, series in panels.items()
        if series
    ]
    if not drawn:
        return "Accuracy over epochs: no job has ended an epoch"
    by = ", ".join(name.replace("_", " ") for name in sweep.varied) or "job"
    return line_chart(
        "curves",
        f"Test {sweep.score.title} over epochs by {by}.",
        _of(groups.values()),
        drawn,
        columns=min(3, len(drawn)),
        shared=True,
        width=None if split else WIDE if len(groups) > 4 else HALF,
    )


def _split(sweep: StoredSweep) -> tuple[str, ...] | None:
    """The fields that divide the combinations into panels with few lines; None if no choice of fields does."""
    groups = sweep.groups()
    if len(groups) <= _MOST_LINES:
        return ()
    for name in sorted(sweep.varied, key=lambda field: len(sweep.groups((field,)))):
        inner = len({tuple(v for v, other in zip(key, sweep.varied, strict=True) if other != name) for key in groups})
        if 1 < inner <= _MOST_LINES and len(sweep.groups((name,))) <= _MOST_PANELS:
            return (name,)
    return None


def curves_of(sweep: StoredSweep, name: str) -> Chart | Missing:
    """Test accuracy over epochs for each value of one field, as a mean over the other fields."""
    groups = sweep.groups((name,))
    words = name.replace("_", " ")
    if len(groups) > len(COLOURS):
        return f"Accuracy by {words}: {len(groups)} values are too many to tell apart"
    labels = _labels(groups)
    series = [
        line
        for colour, (key, jobs) in zip(COLOURS, groups.items(), strict=False)
        if (line := _mean_curve(jobs, labels[key], labels[key], colour))
    ]
    if not series:
        return f"Accuracy by {words}: no job has ended an epoch"
    return line_chart(
        f"curves_by_{name}",
        f"Test {sweep.score.title} over epochs by {words} alone.",
        _of(groups.values()),
        [Panel(series, label=f"test {sweep.score.title}", shares=sweep.score.share)],
    )


# -- final figures -------------------------------------------------------------------------------------------------


def _last(jobs: Sequence[StoredRun]) -> list[float]:
    found = [job.figure(f"test_{job.score.name}", "last") for job in jobs]
    return [value for value in found if value is not None]


def final(sweep: StoredSweep) -> Chart | Missing:
    """Mean and standard deviation of the last test accuracy of each combination."""
    found = {key: values for key, jobs in sweep.groups().items() if (values := _last(jobs))}
    if not found:
        return "Results: no job has ended"
    if not sweep.score.share:
        return f"Results: see the tables for the {sweep.score.title}"
    if len(found) > _MOST_DOTS:
        return f"Results of each combination: {len(found)} are too many to draw; see the tables"
    labels = _labels(found)
    rows = [
        (
            labels[key],
            float(np.mean(values)),
            float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
            len(values),
        )
        for key, values in found.items()
    ]
    return dot_chart(
        "final",
        f"Test {sweep.score.title} after the last epoch.",
        "Mean over seeds; bars: one standard deviation.",
        rows,
        (" · ".join(sweep.varied) or "jobs", "mean", "sd", "jobs"),
        f"test {sweep.score.title}",
    )


def against(sweep: StoredSweep) -> list[Chart | Missing]:
    """The last test accuracy against each varied field with numbers or rates. Each combination of the other fields is a
    line."""
    found: list[Chart | Missing] = []
    for place, name in enumerate(sweep.varied):
        values = [key[0] for key in sweep.groups((name,))]
        if len(values) < 3 or not is_numeric(values):
            continue
        numbers = ranking(values)
        lines: dict[tuple[str, ...], dict[float, list[float]]] = {}
        for key, jobs in sweep.groups().items():
            rest = key[:place] + key[place + 1 :]
            if last := _last(jobs):
                lines.setdefault(rest, {})[numbers[key[place]]] = last
        if not lines or len(lines) > _MOST_LINES:
            continue
        words = name.replace("_", " ")
        labels = _labels(lines)
        series = []
        for colour, (rest, points) in zip(COLOURS, lines.items(), strict=False):
            means = [float(np.mean(last)) for last in points.values()]
            spread = [float(np.std(last, ddof=1)) if len(last) > 1 else 0.0 for last in points.values()]
            label = labels[rest] if rest else ""
            series.append(
                Series(labels[rest], label, list(points), means, colour, spread=spread if any(spread) else None)
            )
        axis = "noise rate" if name == "noise" else words
        found.append(
            line_chart(
                f"accuracy_against_{name}",
                f"Test {sweep.score.title} after the last epoch against {axis}.",
                "Mean over seeds; bands: one standard deviation.",
                [Panel(series, label=f"test {sweep.score.title}", shares=sweep.score.share)],
                axis=axis,
            )
        )
    return found
