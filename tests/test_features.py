"""Frozen features: fastnoise features, the loader, and heads that are trained on them."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastnoise
from fastnoise import ImageDataset
from fastnoise.cli import main
from fastnoise.data import ImageTable, features, load_dataset, make_loader
from fastnoise.data.features import About, Content, FeatureFiles
from fastnoise.data.table import feature_statistics
from fastnoise.engine import extract as extraction
from fastnoise.engine import load
from fastnoise.engine.prepare import load_data
from fastnoise.engine.threads import step_threads
from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.methods import METHODS
from fastnoise.recipes import recipe

pytestmark = pytest.mark.usefixtures("forked_servers")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, and the features of its network."""
    root = tmp_path_factory.mktemp("features")
    assert main(["train", "--dataset", "digits", "--epochs", "3", "--run-dir", str(root / "run")]) == 0
    assert main(["features", "digits", "--model", str(root / "run"), "--out", str(root / "f.npy")]) == 0
    return root


def test_features_are_those_of_the_network_in_the_order_of_the_data_set(made: Path) -> None:
    predictor, digits = load(made / "run"), load_dataset("digits", None)
    features = np.load(made / "f.npy")
    assert features.dtype == np.float16
    assert features.shape == (1797, 64)
    start = 0
    for table in (digits.train, digits.test):
        assert table.images is not None
        images = predictor.normalised(torch.from_numpy(table.images))
        with torch.inference_mode():
            expected = predictor.networks[0](images).features
        found = torch.from_numpy(features[start : start + len(table)]).float()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)  # float16 has 11 bits
        start += len(table)


def test_the_data_set_of_features_has_the_labels_and_names_of_the_images(made: Path) -> None:
    digits, found = load_dataset("digits", None), load_dataset(f"features:{made / 'f.npy'}", None)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(found, part).labels, getattr(digits, part).labels)
        np.testing.assert_array_equal(getattr(found, part).origin, getattr(digits, part).origin)
        assert getattr(found, part).shape == (64, 1, 1)
    assert found.class_names == digits.class_names
    assert not found.given_labels
    mean, std = feature_statistics(np.load(made / "f.npy")[:1438])
    reference = np.load(made / "f.npy")[:1438].astype(np.float64)
    np.testing.assert_allclose(mean, reference.mean(0), rtol=1e-10)
    np.testing.assert_allclose(std, np.where(reference.std(0) > 0, reference.std(0), 1), rtol=1e-8)
    assert (found.mean, found.std) == (mean, std)
    about = json.loads((made / "f.json").read_text())
    assert about["rows"] == {"train": 1438, "test": 359}
    assert about["network"] == "small_cnn of run"
    assert len(about["weights"]) == 64


def test_an_extraction_that_was_cut_off_goes_on_and_gives_the_same_bytes(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made / "again.npy"
    words = ["features", "digits", "--model", str(made / "run"), "--out", str(out), "--batch-size", "100"]
    whole = made / "whole.npy"
    assert main([*words[:-4], "--out", str(whole), "--batch-size", "100"]) == 0
    computed = extraction.Extractor.features
    counts: list[int] = []

    def stopping(self: extraction.Extractor, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        if len(counts) == 17:  # in the test part
            raise KeyboardInterrupt
        return computed(self, images)

    monkeypatch.setattr(extraction.Extractor, "features", stopping)
    assert main(words) == 130
    assert not out.exists()
    with FeatureFiles(out).partial.open("ab") as stream:
        stream.write(b"half a row")
    assert main(["train", "--dataset", f"features:{out}", "--epochs", "1"]) == 2
    assert "is not finished; the same fastnoise features goes on with it" in capsys.readouterr().err
    assert main([*words[:-1], "64"]) == 2  # another batch size
    assert "is about other features; choose another --out, or remove it" in capsys.readouterr().err
    assert main(words) == 0
    assert sum(counts[17:]) == 1797 - 1438 - 100  # the training part and a batch of the test part were there
    assert out.read_bytes() == whole.read_bytes()
    count = len(counts)
    assert main(words) == 0  # nothing is left to do
    assert len(counts) == count


def test_images_are_resized_to_the_size_that_is_asked_for(made: Path) -> None:
    out = made / "large.npy"
    assert main(["features", "digits", "--model", str(made / "run"), "--image-size", "16", "--out", str(out)]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["image_size"] == [16, 16]
    assert not np.array_equal(np.load(out), np.load(made / "f.npy"))


class Columns(nn.Module):
    """Features that are the means of the columns of an image."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2))


@pytest.mark.parametrize("size", [(32, 64), (16, 32)])
def test_files_that_are_not_square_are_resized_once(size: tuple[int, int], tmp_path: Path) -> None:
    """To a height and a width: on the way over a square they would lose columns."""
    columns = np.random.default_rng(0).integers(0, 256, (1, 64, 3), np.uint8)
    image = Image.fromarray(columns.repeat(32, 0))
    image.save(tmp_path / "columns.png")
    table = ImageTable(np.zeros(1, np.int64), files=[str(tmp_path / "columns.png")])
    mean, std = (0.0,) * 3, (1.0,) * 3
    extractor = extraction.Extractor("columns", [Columns(size[1])], size, 3, mean, std)  # type: ignore[list-item]
    dataset = ImageDataset("columns", table, table, ("a", "b"), mean, std)
    extraction.extract(dataset, extractor, tmp_path / "f.npy", CPU, batch_size=1, threads=1)
    wanted = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).mean((0, 2)) / 255
    np.testing.assert_allclose(np.load(tmp_path / "f.npy"), np.stack([wanted, wanted]), atol=0.02)  # of any decoder


def test_several_networks_give_their_features_side_by_side(made: Path) -> None:
    words = ["train", "--dataset", "digits", "--method", "coteaching", "--epochs", "1"]
    assert main([*words, "--run-dir", str(made / "two")]) == 0
    assert main(["features", "digits", "--model", str(made / "two"), "--out", str(made / "two.npy")]) == 0
    features = np.load(made / "two.npy")
    assert features.shape == (1797, 128)
    assert not np.array_equal(features[:, :64], features[:, 64:])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_a_head_on_features_or_says_why_not(made: Path, method: str, tmp_path: Path) -> None:
    name = f"features:{made / 'f.npy'}"
    least = {"swce": 26, "swce_dividemix": 32}  # what their stages take
    config = recipe(method, name, "symmetric:0.4").replace({"epochs": least.get(method, 2)})
    short = {"warm_up": 1}
    config = config.replace({key: value for key, value in short.items() if key in config.flat()})
    config = config.replace({"run_dir": str(tmp_path / "run")})
    if method in ("simclr", "multitask", "c2d"):
        with pytest.raises(FastnoiseError):
            fastnoise.train(config)
        return
    summary = fastnoise.train(config)
    assert 0 <= summary["test_accuracy"]["last"] <= 1
    assert len(load(tmp_path / "run").predict(np.load(made / "f.npy")[:5])) == 5


def test_a_head_on_features_reaches_what_its_network_reached(made: Path, tmp_path: Path) -> None:
    config = recipe("gce", f"features:{made / 'f.npy'}", "symmetric:0.4")
    config = config.replace({"learning_rate": 0.01, "run_dir": str(tmp_path / "run")})
    assert fastnoise.train(config)["test_accuracy"]["last"] > 0.85


def test_a_run_on_features_that_was_cut_off_goes_on_to_the_same_weights(made: Path, tmp_path: Path) -> None:
    config = recipe("elr", f"features:{made / 'f.npy'}", "symmetric:0.4").replace({"epochs": 4, "model": "mlp"})
    fastnoise.train(config.replace({"run_dir": str(tmp_path / "whole")}))
    fastnoise.train(config.replace({"epochs": 4, "run_dir": str(tmp_path / "part")}).replace({"schedule": "constant"}))
    whole = config.replace({"schedule": "constant"})
    fastnoise.train(whole.replace({"epochs": 2, "run_dir": str(tmp_path / "cut")}))
    fastnoise.train(whole.replace({"run_dir": str(tmp_path / "cut")}), resume=True)
    states = [load(tmp_path / name).state_dict() for name in ("part", "cut")]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_predict_evaluate_and_clean_take_features(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"features:{made / 'f.npy'}"
    assert main(["train", "--dataset", name, "--noise", "none", "--method", "ce", "--run-dir", "run"]) == 0
    assert main(["evaluate", "run", name, "--out", "figures.json"]) == 0
    figures = json.loads(Path("figures.json").read_text())
    assert figures["images"] == 359
    assert main(["predict", "run", name, "--out", "all.csv"]) == 0
    lines = Path("all.csv").read_text().splitlines()
    assert len(lines) == 1798
    truth = load_dataset("digits", None).test.labels
    predicted = np.array([int(line.split(",")[1]) for line in lines[1 + 1438 :]])
    assert np.isclose((predicted == truth).mean(), figures["accuracy"])
    Path("alone").mkdir()
    np.save("alone/new.npy", np.load(made / "f.npy")[:7])  # without anything beside it
    capsys.readouterr()
    assert main(["predict", "run", "features:alone/new.npy"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main(["clean", name, "--noise", "symmetric:0.2", "--folds", "2", "--epochs", "5", "--jobs", "1"]) == 0
    found = json.loads(next(Path("cleaned").rglob("finding.json")).read_text())
    assert found["images"] == 1438
    assert found["measured"]["rate"] == pytest.approx(0.2, abs=0.02)


def test_the_loader_gathers_normalised_rows_in_the_plan_s_order() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (23, 5)).astype(np.float16)
    table = ImageTable(np.zeros(23, np.int64), images=features[:, None, None])
    mean, std = (1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 2.0, 1.0, 2.0, 1.0)
    options = {"batch_size": 4, "mean": mean, "std": std, "device": CPU, "seed": 3, "shuffle": True}
    loader = make_loader("auto", table, **options, views=2)  # type: ignore[arg-type]
    assert loader.name == "features"
    seen = []
    for images, index in loader.epoch(2):
        assert images.shape == (2 * len(index), 5, 1, 1)
        expected = (features[index.numpy()].astype(np.float32) - np.float32(mean)) / np.float32(std)
        for view in images.chunk(2):
            np.testing.assert_allclose(view[:, :, 0, 0].numpy(), expected, rtol=1e-6)
        seen += index.tolist()
    assert sorted(seen) == list(range(23))
    later = [index.tolist() for _, index in loader.epoch(2, start_batch=3)]
    assert [place for batch in later for place in batch] == seen[12:]
    order = np.array([5, 5, 1])
    assert [index.tolist() for _, index in loader.epoch(0, order=order)] == [[5, 5, 1]]


def test_rows_that_lie_one_behind_the_other_are_not_copied() -> None:
    features = np.zeros((10, 1, 1, 4), np.float16)
    table = ImageTable(np.arange(10), images=features)
    assert np.shares_memory(table.take(np.arange(2, 7)).images, features)  # type: ignore[arg-type]
    taken = table.take(np.array([2, 4]))
    assert taken.labels.tolist() == [2, 4]
    assert not np.shares_memory(taken.images, features)  # type: ignore[arg-type]


def test_steps_on_features_take_one_thread(made: Path) -> None:
    config = recipe("gce", f"features:{made / 'f.npy'}", "symmetric:0.4")
    data = load_data(config)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with step_threads(config, data, CPU):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_features_in_memory_are_a_data_set_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = (rng.normal(0, 1, (200, 8)) + 3 * labels[:, None]).astype(np.float32)
    dataset = ImageDataset.from_arrays(features, labels)
    assert dataset.train.is_features
    config = recipe("ce", f"features:{tmp_path}/none.npy", "none").replace({"epochs": 20, "learning_rate": 0.05})
    config = config.replace({"dataset": "arrays", "run_dir": str(tmp_path / "run")})
    assert fastnoise.train(config, dataset=dataset)["test_accuracy"]["last"] > 0.95
    with pytest.raises(ConfigError, match="--model small_cnn is for images"):
        fastnoise.train(config.replace({"model": "small_cnn", "run_dir": None}), dataset=dataset)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method simclr --noise none", "--method simclr changes colours and places of images"),
        ("--model resnet18", "--model resnet18 is for images"),
        ("--flip", "has features, which have no pixels: write --crop-padding 0 --no-flip"),
        ("--augment flip", "has features, which have no pixels"),
        ("--model linear --width 2", "--width 2.0: linear has no hidden layer"),
        ("--loader dali", "the dali loader makes batches of images, and these are features"),
        ("--image-size 32", "--image-size resizes image files"),
    ],
)
def test_what_needs_pictures_is_refused_in_one_line(
    made: Path, words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = ["--run-dir", str(tmp_path / "run")]
    assert main(["train", "--dataset", f"features:{made / 'f.npy'}", *words.split(), *run]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("digits --model resnet18 --out x.npy", "--model resnet18 alone has random weights"),
        ("digits --model RUN --out x.bin", "features are .npy files"),
        ("digits --model RUN --out no/x.npy", "no such folder"),
        ("digits --model RUN", "give a data set, --model and --out"),
        ("digits --model RUN --out x.npy --batch-size 0", "--batch-size must be at least 1"),
        ("digits --model RUN --out x.npy --normalisation cifar10", "is for images of 3 channels; digits has 1"),
        ("digits --model torchvision:resnet18 --out x.npy", "--model torchvision:resnet18 alone has random weights"),
        ("digits --model RUN --out x.npy --limit-train 2000", "digits has 1438 training images"),
        ("features:F --model RUN --out x.npy", "has features already; give images"),
        ("digits --model RUN --encoder e.pt --out x.npy", "has weights of its own; drop --encoder"),
        ("digits --model small_cn --out x.npy", "unknown model 'small_cn'"),
    ],
)
def test_an_extraction_that_makes_no_sense_is_refused_in_one_line(
    made: Path,
    words: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words.replace("RUN", str(made / "run")).replace("features:F", f"features:{made / 'f.npy'}")
    assert main(["features", *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_damaged_files_of_features_are_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    def copy() -> FeatureFiles:
        for suffix in (".npy", ".json", ".npz"):
            (tmp_path / f"f{suffix}").write_bytes((made / f"f{suffix}").read_bytes())
        return FeatureFiles(tmp_path / "f.npy")

    def refused(said: str) -> None:
        with pytest.raises(DataError, match=said):
            load_dataset(f"features:{tmp_path / 'f.npy'}", None)

    refused("no such file; make it by fastnoise features")
    files = copy()
    files.features.write_bytes(files.features.read_bytes()[:1000])
    refused("is cut off or no .npy file")
    files = copy()
    np.save(files.features, np.zeros((5, 64), np.float16))
    refused(r"holds \[5, 64\], and f.json speaks of \[1797, 64\]")
    files = copy()
    np.save(files.features, np.zeros((5, 64), np.int64))
    refused("must hold float16 or float32")
    files = copy()
    files.about.write_text("{")
    refused("f.json is damaged")
    files = copy()
    files.labels.write_bytes(b"no archive")
    refused("f.npz is damaged")
    files = copy()
    files.labels.unlink()
    refused("f.npz: no such file")


def test_features_of_another_network_are_refused(made: Path, tmp_path: Path) -> None:
    name = f"features:{made / 'f.npy'}"
    assert main(["train", "--dataset", name, "--epochs", "1", "--run-dir", str(tmp_path / "head")]) == 0
    words = ["train", "--dataset", "digits", "--epochs", "1", "--seed", "5", "--run-dir", str(tmp_path / "other")]
    assert main(words) == 0
    out = tmp_path / "other.npy"
    assert main(["features", "digits", "--model", str(tmp_path / "other"), "--out", str(out)]) == 0
    predictor = load(tmp_path / "head")
    with pytest.raises(DataError, match="these are features of small_cnn of other"):
        predictor.fitting(load_dataset(f"features:{out}", None).test)


def test_a_run_does_not_go_on_with_features_of_another_network(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("npy", "json", "npz"):
        shutil.copy(made / f"f.{ending}", tmp_path)
    words = ["--dataset", f"features:{tmp_path / 'f.npy'}", "--method", "gce", "--epochs", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "head")]) == 0
    about = json.loads((tmp_path / "f.json").read_text())
    (tmp_path / "f.json").write_text(json.dumps({**about, "weights": "0" * 64}))
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "head"), "--epochs", "2"]) == 2
    assert (
        "the network of its features, or its list of images, classes or labels has changed" in capsys.readouterr().err
    )


def test_changed_rows_beside_the_same_description_are_noticed(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("npy", "json", "npz"):
        shutil.copy(made / f"f.{ending}", tmp_path)  # whose times of change are others
    path, name = tmp_path / "f.npy", f"features:{tmp_path / 'f.npy'}"
    words = ["--dataset", name, "--method", "gce", "--epochs", "1"]
    assert main(["train", *words, "--run-dir", str(tmp_path / "head")]) == 0
    rows = np.load(path)
    rows[1000, 5] += 1
    np.save(path, rows)
    capsys.readouterr()
    for command in (
        ["train", "--resume", str(tmp_path / "head"), "--epochs", "2"],
        ["predict", tmp_path / "head", name],
    ):
        assert main(list(map(str, command))) == 2
        error = capsys.readouterr().err
        assert f"{path} has changed since f.json was written" in error
        assert error.count("\n") == 1
    about = json.loads((tmp_path / "f.json").read_text())
    changed = dataclasses.asdict(Content.of(path))
    (tmp_path / "f.json").write_text(json.dumps({**about, "content": changed}))  # as a new extraction leaves it
    assert main(["train", "--resume", str(tmp_path / "head"), "--epochs", "2"]) == 2
    assert "the file or the network of its features" in capsys.readouterr().err
    (tmp_path / "f.json").write_text(json.dumps({**about, "content": {"size": "x"}}))
    assert main(["train", *words]) == 2
    assert "f.json is damaged" in capsys.readouterr().err


def test_what_is_known_of_the_labels_goes_with_the_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given, clean = np.arange(60) % 3, (np.arange(60) + (np.arange(60) % 7 == 0)) % 3
    clean[::5] = -1
    images = ImageDataset.from_arrays(rng.integers(0, 255, (60, 8, 8), np.uint8), given, clean_labels=clean)
    images = dataclasses.replace(images, validation=images.test, validation_clean=images.test_clean)
    files, rows = FeatureFiles(tmp_path / "f.npy"), rng.normal(0, 1, (72, 4)).astype(np.float16)
    np.save(files.features, rows)
    counts = {"train": 48, "validation": 12, "test": 12}
    about = About("arrays", images.list_hash, "net", "", (8, 8), images.mean, images.std, counts, 4, 64)
    features.write_labels(files, images)
    features.write_about(files, about, feature_statistics(rows[:48]), Content.of(files.features))
    found = load_dataset(f"features:{files.features}", None)
    for name in ("clean_labels", "test_given", "test_clean", "validation_clean"):
        np.testing.assert_array_equal(getattr(found, name), getattr(images, name))
    assert (found.test_labels, images.test_labels) == ("partly given", "partly given")


def test_the_hash_of_a_large_file_is_of_blocks_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_BLOCK", 10)
    monkeypatch.setattr(features, "_MOST", 4)
    path = tmp_path / "f"
    path.write_bytes(bytes(range(40)))
    assert Content.of(path).sha256 == hashlib.sha256(bytes(range(40))).hexdigest()
    content = bytes(range(85))  # nine blocks, of which the first, third, sixth and last count
    path.write_bytes(content)
    parts = content[:10] + content[20:30] + content[50:60] + content[80:]
    found = Content.of(path)
    assert found.sha256 == hashlib.sha256(parts).hexdigest()
    assert found.is_of(path)
    os.utime(path, ns=(1, 1))
    assert found.is_of(path)
    path.write_bytes(content[:-1] + b"x")
    assert not found.is_of(path)
    path.write_bytes(content + b"x")
    assert not found.is_of(path)


def test_a_file_of_the_user_beside_the_features_is_not_overwritten(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "digits.npz", mine=np.arange(3))
    kept = (tmp_path / "digits.npz").read_bytes()
    assert main(["features", "digits", "--model", str(made / "run"), "--out", str(tmp_path / "digits.npy")]) == 2
    assert "digits.npz is there already; choose another --out, or remove it" in capsys.readouterr().err
    assert (tmp_path / "digits.npz").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["digits.npz"]


def test_features_and_runs_do_not_go_on_with_a_list_whose_other_labels_or_images_changed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(0), ["path,label,clean_label,split"]
    for number in range(20):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{number % 2},{('train', 'train', 'val', 'test')[number // 2 % 4]}")
    said, changed = "\n".join(lines), "before images, labels for validation or true ones changed"
    small = ["--model", "small_cnn", "--width", "0.125", "--image-size", "8", "--batch-size", "4", "--method", "ce"]

    def answer(words: list[str], code: int) -> str:
        assert main(words) == code
        return capsys.readouterr().err

    Path("l.csv").write_text(said)
    answer(["train", "--dataset", "list:l.csv", *small, "--epochs", "1", "--run-dir", "run"], 0)
    features = ["features", "list:l.csv", "--model", "run", "--out", "f.npy"]
    answer(features, 0)
    answer(features, 0)
    for before, after in (("4.png,0,0,val", "4.png,1,0,val"), ("0.png,0,0,train", "0.png,0,1,train")):
        Path("l.csv").write_text(said.replace(before, after))
        assert changed in answer(features, 2)
        assert "classes or labels has changed" in answer(["train", "--resume", "run", "--epochs", "2"], 2)
    Path("l.csv").write_text(said)
    os.utime("3.png", (1, 1))
    assert changed in answer(features, 2)
    about = json.loads(Path("f.json").read_text())  # as earlier versions wrote it
    Path("f.json").write_text(
        json.dumps({key: value for key, value in about.items() if key not in ("rest_hash", "files")})
    )
    answer(features, 0)
    starts = json.loads(Path("run/environment.json").read_text())
    del starts[0]["data_rest"]
    Path("run/environment.json").write_text(json.dumps(starts))
    answer(["train", "--resume", "run", "--epochs", "2"], 0)


def test_values_that_float16_cannot_hold_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text(
        "import torch\n"
        "class Big(torch.nn.Module):\n"
        "    num_features = 2\n"
        "    def __init__(self, **shape):\n"
        "        super().__init__()\n"
        "    def forward(self, images):\n"
        "        return torch.full((len(images), 2), 1e6)\n"
    )
    words = ["features", "digits", "--model", f"{tmp_path / 'big.py'}:Big", "--out", str(tmp_path / "f.npy")]
    code = "import sys; from fastnoise.cli import main; sys.exit(main(sys.argv[1:]))"
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "the features of train image 0 are not finite, or above float16's 65504" in found.stderr
