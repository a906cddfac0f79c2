"""Charts of a run over its epochs: what metrics.jsonl holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.display import percent
from ..tasks.names import second_tests_in
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
    Missing,
    Panel,
    Series,
    line_chart,
    percent_ticks,
)
from .html import plain
from .stored import StoredRun, number

_LONGEST = 40  # letters of a name in a chart


def _lines(run: StoredRun, keys: Sequence[tuple[str, str, str]], dash: str = "-") -> list[Series]:
    """A series for each (key, label, colour) that was recorded."""
    found = [(key, label, colour, *run.series(key)) for key, label, colour in keys]
    return [Series(key, label, epochs, values, colour, dash) for key, label, colour, epochs, values in found if values]


def accuracy(run: StoredRun) -> Chart | Missing:
    """Training, validation and test accuracy over epochs. Tasks other than classification show their own score."""
    score = run.score
    series = _lines(run, [("train_accuracy_given", "training, given labels", ORANGE)]) if score.share else []
    if (true := _true_accuracy(run)) is not None:
        series.append(true)
    series += _lines(
        run,
        [(f"validation_{score.name}", "validation, given labels", PURPLE), (f"test_{score.name}", "test", BLUE)],
    )
    second = _second_tests(run)
    series += _lines(run, [(f"{name}_{score.name}", plain(name, _LONGEST), BLUE) for name in second], "--")
    title = score.title.capitalize()
    if not series:
        return f"{title}: no epoch has been recorded"
    marks: list[tuple[str, float, float, str, str]] = []
    epochs, values = run.series(f"test_{score.name}")
    if values:
        best = int(np.argmax(values) if score.higher else np.argmin(values))
        marks = [
            (f"best test {score.shown(values[best])}, epoch {epochs[best]}", epochs[best], values[best], "*", BLUE),
            (f"last test {score.shown(values[-1])}", epochs[-1], values[-1], "o", BLUE),
        ]
    return line_chart(
        "accuracy",
        f"{title} over epochs.",
        "Training figures are taken on augmented images while the weights change. Test data chose the best epoch.",
        [Panel(series, label=score.title, marks=marks, shares=score.share)],
    )


def _second_tests(run: StoredRun) -> list[str]:
    return second_tests_in(run.history[-1], run.score) if run.history else []


def _true_accuracy(run: StoredRun) -> Series | None:
    """Training accuracy against the true labels: of clean and of mislabelled samples, weighted by their numbers."""
    labels = run.training_labels()
    if labels is None or labels[1] is None:
        return None
    known = labels[1] >= 0
    wrong = float((labels[0] != labels[1])[known].mean())
    epochs, values = [], []
    for epoch in run.history:
        clean, mislabelled = number(epoch.get("clean_true")), number(epoch.get("mislabelled_true"))
        if (clean is None and wrong < 1) or (mislabelled is None and wrong > 0):
            continue
        epochs.append(epoch["epoch"])
        values.append((1 - wrong) * (clean or 0.0) + wrong * (mislabelled or 0.0))
    words = "true labels" if run.words[0] == "true class" else "labels before noise"
    return Series("train_accuracy_true", f"training, {words}", epochs, values, GREEN) if values else None


def loss(run: StoredRun) -> Chart | Missing:
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


def shares(run: StoredRun) -> Chart | Missing:
    """Clean and mislabelled samples by what the network predicts for them (ELR, Figure 1)."""
    true, given = run.words
    clean = _lines(run, [("clean_true", true, GREEN), ("clean_other", "another class", BLUE)])
    mislabelled = _lines(
        run,
        [
            ("mislabelled_true", true, GREEN),
            ("mislabelled_memorised", f"wrong {given} (memorised)", RED),
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


def attention(run: StoredRun) -> list[Chart | Missing]:
    """NAL's mean attention weight of both groups over epochs, and how well it tells them apart."""
    means = _lines(run, [("attention_clean", "clean", BLUE), ("attention_mislabelled", "mislabelled", RED)])
    area = _lines(run, [("attention_auroc", "", GREY)])
    if not means:
        return []
    panels = [Panel(means, title="mean attention weight", shares=False)]
    panels += [Panel(area, title="AUROC", shares=False)] if area else []
    caption = "AUROC: the probability that a clean sample has a larger weight than a mislabelled one; 0.5 is chance."
    return [line_chart("attention_epochs", "Attention weights over epochs.", caption, panels)]


def gradients(run: StoredRun) -> list[Chart | Missing]:
    """The loss's gradients at the logits, of clean and of mislabelled samples (--gradients)."""

    def groups(prefix: str, dash: str = "-", words: str = "") -> list[Series]:
        keys = [(f"{prefix}_clean", f"clean{words}", BLUE), (f"{prefix}_mislabelled", f"mislabelled{words}", RED)]
        return _lines(run, keys, dash)

    sizes, pulls = groups("gradient"), groups("pull")
    if not sizes:
        return []
    share = _lines(run, [("gradient_share_clean", "", BLUE)])
    panels = [Panel(sizes, title="mean length", shares=False, zero=True)]
    panels += [Panel(share, title="share of the clean samples in all", zero=True)] if share else []
    if pulls:
        entries = [*pulls, *groups("ce_pull", "--", ", cross-entropy's part")]
        panels.append(Panel(entries, title="entry of the true class", shares=False))
    caption = (
        "Wrong labels are memorised if their gradients outweigh the others (NAL, Figure 3). An entry below zero pulls "
        "towards the true class; between the lines of a colour lies what the method adds (ELR, Figure 2)."
    )
    return [line_chart("gradients", "Gradients of the loss at the logits over epochs.", caption, panels, columns=3)]


def class_accuracy(run: StoredRun) -> Chart | Missing:
    """Test accuracy of each class over epochs; if there are many classes, only after the last epoch."""
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
        caption = f"One line for each {run.test_class}."
        return line_chart("class_accuracy", f"{title} over epochs.", caption, [Panel(series, label="test accuracy")])
    epoch, last = rows[-1]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.bar(range(classes), [np.nan if value is None else value for value in last], width=1, color=BLUE)
        axes.set(xlabel=run.test_class, ylabel="test accuracy")
        axes.yaxis.set_major_formatter(percent_ticks)
        axes.margins(x=0.01)

    return Chart(
        "class_accuracy", f"{title} after epoch {epoch}.", "", ("class", "accuracy"), list(enumerate(last)), draw
    )


def correction(run: StoredRun) -> Chart | Missing:
    """Share of training samples whose corrected label is the true one, over epochs (NAL, Figure 4d)."""
    series = _lines(run, [("correction_accuracy", "corrected labels", BLUE)])
    if not series:
        if not run.history:
            return "Correction accuracy: no epoch has been recorded"
        return "Correction accuracy: the method corrects no labels in training, or the true labels are unknown"
    labels = run.training_labels()
    if labels is not None and labels[1] is not None:
        right = float((labels[0] == labels[1])[labels[1] >= 0].mean())
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


def selections(run: StoredRun) -> list[Chart | Missing]:
    """What the method selected in each epoch, and how often it was right."""
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
    caption = "Only epochs with a selection. Right: the class that the method assigns to the sample is the true one."
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
    "test_mean_average_precision", "validation_mean_average_precision", "validation_loss", "train_mse_given",
    "test_mse", "validation_mse",
    "gradient_clean", "gradient_mislabelled", "gradient_share_clean", "pull_clean", "pull_mislabelled", "ce_pull_clean",
    "ce_pull_mislabelled", "images_per_second", "data_wait", "collectives", "seconds",
    "epoch_seconds", "memory_gib", "gradient_norm",
}  # fmt: skip
"""Numbers that the trainer records for every method. Other numbers come from the method."""


def own_figures(run: StoredRun) -> list[Chart | Missing]:
    """Numbers that the method adds to its epochs, such as the share that DivideMix trusts."""
    second = tuple(f"{name}_" for name in _second_tests(run))
    keys = dict.fromkeys(
        str(key) for epoch in run.history for key in epoch if key not in _COMMON and not str(key).startswith(second)
    )
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


def throughput(run: StoredRun) -> Chart | Missing:
    """Images per second, and the share of time spent waiting for data."""
    speed = _lines(run, [("images_per_second", "", BLUE)])
    waiting = _lines(run, [("data_wait", "", ORANGE)])
    if not speed:
        return "Throughput: no epoch has been recorded"
    panels = [Panel(speed, title="images per second", shares=False, zero=True)]
    panels += [Panel(waiting, title="time waiting for data", zero=True)] if waiting else []
    caption = "Training only, without evaluation. The first step, which compiles, is not counted."
    return line_chart("throughput", "Throughput over epochs.", caption, panels, width=HALF)


def memory(run: StoredRun) -> list[Chart | Missing]:
    """The GPU's memory that PyTorch had reserved after each epoch; nothing for runs on a CPU."""
    series = _lines(run, [("memory_gib", "GiB", GREY)])
    if not series:
        return []
    caption = "What PyTorch had reserved after each epoch."
    return [line_chart("memory", "GPU memory over epochs, GiB.", caption, [Panel(series, shares=False, zero=True)])]


def gradient_norm(run: StoredRun) -> list[Chart | Missing]:
    """The norm of the networks' gradients; nothing for runs that did not note it."""
    series = _lines(run, [("gradient_norm", "norm", GREY)])
    if not series:
        return []
    caption = "Euclidean norm over all weights before clipping, mean over each epoch's steps."
    return [
        line_chart("gradient_norm", "Gradient norm over epochs.", caption, [Panel(series, shares=False, zero=True)])
    ]


def learning_rate(run: StoredRun) -> Chart | Missing:
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
