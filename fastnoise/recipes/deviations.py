"""What stays different between fastnoise and the authors' code: one table for the command line, reports and docs.

Differences between a paper and its code are no deviations: they are variants (`--variant`) and options.
"""

from collections.abc import Mapping
from typing import Any

from ..config import RunConfig
from ..errors import ConfigError
from ..options import AUTO
from .deviation import CIFAR, CIFAR10, CIFAR100, Deviation
from .deviations_of_losses import OF_LOSSES
from .deviations_semi import SEMI

_SEED = "a run is a function of its seeds."

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "unseeded",
        ("elr", "elr_plus", "nal", "selc", "selc_plus", "dividemix", "gce", "plc", "coteaching", "jocor", "apl"),
        (),
        "The authors draw noise, splits or batches from generators that they do not seed, or seed with a constant.",
        _SEED,
        uncounted="the authors' draws cannot be drawn again; they differ from ours as two seeds do.",
    ),
    Deviation(
        "cifar100-constants",
        ("dividemix", "augdesc", "gce", "selc", "selc_plus", "nal", "ssr", "ssr_plus"),
        CIFAR100,
        "The authors normalise by (.507, .487, .441) and (.267, .256, .276); fastnoise by (.5071, .4867, .4408) and "
        "(.2675, .2565, .2761), ELR's constants.",
        "one set of constants per data set; the difference is below a grey level.",
        size="means differ by up to 0.0003, deviations by up to 0.0005",
    ),
    Deviation(
        "cifar10-deviations",
        ("gce", "apl", "dual_t", "promix"),
        CIFAR10,
        "The authors divide by the pixels' standard deviation (.247, .243, .262); fastnoise by (.2023, .1994, .2010), "
        "as ELR, DivideMix, SELC and PLC do.",
        "one set of constants per data set.",
        size="inputs are 1.22 to 1.30 times as large here",
    ),
    # -- ELR, ELR+
    Deviation(
        "elr-plus-two-draws",
        ("elr_plus",),
        (),
        "The authors draw a split and noisy labels for each network; in fastnoise both networks train on the same.",
        "with two draws a network trains on validation samples of the other.",
        size="90 % of a network's validation samples are trained on by the other; at 40 % symmetric noise the two "
        "give 62 % of the samples different labels",
    ),
    Deviation(
        "elr-plus-no-target",
        ("elr_plus",),
        (),
        "The authors' weighted target is 0 / 0 where both targets are still 0; fastnoise then takes the labels.",
        "a loss must be finite.",
        size="NaN there, the loss of the labels here",
    ),
    # -- NAL
    Deviation(
        "nal-first-update",
        ("nal",),
        (),
        "In variant code the first update starts from the clamped one-hot, the authors' from the bare one; "
        "RNAL's term is left out at weight 0, where the authors add 0 * log 0 = NaN.",
        "the table of targets holds no NaN.",
        size="targets differ by up to 9e-05",
    ),
    Deviation(
        "nal-pmd-settings",
        ("nal",),
        CIFAR,
        "The schedule and optimiser for PMD noise stand in an appendix that is not at hand; they are SELC's.",
        "SELC is by the same authors, for the same noise and network.",
        kinds=("pmd",),
        uncounted="the authors' values are not known.",
    ),
    # -- SELC
    Deviation(
        "selc-underflow",
        ("selc", "selc_plus"),
        (),
        "The authors' loss is infinite where a probability underflows; fastnoise takes the logarithm of the softmax.",
        "a loss must be finite.",
        size="infinite there from logits that are 104 apart, 104 here",
    ),
    Deviation(
        "selc-pmd-schedule",
        ("selc", "selc_plus", "nal"),
        CIFAR,
        "The authors say 60 and 120 (CIFAR-100: 0.1 after 40 and 80); what their code does is 0.2 after epochs 61 and "
        "121 on both data sets.",
        "each epoch makes a new SGD with the rate set after the one before; the first one's schedule never steps.",
        "schedule",
        "multistep:60,120,gamma=0.2",
        ("pmd",),
        size="2 of 150 epochs have another rate than is said (CIFAR-100: 110)",
    ),
    Deviation(
        "selc-pmd-momentum",
        ("selc", "selc_plus", "nal"),
        CIFAR,
        "The authors' new SGD of each epoch has no momentum yet; fastnoise keeps the momentum.",
        "it matters in an epoch's first ten steps or so, and looks unintended.",
        kinds=("pmd",),
        size="2.3 % of an epoch's way are lost under a constant gradient",
    ),
    # -- DivideMix
    Deviation(
        "dividemix-last-epoch",
        ("dividemix",),
        CIFAR,
        "The authors' loop runs over epochs 0 to 300, which are 301.",
        "the paper says 300.",
        "epochs",
        301,
        size="1 of 301 epochs",
    ),
    # -- CORES2
    Deviation(
        "cores-damping",
        ("cores",),
        (),
        "The authors divide the learning rate by 1 + beta; fastnoise divides the loss's gradient.",
        "a method has no say in a run's schedule; --damping off does neither.",
        size="nothing but rounding for their SGD, without momentum and weight decay",
    ),
    Deviation(
        "cores-none-kept",
        ("cores",),
        (),
        "The authors' code ends with an error at a batch of which the sieve keeps no sample; fastnoise learns nothing "
        "from it.",
        "a run must not end by a batch.",
        size="an error there, a loss of 0 here",
    ),
    Deviation(
        "cores-found",
        ("cores",),
        (),
        "The authors take for mislabelled what the sieve leaves out in the 41st epoch, as the steps met it; fastnoise "
        "what it would leave out at the end, in evaluation mode.",
        "all methods' estimates are of the network that a run ends with.",
        uncounted="the two networks differ after trainings alone.",
    ),
    # -- DISC
    Deviation(
        "disc-views",
        ("disc",),
        CIFAR,
        "The authors pad by reflection, and change the strong view by 0 to 2 operations of their RandAugment and a "
        "grey square of 4 pixels; fastnoise pads with zeros, and changes it by one operation of torchvision's.",
        "a loader has one padding and one RandAugment; the magnitude is the mean of the authors'.",
        uncounted="the operations differ, and so do the images.",
    ),
    Deviation(
        "disc-forwarded",
        ("disc",),
        (),
        "The authors send the mixtures of selected samples through the network; fastnoise the others too, unmixed, "
        "which count in batch norm's statistics alone.",
        "a step that is compiled or captured has batches of one size.",
        uncounted="it goes with the share of samples that are selected.",
    ),
    Deviation(
        "disc-no-step",
        ("disc",),
        (),
        "The authors make no step for a batch without a selected sample; in fastnoise its loss is 0, and weight decay "
        "moves the weights.",
        "what a captured step does cannot depend on its data.",
        size="0.01 % of each weight at rate 0.1 and decay 1e-3",
    ),
    # -- SSR
    Deviation(
        "ssr-judged-as-they-are",
        ("ssr", "ssr_plus"),
        CIFAR,
        "The authors relabel and select by features and predictions for cropped and flipped images; fastnoise by those "
        "for the images as they are.",
        "a pass over the training set has no augmentation.",
        uncounted="the two give other neighbours to a network that has trained alone.",
    ),
    Deviation(
        "ssr-balance",
        ("ssr", "ssr_plus"),
        (),
        "The authors' repetition of smaller classes can leave samples out; fastnoise repeats a sample only after all "
        "others of its class.",
        "every selected sample is learnt.",
        size="3 % of a class of 3,000 samples beside one of 5,000 are left out there, 0 % here",
    ),
    Deviation(
        "ssr-rest",
        ("ssr", "ssr_plus"),
        CIFAR10,
        "The authors leave out the last, smaller batch of each pass over the selected samples; fastnoise fills it up "
        "from the next pass.",
        "all batches have one size.",
        size="80 of 50,000 samples of a pass if all are selected",
    ),
    # -- co-teaching, JoCoR
    Deviation(
        "coteaching-beta1",
        ("coteaching", "disc", "jocor"),
        (),
        "Adam's beta1 falls from 0.9 to 0.1 when the authors' learning rate begins to fall; in fastnoise it stays 0.9.",
        "no optimiser of fastnoise changes its momentum.",
        size="its steps become 3.9 times as long under gradients of noise alone",
    ),
    Deviation(
        "coteaching-divided-twice",
        ("coteaching",),
        (),
        "The authors divide the mean loss by the number of kept samples once more, which Adam hides but for its eps.",
        "the loss shown is the mean.",
        size="0.03 % of 20 steps' way, for gradients of 0.01",
    ),
    Deviation(
        "coteaching-mnist-batches",
        ("coteaching",),
        ("mnist",),
        "The authors' epochs end after 401 of 468 batches; fastnoise's go through all.",
        "every sample is seen in every epoch.",
        size="67 of 468 batches of an epoch",
    ),
    Deviation(
        "coteaching-last-test-batch",
        ("coteaching", "jocor"),
        (),
        "The authors leave out the test set's last incomplete batch; fastnoise evaluates all images.",
        "an accuracy is of the whole test set.",
        size="16 of 10,000 images, 0.16 points of accuracy at most",
    ),
    Deviation(
        "jocor-mean-of-accuracies",
        ("jocor",),
        (),
        "The authors report the mean of both networks' accuracies; fastnoise that of what they answer together.",
        "a run has one answer for an image.",
        uncounted="the networks differ after trainings alone.",
    ),
    *SEMI,
    *OF_LOSSES,
    # -- forward, PLC
    *(
        Deviation(
            f"forward-{datasets[0]}",
            ("forward",),
            datasets,
            f"The authors train twice, {epochs} epochs each, and estimate T by the first network's best state on "
            f"held-out noisy labels; here the first training ends early, after {warm_up} epochs, in the same run.",
            "a network that has learnt wrong labels by heart shows T = 1.",
            "epochs",
            epochs,
            size=f"{warm_up + epochs} epochs here, {2 * epochs} there",
        )
        for datasets, epochs, warm_up in ((CIFAR10, 120, 45), (CIFAR100, 150, 85))
    ),
    *(
        Deviation(
            f"dual-t-{datasets[0]}",
            ("dual_t",),
            datasets,
            f"The authors' ResNet-{layers} has the stem for photos of 224 pixels, fastnoise's one for small images.",
            "all methods share one network of this depth.",
            "model",
            f"torchvision:resnet{layers}",
            size="maps of 8 x 8 after the stem there, 32 x 32 here",
        )
        for datasets, layers in ((CIFAR10, 18), (CIFAR100, 34))
    ),
    Deviation(
        "dual-t-mnist-network",
        ("dual_t",),
        ("mnist",),
        "The authors' Lenet is a network of two hidden layers of 128 units with dropout; fastnoise's is LeNet-5.",
        "all methods share the data set's network.",
        "model",
        "mlp of 784-128-128-10",
        size="118,282 parameters there, 61,706 here",
    ),
    Deviation(
        "dual-t-best-state",
        ("dual_t",),
        ("mnist", *CIFAR),
        "The authors estimate T by the first network's state of the best accuracy on held-out noisy labels; fastnoise "
        "by that after the last epoch of the warm-up.",
        "a round begins with what the round before ended with.",
        uncounted="which epoch is taken is known after trainings alone.",
    ),
    Deviation(
        "dual-t-zeroed",
        ("dual_t",),
        (),
        "The authors set the outliers of a class to 0 for all later classes too, so that rows of T can hold zeros and "
        "not sum to 1; fastnoise passes them over for their class alone, and takes rows as they are predicted.",
        "a row of T is a distribution; the paper does not mention it.",
        size="with 1,000 random predictions for 10 classes the rows there sum to 0.96 on average",
    ),
    Deviation(
        "volminnet-stem",
        ("volminnet",),
        CIFAR,
        "The first convolution of the authors' ResNets has no padding; that of fastnoise's has a pixel.",
        "all methods share one ResNet-18 and one ResNet-34.",
        size="maps of 30 x 30 there, 32 x 32 here",
    ),
    Deviation(
        "volminnet-selection",
        ("volminnet",),
        ("mnist", *CIFAR),
        "The authors report the epoch of the least loss of T^T p on held-out noisy labels; fastnoise that of the best "
        "accuracy of p on them, and the last.",
        "one measure for all methods.",
        uncounted="which epoch is taken is known after trainings alone.",
    ),
    Deviation(
        "plc-clean-selection",
        ("plc",),
        CIFAR,
        "The authors hold out the last 5,000 images with clean labels; here a tenth of each class with noisy ones.",
        "clean labels for selection are not part of the problem.",
        size="5,000 held out here too; 35 % of their labels are wrong at a rate of 35 %",
    ),
    # -- real noise
    Deviation(
        "clothing1m-drawn-once",
        ("elr_plus",),
        ("clothing1m",),
        "The authors draw the 3,000 balanced batches once and go through them in each epoch; fastnoise draws them "
        "anew.",
        "an epoch is drawn by one rule for all methods.",
        uncounted="the authors' draw cannot be drawn again.",
    ),
    Deviation(
        "clothing1m-average",
        ("elr_plus",),
        ("clothing1m",),
        "The authors average weights with momentum min(1 - 1 / (s + 1), .9999) at step s, which is .9999 from step "
        "9,999 on; fastnoise with .9999 exp(-5 (1 - s / 10,000)^2), as ELR+ does on other data sets.",
        "one form of ramp.",
        "average_ramp",
        9999,
        uncounted="the momentum is another until step 10,000 of 45,000, in which the average forgets its beginning.",
    ),
    Deviation(
        "elr-real",
        ("elr",),
        ("clothing1m", "mini_webvision"),
        "The paper does not say the settings of ELR with one network on these sets; they are those of ELR+'s "
        "configurations.",
        "the authors' values are not known.",
        uncounted="the authors' values are not known.",
    ),
    Deviation(
        "plc-clothing1m-capped",
        ("plc",),
        ("clothing1m",),
        "The authors train on at most 18,976 images of a class, and select on clean validation images; fastnoise "
        "trains on all.",
        "what is left out would have to be drawn.",
        uncounted="the authors' draw cannot be drawn again.",
    ),
    Deviation(
        "plc-clothing1m-squashed",
        ("plc",),
        ("clothing1m",),
        "The authors squash images to 256 x 256, bicubic; fastnoise keeps the aspect, as all others do.",
        "one augmentation for each data set.",
        "augment",
        "resize:256x256, then crop and flip",
        uncounted="it depends on the images' aspects.",
    ),
    # -- SWCE
    Deviation(
        "swce-decoupled-decay",
        ("swce", "swce_loss"),
        (*CIFAR, "chaoyang", "chest_xray"),
        "The paper says Adam with weight decay 0.03; here the decay is decoupled.",
        "in Adam's gradient 0.03 would outweigh the loss.",
        "optimizer",
        "adam",
        size="without a gradient a weight of 0.05 shrinks by 1.0e-04 in Adam's step, by 1.5e-07 here",
    ),
    Deviation(
        "swce-open",
        ("swce",),
        (),
        "The paper leaves open which prediction becomes the label, the third iteration's rate, and the copies' form.",
        "each is an option of its own: see --help.",
        uncounted="the authors' choices are not known.",
    ),
)


OTHER_RECIPE = Deviation(
    "another-recipe",
    (),
    (),
    "Published accuracies were made by the authors' own course; this run has a short course of ours (--recipe).",
    "it ends in seconds or minutes.",
    uncounted="network, batch, rates, epochs, augmentation and weights evaluated all differ; see the configuration.",
)
"""Of a run whose --recipe is not published, in place of all others."""


def deviations_of(config: RunConfig) -> list[Deviation]:
    """The deviations that concern a run of this configuration: of its method, data set and noise, and without those
    whose field has the authors' value."""
    return deviations_in(config.flat())


def deviations_in(settings: Mapping[str, Any]) -> list[Deviation]:
    """The same for a configuration as a run folder keeps it: fields and values, some of which may be missing."""
    method, dataset, noise = (str(settings.get(name, "")) for name in ("method", "dataset", "noise"))
    kind = noise.partition(":")[0]
    if settings.get("recipe", "published") != "published":
        return [OTHER_RECIPE]
    return [
        each
        for each in DEVIATIONS
        if each.holds(method, dataset, kind) and (not each.field or settings.get(each.field) != each.theirs)
    ]


def listing(config: RunConfig) -> str:
    """What `fastnoise train --deviations` prints. ConfigError for a method that is still to be chosen."""
    if config.method.method == AUTO:
        raise ConfigError("--deviations lists those of one method, and auto is none; name one by --method")
    head = f"{config.method.method} on {config.data.dataset} with {config.noise.noise}"
    lines = [f"- {deviation.describe()}" for deviation in deviations_of(config)]
    if not lines:
        return f"{head}: no deviations from the authors' code are known."
    return "\n".join([f"{head}: deviations from the authors' code that stay", *lines])


def as_markdown() -> str:
    """The whole table, as deviations.md has it."""
    rows = ["| methods | data sets | what | size | why |", "| --- | --- | --- | --- | --- |"]
    for each in DEVIATIONS:
        where = ", ".join(each.datasets) or "all"
        limited = f" ({', '.join(each.kinds)} noise)" if each.kinds else ""
        rows.append(f"| {', '.join(each.methods)} | {where}{limited} | {each.what} | {each.extent} | {each.why} |")
    intro = (
        "# Deviations from the authors' code that stay\n\n"
        "`fastnoise train --method METHOD --dataset DATASET --deviations` prints those of a run, and its report has "
        "them too. Made from `fastnoise/recipes/deviations.py`; tests keep both the same, and count each size anew.\n"
    )
    return "\n".join([intro, *rows]) + "\n"
