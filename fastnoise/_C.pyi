from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class LabelError(ValueError): ...
class TransitionError(ValueError): ...

LOSS_RULES: tuple[str, ...]

def simd_level() -> str: ...
def active_isa() -> str: ...
def check_labels(labels: NDArray[np.integer], num_classes: int) -> None: ...
def corrupt_symmetric(
    labels: NDArray[np.integer], *, num_classes: int, rate: float, include_true_class: bool, seed: int, threads: int
) -> NDArray[np.int64]: ...
def corrupt_mapped(
    labels: NDArray[np.integer], *, class_map: Sequence[int], rate: float, seed: int, threads: int
) -> NDArray[np.int64]: ...
def corrupt_pair(
    labels: NDArray[np.integer], *, num_classes: int, rate: float, seed: int, threads: int
) -> NDArray[np.int64]: ...
def corrupt_matrix(
    labels: NDArray[np.integer], transition: NDArray[np.float64], *, seed: int, threads: int
) -> NDArray[np.int64]: ...
def corrupt_quota(
    labels: NDArray[np.integer],
    *,
    num_classes: int,
    rate: float,
    seed: int,
    threads: int,
    include_true_class: bool,
    per_class: bool,
    class_map: Sequence[int] | None = None,
) -> NDArray[np.int64]: ...
def corrupt_sweep(
    labels: NDArray[np.integer],
    out: NDArray[np.integer],
    *,
    num_classes: int,
    rates: Sequence[float],
    seeds: Sequence[int],
    kind: str,
    class_map: Sequence[int] | None = None,
    threads: int,
) -> None: ...
def augment(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    draws: NDArray[np.int32] | None,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    cutout: int,
    threads: int,
) -> None: ...
def resample(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    places: NDArray[np.int32],
    out: NDArray[np.uint8],
    *,
    threads: int,
) -> None: ...
def normalised_rows(
    rows: NDArray[np.floating],
    index: NDArray[np.int64],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    *,
    threads: int,
) -> NDArray[np.float32]: ...
def uniforms(keys: NDArray[np.uint64], purpose: int, count: int) -> NDArray[np.float64]: ...
def consensus_members(
    losses: NDArray[np.float32], predictions: NDArray[np.integer], *, threshold: float, agree: bool, threads: int
) -> tuple[NDArray[np.uint8], int]: ...
def mask_index(mask: NDArray[np.uint8], count: int) -> NDArray[np.int64]: ...
def consensus_counts(
    losses: NDArray[np.float32],
    predictions: NDArray[np.integer],
    *,
    thresholds: Sequence[float],
    agree: bool,
    stage: int,
    labels: NDArray[np.integer] | None = None,
    true_labels: NDArray[np.integer] | None = None,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
def max_pool(images: int, count: int, height: int, width: int, channels: int, pooled: int, places: int) -> None: ...
def max_pool_gradient(
    gradient: int, places: int, count: int, height: int, width: int, channels: int, images: int
) -> None: ...
def fused_loss(
    rule: int,
    rows: int,
    classes: int,
    stride: int,
    logits: int,
    attention: int,
    labels: int,
    index: int,
    pair_labels: int,
    pair_index: int,
    share: int,
    targets: int,
    knobs: int,
    given: int,
    samples: int,
    update: bool,
    options: tuple[float, ...],
    ignore: int | None,
    loss: int,
    gradient: int,
    attention_gradient: int,
    reduction: int,
    gradient_scale: float,
    looks: int,
    look_index: int,
    look_rows: int,
    threads: int,
    /,
) -> bool: ...
