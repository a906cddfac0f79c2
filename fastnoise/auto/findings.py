"""How many labels of a data set are wrong, and how, by two short trainings."""

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cleaning.pool import Judged, fold_of, load_judged, part_of
from ..cleaning.testimony import LogitWitness
from ..config import RunConfig
from ..data import ImageDataset
from ..engine.prepare import load_images
from ..errors import ConfigError
from ..recipes import recipe
from .answers import LEAST_SURE, read

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

SHARE = 0.15
"""The largest share of the run's own passes over images that the probe takes, evaluations counted as a third."""

MOST_EPOCHS = 16
"""Epochs of a course at most. Longer ones begin to learn the wrong labels by heart."""

LEAST_EPOCHS = 2

MOST_NUMBERS = 50_000_000
"""Images times classes: 50,000 images of 1,000 classes, 400 MB of answers."""

LEAST_IMAGES = 60
"""Of a probe in all, and LEAST_SURE of each class on average. From fewer its figures are guesses."""

LEAST_STEPS, LEAST_BATCH = 300, 32
"""Steps that each network should make; if batches must be smaller for it, they have at least this many images."""

WEAK = 0.5
"""Agreement with unseen labels below which it is said that the networks may be what is wrong."""

COURSE = {"optimizer": "adam", "learning_rate": 3e-3, "weight_decay": 0.0, "schedule": "one_cycle:0.3"}
"""Learns in few steps, whatever the network. The run's own rates are for long courses."""

_METHOD = "volminnet"
"""Its network answers with the chances of the right class, since its transition matrix takes up what is wrong with the
labels. The answers of plain networks, and of ELR's, follow pair noise of 40 %."""


class TooLittle(ConfigError):
    """There are too few images or epochs for a probe."""


@dataclass(frozen=True)
class Findings:
    """What is found of N labels of C classes. Shares are from 0 to 1."""

    images: int
    """N"""
    classes: int
    """C"""
    rate: float
    """Of wrong labels."""
    concentration: float
    """Of a class's wrong labels, the share that is its commonest wrong one; the mean over classes, each weighted by its
    wrong labels. 1 for pair noise, about 1 / (C - 1) for symmetric noise."""
    worst: float
    """The largest rate of a class."""
    instance: float
    """How far wrong labels depend on images within their class: the test's statistic for each degree of freedom, less
    the 1 that it has by chance, over the number of images and times 1,000. NaN if it is not tested."""
    learnt: float
    """Of the images whose labels they have not seen, the share that the networks seem to answer right: their agreement
    with the labels over what it would be if they made no mistakes."""
    seconds: float
    """The probe took."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Findings":
        """The findings in a table's row, of numbers or of the texts that `row` makes of them.

        KeyError or ValueError if the row does not hold them.
        """
        numbers: dict[str, Any] = {field.name: float(row[field.name]) for field in fields(cls)}
        return cls(**{**numbers, "images": int(numbers["images"]), "classes": int(numbers["classes"])})

    def row(self) -> dict[str, str]:
        """The numbers as texts, for a table's row."""
        return {field.name: f"{getattr(self, field.name):.6g}" for field in fields(self)}

    @property
    def agreement(self) -> float:
        """The share of unseen labels that the networks answer with."""
        return self.learnt * (1 - self.rate)

    @property
    def blind(self) -> bool:
        """Whether the networks agree with unseen labels no more than by chance (by three standard deviations of it)."""
        chance = 1 / self.classes
        return self.agreement < chance + 3 * math.sqrt(chance * (1 - chance) / self.images)

    @property
    def weak(self) -> bool:
        """Whether the networks agree with so few of the unseen labels that they may be what is wrong."""
        return self.agreement < WEAK

    def describe(self) -> str:
        """One line."""
        if self.blind:
            return (
                f"probe of {self.seconds:.0f} s: networks agree with {100 * self.agreement:.0f} % of unseen labels, no "
                "more than by chance: they have learnt nothing, so nothing can be said of the labels"
            )
        kind = "spread over the other classes"
        if self.concentration > 0.6:
            kind = "most of a class's with one other class"
        elif self.concentration > 2.5 / max(2, self.classes - 1):
            kind = "some pairs of classes above others"
        if self.rate < 0.02:
            kind = "too few to say which"
        weak = ""
        if self.weak:
            weak = (
                f", and agree with {100 * self.agreement:.0f} % of the labels, so some of it may be their mistakes: "
                "more --epochs let them look longer"
            )
        return (
            f"probe of {self.seconds:.0f} s: about {100 * self.rate:.0f} % of the labels look wrong ({kind}), in the "
            f"worst class {100 * self.worst:.0f} %; networks answer about {100 * min(1, self.learnt):.0f} % of unseen "
            f"images right{weak}"
        )


class _Answers(LogitWitness):
    """The mean log probabilities over the second half of a course."""

    def __init__(self, epochs: int, count: int, num_classes: int):
        super().__init__(1, count, num_classes)
        self.first, self.epochs = epochs // 2, epochs

    def note(self, epoch: int, logits: "Tensor", index: "Tensor") -> None:
        if epoch >= self.first:
            self.logits[0, index] += logits.float().log_softmax(1) / (self.epochs - self.first)


def course(config: RunConfig, images: int, classes: int) -> tuple[int, int]:
    """Epochs of each of the two networks, and images that they share, so that the probe keeps within SHARE of the run,
    and its answers within MOST_NUMBERS.

    Two networks learn from half of the images each, and after each epoch answer for the other half: an epoch of both is
    a pass with gradients and a third of one.
    """
    visits = images  # in an epoch of the run
    if config.data.epoch_batches is not None:
        visits = min(images, config.data.epoch_batches * config.data.batch_size)
    passes = SHARE * config.optim.epochs * visits / (1 + 1 / 3)
    epochs = int(min(MOST_EPOCHS, max(LEAST_EPOCHS, passes // images)))
    return epochs, int(min(images, passes // epochs, MOST_NUMBERS // classes))


def look_at(config: RunConfig, dataset: ImageDataset | None = None) -> Judged:
    """The labels that a run of method auto would learn from.

    ConfigError for another task than classification; FastnoiseError as for a run.
    """
    dataset = load_images(config) if dataset is None else dataset
    if dataset.task != "classification":
        raise ConfigError(
            f"--method auto chooses for classification; {dataset.name} is for {dataset.task}: name a method"
        )
    loaded = _plain(config).replace({"val_fraction": config.data.val_fraction})  # these don't take part in training
    return load_judged(loaded, dataset=dataset, tested=False)


def _plain(config: RunConfig) -> RunConfig:
    """The configuration of a network that looks at the labels."""
    changes = {"val_fraction": 0.0, "run_dir": None, "log": "none", "average_weights": "none", "patience": 0}
    changes |= {"epoch_batches": None, "save_tables_every": 1}
    if config.data.balance == "subset":  # of a short epoch, which the probe has not
        changes["balance"] = "none"
    changes |= {"fused_head": "auto", "gradients": False, "target_dtype": "float32", "target_place": "device"}
    return replace(config, method=recipe(_METHOD).method).replace(changes)


def probe(config: RunConfig, judged: Judged | None = None, console: "Console | None" = None) -> Findings:
    """Look at the training labels that `config` describes. True labels have no part in it.

    Args:
        config: of the run that is to be; its network and data are the probe's too.
        judged: the labels (`look_at`), if they are loaded already.
        console: gets a line before the probe begins.

    TooLittle if there are too few images or epochs; otherwise as in `look_at`.
    """
    began = time.perf_counter()
    judged = look_at(config) if judged is None else judged
    classes, images = len(judged.data.class_names), len(judged.given)
    epochs, count = course(config, images, classes)
    config = _plain(config)
    if count < max(LEAST_IMAGES, LEAST_SURE * classes):
        raise TooLittle(
            f"--method auto needs more images or --epochs for its probe: {images} images of {classes} "
            f"classes, {config.optim.epochs} epochs; name a method"
        )
    if console is not None:
        console.print(
            f"auto: two networks learn from half of {count} images each, of {images} for training, for {epochs} "
            "epochs, to see what is wrong",
            highlight=False,
            soft_wrap=True,
        )
    seed = config.engine.seed
    kept = np.sort(np.random.default_rng(seed).permutation(images)[:count])
    fold = fold_of(judged.given[kept], 2, seed)
    answers = np.zeros((count, classes))
    batch = min(config.data.batch_size, max(LEAST_BATCH, count // 2 * epochs // LEAST_STEPS))
    plain = config.replace({**COURSE, "epochs": epochs, "batch_size": batch})
    for number in range(2):
        held = np.flatnonzero(fold == number)
        answers[held] = _answers(plain, judged, kept[fold != number], kept[held], epochs)
    return found(answers, judged.given[kept], _inputs(judged, kept), time.perf_counter() - began, images)


def _answers(
    config: RunConfig, judged: Judged, learnt: NDArray[np.int64], asked: NDArray[np.int64], epochs: int
) -> NDArray[np.float64]:
    """[n, C], what a network that learns from some images makes of the n others."""
    from rich.console import Console

    from ..engine.single import train_on

    left = np.ones(len(judged.given), bool)
    left[learnt] = False
    data = part_of(judged, left)
    test = judged.data.test.take(asked)
    data = replace(data, test=replace(test, labels=judged.given[asked]), clean=None)
    witness = _Answers(epochs, len(asked), len(data.class_names))
    with tempfile.TemporaryDirectory(prefix="fastnoise-auto-") as folder:
        config = config.replace({"run_dir": str(Path(folder) / "run")})
        train_on(config, data, console=Console(quiet=True), witness=witness)
    return np.asarray(witness.logits[0].cpu().numpy(), np.float64)


def _inputs(judged: Judged, kept: NDArray[np.int64]) -> NDArray[Any] | None:
    """What the images look like, if they are in memory."""
    images = judged.data.train.images
    return None if images is None else np.asarray(images[kept])


def found(
    answers: NDArray[np.float64],
    given: NDArray[np.int64],
    inputs: NDArray[Any] | None,
    seconds: float,
    images: int,
) -> Findings:
    """What follows from the answers.

    The surest answers beside the labels give the kind of the noise and its rate (`answers.read`).

    Args:
        answers: [n, C], mean log probabilities by networks that have not seen the image's label.
        given: [n], the labels.
        inputs: [n, ...], what the images look like; None leaves `Findings.instance` NaN.
        seconds: that the probe took.
        images: N, of the whole data set.
    """
    from ..noise.audit import instance_dependence

    classes = answers.shape[1]
    seen = read(answers, given)
    answer, sure, wrong = seen.answer, seen.sure, seen.wrong
    flips = wrong.sum()
    instance = np.nan
    if inputs is not None and flips:
        test = instance_dependence(answer[sure], given[sure], inputs[sure])
        if test is not None:
            instance = 1000 * (test.statistic / test.degrees - 1) / min(int(sure.sum()), 20_000)
    return Findings(
        images=images,
        classes=classes,
        rate=seen.rate,
        concentration=float(wrong.max(1).sum() / flips) if flips else 0.0,
        worst=float(seen.rates.max()),
        instance=float(instance),
        learnt=float((answer == given).mean() / max(1e-9, 1 - seen.rate)),
        seconds=seconds,
    )
