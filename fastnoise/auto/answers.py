"""How many labels are wrong, from networks' answers for images whose labels they have not seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from ..cleaning.channel import fit_both
from ..cleaning.verdict import margins_of

SUREST = 800
"""How many images, the surest of each predicted class, have their labels compared with the answers. They are at least a
tenth of all, since a tail is of odd images, and at most half."""

LEAST_SURE = 10
"""Of a predicted class."""

FITTED_NUMBERS = 1_000_000
"""Images times classes by which the channel's model is fitted; of larger sets every so many images are taken."""

AGREE = 0.1
"""How far the rate among the surest images may lie from that of the channel's model for the latter to be believed."""

TOO_UNSURE = 1.5
"""Scale of the channel's log probabilities from which on answers are sharpened before their doubts are counted. Courses
of few steps end that unsure."""

SHARE_STEPS = 10
"""Steps of EM towards the classes' shares."""

SURE = 0.98
"""Chance of an answer from which on its image is among the surest too, up to half of the images of a class."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What n answers beside n labels of C classes say."""

    answer: NDArray[np.int64]
    """[n], the likeliest class."""
    sure: NDArray[np.bool_]
    """[n], the images of which the networks are surest, among those that they answer alike."""
    counts: NDArray[np.float64]
    """[C, C], how many of these have each answer (row) and label."""
    rates: NDArray[np.float64]
    """Of wrong labels among the surest images, by answer, of the classes that are answered."""
    rate: float
    """Of wrong labels in all."""

    @property
    def wrong(self) -> NDArray[np.float64]:
        """[C, C], `counts` without the labels that are as answered."""
        return beside(self.counts)


def read(answers: NDArray[np.float64], given: NDArray[np.int64]) -> Reading:
    """Compare answers with labels.

    A model of the noise and of the networks' mistakes (`cleaning.channel`) tells the two apart if noise is even. It is
    believed if it comes near the rate among the surest images. Noise between certain classes looks to it like
    mistakes, so the rate is then that among the surest images, less the networks' own doubts about these.

    Args:
        answers: [n, C], mean log probabilities.
        given: [n], the labels.
    """
    answer, classes = answers.argmax(1), answers.shape[1]
    every = -(-answers.size // FITTED_NUMBERS)
    z = np.asarray(log_softmax(answers, 1))
    few, labels = z[::every], given[::every]
    unknown = np.full(len(labels), -1)
    even, free = fit_both(few, labels, unknown)
    chances = free.clean(z) if free.scale > TOO_UNSURE else np.exp(z)
    sure = surest(answers, chances)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (answer[sure], given[sure]), 1)
    seen = counts.any(1)
    share = shares_of(answer, given, counts)[seen]
    rates = 1 - np.diag(counts)[seen] / counts.sum(1)[seen]
    rate = float(np.average(rates, weights=share))
    modelled = 1 - float(even.posterior(few, labels, unknown)[np.arange(len(labels)), labels].mean())
    if even.evidence > free.evidence and abs(rate - modelled) < AGREE:
        return Reading(answer, sure, counts, rates, modelled)
    doubt = np.bincount(answer[sure], weights=doubts_of(chances[sure], counts), minlength=classes)
    mistaken = float(np.average(doubt[seen] / counts.sum(1)[seen], weights=share))
    return Reading(answer, sure, counts, rates, max(0.0, (rate - mistaken) / max(1e-9, 1 - mistaken)))


def surest(answers: NDArray[np.float64], chances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n], which images the networks are surest of among those that they answer alike, by the margin of the likeliest
    class over the next one: SUREST in all, and those whose answer has at least the chance SURE.

    Args:
        answers: [n, C], mean log probabilities.
        chances: [n, C], of the right classes.
    """
    answer = answers.argmax(1)
    margin = margins_of(answers, answer)
    certain = chances[np.arange(len(answer)), answer] >= SURE
    share = min(0.5, max(0.1, SUREST / len(answers)))
    sure = np.zeros(len(answers), bool)
    for label in np.unique(answer):
        members = np.flatnonzero(answer == label)
        wanted = max(LEAST_SURE, int(share * len(members)), min(len(members) // 2, int(certain[members].sum())))
        sure[members[np.argsort(-margin[members], kind="stable")[:wanted]]] = True
    return sure


def shares_of(answer: NDArray[np.int64], given: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C], the share of each true class: the mean of two estimates.

    One is the share of the answers, which is too small for a class whose labels are often wrong if networks follow
    these. The other goes back from the labels through the noise among the surest images, by a few steps of EM, since
    strong noise magnifies what is wrong with its estimate.

    Args:
        answer: [n]
        given: [n], the labels.
        counts: [C, C], how many of the surest images have each answer (row) and label.
    """
    classes = len(counts)
    noise = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    labelled = np.bincount(given, minlength=classes) / len(given)
    shares = counts.any(1) / counts.any(1).sum()
    for _ in range(SHARE_STEPS):
        shares = shares * (noise @ (labelled / np.maximum(shares @ noise, 1e-12)))
        shares /= shares.sum()
    return np.asarray((np.bincount(answer, minlength=classes) / len(answer) + shares) / 2)


def doubts_of(chances: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n], the chance that the answer is wrong, by the networks' own account, and not for the noise's sake.

    Networks that have learnt from noise between two classes doubt between these two. Such doubt is of no account: if
    the other class is the right one, the label is as often wrong. Whatever else is not the answer's counts.

    Args:
        chances: [n, C], of the classes.
        counts: [C, C], of answer (row) and label; the commonest wrong label of a class makes the two a pair.
    """
    paired = np.eye(len(counts), dtype=bool)
    paired[np.arange(len(counts)), beside(counts).argmax(1)] = True
    paired |= paired.T
    return np.asarray(1 - (chances * paired[chances.argmax(1)]).sum(1)).clip(0, 1)


def beside(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, C], what is beside the diagonal."""
    others = counts.copy()
    np.fill_diagonal(others, 0)
    return others
