"""fastnoise help: the pages of the manual."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, nearest
from ..helptext import paragraphs, width_of_terminal
from .listings import table

DOCS = Path(__file__).resolve().parents[1] / "docs"

TOPICS: dict[str, str] = {
    "train": "the options of a run, and what it leaves",
    "data": "data sets, your own images, features, several labels, values, augmentation",
    "methods": "the methods, and where their settings come from",
    "noise": "label noise, and how to make or inspect it without training",
    "clean": "which labels of a data set are wrong",
    "use": "predict, evaluate and export with the network of a run",
    "sweeps": "many runs at once, studies, reports",
    "losses": "the fused losses in a loop of your own",
    "own": "methods, networks, data sets, noise and tasks of your own",
    "gpu": "how steps run on a GPU, and how to measure one",
    "clusters": "one run on several GPUs or machines",
    "benchmarks": "measuring this machine, and what is measured",
    "results": "accuracy of all methods on digits and MNIST",
    "deviations": "what stays different from the authors' code",
    "contributing": "how the code is laid out, and how to add to it",
}
"""Topic -> what its page is about."""

_ELSEWHERE = {"own": DOCS.parent / "extend.md", "deviations": DOCS.parent / "deviations.md"}


def page(topic: str) -> str:
    """The page of a topic, Markdown."""
    return _ELSEWHERE.get(topic, DOCS / f"{topic}.md").read_text(encoding="utf-8")


def run(arguments: Sequence[str]) -> int:
    """Print the list of topics, or the page of one; ConfigError for an unknown topic."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    width = shutil.get_terminal_size((100, 24)).columns
    if not words:
        print("usage: fastnoise help TOPIC\n\ntopics:")
        rows = {**TOPICS, "options NAME": "all that is said of an option, in each command that has it"}
        print("\n".join(f"  {line}" for line in table(rows, width - 2)))
        more = (
            "`fastnoise COMMAND --help` lists a command's options; `fastnoise methods`, `datasets` and `models` list "
            "what has a name."
        )
        print("\n" + paragraphs(more, width))
        return 0
    topic, *others = words
    if topic == "options":
        return _print_options(others)
    if others:
        raise ConfigError(f"fastnoise help takes one topic, found {' '.join(words)}")
    if topic not in TOPICS:
        raise ConfigError(f"unknown topic {topic!r}; {nearest(topic, list(TOPICS))}")
    text = page(topic)
    if not sys.stdout.isatty():
        print(text, end="")
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(width, 120)).print(Markdown(text))
    return 0


def _print_options(words: Sequence[str]) -> int:
    """Print all that is said of one option; ConfigError for an unknown one."""
    from . import every

    if len(words) != 1:
        raise ConfigError("give the name of one option, as in fastnoise help options learning-rate")
    name = words[0].removeprefix("--").removeprefix("no-").replace("-", "_")
    found: dict[str, list[str]] = {}  # what is said -> by which commands
    known: set[str] = set()
    for command in every.commands():
        for owner, listed in every.options(command).items():
            for option in listed:
                known.add(option.name)
                if option.name == name:
                    where = f"{command} --method {owner}" if owner else command
                    found.setdefault(f"{option.head}\n{option.said(True)}", []).append(where)
    if not found:
        raise ConfigError(f"unknown option {words[0]!r}; {nearest(name, sorted(known))}")
    width = width_of_terminal()
    for text, commands in found.items():
        head, _, said = text.partition("\n")
        print("\n".join(textwrap.wrap(f"{head}  ({', '.join(commands)})", width, subsequent_indent="  ")))
        print("\n".join(textwrap.wrap(said, width, initial_indent="    ", subsequent_indent="    ")))
    return 0
