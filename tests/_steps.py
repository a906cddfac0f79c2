"""What tests of training steps share: reads of the device are noticed, and compiled steps compared with eager ones."""

from collections.abc import Callable
from typing import Any

import torch


class NoHostReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails on ops that would make the host wait for a GPU, outside the ops of fastnoise, which have a CUDA form."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in func.name() for name in self.FORBIDDEN), f"{func.name()} reads the device"
        if func.namespace == "fastnoise":
            with torch._C._DisableTorchDispatch():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


Made = tuple[Any, list[torch.nn.Parameter], dict[str, torch.Tensor]]
"""What a step gives, the parameters that have its gradient, and the buffers after it."""


def assert_one_graph(make: Callable[[Callable[[Any], Any]], Made], tolerance: float) -> None:
    """Compiled without breaks, a step equals the eager one: loss, gradients, buffers.

    `make` builds everything anew and makes a step by what it is given `training_step` for.
    """
    torch._dynamo.reset()

    def compiled(step: Any) -> Any:
        return torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")

    (eager, weights, state), (result, others, other_state) = make(lambda step: step), make(compiled)
    torch.testing.assert_close(result.loss, eager.loss, rtol=tolerance, atol=tolerance)
    assert result.loss.dtype == torch.float32
    for first, second in zip(weights, others, strict=True):
        assert (first.grad is None) == (second.grad is None)
        if first.grad is not None and second.grad is not None:
            apart = torch.linalg.vector_norm(first.grad - second.grad)
            assert apart <= tolerance * torch.linalg.vector_norm(first.grad) + 1e-4
    for key, value in state.items():
        torch.testing.assert_close(other_state[key], value, rtol=tolerance, atol=tolerance, msg=key)
