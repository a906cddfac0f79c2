"""--recipe: the short courses, where they apply, and what is said of published accuracies beside them."""

from pathlib import Path

import pytest
from _train_cases import refusal

from fastnoise.cli import main
from fastnoise.config import RECIPES, Schedule
from fastnoise.errors import ConfigError
from fastnoise.recipes import recipe
from fastnoise.recipes.deviations import OTHER_RECIPE, deviations_of, listing
from fastnoise.recipes.fast import CPU_SMALL, METHODS
from fastnoise.recipes.published import deviations, published
from fastnoise.sweeps.spec import resolve
from fastnoise.words import train_config

SHORT = [name for name in RECIPES if name != "published"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar10n", "cifar100", "cifar100n"])
@pytest.mark.parametrize("method", METHODS)
def test_courses_on_cifar(name: str, dataset: str, method: str) -> None:
    config, before = recipe(method, dataset, recipe=name), recipe(method, dataset)
    assert config.optim.recipe == name
    assert before.optim.recipe == "published"
    assert Schedule.parse(config.optim.schedule).by_step
    assert config.optim.epochs <= 50
    assert config.data.augmentation().alternating
    assert config.data.val_fraction == 0
    options, epochs = config.method, config.optim.epochs
    assert getattr(options, "networks", 1) == 1
    if (first := getattr(options, "update_from", 0)) > 1:
        assert first <= 0.6 * epochs
    if (momentum := getattr(options, "momentum", None)) is not None:
        assert (1 - momentum) * epochs >= 3.5
    kept = {"strength", "q", "k", "target", "mixup_alpha", "variant"}
    assert all(getattr(options, key) == getattr(before.method, key) for key in kept if hasattr(options, key))
    assert config.noise == before.noise


@pytest.mark.parametrize("dataset", CPU_SMALL)
def test_small_sets_keep_their_networks(dataset: str) -> None:
    config, before = recipe("nal", dataset, recipe="cpu"), recipe("nal", dataset)
    assert config.model == before.model
    assert config.optim.epochs < before.optim.epochs
    assert not config.data.eval_mirror


def test_it_is_refused_by_name_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--recipe cpu is for ce, gce" in refusal(capsys, "--recipe", "cpu", "--method", "coteaching")
    assert "not for coteaching" in refusal(capsys, "--recipe", "cpu", "--method", "coteaching")
    assert "not for digits" in refusal(capsys, "--recipe", "speedrun", "--method", "ce")
    assert "digits, mnist, not for folder:x" in refusal(
        capsys, "--recipe", "cpu", "--method", "ce", "--dataset", "folder:x"
    )
    assert "--recipe fast: unknown name" in refusal(capsys, "--recipe", "fast")
    with pytest.raises(ConfigError, match="unknown name"):
        recipe("ce", "cifar10", recipe="fast")


def test_the_command_line_and_sweeps_take_it() -> None:
    config, _ = train_config(["--recipe", "cpu", "--method", "elr", "--dataset", "cifar10", "--epochs", "7"])
    assert config.optim.recipe == "cpu"
    assert config.optim.epochs == 7
    assert config.model.model == recipe("elr", "cifar10", recipe="cpu").model.model
    Path("run.toml").write_text('recipe = "fast-r18"\ndataset = "cifar10"\nmethod = "ce"\n')
    assert train_config(["--config", "run.toml"])[0].data.batch_size == 512
    Path("sweep.toml").write_text(
        'dataset = "cifar10"\n[grid]\nrecipe = ["published", "cpu"]\nmethod = ["ce", "elr"]\n'
    )
    jobs = resolve(Path("sweep.toml"))
    assert [job.fields["epochs"] for job in jobs] == [120, 150] + [
        recipe("ce", "cifar10", recipe="cpu").optim.epochs
    ] * 2
    assert len({job.name for job in jobs}) == 4


def test_fast_r18_goes_by_the_number_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, files, sweeps and Python alike; what is given by itself stays."""
    words = ["--recipe", "fast-r18", "--method", "elr", "--dataset", "cifar10"]
    lines = 'recipe = "fast-r18"\ndataset = "cifar10"\nmethod = "elr"\n'
    few, many = (64, 0.05, 1e-3), (512, 0.1, 5e-4)
    for count, course in ((24_999, few), (25_000, many)):
        Path("run.toml").write_text(f"{lines}limit_train = {count}\n")
        Path("sweep.toml").write_text(f"{lines}[grid]\nlimit_train = [{count}]\n")
        (job,) = resolve(Path("sweep.toml"))
        for fields in (
            train_config([*words, "--limit-train", str(count)])[0].flat(),
            train_config(["--config", "run.toml"])[0].flat(),
            recipe("elr", "cifar10", recipe="fast-r18", limit_train=count).flat(),
            job.fields,
        ):
            assert (fields["batch_size"], fields["learning_rate"], fields["weight_decay"]) == course
            assert fields["limit_train"] == count
    config = train_config([*words, "--limit-train", "9000", "--batch-size", "128"])[0]
    assert (config.data.batch_size, config.optim.learning_rate) == (128, 0.05)
    assert recipe("elr", "cifar10", recipe="speedrun", limit_train=9000).data.batch_size == 1024
    assert "--limit-train must be positive, not 0" in refusal(capsys, *words, "--limit-train", "0")


def test_published_accuracies_are_never_silently_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    config = recipe("elr", "cifar10", recipe="fast-r18")
    assert published(config) == {}  # there is none of this network
    config = recipe("elr", "cifar10", model="resnet34", recipe="fast-r18")
    (entry,) = published(config).values()
    assert "the recipe fast-r18, there the authors' own" in deviations(config, entry)
    assert "recipe" not in deviations(recipe("elr", "cifar10"), entry)
    assert deviations_of(config) == [OTHER_RECIPE]
    assert "made by the authors' own course" in listing(config)
    words = ["--method", "elr", "--dataset", "cifar10", "--recipe", "speedrun", "--deviations"]
    assert main(["train", *words]) == 0
    assert "made by the authors' own course" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "digits", "--limit-train", "64", "--method", "ce", "--recipe", "cpu", "--epochs", "1"]
    assert main(["train", *words, "--run-dir", "run"]) == 0
    assert train_config(["--resume", "run"])[0].optim.recipe == "cpu"
    assert "the run has recipe cpu" in refusal(capsys, "--resume", "run", "--recipe", "published")
