"""The noise as a channel: from a network's answers to the chance that each given label is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln, log_softmax
from torch import Tensor
from torch.nn import functional

Numbers = NDArray[np.float64]

PSEUDO_COUNT = 0.1
"""Images by which each cell of a free transition matrix is filled beforehand, so that none becomes 0."""

BIAS_DEVIATION = 1.0
"""Standard deviation of the prior of a class's bias. It decides for classes with few images alone."""

ITERATIONS = 200
REFIT_ITERATIONS = 30
"""Steps of L-BFGS of a fit, and of one that begins at the fit to nearly the same images."""


@dataclass(frozen=True, eq=False)
class Channel:
    """A model of the given labels: p(given = j | x) = sum_i p_i(x) T_ij (forward correction, Patrini et al. 2017).

    p(x) = softmax(scale * z + bias) is the chance of each true class, and z the log probabilities of networks that did
    not learn from the label. Networks trained on few images or for a short time are too sure or not sure enough;
    scale and bias put that right (Guo et al. 2017, section 4.2).
    """

    scale: float
    bias: Numbers
    """[C]"""
    transition: Numbers
    """[C, C], T: the share of each true class (row) that carries each label."""
    even: bool
    """Whether all cells beside the diagonal of T are the same."""
    pull: float = 0.0
    """How far the networks' log probability of the given label is raised since some of them learnt from it."""
    evidence: float = -np.inf
    """The log marginal likelihood of the given labels, with T integrated out."""

    @property
    def rate(self) -> float:
        """The mean share of the classes' images with wrong labels."""
        return 1 - float(np.diag(self.transition).mean())

    def clean(self, z: Numbers) -> Numbers:
        """[N, C], p(x): the chance of each true class by the image alone."""
        return np.asarray(np.exp(log_softmax(self.scale * z + self.bias, 1)))

    def joint(self, z: Numbers, given: NDArray[np.int64]) -> Numbers:
        """[N, C], the logarithm of the chance of each true class with the label that the image carries, up to a number
        of each image.

        Args:
            z: [N, C], log probabilities.
            given: [N]
        """
        with np.errstate(divide="ignore"):
            joint = self.scale * z + self.bias + np.log(self.transition)[:, given].T
        joint[np.arange(len(given)), given] -= self.pull
        return np.asarray(joint)

    def posterior(self, z: Numbers, given: NDArray[np.int64], known: NDArray[np.int64]) -> Numbers:
        """[N, C], the chance of each true class, given the label that the image carries.

        Args:
            z: [N, C], log probabilities.
            given: [N]
            known: [N], the right class where it is known, -1 elsewhere.
        """
        chances = np.exp(log_softmax(self.joint(z, given), 1))
        said = known >= 0
        chances[said] = np.eye(z.shape[1])[known[said]]
        return np.asarray(chances)


def fit_both(
    z: Numbers, given: NDArray[np.int64], known: NDArray[np.int64], counts: Numbers | None = None
) -> tuple[Channel, Channel]:
    """Channels with two kinds of transition matrix: one rate of wrong labels, spread evenly over the other classes, and
    a free matrix.

    Args:
        z: [N, C], log probabilities by networks that did not learn from the image's label.
        given: [N]
        known: [N], the right class where it is known, -1 elsewhere.
        counts: [N], how often each image counts. None: once.
    """
    classes = z.shape[1]
    seen = np.eye(classes) * 0.5 + 0.5 / classes  # begin where each disagreement is noise
    np.add.at(seen, (np.where(known >= 0, known, z.argmax(1)), given), 1.0 if counts is None else counts)
    start = Channel(1.0, np.zeros(classes), seen / seen.sum(1, keepdims=True), even=True)
    even, free = (refit(replace(start, even=even), z, given, known, counts, ITERATIONS) for even in (True, False))
    return even, free


def of_one_kind(found: Sequence[tuple[Channel, Channel]]) -> list[Channel]:
    """Of what `fit_both` found for each of several answers to the same labels, the even channels or the free ones.

    The noise is the same whoever answers. It is even if that has more evidence by all answers: networks that mix two
    classes up look like people who mix them up, and only images of which the networks are sure tell the two apart, so
    that weak answers leave a free matrix less evidence than the price of its cells.
    """
    kind = 0 if all(even.evidence > free.evidence for even, free in found) else 1
    return [both[kind] for both in found]


def refit(
    start: Channel,
    z: Numbers,
    given: NDArray[np.int64],
    known: NDArray[np.int64],
    counts: Numbers | None,
    steps: int = REFIT_ITERATIONS,
) -> Channel:
    """Climb from `start` to a channel of the same kind that explains the labels best."""
    classes, even = z.shape[1], start.even
    scores, labels = torch.from_numpy(z), torch.from_numpy(given)
    weights = torch.ones(len(z), dtype=torch.float64) if counts is None else torch.from_numpy(counts)
    ruled_out = torch.from_numpy((known >= 0)[:, None] & (known[:, None] != np.arange(classes)))
    diagonal = torch.eye(classes, dtype=torch.bool)
    scale, bias = _parameter(np.log(start.scale)), _parameter(start.bias)
    rate = min(max(start.rate, 1e-6), 1 - 1e-6)
    cells = _parameter(np.log(rate / (1 - rate)) if even else np.log(np.maximum(start.transition, 1e-6)))

    def log_transition() -> Tensor:
        if not even:
            return cells.log_softmax(1)
        spread = functional.logsigmoid(cells) - np.log(max(1, classes - 1))
        return torch.where(diagonal, functional.logsigmoid(-cells), spread)

    def log_likelihood(matrix: Tensor) -> Tensor:
        joint = (scores * scale.exp() + bias).log_softmax(1) + matrix[:, labels].T
        return (weights * joint.masked_fill(ruled_out, -torch.inf).logsumexp(1)).sum()

    def loss() -> Tensor:
        matrix = log_transition()
        filled = functional.logsigmoid(cells) + functional.logsigmoid(-cells) if even else matrix.sum()
        prior = PSEUDO_COUNT * filled - 0.5 * (bias / BIAS_DEVIATION).square().sum()
        return -(log_likelihood(matrix) + prior) / weights.sum()

    _descend(loss, [scale, bias, cells], steps)
    with torch.no_grad():
        matrix = log_transition()
        likelihood = float(log_likelihood(matrix))
    found = Channel(float(scale.detach().exp()), bias.detach().numpy(), matrix.exp().numpy(), even)
    joint = np.zeros((classes, classes))
    np.add.at(joint.T, given, weights.numpy()[:, None] * found.posterior(z, given, known))
    return replace(found, evidence=likelihood - _price(joint, found))


def _price(joint: Numbers, channel: Channel) -> float:
    """What it costs that a transition matrix is fitted and not known: log likelihood less log marginal likelihood.

    The marginal likelihood is that of the counts `joint` [true, given], multinomial rows with Dirichlet priors of 1 / C
    a cell (the bound of variational Bayes). A cell without images costs next to nothing, so that noise between a few
    pairs of classes is cheap, and noise between all pairs is not.
    """
    transition = channel.transition
    if channel.even:
        right = float(np.trace(joint))
        joint, transition = np.array([[right, joint.sum() - right]]), np.array([[1 - channel.rate, channel.rate]])
    prior = 1 / joint.shape[1]
    marginal = (gammaln(prior + joint) - gammaln(prior)).sum(1) - gammaln(1 + joint.sum(1))
    return float((joint * np.log(np.maximum(transition, 1e-300))).sum() - marginal.sum())


def carry_over(channel: Channel, posterior: Numbers, z: Numbers, given: NDArray[np.int64]) -> Channel:
    """The channel for the log probabilities `z` of all networks together, some of which learnt from the labels.

    The noise is that of `channel`. Scale, bias and the pull of the label are those which come nearest in cross-entropy
    to `posterior`, what the networks say that did not learn from the label: all networks know more of an image than
    these, but how far they were led by its label can only be seen beside them.
    """
    scores, labels = torch.from_numpy(z), torch.from_numpy(given)
    wanted = torch.from_numpy(posterior)
    noise = torch.from_numpy(np.log(np.maximum(channel.transition, 1e-12)))[:, labels].T
    learnt = functional.one_hot(labels, z.shape[1]).double()
    scale, bias, pull = _parameter(np.log(channel.scale)), _parameter(channel.bias), _parameter(0.0)

    def loss() -> Tensor:
        chances = (scores * scale.exp() + bias + noise - pull * learnt).log_softmax(1)
        return (0.5 * (bias / BIAS_DEVIATION).square().sum() - (wanted * chances).sum()) / len(scores)

    _descend(loss, [scale, bias, pull], ITERATIONS)
    return replace(channel, scale=float(scale.detach().exp()), bias=bias.detach().numpy(), pull=float(pull.detach()))


def _parameter(value: Numbers | float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def _descend(loss: Callable[[], Tensor], parameters: list[Tensor], steps: int) -> None:
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, history_size=20, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
