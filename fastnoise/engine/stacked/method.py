"""The joint steps of several runs: their methods, and the statistics that the steps add to."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...data.base import upload
from ...methods import Forward, Method
from ...models import Network, Outputs
from ...options import MethodOptions
from ..metrics import EpochStatistics
from .batches import StackedPlan
from .layers import StackedNetwork


class StackedMethod(Method):
    """K methods of one kind as one method, which makes the steps of a stack.

    Args:
        options: of the methods.
        lead: the method for the samples of all runs together, with one table. Its `loss` serves all runs at once.
        members: the methods of the runs. Their tables are parts of the lead's.
        network: of the runs.
        plan: of the training batches.
    """

    name = "stack"
    losses: Tensor

    def __init__(
        self,
        options: MethodOptions,
        lead: Method,
        members: Sequence[Method],
        network: StackedNetwork,
        plan: StackedPlan,
    ):
        super().__init__(options, plan.num_samples, 0)
        self.lead, self.attention = lead, lead.attention
        self._members, self.count, self._network = tuple(members), len(members), (network,)
        self.steps = plan.sizes
        self.sizes: tuple[int, ...] = ()
        """Number of samples of each run in the present batch, for batches in which it can differ."""
        self.optimizer: torch.optim.Optimizer | None = None
        self._held: list[tuple[Tensor, Tensor]] = []
        for method in (lead, *members):
            method.criterion.reduction = "none"  # type: ignore[assignment]
        for name in lead.per_sample:
            path, _, leaf = name.rpartition(".")
            table = lead.get_buffer(name)
            for number, method in enumerate(members):
                setattr(method.get_submodule(path), leaf, table[plan.starts[number] : plan.starts[number + 1]])
        self.starts = plan.starts.tolist()
        self.register_buffer("losses", torch.zeros(self.count))  # of the last step, by run

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        """As in Method, with images and index as StackedLoader returns them. The loss is the sum of the runs' mean
        losses, so that each run has the gradient of its own loss. `losses` [K] holds the runs' losses afterwards."""
        even = images.dim() == 5
        network = networks[0]
        outputs = network(images) if even else self._unequal(network, images)  # type: ignore[arg-type]
        if even:
            outputs = outputs.map(lambda part: part.flatten(0, 1))
        if self.program == 0:
            losses = self.lead.loss(outputs, labels, index)
        else:
            losses = self._each_loss(outputs, labels, index, even)
        if even:
            means = losses.unflatten(0, (-1, self.count)).mean(0)
        else:
            means = torch.stack([part.sum() / max(1, len(part)) for part in losses.split(list(self.sizes))])
        self.losses.copy_(means.detach())
        attention = None if outputs.attention is None else outputs.attention.detach().float().sigmoid()
        logits = outputs.logits.detach()
        return Forward(means.sum(), logits.argmax(1), attention, logits)

    def note_looks(self, looks: Tensor) -> bool:
        parts = [looks[start:end] for start, end in zip(self.starts, self.starts[1:], strict=False)]
        each = [method.note_looks(part) for method, part in zip(self._members, parts, strict=True)]
        return self.lead.note_looks(looks) and all(each)

    def _each_loss(self, outputs: Outputs, labels: Tensor, index: Tensor, even: bool) -> Tensor:
        """Losses [R], each by the run's own method, for runs whose options no longer agree."""
        rows = torch.arange(len(index), device=index.device)
        parts = list(rows.view(-1, self.count).T) if even else list(rows.split(list(self.sizes)))
        losses = torch.zeros(len(index), device=index.device)
        for start, method, part in zip(self.starts[:-1], self._members, parts, strict=True):
            if len(part):
                own = outputs.take(part)
                losses = losses.index_copy(0, part, method.loss(own, labels[part], index[part] - start))
        return losses

    def _unequal(self, network: StackedNetwork, images: Tensor) -> Outputs:
        """A step that leaves runs without samples unchanged: their part of what the optimiser changes is saved before
        it."""
        for number, size in enumerate(self.sizes):
            if size == 0:
                assert self.optimizer is not None
                for parameter in network.parameters():
                    moments = [each for each in self.optimizer.state[parameter].values() if isinstance(each, Tensor)]
                    parts = [network.part(tensor, number) for tensor in (parameter.detach(), *moments)]
                    self._held += [(part, part.clone()) for part in parts]
        return network.each(images, self.sizes)

    def after_update(self, networks: Sequence[Network]) -> None:
        for part, before in self._held:
            part.copy_(before)
        self._held = []

    def predict(self, networks: Sequence[Network], images: Tensor) -> Outputs:
        """Logits [B, K, C] and attention [B, K] for images [B, K or 1, ...], or [R, C] and [R] for images run by
        run."""
        network: StackedNetwork = networks[0]  # type: ignore[assignment]
        outputs: Outputs = network(images) if images.dim() == 5 else network.each(images, self.sizes)
        return outputs

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        self.sizes = self.steps[batch]

    def start_epoch(self, epoch: int) -> None:
        for method in self._members:
            method.start_epoch(epoch)
        knobs = [method.criterion.knobs for method in self._members if hasattr(method.criterion, "knobs")]
        if knobs:
            self.lead.criterion.knobs.copy_(knobs[0])  # type: ignore[operator,arg-type]
            self.program = int(any(not torch.equal(each, knobs[0]) for each in knobs[1:]))  # type: ignore[arg-type]


class StackedStatistics(EpochStatistics):
    """EpochStatistics of K runs. Sums are [K], and tables hold the samples of one run after the other."""

    def __init__(self, method: StackedMethod, device: torch.device, looks: Tensor | None = None):
        super().__init__(method.starts[-1], method.attention, device, (method.count,), looks=looks)
        self.method = method
        self._shares: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
        """Number of samples of each run in a step -> the same as weights float64 [K], what the step adds to `counts`,
        and float64 [K] that is 0 for the runs that take part in the step and 1 for the others."""

    def part(self, number: int) -> EpochStatistics:
        """The statistics of run `number`. They share memory with these and change with them."""
        own = EpochStatistics(0, False, self.loss_sum.device)
        rows = slice(*self.method.starts[number : number + 2])
        own.loss_sum, own.norm_sum = self.loss_sum[number], self.norm_sum[number]
        own.counts = self.counts[:, number]
        own.predictions = self.predictions[rows]
        own.attention = None if self.attention is None else self.attention[rows]
        own.looks = None if self.looks is None else self.looks[rows]
        return own

    @torch.no_grad()
    def update(self, result: Forward, index: Tensor) -> None:
        count = self.method.count
        uneven = len(set(self.method.sizes)) > 1
        sizes = self.method.sizes if uneven else (len(index) // count,) * count
        if sizes not in self._shares:
            taking = np.sign(sizes)
            parts = (np.array(sizes, np.float64), np.stack([sizes, taking, taking]), 1.0 - taking)
            self._shares[sizes] = tuple(upload(part, self.loss_sum.device) for part in parts)  # type: ignore[assignment]
        weights, added, standing = self._shares[sizes]
        self.loss_sum.addcmul_(self.method.losses, weights)
        self._count(added, standing)
        self._keep(result, index)
