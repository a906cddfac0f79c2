"""From margins to the probability that a label is wrong: a mixture of two normal distributions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

ITERATIONS = 500
TOLERANCE = 1e-5
"""A fit ends when the share of wrong labels changes by less."""

NARROWEST = 0.02
"""The least standard deviation of a component, as a share of the scores' range."""

BINS = 512
"""Cells into which scores are counted for the bootstrap."""

REPLICATES = 200


@dataclass(frozen=True, eq=False)
class MarginMixture:
    """Normal distributions of the margins of right and of wrong labels, for each of B fits.

    The mean of the wrong ones is at most 0: of a label that is wrong, the networks hold another class to be likelier.
    Without this bound a data set without wrong labels would have its harder half called wrong.
    """

    share: Numbers
    """[B], of wrong labels."""
    means: Numbers
    """[B, 2], of right and of wrong labels."""
    deviations: Numbers
    """[B, 2]"""

    def wrong(self, scores: Numbers) -> Numbers:
        """[B, M], the probability that a label with each of M scores is wrong. It never rises with the score: far out,
        the wider of two normal distributions would win on both sides, so scores beyond the turning point count as it.
        """
        precision = 1 / self.deviations**2
        bend = precision[:, 0] - precision[:, 1]  # of the log odds, a parabola
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = ((precision[:, 0] * self.means[:, 0] - precision[:, 1] * self.means[:, 1]) / bend)[:, None]
        above, below = (bend > 0)[:, None], (bend < 0)[:, None]
        scores = np.where(above, np.minimum(scores, turn), np.where(below, np.maximum(scores, turn), scores))
        return self._posterior(scores)

    def _posterior(self, scores: Numbers) -> Numbers:
        share = np.clip(self.share, 1e-12, 1 - 1e-12)
        logs = []
        for component, weight in ((0, 1 - share), (1, share)):
            mean, deviation = self.means[:, component, None], self.deviations[:, component, None]
            logs.append(np.log(weight)[:, None] - np.log(deviation) - 0.5 * ((scores - mean) / deviation) ** 2)
        return np.asarray(1 / (1 + np.exp(np.clip(logs[0] - logs[1], -700, 700))))

    @property
    def separation(self) -> float:
        """Ashman's D of the first fit: the distance of the means in common deviations; above 2 the two are distinct."""
        distance = self.means[0, 0] - self.means[0, 1]
        return float(np.sqrt(2) * distance / np.hypot(*self.deviations[0]))


def fit(
    scores: Numbers, known: Numbers | None = None, counts: Numbers | None = None, start: MarginMixture | None = None
) -> MarginMixture:
    """Fit by expectation maximisation, begun at the sign of the scores.

    Args:
        scores: [M]
        known: [M], 1 where the label is known to be wrong, 0 where it is right, NaN elsewhere.
        counts: [B, M], how often each score counts, for B fits at once. None: each once, one fit.
        start: begins there.
    """
    scores = np.asarray(scores, np.float64)
    counts = np.ones((1, len(scores))) if counts is None else counts
    said = np.zeros(len(scores), bool) if known is None else ~np.isnan(known)
    truth = np.zeros(len(scores)) if known is None else np.nan_to_num(known)
    narrowest = max(NARROWEST * float(np.ptp(scores)), 1e-6)
    wrong = np.where(said, truth, scores < 0) if start is None else np.where(said, truth, start._posterior(scores))
    wrong = np.broadcast_to(wrong, counts.shape)
    total, share = counts.sum(1), np.zeros(len(counts))
    for _ in range(ITERATIONS):
        weights = np.stack([counts * (1 - wrong), counts * wrong], 1)  # [B, 2, M]
        sums = np.maximum(weights.sum(2), 1e-9)
        means = weights @ scores / sums
        means[:, 1] = np.minimum(means[:, 1], 0.0)
        squares = np.einsum("bkm,bkm->bk", weights, (scores - means[:, :, None]) ** 2)
        deviations = np.maximum(np.sqrt(squares / sums), narrowest)
        before, share = share, sums[:, 1] / total
        mixture = MarginMixture(share, means, deviations)
        if np.abs(share - before).max() < TOLERANCE:
            break
        wrong = np.where(said, truth, mixture._posterior(scores))
    return mixture


def bootstrap(scores: Numbers, known: Numbers, mixture: MarginMixture, seed: int) -> Numbers:
    """[REPLICATES], the share of wrong labels in fits to samples that are drawn anew, with replacement.

    Scores are counted in cells, so that the work does not grow with their number.
    """
    edges = np.linspace(scores.min(), scores.max(), BINS + 1)
    cell = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    state = np.where(np.isnan(known), 2, known).astype(np.int64)
    found, counts = np.unique(state * BINS + cell, return_counts=True)
    centres, states = (edges[:-1] + np.diff(edges) / 2)[found % BINS], found // BINS
    drawn = np.random.default_rng(seed).multinomial(len(scores), counts / len(scores), size=REPLICATES)
    fits = fit(centres, np.where(states == 2, np.nan, states), drawn.astype(np.float64), mixture)
    wrong = np.where(states == 2, fits.wrong(centres), states)
    return np.asarray((drawn * wrong).sum(1) / len(scores))
