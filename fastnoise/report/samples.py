"""Charts of a run's training samples: what labels.npz and corrected.npz hold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.display import percent
from ..noise.plot import as_shares
from .charts import BLUE, GREY, RED, Chart, Matrix, Missing, histogram_chart, matrix_chart, percent_ticks
from .html import plain
from .stored import StoredRun

_MOST_POINTS = 400  # of a precision-recall curve
_MOST_CLASSES = 1000  # of a matrix: about a pixel each


def _weights(run: StoredRun) -> tuple[str, NDArray[Any]]:
    """NAL's attention weight of each training sample, or for other methods the confidence in the given label."""
    if "attention" in run.corrected:
        return "attention weight", run.corrected["attention"].astype(np.float64)
    return "confidence in the given label", run.corrected["confidence"].astype(np.float64)


def _no_estimates(run: StoredRun, truth: bool = False, classes: bool = False) -> Missing | None:
    """Why a chart of corrected.npz cannot be drawn; None if it can. `truth`: the chart needs true labels. `classes`: it
    has a cell for each pair of classes."""
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


def _known(run: StoredRun) -> NDArray[np.bool_]:
    """Of which samples in corrected.npz the true label is known; of all without such a column."""
    given = run.corrected["given"]
    return run.corrected["true"] >= 0 if "true" in run.corrected else np.ones(len(given), bool)


def _wrong(run: StoredRun) -> NDArray[np.bool_] | None:
    """Of the known samples, which labels are wrong."""
    columns, known = run.corrected, _known(run)
    return columns["given"][known] != columns["true"][known] if "true" in columns else None


def histogram(run: StoredRun) -> Chart | Missing:
    """Weights of clean and of mislabelled samples (NAL, Figure 2)."""
    if missing := _no_estimates(run):
        return f"Histogram of the weights: {missing}"
    words, values = _weights(run)
    wrong = _wrong(run)
    groups = [("all samples", GREY, values)]
    if wrong is not None:
        values = values[_known(run)]
        groups = [("clean", BLUE, values[~wrong]), ("mislabelled", RED, values[wrong])]
    groups = [group for group in groups if len(group[2])]
    return histogram_chart(
        "weights",
        f"Distribution of the {words}.",
        "At the end of the run. Dotted lines are means (NAL, Figure 2).",
        groups,
        words,
    )


def weight_matrix(run: StoredRun) -> Chart | Missing:
    """Mean weight of the samples of each true and given class (NAL, Figure 4a)."""
    if missing := _no_estimates(run, truth=True, classes=True):
        return f"Weights by true and given class: {missing}"
    words, values = _weights(run)
    counts, sums = (_by_class(run, "true", "given", weights) for weights in (None, values))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    true, given = run.words
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    digits = 2 if high - low > 0.05 else 4
    matrix = Matrix(
        "mean",
        "",
        means,
        true,
        given,
        low,
        high,
        lambda value: f"{value:.{digits}f}",
        counts.astype(int),
    )
    return matrix_chart(
        "weight_matrix",
        f"Mean {words} by {true} and {given}.",
        "The diagonal holds the clean samples. Grey cells have no samples (NAL, Figure 4a).",
        [matrix],
        f"mean {words}",
        run.class_names(run.num_classes),
    )


def _by_class(run: StoredRun, rows: str, columns: str, weights: NDArray[Any] | None = None) -> NDArray[Any]:
    """[C, C]: how many samples, or the sum of their weights, by their classes in two columns of corrected.npz."""
    found, classes, known = run.corrected, run.num_classes, _known(run)
    pairs = found[rows][known].astype(np.int64) * classes + found[columns][known].astype(np.int64)
    weights = None if weights is None else weights[known]
    return np.bincount(pairs, weights, minlength=classes**2).reshape(classes, classes)


def transition(run: StoredRun) -> Chart | Missing:
    """Given labels by true class, for all samples that the noise applied to."""
    if run.labels is None:
        return "Transition: there are no labels to read"
    if run.labels.labels.ndim > 1:
        return "Transition: a sample has not one class"
    if not run.labels.known.any():
        return "Transition: the true labels are unknown"
    if run.labels.num_classes > _MOST_CLASSES:
        return f"Transition: {run.labels.num_classes} classes are too many to draw"
    counts = run.labels.transition
    true, given = run.words
    matrix = Matrix("share", "", as_shares(counts), true, given, counts=counts)
    return matrix_chart(
        "transition",
        f"Transition from {true} to {given}.",
        f"Shares of each {true} in per cent. {run.labels.describe()}.",
        [matrix],
        f"share of the {true}",
        run.class_names(run.num_classes),
    )


def confusion(run: StoredRun) -> Chart | Missing:
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
    true, given = run.words
    for key, label in (("given", given), ("corrected", "corrected label")):
        counts = _by_class(run, "true", key)
        right = counts.trace() / counts.sum()
        title = f"{label}s, {percent(right)} {'right' if true == 'true class' else 'as given'}"
        matrices.append(Matrix(key, title, as_shares(counts), true, label, counts=counts))
    return matrix_chart(
        "confusion",
        f"{given.capitalize()}s and corrected labels against the {true}.",
        f"Training samples; shares of each {true} in per cent (NAL, Figures 4b and 4c).",
        matrices,
        f"share of the {true}",
        run.class_names(run.num_classes),
    )


def suspicion(run: StoredRun) -> Chart | Missing:
    """Precision against recall of the suspicion that a label is wrong."""
    if missing := _no_estimates(run, truth=True):
        return f"Precision and recall of the suspicion: {missing}"
    wrong, known = _wrong(run), _known(run)
    assert wrong is not None  # `_no_estimates` has seen the true labels
    if not wrong.any():
        return "Precision and recall of the suspicion: no label is wrong"
    confidence = run.corrected["confidence"].astype(np.float64)[known]
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(wrong, -confidence)
    precision, recall, thresholds = precision[:-1], recall[:-1], -thresholds  # the last point stands for no sample
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(len(thresholds), _MOST_POINTS)).round().astype(int))
    average = float(average_precision_score(wrong, -confidence))
    suspected = run.corrected["suspected"][known]
    found = int((suspected & wrong).sum())
    at = (found / max(1, int(suspected.sum())), found / int(wrong.sum()))
    rows = [("curve", thresholds[place], recall[place], precision[place]) for place in kept]
    rows.append(("method's own", None, at[1], at[0]))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(recall[kept], precision[kept], color=BLUE, label=f"by confidence, average precision {average:.3f}")
        if suspected.any():
            words = f"labels that the method suspects: precision {percent(at[0])}, recall {percent(at[1])}"
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
        "Samples are sorted by confidence in their given label, lowest first.",
        ("point", "confidence_below", "recall", "precision"),
        rows,
        draw,
        height=3.7,
    )
