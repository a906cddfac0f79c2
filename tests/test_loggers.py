"""TensorBoard, W&B and MLflow: what they keep is read back, and none of them breaks a run."""

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _train_cases import Killed, history, noted, refusal

import fastnoise
from fastnoise import fields
from fastnoise.cli import main
from fastnoise.engine.loggers import TensorBoard
from fastnoise.engine.stacked import train_stacked
from fastnoise.recipes import recipe
from fastnoise.tasks.names import numbers

QUICK: dict[str, Any] = {"epochs": 3, "width": 0.25, "limit_train": 100, "save_every": 1, "run_dir": "run"}
SCORE = "test_accuracy"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "x")  # so that what a logger sets ends with the test
        monkeypatch.delenv(name)


def train_in_two_starts(log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """Train with a kill after the second epoch; returns the test accuracy of each epoch."""
    config = recipe("gce", "digits").replace(QUICK | {"log": log})
    away: list[Any] = []
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            away.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(3, 0))
        with pytest.raises(Killed):
            fastnoise.train(config)
    fastnoise.train(config, resume=True)
    said = capsys.readouterr().out
    assert f"figures also in: {log} " in said
    assert "warning: --log" not in said
    assert not away
    return [line[SCORE] for line in history(Path("run"))]


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scores = train_in_two_starts("tensorboard", monkeypatch, capsys)
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    kept = {event.step: event.value for event in events.Scalars(SCORE)}
    assert kept == pytest.approx(dict(enumerate(scores, 1)))
    assert {"train_loss", "learning_rate", "kept", "test_class_accuracy/3"} <= set(events.Tags()["scalars"])
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert 'dataset = "digits"' in text
    assert "summary/text_summary" in events.Tags()["tensors"]


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a file of W&B: seven bytes, then a log in LevelDB's format. Blocks of 32 KiB hold parts of
    records, each after its checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last)."""
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    scores = train_in_two_starts("wandb", monkeypatch, capsys)
    folders = sorted(Path("run/wandb").glob("offline-run-*"))
    identity = json.loads(Path("run/loggers.json").read_text())["wandb"]
    assert len(folders) == 2, "one for each start"
    assert all(folder.name.endswith(identity) for folder in folders)
    kept, configuration, ended = {}, {}, {}
    for folder in folders:
        for data in records_of(folder / f"run-{identity}.wandb"):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if SCORE in found:
                kept[int(found["_step"])] = json.loads(found[SCORE])
            for item in record.run.config.update:
                configuration[item.key] = json.loads(item.value_json)
            for item in record.summary.update:
                ended[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert kept == pytest.approx(dict(enumerate(scores, 1)))
    assert (configuration["dataset"], configuration["epochs"]) == ("digits", 3)
    assert ended[f"summary/{SCORE}/last"] == pytest.approx(scores[-1])


def test_mlflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    scores = train_in_two_starts("mlflow", monkeypatch, capsys)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Path("run/mlruns").absolute().as_uri())
    experiment = client.get_experiment_by_name("fastnoise")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    kept = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, SCORE)}
    assert kept == pytest.approx(dict(enumerate(scores, 1)))
    assert (run.data.params["dataset"], run.data.params["epochs"]) == ("digits", "3")
    assert run.data.metrics[f"summary/{SCORE}/last"] == pytest.approx(scores[-1])


# -- without any of the packages ---------------------------------------------------------------------------------


class Fake:
    """A logger that keeps what it gets, and fails in the method that `fails` names."""

    made: list["Fake"]
    fails = ""

    def __init__(self, folder: Path, config: Any, identity: str | None, first: int):
        self.where, self.identity, self.folder = "nowhere", "fake", folder.name
        self.before, self.first, self.config = identity, first, config
        self.epochs: list[int] = []
        self.ended: list[Any] = []
        Fake.made.append(self)
        self._do("begin")

    def _do(self, what: str) -> None:
        if what == self.fails:
            raise RuntimeError(f"{what}\nis [red]broken")

    def epoch(self, number: int, figures: Any) -> None:
        self._do("epoch")
        self.epochs.append(number)

    def end(self, summary: Any) -> None:
        self.ended.append(summary)
        self._do("end")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr("fastnoise.engine.loggers._KINDS", {"tensorboard": Fake})
    monkeypatch.setattr(fields, "find_spec", lambda name: name)
    Fake.made, Fake.fails = [], ""
    return Fake


@pytest.mark.parametrize("fails", ["begin", "epoch", "end"])
def test_a_logger_that_fails_is_a_warning_once(
    fails: str, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fails = fails
    summary = fastnoise.train(recipe("ce", "digits").replace(QUICK | {"log": "tensorboard"}))
    assert summary["epochs"] == 3
    said = capsys.readouterr().out
    assert said.count("warning: --log tensorboard fails, and the run goes on without it:") == 1
    assert f"{fails} is [red]broken" in said
    assert len(fake.made) == 1
    assert len(fake.made[0].ended) == (fails == "end")


def test_a_resumed_run_goes_on_in_its_loggers(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("ce", "digits").replace(QUICK)
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(2, 0))
        with pytest.raises(Killed):
            fastnoise.train(config)
    logged = config.replace({"log": "tensorboard"})
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(3, 0))
        with pytest.raises(Killed):
            fastnoise.train(logged, resume=True)
    fastnoise.train(logged, resume=True)
    first, second = fake.made
    assert (first.before, first.first, first.epochs, first.ended) == (None, 1, [1], [None])
    assert (second.before, second.first, second.epochs) == ("fake", 2, [2, 3])
    assert second.ended[0][f"{SCORE}/last"] == history(Path("run"))[-1][SCORE]
    assert "run_dir" in second.config


def test_every_run_of_a_stack_has_loggers_of_its_own(fake: type[Fake]) -> None:
    base = recipe("ce", "digits").replace(QUICK | {"log": "tensorboard", "epochs": 1})
    train_stacked([base.replace({"seed": seed, "run_dir": f"run{seed}"}) for seed in (0, 1)])
    assert {each.folder: each.epochs for each in fake.made} == {"run0": [1], "run1": [1]}
    assert all(len(each.ended) == 1 and each.ended[0] for each in fake.made)


def test_a_missing_package_and_unknown_names_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fields, "find_spec", lambda name: None)
    line = refusal(capsys, "--log", "wandb", "--run-dir", "run")
    assert "--log wandb: the package wandb is not installed: pip install 'fastnoise[wandb]'" in line
    assert not Path("run").exists()
    assert "--log tensorbord: unknown name 'tensorbord'; did you mean 'tensorboard'" in refusal(
        capsys, "--log", "tensorbord"
    )
    assert "unknown name ''" in refusal(capsys, "--log", "mlflow,")


def test_a_run_without_loggers_has_no_trace_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--limit-train", "100", "--epochs", "1", "--width", "0.25", "--run-dir", "run")
    assert main(["train", *words]) == 0
    assert "figures also" not in capsys.readouterr().out
    assert not {"tensorboard", "wandb", "mlruns", "loggers.json"} & {path.name for path in Path("run").iterdir()}


def test_numbers_of_an_epoch() -> None:
    figures = {"a": 1, "b": True, "c": "x", "d": None, "e": {"f": 0.5, "g": {"h": 2}}, "i": [0.1, None, 3]}
    assert dict(numbers(figures)) == {"a": 1.0, "e/f": 0.5, "e/g/h": 2.0, "i/0": 0.1, "i/2": 3.0}
    assert TensorBoard.identity == "tensorboard"
