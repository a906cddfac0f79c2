"""The losses against the authors' formulas, constants and clamps, written out plainly and run in float64.

Every function here is the loss of a batch as its authors compute it, in the mean over the batch, with the whole table.
The deviations are those listed at the head of each family's file in fastnoise/losses/.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from _loss_cases import leaf
from torch import Tensor

from fastnoise.losses import (
    APLLoss,
    BootstrapLoss,
    ELRLoss,
    ELRPlusLoss,
    FocalLoss,
    ForwardLoss,
    GCELoss,
    GJSLoss,
    JSLoss,
    MAELoss,
    NALLoss,
    NCELoss,
    NFLLoss,
    SCELoss,
    SELCLoss,
    SOPLoss,
)
from fastnoise.losses.base import LabelLoss

N, C, B = 30, 10, 12


def elr(logits: Tensor, labels: Tensor, index: Tensor, table: Tensor, beta: float, strength: float) -> Tensor:
    """Clamp, normalise a detached copy for the table, then both terms."""
    probs = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
    fixed = probs.detach()
    table[index] = beta * table[index] + (1 - beta) * fixed / fixed.sum(dim=1, keepdim=True)
    penalty = torch.log(1 - (table[index] * probs).sum(dim=1)).mean()
    return F.cross_entropy(logits, labels) + strength * penalty


def elr_plus(
    logits: Tensor,
    other_logits: Tensor,
    labels: Tensor,
    index: Tensor,
    order: Tensor,
    share: float,
    table: Tensor,
    beta: float,
    strength: float,
    hundred_classes: bool,
) -> Tensor:
    """The table from the other network's unclamped probabilities; labels and rows mixed with the permuted batch."""
    table[index] = beta * table[index] + (1 - beta) * F.softmax(other_logits, dim=1)
    q = share * table[index] + (1 - share) * table[index[order]]
    one_hot = F.one_hot(labels, C).to(logits.dtype)
    mixed = share * one_hot + (1 - share) * one_hot[order]
    if hundred_classes:
        mixed = mixed * q
        mixed = mixed / mixed.sum(dim=1, keepdim=True)
    probs = F.softmax(logits, dim=1).clamp(1e-4, 1 - 1e-4)
    ce = -(mixed * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    return ce + strength * torch.log(1 - (q * probs).sum(dim=1)).mean()


def nal(
    logits: Tensor,
    attention: Tensor,
    index: Tensor,
    table: Tensor,
    strength: float,
    alpha: float,
    beta: float,
    delta: float,
    update: bool,
) -> Tensor:
    """`table` starts as one-hot labels; after an updating batch all of it is clamped."""
    probs = F.softmax(logits, dim=1).clamp(1e-12, 1 - 1e-12)
    tau = torch.sigmoid(attention).clamp(1e-12, 1 - 1e-12)[:, None]
    if update:
        trusted = (tau > delta)[:, 0]
        table[index[trusted]] = alpha * table[index[trusted]] + (1 - alpha) * probs.detach()[trusted]
        table.clamp_(1e-4, 1)
        targets = table[index]
    else:
        targets = table[index].clamp(1e-4, 1)
    shortcut = (tau * probs + (1 - tau) * targets).clamp(1e-7, 1)
    loss = -(targets * shortcut.log()).sum(dim=1).mean() - strength * tau.log().mean()
    return loss + beta * -(shortcut * targets.log()).sum(dim=1).mean()


def selc(logits: Tensor, index: Tensor, table: Tensor, alpha: float, update: bool) -> Tensor:
    """`table` starts as one-hot labels."""
    probs = F.softmax(logits, dim=1)
    if update:
        table[index] = alpha * table[index] + (1 - alpha) * probs.detach()
    return -(table[index] * probs.log()).sum(dim=1).mean()


def overparametrization_loss(logits: Tensor, label: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Of the one-hot labels, and the batch's rows of u [B, 1] and v [B, C], without the other terms of SOP+."""
    u_square = torch.clamp(u**2 * label, 0, 1)
    v_square = torch.clamp(v**2 * (1 - label), 0, 1)
    prediction = torch.clamp(F.softmax(logits, dim=1) + u_square - v_square.detach(), min=1e-4)
    prediction = torch.clamp(F.normalize(prediction, p=1, eps=1e-4), min=1e-4, max=1.0)
    hard = torch.zeros_like(logits).scatter_(1, logits.argmax(dim=1).view(-1, 1), 1)
    mse = F.mse_loss(hard + u_square - v_square, label, reduction="sum") / len(label)
    return torch.mean(-torch.sum(label * torch.log(prediction), dim=-1)) + mse


def sce(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    probs, one_hot = F.softmax(logits, dim=1), F.one_hot(labels, C).to(logits.dtype)
    forward = -(one_hot * probs.clamp(1e-7, 1).log()).sum(dim=1).mean()
    reverse = -(probs * one_hot.clamp(1e-4, 1).log()).sum(dim=1).mean()
    return alpha * forward + beta * reverse


def gce(logits: Tensor, labels: Tensor, q: float, floor: float = 0.0) -> Tensor:
    own = F.softmax(logits, dim=1).gather(1, labels[:, None]).clamp(min=floor)
    return ((1 - own**q) / q).mean()


def js_custom(preds: list[Tensor], labels: Tensor, weights: list[float], scaled: bool = True) -> Tensor:
    """JensenShannonDivergenceWeightedScaled, or -Custom; custom_kl_div is 0 where its target is."""

    def kl(log_mean: Tensor, target: Tensor) -> Tensor:
        values = target * (target.clamp(min=1e-7).log() - log_mean)
        return torch.where(target > 0, values, torch.zeros_like(values)).sum(dim=1).mean()

    distributions = [F.one_hot(labels, C).to(preds[0].dtype), *(F.softmax(p, dim=1) for p in preds)]
    mean = sum(w * d for w, d in zip(weights, distributions, strict=True))
    log_mean = mean.clamp(1e-7, 1.0).log()
    divergence = sum(w * kl(log_mean, d) for w, d in zip(weights, distributions, strict=True))
    scale = -1.0 / ((1.0 - weights[0]) * math.log(1.0 - weights[0]))
    return scale * divergence if scaled else divergence


def nce_and_mae(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    log_probs, one_hot = F.log_softmax(logits, dim=1), F.one_hot(labels, C).to(logits.dtype)
    nce = (one_hot * log_probs).sum(dim=1) / log_probs.sum(dim=1)
    return alpha * nce.mean() + beta * (1 - (one_hot * log_probs.exp()).sum(dim=1)).mean()


class Steps:
    """Five batches whose indices overlap from batch to batch."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.labels = torch.randint(C, (N,), generator=self.random)
        self.one_hot = F.one_hot(self.labels, C).double()

    def __iter__(self):
        for _ in range(5):
            logits = 4 * torch.randn(B, C, generator=self.random)
            logits[0] *= 6  # probabilities beyond every clamp but NAL's lowest
            yield logits, torch.randn(B, generator=self.random), torch.randperm(N, generator=self.random)[:B]


def agree(found: Tensor, expected: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Losses, and gradients of (fp32, float64) leaves."""
    found.backward()
    expected.backward()
    torch.testing.assert_close(found.detach().double(), expected.detach(), atol=2e-6, rtol=2e-6)
    for one, other in pairs:
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-6, rtol=1e-5)


def test_elr() -> None:
    steps, table = Steps(), torch.zeros(N, C, dtype=torch.float64)
    loss_of = ELRLoss(N, C, strength=3.0, momentum=0.7)
    for logits, _, index in steps:
        one, other = leaf(logits), leaf(logits.double())
        labels = steps.labels[index]
        agree(loss_of(one, labels, index), elr(other, labels, index, table, 0.7, 3.0), (one, other))
        torch.testing.assert_close(loss_of.targets.double(), table, atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", ["labels", "weighted"])
def test_elr_plus(target: str) -> None:
    steps, table = Steps(), torch.zeros(N, C, dtype=torch.float64)
    loss_of = ELRPlusLoss(N, C, strength=7.0, momentum=0.9, target=target)
    for number, (logits, _, index) in enumerate(steps):
        one, other, teacher = leaf(logits), leaf(logits.double()), logits.roll(1, 0)
        labels, order, share = steps.labels[index], torch.randperm(B, generator=steps.random), 0.5 + 0.1 * number
        loss_of.update_targets(teacher, index)
        found = loss_of(one, labels, index, labels[order], index[order], torch.tensor(share))
        inputs = other, teacher.double(), labels, index, order, share, table
        agree(found, elr_plus(*inputs, 0.9, 7.0, target == "weighted"), (one, other))
        torch.testing.assert_close(loss_of.targets.double(), table, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("reverse", "gate"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.5)])
def test_nal(reverse: float, gate: float) -> None:
    """From the second updating batch of a sample on, and before the first: see the deviation below."""
    steps = Steps()
    table = steps.one_hot.clamp(1e-4, 1)
    loss_of = NALLoss(N, C, strength=0.5, momentum=0.9, variant="code", reverse=reverse, gate=gate)
    for number, (logits, attention, index) in enumerate(steps):
        update = number not in (0, 3)
        heads, leaves = (leaf(attention), leaf(attention.double())), (leaf(logits), leaf(logits.double()))
        found = loss_of(leaves[0], steps.labels[index], index, heads[0], update=update)
        expected = nal(leaves[1], heads[1], index, table, 0.5, 0.9, reverse, gate, update)
        agree(found, expected, leaves, heads)
        visited = loss_of.targets.any(1)
        # Rows that no batch has updated: theirs are clamped with the whole table, ours when they are read.
        torch.testing.assert_close(table[~visited], steps.one_hot[~visited].clamp(1e-4, 1))
        torch.testing.assert_close(loss_of.targets[visited].double(), table[visited], atol=1e-6, rtol=0)


def test_selc() -> None:
    steps = Steps()
    table = steps.one_hot.clone()
    loss_of = SELCLoss(N, C, momentum=0.9)
    for number, (logits, _, index) in enumerate(steps):
        one, other = leaf(logits), leaf(logits.double())
        loss_of.set_update(number > 0)
        agree(loss_of(one, steps.labels[index], index), selc(other, index, table, 0.9, number > 0), (one, other))


def test_sop() -> None:
    """With steps for a batch of B in place of the authors' 128, and from u and v that are large enough to show."""
    steps = Steps()
    loss_of = SOPLoss(N, C, rate_u=10 * 128 / B, rate_v=20 * 128 / B)
    loss_of.targets.copy_(torch.randn(N, C, generator=steps.random) / 2)
    u = loss_of.targets.gather(1, steps.labels[:, None]).double().requires_grad_()
    v = loss_of.targets.double().requires_grad_()
    optimizer = torch.optim.SGD([{"params": u, "lr": 10}, {"params": v, "lr": 20}])
    for logits, _, index in steps:
        one, other = leaf(logits), leaf(logits.double())
        found = loss_of(one, steps.labels[index], index)
        expected = overparametrization_loss(other, steps.one_hot[index].double(), u[index], v[index])
        agree(found, expected, (one, other))
        optimizer.step()
        optimizer.zero_grad()
        table = torch.where(steps.one_hot > 0, u, v).detach()
        torch.testing.assert_close(loss_of.targets.double(), table, atol=1e-6, rtol=1e-5)
        loss_of.targets.copy_(table)  # beyond 1 a step may be steep


@pytest.mark.parametrize(
    ("loss_of", "expected"),
    [
        (SCELoss(alpha=0.1, beta=1.0), lambda z, y: sce(z, y, 0.1, 1.0)),
        (SCELoss(alpha=6.0, beta=0.1), lambda z, y: sce(z, y, 6.0, 0.1)),
        (GCELoss(q=0.7), lambda z, y: gce(z, y, 0.7)),
        (APLLoss(alpha=10.0, beta=1.0), lambda z, y: nce_and_mae(z, y, 10.0, 1.0)),
        (APLLoss(), lambda z, y: nce_and_mae(z, y, 1.0, 1.0)),
    ],
    ids=["sce-cifar10", "sce-cifar100", "gce", "nce+mae-cifar100", "nce+mae-cifar10"],
)
def test_losses_without_targets(loss_of: LabelLoss, expected) -> None:
    steps = Steps()
    for logits, _, index in steps:
        one, other = leaf(logits), leaf(logits.double())
        agree(loss_of(one, steps.labels[index]), expected(other, steps.labels[index]), (one, other))


@pytest.mark.parametrize("pi", [0.1, 0.9])
def test_js_and_gjs(pi: float) -> None:
    """With probabilities below the clamp of 1e-7 and ones that underflow among them."""
    steps = Steps()
    for logits, _, index in steps:
        labels = steps.labels[index]
        views = torch.cat([logits, 6 * logits.roll(1, 0), 40 * logits.flip(0)])
        one, other = leaf(views), leaf(views.double())
        weights = [pi, *[(1 - pi) / 3] * 3]
        agree(GJSLoss(pi=pi)(one, labels), js_custom(list(other.chunk(3)), labels, weights), (one, other))
        one, other = leaf(views), leaf(views.double())
        found = GJSLoss(pi=pi, scaled=False)(one, labels)
        agree(found, js_custom(list(other.chunk(3)), labels, weights, scaled=False), (one, other))
        for part in views.chunk(3):
            one, other = leaf(part), leaf(part.double())
            agree(JSLoss(pi=pi)(one, labels), js_custom([other], labels, [pi, 1 - pi]), (one, other))


# --- The deviations


def test_elr_plus_deviates_on_targets_of_zero() -> None:
    logits, labels, index, order = torch.randn(4, C), torch.arange(4), torch.arange(4), torch.tensor([1, 0, 3, 2])
    loss_of = ELRPlusLoss(N, C, strength=0.0, momentum=0.9, target="weighted")
    loss_of.set_update(False)
    weighted = loss_of(logits, labels, index, labels[order], index[order], torch.tensor(0.3))
    mixed = 0.3 * F.one_hot(labels, C) + 0.7 * F.one_hot(labels[order], C)
    torch.testing.assert_close(weighted, F.cross_entropy(logits, mixed.float()))
    empty = mixed * torch.zeros(4, C)
    assert (empty / empty.sum(1, keepdim=True)).isnan().all(), "as the authors divide"


def test_elr_plus_deviates_in_shares_per_sample() -> None:
    logits, labels, index, order = torch.randn(4, C), torch.arange(4), torch.arange(4), torch.tensor([1, 0, 3, 2])
    loss_of = ELRPlusLoss(N, C, strength=3.0, momentum=0.9, reduction="none")
    loss_of.update_targets(logits.flip(0), index)
    inputs = logits, labels, index, labels[order], index[order]
    shares = torch.tensor([0.1, 0.4, 0.4, 1.0])
    each = [loss_of(*inputs, share)[row] for row, share in enumerate(shares)]
    torch.testing.assert_close(loss_of(*inputs, shares), torch.stack(each))


def test_nal_deviates_from_nan_on_a_bare_one_hot() -> None:
    """The authors' RNAL term is added with weight 0, but 0 * log 0 is NaN."""
    steps = Steps()
    logits, attention, index = next(iter(steps))
    targets = steps.one_hot[index]
    assert (0.0 * (targets.log() * 0.5).sum()).isnan()
    for reverse in (0.0, 0.1):
        loss_of = NALLoss(N, C, strength=0.5, momentum=0.9, reverse=reverse)
        assert loss_of(logits, steps.labels[index], index, attention, update=False).isfinite()


def test_nal_deviates_in_its_first_update() -> None:
    """The authors start from the bare one-hot: at most 0.9 * 1e-4 less per class, before the clamp."""
    steps = Steps()
    logits, attention, index = next(iter(steps))
    table = steps.one_hot.clone()
    loss_of = NALLoss(N, C, strength=0.5, momentum=0.9, variant="code")
    loss_of(logits, steps.labels[index], index, attention)
    nal(logits.double(), attention.double(), index, table, 0.5, 0.9, 0.0, 0.0, update=True)
    distance = (loss_of.targets[index].double() - table[index]).abs().max()
    assert 0 < distance < 1e-4


def test_selc_deviates_from_nan_on_underflow() -> None:
    logits, labels, index = torch.zeros(1, C), torch.tensor([0]), torch.tensor([0])
    logits[0, 1] = -200.0
    table = F.one_hot(torch.zeros(N, dtype=torch.int64), C).float()
    assert selc(logits, index, table, 0.9, update=False).isnan()
    loss_of = SELCLoss(N, C, momentum=0.9)
    torch.testing.assert_close(loss_of(logits, labels, index, update=False), torch.tensor(math.log(9)))


def test_sce_deviates_in_the_papers_constant() -> None:
    """A = -4 in the text, log 1e-4 = -9.21 in the code; and the code's CE ends at p_y = 1e-7."""
    logits, labels = torch.randn(B, C), torch.arange(B) % C
    ce, own = F.cross_entropy(logits, labels), F.softmax(logits, 1).gather(1, labels[:, None])
    torch.testing.assert_close(SCELoss(alpha=1, beta=1, variant="paper")(logits, labels), ce + 4 * (1 - own).mean())
    far = torch.tensor([[0.0, 30.0]])
    losses = [SCELoss(alpha=1, beta=0, variant=variant)(far, torch.tensor([0])) for variant in ("paper", "code")]
    torch.testing.assert_close(torch.stack(losses), torch.tensor([30.0, -math.log(1e-7)]))


def test_gce_deviates_in_truncation_and_floor() -> None:
    """Kept where L_q is below (1 - k^q) / q = 0.549, by the present p_y; and p_y itself is not clamped."""
    logits, labels = torch.randn(200, C, generator=torch.Generator().manual_seed(0)) * 4, torch.arange(200) % C
    plain, truncated = (GCELoss(q=0.7, k=k, reduction="none") for k in (0.0, 0.5))
    bound = (1 - 0.5**0.7) / 0.7
    assert bound == pytest.approx(0.549, abs=1e-3)
    torch.testing.assert_close(truncated(logits, labels), plain(logits, labels).clamp(max=bound))
    given = leaf(logits)
    truncated(given, labels).sum().backward()
    assert torch.equal(given.grad.any(1), plain(logits, labels) < bound)
    far, label = torch.tensor([[0.0, 80.0]], dtype=torch.float64), torch.tensor([0])
    distance = float(plain(far.float(), label)) - float(gce(far, label, 0.7, floor=1e-7))
    assert 0 < distance < 2e-5


def test_nce_and_mae_deviate_in_the_form_of_mae() -> None:
    logits, labels = torch.randn(B, C), torch.arange(B) % C
    reduced = NCELoss()(logits, labels) + MAELoss(form="reduced")(logits, labels)
    torch.testing.assert_close(APLLoss()(logits, labels), reduced)
    torch.testing.assert_close(APLLoss(mae="l1")(logits, labels), NCELoss()(logits, labels) + MAELoss()(logits, labels))


@pytest.mark.parametrize(("gamma", "largest"), [(0.5, 0.15), (2.0, 0.42)])
def test_focal_deviates_in_the_gradient_of_its_factor(gamma: float, largest: float) -> None:
    """Variant "code" has equal losses. The label's gradient differs by gamma (1 - p)^gamma p (-log p)."""
    own = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    logits = torch.stack([own.log(), (1 - own).log()], 1).float()
    labels = torch.zeros(999, dtype=torch.int64)
    found = []
    for variant in ("paper", "code"):
        given = leaf(logits)
        loss = FocalLoss(gamma=gamma, variant=variant, reduction="none")(given, labels)
        loss.sum().backward()
        found.append((loss.detach(), given.grad))
    assert torch.equal(found[0][0], found[1][0])
    difference = (found[1][1] - found[0][1])[:, 0].double()
    torch.testing.assert_close(difference, gamma * (1 - own) ** gamma * own * -own.log(), atol=1e-5, rtol=1e-4)
    assert float(difference.abs().max()) == pytest.approx(largest, abs=5e-3)


def test_nfl_deviates_in_the_gradient_of_its_factors() -> None:
    """Equal losses; per sample the gradients of normal logits differ by some thousandths."""
    logits = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    labels, found = torch.arange(1000) % 10, []
    for variant in ("paper", "code"):
        given = leaf(logits)
        loss = NFLLoss(variant=variant, reduction="none")(given, labels)
        loss.sum().backward()
        found.append((loss.detach(), given.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert 4e-3 < float((found[0][1] - found[1][1]).abs().max()) < 1e-2


def test_keras_clips_without_gradient() -> None:
    """Bootstrap and forward: p in [1e-7, 1 - 1e-7], and no gradient beyond; e^-20 and 1 - e^-20 lie outside."""
    logits, labels = torch.tensor([[20.0, 0.0], [0.0, 20.0], [1.0, 0.0]]), torch.zeros(3, dtype=torch.int64)
    for kind in ("soft", "hard"):
        paper, code = (BootstrapLoss(kind=kind, variant=variant, reduction="none") for variant in ("paper", "code"))
        given = leaf(logits)
        loss = code(given, labels)
        loss.sum().backward()
        assert not given.grad[:2].any()
        assert given.grad[2].any()
        own = 0.95 if kind == "soft" else 0.8
        assert float(loss[1]) == pytest.approx(own * -math.log(1e-7), rel=1e-4)
        torch.testing.assert_close(loss[2], paper(logits, labels)[2])
    transition = torch.eye(2)
    loss_of = [ForwardLoss(transition, variant=variant, reduction="none") for variant in ("paper", "code")]
    given = leaf(logits)
    loss = loss_of[1](given, labels)
    loss.sum().backward()
    assert not given.grad[:2].any()
    assert [float(each(logits, labels)[1]) for each in loss_of] == pytest.approx([20.0, -math.log(1e-7)], rel=1e-4)
