"""Published accuracies, to compare with our own: by method, data set, noise and network, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from ..config import RunConfig
from ..methods.options import ELROptions, ELRPlusOptions, NALOptions
from ..noise.spec import NoiseSpec, parse

Metric = Literal["last", "best", "mean_last_10", "validation"]


@dataclass(frozen=True)
class Published:
    """One published accuracy and how it was measured."""

    mean: float
    """In per cent."""
    sd: float | None
    """Standard deviation over repetitions in per cent, None if none is given."""
    source: str
    """Paper and table."""
    metric: Metric
    """Which test accuracy of a run it is: at the last epoch (also if the source doesn't say), the best, the mean of the
    last ten, or at the epoch with the best accuracy on held-out noisy labels."""
    network: str
    """In the source's words."""
    model: str | None
    """Our name of the network that the figure was made with; None if we have none, or the source doesn't say."""
    epochs: int | None
    noise: str
    """The noise as the source makes it."""
    remark: str = ""

    def describe(self) -> str:
        """As in `91.43 ± 0.21`."""
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" ± {self.sd:.2f}")

    def cite(self) -> str:
        """Source, network and epochs in one line."""
        epochs = "" if self.epochs is None else f", {self.epochs} epochs"
        return f"{self.source}: {self.network}{epochs}{self.remark and '; '}{self.remark}"


class _Table(NamedTuple):
    """Rows of one source that share a network: accuracies `91.16±.08` over `noises`, `-` if there is none."""

    source: str
    metric: Metric
    network: str
    model: str | None
    noises: str
    rows: Mapping[tuple[str, ...], str]
    """(data set, method), or (data set, method, kind) as `_kind` says it -> accuracies."""
    epochs: Mapping[tuple[str, str], int] = {}
    """(data set, method) -> epochs, if they are known."""
    remark: str = ""
    sequential: bool = False
    """Whether asymmetric noise on CIFAR-10 flips labels that were flipped before, as in the loaders of ELR and APL."""

    def noise(self, noise: str, dataset: str) -> str:
        """One of `noises` as the source makes it on a data set."""
        flips_again = self.sequential and dataset == "cifar10" and noise.startswith("asymmetric")
        return f"{noise},sequential=true" if flips_again else noise


def _kind(run: RunConfig) -> str:
    """The name of a run's kind, in a source that has several kinds of a method."""
    match run.method:
        case ELROptions():
            return "cosine" if run.optim.schedule.startswith("cosine") else "steps"
        case NALOptions() as options:
            kinds = {
                "no targets": options.target_estimation == "off",
                "no branch": options.attention == "confidence",
                "reverse": bool(options.reverse),
            }
            return ", ".join(kind for kind, holds in kinds.items() if holds) or "full"
        case ELRPlusOptions() as options:
            mixup = "mixup" if options.mixup_alpha else "plain"
            return f"{options.networks} {mixup} {'averaged' if options.average_momentum else 'raw'}"
        case _:
            return ""


def _drawn_from_all(rates: str) -> str:
    """Symmetric noise as most authors' loaders make it: a share of all samples gets a label drawn from all classes."""
    return " ".join(f"symmetric:{rate},true_class=included,quota=global" for rate in rates.split())


_DRAWN_FROM_ALL, _DRAWN_FROM_ALL_OF_FOUR = _drawn_from_all("0.2 0.4 0.6 0.8"), _drawn_from_all("0.2 0.5 0.8 0.9")
_NAL_NOISE = "the text says that labels turn into other classes, the authors' code draws them from all classes"

_TABLES = (
    _Table(
        "Liu et al. 2020 (ELR), Table 1",
        "validation",
        "ResNet-34",
        "resnet34",
        f"{_DRAWN_FROM_ALL} asymmetric:0.1 asymmetric:0.2 asymmetric:0.3 asymmetric:0.4",
        {
            ("cifar10", "elr", "steps"): "91.16±.08 89.15±.17 86.12±.49 73.86±.61 93.27±.11 93.52±.23 91.89±.22 "
            "90.12±.47",
            ("cifar10", "elr", "cosine"): "92.12±.35 91.43±.21 88.87±.24 80.69±.57 94.57±.23 93.28±.19 92.70±.41 "
            "90.35±.38",
            ("cifar100", "elr", "steps"): "74.21±.22 68.28±.31 59.28±.67 29.78±.56 74.20±.31 74.03±.31 73.71±.22 "
            "73.26±.64",
            ("cifar100", "elr", "cosine"): "74.68±.31 68.43±.42 60.05±.78 30.27±.86 74.52±.32 74.20±.25 74.02±.33 "
            "73.73±.34",
        },
        {("cifar10", "elr"): 120, ("cifar100", "elr"): 150},
        "mean of 5 draws of the noise",
        sequential=True,
    ),
    _Table(
        "Liu et al. 2020 (ELR), Table 1",
        "last",
        "ResNet-34",
        "resnet34",
        "symmetric:0.2 symmetric:0.4 symmetric:0.6 symmetric:0.8 asymmetric:0.1 asymmetric:0.2 asymmetric:0.3 "
        "asymmetric:0.4",
        {
            ("cifar10", "ce"): "86.98±.12 81.88±.29 74.14±.56 53.82±1.04 90.69±.17 88.59±.34 86.14±.40 80.11±1.44",
            ("cifar10", "bootstrap"): "86.23±.23 82.23±.37 75.12±.56 54.12±1.32 90.32±.21 88.26±.24 86.57±.35 "
            "81.21±1.47",
            ("cifar10", "forward"): "87.99±.36 83.25±.38 74.96±.65 54.64±.44 90.52±.26 89.09±.47 86.79±.36 83.55±.58",
            ("cifar10", "gce"): "89.83±.20 87.13±.22 82.54±.23 64.07±1.38 90.91±.22 89.33±.17 85.45±.74 76.74±.61",
            ("cifar10", "sce"): "89.83±.32 87.13±.26 82.81±.61 68.12±.81 91.72±.31 90.44±.27 88.48±.46 82.51±.45",
            ("cifar100", "ce"): "58.72±.26 48.20±.65 37.41±.94 18.10±.82 66.54±.42 59.20±.18 51.40±.16 42.74±.61",
            ("cifar100", "bootstrap"): "58.27±.21 47.66±.55 34.68±1.1 21.64±.97 67.27±.78 62.14±.32 52.87±.19 "
            "45.12±.57",
            ("cifar100", "forward"): "39.19±2.61 31.05±1.44 19.12±1.95 8.99±.58 45.96±1.21 42.46±2.16 38.13±2.97 "
            "34.44±1.93",
            ("cifar100", "gce"): "66.81±.42 61.77±.24 53.16±.78 29.16±.74 68.36±.42 66.59±.22 61.45±.26 47.22±1.15",
            ("cifar100", "sce"): "70.38±.13 62.27±.22 54.82±.57 25.91±.44 73.12±.22 72.56±.22 72.12±.24 69.32±.87",
        },
        {},
        "taken there from earlier papers, epoch not stated",
    ),
    _Table(
        "Lu et al. 2022 (NAL), Table 1",
        "last",
        "ResNet-34",
        "resnet34",
        f"{_DRAWN_FROM_ALL} asymmetric:0.4",
        {
            ("cifar10", "nal", "full"): "94.37±.04 93.49±.07 90.56±.07 80.98±.27 92.09±.12",
            ("cifar100", "nal", "full"): "77.79±.28 74.65±.09 68.48±.16 36.77±.71 74.73±.12",
            ("cifar10", "selc"): "93.09±.02 91.18±.06 87.25±.09 74.13±.14 91.05±.11",
            ("cifar100", "selc"): "73.63±.07 68.46±.10 59.41±.06 32.63±.06 70.82±.09",
        },
        {("cifar10", "nal"): 500, ("cifar100", "nal"): 500, ("cifar10", "selc"): 200, ("cifar100", "selc"): 200},
        f"mean of 3 trials, epoch not stated; {_NAL_NOISE}",
    ),
    _Table(
        "Lu et al. 2022 (NAL), Table 6",
        "last",
        "ResNet-34",
        "resnet34",
        _drawn_from_all("0.4 0.8") + " asymmetric:0.4",
        {
            ("cifar10", "nal", "no targets"): "89.47±.50 76.91±.22 88.23±.22",
            ("cifar100", "nal", "no targets"): "69.91±.21 31.33±.38 55.68±.17",
            ("cifar10", "nal", "no branch"): "90.94±.28 - 91.55±.07",
            ("cifar10", "nal", "reverse"): "92.92±.29 80.20±.42 88.17±.63",
            ("cifar100", "nal", "reverse"): "75.38±.08 38.24±.55 74.89±.20",
        },
        {("cifar10", "nal"): 500, ("cifar100", "nal"): 500},
        f"mean of 3 trials, epoch not stated; {_NAL_NOISE}",
    ),
    _Table(
        "Lu et al. 2022 (NAL), Table 2",
        "last",
        "PreActResNet-34, in PLC's code a plain ResNet-34",
        "resnet34",
        "pmd:0.35 pmd:0.35,type=2 pmd:0.35,type=3",
        {
            ("cifar10", "ce"): "78.11±.74 76.65±.57 76.89±.79",
            ("cifar10", "sce"): "79.76±.72 77.92±.89 78.81±.29",
            ("cifar10", "plc"): "82.80±.27 81.54±.47 81.50±.50",
            ("cifar100", "ce"): "57.68±.29 57.83±.25 56.07±.79",
            ("cifar100", "sce"): "55.20±.33 56.10±.73 56.04±.74",
            ("cifar100", "plc"): "60.01±.43 63.68±.29 63.68±.29",
        },
        {("cifar10", "plc"): 180, ("cifar100", "plc"): 180},
        "epoch not stated; PLC's equal values of types II and III stand so in the paper",
    ),
    _Table(
        "Lu et al. 2022 (NAL), Table 2",
        "last",
        "PreActResNet-34, in the authors' code of 18 layers",
        "preact_resnet18_bn_stem",
        "pmd:0.35 pmd:0.35,type=2 pmd:0.35,type=3",
        {
            ("cifar10", "selc"): "86.97±.15 87.06±.20 87.31±.18",
            ("cifar10", "nal", "full"): "88.81±.13 87.66±.23 88.57±.16",
            ("cifar100", "selc"): "65.72±.17 66.79±.18 66.41±.17",
            ("cifar100", "nal", "full"): "66.55±.16 67.15±.11 66.59±.40",
        },
        {("cifar10", "selc"): 150, ("cifar100", "selc"): 150},
        "epoch not stated",
    ),
    _Table(
        "Liu et al. 2020 (ELR), Table 2",
        "validation",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
        {
            ("cifar10", "elr_plus", "2 mixup averaged"): "94.6 93.8 91.1 75.2 92.7",
            ("cifar100", "elr_plus", "2 mixup averaged"): "77.5 72.4 58.2 30.8 76.5",
        },
        {("cifar10", "elr_plus"): 200, ("cifar100", "elr_plus"): 250},
        sequential=True,
    ),
    _Table(
        "Liu et al. 2020 (ELR), Table 2",
        "best",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
        {
            ("cifar10", "ce"): "86.8 79.4 62.9 42.7 83.2",
            ("cifar100", "ce"): "62.0 46.7 19.9 10.1 -",
            ("cifar10", "mixup"): "95.6 87.1 71.6 52.2 -",
            ("cifar10", "dividemix"): "96.1 94.6 93.2 76.0 93.4",
            ("cifar100", "mixup"): "67.8 57.3 30.8 14.6 -",
            ("cifar100", "dividemix"): "77.3 74.6 60.2 31.5 72.1",
        },
        {("cifar10", "dividemix"): 300, ("cifar100", "dividemix"): 300},
        "the best test accuracy during training",
    ),
    _Table(
        "Liu et al. 2020 (ELR), Table 5",
        "validation",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        _drawn_from_all("0.4 0.8"),
        {
            ("cifar10", "elr_plus", "1 mixup averaged"): "93.04±.12 87.23±.30",
            ("cifar10", "elr_plus", "1 mixup raw"): "91.05±.13 81.43±.52",
            ("cifar10", "elr_plus", "1 plain averaged"): "92.09±.08 76.50±.65",
            ("cifar10", "elr_plus", "1 plain raw"): "90.83±.07 72.54±.35",
            ("cifar10", "elr_plus", "2 mixup averaged"): "93.68±.51 88.62±.26",
            ("cifar10", "elr_plus", "2 mixup raw"): "93.51±.47 84.75±.26",
            ("cifar10", "elr_plus", "2 plain averaged"): "92.95±.05 80.13±.51",
            ("cifar10", "elr_plus", "2 plain raw"): "91.86±.14 73.49±.47",
        },
        {("cifar10", "elr_plus"): 200},
        "mean of 5 draws of the noise",
    ),
    _Table(
        "Han et al. 2018 (co-teaching), authors' code",
        "mean_last_10",
        "nine-layer CNN",
        "cnn9_dropout2d_always",
        "pair:0.45 symmetric:0.5 symmetric:0.2",
        {
            ("mnist", "coteaching"): "87.58 91.68 97.71",
            ("cifar10", "coteaching"): "72.85 74.49 82.18",
            ("cifar100", "coteaching"): "34.40 41.23 54.36",
        },
        {("mnist", "coteaching"): 199, ("cifar10", "coteaching"): 199, ("cifar100", "coteaching"): 199},
    ),
    _Table(
        "noisy-labels (reproduction for ReScience, 2026)",
        "last",
        "network by method",
        None,
        "none human:aggre human:random1 human:worse human:noisy",
        {
            ("cifar10n", "ce"): "94.21±.12 91.70±.07 90.20±.04 83.91±.08 -",
            ("cifar10n", "coteaching"): "92.15 91.93 90.69 80.92 -",
            ("cifar10n", "elr"): "93.97±.12 93.00±.19 92.20±.10 87.89±.14 -",
            ("cifar10n", "elr_plus", "2 mixup averaged"): "95.81 95.32 94.89 91.75±.06 -",
            ("cifar10n", "dividemix"): "95.51 95.62 95.72 93.10±.10 -",
            ("cifar100n", "ce"): "- - - - 61.19±.51",
            ("cifar100n", "coteaching"): "- - - - 54.48",
            ("cifar100n", "elr"): "- - - - 63.72±.38",
            ("cifar100n", "elr_plus", "2 mixup averaged"): "- - - - 67.87",
            ("cifar100n", "dividemix"): "- - - - 70.91",
        },
        {},
        "epoch not stated",
    ),
    _Table(
        "Gupta (SWCE), Table II",
        "last",
        "ResNet-18",
        "resnet18",
        "idn:0.2 idn:0.3 idn:0.5",
        {("cifar10", "swce"): "94.40 93.60 82.11", ("cifar100", "swce"): "76.61 73.11 61.33"},
        {("cifar10", "swce"): 30, ("cifar100", "swce"): 30},
        'on top of DivideMix and after SimCLR; called accuracy in one place and F1 in another; "idn" not specified',
    ),
    _Table(
        "Gupta (SWCE), Table III",
        "last",
        "ResNet-34",
        "resnet34",
        "idn:0.2 idn:0.3 idn:0.5",
        {("cifar100", "swce"): "79.49 78.52 59.86", ("cifar100", "dividemix"): "78.75 78.79 58.41"},
        {},
        'called accuracy in one place and F1 in another; "idn" not specified',
    ),
)

_ALIKE = {
    "preact_resnet18_bn_stem": ("preact_resnet18", "preact_resnet34"),
    "resnet34": ("preact_resnet34",),
    "cnn9_dropout2d_always": ("cnn9", "cnn9_dropout2d"),
}
"""Networks that go by the same name as that of the authors' code, or by the name in the paper, and are others. Their
runs are compared all the same; `deviations` names both networks."""

_EPOCHS: dict[tuple[str, ...], int] = {("cifar10", "elr", "cosine"): 150}
"""Epochs of kinds that differ from those of their method."""


def _key(spec: NoiseSpec) -> tuple[object, ...]:
    """What two noises must have in common to be compared. Their conventions may differ; `deviations` names them."""
    return spec.kind, spec.rate, spec.name, spec.type


@cache
def _index() -> dict[tuple[object, ...], list[tuple[str | None, Published]]]:
    """(data set, method, noise key) -> kind and value of each published accuracy."""
    found: dict[tuple[object, ...], list[tuple[str | None, Published]]] = {}
    for table in _TABLES:
        noises = table.noises.split()
        for row, text in table.rows.items():
            dataset, method, *kind = row
            epochs = _EPOCHS.get(row) or table.epochs.get((dataset, method))
            for noise, value in zip(noises, text.split(), strict=True):
                if value == "-":
                    continue
                mean, _, sd = value.partition("±")
                entry = Published(
                    float(mean),
                    float(sd) if sd else None,
                    table.source,
                    table.metric,
                    table.network,
                    table.model,
                    300 if (row[:2], noise) == (("cifar10", "nal"), "asymmetric:0.4") else epochs,
                    table.noise(noise, dataset),
                    table.remark,
                )
                key = (dataset, method, *_key(parse(noise)))
                found.setdefault(key, []).append((kind[0] if kind else None, entry))
    return found


def published(config: RunConfig) -> Published | None:
    """The published accuracy of a configuration's method on its data set, under its noise and with its network.

    None if there is none, and for runs on a part of the training set, on labels from a file, on synthetic images or
    with a network of another width. Other settings may differ, as in a sweep over them: `deviations` says which.
    """
    data = config.data
    if data.limit_train is not None or config.noise.labels is not None or data.loader == "synthetic":
        return None
    if config.model.width != 1:
        return None
    spec = parse(config.noise.noise)
    if spec.classes is not None or spec.hybrid is not None:
        return None
    for kind, entry in _index().get((data.dataset, config.method.method, *_key(spec)), []):
        known = entry.model is None or config.model.model in (entry.model, *_ALIKE.get(entry.model, ()))
        if known and kind in (None, _kind(config)):
            return entry
    return None


def _drawn_by_pytorch(config: RunConfig) -> bool:
    """Whether the authors' networks begin as PyTorch draws them: where the recipe has it so."""
    from . import recipe

    return recipe(config.method.method, config.data.dataset, config.noise.noise).model.init == "pytorch"


TOLERANCE = 0.01
"""Of the share of wrong labels: what differs by more is not the same noise."""

_COUNTED = 50_000


@cache
def expected_rate(noise: str, dataset: str) -> float | None:
    """The share of labels that a noise makes wrong on a balanced data set, counted on 50,000 labels.

    None if it needs more than labels: images, posteriors, human labels, a file or code of the user's.
    """
    from ..noise import corrupt

    spec = parse(noise)
    if spec.kind == "none":
        return 0.0
    if spec.kind not in ("symmetric", "asymmetric", "pair", "heterogeneous"):
        return None
    num_classes = 100 if dataset in ("cifar100", "cifar100n") else 10
    labels = np.arange(_COUNTED) % num_classes
    return corrupt(labels, spec, seed=0, num_classes=num_classes, dataset=dataset).realised_rate


def deviations(config: RunConfig, entry: Published, realised: float | None = None) -> str:
    """How the run is known to differ from the published one, as the end of a citation. Empty if it doesn't.

    `realised` is the run's share of wrong labels, if it is known; else it is that which its noise is expected to make.
    A share that differs by more than TOLERANCE from that of the row's noise is always said.
    """
    words = []
    if entry.model is None:
        words.append(config.model.model)
    elif entry.model != config.model.model:
        words.append(f"{config.model.model}, there {entry.model}")
    if config.model.init == "network" and _drawn_by_pytorch(config):
        words.append("weights drawn by fan-out, there as PyTorch does by default")
    if entry.epochs is not None and entry.epochs != config.optim.epochs:
        words.append(f"{config.optim.epochs} epochs")
    here, there = parse(config.noise.noise), parse(entry.noise)
    if here.kind == "symmetric" and here.true_class != there.true_class:
        words.append(f"noise with the true class {here.true_class}, there {there.true_class}")
    ours = expected_rate(config.noise.noise, config.data.dataset) if realised is None else realised
    theirs = expected_rate(entry.noise, config.data.dataset)
    if ours is not None and theirs is not None and abs(ours - theirs) > TOLERANCE:
        words.append(f"{100 * ours:.0f} % of labels wrong, there {100 * theirs:.0f} %")
    if entry.metric == "validation" and config.data.val_fraction == 0:
        words.append("the last epoch, there the best on validation data")
    return f"; here {', '.join(words)}" if words else ""
