"""Methods with two networks: each against its update written out in plain PyTorch, collapses, and runs end to end."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import _trial_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from _steps import NoHostReads
from sklearn.mixture import GaussianMixture
from torch import Tensor

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.errors import ConfigError, DataError
from fastnoise.methods import METHODS, Method, Setting
from fastnoise.methods.dividemix import DivideMix
from fastnoise.methods.options import ELRPlusOptions
from fastnoise.models import Network, Outputs
from fastnoise.recipes import recipe
from fastnoise.recipes.base import noise_rate
from fastnoise.selection.mixture import fit_losses

N, C, B = 64, 5, 16
ELR_PLUS: dict[str, Any] = {
    "strength": 3.0, "momentum": 0.7, "networks": 2, "mixup_alpha": 1.0, "average_momentum": 0.9, "average_ramp": 5,
    "averaged": "parameters", "strength_ramp": 0, "target": "labels",
}  # fmt: skip
DIVIDEMIX: dict[str, Any] = {
    "warm_up": 4, "confidence_penalty": 0.0, "clean_threshold": 0.5, "loss_epochs": 1, "sharpening": 0.5,
    "mixup_alpha": 4.0, "unlabelled_strength": 25.0, "unlabelled_ramp": 4,
}  # fmt: skip
COTEACHING: dict[str, Any] = {"forget_rate": 0.4, "forget_epochs": 4}
JOCOR: dict[str, Any] = COTEACHING | {"strength": 0.65}
OPTIONS = {"augdesc": DIVIDEMIX, "elr_plus": ELR_PLUS, "coteaching": COTEACHING, "jocor": JOCOR, "dividemix": DIVIDEMIX}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Trial(_trial_cases.Trial):
    """30 % noise, in data that are drawn after the networks. A step gives its loss as a number, and predictions."""

    def __init__(self, name: str, **options: Any):
        super().__init__(name, OPTIONS[name] | options, N, C, B, spread=0.5, data_last=True)
        self.start = deepcopy(self.networks)

    def update(self, epoch: int, number: int, images: Tensor, index: Tensor) -> tuple[float, Tensor]:
        result = super().update(epoch, number, images, index)
        return result.loss.item(), result.predictions


def assert_same_weights(networks: Sequence[Network], others: Sequence[Network], start: Sequence[Network]) -> None:
    """Weights, and running statistics, agree to within a hundredth of the way they have come from `start`: rounding may
    turn a ReLU or a maximum over to the other side, which does far less than a term of a loss."""
    for kind in ("parameters", "buffers"):
        mine, theirs, first = (
            torch.cat([value.detach().flatten() for network in chosen for value in getattr(network, kind)()])
            for chosen in (networks, others, start)
        )
        way = torch.linalg.vector_norm(mine - first)
        assert way > 0.05
        assert torch.linalg.vector_norm(mine - theirs) < 0.01 * way


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


# -- ELR+ ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"target": "weighted", "strength_ramp": 6},
        {"networks": 1},
        {"mixup_alpha": 0.0},
        {"average_momentum": 0.0},
        {"average_ramp": 0, "averaged": "everything"},
    ],
    ids=lambda changed: "-".join(changed) or "published",
)
def test_elr_plus_follows_its_equations(changed: dict[str, Any]) -> None:
    """Losses, targets, averages and weights over two epochs; the ablations of the paper's Table 5 among them."""
    trial = Trial("elr_plus", **changed)
    options = {**ELR_PLUS, **changed}
    networks, averages = deepcopy(trial.networks), deepcopy(trial.networks)
    optimizer = trial.sgd(networks)
    count = len(networks)
    targets = [torch.zeros(N, C) for _ in networks]
    step = 0
    for epoch in (1, 2):
        trial.method.start_epoch(epoch)
        for batch, images, index in trial.batches(epoch):
            step += 1
            ramp = options["strength_ramp"]
            strength = 3.0 * (np.exp(-5 * (1 - min(1, step / ramp)) ** 2) if ramp else 1)
            actual, predictions = trial.update(epoch, batch, images, index)
            y = F.one_hot(trial.given[index], C).float()
            mate = torch.arange(len(index)).roll(1)
            total, answers = torch.zeros(()), torch.zeros(len(index), C)
            for k, (network, view) in enumerate(zip(networks, images.split(len(index)), strict=True)):
                share = float(trial.method.mixup[k].share)
                assert 0.5 <= share <= 1
                assert (share == 1) == (options["mixup_alpha"] == 0)
                with torch.no_grad():
                    teacher = averages[(k + 1) % count](view).logits.softmax(1)
                targets[k][index] = 0.7 * targets[k][index] + 0.3 * teacher
                logits = network(share * view + (1 - share) * view[mate]).logits
                q = share * targets[k][index] + (1 - share) * targets[k][index][mate]
                mixed = share * y + (1 - share) * y[mate]
                if options["target"] == "weighted":
                    mixed = mixed * q / (mixed * q).sum(1, keepdim=True)
                p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
                total = total + soft_cross_entropy(logits, mixed) + strength * (1 - (p * q).sum(1)).log().mean()
                answers = answers + logits.detach()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            momentum = options["average_momentum"]
            if options["average_ramp"]:
                # As the authors call sigmoid_rampup: with one step more than were made.
                momentum *= np.exp(-5 * (1 - min(1, (step + 1) / options["average_ramp"])) ** 2)
            for average, network in zip(averages, networks, strict=True):
                states = zip(average.state_dict().items(), network.state_dict().values(), strict=True)
                for (name, mine), theirs in states:
                    if options["averaged"] == "everything" or name in dict(network.named_parameters()):
                        mine.copy_(momentum * mine + (1 - momentum) * theirs if theirs.is_floating_point() else theirs)
            assert actual == pytest.approx(total.item(), rel=1e-4)
            assert torch.equal(predictions, answers.argmax(1))
    assert_same_weights(networks, trial.networks, trial.start)
    assert_same_weights(averages, [trial.method.averages[k] for k in range(count)], trial.start)
    for k in range(count):
        torch.testing.assert_close(trial.method.criterion[k].targets, targets[k], rtol=1e-4, atol=1e-5)
    mean = torch.stack(targets).mean(0)
    assert torch.equal(trial.method.corrected(trial.given), mean.argmax(1))
    estimates = trial.method.estimates(trial.run(2))
    torch.testing.assert_close(
        estimates.confidence, mean[torch.arange(N), trial.given] / mean.sum(1), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(estimates.suspected, mean.argmax(1) != trial.given)


def test_elr_plus_draws_a_share_for_each_network_and_predicts_by_mean_logits() -> None:
    trial = Trial("elr_plus")
    trial.method.start_epoch(1)
    shares = []
    for batch in range(20):
        trial.method.before_step(1, batch, 7)
        shares.append([float(mixup.share) for mixup in trial.method.mixup])
    assert all(first != second for first, second in shares)
    logits = [network(trial.images).logits for network in trial.networks]
    torch.testing.assert_close(trial.method.predict(trial.networks, trial.images).logits, sum(logits) / 2)
    untouched = trial.method.estimates(trial.run(0))
    assert torch.equal(untouched.labels, trial.given)
    assert (untouched.confidence == 1).all()


# -- co-teaching --------------------------------------------------------------------------------------------------


def test_coteaching_exchanges_the_samples_of_small_loss() -> None:
    trial = Trial("coteaching")
    networks = deepcopy(trial.networks)
    optimizer = trial.sgd(networks)
    for epoch in range(1, 6):
        trial.method.start_epoch(epoch)
        for batch, images, index in trial.batches(epoch):
            images, index = images[: B - batch], index[: B - batch]
            actual, _ = trial.update(epoch, batch, images, index)
            kept = int((10 - epoch) * len(index) / 10) if epoch < 4 else int(0.6 * len(index))
            losses = [F.cross_entropy(net(images).logits, trial.given[index], reduction="none") for net in networks]
            picks = [sorted(range(len(index)), key=loss.tolist().__getitem__)[:kept] for loss in losses]
            total = losses[0][picks[1]].mean() + losses[1][picks[0]].mean()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            assert actual == pytest.approx(total.item(), rel=1e-4)
            for marks, pick in zip(trial.method.picked[:, index], picks, strict=True):
                assert marks.nonzero().ravel().tolist() == sorted(pick)
    assert_same_weights(networks, trial.networks, trial.start)
    selections = trial.method.selections()
    assert list(selections) == ["picked_1", "picked_2"]
    for (members, labels), marks in zip(selections.values(), trial.method.picked, strict=True):
        assert torch.equal(members, marks)
        assert labels is None


def test_coteaching_keeps_a_sample_of_the_smallest_batch() -> None:
    trial = Trial("coteaching", forget_rate=0.7)
    trial.method.start_epoch(4)
    loss, _ = trial.update(4, 0, trial.images[:1], torch.arange(1))
    assert loss > 0


@pytest.mark.parametrize(("rate", "size", "kept"), [(0.07, 1000, 930), (0.7, 10, 3), (0.3, 10, 7), (0.45, 128, 70)])
def test_coteaching_counts_as_exact_arithmetic_does(rate: float, size: int, kept: int) -> None:
    """Each network's gradient reaches as many samples."""
    trial = Trial("coteaching", forget_rate=rate)
    trial.method.start_epoch(4)
    logits = [torch.randn(size, C, requires_grad=True) for _ in range(2)]
    answers = [lambda images, answer=answer: Outputs(answer) for answer in logits]
    trial.method.training_step(
        answers, torch.empty(0), torch.randint(C, (size,)), torch.arange(size) % N
    ).loss.backward()
    assert [int(answer.grad.any(1).sum()) for answer in logits] == [kept, kept]


def test_coteaching_suspects_the_largest_losses() -> None:
    trial = Trial("coteaching", forget_rate=0.25)
    trial.train(2)
    estimates = trial.method.estimates(trial.run(2))
    outputs = [output.logits for output in trial.evaluate()]
    loss = sum(F.cross_entropy(logits, trial.given, reduction="none") for logits in outputs)
    assert int(estimates.suspected.sum()) == N // 4
    assert loss[estimates.suspected].min() >= loss[~estimates.suspected].max()
    probabilities = sum(logits.softmax(1) for logits in outputs) / 2
    torch.testing.assert_close(estimates.confidence, probabilities[torch.arange(N), trial.given])
    assert torch.equal(estimates.labels[estimates.suspected], probabilities.argmax(1)[estimates.suspected])
    assert torch.equal(estimates.labels[~estimates.suspected], trial.given[~estimates.suspected])


# -- JoCoR --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "strength"), [("paper", 0.65), ("code", 0.9), ("code", 0.0)])
def test_jocor_follows_its_code(variant: str, strength: float) -> None:
    """Losses, what is kept, weights and statistics over five epochs, against loss_jocor and its rate_schedule."""
    trial = Trial("jocor", variant=variant, strength=strength)
    networks = deepcopy(trial.networks)
    optimizer = trial.sgd(networks)
    schedule = np.full(20, 0.4)
    schedule[: 4 + (variant == "paper")] = np.linspace(0, 0.4, 4 + (variant == "paper"))
    for epoch in range(1, 6):  # the authors' epoch 0 is never trained
        trial.method.start_epoch(epoch)
        for batch, images, index in trial.batches(epoch):
            images, index = images[: B - batch], index[: B - batch]
            actual, predictions = trial.update(epoch, batch, images, index)
            given = trial.given[index]
            one, two = (network(images).logits for network in networks)
            losses = (1 - strength) * F.cross_entropy(one, given, reduction="none")
            losses = losses + (1 - strength) * F.cross_entropy(two, given, reduction="none")
            for first, second in ((one, two), (two, one)):
                apart = F.kl_div(F.log_softmax(first, 1), F.softmax(second, 1), reduction="none")
                losses = losses + strength * apart.sum(1)
            kept = int((1 - schedule[epoch]) * len(index) + 1e-9)
            pick = sorted(range(len(index)), key=losses.tolist().__getitem__)[:kept]
            total = losses[pick].mean()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            assert actual == pytest.approx(total.item(), rel=1e-4)
            assert torch.equal(predictions, (one + two).argmax(1))
            assert trial.method.picked[0, index].nonzero().ravel().tolist() == sorted(pick)
    assert_same_weights(networks, trial.networks, trial.start)
    ((name, (members, labels)),) = trial.method.selections().items()
    assert (name, labels) == ("picked", None)
    assert torch.equal(members, trial.method.picked[0])


def test_jocor_weights_what_it_kept() -> None:
    """By class weights, which decide nothing about what is kept."""
    trial, other = Trial("jocor"), Trial("jocor")
    _, images, index = trial.batches(4)[0]
    weights = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.0])
    other.method.class_weights = weights
    for each in (trial, other):
        each.method.start_epoch(4)
    _, predictions = trial.update(4, 0, images, index)
    one, two = (network(images).logits.detach() for network in other.networks)
    found, _ = other.update(4, 0, images, index)
    pick = trial.method.picked[0, index]
    assert torch.equal(other.method.picked, trial.method.picked)
    losses = trial.method.judged(torch.stack([one, two]).log_softmax(2), trial.given[index])
    assert found == pytest.approx(float((losses * weights[trial.given[index]])[pick].sum() / pick.sum()), rel=1e-5)
    assert torch.equal(predictions, (one + two).argmax(1))


# -- the mixture of losses ----------------------------------------------------------------------------------------


def test_mixture_equals_scikit_learns_own_start() -> None:
    random = np.random.default_rng(0)
    losses = np.concatenate([random.gamma(2, 0.1, 600), random.normal(2.5, 0.5, 400).clip(0)])
    scaled = ((losses - losses.min()) / (losses.max() - losses.min()))[:, None]
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled)
    expected = mixture.predict_proba(scaled)[:, mixture.means_.argmin()]
    found = fit_losses(losses)
    assert found.trouble is None
    assert found.clean is not None
    np.testing.assert_allclose(found.clean, expected, atol=1e-6)
    assert found.clean[:600].mean() > 0.95 > 0.1 > found.clean[600:].mean()
    np.testing.assert_allclose(fit_losses(10 * losses - 3).clean, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "trouble"),
    [
        (np.full(100, 2.3), "all losses are equal"),
        (2.3 + 1e-7 * np.arange(10), "all losses are equal"),
        (np.zeros(1), "all losses are equal"),
        (np.array([0.1, np.nan, 2.0, np.inf]), "2 losses are no finite numbers"),
    ],
)
def test_losses_that_divide_nothing(losses: np.ndarray, trouble: str) -> None:
    found = fit_losses(losses)
    assert found.clean is None
    assert found.trouble == trouble


def test_mixture_that_does_not_converge_or_coincides() -> None:
    losses = np.random.default_rng(0).normal(size=3000)
    found = fit_losses(losses, max_iterations=2, tolerance=0)
    assert found.trouble == "the mixture of losses has not converged after 40 iterations"
    assert found.clean is not None
    assert np.isfinite(found.clean).all()
    merged = fit_losses(losses, max_iterations=500, tolerance=1e-12)
    assert merged.clean is None
    assert merged.trouble == "the two components of the mixture of losses coincide"
    with pytest.raises(DataError, match=r"expected one per sample, \[N\]"):
        fit_losses(np.zeros((2, 3)))


# -- DivideMix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_dividemix_warms_up_each_network_on_samples_of_its_own(penalty: float) -> None:
    trial = Trial("dividemix", confidence_penalty=penalty)
    networks = deepcopy(trial.networks)
    optimizer = trial.sgd(networks)
    trial.method.start_epoch(1)
    order = trial.method.order(1, 7)
    assert all(sorted(order[k::2]) == list(range(N)) for k in (0, 1))
    assert not np.array_equal(order[0::2], order[1::2])
    for batch, images, index in trial.batches(1):
        actual, predictions = trial.update(1, batch, images, index)
        total = torch.zeros(())
        for k, network in enumerate(networks):
            logits = network(images[:B][k::2]).logits
            p = logits.softmax(1)
            total = total + F.cross_entropy(logits, trial.given[index[k::2]]) + penalty * (p * p.log()).sum(1).mean()
            assert torch.equal(predictions[k::2], p.argmax(1))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert actual == pytest.approx(total.item(), rel=1e-4)
    assert_same_weights(networks, trial.networks, trial.start)


def test_augdesc_warms_up_on_a_weak_view_or_a_strong_one() -> None:
    losses = {}
    for view in ("weak", "strong"):
        trial = Trial("augdesc", warm_up_view=view)
        trial.method.start_epoch(1)
        _, images, index = trial.batches(1)[0]
        seen = images.split(B)[0 if view == "weak" else 2]
        with torch.no_grad():
            expected = sum(
                F.cross_entropy(network(seen[k::2]).logits, trial.given[index[k::2]])
                for k, network in enumerate(deepcopy(trial.networks))
            )
        losses[view] = trial.update(1, 0, images, index)[0]
        assert losses[view] == pytest.approx(float(expected), rel=1e-4)
    assert losses["weak"] != losses["strong"]


def sharpened(target: Tensor) -> Tensor:
    return target.square() / target.square().sum(1, keepdim=True)


@pytest.mark.parametrize("name", ["dividemix", "augdesc"])
def test_dividemix_follows_its_algorithm(name: str) -> None:
    """Division, targets, guesses, mixtures, losses and weights of two epochs after the warm-up. AugDesc guesses from
    the first two of four views and learns the others."""
    trial = Trial(name)
    trial.train(4)
    networks = deepcopy(trial.networks)
    optimizer = trial.sgd(networks)
    given, Q = trial.given, B // 4
    for epoch in (5, 6):
        # Each network's mixture divides the samples for the other.
        clean = []
        for outputs in trial.evaluate():
            loss = F.cross_entropy(outputs.logits, given, reduction="none")
            clean.append(torch.from_numpy(fit_losses(loss.numpy()).clean).float())
        torch.testing.assert_close(trial.method.clean, torch.stack(clean), atol=1e-4, rtol=1e-3)
        trial.method.start_epoch(epoch)
        batches = trial.batches(epoch)
        order = torch.cat([index for _, _, index in batches])
        longest = max(int((clean[1 - k] > 0.5).sum()) for k in (0, 1))
        assert len(batches) == -(-longest // Q)
        for k in (0, 1):
            trusted = set(torch.where(clean[1 - k] > 0.5)[0].tolist())
            members, labels = trial.method.selections()[f"labelled_{k + 1}"]
            assert set(members.nonzero().ravel().tolist()) == trusted
            assert labels is None
            assert set(order[k::4].tolist()) == trusted
            assert not set(order[k + 2 :: 4].tolist()) & trusted
        for batch, images, index in batches:
            actual, predictions = trial.update(epoch, batch, images, index)
            strength = 25 * min((epoch - 5 + batch / len(batches)) / 4, 1)
            a, b = trial.method.pairing.tolist()
            mates = [(a * i + b) % B for i in range(B)]
            assert sorted(mates) == list(range(B))
            views, learnt = images.split(B)[:2], images.split(B)[-2:]
            guesses = {}
            for k, network in enumerate(networks):
                parts = [view[start::4] for start in (k, k + 2, 3 - k) for view in views]
                with torch.no_grad():
                    p = network(torch.cat(parts)).logits.softmax(1).split(Q)
                guesses[k] = (p[0] + p[1]) / 2, (p[2] + p[3]) / 2, (p[4] + p[5]) / 2
            total = torch.zeros(())
            for k, network in enumerate(networks):
                w = clean[1 - k][index[k::4]][:, None]
                x = sharpened(w * F.one_hot(given[index[k::4]], C) + (1 - w) * guesses[k][0])
                guess = (guesses[k][1] + guesses[1 - k][2]) / 2
                u = sharpened(guess)
                inputs = torch.cat([view[start::4] for start in (k, k + 2) for view in learnt])
                targets = torch.cat([x, x, u, u])
                share = float(trial.method.mixup[k].share)
                assert 0.5 <= share <= 1
                logits = network(share * inputs + (1 - share) * inputs[mates]).logits
                targets = share * targets + (1 - share) * targets[mates]
                half = 2 * Q
                total = total + soft_cross_entropy(logits[:half], targets[:half])
                total = total + strength * ((logits[half:].softmax(1) - targets[half:]) ** 2).mean()
                prior = torch.full((C,), 1 / C)
                total = total + (prior * (prior / logits.softmax(1).mean(0)).log()).sum()
                assert torch.equal(predictions[k::4], guesses[k][0].argmax(1))
                assert torch.equal(predictions[k + 2 :: 4], guess.argmax(1))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            assert actual == pytest.approx(total.item(), rel=1e-3)
        trial.method.end_epoch(trial.run(epoch))
    assert_same_weights(networks, trial.networks, trial.start)
    assert not trial.warnings
    assert trial.method.report() == {"labelled": float(trial.method.labelled.float().mean())}


def test_dividemix_estimates_and_averages_losses_over_epochs() -> None:
    trial = Trial("dividemix", warm_up=0, loss_epochs=2, clean_threshold=0.6)
    losses = []
    for epoch in range(1, 5):
        losses.append([F.cross_entropy(outputs.logits, trial.given, reduction="none") for outputs in trial.evaluate()])
        trial.method.end_epoch(trial.run(epoch))
        trial.method.start_epoch(epoch + 1)
        for batch, images, index in trial.batches(epoch + 1):
            trial.update(epoch + 1, batch, images, index)
    scaled = [[(loss - loss.min()) / (loss.max() - loss.min()) for loss in pair] for pair in losses[-2:]]
    for k in (0, 1):
        expected = fit_losses(((scaled[0][k] + scaled[1][k]) / 2).numpy()).clean
        np.testing.assert_allclose(trial.method.clean[k].numpy(), expected, atol=1e-5)
    estimates = trial.method.estimates(trial.run(4))
    confidence = trial.method.clean.mean(0)
    assert torch.equal(estimates.confidence, confidence)
    assert torch.equal(estimates.suspected, confidence <= 0.6)
    assert torch.equal(estimates.labels, torch.where(confidence > 0.6, trial.given, trial.method.prediction))


def divided(trial: Trial, losses: Tensor) -> DivideMix:
    """The trial's method after a division by chosen losses [2, N]; what a label leaves is spread over the others."""
    method = trial.method
    assert isinstance(method, DivideMix)
    logits = []
    for loss in losses:
        table = ((-torch.expm1(-loss.clamp(min=1e-6))) / (C - 1)).log()[:, None].repeat(1, C)
        table[torch.arange(N), trial.given] = -loss
        logits.append(Outputs(table))
    trial.evaluate = lambda: logits  # type: ignore[method-assign]
    method.end_epoch(trial.run(5))
    return method


BIMODAL = torch.where(torch.arange(N) % 3 == 0, 3.0, 0.1) + 0.05 * torch.rand(
    2, N, generator=torch.Generator().manual_seed(1)
)


def test_dividemix_keeps_a_division_when_a_mixture_collapses() -> None:
    trial = Trial("dividemix")
    before = divided(trial, BIMODAL).clean.clone()
    assert not trial.warnings
    collapsed = torch.stack([torch.full((N,), 1.6), BIMODAL[1]])
    method = divided(trial, collapsed)
    assert trial.warnings == ["dividemix, epoch 5, network 1: all losses are equal; the earlier division stays"]
    assert torch.equal(method.clean[0], before[0])
    method.start_epoch(6)
    assert method.program == 1


def test_dividemix_warms_up_on_when_the_first_mixture_collapses() -> None:
    trial = Trial("dividemix")
    method = divided(trial, torch.full((2, N), 1.6))
    assert trial.warnings == [
        f"dividemix, epoch 5, network {k}: all losses are equal; the next epoch is one of warm-up" for k in (1, 2)
    ]
    method.start_epoch(6)
    assert method.program == 0
    assert len(method.order(6, 0)) == 2 * N
    assert method.report() == {}
    assert torch.equal(method.corrected(trial.given), trial.given)
    assert method.estimates(trial.run(5)) is None
    divided(trial, BIMODAL)
    method.start_epoch(6)
    assert method.program == 1


def test_dividemix_warms_up_on_when_one_class_is_predicted() -> None:
    trial = Trial("dividemix")
    trial.given[:] = trial.labels[:] = 2
    method = divided(trial, BIMODAL.clamp(max=1.0))
    assert trial.warnings == [
        "dividemix, epoch 5: class 2 is predicted for all samples; the next epoch is one of warm-up"
    ]
    method.start_epoch(6)
    assert method.program == 0


def test_dividemix_without_labelled_samples_labels_the_more_probable_half() -> None:
    trial = Trial("dividemix", clean_threshold=1.0)
    method = divided(trial, BIMODAL)
    assert [line.partition(": ")[2] for line in trial.warnings] == [
        f"network {k} has only 0 labelled samples, too few for 5 classes; the more probable half of all samples "
        "becomes labelled"
        for k in (1, 2)
    ]
    for k in (0, 1):
        labelled = method.labelled[k]
        assert int(labelled.sum()) == N // 2
        assert method.clean[1 - k][labelled].min() >= method.clean[1 - k][~labelled].max()
    method.start_epoch(6)
    assert len(method.order(6, 0)) == 4 * N // 2


def test_dividemix_without_unlabelled_samples_guesses_all() -> None:
    trial = Trial("dividemix", clean_threshold=1e-3)
    losses = torch.linspace(0.1, 0.2, N).repeat(2, 1)
    losses[:, :2] = 5.0
    method = divided(trial, losses)
    assert [line.partition(": ")[2] for line in trial.warnings] == [
        f"network {k} has only 2 unlabelled samples; all samples are used as unlabelled too" for k in (1, 2)
    ]
    method.start_epoch(6)
    order = method.order(6, 0)
    assert len(order) % B == 0
    assert set(order[0::4]) == set(range(2, N))
    assert set(order[2::4]) & {0, 1}
    for batch, images, index in trial.batches(6):
        loss, _ = trial.update(6, batch, images, index)
        assert np.isfinite(loss)


def test_dividemix_names_a_mixture_that_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("dividemix")
    monkeypatch.setattr(
        "fastnoise.methods.dividemix.fit_losses", lambda losses: fit_losses(losses, max_iterations=1, tolerance=0)
    )
    method = divided(trial, torch.rand(2, N))
    assert trial.warnings == [
        f"dividemix, epoch 5, network {k}: the mixture of losses has not converged after 20 iterations; it is used as "
        "it is"
        for k in (1, 2)
    ]
    assert method.divided


def test_dividemix_refuses_what_it_cannot_cut_or_mix() -> None:
    method = Trial("dividemix").method
    with pytest.raises(ConfigError, match="--batch-size must be a multiple of 4, not 30"):
        method.configure(Setting(OptimConfig(), (0.5,), (0.5,), 30))
    with pytest.raises(ConfigError, match="--mixup-alpha must be positive"):
        Trial("dividemix", mixup_alpha=0.0)
    trial = Trial("dividemix", warm_up=10)
    trial.method.end_epoch(trial.run(0, 10))
    assert trial.warnings == [
        "dividemix: all 10 epochs are warm-up, plain cross-entropy; give more --epochs, or a lower --warm-up (10)"
    ]


# -- compiled -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epoch", "backend", "amp"),
    [
        ("elr_plus", 1, "aot_eager", False),
        ("coteaching", 1, "aot_eager", True),
        ("dividemix", 1, "aot_eager", False),
        ("dividemix", 5, "aot_eager", True),
        ("augdesc", 5, "aot_eager", False),
        pytest.param("elr_plus", 1, "inductor", True, marks=pytest.mark.slow),
        pytest.param("coteaching", 1, "inductor", False, marks=pytest.mark.slow),
        pytest.param("dividemix", 5, "inductor", False, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_one_graph(name: str, epoch: int, backend: str, amp: bool) -> None:
    """Compiled without breaks, a step equals the eager one: loss, predictions, gradients, buffers."""
    torch._dynamo.reset()
    found = []
    for compiled in (False, True):
        trial = Trial(name)
        trial.train(epoch - 1)
        trial.method.start_epoch(epoch)
        _, images, index = trial.batches(epoch)[0]
        trial.method.before_step(epoch, 0, 7)
        step: Callable[..., Any] = trial.method.training_step
        if compiled:
            step = torch.compile(step, fullgraph=True, dynamic=False, backend=backend)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            result = step(list(trial.networks), images.to(memory_format=torch.channels_last), trial.given[index], index)
        result.loss.backward()
        gradients = [weight.grad for network in trial.networks for weight in network.parameters()]
        found.append((result, gradients, trial.method.state_dict()))
    (eager, slopes, state), (result, others, other_state) = found
    tolerance = 0.05 if amp else 1e-4
    torch.testing.assert_close(result.loss, eager.loss, rtol=tolerance, atol=tolerance)
    assert result.loss.dtype == torch.float32
    for first, second in zip(slopes, others, strict=True):
        assert torch.linalg.vector_norm(first - second) <= tolerance * torch.linalg.vector_norm(first) + 1e-5
    for key, value in state.items():
        torch.testing.assert_close(other_state[key], value, rtol=tolerance, atol=tolerance, msg=key)


def test_a_step_of_dividemix_after_its_warm_up_reads_nothing_back() -> None:
    trial = Trial("dividemix")
    trial.train(4)
    trial.method.start_epoch(5)
    (_, images, index), *_ = trial.batches(5)
    assert trial.method.program == 1
    with NoHostReads():
        trial.method.before_step(5, 0, 7)
        trial.method.training_step(list(trial.networks), images, trial.given[index], index).loss.backward()


# -- recipes ------------------------------------------------------------------------------------------------------


def test_published_settings() -> None:
    hundred = recipe("elr_plus", "cifar100", "symmetric:0.4")
    assert hundred.method == ELRPlusOptions(
        "elr_plus", strength=7.0, momentum=0.9, networks=2, mixup_alpha=1.0, average_momentum=0.997,
        average_ramp=40_000, averaged="parameters", strength_ramp=40_000, target="weighted",
    )  # fmt: skip
    assert (hundred.optim.epochs, hundred.optim.schedule) == (250, "multistep:200,gamma=0.1")
    ten = recipe("elr_plus", "cifar10", "asymmetric:0.4").method
    assert (ten.strength, ten.momentum, ten.strength_ramp, ten.target) == (1.0, 0.9, 0, "labels")
    assert recipe("elr_plus", "cifar10", "symmetric:0.4").method.strength == 3.0
    strengths = {
        (dataset, noise): recipe("dividemix", dataset, noise).method.unlabelled_strength
        for dataset in ("cifar10", "cifar100")
        for noise in ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "symmetric:0.9")
    }
    assert list(strengths.values()) == [0, 25, 25, 50, 25, 150, 150, 150]
    asymmetric = recipe("dividemix", "cifar10", "asymmetric:0.4")
    assert asymmetric.method.unlabelled_strength == 0
    assert asymmetric.method.confidence_penalty == 1
    assert asymmetric.data.batch_size == 256
    high = recipe("dividemix", "cifar100", "symmetric:0.9").method
    assert (high.warm_up, high.clean_threshold, high.loss_epochs) == (30, 0.6, 5)
    assert recipe("coteaching", "mnist", "pair:0.45").method.forget_rate == 0.45
    assert [noise_rate(noise) for noise in ("none", "human:worse", "matrix:T.npy")] == [0.0, 0.402, 0.2]


# -- end to end ---------------------------------------------------------------------------------------------------

QUICK = ("--dataset", "digits", "--limit-train", "200", "--width", "0.25", "--loader", "torch", "--batch-size", "32")
RUNS: dict[str, tuple[str, ...]] = {
    "elr_plus": ("--average-ramp", "10"),
    "coteaching": ("--forget-epochs", "2"),
    "dividemix": ("--warm-up", "1", "--unlabelled-strength", "25", "--unlabelled-ramp", "2"),
}


@pytest.mark.parametrize("method", RUNS)
def test_trains_from_the_command_line(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "--epochs", "2", "--method", method, *RUNS[method], "--run-dir", "run"]) == 0
    assert "network: 2 x small_cnn" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["train_loss"]) for line in lines)
    assert summary["test_accuracy"]["last"] == lines[-1]["test_accuracy"]
    assert {"suspected", "precision", "recall"} <= summary["label_errors"].keys()
    assert ("labelled" in lines[-1]) == (method == "dividemix")


@pytest.mark.parametrize("method", RUNS)
def test_interrupted_and_resumed_is_bit_identical(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped inside the first epoch (DivideMix's warm-up) and inside the third."""
    words = ["train", *QUICK, "--epochs", "3", "--method", method, *RUNS[method]]
    assert main([*words, "--run-dir", "whole"]) == 0
    stops = [(1, 1), (3, 1)]
    kind = METHODS[method]
    draw = kind.before_step

    def step(self: Method, epoch: int, batch: int, seed: int) -> None:
        draw(self, epoch, batch, seed)
        if stops and (epoch, batch) == stops[0]:
            stops.pop(0)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kind, "before_step", step)
    assert main([*words, "--run-dir", "cut"]) == 128 + signal.SIGINT
    assert main(["train", "--resume", "cut"]) == 128 + signal.SIGINT
    assert main(["train", "--resume", "cut"]) == 0
    assert not stops
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("networks", "method"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    whole, cut = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    for first, second in zip(whole, cut, strict=True):
        for key in first.keys() - {"images_per_second", "data_wait", "seconds", "epoch_seconds"}:
            assert first[key] == second[key], key


@pytest.mark.gpu
@pytest.mark.parametrize("method", RUNS)
def test_captured_steps_train_as_eager_ones(method: str, tmp_path: Path) -> None:
    """On a GPU, with a program of its own for DivideMix's warm-up."""
    accuracies = {}
    for gear in ("eager", "graphed"):
        words = ["train", *QUICK, "--limit-train", "1000", "--epochs", "4", "--method", method, *RUNS[method]]
        assert main([*words, "--device", "cuda", "--amp", "off", "--gear", gear, "--run-dir", gear]) == 0
        lines = (tmp_path / gear / "metrics.jsonl").read_text().splitlines()
        accuracies[gear] = [json.loads(line)["train_loss"] for line in lines]
    assert accuracies["graphed"] == pytest.approx(accuracies["eager"], rel=0.15)
