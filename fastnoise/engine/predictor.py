"""A run's networks in use: from a model file to answers for new images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .. import own
from ..checks import as_array
from ..config import OptimConfig
from ..data import ImageTable
from ..data.augment import Augmentation
from ..data.images import open_rgb, read_image
from ..data.loaders import make_loader, without_decoder
from ..data.resample import evaluated
from ..data.texts import kept
from ..data.torch_loader import prefetch
from ..errors import CheckpointError, ConfigError, DataError, FastnoiseError, said
from ..methods import Setting, create_method, find_method
from ..models import Network, Outputs, create_model
from ..models.heads import joint, with_mirror
from ..models.names import LIBRARIES
from ..tasks import Evaluation, Task, find_task
from ..tasks.base import Labels
from .evaluate import evaluate
from .folder import RunFolder
from .model_file import ModelHeader, read_model

BATCH = 64
"""Images in a batch, unless the user says otherwise."""
THREADS = 2
"""That decode image files, unless the user says otherwise."""


@dataclass(frozen=True)
class Predictions:
    """What the networks say of n images."""

    answers: Labels
    """[n, ...], what the task makes of the outputs (`Task.answer`): for classes the likeliest one, int64 [n]."""
    outcome: NDArray[np.float32]
    """[n, num_outputs], `Task.outcome`: for classes their probabilities."""


class Predictor(nn.Module):
    """The networks of a run in evaluation mode. They answer together as the run's evaluation has them answer.

    As a module it takes images as the networks do, normalised float32 [B, channels, H, W], and returns `Task.outcome`:
    for classes the probabilities, float32 [B, C]. `predict` takes pixels.

    Args:
        header: of the model file.
        task: what is learnt.
        networks: with their weights.
        method: in evaluation mode, if it answers in a way of its own.
    """

    def __init__(self, header: ModelHeader, task: Task, networks: nn.ModuleList, method: nn.Module | None = None):
        super().__init__()
        self.header, self.task = header, task
        self.networks, self.method = networks, method
        spec = header.eval_augment
        self._augmentation = None if spec is None else Augmentation.parse_evaluation(spec)
        self.mean: Tensor
        self.scale: Tensor
        # On the scale of the pixels or features, and in the loaders' arithmetic.
        most = 255 if header.extractor is None else 1
        pixels = [(most * np.asarray(each)).astype(np.float32) for each in (header.mean, header.std)]
        self.register_buffer("mean", torch.from_numpy(pixels[0]), persistent=False)
        self.register_buffer("scale", torch.from_numpy(1 / pixels[1]), persistent=False)
        self.eval().requires_grad_(False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, of the classes, labels or values."""
        return self.header.class_names

    @property
    def device(self) -> torch.device:
        """The device of the networks; `to` moves them."""
        return self.mean.device

    @property
    def decoder(self) -> str:
        """What decodes image files here: what decoded those of the run's evaluation, if it can."""
        wanted = self.header.decoder
        if self.header.channels != 3:
            return "pillow"
        if without_decoder(wanted, self.device):
            return "pillow" if without_decoder("dali", self.device) else "dali"
        return wanted

    @property
    def decoder_note(self) -> str:
        """Why image files are decoded otherwise than those of the run's evaluation; empty if they are not."""
        why = without_decoder(self.header.decoder, self.device)
        if not why:
            return ""
        return (
            f"the run's images were decoded by {self.header.decoder}, and here by {self.decoder} ({why}): resized "
            "pixels differ by up to 2 of 255, and probabilities with them"
        )

    def outputs(self, images: Tensor) -> Outputs:
        """The networks' common answer to normalised images [B, channels, H, W]: logits [B, num_outputs]."""
        return with_mirror(self._answer, images, self.header.mirror)

    def _answer(self, images: Tensor) -> Outputs:
        if self.method is not None:
            found: Outputs = self.method.predict(list(self.networks), images)  # type: ignore[operator]
            return found
        return joint(list(self.networks), images)  # type: ignore[arg-type]  # a ModuleList forgets what it holds

    def forward(self, images: Tensor) -> Tensor:
        return self.task.outcome(self.outputs(images).logits)

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [B, H, W, channels] as the networks take them: float32 [B, channels, H, W], in channels_last."""
        return ((pixels.float() - self.mean) * self.scale).permute(0, 3, 1, 2)

    def predict(self, images: Any, *, batch_size: int = BATCH) -> NDArray[np.float32]:
        """What `Task.outcome` says of images: for classes the probabilities, float32 [N, C].

        Args:
            images: uint8 [N, H, W, channels], or [N, H, W] of one channel, of the size that the networks take, or of
                any size if the run's evaluation resized them (`header.eval_augment`); of networks on frozen features
                these, float16 or float32 [N, D].
            batch_size: images that are computed at a time.

        DataError for images of another dtype or shape.
        """
        return self.run(self.from_array(images), batch_size=batch_size).outcome

    def predict_files(
        self, files: Sequence[str | Path], *, batch_size: int = BATCH, threads: int = THREADS
    ) -> NDArray[np.float32]:
        """As `predict`, for image files, resized and decoded by `threads`. DataError names an unreadable one."""
        return self.run(self.from_files(files), batch_size=batch_size, threads=threads).outcome

    def from_array(self, images: Any) -> ImageTable:
        """Images in memory as a table without labels; DataError unless the networks take them."""
        array = as_array("images", images)
        if self.header.extractor is not None:
            return self._from_features(array)
        if array.ndim == 3:
            array = array[..., None]
        wanted: list[Any] = [*self.header.image_size, self.header.channels]
        if self._augmentation is not None:
            wanted[:2] = array.shape[1:3]  # any
        if array.dtype != np.uint8 or array.ndim != 4 or list(array.shape[1:]) != wanted or 0 in wanted:
            form = f"{array.dtype} {list(array.shape)}"
            shape = ["N", *(("H", "W") if self._augmentation is not None else wanted[:2]), wanted[2]]
            raise DataError(f"images must be uint8 {shape}, not {form}".replace("'", ""))
        return ImageTable(np.zeros(len(array), np.int64), images=array)

    def _from_features(self, array: NDArray[Any]) -> ImageTable:
        if array.ndim == 2:
            array = array[:, None, None]
        size = self.header.channels
        if array.dtype not in (np.float16, np.float32) or array.ndim != 4 or array.shape[1:] != (1, 1, size):
            form = f"{array.dtype} {[len(array), *array.shape[3 if array.ndim == 4 else 1 :]]}"
            raise DataError(f"the networks take features, float16 or float32 [N, {size}], not {form}")
        return ImageTable(np.zeros(len(array), np.int64), images=array, extractor=self.header.extractor or "")

    def from_files(self, files: Sequence[str | Path]) -> ImageTable:
        """Image files as a table without labels; DataError if the networks take no images of files."""
        if self.header.extractor is not None:
            raise DataError(
                f"the networks take features of {self.header.extractor or 'a network'}, not images; make them with "
                "fastnoise features, and give features:FILE.npy"
            )
        if self.header.channels not in (1, 3):
            raise DataError(f"the network takes images of {self.header.channels} channels, and image files have 1 or 3")
        names = kept(files)
        return ImageTable(np.zeros(len(names), np.int64), files=names, size=self.header.image_size)

    def run(self, table: ImageTable, *, batch_size: int = BATCH, threads: int = THREADS) -> Predictions:
        """What the networks say of a table's images."""
        answers: list[Labels] = []
        outcome: list[NDArray[np.float32]] = []
        for found, _ in self._pass(table, batch_size, threads):
            answers.append(self.task.answer(found.logits).cpu().numpy())
            outcome.append(self.task.outcome(found.logits).cpu().numpy())
        if not answers:
            empty = torch.zeros(0, self.task.num_outputs, device=self.device)
            return Predictions(self.task.unseen(0, self.device).cpu().numpy(), empty.cpu().numpy())
        return Predictions(np.concatenate(answers), np.concatenate(outcome))

    def evaluate(
        self, tables: Sequence[ImageTable], truth: Labels, *, batch_size: int = BATCH, threads: int = THREADS
    ) -> tuple[Evaluation, dict[str, Any]]:
        """The task's evaluation of the networks against labels, and its figures by name.

        Args:
            tables: with n images together.
            truth: [n, ...], their labels, with classes in the networks' order.
            batch_size: images that are computed at a time.
            threads: that decode image files.
        """
        answers = self.task.collect([truth], self.device)
        first, batches = 0, list[Iterator[tuple[Outputs, Tensor]]]()
        for table in tables:
            batches.append(self._pass(self.fitting(table), batch_size, threads, first))
            first += len(table)
        (found,) = evaluate(answers, chain.from_iterable(batches))
        return found, self.task.figures(found, truth)

    def pixels(self, table: ImageTable, *, threads: int = THREADS) -> NDArray[np.uint8]:
        """The images of a table of at least one as the networks take them: uint8 [N, H, W, channels]."""
        return np.concatenate(list(self._pixels(self.fitting(table), BATCH, threads)))

    def fitting(self, table: ImageTable) -> ImageTable:
        """The table of a data set in the form that the networks take; DataError if it has none."""
        if table.extractor and self.header.extractor and table.extractor != self.header.extractor:
            raise DataError(
                f"these are features of {table.extractor}, and the networks take those of {self.header.extractor}"
            )
        if table.is_features and self.header.extractor is None:
            raise DataError("the networks take images, and the data set has features; give the images")
        if table.images is None:
            return self.from_files(table.files)
        return self.from_array(table.images)

    @torch.no_grad()
    def _pass(
        self, table: ImageTable, batch_size: int, threads: int, first: int = 0
    ) -> Iterator[tuple[Outputs, Tensor]]:
        """Outputs of the images, and their places counted from `first`; in evaluation mode and full precision."""
        if batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, not {threads}")
        self.eval()
        for pixels in self._pixels(table, batch_size, threads):
            images = self.normalised(torch.from_numpy(pixels).to(self.device))
            rows = torch.arange(first, first + len(pixels), device=self.device)
            found = self.outputs(images)
            yield Outputs(found.logits.float()), rows
            first += len(pixels)

    def _pixels(self, table: ImageTable, batch_size: int, threads: int) -> Iterator[NDArray[np.uint8]]:
        """uint8 [B, H, W, channels], batch after batch; those of files are decoded ahead."""
        starts = range(0, len(table), batch_size)
        augmentation, images = self._augmentation, table.images
        if images is not None and augmentation is None:
            yield from (images[start : start + batch_size] for start in starts)
            return
        channels, size = self.header.channels, self.header.image_size
        if images is None and self.decoder != "pillow" and len(table):
            yield from self._by_dali(table, batch_size, threads)
            return

        def read(position: int) -> NDArray[np.uint8]:
            if images is not None:
                assert augmentation is not None
                return evaluated(images[position], augmentation)
            file, exif = table.files[position], self.header.exif
            if augmentation is None:
                pixels = read_image(file, size, exif)
            else:
                pixels = evaluated(open_rgb(file, exif), augmentation)
            return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]

        with ThreadPoolExecutor(threads) as pool:
            batches: Iterable[NDArray[np.uint8]] = (
                np.stack(list(pool.map(read, range(start, min(start + batch_size, len(table)))))) for start in starts
            )
            with closing(prefetch(batches, depth=2)) as ready:
                yield from ready

    def _by_dali(self, table: ImageTable, batch_size: int, threads: int) -> Iterator[NDArray[np.uint8]]:
        """The same of files that the run had from DALI, whose resized pixels are not Pillow's."""
        loader = make_loader(
            "dali",
            replace(table, exif=self.header.exif),
            batch_size=batch_size,
            mean=(0.0,) * 3,
            std=(1 / 255,) * 3,  # which leaves pixels as they are
            device=self.device if self.decoder == "dali:cuda" else "cpu",
            augmentation=self._augmentation,
            threads=threads,
        )
        with closing(loader):
            for images, _ in loader.epoch(0):
                yield images.permute(0, 2, 3, 1).round().to(torch.uint8).cpu().numpy()


# -- loading -------------------------------------------------------------------------------------------------


def load(
    path: str | Path,
    *,
    best: bool = False,
    model: str | None = None,
    task: str | None = None,
    method: str | None = None,
    device: str | torch.device = "cpu",
) -> Predictor:
    """The networks of a run, ready for use.

    Args:
        path: the folder of a run, or a model file.
        best: of a run's folder the networks with the best validation score, not those of the last epoch.
        model: FILE.py:NAME, for networks of your own.
        task: FILE.py:NAME, for a task of your own.
        method: FILE.py:NAME, for a method of your own that answers in its own way.
        device: where the networks go.

    Raises:
        CheckpointError: there is no model file, or it is damaged or of another version.
        ConfigError: the file names code of the user's own that is not given here. Nothing else that it names is run.
    """
    file = model_path(Path(path), best=best)
    header, tensors = read_model(file)
    given = {"model": model, "task": task, "method": method}
    names = _names(file, header, given)
    try:
        kind = find_task(names["task"])
        task_of = kind(header.class_names, **header.settings)
        networks = _networks(file, header, names["model"], task_of, tensors)
        answering = None if header.options is None else _method(header, names["method"], task_of, networks, tensors)
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError, AttributeError) as error:
        reason = said(error, 200)
        raise CheckpointError(f"{file} does not fit the networks that its header names: {reason}") from error
    return Predictor(header, task_of, networks, answering).to(device)


def model_path(path: Path, *, best: bool = False) -> Path:
    """The model file that a run's folder holds, or the file itself; CheckpointError if there is none."""
    if not path.is_dir():
        if best:
            raise ConfigError(f"{path} is a file, and --best chooses one in a run's folder; drop --best")
        return path
    folder = RunFolder(path)
    found = folder.best_model if best else folder.model
    if found.exists():
        return found
    if not folder.config.is_file():
        raise CheckpointError(f"{path} is no run's folder (it has no config.toml); give one, or a model file")
    if best:
        raise CheckpointError(f"{path} has no {found.name}, since the run has no validation set; drop --best")
    raise CheckpointError(
        f"{path} has no {found.name}: the run is not complete, or an earlier version trained it; fastnoise train "
        f"--resume {path} writes it"
    )


def _names(file: Path, header: ModelHeader, given: dict[str, str | None]) -> dict[str, str]:
    """The names of task, network and method, with FILE.py:NAME as the user gives it; ConfigError for what is missing,
    or given without need."""
    stored = {"model": header.model, "task": header.task, "method": header.method}
    needed = {kind for kind, name in stored.items() if own.is_own(name)}
    if header.options is None:
        needed -= {"method"}
    missing = [f"--{kind} {stored[kind]}" for kind in sorted(needed) if given[kind] is None]
    if missing:
        raise ConfigError(
            f"{file}: the network uses code in files, and fastnoise runs only code that you name; if you trust it, add "
            f"{' '.join(missing)} with the file's path"
        )
    for kind, name in given.items():
        if name is None:
            continue
        if kind not in needed:
            raise ConfigError(f"--{kind} {name}: {file} has {kind} {stored[kind]}, which needs no code; drop --{kind}")
        if not own.is_own(name) or own.short(name) != own.short(stored[kind]):
            raise ConfigError(f"--{kind} {name}: {file} has {kind} {stored[kind]}; give the file that has it")
    return {kind: given[kind] or name for kind, name in stored.items()}


def changed_code(header: ModelHeader, given: dict[str, str | None]) -> list[str]:
    """The names FILE.py:NAME among these whose file is not what it was when the networks were trained."""
    return [
        name
        for kind, name in given.items()
        if name is not None and kind in header.code and own.sha256(name) != header.code[kind]
    ]


def _networks(file: Path, header: ModelHeader, name: str, task: Task, tensors: dict[str, Tensor]) -> nn.ModuleList:
    """The networks with their weights, on the CPU."""
    prefix = "networks."
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if len({key.partition(".")[0] for key in weights}) != header.networks:
        raise CheckpointError(f"{file} does not hold the {header.networks} networks that its header names")

    def named(build: Callable[[], Network]) -> Network:
        try:
            return build()
        except FastnoiseError as error:
            raise CheckpointError(f"{file}: its header names no network: {error}") from error

    def build() -> Network:
        return create_model(
            name,
            num_classes=task.num_outputs,
            channels=header.channels,
            image_size=header.image_size,
            width=header.width,
            attention=header.attention,
            features=header.features,
            dropout=header.dropout,
            head=task.head,
            weights=False,
        )

    if own.is_own(name):
        with torch.random.fork_rng(devices=[]):  # the user's random numbers stay as they are
            networks = nn.ModuleList(build() for _ in range(header.networks))
    elif name.partition(":")[0] in LIBRARIES:  # which may compute some of their parts when they are made
        with torch.random.fork_rng(devices=[]):
            networks = nn.ModuleList(named(build) for _ in range(header.networks))
    else:  # without memory for weights, until it is known that those of the file fit
        with torch.device("meta"):
            networks = nn.ModuleList(named(build) for _ in range(header.networks))
        for key, tensor in networks.state_dict().items():
            if key in weights and weights[key].shape != tensor.shape:
                form, other = list(weights[key].shape), list(tensor.shape)
                raise CheckpointError(f"{file}: {key} is {form}, and the network that the header names has {other}")
        networks = networks.to_empty(device="cpu").to(memory_format=torch.channels_last)
    # What a method adds to the networks for its training is there if it answers in its own way, and is its to load.
    missing, surplus = networks.load_state_dict(weights, strict=header.options is None)
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing[:3])} of the network that its header names")
    if surplus and header.options is None:
        raise CheckpointError(f"{file} has {', '.join(surplus[:3])}, which its network has not")
    return networks


def _method(
    header: ModelHeader, name: str, task: Task, networks: nn.ModuleList, tensors: dict[str, Tensor]
) -> nn.Module:
    """The method that answers in a way of its own, with its state."""
    with torch.random.fork_rng(devices=[]):
        options = find_method(name).Options(**{**(header.options or {}), "method": name})
        method = create_method(options, num_samples=header.samples, num_classes=task.num_outputs, task=task)
        method.configure(Setting(OptimConfig(), header.mean, header.std))
        method.attach(list(networks))  # type: ignore[arg-type]
    prefix, rest = "networks.", "method."
    networks.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    state = {key.removeprefix(rest): t for key, t in tensors.items() if key.startswith(rest)}
    missing, _ = method.load_state_dict(state, strict=False)
    if lost := [key for key in missing if key not in method.per_sample]:
        raise RuntimeError(f"the state of method {name} lacks {', '.join(lost[:3])}")
    return method.eval()
