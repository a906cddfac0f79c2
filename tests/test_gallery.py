"""The pictures of suspected labels on a run's page: data that moved, what lies outside of it, code in files."""

import base64
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report import make_page, write_run

from fastnoise.report.suspects import MOST

COUNT = 200
"""Samples of `write_run`, four classes one after the other."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def name_of(place: int) -> str:
    return f"class {place % 4}/{place:03}.png"


def colour_of(place: int) -> tuple[int, int, int]:
    return 255, place, 40 * (place % 4)


def images(folder: str) -> None:
    for place in range(COUNT):
        path = Path(folder, name_of(place))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3), colour_of(place)).save(path)


def run_on(dataset: str, names: list[str] | None = None) -> Path:
    """A run on these images, as training writes its folder; `names` of the samples, as corrected.csv has them."""
    folder = write_run(Path("run"), dataset=dataset)
    names = [name_of(place) for place in range(COUNT)] if names is None else names
    rows = "".join(f"{place},{name}\n" for place, name in enumerate(names))
    (folder / "corrected.csv").write_text(f"position,name\n{rows}")
    return folder


def suspected(folder: Path) -> list[int]:
    with np.load(folder / "corrected.npz") as file:
        return np.flatnonzero(file["suspected"]).tolist()


def shown(text: str) -> list[tuple[int, ...]]:
    """The colours of the middle of all pictures of a page, in their order."""
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', text)
    pictures = [Image.open(io.BytesIO(base64.b64decode(part))).convert("RGB") for part in found]
    return [picture.getpixel((1, 1)) for picture in pictures]  # type: ignore[misc]


def near(found: list[tuple[int, ...]], places: list[int]) -> bool:
    """Whether these are the samples' colours, up to what JPEG makes of them."""
    expected = np.array([colour_of(place) for place in places]).reshape(-1, 3)
    return len(found) == len(places) and bool(np.abs(np.array(found).reshape(-1, 3) - expected).max(initial=0) <= 6)


def test_pictures_of_a_folder_also_after_it_moved() -> None:
    images("photos")
    folder = run_on(f"folder:{Path('photos').absolute()}")
    wrong = suspected(folder)
    assert 40 < len(wrong) < MOST
    page, text = make_page(folder)
    assert near(shown(text), wrong)
    assert f"{len(wrong)} labels are suspected" in page.text
    assert name_of(wrong[0]) in page.text
    Path("photos").rename("elsewhere")
    page, text = make_page(folder)
    assert shown(text) == []
    assert (
        f"The pictures of the {len(wrong)} suspected labels are not shown: no image is found in "
        f"{Path('photos').absolute()}. If the data has moved, say where: dataset in config.toml." in page.text
    )
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("/photos", "/elsewhere"))
    assert near(shown(make_page(folder)[1]), wrong)


def test_pictures_of_a_list_by_names_of_both_kinds() -> None:
    """Relative to the list, or from the root on."""
    images("photos")
    Path("lists").mkdir()
    names = [f"../photos/{name_of(place)}" for place in range(COUNT)]
    names[::2] = [str(Path("photos", name_of(place)).absolute()) for place in range(0, COUNT, 2)]
    folder = run_on(f"list:{Path('lists/list.csv').absolute()}", names)
    assert near(shown(make_page(folder)[1]), suspected(folder))


@pytest.mark.parametrize("kind", ["../", "absolute", "link/../../"])
def test_nothing_beside_a_class_folder_is_read(kind: str, tmp_path: Path) -> None:
    """Whatever corrected.csv of a run folder that someone sent says."""
    images("photos")
    Path("photos/link").mkdir()
    Image.new("RGB", (3, 3), (0, 0, 255)).save("secret.png")
    secret = str(tmp_path / "secret.png") if kind == "absolute" else f"{kind}secret.png"
    folder = run_on(f"folder:{Path('photos').absolute()}")
    wrong = suspected(folder)
    names = [secret if place == wrong[3] else name_of(place) for place in range(COUNT)]
    rows = "".join(f"{place},{name}\n" for place, name in enumerate(names))
    (folder / "corrected.csv").write_text(f"position,name\n{rows}")
    page, text = make_page(folder)
    assert near(shown(text), [place for place in wrong if place != wrong[3]])
    assert page.text.count("cannot be read") == 1


def test_what_is_no_picture_is_passed_over() -> None:
    images("photos")
    folder = run_on(f"folder:{Path('photos').absolute()}")
    pipe, cut, gone, *rest = suspected(folder)
    Path("photos", name_of(pipe)).unlink()
    os.mkfifo(Path("photos", name_of(pipe)))
    whole = Path("photos", name_of(cut)).read_bytes()
    Path("photos", name_of(cut)).write_bytes(whole[:40])
    Path("photos", name_of(gone)).unlink()
    page, text = make_page(folder)
    assert near(shown(text), rest)
    assert page.text.count("cannot be read") == 3


def test_the_most_suspected_ones_are_shown_of_many() -> None:
    images("photos")
    folder = run_on(f"folder:{Path('photos').absolute()}")
    with np.load(folder / "corrected.npz") as file:
        columns = dict(file)
    columns["suspected"][:] = True
    columns["confidence"] = np.random.default_rng(0).random(COUNT).astype(np.float32)
    np.savez(folder / "corrected.npz", **columns)
    page, text = make_page(folder)
    assert f"{COUNT} labels are suspected" in page.text
    assert f"The page shows the {MOST} most suspected ones." in page.text
    assert near(shown(text), np.argsort(columns["confidence"], kind="stable")[:MOST].tolist())


def test_code_that_a_run_names_is_not_run() -> None:
    Path("data.py").write_text(
        "open('ran', 'w').close()\n\ndef photos(root, download):\n    open('ran', 'w').close()\n"
    )
    for dataset in (f"{Path('data.py').absolute()}:photos", "folder:data.py:photos"):
        folder = Path("run")
        if folder.exists():
            (folder / "config.toml").write_text(f'method = "elr"\ndataset = {json.dumps(dataset)}\n')
        else:
            run_on(dataset)
        page, text = make_page(folder)
        assert not Path("ran").exists()
        assert shown(text) == []
        assert "suspected labels are not shown: " in page.text


def test_a_data_set_that_has_fewer_images_than_the_run_had() -> None:
    """scikit-learn's digits, with a position that they do not have."""
    folder = write_run(Path("run"), dataset="digits")
    assert len(shown(make_page(folder)[1])) == len(suspected(folder))
    with np.load(folder / "corrected.npz") as file:
        columns = dict(file)
    with np.load(folder / "labels.npz") as file:
        assert "index" not in file or len(file["index"]) == COUNT
    (folder / "labels.npz").unlink()
    columns["position"] = columns["position"] + 100_000
    np.savez(folder / "corrected.npz", **columns)
    page, text = make_page(folder)
    assert shown(text) == []
    assert "the data set digits has changed since the run was trained." in page.text
