"""What a run measures: running sums on the device, which are read once an epoch, and the figures made from them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..methods import Forward
from ..methods.shards import Shards
from ..ops.looks import CONFIDENCE, LOOKS, MARGIN, MARGINS, RIGHT


class EpochStatistics:
    """Sums over one epoch of training, kept on the device so that no step waits for it.

    A small network's step is hardly longer than the kernels that take note of it, so there are few: the loss has its
    sum, what is counted is one tensor that a constant is added to, and a loss that is no finite number shows in the
    sum, which stays so.

    Args:
        num_samples: N of the training set.
        attention: whether the network has an attention branch.
        shape: of the sums; several runs that share their steps have one each.
        looks: [N, 8], the table of what is seen of the given labels in all epochs (`ops.looks`); None: it is not kept.
        answers: [N, ...], the table that keeps what the network said of each sample, filled as `Task.unseen` makes it;
            by default one for a class each.
        skips: whether steps may be skipped because their gradient overflows, as in fp16: their norms do not count.
        anywhere: whether each of several processes may look at any sample (`Method.shares`), and not at its own alone.
    """

    def __init__(
        self,
        num_samples: int,
        attention: bool,
        device: torch.device,
        shape: tuple[int, ...] = (),
        answers: Tensor | None = None,
        looks: Tensor | None = None,
        skips: bool = False,
        anywhere: bool = False,
    ):
        self.loss_sum = torch.zeros(shape, dtype=torch.float64, device=device)
        self.norm_sum = torch.zeros(shape, dtype=torch.float64, device=device)
        """Of the gradients' norms, where they are noted."""
        self.skipped = torch.zeros(shape, dtype=torch.int64, device=device) if skips else None
        """Steps whose norm is not in the sum; None if no step is skipped."""
        self.counts = torch.zeros((3, *shape), dtype=torch.int64, device=device)
        """Samples, steps, and steps until the first loss that was NaN or infinite."""
        if answers is None:
            answers = torch.full((num_samples,), -1, dtype=torch.int64, device=device)
        self.predictions = answers
        self.attention = torch.full((num_samples,), torch.nan, device=device) if attention else None
        self.looks = looks
        self.before = looks.clone() if anywhere and looks is not None else None
        """The looks at the beginning of the epoch, where processes add up what each has noted since then."""
        self.turn = None if self.before is None else torch.full((num_samples,), -1, device=device)
        """The step of the epoch, from 0, in which this process last looked at a sample; -1 for none."""
        self.seen = None if self.before is None else self.before[:, LOOKS].clone()
        """How often each sample was looked at until the last step, which tells the looks of a step."""
        self._added: dict[int, Tensor] = {}
        """Batch size -> what its steps add to `counts`; the last is set anew in every step."""

    @property
    def samples(self) -> Tensor:
        """int64, seen in this epoch."""
        return self.counts[0]

    @property
    def steps(self) -> Tensor:
        """int64, made in this epoch."""
        return self.counts[1]

    @property
    def mean_norm(self) -> float | None:
        """The mean of the norms that were noted in this epoch; None if all steps were skipped."""
        count = int(self.steps) - (0 if self.skipped is None else int(self.skipped))
        return float(self.norm_sum) / count if count else None

    @property
    def bad_step(self) -> Tensor:
        """int64, the first step, counted from 1, whose loss was NaN or infinite; -1 if there was none."""
        _, steps, good = self.counts
        return torch.where(good < steps, good + 1, -1)

    def reset(self) -> None:
        """Start an epoch."""
        self.loss_sum.zero_()
        self.norm_sum.zero_()
        if self.skipped is not None:
            self.skipped.zero_()
        self.counts.zero_()
        self.predictions.fill_(torch.nan if self.predictions.is_floating_point() else -1)
        if self.attention is not None:
            self.attention.fill_(torch.nan)
        if self.looks is not None and self.before is not None and self.turn is not None and self.seen is not None:
            self.before.copy_(self.looks)
            self.turn.fill_(-1)
            self.seen.copy_(self.looks[:, LOOKS])

    @torch.no_grad()
    def update(self, result: Forward, index: Tensor) -> None:
        """Add one batch: its loss weighted by its size, and the network's prediction for each sample."""
        size = len(index)
        added = self._added.get(size)
        if added is None:  # by fills: what is copied from the host waits for the device
            added = self._added[size] = torch.ones_like(self.counts)
            added[0] = size
        if self.looks is not None and self.turn is not None and self.seen is not None:
            count = self.looks[:, LOOKS].index_select(0, index)
            turns = torch.where(count > self.seen[index], self.steps, -1)
            self.turn.scatter_reduce_(0, index, turns, "amax")
            self.seen.index_copy_(0, index, count)
        self.loss_sum.add_(result.loss.detach(), alpha=size)
        self._count(added, 0)
        self._keep(result, index)

    def end_epoch(self, epoch: int) -> None:
        """After the steps of an epoch: the margins of the first one do not count (Pleiss et al. 2020)."""
        if self.looks is not None and epoch == 1:
            self.looks[:, MARGINS : MARGIN + 1] = 0

    def note_norm(self, norm: Tensor) -> None:
        """Add the norm of a step's gradient."""
        if self.skipped is not None:
            self.skipped += ~norm.isfinite()
            norm = norm.nan_to_num(0.0, 0.0, 0.0)
        self.norm_sum += norm

    def _count(self, added: Tensor, zero: Tensor | float) -> None:
        """Add to `counts`; the third of `added` becomes 1 where 0 times the sum of the losses is `zero`."""
        torch.eq(self.loss_sum * 0, zero, out=added[2])
        self.counts += added

    def _keep(self, result: Forward, index: Tensor) -> None:
        self.predictions.index_copy_(0, index, result.predictions)
        if self.attention is not None and result.attention is not None:
            self.attention.index_copy_(0, index, result.attention)

    def share(self, shards: Shards) -> None:
        """Give every process the sums of all, and what each has noted of its samples. `bad_step` stays its own."""
        counts = self.counts[0].clone()
        shards.sum_(self.loss_sum, counts)
        self.counts[0] = counts
        for table in (self.predictions, self.attention):
            if table is not None:
                shards.merge_(table)
        if self.looks is not None and self.before is not None:
            self._add_looks(shards)
        elif self.looks is not None:
            shards.share_(self.looks)

    def _add_looks(self, shards: Shards) -> None:
        """Add up what the processes have noted in this epoch. The last look is that of the latest step, and of the last
        process if several made one in it. Each counts what was forgotten between its own looks."""
        assert self.looks is not None
        assert self.before is not None
        assert self.turn is not None
        latest = shards.gathered(self.turn).flip(0).argmax(0, keepdim=True)
        right = shards.gathered(self.looks[:, RIGHT].contiguous()).flip(0).gather(0, latest)[0]
        noted = self.looks[:, LOOKS : CONFIDENCE + 1] - self.before[:, LOOKS : CONFIDENCE + 1]
        shards.sum_(noted)
        self.looks.copy_(self.before)
        self.looks[:, LOOKS : CONFIDENCE + 1] += noted
        self.looks[:, RIGHT] = right

    def state_dict(self) -> dict[str, Tensor | None]:
        """The sums, for a checkpoint inside an epoch."""
        return {
            name: getattr(self, name)
            for name in (
                *("loss_sum", "norm_sum", "skipped", "samples", "steps", "bad_step"),
                *("predictions", "attention", "looks"),
            )
        } | ({} if self.before is None else {"before": self.before, "turn": self.turn})

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Load the sums that `state_dict` gave."""
        for name in ("loss_sum", "samples", "steps", "predictions", "attention"):
            value = state[name]
            if value is not None:
                getattr(self, name).copy_(value)
        for name in ("norm_sum", "skipped", "looks", "before", "turn"):  # not in every checkpoint
            value, own = state.get(name), getattr(self, name)
            if value is not None and own is not None:
                own.copy_(value)
        if self.looks is not None and self.before is not None and self.seen is not None:
            self.seen.copy_(self.looks[:, LOOKS])
            if state.get("before") is None:
                self.before.copy_(self.looks)
        bad = state["bad_step"]
        assert bad is not None
        self.counts[2] = torch.where(bad < 0, self.steps, bad - 1)


def attention_figures(attention: NDArray[np.float32], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Mean attention weight of clean and of mislabelled samples, and how well it tells them apart.

    attention [N] in (0, 1), NaN if not visited; wrong bool [N]. AUROC: the probability that a clean sample
    has a larger weight than a mislabelled one; given where both groups have samples.
    """
    seen = ~np.isnan(attention)
    attention, wrong = attention[seen], wrong[seen]
    figures = {}
    if (~wrong).any():
        figures["attention_clean"] = float(attention[~wrong].mean())
    if wrong.any():
        figures["attention_mislabelled"] = float(attention[wrong].mean())
    if len(figures) == 2:
        from sklearn.metrics import roc_auc_score  # which takes a second to import

        figures["attention_auroc"] = float(roc_auc_score(~wrong, attention))
    return figures


def detection_figures(suspected: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Precision and recall of the suspicion that a label is wrong; bool [N] each.

    Precision where anything is suspected, recall where any label is wrong.
    """
    found = float((suspected & wrong).sum())
    figures = {}
    if suspected.any():
        figures["precision"] = found / float(suspected.sum())
    if wrong.any():
        figures["recall"] = found / float(wrong.sum())
    return figures


def selection_figures(
    members: NDArray[np.bool_],
    labels: NDArray[np.int64],
    given: NDArray[np.int64],
    clean: NDArray[np.int64] | None,
    known: NDArray[np.int64] | slice = slice(None),
) -> dict[str, float]:
    """How many samples a method selected, and how often it is right about them; [N] each.

    samples: how many. Where true labels are known: precision, the share of the members whose class in `labels` is the
    true one; given_precision, the same of their given labels; recall, the members with the true class as a share of
    all N samples; recovered, that share of the mislabelled samples. A share of nothing is left out. All but the number
    of samples is of those in `known`, the samples whose true label is known.
    """
    figures: dict[str, float] = {"samples": int(members.sum())}
    if clean is None:
        return figures
    members, labels, given, clean = members[known], labels[known], given[known], clean[known]
    right, wrong = members & (labels == clean), given != clean
    if members.any():
        figures["precision"] = float(right.sum() / members.sum())
        figures["given_precision"] = float((~wrong)[members].mean())
    figures["recall"] = float(right.mean())
    if wrong.any():
        figures["recovered"] = float(right[wrong].mean())
    return figures


def best_last_mean(history: list[dict[str, Any]], key: str, *, higher: bool = True) -> dict[str, float]:
    """Best, last and mean-of-the-last-ten value of `key` over the epochs, and the best one's epoch: that of the highest
    value, else of the lowest."""
    values = [epoch[key] for epoch in history]
    best = int(np.argmax(values) if higher else np.argmin(values))
    return {
        "best": values[best],
        "best_epoch": history[best]["epoch"],
        "last": values[-1],
        "mean_last_10": float(np.mean(values[-10:])),
    }
