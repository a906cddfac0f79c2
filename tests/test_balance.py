"""Imbalanced classes: weights of the loss, the balanced order of an epoch, and who takes which."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _train_cases import assert_same_end, history, killed_at, refusal
from rich.console import Console
from torch.nn.functional import cross_entropy

import fastnoise
from fastnoise import ImageDataset
from fastnoise.data import make_loader
from fastnoise.data.balance import balanced_order, class_weights, drawn_order, drawn_subset, filled
from fastnoise.data.digits import load_digits
from fastnoise.engine.stacked import stackable
from fastnoise.errors import ConfigError, FastnoiseError
from fastnoise.methods import METHODS, Method
from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import job_name

ORDERED = {"dividemix", "augdesc", "pes", "pes_semi", "c2d", "ssr", "ssr_plus", "swce", "swce_dividemix", "multitask"}
"""Methods that order their epochs themselves."""
UNWEIGHTED = {"mixup", "selc_plus", "elr_plus", "dividemix", "c2d", "ssr", "ssr_plus", "swce_dividemix", "simclr"}
UNWEIGHTED |= {"disc", "multitask", "plain", "augdesc", "pes", "pes_semi", "promix"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imbalanced() -> ImageDataset:
    """Digits 0, 1 and 2: 80, 25 and 8 of them to learn from, and 30 of each to test."""
    table = load_digits("digits", None, False).train
    assert table.images is not None
    places = [np.flatnonzero(table.labels == digit) for digit in range(3)]
    rows = np.concatenate([place[:count] for place, count in zip(places, (80, 25, 8), strict=True)])
    others = np.concatenate([place[-30:] for place in places])
    images, labels = table.images, table.labels
    test = {"test_images": images[others], "test_labels": labels[others]}
    return ImageDataset.from_arrays(images[rows], labels[rows], **test, name="rare")


def config_of(method: str = "ce", **changes: Any) -> Any:
    settings = {
        "epochs": 2,
        "batch_size": 32,
        "width": 0.25,
        "model": "small_cnn",
        "crop_padding": 0,
        "flip": False,
        "amp": "off",
        "device": "cpu",
    }
    return recipe(method, "rare").replace(settings | changes)


# -- orders and weights ----------------------------------------------------------------------------------------


def test_batches_are_balanced_and_have_no_sample_twice() -> None:
    for seed in range(100):
        random = np.random.default_rng(seed)
        num_classes, count, size = (int(random.integers(1, high)) for high in (12, 400, 100))
        labels = random.choice(num_classes, count, p=random.dirichlet(np.full(num_classes, 0.3))) + seed % 3
        order = balanced_order(labels, size, seed, 1)
        assert order.shape == (count,)
        classes, counts = np.unique(labels, return_counts=True)
        for start in range(0, count, size):
            batch = order[start : start + size]
            assert len(np.unique(batch)) == len(batch)
            found = (labels[batch][:, None] == classes).sum(0)
            part = found[found < counts]  # of the classes that are not there with all of their samples
            assert part.size == 0 or np.ptp(part) <= 1
            assert part.size == 0 or (counts[found == counts] <= part.max() + 1).all()
        visits = np.bincount(order, minlength=count)
        assert all(np.ptp(visits[labels == label]) <= 1 for label in classes)


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=(0.7, 0.2, 0.07, 0.03))
    assert np.array_equal(balanced_order(labels, 32, 5, 2), balanced_order(labels, 32, 5, 2))
    assert not np.array_equal(balanced_order(labels, 32, 5, 2), balanced_order(labels, 32, 5, 3))
    assert not np.array_equal(balanced_order(labels, 32, 5, 2), balanced_order(labels, 32, 6, 2))


def test_an_epoch_of_some_batches_is_balanced_in_each() -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=(0.7, 0.2, 0.07, 0.03))
    assert np.array_equal(balanced_order(labels, 32, 5, 2), balanced_order(labels, 32, 5, 2, None))
    for batches in (1, 3, 50):  # the last more than all samples make
        order = balanced_order(labels, 32, 5, 2, batches)
        assert order.shape == (32 * batches,)
        for batch in order.reshape(batches, 32):
            assert len(np.unique(batch)) == 32
            found = np.bincount(labels[batch], minlength=4)
            assert (found[np.bincount(labels) > found] >= 8).all()


def test_a_subset_has_as_many_of_each_class_as_there_are() -> None:
    """As DivideMix's loader draws Clothing1M's, but for classes that have too few, whose places the others get."""
    labels = np.repeat([0, 1, 2, 3], [100, 60, 40, 5])
    drawn = drawn_subset(labels, 80, 0, 1, balanced=True)
    assert len(np.unique(drawn)) == 80
    assert np.bincount(labels[drawn]).tolist() == [25, 25, 25, 5]
    plain = drawn_subset(labels, 80, 0, 1, balanced=False)
    assert len(np.unique(plain)) == 80
    counts = np.mean([np.bincount(labels[drawn_subset(labels, 80, 0, e, False)], minlength=4) for e in range(200)], 0)
    assert np.abs(counts - 80 * np.bincount(labels) / len(labels)).max() < 1
    for balanced in (True, False):
        first = drawn_subset(labels, 80, 0, 1, balanced)
        assert np.array_equal(first, drawn_subset(labels, 80, 0, 1, balanced))
        assert not np.array_equal(first, drawn_subset(labels, 80, 0, 2, balanced))
        assert not np.array_equal(first, drawn_subset(labels, 80, 1, 1, balanced))
        assert not np.array_equal(labels[first], np.sort(labels[first]))
    assert drawn_order("none", labels, 16, None, 0, 1) is None
    assert np.array_equal(drawn_order("subset", labels, 16, 5, 0, 1), drawn_subset(labels, 80, 0, 1, True))  # type: ignore[arg-type]


def test_weights_make_classes_count_alike() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 3])
    weights = class_weights(labels, 5)
    assert weights.tolist() == [0.5, 1.5, 0, 3, 0]
    assert weights[labels].mean() == 1
    sums = np.bincount(labels, weights[labels], minlength=5)
    assert sums.tolist() == [3, 3, 0, 3, 0]


def test_a_last_batch_is_filled_with_the_first_samples() -> None:
    order = np.arange(9)
    assert filled(order, 4, 2).tolist() == [*range(9), 0]
    assert filled(np.arange(10), 4, 4).tolist() == [*range(10), 0, 1]
    assert filled(order, 4, 1) is order
    assert filled(np.arange(8), 4, 2).tolist() == list(range(8))
    assert filled(np.arange(1), 4, 2).tolist() == [0]


@pytest.mark.parametrize("kind", ["resident", "torch", "dali"])
def test_every_loader_takes_the_balanced_order(kind: str) -> None:
    if kind == "dali":
        pytest.importorskip("nvidia.dali")
    data = imbalanced()
    order = balanced_order(data.train.labels, 32, 0, 1)
    made = [
        make_loader(each, data.train, batch_size=32, mean=data.mean, std=data.std, device="cpu", shuffle=True)
        for each in (kind, "torch")
    ]
    for (images, index), (others, _) in zip(*(each.epoch(1, 0, order) for each in made), strict=True):
        torch.testing.assert_close(images, others)
        order, expected = order[len(index) :], order[: len(index)]
        assert index.tolist() == expected.tolist()
    for loader in made:
        loader.close()


# -- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["weights", "sampler"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_it_or_says_why_not(name: str, balance: str) -> None:
    method: type[Method] = METHODS[name]
    if method.tasks is not None and "classification" not in method.tasks:
        return
    changes: dict[str, Any] = {"balance": balance, "epochs": 1}
    if name == "swce":
        changes |= {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "epochs": 2}
    config = config_of(name, **changes)
    refused = ORDERED if balance == "sampler" else UNWEIGHTED
    if name in refused:
        with pytest.raises(ConfigError, match=f"--balance {balance}: .*method {name} ") as found:
            fastnoise.train(config, dataset=imbalanced())
        assert balance == "sampler" or "ce, cores, coteaching, dual_t, elr" in str(found.value)
        return
    summary = fastnoise.train(config, dataset=imbalanced())
    assert summary["epochs"] == config.optim.epochs


def test_weights_multiply_the_loss_of_each_sample() -> None:
    method = METHODS["ce"](recipe("ce", "digits").method, 4, 3)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    method.class_weights = torch.tensor([0.5, 1.0, 4.0])
    outputs: Any = type("Outputs", (), {"logits": logits})
    expected = (cross_entropy(logits, labels, reduction="none") * method.class_weights[labels]).mean()
    torch.testing.assert_close(method.loss(outputs, labels, torch.arange(4)), expected)
    assert "class_weights" not in method.state_dict(), "they follow from the labels"


def test_rare_classes_are_learnt_better() -> None:
    data = imbalanced()
    recall, said = {}, io.StringIO()
    console = Console(file=said, width=200)
    for balance in ("none", "weights", "sampler"):
        config = config_of(epochs=8, balance=balance, run_dir=balance, learning_rate=0.05, schedule="constant")
        recall[balance] = fastnoise.train(config, dataset=data, console=console)["test_class_accuracy"][2]
    assert "balance: sampler; classes have 8 (2) to 80 (0) training images" in said.getvalue()
    assert recall["none"] + 0.2 < min(recall["weights"], recall["sampler"])


@pytest.mark.parametrize("balance", ["weights", "sampler"])
@pytest.mark.parametrize("name", ["elr", "coteaching"])
def test_a_killed_run_ends_in_the_same_numbers(name: str, balance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, balance=balance, epochs=3, save_every="0.0001s")
    fastnoise.train(config.replace({"run_dir": "whole"}), dataset=imbalanced())
    cut = config.replace({"run_dir": "cut"})
    with monkeypatch.context() as patch:
        killed_at(patch, 8)  # the third of five steps of the second epoch
        with pytest.raises(GeneratorExit):
            fastnoise.train(cut, dataset=imbalanced())
    fastnoise.train(cut, dataset=imbalanced(), resume=True)
    assert_same_end(Path("whole"), Path("cut"))
    with pytest.raises(FastnoiseError, match="its balance is"):
        fastnoise.train(cut.replace({"balance": "none"}), dataset=imbalanced(), resume=True)


@pytest.mark.parametrize("balance", ["none", "sampler", "subset"])
@pytest.mark.parametrize("name", ["elr", "dividemix"])
def test_short_epochs_of_a_killed_run_are_drawn_as_before(
    name: str, balance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule counts these epochs; dividemix draws quarters of a batch, and divides what it draws alone."""
    if (name, balance) == ("dividemix", "sampler"):
        return
    batches = 10 if name == "dividemix" else 3
    changes: dict[str, Any] = {"warm_up": 1} if name == "dividemix" else {}
    config = config_of(name, balance=balance, epoch_batches=batches, epochs=4, save_every="0.0001s", **changes)
    config = config.replace({"schedule": "multistep:2,gamma=0.1", "learning_rate": 0.05})
    fastnoise.train(config.replace({"run_dir": "whole"}), dataset=imbalanced())
    cut = config.replace({"run_dir": "cut"})
    with monkeypatch.context() as patch:
        killed_at(patch, 5 if name == "elr" else 7)
        with pytest.raises(GeneratorExit):
            fastnoise.train(cut, dataset=imbalanced())
    fastnoise.train(cut, dataset=imbalanced(), resume=True)
    assert_same_end(Path("whole"), Path("cut"))
    epochs = history(Path("whole"))
    assert [epoch["learning_rate"] for epoch in epochs] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    if name == "dividemix":
        assert all(0 < epoch.get("labelled", 0.5) <= 1 for epoch in epochs)


def test_dividemix_divides_what_the_next_epoch_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    kind: Any = METHODS["dividemix"]
    divide = kind._divide

    def watched(self: Any, run: Any, drawn: Any = None) -> None:
        divide(self, run, drawn)
        if drawn is not None and bool(self.divided):
            inside = np.isin(np.arange(self.num_samples), drawn)
            labelled = self.labelled.numpy()
            assert not labelled[:, ~inside].any()
            assert np.isin(self.order(run.epoch + 1, run.seed), drawn).all()
            assert np.bincount(self.setting.given[drawn], minlength=3).tolist() == [24, 24, 8]
        seen.append((run.epoch, self.num_samples if drawn is None else len(drawn)))

    monkeypatch.setattr(kind, "_divide", watched)
    config = config_of("dividemix", balance="subset", epoch_batches=7, epochs=4, warm_up=1)
    fastnoise.train(config, dataset=imbalanced())
    assert seen == [(1, 56), (2, 56), (3, 56), (4, 113)], "the last time all, for the estimates"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--balance", "subset"), "give its length, as --epoch-batches 1000"),
        (
            ("--epoch-batches", "1000"),
            "--epoch-batches 1000 of 64 are 64000 images, and the training set has 1438; give at",
        ),
        (
            ("--epoch-batches", "5", "--method", "swce"),
            "--epoch-batches 5: method swce orders the samples of its epochs",
        ),
        (
            ("--epoch-batches", "5", "--method", "dividemix", "--balance", "sampler"),
            "--balance sampler: method dividemix",
        ),
        (("--epoch-batches", "5", "--method", "dividemix", "--loss-epochs", "2"), "--loss-epochs 2 averages"),
        (("--epoch-batches", "1", "--balance", "sampler", "--batch-size", "2000"), "the training set has 1438"),
    ],
)
def test_lengths_that_cannot_be_are_refused(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, "--dataset", "digits", *words)


def test_what_has_no_classes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dataset", "rotated", "--balance", "sampler")
    assert "--balance sampler is for data sets with a class for each image" in refusal(capsys, *words)


def test_names_of_jobs_stay_and_stacks_are_refused() -> None:
    config = recipe("ce", "digits")
    assert job_name(config) == job_name(config.replace({"balance": "none", "patience": 0}))
    assert job_name(config) != job_name(config.replace({"balance": "weights"}))
    assert job_name(config) != job_name(config.replace({"patience": 3}))
    runs = [config.replace({"balance": "weights", "seed": seed}) for seed in (0, 1)]
    assert "--balance counts the labels of one run" in str(stackable(runs))
    runs = [config.replace({"patience": 3, "val_fraction": 0.1, "seed": seed}) for seed in (0, 1)]
    assert "--patience ends each run after an epoch of its own" in str(stackable(runs))
