"""Rates by step, Lookahead, averages of weights, alternating flips and mirrored evaluation."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import TWO_EPOCHS, assert_same_end, history, refusal, state
from torch import nn

from fastnoise.cli import main
from fastnoise.config import Optimizer, Schedule
from fastnoise.data.augment import Augmentation
from fastnoise.data.plan import Plan
from fastnoise.engine import load
from fastnoise.engine.course import StepCourse
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError
from fastnoise.models.heads import Outputs, with_mirror
from fastnoise.schedules import Averaging

DIGITS = ["--dataset", "digits", "--limit-train", "160", "--batch-size", "32", "--epochs", "3", "--width", "0.25"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stopped_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have SIGTERM arrive in training step `number`, counted from 1: the run saves itself and ends."""
    steps, train = [0], Step.train

    def counting(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        steps[0] += 1
        if steps[0] == number:
            signal.raise_signal(signal.SIGTERM)
        return train(self, images, index)

    monkeypatch.setattr(Step, "train", counting)


# -- one cycle -----------------------------------------------------------------------------------------------------


def test_the_rate_of_a_cycle() -> None:
    cycle = Schedule.parse("one_cycle:0.25,start=0.2,end=0.1")
    assert cycle.by_step
    assert [cycle.share(place) for place in (0, 0.125, 0.25, 0.625, 1)] == pytest.approx([0.2, 0.6, 1, 0.55, 0.1])
    assert Schedule.parse("one_cycle:0").share(0) == 1
    assert not any(Schedule.parse(text).by_step for text in ("constant", "cosine", "linear:3"))


def test_each_step_has_the_rate_of_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, train = [], Step.train

    def noting(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
        return train(self, images, index)

    monkeypatch.setattr(Step, "train", noting)
    words = ["--learning-rate", "0.1", "--schedule", "one_cycle:0.2", "--backbone-rate", "0.5"]
    assert main(["train", *DIGITS, *words, "--run-dir", "run"]) == 0
    cycle = Schedule.parse("one_cycle:0.2")
    wanted = [0.1 * cycle.share((step + 0.5) / 15) for step in range(15)]
    assert [first for first, _ in rates] == pytest.approx(wanted)
    assert [second for _, second in rates] == pytest.approx([rate / 2 for rate in wanted])
    assert max(wanted) < 0.1
    assert [epoch["learning_rate"] for epoch in history(Path("run"))] == pytest.approx(
        [0.1 * cycle.share(epoch / 3) for epoch in range(3)]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--schedule", "one_cycle"), "the peak's place"),
        (("--schedule", "one_cycle:1"), "the peak's place"),
        (("--schedule", "one_cycle:0.1,start=2"), "start must be a share"),
        (("--schedule", "one_cycle:0.1,min=0"), "no option 'min'"),
        (("--optimizer", "sgd:lookahead=1"), "2 steps or more"),
        (("--optimizer", "adamw:alpha=0.5"), "add lookahead=5"),
        (("--optimizer", "adam:momentum=0.5"), "adam takes no options here but lookahead"),
        (("--average-weights", "ema"), "as in ema:0.99,from=0.67"),
        (("--average-weights", "ema:1"), "must lie in (0, 1)"),
        (("--average-weights", "swa:0.9"), "unknown name 'swa'"),
        (("--average-weights", "ema:0.9,from=1"), "from must be a share"),
        (("--augment", "flip,alternating_flip"), "exclude each other"),
    ],
)
def test_refusals(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal(capsys, *words)


# -- to the bit ----------------------------------------------------------------------------------------------------

COURSES = {
    "cycle": ("--schedule", "one_cycle:0.3,start=0.1"),
    "lookahead": ("--optimizer", "sgd:momentum=0.85,nesterov,lookahead=3"),
    "average": ("--average-weights", "ema:0.8,from=0.34"),
    "adamw": ("--optimizer", "adamw:lookahead=2,alpha=0.8", "--learning-rate", "0.001"),
    "all": (
        *("--optimizer", "sgd:lookahead=3", "--average-weights", "ema:0.8,from=0.34", "--schedule", "one_cycle:0.3"),
        *("--augment", "alternating_flip", "--eval-mirror"),
    ),
}


@pytest.mark.parametrize(
    ("name", "step"), [("cycle", 7), ("adamw", 8), ("lookahead", 7), ("average", 10), ("average", 13), ("all", 13)]
)
def test_an_interrupted_course_ends_as_a_whole_one(name: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*DIGITS, "--method", "elr", *COURSES[name]]
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    with monkeypatch.context() as patch:
        stopped_at(patch, step)
        assert main(["train", *words, "--run-dir", "cut"]) == 143
    assert (state(Path("cut"))["epoch"], state(Path("cut"))["batch"]) == ((step // 5 + 1), step % 5)
    assert main(["train", "--resume", "cut"]) == 0
    assert_same_end(Path("whole"), Path("cut"))
    assert Path("whole/model.safetensors").stat().st_size > 0
    first, second = (load(run).networks.state_dict() for run in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("--method", "forward", "--warm-up", "1", "--schedule", "linear:0"), 15),
        (("--method", "forward", "--warm-up", "1", "--schedule", "one_cycle:0.3,start=0.1"), 17),
        (("--method", "selc", "--schedule", "linear:0"), 17),
    ],
)
def test_a_run_resumed_in_its_second_round_has_the_rates_of_a_whole_one(
    words: tuple[str, ...], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of 1 and 4 epochs, and of 3 and 2, stopped after an epoch and inside one."""
    words = (*DIGITS, *words, "--epochs", "5")
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    with monkeypatch.context() as patch:
        stopped_at(patch, step)
        assert main(["train", *words, "--run-dir", "cut"]) == 143
    assert (state(Path("cut"))["epoch"], state(Path("cut"))["batch"]) == (4, step % 5)
    assert main(["train", "--resume", "cut"]) == 0
    rates = [[epoch["learning_rate"] for epoch in history(Path(run))] for run in ("whole", "cut")]
    assert min(rates[0]) > 0
    assert rates[0] == rates[1]
    assert_same_end(Path("whole"), Path("cut"))


def test_methods_of_two_networks_have_two_averages() -> None:
    words = ["--method", "elr_plus", "--average-weights", "ema:0.8", "--optimizer", "sgd:lookahead=2"]
    assert main(["train", *DIGITS, *words, "--epochs", "2", "--run-dir", "run"]) == 0
    kept = state(Path("run"))
    averages = {key: value for key, value in kept["method"].items() if key.startswith("step_course.average.copies.")}
    found = load("run").networks.state_dict()
    assert len(load("run").networks) == 2
    assert all(torch.equal(value, averages[f"step_course.average.copies.{key}"]) for key, value in found.items())
    assert any(not torch.equal(value, kept["networks"][key]) for key, value in found.items())


@pytest.mark.parametrize("method", TWO_EPOCHS)
def test_methods_with_courses_of_their_own_take_them(method: str) -> None:
    words = ["--average-weights", "ema:0.8", "--optimizer", "sgd:lookahead=2", "--epochs", "2", "--eval-mirror"]
    assert main(["train", *DIGITS, "--method", method, *TWO_EPOCHS[method], *words, "--run-dir", "run"]) == 0
    assert len(history(Path("run"))) == 2


# -- what they compute ---------------------------------------------------------------------------------------------


def test_the_average_is_that_of_the_steps_and_is_what_the_run_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, after = [], StepCourse.after_step

    def noting(self: StepCourse, number: int, batches: int) -> None:
        after(self, number, batches)
        seen.append({key: value.clone() for key, value in nn.ModuleList(self._networks).state_dict().items()})

    monkeypatch.setattr(StepCourse, "after_step", noting)
    assert main(["train", *DIGITS, "--average-weights", "ema:0.8,from=0.6", "--run-dir", "run"]) == 0
    average = dict(seen[4])  # of three epochs the second and third: it begins from the weights after step 5
    for weights in seen[5:]:
        average = {key: 0.8 * value + 0.2 * weights[key] for key, value in average.items()}
    found = load("run").networks.state_dict()
    for key, value in found.items():
        assert torch.allclose(value, average[key], atol=1e-6), key
    assert found.keys() == average.keys()
    predicted = load("run").predict(np.zeros((1, 8, 8, 1), np.uint8))
    assert np.isfinite(predicted).all()
    assert Averaging.parse("ema:0.8,from=0.6").first(3) == 2  # type: ignore[union-attr]


def test_a_run_says_what_the_copies_take(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--average-weights", "ema:0.8,from=0.6", "--optimizer", "sgd:lookahead=2", "--epochs", "1"]
    assert main(["train", *DIGITS, *words, "--run-dir", "run"]) == 0
    said = capsys.readouterr().out
    size = sum(value.nbytes for value in state(Path("run"))["networks"].values()) / 1e6
    assert f"slow weights: a copy of the networks, {size:.1f} MB\n" in said
    assert f"averaged weights: a copy of the networks, {size:.1f} MB; they answer for the run from epoch 1 on" in said


def test_slow_weights_go_a_share_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zhang et al. 2019, Algorithm 1, with every step and every result kept."""
    fast, slow, train, after = [], [], Step.train, StepCourse.after_step

    def noting(self: StepCourse, number: int, batches: int) -> None:
        fast.append(torch.cat([p.detach().flatten() for p in nn.ModuleList(self._networks).parameters()]))
        after(self, number, batches)
        slow.append(torch.cat([p.detach().flatten() for p in nn.ModuleList(self._networks).parameters()]))

    def beginning(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        if not fast:
            slow.append(torch.cat([p.detach().flatten() for n in self.networks for p in n.parameters()]))
        return train(self, images, index)

    monkeypatch.setattr(StepCourse, "after_step", noting)
    monkeypatch.setattr(Step, "train", beginning)
    words = ["--optimizer", "sgd:lookahead=2,alpha=0.25", "--epochs", "1"]
    assert main(["train", *DIGITS, *words, "--run-dir", "run"]) == 0
    first, *after_steps = slow
    for number, (before, now) in enumerate(zip(fast, after_steps, strict=True), 1):
        if number in (2, 4, 5):  # and at the epoch's end
            first = first + 0.25 * (before - first)
            assert torch.allclose(now, first, atol=1e-7)
        else:
            assert torch.equal(now, before)
    assert Optimizer.parse("adam:lookahead=4").lookahead == 4


def test_stacked_runs_refuse_what_is_kept_for_one() -> None:
    from fastnoise.engine.stacked import stackable
    from fastnoise.recipes import recipe

    config = recipe("ce", "digits")
    assert stackable([config]) is None
    assert stackable([config.replace({"schedule": "one_cycle:0.2", "eval_mirror": True})]) is None
    for name, value in (("average_weights", "ema:0.9"), ("optimizer", "sgd:lookahead=5"), ("model", "whitened_cnn6")):
        assert stackable([config.replace({name: value})]) is not None


# -- flips ---------------------------------------------------------------------------------------------------------


def flips(plan: Plan, epoch: int, order: np.ndarray | None = None) -> dict[int, list[int]]:
    """What each sample's flips are in an epoch."""
    found: dict[int, list[int]] = {}
    for batch in plan.batches(epoch, order=order):
        assert batch.flip is not None
        for sample, flip in zip(batch.index.tolist(), batch.flip.tolist(), strict=True):
            found.setdefault(sample, []).append(flip)
    return found


def test_each_two_epochs_show_both_sides_of_every_sample() -> None:
    plan = Plan(200, 32, seed=3, augmentation=Augmentation.parse("crop,pad=2,alternating_flip"), shuffle=True)
    first, second, third = (flips(plan, epoch) for epoch in (1, 2, 3))
    assert all(first[sample][0] + second[sample][0] == 1 for sample in range(200))
    assert first == third
    assert 70 < sum(flip for (flip,) in first.values()) < 130
    part = Plan(200, 32, seed=3, augmentation=plan.augmentation, shuffle=True, shard=(1, 2))
    assert all(first[sample] == flip for sample, flip in flips(part, 1).items())
    order = np.array([5, 7, 5, 199])
    assert all(set(flip) == set(first[sample]) for sample, flip in flips(plan, 1, order).items())
    plain = Plan(200, 32, seed=3, augmentation=Augmentation.parse("crop,pad=2,flip"), shuffle=True)
    for one, other in zip(plan.batches(1), plain.batches(1), strict=True):
        assert np.array_equal(one.corner, other.corner)  # type: ignore[arg-type]
        assert np.array_equal(one.index, other.index)
    with pytest.raises(ConfigError, match="alternating_flip is random"):
        Augmentation.parse_evaluation("alternating_flip")


# -- mirrored evaluation -------------------------------------------------------------------------------------------


def test_the_mirror_image_has_half_a_say(tmp_path: Path) -> None:
    images = torch.randn(3, 1, 4, 6)
    found = with_mirror(lambda batch: Outputs(batch[:, 0, 0], batch[:, 0, 0, 0]), images)
    assert torch.allclose(found.logits, (images[:, 0, 0] + images[:, 0, 0].flip(1)) / 2)
    assert found.attention is not None
    assert torch.allclose(found.attention, (images[:, 0, 0, 0] + images[:, 0, 0, -1]) / 2)
    words = ["--method", "nal", "--eval-mirror", "--epochs", "2"]
    assert main(["train", *DIGITS, *words, "--run-dir", "run"]) == 0
    predictor = load("run")
    assert predictor.header.mirror
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    assert np.allclose(predictor.predict(pixels), predictor.predict(pixels[:, :, ::-1].copy()), atol=1e-6)
    from fastnoise.data import load_dataset

    test = load_dataset("digits", tmp_path).test
    _, figures = predictor.evaluate([test], test.labels)
    assert figures["accuracy"] == pytest.approx(history(Path("run"))[-1]["test_accuracy"])
