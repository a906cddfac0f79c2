"""The command line: fastnoise train | pretrain | sweep | study | report | corrupt | inspect | bench | env."""

import contextlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from . import __version__, own
from .config import FIELD_GROUPS, FREE_ON_RESUME, RunConfig, located
from .errors import ConfigError, FastnoiseError, TrainingError, nearest
from .recipes import recipe

_USAGE = """usage: fastnoise COMMAND [OPTIONS]

Trains image classifiers on wrong labels at the speed of the hardware.

commands:
  train     train a network with a noisy-label method; with no options: NAL on
            scikit-learn's digits with 40 % symmetric label noise
  pretrain  train an encoder without labels (SimCLR) and write it to a file, for
            train --encoder
  sweep     train every job of a file with lists and grids, several at once
  study     what wrong labels of some classes, tasks, labels or values do to the
            others: multiclass, multitask, multilabel, regression
  report    one HTML page of a run, a sweep or a study
  corrupt   make noisy labels by name: files, the realised rate, a heat map
  inspect   say what noise lies between two label files
  bench     measure losses, noise, loaders and training steps on this machine
  env       print versions, devices, SIMD level, and the backend of every op

options:
  -h, --help   show this text
  --version    print the version

`fastnoise COMMAND --help` lists a command's options.
"""


@dataclass(frozen=True)
class TrainCommand:
    """Train a network with a noisy-label method.

    The defaults shown are the recipe's for the chosen method, data set and noise; a TOML file given with
    --config changes them, and flags change both. Examples:
      fastnoise train
      fastnoise train --method nal --dataset cifar100 --noise symmetric:0.4
      fastnoise train --resume runs/nal-cifar100-symmetric-0.4-s0
    """

    run: RunConfig
    config: str | None = None
    """TOML file with any of these options by their names, as in learning_rate = 0.05."""
    resume: str | None = None
    """Folder of a run to go on with; its own configuration is taken."""


@dataclass(frozen=True)
class _Choice:
    """The options that decide which recipe gives the defaults."""

    method: str = "nal"
    dataset: str = "digits"
    noise: str | None = None
    variant: str | None = None
    model: str | None = None
    labels: str | None = None
    config: str | None = None
    resume: str | None = None


@dataclass(frozen=True)
class _OwnNames:
    """The words of a resumed run that may name code."""

    method: str | None = None
    model: str | None = None
    dataset: str | None = None
    noise: str | None = None


def _parse(command: Any, arguments: Sequence[str], prog: str, **options: Any) -> Any:
    """tyro.cli with every complaint turned into one ConfigError line."""
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
        # The first section of tyro's box holds the complaint, the rest repeats the help text.
        text = re.sub(r"\x1b\[[0-9;]*m", "", complaints.getvalue()).splitlines()
        lines = [line.strip("│ ") for line in text if line.startswith("│")]
        rule = next((number for number, line in enumerate(lines) if set(line) == {"─"}), len(lines))
        raise ConfigError(" ".join(lines[:rule]) or "the options cannot be read") from None


def _refuse_unknown(unknown: Sequence[str], names: Sequence[str] = (*FIELD_GROUPS, "config", "resume")) -> None:
    if not unknown:
        return
    flags = ["--" + name.replace("_", "-") for name in names]
    first = next((word for word in unknown if word.startswith("-")), unknown[0])
    if not first.startswith("-"):
        raise ConfigError(f"unexpected argument {first!r}; options begin with --, as in --dataset cifar10")
    raise ConfigError(f"unknown option {first.partition('=')[0]}; {nearest(first.partition('=')[0], flags)}")


def _read_toml(path: str) -> list[str]:
    """The options in a TOML file as command-line words, so that both are checked in one place."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path}: not a readable TOML file: {error}") from None
    words: list[str] = []
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in FIELD_GROUPS:
            raise ConfigError(f"--config {path}: unknown key {key!r}; {nearest(name, list(FIELD_GROUPS))}")
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, str | int | float):
            words += [flag, str(value)]
        else:
            raise ConfigError(f"--config {path}: {key} must be a string, number or boolean, not {type(value).__name__}")
    return words


def _resumed(command: TrainCommand, stored: RunConfig, resume: str) -> RunConfig:
    """The stored configuration with the changes that a resumed run may make; ConfigError names any other."""
    before = stored.flat()
    now = command.run.flat()
    now |= {kind: own.located(now[kind]) for kind in own.KINDS}
    for name, value in now.items():
        if value != before[name] and name not in FREE_ON_RESUME:
            raise ConfigError(
                f"--resume {resume}: {name} is {before[name]} in the run and {value} here; "
                f"drop --{name.replace('_', '-')}, or start a new run"
            )
    return command.run.replace({"run_dir": resume, **{kind: before[kind] for kind in own.KINDS}})


def train_config(arguments: Sequence[str]) -> tuple[RunConfig, bool]:
    """The configuration that the words after `fastnoise train` describe, and whether it resumes a run."""
    prog = "fastnoise train"
    asked_for_help = any(word in ("-h", "--help") for word in arguments)
    plain = [word for word in arguments if word not in ("-h", "--help")]
    choice, _ = _parse(_Choice, plain, prog)
    words = list(plain)
    if choice.config is not None:
        words = _read_toml(choice.config) + words
        choice, _ = _parse(_Choice, words, prog)
    if choice.resume is not None:
        from .engine import RunFolder

        default = RunFolder.open(Path(choice.resume)).read_config()
        named, _ = _parse(_OwnNames, words, prog)
        own.require_named(default.flat(), vars(named), choice.resume)
    else:
        noise = "none" if choice.labels is not None and choice.noise is None else choice.noise
        default = recipe(choice.method, choice.dataset, noise, choice.variant, choice.model)
    command, unknown = _parse(TrainCommand, words + ["--help"] * asked_for_help, prog, default=TrainCommand(default))
    _refuse_unknown(unknown)
    config: RunConfig = command.run
    if choice.resume is not None:
        return _resumed(command, default, choice.resume), True
    return located(config), False


def _train(arguments: Sequence[str], finish: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Train as the words say; `finish` gets the summary of a run that went to its end."""
    config, resume = train_config(arguments)
    import torch

    from .engine import Interrupted, train
    from .engine.prepare import check_names

    check_names(config)
    try:
        summary = train(config, resume=resume)
    except Interrupted as stop:
        print(f"fastnoise: {stop}", file=sys.stderr)
        return 128 + stop.signal_number
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"{str(error).splitlines()[0]} Lower --batch-size or --width") from error
    if finish is not None:
        finish(summary)
    return 0


def _pretrain(arguments: Sequence[str]) -> int:
    from .commands import pretrain

    if any(word in ("-h", "--help") for word in arguments):
        print(pretrain.HELP, end="")
        return 0
    out, words = pretrain.split_out(arguments)
    code = _train(words, lambda summary: pretrain.write_encoder(out, summary))
    if code:
        print("fastnoise: fastnoise pretrain --resume with the same --out also writes the encoder", file=sys.stderr)
    return code


def _parsed(command: Any, arguments: Sequence[str], prog: str) -> Any:
    """A command's dataclass from its words."""
    parsed, unknown = _parse(command, arguments, prog)
    _refuse_unknown(unknown, [field.name for field in fields(command)])
    return parsed


def _sweep(arguments: Sequence[str]) -> int:
    from .commands.sweep import SweepCommand, run

    return run(_parsed(SweepCommand, arguments, "fastnoise sweep"))


def _study(arguments: Sequence[str]) -> int:
    from .commands import study

    if not arguments or arguments[0] in ("-h", "--help"):
        print(study.HELP, end="")
        return 0
    name = arguments[0]
    return study.run(name, _parsed(study.options_type(name), arguments[1:], f"fastnoise study {name}"))


def _report(arguments: Sequence[str]) -> int:
    from .commands.report import ReportCommand, run

    return run(_parsed(ReportCommand, arguments, "fastnoise report"))


def _corrupt(arguments: Sequence[str]) -> int:
    from .commands.corrupt import CorruptCommand, run

    return run(_parsed(CorruptCommand, arguments, "fastnoise corrupt"))


def _inspect(arguments: Sequence[str]) -> int:
    from .commands.inspect import InspectCommand, run

    return run(_parsed(InspectCommand, arguments, "fastnoise inspect"))


def _bench(arguments: Sequence[str]) -> int:
    from .commands.bench import BenchCommand, run

    return run(_parsed(BenchCommand, arguments, "fastnoise bench"))


def _env(arguments: Sequence[str]) -> int:
    """Print what fastnoise would run on."""
    if any(word in ("-h", "--help") for word in arguments):
        print("usage: fastnoise env\n\nPrints versions, devices, SIMD level, where times of steps are kept, and the")
        print("backend of every op.")
        return 0
    if arguments:
        raise ConfigError(f"fastnoise env takes no options, found {arguments[0]!r}")
    from .engine import describe_environment
    from .engine.payback import StepTimes

    facts = describe_environment()
    versions = {"fastnoise": facts["fastnoise"], "python": facts["python"]} | facts["packages"]
    for name, version in versions.items():
        print(f"{name:<22}{version or 'not installed'}")
    print(f"{'platform':<22}{facts['platform']}")
    print(f"{'cpu':<22}{facts['cpus']} cores, {facts['torch_threads']} torch threads, SIMD {facts['simd']}")
    for number, gpu in enumerate(facts["gpus"]):
        capability = gpu["compute_capability"]
        print(f"{f'cuda:{number}':<22}{gpu['name']}, {gpu['memory_gib']} GiB, compute capability {capability}")
    if not facts["gpus"]:
        print(f"{'gpu':<22}none")
    times = StepTimes()
    print(f"{'step times':<22}{times.count()} measured, in {times.path}")
    for name, backends in facts["ops"].items():
        print(f"{f'op {name}':<22}{', '.join(f'{device}: {backend}' for device, backend in backends.items())}")
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "pretrain": _pretrain,
    "sweep": _sweep,
    "study": _study,
    "report": _report,
    "corrupt": _corrupt,
    "inspect": _inspect,
    "bench": _bench,
    "env": _env,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0, 2 for what the user can mend, 130 after Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_USAGE, end="")
            return 0
        if words[0] == "--version":
            print(__version__)
            return 0
        if words[0] not in _COMMANDS:
            raise ConfigError(f"unknown command {words[0]!r}; {nearest(words[0], list(_COMMANDS))}")
        return _COMMANDS[words[0]](words[1:])
    except FastnoiseError as error:
        print(f"fastnoise: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"fastnoise: error: {error.filename}: {error.strerror}; change its permissions", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastnoise: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough, as in `fastnoise train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
