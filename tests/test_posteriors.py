"""fastnoise posteriors: what a network says of each image while it learns, and PMD noise from it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastnoise.cli import main
from fastnoise.engine.prepare import load_data
from fastnoise.methods import METHODS
from fastnoise.methods.options import MethodOptions
from fastnoise.models import Outputs
from fastnoise.recipes import recipe

SMALL = ("--dataset", "digits", "--model", "small_cnn", "--width", "0.25", "--epochs", "3", "--device", "cpu")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_last_epoch_as_training_saw_it() -> None:
    """A sample's probabilities are those of its last batch, before the step."""
    method = METHODS["posteriors"](MethodOptions(method="posteriors"), 4, 3)
    first, second = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    for logits, index in ((first, [0, 2]), (second, [2, 3])):
        loss = method.loss(Outputs(logits, torch.empty(2, 0)), torch.tensor([0, 1]), torch.tensor(index))
        assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).item())
    expected = torch.stack([first[0], torch.full((3,), -torch.inf), second[0], second[1]]).softmax(1).nan_to_num(0)
    assert torch.allclose(method.probs, expected, atol=1e-6)


def test_pmd_noise_from_one_command_to_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["posteriors", "--out", "p.npy", *SMALL, "--run-dir", "clean"]) == 0
    probs = np.load("p.npy")
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx(np.ones(len(probs)), abs=1e-5)
    assert "noise none" in Path("clean/config.toml").read_text().replace(" = ", " ").replace('"', "")
    capsys.readouterr()
    words = ["--dataset", "digits", "--noise", "pmd:0.35,posteriors=p.npy", "--out", "noisy.npz"]
    assert main(["corrupt", *words]) == 0
    with np.load("noisy.npz") as file:
        labels = file["labels"]
    top = np.sort(probs, 1)[:, -2:]
    assert len(labels) == len(probs)
    rows = np.arange(len(labels))
    assert (probs[rows, labels] >= top[:, 0]).all()  # the likeliest class, or the second


def test_a_stopped_run_goes_on_to_the_same_file() -> None:
    assert main(["posteriors", "--out", "whole.npy", *SMALL, "--run-dir", "whole"]) == 0
    assert main(["posteriors", "--out", "part.npy", *SMALL, "--run-dir", "part", "--save-every", "1"]) == 0
    assert main(["posteriors", "--out", "again.npy", "--resume", "part"]) == 0
    assert np.array_equal(np.load("whole.npy"), np.load("again.npy"))


def test_held_out_images_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["posteriors", "--out", "p.npy", *SMALL, "--val-fraction", "0.1"]) == 2
    assert "held out get no posteriors; drop it" in capsys.readouterr().err
    assert not Path("p.npy").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [((), "fastnoise posteriors needs --out FILE"), (("--out", "p.npy", "--method", "ce"), "drop --method")],
)
def test_refuses(words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["posteriors", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_file_of_options_brings_no_noise(capsys: pytest.CaptureFixture[str]) -> None:
    Path("o.toml").write_text("epochs = 5\n")
    for more, noise in (((), "none"), (("--noise", "pair:0.2"), "pair:0.2")):
        assert main(["posteriors", "--out", "p.npy", *SMALL, "--config", "o.toml", *more, "--dry-run"]) == 0
        assert f'\nnoise = "{noise}"' in capsys.readouterr().out


def test_the_recipe_is_that_of_plc_s_code() -> None:
    """FIELD: a plain ResNet-34, SGD with Nesterov momentum at 1e-3, weight decay 5e-4, batch 128, crop and flip."""
    config = recipe("posteriors", "cifar10", "none")
    assert (config.model.model, config.data.batch_size, config.data.crop_padding) == ("resnet34", 128, 4)
    assert config.data.flip
    assert (config.optim.optimizer, config.optim.learning_rate) == ("sgd:momentum=0.9,nesterov", 1e-3)
    assert (config.optim.weight_decay, config.optim.epochs, config.optim.schedule) == (5e-4, 25, "constant")
    assert config.data.val_fraction == 0


def test_labels_of_plc_s_files_say_how_they_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """PLC's files have labels of the first 45,000 images; here of the first 1,000."""
    np.save("plc.npy", np.arange(1000) % 10)
    words = ["train", "--labels", "plc.npy", *SMALL, "--method", "ce"]
    assert main([*words, "--epochs", "1"]) == 2
    assert "--limit-train 1000 to train on the first 1000" in capsys.readouterr().err
    assert main([*words, "--epochs", "1", "--limit-train", "1000"]) == 0


def test_true_labels_are_learnt_where_they_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    """By posteriors alone: other methods learn from the given labels of the same list."""
    from PIL import Image

    lines = ["path,label,clean_label"]
    for number in range(24):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(f"{number:02}.png")
        given, true = ("ab"[number % 2], "ab"[number // 2 % 2])
        lines.append(f"{number:02}.png,{given},{true if number < 16 else ''}")
    Path("list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = recipe("posteriors", "list:list.csv", "none", model="small_cnn")
    data, other = (load_data(config.replace({"method": method})) for method in ("posteriors", "ce"))
    assert data.clean is not None
    known = data.clean >= 0
    assert (data.given[known] == data.clean[known]).all()
    assert (data.given[~known] == other.given[~known]).all()
    assert other.clean is not None
    wrong = int((other.given[known] != other.clean[known]).sum())
    assert wrong > 0
    note = f"learnt from are the true labels of {known.sum()} images, of which {wrong} have another label, and the "
    assert note + f"given ones of the other {(~known).sum()}" in data.notes
    words = ["--dataset", "list:list.csv", "--model", "small_cnn", "--width", "0.25", "--epochs", "1"]
    assert main(["posteriors", "--out", "p.npy", *words, "--batch-size", "8"]) == 0
    assert note in capsys.readouterr().out.replace("\n", " ")
    assert np.load("p.npy").shape == (len(data.given), 2)
