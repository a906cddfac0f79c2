"""Runs a loss module against `fastnoise.losses.reference` over several steps and measures how far apart they end up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastnoise import losses
from fastnoise.losses import reference

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STRENGTH, MOMENTUM = 3.0, 0.75  # exact in float32, as the ops take them
# Off first, so that unvisited rows are read before any update; off again later, so that visited rows are.
UPDATES = (False, True, True, False, True)

# By case: the op, the module, the reference, and the options of both.
CASES: dict[str, tuple[str, type[nn.Module], Callable, dict[str, Any]]] = {
    "ce": ("ce", losses.CrossEntropyLoss, reference.ce, {}),
    "ce-smooth": ("label_smoothing", losses.CrossEntropyLoss, reference.ce, {"label_smoothing": 0.1}),
    "ce-soft": ("soft_ce", losses.CrossEntropyLoss, reference.ce, {}),
    "swce": ("swce", losses.SWCELoss, reference.swce, {}),
    "swce-literal": ("swce", losses.SWCELoss, reference.swce, {"weight": "literal"}),
    "gce": ("gce", losses.GCELoss, reference.gce, {"q": 0.7}),
    "gce-truncated": ("gce", losses.GCELoss, reference.gce, {"q": 0.7, "k": 0.1}),
    "sce": ("apl", losses.SCELoss, reference.sce, {"alpha": 0.1, "beta": 1.0}),
    "sce-paper": ("apl", losses.SCELoss, reference.sce, {"alpha": 6.0, "beta": 0.1, "variant": "paper"}),
    "mae": ("apl", losses.MAELoss, reference.mae, {}),
    "mae-reduced": ("apl", losses.MAELoss, reference.mae, {"form": "reduced"}),
    "focal": ("apl", losses.FocalLoss, reference.focal, {"gamma": 0.5}),
    "focal-2": ("apl", losses.FocalLoss, reference.focal, {"gamma": 2.0}),
    "focal-code": ("apl", losses.FocalLoss, reference.focal, {"gamma": 2.0, "variant": "code"}),
    "nce": ("apl_normalised", losses.NCELoss, reference.nce, {}),
    "nfl": ("apl_normalised", losses.NFLLoss, reference.nfl, {"gamma": 0.5}),
    "nfl-code": ("apl_normalised", losses.NFLLoss, reference.nfl, {"gamma": 0.5, "variant": "code"}),
    "apl": ("apl_normalised", losses.APLLoss, reference.apl, {"alpha": 10.0}),
    "apl-nfl-rce": ("apl_normalised", losses.APLLoss, reference.apl, {"active": "nfl", "passive": "rce", "beta": 0.1}),
    "apl-focal-l1": ("apl", losses.APLLoss, reference.apl, {"active": "focal", "mae": "l1"}),
    "apl-nfl-code": ("apl_normalised", losses.APLLoss, reference.apl, {"active": "nfl", "variant": "code"}),
    "bootstrap": ("bootstrap_soft", losses.BootstrapLoss, reference.bootstrap, {}),
    "bootstrap-detached": ("bootstrap_soft", losses.BootstrapLoss, reference.bootstrap, {"target": "detached"}),
    "bootstrap-hard": ("bootstrap_hard", losses.BootstrapLoss, reference.bootstrap, {"kind": "hard"}),
    "bootstrap-code": ("bootstrap_soft", losses.BootstrapLoss, reference.bootstrap, {"variant": "code"}),
    "bootstrap-hard-code": (
        "bootstrap_hard",
        losses.BootstrapLoss,
        reference.bootstrap,
        {"kind": "hard", "variant": "code"},
    ),
    "forward": ("forward", losses.ForwardLoss, reference.forward, {}),
    "forward-code": ("forward_clipped", losses.ForwardLoss, reference.forward, {"variant": "code"}),
    "elr": ("elr", losses.ELRLoss, reference.elr, {}),
    "elr_plus": ("elr_plus", losses.ELRPlusLoss, reference.elr_plus, {}),
    "elr_plus-weighted": ("elr_plus", losses.ELRPlusLoss, reference.elr_plus, {"target": "weighted"}),
    "selc": ("selc", losses.SELCLoss, reference.selc, {}),
    "sop": ("sop", losses.SOPLoss, reference.sop, {"rate_u": 8.0, "rate_v": 12.0}),
    "nal": ("nal", losses.NALLoss, reference.nal, {}),
    "nal-code": ("nal", losses.NALLoss, reference.nal, {"variant": "code"}),
    "nal-reverse": ("nal", losses.NALLoss, reference.nal, {"reverse": 0.1, "gate": 0.4}),
    "nal-code-reverse": ("nal", losses.NALLoss, reference.nal, {"variant": "code", "reverse": 0.1, "gate": 0.4}),
}
RULES = tuple(CASES)
ONE_PER_OP = tuple({op: case for case, (op, *_) in reversed(CASES.items())}.values())
STATEFUL = tuple(case for case, (op, *_) in CASES.items() if op in ("elr", "elr_plus", "selc", "nal", "sop"))
DETACHED = ("swce", "bootstrap-detached", "focal-code", "nfl-code", "apl-nfl-code")
"""Cases that hold a factor of the loss fixed, which a difference quotient does not see."""


def transition_of(num_classes: int) -> Tensor:
    """Pair noise: zeros where no class turns into another."""
    return 0.7 * torch.eye(num_classes) + 0.3 * torch.eye(num_classes).roll(1, 1)


def soft_labels_of(labels: Tensor, num_classes: int) -> Tensor:
    rest = torch.full((len(labels), num_classes), 0.2 / num_classes, device=labels.device)
    return rest.scatter_(1, labels[:, None], 0.8)


def pair_of(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, indices and shares of a mixup batch; some samples are mixed with one of their own label."""
    position = torch.ones_like(labels).cumsum(0) - 1  # torch.linspace would fix the batch size of a compiled call
    return labels.flip(0), index.flip(0), 1 - position / position[-1:].clamp(min=1)


def build(rule: str, num_samples: int, num_classes: int, reduction: str = "none", **common: Any) -> nn.Module:
    op, module, _, options = CASES[rule]
    options = options | {"reduction": reduction} | common
    if op in ("forward", "forward_clipped"):
        return module(transition_of(num_classes), **options)
    if op == "sop":
        loss = module(num_samples, num_classes, **options)
        table = torch.empty(num_samples, num_classes)
        torch.nn.init.uniform_(table, -1.2, 1.2, generator=torch.Generator().manual_seed(0))
        loss.targets.copy_(table[loss.shard[0] :: loss.shard[1]])  # as if learnt, with some at the bound of 1
        return loss
    if rule in STATEFUL:
        if op != "selc":
            options["strength"] = STRENGTH
        return module(num_samples, num_classes, momentum=MOMENTUM, **options)
    return module(**options)


def call(
    loss: Callable, rule: str, logits: Tensor, attention: Tensor, labels: Tensor, index: Tensor, **keywords: Any
) -> Tensor:
    """ELR+ also updates its targets, from other logits, as its other network would."""
    op = CASES[rule][0]
    if op == "nal":
        return loss(logits, labels, index, attention, **keywords)
    if op == "elr_plus":
        loss.update_targets(logits.detach().flip(0), index)
        return loss(logits, labels, index, *pair_of(labels, index), **keywords)
    if op == "soft_ce":
        labels = soft_labels_of(labels, logits.shape[1])
    return loss(logits, labels, index, **keywords)


def call_reference(
    rule: str, logits: Tensor, attention: Tensor, labels: Tensor, index: Tensor, table: Tensor, update: bool
) -> Tensor:
    """The reference's loss per sample; writes the batch's rows of `table`."""
    op, _, function, options = CASES[rule]
    if op in ("forward", "forward_clipped"):
        return function(logits, labels, transition_of(logits.shape[1]).to(logits.device), **options)
    if op == "soft_ce":
        return function(logits, soft_labels_of(labels, logits.shape[1]).to(logits.dtype))
    if op == "elr_plus":
        if update:
            table[index] = reference.update_targets(logits.flip(0), table[index], momentum=MOMENTUM)
        pair_labels, pair_index, share = pair_of(labels, index)
        rows = share.to(table.dtype), table[index], table[pair_index]
        return function(logits, labels, pair_labels, *rows, strength=STRENGTH, **options)
    if rule not in STATEFUL:
        return function(logits, labels, **options)
    options = options | {"update": update}
    if op != "sop":
        options["momentum"] = MOMENTUM
    if op not in ("selc", "sop"):
        options["strength"] = STRENGTH
    inputs = (logits, attention, labels) if op == "nal" else (logits, labels)
    loss, rows = function(*inputs, table[index], **options)
    table[index] = rows.detach()
    return loss


@dataclass(frozen=True)
class Errors:
    """Largest distance from the float64 reference over all steps.

    Losses relative to max(1, |loss|); gradients per row, relative to the row's norm; attention gradients relative to
    the batch's norm; targets absolute. `*_torch` is what autograd attains in fp32 arithmetic when it takes and returns
    the same dtypes.
    """

    loss: float
    gradient: float
    attention: float
    targets: float
    gradient_torch: float
    attention_torch: float


@dataclass(frozen=True)
class Batch:
    logits: Tensor
    attention: Tensor
    labels: Tensor
    index: Tensor
    upstream: Tensor


def batches(
    num_classes: int, dtype: torch.dtype, batch: int, num_samples: int, steps: int, seed: int = 0
) -> list[Batch]:
    random = torch.Generator().manual_seed(seed)
    return [
        Batch(
            logits=(3 * torch.randn(batch, num_classes, generator=random)).to(dtype),
            attention=(2 * torch.randn(batch, generator=random)).to(dtype),
            labels=torch.randint(num_classes, (batch,), generator=random),
            index=torch.randperm(num_samples, generator=random)[:batch],
            upstream=torch.randn(batch, generator=random),
        )
        for _ in range(steps)
    ]


def leaf(tensor: Tensor, device: str = "cpu") -> Tensor:
    return tensor.to(device).detach().requires_grad_()


def relative(error: Tensor, exact: Tensor) -> Tensor:
    """Each row's error relative to its norm; a row below the least normal numbers of fp32 counts as 1e-30."""
    norm = torch.linalg.vector_norm
    return norm(error, dim=-1) / norm(exact, dim=-1).clamp(min=1e-30)


def measure(
    rule: str,
    num_classes: int,
    dtype: str,
    *,
    batch: int = 9,
    device: str = "cpu",
    wrap: Callable[[nn.Module], Callable] = lambda loss: loss,
    exact_device: str = "cpu",
    steps: int = len(UPDATES),
) -> Errors:
    """So many steps of the loss module that `build` makes, called through `wrap(module)`.

    After each step the reference, which computes on `exact_device`, goes on from the table as the module has stored it,
    so that all inputs of a step are exact on both sides.
    """
    num_samples = 2 * batch + 1
    module = build(rule, num_samples, num_classes).to(device)
    loss_of = wrap(module)
    torch_table = torch.zeros(num_samples, num_classes, device=exact_device)
    if hasattr(module, "targets"):
        torch_table.copy_(module.targets)
    exact_table = torch_table.double()
    found: dict[str, list[float]] = {name: [0.0] for name in Errors.__annotations__}
    for step, data in enumerate(batches(num_classes, DTYPES[dtype], batch, num_samples, steps)):
        update = UPDATES[step]
        if hasattr(module, "set_update"):
            module.set_update(update)
        logits, attention = leaf(data.logits, device), leaf(data.attention, device)
        loss = call(loss_of, rule, logits, attention, data.labels.to(device), data.index.to(device))
        loss.backward(data.upstream.to(device))

        labels, index, upstream = (x.to(exact_device) for x in (data.labels, data.index, data.upstream))
        exact_logits, exact_attention = (leaf(x.double(), exact_device) for x in (data.logits, data.attention))
        exact = call_reference(rule, exact_logits, exact_attention, labels, index, exact_table, update)
        exact.backward(upstream.double())

        torch_logits, torch_attention = (leaf(x, exact_device) for x in (data.logits, data.attention))
        plain = call_reference(rule, torch_logits.float(), torch_attention.float(), labels, index, torch_table, update)
        plain.backward(upstream)

        assert loss.dtype == torch.float32
        assert logits.grad.dtype == data.logits.dtype
        difference = (loss.detach().to(exact_device).double() - exact.detach()).abs()
        found["loss"].append(float((difference / exact.detach().abs().clamp(min=1)).max()))
        for name, given, by_torch, true in (
            ("gradient", logits, torch_logits, exact_logits),
            ("attention", attention, torch_attention, exact_attention),
        ):
            if true.grad is not None:
                error = relative(given.grad.to(exact_device) - true.grad, true.grad)
                found[name].append(float(error.max()))
                found[f"{name}_torch"].append(float(relative(by_torch.grad - true.grad, true.grad).max()))
        if hasattr(module, "targets"):
            found["targets"].append(float((module.targets.to(exact_device).double() - exact_table).abs().max()))
            exact_table.copy_(module.targets)
            torch_table.copy_(module.targets)
    return Errors(**{name: max(values) for name, values in found.items()})


def assert_close(errors: Errors, dtype: str, *, interpreted: bool = False) -> None:
    """fp32 within 1e-5 of each row's norm, half precision within 4 times autograd's own error.

    Gradients are rounded to the logits' dtype twice, as stored and as scaled by the upstream gradient: by up to its eps
    in all, while autograd rounds once and may be lucky where few rows or entries make up the norm, as in truncated GCE.
    Triton's interpreter cuts bits off where a compiled kernel rounds to the nearest bfloat16: by up to 2 eps in all.
    """
    assert errors.loss < 1e-5, errors
    assert errors.targets < 1e-6, errors
    exact = dtype == "float32"
    rounding = torch.finfo(DTYPES[dtype]).eps
    rounding *= 2 if interpreted and dtype == "bfloat16" else 1
    assert errors.gradient <= (1e-5 if exact else max(rounding, 4 * errors.gradient_torch)), errors
    assert errors.attention <= (1e-5 if exact else max(rounding, 4 * errors.attention_torch)), errors


def saturated(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits whose p_y nears 0 and 1, up to where it underflows or rounds to them, and labels; then p_y = 1, p_y = 0,
    steps of thousands, and rows of equal logits, up to 1e4 in magnitude."""
    gaps = torch.tensor([-80.0, -40.0, -20.0, -10.0, 10.0, 16.0, 20.0, 40.0, 80.0])
    logits = torch.linspace(-1, 1, 10).repeat(len(gaps) + 6, 1)
    logits[: len(gaps), 3] = gaps
    logits[-6:] = 0.0
    logits[-6, 3] = logits[-5, 5] = 1e4
    logits[-4] = torch.linspace(-1e4, 1e4, 10)
    logits[-2], logits[-1] = 1e4, -1e4
    return logits.to(dtype), torch.full((len(logits),), 3)


def measure_saturated(rule: str, dtype: str) -> dict[str, Any]:
    """Three steps on saturated rows, by which the targets come to agree with the predictions; one, if there are none.

    Returns whether all losses, gradients and targets are finite, in how many rows of the last step the exact gradient
    and autograd's in fp32 are, and of all those rows the largest error relative to what is allowed: 4 times autograd's
    own, or 1e-5 (in half precision one rounding) of the row's norm. Below the least normal number the dtype has no
    precision left, below 1e-15 float64's own 1 - p_y.
    """
    given, labels = saturated(DTYPES[dtype])
    rows, attention = len(labels), torch.linspace(-6, 6, len(labels)).roll(4)
    index = torch.arange(rows)
    loss_of = build(rule, rows, 10)
    table = loss_of.targets.clone() if rule in STATEFUL else torch.zeros(rows, 10)
    tables = [table.double(), table]
    precision = 1e-5 if dtype == "float32" else torch.finfo(DTYPES[dtype]).eps
    tiny = max(torch.finfo(DTYPES[dtype]).smallest_normal, 1e-15)
    norm = torch.linalg.vector_norm
    finite, worst = True, 0.0
    for _ in range(3 if rule in STATEFUL else 1):
        found, head, exact, by_torch = leaf(given), leaf(attention), leaf(given.double()), leaf(given)
        loss = call(loss_of, rule, found, head, labels, index)
        loss.sum().backward()
        call_reference(rule, exact, attention.double(), labels, index, tables[0], update=True).sum().backward()
        call_reference(rule, by_torch.float(), attention, labels, index, tables[1], update=True).sum().backward()
        results = [loss, found.grad, *([] if head.grad is None else [head.grad]), *loss_of.buffers()]
        finite &= all(bool(result.isfinite().all()) for result in results)
        error = norm(found.grad - exact.grad, dim=1)
        allowed = torch.maximum(4 * norm(by_torch.grad - exact.grad, dim=1), precision * norm(exact.grad, dim=1)) + tiny
        known = exact.grad.isfinite().all(1) & allowed.isfinite()
        worst = max(worst, float((error / allowed)[known].max()))
    return {"finite": finite, "known": int(known.sum()), "worst": worst}


def assert_saturated(found: dict[str, Any]) -> None:
    assert found["finite"], found
    assert found["known"] >= 8, found
    assert found["worst"] <= 1, found
