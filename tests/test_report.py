"""Reports of runs, sweeps and studies: every figure there, its numbers right, nothing external, nothing trusted."""

import base64
import csv
import hashlib
import json
import pickle
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from _growth import growth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="reports need matplotlib, the extra plot")

from fastnoise.cli import main
from fastnoise.commands.report import ReportCommand, run
from fastnoise.errors import FastnoiseError
from fastnoise.noise import NoisyLabels, corrupt
from fastnoise.recipes import recipe
from fastnoise.recipes.deviations import deviations_of
from fastnoise.report import runs, write_report
from fastnoise.report.charts import BLUE, Chart, Panel, Series, line_chart, percent_ticks
from fastnoise.report.gallery import SCRIPT as GALLERY_SCRIPT
from fastnoise.report.html import element, markdown, plain, shortened, table
from fastnoise.report.script import SCRIPT
from fastnoise.report.several import names_of
from fastnoise.report.stored import is_numeric, ranking, read_run, read_sweep
from fastnoise.words import parsed

VOID = {"meta", "br", "img", "input", "hr", "link"}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&$\\frac{\x00\u202e"


class Page(HTMLParser):
    """A page taken apart: fails where elements don't nest, ids come twice, or anything outside is referred to."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        assert len(self.ids) == len(set(self.ids)), "ids come twice"
        assert not {"iframe", "object", "embed", "link", "base", "form"} & set(self.tags)
        scripts = re.findall(r"<script[^>]*>", text)
        if scripts:  # the gallery's own, which no other can stand in for
            assert scripts == ["<script>"]
            (script,) = (each for each in (SCRIPT, SCRIPT + GALLERY_SCRIPT) if f"<script>{each}</script>" in text)
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"script-src &#39;sha256-{digest}&#39;" in text
        assert 'http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;' in text
        assert not re.findall(r"url\((?!#)", text)
        assert "@import" not in text
        assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
            "http://www.w3.org/2000/svg",  # names of XML's vocabularies, which nobody fetches
            "http://www.w3.org/1999/xlink",
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                pictures = ("data:image/png;base64,", "data:image/jpeg;base64,")
                assert (value or "").startswith(("#", *pictures)), f"{tag} {name}={value}"
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> within {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def make_page(folder: Path, **options: Any) -> tuple[Page, str]:
    text = write_report(folder, **options).read_text()
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    return Page(text), text


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def column(path: Path, name: str) -> list[float]:
    return [float(row[name]) for row in read_csv(path) if row[name]]


# -- folders -------------------------------------------------------------------------------------------------------


def write_run(folder: Path, *, epochs: int = 4, accuracy: float = 0.5, clean: bool = True, **config: Any) -> Path:
    """The folder of a finished run as `fastnoise train` writes it, without training."""
    folder.mkdir(parents=True)
    fields = {"method": "elr", "dataset": "digits", "noise": "symmetric:0.4", "noise_seed": 0, "seed": 0}
    fields |= {"epochs": epochs, "val_fraction": 0.0, "learning_rate": 0.1, "schedule": "constant", **config}
    (folder / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    (folder / "environment.json").write_text(
        json.dumps([{"fastnoise": "0", "python": "3", "packages": {"torch": "2"}}])
    )
    true = np.arange(200) % 4
    noisy = corrupt(true, "symmetric:0.4", seed=0, num_classes=4)
    if not clean:
        noisy = NoisyLabels(noisy.labels, None, "none", None, 4, None)
    noisy.save(folder / "labels.npz")
    history = [
        {
            "epoch": epoch, "learning_rate": 0.1, "train_loss": 1 / epoch, "train_accuracy_given": 0.4,
            "test_loss": 1.0, "test_accuracy": accuracy + 0.01 * epoch, "test_macro_f1": 0.5,
            "test_class_accuracy": [None, *[0.5] * 11], "images_per_second": 100.0, "data_wait": 0.1, "seconds": 1.0,
        }
        | ({"clean_true": 0.9, "clean_other": 0.1, "mislabelled_true": 0.5, "mislabelled_memorised": 0.3,
            "mislabelled_other": 0.2, "correction_accuracy": 0.7} if clean else {})
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    last = history[-1]["test_accuracy"]
    best = {"best": last, "best_epoch": epochs, "last": last, "mean_last_10": last}
    summary = {
        "title": "t", "test_accuracy": best, "test_macro_f1": best, "training_samples": {},
        "throughput": {"images_per_second": 1.0, "data_wait": 0.1, "first_step_seconds": 1.0},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    columns: dict[str, Any] = {
        "position": np.arange(200), "given": noisy.labels, "corrected": true,
        "confidence": np.where(noisy.labels == true, 0.9, 0.2).astype(np.float32),
        "suspected": noisy.labels != true,
    }  # fmt: skip
    np.savez(folder / "corrected.npz", **columns, **({"true": true} if clean else {}))
    return folder


def write_sweep(folder: Path) -> Path:
    """Two methods by three rates by two seeds; of the last combination one job failed and one was killed."""
    place = 0
    for method in ("ce", "elr"):
        for rate in (0.2, 0.4, 0.6):
            for seed in (0, 1):
                name = f"{place:012x}"
                place += 1
                job = write_run(
                    folder / "jobs" / name, method=method, noise=f"symmetric:{rate}", seed=seed, noise_seed=seed,
                    accuracy=rate + 0.1 * seed, strength=3.0 if method == "elr" else 0.0,
                )  # fmt: skip
                if place >= 11:
                    (job / "summary.json").unlink()
                if place == 11:
                    (job / "error.txt").write_text(f"Traceback\n{ATTACK}\nTrainingError: the loss <is> no number\n")
                if place == 12:
                    (job / "metrics.jsonl").write_text((job / "metrics.jsonl").read_text()[:-50])
    (folder / "sweep.toml").write_text('seeds = 2\n[grid]\nmethod = ["ce", "elr"]\nnoise = ["symmetric:0.2"]\n')
    (folder / "results.csv").write_text(
        f"name,method,test_accuracy_last\n000000000000,ce,0.24000000001\nx,{ATTACK[:20]},1\n"
    )
    (folder / "tables.md").write_text(
        "# sweep\n\n10 of 12 jobs done.\n\n## Accuracy, %\n\n| method | noise \\| rate |\n| --- | ---: |\n"
        "| ce <b> | 98.05 ± 0.10 [97.1, +0.95] (1) |\n\nMean.  \n(1) A **paper**, `Table 1`.  \n\n"
        "## Failed\n\n- twice: told\n"
    )
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short trainings of NAL, with attention, and of the SWCE pipeline, which selects samples."""
    root = tmp_path_factory.mktemp("runs")
    common = ["--limit-train", "400", "--noise", "symmetric:0.4"]
    words = ["train", "--method", "nal", "--epochs", "3", "--val-fraction", "0.1", *common]
    assert main([*words, "--run-dir", str(root / "nal")]) == 0
    words = ["train", "--method", "swce", "--epochs", "4", "--warm-up", "1", "--stages", "2,3", "--rate-factors", "1,1"]
    assert main([*words, *common, "--learning-rate", "0.01", "--run-dir", str(root / "swce")]) == 0
    return root


FIGURES = [
    "accuracy", "loss", "correction", "learning_rate", "memorisation", "attention_epochs", "weights", "suspicion",
    "transition", "weight_matrix", "confusion", "class_accuracy", "throughput",
]  # fmt: skip


# -- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_has_every_figure_with_its_numbers(trained: Path, tmp_path: Path) -> None:
    folder, figures = trained / "nal", tmp_path / "figures"
    page, text = make_page(folder, png=figures)
    assert (folder / "report.html").exists()
    assert json.loads((folder / "classes.json").read_text()) == list("0123456789")
    assert [name for name in page.ids if name in FIGURES] == FIGURES
    assert text.count("<figure") == text.count("<svg") == len(FIGURES)
    for name in FIGURES:
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(read_csv(figures / f"{name}.csv")) > 0
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with np.load(folder / "corrected.npz") as file:
        columns = dict(file)
    wrong = columns["given"] != columns["true"]
    for name, key in (
        ("accuracy", "test_accuracy"), ("accuracy", "validation_accuracy"), ("accuracy", "train_accuracy_given"),
        ("loss", "train_loss"), ("memorisation", "mislabelled_memorised"), ("attention_epochs", "attention_auroc"),
        ("throughput", "data_wait"), ("correction", "correction_accuracy"), ("learning_rate", "learning_rate"),
    ):  # fmt: skip
        assert column(figures / f"{name}.csv", key) == pytest.approx([epoch[key] for epoch in history], rel=1e-5)
    true = [(1 - wrong.mean()) * epoch["clean_true"] + wrong.mean() * epoch["mislabelled_true"] for epoch in history]
    assert column(figures / "accuracy.csv", "train_accuracy_true") == pytest.approx(true, rel=1e-5)
    assert sum(column(figures / "weights.csv", "clean")) == (~wrong).sum()
    assert sum(column(figures / "weights.csv", "mislabelled")) == wrong.sum()
    assert sum(column(figures / "transition.csv", "share_samples")) == 400
    cells = {(row["true class"], row["given label"]): row for row in read_csv(figures / "weight_matrix.csv")}
    chosen = (columns["true"] == 3) & (columns["given"] == 3)
    assert float(cells["3", "3"]["mean"]) == pytest.approx(columns["attention"][chosen].mean(), rel=1e-5)
    assert int(cells["3", "3"]["mean_samples"]) == chosen.sum()
    confusion = read_csv(figures / "confusion.csv")
    right = sum(int(row["corrected_samples"]) for row in confusion if row["true class"] == row["label"])
    assert right == (columns["corrected"] == columns["true"]).sum()
    summary = json.loads((folder / "summary.json").read_text())
    best = summary["test_accuracy"]
    assert f"best test {100 * best['best']:.2f} %, epoch {best['best_epoch']}" in page.text
    for words in ("requested 40.00 %", "359, 41 held out for validation", "small_cnn, images 8x8", "3 of 3"):
        assert words in page.text
    assert "has not ended" not in page.text


def test_pages_show_the_deviations_of_their_runs(tmp_path: Path) -> None:
    """From the table that --deviations prints, each with its size."""
    folder = write_run(tmp_path / "run", method="sce", dataset="cifar10", weight_decay=0.0)
    (folder / "corrected.npz").unlink()
    page, _ = make_page(folder)
    shown = deviations_of(recipe("sce", "cifar10", "symmetric:0.4").replace({"weight_decay": 0.0}))
    assert len(shown) >= 5
    assert f"Deviations from the authors\u2019 code: {len(shown)}" in page.text
    for deviation in shown:
        for words in (deviation.what, deviation.extent, deviation.why):
            assert " ".join(words.split()) in page.text
    assert "has no weight decay" not in page.text, "this run has the authors' value"
    assert "Deviations" not in make_page(write_run(tmp_path / "none", method="label_smoothing"))[0].text
    assert "Deviations" not in make_page(write_run(tmp_path / "odd", method=["sce"], dataset=3))[0].text
    sweep = write_sweep(tmp_path / "sweep")
    assert "Deviations from the authors\u2019 code: 1" in make_page(sweep)[0].text  # of elr on digits: the seeds


def test_positions_that_a_killed_run_has_not_written_are_those_of_the_trainer(trained: Path) -> None:
    record = read_run(trained / "nal")
    with_positions = record.training_labels()
    record.corrected = {}
    again = record.training_labels()
    assert with_positions is not None
    assert again is not None
    for one, other in zip(with_positions, again, strict=True):
        assert np.array_equal(one, other)  # type: ignore[arg-type]


def test_selections_and_figures_of_the_method(trained: Path, tmp_path: Path) -> None:
    page, _ = make_page(trained / "swce", png=tmp_path)
    assert read_run(trained / "swce").problems == []
    assert {"selections", "method_figures", "weights"} <= set(page.ids)
    assert "attention_epochs" not in page.ids
    assert "confidence in the given label" in page.text
    history = [json.loads(line) for line in (trained / "swce" / "metrics.jsonl").read_text().splitlines()]
    made = [epoch["selections"]["stage"]["samples"] for epoch in history if "selections" in epoch]
    assert column(tmp_path / "selections.csv", "stage_samples") == made
    assert column(tmp_path / "method_figures.csv", "iteration") == [epoch["iteration"] for epoch in history]


def test_a_page_suits_light_and_dark(trained: Path, tmp_path: Path) -> None:
    text = write_report(trained / "swce", tmp_path / "page.html").read_text()
    assert "prefers-color-scheme:dark" in text
    assert "currentColor" in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    for fixed in ("#1b1f24", "#d5dae0", "DejaVu"):
        assert fixed not in drawn


def test_classes_have_their_names(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "classes.json").write_text(json.dumps(["cat", "dog & co", "$x$", "a class of many words"]))
    page, _ = make_page(run)
    assert page.text.count("dog & co") >= 4  # both axes of the transition and of the confusion
    assert "$x$" in page.text
    assert "a class of many … " in page.text
    (run / "classes.json").write_text('["cat"]')  # of some other data
    assert "cat" not in make_page(run)[0].text
    (run / "classes.json").write_text("{")
    assert "classes.json cannot be used" in make_page(run)[0].text


def test_names_that_begin_with_an_underscore_are_in_the_legend() -> None:
    series = [Series(name, name, [1, 2], [0.5, 0.6], BLUE) for name in ("_background", "cat")]
    marks = [("_best", 1.0, 0.5, "o", BLUE)]
    text = line_chart("classes", "t", "c", [Panel(series, marks=marks)]).html()
    entries = [entry.lstrip("\u200b") for entry in re.findall(r"<text[^>]*>([^<]*)</text>", text)]
    assert entries[-3:] == ["_background", "cat", "_best"]


def test_a_killed_run_shows_what_there_is_and_how_to_go_on(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    shutil.copytree(trained / "nal", folder)
    for name in ("summary.json", "corrected.npz", "corrected.csv"):
        (folder / name).unlink()
    metrics = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(metrics[: metrics.rindex("{") + 40])
    page, _ = make_page(folder)
    assert "2 of 3 epochs are recorded, and there is no readable summary.json" in page.text
    assert f"fastnoise train --resume '{folder}'" in page.text
    assert "This runs the code" not in page.text
    assert "continues from its last checkpoint" in page.text
    assert "metrics.jsonl: 1 of 3 lines cannot be read" in page.text
    assert {"accuracy", "memorisation", "transition", "correction"} <= set(page.ids)
    assert not {"weights", "weight_matrix", "confusion", "suspicion"} & set(page.ids)
    assert page.text.count("there is no corrected.npz before the run has ended") == 4
    assert "last epoch so far" in page.text

    config = tomllib.loads((folder / "config.toml").read_text())
    own = {"method": "/x y/mine.py:Mine", "noise": "/x/noise.py:wrong:0.4,step=2"}
    (folder / "config.toml").write_text(tomli_w.dumps(config | own))
    words = f"fastnoise train --resume '{folder}' --method '/x y/mine.py:Mine' --noise /x/noise.py:wrong:0.4,step=2"
    text = make_page(folder)[0].text
    assert words in text
    assert "This runs the code in the files that it names." in text
    (folder / "config.toml").write_text(tomli_w.dumps(config | {"dataset": "arrays"}))
    assert f'fastnoise.train(config.replace({{"run_dir": "{folder}"}}), dataset=dataset' in make_page(folder)[0].text


def test_a_run_killed_before_its_first_epoch(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for name in ("summary.json", "corrected.npz", "metrics.jsonl", "environment.json"):
        (folder / name).unlink()
    page, _ = make_page(folder)
    assert "0 of 4 epochs are recorded" in page.text
    assert "begins again (it has no checkpoint)" in page.text
    assert "No epoch has ended yet." in page.text
    assert [name for name in page.ids if name in FIGURES] == ["transition"]


def test_unknown_true_labels(tmp_path: Path) -> None:
    page, _ = make_page(write_run(tmp_path / "run", clean=False))
    assert "Corrected labels against given ones." in page.text
    assert "all samples, mean" in page.text
    assert page.text.count("the true labels are unknown") >= 4
    assert "realised rate unknown" in page.text


def test_true_labels_that_are_unknown_one_by_one_are_unknown(tmp_path: Path) -> None:
    """As of a list whose clean column is filled in rows that are held out, or beyond --limit-train."""
    folder = write_run(tmp_path / "run")
    with np.load(folder / "corrected.npz") as file:
        columns = dict(file)
    np.savez(folder / "corrected.npz", **columns | {"true": np.full(200, -1)})
    given = NoisyLabels.load(folder / "labels.npz").labels
    NoisyLabels(given, np.full(200, -1), "given", None, 4, None).save(folder / "labels.npz")
    page, _ = make_page(folder)
    assert "corrected.npz is not" not in page.text
    assert "Corrected labels against given ones." in page.text
    assert "all samples, mean" in page.text


def test_given_labels_count_as_right_among_the_known_ones(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with np.load(folder / "corrected.npz") as file:
        columns = dict(file)
    true = np.where(np.arange(200) < 50, columns["true"], -1)
    np.savez(folder / "corrected.npz", **columns | {"true": true})
    NoisyLabels(columns["given"], true, "given", None, 4, None).save(folder / "labels.npz")
    make_page(folder, png=tmp_path / "png")
    right = float((columns["given"] == true)[:50].mean())
    assert column(tmp_path / "png" / "correction.csv", "given_right") == pytest.approx([right] * 4)


def test_a_summary_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").write_text('{"title": "t"}')
    page, _ = make_page(folder)
    assert "Test accuracy by class after epoch 4." in page.text
    assert "summary.json comes from another version of fastnoise (KeyError: 'test_accuracy')" in page.text


# -- files that cannot be trusted ----------------------------------------------------------------------------------


def test_nothing_in_a_folder_becomes_html(tmp_path: Path) -> None:
    words = ATTACK.replace("\x00", "")
    folder = write_run(tmp_path / "<b>run&", method=words, dataset=words, noise=words, schedule=words, model=words)
    (folder / "environment.json").write_text(json.dumps([{words: {words: [words]}, "gpus": [{"name": ATTACK}]}] * 2))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {ATTACK: 1.0, "selections": {ATTACK: {"samples": 3, "precision": 0.5}}}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"title": ATTACK, "network": {"image_size": [ATTACK]}}))
    page, text = make_page(folder)
    assert "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "&lt;script&gt;" in text
    assert not re.search("[\x00-\x08\u202e]", text)


class Dangerous:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    folder, ran = write_run(tmp_path / "run"), tmp_path / "ran"
    payload = np.array([Dangerous(ran)], dtype=object)
    np.savez(folder / "corrected.npz", given=payload, corrected=payload, confidence=payload, suspected=payload)
    np.savez(folder / "labels.npz", labels=payload, metadata=payload, sha256=payload)
    (folder / "checkpoint.pt").write_bytes(pickle.dumps(Dangerous(ran)))
    page, _ = make_page(folder)
    assert not ran.exists()
    assert "corrected.npz cannot be used" in page.text
    assert "labels.npz cannot be used" in page.text


@pytest.mark.parametrize(
    ("column_name", "values"),
    [
        ("true", np.arange(200) * 10**6),  # classes that labels.npz does not know, and a matrix beyond memory
        ("given", -np.ones(200, dtype=np.int64)),
        ("confidence", np.full(200, np.nan, dtype=np.float32)),
        ("confidence", np.full(200, 7.0)),
        ("suspected", np.zeros(3, dtype=bool)),
        ("corrected", np.zeros((200, 2), dtype=np.int64)),
        ("given", np.array(["a"] * 200)),
    ],
)
def test_impossible_columns_are_left_out(column_name: str, values: np.ndarray, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with np.load(folder / "corrected.npz") as file:
        columns = {**file, column_name: values}
    np.savez(folder / "corrected.npz", **columns)
    record = read_run(folder)
    assert record.corrected == {}
    assert len(record.problems) == 1
    assert "corrected.npz" in record.problems[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"[" * 300 + b"]" * 300, b"null", b"[1, {}]", b'{"epoch": 1}', b"PK\x03\x04"],
)
def test_damaged_files_are_noted(content: bytes, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for path in folder.iterdir():
        path.write_bytes(content)
    page, _ = make_page(folder)
    assert "cannot be used" in page.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("epoch", "test_accuracy", "clean_true", "mislabelled_true", "selections", "learning_rate", "own")
SUMMARY = (
    "title",
    "network",
    "noise",
    "test_accuracy",
    "test_macro_f1",
    "training_samples",
    "throughput",
    "label_errors",
    "scores",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_makes_a_page(data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        write_run(folder)
    history = data.draw(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)), max_size=4))
    for place, line in enumerate(history):
        line.setdefault("epoch", place + 1)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    summary = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(SUMMARY, JSON)))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").write_text(json.dumps(data.draw(JSON)))
    record = read_run(folder)
    assert "<h2>Run</h2>" in runs.head(record)
    assert "Configuration" in runs.appendix(record)
    for _, found in runs.run_sections(record):
        for chart in found:
            assert chart.csv() if isinstance(chart, Chart) else chart


def test_extreme_numbers_are_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    values = [1e99, -1e99, 5e-324, 0, 10**400, float("nan"), float("inf"), "1", True]
    lines = [{"epoch": place, "test_accuracy": value, "train_loss": value} for place, value in enumerate(values, 1)]
    lines += [{"epoch": place, "test_accuracy": 0.5} for place in (-1, 0, 10**400)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, _ = make_page(folder, png=tmp_path / "png")
    assert "3 of 12 lines cannot be read" in page.text
    assert len(column(tmp_path / "png" / "accuracy.csv", "test_accuracy")) == 4


# -- sweeps and studies --------------------------------------------------------------------------------------------


def test_a_sweep_has_tables_curves_and_errors(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep")
    page, _ = make_page(folder, png=tmp_path / "png")
    assert "10 jobs done, 1 failed, 1 not ended; they differ in method, noise." in page.text
    assert f"fastnoise sweep {folder}/sweep.toml --out {folder}" in page.text
    assert "TrainingError: the loss <is> no number" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "3 of 4" in page.text
    assert "98.05 ± 0.10 [97.1, +0.95] (1)" in page.text
    assert "noise | rate" in page.text
    assert "twice" not in page.text
    assert {"final", "curves", "curves_by_method", "curves_by_noise", "accuracy_against_noise"} <= set(page.ids)
    final = {row["method · noise"]: row for row in read_csv(tmp_path / "png" / "final.csv")}
    assert list(final) == ["ce · symmetric:0.2", "ce · symmetric:0.4", "ce · symmetric:0.6", "elr · symmetric:0.2",
                           "elr · symmetric:0.4"]  # fmt: skip
    assert float(final["ce · symmetric:0.4"]["mean"]) == pytest.approx((0.44 + 0.54) / 2)
    assert float(final["ce · symmetric:0.4"]["sd"]) == pytest.approx(0.1 / 2**0.5)
    curves = read_csv(tmp_path / "png" / "curves.csv")
    assert [float(row["elr · symmetric:0.6"]) for row in curves if row["elr · symmetric:0.6"]] == pytest.approx(
        [0.66, 0.67, 0.68]  # as far as the killed job came
    )
    assert float(curves[0]["ce · symmetric:0.2_sd"]) == pytest.approx(0.1 / 2**0.5)
    against = read_csv(tmp_path / "png" / "accuracy_against_noise.csv")
    assert [row["epoch" if "epoch" in row else "noise rate"] for row in against] == ["0.2", "0.4", "0.6"]
    assert [row["ce"] for row in against] == ["0.29", "0.49", "0.69"]


def test_fields_that_follow_from_others_do_not_vary(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep")
    (folder / "sweep.toml").unlink()
    assert read_sweep(folder).varied == ("method", "noise")  # strength follows from the method
    page, _ = make_page(folder)
    assert "the program that began the sweep" in page.text


def test_long_values_and_long_names_of_runs_stay_apart(tmp_path: Path) -> None:
    """Also if both the beginning and the end, which is what a label has room for, are the same."""
    folders = ("a" * 40 + "/x/" + "b" * 40, "a" * 40 + "/y/" + "b" * 40, "a" * 40 + "/c")
    for place, folder in enumerate(folders):
        write_run(tmp_path / "sweep" / "jobs" / f"{place}", dataset=f"folder:/{folder}", accuracy=0.1 * place)
    make_page(tmp_path / "sweep", png=tmp_path / "png")
    curves = list(read_csv(tmp_path / "png" / "curves.csv")[0])[1:]
    finals = [row["dataset"] for row in read_csv(tmp_path / "png" / "final.csv")]
    assert curves == finals
    assert len(set(curves)) == 3
    assert max(map(len, curves)) == 40
    values = [column(tmp_path / "png" / "curves.csv", label)[0] for label in curves]
    assert sorted(values) == pytest.approx([0.01, 0.11, 0.21])
    same = "/".join("r" * 40 for _ in range(3))
    runs = [read_run(write_run(tmp_path / place / same)) for place in ("one", "other")]
    assert len(set(names_of(runs))) == 2
    assert shortened(["abcdef", "abxdef", "abc"], 5) == {"abcdef": "ab…ef", "abxdef": "… (2)", "abc": "abc"}


def test_the_caption_counts_the_jobs_that_a_line_is_the_mean_of(tmp_path: Path) -> None:
    for place in range(6):
        job = write_run(tmp_path / "sweep" / "jobs" / f"{place}", method=("ce", "elr")[place % 2], seed=place)
        if place > 3:
            (job / "metrics.jsonl").unlink()
            (job / "summary.json").unlink()
    page, _ = make_page(tmp_path / "sweep")
    assert "Means over 2 jobs, up to the last epoch" in page.text


def test_many_combinations_are_not_drawn_over_each_other(tmp_path: Path) -> None:
    for place in range(12):
        write_run(tmp_path / "sweep" / "jobs" / f"{place}", learning_rate=0.1 * (place + 1), epochs=2)
    page, _ = make_page(tmp_path / "sweep")
    assert "12 of them are too many to tell apart" in page.text
    assert "accuracy_against_learning_rate" in page.ids


def test_a_sweep_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "0").mkdir(parents=True)
    (tmp_path / "jobs" / "0" / "error.txt").write_text("")
    page, _ = make_page(tmp_path)
    assert "0 jobs done, 1 failed" in page.text
    assert "Results: no job has ended" in page.text


def test_a_study_shows_its_figures_and_tables(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    figure.savefig(tmp_path / "figure.png")
    (tmp_path / "figure.csv").write_text("p,accuracy\n0,0.97531\n1,<i>0.5\n")
    (tmp_path / "fake.png").write_bytes(b"<script>")
    (tmp_path / "fake.csv").write_text("a\n1\n")
    (tmp_path / "study.json").write_text(json.dumps({"study": "multi<class", "settings": {"rates": [0, 1]}}))
    page, text = make_page(tmp_path, png=tmp_path / "out")
    assert "This study is not done" in page.text
    assert text.count("data:image/png;base64,") == 1
    assert "fake.png is not a PNG file that can be shown." in page.text
    for words in ("Study multi<class", "0.97531", "<i>0.5", "[0, 1]"):
        assert words in page.text
    assert (tmp_path / "out" / "figure.png").read_bytes() == (tmp_path / "figure.png").read_bytes()
    assert (tmp_path / "out" / "figure.csv").read_bytes() == (tmp_path / "figure.csv").read_bytes()
    finding = {"study": "multiclass", "settings": {}, "finding": {"fall": 0.123456789}, "text": "It fell."}
    (tmp_path / "study.json").write_text(json.dumps(finding))
    shutil.copytree(write_sweep(tmp_path / "sweep") / "jobs", tmp_path / "jobs")
    page, _ = make_page(tmp_path)
    assert "This study is not done" not in page.text
    for words in ("It fell.", "0.123457", "10 jobs done, 1 failed"):
        assert words in page.text


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    words = [str(folder), "--out", str(tmp_path / "page.html"), "--png", str(tmp_path / "a" / "b")]
    assert run(parsed(ReportCommand, words, "fastnoise report")) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'page.html'}, figures in {tmp_path / 'a' / 'b'}\n"
    assert (tmp_path / "page.html").exists()
    assert not (folder / "report.html").exists()
    assert (tmp_path / "a" / "b" / "accuracy.csv").exists()


def bad_commands(root: Path) -> list[tuple[ReportCommand, str]]:
    folder = write_run(root / "run")
    (root / "empty").mkdir()
    (root / "file").write_text("")
    return [
        (ReportCommand(), "give the folder of a run, a sweep or a study"),
        (ReportCommand((str(root / "none"),)), "no such folder; give the folder of a run"),
        (ReportCommand((str(root / "file"),)), "no such folder"),
        (ReportCommand((str(root / "empty"),)), "is not the folder of a run, a sweep or a study"),
        (ReportCommand((str(folder),), out=str(root / "none" / "page.html")), "no such folder; create it"),
        (ReportCommand((str(folder),), out=str(root)), "that is a folder; name a file"),
        (ReportCommand((str(folder),), png=str(root / "file")), "cannot make the folder"),
    ]


def test_mistakes_get_one_line(tmp_path: Path) -> None:
    for command, words in bad_commands(tmp_path):
        with pytest.raises(FastnoiseError, match=re.escape(words)) as caught:
            run(command)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "empty").iterdir())


def test_the_command_line_ends_with_two_on_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert re.fullmatch(r"fastnoise: error: .* is not the folder of a run, .*\n", capsys.readouterr().err)
    assert main(["report", str(tmp_path), "--pgn", "x"]) == 2
    assert "did you mean '--png'" in capsys.readouterr().err


def test_without_matplotlib_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(FastnoiseError, match=r"a report needs matplotlib: pip install 'fastnoise\[plot\]'"):
        write_report(write_run(tmp_path / "run"))


# -- parts ---------------------------------------------------------------------------------------------------------


def test_text_is_escaped_once() -> None:
    inner = element("b", "<&>", class_='"x"')
    assert inner == '<b class="&#34;x&#34;">&lt;&amp;&gt;</b>'
    assert element("p", inner, "<") == f"<p>{inner}&lt;</p>"
    assert plain("a\x00\ud800b\u202e") == "a\ufffd\ufffdb\ufffd"
    assert len(plain("x" * 9999)) < 2010
    assert '<th scope="row">1</th><td class="n">2</td>' in table([(1, 2)], numbers=[1])


def test_markdown_of_tables() -> None:
    text = markdown(
        "# A <i>\n\ntext **b** `c<d`  \nnext\n\n- one\n- two\n\n| a | b |\n| --- | ---: |\n| 1 \\| 2 | <x> |\n"
    )
    lines = text.splitlines()
    assert lines[:2] == ["<h3>A &lt;i&gt;</h3>", "<p>text <strong>b</strong> <code>c&lt;d</code><br>"]
    assert "<ul>\n<li>one</li>\n<li>two</li>\n</ul>" in text
    assert '<td>1 | 2</td>\n<td class="n">&lt;x&gt;</td>' in text


def test_markdown_holds_no_html_no_link_and_no_picture() -> None:
    words = (
        "<script>x</script> [a](javascript:b) ![c](http://d/e.png) <http://f> [g]: /h\n\n[g]\n\n<div>i</div>\n\n| a |"
    )
    text = markdown(words + "\n| :-: |\n| <b>j</b> |\n")
    assert set(re.findall(r"<(\w+)", text)) <= {"p", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;x&lt;/script&gt; [a](javascript:b)" in text


@pytest.mark.parametrize("words", ["*", "`", "|-|\n", "- ", "[", "|" * 300 + "\n" + "|-" * 300 + "|\n" + "|\n" * 1000])
def test_the_time_of_hostile_markdown_grows_with_its_length(words: str) -> None:
    def reading(size: int) -> Callable[[], object]:
        return partial(markdown, words * (size // len(words)))

    assert growth(reading, 25_000) < 10, "16 if it grew with the square"


def test_values_are_ordered_as_numbers_or_rates() -> None:
    assert sorted(["10", "9", "1e-3"], key=ranking(["10", "9", "1e-3"]).__getitem__) == ["1e-3", "9", "10"]
    rates = ["symmetric:0.1", "none", "symmetric:0.05"]
    assert ranking(rates) == {"symmetric:0.1": 0.1, "none": 0.0, "symmetric:0.05": 0.05}
    assert is_numeric(rates)
    assert not is_numeric(["symmetric:0.1", "pair:0.2"])
    assert not is_numeric(["ce", "elr"])
    assert not is_numeric(["nan", "1"])


def test_ticks_say_what_they_are_worth() -> None:
    assert [percent_ticks(value) for value in (0, 0.07, 0.825, 0.0115, 1)] == [
        "0 %",
        "7 %",
        "82.5 %",
        "1.15 %",
        "100 %",
    ]


@pytest.mark.slow
def test_chromium_renders_every_figure(trained: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    page = write_report(trained / "nal", tmp_path / "page.html")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1240,5200"]  # fmt: skip
    subprocess.run(
        [*words, f"--screenshot={tmp_path / 'page.png'}", page.as_uri()], check=True, capture_output=True, timeout=120
    )
    from matplotlib.image import imread

    picture = imread(tmp_path / "page.png")[..., :3]
    assert picture.shape[:2] == (5200, 1240)
    rows = (picture.std(1) > 0.02).any(1)
    assert rows[:3000].mean() > 0.6, "large parts of the page are blank"
