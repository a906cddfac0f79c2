"""Published accuracies, to compare with our own: by method, data set, noise and network, each with its source."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..config import RunConfig
from ..data.names import is_given
from ..methods.options import AugDescOptions, ELROptions, ELRPlusOptions, NALOptions, SWCEOptions
from ..models.names import bare
from ..noise.maps import DATASET_MAPS
from ..noise.spec import NoiseSpec, parse
from .published_table import Metric
from .published_tables import ALIKE, EPOCHS, TABLES


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
    network: str
    """In the source's words."""
    model: str | None
    """Our name of the network that the figure was made with; None if we have none, or the source doesn't say."""
    epochs: int | None
    noise: str
    """The noise as the source makes it."""
    remark: str = ""
    test_set: str = ""
    """The set that it was measured on, if that is another than the data set's own test set."""
    top: int = 1
    """An image counts as right if its class is among so many that the network holds to be the likeliest."""

    def describe(self) -> str:
        """As in `91.43 ± 0.21`."""
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" ± {self.sd:.2f}")

    def cite(self) -> str:
        """Source, network and epochs in one line."""
        epochs = "" if self.epochs is None else f", {self.epochs} epochs"
        return f"{self.source}: {self.network}{epochs}{self.remark and '; '}{self.remark}"


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
        case AugDescOptions() as options:
            return options.warm_up_view
        case SWCEOptions() as options:
            return options.selection_loss if options.train_loss == "swce" else options.train_loss
        case _:
            return ""


def _key(spec: NoiseSpec) -> tuple[object, ...]:
    """What two noises must have in common to be compared. Their conventions may differ; `deviations` names them."""
    return spec.kind, spec.rate, spec.name, spec.type


@cache
def _index() -> dict[tuple[object, ...], list[tuple[str | None, Published]]]:
    """(data set, method, noise key) -> kind and value of each published accuracy."""
    found: dict[tuple[object, ...], list[tuple[str | None, Published]]] = {}
    for table in TABLES:
        noises = table.noises.split()
        for row, text in table.rows.items():
            dataset, method, *kind = row
            epochs = EPOCHS.get(row) or table.epochs.get((dataset, method))
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
                    table.test_set,
                    table.top,
                )
                key = (dataset, method, *_key(parse(noise)))
                found.setdefault(key, []).append((kind[0] if kind else None, entry))
    return found


SECOND_TESTS = {"ilsvrc": "ILSVRC2012"}
"""Second test set of a run -> what the tables call it."""


def published(config: RunConfig, test: str = "test", top: int = 1) -> dict[Metric, Published]:
    """The published accuracies of a configuration's method on its data set, under its noise and with its network, by
    how they are measured. If several sources have one, the first stands, and its remark names the others.

    Args:
        config: of the run.
        test: the test set that they were measured on: "test", the data set's own, or a second one by name.
        top: 5 for top-5 accuracies.

    Empty if there are none, and for runs on a part of the training set, on labels from a file, on synthetic images or
    with a network of another width. Other settings may differ, as in a sweep over them: `deviations` says which.
    """
    data = config.data
    if data.limit_train is not None or config.noise.labels is not None or data.loader == "synthetic":
        return {}
    if config.model.width != 1:
        return {}
    spec = parse(config.noise.noise)
    if spec.classes is not None or spec.hybrid is not None:
        return {}
    found: dict[Metric, Published] = {}
    for kind, entry in _index().get((data.dataset, config.method.method, *_key(spec)), []):
        known = entry.model is None or bare(config.model.model) in (entry.model, *ALIKE.get(entry.model, ()))
        fits = known and kind in (None, _kind(config))
        if not fits or entry.test_set != SECOND_TESTS.get(test, "") or entry.top != top:
            continue
        first = found.setdefault(entry.metric, entry)
        if first is not entry:
            also = f"{entry.source}: {entry.describe()}"
            found[entry.metric] = replace(first, remark=f"{first.remark}{first.remark and '; '}{also}")
    return found


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
        return None if is_given(dataset) else 0.0
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
    words = [f"the recipe {config.optim.recipe}, there the authors' own"] if config.optim.recipe != "published" else []
    if entry.model is None:
        words.append(config.model.model)
    elif entry.model != bare(config.model.model):
        words.append(f"{config.model.model}, there {entry.model}")
    if config.model.init == "network" and _drawn_by_pytorch(config):
        words.append("weights drawn by fan-out, there as PyTorch does by default")
    if entry.epochs is not None and entry.epochs != config.optim.epochs:
        words.append(f"{config.optim.epochs} epochs")
    here, there = parse(config.noise.noise), parse(entry.noise)
    if here.kind == "symmetric" and here.true_class != there.true_class:
        words.append(f"noise with the true class {here.true_class}, there {there.true_class}")
    if here.kind == "asymmetric":
        usual = DATASET_MAPS.get(config.data.dataset)
        if (here.map or usual) != (there.map or usual):
            words.append(f"the class map {here.map or usual}, there {there.map or usual}")
    if here.kind == "idn" and (here.variant, here.inputs) != (there.variant, there.inputs):
        words.append(f"noise with variant={here.variant},inputs={here.inputs}")  # no source says what its own is
    ours = expected_rate(config.noise.noise, config.data.dataset) if realised is None else realised
    theirs = expected_rate(entry.noise, config.data.dataset)
    if ours is not None and theirs is not None and abs(ours - theirs) > TOLERANCE:
        words.append(f"{100 * ours:.0f} % of labels wrong, there {100 * theirs:.0f} %")
    if entry.metric == "validation" and config.data.val_fraction == 0:
        words.append("the last epoch, there the best on validation data")
    return f"; here {', '.join(words)}" if words else ""
