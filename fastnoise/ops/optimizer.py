"""SGD and Adam of torch.optim that make an update in one launch of `kernels/optimizer.py`."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .registry import load_kernels


def dense(tensor: Tensor) -> bool:
    """Whether a tensor is float32 and has its numbers one after the other, in any order of its dimensions."""
    return tensor.dtype == torch.float32 and tensor.stride() == torch.empty_like(tensor, device="meta").stride()


def like(weight: Tensor, other: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`other`, or a copy of it in the memory layout of a weight, if it has another."""
    if other.dtype == dtype and other.stride() == weight.stride():
        return other
    return torch.empty_like(weight, dtype=dtype).copy_(other)


class OneLaunch(torch.optim.Optimizer):
    """What both optimisers share: tables of addresses, bfloat16 copies and averages of weights.

    The state and the groups are those of PyTorch's optimiser of the same name, fused, so that one takes up what the
    other has saved. Gradients may be at other addresses at each step: the table is then made again, and uploaded
    without a wait. In a CUDA graph they are always the same, but known only while it is captured, when nothing can be
    uploaded. So call `captured()` after the capture and before the first replay.

    Attributes:
        copies: weights -> their bfloat16 copy, a leaf whose gradient takes the place of the weights' own. Empty unless
            `keep_copies` makes some.
        averages: tensors -> the average that follows them in each step. Empty unless `keep_averages` names some.
    """

    copies: dict[Tensor, nn.Parameter]
    averages: dict[Tensor, Tensor]

    def _prepare(self) -> None:
        """Called once the groups are there. ValueError for weights that the kernel cannot take."""
        self.copies, self.averages = {}, {}
        self._average_momentum: float | None = None
        self._addresses: dict[int, tuple[list[list[int]], tuple[Tensor, Tensor]]] = {}
        """Of each launch of a step: what its table says, and the table."""
        self._pending: list[tuple[Tensor, Tensor]] = []
        """Tables of graphs that wait for their content."""
        self._rates: dict[int, tuple[float, Tensor]] = {}
        """Learning rates of groups that have theirs as a number: the number, and what the kernel reads."""
        load_kernels()
        for group in self.param_groups:
            for weight in group["params"]:
                if not dense(weight):
                    raise ValueError(
                        f"weights of {str(weight.dtype).removeprefix('torch.')} {list(weight.shape)} with strides "
                        f"{list(weight.stride())}: the kernel takes float32 without gaps"
                    )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not hasattr(self, "copies"):  # of a copy or a pickled optimiser
            self._prepare()

    def keep_copies(self, weights: Sequence[nn.Parameter]) -> None:
        """Keep bfloat16 copies of these weights from now on, which each step writes (`copies`)."""
        self.copies = {weight: nn.Parameter(weight.detach().bfloat16()) for weight in weights}

    @torch.no_grad()
    def renew_copies(self) -> None:
        """Bring the copies up to weights that were changed by other means than a step, as when they are loaded."""
        if self.copies:
            torch._foreach_copy_(list(self.copies.values()), list(self.copies))

    def keep_averages(self, pairs: Sequence[tuple[Tensor, Tensor]], momentum: float) -> None:
        """Move averages in the launch of each step from now on, even if the step itself is left out:
        average <- momentum * average + (1 - momentum) * weight, with the weight that the step gives.

        A graph that was captured before does not follow: capture it anew.

        Args:
            pairs: an average and its weights, which need not be among the optimiser's. Of other dtypes than float32, or
                with different memory layouts, they are left out of `averages`. Empty: no average moves any more.
            momentum: in [0, 1).
        """
        self.averages = {
            weight: average
            for average, weight in pairs
            if dense(weight) and dense(average) and average.stride() == weight.stride()
        }
        self._average_momentum = momentum if self.averages else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients, or set them to 0, those of copies too."""
        super().zero_grad(set_to_none)
        for copy in self.copies.values():
            if set_to_none:
                copy.grad = None
            elif copy.grad is not None:
                copy.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; the closure, if there is one, computes the loss and its gradients before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        launches: dict[tuple[Any, ...], list[tuple[int, Tensor]]] = {}
        for number, group in enumerate(self.param_groups):
            constants = self._constants(group)
            launches.setdefault(constants, []).extend(
                (number, weight) for weight in group["params"] if self._gradient(weight) is not None
            )
        updated = {weight for weights in launches.values() for _, weight in weights}
        alone = [weight for weight in self.averages if weight not in updated]
        for place, (constants, weights) in enumerate(launches.items()):
            if weights or alone:
                self._launch(place, constants, weights, alone)
                alone = []
        return loss

    def _gradient(self, weight: Tensor) -> Tensor | None:
        return self.copies[weight].grad if weight in self.copies else weight.grad

    def _launch(
        self,
        place: int,
        constants: tuple[Any, ...],
        weights: Sequence[tuple[int, Tensor]],
        alone: Sequence[Tensor] = (),
    ) -> None:
        """Update weights, each with the number of its group, whose groups have the same constants; and move the
        averages of these and of other tensors, which stay `alone`."""
        rows, kept = [], []
        for number, weight in weights:
            gradient, copy = self._gradient(weight), self.copies.get(weight)
            assert gradient is not None
            if gradient.is_sparse:
                raise ValueError("the kernel of the optimiser takes no sparse gradients; take PyTorch's optimiser")
            gradient = like(weight, gradient, torch.float32 if copy is None else torch.bfloat16)
            kept.append(gradient)  # the launch only has its address
            first, second, step = self._moments(self.param_groups[number], weight)
            tensors = (weight, gradient, first, second, self._rate(number), step, copy, self.averages.get(weight))
            rows.append([*(0 if tensor is None else tensor.data_ptr() for tensor in tensors), weight.numel()])
        rows += [
            [weight.data_ptr(), 0, 0, 0, 0, 0, 0, self.averages[weight].data_ptr(), weight.numel()] for weight in alone
        ]
        changed = [weight for _, weight in weights]
        changed += [self.copies[weight] for weight in changed if weight in self.copies]
        if changed:
            self._count(changed)
        moved = [self.averages[weight] for weight in (*changed, *alone) if weight in self.averages]
        device = (*changed, *alone)[0].device
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        told = {
            "copies": bool(self.copies),
            "alignment": 4 if any(address % 16 for row in rows for address in (*row[:4], *row[6:8])) else 16,
            "scale": None if scale is None else scale.to(device, non_blocking=True),
            "found_inf": None if found_inf is None else found_inf.to(device, non_blocking=True),
            "average": self._average_momentum,
        }
        with torch.cuda.device_of((*changed, *alone)[0]):
            self._run(self._table(place, rows, device), constants, told)
        torch.autograd.graph.increment_version([*changed, *moved])

    def _table(self, place: int, rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """The pieces and the table of tensors, on the device."""
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        known = self._addresses.get(place)
        if known is not None and not capturing and known[0] == rows:
            return known[1]
        pieces = import_module("fastnoise.kernels.optimizer").pieces([row[-1] for row in rows])
        hosts = [torch.from_numpy(pieces), torch.from_numpy(np.array(rows, np.int64))]
        if capturing:  # in the graph's own memory, filled by `captured`
            made = [torch.empty_like(host, device=device) for host in hosts]
            self._pending += zip(made, hosts, strict=True)
        elif device.type == "cuda":
            made = [host.pin_memory().to(device, non_blocking=True) for host in hosts]
        else:
            made = hosts
        table = made[0], made[1]
        if not capturing:
            self._addresses[place] = rows, table
        return table

    def captured(self) -> list[Tensor]:
        """Fill the tables of what has been captured since the last call. Keep the returned tensors as long as the
        graph, which reads them."""
        tables = [table for table, _ in self._pending]
        for table, host in self._pending:
            table.copy_(host)
        self._pending = []
        return tables

    def _rate(self, number: int) -> Tensor:
        """Where the kernel reads a group's learning rate: float32, on the device of its weights."""
        group = self.param_groups[number]
        rate, device = group["lr"], group["params"][0].device
        if isinstance(rate, Tensor):
            if rate.dtype != torch.float32 or rate.device != device:
                raise ValueError(f"a learning rate in a tensor must be float32 on {device}, as the weights are")
            return rate
        known = self._rates.get(number)
        if known is None or known[1].device != device:
            known = self._rates[number] = rate, torch.full((), rate, device=device)
        elif known[0] != rate:
            self._rates[number] = rate, known[1].fill_(rate)
        return known[1]

    def _state(self, weight: Tensor, name: str) -> Tensor:
        """A moment of these weights, in their memory layout; zeros at first."""
        state = self.state[weight]
        value = state.get(name)
        if value is None:
            value = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state[name] = like(weight, value)
        return state[name]

    # -- what SGD and Adam do each in its way ----------------------------------------------------------------

    def _constants(self, group: dict[str, Any]) -> tuple[Any, ...]:
        """What the launch takes of a group as constants; groups in which they agree share a launch. ValueError for a
        setting that only PyTorch's optimiser has."""
        raise NotImplementedError

    def _moments(self, group: dict[str, Any], weight: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """First moment, second moment and number of the step."""
        raise NotImplementedError

    def _count(self, weights: Sequence[Tensor]) -> None:
        """Count a step of these weights, before the launch."""

    def _run(self, table: tuple[Tensor, Tensor], constants: tuple[Any, ...], told: dict[str, Any]) -> None:
        raise NotImplementedError

    def _refuse(self, group: dict[str, Any], *names: str) -> None:
        for name in names:
            if group.get(name):
                raise ValueError(f"{name} is a setting of PyTorch's {type(self).__name__}; the kernel has none")


class SGD(OneLaunch, torch.optim.SGD):
    """torch.optim.SGD in one launch. Its arguments are those that it takes there.

    ValueError if weights are not float32, or have gaps in memory.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
        self._prepare()

    def _constants(self, group: dict[str, Any]) -> tuple[Any, ...]:
        self._refuse(group, "maximize", "dampening", "differentiable")
        return group["momentum"], group["weight_decay"], group["nesterov"]

    def _moments(self, group: dict[str, Any], weight: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return (self._state(weight, "momentum_buffer") if group["momentum"] else None), None, None

    def _run(self, table: tuple[Tensor, Tensor], constants: tuple[Any, ...], told: dict[str, Any]) -> None:
        momentum, decay, nesterov = constants
        import_module("fastnoise.kernels.optimizer").launch_sgd(
            table, momentum=momentum, decay=decay, nesterov=nesterov, **told
        )


class Adam(OneLaunch, torch.optim.Adam):
    """torch.optim.Adam in one launch, or AdamW with `decoupled_weight_decay`. Its arguments are those that it takes
    there.

    ValueError if weights are not float32, or have gaps in memory.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        capturable: bool = False,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            capturable=capturable,
            fused=True,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._prepare()

    def _constants(self, group: dict[str, Any]) -> tuple[Any, ...]:
        self._refuse(group, "amsgrad", "maximize", "differentiable")
        return *group["betas"], group["weight_decay"], group["eps"], group["decoupled_weight_decay"]

    def _moments(self, group: dict[str, Any], weight: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        state = self.state[weight]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        return self._state(weight, "exp_avg"), self._state(weight, "exp_avg_sq"), state["step"]

    def _count(self, weights: Sequence[Tensor]) -> None:
        steps = [self.state[weight]["step"] for weight in weights if weight in self.state]
        torch._foreach_add_(steps, 1)
        overflowed = getattr(self, "found_inf", None)
        if overflowed is not None:
            torch._foreach_sub_(steps, [overflowed.to(steps[0].device)] * len(steps))

    def _run(self, table: tuple[Tensor, Tensor], constants: tuple[Any, ...], told: dict[str, Any]) -> None:
        beta1, beta2, decay, epsilon, decoupled = constants
        import_module("fastnoise.kernels.optimizer").launch_adam(
            table, betas=(beta1, beta2), decay=decay, epsilon=epsilon, decoupled=decoupled, **told
        )
