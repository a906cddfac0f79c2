"""The benchmark of the losses in miniature, its record, and the picture drawn from it."""

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import _manual
import numpy as np
import pytest
import torch

from fastnoise.data import load_dataset
from fastnoise.errors import CheckpointError, ConfigError, DataError, FastnoiseError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import checkpoints, host, lite, losses, plot_losses, processes, record, start  # noqa: E402

sys.path.remove(str(ROOT))


@pytest.fixture
def threads() -> Iterator[None]:
    """The benchmark sets the process to one thread on a CPU."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = torch.get_num_threads()
    output = tmp_path_factory.mktemp("benchmark") / "losses.csv"
    losses.main(
        [
            "--losses",
            "elr",
            "--sizes",
            "8x3",
            "--modes",
            "both",
            "forward",
            "--seconds",
            "0.05",
            "--output",
            str(output),
        ]
    )
    torch.set_num_threads(before)
    return output


@pytest.mark.usefixtures("threads")
def test_host_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the second run's rows take the first one's places
        host.main(["--sizes", "8x3", "--seconds", "0.01", "--output", str(tmp_path / "host.csv")])
    rows = {row["side"]: row for row in record.read(tmp_path / "host.csv")}
    assert set(rows) == {"cross_entropy", "authors", *host.LOSSES}
    middle = {name: float(row["us_p50"]) for name, row in rows.items()}
    for name, row in rows.items():
        assert float(row["of_cross_entropy"]) == pytest.approx(middle[name] / middle["cross_entropy"], abs=0.01)
        assert float(row["authors_of_it"]) == pytest.approx(middle["authors"] / middle[name], abs=0.01)
    assert f"(8,3) elr: {rows['elr']['us_p50']} us" in capsys.readouterr().out


def test_rows_are_complete(recorded: Path) -> None:
    rows = record.read(recorded)
    on_gpu = torch.cuda.is_available()
    sides = {"reference", "reference_compiled", "authors_list", "authors", "authors_compiled", "fused"}
    for mode in ("both", "forward"):
        found = [row for row in rows if row["mode"] == mode and row["graph"] == "no"]
        assert {row["side"] for row in found} == sides
        assert len(found) == len(sides)
    assert {row["graph"] for row in rows} == ({"yes", "no"} if on_gpu else {"no"})
    for row in rows:
        assert 0 < float(row["us_p20"]) <= float(row["us_p50"]) <= float(row["us_p80"])
        assert int(row["samples"]) >= 5
        assert float(row["gb_s"]) == pytest.approx(
            int(row["counted_bytes"]) / float(row["us_p50"]) / 1e3, rel=0.05, abs=2e-3
        )
        assert float(row["copy_share"]) == pytest.approx(
            float(row["gb_s"]) / float(row["copy_gb_s"]), rel=0.05, abs=2e-4
        )
        assert torch.__version__.startswith(row["torch"])
        assert (row["gpu"] != "none") == on_gpu
        assert row["machine"]
        assert row["triton"]
        assert row["date"]


def test_counted_bytes() -> None:
    """(128, 100) in bf16: 12 bytes an element and 20 a row for ELR, 8 and 16 for none of a target table's share."""
    assert losses.counted_bytes("elr", "both", 128, 100, 2) == 128 * (100 * 12 + 20)
    assert losses.counted_bytes("elr", "both", 128, 100, 4) == 128 * (100 * 16 + 20)
    assert losses.counted_bytes("nal", "both", 128, 100, 2) == 128 * (100 * 12 + 24)
    assert losses.counted_bytes("ce", "both", 128, 100, 2) == 128 * (100 * 4 + 12)
    assert losses.counted_bytes("elr", "forward", 128, 100, 2) == 128 * (100 * 10 + 20)
    assert losses.counted_bytes("elr", "backward", 128, 100, 2) == 128 * (100 * 4 + 4)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_side_computes_the_same_loss(loss: str) -> None:
    """Over three steps, table and all. NAL's authors clamp a fresh table that needs no clamp, so all agree."""
    sides = losses.sides_of(loss, 40, 5, torch.device("cpu"))
    inputs = losses.make_inputs(3, 8, 5, 40, torch.float32, torch.device("cpu"))
    for batch in inputs:
        expected, *others = (
            (name, value := side(*batch), losses.gradients(value, batch, loss == "nal"))
            for name, side in sides.items()
            if not name.endswith("compiled")
        )
        for name, value, gradients in others:
            torch.testing.assert_close(value, expected[1], msg=lambda text, name=name: f"{name}: {text}")
            torch.testing.assert_close(gradients, expected[2], msg=lambda text, name=name: f"{name}: {text}")


def test_a_key_decides_what_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    first = [{"side": "a", "us": "1"}, {"side": "b", "us": "2"}]
    record.append(path, first, ("side",))
    record.append(path, [{"side": "a", "us": "3"}, {"side": "c", "us": "4"}], ("side",))
    assert record.read(path) == [first[1], {"side": "a", "us": "3"}, {"side": "c", "us": "4"}]
    record.append(path, [{"side": "a", "us": "5"}])
    assert [row["us"] for row in record.read(path)] == ["2", "3", "4", "5"]
    with pytest.raises(DataError, match="has the columns side, us, the new rows side, ns"):
        record.append(path, [{"side": "a", "ns": "5"}])


def test_measuring_again_replaces(recorded: Path, threads: None) -> None:
    before = record.read(recorded)
    losses.main(
        ["--losses", "elr", "--sizes", "8x3", "--modes", "forward", "--seconds", "0.01", "--output", str(recorded)]
    )
    after = record.read(recorded)
    assert len(after) == len(before)
    assert {tuple(row[name] for name in losses.KEY) for row in after} == {
        tuple(row[name] for name in losses.KEY) for row in before
    }


def test_says_that_there_is_no_gpu(tmp_path: Path, threads: None, capsys: pytest.CaptureFixture[str]) -> None:
    losses.main(
        ["--losses", "ce", "--sizes", "8x3", "--modes", "forward", "--seconds", "0.01", "--output", str(tmp_path / "x")]
    )
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        "GPU: " if torch.cuda.is_available() else "No GPU: this measures the CPU path on one thread"
    )


def test_picture(recorded: Path, tmp_path: Path) -> None:
    words = ["--input", str(recorded), "--output", str(tmp_path / "losses.png")]
    if find_spec("matplotlib") is None:
        with pytest.raises(FastnoiseError, match=r"drawing needs matplotlib: pip install 'fastnoise\[plot\]'"):
            plot_losses.main(words)
        return
    plot_losses.main(words)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="holds no row of that device"):
        plot_losses.main([*words, "--mode", "backward"])


def test_start_of_a_run_on_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides of benchmarks.start begin to train, and the row says how much longer files take."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["start", "--files", "400", "--rounds", "1", "--output", "start.csv"])
    start.main()
    (row,) = record.read(tmp_path / "start.csv")
    more = float(row["files_seconds"]) - float(row["array_seconds"])
    assert float(row["more_seconds_median"]) == pytest.approx(more, abs=0.011)
    assert float(row["first_seconds"]) > 0
    assert row["files"] == "400"
    assert capsys.readouterr().out.startswith("400 files: first start ")


def test_checkpoints_of_a_small_table(tmp_path: Path) -> None:
    trained = checkpoints.run(str(tmp_path / "run"), 600, 3, resume=False)
    assert 0 < trained["median_step_seconds"] <= trained["longest_gap_seconds"]
    gone_on = checkpoints.run(str(tmp_path / "run"), 600, 3, resume=True)
    assert gone_on["load_seconds"] > 0
    assert gone_on["tables"] > 0


def test_two_processes_are_measured_on_an_idle_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (2.0, 2.0, 2.0))
    with pytest.raises(SystemExit):
        processes.main([])
    assert "the machine is busy (load 2.0)" in capsys.readouterr().err
    found = {1: iter((900.0, 1000.0)), 2: iter((1500.0, 1400.0))}
    monkeypatch.setattr(processes, "measure", lambda count, *rest: (next(found[count]), 0.25 * (count - 1)))
    words = ["--busy", "--rounds", "2", "--output", str(tmp_path / "processes.csv")]
    processes.main(words)
    assert "two processes: 1.50 times the images/s of one" in capsys.readouterr().out
    rows = record.read(tmp_path / "processes.csv")
    assert [(row["processes"], row["images_per_second"], row["collectives"]) for row in rows] == [
        ("1", "1000", "0.0000"),
        ("2", "1500", "0.2500"),
    ]


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_weights_of_the_package_get_timms_names() -> None:
    ours = lite.timm_network().state_dict()
    theirs = {f"block_{place}.{name.rpartition('.')[2]}": tensor for place, (name, tensor) in enumerate(ours.items())}
    assert len(theirs) == 296
    found = lite.renamed(theirs)
    assert list(found) == list(ours)
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())
    first = next(iter(theirs))
    with pytest.raises(CheckpointError, match=f"{first} .* stands in the place of conv_stem.weight"):
        lite.renamed({**theirs, first: torch.zeros(1)})
    with pytest.raises(CheckpointError, match="1 tensors, and tf_efficientnet_lite0 has 296"):
        lite.renamed({first: theirs[first]})


def test_what_networks_of_right_labels_miss_stands_beside_the_recorded_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanlab")
    from benchmarks import clean

    monkeypatch.setattr(clean, "RESULTS", tmp_path / "clean.csv")
    options = argparse.Namespace(data_root="data", seed=0, keep=tmp_path, words=["--epochs", "2", "--width", "0.25"])
    course = clean.chosen("ce", "digits", "none", options)
    assert course == "width=0.25 epochs=2"
    known = [
        dict(zip(clean.KEY, (f"digits {noise}", course, course, "0", "5", "2"), strict=True)) for noise in clean.MADE
    ]
    record.append(clean.RESULTS, [{**row, "cleanlab_ce_missed": "0.5"} for row in known[:2]])
    with pytest.raises(
        ConfigError, match=r"has no row of digits idn:0\.2, (width=0\.25 epochs=2, ){2}0, 5, 2; measure it first"
    ):
        clean.ceilings("digits", options)
    record.append(clean.RESULTS, [{**known[2], "cleanlab_ce_missed": "0.5"}])
    rows = clean.ceilings("digits", options)
    assert [row["setting"] for row in rows] == ["digits symmetric:0.2", "digits pair:0.2", "digits idn:0.2"]
    truth = load_dataset("digits", tmp_path).train.labels
    right = clean.train_folds("ce", "digits", "none", options)
    assert np.array_equal(right.judged.given, truth)
    for row in rows:
        assert float(row["right"]) == pytest.approx((right.out_of_fold.argmax(1) == truth).mean(), abs=1e-4)
        assert 0 < float(row["missed"]) < 0.8, "less than by chance"
        assert float(row["ratio"]) == pytest.approx(float(row["missed"]) / 0.5, abs=2e-4)


def test_wrong_labels_found_are_the_recorded_ones_and_more_than_cleanlab_finds() -> None:
    from benchmarks import clean, record

    asked = [noise for noise in (*clean.MADE, *clean.HUMAN) if noise != "human:aggre"]  # of shorter courses alone
    options = argparse.Namespace(data_root="data", seed=0, words=[], noises=asked)
    noises = {study: clean.noises_of(study, options) for study in clean.STUDIES}
    rows = [row for study, asked in noises.items() for row in clean.recorded(study, asked, options)]
    assert "\n".join(clean.table(rows)) in _manual.pages()["clean.md"]
    rows += [row for row in record.read(clean.RESULTS) if row["setting"] == "cifar10n human:aggre"]
    assert len(rows) == 12
    names = ("missed", "cleanlab_ce_missed", "cleanlab_same_missed", "estimated_rate", "rate", "rate_low", "rate_high")
    figures = [{name: float(row[name]) for name in (*names, "calibration")} for row in rows]
    for row in figures:
        assert row["missed"] < row["cleanlab_ce_missed"]
        assert row["missed"] < row["cleanlab_same_missed"]
    assert sum(row["missed"] <= 0.75 * row["cleanlab_ce_missed"] for row in figures) >= 8
    made = figures[:7]
    assert all(row["calibration"] <= 0.05 for row in made)
    assert all(abs(row["estimated_rate"] - row["rate"]) <= 0.02 for row in made)
    assert sum(row["rate_low"] <= row["rate"] <= row["rate_high"] for row in made) >= 6
