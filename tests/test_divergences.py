"""JSLoss and GJSLoss: limits, views, labels of all kinds, refusals. test_parity.py has the authors' values."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import CrossEntropyLoss, GJSLoss, JSLoss, MAELoss, functional, reference

B, C = 6, 5


def leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_(True)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits of two views, and labels."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(2 * B, C, generator=random), torch.randint(C, (B,), generator=random)


def test_js_lies_between_cross_entropy_and_mae(batch: tuple[Tensor, Tensor]) -> None:
    """Proposition 1 of the paper."""
    logits, labels = batch[0][:B], batch[1]
    torch.testing.assert_close(JSLoss(pi=1e-4)(logits, labels), CrossEntropyLoss()(logits, labels), rtol=1e-2, atol=0)
    near = JSLoss(pi=1 - 1e-6)(logits, labels) / MAELoss(form="reduced")(logits, labels)
    torch.testing.assert_close(near, torch.tensor(1.0), rtol=0.1, atol=0)


def test_views_that_agree_cost_less(batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    one_view = JSLoss(pi=0.3)(logits[:B], labels)
    same = GJSLoss(pi=0.3)(torch.cat([logits[:B]] * 2), labels)
    torch.testing.assert_close(same, one_view)
    torch.testing.assert_close(GJSLoss(pi=0.3)(logits[:B], labels), one_view)
    both = (JSLoss(pi=0.3)(logits[:B], labels) + JSLoss(pi=0.3)(logits[B:], labels)) / 2
    assert GJSLoss(pi=0.3)(logits, labels) > both


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_labels_and_weights(batch: tuple[Tensor, Tensor], reduction: str) -> None:
    """A sample that is ignored has loss and gradient 0, whatever its logits, and label."""
    logits, labels = batch
    weight, factors = torch.rand(B), torch.rand(C)
    plain = GJSLoss(pi=0.3, reduction="none")(logits, labels)
    expected = plain * weight * factors[labels]
    labels, logits = labels.clone(), logits.clone()
    labels[2] = -100
    logits[2] = torch.nan
    expected[2] = 0
    values = {"none": expected, "sum": expected.sum(), "mean": expected.sum() / (B - 1)}
    given, weights = leaf(logits), leaf(weight)
    loss_of = GJSLoss(pi=0.3, reduction=reduction, ignore_index=-100, class_weight=factors)
    found = loss_of(given, labels, weight=weights)
    torch.testing.assert_close(found, values[reduction])
    found.sum().backward()
    assert not given.grad[[2, B + 2]].any()
    assert given.grad[[0, B]].all()
    assert weights.grad[0] != 0
    function = functional.gjs(logits, labels, pi=0.3, ignore_index=-100, weight=weight * factors[labels.clamp(0)])
    torch.testing.assert_close(function, values["mean"])
    assert GJSLoss(ignore_index=0)(logits[:2], torch.zeros(1, dtype=torch.int64)) == 0
    assert not GJSLoss(reduction="none")(torch.zeros(0, C), torch.zeros(0, dtype=torch.int64)).numel()


def test_soft_labels_take_the_place_of_the_one_hot(batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    soft, factors = torch.rand(B, C).softmax(1), torch.rand(C)
    hard = GJSLoss(reduction="none")(logits, labels)
    torch.testing.assert_close(GJSLoss(reduction="none")(logits, F.one_hot(labels, C).half()), hard)
    found = GJSLoss(pi=0.2, reduction="none", class_weight=factors)(logits, soft)
    probs = logits.double().softmax(1).chunk(2)
    rows = [(0.2, soft.double()), (0.4, probs[0]), (0.4, probs[1])]
    mean = sum(share * row for share, row in rows)
    expected = sum(share * (row * (row.log() - mean.log())).sum(1) for share, row in rows)
    expected = expected / -(0.8 * torch.tensor(0.8, dtype=torch.float64).log()) * (soft @ factors)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(functional.js(logits[:B], soft), JSLoss()(logits[:B], soft))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_masked_classes(batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    logits, labels = batch[0].to(dtype), batch[1]
    logits[:, 0] = -torch.inf
    given = leaf(logits)
    with torch.autocast("cpu", torch.bfloat16):
        found = GJSLoss(pi=0.3, reduction="none")(given, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), reference.gjs(logits.double(), labels, pi=0.3), rtol=1e-5, atol=1e-6)
    found.mean().backward()
    assert given.grad.dtype == dtype
    assert given.grad.isfinite().all()
    assert not given.grad[:, 0].any()
    broken = logits.clone()
    broken[1, 2] = torch.nan
    assert GJSLoss(reduction="none")(broken, labels).isnan().tolist() == [row == 1 for row in range(B)]


def test_refusals(batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    for pi in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"^GJSLoss: pi is .*: it must lie in \(0, 1\)"):
            GJSLoss(pi=pi)
    with pytest.raises(
        DataError, match=r"^JSLoss: labels is int64 \[6\]; expected int64 or soft, one, for logits \[12"
    ):
        JSLoss()(logits, labels)
    with pytest.raises(DataError, match=r"^GJSLoss: labels is int64 \[5\]; expected .* one for each sample of a view"):
        GJSLoss()(logits, labels[:5])
    with pytest.raises(DataError, match=r"^GJSLoss: labels is int32 \[6\]"):
        GJSLoss()(logits, labels.int())
    with pytest.raises(DataError, match=r"^GJSLoss: labels is list; expected a tensor"):
        GJSLoss()(logits, [0] * B)
    with pytest.raises(DataError, match=r"^GJSLoss: soft labels take no ignore_index"):
        GJSLoss(ignore_index=1)(logits, torch.rand(B, C))
    with pytest.raises(DataError, match=r"^GJSLoss: weight is float32 \[12\]; expected floating point \[6\]"):
        GJSLoss()(logits, labels, weight=torch.ones(2 * B))
    with pytest.raises(DataError, match=r"^gjs: label -1 is outside 0\.\.4"):
        functional.gjs(logits, labels - labels.max() - 1 + labels.min())
