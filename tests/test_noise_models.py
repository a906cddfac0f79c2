"""The noise models beyond plain symmetric, asymmetric and pair noise: quotas, sequences, matrices, groups, inputs."""

import dataclasses
import itertools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _noise_cases import cyclic, refused
from scipy.stats import chisquare, kstest, truncnorm

from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.noise import (
    CLASS_MAPS,
    NoisyLabels,
    class_map,
    corrupt,
    corrupt_multilabel,
    corrupt_regression,
    parse,
    pmd_factor,
    simd_level,
)
from fastnoise.noise.audit import sequential_transition
from fastnoise.noise.draws import (
    Purpose,
    _philox,
    first_of,
    normals,
    quota,
    quota_up,
    uniforms,
    wide_words,
    wide_words_at,
    words,
    words_at,
)
from fastnoise.noise.instance import _scaling
from fastnoise.noise.spec import with_absolute_paths

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MILLION = 1_000_000


def uneven(count: int, num_classes: int = 10) -> np.ndarray:
    """Classes of different sizes, the last about ten times the first."""
    share = np.linspace(1, 10, num_classes)
    return np.random.default_rng(0).choice(num_classes, count, p=share / share.sum())


def check_transition(noisy: NoisyLabels, expected: np.ndarray) -> None:
    """Chi-square of each row of the counts against the model's own probabilities. Seeded: passes or fails for good."""
    assert np.allclose(expected.sum(1), 1)
    for counts, row in zip(noisy.transition, expected, strict=True):
        assert counts[row == 0].sum() == 0
        if (row > 0).sum() > 1:
            assert chisquare(counts[row > 0], counts.sum() * row[row > 0]).pvalue > 1e-5


# Numbers


def test_known_answers_of_the_generator():
    """Random123, tests/kat_vectors, philox4x32 with 10 rounds."""
    assert words(0, Purpose.FLIP, 64)[::16].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    block = np.array([0x85A308D3243F6A88], np.uint64)
    drawn = _philox(0x299F31D0A4093822, 0x13198A2E, block, 0x03707344)  # type: ignore[arg-type]
    assert drawn[:, 0].tolist() == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_any_stretch_of_a_stream_is_the_same():
    whole = words(3, Purpose.PROJECTION, 1000, attempt=2)
    for start, count in ((0, 1), (1, 5), (63, 2), (64, 64), (130, 870)):
        part = words(3, Purpose.PROJECTION, count, start=start, attempt=2)
        assert np.array_equal(part, whole[start : start + count])
    positions = np.random.default_rng(0).integers(0, 1000, 300)
    assert np.array_equal(words_at(3, Purpose.PROJECTION, positions, attempt=2), whole[positions])
    wide = wide_words(3, Purpose.PROJECTION, 1000, attempt=7)
    assert np.array_equal(wide_words_at(3, Purpose.PROJECTION, positions, attempt=7), wide[positions])
    far = words(3, Purpose.PROJECTION, 3, start=2**40)
    assert np.array_equal(words_at(3, Purpose.PROJECTION, 2**40 + np.arange(3)), far)
    assert len(set(far.tolist())) == 3


def test_uniforms_and_normals():
    u, z = uniforms(1, Purpose.SWAP, 200_000), normals(1, Purpose.PROJECTION, 200_000)
    assert 0 < u.min() < u.max() < 1
    assert kstest(u, "uniform").pvalue > 1e-3
    assert kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(u, z)[0, 1]) < 5 / np.sqrt(len(u))


def test_streams_are_uncorrelated():
    """Every purpose, and three seeds that differ in either half, at the lags of the layout: lane, word and group."""
    count = 100_000
    streams = {
        (seed, purpose): uniforms(seed, purpose, count) - 0.5 for seed in (5, 6, 5 + 2**32) for purpose in Purpose
    }
    drawn = np.array(list(streams.values()))
    assert len(drawn) == 33
    spread = drawn.std(1)
    for lag in (0, 1, 15, 16, 17, 48, 63, 64, 65, 1024):
        products = drawn[:, : count - lag] @ drawn[:, lag:].T / (count - lag)
        correlation = products / spread[:, None] / spread
        if lag == 0:
            np.fill_diagonal(correlation, 0)
        # 11,000 correlations in all: the largest of so many normal ones is beyond 5.5 once in 2,500 times.
        assert np.abs(correlation).max() < 5.5 / np.sqrt(count), lag


def test_quota_is_a_whole_number_whatever_the_doubles_say():
    assert [quota(rate, 100) for rate in (0.0, 0.29, 0.57, 0.58, 1.0)] == [0, 29, 57, 58, 100]
    assert quota(0.4, 4999) == 1999
    assert 0.29 * 100 < 29  # why
    assert [quota_up(rate, 100) for rate in (0.0, 0.07, 0.29, 0.93, 1.0)] == [0, 7, 29, 93, 100]
    assert quota_up(0.4, 4999) == 2000
    assert 0.07 * 100 > 7


def test_the_least_keys_are_those_of_a_stable_sort():
    for below in (1, 3, 50, 2**64 - 1):
        keys = np.random.default_rng(below % 7).integers(0, below, 200, dtype=np.uint64)
        for count in (0, 1, 77, 199, 200):
            chosen = np.zeros(200, bool)
            chosen[np.argsort(keys, kind="stable")[:count]] = True
            assert np.array_equal(first_of(keys, count), chosen)


# The grammar


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("symmetric:0.4,quota=none", "symmetric:0.4"),
        ("symmetric:0.4,quota=class,true_class=included", "symmetric:0.4,true_class=included,quota=class"),
        ("symmetric:0.4,classes=5+3+4+4", "symmetric:0.4,classes=3-5"),
        ("symmetric:0.4,classes= 10-19 + 2", "symmetric:0.4,classes=2+10-19"),
        ("asymmetric:0.4,sequential=true", "asymmetric:0.4,sequential=true"),
        ("asymmetric:0.4,sequential=false,map=sce", "asymmetric:0.4,map=sce"),
        ("matrix:some/T.npy", "matrix:some/T.npy"),
        ("heterogeneous:0.8,clean=3,strategy=2", "heterogeneous:0.8,clean=3,strategy=2"),
        ("heterogeneous:0.8,clean=03,strategy=1", "heterogeneous:0.8,clean=3"),
        ("idn:0.3,variant=xia,inputs=centred", "idn:0.3,inputs=centred"),
        ("idn:0.3,variant=shared", "idn:0.3,variant=shared"),
        ("pmd:0.35,type=II", "pmd:0.35,type=2"),
        ("pmd:0.35,posteriors= a b/P.npy", "pmd:0.35,posteriors=a b/P.npy"),
        ("idn:0.3,posteriors=P.npy,variant=score", "idn:0.3,variant=score,posteriors=P.npy"),
        ("pmd:0.35,type=3,hybrid=symmetric:.3", "pmd:0.35,type=3,hybrid=symmetric:0.3"),
        ("pmd:0.35,hybrid=asymmetric:0.3,map=block5", "pmd:0.35,map=block5,hybrid=asymmetric:0.3"),
    ],
)
def test_canonical_text(text: str, canonical: str):
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("symmetric:0.4,quota=classes", ["unknown quota 'classes'", "did you mean 'class'?"]),
        ("symmetric:0.4,classes=3-", ["'3-' names no classes", "3, 3+5 or 10-19"]),
        ("symmetric:0.4,classes=9-3", ["'9-3' names no classes"]),
        ("symmetric:0.4,classes=-1", ["names no classes"]),
        ("symmetric:0.4,classes=²", ["names no classes"]),
        ("symmetric:0.4,classes=" + "9" * 40, ["names no classes"]),
        ("symmetric:0.4,classes", ["'classes' needs a value: 3+5"]),
        ("asymmetric:0.4,sequential=yes", ["unknown sequential 'yes'", "valid: false, true"]),
        ("asymmetric:0.4,sequential=true,quota=class", ["has its own quota for each class"]),
        ("matrix", ["needs a file, such as 'matrix:T.npy'"]),
        ("heterogeneous:0.4", ["needs its clean classes", "clean=3"]),
        ("heterogeneous:0.4,clean=3,strategy=3", ["unknown strategy '3'", "valid: 1, 2"]),
        ("idn:0.3,variant=xai", ["did you mean 'xia'?"]),
        ("idn:0.3,variant=score,inputs=centred", ["variant=score takes posteriors"]),
        ("idn:0.3,posteriors=P.npy", ["posteriors= is only for variant=score"]),
        ("pmd:0.35,type=4", ["unknown type '4'"]),
        ("pmd:0.35,posteriors=", ["'posteriors' needs a value: FILE.npy"]),
        ("pmd:0.35,posteriors=a\nb", ["'a\\nb' can't be the name of a file"]),
        ("symmetric:0.35,posteriors=P.npy", ["no option 'posteriors'"]),
        ("pmd:0.35,hybrid=human:worse", ["hybrid=human:worse must be one of symmetric, asymmetric, pair and a rate"]),
        ("pmd:0.35,hybrid=symmetric", ["'symmetric' needs a rate"]),
        ("pmd:0.35,map=block5", ["map= is only for hybrid=asymmetric:R"]),
    ],
)
def test_parse_refuses(text: str, parts: list[str]):
    with refused(ConfigError, *parts):
        parse(text)


def test_files_in_specs_are_named_from_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    assert with_absolute_paths("matrix:a/T.npy") == f"matrix:{here}/a/T.npy"
    assert with_absolute_paths("pmd:.3, posteriors = P.npy,type=2") == f"pmd:0.3,type=2,posteriors={here}/P.npy"
    assert with_absolute_paths("idn:0.3,variant=score,posteriors=/P.npy") == "idn:0.3,variant=score,posteriors=/P.npy"
    assert with_absolute_paths("pair:0.4") == "pair:0.4"


# Class maps that the specs add


def test_sce_swaps_one_pair_of_each_block():
    seen = set()
    for seed in range(30):
        targets = class_map("sce", seed)
        for first in range(0, 100, 5):
            moved = [label for label in range(first, first + 5) if targets[label] != label]
            assert len(moved) == 2
            assert [targets[label] for label in moved] == moved[::-1]
            seen.add((moved[0] - first, moved[1] - first))
    assert seen == set(itertools.combinations(range(5), 2))
    assert class_map("sce", 1) != class_map("sce", 2)


def test_cycle100():
    assert CLASS_MAPS["cycle100"] == (*range(1, 100), 0)


# Chi-square at N = 10^6: every model


def mapped(name: str, rate: float, seed: int) -> np.ndarray:
    targets = class_map(name, seed)
    return (1 - rate) * np.eye(len(targets)) + rate * np.eye(len(targets))[list(targets)]


def within(group: list[int], rate: float, num_classes: int, included: bool = False) -> np.ndarray:
    expected = np.eye(num_classes)
    for label, other in itertools.product(group, repeat=2):
        if included:
            expected[label, other] = rate / len(group) + (1 - rate) * (label == other)
        else:
            expected[label, other] = 1 - rate if label == other else rate / (len(group) - 1)
    return expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("asymmetric:0.4,map=sce", mapped("sce", 0.4, 8)),
        ("asymmetric:0.4,map=cycle100", mapped("cycle100", 0.4, 8)),
        ("symmetric:0.5,classes=0-49", within([*range(50)], 0.5, 100)),
        ("symmetric:0.5,classes=3+50-52,true_class=included", within([3, 50, 51, 52], 0.5, 100, included=True)),
        ("heterogeneous:0.8,clean=3+5,strategy=2", within([0, 1, 2, 4, 6, 7, 8, 9], 0.8, 10)),
        ("heterogeneous:1.0,clean=0,strategy=2", within([*range(1, 10)], 1.0, 10)),
    ],
)
def test_transition_counts(text: str, expected: np.ndarray):
    noisy = corrupt(cyclic(MILLION, len(expected)), text, seed=8, num_classes=len(expected))
    check_transition(noisy, expected)


def test_transition_counts_of_strategy_1():
    expected = within([*range(10)], 0.6, 10)
    expected[3] = np.eye(10)[3]
    check_transition(corrupt(cyclic(MILLION), "heterogeneous:0.6,clean=3", seed=8, num_classes=10), expected)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_transition_counts_of_a_matrix(tmp_path: Path, num_classes: int):
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.full(num_classes, 0.5), num_classes)
    transition[0] = np.eye(num_classes)[-1]  # a row of one class only
    transition[1, 0] = 0  # and a class that another never becomes
    transition[1] /= transition[1].sum()
    np.save(tmp_path / "T.npy", transition)
    noisy = corrupt(cyclic(MILLION, num_classes), f"matrix:{tmp_path / 'T.npy'}", seed=8, num_classes=num_classes)
    assert noisy.requested_rate is None
    for counts, row in zip(noisy.transition, transition, strict=True):
        likely = row > 1e-3  # where chi-square holds; the rest together
        groups = np.append(counts[likely], counts[~likely].sum()), np.append(row[likely], row[~likely].sum())
        assert counts[row == 0].sum() == 0
        some = groups[1] > 1e-4
        if some.sum() > 1:
            shares = groups[1][some] / groups[1][some].sum()
            assert chisquare(groups[0][some], groups[0][some].sum() * shares).pvalue > 1e-5


@pytest.mark.parametrize("quota", ["global", "class"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("symmetric:0.4", within([*range(10)], 0.4, 10)),
        ("symmetric:0.4,true_class=included", within([*range(10)], 0.4, 10, included=True)),
        ("symmetric:0.4,classes=2-6", within([*range(2, 7)], 0.4, 10)),
        ("pair:0.4", 0.6 * np.eye(10) + 0.4 * np.roll(np.eye(10), 1, axis=1)),
        ("asymmetric:0.4,map=mnist", mapped("mnist", 0.4, 8)),
        ("asymmetric:0.4,map=block5", mapped("block5", 0.4, 8)),
        ("asymmetric:0.4,map=sce", mapped("sce", 0.4, 8)),
    ],
)
def test_transition_counts_of_quotas(text: str, expected: np.ndarray, quota: str):
    noisy = corrupt(cyclic(MILLION, len(expected)), f"{text},quota={quota}", seed=8, num_classes=len(expected))
    check_transition(noisy, expected)
    if text == "symmetric:0.4":
        assert noisy.flipped.sum() == 400_000
        # The quota fixes how many change, so that the targets alone are left to chance.
        for label, counts in enumerate(noisy.transition):
            assert chisquare(np.delete(counts, label)).pvalue > 1e-5


@pytest.mark.parametrize("name", ["mnist", "cifar10", "block5", "superclass", "sce"])
def test_transition_counts_of_the_sequential_variant(name: str):
    targets = class_map(name, 8)
    noisy = corrupt(
        cyclic(MILLION, len(targets)), f"asymmetric:0.4,map={name},sequential=true", seed=8, num_classes=len(targets)
    )
    check_transition(noisy, sequential_transition(targets, 0.4))


@pytest.mark.parametrize("variant", ["xia", "shared"])
def test_transition_counts_of_instance_dependent_noise(variant: str):
    """The counts against the sum of the samples' own probabilities, by the formula; these inputs spread the flips."""
    classes = 4
    labels = cyclic(MILLION, classes)
    inputs = np.random.default_rng(6).normal(0, 1, (MILLION, 2)).astype(np.float32)
    noisy = corrupt(labels, f"idn:0.3,variant={variant}", seed=8, num_classes=classes, inputs=inputs)
    weight = normals(8, Purpose.PROJECTION, classes * 2 * classes).reshape(classes, 2, classes)
    flips = truncnorm(-3, 7, 0.3, 0.1).mean()
    expected = np.zeros((classes, classes))
    for label in range(classes):
        logits = inputs[labels == label].astype(np.float64) @ weight[label if variant == "xia" else 0]
        logits[:, label] = -np.inf
        probs = np.exp(logits - logits.max(1, keepdims=True))
        expected[label] = flips * (probs / probs.sum(1, keepdims=True)).mean(0)
        expected[label, label] = 1 - flips
    check_transition(noisy, expected)


@pytest.mark.parametrize(
    ("kind", "hybrid"),
    [(1, None), (2, None), (3, None), (1, "symmetric:0.3"), (2, "asymmetric:0.3"), (3, "pair:0.2")],
)
def test_transition_counts_of_pmd(kind: int, hybrid: str | None):
    labels, probs = (np.tile(part, (50, 1)[: part.ndim]) for part in probabilities(MILLION // 50))
    text = f"pmd:0.35,type={kind}" + (f",hybrid={hybrid}" if hybrid else "")
    noisy = corrupt(labels, text, seed=8, num_classes=10, posteriors=probs.astype(np.float32), dataset="cifar10")
    some = slice(0, MILLION // 50)
    order = np.argsort(-probs[some], 1)
    rows = np.arange(MILLION // 50)
    first, second = order[:, 0], order[:, 1]
    margin = probs[rows, first] - probs[rows, second]
    keep = {1: 0.5 + margin**2 / 2, 2: margin**3, 3: (margin + margin**2 + margin**3) / 3}[kind]
    kept = np.minimum(keep / noisy.pmd_factor, 1)
    expected = np.zeros((10, 10))
    np.add.at(expected, (labels[some], first), kept)
    np.add.at(expected, (labels[some], second), 1 - kept)
    expected /= expected.sum(1, keepdims=True)
    if hybrid == "asymmetric:0.3":
        expected = expected @ mapped("cifar10", 0.3, 8)
    elif hybrid == "symmetric:0.3":
        expected = expected @ within([*range(10)], 0.3, 10)
    elif hybrid is not None:
        expected = expected @ (0.8 * np.eye(10) + 0.2 * np.roll(np.eye(10), 1, axis=1))
    check_transition(noisy, expected)


def test_matrices_beyond_doubles(tmp_path: Path):
    """Rows that sum to 1 in float32 only, and a file's dtype, change nothing."""
    transition = np.full((7, 7), 1 / 7, np.float32)
    np.save(tmp_path / "T.npy", transition)
    noisy = corrupt(cyclic(70_000, 7), f"matrix:{tmp_path / 'T.npy'}", seed=0, num_classes=7)
    assert noisy.realised_rate == pytest.approx(6 / 7, abs=0.01)
    np.save(tmp_path / "I.npy", np.eye(7, dtype=np.int64))
    assert not corrupt(cyclic(700, 7), f"matrix:{tmp_path / 'I.npy'}", seed=0, num_classes=7).flipped.any()


# Quotas


@pytest.mark.parametrize("text", ["symmetric:0.37", "pair:0.37", "asymmetric:0.37,map=cycle100"])
def test_quotas_are_exact(text: str):
    labels = uneven(100_003, 100)
    sizes = np.bincount(labels, minlength=100)
    globally = corrupt(labels, f"{text},quota=global", seed=2, num_classes=100)
    assert globally.flipped.sum() == int(0.37 * 100_003)
    per_class = corrupt(labels, f"{text},quota=class", seed=2, num_classes=100)
    assert np.array_equal(sizes - per_class.transition.diagonal(), (0.37 * sizes).astype(int))
    assert np.allclose(per_class.class_rates, (0.37 * sizes).astype(int) / sizes)
    # The global quota is blind to classes: their counts vary as a draw without replacement does.
    flips = sizes - globally.transition.diagonal()
    score = (flips - 0.37 * sizes) / np.sqrt(0.37 * 0.63 * sizes)
    assert 0.8 < score.std() < 1.2


def test_quota_with_the_true_class_included():
    """floor(0.4 N) labels are drawn anew, and a tenth of them keeps its class: the field's "40 %" is 36 %."""
    labels = cyclic(MILLION)
    for kind in ("global", "class"):
        noisy = corrupt(labels, f"symmetric:0.4,true_class=included,quota={kind}", seed=3, num_classes=10)
        assert noisy.flipped.sum() == pytest.approx(360_000, abs=5 * np.sqrt(400_000 * 0.09))
        check_transition(noisy, within([*range(10)], 0.4, 10, included=True))
        assert "requested 40.00 % drawn anew, so 36.00 % changed" in noisy.describe()


def test_quota_of_the_map_of_cifar10():
    labels = cyclic(50_000)
    per_class = corrupt(labels, "asymmetric:0.4,map=cifar10,quota=class", seed=3, num_classes=10)
    assert np.allclose(per_class.class_rates, [0, 0, 0.4, 0.4, 0.4, 0.4, 0, 0, 0, 0.4])
    globally = corrupt(labels, "asymmetric:0.4,map=cifar10,quota=global", seed=3, num_classes=10)
    assert globally.realised_rate == pytest.approx(0.2, abs=0.01)


def test_quota_within_a_task():
    labels = uneven(50_000, 100)
    noisy = corrupt(labels, "symmetric:0.5,classes=0-49,quota=global", seed=3, num_classes=100)
    assert noisy.flipped.sum() == (labels < 50).sum() // 2
    assert np.array_equal(noisy.labels[labels >= 50], labels[labels >= 50])
    assert noisy.labels[labels < 50].max() < 50


def test_quotas_choose_uniformly():
    """Over many seeds each of 20 samples is in the quota of 5 equally often, and pairs of them too."""
    flips = np.array(
        [corrupt(np.zeros(20, int), "pair:0.25,quota=global", seed=seed, num_classes=2).flipped for seed in range(4000)]
    )
    assert np.all(flips.sum(1) == 5)
    assert chisquare(flips.sum(0)).pvalue > 1e-4
    together = flips.T.astype(int) @ flips
    off = together[np.triu_indices(20, 1)]
    assert abs(off.mean() - 4000 * 5 * 4 / (20 * 19)) < 1e-9
    assert np.all(np.abs(off - off.mean()) < 5 * np.sqrt(off.mean()))


@pytest.mark.parametrize("text", ["symmetric:0,quota=class", "pair:0,quota=global", "heterogeneous:0,clean=1+2"])
def test_flipped_sets_nest(text: str):
    labels = uneven(20_000)
    lower = labels
    for rate in (0.0, 0.05, 0.3, 0.8, 1.0):
        noisy = corrupt(labels, dataclasses.replace(parse(text), rate=rate), seed=5, num_classes=10).labels
        assert np.all((lower == labels) | (lower == noisy))
        lower = noisy


# The sequential variant


def sequential_loop(labels: np.ndarray, targets: tuple[int, ...], rate: float, rng: np.random.Generator) -> np.ndarray:
    """As the description says, with another generator."""
    noisy = labels.copy()
    for label, target in enumerate(targets):
        members = np.flatnonzero(noisy == label)
        rng.shuffle(members)
        if target != label:
            noisy[members[: int(np.ceil(rate * len(members) - 1e-9))]] = target
    return noisy


def test_sequential_flips_work_on_labels_already_changed():
    """At nominal 0.4 a cat of CIFAR-10 ends as a dog with 0.4 (1 - 0.4): 24 % of cats, 18.4 % of all labels change."""
    labels = cyclic(MILLION)
    noisy = corrupt(labels, "asymmetric:0.4,map=cifar10,sequential=true", seed=1, num_classes=10)
    assert noisy.class_rates == pytest.approx([0, 0, 0.4, 0.24, 0.4, 0.4, 0, 0, 0, 0.4], abs=0.003)
    assert noisy.realised_rate == pytest.approx(0.184, abs=0.0005)
    assert noisy.spec == "asymmetric:0.4,map=cifar10,sequential=true"
    loop = sequential_loop(labels, CLASS_MAPS["cifar10"], 0.4, np.random.default_rng(0))
    assert np.array_equal(np.bincount(noisy.labels), np.bincount(loop))  # the quotas leave no room for chance
    # A cycle carries a label on: class 0 becomes 1, and of those again 40 % become 2.
    cycle = corrupt(cyclic(MILLION, 100), "asymmetric:0.4,map=block5,sequential=true", seed=1, num_classes=100)
    row = cycle.transition[0] / 10_000
    assert row[:5] == pytest.approx([0.6 + 0.4**5, 0.4 * 0.6, 0.4**2 * 0.6, 0.4**3 * 0.6, 0.4**4 * 0.6], abs=0.03)


def cifar10_labels() -> np.ndarray:
    if not (SHARED / "cifar_n_labels.npz").is_file():
        pytest.skip("CIFAR-10's labels aren't here")
    with np.load(SHARED / "cifar_n_labels.npz") as file:
        return file["cifar10_clean_label"]


def test_sequential_flips_on_cifar10():
    labels = cifar10_labels()
    rates = [
        corrupt(labels, "asymmetric:0.4,sequential=true", seed=seed, num_classes=10, dataset="cifar10").class_rates
        for seed in range(20)
    ]
    cats = np.array(rates)[:, 3]
    assert cats.mean() == pytest.approx(0.24, abs=5 * cats.std() / np.sqrt(20))
    assert abs(0.242 - cats.mean()) < 3 * cats.std()  # what the public code was measured to give, once
    assert np.mean(rates) == pytest.approx(0.184, abs=0.0005)


# Heterogeneous


@pytest.mark.parametrize("strategy", [1, 2])
def test_heterogeneous_noise_on_cifar10(strategy: int):
    labels = cifar10_labels()
    for clean in range(10):
        noisy = corrupt(labels, f"heterogeneous:1,clean={clean},strategy={strategy}", seed=clean, num_classes=10)
        assert np.array_equal(noisy.flipped, labels != clean)  # p = 1 changes every label but those of the clean class
        for label in set(range(10)) - {clean}:
            right = [k for k in range(10) if k != label and (strategy == 1 or k != clean)]
            counts = noisy.transition[label]
            assert counts[right].sum() == 5000
            assert chisquare(counts[right]).pvalue > 1e-4
    assert "9 of 10 classes corrupted" in noisy.describe()


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i4", "int64", "uint64"])
@pytest.mark.parametrize(
    "text",
    [
        "symmetric:0.4,quota=class",
        "pair:0.4,quota=global",
        "symmetric:0.4,classes=2-6",
        "asymmetric:0.4,map=cifar10,sequential=true",
        "heterogeneous:0.8,clean=3,strategy=2",
    ],
)
def test_dtypes_and_threads_do_not_matter(text: str, dtype: str):
    labels = uneven(200_003)
    expected = corrupt(labels, text, seed=3, num_classes=10, threads=1).labels.tobytes()
    assert corrupt(labels.astype(dtype), text, seed=3, num_classes=10, threads=7).labels.tobytes() == expected


HASHES = """
import hashlib
import sys
import numpy as np
from fastnoise import _C
from fastnoise.noise import corrupt, corrupt_multilabel, corrupt_regression, corrupt_sweep

rng = np.random.default_rng(0)
labels = rng.integers(0, 10, 20_011).astype("uint8")
inputs = rng.normal(0, 1, (20_011, 4))
posteriors = 0.7 * np.eye(10)[labels] + 0.3 * rng.dirichlet(np.ones(10), 20_011)
np.save(sys.argv[1] + "/T.npy", rng.dirichlet(np.ones(10), 10))
losses = rng.random((3, 20_011), np.float32)
print(_C.active_isa())
for spec in sys.argv[2:]:
    digests = set()
    for threads in (1, 2, 7):
        noisy = corrupt(
            labels, spec, seed=7, num_classes=10, threads=threads, inputs=inputs, posteriors=posteriors
        )
        digests.add(noisy.sha256)
    print(spec, *digests)
for threads in (1, 2, 7):
    swept = corrupt_sweep(labels, "symmetric", [0.2, 0.7], [1, 2], num_classes=10, threads=threads)
    predictions = np.stack([labels % 3] * 3)
    mask, found = _C.consensus_members(losses[None], predictions[None], threshold=0.8, agree=True, threads=threads)
    counts = _C.consensus_counts(
        losses[None], predictions[None], thresholds=[0.3, 0.8], agree=True, stage=2, true_labels=labels, threads=threads
    )
    print(hashlib.sha256(swept.tobytes() + mask.tobytes()).hexdigest(), found, [part.tolist() for part in counts])
tags = (inputs > 0).astype(int)
print(hashlib.sha256(corrupt_multilabel(tags, 0.3, seed=1, group="0-3", cardinality="free").tobytes()).hexdigest())
print(hashlib.sha256(corrupt_regression(inputs[:, 0], 1.5, seed=1, low=-1, high=1).tobytes()).hexdigest())
"""


def test_bytes_are_the_same_for_threads_instruction_sets_and_processes(tmp_path: Path):
    specs = [
        *("symmetric:0.4", "symmetric:0.4,true_class=included,quota=global", "symmetric:0.4,quota=class"),
        *("symmetric:0.4,classes=2-6,quota=class", "pair:0.4", "pair:0.4,quota=global"),
        *("asymmetric:0.4,map=cifar10", "asymmetric:0.4,map=mnist,quota=class"),
        *("asymmetric:0.4,map=cifar10,sequential=true", f"matrix:{tmp_path}/T.npy"),
        *("heterogeneous:0.8,clean=3", "heterogeneous:0.8,clean=3,strategy=2", "idn:0.3", "idn:0.3,variant=shared"),
        *("pmd:0.3,type=2", "pmd:0.3,hybrid=pair:0.2", "idn:0.3,variant=score"),
    ]
    levels = ("generic", "avx2", "avx512")
    said = {}
    for level in levels[: levels.index(simd_level()) + 1]:
        ran = subprocess.run(
            [sys.executable, "-c", HASHES, tmp_path, *specs],
            capture_output=True, text=True, timeout=300, env={**os.environ, "FASTNOISE_FORCE_ISA": level}, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        used, *lines = ran.stdout.splitlines()
        assert used == level
        assert all(len(line.split()) == 2 for line in lines[: len(specs)])  # one digest for all threads
        assert len(set(lines[len(specs) : len(specs) + 3])) == 1
        said[level] = lines
    assert all(lines == said["generic"] for lines in said.values())


@pytest.mark.parametrize("text", ["symmetric:0.4", "pair:0.4", "heterogeneous:0.8,clean=3,strategy=2", "idn:0.4"])
def test_any_beginning_of_the_labels_gets_what_the_whole_gets(text: str):
    labels, inputs = cyclic(3000), np.random.default_rng(1).normal(0, 1, (3000, 3))
    whole = corrupt(labels, text, seed=2, num_classes=10, inputs=inputs).labels
    for count in (1, 15, 16, 63, 64, 65, 127, 1024, 2999):
        part = corrupt(labels[:count], text, seed=2, num_classes=10, inputs=inputs[:count]).labels
        assert np.array_equal(part, whole[:count])


# Instance-dependent


def pictures(count: int = 4000, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Raw pixels 0..255 with a bright mean, as photographs have, and labels that they have little to do with."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, num_classes, count)
    return labels, rng.normal(120 + 4 * labels[:, None, None, None], 30, (count, 6, 6, 3)).clip(0, 255).astype(np.uint8)


def concentration(noisy: NoisyLabels) -> float:
    """The share of a class's flips that go to its commonest wrong class, mean over classes."""
    wrong = noisy.transition * (1 - np.eye(noisy.num_classes, dtype=int))
    return float(np.mean(wrong.max(1) / wrong.sum(1)))


@pytest.mark.parametrize("variant", ["xia", "shared"])
def test_raw_inputs_concentrate_the_flips_and_centred_ones_spread_them(variant: str):
    labels, images = pictures()
    noisy = {
        how: corrupt(labels, f"idn:0.4,variant={variant},inputs={how}", seed=1, num_classes=5, inputs=images)
        for how in ("raw", "normalised", "centred")
    }
    for result in noisy.values():
        assert result.realised_rate == pytest.approx(0.4, abs=5 * np.sqrt(0.25 / 4000))
        assert np.array_equal(result.flipped, noisy["raw"].flipped)  # which labels flip depends on the seed alone
    assert concentration(noisy["raw"]) > 0.6
    assert concentration(noisy["centred"]) < 0.45
    assert concentration(noisy["normalised"]) < 0.45


def test_normalising_takes_no_copy_of_all_inputs():
    images = np.random.default_rng(3).integers(0, 256, (40_000, 8, 8, 3), np.uint8)
    tracemalloc.start()
    scaled = _scaling(images, "normalised")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * images.nbytes  # a float64 copy of all has eight times as many
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    assert scaled(images[:9]) == pytest.approx(((images[:9] - mean) / std).reshape(9, -1), rel=1e-9, abs=1e-9)


def test_targets_of_xia_are_those_of_the_formula():
    labels, images = pictures(300)
    noisy = corrupt(labels, "idn:0.6", seed=9, num_classes=5, inputs=images)
    weight = normals(9, Purpose.PROJECTION, 5 * 108 * 5).reshape(5, 108, 5)
    flat = images.reshape(300, 108).astype(np.float64)
    agree = total = 0
    for i in np.flatnonzero(noisy.flipped):
        logits = flat[i] @ weight[labels[i]]
        logits[labels[i]] = -np.inf
        top = np.sort(logits)
        if top[-1] - top[-2] > 30:  # then the softmax leaves no choice
            total += 1
            agree += noisy.labels[i] == logits.argmax()
    assert total > 100
    assert agree == total


def test_rates_of_xia_are_a_cut_normal():
    """At 0.1 a sixth of the samples' rates would be negative, and so their mean is 0.129."""
    labels, images = pictures(1000)
    many = np.tile(labels, 200)
    noisy = corrupt(many, "idn:0.1", seed=1, num_classes=5, inputs=np.tile(images[:, :1, :1], (200, 1, 1, 1)))
    mean = truncnorm(-1, 9, 0.1, 0.1).mean()
    assert mean == pytest.approx(0.129, abs=5e-4)
    assert noisy.realised_rate == pytest.approx(mean, abs=5 * np.sqrt(0.129 * 0.871 / 200_000))


def probabilities(count: int = 20_000, num_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the softmax of a network that is right about nine times in ten."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(0, 1, (count, num_classes))
    logits[np.arange(count), labels] += 3.0
    probs = np.exp(logits)
    return labels, probs / probs.sum(1, keepdims=True)


def test_score_based_noise_takes_the_likeliest_mistakes():
    labels, probs = probabilities()
    noisy = corrupt(labels, "idn:0.3,variant=score", seed=0, num_classes=10, posteriors=probs)
    assert noisy.flipped.sum() == 6000
    others = probs.copy()
    others[np.arange(len(labels)), labels] = 0
    assert np.array_equal(noisy.labels[noisy.flipped], others.argmax(1)[noisy.flipped])
    assert others.max(1)[noisy.flipped].min() >= others.max(1)[~noisy.flipped].max()


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.35, 0.7])
def test_pmd_hits_the_requested_rate_by_its_factor(kind: int, rate: float):
    labels, probs = probabilities()
    noisy = corrupt(labels, f"pmd:{rate},type={kind}", seed=4, num_classes=10, posteriors=probs)
    assert noisy.realised_rate == pytest.approx(rate, abs=5 * np.sqrt(0.25 / len(labels)))
    order = np.argsort(-probs, 1)
    first, second = order[:, 0], order[:, 1]
    assert np.all((noisy.labels == first) | (noisy.labels == second))
    # Among samples of a like margin, the share that keeps the likeliest class is the formula's over F, cut at 1.
    factor = pmd_factor(labels, probs, rate, kind)
    assert noisy.pmd_factor == factor
    assert f"(factor {factor:.6g})" in noisy.describe()
    margin = probs[np.arange(len(labels)), first] - probs[np.arange(len(labels)), second]
    keep = {1: 0.5 + margin**2 / 2, 2: margin**3, 3: (margin + margin**2 + margin**3) / 3}[kind]
    kept = np.minimum(keep / factor, 1)
    for part in np.array_split(np.argsort(margin), 10):
        assert np.mean(noisy.labels[part] == first[part]) == pytest.approx(kept[part].mean(), abs=5 * 0.5 / 2000**0.5)


def test_pmd_of_a_network_that_is_mostly_wrong():
    """Then the second class is the right one, so that less noise needs a larger factor."""
    labels = cyclic(50_000)
    probs = 0.6 * np.eye(10)[(labels + 1) % 10] + 0.4 * np.eye(10)[labels]
    noisy = corrupt(labels, "pmd:0.3", seed=0, num_classes=10, posteriors=probs)
    assert noisy.realised_rate == pytest.approx(0.3, abs=0.01)
    assert noisy.pmd_factor == pytest.approx((0.5 + 0.5 * 0.2**2) / 0.3)


def test_pmd_factor_of_sure_posteriors_in_closed_form():
    """Type I with margin 1 throughout keeps with probability 1/F, so that rate r needs F = 1 / (1 - r)."""
    labels = cyclic(1000)
    probs = np.eye(10)[labels]
    assert pmd_factor(labels, probs, 0.3, 1) == pytest.approx(1 / 0.7, rel=1e-9)


@pytest.mark.parametrize("text", ["pmd:0.35,type=2", "pmd:0.35,hybrid=symmetric:0.3", "idn:0.3,variant=score"])
def test_posteriors_from_the_file_that_a_spec_names(tmp_path: Path, text: str):
    labels, probs = probabilities(2000)
    np.save(tmp_path / "P.npy", probs.astype(np.float32))
    spec = f"{text},posteriors={tmp_path / 'P.npy'}"
    named = corrupt(labels, spec, seed=4, num_classes=10)
    given = corrupt(labels, text, seed=4, num_classes=10, posteriors=probs.astype(np.float32))
    assert np.array_equal(named.labels, given.labels)
    assert (named.pmd_factor, named.requested_rate) == (given.pmd_factor, given.requested_rate)
    assert str(parse(named.spec)) == named.spec == str(parse(spec))
    named.save(tmp_path / "noisy.npz")
    loaded = NoisyLabels.load(tmp_path / "noisy.npz")
    assert (loaded.spec, loaded.pmd_factor, loaded.describe()) == (named.spec, named.pmd_factor, named.describe())
    with refused(ConfigError, "drop the others"):
        corrupt(labels, spec, seed=4, num_classes=10, posteriors=probs)
    with refused(DataError, "posteriors: must be floats [1999, 10], got float32 [2000, 10]"):
        corrupt(labels[1:], spec, seed=4, num_classes=10)
    (tmp_path / "P.npy").write_bytes(b"no array")
    with refused(DataError, "posteriors: ", "is no npy file of numbers"):
        corrupt(labels, spec, seed=4, num_classes=10)
    (tmp_path / "P.npy").unlink()
    with refused(DataError, "posteriors: can't read", "No such file"):
        corrupt(labels, spec, seed=4, num_classes=10)


def test_hybrids_add_their_noise_to_pmd():
    labels, probs = probabilities()
    alone = corrupt(labels, "pmd:0.35", seed=4, num_classes=10, posteriors=probs)
    noisy = corrupt(labels, "pmd:0.35,hybrid=symmetric:0.3", seed=4, num_classes=10, posteriors=probs)
    assert np.mean(noisy.labels != alone.labels) == pytest.approx(0.3, abs=0.02)
    assert "requested before the hybrid" in noisy.describe()
    mapped = corrupt(
        labels, "pmd:0.35,hybrid=asymmetric:0.3", seed=4, num_classes=10, posteriors=probs, dataset="cifar10"
    )
    assert mapped.spec == "pmd:0.35,map=cifar10,hybrid=asymmetric:0.3"
    moved = mapped.labels != alone.labels
    assert np.array_equal(mapped.labels[moved], np.array(CLASS_MAPS["cifar10"])[alone.labels[moved]])
    # The two parts are independent: PMD's mistakes are no likelier to be moved again than its other labels.
    changed = noisy.labels != alone.labels
    assert changed[alone.flipped].mean() == pytest.approx(changed[~alone.flipped].mean(), abs=0.03)


# Several labels a sample, and real ones


def tags(count: int = 5000, num_classes: int = 20) -> np.ndarray:
    return (np.random.default_rng(5).random((count, num_classes)) < 0.08).astype(np.int64)


def test_multilabel_swaps_keep_cardinality_and_group():
    labels = tags()
    noisy = corrupt_multilabel(labels, 0.4, seed=1, group="0-9")
    assert noisy.dtype == np.uint8
    assert np.array_equal(noisy[:, 10:], labels[:, 10:])
    assert np.array_equal(noisy[:, :10].sum(1), labels[:, :10].sum(1))
    lost, got = (labels == 1) & (noisy == 0), (labels == 0) & (noisy == 1)
    assert lost.sum() / labels[:, :10].sum() == pytest.approx(0.4, abs=0.03)
    assert np.array_equal(lost.sum(1), got.sum(1))


def test_multilabel_targets_are_uniform_over_absent_labels():
    labels = np.zeros((200_000, 6), int)
    labels[:, 1] = labels[:, 3] = 1
    noisy = corrupt_multilabel(labels, 1.0, seed=2, group="0-4")
    assert not noisy[:, [1, 3, 5]].any()
    assert np.all(noisy.sum(1) == 2)
    assert chisquare(noisy.sum(0)[[0, 2, 4]]).pvalue > 1e-4
    free = corrupt_multilabel(labels, 1.0, seed=2, group="0-4", cardinality="free")
    # Each of the two falls uniformly on one of four others; both on the same with probability 3 / 16.
    assert np.mean(free.sum(1) == 1) == pytest.approx(3 / 16, abs=0.005)
    assert np.mean(free[:, 0]) == pytest.approx(1 - (3 / 4) ** 2, abs=0.005)
    assert np.mean(free[:, 1]) == pytest.approx(1 / 4, abs=0.005)


def test_regression_noise_is_a_cut_gaussian_inside_the_range():
    values = np.full(100_000, 2.0)
    noisy = corrupt_regression(values, 1.5, seed=1, low=1.0, high=4.0)
    assert kstest(noisy, truncnorm(-1 / 1.5, 2 / 1.5, 2.0, 1.5).cdf).pvalue > 1e-3
    assert 1.0 <= noisy.min() < noisy.max() <= 4.0
    mixed = np.array([-5.0, 1.0, 4.0, 4.0001])
    changed = corrupt_regression(mixed, 1.5, seed=1, low=1.0, high=4.0) != mixed
    assert changed.tolist() == [False, True, True, False]
    wide = corrupt_regression(np.zeros(10), 1e-3, seed=1, low=-1e9, high=1e9)
    assert 0 < np.abs(wide).max() < 1e-2
    assert values[0] == 2.0


# Refusals


@pytest.mark.parametrize(
    ("kind", "parts", "change"),
    [
        (ConfigError, ["classes=0-10: class 10 is outside [0, 10)"], {"spec": "symmetric:0.4,classes=0-10"}),
        (ConfigError, ["classes= needs two classes"], {"spec": "symmetric:0.4,classes=3"}),
        (ConfigError, ["clean=12: class 12 is outside"], {"spec": "heterogeneous:0.4,clean=12"}),
        (ConfigError, ["clean= names all classes"], {"spec": "heterogeneous:0.4,clean=0-9"}),
        (ConfigError, ["strategy=2 needs two corrupted"], {"spec": "heterogeneous:0.4,clean=0-8,strategy=2"}),
        (
            ConfigError,
            ["up to 1048576 classes"],
            {"spec": "symmetric:0.4,classes=0-1999999999", "num_classes": 2**31 - 1},
        ),
        (ConfigError, ["map 'sce' is for 100 classes"], {"spec": "asymmetric:0.4,map=sce"}),
        (DataError, ["labels: position 1 holds 10"], {"labels": [0, 10], "spec": "heterogeneous:0.4,clean=1"}),
        (DataError, ["labels: position 0 holds -1"], {"labels": [-1, 1], "spec": "symmetric:0.4,quota=class"}),
        (ConfigError, ["needs the samples' inputs"], {"spec": "idn:0.4"}),
        (ConfigError, ["write none"], {"spec": "idn:0", "inputs": np.zeros((10, 3))}),
        (DataError, ["inputs: 9 inputs for 10 samples"], {"spec": "idn:0.4", "inputs": np.zeros((9, 3))}),
        (DataError, ["inputs: must be real numbers [N, ...]"], {"spec": "idn:0.4", "inputs": np.zeros(10)}),
        (DataError, ["some are not finite"], {"spec": "idn:0.4", "inputs": np.full((10, 2), np.nan)}),
        (DataError, ["inputs: of no size"], {"spec": "idn:0.4", "inputs": np.zeros((10, 0))}),
        (ConfigError, ["variant=score needs the posteriors"], {"spec": "idn:0.4,variant=score"}),
        (ConfigError, ["noise 'pmd' needs the posteriors"], {"spec": "pmd:0.4"}),
        (DataError, ["must be floats [10, 10]"], {"spec": "pmd:0.4", "posteriors": np.ones((10, 9)) / 9}),
        (DataError, ["row 0 holds no probabilities"], {"spec": "pmd:0.4", "posteriors": np.ones((10, 10))}),
        (DataError, ["row 0 holds no probabilities"], {"spec": "pmd:0.4", "posteriors": np.full((10, 10), np.nan)}),
    ],
)
def test_corrupt_refuses(kind: type[FastnoiseError], parts: list[str], change: dict[str, Any]):
    arguments = {"labels": cyclic(10), "spec": "symmetric:0.4", "seed": 0, "num_classes": 10}
    with refused(kind, *parts):
        corrupt(**{**arguments, **change})


def test_impossible_pmd_rates_are_refused_with_the_possible_ones():
    labels, probs = probabilities()
    with refused(ConfigError, "rate 0.01 is impossible", "these posteriors allow 0.0"):
        corrupt(labels, "pmd:0.01", seed=0, num_classes=10, posteriors=probs)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (np.eye(9), ["must be of shape (10, 10), got (9, 9)"]),
        (np.full((10, 10), 0.2), ["row 0 sums to 2 instead of 1"]),
        (np.vstack([np.full((1, 10), 0.5), np.full((9, 10), 0.5 / 9)]), ["row 0 sums to 5", "save the transpose"]),
        (np.eye(10) * 1.5 - 0.05, ["entry [0, 1] is -0.05, no probability"]),
        (np.full((10, 10), np.nan), ["entry [0, 0] is nan"]),
        (np.eye(10).astype(str), ["holds no array of real numbers"]),
        (np.array([[None]]), ["is no npy file of numbers"]),
    ],
)
def test_matrix_refuses(tmp_path: Path, content: np.ndarray, parts: list[str]):
    np.save(tmp_path / "T.npy", content)
    with refused(DataError, str(tmp_path / "T.npy"), *parts):
        corrupt(cyclic(10), f"matrix:{tmp_path / 'T.npy'}", seed=0, num_classes=10)


def test_matrix_refuses_files_that_are_none(tmp_path: Path):
    with refused(DataError, "can't read", "No such file"):
        corrupt(cyclic(10), f"matrix:{tmp_path / 'T.npy'}", seed=0, num_classes=10)
    for content in (b"", b"\x93NUMPY\x01", b"1 0\n0 1\n"):
        (tmp_path / "T.npy").write_bytes(content)
        with refused(DataError, "is no npy file of numbers"):
            corrupt(cyclic(10), f"matrix:{tmp_path / 'T.npy'}", seed=0, num_classes=10)


@pytest.mark.parametrize(
    ("kind", "parts", "change"),
    [
        (DataError, ["must be zeros and ones [N, C]"], {"labels": [1, 0]}),
        (DataError, ["entry [0, 1] is 2"], {"labels": [[1, 2, 0]]}),
        (ConfigError, ["label 3 is outside [0, 3)"], {"group": "0-3"}),
        (ConfigError, ["one label has no other"], {"group": "1"}),
        (ConfigError, ["'x' names no classes"], {"group": "x"}),
        (ConfigError, ["the rate must be in [0, 1], got nan"], {"rate": float("nan")}),
        (ConfigError, ["unknown cardinality 'any'"], {"cardinality": "any"}),
        (ConfigError, ["the noise seed"], {"seed": -1}),
        (DataError, ["sample 0: 2 labels to swap and 1 absent ones"], {"labels": [[1, 1, 0]]}),
    ],
)
def test_multilabel_refuses(kind: type[FastnoiseError], parts: list[str], change: dict[str, Any]):
    arguments = {"labels": [[1, 0, 0]], "rate": 1.0, "seed": 0, "group": "0-2"}
    with refused(kind, *parts):
        corrupt_multilabel(**{**arguments, **change})


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (DataError, {"values": [[1.0]]}),
        (DataError, {"values": [np.inf]}),
        (ConfigError, {"sigma": 0.0}),
        (ConfigError, {"low": 2.0}),
        (ConfigError, {"high": np.nan}),
        (ConfigError, {"seed": 2**64}),
    ],
)
def test_regression_refuses(kind: type[FastnoiseError], change: dict[str, Any]):
    with refused(kind):
        corrupt_regression(**{"values": [0.5], "sigma": 1.0, "seed": 0, "low": 0.0, "high": 1.0, **change})


def test_new_specs_survive_a_file(tmp_path: Path):
    labels, images = pictures(200)
    for text in ("idn:0.3,inputs=centred", "heterogeneous:0.5,clean=3,strategy=2", "symmetric:0.3,quota=class"):
        noisy = corrupt(labels, text, seed=2, num_classes=5, inputs=images)
        noisy.save(tmp_path / "noisy.npz")
        loaded = NoisyLabels.load(tmp_path / "noisy.npz")
        assert loaded.describe() == noisy.describe()
        assert loaded.sha256 == noisy.sha256
