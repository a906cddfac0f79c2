"""What `--help` and `--help-all` print: the options of a command in groups, a sentence each. Imports no torch.

The options are read from the command's dataclass, as tyro reads them. The first sentence of an option's docstring is
its line in `--help`; `--help-all` and `fastnoise help options NAME` print the whole. tyro's own help is in boxes, has
every flag twice and says `STR`; its formatter has no settings for these.
"""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

HELP = ("-h", "--help")
HELP_ALL = "--help-all"

REQUIRED = "required"
"""In the annotation of a field: the command does nothing without it."""

_OPTIONS = "options"
GROUPS: dict[str, tuple[str, ...]] = {
    "data and labels": (
        *("dataset", "data_root", "download", "task", "noise", "noise_seed", "labels", "noise_rate", "num_classes"),
        *("limit_train", "val_fraction", "val_split", "split", "skip_unreadable", "inputs", "posteriors", "nominal"),
    ),
    "images and batches": (
        *("normalisation", "image_size", "exif_orientation", "augment", "eval_augment", "eval_mirror", "crop_padding"),
        *("flip", "grow_size", "batch_size", "drop_last", "balance", "epoch_batches"),
    ),
    "method": ("method",),
    "network": ("model", "width", "dropout", "init", "encoder", "freeze", "batch_norm"),
    "optimisation": (
        *("recipe", "epochs", "optimizer", "learning_rate", "weight_decay", "schedule", "average_weights", "patience"),
        *("clip_norm", "backbone_rate", "layer_decay", "seed"),
    ),
    "speed": (
        *("device", "amp", "gear", "compile", "compile_options", "fused_norm", "fused_head", "optimizer_kernel"),
        *("steps_per_graph", "target_dtype", "target_place", "loader", "loader_threads", "threads", "gpus"),
        "max_restarts",
    ),
    "where jobs run": ("jobs", "executor", "address", "gpus_per_job", "cpus_per_job", "stack"),
    "where it goes": (
        *("run_dir", "resume", "config", "out", "json", "png", "submit", "save_every", "save_tables_every", "keep"),
        *("log", "log_every", "profile", "gradients"),
    ),
    "help": ("dry_run", "deviations"),
}
"""Title -> the options below it by their flat names, in the order of the page. An option that no group names comes
first in that of its part of the configuration, or else under `options`."""

_PARTS = {
    **dict.fromkeys(("data", "noise"), "data and labels"),
    "model": "network",
    "optim": "optimisation",
    "engine": "speed",
}
"""Part of the configuration -> the group of its options that no group names."""

FEW = 16
"""A command with at most so many options has no groups."""

METAVARS: dict[str, str] = {
    **dict.fromkeys(("config",), "FILE.toml"),
    **dict.fromkeys(("run_dir", "resume", "data_root", "png", "submit", "submissions"), "FOLDER"),
    **dict.fromkeys(("encoder", "labels", "json", "compare", "inputs", "posteriors"), "FILE"),
    **dict.fromkeys(("dataset", "model", "method", "task", "optimizer"), "NAME"),
    **dict.fromkeys(("methods", "datasets", "recipes", "sides"), "NAME..."),
    **dict.fromkeys(("epochs", "patience", "warm_up"), "EPOCHS"),
    **dict.fromkeys(("noise", "nominal"), "NOISE"),
    **dict.fromkeys(("image_size",), "PIXELS"),
    **dict.fromkeys(("learning_rate",), "RATE"),
    **dict.fromkeys(("val_fraction", "noise_rate", "forget_rate", "dropout", "target_accuracy"), "SHARE"),
    **dict.fromkeys(("width", "backbone_rate", "layer_decay"), "FACTOR"),
    **dict.fromkeys(("augment", "eval_augment", "compile_options", "log"), "WORDS"),
    "clip_norm": "NORM",
    "crop_padding": "PIXELS",
    "device": "DEVICE",
    "seconds": "SECONDS",
    "noises": "NOISE...",
    "normalisation": "NAME",
    "schedule": "SCHEDULE",
    "average_weights": "AVERAGE",
    "grow_size": "STAGES",
    "save_every": "EPOCHS|TIME",
    "address": "HOST",
    "gpus_per_job": "N",
    "cpus_per_job": "N",
}
"""Flat name -> the word for its value. Others are N (whole numbers), X (numbers), or say their choices."""


def group_of(name: str, section: str) -> str:
    """The title of an option's group, by its flat name and the part of the configuration that holds it."""
    if section == "method":
        return "method"
    titles = [title for title, names in GROUPS.items() if name in names]
    return titles[0] if titles else _PARTS.get(section, _OPTIONS)


@dataclass(frozen=True)
class Option:
    """An option as a user sees it."""

    name: str
    """Its flat name: learning_rate."""
    flags: tuple[str, ...]
    """What is written for it: --learning-rate; empty if the option is known by its place."""
    metavar: str
    """The word for its value; empty if it takes none."""
    text: str
    """All that is said of it, in one line."""
    default: str = ""
    """What it is if nobody says otherwise, as it is written; empty if it has no value then."""
    choices: tuple[str, ...] = ()
    """The words that it takes, if it takes no others."""
    required: bool = False
    switch: bool = False
    """Whether --no-NAME switches it off."""
    section: str = ""
    """The part of the configuration that holds it: data, method, ..."""

    @property
    def head(self) -> str:
        """The option and the word for its value, as help shows them."""
        if not self.flags:
            return self.metavar
        flags = [f"--[no-]{flag[2:]}" if self.switch and self.default == "on" else flag for flag in self.flags]
        return " ".join([", ".join(flags), *([self.metavar] if self.metavar else [])])

    @property
    def group(self) -> str:
        return group_of(self.name, self.section)

    def said(self, whole: bool) -> str:
        """Its first sentence, or all that is said of it; with its choices and its default."""
        text = _sentence(self.text)
        rest = self.text[len(text) :]
        listed = [word for word in self.choices if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
        if listed and self.metavar != "|".join(self.choices):
            text = f"{text.rstrip('.')}: {', '.join(self.choices[:-1])} or {self.choices[-1]}."
        text += rest if whole else ""
        marks = [REQUIRED] * self.required + [self.default] * bool(self.default)
        return text + (f" [{', '.join(marks)}]" if marks else "")


def options(command: Any, default: Any = None) -> list[Option]:
    """The options of a command, in the order of its fields.

    Args:
        command: the dataclass of its options, or a part of one.
        default: an instance with the values that nobody has to give.
    """
    return _options(command() if default is None else default, "")


def _options(instance: Any, section: str) -> list[Option]:
    found: list[Option] = []
    hints = get_type_hints(type(instance), include_extras=True)
    for item in dataclasses.fields(instance):
        value = getattr(instance, item.name)
        if dataclasses.is_dataclass(value):
            found += _options(value, "" if item.name == "run" else item.name)
            continue
        found.append(_option(item.name, hints[item.name], value, type(instance), section))
    return found


def _option(name: str, hint: Any, value: Any, owner: type, section: str) -> Option:
    hints = _flattened(hint)
    setting: Any = next((each for each in hints if type(each).__name__ == "_ArgConfig"), None)
    kinds = {each for each in hints if isinstance(each, type)}
    literals = [str(word) for each in hints if get_origin(each) is Literal for word in get_args(each)]
    positional = tyro.conf.Positional in hints
    choices = () if kinds - {types.NoneType} else tuple(literals)
    switch = bool in kinds
    flag = "--" + name.replace("_", "-")
    flags = () if positional else (flag, *(setting.aliases or () if setting is not None else ()))
    several = any(get_origin(each) is tuple for each in hints)
    text = setting.help if setting is not None and setting.help is not None else docstrings(owner).get(name, "")
    if switch:
        metavar = ""
    elif setting is not None and setting.metavar is not None:
        metavar = setting.metavar
    elif len("|".join(choices)) <= 14 and choices:
        metavar = "|".join(choices)
    else:
        metavar = METAVARS.get(name) or ("WHICH" if choices else "X" if float in kinds else "N" if int in kinds else "")
        metavar = metavar or _meant(text)
    metavar += "..." * (several and not metavar.endswith("..."))
    return Option(
        name,
        flags,
        metavar,
        " ".join(text.split()),
        _written(value, switch),
        choices,
        REQUIRED in hints,
        switch and tyro.conf.FlagCreatePairsOff not in hints,
        section,
    )


def _meant(text: str) -> str:
    """The word for the value of an option, by how its sentence begins."""
    first = _sentence(text)
    return "FOLDER" if first.startswith("Folder") else "FILE" if re.search(r"\b[Ff]iles?\b", first) else "NAME"


def _flattened(hint: Any) -> list[Any]:
    """A type hint's types, literals, tuples and the settings in it."""
    if get_origin(hint) is Annotated:
        inner, *more = get_args(hint)
        return [*_flattened(inner), *more]
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return [each for part in get_args(hint) for each in _flattened(part)]
    if get_origin(hint) is tuple:
        return [hint, *_flattened(get_args(hint)[0])]
    return [hint]


def _written(value: Any, switch: bool) -> str:
    if value is None or value == ():
        return ""
    if switch:
        return "on" if value else ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@cache
def docstrings(owner: type) -> Mapping[str, str]:
    """Field -> the docstring under it, of a dataclass and those that it is made from.

    A class whose source cannot be read has none.
    """
    found: dict[str, str] = {}
    for kind in reversed(owner.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = str(after.value.value)
    return found


def _sentence(text: str) -> str:
    """The first sentence of a text."""
    return re.split(r"(?<=[.!?])(?<!al\.)(?<!e\.g\.)(?<!i\.e\.)\s", text, maxsplit=1)[0]


# -- the page ------------------------------------------------------------------------------------------------------


def wanted(arguments: Sequence[str]) -> str | None:
    """The word among a command's that asks for help; None if none does."""
    return next((word for word in arguments if word in (*HELP, HELP_ALL)), None)


def width_of_terminal() -> int:
    """The characters of a line: the terminal's (or COLUMNS), from 40 to 120."""
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, 120))


def page(prog: str, intro: str, listed: Iterable[Option], *, whole: bool = False, width: int | None = None) -> str:
    """The help of a command.

    Args:
        prog: the command, as in "fastnoise train".
        intro: what it does, paragraphs with blank lines between them; lines that begin with blanks stay lines.
        listed: its options.
        whole: print all that is said of each option, not its first sentence alone.
        width: characters of a line. None: those of the terminal.
    """
    width = width or width_of_terminal()
    listed = list(listed)
    places = [option for option in listed if not option.flags]
    needed = [option for option in listed if option.flags and option.required]
    shown = [option.head if option.required else f"[{option.head}]" for option in (*places, *needed)]
    usage = " ".join(["usage:", prog, *shown, "[OPTIONS]"])
    lines = [*_wrapped(usage, width, "    "), "", paragraphs(intro, width)]
    column = min(max((len(option.head) for option in listed), default=0), 26, width // 2 - 4)
    grouped: dict[str, list[Option]] = {"": places, _OPTIONS: []}
    grouped |= {title: [] for title in GROUPS}
    for option in listed:
        if option.flags:
            grouped.setdefault(option.group, []).append(option)
    helps = [
        Option("help", ("-h", "--help"), "", "Print this."),
        Option("help_all", (HELP_ALL,), "", "Print all that is said of each option."),
    ]
    grouped["help"] = [*grouped.pop("help"), *([] if whole else helps)]
    for title, members in grouped.items():
        order = GROUPS.get(title, ())
        members.sort(key=lambda option: order.index(option.name) if option.name in order else -1)
    if len(listed) <= FEW:
        grouped = {"": places, _OPTIONS: [option for title, members in grouped.items() if title for option in members]}
    for title, members in grouped.items():
        if members:
            lines += ["", *([f"{title}:"] if title else [])]
            lines += [line for option in members for line in _entry(option, column, width, whole)]
    return "\n".join(lines) + "\n"


def _entry(option: Option, column: int, width: int, whole: bool) -> list[str]:
    head, indent = f"  {option.head}", " " * (column + 4)
    said = _wrapped(option.said(whole), width - len(indent), "") or [""]
    first = [head] if len(head) > column + 2 else []
    rest = [indent + line for line in said]
    return [*first, *rest] if first else [f"{head:<{len(indent)}}{said[0]}", *rest[1:]]


def paragraphs(text: str, width: int | None = None) -> str:
    """A docstring wrapped to a width, by default the terminal's. Lines that begin with blanks stay lines of their
    own: they are examples or rows of a list."""
    width = width or width_of_terminal()
    lines: list[str] = []
    paragraph: list[str] = []
    for line in [*inspect.cleandoc(text).splitlines(), ""]:
        if line and not line.startswith(" "):
            paragraph.append(line)
            continue
        lines += _wrapped(" ".join(paragraph), width, "")
        paragraph = []
        lines += _wrapped(line, width, "      ") if line else [""]
    return "\n".join(lines[:-1])


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def show(prog: str, intro: str, listed: Iterable[Option], word: str) -> None:
    """Print the help that `word` asks for, and end: SystemExit(0)."""
    print(page(prog, intro, listed, whole=word == HELP_ALL), end="")
    raise SystemExit(0)
