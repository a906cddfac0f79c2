"""The losses as functions, beside the modules of the same names: `gce(logits, labels, q=0.7)` as `GCELoss(q=0.7)`.

The module's docstring gives the formula, its source and the options. All functions take

    logits: [B, C] float32, float16 or bfloat16, C at least 2.
    labels: [B] int64 in 0..C-1; `cross_entropy` also takes soft labels [B, C].
    weight: [B] of any floating dtype, a factor for each sample's loss. Gradient flows to it.
    ignore_index: a label, in 0..C-1 or not; samples that carry it have loss and gradient 0 and leave their targets
        alone.
    reduction: "mean" divides the sum by the number of samples that are not ignored, whatever their weights (and is 0
        where all are); "sum"; "none" for the loss of each sample.

and return float32. They are differentiable once. Those with targets also take

    index: [B] int64, positions in the training set, distinct within the batch.
    targets: [N, C] float32, the table, updated in place; or in half precision or as a shard, as `placement` says
        (`fastnoise.ops.tables.Placement`).
    knobs: [3] float32 on the same device: update flag, momentum, strength.
    update: False leaves the table alone, whatever the flag: for evaluation. A module's evaluation mode does the same.

A sample with a logit of NaN or +inf (in `nal` also with such an attention) leaves its row of the table and its visits
alone; its loss and gradient show the NaN. A logit of -inf masks its class and updates as usual.

Tensors of another form raise DataError, unknown options ConfigError. A label or index out of range raises DataError on
the CPU; on a CUDA device it makes that sample's loss and gradient NaN.
"""

from . import families
from .families import *  # noqa: F403

__all__ = [name for name in vars(families) if name[0].islower()]
