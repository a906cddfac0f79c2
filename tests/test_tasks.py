"""Tasks: what each makes of labels and outputs, and training of each through the one engine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _set_cases import write_coco, write_mnist
from _train_cases import Killed, assert_same_end, history, killed_at, noted, refusal, state
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import fastnoise
from fastnoise.cli import main
from fastnoise.data import ImageDataset, ImageTable, load_dataset
from fastnoise.data.names import short
from fastnoise.errors import ConfigError, DataError
from fastnoise.models import Outputs
from fastnoise.noise import NoisyLabels, corrupt, corrupt_multilabel, corrupt_regression, parse
from fastnoise.noise.targets import NoisyTargets, load_noisy, shift_values, swap_labels
from fastnoise.recipes import recipe
from fastnoise.tasks import TASKS, Task, find_task
from fastnoise.tasks.classification import Classification
from fastnoise.tasks.multilabel import MultiLabel
from fastnoise.tasks.regression import Regression

CPU = torch.device("cpu")


def evaluated(task: Task, truth: np.ndarray, logits: torch.Tensor) -> Any:
    """An evaluation of `logits`, taken up in two batches out of order."""
    answers = task.collect([truth], CPU)
    for rows in (torch.arange(len(truth))[1:], torch.zeros(1, dtype=torch.int64)):
        answers.add(Outputs(logits[rows]), rows)
    return answers.evaluations()[0]


# -- what a task makes of labels and outputs -------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_tasks_go_by_their_names(name: str) -> None:
    task = find_task(name)
    assert task.name == name
    assert task.score.name in task.summarised
    assert task.summarised[task.score.name] == task.score.higher


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'clasification'; did you mean 'classification'"):
        find_task("clasification")


def test_classification_by_hand() -> None:
    task = Classification(("a", "b"))
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1])
    assert torch.equal(task.loss(logits, labels), cross_entropy(logits, labels))
    assert task.answer(logits).tolist() == [0, 1, 0]
    found = evaluated(task, labels.numpy(), logits)
    assert found.loss == pytest.approx(float(cross_entropy(logits, labels)))
    figures = task.figures(found, labels.numpy())
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["class_accuracy"] == [1.0, 0.5]
    assert "top5" not in figures


def test_multilabel_by_hand() -> None:
    task = MultiLabel(("a", "b", "c"))
    logits = torch.tensor([[1.0, -1.0, -5.0], [2.0, 3.0, -5.0], [-1.0, 1.0, -5.0]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.uint8)
    wanted = binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).float())
    torch.testing.assert_close(task.loss(logits, torch.from_numpy(labels)), wanted)
    assert task.answer(logits).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    figures = task.figures(evaluated(task, labels, logits), labels)
    assert figures["loss"] == pytest.approx(float(wanted))
    assert figures["average_precision"] == [pytest.approx((1 / 2 + 2 / 3) / 2), 1.0, None]
    assert figures["mean_average_precision"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert np.mean(figures["label_loss"]) == pytest.approx(figures["loss"])
    answers = np.array([[1, 0, 0], [1, 1, 1], [-1, -1, -1]], np.int8)  # the last was not visited
    given = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]], np.uint8)
    assert task.training_figures(answers, given) == {"train_accuracy_given": pytest.approx(4 / 6)}
    assert task.shares(answers, given, labels) == {
        "clean_true": pytest.approx(3 / 4),
        "clean_other": pytest.approx(1 / 4),
        "mislabelled_true": 0.5,
        "mislabelled_memorised": 0.5,
        "mislabelled_other": 0.0,
    }
    assert task.unseen(2, CPU).tolist() == [[-1] * 3] * 2


def test_regression_by_hand() -> None:
    task = Regression(("angle",), [10.0], [5.0])
    values = np.array([[0.0], [10.0], [20.0]])
    assert task.table(values).tolist() == [[-2.0], [0.0], [2.0]]
    logits = torch.tensor([[-2.0], [1.0], [2.0]])
    labels = torch.from_numpy(task.table(values))
    assert float(task.loss(logits, labels)) == pytest.approx(1 / 3)
    found = evaluated(task, values, logits)
    assert found.loss == pytest.approx(1 / 3)
    figures = task.figures(found, values)
    assert figures == {
        "loss": pytest.approx(1 / 3),
        "mse": pytest.approx(25 / 3),
        "mae": pytest.approx(5 / 3),
        "r2": pytest.approx(1 - 25 / 200),
    }
    given = np.array([[0.0], [10.0], [30.0]])
    answers = np.array([[-2.0], [np.nan], [2.0]], np.float32)
    assert task.training_figures(answers, given) == {"train_mse_given": pytest.approx(50.0)}
    shares = task.shares(answers, given, values)
    assert shares == {"clean_mse": 0.0, "mislabelled_mse_true": 0.0, "mislabelled_mse_given": pytest.approx(100.0)}


# -- labels and noise ------------------------------------------------------------------------------------------


def test_labels_have_one_of_three_forms() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)
    assert ImageTable(np.arange(3), images=images).labels.dtype == np.int64
    assert ImageTable(np.array([[1, 0], [0, 0], [1, 1]]), images=images, form="labels").labels.dtype == np.uint8
    assert ImageTable(np.array([0.5, 1, 2]), images=images, form="values").labels.shape == (3, 1)
    with pytest.raises(DataError, match=r"entry \[1, 0\] is 2, neither 0 nor 1"):
        ImageTable(np.array([[1, 0], [2, 0], [1, 1]]), images=images, form="labels")
    with pytest.raises(DataError, match="the value of sample 2 is not finite"):
        ImageTable(np.array([0.5, 1, np.nan]), images=images, form="values")


def test_constant_values_are_explained_if_they_are_met() -> None:
    """As scikit-learn has it: there is no variance to explain."""
    task = Regression(("a", "b"), [1.0, 0.0], [2.0, 1.0])
    for count in (1, 3):
        values = np.array([[5.0, 7.0]] * count)
        for logits, wanted in (([2.0, 7.0], 1.0), ([2.5, 6.0], 0.0)):
            figures = task.figures(evaluated_alone(task, values, torch.tensor([logits] * count)), values)
            assert figures["r2"] == wanted
            assert figures["mse"] == (0.0 if wanted else 1.0)


def evaluated_alone(task: Task, truth: np.ndarray, logits: torch.Tensor) -> Any:
    answers = task.collect([truth], CPU)
    answers.add(Outputs(logits), torch.arange(len(truth)))
    return answers.evaluations()[0]


def test_scale_and_centre_are_those_of_the_data_set_whatever_part_of_it_is_trained_on() -> None:
    """So that a resumed run, whose noise and split are made anew, answers in the same unit."""
    dataset = ImageDataset.from_arrays(
        np.zeros((20, 4, 4), np.uint8), np.arange(20.0), name="numbers", task="regression"
    )
    task = Regression.of(dataset)
    assert task.centre == dataset.train.labels.mean()
    assert task.scale == dataset.train.labels.std()
    values = np.array([[-3.0], [40.0]])
    assert task.values(task.table(values)) == pytest.approx(values, rel=1e-6)
    constant = ImageDataset.from_arrays(np.zeros((20, 4, 4), np.uint8), [5.0] * 20, name="fives", task="regression")
    assert Regression.of(constant).scale == [1.0]
    huge = ImageDataset.from_arrays(np.zeros((20, 4, 4), np.uint8), [1e200] * 20, name="much", task="regression")
    with pytest.raises(DataError, match="much: values beyond 1e\\+150 have no squares"):
        Regression.of(huge)


def test_noise_of_other_tasks_is_that_of_the_functions() -> None:
    labels = (np.random.default_rng(0).random((50, 8)) < 0.4).astype(np.uint8)
    swapped = swap_labels(labels, "swap:0.5,group=0-3,cardinality=free", seed=3)
    wanted = corrupt_multilabel(labels, 0.5, seed=3, group="0-3", cardinality="free")
    assert np.array_equal(swapped.labels, wanted)
    assert swapped.realised_rate == (wanted != labels).any(1).mean()
    assert swapped.requested_rate == 0.5
    values = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    shifted = shift_values(values, "gaussian:0.5,low=0", seed=3)
    for number in range(2):
        high = values[:, number].max()
        wanted = corrupt_regression(values[:, number], 0.5, seed=3 + number, low=0.0, high=high)
        assert np.array_equal(shifted.labels[:, number], wanted)
    assert np.array_equal(shift_values(values, "none", seed=3).labels, values)
    with pytest.raises(
        ConfigError, match="noise 'symmetric' is for classification and multitask, and the data set is one of mult"
    ):
        swap_labels(labels, "symmetric:0.4", seed=0)
    with pytest.raises(ConfigError, match="noise 'gaussian' is for regression, and these labels are one class"):
        corrupt(np.zeros(4, int), "gaussian:1", seed=0, num_classes=2)


@pytest.mark.parametrize("text", ["swap:0.4", "swap:0.4,group=0-5+8", "gaussian:20.0,low=-3.0,high=60.0"])
def test_their_specs_are_canonical(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian:-1", "sigma must be a positive number, got -1.0"),
        ("gaussian:x", "sigma='x' must be a finite number"),
        ("gaussian", "noise 'gaussian' needs a sigma above 0, such as 'gaussian:20'"),
        ("gaussian:1,low=3,high=2", r"low=3.0 must lie below high=2.0"),
        ("swap:0.4,cardinality=more", "unknown cardinality 'more'"),
        ("symmetric:0.4,group=0-3", "noise 'symmetric' has no option 'group'"),
    ],
)
def test_bad_specs_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_noisy_targets_survive_their_file(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noisy: NoisyLabels
    if kind == "labels":
        noisy = swap_labels((random.random((30, 4)) < 0.3).astype(np.uint8), "swap:0.9,cardinality=free", seed=1)
    else:
        noisy = shift_values(random.random((30, 2)), "gaussian:1.0", seed=1)
    noisy.save(tmp_path / "a.npz")
    again = load_noisy(tmp_path / "a.npz")
    assert isinstance(again, NoisyTargets)
    assert again.sha256 == noisy.sha256
    assert np.array_equal(again.labels, noisy.labels)
    assert again.describe() == noisy.describe()
    with pytest.raises(DataError, match="isn't of format 1"):
        NoisyLabels.load(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    arrays["labels"][0, 0] = 1 - arrays["labels"][0, 0]
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(DataError, match="doesn't match its SHA-256 sum"):
        load_noisy(tmp_path / "b.npz")


# -- training through the engine -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("data"), 300, 100)


@pytest.fixture(scope="module")
def sets(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The words that name a small data set of each form."""
    root = tmp_path_factory.mktemp("sets")
    train, images, _ = write_coco(root, "train", 60)
    test, test_images, _ = write_coco(root, "test", 20, seed=1)
    random = np.random.default_rng(0)
    lines = ["file,brightness,half"]
    for number in range(60):
        value = random.uniform(0, 200)
        Image.fromarray((random.integers(0, 50, (8, 8, 3)) + value).astype(np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{value},{value / 2}")
    (root / "values.csv").write_text("\n".join(lines))
    small = ["--model", "small_cnn", "--width", "0.25", "--batch-size", "16", "--loader", "torch"]
    coco = f"coco:train={train},images={images},test={test},test_images={test_images},side=32"
    return {
        "canvas": ["--dataset", "mnist-canvas:images=80,test=40,side=64", "--data-root", str(mnist), *small],
        "coco": ["--dataset", coco, "--data-root", str(root), "--noise", "swap:0.5,group=0-2,cardinality=free", *small],
        "tasks": ["--dataset", "two-tasks:of=digits,limit=120", *small],
        "rotated": ["--dataset", "rotated", "--limit-train", "200", *small],
        "values": ["--dataset", f"values:train={root / 'values.csv'}", *small],
    }


@pytest.mark.parametrize(("name", "step"), [("canvas", 10), ("coco", 8), ("rotated", 25), ("values", 5), ("tasks", 20)])
def test_runs_are_killed_and_resumed_to_the_bit(
    name: str, step: int, sets: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", *sets[name], "--epochs", "3", "--val-fraction", "0.2", "--save-every", "1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*words, "--run-dir", str(whole)]) == 0
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["noise"]["spec"] == ("given" if name == "values" else parse_of(sets[name]))
    with monkeypatch.context() as patch:
        killed_at(patch, step)
        with pytest.raises(GeneratorExit):
            main([*words, "--run-dir", str(cut)])
    assert len(history(cut)) in (1, 2), "there is a checkpoint to go on from"
    assert main(["train", "--resume", str(cut)]) == 0
    assert_same_end(whole, cut)
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(2, 1))
        with pytest.raises(Killed):
            main([*words, "--save-every", "0.000001s", "--run-dir", str(tmp_path / "inside")])
    assert (state(tmp_path / "inside")["epoch"], state(tmp_path / "inside")["batch"]) == (2, 1), "inside an epoch"
    assert main(["train", "--resume", str(tmp_path / "inside")]) == 0
    assert_same_end(whole, tmp_path / "inside")
    if name != "tasks":
        with np.load(whole / "answers.npz") as first, np.load(tmp_path / "inside" / "answers.npz") as second:
            assert first.files == second.files
            assert all(np.array_equal(first[array], second[array]) for array in first.files)
    other = json.loads((cut / "summary.json").read_text())
    for key in ("task", "score", "training_samples", f"test_{summary['score']['name']}"):
        assert summary[key] == other[key]
    assert main(["report", str(whole), "--out", str(tmp_path / "page.html")]) == 0
    assert summary["score"]["title"] in (tmp_path / "page.html").read_text()


def parse_of(words: list[str]) -> str:
    """The noise that a run of these words has."""
    asked = words[words.index("--noise") + 1] if "--noise" in words else None
    return str(parse(asked or recipe("plain", words[1]).noise.noise))


def test_a_sweep_of_another_task_has_a_table_of_its_score(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(
        """
        dataset = "rotated"
        epochs = 1
        limit_train = 100
        width = 0.25
        loader = "torch"
        method = "plain"
        [grid]
        noise = ["none", "gaussian:40.0,low=0.0"]
        """
    )
    assert main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "## Test mean squared error, last epoch" in table
    assert "accuracy" not in table
    head, *lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert "test_mse_last" in head
    assert "score" not in head
    assert len(lines) == 2
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html")]) == 0
    assert "Test mean squared error over epochs by noise" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", ["canvas", "rotated", "tasks"])
def test_mixed_precision(name: str, sets: dict[str, list[str]], tmp_path: Path) -> None:
    """In bf16, whose answers are kept in full precision."""
    words = ["train", *sets[name], "--epochs", "1", "--amp", "bf16", "--run-dir", str(tmp_path / "run")]
    assert main(words) == 0
    (line,) = history(tmp_path / "run")
    assert np.isfinite(line["train_loss"])
    assert np.isfinite(line["test_loss"])


def test_regression_learns_the_angle(tmp_path: Path) -> None:
    words = ["--dataset", "rotated", "--epochs", "12", "--loader", "torch", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *words, "--noise", "none"]) == 0
    lines = history(tmp_path / "run")
    assert lines[-1]["test_r2"] > 0.9, "a digit's angle is seen to within some ten of 120 degrees"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_mse"]["best"] == min(line["test_mse"] for line in lines), "lower is better"


def test_a_method_of_another_task_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refusal(capsys, "--dataset", "rotated", "--method", "nal", "--run-dir", str(tmp_path / "run"))
    assert "method nal serves classification, and the data set is one of regression" in said
    assert said.endswith("methods that serve it: plain")
    assert not (tmp_path / "run").exists()


def test_what_cannot_serve_a_task_is_refused_before_its_images_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    gone = "coco:train=gone.json,images=gone,test=gone.json,test_images=gone"
    for words, message in (
        (["--method", "elr"], "method elr serves classification, and the data set is one of multilabel; methods that"),
        (["--method", "multitask"], "method multitask serves multitask, and the data set is one of multilabel"),
        (["--noise", "gaussian:3"], "noise 'gaussian' is for regression, and the data set is one of multilabel"),
        (["--noise", "symmetric:0.4"], "and the data set is one of multilabel; noise for it: none, swap:R"),
    ):
        assert message in refusal(capsys, "--dataset", gone, *words)
    wanted = "noise 'swap' is for multilabel, and the data set is one of classification; noise for it: asymmetric:R,"
    assert wanted in refusal(capsys, "--dataset", "cifar10", "--noise", "swap:0.2")
    wanted = "rotated: a multi-label set has labels of zeros and ones"
    assert wanted in refusal(capsys, "--dataset", "rotated", "--task", "multilabel", "--noise", "none")


def test_a_batch_that_a_task_cannot_fill_leaves_no_run_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--dataset", "two-tasks:of=digits,limit=20", "--batch-size", "64", "--run-dir", str(tmp_path / "run")]
    said = refusal(capsys, *words)
    assert said.endswith("task 1 has 20 training images, and a step takes 32; give a smaller --batch-size")
    assert not (tmp_path / "run").exists()


def test_labels_of_a_run_serve_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rotated = ["--limit-train", "100", "--epochs", "1", "--width", "0.25", "--loader", "torch"]
    first, second = (["--run-dir", str(tmp_path / name)] for name in ("first", "second"))
    assert main(["train", "--dataset", "rotated", *rotated, *first]) == 0
    labels = ["--labels", str(tmp_path / "first" / "labels.npz")]
    assert main(["train", "--dataset", "rotated", *rotated, *second, *labels]) == 0
    assert history(tmp_path / "first") == history(tmp_path / "second")
    capsys.readouterr()
    said = refusal(capsys, "--dataset", "rotated:seed=1", *rotated, *labels)
    assert "made from other true labels than the data set's, 100 of 100 differ, the first at sample 0" in said
    np.save(tmp_path / "short.npy", np.zeros(7))
    np.save(tmp_path / "nan.npy", np.full(100, np.nan))
    corrupt(np.arange(100) % 10, "symmetric:0.2", seed=0, num_classes=10).save(tmp_path / "classes.npz")
    (tmp_path / "values.csv").write_text("angle\n1\n")
    for name, message in (
        ("short.npy", "7 labels for a training set of 1438 images, by row"),
        ("nan.npy", "not finite"),
        ("classes.npz", "holds one class a sample, not 1 numbers a row"),
        ("values.csv", "1 labels for a training set of 1438 images, by row"),
        ("gone.npy", "No such file"),
    ):
        assert message in refusal(capsys, "--dataset", "rotated", *rotated, "--labels", str(tmp_path / name))


def test_the_noise_of_canvases_stays_in_their_first_group() -> None:
    assert recipe("plain", "mnist-canvas").noise.noise == "swap:0.4,group=0-5"
    assert recipe("plain", "mnist-canvas:first_group=3").noise.noise == "swap:0.4,group=0-2"


def test_commands_for_classes_refuse_other_labels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros(1438, int))
    out = ["--out", str(tmp_path / "out.npz")]
    for words in (["corrupt", "--noise", "none", *out], ["inspect", str(tmp_path / "labels.npy")]):
        assert main([*words, "--dataset", "rotated"]) == 2
        said = capsys.readouterr().err
        assert "--dataset rotated: this command is for data sets of one class an image, not of regression" in said


def test_plain_is_cross_entropy_where_an_image_has_one_class(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--limit-train", "200", "--epochs", "2", "--loader", "torch"]
    for method in ("ce", "plain"):
        assert main(["train", *words, "--method", method, "--run-dir", str(tmp_path / method)]) == 0
    losses = [[line["train_loss"] for line in history(tmp_path / method)] for method in ("ce", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("rotated:limt=3", "--dataset rotated: no option 'limt'; did you mean 'limit'"),
        ("rotated:limit=x", "limit=x must be a number"),
        ("rotated:limit=200", r"limit=200 must lie in (0, 180] degrees"),
        ("rotated:of", "--dataset rotated: of needs a value, as in of=digits"),
        ("rotated:of=cifra", "of=cifra must be one of digits, mnist, cifar10"),
        ("two-tasks:of=mine.py:Set", "of=mine.py:Set must be one of digits, mnist, cifar10"),
        (
            "coco:train=a,images=a,test=a,test_images=a,side=0",
            "--dataset coco: side=0: images need a side of at least 1",
        ),
        ("values:train=a.csv,test=", "--dataset values: test needs a value, as in test=PATH"),
        ("mnist-canvas:images=0", "--dataset mnist-canvas: images=0 must be at least 1"),
        ("mnist-canvas:images=-1", "images=-1 must be 0 or more"),
        ("coco:train=a.json", "--dataset coco needs images=PATH; write coco:train=FILE.json"),
        ("values", "--dataset values needs train=PATH"),
        ("values:train=missing.csv", "missing.csv: can't be read"),
    ],
)
def test_names_of_data_sets_are_checked(dataset: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal(capsys, "--dataset", dataset)


def test_titles_and_folders_name_files_without_their_paths() -> None:
    assert short("values:train=/a/b.csv,test=/c/d.csv") == "values:train=b.csv,test=d.csv"
    assert short("coco:train=/a/t.json,images=/a,test=/b/v.json,test_images=/b,side=64") == (
        "coco:train=t.json,images=a,test=v.json,test_images=b,side=64"
    )
    assert short("mine.py:Set") == "Set"
    assert short("rotated:of=mnist") == "rotated:of=mnist"


def test_a_column_without_a_name_is_no_value(tmp_path: Path) -> None:
    """Such as that of the row numbers, which pandas writes first."""
    (tmp_path / "values.csv").write_text(",file,age\n0,a.png,3\n")
    with pytest.raises(DataError, match="the first column has no name, and isn't a value then; name it or remove it"):
        load_dataset(f"values:train={tmp_path / 'values.csv'}", None)


def test_arrays_of_values_train() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(0, 200, 60)
    images = (random.integers(0, 50, (60, 8, 8)) + values[:, None, None]).astype(np.uint8)
    dataset = ImageDataset.from_arrays(images, values, name="brightness", task="regression")
    assert dataset.task == "regression"
    assert load_dataset("rotated", None).class_names == ("angle",)
    several = ImageDataset.from_arrays(
        images, np.stack([values > 50, values > 100], 1), name="levels", task="multilabel"
    )
    assert several.task == "multilabel"
    with pytest.raises(ConfigError, match="method ce serves classification"):
        fastnoise.train(recipe("ce", "levels").replace({"epochs": 1}), dataset=several)


# -- a task of one's own ---------------------------------------------------------------------------------------

OWN = """
import torch
from fastnoise.tasks import Task
from fastnoise.tasks.names import Score
from fastnoise.tasks.classification import Classification


class Half(Classification):
    "Tells the upper half of the classes from the lower one, by a single output."

    name = "half"
    score = Score("halves", "share of right halves")
    summarised = {"halves": True}
    num_outputs = 1
    collect = Task.collect

    def _upper(self, labels):
        return labels >= len(self.outputs) // 2

    def loss(self, logits, labels):
        return torch.nn.functional.softplus(torch.where(self._upper(labels), -1, 1) * logits[:, 0]).mean()

    def answer(self, logits):
        return (logits[:, 0] > 0).long()

    def figures(self, found, truth):
        return {"loss": found.loss, "halves": float((found.answers == self._upper(truth)).mean())}

    def validation_figures(self, found, truth):
        return self.figures(found, truth)

    def training_figures(self, answers, given):
        return {}

    def shares(self, answers, given, clean):
        return {}


class Bare(Task):
    pass


class Rows(Half):
    def loss(self, logits, labels):
        return logits[:, 0]


class Number(Half):
    def loss(self, logits, labels):
        return 1.0


class Detached(Half):
    def loss(self, logits, labels):
        return super().loss(logits.detach(), labels)


class Raising(Half):
    def loss(self, logits, labels):
        return logits @ logits


class Real(Half):
    def answer(self, logits):
        return logits[:, 0]


class Wide(Half):
    def answer(self, logits):
        return logits.long()


class Few(Half):
    def unseen(self, count, device):
        return torch.full((3,), -1)


class Scoreless(Half):
    def figures(self, found, truth):
        return {"loss": 1.0}


class Tensors(Half):
    def figures(self, found, truth):
        return {"loss": torch.tensor(1.0), "halves": 0.5}


class Headless(Half):
    def head(self, num_features):
        return None


class Narrow(Half):
    def head(self, num_features):
        return torch.nn.Linear(num_features, 3)


class Flat(Half):
    def table(self, labels):
        return labels[:3]


class Odd(Half):
    num_outputs = "three"


class Unscored(Half):
    score = "halves"


class Needy(Half):
    def __init__(self, outputs, more):
        pass


class Strange(Half):
    @classmethod
    def of(cls, dataset):
        return 3


class Unlabelled(Half):
    def corrupt(self, dataset, true, noise, seed):
        return true


class Sharing(Half):
    def shares(self, answers, given, clean):
        return 3


class Keeping(Half):
    keeps_answers = True

    def kept(self, found, truth):
        return {"answers": found.answers[:3]}
"""


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text(OWN)
    return tmp_path


def test_a_task_of_ones_own_is_killed_and_resumed_where_it_is_named(
    own_task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--task", "half.py:Half", "--limit-train", "300", "--epochs", "4", "--loader", "torch"]
    words += ["--val-fraction", "0.2", "--save-every", "1", "--noise", "symmetric:0.1"]
    assert main([*words, "--run-dir", "whole"]) == 0
    said = capsys.readouterr().out
    assert "plain on digits" in said
    assert "test share of right halves, last epoch" in said
    with monkeypatch.context() as patch:
        noted(patch, kill_at=(2, 1))
        with pytest.raises(Killed):
            main([*words, "--save-every", "0.000001s", "--run-dir", "cut"])
    assert main(["train", "--resume", "cut"]) == 2
    assert f"add --task {own_task}/half.py:Half" in capsys.readouterr().err
    assert main(["train", "--resume", "cut", "--task", "half.py:Half"]) == 0
    assert_same_end(own_task / "whole", own_task / "cut")
    summary = json.loads((own_task / "whole" / "summary.json").read_text())
    assert summary["task"] == "half"
    assert summary["test_halves"]["last"] > 0.6, "guessing gives a half"
    assert "half.py" not in json.dumps(summary["title"])
    assert "task" in json.loads((own_task / "whole" / "environment.json").read_text())[0]["own_files"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--task", "half.py:Hal"],
            "has no class 'Hal' derived from fastnoise.tasks.Task; it has: Classification, Half",
        ),
        (["--task", "half.py:Bare"], "--task half.py:Bare: it lacks answer, brought"),
        (["--task", "halves"], "unknown task 'halves'"),
        (["--task", "regression"], "digits: a set for regression has real numbers for labels"),
        (["--task", "half.py:Half", "--method", "elr"], "method elr serves classification, and the data set is one of"),
    ],
)
def test_tasks_that_cannot_be_had(
    words: list[str], message: str, own_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, *words).replace(f"{own_task}/", "")
    assert message in said
    assert not (own_task / "runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Rows", "loss must be a tensor [], not torch.float32 [200]"),
        ("Number", "loss must be a tensor [], not float"),
        ("Detached", "loss does not depend on the logits; compute it from them without detach()"),
        ("Raising", "loss fails with RuntimeError: mat1 and mat2"),
        ("Real", "answer must be a tensor torch.int64 [200], not torch.float32 [200]"),
        ("Wide", "answer must be a tensor torch.int64 [200], not torch.int64 [200, 1]"),
        ("Few", "unseen must be a tensor [200], not torch.int64 [3]"),
        ("Scoreless", "figures: it has no halves; it has: loss"),
        ("Tensors", "figures: loss is of type Tensor; make it a Python number, as in float(value)"),
        ("Headless", "head must return a torch.nn.Module, not NoneType"),
        ("Narrow", "the logits of head must be a tensor [2, 1], not torch.float32 [2, 3]"),
        ("Flat", "table must return an array of 200 rows, one for each label"),
        ("Odd", "num_outputs must be an integer of at least 1, not 'three'"),
        ("Unscored", "its score must be a Score, but it is str"),
        ("Needy", "of fails with TypeError: Needy.__init__() missing 1 required positional argument: 'more'"),
        ("Strange", "of must return a task, not int"),
        ("Unlabelled", "corrupt and brought must return fastnoise.noise.NoisyLabels"),
        ("Sharing", "shares: it must return a dictionary of figures by name, not int"),
        ("Keeping", "kept must return arrays by name, with 359 rows each"),
    ],
)
def test_mistakes_in_a_task_show_before_its_run(
    name: str, message: str, own_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = torch.get_rng_state()
    said = refusal(capsys, "--task", f"half.py:{name}", "--noise", "symmetric:0.1", "--limit-train", "200")
    assert f"--task {name}: {message}" in said
    assert not (own_task / "runs").exists()
    assert torch.equal(torch.get_rng_state(), random), "a trial draws no random numbers of the run's"


def test_values_are_learnt_in_their_unit() -> None:
    dataset = load_dataset("rotated:limit=30", None)
    task = Regression.of(dataset)
    assert task.scale.tolist() == [30.0]
    assert np.abs(task.table(dataset.train.labels)).max() <= 1.1
    plain = Regression.of(replace(dataset, scale=()))
    assert plain.table(dataset.train.labels).std() == pytest.approx(1, rel=1e-3)
    with pytest.raises(DataError, match="scale must be a positive number for each of 1 values"):
        Regression.of(replace(dataset, scale=(1.0, 0.0)))
