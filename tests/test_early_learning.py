"""Early learning and memorisation in the linear model of ELR's Theorem 1 (Liu et al. 2020, section 3 and Figure A.1).

Two Gaussians in p dimensions at v and -v, of n samples a share of whose labels is drawn anew by Eq. 1, and a linear
classifier that learns by gradient descent, here on fastnoise's own losses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fastnoise import losses

N, P, SIGMA, SHARE, STEP = 1000, 900, 0.2, 0.4, 1.0
"""p / n lies between 1 - share / 2 and 1, as the theorem has it."""
STEPS = 300
"""Cross-entropy has memorised all labels by then."""


@dataclass(frozen=True)
class Model:
    samples: Tensor
    true: Tensor
    given: Tensor

    @property
    def wrong(self) -> Tensor:
        return self.given != self.true


@pytest.fixture(scope="module")
def model() -> Model:
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 2, (N,), generator=generator)
    samples = SIGMA * torch.randn(N, P, generator=generator)
    samples[:, 0] += 1 - 2 * true  # v is the first axis
    drawn_anew = torch.rand(N, generator=generator) < SHARE
    given = torch.where(drawn_anew, torch.randint(0, 2, (N,), generator=generator), true)
    return Model(samples, true, given)


@dataclass(frozen=True)
class Course:
    """Of each step, from the first to the last."""

    alignment: list[float]
    """The cosine of v, or for the other class -v, and the negative gradient."""
    true: list[float]
    """Share of the wrongly labelled samples that are predicted as their true class."""
    clean_size: list[float]
    """Mean size of the coefficient softmax_c - y_c of the samples with right labels."""
    wrong_size: list[float]
    """And of those with wrong labels."""


def descend(model: Model, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Course:
    weights = torch.zeros(2, P, requires_grad=True)
    course = Course([], [], [], [])
    index = torch.arange(N)
    for _ in range(STEPS):
        logits = model.samples @ weights.T
        (gradient,) = torch.autograd.grad(loss_of(logits, index), weights)
        with torch.no_grad():
            size = (logits.softmax(1).gather(1, model.given[:, None]) - 1).abs().squeeze(1)
            right = (logits.argmax(1) == model.true)[model.wrong]
            course.alignment.append(float(-gradient[0, 0] / gradient[0].norm()))
            course.true.append(float(right.float().mean()))
            course.clean_size.append(float(size[~model.wrong].mean()))
            course.wrong_size.append(float(size[model.wrong].mean()))
            weights -= STEP * gradient
    return course


def test_cross_entropy_learns_early_and_then_memorises(model: Model) -> None:
    """Theorem 1, its three parts."""
    course = descend(model, lambda logits, index: losses.functional.cross_entropy(logits, model.given[index]))
    learnt = 4  # T: steps until the classifier predicts nearly all true labels
    assert course.true[0] < 0.6
    assert course.true[learnt] > 0.99
    assert min(course.alignment[:learnt]) > 0.4
    pairs = zip(course.clean_size[:learnt], course.clean_size[1:], strict=False)
    assert all(later < earlier for earlier, later in pairs)
    assert course.wrong_size[learnt] > 1.3 * course.wrong_size[0]
    assert course.true[-1] == 0  # every wrong label is memorised
    assert course.alignment[-1] < 0.15


def test_elr_keeps_what_was_learnt_early(model: Model) -> None:
    """Figure A.1's second half does not come about: the regulariser's term cancels the gradients of wrong labels."""
    elr = losses.ELRLoss(N, 2, momentum=0.7, strength=3.0)
    course = descend(model, lambda logits, index: elr(logits, model.given[index], index))
    assert min(course.true[4:]) > 0.99
    assert course.wrong_size[-1] > 0.8
