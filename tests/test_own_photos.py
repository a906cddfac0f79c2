"""Photos of one's own through the commands: what is left out, odd names, and the words of lines."""

import contextlib
import csv
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastnoise.cleaning.verdict import Verdict
from fastnoise.cli import main
from fastnoise.data import load_dataset
from fastnoise.data.names import located, read_options
from fastnoise.engine.payback import StepTimes, Times
from fastnoise.errors import ConfigError, DataError
from fastnoise.files import cache_folder
from fastnoise.noise import NoisyLabels
from fastnoise.noise.files import read_label_file
from fastnoise.tasks.names import numbers
from fastnoise.texts import counted, printable

CLASSES = ("cat", "dog")
TRAIN = ("train", "--method", "ce", "--model", "small_cnn", "--batch-size", "4", "--width", "0.25", "--loader", "torch")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photos(folder: str = "photos", count: int = 10) -> None:
    for label, name in enumerate(CLASSES):
        Path(folder, name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(10 * number + label).integers(0, 100, (12, 12, 3), np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(Path(folder, name, f"{number}.png"))


def said(*words: str, code: int = 0) -> str:
    """What a command prints, and on an error its one line."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        assert main(list(words)) == code, out.getvalue() + error.getvalue()
    if code == 2:
        (line,) = error.getvalue().splitlines()
        return line
    return out.getvalue()


def test_words_for_counts() -> None:
    assert [counted(count, "image") for count in (0, 1, 2, 2000)] == ["0 images", "1 image", "2 images", "2000 images"]
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(3, "batch", "batches") == "3 batches"
    assert printable("a\nb\r\nc\udcff") == "a b c\ufffd"


def test_unreadable_images_are_left_out_by_every_command_that_reads_a_data_set() -> None:
    photos()
    said(*TRAIN, "--dataset", "folder:photos", "--run-dir", "run", "--epochs", "1")
    Path("photos/cat/3.png").write_bytes(Path("photos/cat/3.png").read_bytes()[:50])
    commands = {
        "evaluate": ["evaluate", "run", "folder:photos", "--split", "all"],
        "corrupt": ["corrupt", "--dataset", "folder:photos", "--noise", "symmetric:0.3", "--out", "noisy.npz"],
        "inspect": ["inspect", "noisy.npz", "--dataset", "folder:photos"],
    }
    for name, words in commands.items():
        assert "cannot read 1 of 20 images" in said(*words, code=2) or name == "inspect"
        found = said(*words, "--skip-unreadable")
        assert "left out 1 unreadable image: cat/3.png" in found
        if name == "evaluate":
            assert "run on 19 images of folder:photos" in found
    noisy = NoisyLabels.load(Path("noisy.npz"))
    assert noisy.names is not None
    assert "cat/3.png" not in noisy.names
    again = said(
        *(*TRAIN, "--epochs", "1", "--dataset", "folder:photos", "--labels", "noisy.npz"),
        *("--skip-unreadable", "--run-dir", "again"),
    )
    assert "left out 1 unreadable image: cat/3.png" in again
    for words in (commands["corrupt"], ["evaluate", "run"], ["inspect", "noisy.npz"]):
        wanted = [word.replace("folder:photos", "digits") for word in words]
        wanted += ["digits"] if words[0] == "evaluate" else []
        line = said(*wanted, "--skip-unreadable", code=2)
        assert "--skip-unreadable is for" in line


def test_a_cleaning_that_was_refused_leaves_no_folder() -> None:
    """So that the call that its message asks for is not refused for the other one's settings."""
    photos(count=3)
    words = ["clean", "folder:photos", "--model", "small_cnn"]
    assert "--folds 50: there are 6 images" in said(*words, "--folds", "50", code=2)
    Path("photos/cat/1.png").write_bytes(b"no image")
    assert "leave them out by --skip-unreadable" in said(*words, "--folds", "2", code=2)
    assert not Path("cleaned/photos").exists()
    assert "--folds 50: there are 5 images" in said(*words, "--folds", "50", "--skip-unreadable", code=2)


def test_names_with_line_breaks_take_one_line() -> None:
    """They are in the CSV as they are, and on the screen with a space."""
    photos(count=3)
    Path("photos/cat/0.png").rename("photos/cat/a\nb.png")
    Path("photos/dog/no\nimage.png").write_text("text")
    Path("photos/dog/note\nof.txt").write_text("text")
    Path("photos/do\nor").mkdir()
    Path("photos/do\nor/1.png").write_bytes(Path("photos/cat/a\nb.png").read_bytes())
    found = said("check", "folder:photos", "--out", "found.csv", code=1)
    assert "\n  dog/no image.png: " in found
    assert "cat/a b.png (cat), do or/1.png (do or)" in found
    assert "left out 1 file (1 .txt): dog/note of.txt" in found
    assert "classes: cat 3, do or 1, dog 4" in found
    with open("found.csv", newline="", encoding="utf-8") as stream:
        assert "dog/no\nimage.png" in {row["name"] for row in csv.DictReader(stream)}
    assert all(line.startswith(("  ", "folder:", "parts", "classes", "left", "sizes", "unreadable", "exact", "near",
                                "cache", "written")) for line in found.splitlines())  # fmt: skip


def test_a_run_says_once_what_its_test_labels_are(tmp_path: Path) -> None:
    """And its mean over epochs what it is of: ten, or all of fewer."""
    from fastnoise.report import write_report

    photos()
    folder = said(*TRAIN, "--dataset", "folder:photos", "--run-dir", "run", "--epochs", "2")
    words = "on given labels, of which some may be wrong"
    assert folder.count(words) == 1
    assert "test accuracy, mean of all 2 epochs" in folder
    assert write_report(Path("run")).read_text().count(words) == 1
    files = sorted(path for path in Path("photos").rglob("*.png"))
    for known, expected in ((20, ""), (10, "on true labels where they are known, else on given ones")):
        lines = [
            f"{path},{path.parent.name},{path.parent.name if place < known else ''},{'test' if place % 2 else 'train'}"
            for place, path in enumerate(files)
        ]
        Path("list.csv").write_text("\n".join(["path,label,clean_label,split", *lines]) + "\n")
        listed = said(*TRAIN, "--dataset", "list:list.csv", "--run-dir", f"run{known}", "--epochs", "1")
        assert words not in listed
        assert ("else on given ones" in listed) == bool(expected)
        assert "mean of" not in listed
    small = ["--limit-train", "64", "--width", "0.25", "--epochs", "10"]
    digits = said("train", "--method", "ce", "--dataset", "digits", *small, "--run-dir", "digits")
    assert "given labels, of which" not in digits
    assert "test accuracy, mean of the last ten" in digits


# -- what libraries and systems do ----------------------------------------------------------------------------------


def test_warnings_of_pillow_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first start and in later ones, which decode nothing; training and the others show none."""
    photos(count=4)
    exif = Image.Exif()
    exif[0x010F] = "a camera whose name takes more than four bytes"
    with Image.open("photos/cat/1.png") as image:
        image.save("photos/cat/1.jpg", exif=exif.tobytes()[:-60])
    Image.new("RGB", (120, 120), "white").save("photos/dog/large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    for _ in range(2):
        process = ["check", "folder:photos"]
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            assert main(process) == 0
        assert error.getvalue() == ""
        (line,) = [line for line in out.getvalue().splitlines() if "Pillow" in line]
        assert line.startswith("Pillow warns of 2 images, used as decoded: cat/1.jpg (")
    train = ["train", "--method", "ce", "--dataset", "folder:photos", "--model", "small_cnn", "--batch-size", "4"]
    with warnings.catch_warnings(record=True) as shown:
        trained = said(*train, "--epochs", "1", "--width", "0.25", "--loader", "torch", "--run-dir", "run")
        said("predict", "run", "photos/dog/large.png")
    assert not [each for each in shown if "PIL" in each.filename]
    assert trained.count("Pillow warns of 2 images, used as decoded") == 1


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run under a number: no HOME, and no entry in the list of users."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    photos(count=3)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    assert cache_folder() is None
    assert "each start decodes all files" not in said("check", "folder:photos")
    times = StepTimes()
    assert times.read("key") == (Times(), "")
    assert times.count() == 0
    assert times.write("key", plain_step=1.0).endswith("the user has no home; set XDG_CACHE_HOME to a folder")
    monkeypatch.setattr("fastnoise.data.scan._save", lambda *more: False)
    Path("photos/.fastnoise-files.npz").unlink()
    line = "each start decodes all files: neither the data's folder nor ~/.cache takes a cache of theirs"
    assert said("check", "folder:photos").count(line) == 1


def test_labels_in_bfloat16_are_read_and_other_tensors_named(tmp_path: Path) -> None:
    torch.save({"labels": torch.tensor([1.0, 0.0, 2.0], dtype=torch.bfloat16)}, "half.pt")
    assert read_label_file("half.pt:labels").values.tolist() == [1, 0, 2]
    torch.save({"labels": torch.tensor([1, 0]).to_sparse()}, "sparse.pt")
    with pytest.raises(DataError, match=r"sparse\.pt: a tensor of int64, torch\.sparse_coo, which NumPy has no form"):
        read_label_file("sparse.pt:labels")


@pytest.mark.parametrize("written", ["a, b.csv", "a\\, b.csv"])
def test_paths_with_commas(written: str) -> None:
    photos("p", 2)
    Path("a, b.csv").write_text("path,angle\np/cat/0.png,1.5\np/dog/1.png,2.5\n")
    Path("c,d").mkdir()
    Path("c,d/e,f=g.csv").write_text("path,angle\n../p/cat/1.png,1.5\n")
    name = f"values:train={written},test=c\\,d/e\\,f=g.csv"
    assert read_options(name) == {"train": "a, b.csv", "test": "c,d/e,f=g.csv"}
    dataset = load_dataset(name, None)
    assert (len(dataset.train), len(dataset.test)) == (2, 1)
    there = located(name)
    assert read_options(there) == {key: str(Path(path).absolute()) for key, path in read_options(name).items()}
    assert located(there) == there
    with pytest.raises(ConfigError, match="no option 'tset'; did you mean 'test'"):
        read_options("values:train=a.csv,tset=b.csv")
    assert read_options("values:train=a.csv,")["train"] == "a.csv"


def test_a_verdict_is_shown_in_a_line() -> None:
    zeros = np.zeros(2000)
    verdict = Verdict(zeros, np.linspace(0, 1, 2000), zeros.astype(int), 0.25, (0.2, 0.3), *[np.eye(3)] * 3, 0.9, ())
    assert repr(verdict) == (
        "Verdict(2000 labels of 3 classes: rate 25.0 %, 95 % interval 20.0 % to 30.0 %, 1000 suspected)"
    )


def test_numbers_of_nested_figures() -> None:
    figures = {"a": 1, "b": {"c": 2.5, "d": "text", "seed": 3}, "e": [4, {"f": 5}], "g": True, "h": None}
    assert dict(numbers(figures)) == {"a": 1, "b/c": 2.5, "b/seed": 3, "e/0": 4, "e/1/f": 5}
    assert dict(numbers(figures, "_", lists=False, without={"b_seed"})) == {"a": 1, "b_c": 2.5}
