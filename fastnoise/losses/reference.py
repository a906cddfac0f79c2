"""The losses as their papers write them, in plain PyTorch with autograd: the ground truth for tests and benchmarks.

Every function takes logits [B, C] of any floating dtype (float64 for a reference) and labels [B] int64, and returns
the loss per sample [B]. Those without targets also take soft labels [B, C] of a floating dtype; the modules compute
soft labels with them, in float32. Functions with targets take the batch's rows of the target table [B, C] and return
`(loss, new rows)`; the caller writes the rows back. No gradient flows into targets. A sample with a logit of NaN or
+inf keeps its row. The options are those of the modules in `fastnoise.losses`, which cite the papers.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def label_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y [B]."""
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]


def of_label(log_probs: Tensor, labels: Tensor, loss: Callable[[Tensor], Tensor] = torch.neg) -> Tensor:
    """The loss [B] of the label, a function of its log p; for soft labels [B, C] the sum of labels_k loss(log p_k).

    A class whose label is 0 adds nothing, even if its log p is -inf.
    """
    if labels.is_floating_point():
        return (labels * loss(log_probs.masked_fill(labels == 0, 0))).sum(1)
    return loss(log_probs.gather(1, labels[:, None]))[:, 0]


def as_rows(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels as rows [B, C] in the logits' dtype: one-hot, or soft as they are."""
    rows = labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])
    return rows.to(logits.dtype)


def ce(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, -log p_y; labels may be soft, [B, C]."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def swce(logits: Tensor, labels: Tensor, *, weight: str = "detached") -> Tensor:
    """Softmax-weighted cross-entropy, -p_y log p_y; `weight` "detached" holds the factor p_y fixed."""

    def loss(log_probs: Tensor) -> Tensor:
        probs = log_probs.exp()
        return -(probs.detach() if weight == "detached" else probs) * log_probs

    return of_label(logits.log_softmax(1), labels, loss)


def gce(logits: Tensor, labels: Tensor, *, q: float = 0.7, k: float = 0.0) -> Tensor:
    """(1 - p_y^q) / q, constant if p_y <= k."""

    def loss(log_probs: Tensor) -> Tensor:
        powers = (q * log_probs).exp()  # p^q would have an infinite slope at p = 0
        return (1 - (torch.where(log_probs > math.log(k), powers, k**q) if k > 0 else powers)) / q

    return of_label(logits.log_softmax(1), labels, loss)


def sce(logits: Tensor, labels: Tensor, *, alpha: float, beta: float, variant: str = "code") -> Tensor:
    """alpha * CE + beta * RCE, with the authors' clamps or the paper's A = -4 for log 0."""
    probs, rows = logits.softmax(1), as_rows(labels, logits)
    if variant == "paper":
        return alpha * of_label(logits.log_softmax(1), labels) + beta * reverse_ce(probs, rows, -4.0)
    forward = -(rows * probs.clamp(min=1e-7).log()).sum(1)
    return alpha * forward + beta * reverse_ce(probs, rows, math.log(1e-4))


def reverse_ce(probs: Tensor, rows: Tensor, log_zero: float) -> Tensor:
    """-sum_k p_k log y_k, with the logarithms of y at least `log_zero`."""
    return -(probs * rows.log().clamp(min=log_zero)).sum(1)


def mae(logits: Tensor, labels: Tensor, *, form: str = "l1") -> Tensor:
    """sum_k |p_k - y_k|, or half of it."""
    distance = (logits.softmax(1) - as_rows(labels, logits)).abs().sum(1)
    return distance if form == "l1" else distance / 2


def focal_of(log_probs: Tensor, gamma: float, variant: str = "paper") -> Tensor:
    """The focal loss that each class would have as the label, from its log p, in any shape; variant "code" holds
    (1 - p)^gamma fixed."""
    smallest = torch.finfo(log_probs.dtype).tiny  # the slope at p = 1 may be infinite
    factor = (1 - log_probs.exp()).clamp(min=smallest) ** gamma
    return -(factor.detach() if variant == "code" else factor) * log_probs


def focal(logits: Tensor, labels: Tensor, *, gamma: float = 0.5, variant: str = "paper") -> Tensor:
    """-(1 - p_y)^gamma log p_y."""
    return of_label(logits.log_softmax(1), labels, partial(focal_of, gamma=gamma, variant=variant))


def nfl(logits: Tensor, labels: Tensor, *, gamma: float = 0.5, variant: str = "paper") -> Tensor:
    """The focal loss over the sum of those of all classes."""
    return focal(logits, labels, gamma=gamma, variant=variant) / focal_of(logits.log_softmax(1), gamma, variant).sum(1)


def nce(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y / sum_k log p_k."""
    log_probs = logits.log_softmax(1)
    return -of_label(log_probs, labels) / log_probs.sum(1)


def apl(
    logits: Tensor,
    labels: Tensor,
    *,
    active: str = "nce",
    passive: str = "mae",
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 0.5,
    mae: str = "reduced",
    log_zero: float = math.log(1e-4),
    variant: str = "paper",
) -> Tensor:
    """alpha * active + beta * passive."""
    soft = labels.is_floating_point()
    distance = mean_error(logits, labels, form="reduced") if soft else 1 - label_probs(logits, labels)
    second = (2 if mae == "l1" else 1) * distance if passive == "mae" else -log_zero * distance
    if soft and passive == "rce":
        second = reverse_ce(logits.softmax(1), labels.to(logits.dtype), log_zero)
    if active in ("ce", "nce"):
        return alpha * {"ce": ce, "nce": nce}[active](logits, labels) + beta * second
    return alpha * {"focal": focal, "nfl": nfl}[active](logits, labels, gamma=gamma, variant=variant) + beta * second


mean_error = mae  # `apl` has an option of this name
KERAS_CLIP = 1e-7, 1 - 1e-7
"""The range to which Keras clips probabilities. `torch.Tensor.clamp` has no gradient outside it either."""


def bootstrap(
    logits: Tensor,
    labels: Tensor,
    *,
    kind: str = "soft",
    beta: float | None = None,
    target: str = "literal",
    variant: str = "paper",
) -> Tensor:
    """Cross-entropy on beta * y + (1 - beta) * p, or the one-hot of the most probable class for p."""
    log_probs, num_classes = logits.log_softmax(1), logits.shape[1]
    if variant == "code":
        log_probs = logits.softmax(1).clamp(*KERAS_CLIP).log()
    chosen = log_probs.exp() if kind == "soft" else F.one_hot(logits.argmax(1), num_classes).to(logits.dtype)
    beta = (0.95 if kind == "soft" else 0.8) if beta is None else beta
    if target == "detached":
        chosen = chosen.detach()
    return of_label(log_probs, beta * as_rows(labels, logits) + (1 - beta) * chosen)


def forward(logits: Tensor, labels: Tensor, transition: Tensor, *, variant: str = "paper") -> Tensor:
    """-log (T^T p)_y."""
    probs = logits.softmax(1)
    probs = probs.clamp(*KERAS_CLIP) if variant == "code" else probs
    likelihood = probs @ transition.to(logits.dtype)
    if labels.is_floating_point():
        return of_label(likelihood.clamp(min=torch.finfo(logits.dtype).tiny).log(), labels)
    return -likelihood.gather(1, labels[:, None])[:, 0].log()


def updatable(logits: Tensor) -> Tensor:
    """The samples [B, 1] whose logits are neither NaN nor +inf; -inf is a masked class."""
    return (logits.detach() < math.inf).all(1, keepdim=True)


def elr_regulariser(logits: Tensor, rows: Tensor) -> Tensor:
    """log(1 - <p, t>) with the authors' clamp of the probabilities."""
    return (1 - (rows * logits.softmax(1).clamp(1e-4, 1 - 1e-4)).sum(1)).log()


def elr(
    logits: Tensor, labels: Tensor, rows: Tensor, *, strength: float, momentum: float, update: bool = True
) -> tuple[Tensor, Tensor]:
    """Early-learning regularisation (Liu et al. 2020), Eq. 6 and 9, with the authors' clamp of the probabilities."""
    if update:
        probs = logits.detach().softmax(1).clamp(1e-4, 1 - 1e-4)
        updated = momentum * rows + (1 - momentum) * (probs / probs.sum(1, keepdim=True))
        rows = torch.where(updatable(logits), updated, rows)
    return ce(logits, labels) + strength * elr_regulariser(logits, rows), rows


def update_targets(logits: Tensor, rows: Tensor, *, momentum: float) -> Tensor:
    """The rows that ELRPlusLoss.update_targets leaves."""
    return torch.where(updatable(logits), momentum * rows + (1 - momentum) * logits.detach().softmax(1), rows)


def elr_plus(
    logits: Tensor,
    labels: Tensor,
    pair_labels: Tensor,
    share: Tensor,
    rows: Tensor,
    pair_rows: Tensor,
    *,
    strength: float,
    target: str = "labels",
) -> Tensor:
    """ELR on mixup pairs: `rows` and `pair_rows` [B, C] are both samples' targets, `share` [B] the first one's."""
    num_classes, share = logits.shape[1], share[:, None]
    mixed = share * rows + (1 - share) * pair_rows
    labels_mixed = share * F.one_hot(labels, num_classes) + (1 - share) * F.one_hot(pair_labels, num_classes)
    if target == "weighted":
        labels_mixed = labels_mixed * mixed
        labels_mixed = labels_mixed / labels_mixed.sum(1, keepdim=True)
    return -(labels_mixed * logits.log_softmax(1)).sum(1) + strength * elr_regulariser(logits, mixed)


def from_one_hot(labels: Tensor, rows: Tensor) -> Tensor:
    """Rows of zeros stand for the one-hot of the label."""
    unvisited = rows.sum(1, keepdim=True) == 0
    return torch.where(unvisited, F.one_hot(labels, rows.shape[1]).to(rows.dtype), rows)


def selc(
    logits: Tensor, labels: Tensor, rows: Tensor, *, momentum: float, update: bool = True
) -> tuple[Tensor, Tensor]:
    """Self-ensemble label correction (Lu & He 2022). If `update` is False, rows of zeros are returned as zeros."""
    targets = from_one_hot(labels, rows)
    if update:
        updated, kept = momentum * targets + (1 - momentum) * logits.detach().softmax(1), updatable(logits)
        rows, targets = torch.where(kept, updated, rows), torch.where(kept, updated, targets)
    return -(targets * logits.log_softmax(1)).sum(1), rows


SOP_BATCH = 128
"""Samples over which the authors of SOP take the mean of the loss whose gradient, times the rates, moves u and v."""


def sop_sides(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """p + U - V [B, C], what SOP's P is made of.

    `rows` [B, C] hold u in the column of the label and v in the others. Gradient flows to u and to logits, not to v.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    one_hot = (labels[:, None] == classes).to(logits.dtype)  # F.one_hot would wait for the device
    squares = rows.square()
    of_label, of_classes = (squares * one_hot).clamp(0, 1), (squares.detach() * (1 - one_hot)).clamp(0, 1)
    return logits.softmax(1) + of_label - of_classes


def sop_shares(sides: Tensor) -> Tensor:
    """P [B, C] of `sop_sides`: at least 1e-4, normalised, and at least 1e-4 once more."""
    return F.normalize(sides.clamp(min=1e-4), p=1.0, eps=1e-4).clamp(1e-4, 1)


def sop(
    logits: Tensor, labels: Tensor, rows: Tensor, *, rate_u: float, rate_v: float, update: bool = True
) -> tuple[Tensor, Tensor]:
    """Sparse over-parameterization (Liu et al. 2022): -log P_y + |H + U - V - y|^2, H the one-hot of the prediction.

    New rows are those of one step of gradient descent on the loss, divided by 128 (`SOP_BATCH`).
    """
    before = rows.detach().clone().requires_grad_()
    with torch.enable_grad():
        one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        predicted = F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
        noise = (before.square() * one_hot).clamp(0, 1) - (before.square() * (1 - one_hot)).clamp(0, 1)
        loss = -sop_shares(sop_sides(logits, labels, before)).gather(1, labels[:, None])[:, 0].log()
        loss = loss + (predicted + noise - one_hot).square().sum(1)
        (gradient,) = torch.autograd.grad(loss.sum(), before, retain_graph=True)
    if update:
        step = torch.where(one_hot > 0, rate_u, rate_v) / SOP_BATCH * gradient
        rows = torch.where(updatable(logits), rows - step, rows)
    return loss, rows


def js(logits: Tensor, labels: Tensor, *, pi: float = 0.5, scaled: bool = True) -> Tensor:
    """The Jensen-Shannon divergence of the label and the prediction, with the weights pi and 1 - pi."""
    return gjs(logits, labels, pi=pi, scaled=scaled)


def gjs(logits: Tensor, labels: Tensor, *, pi: float = 0.5, scaled: bool = True) -> Tensor:
    """sum_k pi_k KL(q_k || m), m = sum_k pi_k q_k: q_1 is the label, the others are the predictions for V views, of
    logits [V B, C], view after view. Logarithms are of at least 1e-7."""
    views = logits.unflatten(0, (max(1, len(logits) // max(1, len(labels))), len(labels))).softmax(2)
    weight = (1 - pi) / len(views)
    found = [(pi, as_rows(labels, logits)), *((weight, probs) for probs in views)]
    log_mean = torch.stack([share * row for share, row in found]).sum(0).clamp(1e-7, 1).log()
    loss = torch.stack([share * (row * (row.clamp(min=1e-7).log() - log_mean)).sum(1) for share, row in found]).sum(0)
    return loss * (-1 / ((1 - pi) * math.log1p(-pi)) if scaled else 1.0)


def nal(
    logits: Tensor,
    attention: Tensor,
    labels: Tensor,
    rows: Tensor,
    *,
    strength: float,
    momentum: float,
    variant: str = "paper",
    reverse: float = 0.0,
    gate: float = 0.0,
    update: bool = True,
) -> tuple[Tensor, Tensor]:
    """Noise attention learning (Lu et al. 2022), Eq. 3 and 4; `attention` [B] is the logit h of Eq. 2.

    A row of zeros stands for the one-hot of the label. If `update` is False it is returned as zeros. A sample with an
    attention of NaN or +inf keeps its row too, and its loss is NaN.
    """
    code = variant == "code"
    finite = updatable(logits) & updatable(attention[:, None])
    tau = attention.sigmoid()[:, None]
    probs = logits.softmax(1)
    targets = from_one_hot(labels, rows)
    if code:
        tau, probs = tau.clamp(1e-12, 1 - 1e-12), probs.clamp(1e-12, 1 - 1e-12)
        targets = targets.clamp(1e-4, 1)
    if update:
        updated = momentum * targets + (1 - momentum) * probs.detach()
        updated = updated.clamp(1e-4, 1) if code else updated
        opened = (tau.detach() > gate) & finite
        rows, targets = torch.where(opened, updated, rows), torch.where(opened, updated, targets)
    mixed = tau * probs + (1 - tau) * targets
    if code:
        mixed = mixed.clamp(1e-7, 1)
    loss = -torch.special.xlogy(targets, mixed).sum(1) - strength * tau[:, 0].log()
    if reverse:
        loss = loss - reverse * (mixed * targets.clamp(min=1e-4).log()).sum(1)
    return loss * torch.where(finite, 1.0, math.nan)[:, 0], rows
