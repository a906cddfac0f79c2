"""The commands corrupt and inspect, label files, and the auditor behind them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _noise_cases import refused
from scipy.stats import kstest

from fastnoise.cli import main
from fastnoise.errors import ConfigError, DataError
from fastnoise.noise import NoisyLabels, corrupt
from fastnoise.noise.audit import audit, instance_dependence, sequential_transition
from fastnoise.noise.files import read_labels, write_csv
from fastnoise.noise.maps import CLASS_MAPS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def balanced(count: int = 50_000, num_classes: int = 10) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(count) % num_classes)


# Label files


def test_label_files_of_every_kind(tmp_path: Path):
    labels = np.array([3, 0, 2, 2])
    np.save(tmp_path / "a.npy", labels.astype(np.uint8))
    np.savez(tmp_path / "one.npz", only=labels)
    np.savez(tmp_path / "two.npz", x=labels, y=labels + 1)
    (tmp_path / "a.txt").write_text("3\n0\n 2\n2\n\n")
    (tmp_path / "plain.csv").write_text("3\n0\n2\n2\n")
    (tmp_path / "named.csv").write_text("\ufefffile,label,worker\na.png,3,1\nb.png,0,1\nc.png,2,7\nd.png,2,7\n")
    for source in ("a.npy", "one.npz", "two.npz:x", "a.txt", "plain.csv", "named.csv", "named.csv:label"):
        read = read_labels(str(tmp_path / source))
        assert isinstance(read, np.ndarray)
        assert read.dtype == np.int64
        assert read.tolist() == [3, 0, 2, 2], source
    assert np.array_equal(read_labels(str(tmp_path / "named.csv:worker")), [1, 1, 7, 7])
    assert np.array_equal(read_labels(str(tmp_path / "two.npz:y")), labels + 1)


def test_own_files_come_back(tmp_path: Path):
    noisy = corrupt(balanced(500), "symmetric:0.4", seed=1, num_classes=10)
    noisy.save(tmp_path / "a.npz")
    write_csv(noisy, tmp_path / "a.csv")
    read = read_labels(str(tmp_path / "a.npz"))
    assert isinstance(read, NoisyLabels)
    assert read.describe() == noisy.describe()
    assert np.array_equal(read_labels(str(tmp_path / "a.csv")), noisy.labels)
    assert np.array_equal(read_labels(str(tmp_path / "a.csv:clean_label")), noisy.clean_labels)
    assert np.array_equal(read_labels(str(tmp_path / "a.csv:index")), np.arange(500))
    assert np.array_equal(read_labels(str(tmp_path / "a.npz:clean_labels")), noisy.clean_labels)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.txt", b"1\nx\n2", ["line 2 holds 'x' instead of an integer"]),
        ("a.txt", b"1\n\n2", ["line 2 holds ''"]),
        ("a.txt", b"", ["need integers [N]"]),
        ("a.txt", b"\xff\xfe1", ["not a file of labels"]),
        ("a.txt", b"9223372036854775808", ["a label is out of range"]),
        ("a.csv", b"", ["empty"]),
        ("a.csv", b"label\n1\n1.5\n", ["line 3 holds '1.5'"]),
        ("a.csv", b"label\n", ["a line of column names and no other"]),
        ("a.csv", b"1,2\n3,4\n", ["its 2 columns have no names"]),
        ("a.csv", b"id,lables\n1,2\n", ["no column 'label'", "did you mean 'lables'?"]),
        ("a.csv", b"id,label\n1,2\n3\n", ["line 3 has 1 field"]),
        ("a.npy", b"abc", ["not a file of labels"]),
        ("a.npz", b"abc", ["not a file of labels"]),
        ("a.yaml", b"[1]", ["unknown kind of label file", ".npy, .npz, .csv, .tsv, .json, .pt, .txt"]),
    ],
)
def test_unreadable_label_files_are_refused(tmp_path: Path, name: str, content: bytes, parts: list[str]):
    (tmp_path / name).write_bytes(content)
    with refused(DataError, str(tmp_path / name), *parts):
        read_labels(str(tmp_path / name))


def test_arrays_that_are_no_labels_are_refused(tmp_path: Path):
    np.savez(tmp_path / "two.npz", x=np.arange(3), y=np.zeros((2, 2)))
    np.savez(tmp_path / "broken.npz", **{"a\nb": np.arange(3), "y": np.arange(3)})
    for source, part in (
        ("two.npz", "name one of its arrays"),
        ("two.npz:z", "valid: x, y"),
        ("broken.npz", "valid: a b, y"),
        ("two.npz:y", "float64 [2, 2]"),
        ("missing.npy", "can't read labels: No such file"),
    ):
        with refused(DataError, part):
            read_labels(str(tmp_path / source))


# The auditor: which convention


@pytest.mark.parametrize(
    ("spec", "num_classes"),
    [
        ("symmetric:0.4", 10),
        ("symmetric:0.4", 100),
        ("symmetric:0.2,quota=class", 10),
        ("symmetric:0.2,quota=class", 100),
        ("pair:0.45", 10),
        ("pair:0.45,quota=class", 10),
        ("asymmetric:0.4,map=cifar10", 10),
        ("asymmetric:0.4,map=cifar10,quota=class", 10),
        ("asymmetric:0.4,map=cifar10,sequential=true", 10),
        ("asymmetric:0.3,map=mnist", 10),
        ("asymmetric:0.3,map=block5", 100),
        ("asymmetric:0.3,map=block5,sequential=true", 100),
        ("asymmetric:0.3,map=superclass", 100),
        ("asymmetric:0.3,map=sce", 100),
        ("heterogeneous:0.8,clean=3", 10),
        ("heterogeneous:0.8,clean=3,strategy=2", 10),
        ("heterogeneous:0.5,clean=0-49,strategy=2", 100),
    ],
)
def test_the_convention_is_recognised(spec: str, num_classes: int):
    noisy = corrupt(balanced(num_classes=num_classes), spec, seed=3, num_classes=num_classes)
    found = audit(noisy.clean_labels, noisy.labels, num_classes=num_classes)
    best = found.fits[0]
    nearly = [fit.spec for fit in found.fits if best.evidence - fit.evidence < 3]
    assert spec in nearly
    if "symmetric" not in spec.split(":")[0].removeprefix("a"):
        assert nearly == [spec]  # no other convention is left


def test_included_and_excluded_true_class_differ_in_the_rate_alone():
    """A rate of 40 % that draws the true class too is 36 % without: no count tells them apart, and both are named."""
    noisy = corrupt(balanced(), "symmetric:0.4,true_class=included,quota=global", seed=3, num_classes=10)
    found = audit(noisy.clean_labels, noisy.labels, num_classes=10, nominal="symmetric:0.4")
    nearly = [fit.spec for fit in found.fits if found.fits[0].evidence - fit.evidence < 3]
    assert {"symmetric:0.36", "symmetric:0.4,true_class=included"} <= set(nearly)
    assert len(found.warnings) == 1
    assert found.rate == pytest.approx(0.36, abs=0.01)
    assert f"the nominal rate of symmetric:0.4 is 40.00 %, but {100 * found.rate:.2f} %" in found.warnings[0]
    assert "symmetric:0.4,true_class=included explains that" in found.warnings[0]


def test_human_labels_fit_no_named_convention():
    if not (SHARED / "cifar_n_labels.npz").is_file():
        pytest.skip("the labels of CIFAR-10N and CIFAR-100N aren't here")
    with np.load(SHARED / "cifar_n_labels.npz") as file:
        found = audit(file["cifar10_clean_label"], file["cifar10_worse_label"], num_classes=10)
        fine = audit(file["cifar100_clean_label"], file["cifar100_noisy_label"], num_classes=100, dataset="cifar100n")
    assert found.fits[0].spec.startswith("matrix")
    assert 100 * found.rate == pytest.approx(40.21, abs=0.005)
    assert any("no named convention" in warning for warning in found.warnings)
    assert fine.superclass_share == pytest.approx(0.343, abs=5e-4)  # of CIFAR-100N's errors


def test_superclass_leakage():
    clean = balanced(num_classes=100)
    shares = {}
    for name in ("block5", "superclass"):
        noisy = corrupt(clean, f"asymmetric:0.4,map={name}", seed=1, num_classes=100)
        found = audit(clean, noisy.labels, num_classes=100, dataset="cifar100")
        shares[name] = found.superclass_share
        leaks = any("is not superclass noise" in warning for warning in found.warnings)
        assert leaks == (name == "block5")
    assert shares["superclass"] == 1
    assert shares["block5"] == pytest.approx(0.06, abs=0.01)
    assert audit(clean, noisy.labels, num_classes=100, dataset="folder:x").superclass_share is None
    uniform = corrupt(clean, "symmetric:0.4", seed=1, num_classes=100)
    found = audit(clean, uniform.labels, num_classes=100)
    assert found.superclass_share == pytest.approx(4 / 99, abs=0.01)
    assert found.warnings == ()


def test_rates_and_concentration():
    clean = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    given = np.array([0, 1, 1, 2, 1, 1, 1, 0])
    found = audit(clean, given, num_classes=4)
    assert found.rate == 5 / 8
    assert found.class_rates[:3].tolist() == [0.75, 0.0, 1.0]
    assert np.isnan(found.class_rates[3])
    assert found.concentration == (2 + 0 + 1) / 5
    assert found.commonest == (1, 3 / 5)
    assert found.transition[0].tolist() == [1, 2, 1, 0]
    assert any("60.0 % of all wrong labels name class 1" in warning for warning in found.warnings)


def test_equal_labels_are_no_noise():
    found = audit(balanced(), balanced(), num_classes=10)
    assert [fit.spec for fit in found.fits] == ["none"]
    assert (found.rate, found.concentration, found.commonest, found.warnings) == (0.0, None, None, ())


@pytest.mark.parametrize(
    ("made", "nominal", "parts"),
    [
        ("asymmetric:0.4,map=cifar10", "asymmetric:0.4,map=cifar10", ["40.00 %, but 19.98 %", "5 of 10 classes"]),
        (
            "asymmetric:0.4,map=cifar10,sequential=true",
            "asymmetric:0.4,map=cifar10,sequential=true",
            ["but 18.", "labels already changed change again"],
        ),
        ("heterogeneous:0.8,clean=3", "heterogeneous:0.8,clean=3", ["80.00 %, but 7", "the clean classes keep"]),
        ("pair:0.4", "none", ["said to be clean, but 4"]),
        ("pair:0.4", "symmetric:0.4", ["do not follow symmetric:0.4", "best explanation: pair:0.4"]),
        (
            "asymmetric:0.4,map=cifar10,sequential=true",
            "asymmetric:0.4,map=cifar10",
            ["do not follow asymmetric:0.4,map=cifar10", "sequential=true"],
        ),
        ("symmetric:0.4", "symmetric:0.4,quota=class", ["do not follow symmetric:0.4,quota=class", "impossible"]),
    ],
)
def test_nominal_specs_are_checked(made: str, nominal: str, parts: list[str]):
    noisy = corrupt(balanced(), made, seed=4, num_classes=10)
    found = audit(noisy.clean_labels, noisy.labels, num_classes=10, nominal=nominal)
    text = "; ".join(found.warnings)
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    "spec", ["symmetric:0.4", "pair:0.4", "symmetric:0.4,quota=global", "symmetric:0.4,quota=class"]
)
def test_honest_labels_bring_no_warning(spec: str):
    noisy = corrupt(balanced(), spec, seed=4, num_classes=10)
    assert audit(noisy.clean_labels, noisy.labels, num_classes=10, nominal=spec).warnings == ()


@pytest.mark.parametrize(
    ("spec", "num_classes"),
    [
        ("symmetric:0.125,quota=class", 10),
        ("symmetric:0.125,quota=global", 10),
        ("symmetric:0.125,true_class=included,quota=global", 10),
        ("asymmetric:0.375,map=cifar10,quota=class", 10),
        ("pair:0.125,quota=class", 10),
        ("symmetric:0", 10),
        ("pair:0", 10),
        ("heterogeneous:0,clean=3", 10),
        ("heterogeneous:0.02,clean=3", 100),  # leaves some corrupted classes without a wrong label
        ("heterogeneous:0.01,clean=0-49,strategy=2", 100),
        ("asymmetric:0.4,map=cycle100,sequential=true", 100),
        ("asymmetric:0.4,map=cycle100", 100),
    ],
)
def test_honest_labels_follow_their_convention(spec: str, num_classes: int):
    clean = balanced(5_000, num_classes)
    for kept in (clean, clean[clean != 3]):  # a class may have no samples
        noisy = corrupt(kept, spec, seed=4, num_classes=num_classes)
        said = "; ".join(audit(kept, noisy.labels, num_classes=num_classes, nominal=noisy.spec).warnings)
        assert "do not follow" not in said


def test_clean_classes_that_are_not_clean_contradict_their_spec():
    noisy = corrupt(balanced(), "heterogeneous:0.5,clean=3", seed=4, num_classes=10)
    for clean in ("2", "10-11"):
        nominal = f"heterogeneous:0.5,clean={clean}"
        said = "; ".join(audit(noisy.clean_labels, noisy.labels, num_classes=10, nominal=nominal).warnings)
        assert f"do not follow {nominal}, at any rate: that is impossible; best explanation: heterogeneous:0.5" in said


def test_the_whole_cycle_may_be_sequential_too():
    noisy = corrupt(balanced(num_classes=100), "asymmetric:0.4,map=cycle100,sequential=true", seed=3, num_classes=100)
    fits = audit(noisy.clean_labels, noisy.labels, num_classes=100).fits
    assert fits[0].spec == "asymmetric:0.4,map=cycle100,sequential=true"


def test_sequential_transition_is_that_of_the_model():
    for name in ("cifar10", "mnist", "block5"):
        targets = CLASS_MAPS[name]
        clean = np.arange(1_000_000) % len(targets)
        noisy = corrupt(clean, f"asymmetric:0.4,map={name},sequential=true", seed=2, num_classes=len(targets))
        shares = noisy.transition / noisy.transition.sum(1, keepdims=True)
        assert np.abs(shares - sequential_transition(targets, 0.4)).max() < 0.03


def test_audit_refuses():
    with refused(DataError, "5 clean and 6 given labels"):
        audit(np.zeros(5, int), np.zeros(6, int), num_classes=2)
    with refused(DataError, "given: position 1 holds 3"):
        audit([0, 1], [0, 3], num_classes=3)
    with refused(DataError, "2 to 1000 classes"):
        audit([0, 1], [0, 1], num_classes=1001)
    with refused(DataError, "inputs: 3 inputs for 2 samples"):
        audit([0, 1], [0, 1], num_classes=2, inputs=np.zeros((3, 2)))
    with refused(ConfigError, "unknown noise"):
        audit([0, 1], [0, 1], num_classes=2, nominal="sym:0.4")


# The auditor: instance dependence


def inputs_of(labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(6)
    return (rng.normal(120, 30, (len(labels), 8, 8, 3)) + 5 * labels[:, None, None, None]).clip(0, 255).astype(np.uint8)


def test_p_values_are_uniform_without_instance_dependence():
    labels = balanced(3000)
    images = inputs_of(labels)
    values = []
    for seed in range(60):
        noisy = corrupt(labels, "symmetric:0.4", seed=seed, num_classes=10)
        test = instance_dependence(noisy.clean_labels, noisy.labels, images)
        assert test is not None
        values.append(test.p_value)
    assert kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("spec", ["idn:0.4,inputs=raw", "idn:0.4,inputs=centred", "idn:0.4,variant=shared"])
def test_instance_dependence_is_found(spec: str):
    labels = balanced(10_000)
    images = inputs_of(labels)
    noisy = corrupt(labels, spec, seed=1, num_classes=10, inputs=images)
    found = audit(labels, noisy.labels, num_classes=10, inputs=images)
    assert found.instance is not None
    assert found.instance.p_value < 1e-6
    assert any("instance-dependent" in warning for warning in found.warnings)


def test_nothing_to_test():
    labels = balanced(1000)
    assert instance_dependence(labels, labels, inputs_of(labels)) is None


# The commands


def test_corrupt_writes_every_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="a PNG needs matplotlib, the extra plot")
    files = [str(tmp_path / f"noisy.{ending}") for ending in ("npz", "csv", "npy", "png")]
    assert main(["corrupt", "--dataset", "digits", "--noise", "symmetric:0.4", "--seed", "3", "--out", *files]) == 0
    said = capsys.readouterr().out
    noisy = NoisyLabels.load(files[0])
    assert noisy.describe() in said
    assert f"sha256 {noisy.sha256}" in said
    assert noisy.seed == 3
    assert np.array_equal(np.load(files[2]), noisy.labels)
    assert np.array_equal(read_labels(files[1]), noisy.labels)
    assert Path(files[3]).read_bytes().startswith(b"\x89PNG")


def test_corrupt_takes_label_files_and_their_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels = balanced(500, 5)
    np.savetxt(tmp_path / "clean.txt", labels, fmt="%d")
    np.save(tmp_path / "inputs.npy", inputs_of(labels))
    np.save(tmp_path / "probs.npy", np.full((500, 5), 0.2))
    source, out = ["--labels", str(tmp_path / "clean.txt")], ["--out", str(tmp_path / "noisy.npz")]
    assert main(["corrupt", *source, *out, "--noise", "idn:0.4", "--inputs", str(tmp_path / "inputs.npy")]) == 0
    noisy = NoisyLabels.load(tmp_path / "noisy.npz")
    expected = corrupt(labels, "idn:0.4", seed=0, num_classes=5, inputs=inputs_of(labels))
    assert noisy.sha256 == expected.sha256
    score = ["--noise", "idn:0.4,variant=score", "--posteriors", str(tmp_path / "probs.npy")]
    assert main(["corrupt", *source, *out, *score]) == 0
    assert NoisyLabels.load(tmp_path / "noisy.npz").flipped.sum() == 200
    assert main(["corrupt", *source, *out, "--noise", "symmetric:1", "--num-classes", "50"]) == 0
    assert NoisyLabels.load(tmp_path / "noisy.npz").labels.max() > 40
    assert "written" in capsys.readouterr().out


def test_corrupt_takes_classes_of_any_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "clean.txt").write_text("0\n2000000000\n")
    out = str(tmp_path / "noisy.npz")
    assert main(["corrupt", "--labels", str(tmp_path / "clean.txt"), "--noise", "symmetric:1", "--out", out]) == 0
    assert "rates by class" not in capsys.readouterr().out
    assert NoisyLabels.load(out).num_classes == 2_000_000_001


def test_corrupt_gives_a_data_sets_images_to_idn(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "noisy.npz")
    assert main(["corrupt", "--dataset", "digits", "--noise", "idn:0.4,inputs=centred", "--out", out]) == 0
    assert main(["inspect", out, "--dataset", "digits"]) == 0
    said = capsys.readouterr().out
    assert "said to be idn:0.4,inputs=centred" in said
    assert "instance dependence: chi-square" in said


def test_inspect_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noisy = corrupt(balanced(), "asymmetric:0.4,map=cifar10,sequential=true", seed=1, num_classes=10)
    noisy.save(tmp_path / "noisy.npz")
    write_csv(noisy, tmp_path / "noisy.csv")
    clean, given = f"{tmp_path / 'noisy.csv'}:clean_label", str(tmp_path / "noisy.csv")
    assert main(["inspect", str(tmp_path / "noisy.npz")]) == 0
    alone = capsys.readouterr().out
    assert main(["inspect", clean, given, "--nominal", "asymmetric:0.4,map=cifar10"]) == 0
    said = capsys.readouterr().out
    for text in (alone, said):
        assert f"rate: {100 * noisy.realised_rate:.2f} %" in text
        assert "best explanation: asymmetric:0.4,map=cifar10,sequential=true" in text
        assert f"{noisy.transition[3, 5]}" in text
        assert "not tested; give --dataset" in text
    assert "warning: the nominal rate of asymmetric:0.4,map=cifar10,sequential=true is 40.00 %" in alone
    assert "warning: these labels do not follow asymmetric:0.4,map=cifar10, at any rate" in said


def test_inspect_prints_the_commonest_of_many_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noisy = corrupt(balanced(num_classes=100), "asymmetric:0.4,map=block5", seed=1, num_classes=100)
    noisy.save(tmp_path / "noisy.npz")
    assert main(["inspect", str(tmp_path / "noisy.npz")]) == 0
    said = capsys.readouterr().out
    assert "commonest confusions (true->given count): " in said
    assert "superclasses of CIFAR-100: " in said
    assert "map=block5 is not superclass noise" in said
    assert len(said.splitlines()) < 20


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["corrupt"], ["give --noise SPEC and --out FILE"]),
        (["corrupt", "--noise", "pair:0.4", "--out", "a.npz"], ["give either --dataset NAME or --labels FILE"]),
        (
            ["corrupt", "--noise", "pair:0.4", "--out", "a.pdf"],
            ["unknown ending '.pdf'; valid: .npz, .csv, .npy, .png"],
        ),
        (["corrupt", "--noise", "pair:0.4", "--out", "no/a.npz"], ["no/a.npz: no such folder"]),
        (["corrupt", "--dataset", "digits", "--noise", "par:0.4", "--out", "a.npz"], ["did you mean 'pair'?"]),
        (["corrupt", "--dataset", "digit", "--noise", "pair:0.4", "--out", "a.npz"], ["did you mean 'digits'?"]),
        (["corrupt", "--labels", "no.npy", "--noise", "pair:0.4", "--out", "a.npz"], ["no.npy: can't read labels"]),
        (
            ["corrupt", "--dataset", "digits", "--num-classes", "3", "--noise", "none", "--out", "a.npz"],
            ["--num-classes is for label files"],
        ),
        (
            ["corrupt", "--dataset", "digits", "--noise", "pmd:0.3", "--out", "a.npz"],
            ["needs the posteriors", "give posteriors=FILE.npy"],
        ),
        (
            ["corrupt", "--dataset", "digits", "--noise", "none", "--posteriors", "p.npy", "--out", "a.npz"],
            ["--posteriors: can't read 'p.npy': No such file"],
        ),
        (
            ["corrupt", "--labels", "plain.txt", "--noise", "idn:0.3", "--posteriors", "three.npy", "--out", "a.npz"],
            ["--posteriors: noise idn:0.3 takes no posteriors, as pmd:R and idn:R,variant=score do; drop it"],
        ),
        *(
            (
                ["corrupt", "--labels", "plain.txt", "--noise", noise, "--inputs", "three.npy", "--out", "a.npz"],
                [f"--inputs: noise {noise} takes no inputs, as idn:R and your own functions can; drop it"],
            )
            for noise in ("symmetric:0.4", "pmd:0.4", "idn:0.3,variant=score", "mine.py:flip")
        ),
        (
            ["corrupt", "--dataset", "digits", "--noise", "none", "--out", "a.npz", "--sed", "3"],
            ["did you mean '--seed'"],
        ),
        (
            ["corrupt", "--labels", "huge.txt", "--noise", "symmetric:0.4", "--out", "a.npz", "a.png"],
            ["--out a.png: a heat map has room for 1000 classes, but these labels have 2000000001"],
        ),
        (["inspect"], ["give one or two label files"]),
        (["inspect", "a.npy"], ["a.npy: can't read labels"]),
        (["inspect", "plain.txt"], ["holds no true labels; give a second file, or --dataset NAME"]),
        (["inspect", "plain.txt", "short.txt"], ["3 clean and 2 given labels"]),
        (["inspect", "plain.txt", "--dataset", "digits"], ["3 labels for a training set of 1438 images, by row"]),
        (["inspect", "plain.txt", "plain.txt", "--nominal", "sym"], ["unknown noise 'sym'"]),
        (["inspect", "plain.txt", "plain.txt", "plain.txt"], ["unexpected argument 'plain.txt'"]),
    ],
)
def test_commands_refuse_in_one_line(
    words: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.txt").write_text("0\n1\n2\n")
    (tmp_path / "short.txt").write_text("0\n1\n")
    (tmp_path / "huge.txt").write_text("0\n2000000000\n")
    (tmp_path / "mine.py").write_text("def flip(labels, num_classes):\n    return (labels + 1) % num_classes\n")
    np.save(tmp_path / "three.npy", np.full((3, 3), 1 / 3))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastnoise: error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error, error
    assert not (tmp_path / "a.npz").exists()


def test_a_png_without_matplotlib_is_refused_before_any_work(tmp_path: Path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fastnoise.cli import main\n"
        "sys.exit(main(['corrupt', '--dataset', 'digits', '--noise', 'pair:0.4', '--out', 'a.npz', 'a.png']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "fastnoise: error: a PNG needs matplotlib: pip install 'fastnoise[plot]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["corrupt", "inspect"])
def test_help_lists_the_options(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    said = capsys.readouterr().out
    for flag in ("--dataset", "--data-root", "--num-classes", "--out" if command == "corrupt" else "--nominal"):
        assert flag in said
