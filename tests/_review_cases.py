"""Cleanings made up without training, and a browser that looks at their pages."""

import contextlib
import csv
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fastnoise.cleaning.outputs import write_outputs
from fastnoise.cleaning.pool import Judged, load_judged
from fastnoise.cleaning.review import FINDING, ReviewServer, pick_suspects, write_page
from fastnoise.cleaning.run import Finding, claim
from fastnoise.config import RunConfig
from fastnoise.files import write_json
from fastnoise.recipes import recipe

SHAPES = ("circle", "square", "stripes", "cross", "ring", "triangle", "dots")
COLOURS = ("#c0392b", "#2467a8", "#2a9d5c", "#d9a300", "#7d3c98", "#16a085", "#444444")


def picture(shape: int, seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture (width, height) of one of seven things, which has a colour and a form of its own."""
    random = np.random.default_rng(seed)
    grain = random.integers(170, 182, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(grain)
    draw = ImageDraw.Draw(image)
    side = min(size) * random.uniform(0.55, 0.75)
    x, y = ((length - side) / 2 + random.uniform(-0.08, 0.08) * length for length in size)
    box, colour = (x, y, x + side, y + side), COLOURS[shape]
    name = SHAPES[shape]
    if name == "circle":
        draw.ellipse(box, fill=colour)
    elif name == "square":
        draw.rectangle(box, fill=colour)
    elif name == "stripes":
        for part in range(0, 8, 2):
            draw.rectangle((x, y + part * side / 8, x + side, y + (part + 1) * side / 8), fill=colour)
    elif name == "cross":
        draw.line(box, fill=colour, width=max(2, int(side / 5)))
        draw.line((x, y + side, x + side, y), fill=colour, width=max(2, int(side / 5)))
    elif name == "ring":
        draw.ellipse(box, outline=colour, width=max(2, int(side / 6)))
    elif name == "triangle":
        draw.polygon([(x + side / 2, y), (x, y + side), (x + side, y + side)], fill=colour)
    else:
        for row in range(3):
            for column in range(3):
                left, top = x + column * side / 3, y + row * side / 3
                draw.ellipse((left, top, left + side / 4, top + side / 4), fill=colour)
    return image


def photos(folder: Path, classes: Sequence[str], wrong: int, right: int = 4, name: str = "{place:04}.jpg") -> Path:
    """Class folders with `right` images each that are what their folder says, and `wrong` in all that are of the next
    class."""
    place = 0
    for label, of in enumerate(classes):
        (folder / of).mkdir(parents=True)
        for number in range(right + len(range(label, wrong, len(classes)))):
            shape = label if number < right else (label + 1) % len(classes)
            path = folder / of / name.format(place=place)
            picture(shape, place).save(path)
            place += 1
    return folder


def finished_cleaning(out: Path, config: RunConfig, verdict_of: Callable[[Judged], Any]) -> Path:
    """What `clean` leaves in a folder, with a verdict that was made up."""
    fields = {name: value for name, value in config.flat().items() if value is not None and name != "run_dir"}
    claim(out, {"folds": 1, **fields})
    judged = load_judged(config)
    verdict = verdict_of(judged)
    finding = Finding(judged, verdict, write_outputs(out, config.data.dataset, judged, verdict))
    write_json(out / FINDING, finding.figures())
    with open(out / "suspects.csv", newline="", encoding="utf-8") as stream:
        suspects = pick_suspects(judged.names, judged.data.train, list(csv.DictReader(stream)))
    write_page(out, config.data.dataset, finding.figures(), suspects)
    return out


def made_cleaning(photos: Path, out: Path, true: Any) -> Path:
    """A finished cleaning of class folders, whose judges were made up: `true` says of a file's path which class it
    is."""
    config = recipe("elr", f"folder:{photos}", "none", model="small_cnn").replace({"val_fraction": 0.0})

    def verdict_of(judged: Judged) -> Any:
        right = np.array([judged.data.class_names.index(true(Path(name))) for name in judged.names])
        wrong, count = right != judged.given, len(judged.data.class_names)
        probability = np.random.default_rng(0).uniform(0.501, 1, len(right)) - 0.5 * ~wrong
        empty = np.full((count, count), np.nan)
        return SimpleNamespace(
            probability=probability,
            suggested=right,
            suspected=wrong,
            margins=np.where(wrong, -4.0, 6.0),
            rate=float(probability.mean()),
            rate_interval=(0.0, 1.0),
            **dict.fromkeys(("transition", "transition_low", "transition_high"), empty),
            agreement=1.0,
            warnings=("its judges are made up",),
            corrected=lambda given: np.where(wrong, right, given),
        )

    return finished_cleaning(out, config, verdict_of)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[ReviewServer]:
    """A review that is open."""
    with ReviewServer(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def require_chromium() -> Any:
    """selenium's drivers; the test is skipped without them or without the browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pages are tried in a browser by selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not installed")
    return webdriver


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Headless Chromium with a new profile, driven by selenium; the test is skipped without them."""
    webdriver = require_chromium()
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1200,900"),
        f"user-data-dir={profile}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no internet
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=programs[1]))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()
