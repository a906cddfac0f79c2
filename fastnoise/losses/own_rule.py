"""Losses of your own: a Triton rule and the same loss in PyTorch become an op and a module like the built-in ones."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Unpack

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, FastnoiseError
from ..ops.registry import FusedOp
from ..ops.tables import is_finite
from .base import LabelLoss, TargetLoss
from .forms import Form, LossOptions

PLAIN = ("logits", "labels")
WITH_TARGETS = (*PLAIN, "rows", "momentum", "strength")


def rule(name: str, twin: Callable[..., Any], parts: Any = None) -> type["RuleLoss"] | type["TargetRuleLoss"]:
    """Make a fused loss of a Triton rule and its twin, the same loss in PyTorch; returns the class of the loss.

    This file makes two losses: one of the logits alone, and one that keeps a target per sample::

        import triton
        import triton.language as tl
        from fastnoise.kernels.rules import Rule
        from fastnoise.losses import rule


        def taylor(logits, labels):  # cross-entropy as a series in 1 - p_y, cut after two terms (Feng et al. 2020)
            missing = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
            return missing + missing**2 / 2


        @triton.jit
        def taylor_finish(
            label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
        ):
            loss = label_complement + 0.5 * label_complement * label_complement
            fall = tl.exp(label_log_prob) * (1.0 + label_complement)  # -dL/dl_y, where l = log p and dp_y/dl_y = p_y
            return loss, 0.0, fall, 0.0


        TaylorLoss = rule("mylab::taylor", taylor, Rule(finish=taylor_finish))


        def ensemble(logits, labels, rows, momentum, strength):  # temporal ensembling (Laine & Aila 2017)
            probs = logits.softmax(1)
            rows = momentum * rows + (1 - momentum) * probs.detach()
            label_probs = probs.gather(1, labels[:, None])[:, 0]
            return -label_probs.log() + strength * ((probs - rows) ** 2).sum(1), rows


        @triton.jit
        def ensemble_update(target, probs, total, label, momentum, OPTIONS: tl.constexpr):
            return momentum * target + (1.0 - momentum) * probs


        @triton.jit
        def ensemble_terms(
            probs, log_probs, complement, target, label, is_top, total, attention, OPTIONS: tl.constexpr
        ):
            gap = probs - target
            return gap * gap, 0.0, -gap * probs


        @triton.jit  # the falls of strength * sum_k (p_k - t_k)^2 are 2 * strength * (t_k - p_k) p_k
        def ensemble_finish(
            label_log_prob, label_complement, sum0, sum1, total, attention, strength, OPTIONS: tl.constexpr
        ):
            return -label_log_prob + strength * sum0, 0.0, 1.0, 2.0 * strength


        EnsembleLoss = rule(
            "mylab::ensemble",
            ensemble,
            Rule(finish=ensemble_finish, terms=ensemble_terms, num_sums=1, update=ensemble_update),
        )

    `TaylorLoss()` is called like CrossEntropyLoss, and `EnsembleLoss(num_samples, num_classes, strength=1.0,
    momentum=0.6)` like ELRLoss; they have the same options. The ops are torch.ops.mylab.taylor and .ensemble. The
    functions must be in a file, since Triton reads their source. They get fp32, or fp64 with up to four classes, so
    they must not name a dtype.

    On the CPU autograd differentiates the twin at each call. Check that the rule agrees with the twin before you trust
    a GPU: set TRITON_INTERPRET=1 before Triton is first imported, and call `fastnoise.kernels.row.launch(parts, logits,
    labels)` on CPU tensors. It returns loss and gradient.

    Args:
        name: of the op, "namespace::name" with a namespace of your own.
        twin: the loss in differentiable PyTorch, with these parameters: (logits, labels) -> loss [B], or for a loss
            with targets (logits, labels, rows, momentum, strength) -> (loss [B], new rows). It gets logits [B, C]
            float32, labels [B] int64, the batch's rows of targets [B, C] float32, and two floats; momentum is 1 if the
            targets must not change. No gradient flows into rows. New rows of samples with a logit of NaN or +inf are
            not stored.
        parts: the rule, as `fastnoise.kernels.rules` defines its parts. None if you have no Triton: the loss then works
            on the CPU only.

    Raises:
        ConfigError: the name is malformed or taken; a part is missing, has no use here, is not a Triton function or has
            other parameters; or the twin has other parameters.
        FastnoiseError: at the first call on a CUDA device without triton or without parts.
        DataError: at a call on the CPU, if the twin returns something else.
    """
    namespace, _, op_name = name.partition("::")
    if not re.fullmatch(r"[a-z]\w*::[a-z]\w*", name) or namespace == "fastnoise":
        raise ConfigError(f"rule {name!r}: give a name like 'mylab::taylor', with a namespace of your own")
    if hasattr(getattr(torch.ops, namespace), op_name):
        raise ConfigError(f"rule {name!r}: torch.ops.{namespace}.{op_name} exists already; give another name")
    parameters = tuple(inspect.signature(twin).parameters)
    if parameters not in (PLAIN, WITH_TARGETS):
        raise ConfigError(
            f"rule {name!r}: the twin takes ({', '.join(parameters)}); it must take ({', '.join(PLAIN)}), or with "
            f"targets ({', '.join(WITH_TARGETS)})"
        )
    has_targets = parameters == WITH_TARGETS
    if parts is not None:
        check_parts(name, parts, has_targets)

    def find_parts(rules: Any) -> Any:
        if parts is None:
            raise FastnoiseError(f"rule {name!r} has no Triton parts, only a twin: give parts, or move to the CPU")
        return parts

    tensors = "logits labels index targets! knobs" if has_targets else "logits labels"
    op = FusedOp(op_name, tensors, twin=twin_kernel(name, twin), namespace=namespace, find_rule=find_parts)
    base = TargetRuleLoss if has_targets else RuleLoss
    title = "".join(word.capitalize() for word in op_name.split("_")) + "Loss"
    return type(title, (base,), {"op": op, "__doc__": twin.__doc__ or base.__doc__, "__module__": twin.__module__})


class RuleLoss(LabelLoss):
    """A loss that `rule` made from a twin without targets. Arguments and call as every loss without targets."""

    op: FusedOp

    def __init__(self, **options: Unpack[LossOptions]):
        super().__init__(Form(self.op), {}, **options)


class TargetRuleLoss(TargetLoss):
    """A loss that `rule` made from a twin with targets. Arguments and call as ELRLoss."""

    op: FusedOp

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        return self.run_table(Form(self.op), logits, labels, index, labels=labels, weight=weight, update=update)


def check_parts(name: str, parts: Any, has_targets: bool) -> None:
    """Refuse parts that the skeleton cannot call, by comparison with those of the built-in rules."""
    rules = import_module("fastnoise.kernels.rules")
    if not isinstance(parts, rules.Rule):
        raise ConfigError(f"rule {name!r}: parts is {type(parts).__name__}; give a fastnoise.kernels.rules.Rule")
    if parts.step is not None:
        raise ConfigError(f"rule {name!r}: the part step is for fastnoise's own losses; give update in its place")
    needed = {"finish": True, "terms": parts.num_sums > 0, "update": has_targets}
    for part, is_needed in needed.items():
        if is_needed and getattr(parts, part) is None:
            raise ConfigError(f"rule {name!r}: the part {part} is missing; add it to its Rule")
    uses = {"gate": "attention", "blend": "pairs of labels", "kept": "attention", "update": "a twin with targets"}
    for part, needs in uses.items():
        if getattr(parts, part) is not None and not needed.get(part):
            raise ConfigError(f"rule {name!r}: the part {part} has no use without {needs}; leave it out")
    for part in ("finish", "terms", "prepare", "linear", "unite", "update"):
        function = getattr(parts, part)
        expected = ", ".join(getattr(rules.ELR, part).arg_names)
        names = getattr(function, "arg_names", None)
        if function is not None and (names is None or ", ".join(names) != expected):
            found = "is no @triton.jit function" if names is None else f"takes ({', '.join(names)})"
            raise ConfigError(f"rule {name!r}: the part {part} {found}; it must be one that takes ({expected})")


@contextmanager
def autograd_on() -> Iterator[None]:
    """Let autograd record inside an op's CPU kernel. PyTorch calls that kernel with autograd excluded from dispatch."""
    core = torch._C
    with torch.inference_mode(False), torch.enable_grad():
        excluded = core._dispatch_tls_local_exclude_set() - core.DispatchKeySet(core.DispatchKey.AutogradCPU)
        with core._ForceDispatchKeyGuard(core._dispatch_tls_local_include_set(), excluded):
            yield


def twin_kernel(name: str, twin: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The op's CPU kernel: the twin, differentiated by autograd. Returns loss [B] and gradient [B, C] in float32."""

    def kernel(logits: Tensor, labels: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
        with autograd_on():
            leaf = logits.to(torch.float32, copy=True).requires_grad_()
            if state:
                index, targets, knobs = state
                update, momentum, strength = knobs.tolist()
                before = targets.index_select(0, index)
                result = twin(leaf, labels.clone(), before.clone(), momentum if update else 1.0, strength)
                loss, rows = check_result(name, result, before)
            else:
                loss = check_loss(name, twin(leaf, labels.clone()), leaf)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        if state and update:
            updated = torch.where(is_finite(logits).all(1, keepdim=True), rows.detach().float(), before)
            targets.index_copy_(0, index, updated)
        return loss.detach().float(), gradient

    return kernel


def check_loss(name: str, loss: Any, leaf: Tensor) -> Tensor:
    expected = f"a differentiable floating-point loss [{len(leaf)}], one per row of logits"
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise DataError(f"rule {name!r}: the twin returns {type(loss).__name__} as loss; expected {expected}")
    if loss.shape != leaf.shape[:1] or not loss.requires_grad:
        state = "" if loss.requires_grad else " without a gradient"
        raise DataError(f"rule {name!r}: the twin returns a loss {list(loss.shape)}{state}; expected {expected}")
    return loss


def check_result(name: str, result: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise DataError(f"rule {name!r}: the twin returns {type(result).__name__}; expected a tuple (loss, new rows)")
    loss, new = result
    if not isinstance(new, Tensor) or new.shape != rows.shape:
        form = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise DataError(f"rule {name!r}: the twin returns {form} as new rows; expected {list(rows.shape)}")
    return check_loss(name, loss, rows), new
