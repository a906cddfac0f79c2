"""The rate of wrong labels: what methods that go by it take if it is given, known, found by a cleaning, or unknown."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _train_cases import refusal

import fastnoise
from fastnoise.cli import main
from fastnoise.config import RunConfig
from fastnoise.data.digits import load_digits
from fastnoise.errors import ConfigError
from fastnoise.methods.options import OPTIONS, CoTeachingOptions, DivideMixOptions
from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import resolve
from fastnoise.words import train_config

QUICK: dict[str, Any] = {"epochs": 1, "width": 0.25, "limit_train": 100, "save_every": 5}
WORDS = [word for name, value in QUICK.items() for word in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def labels() -> str:
    """A file with the labels of digits, of which nobody says whether they are right."""
    np.save("given.npy", load_digits("digits", None, False).train.labels)
    return "given.npy"


@pytest.fixture
def cleaning() -> str:
    folder = Path("cleaned/photos")
    folder.mkdir(parents=True)
    (folder / "finding.json").write_text(json.dumps({"rate": 0.19, "rate_low": 0.1}))
    return str(folder)


def forget_rate(config: RunConfig) -> float:
    assert isinstance(config.method, CoTeachingOptions)
    return config.method.forget_rate


def kept(run: str) -> dict[str, Any]:
    return tomllib.loads(Path(run, "config.toml").read_text())


def test_the_recipe_is_the_same_from_python_and_from_words(labels: str) -> None:
    for words, config in (
        (["--dataset", "folder:x"], recipe("coteaching", "folder:x")),
        (["--dataset", "list:x.csv", "--noise", "none"], recipe("coteaching", "list:x.csv", "none")),
        (["--labels", labels], recipe("coteaching", labels=labels)),
        (["--dataset", "folder:x", "--noise-rate", "0.3"], recipe("coteaching", "folder:x", noise_rate=0.3)),
    ):
        said = train_config(["--method", "coteaching", *words])[0]
        assert forget_rate(said) == forget_rate(config)
        assert said.noise.noise_rate == config.noise.noise_rate
    assert forget_rate(recipe("coteaching", "folder:x")) == 0.2
    assert forget_rate(recipe("coteaching", "digits", "none")) == 0, "whose labels are right"
    assert forget_rate(recipe("coteaching", "digits", "pair:0.45")) == 0.45
    assert forget_rate(recipe("coteaching", "digits", "pair:0.45", noise_rate=0.3)) == 0.3


def test_every_method_that_goes_by_a_rate_says_so_in_its_options() -> None:
    by_rate = {name for name, kind in OPTIONS.items() if kind.by_rate}
    expected = "augdesc c2d coteaching disc dividemix jocor promix ssr ssr_plus swce_dividemix"
    assert by_rate == set(expected.split())
    for kind in OPTIONS.values():
        assert set(kind.by_rate) <= set(kind.names())
    high = recipe("dividemix", "folder:x", noise_rate=0.9).method
    assert isinstance(high, DivideMixOptions)
    assert (high.clean_threshold, high.loss_epochs) == (0.6, 5)
    strengths = [recipe("dividemix", "cifar10", "none", noise_rate=rate).flat() for rate in (0.2, 0.5, 0.9)]
    assert [each["unlabelled_strength"] for each in strengths] == [0, 25, 50]


def test_a_rate_that_nobody_knows_is_said_and_kept(labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--method", "coteaching", "--labels", labels, *WORDS, "--run-dir", "words"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the rate of wrong labels is unknown, and coteaching goes by it: 0.2 is assumed" in said
    assert "(forget_rate 0.2)" in said
    config = recipe("coteaching", labels=labels).replace({**QUICK, "run_dir": "python"})
    fastnoise.train(config)
    assert "0.2 is assumed" in capsys.readouterr().out
    for run in ("words", "python"):
        assert (kept(run)["noise_rate"], kept(run)["forget_rate"]) == (0.2, 0.2)
    assert main(["train", "--resume", "words", "--epochs", "2"]) == 0
    assert "assumed" not in capsys.readouterr().out
    fastnoise.train(config.replace({"epochs": 2}), resume=True)


def test_a_rate_that_is_given_or_chosen_is_not_assumed(labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--method", "coteaching", "--labels", labels, *WORDS]
    assert main([*words, "--noise-rate", "0.3", "--run-dir", "given"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "noise rate: 0.3; coteaching goes by it, and has forget_rate 0.3" in said
    assert "rate of wrong labels" not in said
    assert (kept("given")["noise_rate"], kept("given")["forget_rate"]) == (0.3, 0.3)
    assert main([*words, "--forget-rate", "0.25", "--run-dir", "chosen"]) == 0
    assert "is unknown; coteaching goes by it, and has forget_rate 0.25" in " ".join(capsys.readouterr().out.split())
    assert "noise_rate" not in kept("chosen")
    assert main(["train", "--method", "coteaching", *WORDS, "--run-dir", "known"]) == 0
    assert "rate of wrong labels" not in capsys.readouterr().out
    assert "noise_rate" not in kept("known")


def test_a_cleanings_estimate_is_taken(cleaning: str) -> None:
    assert forget_rate(recipe("coteaching", "folder:x", noise_rate=cleaning)) == 0.19
    said = train_config(["--method", "coteaching", "--dataset", "folder:x", "--noise-rate", cleaning])[0]
    assert (said.noise.noise_rate, forget_rate(said)) == (0.19, 0.19)
    Path("run.toml").write_text(f'method = "coteaching"\ndataset = "folder:x"\nnoise_rate = "{cleaning}"\n')
    assert forget_rate(train_config(["--config", "run.toml"])[0]) == 0.19
    Path("run.toml").write_text('method = "coteaching"\ndataset = "folder:x"\nnoise_rate = 0.35\n')
    assert forget_rate(train_config(["--config", "run.toml"])[0]) == 0.35
    Path("sweep.toml").write_text(f'method = "coteaching"\n[grid]\nnoise_rate = ["{cleaning}", 0.3]\n')
    assert [job.fields["forget_rate"] for job in resolve(Path("sweep.toml"))] == [0.19, 0.3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--noise-rate 0.3",
            "--noise-rate has no meaning for method nal; it is for augdesc, c2d, coteaching, disc, dividemix, "
            "jocor, promix, ssr, ssr_plus, swce_dividemix",
        ),
        (
            "--method coteaching --noise-rate gone",
            "neither a number nor the folder of a fastnoise clean (it has no finding.json); give a rate as 0.2",
        ),
        ("--method coteaching --noise-rate 1", "--noise-rate must lie in [0, 1), not 1.0"),
        ("--method coteaching --noise-rate blind", "that cleaning could not tell the rate; give a number"),
        ("--method coteaching --noise-rate broken", "finding.json cannot be read"),
        ("--method coteaching --noise-rate text", "the rate in finding.json must be a number, not 'x'"),
    ],
)
def test_rates_that_are_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("blind", '{"rate": null}'), ("broken", "{"), ("text", '{"rate": "x"}')):
        Path(name).mkdir()
        Path(name, "finding.json").write_text(content)
    assert message in refusal(capsys, *words.split())


def test_a_rate_that_came_after_the_recipe_is_refused() -> None:
    config = recipe("coteaching", "digits").replace({**QUICK, "noise_rate": 0.3})
    with pytest.raises(ConfigError, match=r"--noise-rate 0.3 and forget_rate 0.4 contradict: .* has forget_rate 0.3"):
        fastnoise.train(config)


def test_methods_of_ones_own_take_the_rate() -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import Annotated, ClassVar\n"
        "from fastnoise.losses import CrossEntropyLoss\n"
        "from fastnoise.methods import Between, Method, MethodOptions\n"
        "@dataclass(frozen=True)\n"
        "class Options(MethodOptions):\n"
        "    by_rate: ClassVar = ('share',)\n"
        "    share: Annotated[float, Between(0, 1)] = 0.5\n"
        "class Mine(Method):\n"
        "    name = 'mine'\n"
        "    Options = Options\n"
        "    def __init__(self, options, num_samples, num_classes):\n"
        "        super().__init__(options, num_samples, num_classes)\n"
        "        self.criterion = CrossEntropyLoss()\n"
    )
    config = recipe("mine.py:Mine", "digits", noise_rate=0.3).replace({**QUICK, "run_dir": "run"})
    assert config.flat()["share"] == 0.3
    fastnoise.train(config)
    assert kept("run")["share"] == 0.3
    assert recipe("mine.py:Mine", "digits").flat()["share"] == 0.5
