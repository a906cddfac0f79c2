"""`--fused-head`: the last layer, the loss and its targets as one op in training runs, which write no logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from _train_cases import assert_same_end, history, killed_at, refusal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnoise.cli import main
from fastnoise.config import EngineConfig
from fastnoise.engine.optimizer import create_optimizer
from fastnoise.engine.stacked import stackable
from fastnoise.engine.step import Step
from fastnoise.methods import create_method
from fastnoise.models import create_model
from fastnoise.models.heads import chooses_fused_head
from fastnoise.recipes import recipe

NUM_SAMPLES, CLASSES, BATCH = 24, 7, 6


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that ops give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.seen |= {tuple(leaf.shape) for leaf in found if 0 not in leaf.stride()}  # which is the form without memory
        return result


def made(method: str, fused: bool, **engine: Any) -> Step:
    """A step of a small network, from the same weights whether fused or not."""
    config = recipe(method, "cifar10").replace({"learning_rate": 0.02})
    torch.manual_seed(0)
    trained = create_method(config.method, num_samples=NUM_SAMPLES, num_classes=CLASSES)
    network = create_model(
        "small_cnn", num_classes=CLASSES, channels=1, image_size=(8, 8), width=0.25, attention=trained.attention
    )
    assert trained.fused_head
    if fused:
        assert network.fuse_head()
    trained.attach([network])
    labels = torch.randint(CLASSES, (NUM_SAMPLES,))
    return Step(
        [network],
        trained,
        create_optimizer(config.optim, torch.nn.ModuleList([network])),
        labels,
        batch_size=BATCH,
        config=EngineConfig(**engine),
        device=torch.device("cpu"),
    )


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    images = torch.randn(NUM_SAMPLES, 1, 8, 8, generator=random)
    return [(images[index], index) for index in (torch.randperm(NUM_SAMPLES)[:BATCH] for _ in range(count))]


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", ["ce", "label_smoothing", "elr", "nal", "forward"])
def test_steps_equal_those_of_whole_logits(method: str, amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, predictions, attention, targets and weights, over six steps in blocks of two samples."""
    monkeypatch.setattr("fastnoise.ops.linear.BLOCK", 2 * CLASSES)
    ours, theirs = (made(method, fused, amp=amp) for fused in (True, False))
    near = {"rtol": 1e-4, "atol": 1e-5} if amp == "off" else {"rtol": 0.03, "atol": 0.03}
    for images, index in batches(6):
        found, expected = ours.train(images, index), theirs.train(images, index)
        torch.testing.assert_close(found.loss, expected.loss, **near)
        assert (found.attention is None) == (expected.attention is None)
        if amp == "off":
            assert torch.equal(found.predictions, expected.predictions)
    for name, weight in theirs.networks[0].state_dict().items():
        torch.testing.assert_close(ours.networks[0].state_dict()[name], weight, **near)
    for name, buffer in theirs.method.state_dict().items():
        torch.testing.assert_close(ours.method.state_dict()[name], buffer, **near)


def test_no_logits_of_a_batch_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnoise.ops.linear.BLOCK", 2 * CLASSES)
    ((images, index),) = batches(1)
    for fused in (True, False):
        step = made("elr", fused)
        with Shapes() as shapes:
            step.train(images, index)
        assert ((BATCH, CLASSES) in shapes.seen) is not fused
        assert ((2, CLASSES) in shapes.seen) is fused
        step.networks[0].eval()
        assert step.evaluate(images, BATCH).logits.shape == (BATCH, CLASSES), "evaluation has its logits"


@pytest.mark.parametrize("method", ["elr", "nal"])
def test_compiles_as_one_graph(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnoise.ops.linear.BLOCK", 4 * CLASSES)
    ((images, index),) = batches(1)
    compiled, eager = made(method, True), made(method, True)
    compiled._forward = torch.compile(compiled._eager_forward, fullgraph=True, dynamic=False, backend="aot_eager")
    found, expected = compiled.train(images, index), eager.train(images, index)
    torch.testing.assert_close(found.loss, expected.loss)
    assert torch.equal(found.predictions, expected.predictions)
    torch.testing.assert_close(compiled.method.state_dict(), eager.method.state_dict())
    torch.testing.assert_close(compiled.networks[0].state_dict(), eager.networks[0].state_dict())


WORDS = ["--dataset", "digits", "--limit-train", "200", "--width", "0.25", "--loader", "torch", "--model", "small_cnn"]
WORDS += ["--batch-size", "40"]


def test_runs_equal_and_resume_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", *WORDS, "--method", "elr"]
    runs = {name: tmp_path / name for name in ("off", "on", "resumed")}
    for name in ("off", "on"):
        assert main([*words, "--epochs", "2", "--fused-head", name, "--run-dir", str(runs[name])]) == 0
    with monkeypatch.context() as patch:
        killed_at(patch, 7)  # the second of five steps of the second epoch
        with pytest.raises(GeneratorExit):
            main([*words, "--epochs", "2", "--fused-head", "on", "--run-dir", str(runs["resumed"])])
    assert main(["train", "--resume", str(runs["resumed"])]) == 0
    assert_same_end(runs["on"], runs["resumed"])
    for found, expected in zip(history(runs["on"]), history(runs["off"]), strict=True):
        assert found.keys() == expected.keys()
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)
        for name in (
            "train_accuracy_given",
            "clean_true",
            "mislabelled_memorised",
            "correction_accuracy",
            "test_accuracy",
        ):
            assert found[name] == pytest.approx(expected[name], abs=0.03), name


def test_what_cannot_be_fused_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "net.py"
    own.write_text(
        "from torch import nn\n\n\n"
        "def build(num_classes, channels, image_size, **_):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    words = [*WORDS, "--epochs", "1", "--fused-head", "on"]
    for more, why in (
        (["--method", "elr_plus"], "method elr_plus, as it is set, does more with logits than one loss"),
        (["--method", "gce"], "method gce, as it is set, does more with logits than one loss"),
        (["--method", "nal", "--attention", "confidence"], "method nal, as it is set, does more with logits"),
        (["--method", "ce", "--balance", "weights"], "--balance weights gives each sample a weight"),
        (["--method", "ce", "--model", f"{own}:build"], "net.py:build has no linear last layer of fastnoise's"),
    ):
        text = refusal(capsys, *words, *more)
        assert text.startswith("fastnoise: error: --fused-head on: "), text
        assert why in text
        assert text.endswith("; drop the option")
    config = recipe("ce", "digits").replace({"fused_head": "on"})
    assert "--fused-head has none" in str(stackable([config, config.replace({"seed": 1})]))


def test_auto_is_off_until_a_gpu_has_decided() -> None:
    for device in ("cpu", "cuda"):
        assert not chooses_fused_head("auto", torch.device(device))
        assert chooses_fused_head("on", torch.device(device))
        assert not chooses_fused_head("off", torch.device(device))
