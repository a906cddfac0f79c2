"""ProMix against its authors' code written out in plain PyTorch, FMix against Fourier's transform, and empty sets."""

import math
from copy import deepcopy
from typing import Any

import _trial_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from _steps import Made, NoHostReads, assert_one_graph
from torch import Tensor

from fastnoise.data.views import uniform
from fastnoise.methods.disc import ring
from fastnoise.methods.fmix import DECAY, FMix
from fastnoise.methods.promix import GUESS, MATCH, WARM_UP, least_of_class
from fastnoise.recipes import recipe

N, C, B = 96, 4, 16
OPTIONS: dict[str, Any] = {
    "warm_up": 2, "keep_from": 0.2, "keep_to": 0.8, "keep_ramp": 4, "threshold": 0.6, "prior_momentum": 0.9,
    "strong_ramp": 4, "guess_from": 4, "guess_share": 0.8, "rest_strength": 0.5, "rest_ramp": 5,
}  # fmt: skip


class Trial(_trial_cases.Trial):
    """40 % noise."""

    def __init__(self, **options: Any):
        super().__init__("promix", OPTIONS | options, N, C, B, noise=0.4, rate=0.02)


def mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.sum()


class Authors:
    """Train_promix.py, with the weights of a trial's networks. Draws and masks are those of the trial's method."""

    def __init__(self, trial: Trial):
        self.trial, self.networks = trial, deepcopy(trial.networks)
        self.optimizer = torch.optim.SGD(self.networks.parameters(), 0.02)
        self.pi, self.pi_u = trial.method.prior.clone(), trial.method.rest_prior.clone()

    def choose(self, epoch: int) -> Tensor:
        """w of either network for the epoch (from 0) that follows."""
        rho = OPTIONS["keep_from"] + (OPTIONS["keep_to"] - OPTIONS["keep_from"]) * min(epoch / OPTIONS["keep_ramp"], 1)
        chosen = torch.zeros(2, N, dtype=torch.bool)
        self.networks.eval()
        for number, network in enumerate(self.networks):
            with torch.no_grad():
                losses = F.cross_entropy(network(self.trial.images).logits, self.trial.given, reduction="none")
            for label in range(C):
                members = (self.trial.given == label).nonzero().ravel()
                count = max(1, min(math.ceil(N * rho / C), len(members)))
                chosen[number, members[losses[members].argsort()[:count]]] = True
        self.networks.train()
        return chosen

    def step(self, epoch: int, images: Tensor, index: Tensor, w: Tensor) -> float:
        """`epoch` counts from 0."""
        options, given = OPTIONS, self.trial.given[index]
        gamma, b = min(epoch / 4, 1), 0.5 * min(epoch / 5, 1)
        seen = [network(images) for network in self.networks]
        p = [outputs.logits[:B].detach().softmax(1) for outputs in seen]
        total = torch.zeros(())
        moved = []
        for i, network in enumerate(self.networks):
            trusted = torch.tensor([bool(w[i, s]) or float(p[i][k, given[k]]) > 0.6 for k, s in enumerate(index)])
            guess = (seen[i].logits[:B].detach() - 0.8 * self.pi[i].log()).softmax(1).argmax(1)
            z = torch.where(trusted, given, guess)
            learnt = trusted.clone()
            if epoch + 1 >= options["guess_from"]:
                agreed = [
                    (float((p[0][k].max() + p[1][k].max()) / 2), k)
                    for k in range(B)
                    if not trusted[k]
                    and p[0][k].argmax() == p[1][k].argmax()
                    and min(p[0][k].max(), p[1][k].max()) > 0.6
                ]
                for _, k in sorted(agreed, reverse=True)[: max(0, int(0.8 * B) - int(trusted.sum()))]:
                    learnt[k] = True
            K, rest = learnt.nonzero().ravel(), (~learnt).nonzero().ravel()
            mates = ring(learnt)
            assert sorted(mates[K].tolist()) == K.tolist()
            margin = 0.8 * self.pi[i].log()
            for head in (0, 1):
                logits = network.pseudo(seen[i].features) if head else seen[i].logits
                weak, strong = (F.cross_entropy(part[K] + margin, z[K], reduction="none") for part in logits.split(B))
                both = mean(weak) + gamma * mean(strong)
                mixup, fmix = self.trial.method.mixups[i + 2 * head], self.trial.method.fmixes[i + 2 * head]
                mask = fmix.mask(8, 8)
                for share, mix in ((mixup.share, mixup.share * torch.ones(8, 8)), (fmix.share, mask)):
                    x = images[:B].clone()
                    x[K] = mix * images[K] + (1 - mix) * images[mates[K]]
                    outputs = network(x)
                    out = (network.pseudo(outputs.features) if head else outputs.logits)[K] + margin
                    own, other = (F.cross_entropy(out, labels, reduction="none") for labels in (z[K], z[mates[K]]))
                    both = both + gamma * mean(share * own + (1 - share) * other)
                total = total + both
            margin = 0.8 * self.pi_u[i].log()
            target = (seen[i].logits[:B].detach() - margin).softmax(1) ** 2
            target = (target / target.sum(1, keepdim=True))[rest]
            logits = network.pseudo(seen[i].features)
            weak, strong = (-(target * (part[rest] + margin).log_softmax(1)).sum(1) for part in logits.split(B))
            total = total + b * (mean(weak) + gamma * mean(strong))
            moved.append((p[i][K], p[i][rest]))
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        for i, parts in enumerate(moved):
            for prior, part in zip((self.pi, self.pi_u), parts, strict=True):
                if len(part):
                    prior[i] = 0.9 * prior[i] + 0.1 * part.mean(0)
        return total.item()


def test_follows_the_authors_code() -> None:
    """Choices, labels, losses, mean predictions and weights of an epoch of matches and one with guesses too."""
    trial = Trial()
    trial.train(2)
    theirs, start = Authors(trial), deepcopy(trial.networks)
    programs, sizes = [], set()
    for epoch in (3, 4):
        w = theirs.choose(epoch - 1)
        assert torch.equal(trial.method.clean, w)
        trial.method.start_epoch(epoch)
        programs.append(trial.method.program)
        for number, images, index in trial.batches(epoch):
            result = trial.update(epoch, number, images, index)
            expected = theirs.step(epoch - 1, images, index, w)
            assert result.loss.item() == pytest.approx(expected, rel=2e-3)
            torch.testing.assert_close(trial.method.prior, theirs.pi, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(trial.method.rest_prior, theirs.pi_u, rtol=1e-3, atol=1e-5)
            sizes.add(int(w[0, index].sum()))
        trial.end(epoch)
        for kind in ("parameters", "buffers"):
            mine, other, begun = (
                torch.cat([value.detach().float().flatten() for value in getattr(networks, kind)()])
                for networks in (trial.networks, theirs.networks, start)
            )
            assert (mine - other).norm() <= 0.01 * (mine - begun).norm(), kind
    assert programs == [MATCH, GUESS]
    assert len(sizes) > 1
    assert not trial.warnings


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_warms_up_on_the_primary_heads(penalty: float) -> None:
    trial = Trial(confidence_penalty=penalty)
    networks = deepcopy(trial.networks)
    trial.method.start_epoch(1)
    assert trial.method.program == WARM_UP
    number, images, index = trial.batches(1)[0]
    heads = [network.pseudo.weight.clone() for network in trial.networks]
    loss = torch.zeros(())
    for network in networks:
        logits = network(images[:B]).logits
        p = logits.softmax(1)
        loss = loss + F.cross_entropy(logits, trial.given[index]) + penalty * (p * p.log()).sum(1).mean()
    assert trial.update(1, number, images, index).loss.item() == pytest.approx(float(loss), rel=1e-4)
    assert all(torch.equal(network.pseudo.weight, head) for network, head in zip(trial.networks, heads, strict=True))
    assert trial.method.phase(2) is None
    assert trial.method.phase(3).fresh


def test_weights_of_views_and_of_the_rest_follow_their_ramps() -> None:
    method = Trial(rest_until=4).method
    found = []
    for epoch in range(3, 8):
        method.start_epoch(epoch)
        method.before_step(epoch, 0, 0)
        found.append((round(float(method.strong_weight), 4), round(float(method.rest_weight), 4)))
    assert found == [(0.5, 0.2), (0.75, 0.3), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]


@pytest.mark.parametrize("learnt", [True, False])
def test_empty_sets_leave_losses_and_means_finite(learnt: bool) -> None:
    """All samples of a batch are learnt, or none."""
    trial = Trial(threshold=0.0 if learnt else 1.0, guess_from=100)
    trial.end(2)
    trial.method.clean.fill_(learnt)
    trial.method.start_epoch(3)
    prior, rest = trial.method.prior.clone(), trial.method.rest_prior.clone()
    result = trial.update(3, *trial.batches(3)[0])
    assert torch.isfinite(result.loss)
    assert torch.equal(trial.method.prior, prior) != learnt
    assert torch.equal(trial.method.rest_prior, rest) == learnt
    for network in trial.networks:
        assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_estimates_trust_both_networks_or_a_great_probability() -> None:
    trial = Trial()
    assert trial.method.estimates(trial.end(0)) is None
    answers = [outputs.logits for outputs in trial.evaluate()]
    found = trial.method.estimates(trial.end(2))
    probs = torch.stack(answers).softmax(2).mean(0)
    own = probs[range(N), trial.given]
    trusted = trial.method.clean.all(0) | (own > 0.6)
    assert torch.equal(found.labels, torch.where(trusted, trial.given, probs.argmax(1)))
    assert torch.equal(found.suspected, found.labels != trial.given)
    torch.testing.assert_close(found.confidence, own)
    assert 0 < int(found.suspected.sum()) < N


def test_least_losses_of_each_class() -> None:
    labels = torch.tensor([0, 1, 0, 0, 2, 1])
    losses = torch.tensor([3.0, 1.0, 2.0, 1.0, 9.0, 5.0])
    assert least_of_class(losses, labels, 2, 4).tolist() == [False, True, True, True, True, True]
    assert least_of_class(losses, labels, 0, 4).tolist() == [False, True, False, True, True, False]


# -- FMix ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 12), (9, 7)])
def test_masks_are_those_of_fouriers_transform(height: int, width: int) -> None:
    """utils/fmix.py: a spectrum of normal numbers over the frequency's third power, and its largest values."""
    fmix = FMix(0)
    shares = []
    for batch in range(20):
        fmix.draw(1, batch, 3)
        mask = fmix.mask(height, width)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        wanted = float(fmix.share) * height * width
        assert int(mask.sum()) in (math.floor(wanted), math.ceil(wanted))
        shares.append(float(fmix.share))
        half = width // 2 + 1
        draws = uniform(fmix.key, 2 * height * half + 1).double().numpy()[:-1]
        normal = np.sqrt(-2 * np.log(1 - draws[::2])) * np.exp(2j * np.pi * draws[1::2])
        across, down = np.abs(np.fft.fftfreq(width)[:half]), np.fft.fftfreq(height)
        frequency = np.maximum(np.sqrt(across**2 + down[:, None] ** 2), 1 / max(width, height))
        field = np.fft.irfft2(normal.reshape(height, half) / frequency**DECAY, (height, width))
        order = np.argsort(-field.ravel(), kind="stable")
        theirs = np.zeros(height * width)
        theirs[order[: int(mask.sum())]] = 1
        assert np.abs(theirs - mask.numpy().ravel()).sum() <= 2, "rounding may exchange two neighbours in rank"
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_masks_have_few_borders_and_are_functions_of_the_step() -> None:
    fmix = FMix(0)
    fmix.draw(1, 2, 3)
    fmix.share.fill_(0.5)
    mask = fmix.mask(32, 32)
    changes = (mask[1:] != mask[:-1]).float().mean() + (mask[:, 1:] != mask[:, :-1]).float().mean()
    assert changes < 0.25, "independent pixels change in half of the places along each axis"
    fmix.draw(1, 2, 3)
    fmix.share.fill_(0.5)
    assert torch.equal(fmix.mask(32, 32), mask)
    fmix.draw(1, 3, 3)
    fmix.share.fill_(0.5)
    assert not torch.equal(fmix.mask(32, 32), mask)


def test_the_recipe_goes_by_the_rate() -> None:
    keeps = [recipe("promix", "cifar10", "none", noise_rate=rate).method.keep_to for rate in (0.2, 0.5, 0.9)]
    assert keeps == [0.7, 0.5, 0.1]
    small = recipe("promix", "digits", "symmetric:0.4")
    assert 0 < small.method.warm_up < small.method.guess_from < small.optim.epochs


# -- the step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epoch", "amp"), [(3, True), (4, False)])
def test_a_step_is_one_graph(epoch: int, amp: bool) -> None:
    def make(compiled: Any) -> Made:
        trial = Trial()
        trial.train(epoch - 1)
        trial.method.start_epoch(epoch)
        number, images, index = trial.batches(epoch)[0]
        trial.method.before_step(epoch, number, 7)
        step = compiled(trial.method.training_step)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            result = step(
                list(trial.networks), images.contiguous(memory_format=torch.channels_last), trial.given[index], index
            )
        trial.optimizer.zero_grad()
        result.loss.backward()
        return result, list(trial.networks.parameters()), trial.method.state_dict()

    assert_one_graph(make, 0.05 if amp else 1e-4)


def test_a_step_reads_nothing_back() -> None:
    trial = Trial()
    trial.train(3)
    trial.method.start_epoch(4)
    assert trial.method.program == GUESS
    number, images, index = trial.batches(4)[0]
    with NoHostReads():
        trial.method.before_step(4, number, 7)
        trial.method.training_step(list(trial.networks), images, trial.given[index], index).loss.backward()
