"""Several steps at a time: the same bits as one by one, over an epoch's end, a kill and a resume."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from _train_cases import Killed, assert_same_end, noted, refusal
from rich.console import Console

import fastnoise.engine.step as step_module
import fastnoise.engine.trainer as trainer_module
from fastnoise.config import RunConfig
from fastnoise.data import Augmentation, ImageTable, make_loader
from fastnoise.data.positioned import PositionedBatches
from fastnoise.engine import train
from fastnoise.engine.saves import SaveClock
from fastnoise.engine.step import WARM_UP, Gear, Step
from fastnoise.recipes import recipe
from fastnoise.schedules import Schedule

QUIET = Console(quiet=True)
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 9, 8, 3), dtype=np.uint8)


def loader(augmentation: Augmentation | None = None, views: int = 1, dtype: torch.dtype = torch.float32) -> Any:
    return make_loader(
        "resident",
        ImageTable(np.zeros(len(IMAGES), int), images=IMAGES),
        batch_size=5,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.2),
        device="cpu",
        seed=3,
        augmentation=augmentation,
        shuffle=True,
        views=views,
        dtype=dtype,
    )


@pytest.mark.parametrize(
    ("augmentation", "views", "dtype"),
    [
        (None, 1, torch.float32),
        (Augmentation(2, True), 1, torch.bfloat16),
        (Augmentation(2, True, 3), 2, torch.float32),
    ],
)
def test_batches_are_the_loaders(augmentation: Augmentation | None, views: int, dtype: torch.dtype) -> None:
    """From the first batch and from inside, of its own order and of one that is longer and repeats samples."""
    mine, theirs = loader(augmentation, views, dtype), loader(augmentation, views, dtype)
    batches = PositionedBatches(mine)
    longer = np.random.default_rng(1).integers(0, len(IMAGES), 31)
    for epoch, start, order, generation in [(1, 0, None, 1), (2, 2, None, 1), (3, 1, longer, 2), (4, 0, None, 2)]:
        left = batches.begin(epoch, start, order) - 5 * start
        assert batches.generation == generation
        for images, index in theirs.epoch(epoch, start, order):
            found, places = batches.next(min(5, left))
            assert found.stride() == images.stride()
            assert torch.equal(found, images)
            assert torch.equal(places, index)
            left -= 5
        assert left <= 0


def config(folder: Path, together: int | str, method: str = "elr", **changes: Any) -> RunConfig:
    """Two epochs of 12 batches and a smaller one."""
    return recipe(method, "digits").replace(
        {
            **{"limit_train": 200, "batch_size": 16, "epochs": 2, "model": "small_cnn", "width": 0.125},
            **{"device": "cpu", "steps_per_graph": together, "run_dir": str(folder), "crop_padding": 1},
            **changes,
        }
    )


def test_runs_are_equal_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if one is killed inside an epoch and goes on, several steps at a time or one by one."""
    monkeypatch.setattr(SaveClock, "due", lambda self: True)
    plain = tmp_path / "plain"
    places = noted(monkeypatch)
    train(config(plain, 1), console=QUIET)
    assert len(places) == 26
    monkeypatch.undo()
    joint: list[int] = []
    train_next = Step.train_next

    def counting(self: Step, batches: PositionedBatches, count: int, *around: Any) -> Any:
        joint.append(count)
        return train_next(self, batches, count, *around)

    monkeypatch.setattr(Step, "train_next", counting)
    whole = tmp_path / "whole"
    train(config(whole, 5), console=QUIET)
    assert joint == [5] * 4
    assert_same_end(plain, whole)
    for after in (5, 1):
        killed = tmp_path / f"killed-{after}"
        with monkeypatch.context() as patch:
            patch.setattr(SaveClock, "due", lambda self: True)
            places = noted(patch, kill_at=(2, 5))
            with pytest.raises(Killed):
                train(config(killed, 5), console=QUIET)
        assert places == [(1, 5), (1, 10), (1, 11), (1, 12), (2, 0), (2, 5)]
        train(config(killed, after), console=QUIET, resume=True)
        assert_same_end(plain, killed)


COURSE: dict[str, Any] = {
    "schedule": "one_cycle:0.3,start=0.1",
    "optimizer": "sgd:momentum=0.85,nesterov,lookahead=5",
    "average_weights": "ema:0.8,from=0.5",
    "backbone_rate": 0.5,
}


@pytest.mark.parametrize("graphed", [False, True])
def test_courses_by_step_are_equal_to_the_bit(graphed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of each step and slow weights, also over a kill between two moves of these. With graphs, in whose place
    their functions are called, the rates come from the device."""
    if graphed:
        FakeGraph.made.clear()
        monkeypatch.setattr(step_module, "_Graph", FakeGraph)
        monkeypatch.setattr(step_module, "_SideStream", lambda device: nullcontext())
        monkeypatch.setattr(trainer_module, "choose_gear", lambda *_: Gear("graphed", "as if on a GPU"))
    plain, whole, killed = (tmp_path / name for name in ("plain", "whole", "killed"))
    train(config(plain, 1, **COURSE), console=QUIET)
    joint: list[list[float]] = []
    update = Step._update

    def noting(self: Step, *batch: Any) -> Any:
        joint[-1].append(float(self.optimizer.param_groups[1]["lr"]))
        return update(self, *batch)

    train_next = Step.train_next

    def counting(self: Step, *words: Any) -> Any:
        joint.append([])
        with monkeypatch.context() as patch:
            patch.setattr(Step, "_update", noting)
            return train_next(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "train_next", counting)
        train(config(whole, 5, **COURSE), console=QUIET)
    cycle = Schedule.parse(COURSE["schedule"])
    rate = config(whole, 5).optim.learning_rate / 2
    steps = [number for first in (0, 5, 13, 18) for number in range(first, first + 5)]
    rates = [each for steps_of in joint for each in steps_of]
    assert rates == pytest.approx([rate * cycle.share((step + 0.5) / 26) for step in steps])
    assert_same_end(plain, whole)
    if graphed:
        assert [graph.replays for graph in FakeGraph.made if not graph.arguments] == [1, 1]  # anew for the average
    with monkeypatch.context() as patch:
        patch.setattr(SaveClock, "due", lambda self: True)
        noted(patch, kill_at=(2, 3))
        with pytest.raises(Killed):
            train(config(killed, 1, **COURSE), console=QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "train_next", counting)
        joint.clear()
        train(config(killed, 5, **COURSE), console=QUIET, resume=True)
    assert len(joint) == 1  # after steps 4 and 5 alone
    assert_same_end(plain, killed)


class FakeGraph:
    """In place of a captured graph, which it replays by calling the function again."""

    made: ClassVar[list["FakeGraph"]] = []

    def __init__(self, function: Any, arguments: Any, side: Any):
        self.function, self.arguments, self.replays = function, arguments, 0
        FakeGraph.made.append(self)

    def fits(self, arguments: Any) -> bool:
        return [each.shape for each in arguments] == [each.shape for each in self.arguments]

    def __call__(self, *arguments: Any) -> object:
        self.replays += 1
        return self.function(*arguments)


def test_one_graph_has_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured after a warm-up, and anew if its memory or program is another."""
    monkeypatch.setattr(step_module, "_Graph", FakeGraph)
    FakeGraph.made.clear()
    step, batches = _step_and_batches()
    done = 0
    for number in range(4):
        batches.begin(1 + number)
        step.train_next(batches, 2)
        done += 2
        assert step.replays == max(0, done - 2 * -(-WARM_UP // 2))
        assert len(FakeGraph.made) == int(number >= 2)
    batches.begin(2, 0, np.arange(23).repeat(2))  # longer: in memory of its own
    step.train_next(batches, 2)
    assert len(FakeGraph.made) == 2
    step.recapture()
    assert step.replays == 0
    step.train_next(batches, 2)
    assert len(FakeGraph.made) == 3


def _step_and_batches() -> tuple[Step, PositionedBatches]:
    from fastnoise.config import EngineConfig
    from fastnoise.engine.optimizer import create_optimizer
    from fastnoise.methods import create_method
    from fastnoise.models import create_model

    settings = recipe("ce", "digits")
    network = create_model("small_cnn", num_classes=3, channels=3, image_size=(9, 8), width=0.125)
    step = Step(
        [network],
        create_method(settings.method, num_samples=23, num_classes=3),
        create_optimizer(settings.optim, network),
        torch.zeros(23, dtype=torch.int64),
        batch_size=5,
        config=EngineConfig(),
        device=torch.device("cpu"),
    )
    step._side = nullcontext()  # type: ignore[assignment]
    step.gear = step.gear._replace(name="graphed")
    batches = PositionedBatches(loader())
    batches.begin(1)
    return step, batches


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "elr", "--loader", "torch"), "the torch loader makes batches on the host"),
        (("--method", "elr", "--augment", "crop,pad=1,rotate=5"), "resizes or recolours"),
        (("--method", "elr_plus"), "method elr_plus draws numbers on the host before each step"),
        (("--method", "elr", "--profile"), "--profile looks at single steps"),
        (("--method", "elr", "--optimizer", "sgd:lookahead=3"), "every 3 steps; take a multiple of 3"),
    ],
)
def test_refusals(words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(
        capsys, *words, "--dataset", "digits", "--steps-per-graph", "4", "--device", "cpu",
        "--limit-train", "64", "--run-dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert "--steps-per-graph 4: " in line
    assert said in line
    assert line.endswith("or drop the option")
    assert not (tmp_path / "run").exists()


def test_the_kernel_of_an_optimiser_needs_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(
        capsys, "--method", "ce", "--dataset", "digits", "--optimizer-kernel", "triton", "--device", "cpu",
        "--limit-train", "64", "--run-dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert "--optimizer-kernel triton needs a GPU" in line
