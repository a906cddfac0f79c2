"""The features of a network for every image of a data set, in a file that grows and can be continued."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import own
from ..data import ImageDataset, make_loader
from ..data.digests import files_hash, rest_hash
from ..data.features import About, Content, FeatureFiles, about_of, parts_of, read_about, write_about, write_labels
from ..data.table import feature_statistics
from ..errors import CheckpointError, ConfigError, DataError, TrainingError
from ..files import expanded
from ..models import Network, create_model
from ..models.encoder import load_encoder
from ..models.heads import Backbone
from ..models.names import MODELS, LibraryModel, bare
from .predictor import load, model_path
from .prepare import normalisation_of

_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Extractor:
    """Networks whose features are kept, and the images that they take."""

    name: str
    """Of the network, as `fastnoise features --model` names it."""
    backbones: Sequence[Backbone]
    """In evaluation mode; their features stand one behind the other."""
    image_size: tuple[int, int]
    """Height and width."""
    channels: int
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]

    @property
    def size(self) -> int:
        """D, the number of features."""
        return sum(backbone.num_features for backbone in self.backbones)

    def sha256(self) -> str:
        """Of the names, shapes and bytes of all weights."""
        digest = hashlib.sha256()
        for backbone in self.backbones:
            for name, tensor in sorted(backbone.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
                plain = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
        return digest.hexdigest()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """float32 [B, D] of normalised images [B, channels, H, W], which are resized if they have another size."""
        if tuple(images.shape[2:]) != self.image_size:
            images = nn.functional.interpolate(
                images, self.image_size, mode="bicubic", align_corners=False, antialias=True
            ).contiguous(memory_format=torch.channels_last)
        return torch.cat([backbone(images).float() for backbone in self.backbones], 1)


def make_extractor(
    model: str,
    dataset: ImageDataset,
    device: torch.device,
    *,
    encoder: str | None = None,
    image_size: int | None = None,
    normalisation: str | None = None,
) -> Extractor:
    """The extractor that `--model` names.

    Args:
        model: the folder of a run, a model file, or a network by name (`create_model`).
        dataset: whose images it is for.
        device: of the networks.
        encoder: file of `fastnoise pretrain`, with the weights of one of fastnoise's own networks.
        image_size: side of the images; None: that of the run, else that of the data set.
        normalisation: in words or numbers (`fastnoise.data.normalisation`); None: that of the run, else that of the
            weights, else that of the data set.

    Raises:
        ConfigError: the network would be random, or gives no features.
        CheckpointError: weights are missing, damaged, or do not fit.
    """
    if dataset.train.is_features:
        raise ConfigError(f"{dataset.name} has features already; give images")
    channels, *size = dataset.train.shape
    if image_size is not None:
        size = [image_size, image_size]
    used = dataset.mean, dataset.std
    path = expanded(model)
    if path.exists() and not own.is_own(model):
        if encoder is not None:
            raise ConfigError(f"--encoder {encoder}: {model} has weights of its own; drop --encoder")
        predictor = load(path, device=device)
        header, networks = predictor.header, list(predictor.networks)
        if header.extractor is not None:
            raise ConfigError(f"--model {model}: its networks take features themselves; give one that takes images")
        if header.channels != channels:
            raise DataError(f"{model} takes images of {header.channels} channels, and {dataset.name} has {channels}")
        used = header.mean, header.std
        size = list(header.image_size) if image_size is None else size
        name = f"{header.model} of {path.resolve().name if path.is_dir() else model_path(path).name}"
    else:
        library = LibraryModel.parse(model)
        if (model in MODELS and encoder is None) or (library is not None and library.weights is None):
            raise ConfigError(
                f"--model {model} alone has random weights; give the folder of a run, a model file, "
                + ("--encoder FILE" if library is None else f"or {library.bare},weights=DEFAULT or a FILE")
            )
        if library is not None:
            from ..models import pretrained

            if normalisation is None and pretrained.normalisation(model) is not None:
                normalisation = "weights"
        network = create_model(
            model, num_classes=2, channels=channels, image_size=(size[0], size[1]), features=True
        ).to(device)
        if encoder is not None:
            shape = {"model": model, "width": 1.0, "channels": channels, "image_size": [*size]}
            load_encoder(expanded(encoder), network, **shape)
        networks, name = [network], own.short(bare(model))
    backbones = []
    for each in networks:
        if not isinstance(each, Network) or not hasattr(each, "backbone"):
            raise ConfigError(f"--model {model} gives logits and no features; its network needs num_features")
        backbones.append(each.backbone.eval().requires_grad_(False))
    if normalisation is not None:
        used = normalisation_of(normalisation, model, dataset, channels)
    return Extractor(
        name,
        backbones,
        (size[0], size[1]),
        channels,
        *used,
    )


def first_of(dataset: ImageDataset, count: int | None) -> ImageDataset:
    """The data set with its first `count` training images alone; ConfigError if it has fewer."""
    if count is None:
        return dataset
    if count > len(dataset.train):
        raise ConfigError(f"--limit-train {count}: {dataset.name} has {len(dataset.train)} training images")
    return replace(
        dataset,
        train=dataset.train.take(np.arange(count)),
        clean_labels=None if dataset.clean_labels is None else dataset.clean_labels[:count],
        human_labels={name: labels[:count] for name, labels in dataset.human_labels.items()},
    )


def extract(
    dataset: ImageDataset,
    extractor: Extractor,
    out: Path,
    device: torch.device,
    *,
    batch_size: int,
    threads: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> About:
    """Write the features of all images to `out`, and what `fastnoise.data.features` keeps beside it.

    The file grows as `out`.partial, batch by batch. After a kill the same call goes on with it, and gives the same
    bytes. It does nothing if the features are there already.

    Args:
        dataset: of images.
        extractor: on `device`.
        out: a name that ends in .npy.
        device: of the extractor.
        batch_size: images computed at a time.
        threads: that decode images.
        progress: is called with the number of rows that are there, and of all.

    Raises:
        DataError: `out` or its part has features of something else, or files of their names are there without F.json.
        TrainingError: a feature is not finite, or too large for float16.
    """
    files = FeatureFiles(out)
    tables = parts_of(dataset)
    about = About(
        dataset=dataset.name,
        list_hash=dataset.list_hash,
        network=extractor.name,
        weights=extractor.sha256(),
        image_size=extractor.image_size,
        image_mean=tuple(map(float, extractor.mean)),
        image_std=tuple(map(float, extractor.std)),
        rows={part: len(table) for part, table in tables.items()},
        size=extractor.size,
        batch_size=batch_size,
        rest_hash=rest_hash(dataset),
        files=files_hash(dataset),
    )
    if files.about.exists():
        known = about_of(read_about(files))
        # What an earlier version did not write down stays so.
        about = replace(about, rest_hash=known.rest_hash and about.rest_hash, files=known.files and about.files)
        if known != about:
            changed = known == replace(about, rest_hash=known.rest_hash, files=known.files)
            what = "the data set as it was before images, labels for validation or true ones changed"
            raise DataError(
                f"{files.about} is about {what if changed else 'other features'}; choose another --out, or remove it"
            )
        if out.exists():
            return about
    elif there := [path for path in (out, files.partial, files.labels) if path.exists()]:
        raise DataError(f"{there[0]} is there already; choose another --out, or remove it")
    else:
        write_about(files, about)
    write_labels(files, dataset)
    head = _head(about)
    try:
        with open(files.partial, "r+b" if files.partial.exists() else "x+b", buffering=0) as stream:
            if stream.seek(0, os.SEEK_END) < len(head):
                stream.seek(0)
                stream.write(head)
            _grow(stream, len(head), dataset, extractor, device, batch_size, threads, progress)
            os.fsync(stream.fileno())
    except OSError as error:
        raise CheckpointError(
            f"cannot write {files.partial}: {error.strerror}; free space or check permissions"
        ) from error
    features = np.load(files.partial, mmap_mode="r")
    write_about(files, about, feature_statistics(features[: about.rows["train"]]), Content.of(files.partial))
    os.replace(files.partial, out)
    return about


def _head(about: About) -> bytes:
    """The beginning of the .npy file."""
    stream = io.BytesIO()
    shape = (sum(about.rows.values()), about.size)
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _grow(
    stream: FileIO,
    start: int,
    dataset: ImageDataset,
    extractor: Extractor,
    device: torch.device,
    batch_size: int,
    threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """Append the rows that are missing to a file whose rows begin at `start`; the last whole batches are kept."""
    row = 2 * extractor.size
    done = (stream.seek(0, os.SEEK_END) - start) // row
    tables = parts_of(dataset)
    total, first = sum(map(len, tables.values())), 0
    for part, table in tables.items():
        kept = min(max(0, done - first), len(table))
        if kept < len(table):
            kept -= kept % batch_size
            stream.truncate(start + row * (first + kept))
            stream.seek(0, os.SEEK_END)
            loader = make_loader(
                "auto",
                table if table.images is not None else replace(table, size=extractor.image_size),
                batch_size=batch_size,
                mean=extractor.mean,
                std=extractor.std,
                device=device,
                threads=threads,
            )
            for images, index in loader.epoch(0, kept // batch_size):
                content = _as_half(extractor.features(images), part, first_of=int(index[0]))
                stream.write(content)
                kept += len(index)
                progress(first + kept, total)
            loader.close()
        first += len(table)


def _as_half(features: Tensor, part: str, first_of: int) -> bytes:
    """float32 [B, D] as the bytes of float16; TrainingError for what float16 cannot hold."""
    bad = ~(features.abs() <= _HALF).all(1)  # which NaN is too
    if bad.any():
        place = first_of + int(bad.int().argmax())
        raise TrainingError(
            f"the features of {part} image {place} are not finite, or above float16's {_HALF:.0f}; check the "
            "network's weights and its normalisation"
        )
    return features.half().cpu().numpy().tobytes()
