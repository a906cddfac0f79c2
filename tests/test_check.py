"""fastnoise check, and how it tells images that are there twice."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastnoise.cli import main
from fastnoise.data.duplicates import LEAST, MOST, alike, same_content
from fastnoise.data.scan import likeness


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    """A smooth picture, as a photograph is."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def photos() -> None:
    for name in ("train/a b", "train/é", "test/é"):
        Path("d", name).mkdir(parents=True)
    for number in range(6):
        scene(number).save(f"d/train/a b/{number}.png")
        scene(100 + number).save(f"d/train/é/{number}.jpg", quality=95)
    shutil.copy("d/train/a b/0.png", "d/train/é/again.png")
    scene(1).resize((120, 80)).save("d/train/é/smaller.jpg", quality=60)
    shutil.copy("d/train/é/2.jpg", "d/test/é/leak.jpg")
    shutil.copy("d/train/é/3.jpg", "d/train/é/3 (copy).jpg")
    Path("d/train/é/cut.png").write_bytes(Path("d/train/a b/5.png").read_bytes()[:900])
    Path("d/train/a b/text.jpg").write_text("no image")


def test_all_findings_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    photos()
    assert main(["check", "folder:d", "--out", "findings.csv"]) == 1
    text = capsys.readouterr().out
    for words in (
        "folder:d: 18 images, 18 read now",
        "parts: train 17, test 1",
        "classes: a b 7, é 11",
        "unreadable: 2\n  train/a b/text.jpg: no image of a known format\n  train/é/cut.png: image file is truncated\n",
        "exact duplicates with different labels: 1 group\n  train/a b/0.png (a b), train/é/again.png (é)\n",
        "in different parts, as training and test: 1 group\n  train/é/2.jpg (é), test/é/leak.jpg (é)\n",
        "exact duplicates with one label: 1 group\n  train/é/3 (copy).jpg (é), train/é/3.jpg (é)\n",
        "near-duplicates with different labels: 1 group\n  train/a b/1.png (a b), train/é/smaller.jpg (é)\n",
        "cache: d/.fastnoise-files.npz",
    ):
        assert words in text
    with open("findings.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows if row["kind"] == "unreadable"] == ["train/a b/text.jpg", "train/é/cut.png"]
    assert {row["label"] for row in rows if row["kind"] == "near-duplicates with different labels"} == {"a b", "é"}
    assert len({row["group"] for row in rows}) == 6
    for file in ("d/train/é/cut.png", "d/train/a b/text.jpg"):
        Path(file).unlink()
    assert main(["check", "folder:d", "--show", "0"]) == 0
    text = capsys.readouterr().out
    assert "16 images, 0 read now" in text
    assert "unreadable: 0\n" in text
    assert "and 1 more; --out FILE.csv lists all" in text


def test_lists_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    photos()
    Path("l.csv").write_text("file,label,split\nd/train/a b/0.png,x,train\nd/train/é/again.png,y,test\n"
                             "d/train/é/0.jpg,y,train\n", encoding="utf-8")  # fmt: skip
    assert main(["check", "list:l.csv"]) == 0
    text = capsys.readouterr().out
    assert "exact duplicates with different labels: 1 group" in text
    assert "cache: .l.csv.fastnoise-files.npz" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a data set of files"),
        (["digits"], "folder:PATH or list:FILE.csv, not 'digits'"),
        (["d"], "not 'd'; write folder:d"),
        (["folder:"], "not 'folder:'"),
        (["folder:none"], "none is not a folder"),
        (["folder:d", "--show", "-1"], "--show and --loader-threads must be 0 or more"),
        (["folder:d", "--out", "none/x.csv"], "no such folder"),
    ],
)
def test_what_check_refuses(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d").mkdir()
    assert main(["check", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_check_imports_no_torch() -> None:
    photos()
    code = (
        "import sys; sys.modules['torch'] = None; from fastnoise.cli import main; sys.exit(main(['check', 'folder:d']))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 1


def brute_force(hashes: np.ndarray) -> set[frozenset[int]]:
    """Pairs of near-duplicates, each compared with each."""
    bits = np.unpackbits(hashes, axis=1).astype(int)
    found = set()
    for one in range(len(bits)):
        for other in range(one):
            different = int((bits[one] ^ bits[other]).sum())
            enough = min(bits[one].sum(), bits[other].sum()) >= LEAST
            if enough and different <= MOST and different <= (bits[one] | bits[other]).sum() / 16:
                found.add(frozenset((one, other)))
    return found


def test_near_duplicates_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((60, 256)) < rng.choice([0.03, 0.2, 0.5], 60)[:, None]
    copies = bits[rng.integers(0, 60, 200)].copy()
    for row in copies:
        row[rng.choice(256, rng.integers(0, 15), replace=False)] ^= True
    hashes = np.packbits(np.concatenate([bits, copies]), axis=1)
    digests = rng.integers(0, 256, (260, 16), dtype=np.uint8)
    groups = [set(group.tolist()) for group in alike(digests, hashes, np.arange(260))]
    wanted = brute_force(hashes)
    assert len(wanted) > 50
    assert all(any(pair <= group for group in groups) for pair in wanted)
    linked = {place for pair in wanted for place in pair}
    assert {place for group in groups for place in group} == linked


def test_flat_images_are_no_duplicates_of_each_other_and_equal_files_stand_for_one() -> None:
    flat = np.stack([likeness(Image.new("RGB", (20, 20), (level,) * 3)) for level in range(5)])
    digests = np.arange(5 * 16, dtype=np.uint8).reshape(5, 16)
    assert alike(digests, flat, np.arange(5)) == []
    same = np.stack([likeness(scene(1))] * 3)
    digests[1] = digests[0]
    assert [group.tolist() for group in same_content(digests, np.arange(3))] == [[0, 1]]
    assert [group.tolist() for group in alike(digests, same, np.arange(3))] == [[0, 2]]
    assert [group.tolist() for group in same_content(digests, np.array([0, 2]))] == []
