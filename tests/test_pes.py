"""PES and PES(semi) against their authors' code written out in plain PyTorch, their phases in a run, and refusals."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import _trial_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from _steps import Made, NoHostReads, assert_one_graph
from _train_cases import assert_same_end, history, killed_at, state
from torch import Tensor, nn

import fastnoise
from fastnoise.config import OptimConfig
from fastnoise.engine.longer import epochs_before
from fastnoise.errors import ConfigError
from fastnoise.methods import METHODS, create_method
from fastnoise.methods.mixup import mates
from fastnoise.methods.options import PESOptions
from fastnoise.methods.pes import CONFIDENT, HEAD, STAGE, WARM_UP, renew
from fastnoise.models import create_model
from fastnoise.models.depth import last_stage
from fastnoise.recipes import recipe

N, C, B = 96, 4, 16
RATE, REFINE_RATE = 0.05, 0.003


class Trial(_trial_cases.Trial):
    """30 % noise, and the optimisers of the method's phases."""

    def __init__(self, name: str, **options: Any):
        options = {"warm_up": 1, "head_epochs": 1, "refine_rate": REFINE_RATE, **options}
        setting = {"optim": OptimConfig(weight_decay=1e-3)}
        super().__init__(name, options, N, C, B, rate=RATE, momentum=0.9, seed=3, setting=setting)
        self.first = self.optimizer
        self.second = torch.optim.Adam(self.network.parameters(), REFINE_RATE)

    def begin(self, epoch: int) -> None:
        """With the optimiser of the epoch, as the trainer chooses it."""
        super().begin(epoch)
        phase = self.method.phase(epoch)
        if phase is not None and phase.fresh:
            if phase.second:
                self.second = torch.optim.Adam(self.network.parameters(), phase.learning_rate)
                assert phase.weight_decay == 0
            else:
                assert (phase.learning_rate, phase.weight_decay) == (None, 1e-3)
                self.first = self.sgd(self.network)
        self.optimizer = self.second if phase is not None and phase.second else self.first


def layers(network: Any) -> dict[int, list[nn.Module]]:
    """What each refinement renews: here the last two convolutions, which are as wide as the features, and the head."""
    stage = [network.backbone.layers[3][0], network.backbone.layers[3][1]]
    stage += [network.backbone.layers[4][0], network.backbone.layers[4][1]]
    return {STAGE: [*stage, network.classifier], HEAD: [network.classifier]}


def assert_same(one: nn.Module, other: nn.Module, start: nn.Module) -> None:
    for kind in ("parameters", "buffers"):
        first, second, begun = (
            torch.cat([value.detach().float().flatten() for value in getattr(network, kind)()])
            for network in (one, other, start)
        )
        assert (first - second).norm() <= 0.01 * (first - begun).norm(), kind


def class_weights(labels: Tensor) -> Tensor:
    """PES_cs.py: mean count of the classes that are present over each one's."""
    counts = np.bincount(labels.numpy(), minlength=C)
    mean = counts[counts > 0].mean()
    return torch.tensor([mean / count if count else 0.0 for count in counts], dtype=torch.float32)


@pytest.mark.parametrize("renewed", ["trained", "frozen"])
def test_pes_follows_the_authors_code(renewed: str) -> None:
    """Losses, choices and weights of a warm-up, both refinements and two epochs of confident samples."""
    trial = Trial("pes", stage_epochs=2, renewed=renewed)
    theirs, start = deepcopy(trial.network), deepcopy(trial.network)
    optimizer: Any = trial.sgd(theirs)
    trial.end(0)
    programs = []
    for epoch in range(1, 7):
        trial.begin(epoch)
        programs.append(trial.method.program)
        refined = {2: STAGE, 4: HEAD}.get(epoch)
        if refined is not None:  # new layers, trained alone by a new Adam
            fresh = zip(layers(trial.network)[refined], layers(theirs)[refined], strict=True)
            for mine, old in fresh:
                assert refined == HEAD or not torch.equal(mine.weight, old.weight) or isinstance(mine, nn.BatchNorm2d)
                old.load_state_dict(mine.state_dict())
            theirs.requires_grad_(False)
            alone = [weight for layer in layers(theirs)[refined] for weight in layer.requires_grad_(True).parameters()]
            optimizer = torch.optim.Adam(alone, REFINE_RATE)
        elif epoch == 5:
            theirs.requires_grad_(True)
            stale = {weight for layer in layers(theirs)[STAGE] for weight in layer.parameters()}
            kept = [weight for weight in theirs.parameters() if renewed == "trained" or weight not in stale]
            # "trained": built again; "frozen": what the old one still knows, with its momenta
            optimizer = trial.sgd(theirs)
            if renewed == "frozen":
                old = trial.optimizer.state_dict()["state"]
                optimizer = torch.optim.SGD(kept, RATE, momentum=0.9)
                for place, weight in enumerate(theirs.parameters()):
                    if weight not in stale:
                        optimizer.state[weight]["momentum_buffer"] = old[place]["momentum_buffer"].clone()
        weights = None
        if epoch >= 5:
            theirs.eval()
            with torch.no_grad():
                confident = theirs(trial.images).logits.softmax(1).argmax(1) == trial.given
            theirs.train()
            assert torch.equal(trial.method.confident, confident)
            assert sorted(trial.method.order(epoch, 7)) == confident.nonzero().ravel().tolist()
            assert 0.2 * N < confident.sum() < N
            weights = class_weights(trial.given[confident])
        for batch, images, index in trial.batches(epoch):
            actual = trial.update(epoch, batch, images, index)
            logits = theirs(images).logits
            loss = F.cross_entropy(logits, trial.given[index], weight=weights)
            assert actual.loss.item() == pytest.approx(loss.item(), rel=2e-3)
            assert torch.equal(actual.predictions, logits.argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert_same(trial.network, theirs, start)
        trial.end(epoch)  # which may renew layers
    assert programs == [WARM_UP, STAGE, STAGE, HEAD, CONFIDENT, CONFIDENT]
    assert not trial.warnings


def test_pes_semi_follows_the_authors_code() -> None:
    """Splits, losses and weights of two epochs of MixMatch, the second with the other Beta distribution."""
    trial = Trial("pes_semi", unlabelled_strength=7.0, unlabelled_ramp=3, late_from=4)
    trial.train(2)
    theirs, start = deepcopy(trial.network), deepcopy(trial.network)
    theirs.requires_grad_(True)
    optimizer = trial.sgd(theirs)
    given = trial.given
    for epoch in (3, 4):
        theirs.eval()
        with torch.no_grad():
            confident = theirs(trial.images).logits.argmax(1) == given
        theirs.train()
        assert torch.equal(trial.method.confident, confident)
        others = int((~confident).sum())
        of_others = B // 2 if others > N - others else B * others // N
        assert 0 < of_others < B
        weights = class_weights(given[confident]).clamp(max=3)
        trial.begin(epoch)
        batches = trial.batches(epoch)
        assert len(batches) == N // B
        for batch, images, index in batches:
            labelled, unlabelled = confident[index], ~confident[index]
            assert int(unlabelled.sum()) == of_others
            actual = trial.update(epoch, batch, images, index)
            assert trial.method.mixup.alpha == (4.0 if epoch == 3 else 0.75)
            share = float(trial.method.mixup.share)
            with torch.no_grad():
                p = theirs(images).logits.softmax(1).split(B)
            guess = ((p[0] + p[1]) / 2)[unlabelled].square()
            guess = guess / guess.sum(1, keepdim=True)
            targets = torch.zeros(B, C)
            targets[labelled] = F.one_hot(given[index[labelled]], C).float()
            targets[unlabelled] = guess
            targets = torch.cat([targets, targets])
            idx = mates(trial.method.pairing, 2 * B)
            mixed = share * targets + (1 - share) * targets[idx]
            logits = theirs(share * images + (1 - share) * images[idx]).logits
            rows = torch.cat([labelled, labelled])
            supervised = -(weights * (mixed[rows] * logits[rows].log_softmax(1)).mean(0)).sum()
            guessed = (logits[~rows].softmax(1) - mixed[~rows]).square().mean()
            ramp = min(max((epoch - 3 + batch / len(batches)) / 3, 0.0), 1.0)
            loss = supervised + 7.0 * ramp * guessed
            assert actual.loss.item() == pytest.approx(loss.item(), rel=2e-3)
            assert torch.equal(actual.predictions, (p[0] + p[1]).argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trial.end(epoch)
        assert_same(trial.network, theirs, start)


def test_without_a_predicted_label_all_are_learnt() -> None:
    trial = Trial("pes", stage_epochs=0)
    wrong = F.one_hot((trial.given + 1) % C, C).float()
    trial.evaluate = lambda: [fastnoise.models.Outputs(wrong)]  # type: ignore[method-assign]
    trial.end(2)
    assert trial.warnings == [
        "pes, epoch 2: no sample's given label is predicted; the next epoch learns the given labels of all samples"
    ]
    trial.method.start_epoch(3)
    assert sorted(trial.method.order(3, 7)) == list(range(N))
    found = trial.method.estimates(trial.end(3))
    assert found.suspected.all()
    assert torch.equal(found.labels, (trial.given + 1) % C)


def test_a_class_that_nobody_predicts_has_no_weight() -> None:
    trial = Trial("pes_semi")
    few = F.one_hot(torch.where(trial.given == 0, 1, trial.given), C).float()
    few[(trial.given == 1).nonzero().ravel()[2:]] = F.one_hot(torch.tensor(2), C).float()
    trial.evaluate = lambda: [fastnoise.models.Outputs(few)]  # type: ignore[method-assign]
    trial.end(2)
    assert trial.method.balance[0] == 0
    assert trial.method.balance[1] == 3, "two samples have more than three times the mean's weight"
    assert int(trial.method.confident.sum()) == int((trial.given > 1).sum()) + 2


def test_renewal_is_pytorchs_default_and_a_function_of_the_seed() -> None:
    network: Any = create_model("small_cnn", num_classes=C, channels=1, image_size=(8, 8))
    before = deepcopy(network)
    network.train()(torch.randn(8, 1, 8, 8))
    renewed = layers(network)[STAGE]
    drawn = torch.get_rng_state()
    renew(renewed, 5)
    assert torch.equal(torch.get_rng_state(), drawn)
    conv, norm = renewed[0], renewed[1]
    bound = (conv.in_channels * 9) ** -0.5
    assert conv.weight.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not torch.equal(conv.weight, before.backbone.layers[3][0].weight)
    assert not norm.running_mean.any()
    once = conv.weight.clone()
    renew(renewed, 5)
    assert torch.equal(conv.weight, once)
    renew(renewed, 6)
    assert not torch.equal(conv.weight, once)


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("small_cnn", "layers.3.0", 4),
        ("lenet5", "layers.9", 1),
        ("resnet18", "layers.9.conv1", 10),  # two blocks with five, and a projection's two in the first
        ("preact_resnet18_bn_stem", "layers.9.bn1", 9),
        ("wrn28_10", "layers.9.bn1", 18),
        ("torchvision:resnet18", "network.layer4.0.conv1", 10),
    ],
)
def test_last_stages(name: str, first: str, count: int) -> None:
    width = {} if ":" in name else {"width": 0.125}
    network: Any = create_model(name, num_classes=C, channels=3, image_size=(32, 32), **width)
    found = last_stage(network.backbone)
    names = {module: name for name, module in network.backbone.named_modules()}
    assert (names[found[0]], len(found)) == (first, count)


def test_a_transformers_last_stage_is_its_last_block() -> None:
    pytest.importorskip("torchvision")
    from torchvision.models import VisionTransformer

    network = VisionTransformer(16, 8, 3, 2, 12, 24)
    names = {module: name for name, module in network.named_modules()}
    found = [names[layer] for layer in last_stage(network)]
    assert all("encoder_layer_2" in name or name.startswith(("encoder.ln", "heads")) for name in found), found


def test_layers_that_cannot_be_renewed_are_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8, 3))

    trial = Trial("pes")
    trial.network.backbone.layers[4][0] = Own()
    said = "method pes renews the layer backbone.layers.4.0, which, a Own, cannot draw its weights anew"
    with pytest.raises(ConfigError, match=said):
        trial.method.attach([trial.network])
    trial = Trial("pes")
    trial.network.freeze("norm")
    with pytest.raises(ConfigError, match=r"layers.3.1, which, a BatchNorm2d, is frozen: drop --freeze"):
        trial.method.attach([trial.network])


# -- in a run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = {"model": "small_cnn", "width": 0.25, "limit_train": 200, "batch_size": 32, "device": "cpu", "amp": "off"}
COURSE = {"warm_up": 2, "stage_epochs": 2, "head_epochs": 1, "epochs": 8, "schedule": "multistep:3,gamma=0.1"}


def config_of(**changes: Any) -> Any:
    return recipe("pes", "digits", "symmetric:0.3").replace(RUN | COURSE | {"save_every": 1} | changes)


@pytest.mark.parametrize("renewed", ["trained", "frozen"])
def test_a_runs_phases_train_what_they_should(renewed: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement moves the renewed layers alone, SGD's schedule counts its own epochs, and a new SGD has no momenta."""
    kind: Any = METHODS["pes"]
    seen: dict[int, dict[str, Tensor]] = {}
    original = kind.end_epoch

    def watched(self: Any, run: Any) -> None:
        parts = {STAGE: layers(run.networks[0])[STAGE][0], HEAD: run.networks[0].classifier}
        seen[run.epoch] = {"first": run.networks[0].backbone.layers[0][0].weight.clone()}
        seen[run.epoch] |= {"stage": parts[STAGE].weight.clone(), "head": parts[HEAD].weight.clone()}
        original(self, run)

    monkeypatch.setattr(kind, "end_epoch", watched)
    fastnoise.train(config_of(run_dir="run", renewed=renewed))
    moved = {
        epoch: {name for name, weight in seen[epoch].items() if not torch.equal(weight, seen[epoch - 1][name])}
        for epoch in range(1, 9)
    }
    every, later = {"first", "stage", "head"}, {"first", "stage", "head"} if renewed == "trained" else {"first"}
    assert moved == {
        1: every,
        2: every,
        3: {"stage", "head"},
        4: {"stage", "head"},
        5: {"head"},
        6: later,
        7: later,
        8: later,
    }
    rates = [epoch["learning_rate"] for epoch in history(Path("run"))]
    assert rates == pytest.approx([0.02, 0.02, *[5e-3] * 3, 0.02, 0.002, 0.002])


def test_killed_in_a_refinement_goes_on_to_the_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second epoch of Adam, whose moments come from the checkpoint."""
    fastnoise.train(config_of(run_dir="whole"))
    with monkeypatch.context() as patch:
        killed_at(patch, 3 * 7 + 3)
        with pytest.raises(GeneratorExit):
            fastnoise.train(config_of(run_dir="cut"))
    assert (state(Path("cut"))["epoch"], state(Path("cut"))["batch"]) == (4, 0)
    fastnoise.train(config_of(run_dir="cut"), resume=True)
    assert_same_end(Path("whole"), Path("cut"))
    one, two = (state(Path(name))["second_optimizer"]["state"] for name in ("whole", "cut"))
    assert one.keys() == two.keys()
    for place, moments in one.items():
        for name, moment in moments.items():
            assert torch.equal(moment, two[place][name]), name


@pytest.mark.parametrize(("course", "ends"), [({}, [2, 4]), ({"stage_epochs": 0}, [2]), ({"head_epochs": 0}, [2])])
def test_a_run_that_ended_where_layers_are_drawn_anew_goes_on_to_no_more(
    course: dict[str, int], ends: list[int]
) -> None:
    """It keeps the layers that it has, with which a longer run would not have gone on."""
    method = create_method(
        PESOptions(**({"warm_up": 2, "stage_epochs": 2, "head_epochs": 1} | course)), num_samples=9, num_classes=3
    )
    for epochs in range(1, 8):
        if epochs in ends:
            said = f"--epochs 8: method pes draws layers anew after epoch {epochs}, with which the run has ended"
            with pytest.raises(ConfigError, match=said):
                epochs_before({"epochs": epochs}, config_of(epochs=8), method)
        else:
            assert epochs_before({"epochs": epochs}, config_of(epochs=8), method) == epochs


def test_recipes() -> None:
    assert recipe("pes_semi", "cifar10n", "human:worse").method.unlabelled_strength == 5
    assert recipe("pes_semi", "cifar100n", "human:noisy").method.unlabelled_strength == 75
    assert recipe("pes_semi", "cifar100", "pair:0.45").method.unlabelled_strength == 50
    assert recipe("pes_semi", "cifar10", "idn:0.4").method.unlabelled_strength == 15
    assert recipe("pes_semi", "cifar10n", "human:worse").model.model == "resnet34"
    pes = recipe("pes", "cifar10", "symmetric:0.5")
    refined = pes.method.stage_epochs + pes.method.head_epochs
    assert pes.optim.epochs - refined == 199, "SGD's of 200, of which one is refinement"


# -- the step -----------------------------------------------------------------------------------------------------


def step_of(name: str, amp: bool, compiled: Any) -> Made:
    """The gradients of the first step on chosen samples."""
    trial = Trial(name, stage_epochs=0)
    trial.train(2)
    trial.begin(3)
    assert trial.method.program == CONFIDENT
    trial.method.before_step(3, 3, 7)  # the fourth, in which the unlabelled samples have a weight
    _, images, index = trial.batches(3)[0]
    step = compiled(trial.method.training_step)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        result = step([trial.network], images.contiguous(memory_format=torch.channels_last), trial.given[index], index)
    trial.network.zero_grad()
    result.loss.backward()
    return result, list(trial.network.parameters()), dict(trial.network.named_buffers())


@pytest.mark.parametrize(("name", "amp"), [("pes", False), ("pes_semi", False), ("pes_semi", True)])
def test_a_step_is_one_graph(name: str, amp: bool) -> None:
    assert_one_graph(lambda compiled: step_of(name, amp, compiled), 0.05 if amp else 1e-4)


def test_gradients_in_half_precision_are_those_in_full() -> None:
    """The guesses, which have no gradient, must not leave rounded weights behind that have none."""
    (_, full, _), (_, half, _) = (step_of("pes_semi", amp, lambda step: step) for amp in (False, True))
    for exact, rounded in zip(full, half, strict=True):
        assert exact.grad is not None
        assert rounded.grad is not None
        assert (exact.grad - rounded.grad).norm() <= 0.2 * exact.grad.norm() + 1e-3


def test_a_step_of_mixmatch_reads_nothing_back() -> None:
    trial = Trial("pes_semi", warm_up=0, head_epochs=0)
    trial.end(0)
    trial.begin(1)
    _, images, index = trial.batches(1)[0]
    with NoHostReads():
        trial.method.before_step(1, 0, 7)
        trial.method.training_step([trial.network], images, trial.given[index], index).loss.backward()
