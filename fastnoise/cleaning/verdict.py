"""What follows from the networks' words: wrong labels, right ones instead, the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from .judge import Testimony
from .mixture import bootstrap, fit
from .pool import Judged

SUSPECTED = 0.5
"""Labels that are more likely wrong than this are suspected."""

DISTINCT = 2.0
"""Ashman's D of the margins of right and wrong labels, below which they overlap too much to be told apart well."""

AT_LEAST = 0.5
"""Share of images on which two networks give the same answer, below which nothing is said. Networks that have learnt
what the classes are agree, whatever the labels."""

IN_ACCORD = 0.85
"""The same share, below which there is a warning."""

NORMAL_95 = 1.959964
"""Deviations on either side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is found of N labels of C classes."""

    margins: NDArray[np.float64]
    """[N], the mean over networks and epochs of each label's margin."""
    probability: NDArray[np.float64]
    """[N], that the given label is wrong. NaN if nothing can be said; known labels have 0 or 1."""
    suggested: NDArray[np.int64]
    """[N], the class that is likeliest; of suspected labels another than the given one."""
    rate: float
    """The share of wrong labels, NaN if nothing can be said."""
    rate_interval: tuple[float, float]
    """Holds the share of wrong labels with 95 %."""
    transition: NDArray[np.float64]
    """[C, C], the share of each true class (row) that carries each label; NaN for a class without images."""
    transition_low: NDArray[np.float64]
    """[C, C], the lower end of its 95 % interval."""
    transition_high: NDArray[np.float64]
    """[C, C], the upper end."""
    agreement: float
    """Share of the labels that networks which did not learn from them agree with; with one network, which learnt from
    all, the share that this one agrees with."""
    warnings: tuple[str, ...]

    @property
    def suspected(self) -> NDArray[np.bool_]:
        """[N]"""
        return np.asarray(self.probability > SUSPECTED)

    def corrected(self, given: NDArray[np.int64]) -> NDArray[np.int64]:
        """[N], the suggested class of suspected labels, else the given one."""
        return np.where(self.suspected, self.suggested, given)


def reach(judged: Judged, testimonies: Sequence[Testimony], seed: int) -> Verdict:
    """Join what the networks said.

    A label's score is its margin, averaged over epochs and over all networks alike, those that learnt from the label
    and those that did not. In a trial on digits with 20 % symmetric, pair and instance-dependent noise and ELR in five
    folds, when as many labels are flagged as are wrong, this misses 0.4, 1.4 and 1.7 % of the wrong ones. The networks
    that did not see the label miss 0.7, 2.9 and 3.4 %, and the probability of the given label at the end of
    cross-entropy 7.1, 21.8 and 19.4 %. The rate comes out within 0.7 points. From networks that did not see the label
    alone it comes out up to 2.6 points too high, since they know less.
    """
    given, known = judged.given, judged.known
    each = np.stack([said.margins for said in testimonies]).astype(np.float64)
    margins: NDArray[np.float64] = np.asarray(each.mean(0))
    probs = sum((said.probs for said in testimonies), np.zeros(testimonies[0].probs.shape)) / len(testimonies)
    told = np.where(known >= 0, (known != given).astype(np.float64), np.nan)
    agreement, chance = _agreement(judged, testimonies)
    others = probs.copy()
    others[np.arange(len(given)), given] = -1
    if agreement <= chance + 3 * np.sqrt(chance * (1 - chance) / len(given)):
        return _nothing(
            judged,
            margins,
            probs,
            told,
            agreement,
            f"they agree with {_percent(agreement)} of them, and {_percent(chance)} are of the commonest class",
        )
    accord = _accord(testimonies)
    if accord < AT_LEAST:
        reason = f"two networks of other folds agree on {_percent(accord)} of the images"
        return _nothing(judged, margins, probs, told, agreement, reason)
    mixture = fit(margins, told)
    wrong = np.where(np.isnan(told), mixture.wrong(margins)[0], told)
    suggested = np.where(wrong > SUSPECTED, others.argmax(1), probs.argmax(1))
    suggested = np.where(known >= 0, known, suggested)
    rate = float(wrong.mean())
    variance = float(bootstrap(margins, told, mixture, seed).var())
    if len(testimonies) > 1:  # what other networks, of other seeds and folds, would have said
        alone = [float(fit(scores, told).wrong(scores).mean()) for scores in each]
        variance += float(np.var(alone, ddof=1)) / len(alone)
    spread = NORMAL_95 * np.sqrt(variance)
    warnings = []
    if accord < IN_ACCORD:
        warnings.append(
            f"two networks of other folds agree on {_percent(accord)} of the images only: probabilities and rate may "
            "be wrong; train longer, or with a better network"
        )
    if rate > 0.5:
        warnings.append(
            f"{_percent(rate)} of the labels are called wrong, more than half: it may be the networks that are; look "
            "at the images"
        )
    if mixture.separation < DISTINCT:
        warnings.append(
            f"the networks hardly tell right labels from wrong ones (their margins overlap, Ashman's D "
            f"{mixture.separation:.1f}): take probabilities and rate with care; train longer, or with a better network"
        )
    doubtful = float(np.minimum(wrong, 1 - wrong).mean())
    if doubtful > rate / 4:
        warnings.append(
            f"by their own probabilities {100 * doubtful:.1f} % of the verdicts are wrong, of labels of which "
            f"{100 * rate:.1f} % are wrong; look at the images"
        )
    return Verdict(
        margins,
        wrong,
        suggested,
        rate,
        (max(0.0, rate - spread), min(1.0, rate + spread)),
        *_transition(given, known, wrong, others, (1 - accord) / 2 / max(1, probs.shape[1] - 1)),
        agreement,
        tuple(warnings),
    )


def _agreement(judged: Judged, testimonies: Sequence[Testimony]) -> tuple[float, float]:
    """`Verdict.agreement`, and what it would be for networks that always answer with the commonest class."""
    answers = np.full(len(judged.given), -1)
    for said in testimonies:
        asked = said.held if len(testimonies) > 1 else ~said.held
        answers[asked] = said.probs[asked].argmax(1)
    commonest = np.bincount(judged.given).max() / len(judged.given)
    return float((answers == judged.given).mean()), float(commonest)


def _accord(testimonies: Sequence[Testimony]) -> float:
    """The mean share of images on which two networks have the same likeliest class; 1 for a single network."""
    answers = [said.probs.argmax(1) for said in testimonies]
    shares = [float((one == other).mean()) for one, other in combinations(answers, 2)]
    return float(np.mean(shares)) if shares else 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _nothing(
    judged: Judged,
    margins: NDArray[np.float64],
    probs: NDArray[np.float64],
    told: NDArray[np.float64],
    agreement: float,
    reason: str,
) -> Verdict:
    """The verdict of networks that have learnt nothing: only what is known."""
    count = len(judged.data.class_names)
    empty = np.full((count, count), np.nan)
    warning = (
        f"the networks have not learnt the classes, so nothing can be said of the labels: {reason}; give more "
        "--epochs, another --learning-rate or --model"
    )
    suggested = np.where(judged.known >= 0, judged.known, probs.argmax(1))
    return Verdict(margins, told, suggested, np.nan, (np.nan, np.nan), empty, empty, empty, agreement, (warning,))


def _transition(
    given: NDArray[np.int64],
    known: NDArray[np.int64],
    wrong: NDArray[np.float64],
    others: NDArray[np.float64],
    confused: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The transition matrix with the ends of its 95 % intervals.

    Each image counts for its given class by the probability that the label is right, and for the others in proportion
    to their probabilities, or for its known class. The intervals are those of a share of so many images by Jeffreys'
    prior, widened on either side by `confused`. A share of less than one image can be 0, and one of all but less than
    one can be 1.

    Args:
        confused: the share of images that a network takes for one certain other class than they are.
    """
    samples, classes = others.shape
    weights = np.maximum(others, 0)
    weights *= (wrong / np.maximum(weights.sum(1), 1e-12))[:, None]
    weights[np.arange(samples), given] = 1 - wrong
    said = known >= 0
    weights[said] = 0
    weights[said, known[said]] = 1
    joint = np.zeros((classes, classes))
    np.add.at(joint.T, given, weights)
    total = joint.sum(1, keepdims=True)
    shares = np.where(total > 0, joint / np.maximum(total, 1e-12), np.nan)
    rest = np.maximum(total - joint, 0)
    low, high = (beta.ppf(end, joint + 0.5, rest + 0.5) for end in (0.025, 0.975))
    low, high = np.where(joint < 1, 0.0, low), np.where(rest < 1, 1.0, high)
    low, high = np.maximum(low - confused, 0), np.minimum(high + confused, 1)
    return shares, np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)
