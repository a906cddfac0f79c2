"""What two label arrays of the same samples say about the noise between them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import integer
from ..errors import DataError
from .corrupt import checked_labels
from .draws import quota, quota_up
from .instance import check_inputs
from .maps import CIFAR100_COARSE, CLASS_MAPS
from .spec import NoiseSpec, class_ranges, parse

Counts = NDArray[np.int64]

_GRID = tuple(percent / 100 for percent in range(1, 101))  # rates are whole per cents, the nominal one, or fitted
_MOST_CLASSES = 1000  # beyond these a transition matrix says nothing about a data set
CLOSE = 3.0
"""Nats, 20 to 1: conventions whose evidence differs by less are not told apart."""
_ODDS = 10.0  # that a rate is a whole per cent rather than any number, before the labels are seen
_DECISIVE = 10.0  # nats, 22,000 to 1: what it takes to contradict a nominal spec
_COMPONENTS = 16  # of the inputs, in the test of instance dependence
_TESTED_SAMPLES = 20_000  # at most, evenly spaced
_RARE = 10  # given labels with fewer samples of a class are one category in that test


@dataclass(frozen=True)
class Fit:
    """A named convention and how well it explains the labels.

    spec      the convention with its likeliest rate, in whole per cents, the nominal one or fitted
    evidence  log-likelihood of the labels in nats, less the logarithm of the number of rates tried (or half the
              logarithm of N for each number fitted, as in Schwarz's criterion)
    """

    spec: str
    evidence: float


@dataclass(frozen=True)
class InstanceTest:
    """Test whether given labels depend on the inputs within a true class. If they do not, p_value is uniform."""

    statistic: float
    degrees: int
    p_value: float


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings of `audit`.

    transition         int64 [C, C], counts by true class (row) and given label (column)
    rate, class_rates  the share of labels that differ, of all and float64 [C] of each true class (NaN: no samples)
    concentration      the share of wrong labels that are their true class's commonest wrong one; None without any
    commonest          the class that most wrong labels name, and its share of them; None likewise
    superclass_share   CIFAR-100: the share of wrong labels within the true superclass (4/99 where drawn uniformly)
    instance           None without inputs, or if no class has enough wrong labels
    fits               conventions that could have made these labels, best first
    warnings           one line each
    """

    num_samples: int
    num_classes: int
    transition: NDArray[np.int64]
    rate: float
    class_rates: NDArray[np.float64]
    concentration: float | None
    commonest: tuple[int, float] | None
    superclass_share: float | None
    instance: InstanceTest | None
    fits: tuple[Fit, ...]
    warnings: tuple[str, ...]


def audit(
    clean: ArrayLike,
    given: ArrayLike,
    *,
    num_classes: int,
    dataset: str | None = None,
    inputs: NDArray[Any] | None = None,
    nominal: str | None = None,
) -> Audit:
    """Compare given labels with true ones.

    clean, given  arrays [N] of any integer dtype with classes in [0, num_classes), at most 1000 classes
    dataset       its name; 100 classes of an unnamed data set are taken for those of CIFAR-100 where a map fits
    inputs        what the samples look like, [N, ...], for the test of instance dependence
    nominal       the noise spec that the labels are said to follow, to be checked

    Raises DataError for arrays that don't fit together, ConfigError for a bad spec.
    """
    num_classes = integer("num_classes", num_classes, 0, 2**63)
    if not 2 <= num_classes <= _MOST_CLASSES:
        raise DataError(f"an audit needs 2 to {_MOST_CLASSES} classes, these labels have {num_classes}")
    true, seen = (checked_labels(what, labels, num_classes) for what, labels in (("clean", clean), ("given", given)))
    if len(true) != len(seen):
        raise DataError(f"{len(true)} clean and {len(seen)} given labels: they must be of the same samples in order")
    if inputs is not None:
        inputs = check_inputs(inputs, len(true))
    said = None if nominal is None else parse(nominal)
    counts = np.bincount(true * num_classes + seen, minlength=num_classes**2).reshape(num_classes, num_classes)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    sizes, flips = counts.sum(1), int(wrong.sum())
    share = None
    if num_classes == 100 and flips and (dataset is None or dataset.startswith("cifar100")):
        coarse = np.array(CIFAR100_COARSE)
        share = float(wrong[coarse[:, None] == coarse].sum() / flips)
    found = Audit(
        num_samples=len(true),
        num_classes=num_classes,
        transition=counts,
        rate=flips / len(true),
        class_rates=np.where(sizes > 0, wrong.sum(1) / np.maximum(sizes, 1), np.nan),
        concentration=float(wrong.max(1).sum() / flips) if flips else None,
        commonest=(int(wrong.sum(0).argmax()), float(wrong.sum(0).max() / flips)) if flips else None,
        superclass_share=share,
        instance=None if inputs is None else instance_dependence(true, seen, inputs),
        fits=tuple(sorted(_fits(counts, said), key=lambda fit: -fit.evidence)),
        warnings=(),
    )
    return replace(found, warnings=tuple(_warnings(found, said)))


# Which convention


def _log_choose(total: NDArray[Any] | int, chosen: NDArray[Any] | int) -> Any:
    from scipy.special import gammaln

    total, chosen = np.asarray(total, float), np.asarray(chosen, float)
    return gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)


def _log_binomial(k: NDArray[Any] | int, n: NDArray[Any] | int, p: float) -> Any:
    from scipy.stats import binom

    return binom.logpmf(k, n, p)


def _of_matrix(counts: Counts, transition: NDArray[np.float64]) -> float:
    some = counts > 0
    with np.errstate(divide="ignore"):
        return float((counts[some] * np.log(transition[some])).sum())


def _independent(flips: int, total: int, rate: float) -> float:
    """log of rate^flips (1 - rate)^(total - flips)"""
    if (rate == 0 and flips) or (rate == 1 and flips < total):
        return -math.inf
    return (flips * math.log(rate) if flips else 0.0) + ((total - flips) * math.log1p(-rate) if flips < total else 0.0)


def _is_quota(flips: Any, sizes: Any, rate: float) -> bool:
    """Whether the flips are the whole numbers below or above rate times sizes, as public codes round either way."""
    pairs = zip(np.atleast_1d(flips).tolist(), np.atleast_1d(sizes).tolist(), strict=True)
    return all(k in (quota(rate, n), quota_up(rate, n)) for k, n in pairs)


@dataclass(frozen=True)
class _Rates:
    """The rates at which conventions are tried on `total` samples."""

    tried: tuple[float, ...]
    total: int

    def best(self, spec: str, likelihood: Callable[[float], float], fitted: float = 0.0) -> Fit:
        """The convention at its best rate, put into `spec`: one of those tried, or `fitted` (0 for none) where that
        explains more."""
        evidence, rate = max((likelihood(rate) - math.log(len(self.tried)), rate) for rate in self.tried)
        if 0 < fitted <= 1:
            free = likelihood(fitted) - 0.5 * math.log(self.total) - math.log(_ODDS)
            if free > evidence:
                evidence, rate = free, round(fitted, 4)
        return Fit(spec.format(rate), evidence)


def _fits(counts: Counts, nominal: NoiseSpec | None) -> Iterator[Fit]:
    """All conventions that the counts don't rule out. Labels of one transition matrix are exchangeable within their
    class, so that the counts are all that matters: a quota's likelihood is that of its counts over the number of ways
    to choose the samples."""
    num_classes, total = len(counts), int(counts.sum())
    sizes, kept = counts.sum(1), counts.diagonal()
    moved = sizes - kept
    flips = int(moved.sum())
    if not flips:
        yield Fit("none", 0.0)
        return
    said = () if nominal is None or nominal.rate is None or nominal.rate in _GRID else (nominal.rate,)
    rates = _Rates((*_GRID, *said), total)
    candidates = [
        *_symmetric(sizes, moved, rates),
        *_mapped(counts, sizes, moved, rates),
        *_heterogeneous(counts, sizes, moved, rates, nominal),
    ]
    yield from (fit for fit in candidates if fit.evidence > -math.inf)
    free = int((sizes > 0).sum()) * (num_classes - 1)
    saturated = _of_matrix(counts, counts / np.maximum(sizes, 1)[:, None])
    yield Fit("matrix (none of the named ones)", saturated - 0.5 * free * math.log(total))


def _symmetric(sizes: Counts, moved: Counts, rates: _Rates) -> Iterator[Fit]:
    num_classes, total, flips = len(sizes), rates.total, int(moved.sum())
    targets, changing = -flips * math.log(num_classes - 1), 1 - 1 / num_classes

    def drawn(rate: float) -> float:
        return targets + _independent(flips, total, rate)

    yield rates.best("symmetric:{}", drawn, flips / total)
    yield rates.best("symmetric:{},true_class=included", lambda rate: drawn(rate * changing), flips / total / changing)
    for name, k, n in (("global", np.array([flips]), np.array([total])), ("class", moved, sizes)):
        for fit in _quotas(k, n, changing, rates):
            yield Fit(f"{fit.spec},quota={name}", fit.evidence + targets)


def _quotas(flips: Counts, sizes: Counts, changing: float, rates: _Rates) -> Iterator[Fit]:
    """Symmetric noise with a quota in each group of samples, without the likelihood of the targets."""
    ways = float(_log_choose(sizes, flips).sum())

    def included(rate: float) -> float:
        drawn = np.array([quota(rate, size) for size in sizes.tolist()])
        return float(_log_binomial(flips, drawn, changing).sum()) - ways

    yield rates.best("symmetric:{}", lambda rate: -ways if _is_quota(flips, sizes, rate) else -math.inf)
    yield rates.best("symmetric:{},true_class=included", included)


def _mapped(counts: Counts, sizes: Counts, moved: Counts, rates: _Rates) -> Iterator[Fit]:
    num_classes = len(counts)
    maps = [(name, targets, 0.0) for name, targets in CLASS_MAPS.items() if len(targets) == num_classes]
    if num_classes == 100:
        maps.append(("sce", _sce_pairs(counts), -20 * math.log(10)))  # ten pairs in each of twenty blocks
    for name, targets, prior in maps:
        spec = f"asymmetric:{{}},map={name}"
        fits = [] if name == "cycle100" else [*_of_map(spec, targets, counts, sizes, moved, rates)]  # that is pair
        if any(targets[target] != target for target in targets):  # a label that changed may change again
            chain = partial(_of_chain, counts, targets)
            fits.append(rates.best(f"{spec},sequential=true", chain))
        yield from (Fit(fit.spec, fit.evidence + prior) for fit in fits)
    pair = tuple((label + 1) % num_classes for label in range(num_classes))
    yield from _of_map("pair:{}", pair, counts, sizes, moved, rates)


def _of_chain(counts: Counts, targets: tuple[int, ...], rate: float) -> float:
    return _of_matrix(counts, sequential_transition(targets, rate))


def _of_map(
    spec: str, targets: tuple[int, ...], counts: Counts, sizes: Counts, moved: Counts, rates: _Rates
) -> Iterator[Fit]:
    from scipy.stats import hypergeom

    total, flips = rates.total, int(moved.sum())
    changing = np.array([label != target for label, target in enumerate(targets)])
    if counts[np.arange(len(counts)), list(targets)][changing].sum() != flips:
        return  # some label went elsewhere
    n, k = sizes[changing], moved[changing]
    members = int(n.sum())

    def globally(rate: float) -> float:
        return float(hypergeom.logpmf(flips, total, members, quota(rate, total)) - _log_choose(members, flips))

    ways = float(_log_choose(n, k).sum())
    yield rates.best(spec, lambda rate: _independent(flips, members, rate), flips / members)
    yield rates.best(f"{spec},quota=global", globally)
    yield rates.best(f"{spec},quota=class", lambda rate: -ways if _is_quota(k, n, rate) else -math.inf)


def sequential_transition(targets: tuple[int, ...], rate: float) -> NDArray[np.float64]:
    """T [C, C] of the sequential variant: what class 0 does to its labels, times what class 1 does, and so on."""
    transition = np.eye(len(targets))
    for label, target in enumerate(targets):
        if target != label:
            leaving = rate * transition[:, label]
            transition[:, label] -= leaving
            transition[:, target] += leaving
    return transition


def _sce_pairs(counts: Counts) -> tuple[int, ...]:
    """The map of the likeliest pair of each block of five."""
    targets = np.arange(100)
    for first in range(0, 100, 5):
        block = counts[first : first + 5, first : first + 5].copy()
        np.fill_diagonal(block, 0)
        one, other = np.unravel_index((block + block.T).argmax(), block.shape)
        if one != other:
            targets[[first + one, first + other]] = first + other, first + one
    return tuple(targets.tolist())


def _heterogeneous(
    counts: Counts, sizes: Counts, moved: Counts, rates: _Rates, nominal: NoiseSpec | None
) -> Iterator[Fit]:
    """The clean classes are those without a wrong label; naming them costs one of C choose U and of C sizes. Those of
    the nominal spec are named beforehand; a class beside them may have no wrong label by chance."""
    num_classes = len(counts)
    unmoved = (moved == 0) & (sizes > 0)
    said = None if nominal is None or nominal.clean is None else _members(nominal.clean, num_classes)
    if said is not None and not moved[said].any():
        yield from _of_clean(said, counts, sizes, moved, rates)
    if unmoved.any() and (said is None or not np.array_equal(unmoved, said)):
        named = float(_log_choose(num_classes, int(unmoved.sum()))) + math.log(num_classes)
        yield from (Fit(fit.spec, fit.evidence - named) for fit in _of_clean(unmoved, counts, sizes, moved, rates))


def _members(text: str, num_classes: int) -> NDArray[np.bool_] | None:
    """bool [C], the classes that a spec lists; None if there are not so many."""
    ranges = class_ranges(text)
    if ranges[-1][1] >= num_classes:
        return None
    found = np.zeros(num_classes, bool)
    for first, last in ranges:
        found[first : last + 1] = True
    return found


def _of_clean(clean: NDArray[np.bool_], counts: Counts, sizes: Counts, moved: Counts, rates: _Rates) -> Iterator[Fit]:
    members, flips = int(sizes[~clean].sum()), int(moved.sum())
    fit = rates.best("{}", lambda rate: _independent(flips, members, rate), flips / members)
    for strategy, choices in ((1, len(counts) - 1), (2, int((~clean).sum()) - 1)):
        if choices < 1 or (strategy == 2 and counts[~clean][:, clean].any()):
            continue
        text = "+".join(map(str, np.flatnonzero(clean)))
        spec = parse(f"heterogeneous:{fit.spec},clean={text},strategy={strategy}")
        yield Fit(str(spec), fit.evidence - flips * math.log(choices))


# Instance dependence


def instance_dependence(
    clean: NDArray[np.int64], given: NDArray[np.int64], inputs: NDArray[Any]
) -> InstanceTest | None:
    """Test whether given labels [N] depend on inputs [N, ...] within the true classes; None if nothing can be tested.

    In each class, given labels (as indicators) are correlated with the 16 leading principal components of the inputs,
    centred within classes: (n - 1) times Pillai's trace, which under permutations of the labels has mean
    rank(inputs) rank(indicators) and, for many samples, a chi-square distribution. The sum over classes is compared
    with a chi-square. Linear dependence is found; at most 20,000 samples, evenly spaced, are looked at.
    """
    from scipy.stats import chi2
    from sklearn.utils.extmath import randomized_svd

    rows = np.unique(np.linspace(0, len(clean) - 1, min(len(clean), _TESTED_SAMPLES)).astype(np.int64))
    clean, given = clean[rows], given[rows]
    features = np.ascontiguousarray(inputs[rows], np.float32).reshape(len(rows), -1)
    for label in np.unique(clean):
        features[clean == label] -= features[clean == label].mean(0)
    count = min(_COMPONENTS, *features.shape)
    if features.shape[1] > count:
        _, _, axes = randomized_svd(features, count, n_iter=4, random_state=0)
        features = features @ axes.T
    statistic, degrees = 0.0, 0
    for label in np.unique(clean):
        members = np.flatnonzero(clean == label)
        values, inverse, counts = np.unique(given[members], return_inverse=True, return_counts=True)
        category = np.where(counts >= _RARE, np.arange(len(values)), len(values))[inverse]
        used, category = np.unique(category, return_inverse=True)
        rare = np.bincount(category) < _RARE
        if len(members) <= 4 * count or len(used) - rare.sum() < 2:
            continue
        x = features[members].astype(np.float64)
        y = np.eye(len(used))[category]
        x, y = x - x.mean(0), y - y.mean(0)
        cross = x.T @ y
        trace = np.trace(np.linalg.pinv(x.T @ x) @ cross @ np.linalg.pinv(y.T @ y) @ cross.T)
        statistic += (len(members) - 1) * float(trace)
        degrees += int(np.linalg.matrix_rank(x)) * (len(used) - 1)
    return InstanceTest(statistic, degrees, float(chi2.sf(statistic, degrees))) if degrees else None


# What to say


def _warnings(found: Audit, nominal: NoiseSpec | None) -> Iterator[str]:
    best = found.fits[0]
    named = not best.spec.startswith("matrix")
    decided = named and all(best.evidence - fit.evidence > CLOSE for fit in found.fits[1:])
    spec = nominal or (parse(best.spec) if decided else None)
    if spec is not None and spec.rate is not None:
        yield from _rate_warning(found, spec)
    if nominal is not None and nominal.kind == "none" and found.rate > 0:
        yield f"the labels are said to be clean, but {100 * found.rate:.2f} % of them differ"
    if nominal is not None:
        yield from _convention_warning(found, nominal)
    elif not named:
        yield "no named convention explains these labels: their noise is class-dependent in a way of its own, or human"
    if (
        found.superclass_share is not None
        and found.superclass_share < 0.5
        and spec is not None
        and spec.map is not None
    ):
        yield (
            f"only {100 * found.superclass_share:.1f} % of the wrong labels stay within their CIFAR-100 superclass: "
            f"map={spec.map} is not superclass noise"
        )
    if found.commonest is not None and found.num_classes > 2 and found.commonest[1] > 0.5:
        label, share = found.commonest
        yield (
            f"{100 * share:.1f} % of all wrong labels name class {label}, as one random projection of raw pixels does"
        )
    if found.instance is not None and found.instance.p_value < 1e-6:
        yield "within a true class the given labels depend on the inputs: the noise is instance-dependent"


def _rate_warning(found: Audit, spec: NoiseSpec) -> Iterator[str]:
    rate = float(spec.rate or 0.0)
    spread = math.sqrt(max(rate * (1 - rate), 1e-12) / found.num_samples)
    if abs(found.rate - rate) <= max(4 * spread, 0.005):
        return
    reason = ""
    included = str(replace(spec, true_class="included")) if spec.kind == "symmetric" else ""
    close = [fit.spec for fit in found.fits if found.fits[0].evidence - fit.evidence < CLOSE]
    if spec.true_class == "excluded" and included in close:
        reason = f": {included} explains that"
    elif spec.true_class == "included":
        reason = f": it draws the true class too, once in {found.num_classes}"
    elif spec.kind == "asymmetric":
        moving = int((np.nan_to_num(found.class_rates) > 0).sum())
        reason = f": {moving} of {found.num_classes} classes change"
        if spec.sequential:
            reason += ", and labels already changed change again"
    elif spec.kind == "heterogeneous":
        reason = ": the clean classes keep their labels"
    yield f"the nominal rate of {spec} is {100 * rate:.2f} %, but {100 * found.rate:.2f} % of the labels differ{reason}"


def _convention_warning(found: Audit, nominal: NoiseSpec) -> Iterator[str]:
    def family(spec: str) -> str:
        return str(replace(parse(spec), rate=0.5))

    best = found.fits[0]
    if nominal.kind not in ("symmetric", "asymmetric", "pair", "heterogeneous") or nominal.classes is not None:
        return  # conventions that no label counts tell apart
    if nominal.map is None and nominal.kind == "asymmetric":
        return
    if not found.rate:  # as any of them at rate 0; if that is not the nominal rate, it has been said
        return
    if nominal.map == "cycle100" and not nominal.sequential:  # under which name pair is known here
        nominal = replace(nominal, kind="pair", map=None)
    same = [fit for fit in found.fits if not fit.spec.startswith("matrix") and fit.spec != "none"]
    evidence = next((fit.evidence for fit in same if family(fit.spec) == family(str(nominal))), -math.inf)
    if best.evidence - evidence > _DECISIVE:
        how = "impossible" if evidence == -math.inf else f"{best.evidence - evidence:.0f} nats less likely"
        yield f"these labels do not follow {nominal}, at any rate: that is {how}; best explanation: {best.spec}"
