"""The studies of two tasks and of several labels: networks, data, training loop, annotation files, commands."""

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _set_cases import IDS, NAMES, write_coco
from PIL import Image
from rich.console import Console
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn.functional import cross_entropy, mish

from fastnoise.config import RunConfig
from fastnoise.data import ImageTable, canvas, coco, load_dataset
from fastnoise.data.canvas import group_ranges
from fastnoise.data.two_tasks import split_classes
from fastnoise.engine.prepare import create_parts, load_data
from fastnoise.errors import ConfigError, DataError
from fastnoise.methods import Run
from fastnoise.models.resnet import BasicBlock, PreActBlock, ResNet
from fastnoise.recipes import recipe
from fastnoise.studies import multilabel, multitask
from fastnoise.tasks.multilabel import MultiLabel, average_precision
from fastnoise.tasks.multitask import MultiTask
from fastnoise.tasks.regression import Regression

pytestmark = pytest.mark.usefixtures("forked_servers")

GROUPS = (range(6), range(6, 10))


def console(path: Path) -> Console:
    return Console(file=(path / "said.txt").open("a"), width=200)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# -- networks --------------------------------------------------------------------------------------------------


def test_mish_takes_the_place_of_every_relu() -> None:
    torch.manual_seed(0)
    plain = ResNet(BasicBlock, (1, 1, 1, 1), 3, (8, 8), 0.125)
    torch.manual_seed(0)
    network = ResNet(BasicBlock, (1, 1, 1, 1), 3, (8, 8), 0.125, "mish")
    assert plain.state_dict().keys() == network.state_dict().keys()
    assert not any(isinstance(layer, nn.ReLU) for layer in network.modules())
    x = torch.randn(4, 3, 8, 8)
    out = mish(network.layers[1](network.layers[0](x)))
    for block in list(network.layers)[3:7]:
        inner = block.bn2(block.conv2(mish(block.bn1(block.conv1(out)))))
        out = mish(inner + block.shortcut(out))
    torch.testing.assert_close(network(x), out.mean((2, 3)))
    assert (network(x) - plain(x)).abs().max() > 0.01


def test_mish_in_pre_activation_networks() -> None:
    network = ResNet(PreActBlock, (1, 1, 1, 1), 3, (8, 8), 0.125, "mish")
    assert not any(isinstance(layer, nn.ReLU) for layer in network.modules())
    assert network.layers[1].activation is mish
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 64)


def test_losses_of_the_studies_are_one_graph() -> None:
    """What CUDA devices compile; dynamo alone, which needs no compiler."""
    for task, labels in (
        (MultiTask(tuple("abcde"), (2, 3)), torch.tensor([0, 1, 2, 3])),
        (MultiLabel(tuple("abcde")), (torch.rand(4, 5) < 0.5).to(torch.uint8)),
        (Regression(tuple("abcde")), torch.randn(4, 5)),
    ):
        logits = torch.randn(4, 5)
        compiled = torch.compile(task.loss, fullgraph=True, dynamic=False, backend="eager")
        torch.testing.assert_close(compiled(logits, labels), task.loss(logits, labels))


# -- two tasks -------------------------------------------------------------------------------------------------


def test_classes_are_split_at_random_into_halves() -> None:
    first, second = split_classes(100, 0)
    assert len(first) == len(second) == 50
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(100))
    assert np.array_equal(first, np.sort(first))
    assert np.array_equal(first, split_classes(100, 0)[0])
    others = [split_classes(100, seed)[0] for seed in range(1, 40)]
    shared = [len(np.intersect1d(first, other)) for other in others]
    assert 23 <= np.mean(shared) <= 27  # 25 of 50 by chance
    assert [len(part) for part in split_classes(7, 0)] == [3, 4]


TASKS = "two-tasks:of=digits,seed=3,limit=300"


def task_config(**changes: Any) -> RunConfig:
    noise = {"noise": "symmetric:0.5,classes=5-9", "val_fraction": 0.1}
    small = {"batch_size": 32, "width": 0.125, "loader": "torch", "device": "cpu"}
    return recipe("multitask", TASKS, "none").replace({**noise, **small, **changes})


def test_labels_of_two_tasks_count_their_classes() -> None:
    digits, data = load_dataset("digits", None), load_dataset(TASKS, None)
    classes = np.concatenate(split_classes(10, 3))
    known = {image.tobytes(): label for image, label in zip(digits.train.images, digits.train.labels, strict=True)}
    assert data.train.images is not None
    assert [known[image.tobytes()] for image in data.train.images] == classes[data.train.labels].tolist()
    assert np.bincount(data.train.labels // 5).tolist() == [300, 300]
    assert len(data.test) == len(digits.test)
    assert data.groups == (5, 5)
    alone = load_dataset(TASKS + ",only=1", None)
    assert alone.groups == (5,)
    assert np.array_equal(alone.train.images, data.train.images[data.train.labels < 5])


@pytest.mark.parametrize("limit", [1, 7, 299, 301, 302, 303, 700])
def test_a_task_has_as_many_images_as_its_limit_says(limit: int) -> None:
    labels = load_dataset(f"two-tasks:of=digits,seed=3,limit={limit}", None).train.labels
    assert np.bincount(labels // 5).tolist() == [limit, limit]
    whole = load_dataset("two-tasks:of=digits,seed=3", None).train.labels
    share = limit / np.repeat(np.bincount(whole // 5), 5)
    assert (np.abs(np.bincount(labels, minlength=10) - share * np.bincount(whole)) < 1).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two-tasks:of=digits,limit=5000", "limit=5000: a task of digits has "),
        ("two-tasks:of=digits,only=3", "only=3 must be 1 or 2, or 0 for both tasks"),
        ("two-tasks:of=rotated", "of=rotated must be one of digits, mnist, cifar10"),
    ],
)
def test_two_tasks_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(name, "data")


def test_noise_stays_in_its_task() -> None:
    data = load_data(task_config())
    assert data.clean is not None
    flipped = data.given != data.clean
    assert not flipped[data.clean < 5].any()
    assert flipped[data.clean >= 5].mean() == pytest.approx(0.5, abs=0.15)
    assert data.given[data.clean >= 5].min() >= 5


def shared(config: RunConfig) -> tuple[Any, Any, Any]:
    """A run's data, method and network, as they stand before the first step."""
    data = load_data(config)
    method, (network,) = create_parts(config, data, torch.device("cpu"), fresh=True)
    given = torch.from_numpy(data.given)
    view: Any = None
    method.end_epoch(Run(0, 3, 1, [network], given, given, view, view))
    return data, method, network


def test_batches_alternate_and_losses_are_summed() -> None:
    data, method, network = shared(task_config())
    task, labels = data.task, torch.from_numpy(data.given)
    first = np.flatnonzero(data.given < 5)
    orders = [method.order(epoch, 1).reshape(-1, 2, 16) for epoch in range(1, 9)]
    for order in orders:
        assert len(order) == len(first) // 16
        assert (data.given[order[:, 0]] < 5).all()
        assert (data.given[order[:, 1]] >= 5).all()
        assert len(np.unique(order[:, 0])) == order[:, 0].size, "an epoch is one of the first task"
    second, stream = np.flatnonzero(data.given >= 5), np.concatenate([order[:, 1].ravel() for order in orders])
    for start in range(0, len(stream) - len(second), len(second)):
        assert np.array_equal(np.sort(stream[start : start + len(second)]), second), "the second runs on by itself"
    index = torch.from_numpy(orders[0][0].ravel())
    images = torch.randn(32, *data.train.shape)
    found = method.training_step([network], images, labels[index], index)
    network.train()
    parts = [network(part).logits[:, 5 * number : 5 * number + 5] for number, part in enumerate(images.split(16))]
    targets = labels[index[:16]], labels[index[16:]] - 5
    losses = [cross_entropy(part, wanted) for part, wanted in zip(parts, targets, strict=True)]
    torch.testing.assert_close(found.loss, losses[0] + losses[1])
    assert torch.equal(found.predictions[:16, 0], parts[0].argmax(1))
    assert torch.equal(found.predictions[16:, 1], 5 + parts[1].argmax(1))
    assert task.describe() == "2 tasks of 5 and 5 classes"


def test_the_baseline_begins_with_the_weights_it_has_beside_the_other_task() -> None:
    _, _, together = shared(task_config())
    _, _, alone = shared(task_config(dataset=TASKS + ",only=1", noise="none", batch_size=16))
    weights = together.state_dict()
    assert len(alone.state_dict()) == len(weights) - 2
    for name, value in alone.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_batch_is_shared_evenly() -> None:
    with pytest.raises(ConfigError, match="--batch-size 31: 2 tasks share a batch evenly; give a multiple of 2"):
        shared(task_config(batch_size=31))
    with pytest.raises(ConfigError, match=r"task 1 has \d+ training images, and a step takes 400"):
        shared(task_config(batch_size=800))


# -- canvases --------------------------------------------------------------------------------------------------


def blocks(count: int = 30) -> ImageTable:
    """Digits that can be told on a canvas: the inner 20 x 20 pixels of label k have the value 20 (k + 1)."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24, 0] = 20 * (labels + 1)[:, None, None]
    return ImageTable(labels, images=images)


def test_canvases_show_exactly_their_labels() -> None:
    pixels, labels = canvas.compose_canvases(blocks(), 300, 80, seed=0, groups=GROUPS)
    assert pixels.shape == (300, 80, 80, 1)
    assert labels.shape == (300, 10)
    for image, row in zip(pixels, labels, strict=True):
        values, counts = np.unique(image[image > 0], return_counts=True)
        assert np.array_equal(values // 20 - 1, np.flatnonzero(row))
        assert (counts == 400).all()  # whole: no block lies on another, none leaves the canvas
    assert set(labels.sum(1)) == {1, 2, 3, 4}
    assert labels[:, :6].sum(1).max() == 3
    assert labels[:, 6:].sum(1).max() == 2
    assert 0.15 < labels.mean(0).min() <= labels.mean(0).max() < 0.35


def test_canvases_follow_from_the_seed() -> None:
    first, again, other = (canvas.compose_canvases(blocks(), 20, 80, seed=seed, groups=GROUPS) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_canvases_that_cannot_be() -> None:
    with pytest.raises(DataError, match="a canvas of 48 x 48 has no room for 4 digits; it takes 64 x 64 or more"):
        canvas.compose_canvases(blocks(), 5, 48, seed=0, groups=GROUPS)
    with pytest.raises(DataError, match="no image of the digit 4"):
        canvas.compose_canvases(blocks().take(np.arange(4)), 5, 80, seed=0, groups=GROUPS)
    with pytest.raises(DataError, match="label 9 is a group of its own"):
        canvas.compose_canvases(blocks(), 5, 80, seed=0, groups=(range(9), range(9, 10)))


def test_groups_of_labels() -> None:
    assert group_ranges(80, None) == (range(50), range(50, 80))
    assert group_ranges(10, None) == GROUPS
    assert group_ranges(10, 3) == (range(3), range(3, 10))
    for first in (0, 1, 9, 10):
        with pytest.raises(
            ConfigError, match=f"a first group of {first} labels: of 10 labels each group needs at least 2"
        ):
            group_ranges(10, first)


# -- mean average precision ------------------------------------------------------------------------------------


def test_average_precision_is_scikit_learns() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(200, 6) < torch.tensor([0.5, 0.3, 0.1, 0.05, 0.0, 0.02])).to(torch.uint8)
    labels[3, 5] = 1
    logits = 8 * torch.randn(200, 6) + 20 * labels
    found = average_precision(logits.numpy(), labels.numpy())
    assert np.isnan(found[4])
    for label in (0, 1, 2, 3, 5):
        expected = average_precision_score(labels[:, label].numpy(), logits[:, label].numpy())
        assert float(found[label]) == pytest.approx(expected, abs=1e-6)


def test_large_logits_are_still_told_apart() -> None:
    logits = torch.tensor([[25.0, 0.0], [26.0, 1.0], [27.0, 2.0]])
    labels = torch.tensor([[0, 0], [0, 1], [1, 1]], dtype=torch.uint8)
    assert average_precision(logits.numpy(), labels.numpy()).tolist() == [1.0, 1.0]


# -- COCO ------------------------------------------------------------------------------------------------------


def test_annotations_become_labels(tmp_path: Path) -> None:
    file, folder, labels = write_coco(tmp_path, "train", 12)
    found = coco.read_coco(file, folder)
    assert np.array_equal(found.labels, labels)
    assert list(found.categories.items()) == list(zip(IDS, NAMES, strict=True))
    assert found.files[3] == str(folder / "000003.png")


def change(key: str, place: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key][place].update(fields)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no images": (lambda c: c.pop("images"), "has no list 'images'"),
    "no list": (lambda c: c.update(annotations={}), "has no list 'annotations'"),
    "empty images": (lambda c: c.update(images=[]), "the list images is empty"),
    "empty annotations": (lambda c: c.update(annotations=[]), "the list annotations is empty"),
    "one category": (
        lambda c: c.update(categories=c["categories"][:1]),
        "the list categories has 1; at least 2 are needed",
    ),
    "doubled file": (
        change("images", 1, file_name="000000.png"),
        r"images\[1\] has the file_name '000000.png', as one before it",
    ),
    "doubled name": (change("categories", 0, name="cup"), r"categories\[1\] has the name 'cup', as one before it"),
    "long name": (change("images", 0, file_name="x" * 5000), r"1 of the 8 images in .* are missing, first 'xxx"),
    "unknown category": (change("annotations", 2, category_id=90), r"annotations\[2\] has the unknown category_id 90"),
    "unknown image": (change("annotations", 1, image_id=7), r"annotations\[1\] has the image_id 7, which no image has"),
    "doubled image": (change("images", 1, id=1000), r"images\[1\] has the id 1000, as one before it"),
    "doubled category": (change("categories", 0, id=1), r"categories\[5\] has the id 1, as one before it"),
    "id of text": (change("images", 2, id="x"), r"images\[2\] needs id, an integer, found 'x'"),
    "id of truth": (change("categories", 0, id=True), r"categories\[0\] needs id, an integer, found True"),
    "no file name": (change("images", 0, file_name=None), r"images\[0\] needs file_name, a text, found None"),
    "no name": (change("categories", 1, name=3), r"categories\[1\] needs name, a text, found 3"),
    "no object": (
        lambda c: c["annotations"].insert(0, [1]),
        r"annotations\[0\] needs image_id, an integer, found None",
    ),
    "missing images": (
        lambda c: [entry.update(file_name="x" + entry["file_name"]) for entry in c["images"][4:6]],
        "2 of the 8 images in .* are missing, first 'x000004.png'",
    ),
    "out of the folder": (change("images", 0, file_name="../secret.png"), r"file_name '../secret.png' leads out of"),
    "absolute": (change("images", 0, file_name="/etc/passwd"), r"file_name '/etc/passwd' leads out of"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_annotations_are_refused(tmp_path: Path, damage: str) -> None:
    file, folder, _ = write_coco(tmp_path, "train", 8)
    content = json.loads(file.read_text())
    spoil, message = DAMAGES[damage]
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        coco.read_coco(file, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not a JSON file"),
        (b"\xff\xfe\x00", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[]", "has no list 'images'"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: bytes | None, message: str) -> None:
    file = tmp_path / "instances.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(DataError, match=message):
        coco.read_coco(file, tmp_path)


def test_a_missing_folder_and_other_categories(tmp_path: Path) -> None:
    file, folder, _ = write_coco(tmp_path, "train", 8)
    with pytest.raises(DataError, match="no such folder"):
        coco.read_coco(file, tmp_path / "images")
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "sofa"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    first, second = coco.read_coco(file, folder), coco.read_coco(other, folder)
    with pytest.raises(DataError, match=r"category 62 is 'sofa', and 'chair' in .*train.json"):
        coco.same_categories(first, file, second, other)
    coco.same_categories(first, file, first, file)


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder, _ = write_coco(tmp_path, "train", 8)
    found = coco.read_coco(file, folder)
    pixels = coco.decode(found.files, 32, tmp_path / "cache")
    assert pixels.shape == (8, 32, 32, 3)
    expected = Image.open(found.files[2]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[2], np.asarray(expected))
    with monkeypatch.context() as context:
        context.setattr(coco, "read_image", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(coco.decode(found.files, 32, tmp_path / "cache"), pixels)
    Image.new("RGB", (40, 40), (9, 8, 7)).save(found.files[2])
    assert (coco.decode(found.files, 32, tmp_path / "cache")[2] == (9, 8, 7)).all()
    Path(found.files[5]).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"cannot read the image .*000005.png"):
        coco.decode(found.files, 32, tmp_path / "cache")


def test_two_processes_that_decode_at_once_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder, _ = write_coco(tmp_path, "train", 4)
    found, save, cache = coco.read_coco(file, folder), np.save, tmp_path / "cache"
    others: list[np.ndarray] = []

    def beside(stream: Any, array: np.ndarray, **options: Any) -> None:
        monkeypatch.setattr(np, "save", save)
        with monkeypatch.context() as context:  # another process begins, and ends
            context.setattr(os, "getpid", lambda: 1)
            others.append(coco.decode(found.files, 32, cache))
        save(stream, array, **options)

    monkeypatch.setattr(np, "save", beside)
    assert np.array_equal(coco.decode(found.files, 32, cache), others[0])
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


# -- the commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "given", "message"),
    [
        (multitask, {"rates": (0.5, 1.5)}, r"--rates must lie in \[0, 1\], not 1.5"),
        (multitask, {"repeats": 0}, "--repeats must be at least 1, not 0"),
        (multitask, {"limit_train": 0}, "--limit-train must be at least 1, not 0"),
        (multitask, {"width": 0.0}, "--width must be positive, not 0.0"),
        (multitask, {"learning_rate": math.inf}, "--learning-rate must be positive, not inf"),
        (multilabel, {"image_size": 0}, "--image-size must be at least 1, not 0"),
        (multilabel, {"rates": (math.nan,)}, r"--rates must lie in \[0, 1\], not nan"),
        (multilabel, {"dataset": "mnist-canvas", "test_images": "x"}, "--test-images is for --dataset coco"),
    ],
)
def test_bad_options_are_refused(study: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study.Options(**given)


@pytest.mark.parametrize("study", [multitask, multilabel])
def test_options_replace_what_quick_and_full_say(study: Any) -> None:
    quick, full = (
        multitask.chosen(study.Options(quick=quick, rates=(1.0, 0.2), epochs=7), study.FULL, study.QUICK)
        for quick in (True, False)
    )
    assert quick["rates"] == full["rates"] == [0.0, 0.2, 1.0]
    assert quick["epochs"] == full["epochs"] == 7
    assert (quick["repeats"], full["repeats"]) == (1, 3)
    assert len(study.FULL["rates"]) == 12
    assert quick.keys() == full.keys()


def test_study_of_two_tasks(tmp_path: Path) -> None:
    options = multitask.Options(
        quick=True, dataset="digits", rates=(1.0,), epochs=2, limit_train=200, width=0.125, batch_size=32,
        device="cpu", out=str(tmp_path / "out"), jobs=1,
    )  # fmt: skip
    out = multitask.run(options, console(tmp_path))
    assert is_png(out / "figure.png")
    points, runs = rows(out / "figure.csv"), rows(out / "runs.csv")
    assert [point["rate"] for point in points] == ["0", "1"]
    assert [run["rate"] for run in runs] == ["0", "1"]
    for run in runs:
        assert float(run["gain"]) == pytest.approx(float(run["task1"]) - float(run["baseline"]), abs=2e-6)
        assert 1 <= int(run["best_epoch"]) <= 2
    stored = json.loads((out / "study.json").read_text())
    assert "shared it gains" in stored["text"]
    said = (tmp_path / "said.txt").read_text()
    assert "3 trainings, 0 done" in said
    assert "steps/s measured" in said
    summary = out / "jobs" / runs[1]["run"] / "summary.json"
    kept = out / "jobs" / runs[0]["run"] / "summary.json"
    times = kept.stat().st_mtime_ns
    (out / "figure.png").unlink()
    summary.unlink()
    multitask.run(options, console(tmp_path))
    assert rows(out / "runs.csv") == runs
    assert is_png(out / "figure.png")
    assert kept.stat().st_mtime_ns == times
    assert "3 trainings, 2 done" in (tmp_path / "said.txt").read_text()


def test_study_of_several_labels_on_coco(tmp_path: Path) -> None:
    file, folder, _ = write_coco(tmp_path, "train", 60)
    test_file, test_folder, _ = write_coco(tmp_path, "val", 30, seed=1)
    given: dict[str, Any] = {
        "annotations": str(file), "images": str(folder),
        "test_annotations": str(test_file), "test_images": str(test_folder),
        "rates": (1.0,), "repeats": 1, "epochs": 1, "image_size": 72, "width": 0.125, "batch_size": 16,
        "first_group": 3, "device": "cpu", "out": str(tmp_path / "out"), "jobs": 1,
    }  # fmt: skip
    with pytest.raises(DataError, match="take cardinality='free' or a larger group"):
        multilabel.run(multilabel.Options(**given), console(tmp_path))  # 2 of 3 labels have one absent one
    content = json.loads(test_file.read_text())
    empty = tmp_path / "empty.json"
    kept = [entry for entry in content["annotations"] if entry["category_id"] in IDS[3:]]
    empty.write_text(json.dumps(content | {"annotations": kept}))
    changed = {"test_annotations": str(empty), "out": str(tmp_path / "empty")}
    with pytest.raises(DataError, match="no test image has a label of 1 to 3; give a larger test set"):
        multilabel.run(multilabel.Options(**given | changed), console(tmp_path))
    out = multilabel.run(
        multilabel.Options(**given | {"cardinality": "free", "out": str(tmp_path / "free")}), console(tmp_path)
    )
    assert is_png(out / "figure.png")
    points = rows(out / "figure.csv")
    assert [(point["corrupted_group"], point["rate"]) for point in points] == [
        ("1", "0"),
        ("1", "1"),
        ("2", "0"),
        ("2", "1"),
    ]
    for point in points:
        assert float(point["overall"]) == pytest.approx(
            (float(point["clean"]) + float(point["corrupted"])) / 2, abs=1e-5
        )
    swapped = [float(run["swapped"]) for run in rows(out / "runs.csv")]
    assert swapped[0] == swapped[2] == 0
    assert min(swapped[1], swapped[3]) > 0.5
    assert "labels 1 to 3 corrupted" in json.loads((out / "study.json").read_text())["text"]


def test_coco_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dataset coco needs --annotations; or take --dataset mnist-canvas"):
        multilabel.Options(dataset="coco")
    with pytest.raises(ConfigError, match="--dataset coco needs --images; or take"):
        multilabel.Options(annotations="train.json")
    files: dict[str, Any] = dict.fromkeys(("annotations", "images", "test_annotations", "test_images"), "x")
    assert multilabel.Options(**files).source == "coco"
    assert multilabel.Options().source == "mnist-canvas"
