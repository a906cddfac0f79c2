"""A run's accuracies beside the published ones."""

from dataclasses import dataclass

from .. import own
from ..errors import FastnoiseError
from ..fields import stored
from ..recipes.published import Published, deviations, published
from ..recipes.published_table import Metric
from .html import Html, element, join, table
from .stored import StoredRun

WORDS: dict[Metric, str] = {
    "last": "last epoch",
    "best": "best epoch, selected on test data",
    "mean_last_10": "mean of the last ten epochs",
    "validation": "best validation epoch",
}
_KEYS: dict[Metric, tuple[str, ...]] = {
    "last": ("test_accuracy", "last"),
    "best": ("test_accuracy", "best"),
    "mean_last_10": ("test_accuracy", "mean_last_10"),
    "validation": ("validation_accuracy", "test_at_best"),
}


@dataclass(frozen=True)
class Beside:
    """A published accuracy and the run's own, in per cent."""

    metric: Metric
    published: Published
    ours: float
    note: str
    """Its source, and how the run is known to differ from it."""

    @property
    def difference(self) -> str:
        """Ours minus theirs, as +0.53."""
        return f"{self.ours - self.published.mean:+.2f}"


def beside(run: StoredRun) -> list[Beside]:
    """The published accuracies that a finished run can be compared with; none for code of the user's own."""
    if run.summary is None or any(own.is_own(str(run.config.get(kind) or "")) for kind in own.KINDS):
        return []
    try:
        config = stored(run.config)
        entries = published(config)
    except (FastnoiseError, KeyError):  # of a damaged or a later version's configuration, which the page lists as it is
        return []
    realised = None if run.labels is None else run.labels.realised_rate
    found = []
    for metric, entry in entries.items():
        # A run without held-out samples has no best validation epoch: its last one stands beside such a value.
        ours = run.figure(*_KEYS[metric])
        ours = run.figure(*_KEYS["last"]) if ours is None else ours
        if ours is not None:
            found.append(Beside(metric, entry, 100 * ours, entry.cite() + deviations(config, entry, realised)))
    return found


def published_table(run: StoredRun) -> Html:
    """The published accuracies, the run's and the differences; nothing if none is known."""
    found = beside(run)
    if not found:
        return Html()
    rows = [
        (WORDS[each.metric], each.published.describe(), f"{each.ours:.2f}", each.difference, each.note)
        for each in found
    ]
    header = ("test accuracy, %", "published", "this run", "difference", "source")
    return join([element("h2", "Published values", id="published-values"), table(rows, header, numbers=[1, 2, 3])])
