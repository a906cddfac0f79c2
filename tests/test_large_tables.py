"""Checkpoints of runs whose target tables are large: files of their own, written beside the steps."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from _train_cases import assert_same_end, history

import fastnoise
from fastnoise.config import RunConfig
from fastnoise.engine import RunFolder, background, checkpoint
from fastnoise.engine.step import Step
from fastnoise.engine.trainer import Training
from fastnoise.errors import CheckpointError, ConfigError
from fastnoise.recipes import recipe

CPU = torch.device("cpu")


def configured(run: Path, method: str = "elr", **fields: Any) -> RunConfig:
    small = {"limit_train": 200, "epochs": 3, "width": 0.25, "batch_size": 64, "save_every": 1, "device": "cpu"}
    return recipe(method, "digits", "symmetric:0.4").replace({**small, "run_dir": str(run), **fields})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table is a large one."""
    monkeypatch.setattr(checkpoint, "APART", 0)


def stop_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends by an error at the start of an epoch, once."""
    before = Training._epoch

    def begin(self: Training, epoch: int, *rest: Any) -> Any:
        if epoch == number:
            monkeypatch.setattr(Training, "_epoch", before)
            raise OSError("pulled the plug")
        return before(self, epoch, *rest)

    monkeypatch.setattr(Training, "_epoch", begin)


def saved(run: Path) -> dict[str, Any]:
    state = RunFolder(run).read_checkpoint(CPU)
    assert state is not None
    return state


def table(run: Path) -> torch.Tensor:
    state = saved(run)
    file = Path(state["parts"]).parent / state["tables"] / "tables-0-of-1.pt"
    found: torch.Tensor = torch.load(file, weights_only=True)["method"]["criterion.targets"]
    return found


def assert_same_parts(run: Path, other: Path) -> None:
    """As `assert_same_end`, where both ended with large tables."""
    assert history(run) == history(other)
    assert torch.equal(table(run), table(other))
    for part in ("networks", "method"):
        for name, tensor in saved(run)[part].items():
            assert torch.equal(tensor, saved(other)[part][name]), name


@pytest.mark.parametrize(("method", "dtype"), [("elr", "float32"), ("elr", "bfloat16"), ("plc", "float32")])
def test_a_run_with_large_tables_goes_on_as_if_undisturbed(
    method: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"target_dtype": dtype} | ({"warm_up": 0} if method == "plc" else {})
    fastnoise.train(configured(tmp_path / "whole", method, **fields))
    monkeypatch.setattr(checkpoint, "APART", 0)
    stop_in_epoch(3, monkeypatch)
    cut = configured(tmp_path / "cut", method, **fields)
    with pytest.raises(OSError, match="pulled the plug"):
        fastnoise.train(cut)
    assert not RunFolder(tmp_path / "cut").checkpoint.exists()
    assert saved(tmp_path / "cut")["epoch"] == 3
    fastnoise.train(cut, resume=True)
    monkeypatch.setattr(checkpoint, "APART", 1 << 60)
    again = configured(tmp_path / "cut", method, **fields, epochs=4)  # and from a folder to a file
    fastnoise.train(again, resume=True)
    assert not RunFolder(tmp_path / "cut").checkpoints.exists()
    fastnoise.train(configured(tmp_path / "whole", method, **fields, epochs=4), resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.usefixtures("large")
def test_the_rows_are_those_of_the_checkpoints_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the first epoch is written only after steps of the second, and holds what the first has left."""
    once = configured(tmp_path / "once", epochs=1)
    fastnoise.train(once)
    write, steps, gone_on = checkpoint._write, [0], threading.Event()
    before = Step.train

    def train(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        found = before(self, images, index)
        steps[0] += 1
        if steps[0] == 6:  # of 4 in each epoch
            gone_on.set()
        return found

    def late(parts: Path, files: Any) -> None:
        assert gone_on.wait(60)
        write(parts, files)

    monkeypatch.setattr(checkpoint, "_write", late)
    monkeypatch.setattr(Step, "train", train)
    stop_in_epoch(3, monkeypatch)
    monkeypatch.setattr(checkpoint.Checkpoints, "settle_if_written", lambda self: None)
    run = configured(tmp_path / "run", save_every=5)
    monkeypatch.setattr("fastnoise.engine.trainer.SaveClock.due_after", lambda self, epoch: epoch == 1)
    with pytest.raises(OSError, match="pulled the plug"):
        fastnoise.train(run)
    assert steps[0] == 8
    state = saved(tmp_path / "run")
    assert (state["epoch"], len(state["history"])) == (2, 1)
    assert torch.equal(table(tmp_path / "run"), table(tmp_path / "once"))
    expected = saved(tmp_path / "once")
    for name, tensor in expected["networks"].items():
        assert torch.equal(state["networks"][name], tensor), name


@pytest.mark.usefixtures("large")
def test_a_full_disk_in_the_background_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = checkpoint._write, [0]

    def full(parts: Path, files: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise CheckpointError("cannot write tables-0-of-1.pt: No space left on device")
        write(parts, files)

    run = configured(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(CheckpointError, match="No space left"):
            fastnoise.train(run)
    assert saved(tmp_path / "run")["epoch"] == 2
    fastnoise.train(configured(tmp_path / "whole"))
    fastnoise.train(run, resume=True)
    assert_same_parts(tmp_path / "whole", tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"4-0", "latest"}


def test_tables_are_written_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = configured(tmp_path / "run", epochs=6, save_tables_every=3)
    stop_in_epoch(4, monkeypatch)
    with pytest.raises(OSError, match="pulled the plug"):
        fastnoise.train(run)
    state = saved(tmp_path / "run")
    assert (state["epoch"], state["tables"]) == (4, "2-0")
    folders = tmp_path / "run" / "checkpoints"
    assert {path.name for path in folders.iterdir()} == {"2-0", "4-0", "latest"}
    fastnoise.train(configured(tmp_path / "once", epochs=1, save_tables_every=3))
    assert torch.equal(table(tmp_path / "run"), table(tmp_path / "once"))
    fastnoise.train(run, resume=True)
    state = saved(tmp_path / "run")
    assert (state["epoch"], state["tables"]) == (7, "7-0")
    assert {path.name for path in folders.iterdir()} == {"7-0", "latest"}
    with pytest.raises(ConfigError, match="--save-tables-every 3: method ce keeps no targets"):
        fastnoise.train(configured(tmp_path / "ce", "ce", save_tables_every=3))


@pytest.mark.usefixtures("large")
def test_a_damaged_table_is_refused_and_an_older_form_is_read(tmp_path: Path) -> None:
    whole = configured(tmp_path / "whole")
    fastnoise.train(whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "old")
    file = tmp_path / "whole" / "checkpoints" / "4-0" / "tables-0-of-1.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tables-0-of-1\.pt is truncated or damaged"):
        fastnoise.train(whole.replace({"epochs": 4}), resume=True)
    folder = tmp_path / "old" / "checkpoints" / "4-0"  # with the tables in the part
    part = torch.load(folder / "part-0-of-1.pt", weights_only=True)
    before = torch.load(folder / "tables-0-of-1.pt", weights_only=True)["method"]
    torch.save({**part, "method": {**part["method"], **before}}, folder / "part-0-of-1.pt")
    state = torch.load(folder / "state.pt", weights_only=True)
    del state["tables"]
    torch.save(state, folder / "state.pt")
    (folder / "tables-0-of-1.pt").unlink()
    fastnoise.train(whole.replace({"epochs": 4, "run_dir": str(tmp_path / "old")}), resume=True)
    fastnoise.train(configured(tmp_path / "straight"))
    fastnoise.train(configured(tmp_path / "straight", epochs=4), resume=True)
    assert_same_parts(tmp_path / "straight", tmp_path / "old")


@pytest.mark.usefixtures("large")
def test_without_memory_for_a_copy_training_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(background, "free_memory", lambda device: 1000)
    monkeypatch.setattr(background.Background, "begin", None)
    fastnoise.train(configured(tmp_path / "run"))
    said = " ".join(capsys.readouterr().out.split())
    assert "training waits while a checkpoint is written: a copy of the tables takes 8.0 kB, and 1.0 kB are" in said
    assert saved(tmp_path / "run")["epoch"] == 4


def test_a_folder_that_was_removed_in_part_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was killed after it had written the file that takes the folder's place."""
    run = configured(tmp_path / "run", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "APART", 0)
        fastnoise.train(run)
    folder = tmp_path / "run" / "checkpoints"
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: (path / "2-0" / "state.pt").unlink())
    fastnoise.train(run.replace({"epochs": 2}), resume=True)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert (folder / "2-0").is_dir()
    assert saved(tmp_path / "run")["epoch"] == 3
    fastnoise.train(run.replace({"epochs": 3}), resume=True)
    assert not folder.exists()
    fastnoise.train(configured(tmp_path / "whole", epochs=1))
    for epochs in (2, 3):
        fastnoise.train(configured(tmp_path / "whole", epochs=epochs), resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "run")
