"""The command line: fastnoise train | features | pretrain | posteriors | clean | review | sweep | study | leaderboard |
predict | evaluate | export | report | check | corrupt | inspect | bench | env | methods | datasets | models |
completion | help."""

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from . import __version__
from .errors import ConfigError, FastnoiseError, nearest

_LINES: dict[str, str] = {
    "train": "train a network with a noisy-label method; with no options: NAL on scikit-learn's digits with "
    "40 % symmetric label noise",
    "features": "write a frozen network's features of all images, to train heads on",
    "pretrain": "train an encoder without labels (SimCLR) and write it to a file, for train --encoder",
    "posteriors": "train on clean labels and write what the network says of each image, for PMD noise",
    "clean": "find the wrong labels of a data set, and what they should be",
    "review": "look at the labels that clean suspects, in a browser, and decide",
    "sweep": "train all runs that a TOML file describes, several at once",
    "study": "measure how wrong labels of some classes, tasks, labels or values affect the others: "
    "multiclass, multitask, multilabel, regression",
    "leaderboard": "rank methods on data sets under noises, by accuracy and by time",
    "predict": "say what a run's networks make of new images",
    "evaluate": "measure them on a data set",
    "export": "write them as a programme for PyTorch (.pt2) or ONNX",
    "report": "make one HTML page of runs, a sweep or a study",
    "check": "decode every image of a folder or list once; list what cannot be read and what is there twice",
    "corrupt": "make noisy labels: files, their realised rate, a heat map",
    "inspect": "say which noise explains the difference between two label files",
    "bench": "measure losses, noise, loaders and training steps on this machine",
    "env": "print versions, devices, SIMD level, and the backend of every op",
    "methods": "list the methods; also: datasets, models",
    "completion": "print a script that completes commands and options in bash or zsh",
    "help": "print a page of the manual: fastnoise help TOPIC",
}
"""Command -> what it does."""

_USAGE = """usage: fastnoise COMMAND [OPTIONS]

Trains image classifiers on wrong labels at the speed of the hardware.

commands:
{commands}

options:
  -h, --help  show this text
  --version   print the version

`fastnoise COMMAND --help` lists a command's options.
Completion of commands and options in this shell, with zsh for bash there:
  source <(fastnoise completion bash)
"""


def _usage() -> str:
    """What --help prints, wrapped to the terminal."""
    from .commands.listings import table
    from .helptext import paragraphs, width_of_terminal

    rows = [f"  {row}" for row in table(_LINES, width_of_terminal() - 2)]
    return paragraphs(_USAGE.format(commands="\n".join(rows)))


def _plain(name: str) -> Callable[[Sequence[str]], int]:
    """A command whose module has its name, a dataclass of its options, and a function `run` that takes it."""

    def command(arguments: Sequence[str]) -> int:
        from .commands import every
        from .words import parsed

        module = every.module(name)
        return module.run(parsed(every.dataclass_of(name), arguments, f"fastnoise {name}"))

    return command


def _train(arguments: Sequence[str]) -> int:
    from .commands.train import run

    return run(arguments)


def _pretrain(arguments: Sequence[str]) -> int:
    from .commands.pretrain import PRETRAIN

    return PRETRAIN.run(arguments)


def _posteriors(arguments: Sequence[str]) -> int:
    from .commands.posteriors import POSTERIORS

    return POSTERIORS.run(arguments)


def _clean(arguments: Sequence[str]) -> int:
    from .commands.clean import run

    return run(arguments)


def _study(arguments: Sequence[str]) -> int:
    from .commands import study
    from .helptext import paragraphs
    from .words import parsed

    if not arguments or arguments[0] in ("-h", "--help"):
        print(paragraphs(study.HELP))
        return 0
    name = arguments[0]
    return study.run(name, parsed(study.options_type(name), arguments[1:], f"fastnoise study {name}"))


def _env(arguments: Sequence[str]) -> int:
    from .commands.env import run

    return run(arguments)


def _listing(kind: str) -> Callable[[Sequence[str]], int]:
    def listed(arguments: Sequence[str]) -> int:
        from .commands.listings import run

        return run(kind, arguments)

    return listed


def _completion(arguments: Sequence[str]) -> int:
    from .commands.completion import run

    return run(arguments)


def _help(arguments: Sequence[str]) -> int:
    from .commands.help import run

    return run(arguments)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "features": _plain("features"),
    "pretrain": _pretrain,
    "posteriors": _posteriors,
    "clean": _clean,
    "review": _plain("review"),
    "sweep": _plain("sweep"),
    "study": _study,
    "leaderboard": _plain("leaderboard"),
    "predict": _plain("predict"),
    "evaluate": _plain("evaluate"),
    "export": _plain("export"),
    "report": _plain("report"),
    "check": _plain("check"),
    "corrupt": _plain("corrupt"),
    "inspect": _plain("inspect"),
    "bench": _plain("bench"),
    "env": _env,
    "methods": _listing("methods"),
    "datasets": _listing("datasets"),
    "models": _listing("models"),
    "completion": _completion,
    "help": _help,
}


_OF_SEVERAL = ("train", "pretrain", "posteriors")
"""The commands that several processes can do together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done; 2: an error that the user can correct; 130: Ctrl-C; 141: nobody takes the output any more; 143: SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    interrupts: list[int] = []
    with _noted(interrupts), warnings.catch_warnings():
        # Pillow's, of odd image files: `fastnoise.data.scan` says of which files of a data set there are some.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            code = _run(words)
            sys.stdout.flush()
            return code
        except FastnoiseError as error:
            return _refused(" ".join(str(error).split()))
        except KeyboardInterrupt:
            return _interrupted()
        except BrokenPipeError:  # whoever read our output has seen enough, as in `fastnoise train --help | head`
            return _without_output()
        except PermissionError as error:
            return _refused(f"{error.filename}: {error.strerror}; change its permissions")
        except OSError as error:
            if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
                _refused(f"the output cannot be written: {error.strerror}")
                return _without_output()
            return _refused(f"{error.filename or 'the system says'}: {error.strerror or error}")
        except MemoryError as error:
            return _refused(f"there is too little memory ({str(error) or 'for an array'}); {_LESS}")
        except Exception as error:
            if interrupts:  # libraries turn a Ctrl-C in the middle of their import into errors of their own
                return _interrupted()
            if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # torch's, of the CPU
                return _refused(f"there is too little memory ({str(error).splitlines()[0][-120:]}); {_LESS}")
            raise


_LESS = "lower --batch-size, --width or --image-size"


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    for word in words if words[0] != "predict" else ():  # whose table of files may have any name
        if not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
            plain = word.encode("utf-8", "backslashreplace").decode()
            raise ConfigError(f"{plain}: not UTF-8, which the files of a run are; rename it, or make a link to it")
    if words[0] not in _COMMANDS:
        raise ConfigError(f"unknown command {words[0]!r}; {nearest(words[0], list(_COMMANDS))}")
    if words[0] not in _OF_SEVERAL and os.environ.get("WORLD_SIZE", "1") != "1":
        if os.environ.get("RANK", "0") != "0":  # the first one says it
            return 2
        raise ConfigError(
            f"fastnoise {words[0]} is one process, and this is one of {os.environ['WORLD_SIZE']} (WORLD_SIZE): start "
            f"it without torchrun, which is for {', '.join(_OF_SEVERAL)}"
        )
    return _COMMANDS[words[0]](words[1:])


@contextlib.contextmanager
def _noted(interrupts: list[int]) -> Iterator[None]:
    """Keep in `interrupts` that Ctrl-C was pressed, beside what it does by default."""

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    try:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or someone else's
            raise ValueError
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # as it is outside of the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _refused(message: str) -> int:
    print(f"fastnoise: error: {message}", file=sys.stderr)
    return 2


def _interrupted() -> int:
    print("fastnoise: interrupted", file=sys.stderr)
    return 130


def _without_output() -> int:
    """Let nothing fail again when Python ends and writes what is left."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


if __name__ == "__main__":
    sys.exit(main())
