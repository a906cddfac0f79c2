"""Benchmarks of training and loading in miniature, `fastnoise bench` and its files."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastnoise.cli import main
from fastnoise.commands.bench import PARTS
from fastnoise.engine.profile import StepProfiler
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import reference
from fastnoise.models import create_model

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import counting, loader, ordinary, report, suite, train, workload  # noqa: E402
from benchmarks.timing import Spread, spread  # noqa: E402

sys.path.remove(str(ROOT))

CPU = torch.device("cpu")
NOWHERE = Path("no-data-here")


@pytest.fixture(scope="module")
def digits() -> workload.Workload:
    return workload.make_workload("digits", NOWHERE, batch_size=32, width=0.25)


# -- counting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "lenet5"])
def test_flops_are_those_of_pytorchs_own_counter(model: str) -> None:
    counted = counting.count(model, 4, (3, 32, 32), 10, 0.25 if model != "lenet5" else 1.0)
    network = create_model(model, num_classes=10, width=0.25 if model != "lenet5" else 1.0)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(4, 3, 32, 32)).logits.sum().backward()
    assert counted.flops_per_image == pytest.approx(counter.get_total_flops() / 4)
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_the_ceiling_of_resnets_on_an_h100() -> None:
    """Figures derived by hand from the sizes of the layers."""
    counted = counting.count("resnet34", 128, (3, 32, 32), 10)
    assert counted.flops_per_image == pytest.approx(6.95e9, rel=1e-3)
    assert counted.norm_elements == 128 * 1_024_000
    assert counted.ceiling(counting.H100, 2) == pytest.approx(59_000, rel=2e-3)


def test_the_ceiling_is_the_sum_of_what_bounds_each_pass() -> None:
    counted = counting.Counted(2, [(100, 10), (10, 100)], norm_elements=3, sum_elements=5, parameters=7)
    machine = counting.Machine(10.0, 4.0, "")
    seconds = max(100 / 10, 4 * 10 / 4) + max(10 / 10, 4 * 100 / 4) + (4 * (8 * 3 + 3 * 5) + 20 * 7) / 4
    assert counted.ceiling(machine, 4) == pytest.approx(2 / seconds)
    assert counted.bytes_per_image(2) == pytest.approx((2 * (8 * 3 + 3 * 5) + 26 * 7 + 2 * 110) / 2)


# -- the ordinary loop ---------------------------------------------------------------------------------------


def test_the_ordinary_loss_is_elr() -> None:
    torch.manual_seed(0)
    loss = ordinary.EagerELR(20, 5, CPU)
    table = torch.zeros(20, 5)
    for index in ([3, 1, 7], [7, 2, 3]):
        logits, labels = torch.randn(3, 5), torch.tensor([0, 4, 2])
        expected, rows = reference.elr(
            logits, labels, table[index], strength=ordinary.STRENGTH, momentum=ordinary.MOMENTUM
        )
        table[index] = rows
        torch.testing.assert_close(loss(index, logits, labels), expected.mean())
        torch.testing.assert_close(loss.targets, table)


def test_pil_images_are_those_of_the_evaluation_loader() -> None:
    table = workload.generated((4, 8, 8, 3), 10)
    plain = workload.images_workload(table, "generated", "x", "small_cnn", 4, 10)
    object.__setattr__(plain, "augmentation", type(plain.augmentation)(0, False))
    image, label, position = ordinary.PilImages(plain)[2]
    assert (label, position) == (plain.labels[2], 2)
    assert table.images is not None
    expected = (table.images[2] / 255 - np.array(plain.mean)) / np.array(plain.std)
    torch.testing.assert_close(image, torch.from_numpy(expected).permute(2, 0, 1).float())


def test_every_side_trains_the_same_network_and_learns(digits: workload.Workload) -> None:
    """Ten epochs of the ordinary loop and of fastnoise: on digits with wrong labels both losses fall."""
    step = ordinary.OrdinaryStep(digits, CPU)
    own, made = train.fastnoise_step(digits, "elr", train.Options(CPU))
    shapes = [parameter.shape for parameter in step.network.parameters()]
    assert shapes == [parameter.shape for parameter in made.networks[0].parameters()]
    labels = torch.from_numpy(digits.labels)
    stream, _ = train.fastnoise_batches(digits, "torch", train.Options(CPU), torch.float32)
    losses: list[float] = []
    for number, (images, index) in zip(range(80), stream, strict=False):
        step(images, labels[index], index)
        result = own(images, index)
        if number in (0, 79):
            losses += [step.running_loss, float(result.loss)]  # type: ignore[attr-defined]
        step.running_loss = 0.0
    assert losses[2] < losses[0]
    assert losses[3] < losses[1]


def test_sides_and_ratios(digits: workload.Workload) -> None:
    said: list[str] = []
    options = train.Options(CPU, workers=0, rounds=2, seconds=0.01)
    sides = ("ordinary", "amp", "fastnoise", "cross_entropy", "fastnoise@synthetic", "ordinary@torch")
    partly: list[list[report.Figure]] = []
    figures = train.measure(digits, options, sides, said.append, partly.append)
    assert [sum(figure.unit == "images/s" for figure in each) for each in partly] == [1, 2, 3, 4, 5, 6, 6]
    assert [each[0].samples for each in partly] == [1, 1, 1, 1, 1, 1, 2], "each side's first turn, then a round"
    assert partly[-1] == figures
    by_key = {figure.key: figure for figure in figures}
    for side in sides:
        figure = by_key[f"train/digits-small_cnnx0.25-b32/{side}"]
        assert 0 < figure.low <= figure.value <= figure.high
        assert 0 <= figure.details["data_wait"] < 1
        assert figure.details["ceiling_share"] == pytest.approx(figure.value / figure.details["ceiling_images_per_s"])
    assert "train/digits-small_cnnx0.25-b32/fastnoise:ordinary" in by_key
    assert "train/digits-small_cnnx0.25-b32/fastnoise@synthetic:ordinary" not in by_key
    assert any("FLOP" in line and "ceiling" in line for line in said)
    with pytest.raises(ConfigError, match=r"unknown side 'ordinry'; did you mean 'ordinary'"):
        train.build("ordinry", digits, options)


def test_a_side_of_several_steps_at_a_time(digits: workload.Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are of whole numbers of eight steps, over the ends of epochs."""
    made: list[int] = []
    train_next = Step.train_next

    def counting(self: Step, batches: Any, count: int) -> Any:
        made.append(count)
        return train_next(self, batches, count)

    monkeypatch.setattr(Step, "train_next", counting)
    side = train.build("joint", digits, train.Options(CPU, workers=0))
    assert (side.together, made) == (8, [8])
    calls = len(digits.table) // digits.batch_size * 2 // 8 * 8
    turn = train.take_turn(side, calls, digits.batch_size, CPU)
    assert turn.images_per_second > 0
    assert made == [8] * (1 + calls // 8)
    side.batches.close()  # type: ignore[attr-defined]
    few = replace(digits, batch_size=len(digits.table) // 4)
    with pytest.raises(ConfigError, match="8 steps together: an epoch has 4 batches"):
        train.build("joint", few, train.Options(CPU, workers=0))


def test_loaders(digits: workload.Workload) -> None:
    partly: list[list[report.Figure]] = []
    options = train.Options(CPU, workers=0, rounds=2, seconds=0.02)
    figures = loader.measure(digits, options, lambda line: None, keep=partly.append)
    assert len({figure.key for figure in partly[0]}) == 1, "the first loader's, before another is built"
    assert partly[-1] == figures
    keys = {figure.key for figure in figures}
    assert {"loader/digits-b32/torch", "loader/digits-b32/pil0", "loader/digits-b32/torch:pil"} <= keys
    assert ("loader/digits-b32/resident.host" in keys) == (find_spec("triton") is not None)
    assert all(figure.value > 0 for figure in figures)


def test_generated_images_stand_in_for_what_is_not_there() -> None:
    made = workload.make_workload("cifar10", NOWHERE, model="resnet18", batch_size=64)
    assert made.shape == (3, 32, 32)
    assert made.source == f"generated images in the form of cifar10, which is not under {NOWHERE}"
    wrong = (made.labels != made.table.labels).mean()
    assert wrong == pytest.approx(0.4, abs=0.02)
    with pytest.raises(ConfigError, match="unknown dataset 'cifar1'; did you mean 'cifar10'"):
        workload.make_workload("cifar1", NOWHERE)


# -- files ---------------------------------------------------------------------------------------------------


def figure(key: str, low: float, value: float, high: float, better: str = "higher") -> report.Figure:
    return report.Figure.of(key, Spread(low, value, high), "images/s", better, 5)


def test_a_file_is_read_back(tmp_path: Path) -> None:
    figures = [figure("a/b", 1, 2, 3), figure("a/c", 4, 5, 6, "lower")]
    report.write(tmp_path / "x.json", figures)
    stamp, back = report.read(tmp_path / "x.json")
    assert back == figures
    assert {"machine", "torch", "commit", "date", "schema"} <= set(stamp)
    with pytest.raises(ValueError, match="keys measured twice: a/b"):
        report.write(tmp_path / "y.json", [figures[0], figures[0]])


def test_comparison_marks_what_lies_outside_both_spreads() -> None:
    old = [
        figure("up", 9, 10, 11),
        figure("same", 9, 10, 11),
        figure("slow", 9, 10, 11, "lower"),
        figure("gone", 1, 1, 1),
    ]
    new = [
        figure("up", 19, 20, 21),
        figure("same", 8, 11, 12),
        figure("slow", 19, 20, 21, "lower"),
        figure("new", 1, 1, 1),
    ]
    lines = {line.split()[0]: line for line in report.compare(old, new)}
    assert "2.000  better, outside both spreads" in lines["up"]
    assert lines["same"].endswith("1.100")
    assert "2.000  WORSE, outside both spreads" in lines["slow"]
    tail = report.compare(old, new)[-2:]
    assert tail == ["only in the old file: gone", "only in the new file: new"]


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.json"
    for content, message in (
        ('{"schema": "other-1", "rows": []}', "has the schema 'other-1', not 'fastnoise-bench-1'"),
        ("[1]", "has the schema None"),
        ("{", "is not JSON"),
        (json.dumps({"schema": report.SCHEMA, "rows": [{"key": "a"}]}), "is damaged"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            report.read(path)
        assert main(["bench", "noise", "--compare", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a part; valid: all, consensus, loader, losses, noise, train"),
        (["trian"], "unknown part 'trian'; did you mean 'train'"),
        (["train", "--rounds", "0"], "--rounds must be positive"),
        (["train", "--gear", "third"], "--gear third: valid: auto, eager, compiled, graphed"),
        (["train", "--workers", "-1"], "--workers must be 0 or more"),
        (["noise", "--json", "no/such/folder/x.json"], "no such folder"),
        (["train", "--model", "resnet19", "--dataset", "digits"], "unknown model 'resnet19'"),
        (["train", "--colour"], "unknown option --colour"),
    ],
)
def test_mistakes_are_named_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_bench_writes_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    words = ["bench", "train", "--dataset", "digits", "--batch-size", "32", "--sides", "ordinary", "fastnoise"]
    words += ["--rounds", "2", "--seconds", "0.02", "--workers", "0", "--threads", "1"]
    try:
        assert main([*words, "--json", "one.json"]) == 0
        assert "written: one.json, 3 figures" in capsys.readouterr().out
        assert main([*words, "--compare", "one.json"]) == 0
    finally:
        torch.set_num_threads(threads)
    _, figures = report.read(tmp_path / "one.json")
    assert [each.key for each in figures] == [
        f"train/digits-small_cnn-b32/{side}" for side in ("ordinary", "fastnoise", "fastnoise:ordinary")
    ]
    assert figures[0].details["torch_threads"] == 1
    compared = capsys.readouterr().out.rpartition("against one.json")[2]
    assert all(each.key in compared for each in figures)


# -- profiles ------------------------------------------------------------------------------------------------


def test_a_profile_names_ops_copies_reads_and_gaps(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def step(images: torch.Tensor) -> None:
        network(images.contiguous(memory_format=torch.channels_last)).sum().item()

    done = 0
    with StepProfiler(tmp_path / "trace.json", warmup=2, steps=3) as profiler:
        for images in profiler.batches(torch.randn(4, 3, 8, 8) for _ in range(8)):
            step(images)
            profiler.step()
            done += 1
    text = profiler.report()
    assert done == 8
    assert text.startswith("profile of 3 steps")
    assert "convolution" in text
    assert "layout copies: 3" in text
    assert "3 x aten::copy_ of [4, 3, 8, 8], strides [192, 64, 8, 1] to [192, 1, 24, 3]" in text
    assert "host reads: 3" in text
    assert "copies of the target table: none" in text
    assert "gaps: outside of ops" in text
    assert "getting batches:" in text
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) > 10


def test_a_loop_shorter_than_the_warm_up_says_so(tmp_path: Path) -> None:
    with StepProfiler(tmp_path / "trace.json", warmup=5, steps=3) as profiler:
        profiler.step()
    assert "no step was recorded" in profiler.report()
    assert not (tmp_path / "trace.json").exists()


def test_percentiles() -> None:
    assert spread([1, 2, 3, 4, 5, 6]) == pytest.approx((2, 3.5, 5))


def test_the_command_names_the_parts_that_there_are() -> None:
    """It refuses other words before it imports them."""
    assert tuple(suite.PARTS) == PARTS
