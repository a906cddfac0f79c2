"""The SWCE pipeline: its timetable, selection, relabelling and copies, its guards, and that it finds true labels."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _scan_cases import scan_over
from torch import Tensor

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.engine import train
from fastnoise.engine.metrics import selection_figures
from fastnoise.engine.prepare import load_data, make_loaders
from fastnoise.errors import ConfigError
from fastnoise.methods import Run, Setting, random_numbers
from fastnoise.methods.swce import Place, SWCEPipeline, Timetable
from fastnoise.models import Outputs, create_model
from fastnoise.recipes import recipe

SHORT = ("--method", "swce", "--warm-up", "1", "--stages", "1,2;1,2", "--rate-factors", "1,1,0.1", "--epochs", "5")
QUICK = (*SHORT, "--limit-train", "200", "--width", "0.25", "--loader", "torch", "--learning-rate", "0.02")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pipeline(num_samples: int = 6, num_classes: int = 4, epochs: int = 4, **options: Any) -> SWCEPipeline:
    """A pipeline of two iterations with stages 1 and 2, and no warm-up."""
    changes = {"warm_up": 0, "stages": "1,2;1,2", "rate_factors": "1,1,0.1"} | options
    config = recipe("swce", "digits", "none").replace({"epochs": epochs} | changes)
    method = SWCEPipeline(config.method, num_samples, num_classes)
    method.configure(Setting(OptimConfig(epochs=epochs, learning_rate=0.5, weight_decay=0.03), (0.5,), (0.5,)))
    return method


class Stages:
    """Runs the hooks of a method between epochs, with logits of our own as the network's answers."""

    def __init__(self, method: SWCEPipeline, given: list[int]):
        self.method, self.warnings = method, list[str]()
        self.given, self.labels = torch.tensor(given), torch.tensor(given)
        self.passes = 0

    def epoch(self, number: int, logits: Tensor | None = None) -> None:
        def scan(of: Callable[..., Any], *, batch_statistics: bool = False) -> Any:
            assert logits is not None, "no stage, and yet the training set was evaluated"
            assert batch_statistics == (self.method.chosen.stage_statistics == "batch")
            self.passes += 1
            return scan_over(lambda: [Outputs(logits)])(of)

        self.method.end_epoch(
            Run(number, 4, 0, [], self.given, self.labels, scan, self.warnings.append)  # type: ignore[arg-type]
        )


def surely(*classes: int, num_classes: int = 4, height: float = 8.0) -> Tensor:
    """Logits that make each sample's class nearly certain; -1 leaves all classes alike."""
    chosen = torch.tensor(classes)
    return height * torch.nn.functional.one_hot(chosen.clamp(min=0), num_classes) * (chosen >= 0)[:, None]


def test_published_timetable() -> None:
    """Five epochs of warm-up, then 4, 7, 7 and 7 with their stages, rates and decay (paper, section IV.C)."""
    config = recipe("swce", "cifar10", "idn:0.3")
    method = SWCEPipeline(config.method, 10, 10)
    method.configure(Setting(config.optim, (0.5,), (0.5,)))
    stages = [epoch for epoch in range(1, 31) if method.timetable.place(epoch).stage is not None]
    assert stages == [7, 8, 9, 11, 14, 16, 18, 21, 23, 25, 28, 30]
    assert method.timetable.place(5) == Place(0, 5, None)
    assert method.timetable.place(16) == Place(2, 7, 2)
    phases = [method.phase(epoch) for epoch in range(1, 31)]
    rates = [1e-4] * 9 + [1e-5] * 14 + [1e-6] * 7
    assert [phase.learning_rate for phase in phases] == pytest.approx(rates)
    assert [phase.weight_decay for phase in phases] == [0.03] * 5 + [0.0] * 25
    assert [epoch for epoch, phase in enumerate(phases, 1) if phase.fresh] == [1, 6, 10, 17, 24]
    assert (config.model.model, config.optim.optimizer) == ("resnet18", "adamw")


def test_timetable_options() -> None:
    """Weight decay throughout, and the optimiser's state kept."""
    method = pipeline(decay_in="all", optimizer_state="kept")
    assert {method.phase(epoch).weight_decay for epoch in range(1, 5)} == {0.03}
    assert not any(method.phase(epoch).fresh for epoch in range(1, 5))
    assert Timetable(3, ((2,), (1, 4))).epochs == 9


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--epochs", "12"), "--epochs 12 contradicts method swce: a warm-up of 5 and iterations of 4 + 7 + 7 + 7"),
        (("--stages", "2,5,5"), "give rising epochs"),
        (("--stages", "2;x"), "write for example 2,3,4;2,5,7"),
        (("--rate-factors", "1,1", "--epochs", "30"), "--rate-factors has 2 factors: give one for the warm-up and one"),
        (("--rate-factors", "1,0"), "every factor must be positive"),
        (("--schedule", "cosine"), "its learning rate follows --rate-factors"),
        (("--selection-threshold", "0"), "--selection-threshold must be positive"),
        (("--copies", "-1"), "--copies must be 0 or more"),
        (("--method", "ce", "--copies", "2"), "--copies has no meaning for method ce"),
    ],
)
def test_contradictions_are_refused(words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *(() if "--method" in words else ("--method", "swce")), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert not Path("runs").exists()


def nce_and_mae(logits: Tensor, labels: Tensor) -> Tensor:
    """The selection loss as the paper writes it, in float64."""
    p = torch.softmax(logits.double(), 1)
    q = torch.nn.functional.one_hot(labels, logits.shape[1]).double()
    return (q * p.log()).sum(1) / p.log().sum(1) + (p - q).abs().sum(1)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Sums in one order: Adam divides by gradients near 0, and six epochs amplify what rounding differs by."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_pipeline_is_the_papers() -> None:
    """A whole run against its transcription: weights, labels, selections and losses of every epoch."""
    changes = {
        "warm_up": 1, "stages": "1,2;1,3", "rate_factors": "1,0.5,0.2", "epochs": 6, "learning_rate": 1e-2, "loader":
        "torch", "limit_train": 300, "width": 0.25, "batch_size": 20, "run_dir": "run", "selection_threshold": 1.2,
    }  # fmt: skip
    config = recipe("swce", "digits", "idn:0.3").replace(changes)
    summary = train(config)
    state = torch.load("run/checkpoint.pt", weights_only=True)

    task = load_data(config)
    given, clean = torch.from_numpy(task.given), task.clean
    assert clean is not None
    torch.manual_seed(config.engine.seed)
    network = create_model("small_cnn", num_classes=10, channels=1, image_size=(8, 8), width=0.25)
    loaders = make_loaders(config, task, torch.device("cpu"))
    everything = torch.cat([images for images, _ in loaders.train_in_order.epoch(0)])
    labels, members, losses = given.clone(), np.zeros(300, bool), []
    kept: list[set[int]] = []
    seen: list[Tensor] = []
    selected: list[int] = []
    for epoch in range(1, 7):
        iteration = 0 if epoch == 1 else 1 if epoch <= 3 else 2
        if epoch in (1, 2, 4):  # a fresh optimiser; decoupled decay in the warm-up alone
            rate = 1e-2 * (1, 0.5, 0.2)[iteration]
            optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.03 if epoch == 1 else 0)
            kept, seen = [], []
        order = None
        if members.any():
            three = np.concatenate([np.full(3 if members[i] else 1, i) for i in range(300)])
            order = random_numbers(0, epoch, 60).permutation(three)
            assert len(order) == 300 + 2 * members.sum()
        network.train()
        total = count = 0.0
        for images, index in loaders.train.epoch(epoch, 0, order):
            p = torch.softmax(network(images).logits, 1).gather(1, labels[index][:, None])
            loss = -(p.detach() * p.log()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + float(loss.detach()) * len(index), count + len(index)
        losses.append(total / count)
        if epoch in (2, 3, 4, 6):
            network.eval()
            with torch.no_grad():
                logits = network(everything).logits
            seen.append(logits.argmax(1))
            kept.append(set(torch.nonzero(nce_and_mae(logits, seen[-1]) < 1.2)[:, 0].tolist()))
            selected.append(len(kept[-1]))
        if epoch in (3, 6):
            common = {i for i in kept[0] & kept[1] if seen[0][i] == seen[1][i]}
            members = np.isin(np.arange(300), sorted(common))
            labels = torch.where(torch.from_numpy(members), seen[1], given)
            selected.append(len(common))

    history = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [epoch["train_loss"] for epoch in history] == pytest.approx(losses, rel=1e-4)
    found = [part["samples"] for epoch in history for part in epoch.get("selections", {}).values()]
    assert found == selected
    assert 0 < members.sum() < 300
    assert (labels != given).any()
    assert torch.equal(state["labels"], labels)
    assert np.array_equal(state["method"]["pseudo"].numpy() >= 0, members)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state["networks"][f"0.{name}"], value, rtol=1e-3, atol=1e-4)
    right = members & (labels.numpy() == clean)
    last = summary["selections"][-1]["consensus"]
    assert last["precision"] == pytest.approx(right.sum() / members.sum())
    assert last["recall"] == pytest.approx(right.sum() / 300)


def test_consensus_relabels_and_copies() -> None:
    """Members of all stages with one prediction are relabelled; the next iteration starts again from the given."""
    method = pipeline()
    run = Stages(method, [0, 1, 2, 3, 0, 1])
    assert method.order(1, 0) is None
    run.epoch(1, surely(0, 2, 2, -1, 1, 3))
    assert method.selections()["stage"].members.tolist() == [True, True, True, False, True, True]
    assert run.labels.tolist() == [0, 1, 2, 3, 0, 1]
    run.epoch(2, surely(0, 2, 2, 3, 2, 3))  # sample 3 was unsure, sample 4 has changed its mind
    assert run.labels.tolist() == [0, 2, 2, 3, 0, 3]
    assert method.selections()["consensus"].members.tolist() == [True, True, True, False, False, True]
    order = method.order(3, 0)
    assert order is not None
    assert np.bincount(order).tolist() == [3, 3, 3, 1, 1, 3]
    again = method.order(3, 0)
    assert again is not None
    assert np.array_equal(order, again)
    assert not np.array_equal(order, method.order(4, 0))
    estimates = method.estimates(Run(4, 4, 0, [], run.given, run.labels, list, print))  # type: ignore[arg-type]
    assert estimates.suspected.tolist() == [False, True, False, False, False, True]
    assert (estimates.confidence > 0.9).tolist() == [True, False, True, True, False, False]
    run.epoch(3, surely(0, -1, 1, 1, 0, 1))
    run.epoch(4, surely(0, -1, 1, 1, 0, 1))
    assert run.labels.tolist() == [0, 1, 1, 1, 0, 1]
    assert not run.warnings
    assert run.passes == 4


def test_pseudo_labels_kept() -> None:
    method = pipeline(pseudo_labels="kept")
    run = Stages(method, [0, 1, 2, 3, 0, 1])
    for epoch in (1, 2):
        run.epoch(epoch, surely(0, 2, 2, -1, 1, 3))
    for epoch in (3, 4):
        run.epoch(epoch, surely(0, -1, 1, 1, -1, 1))
    assert run.labels.tolist() == [0, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({}, [0, 2, 2, 3, 0, 1]),
        ({"agreement": "ignored"}, [0, 2, 2, 3, 2, 1]),
        ({"agreement": "ignored", "label_stage": "first"}, [0, 2, 2, 3, 1, 1]),
        ({"selection_label": "given"}, [0, 1, 2, 3, 0, 1]),  # with L1, whatever is selected is predicted as given
        ({"selection_threshold": 0.001}, [0, 1, 2, 3, 0, 1]),
        ({"selection_threshold": 2.0}, [0, 2, 2, 0, 0, 0]),  # even a guess, of all classes the first
        ({"selection_threshold": 1.01}, [0, 2, 2, 3, 0, 1]),
        ({"selection_threshold": 1.01, "mae": "reduced"}, [0, 2, 2, 0, 0, 0]),  # a guess among K has 1/K + (1 - 1/K)
    ],
)
def test_selection_options(option: dict[str, Any], expected: list[int]) -> None:
    method = pipeline(**option)
    run = Stages(method, [0, 1, 2, 3, 0, 1])
    run.epoch(1, surely(0, 2, 2, -1, 1, -1))
    run.epoch(2, surely(0, 2, 2, -1, 2, -1))
    assert run.labels.tolist() == expected


def test_focal_loss_selects() -> None:
    """Focal loss is taken from the cross-entropy in the table; its formula in float64 beside it."""
    method = pipeline(selection_loss="focal", gamma=1.5, train_loss="focal", selection_threshold=0.05)
    assert "gamma=1.5" in repr(method.criterion)
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3
    run = Stages(method, [0] * 6)
    run.epoch(1, logits)
    p = torch.softmax(logits.double(), 1).amax(1)
    expected = -((1 - p) ** 1.5) * p.log()
    torch.testing.assert_close(method.selection_losses(1)[0].double(), expected, rtol=1e-4, atol=1e-6)
    kept = method.selections()["stage"].members
    assert kept.tolist() == (expected < 0.05).tolist()
    assert 0 < kept.sum() < 6


def test_copies_in_batch() -> None:
    """Copies follow their sample; without copies the loader keeps its own order."""
    method = pipeline(copies=1, copies_in="batch")
    method.pseudo[1] = 2
    order = method.order(3, 0)
    assert order is not None
    first, second = np.flatnonzero(order == 1)
    assert second == first + 1
    assert sorted(order) == [0, 1, 1, 2, 3, 4, 5]
    method = pipeline(copies=0)
    method.pseudo[1] = 2
    assert method.order(3, 0) is None


def test_no_consensus_is_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty consensus warns with its cause, and the run goes on with the given labels and no copies."""
    assert main(["train", *QUICK, "--selection-threshold", "1e-9", "--run-dir", "run"]) == 0
    text = capsys.readouterr().out
    assert text.count("no sample has a loss below 1e-09 at all stages and one prediction") == 2
    assert "raise --selection-threshold" in text
    state = torch.load("run/checkpoint.pt", weights_only=True)
    assert (state["method"]["pseudo"] == -1).all()
    assert torch.equal(state["labels"], torch.from_numpy(np.load("run/corrected.npz")["given"]))
    assert json.loads(Path("run/summary.json").read_text())["selections"][-1]["consensus"]["samples"] == 0


def test_single_class_is_survived() -> None:
    """A consensus of one class relabels nothing, and the labels of an earlier iteration are not kept either."""
    method = pipeline()
    run = Stages(method, [0, 1, 2, 3, 0, 1])
    for epoch in (1, 2):
        run.epoch(epoch, surely(1, 2, 2, -1, 1, 3))
    for epoch in (3, 4):
        run.epoch(epoch, surely(3, 3, 3, 3, 3, -1))
    assert run.warnings == [
        "iteration 2: all 5 samples of the consensus are predicted as class 3; it relabels and copies no sample, "
        "and training continues"
    ]
    assert run.labels.tolist() == run.given.tolist()
    assert method.order(4, 0) is None


def test_network_without_a_number_makes_no_member() -> None:
    """NaN logits select nothing and leave the estimates defined."""
    method = pipeline()
    run = Stages(method, [0, 1, 2, 3, 0, 1])
    for epoch in (1, 2):
        run.epoch(epoch, torch.full((6, 4), torch.nan))
    assert run.labels.tolist() == run.given.tolist()
    assert len(run.warnings) == 1
    estimates = method.estimates(Run(4, 4, 0, [], run.given, run.labels, list, print))  # type: ignore[arg-type]
    assert (estimates.confidence == 0.5).all()


def test_resumes_inside_an_iteration_with_copies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the second iteration, whose epochs are longer than the training set, a run ends as if not."""
    words = ["train", *QUICK, "--noise", "idn:0.3", "--selection-threshold", "1.5", "--batch-size", "10"]
    assert main([*words, "--run-dir", "whole"]) == 0

    def interrupt(self: SWCEPipeline, epoch: int, batch: int, seed: int) -> None:
        if (epoch, batch) == (4, 21):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(SWCEPipeline, "before_step", interrupt)
        assert main([*words, "--run-dir", "parts"]) == 128 + signal.SIGINT
    assert "stopped in epoch 4 after 22 batches" in capsys.readouterr().err
    assert main(["train", "--resume", "parts"]) == 0
    whole, parts = (torch.load(f"{run}/checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert (whole["method"]["pseudo"] >= 0).any()
    for part in ("networks", "method"):
        for name, value in whole[part].items():
            assert torch.equal(value.nan_to_num(-7), parts[part][name].nan_to_num(-7)), name
    assert torch.equal(whole["labels"], parts["labels"])
    times = {"images_per_second", "data_wait", "seconds", "epoch_seconds"}
    first, second = (
        [{key: value for key, value in epoch.items() if key not in times} for epoch in state["history"]]
        for state in (whole, parts)
    )
    assert first == second


@pytest.mark.parametrize("noise_seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_consensus_labels_are_better_than_the_given(noise_seed: int) -> None:
    """Digits with 30 % instance-dependent noise, all options at their defaults: at every stage and iteration the
    selected samples' labels are right more often than their given ones, and than those of all samples."""
    words = ["train", "--method", "swce", "--noise", "idn:0.3", "--noise-seed", str(noise_seed), "--run-dir", "run"]
    assert main(words) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    given = 1 - summary["noise"]["realised_rate"]
    found = [part for epoch in summary["selections"] for name, part in epoch.items() if name != "epoch"]
    assert len(found) == 12 + 4
    for part in found:
        assert part["precision"] > max(part["given_precision"], given) + 0.1
        assert part["samples"] > 700
    assert summary["correction_accuracy"] > given + 0.15
    assert summary["label_errors"]["precision"] > 0.8


def test_stages_with_batch_statistics() -> None:
    """Stages see another network, and training goes on as if they had not looked."""
    histories = []
    for option in ("running", "batch"):
        words = ("train", *QUICK, "--copies", "0", "--selection-threshold", "1e-9", "--batch-size", "20")
        assert main([*words, "--stage-statistics", option, "--run-dir", option]) == 0
        histories.append([json.loads(line) for line in Path(option, "metrics.jsonl").read_text().splitlines()])
    running, batch = (torch.load(f"{run}/checkpoint.pt", weights_only=True) for run in ("running", "batch"))
    assert not torch.equal(running["method"]["tables.loss"], batch["method"]["tables.loss"])
    for name, value in running["networks"].items():
        assert torch.equal(value, batch["networks"][name])
    for key in ("train_loss", "test_accuracy", "test_macro_f1"):
        assert len({tuple(epoch[key] for epoch in history) for history in histories}) == 1


def test_step_compiles_whole() -> None:
    """Forward and loss of a step as one graph."""
    method = pipeline(num_samples=40, num_classes=10)
    network = create_model("small_cnn", num_classes=10, channels=1, image_size=(8, 8), width=0.25)
    images, index = torch.randn(8, 1, 8, 8), torch.arange(8)
    batch: Callable[..., Any] = lambda: method.training_step([network], images, index, index).loss  # noqa: E731
    compiled = torch.compile(batch, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), batch())


def test_consensus_feeds_dividemix() -> None:
    """The consensus labels of one run are the given ones of another."""
    words = ("train", *QUICK, "--noise", "idn:0.3", "--selection-threshold", "1.5", "--batch-size", "10")
    assert main([*words, "--run-dir", "first"]) == 0
    labels = np.load("first/corrected.npz")["corrected"]
    assert (labels != np.load("first/corrected.npz")["given"]).any()
    words = ("train", "--method", "dividemix", "--warm-up", "1", "--epochs", "2", "--limit-train", "200")
    assert main([*words, "--width", "0.25", "--labels", "first/corrected.npz:corrected", "--run-dir", "second"]) == 0
    assert np.array_equal(np.load("second/labels.npz")["labels"], labels)


def test_selection_figures() -> None:
    clean, given = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 0, 0, 0])
    members, labels = np.array([True, False, True, True, False]), np.array([0, 9, 2, 1, 9])
    assert selection_figures(members, labels, given, clean) == pytest.approx(
        {"samples": 3, "precision": 2 / 3, "given_precision": 1 / 3, "recall": 2 / 5, "recovered": 1 / 2}
    )
    assert selection_figures(members, labels, given, None) == {"samples": 3}
    assert selection_figures(np.zeros(5, bool), labels, clean, clean) == {"samples": 0, "recall": 0}


def test_options_are_checked_when_they_are_set() -> None:
    with pytest.raises(ConfigError, match="--stages must be a text, not None"):
        SWCEPipeline(recipe("swce", "digits").replace({"stages": None}).method, 4, 4)
