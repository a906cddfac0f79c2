"""Training end to end through the command line: what it writes, resumes, refuses and reports."""

import json
import os
import pickle
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _forked import Forked
from _train_cases import assert_same_end, history, refusal, state

from fastnoise.cli import main
from fastnoise.data import load_dataset
from fastnoise.engine import RunFolder
from fastnoise.noise import NoisyLabels, corrupt

QUICK = ("--dataset", "digits", "--limit-train", "200", "--epochs", "4", "--width", "0.25", "--loader", "torch")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("method", ["ce", "elr", "nal", "swce_loss"])
@pytest.mark.parametrize("loader", ["dali", "torch"])
def test_every_method_trains_and_reports(
    method: str, loader: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if loader == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    assert main(["train", *QUICK, "--method", method, "--loader", loader, "--run-dir", "run"]) == 0
    output = capsys.readouterr().out
    assert f"loader: {loader}: {loader} was asked for;" in " ".join(output.split())
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    files = {
        "config.toml",
        "environment.json",
        "labels.npz",
        "classes.json",
        "metrics.jsonl",
        "checkpoint.pt",
        "model.safetensors",
        "scores.csv",
        "scores.npz",
        "summary.json",
    }
    corrects = method in ("nal", "elr")
    assert {path.name for path in run.iterdir()} == files | ({"corrected.csv", "corrected.npz"} if corrects else set())
    lines = history(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert summary["test_accuracy"]["last"] == lines[-1]["test_accuracy"]
    assert summary["test_accuracy"]["best"] == max(line["test_accuracy"] for line in lines)
    assert summary["test_accuracy"]["mean_last_10"] == pytest.approx(np.mean([line["test_accuracy"] for line in lines]))
    shares = summary["training_samples"]
    assert shares["clean_true"] + shares["clean_other"] == pytest.approx(1)
    assert sum(shares[f"mislabelled_{name}"] for name in ("true", "memorised", "other")) == pytest.approx(1)
    assert ("attention" in summary) == (method == "nal")
    assert ("correction_accuracy" in summary) == ("label_errors" in summary) == corrects
    for phrase in ("test accuracy, last epoch", "selected on test data", "mislabelled samples, memorised", "realised"):
        assert phrase in output
    assert ("AUROC" in output) == (method == "nal")


def test_what_the_method_makes_of_each_label_is_written(tmp_path: Path) -> None:
    words = [*QUICK, "--method", "elr", "--epochs", "20", "--val-fraction", "0.1", "--run-dir", "run"]
    assert main(["train", *words]) == 0
    run = tmp_path / "run"
    stored, summary = NoisyLabels.load(run / "labels.npz"), json.loads((run / "summary.json").read_text())
    header, *rows = [line.split(",") for line in (run / "corrected.csv").read_text().splitlines()]
    assert header == ["position", "given", "corrected", "confidence", "suspected", "true"]
    table = np.array(rows, dtype=float)
    position = table[:, 0].astype(int)
    assert len(set(position)) == len(rows) == 180
    assert np.array_equal(table[:, 1], stored.labels[position])
    assert stored.clean_labels is not None
    assert np.array_equal(table[:, 5], stored.clean_labels[position])
    assert np.array_equal(table[:, 4], table[:, 1] != table[:, 2])
    assert ((table[:, 3] >= 0) & (table[:, 3] <= 1)).all()
    suspected, wrong = table[:, 4] == 1, table[:, 1] != table[:, 5]
    errors = summary["label_errors"]
    assert errors["suspected"] == pytest.approx(suspected.mean())
    assert errors["precision"] == pytest.approx(wrong[suspected].mean())
    assert errors["recall"] == pytest.approx(suspected[wrong].mean())
    with np.load(run / "corrected.npz") as arrays:
        assert list(arrays) == header
        assert np.array_equal(arrays["corrected"], table[:, 2])


def test_the_noise_is_stored_and_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    for name, words in {"a": [], "b": ["--seed", "5"], "c": ["--noise-seed", "5"]}.items():
        assert main(["train", *QUICK, "--epochs", "1", "--run-dir", name, *words]) == 0
    first, second, third = (NoisyLabels.load(tmp_path / name / "labels.npz") for name in "abc")
    assert first.sha256 == second.sha256 != third.sha256
    assert first.requested_rate == 0.4
    assert 0.3 < first.realised_rate < 0.5
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["noise"]["realised_rate"] == first.realised_rate
    assert summary["noise"]["sha256"] == first.sha256


def test_runs_go_to_runs_and_never_into_one_another(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["train", *QUICK, "--epochs", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "nal-digits-symmetric-0.4-s0",
        "nal-digits-symmetric-0.4-s0-2",
    ]


def test_the_stored_configuration_repeats_the_run(tmp_path: Path) -> None:
    assert main(["train", *QUICK, "--method", "elr", "--run-dir", "first"]) == 0
    assert main(["train", "--config", "first/config.toml", "--run-dir", "second"]) == 0
    assert_same_end(tmp_path / "first", tmp_path / "second")


def test_last_batch_and_drop_last(tmp_path: Path) -> None:
    """200 samples in batches of 64: every sample is visited with the remainder, 192 of them without."""
    for name, words in {"all": [], "full": ["--drop-last"]}.items():
        assert main(["train", *QUICK, "--method", "elr", "--epochs", "1", "--run-dir", name, *words]) == 0
    visited = {
        name: int(state(tmp_path / name)["method"]["criterion.targets"].any(1).sum()) for name in ("all", "full")
    }
    assert visited == {"all": 200, "full": 192}


def test_validation_split_selects_without_test_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "--val-fraction", "0.2", "--run-dir", "run"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lines = history(tmp_path / "run")
    best = max(lines, key=lambda line: line["validation_accuracy"])
    assert summary["validation_accuracy"]["best"] == best["validation_accuracy"]
    assert len(state(tmp_path / "run")["method"]["criterion.targets"]) == 160
    assert "test accuracy at the best validation epoch" in capsys.readouterr().out


def test_nal_code_variant_leaves_targets_alone_before_es(tmp_path: Path) -> None:
    words = ("--variant", "code", "--update-from", "3", "--update-every", "2")
    assert main(["train", *QUICK, "--epochs", "3", "--run-dir", "before", *words]) == 0
    assert not state(tmp_path / "before")["method"]["criterion.targets"].any()
    assert main(["train", *QUICK, "--epochs", "4", "--run-dir", "after", *words]) == 0
    targets = state(tmp_path / "after")["method"]["criterion.targets"]
    assert targets.any(1).all()
    assert targets.min() >= 1e-4


def test_compiled_training_matches_eager_and_compiles_once(tmp_path: Path) -> None:
    """The same run compiled: same course within float32's reordering, and no recompilation for the last batch."""
    for name in ("off", "on"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        assert main(["train", *QUICK, "--epochs", "2", "--compile", name, "--run-dir", name]) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # of training: evaluation is not compiled
    assert not torch._dynamo.utils.counters["graph_break"]
    eager, compiled = history(tmp_path / "off"), history(tmp_path / "on")
    for first, second in zip(eager, compiled, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-3)
    table, other = (state(tmp_path / name)["method"]["criterion.targets"] for name in ("off", "on"))
    assert torch.linalg.vector_norm(table - other) < 1e-2 * torch.linalg.vector_norm(table)


# -- kill and resume ------------------------------------------------------------------------------------------


def wait_for_lines(run: Path, count: int, process: Forked) -> None:
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.mark.parametrize(("method", "loader", "every"), [("nal", "auto", "auto"), ("elr", "torch", "1")])
def test_killed_three_times_and_resumed_is_bit_identical(method: str, loader: str, every: str, tmp_path: Path) -> None:
    words = ("--method", method, "--dataset", "digits", "--epochs", "25", "--loader", loader, "--save-every", every)
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    run = tmp_path / "killed"
    command: tuple[str, ...] = (*words, "--run-dir", "killed")
    for lines, delay in ((1, 0.0), (8, 0.013), (16, 0.05)):  # right after an epoch, and somewhere inside one
        process = Forked("train", *command)
        wait_for_lines(run, lines, process)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert not (run / "summary.json").exists()
        command = ("--resume", "killed")
    assert main(["train", "--resume", "killed"]) == 0
    assert_same_end(tmp_path / "whole", run)
    assert len(json.loads((run / "environment.json").read_text())) == 4


def test_killed_before_the_first_checkpoint_starts_over(tmp_path: Path) -> None:
    assert main(["train", *QUICK, "--run-dir", "whole"]) == 0
    assert main(["train", *QUICK, "--run-dir", "cut"]) == 0
    for name in ("checkpoint.pt", "metrics.jsonl", "summary.json"):
        (tmp_path / "cut" / name).unlink()
    (tmp_path / "cut" / "checkpoint.pt.partial").write_bytes(b"half a checkpo")
    assert main(["train", "--resume", "cut"]) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / "checkpoint.pt.partial").exists()


@pytest.mark.parametrize(("number", "loader"), [(signal.SIGINT, "auto"), (signal.SIGTERM, "torch")])
def test_interruption_inside_an_epoch_saves_and_says_how_to_resume(number: int, loader: str, tmp_path: Path) -> None:
    words = ("--dataset", "digits", "--epochs", "8", "--loader", loader, "--batch-size", "16")
    assert main(["train", *words, "--run-dir", "whole"]) == 0
    process = Forked("train", *words, "--run-dir", "cut")
    wait_for_lines(tmp_path / "cut", 3, process)
    time.sleep(0.03)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert len(errors.splitlines()) == 1
    assert "go on with: fastnoise train --resume cut" in errors
    assert state(tmp_path / "cut")["epoch"] < 8
    assert main(["train", "--resume", "cut"]) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_resuming_a_complete_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "--run-dir", "run"]) == 0
    before = history(tmp_path / "run")
    assert main(["train", "--resume", "run"]) == 0
    assert history(tmp_path / "run") == before
    (tmp_path / "run" / "checkpoint.pt").unlink()  # as a sweep does
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    for words in ((), ("--epochs", "9")):
        said = refusal(capsys, "--resume", "run", *words)
        assert "run: the run is complete, and its checkpoint was removed; start a new run" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == kept


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "nla"), "unknown method 'nla'; did you mean 'nal'?"),
        (("--dataset", "digit"), "unknown dataset 'digit'; did you mean 'digits'?"),
        (("--epoch", "3"), "unknown option --epoch; did you mean '--epochs'?"),
        (("--noise", "symmetric:1.01"), "1.01"),
        (("--noise", "symmetric:nan"), "nan"),
        (("--noise", "asymmetric:0.4"), "digits"),
        (("--data-root", "nowhere", "--dataset", "mnist"), "--data-root nowhere: no such folder"),
        (("--dataset", "mnist", "--no-download"), "mnist"),
        (("--dataset", "folder:nowhere"), "nowhere"),
        (("--dataset", "folder:"), "needs the path of a folder after the colon"),
        (("--limit-train", "5000"), "digits has 1438 training images"),
        (("--limit-train", "60", "--val-fraction", "0.999"), "of 60 images leaves no image for training"),
        (("--width", "inf"), "--width must be positive, not inf"),
        (("--method", "bootstrap", "--beta", "1.5"), "--beta must lie in [0, 1], not 1.5"),
        (("--batch-size", "300", "--limit-train", "200", "--drop-last"), "drop"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "tpu9"), "--device tpu9"),
        (("--amp", "fp16", "--device", "cpu"), "--amp fp16 needs a GPU"),
    ],
)
def test_bad_options(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert message in refusal(capsys, *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(1438, 10), "labels.npy: position 0 holds 10, outside [0, 10)"),
        (np.full(1438, -2), "position 0 holds -2"),
        (np.full(1438, -1), "labels.npy: all of its labels are -1, which says that they are not known"),
        (np.zeros(1436, np.int64), "1436 labels for a training set of 1438 images"),
        (np.zeros(1438), "need integers [N], found float64 [1438]"),
        (np.zeros((1438, 1), np.int64), "found int64 [1438, 1]"),
        (None, "labels.npy: not a file of labels"),
    ],
)
def test_bad_label_files(labels: Any, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if labels is None:
        (tmp_path / "labels.npy").write_bytes(b"\x93NUMPY truncated")
    else:
        np.save("labels.npy", labels)
    assert message in refusal(capsys, "--dataset", "digits", "--labels", "labels.npy")


@pytest.mark.parametrize("source", ["labels.npz:mine", "labels.csv:label", "labels.txt"])
def test_label_files_are_trained_on(source: str, tmp_path: Path) -> None:
    given = np.random.default_rng(0).integers(0, 10, 1438)
    np.savez("labels.npz", mine=given, other=given + 1)
    Path("labels.txt").write_text("\n".join(map(str, given)))
    Path("labels.csv").write_text("image,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(given)))
    assert main(["train", *QUICK, "--epochs", "1", "--labels", source, "--run-dir", "run"]) == 0
    stored = NoisyLabels.load(tmp_path / "run" / "labels.npz")
    assert np.array_equal(stored.labels, given[:200])
    assert stored.realised_rate > 0.8


def test_noisy_labels_of_another_order_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = load_dataset("digits", tmp_path).train.labels
    corrupt(labels, "symmetric:0.4", seed=0, num_classes=10).save(tmp_path / "right.npz")
    assert main(["train", *QUICK, "--epochs", "1", "--labels", "right.npz", "--run-dir", "run"]) == 0
    corrupt(labels[::-1], "symmetric:0.4", seed=0, num_classes=10).save(tmp_path / "backwards.npz")
    first = np.flatnonzero(labels != labels[::-1])[0]
    message = f"made from other true labels than the data set's, {(labels != labels[::-1]).sum()} of {len(labels)}"
    refused = refusal(capsys, "--dataset", "digits", "--labels", "backwards.npz")
    assert message in refused
    assert f"the first at sample {first};" in refused


@pytest.mark.parametrize("noise", ["pmd:0.4,type=2", "idn:0.3,variant=score"])
def test_noise_from_posteriors(noise: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = load_dataset("digits", tmp_path).train.labels[:200]
    np.save("P.npy", 0.5 * np.eye(10)[labels] + 0.5 * np.random.default_rng(0).dirichlet(np.ones(10), 200))
    words = [*QUICK, "--epochs", "1", "--run-dir", "run", "--noise"]
    message = "needs the posteriors of a trained network: give posteriors=FILE.npy in the spec"
    assert message in refusal(capsys, *words, noise)
    assert main(["train", *words, f"{noise},posteriors=P.npy"]) == 0
    stored = NoisyLabels.load(tmp_path / "run" / "labels.npz")
    assert stored.spec == f"{noise},posteriors={Path('P.npy').absolute()}"  # a run is resumed from any folder
    assert stored.realised_rate == pytest.approx(stored.requested_rate, abs=0.1)


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_tampered_and_truncated_pickles(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(_Bomb()))
    words = ("--dataset", "cifar10", "--data-root", "root", "--no-download")
    assert "data_batch_1" in refusal(capsys, *words)
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q")
    assert "data_batch_1" in refusal(capsys, *words)
    assert not (tmp_path / "exploded").exists()


def test_unreadable_image_in_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / split / name / f"{number}.png")
    (tmp_path / "pets" / "train" / "dog" / "2.png").write_bytes(b"no image")
    assert str(Path("dog") / "2.png") in refusal(capsys, "--dataset", "folder:pets")


def test_truncated_and_foreign_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", *QUICK, "--run-dir", "run"]) == 0
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", pickle.dumps(_Bomb())):
        checkpoint.write_bytes(damaged)
        assert "checkpoint.pt is truncated or damaged" in refusal(capsys, "--resume", "run")
        assert checkpoint.read_bytes() == damaged
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    assert not (tmp_path / "exploded").exists()


def test_resume_with_another_configuration_names_the_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "--run-dir", "run"]) == 0
    capsys.readouterr()
    line = refusal(capsys, "--resume", "run", "--learning-rate", "0.5")
    assert "the run has learning_rate 0.1, not 0.5" in line
    assert main(["train", "--resume", "run", "--log-every", "7"]) == 0


def test_a_run_on_files_resumes_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for name, colour in (("dark", 20), ("light", 200)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), (colour + number,) * 3).save(tmp_path / "shades" / name / f"{number}.png")
    words = ("--dataset", "folder:shades", "--noise", "symmetric:0.2", "--model", "small_cnn", "--width", "0.25")
    assert main(["train", *words, "--epochs", "2", "--run-dir", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--resume", "../run"]) == 0


def test_compilation_asked_for_is_made_for_a_training_set_smaller_than_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # C++ takes ten seconds
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    words = ("--limit-train", "50", "--epochs", "1", "--width", "0.25", "--loader", "torch", "--compile", "on")
    assert main(["train", "--dataset", "digits", *words, "--run-dir", "run"]) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_a_folder_that_holds_something_is_left_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "is not empty and holds no run" in refusal(capsys, *QUICK, "--run-dir", "mine")
    assert main(["train", *QUICK, "--run-dir", "run"]) == 0
    capsys.readouterr()
    assert "--resume run" in refusal(capsys, *QUICK, "--run-dir", "run")


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_last_good_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refusal(capsys, *QUICK, "--method", "ce", "--learning-rate", "1e30", "--run-dir", "run")
    assert re.search(r"became NaN or infinite at step \d+ of epoch 1; there is no checkpoint yet", line)
    # A run that has gone well for one epoch and meets the wall in the second.
    assert (
        main(["train", *QUICK, "--method", "ce", "--epochs", "2", "--schedule", "multistep:1", "--run-dir", "good"])
        == 0
    )
    folder = RunFolder(tmp_path / "good")
    kept = folder.checkpoint.read_bytes()
    stored = torch.load(folder.checkpoint, weights_only=True)
    stored["networks"]["0.classifier.weight"].fill_(torch.inf)
    stored["epoch"] = 2
    stored["history"] = stored["history"][:1]
    folder.write_checkpoint(stored)
    spoilt = folder.checkpoint.read_bytes()
    assert kept != spoilt
    capsys.readouterr()
    assert "at step 1 of epoch 2; the last good checkpoint is kept in good" in refusal(capsys, "--resume", "good")
    assert folder.checkpoint.read_bytes() == spoilt


def test_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the write fails half-way, as it does there."""
    assert main(["train", *QUICK, "--epochs", "2", "--save-every", "1", "--run-dir", "run"]) == 0
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    stored = state(tmp_path / "run")
    stored["epoch"], stored["history"] = 2, stored["history"][:1]
    folder = RunFolder(tmp_path / "run")
    folder.write_checkpoint(stored)
    kept = folder.checkpoint.read_bytes()
    limit = len(kept) // 2
    process = Forked("train", "--resume", "run", limit=limit)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert len(errors.splitlines()) == 1
    assert "checkpoint.pt: File too large" in errors
    assert "the earlier file is untouched" in errors
    assert folder.checkpoint.read_bytes() == kept
    assert not list((tmp_path / "run").glob("*.partial"))
    assert main(["train", "--resume", "run"]) == 0


def test_no_space_left_on_the_device(tmp_path: Path) -> None:
    """The kernel's own ENOSPC, by way of /dev/full."""
    from fastnoise.errors import CheckpointError

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    folder = RunFolder(tmp_path)
    folder.write_checkpoint({"format": 1})
    kept = folder.checkpoint.read_bytes()
    (tmp_path / "checkpoint.pt.partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device; the earlier file is untouched"):
        folder.write_checkpoint({"format": 1, "tensor": torch.zeros(1_000_000)})
    assert folder.checkpoint.read_bytes() == kept
    assert not (tmp_path / "checkpoint.pt.partial").exists()
