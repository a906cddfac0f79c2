"""Training images that grow in the course of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import TWO_EPOCHS, assert_same_end, history, refusal, state
from torch import nn

from fastnoise.cli import main
from fastnoise.engine.growth import GrowingSize, shrunk, smallest_size
from fastnoise.engine.prepare import least_batch
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError
from fastnoise.models import create_model
from fastnoise.models.small import SmallCNN
from fastnoise.recipes import recipe
from fastnoise.schedules import Growth

DIGITS = ["--dataset", "digits", "--limit-train", "160", "--batch-size", "32", "--epochs", "5", "--width", "0.25"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_side_of_an_epoch() -> None:
    growth = Growth.parse("16:0.2,24:0.4")
    assert growth is not None
    assert [growth.side(epoch, 10) for epoch in range(1, 11)] == [16, 16, 24, 24] + [None] * 6
    assert growth.side(1, 1) is None
    late = Growth.parse("16:0.999999999999")
    assert late is not None
    assert [late.side(epoch, 2) for epoch in (1, 2)] == [16, None]
    assert Growth.parse("none") is None


@pytest.mark.parametrize("text", ["24", "24:0", "24:1", "0:0.5", "24:0.4,16:0.6", "16:0.4,24:0.4", "a:0.5", "24:0.4:1"])
def test_specs_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--grow-size .*as in 1?6?:?0?\.?2?,?24:0\.4"):
        Growth.parse(text)


def triangle(whole: int, small: int) -> np.ndarray:
    """float64 [small, whole]: the weights of the pixels in each pixel of the result."""
    scale = whole / small
    centres = (np.arange(small)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(whole) + 0.5 - centres) / scale)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_pixels_are_means_under_a_triangle(dtype: torch.dtype, bound: float) -> None:
    images = torch.randn(3, 2, 12, 9).to(dtype).to(memory_format=torch.channels_last)
    found = shrunk(images, (8, 6))
    assert (found.dtype, found.shape) == (dtype, (3, 2, 8, 6))
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = np.einsum("ih,nchw,jw->ncij", triangle(12, 8), images.double().numpy(), triangle(9, 6))
    assert np.abs(found.double().numpy() - wanted).max() <= bound * np.abs(wanted).max()
    assert shrunk(images, None) is images


def noted_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, tuple[int, ...]]]:
    """What backbones see: whether in training, and height and width."""
    seen: list[tuple[bool, tuple[int, ...]]] = []
    forward = SmallCNN.forward

    def noting(self: SmallCNN, images: torch.Tensor) -> Any:
        if images.shape[0] > 1:  # not the trial of a size
            seen.append((self.training, tuple(images.shape[2:])))
        return forward(self, images)

    monkeypatch.setattr(SmallCNN, "forward", noting)
    return seen


@pytest.mark.parametrize("loader", ["resident", "torch"])
def test_training_images_grow_and_others_do_not(
    loader: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = noted_sizes(monkeypatch)
    words = [*DIGITS, "--method", "elr", "--loader", loader, "--grow-size", "5:0.2,6:0.6"]
    assert main(["train", *words, "--run-dir", "run"]) == 0
    said = "training images: 5x5 up to epoch 1, 6x6 up to epoch 3, 8x8 up to epoch 5\n"
    assert said in capsys.readouterr().out
    assert [size for training, size in seen if training] == [(5, 5)] * 5 + [(6, 6)] * 10 + [(8, 8)] * 10
    assert {size for training, size in seen if not training} == {(8, 8)}
    assert len(history(Path("run"))) == 5


@pytest.mark.parametrize(("step", "together"), [(3, 1), (8, 1), (3, 2)])
def test_an_interrupted_run_ends_as_a_whole_one(step: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside an epoch of the first size and of the second; several steps at a time, too."""
    words = [*DIGITS, "--method", "nal", "--epochs", "3", "--grow-size", "5:0.4"]
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    import signal

    steps, update = [0], Step._update

    def counting(self: Step, *batch: Any) -> Any:
        steps[0] += 1
        if steps[0] == step:
            signal.raise_signal(signal.SIGTERM)
        return update(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "_update", counting)
        assert main(["train", *words, "--steps-per-graph", str(together), "--run-dir", "cut"]) == 143
    assert state(Path("cut"))["batch"] > 0
    assert main(["train", "--resume", "cut"]) == 0
    assert_same_end(Path("whole"), Path("cut"))


@pytest.mark.parametrize("method", ["c2d", "elr_plus", "mixup"])
def test_methods_with_steps_of_their_own_take_smaller_images(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = noted_sizes(monkeypatch)
    words = [*DIGITS, "--method", method, *TWO_EPOCHS.get(method, ()), "--epochs", "2", "--grow-size", "6:0.5"]
    assert main(["train", *words, "--run-dir", "run"]) == 0
    sizes = [size for training, size in seen if training]
    assert set(sizes) == {(6, 6), (8, 8)}
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "mlp"), "mlp takes no images of 6x6 if it is made for 8x8"),
        (("--model", "cnn4"), "cnn4 takes no images of 6x6 if it is made for 8x8"),
        (("--grow-size", "8:0.5"), "the images have 8x8; give a side below 8"),
        (("--grow-size", "6"), "as in 24:0.4"),
        (("--dataset", "features:x.npz", "--model", "linear", "--crop-padding", "0", "--no-flip"), "no pixels"),
    ],
)
def test_refusals(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, *DIGITS, "--method", "ce", "--grow-size", "6:0.5", *words, "--run-dir", "run")
    assert message in line
    assert not Path("run").exists()


def test_lenet_is_refused_by_name() -> None:
    network = create_model("lenet5", num_classes=10, channels=1, image_size=(28, 28))
    config = recipe("ce", "mnist").replace({"model": "lenet5", "grow_size": "20:0.5"})
    with pytest.raises(ConfigError, match=r"^--grow-size 20:0.5: lenet5 takes no images of 20x20 if it is made for"):
        GrowingSize(config, (28, 28), 1, [network])
    assert network.training


def test_sizes_keep_their_proportions() -> None:
    network = create_model("small_cnn", num_classes=10, channels=3, image_size=(30, 45))
    config = recipe("ce", "cifar10").replace({"epochs": 4, "grow_size": "20:0.5"})
    sizes = GrowingSize(config, (30, 45), 3, [network])
    assert [sizes.size(epoch) for epoch in (1, 2, 3, 4)] == [(20, 30), (20, 30), None, None]


def test_a_size_that_no_epoch_has_is_said() -> None:
    network = create_model("small_cnn", num_classes=10, channels=3, image_size=(30, 45))
    config = recipe("ce", "cifar10").replace({"epochs": 4, "grow_size": "12:0.2,20:0.5"})
    assert GrowingSize(config, (30, 45), 3, [network]).describe() == [
        "training images: 20x30 up to epoch 2, 30x45 up to epoch 4; none of 12 pixels, since no epoch ends in their "
        "share"
    ]


def test_batch_norm_over_one_value_is_seen_at_the_smallest_size() -> None:
    networks = nn.ModuleList([create_model("resnet18", num_classes=3, channels=1, image_size=(16, 16), width=0.125)])
    config = recipe("ce", "digits").replace({"grow_size": "8:0.2,12:0.5"})
    assert smallest_size(config, (16, 16)) == (8, 8)
    data: Any = SimpleNamespace(channels=1)
    assert [least_batch(data, networks, size) for size in ((16, 16), (8, 8))] == [1, 2]


def test_another_size_is_warmed_up_and_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_several import FakeGraph, _step_and_batches

    import fastnoise.engine.step as step_module

    monkeypatch.setattr(step_module, "_Graph", FakeGraph)
    FakeGraph.made.clear()
    step, batches = _step_and_batches()
    for epoch, size in enumerate((None, (6, 5), (6, 5), None), 1):
        step.train_on(size)
        batches.begin(epoch)
        for _ in range(2):
            step.train_next(batches, 2)
    (graph,) = FakeGraph.made  # in the second epoch of the second size; in the others, of four steps, is the warm-up
    assert graph.replays == 2


def test_stacked_runs_refuse_it() -> None:
    from fastnoise.engine.stacked import stackable

    obstacle = stackable([recipe("ce", "digits").replace({"grow_size": "6:0.5"})])
    assert obstacle is not None
    assert "--grow-size" in obstacle
