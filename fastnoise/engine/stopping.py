"""Early stopping: the end of a run whose validation score has stopped getting better."""

from collections.abc import Sequence
from typing import Any

from ..config import RunConfig
from ..tasks.names import Score
from ..texts import counted
from .metrics import best_last_mean


class EarlyStop:
    """Says when a run ends before its last epoch.

    All that counts is in the history, which checkpoints hold: a resumed run ends after the same epoch. Of a method that
    trains in rounds, each from the first weights or with a schedule of its own, only the last round can end early, and
    only its scores count.

    Args:
        config: of the run; without patience it never ends early.
        score: of the task.
        first: the first epoch of the last round.
    """

    def __init__(self, config: RunConfig, score: Score, first: int):
        self.patience, self.epochs = config.optim.patience, config.optim.epochs
        self.score, self.first = score, first

    def _best(self, history: Sequence[dict[str, Any]]) -> dict[str, float]:
        key, last_round = f"validation_{self.score.name}", list(history[self.first - 1 :])
        return best_last_mean(last_round, key, higher=self.score.higher)

    def reached(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether the last `patience` epochs of the history have no better validation score than one before them."""
        if not self.patience or len(history) < self.first + self.patience:
            return False
        return bool(history[-1]["epoch"] - self._best(history)["best_epoch"] >= self.patience)

    def figures(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What summary.json says of a run that has ended early; nothing of another."""
        if not self.reached(history) or len(history) >= self.epochs:
            return {}
        best = self._best(history)["best_epoch"]
        planned = {"epoch": len(history), "epochs": self.epochs, "patience": self.patience, "best_epoch": best}
        return {"stopped_early": planned}

    def line(self, history: Sequence[dict[str, Any]]) -> str:
        """What the display says of a run that has ended early."""
        best = self._best(history)
        return (
            f"stopped after epoch {len(history)} of {self.epochs}: no better validation {self.score.title} than "
            f"{self.score.shown(best['best'])} in epoch {best['best_epoch']} for "
            f"{counted(self.patience, 'epoch')}; a larger --patience lets --resume go on"
        )
