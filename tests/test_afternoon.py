"""A user's afternoon, by the README's own commands: photos with wrong labels are checked, cleaned, reviewed in a
browser, learnt from, and the network that comes out is used."""

import csv
import json
import re
import shlex
import signal
import time
from pathlib import Path

import _manual
import numpy as np
import pytest
from _forked import Forked
from _review_cases import chromium, picture, require_chromium
from PIL import Image

from fastnoise.cleaning.decisions import read_decisions
from fastnoise.cli import main

pytestmark = pytest.mark.usefixtures("forked_servers")

CLASSES = ("Amsel ♂", "blau kitšč", "café au lait", "Döner", "étoile", "fjord & æ", "zebra")
COUNTS = (46, 38, 32, 28, 24, 20, 18)
ENDINGS = ("jpg", "png", "webp", "jpeg")
STEPS = ("check", "clean", "review", "train", "predict", "evaluate", "export")


def commands() -> dict[str, list[str]]:
    """The words of each command in the README's block."""
    lines = [shlex.split(line, comments=True) for line in _manual.block("afternoon").splitlines()]
    assert [line[:2] for line in lines] == [["fastnoise", step] for step in STEPS]
    return {line[1]: line[1:] for line in lines}


def photos() -> dict[str, str]:
    """Photos of seven classes, of which a fifth is in a wrong folder: name -> its right class."""
    random = np.random.default_rng(0)
    truth = {}
    place = 0
    for label, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for number in range(count):
            given = CLASSES[(label + random.integers(1, 7)) % 7] if number < count // 5 else name
            side = random.integers(64, 120) if place % 25 else random.integers(300, 1001)
            height = int(np.clip(side * random.uniform(0.7, 1.3), 64, 1000))
            image = picture(label, place, (int(side), height))
            options = {}
            if place % 8 == 0:  # lying on its side, as the camera notes
                options["exif"] = Image.Exif()
                options["exif"][0x0112] = 6
                image = image.transpose(Image.Transpose.ROTATE_90)
            file = Path("photos", given, f"IMG {place:04} ü.{ENDINGS[place % 4]}")
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, **options)
            truth[f"{given}/{file.name}"] = name
            place += 1
    for label, name in enumerate(CLASSES):
        Path("new", "inner").mkdir(parents=True, exist_ok=True)
        for number in range(3):
            picture(label, 1000 + 10 * label + number).save(Path("new", "inner", f"{name}-{number}.png"))
    return truth


def table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_users_afternoon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    require_chromium()
    monkeypatch.chdir(tmp_path)
    words, truth = commands(), photos()
    count = len(truth)

    assert main(words["check"]) == 0
    said = capsys.readouterr().out
    assert f"{count} images" in said
    assert all(name in said for name in CLASSES)
    assert "unreadable: 0" in said

    assert main(words["clean"]) == 0
    capsys.readouterr()
    found = table("cleaned/photos/labels.csv")
    assert [row["file"] for row in found] == sorted(truth), "in the order of the data set"
    wrong = {row["file"] for row in found if row["given"] != truth[row["file"]]}
    suspects = table("cleaned/photos/suspects.csv")
    hits = [row for row in suspects if row["file"] in wrong]
    assert len(wrong) == sum(each // 5 for each in COUNTS)
    assert len(hits) >= 0.8 * len(wrong)
    assert len(hits) >= 0.8 * len(suspects)
    assert sum(row["suggested"] == truth[row["file"]] for row in hits) >= 0.8 * len(hits)

    decided = review(words["review"], tmp_path)
    assert decided == {suspects[0]["file"]: suspects[0]["suggested"], suspects[1]["file"]: suspects[1]["given"]}
    corrected = Path("cleaned/photos/corrected")
    links = {path.resolve().relative_to(tmp_path / "photos").as_posix(): path for path in corrected.rglob("*.*")}
    assert links.keys() == truth.keys(), "every photo once, in no part that the user did not make"
    for row in found:
        expected = row["suggested"] if row["suspected"] == "1" else row["given"]
        assert links[row["file"]].parent.name == decided.get(row["file"], expected)
    given = sum(name == row.partition("/")[0] for row, name in truth.items())
    right = sum(path.parent.name == truth[name] for name, path in links.items())
    assert right > given + 0.5 * len(wrong)

    assert main(words["train"]) == 0
    assert Path("runs/photos/model.safetensors").is_file()
    assert main(words["predict"]) == 0
    answers = {Path(row["file"]).stem.rpartition("-")[0]: row["predicted"] for row in table("predictions.csv")}
    assert answers.keys() == set(CLASSES)
    assert sum(name == predicted for name, predicted in answers.items()) >= 6
    capsys.readouterr()
    assert main(words["evaluate"]) == 0
    accuracy = re.findall(r"accuracy: ([\d.]+) %", capsys.readouterr().out)[0]
    summary = json.loads(Path("runs/photos/summary.json").read_text())
    assert float(accuracy) == pytest.approx(100 * summary["test_accuracy"]["last"], abs=0.01)
    assert float(accuracy) > 75
    assert main(words["export"]) == 0
    assert "its answers to" in capsys.readouterr().out
    assert Path("photos.pt2").is_file()


def review(words: list[str], folder: Path) -> dict[str, str]:
    """Accept the first suspect and reject the second by keys; returns what is decided when the review has ended."""
    from selenium.webdriver.common.action_chains import ActionChains

    process = Forked(*words)
    address = re.findall(r"http://\S+", process.stdout.readline())[0]
    with chromium(folder / "profile") as driver:
        driver.get(address)
        shown = driver.find_element("id", "count")
        ActionChains(driver).send_keys("j", "a", "r").perform()
        deadline = time.monotonic() + 100
        while not shown.text.endswith(", 2 decided"):
            assert time.monotonic() < deadline, shown.text
            time.sleep(0.02)
        assert driver.get_log("browser") == []
        driver.find_elements("css selector", ".card")[0].screenshot(str(folder / "card.png"))
        driver.save_screenshot(str(folder / "page.png"))
    with Image.open(folder / "card.png") as image:
        colours = image.convert("RGB").getcolors(1 << 20) or []
        assert len(colours) > 100, "a picture is there"
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "2 labels are decided" in said
    return read_decisions(Path("cleaned/photos/decisions.log"))
