"""What a run shows: a progress bar or plain lines during training, and one table at the end."""

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import own
from ..data.names import is_named
from ..tasks.names import Score, score_in, second_tests_in
from ..texts import counted

_FIGURES = (
    ("correction_accuracy", "corrected", "{:.2%}"),
    ("attention_auroc", "AUROC", "{:.3f}"),
)


class RunConsole(Console):
    """A console that goes on in silence when its output cannot be written: to a pipe that nobody reads any more, or to
    a full disk. Training looks at `lost` and saves. Markup is off, since paths and names may look like it."""

    lost: str | None = None
    """What the system said."""

    def __init__(self, width: int | None = None):
        super().__init__(width=width, markup=False, emoji=False)  # which FILE.csv:label: may look like too

    def print(self, *objects: Any, **options: Any) -> None:
        if self.lost is not None:
            return
        try:
            super().print(*objects, **options)
            self.file.flush()
        except (OSError, SystemExit) as error:  # rich ends the process when a pipe is closed
            self.lost = (error.strerror if isinstance(error, OSError) else None) or "Broken pipe"
            with contextlib.suppress(OSError, ValueError):  # what is left in its buffer would fail again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def make_console() -> Console:
    """A console on standard output. If that is no terminal, it is wide enough that no line of a table is wrapped."""
    console = RunConsole()
    return console if console.is_terminal else RunConsole(width=120)


def output_lost(console: Console) -> str | None:
    """Why the output cannot be written any more; None while it can."""
    return console.lost if isinstance(console, RunConsole) else None


def percent(share: float) -> str:
    """A share as a percentage with two decimals."""
    return f"{100 * share:.2f} %"


def how_to_resume(folder: Path, fields: Mapping[str, Any]) -> str:
    """What continues a run: words for the shell, or Python if its data set was given as arrays.

    Args:
        folder: of the run.
        fields: its configuration by flat names. The files of code that it names are among the words.
    """
    dataset = fields.get("dataset")
    if isinstance(dataset, str) and not is_named(dataset):
        place = json.dumps(str(folder), ensure_ascii=False)
        return f'fastnoise.train(config.replace({{"run_dir": {place}}}), dataset=dataset, resume=True)'
    return f"fastnoise train --resume {shlex.quote(str(folder))}{own.words_for(fields)}"


class Display:
    """Progress of training: a bar on a terminal, one plain line per epoch elsewhere.

    Args:
        epochs: of the whole run.
        batches: per epoch.
        every: batches between two readings of the running loss, which wait for the device; made only for the
            bar, never where nobody watches.
        score: shown of each epoch.
    """

    def __init__(self, console: Console, epochs: int, batches: int, every: int, score: Score):
        self.score = score
        self.console, self.epochs, self.batches, self.every = console, epochs, batches, every
        self._live = console.is_terminal
        self._began = time.monotonic()
        self._first: int | None = None
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} images/s"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not self._live,
            transient=True,
        )
        self._task = self.progress.add_task("train", total=epochs * batches, epoch=1, epochs=epochs, loss="-", rate="-")

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def batch(
        self, epoch: int, batch: int, images: int, seconds: float, mean_loss: Callable[[], float], steps: int = 1
    ) -> None:
        """After a batch, or the last of several `steps`: `images` seen in `seconds` of this epoch.

        `mean_loss` reads the device.
        """
        if self._live and (batch % self.every < steps or batch == self.batches):
            self.progress.update(
                self._task,
                completed=(epoch - 1) * self.batches + batch,
                epoch=epoch,
                loss=f"{mean_loss():.4f}",
                rate=f"{images / max(seconds, 1e-9):,.0f}",
            )

    def epoch(self, figures: dict[str, Any]) -> None:
        """After an epoch: its line of figures, with the time left."""
        number = figures["epoch"]
        self._first = number - 1 if self._first is None else self._first
        left = (time.monotonic() - self._began) / (number - self._first) * (self.epochs - number)
        words = [f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}", f"loss {figures['train_loss']:.4f}"]
        score = self.score
        form = "{:.2%}" if score.share else "{:.6g}"
        for part in ("test", *second_tests_in(figures, score), "validation"):
            if f"{part}_{score.name}" in figures:
                words.append(f"{part} {form.format(figures[f'{part}_{score.name}'])}")
        words += [f"{name} {form.format(figures[key])}" for key, name, form in _FIGURES if key in figures]
        for name, chosen in figures.get("selections", {}).items():
            right = f", {chosen['precision']:.2%} right" if "precision" in chosen else ""
            words.append(f"{name} {chosen['samples']}{right}")
        words += [f"{figures['images_per_second']:,.0f} images/s", f"{left:.0f} s left"]
        self.console.print("  ".join(words), highlight=False, soft_wrap=True)


AS_MANY = "if as many are flagged as there are; see scores.csv"
LABELS_ARE = {
    "given": "on given labels, of which some may be wrong",
    "partly given": "on true labels where they are known, else on given ones",
}
"""What the labels of a test set are -> what is said of the accuracy on them; nothing if they are true."""


def mean_of_last(epochs: int) -> str:
    """What the mean over the last ten of so many epochs is of."""
    return "mean of the last ten" if epochs >= 10 else f"mean of all {counted(epochs, 'epoch')}"


def result_table(summary: dict[str, Any]) -> Table:
    """The table at the end of a run, from the content of summary.json."""
    table = Table(title=summary["title"], show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    score = score_in(summary)
    test = summary[f"test_{score.name}"]
    on = LABELS_ARE.get(summary.get("test_labels", "true"), "")
    table.add_row(f"test {score.title}, last epoch", score.shown(test["last"]), on)
    if (epochs := summary.get("epochs", 10)) > 1:
        table.add_row(f"test {score.title}, {mean_of_last(epochs)}", score.shown(test["mean_last_10"]), "")
    table.add_row(
        f"test {score.title}, best", score.shown(test["best"]), f"epoch {test['best_epoch']}, selected on test data"
    )
    for name in second_tests_in(summary, score):
        second = f"{name}_top5"
        more = f"top-5 accuracy {percent(summary[second]['last'])}" if second in summary else ""
        table.add_row(f"{name} {score.title}, last epoch", score.shown(summary[f"{name}_{score.name}"]["last"]), more)
    if "test_macro_f1" in summary:
        top5 = f"top-5 accuracy {percent(summary['test_top5']['last'])}" if "test_top5" in summary else ""
        table.add_row("macro F1, last epoch", percent(summary["test_macro_f1"]["last"]), top5)
    for key, name in (("test_mae", "mean absolute error"), ("test_r2", "R2, share of the variance explained")):
        if key in summary:
            table.add_row(f"{name}, last epoch", f"{summary[key]['last']:.6g}", "")
    if f"validation_{score.name}" in summary:
        chosen = summary[f"validation_{score.name}"]
        table.add_row(
            f"test {score.title} at the best validation epoch",
            score.shown(chosen["test_at_best"]),
            f"epoch {chosen['best_epoch']}, validation {score.shown(chosen['best'])} on given labels",
        )
    table.add_section()
    shares = summary["training_samples"]
    for group, names in (("clean", ("true", "other")), ("mislabelled", ("true", "memorised", "other"))):
        for name in names:
            if f"{group}_{name}" in shares:
                words = {"true": "predicted true", "memorised": "memorised (predicted as given)", "other": "other"}
                table.add_row(f"{group} samples, {words[name]}", percent(shares[f"{group}_{name}"]), "")
    for key, said in (
        ("clean_mse", "samples with right values, mean squared error"),
        ("mislabelled_mse_true", "samples with wrong values, against the true ones"),
        ("mislabelled_mse_given", "samples with wrong values, against the given ones"),
    ):
        if key in shares:
            table.add_row(said, f"{shares[key]:.6g}", "")
    if "attention" in summary:
        attention = summary["attention"]
        for group in ("clean", "mislabelled"):
            if f"attention_{group}" in attention:
                table.add_row(f"mean attention weight, {group}", f"{attention[f'attention_{group}']:.4f}", "")
        if "attention_auroc" in attention:
            table.add_row("AUROC of the weight, clean against mislabelled", f"{attention['attention_auroc']:.4f}", "")
    if "correction_accuracy" in summary:
        table.add_row("correction accuracy of the targets", percent(summary["correction_accuracy"]), "")
    if "label_errors" in summary:
        errors = summary["label_errors"]
        table.add_row("labels suspected", percent(errors["suspected"]), "in corrected.csv")
        for name in ("precision", "recall"):
            if name in errors:
                table.add_row(f"{name} of the suspicion", percent(errors[name]), "")
        if "missed" in errors:
            table.add_row("wrong labels missed by the confidence", percent(errors["missed"]), AS_MANY)
    for name, said in (("aum", "AUM"), ("confidence", "the mean probability"), ("forgetting", "forgetting")):
        if name in (found := summary.get("scores", {})):
            table.add_row(f"wrong labels missed by {said}", percent(found[name]["missed"]), AS_MANY)
    table.add_section()
    speed = summary["throughput"]
    table.add_row("images per second", f"{speed['images_per_second']:,.0f}", "training, first step left out")
    table.add_row("time waiting for data", percent(speed["data_wait"]), "share of training time")
    if "collectives" in speed:
        table.add_row("time in collectives", percent(speed["collectives"]), "of steps; share of training time")
    if "peak_memory_gib" in speed:
        table.add_row("peak GPU memory", f"{speed['peak_memory_gib']:.2f} GiB", "reserved by PyTorch")
    table.add_row("first step", f"{speed['first_step_seconds']:.2f} s", "compilation included")
    return table
