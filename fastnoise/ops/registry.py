"""Registration: turns a rule into a differentiable op that runs eagerly, compiled and captured.

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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import DataError, FastnoiseError
from . import cpu
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
    with the rules of that name for CUDA (Triton) and the CPU (C++), and a fake kernel for tracing. An op whose rule has
    no loss returns nothing and only updates.

    Args:
        name: of the op; its rules are `fastnoise.kernels.rules.<NAME>` and that of csrc/core/losses_body.hpp.
        tensors: names of tensors that `fastnoise.kernels.row.launch` takes, in the op's order: "logits" first, then
            "attention" if the rule reads it. "targets!" is updated, "targets" only read.
        options: the parameters that follow, as in a schema ("bool code, float reverse"): constants, the rule's OPTIONS.
        loss: whether the rule has a loss.
        twin: for a rule that C++ doesn't know, the CPU kernel, with the op's tensors and options as parameters.
        namespace: the op is `torch.ops.<namespace>.<name>`; `OPS` lists those of fastnoise alone.
        find_rule: returns the rule at a call on a CUDA device, given the module of the built-in ones.
    """

    def __init__(
        self,
        name: str,
        tensors: str,
        options: str = "",
        *,
        loss: bool = True,
        twin: Callable[..., tuple[Tensor, ...]] | None = None,
        namespace: str = "fastnoise",
        find_rule: Callable[[Any], Any] | None = None,
    ):
        self.name = name
        self.loss = loss
        self.twin = twin
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
            self.check_inputs(dict(zip((*self.names, *self.settings), inputs, strict=True)))
            return self.on_cpu(*inputs)

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
        inputs += (ignore_index,)
        if self.has_table:
            inputs += (update, *(placement or Placement()))
        given = dict(zip((*self.names, *self.settings), inputs, strict=True))
        self.check_inputs(given)
        op = self.direct if self.can_be_direct(given) else self.overload
        return Fused.apply(op, *inputs) if self.loss else op(*inputs)

    def can_be_direct(self, given: dict[str, Any]) -> bool:
        """Whether nothing but this call takes part: no compiler, mode, profiler or subclass that is to see the op."""
        return not (
            torch.compiler.is_compiling()
            or self.twin
            or given["logits"].device.type != "cpu"
            or any(type(given[name]) not in (Tensor, nn.Parameter) for name in self.tensors)
            or torch._C._len_torch_dispatch_stack()
            or torch.autograd._profiler_enabled()
        )

    def direct(self, *inputs: Any) -> tuple[Tensor, ...] | None:
        """The CPU kernel without PyTorch's dispatcher, which takes as long again as the kernel for a small batch."""
        results = self.on_cpu(*inputs)
        if self.updates_table:
            given = dict(zip((*self.names, *self.settings), inputs, strict=True))
            for tensor in (given["targets"], given["visits"]):
                if tensor is not None and not tensor.is_inference():
                    torch.autograd.graph.increment_version(tensor)
        return results

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

    def on_cpu(self, *inputs: Any) -> tuple[Tensor, ...] | None:
        """Run the CPU kernel: C++ takes all but a table that is a shard or of half precision, of which it gets rows."""
        given = self.bind(inputs)
        try:
            if self.twin is None and (not self.has_table or (given["visits"] is None and given["world"] == 1)):
                return self.run_rule(**given) or None
            kernel = self.twin or (lambda *named: self.run_rule(**dict(zip(self.names, named, strict=True))))
            return on_kept_rows(kernel, self.names, given) or None
        except (IndexError, RuntimeError):  # a label or index is out of range: nothing was updated
            self.check_ranges(given)
            raise

    def run_rule(self, ignore_index: int | None = None, update: bool = True, **given: Any) -> tuple[Tensor, ...]:
        """Run the C++ rule on the op's arguments."""
        options = tuple(given[name] for name in self.options)
        return cpu.run(self.name, given, options, ignore_index, update and self.updates_table, self.loss)

    def launch(self, launch: Callable[..., Any], rule: Any, inputs: tuple[Any, ...], **geometry: Any) -> Any:
        """Run the Triton launcher on the op's arguments."""
        given = self.bind(inputs)
        options = tuple(given.pop(name) for name in self.options)
        results = launch(rule, **given, options=options, **geometry)
        if "attention" not in given:
            return results or None
        loss, gradient = results
        logits, attention = given["logits"], given["attention"]
        parts = gradient.split((logits.numel(), attention.numel()))
        return loss, parts[0].to(logits.dtype, copy=True).view(logits.shape), parts[1].to(attention.dtype, copy=True)

    def check_inputs(self, given: dict[str, Any]) -> None:
        """Refuse arguments of the wrong form."""
        self.check({name: given[name] for name in self.tensors})
        if self.has_table:
            self.check_table(given["logits"], given["targets"], given["visits"])

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
    """What computes each op on each device: `{"elr": {"cpu": "c++", "cuda": "triton"}, ...}`."""
    cuda = "triton" if find_spec("triton") else "unavailable (triton is not installed)"
    return {name: {"cpu": "c++" if name in OPS else "torch", "cuda": cuda} for name in (*OPS, "select", "nt_xent")}
