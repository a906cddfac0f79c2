"""The benchmark of the short courses in miniature, and its sweep's file."""

import sys
from pathlib import Path

import pytest

from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import resolve

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import recipes, record  # noqa: E402

sys.path.remove(str(ROOT))


def test_the_cases_of_both_parts() -> None:
    real = list(recipes.cases("real", recipes.METHODS["real"], (0, 1), None, "auto"))
    assert len(real) == 18  # two settings of four methods and clean labels, twice
    assert [case.config.engine.seed for case in real] == [0] * 9 + [1] * 9
    assert {case.config.optim.recipe for case in real} == {"cpu"}
    assert all(case.config.data.limit_train is None for case in real)
    learn = list(recipes.cases("learn", ("ce", "elr"), (0, 1), None, "auto"))
    assert [case.config.optim.epochs for case in learn] == [120, 50] * 4
    assert {(case.config.model.model, case.config.model.width) for case in learn} == {("resnet18", 0.25)}
    assert {case.config.data.limit_train for case in learn} == {10_000}
    for found in (real, learn):
        keys = [tuple(case.key().items()) for case in found]
        assert len(set(keys)) == len(keys)


def test_a_row_comes_with_each_run_and_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"limit_train": 200, "epochs": 2, "width": 0.25}

    def cases(part: str, methods: list[str], *rest: object) -> list[recipes.Case]:
        return [recipes.Case(part, recipe(each, "digits", recipe="cpu").replace(small)) for each in methods]

    monkeypatch.setattr(recipes, "cases", cases)
    output, runs = tmp_path / "rows.csv", tmp_path / "runs"
    words = ["real", "--output", str(output), "--runs", str(runs)]
    recipes.main([*words, "--methods", "ce"])
    (row,) = record.read(output)
    assert 0 < float(row["last"]) <= float(row["best"]) <= 1
    assert 0 <= float(row["memorised"]) <= 1
    folders = sorted(runs.iterdir())

    calls, train = [], recipes.train
    monkeypatch.setattr(recipes, "train", lambda *given, **more: calls.append(given) or train(*given, **more))
    recipes.main([*words, "--methods", "ce", "elr"])
    assert len(calls) == 1
    assert [found["method"] for found in record.read(output)] == ["ce", "elr"]
    assert set(folders) < set(runs.iterdir())
    output.unlink()  # the runs are there still, and are only read
    before = [(each / "metrics.jsonl").read_text() for each in folders]
    recipes.main([*words, "--methods", "ce"])
    assert [(each / "metrics.jsonl").read_text() for each in folders] == before
    assert record.read(output)[0]["last"] == row["last"]
    assert "| real | cpu | 2 | digits | symmetric:0.4 | ce | 1 |" in capsys.readouterr().out


def test_the_search_is_a_sweep() -> None:
    jobs = resolve(ROOT / "benchmarks" / "sweeps" / "cpu_recipe.toml")
    assert len(jobs) == 48
    assert {job.fields["recipe"] for job in jobs} == {"cpu"}


def test_the_table_has_means_over_seeds_and_minutes_of_undisturbed_runs() -> None:
    common = {"part": "real", "recipe": "cpu", "epochs": "12", "dataset": "cifar10", "noise": "none", "method": "ce"}
    rows = [
        {**common, "seed": "0", "minutes": "14.5", "last": "0.9", "best": "0.92", "memorised": ""},
        {**common, "seed": "1", "minutes": "", "last": "0.92", "best": "0.92", "memorised": ""},
        {**common, "noise": "pair:0.4", "minutes": "", "last": "0.8", "best": "0.8", "memorised": "0.125"},
    ]
    assert recipes.table(rows)[2:] == [
        "| real | cpu | 12 | cifar10 | none | ce | 2 | 14.5 | 91.00 ± 1.41 | 92.00 | - |",
        "| real | cpu | 12 | cifar10 | pair:0.4 | ce | 1 | - | 80.00 | 80.00 | 12.5 |",
    ]
