"""From a configuration to what training needs: images, labels, loaders, networks and the method."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import data as datasets
from .. import noise, own
from ..config import DataConfig, RunConfig
from ..data import Augmentation, ImageTable, Loader, make_loader, stratified_split
from ..data import normalisation as normalisations
from ..data.balance import class_weights
from ..data.cifar import MEAN_STD
from ..data.digests import rest_hash
from ..data.facts import IMAGENET_MEAN_STD
from ..errors import ConfigError
from ..fields import check_names, check_on_features, known_task
from ..losses import TargetLoss
from ..losses.tables import storing
from ..methods import METHODS, Method, Setting, check_options, create_method, find_method, require_task
from ..methods.shards import Shards
from ..models import Network, create_model
from ..models.encoder import load_encoder
from ..models.names import LibraryModel, bare
from ..models.norm import chooses_fused, fuse_norms
from ..noise.result import clean_if_known
from ..noise.samples import described
from ..tasks import Task, find_task
from ..tasks.base import Labels
from ..tasks.names import DEFAULT
from ..tasks.trial import task_of, try_task
from .fused_head import fuse_heads
from .layer_rates import by_layers
from .run_labels import run_labels, true_where_known

SMALL_IMAGE = 64
"""Evaluation takes batches four times the training batch for images up to this side: no gradients are kept."""


@dataclass(frozen=True)
class RunData:
    """What a run learns from. `index` counts the n samples of the arrays in their order."""

    task: Task
    """What is learnt; its outputs are the network's."""
    class_names: tuple[str, ...]
    """Of the classes, labels or values."""
    channels: int
    image_size: tuple[int, int]
    noisy: noise.NoisyLabels
    """Labels of training and validation samples together, before the split. Its index says which samples these are."""
    positions: NDArray[np.int64]
    """Positions of the training samples in the data set, without the validation samples."""
    train: ImageTable
    given: Labels
    """[n, ...], as the task has them."""
    clean: Labels | None
    """True labels, -1 where they are unknown; None if all are."""
    validation: ImageTable | None
    validation_given: Labels | None
    test: ImageTable
    second_tests: Mapping[str, ImageTable]
    """Further test sets by name (`ImageDataset.second_tests`)."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    """What a run is to say of its labels."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the run folder is to keep of this start beside its notes (environment.json), in JSON's types."""
    list_hash: str = ""
    """`ImageDataset.list_hash` of the data set."""
    rest_hash: str = ""
    """Of its labels for validation and its true ones (`fastnoise.data.digests`)."""
    test_labels: str = "true"
    """`ImageDataset.test_labels` of the data set."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clean", clean_if_known(self.clean))  # those known may all be in other samples


def check_run(config: RunConfig, dataset: datasets.ImageDataset | None = None) -> None:
    """Refuse unknown names and impossible noise before anything is read; ConfigError in one line.

    With `dataset` the configuration must be of a data set of its name.
    """
    method = check_options(config.method)
    if dataset is not None and not isinstance(dataset, datasets.ImageDataset):
        raise ConfigError(
            f"the data set must be a fastnoise.ImageDataset, such as ImageDataset.from_arrays(images, labels), not "
            f"{type(dataset).__name__}"
        )
    if dataset is not None and config.data.dataset != dataset.name and not own.is_own(config.data.dataset):
        raise ConfigError(
            f"the configuration is for data set {config.data.dataset!r}, but dataset= is {dataset.name!r}; "
            f"make the configuration by fastnoise.recipes.recipe(METHOD, {dataset.name!r})"
        )
    given_task = None if dataset is None else dataset.task
    check_names(config, given_task=given_task)
    if config.optim.patience and method.phase is not Method.phase:
        raise ConfigError(
            f"--patience {config.optim.patience}: method {own.short(config.method.method)} goes through phases of set "
            "lengths, which an early end would cut off; drop the option"
        )
    if (library := LibraryModel.parse(config.model.model)) is not None:
        from ..models.pretrained import check_library_model

        check_library_model(library)
    if (task := known_task(config, given_task)) is not None:
        require_task(method, config.method.method, task)


def check_balance(config: RunConfig, data: RunData, method: Method) -> None:
    """ConfigError if --balance or --epoch-batches ask for what the data set has not or the method cannot do."""
    balance, batches = config.data.balance, config.data.epoch_batches
    name, ordered = own.short(config.method.method), type(method).order is not Method.order
    if batches is not None:
        if ordered and not method.draws:
            raise ConfigError(
                f"--epoch-batches {batches}: method {name} orders the samples of its epochs itself; drop the option"
            )
        size = config.data.batch_size // max(1, method.draws)
        count = len(data.given) // method.shards.size  # of each process
        if (size if balance == "sampler" else batches * size) > count:
            raise ConfigError(
                f"--epoch-batches {batches} of {size} are {batches * size} images, and the training set has "
                f"{count}{'' if method.shards.size == 1 else ' for each process'}; give at most {count // size}, or "
                "drop the option"
            )
    if balance == "none":
        return
    what = f"--balance {balance}"
    if data.task.name != DEFAULT:
        raise ConfigError(f"{what} is for data sets with a class for each image, and this is one of {data.task.name}")
    if balance == "weights" and not method.weighted:
        able = ", ".join(sorted(name for name, kind in METHODS.items() if kind.weighted))
        raise ConfigError(f"{what}: the loss of method {name} takes no class weights; methods whose loss does: {able}")
    if ordered and balance == "sampler":
        raise ConfigError(f"{what}: method {name} orders the samples of its epochs itself; drop the option")


def normalisation_of(
    words: str, model: str, dataset: datasets.ImageDataset, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as --normalisation says of a network and a data set.

    Statistics of weights, which are of 3 channels, are averaged over them for images of another number.
    """
    said = normalisations.parse(words)
    if said == "none":
        return (0.0,) * channels, (1.0,) * channels
    if said == "dataset":
        return dataset.mean, dataset.std
    if said == "weights":
        found = _of_weights(model)
        if channels == len(found[0]):
            return found
        mean, std = (sum(part) / len(part) for part in found)
        return (mean,) * channels, (std,) * channels
    numbers = {"cifar10": MEAN_STD["cifar10"], "imagenet": IMAGENET_MEAN_STD}[said] if isinstance(said, str) else said
    if channels != len(numbers[0]):
        what = f"{len(numbers[0])} channel{'s' if len(numbers[0]) > 1 else ''}"
        raise ConfigError(f"--normalisation {words} is for images of {what}; {dataset.name} has {channels}")
    return numbers


def _of_weights(model: str) -> normalisations.Numbers:
    """Mean and standard deviation that the weights of --model were trained with."""
    from ..models.pretrained import normalisation

    found = normalisation(model)
    if found is None:
        raise ConfigError(
            f"--normalisation weights: --model {model} begins with no weights whose normalisation is known; write "
            "dataset, or mean and standard deviation as 0.485,0.456,0.406/0.229,0.224,0.225"
        )
    return found


def settle_normalisation(config: RunConfig, data: RunData) -> RunConfig:
    """The configuration with the numbers that the weights were trained with in place of `weights`: what a run folder
    keeps, so that a resumed run needs neither the weights nor the version of the package that knew the numbers."""
    if config.data.normalisation != "weights":
        return config
    return config.replace({"normalisation": normalisations.written((data.mean, data.std))})


def load_images(config: RunConfig) -> datasets.ImageDataset:
    """The data set that `config` names."""
    settings = config.data
    return datasets.load_dataset(
        settings.dataset,
        Path(settings.data_root),
        download=settings.download,
        exif=settings.exif_orientation,
        skip_unreadable=settings.skip_unreadable,
    )


def load_data(config: RunConfig, dataset: datasets.ImageDataset | None = None) -> RunData:
    """Load the data set that `config` names (or take `dataset`), corrupt its labels, and hold out validation samples.

    Order: take the first `limit_train` samples, corrupt them, then split each class of the given labels with the noise
    seed. With `val_split` clean, each true class is split first. Runs that differ only in the training seed therefore
    have the same data. A data set's own validation images are used with the labels that they come with.
    """
    check_run(config, dataset)
    if dataset is None:
        dataset = load_images(config)
    if dataset.train.is_features:
        check_on_features(config, dataset.name)
    total = len(dataset.train)
    count = min(total, config.data.limit_train or total)
    if config.data.limit_train is not None and config.data.limit_train > total:
        raise ConfigError(f"--limit-train {config.data.limit_train}: {dataset.name} has {total} training images")
    name = config.data.task or dataset.task
    kind = find_task(name)
    if own.is_own(name):
        task = task_of(name, kind, dataset)
        what = f"--task {own.short(name)}: labels or noise"
        noisy, positions, notes = own.call(run_labels, what, config, dataset, task, count)
        if not isinstance(noisy, noise.NoisyLabels):
            raise ConfigError(f"--task {own.short(name)}: corrupt and brought must return fastnoise.noise.NoisyLabels")
        try_task(name, task, noisy.labels, noisy.clean_labels, dataset.test.labels)
    else:
        task = kind.of(dataset)
        noisy, positions, notes = run_labels(config, dataset, task, count)
    if config.noise.noise == "none" and find_method(config.method.method).learns_true_labels:
        noisy, note = true_where_known(noisy, task)
        notes += note
    noisy = described(noisy, dataset, positions)
    brings = dataset.validation
    if brings is not None and config.data.val_fraction > 0:
        raise ConfigError(
            f"--val-fraction {config.data.val_fraction}: {dataset.name} has {len(brings)} images for "
            "validation; drop the option"
        )
    if config.data.val_split == "clean" and config.data.val_fraction > 0 and not noisy.known.all():
        raise ConfigError("--val-split clean needs every sample's true label; take --val-split given")
    classes = noisy.clean_labels if config.data.val_split == "clean" else noisy.labels
    assert classes is not None
    kept, held = stratified_split(classes, config.data.val_fraction, config.noise.noise_seed)
    if config.data.val_fraction > 0 and not len(held):
        raise ConfigError(f"--val-fraction {config.data.val_fraction} of {count} images leaves no image for validation")
    if not len(kept):
        raise ConfigError(f"--val-fraction {config.data.val_fraction} of {count} images leaves no image for training")
    channels = dataset.train.shape[0]
    mean, std = normalisation_of(config.data.normalisation, config.model.model, dataset, channels)
    library = LibraryModel.parse(config.model.model)
    if library is not None and library.weights is not None and config.data.normalisation == "dataset":
        notes += ("normalisation: the data set's; --normalisation weights takes that of the weights",)
    return RunData(
        task=task,
        class_names=dataset.class_names,
        channels=channels,
        image_size=_image_size(config.data, dataset.train.size),
        noisy=noisy,
        positions=positions[kept],
        train=dataset.train if len(kept) == total else dataset.train.take(positions[kept]),
        given=noisy.labels[kept],
        clean=None if noisy.clean_labels is None else noisy.clean_labels[kept],
        validation=dataset.train.take(positions[held]) if len(held) else brings,
        validation_given=noisy.labels[held] if len(held) else None if brings is None else brings.labels,
        test=dataset.test,
        second_tests=dataset.second_tests,
        mean=mean,
        std=std,
        notes=(*dataset.notes, *notes),
        list_hash=dataset.list_hash,
        rest_hash=rest_hash(dataset),
        test_labels=dataset.test_labels,
    )


def _image_size(settings: DataConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the images that the network gets, if those of the data set have this `size`."""
    if settings.image_size is not None:
        size = settings.image_size, settings.image_size
    found = settings.augmentation().output_size(size)
    evaluation = settings.eval_augmentation()
    shown = size if evaluation is None else evaluation.output_size(size)
    if found != shown:
        said = f"--augment {settings.augment}" if evaluation is None else f"--eval-augment {settings.eval_augment}"
        raise ConfigError(
            f"{said}: training has images of {found[0]}x{found[1]}, and evaluation of {shown[0]}x{shown[1]}: give an "
            f"--eval-augment such as resize:{max(found) * 8 // 7},center_crop:{found[0]}x{found[1]}"
        )
    return found


def loading(settings: DataConfig, augmentation: Augmentation | None) -> dict[str, Any]:
    """The words to `make_loader` that say how images are augmented and resized, and by how many threads."""
    resizes = augmentation is not None and augmentation.resizes
    threads = None if settings.loader_threads == "auto" else settings.loader_threads
    return {"augmentation": augmentation, "image_size": None if resizes else settings.image_size, "threads": threads}


@dataclass(frozen=True)
class Loaders:
    """The pipelines of a run. `train` augments and shuffles, the others read every sample once in order."""

    train: Loader
    train_in_order: Loader
    validation: Loader | None
    test: Loader
    second_tests: Mapping[str, Loader]

    def of(self, part: str) -> Loader:
        """The one that reads a part for evaluation: train_in_order, validation, test, or a second test set by name."""
        found: Loader = self.second_tests[part] if part in self.second_tests else getattr(self, part)
        return found

    def close(self) -> None:
        """Free the pipelines' threads and memory."""
        for loader in (self.train, self.train_in_order, self.validation, self.test, *self.second_tests.values()):
            if loader is not None:
                loader.close()


def image_dtype(method: Method, amp: torch.dtype | None) -> torch.dtype:
    """The dtype of a run's images: that of its steps, in which a network takes them anyhow, so that no step casts them;
    float32 where the method asks for it."""
    return torch.float32 if amp is None or method.full_precision_images else amp


def make_loaders(
    config: RunConfig,
    data: RunData,
    device: torch.device,
    views: int = 1,
    weak_views: int = 1,
    dtype: torch.dtype = torch.float32,
    shard: tuple[int, int] = (0, 1),
    share_batches: bool = False,
) -> Loaders:
    """The loaders of a run, all of the kind that `--loader` chooses, with images of `dtype`; training batches hold
    `views` of each sample, the first `weak_views` of them weak. `shard`, `share_batches`: what `train` gives one of
    several processes, as `Plan` says; the others give every sample."""
    settings, batch = config.data, config.data.batch_size
    evaluation_batch = 4 * batch if max(data.image_size) <= SMALL_IMAGE else batch

    def evaluation(table: ImageTable, *, least: int = 1) -> Loader:
        size = min(evaluation_batch, len(table))
        while any(0 < len(range(rank, len(table), shard[1])) % size < least for rank in range(shard[1])):
            size -= 1
        return make_loader(
            settings.loader,
            table,
            batch_size=size,
            mean=data.mean,
            std=data.std,
            device=device,
            dtype=dtype,
            **loading(settings, settings.eval_augmentation()),
        )

    train = make_loader(
        settings.loader,
        data.train,
        batch_size=batch,
        mean=data.mean,
        std=data.std,
        device=device,
        seed=config.engine.seed,
        shuffle=True,
        drop_last=settings.drop_last,
        views=views,
        weak_views=weak_views,
        dtype=dtype,
        shard=shard,
        share_batches=share_batches,
        **loading(settings, settings.augmentation()),
    )
    validation = None if data.validation is None else evaluation(data.validation)
    # A scan may take batch norm's statistics of each batch (`Run.scan`). If steps leave out a last batch of one image,
    # nothing refuses it, and the scan has none either.
    in_order = evaluation(data.train, least=2 if settings.drop_last else 1)
    second = {name: evaluation(table) for name, table in data.second_tests.items()}
    return Loaders(train, in_order, validation, evaluation(data.test), second)


def least_batch(data: RunData, networks: torch.nn.ModuleList, size: tuple[int, int]) -> int:
    """The fewest images of this `size` in a batch that the networks train on: 2 with batch norm over one value per
    channel, else 1.

    The networks are tried without weights and memory (on the device "meta"); what else fails there is passed over.
    """
    for network in networks:
        trial = copy.deepcopy(network).to("meta").train()
        try:
            trial(torch.zeros(1, data.channels, *size, device="meta"))
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                return 2
        except Exception:  # a layer that has no form without memory says nothing of batch norm
            continue
    return 1


def check_last_batch(config: RunConfig, data: RunData, least: int, processes: int = 1) -> None:
    """ConfigError if an epoch of all samples ends in a batch of one image, and the networks need `least` of 2."""
    count, size = len(data.given) // processes, config.data.batch_size
    if least > 1 and not config.data.drop_last and count % size == 1 and count > size:
        raise ConfigError(
            f"--batch-size {size} leaves a last batch of 1 of {count} images, of which {config.model.model} "
            "has one value per channel, and batch norm needs two: add --drop-last, or give another --batch-size"
        )


def encoder_shape(config: RunConfig, data: RunData) -> dict[str, Any]:
    """What a backbone was built from, as encoder files name it."""
    size = {"model": bare(config.model.model), "width": config.model.width}
    return size | {"channels": data.channels, "image_size": list(data.image_size)}


def create_parts(
    config: RunConfig, data: RunData, device: torch.device, *, fresh: bool, shards: Shards | None = None
) -> tuple[Method, torch.nn.ModuleList]:
    """The method and the networks of a run on `device`, drawn from its seed.

    Without `fresh` the networks are to be given a checkpoint's weights, and don't begin from `config.model.encoder`.
    `shards`: the samples that this process trains, by default all.
    """
    torch.manual_seed(config.engine.seed)
    dtype, place = config.engine.target_dtype, config.engine.target_place
    with storing(target_dtype=getattr(torch, dtype), target_place=place, seed=config.engine.seed % 2**31):
        method = create_method(
            config.method,
            num_samples=len(data.given),
            num_classes=data.task.num_outputs,
            task=data.task,
            shards=shards,
        )
    losses = [module for module in method.modules() if isinstance(module, TargetLoss)]
    for option, asked, keeps in (
        (f"--target-dtype {dtype}", dtype != "float32", losses),
        (f"--target-place {place}", place != "device", losses),
        (
            f"--save-tables-every {config.engine.save_tables_every}",
            config.engine.save_tables_every > 1,
            method.sharded(),
        ),
    ):
        if asked and not keeps:
            raise ConfigError(f"{option}: method {own.short(config.method.method)} keeps no targets; drop the option")
    for loss in losses:
        loss.require_room(device)
    check_balance(config, data, method)
    if config.optim.patience and data.validation is None:
        raise ConfigError(
            f"--patience {config.optim.patience} needs a validation set: give --val-fraction 0.1, or a folder val"
        )
    if config.data.balance == "weights":
        method.class_weights = torch.from_numpy(class_weights(data.given, data.task.num_outputs))
    settings = config.data
    batches = settings.epoch_batches
    batches = batches and batches * method.shards.size  # of the samples that a method draws for all processes
    setting = Setting(config.optim, data.mean, data.std, settings.batch_size, data.given, batches)
    method.configure(replace(setting, balanced=settings.balance == "subset"))
    networks = torch.nn.ModuleList(
        create_model(
            config.model.model,
            num_classes=data.task.num_outputs,
            channels=data.channels,
            image_size=data.image_size,
            width=config.model.width,
            attention=method.attention,
            features=method.features or config.model.encoder is not None or by_layers(config),
            dropout=config.model.dropout,
            init=config.model.init,
            head=data.task.head,
            weights=fresh,
        )
        for _ in range(method.networks)
    ).to(device)
    for network in networks:
        assert isinstance(network, Network)
        network.freeze(config.model.freeze)
        fused = config.engine.fused_norm
        if chooses_fused(fused, device) and not fuse_norms(network) and fused == "on":
            raise ConfigError(
                f"--fused-norm on: {config.model.model} has no batch norm of fastnoise's networks; drop the option"
            )
    fuse_heads(config, method, networks, device)
    if config.model.encoder is not None and fresh:  # before averaged copies are made; a checkpoint has its own
        shape = encoder_shape(config, data)
        for network in networks:
            load_encoder(Path(config.model.encoder), network, **shape)  # type: ignore[arg-type]
    return method.to(device), networks
