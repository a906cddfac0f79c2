"""What the authors' own code does, to the letter: the numbers that were read in it or counted by running it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastnoise import noise
from fastnoise.cli import main
from fastnoise.data import ImageDataset
from fastnoise.data.cifar import MEAN_STD
from fastnoise.engine.folder import RunFolder
from fastnoise.engine.prepare import load_data
from fastnoise.errors import ConfigError
from fastnoise.methods import create_method
from fastnoise.methods.options import CoTeachingOptions
from fastnoise.methods.options_of_losses import GCEOptions
from fastnoise.recipes import recipe

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar_sized(count: int = 50_000, channels: int = 3) -> ImageDataset:
    """As many images of each class as CIFAR-10 has, of one pixel, in an order of their own."""
    labels = np.random.default_rng(0).permutation(np.arange(count) % 10)
    images = np.zeros((count, 1, 1, channels), np.uint8)
    return ImageDataset.from_arrays(
        images, labels, test_images=images[:100], test_labels=labels[:100], class_names=CLASSES, name="cifar-sized"
    )


# -- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        ("symmetric:0.8,true_class=included,quota=global", 0.72),  # NAL's and SELC's loader: .719 was counted
        ("symmetric:0.4,true_class=included,quota=global", 0.36),
        ("asymmetric:0.4,map=cifar10,sequential=true", 0.184),  # ELR's and APL's loaders
    ],
)
def test_realised_rates_are_those_of_the_authors_loaders(spec: str, rate: float) -> None:
    clean = np.random.default_rng(1).permutation(np.arange(50_000) % 10)
    found = noise.corrupt(clean, spec, seed=0, num_classes=10)
    assert found.realised_rate == pytest.approx(rate, abs=3e-3)


def test_sequential_flips_give_cats_back() -> None:
    """Cat .2406 and dog .4006 were counted in ELR's loader; 0.4 (1 - 0.4) and 0.4 are expected."""
    clean = np.random.default_rng(1).permutation(np.arange(50_000) % 10)
    rates = noise.corrupt(clean, "asymmetric:0.4,map=cifar10,sequential=true", seed=0, num_classes=10).class_rates
    assert rates[CLASSES.index("cat")] == pytest.approx(0.24, abs=0.015)
    assert rates[CLASSES.index("dog")] == pytest.approx(0.4, abs=0.015)


# -- ELR's split ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "train", "validation"),
    [
        ("symmetric:0.4,true_class=included,quota=global", 0.36, 0.36),
        ("asymmetric:0.4,map=cifar10,sequential=true", 0.184, 0.184),
    ],
)
def test_elr_splits_the_true_classes_and_corrupts_both_parts_apart(spec: str, train: float, validation: float) -> None:
    dataset = cifar_sized()
    settings = {"dataset": dataset.name, "val_fraction": 0.1}
    given, clean = (
        load_data(recipe("elr", dataset.name, spec).replace({**settings, "val_split": split}), dataset)
        for split in ("given", "clean")
    )
    assert clean.validation is not None
    assert clean.clean is not None
    assert np.bincount(clean.validation.labels).tolist() == [500] * 10
    assert np.bincount(clean.clean).tolist() == [4500] * 10
    assert (clean.given != clean.clean).mean() == pytest.approx(train, abs=5e-3)
    assert (clean.validation_given != clean.validation.labels).mean() == pytest.approx(validation, abs=0.02)
    assert given.validation_given is not None
    spread = np.bincount(given.validation_given) - np.bincount(given.noisy.labels) / 10
    assert np.abs(spread).max() <= 0.5, "the other way: a tenth of each class of the noisy labels"
    assert len(clean.noisy.labels) == 50_000
    held = np.setdiff1d(np.arange(50_000), clean.positions)
    assert np.array_equal(clean.noisy.labels[held], clean.validation_given)
    assert np.array_equal(clean.noisy.labels[clean.positions], clean.given)


def test_parts_that_are_corrupted_apart_draw_other_flips() -> None:
    """The first samples of both parts would flip alike with one seed."""
    dataset = cifar_sized(2000)
    changes = {"val_fraction": 0.5, "val_split": "clean"}
    data = load_data(recipe("elr", dataset.name, "symmetric:0.5").replace(changes), dataset)
    assert data.clean is not None
    assert data.validation is not None
    flips = (data.given != data.clean).astype(float), (data.validation_given != data.validation.labels).astype(float)
    assert abs(np.corrcoef(*flips)[0, 1]) < 0.15


def test_clean_splits_are_refused_where_they_cannot_be() -> None:
    dataset = cifar_sized(2000)
    changes = {"val_fraction": 0.1, "val_split": "clean"}
    config = recipe("elr", dataset.name, "pmd:0.35,posteriors=p.npy").replace(changes)
    with pytest.raises(ConfigError, match="has posteriors of all; take --val-split given"):
        load_data(config, dataset)
    assert recipe("elr", "cifar10", "pmd:0.35,posteriors=p.npy").data.val_split == "given"


# -- inputs ---------------------------------------------------------------------------------------------------------


def test_normalisation() -> None:
    dataset = cifar_sized(2000)
    config = recipe("ce", dataset.name, "none")
    found = {
        name: load_data(config.replace({"normalisation": name}), dataset) for name in ("dataset", "cifar10", "none")
    }
    assert (found["dataset"].mean, found["dataset"].std) == (dataset.mean, dataset.std)
    assert (found["cifar10"].mean, found["cifar10"].std) == MEAN_STD["cifar10"]
    assert (found["none"].mean, found["none"].std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="--normalisation cifar10 is for images of 3 channels"):
        load_data(config.replace({"normalisation": "cifar10"}), cifar_sized(2000, channels=1))


# -- methods --------------------------------------------------------------------------------------------------------


def test_coteaching_reaches_its_forget_rate_in_the_ninth_epoch() -> None:
    """The authors' rate_schedule[:10] = linspace(0, forget rate, 10), and the first epoch is their epoch 1."""
    authors = np.full(199, 0.45)
    authors[:9] = np.linspace(0, 0.45, 10)[1:]
    found: dict[str, list[float]] = {}
    for variant in ("paper", "code"):
        options = CoTeachingOptions(forget_rate=0.45, variant=variant)  # type: ignore[arg-type]
        method: Any = create_method(options, num_samples=100, num_classes=10)
        found[variant] = []
        for epoch in range(1, 200):
            method.start_epoch(epoch)
            found[variant].append(1 - float(method.remember_rate))
    assert found["code"] == pytest.approx(authors, abs=1e-6)
    assert found["paper"][8] == pytest.approx(0.405, abs=1e-6)
    assert found["paper"][9:] == pytest.approx(authors[9:], abs=1e-6)


@pytest.mark.parametrize(("dataset", "start"), [("mnist", 80), ("cifar10", 80), ("cifar100", 100)])
def test_coteachings_learning_rate_is_that_of_its_code(dataset: str, start: int) -> None:
    """alpha_plan[i] for the epochs i = 1 to 199."""
    from fastnoise.engine.optimizer import create_optimizer, create_schedule

    config = recipe("coteaching", dataset, "pair:0.45").optim
    optimizer = create_optimizer(config, torch.nn.Linear(1, 1))
    schedule, found = create_schedule(config, optimizer), []
    for _ in range(config.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    plan = [1e-3 if i < start else (200 - i) / (200 - start) * 1e-3 for i in range(1, 200)]
    assert found == pytest.approx(plan, rel=1e-6)


@pytest.mark.parametrize(("dataset", "first", "epochs"), [("cifar10", 40, 120), ("cifar100", 80, 150)])
def test_gce_prunes_before_the_epochs_of_its_code(dataset: str, first: int, epochs: int) -> None:
    """(epoch + 1) >= start_prune and (epoch + 1) % 10 == 0, for epochs counted from 0, before an epoch's first step."""
    config = recipe("gce", dataset, "symmetric:0.4")
    assert isinstance(config.method, GCEOptions)
    assert config.optim.epochs == epochs
    method: Any = create_method(config.method, num_samples=4, num_classes=10)

    class Seen(Exception):
        pass

    class Passes:
        """Stands for `Run`: an epoch's end, at which a pass over the training set is asked for or not."""

        def __init__(self, epoch: int):
            self.epoch, self.epochs = epoch, epochs

        def scan(self, judge: Any) -> Any:
            raise Seen

    found = []
    for epoch in range(1, epochs):
        try:
            method.end_epoch(Passes(epoch))
        except Seen:
            found.append(epoch + 1)
    assert found == list(range(first, epochs + 1, 10))


def test_plc_warms_up_longer_for_hybrid_noise_on_cifar100() -> None:
    hybrid = "pmd:0.35,hybrid=symmetric:0.3,posteriors=p.npy"
    found = {
        (dataset, spec.partition(",")[0]): recipe("plc", dataset, spec).flat()["warm_up"]
        for dataset in ("cifar10", "cifar100")
        for spec in ("pmd:0.35,posteriors=p.npy", hybrid)
    }
    assert found == {("cifar10", "pmd:0.35"): 8, ("cifar100", "pmd:0.35"): 15}
    assert recipe("plc", "cifar100", "pmd:0.35,posteriors=p.npy").flat()["warm_up"] == 8
    assert recipe("plc", "cifar100", hybrid).data.normalisation == "cifar10"
    assert recipe("plc", "cifar10", hybrid).data.normalisation == "dataset"


# -- deviations that can be counted ---------------------------------------------------------------------------------


def test_selcs_rates_under_pmd_noise_fall_an_epoch_later_than_it_says() -> None:
    """A new SGD after each epoch, with the rate for the epoch that has ended: 0.2 after 60 and 120 comes too late."""
    from fastnoise.engine.optimizer import create_optimizer, create_schedule

    rate, authors = 0.1, []
    for epoch in range(1, 151):
        authors.append(rate)
        rate = 0.1 * 0.2 ** (2 if epoch > 120 else 1 if epoch > 60 else 0)
    for dataset in ("cifar10", "cifar100"):
        config = recipe("selc", dataset, "pmd:0.35,posteriors=p.npy").optim
        optimizer = create_optimizer(config, torch.nn.Linear(1, 1))
        schedule, found = create_schedule(config, optimizer), []
        for _ in range(config.epochs):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert found == pytest.approx(authors)


def test_sces_rates_on_mnist_are_those_of_its_scheduler() -> None:
    """0.001 for epochs above 30 and 0.01 above 10, counted from 0."""
    from fastnoise.engine.optimizer import create_optimizer, create_schedule

    config = recipe("sce", "mnist", "symmetric:0.4").optim
    optimizer = create_optimizer(config, torch.nn.Linear(1, 1))
    schedule, found = create_schedule(config, optimizer), []
    for _ in range(config.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx([0.001 if e > 30 else 0.01 if e > 10 else 0.1 for e in range(50)])


# -- clipped gradients in a run -------------------------------------------------------------------------------------


def test_a_run_with_clipped_gradients_goes_on_as_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APL's configurations have grad_bound 5."""
    monkeypatch.chdir(tmp_path)
    words = ["train", "--method", "ce", "--dataset", "digits", "--limit-train", "200", "--width", "0.25"]
    words += ["--schedule", "constant", "--clip-norm", "0.5"]
    assert main([*words, "--epochs", "2", "--run-dir", "whole"]) == 0
    assert main([*words, "--epochs", "1", "--run-dir", "parts"]) == 0
    assert main(["train", "--resume", "parts", "--epochs", "2"]) == 0
    assert main([*words[:-2], "--epochs", "2", "--run-dir", "free"]) == 0
    found = {name: RunFolder(Path(name)).read_checkpoint(torch.device("cpu")) for name in ("whole", "parts", "free")}
    states = {name: found[name]["networks"] for name in found}  # type: ignore[index]
    for key, tensor in states["whole"].items():
        assert torch.equal(tensor, states["parts"][key])
    assert any(not torch.equal(tensor, states["free"][key]) for key, tensor in states["whole"].items())
    assert RunFolder(Path("parts")).read_config().optim.clip_norm == 0.5
    for method, dataset in (("apl", "cifar10"), ("apl", "cifar100"), ("apl", "mnist")):
        assert recipe(method, dataset).optim.clip_norm == 5.0
