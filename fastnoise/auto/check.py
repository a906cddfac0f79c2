"""Whether a run by a chosen method has become what was expected of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import RunFolder
from ..options import AUTO

if TYPE_CHECKING:
    from .findings import Findings

TOLERATED = 0.1
"""Points, from 0 to 1, by which agreement may leave what is expected before it is said."""

SHOWN = 5
"""Classes that a line names at most."""


def doubts_of_run(path: Path) -> list[str]:
    """`doubts` of the run in this folder, which has ended; [] if its method was not chosen by auto."""
    folder = RunFolder.open(path)
    row = folder.detail(AUTO)
    if row is None:
        return []
    from .findings import Findings

    return doubts(Findings.read(row), folder.read_summary())


def doubts(found: "Findings", summary: Mapping[str, Any]) -> list[str]:
    """Lines on what speaks against the choice, for the user.

    Args:
        found: by the probe.
        summary: of the run, the content of its summary.json.
    """
    answers = summary.get("training_answers")
    if answers is None:
        return []
    lines = [] if found.blind else _beside(found, answers, summary)
    names = answers["given_up"]
    if names:
        shown = ", ".join(map(str, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        lines.append(
            f"the network hardly answers {'these classes' if len(names) > 1 else 'this class'} any more, though images "
            f"carry {'their labels' if len(names) > 1 else 'its label'}: {shown}"
        )
    return lines


def _beside(found: "Findings", answers: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Lines on where a run's answers to training labels, and its summary, leave what was found."""
    lines = []
    right = 1 - found.rate
    agreement = float(answers["agreement"])
    if agreement > right + TOLERATED:
        lines.append(
            f"the network agrees with {_percent(agreement)} of the training labels, though about "
            f"{_percent(found.rate)} of them look wrong: it has learnt wrong labels by heart; train for fewer epochs, "
            "or name another method" + ("; or the probe's weak networks were what was wrong" if found.weak else "")
        )
    elif agreement < right * min(1.0, found.learnt) - TOLERATED:
        lines.append(
            f"the network agrees with {_percent(agreement)} of the training labels, fewer than the probe's networks "
            "did: it has learnt too little; train longer, or name another method"
        )
    held = summary.get("validation_accuracy")
    if held is not None and held["last"] < right * min(1.0, found.learnt) - TOLERATED:
        lines.append(
            f"on held-out labels, of which about {_percent(right)} look right, the network agrees with "
            f"{_percent(held['last'])}; the probe's networks agreed with "
            f"{_percent(right * min(1.0, found.learnt))}: name another method"
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
