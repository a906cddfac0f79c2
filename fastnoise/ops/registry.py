"""Registration: turns a rule into a differentiable op that runs eagerly, compiled and captured.

An op is opaque to the compiler (`torch.library.custom_op`), declares the target table as mutated, and returns loss and
gradient as new tensors. It has no autograd formula, because PyTorch allows none for an op that mutates its arguments;
`Fused` wraps it instead. If an op runs during a backward pass, activation checkpointing is recomputing it, and it does
not update the targets.
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
from .tables import Placement, is_plain, on_gathered_rows, on_kept_rows, without_ignored

OPS: dict[str, "FusedOp"] = {}
"""The registered ops by name."""

BY_FULL_NAME: dict[str, "FusedOp"] = {}
"""The registered ops and users' own, by namespace::name."""


def find_op(full_name: str) -> "FusedOp":
    """The op with this name, for a loss that is unpickled."""
    if full_name not in BY_FULL_NAME:
        raise FastnoiseError(f"no op {full_name} is registered here: import the file that makes its rule first")
    return BY_FULL_NAME[full_name]


PLAIN = {Tensor, nn.Parameter}
WHOLE = Placement()

HALF = "float32, float16 or bfloat16"
PER_ROW = "[{B}], one per row of logits"
POSITIONS = "B", (torch.int64,), f"int64 {PER_ROW}"
FORMS: dict[str, tuple[str | None, tuple[torch.dtype, ...], str]] = {
    "attention": ("B", LOGIT_DTYPES, f"{HALF} {PER_ROW}"),
    "labels": POSITIONS,
    "index": POSITIONS,
    "pair_labels": POSITIONS,
    "pair_index": POSITIONS,
    "share": ("B", LOGIT_DTYPES, f"{HALF} [] or {PER_ROW}"),
    "soft_labels": ("BC", LOGIT_DTYPES, f"{HALF} [{{B}}, {{C}}], as logits"),
    "columns": ("CC", (torch.float32,), "float32 [{C}, {C}]"),
    "targets": (None, (), ""),  # `check_table`
    "knobs": ("3", (torch.float32,), "float32 [3]: update flag, momentum, strength"),
}
"""For each of an op's tensors: the shape, with a letter per size, the dtypes, and both in words."""


class Fused(torch.autograd.Function):
    """The op computes the gradient together with the loss and reduces both; the backward pass only scales the gradient.

    The scaling is done in fp32, whatever the dtypes. It is left out if the upstream gradient is known to be one
    (`fastnoise.ops.unit`, `is_one`). Until the backward pass the gradient is kept in the logits' dtype. float16 drops
    entries below 6e-8 before a loss scale can raise them, so the factor 1/B of a mean is applied only in the backward
    pass. bfloat16 has the exponents of float32 and drops nothing.

    Args:
        op: returns loss and gradient.
        on_host: whether the CPU computes them now, and nothing but this call takes part.
        mean: whether the op itself forms the mean.
        inputs: of the op: the logits first, then the attention logit if there is one, then those that the op is not yet
            bound to.
    """

    @staticmethod
    def forward(ctx: Any, op: Any, on_host: bool, mean: bool, has_attention: bool, *inputs: Any) -> Tensor:
        loss: Tensor
        loss, gradient = op(*inputs)
        ctx.save_for_backward(gradient)
        ctx.mean, ctx.constants, ctx.is_unit = mean, (None,) * (len(inputs) - 1 - has_attention), False
        ctx.shape = inputs[0].shape
        ctx.dtypes = (inputs[0].dtype, inputs[1].dtype) if has_attention else None
        ctx.on_host = on_host
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # The decorator takes microseconds, and does nothing where no second derivative is asked for.
        return scaled_once(ctx, upstream) if torch.is_grad_enabled() else scaled(ctx, upstream)


def scaled(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    """What `Fused` returns in its backward pass."""
    (gradient,) = ctx.saved_tensors
    unscaled = ctx.mean and gradient.dtype == torch.float16
    reduced = upstream.dim() == 0
    if reduced and (unscaled or not (ctx.is_unit or is_one(ctx, upstream))):
        gradient = in_fp32(gradient, upstream / ctx.shape[0] if unscaled else upstream)
    if ctx.dtypes is None:
        return None, None, None, None, gradient if reduced else in_fp32(gradient, upstream[:, None]), *ctx.constants
    num_rows, num_classes = ctx.shape
    logits, attention = gradient[: num_rows * num_classes], gradient[num_rows * num_classes :]
    logits = logits.view(num_rows, num_classes)
    if not reduced:
        logits, attention = in_fp32(logits, upstream[:, None]), in_fp32(attention, upstream)
    return None, None, None, None, logits.to(ctx.dtypes[0]), attention.to(ctx.dtypes[1]), *ctx.constants


scaled_once = once_differentiable(scaled)


def is_one(ctx: Any, upstream: Tensor) -> bool:
    """Whether the upstream gradient is one, so that the saved gradient itself can be returned.

    False on a GPU, where looking would make the step wait. False too if the graph is retained: it would keep the saved
    gradient, and whoever got it could write to it.
    """
    if not ctx.on_host or type(upstream) is not Tensor:
        return False
    return not torch._C._autograd._get_current_graph_task_keep_graph() and upstream.item() == 1


def in_fp32(gradient: Tensor, factor: Tensor) -> Tensor:
    """The gradient times a float32 factor, in the gradient's dtype, rounded once. PyTorch would first round a factor
    without dimensions to that dtype."""
    if gradient.dtype == torch.float32:
        return gradient * factor
    return torch.mul(gradient, factor if factor.dim() else factor.view(1), out=torch.empty_like(gradient))


@cache
def load_kernels() -> Any:
    """The Triton launcher and rules. This is the only import of Triton; the first call on a CUDA device makes it."""
    if find_spec("triton") is None:
        raise FastnoiseError(
            "losses on a CUDA device need triton: pip install triton, or move model and loss to the CPU"
        )
    return import_module("fastnoise.kernels.row").launch, import_module("fastnoise.kernels.rules")


class FusedOp:
    """A fused loss as a function: `op(logits, labels, ..., *options) -> loss`, per row or reduced.

    It is differentiable once, in logits and attention, and updates `targets` in place. It registers
    `torch.ops.fastnoise.<name>` with the rules of that name for CUDA (Triton) and the CPU (C++), and with a fake kernel
    for tracing. The registered op returns loss and gradient, as `fastnoise.ops.cpu.run` describes them. If the rule has
    no loss, the op only updates and returns nothing.

    Args:
        name: of the op. Its rules are `fastnoise.kernels.rules.<NAME>` and the one in csrc/core/losses/rules.hpp.
        tensors: names of tensors that `fastnoise.kernels.row.launch` takes, in the op's order: "logits" first, then
            "attention" if the rule reads it. "targets!" is updated, "targets" only read.
        options: the parameters that follow, as in a schema ("bool code, float reverse"). They are constants, the rule's
            OPTIONS.
        loss: whether the rule has a loss.
        twin: the CPU kernel of a rule that C++ doesn't know, with the op's tensors and options as parameters. Returns
            loss [B] and gradient [B, C], float32.
        namespace: the op is `torch.ops.<namespace>.<name>`. `OPS` lists only those of fastnoise.
        listed: whether it is among `OPS`.
        find_rule: takes the module of the built-in rules and returns the rule. Called for calls on a CUDA device.
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
        listed: bool = True,
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
        self.has_attention = "attention" in self.tensors
        parameters = [f"Tensor{'(a!)' if x == 'targets!' else ''} {x.removesuffix('!')}" for x in tensors.split()]
        parameters += [options] if options else []
        self.names = (*self.tensors, *self.options)
        self.forms = [(name, *FORMS[name]) for name in self.tensors[1:]]
        self.per_row = [name == "logits" or (FORMS[name][0] or "").startswith("B") for name in self.tensors]
        self.settings: dict[str, Any] = {"ignore_index": None, "reduction": "none"}
        # No defaults: PyTorch drops trailing arguments that equal theirs, and torch 2.11 then finds no `visits` whose
        # version to count up. Callers of the raw op append `settings.values()`.
        self.settings |= {"looks": None, "look_index": None}
        parameters += ["int? ignore_index", "str reduction", "Tensor(c!)? looks", "Tensor? look_index"]
        if self.has_table:
            self.settings |= {"update": self.updates_table, **Placement._field_defaults}
            visits = "Tensor(b!)?" if self.updates_table else "Tensor?"
            parameters += ["bool update", f"{visits} visits", "int rank", "int world", "int seed"]
        self.arguments = (*self.names, *self.settings)
        self.at = {name: position for position, name in enumerate(self.arguments)}
        self.written = [self.at[name] for name in (("targets", "visits") if self.updates_table else ())]
        self.written.append(self.at["looks"])
        returns = "Tensor, Tensor" if loss else ""

        def cuda(*inputs: Any) -> tuple[Tensor, ...] | None:
            launch, rules = load_kernels()
            with torch.cuda.device(inputs[0].device):
                return self.launch(launch, self.find_rule(rules), inputs)

        def checked_cpu(*inputs: Any) -> tuple[Tensor, ...] | None:
            self.check_inputs(inputs)
            return self.on_cpu(*inputs)

        def fake(*inputs: Any) -> tuple[Tensor, ...] | None:
            if not loss:
                return None
            logits, attention = inputs[0], inputs[1] if self.has_attention else None
            num_rows, num_classes = logits.shape
            reduced = inputs[self.at["reduction"]] != "none"
            values = logits.new_empty(() if reduced else (num_rows,), dtype=torch.float32)
            shape = (num_rows, num_classes) if attention is None else (num_rows * num_classes + num_rows,)
            return values, logits.new_empty(shape, dtype=cpu.gradient_dtype(logits, attention))

        self.op = torch.library.custom_op(
            f"{namespace}::{name}",
            cuda,
            mutates_args={"targets", "visits", "looks"} if self.updates_table else {"looks"},
            device_types="cuda",
            schema=f"({', '.join(parameters)}) -> ({returns})",
        )
        self.on_cuda = cuda
        self.op.register_kernel("cpu", checked_cpu)
        self.op.register_fake(fake)
        self.overload = getattr(getattr(torch.ops, namespace), name).default
        self.full_name = f"{namespace}::{name}"
        BY_FULL_NAME[self.full_name] = self
        if namespace == "fastnoise" and listed:
            OPS[name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold only the name: a process has one op of each name."""
        return find_op, (self.full_name,)

    def __call__(
        self,
        *inputs: Any,
        ignore_index: int | None = None,
        reduction: str = "none",
        looks: Tensor | None = None,
        look_index: Tensor | None = None,
        update: bool = True,
        placement: Placement | None = None,
        on_host: bool = False,
    ) -> Any:
        """The loss, float32: [B], or reduced [].

        Args:
            inputs: the op's tensors and options.
            ignore_index: rows with this label have loss and gradient 0, and their targets do not change.
            reduction: "none", "mean" or "sum". The mean divides by B, whatever is ignored.
            looks: where what is seen of each row's label is noted (`ops.looks`), in the rows `look_index` int64 [B], by
                default `index`. No tensor may be given twice, which a compiler would refuse.
            update: False: no target changes, whatever the knobs say.
            placement: how the table is stored, if it is not a whole table in float32.
            on_host: the table is in page-locked host memory, where the kernels of a CUDA device reach it.
        """
        inputs += (ignore_index, reduction, looks, look_index)
        if self.has_table:
            inputs += (update, *(placement or WHOLE))
        self.check_inputs(inputs, on_host)
        direct = self.can_be_direct(inputs)
        if not self.loss:
            return self.direct(*inputs) if direct else self.overload(*inputs)
        on_host = direct and inputs[0].is_cpu
        if direct:  # autograd takes longer the more arguments it is shown
            op, differentiable = lambda *_: self.direct(*inputs), inputs[: 1 + self.has_attention]
        else:
            op, differentiable = self.overload, inputs
        return Fused.apply(op, on_host, reduction == "mean", self.has_attention, *differentiable)

    def can_be_direct(self, inputs: tuple[Any, ...]) -> bool:
        """Whether nothing but this call takes part: no compiler, tracer, mode, profiler or subclass sees the op."""
        return not (
            torch.compiler.is_compiling()
            or self.twin
            or not (inputs[0].is_cpu or inputs[0].is_cuda)
            or not {type(tensor) for tensor in inputs[: len(self.tensors)]} <= PLAIN
            or torch._C._len_torch_dispatch_stack()
            or torch._C._is_tracing()
            or torch.autograd._profiler_enabled()
        )

    def compute(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        """Loss and gradient, as the registered op returns them, from inputs that `check_inputs` has passed."""
        return self.direct(*inputs) if self.can_be_direct(inputs) else self.overload(*inputs)

    def direct(self, *inputs: Any) -> tuple[Tensor, ...] | None:
        """Call the kernel without PyTorch's dispatcher. For a small batch on a CPU the dispatcher takes as long as the
        kernel, and on the host of a GPU longer than the launch."""
        results = self.on_cpu(*inputs) if inputs[0].is_cpu else self.on_cuda(*inputs)
        for tensor in [inputs[place] for place in self.written]:
            if tensor is not None and not tensor.is_inference():
                torch.autograd.graph.increment_version(tensor)
        return results

    def bind(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """The op's arguments by name, with the `update` that this call needs."""
        given = dict(zip(self.arguments, inputs, strict=True))
        inside_backward = torch._C._current_graph_task_id() != -1
        if self.has_table:
            given["update"] = given["update"] and self.updates_table and not inside_backward
        if inside_backward:
            given["looks"] = None
        elif given["looks"] is not None and given["look_index"] is None:
            given["look_index"] = given["index"]  # as it is: a table that is gathered below has places of its own
        if debug.on:
            self.check_ranges(given)
            if self.updates_table:
                check_distinct(self.name, without_ignored(given)["index"])
        return given

    def gradient_scale(self, given: dict[str, Any]) -> float:
        """The kernel's factor on the gradient: 1/B for a mean. In float16 it is 1, and `Fused` applies 1/B."""
        if given["reduction"] != "mean":
            return 1.0
        logits = given["logits"]
        num_rows = logits.shape[0]
        in_half = cpu.gradient_dtype(logits, given.get("attention")) == torch.float16
        return 1.0 if in_half or num_rows == 0 else 1.0 / num_rows

    def on_cpu(self, *inputs: Any) -> tuple[Tensor, ...] | None:
        """Run the CPU kernel. Of a table that is a shard or in half precision, C++ gets only the batch's rows."""
        given = self.bind(inputs)
        try:
            if self.twin:
                results = self.fold(given, *on_kept_rows(self.twin, self.names, given))
                note(given)
                return results
            if is_plain(given):
                return self.run_rule(given) or None
            return on_gathered_rows(self.run_rule, given) or None
        except (IndexError, RuntimeError):  # a label or index is out of range: nothing was updated
            self.check_ranges(given)
            raise

    def run_rule(self, given: dict[str, Any]) -> tuple[Tensor, ...]:
        """Run the C++ rule on the op's arguments."""
        return cpu.run(
            self.name,
            given,
            tuple([given[name] for name in self.options]),
            given["ignore_index"],
            given.get("update", False),
            self.loss,
            given["reduction"],
            self.gradient_scale(given),
        )

    def fold(self, given: dict[str, Any], loss: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Reduce a twin's losses and scale its gradient, as C++ and Triton do in their kernels."""
        if given["reduction"] != "none":
            loss = loss.mean() if given["reduction"] == "mean" else loss.sum()
        scale = self.gradient_scale(given)
        return loss, (gradient if scale == 1 else gradient * scale).to(given["logits"].dtype)

    def launch(self, launch: Callable[..., Any], rule: Any, inputs: tuple[Any, ...], **geometry: Any) -> Any:
        """Run the Triton launcher on the op's arguments."""
        given = self.bind(inputs)
        scale, options = self.gradient_scale(given), tuple(given.pop(name) for name in self.options)
        return launch(rule, **given, options=options, gradient_scale=scale, **geometry) or None

    def check_inputs(self, inputs: tuple[Any, ...], on_host: bool = False) -> None:
        """Refuse arguments of the wrong form. `on_host`: the table may be on the CPU, wherever the logits are."""
        self.check(inputs, on_host)
        if (looks := inputs[self.at["looks"]]) is not None:
            index = inputs[self.at["look_index"]]
            if index is None and "index" in self.tensors:
                index = inputs[self.at["index"]]
            check_looks(self.name, inputs[0], looks, index)
        if self.has_table:
            self.check_table(inputs[0], inputs[self.at["targets"]], inputs[self.at["visits"]], on_host)

    def check(self, inputs: tuple[Any, ...], on_host: bool = False) -> None:
        """Refuse tensors of the wrong form, from shape, dtype and device alone: nothing waits for the device."""
        for name, tensor in zip(self.tensors, inputs, strict=False):
            if not isinstance(tensor, Tensor):
                raise DataError(f"{self.name}: {name} is {type(tensor).__name__}; expected a tensor")
        logits = inputs[0]
        if logits.dim() != 2 or logits.shape[1] < 2 or logits.dtype not in LOGIT_DTYPES:
            refuse(self.name, "logits", logits, "float32, float16 or bfloat16 [B, C] with at least two classes")
        num_rows, num_classes = logits.shape
        on_cpu, device = logits.is_cpu, logits.device
        shapes = {"B": (num_rows,), "BC": (num_rows, num_classes), "CC": (num_classes, num_classes), "3": (3,)}
        for (name, kind, dtypes, expected), tensor in zip(self.forms, inputs[1:], strict=False):
            fits = kind is None or tensor.shape == shapes[kind] or (name == "share" and tensor.dim() == 0)
            if not fits or (kind is not None and tensor.dtype not in dtypes):
                # The sizes are filled in only here: to format a size in a traced function fixes it.
                refuse(self.name, name, tensor, expected.format(B=num_rows, C=num_classes))
            reached = tensor.is_cpu and (on_cpu or (on_host and name == "targets"))
            if not reached and tensor.device != device:
                raise DataError(f"{self.name}: {name} on {tensor.device}, logits on {device}; put both on one")
            if tensor.requires_grad and name != "attention":
                raise DataError(f"{self.name}: {name} requires a gradient, which this loss has none for; detach it")

    def check_table(self, logits: Tensor, targets: Tensor, visits: Tensor | None, on_host: bool = False) -> None:
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
            if visits.device != (targets if on_host else logits).device:
                raise DataError(f"{self.name}: visits on {visits.device}, logits on {logits.device}; put both on one")

    def check_ranges(self, given: dict[str, Any]) -> None:
        """DataError for a label or index that is out of range or belongs to another shard."""
        num_classes = given["logits"].shape[1]
        given = without_ignored({name: value for name, value in given.items() if name != "logits"})
        for name in ("labels", "pair_labels"):
            if name in given:
                check_range(self.name, "label", given[name], num_classes, "number of classes")
        for name in ("index", "pair_index"):
            if name in given:
                check_index(self.name, given[name], len(given["targets"]), given["rank"], given["world"])


def note(given: dict[str, Any]) -> None:
    """Note the looks of a twin, which knows of none, on the CPU."""
    if given["looks"] is None:
        return
    of = {name: given[name] for name in ("logits", "looks", "look_index")}
    if given["ignore_index"] is not None and "labels" in given:
        of["look_index"] = torch.where(given["labels"] == given["ignore_index"], -1, of["look_index"])
    cpu.run("look", of, (), None, False, False)


def check_looks(name: str, logits: Tensor, looks: Tensor, index: Tensor | None) -> None:
    """Refuse a table of looks of the wrong form, or one without the rows of the batch."""
    if (
        looks.dim() != 2
        or looks.shape[1] != 8
        or looks.dtype != torch.float32
        or not looks.is_contiguous()
        or looks.device != logits.device
    ):
        refuse(name, "looks", looks, f"contiguous float32 [N, 8] on {logits.device}")
    if index is None or index.shape != logits.shape[:1] or index.dtype != torch.int64 or index.device != logits.device:
        raise DataError(f"{name}: looks need look_index, int64 [{logits.shape[0]}] on {logits.device}")


def backends() -> dict[str, dict[str, str]]:
    """What computes each op on each device: `{"elr": {"cpu": "c++", "cuda": "triton"}, ...}`."""
    cuda = "triton" if find_spec("triton") else "unavailable (triton is not installed)"
    return {name: {"cpu": "c++" if name in OPS else "torch", "cuda": cuda} for name in (*OPS, "select", "nt_xent")}
