"""The fused losses in plain PyTorch, as the ops' CPU kernels: the closed forms derived in `fastnoise.kernels.rules`.

Only the batch's rows of the target table are read and written, never the whole table, and arithmetic is in place where
it can be: a fresh [B, C] buffer of a megabyte costs more than the pass that fills it. Each function returns loss [B]
float32, d loss / d logits [B, C] in the logits' dtype and, for NAL, d loss / d attention [B] in its dtype.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [B, C] in float32, those of the labels [B, 1], and the labels as a column [B, 1]."""
    log_probs = torch.log_softmax(logits, 1, dtype=torch.float32)
    column = labels[:, None]
    return log_probs, log_probs.gather(1, column), column


def ce(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_probs, label_log_probs, column = softmax(logits, labels)
    dlogits = log_probs.exp_().scatter_add_(1, column, torch.full_like(label_log_probs, -1.0))
    return -label_log_probs[:, 0], dlogits.to(logits.dtype)


def swce(logits: Tensor, labels: Tensor, literal: bool) -> tuple[Tensor, Tensor]:
    log_probs, label_log_probs, column = softmax(logits, labels)
    weight = label_log_probs.exp()
    scale = (1 + label_log_probs) * weight if literal else weight
    dlogits = log_probs.exp_().mul_(scale).scatter_add_(1, column, -scale)
    return -(weight * label_log_probs)[:, 0], dlogits.to(logits.dtype)


def elr(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor) -> tuple[Tensor, Tensor]:
    update, momentum, strength = knobs.tolist()
    log_probs, label_log_probs, column = softmax(logits, labels)
    probs = log_probs.exp_()
    clamped = probs.clamp(1e-4, 1 - 1e-4)
    rows = targets.index_select(0, index)
    if update:
        rows.mul_(momentum).addcmul_(clamped, (1 - momentum) / clamped.sum(1, keepdim=True))
        targets.index_copy_(0, index, rows)
    active = (rows * probs).masked_fill_(clamped != probs, 0)
    gap = 1 - clamped.mul_(rows).sum(1, keepdim=True)
    scale = strength / gap
    dlogits = probs.mul_(1 + scale * active.sum(1, keepdim=True)).sub_(active.mul_(scale))
    dlogits.scatter_add_(1, column, torch.full_like(label_log_probs, -1.0))
    return (strength * gap.log() - label_log_probs)[:, 0], dlogits.to(logits.dtype)


def nal(
    logits: Tensor, attention: Tensor, labels: Tensor, index: Tensor, targets: Tensor, knobs: Tensor, code: bool
) -> tuple[Tensor, Tensor, Tensor]:
    update, momentum, strength = knobs.tolist()
    log_probs, _, column = softmax(logits, labels)
    probs = log_probs.exp()
    rows = targets.index_select(0, index)
    rows.scatter_add_(1, column, (rows.sum(1, keepdim=True) == 0).float())
    if code:
        rows.clamp_(min=1e-4)
    if update:
        rows.mul_(momentum).add_(probs, alpha=1 - momentum)
        if code:
            rows.clamp_(1e-4, 1)
        targets.index_copy_(0, index, rows)

    given = attention.float()[:, None]
    limit = -math.log(1e-12)
    logit = given.clamp(-limit, limit) if code else given
    floor = -limit if code else -1e30  # finite, so that a class whose logit is -inf gives no inf - inf
    own = log_probs.clamp(min=floor).add_(F.logsigmoid(logit))
    kept = rows.log().add_(F.logsigmoid(-logit))
    log_mix = torch.logaddexp(own, kept)
    ratio = own.sub_(kept).sigmoid_()
    live, live_probs = rows, rows * ratio
    if code:
        unclamped = log_mix >= math.log(1e-7)
        live = rows.masked_fill(~unclamped, 0)
        live_probs.masked_fill_(~unclamped | (log_probs < floor), 0)
        log_mix.clamp_(min=math.log(1e-7))
    loss = -log_mix.mul_(rows).sum(1, keepdim=True) - strength * F.logsigmoid(logit)
    dattention = -ratio.sub_(logit.sigmoid()).mul_(live).sum(1, keepdim=True) - strength * (-logit).sigmoid()
    dattention *= logit == given
    dlogits = probs.mul_(live_probs.sum(1, keepdim=True)).sub_(live_probs)
    return loss[:, 0], dlogits.to(logits.dtype), dattention[:, 0].to(attention.dtype)
