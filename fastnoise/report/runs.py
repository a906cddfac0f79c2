"""What a report says of one run: facts, results, and the charts of what it recorded."""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.display import percent, result_table
from ..noise.plot import as_shares
from .charts import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    HALF,
    ORANGE,
    PURPLE,
    RED,
    Chart,
    Matrix,
    Missing,
    Panel,
    Series,
    histogram_chart,
    line_chart,
    matrix_chart,
    percent_ticks,
)
from .html import Html, details, element, join, plain, table
from .records import RunRecord, number

_MOST_POINTS = 400  # of a precision-recall curve
_LONGEST = 40  # letters of a name in a chart
_MOST_CLASSES = 1000  # of a matrix: about a pixel each


def run_sections(run: RunRecord) -> list[tuple[str, list[Chart | Missing]]]:
    """The charts of a run by the headings that they come under, or in their places why there is none."""
    return [
        ("Training", [accuracy(run), loss(run), correction(run), learning_rate(run)]),
        ("Clean and mislabelled samples", [shares(run), *attention(run), histogram(run), suspicion(run)]),
        ("Labels by class", [transition(run), weight_matrix(run), confusion(run), class_accuracy(run)]),
        ("Selection and speed", [*selections(run), *own_figures(run), throughput(run)]),
    ]


def head(run: RunRecord) -> Html:
    """Facts and results side by side; where the run has not ended, what is missing and how to go on."""
    left = element("section", element("h2", "Run"), table(facts(run)))
    right = element("section", element("h2", "Result"), results(run))
    return join([state(run), element("div", left, right, class_="columns")])


def state(run: RunRecord) -> Html:
    """Whether the run has ended, and if not, how far it is and how to go on."""
    notes = [element("p", problem) for problem in run.problems]
    if run.summary is None:
        last = run.history[-1]["epoch"] if run.history else 0
        planned = f" of {run.epochs}" if run.epochs is not None else ""
        folder = run.path.resolve()
        kept = (run.path / "checkpoint.pt").exists()
        where = "goes on from its last checkpoint" if kept else "begins again, since no checkpoint was written"
        notes.insert(
            0,
            element(
                "p",
                f"This run has not ended: {last}{planned} epochs are recorded and no summary.json can be read, so that "
                "the final result, each sample's corrected label and what is drawn from them are missing. It "
                f"{where} with ",
                element("code", f"fastnoise train --resume {shlex.quote(str(folder))}"),
            ),
        )
    return element("div", *notes, class_="note", role="status") if notes else Html()


# -- facts ---------------------------------------------------------------------------------------------------------


def facts(run: RunRecord) -> list[tuple[str, str]]:
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
    rows += [("noise asked for", config.get("labels") or config.get("noise"))]
    if run.labels is not None:
        requested, realised = run.labels.requested_rate, run.labels.realised_rate
        rows.append(("noise rate", _rates(requested, realised)))
        rows.append(("labels, SHA-256", f"{run.labels.sha256[:16]}…"))
    done = run.history[-1]["epoch"] if run.history else 0
    rows.append(("epochs", f"{done} of {run.epochs}" if run.epochs is not None else done))
    rows.append(("seed, of the noise", f"{config.get('seed', '-')}, {config.get('noise_seed', '-')}"))
    rows.append(
        ("optimiser", ", ".join(str(config[key]) for key in ("optimizer", "schedule") if key in config) or None)
    )
    rows.append(("learning rate, batch", f"{config.get('learning_rate', '-')}, {config.get('batch_size', '-')}"))
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


def results(run: RunRecord) -> Html:
    """The table that ended the run, or how it stands."""
    rows: list[Any] = []
    if run.summary is not None:
        try:
            columns = [list(column.cells) for column in result_table(run.summary).columns]
            rows = [[str(cell).replace(" %", "\xa0%") for cell in row] for row in zip(*columns, strict=True)]
            return table(rows, numbers=[1])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            return element("p", f"summary.json is not of this version of fastnoise ({type(error).__name__}: {error})")
    for key, name in (("test_accuracy", "test accuracy"), ("validation_accuracy", "validation accuracy")):
        epochs, values = run.series(key)
        if values:
            best = int(np.argmax(values))
            rows.append((f"{name}, last epoch so far", percent(values[-1]), f"epoch {epochs[-1]}"))
            rows.append((f"{name}, best so far", percent(values[best]), f"epoch {epochs[best]}"))
    return table(rows, numbers=[1]) if rows else element("p", "No epoch has ended yet.")


def appendix(run: RunRecord) -> Html:
    """Configuration and environments, folded."""
    config = table(sorted(run.config.items()))
    starts = [
        details(f"Environment of start {place}" if len(run.environment) > 1 else "Environment", table(_flat(start)))
        for place, start in enumerate(run.environment, 1)
    ]
    return join([details("Configuration", config) if run.config else "", *starts])


def _flat(value: dict[str, Any]) -> list[tuple[str, str]]:
    """A nested dictionary as lines; inner dictionaries in one line each."""

    def words(part: Any) -> str:
        if isinstance(part, dict):
            return ", ".join(f"{key} {words(inner)}" for key, inner in part.items())
        return ", ".join(map(words, part)) if isinstance(part, list) else "-" if part is None else str(part)

    return [(str(key), words(part)) for key, part in value.items()]


# -- accuracy ------------------------------------------------------------------------------------------------------


def _lines(run: RunRecord, keys: Sequence[tuple[str, str, str]], dash: str = "-") -> list[Series]:
    """A series for each (key, label, colour) that was recorded."""
    found = [(key, label, colour, *run.series(key)) for key, label, colour in keys]
    return [Series(key, label, epochs, values, colour, dash) for key, label, colour, epochs, values in found if values]


def accuracy(run: RunRecord) -> Chart | Missing:
    """Accuracies in training, validation and test over epochs."""
    series = _lines(run, [("train_accuracy_given", "training, given labels", ORANGE)])
    if (true := _true_accuracy(run)) is not None:
        series.append(true)
    series += _lines(
        run,
        [("validation_accuracy", "validation, given labels", PURPLE), ("test_accuracy", "test", BLUE)],
    )
    if not series:
        return "Accuracy: no epoch has been recorded"
    marks: list[tuple[str, float, float, str, str]] = []
    epochs, values = run.series("test_accuracy")
    if values:
        best = int(np.argmax(values))
        marks = [
            (f"best test {percent(values[best])}, epoch {epochs[best]}", epochs[best], values[best], "*", BLUE),
            (f"last test {percent(values[-1])}", epochs[-1], values[-1], "o", BLUE),
        ]
    return line_chart(
        "accuracy",
        "Accuracy over epochs.",
        "Training figures are of augmented images while the weights change. The best epoch is chosen on test data.",
        [Panel(series, label="accuracy", marks=marks)],
    )


def _true_accuracy(run: RunRecord) -> Series | None:
    """Training accuracy against the true labels: of clean and of mislabelled samples, weighted by their numbers."""
    labels = run.training_labels()
    if labels is None or labels[1] is None:
        return None
    wrong = float((labels[0] != labels[1]).mean())
    epochs, values = [], []
    for epoch in run.history:
        clean, mislabelled = number(epoch.get("clean_true")), number(epoch.get("mislabelled_true"))
        if (clean is None and wrong < 1) or (mislabelled is None and wrong > 0):
            continue
        epochs.append(epoch["epoch"])
        values.append((1 - wrong) * (clean or 0.0) + wrong * (mislabelled or 0.0))
    return Series("train_accuracy_true", "training, true labels", epochs, values, GREEN) if values else None


def loss(run: RunRecord) -> Chart | Missing:
    """Training loss, and the cross-entropy on the test set."""
    kinds = (("train_loss", "training, the method's own", ORANGE), ("test_loss", "test, cross-entropy", BLUE))
    panels = [
        Panel(series, title=title, shares=False)
        for key, title, colour in kinds
        if (series := _lines(run, [(key, "", colour)]))
    ]
    if not panels:
        return "Loss: no epoch has been recorded"
    return line_chart(
        "loss",
        "Loss over epochs.",
        "Losses of different methods cannot be compared; some, such as ELR's, fall below zero.",
        panels,
        width=HALF,
    )


# -- clean and mislabelled samples ---------------------------------------------------------------------------------


def shares(run: RunRecord) -> Chart | Missing:
    """Clean and mislabelled samples by what the network predicts for them (ELR, Figure 1)."""
    clean = _lines(run, [("clean_true", "true class", GREEN), ("clean_other", "another class", BLUE)])
    mislabelled = _lines(
        run,
        [
            ("mislabelled_true", "true class", GREEN),
            ("mislabelled_memorised", "given wrong label (memorised)", RED),
            ("mislabelled_other", "another class", BLUE),
        ],
    )
    panels = [
        Panel(series, title=title, label="share of the samples", zero=True)
        for title, series in (("clean samples", clean), ("mislabelled samples", mislabelled))
        if series
    ]
    if not panels:
        return "Predicted, memorised, other: " + (
            "the true labels are unknown" if run.history else "no epoch has been recorded"
        )
    return line_chart(
        "memorisation",
        "What the network predicts for clean and for mislabelled training samples.",
        "A network that memorises learns the wrong labels of the right-hand panel (ELR, Figure 1; NAL, Figure 1).",
        panels,
        shared=True,
        width=None if len(panels) > 1 else HALF,
    )


def attention(run: RunRecord) -> list[Chart | Missing]:
    """NAL's mean attention weight of both groups over epochs, and how well it tells them apart."""
    means = _lines(run, [("attention_clean", "clean", BLUE), ("attention_mislabelled", "mislabelled", RED)])
    area = _lines(run, [("attention_auroc", "", GREY)])
    if not means:
        return []
    panels = [Panel(means, title="mean attention weight", shares=False)]
    panels += [Panel(area, title="AUROC", shares=False)] if area else []
    caption = "AUROC: the probability that a clean sample has a larger weight than a mislabelled one; 0.5 is chance."
    return [line_chart("attention_epochs", "Attention weights over epochs.", caption, panels)]


def _weights(run: RunRecord) -> tuple[str, NDArray[Any]]:
    """NAL's attention weight of each training sample, else the method's confidence in its given label."""
    if "attention" in run.corrected:
        return "attention weight", run.corrected["attention"].astype(np.float64)
    return "confidence in the given label", run.corrected["confidence"].astype(np.float64)


def _no_estimates(run: RunRecord, truth: bool = False, classes: bool = False) -> Missing | None:
    """Why what rests on corrected.npz cannot be drawn, where `truth` needs true labels and `classes` a matrix."""
    if not run.corrected:
        if run.summary is None:
            return "there is no corrected.npz before the run has ended"
        if (run.path / "corrected.npz").exists():
            return "corrected.npz cannot be used"
        return f"method {plain(run.config.get('method', '?'))} estimates no confidence and corrects no label"
    if not len(run.corrected["given"]):
        return "corrected.npz has no samples"
    if truth and "true" not in run.corrected:
        return "the true labels are unknown"
    if classes and run.num_classes > _MOST_CLASSES:
        return f"{run.num_classes} classes are too many to draw"
    return None


def _wrong(run: RunRecord) -> NDArray[np.bool_] | None:
    columns = run.corrected
    return columns["given"] != columns["true"] if "true" in columns else None


def histogram(run: RunRecord) -> Chart | Missing:
    """Weights of clean and of mislabelled samples (NAL, Figure 2)."""
    if missing := _no_estimates(run):
        return f"Histogram of the weights: {missing}"
    words, values = _weights(run)
    wrong = _wrong(run)
    groups = [("all samples", GREY, values)]
    if wrong is not None:
        groups = [("clean", BLUE, values[~wrong]), ("mislabelled", RED, values[wrong])]
    groups = [group for group in groups if len(group[2])]
    return histogram_chart(
        "weights",
        f"Distribution of the {words}.",
        "At the end of the run; dotted lines are means (NAL, Figure 2).",
        groups,
        words,
    )


def weight_matrix(run: RunRecord) -> Chart | Missing:
    """Mean weight of the samples of each true and given class (NAL, Figure 4a)."""
    if missing := _no_estimates(run, truth=True, classes=True):
        return f"Weights by true and given class: {missing}"
    words, values = _weights(run)
    counts, sums = (_by_class(run, "true", "given", weights) for weights in (None, values))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    digits = 2 if high - low > 0.05 else 4
    matrix = Matrix(
        "mean",
        "",
        means,
        "true class",
        "given label",
        low,
        high,
        lambda value: f"{value:.{digits}f}",
        counts.astype(int),
    )
    return matrix_chart(
        "weight_matrix",
        f"Mean {words} by true and given class.",
        "The diagonal holds the clean samples; grey: no samples (NAL, Figure 4a).",
        [matrix],
        f"mean {words}",
        run.class_names(run.num_classes),
    )


def _by_class(run: RunRecord, rows: str, columns: str, weights: NDArray[Any] | None = None) -> NDArray[Any]:
    """[C, C]: how many samples, or the sum of their weights, by their classes in two columns of corrected.npz."""
    found, classes = run.corrected, run.num_classes
    pairs = found[rows].astype(np.int64) * classes + found[columns].astype(np.int64)
    return np.bincount(pairs, weights, minlength=classes**2).reshape(classes, classes)


# -- labels --------------------------------------------------------------------------------------------------------


def transition(run: RunRecord) -> Chart | Missing:
    """Given labels by true class, of all samples whose labels came with noise."""
    if run.labels is None:
        return "Transition: there are no labels to read"
    if run.labels.clean_labels is None:
        return "Transition: the true labels are unknown"
    if run.labels.num_classes > _MOST_CLASSES:
        return f"Transition: {run.labels.num_classes} classes are too many to draw"
    counts = run.labels.transition
    matrix = Matrix("share", "", as_shares(counts), "true class", "given label", counts=counts)
    return matrix_chart(
        "transition",
        "Transition from true classes to given labels.",
        f"Shares of each true class in per cent. {run.labels.describe()}.",
        [matrix],
        "share of the true class",
        run.class_names(run.num_classes),
    )


def confusion(run: RunRecord) -> Chart | Missing:
    """Given and corrected labels against the truth (NAL, Figures 4b and 4c); without truth, against each other."""
    if missing := _no_estimates(run, classes=True):
        return f"Confusion of corrected labels: {missing}"
    if "true" not in run.corrected:
        counts = _by_class(run, "given", "corrected")
        matrix = Matrix("corrected", "", as_shares(counts), "given label", "corrected label", counts=counts)
        return matrix_chart(
            "confusion",
            "Corrected labels against given ones.",
            "The true labels are unknown. Shares of each given label in per cent.",
            [matrix],
            "share of the given label",
            run.class_names(run.num_classes),
        )
    matrices = []
    for key in ("given", "corrected"):
        counts = _by_class(run, "true", key)
        right = counts.trace() / counts.sum()
        title = f"{key} labels, {percent(right)} right"
        matrices.append(Matrix(key, title, as_shares(counts), "true class", f"{key} label", counts=counts))
    return matrix_chart(
        "confusion",
        "Given and corrected labels against the truth.",
        "Training samples; shares of each true class in per cent (NAL, Figures 4b and 4c).",
        matrices,
        "share of the true class",
        run.class_names(run.num_classes),
    )


def class_accuracy(run: RunRecord) -> Chart | Missing:
    """Test accuracy of each class over epochs, or after the last one where classes are many."""
    found = [(epoch["epoch"], epoch.get("test_class_accuracy")) for epoch in run.history]
    rows = [(epoch, list(map(number, values))) for epoch, values in found if isinstance(values, list) and values]
    if not rows:
        return "Test accuracy by class: it was not recorded"
    classes = len(rows[-1][1])
    names = run.class_names(classes) or tuple(map(str, range(classes)))
    title = "Test accuracy by class"
    if classes <= len(COLOURS):
        series = []
        for label in range(classes):
            points = [(epoch, values[label]) for epoch, values in rows if label < len(values)]
            known = [(epoch, value) for epoch, value in points if value is not None]
            if known:
                places, values = [epoch for epoch, _ in known], [value for _, value in known]
                series.append(Series(f"class_{label}", names[label], places, values, COLOURS[label]))
        if not series:
            return f"{title}: the test set has no samples"
        caption = "One line for each true class."
        return line_chart("class_accuracy", f"{title} over epochs.", caption, [Panel(series, label="test accuracy")])
    epoch, last = rows[-1]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.bar(range(classes), [np.nan if value is None else value for value in last], width=1, color=BLUE)
        axes.set(xlabel="true class", ylabel="test accuracy")
        axes.yaxis.set_major_formatter(percent_ticks)
        axes.margins(x=0.01)

    return Chart(
        "class_accuracy", f"{title} after epoch {epoch}.", "", ("class", "accuracy"), list(enumerate(last)), draw
    )


def correction(run: RunRecord) -> Chart | Missing:
    """Share of training samples whose corrected label is the true one, over epochs (NAL, Figure 4d)."""
    series = _lines(run, [("correction_accuracy", "corrected labels", BLUE)])
    if not series:
        if not run.history:
            return "Correction accuracy: no epoch has been recorded"
        return "Correction accuracy: the method corrects no labels while it trains, or the true ones are unknown"
    labels = run.training_labels()
    if labels is not None and labels[1] is not None:
        right = float((labels[0] == labels[1]).mean())
        places = series[0].places
        series.append(
            Series("given_right", f"given labels, {percent(right)}", places, [right] * len(places), GREY, "--")
        )
    last = series[0].values[-1]
    return line_chart(
        "correction",
        "Correction accuracy over epochs.",
        f"Training samples whose corrected label is the true one, {percent(last)} at the end (NAL, Figure 4d).",
        [Panel(series, label="share of the samples")],
    )


def suspicion(run: RunRecord) -> Chart | Missing:
    """Precision against recall of the suspicion that a label is wrong."""
    if missing := _no_estimates(run, truth=True):
        return f"Precision and recall of the suspicion: {missing}"
    wrong = run.corrected["given"] != run.corrected["true"]
    if not wrong.any():
        return "Precision and recall of the suspicion: no label is wrong"
    confidence = run.corrected["confidence"].astype(np.float64)
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(wrong, -confidence)
    precision, recall, thresholds = precision[:-1], recall[:-1], -thresholds  # the last point stands for no sample
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(len(thresholds), _MOST_POINTS)).round().astype(int))
    average = float(average_precision_score(wrong, -confidence))
    suspected = run.corrected["suspected"]
    found = int((suspected & wrong).sum())
    at = (found / max(1, int(suspected.sum())), found / int(wrong.sum()))
    rows = [("curve", thresholds[place], recall[place], precision[place]) for place in kept]
    rows.append(("method's own", None, at[1], at[0]))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(recall[kept], precision[kept], color=BLUE, label=f"by confidence, average precision {average:.3f}")
        if suspected.any():
            words = f"what the method suspects: precision {percent(at[0])}, recall {percent(at[1])}"
            axes.plot([at[1]], [at[0]], "o", color=RED, label=words)
        axes.axhline(float(wrong.mean()), color=GREY, linestyle="--", label=f"chance, {percent(float(wrong.mean()))}")
        axes.set(
            xlabel="recall: found among wrong labels",
            ylabel="precision: wrong among found",
            xlim=(-0.02, 1.02),
            ylim=(0, 1.03),
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(percent_ticks)
        figure.legend(loc="outside lower center", ncols=1, fontsize=8)

    return Chart(
        "suspicion",
        "Precision and recall of the suspicion that a label is wrong.",
        "Samples in the order of rising confidence in their given labels.",
        ("point", "confidence_below", "recall", "precision"),
        rows,
        draw,
        height=3.7,
    )


# -- course of training --------------------------------------------------------------------------------------------


def selections(run: RunRecord) -> list[Chart | Missing]:
    """What the method selected in each epoch, and how right it was."""
    made: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for epoch in run.history:
        chosen = epoch.get("selections")
        for name, figures in chosen.items() if isinstance(chosen, dict) else ():
            if isinstance(figures, dict):
                made.setdefault(plain(name, _LONGEST), []).append((epoch["epoch"], figures))

    def line(name: str, key: str, label: str, colour: str) -> list[Series]:
        found = [(epoch, value) for epoch, figures in made[name] if (value := number(figures.get(key))) is not None]
        places, values = [epoch for epoch, _ in found], [value for _, value in found]
        return [Series(f"{name}_{key}", label, places, values, colour)] if found else []

    counts = [
        part for place, name in enumerate(made) for part in line(name, "samples", name, COLOURS[(place + 5) % 10])
    ]
    if not counts:
        return []
    panels = [Panel(counts, title="samples selected", shares=False, zero=True)]
    for name in made:
        parts = [
            *line(name, "precision", "right among the selected", BLUE),
            *line(name, "given_precision", "given label right among the selected", GREY),
            *line(name, "recall", "selected and right among all samples", GREEN),
            *line(name, "recovered", "selected and right among the mislabelled", ORANGE),
        ]
        if parts:
            panels.append(Panel(parts, title=f"{name}: how right", zero=True))
    caption = "Figures of the epochs that selected; right: the class that the method gives the sample is the true one."
    return [
        line_chart(
            "selections",
            "Samples that the method selected.",
            caption,
            panels,
            columns=min(3, len(panels)),
            width=None if len(panels) > 1 else HALF,
        )
    ]


_COMMON = {
    "epoch", "learning_rate", "train_loss", "train_accuracy_given", "clean_true", "clean_other", "mislabelled_true",
    "mislabelled_memorised", "mislabelled_other", "attention_clean", "attention_mislabelled", "attention_auroc",
    "correction_accuracy", "test_loss", "test_accuracy", "test_macro_f1", "test_top5", "validation_accuracy",
    "images_per_second", "data_wait", "seconds",
}  # fmt: skip
"""What the trainer records for every method; other numbers are the method's own."""


def own_figures(run: RunRecord) -> list[Chart | Missing]:
    """Numbers that the method adds to its epochs, such as the share that DivideMix trusts."""
    keys = dict.fromkeys(str(key) for epoch in run.history for key in epoch if key not in _COMMON)
    lines = [part for place, key in enumerate(keys) for part in _lines(run, [(key, "", COLOURS[place % 10])])]
    if not lines:
        return []
    panels = [Panel([line], title=plain(line.key, _LONGEST).replace("_", " "), shares=False) for line in lines[:12]]
    columns = min(4, len(panels))
    return [
        line_chart(
            "method_figures",
            "The method's own figures.",
            "As the method reports them after each epoch.",
            panels,
            columns=columns,
            width=HALF if columns < 3 else None,
        )
    ]


def throughput(run: RunRecord) -> Chart | Missing:
    """Images per second, and the share of time spent waiting for data."""
    speed = _lines(run, [("images_per_second", "", BLUE)])
    waiting = _lines(run, [("data_wait", "", ORANGE)])
    if not speed:
        return "Throughput: no epoch has been recorded"
    panels = [Panel(speed, title="images per second", shares=False, zero=True)]
    panels += [Panel(waiting, title="time waiting for data", zero=True)] if waiting else []
    caption = "In training, evaluation left out; the first step, which compiles, is not counted."
    return line_chart("throughput", "Throughput over epochs.", caption, panels, width=HALF)


def learning_rate(run: RunRecord) -> Chart | Missing:
    """The learning rate over epochs."""
    series = _lines(run, [("learning_rate", "", PURPLE)])
    if not series:
        return "Learning rate: no epoch has been recorded"
    return line_chart(
        "learning_rate",
        "Learning rate over epochs.",
        f"Schedule {plain(run.config.get('schedule', '?'))}.",
        [Panel(series, shares=False, zero=True)],
    )
