"""Sweeps: specs, processes that are killed, results beside published ones, Ray."""

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from _forked import Forked
from _growth import growth
from rich.console import Console

from fastnoise.config import RunConfig
from fastnoise.data.names import DATASETS
from fastnoise.engine import RunFolder
from fastnoise.errors import CheckpointError, ConfigError, FastnoiseError
from fastnoise.models import MODELS
from fastnoise.models.names import LibraryModel
from fastnoise.noise import parse
from fastnoise.recipes import USUAL_METHOD, recipe
from fastnoise.recipes.published import _index, deviations, expected_rate, published
from fastnoise.recipes.published_table import Metric
from fastnoise.sweeps import Job, LocalExecutor, RayExecutor, SweepResult, make_jobs, resolve, run_sweep
from fastnoise.sweeps.executors import Ended
from fastnoise.sweeps.job import Assignment, Locks
from fastnoise.sweeps.results import ResultsFile, figures, make_tables, write_tables

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

SPEC = """
dataset = "digits"
limit_train = 300
epochs = 3
seeds = 2
[grid]
noise = ["symmetric:0.2", "pair:0.3"]
[[list]]
method = "elr"
strength = 2
[[list]]
method = "ce"
"""
"""Eight jobs of about a second."""


def write_spec(folder: Path, text: str) -> Path:
    path = folder / "spec.toml"
    path.write_text(text)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def read_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as stream:
        return list(csv.DictReader(stream))


# -- specs -----------------------------------------------------------------------------------------------------


def test_a_spec_crosses_lists_grids_and_seeds_over_the_recipes(tmp_path: Path) -> None:
    jobs = resolve(write_spec(tmp_path, SPEC))
    assert [(job.fields["method"], job.fields["noise"], job.fields["seed"]) for job in jobs] == [
        (method, noise, seed) for method in ("elr", "ce") for noise in ("symmetric:0.2", "pair:0.3") for seed in (0, 1)
    ]
    assert all(job.fields["noise_seed"] == job.fields["seed"] for job in jobs)
    assert jobs[0].varied == {"method": "elr", "strength": 2.0, "noise": "symmetric:0.2"}
    changes = {"limit_train": 300, "epochs": 3, "strength": 2.0, "data_root": str(Path("data").absolute())}
    assert jobs[0].config == recipe("elr", "digits", "symmetric:0.2").replace(changes)
    assert len({job.name for job in jobs}) == 8
    assert all(re.fullmatch("[0-9a-f]{12}", job.name) for job in jobs)
    assert jobs[1].describe() == "method=elr strength=2.0 noise=symmetric:0.2 seed=1"


def test_a_name_stands_for_what_a_run_computes(tmp_path: Path) -> None:
    def names(text: str) -> list[str]:
        return [job.name for job in resolve(write_spec(tmp_path, text))]

    one = names('method = "ce"\nepochs = 3\nnoise = "symmetric:0.40"\n')
    same = 'noise = "symmetric:0.4"\nsave-every = 2\nlog_every = 7\nmethod = "ce"\n[grid]\nepochs = [3]\n'
    assert names(same) == one
    assert names('method = "ce"\nepochs = 4\n') != one


def test_noise_seeds_follow_seeds_unless_they_are_named(tmp_path: Path) -> None:
    def seeds(text: str) -> list[tuple[int, int]]:
        fields = [job.fields for job in resolve(write_spec(tmp_path, 'method = "ce"\n' + text))]
        return [(each["seed"], each["noise_seed"]) for each in fields]

    assert seeds("seeds = [4, 9]") == [(4, 4), (9, 9)]
    assert seeds("seeds = 2\nnoise_seeds = [7, 8]") == [(0, 7), (1, 8)]
    assert seeds("seeds = 2\nnoise_seed = 5") == [(0, 5), (1, 5)]
    assert seeds("seeds = 2\n[grid]\nnoise_seed = [1, 2]") == [(0, 1), (1, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "epoch: unknown field; did you mean 'epochs'?"),
        ("[grid]\nlearning_rates = [1.0]", "[grid] learning_rates: unknown field; did you mean 'learning_rate'?"),
        ("[[list]]\nfoo = 1", "[[list]] foo: unknown field"),
        ("[grid]", "[grid] is empty"),
        ("[grid]\nnoise = []", "[grid] noise has no values"),
        ("list = []", "[[list]] is empty"),
        ("[grid]\nnoise = 'none'", "[grid] noise must be a list of values, not 'none'"),
        ("grid = 3", "grid must be a table"),
        ("list = 3", "list must be tables"),
        ("epochs = '3'", "epochs must be an integer, not '3'"),
        ("epochs = 3.5", "epochs must be an integer, not 3.5"),
        ("epochs = true", "epochs must be an integer, not True"),
        ("flip = 1", "flip must be true or false, not 1"),
        ("[grid]\nlearning_rate = ['fast']", "[grid] learning_rate must be a number, not 'fast'"),
        ("[grid]\namp = ['half']", "[grid] amp must be one of auto, off, bf16, fp16, not 'half'"),
        ("[grid]\nseed = [[1]]", "[grid] seed must be an integer, not [1]"),
        ("epochs = 0", "epochs must be positive, not 0"),
        ("[grid]\nepochs = [2, -1]", "[grid] epochs must be positive, not -1"),
        ("[grid]\nmethod = ['ce', 'foo']", "method=foo: unknown method 'foo'"),
        ("dataset = 'digit'", "unknown dataset 'digit'; did you mean 'digits'?"),
        ("model = 'resnet19'", "unknown model 'resnet19'"),
        ("[grid]\nnoise = ['symmetrical:0.2']", "unknown noise 'symmetrical'"),
        ("[grid]\nmethod = ['ce', 'elr']\nstrength = [1.0]", "method=ce strength=1.0:"),
        ("run_dir = 'x'", "run_dir: a sweep names the run folders by itself"),
        ("[grid]\nlog_every = [1, 2]", "[grid] log_every: does not change what a run computes"),
        ("epochs = 3\n[grid]\nepochs = [3]", "epochs is both fixed and in [grid]"),
        ("[grid]\nepochs = [3]\n[[list]]\nepochs = 4", "epochs is both in [grid] and in [[list]]"),
        ("save-every = 1\nsave_every = 2", "save_every is given twice"),
        ("[grid]\nepochs = [3, 4, 3]", "[grid] epochs has 3 twice"),
        ("[grid]\nnoise = ['symmetric:0.4', 'symmetric:0.40']", "two jobs are the same run"),
        ("[[list]]\nmethod = 'ce'\n[[list]]\nmethod = 'ce'", "two jobs are the same run"),
        ("seeds = 0", "seeds must be a positive number of seeds or a list of integers, not 0"),
        ("seeds = ['a']", "seeds must be a positive number of seeds or a list of integers"),
        ("seeds = [1, 1]", "two jobs are the same run"),
        ("seeds = 2\nseed = 3", "seed and seeds are both given"),
        ("noise_seeds = [1]", "noise_seeds needs seeds"),
        ("seeds = 2\nnoise_seeds = [1]", "1 noise_seeds for 2 seeds"),
        ("seeds = 2\nnoise_seeds = 2\nnoise_seed = 1", "noise_seed and noise_seeds are both given"),
        ("seeds = 100000\n[grid]\nepochs = [1, 2]", "200000 jobs; a sweep takes at most 100000"),
        ("epochs = ", "not a readable TOML file"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write_spec(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        resolve(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_spec_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        resolve(tmp_path / "none.toml")
    with pytest.raises(FastnoiseError, match="no such folder"):
        resolve(write_spec(tmp_path, f'dataset = "mnist"\ndata_root = "{tmp_path}/none"'))


def test_the_time_to_book_jobs_grows_with_their_number(tmp_path: Path) -> None:
    jobs = resolve(write_spec(tmp_path, 'method = "ce"\nseeds = 250\n[grid]\nepochs = [1, 2, 3, 4]\n'))
    folders = (tmp_path / str(number) for number in count())

    def booking(size: int) -> Callable[[], None]:
        folder = next(folders)
        folder.mkdir()

        def book() -> None:
            results = ResultsFile(folder, jobs[:size])
            for job in jobs[:size]:
                results.add({"name": job.name, **job.varied, "seed": 0, "accuracy": 0.5})
            results.rewrite()
            assert [row["name"] for row in read_rows(folder)] == [job.name for job in jobs[:size]]

        return book

    assert growth(booking, 250) < 10, "16 if each row wrote the whole file"


# -- results ---------------------------------------------------------------------------------------------------


def test_figures_are_the_numbers_of_a_summary_without_timings() -> None:
    summary = {
        "title": "t",
        "run_dir": "r",
        "network": {"width": 1.0},
        "noise": {"spec": "pair:0.3", "seed": 4, "realised_rate": 0.3, "requested_rate": None},
        "test_accuracy": {"last": 0.5, "best_epoch": 3},
        "throughput": {"images_per_second": 1.0},
        "selections": [{"epoch": 1}],
        "by_class": [0.1, 0.2],
    }
    assert figures(summary) == {"noise_realised_rate": 0.3, "test_accuracy_last": 0.5, "test_accuracy_best_epoch": 3}


def test_results_are_written_row_by_row_and_then_in_order(tmp_path: Path) -> None:
    jobs = make_jobs([({"epochs": epochs}, recipe("ce", "digits").replace({"epochs": epochs})) for epochs in (1, 2, 3)])
    results = ResultsFile(tmp_path, jobs)
    results.rewrite()
    results.add({"name": jobs[2].name, "epochs": 3, "seed": 0, "a": 0.1})
    results.add({"name": jobs[0].name, "epochs": 1, "seed": 0, "a": 1 / 3})
    assert [row["epochs"] for row in read_rows(tmp_path)] == ["3", "1"], "one line each as they come"
    results.add({"name": jobs[1].name, "epochs": 2, "seed": 0, "a": 0.3, "b": 5})
    assert [(row["epochs"], row["b"]) for row in read_rows(tmp_path)] == [("1", ""), ("2", "5"), ("3", "")]
    assert float(read_rows(tmp_path)[0]["a"]) == 1 / 3


def made_result(folder: Path, configs: Sequence[tuple[dict[str, Any], RunConfig, dict[str, float]]]) -> SweepResult:
    jobs = make_jobs([(varied, config) for varied, config, _ in configs])
    rows = [{"name": job.name, **job.varied, **numbers} for job, (_, _, numbers) in zip(jobs, configs, strict=True)]
    return SweepResult(jobs, folder, rows)


def test_tables_set_published_values_beside_means_of_the_same_kind(tmp_path: Path) -> None:
    def config(method: str, noise: str, seed: int, **changes: Any) -> RunConfig:
        return recipe(method, "cifar10", noise).replace({"seed": seed, **changes})

    included = "symmetric:0.4,true_class=included"
    configs = [
        ({"method": method, "noise": noise}, config(method, noise, seed), numbers)
        for method, values in (
            ("elr", {"test_accuracy_last": 0.9, "validation_accuracy_test_at_best": 0.915}),
            ("nal", {"test_accuracy_last": 0.93}),
        )
        for noise in (included, "asymmetric:0.4")
        for seed in (0, 1)
        for numbers in [{key: value + 0.01 * seed for key, value in values.items()}]
    ]
    last, validation = make_tables(made_result(tmp_path, configs))
    assert last.columns == ("method", f"noise={included}", "noise=asymmetric:0.4")
    # 93 and 94 %: mean 93.5, deviation 0.7071; published 93.49 ± 0.07 and 92.09 ± 0.12.
    assert last.rows == (
        ("elr", "90.50 ± 0.71", "90.50 ± 0.71"),
        ("nal", "93.50 ± 0.71 [93.49 ± 0.07, +0.01] (1)", "93.50 ± 0.71 [92.09 ± 0.12, +1.41] (2)"),
    )
    assert "Table 1: ResNet-34, 500 epochs" in last.notes[1]
    assert "the authors' code draws them from all classes" in last.notes[1]
    assert "; here" not in last.notes[1], "the run's noise is what their code makes"
    assert any(note.endswith("fastnoise train --method nal --dataset cifar10 --deviations.") for note in last.notes)
    assert validation.title.startswith("Test accuracy at the best validation epoch")
    # ELR with the cosine schedule of its recipe for symmetric noise, without it for asymmetric noise.
    assert validation.rows == (
        ("elr", "92.00 ± 0.71 [91.43 ± 0.21, +0.57] (1)", "92.00 ± 0.71 [90.12 ± 0.47, +1.88] (2)"),
    )
    lines = last.markdown().splitlines()
    assert lines[2] == f"| method | noise={included} | noise=asymmetric:0.4 |"
    assert lines[3] == "| --- | ---: | ---: |"
    assert lines[5].startswith("| nal | 93.50 ± 0.71 [93.49 ± 0.07, +0.01] (1) |")
    console = quiet()
    console.print(last.rich())
    assert "93.50 ± 0.71 [93.49 ± 0.07, +0.01] (1)" in said(console)


def test_tables_keep_every_combination_of_uneven_lists(tmp_path: Path) -> None:
    configs = [
        (varied, recipe(varied["method"], "digits").replace({**varied, "seed": seed}), {"test_accuracy_last": accuracy})
        for varied, accuracy in (
            ({"method": "elr", "strength": 1.0}, 0.5),
            ({"method": "elr", "strength": 2.0}, 0.6),
            ({"method": "ce"}, 0.7),
        )
        for seed in ((0,) if varied["method"] == "ce" else (0, 1))
    ]
    (table,) = make_tables(made_result(tmp_path, configs))
    cells = {cell for row in table.rows for cell in row}
    assert {"50.00 ± 0.00", "60.00 ± 0.00", "70.00 (n=1)"} <= cells
    assert len(table.rows) == 3 or len(table.columns) > 2


def test_failed_jobs_stand_in_the_tables_file(tmp_path: Path) -> None:
    jobs = make_jobs([({"epochs": 1}, recipe("ce", "digits"))])
    write_tables(SweepResult(jobs, tmp_path, [], {jobs[0].name: "too bad"}), "mine")
    text = (tmp_path / "tables.md").read_text()
    assert "0 of 1 job done" in text
    assert f"- {jobs[0].name} (epochs=1 seed=0): too bad" in text


ONCE = "20 % of labels wrong, there 18 %"
"""Asymmetric noise of 40 % on CIFAR-10 flips half of the classes once; ELR's and APL's loaders flip some cats back."""
OTHERS = "noise with the true class excluded, there included"
ALL_WRONG = "80 % of labels wrong, there 72 %"
"""NAL's and SELC's code at nominal 80 %; .719 was counted in a draw of it."""


@pytest.mark.parametrize(
    ("method", "dataset", "noise", "changes", "value", "metric", "differs"),
    [
        ("elr", "cifar10", "symmetric:0.4,true_class=included", {}, "91.43 ± 0.21", "validation", ""),
        (
            "elr",
            "cifar10",
            "symmetric:0.4",
            {},
            "91.43 ± 0.21",
            "validation",
            "; here noise with the true class excluded, there included, 40 % of labels wrong, there 36 %",
        ),
        ("elr", "cifar10", "asymmetric:0.4,sequential=true", {}, "90.12 ± 0.47", "validation", ""),
        (
            "elr",
            "cifar10",
            "asymmetric:0.4",
            {"schedule": "cosine"},
            "90.35 ± 0.38",
            "validation",
            f"; here 120 epochs, {ONCE}",
        ),
        ("elr", "cifar10", "asymmetric:0.4", {"epochs": 5}, "90.12 ± 0.47", "validation", f"; here 5 epochs, {ONCE}"),
        ("nal", "cifar10", "asymmetric:0.4", {}, "92.09 ± 0.12", "last", ""),
        ("nal", "cifar10", "symmetric:0.8,true_class=included,quota=global", {}, "80.98 ± 0.27", "last", ""),
        ("nal", "cifar10", "symmetric:0.8", {}, "80.98 ± 0.27", "last", f"; here {OTHERS}, {ALL_WRONG}"),
        ("selc", "cifar10", "symmetric:0.8", {}, "74.13 ± 0.14", "last", f"; here {OTHERS}, {ALL_WRONG}"),
        ("nal", "cifar100", "symmetric:0.8", {"target_estimation": "off"}, "31.33 ± 0.38", "last", f"; here {OTHERS}"),
        ("nal", "cifar100", "symmetric:0.8", {"reverse": 0.1}, "38.24 ± 0.55", "last", f"; here {OTHERS}"),
        ("nal", "cifar100", "symmetric:0.8", {"attention": "confidence"}, None, None, None),
        ("nal", "cifar100", "symmetric:0.7", {}, None, None, None),
        ("nal", "cifar100", "symmetric:0.8", {"model": "resnet18"}, None, None, None),
        ("nal", "cifar100", "symmetric:0.8", {"width": 2.0}, None, None, None),
        ("nal", "cifar100", "symmetric:0.8", {"limit_train": 1000}, None, None, None),
        ("elr_plus", "cifar10", "symmetric:0.8,true_class=included", {}, "91.10", "validation", ""),
        (
            "elr_plus",
            "cifar10",
            "symmetric:0.8",
            {"networks": 1, "mixup_alpha": 0.0},
            "76.50 ± 0.65",
            "validation",
            None,
        ),
        ("dividemix", "cifar10", "symmetric:0.5,true_class=included", {}, "94.60", "best", ""),
        ("coteaching", "cifar10", "pair:0.45", {}, "72.85", "mean_last_10", ""),
        ("coteaching", "mnist", "symmetric:0.5", {}, "91.68", "mean_last_10", ""),
        ("ce", "cifar10n", "human:worse", {}, "83.91 ± 0.08", "last", "; here resnet34"),
        ("swce", "cifar100", "idn:0.3", {}, "73.11", "last", ""),
        ("swce", "cifar100", "idn:0.3", {"model": "resnet34"}, "78.52", "last", ""),
        ("selc", "cifar10", "pmd:0.35,type=2,posteriors=p.npy", {}, "87.06 ± 0.20", "last", ""),
        (
            "selc",
            "cifar10",
            "pmd:0.35,type=2,posteriors=p.npy",
            {"model": "preact_resnet34"},
            "87.06 ± 0.20",
            "last",
            "; here preact_resnet34, there preact_resnet18_bn_stem",
        ),
        (
            "dividemix",
            "cifar10",
            "symmetric:0.5,true_class=included",
            {"model": "preact_resnet18"},
            "94.60",
            "best",
            "; here preact_resnet18, there preact_resnet18_bn_stem",
        ),
        ("plc", "cifar10", "pmd:0.35,posteriors=p.npy", {}, "82.80 ± 0.27", "last", ""),
        ("plc", "cifar10", "pmd:0.35,posteriors=p.npy", {"model": "resnet18"}, None, None, None),
        ("ce", "digits", "symmetric:0.4", {}, None, None, None),
    ],
)
def test_published_values_are_found_by_what_a_run_is(
    method: str,
    dataset: str,
    noise: str,
    changes: dict[str, Any],
    value: str | None,
    metric: Metric,
    differs: str | None,
) -> None:
    config = recipe(method, dataset, noise).replace(changes)
    found = published(config)
    if value is None:
        assert not found
        return
    entry = found[metric]
    assert (entry.describe(), entry.metric) == (value, metric)
    if differs is not None:
        assert deviations(config, entry) == differs


@pytest.mark.parametrize(
    ("noise", "dataset", "rate"),
    [
        ("symmetric:0.8,true_class=included,quota=global", "cifar10", 0.72),
        ("symmetric:0.8", "cifar10", 0.8),
        ("asymmetric:0.4", "cifar10", 0.2),
        ("asymmetric:0.4,sequential=true", "cifar10", 0.184),
        ("asymmetric:0.4", "cifar100", 0.4),
        ("pair:0.45", "mnist", 0.45),
        ("human:worse", "cifar10n", None),
        ("pmd:0.35,posteriors=p.npy", "cifar10", None),
    ],
)
def test_the_share_of_wrong_labels_that_a_noise_makes(noise: str, dataset: str, rate: float | None) -> None:
    assert expected_rate(noise, dataset) == (None if rate is None else pytest.approx(rate, abs=5e-3))


def test_a_run_with_other_noise_is_not_set_beside_a_row_silently() -> None:
    """By the run's own count, too."""
    config = recipe("nal", "cifar10", "symmetric:0.8,true_class=included,quota=global")
    entry = published(config)["last"]
    assert "draws them from all classes" in entry.cite()
    assert deviations(config, entry, 0.719) == ""
    assert deviations(config, entry, 0.799) == "; here 80 % of labels wrong, there 72 %"


def test_every_published_value_belongs_to_something_we_have() -> None:
    entries = [(key, entry) for key, found in _index().items() for _, entry in found]
    assert len(entries) > 250
    for (dataset, method, *_), entry in entries:
        if dataset in DATASETS:
            assert recipe(str(method), str(dataset), entry.noise)
            assert entry.model is None or entry.model in MODELS or LibraryModel.parse(entry.model) is not None
        assert parse(entry.noise).kind in str(entry.noise)
        assert 5 < entry.mean < 99
        assert entry.sd is None or 0 < entry.sd < 3
        assert entry.source in entry.cite()


# -- runs ------------------------------------------------------------------------------------------------------


FUNCTIONS = """
import json, os, shutil, signal, sys, time
loaded = " ".join(sys.modules)
import torch
from fastnoise.errors import TrainingError

def work(config, folder, console):
    console.print("working on", config["what"])
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({"epoch": 1, "process": os.getpid()}) + "\\n")
    calls = len((folder / "metrics.jsonl").read_text().splitlines())
    match config["what"]:
        case "bad":
            raise TrainingError("the loss is\\n no number")
        case "bug":
            return {"x": 1 // 0}
        case "exit":
            os._exit(3)
        case "die" if calls == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "server" if calls == 1:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "wait":
            time.sleep(0.5)
        case "memory" if calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        case "hog":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB.")
        case "gone" if not (folder.parents[1] / "once").exists():
            (folder.parents[1] / "once").touch()
            shutil.rmtree(folder)
    return {"figure": config["seed"] + 0.5, "calls": calls, "text": "left out of results.csv"}

def tell(config, folder, console):
    return {"loaded": loaded}
"""


class Kept(LocalExecutor):
    """Leaves its server, which has torch imported, for the next test."""

    def close(self) -> None:
        self._slot_of.clear()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], LocalExecutor]]:
    """Executors of so many jobs at once that share a server, which knows `sweep_functions`."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "sweep_functions.py").write_text(FUNCTIONS)
    executor = Kept()

    def at_once(jobs: int) -> LocalExecutor:
        executor.jobs = jobs
        return executor

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        executor.warm_up()
        yield at_once
    LocalExecutor.close(executor)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, local: Callable[[int], LocalExecutor]) -> Path:
    """The folder of a sweep of SPEC that nothing disturbed, two jobs at once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    console = quiet()
    spec = write_spec(folder, SPEC)
    result = run_sweep(resolve(spec), folder / "out", executor=local(2), console=console, title="mine", spec=SPEC)
    assert not result.failed
    assert len(result.rows) == 8
    text = said(console)
    assert "mine: 8 jobs; 2 at once" in text
    assert "[8/8]" in text
    assert " left" in text, "the time left"
    assert "8 of 8 jobs done" in text
    assert "Test accuracy, last epoch" in text
    return folder / "out"


def test_a_sweep_leaves_run_folders_rows_and_tables(undisturbed: Path) -> None:
    jobs = resolve(undisturbed / "sweep.toml")
    assert (undisturbed / "sweep.toml").read_text() == SPEC
    rows = read_rows(undisturbed)
    assert [row["name"] for row in rows] == [job.name for job in jobs]
    assert list(rows[0])[:6] == ["name", "method", "strength", "noise", "seed", "noise_seed"]
    for job, row in zip(jobs, rows, strict=True):
        folder = undisturbed / "jobs" / job.name
        summary = json.loads((folder / "summary.json").read_text())
        assert float(row["test_accuracy_last"]) == summary["test_accuracy"]["last"]
        assert row["method"] == job.fields["method"]
        assert (folder / "model.safetensors").exists()
        assert not (folder / "checkpoint.pt").exists()
        assert not (folder / "error.txt").exists()
        assert "epoch 3/3" in (undisturbed / "logs" / f"{job.name}.log").read_text()
    mean = sum(float(row["test_accuracy_last"]) for row in rows[:2]) / 2
    assert f"{100 * mean:.2f} ±" in (undisturbed / "tables.md").read_text()


def test_a_job_computes_what_the_same_run_does_alone(undisturbed: Path, tmp_path: Path) -> None:
    import torch

    from fastnoise.engine import train

    job = resolve(undisturbed / "sweep.toml")[3]
    assert isinstance(job.config, RunConfig)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        summary = train(job.config.replace({"run_dir": str(tmp_path / "alone")}), console=quiet())
    finally:
        torch.set_num_threads(threads)
    row = read_rows(undisturbed)[3]
    alone = figures(summary)
    assert {key: float(row[key]) for key in alone} == pytest.approx(alone, abs=0)


def test_labels_that_have_changed_since_a_job_finished_are_refused(
    tmp_path: Path, local: Callable[[int], LocalExecutor]
) -> None:
    labels = tmp_path / "noisy.csv"
    labels.write_text("index,label\n" + "".join(f"{place},{place % 10}\n" for place in range(64)))
    small: dict[str, Any] = {"limit_train": 64, "epochs": 1, "model": "mlp", "device": "cpu", "labels": str(labels)}
    jobs = make_jobs([({}, recipe("ce", "digits", "none").replace(small))])
    run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet())
    before = read_rows(tmp_path / "out")
    content = labels.read_text()
    labels.write_text(content.replace("\n5,5\n", "\n5,6\n"))
    with pytest.raises(ConfigError, match=rf"noisy.csv has changed since 1 job finished .* remove .*{jobs[0].name} to"):
        run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet())
    labels.write_text(content)
    run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet())
    assert read_rows(tmp_path / "out") == before


def test_a_finished_sweep_runs_nothing_again(undisturbed: Path) -> None:
    class Idle(LocalExecutor):
        def open(self, jobs: Sequence[Job]) -> str:
            raise AssertionError("nothing is left to run")

    before = (undisturbed / "results.csv").read_bytes(), (undisturbed / "tables.md").read_bytes()
    (undisturbed / "results.csv").write_text("cut o")
    console = quiet()
    result = run_sweep(resolve(undisturbed / "sweep.toml"), undisturbed, executor=Idle(), console=console, title="mine")
    assert len(result.rows) == 8
    assert ((undisturbed / "results.csv").read_bytes(), (undisturbed / "tables.md").read_bytes()) == before
    assert "8 of 8 jobs done" in said(console)


def start_command(*words: object) -> Forked:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "120")
        return Forked("sweep", *map(str, words))


def wait_for(condition: Callable[[], Any], seconds: float = 300, *, during: Forked | None = None) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if during is not None and during.poll() is not None:
            raise AssertionError(f"ended too early: {during.communicate()}")
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def job_processes(sweep: int) -> list[int]:
    """Those whose output is a job's log; importing torch starts processes as well."""

    def is_job(pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/1").endswith(".log")
        except OSError:
            return False

    return [pid for server in children(sweep) for pid in children(server) if is_job(pid)]


def finished(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("jobs/*/summary.json")}


def metrics(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("jobs/*/metrics.jsonl"))


@LINUX
def test_a_sweep_that_is_killed_and_stopped_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path, SPEC), tmp_path / "out"

    # Killed while jobs run: nothing of it may live on.
    sweep = start_command(spec, "--out", out, "--jobs", 2)
    wait_for(lambda: metrics(out) >= 2, during=sweep)
    family = [pid for server in children(sweep.pid) for pid in (server, *children(server))]
    assert len(family) >= 2
    sweep.kill()
    sweep.communicate()
    wait_for(lambda: not any(alive(pid) for pid in family), 10)
    done = finished(out)

    # A job killed, then the sweep asked to stop.
    sweep = start_command(spec, "--out", out, "--jobs", 2)
    victim = wait_for(lambda: job_processes(sweep.pid), during=sweep)[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: list(out.glob("jobs/*/error.txt")) and job_processes(sweep.pid), during=sweep)
    sweep.send_signal(signal.SIGTERM)
    output, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 143
    assert "killed by SIGKILL" in output
    assert re.search(r"stopped with \d of 8 jobs left, all saved; the same command continues", errors)
    assert done.items() <= finished(out).items(), "what was done is not done again"
    done = finished(out)

    # To the end, now one after the other.
    sweep = start_command(spec, "--out", out, "--jobs", 1)
    output, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, errors
    assert len(finished(out)) == 8
    assert done.items() <= finished(out).items()
    assert not list(out.glob("jobs/*/error.txt"))
    assert (out / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()
    assert (out / "tables.md").read_text() == (undisturbed / "tables.md").read_text().replace("# mine", "# spec", 1)


def function_jobs(*kinds: str) -> list[Job]:
    return make_jobs(
        [({"what": kind}, {"what": kind, "seed": number}) for number, kind in enumerate(kinds)],
        function="sweep_functions:work",
    )


def test_jobs_find_the_engine_imported(tmp_path: Path, local: Callable[[int], LocalExecutor]) -> None:
    jobs = make_jobs([({}, {"seed": 0})], function="sweep_functions:tell")
    result = run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet(), title="mine")
    loaded = str(result.summary(jobs[0].name)["loaded"]).split()
    assert {"fastnoise.engine.trainer", "fastnoise.sweeps.results", "sklearn.metrics", "torch._dynamo"} <= set(loaded)


@LINUX
def test_jobs_that_fail_or_are_killed_stop_no_other(tmp_path: Path, local: Callable[[int], LocalExecutor]) -> None:
    jobs = function_jobs("bad", "die", "bug", "exit", "wait", "server", "wait", "good")
    names = [job.name for job in jobs]
    console = quiet()
    result = run_sweep(jobs, tmp_path / "out", executor=local(2), console=console, title="mine")
    assert result.failed[names[0]] == "the loss is no number"
    assert result.failed[names[1]].startswith("its process was killed by SIGKILL, as the system does when memory runs")
    assert result.failed[names[2]].startswith("ZeroDivisionError: ")
    assert result.failed[names[3]].startswith("its process ended with exit code 3")
    assert "SIGKILL" in result.failed[names[5]]
    # The server's end took the job beside it along, whichever that was.
    ended = {row["name"] for row in result.rows}
    assert names[7] in ended
    assert ended | set(result.failed) == set(names)
    assert "Traceback" in (result.run_folder(names[2]) / "error.txt").read_text()
    assert (result.run_folder(names[2]) / "error.txt").read_text().splitlines()[-1] == result.failed[names[2]]
    assert "working on" in (tmp_path / "out" / "logs" / f"{names[7]}.log").read_text()
    assert "failed: the loss is no number" in said(console)
    processes = [
        json.loads(line)["process"]
        for path in (tmp_path / "out").glob("jobs/*/metrics.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(set(processes)) == len(processes), "each job has a process of its own"

    again = run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet(), title="mine")
    assert set(again.failed) == {names[0], names[2], names[3]}
    assert [row["name"] for row in again.rows] == [names[number] for number in (1, 4, 5, 6, 7)]
    assert again.summary(names[1]) == {"figure": 1.5, "calls": 2, "text": "left out of results.csv"}
    assert again.summary(names[7])["calls"] == 1, "done jobs are not run again"
    assert not (again.run_folder(names[1]) / "error.txt").exists()
    assert list(again.rows[0]) == ["name", "what", "seed", "figure", "calls"]
    (table,) = make_tables(again)
    assert table.columns == ("what", "figure")
    with pytest.raises(CheckpointError, match="not a readable summary"):
        again.summary(names[0])


def test_out_of_memory_is_tried_again_with_fewer_at_once(tmp_path: Path, local: Callable[[int], LocalExecutor]) -> None:
    # The three that need more begin together: one that began later could meet its error with the machine to itself.
    jobs = function_jobs("memory", "memory", "hog", "good", "good")
    names = [job.name for job in jobs]
    console = quiet()
    executor = local(3)
    result = run_sweep(jobs, tmp_path / "out", executor=executor, console=console, title="mine")
    assert executor.slots == 1
    assert list(result.failed) == [names[2]]  # which had the machine to itself in the end
    assert result.failed[names[2]].startswith("CUDA out of memory. Tried to allocate 2 TiB. Lower batch_size")
    assert [row["name"] for row in result.rows] == [names[number] for number in (0, 1, 3, 4)]
    assert result.summary(names[0])["calls"] == 2
    assert "what=memory seed=0: a GPU had too little memory; it goes on later, with" in said(console)
    assert not (result.run_folder(names[0]) / "error.txt").exists()


def test_a_job_of_two_processes_keeps_what_it_is_told(tmp_path: Path, local: Callable[[int], LocalExecutor]) -> None:
    fields = {"limit_train": 128, "epochs": 1, "batch_size": 32, "device": "cpu", "save_every": 1, "loader_threads": 1}
    configs = [recipe(method, "digits").replace(fields) for method in ("elr", "multitask")]
    jobs = make_jobs([({"method": config.method.method}, config) for config in configs])
    executor = local(1)
    executor.gpus_per_job = 2
    try:
        console = quiet()
        result = run_sweep(jobs, tmp_path / "out", executor=executor, console=console, title="mine", keep="checkpoint")
    finally:
        executor.gpus_per_job = 1
    assert "2 processes each" in said(console)
    assert list(result.failed) == [jobs[1].name]
    assert result.failed[jobs[1].name].startswith("method multitask serves multitask, and the data set is one of")
    run = result.run_folder(jobs[0].name)
    assert json.loads((run / "metrics.jsonl").read_text())["collectives"] > 0
    assert "processes: 2 (gloo)" in (tmp_path / "out" / "logs" / f"{jobs[0].name}.log").read_text()
    assert (run / "checkpoints" / "latest").exists()
    assert not list((tmp_path / "out" / "jobs").glob("*.json"))
    run_sweep(jobs[:1], tmp_path / "out", executor=executor, console=quiet(), title="mine")
    assert not (run / "checkpoints").exists()
    assert (run / "model.safetensors").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_of_method_auto_choose_and_go_on_by_what_was_chosen(
    tmp_path: Path, local: Callable[[int], LocalExecutor], processes: int
) -> None:
    fields = {"limit_train": 300, "epochs": 10, "device": "cpu", "save_every": 1, "loader_threads": 1}
    config = recipe("auto", "digits", "symmetric:0.3").replace(fields)
    (job,) = make_jobs([({"method": "auto"}, config)])
    executor = local(1)
    executor.gpus_per_job = processes
    try:
        result = run_sweep([job], tmp_path / "out", executor=executor, console=quiet(), title="mine", keep="checkpoint")
        assert not result.failed
        (row,) = result.rows
        run = RunFolder.open(result.run_folder(job.name))
        method = run.read_config().method.method
        assert row["method"] == "auto"
        assert row["chosen"] == run.read_summary()["method"] == method != "auto"
        (start,) = json.loads(run.environment.read_text())
        assert [line for line in start["notes"] if line.startswith(f"chosen: {method}")]
        with open(tmp_path / "out" / "results.csv", newline="") as stream:
            assert [line["chosen"] for line in csv.DictReader(stream)] == [method]

        run.summary.unlink()  # as if it had been killed before its end
        again = run_sweep([job], tmp_path / "out", executor=executor, console=quiet(), title="mine")
    finally:
        executor.gpus_per_job = 1
    assert not again.failed
    assert again.rows == [row]
    assert (tmp_path / "out" / "logs" / f"{job.name}.log").read_text().count("auto: two networks learn") <= 1


def test_a_job_with_too_little_for_a_look_takes_the_usual_method(
    tmp_path: Path, local: Callable[[int], LocalExecutor]
) -> None:
    config = recipe("auto", "digits").replace({"limit_train": 40, "epochs": 1, "device": "cpu"})
    (job,) = make_jobs([({"method": "auto"}, config)])
    result = run_sweep([job], tmp_path / "out", executor=local(1), console=quiet(), title="mine")
    assert not result.failed
    assert [row["chosen"] for row in result.rows] == [USUAL_METHOD]
    (start,) = json.loads(RunFolder.open(result.run_folder(job.name)).environment.read_text())
    assert start["notes"][0].startswith("too few images or epochs for a look at the labels, so the method is nal")


def test_a_job_whose_folder_is_deleted_stops_no_other_and_runs_again(
    tmp_path: Path, local: Callable[[int], LocalExecutor]
) -> None:
    jobs = function_jobs("good", "gone", "good")
    names = [job.name for job in jobs]
    result = run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet(), title="mine")
    assert list(result.failed) == [names[1]]  # deleted while it ran
    assert "summary.json: No such file or directory" in result.failed[names[1]]
    assert [row["name"] for row in result.rows] == [names[0], names[2]]
    before = read_rows(tmp_path / "out")
    for name in names[:2]:
        shutil.rmtree(result.run_folder(name))  # between two calls, of a job that is done and of one that failed
    again = run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet(), title="mine")
    assert not again.failed
    assert [row["name"] for row in again.rows] == names
    assert [row for row in read_rows(tmp_path / "out") if row["name"] != names[1]] == before
    assert again.summary(names[0])["calls"] == 1, "it began anew"
    shutil.rmtree(tmp_path / "out" / "jobs")
    assert len(run_sweep(jobs, tmp_path / "out", executor=local(1), console=quiet(), title="mine").rows) == 3


HOLD = """
import sys, time
from pathlib import Path
from fastnoise.sweeps.job import Locks
locks = Locks(Path(sys.argv[1]))
assert locks.take(Locks.SWEEP) and locks.take(int("0123456789ab", 16))
locks.sign("process 77 on elsewhere")
print("held", flush=True)
time.sleep(600)
"""


def test_two_sweeps_do_not_share_a_folder_and_locks_end_with_their_process(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"another sweep works here \(process 77 on elsewhere\); end it"):
            run_sweep(function_jobs("good"), tmp_path, executor=LocalExecutor(1), console=quiet())
        locks = Locks(tmp_path)
        assert not locks.take(0x0123456789AB)
        assert locks.take(0x0123456789AC)
    finally:
        holder.kill()
        holder.communicate()
    assert locks.take(0x0123456789AB, patience=5)
    assert locks.take(Locks.SWEEP, patience=5)
    locks.close()


def test_a_folder_that_cannot_be_made_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot work in the sweep's folder"):
        run_sweep([], tmp_path / "file", executor=LocalExecutor(1), console=quiet())
    with pytest.raises(ConfigError, match="--stack must be positive, not 0"):
        run_sweep([], tmp_path, executor=LocalExecutor(1), stack=0, console=quiet())
    with pytest.raises(ConfigError, match="--jobs must be 0 or more"):
        LocalExecutor(-1)
    with pytest.raises(ConfigError, match="--gpus-per-job"):
        RayExecutor(gpus_per_job=-0.5)


class _Instant:
    """An executor whose tasks are done at once; counts how they come."""

    slots = 4

    def __init__(self) -> None:
        self.tasks: list[Assignment] = []
        self._ended: list[Ended] = []

    def open(self, jobs: Sequence[Job]) -> str:
        return "nowhere"

    def start(self, number: int, task: Assignment) -> None:
        self.tasks.append(task)
        for job in task.jobs:
            folder = task.folder / "jobs" / job.name
            folder.mkdir()
            (folder / "summary.json").write_text('{"test_accuracy": {"last": 0.5}}')
        self._ended.append(Ended(number, 0))

    def wait(self, seconds: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_terminal_shows_running_jobs_with_their_epochs_and_the_time_left(tmp_path: Path) -> None:
    jobs = resolve(write_spec(tmp_path, 'method = "ce"\nepochs = 4\nseeds = 6\n'))

    class Halfway(_Instant):
        """The last two jobs stop in their second epoch until all others are done."""

        def start(self, number: int, task: Assignment) -> None:
            if number < 4:
                super().start(number, task)
                return
            folder = task.folder / "jobs" / task.jobs[0].name
            folder.mkdir()
            task.log.touch()
            lines = "".join(json.dumps({"epoch": epoch, "test_accuracy": 0.25}) + "\n" for epoch in (1, 2))
            (folder / "metrics.jsonl").write_text(lines + '{"epoch": 3, "test_acc')
            held.append((number, task))

        def wait(self, seconds: float) -> list[Ended]:
            rounds.append(len(rounds))
            if len(rounds) < 4:
                return super().wait(seconds)
            for _, task in held:
                (task.folder / "jobs" / task.jobs[0].name / "error.txt").write_text("broken\n")
            return [Ended(number, 1) for number, _ in held]

    held: list[tuple[int, Assignment]] = []
    rounds: list[int] = []

    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    result = run_sweep(jobs, tmp_path / "out", executor=Halfway(), console=console, title="mine")
    assert list(result.failed.values()) == ["broken", "broken"]
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said(console))
    shown = next(frame for frame in text.split(" mine ") if "2/4" in frame)
    assert len(re.findall(r"│ seed=[45] +│ +2/4 │ 25.00 % │ +0 s │", shown)) == 2
    assert re.search(r"4 of 6 done, 0 failed, \d+ s left", shown)
    assert "4 of 6 jobs done, 2 failed (the same command runs them again)" in text


def test_runs_alike_are_stacked_and_others_stay_alone(tmp_path: Path) -> None:
    stacked = pytest.importorskip("fastnoise.engine.stacked")
    text = 'epochs = 1\nseeds = 5\n[[list]]\nmethod = "ce"\n[[list]]\nmethod = "coteaching"\n'
    jobs = resolve(write_spec(tmp_path, text))
    assert stacked.stackable([job.config for job in jobs[5:7]]) is not None
    executor, console = _Instant(), quiet()
    result = run_sweep(jobs, tmp_path / "out", executor=executor, stack=3, console=console)
    assert len(result.rows) == 10
    assert [(len(task.jobs), task.stacked) for task in executor.tasks] == [(3, True), (2, True)] + [(1, False)] * 5
    assert "not stacked: method=coteaching seed=0 and 2 others: method coteaching" in said(console)


def test_stacked_jobs_give_the_rows_of_separate_ones(
    undisturbed: Path, tmp_path: Path, local: Callable[[int], LocalExecutor]
) -> None:
    pytest.importorskip("fastnoise.engine.stacked")
    jobs = [job for job in resolve(undisturbed / "sweep.toml") if job.fields["method"] == "ce"]
    result = run_sweep(jobs, tmp_path, executor=local(1), stack=4, console=quiet())
    assert not result.failed
    separate = {row["name"]: row for row in read_rows(undisturbed)}
    for row in result.rows:
        alone = float(separate[row["name"]]["test_accuracy_last"])
        # Sums are taken in another order: of 359 test images a few may fall to the other side.
        assert row["test_accuracy_last"] == pytest.approx(alone, abs=0.03)


def test_the_command_lists_jobs_and_refuses_options_that_do_not_fit(tmp_path: Path) -> None:
    from fastnoise.commands.sweep import SweepCommand, run
    from fastnoise.words import parsed

    def command(*words: object) -> SweepCommand:
        return parsed(SweepCommand, [str(word) for word in words], "fastnoise sweep")

    assert run(command(write_spec(tmp_path, SPEC), "--list")) == 0
    for words, message in (
        ((), "give the sweep's file"),
        (("s.toml", "--address", "auto"), "--address is for --executor ray"),
        (("s.toml", "--gpus-per-job", "0.5"), "--gpus-per-job 0.5: a share of a GPU is for --executor ray"),
        (("s.toml", "--gpus-per-job", "0"), "--gpus-per-job of jobs on this machine must be 1 or more, not 0"),
        (("s.toml", "--executor", "ray", "--jobs", "2"), "--jobs is for --executor local"),
        (("s.toml", "--list"), "s.toml: no such file"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            run(command(*words))
    with pytest.raises(ConfigError, match="unknown option --job;"):
        command("s.toml", "--job", "2")


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments_lose_nothing(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    """Sweeps, servers and jobs are killed, eight in all; then the same command ends as if nothing had been."""
    chance = random.Random(seed)
    spec, out = write_spec(tmp_path, SPEC), tmp_path / "out"
    done: dict[str, int] = {}
    kills = []
    while len(kills) < 8:
        sweep = start_command(spec, "--out", out, "--jobs", 2)
        victim = chance.choice(["sweep", "server", "job", "job"])
        wait_for(lambda process=sweep: children(process.pid) or process.poll() is not None)
        if chance.random() < 0.7:  # else anywhere, in the imports too
            wait_for(lambda process=sweep: job_processes(process.pid) or process.poll() is not None)
        time.sleep(chance.uniform(0, 3))
        servers = children(sweep.pid)
        family = [pid for server in servers for pid in (server, *children(server))]
        targets = {"sweep": [sweep.pid], "server": servers, "job": job_processes(sweep.pid)}[victim]
        if sweep.poll() is None and targets:
            os.kill(chance.choice(targets), signal.SIGKILL)
            kills.append(victim)
            time.sleep(chance.uniform(0, 2))
        sweep.kill()
        sweep.communicate()
        wait_for(lambda pids=family: not any(alive(pid) for pid in pids), 20)
        assert done.items() <= finished(out).items(), "what was done is not done again"
        done = finished(out)
        if len(done) == 8:
            break
    sweep = start_command(spec, "--out", out, "--jobs", 2)
    _, errors = sweep.communicate(timeout=500)
    assert sweep.returncode == 0, errors
    assert done.items() <= finished(out).items()
    assert (out / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_the_same_table(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fastnoise[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        cluster.add_node(num_cpus=1, num_gpus=0)
        executor = RayExecutor(cluster.address, cpus_per_job=1)
        console = quiet()
        result = run_sweep(
            resolve(undisturbed / "sweep.toml"), tmp_path, executor=executor, console=console, title="mine"
        )
        assert not result.failed
        assert "Ray cluster of 2 nodes, 2 cores, 0 GPUs" in said(console)
        for name in ("results.csv", "tables.md"):
            assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()
        with pytest.raises(ConfigError, match="no Ray task fits: it asks for 0 GPUs and 64 cores"):
            RayExecutor(cluster.address, cpus_per_job=64).open([])
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_two_workers_of_ray_train_give_the_numbers_of_two_processes(
    tmp_path: Path, local: Callable[[int], LocalExecutor]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fastnoise[ray]'")
    from ray.cluster_utils import Cluster

    fields = {"limit_train": 128, "epochs": 2, "batch_size": 32, "device": "cpu", "loader_threads": 1}
    configs = [recipe(method, "digits").replace(fields) for method in ("elr", "multitask")]
    jobs = make_jobs([({"method": config.method.method}, config) for config in configs])
    executor = local(1)
    executor.gpus_per_job = 2
    try:
        here = run_sweep(jobs, tmp_path / "here", executor=executor, console=quiet(), title="mine")
    finally:
        executor.gpus_per_job = 1
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        cluster.add_node(num_cpus=1, num_gpus=0)
        on_ray = RayExecutor(cluster.address, gpus_per_job=2, cpus_per_job=1)
        there = run_sweep(jobs, tmp_path / "there", executor=on_ray, console=quiet(), title="mine")
    finally:
        cluster.shutdown()
    assert [row["name"] for row in there.rows] == [jobs[0].name]
    assert there.rows == here.rows
    assert there.failed == here.failed
    assert there.failed[jobs[1].name].startswith("method multitask serves multitask")
    assert "processes: 2 (gloo)" in (tmp_path / "there" / "logs" / f"{jobs[0].name}.log").read_text()
    assert {path.name for path in (tmp_path / "there" / "jobs").iterdir()} == {job.name for job in jobs}


def test_without_ray_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'fastnoise\[ray\]'"):
        RayExecutor().open([])
