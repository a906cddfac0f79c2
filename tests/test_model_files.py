"""The networks that come out of a run: model files, and what `fastnoise.load` makes of them."""

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import TWO_EPOCHS, history, killed_at
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import fastnoise
from fastnoise.cli import main
from fastnoise.engine import RunFolder
from fastnoise.engine.model_file import read_model, write_model
from fastnoise.engine.prepare import load_data
from fastnoise.engine.single import Single
from fastnoise.errors import CheckpointError, ConfigError, DataError, FastnoiseError
from fastnoise.files import PARTIAL
from fastnoise.methods import METHODS
from fastnoise.models import MODELS
from fastnoise.recipes import recipe

QUICK = ("--limit-train", "96", "--epochs", "2", "--batch-size", "32", "--width", "0.25", "--run-dir", "run")
OF_CLASSES = [name for name, method in METHODS.items() if method.tasks is None or "classification" in method.tasks]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(*words: str) -> Path:
    assert main(["train", *QUICK, *words]) == 0
    return Path("run")


def evaluated(run: Path, dataset: fastnoise.ImageDataset | None = None) -> tuple[Single, Tensor]:
    """The run as its last checkpoint has it, and the logits of its own evaluation of the test set."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    device = torch.device("cpu")
    checkpoint = folder.read_checkpoint(device)
    assert checkpoint is not None
    single = Single(config, load_data(config, dataset), device, Console(file=io.StringIO()), checkpoint)
    single.load([checkpoint])
    return single, torch.cat([outputs.logits for outputs, _ in single.answers(single.loaders.test)])


# -- the same answers as the run's evaluation ----------------------------------------------------------------


@pytest.mark.parametrize("method", OF_CLASSES)
def test_probabilities_are_those_of_the_runs_evaluation(method: str) -> None:
    run = trained("--method", method, "--dataset", "digits", *TWO_EPOCHS.get(method, ()))
    single, logits = evaluated(run)
    images = single.record.data.test.images
    assert images is not None
    predictor = fastnoise.load(run)
    assert len(predictor.networks) == METHODS[method].networks or method == "elr_plus"
    assert predictor.class_names == tuple("0123456789")
    for size in (1, 5, 64):
        found = predictor.predict(images, batch_size=size)
        assert found.dtype == np.float32
        assert found.shape == (len(images), 10)
        np.testing.assert_allclose(found, logits.softmax(1).numpy(), rtol=0, atol=1e-5)
    figures = predictor.evaluate([single.record.data.test], single.record.data.test.labels)[1]
    last = history(run)[-1]
    assert figures["accuracy"] == pytest.approx(last["test_accuracy"], abs=1e-12)
    assert figures["macro_f1"] == pytest.approx(last["test_macro_f1"], abs=1e-12)


def in_memory(task: str) -> fastnoise.ImageDataset:
    """Images whose corner says the answer, for a task of several labels or of values."""
    random = np.random.default_rng(0)
    images = random.integers(0, 80, (80, 8, 8), dtype=np.uint8)
    bits = random.integers(0, 2, (80, 3))
    images[:, 0, :3] += (160 * bits).astype(np.uint8)
    labels = bits if task == "multilabel" else 30.0 * bits[:, :2] - 7
    return fastnoise.ImageDataset.from_arrays(images, labels, task=task)


@pytest.mark.parametrize(
    ("task", "score"),
    [("multilabel", "mean_average_precision"), ("regression", "mse"), ("multitask", "accuracy")],
)
def test_other_tasks_answer_in_their_own_terms(task: str, score: str) -> None:
    dataset = None
    if task == "multitask":
        run = trained("--dataset", "two-tasks:of=digits,limit=120", "--model", "small_cnn")
    else:
        dataset = in_memory(task)
        changes = {"epochs": 2, "width": 0.25, "model": "small_cnn", "run_dir": "run"}
        fastnoise.train(recipe("plain", dataset.name, "none").replace(changes), dataset=dataset)
        run = Path("run")
    single, logits = evaluated(run, dataset)
    data = single.record.data
    predictor = fastnoise.load(run)
    assert predictor.task.outputs == data.class_names
    assert data.test.images is not None
    found = predictor.predict(data.test.images, batch_size=5)
    own: Any = data.task
    expected = {
        "multilabel": lambda: logits.sigmoid(),
        "regression": lambda: torch.from_numpy(own.values(logits.numpy())),
        "multitask": lambda: torch.cat([part.softmax(1) for part in logits.split(list(own.sizes), 1)], 1),
    }[task]()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    figures = predictor.evaluate([data.test], data.test.labels)[1]
    assert figures[score] == pytest.approx(history(run)[-1][f"test_{score}"], rel=1e-5)


def test_averages_and_what_a_method_adds_for_training_are_not_in_the_file() -> None:
    _, tensors = read_model(trained("--method", "simclr", "--dataset", "digits") / "model.safetensors")
    names = torch.load("run/checkpoint.pt", weights_only=True)["networks"]
    assert any("projector" in name for name in names)
    assert {name for name in names if "projector" not in name} == {name.removeprefix("networks.") for name in tensors}


# -- which epochs are kept -----------------------------------------------------------------------------------


def test_the_best_epoch_by_validation_is_kept_beside_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a kill and a resume too, for which the checkpoint and the best networks are written together."""
    words = ("--dataset", "digits", "--val-fraction", "0.3", "--learning-rate", "0.3", "--epochs", "7", "--seed", "3")
    run = trained(*words)
    lines = history(run)
    scores = [line["validation_accuracy"] for line in lines]
    best = int(np.argmax(scores)) + 1
    assert best < 7, "a run whose last epoch is not its best"
    kept, last = (read_model(run / name) for name in ("model-best.safetensors", "model.safetensors"))
    assert (kept[0].epoch, last[0].epoch) == (best, 7)
    assert kept[0].figures == {
        "test_accuracy": lines[best - 1]["test_accuracy"],
        "validation_accuracy": max(scores),
    }
    test = fastnoise.data.load_dataset("digits", None).test
    for predictor, line in (
        (fastnoise.load(run, best=True), lines[best - 1]),
        (fastnoise.load(run), lines[-1]),
    ):
        assert predictor.evaluate([test], test.labels)[1]["accuracy"] == pytest.approx(line["test_accuracy"], abs=1e-12)
    whole = [(run / name).read_bytes() for name in ("model-best.safetensors", "model.safetensors")]

    with monkeypatch.context() as patch:
        killed_at(patch, best * 3 + 2)  # of three steps an epoch: after the best one
        with pytest.raises(GeneratorExit):
            main(["train", *QUICK, *words, "--run-dir", "again", "--save-every", "1"])
    assert not Path("again/model.safetensors").exists(), "the run has not ended"
    assert main(["train", "--resume", "again"]) == 0
    assert [Path("again", name).read_bytes() for name in ("model-best.safetensors", "model.safetensors")] == whole


def test_a_run_of_an_earlier_version_gets_its_model_file_when_it_is_resumed() -> None:
    run = trained("--method", "ce", "--dataset", "digits")
    file = run / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(CheckpointError, match="fastnoise train --resume run writes it"):
        fastnoise.load(run)
    assert main(["train", "--resume", "run"]) == 0
    assert file.read_bytes() == content


def test_a_full_disk_leaves_the_earlier_file(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("--method", "ce", "--dataset", "digits")
    header, tensors = read_model(run / "model.safetensors")
    before = (run / "model.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; the earlier file is untouched"):
        write_model(run / "model.safetensors", header, tensors)
    assert (run / "model.safetensors").read_bytes() == before
    assert not list(run.glob(f"*{PARTIAL}"))


# -- networks, tasks and methods of one's own ----------------------------------------------------------------

OWN = """
import torch
from torch import nn
from fastnoise.methods import Method
from fastnoise.models import Outputs
from fastnoise.tasks.classification import Classification

open("was_run", "w").close()


class Linear(nn.Module):
    def __init__(self, channels, image_size, num_classes):
        super().__init__()
        self.layer = nn.Linear(channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


class Sum(Method):
    "Two networks, of which the second has half a vote, and a temperature that training sets."
    name = "sum"
    networks = 2

    def __init__(self, options, num_samples, num_classes):
        super().__init__(options, num_samples, num_classes)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("seen", torch.zeros(num_samples))
        self.per_sample = ("seen",)

    def training_step(self, networks, images, labels, index):
        from fastnoise.methods import Forward
        logits = [network(images).logits for network in networks]
        self.temperature += 0.1
        loss = sum(nn.functional.cross_entropy(each, labels) for each in logits)
        return Forward(loss, logits[0].detach().argmax(1))

    def predict(self, networks, images):
        first, second = (network(images).logits for network in networks)
        return Outputs((first + second / 2) / self.temperature)


class Named(Classification):
    def describe(self):
        return "classes of mine"
"""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("model", ("--model", "own.py:Linear", "--width", "1", "--method", "ce")),
        ("method", ("--method", "own.py:Sum")),
        ("task", ("--task", "own.py:Named", "--method", "ce")),
    ],
)
def test_code_of_the_users_own_is_run_where_it_is_named(kind: str, words: tuple[str, ...]) -> None:
    Path("own.py").write_text(OWN)
    run = trained("--dataset", "digits", *words)
    single, logits = evaluated(run)
    name = {"model": "own.py:Linear", "method": "own.py:Sum", "task": "own.py:Named"}[kind]
    moved = Path("elsewhere")
    moved.mkdir()
    Path("own.py").rename(moved / "own.py")
    Path("was_run").unlink()
    with pytest.raises(ConfigError, match=f"runs only code that you name; if you trust it, add --{kind} {name}"):
        fastnoise.load(run)
    with pytest.raises(ConfigError, match=f"has {kind} {name}; give the file that has it"):
        fastnoise.load(run, **{kind: "elsewhere/own.py:Other"})  # type: ignore[arg-type]
    assert not Path("was_run").exists()
    random = torch.get_rng_state()
    predictor = fastnoise.load(run, **{kind: f"elsewhere/{name}"})  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), random)
    assert Path("was_run").exists()
    images = single.record.data.test.images
    np.testing.assert_allclose(predictor.predict(images), logits.softmax(1).numpy(), rtol=0, atol=1e-5)
    text = safe_open(run / "model.safetensors", framework="pt").metadata()["fastnoise"]
    assert str(Path.cwd()) not in text, "no folder of whoever trained it"


def test_code_that_is_not_needed_is_refused() -> None:
    run = trained("--method", "ce", "--dataset", "digits")
    with pytest.raises(ConfigError, match="has model small_cnn, which needs no code; drop --model"):
        fastnoise.load(run, model="own.py:Linear")


def test_a_network_whose_state_is_no_tensor_trains_without_a_model_file(capsys: pytest.CaptureFixture[str]) -> None:
    extra = "        return self.layer(images.flatten(1))\n\n    def get_extra_state(self):\n        return 3\n\n"
    extra += "    def set_extra_state(self, state):\n        pass\n"
    Path("own.py").write_text(OWN.replace("        return self.layer(images.flatten(1))\n", extra))
    run = trained("--model", "own.py:Linear", "--width", "1", "--method", "ce", "--dataset", "digits")
    assert not (run / "model.safetensors").exists()
    said = " ".join(capsys.readouterr().out.split())
    assert "no model file: the network's state 0.module._extra_state is no tensor" in said


# -- files that are not as they should be --------------------------------------------------------------------


def rewritten(file: Path, **changes: Any) -> None:
    """Write a model file anew, with other fields in its header, and a checksum that fits."""
    header, tensors = read_model(file)
    write_model(file, dataclasses.replace(header, **changes), tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "header has model 3, not the name of a network"),
        ({"model": "resnet99"}, "its header names no network: unknown model 'resnet99'"),
        ({"task": "telling"}, "unknown task 'telling'"),
        ({"settings": {"sizes": 3}}, "does not fit the networks that its header names"),
        ({"width": 1e9}, "model.safetensors"),
        ({"width": 0.5}, "and the network that the header names has"),
        ({"networks": 2}, "does not hold the 2 networks"),
        ({"attention": True}, r"(lacks|Missing key)"),
        ({"mean": ["x"]}, r"header has mean \['x'\], not a number for each channel"),
        ({"std": [0.0]}, "header has std"),
        ({"image_size": [8]}, "not height and width"),
        ({"image_size": [True, 8]}, "not height and width"),
        ({"class_names": "abc"}, "not a list of names"),
        ({"class_names": ["a"]}, "model.safetensors"),
        ({"epoch": -1}, "not a number of epochs"),
    ],
)
def test_a_header_of_wrong_values_is_one_line(changes: dict[str, Any], message: str) -> None:
    file = trained("--method", "ce", "--dataset", "digits") / "model.safetensors"
    rewritten(file, **changes)
    with pytest.raises(FastnoiseError, match=message):
        fastnoise.load(file)


def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path) -> None:
    file = trained("--method", "ce", "--dataset", "digits") / "model.safetensors"
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + size].decode()
    other = text.replace('\\"epoch\\": 2', '\\"epoch\\": 1')
    assert other != text
    for damaged, message in {
        content[:-7]: "is truncated or no model file",
        content[:200]: "is truncated or no model file",
        content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]: "its checksum is not that of its content",
        content[:8] + other.encode() + content[8 + size :]: "its checksum is not that of its content",
        b"": "is truncated or no model file",
        b"PK\x03\x04" * 100: "is truncated or no model file",
    }.items():
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=message):
            fastnoise.load(file)
    save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="without a header of fastnoise"):
        fastnoise.load(file)
    with pytest.raises(CheckpointError, match="no such model file"):
        fastnoise.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is no run's folder"):
        fastnoise.load(tmp_path)
    with pytest.raises(CheckpointError, match="the run has no validation set; drop --best"):
        fastnoise.load("run", best=True)


@pytest.mark.parametrize("model", list(MODELS))
def test_every_network_comes_back(model: str) -> None:
    """Built without memory for its weights first: none of its parts may be computed when it is made and not stored."""
    torch.manual_seed(1)
    side = 32
    width = {"resnet50": 0.125, "linear": 1.0}.get(model, 0.25)
    network = fastnoise.models.create_model(
        model, num_classes=3, channels=1, image_size=(side, side), width=width
    ).eval()
    header = dataclasses.replace(
        read_model(trained("--method", "ce", "--dataset", "digits") / "model.safetensors")[0],
        model=model,
        width=width,
        class_names=("a", "b", "c"),
        image_size=(side, side),
    )
    weights = {f"0.{name}": value for name, value in network.state_dict().items()}
    write_model(Path("other.safetensors"), header, {f"networks.{name}": v.contiguous() for name, v in weights.items()})
    predictor = fastnoise.load("other.safetensors")
    images = torch.randn(2, 1, side, side)
    with torch.no_grad():
        assert torch.equal(predictor.outputs(images).logits, network(images).logits)


def test_predict_says_which_images_it_takes() -> None:
    predictor = fastnoise.load(trained("--method", "ce", "--dataset", "digits"))
    assert predictor.predict(np.zeros((0, 8, 8), np.uint8)).shape == (0, 10)
    for images in (np.zeros((2, 8, 8)), np.zeros((2, 9, 8), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)):
        with pytest.raises(DataError, match=r"images must be uint8 \[N, 8, 8, 1\], not "):
            predictor.predict(images)
    with pytest.raises(ConfigError, match="--batch-size must be at least 1, not 0"):
        predictor.predict(np.zeros((2, 8, 8), np.uint8), batch_size=0)
