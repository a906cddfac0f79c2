"""What a cleaning leaves: labels in the order of the data set, and a corrected data set that training takes."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _review_cases import made_cleaning, picture

from fastnoise.cleaning.decisions import Decision, DecisionLog
from fastnoise.cleaning.pool import load_judged
from fastnoise.cleaning.review import DECISIONS, FINDING, SETTINGS
from fastnoise.cli import main
from fastnoise.data import ImageDataset, load_dataset
from fastnoise.recipes import recipe

CLASSES = ("a cat", "dög", "owl")
SMALL = ["--model", "small_cnn", "--width", "0.25", "--epochs", "1", "--loader", "torch", "--image-size", "16"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def true(path: Path) -> str:
    """The right class of a file, which its name begins with."""
    return path.name.partition("-")[0]


def fill(folder: Path, count: int, first: int = 0) -> None:
    """Class folders, of whose images every fifth is of the next class."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            shape = (label + (number % 5 == 0)) % 3
            picture(shape, number, (24, 24)).save(folder / name / f"{CLASSES[shape]}-{label}{number:02}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos", 10)
    return tmp_path / "photos"


@pytest.fixture
def cleaned(photos: Path, tmp_path: Path) -> Path:
    return made_cleaning(photos, tmp_path / "cleaned", true)


def decide(cleaned: Path, **labels: str) -> None:
    log = DecisionLog(cleaned / DECISIONS)
    for file, label in labels.items():
        log.append(Decision.now(file, label))
    log.close()


def trained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["train", "--method", "ce", *SMALL, *words]) == 0
    return capsys.readouterr().out


def test_labels_stand_in_the_order_of_the_data_set(photos: Path, cleaned: Path) -> None:
    """Images that a training run would hold out too, which are of no part that the user made."""
    files = [f"{label}/{path.name}" for label in CLASSES for path in sorted((photos / label).iterdir())]
    found = rows(cleaned / "labels.csv")
    assert [row["file"] for row in found] == files
    assert [row["given"] for row in found] == [file.partition("/")[0] for file in files]
    assert {row["split"] for row in found} == {"train"}
    assert list(rows(cleaned / "corrected.csv")[0]) == ["file", "path", "label"]
    assert {path.name for path in (cleaned / "corrected").iterdir()} == set(CLASSES)


def test_parts_of_the_users_own_stay(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(tmp_path / "photos" / part, 5, 5 * number)
    cleaned = made_cleaning(tmp_path / "photos", tmp_path / "cleaned", true)
    found = rows(cleaned / "labels.csv")
    assert [row["split"] for row in found] == ["train"] * 15 + ["validation"] * 15 + ["test"] * 15
    assert [row["split"] for row in rows(cleaned / "corrected.csv")] == [row["split"] for row in found]
    corrected = load_dataset(f"folder:{cleaned / 'corrected'}", None)
    for table in (corrected.train, corrected.validation, corrected.test):
        assert table is not None
        assert len(table) == 15
        assert [CLASSES[label] for label in table.labels] == [true(Path(name)) for name in table.names]


def test_the_corrected_data_set_is_taken_in_every_form(
    photos: Path, cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (f"folder:{cleaned}/corrected", f"list:{cleaned}/corrected.csv"):
        dataset = load_dataset(name, None)
        names = [*dataset.train.names, *dataset.test.names]
        labels = [*dataset.train.labels, *dataset.test.labels]
        assert [dataset.class_names[label] for label in labels] == [true(Path(name)) for name in names]
        assert len(names) == 30
    said = trained(
        capsys, "--dataset", f"folder:{photos}", "--labels", f"{cleaned}/corrected.csv", "--run-dir", "by_labels"
    )
    assert "labels of corrected.csv: matched by the ends of paths" in said
    trained(capsys, "--dataset", f"list:{cleaned}/corrected.csv", "--run-dir", "by_list")


def test_labels_of_a_data_set_with_parts_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, part in enumerate(("train", "val", "test")):
        fill(tmp_path / "photos" / part, 5, 5 * number)
    made_cleaning(tmp_path / "photos", tmp_path / "cleaned", true)
    said = trained(capsys, "--dataset", "folder:photos", "--labels", "cleaned/corrected.csv", "--run-dir", "run")
    assert "labels of corrected.csv: matched by the ends of paths" in said


def test_decisions_are_in_the_corrected_data_set(
    photos: Path, cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = rows(cleaned / "suspects.csv")
    rejected, other = suspects[0], suspects[1]
    third = next(name for name in CLASSES if name not in (other["given"], other["suggested"]))
    decide(cleaned, **{rejected["file"]: rejected["given"], other["file"]: third})
    assert main(["review", str(cleaned), "--apply"]) == 0
    assert f"2 labels are decided, in {cleaned}/decisions.log; corrected" in capsys.readouterr().out
    found = {row["file"]: row for row in rows(cleaned / "corrected.csv")}
    for file, row in found.items():
        expected = {rejected["file"]: rejected["given"], other["file"]: third}.get(file, true(Path(file)))
        assert row["label"] == expected
        assert row["clean_label"] == (expected if file in (rejected["file"], other["file"]) else "-1")
        assert (cleaned / "corrected" / expected / Path(file).name).is_symlink()
    assert len(list((cleaned / "corrected").rglob("*.png"))) == 30
    said = trained(
        capsys, "--dataset", f"folder:{photos}", "--labels", f"{cleaned}/corrected.csv", "--run-dir", "by_labels"
    )
    assert "matched by the ends of paths" in said
    by_list = load_dataset(f"list:{cleaned}/corrected.csv", None)
    assert by_list.clean_labels is not None or (by_list.test_given is not None)
    decide(cleaned, **{rejected["file"]: rejected["suggested"]})
    assert main(["review", str(cleaned), "--apply"]) == 0
    found = {row["file"]: row for row in rows(cleaned / "corrected.csv")}
    assert found[rejected["file"]]["label"] == rejected["suggested"]


def test_given_labels_of_held_out_images_are_judged_and_not_the_known_ones(photos: Path, tmp_path: Path) -> None:
    """Of a list with true labels the test images, which are drawn, have these in training."""
    files = [path for label in CLASSES for path in sorted((photos / label).iterdir())]
    for known in (len(files), 15):
        lines = [f"{path},{path.parent.name},{true(path) if place < known else ''}" for place, path in enumerate(files)]
        sheet = tmp_path / f"{known}.csv"
        sheet.write_text("\n".join(["path,label,clean_label", *lines]) + "\n", encoding="utf-8")
        config = recipe("elr", f"list:{sheet}", "none", model="small_cnn").replace({"val_fraction": 0.0})
        judged = load_judged(config)
        classes = judged.data.class_names
        assert judged.names == tuple(map(str, files))
        assert [classes[label] for label in judged.given] == [path.parent.name for path in files]
        if known == len(files):
            assert judged.truth is not None
            assert [classes[label] for label in judged.truth] == [true(path) for path in files]
        else:
            assert judged.truth is None
            assert [classes[label] for label in judged.known[:known]] == list(map(true, files[:known]))
            assert (judged.known[known:] < 0).all()


@pytest.mark.parametrize("tested", [True, False])
def test_known_labels_of_validation_and_test_images_are_used(tested: bool, photos: Path, tmp_path: Path) -> None:
    """Every second line of each part has its true label; without test images those for validation are both."""
    files = [path for label in CLASSES for path in sorted((photos / label).iterdir())]
    parts = ("train", "val", "test") if tested else ("train", "val", "train")
    rows_of = [(path, parts[place % 3], place % 2 == 0) for place, path in enumerate(files)]
    lines = [f"{path},{path.parent.name},{true(path) if known else ''},{part}" for path, part, known in rows_of]
    sheet = tmp_path / "list.csv"
    sheet.write_text("\n".join(["path,label,clean_label,split", *lines]) + "\n", encoding="utf-8")
    judged = load_judged(recipe("elr", f"list:{sheet}", "none", model="small_cnn"))
    classes = judged.data.class_names
    known_of = {str(path): true(path) if known else None for path, _, known in rows_of}
    assert set(judged.names) == set(known_of)
    assert judged.truth is None
    for name, given, label in zip(judged.names, judged.given, judged.known, strict=True):
        assert classes[given] == Path(name).parent.name
        assert (None if label < 0 else classes[label]) == known_of[name]


def test_arrays_are_judged_in_their_order() -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (50, 8, 8), np.uint8), random.integers(0, 3, 50)
    dataset = ImageDataset.from_arrays(images, labels)
    assert dataset.train.origin is not None
    assert dataset.test.origin is not None
    assert sorted([*dataset.train.origin, *dataset.test.origin]) == list(range(50))


def damage(cleaned: Path, name: str, content: str | None) -> None:
    if content is None:
        (cleaned / name).unlink()
    else:
        (cleaned / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        (FINDING, None, (), "no finished cleaning here; give the --out of fastnoise clean"),
        (FINDING, "{}", (), "is damaged (KeyError"),
        (FINDING, "[]", (), "is damaged (TypeError"),
        (FINDING, "{", (), "is damaged (JSONDecodeError"),
        (SETTINGS, None, (), "is damaged (FileNotFoundError"),
        (SETTINGS, '{"method": "elr", "epochs": "many"}', (), "epochs"),
        (SETTINGS, '{"method": "nosuch"}', (), "nosuch"),
        (SETTINGS, "[1]", (), "is damaged (AttributeError"),
        ("suspects.csv", None, (), "is damaged (FileNotFoundError"),
        ("suspects.csv", "a,b\n1,2\n", (), "is damaged (KeyError"),
        ("labels.csv", None, ("--apply",), "labels.csv is damaged (FileNotFoundError)"),
        ("labels.csv", "file,given,suggested,suspected\nx,owl,owl,0\n", ("--apply",), "labels.csv has no line for"),
        ("labels.csv", "file,given,suggested,suspected\nx,cow,owl,0\n", ("--apply",), "labels.csv has no line for"),
        (DECISIONS, "nonsense\nmore\nhalf", (), "decisions.log: line 1 is damaged; restore the file"),
        (DECISIONS, "", ("--port", "70000"), "--port must be from 0 to 65535, not 70000"),
        (DECISIONS, "", ("--port", "x"), "--port"),
        (DECISIONS, "", ("--nosuch",), "unknown option --nosuch"),
    ],
)
def test_what_cannot_be_reviewed_is_one_line(
    name: str,
    content: str | None,
    words: tuple[str, ...],
    message: str,
    cleaned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(cleaned, name, content)
    assert refused(capsys, "review", str(cleaned), *words).count(message) == 1


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_other_things_that_prevent_a_review_are_one_line(
    photos: Path, cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port}: Address already in use" in refused(capsys, "review", str(cleaned), "--port", port)
    assert "no finished cleaning here" in refused(capsys, "review", str(tmp_path / "nowhere"))
    assert "no finished cleaning here" in refused(capsys, "review", str(photos))
    decide(cleaned, **{"owl/gone.png": "cow"})
    assert "has no such class" in refused(capsys, "review", str(cleaned), "--apply")
    shutil.move(photos, tmp_path / "moved")
    assert f"{photos} is not a folder" in refused(capsys, "review", str(cleaned))


def test_code_that_a_cleaning_names_is_not_run(
    cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine: Any = tmp_path / "mine.py"
    mine.write_text("raise SystemExit('was run')\n")
    damage(cleaned, SETTINGS, f'{{"method": "elr", "dataset": "{mine}:photos"}}')
    line = refused(capsys, "review", str(cleaned))
    assert f"fastnoise runs only code that you name; if you trust it, add --dataset {mine}:photos" in line
