"""The losses as modules for any training code: they own the target table, call the fused op and reduce.

Constants and clamps are those of the authors' code. Where the losses differ from it, tests/test_parity.py shows:

    ELR        None.
    ELR+       With target="weighted", a pair whose labels both have a target of 0 has NaN as its loss; here the labels'
               own shares. The share may differ per sample, where the authors draw one per batch.
    NAL        A one-hot target that was never clamped (a first updating epoch that is no multiple of ten) makes the
               loss NaN, RNAL's log 0 times 0; here it stays finite. The first update starts from the clamped one-hot,
               not from the one-hot, and so differs by at most 1e-4 per class. The whole table is never clamped.
    SELC       The loss is NaN where a target of 0 meets a probability that has underflowed; here 0 for that class.
    SCE        None in variant "code". Variant "paper" has A = -4 and no clamp.
    GCE        Truncation by the present p_y, where the authors prune by an earlier model's. Ma et al. also clamp p_y to
               at least 1e-7, which changes the loss by less than 2e-5 at q = 0.7.
    NCE + MAE  Ma et al. clamp nothing in MAE and take it reduced, as APLLoss does by default; MAELoss defaults to L1.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError
from ..ops.tables import FixedDtype, Placement
from . import functional
from .functional import NO_FLOOR, REDUCTIONS, Form, one_of, within
from .tables import TARGET_DTYPES, Storage, check_memory, fit_state, shard_rows


class FusedLoss(nn.Module):
    """A loss whose op yields one value per sample.

    Args that all losses share:
        reduction: "mean", "sum", or "none" for the loss [B] of each sample.
        ignore_index: a label, in 0..C-1 or not; samples that carry it have loss and gradient 0 and leave their targets
            alone, and the mean is over the others (0 where there are none). By default no label is special.

    Called as `loss(logits, labels, index=None, *, weight=None)`: logits [B, C] float32, float16 or bfloat16; labels [B]
    int64 in 0..C-1; index is not used; weight [B], of any floating dtype, multiplies each sample's loss. The mean
    divides by the number of samples, whatever their weights. Returns float32, differentiable once in logits and weight.
    Tensors of another form raise DataError, as does a label out of range on the CPU; on a CUDA device it makes that
    sample's loss and gradient NaN, without a wait. Options out of range raise ConfigError.
    """

    def __init__(self, reduction: str = "mean", ignore_index: int | None = None):
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.ignore_index = ignore_index

    def run(self, form: Form, *tensors: Tensor, labels: Tensor, **keywords: Any) -> Tensor:
        keywords |= {"ignore_index": self.ignore_index, "reduction": self.reduction}
        return functional.run(form, *tensors, labels=labels, **keywords)


class LabelLoss(FusedLoss):
    """A loss of logits and labels alone, with constant options."""

    def __init__(self, form: Form, reduction: str, ignore_index: int | None, /, **shown: Any):
        super().__init__(reduction, ignore_index)
        self.form, self.shown = form, shown

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return self.run(self.form, logits, labels, labels=labels, weight=weight)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.shown.items())


class CrossEntropyLoss(LabelLoss):
    """Cross-entropy on the given labels, -log p_y.

    Args:
        label_smoothing: s in [0, 1], for -(1 - s) log p_y - s * mean_k log p_k (Szegedy et al. 2016, Sec. 7).
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss). Without smoothing and ignore_index, labels may also be soft:
    [B, C] float32, float16 or bfloat16, which need not sum to 1 and get no gradient, for -sum_k labels_k log p_k.
    """

    def __init__(self, *, label_smoothing: float = 0.0, reduction: str = "mean", ignore_index: int | None = None):
        form = functional.cross_entropy_form(label_smoothing)
        super().__init__(form, reduction, ignore_index, label_smoothing=label_smoothing)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return functional.cross_entropy_of(
            self.form, logits, labels, weight=weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class SWCELoss(LabelLoss):
    """Softmax-weighted cross-entropy, -p_y log p_y.

    The paper does not say whether gradient flows through the weight p_y. "detached" lets none through: the logit
    gradient is p_y (p - y), that of 1 - p_y. "literal" does: (1 + log p_y) p_y (p - y), which pushes p_y down while
    it is below 1/e, the state of a fresh head of three or more classes.

    Args:
        weight: "detached" or "literal".
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, weight: str = "detached", reduction: str = "mean", ignore_index: int | None = None):
        super().__init__(functional.swce_form(weight), reduction, ignore_index, weight=weight)


class GCELoss(LabelLoss):
    """Generalised cross-entropy, the L_q loss (Zhang & Sabuncu 2018, Sec. 3.2): (1 - p_y^q) / q.

    Cross-entropy as q nears 0, 1 - p_y at q = 1. Truncated (Sec. 3.3), it is the constant (1 - k^q) / q where p_y is at
    most k, without gradient. The authors' k = 0.5 prunes samples by the model of an earlier epoch, whose selection is
    the training loop's; here each batch's own p_y decides.

    Args:
        q: in (0, 1].
        k: in [0, 1]; 0 truncates nothing.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, q: float = 0.7, k: float = 0.0, reduction: str = "mean", ignore_index: int | None = None):
        super().__init__(functional.gce_form(q, k), reduction, ignore_index, q=q, k=k)


class SCELoss(LabelLoss):
    """Symmetric cross-entropy (Wang et al. 2019): alpha * CE + beta * RCE, RCE = -sum_k p_k log y_k = -A (1 - p_y).

    A stands for log 0. Variant "code" takes it from the authors' clamp of the one-hot to at least 1e-4, A = log 1e-4 =
    -9.21, and clamps p_y to at least 1e-7 in CE, below which CE has no gradient. Variant "paper" has the text's A = -4
    and no clamp, so that its reverse term is 2.3 times smaller for one beta.

    Args:
        alpha, beta: the weights of CE and RCE; not negative. The authors': CIFAR-10 0.1 and 1, CIFAR-100 6 and 0.1.
        variant: "code" or "paper".
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        alpha: float,
        beta: float,
        variant: str = "code",
        reduction: str = "mean",
        ignore_index: int | None = None,
    ):
        form = functional.sce_form(alpha, beta, variant)
        super().__init__(form, reduction, ignore_index, alpha=alpha, beta=beta, variant=variant)


class MAELoss(LabelLoss):
    """Mean absolute error between probabilities and the one-hot label (Ghosh et al. 2017).

    Args:
        form: "l1", sum_k |p_k - y_k| = 2 (1 - p_y), or "reduced", 1 - p_y, as in Ma et al.'s code.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, form: str = "l1", reduction: str = "mean", ignore_index: int | None = None):
        super().__init__(functional.mae_form(form), reduction, ignore_index, form=form)


class NCELoss(LabelLoss):
    """Normalised cross-entropy (Ma et al. 2020): log p_y / sum_k log p_k, in (0, 1).

    Args:
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, reduction: str = "mean", ignore_index: int | None = None):
        super().__init__((ops.apl_normalised, (1.0, 0.0, 0.0)), reduction, ignore_index)


class FocalLoss(LabelLoss):
    """Focal loss (Lin et al. 2017, Sec. 3.2): -(1 - p_y)^gamma log p_y.

    Args:
        gamma: not negative; 0 is cross-entropy, 0.5 is what Ma et al. use.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, gamma: float = 0.5, reduction: str = "mean", ignore_index: int | None = None):
        form = ops.apl, (1.0, within("gamma", gamma, 0), 0.0, NO_FLOOR)
        super().__init__(form, reduction, ignore_index, gamma=gamma)


class NFLLoss(LabelLoss):
    """Normalised focal loss (Ma et al. 2020): the focal loss of the label over the sum of those of all classes.

    Args:
        gamma: not negative; 0 is NCELoss.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(self, *, gamma: float = 0.5, reduction: str = "mean", ignore_index: int | None = None):
        form = ops.apl_normalised, (1.0, within("gamma", gamma, 0), 0.0)
        super().__init__(form, reduction, ignore_index, gamma=gamma)


class APLLoss(LabelLoss):
    """Active passive loss (Ma et al. 2020): alpha * active + beta * passive, in one pass over the logits.

    Args:
        active: "ce", "focal", "nce" or "nfl".
        passive: "mae" or "rce", the reverse cross-entropy -log_zero * (1 - p_y).
        alpha, beta: the weights; not negative. The authors': CIFAR-10 1 and 1; CIFAR-100 10 and 1 with "mae", 10 and
            0.1 with "rce"; MNIST 1 and 10.
        gamma: of "focal" and "nfl".
        mae: "reduced", 1 - p_y, as in the authors' code, or "l1", 2 (1 - p_y).
        log_zero: what stands for log 0 in "rce"; by default from the authors' clamp at 1e-4.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        active: str = "nce",
        passive: str = "mae",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.5,
        mae: str = "reduced",
        log_zero: float = math.log(1e-4),
        reduction: str = "mean",
        ignore_index: int | None = None,
    ):
        form = functional.apl_form(active, passive, alpha, beta, gamma, mae, log_zero)
        shown = {"active": active, "passive": passive, "alpha": alpha, "beta": beta}
        super().__init__(form, reduction, ignore_index, **shown)


class BootstrapLoss(LabelLoss):
    """Bootstrapping (Reed et al. 2015): cross-entropy on beta * y + (1 - beta) * q, a mixture of label and prediction.

    Soft: q = p; hard: q is the one-hot of the most probable class, the first of equals.

    Args:
        kind: "soft" or "hard".
        beta: the label's share, in [0, 1]; by default 0.95 soft and 0.8 hard.
        target: of the soft kind, "literal" differentiates q = p too, which adds an entropy regulariser's gradient;
            "detached" holds it fixed, which leaves p - (beta * y + (1 - beta) * p) = beta * (p - y).
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss).
    """

    def __init__(
        self,
        *,
        kind: str = "soft",
        beta: float | None = None,
        target: str = "literal",
        reduction: str = "mean",
        ignore_index: int | None = None,
    ):
        form = functional.bootstrap_form(kind, beta, target)
        super().__init__(form, reduction, ignore_index, kind=kind, beta=form[1][0], target=target)


class ForwardLoss(FixedDtype, FusedLoss):
    """Forward correction (Patrini et al. 2017, Theorem 2): -log (T^T p)_y, the likelihood of the noisy label.

    Args:
        transition: [C, C], row-stochastic, T[true, noisy] = P(noisy label | true label). Kept as the buffer `columns`,
            float32 and transposed.
        reduction, ignore_index: see FusedLoss.

    Called as every loss without targets (see FusedLoss). Raises ConfigError unless transition is square, of at least
    two classes, not negative, with rows that sum to 1 to within 1e-4, and with no class that no other turns into: the
    loss of its label would be infinite.
    """

    columns: Tensor

    def __init__(self, transition: Tensor, *, reduction: str = "mean", ignore_index: int | None = None):
        super().__init__(reduction, ignore_index)
        transition = torch.as_tensor(transition, dtype=torch.float32)
        if transition.dim() != 2 or transition.shape[0] != transition.shape[1] or len(transition) < 2:
            raise ConfigError(f"transition is {list(transition.shape)}: it must be [C, C] with at least two classes")
        sums = transition.sum(1)
        worst = int((sums - 1).abs().argmax())
        if not bool((transition >= 0).all()) or not abs(float(sums[worst]) - 1) <= 1e-4:
            raise ConfigError(
                f"transition is not row-stochastic: row {worst} sums to {float(sums[worst]):g}; T[true, noisy] must "
                "not be negative, and each row must sum to 1"
            )
        if not bool(transition.any(0).all()):
            label = int(transition.any(0).logical_not().nonzero()[0])
            raise ConfigError(f"transition lets no class turn into {label}: the loss of that label would be infinite")
        self.register_buffer("columns", transition.T.contiguous())

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        return self.run((ops.forward, ()), logits, labels, self.columns, labels=labels, weight=weight)


class TargetLoss(FixedDtype, FusedLoss):
    """A loss with a soft target per training sample, updated in place each time that the sample is visited.

    `targets`, [num_samples, num_classes], is a buffer: it is saved in `state_dict` and moves with the module, but keeps
    its dtype when the module is cast. A row of zeros was never updated. `knobs`, float32 [3], holds update flag,
    momentum and strength on the device, where they may be written in place during training without invalidating a
    captured graph.

    Keyword arguments that every loss with targets takes:
        target_dtype: float32 by default. bfloat16 and float16 halve the table, whose values then lie in [0, 1]. The
            arithmetic stays in float32 and the updated row is rounded stochastically, since a moving average stalls
            under rounding to nearest. The random bits are a hash of (seed, sample, `visits`, column), the same on every
            device; `visits`, int32 [num_samples], counts each row's visits and is saved, so that a resumed run goes
            on with the same bits.
        shard: (rank, world), for training in several processes: the table then holds the samples with
            index % world == rank, in row index // world, and this process must be given those samples alone, as by a
            sampler over range(rank, num_samples, world); others are reported like an index out of range. The updates
            equal those of one whole table, rounding included. A shard's state says which it is; states are merged by
            `fastnoise.losses.merge_shards`, and a shard that loads a whole table takes its own rows. Keep the loss out
            of DistributedDataParallel, which would overwrite every shard's buffers by those of rank 0.
        seed: of the rounding, in 0..2^31 - 1.
    `fastnoise.losses.table_bytes` says how much memory a table takes. One that does not fit on the device where
    tensors are made at present (`with torch.device("cuda"): ...`) raises ConfigError.

    The indices of a batch must be distinct. On a CUDA device the copies of a duplicate race: each one's loss is right
    for one of the orders of updates or for none of them, which of the updates stays in the table is undefined, and
    nothing is raised, since looking for them would make every step wait. `fastnoise.losses.debug` makes every call look
    and raise DataError, on every device.

    Each call in training mode updates the targets; after `eval()` none does, as with update=False. Activation
    checkpointing calls a loss again during the backward pass: such a call reads the targets that the first has left,
    updates nothing, and so yields the same loss and gradient (in half precision, up to the rounding of the targets).
    Calls before training (the warm-up of a CUDA graph) count as visits unless `set_update(False)` was called. Evaluate
    with CrossEntropyLoss, since an evaluation set has no rows here.

    A sample with a logit of NaN or +inf (in NALLoss also with such an attention), as after an overflow in half
    precision, leaves its targets and `visits` alone. Its loss and gradient are not finite, so that a GradScaler skips
    the step. A logit of -inf masks its class and updates as usual.
    """

    targets: Tensor
    visits: Tensor | None
    knobs: Tensor
    layout: Tensor | None

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        reduction: str = "mean",
        ignore_index: int | None = None,
        **storage: Unpack[Storage],
    ):
        super().__init__(reduction, ignore_index)
        if num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}: give the size of the training set, at least 1")
        if num_classes < 2:
            raise ConfigError(f"num_classes is {num_classes}: a softmax loss needs at least 2")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum is {momentum}: it must lie in [0, 1)")
        if not 0 <= strength < float("inf"):
            raise ConfigError(f"strength is {strength}: it must be finite and not negative")
        self.register_table(num_samples, num_classes, **storage)
        self.register_buffer("knobs", torch.tensor([1.0, momentum, strength], dtype=torch.float32), persistent=False)

    def register_table(
        self,
        num_samples: int,
        num_classes: int,
        target_dtype: torch.dtype = torch.float32,
        shard: tuple[int, int] = (0, 1),
        seed: int = 0,
    ) -> None:
        if target_dtype not in TARGET_DTYPES:
            raise ConfigError(f"target_dtype is {target_dtype}: it must be torch.float32, bfloat16 or float16")
        rank, world = shard
        if not 0 <= rank < world <= num_samples:
            raise ConfigError(
                f"shard is {shard}: give (rank, world) with 0 <= rank < world, and at most {num_samples} shards"
            )
        if not 0 <= seed < 2**31:
            raise ConfigError(f"seed is {seed}: it must lie in 0..2^31 - 1")
        check_memory(num_samples, num_classes, target_dtype, shard)
        self.num_samples, self.shard, self.seed = num_samples, (rank, world), seed
        rows = shard_rows(num_samples, shard)
        self.register_buffer("targets", torch.zeros(rows, num_classes, dtype=target_dtype))
        half = target_dtype != torch.float32
        self.is_whole = world == 1 and not half
        self.register_buffer("visits", torch.zeros(rows, dtype=torch.int32) if half else None)
        self.register_buffer("layout", torch.tensor([rank, world, num_samples]) if world > 1 else None)

    @property
    def placement(self) -> Placement:
        """How the table is stored, as the ops take it."""
        return Placement(self.visits, *self.shard, self.seed)

    def set_update(self, update: bool) -> None:
        """Whether calls from now on update the targets. Written on the device, without waiting for it."""
        self.knobs[0].fill_(float(update))

    def set_strength(self, strength: float) -> None:
        """The strength of calls from now on, for a ramp. Written on the device, without waiting for it."""
        self.knobs[2].fill_(within("strength", strength, 0))

    def run_table(
        self, form: Form, *tensors: Tensor, labels: Tensor, weight: Tensor | None, update: bool = True
    ) -> Tensor:
        """Call an op with tensors that end in targets and knobs. In evaluation mode it updates nothing."""
        return functional.run(
            form,
            *tensors,
            self.targets,
            self.knobs,
            labels=labels,
            weight=weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            update=update and self.training,
            placement=None if self.is_whole else self.placement,
        )

    def hard_targets(self, labels: Tensor) -> Tensor:
        """The class each sample's target favours; where none was updated, the given label.

        Takes the labels [N] int64 of the whole training set and returns as many classes; a shard returns those of its
        own samples `rank`, `rank + world`, ... in this order.
        """
        rank, world = self.shard
        return torch.where(self.targets.any(1), self.targets.argmax(1), labels[rank::world])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        fit_state(state_dict, prefix, [*self.shard, self.num_samples], self.visits is not None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        sizes = f"num_samples={self.num_samples}, num_classes={self.targets.shape[1]}, reduction={self.reduction!r}"
        dtype = "" if self.visits is None else f", target_dtype={self.targets.dtype}"
        shard = "" if self.layout is None else f", shard={self.shard}"
        return f"{sizes}{dtype}{shard}"


class TableOptions(Storage, total=False):
    """Keyword arguments that every loss with targets takes."""

    reduction: str
    ignore_index: int | None


class ELRLoss(TargetLoss):
    """Early-learning regularisation (Liu et al. 2020, "Early-Learning Regularization Prevents Memorization").

    Cross-entropy + strength * log(1 - <p, t>) (Eq. 6). At each visit t <- momentum * t + (1 - momentum) * p before the
    loss (Eq. 9), from t = 0. As in the authors' code, p is clamped to [1e-4, 1 - 1e-4] in both, without gradient
    outside, and then renormalised for the update alone; the cross-entropy sees the unclamped logits.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda. The loss may be negative.
        momentum: the paper's beta, of the moving average.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, *, weight=None, update=True)`: logits [B, C] float32, float16 or bfloat16;
    labels [B] int64 in 0..C-1; index [B] int64, positions in the training set, distinct within the batch; weight [B], a
    factor of each sample's loss; update=False leaves the targets alone, as evaluation mode does, for evaluation on
    training samples. Returns float32. Tensors of another form raise DataError, as does a label or index out of range on
    the CPU; on a CUDA device it makes that sample's loss NaN.
    """

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        return self.run_table((ops.elr, ()), logits, labels, index, labels=labels, weight=weight, update=update)


class ELRPlusLoss(TargetLoss):
    """ELR on mixup pairs, with targets from another network: the loss of ELR+ (Liu et al. 2020, Sec. 4.3).

    A mixed image is share * image_i + (1 - share) * image_j. With the same mixture of the targets,
    q = share * t_i + (1 - share) * t_j, the loss is

        share * CE(y_i) + (1 - share) * CE(y_j) + strength * log(1 - <p, q>),

    p clamped to [1e-4, 1 - 1e-4] in the last term, as in ELRLoss. No gradient flows through q, and the call updates
    nothing: before it, `update_targets` is given what the other network, in its averaged copy, says of the unmixed
    images. Those probabilities are not clamped. `set_strength` takes the ramp of the strength.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda, times its ramp (`set_strength`).
        momentum: the paper's beta, of the moving average of targets.
        target: of the cross-entropy: "labels", the mixed labels y; or "weighted", what the authors' code has for
            CIFAR-100 alone, y * q, normalised.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, pair_labels, pair_index, share, *, weight=None)`: as ELRLoss, with the
    partner of each sample, and share [] or [B], on the device, float32, float16 or bfloat16 in [0, 1]. A sample whose
    own label is `ignore_index` is ignored; a partner's label must be in range.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        target: str = "labels",
        **options: Unpack[TableOptions],
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, **options)
        self.form = functional.elr_plus_form(target)

    def update_targets(self, logits: Tensor, index: Tensor) -> None:
        """t <- momentum * t + (1 - momentum) * softmax(logits), for logits [B, C] of the samples index [B].

        Also in evaluation mode, since nothing else is asked for here; `set_update(False)` switches it off. Rows with a
        logit of NaN or +inf leave their targets alone.
        """
        functional.update_targets(logits, index, self.targets, self.knobs, placement=self.placement)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        pair_labels: Tensor,
        pair_index: Tensor,
        share: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        tensors = logits, labels, pair_labels, index, pair_index, share
        return self.run_table(self.form, *tensors, labels=labels, weight=weight)


class SELCLoss(TargetLoss):
    """Self-ensemble label correction (Lu & He 2022): cross-entropy on a moving average of label and predictions.

    -sum_k t_k log p_k, with t <- momentum * t + (1 - momentum) * p at each visit before the loss (restated by Lu et al.
    2022, Eq. 4), starting from the one-hot of the given label, which a row of zeros stands for. Before the epoch from
    which targets are updated, `set_update(False)` leaves plain cross-entropy. No clamps, as in the authors' code; where
    that yields -inf * 0 in half precision, log p here is finite.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        momentum: the paper's alpha, of the moving average.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as ELRLoss.
    """

    def __init__(self, num_samples: int, num_classes: int, *, momentum: float, **options: Unpack[TableOptions]):
        super().__init__(num_samples, num_classes, strength=0.0, momentum=momentum, **options)

    def forward(
        self, logits: Tensor, labels: Tensor, index: Tensor, *, weight: Tensor | None = None, update: bool = True
    ) -> Tensor:
        return self.run_table((ops.selc, ()), logits, labels, index, labels=labels, weight=weight, update=update)


class NALLoss(TargetLoss):
    """Noise attention learning (Lu et al. 2022, "Noise Attention Learning: Enhancing Noise Robustness").

    With tau = sigmoid(h) and s = tau p + (1 - tau) t: -<t, log s> - strength * log tau (Eq. 3). At each visit
    t <- momentum * t + (1 - momentum) * p before the loss (Eq. 4, Algorithm 1), starting from the one-hot of the given
    label, which a row of zeros stands for. With `reverse`, RNAL is added: -reverse * <s, log t> (Sec. 5.3), with t
    clamped to at least 1e-4 in the logarithm, since that of a one-hot is infinite.

    Variant "paper" is that. "code" adds the clamps of the authors' code: p and tau to [1e-12, 1 - 1e-12], targets to
    [1e-4, 1] without renormalising, the mixture to [1e-7, 1], with no gradient through a clamp that acts. That code
    clamps the whole table after a batch; here only the batch's rows are touched, which is the same, as every other row
    either is clamped already or stands for a one-hot that is clamped when read. The sole difference is the first
    updating batch, whose rows start in that code from unclamped one-hots (at most 1e-4 per entry). When targets are
    updated (there: every tenth epoch from a first one on) is up to the caller: `set_update`.

    Args:
        num_samples: N, size of the training set.
        num_classes: C, at least 2.
        strength: the paper's lambda.
        momentum: the paper's alpha, of the moving average.
        variant: "paper" or "code".
        reverse: the weight of RNAL, the code's beta; not negative.
        gate: the code's delta in [0, 1]: only samples with tau > gate have their targets updated.
        options: reduction and ignore_index, see FusedLoss; target_dtype, shard and seed, see TargetLoss.

    Called as `loss(logits, labels, index, attention, *, weight=None, update=True)`: as ELRLoss, with attention [B] the
    head's logit h, float32, float16 or bfloat16, which gets a gradient from every term.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        strength: float,
        momentum: float,
        variant: str = "paper",
        reverse: float = 0.0,
        gate: float = 0.0,
        **options: Unpack[TableOptions],
    ):
        super().__init__(num_samples, num_classes, strength=strength, momentum=momentum, **options)
        self.form = functional.nal_form(variant, reverse, gate)
        self.variant = variant

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        attention: Tensor,
        *,
        weight: Tensor | None = None,
        update: bool = True,
    ) -> Tensor:
        tensors = logits, attention, labels, index
        return self.run_table(self.form, *tensors, labels=labels, weight=weight, update=update)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant!r}"
