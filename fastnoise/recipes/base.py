"""What the recipes of all methods share: network, augmentation and schedule by data set."""

from dataclasses import replace

from ..config import DataConfig, EngineConfig, ModelConfig, NoiseConfig, OptimConfig, RunConfig
from ..data.names import FEATURES, family, is_brought, is_given, read_options, task_of
from ..noise.spec import parse
from ..options import AUTO, MethodOptions
from .real import SETS

USUAL_METHOD = "nal"
"""Of classification where no method is named and nobody looks at the labels."""


def default_method(dataset: str, task: str | None = None) -> str:
    """The method for a data set, or for `task` if another than the data set's is given.

    Classes that the user brings get auto, which looks at the labels first, and those of a published data set nal, also
    if only the data set itself says its task. A task of the user's own gets plain.
    """
    classes = AUTO if is_brought(dataset) else USUAL_METHOD
    return {"classification": classes, None: classes, "multitask": "multitask"}.get(task or task_of(dataset), "plain")


def default_noise(dataset: str) -> str:
    """The noise of a recipe: 40 % symmetric, or the noisiest human labels if the data set has them. A user's own data
    has no noise by default: it is never corrupted unasked."""
    if is_given(dataset):
        return "none"
    if family(dataset) == "two-tasks":
        return "none" if read_options(dataset)["only"] else f"symmetric:0.4,classes={_second_task(dataset)}"
    if family(dataset) == "mnist-canvas":
        return f"swap:0.4,group=0-{(int(read_options(dataset)['first_group']) or 6) - 1}"
    if family(dataset) == "rotated":
        return "gaussian:20.0,low=0.0"
    return {"cifar10n": "human:worse", "cifar100n": "human:noisy"}.get(dataset, "symmetric:0.4")


def _second_task(dataset: str) -> str:
    """The classes of the second of two tasks, in the form of a noise's option."""
    count = {"cifar100": 100, "cifar100n": 100}.get(str(read_options(dataset)["of"]), 10)
    return f"{count // 2}-{count - 1}"


def base(dataset: str, noise: str, method: MethodOptions) -> RunConfig:
    """A configuration for `dataset` that compares methods on equal terms; published recipes change it.

    The settings for digits, mnist, folders, lists and features are ours: no paper of the field publishes a recipe for
    them. The settings for CIFAR are the common ones: crop with padding 4 and flip, batch 128, SGD with momentum 0.9,
    ResNet-34.
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
    if dataset.startswith(FEATURES):
        return RunConfig(
            method,
            DataConfig(dataset=dataset, crop_padding=0, flip=False, batch_size=512),
            noise_config,
            ModelConfig("linear"),
            OptimConfig(epochs=30, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, schedule="cosine"),
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
    if family(dataset) in SETS:
        data = DataConfig(dataset=dataset, augment=family(dataset))
        config = RunConfig(method, data, noise_config, ModelConfig("resnet18"), OptimConfig(), engine)
        return config.replace(SETS[family(dataset)])
    return RunConfig(
        method,
        DataConfig(dataset=dataset, batch_size=64),
        noise_config,
        ModelConfig("resnet18"),
        OptimConfig(epochs=60, learning_rate=0.02, weight_decay=5e-4, schedule="multistep:30,50,gamma=0.1"),
        engine,
    )


def _of_another_task(dataset: str, noise: NoiseConfig, method: MethodOptions, engine: EngineConfig) -> RunConfig:
    """The configuration for sets with several labels or values per image. The settings are those of our studies.

    The optimiser is Adam with a cosine schedule. Only COCO's photos are mirrored. Rotated digits are not cropped
    either.
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
"""The rate that is assumed for labels of unknown noise, and for a noise without a rate in its spec (a matrix)."""


def noise_rate(noise: str) -> float:
    """The rate that a noise spec asks for, or the rate of CIFAR-N's labels. Some methods' settings depend on it."""
    spec = parse(noise)
    if spec.kind == "none":
        return 0.0
    if spec.rate is not None:
        return spec.rate
    return HUMAN_RATES.get(spec.name or "", UNKNOWN_RATE)


def clean_split(noise: str) -> str:
    """--val-split of ELR's and ELR+'s code: the true classes are split first, and both parts corrupted apart. Noise
    that is drawn from posteriors of all images cannot be."""
    return "given" if parse(noise).posteriors is not None else "clean"


def is_cifar10(dataset: str) -> bool:
    """Whether the published CIFAR-10 settings apply: CIFAR-10 with artificial or human noise."""
    return dataset in ("cifar10", "cifar10n")


def is_cifar100(dataset: str) -> bool:
    """Whether the published CIFAR-100 settings apply: CIFAR-100 with artificial or human noise."""
    return dataset in ("cifar100", "cifar100n")
