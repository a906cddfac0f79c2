"""fastnoise leaderboard: rows from runs, pages from rows, and a command that is killed."""

import csv
import html
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from _forked import Forked

from fastnoise.cli import main
from fastnoise.errors import ConfigError, DataError
from fastnoise.leaderboard import board
from fastnoise.leaderboard.board import BOARDS, board_content, board_jobs, keep_where, submissions_of
from fastnoise.leaderboard.page import write_pages
from fastnoise.leaderboard.submission import (
    SeedRun,
    Submission,
    configuration_of,
    read_submission,
    read_submissions,
    sources_of,
    write_submission,
)
from fastnoise.leaderboard.tables import compared, label_of, ranked, records_of, tables_of
from fastnoise.recipes import recipe
from fastnoise.sweeps.job import summary_file

pytestmark = pytest.mark.usefixtures("forked_servers")

WHERE = "1 at once on 2 CPU cores, 1 torch thread each"


def seed_run(seed: int = 0, accuracy: tuple[float, ...] = (0.5, 0.9, 0.8), **changes: Any) -> SeedRun:
    run = SeedRun(
        seed=seed,
        noise_seed=seed,
        test_accuracy=accuracy,
        epoch_seconds=(60.0, 30.0, 30.0)[: len(accuracy)],
        images_per_second=1000.0,
        machine="a processor, 2 cores, 1 threads",
        gpu="none",
        torch="2.14.1",
        fastnoise="0.1.0",
        commit="0123456789abcdef",
        date="2026-11-27",
        realised_rate=0.4,
    )
    return replace(run, **changes)


def row(*runs: SeedRun, method: str = "elr", dataset: str = "cifar10", noise: str = "symmetric:0.4", **fields: Any):
    config = recipe(method, dataset, noise).replace({"val_fraction": 0.0} | fields)
    return Submission(configuration_of(config.flat()), WHERE, runs or (seed_run(),))


# -- what runs -------------------------------------------------------------------------------------------------


def test_words_are_the_grid_of_a_sweep() -> None:
    content = board_content(None, ("ce", "elr"), ("digits", "mnist"), ("pair:0.2",), seeds=2)
    jobs = board_jobs(content, "leaderboard")
    assert [(job.fields["dataset"], job.fields["method"], job.fields["seed"]) for job in jobs] == [
        (dataset, method, seed) for dataset in ("digits", "mnist") for method in ("ce", "elr") for seed in (0, 1)
    ]
    assert all(job.fields["noise"] == "pair:0.2" for job in jobs)
    short = board_jobs(board_content(None, ("ce",), ("mnist",), recipes=("cpu", "published"), seeds=1), "leaderboard")
    assert [job.config for job in short] == [
        recipe("ce", "mnist", recipe=name).replace({"data_root": str(Path("data").absolute())})
        for name in ("cpu", "published")
    ]
    one = board_content(None, ("ce",), ("cifar10n", "cifar100n"))
    noises = [job.fields["noise"] for job in board_jobs(one, "leaderboard")]
    assert noises == ["human:worse"] * 3 + ["human:noisy"] * 3


@pytest.mark.parametrize("name", sorted(path.stem for path in BOARDS.glob("*.toml")))
def test_boards_that_come_with_it_can_run(name: str, tmp_path: Path) -> None:
    jobs = board_jobs(board_content(name, data_root=str(tmp_path)), name)
    assert len(jobs) > 5
    assert {job.fields["data_root"] for job in jobs} == {str(tmp_path)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, r"give --methods, or a sweep's file, or a board .*: human, quick"),
        ({"methods": ("ce",)}, "give --datasets"),
        ({"spec": "quick", "noises": ("none",)}, "quick says what to run: drop --noises, or the file"),
        ({"spec": "fast"}, "fast: no such file; give a sweep's TOML file, or a board: human, quick"),
        ({"methods": ("nall",), "datasets": ("digits",)}, "leaderboard: .*unknown method 'nall'"),
        (
            {"methods": ("ce",), "datasets": ("cifar10",), "noises": ("human:worse",)},
            r"cifar10 has no labels human:worse \(it has none\)",
        ),
        (
            {"methods": ("ce",), "datasets": ("cifar100n",), "noises": ("human:worse",)},
            r"cifar100n has no labels human:worse \(it has human:noisy\)",
        ),
        ({"methods": ("ce", "ce"), "datasets": ("digits",)}, r"\[grid\] method has 'ce' twice"),
        ({"methods": ("plain",), "datasets": ("rotated",)}, "rotated has no classes"),
    ],
)
def test_what_can_not_be_on_it_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        board_jobs(board_content(**{"spec": None, **words}), "leaderboard")


def test_times_of_a_folder_are_measured_alike(tmp_path: Path) -> None:
    keep_where(tmp_path / "out", WHERE)
    keep_where(tmp_path / "out", WHERE)
    with pytest.raises(ConfigError, match=f"measured with {WHERE}, and this would be 2 at once; give the same --jobs"):
        keep_where(tmp_path / "out", "2 at once")


# -- rows ------------------------------------------------------------------------------------------------------


def test_figures_follow_from_the_epochs() -> None:
    run = seed_run()
    assert run.figures == {
        **{"last": 0.8, "best": 0.9, "mean_last_10": pytest.approx(2.2 / 3)},
        **{"minutes": 2.0, "images_per_second": 1000.0},
    }
    assert seed_run(validation_accuracy=(0.9, 0.1, 0.9)).figures["validation"] == 0.5
    assert [run.minutes_to(target) for target in (0.5, 0.51, 0.9, 0.91)] == [1.0, 1.5, 1.5, None]
    both = row(run, seed_run(1, (0.5, 0.6, 0.7))).figures()
    assert both["last"] == pytest.approx(mean([0.8, 0.7]))
    assert both["last_sd"] == pytest.approx(stdev([0.8, 0.7]))
    assert "last_sd" not in row(run).figures()


def test_a_row_is_what_its_file_says(tmp_path: Path) -> None:
    made = row(seed_run(), seed_run(7, validation_accuracy=(0.1, 0.2, 0.3), realised_rate=None), epochs=5)
    path = write_submission(tmp_path / "new", made)
    assert read_submission(path) == made
    assert re.fullmatch(r"cifar10-symmetric-0.4-elr-[0-9a-f]{8}\.toml", path.name)
    assert "test_accuracy = [0.5, 0.9, 0.8]\n" in path.read_text()
    assert made.options == "val_fraction=0.0 epochs=5"
    assert write_submission(tmp_path / "new", row(seed_run(), seed_run(1), epochs=5)) == path, "takes its place"
    fast = recipe("elr", "cifar10", "symmetric:0.4", recipe="fast-r18")
    fast_row = Submission(configuration_of(fast.flat()), WHERE, (seed_run(),))
    assert (fast_row.recipe, fast_row.network, fast_row.options) == ("fast-r18", "resnet18", "")
    other = row(seed_run(machine="another"), epochs=5)
    assert write_submission(tmp_path / "new", other) != path
    assert len(read_submissions(tmp_path / "new")) == 2


def test_paths_and_code_of_a_user_stay_names(tmp_path: Path) -> None:
    fields = recipe("ce", f"folder:{tmp_path}/photos", "none").flat() | {"data_root": str(tmp_path)}
    assert str(tmp_path) not in str(configuration_of(fields))
    fields = recipe("ce", "digits", "none").flat() | {"method": f"{tmp_path}/mine.py:Mine"}
    own = Submission(configuration_of(fields), WHERE, (seed_run(),))
    assert own.configuration["method"] == "mine.py:Mine"
    assert (own.config, own.options, compared(own)) == (None, "", [])
    read = read_submission(write_submission(tmp_path, own))  # there is no such file, and none is looked for
    assert ranked([read]) == {("digits", "none"): [own]}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("dataset", ("folder:cats/train", "folder:dogs/train")),
        ("dataset", ("list:cats/all.csv", "list:dogs/all.csv")),
        ("dataset", ("hf:cats/photos", "hf:dogs/photos")),
        ("labels", ("cats/noisy.csv", "dogs/noisy.csv")),
        ("encoder", ("cats/backbone.pt", "dogs/backbone.pt")),
        ("noise", ("matrix:cats/T.npy", "matrix:dogs/T.npy")),
    ],
)
def test_files_of_one_name_are_rows_of_their_own(
    field: str, values: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = {"dataset": "digits", "method": "ce", "seeds": 2}
    jobs = board_jobs(
        {key: value for key, value in usual.items() if key != field} | {"grid": {field: list(values)}}, "board"
    )
    for job in jobs:
        summary_file(tmp_path, job.name).parent.mkdir(parents=True)
        summary_file(tmp_path, job.name).touch()
    seeds = iter(job.fields["seed"] for job in jobs)
    monkeypatch.setattr(board, "_measured", lambda path: (seed_run(next(seeds)), {}))
    made = submissions_of(tmp_path, jobs, WHERE)
    assert [[run.seed for run in each.runs] for each in made] == [[0, 1], [0, 1]]
    paths = [write_submission(tmp_path / "rows", each) for each in made]
    assert [read_submission(path) for path in paths] == made
    assert not any(str(tmp_path) in path.read_text() for path in paths)
    titles = [table.title for table in tables_of(made, 0.9)]
    labels = [label_of(each, made) for each in made]
    assert len(set(titles if field in ("dataset", "labels", "noise") else labels)) == 2
    assert len({str(record) for record in records_of(made, 0.9)}) == 2


def test_code_of_one_name_is_told_apart_by_its_content() -> None:
    fields = recipe("ce", "digits", "none").flat()
    one, other, moved = (
        Submission(configuration_of(ours), WHERE, (seed_run(),), sources_of(ours, {"method": digits}))
        for ours, digits in (
            (fields | {"method": "/a/mine.py:Mine"}, "0123456789"),
            (fields | {"method": "/b/mine.py:Mine"}, "abcdef0123"),
            (fields | {"method": "/c/mine.py:Mine"}, "0123456789"),
        )
    )
    assert one == moved
    assert len({one.file_name, other.file_name}) == 2
    assert [label_of(each, [one, other]) for each in (one, other)] == ["Mine#01234567", "Mine#abcdef01"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('schema = "fastnoise-leaderboard-1"', 'schema = "x"', "schema must be 'fastnoise-leaderboard-1', not 'x'"),
        ("where =", "wher =", "wher: unknown field; did you mean 'where'?"),
        ("seed = 0\nnoise_seed", "noise_seed", "runs[0].seed is missing"),
        ("\nseed = 0", "\nseed = -1", "runs[0].seed must be 0 or more, not -1"),
        ("[0.5, 0.9, 0.8]", "[0.5, 90, 0.8]", "runs[0].test_accuracy[1] must lie in [0, 1], not 90"),
        ("[0.5, 0.9, 0.8]", "[0.5, nan, 0.8]", "runs[0].test_accuracy[1] must lie in [0, 1], not nan"),
        ("[0.5, 0.9, 0.8]", "[0.5, true, 0.8]", "runs[0].test_accuracy[1] must be a number, not True"),
        ("[0.5, 0.9, 0.8]", "[0.5, 0.9]", "runs[0].epoch_seconds has 3 epochs, runs[0].test_accuracy 2"),
        ("[0.5, 0.9, 0.8]", "0.8", "runs[0].test_accuracy must be a list of numbers, one for each epoch, not 0.8"),
        ('date = "2026-11-27"', 'date = "today"', "runs[0].date must be YYYY-MM-DD in quotes, not 'today'"),
        ('torch = "2.14.1"', "torch = 2", "runs[0].torch must be a text, not 2"),
        ("starts = 1", "start = 1", "runs[0].start: unknown field; did you mean 'starts'?"),
        ("last = 0.8", "last = 0.95", "figures.last is 0.95, but 0.8 follows from the runs"),
        ("last = 0.8\n", "", "figures.last is missing"),
        ('method = "elr"', 'method = "erl"', "configuration: unknown method 'erl'"),
        ('method = "elr"', "method = 3", "configuration.method must be a text, not 3"),
        ("strength = 3.0", "strength = -3.0", "configuration: strength must be 0 or more, not -3.0"),
        ("strength = 3.0", "strength = 3.0\nseed = 1", "configuration.seed: no part of a row's configuration"),
        ("epochs = 150", "epochs = 2", "runs[0].test_accuracy has 3 epochs, and configuration.epochs is 2"),
        ("val_fraction = 0.0", "val_fraction = 0.1", "runs[0].validation_accuracy is missing"),
        ("[configuration]", "[configuration", "not a readable TOML file"),
        ("[figures]", "[sources]\nlabels = '0123abcd'\n[figures]", "sources.labels: no path of the configuration"),
        ("[figures]", "[sources]\ndataset = 'x'\n[figures]", "sources.dataset must be eight hexadecimal digits"),
        ("[[runs]]", "[run]", "run: unknown field; did you mean 'runs'?"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_field(before: str, after: str, message: str, tmp_path: Path) -> None:
    path = write_submission(tmp_path, row())
    text = path.read_text()
    assert before in text, text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(DataError) as error:
        read_submissions(tmp_path)
    assert str(error.value).startswith(f"{path}: {message}"), error.value
    assert "\n" not in str(error.value)


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_submissions(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no submissions \(\*.toml\)"):
        read_submissions(tmp_path)


# -- beside published values -----------------------------------------------------------------------------------


def test_published_values_stand_beside_the_same_noise_and_network_with_what_differs() -> None:
    there = "symmetric:0.4,true_class=included,quota=global"
    (found,) = compared(row(seed_run(accuracy=(0.9, 0.92)), noise=there, epochs=2))
    assert found.published.source.startswith("Liu et al. 2020 (ELR), Table 1")
    assert found.difference == pytest.approx(92 - found.published.mean)
    assert found.note.startswith(found.published.cite() + "; here ")
    assert "2 epochs" in found.note
    assert "the last epoch, there the best on validation data" in found.note
    (held,) = compared(
        row(seed_run(accuracy=(0.9, 0.92), validation_accuracy=(0.5, 0.4)), noise=there, val_fraction=0.1)
    )
    assert held.difference == pytest.approx(90 - held.published.mean)
    assert "validation" not in held.note
    noisier = row(seed_run(realised_rate=0.36), seed_run(1, realised_rate=0.46), noise=there)
    (differs,) = compared(noisier)
    assert "41 % of labels wrong, there 36 %" in differs.note
    assert "(1) " + differs.note in tables_of([noisier], 0.9)[0].notes
    assert compared(row(noise=there, model="resnet18")) == []
    assert compared(row(noise=there, width=0.5)) == []


# -- pages -----------------------------------------------------------------------------------------------------


def test_pages_rank_rows_and_give_the_time_to_an_accuracy(tmp_path: Path) -> None:
    rows = [
        row(seed_run(), seed_run(1, (0.5, 0.6, 0.7)), method="ce", noise="pair:0.2"),
        row(seed_run(accuracy=(0.95, 0.9, 0.97)), noise="pair:0.2"),
        row(seed_run(), method="ce", dataset="digits"),
    ]
    assert list(ranked(rows)) == [("cifar10", "pair:0.2"), ("digits", "symmetric:0.4")]
    table = tables_of(rows, 0.9)[0]
    assert [cells[0] for cells in table.rows] == ["elr", "ce"]
    place = table.columns.index("minutes to 90 %")
    assert [cells[place] for cells in table.rows] == ["1.00", "1.50 (1 of 2)"]
    assert [cells[place] for cells in tables_of(rows, 0.98)[0].rows] == ["not reached"] * 2
    page = write_pages(tmp_path, rows, 0.9, ["method=sce failed: no memory"])
    text = page.read_text()
    assert "method=sce failed: no memory" in text
    assert text.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!#|data:)', text), "needs no other file"
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "## cifar10, pair:0.2" in markdown
    assert "a processor, 2 cores, 1 threads; " + WHERE in markdown
    with open(tmp_path / "leaderboard.csv", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [line["method"] for line in found] == ["elr", "ce", "ce"]
    assert [(line["minutes_to_target"], line["runs_that_reach_it"]) for line in found[:2]] == [("1", "1"), ("1.5", "1")]
    assert found[1]["commit"] == "0123456789abcdef"
    assert [len(record["seeds"].split()) for record in records_of(rows, 0.9)] == [1, 2, 1]


def test_a_method_has_one_colour_on_a_page(tmp_path: Path) -> None:
    """Also where it is the best in one setting and the second in the other."""
    rows = [
        row(seed_run(accuracy=(first if dataset == "cifar10" else second,) * 3), method=method, dataset=dataset)
        for dataset in ("cifar10", "digits")
        for method, first, second in (("ce", 0.5, 0.6), ("elr", 0.6, 0.5))
    ]
    page = write_pages(tmp_path, rows, 0.9).read_text()
    lines = [json.loads(html.unescape(text)) for text in re.findall(r'data-lines="([^"]*)"', page)]
    series = [each for chart in lines for panel in chart["panels"] for each in panel["series"]]
    assert [each["label"] for each in series] == ["elr", "ce", "ce", "elr"]
    assert len({(each["label"], each["colour"]) for each in series}) == 2
    assert len({each["colour"] for each in series}) == 2


# -- the command -----------------------------------------------------------------------------------------------

SPEC = """
dataset = "digits"
limit_train = 100
epochs = 2
seeds = 3
[grid]
method = ["ce"]
"""


def test_a_killed_leaderboard_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(SPEC)
    words = ["leaderboard", "tiny.toml", "--out", "out", "--jobs", "1", "--target-accuracy", "0.05"]
    process = Forked(*words)
    deadline = time.monotonic() + 300
    while not (done := list(Path("out").glob("jobs/*/summary.json"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert done
    assert not Path("out/leaderboard.html").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    assert main([*words, "--dry-run"]) == 0
    assert (
        f"3 jobs, {len(list(Path('out').glob('jobs/*/summary.json')))} done in {tmp_path / 'out'}"
        in capsys.readouterr().out
    )
    assert main([*words, "--submit", "rows"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == before, "a finished job ran again"
    (made,) = read_submissions(Path("rows"))
    assert read_submissions(Path("out/submissions")) == [made]
    assert [run.seed for run in made.runs] == [0, 1, 2]
    assert made.options == "limit_train=100 epochs=2"
    assert all(len(run.epoch_seconds) == 2 and run.minutes_to(0.05) for run in made.runs)
    assert "minutes to 5 %" in Path("out/leaderboard.md").read_text()
    assert "written: " in capsys.readouterr().out
    assert main(["leaderboard", "--submissions", "rows", "--out", "page"]) == 0
    assert Path("page/leaderboard.html").is_file()
    assert main([*words[:-4], "--jobs", "2"]) == 2
    assert "its times were measured with 1 at once" in capsys.readouterr().err
    for more, line in (
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--target-accuracy", "90"], "--target-accuracy must be a share in (0, 1], not 90"),
        (["--submissions", "rows"], "--submissions trains nothing"),
    ):
        assert main(["leaderboard", "quick", *more]) == 2
        assert line in capsys.readouterr().err
