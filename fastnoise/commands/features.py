"""fastnoise features: what a network makes of every image of a data set, in a file to train on."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..data import names as data_names
from ..data import normalisation as normalisations
from ..errors import ConfigError, alternatives
from ..files import expanded
from ..helptext import REQUIRED
from ..models import names as model_names
from ..texts import printable


@dataclass(frozen=True)
class FeaturesCommand:
    """Write the features of a frozen network for every image of a data set to FILE.npy.

    FILE.npy is float16 [N, D]: the training images, then those for validation, then those of tests. FILE.json says
    where each part ends and whose features they are, and FILE.npz has labels and names. Train on them by --dataset
    features:FILE.npy with --model linear or mlp, in seconds on a CPU. If the command is stopped or killed, the same
    command continues. Examples:
      fastnoise features folder:photos --model runs/nal-photos --out photos.npy
      fastnoise features cifar10 --model timm:resnet50,weights=DEFAULT --image-size 128 --out cifar10.npy
      fastnoise features cifar10 --model resnet18 --encoder encoder.pt --out cifar10.npy
      fastnoise train --dataset features:cifar10.npy --noise symmetric:0.4 --method gce
    """

    dataset: Annotated[
        str | None,
        REQUIRED,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATASET", help=f"Data set, of `fastnoise datasets`. {alternatives(data_names.FORMS)}."),
    ] = None
    model: Annotated[
        str | None,
        REQUIRED,
        tyro.conf.arg(
            metavar="RUN|MODEL|NAME",
            help=f"Network: a run's folder, a model file, or of `fastnoise models`. {alternatives(model_names.FORMS)}.",
        ),
    ] = None
    out: Annotated[str | None, REQUIRED] = None
    """The file to write, FILE.npy."""
    encoder: str | None = None
    """File with weights for one of fastnoise's own networks, as fastnoise pretrain writes it."""
    image_size: int | None = None
    """Side in pixels to which images are resized. None: that of the run, else that of the data set."""
    normalisation: str | None = None
    """Mean and standard deviation of the images' channels. dataset, weights, cifar10, imagenet, none, or numbers, as
    fastnoise train takes them. None: those of the run or of the weights, else the data set's."""
    limit_train: int | None = None
    """Number of training images to use, from the first on."""
    batch_size: int = 64
    """Images that are computed at a time."""
    loader_threads: int = 2
    """CPU threads of the input pipeline, which decode image files."""
    device: str = "auto"
    """Device: auto (CUDA if there is a GPU), cpu, cuda or cuda:N."""
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""


def run(command: FeaturesCommand) -> int:
    """Write the features; FastnoiseError in one line."""
    out = _checked(command)
    from ..data import load_dataset
    from ..engine.extract import extract, first_of, make_extractor
    from ..engine.step import choose_device

    assert command.dataset is not None
    assert command.model is not None
    device = choose_device(command.device)
    dataset = first_of(
        load_dataset(command.dataset, Path(command.data_root), download=command.download), command.limit_train
    )
    extractor = make_extractor(
        command.model,
        dataset,
        device,
        encoder=command.encoder,
        image_size=command.image_size,
        normalisation=command.normalisation,
    )
    began = time.monotonic()
    about = extract(
        dataset,
        extractor,
        out,
        device,
        batch_size=command.batch_size,
        threads=command.loader_threads,
        progress=_Progress(),
    )
    rows = ", ".join(f"{part} {count}" for part, count in about.rows.items())
    print(
        f"written: {printable(command.out or '')}, float16 [{sum(about.rows.values())}, {about.size}] ({rows}), "
        f"{time.monotonic() - began:.0f} s; features of {printable(about.network)}, weights {about.weights[:16]}"
    )
    return 0


def _checked(command: FeaturesCommand) -> Path:
    """The file to write; ConfigError for words that make no sense."""
    if command.dataset is None or command.model is None or command.out is None:
        raise ConfigError(
            "give a data set, --model and --out, as in fastnoise features folder:new --model RUN --out F.npy"
        )
    data_names.check_dataset(command.dataset)
    for flag, value in (
        ("--batch-size", command.batch_size),
        ("--loader-threads", command.loader_threads),
        ("--image-size", command.image_size),
        ("--limit-train", command.limit_train),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} must be at least 1, not {value}")
    if command.normalisation is not None:
        normalisations.parse(command.normalisation)
    out = expanded(command.out)
    if out.suffix != ".npy":
        raise ConfigError(f"--out {command.out}: features are .npy files; give the name this ending")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {command.out}: {'is a folder' if out.is_dir() else 'no such folder'}; name a file")
    return out


class _Progress:
    """A line on a terminal that says how many images are done."""

    def __init__(self) -> None:
        self.shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and (now - self.shown > 0.2 or done == total):
            self.shown = now
            print(f"\r{done} of {total} images", end="\n" if done == total else "", file=sys.stderr, flush=True)
