"""Input as it comes: unknown home folders, rings of links, pipes among stored files, labels that are no class."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastnoise.cli import main
from fastnoise.data import load_dataset
from fastnoise.engine import RunFolder
from fastnoise.errors import CheckpointError, ConfigError, DataError
from fastnoise.files import stored_json
from fastnoise.noise import NoisyLabels
from fastnoise.recipes import recipe
from fastnoise.report.stored import read_run
from fastnoise.tasks import find_task


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    for number, name in enumerate(("cat", "dog")):
        Path("d", name).mkdir(parents=True)
        for image in range(5):
            pixels = np.random.default_rng(5 * number + image).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"d/{name}/{image}.png")


@pytest.mark.parametrize("words", [["check"], ["train", "--dataset"]])
@pytest.mark.parametrize("form", ["folder", "list"])
def test_the_home_of_an_unknown_user_is_one_line(
    words: list[str], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, f"{form}:~no-such-user/photos"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "~no-such-user/photos" in said


def test_rings_of_links_are_left_out_and_named() -> None:
    for ring in ("d/ring", "d/cat/ring"):
        os.symlink("ring", ring)
    dataset = load_dataset("folder:d", None)
    assert dataset.class_names == ("cat", "dog")
    assert any("cat/ring" in note and "ring" in note for note in dataset.notes)


def listed(label: str, name: str = "d/cat/0.png") -> None:
    rows = [f"d/{kind}/{number}.png,{kind}" for kind in ("cat", "dog") for number in range(5)]
    rows[0] = f"{name},{label}"
    Path("l.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def test_a_list_refuses_an_unknown_label_among_names_and_a_name_that_no_system_takes() -> None:
    listed("-1")
    with pytest.raises(DataError, match="line 2: the label '-1' is below 0"):
        load_dataset("list:l.csv", None)
    listed("cat", "n" * 300 + ".png")
    with pytest.raises(DataError, match=r"1 of 10 files are missing .* in line 2"):
        load_dataset("list:l.csv", None)


def test_a_single_class_names_its_data_set() -> None:
    Path("one").mkdir()
    os.rename("d/cat", "one/cat")
    with pytest.raises(ConfigError, match=r"^folder:one: a classifier needs at least 2 classes, not 1"):
        find_task("classification").of(load_dataset("folder:one", None))


def test_pipes_among_stored_files_are_not_waited_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    files = (folder.config, folder.environment, folder.labels, folder.checkpoint, folder.summary, folder.metrics)
    for file in files:
        os.mkfifo(file)
    with pytest.raises(CheckpointError, match=r"config\.toml is damaged"):
        folder.read_fields()
    with pytest.raises(CheckpointError, match=r"environment\.json is damaged"):
        folder.add_environment({})
    with pytest.raises(DataError, match="it is no regular file"):
        NoisyLabels.load(folder.labels)
    with pytest.raises(CheckpointError, match=r"summary\.json is damaged"):
        folder.read_summary()
    found = read_run(tmp_path)
    assert sum("it is no regular file" in problem for problem in found.problems) == 5


def test_a_stored_document_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        stored_json(tmp_path / "deep.json")


def test_two_runs_that_start_at_once_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("ce", "digits")
    first = RunFolder.create(config).path
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as the other process saw it before the first made it
    assert RunFolder.create(config).path == first.with_name(first.name + "-2")
