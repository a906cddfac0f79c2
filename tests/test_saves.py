"""When checkpoints are written: by epochs, by time, and by what they take; at the end of an epoch and inside one."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from _train_cases import Killed, assert_same_end, noted
from rich.console import Console

from fastnoise.config import RunConfig
from fastnoise.engine import RunFolder, saves, train
from fastnoise.engine.saves import FIRST, SHARE, SaveClock
from fastnoise.engine.stacked import train_stacked
from fastnoise.engine.trainer import Training
from fastnoise.recipes import recipe
from fastnoise.schedules import SaveEvery

QUIET = Console(quiet=True)


class Clock:
    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(saves, "time", made)
    return made


def write(clock: Clock, saved: SaveClock, seconds: float) -> None:
    with saved.writing():
        clock.now += seconds


def test_by_epochs(clock: Clock) -> None:
    saved = SaveClock(SaveEvery.parse(3))
    assert [epoch for epoch in range(1, 10) if saved.due_after(epoch)] == [3, 6, 9]
    clock.now += 1e6
    assert not saved.due()


def test_by_time(clock: Clock) -> None:
    saved = SaveClock(SaveEvery.parse("1m"))
    for _ in range(3):
        clock.now += 59.9
        assert not saved.due()
        assert not saved.due_after(1)
        clock.now += 0.1
        assert saved.due()
        assert saved.due_after(1)
        write(clock, saved, 10.0)  # from the end of which the time counts


def test_by_what_they_take(clock: Clock) -> None:
    saved = SaveClock(SaveEvery.parse("auto"))
    assert saved.due_after(1)  # the first epoch, whatever it took
    assert not saved.due()
    clock.now += FIRST
    assert saved.due()
    for seconds in (0.01, 0.5, 20.0):
        write(clock, saved, seconds)
        clock.now += 0.99 * seconds / SHARE
        assert not saved.due()
        assert not saved.due_after(7)
        clock.now += 0.02 * seconds / SHARE
        assert saved.due()
        assert saved.due_after(7)


def test_none_is_due_while_one_is_being_written(clock: Clock) -> None:
    saved, busy = SaveClock(SaveEvery.parse("auto")), [True]
    write(clock, saved, 0.1)
    saved.took(1.9)  # in the background, after the pause
    saved.occupied = lambda: busy[0]
    clock.now += 1.9 / SHARE
    busy[0] = False
    assert not saved.due()
    clock.now += 0.2 / SHARE
    busy[0] = True
    assert not saved.due()
    assert not saved.due_after(5)
    busy[0] = False
    assert saved.due()
    assert saved.due_after(5)


def quick(**changes: Any) -> RunConfig:
    return recipe("nal", "digits").replace({"limit_train": 200, "epochs": 4, "width": 0.25, **changes})


EVERYWHERE = [(epoch, batch) for epoch in range(1, 5) for batch in range(4) if (epoch, batch) != (1, 0)] + [(5, 0)]
"""After every batch of four epochs of four."""


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [(2, 0), (3, 0), (4, 0), (5, 0)]),
        (3, [(4, 0), (5, 0)]),
        ("1h", [(5, 0)]),  # the last epoch always
        ("0.000001s", EVERYWHERE),
    ],
)
def test_a_run_writes_them_when_they_are_due(
    every: int | str, expected: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = noted(monkeypatch)
    train(quick(save_every=every, run_dir=str(tmp_path / "run")), console=QUIET)
    assert places == expected


def test_auto_saves_the_first_epoch_and_seldom_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = noted(monkeypatch)
    monkeypatch.setattr(saves, "SHARE", 1e-9)
    train(quick(run_dir=str(tmp_path / "run")), console=QUIET)
    assert places == [(2, 0), (5, 0)]


@pytest.mark.parametrize(("amp", "loader"), [("off", "resident"), ("bf16", "torch")])
def test_killed_after_a_checkpoint_inside_an_epoch(
    amp: str, loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick(amp=amp, loader=loader)
    train(config.replace({"run_dir": str(tmp_path / "whole")}), console=QUIET)
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(3, 2))
        with pytest.raises(Killed):
            train(config.replace({"save_every": "0.000001s", "run_dir": str(tmp_path / "cut")}), console=QUIET)
    state = RunFolder(tmp_path / "cut").read_checkpoint(torch.device("cpu"))
    assert state is not None
    assert (state["epoch"], state["batch"]) == (3, 2)
    train(config.replace({"run_dir": str(tmp_path / "cut")}), resume=True, console=QUIET)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_what_the_device_still_has_to_do_counts_as_the_steps_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU may be hundreds of steps behind when a checkpoint is due inside an epoch: the first to read it waits."""
    original = Training._check_finite

    def after_a_while(self: Training, *given: Any) -> None:
        time.sleep(0.1)
        original(self, *given)

    monkeypatch.setattr(Training, "_check_finite", after_a_while)
    train(quick(epochs=2, save_every="0.000001s", run_dir=str(tmp_path / "run")), console=QUIET)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == 2
    assert last["images_per_second"] < 200 / 0.4  # three checkpoints and the epoch's end


def test_a_stack_writes_them_for_all_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = noted(monkeypatch)
    configs = [
        quick(epochs=2, save_every="0.000001s", seed=seed, run_dir=str(tmp_path / str(seed))) for seed in range(2)
    ]
    train_stacked(configs, console=QUIET)
    once = [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]
    assert sorted(places) == sorted(2 * once)


def test_a_run_of_earlier_versions_goes_on_by_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration has an integer, and knows nothing of the compiler's options."""
    config = quick(epochs=2, save_every=1, run_dir=str(tmp_path / "run"))
    train(config, console=QUIET)
    file = tmp_path / "run" / "config.toml"
    lines = file.read_text().splitlines()
    assert "save_every = 1" in lines
    file.write_text("\n".join(line for line in lines if not line.startswith("compile_options")))
    stored = RunFolder.open(tmp_path / "run").read_config()
    assert (stored.engine.save_every, stored.engine.compile_options) == (1, "auto")
    train(stored, resume=True, console=QUIET)
