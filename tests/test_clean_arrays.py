"""fastnoise.clean on arrays."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import _manual
import numpy as np
import pytest

import fastnoise
from fastnoise.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("forked_servers")


@pytest.fixture(scope="module")
def colours() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images whose class is their colour, given labels of which a fifth is wrong, and right ones."""
    random = np.random.default_rng(0)
    right = random.integers(0, 3, 600)
    images = random.integers(0, 130, (600, 8, 8, 3), np.uint8)
    images[np.arange(600), :, :, right] += 90
    wrong = random.random(600) < 0.2
    return images, np.where(wrong, (right + random.integers(1, 3, 600)) % 3, right), right


def test_wrong_labels_of_arrays_are_found_by_the_readmes_function(
    colours: tuple[np.ndarray, np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels, right = colours
    script = _manual.block("clean", "python")
    assert "folds=5" in script
    names: dict[str, Any] = {}
    exec(compile(script.replace("folds=5", "folds=2"), "clean.md", "exec"), names)
    probability, suggested = names["wrong_labels"](images, labels)
    said = capsys.readouterr().out
    assert re.fullmatch(r"\d+\.\d% of the labels are wrong, 95 %: \d+\.\d% to \d+\.\d%\n", said), "and nothing else"
    wrong, suspected = labels != right, probability > 0.5
    assert (wrong & suspected).sum() > 0.8 * wrong.sum()
    assert (wrong & suspected).sum() > 0.8 * suspected.sum()
    assert (suggested == right)[wrong & suspected].mean() > 0.8


def test_results_are_kept_and_known_labels_used(
    colours: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    images, labels, right = (array[:200] for array in colours)
    known = np.where(np.arange(200) < 50, right, -1)
    settings: dict[str, Any] = {
        "epochs": 3,
        "folds": 2,
        "out": tmp_path / "out",
        "clean_labels": known,
        "model": "small_cnn",
    }
    names = [f"scan {place}" for place in range(200)]
    verdict = fastnoise.clean(images, labels, names=names, class_names=list("abc"), **settings)
    assert (verdict.suggested[:50] == right[:50]).all()
    assert (verdict.probability[:50] == (labels != right)[:50]).all()
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert lines[1].startswith(f"scan 0,{'abc'[labels[0]]},")
    assert len(lines) == 201
    assert (tmp_path / "out" / "suspects.html").is_file()
    again = fastnoise.clean(images, labels, names=names, class_names=list("abc"), **settings)
    np.testing.assert_array_equal(again.probability, verdict.probability)
    moved = np.where(np.arange(200) < 10, (labels + 1) % 3, labels)
    del settings["clean_labels"]
    other = fastnoise.clean(images, moved, names=names, class_names=list("abc"), **settings)
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["abc"[label] for label in moved]
    assert set(verdict.probability[:50]) == {0, 1}
    assert not {0, 1} & set(other.probability[:50]), "known no more"
    with pytest.raises(ConfigError, match=r"holds a cleaning with epochs 3, not 4"):
        fastnoise.clean(images, labels, names=names, class_names=list("abc"), **settings | {"epochs": 4})
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "arrays" / "labels.npy"), moved)
    with pytest.raises(ConfigError, match=r"out .* holds a cleaning of other images"):
        fastnoise.clean(images[::-1], moved, names=names, class_names=list("abc"), **settings)


def test_what_cannot_be_judged_is_said(colours: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images, labels, _ = colours
    with pytest.raises(DataError, match="images must be uint8"):
        fastnoise.clean(images.astype(np.float32), labels)
    with pytest.raises(DataError, match="labels"):
        fastnoise.clean(images, labels[:-1])
    with pytest.raises(ConfigError, match="clean: epoch: unknown field; did you mean 'epochs'"):
        fastnoise.clean(images, labels, epoch=3)
    with pytest.raises(ConfigError, match="dataset: clean takes images and labels as arrays"):
        fastnoise.clean(images, labels, dataset="digits")
    with pytest.raises(ConfigError, match="--folds must be 1 or more"):
        fastnoise.clean(images, labels, folds=0)


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """The script is not run again by the processes that train."""
    (tmp_path / "script.py").write_text("""
import numpy as np
import fastnoise

print("begins")
random = np.random.default_rng(0)
labels = random.integers(0, 2, 60)
images = np.repeat(100 * labels[:, None, None], 8, 1).repeat(8, 2).astype(np.uint8)
images += random.integers(0, 50, images.shape, np.uint8)
verdict = fastnoise.clean(images, labels, model="small_cnn", epochs=2, folds=2, batch_size=16)
print(verdict.probability.shape)
""")
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "begins\n(60,)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]
