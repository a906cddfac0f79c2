"""Methods with one network: each against its update written out in plain PyTorch, collapses, and runs end to end."""

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from _scan_cases import scan_over
from sklearn.mixture import GaussianMixture
from torch import Tensor

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.errors import ConfigError
from fastnoise.losses import separation
from fastnoise.methods import METHODS, Method, Run, Setting, create_method, options_of, random_numbers
from fastnoise.methods.correction import TurningPoint
from fastnoise.methods.disc import ring
from fastnoise.methods.mixup import partners
from fastnoise.methods.options import DualTOptions, ForwardOptions, VolMinNetOptions
from fastnoise.methods.single import confidence_logit
from fastnoise.methods.volminnet import first_weight
from fastnoise.models import Network, Outputs, create_model
from fastnoise.recipes import recipe

N, C, B = 48, 5, 16
NAL: dict[str, Any] = {
    "strength": 0.5, "momentum": 0.9, "variant": "paper", "update_from": 1, "update_every": 1, "reverse": 0.0,
    "gate": 0.0, "target_estimation": "on", "attention": "branch",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Trial:
    """A method and its network in a bare loop: a pattern per class, 30 % noise, an order per epoch, SGD."""

    def __init__(self, name: str, **options: Any):
        torch.manual_seed(0)
        self.method: Any = create_method(options_of(name)(**options), num_samples=N, num_classes=C)
        self.network = create_model(
            "small_cnn", num_classes=C, channels=1, image_size=(8, 8), width=0.25, attention=self.method.attention
        )
        self.method.attach([self.network])
        true = torch.randint(C, (N,))
        self.images = torch.randn(C, 1, 8, 8)[true] + 0.5 * torch.randn(N, 1, 8, 8)
        self.given = torch.where(torch.rand(N) < 0.3, torch.randint(C, (N,)), true)
        self.labels = self.given.clone()
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1)
        self.warnings: list[str] = []

    def run(self, epoch: int, epochs: int) -> Run:
        return Run(
            epoch, epochs, 0, [self.network], self.given, self.labels, scan_over(self.evaluate), self.warnings.append
        )

    @torch.no_grad()
    def evaluate(self) -> list[Outputs]:
        self.network.eval()
        outputs = self.network(self.images)
        self.network.train()
        return [outputs if outputs.attention is None else outputs._replace(attention=outputs.attention.sigmoid())]

    def batches(self, epoch: int) -> Iterator[tuple[int, Tensor]]:
        order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
        yield from enumerate(order.split(B))

    def train(self, epochs: int, start: int = 1, of: int | None = None) -> list[float]:
        """Train epochs start..epochs of a run of `of`; the losses of all steps."""
        of = of or epochs
        if start == 1:
            self.method.end_epoch(self.run(0, of))
        losses = []
        for epoch in range(start, epochs + 1):
            self.method.start_epoch(epoch)
            for number, index in self.batches(epoch):
                self.method.before_step(epoch, number, 7)
                step = self.method.training_step([self.network], self.images[index], self.labels[index], index)
                self.optimizer.zero_grad()
                step.loss.backward()
                self.optimizer.step()
                self.method.after_update([self.network])
                losses.append(step.loss.item())
            self.method.end_epoch(self.run(epoch, of))
        return losses


def follows(trial: Trial, loss_of: Callable[[Network, int, int, Tensor], Tensor], epochs: int = 2) -> None:
    """The method's losses and weights over `epochs` equal those of `loss_of(network, epoch, batch, index)`."""
    network = deepcopy(trial.network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    actual = trial.train(epochs)
    expected = []
    for epoch in range(1, epochs + 1):
        for number, index in trial.batches(epoch):
            loss = loss_of(network, epoch, number, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert actual == pytest.approx(expected, rel=2e-5, abs=1e-6)
    for mine, theirs in zip(trial.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


# -- losses alone -------------------------------------------------------------------------------------------------


def _focal(probs: Tensor) -> Tensor:
    return -((1 - probs) ** 0.5) * probs.log()


# Each formula takes probabilities p [B, C] and the one-hot label y and gives the losses [B].
FORMULAS: dict[str, tuple[str, dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "ce": ("ce", {}, lambda p, y: -(y * p.log()).sum(1)),
    "label_smoothing": (
        "label_smoothing",
        {"label_smoothing": 0.1},
        lambda p, y: -((0.9 * y + 0.1 / C) * p.log()).sum(1),
    ),
    "gce": (
        "gce",
        {"q": 0.7, "k": 0.0, "update_from": 1, "update_every": 1},
        lambda p, y: (1 - (y * p).sum(1) ** 0.7) / 0.7,
    ),
    "sce": (
        "sce",
        {"alpha": 0.1, "beta": 1.0, "variant": "code"},
        lambda p, y: -0.1 * (y * p.log()).sum(1) - (p * y.clamp(min=1e-4).log()).sum(1),
    ),
    "sce-paper": (
        "sce",
        {"alpha": 6.0, "beta": 0.1, "variant": "paper"},
        lambda p, y: -6 * (y * p.log()).sum(1) + 0.1 * 4 * (p * (1 - y)).sum(1),
    ),
    "mae": ("mae", {"mae": "l1"}, lambda p, y: (p - y).abs().sum(1)),
    "focal": ("focal", {"gamma": 0.5}, lambda p, y: (y * _focal(p)).sum(1)),
    "nce+mae": (
        "apl",
        {"active": "nce", "passive": "mae", "alpha": 1.0, "beta": 10.0, "gamma": 0.5, "mae": "reduced"},
        lambda p, y: (y * p.log()).sum(1) / p.log().sum(1) + 10 * (1 - (y * p).sum(1)),
    ),
    "nce+rce": (
        "apl",
        {"active": "nce", "passive": "rce", "alpha": 10.0, "beta": 0.1, "gamma": 0.5, "mae": "reduced"},
        lambda p, y: 10 * (y * p.log()).sum(1) / p.log().sum(1) - 0.1 * (p * y.clamp(min=1e-4).log()).sum(1),
    ),
    "nfl+mae": (
        "apl",
        {"active": "nfl", "passive": "mae", "alpha": 1.0, "beta": 1.0, "gamma": 0.5, "mae": "l1"},
        lambda p, y: (y * _focal(p)).sum(1) / _focal(p).sum(1) + (p - y).abs().sum(1),
    ),
    "bootstrap-soft": (
        "bootstrap",
        {"kind": "soft"},
        lambda p, y: -((0.95 * y + 0.05 * p) * p.log()).sum(1),
    ),
    "bootstrap-hard": (
        "bootstrap",
        {"kind": "hard"},
        lambda p, y: -((0.8 * y + 0.2 * F.one_hot(p.argmax(1), C)) * p.log()).sum(1),
    ),
    "swce_loss": ("swce_loss", {"weight": "literal"}, lambda p, y: -((y * p) * p.log()).sum(1)),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_loss_alone_follows_its_formula(case: str) -> None:
    name, options, formula = FORMULAS[case]
    trial = Trial(name, **options)

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        return formula(network(trial.images[index]).logits.softmax(1), F.one_hot(trial.given[index], C).float()).mean()

    follows(trial, loss_of)


def test_truncated_gce_prunes_before_its_first_epoch_and_every_so_many() -> None:
    trial = Trial("gce", q=0.7, k=0.2, update_from=2, update_every=2)
    kept: dict[int, Tensor] = {}
    found = trial.method.end_epoch

    def end_epoch(run: Run) -> None:
        found(run)
        kept[run.epoch] = trial.method.kept.clone()
        if run.epoch in (1, 3):  # before epochs 2 and 4
            probs = trial.evaluate()[0].logits.softmax(1)
            assert torch.equal(kept[run.epoch].bool(), probs[range(N), trial.given] > 0.2)

    trial.method.end_epoch = end_epoch

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        probs = network(trial.images[index]).logits.softmax(1)[range(len(index)), trial.given[index]]
        weight = torch.ones(N) if epoch == 1 else kept[1] if epoch < 4 else kept[3]
        return (weight[index] * (1 - probs**0.7) / 0.7).mean()

    follows(trial, loss_of, 4)
    assert torch.equal(kept[0], torch.ones(N))
    assert torch.equal(kept[2], kept[1])
    assert 0 < trial.method.report()["kept"] < 1


def test_gce_with_no_sample_left_prunes_none() -> None:
    trial = Trial("gce", q=0.7, k=1.0, update_from=2, update_every=1)
    assert np.isfinite(trial.train(2)).all()
    assert set(trial.warnings) == {"gce: no label has a probability above k = 1.0; no sample is pruned; lower --k"}
    assert trial.method.report() == {"kept": 1.0}


def test_gce_prunes_after_the_last_epoch_too_so_that_a_run_can_go_on() -> None:
    trial = Trial("gce", q=0.7, k=0.2, update_from=3, update_every=4)
    trial.train(2)
    kept = trial.evaluate()[0].logits.softmax(1)[range(N), trial.given] > 0.2
    assert not kept.all()
    assert torch.equal(trial.method.kept.bool(), kept)


# -- mixup --------------------------------------------------------------------------------------------------------


def mixed_loss(network: Network, images: Tensor, labels: Tensor, share: float) -> Tensor:
    other = [len(images) - 1, *range(len(images) - 1)]
    log_probs = network(share * images + (1 - share) * images[other]).logits.log_softmax(1)
    rows = range(len(images))
    return -(share * log_probs[rows, labels] + (1 - share) * log_probs[rows, labels[other]]).mean()


def test_mixup_follows_its_formula() -> None:
    trial = Trial("mixup", mixup_alpha=1.0)
    shares: list[float] = []
    draw = trial.method.before_step

    def before_step(epoch: int, batch: int, seed: int) -> None:
        draw(epoch, batch, seed)
        shares.append(float(trial.method.mixup.share))

    trial.method.before_step = before_step
    left = iter(shares)  # filled by the method's own run, which `follows` makes first

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        return mixed_loss(network, trial.images[index], trial.given[index], next(left))

    follows(trial, loss_of)
    assert len(set(shares)) == len(shares) == 6
    assert all(0 < share < 1 for share in shares)


def test_mixup_without_mixing_is_cross_entropy() -> None:
    assert Trial("mixup", mixup_alpha=0.0).train(1) == pytest.approx(Trial("ce").train(1), rel=1e-5)


def test_partners_keep_channels_last() -> None:
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    assert partners(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(partners(images), images[[3, 0, 1, 2]])


# -- NAL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"reverse": 0.1, "gate": 0.45},
        {"target_estimation": "off"},
        {"attention": "confidence"},
        {"update_from": 2, "update_every": 2},
    ],
    ids=["plain", "reverse-gate", "no-targets", "no-branch", "es"],
)
def test_nal_follows_its_equations(changed: dict[str, Any]) -> None:
    options = NAL | changed
    trial = Trial("nal", **options)
    targets = F.one_hot(trial.given, C).float()
    updated = 0

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        nonlocal updated
        logits, head, _ = network(trial.images[index])
        probs = logits.softmax(1)
        tau = probs.max(1).values if options["attention"] == "confidence" else head.sigmoid()
        due = epoch >= options["update_from"] and epoch % options["update_every"] == 0
        if due and options["target_estimation"] == "on":
            passed = index[tau.detach() > options["gate"]]
            updated += len(passed)
            targets[passed] = 0.9 * targets[passed] + 0.1 * probs.detach()[tau.detach() > options["gate"]]
        t = targets[index]
        mixture = tau[:, None] * (probs - t) + t
        loss = -(t * mixture.log().nan_to_num(neginf=0)).sum(1) - options["strength"] * tau.log()
        if options["reverse"]:
            loss = loss - options["reverse"] * (mixture * t.clamp(min=1e-4).log()).sum(1)
        return loss.mean()

    follows(trial, loss_of)
    if updated:
        table = trial.method.criterion.targets
        seen = table.any(1)
        torch.testing.assert_close(table[seen], targets[seen], rtol=1e-4, atol=1e-6)
    else:
        assert options["target_estimation"] == "off"
        assert not trial.method.criterion.targets.any()
    assert (0 < updated < 2 * N) == (changed.get("gate", 0) > 0 or changed.get("update_from") == 2)


def test_the_confidence_has_a_finite_logit() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [200.0, 0.0, 0.0]], requires_grad=True)
    found = confidence_logit(logits)
    assert found.detach().sigmoid().tolist() == pytest.approx(logits.detach().softmax(1).max(1).values.tolist())
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_nal_with_attention_near_0_raises_its_strength() -> None:
    trial = Trial("nal", **NAL | {"strength": 0.01})
    assert trial.network.attention is not None
    with torch.no_grad():
        trial.network.attention.bias.fill_(-20.0)
    trial.train(1)
    assert len(trial.warnings) == 1
    assert "attention weights of epoch 1 are near 0" in trial.warnings[0]
    assert float(trial.method.strength) == 0.5
    trial.train(2, start=2)
    assert float(trial.method.criterion.knobs[2]) in (0.5, 5.0)


# -- forward correction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percentile", [97.0, 50.0, 100.0])
def test_transition_is_read_off_the_surest_sample_below_the_percentile(percentile: float) -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 300).astype(np.float32)
    trial = Trial("forward", percentile=percentile, warm_up=1)
    scan = scan_over(lambda: [Outputs(torch.from_numpy(probs).log())])
    method = create_method(ForwardOptions(percentile=percentile, warm_up=1), num_samples=300, num_classes=4)
    method.attach([trial.network])
    given = torch.zeros(300, dtype=torch.int64)
    method.end_epoch(Run(1, 2, 0, [trial.network], given, given, scan, trial.warnings.append))
    found = method.criterion.columns.T.numpy()
    for row in range(4):
        ranked = sorted(range(300), key=lambda sample: probs[sample, row])
        cut = 299 if percentile == 100 else int(np.ceil(percentile / 100 * 299)) - 1
        assert found[row] == pytest.approx(probs[ranked[cut]] / probs[ranked[cut]].sum(), rel=1e-5)
    assert found.sum(1) == pytest.approx(1)
    assert not trial.warnings


def test_forward_is_plain_then_corrects_from_the_first_weights() -> None:
    trial = Trial("forward", percentile=97.0, warm_up=3)
    first = deepcopy(trial.network.state_dict())
    follows(
        trial,
        lambda network, epoch, number, index: F.cross_entropy(network(trial.images[index]).logits, trial.given[index]),
        3,
    )
    trial = Trial("forward", percentile=97.0, warm_up=3)
    assert trial.method.rounds(8) == (3, 5)
    trial.train(3, of=8)
    assert not trial.warnings
    for name, tensor in trial.network.state_dict().items():
        assert torch.equal(tensor, first[name])
    columns = trial.method.criterion.columns.clone()
    assert not torch.equal(columns, torch.eye(C))
    network = deepcopy(trial.network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    actual, expected = trial.train(4, start=4, of=8), []
    for _, index in trial.batches(4):
        probs = network(trial.images[index]).logits.softmax(1)
        loss = -(probs @ columns.T)[range(len(index)), trial.given[index]].log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert actual == pytest.approx(expected, rel=1e-4)


def test_forward_without_two_classes_or_time_to_correct_stays_plain() -> None:
    trial = Trial("forward", percentile=97.0, warm_up=1)
    with torch.no_grad():
        trial.network.classifier.bias[3] = 1000.0
    trial.optimizer.param_groups[0]["lr"] = 0.0
    trial.train(1, of=2)
    assert len(trial.warnings) == 1
    assert "class 3 is predicted for every sample" in trial.warnings[0]
    assert torch.equal(trial.method.criterion.columns, torch.eye(C))
    trial = Trial("forward", percentile=97.0, warm_up=2)
    trial.train(2)
    assert trial.warnings == [
        "forward: all 2 epochs are warm-up, plain cross-entropy; give more --epochs, or a lower --warm-up (2)"
    ]


# -- Dual-T -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [None, 3])
def test_dual_t_multiplies_its_two_factors(absent: int | None) -> None:
    """The authors' matrices, with outliers passed over for their own class alone. A class that is never predicted has
    no row in the second factor."""
    random = np.random.default_rng(0)
    probs = random.dirichlet(np.ones(4), 300).astype(np.float32)
    if absent is not None:
        probs[:, absent] *= 1e-3
        probs /= probs.sum(1, keepdims=True)
    given = random.integers(0, 4, 300)
    club, spade = np.zeros((4, 4)), np.zeros((4, 4))
    for row in range(4):
        eta = probs[:, row].copy()
        eta[eta >= np.percentile(eta, 97, method="higher")] = 0
        club[row] = probs[eta.argmax()]
    for prediction, label in zip(probs.argmax(1), given, strict=True):
        spade[prediction, label] += 1
    with np.errstate(invalid="ignore"):
        spade = np.nan_to_num(spade / spade.sum(1, keepdims=True))
    expected = club @ spade
    expected /= expected.sum(1, keepdims=True)
    trial = Trial("dual_t", warm_up=1)
    method = create_method(DualTOptions(warm_up=1), num_samples=300, num_classes=4)
    method.attach([trial.network])
    scan, labels = scan_over(lambda: [Outputs(torch.from_numpy(probs).log())]), torch.from_numpy(given)
    method.end_epoch(Run(1, 2, 0, [trial.network], labels, labels, scan, trial.warnings.append))
    assert (spade[3].sum() == 0) == (absent is not None)
    np.testing.assert_allclose(method.criterion.columns.T.numpy(), expected, rtol=1e-5)
    assert method.report() == {"transition_diagonal": pytest.approx(expected.diagonal().mean())}
    assert not trial.warnings


def test_dual_t_is_plain_then_corrects_from_the_first_weights() -> None:
    trial = Trial("dual_t", warm_up=3)
    follows(
        trial,
        lambda network, epoch, number, index: F.cross_entropy(network(trial.images[index]).logits, trial.given[index]),
        3,
    )
    trial = Trial("dual_t", warm_up=3)
    assert trial.method.rounds(8) == (3, 5)
    network = deepcopy(trial.network)
    trial.train(3, of=8)
    assert not trial.warnings
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    transition = trial.method.criterion.columns.T.clone()
    assert not torch.equal(transition, torch.eye(C))
    actual, expected = trial.train(6, start=4, of=8), []
    for epoch in (4, 5, 6):
        for _, index in trial.batches(epoch):
            probs = network(trial.images[index]).logits.softmax(1) @ transition
            loss = F.nll_loss((probs + 1e-12).log(), trial.given[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert actual == pytest.approx(expected, rel=1e-4)
    for mine, theirs in zip(trial.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


# -- VolMinNet ----------------------------------------------------------------------------------------------------


def authors_transition(weights: Tensor) -> Tensor:
    """The authors' sig_t."""
    return F.normalize(torch.eye(C) + weights.sigmoid() * (1 - torch.eye(C)), p=1, dim=1)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_volminnet_follows_its_code(kind: str) -> None:
    """Losses, T and the network's weights over four epochs of the authors' loop, with a volume that counts."""
    trial = Trial("volminnet", strength=0.1, transition_rate=0.1, transition_optimizer=kind, initial=-1.5)
    weights = torch.nn.Parameter(torch.full((C, C), -1.5))
    of_weights = torch.optim.SGD([weights], 0.1, momentum=0.9) if kind == "sgd" else torch.optim.Adam([weights], 0.1)
    first = authors_transition(weights.detach())
    torch.testing.assert_close(trial.method.criterion.columns.T, first)

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        if weights.grad is not None:  # of the step before
            of_weights.step()
            of_weights.zero_grad()
        transition = authors_transition(weights)
        noisy = network(trial.images[index]).logits.softmax(1) @ transition
        return F.nll_loss(noisy.log(), trial.given[index]) + 0.1 * transition.slogdet().logabsdet

    follows(trial, loss_of, 4)
    of_weights.step()
    last = authors_transition(weights.detach())
    assert (last - first).abs().max() > 0.01
    torch.testing.assert_close(trial.method.criterion.columns.T, last, rtol=1e-4, atol=1e-5)
    assert trial.method.report() == {
        "transition_diagonal": pytest.approx(last.diagonal().mean().item(), rel=1e-4),
        "transition_log_volume": pytest.approx(last.slogdet().logabsdet.item(), rel=1e-4),
    }


def test_the_gradient_of_t_is_that_of_the_weighted_loss() -> None:
    """In full precision under autocast too."""
    trial = Trial("volminnet")
    trial.method.class_weights = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.0])
    transition = trial.method.criterion.columns.T.clone().requires_grad_()
    logits = torch.randn(N, C, generator=torch.Generator().manual_seed(1))
    probs = logits.softmax(1) @ transition
    losses = -probs[range(N), trial.given].log() * trial.method.class_weights[trial.given]
    losses.mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = trial.method.loss(Outputs(logits), trial.given, torch.arange(N))
    expected = losses.mean() + 1e-4 * transition.slogdet().logabsdet
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(trial.method.gradient, transition.grad)


def test_volminnet_begins_as_published_whatever_the_number_of_classes() -> None:
    """On the diagonal of T: 1 / (1 + 9 sigmoid(-2)) for ten classes, and as high for more."""
    assert [round(first_weight(count), 2) for count in (2, 10, 100)] == [-2, -2, -4.51]
    for count in (10, 50, 1000):
        method = create_method(VolMinNetOptions(), num_samples=4, num_classes=count)
        assert method.report()["transition_diagonal"] == pytest.approx(0.4825, abs=1e-3)


def test_the_rate_of_t_follows_the_schedule() -> None:
    trial = Trial("volminnet", transition_rate=0.3)
    trial.method.configure(Setting(OptimConfig(learning_rate=0.1), (0.5,), (0.5,)))
    for rate, expected in ((0.1, 0.3), (0.01, 0.03), (0.0, 0.0)):
        trial.method.at_rate(rate)
        assert float(trial.method.rate) == pytest.approx(expected)
    columns = trial.method.criterion.columns.clone()
    trial.train(1)
    assert torch.equal(trial.method.criterion.columns, columns)


# -- PLC ----------------------------------------------------------------------------------------------------------


def test_plc_corrects_as_its_algorithm_says() -> None:
    """Warm-up 1, window 2, five epochs: labels, threshold and losses."""
    trial = Trial("plc", warm_up=1, window=2, threshold=0.6, threshold_step=0.1)
    records: list[Tensor] = []
    labels, threshold = trial.given.clone(), 0.6

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        nonlocal threshold
        if number == 0:
            if epoch > 2:
                threshold = correct(threshold)
            records.append(torch.zeros(N, C))
        logits = network(trial.images[index]).logits
        records[-1][index] = logits.detach().softmax(1)
        return F.cross_entropy(logits, labels[index])

    def correct(threshold: float) -> float:
        mean, changed = torch.stack(records[-2:]).mean(0), 0
        for sample, row in enumerate(mean.tolist()):
            if row[labels[sample]] / max(row) < threshold:
                labels[sample] = row.index(max(row))
                changed += 1
        return threshold if changed >= 0.001 * N else max(threshold, min(threshold + 0.1, 0.9))

    follows(trial, loss_of, 5)
    threshold = correct(threshold)
    assert 0 < int((labels != trial.given).sum()) < N
    assert torch.equal(trial.labels, labels)
    assert trial.method.report()["threshold"] == pytest.approx(threshold)
    estimates = trial.method.estimates(trial.run(5, 5))
    assert estimates is not None
    assert torch.equal(estimates.labels, labels)
    assert torch.equal(estimates.suspected, labels != trial.given)
    assert ((estimates.confidence >= 0) & (estimates.confidence <= 1)).all()


def test_plc_raises_its_threshold_to_0_9_where_nothing_is_corrected() -> None:
    trial = Trial("plc", warm_up=0, window=1, threshold=0.3, threshold_step=0.25)
    trial.method.probs.copy_(F.one_hot(trial.given, C))
    found = []
    for epoch in range(1, 5):
        trial.method.end_epoch(trial.run(epoch, 4))
        found.append(trial.method.report()["threshold"])
    assert found == pytest.approx([0.55, 0.8, 0.9, 0.9])
    assert torch.equal(trial.labels, trial.given)


def test_plc_corrects_nothing_where_one_class_is_predicted() -> None:
    trial = Trial("plc", warm_up=0, window=1, threshold=0.3, threshold_step=0.1)
    trial.method.probs[..., 2] = 1.0
    trial.method.end_epoch(trial.run(1, 2))
    assert "class 2 is the most probable one for every sample" in trial.warnings[0]
    assert torch.equal(trial.labels, trial.given)


# -- ELR ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 3])
def test_elr_updates_its_targets_from_an_epoch_on(first: int) -> None:
    """Before it the loss is cross-entropy; from it on Eq. 6, with targets by Eq. 9 that begin at 0."""
    trial = Trial("elr", strength=2.0, momentum=0.6, update_from=first)
    targets = torch.zeros(N, C)

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        logits = network(trial.images[index]).logits
        entropy = F.cross_entropy(logits, trial.given[index])
        if epoch < first:
            return entropy
        probs = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        targets[index] = 0.6 * targets[index] + 0.4 * (probs / probs.sum(1, keepdim=True)).detach()
        return entropy + 2 * (1 - (probs * targets[index]).sum(1)).log().mean()

    follows(trial, loss_of, 4)
    torch.testing.assert_close(trial.method.criterion.targets, targets, rtol=1e-4, atol=1e-6)


def test_elr_corrects_nothing_before_it_updates() -> None:
    trial = Trial("elr", update_from=3)
    trial.train(2, of=4)
    assert not trial.method.criterion.targets.any()
    assert torch.equal(trial.method.corrected(trial.given), trial.given)
    assert torch.equal(trial.method.estimates(trial.run(2, 4)).confidence, torch.ones(N))


# -- SELC ---------------------------------------------------------------------------------------------------------


def test_selc_follows_its_equations() -> None:
    trial = Trial("selc", momentum=0.9, update_from=2)
    targets = F.one_hot(trial.given, C).float()

    def loss_of(network: Network, epoch: int, number: int, index: Tensor) -> Tensor:
        log_probs = network(trial.images[index]).logits.log_softmax(1)
        if epoch >= 2:
            targets[index] = 0.9 * targets[index] + 0.1 * log_probs.detach().exp()
        return -(targets[index] * log_probs).sum(1).mean()

    follows(trial, loss_of, 4)
    torch.testing.assert_close(trial.method.criterion.targets, targets, rtol=1e-4, atol=1e-6)
    assert torch.equal(trial.method.corrected(trial.given), targets.argmax(1))


def losses_apart(distance: float, epoch: int) -> Tensor:
    """The losses of 600 clean and 400 mislabelled samples, two normal distributions."""
    random = torch.Generator().manual_seed(epoch)
    return 5 + torch.cat((torch.randn(600, generator=random), torch.randn(400, generator=random) + distance))


def test_the_turning_point_is_where_losses_stop_moving_apart() -> None:
    """Rises by more than a tenth until epoch 4; a training of 60 epochs waits for one more, one of 150 for three."""
    for epochs, found_at in ((60, 5), (150, 7)):
        trial = Trial("ce")
        turning_point = TurningPoint(1000)
        for epoch, distance in enumerate((3.0, 5.0, 7.0, 9.0, 9.3, 8.5, 7.0, 6.0), 1):
            turning_point.record(losses_apart(distance, epoch), torch.arange(1000))
            if reached := turning_point.reached(trial.run(epoch, epochs), epochs):
                break
        assert reached
        assert (epoch, int(turning_point.at)) == (found_at, 4)
        assert not trial.warnings


def test_a_mixture_that_does_not_converge_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = partial(GaussianMixture, max_iter=1, tol=0.0)
    monkeypatch.setattr("sklearn.mixture.GaussianMixture", hasty)
    trial = Trial("selc", momentum=0.9)
    assert np.isfinite(trial.train(3)).all()
    assert len(trial.warnings) == 4
    assert "doesn't converge on the losses of epoch 1" in trial.warnings[0]
    assert "no turning point was found in 3 epochs" in trial.warnings[3]
    assert torch.equal(trial.method.corrected(trial.given), trial.given)


def test_selc_begins_after_the_turning_point_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurningPoint, "reached", lambda self, run, epochs: run.epoch == 2)
    trial = Trial("selc", momentum=0.9)
    trial.train(2, of=4)
    assert not trial.method.criterion.targets.any()
    assert trial.method.report() == {"update_from": 3}
    assert (trial.method.turning_point.losses > 0).all()
    trial.train(3, start=3, of=4)
    assert trial.method.criterion.targets.any(1).all()
    assert not trial.warnings


def test_a_turning_point_in_the_last_epoch_corrects_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurningPoint, "reached", lambda self, run, epochs: run.epoch == 2)
    trial = Trial("selc", momentum=0.9)
    trial.train(2)
    assert trial.warnings == [
        "selc: the turning point came in the last of 2 epochs, so no label was corrected; raise --epochs, or give the "
        "first epoch by --update-from"
    ]
    assert trial.method.report() == {}


def test_selc_plus_retrains_with_mixup_on_the_corrected_labels() -> None:
    trial = Trial("selc_plus", momentum=0.2, mixup_alpha=0.9, update_from=1)
    first = deepcopy(trial.network.state_dict())
    plain = Trial("selc", momentum=0.2, update_from=1)
    assert trial.train(3, of=6) == pytest.approx(plain.train(3), rel=1e-5)  # the first half is SELC
    corrected = plain.method.corrected(plain.given)
    assert corrected is not None
    assert not torch.equal(corrected, trial.given)
    assert torch.equal(trial.labels, corrected)
    for name, tensor in trial.network.state_dict().items():
        assert torch.equal(tensor, first[name])
    targets = trial.method.criterion.targets.clone()
    shares: list[float] = []
    draw = trial.method.before_step

    def before_step(epoch: int, batch: int, seed: int) -> None:
        draw(epoch, batch, seed)
        shares.append(float(trial.method.mixup.share))

    trial.method.before_step = before_step
    network = deepcopy(trial.network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    actual = trial.train(5, start=4, of=6)
    expected: list[float] = []
    for epoch in (4, 5):
        for _, index in trial.batches(epoch):
            loss = mixed_loss(network, trial.images[index], corrected[index], shares[len(expected)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert actual == pytest.approx(expected, rel=1e-4)
    assert len(set(shares)) == 6
    assert torch.equal(trial.method.criterion.targets, targets)


# -- SOP ----------------------------------------------------------------------------------------------------------


class Overparameterized:
    """loss.py and trainer.py of the authors: u and v are parameters, moved by SGD of their own beside the network's."""

    def __init__(self, trial: Trial, rate_u: float, rate_v: float):
        start = trial.method.criterion.targets.clone()
        self.network, self.one_hot = deepcopy(trial.network), F.one_hot(trial.given, C).float()
        self.u = start.gather(1, trial.given[:, None]).requires_grad_()
        self.v = start.requires_grad_()
        # A batch has 16 samples here, and there 128.
        groups = [{"params": self.u, "lr": rate_u * B / 128}, {"params": self.v, "lr": rate_v * B / 128}]
        self.optimizers = torch.optim.SGD(groups), torch.optim.SGD(self.network.parameters(), 0.1)

    def step(self, index: Tensor, logits: Tensor, more: Callable[[Tensor], Tensor] | None = None) -> float:
        label = self.one_hot[index]
        u_square = (self.u[index] ** 2 * label).clamp(0, 1)
        v_square = (self.v[index] ** 2 * (1 - label)).clamp(0, 1)
        prediction = (logits.softmax(1) + u_square - v_square.detach()).clamp(min=1e-4)
        prediction = F.normalize(prediction, p=1, eps=1e-4).clamp(1e-4, 1.0)
        predicted = F.one_hot(logits.argmax(1), C).float()
        loss = (-(label * prediction.log()).sum(1)).mean()
        loss = loss + F.mse_loss(predicted + u_square - v_square, label, reduction="sum") / len(index)
        if more is not None:
            loss = loss + more(prediction)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def agrees(self, trial: Trial) -> None:
        """Weights, u and v."""
        targets = torch.where(self.one_hot > 0, self.u, self.v).detach()
        torch.testing.assert_close(trial.method.criterion.targets, targets, rtol=1e-4, atol=1e-5)
        mine, theirs = trial.network.state_dict(), self.network.state_dict()
        for name, tensor in theirs.items():
            torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-5)


def test_sop_follows_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, u, v and weights over five epochs, from u and v that are large enough to move."""
    monkeypatch.setattr(separation, "START", 0.3)
    trial = Trial("sop", rate_u=20.0, rate_v=30.0)
    trial.method.end_epoch(trial.run(0, 5))
    expected = Overparameterized(trial, 20.0, 30.0)
    before, moved = trial.method.criterion.targets.clone(), []
    for epoch in range(1, 6):
        for _, index in trial.batches(epoch):
            step = trial.method.training_step([trial.network], trial.images[index], trial.given[index], index)
            trial.optimizer.zero_grad()
            step.loss.backward()
            trial.optimizer.step()
            logits = expected.network(trial.images[index]).logits
            assert step.loss.item() == pytest.approx(expected.step(index, logits), rel=2e-5)
            assert torch.equal(step.predictions, logits.argmax(1))
        moved.append(float((trial.method.criterion.targets - before).abs().mean()))
    assert moved[-1] > moved[0] > 0.01
    expected.agrees(trial)
    squares = torch.where(expected.one_hot > 0, expected.u, expected.v).detach().square().clamp(max=1)
    cleaned = torch.where(expected.one_hot > 0, 1 - squares, squares)
    estimates = trial.method.estimates(trial.run(5, 5))
    assert torch.equal(estimates.labels, cleaned.argmax(1))
    assert 0 < estimates.suspected.sum() < N
    assert torch.equal(estimates.suspected, estimates.labels != trial.given)
    shares = cleaned.gather(1, trial.given[:, None])[:, 0] / cleaned.sum(1)
    torch.testing.assert_close(estimates.confidence, shares, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_sop_plus_follows_its_code(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with two views in one batch: consistency of the second with the first, and balanced classes."""
    monkeypatch.setattr(separation, "START", 0.3)
    trial = Trial("sop_plus", rate_u=20.0, rate_v=30.0, consistency=0.9, class_balance=0.8)
    trial.method.end_epoch(trial.run(0, 5))
    expected, random = Overparameterized(trial, 20.0, 30.0), torch.Generator().manual_seed(0)
    training_step = trial.method.training_step
    if compiled:
        torch._dynamo.reset()
        training_step = torch.compile(training_step, fullgraph=True, backend="aot_eager")
    assert trial.method.views == 2
    for epoch in range(1, 4 if compiled else 6):
        for _, index in trial.batches(epoch):
            images = trial.images[index].repeat(2, 1, 1, 1)
            images = images + 0.3 * torch.randn(images.shape, generator=random)
            step = training_step([trial.network], images, trial.given[index], index)
            trial.optimizer.zero_grad()
            step.loss.backward()
            trial.optimizer.step()
            weak, strong = expected.network(images).logits.chunk(2)

            def more(prediction: Tensor, weak: Tensor = weak, strong: Tensor = strong) -> Tensor:
                mean = prediction.mean(0).clamp(1e-4, 1.0)
                balance = -(mean.log() / C).sum()
                apart = F.kl_div(strong.log_softmax(1), weak.softmax(1).detach(), reduction="none").sum(1).mean()
                return 0.8 * balance + 0.9 * apart

            assert step.loss.item() == pytest.approx(expected.step(index, weak, more), rel=2e-5)
            assert torch.equal(step.predictions, weak.argmax(1))
    expected.agrees(trial)


def test_sop_begins_with_numbers_of_the_runs_seed() -> None:
    trial = Trial("sop")
    criterion = trial.method.criterion
    run = trial.run(0, 3)
    run.seed = 7
    trial.method.end_epoch(run)
    first = criterion.targets.clone()
    assert 0.8e-8 < first.std() < 1.2e-8
    assert abs(float(first.mean())) < 0.3e-8
    run.epoch, run.seed = 1, 8
    trial.method.end_epoch(run)
    assert torch.equal(criterion.targets, first)
    run.epoch = 0
    trial.method.end_epoch(run)
    assert not torch.equal(criterion.targets, first)
    assert torch.equal(trial.method.corrected(trial.given), trial.given)
    assert torch.equal(trial.method.estimates(run).confidence, torch.ones(N))


# -- JS, GJS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "pi"),
    [({}, 0.3), ({"passes": "joint"}, 0.3), ({"views": 1}, 0.7), ({"scale": "off"}, 0.1)],
    ids=lambda changed: "-".join(changed) if isinstance(changed, dict) else "",
)
def test_gjs_follows_its_code(changed: dict[str, Any], pi: float) -> None:
    """Losses, predictions, weights and statistics over two epochs; each view forwarded by itself but for `joint`."""
    trial = Trial("gjs", pi=pi, **changed)
    network, method = deepcopy(trial.network), trial.method
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    random = torch.Generator().manual_seed(0)
    views = changed.get("views", 2)
    assert method.views == views
    for epoch in (1, 2):
        for _, index in trial.batches(epoch):
            images = trial.images[index].repeat(views, 1, 1, 1)
            images = images + 0.3 * torch.randn(images.shape, generator=random)
            step = method.training_step([trial.network], images, trial.labels[index], index)
            trial.optimizer.zero_grad()
            step.loss.backward()
            trial.optimizer.step()
            joint = changed.get("passes") == "joint"
            logits = network(images).logits.chunk(views) if joint else [network(x).logits for x in images.chunk(views)]
            distributions = [F.one_hot(trial.given[index], C).float(), *(each.softmax(1) for each in logits)]
            weights = [pi, *[(1 - pi) / views] * views]
            mean = sum(w * d for w, d in zip(weights, distributions, strict=True)).clamp(1e-7, 1).log()
            loss = sum(
                w * torch.xlogy(d, d.clamp(min=1e-7)).sub(d * mean).sum(1).mean()
                for w, d in zip(weights, distributions, strict=True)
            )
            loss = loss if changed.get("scale") else -loss / ((1 - pi) * np.log(1 - pi))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert step.loss.item() == pytest.approx(loss.item(), rel=2e-5)
            assert torch.equal(step.predictions, sum(logits).argmax(1))
    for mine, theirs in zip(trial.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


# -- CORES2 -------------------------------------------------------------------------------------------------------


def test_cores_follows_its_code() -> None:
    """Losses, what the sieve keeps, the classes' shares and the weights over seven epochs of loss_cores and phase1.py,
    whose learning rate is divided by 1 + beta."""
    trial = Trial("cores", strength=1.5, ramp_from=1, ramp_to=4, sieve_from=4)
    network, method = deepcopy(trial.network), trial.method
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    initial = torch.bincount(trial.given, minlength=C)
    prior = initial / N
    method.end_epoch(trial.run(0, 7))
    left_out = []
    for epoch, beta in enumerate([0.0, 0.5, 1.0, 1.5, 1.5, 1.5, 1.5], 1):
        method.start_epoch(epoch)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + beta)
        dropped, values = torch.zeros(C), torch.ones(N, dtype=torch.bool)
        torch.testing.assert_close(method.prior, prior)
        for number, index in trial.batches(epoch):
            index = index[: len(index) - 4 * (number == 2)]  # a last batch that leaves samples unseen
            step = method.training_step([trial.network], trial.images[index], trial.labels[index], index)
            trial.optimizer.zero_grad()
            step.loss.backward()
            trial.optimizer.step()
            logits, given = network(trial.images[index]).logits, trial.given[index]
            loss = F.cross_entropy(logits, given, reduction="none")
            others = -torch.log(F.softmax(logits, 1) + 1e-8)
            kept = (loss - others.mean(1) <= 0) | torch.tensor(epoch < 4)
            total = ((loss - beta * (prior * others).sum(1)) * kept).sum() / kept.sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            assert step.loss.item() == pytest.approx(total.item(), rel=1e-4, abs=1e-5)
            assert torch.equal(step.predictions, logits.argmax(1))
            assert torch.equal(method.kept[index], kept)
            dropped += torch.bincount(given[~kept], minlength=C)
            values[index] = kept
        prior = (initial - dropped) / (initial - dropped).sum()
        left_out.append(int(dropped.sum()))
        method.end_epoch(trial.run(epoch, 7))
        ((name, (members, labels)),) = method.selections().items()
        assert (name, labels) == ("kept", None)
        assert torch.equal(members, values)
    assert left_out[:3] == [0, 0, 0]
    assert all(0 < count < N // 2 for count in left_out[3:])
    for mine, theirs in zip(trial.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    estimates = method.estimates(trial.run(7, 7))
    log_probs = trial.evaluate()[0].logits.log_softmax(1)
    given = log_probs.gather(1, trial.given[:, None]).squeeze(1)
    assert torch.equal(estimates.suspected, given < log_probs.mean(1))
    torch.testing.assert_close(estimates.confidence, given.exp())
    assert torch.equal(estimates.labels, torch.where(estimates.suspected, log_probs.argmax(1), trial.given))


def test_cores_has_the_published_ramp_and_sieve() -> None:
    trial = Trial("cores")
    found = []
    for epoch in range(1, 101):
        trial.method.start_epoch(epoch)
        found.append((float(trial.method.beta), bool(trial.method.sieving)))
    betas = np.concatenate((np.zeros(10), np.linspace(0.0, 2, 30), np.full(60, 2.0)))
    assert [beta for beta, _ in found] == pytest.approx(list(betas))
    assert [sieving for _, sieving in found] == [epoch > 30 for epoch in range(100)]
    with pytest.raises(ConfigError, match="--ramp-to 11 must be above --ramp-from 11"):
        Trial("cores", ramp_to=11)


def test_cores_that_keeps_no_sample_learns_nothing_and_says_so() -> None:
    """Where the authors' code ends in an error. A loss that is no finite number still shows."""
    trial = Trial("cores", sieve_from=1)
    method = trial.method
    method.end_epoch(trial.run(0, 5))
    before = method.prior.clone()
    method.start_epoch(1)
    logits = -5.0 * F.one_hot(trial.given, C)
    logits.requires_grad_(True)
    loss = method.loss(Outputs(logits), trial.given, torch.arange(N))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    method.end_epoch(trial.run(1, 5))
    assert trial.warnings[0].startswith("cores, epoch 1: no label was as likely as a class is on average")
    assert torch.equal(method.prior, before)
    assert not method.selections()["kept"].members.any()
    assert method.kept.all()
    broken = logits.detach() * torch.nan
    assert method.loss(Outputs(broken), trial.given, torch.arange(N)).isnan()


def test_cores_weights_classes_and_divides_the_gradient_alone() -> None:
    trial = Trial("cores", ramp_from=0, ramp_to=1, strength=3.0, sieve_from=1)
    plain = Trial("cores", ramp_from=0, ramp_to=1, strength=3.0, sieve_from=1, damping="off")
    weights = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.0])
    gradients, losses = [], []
    for each in (trial, plain):
        each.method.class_weights = weights
        each.method.start_epoch(1)
        logits = torch.randn(N, C, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        loss = each.method.loss(Outputs(logits), each.given, torch.arange(N))
        loss.backward()
        gradients.append(logits.grad)
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(4 * gradients[0], gradients[1])
    assert not gradients[0][trial.given == 4].any()
    assert gradients[0][trial.given == 0].any()


# -- DISC ---------------------------------------------------------------------------------------------------------


def test_disc_follows_its_code() -> None:
    """Losses, predictions, thresholds, sets, labels and weights over a warm-up of six epochs and four more."""
    trial = Trial("disc", warm_up=6, threshold_momentum=0.95, hard_strength=0.4)
    network, method = deepcopy(trial.network), trial.method
    trial.optimizer, optimizer = (torch.optim.SGD(each.parameters(), 0.2) for each in (trial.network, network))
    random = torch.Generator().manual_seed(0)
    weak, strong, t_w, t_s = torch.zeros(N, C), torch.zeros(N, C), torch.full((N,), 1 / N), torch.full((N,), 1 / N)
    clean, hard, purified, targets = *torch.zeros(3, N, dtype=torch.bool), trial.given.clone()
    rows, sizes = torch.arange(N), []
    method.end_epoch(trial.run(0, 10))
    for epoch in range(1, 11):
        method.start_epoch(epoch)
        for number, index in trial.batches(epoch):
            images = trial.images[index].repeat(2, 1, 1, 1)
            images = images + 0.3 * torch.randn(images.shape, generator=random)
            method.before_step(epoch, number, 7)
            step = method.training_step([trial.network], images, trial.labels[index], index)
            trial.optimizer.zero_grad()
            step.loss.backward()
            trial.optimizer.step()

            logits = network(images).logits.chunk(2)
            weak[index], strong[index] = (each.detach().softmax(1) for each in logits)
            given = trial.given[index]
            if epoch <= 6:
                loss = sum(F.cross_entropy(each, given) for each in logits)
            else:
                loss = torch.zeros(())
                inside, between = clean[index].nonzero()[:, 0], hard[index].nonzero()[:, 0]
                for each in logits:
                    if len(inside):
                        loss = loss + F.cross_entropy(each[inside], given[inside]) * len(inside) / len(index)
                    if len(between):
                        right = each[between].softmax(1).gather(1, given[between, None])
                        loss = loss + 0.4 * ((1 - right**0.7) / 0.7).mean() * len(between) / len(index)
                mixed = (clean | hard | purified)[index].nonzero()[:, 0].tolist()
                mates = {mine: mixed[place - 1] for place, mine in enumerate(mixed)}
                for purpose, view in zip((24, 25), images.chunk(2), strict=True):
                    share = float(random_numbers(7, (epoch << 32) + number, purpose).beta(5, 5))
                    share = max(share, 1 - share)
                    mixture = view.clone()
                    for mine, other in mates.items():
                        mixture[mine] = share * view[mine] + (1 - share) * view[other]
                    answers, labels = network(mixture).logits[mixed], targets[index]
                    if mixed:
                        loss = loss + share * F.cross_entropy(answers, labels[mixed])
                        others = labels[[mates[mine] for mine in mixed]]
                        loss = loss + (1 - share) * F.cross_entropy(answers, others)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert step.loss.item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)
            assert torch.equal(step.predictions, sum(logits).argmax(1))
        method.end_epoch(trial.run(epoch, 10))
        passed = weak[rows, trial.given] > t_w, strong[rows, trial.given] > t_s
        clean, hard, selected = passed[0] & passed[1], passed[0] != passed[1], passed[0] | passed[1]
        best, classes = ((weak + strong) / 2).max(1)
        purified = (best > torch.minimum((t_w + t_s) / 2 + 0.5, torch.tensor(0.99))) & ~selected
        targets = torch.where(purified, classes, trial.given)
        t_w, t_s = 0.95 * t_w + 0.05 * weak.amax(1), 0.95 * t_s + 0.05 * strong.amax(1)
        for mine, theirs in ((method.weak_threshold, t_w), (method.strong_threshold, t_s), (method.weak, weak)):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
        chosen = method.selections()
        assert [torch.equal(chosen[name].members, members) for name, members in
                (("clean", clean), ("hard", hard), ("purified", purified))] == [True] * 3  # fmt: skip
        assert torch.equal(trial.labels, targets if epoch >= 6 else trial.given), "the warm-up learns the given labels"
        assert torch.equal(method.corrected(trial.given), targets)
        sizes.append([int(members.sum()) for members in (clean, hard, purified)])
    assert all(np.array(sizes)[5:-1].sum(0) > 0), "every set has had members"
    assert sum(purified for _, _, purified in sizes[:5]), "samples are purified in the warm-up already"
    for mine, theirs in zip(trial.network.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-4)
    estimates = method.estimates(trial.run(10, 10))
    mean = (weak + strong) / 2
    assert torch.equal(estimates.suspected, ~(clean | hard) & (mean.argmax(1) != trial.given))
    torch.testing.assert_close(estimates.confidence, mean[rows, trial.given], rtol=1e-3, atol=1e-4)
    assert torch.equal(estimates.labels, torch.where(estimates.suspected, mean.argmax(1), trial.given))
    assert not trial.warnings


def test_disc_without_a_selected_sample_learns_nothing_and_says_so() -> None:
    trial = Trial("disc", warm_up=0, threshold_momentum=0.0)
    method = trial.method
    method.weak_threshold.fill_(2.0)
    method.strong_threshold.fill_(2.0)
    method.weak[:] = method.strong[:] = 0.75 * F.one_hot(trial.given, C)
    method.end_epoch(trial.run(1, 5))
    assert trial.warnings[0].startswith("disc, epoch 1: no label is more likely than its sample's threshold")
    method.start_epoch(2)
    step = method.training_step([trial.network], trial.images[:8].repeat(2, 1, 1, 1), trial.given[:8], torch.arange(8))
    step.loss.backward()
    assert step.loss.item() == 0
    assert not any(p.grad.any() for p in trial.network.parameters() if p.grad is not None)
    assert torch.equal(method.weak_threshold, torch.full((N,), 0.75))


@pytest.mark.parametrize(
    ("members", "mates"),
    [
        ([0, 1, 0, 1, 1], [0, 4, 2, 1, 3]),
        ([1, 1, 0], [1, 0, 2]),
        ([0, 1, 0], [0, 1, 2]),
        ([0, 0], [0, 1]),
        ([1, 1, 1], [2, 0, 1]),
    ],
)
def test_the_mate_of_a_member_is_the_member_before_it(members: list[int], mates: list[int]) -> None:
    assert ring(torch.tensor(members, dtype=torch.bool)).tolist() == mates


# -- compiled -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changed"), [("nal", {"attention": "confidence"}), ("selc_plus", {}), ("volminnet", {})]
)
def test_a_step_is_one_graph(name: str, changed: dict[str, Any]) -> None:
    torch._dynamo.reset()
    options = {
        key: value
        for key, value in vars(recipe(name, "digits").method).items()
        if value is not None and key != "method"
    }
    results = []
    for compiled in (False, True):
        trial = Trial(name, **options | changed)
        if compiled:
            step = torch.compile(trial.method.training_step, fullgraph=True, backend="eager")
            trial.method.training_step = step
        results.append((trial.train(2), trial.method.state_dict()))
    (eager, state), (graph, other) = results
    assert graph == pytest.approx(eager, rel=1e-4)
    for key, tensor in state.items():
        torch.testing.assert_close(other[key], tensor, rtol=1e-3, atol=1e-4)


# -- recipes ------------------------------------------------------------------------------------------------------


def test_published_settings() -> None:
    def update_from(dataset: str, noise: str) -> int | str:
        return recipe("selc", dataset, noise).method.update_from

    assert [update_from("cifar10", f"symmetric:{rate}") for rate in (0.2, 0.4, 0.6, 0.8)] == [41, 31, 31, 41]
    assert [update_from("cifar100", f"symmetric:{rate}") for rate in (0.2, 0.4, 0.6, 0.8)] == [31, 21, 31, 41]
    assert (update_from("cifar10", "asymmetric:0.4"), update_from("cifar100", "asymmetric:0.4")) == (41, 21)
    for other in ("symmetric:0.5", "asymmetric:0.2", "pair:0.4"):
        assert update_from("cifar10", other) == "auto"
    assert update_from("digits", "symmetric:0.4") == "auto"
    assert recipe("selc_plus", "cifar10", "symmetric:0.4").optim.epochs == 400
    assert (recipe("apl", "cifar10").method.alpha, recipe("apl", "cifar100").method.alpha) == (1.0, 10.0)
    assert (recipe("sce", "cifar100").method.alpha, recipe("sce", "cifar100").method.beta) == (6.0, 0.1)
    assert recipe("sce", "cifar10", variant="paper").method.variant == "paper"
    assert (recipe("gce", "cifar10").method.update_from, recipe("gce", "cifar100").method.update_from) == (40, 80)
    plc = recipe("plc", "cifar10").flat()
    assert (plc["optimizer"], plc["learning_rate"], plc["warm_up"]) == ("sgd:momentum=0.9,nesterov", 0.01, 8)
    assert (recipe("forward", "cifar10").method.percentile, recipe("forward", "cifar100").method.percentile) == (
        97,
        100,
    )


# -- end to end ---------------------------------------------------------------------------------------------------

QUICK = ("--dataset", "digits", "--limit-train", "200", "--width", "0.25", "--loader", "torch")
RUNS: dict[str, tuple[str, ...]] = {
    "label_smoothing": (), "gce": ("--update-from", "2", "--k", "0.1"), "sce": ("--variant", "paper"), "mae": (),
    "focal": (), "apl": ("--active", "nfl", "--passive", "rce", "--variant", "code"), "mixup": (),
    "bootstrap": ("--kind", "hard", "--variant", "code"),
    "forward": ("--warm-up", "1", "--variant", "code"), "volminnet": (), "plc": ("--warm-up", "0"),
    "dual_t": ("--warm-up", "1"),
    "selc": ("--update-from", "1"),
    "selc_plus": ("--update-from", "1"), "nal": ("--reverse", "0.1", "--gate", "0.1"),
}  # fmt: skip


@pytest.mark.parametrize("method", RUNS)
def test_trains_from_the_command_line(method: str, tmp_path: Path) -> None:
    words = ["train", *QUICK, "--epochs", "2", "--method", method, *RUNS[method], "--run-dir", "run"]
    assert main(words) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["test_accuracy"]["last"] <= 1
    corrects = method in ("plc", "selc", "selc_plus", "nal")
    assert ("correction_accuracy" in summary) == corrects
    assert (tmp_path / "run" / "corrected.csv").exists() == corrects
    if corrects:
        with (tmp_path / "run" / "corrected.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 200
        assert ("attention" in rows[0]) == (method == "nal")
        assert all(0 <= float(row["confidence"]) <= 1 for row in rows)
        if method == "nal":
            assert all(0 < float(row["attention"]) < 1 for row in rows)


@pytest.mark.parametrize("method", ["mixup", "forward", "dual_t", "volminnet", "plc", "selc_plus"])
def test_interrupted_inside_both_halves_and_resumed_is_bit_identical(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "train", *QUICK, "--epochs", "4", "--method", method, *RUNS[method], "--schedule", "multistep:1,gamma=0.5",
        "--learning-rate", "0.1",
    ]  # fmt: skip
    assert main([*words, "--run-dir", "whole"]) == 0
    stops = [(2, 1), (4, 2)]

    def interrupting(draw: Callable[..., None]) -> Callable[..., None]:
        def step(self: Method, epoch: int, batch: int, seed: int) -> None:
            draw(self, epoch, batch, seed)
            if stops and (epoch, batch) == stops[0]:
                stops.pop(0)
                os.kill(os.getpid(), signal.SIGINT)

        return step

    kind = METHODS[method]
    monkeypatch.setattr(kind, "before_step", interrupting(kind.before_step))
    assert main([*words, "--run-dir", "cut"]) == 128 + signal.SIGINT
    assert main(["train", "--resume", "cut"]) == 128 + signal.SIGINT
    assert main(["train", "--resume", "cut"]) == 0
    assert not stops
    whole, cut = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    for first, second in zip(whole, cut, strict=True):
        for key in first.keys() - {"images_per_second", "data_wait", "seconds", "epoch_seconds"}:
            assert first[key] == second[key], key
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("networks", "method"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    assert torch.equal(one["labels"], two["labels"])
    restarts = {
        "forward": [0.1, 0.1, 0.05, 0.05],
        "dual_t": [0.1, 0.1, 0.05, 0.05],
        "selc_plus": [0.1, 0.05, 0.1, 0.05],
    }
    expected = restarts.get(method, [0.1, 0.05, 0.05, 0.05])
    assert [line["learning_rate"] for line in whole] == pytest.approx(expected)
