"""Configurations: checked when built, flat names, recipes, TOML, and one-line refusals."""

from pathlib import Path

import pytest

from fastnoise.config import COMMON, Optimizer, RunConfig, Schedule
from fastnoise.engine.prepare import check_run
from fastnoise.errors import ConfigError, FastnoiseError
from fastnoise.methods import METHODS, check_options
from fastnoise.methods.options import ELROptions, NALOptions
from fastnoise.recipes import recipe
from fastnoise.schedules import SaveEvery
from fastnoise.sweeps.spec import job_name, resolve
from fastnoise.words import train_config

DATASETS = ("digits", "mnist", "cifar10", "cifar100", "cifar10n", "cifar100n", "folder:somewhere")


def test_no_arguments_give_nal_on_digits_with_40_percent_symmetric_noise() -> None:
    config, resume = train_config([])
    assert not resume
    assert (config.method.method, config.data.dataset, config.noise.noise) == ("nal", "digits", "symmetric:0.4")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_recipe_sets_just_what_its_method_reads(method: str, dataset: str) -> None:
    config = recipe(method, dataset)
    assert config.method.method == method
    assert config.data.dataset == dataset
    kind = check_options(config.method)
    assert kind.name == method
    if kind.tasks is None or "classification" in kind.tasks:
        check_run(config)
    else:
        with pytest.raises(ConfigError, match=f"method {method} serves {kind.tasks[0]}, and the data set is one of cl"):
            check_run(config)


def test_published_hyperparameters() -> None:
    elr = recipe("elr", "cifar10", "symmetric:0.4").flat()
    assert (elr["strength"], elr["momentum"], elr["epochs"]) == (3.0, 0.7, 150)
    assert elr["schedule"] == "cosine_restarts:10,min=0.001"
    asymmetric = recipe("elr", "cifar10", "asymmetric:0.4").flat()
    assert (asymmetric["strength"], asymmetric["momentum"], asymmetric["epochs"]) == (1.0, 0.9, 120)
    elr100 = recipe("elr", "cifar100").flat()
    assert (elr100["strength"], elr100["momentum"], elr100["schedule"]) == (7.0, 0.9, "multistep:80,120,gamma=0.01")
    nal = recipe("nal", "cifar100", variant="code").flat()
    assert (nal["strength"], nal["update_from"], nal["update_every"], nal["batch_size"]) == (10.0, 60, 10, 64)
    code, paper = recipe("nal", "cifar10", variant="code").method, recipe("nal", "cifar10").method
    assert isinstance(code, NALOptions)
    assert isinstance(paper, NALOptions)
    assert (code.update_from, paper.update_every) == (60, 1)


def test_flat_names_are_unique_and_replace_reaches_every_group() -> None:
    config = RunConfig()
    assert tuple(config.flat()) == tuple(config.groups()) == COMMON
    changed = config.replace({"seed": 7, "width": 0.5, "run_dir": "x"})
    assert (changed.engine.seed, changed.model.width, changed.run_dir) == (7, 0.5, "x")
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        config.replace({"learning_rat": 1.0})


def test_dropout_of_a_recipe_goes_with_its_network(tmp_path: Path) -> None:
    words = ["--method", "coteaching", "--dataset", "cifar10"]
    for form in ("cnn9", "cnn9_dropout2d", "cnn9_dropout2d_always"):
        changed = train_config([*words, "--model", form])[0].model
        assert (changed.model, changed.dropout) == (form, 0.25)
    assert train_config(words)[0].model.dropout == 0.25
    assert train_config([*words, "--model", "resnet18"])[0].model.dropout == 0
    file = tmp_path / "run.toml"
    file.write_text('model = "resnet18"\n')
    assert train_config([*words, "--config", str(file)])[0].model.dropout == 0
    assert train_config([*words, "--model", "lenet5", "--dropout", "0.5"])[0].model.dropout == 0.5


def test_flags_change_toml_and_toml_changes_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('method = "elr"\ndataset = "mnist"\nlearning_rate = 0.5\nbatch-size = 7\nflip = true\n')
    config, _ = train_config(["--config", str(file), "--learning-rate", "0.25"])
    assert config.method.method == "elr"
    assert config.model.model == "lenet5"
    assert (config.optim.learning_rate, config.data.batch_size, config.data.flip) == (0.25, 7, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "nall"], "unknown method 'nall'; did you mean 'nal'? valid: "),
        (["--sed", "3"], "unknown option --sed; did you mean '--seed'? valid:"),
        (["--help-al"], "unknown option --help-al; did you mean '--help-all'? valid:"),
        (["stray"], "unexpected argument 'stray'"),
        (["--seed", "x"], "--seed"),
        (["--compile", "of"], "'of'"),
        (["--compile-options", "turbo"], "--compile-options turbo: unknown option 'turbo'; valid: auto, combo_kernels"),
        (["--compile-options", "pdl,"], "--compile-options pdl,: unknown option ''"),
        (["--compile-options", "auto,pdl"], "--compile-options auto,pdl: give auto alone, or drop it"),
        (["--compile-options", "pdl", "--gear", "eager"], "is for compiled steps, and this run has none; drop it"),
        (["--compile-options", "pdl", "--gear", "graphed"], "this run has none; drop it, or add --compile on"),
        (["--compile-options", "combo_kernels", "--compile", "off"], "is for compiled steps, and this run has none"),
        (["--gear", "compiled_graphed", "--compile", "off"], "contradict each other"),
        *(
            (
                ["--save-every", value],
                f"--save-every {value}: give a number of epochs (1 or more), a time such as 60s, 5m or 1h",
            )
            for value in ("0", "-1", "0s", "-5s", "60x", "s", "nans", "infs", "1.5", "", "1e999h", "1e308h")
        ),
        (["--strength", "-1"], "--strength must be 0 or more"),
        (["--learning-rate", "nan"], "--learning-rate must be positive"),
        (["--method", "ce", "--momentum", "0.5"], "--momentum has no meaning for method ce; "),
        (["--method", "elr", "--variant", "code"], "--variant has no meaning for method elr"),
        (["--schedule", "cosin"], "did you mean 'cosine'"),
        (["--schedule", "multistep:9,3"], "rising epochs"),
        (["--schedule", "cosine:gamma=1"], "cosine has no option 'gamma'"),
        (["--optimizer", "sgd:momentum=2"], "momentum must lie in [0, 1)"),
        (["--config", "missing.toml"], "no such file"),
        (["--dataset", "cifar11"], "unknown dataset 'cifar11'; did you mean 'cifar10"),
        (["--model", "resnet19"], "unknown model 'resnet19'; did you mean 'resnet18'"),
        (["--noise", "symmetric:1.5"], "1.5"),
        (["--noise", "symetric:0.5"], "did you mean 'symmetric'"),
        (["--labels", "x.npy", "--noise", "pair:0.2"], "--labels uses the labels of a file as they are"),
        (["--image-size", "64"], "--image-size resizes image files as those of folder:PATH; digits has a fixed size"),
        (["--data-root", "nowhere", "--dataset", "mnist"], "--data-root nowhere: no such folder"),
        (["--resume", "nowhere"], "--resume nowhere: no run here"),
    ],
)
def test_refusals_are_one_line_and_name_the_flag(words: list[str], message: str) -> None:
    with pytest.raises(FastnoiseError) as caught:
        check_run(train_config(words)[0])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("colour = 3\n", "colour: unknown field"), ("seed = [1]\n", "seed must be"), ("seed = \n", "not a readable TOML")],
)
def test_toml_refusals_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        train_config(["--config", str(file)])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, SaveEvery(epochs=1)),
        ("12", SaveEvery(epochs=12)),
        ("60s", SaveEvery(seconds=60.0)),
        ("0.5s", SaveEvery(seconds=0.5)),
        ("5m", SaveEvery(seconds=300.0)),
        ("1h", SaveEvery(seconds=3600.0)),
        ("auto", SaveEvery()),
    ],
)
def test_checkpoints_by_epochs_and_by_time(value: int | str, expected: SaveEvery, tmp_path: Path) -> None:
    """As a flag, in a TOML file, in a sweep's file and in Python alike."""
    assert SaveEvery.parse(value) == expected
    file = tmp_path / "run.toml"
    file.write_text(f"save_every = {value if isinstance(value, int) else repr(value)}\n")
    for words in (["--save-every", str(value)], ["--config", str(file)]):
        assert SaveEvery.parse(train_config(words)[0].engine.save_every) == expected
    (job,) = resolve(file)
    assert isinstance(job.config, RunConfig)
    assert job.config.engine.save_every == value
    assert job.name == "0c34c6414b58"


def test_jobs_keep_their_names_of_old() -> None:
    """They were taken before checkpoints had times and the compiler options; finished jobs must be found again."""
    for method, dataset, changes, name in (
        ("nal", "digits", {}, "0c34c6414b58"),
        ("elr", "cifar10", {"seed": 1, "val_split": "given", "init": "network"}, "5311c385433b"),
        ("ce", "mnist", {"gear": "eager", "save_every": 5}, "8f3afac30b1a"),
    ):
        assert job_name(recipe(method, dataset).replace(changes)) == name


def test_specs() -> None:
    assert Schedule.parse("multistep:40,80,gamma=0.01") == Schedule("multistep", (40, 80), 0.01)
    assert Schedule.parse("cosine_restarts:10,min=0.001") == Schedule("cosine_restarts", period=10, minimum=0.001)
    assert Optimizer.parse("sgd:momentum=0.5,nesterov") == Optimizer("sgd", 0.5, True)
    assert Optimizer.parse("sgd").momentum == 0.9


def test_options_of_another_method_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method nal takes NALOptions, not ELROptions; make the configuration by"):
        check_options(ELROptions("nal"))
