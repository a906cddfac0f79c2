"""Options belong to methods: flags, help, TOML, sweeps and run folders hold those of the run's method and no others."""

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import tomli_w
from _noise_cases import refused
from _train_cases import LATER, refusal

from fastnoise.cli import main
from fastnoise.config import COMMON
from fastnoise.engine import RunFolder
from fastnoise.errors import CheckpointError, ConfigError
from fastnoise.methods import METHODS, create_method, find_method, options_of
from fastnoise.methods.options import OPTIONS
from fastnoise.methods.options_of_losses import BootstrapOptions
from fastnoise.options import Above, AtLeast, Between, MethodOptions, Values
from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import job_name, resolve
from fastnoise.words import train_config

OWN = '''
from dataclasses import dataclass
from typing import Annotated, Literal

from fastnoise.losses import CrossEntropyLoss
from fastnoise.methods import AtLeast, Method, MethodOptions


class Mine(Method):
    """Cross-entropy, boosted."""

    name = "mine"

    @dataclass(frozen=True)
    class Options(MethodOptions):
        boost: Annotated[float, AtLeast(0)] = 2.0
        """Factor on the loss, for which nothing is published."""
        kind: Literal["plain", "odd"] = "plain"
        """Of no use."""

    def __init__(self, options, num_samples, num_classes):
        super().__init__(options, num_samples, num_classes)
        self.criterion = CrossEntropyLoss()
        self.boost = options.boost

    def loss(self, outputs, labels, index):
        return self.boost * self.criterion(outputs.logits, labels)
'''
SHORT = ["--limit-train", "64", "--epochs", "1", "--width", "0.25", "--batch-size", "32", "--loader", "torch"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return "own.py:Mine"


# -- what annotations say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "read"),
    [
        (Annotated[float, AtLeast(0)], 1, 1.0),
        (Annotated[float, AtLeast(0)], -0.5, "x must be 0 or more, not -0.5"),
        (Annotated[float, AtLeast(0)], float("nan"), "x must be 0 or more, not nan"),
        (Annotated[float, AtLeast(0)], float("inf"), "x must be 0 or more, not inf"),
        (Annotated[float, AtLeast(0)], "1", "x must be a number, not '1'"),
        (Annotated[float, AtLeast(0)], True, "x must be a number, not True"),
        (Annotated[float, Above(0, finite=False)], float("inf"), float("inf")),
        (Annotated[float, Above(0)], 0.0, "x must be positive, not 0.0"),
        (Annotated[int, AtLeast(1)], 0, "x must be at least 1, not 0"),
        (Annotated[int, AtLeast(1)], 2.5, "x must be an integer, not 2.5"),
        (Annotated[float, Between(0, 1, "(]")], 0.0, "x must lie in (0, 1], not 0.0"),
        (Annotated[int, Between(0, 2**63, "[)")], 2**63, f"x must fit into 64 bits, not {2**63}"),
        (Annotated[int, AtLeast(1)] | Literal["auto"], "auto", "auto"),
        (Annotated[int, AtLeast(1)] | Literal["auto"], 3, 3),
        (Annotated[int, AtLeast(1)] | Literal["auto"], "soon", "x must be an integer or auto, not 'soon'"),
        (Annotated[int, AtLeast(1)] | Literal["auto"], None, "x must be an integer or auto, not None"),
        (Literal["a", "b"], "c", "x must be one of a, b, not 'c'"),
        (Literal[1, 2], 2, 2),
        (Literal[1, 2], True, "x must be one of 1, 2, not True"),
        (int | str, 3, 3),
        (str | None, None, None),
        (bool, 1, "x must be true or false, not 1"),
    ],
)
def test_values_are_read_as_annotations_say(hint: Any, value: Any, read: Any) -> None:
    values = Values.of(hint)
    if isinstance(read, str) and read.startswith("x "):
        with pytest.raises(ConfigError) as caught:
            values.read("x", value)
        assert str(caught.value) == read
    else:
        found = values.read("x", value)
        assert found == read
        assert type(found) is type(read)


# -- options of fastnoise's methods --------------------------------------------------------------------------------


def test_numbers_of_numpy_are_kept_as_pythons() -> None:
    config = recipe("elr", "digits").replace({"seed": np.int64(3), "epochs": np.int32(5), "momentum": np.float32(0.5)})
    assert [type(config.flat()[name]) for name in ("seed", "epochs", "momentum")] == [int, int, float]
    assert job_name(config) == job_name(recipe("elr", "digits").replace({"seed": 3, "epochs": 5, "momentum": 0.5}))


def test_every_method_has_options_with_defaults_none_of_them_none() -> None:
    assert set(OPTIONS) <= set(METHODS)
    for name, method in METHODS.items():
        assert options_of(name) is method.Options
        options = method.Options(name)
        assert None not in [getattr(options, option) for option in options.names()]
        assert not {*options.names()} & {*COMMON, "config", "resume"}
        assert recipe(name).method.method == name
        assert type(recipe(name).method) is method.Options


def shown_help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The help of `fastnoise train` with some words, the last of them --help or --help-all."""
    with pytest.raises(SystemExit) as end:
        main(["train", *words])
    assert not end.value.code
    return capsys.readouterr().out


def of_the_method(text: str) -> str:
    """The part of a help text that has the method's options, in one line."""
    return " ".join(text.partition("\nmethod:\n")[2].partition("\n\n")[0].split())


def test_help_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    (listed,) = re.findall(
        r"`fastnoise methods`\. (.*), or FILE\.py:CLASS", of_the_method(shown_help(capsys, "--help-all"))
    )
    assert re.sub(r" \(.*?\)", "", listed).split(", ") == [*sorted(METHODS), "auto"]


@pytest.mark.parametrize("word", ["--help", "--help-all"])
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_help_shows_what_every_run_has_and_what_the_method_reads(
    name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown_help(capsys, "--method", name, word)
    shown = re.findall(r"^  --(?:\[no-\])?([a-z][a-z-]*)", text, re.MULTILINE)
    fields = [*COMMON, *options_of(name).names(), "config", "resume", "deviations", "dry_run", "gpus", "max_restarts"]
    fields += ["help_all"] if word == "--help" else []
    assert sorted(shown) == sorted(field.replace("_", "-") for field in fields)
    rows = re.findall(r"--\S+ \S+ +([^\[]+) \[([^\]]+)\]", of_the_method(text))
    assert len(rows) == 1 + len(options_of(name).names())


def test_auto_is_a_word_wherever_0_1_0_had_nothing(tmp_path: Path) -> None:
    config, _ = train_config(["--method", "selc", "--update-from", "auto"])
    assert config == train_config(["--method", "selc"])[0]
    assert train_config(["--method", "selc", "--update-from", "7"])[0].flat()["update_from"] == 7
    with pytest.raises(ConfigError, match=r"^Error parsing --update-from: no type matching INT\|\{auto\}"):
        train_config(["--method", "selc", "--update-from", "soon"])
    file = tmp_path / "run.toml"
    file.write_text('method = "bootstrap"\nbeta = "auto"\n')
    assert train_config(["--config", str(file)])[0].method == BootstrapOptions()
    file.write_text('method = "bootstrap"\nbeta = 1\n')
    assert train_config(["--config", str(file)])[0].method == BootstrapOptions(beta=1.0)


def test_flags_take_the_place_of_what_a_file_says(tmp_path: Path) -> None:
    """The rest of the file is read for the method that the flag names."""
    file = tmp_path / "run.toml"
    file.write_text('method = "selc"\nupdate_from = 4\ngear = "eager"\n')
    config, _ = train_config(["--config", str(file), "--method", "nal", "--gear", "compiled", "--compile", "on"])
    assert (config.method.method, config.flat()["update_from"], config.engine.gear) == ("nal", 4, "compiled")


# -- run folders and sweeps of 0.1.0 -------------------------------------------------------------------------------

NAMES_OF_0_1_0 = {
    "apl": "fdd844d09c74",
    "bootstrap": "0021979aa206",
    "ce": "7dce3a7d3cba",
    "coteaching": "733e3a439c7c",
    "dividemix": "5cc467e91034",
    "elr": "de015298f045",
    "elr_plus": "da8b6b74bafa",
    "focal": "6e162c34f628",
    "forward": "053e0369a1ec",
    "gce": "9b0c891db587",
    "label_smoothing": "3ea0a81798f2",
    "mae": "e2de00d04ca8",
    "mixup": "8aa18316906b",
    "nal": "0c34c6414b58",
    "plc": "9ab1fcd7cbda",
    "sce": "2b423d972684",
    "selc": "880803b0c2b7",
    "selc_plus": "6bfc6eaccf56",
    "simclr": "23c25c388c02",
    "swce": "5f4259ef3e83",
    "swce_loss": "a0b456351bbe",
}


def test_jobs_of_0_1_0_are_found_again() -> None:
    assert {name: job_name(recipe(name, "digits")) for name in NAMES_OF_0_1_0} == NAMES_OF_0_1_0
    assert set(METHODS) - set(NAMES_OF_0_1_0) == LATER


@pytest.mark.parametrize("name", sorted(METHODS))
def test_run_folders_of_0_1_0_are_read(name: str, tmp_path: Path) -> None:
    """They hold no option that was None."""
    config = recipe(name, "digits")
    options = config.method.names()
    fields = {key: value for key, value in config.flat().items() if value is not None}
    fields = {key: value for key, value in fields.items() if not (key in options and value == "auto")}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(fields))
    assert RunFolder.open(tmp_path).read_config() == config
    changed = config.replace({"seed": 3, "limit_train": 100, "run_dir": str(tmp_path)})
    RunFolder(tmp_path).write_config(changed)
    assert RunFolder.open(tmp_path).read_config() == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'method = "nal"\nforget_rate = 0.5\n',
            "forget_rate has no meaning for method nal; it is an option of coteaching",
        ),
        ('method = "nal"\nstrength = "much"\n', "strength must be a number, not 'much'"),
        ('method = "nal"\nseed = -1\n', "seed must lie in"),
        ('method = "nall"\n', "unknown method 'nall'"),
        ("method = 3\n", "method must be a text, not 3"),
        ("seed = 1\n", "'method'"),
    ],
)
def test_damaged_configurations_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(CheckpointError, match="is damaged: ") as caught:
        RunFolder.open(tmp_path).read_config()
    assert message in str(caught.value)


# -- a method of one's own -----------------------------------------------------------------------------------------


def test_own_options_are_flags_and_fields_like_all_others(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *SHORT, "--method", own, "--boost", "5", "--run-dir", "run"]) == 0
    stored = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (stored["boost"], stored["kind"], stored["method"]) == (5.0, "plain", str(tmp_path / own))
    assert RunFolder.open(tmp_path / "run").read_config().flat()["boost"] == 5.0
    capsys.readouterr()

    (tmp_path / "run.toml").write_text(f'method = "{own}"\nboost = 4\n')
    assert train_config(["--config", "run.toml"])[0].flat()["boost"] == 4.0
    assert train_config(["--config", "run.toml", "--boost", "3"])[0].flat()["boost"] == 3.0
    (tmp_path / "sweep.toml").write_text(f'method = "{own}"\n[grid]\nboost = [1, 2.5]\n')
    jobs = resolve(tmp_path / "sweep.toml")
    assert [job.fields["boost"] for job in jobs] == [1.0, 2.5]
    assert [job.describe() for job in jobs] == ["boost=1.0 seed=0", "boost=2.5 seed=0"]

    listed = of_the_method(shown_help(capsys, "--method", own, "--help"))
    assert "--boost X Factor on the loss, for which nothing is published. [2.0]" in listed
    assert "--kind plain|odd Of no use. [plain]" in listed


def test_own_options_refuse_what_does_not_fit(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--method", own]
    assert "unknown option --bost; did you mean '--boost'? valid: " in refusal(capsys, *named, "--bost", "5")
    assert "--boost must be 0 or more, not -1.0" in refusal(capsys, *named, "--boost", "-1")
    assert "--kind" in refusal(capsys, *named, "--kind", "even")
    foreign = "--strength has no meaning for method own.py:Mine; it is an option of cores, elr, elr_plus, jocor, nal"
    assert foreign in refusal(capsys, *named, "--strength", "1")
    (tmp_path / "run.toml").write_text(f'method = "{own}"\nboots = 4\n')
    assert "boots: unknown field; did you mean 'boost'?" in refusal(capsys, "--config", "run.toml")
    (tmp_path / "sweep.toml").write_text(f'method = "{own}"\n[grid]\nboots = [1]\n')
    with pytest.raises(ConfigError, match=r"\[grid\] boots: unknown field; did you mean 'boost'\?"):
        resolve(tmp_path / "sweep.toml")
    (tmp_path / "sweep.toml").write_text(f'method = "{own}"\n[grid]\nboost = [1, -1]\n')
    with pytest.raises(ConfigError, match=r"\[grid\] boost must be 0 or more, not -1"):
        resolve(tmp_path / "sweep.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("    class Options(MethodOptions):\n        boost: float = 2.0", "write @dataclass(frozen=True) above class"),
        ("    class Options:\n        boost: float = 2.0", "must be a subclass of fastnoise.methods.MethodOptions"),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        seed: int = 2",
            "the option seed has the name of an option of every run; choose another name",
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        boost: float | None = None",
            'the option boost may not be None; use Literal["auto"] for "not set"',
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        boost: list[int] = ()",
            "the type of an option cannot be read: list[int] is no bool, int, float, str or Literal",
        ),
        (
            "    @dataclass\n    class Options(MethodOptions):\n        boost: float = 2.0",
            "cannot inherit non-frozen dataclass from a frozen one",
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        names: str = 'x'",
            "the option names has a name that cannot be a flag; choose another",
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        _boost: float = 2.0",
            "the option _boost has a name that cannot be a flag; choose another",
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n"
            "        boost: Annotated[float, AtLeast(0)] = -2.0",
            "own.py:Mine: the default of the option boost must be 0 or more, not -2.0",
        ),
        (
            "    @dataclass(frozen=True)\n    class Options(MethodOptions):\n        boost: float = 2.0\n\n"
            "        def __post_init__(self):\n            raise ValueError('boost is never right')",
            "own.py:Mine: Options fails with ValueError: boost is never right",
        ),
    ],
)
def test_options_that_cannot_be_read_are_refused(own: str, options: str, message: str, tmp_path: Path) -> None:
    head, _, rest = OWN.partition("    @dataclass")
    (tmp_path / "own.py").write_text(head + options + "\n\n    def __init__" + rest.partition("    def __init__")[2])
    with pytest.raises(ConfigError) as caught:
        find_method(own)
    assert message in str(caught.value)


def test_options_that_no_method_takes_are_refused(own: str, tmp_path: Path) -> None:
    head, options, rest = OWN.partition("    @dataclass")
    options, _, rest = (options + rest).partition("\n\n    def __init__")
    apart = textwrap.dedent(options).replace("class Options", "class Boosted")
    text = head.replace("class Mine", f"{apart}\n\nclass Mine") + "    {}\n\n    def __init__" + rest
    (tmp_path / "own.py").write_text(text.format("pass"))
    with refused(ConfigError, f"--method {own}: no method takes", "class Boosted; write `Options = Boosted`"):
        find_method(own)
    (tmp_path / "own.py").write_text(text.format("Options = Boosted"))
    assert find_method(own).Options.names() == ("boost", "kind")
    other = "\n\nclass Other(Mine):\n    name, Options = 'other', Boosted\n"
    (tmp_path / "own.py").write_text(text.format("pass") + other)  # Mine has no options, and needs none
    assert find_method(own).Options is MethodOptions
    assert find_method("own.py:Other").Options.names() == ("boost", "kind")
    more = "\n\n@dataclass(frozen=True)\nclass More(Boosted):\n    more: int = 1\n"
    (tmp_path / "own.py").write_text(text.format("pass") + more + other.replace("Boosted", "More"))
    assert find_method("own.py:Other").Options.names() == ("boost", "kind", "more")
    assert find_method(own).Options is MethodOptions


def test_options_may_refuse_values_together(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = """
        def __post_init__(self):
            super().__post_init__()
            if self.kind == "odd" and self.boost > 4:
                raise ValueError("odd boosts go up to 4")

    def __init__"""
    (tmp_path / "own.py").write_text(OWN.replace("\n    def __init__", checked, 1))
    (tmp_path / "run.toml").write_text(f'method = "{own}"\nkind = "odd"\nboost = 5\n')
    assert "odd boosts go up to 4" in refusal(capsys, "--config", "run.toml")
    assert "odd boosts go up to 4" in refusal(capsys, "--method", own, "--kind", "odd", "--boost", "5")


def test_a_method_that_cannot_be_built_is_refused(own: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("self.boost = options.boost", "raise KeyError('boost')"))
    with pytest.raises(ConfigError, match=r"^--method own\.py:Mine fails with KeyError: 'boost'$"):
        create_method(options_of(own)(own), num_samples=4, num_classes=2)


@pytest.mark.parametrize(
    ("loss", "form"),
    [
        ("outputs.logits.logsumexp(1)", r"of shape \[32\]"),
        ("1.0", "float"),
        ("outputs.logits.detach().mean()", "a number that no weight has a part in"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_refused(
    own: str, loss: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("self.boost * self.criterion(outputs.logits, labels)", loss))
    line = refusal(capsys, "--method", own, *SHORT, "--gear", "eager")
    assert re.search(rf"the loss of Mine is {form}; it must be a scalar tensor", line), line


# -- words are checked before torch is imported --------------------------------------------------------------------

LIGHT = {
    "command": ["trian"],
    "flag": ["train", "--lr", "0.1"],
    "value": ["train", "--strength", "-1"],
    "method": ["train", "--method", "nall"],
    "model": ["train", "--model", "resnet19"],
    "data set": ["train", "--dataset", "cifar11"],
    "noise": ["train", "--noise", "symetric:0.5"],
    "meaning": ["train", "--method", "ce", "--momentum", "0.5"],
    "toml": ["train", "--config", "bad.toml"],
    "field": ["train", "--config", "unknown.toml"],
    "sweep": ["sweep", "unknown.toml", "--list"],
    "bench": ["bench", "nothing"],
    "study": ["study", "nothing"],
    "leaderboard": ["leaderboard", "--methods", "nall", "--datasets", "digits"],
    "submission": ["leaderboard", "--submissions", "."],
    "corrupt": ["corrupt", "--dataset", "digits", "--noise", "symetric:0.5", "--out", "x.npz"],
    "pretrain": ["pretrain", "--out", "x.pt", "--dataset", "nothing"],
}
RUN = """
import os, sys
from fastnoise.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
seconds = sum(os.times()[:2])
assert seconds < 1, f"{seconds} s of CPU time"
sys.exit(code)
"""


@pytest.mark.parametrize("words", LIGHT.values(), ids=LIGHT)
def test_words_are_refused_without_torch_and_at_once(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epochs = \n")
    (tmp_path / "unknown.toml").write_text("epoch = 3\n")
    result = _light(words, tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    if "--lr" in words:
        assert "unknown option --lr; did you mean '--learning-rate'?" in result.stderr


def test_jobs_are_listed_without_torch_and_at_once(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(
        'seeds = 3\n[grid]\nnoise = ["symmetric:0.2", "pair:0.3"]\n'
        '[[list]]\nmethod = "nal"\nstrength = 1\n[[list]]\nmethod = "selc"\nupdate_from = "auto"\n'
    )
    result = _light(["sweep", "sweep.toml", "--list"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("12 jobs\n")


def _light(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", RUN, *words], cwd=folder, capture_output=True, text=True, check=False)
