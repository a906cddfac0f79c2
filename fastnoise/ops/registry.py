"""Registration: turns a rule and its CPU kernel into a differentiable op that runs eagerly, compiled and captured.

An op is opaque to the compiler (`torch.library.custom_op`), declares the target table as mutated, and returns loss and
gradient as fresh tensors. It carries no autograd formula, which PyTorch refuses for an op that mutates its arguments:
`Fused` wraps it. The op must not be rerun for one step, so keep losses out of activation checkpointing.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import DataError, FastnoiseError

LOGIT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

OPS: dict[str, "FusedOp"] = {}
"""The registered ops by name."""


class Fused(torch.autograd.Function):
    """The op computes the gradients with the loss; backward only scales them, in fp32 whatever their dtype.

    They are kept in the logits' dtype until then. In float16 that drops entries below 6e-8 before a loss scale can lift
    them; bfloat16 has the exponents of float32 and drops nothing.
    """

    @staticmethod
    def forward(ctx: Any, op: Any, *inputs: Any) -> Tensor:
        loss, *gradients = op(*inputs)
        ctx.save_for_backward(*gradients)
        ctx.num_constants = len(inputs) - len(gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            torch.mul(gradient, grad[:, None] if gradient.dim() == 2 else grad, out=torch.empty_like(gradient))
            for gradient in ctx.saved_tensors
        ]
        return None, *scaled, *[None] * ctx.num_constants


@cache
def load_kernels() -> Any:
    """The Triton launcher and rules; the only import of Triton, made at the first call on a CUDA device."""
    if find_spec("triton") is None:
        raise FastnoiseError(
            "losses on a CUDA device need triton: pip install triton, or move model and loss to the CPU"
        )
    return import_module("fastnoise.kernels.row").launch, import_module("fastnoise.kernels.rules")


class FusedOp:
    """A fused loss as a function: `op(logits, [attention], labels, [index, targets, knobs], [variant]) -> loss [B]`.

    Differentiable once, in logits and attention; `targets` is updated in place. Registers `torch.ops.fastnoise.<name>`
    with the Triton rule of that name for CUDA, `cpu` for the CPU, and a fake kernel for tracing.

    Args:
        name: of the op; its rule is `fastnoise.kernels.rules.<NAME>`.
        cpu: the CPU kernel, with the op's parameters.
        attention: the rule reads an attention logit per row.
        targets: the rule keeps a target table; the op then takes index, targets and knobs.
        variant: the name of a bool that picks between two forms of the rule, if it has them.
    """

    def __init__(
        self,
        name: str,
        cpu: Callable[..., tuple[Tensor, ...]],
        *,
        attention: bool = False,
        targets: bool = False,
        variant: str | None = None,
    ):
        self.name = name
        parameters = ["Tensor logits"]
        parameters += ["Tensor attention"] if attention else []
        parameters += ["Tensor labels"]
        parameters += ["Tensor index", "Tensor(a!) targets", "Tensor knobs"] if targets else []
        parameters += [f"bool {variant}"] if variant else []
        self.names = ["variant" if p.startswith("bool") else p.split()[1] for p in parameters]
        returns = ["Tensor"] * (3 if attention else 2)

        def cuda(*inputs: Any) -> tuple[Tensor, ...]:
            launch, rules = load_kernels()
            with torch.cuda.device(inputs[0].device):
                return launch(getattr(rules, name.upper()), **dict(zip(self.names, inputs, strict=True)))

        def checked_cpu(*inputs: Any) -> tuple[Tensor, ...]:
            try:
                return cpu(*inputs)
            except (IndexError, RuntimeError):  # how PyTorch reports a label or index out of range, before any update
                self.check_ranges(**dict(zip(self.names, inputs, strict=True)))
                raise

        def fake(*inputs: Any) -> tuple[Tensor, ...]:
            logits = inputs[0]
            loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
            gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs[: 1 + attention]]
            return loss, *gradients

        self.op = torch.library.custom_op(
            f"fastnoise::{name}",
            cuda,
            mutates_args={"targets"} if targets else (),
            device_types="cuda",
            schema=f"({', '.join(parameters)}) -> ({', '.join(returns)})",
        )
        self.op.register_kernel("cpu", checked_cpu)
        self.op.register_fake(fake)
        self.overload = getattr(torch.ops.fastnoise, name).default
        OPS[name] = self

    def __call__(self, *inputs: Any) -> Tensor:
        self.check(**dict(zip(self.names, inputs, strict=True)))
        return Fused.apply(self.overload, *inputs)

    def check(self, **inputs: Any) -> None:
        """Refuse tensors of the wrong form, from shape, dtype and device alone: nothing waits for the device."""
        for name, tensor in inputs.items():
            if name != "variant" and not isinstance(tensor, Tensor):
                raise DataError(f"{self.name}: {name} is {type(tensor).__name__}; expected a tensor")
        logits = inputs["logits"]
        if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
            self.refuse("logits", logits, "float32, float16 or bfloat16 [B, C] with at least two classes")
        num_rows, num_classes = logits.shape
        for name, tensor in inputs.items():
            if name in ("labels", "index") and (tensor.shape != (num_rows,) or tensor.dtype != torch.int64):
                self.refuse(name, tensor, f"int64 [{num_rows}], one per row of logits")
            if name == "attention" and (tensor.shape != (num_rows,) or tensor.dtype not in LOGIT_DTYPES):
                self.refuse(name, tensor, f"float32, float16 or bfloat16 [{num_rows}], one logit per row")
            if name == "targets" and (
                tensor.dim() != 2
                or tensor.shape[1] != num_classes
                or tensor.dtype != torch.float32
                or not tensor.is_contiguous()
            ):
                self.refuse(name, tensor, f"contiguous float32 [N, {num_classes}], a column per class of the logits")
            if name != "variant" and tensor.device != logits.device:
                raise DataError(f"{self.name}: {name} on {tensor.device}, logits on {logits.device}; put both on one")

    def refuse(self, name: str, tensor: Tensor, expected: str) -> None:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise DataError(f"{self.name}: {name} is {dtype} {list(tensor.shape)}; expected {expected}")

    def check_ranges(self, logits: Tensor, labels: Tensor, **others: Any) -> None:
        """Name the label or index that lies out of range, if one does."""
        limits = [("label", labels, logits.shape[1], "number of classes")]
        if "index" in others:
            limits.append(("index", others["index"], others["targets"].shape[0], "number of samples"))
        for name, tensor, limit, meaning in limits:
            outside = tensor[(tensor < 0) | (tensor >= limit)]
            if len(outside):
                raise DataError(
                    f"{self.name}: {name} {int(outside[0])} is outside 0..{limit - 1}, for a {meaning} of {limit}"
                )


def backends() -> dict[str, dict[str, str]]:
    """What computes each op on each device: `{"elr": {"cpu": "torch", "cuda": "triton"}, ...}`."""
    cuda = "triton" if find_spec("triton") else "unavailable (triton is not installed)"
    return {name: {"cpu": "torch", "cuda": cuda} for name in OPS}
