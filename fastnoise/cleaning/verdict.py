"""What follows from the networks' words: wrong labels, right ones instead, the noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import beta

from .channel import Numbers, carry_over, fit_both, of_one_kind, refit
from .mixture import bootstrap, fit
from .pool import Judged
from .testimony import SPANS, Testimony

SUSPECTED = 0.5
"""Labels that are more likely wrong than this are suspected."""

DISTINCT = 2.0
"""Ashman's D of the margins of right and wrong labels, below which they overlap too much to be told apart well."""

AT_LEAST = 0.5
"""Share of images on which two networks give the same answer, below which nothing is said. Networks that have learnt
what the classes are agree, whatever the labels."""

SURE = 0.9
"""The mean chance of the likeliest class, of images that a network has not learnt from, below which there is a warning.
Networks that mix classes up so often cannot tell their own mistakes from people's."""

DECIDED = 0.8
"""The chance of an image's likeliest class, above which another label is looked at for what it is."""

AS_NETWORKS = 0.42
"""How often such labels are the class that the network finds next likely, from 0 (as often as any) to 1 (as often as
the network's own mistakes are), from which on people, or whatever made them, confuse what networks confuse. By the
benchmark's sets: 0.31 for symmetric noise on CIFAR-10, 0.53 to 0.85 for labels by people."""

NOTICED = 0.005
"""Share of verdicts that are wrong by the networks' own probabilities, below which they are as good as certain."""

FITTED_NUMBERS = 4_000_000
"""Images times classes by which the noise is fitted; of larger data sets images are drawn."""

REPLICATES = 25
"""Samples of the bootstrap."""

NORMAL_95 = 1.959964
"""Deviations on either side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """What is found of N labels of C classes."""

    margins: NDArray[np.float64]
    """[N], how far each given label is ahead of the likeliest other class: the area under the margin (AUM, Pleiss et
    al. 2020, Eq. 1) of all networks together, scaled and moved as the noise that was found asks for, in nats. The
    lowest are the likeliest wrong ones. It is the distance to all other classes together (the log odds of
    `probability`) if the noise that was found says which classes are taken for which, and if networks are unsure and
    wrong labels fall on any class alike. Known labels have infinity, or minus infinity."""
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

    def __repr__(self) -> str:
        low, high = (_percent(end) for end in self.rate_interval)
        return (
            f"Verdict({len(self.probability)} labels of {len(self.transition)} classes: rate {_percent(self.rate)}, "
            f"95 % interval {low} to {high}, {int(self.suspected.sum())} suspected)"
        )

    @property
    def suspected(self) -> NDArray[np.bool_]:
        """[N]"""
        return np.asarray(self.probability > SUSPECTED)

    def corrected(self, given: NDArray[np.int64]) -> NDArray[np.int64]:
        """[N], the suggested class of suspected labels, else the given one."""
        return np.where(self.suspected, self.suggested, given)


@dataclass(frozen=True, eq=False)
class _Opinion:
    """What the networks make of the labels together."""

    chances: Numbers
    """[N, C], of each true class."""
    margins: Numbers
    """[N], of each given label."""
    deviation: float
    """Standard error of the rate."""
    confused: float
    """Standard error of a cell of the transition matrix, beside that of a share of so many images."""
    warnings: tuple[str, ...]


def reach(judged: Judged, testimonies: Sequence[Testimony], seed: int) -> Verdict:
    """Join what the networks said.

    With several networks, each image is judged first by the one that did not learn from its label. The noise is what
    explains the given labels best by these answers (`fit_both`), over the epochs whose answers explain them best.
    All networks together know more of an image, though some have learnt from its label; the noise that was found, and
    how far they were led by the labels (`carry_over`), turn their mean into probabilities. A single network, which
    learnt from all labels, is asked for margins alone (`fit`).
    """
    given, known = judged.given, judged.known
    agreement, chance = _agreement(judged, testimonies)
    accord = _accord(testimonies)
    reason = ""
    if agreement <= chance + 3 * np.sqrt(chance * (1 - chance) / len(given)):
        reason = f"they agree with {_percent(agreement)} of them, and {_percent(chance)} are of the commonest class"
    elif accord < AT_LEAST:
        reason = f"two networks of other folds agree on {_percent(accord)} of the images"
    if reason:
        together = np.mean([said.logits[0] for said in testimonies], axis=0).astype(np.float64)
        return _nothing(judged, together, agreement, reason)
    opinion = (_of_several if len(testimonies) > 1 else _of_one)(judged, testimonies, seed)
    chances = opinion.chances
    others = chances.copy()
    others[np.arange(len(given)), given] = 0
    wrong = others.sum(1)  # not 1 - chance, which loses what is nearly certain to rounding
    others[np.arange(len(given)), given] = -1
    suggested = np.where(wrong > SUSPECTED, others.argmax(1), chances.argmax(1))
    suggested = np.where(known >= 0, known, suggested)
    rate = float(wrong.mean())
    spread = NORMAL_95 * opinion.deviation
    unknown = int((known < 0).sum())
    # None among n that are looked at leaves a share of up to this (Jeffreys' interval of no successes).
    unnoticed = float(beta.ppf(0.975, 0.5, unknown + 0.5)) * unknown / len(given) if unknown else 0.0
    warnings = list(opinion.warnings)
    if rate > 0.5:
        warnings.append(
            f"{_percent(rate)} of the labels are called wrong, more than half: it may be the networks that are; look "
            "at the images"
        )
    doubtful = float(np.minimum(wrong, 1 - wrong).mean())
    if doubtful > max(rate / 4, NOTICED):
        warnings.append(
            f"by their own probabilities {100 * doubtful:.1f} % of the verdicts are wrong, of labels of which "
            f"{100 * rate:.1f} % are wrong; look at the images"
        )
    return Verdict(
        np.where(known >= 0, np.where(known == given, np.inf, -np.inf), opinion.margins),
        wrong,
        suggested,
        rate,
        (max(0.0, rate - spread), min(1.0, max(rate + spread, unnoticed))),
        *_transition(given, chances, opinion.confused),
        agreement,
        tuple(warnings),
    )


def margins_of(
    logits: NDArray[np.floating], labels: NDArray[np.int64], of_others: Callable[..., Numbers] = np.max
) -> Numbers:
    """[N], the logit of each label less what `of_others` makes of the others, by default the largest of them. With
    logsumexp it is the log odds against all of them together.

    Args:
        logits: [N, C]
        labels: int64 [N]
        of_others: takes [N, C], with -inf in the labels' places, and an axis.
    """
    rows = np.arange(len(labels))
    others = logits.astype(np.float64)
    of_label = others[rows, labels]
    others[rows, labels] = -np.inf
    return np.asarray(of_label - of_others(others, axis=1))


def _confused_alike(clean: Numbers, given: NDArray[np.int64]) -> float:
    """How far labels are wrong as networks are: 0 if they fall on any other class, 1 if on those that networks find
    likely.

    Args:
        clean: [N, C], the chance of each true class by networks that did not learn from the label.
        given: [N]
    """
    likeliest, classes = clean.argmax(1), clean.shape[1]
    places = np.flatnonzero((clean.max(1) > DECIDED) & (likeliest != given))
    if classes < 3 or not len(places):
        return 1.0
    others = clean[places].copy()
    others[np.arange(len(places)), likeliest[places]] = 0
    next_likely = float((others.argmax(1) == given[places]).mean())
    own = float((others.max(1) / others.sum(1)).mean())
    chance = 1 / (classes - 1)
    return (next_likely - chance) / max(1e-9, own - chance)


def _of_several(judged: Judged, testimonies: Sequence[Testimony], seed: int) -> _Opinion:
    """The opinion of networks of which each image has one that did not learn from its label.

    The standard error of the rate has two parts: the bootstrap's, and the differences between the SPANS.
    """
    given, known = judged.given, judged.known
    random = np.random.default_rng(seed)
    most = max(1, FITTED_NUMBERS // len(judged.data.class_names))
    fitted = np.sort(random.choice(len(given), most, replace=False)) if len(given) > most else np.arange(len(given))
    answers: list[Numbers] = []
    for span in range(len(SPANS)):
        unseen = np.zeros(testimonies[0].logits[span].shape)
        for said in testimonies:
            unseen[said.held] = said.logits[span][said.held]
        answers.append(np.asarray(log_softmax(unseen, 1)))
    channels = of_one_kind([fit_both(unseen[fitted], given[fitted], known[fitted]) for unseen in answers])
    span = int(np.argmax([channel.evidence for channel in channels]))
    channel, unseen = channels[span], answers[span]
    logits = np.mean([said.logits[span] for said in testimonies], axis=0).astype(np.float64)
    together = np.asarray(log_softmax(logits, 1))
    asked = fitted[known[fitted] < 0] if (known[fitted] < 0).any() else fitted
    of_asked = np.isin(fitted, asked, assume_unique=True)
    alone = channel.posterior(unseen[asked], given[asked], known[asked])
    carried = carry_over(channel, alone, together[asked], given[asked])
    rates, cells = [], []
    for _ in range(REPLICATES):
        counts = random.multinomial(len(fitted), np.full(len(fitted), 1 / len(fitted))).astype(np.float64)
        again = refit(channel, unseen[fitted], given[fitted], known[fitted], counts)
        right = again.posterior(unseen[asked], given[asked], known[asked])[np.arange(len(asked)), given[asked]]
        if counts[of_asked].any():  # of few unknown labels a sample may have none
            rates.append(1 - float(np.average(right, weights=counts[of_asked])))
        cells.append(again.transition)
    spans = [each.rate for each in channels]
    deviation = float(
        np.hypot((np.std(rates) if rates else 0.0) * np.sqrt(len(fitted) / len(given)), np.std(spans))
        * (known < 0).mean()
    )
    clean = channel.clean(unseen)
    sure = float(clean.max(1).mean())
    # A free matrix says which classes are taken for which, so the odds against all others together are right. An even
    # one spreads wrong labels over all classes. If they are as the networks' own confusions, the next class tells more.
    by_next = channel.even and (sure >= SURE or _confused_alike(clean, given) >= AS_NETWORKS)
    of_others = np.max if by_next else logsumexp
    warnings = []
    if sure < SURE:
        apart = float((clean.argmax(1) != given).mean())
        warnings.append(
            f"by their own account, networks are right about {_percent(sure)} of the images that they did not learn "
            f"from; the rate holds if wrong labels are as frequent among images that they mix up as among others, and "
            f"if people mix up the same ones, up to {_percent(apart)} may be wrong: train longer, or with a better "
            "network, and look at the images"
        )
    return _Opinion(
        carried.posterior(together, given, known),
        margins_of(carried.joint(together, given), given, of_others),
        float(deviation),
        float(np.mean(np.std(cells, axis=0))),
        tuple(warnings),
    )


def _of_one(judged: Judged, testimonies: Sequence[Testimony], seed: int) -> _Opinion:
    """The opinion of a single network that learnt from all labels, by its margins alone."""
    given, known = judged.given, judged.known
    told = np.where(known >= 0, (known != given).astype(np.float64), np.nan)
    logits = testimonies[0].logits[0]
    margins = margins_of(logits, given)
    mixture = fit(margins, told)
    wrong = np.where(np.isnan(told), mixture.wrong(margins)[0], told)
    chances = np.asarray(softmax(logits.astype(np.float64), 1))
    chances[np.arange(len(given)), given] = 0
    chances *= (wrong / np.maximum(chances.sum(1), 1e-12))[:, None]
    chances[np.arange(len(given)), given] = 1 - wrong
    said = known >= 0
    chances[said] = np.eye(chances.shape[1])[known[said]]
    warnings = []
    if mixture.separation < DISTINCT:
        warnings.append(
            f"the network hardly tells right labels from wrong ones (their margins overlap, Ashman's D "
            f"{mixture.separation:.1f}): take probabilities and rate with care; train longer, or with a better network"
        )
    deviation = float(bootstrap(margins, told, mixture, seed).std()) * float((known < 0).mean())
    return _Opinion(chances, margins, deviation, 0.0, tuple(warnings))


def _agreement(judged: Judged, testimonies: Sequence[Testimony]) -> tuple[float, float]:
    """`Verdict.agreement`, and what it would be for networks that always answer with the commonest class."""
    answers = np.full(len(judged.given), -1)
    for said in testimonies:
        asked = said.held if len(testimonies) > 1 else ~said.held
        answers[asked] = said.logits[0, asked].argmax(1)
    commonest = np.bincount(judged.given).max() / len(judged.given)
    return float((answers == judged.given).mean()), float(commonest)


def _accord(testimonies: Sequence[Testimony]) -> float:
    """The mean share of images on which two networks have the same likeliest class; 1 for a single network."""
    answers = [said.logits[0].argmax(1) for said in testimonies]
    shares = [float((one == other).mean()) for one, other in combinations(answers, 2)]
    return float(np.mean(shares)) if shares else 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _nothing(judged: Judged, logits: Numbers, agreement: float, reason: str) -> Verdict:
    """The verdict of networks that have learnt nothing: only what is known."""
    count, known = len(judged.data.class_names), judged.known
    empty = np.full((count, count), np.nan)
    warning = (
        f"the networks have not learnt the classes, so nothing can be said of the labels: {reason}; give more "
        "--epochs, another --learning-rate or --model"
    )
    told = np.where(known >= 0, (known != judged.given).astype(np.float64), np.nan)
    suggested = np.where(known >= 0, known, logits.argmax(1))
    margins = margins_of(logits, judged.given)
    return Verdict(margins, told, suggested, np.nan, (np.nan, np.nan), empty, empty, empty, agreement, (warning,))


def _transition(
    given: NDArray[np.int64], chances: Numbers, confused: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The transition matrix with the ends of its 95 % intervals.

    Each image counts for each true class by its chance. The intervals are those of a share of so many images by
    Jeffreys' prior, widened on either side by 1.96 `confused`. A share of less than one image can be 0, and one of all
    but less than one can be 1.
    """
    classes = chances.shape[1]
    joint = np.zeros((classes, classes))
    np.add.at(joint.T, given, chances)
    total = joint.sum(1, keepdims=True)
    shares = np.where(total > 0, joint / np.maximum(total, 1e-12), np.nan)
    rest = np.maximum(total - joint, 0)
    low, high = (beta.ppf(end, joint + 0.5, rest + 0.5) for end in (0.025, 0.975))
    low, high = np.where(joint < 1, 0.0, low), np.where(rest < 1, 1.0, high)
    low, high = np.maximum(low - NORMAL_95 * confused, 0), np.minimum(high + NORMAL_95 * confused, 1)
    return shares, np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)
