"""fastnoise.noise: the grammar, the noise models' distributions, determinism, refusals, and files."""

import dataclasses
import errno
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _noise_cases import core_number, core_uniform, cyclic, refused, result_or_refusal
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from fastnoise import _C, noise
from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.noise import CLASS_MAPS, NoiseSpec, NoisyLabels, corrupt, parse
from fastnoise.noise.maps import CIFAR100_COARSE

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
MORE_MODELS = (
    "symmetric:0.4,quota=class",
    "pair:0.4,quota=global",
    "symmetric:0.4,classes=0-3",
    "asymmetric:0.4,map=cifar10,sequential=true",
    "heterogeneous:0.4,clean=1",
    "heterogeneous:0.4,clean=1,strategy=2",
    "matrix:no.npy",
    "idn:0.4",
    "pmd:0.4",
)
MODELS = ("symmetric:0.4", "symmetric:0.4,true_class=included", "asymmetric:0.4,map=cifar10", "pair:0.45")


# The grammar


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        ("symmetric:0.4", "symmetric:0.4"),
        (" symmetric : .40 ", "symmetric:0.4"),
        ("symmetric:1", "symmetric:1.0"),
        ("symmetric:-0.0", "symmetric:0.0"),
        ("symmetric:4e-1,true_class=excluded", "symmetric:0.4"),
        ("symmetric:0.4, true_class = included", "symmetric:0.4,true_class=included"),
        ("asymmetric:0.4", "asymmetric:0.4"),
        ("asymmetric:0.4,map=superclass", "asymmetric:0.4,map=superclass"),
        ("pair:0.45", "pair:0.45"),
        ("human:worse", "human:worse"),
    ],
)
def test_canonical_text(text: str, canonical: str):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_parsed_fields():
    assert parse("symmetric:0.4,true_class=included") == NoiseSpec("symmetric", rate=0.4, true_class="included")
    assert parse("asymmetric:0.3,map=block5") == NoiseSpec("asymmetric", rate=0.3, map="block5")
    assert parse("human:worse") == NoiseSpec("human", name="worse")
    assert parse("none") == NoiseSpec("none")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "symetric:0.4",
            [
                "unknown noise 'symetric'",
                "did you mean 'symmetric'?",
                "valid: FILE.py:NAME, asymmetric, gaussian, heterogeneous",
            ],
        ),
        ("", ["unknown noise ''", "valid:"]),
        ("sym\nmetric:0.4", ["unknown noise 'sym\\nmetric'", "'symmetric'"]),
        ("symmetric", ["needs a rate", "'symmetric:0.4'"]),
        ("symmetric:", ["nothing follows the colon"]),
        ("symmetric:40%", ["'40%' is not a rate", "[0, 1]"]),
        ("symmetric:0.4:0.5", ["'0.4:0.5' is not a rate"]),
        ("symmetric:nan", ["must be a number in [0, 1], got nan"]),
        ("symmetric:inf", ["rate inf is outside [0, 1]"]),
        ("symmetric:-0.1", ["rate -0.1 is outside [0, 1]"]),
        ("symmetric:40", ["rate 40.0 is outside [0, 1]", "write 0.4 for 40 %"]),
        ("symmetric:0.4,true_clas=included", ["no option 'true_clas'", "did you mean 'true_class'?"]),
        ("symmetric:0.4,map=cifar10", ["no option 'map'", "valid: classes, quota, true_class"]),
        ("symmetric:0.4,true_class=include", ["unknown true_class 'include'", "did you mean 'included'?"]),
        ("symmetric:0.4,true_class", ["'true_class' needs a value", "excluded, included"]),
        ("symmetric:0.4,true_class=", ["'true_class' needs a value"]),
        ("symmetric:0.4,true_class=included,true_class=excluded", ["given twice"]),
        ("symmetric:0.4,", ["no option ''"]),
        ("asymmetric:0.4,map=block", ["unknown map 'block'", "did you mean 'block5'?", "superclass"]),
        ("pair:0.4,map=block5", ["no option 'map'", "valid: quota"]),
        ("human:worse,map=block5", ["no option 'map'", "it takes none"]),
        ("none:0.4", ["takes nothing after a colon, got '0.4'"]),
        ("human", ["needs a name", "'human:worse'"]),
        ("human:", ["nothing follows the colon"]),
    ],
)
def test_parse_refuses(text: str, parts: list[str]):
    with refused(ConfigError, *parts):
        parse(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "symmetric"},
        {"kind": "symmetric", "rate": "0.4"},
        {"kind": "symmetric", "rate": 1.5},
        {"kind": "symmetric", "rate": 0.4, "name": "worse"},
        {"kind": "symmetric", "rate": 0.4, "map": "cifar10"},
        {"kind": "none", "rate": 0.4},
        {"kind": "human", "name": ""},
        {"kind": "human", "name": "a,b"},
        {"kind": "human", "name": "a\nb"},
        {"kind": "human", "name": " a"},
        {"kind": "other"},
    ],
)
def test_spec_refuses_what_no_text_says(fields: dict[str, Any]):
    with refused(ConfigError):
        NoiseSpec(**fields)


def test_parse_refuses_other_types():
    with refused(ConfigError, "got float"):
        parse(0.4)  # type: ignore[arg-type]


@given(
    st.text(max_size=60)
    | st.from_regex(
        r"\A(none|symmetric|asymmetric|pair|human|matrix|heterogeneous|idn|pmd)(:[^,]{0,8})?(,[a-z_]*=?\w*){0,3}"
    )
    | st.from_regex(r"\A(symmetric:0.4,classes|heterogeneous:0.4,clean)=[0-9+-]{1,12}\Z")
)
@example("human:a\nb")
def test_parse_any_text(text: str):
    spec = result_or_refusal(lambda: parse(text))
    assert spec is None or (parse(str(spec)) == spec and "\n" not in str(spec))


# Class maps


def test_map_of_mnist_and_cifar10():
    assert CLASS_MAPS["mnist"] == (0, 1, 7, 8, 4, 6, 5, 1, 8, 9)
    assert CLASS_MAPS["cifar10"] == (0, 1, 0, 5, 7, 3, 6, 7, 8, 1)


def test_maps_of_cifar100():
    block5, superclass = CLASS_MAPS["block5"], CLASS_MAPS["superclass"]
    assert block5[:6] == (1, 2, 3, 4, 0, 6)
    assert block5[95:] == (96, 97, 98, 99, 95)
    # Aquatic mammals: beaver 4, dolphin 30, otter 55, seal 72, whale 95
    assert [superclass[label] for label in (4, 30, 55, 72, 95)] == [30, 55, 72, 95, 4]
    for class_map in (block5, superclass):
        assert sorted(class_map) == list(range(100))
        for start in range(100):
            cycle = list(itertools.islice(iterate(class_map, start), 6))
            assert len(set(cycle)) == 5
            assert cycle[5] == start
    assert all(CIFAR100_COARSE[label] == CIFAR100_COARSE[target] for label, target in enumerate(superclass))
    assert sum(CIFAR100_COARSE[label] == CIFAR100_COARSE[target] for label, target in enumerate(block5)) == 6


def iterate(class_map: tuple[int, ...], label: int) -> Iterator[int]:
    while True:
        yield label
        label = class_map[label]


def test_superclasses_are_those_of_the_data_set(tmp_path: Path):
    if not (SHARED / "unpack.py").is_file():
        pytest.skip("the packed CIFAR-100 files aren't here")
    pytest.importorskip("pillow_jxl", reason="needs pillow-jxl-plugin to unpack CIFAR-100")
    subprocess.run([sys.executable, SHARED / "unpack.py", tmp_path, "cifar100"], check=True, capture_output=True)
    batch = pickle.loads((tmp_path / "cifar-100-python" / "train").read_bytes(), encoding="latin1")
    assert {*zip(batch["fine_labels"], batch["coarse_labels"], strict=True)} == {*enumerate(CIFAR100_COARSE)}


# What comes out


def reference(labels: list[int], num_classes: int, rate: float, seed: int, true_class: str) -> list[int]:
    """Symmetric noise in plain integers, straight from the description in csrc/core/draws.hpp; no fast path."""

    choices = num_classes - (true_class == "excluded")
    bits = 16 if choices <= 1024 else 32

    def products(sample: int) -> Iterator[int]:
        for attempt in itertools.count(step=bits // 16):
            number = core_number(seed, 1, sample, attempt)
            if bits == 32:
                number = number << 16 | core_number(seed, 1, sample, attempt + 1)
            yield number * choices

    noisy = []
    for sample, label in enumerate(labels):
        target = next(product >> bits for product in products(sample) if product % 2**bits >= 2**bits % choices)
        if true_class == "excluded" and target >= label:
            target += 1
        noisy.append(target if core_uniform(seed, sample) < int(rate * 2**48) else label)
    return noisy


@pytest.mark.parametrize("true_class", ["excluded", "included"])
@pytest.mark.parametrize("num_classes", [2, 10, 1023, 2**31 - 1])  # the last redraws half of its numbers
def test_equals_the_reference(num_classes: int, true_class: str):
    labels = np.random.default_rng(0).integers(0, num_classes, 500)
    seed = 0x0123456789ABCDEF
    noisy = corrupt(labels, f"symmetric:0.37,true_class={true_class}", seed=seed, num_classes=num_classes)
    assert noisy.labels.tolist() == reference(labels.tolist(), num_classes, 0.37, seed, true_class)


def test_known_answer():
    """The labels of a seed never change from release to release: published results rest on them."""
    noisy = corrupt(np.arange(1000) % 10, "symmetric:0.4", seed=1, num_classes=10)
    assert noisy.sha256 == "37ecab19e90b64da20e7846b584a6255cb635fd30edc35912f0a31b29a44695e"


def expected_transition(spec: NoiseSpec, num_classes: int) -> np.ndarray:
    rate, identity = spec.rate or 0.0, np.eye(num_classes)
    if spec.kind == "symmetric":
        share = 1 / num_classes if spec.true_class == "included" else (1 - identity) / (num_classes - 1)
        return (1 - rate) * identity + rate * share
    target = CLASS_MAPS[spec.map] if spec.map else np.roll(np.arange(num_classes), -1)
    return (1 - rate) * identity + rate * identity[list(target)]


@pytest.mark.parametrize(
    ("text", "num_classes"),
    [
        *((text, 10) for text in MODELS),
        ("asymmetric:0.3,map=mnist", 10),
        ("symmetric:0.6", 2),  # one other class only
        ("symmetric:0.2", 100),
        ("asymmetric:0.4,map=superclass", 100),
        ("asymmetric:0.4,map=block5", 100),
        ("pair:0.45", 100),
        ("symmetric:1.0,true_class=included", 7),
    ],
)
def test_transition_counts(text: str, num_classes: int):
    """Each row of the counts at N = 10^6 against the model's own probabilities. Seeded: it passes or fails for good."""
    spec = parse(text)
    noisy = corrupt(cyclic(1_000_000, num_classes), spec, seed=11, num_classes=num_classes)
    transition = expected_transition(spec, num_classes)
    assert np.allclose(transition.sum(1), 1)
    for counts, row in zip(noisy.transition, transition, strict=True):
        assert counts[row == 0].sum() == 0
        if (row > 0).sum() > 1:
            assert chisquare(counts[row > 0], counts.sum() * row[row > 0]).pvalue > 1e-5
    expected = 1 - transition.diagonal().mean()
    assert noisy.realised_rate == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / 1_000_000))


def test_draws_of_neighbours_and_purposes_are_independent():
    """Flips and targets of samples i and i + lag, at the lags of the layout (lane, word, group), are uncorrelated."""
    noisy = corrupt(cyclic(1_000_000), "symmetric:1.0,true_class=included", seed=4, num_classes=10)
    flipped = corrupt(cyclic(1_000_000), "pair:0.5", seed=4, num_classes=10).flipped
    series = {"target": noisy.labels - 4.5, "flip": flipped - 0.5}
    for (a, left), (b, right) in itertools.product(series.items(), repeat=2):
        for lag in (0, 1, 16, 48, 64, 65):
            if lag == 0 and a == b:
                continue
            correlation = np.mean(left[: len(left) - lag] * right[lag:]) / (left.std() * right.std())
            assert abs(correlation) < 5e-3, (a, b, lag)  # five standard deviations of 1 / sqrt(N)


@pytest.mark.parametrize("text", MODELS)
def test_threads_and_dtypes_do_not_matter(text: str):
    labels = np.random.default_rng(0).integers(0, 10, 500_003)
    expected = corrupt(labels, text, seed=3, num_classes=10, threads=1).labels.tobytes()
    for threads in (0, 2, 7):
        assert corrupt(labels, text, seed=3, num_classes=10, threads=threads).labels.tobytes() == expected
    for dtype in (*DTYPES, ">i4"):
        noisy = corrupt(labels.astype(dtype), text, seed=3, num_classes=10)
        assert noisy.labels.dtype == noisy.clean_labels.dtype == np.int64
        assert noisy.labels.tobytes() == expected
    twofold = np.repeat(labels, 2)
    assert corrupt(twofold[::2], text, seed=3, num_classes=10).labels.tobytes() == expected
    # The first labels alone get what they get in company.
    assert corrupt(labels[:101], text, seed=3, num_classes=10).labels.tobytes() == expected[: 101 * 8]


def test_labels_narrower_than_the_classes():
    noisy = corrupt(np.zeros(1000, np.uint8), "symmetric:1.0", seed=0, num_classes=1000)
    assert noisy.labels.max() > 900


def test_same_in_another_process():
    code = (
        "import numpy as np; from fastnoise.noise import corrupt;"
        "print(corrupt(np.arange(50000) % 10, 'symmetric:0.4', seed=7, num_classes=10).sha256)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == corrupt(cyclic(50_000), "symmetric:0.4", seed=7, num_classes=10).sha256


def test_other_seeds_draw_other_noise():
    seeds = (0, 1, 2**32, 2**32 + 1, 2**64 - 1)  # both halves of the seed count
    flips = [corrupt(cyclic(50_000), "symmetric:0.5", seed=seed, num_classes=10).flipped for seed in seeds]
    for one, other in itertools.combinations(flips, 2):
        assert abs(np.mean(one == other) - 0.5) < 5 * 0.5 / np.sqrt(50_000)


@pytest.mark.parametrize("text", MODELS)
def test_flipped_sets_nest(text: str):
    labels = cyclic(20_000)
    lower = labels
    for rate in (0.0, 0.05, 0.3, 0.300001, 0.8, 1.0):
        noisy = corrupt(labels, dataclasses.replace(parse(text), rate=rate), seed=5, num_classes=10).labels
        assert np.all((lower == labels) | (lower == noisy))
        lower = noisy


def test_edge_rates():
    labels = cyclic(100_000)
    for text in MODELS:
        assert not corrupt(labels, dataclasses.replace(parse(text), rate=0), seed=0, num_classes=10).flipped.any()
    assert corrupt(labels, "symmetric:1", seed=0, num_classes=10).flipped.all()
    assert np.array_equal(corrupt(labels, "pair:1", seed=0, num_classes=10).labels, (labels + 1) % 10)
    mapped = corrupt(labels, "asymmetric:1", seed=0, num_classes=10, dataset="cifar10").labels
    assert np.array_equal(mapped, np.array(CLASS_MAPS["cifar10"])[labels])


def test_none_and_callers_arrays_are_left_alone():
    labels = cyclic(100)
    noisy = corrupt(labels, "none", seed=0, num_classes=10)
    assert np.array_equal(noisy.labels, labels)
    assert (noisy.requested_rate, noisy.realised_rate) == (0.0, 0.0)
    noisy.labels[0] = 5
    assert labels[0] == noisy.clean_labels[0] == 0
    corrupt(labels, "symmetric:1", seed=0, num_classes=10)
    assert np.array_equal(labels, cyclic(100))


@pytest.mark.parametrize(
    ("dataset", "num_classes", "name"),
    [
        ("mnist", 10, "mnist"),
        ("cifar10", 10, "cifar10"),
        ("cifar10n", 10, "cifar10"),
        ("cifar100", 100, "block5"),
        ("cifar100n", 100, "block5"),
    ],
)
def test_asymmetric_takes_the_map_of_the_data_set(dataset: str, num_classes: int, name: str):
    labels = cyclic(5000, num_classes)
    noisy = corrupt(labels, "asymmetric:0.4", seed=0, num_classes=num_classes, dataset=dataset)
    named = corrupt(labels, f"asymmetric:0.4,map={name}", seed=0, num_classes=num_classes)
    assert noisy.spec == named.spec == f"asymmetric:0.4,map={name}"
    assert noisy.sha256 == named.sha256
    assert noisy.flipped.any()


def test_human_labels():
    human = {"aggre": cyclic(100), "worse": (cyclic(100) + (np.arange(100) < 40)).astype(np.uint8) % 10}
    noisy = corrupt(cyclic(100), "human:worse", seed=0, num_classes=10, dataset="cifar10n", human_labels=human)
    assert np.array_equal(noisy.labels, human["worse"])
    assert noisy.labels.dtype == np.int64
    assert noisy.requested_rate is None
    assert noisy.realised_rate == 0.4
    assert noisy.describe() == "human:worse: realised 40.00 % (40 of 100)"


def test_rates_of_the_published_human_labels():
    """CIFAR-10N and CIFAR-100N of Wei et al., "Learning with noisy labels revisited" (ICLR 2022)."""
    if not (SHARED / "cifar_n_labels.npz").is_file():
        pytest.skip("the labels of CIFAR-10N and CIFAR-100N aren't here")
    with np.load(SHARED / "cifar_n_labels.npz") as file:
        published = {"aggre_label": 9.01, "random_label1": 17.23, "random_label2": 18.12, "random_label3": 17.64}
        published["worse_label"] = 40.21
        human = {name: file[f"cifar10_{name}"] for name in published}
        clean, clean100 = file["cifar10_clean_label"], file["cifar100_clean_label"]
        human100 = {"noisy": file["cifar100_noisy_label"]}
    for name, rate in published.items():
        noisy = corrupt(clean, f"human:{name}", seed=0, num_classes=10, human_labels=human)
        assert 100 * noisy.realised_rate == pytest.approx(rate, abs=0.005)
    noisy = corrupt(clean100, "human:noisy", seed=0, num_classes=100, human_labels=human100)
    assert 100 * noisy.realised_rate == pytest.approx(40.20, abs=0.005)


def test_description():
    def described(spec: str) -> str:
        return corrupt(cyclic(10), spec, seed=3, num_classes=10, dataset="cifar10").describe()

    assert described("none") == "none: requested 0.00 %, realised 0.00 % (0 of 10)"
    assert described("symmetric:1") == (
        "symmetric:1.0 (true class excluded), seed 3: requested 100.00 %, realised 100.00 % (10 of 10)"
    )
    assert described("symmetric:0.4,true_class=included").startswith(
        "symmetric:0.4,true_class=included (true class included), seed 3: "
        "requested 40.00 % drawn anew, so 36.00 % changed, realised "
    )
    assert described("asymmetric:1") == (
        "asymmetric:1.0,map=cifar10 (5 of 10 classes change), seed 3: requested 100.00 %, realised 50.00 % (5 of 10)"
    )


def test_unknown_clean_labels():
    noisy = NoisyLabels(
        labels=cyclic(5), clean_labels=None, spec="file:given.npy", seed=None, num_classes=10, requested_rate=None
    )
    assert noisy.realised_rate is None
    assert noisy.describe() == "file:given.npy: realised rate unknown (5 labels)"
    for question in ("flipped", "transition"):
        with refused(DataError, "clean labels behind 'file:given.npy' are unknown"):
            getattr(noisy, question)


def test_transition_has_true_classes_in_rows():
    noisy = NoisyLabels(
        labels=np.array([1, 1, 2]),
        clean_labels=np.array([0, 1, 1]),
        spec="x",
        seed=0,
        num_classes=3,
        requested_rate=None,
    )
    assert noisy.transition.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert noisy.flipped.tolist() == [True, False, True]


# Refusals


@pytest.mark.parametrize(
    ("kind", "parts", "change"),
    [
        (ConfigError, ["unknown noise 'sym'"], {"spec": "sym:0.4"}),
        (ConfigError, ["a noise spec is a text", "got float"], {"spec": 0.4}),
        (
            ConfigError,
            ["without a data set", "map=NAME", "block5, cifar10, cycle100, mnist, sce, superclass"],
            {"spec": "asymmetric:0.4"},
        ),
        (ConfigError, ["data set 'digits' has no map"], {"spec": "asymmetric:0.4", "dataset": "digits"}),
        (ConfigError, ["data set 'folder:a\\nb'"], {"spec": "asymmetric:0.4", "dataset": "folder:a\nb"}),
        (ConfigError, ["'block5' is for 100 classes, the labels have 10"], {"spec": "asymmetric:0.4,map=block5"}),
        (ConfigError, ["'cifar10' is for 10 classes", "12"], {"spec": "asymmetric:0.4,map=cifar10", "num_classes": 12}),
        (ConfigError, ["num_classes must be in [2, 2147483647], got 1"], {"num_classes": 1}),
        (ConfigError, ["num_classes", "got 4294967296"], {"num_classes": 2**32}),
        (ConfigError, ["num_classes must be an integer, got 10.0"], {"num_classes": 10.0}),
        (ConfigError, ["the noise seed must be in [0, 18446744073709551615], got -1"], {"seed": -1}),
        (ConfigError, ["the noise seed", "18446744073709551616"], {"seed": 2**64}),
        (ConfigError, ["the noise seed must be an integer, got None"], {"seed": None}),
        (ConfigError, ["threads must be in", "got -1"], {"threads": -1}),
        (DataError, ["labels: must be 1-D", "(5, 2)"], {"labels": np.zeros((5, 2), int)}),
        (DataError, ["labels: must be 1-D", "shape ()"], {"labels": 3}),
        (DataError, ["labels: empty"], {"labels": np.zeros(0, int)}),
        (DataError, ["labels: must have an integer dtype, got float64"], {"labels": np.zeros(5)}),
        (DataError, ["labels: must have an integer dtype, got bool"], {"labels": np.zeros(5, bool)}),
        (DataError, ["labels: must have an integer dtype, got <U1"], {"labels": ["a"]}),
        (DataError, ["labels: not an array of numbers, got list"], {"labels": [[1], [2, 3]]}),
        (DataError, ["labels: position 2 holds 10, outside [0, 10)"], {"labels": [0, 9, 10, -1]}),
        (DataError, ["labels: position 0 holds -3, outside [0, 10)"], {"labels": np.array([-3, 11], np.int8)}),
        (DataError, ["position 1 holds 18446744073709551615"], {"labels": np.array([0, 2**64 - 1], np.uint64)}),
        (DataError, ["labels: position 1 holds 10"], {"labels": [0, 10], "spec": "none"}),
        (DataError, ["labels: position 1 holds 10"], {"labels": [0, 10], "spec": "asymmetric:0.4,map=mnist"}),
        (DataError, ["labels: position 1 holds 10"], {"labels": [0, 10], "spec": "pair:0.4"}),
        (DataError, ["labels: position 1 holds 10"], {"labels": [0, 10], "spec": "human:worse"}),
        (
            ConfigError,
            ["unknown human labels 'worst'", "did you mean 'worse'?", "valid: aggre"],
            {"spec": "human:worst"},
        ),
        (
            ConfigError,
            ["data set 'mnist' has no human"],
            {"spec": "human:worse", "human_labels": {}, "dataset": "mnist"},
        ),
        (ConfigError, ["the data set has no human labels"], {"spec": "human:worse", "human_labels": None}),
        (DataError, ["human labels 'short': 1 labels for 2 samples"], {"labels": [0, 1], "spec": "human:short"}),
        (DataError, ["human labels 'wrong': position 1 holds 10"], {"labels": [0, 1], "spec": "human:wrong"}),
        (DataError, ["human labels 'float': must have an integer"], {"labels": [0, 1], "spec": "human:float"}),
    ],
)
def test_corrupt_refuses(kind: type[FastnoiseError], parts: list[str], change: dict[str, Any]):
    human = {"aggre": [0, 1], "worse": [0, 1], "short": [0], "wrong": [0, 10], "float": [0.0, 1.0]}
    arguments = {"labels": cyclic(10), "spec": "symmetric:0.4", "seed": 0, "num_classes": 10, "human_labels": human}
    with refused(kind, *parts):
        corrupt(**{**arguments, **change})


@st.composite
def corrupt_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments that fit together; more often than not, one of them is then replaced by an odd one."""
    num_classes = draw(st.sampled_from([2, 10, 100, 2**31 - 1]))
    dtype = np.dtype(draw(st.sampled_from([*DTYPES, ">u2"])))
    labels = st.integers(0, min(num_classes - 1, np.iinfo(dtype).max))
    arguments = {
        "labels": draw(hnp.arrays(dtype, st.integers(1, 300), elements=labels)),
        "spec": draw(st.builds("{}:{}".format, st.sampled_from(["symmetric", "pair"]), st.floats(0, 1))),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "num_classes": num_classes,
        "threads": draw(st.integers(0, 3)),
    }
    odd: dict[str, st.SearchStrategy[Any]] = {
        "labels": st.one_of(
            hnp.arrays(
                st.sampled_from([*DTYPES, ">u2", "float32", "bool", "complex64", "S2", "U2", "O", "M8[s]"]),
                hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=130),
            ),
            st.lists(st.integers() | st.none() | st.text(), max_size=5),
        ),
        "spec": st.sampled_from([*MODELS, *MORE_MODELS, "none", "human:a", "asymmetric:0.5"])
        | st.text(max_size=8)
        | st.floats(),
        "seed": st.integers() | st.none(),
        "num_classes": st.integers() | st.floats(),
        "threads": st.integers(max_value=-1) | st.none(),
        "human_labels": st.dictionaries(st.text(max_size=2), st.lists(st.integers(0, 10), max_size=3), max_size=2),
        "dataset": st.sampled_from(["cifar10", "cifar100", "digits"]) | st.text(max_size=8),
    }
    for name in draw(st.lists(st.sampled_from(sorted(odd)), max_size=2)):
        arguments[name] = draw(odd[name])
    return arguments


@settings(deadline=None, max_examples=300)
@given(corrupt_arguments())
def test_corrupt_anything(arguments: dict[str, Any]):
    noisy = result_or_refusal(lambda: corrupt(**arguments))
    event("refused" if noisy is None else "corrupted")
    if noisy is not None:
        assert np.array_equal(noisy.clean_labels, arguments["labels"])
        assert noisy.labels.shape == noisy.clean_labels.shape
        assert noisy.labels.min() >= 0
        assert noisy.labels.max() < arguments["num_classes"]
        assert "\n" not in noisy.describe()


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ValueError, lambda labels: _C.check_labels(labels[::2], 10)),
        (ValueError, lambda labels: _C.check_labels(labels.reshape(5, 2), 10)),
        (ValueError, lambda labels: _C.check_labels(labels, 1)),
        (ValueError, lambda labels: _C.check_labels(labels, 2**31)),
        (ValueError, lambda labels: _C.check_labels(np.zeros(9, np.uint8)[1:].view("<u4"), 10)),  # unaligned
        (TypeError, lambda labels: _C.check_labels(labels.astype(float), 10)),
        (TypeError, lambda labels: _C.check_labels(labels.astype(">i8"), 10)),
        (TypeError, lambda labels: _C.check_labels(labels.astype(object), 10)),
        (_C.LabelError, lambda labels: _C.check_labels(labels, 5)),
        (ValueError, lambda labels: _C.corrupt_pair(labels, num_classes=10, rate=1.5, seed=0, threads=1)),
        (ValueError, lambda labels: _C.corrupt_pair(labels, num_classes=10, rate=float("nan"), seed=0, threads=1)),
        (TypeError, lambda labels: _C.corrupt_pair(labels, num_classes=10, rate=0.5, seed=-1, threads=1)),
        (TypeError, lambda labels: _C.corrupt_pair(labels, num_classes=10, rate=0.5, seed=0, threads=-1)),
        (ValueError, lambda labels: _C.corrupt_mapped(labels, class_map=[0] * 9 + [10], rate=0.5, seed=0, threads=1)),
        (ValueError, lambda labels: _C.corrupt_mapped(labels, class_map=[0] * 9 + [-1], rate=0.5, seed=0, threads=1)),
        (ValueError, lambda labels: _C.corrupt_mapped(labels, class_map=[], rate=0.5, seed=0, threads=1)),
    ],
)
def test_extension_refuses(error: type[Exception], call: Callable[[np.ndarray], object]):
    """The extension checks for itself whatever could make it read or write outside its arrays."""
    with pytest.raises(error):
        call(cyclic(10))


def test_memory_is_used_again_once_no_view_is_left():
    labels = np.zeros(100_000, np.int64)

    def corrupted(seed: int) -> np.ndarray:
        return _C.corrupt_pair(labels, num_classes=10, rate=0.5, seed=seed, threads=1)

    first, expected = corrupted(1), corrupted(1).copy()
    place, view = first.ctypes.data, first[3:]
    del first
    others = [corrupted(seed) for seed in range(2, 12)]
    assert np.array_equal(view, expected[3:])
    assert len({place, *(other.ctypes.data for other in others)}) == 11
    del view
    again = corrupted(1)
    assert again.ctypes.data == place
    again[:] = 7  # a result is the caller's own
    assert np.array_equal(corrupted(1), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(others[0])), others[0])


def test_other_python_threads_run_meanwhile():
    labels = np.zeros(10_000_000, np.uint8)
    for _ in range(5):  # a busy machine may not let the other thread run in time; the interpreter's lock never would
        span: list[float] = []

        def work(span: list[float] = span) -> None:
            span.append(time.perf_counter())
            _C.corrupt_symmetric(labels, num_classes=10, rate=0.4, include_true_class=False, seed=0, threads=1)
            span.append(time.perf_counter())

        worker = threading.Thread(target=work)
        worker.start()
        ticks = []
        while worker.is_alive():
            ticks.append(time.perf_counter())
        worker.join()
        begin, end = span
        if any(begin + (end - begin) / 4 < tick < end - (end - begin) / 4 for tick in ticks):
            return
    pytest.fail("no other thread ran during the call")


def test_simd_level():
    assert noise.simd_level() in ("generic", "avx2", "avx512")
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
        wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags)
        assert noise.simd_level() == ("avx512" if wide else "avx2" if "avx2" in flags else "generic")


# Files


@pytest.fixture
def noisy() -> NoisyLabels:
    return corrupt(cyclic(1000), "symmetric:0.4", seed=1, num_classes=10)


@pytest.mark.parametrize("text", [*MODELS, "none", "human:worse"])
def test_save_and_load(tmp_path: Path, text: str):
    human = {"worse": (cyclic(1000) + 1) % 10}
    noisy = corrupt(cyclic(1000), text, seed=2**64 - 1, num_classes=10, human_labels=human)
    noisy.save(tmp_path / "labels.npz")
    loaded = NoisyLabels.load(str(tmp_path / "labels.npz"))
    for field in dataclasses.fields(NoisyLabels):
        assert np.array_equal(getattr(loaded, field.name), getattr(noisy, field.name))
    assert loaded.labels.dtype == loaded.clean_labels.dtype == np.int64
    assert loaded.sha256 == noisy.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npz"]


def test_save_and_load_without_clean_labels(tmp_path: Path):
    noisy = NoisyLabels(
        labels=cyclic(50), clean_labels=None, spec="file:given.npy", seed=None, num_classes=10, requested_rate=None
    )
    noisy.save(tmp_path / "labels.npz")
    loaded = NoisyLabels.load(tmp_path / "labels.npz")
    assert loaded.clean_labels is None
    assert (loaded.spec, loaded.seed, loaded.requested_rate) == ("file:given.npy", None, None)
    assert loaded.sha256 == noisy.sha256


def test_failed_save_leaves_the_earlier_file(tmp_path: Path, noisy: NoisyLabels, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "labels.npz"
    noisy.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with refused(DataError, str(path), "No space left on device"):
        corrupt(cyclic(1000), "pair:0.4", seed=1, num_classes=10).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_where_there_is_no_folder(tmp_path: Path, noisy: NoisyLabels):
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        with refused(DataError, "cannot write"):
            noisy.save(tmp_path / folder / "labels.npz")


def test_load_refuses_damaged_files(tmp_path: Path, noisy: NoisyLabels):
    path = tmp_path / "labels.npz"
    noisy.save(path)
    content = path.read_bytes()
    for size in (0, 1, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with refused(DataError, str(path)):
            NoisyLabels.load(path)
    loaded = 0
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :])
        read = result_or_refusal(lambda: NoisyLabels.load(path))
        # Some bytes of a zip file mean nothing, such as a member's date; whatever is read is what was written.
        assert read is None or read.sha256 == noisy.sha256
        loaded += read is not None
    assert loaded < len(content) / 7 / 4


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the file was executed",)


@pytest.mark.parametrize("write", ["missing", "folder", "text", "pickle", "array", "other", "objects"])
def test_load_refuses_foreign_files(tmp_path: Path, write: str):
    path = tmp_path / "labels.npz"
    match write:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("index,label\n0,3\n")
        case "pickle":
            path.write_bytes(pickle.dumps(Trap()))
        case "array":
            with open(path, "wb") as file:
                np.save(file, np.arange(5))
        case "other":
            np.savez(path, noisy_labels=np.arange(5))
        case "objects":
            np.savez(path, labels=np.array([Trap()], dtype=object), metadata=np.array("{}"), sha256=np.array(""))
    with refused(DataError, str(path)):
        NoisyLabels.load(path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("its metadata", {"metadata": np.array("[]")}),
        ("JSONDecodeError", {"metadata": np.array("{")}),
        ("metadata isn't a text", {"metadata": np.array(3)}),
        ("its metadata", {"format": 2}),
        ("its metadata", {"labels": 1}),
        ("spec None is impossible", {"spec": None}),
        ("seed -1 is impossible", {"seed": -1}),
        ("seed 1.0 is impossible", {"seed": 1.0}),
        ("num_classes 1 is impossible", {"num_classes": 1}),
        ("requested_rate 0.5 is impossible", {"requested_rate": 0.5}),
        ("requested_rate nan is impossible", {"requested_rate": float("nan")}),
        ("pmd_factor 1.5 is impossible", {"pmd_factor": 1.5}),  # of symmetric noise
        ("pmd_factor 2 is impossible", {"pmd_factor": 2, "spec": "pmd:0.4"}),
        ("pmd_factor -1.0 is impossible", {"pmd_factor": -1.0, "spec": "pmd:0.4"}),
        ("doesn't match its SHA-256", {"seed": 2}),
        ("labels: empty, or outside [0, 5)", {"num_classes": 5}),
        ("labels: must be int64", {"labels_array": np.zeros(1000)}),
        ("labels: must be int64", {"labels_array": np.zeros((1000, 1), np.int64)}),
        ("clean labels: must be int64 [1000]", {"clean_labels_array": np.zeros(999, np.int64)}),
        ("clean labels: empty, or outside [-1, 10)", {"clean_labels_array": np.full(1000, -2)}),
        ("doesn't match its SHA-256", {"labels_array": np.zeros(1000, np.int64)}),
        ("doesn't match its SHA-256", {"clean_labels_array": np.zeros(1000, np.int64)}),
    ],
)
def test_load_refuses_altered_content(tmp_path: Path, noisy: NoisyLabels, part: str, change: dict[str, Any]):
    path = tmp_path / "labels.npz"
    noisy.save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    metadata = json.loads(str(arrays["metadata"]))
    for key, value in change.items():
        if key.endswith("_array"):
            arrays[key.removesuffix("_array")] = value
        elif key != "metadata":
            metadata[key] = value
    arrays["metadata"] = change.get("metadata", np.array(json.dumps(metadata)))
    np.savez(path, **arrays)
    with refused(DataError, str(path), part):
        NoisyLabels.load(path)
