"""What a report says of one run: facts, results, and its charts under their headings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import own
from ..engine.display import how_to_resume, percent, result_table
from ..recipes.deviations import deviations_in
from .charts import Chart, Missing
from .epochs import (
    accuracy,
    attention,
    class_accuracy,
    correction,
    gradient_norm,
    gradients,
    learning_rate,
    loss,
    memory,
    own_figures,
    selections,
    shares,
    throughput,
)
from .html import Html, details, element, join, plain, table
from .samples import confusion, histogram, suspicion, transition, weight_matrix
from .stored import StoredRun


def run_sections(run: StoredRun) -> list[tuple[str, list[Chart | Missing]]]:
    """The charts of a run by heading. A text in place of a chart says why it is missing."""
    return [
        ("Training", [accuracy(run), loss(run), correction(run), learning_rate(run), *gradient_norm(run)]),
        (
            "Clean and mislabelled samples",
            [shares(run), *attention(run), *gradients(run), histogram(run), suspicion(run)],
        ),
        ("Labels by class", [transition(run), weight_matrix(run), confusion(run), class_accuracy(run)]),
        ("Selection and speed", [*selections(run), *own_figures(run), throughput(run), *memory(run)]),
    ]


def head(run: StoredRun) -> Html:
    """Facts and results side by side. If the run has not ended, also what is missing and how to continue it."""
    left = element("section", element("h2", "Run"), table(facts(run)))
    right = element("section", element("h2", "Result"), results(run))
    return join([state(run), element("div", left, right, class_="columns")])


def state(run: StoredRun) -> Html:
    """A note if the run has not ended: how far it is, and how to continue it."""
    notes = [element("p", problem) for problem in run.problems]
    if run.summary is None:
        last = run.history[-1]["epoch"] if run.history else 0
        planned = f" of {run.epochs}" if run.epochs is not None else ""
        kept = (run.path / "checkpoint.pt").exists() or (run.path / "checkpoints" / "latest").exists()
        where = "continues from its last checkpoint" if kept else "begins again (it has no checkpoint)"
        notes.insert(
            0,
            element(
                "p",
                f"This run has not ended: {last}{planned} epochs are recorded, and there is no readable summary.json. "
                "The final result, the corrected labels and the charts of them are missing. The run "
                f"{where} with ",
                element("code", how_to_resume(run.path.resolve(), run.config)),
                ". This runs the code in the files that it names." if own.words_for(run.config) else "",
            ),
        )
    return element("div", *notes, class_="note", role="status") if notes else Html()


def facts(run: StoredRun) -> list[tuple[str, str]]:
    """What the run is, from its configuration, labels and environment."""
    config, summary = run.config, run.summary or {}
    rows: list[tuple[str, Any]] = [("method", config.get("method")), ("data set", config.get("dataset"))]
    training = run.training_labels()
    if training is not None and run.labels is not None:
        held = len(run.labels.labels) - len(training[0])
        rows.append(
            ("training samples", f"{len(training[0]):,}" + (f", {held:,} held out for validation" if held else ""))
        )
        rows.append(("classes", run.labels.num_classes))
    network = summary.get("network")
    size = network.get("image_size") if isinstance(network, dict) else None
    image = f", images {'x'.join(map(str, size))}" if isinstance(size, list) else ""
    width = f", width {config['width']}" if config.get("width", 1.0) != 1.0 else ""
    rows.append(("network", f"{config['model']}{width}{image}" if "model" in config else None))
    rows += [("requested noise", config.get("labels") or config.get("noise"))]
    if run.labels is not None:
        requested, realised = run.labels.requested_rate, run.labels.realised_rate
        rows.append(("noise rate", _rates(requested, realised)))
        rows.append(("labels, SHA-256", f"{run.labels.sha256[:16]}…"))
    done = run.history[-1]["epoch"] if run.history else 0
    rows.append(("epochs", f"{done} of {run.epochs}" if run.epochs is not None else done))
    rows.append(("seed, noise seed", f"{config.get('seed', '-')}, {config.get('noise_seed', '-')}"))
    rows.append(
        ("optimiser", ", ".join(str(config[key]) for key in ("optimizer", "schedule") if key in config) or None)
    )
    rows.append(("learning rate, batch size", f"{config.get('learning_rate', '-')}, {config.get('batch_size', '-')}"))
    if run.environment:
        rows += _machine(run.environment)
    return [(name, plain(value)) for name, value in rows if value is not None]


def _rates(requested: float | None, realised: float | None) -> str:
    asked = "" if requested is None else f"requested {percent(requested)}, "
    return asked + ("realised rate unknown" if realised is None else f"realised {percent(realised)}")


def _machine(environment: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    last = environment[-1]
    gpus = last.get("gpus")
    names = [gpu.get("name") for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    packages = last.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    rows: list[tuple[str, Any]] = [
        ("device", ", ".join(map(str, names)) or f"{last.get('cpus', '?')} CPU cores, SIMD {last.get('simd', '?')}"),
        ("software", f"fastnoise {last.get('fastnoise')}, torch {torch}, Python {last.get('python')}"),
    ]
    if len(environment) > 1:
        rows.append(("starts", len(environment)))
    return rows


def results(run: StoredRun) -> Html:
    """The final table of the run, or its figures so far."""
    rows: list[Any] = []
    if run.summary is not None:
        try:
            columns = [list(column.cells) for column in result_table(run.summary).columns]
            rows = [[str(cell).replace(" %", "\xa0%") for cell in row] for row in zip(*columns, strict=True)]
            return table(rows, numbers=[1])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            return element(
                "p", f"summary.json comes from another version of fastnoise ({type(error).__name__}: {error})"
            )
    score = run.score
    for part in ("test", "validation"):
        epochs, values = run.series(f"{part}_{score.name}")
        if values:
            best = int(np.argmax(values) if score.higher else np.argmin(values))
            name = f"{part} {score.title}"
            rows.append((f"{name}, last epoch so far", score.shown(values[-1]), f"epoch {epochs[-1]}"))
            rows.append((f"{name}, best so far", score.shown(values[best]), f"epoch {epochs[best]}"))
    return table(rows, numbers=[1]) if rows else element("p", "No epoch has ended yet.")


def appendix(run: StoredRun) -> Html:
    """Deviations from the authors' code, configuration and environments, folded."""
    config = table(sorted(run.config.items()))
    starts = [
        details(f"Environment of start {place}" if len(run.environment) > 1 else "Environment", table(_flat(start)))
        for place, start in enumerate(run.environment, 1)
    ]
    return join([deviations([run.config]), details("Configuration", config) if run.config else "", *starts])


def deviations(configs: Iterable[Mapping[str, Any]]) -> Html:
    """What stays different from the authors' code in runs of these configurations, folded; nothing if none is known."""
    found = dict.fromkeys(each for config in configs for each in deviations_in(config))
    if not found:
        return Html()
    rows = [(each.what, each.extent, each.why) for each in found]
    return details(f"Deviations from the authors\u2019 code: {len(rows)}", table(rows, ("what", "size", "why")))


def _flat(value: dict[str, Any]) -> list[tuple[str, str]]:
    """A nested dictionary as lines; inner dictionaries in one line each."""

    def words(part: Any) -> str:
        if isinstance(part, dict):
            return ", ".join(f"{key} {words(inner)}" for key, inner in part.items())
        return ", ".join(map(words, part)) if isinstance(part, list) else "-" if part is None else str(part)

    return [(str(key), words(part)) for key, part in value.items()]
