"""The fused losses in plain PyTorch, as the ops' CPU kernels: the closed forms derived in `fastnoise.kernels.rules`.

Only the batch's rows of the target table are read and written, never the whole table, and arithmetic is in place where
it can be: a fresh [B, C] buffer of a megabyte costs more than the pass that fills it. Each function returns loss [B]
float32, d loss / d logits [B, C] in the logits' dtype and, for NAL, d loss / d attention [B] in its dtype.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Result = tuple[Tensor, ...]


# --- Losses of p_y alone: dL/dz_j = scale * (p_j - y_j), of which 1 - p_y is the sum of the other probabilities


class Label(NamedTuple):
    """Softmax as a loss of p_y needs it: all [B, 1] but `others`, the probabilities [B, C] with 0 for the label."""

    others: Tensor
    column: Tensor
    log_prob: Tensor
    complement: Tensor

    def gradient(self, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Uses up `others`."""
        if scale is not None:
            self.others.mul_(scale)
        own = self.complement if scale is None else self.complement * scale
        return self.others.scatter_(1, self.column, -own).to(dtype)


def of_label(logits: Tensor, labels: Tensor) -> Label:
    log_probs = torch.log_softmax(logits, 1, dtype=torch.float32)
    column = labels[:, None]
    log_prob = log_probs.gather(1, column)
    others = log_probs.exp_().scatter_(1, column, 0.0)
    complement = others.sum(1, keepdim=True)
    log_prob = torch.where(complement < 0.5, torch.log1p(-complement), log_prob).clamp_(min=-1e30)
    return Label(others, column, log_prob, complement)


def ce(logits: Tensor, labels: Tensor) -> Result:
    label = of_label(logits, labels)
    return -label.log_prob[:, 0], label.gradient(None, logits.dtype)


def swce(logits: Tensor, labels: Tensor, literal: bool) -> Result:
    label = of_label(logits, labels)
    weight = label.log_prob.exp()
    scale = (1 + label.log_prob) * weight if literal else weight
    return -(weight * label.log_prob)[:, 0], label.gradient(scale, logits.dtype)


def gce(logits: Tensor, labels: Tensor, q: float, k: float) -> Result:
    label = of_label(logits, labels)
    kept = label.log_prob > (math.log(k) if k > 0 else -math.inf)
    powered = (q * label.log_prob).exp()
    loss = -torch.expm1(q * (label.log_prob.clamp(min=math.log(k)) if k > 0 else label.log_prob)) / q
    return loss[:, 0], label.gradient(powered.mul_(kept), logits.dtype)


def focal(log_prob: Tensor, complement: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """-(1 - p)^gamma log p, and minus its derivative by log p."""
    modulation = complement**gamma
    ratio = torch.where(complement > 0, log_prob / complement, -1.0)
    return -modulation * log_prob, modulation * (1 - gamma * log_prob.exp() * ratio)


def apl(logits: Tensor, labels: Tensor, active: float, gamma: float, passive: float, floor: float) -> Result:
    label = of_label(logits, labels)
    loss, slope = focal(label.log_prob.clamp(min=floor), label.complement, gamma)
    scale = active * slope * (label.log_prob >= floor) + passive * label.log_prob.exp()
    return (active * loss + passive * label.complement)[:, 0], label.gradient(scale, logits.dtype)


# --- Losses of the whole row: dL/dz_j = p_j sum_k g_k - g_j, g_j = label_scale * y_j + row_scale * slope_j


class Row(NamedTuple):
    """Probabilities [B, C], their logarithms, the column of the largest [B, 1], one minus it, the labels' column."""

    probs: Tensor
    log_probs: Tensor
    top: Tensor
    rest: Tensor
    column: Tensor

    @property
    def label_log_prob(self) -> Tensor:
        return self.log_probs.gather(1, self.column)

    def complement(self) -> Tensor:
        return (1 - self.probs).scatter_(1, self.top, self.rest)

    def gradient(self, falls: Tensor, dtype: torch.dtype) -> Tensor:
        """Of the falls g [B, C]. Uses up both."""
        top_probs, top_falls = self.probs.gather(1, self.top), falls.gather(1, self.top)
        falls.scatter_(1, self.top, 0.0)
        others = falls.sum(1, keepdim=True)
        dlogits = self.probs.mul_(others + top_falls).sub_(falls)
        return dlogits.scatter_(1, self.top, top_probs * others - self.rest * top_falls).to(dtype)


def of_row(logits: Tensor, labels: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Row:
    log_probs = torch.log_softmax(logits, 1, dtype=dtype).clamp_(min=-1e30)
    probs = log_probs.exp()
    top = logits.argmax(1, keepdim=True)
    top_probs, top_log_probs = probs.gather(1, top), log_probs.gather(1, top)
    rest = probs.scatter_(1, top, 0.0).sum(1, keepdim=True)
    probs.scatter_(1, top, top_probs)
    log_probs.scatter_(1, top, torch.where(rest < 0.5, torch.log1p(-rest), top_log_probs))
    column = top if labels is None else labels[:, None]
    return Row(probs, log_probs, top, rest, column)


def label_smoothing(logits: Tensor, labels: Tensor, smoothing: float) -> Result:
    row = of_row(logits, labels)
    share = smoothing / logits.shape[1]
    loss = -(1 - smoothing) * row.label_log_prob[:, 0] - share * row.log_probs.sum(1)
    falls = torch.full_like(row.probs, share)
    falls.scatter_add_(1, row.column, torch.full_like(row.rest, 1 - smoothing))
    return loss, row.gradient(falls, logits.dtype)


def soft_ce(logits: Tensor, soft_labels: Tensor) -> Result:
    row = of_row(logits)
    falls = soft_labels.float().clone()
    return -row.log_probs.mul_(falls).sum(1), row.gradient(falls, logits.dtype)


def apl_normalised(logits: Tensor, labels: Tensor, active: float, gamma: float, passive: float) -> Result:
    row = of_row(logits, labels)
    losses, slopes = focal(row.log_probs, row.complement(), gamma)
    own, slope = losses.gather(1, row.column), slopes.gather(1, row.column)
    others = losses.scatter_(1, row.column, 0.0).sum(1, keepdim=True)
    total = own + others
    share = own / total
    scale = active * (slope / total) * (others / total) + passive * row.label_log_prob.exp()
    complement = torch.where(row.column == row.top, row.rest, 1 - row.probs.gather(1, row.column))
    falls = slopes.mul_(-active * (share / total)).scatter_(1, row.column, scale)
    return (active * share + passive * complement)[:, 0], row.gradient(falls, logits.dtype)


def bootstrap(row: Row, chosen: Tensor, falls: Tensor, own: float, dtype: torch.dtype) -> Result:
    """Cross-entropy on own * label + (1 - own) * chosen [B, C]; `falls` [B, C] are those of its second part."""
    loss = -own * row.label_log_prob[:, 0] - (1 - own) * (chosen * row.log_probs).sum(1)
    falls.mul_(1 - own).scatter_add_(1, row.column, torch.full_like(row.rest, own))
    return loss, row.gradient(falls, dtype)


def bootstrap_soft(logits: Tensor, labels: Tensor, own: float, literal: bool) -> Result:
    row = of_row(logits, labels)
    falls = (1 + row.log_probs).mul_(row.probs) if literal else row.probs.clone()
    return bootstrap(row, row.probs, falls, own, logits.dtype)


def bootstrap_hard(logits: Tensor, labels: Tensor, own: float) -> Result:
    row = of_row(logits, labels)
    chosen = torch.zeros_like(row.probs).scatter_(1, row.top, 1.0)
    return bootstrap(row, chosen, chosen.clone(), own, logits.dtype)


def forward(logits: Tensor, labels: Tensor, columns: Tensor) -> Result:
    row = of_row(logits)
    joint = columns.index_select(0, labels).log_().clamp_(min=-1e30).add_(row.log_probs)
    log_mixed = joint.logsumexp(1, keepdim=True)
    return -log_mixed[:, 0], row.gradient(joint.sub_(log_mixed).exp_(), logits.dtype)


def elr_regulariser(row: Row, rows: Tensor, clamped: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """strength * log(1 - <clamp(p), t>) [B, 1] and its falls [B, C], as the rule forms them. Uses up `clamped`."""
    active = (row.probs >= 1e-4) & (row.complement() >= 1e-4)
    top_rows = rows.gather(1, row.top)
    own = (1 - top_rows) + top_rows * row.rest.clamp(1e-4, 1 - 1e-4)
    gap = (own - clamped.scatter_(1, row.top, 0.0).mul_(rows).sum(1, keepdim=True)).clamp_(min=1e-5)
    return strength * gap.log(), (rows * row.probs).mul_(strength / gap).mul_(active)


def elr(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor) -> Result:
    update, momentum, strength = knobs.tolist()
    row = of_row(logits, labels)
    loss = -row.label_log_prob
    clamped = row.probs.clamp(1e-4, 1 - 1e-4)
    rows = targets.index_select(0, index)
    if update:
        rows.mul_(momentum).addcmul_(clamped, (1 - momentum) / clamped.sum(1, keepdim=True))
        targets.index_copy_(0, index, rows)
    regulariser, falls = elr_regulariser(row, rows, clamped, strength)
    falls.scatter_add_(1, row.column, torch.ones_like(row.rest))
    return (loss + regulariser)[:, 0], row.gradient(falls, logits.dtype)


def elr_plus(
    logits: Tensor,
    labels: Tensor,
    pair_labels: Tensor,
    index: Tensor,
    pair_index: Tensor,
    share: Tensor,
    targets: Tensor,
    knobs: Tensor,
    weighted: bool,
) -> Result:
    row = of_row(logits, labels)
    share = share.float().reshape(-1, 1)
    rows = targets.index_select(0, index) * share + targets.index_select(0, pair_index) * (1 - share)
    first, second = share.expand_as(row.rest), (1 - share).expand_as(row.rest)
    pair = pair_labels[:, None]
    if weighted:
        weights = torch.cat([first * rows.gather(1, row.column), second * rows.gather(1, pair)], 1)
        total = weights.sum(1, keepdim=True)
        first = torch.where(total > 0, weights[:, :1] / total, first)
        second = 1 - first
    loss = -first * row.label_log_prob - second * row.log_probs.gather(1, pair)
    regulariser, falls = elr_regulariser(row, rows, row.probs.clamp(1e-4, 1 - 1e-4), float(knobs[2]))
    falls.scatter_add_(1, row.column, first).scatter_add_(1, pair, second)
    return (loss + regulariser)[:, 0], row.gradient(falls, logits.dtype)


def ema(logits: Tensor, index: Tensor, targets: Tensor, knobs: Tensor) -> Result:
    update, momentum, _ = knobs.tolist()
    if update:
        rows = targets.index_select(0, index).mul_(momentum)
        targets.index_copy_(0, index, rows.add_(logits.softmax(1, dtype=torch.float32), alpha=1 - momentum))
    return ()


def one_hot_if_zero(rows: Tensor, column: Tensor) -> Tensor:
    """A row that was never updated stands for the one-hot of its label. In place."""
    return rows.scatter_add_(1, column, (rows.sum(1, keepdim=True) == 0).to(rows.dtype))


def selc(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor) -> Result:
    update, momentum, _ = knobs.tolist()
    row = of_row(logits, labels)
    rows = one_hot_if_zero(targets.index_select(0, index), row.column)
    if update:
        rows.mul_(momentum).add_(row.probs, alpha=1 - momentum)
        targets.index_copy_(0, index, rows)
    return -row.log_probs.mul_(rows).sum(1), row.gradient(rows, logits.dtype)


def nal(
    logits: Tensor,
    attention: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    knobs: Tensor,
    code: bool,
    reverse: float,
    gate: float,
) -> Result:
    update, momentum, strength = knobs.tolist()
    exact = torch.float64 if logits.shape[1] <= 4 else torch.float32  # see fastnoise.kernels.row
    row = of_row(logits, labels, exact)
    given = attention.to(exact)[:, None]
    limit = -math.log(1e-12)
    logit = given.clamp(-limit, limit) if code else given
    tau = logit.sigmoid()
    stored = targets.index_select(0, index).to(exact)
    rows = one_hot_if_zero(stored.clone(), row.column)
    if code:
        rows.clamp_(min=1e-4)
    kept = rows
    if update:
        opened = tau > gate
        share = opened * (1 - momentum)
        kept = rows * torch.where(opened, momentum, 1.0)
        rows = torch.addcmul(kept, row.probs, share)
        if code:
            kept = torch.where(opened & (rows < 1e-4), 1e-4 - row.probs * share, kept)
            rows.clamp_(1e-4, 1)
        targets.index_copy_(0, index, torch.where(opened, rows, stored).to(targets.dtype))

    # The falls less the top class's multiple of the probabilities, from the kept part of the target: see the rule.
    top_probs, top_rows = row.probs.gather(1, row.top), rows.gather(1, row.top)
    excess = torch.addcmul(kept, row.probs, kept.gather(1, row.top) / top_probs, value=-1)
    excess.scatter_(1, row.top, 0.0)
    ratio = (row.probs.clamp(min=1e-12) if code else row.probs) * tau
    mix = torch.addcmul(ratio, rows, (-logit).sigmoid())
    large = mix > 1e-30
    if bool(large.all()):
        ratio.div_(mix)
        log_mix = mix.log_()
    else:
        own = (row.log_probs.clamp(min=-limit) if code else row.log_probs) + F.logsigmoid(logit)
        rest = rows.log().add_(F.logsigmoid(-logit))
        log_mix = torch.where(large, mix.log(), torch.logaddexp(own, rest))
        ratio = torch.where(large, ratio / mix, own.sub_(rest).sigmoid_())
    unclamped = log_mix >= math.log(1e-7)
    if code:
        log_mix.clamp_(min=math.log(1e-7))
    weights, losses = rows, rows * log_mix
    top_ratio = ratio.gather(1, row.top)
    falls = excess.mul_(ratio).mul_(top_ratio)
    if reverse:
        log_rows = rows.clamp(min=1e-4).log_()
        top_log = log_rows.gather(1, row.top)
        reversed_losses = log_mix.exp_().mul_(log_rows).mul_(reverse)
        losses, weights = losses.add_(reversed_losses), rows + reversed_losses
        falls.add_(log_rows.sub_(top_log).mul_(row.probs).mul_(reverse * tau))
    if code:
        weights = weights.masked_fill(~unclamped, 0)
        clamped = ~unclamped | (row.log_probs < -limit)
        clamped_scale = -top_ratio * top_rows / top_probs
        if reverse:
            clamped_scale -= reverse * tau * top_log
        falls = torch.where(clamped, row.probs * clamped_scale, falls)
    loss = -losses.sum(1, keepdim=True) - strength * F.logsigmoid(logit)
    dattention = -ratio.sub_(tau).mul_(weights).sum(1, keepdim=True) - strength * (-logit).sigmoid()
    dattention *= logit == given
    return loss[:, 0].float(), row.gradient(falls, logits.dtype), dattention[:, 0].to(attention.dtype)
