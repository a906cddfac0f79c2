"""Whether compiling pays: what is assumed, what is measured and kept, and what becomes of a damaged file."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from fastnoise.engine import train
from fastnoise.engine.payback import (
    MOST_ENTRIES,
    UNKNOWN_NETWORK,
    Cost,
    StepTimes,
    Times,
    compile_cost,
    default_path,
    steps_key,
    written_numbers,
)
from fastnoise.engine.prepare import load_data
from fastnoise.engine.single import Single
from fastnoise.engine.step import choose_gear
from fastnoise.methods import create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = (128, 3, 32, 32)


def network(model: str, **options: Any) -> nn.Module:
    return create_model(model, num_classes=10, channels=3, image_size=(32, 32), **options)


def assumed(model: str, shape: tuple[int, ...] = SMALL, amp: torch.dtype | None = torch.bfloat16) -> Cost:
    return compile_cost([network(model)], shape, amp, Times())


def test_what_is_assumed_follows_the_network_and_its_batch() -> None:
    large, small = assumed("resnet34"), assumed("resnet18")
    assert large.gained == pytest.approx(0.77e-3, rel=0.02)  # the step that the constants were taken for
    assert large.seconds == pytest.approx(37, abs=1)
    assert (large.seconds, large.gained) == pytest.approx(UNKNOWN_NETWORK[:2], rel=0.02)
    assert small.gained < 0.7 * large.gained
    assert small.seconds < 0.7 * large.seconds
    assert assumed("resnet18", (256, 3, 32, 32)).gained == pytest.approx(2 * small.gained)
    assert assumed("resnet18", amp=None).gained == pytest.approx(2 * small.gained)
    two = compile_cost([network("resnet18"), network("resnet18")], SMALL, torch.bfloat16, Times())
    assert (two.gained, two.seconds) == pytest.approx((2 * small.gained, 2 * small.seconds))
    assert small.sources == ("assumed", "assumed")


def test_counting_leaves_networks_alone() -> None:
    made = network("small_cnn", width=0.25)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    numbers = written_numbers([made], (4, 3, 32, 32))
    assert numbers == written_numbers([made], (4, 3, 32, 32)) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    layer = nn.Linear(3, 5)  # its weight's transposition is a view and counts for nothing
    assert written_numbers([layer], (2, 3)) == 10


def test_measured_times_go_before_assumed_ones() -> None:
    def cost(**seconds: float) -> Cost:
        return compile_cost([network("small_cnn")], SMALL, torch.bfloat16, Times(**seconds))

    assert cost(compiling=8.0)[:3] == (8.0, assumed("small_cnn").gained, ("measured", "assumed"))
    assert cost(compiled_step=0.003).sources == ("assumed", "assumed")  # one side of a comparison says nothing
    whole = cost(compiling=8.0, compiled_step=0.003, plain_step=0.0035)
    assert whole[:2] == pytest.approx((8.0, 0.0005))
    assert whole.sources == ("measured", "measured")
    assert whole.pays(16_001)[0]
    assert not whole.pays(15_999)[0]
    pays, words = cost(compiling=8.0, compiled_step=0.004, plain_step=0.0035).pays(10**9)
    assert not pays
    assert "would take about 8 s (measured) and save nothing (measured) in each of 1,000,000,000 steps" in words


def test_a_network_that_cannot_be_followed_is_not_compiled() -> None:
    class Reader(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * float(images.mean())

    cost = compile_cost([Reader()], SMALL, None, Times())
    pays, words = cost.pays(10**9)
    assert not pays
    assert words.startswith("not compiled: the network cannot be followed without data (")
    assert "\n" not in words


def test_times_are_kept_and_added_to(tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "new" / "step_times.json")
    assert times.read("a") == (Times(), "")
    assert times.write("a", compiling=60.0) == ""
    assert times.write("a", compiled_step=0.003) == ""
    assert times.write("b", plain_step=0.5) == ""
    assert times.write("a", compiling=7.5) == ""  # the last counts: the compiler has kept what it made
    assert times.read("a") == (Times(7.5, 0.003, None), "")
    assert times.read("b") == (Times(None, None, 0.5), "")
    assert times.count() == 2
    times.path.write_text(json.dumps(json.loads(times.path.read_text()) | {str(n): {} for n in range(MOST_ENTRIES)}))
    times.write("c", plain_step=1.0)
    content = json.loads(times.path.read_text())
    assert len(content) == MOST_ENTRIES
    assert list(content)[-1] == "c"
    assert "b" not in content


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a": 3}',
        '{"a": {"compiling": "soon"}}',
        '{"a": {"compiling": -1}}',
        '{"a": {"compiling": NaN}}',
        '{"a": {"plain_step": true}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_said_left_out_and_replaced(damage: str, tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "step_times.json")
    times.path.write_text(damage)
    found, note = times.read("a")
    assert found == Times()
    assert times.count() in (0, 1)
    assert note.startswith(f"measured times are left out: {times.path} is damaged")
    assert "\n" not in note
    cost = compile_cost([network("small_cnn")], SMALL, None, found, note)
    assert cost.pays(10)[1].endswith(f"({note})")
    assert times.write("a", compiling=60.0, plain_step=0.2, compiled_step=0.1) == ""
    assert times.read("a") == (Times(60.0, 0.1, 0.2), "")


def test_a_file_in_another_encoding_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "step_times.json")
    times.path.write_bytes(b"\xff\xfe{")
    assert times.read("a")[0] == Times()
    (tmp_path / "file").write_text("")
    nowhere = StepTimes(tmp_path / "file" / "step_times.json")
    assert nowhere.read("a")[0] == Times()
    note = nowhere.write("a", compiling=1.0)
    assert note.startswith("the measured times of a step are not kept: ")
    assert "\n" not in note


def test_the_file_lies_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "fastnoise" / "step_times.json"
    for value in ("", "relative"):  # which the specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_path() == Path(os.path.expanduser("~")) / ".cache" / "fastnoise" / "step_times.json"


def make_run(**changes: Any) -> Single:
    config = recipe("ce", "digits").replace({"limit_train": 200, "epochs": 3, "width": 0.25, **changes})
    return Single(config, load_data(config), CPU, Console(quiet=True))


def test_a_run_decides_by_what_others_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run on a CPU that is told it were on a GPU: what it reads and writes, and under which words."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    run = make_run()
    assert run._compile_cost() == UNKNOWN_NETWORK
    run._keep_times(compiling=5.0)
    assert not default_path().exists()  # on a CPU nothing is kept
    run.device = GPU
    assert run._compile_cost().sources == ("assumed", "assumed")
    run.step.gear = run.step.gear._replace(name="compiled_graphed")
    run._keep_times(compiling=5.0, compiled_step=0.001)
    run.step.gear = run.step.gear._replace(name="graphed")
    run._keep_times(plain_step=0.002)
    run.step.gear = run.step.gear._replace(name="eager")
    run._keep_times(plain_step=9.0)  # of steps that are not captured: no match for captured ones
    cost = run._compile_cost()
    assert cost[:2] == pytest.approx((5.0, 0.001))
    assert cost.sources == ("measured", "measured")
    assert choose_gear(run.config.engine, GPU, torch.bfloat16, 5001, cost).name == "compiled_graphed"
    assert choose_gear(run.config.engine, GPU, torch.bfloat16, 4999, cost).name == "graphed"
    (key, _) = json.loads(default_path().read_text())
    for words in ("gpu Some GPU", "model small_cnn", "width 0.25", "images 64x1x8x8", "amp off", "method ce"):
        assert words in key.split(", ")
    for other in ({"width": 0.5}, {"batch_size": 32}, {"model": "resnet18"}, {"loader": "torch"}):
        different = make_run(**other)
        different.device = GPU
        assert different._compile_cost().sources == ("assumed", "assumed"), other
    for asked in ({"gear": "eager"}, {"compile": "on"}):
        decided = make_run(**asked)
        decided.device = GPU
        assert decided._compile_cost() == UNKNOWN_NETWORK


@pytest.mark.parametrize(("place", "left"), [((1, 0), 12), ((2, 3), 5), ((4, 0), 0)])
def test_a_resumed_run_counts_the_steps_to_go(
    place: tuple[int, int], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int | None] = []

    def choose(config: Any, device: Any, amp: Any, steps: int | None = None, cost: Any = None) -> Any:
        counted.append(steps)
        return choose_gear(config, device, amp, steps)

    monkeypatch.setattr("fastnoise.engine.trainer.choose_gear", choose)
    config = recipe("ce", "digits").replace({"limit_train": 200, "epochs": 3, "width": 0.25})  # 4 batches an epoch
    Single(config, load_data(config), CPU, Console(quiet=True), {"epoch": place[0], "batch": place[1]})
    assert counted == [left]


@pytest.mark.parametrize("gear", ["eager", "compiled"])
def test_a_run_measures_its_steps(gear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, float] = {}
    monkeypatch.setattr(Single, "_keep_times", lambda self, **seconds: kept.update(seconds))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    config = recipe("ce", "digits").replace({"limit_train": 200, "epochs": 3, "width": 0.25, "gear": gear})
    said = io.StringIO()
    summary = train(config.replace({"run_dir": str(tmp_path / "run")}), console=Console(file=said, width=200))
    found = summary["throughput"]
    assert found["gear"] == gear
    assert 0 < found["step_seconds"] < found["training_seconds"]
    if gear == "eager":
        assert kept == {"plain_step": found["step_seconds"]}
    else:
        assert kept["compiled_step"] == found["step_seconds"]
        assert f"first step, with compilation: {kept['compiling']:.1f} s" in said.getvalue()


@pytest.mark.parametrize("method", ["ce", "gce"])
def test_times_of_fused_steps_are_kept_apart(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    config = recipe(method, "digits")
    made = create_method(config.method, num_samples=8, num_classes=10)

    def words(**options: str) -> set[str]:
        key = steps_key(config.replace(options), made, SMALL, torch.bfloat16, GPU, "resident", True)
        return set(key.split(", "))

    assert words(fused_norm="on") - words() == {"norm fused"}
    assert words(fused_head="on") - words() == ({"head fused"} if method == "ce" else set())
