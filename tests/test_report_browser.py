"""Pages of runs and sweeps in a browser: nothing overflows, values under the pointer, tables that sort, one file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="reports need matplotlib, the extra plot")

from _review_cases import chromium
from test_report import write_run, write_sweep

from fastnoise.cli import main
from fastnoise.errors import DataError
from fastnoise.report import write_comparison, write_report
from fastnoise.report.figures import beside
from fastnoise.report.several import names_of
from fastnoise.report.stored import read_run

NAMES = ("猫", "犬の写真", "고양이", "ordinary")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run whose classes have Chinese, Japanese and Korean names, of three runs, and of a sweep."""
    root = tmp_path_factory.mktemp("pages")
    runs = [
        write_run(root / "runs" / f"{method}-{'x' * length}", method=method, accuracy=accuracy, model="small_cnn")
        for method, length, accuracy in (("ce", 3, 0.5), ("elr", 40, 0.7), ("nal", 3, 0.6))
    ]
    (runs[0] / "classes.json").write_text(json.dumps(NAMES), encoding="utf-8")
    history = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    for epoch in history:
        epoch |= {"test_class_accuracy": [0.5] * 4, "memory_gib": 1.5 + 0.1 * epoch["epoch"]}
        epoch |= {"gradient_clean": 0.2, "gradient_mislabelled": 0.4}
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    return {
        "one": write_report(runs[0]),
        "three": write_comparison(runs),
        "sweep": write_report(write_sweep(root / "sweep")),
        "without pictures": write_report(write_run(root / "far", method="ce", dataset="cifar10", model="resnet34")),
    }


def opened(driver: Any, page: Path, width: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    driver.get(page.as_uri())


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("name", ["one", "three", "sweep", "without pictures"])
def test_pages_do_not_overflow(driver: Any, pages: dict[str, Path], name: str, width: int) -> None:
    opened(driver, pages[name], width)
    assert driver.execute_script("return innerWidth") == width
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script(
        "return [...document.querySelectorAll('figure,h1,h2,p,figcaption')].every(each=>"
        "each.getBoundingClientRect().right<=document.documentElement.clientWidth+1)"
    )
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [1400, 400])
def test_values_are_shown_under_the_pointer(driver: Any, pages: dict[str, Path], width: int) -> None:
    opened(driver, pages["three"], width)
    figure = driver.find_element("css selector", "figure#test_accuracy")
    driver.execute_script("arguments[0].scrollIntoView({block:'center'})", figure)
    about = json.loads(figure.get_attribute("data-lines"))
    left, top, right, bottom = about["panels"][0]["box"]
    low, high = about["panels"][0]["range"]
    box = driver.execute_script(
        "const r=arguments[0].querySelector('svg').getBoundingClientRect();return [r.x,r.y,r.width,r.height]", figure
    )
    plot = driver.execute_script("return arguments[0].querySelector('.plot').getBoundingClientRect().right", figure)
    across = left + (right - left) * (2 - low) / (high - low)  # the second epoch
    x, y = box[0] + box[2] * across + 1, box[1] + box[3] * (top + bottom) / 2
    assert x < plot
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    shown = figure.find_element("css selector", ".values")
    assert shown.is_displayed()
    lines = shown.text.split("\n")
    assert lines[0] == "epoch 2"
    assert lines[1::2] == [f"ce-{'x' * 3}", f"elr-{'x' * 40}", f"nal-{'x' * 3}"]
    assert lines[2::2] == ["52.00 %", "72.00 %", "62.00 %"]
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 2, "y": 2})
    assert not shown.is_displayed()


def test_tables_sort_by_click_and_by_key(driver: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(driver, pages["three"], 1400)

    def firsts() -> list[str]:
        cells = driver.find_elements("css selector", "table:first-of-type tbody tr td:nth-child(2)")
        return [cell.text for cell in cells][:3]

    assert firsts() == ["ce", "elr", "nal"]
    heads = driver.find_elements("css selector", "th.sorts")
    (last,) = [head for head in heads if head.text.startswith("last accuracy")]
    last.click()
    assert (firsts(), last.get_attribute("aria-sort")) == (["ce", "nal", "elr"], "ascending")
    last.send_keys(Keys.ENTER)
    assert (firsts(), last.get_attribute("aria-sort")) == (["elr", "nal", "ce"], "descending")
    heads[1].click()
    assert firsts() == ["ce", "elr", "nal"]
    assert last.get_attribute("aria-sort") is None


def test_names_in_other_scripts_are_whole(driver: Any, pages: dict[str, Path]) -> None:
    text = pages["one"].read_text(encoding="utf-8")
    for name in NAMES:
        assert f">{name}</text>" in text
    assert "Noto Sans CJK" in text
    opened(driver, pages["one"], 1400)
    figure = driver.find_element("css selector", "figure#class_accuracy")
    assert [name for name in NAMES if name in driver.execute_script("return arguments[0].textContent", figure)] == [
        *NAMES
    ]


def test_memory_and_gradients_have_their_charts(pages: dict[str, Path]) -> None:
    one, three = (pages[name].read_text(encoding="utf-8") for name in ("one", "three"))
    for name in ("memory", "gradients"):
        assert f'id="{name}"' in one
    for name in ("memory_gib", "gradient_mislabelled", "test_accuracy", "train_loss", "learning_rate"):
        assert f'id="{name}"' in three
    assert 'id="memory"' not in pages["sweep"].read_text(encoding="utf-8")


def test_a_run_stands_beside_what_is_published(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="ce", dataset="cifar10", noise="symmetric:0.4", model="resnet34")
    run = read_run(folder)
    found = beside(run)
    assert found
    for each in found:
        assert each.ours == pytest.approx(100 * run.figure("test_accuracy", "last"))
        assert float(each.difference) == pytest.approx(each.ours - each.published.mean, abs=0.006)
    text = write_report(folder).read_text()
    assert "Published values" in text
    assert found[0].difference in text
    assert found[0].published.describe() in text
    assert beside(read_run(write_run(tmp_path / "digits"))) == []
    assert beside(read_run(write_run(tmp_path / "part", method="ce", dataset="cifar10", limit_train=100))) == []
    assert beside(read_run(write_run(tmp_path / "own", method="file.py:Mine", dataset="cifar10"))) == []
    several = write_comparison([folder, tmp_path / "digits"]).read_text()
    assert f"{found[0].published.describe()} (1)" in several


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / part / "run"), arrays=False) for part in ("a", "b")]
    runs.append(read_run(write_run(tmp_path / "other"), arrays=False))
    assert names_of(runs) == ["a/run", "b/run", "other"]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other")
    for folders, complaint in (
        ([run, tmp_path / "none"], "no such folder; give the folders of runs"),
        ([run, tmp_path], "is not the folder of a run"),
        ([run, run], "a folder is given twice"),
    ):
        with pytest.raises(DataError, match=complaint):
            write_comparison(folders)
    assert main(["report", str(run), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["report", str(run), str(other), "--png", str(tmp_path / "png")]) == 0
    assert (tmp_path / "comparison.html").is_file()
    assert (tmp_path / "png" / "test_accuracy.csv").is_file()
