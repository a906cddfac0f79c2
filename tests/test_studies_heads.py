"""The studies of two tasks and of several labels: networks, data, training loop, annotation files, commands."""

import csv
import json
import math
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

from fastnoise.config import OptimConfig
from fastnoise.data import ImageTable, canvas, coco, load_dataset
from fastnoise.data.canvas import group_ranges
from fastnoise.engine import RunFolder
from fastnoise.errors import CheckpointError, ConfigError, DataError, TrainingError
from fastnoise.models.heads import MultiTaskNetwork
from fastnoise.models.resnet import BasicBlock, PreActBlock, ResNet
from fastnoise.studies import fit, multilabel, multitask
from fastnoise.studies.multitask_training import MultiTask, split_classes, summed_cross_entropy, task_data
from fastnoise.tasks.multilabel import MultiLabel, average_precision

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


def test_tasks_share_the_backbone_and_nothing_else() -> None:
    network = MultiTaskNetwork(ResNet(BasicBlock, (1, 1, 1, 1), 3, (8, 8), 0.125), (5, 7))
    images = torch.randn(4, 3, 8, 8)
    network.eval()
    assert [network(images, task).shape for task in (0, 1)] == [(4, 5), (4, 7)]
    torch.testing.assert_close(network(images, 1), network.classifiers[1](network.backbone(images)))
    network(images, 1).sum().backward()
    assert network.classifiers[0].weight.grad is None
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


def test_losses_of_the_studies_are_one_graph() -> None:
    """What CUDA devices compile; dynamo alone, which needs no compiler."""
    tasks = MultiTaskNetwork(ResNet(BasicBlock, (1, 1, 1, 1), 3, (8, 8), 0.0625, "mish"), (5, 7))
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    batch = images, labels, images.flip(0), labels
    compiled = torch.compile(summed_cross_entropy, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(tasks, *batch), summed_cross_entropy(tasks, *batch))
    logits, targets = torch.randn(4, 5), (torch.rand(4, 5) < 0.5).to(torch.uint8)
    loss = MultiLabel(tuple("abcde")).loss
    compiled = torch.compile(loss, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))


# -- two tasks: data -------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_dataset("digits", None)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_noise_stays_in_the_training_labels_of_its_task(digits: Any, rate: float) -> None:
    classes = np.array([1, 4, 6, 7, 9])
    right = task_data(digits, classes, rate=0.0, limit=None, seed=3)
    task = task_data(digits, classes, rate=rate, limit=None, seed=3)
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(task, part).images, getattr(right, part).images)
    for part in ("validation", "test"):
        assert np.array_equal(getattr(task, part).labels, getattr(right, part).labels)
    flipped = task.train.labels != right.train.labels
    spread = 4 * math.sqrt(rate * (1 - rate) / len(flipped))
    assert abs(flipped.mean() - rate) <= spread
    assert task.num_classes == 5
    assert task.train.labels.min() >= 0
    assert task.train.labels.max() <= 4
    assert len(task.validation) == pytest.approx(0.1 * (len(task.train) + len(task.validation)), abs=3)
    assert len(task.test) == np.isin(digits.test.labels, classes).sum()


def test_labels_of_a_task_count_its_classes(digits: Any) -> None:
    classes = np.array([1, 4, 6, 7, 9])
    task = task_data(digits, classes, rate=0.0, limit=100, seed=0)
    assert len(task.train) + len(task.validation) == pytest.approx(100, abs=3)
    known = {image.tobytes(): label for image, label in zip(digits.train.images, digits.train.labels, strict=True)}
    for part in (task.train, task.validation):
        found = [known[image.tobytes()] for image in part.images]
        assert np.array_equal(found, classes[part.labels])


def test_higher_rates_keep_the_flips_of_lower_ones(digits: Any) -> None:
    classes = np.arange(5)
    labels = [task_data(digits, classes, rate=rate, limit=None, seed=0).train.labels for rate in (0.0, 0.3, 0.8)]
    low = labels[1] != labels[0]
    assert low.any()
    assert np.array_equal(labels[2][low], labels[1][low])


def test_limits_that_cannot_be_met(digits: Any) -> None:
    with pytest.raises(ConfigError, match="--limit-train 5000: a task of digits has "):
        task_data(digits, np.arange(5), rate=0.0, limit=5000, seed=0)
    with pytest.raises(ConfigError, match="images of a task leave none to validate on; give a larger --limit-train"):
        task_data(digits, np.arange(5), rate=0.0, limit=10, seed=0)


TASK_CONFIG: dict[str, Any] = {
    "dataset": "digits",
    "data_root": "data",
    "download": False,
    "device": "cpu",
    "seed": 1,
    "tasks": 2,
    "rate": 0.5,
    "limit_train": 300,
    "width": 0.0625,
    "batch_size": 32,
    "epochs": 3,
    "optimizer": "sgd:momentum=0.9,nesterov",
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "schedule": "cosine",
}


def test_batches_alternate_and_losses_are_summed() -> None:
    study = MultiTask(TASK_CONFIG)
    batches = list(study.batches(0))
    assert len(batches) == study.loaders[0].num_batches
    classes = split_classes(10, TASK_CONFIG["seed"])
    digits = load_dataset("digits", None)
    for images1, labels1, images2, labels2 in batches:
        assert images1.shape == images2.shape == (32, 1, 8, 8)
        loss = summed_cross_entropy(study.network, images1, labels1, images2, labels2)
        alone = cross_entropy(study.network(images1, 0), labels1), cross_entropy(study.network(images2, 1), labels2)
        torch.testing.assert_close(loss, alone[0] + alone[1])
    assert len(study.tasks[0].train) == len(
        np.unique(np.concatenate([index for _, index in study.loaders[0].epoch(0)]))
    ) + (len(study.tasks[0].train) % 32)
    assert np.array_equal(
        study.tasks[0].test.labels,
        np.searchsorted(classes[0], digits.test.labels[np.isin(digits.test.labels, classes[0])]),
    )


def test_the_second_task_runs_on_through_its_own_epochs() -> None:
    study = MultiTask(TASK_CONFIG)
    count = study.loaders[1].num_batches
    whole = [index for epoch in range(3) for _, index in study.loaders[1].epoch(epoch)]
    from fastnoise.studies.multitask_training import _endless

    stream = _endless(study.loaders[1], count - 2)
    for wanted in whole[count - 2 : count + 3]:
        assert torch.equal(next(stream)[1], wanted)


def test_the_baseline_begins_with_the_weights_it_has_beside_the_other_task() -> None:
    together, alone = MultiTask(TASK_CONFIG), MultiTask(TASK_CONFIG | {"tasks": 1, "rate": 0.0})
    shared = together.network.state_dict()
    for name, value in alone.network.state_dict().items():
        assert torch.equal(value, shared[name]), name
    first, second = next(alone.batches(2)), next(together.batches(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_too_few_classes_for_two_tasks(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(20):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    config = TASK_CONFIG | {"dataset": f"folder:{tmp_path}", "limit_train": None, "batch_size": 4}
    with pytest.raises(ConfigError, match="has 2 classes, and two tasks need at least 4"):
        MultiTask(config)
    with pytest.raises(ConfigError, match=r"--width 0\.005 leaves layers with no channels"):
        MultiTask(TASK_CONFIG | {"width": 0.005})


# -- the training loop -----------------------------------------------------------------------------------------


def mean_square(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (network(x) - y).square().mean()


OPTIM = OptimConfig(epochs=6, optimizer="sgd", learning_rate=0.05, weight_decay=0.0, schedule="cosine")


def line_fit(validation: Callable[[fit.NetworkFit, int], float], stop_at: int | None = None) -> Any:
    """A line to be fitted; `validation` tells the loss after an epoch. Stops within an epoch where that is told."""
    torch.manual_seed(0)
    training = fit.NetworkFit(nn.Linear(2, 1), mean_square, OPTIM, torch.device("cpu"), steps=4)
    seen: list[int] = []

    def batches(epoch: int) -> Any:
        for number in range(4):
            if epoch == stop_at and number == 2:
                raise KeyboardInterrupt
            generator = torch.Generator().manual_seed(10 * epoch + number)
            x = torch.randn(8, 2, generator=generator)
            yield x, x @ torch.tensor([[1.0], [-2.0]]) + 0.5
        seen.append(epoch)

    def validate() -> torch.Tensor:
        return torch.tensor(validation(training, seen[-1] + 1))

    def test() -> dict[str, float]:
        return {"weight": training.network.weight[0, 0].item()}  # type: ignore[union-attr, index, operator]

    def run(path: Path) -> dict[str, Any]:
        return training.fit(batches, validate, test, path, console(path))

    return run, seen, training


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 2.25, 4.0]
    weights = {}

    def validation(training: Any, epoch: int) -> float:
        weights[epoch] = training.network.weight[0, 0].item()
        return losses[epoch - 1]

    run, seen, training = line_fit(validation)
    found = run(tmp_path)
    assert seen == list(range(6))
    assert (found["best_epoch"], found["validation_loss"]) == (2, 2.0)
    assert (found["weight"], found["last_weight"]) == (weights[2], weights[6])
    assert training.network.weight[0, 0].item() == weights[2]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["validation_loss"] for line in lines] == losses
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_killed_training_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(fit, "SAVE_EVERY", 0.0)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()

    def validation(training: Any, epoch: int) -> float:
        return abs(epoch - 2.4)

    run, *_ = line_fit(validation)
    whole = run(tmp_path / "whole")
    run, *_ = line_fit(validation, stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    run, seen, _ = line_fit(validation)
    assert run(tmp_path / "cut") == whole
    assert seen == list(range(stop_at, 6))
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert metrics[0] == metrics[1]
    run, seen, _ = line_fit(validation)
    assert run(tmp_path / "cut") == whole  # killed between its end and its summary: nothing is trained again
    assert seen == []
    assert RunFolder(tmp_path / "cut").checkpoint.stat().st_size < 4096


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    run, *_ = line_fit(lambda training, epoch: math.nan if epoch == 2 else 1.0)
    with pytest.raises(TrainingError, match="not a finite number in epoch 2; lower --learning-rate"):
        run(tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"junk")
    run, *_ = line_fit(lambda training, epoch: 1.0)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        run(tmp_path)


def test_seeds_for_different_purposes_differ() -> None:
    found = {fit.derive_seed(seed, *path) for seed in range(50) for path in ((0,), (1,), (0, 1), (2,))}
    assert len(found) == 200
    assert all(0 <= seed < 2**63 for seed in found)


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
    with pytest.raises(DataError, match="a canvas of 48 x 48 has no room for 4 digits; give --image-size 64 or more"):
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
        with pytest.raises(ConfigError, match=f"--first-group {first}: of 10 labels each group needs at least 2"):
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
    "one category": (lambda c: c.update(categories=c["categories"][:1]), "1 categories, and a study needs at least 2"),
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
        "2 of the 8 images in .* are missing, first x000004.png",
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
        quick=True, dataset="digits", rates=(1.0,), epochs=2, limit_train=200, width=0.0625, batch_size=32,
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
