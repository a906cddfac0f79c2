"""Reads the words of the command line and the TOML file that they name. Imports no torch."""

import contextlib
import io
import re
import tomllib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from . import helptext, own
from .config import RunConfig, located, said_twice
from .data.names import WRITTEN, family, is_named, moved, read_options
from .data.names import located as data_located
from .errors import ConfigError, nearest
from .fields import changed, check_names, checked, meaningless, prolonged
from .models.names import require_weights
from .recipes import default_method, recipe
from .recipes.base import base

ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("arch", "architecture", "backbone", "net", "network"), ("model",)),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size", "batch_size_train"), ("batch_size",)),
    **dict.fromkeys(("data", "data_dir", "data_path", "root", "dataroot"), ("data_root", "dataset")),
    **dict.fromkeys(("ds", "set"), ("dataset",)),
    **dict.fromkeys(("epoch", "max_epochs", "n_epochs", "num_epochs"), ("epochs",)),
    **dict.fromkeys(("fp16", "bf16", "half", "mixed_precision", "precision"), ("amp",)),
    **dict.fromkeys(("gpu", "cuda", "gpu_id", "use_cuda", "cpu"), ("device",)),
    **dict.fromkeys(("nproc", "num_gpus", "n_gpus", "ngpus"), ("gpus", "jobs")),
    **dict.fromkeys(("lr", "init_lr", "base_lr", "learning"), ("learning_rate",)),
    **dict.fromkeys(("loss", "algorithm", "algo"), ("method",)),
    **dict.fromkeys(("lr_scheduler", "scheduler", "lr_schedule", "sched"), ("schedule",)),
    **dict.fromkeys(("noise_type", "noise_mode", "corruption"), ("noise",)),
    **dict.fromkeys(("noise_ratio", "corruption_prob", "r"), ("noise", "noise_rate")),
    **dict.fromkeys(("opt", "optim", "optimiser"), ("optimizer",)),
    **dict.fromkeys(
        ("out_dir", "output", "output_dir", "outdir", "o", "save_dir", "log_dir", "name"), ("out", "run_dir")
    ),
    **dict.fromkeys(("pretrained", "pretrain", "weights", "checkpoint", "ckpt"), ("encoder", "resume", "network")),
    **dict.fromkeys(("random_seed", "manual_seed", "rng"), ("seed",)),
    **dict.fromkeys(("resolution", "img_size", "input_size", "size"), ("image_size",)),
    **dict.fromkeys(("val", "val_split_ratio", "validation", "valid_fraction"), ("val_fraction",)),
    **dict.fromkeys(("wd", "decay", "l2"), ("weight_decay",)),
    **dict.fromkeys(("workers", "num_workers", "j", "n_jobs", "nj"), ("loader_threads", "workers", "jobs")),
    **dict.fromkeys(("num_threads", "nthreads", "torch_threads", "threads"), ("threads", "loader_threads")),
}
"""What other programs call an option -> what it is here, the likeliest first. A command has some of them."""


@dataclass(frozen=True)
class Processes:
    """How many processes `fastnoise train` starts."""

    gpus: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Processes that train the run together. Each has a GPU of its own, or with --device cpu some cores. --batch-size
    is that of each process: a step takes N times as many images. The learning rate stays as given. 0: this process
    alone. On several machines use torchrun -m fastnoise.cli train."""
    max_restarts: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """With --gpus: how often they start again. They do from the last checkpoint if one of them is killed."""


@dataclass(frozen=True)
class TrainCommand(Processes):
    """Train a network with a noisy-label method.

    This lists the options of all runs and those of the method that --method names. The defaults are those of its recipe
    for the data set and noise. A TOML file (--config) changes the defaults, and flags change both. Examples:
      fastnoise train
      fastnoise train --method nal --dataset cifar100 --noise symmetric:0.4
      fastnoise train --resume runs/nal-cifar100-symmetric-0.4-s0 --epochs 300
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Its name is empty, or the groups of --help would be called run.data and so on."""
    config: str | None = None
    """TOML file with options, as learning_rate = 0.05."""
    resume: str | None = None
    """Folder of a run to continue. The run keeps its own configuration, but --epochs can make it longer,
    and --dataset says where its folder of images is now."""
    deviations: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print what differs from the authors' code, and end. It is said for this method, data set and noise."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print every option and where its value comes from, and end. What is printed is a file for --config. Nothing is
    written, downloaded or looked up in the data."""


@dataclass(frozen=True)
class TrainWords:
    """What the words after `fastnoise train` say."""

    command: TrainCommand
    """All options, with the configuration as a run folder would hold it."""
    resuming: bool
    """Whether a run is continued."""
    sources: dict[str, str]
    """Field of the configuration -> where its value comes from: `default`, `data set digits`, `recipe of nal`,
    `--config FILE`, `--resume FOLDER`, `command line`, `other options`, or the name of another command."""

    @property
    def config(self) -> RunConfig:
        return self.command.run

    @property
    def method_named(self) -> bool:
        """Whether the method is not just the data set's default."""
        return not self.sources["method"].startswith("data set ")


@dataclass(frozen=True)
class _Choice:
    """The options that decide which recipe gives the defaults and which method's options exist."""

    method: str | None = None
    dataset: str | None = None
    noise: str | None = None
    variant: str | None = None
    recipe: str | None = None
    model: str | None = None
    labels: str | None = None
    limit_train: str | None = None
    noise_rate: str | None = None
    task: str | None = None
    augment: str | None = None
    config: str | None = None
    resume: str | None = None


_CHOSEN = tuple(each.name for each in fields(_Choice) if each.name not in ("config", "resume"))


def parsed(command: Any, arguments: Sequence[str], prog: str) -> Any:
    """Read a command's words into its dataclass. ConfigError in one line; SystemExit(0) after --help."""
    if (word := helptext.wanted(arguments)) is not None:
        helptext.show(prog, command.__doc__, helptext.options(command), word)
    result, unknown = _parse(command, arguments, prog)
    flags = [field.name for field in fields(command) if tyro.conf.Positional not in get_args(field.type)]
    _refuse_unknown(unknown, flags)
    return result


def own_and_other_words(command: Any, arguments: Sequence[str], prog: str) -> tuple[Any, list[str]]:
    """Read a command's own options into its dataclass; the words that are not its own come back in their order.

    ConfigError in one line; SystemExit(0) after --help.
    """
    result, others = _parse(command, arguments, prog)
    return result, list(others)


def train_config(
    arguments: Sequence[str],
    prog: str = "fastnoise train",
    method: str | None = None,
    noise: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, bool]:
    """The configuration that the words after `fastnoise train` describe, and whether they resume a run.

    Arguments and errors are those of `train_words`.
    """
    words = train_words(arguments, prog, method, noise, settings)
    return words.config, words.resuming


def train_words(
    arguments: Sequence[str],
    prog: str = "fastnoise train",
    method: str | None = None,
    noise: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    intro: str = TrainCommand.__doc__ or "",
    own_options: Sequence[helptext.Option] = (),
    without: Container[str] = (),
) -> TrainWords:
    """What the words after `fastnoise train` say.

    Args:
        arguments: the words.
        prog: the command whose words they are.
        method, noise: what they are if the words name none; None: what `fastnoise train` takes.
        settings: fields by flat names that have other defaults than the recipe's.
        intro: what --help says that the command does.
        own_options: the options that --help lists beside those of `fastnoise train`.
        without: the options of `fastnoise train` that the command does not have, by their flat names.

    ConfigError in one line for any error in the words or their TOML file; SystemExit(0) after --help.
    """
    help_word = helptext.wanted(arguments)
    plain = [word for word in arguments if word not in (*helptext.HELP, helptext.HELP_ALL)]
    if any(word.startswith("--tyro-") for word in plain):
        raise ConfigError("the words that complete commands in a shell are printed by: fastnoise completion bash")
    choice, _ = _parse(_Choice, plain, prog)
    table = {} if choice.config is None else _read_toml(choice.config)
    chosen = {name: _text(choice, table, name) for name in _CHOSEN}
    named = dict.fromkeys(settings or {}, prog)  # field -> where its default comes from, if not from the recipe
    if choice.resume is not None:
        from .engine import RunFolder

        folder = RunFolder.open(Path(choice.resume))
        own.require_named(folder.read_fields(), chosen, f"--resume {choice.resume}: the run")
        default = stored = folder.read_config()
        if not is_named(stored.data.dataset):
            raise ConfigError(
                f"--resume {choice.resume}: its data set {stored.data.dataset!r} was given as arrays in Python; go on "
                "there with fastnoise.train(config, dataset=dataset, resume=True)"
            )
    else:
        dataset = chosen["dataset"] or "digits"
        named["noise"] = (
            "--labels" if chosen["labels"] is not None else f"data set {dataset}" if noise is None else prog
        )
        named["method"] = f"data set {dataset}" if method is None else prog
        noise = chosen["noise"] or ("none" if chosen["labels"] is not None else noise)
        if family(dataset) in WRITTEN:
            read_options(dataset)  # which refuses what is wrong in one line, before a recipe reads it
        method = chosen["method"] or method or default_method(dataset, chosen["task"])
        rate, labels = chosen["noise_rate"], chosen["labels"]
        default = recipe(
            method,
            dataset,
            noise,
            chosen["variant"],  # type: ignore[arg-type]
            chosen["model"],
            noise_rate=rate,
            labels=labels,
            recipe=chosen["recipe"] or "published",
            limit_train=_count(chosen["limit_train"]),
        )
        default = default.replace(settings or {})
    before = default
    changes = checked(default, table, lambda name: f"--config {choice.config}: {name}")
    given = {_field(word) for word in plain if word.startswith("-")}
    if (spec := chosen["augment"]) is not None:
        changes |= {"augment": spec}
    plain_words = {"crop_padding", "flip"} & (given | changes.keys())
    if spec is not None and plain_words:
        raise ConfigError(said_twice(spec))
    default = default.replace({name: value for name, value in changes.items() if name not in given - {"augment"}})
    if "image_size" in given and not {"augment", "eval_augment"} & (given | changes.keys()):
        default = default.replace(default.taken_whole())
    if default.data.augment is not None and plain_words:
        raise ConfigError(said_twice(default.data.augment))
    if help_word is not None:
        listed = helptext.options(TrainCommand, TrainCommand(run=default))
        listed = [*own_options, *(option for option in listed if option.name not in without)]
        helptext.show(prog, intro, listed, help_word)
    command, unknown = _parse(TrainCommand, plain, prog, default=TrainCommand(run=default))
    others = [each.name for each in fields(TrainCommand) if each.name != "run"]
    _refuse_unknown(unknown, [*default.groups(), *others], default.method.method)
    if choice.resume is not None:
        config = _resumed(command.run, stored, choice.resume)
    else:
        config = located(command.run)
        check_names(config)
        require_weights(config.model.model)
    written = dict.fromkeys(given, "command line") | {
        name: f"--config {choice.config}" for name in table if name not in given
    }
    sources = _sources(config, before, written, named, choice.resume)
    return TrainWords(replace(command, run=config), choice.resume is not None, sources)


def _sources(
    config: RunConfig, before: RunConfig, written: Mapping[str, str], named: Mapping[str, str], resume: str | None
) -> dict[str, str]:
    """Where each value of `config` comes from, by its flat name.

    Args:
        config: the configuration.
        before: the same as the recipe, or the resumed run, has it.
        written: the fields that the user wrote -> where.
        named: the fields whose default is neither the recipe's nor the data set's -> whose it is.
        resume: the folder of the resumed run.
    """
    kind = type(config.method)
    first = before if resume is not None else located(before)
    recipe_values, method = first.flat(), own.short(config.method.method)
    plain = located(RunConfig(kind(config.method.method))).flat()
    of_set = located(base(before.data.dataset, before.noise.noise, kind(before.method.method))).flat()
    course = config.optim.recipe
    sources = {}
    for name, value in config.flat().items():
        if name in written:
            sources[name] = written[name]
        elif value != recipe_values[name]:
            sources[name] = "other options"
        elif resume is not None:
            sources[name] = f"--resume {resume}"
        elif name in named:
            sources[name] = named[name]
        elif value == plain[name]:
            sources[name] = "default"
        elif value == of_set[name]:
            sources[name] = f"data set {before.data.dataset}"
        else:
            sources[name] = f"recipe of {method}" + ("" if course == "published" else f", {course}")
    return sources


def processes_asked(arguments: Sequence[str]) -> tuple[Processes, list[str]]:
    """How many processes the words after `fastnoise train` ask for, and the words that each of these gets.

    ConfigError for numbers that make no sense.
    """
    asked, others = own_and_other_words(Processes, arguments, "fastnoise train")
    for name, value in (("gpus", asked.gpus), ("max-restarts", asked.max_restarts)):
        if value < 0:
            raise ConfigError(f"--{name} must be 0 or more, not {value}")
    if asked.max_restarts and not asked.gpus:
        raise ConfigError("--max-restarts is for the processes that --gpus starts; add --gpus, or drop it")
    return asked, others


def _parse(command: Any, arguments: Sequence[str], prog: str, **options: Any) -> Any:
    """Call tyro.cli and turn each of its errors into a ConfigError of one line."""
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            return tyro.cli(
                command,
                args=list(arguments),
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
                **options,
            )
    except SystemExit as end:
        if not end.code:
            raise
        # The first section of tyro's box, which is drawn with blanks where the output takes ASCII alone, holds the
        # complaint; the rest repeats the help text.
        text = re.sub(r"\x1b\[[0-9;]*m", "", complaints.getvalue()).splitlines()
        lines = [line.strip("│ ") for line in text if line.startswith(("│", "  "))]
        rule = next((number for number, line in enumerate(lines) if set(line) in ({"─"}, {"-"})), len(lines))
        complaint = " ".join(lines[:rule]).partition(" Got errors:")[0].strip()
        raise ConfigError(complaint or "the options cannot be read; see --help") from None


def _field(word: str) -> str:
    """The field that a flag sets: epochs for --epochs=3, flip for --no-flip."""
    name = word.partition("=")[0].removeprefix("--").replace("-", "_")
    return name.removeprefix("no_")


def _refuse_unknown(unknown: Sequence[str], names: Sequence[str], method: str | None = None) -> None:
    """ConfigError for unknown options. With `method` the message says if an option belongs to other methods."""
    if not unknown:
        return
    first = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
    if not first.startswith("-"):
        raise ConfigError(f"unexpected argument {first!r}; options begin with --, as in --dataset cifar10")
    other = None if method is None else meaningless(first, _field(first), method)
    flags = [helptext.HELP_ALL, *("--" + name.replace("_", "-") for name in names)]
    meant = next((name for name in ALIASES.get(_field(first).lstrip("-"), ()) if name in names), None)
    if meant is not None:
        raise ConfigError(f"unknown option {first}; did you mean '--{meant.replace('_', '-')}'? --help lists all")
    raise ConfigError(other or f"unknown option {first}; {nearest(first, flags)}")


def _read_toml(path: str) -> dict[str, Any]:
    """The fields in a TOML file, by flat names and not yet checked."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path}: not a readable TOML file: {error}") from None
    table: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in table:
            raise ConfigError(f"--config {path}: {key} is given twice; drop one")
        table[name] = value
    return table


def _text(choice: _Choice, table: Mapping[str, Any], name: str) -> str | None:
    """A field that the recipe depends on: the flag's value, else the file's."""
    value = getattr(choice, name)
    if value is None and name in table:
        value = table[name]
        if name in ("limit_train", "noise_rate") and isinstance(value, int | float):
            return str(value)
        if not isinstance(value, str):
            raise ConfigError(f"--config {choice.config}: {name} must be a text, not {value!r}")
    return value


def _count(text: str | None) -> int | None:
    """The number that a text is. None for another, which is refused where options are checked."""
    return int(text) if text is not None and text.isdecimal() else None


def _resumed(run: RunConfig, stored: RunConfig, resume: str) -> RunConfig:
    """The stored configuration with the changes that a resumed run may make; ConfigError names any other."""
    before, now = stored.flat(), run.flat()
    if moved(stored.data.dataset, run.data.dataset):
        run = run.replace({"dataset": data_located(run.data.dataset)})
        before |= {"dataset": run.data.dataset}
        now = run.flat()
    before |= prolonged(before, now)
    if before["epochs"] != now["epochs"]:
        raise ConfigError(
            f"--resume {resume}: the run has epochs {before['epochs']}, not {now['epochs']}; a run can "
            "only be made longer"
        )
    if (name := changed(before, now)) is not None:
        raise ConfigError(
            f"--resume {resume}: the run has {name} {before[name]}, not {now[name]}; "
            f"drop --{name.replace('_', '-')}, or start a new run"
        )
    return run.replace({"run_dir": resume, **{kind: before[kind] for kind in own.KINDS}})
