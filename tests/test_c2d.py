"""C2D: SimCLR, then DivideMix, in one run."""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from _train_cases import Killed, assert_same_end, history, killed_at, noted, refusal, state
from torch import Tensor, nn

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.engine.optimizer import create_optimizer, reset_optimizer
from fastnoise.methods import Run, Setting, create_method
from fastnoise.methods.dividemix import BEFORE, MIX, WARM_UP
from fastnoise.methods.options import C2DOptions, SimCLROptions
from fastnoise.models import Network, create_model
from fastnoise.recipes import recipe

N, C, B = 64, 4, 16
TINY = ["--method", "c2d", "--dataset", "digits", "--limit-train", "160", "--width", "0.25", "--batch-size", "32"]
TINY += ["--pretrain-epochs", "2", "--epochs", "4", "--warm-up", "1", "--noise", "symmetric:0.2"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(**options: int) -> tuple[object, list[Network]]:
    torch.manual_seed(0)
    method = create_method(C2DOptions(pretrain_epochs=3, warm_up=2, **options), num_samples=N, num_classes=C)
    method.configure(Setting(OptimConfig(epochs=9, weight_decay=5e-4), (0.5,), (0.25,), B))
    networks = [create_model("small_cnn", num_classes=C, channels=1, image_size=(8, 8), width=0.25) for _ in range(2)]
    method.attach(networks)
    return method, networks


def test_the_first_epochs_are_simclrs() -> None:
    """Loss and gradients are SimCLR's for the first network; the second and the heads have none."""
    method, networks = made()
    other = copy.deepcopy(networks[0])
    torch.manual_seed(1)
    simclr = create_method(SimCLROptions(), num_samples=N, num_classes=C)
    simclr.configure(Setting(OptimConfig(), (0.5,), (0.25,), B))
    method.start_epoch(1)
    assert method.program == BEFORE
    assert method.order(1, 7) is None
    images, labels, index = torch.randn(2 * B, 1, 8, 8), torch.zeros(B, dtype=torch.int64), torch.arange(B)
    method.before_step(1, 0, 7)
    simclr.before_step(1, 0, 7)
    found = method.training_step(networks, images, labels, index)
    wanted = simclr.training_step([other], images, labels, index)
    assert found.loss.item() == wanted.loss.item()
    assert torch.equal(found.predictions, wanted.predictions)
    found.loss.backward()
    wanted.loss.backward()
    theirs = dict(other.named_parameters())
    for name, parameter in networks[0].named_parameters():
        if name.startswith("classifier"):
            assert parameter.grad is None
        else:
            assert torch.equal(parameter.grad, theirs[name].grad), name
    assert all(parameter.grad is None for parameter in networks[1].parameters())


def test_programs_rounds_and_rates() -> None:
    method, _ = made()
    assert method.rounds(9) == (3, 6)
    programs = []
    for epoch in range(1, 9):
        method.divided.fill_(epoch > 5)
        method.start_epoch(epoch)
        programs.append(method.program)
    assert programs == [BEFORE] * 3 + [WARM_UP] * 2 + [MIX] * 3
    phases = [method.phase(epoch) for epoch in range(1, 5)]
    assert phases[3] is None
    for epoch, phase in enumerate(phases[:3]):
        assert phase.learning_rate == pytest.approx(0.125 * (1 + math.cos(math.pi * epoch / 3)) / 2)
        assert (phase.weight_decay, phase.fresh) == (5e-4, False)
    for epoch in (4, 7):  # orders and ramps are DivideMix's, counted from where it begins
        method.program = WARM_UP if epoch == 4 else MIX
        assert method.order(epoch, 7) is not None
    method.steps = 4
    method.before_step(8, 2, 7)
    assert float(method.strength) == pytest.approx(25.0 * 2.5 / 16)


def test_the_second_network_gets_the_backbone_and_keeps_its_head() -> None:
    method, networks = made()
    before = copy.deepcopy(networks)

    def run(epoch: int) -> Run:
        given = torch.zeros(N, dtype=torch.int64)
        return Run(epoch, 9, 0, networks, given, given, None, pytest.fail)  # type: ignore[arg-type]

    for epoch in (0, 1, 2):
        method.end_epoch(run(epoch))
    assert not torch.equal(networks[0].backbone.layers[0][0].weight, networks[1].backbone.layers[0][0].weight)
    method.end_epoch(run(3))
    first, second = (network.backbone.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for old, new in zip(before, networks, strict=True):
        assert torch.equal(old.classifier.weight, new.classifier.weight)
    assert not torch.equal(networks[0].classifier.weight, networks[1].classifier.weight)


def test_one_command_is_killed_and_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 + 2 epochs of 5 steps each in SimCLR: killed in both parts and where one becomes the other."""
    assert main(["train", *TINY, "--save-every", "1", "--run-dir", "whole"]) == 0
    figures = history(Path("whole"))
    assert [line["learning_rate"] for line in figures[:2]] == pytest.approx([0.125, 0.0625])
    assert "labelled" not in figures[1]
    assert "labelled" in figures[2]
    for step in (3, 8, 13):
        with monkeypatch.context() as patched:
            killed_at(patched, step)
            with pytest.raises(GeneratorExit):
                main(["train", *TINY, "--save-every", "1", "--run-dir", f"killed{step}"])
        if not Path(f"killed{step}/checkpoint.pt").exists():  # in the first epoch there is none yet
            assert step == 3
            continue
        assert main(["train", "--resume", f"killed{step}"]) == 0
        assert_same_end(Path("whole"), Path(f"killed{step}"))
    with monkeypatch.context() as patched:
        noted(patched, kill_at=(3, 0))  # when the pretraining's last epoch is saved
        with pytest.raises(Killed):
            main(["train", *TINY, "--save-every", "1", "--run-dir", "between"])
    assert main(["train", "--resume", "between"]) == 0
    assert_same_end(Path("whole"), Path("between"))
    found = state(Path("whole"))["networks"]
    assert "0.projector.0.weight" in found
    assert main(["evaluate", "whole", "digits", "--out", "figures.json"]) == 0


def test_the_second_round_is_one_of_dividemix() -> None:
    """Its optimiser is new, and its schedule counts from its own first epoch."""
    words = [*TINY, "--schedule", "multistep:1,gamma=0.5", "--learning-rate", "0.04", "--optimizer", "adamw"]
    assert main(["train", *words, "--run-dir", "run"]) == 0
    figures = history(Path("run"))
    assert [line["learning_rate"] for line in figures] == pytest.approx([0.125, 0.0625, 0.04, 0.02])
    selections = figures[2]["selections"]
    most = max(selections[f"labelled_{number}"]["samples"] for number in (1, 2))
    steps = {float(moment["step"]) for moment in state(Path("run"))["optimizer"]["state"].values()}
    assert steps == {2 * 160 / 32 + math.ceil(most / 8)}  # of both networks, without those of the pretraining


def test_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, *TINY, "--epochs", "2")
    assert "--epochs 2: method c2d pretrains for 2 of them, which leaves none for DivideMix" in line
    assert "--pretrain-epochs must be at least 1" in refusal(capsys, *TINY, "--pretrain-epochs", "0")
    assert "must be a multiple of 4" in refusal(capsys, *TINY, "--batch-size", "30")


def test_the_recipe_is_dividemixs_after_simclr() -> None:
    for dataset in ("digits", "cifar10", "cifar100"):
        ours, theirs = recipe("c2d", dataset, "symmetric:0.9"), recipe("dividemix", dataset, "symmetric:0.9")
        options = dataclasses.asdict(theirs.method) | {"method": "c2d", "warm_up": 5}
        assert options.items() <= dataclasses.asdict(ours.method).items()
        assert ours.optim.epochs == ours.method.pretrain_epochs + (60 if dataset == "digits" else 360)
        assert ours.model == theirs.model
    assert recipe("c2d", "cifar10", "symmetric:0.5", noise_rate=0.9).method.clean_threshold == 0.6


def test_a_partial_state_of_the_optimiser_is_dropped() -> None:
    """PyTorch's fused SGD fails on parameters of which some have momenta; what is frozen needs none."""

    def step(optimizer: torch.optim.Optimizer, *outputs: Tensor) -> None:
        optimizer.zero_grad()
        torch.stack([output.sum() for output in outputs]).sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    first, second, images = nn.Linear(3, 3), nn.Linear(3, 3), torch.ones(2, 3)
    networks = nn.ModuleList([first, second])
    optimizer = create_optimizer(OptimConfig(), networks)
    step(optimizer, first(images))
    assert reset_optimizer(optimizer)
    assert not optimizer.state
    step(optimizer, first(images), second(images))
    buffers = [optimizer.state[parameter]["momentum_buffer"] for parameter in networks.parameters()]
    assert not reset_optimizer(optimizer)
    for parameter, buffer in zip(networks.parameters(), buffers, strict=True):
        assert optimizer.state[parameter]["momentum_buffer"] is buffer
    assert not any(buffer.any() for buffer in buffers)
    second.requires_grad_(False)
    fresh = create_optimizer(OptimConfig(), networks)
    step(fresh, first(images))
    assert not reset_optimizer(fresh)
    assert len(fresh.state) == 2
