"""fastnoise export: the networks of a run as a programme for torch.export or ONNX."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from .. import own
from ..data import names as data_names
from ..errors import ConfigError, FastnoiseError
from ..helptext import REQUIRED
from ..texts import counted, printable
from .predict import loaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine import Predictor

_COMPARED = 64
"""Images at most on which a programme is compared with the networks."""


@dataclass(frozen=True)
class ExportCommand:
    """Write the networks of a run as one programme that runs without fastnoise: OUT.pt2 for PyTorch (torch.export), or
    OUT.onnx (pip install 'fastnoise[onnx]').

    It takes batches of any size and gives the probabilities of the classes (other tasks: probabilities of labels,
    values). Several networks are combined as in the run's evaluation. Before the file is written, its answers are
    compared with those of the networks. Examples:
      fastnoise export runs/nal-photos nal.onnx
      fastnoise export model.safetensors model.pt2 --takes pixels --images photos
    """

    network: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = None
    """Folder of a run, or a model file (model.safetensors)."""
    out: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")] = None
    """The file to write: OUT.pt2 or OUT.onnx."""
    takes: Literal["normalised", "pixels"] = "normalised"
    """What the programme takes. normalised: float32 [B, channels, H, W], (pixel / 255 - mean) / std with the numbers in
    the file's fastnoise.json. pixels: uint8 [B, H, W, channels]."""
    images: str | None = None
    """Image file, folder or list to compare on. By default the test images of the run's data set, or made ones."""
    best: bool = False
    """Of a run take the networks with the best validation score, not those of the last epoch."""
    model: str | None = None
    """FILE.py:NAME, if the network is of your own."""
    task: str | None = None
    """FILE.py:NAME, if the task is of your own."""
    method: str | None = None
    """FILE.py:NAME, if the method is of your own and answers in its own way."""

    device = "cpu"


def run(command: ExportCommand) -> int:
    """Write the programme and say how near its answers are; FastnoiseError in one line."""
    if command.network is None or command.out is None:
        raise ConfigError("give a run or a model file, and the file to write, as in fastnoise export runs/NAME out.pt2")
    from ..engine.exporting import FORMATS, SIZES, export_program, require_onnx

    out = Path(command.out)
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"{out}: programmes are {' or '.join(FORMATS)} files; give the name such an ending")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: {'is a folder' if out.is_dir() else 'no such folder'}; name a file in a folder")
    if out.suffix.lower() == ".onnx":
        require_onnx(out)
    predictor = loaded(command)
    pixels, what = _images(command, predictor)
    worst = export_program(predictor, out, pixels, command.takes)
    count = len(predictor.networks)
    combined = f"{count} networks as one programme" if count > 1 else "one network"
    print(
        f"written: {printable(command.out)}, {combined}; its answers to {what}, in batches of "
        f"{', '.join(map(str, SIZES))}, differ from the networks' by at most {worst:.2g}"
    )
    return 0


def _images(command: ExportCommand, predictor: "Predictor") -> "tuple[NDArray[np.uint8], str]":
    """uint8 [N, H, W, channels], N up to _COMPARED, to compare on, and what they are."""
    if command.images is not None:
        from ..data.given import given_files

        files = given_files([command.images])[0][:_COMPARED]
        return predictor.pixels(
            predictor.from_files(files)
        ), f"{counted(len(files), 'image')} of {printable(command.images)}"
    table, why = _of_the_run(Path(command.network or ""), predictor)
    if table is not None:
        return table, f"{len(table)} test images of the run's data set"
    shape = (_COMPARED, *predictor.header.image_size, predictor.header.channels)
    made = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return made, f"{_COMPARED} made images ({why}; --images takes real ones)"


def _of_the_run(path: Path, predictor: "Predictor") -> "tuple[NDArray[np.uint8] | None, str]":
    """Test images of the data set of a run, or None and why there are none."""
    from ..engine import RunFolder

    folder = RunFolder(path if path.is_dir() else path.parent)
    if not folder.config.is_file():
        return None, "a model file alone has no data set"
    name = str(folder.read_fields().get("dataset", ""))
    if own.is_own(name) or not data_names.is_named(name):
        return None, f"the data set {printable(own.short(name))} is none that fastnoise reads by itself"
    from ..data import load_dataset

    try:
        dataset = load_dataset(name, Path(str(folder.read_fields().get("data_root", "data"))), download=False)
        chosen = np.linspace(0, len(dataset.test) - 1, min(_COMPARED, len(dataset.test))).astype(np.int64)
        return predictor.pixels(dataset.test.take(chosen)), ""
    except FastnoiseError as error:
        return None, f"the run's data set can't be read: {error}"
