"""--help of every command, shell completion, what other programs call an option, and --dry-run."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fastnoise import helptext
from fastnoise.cli import _COMMANDS, _LINES, main
from fastnoise.commands import completion, every
from fastnoise.helptext import Option
from fastnoise.methods.options import OPTIONS
from fastnoise.words import ALIASES, TrainCommand, train_words


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert not end.value.code
    return capsys.readouterr().out


def test_all_commands_are_known() -> None:
    assert set(_COMMANDS) == set(every.NAMES)
    assert set(_LINES) == set(_COMMANDS) - {"datasets", "models"}  # which have the line of methods
    assert {command.split()[0] for command in every.commands()} <= set(_COMMANDS)


def test_help_of_training_is_short(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(capsys, "train", "--method", "ce", "--help").splitlines()
    assert len(lines) <= 110
    titles = [line for line in lines if re.fullmatch(r"[a-z ]+:", line)]
    assert titles == [f"{title}:" for title in helptext.GROUPS if title != "where jobs run"]


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("command", every.commands())
def test_help_keeps_to_the_terminal(
    command: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for word in ("--help", "-h", "--help-all"):
        text = shown(capsys, *command.split(), word)
        assert text.startswith(f"usage: fastnoise {command} ")
        assert max(map(len, text.splitlines())) <= columns
        assert "STR" not in text
        assert "None}" not in text


@pytest.mark.parametrize("words", [["--help"], ["study", "--help"], ["completion", "--help"], ["help"]])
def test_lists_of_commands_keep_to_the_terminal(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (60, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(words) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


@pytest.mark.parametrize("command", every.commands())
def test_every_option_has_a_sentence(command: str) -> None:
    for owner, listed in every.options(command).items():
        for option in listed:
            short, whole = option.said(False), option.said(True)
            assert re.match(r"\S.+[.)]( \[.+\])?$", short), (command, owner, option.name, short)
            assert len(short) <= 200, (command, owner, option.name, short)
            assert all(word in short for word in option.choices if option.metavar != "|".join(option.choices))
            said = re.sub(r" \[[^\]]+\]$", "", short)
            assert whole.startswith(said)
            assert whole[len(said) :].split(" [")[0] in option.text


@pytest.mark.parametrize("command", every.PLAIN)
def test_what_is_required_is_said_to_be(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    required = [option for option in every.options(command)[""] if option.required]
    assert bool(required) == (command != "leaderboard")
    text = shown(capsys, command, "--help")
    usage = " ".join(text.partition("\n\n")[0].split())
    for option in required:
        assert f" {option.head} " in usage
        assert f"[{option.head}]" not in usage
    assert " ".join(text.split()).count("[required") == len(required)
    if required:
        assert main([command]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_all_says_all_that_the_docstrings_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # no word is longer
    text = " ".join(shown(capsys, "train", "--method", "nal", "--help-all").split())
    for option in [*helptext.options(TrainCommand), *helptext.options(OPTIONS["nal"])]:
        if option.name != "method":
            first, _, rest = option.text.partition(". ")
            assert first.rstrip(".") in text, option.name
            assert rest in text, option.name


def test_groups_hold_only_options_that_there_are() -> None:
    there = {option.name for command in every.commands() for option in every.options(command)[""]}
    for title, names in helptext.GROUPS.items():
        assert [name for name in names if name not in there] == [], title
    names = [name for members in helptext.GROUPS.values() for name in members]
    assert len(names) == len(set(names))


def test_threads_mean_one_thing() -> None:
    """--threads compute, --loader-threads decode images."""
    found = [
        (command, option)
        for command in every.commands()
        for option in every.options(command)[""]
        if "threads" in option.name
    ]
    assert {option.name for _, option in found} == {"threads", "loader_threads"}
    for command, option in found:
        begin = "CPU threads that compute" if option.name == "threads" else "CPU threads of "
        begin = "CPU threads that decode" if command == "check" else begin
        assert option.text.startswith(begin), (command, option.text)


def test_one_option_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "options", "--learning-rate"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("--learning-rate RATE (train, ")
    assert "Learning rate at the start; of one_cycle the largest." in text
    assert main(["help", "options", "strength"]) == 0
    text = capsys.readouterr().out
    assert "Weight lambda of the regulariser." in text
    assert "Weight lambda of the boost term." in text
    assert main(["help", "options", "learning-rat"]) == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err
    assert main(["help", "options"]) == 2
    assert "fastnoise help options learning-rate" in capsys.readouterr().err


# -- what other programs call it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "--lr", "0.1"], "--learning-rate"),
        (["train", "--bs=64"], "--batch-size"),
        (["train", "--gpu", "0"], "--device"),
        (["train", "--workers", "4"], "--loader-threads"),
        (["train", "--num_workers", "4"], "--loader-threads"),
        (["train", "--wd", "1e-4"], "--weight-decay"),
        (["train", "--arch", "resnet18"], "--model"),
        (["train", "--output-dir", "x"], "--run-dir"),
        (["train", "--scheduler", "cosine"], "--schedule"),
        (["train", "--threads", "4"], "--loader-threads"),
        (["predict", "run", "images", "--threads", "4"], "--loader-threads"),
        (["bench", "all", "--torch-threads", "4"], "--threads"),
        (["sweep", "x.toml", "--workers", "4"], "--jobs"),
        (["corrupt", "--output", "x.npz"], "--out"),
    ],
)
def test_aliases_are_answered(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"; did you mean '{meant}'? " in line


def test_aliases_lead_to_options_and_are_none_themselves_of_training() -> None:
    there = {option.name for command in every.commands() for option in every.options(command)[""]}
    training = {option.name for option in every.options("train")[""]}
    for alias, meant in ALIASES.items():
        assert set(meant) <= there, alias
        assert alias not in training


# -- completion ----------------------------------------------------------------------------------------------------


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`, after `source script`."""
    ask = (
        f"source {script}; COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; "
        "_fastnoise; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    ran = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True)
    assert not ran.stderr
    return ran.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    assert set(completed(script, "fastnoise", "")) == {*every.NAMES, "--help", "--version"}
    for command in every.commands():
        flags = {flag for members in every.options(command).values() for each in members for flag in each.flags}
        assert flags <= set(completed(script, "fastnoise", *command.split(), "--")), command
    assert completed(script, "fastnoise", "train", "--amp", "") == ["auto", "off", "bf16", "fp16"]
    assert completed(script, "fastnoise", "train", "--method", "selc") == ["selc", "selc_plus"]
    assert completed(script, "fastnoise", "train", "--model", "resnet5") == ["resnet50"]
    assert completed(script, "fastnoise", "study", "multic") == ["multiclass"]
    assert completed(script, "fastnoise", "help", "swe") == ["sweeps"]
    assert completed(script, "fastnoise", "help", "opt") == ["options"]
    assert completed(script, "fastnoise", "train", "--run-dir", "") == []  # files, by readline
    assert "--no-download" in completed(script, "fastnoise", "train", "--no-")


def test_zsh_runs_the_same_function(tmp_path: Path) -> None:
    bash, zsh = completion.script("bash"), completion.script("zsh")
    assert "autoload -U +X bashcompinit && bashcompinit\n" in zsh
    assert bash.partition("_fastnoise()")[2] == zsh.partition("_fastnoise()")[2]
    if shutil.which("zsh") is not None:
        (tmp_path / "script").write_text(f"autoload -U compinit && compinit -u\n{zsh}")
        subprocess.run(["zsh", "-f", str(tmp_path / "script")], check=True, env={"HOME": str(tmp_path)})


def test_completion_refuses_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in (
        ([], "give the shell"),
        (["zhs"], "did you mean 'zsh'"),
        (["bash", "x"], "give the shell"),
    ):
        assert main(["completion", *words]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["completion", "--help"]) == 0
    assert "fastnoise completion" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "source <(fastnoise completion bash)" in capsys.readouterr().out


# -- dry runs ------------------------------------------------------------------------------------------------------


def test_sources_of_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text('seed = 3\nepochs = 7\nmethod = "elr"\n')
    words = train_words(["--config", "run.toml", "--epochs", "5", "--dataset", "cifar10", "--no-flip"])
    sources = words.sources
    assert list(sources) == list(words.config.flat())
    assert {name: sources[name] for name in ("epochs", "dataset", "flip", "seed", "method")} == {
        **dict.fromkeys(("epochs", "dataset", "flip"), "command line"),
        **dict.fromkeys(("seed", "method"), "--config run.toml"),
    }
    assert sources["noise"] == "data set cifar10"
    assert sources["model"] == "data set cifar10"
    assert sources["schedule"] == "recipe of elr"
    assert sources["data_root"] == sources["amp"] == "default"
    assert (words.config.optim.epochs, words.config.engine.seed) == (5, 3)
    short = train_words(["--method", "elr", "--dataset", "cifar10", "--recipe", "fast-r18"])
    assert short.sources["epochs"] == "recipe of elr, fast-r18"
    plain = train_words([]).sources
    assert (plain["method"], plain["noise"], plain["batch_size"]) == ("data set digits",) * 3


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "elr", "--dataset", "cifar100", "--seed", "4"],
        ["--dataset", "mnist", "--noise", "pair:0.3", "--limit-train", "100"],
        ["--method", "elr", "--dataset", "cifar10", "--recipe", "fast-r18"],
        ["--dataset", "clothing1m", "--method", "nal"],
    ],
)
def test_a_dry_run_prints_a_file_of_the_same_run_and_writes_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    config = train_words(words).config
    assert {name for name, value in config.flat().items() if value is not None} >= set(tomllib.loads(text))
    assert sum("  # " in line for line in text.splitlines()) == len(config.flat())
    Path("again.toml").write_text(text)
    assert train_words(["--config", "again.toml"]).config == config


DRY = """
import sys
from fastnoise.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


def test_dry_runs_import_no_torch(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text('dataset = "digits"\n[grid]\nmethod = ["ce", "nal"]\n')
    for words, end in (
        (["train", "--dataset", "cifar10", "--dry-run"], "default\n"),
        (["clean", "digits", "--dry-run"], "default\n"),
        (["sweep", "sweep.toml", "--dry-run"], "2 jobs\n"),
        (["sweep", "sweep.toml", "--list"], "2 jobs\n"),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", DRY, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.endswith(end)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


@pytest.mark.parametrize(
    "words", [["--epochs", "0"], ["--noise", "symetric:0.4"], ["--gpus", "-1"], ["--max-restarts", "2"]]
)
def test_a_dry_run_refuses_as_ever(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_options_that_no_group_names_have_a_place() -> None:
    for section, group in (
        ("optim", "optimisation"),
        ("engine", "speed"),
        ("noise", "data and labels"),
        ("", "options"),
    ):
        assert Option("new", ("--new",), "N", "Of no use.", section=section).group == group
    assert Option("learning_rate", ("--learning-rate",), "X", "Of no use.", section="method").group == "method"


def test_sentences_end_where_they_end() -> None:
    option = Option("x", ("--x",), "N", "Weight (He et al. 2015) of it, e.g. 0.5. More of it.", "2")
    assert option.said(False) == "Weight (He et al. 2015) of it, e.g. 0.5. [2]"
    assert option.said(True) == "Weight (He et al. 2015) of it, e.g. 0.5. More of it. [2]"
