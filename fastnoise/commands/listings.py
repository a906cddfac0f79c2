"""fastnoise methods | datasets | models: what there is by name, a line each."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence

from ..data.names import AT_PATH, DATASETS, WRITTEN
from ..errors import ConfigError
from ..models.names import LIBRARIES, MODELS
from ..options import AUTO

METHODS: dict[str, str] = {
    "ce": "cross-entropy on the given labels",
    "label_smoothing": "cross-entropy on smoothed labels",
    "gce": "generalised cross-entropy, truncated (Zhang and Sabuncu 2018)",
    "gjs": "Jensen-Shannon divergence of label and views; JS with one (Englesson and Azizpour 2021)",
    "sce": "symmetric cross-entropy (Wang et al. 2019)",
    "mae": "mean absolute error (Ghosh et al. 2017)",
    "focal": "focal loss (Lin et al. 2017)",
    "apl": "an active and a passive loss together (Ma et al. 2020)",
    "bootstrap": "bootstrapping, soft or hard (Reed et al. 2015)",
    "mixup": "cross-entropy on mixed pairs of images (Zhang et al. 2018)",
    "forward": "forward correction with an estimated transition matrix (Patrini et al. 2017)",
    "dual_t": "forward correction with a matrix in two factors (Yao et al. 2020)",
    "volminnet": "forward correction with a matrix that is trained too (Li et al. 2021)",
    "plc": "progressive label correction (Zhang et al. 2021)",
    "selc": "self-ensemble label correction (Lu and He 2022)",
    "selc_plus": "selc with mixup",
    "sop": "over-parameterization: each label's noise has parameters of its own (Liu et al. 2022)",
    "sop_plus": "sop with two views that agree, and balanced classes",
    "cores": "a sieve of samples, and cross-entropy that rewards confidence (Cheng et al. 2021)",
    "pes": "later layers are drawn anew and trained for fewer epochs, then samples chosen (Bai et al. 2021)",
    "pes_semi": "pes with MixMatch on the chosen samples and the others",
    "ssr": "neighbours vote which labels are right, confident predictions replace others (Feng et al. 2022)",
    "ssr_plus": "ssr, whose features also agree between views of any image",
    "coteaching": "two networks choose samples for each other (Han et al. 2018)",
    "jocor": "two networks learn what both find easy and agree on (Wei et al. 2020)",
    "disc": "a threshold for each sample, three sets, mixup (Li et al. 2023)",
    "dividemix": "two networks, a mixture of losses, MixMatch (Li et al. 2020)",
    "augdesc": "dividemix that guesses from weak views and learns strong ones (Nishi et al. 2021)",
    "promix": "two networks learn all that they can trust or guess alike (Xiao et al. 2023)",
    "elr": "early-learning regularisation (Liu et al. 2020)",
    "elr_plus": "elr with two networks, averaged weights and mixup",
    "nal": "noise attention learning (Lu et al. 2022)",
    "simclr": "an encoder without labels, for --encoder (Chen et al. 2020)",
    "c2d": "simclr, then dividemix on its backbone, in one run (Zheltonozhskii et al. 2022)",
    "swce_loss": "softmax-weighted cross-entropy alone",
    "swce": "stages of training whose consensus selects samples, with that loss",
    "swce_dividemix": "the stages of swce, then dividemix on the labels of their consensus",
    "multitask": "several tasks that share a network, a batch of each in turn",
    "plain": "the task's own loss on the given labels; of any task",
    "posteriors": "what a network says of each image, for PMD noise",
}
"""Method -> a line."""

SETS: dict[str, str] = {
    "digits": "scikit-learn's 1,797 grey images of 8 x 8, which need no download",
    "features": "rows of a frozen network's features, by fastnoise features",
    "mnist": "70,000 grey digits of 28 x 28",
    "cifar10": "60,000 images of 32 x 32, 10 classes",
    "cifar100": "60,000 images of 32 x 32, 100 classes",
    "cifar10n": "CIFAR-10 with labels by people (--noise human:NAME)",
    "cifar100n": "CIFAR-100 with labels by people",
    "mnist-canvas": "several digits on a canvas: several labels an image",
    "coco": "images with the objects in them, from COCO's JSON files: several labels an image",
    "mini_coco": "a part of COCO 2017",
    "rotated": "turned digits: the angle is learnt",
    "two-tasks": "the classes of a data set in two tasks that share a network",
    "hf": "Parquet files of a folder or of Hugging Face's hub",
    "tar": "uncompressed tar shards in webdataset's form",
    "values": "image files with one or more values, by a CSV",
    "animal10n": "ANIMAL-10N: 10 animals that look alike, 8 % wrong",
    "clothing1m": "Clothing1M: a million clothes from shops, 14 classes",
    "webvision": "WebVision 1.0: 2.4 million images found by words, 1,000 classes",
    "mini_webvision": "the first 50 classes of WebVision",
    "food101n": "Food-101N: 310,000 dishes, with known labels of some",
    "chaoyang": "Chaoyang: tissue slides, labels of three experts",
    "chest_xray": "chest X-rays: normal or pneumonia",
    "tiny_imagenet": "Tiny ImageNet: 100,000 images of 64 x 64, 200 classes",
    "red_mini_imagenet": "mini-ImageNet with wrong labels from the web",
    "blue_mini_imagenet": "mini-ImageNet with symmetric noise",
    "imagenet": "ILSVRC2012: 1.3 million images, 1,000 classes",
    "folder": "a folder of images for each class",
    "list": "paths and labels in a CSV",
}
"""Data set, by its family -> a line."""

NETWORKS: dict[str, str] = {
    "small_cnn": "four 3x3 convolutions with batch norm; 65,000 parameters",
    "lenet5": "LeNet-5 with ReLU and max pooling",
    "cnn4": "SCE's and APL's network for MNIST",
    "cnn7": "six convolutions, JoCoR's network for CIFAR",
    "cnn9": "nine convolutions, co-teaching's network",
    "cnn9_dropout2d": "cnn9 with dropout of whole channels in training",
    "cnn9_dropout2d_always": "the same in evaluation too, as co-teaching's code has it",
    "resnet18": "ResNet-18 with a stem for small images",
    "resnet18_mish": "resnet18 with Mish in place of ReLU",
    "resnet34": "ResNet-34 with a stem for small images",
    "preact_resnet18": "pre-activation ResNet-18",
    "preact_resnet18_bn_stem": "the form of it in the code of ELR+, DivideMix, SELC and NAL",
    "preact_resnet34": "pre-activation ResNet-34",
    "resnet50": "torchvision's ResNet-50, for large images",
    "vgg19_bn": "VGG-19 with batch norm",
    "wrn28_10": "wide ResNet-28-10; 36.5 million parameters",
    "whitened_cnn6": "a frozen whitening layer and six convolutions, for short courses",
    "whitened_cnn9": "the same with nine, wider; 9.9 million parameters",
    "linear": "a linear classifier, on features",
    "mlp": "one hidden layer of 512 units, on features",
}
"""Network -> a line."""


def _written(name: str) -> str:
    """A data set as --dataset takes it."""
    if name in AT_PATH:
        return f"{name}:{AT_PATH[name]}"
    return WRITTEN[name].form if name in WRITTEN else name


def _methods() -> dict[str, str]:
    return {**METHODS, AUTO: "looks at the labels first and takes one of these: fastnoise help methods"}


def _datasets() -> dict[str, str]:
    return {_written(name): SETS[name] for name in (*DATASETS, *(name for name in AT_PATH if name not in DATASETS))}


def _models() -> dict[str, str]:
    libraries = {
        f"{library}:NAME,weights=FILE": f"a network of {library}, with weights or without" for library in LIBRARIES
    }
    return {**{name: NETWORKS[name] for name in MODELS}, **libraries}


_OWN = {
    "methods": ("FILE.py:CLASS", "a class of yours: fastnoise help own"),
    "datasets": ("FILE.py:NAME", "a function of yours: fastnoise help own"),
    "models": ("FILE.py:NAME", "a class or function of yours: fastnoise help own"),
}
_MORE = {
    "methods": "`fastnoise train --method NAME --help` lists a method's options; `fastnoise help methods` says more.",
    "datasets": "`fastnoise help data` says how each is written, and what your own folders and lists look like.",
    "models": "--width multiplies their channels. `fastnoise help train` says more.",
}


def lines(kind: str) -> dict[str, str]:
    """Name -> a line, of the methods, datasets or models."""
    found = _methods() if kind == "methods" else _datasets() if kind == "datasets" else _models()
    return {**found, _OWN[kind][0]: _OWN[kind][1]}


def table(rows: Mapping[str, str], width: int) -> list[str]:
    """Names and their lines in two columns, wrapped to a width in characters. A long name has a line of its own."""
    indent = min(24, max(len(name) for name in rows) + 2)
    found = []
    for name, text in rows.items():
        head = f"{name:<{indent}}"
        if len(name) >= indent:
            found.append(name)
            head = " " * indent
        found += textwrap.wrap(text, max(width, 40), initial_indent=head, subsequent_indent=" " * indent)
    return found


def run(kind: str, arguments: Sequence[str]) -> int:
    """Print the list; ConfigError for any option."""
    if any(word in ("-h", "--help") for word in arguments):
        print(f"usage: fastnoise {kind}\n\nLists the {kind} that have a name, a line each.")
        return 0
    if arguments:
        raise ConfigError(f"fastnoise {kind} takes no options, found {arguments[0]!r}")
    width = shutil.get_terminal_size((100, 24)).columns
    print("\n".join([*table(lines(kind), width), "", *textwrap.wrap(_MORE[kind], max(width, 40))]))
    return 0
