"""A classifier's matrix product, the loss and the update of its targets in one: the logits [B, C] are never written.

With many classes the logits and their gradient are the largest tensors of a step: at B = 8,192 and C = 21,841 each
takes 358 MB in bfloat16. Here a block of rows at a time goes through product, loss and both products of the gradient,
as in the fused linear cross-entropies of language models.

On a CPU a block's loss, gradient and targets are the C++ kernel's, and the products are PyTorch's library calls, as on
a GPU. A loop of its own in C++ would call the same library: on one core, at (1024, 21841) with 512 features in
float32, the three products take 1.06 s of the 1.21 s of a step in blocks; with whole logits a step takes 1.18 s
(processor time, medians of three). Blocks of few rows are slower, 2.6 s at 32 rows, because each adds up the weight's
gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ConfigError, DataError
from .checks import LOGIT_DTYPES, check_distinct, debug, refuse
from .registry import WHOLE, FusedOp, in_fp32
from .tables import Placement, without_ignored

BLOCK = 1 << 24
"""Logits of a block, if the caller does not say how many rows it has."""


class LinearLogits(NamedTuple):
    """Logits features @ weight.T + bias that nobody has computed yet: `fused_linear` makes them for a fused loss."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None
    block_rows: int
    found: list[Tensor] | None = None
    """Where the loss puts the most probable class of each row, for `argmax`; None: it is not asked for."""

    def argmax(self, dim: int = 1) -> Tensor:
        """The class with the highest logit in each row, int64 [B], known once a loss has been computed of the logits.

        ConfigError for another dimension, before the loss, and if `fused_linear` was not called with `argmax`.
        """
        if dim not in (1, -1):
            raise ConfigError(f"argmax over dimension {dim}: logits that nobody writes have it only over classes, 1")
        if not self.found:
            raise ConfigError("argmax comes from the loss: call fused_linear with argmax=True, then the loss, then it")
        return self.found[0]

    def stand_in(self) -> Tensor:
        """A tensor with the form of the logits, [B, C] of the features' dtype, without their memory."""
        return self.features[:, :1].detach().expand(-1, self.weight.shape[0])

    def detach(self) -> "LinearLogits":
        bias = None if self.bias is None else self.bias.detach()
        return LinearLogits(self.features.detach(), self.weight.detach(), bias, self.block_rows, self.found)


def fused_linear(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    block_rows: int | None = None,
    argmax: bool = False,
) -> LinearLogits:
    """The logits of a linear classifier for a fused loss, which then never writes them as a whole.

        loss = ELRLoss(num_samples, 21_841, strength=3.0, momentum=0.7)
        loss(fused_linear(features, classifier.weight, classifier.bias), labels, index).backward()

    Loss, gradients and updated targets are those of `loss(classifier(features), labels, index)`, up to the rounding of
    sums over the batch, which are taken block by block. Every loss of `fastnoise.losses` whose op takes logits accepts
    it, reduced by "mean" or "sum" and without a `weight` for each sample. Gradients flow to features, weight and bias
    (to NAL's attention too), and are computed together with the loss: the backward pass only scales them. Under
    autocast the product is taken in its dtype, as a linear layer's. Weight and bias get gradients that were summed over
    the blocks in float32.

    Args:
        features: [B, D] float32, float16 or bfloat16.
        weight: [C, D] floating point, C at least 2.
        bias: [C] floating point, or None.
        block_rows: rows whose logits are held at a time. By default as many as have 2^24 logits.
        argmax: whether the loss also keeps the class with the highest logit of each row, for `argmax` of the result.

    DataError for tensors of another form, ConfigError for fewer than one row.
    """
    name = "fused_linear"
    if features.dim() != 2 or features.dtype not in LOGIT_DTYPES:
        refuse(name, "features", features, "float32, float16 or bfloat16 [B, D]")
    if weight.dim() != 2 or weight.shape[1] != features.shape[1] or not weight.is_floating_point():
        refuse(name, "weight", weight, f"floating point [C, {features.shape[1]}], the columns as features")
    if bias is not None and (bias.shape != weight.shape[:1] or not bias.is_floating_point()):
        refuse(name, "bias", bias, f"floating point [{weight.shape[0]}], one per row of weight")
    if any(tensor.device != features.device for tensor in (weight, bias) if tensor is not None):
        raise DataError(f"{name}: weight or bias is not on {features.device}, where features are; put all on one")
    if block_rows is None:
        block_rows = max(1, BLOCK // weight.shape[0])
    if block_rows < 1:
        raise ConfigError(f"block_rows is {block_rows}: it must be at least 1")
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
    in_dtype = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return LinearLogits(*in_dtype, block_rows, [] if argmax else None)


class FusedLinear(torch.autograd.Function):
    """Loss and gradients of an op over logits that are taken a block of rows at a time.

    Args:
        op: has a loss.
        block_rows: rows of a block.
        argmax: whether the second result is the class with the highest logit of each row; otherwise it is empty.
        rest: the op's inputs after the logits, its attention first if it has one; reduced by "sum".
    """

    @staticmethod
    def forward(
        ctx: Any,
        op: FusedOp,
        block_rows: int,
        argmax: bool,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *rest: Any,
    ) -> tuple[Tensor, Tensor]:
        total = features.new_zeros((), dtype=torch.float32)
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        of_bias = torch.zeros_like(weight[:, 0], dtype=torch.float32)
        of_features, of_attention = [features[:0]], [features[:0, 0]]
        classes = [features.new_empty(0, dtype=torch.int64)]
        for start in range(0, features.shape[0], block_rows):
            rows = slice(start, start + block_rows)
            block = features[rows]
            logits = nn.functional.linear(block, weight, bias)
            if argmax:
                classes.append(logits.argmax(1))
            computed = op.compute((logits, *cut(op, rest, rows)))
            assert computed is not None  # ops without a loss do not come here
            loss, gradient = computed
            if op.has_attention:
                gradient, of_its_attention = gradient[: logits.numel()], gradient[logits.numel() :]
                of_attention.append(of_its_attention)
                gradient = gradient.view(logits.shape).to(logits.dtype)
            of_features.append(gradient @ weight)
            of_weight += gradient.t() @ block
            of_bias += gradient.sum(0, dtype=torch.float32)
            total = total + loss
        ctx.save_for_backward(torch.cat(of_features), of_weight, of_bias, torch.cat(of_attention))
        ctx.dtypes = [features.dtype, weight.dtype, None if bias is None else bias.dtype]
        ctx.dtypes += [rest[0].dtype] if op.has_attention else []
        ctx.constants = (None,) * (len(rest) - op.has_attention)
        found = torch.cat(classes)
        ctx.mark_non_differentiable(found)
        return total, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _of_classes: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [
            None if dtype is None else in_fp32(gradient, upstream).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=False)
        ]
        return None, None, None, *gradients, *ctx.constants


def cut(op: FusedOp, rest: Sequence[Any], rows: slice) -> list[Any]:
    """An op's inputs after the logits, those with an entry per row of logits cut to some rows."""
    in_rows = dict(zip(op.names[1:], op.per_row[1:], strict=False)) | {"look_index": True}
    return [
        value[rows] if in_rows.get(name) and value is not None and value.dim() else value
        for name, value in zip(op.arguments[1:], rest, strict=True)
    ]


def run_linear(
    op: FusedOp,
    logits: LinearLogits,
    *rest: Any,
    labels: Tensor,
    ignore_index: int | None,
    reduction: str,
    looks: Tensor | None = None,
    look_index: Tensor | None = None,
    update: bool = True,
    placement: Placement | None = None,
    on_host: bool = False,
) -> Tensor:
    """The reduced loss of an op, float32 []. `rest` are its tensors after the logits, and its options. The others are
    as `FusedOp` takes them."""
    if reduction == "none":
        raise ConfigError(
            "fused_linear computes the gradient with the loss, for the sum of the losses: it needs the "
            'reduction "mean" or "sum"'
        )
    settings = (ignore_index, "sum", looks, look_index, *((update, *(placement or WHOLE)) if op.has_table else ()))
    inputs = (logits.stand_in(), *rest, *settings)
    op.check_inputs(inputs, on_host)
    given = dict(zip(op.arguments, inputs, strict=True))
    if logits.features.is_cpu and not torch.compiler.is_compiling():
        op.check_ranges(given)  # before the first block updates its targets
    if debug.on and op.updates_table:
        check_distinct(op.name, without_ignored(given)["index"])
    linear = logits.features, logits.weight, logits.bias
    total: Tensor
    total, classes = FusedLinear.apply(op, logits.block_rows, logits.found is not None, *linear, *inputs[1:])
    if logits.found is not None:
        logits.found.append(classes)
    if reduction == "sum":
        return total
    if ignore_index is None:
        return total / len(labels)
    return total / (labels != ignore_index).sum().clamp(min=1)
