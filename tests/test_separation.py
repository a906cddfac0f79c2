"""SOP's term for balanced classes, which is plain PyTorch beside the op, against autograd in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import SOPLoss, fused_linear, separation
from fastnoise.losses.reference import sop_shares, sop_sides

N, C, B = 21, 6, 9
RATES = {"rate_u": 32.0, "rate_v": 8.0}


@pytest.fixture(autouse=True)
def _large_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """u and v that show, some beyond the bound of 1."""
    monkeypatch.setattr(separation, "START", 0.6)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(B, C, generator=random)
    labels = torch.randint(C, (B,), generator=random).index_fill(0, torch.tensor([seed]), 2)
    return logits, labels, torch.randperm(N, generator=random)[:B]


def exact(loss_of: SOPLoss, logits: Tensor, labels: Tensor, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the mean loss over the rows `kept`, in logits and in rows, by autograd."""
    z, w = logits.double().requires_grad_(), rows.double().requires_grad_()
    one_hot = F.one_hot(labels, C).double()
    shares = sop_shares(sop_sides(z, labels, w))[kept]
    noise = w.square().clamp(max=1) * (2 * one_hot - 1)
    apart = (F.one_hot(z.argmax(1), C) + noise - one_hot).square().sum(1)[kept].mean()
    losses = -shares.gather(1, labels[kept][:, None]).log().mean() + apart
    (losses - loss_of.balance * shares.mean(0).clamp(1e-4, 1).log().mean()).backward()
    assert z.grad is not None
    assert w.grad is not None
    return z.grad, w.grad


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_and_steps(reduction: str, ignored: int | None, shard: tuple[int, int]) -> None:
    options: dict[str, Any] = {"reduction": reduction, "ignore_index": ignored, "shard": shard}
    loss_of = SOPLoss(N * shard[1], C, balance=0.7, **RATES, **options)
    for step in range(4):
        logits, labels, place = batch(step)
        index, kept = place * shard[1] + shard[0], torch.ones(B, dtype=torch.bool) if ignored is None else labels != 2
        assert 1 < kept.sum() < B + (ignored is None)
        before, whole = loss_of.targets[place], loss_of.targets.clone()
        leaf = logits.clone().requires_grad_()
        (loss_of(leaf, labels, index).sum() / (1 if reduction == "mean" else kept.sum())).backward()
        of_logits, of_rows = exact(loss_of, logits, labels, before, kept)
        torch.testing.assert_close(leaf.grad.double(), of_logits, rtol=1e-5, atol=1e-7)
        rates = torch.where(F.one_hot(labels, C) > 0, 32.0, 8.0) / 128
        expected = before.double() - rates * kept.sum() * of_rows
        torch.testing.assert_close(loss_of.targets[place].double(), expected, rtol=1e-5, atol=1e-6)
        others = torch.ones(len(whole), dtype=torch.bool).index_fill(0, place, False)
        assert torch.equal(loss_of.targets[others], whole[others])
        assert not torch.equal(loss_of.targets, whole)


def test_the_term_moves_u_alone_and_only_where_the_loss_may() -> None:
    logits, labels, index = batch()
    plain, balanced = SOPLoss(N, C, **RATES), SOPLoss(N, C, balance=0.7, **RATES)
    plain(logits, labels, index)
    balanced(logits, labels, index)
    moved = (plain.targets != balanced.targets).nonzero()
    assert len(moved) > 3
    found = {(int(row), int(column)) for row, column in moved}
    assert found <= {(int(row), int(column)) for row, column in zip(index, labels, strict=True)}
    for stop in (lambda: balanced.eval(), lambda: balanced.train().set_update(False)):
        stop()
        before = balanced.targets.clone()
        balanced(logits, labels, index)
        assert torch.equal(balanced.targets, before)
    balanced.set_update(True)
    balanced(logits, labels, index, update=False)
    assert torch.equal(balanced.targets, before)


def test_a_logit_that_is_not_finite_moves_only_what_sop_moves() -> None:
    """The term is NaN for the whole batch, and the rest of the step is as without it."""
    logits, labels, index = batch()
    logits[2, 3] = torch.nan
    plain, balanced = SOPLoss(N, C, **RATES), SOPLoss(N, C, balance=0.7, **RATES)
    plain(logits, labels, index)
    before = balanced.targets[index[2]].clone()
    assert balanced(logits, labels, index).isnan()
    assert balanced.targets.isfinite().all()
    assert torch.equal(balanced.targets[index[2]], before)
    assert torch.equal(balanced.targets, plain.targets)


def test_compiled_to_one_graph() -> None:
    torch._dynamo.reset()
    eager, module = (SOPLoss(N, C, balance=0.7, ignore_index=1, **RATES) for _ in range(2))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for step in range(3):
        logits, labels, index = batch(step)
        results = []
        for loss_of in (eager, compiled):
            leaf = logits.clone().requires_grad_()
            loss = loss_of(leaf, labels, index)
            loss.backward()
            results.append((loss.detach(), leaf.grad))
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(module.targets, eager.targets)


def test_autocast_leaves_the_term_in_float32() -> None:
    logits, labels, index = batch()
    found = []
    for enabled in (False, True):
        loss_of = SOPLoss(N, C, balance=0.7, **RATES)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append([loss_of(logits.bfloat16(), labels, index), loss_of.targets])
    assert found[0][0].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_refusals() -> None:
    logits, labels, index = batch()
    loss_of = SOPLoss(N, C, balance=0.7, **RATES)
    before = loss_of.targets.clone()
    with pytest.raises(ConfigError, match=r"^SOPLoss: balance is -1"):
        SOPLoss(N, C, balance=-1.0, **RATES)
    with pytest.raises(ConfigError, match=r"^SOPLoss: rate_u is nan"):
        SOPLoss(N, C, rate_u=float("nan"), rate_v=1.0)
    with pytest.raises(ConfigError, match=r"^SOPLoss: balance needs whole logits"):
        loss_of(fused_linear(logits, torch.ones(C, C)), labels, index)
    with pytest.raises(DataError, match=r"^SOPLoss: soft labels have no place here"):
        loss_of(logits, torch.rand(B, C), index)
    for wrong in ((logits, labels + C, index), (logits, labels, index + N), (logits, labels[:5], index)):
        with pytest.raises(DataError, match=r"^SOPLoss: "):
            loss_of(*wrong)
    with pytest.raises(DataError, match=r"^SOPLoss: labels is list; expected a tensor"):
        loss_of(logits, labels.tolist(), index)
    assert torch.equal(loss_of.targets, before)
