"""Stacked runs: K networks trained as one are what K separate trainings are."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import assert_same_end, history
from conftest import SHARED
from rich.console import Console
from torch import Tensor, nn

from fastnoise.config import RunConfig
from fastnoise.data import Augmentation
from fastnoise.data.plan import Plan
from fastnoise.engine import Interrupted, RunFolder, checkpoint, stacked, train
from fastnoise.engine.prepare import load_data, load_images
from fastnoise.engine.single import Single
from fastnoise.engine.stacked import Stack, StackedNetwork, StackedPlan, stack, stackable, train_stacked
from fastnoise.errors import CheckpointError, ConfigError, DataError, TrainingError
from fastnoise.methods import METHODS
from fastnoise.methods.single import NoiseAttention
from fastnoise.models import create_model
from fastnoise.recipes import recipe

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
NOISE = ("none", "symmetric:0.4", "pair:0.3")


def quick(method: str = "elr", count: int = 3, **changes: Any) -> list[RunConfig]:
    """Configurations on digits that differ in seed, noise seed and noise."""
    base = recipe(method, "digits").replace({"limit_train": 200, "epochs": 3, "width": 0.25, **changes})
    return [
        base.replace({"seed": number, "noise_seed": number, "noise": NOISE[number % len(NOISE)]})
        for number in range(count)
    ]


def placed(configs: list[RunConfig], folder: Path) -> list[RunConfig]:
    folder.mkdir(exist_ok=True)
    return [config.replace({"run_dir": str(folder / str(number))}) for number, config in enumerate(configs)]


def folders(configs: list[RunConfig]) -> list[Path]:
    return [Path(config.run_dir or "") for config in configs]


def assert_close(first: Any, second: Any, tolerance: float, path: str = "") -> None:
    """Nested values of the same keys, types and shapes, with numbers and tensors that agree within `tolerance`."""
    assert isinstance(first, type(second)) or isinstance(second, type(first)), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for name, value in first.items():
            assert_close(value, second[name], tolerance, f"{path}.{name}")
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for number, (one, two) in enumerate(zip(first, second, strict=True)):
            assert_close(one, two, tolerance, f"{path}[{number}]")
    elif isinstance(first, Tensor):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance, equal_nan=True, msg=path)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=tolerance, abs=tolerance, nan_ok=True), path
    else:
        assert first == second, path


def make_stack(configs: list[RunConfig], device: torch.device = CPU) -> Stack:
    return Stack(configs, load_images(configs[0]), device, QUIET)


def first_losses(training: Stack | Single, steps: int) -> Tensor:
    """Losses of the first steps: [steps, K] of a stack, [steps] of a run."""
    training.method.start_epoch(1)
    training.networks.train()
    losses = []
    for number, (images, index) in enumerate(training.loaders.train.epoch(1)):
        if number == steps:
            break
        training.method.before_step(1, number, 0)
        loss = training.step.train(images, index).loss
        losses.append(training.stacked.losses.clone() if isinstance(training, Stack) else loss.clone())
    training.loaders.close()
    assert len(losses) == steps
    return torch.stack(losses)


def steps_apart(
    configs: list[RunConfig], steps: int, change: Callable[[int, Any], None] = lambda number, method: None
) -> tuple[float, float]:
    """How far a stack is from separate runs after the first steps: the largest difference of a loss, and the largest
    distance of a run's weights, relative to their norm."""
    stack = make_stack(configs)
    runs = [Single(config, load_data(config), CPU, QUIET) for config in configs]
    for number, (record, run) in enumerate(zip(stack.members, runs, strict=True)):
        change(number, record.method)
        change(number, run.method)
    together = first_losses(stack, steps)
    alone = torch.stack([first_losses(run, steps) for run in runs], 1)
    distances = []
    for number, run in enumerate(runs):
        own = torch.cat([weight.detach().flatten() for weight in run.networks.parameters()])
        parts = [stack.network.part(whole.detach(), number).flatten() for whole in stack.network.parameters()]
        distances.append(float((torch.cat(parts) - own).norm() / own.norm()))
    return float((together - alone).abs().max()), max(distances)


# -- joined networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["grouped", "channels_last", "products"])
@pytest.mark.parametrize(
    ("model", "side", "width"),
    [
        ("small_cnn", 8, 0.125),
        ("lenet5", 14, 0.5),
        ("resnet18", 9, 0.1),
        ("preact_resnet18", 8, 0.1),
        ("preact_resnet18_bn_stem", 8, 0.1),
        pytest.param("resnet50", 32, 0.1, marks=pytest.mark.slow),
    ],
)
def test_a_joined_network_is_its_parts(model: str, side: int, width: float, form: stacked.Form) -> None:
    """Outputs, gradients and batch norm's statistics, in float64, with NAL's attention branch."""
    torch.manual_seed(0)
    shape = {"channels": 2, "image_size": (side, side)}
    networks = [
        create_model(model, num_classes=5, width=width, attention=True, **shape).double()  # type: ignore[arg-type]
        for _ in range(3)
    ]
    joined = StackedNetwork(networks)
    joined.use(form)
    images = torch.randn(4, 3, 2, side, side, dtype=torch.float64)
    logits, attention, features = joined(images)
    assert logits.shape == (4, 3, 5)
    assert attention is not None
    (logits.square().sum() + attention.square().sum()).backward()
    for number, network in enumerate(networks):
        own = network(images[:, number])
        torch.testing.assert_close(logits[:, number], own.logits)
        torch.testing.assert_close(attention[:, number], own.attention)
        torch.testing.assert_close(features[:, number], own.features)
        (own.logits.square().sum() + own.attention.square().sum()).backward()
        for (name, whole), weight in zip(joined.body.named_parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(joined.part(whole.grad, number), weight.grad, msg=name)  # type: ignore[arg-type]
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(joined.part(joined.body.state_dict()[name], number), tensor, msg=name)
    joined.eval()
    same = joined(images[:, :1]).logits  # images that all runs get
    for number, network in enumerate(networks):
        torch.testing.assert_close(same[:, number], network.eval()(images[:, 0]).logits)


def test_dropout_draws_for_each_run() -> None:
    network = create_model("lenet5", num_classes=10, channels=1, image_size=(28, 28), dropout=0.5)
    joined = StackedNetwork([network, network])
    images = torch.randn(6, 1, 1, 28, 28)
    logits = joined(images).logits
    assert not torch.allclose(logits[:, 0], logits[:, 1])
    logits = joined.eval()(images).logits
    torch.testing.assert_close(logits[:, 0], logits[:, 1])


def test_a_layer_that_cannot_be_joined_is_named() -> None:
    layers = [nn.Sequential(nn.GroupNorm(1, 4)) for _ in range(2)]
    with pytest.raises(ConfigError, match="GroupNorm cannot be stacked"):
        stacked.join(layers)


# -- batches -------------------------------------------------------------------------------------------------


def test_batches_are_those_of_each_run() -> None:
    """Runs of 10, 11 and 15 samples in batches of 4: even steps, one of unequal sizes, and one that two runs lack."""
    counts, augmentation = (10, 11, 15), Augmentation(2, True)
    plans = [Plan(count, 4, seed=seed, augmentation=augmentation, shuffle=True) for seed, count in enumerate(counts)]
    positions = [np.arange(20)[seed : seed + count] for seed, count in enumerate(counts)]
    plan = StackedPlan(plans, positions)
    assert plan.sizes == [(4, 4, 4), (4, 4, 4), (2, 3, 4), (0, 0, 3)]
    starts = (0, 10, 21)
    for epoch, start in ((1, 0), (2, 1)):
        planned = plan.batches(epoch, start)
        assert plan.batches(epoch, start) is planned
        index = planned.drawn[1]
        own = [list(each.batches(epoch)) for each in plans]
        for step, (batch, (first, last)) in enumerate(zip(planned, planned.spans(), strict=True), start):
            sizes = plan.sizes[step]
            for number, size in enumerate(sizes):
                rows = slice(number, None, 3) if len(set(sizes)) == 1 else slice(sum(sizes[:number]), None)
                part, ends = (batch.index[rows][:size], index[first:last][rows][:size])
                if not size:
                    continue
                expected = own[number][step]
                assert np.array_equal(part, positions[number][expected.index])
                assert np.array_equal(ends, starts[number] + expected.index)
                for name in ("corner", "flip"):
                    assert np.array_equal(getattr(batch, name)[rows][:size], getattr(expected, name))


# -- steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if method.stackable))
def test_the_first_ten_steps_are_those_of_separate_runs(method: str) -> None:
    # At the recipes' 0.1, rounding turns a ReLU or a maximum the other way now and then, and weights part by 4e-4.
    loss, weights = steps_apart(quick(method, limit_train=640, crop_padding=1, flip=True, learning_rate=0.02), 10)
    assert loss <= 1e-4
    assert weights <= 1e-4


def test_each_run_of_a_stack_has_its_own_gradient_clipped() -> None:
    """To norms that every run's gradient is above, and that some runs' gradients are above."""
    for largest in (0.1, 1.5):
        # On two threads a rounding turns a ReLU in the sixth step, of runs without clipping too.
        loss, weights = steps_apart(quick("ce", limit_train=640, clip_norm=largest), 5)
        assert loss <= 1e-4
        assert weights <= 1e-4


def test_steps_of_unequal_batches_are_those_of_separate_runs() -> None:
    """About 180 samples in batches of 40: the fifth steps are of 20 or so."""
    configs = quick("nal", val_fraction=0.1, batch_size=40)
    sizes = {len(load_data(config).given) for config in configs}
    assert len(sizes) > 1
    loss, weights = steps_apart(configs, 5)
    assert loss <= 1e-4
    assert weights <= 1e-4


def test_lenet5_on_mnist(tmp_path: Path) -> None:
    if not (SHARED / "data" / "unpack.py").exists():
        pytest.skip("MNIST is not at hand, and digits of 8 x 8 are too small for LeNet-5")
    subprocess.run([sys.executable, SHARED / "data" / "unpack.py", tmp_path, "mnist"], check=True, capture_output=True)
    base = recipe("ce", "mnist").replace({"data_root": str(tmp_path), "limit_train": 1000, "download": False})
    loss, weights = steps_apart([base.replace({"seed": seed, "noise_seed": seed}) for seed in range(8)], 10)
    assert loss <= 1e-4
    assert weights <= 1e-4


def test_strengths_that_have_come_apart() -> None:
    """NAL raises the strength of a run that learns nothing: from then on each run's own loss is taken."""

    def strengthen(number: int, method: NoiseAttention) -> None:
        method.strength.fill_(0.5 * 10**number)

    loss, weights = steps_apart(quick("nal"), 3, strengthen)
    assert loss <= 1e-4
    assert weights <= 1e-4
    stack = make_stack(quick("nal"))
    stack.method.start_epoch(1)
    assert stack.method.program == 0
    strengthen(2, stack.members[2].method)  # type: ignore[arg-type]
    stack.method.start_epoch(2)
    assert stack.method.program == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ce", "elr", "nal", "gce"])
def test_compiled_steps_are_eager_ones(method: str) -> None:
    eager, compiled = (first_losses(make_stack(quick(method, gear=gear)), 4) for gear in ("eager", "compiled"))
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["ce", "elr", "nal"])
def test_captured_steps_are_eager_ones(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    # Or two trials of speed may choose two forms, and TF32 make much of their different order of sums.
    monkeypatch.setattr("fastnoise.engine.stacked.stack.fastest_form", lambda *_: "grouped")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    engine: dict[str, Any] = {"amp": "off", "compile": "off", "limit_train": 640}
    eager, graphed = (
        first_losses(make_stack(quick(method, gear=gear, **engine), cuda), 10) for gear in ("eager", "graphed")
    )
    torch.testing.assert_close(graphed, eager, rtol=1e-3, atol=1e-3)


# -- run folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("nal", {"val_fraction": 0.1}),
        ("elr", {"val_fraction": 0.1, "batch_size": 60}),  # 3 or 4 batches: in the last, some runs stand still
        ("gce", {"k": 0.11, "update_from": 2, "update_every": 1}),
        ("ce", {"optimizer": "adam", "learning_rate": 1e-3, "clip_norm": 0.5}),  # which notes norms of gradients
    ],
)
def test_each_folder_is_as_train_writes_it(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    configs = quick(method, **changes)
    together, alone = placed(configs, tmp_path / "together"), placed(configs, tmp_path / "alone")
    summaries = train_stacked(together, console=QUIET)
    for config, summary, one, two in zip(alone, summaries, folders(together), folders(alone), strict=True):
        expected = train(config, console=QUIET)
        assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
        assert_close(history(one), history(two), 1e-2)
        assert json.loads((one / "summary.json").read_text()) == summary
        assert summary["throughput"]["stacked_runs"] == len(configs)
        for timed in (summary, expected):
            del timed["throughput"], timed["run_dir"]
        assert_close(summary, expected, 1e-2)
        first, second = (RunFolder(path).read_checkpoint(CPU) or {} for path in (one, two))
        for state in (first, second):
            for name in ("rng_cpu", "first_step_seconds", "history"):
                del state[name]
            # The counters of batch norm are common to the runs; nothing reads them.
            state["networks"] = {key: value for key, value in state["networks"].items() if value.dim()}
        assert_close(first, second, 1e-2)
        for path in (one, two):
            assert RunFolder(path).read_config().replace({"run_dir": None}) == config.replace({"run_dir": None})
        if (one / "corrected.csv").exists():
            header, *rows = (one / "corrected.csv").read_text().splitlines()
            wanted, *others = (two / "corrected.csv").read_text().splitlines()
            assert header == wanted
            assert [row.split(",")[:2] for row in rows] == [row.split(",")[:2] for row in others]


def test_the_line_of_an_epoch_has_the_means_of_the_runs_that_have_a_figure() -> None:
    """A run without wrong labels has no shares of them, whichever of the runs it is."""
    wrong = {"epoch": 1, "images_per_second": 1.0, "train_loss": 1.0, "mislabelled_true": 0.5}
    right = {"epoch": 1, "images_per_second": 2.0, "train_loss": 2.0}
    both = make_stack(quick("ce", 2))
    for figures in ([wrong, right], [right, wrong]):
        assert both.shown(figures) == {
            "epoch": 1, "images_per_second": 3.0, "train_loss": 1.5, "mislabelled_true": 0.5,
        }  # fmt: skip


def test_finished_runs_go_on_to_more_epochs(tmp_path: Path) -> None:
    configs = quick("elr", 2, epochs=1)
    together, alone = placed(configs, tmp_path / "together"), placed(configs, tmp_path / "alone")
    train_stacked(together, console=QUIET)
    for config in alone:
        train(config, console=QUIET)
        train(config.replace({"epochs": 2}), console=QUIET, resume=True)
    longer = [config.replace({"epochs": 2}) for config in together]
    assert [summary["epochs"] for summary in train_stacked(longer, console=QUIET)] == [2, 2]
    for one, two in zip(folders(together), folders(alone), strict=True):
        assert_close(history(one), history(two), 1e-2)
    before = {path.name: path.stat().st_mtime_ns for path in folders(together)[0].iterdir() if path.suffix != ".pt"}
    (folders(together)[0] / "checkpoint.pt").unlink()
    with pytest.raises(CheckpointError, match="0: the run is complete, and its checkpoint was removed"):
        train_stacked([config.replace({"epochs": 3}) for config in together], console=QUIET)
    assert {path.name: path.stat().st_mtime_ns for path in folders(together)[0].iterdir()} == before


class Killed(BaseException):
    """Stands for the end of the process."""


def killed(monkeypatch: pytest.MonkeyPatch, configs: list[RunConfig], written: int) -> None:
    """Train a stack that ends right after so many checkpoints were written."""
    write, count = RunFolder.write_checkpoint, 0

    def until(self: RunFolder, state: dict[str, Any]) -> None:
        nonlocal count
        if count == written:
            raise Killed
        count += 1
        write(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", until)
        patch.setattr(checkpoint, "WRITERS", 1)
        with pytest.raises(Killed):
            train_stacked(configs, console=QUIET)


def test_a_killed_stack_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = quick("nal", epochs=4, val_fraction=0.1, save_every=1)
    whole, cut = placed(configs, tmp_path / "whole"), placed(configs, tmp_path / "cut")
    train_stacked(whole, console=QUIET)
    killed(monkeypatch, cut, 6)  # after two epochs
    assert [len(history(path)) for path in folders(cut)] == [2, 2, 2]
    train_stacked(cut, console=QUIET)
    for one, two in zip(folders(whole), folders(cut), strict=True):
        assert_same_end(one, two)
    before = [(path / "checkpoint.pt").stat().st_mtime_ns for path in folders(cut)]
    assert [summary["epochs"] for summary in train_stacked(cut, console=QUIET)] == [4, 4, 4]  # only read
    assert [(path / "checkpoint.pt").stat().st_mtime_ns for path in folders(cut)] == before


def test_runs_left_behind_catch_up_and_train_takes_one_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = quick("elr", epochs=3, save_every=1)
    whole, cut = placed(configs, tmp_path / "whole"), placed(configs, tmp_path / "cut")
    train_stacked(whole, console=QUIET)
    killed(monkeypatch, cut, 4)  # the first run's second checkpoint is the last that was written
    train(cut[2], resume=True, console=QUIET)
    counts = []
    describe = Stack.describe

    def counted(self: Stack) -> list[str]:
        counts.append(self.count)
        return describe(self)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "describe", counted)
        train_stacked(cut, console=QUIET)
    assert counts == [1, 2]  # the second run does its second epoch, then both do the third
    for one, two in zip(folders(whole), folders(cut), strict=True):
        assert_close(history(one), history(two), 1e-2)


def test_interruption_inside_an_epoch_saves_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = quick("elr", batch_size=16)
    whole, cut = placed(configs, tmp_path / "whole"), placed(configs, tmp_path / "cut")
    train_stacked(whole, console=QUIET)
    before_step = stacked.StackedMethod.before_step

    def interrupt(self: stacked.StackedMethod, epoch: int, batch: int, seed: int) -> None:
        before_step(self, epoch, batch, seed)
        if (epoch, batch) == (2, 3):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stacked.StackedMethod, "before_step", interrupt)
        with pytest.raises(Interrupted, match="stopped in epoch 2 after 4 batches, saved") as stop:
            train_stacked(cut, console=QUIET)
    assert stop.value.signal_number == signal.SIGTERM
    train_stacked(cut, console=QUIET)
    for one, two in zip(folders(whole), folders(cut), strict=True):
        assert_same_end(one, two)


def test_a_run_that_fails_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = quick("elr")
    whole, spoilt = placed(configs, tmp_path / "whole"), placed(configs, tmp_path / "spoilt")
    train_stacked(whole, console=QUIET)
    start_epoch = stacked.StackedMethod.start_epoch

    def spoil(self: stacked.StackedMethod, epoch: int) -> None:
        start_epoch(self, epoch)
        if epoch == 2:
            with torch.no_grad():
                (network,) = self._network
                network.part(network.body.classifier.weight, 1).fill_(torch.inf)  # type: ignore[union-attr,arg-type]

    monkeypatch.setattr(stacked.StackedMethod, "start_epoch", spoil)
    message = r"1 of 3 runs failed, the other 2 are complete; .*1: the loss became NaN or infinite at step 1 of epoch 2"
    with pytest.raises(TrainingError, match=message):
        train_stacked(spoilt, console=QUIET)
    for number, (one, two) in enumerate(zip(folders(whole), folders(spoilt), strict=True)):
        if number == 1:
            assert not (two / "summary.json").exists()
            assert len(history(two)) == 1
        else:
            assert_same_end(one, two)


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({}, {"seed": 7, "noise": "pair:0.2"}, None),
        ({}, {"learning_rate": 0.5}, "learning_rate differs: 0.1 and 0.5"),
        ({}, {"width": 0.5}, "width differs"),
        ({"amp": "fp16", "device": "cuda"}, {"amp": "fp16", "device": "cuda"}, "fp16 loss scaling"),
        ({"profile": True}, {"profile": True}, "drop --profile"),
        ({"run_dir": "same"}, {"run_dir": "same"}, "two runs have the folder same"),
    ],
)
def test_what_can_be_stacked(first: dict[str, Any], second: dict[str, Any], reason: str | None) -> None:
    base = quick()[0]
    found = stackable([base.replace(first), base.replace(second)])
    assert found == reason if reason is None else reason in (found or "")


def test_methods_of_several_networks_or_phases_are_refused() -> None:
    for method in ("coteaching", "dividemix", "elr_plus", "mixup", "swce", "plc"):
        assert f"method {method} trains in a way of its own" in (stackable(quick(method)) or "")
    assert "looks at the labels of one run" in (stackable([recipe("auto", "digits")]) or "")
    with pytest.raises(ConfigError, match="cannot be stacked: method coteaching"):
        train_stacked(quick("coteaching"), console=QUIET)


def test_adam_is_refused_where_runs_have_different_numbers_of_steps(tmp_path: Path) -> None:
    configs = quick("ce", optimizer="adam", learning_rate=1e-3, val_fraction=0.1, batch_size=60)
    with pytest.raises(ConfigError, match="their epochs have 3 to 4 batches, and adam counts steps for all"):
        train_stacked(placed(configs, tmp_path), console=QUIET)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_another_run_is_left_alone(tmp_path: Path) -> None:
    configs = placed(quick("ce", 2, epochs=1), tmp_path)
    train_stacked(configs, console=QUIET)
    (tmp_path / "1" / "summary.json").unlink()
    others = [config.replace({"learning_rate": 0.5}) for config in configs]
    with pytest.raises(CheckpointError, match=r"holds another run: its learning_rate is 0\.1, not 0\.5"):
        train_stacked(others, console=QUIET)


def test_a_stack_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    require = stack.require_memory
    monkeypatch.setattr(stack, "require_memory", lambda what, size: require(what, size << 30))
    with pytest.raises(DataError, match="a stack of 3 runs, of which fewer would fit: this takes"):
        train_stacked(quick(), console=QUIET)
