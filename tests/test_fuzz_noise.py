"""Whatever the entry points of label noise and consensus are given, they answer or name the argument that is wrong.

Each entry point gets arguments that fit together, of which up to two are then replaced by odd ones: other dtypes,
shapes, strides and byte orders, negative and huge labels, NaN, matrices that are no distributions, empty arrays.
"""

import resource
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _noise_cases import core_uniform, cyclic, refused, result_or_refusal
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastnoise import _C, checks
from fastnoise.errors import DataError, FastnoiseError
from fastnoise.noise import (
    NoisyLabels,
    audit,
    class_map,
    corrupt,
    corrupt_multilabel,
    corrupt_regression,
    corrupt_sweep,
    parse,
    pmd_factor,
)
from fastnoise.noise.corrupt import read_transition
from fastnoise.noise.files import read_labels, write_csv
from fastnoise.selection import ConsensusOptions, consensus, consensus_sweep

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
DTYPES = (
    *INTEGERS,
    ">u2",
    ">i8",
    "f2",
    "f4",
    "f8",
    ">f4",
    "g",
    "?",
    "c8",
    "S2",
    "U2",
    "O",
    "M8[s]",
    "m8[s]",
    "V4",
    "i4,f4",
)
SPECS = (
    *("none", "symmetric:0.4", "symmetric:0.4,true_class=included", "symmetric:0.4,quota=class", "pair:0.4"),
    *(
        "symmetric:0.4,true_class=included,quota=global",
        "symmetric:1,classes=0-2",
        "symmetric:1,classes=1-3,quota=class",
    ),
    *("pair:0.7,quota=global", "heterogeneous:0.8,clean=1", "heterogeneous:0.8,clean=0+2,strategy=2"),
    *("idn:0.3", "idn:0.3,inputs=centred", "idn:0.3,variant=shared,inputs=normalised", "idn:0.3,variant=score"),
    *("pmd:0.4", "pmd:0.4,type=3,hybrid=pair:0.2"),
)
MAPPED = (
    "asymmetric:0.4,map=cifar10",
    "asymmetric:0.4,map=mnist,quota=class",
    "asymmetric:0.4,map=mnist,sequential=true",
)
RATES = st.floats(0, 1)
SEEDS = st.integers(0, 2**64 - 1)
THREADS = st.integers(0, 3)


def laid_out(array: np.ndarray, how: str) -> np.ndarray:
    """The same values lying otherwise in memory."""
    match how:
        case "backwards":
            return array[..., ::-1].copy()[..., ::-1]
        case "every second":
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "unaligned":
            if array.dtype.kind != "O":
                view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
                view[...] = array
                return view
        case "other bytes":
            return array.astype(array.dtype.newbyteorder(">"))
        case "transposed":
            return np.asfortranarray(array)
        case "read only":
            array.flags.writeable = False
    return array


LAYOUTS = st.sampled_from(["plain", "backwards", "every second", "unaligned", "other bytes", "transposed", "read only"])


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    array = np.zeros(shape, dtype) if dtype.kind == "V" else draw(hnp.arrays(dtype, shape))
    if draw(st.integers(0, 4)) == 0:
        array = np.broadcast_to(array, (draw(st.integers(0, 70)), *shape))
    return laid_out(array, draw(LAYOUTS)) if array.ndim and array.dtype.kind != "V" else array


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([2**32, 2**63, 2**64])
)
JUNK = any_array() | SCALARS | st.lists(SCALARS, max_size=4)


@dataclass(frozen=True)
class Entry:
    """One entry point.

    fitting   arguments that fit together
    odd       what an odd one may be, beside JUNK
    words     what names an argument in a message, beside its own name; under "", refusals that need no odd argument
    check     what holds of a result of fitting arguments
    errors    how it refuses
    optional  arguments that may be there too
    """

    call: Callable[..., Any]
    fitting: st.SearchStrategy[dict[str, Any]]
    odd: Mapping[str, st.SearchStrategy[Any]] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    check: Callable[[dict[str, Any], Any], None] = lambda arguments, result: None
    errors: tuple[type[Exception], ...] = (FastnoiseError,)
    optional: tuple[str, ...] = ()


def same_shape(arguments: dict[str, Any], noisy: NoisyLabels) -> None:
    assert np.array_equal(noisy.clean_labels, arguments["labels"])
    assert noisy.labels.shape == noisy.clean_labels.shape
    assert 0 <= noisy.labels.min() <= noisy.labels.max() < arguments["num_classes"]
    assert "\n" not in noisy.describe()
    if isinstance(arguments["labels"], np.ndarray):  # where the labels lie changes nothing
        plain = corrupt(**{**arguments, "labels": arguments["labels"].astype(np.int64), "threads": 1})
        assert plain.sha256 == noisy.sha256


@st.composite
def labels_of(draw: st.DrawFn, num_classes: int, count: int | None = None, layout: bool = True) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    elements = st.integers(0, min(num_classes - 1, np.iinfo(dtype).max))
    labels = draw(hnp.arrays(dtype, draw(st.integers(1, 200)) if count is None else count, elements=elements))
    return laid_out(labels, draw(LAYOUTS)) if layout else labels


@st.composite
def softmax(draw: st.DrawFn, count: int, num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    return rng.dirichlet(np.ones(num_classes), count).astype(draw(st.sampled_from(["f2", "f4", "f8"])))


@st.composite
def corrupting(draw: st.DrawFn) -> dict[str, Any]:
    num_classes = draw(st.sampled_from([4, 10]))
    labels = draw(labels_of(num_classes))
    shape = (len(labels), *draw(hnp.array_shapes(max_dims=2, max_side=4)))
    return {
        "labels": labels,
        "spec": draw(st.sampled_from(SPECS + MAPPED * (num_classes == 10))),
        "seed": draw(SEEDS),
        "num_classes": num_classes,
        "threads": draw(THREADS),
        "inputs": draw(
            hnp.arrays(st.sampled_from(["u1", "i2", "f4"]), shape, elements={"min_value": 0, "max_value": 99})
        ),
        "posteriors": draw(softmax(len(labels), num_classes)),
    }


@st.composite
def sweeping(draw: st.DrawFn) -> dict[str, Any]:
    num_classes = draw(st.sampled_from([2, 10, 100]))
    return {
        "labels": draw(labels_of(num_classes)),
        "spec": draw(st.sampled_from(["symmetric", "symmetric,true_class=included", "pair"])),
        "rates": draw(st.lists(RATES, min_size=1, max_size=4)),
        "seeds": draw(st.lists(SEEDS, min_size=1, max_size=3)),
        "num_classes": num_classes,
        "threads": draw(THREADS),
    }


def swept(arguments: dict[str, Any], noisy: np.ndarray) -> None:
    assert noisy.shape == (len(arguments["rates"]), len(arguments["seeds"]), len(arguments["labels"]))
    kind, comma, options = arguments["spec"].partition(",")
    alone = corrupt(
        arguments["labels"],
        f"{kind}:{arguments['rates'][0]}{comma}{options}",
        seed=arguments["seeds"][0],
        num_classes=arguments["num_classes"],
    )
    assert np.array_equal(noisy[0, 0], alone.labels)


@st.composite
def tagging(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.integers(1, 40)), draw(st.integers(3, 8))
    tags = draw(hnp.arrays(st.sampled_from([*INTEGERS, "?"]), shape, elements=st.integers(0, 1)))
    return {
        "labels": laid_out(tags, draw(LAYOUTS)),
        "rate": draw(RATES),
        "seed": draw(SEEDS),
        "group": draw(st.sampled_from(["0-2", "0+2", "1-2"])),
        "cardinality": draw(st.sampled_from(["kept", "free"])),
    }


@st.composite
def regressing(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2, unique=True)))
    values = draw(hnp.arrays("f8", st.integers(1, 50), elements=st.floats(-1e300, 1e300)))
    return {
        "values": laid_out(values, draw(LAYOUTS)),
        "sigma": draw(st.floats(1e-300, 1e300)),
        "seed": draw(SEEDS),
        "low": low,
        "high": high,
    }


def stays_in_range(arguments: dict[str, Any], noisy: np.ndarray) -> None:
    values = np.asarray(arguments["values"], np.float64)
    inside = (values >= arguments["low"]) & (values <= arguments["high"])
    assert np.array_equal(noisy[~inside], values[~inside])
    assert np.all((noisy[inside] >= arguments["low"]) & (noisy[inside] <= arguments["high"]))


@st.composite
def staging(draw: st.DrawFn, dimensions: int = 2) -> dict[str, Any]:
    shape = draw(hnp.array_shapes(min_dims=dimensions, max_dims=dimensions, max_side=90))
    losses = draw(hnp.arrays("f4", shape, elements=st.floats(0, 2, width=32) | st.just(np.nan)))
    predictions = draw(hnp.arrays(st.sampled_from(INTEGERS), shape, elements=st.integers(0, 3)))
    return {"losses": laid_out(losses, draw(LAYOUTS)), "predictions": laid_out(predictions, draw(LAYOUTS))}


@st.composite
def choosing(draw: st.DrawFn) -> dict[str, Any]:
    options = ConsensusOptions(draw(st.sampled_from(["below", "at_most"])), agree=draw(st.booleans()))
    return {
        **draw(staging()),
        "threshold": draw(st.floats(0, 2) | st.sampled_from([np.inf, -np.inf])),
        "options": options,
        "threads": draw(THREADS),
    }


def chosen(arguments: dict[str, Any], result: Any) -> None:
    losses, predictions, options = (np.asarray(arguments[k]) if k != "options" else arguments[k] for k in
                                    ("losses", "predictions", "options"))  # fmt: skip
    threshold = arguments["threshold"]
    below = losses.astype(np.float64) < threshold
    if options.compare == "at_most" and threshold != np.inf:
        below |= losses.astype(np.float64) == float(threshold)
    expected = (below & np.isfinite(losses)).all(0) & ((predictions == predictions[0]).all(0) | (not options.agree))
    assert np.array_equal(result.index, np.flatnonzero(expected))
    assert result.pseudo_labels.tolist() == predictions[-1][expected].tolist()


@st.composite
def counting(draw: st.DrawFn) -> dict[str, Any]:
    arguments = draw(staging(draw(st.sampled_from([2, 3]))))
    return {
        **arguments,
        "thresholds": draw(st.lists(st.floats(-1, 3), max_size=5)),
        "true_labels": draw(labels_of(4, arguments["losses"].shape[-1])),
        "threads": draw(THREADS),
    }


@st.composite
def auditing(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 100))
    return {
        "clean": draw(labels_of(5, count)),
        "given": draw(labels_of(5, count)),
        "num_classes": draw(st.sampled_from([5, 10])),
        "nominal": draw(st.none() | st.sampled_from([*SPECS, *MAPPED])),
    }


@st.composite
def factoring(draw: st.DrawFn) -> dict[str, Any]:
    labels = draw(labels_of(4))
    probs = 0.6 * np.eye(4)[labels] + 0.4 * draw(softmax(len(labels), 4)).astype(np.float64)
    return {"labels": labels, "posteriors": probs, "rate": draw(RATES), "kind": draw(st.integers(1, 3))}


def raw(draw: st.DrawFn) -> dict[str, Any]:
    num_classes = draw(st.sampled_from([2, 10, 300, 2**31 - 1]))
    labels = draw(labels_of(num_classes, layout=False))
    return {
        "labels": labels,
        "num_classes": num_classes,
        "rate": draw(RATES),
        "seed": draw(SEEDS),
        "threads": draw(THREADS),
    }


@st.composite
def raw_symmetric(draw: st.DrawFn) -> dict[str, Any]:
    return {**raw(draw), "include_true_class": draw(st.booleans())}


@st.composite
def raw_pair(draw: st.DrawFn) -> dict[str, Any]:
    return raw(draw)


@st.composite
def raw_mapped(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "labels": draw(labels_of(10, layout=False)),
        "class_map": draw(st.lists(st.integers(0, 9), min_size=10, max_size=10)),
        "rate": draw(RATES),
        "seed": draw(SEEDS),
        "threads": draw(THREADS),
    }


@st.composite
def raw_matrix(draw: st.DrawFn) -> dict[str, Any]:
    transition = np.random.default_rng(draw(st.integers(0, 9))).dirichlet(np.ones(4), 4)
    labels = draw(labels_of(4, layout=False))
    return {"labels": labels, "transition": transition, "seed": draw(SEEDS), "threads": draw(THREADS)}


@st.composite
def raw_quota(draw: st.DrawFn) -> dict[str, Any]:
    arguments = {**raw(draw), "include_true_class": False, "per_class": draw(st.booleans())}
    if arguments["num_classes"] == 10:
        arguments["class_map"] = draw(st.none() | st.lists(st.integers(0, 9), min_size=10, max_size=10))
    return arguments


@st.composite
def raw_sweep(draw: st.DrawFn) -> dict[str, Any]:
    labels = draw(labels_of(10, layout=False))
    rates, seeds = draw(st.lists(RATES, max_size=3)), draw(st.lists(SEEDS, max_size=3))
    return {
        "labels": labels,
        "out": np.full((len(rates), len(seeds), len(labels)), 10, labels.dtype),
        "num_classes": 10,
        "rates": rates,
        "seeds": seeds,
        "kind": draw(st.sampled_from(["excluded", "included", "pair"])),
        "threads": draw(THREADS),
    }


@st.composite
def raw_members(draw: st.DrawFn) -> dict[str, Any]:
    shape = (1, *draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=90)))
    return {
        "losses": draw(hnp.arrays("f4", shape)),
        "predictions": draw(hnp.arrays(st.sampled_from(["u1", "i1", "u2", "i4"]), shape)),
        "threshold": draw(st.floats(width=32)),
        "agree": draw(st.booleans()),
        "threads": draw(THREADS),
    }


@st.composite
def raw_counts(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=70))
    predictions = draw(hnp.arrays(st.sampled_from(["u1", "i1", "u2", "i4"]), shape))
    return {
        "losses": draw(hnp.arrays("f4", shape)),
        "predictions": predictions,
        "thresholds": sorted(draw(st.lists(st.floats(allow_nan=False, width=32), max_size=4))),
        "agree": draw(st.booleans()),
        "stage": draw(st.integers(0, shape[1] - 1)),
        "labels": draw(st.none() | st.just(np.zeros(shape[2], predictions.dtype))),
        "true_labels": draw(st.none() | st.just(np.ones(shape[2], predictions.dtype))),
        "threads": draw(THREADS),
    }


@st.composite
def raw_mask(draw: st.DrawFn) -> dict[str, Any]:
    mask = draw(hnp.arrays("u1", st.integers(0, 40)))
    return {"mask": mask, "count": int(np.unpackbits(mask).sum())}


RAW = (TypeError, ValueError, MemoryError, OverflowError)
COUNTS = st.integers(-(2**64), 2**64) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
NUMBERS = st.floats() | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, -5e-324, np.nextafter(1, 2)])
ODD_SPECS = st.text(max_size=12) | st.sampled_from(
    [
        *SPECS,
        *MAPPED,
        "human:a",
        "asymmetric:0.4",
        "matrix:none.npy",
        "asymmetric:0.4,map=sce",
        "pmd:0.4,posteriors=no.npy",
    ]
)
ODD_LABELS = hnp.arrays(st.sampled_from(INTEGERS), st.integers(0, 130)) | any_array()
ODD = {
    "labels": ODD_LABELS,
    "num_classes": st.integers(-3, 20) | COUNTS,
    "seed": COUNTS,
    "threads": st.integers(max_value=-1) | st.none() | st.integers(2**16 + 1),
    "rate": NUMBERS,
    "spec": ODD_SPECS,
    "rates": st.lists(NUMBERS, max_size=3),
    "seeds": st.lists(COUNTS, max_size=3),
    "class_map": st.lists(COUNTS, max_size=12),
    "count": COUNTS,
    "stage": COUNTS,
}
LABELLED = {"num_classes": ("num_classes", "labels", "spec", "noise", "posteriors", "classes"), "seed": ("seed",)}

ENTRIES = {
    "corrupt": Entry(
        corrupt,
        corrupting(),
        {**ODD, "dataset": st.text(max_size=5)},
        {
            **LABELLED,
            "labels": ("labels", "inputs", "posteriors", "noise 'pmd'"),
            "spec": ("noise", "spec"),
            "inputs": ("inputs", "idn"),
            "": ("rate 0.4 is impossible",),
        },
        same_shape,
        optional=("dataset", "human_labels"),
    ),
    "corrupt_sweep": Entry(
        corrupt_sweep,
        sweeping(),
        {**ODD, "spec": ODD_SPECS, "out": JUNK},
        {**LABELLED, "spec": ("noise", "spec", "sweep"), "rates": ("rates", "rate", "noise"), "seeds": ("seed",)},
        swept,
        optional=("dataset", "out"),
    ),
    "corrupt_multilabel": Entry(
        corrupt_multilabel,
        tagging(),
        ODD,
        {"labels": ("group",), "group": ("names no classes",), "": ("sample",)},
    ),
    "corrupt_regression": Entry(
        corrupt_regression, regressing(), {**ODD, "sigma": NUMBERS, "low": NUMBERS, "high": NUMBERS}, {}, stays_in_range
    ),
    "pmd_factor": Entry(pmd_factor, factoring(), ODD, {"labels": ("posteriors",), "": ("is impossible",)}),
    "audit": Entry(
        audit,
        auditing(),
        {**ODD, "nominal": ODD_SPECS},
        {"nominal": ("noise", "spec"), "num_classes": ("classes", "clean", "given")},
    ),
    "class_map": Entry(class_map, st.fixed_dictionaries({"name": st.sampled_from(["sce", "mnist"]), "seed": SEEDS})),
    "parse": Entry(
        parse, st.fixed_dictionaries({"text": st.sampled_from(SPECS)}), {"text": ODD_SPECS}, {"text": ("noise",)}
    ),
    "consensus": Entry(
        consensus,
        choosing(),
        {**ODD, "threshold": NUMBERS, "options": st.builds(ConsensusOptions, label_stage=COUNTS)},
        {"options": ("label_stage",)},
        chosen,
    ),
    "consensus_sweep": Entry(
        consensus_sweep,
        counting(),
        {**ODD, "thresholds": st.lists(NUMBERS, max_size=3), "labels": ODD_LABELS | st.none()},
        {"thresholds": ("threshold",), "losses": ("true_labels",), "predictions": ("true_labels",)},
    ),
    "_C.check_labels": Entry(
        _C.check_labels,
        st.fixed_dictionaries({"labels": labels_of(10, layout=False), "num_classes": st.just(10)}),
        ODD, {"labels": ("labels", "position"), "num_classes": ("num_classes", "position")}, errors=RAW,
    ),
    "_C.corrupt_symmetric": Entry(_C.corrupt_symmetric, raw_symmetric(), ODD, errors=RAW),
    "_C.corrupt_pair": Entry(_C.corrupt_pair, raw_pair(), ODD, errors=RAW),
    "_C.corrupt_mapped": Entry(_C.corrupt_mapped, raw_mapped(), ODD, errors=RAW),
    "_C.corrupt_matrix": Entry(
        _C.corrupt_matrix,
        raw_matrix(),
        {**ODD, "transition": hnp.arrays("f8", hnp.array_shapes(max_dims=2, max_side=5), elements=NUMBERS)},
        errors=RAW,
    ),
    "_C.corrupt_quota": Entry(_C.corrupt_quota, raw_quota(), ODD, errors=RAW),
    "_C.corrupt_sweep": Entry(_C.corrupt_sweep, raw_sweep(), {**ODD, "kind": st.text(max_size=4)}, errors=RAW),
    "_C.consensus_members": Entry(_C.consensus_members, raw_members(), ODD, errors=RAW),
    "_C.consensus_counts": Entry(_C.consensus_counts, raw_counts(), {**ODD, "labels": any_array()}, errors=RAW),
    "_C.mask_index": Entry(_C.mask_index, raw_mask(), ODD, errors=RAW),
}  # fmt: skip


def fuzz(name: str, examples: int) -> None:
    entry = ENTRIES[name]

    @settings(deadline=None, max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        arguments = data.draw(entry.fitting)
        names = sorted({*arguments, *entry.optional})
        replaced = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
        for key in replaced:
            arguments[key] = data.draw(entry.odd[key] | JUNK if key in entry.odd else JUNK)
        try:
            result = entry.call(**arguments)
        except entry.errors as error:
            event("refused")
            message = str(error)
            if entry.errors == RAW:  # the position in the labels, the row of the matrix; the last is NumPy's own
                words = [*arguments, "position", "row", "num_classes", "rate", "unsized object"]
            else:
                assert "\n" not in message
                words = [*replaced, *(word for key in (*replaced, "") for word in entry.words.get(key, ()))]
            assert any(word in message for word in words), (replaced, message)
        else:
            event("answered")
            if not replaced:
                entry.check(arguments, result)

    run()


@pytest.mark.parametrize("name", ENTRIES)
def test_anything(name: str):
    fuzz(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_much_of_anything(name: str):
    fuzz(name, 2000)


# Files


def contents(noisy: NoisyLabels, folder: Path) -> dict[str, bytes]:
    """Good files of every kind, to be damaged."""
    noisy.save(folder / "own.npz")
    np.savez(folder / "plain.npz", x=noisy.labels, y=noisy.labels[:3])
    np.save(folder / "a.npy", noisy.labels.astype(np.uint8))
    np.save(folder / "T.npy", np.full((4, 4), 0.25))
    write_csv(noisy, folder / "a.csv")
    (folder / "a.txt").write_text("".join(f"{label}\n" for label in noisy.labels))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fuzz_files(folder: Path, examples: int) -> None:
    good = contents(corrupt(cyclic(40, 4), "symmetric:0.5", seed=0, num_classes=4), folder)
    parts = {".npz": ["", ":x", ":labels", ":no"], ".csv": ["", ":label", ":clean_label", ":no"]}

    @settings(deadline=None, max_examples=examples, database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(good)))
        content = bytearray(good[name])
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(content)))
            match data.draw(st.sampled_from(["cut", "insert", "overwrite", "drop"])):
                case "cut":
                    del content[place:]
                case "insert":
                    content[place:place] = data.draw(st.binary(max_size=9))
                case "overwrite":
                    new = data.draw(st.binary(min_size=1, max_size=9))
                    content[place : place + len(new)] = new
                case "drop":
                    del content[place : place + data.draw(st.integers(1, 9))]
        path = folder / f"damaged{Path(data.draw(st.sampled_from(sorted(good)) | st.just(name))).suffix}"
        path.write_bytes(content)
        source = str(path) + data.draw(st.sampled_from(parts.get(path.suffix, [""])))
        with warnings.catch_warnings():  # the npy reader's own, on headers of Python 2
            warnings.simplefilter("ignore")
            labels = result_or_refusal(lambda: read_labels(source))
            result_or_refusal(lambda: read_transition(path, 4))
            result_or_refusal(lambda: NoisyLabels.load(path))
        event("refused" if labels is None else "read")
        if isinstance(labels, np.ndarray):
            assert labels.dtype == np.int64
            assert labels.ndim == 1
            assert labels.size

    run()


def test_damaged_files(tmp_path: Path):
    fuzz_files(tmp_path, 300)


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path):
    fuzz_files(tmp_path, 20_000)


# Beyond 2^31


HUGE = 2**31 + 5
LABELS = np.broadcast_to(np.uint8(1), HUGE)  # one byte of memory
LOSSES = np.broadcast_to(np.float32(0.5), (3, HUGE))


@pytest.mark.parametrize(
    ("what", "call"),
    [
        *(
            ("labels", lambda spec=spec: corrupt(LABELS, spec, seed=0, num_classes=10, inputs=LABELS[:, None]))
            for spec in (*SPECS, *MAPPED)
        ),
        ("labels", lambda: corrupt_sweep(LABELS, "pair", [0.1, 0.2], [0], num_classes=10)),
        ("out", lambda: corrupt_sweep(np.zeros(2**20, np.uint8), "pair", [0.1] * 64, range(64), num_classes=10)),
        ("labels", lambda: corrupt_multilabel(np.broadcast_to(True, (HUGE, 9)), 0.1, seed=0, group="0-2")),
        ("values", lambda: corrupt_regression(LABELS, 1.0, seed=0, low=0.0, high=2.0)),
        ("posteriors", lambda: pmd_factor(LABELS, np.broadcast_to(np.float32(0.5), (HUGE, 2)), 0.4, 1)),
        ("clean", lambda: audit(LABELS, LABELS, num_classes=10)),
        ("losses", lambda: consensus(LOSSES, np.broadcast_to(np.uint8(1), (3, HUGE)), 0.7)),
        ("losses", lambda: consensus_sweep(LOSSES, np.broadcast_to(np.uint8(1), (3, HUGE)), [0.7])),
        ("projection", lambda: corrupt([0, 1], "idn:0.4", seed=0, num_classes=2**31 - 1, inputs=np.zeros((2, 4)))),
    ],
)
def test_what_memory_has_no_room_for_is_refused(what: str, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch):
    """A view of 2^31 + 5 labels in one byte. Nothing is copied before it is known to fit."""
    monkeypatch.setattr(checks, "free_memory", lambda: 1 << 31)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(DataError, what, "GB of memory, but 2.1 GB are free"):
        call()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


def test_counts_of_too_many_classes_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "free_memory", lambda: 1 << 31)
    noisy = corrupt([0, 2**30], "symmetric:1", seed=0, num_classes=2**31 - 1)
    for question in ("transition", "class_rates"):
        with refused(DataError, "classes: this takes", "GB of memory"):
            getattr(noisy, question)


def test_the_memory_that_is_free_is_known_on_linux():
    free = checks.free_memory()
    if sys.platform == "linux":
        assert free is not None
        assert 1 << 24 < free < 1 << 50
    checks.require_memory("nothing", 0)


def test_raw_views_of_one_byte_are_refused():
    for call in (
        lambda: _C.check_labels(LABELS, 10),
        lambda: _C.corrupt_pair(LABELS, num_classes=10, rate=0.4, seed=0, threads=1),
        lambda: _C.corrupt_quota(
            LABELS, num_classes=10, rate=0.4, seed=0, threads=1, include_true_class=False, per_class=False
        ),
        lambda: _C.corrupt_matrix(LABELS, np.eye(10), seed=0, threads=1),
    ):
        with pytest.raises(ValueError, match="labels must be contiguous"):
            call()


@pytest.mark.slow
def test_labels_beyond_2_31():
    """As many real labels: positions and draws are those of 64-bit numbers."""
    if (checks.free_memory() or 0) < 3 * HUGE:
        pytest.skip("needs 6.5 GB of free memory")
    labels = np.ones(HUGE, np.uint8)
    out = np.zeros((1, 1, HUGE), np.uint8)
    _C.corrupt_sweep(labels, out, num_classes=10, rates=[0.37], seeds=[3], kind="pair", threads=2)
    tail = 10_003
    u = np.array([core_uniform(3, sample) for sample in range(HUGE - tail, HUGE)])
    assert np.array_equal(out[0, 0, -tail:], 1 + (u < int(0.37 * 2**48)))
    labels[-2] = 10
    with pytest.raises(_C.LabelError, match=f"position {HUGE - 2} holds 10"):
        _C.check_labels(labels, 10)
