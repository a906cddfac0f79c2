"""Model files: the networks that come out of a run, with all that it takes to use them.

A model file is a safetensors file. Its tensors are float32 or whatever the networks hold, under the names that the
networks have in a checkpoint, as in `networks.0.classifier.weight`. Its metadata has one JSON document, `fastnoise`,
with the fields of `ModelHeader`. Nothing in it is code: networks, tasks and methods of the user's own are named.
"""

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__, own
from ..checks import shown
from ..config import DataConfig
from ..data.augment import Augmentation
from ..data.loaders import DECODERS, decoder
from ..errors import CheckpointError, ConfigError
from ..files import write_atomically
from ..methods import Method
from ..models import Network
from ..models.names import bare
from ..options import MethodOptions
from .record import Record

FORMAT = 1
ENTRY = "fastnoise"
"""Of the file's metadata: the header as JSON."""


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says of its networks."""

    task: str
    """What is learnt, by name; NAME.py:NAME of the user's own, without the folder, as in `model` and `method`."""
    settings: dict[str, Any]
    """Of the task (`Task.settings`)."""
    class_names: tuple[str, ...]
    """C names, of the classes, labels or values."""
    model: str
    width: float
    dropout: float
    attention: bool
    """Whether the networks have NAL's branch."""
    features: bool
    """Whether the method needed features of the networks."""
    networks: int
    """Whose logits' mean is the answer, unless the method has its own."""
    channels: int
    image_size: tuple[int, int]
    """Height and width."""
    eval_augment: str | None
    """What is done to images of any size before the network gets them, in the words of --eval-augment; None: images in
    memory have `image_size`, and files are resized to it."""
    mirror: bool
    """Whether the mean of the logits of an image and of its mirror image answers (--eval-mirror)."""
    mean: tuple[float, ...]
    """Of each channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]
    exif: bool
    """Whether image files are turned upright as the camera noted."""
    decoder: str
    """What decoded the image files that the run was evaluated on (`fastnoise.data.loaders.decoder`)."""
    method: str
    options: dict[str, Any] | None
    """Of the method, if it answers in a way of its own (`Method.predict`); else None, since it is not needed."""
    samples: int
    """Of the training set."""
    epoch: int
    """After which the weights are, counted from 1."""
    figures: dict[str, float]
    """The scores of that epoch by the names in metrics.jsonl: test_accuracy, validation_accuracy."""
    extractor: str | None
    """The network whose frozen features the networks take, and its weights' SHA-256; empty if that is unknown, None if
    they take images."""
    code: dict[str, str]
    """The SHA-256 sum of each file of the user's own that the header names, by field."""

    @classmethod
    def of(cls, record: Record) -> "ModelHeader":
        """The header for a run's networks as they are after its last epoch."""
        config, data, method = record.config, record.data, record.method
        name = data.task.score.name
        last = record.history[-1]
        keys = ("task", "model", *(["method"] if answers_itself(method) else []))
        task, model, kind = config.data.task or data.task.name, config.model.model, config.method.method
        named = {"task": task, "model": model, "method": kind}
        return cls(
            task=_bare(task),
            settings=data.task.settings(),
            class_names=data.class_names,
            model=_bare(bare(model)),
            width=config.model.width,
            dropout=config.model.dropout,
            attention=method.attention,
            features=method.features or config.model.encoder is not None,
            networks=method.networks,
            channels=data.channels,
            image_size=data.image_size,
            eval_augment=_evaluation(config.data, data.train.size),
            mirror=config.data.eval_mirror,
            mean=data.mean,
            std=data.std,
            exif=data.train.exif,
            decoder=decoder(config.data.loader, data.test, record.labels.device),
            method=_bare(kind),
            options=_options(config.method) if answers_itself(method) else None,
            samples=len(data.given),
            epoch=last["epoch"],
            extractor=data.train.extractor if data.train.is_features else None,
            figures={key: float(last[key]) for key in (f"test_{name}", f"validation_{name}") if key in last},
            code={key: own.sha256(named[key]) for key in keys if own.is_own(named[key])},
        )


def answers_itself(method: Method) -> bool:
    """Whether a method has an answer of its own for unseen images, and not that of all methods."""
    return type(method).predict is not Method.predict


def _evaluation(settings: DataConfig, size: tuple[int, int]) -> str | None:
    """The spec of a run's evaluation for images of any size, of a data set whose images have this one."""
    found = settings.eval_augmentation()
    if found is None or not found.places:
        return None
    if not found.resizes:  # what is cropped has the size of the data set's images
        height, width = size if settings.image_size is None else (settings.image_size,) * 2
        found = replace(found, resize=(height, width))
    return found.evaluation_words()


def _options(options: MethodOptions) -> dict[str, Any]:
    """Those of a method by name."""
    return {name: getattr(options, name) for name in options.names()}


def _bare(name: str) -> str:
    """FILE.py:NAME without the folder, which means nothing elsewhere and may be private. Other names stay."""
    if not own.is_own(name):
        return name
    file, attribute, _ = own.split(name)
    return f"{file.name}:{attribute}"


# -- writing -------------------------------------------------------------------------------------------------


def model_tensors(record: Record, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU of what evaluation uses of a run, by the names in a model file; ConfigError for a state that no
    model file can hold.

    Args:
        record: of the run.
        weights: the state of its networks, with the names of a single run.

    What a method has added to the networks for its training is left out, unless the method answers in its own way: its
    own state is then there too, but for what has a row for each sample.
    """
    whole = answers_itself(record.method)
    found = {
        f"networks.{name}": value for name, value in weights.items() if whole or name.split(".")[1] in Network.PARTS
    }
    if whole:
        state = record.method.state_dict()
        trained = {key: value for key, value in state.items() if not key.startswith("step_course.")}  # `engine.course`
        found |= {f"method.{key}": value for key, value in trained.items() if key not in record.method.per_sample}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            name = name.removeprefix("networks.")
            raise ConfigError(f"the network's state {name} is no tensor, and a model file holds tensors alone")
    return {
        # Each with memory of its own, in the order of its dimensions: safetensors takes nothing else.
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in found.items()
    }


def write_model(path: Path, header: ModelHeader, tensors: Mapping[str, Tensor]) -> None:
    """Write a model file in one step; CheckpointError if there is no room."""
    fields = {"format": FORMAT, ENTRY: __version__} | dataclasses.asdict(header)
    # One entry alone: safetensors writes several in an order that changes from process to process.
    metadata = {ENTRY: json.dumps(fields | {"crc32": _crc32(json.dumps(fields), tensors)})}
    content = save(dict(tensors), metadata)
    write_atomically(path, lambda stream: stream.write(content))


def _crc32(text: str, tensors: Mapping[str, Tensor]) -> int:
    """Of the header and of the tensors' bytes in the order of their names."""
    checksum = zlib.crc32(text.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


# -- reading -------------------------------------------------------------------------------------------------


def read_model(path: Path) -> tuple[ModelHeader, dict[str, Tensor]]:
    """The header and the tensors of a model file, on the CPU; nothing in it is executed.

    CheckpointError for a file that is missing, truncated, damaged, foreign or of another version.
    """
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path}: no such model file; fastnoise train writes model.safetensors to its run folder")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is truncated or no model file ({error}); restore it from a copy") from error
    text = metadata.get(ENTRY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file without a header of fastnoise; give a file that it wrote")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its header is no JSON document ({error}); restore it from a copy") from None
    checksum = content.pop("crc32", None) if isinstance(content, dict) else None
    if checksum != _crc32(json.dumps(content), tensors):
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its content; restore it from a copy")
    if (found := content.get("format")) != FORMAT:
        raise CheckpointError(f"{path} has format {shown(found)}, and this version of fastnoise reads {FORMAT}")
    return _header(path, content), tensors


def _header(path: Path, content: dict[str, Any]) -> ModelHeader:
    """The header in a JSON document, with each field's form checked."""

    def take(name: str, holds: Any, what: str) -> Any:
        value = content.get(name)
        if not holds(value):
            raise CheckpointError(f"{path}: its header has {name} {shown(value)}, not {what}; restore it from a copy")
        return value

    def text(value: Any) -> bool:
        return isinstance(value, str)

    def count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    def positive(value: Any) -> bool:
        return number(value) and value > 0

    def all_of(holds: Any, length: int | None = None) -> Any:
        def check(values: Any) -> bool:
            return isinstance(values, list) and len(values) == (length or len(values)) and all(map(holds, values))

        return check

    def spec(value: Any) -> bool:
        try:
            return value is None or (text(value) and Augmentation.parse_evaluation(value).resizes)
        except ConfigError:
            return False

    content = {"decoder": "pillow", "mirror": False, **content}  # files of earlier versions do not say
    channels = take("channels", count, "a number of channels")
    options = take("options", lambda value: value is None or isinstance(value, dict), "the options of a method")
    return ModelHeader(
        task=take("task", text, "the name of a task"),
        settings=take("settings", lambda value: isinstance(value, dict), "the settings of a task"),
        class_names=tuple(take("class_names", all_of(text), "a list of names")),
        model=take("model", text, "the name of a network"),
        width=take("width", number, "a number"),
        dropout=take("dropout", number, "a number"),
        attention=take("attention", lambda value: isinstance(value, bool), "true or false"),
        features=take("features", lambda value: isinstance(value, bool), "true or false"),
        networks=take("networks", count, "a number of networks"),
        channels=channels,
        image_size=tuple(take("image_size", all_of(count, 2), "height and width")),
        eval_augment=take("eval_augment", spec, "the words of an augmentation"),
        mirror=take("mirror", lambda value: isinstance(value, bool), "true or false"),
        mean=tuple(take("mean", all_of(number, channels), "a number for each channel")),
        std=tuple(take("std", all_of(positive, channels), "a positive number for each channel")),
        exif=take("exif", lambda value: isinstance(value, bool), "true or false"),
        decoder=take("decoder", lambda value: value in DECODERS, f"one of {', '.join(DECODERS)}"),
        method=take("method", text, "the name of a method"),
        options=options,
        samples=take("samples", count, "a number of samples"),
        epoch=take("epoch", count, "a number of epochs"),
        figures=take("figures", lambda value: isinstance(value, dict), "figures by name"),
        extractor=take("extractor", lambda value: value is None or isinstance(value, str), "the name of a network"),
        code=take("code", lambda value: isinstance(value, dict), "sums by name"),
    )
