"""The tables that sample selection reads, against their definitions in float64; the Triton kernel without a GPU."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck

import fastnoise
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import debug
from fastnoise.selection import StageTables

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOSSES = (("ce", "l1"), ("nce+mae", "l1"), ("nce+mae", "reduced"))


def exact(logits: Tensor, labels: Tensor | None, loss: str, mae: str) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, prediction and confidence as their definitions say, in float64."""
    log_probs = logits.double().log_softmax(1)
    probs = log_probs.exp()
    prediction = logits.argmax(1)
    chosen = prediction if labels is None else labels
    one_hot = nn.functional.one_hot(chosen, logits.shape[1])
    ce = -(one_hot * log_probs).sum(1)
    if loss == "ce":
        return ce, prediction, probs.amax(1)
    nce = ce / -log_probs.sum(1)
    distance = (one_hot - probs).abs().sum(1)
    return nce + (distance if mae == "l1" else distance / 2), prediction, probs.amax(1)


def batch(num_samples: int, num_classes: int, size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, distinct indices, labels."""
    random = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(size, num_classes, generator=random),
        torch.randperm(num_samples, generator=random)[:size],
        torch.randint(num_classes, (size,), generator=random),
    )


@pytest.mark.parametrize("given", [False, True], ids=["predicted", "given"])
@pytest.mark.parametrize(("loss", "mae"), LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_matches_definitions(num_classes: int, dtype: str, loss: str, mae: str, given: bool) -> None:
    """Three stages; a stage's untouched samples and the other stages stay as they were."""
    tables = StageTables(3, 30, loss=loss, mae=mae)
    seen = torch.zeros(3, 30, dtype=torch.bool)
    for stage in (2, 0):
        logits, index, labels = batch(30, num_classes, seed=stage)
        logits = logits.to(DTYPES[dtype])
        tables.record(stage, logits, index, labels if given else None)
        losses, prediction, confidence = exact(logits, labels if given else None, loss, mae)
        torch.testing.assert_close(tables.loss[stage, index].double(), losses, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tables.confidence[stage, index].double(), confidence, rtol=1e-5, atol=1e-6)
        assert torch.equal(tables.prediction[stage, index], prediction.int())
        seen[stage, index] = True
    assert torch.equal(tables.loss.isnan(), ~seen)
    assert torch.equal(tables.confidence.isnan(), ~seen)
    assert torch.equal(tables.prediction == -1, ~seen)


def test_a_second_record_overwrites_and_clear_forgets() -> None:
    tables = StageTables(2, 30)
    logits, index, _ = batch(30, 10)
    tables.record(1, torch.zeros(9, 10), index)
    tables.record(1, logits, index)
    fresh = StageTables(2, 30)
    fresh.record(1, logits, index)
    for name, buffer in fresh.named_buffers():
        assert torch.equal(getattr(tables, name).nan_to_num(-5), buffer.nan_to_num(-5))
    tables.clear()
    assert tables.loss.isnan().all()
    assert tables.confidence.isnan().all()
    assert (tables.prediction == -1).all()


def test_l1_below_one_means_more_than_half_and_reduced_does_not() -> None:
    """The two forms of MAE at the threshold of the stages: p_y = 0.06 beside one class of 0.94 passes the reduced."""
    probs = torch.full((1, 10), 1e-7)
    probs[0, 0], probs[0, 1] = 0.06, 0.94
    for mae, passes in (("l1", False), ("reduced", True)):
        tables = StageTables(1, 1, mae=mae)
        tables.record(0, probs.log(), torch.tensor([0]), torch.tensor([0]))
        assert (tables.loss[0, 0] < 1) == passes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "mae"), LOSSES)
def test_extreme_logits(loss: str, mae: str, dtype: str) -> None:
    logits = torch.zeros(6, 10)
    logits[1, 0] = logits[2, 3] = 1e4
    logits[3] = torch.linspace(-1e4, 1e4, 10)
    logits[4], logits[5] = 1e4, -1e4
    logits = logits.to(DTYPES[dtype])
    for labels in (None, torch.zeros(6, dtype=torch.int64)):
        tables = StageTables(1, 6, loss=loss, mae=mae)
        tables.record(0, logits, torch.arange(6), labels)
        losses, prediction, confidence = exact(logits, labels, loss, mae)
        torch.testing.assert_close(tables.loss[0].double(), losses, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(tables.confidence[0].double(), confidence, rtol=1e-6, atol=1e-6)
        assert torch.equal(tables.prediction[0].long(), prediction)


def test_ties_take_the_first_class_and_nan_none() -> None:
    logits = torch.zeros(2, 10)
    logits[0, [4, 7]] = 1.0
    logits[1, 2] = float("nan")
    tables = StageTables(1, 2)
    tables.record(0, logits, torch.arange(2))
    assert tables.prediction[0].tolist() == [4, -1]
    assert tables.loss[0].isnan().tolist() == tables.confidence[0].isnan().tolist() == [False, True]


def test_takes_no_gradient() -> None:
    logits, index, _ = batch(30, 10)
    tables = StageTables(1, 30)
    tables.record(0, logits.requires_grad_(), index)
    assert not any(buffer.requires_grad for buffer in tables.buffers())


def test_state_dict_and_casts() -> None:
    tables = StageTables(2, 30)
    tables.record(1, *batch(30, 10)[:2])
    tables.half()
    kinds = {name: buffer.dtype for name, buffer in tables.named_buffers()}
    assert kinds == {"loss": torch.float32, "prediction": torch.int32, "confidence": torch.float32}
    loaded = StageTables(2, 30)
    loaded.load_state_dict(tables.state_dict())
    assert torch.equal(loaded.prediction, tables.prediction)
    assert torch.equal(loaded.loss.nan_to_num(-5), tables.loss.nan_to_num(-5))
    assert fastnoise.selection.StageTables is StageTables
    assert repr(tables) == "StageTables(num_stages=2, num_samples=30, loss='nce+mae', mae='l1')"


@pytest.mark.parametrize("given", [False, True])
def test_opcheck(given: bool) -> None:
    logits, index, labels = batch(30, 10)
    tables = StageTables(2, 30)
    buffers = tables.loss.zero_(), tables.prediction, tables.confidence.zero_()
    opcheck(torch.ops.fastnoise.select.default, (logits, labels if given else None, index, *buffers, 1, False, 2.0))


def test_compiled_equals_eager() -> None:
    """One graph, batch sizes and stages that change, tables updated in place."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = nn.Linear(10, 10)
    eager, module = StageTables(3, 30), StageTables(3, 30)

    def record(tables: StageTables, stage: int, inputs: Tensor, index: Tensor, labels: Tensor) -> None:
        tables.record(stage, layer(inputs), index, labels)

    compiled = torch.compile(record, fullgraph=True)
    for stage, size in ((0, 9), (1, 9), (2, 7)):
        inputs, index, labels = batch(30, 10, size=size, seed=stage)
        record(eager, stage, inputs, index, labels)
        compiled(module, stage, inputs, index, labels)
    assert (module.prediction >= 0).sum() == 25
    for name, buffer in eager.named_buffers():
        torch.testing.assert_close(getattr(module, name), buffer, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StageTables(0, 5), "num_stages is 0: give at least 1"),
        (lambda: StageTables(3, 0), "num_samples is 0"),
        (lambda: StageTables(3, 5, loss="nce"), r"unknown loss 'nce': did you mean 'ce'\? valid: ce, nce\+mae"),
        (lambda: StageTables(3, 5, mae="l2"), "unknown mae 'l2': did you mean 'l1'"),
    ],
)
def test_refused_options(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", torch.zeros(9, 10, dtype=torch.float64), "logits is float64"),
        ("logits", torch.zeros(9, 1), ".*at least two classes"),
        ("logits", [[0.0, 1.0]], "logits is list; expected a tensor"),
        ("index", torch.arange(8), r"index is int64 \[8\]; expected int64 \[9\], one per row of logits"),
        ("index", torch.arange(9, dtype=torch.int32), "index is int32"),
        ("index", None, "index is NoneType; expected a tensor"),
        ("index", torch.arange(9) + 22, r"index 30 is outside 0\.\.29, for a number of samples of 30"),
        ("index", torch.arange(9) - 1, r"index -1 is outside 0\.\.29"),
        ("index", torch.zeros(9, dtype=torch.int64, device="meta"), "index on meta, logits on cpu"),
        ("labels", torch.zeros(9), "labels is float32"),
        ("labels", torch.arange(9) + 2, r"label 10 is outside 0\.\.9"),
        ("stage", 2, r"stage 2 is outside 0\.\.1, for 2 stages"),
        ("stage", -1, r"stage -1 is outside 0\.\.1"),
    ],
)
def test_refused_tensors(name: str, value: object, message: str) -> None:
    logits, index, labels = batch(30, 10)
    tables = StageTables(2, 30)
    with pytest.raises(DataError, match=f"select: {message}") as error:
        tables.record(**({"stage": 0, "logits": logits, "index": index, "labels": labels} | {name: value}))
    assert "\n" not in str(error.value)
    assert (tables.prediction == -1).all(), "a refused batch must leave the tables alone"


def test_refused_buffers() -> None:
    tables = StageTables(2, 30)
    tables.loss = tables.loss.double()
    with pytest.raises(DataError, match=r"select: loss is float64 \[2, 30\]; expected contiguous float32 \[S, N\]"):
        tables.record(0, *batch(30, 10)[:2])


def test_debug_names_a_duplicate() -> None:
    logits, index, _ = batch(30, 10)
    index[5] = index[2]
    with debug(), pytest.raises(DataError, match=rf"select: index {int(index[2])} occurs twice .* in rows 2 and 5"):
        StageTables(1, 30).record(0, logits, index)


# --- The Triton kernel without a GPU

# Rows that share a program, a block to themselves, and rows in stretches, the last of them partly filled.
CASES = [
    *product((2, 10, 14, 100, 1000), ("float32", "bfloat16"), (None,)),
    *product((100, 1000), DTYPES, (16, 64)),
    (9000, "float32", None),
]


@pytest.fixture(scope="module")
def interpreted() -> list[Any]:
    pytest.importorskip("triton", reason="needs triton")
    from _interpret import interpret

    return interpret("_table_cases.py", [*(["selected", *case] for case in CASES), ["strange_selected"]])


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_triton_matches_the_cpu(interpreted: list[Any], number: int) -> None:
    found = interpreted[number]
    assert found["prediction"] == 0
    assert found["loss"] < 2e-6
    assert found["confidence"] < 1e-6


def test_triton_rows_of_nan_ties_and_indices_out_of_range(interpreted: list[Any]) -> None:
    """Rows 0..3: NaN, a tie, two labels out of range; the last two rows have an index out of range."""
    assert interpreted[-1] == {
        "loss": [True, False] + 6 * [True],
        "prediction": [-1, 4, 0, 0, -1, -1, -1, -1],
        "confidence": [True, False, False, False] + 4 * [True],
    }


def check_ahead(num_classes: int, dtype: str, arch: int, labels: bool, ce: bool, folder: Path) -> None:
    import re

    from _ahead import compile_ahead, spilled
    from fastnoise.kernels import row, select

    given = row.constants(num_classes)
    types = {"logits_BC": {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}[dtype], "index_B": "*i64"}
    types |= {"loss_N": "*fp32", "prediction_N": "*i32", "confidence_N": "*fp32", "num_rows": "i32"}
    types |= {"num_samples": "i32"} | ({"labels_B": "*i64"} if labels else {})
    constants = {"C": num_classes, "CE": ce, "MAE": 2.0}
    kernel = compile_ahead(select.select_rows, types, constants, arch, **given)
    used = spilled(kernel, folder)
    assert used["STACK"] == used["LOCAL"] == 0
    if num_classes % 8 == 0:
        assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])


@pytest.mark.parametrize("num_classes", [10, 100, 1000, 9000])
def test_compiles_ahead_of_time(num_classes: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    number = [10, 100, 1000, 9000].index(num_classes)
    for step, arch in enumerate((80, 90, 100)):
        check_ahead(num_classes, list(DTYPES)[(number + step) % 3], arch, step > 0, step == 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 10, 14, 100, 1000, 4096, 8192, 9000, 21841])
def test_compiles_ahead_of_time_everywhere(num_classes: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    for dtype, arch, labels, ce in product(DTYPES, (80, 90, 100), (False, True), (False, True)):
        check_ahead(num_classes, dtype, arch, labels, ce, tmp_path)


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("num_classes", [2, 10, 100, 1000, 9000, 21841])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_matches_definitions(self, dtype: str, num_classes: int) -> None:
        logits, index, labels = batch(200, num_classes, size=130)
        logits = logits.to(DTYPES[dtype])
        for (loss, mae), given in product(LOSSES, (None, labels)):
            tables = StageTables(2, 200, loss=loss, mae=mae).cuda()
            tables.record(1, logits.cuda(), index.cuda(), None if given is None else given.cuda())
            losses, prediction, confidence = exact(logits, given, loss, mae)
            torch.testing.assert_close(tables.loss[1].cpu()[index].double(), losses, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(tables.confidence[1].cpu()[index].double(), confidence, rtol=1e-5, atol=1e-6)
            assert torch.equal(tables.prediction[1].cpu()[index], prediction.int())
            assert (tables.prediction >= 0).sum() == 130

    def test_never_waits_for_the_device(self) -> None:
        logits, index, labels = (x.cuda() for x in batch(200, 100, size=130))
        tables = StageTables(2, 200).cuda()
        tables.record(0, logits, index, labels)
        torch.cuda.set_sync_debug_mode("error")
        try:
            tables.record(1, logits, index, labels)
            tables.clear()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_out_of_range(self) -> None:
        logits, index, labels = (x.cuda() for x in batch(200, 10))
        index[3], labels[5] = 200, 10
        tables = StageTables(1, 200).cuda()
        tables.record(0, logits, index, labels)
        assert (tables.prediction >= 0).sum() == 8
        assert tables.loss[0, index[5]].isnan()
        with debug(), pytest.raises(DataError, match=r"select: label 10 is outside 0\.\.9"):
            tables.record(0, logits, index, labels)
