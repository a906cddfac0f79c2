"""What stays different between fastnoise and the authors' code, in one table: for the command line, docs and tests.

Differences between a paper and its code are no deviations: they are variants (`--variant`) and options.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..config import RunConfig

CIFAR10, CIFAR100 = ("cifar10", "cifar10n"), ("cifar100", "cifar100n")
CIFAR = (*CIFAR10, *CIFAR100)


class Deviation(NamedTuple):
    """One difference that stays."""

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    """() for all data sets."""
    what: str
    """What the authors' code does, what fastnoise does, and how large the difference is where it can be counted."""
    why: str
    field: str = ""
    """The configuration's field whose published value the recipe does not have; "" if no field says it."""
    theirs: Any = None
    """The authors' value of `field`."""
    kinds: tuple[str, ...] = ()
    """Kinds of noise that it is limited to; () for all."""

    def holds(self, method: str, dataset: str, kind: str) -> bool:
        """Whether it concerns such a run."""
        return method in self.methods and dataset in (self.datasets or (dataset,)) and kind in (self.kinds or (kind,))

    def describe(self) -> str:
        """In one line."""
        return f"{self.what} Why: {self.why}"


_EQUAL = (
    "the tables of ELR and NAL compare the losses with ResNet-34 and the course of cross-entropy, and so does ours."
)
_SEED = "a run is a function of its seeds."

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        ("elr", "elr_plus", "nal", "selc", "selc_plus", "dividemix", "gce", "plc", "coteaching", "apl"),
        (),
        "The authors draw noise, splits or batches from generators that they do not seed, or seed with a constant.",
        _SEED,
    ),
    Deviation(
        ("dividemix", "gce", "selc", "selc_plus", "nal"),
        CIFAR100,
        "The authors normalise by (.507, .487, .441) and (.267, .256, .276); fastnoise by (.5071, .4867, .4408) and "
        "(.2675, .2565, .2761), ELR's constants: means differ by up to .0003, deviations by .0005.",
        "one set of constants per data set; the difference is below a grey level.",
    ),
    Deviation(
        ("gce", "apl"),
        CIFAR10,
        "The authors divide by the pixels' standard deviation (.247, .243, .262); fastnoise by (.2023, .1994, .2010), "
        "as ELR, DivideMix, SELC and PLC do: inputs are 1.2 to 1.3 times as large.",
        "one set of constants per data set.",
    ),
    # -- ELR, ELR+
    Deviation(
        ("elr_plus",),
        (),
        "The authors draw a split and noisy labels for each network; in fastnoise both networks train on the same.",
        "with two draws a network trains on validation samples of the other.",
    ),
    Deviation(
        ("elr_plus",),
        (),
        "The authors' weighted target is 0 / 0 where both targets are still 0; fastnoise then takes the labels.",
        "a loss must be finite.",
    ),
    # -- NAL
    Deviation(
        ("nal",),
        (),
        "In variant code the first update starts from the clamped one-hot, the authors' from the bare one: targets "
        "differ by less than 1e-4. RNAL's term is left out at weight 0, where the authors add 0 * log 0 = NaN.",
        "the table of targets holds no NaN.",
    ),
    Deviation(
        ("nal",),
        CIFAR,
        "The schedule and optimiser for PMD noise stand in an appendix that is not at hand; they are SELC's.",
        "SELC is by the same authors, for the same noise and network.",
        kinds=("pmd",),
    ),
    # -- SELC
    Deviation(
        ("selc", "selc_plus"),
        (),
        "The authors' loss is infinite where a probability underflows; fastnoise takes the logarithm of the softmax.",
        "a loss must be finite.",
    ),
    Deviation(
        ("selc", "selc_plus", "nal"),
        CIFAR,
        "The authors say 60 and 120 (CIFAR-100: 0.1 after 40 and 80); what their code does is 0.2 after epochs 61 and "
        "121 on both data sets.",
        "each epoch makes a new SGD with the rate set after the one before; the first one's schedule never steps.",
        "schedule",
        "multistep:60,120,gamma=0.2",
        ("pmd",),
    ),
    Deviation(
        ("selc", "selc_plus", "nal"),
        CIFAR,
        "The authors' new SGD of each epoch has no momentum yet; fastnoise keeps the momentum.",
        "it matters for some ten of an epoch's 390 steps, and looks unintended.",
        kinds=("pmd",),
    ),
    # -- DivideMix
    Deviation(
        ("dividemix",),
        CIFAR,
        "The authors' loop runs over epochs 0 to 300, which are 301.",
        "the paper says 300.",
        "epochs",
        301,
    ),
    # -- co-teaching
    Deviation(
        ("coteaching",),
        (),
        "Adam's beta1 falls from 0.9 to 0.1 when the authors' learning rate begins to fall; in fastnoise it stays 0.9.",
        "no optimiser of fastnoise changes its momentum.",
    ),
    Deviation(
        ("coteaching",),
        (),
        "The authors divide the mean loss by the number of kept samples once more, which Adam hides but for its eps.",
        "the loss shown is the mean.",
    ),
    Deviation(
        ("coteaching",),
        ("mnist",),
        "The authors' epochs end after 401 of 468 batches; fastnoise's go through all.",
        "every sample is seen in every epoch.",
    ),
    Deviation(
        ("coteaching",),
        (),
        "The authors leave out the test set's last incomplete batch; fastnoise evaluates all images.",
        "an accuracy is of the whole test set.",
    ),
    # -- GCE
    Deviation(
        ("gce",),
        (),
        "The public code prunes by the model that was best on the test set; fastnoise by the model as it stands.",
        "test images must not decide what is trained on.",
    ),
    # -- losses of Keras
    Deviation(
        ("sce",),
        CIFAR10,
        "The authors train six convolutions and two dense layers, with weight decay 0.01 on one of them alone.",
        _EQUAL,
        "model",
        "six convolutions",
    ),
    Deviation(("sce",), CIFAR, "The authors' SGD has no weight decay.", _EQUAL, "weight_decay", 0.0),
    Deviation(("sce",), CIFAR100, "The authors train ResNet-44.", _EQUAL, "model", "ResNet-44"),
    Deviation(("sce",), CIFAR100, "The authors train at 0.1.", _EQUAL, "learning_rate", 0.1),
    Deviation(
        ("sce",),
        CIFAR,
        "The authors' rates hold for an epoch more, until the 42nd and 82nd begin (CIFAR-100: 82nd and 122nd).",
        _EQUAL,
    ),
    Deviation(
        ("sce",),
        (),
        "Keras's SGD also divides the rate by 1 + decay * steps (decay 1e-4 to 5e-3 by data set); fastnoise does not.",
        "the committed script has the decay of one data set only.",
    ),
    Deviation(("sce",), CIFAR, "The authors draw weights as He et al.; here PyTorch's default does.", _EQUAL),
    # -- APL
    Deviation(("apl",), CIFAR10, "The authors train an 8-layer network.", _EQUAL, "model", "8 layers"),
    Deviation(("apl",), CIFAR100, "The authors train ResNet-50.", _EQUAL, "model", "resnet50"),
    Deviation(
        ("apl",),
        CIFAR100,
        "The authors rotate images by up to 20 degrees after crop and flip; fastnoise does not.",
        "fastnoise has no rotation yet.",
    ),
    # -- forward, PLC
    *(
        Deviation(
            ("forward",),
            datasets,
            f"The authors train twice, {epochs} epochs each, and estimate T by the first network's best state on "
            f"held-out noisy labels; here the first training ends early, after {warm_up} epochs, in the same run.",
            "a network that has learnt wrong labels by heart shows T = 1.",
            "epochs",
            epochs,
        )
        for datasets, epochs, warm_up in ((CIFAR10, 120, 45), (CIFAR100, 150, 85))
    ),
    Deviation(
        ("plc",),
        CIFAR,
        "The authors hold out the last 5,000 images with clean labels; here a tenth of each class with noisy ones.",
        "clean labels for selection are not part of the problem.",
    ),
    # -- SWCE
    Deviation(
        ("swce", "swce_loss"),
        CIFAR,
        "The paper says Adam with weight decay 0.03; here the decay is decoupled.",
        "in Adam's gradient 0.03 would outweigh the loss.",
        "optimizer",
        "adam",
    ),
    Deviation(
        ("swce",),
        (),
        "The paper leaves open which prediction becomes the label, the third iteration's rate, and the copies' form.",
        "each is an option of its own: see --help.",
    ),
)


def deviations_of(config: RunConfig) -> Iterator[Deviation]:
    """The deviations that concern a run of this method, data set and noise."""
    kind = config.noise.noise.partition(":")[0]
    for deviation in DEVIATIONS:
        if deviation.holds(config.method.method, config.data.dataset, kind):
            yield deviation


def listing(config: RunConfig) -> str:
    """What `fastnoise train --deviations` prints."""
    head = f"{config.method.method} on {config.data.dataset} with {config.noise.noise}"
    lines = [f"- {deviation.describe()}" for deviation in deviations_of(config)]
    if not lines:
        return f"{head}: no deviations from the authors' code are known."
    return "\n".join([f"{head}: deviations from the authors' code that stay", *lines])


def as_markdown() -> str:
    """The whole table, as deviations.md has it."""
    rows = ["| methods | data sets | what | why |", "| --- | --- | --- | --- |"]
    for each in DEVIATIONS:
        where = ", ".join(each.datasets) or "all"
        limited = f" ({', '.join(each.kinds)} noise)" if each.kinds else ""
        rows.append(f"| {', '.join(each.methods)} | {where}{limited} | {each.what} | {each.why} |")
    intro = (
        "# Deviations from the authors' code that stay\n\n"
        "`fastnoise train --method METHOD --dataset DATASET --deviations` prints those of a run. Made from "
        "`fastnoise/recipes/deviations.py`; a test keeps both the same.\n"
    )
    return "\n".join([intro, *rows]) + "\n"
