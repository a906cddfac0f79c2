"""The page on methods, networks, data sets, noise and tasks of one's own: its examples, run from its text."""

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import _manual
import numpy as np
import pytest
import torch
from _train_cases import assert_same_end, killed_at

import fastnoise
from fastnoise.cli import main
from fastnoise.engine import Interrupted, RunFolder
from fastnoise.engine.step import Step
from fastnoise.noise import NoisyLabels
from fastnoise.sweeps.spec import resolve

pytestmark = pytest.mark.usefixtures("forked_servers")

PAGE = Path(fastnoise.__file__).with_name("extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FILES = {found[1]: text for kind, text in BLOCKS if kind == "python" and (found := re.match(r"# (\w+\.py)\n", text))}
SWEEPS = {found[1]: text for kind, text in BLOCKS if kind == "toml" and (found := re.match(r"# (\w+\.toml)\n", text))}
SCRIPTS = [text for kind, text in BLOCKS if kind == "python" and text not in FILES.values()]
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
OWN = [
    *("--method", "trimmed.py:Trimmed", "--model", "perceptron.py:Perceptron"),
    *("--dataset", "weak_digits.py:weak_digits", "--noise", "neighbours.py:neighbours:0.4,step=2"),
]
"""All four at once."""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's files, in the folder that commands run in."""
    for name, text in (FILES | SWEEPS).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_the_page_has_an_example_of_each_kind_of_twenty_lines() -> None:
    methods, others = {"trimmed.py", "capped.py", "features.py"}, {"perceptron.py", "weak_digits.py", "neighbours.py"}
    tasks = {"ordinal.py", "huber.py"}
    assert set(FILES) == methods | others | tasks
    assert set(SWEEPS) == {"capped.toml"}
    assert all(len(text.splitlines()) <= 20 for name, text in FILES.items() if name != "capped.py")
    assert len(FILES["capped.py"].splitlines()) <= 24, "the options take their own class"
    assert "(fastnoise/extend.md)" in _manual.readme()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    assert program == "fastnoise"
    assert main(words) == 0, capsys.readouterr().err
    if words[0] == "corrupt":
        noisy = NoisyLabels.load(tmp_path / "noisy.npz")
        assert noisy.requested_rate == 0.3
        assert noisy.realised_rate == pytest.approx(0.3, abs=0.03)
        return
    if words[0] == "sweep":
        rows = (tmp_path / "sweeps" / "capped" / "results.csv").read_text(encoding="utf-8").splitlines()
        place = rows[0].split(",").index("cap")
        assert sorted(row.split(",")[place] for row in rows[1:]) == ["2.5", "4.0"]
        return
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "summary.json").exists()
    assert not any(part in folder.name for part in (".py", str(tmp_path).replace("/", "-")))


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    exec(compile(script, "extend.md", "exec"), names)
    dataset = names["dataset"]
    wrong = float((dataset.train.labels != dataset.clean_labels).mean())
    assert names["summary"]["noise"]["realised_rate"] == pytest.approx(wrong)
    assert 0.1 < wrong < 0.5, "labels by a classifier of 50 samples"
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" {wrong}")
    labels = NoisyLabels.load(tmp_path / "from_arrays" / "labels.npz")
    assert np.array_equal(labels.labels, dataset.train.labels), "nothing is corrupted unasked"
    again = fastnoise.train(names["config"], dataset=dataset, resume=True)
    assert again["test_accuracy"] == names["summary"]["test_accuracy"]


def test_all_four_at_once_are_killed_and_resumed_where_the_user_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--epochs", "3", "--loader", "torch", *OWN]
    assert main([*words, "--run-dir", "whole"]) == 0
    assert "noise neighbours:0.4,step=2" not in capsys.readouterr().err
    with monkeypatch.context() as patch:
        killed_at(patch, 30)
        with pytest.raises(GeneratorExit):
            main([*words, "--run-dir", "cut"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    resume = ["train", "--resume", str(tmp_path / "cut")]
    for name in FILES:  # nothing of a run folder is run unasked
        with (tmp_path / name).open("a") as stream:
            stream.write("\n(__import__('pathlib').Path(__file__).parent / 'ran').touch()\n")
    assert main(resume) == 2
    assert main([*resume, "--method", f"{tmp_path}/trimmed.py:Trimmed"]) == 2
    assert not (tmp_path / "ran").exists()
    asked = capsys.readouterr().err.splitlines()[-1].partition("add ")[2]
    assert asked.count("--") == 3, "the noise, the data set and the network are yet to be named"
    missing = shlex.split(asked)
    assert main([*resume, "--method", "../trimmed.py:Trimmed", *missing]) == 0
    said = capsys.readouterr().out
    assert said.count("has changed since the run was last started") == 4
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    starts = json.loads((tmp_path / "cut" / "environment.json").read_text())
    assert [set(start["own_files"]) for start in starts] == [{"method", "model", "dataset", "noise"}] * 2
    config = RunFolder.open(tmp_path / "cut").read_config()
    assert config.noise.noise == f"{tmp_path}/neighbours.py:neighbours:0.4,step=2"
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["noise"]["requested_rate"] == 0.4
    assert summary["noise"]["realised_rate"] == pytest.approx(0.4, abs=0.05)


def test_inspect_and_report_take_what_the_page_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset", "weak_digits.py:weak_digits"]
    assert main(["corrupt", *data, "--noise", "neighbours.py:neighbours:0.3", "--out", "noisy.npz"]) == 0
    assert main(["inspect", "noisy.npz", *data]) == 0
    assert "best explanation: pair:" in capsys.readouterr().out
    assert main(["train", "--epochs", "1", *OWN, "--run-dir", "run"]) == 0
    assert main(["report", "run"]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Trimmed on weak_digits, neighbours:0.4,step=2</h1>" in page


def test_a_sweep_names_jobs_after_what_the_files_hold(tmp_path: Path) -> None:
    spec = tmp_path / "sweep.toml"
    words = dict(zip(OWN[::2], OWN[1::2], strict=True))
    spec.write_text("".join(f'{flag[2:]} = "{value}"\n' for flag, value in words.items()) + "seeds = 2\n")
    before = [job.name for job in resolve(spec)]
    assert len(set(before)) == 2
    assert [job.name for job in resolve(spec)] == before
    (tmp_path / "moved").mkdir()
    for name in FILES:
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = tmp_path / "moved" / "sweep.toml"
    spec.rename(moved)
    moved.write_text(re.sub(r'"(\w+\.py)', rf'"{tmp_path}/moved/\1', moved.read_text()))
    assert [job.name for job in resolve(moved)] == before, "a job is what the files hold, wherever they lie"
    for name in ("trimmed.py", "perceptron.py", "weak_digits.py", "neighbours.py"):
        file = tmp_path / "moved" / name
        file.write_text(file.read_text() + "# edited\n")
        after = [job.name for job in resolve(moved)]
        assert not set(after) & set(before)
        before = after


def test_sweeps_train_all_four(tmp_path: Path) -> None:
    words = dict(zip(OWN[::2], OWN[1::2], strict=True))
    text = "".join(f'{flag[2:]} = "{value}"\n' for flag, value in words.items())
    (tmp_path / "own.toml").write_text(text + "epochs = 1\nseeds = 2\n")
    assert main(["sweep", "own.toml", "--jobs", "1", "--stack", "2"]) == 0
    assert len(list((tmp_path / "sweeps" / "own" / "jobs").glob("*/summary.json"))) == 2


def test_a_stopped_run_on_arrays_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    dataset = fastnoise.ImageDataset.from_arrays(images, np.arange(60) % 3)
    config = fastnoise.recipes.recipe("elr", dataset.name)
    config = config.replace({"epochs": 2, "model": "small_cnn", "width": 0.25, "batch_size": 16, "loader": "torch"})
    whole = fastnoise.train(config.replace({"run_dir": "whole"}), dataset=dataset)
    train = Step.train

    def stopping(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return train(self, images, index)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "train", stopping)
        with pytest.raises(Interrupted) as stopped:
            fastnoise.train(config, dataset=dataset)
    words = str(stopped.value).partition("go on with: ")[2]
    again = eval(words, {"fastnoise": fastnoise, "config": config, "dataset": dataset})
    assert again["test_accuracy"] == whole["test_accuracy"]
    assert_same_end(Path(again["run_dir"]), tmp_path / "whole")
