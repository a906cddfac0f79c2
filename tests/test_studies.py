"""Studies: folders that go on, refusals, trainings as jobs, tables, figures, and what they need of the engine."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _set_cases import write_mnist
from rich.console import Console

from fastnoise.commands import study
from fastnoise.config import RunConfig
from fastnoise.data.rotated import rotate
from fastnoise.engine import Interrupted
from fastnoise.engine.folder import RunFolder
from fastnoise.engine.prepare import load_data
from fastnoise.errors import CheckpointError, ConfigError, DataError, TrainingError
from fastnoise.models import MODELS, create_model
from fastnoise.models.names import DROPOUT_FORMS
from fastnoise.noise import corrupt_regression
from fastnoise.studies import STUDIES, base, load_study, multiclass, regression
from fastnoise.studies.base import StudyFolder, StudyOptions
from fastnoise.sweeps import SweepResult
from fastnoise.tasks.classification import ClassEvaluation
from fastnoise.words import parsed

pytestmark = pytest.mark.usefixtures("forked_servers")

TRAIN, TEST = 600, 200


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small set in MNIST's form: each class a bright block in a place of its own."""
    return write_mnist(tmp_path_factory.mktemp("data"), TRAIN, TEST)


def console(tmp_path: Path) -> Console:
    return Console(file=(tmp_path / "said.txt").open("a"), width=200)


def said(tmp_path: Path) -> str:
    return (tmp_path / "said.txt").read_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# -- what studies share ----------------------------------------------------------------------------------------


def test_unknown_study_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown study 'multiclas'; did you mean 'multiclass'\? valid: multiclass,"):
        study.options_type("multiclas")
    assert all(name in study.HELP for name in STUDIES)


@pytest.mark.parametrize("name", ["multiclass", "regression"])
def test_options_are_read_from_words(name: str) -> None:
    options = parsed(study.options_type(name), ["--quick", "--jobs", "2", "--epochs", "3"], f"fastnoise study {name}")
    assert isinstance(options, load_study(name).Options)
    assert (options.quick, options.jobs, options.epochs) == (True, 2, 3)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("multiclass", {"jobs": -1}, "--jobs must be 0 or more, not -1"),
        ("multiclass", {"seed": -1}, "--seed must lie in"),
        ("multiclass", {"rates": (0.5, 1.5)}, r"--rates must lie in \[0, 1\], not 1.5"),
        ("multiclass", {"clean": (10,)}, "--clean must name classes from 0 to 9, not 10"),
        ("multiclass", {"strategies": (3,)}, "--strategies must be 1, 2 or both, not 3"),
        ("multiclass", {"strategies": ()}, "--strategies must be 1, 2 or both, not none"),
        ("multiclass", {"stack": 0}, "--stack must be at least 1, not 0"),
        ("regression", {"limit": 200.0}, r"--limit must lie in \(0, 180\] degrees, not 200.0"),
        ("regression", {"low": 30.0, "high": 20.0}, "--low 30.0 --high 20.0: give a rising range within"),
        ("regression", {"low": -60.0}, "--low -60.0 --high 60.0 covers all angles"),
        ("regression", {"sigmas": (-1.0,)}, "--sigmas must be 0 or more degrees, not -1.0"),
        ("regression", {"repeats": 0}, "--repeats must be at least 1, not 0"),
    ],
)
def test_bad_options_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(name).Options(**given)


def test_folder_goes_on_with_its_own_study_alone(tmp_path: Path) -> None:
    options = StudyOptions(out=str(tmp_path / "out"))
    settings = {"dataset": "mnist", "rates": (0.0, 0.5)}
    folder = StudyFolder.open("multiclass", options, settings)
    (folder.path / "jobs").mkdir()
    again = StudyFolder.open("multiclass", options, settings)
    assert again.path == folder.path
    with pytest.raises(ConfigError, match=r"holds a study with rates \[0.0, 0.5\], not \[0.0\]; choose another"):
        StudyFolder.open("multiclass", options, {"dataset": "mnist", "rates": [0.0]})
    with pytest.raises(ConfigError, match="holds the study multiclass; choose another"):
        StudyFolder.open("regression", options, settings)
    folder.finish({"holds": True}, "it holds")
    stored = json.loads((folder.path / "study.json").read_text())
    assert stored == {
        "study": "multiclass",
        "settings": {"dataset": "mnist", "rates": [0.0, 0.5]},
        "finding": {"holds": True},
        "text": "it holds",
    }
    StudyFolder.open("multiclass", options, settings)


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty and holds no study"):
        StudyFolder.open("multiclass", StudyOptions(out=str(tmp_path)), {})
    with pytest.raises(CheckpointError, match="cannot make the folder"):
        StudyFolder.open("multiclass", StudyOptions(out=str(tmp_path / "notes.txt" / "in")), {})
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"study.json is damaged .* remove it"):
        StudyFolder.open("multiclass", StudyOptions(out=str(tmp_path)), {})


def test_default_folder_is_named_after_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder.open("multilabel", StudyOptions(quick=True), {"dataset": "coco:/a b"})
    assert folder.path == Path("studies/multilabel-coco--a-b-quick")
    assert StudyFolder.open("multiclass", StudyOptions(), {"dataset": "mnist"}).path == Path("studies/multiclass-mnist")


def test_mean_and_standard_deviation() -> None:
    assert base.mean_sd([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3)))
    assert base.mean_sd([5.0]) == (5.0, 0.0)


def test_table_and_figure(tmp_path: Path) -> None:
    base.write_table(
        tmp_path / "t.csv", [{"p": 0.5, "name": "a,b", "none": math.nan}, {"p": 1, "name": "c", "none": 2}]
    )
    assert rows(tmp_path / "t.csv") == [{"p": "0.5", "name": "a,b", "none": ""}, {"p": "1", "name": "c", "none": "2"}]
    figure, axes = base.new_figure(columns=2, title="both")
    base.draw_line(axes[0], [0, 1], [2, 3], [1, 1], label="clean", role="clean")
    base.draw_line(axes[1], [0, 1], [2, 3], label="base", role="baseline")
    assert (len(axes[0].collections), len(axes[1].collections)) == (1, 0)  # the band
    assert [tuple(line.get_ydata()) for part in axes for line in part.lines] == [(2, 3), (2, 3)]
    base.save_figure(figure, tmp_path / "f.png")
    assert is_png(tmp_path / "f.png")


def test_failed_trainings_and_signals_end_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = StudyOptions(out=str(tmp_path / "out"))
    folder = StudyFolder.open("multiclass", options, {})
    result = SweepResult([], folder.path, failed={"abc": "no such thing", "def": "neither"})
    monkeypatch.setattr("fastnoise.sweeps.run_sweep", lambda *_, **__: result)
    with pytest.raises(TrainingError, match=r"2 of 3 trainings failed, the first in .*abc: no such thing; repeat"):
        base.run_jobs(folder, [None] * 3, options, console(tmp_path))  # type: ignore[list-item]

    def stopped(*_: object) -> None:
        raise Interrupted("stopped with 2 of 3 jobs left", 15)

    monkeypatch.setattr(multiclass, "run", stopped)
    assert study.run("multiclass", options) == 143
    assert capsys.readouterr().err == "fastnoise: stopped with 2 of 3 jobs left\n"


def test_time_of_a_step_is_that_of_one_thread() -> None:
    threads, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        seconds = base.time_steps(lambda: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}
    assert len(seen) == 33
    assert 0 < seconds < 0.1


# -- noise in all classes but one ------------------------------------------------------------------------------


def test_jobs_of_the_paper() -> None:
    """160 settings in the paper; without noise they are one and the same run."""
    config = multiclass._base(multiclass.Options())
    assert (config.model.model, config.data.batch_size, config.optim.epochs) == ("lenet5", 128, 14)
    assert (config.model.dropout, config.data.val_fraction, config.noise.noise) == (0.5, 0.1, "none")
    cifar = multiclass._base(multiclass.Options(dataset="cifar10"))
    assert (cifar.model.model, cifar.data.batch_size, cifar.optim.epochs) == ("resnet18", 256, 200)
    jobs = multiclass._jobs(config, list(multiclass.RATES), list(range(10)), [1, 2])
    assert len(jobs) == 1 + 2 * 10 * 7
    noises = {job.fields["noise"] for job in jobs}
    assert len(noises) == len(jobs)
    assert {"none", "heterogeneous:1,clean=9,strategy=2", "heterogeneous:0.95,clean=0,strategy=1"} <= noises
    # 54,000 training images in 422 batches; 16,000 evaluated after each epoch, 54,000 at the end.
    assert base.steps_of(config, 60_000, 10_000) == pytest.approx(14 * 422 + (14 * 16_000 + 54_000) / 3 / 128)


def test_multiclass_goes_from_data_to_figure_and_goes_on(mnist: Path, tmp_path: Path) -> None:
    options = multiclass.Options(
        quick=True, out=str(tmp_path / "out"), data_root=str(mnist), rates=(0.98,), clean=(3,), strategies=(1, 2),
        epochs=6, limit_train=500,
    )  # fmt: skip
    out = multiclass.run(options, console(tmp_path))
    assert "3 trainings, 0 done" in said(tmp_path)
    assert "the finding needs probabilities up to 0.95 and 0.98: not measured" in said(tmp_path)
    found = rows(out / "classes.csv")
    assert [(row["strategy"], row["clean"], row["rate"]) for row in found] == [
        ("1", "3", "0"), ("1", "3", "0.98"), ("2", "3", "0"), ("2", "3", "0.98"),
    ]  # fmt: skip
    assert found[0]["run"] == found[2]["run"]
    for row in found:
        folder = RunFolder(out / "jobs" / row["run"])
        summary = json.loads(folder.summary.read_text())
        classes = summary["test_class_accuracy"]
        assert np.mean(classes) == pytest.approx(summary["test_accuracy"]["last"])  # classes of one size
        assert float(row["clean_accuracy"]) == pytest.approx(classes[3])
        assert float(row["corrupted_accuracy"]) == pytest.approx(np.mean(classes[:3] + classes[4:]), rel=1e-5)
        assert folder.read_config().model.dropout == 0.5
    assert float(found[0]["corrupted_accuracy"]) > 0.5 > float(found[1]["corrupted_accuracy"])
    points = rows(out / "figure.csv")
    assert [(point["strategy"], point["rate"]) for point in points] == [
        ("1", "0"),
        ("1", "0.98"),
        ("2", "0"),
        ("2", "0.98"),
    ]
    assert points[3]["clean_accuracy"] == found[3]["clean_accuracy"]
    assert is_png(out / "figure.png")

    first = (out / "figure.csv").read_bytes()
    shutil.rmtree(out / "jobs" / found[1]["run"])  # as if killed before this training
    (out / "figure.csv").unlink()
    multiclass.run(options, console(tmp_path))
    assert "3 trainings, 2 done" in said(tmp_path)
    assert (out / "figure.csv").read_bytes() == first


def row(strategy: int, clean: int, rate: float, clean_accuracy: float, corrupted_accuracy: float) -> dict[str, Any]:
    return {
        "strategy": strategy, "clean": clean, "rate": rate,
        "clean_accuracy": clean_accuracy, "corrupted_accuracy": corrupted_accuracy,
    }  # fmt: skip


def test_finding_is_that_of_the_worst_class() -> None:
    table = [
        row(1, 3, 0.0, 0.98, 0.96), row(1, 3, 0.9, 0.96, 0.9), row(1, 3, 0.95, 0.97, 0.8), row(1, 3, 0.98, 0.5, 0.1),
        row(2, 5, 0.0, 0.99, 0.97), row(2, 5, 0.9, 0.99, 0.9), row(2, 5, 0.95, 0.98, 0.9), row(2, 5, 0.98, 0.9, 0.70),
    ]  # fmt: skip
    finding, text = multiclass._finding(table)
    assert finding["clean_largest_loss"] == pytest.approx(0.02)
    assert finding["clean_largest_loss_at"] == {"strategy": 1, "clean": 3, "rate": 0.9}
    assert finding["corrupted_least_loss"] == pytest.approx(0.27)
    assert finding["corrupted_least_loss_at"] == {"strategy": 2, "clean": 5, "rate": 0.98}
    assert finding["holds"] is True
    assert "no clean class loses more than 2.00 points (class 3, strategy 1, p = 0.9)" in text
    assert text.endswith("the paper's finding holds")
    for change in ({"rate": 0.95, "clean_accuracy": 0.90}, {"rate": 0.98, "corrupted_accuracy": 0.80}):
        worse = [old | change if (old["strategy"], old["rate"]) == (2, change["rate"]) else old for old in table]
        finding, text = multiclass._finding(worse)
        assert finding["holds"] is False
        assert "does not hold here (within 3, more than 20)" in text


def test_missing_data_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    for module in (multiclass, regression):
        options = module.Options(out=str(tmp_path / module.__name__), data_root=str(tmp_path), download=False)
        with pytest.raises(DataError, match="mnist"):
            module.run(options, console(tmp_path))
        assert not (tmp_path / module.__name__ / "jobs").exists()


@pytest.mark.parametrize("module", [multiclass, regression])
@pytest.mark.parametrize("limit", [0, TRAIN + 1])
def test_more_images_than_there_are_are_refused(mnist: Path, tmp_path: Path, module: Any, limit: int) -> None:
    options = module.Options(out=str(tmp_path / "out"), data_root=str(mnist), limit_train=limit)
    with pytest.raises(ConfigError, match=rf"--limit-train must lie in \[1, {TRAIN}\], the training images of mnist"):
        module.run(options, console(tmp_path))


# -- noise in a range of targets -------------------------------------------------------------------------------


def test_rotation_is_counterclockwise_about_the_centre() -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    turned = rotate(images, np.array([0.0, 90.0, 180.0, -90.0, 270.0, 360.0]))
    for image, result, quarters in zip(images, turned, (0, 1, 2, -1, 3, 0), strict=True):
        assert np.array_equal(result, np.rot90(image, quarters))
    # Anything else is bilinear: of a smooth image, close to scipy's.
    from scipy import ndimage

    image = np.zeros((28, 28))
    image[6:20, 10:14] = 255
    image = ndimage.gaussian_filter(image, 2).round().astype(np.uint8)
    result = rotate(image[None, :, :, None], np.array([30.0]))[0, :, :, 0]
    other = ndimage.rotate(image.astype(float), 30.0, reshape=False, order=1)
    assert np.abs(result - other).max() < 1.0


def test_rotation_does_not_depend_on_the_batch() -> None:
    images = np.random.default_rng(2).integers(0, 256, (1003, 28, 28, 1), dtype=np.uint8)
    degrees = np.linspace(-60, 60, 1003)
    assert np.array_equal(rotate(images, degrees)[1001:], rotate(images[1001:], degrees[1001:]))


def test_noise_bias_is_that_of_the_noise() -> None:
    assert regression.noise_bias(0, 0, 60) == 0
    assert regression.noise_bias(0.01, 0, 60) < 1e-4
    assert regression.noise_bias(1e5, 0, 60) == pytest.approx(60**2 / 12, rel=1e-3)  # all angles to the middle
    sigma, low, high = 25.0, -10.0, 40.0
    angles = np.repeat(np.linspace(low + 0.25, high - 0.25, 100), 2000)
    noisy = corrupt_regression(angles, sigma, seed=5, low=low, high=high).reshape(100, 2000)
    measured = np.mean((noisy.mean(1) - angles[::2000]) ** 2)
    # 2000 draws with a standard deviation below 50 / sqrt(12) add their sampling variance.
    assert measured == pytest.approx(regression.noise_bias(sigma, low, high), abs=1.0)


def test_regression_goes_from_data_to_figure(mnist: Path, tmp_path: Path) -> None:
    options = regression.Options(
        quick=True, out=str(tmp_path / "out"), data_root=str(mnist), sigmas=(200.0,), repeats=1, epochs=25,
        limit_train=600,
    )  # fmt: skip
    out = regression.run(options, console(tmp_path))
    assert "2 trainings, 0 done" in said(tmp_path)
    assert "from no noise to sigma = 200 degrees on targets in [0, 60]" in said(tmp_path)
    points = {float(point["sigma"]): point for point in rows(out / "figure.csv")}
    assert points.keys() == {0.0, 200.0}
    assert float(points[0.0]["noise_bias"]) == 0
    assert float(points[200.0]["noise_bias"]) == pytest.approx(regression.noise_bias(200, 0, 60), rel=1e-5)
    finding = json.loads((out / "study.json").read_text())["finding"]
    angles = rows(out / "angles.csv")
    far = [float(row["mse"]) for row in angles if row["sigma"] == "200" and float(row["angle_to"]) <= -20]
    assert finding["mse_far_after"] == pytest.approx(np.mean(far), rel=1e-4)
    assert len(far) == 8  # of 5 degrees each, from -60 to -20
    before, after = (float(points[sigma]["mse_inside"]) for sigma in (0.0, 200.0))
    assert before < 600  # angles were learned: their variance is 120^2 / 12 = 1200
    assert after > before
    assert len(angles) == 2 * regression.BINS
    assert (float(angles[0]["angle_from"]), float(angles[-1]["angle_to"])) == (-60, 60)
    assert is_png(out / "figure.png")
    trainings = rows(out / "trainings.csv")
    assert [(training["sigma"], training["seed"]) for training in trainings] == [("0", "0"), ("200", "0")]


def test_the_study_of_angles_has_noise_inside_alone(mnist: Path, tmp_path: Path) -> None:
    options = regression.Options(data_root=str(mnist), low=0.0, high=60.0)
    config = regression._base(options, {"epochs": 1, "limit_train": 256})
    data = load_data(config.replace({"noise": regression._noise(30.0, options), "noise_seed": 3}))
    assert data.clean is not None
    inside = (data.clean >= 0)[:, 0]
    assert np.array_equal(data.given[~inside], data.clean[~inside])
    assert (data.given[inside] != data.clean[inside]).all()
    assert ((data.given[inside] >= 0) & (data.given[inside] <= 60)).all()
    assert (data.clean.min(), data.clean.max()) == pytest.approx((-60, 60), abs=2)
    assert regression._noise(0.0, options) == "none"


# -- what studies need of the engine ---------------------------------------------------------------------------


def test_dropout_of_lenet5_leaves_weights_and_their_names_alone() -> None:
    networks = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        networks.append(create_model("lenet5", num_classes=10, channels=1, image_size=(28, 28), dropout=dropout))
    plain, dropping = networks
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, dropping.state_dict()[name]), name
    assert not any(isinstance(module, torch.nn.Dropout) for module in plain.modules())
    images = torch.randn(4, 1, 28, 28)
    assert torch.equal(plain.eval()(images).logits, dropping.eval()(images).logits)
    dropping.train()
    features = dropping.backbone(images.repeat(500, 1, 1, 1))
    plain_features = plain.backbone(images)
    zeros = (features == 0).float().reshape(500, 4, -1).mean(0)[plain_features > 0.05]
    assert zeros.mean() == pytest.approx(0.5, abs=0.1)  # half of what is not zero anyway
    assert not torch.equal(dropping(images).logits, dropping(images).logits)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"lenet5", "mlp", "vgg19_bn", *DROPOUT_FORMS}))
def test_networks_without_dropout_refuse_it(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--dropout 0.5: {name} has no dropout; drop the option"):
        create_model(name, num_classes=10, image_size=(32, 32), width=0.25, dropout=0.5)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, math.nan])
def test_dropout_is_a_probability_below_one(dropout: float) -> None:
    with pytest.raises(ConfigError, match=r"--dropout must lie in \[0, 1\)"):
        RunConfig().replace({"dropout": dropout})


def test_run_from_before_dropout_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(RunConfig().replace({"method": "ce", "noise": "none"}))
    text = folder.config.read_text()
    folder.config.write_text("".join(line for line in text.splitlines(True) if not line.startswith("dropout")))
    config = folder.read_config()
    assert config.model.dropout == 0.0
    assert config == RunConfig().replace({"method": "ce", "noise": "none"})


def test_accuracy_by_class() -> None:
    answers = ClassEvaluation(np.array([0, 1, 1, 0, 3]), None, 0.0, math.nan)
    assert answers.class_accuracy(np.array([0, 0, 1, 1, 3]), 5) == [0.5, 0.5, None, 1.0, None]
