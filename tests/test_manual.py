"""The README, the pages of `fastnoise help`, and the lists of what has a name."""

import json
import re
import shlex
from pathlib import Path

import _manual
import pytest

from fastnoise import methods
from fastnoise.cli import _COMMANDS, main
from fastnoise.commands import help as pages
from fastnoise.commands import listings
from fastnoise.data.names import AT_PATH, DATASETS
from fastnoise.models.names import MODELS


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_every_name_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(listings.METHODS) == set(methods.METHODS)
    assert set(listings.SETS) == {*DATASETS, *AT_PATH}
    assert set(listings.NETWORKS) == set(MODELS)
    for kind, names in (("methods", listings.METHODS), ("datasets", DATASETS), ("models", MODELS)):
        text = printed(capsys, kind)
        firsts = {re.split(r"[\s:]", line)[0] for line in text.splitlines()}
        assert set(names) <= firsts
        assert "FILE.py" in firsts
        assert ("auto" in firsts) == (kind == "methods")
        assert f"usage: fastnoise {kind}" in printed(capsys, kind, "--help")


def test_lists_are_wrapped_to_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for words in (["methods"], ["datasets"], ["models"], ["help"]):
        lines = printed(capsys, *words).splitlines()
        assert all(len(line) <= 60 for line in lines if ":" not in line.split(" ")[0] and "`" not in line)


@pytest.mark.parametrize("topic", pages.TOPICS)
def test_each_topic_has_a_page(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "help", topic)
    assert text == pages.page(topic)
    assert text.startswith("# ")
    assert topic in printed(capsys, "help")


def test_every_page_is_a_topic() -> None:
    assert {file.stem for file in pages.DOCS.glob("*.md")} <= set(pages.TOPICS)


def test_other_topics_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["help", "sweep"], "did you mean 'sweeps'"),
        (["help", "data", "noise"], "one topic"),
        (["methods", "nal"], "takes no options"),
    ):
        assert main(words) == 2
        assert expected in capsys.readouterr().err


def test_links_lead_somewhere() -> None:
    files = [_manual.ROOT / "README.md", *pages.DOCS.glob("*.md"), *pages.DOCS.parent.glob("*.md")]
    links = 0
    for file in files:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), (file.name, target)
                links += 1
    assert links > 10


def test_the_readme_is_short_and_names_only_what_there_is() -> None:
    text = _manual.readme()
    assert len(text.split()) < 1500
    assert "fastnoise train --method nal --dataset cifar100" in text
    order = ("<!-- ci: train -->", "<!-- ci: tests -->", "## Which command is mine?", "## What is measured", "## More")
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for command in re.findall(r"(?:^|`)fastnoise ([a-z]+)", _manual.manual(), re.MULTILINE):
        assert command in _COMMANDS, command
    for topics in re.findall(r"fastnoise help ([a-z]+)", _manual.manual()):
        assert topics in {*pages.TOPICS, "options"}


def test_the_sweep_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own words, but for a shorter course of one seed."""
    monkeypatch.chdir(tmp_path)
    first, rest = _manual.block("sweep").split("<<'EOF'\n")
    assert first == "cat > methods.toml "
    toml, commands = rest.split("EOF\n")
    short = toml.replace("epochs = 20", "epochs = 1\nlimit_train = 60").replace("seeds = 3", "seeds = 1")
    assert short.count("\n") == toml.count("\n") + 1
    Path("methods.toml").write_text(short)
    for line in commands.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "fastnoise"
        assert main(words) == 0
    capsys.readouterr()
    assert len(Path("sweeps/methods/results.csv").read_text().splitlines()) == 5
    assert Path("sweeps/methods/report.html").stat().st_size > 10_000
    assert json.loads(next(Path("sweeps/methods/jobs").glob("*/summary.json")).read_text())
