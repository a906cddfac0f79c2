"""The losses as functions, beside the modules of the same names: `gce(logits, labels, q=0.7)` as `GCELoss(q=0.7)`.

The module's docstring gives the formula, its source and the options. All functions take

    logits: [B, C] float32, float16 or bfloat16, C at least 2.
    labels: [B] int64 in 0..C-1. Functions without targets also take soft labels, [B, C] of a floating dtype (see
        `fastnoise.losses.base.FusedLoss`).
    weight: [B] of any floating dtype, a factor for each sample's loss. Gradient flows to it.
    ignore_index: a label, in 0..C-1 or not. Samples with this label have loss and gradient 0, and their targets do not
        change.
    reduction: "mean" divides the sum by the number of samples that are not ignored, whatever their weights, and is 0 if
        all are ignored; "sum"; "none" for the loss of each sample.

and return float32. They are differentiable once. Functions with targets also take

    index: [B] int64, positions in the training set, distinct within the batch.
    targets: [N, C] float32, the table, updated in place. For half precision or a shard see `placement`
        (`fastnoise.ops.tables.Placement`).
    knobs: [3] float32 on the same device: update flag, momentum, strength.
    update: False: the table does not change, whatever the flag. Use it for evaluation; a module in evaluation mode does
        the same.

If a logit of a sample is NaN or +inf (in `nal` also its attention), its row of the table and its visits do not change,
and its loss and gradient are NaN. A logit of -inf masks its class and updates as usual.

Tensors of another form raise DataError, unknown options ConfigError. A label or index out of range raises DataError on
the CPU; on a CUDA device it makes that sample's loss and gradient NaN.
"""

from . import families
from .families import *  # noqa: F403

__all__ = [name for name in vars(families) if name[0].islower()]
