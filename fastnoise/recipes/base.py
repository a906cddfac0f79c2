"""What the recipes of all methods share: network, augmentation and schedule by data set."""

from dataclasses import replace

from ..config import DataConfig, EngineConfig, ModelConfig, NoiseConfig, OptimConfig, RunConfig
from ..data.names import family, is_brought, read_options, task_of
from ..noise.spec import parse
from ..options import MethodOptions


def default_noise(dataset: str) -> str:
    """The noise of a recipe: 40 % symmetric, or the noisiest human labels where the data set brings them. None for data
    of the user's own, which is never corrupted unasked."""
    if is_brought(dataset):
        return "none"
    if family(dataset) == "two-tasks":
        return "none" if read_options(dataset)["only"] else f"symmetric:0.4,classes={_second_task(dataset)}"
    noises = {"mnist-canvas": "swap:0.4,group=0-5", "rotated": "gaussian:20.0,low=0.0"}
    if family(dataset) in noises:
        return noises[family(dataset)]
    return {"cifar10n": "human:worse", "cifar100n": "human:noisy"}.get(dataset, "symmetric:0.4")


def _second_task(dataset: str) -> str:
    """The classes of the second of two tasks, as noises write them."""
    count = {"cifar100": 100, "cifar100n": 100}.get(str(read_options(dataset)["of"]), 10)
    return f"{count // 2}-{count - 1}"


def base(dataset: str, noise: str, method: MethodOptions) -> RunConfig:
    """A configuration for `dataset` that compares methods on equal terms; published recipes change it.

    digits, mnist, folders and lists are ours: no paper of the field publishes a recipe for them. The CIFAR entries
    are the field's common ones: crop with padding 4 and flip, batch 128, SGD with momentum 0.9, ResNet-34.
    """
    noise_config = NoiseConfig(noise=noise)
    engine = EngineConfig()
    if dataset == "digits":
        return RunConfig(
            method,
            DataConfig(dataset=dataset, crop_padding=0, flip=False, batch_size=64),
            noise_config,
            ModelConfig("small_cnn"),
            OptimConfig(epochs=60, learning_rate=0.1, weight_decay=1e-3, schedule="cosine"),
            engine,
        )
    if dataset == "mnist":
        return RunConfig(
            method,
            DataConfig(dataset=dataset, crop_padding=0, flip=False, batch_size=64),
            noise_config,
            ModelConfig("lenet5"),
            OptimConfig(epochs=20, learning_rate=0.05, weight_decay=0.0, schedule="cosine"),
            engine,
        )
    if task_of(dataset) in ("multilabel", "regression"):
        return _of_another_task(dataset, noise_config, method, engine)
    if family(dataset) == "two-tasks":
        digits = read_options(dataset)["of"] in ("digits", "mnist")
        return RunConfig(
            method,
            DataConfig(dataset=dataset, crop_padding=1 if digits else 4, flip=not digits, batch_size=256),
            noise_config,
            ModelConfig("resnet18_mish", width=2.0),
            OptimConfig(200, "sgd:momentum=0.9,nesterov", 0.05, weight_decay=5e-4, schedule="cosine"),
            engine,
        )
    if dataset.startswith("cifar"):
        return RunConfig(
            method, DataConfig(dataset=dataset), noise_config, ModelConfig("resnet34"), OptimConfig(), engine
        )
    return RunConfig(
        method,
        DataConfig(dataset=dataset, batch_size=64),
        noise_config,
        ModelConfig("resnet18"),
        OptimConfig(epochs=60, learning_rate=0.02, weight_decay=5e-4, schedule="multistep:30,50,gamma=0.1"),
        engine,
    )


def _of_another_task(dataset: str, noise: NoiseConfig, method: MethodOptions, engine: EngineConfig) -> RunConfig:
    """For sets that have several labels or values an image: the settings of the studies of them, which are ours.

    Adam down a cosine. Digits lie as they do: they are neither cropped nor mirrored, and an angle is not mirrored.
    """
    optim = OptimConfig(epochs=40, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="cosine")
    if family(dataset) == "rotated":
        of_digits = read_options(dataset)["of"] == "digits"
        model, batch = ("small_cnn", 64) if of_digits else ("lenet5", 128)
        optim = replace(optim, epochs=40 if of_digits else 14)
        data = DataConfig(dataset=dataset, crop_padding=0, flip=False, batch_size=batch)
        return RunConfig(method, data, noise, ModelConfig(model), optim, engine)
    return RunConfig(
        method,
        DataConfig(dataset=dataset, crop_padding=8, flip=family(dataset) == "coco", batch_size=128, drop_last=True),
        noise,
        ModelConfig("resnet18"),
        optim,
        engine,
    )


HUMAN_RATES = {"worse": 0.402, "aggre": 0.090, "random1": 0.172, "random2": 0.181, "random3": 0.176, "noisy": 0.402}
"""Share of wrong labels in CIFAR-N's label sets, counted in its files."""

UNKNOWN_RATE = 0.2
"""What a noise without a rate in its spec (a transition matrix) counts as."""


def noise_rate(noise: str) -> float:
    """The rate that a noise spec asks for, for methods whose settings depend on it; that of CIFAR-N's labels."""
    spec = parse(noise)
    if spec.kind == "none":
        return 0.0
    if spec.rate is not None:
        return spec.rate
    return HUMAN_RATES.get(spec.name or "", UNKNOWN_RATE)


def is_cifar10(dataset: str) -> bool:
    """Whether the published CIFAR-10 settings apply: CIFAR-10 with made or human noise."""
    return dataset in ("cifar10", "cifar10n")


def is_cifar100(dataset: str) -> bool:
    """Whether the published CIFAR-100 settings apply: CIFAR-100 with made or human noise."""
    return dataset in ("cifar100", "cifar100n")
