"""fastnoise corrupt: clean labels in, noisy labels out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from ..data import names as data_names
from ..errors import ConfigError, DataError, alternatives
from ..helptext import REQUIRED
from ..noise import names as noise_names
from .datasets import read_dataset, require_dataset

if TYPE_CHECKING:
    from ..data import ImageDataset

_FORMATS = (".npz", ".csv", ".npy", ".png")
_MOST_DRAWN = 1000  # classes of a heat map: about a pixel each
_MOST_RATED = 2**20  # classes whose rates are summed up


@dataclass(frozen=True)
class CorruptCommand:
    """Corrupt the labels of a data set or of a label file, and report their realised noise.

    One of --dataset and --labels gives the clean labels. Examples:
      fastnoise corrupt --dataset cifar10 --noise symmetric:0.4,quota=class --out noisy.npz noisy.csv
      fastnoise corrupt --labels clean.csv --noise heterogeneous:0.8,clean=3 --out noisy.npz transition.png
      fastnoise corrupt --dataset cifar10 --noise idn:0.4,inputs=centred --seed 1 --out noisy.npz
    """

    noise: Annotated[
        str | None,
        REQUIRED,
        tyro.conf.arg(
            help=f"Label noise, as symmetric:0.4. {alternatives(noise_names.FORMS)}, each with options as in "
            "symmetric:0.4,true_class=included,quota=class."
        ),
    ] = None
    out: Annotated[tuple[str, ...], REQUIRED] = ()
    """Files to write, as noisy.npz. The ending decides the format.
    .npz holds labels, clean labels and the noise spec; .csv labels and clean labels; .npy only the labels.
    The first two say which images they are of, and name images and classes that have names.
    .png is a heat map of the transition matrix, and needs matplotlib."""
    dataset: Annotated[
        str | None, tyro.conf.arg(help=f"Data set whose training labels to corrupt. {alternatives(data_names.FORMS)}.")
    ] = None
    labels: str | None = None
    """Label file to corrupt instead. FILE.npy, FILE.npz:ARRAY, FILE.csv:COLUMN, FILE.tsv:COLUMN, FILE.json, FILE.pt or
    FILE.txt. Its classes are numbers or names."""
    num_classes: int | None = None
    """Number of classes of a label file. None: the largest label plus one, or that of its names."""
    seed: int = 0
    """Seed of the noise."""
    inputs: str | None = None
    """Inputs of a label file's samples, for idn and your own functions. Images or others: FILE.npy, [N, ...]."""
    posteriors: str | None = None
    """Class probabilities of a network, for pmd noise. Also for idn:R,variant=score. FILE.npy, [N, classes].
    The spec can name the file instead (posteriors=FILE.npy); then the noisy labels record it."""
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""
    skip_unreadable: bool = False
    """Leave out images of folder:PATH or list:FILE that cannot be decoded, and name them. Otherwise refuse them."""
    threads: int = 0
    """CPU threads that compute. 0: one per core. The labels do not depend on the number."""


def require_classes(dataset: "ImageDataset") -> None:
    """ConfigError unless each image of a data set has one class."""
    if dataset.train.form != "classes":
        raise ConfigError(
            f"--dataset {dataset.name}: this command is for data sets of one class an image, not of {dataset.task}; "
            "fastnoise train --noise corrupts its labels, and keeps them in the run's labels.npz"
        )


def run(command: CorruptCommand) -> int:
    """Do what the command says; ConfigError and DataError in one line."""
    from .. import noise
    from ..noise.files import read_array, read_label_file, write_csv
    from ..noise.function import takes_inputs
    from ..noise.plot import check_plot, plot_transition
    from ..noise.result import known_labels
    from ..noise.samples import described, known_classes
    from ..noise.spec import check_noise

    if command.noise is None or not command.out:
        raise ConfigError(
            "give --noise SPEC and --out FILE, as in --noise symmetric:0.4 --out noisy.npz transition.png"
        )
    paths = [Path(name) for name in command.out]
    for path in paths:
        if path.suffix.lower() not in _FORMATS:
            raise ConfigError(f"--out {path}: unknown ending {path.suffix!r}; valid: {', '.join(_FORMATS)}")
        if not path.absolute().parent.is_dir():
            raise DataError(f"--out {path}: no such folder; create it")
    if any(path.suffix.lower() == ".png" for path in paths):
        check_plot()
    spec = check_noise(command.noise)
    if (command.dataset is None) == (command.labels is None):
        raise ConfigError("give either --dataset NAME or --labels FILE")
    require_dataset(command, command.dataset)
    dataset: ImageDataset | None = None
    inputs = None if command.inputs is None else read_array("--inputs", command.inputs)
    if inputs is not None and not takes_inputs(spec):
        raise ConfigError(f"--inputs: noise {spec} takes no inputs, as idn:R and your own functions can; drop it")
    posteriors = None if command.posteriors is None else read_array("--posteriors", command.posteriors)
    if posteriors is not None and not spec.of_posteriors:
        raise ConfigError(
            f"--posteriors: noise {spec} takes no posteriors, as pmd:R and idn:R,variant=score do; drop it"
        )
    if command.dataset is not None:
        if command.num_classes is not None:
            raise ConfigError("--num-classes is for label files; a data set knows its own")
        dataset = read_dataset(command.dataset, command)
        require_classes(dataset)
        labels = dataset.train.labels if dataset.clean_labels is None else dataset.clean_labels
        num_classes = dataset.num_classes
        if inputs is None:
            inputs = dataset.train.images
            if inputs is None and spec.of_inputs:
                raise ConfigError(f"idn needs images of one size in memory, and {dataset.name} has none; give --inputs")
    else:
        file = read_label_file(str(command.labels))
        labels, class_names = known_classes(file)
        if (labels < 0).any():
            raise DataError(
                f"--labels {command.labels}: {(labels < 0).sum()} labels are not known, the first at "
                f"{file.where(int((labels < 0).argmax()))}; noise is made of known labels"
            )
        found = int(labels.max()) + 1 if class_names is None else len(class_names)
        num_classes = found if command.num_classes is None else command.num_classes
        if command.num_classes is None and num_classes < 2:
            raise ConfigError(f"--labels {command.labels}: the largest label is {labels.max()}; give --num-classes")
    for path in paths:
        if path.suffix.lower() == ".png" and num_classes > _MOST_DRAWN:
            raise ConfigError(
                f"--out {path}: a heat map has room for {_MOST_DRAWN} classes, but these labels have {num_classes}"
            )
    if not known_labels(labels).all():
        raise ConfigError(
            f"noise is made of true labels, and {command.dataset or command.labels} has them for "
            f"{known_labels(labels).sum()} of {len(labels)} samples"
        )
    noisy = noise.corrupt(
        labels,
        spec,
        seed=command.seed,
        num_classes=num_classes,
        dataset=None if dataset is None else dataset.name,
        human_labels=None if dataset is None else dataset.human_labels,
        threads=command.threads,
        inputs=inputs,
        posteriors=posteriors,
    )
    if dataset is not None:
        noisy = described(noisy, dataset, np.arange(len(labels)))
        if dataset.given_labels and dataset.clean_labels is None:
            noisy = replace(noisy, clean_are="given")
    else:
        named = class_names if class_names is not None and len(class_names) == num_classes else None
        noisy = replace(noisy, class_names=named, names=file.names, index=file.index)
    for path in paths:
        match path.suffix.lower():
            case ".npz":
                noisy.save(path)
            case ".csv":
                write_csv(noisy, path)
            case ".npy":
                from ..files import write_atomically

                write_atomically(path, lambda stream: np.save(stream, noisy.labels), DataError)
            case _:
                title, names = noisy.describe(), noisy.class_names
                plot_transition(noisy.transition, path, title=title, class_names=names, words=noisy.words)
    print(noisy.describe())
    if num_classes <= _MOST_RATED:
        print(f"rates by class: {rates_line(noisy.class_rates)}")
    print(f"sha256 {noisy.sha256}")
    print(f"written: {', '.join(map(str, paths))}")
    return 0


def rates_line(rates: NDArray[np.float64]) -> str:
    """Per-class rates in per cent, those of many classes by their extremes."""
    known = rates[~np.isnan(rates)]
    if len(rates) <= 20:
        return " ".join("-" if np.isnan(rate) else f"{100 * rate:.2f}" for rate in rates) + " %"
    return f"{100 * known.min():.2f} % to {100 * known.max():.2f} %, median {100 * np.median(known):.2f} %"
