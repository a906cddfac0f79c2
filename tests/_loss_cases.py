"""Runs a loss module against `fastnoise.losses.reference` over several steps and measures how far apart they end up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastnoise.losses import CrossEntropyLoss, ELRLoss, NALLoss, SWCELoss, reference

RULES = ("ce", "swce", "swce-literal", "elr", "nal", "nal-code")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STRENGTH, MOMENTUM = 3.0, 0.7
# Off first, so that unvisited rows are read before any update; off again later, so that visited rows are.
UPDATES = (False, True, True, False, True)


def build(rule: str, num_samples: int, num_classes: int, reduction: str = "none") -> nn.Module:
    name, _, variant = rule.partition("-")
    options = {"strength": STRENGTH, "momentum": MOMENTUM, "reduction": reduction}
    if name == "ce":
        return CrossEntropyLoss(reduction=reduction)
    if name == "swce":
        return SWCELoss(weight=variant or "detached", reduction=reduction)
    if name == "elr":
        return ELRLoss(num_samples, num_classes, **options)
    return NALLoss(num_samples, num_classes, variant=variant or "paper", **options)


def call(loss: Callable, rule: str, logits: Tensor, attention: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    return loss(logits, labels, index, *([attention] if rule.startswith("nal") else []))


def call_reference(
    rule: str, logits: Tensor, attention: Tensor, labels: Tensor, index: Tensor, table: Tensor, update: bool
) -> Tensor:
    """The reference's loss per sample; writes the batch's rows of `table`."""
    name, _, variant = rule.partition("-")
    if name == "ce":
        return reference.ce(logits, labels)
    if name == "swce":
        return reference.swce(logits, labels, weight=variant or "detached")
    options = {"strength": STRENGTH, "momentum": MOMENTUM, "update": update}
    if name == "elr":
        loss, rows = reference.elr(logits, labels, table[index], **options)
    else:
        loss, rows = reference.nal(logits, attention, labels, table[index], variant=variant or "paper", **options)
    table[index] = rows.detach()
    return loss


@dataclass(frozen=True)
class Errors:
    """Largest distance from the float64 reference over all steps.

    Losses relative to max(1, |loss|); gradients per row, relative to the row's norm but at least to 0.01 of the
    upstream gradient (see `relative`); attention gradients relative to the batch's norm; targets absolute. `*_torch`
    is what autograd attains in fp32 arithmetic when it takes and returns the same dtypes.
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


def relative(error: Tensor, exact: Tensor, upstream: Tensor) -> float:
    """Largest row error relative to the row's norm, or to 0.01 of the upstream gradient where that is more.

    A row is a difference of terms of the size of the upstream gradient. Where they cancel (p_y near 1, or p near t) no
    fp32 arithmetic keeps relative precision: autograd's own error relative to the norm then reaches 0.1.
    """
    norm = torch.linalg.vector_norm
    scale = torch.maximum(norm(exact, dim=-1), 0.01 * upstream.abs().double())
    return float((norm(error, dim=-1) / scale).max())


def measure(
    rule: str,
    num_classes: int,
    dtype: str,
    *,
    batch: int = 9,
    device: str = "cpu",
    wrap: Callable[[nn.Module], Callable] = lambda loss: loss,
) -> Errors:
    """Five steps of the loss module that `build` makes, called through `wrap(module)`."""
    num_samples = 2 * batch + 1
    module = build(rule, num_samples, num_classes).to(device)
    loss_of = wrap(module)
    exact_table = torch.zeros(num_samples, num_classes, dtype=torch.float64)
    torch_table = exact_table.float()
    found: dict[str, list[float]] = {name: [0.0] for name in Errors.__annotations__}
    for step, data in enumerate(batches(num_classes, DTYPES[dtype], batch, num_samples, len(UPDATES))):
        update = UPDATES[step]
        if hasattr(module, "set_update"):
            module.set_update(update)
        logits, attention = leaf(data.logits, device), leaf(data.attention, device)
        loss = call(loss_of, rule, logits, attention, data.labels.to(device), data.index.to(device))
        loss.backward(data.upstream.to(device))

        exact_logits, exact_attention = leaf(data.logits.double()), leaf(data.attention.double())
        exact = call_reference(rule, exact_logits, exact_attention, data.labels, data.index, exact_table, update)
        exact.backward(data.upstream.double())

        torch_logits, torch_attention = leaf(data.logits), leaf(data.attention)
        plain = call_reference(
            rule, torch_logits.float(), torch_attention.float(), data.labels, data.index, torch_table, update
        )
        plain.backward(data.upstream)

        assert loss.dtype == torch.float32
        assert logits.grad.dtype == data.logits.dtype
        difference = (loss.detach().cpu().double() - exact.detach()).abs()
        found["loss"].append(float((difference / exact.detach().abs().clamp(min=1)).max()))
        for name, given, by_torch, true in (
            ("gradient", logits, torch_logits, exact_logits),
            ("attention", attention, torch_attention, exact_attention),
        ):
            if true.grad is not None:
                upstream = data.upstream if name == "gradient" else torch.zeros(())
                found[name].append(relative(given.grad.cpu() - true.grad, true.grad, upstream))
                found[f"{name}_torch"].append(relative(by_torch.grad - true.grad, true.grad, upstream))
        if hasattr(module, "targets"):
            found["targets"].append(float((module.targets.cpu().double() - exact_table).abs().max()))
    return Errors(**{name: max(values) for name, values in found.items()})


def assert_close(errors: Errors, dtype: str) -> None:
    """fp32 within 1e-5, half precision within 4 times autograd's own error.

    The factor also covers fp32 where the problem itself is ill-conditioned: in ELR's log(1 - <p, t>) a target's
    rounding of 3e-8 is divided by 1 - <p, t>, which two confident classes bring to 0.01.
    """
    assert errors.loss < 1e-5, errors
    assert errors.targets < 1e-6, errors
    for error, by_torch in ((errors.gradient, errors.gradient_torch), (errors.attention, errors.attention_torch)):
        assert error <= max(1e-5 if dtype == "float32" else 0, 4 * by_torch), errors
