"""Registration: turns a rule and its CPU kernel into a differentiable op that runs eagerly, compiled and captured.

An op is opaque to the compiler (`torch.library.custom_op`), declares the target table as mutated, and returns loss and
gradient as fresh tensors. It carries no autograd formula, which PyTorch refuses for an op that mutates its arguments:
`Fused` wraps it. An op that is run during a backward pass is being recomputed (activation checkpointing): it then
leaves the targets alone.
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
from .checks import LOGIT_DTYPES, check_distinct, check_index, check_range, debug, refuse
from .tables import Placement, on_kept_rows, without_ignored

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
    """A fused loss as a function: `op(logits, labels, ..., *options) -> loss [B]`.

    Differentiable once, in logits and attention; `targets` is updated in place. Registers `torch.ops.fastnoise.<name>`
    with the Triton rule of that name for CUDA, `cpu` for the CPU, and a fake kernel for tracing. An op whose rule has
    no loss returns nothing and only updates.

    Args:
        name: of the op; its rule is `fastnoise.kernels.rules.<NAME>`.
        cpu: the CPU kernel, with the op's tensors and options as parameters.
        tensors: names of tensors that `fastnoise.kernels.row.launch` takes, in the op's order: "logits" first, then
            "attention" if the rule reads it. "targets!" is updated, "targets" only read.
        options: the parameters that follow, as in a schema ("bool code, float reverse"): constants, the rule's OPTIONS.
        loss: whether the rule has a loss.
        namespace: the op is `torch.ops.<namespace>.<name>`; `OPS` lists those of fastnoise alone.
        find_rule: returns the rule at a call on a CUDA device, given the module of the built-in ones.
    """

    def __init__(
        self,
        name: str,
        cpu: Callable[..., tuple[Tensor, ...]],
        tensors: str,
        options: str = "",
        *,
        loss: bool = True,
        namespace: str = "fastnoise",
        find_rule: Callable[[Any], Any] | None = None,
    ):
        self.name = name
        self.loss = loss
        self.find_rule = find_rule or (lambda rules: getattr(rules, name.upper()))
        self.tensors = tensors.replace("!", "").split()
        self.options = [option.split()[1] for option in options.split(", ") if option]
        self.has_table = "targets" in self.tensors
        self.updates_table = "targets!" in tensors
        attention = "attention" in self.tensors
        parameters = [f"Tensor{'(a!)' if x == 'targets!' else ''} {x.removesuffix('!')}" for x in tensors.split()]
        parameters += [options] if options else []
        self.names = (*self.tensors, *self.options)
        self.settings: dict[str, Any] = {"ignore_index": None}
        # No defaults: PyTorch drops trailing arguments that equal theirs, and torch 2.11 then finds no `visits` whose
        # version to count up. Callers of the raw op append `settings.values()`.
        parameters += ["int? ignore_index"]
        if self.has_table:
            self.settings |= {"update": self.updates_table, **Placement._field_defaults}
            visits = "Tensor(b!)?" if self.updates_table else "Tensor?"
            parameters += ["bool update", f"{visits} visits", "int rank", "int world", "int seed"]
        num_results = 2 + attention if loss else 0
        returns = ", ".join(["Tensor"] * num_results)

        def cuda(*inputs: Any) -> tuple[Tensor, ...] | None:
            launch, rules = load_kernels()
            with torch.cuda.device(inputs[0].device):
                return self.launch(launch, self.find_rule(rules), inputs)

        def checked_cpu(*inputs: Any) -> tuple[Tensor, ...] | None:
            given = self.bind(inputs)
            try:
                return on_kept_rows(cpu, self.names, given) or None
            except (IndexError, RuntimeError):  # how PyTorch reports a label or index out of range, before any update
                self.check_ranges(given)
                raise

        def fake(*inputs: Any) -> tuple[Tensor, ...] | None:
            if not loss:
                return None
            logits = inputs[0]
            gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs[: 1 + attention]]
            return logits.new_empty(logits.shape[0], dtype=torch.float32), *gradients

        self.op = torch.library.custom_op(
            f"{namespace}::{name}",
            cuda,
            mutates_args={"targets", "visits"} if self.updates_table else (),
            device_types="cuda",
            schema=f"({', '.join(parameters)}) -> ({returns})",
        )
        self.op.register_kernel("cpu", checked_cpu)
        self.op.register_fake(fake)
        self.overload = getattr(getattr(torch.ops, namespace), name).default
        if namespace == "fastnoise":
            OPS[name] = self

    def __call__(
        self, *inputs: Any, ignore_index: int | None = None, update: bool = True, placement: Placement | None = None
    ) -> Any:
        """The loss [B] float32.

        Args:
            inputs: the op's tensors and options.
            ignore_index: rows with this label have loss and gradient 0 and leave their targets alone.
            update: False leaves all targets alone, whatever the knobs say.
            placement: how a table is stored that is not a whole one of float32.
        """
        given = dict(zip(self.names, inputs, strict=True))
        self.check({name: given[name] for name in self.tensors})
        inputs += (ignore_index,)
        if self.has_table:
            placement = placement or Placement()
            self.check_table(given["logits"], given["targets"], placement.visits)
            inputs += (update, *placement)
        return Fused.apply(self.overload, *inputs) if self.loss else self.overload(*inputs)

    def bind(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """The op's arguments by name, as this run is to take them."""
        given = dict(zip((*self.names, *self.settings), inputs, strict=True))
        if self.has_table:
            inside_backward = torch._C._current_graph_task_id() != -1
            given["update"] = given["update"] and self.updates_table and not inside_backward
        if debug.on:
            self.check_ranges(given)
            if self.updates_table:
                check_distinct(self.name, without_ignored(given)["index"])
        return given

    def launch(self, launch: Callable[..., Any], rule: Any, inputs: tuple[Any, ...], **geometry: int) -> Any:
        """Run the Triton launcher on the op's arguments."""
        given = self.bind(inputs)
        options = tuple(given.pop(name) for name in self.options)
        return launch(rule, **given, options=options, **geometry) or None

    def check(self, tensors: dict[str, Any]) -> None:
        """Refuse tensors of the wrong form, from shape, dtype and device alone: nothing waits for the device."""
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise DataError(f"{self.name}: {name} is {type(tensor).__name__}; expected a tensor")
        logits = tensors["logits"]
        if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
            refuse(self.name, "logits", logits, "float32, float16 or bfloat16 [B, C] with at least two classes")
        num_rows, num_classes = logits.shape
        # The sizes are filled in where a tensor is refused: to format a size in a traced function fixes it.
        half = "float32, float16 or bfloat16"
        per_row = "[{B}], one per row of logits"
        forms: dict[str, tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...], str]] = {
            "attention": (((num_rows,),), LOGIT_DTYPES, f"{half} {per_row}"),
            "soft_labels": (((num_rows, num_classes),), LOGIT_DTYPES, f"{half} [{{B}}, {{C}}], as logits"),
            "columns": (((num_classes, num_classes),), (torch.float32,), "float32 [{C}, {C}]"),
            "share": (((num_rows,), ()), LOGIT_DTYPES, f"{half} [] or {per_row}"),
        }
        positions = ((num_rows,),), (torch.int64,), f"int64 {per_row}"
        forms |= dict.fromkeys(("labels", "index", "pair_labels", "pair_index"), positions)
        for name, tensor in tensors.items():
            if name in forms:
                shapes, dtypes, expected = forms[name]
                if not any(tensor.shape == shape for shape in shapes) or tensor.dtype not in dtypes:
                    refuse(self.name, name, tensor, expected.format(B=num_rows, C=num_classes))
            if tensor.device != logits.device:
                raise DataError(f"{self.name}: {name} on {tensor.device}, logits on {logits.device}; put both on one")
            if tensor.requires_grad and name not in ("logits", "attention"):
                raise DataError(f"{self.name}: {name} requires a gradient, which this loss has none for; detach it")

    def check_table(self, logits: Tensor, targets: Tensor, visits: Tensor | None) -> None:
        """Refuse a table of the wrong form, or one of half precision without the counters that its rounding needs."""
        num_classes = logits.shape[1]
        dtypes = (torch.float32,) if visits is None else (torch.float16, torch.bfloat16)
        if (
            targets.dim() != 2
            or targets.shape[1] != num_classes
            or targets.dtype not in dtypes
            or not targets.is_contiguous()
        ):
            expected = "float32" if visits is None else "float16 or bfloat16"
            form = f"contiguous {expected} [N, {num_classes}], a column per class of the logits"
            refuse(self.name, "targets", targets, form)
        if visits is not None:
            if visits.shape != targets.shape[:1] or visits.dtype != torch.int32 or not visits.is_contiguous():
                refuse(self.name, "visits", visits, f"contiguous int32 [{targets.shape[0]}], one per row of targets")
            if visits.device != logits.device:
                raise DataError(f"{self.name}: visits on {visits.device}, logits on {logits.device}; put both on one")

    def check_ranges(self, given: dict[str, Any]) -> None:
        """Name the label or index that lies out of range or belongs to another shard, if one does."""
        given = without_ignored(given)
        for name in ("labels", "pair_labels"):
            if name in given:
                check_range(self.name, "label", given[name], given["logits"].shape[1], "number of classes")
        for name in ("index", "pair_index"):
            if name in given:
                check_index(self.name, given[name], len(given["targets"]), given["rank"], given["world"])


def backends() -> dict[str, dict[str, str]]:
    """What computes each op on each device: `{"elr": {"cpu": "torch", "cuda": "triton"}, ...}`."""
    cuda = "triton" if find_spec("triton") else "unavailable (triton is not installed)"
    return {name: {"cpu": "torch", "cuda": cuda} for name in (*OPS, "select")}
