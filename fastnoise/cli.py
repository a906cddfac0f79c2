"""The command line: fastnoise train | pretrain | clean | review | sweep | study | predict | evaluate | export |
report | check | corrupt | inspect | bench | env."""

import os
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .errors import ConfigError, FastnoiseError, nearest
from .words import parsed

_USAGE = """usage: fastnoise COMMAND [OPTIONS]

Trains image classifiers on wrong labels at the speed of the hardware.

commands:
  train     train a network with a noisy-label method; with no options: NAL on
            scikit-learn's digits with 40 % symmetric label noise
  pretrain  train an encoder without labels (SimCLR) and write it to a file, for
            train --encoder
  clean     find the wrong labels of a data set, and what they should be
  review    look at the labels that clean suspects, in a browser, and decide
  sweep     train all runs that a TOML file describes, several at once
  study     measure how wrong labels of some classes, tasks, labels or values affect
            the others: multiclass, multitask, multilabel, regression
  predict   say what a run's networks make of new images
  evaluate  measure them on a data set
  export    write them as a programme for PyTorch (.pt2) or ONNX
  report    make one HTML page of a run, a sweep or a study
  check     decode every image of a folder or list once; list what cannot be read
            and what is there twice
  corrupt   make noisy labels: files, their realised rate, a heat map
  inspect   say which noise explains the difference between two label files
  bench     measure losses, noise, loaders and training steps on this machine
  env       print versions, devices, SIMD level, and the backend of every op

options:
  -h, --help   show this text
  --version    print the version

`fastnoise COMMAND --help` lists a command's options.
"""


def _train(arguments: Sequence[str]) -> int:
    from .commands.train import run

    return run(arguments)


def _pretrain(arguments: Sequence[str]) -> int:
    from .commands.pretrain import run

    return run(arguments)


def _clean(arguments: Sequence[str]) -> int:
    from .commands.clean import run

    return run(arguments)


def _review(arguments: Sequence[str]) -> int:
    from .commands.review import ReviewCommand, run

    return run(parsed(ReviewCommand, arguments, "fastnoise review"))


def _sweep(arguments: Sequence[str]) -> int:
    from .commands.sweep import SweepCommand, run

    return run(parsed(SweepCommand, arguments, "fastnoise sweep"))


def _study(arguments: Sequence[str]) -> int:
    from .commands import study

    if not arguments or arguments[0] in ("-h", "--help"):
        print(study.HELP, end="")
        return 0
    name = arguments[0]
    return study.run(name, parsed(study.options_type(name), arguments[1:], f"fastnoise study {name}"))


def _predict(arguments: Sequence[str]) -> int:
    from .commands.predict import PredictCommand, run

    return run(parsed(PredictCommand, arguments, "fastnoise predict"))


def _evaluate(arguments: Sequence[str]) -> int:
    from .commands.evaluate import EvaluateCommand, run

    return run(parsed(EvaluateCommand, arguments, "fastnoise evaluate"))


def _export(arguments: Sequence[str]) -> int:
    from .commands.export import ExportCommand, run

    return run(parsed(ExportCommand, arguments, "fastnoise export"))


def _report(arguments: Sequence[str]) -> int:
    from .commands.report import ReportCommand, run

    return run(parsed(ReportCommand, arguments, "fastnoise report"))


def _check(arguments: Sequence[str]) -> int:
    from .commands.check import CheckCommand, run

    return run(parsed(CheckCommand, arguments, "fastnoise check"))


def _corrupt(arguments: Sequence[str]) -> int:
    from .commands.corrupt import CorruptCommand, run

    return run(parsed(CorruptCommand, arguments, "fastnoise corrupt"))


def _inspect(arguments: Sequence[str]) -> int:
    from .commands.inspect import InspectCommand, run

    return run(parsed(InspectCommand, arguments, "fastnoise inspect"))


def _bench(arguments: Sequence[str]) -> int:
    from .commands.bench import BenchCommand, run

    return run(parsed(BenchCommand, arguments, "fastnoise bench"))


def _env(arguments: Sequence[str]) -> int:
    from .commands.env import run

    return run(arguments)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "pretrain": _pretrain,
    "clean": _clean,
    "review": _review,
    "sweep": _sweep,
    "study": _study,
    "predict": _predict,
    "evaluate": _evaluate,
    "export": _export,
    "report": _report,
    "check": _check,
    "corrupt": _corrupt,
    "inspect": _inspect,
    "bench": _bench,
    "env": _env,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done; 2: an error that the user can correct; 130: Ctrl-C; 143: SIGTERM.
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
