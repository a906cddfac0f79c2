"""The sides of the losses' benchmark: each loss as the reference, its authors' code and the fused module compute it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnoise.losses import (
    APLLoss,
    CrossEntropyLoss,
    ELRLoss,
    GCELoss,
    NALLoss,
    SCELoss,
    SWCELoss,
    TargetLoss,
    reference,
)

STRENGTH, MOMENTUM = 3.0, 0.7
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Side = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

STATELESS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[], torch.nn.Module]]] = {
    "ce": (F.cross_entropy, CrossEntropyLoss),
    "swce": (lambda logits, labels: reference.swce(logits, labels).mean(), SWCELoss),
    "gce": (lambda logits, labels: reference.gce(logits, labels).mean(), GCELoss),
    "sce": (
        lambda logits, labels: reference.sce(logits, labels, alpha=0.1, beta=1.0).mean(),
        lambda: SCELoss(alpha=0.1, beta=1.0),
    ),
    "nce_mae": (lambda logits, labels: reference.apl(logits, labels).mean(), APLLoss),
}
LOSSES = (*STATELESS, "elr", "nal")


def table_rows(batch: int, num_classes: int) -> int:
    """N: 50,000 samples as in CIFAR, fewer where rows are so long that every side's table would not fit."""
    return max(4 * batch, min(50_000, 2**26 // num_classes))


def sides_of(loss: str, num_samples: int, num_classes: int, device: torch.device) -> dict[str, Side]:
    """The loss as every side computes it, each with a target table of its own."""

    def table() -> Tensor:
        return torch.full((num_samples, num_classes), 1 / num_classes, device=device)

    options: dict[str, Any] = {"strength": STRENGTH, "momentum": MOMENTUM}

    if loss in STATELESS:
        formula, make_module = STATELESS[loss]

        def plain(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
            return formula(logits.float(), labels)

        return {
            "reference": plain,
            "reference_compiled": compiled(plain),
            "fused": module_side(make_module().to(device)),
        }

    reference_table, authors_table, list_table = table(), table(), table()
    if loss == "elr":

        def by_reference(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
            losses, rows = reference.elr(logits.float(), labels, reference_table[index], **options)
            reference_table[index] = rows.detach()
            return losses.mean()

        def by_authors(
            logits: Tensor, labels: Tensor, index: Tensor | list[int], targets: Tensor = authors_table
        ) -> Tensor:
            logits = logits.float()
            probs = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
            fixed = probs.detach()
            targets[index] = MOMENTUM * targets[index] + (1 - MOMENTUM) * (fixed / fixed.sum(1, keepdim=True))
            regulariser = (1 - (targets[index] * probs).sum(1)).log().mean()
            return F.cross_entropy(logits, labels) + STRENGTH * regulariser

        def by_tensor(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
            return by_authors(logits, labels, index)

        def by_list(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
            return by_authors(logits, labels, index.tolist(), list_table)

        return {
            "reference": by_reference,
            "reference_compiled": compiled(by_reference),
            "authors_list": by_list,
            "authors": by_tensor,
            "authors_compiled": compiled(by_tensor),
            "fused": module_side(ELRLoss(num_samples, num_classes, **options).to(device)),
        }

    def nal_by_reference(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
        losses, rows = reference.nal(
            logits.float(), attention.float(), labels, reference_table[index], variant="code", **options
        )
        reference_table[index] = rows.detach()
        return losses.mean()

    def nal_by_authors(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
        probs = logits.float().softmax(1).clamp(1e-12, 1 - 1e-12)
        tau = attention.float().sigmoid().clamp(1e-12, 1 - 1e-12)
        authors_table[index] = MOMENTUM * authors_table[index] + (1 - MOMENTUM) * probs.detach()
        authors_table.clamp_(1e-4, 1)  # theirs makes a new table; in place it is faster, and can be captured
        targets = authors_table[index]
        mixed = (tau[:, None] * probs + (1 - tau[:, None]) * targets).clamp(1e-7, 1)
        return -(targets * mixed.log()).sum(1).mean() - STRENGTH * tau.log().mean()

    return {
        "reference": nal_by_reference,
        "reference_compiled": compiled(nal_by_reference),
        "authors": nal_by_authors,
        "authors_compiled": compiled(nal_by_authors),
        "fused": module_side(NALLoss(num_samples, num_classes, variant="code", **options).to(device)),
    }


def compiled(side: Side) -> Side:
    return torch.compile(side, fullgraph=True, dynamic=False)


def module_side(module: torch.nn.Module) -> Side:
    if isinstance(module, TargetLoss):
        module.targets.fill_(1 / module.targets.shape[1])  # as the other sides' tables: no row that was never updated
    needs_attention = isinstance(module, NALLoss)
    return lambda logits, labels, index, attention: module(
        logits, labels, index, *([attention] if needs_attention else [])
    )


def kernel_side(
    loss: str,
    num_samples: int,
    num_classes: int,
    device: torch.device,
    geometry: tuple[int, int, int] | None = None,
    hold: bool | None = None,
    keep: dict[str, Tensor] | None = None,
) -> Side:
    """The kernel of "elr", "nal", "swce" or "ce" and nothing around it: loss, gradient and targets by one launch.

    Args:
        geometry: rows per program, columns per stretch and warps; None takes the kernel's own choice.
        hold: as `fastnoise.kernels.row.launch` takes it.
        keep: gets the table, if there is one, and the gradient of every call.
    """
    from fastnoise.kernels import row, rules

    rule = getattr(rules, loss.upper())
    given: dict[str, Any] = {"geometry": geometry, "hold": hold, "reduction": "mean"}
    if loss in ("elr", "nal"):
        given["targets"] = torch.full((num_samples, num_classes), 1 / num_classes, device=device)
        given["knobs"] = torch.tensor([1.0, MOMENTUM, STRENGTH], device=device)
    given["options"] = {"elr": (), "ce": (), "swce": (False,), "nal": (True, 0.0, 0.0)}[loss]

    def side(logits: Tensor, labels: Tensor, index: Tensor, attention: Tensor) -> Tensor:
        table: dict[str, Any] = {"index": index} if "targets" in given else {}
        heads: dict[str, Any] = {"attention": attention.detach()} if loss == "nal" else {}
        result = row.launch(rule, logits.detach(), labels, gradient_scale=1 / len(logits), **given, **table, **heads)
        if keep is not None:
            keep.update({"gradient": result[1]} | ({"targets": given["targets"]} if table else {}))
        return result[0]

    return side
