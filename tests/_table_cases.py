"""Runs the Triton kernels on CPU tensors beside the CPU kernels; prints as JSON how far apart they end up.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported.
"""

import json
import sys
import warnings
from itertools import product

import torch
import triton
import triton.language as tl
from _interpret import prepare, stretches
from fastnoise.kernels import row, rules, select
from fastnoise.kernels.rounding import round_stochastically, row_key

import fastnoise.losses  # noqa: F401  which registers the ops
from fastnoise.ops import tables
from fastnoise.ops.registry import OPS
from fastnoise.selection import StageTables

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIONS = {"code": True, "reverse": 0.1, "gate": 0.4, "weighted": True}


@triton.jit
def rounded_rows(values, index_B, visits_B, out, num_rows, C: tl.constexpr, SEED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.arange(0, 16)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < num_rows) & (column < C)
    key = row_key(
        tl.load(index_B + row, mask=row < num_rows, other=0),
        tl.load(visits_B + row, mask=row < num_rows, other=0),
        SEED,
    )
    value = tl.load(values + row * C + column, mask=mask, other=0.0)
    tl.store(out + row * C + column, round_stochastically(value, key, column, out.dtype.element_ty), mask=mask)


def differing_roundings(dtype: str) -> int:
    """Values of all magnitudes, and what may come up beside them: how many are rounded differently on the two sides."""
    random = torch.Generator().manual_seed(0)
    values = torch.rand(16, 1000, generator=random) * 2.0 ** -torch.randint(0, 40, (16, 1000), generator=random)
    values[0, :8] = torch.tensor([0.0, 1.0, 1.0000001, -1e-7, 2.0**-14, 2.0**-24, 1e-40, float("nan")])
    index = torch.randint(2**40, (16,), generator=random)
    visits = torch.randint(2**31 - 1, (16,), generator=random, dtype=torch.int32)
    found = torch.empty(16, 1000, dtype=HALF[dtype])
    rounded_rows[(1,)](values, index, visits, found, 16, C=1000, SEED=2**31 - 1, BLOCK=1024)
    expected = tables.round_stochastically(values, HALF[dtype], index, visits, 2**31 - 1)
    return int((~torch.isclose(found.float(), expected.float(), rtol=0, atol=0, equal_nan=True)).sum())


def placed(name: str, dtype: str, rank: int, world: int, num_classes: int, stretch: int | None) -> dict[str, object]:
    """Four batches through both kernels of an op: are visits equal, and how far apart are tables and losses?"""
    op, num_samples, batch = OPS[name], 41, 9
    held = len(range(rank, num_samples, world))
    type_ = HALF.get(dtype, torch.float32)
    random = torch.Generator().manual_seed(0)
    one = torch.rand(held, num_classes, generator=random).softmax(1).to(type_), torch.zeros(held, dtype=torch.int32)
    one[0][::2] = 0
    other = tuple(x.clone() for x in one)
    loss = 0.0
    for _ in range(4):
        given = {
            "logits": 3 * torch.randn(batch, num_classes, generator=random),
            "attention": torch.randn(batch, generator=random),
            "labels": torch.randint(num_classes, (batch,), generator=random),
            "index": torch.randperm(held, generator=random)[:batch] * world + rank,
            "share": torch.rand(batch, generator=random),
            "knobs": torch.tensor([1.0, 0.9, 3.0]),
            **OPTIONS,
        }
        given |= {"pair_labels": given["labels"].roll(1), "pair_index": given["index"].roll(1)}
        results = []
        for by_triton, (targets, visits) in ((True, one), (False, other)):
            arguments = given | {"targets": targets}
            place = (None if dtype == "float32" else visits, rank, world, 7)
            inputs = (*(arguments[name] for name in op.names), None, "none", None, None, True, *place)
            if by_triton:
                rule = getattr(rules, name.upper())
                results.append(op.launch(row.launch, rule, inputs, geometry=stretches(stretch)))
            else:
                results.append(op.overload(*inputs))
        if op.loss:
            loss = max(loss, float(((results[0][0] - results[1][0]).abs() / results[1][0].abs().clamp(min=1)).max()))
    distance = (one[0].float() - other[0].float()).abs()
    return {
        "visits": one[1].tolist(),
        "visits_cpu": other[1].tolist(),
        "differing": float((distance > 1e-6).float().mean()),
        "distance": float(distance.max()),
        "loss": loss,
    }


def foreign() -> dict[str, object]:
    """An index of another shard, one beyond the shard and one below 0: which losses are NaN, which rows written."""
    targets = torch.zeros(10, 10)
    index = torch.tensor([1, 4, 5, 21, -1, -2, 3])
    knobs = torch.tensor([1.0, 0.7, 3.0])
    labels = torch.zeros(7, dtype=torch.int64)
    inputs = torch.zeros(7, 10), labels, index, targets, knobs, None, "none", None, None, True, None, 1, 2, 0
    loss, gradient = OPS["elr"].launch(row.launch, rules.ELR, inputs)
    return {
        "loss": loss.isnan().nonzero().flatten().tolist(),
        "gradient": gradient.isnan().all(1).nonzero().flatten().tolist(),
        "written": targets.any(1).nonzero().flatten().tolist(),
    }


def selected(num_classes: int, dtype: str, stretch: int | None) -> dict[str, float]:
    """StageTables filled by the Triton kernel against the CPU kernel's, over the losses, with labels and without."""
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(9, num_classes, generator=random)
    logits[0] = 5.0
    logits[1, -1] = 1e4
    logits[2] = -1e4
    logits[3] += 1e4
    logits[4, 0] = -1e4
    logits = logits.to(HALF.get(dtype, torch.float32))
    labels, index = torch.randint(num_classes, (9,), generator=random), torch.randperm(30, generator=random)[:9]
    worst = {"loss": 0.0, "prediction": 0.0, "confidence": 0.0}
    for loss, mae, given in product(("ce", "nce+mae"), ("l1", "reduced"), (None, labels)):
        expected = StageTables(2, 30, loss=loss, mae=mae)
        found = StageTables(2, 30)
        expected.record(1, logits, index, given)
        weight = {"l1": 2.0, "reduced": 1.0}[mae]
        stage = found.loss[1], found.prediction[1], found.confidence[1]
        select.launch(logits, given, index, *stage, loss == "ce", weight, stretches(stretch))
        for name, buffer in expected.named_buffers():
            other = getattr(found, name)
            if not torch.equal(buffer.isnan(), other.isnan()):
                worst[name] = float("inf")
            scale = buffer.nan_to_num().abs().clamp(min=1)
            distance = (buffer.nan_to_num() - other.nan_to_num()).abs() / scale
            worst[name] = max(worst[name], float(distance.max()))
    return worst


def strange_selected() -> dict[str, list[object]]:
    """Rows of NaN, ties, a label and indices out of range."""
    logits = torch.zeros(6, 10)
    logits[0] = float("nan")
    logits[1, 4:6] = 1.0
    tables_ = StageTables(1, 8)
    labels = torch.tensor([0, 4, 10, -1, 0, 0])
    index = torch.tensor([0, 1, 2, 3, 8, -1])
    stage = tables_.loss[0], tables_.prediction[0], tables_.confidence[0]
    select.launch(logits, labels, index, *stage, False, 2.0)
    return {
        "loss": stage[0].isnan().tolist(),
        "prediction": stage[1].tolist(),
        "confidence": stage[2].isnan().tolist(),
    }


if __name__ == "__main__":
    prepare()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy on NaN and log 0, which are meant
    request = json.load(sys.stdin)
    functions = {
        "rounding": differing_roundings,
        "placed": placed,
        "foreign": foreign,
        "selected": selected,
        "strange_selected": strange_selected,
    }
    json.dump([functions[name](*arguments) for name, *arguments in request], sys.stdout)
