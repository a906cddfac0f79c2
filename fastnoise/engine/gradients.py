"""How samples with right and with wrong labels pull at a network: the loss's gradients at the logits."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import RunConfig
from ..data.names import short
from ..errors import ConfigError
from ..methods import Method
from ..methods.scan import Scan
from ..models import Outputs
from ..tasks.names import DEFAULT
from .prepare import RunData
from .record import Record


def require_gradients(config: RunConfig, data: RunData, method: Method) -> None:
    """ConfigError if `--gradients` can say nothing of a run: its true labels are unknown, or its method does not train
    by one loss of one network's logits."""
    if not config.engine.gradients:
        return
    if data.clean is None or data.task.name != DEFAULT:
        name = short(config.data.dataset)
        raise ConfigError(f"--gradients needs classes whose true labels are known, which {name} has not; drop it")
    if type(method).training_step is not Method.training_step:
        raise ConfigError(
            f"--gradients is for methods that train by one loss of one network's outputs, and {config.method.method} "
            "does not; drop it"
        )


def gradient_figures(
    method: Method, scan: Scan, labels: Tensor, given: NDArray[np.int64], clean: NDArray[np.int64]
) -> dict[str, float]:
    """The gradients of each sample's loss at its logits after an epoch, for clean and for mislabelled samples.

    The samples are passed over in evaluation mode, with the targets as they are. The method's buffers are left as they
    were. `gradient_clean` and `gradient_mislabelled` are mean Euclidean lengths. `gradient_share_clean` is the share of
    clean samples in the sum of all lengths (NAL, Figure 3). `pull_clean` and `pull_mislabelled` are means of the entry
    of the true class, and `ce_pull_clean` and `ce_pull_mislabelled` what cross-entropy would have there, p - y; the
    difference is what the method adds (ELR, Figure 2). A figure of a group without samples is left out.

    Args:
        method: trains by `Method.loss`.
        scan: Run.scan.
        labels: int64 [N] on the device, what the steps take for labels.
        given: int64 [N], the given labels.
        clean: int64 [N], the true ones, -1 where unknown; such samples are left out.
    """
    true = torch.from_numpy(np.maximum(clean, 0)).to(labels.device)

    def of(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen, attention = outputs[0], outputs[0].attention
        if attention is not None:  # the loss takes it before the sigmoid
            attention = attention.clone().clamp(1e-6, 1 - 1e-6).logit()
        with torch.enable_grad():
            logits = seen.logits.float().clone().requires_grad_()
            loss = method.loss(seen._replace(logits=logits, attention=attention), labels[index], index)
            (gradients,) = torch.autograd.grad(loss * len(index), logits)
        at = true[index, None]
        one_hot = (labels[index, None] == at).float()
        cross_entropy = logits.detach().softmax(1).gather(1, at) - one_hot
        return gradients.norm(dim=1), gradients.gather(1, at).squeeze(1), cross_entropy.squeeze(1)

    targets = Method.sharded(method)  # which do not change in evaluation mode, and may be large
    before = {name: buffer.clone() for name, buffer in method.named_buffers() if name not in targets}
    try:
        sizes, pulls, plain = (part.double().cpu().numpy() for part in scan(of))
    finally:
        for name, buffer in method.named_buffers():
            if name in before:
                buffer.copy_(before[name])
    groups = {"clean": (clean >= 0) & (given == clean), "mislabelled": (clean >= 0) & (given != clean)}
    figures: dict[str, float] = {}
    for prefix, values in (("gradient", sizes), ("pull", pulls), ("ce_pull", plain)):
        figures |= {f"{prefix}_{name}": float(values[rows].mean()) for name, rows in groups.items() if rows.any()}
    total = sum(float(sizes[rows].sum()) for rows in groups.values())
    if total > 0:
        figures["gradient_share_clean"] = float(sizes[groups["clean"]].sum()) / total
    return figures


def add_gradients(figures: Mapping[Record, dict[str, Any]], scan: Callable[..., Any]) -> None:
    """Add the figures of --gradients, of the labels that the epoch's steps took, to those of the runs that ask for
    them. `scan`: of a run and a function, as `Training.scan`."""
    for record, found in figures.items():
        if record.config.engine.gradients:
            clean = record.data.clean
            assert clean is not None
            found |= gradient_figures(record.method, partial(scan, record), record.labels, record.data.given, clean)
