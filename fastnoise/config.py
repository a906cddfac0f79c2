"""The configuration of a run: nested frozen dataclasses, checked when built.

Every field has a name of its own across the groups, so that the command line and TOML files use flat names
(`--learning-rate`, `learning_rate = 0.02`). Recipes give the defaults (`fastnoise.recipes`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

from . import own
from .data import names as data_names
from .data import normalisation as normalisations
from .data.augment import HELP, PRESETS, Augmentation
from .errors import ConfigError, DataError, alternatives, nearest
from .errors import require as _require
from .files import expanded
from .models import names as model_names
from .noise import names as noise_names
from .noise.finding import read_rate
from .options import Above, AtLeast, Between, Checked, MethodOptions
from .schedules import Averaging, Growth, Optimizer, SaveEvery, Schedule
from .tasks import names as task_names


def said_twice(augment: str) -> str:
    """The message for an augmentation that two options ask for."""
    return (
        f"--augment {augment} says all that is done to training images: drop --crop-padding and --flip, which are "
        "short for crop,pad=4,flip"
    )


@dataclass(frozen=True)
class DataConfig(Checked):
    dataset: Annotated[str, arg(help=f"Data set, of `fastnoise datasets`. {alternatives(data_names.FORMS)}.")] = (
        "digits"
    )
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout. A folder that you name must exist."""
    download: bool = True
    """Download a data set that is not under data-root."""
    task: Annotated[
        str | None, arg(help=f"What is learnt, if not what the data set says. {alternatives(task_names.FORMS)}.")
    ] = None
    limit_train: Annotated[int, Above(0)] | None = None
    """Number of training images to use, from the first on. The test set stays whole."""
    val_fraction: Annotated[float, Between(0, 1, "[)")] = 0.0
    """Share of each class that is held out for validation. It is taken from the training set; its labels are noisy."""
    val_split: Literal["given", "clean"] = "given"
    """Classes that validation samples are drawn from. given: the given labels' classes, once all labels are noisy.
    clean: the true classes; training and validation labels are then corrupted apart, as in ELR's code."""
    normalisation: str = "dataset"
    """Mean and standard deviation of the images' channels. dataset (its own), weights (those that the weights of
    --model were trained with; the default if it has any), cifar10, imagenet, none (pixels in 0..1), or numbers as
    0.485,0.456,0.406/0.229,0.224,0.225."""
    image_size: Annotated[int, Above(0), Between(1, 65536)] | None = None
    """Side in pixels to which image files are resized. None: their own size, or 224 if sizes differ.
    Images are then taken whole: a recipe's preset in --augment that resizes leaves no more than its flip."""
    exif_orientation: bool = True
    """Turn image files upright as the camera noted in EXIF. Without it their pixels stay as they are stored."""
    skip_unreadable: bool = False
    """Leave out image files that cannot be decoded. Without it such a run does not begin."""
    augment: Annotated[
        str | None,
        arg(
            help="How training images are augmented, as crop:224,flip. Words with commas between them: "
            f"{HELP}. None: as --crop-padding and --flip say."
        ),
    ] = None
    eval_augment: Annotated[
        str | None,
        arg(
            help="How images are resized and cropped in evaluation. Write it as resize:256,center_crop:224. None: what "
            "the preset in --augment says, or else the whole image, resized to --image-size."
        ),
    ] = None
    grow_size: str = "none"
    """Smaller training images in the first epochs. none, or 24:0.4 for a shorter side of 24 pixels over 40 % of the
    epochs. Several stages rise, as 16:0.2,24:0.4. Evaluation has the whole size."""
    eval_mirror: bool = False
    """Evaluate each image and its mirror image. The mean of the two logits answers, in twice the time."""
    crop_padding: Annotated[int, AtLeast(0), Between(0, 4096)] = 4
    """Zero padding in pixels for the random crop in training. 0 switches the crop off. --augment replaces it."""
    flip: bool = True
    """Flip training images left to right with probability 1/2. --augment replaces it."""
    batch_size: Annotated[int, Above(0)] = 128
    """Images per training step."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller."""
    balance: Literal["none", "weights", "sampler", "subset"] = "none"
    """What is done about rare classes. They are counted by the given labels of the training set. weights multiplies
    each sample's loss by N / (C * samples of its class). sampler has as much of each class in a batch as it can without
    having a sample twice, so that samples of rare classes come more often. subset draws as many different samples of
    each class for an epoch of --epoch-batches."""
    epoch_batches: Annotated[int, Above(0)] | None = None
    """Batches of an epoch. They are drawn anew for each: of all samples alike, or as --balance says. None: all samples
    once. The schedule counts such epochs. dividemix, whose batches have four parts, draws that many parts."""
    loader: Literal["auto", "dali", "resident", "synthetic", "torch"] = "auto"
    """Input pipeline. synthetic gives random noise instead of images, to measure training without loading.
    auto takes resident if the images fit in memory (on CUDA: the GPU's), else dali if it is installed, else torch."""
    loader_threads: Annotated[int, Above(0), Between(1, 1024)] | Literal["auto"] = "auto"
    """CPU threads of the input pipeline. auto: on a GPU one for each core, up to 16, else 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        normalisations.parse(self.normalisation)
        growing = Growth.parse(self.grow_size) is not None
        _require(
            self.image_size is None or data_names.family(self.dataset) in data_names.RESIZED,
            f"--image-size resizes image files as those of folder:PATH; {self.dataset} has a fixed size",
        )
        _require(
            self.exif_orientation or data_names.family(self.dataset) in data_names.RESIZED,
            f"--no-exif-orientation is for image files as those of folder:PATH, and {self.dataset} has none",
        )
        data_names.check_skipping(self.dataset, self.skip_unreadable)
        _require(
            self.balance != "subset" or self.epoch_batches is not None,
            "--balance subset draws the samples of a short epoch: give its length, as --epoch-batches 1000",
        )
        _require(
            not self.dataset.startswith(data_names.FEATURES)
            or not (self.crop_padding or self.flip or self.augment or self.eval_augment or self.eval_mirror or growing),
            f"{self.dataset} has features, which have no pixels: write --crop-padding 0 --no-flip, and no --augment",
        )
        if self.augment is not None:
            _require(
                (self.crop_padding, self.flip) in ((4, True), (0, False)),  # the defaults, and what replaces them
                said_twice(self.augment),
            )
            object.__setattr__(self, "crop_padding", 0)
            object.__setattr__(self, "flip", False)
        training, evaluation = self.augmentation(), self.eval_augmentation()
        _require(
            self.image_size is None or not training.resizes or evaluation is None or not evaluation.resizes,
            f"--image-size {self.image_size}: --augment and --eval-augment resize by themselves; drop it",
        )

    def augmentation(self) -> Augmentation:
        """What is done to training images."""
        if self.augment is None:
            return Augmentation(self.crop_padding, self.flip)
        return Augmentation.parse(self.augment)

    def eval_augmentation(self) -> Augmentation | None:
        """What is done to images in evaluation; None: they are taken whole."""
        spec = self.eval_augment
        if spec is None and self.augment in PRESETS:
            spec = self.augment
        return None if spec is None else Augmentation.parse_evaluation(spec)


@dataclass(frozen=True)
class NoiseConfig(Checked):
    noise: Annotated[
        str,
        arg(
            help=f"Label noise, as pair:0.4. {alternatives(noise_names.FORMS)}, with options as in "
            "symmetric:R,true_class=included,quota=class or asymmetric:R,map=superclass. swap is for several labels an "
            "image (swap:R,group=0-4), gaussian for values (gaussian:SIGMA,low=0)."
        ),
    ] = "symmetric:0.4"
    noise_seed: Annotated[int, Between(0, 2**63, "[)")] = 0
    """Seed of the label noise. It does not depend on --seed."""
    labels: str | None = None
    """File with the given labels, for --noise none. Classes by name or number, one-hot rows, -1 for unknown.
    Samples are found by name or position (index) if the file has them, else by row.
    Write FILE.csv:COLUMN, FILE.tsv:COLUMN, FILE.json, FILE.npy, FILE.npz:ARRAY, FILE.pt:KEY or FILE.txt."""
    noise_rate: Annotated[float, Between(0, 1, "[)")] | str | None = None
    """Rate of wrong labels, for methods that go by it. In Python give it to recipe().
    Write a number, or the folder of a `fastnoise clean`, whose estimate is taken. None: as --noise says."""

    def __post_init__(self) -> None:
        if isinstance(self.noise_rate, str):
            object.__setattr__(self, "noise_rate", read_rate(self.noise_rate))  # what is kept is the number
        super().__post_init__()
        _require(
            self.labels is None or self.noise == "none",
            f"--labels uses the labels of a file as they are; drop --noise {self.noise} or write --noise none",
        )


@dataclass(frozen=True)
class ModelConfig(Checked):
    model: Annotated[str, arg(help=f"Network, of `fastnoise models`. {alternatives(model_names.FORMS)}.")] = "small_cnn"
    width: Annotated[float, Above(0), Between(0, 1e6)] = 1.0
    """Factor on the number of channels of every layer."""
    dropout: Annotated[float, Between(0, 1, "[)")] = 0.0
    """Probability of dropout. It acts in the fully connected layers of lenet5 and vgg19_bn, after the pooling of cnn9
    and its variants, or before the classifier of timm's networks. 0: as the network has it (vgg19_bn: 0.5)."""
    init: Literal["network", "pytorch"] = "network"
    """Weights that convolutions begin with. network: as fastnoise's networks draw them (the ResNets by their fan-out,
    He et al. 2015). pytorch: as PyTorch draws them unless told otherwise, which the authors' code mostly does."""
    encoder: str | None = None
    """File with pretrained weights for the backbone. `fastnoise pretrain --out FILE` makes one."""
    freeze: Literal["none", "backbone", "norm"] = "none"
    """What training leaves as it is. backbone: all but the heads, running statistics and dropout included. norm: the
    normalisation layers, with the statistics of the weights that the run begins with."""

    batch_norm: Literal["local", "sync"] = "local"
    """Batch norm's statistics with several processes. local: of the batch of each process. sync: of the batches of all
    together, which costs two messages a layer in each step. In one process both are the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        library = model_names.LibraryModel.parse(self.model)
        _require(
            self.encoder is None or library is None or library.weights is None,
            f"--encoder {self.encoder} and the weights in --model {self.model} are both for the backbone; drop one",
        )


COMPILE_OPTIONS = ("combo_kernels", "pdl")
"""What --compile-options can name. combo_kernels launches independent kernels of small tensors as one. pdl is
programmatic dependent launch: a kernel begins while the one before it ends."""

AUTO_COMPILE_OPTIONS: tuple[str, ...] = ()
"""The COMPILE_OPTIONS that `auto` takes: those that a GPU has shown to make steps faster with the same results. Today
there are none. combo_kernels makes a step of ResNet-34 4 % faster on an H100 (benchmarks/results/gpu); the test that
compares its results there has not run yet."""


def parse_compile_options(text: str) -> tuple[str, ...]:
    """Read `auto`, `none` or `combo_kernels,pdl`: names of COMPILE_OPTIONS in their order."""
    if text in ("auto", "none"):
        return AUTO_COMPILE_OPTIONS if text == "auto" else ()
    names = {part.strip() for part in text.split(",")}
    for name in sorted(names):
        _require(name not in ("auto", "none"), f"--compile-options {text}: give {name} alone, or drop it")
        _require(
            name in COMPILE_OPTIONS,
            f"--compile-options {text}: unknown option {name!r}; {nearest(name, ['auto', 'none', *COMPILE_OPTIONS])}",
        )
    return tuple(name for name in COMPILE_OPTIONS if name in names)


LOGGERS = ("tensorboard", "wandb", "mlflow")
"""What --log can name. Each is a package, and an extra of that name installs it."""


def parse_log(text: str) -> tuple[str, ...]:
    """Read `none` or `tensorboard,mlflow`: names of LOGGERS in their order."""
    names = set() if text == "none" else {part.strip() for part in text.split(",")}
    for name in sorted(names):
        _require(name in LOGGERS, f"--log {text}: unknown name {name!r}; {nearest(name, ['none', *LOGGERS])}")
    return tuple(name for name in LOGGERS if name in names)


Recipe = Literal["published", "fast-r18", "speedrun", "cpu"]
"""What --recipe can name."""
RECIPES: tuple[str, ...] = get_args(Recipe)


@dataclass(frozen=True)
class OptimConfig(Checked):
    epochs: Annotated[int, Above(0), Between(1, 1e6)] = 100
    """Passes over the training set."""
    optimizer: str = "sgd"
    """Optimiser: sgd, adam or adamw. sgd (momentum 0.9), sgd:momentum=0 or sgd:momentum=0.9,nesterov. With lookahead=5,
    as in sgd:lookahead=5,alpha=0.5, slow weights go half of the way to the others after every 5 steps."""
    learning_rate: Annotated[float, Above(0)] = 0.02
    """Learning rate at the start; of one_cycle the largest."""
    weight_decay: Annotated[float, AtLeast(0)] = 1e-3
    """Weight decay. adamw applies it apart from the gradient (decoupled)."""
    schedule: str = "constant"
    """Learning rate over epochs. linear:80 stays constant until epoch 80 and then falls to 0 at the end.
    Write constant, multistep:40,80,gamma=0.1, cosine:min=0.001, cosine_restarts:10,min=0.001 or linear:80.
    one_cycle:0.15,start=0.1,end=0.05 changes step by step: from a tenth of the rate up to the whole after 15 % of the
    course, and down to a twentieth at its end (start and end: 0 by default)."""
    average_weights: str = "none"
    """Moving average of the weights, to be evaluated and kept. none (those that train), or ema:0.99,from=0.67, one with
    momentum 0.99 a step over the last third of the epochs, batch norm's statistics included."""
    patience: Annotated[int, AtLeast(0)] = 0
    """Epochs without a better score before training ends. 0: never. The score is that of validation, which needs a
    validation set. The learning rate goes by --epochs all the same: a cosine that is cut off has not come down."""
    clip_norm: Annotated[float, Above(0)] | None = None
    """Largest norm of a network's gradient. Longer ones are scaled down to it. The mean norm before that is noted in
    each epoch. None: gradients stay as they are."""
    backbone_rate: Annotated[float, Above(0)] = 1.0
    """Factor on the learning rate of the backbone. The heads, and what a method adds, have the whole rate."""
    layer_decay: Annotated[float, Between(0, 1, "(]")] = 1.0
    """Factor on the rate from each layer to the one before. It is for the backbone of ResNets and timm's networks.
    The last layer has this factor, the one before it its square, and so on. The heads have the whole rate."""
    recipe: Recipe = "published"
    """Where the settings of a run come from. published: the method's paper. The others are short courses of our own for
    ce, gce, elr, elr_plus (with one network), nal and selc on CIFAR; published accuracies are not theirs. fast-r18:
    ResNet-18, 50 epochs. speedrun: whitened_cnn9, 37 epochs. cpu: about 15 minutes on two cores; also for digits and
    mnist, in seconds. In Python give it to recipe()."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Optimizer.parse(self.optimizer)
        Schedule.parse(self.schedule)
        Averaging.parse(self.average_weights)


@dataclass(frozen=True)
class EngineConfig(Checked):
    seed: Annotated[int, Between(0, 2**63, "[)")] = 0
    """Seed of weights, batch order and augmentation."""
    device: str = "auto"
    """Device: auto (CUDA if there is a GPU), cpu, cuda or cuda:N."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision. auto takes bf16 on GPUs that support it, fp16 on older GPUs, and off on CPUs."""
    gear: Literal["auto", "eager", "compiled", "graphed", "compiled_graphed"] = "auto"
    """How a training step runs. An explicit choice is never replaced by another.
    eager runs op by op. compiled compiles the forward pass and the loss (torch.compile).
    graphed captures the step in one CUDA graph. compiled_graphed does both.
    auto captures a graph if device and precision allow it, and compiles as --compile says."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile the step (torch.compile). It is for --gear auto and graphed: forward pass and loss. auto
    compiles on CUDA if the remaining steps save more seconds than compiling takes. It never compiles on CPUs. The
    seconds are measured by earlier runs, or assumed if there are none. The run says which."""
    compile_options: str = "auto"
    """Extra options of the compiler. none, combo_kernels, pdl or combo_kernels,pdl. They have an effect on CUDA only.
    combo_kernels launches small kernels together. pdl lets a kernel begin while the one before it ends.
    auto takes the options that are measured to be faster with the same results: none today."""
    fused_norm: Literal["auto", "on", "off"] = "auto"
    """Batch norm, ReLU and residual sum as one operation. It is for training of fastnoise's networks. On CUDA kernels
    in Triton compute it. Only rounding differs. auto takes what is measured faster: today off."""
    fused_head: Literal["auto", "on", "off"] = "auto"
    """Last layer, loss and update of targets as one operation. In training it takes a block of samples at a time and
    never writes the logits of a whole batch, which saves memory if there are many classes. The numbers differ by
    rounding alone. It needs a method with one network and one loss of the logits, and a linear last layer. auto takes
    what is measured faster: today off."""
    optimizer_kernel: Literal["auto", "torch", "triton"] = "auto"
    """What updates the weights. torch: PyTorch's fused optimisers. triton: one kernel for all weights, on a GPU; under
    bf16 it also writes the copies of weights that the next forward pass takes, unless gradients are clipped or shared
    by several processes; and it moves the average of --average-weights. Either goes on with a run of the other. auto
    takes torch until triton is measured to be faster."""
    steps_per_graph: Annotated[int, Above(0)] | Literal["auto"] = "auto"
    """Training steps in one captured graph. It holds augmentation too, so that the host has less to do. It needs images
    in memory (--loader resident), and a method that does nothing on the host before a step; with lookahead a multiple
    of its steps. The last steps of an epoch, fewer than that, are made one by one. Without a graph, as on a CPU, the
    same steps run one after the other. auto takes 1 until more is measured to be faster."""
    target_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers of the targets of each sample. nal, elr, elr_plus, selc and selc_plus keep them, by class. The 16-bit
    ones take half the memory. They are rounded at random, so that a moving average does not stall."""
    target_place: Literal["device", "host"] = "device"
    """Where these targets are kept. host is for tables that a GPU has no room for: they stay in page-locked host
    memory, and each step reads and writes the rows of its batch there. The numbers are the same."""
    profile: bool = False
    """Profile ten training steps. They follow ten steps of warm-up, and the trace is in the run folder. The run ends
    with a list of the slowest ops, layout copies, synchronisations and gaps."""
    gradients: bool = False
    """Note sizes of gradients in each epoch. They are those of the loss at the logits, for samples with right and with
    wrong labels (NAL, Figure 3; ELR, Figure 2), and the mean norm of the networks' gradients over the steps. It takes
    one more pass over the training set, and true labels."""
    log_every: Annotated[int, Above(0)] = 50
    """Steps between two updates of the progress display."""
    log: str = "none"
    """What else keeps figures: tensorboard, wandb or mlflow. They get what metrics.jsonl has of each epoch. Name
    several as tensorboard,mlflow. wandb is offline unless WANDB_MODE says otherwise, and mlflow writes into the run
    folder unless MLFLOW_TRACKING_URI does: nothing is sent anywhere by default."""
    save_every: int | str = "auto"
    """When to write a checkpoint, as 5 or 10m. Every so many epochs, or when so much time has passed (60s, 5m, 1h).
    auto writes one after the first epoch, and then so rarely that checkpoints take a fiftieth of the time. The last
    epoch and an interruption by Ctrl-C or SIGTERM are always saved."""
    save_tables_every: Annotated[int, Above(0)] = 1
    """Checkpoints that share one copy of the targets. With 5 every fifth has new ones. A run that was killed then goes
    on with targets that are up to four checkpoints old. The last epoch and an interruption always save them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            (self.gear, self.compile) not in (("eager", "on"), ("compiled", "off"), ("compiled_graphed", "off")),
            f"--gear {self.gear} and --compile {self.compile} contradict each other; drop one of them",
        )
        parse_log(self.log)
        parse_compile_options(self.compile_options)
        never = self.compile == "off" or self.gear == "eager" or (self.gear == "graphed" and self.compile == "auto")
        _require(
            self.compile_options in ("auto", "none") or not never,
            f"--compile-options {self.compile_options} is for compiled steps, and this run has none; drop it"
            + (", or add --compile on" if (self.gear, self.compile) == ("graphed", "auto") else ""),
        )
        SaveEvery.parse(self.save_every)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes and where its results are kept."""

    method: MethodOptions = field(default_factory=MethodOptions)
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: Annotated[OptimConfig, arg(name="optimiser")] = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run_dir: str | None = None
    """Folder of this run; a new one in ./runs if not given. It is named after method, data set, noise and seed."""

    def groups(self) -> dict[str, str]:
        """Flat name -> the field of RunConfig that holds it ('' for RunConfig itself), in the order of the groups."""
        names: dict[str, str] = {}
        for group in dataclasses.fields(self):
            value = getattr(self, group.name)
            if dataclasses.is_dataclass(value):
                names |= {item.name: group.name for item in dataclasses.fields(value)}
            else:
                names[group.name] = ""
        return names

    def flat(self) -> dict[str, Any]:
        """All fields by their flat names, in the order of the groups."""
        return {name: getattr(getattr(self, group) if group else self, name) for name, group in self.groups().items()}

    def taken_whole(self) -> dict[str, Any]:
        """What --image-size changes beside itself: it takes the place of a preset that resizes images by itself."""
        if self.data.augment not in PRESETS or not self.data.augmentation().resizes:
            return {}
        flip = self.data.augmentation().flip
        return {"augment": None, "eval_augment": None, "crop_padding": 0, "flip": flip}

    def replace(self, changes: Mapping[str, Any]) -> "RunConfig":
        """A copy with other values for some fields, given by their flat names as in {"epochs": 2, "model": "lenet5"}.

        `augment` replaces the crop and flip that there were, but not a preset's evaluation. ConfigError for a name that
        is not a field. The method stays the same, since its options belong to it. To change the method, begin with its
        recipe.
        """
        known = self.groups()
        if changes.get("image_size") is not None and not {"augment", "eval_augment"} & set(changes):
            changes = {**self.taken_whole(), **changes}
        if changes.get("augment") is not None:
            changes = {"crop_padding": 0, "flip": False, **changes}
            _require(not (changes["crop_padding"] or changes["flip"]), said_twice(changes["augment"]))
            if self.data.augment in PRESETS and changes["augment"] not in PRESETS:  # its evaluation stays
                changes = {"eval_augment": self.data.eval_augment or self.data.augment, **changes}
        groups: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            _require(name in known, f"unknown key {name!r}; {nearest(name, list(known))}")
            groups.setdefault(known[name], {})[name] = value
        top = groups.pop("", {})
        try:
            parts = {group: dataclasses.replace(getattr(self, group), **part) for group, part in groups.items()}
        except ValueError as error:  # what the options of a user's method refuse as a whole
            raise ConfigError(f"method {self.method.method}: {error}") from None
        return dataclasses.replace(self, **parts, **top)


COMMON = tuple(RunConfig().groups())
"""The flat names of the fields that every run has. The method's name is one of them."""


# Fields that change how fast a run goes or where things lie, but not what it computes: a resumed run may
# change them, and they are no part of the name of a sweep's job.
FREE_ON_RESUME = frozenset(
    {
        *("data_root", "download", "loader_threads", "log", "log_every", "save_every", "profile", "run_dir"),
        *("save_tables_every", "target_place"),
        *("compile_options", "fused_norm", "fused_head", "gradients", "optimizer_kernel", "steps_per_graph"),
    }
)


def located(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths, so that its run can be resumed from any folder.

    DataError if `data_root` is not the default and no such folder exists.
    """
    root = Path(config.data.data_root)
    named = config.data.data_root != DataConfig.data_root
    if named and data_names.needs_root(config.data.dataset) and not root.is_dir():
        raise DataError(f"--data-root {root}: no such folder; create it, or drop the option to use ./data")
    paths = {"data_root": str(root.absolute()), "dataset": data_names.located(config.data.dataset)}
    if any(word in config.noise.noise for word in ("matrix", "posteriors", ".py:")):
        from .noise.spec import with_absolute_paths

        paths["noise"] = with_absolute_paths(config.noise.noise)
    names = (("method", config.method.method), ("task", config.data.task))
    for kind, name in names:
        if name is not None and own.is_own(name):
            paths[kind] = own.located(name)
    paths["model"] = model_names.located(config.model.model)
    if config.model.encoder is not None:
        paths["encoder"] = str(expanded(config.model.encoder).absolute())
    if config.noise.labels is not None:
        paths["labels"] = str(Path(config.noise.labels).absolute())
    return config.replace(paths)
