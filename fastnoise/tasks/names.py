"""Tasks by name, without importing any: a task is its file and a line here."""

from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from .. import own
from ..errors import ConfigError, nearest

TASKS: dict[str, str] = {
    "classification": "fastnoise.tasks.classification:Classification",
    "multilabel": "fastnoise.tasks.multilabel:MultiLabel",
    "multitask": "fastnoise.tasks.multitask:MultiTask",
    "regression": "fastnoise.tasks.regression:Regression",
}
"""Name -> MODULE:NAME of a subclass of `fastnoise.tasks.Task`."""

FORMS: tuple[str, ...] = (*TASKS, "FILE.py:NAME")
"""What may be written for a task."""


def check_task(name: str) -> None:
    """ConfigError for an unknown task, with the nearest and all valid names; FILE.py:NAME is looked at when the data
    are there."""
    if not own.is_own(name) and name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; {nearest(name, list(FORMS))}")


DEFAULT = "classification"
"""What is learnt if nothing else is said, as in run folders of earlier versions."""


class Score(NamedTuple):
    """The figure that tells good networks from bad ones."""

    name: str
    """As `Task.figures` has it; metrics.jsonl has test_NAME and validation_NAME."""
    title: str
    """For tables and charts."""
    higher: bool = True
    """Whether a larger one is better."""
    share: bool = True
    """Whether it is a share, shown as a percentage."""

    def shown(self, value: float) -> str:
        """A value in a table."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.6g}"


SCORES: dict[str, Score] = {
    "classification": Score("accuracy", "accuracy"),
    "multilabel": Score("mean_average_precision", "mean average precision"),
    "regression": Score("mse", "mean squared error", higher=False, share=False),
}


def second_tests_in(figures: Mapping[str, Any], score: Score) -> list[str]:
    """The names of the second test sets: what a summary says, else the parts that an epoch has a loss and a score of
    and that are none of every run's. `ilsvrc` of ilsvrc_loss and ilsvrc_accuracy; test_task_loss is of the test set."""
    if "second_tests" in figures:
        return list(map(str, figures["second_tests"]))
    parts = [key.removesuffix("_loss") for key in figures if key.endswith("_loss")]
    own = ("train", "test", "validation")
    second = (part for part in parts if part not in own and not part.startswith(tuple(f"{name}_" for name in own)))
    return [part for part in second if f"{part}_{score.name}" in figures]


def score_in(figures: Mapping[str, Any]) -> Score:
    """The score in a summary or an epoch's figures: what the summary says of its task, else the one that is there."""
    said = figures.get("score")
    if isinstance(said, Mapping):
        return Score(str(said["name"]), str(said["title"]), bool(said["higher"]), bool(said["share"]))
    found = (score for score in SCORES.values() if f"test_{score.name}" in figures)
    return next(found, SCORES[DEFAULT])


def numbers(
    figures: Mapping[str, Any],
    between: str = "/",
    *,
    lists: bool = True,
    without: Container[str] = (),
    prefix: str = "",
) -> Iterator[tuple[str, float | int]]:
    """The numbers among figures by their names, those of nested tables by joined ones.

    Args:
        between: joins the names.
        lists: whether the numbers in lists are given too, by their places from 0.
        without: whole names of what is left out.
        prefix: of all names.
    """
    for key, value in figures.items():
        name = prefix + key
        if name in without:
            continue
        if isinstance(value, list) and lists:
            value = {str(place): item for place, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from numbers(value, between, lists=lists, without=without, prefix=name + between)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
