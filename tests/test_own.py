"""Code and arrays that users bring: what is refused, each in one line, and what is looked up without torch."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import _manual
import numpy as np
import pytest
import torch
from _noise_cases import refused
from torch import nn

import fastnoise
from fastnoise import ImageDataset, own
from fastnoise.cli import main
from fastnoise.config import DataConfig, ModelConfig, NoiseConfig
from fastnoise.data import DATASETS, load_dataset
from fastnoise.engine.prepare import load_data
from fastnoise.errors import CheckpointError, ConfigError, DataError, FastnoiseError
from fastnoise.models import MODELS, create_model
from fastnoise.noise import corrupt, parse
from fastnoise.noise.names import NOISES
from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import resolve

LABELS = np.arange(200) % 5
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 6, 4, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "mine.py") -> None:
    Path(name).write_text(text, encoding="utf-8")


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", own.KINDS)
def test_files_that_cannot_be_used(kind: own.Kind) -> None:
    with refused(ConfigError, f"--{kind} none.py:x", "there is no file", "none.py"):
        own.load("none.py:x", kind)
    write("raise OSError('first\\nsecond')")
    with refused(ConfigError, f"--{kind} mine.py:x", "fails with OSError: first"):
        own.load("mine.py:x", kind)
    write("def x(:\n")
    with refused(ConfigError, "fails with SyntaxError"):
        own.load("mine.py:x", kind)
    write("import math\nfrom os.path import join\n_y = y = 3\ndef z(): pass\n")
    with refused(ConfigError, "mine.py has no function or class 'y'; it has: z"):
        own.load("mine.py:y", kind)
    if kind != "noise":
        with refused(ConfigError, f"--{kind} mine.py:z:0.4: nothing may follow the name; drop ':0.4'"):
            own.load("mine.py:z:0.4", kind)
    with refused(ConfigError, f"has no class 'z' derived from fastnoise.{kind}s.Module; it has: none"):
        own.load("mine.py:z", kind, nn.Module)


def test_a_file_is_run_once_for_each_content(tmp_path: Path) -> None:
    write("open('runs.txt', 'a').write('x')\ndef f(): return 1\n")
    assert own.load("mine.py:f", "model") is own.load(f"{tmp_path}/mine.py:f", "model")
    assert Path("runs.txt").read_text() == "x"
    write("open('runs.txt', 'a').write('x')\ndef f(): return 2\n")  # of the same size, in the same second
    assert own.load("mine.py:f", "model")() == 2
    assert not Path("__pycache__").exists()


def test_names_of_several_forms(tmp_path: Path) -> None:
    assert own.located("a/mine.py:f:0.4,b=3") == f"{tmp_path}/a/mine.py:f:0.4,b=3"
    assert own.located("../x/mine.py:f") == f"{tmp_path.parent}/x/mine.py:f"
    assert own.located("symmetric:0.4") == "symmetric:0.4"
    assert own.short("/a/b.py:f:0.4") == "f:0.4"
    assert own.short("cifar10") == "cifar10"


LIGHT = """
import sys
sys.modules["torch"] = None
from fastnoise.data.names import check_dataset
from fastnoise.models.names import check_model
from fastnoise.noise.spec import check_noise
from fastnoise.errors import ConfigError
import fastnoise, fastnoise.config, fastnoise.models, fastnoise.data, fastnoise.noise, fastnoise.recipes
for check, name, near in ((check_model, "resnet19", "resnet18"), (check_dataset, "cifar11", "cifar10"),
                          (check_noise, "symetric:0.4", "symmetric"), (check_noise, "pdm:0.4", "pmd")):
    try:
        check(name)
    except ConfigError as error:
        assert f"did you mean {near!r}" in str(error) and "FILE.py:NAME" in str(error), error
    else:
        raise AssertionError(name)
"""


def test_unknown_names_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_help_lists_what_the_tables_hold(run_fastnoise: Any) -> None:
    """Of every command that takes one of the names."""
    forms = [kind.example for kind in NOISES.values()]
    assert any(form.startswith("pmd") for form in forms)
    for command, names in (
        ("train", [*MODELS, *DATASETS, "folder:PATH", *forms, "FILE.py:NAME"]),
        ("corrupt", [*DATASETS, "folder:PATH", *forms, "FILE.py:NAME"]),
        ("inspect", [*DATASETS, "folder:PATH", "FILE.py:NAME"]),
    ):
        text = "".join(run_fastnoise(command, "--help-all").stdout.split())
        assert [name for name in names if name not in text] == []


def test_the_readme_lists_what_the_tables_hold() -> None:
    rows = _manual.pages()["train.md"].splitlines()
    for option, names in (("model", MODELS), ("dataset", DATASETS), ("noise", NOISES)):
        (row,) = (line for line in rows if line.startswith(f"| `--{option}` |"))
        assert [name for name in names if f"`{name}" not in row] == []
        assert "`FILE.py:NAME" in row


# -- networks ------------------------------------------------------------------------------------------------------

NETWORKS = """
import torch
from torch import nn

class Logits(nn.Module):
    def __init__(self, num_classes, channels, image_size, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(96), nn.LazyLinear(num_classes))
        self.options = (num_classes, channels, image_size, dropout)
    def forward(self, images):
        return self.layers(images)

class Features(Logits):
    num_features = 5
    def __init__(self, **options):
        super().__init__(5, options["channels"], options["image_size"])

def small(): return nn.Flatten()
def of_nothing(): return None
def needy(depth): return nn.Flatten()
def raises(): raise KeyError("x")
def breaks(): return nn.Linear(7, 2)
def pair():
    module = nn.Flatten()
    module.forward = lambda images: (images, images)
    return module
def mislead():
    module = nn.Flatten()
    module.num_features = 95
    return module
"""


def create(name: str, **options: Any) -> nn.Module:
    return create_model(f"mine.py:{name}", num_classes=4, channels=2, image_size=(6, 8), **options)


def test_own_networks_give_outputs() -> None:
    write(NETWORKS)
    images = torch.randn(3, 2, 6, 8).to(memory_format=torch.channels_last)
    network: Any = create("Logits", dropout=0.3)
    assert network.module.options == (4, 2, (6, 8), 0.3)
    assert network(images).logits.shape == (3, 4)
    assert network(images).attention is None
    norm = network.module.layers[1]
    assert network.training
    assert norm.running_mean.any() or int(norm.num_batches_tracked) == 2, "tried out in evaluation mode"
    with_features: Any = create("Features", attention=True, features=True)
    outputs = with_features(images)
    assert outputs.logits.shape == (3, 4)
    assert outputs.attention.shape == (3,)
    assert with_features.classifier.in_features == 5


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("Logits", {"attention": True}, ["gives only logits", "leave the last layer out", "self.num_features"]),
        ("Logits", {"features": True}, ["gives only logits"]),
        ("Logits", {"width": 0.5}, ["--width 0.5", "has no parameter 'width'"]),
        ("small", {"dropout": 0.5}, ["--dropout 0.5", "has no parameter 'dropout'"]),
        ("small", {}, ["images [2, 2, 6, 8] give torch.float32 [2, 96], not logits [B, 4]", "self.num_features"]),
        ("of_nothing", {}, ["gives NoneType; it must give a torch.nn.Module"]),
        ("needy", {}, ["missing a required argument: 'depth'", "fastnoise can give it: channels, dropout, image_size"]),
        ("raises", {}, ["fails with KeyError: 'x'"]),
        ("breaks", {}, ["fails on images [2, 2, 6, 8] with RuntimeError"]),
        ("pair", {}, ["give tuple, not logits"]),
        ("mislead", {}, ["give torch.float32 [2, 96], not features [B, 95], as its num_features says"]),
    ],
)
def test_networks_that_are_refused(name: str, options: dict[str, Any], parts: list[str]) -> None:
    write(NETWORKS)
    with refused(ConfigError, f"mine.py:{name}", *parts):
        create(name, **options)


def test_what_needs_features_refuses_logits_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(NETWORKS.replace("BatchNorm1d(96)", "BatchNorm1d(64)"))
    for words in (["--method", "nal"], ["--method", "simclr"], ["--method", "ce", "--encoder", "encoder.pt"]):
        assert fastnoise_main("train", "--model", "mine.py:Logits", *words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "gives only logits, and this --method or --encoder needs features" in error
    assert not (tmp_path / "runs").exists()


def fastnoise_main(*words: str) -> int:
    from fastnoise.cli import main

    return main(list(words))


# -- data ----------------------------------------------------------------------------------------------------------


def test_arrays_become_a_data_set() -> None:
    dataset = ImageDataset.from_arrays(IMAGES, LABELS.astype(np.uint8), class_names=list("abcde"))
    assert (len(dataset.train), len(dataset.test)) == (160, 40)
    assert dataset.clean_labels is None
    assert dataset.class_names == ("a", "b", "c", "d", "e")
    rows = np.array(dataset.train.names, dtype=int)
    assert dataset.train.images is not None
    assert np.array_equal(dataset.train.images, IMAGES[rows])
    assert np.array_equal(dataset.train.labels, LABELS[rows])
    assert not set(dataset.train.names) & set(dataset.test.names)
    scaled = IMAGES[rows] / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-12)
    grey = ImageDataset.from_arrays(IMAGES[..., 0], LABELS, test_images=IMAGES[:5, ..., 1], test_labels=LABELS[:5])
    assert grey.train.shape == (1, 6, 4)
    assert (len(grey.train), len(grey.test), grey.train.names) == (200, 5, ())
    assert grey.class_names == ("0", "1", "2", "3", "4")
    constant = ImageDataset.from_arrays(np.full((20, 2, 2), 7, np.uint8), LABELS[:20])
    assert constant.std == (1.0,)


def test_clean_labels_are_the_truth_of_the_test_and_of_noise() -> None:
    given = LABELS.copy()
    given[:50] = (given[:50] + 1) % 5
    dataset = ImageDataset.from_arrays(IMAGES, given, clean_labels=LABELS)
    held = np.array(dataset.test.names, dtype=int)
    assert np.array_equal(dataset.test.labels, LABELS[held])
    config = recipe("ce", dataset.name)
    assert config.noise.noise == "none"
    task = load_data(config, dataset)
    assert task.clean is not None
    assert np.array_equal(task.given, dataset.train.labels)
    assert np.array_equal(task.clean, dataset.clean_labels)
    assert task.noisy.requested_rate is None
    asked = load_data(config.replace({"noise": "symmetric:0.5"}), dataset)
    assert dataset.clean_labels is not None
    assert np.array_equal(asked.given, corrupt(dataset.clean_labels, "symmetric:0.5", seed=0, num_classes=5).labels)
    blind = load_data(config, ImageDataset.from_arrays(IMAGES, given))
    assert blind.clean is None


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"images": IMAGES / 255.0}, ["images must be uint8", "float64 [200, 6, 4, 3]", "(255 * images)"]),
        ({"images": IMAGES.reshape(200, -1)}, ["[N, H, W, C], or [N, H, W]", "[200, 72]"]),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, ["[N, H, W, C]", "[0, 6, 4, 3]"]),
        ({"images": np.zeros((200, 3, 8, 8), np.uint8)}, ["channels last", "transpose(0, 2, 3, 1)"]),
        ({"labels": LABELS[:-1]}, ["labels: 199 labels for 200 images"]),
        ({"labels": LABELS - 1}, ["labels must be classes from 0, not -1..3"]),
        ({"labels": LABELS.astype(float)}, ["labels must be integers of shape [N], not float64"]),
        ({"clean_labels": LABELS[None]}, ["clean_labels must be integers of shape [N], not int64 [1, 200]"]),
        ({"clean_labels": LABELS + 1, "class_names": list("abcde")}, ["clean labels span 1..5, outside 0..4"]),
        ({"class_names": ["a", "b"]}, ["training labels span 0..4, outside 0..1"]),
        ({"class_names": list("abcda")}, ["class_names: 'a' is given twice"]),
        ({"class_names": "abcde"}, ["class_names must be a list of texts, not one text"]),
        ({"names": ["x"] * 200}, ["names: 'x' is given twice"]),
        ({"names": ["x"]}, ["1 names for 200 images"]),
        ({"test_images": IMAGES}, ["give both test_images and test_labels, or neither"]),
        ({"test_images": IMAGES[:, :5], "test_labels": LABELS}, ["test_images are [5, 4, 3] and images [6, 4, 3]"]),
        ({"test_images": IMAGES, "test_labels": LABELS[1:]}, ["test_labels: 199 labels for 200 images"]),
        ({"images": IMAGES[:2], "labels": LABELS[:2]}, ["2 images are too few", "give test_images"]),
        ({"images": [IMAGES[0], IMAGES[1, :2]]}, ["images: not an array of numbers, got list"]),
        ({"images": torch.zeros(2, 4, 4, 3, requires_grad=True)}, ["images: not an array of numbers, got Tensor"]),
        ({"labels": [[1], [1, 2]]}, ["labels: not an array of numbers, got list"]),
    ],
)
def test_arrays_that_are_refused(changes: dict[str, Any], parts: list[str]) -> None:
    with refused(DataError, *parts):
        ImageDataset.from_arrays(**{"images": IMAGES, "labels": LABELS, **changes})


def test_runs_on_arrays_go_on_as_they_began(capsys: pytest.CaptureFixture[str]) -> None:
    """With the same arrays and configuration, in Python; anything else is refused before it changes the run."""
    dataset = ImageDataset.from_arrays(IMAGES, LABELS)
    config = recipe("ce", dataset.name).replace({"epochs": 1, "model": "small_cnn", "width": 0.25, "run_dir": "run"})
    with refused(ConfigError, "must be a fastnoise.ImageDataset", "not tuple"):
        fastnoise.train(config, dataset=(IMAGES, LABELS))  # type: ignore[arg-type]
    summary = fastnoise.train(config, dataset=dataset)
    assert fastnoise.train(config, dataset=dataset, resume=True) == summary
    for changes in ({"learning_rate": 0.5}, {"limit_train": 9}, {"noise": "symmetric:0.5"}):
        name, value = next(iter(changes.items()))
        with refused(CheckpointError, f"run holds another run: its {name} is", f"not {value}"):
            fastnoise.train(config.replace(changes), dataset=dataset, resume=True)
    with refused(CheckpointError, "its method is ce, not elr"):
        fastnoise.train(dataclasses.replace(config, method=recipe("elr").method), dataset=dataset, resume=True)
    others = ImageDataset.from_arrays(IMAGES, (LABELS + 1) % 5)
    said = "arrays is not what the run in run was started with"
    with refused(CheckpointError, said, "restore it, or start a new run"):
        fastnoise.train(config, dataset=others, resume=True)
    with refused(CheckpointError, "no run to go on with: give its folder"):
        fastnoise.train(config.replace({"run_dir": None}), dataset=dataset, resume=True)
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 2
    assert "its data set 'arrays' was given as arrays in Python; go on there with" in capsys.readouterr().err


def test_data_sets_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("def data(): return [1, 2]\ndef needy(path): pass\ndef rooted(root, download): return root, download")
    with refused(DataError, "--dataset mine.py:data gives list", "ImageDataset.from_arrays(images, labels)"):
        load_dataset("mine.py:data", None)
    with refused(ConfigError, "missing a required argument: 'path'", "download, root"):
        load_dataset("mine.py:needy", None)
    with refused(DataError, "gives tuple"):
        load_dataset("mine.py:rooted", "x")
    for name in ("digits", "folder:x", "a.py:b", ""):
        with refused(ConfigError, "is not free"):
            ImageDataset.from_arrays(IMAGES, LABELS, name=name)
    dataset = ImageDataset.from_arrays(IMAGES, LABELS)
    with refused(ConfigError, "is for data set 'digits'", "but dataset= is 'arrays'", "recipe(METHOD, 'arrays')"):
        fastnoise.train(recipe("ce"), dataset=dataset)
    with refused(ConfigError, "must be a RunConfig", "not dict"):
        fastnoise.train({"method": "ce"}, dataset=dataset)  # type: ignore[arg-type]
    assert fastnoise_main("train", "--dataset", "arrays") == 2
    assert "unknown dataset 'arrays'" in capsys.readouterr().err


# -- noise ---------------------------------------------------------------------------------------------------------

NOISE = """
import numpy as np
def flip(labels, *, num_classes, rate, seed, step=1, how="x"):
    assert isinstance(step, int) and isinstance(how, str)
    flipped = np.random.default_rng(seed).random(len(labels)) < rate
    return np.where(flipped, (labels + step) % num_classes, labels).astype(np.uint8)
def darkest(labels, inputs, num_classes):
    return np.where(inputs.reshape(len(labels), -1).mean(1) < 100, 0, labels)
def anything(labels, **options): return labels + (options["seed"] + options["rate"] > 3)
def restless(labels, rate=0): return np.random.permutation(labels)
def short(labels): return labels[1:]
def real(labels): return labels / 2
def large(labels): return labels + 96
def inplace(labels, seed):
    labels[:] = 0
    return labels
def raises(labels): raise ValueError("first\\nsecond")
"""


def test_own_noise_is_recorded_as_any_other(tmp_path: Path) -> None:
    write(NOISE)
    noisy = corrupt(LABELS, "mine.py:flip : 0.40,step=2", seed=3, num_classes=5)
    assert noisy.spec == "mine.py:flip:0.4,step=2"
    assert (noisy.requested_rate, noisy.seed) == (0.4, 3)
    assert noisy.realised_rate == pytest.approx(0.4, abs=0.1)
    assert set((noisy.labels - LABELS)[noisy.flipped] % 5) == {2}
    noisy.save(tmp_path / "noisy.npz")
    (tmp_path / "mine.py").write_text("raise SystemError")
    again = fastnoise.noise.NoisyLabels.load(tmp_path / "noisy.npz")  # runs nothing
    assert again.describe() == noisy.describe()
    assert np.array_equal(again.labels, noisy.labels)
    write(NOISE)
    assert not corrupt(LABELS, "mine.py:inplace", seed=0, num_classes=5).labels.any()
    assert LABELS.any()
    corrupt(LABELS, "mine.py:darkest", seed=0, num_classes=5, inputs=IMAGES)
    assert corrupt(LABELS % 4, "mine.py:anything:0.5", seed=3, num_classes=5).realised_rate == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("flip", ["needs a rate in [0, 1], as in mine.py:flip:0.4"]),
        ("flip:4", ["rate 4.0 is outside [0, 1]"]),
        ("flip:x", ["'x' is not a rate"]),
        ("flip:", ["nothing follows the colon"]),
        ("flip:0.4,stp=1", ["has no parameter 'stp'; did you mean 'step'?"]),
        ("flip:0.4,step", ["'step' is not a setting"]),
        ("flip:0.4,step=1,step=2", ["a setting is given twice"]),
        ("flip:0.4,seed=2", ["fastnoise passes seed by itself; drop seed="]),
        ("flip:0.4,rate=2", ["write the rate after the name"]),
        ("flip:0.4,step=x", ["fails with AssertionError"]),
        ("short:0.3", ["has no parameter 'rate'; drop :0.3"]),
        ("short", ["gives int64 [199]; it must give integers [200]"]),
        ("real", ["gives float64 [200]; it must give integers [200]"]),
        ("large", ["gives class 96 at position 0, outside [0, 5)"]),
        ("raises", ["fails with ValueError: first"]),
        ("restless", ["returns other labels when it is called again with seed 0", "np.random.default_rng(seed)"]),
        ("darkest", ["needs the images as inputs, but they are not in memory"]),
        ("nothing", ["no function or class 'nothing'; it has: flip, darkest"]),
        ("", ["names no function in a file"]),
        ("a b", ["names no function in a file"]),
    ],
)
def test_noise_that_is_refused(text: str, parts: list[str]) -> None:
    write(NOISE)
    with refused(FastnoiseError, "noise", *parts):
        corrupt(LABELS, f"mine.py:{text}", seed=0, num_classes=5)


def test_specs_of_own_noise_come_back_from_their_text() -> None:
    for text in ("a/b.py:f", "a.py:f:0.25", "a.py:f:1.0,x=3,y=a:b"):
        assert str(parse(text)) == text
        assert parse(str(parse(text))) == parse(text)
    with refused(ConfigError, "write your own noise as FILE.py:NAME"):
        parse("own:0.3")
    with refused(ConfigError, "takes 'quota' among its settings"):
        fastnoise.noise.NoiseSpec("own", 0.3, "a.py:f", quota="class")
    with refused(ConfigError, "takes no settings"):
        fastnoise.noise.NoiseSpec("pair", 0.3, settings=(("a", "b"),))


# -- the whole -----------------------------------------------------------------------------------------------------


def test_configurations_name_files_from_the_root(tmp_path: Path) -> None:
    from fastnoise.config import RunConfig, located

    config = RunConfig(
        data=DataConfig(dataset="mine.py:data"),
        noise=NoiseConfig("mine.py:flip:0.4"),
        model=ModelConfig("mine.py:Net"),
    )
    places = located(config)
    assert places.data.dataset == f"{tmp_path}/mine.py:data"
    assert places.noise.noise == f"{tmp_path}/mine.py:flip:0.4"
    assert places.model.model == f"{tmp_path}/mine.py:Net"


def test_sweeps_refuse_what_files_lack() -> None:
    write(NOISE)
    Path("s.toml").write_text('noise = "mine.py:flop:0.3"\n')
    with refused(ConfigError, "s.toml", "no function or class 'flop'"):
        resolve(Path("s.toml"))
