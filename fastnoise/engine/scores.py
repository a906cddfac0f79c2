"""The scores that a run collects of each given label while it trains: scores.csv, and how well they find wrong ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.looks import Scores


def columns_of(scores: Scores) -> dict[str, NDArray[Any]]:
    """The columns of scores.csv by name, [N] each."""
    found: dict[str, NDArray[Any]] = {name: values.cpu().numpy() for name, values in scores._asdict().items()}
    return found | {"looks": found["looks"].astype(np.int64)}


def suspicions_of(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """What each score of `columns_of` says against the given labels, float64 [N]: the higher, the more suspect. Of a
    sample without the score it is -inf."""
    signs = {"aum": -1.0, "confidence": -1.0, "forgetting": 1.0}
    found = {name: sign * columns[name].astype(np.float64) for name, sign in signs.items()}
    return {name: np.where(np.isnan(values), -np.inf, values) for name, values in found.items()}


def missed_share(suspicion: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """The false-negative rate: the share of the wrong labels missed if as many samples are flagged as there are wrong
    labels, the most suspect ones. Samples of equal suspicion at the border are flagged in equal parts. At least one
    label is wrong."""
    count = int(wrong.sum())
    border = np.partition(suspicion, len(suspicion) - count)[len(suspicion) - count]
    above, equal = suspicion > border, suspicion == border
    flagged = float((above & wrong).sum()) + float((equal & wrong).sum()) * (count - above.sum()) / equal.sum()
    return float(1 - flagged / count)


def missed_shares(columns: dict[str, NDArray[Any]], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """`missed_share` of each score that has told samples apart; none if no label is wrong."""
    if not wrong.any():
        return {}
    suspicions = suspicions_of(columns).items()
    return {name: missed_share(values, wrong) for name, values in suspicions if len(np.unique(values)) > 1}
