"""How losses keep their targets: half precision, memory, shards, repeated indices, calls that are repeated."""

import os
import re
import subprocess
import sys
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from fastnoise import losses
from fastnoise.errors import CheckpointError, ConfigError, DataError
from fastnoise.losses import ELRLoss, NALLoss, TargetLoss, debug, merge_shards, table_bytes
from fastnoise.losses import tables as memory
from fastnoise.ops import tables
from fastnoise.ops.registry import OPS
from fastnoise.selection import StageTables

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES = {"float32": torch.float32, **HALF}
UPDATING = [name for name, op in OPS.items() if op.updates_table and op.overload.namespace == "fastnoise"]


def batch(
    num_samples: int, num_classes: int = 10, size: int = 8, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and distinct indices."""
    random = torch.Generator().manual_seed(seed)
    data = (
        3 * torch.randn(size, num_classes, generator=random),
        torch.randint(num_classes, (size,), generator=random),
        torch.randperm(num_samples, generator=random)[:size],
    )
    return tuple(x.to(device) for x in data)


def elr(num_samples: int = 20, num_classes: int = 10, **storage: Any) -> ELRLoss:
    return ELRLoss(num_samples, num_classes, strength=3.0, momentum=0.7, reduction="none", **storage)


def neighbours(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The largest number of a half type that is not above, and the smallest that is not below, as float64."""
    nearest = values.to(dtype)
    up = torch.nextafter(nearest, torch.tensor(2.0, dtype=dtype)).double()
    down = torch.nextafter(nearest, torch.tensor(-2.0, dtype=dtype)).double()
    exact, middle = values.double(), nearest.double()
    return torch.where(middle <= exact, middle, down), torch.where(middle >= exact, middle, up)


@pytest.mark.parametrize("dtype", HALF)
def test_rounding_goes_to_a_neighbour_and_is_right_on_average(dtype: str) -> None:
    """Over 4,096 samples; the largest and smallest binades, float16 subnormals, and 0 and 1, which stay."""
    values = torch.tensor([0.0, 1.0, 0.5, 0.999, 0.7003, 0.1, 1e-3, 7e-5, 3e-5, 2.5e-7, 4e-8])
    index = torch.arange(4096)
    rows = values.expand(4096, -1).contiguous()
    found = tables.round_stochastically(rows, HALF[dtype], index, torch.zeros(4096, dtype=torch.int32), 3).double()
    below, above = neighbours(values, HALF[dtype])
    assert ((found == below) | (found == above)).all()
    assert found.min() >= 0
    assert found.max() <= 1
    # The standard error of the share of roundings upwards is at most 0.5 / 64; 4.5 of them.
    spacing = (above - below).clamp(min=1e-30)
    share = (found.mean(0) - below) / spacing
    expected = (values.double() - below) / spacing
    assert ((share - expected).abs() <= 0.035).all()
    assert (share - expected)[3:].abs().max() > 0, "the values beyond the third are rounded both ways"


def test_rounding_keeps_to_the_range_and_keeps_nan() -> None:
    given = torch.tensor([[-1e-6, 1.0 + 1e-6, float("nan"), float("inf")]])
    for dtype in HALF.values():
        found = tables.round_stochastically(given, dtype, torch.tensor([5]), torch.tensor([1], dtype=torch.int32), 0)
        assert found[0, [0, 1, 3]].tolist() == [0.0, 1.0, 1.0]
        assert found[0, 2].isnan()


def test_rounding_depends_on_sample_visit_column_and_seed() -> None:
    rows = torch.full((64, 64), 0.7003)

    def ups(index: int, visit: int, seed: int) -> Tensor:
        given = torch.arange(64) + index, torch.full((64,), visit, dtype=torch.int32)
        return (tables.round_stochastically(rows, torch.bfloat16, *given, seed).float() > 0.7003).float()

    first = ups(0, 0, 0)
    assert torch.equal(first, ups(0, 0, 0))
    assert torch.equal(first[1:], ups(1, 0, 0)[:-1]), "a sample's bits do not depend on its place in the batch"
    for other in (ups(64, 0, 0), ups(0, 1, 0), ups(0, 0, 1), first.T, first.roll(1, 0), first.roll(1, 1)):
        correlation = torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 0.08  # of independent bits: 1/64 on average


@pytest.mark.parametrize("dtype", HALF)
def test_moving_average_follows_where_rounding_to_nearest_stalls(dtype: str) -> None:
    """NAL's targets from a one-hot towards p, at momentum 0.99 over 600 visits: 0.99^600 = 0.002 of it is left."""
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(256, -1)
    labels, index, attention = torch.zeros(256, dtype=torch.int64), torch.arange(256), torch.zeros(256)
    averages = {
        name: NALLoss(256, 4, strength=1.0, momentum=0.99, target_dtype=DTYPES[name]) for name in ("float32", dtype)
    }
    nearest = torch.zeros(4, dtype=HALF[dtype])
    nearest[0] = 1
    for _ in range(600):
        for loss in averages.values():
            loss(logits, labels, index, attention)
        nearest = (0.99 * nearest.float() + 0.01 * logits[0].softmax(0)).to(HALF[dtype])
    exact = averages["float32"].targets.mean(0)
    found = averages[dtype].targets.float().mean(0)
    assert (found - exact).abs().max() < 0.003
    stalled = (nearest.float() - exact).abs().max()
    assert stalled > (0.1 if dtype == "bfloat16" else 0.01), "the case must be one that stalls"
    assert averages[dtype].targets.max() <= 1
    assert averages[dtype].targets.min() >= 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    "make", [elr, lambda *sizes, **storage: NALLoss(*sizes, strength=1.0, momentum=0.7, **storage)]
)
def test_half_precision_stays_near_float32(make, dtype: str) -> None:
    """Five steps: targets within a few steps of the type, loss and gradient too."""
    half, full = make(20, 10, target_dtype=HALF[dtype]), make(20, 10)
    precision = torch.finfo(HALF[dtype]).eps
    for step in range(5):
        logits, labels, index = batch(20, seed=step)
        attention = (torch.zeros(8),) if isinstance(half, NALLoss) else ()
        results = []
        for loss_of in (half, full):
            leaf = logits.clone().requires_grad_()
            loss = loss_of(leaf, labels, index, *attention)
            loss.sum().backward()
            results.append((loss.detach(), leaf.grad))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=0.1 * 128 * precision, rtol=8 * precision)
    assert (half.targets.float() - full.targets).abs().max() < 3 * precision
    assert half.visits.sum() == 5 * 8
    assert torch.equal(half.targets.any(1), half.visits > 0)


@pytest.mark.parametrize("dtype", HALF)
def test_visited_row_never_looks_unvisited(dtype: str) -> None:
    """Equal logits over 21,841 classes: a target of 4.6e-7 each, of which float16 has only steps of 6e-8."""
    loss_of = ELRLoss(2, 21841, strength=3.0, momentum=0.99, target_dtype=HALF[dtype])
    loss_of(torch.full((1, 21841), 1e4), torch.tensor([7]), torch.tensor([1]))
    assert loss_of.targets.any(1).tolist() == [False, True]
    assert float(loss_of.targets[1].float().sum()) == pytest.approx(0.01, rel=0.02)
    assert loss_of.hard_targets(torch.tensor([3, 4]))[0] == 3


@pytest.mark.parametrize("dtype", HALF)
def test_extreme_logits_leave_finite_targets(dtype: str) -> None:
    logits = torch.zeros(6, 10)
    logits[1, 0] = logits[2, 3] = 1e4
    logits[3] = torch.linspace(-1e4, 1e4, 10)
    logits[4], logits[5] = 1e4, -1e4
    labels, index = torch.zeros(6, dtype=torch.int64), torch.arange(6)
    for variant in ("paper", "code"):
        loss_of = NALLoss(6, 10, strength=1.0, momentum=0.9, variant=variant, target_dtype=HALF[dtype])
        for _ in range(3):
            given = logits.clone().requires_grad_()
            loss = loss_of(given, labels, index, torch.linspace(-1e4, 1e4, 6))
            loss.backward()
            assert loss.isfinite()
            assert given.grad.isfinite().all()
        assert loss_of.targets.isfinite().all()
        assert loss_of.targets.max() <= 1


def test_resumed_table_goes_on_with_the_same_bits() -> None:
    through, first = elr(target_dtype=torch.bfloat16, seed=5), elr(target_dtype=torch.bfloat16, seed=5)
    for step in range(6):
        through(*batch(20, seed=step))
    for step in range(3):
        first(*batch(20, seed=step))
    assert list(first.state_dict()) == ["targets", "visits"]
    second = elr(target_dtype=torch.bfloat16, seed=5)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        second(*batch(20, seed=step))
    assert torch.equal(through.targets, second.targets)
    assert torch.equal(through.visits, second.visits)
    other = elr(target_dtype=torch.bfloat16, seed=6)
    for step in range(6):
        other(*batch(20, seed=step))
    assert not torch.equal(through.targets, other.targets)


def test_state_of_another_precision() -> None:
    full, half = elr(), elr(target_dtype=torch.float16)
    full(*batch(20))
    half.load_state_dict(full.state_dict())
    assert torch.equal(half.targets, full.targets.half())
    assert not half.visits.any()
    half(*batch(20))
    full.load_state_dict(half.state_dict())
    assert torch.equal(full.targets, half.targets.float())


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.float, nn.Module.double])
def test_casting_a_model_leaves_the_table_as_it_is(cast) -> None:
    loss_of = cast(elr(target_dtype=torch.bfloat16, shard=(1, 2)))
    found = {name: buffer.dtype for name, buffer in loss_of.named_buffers()}
    types = {"targets": torch.bfloat16, "visits": torch.int32, "knobs": torch.float32, "layout": torch.int64}
    assert found == types
    assert "target_dtype=torch.bfloat16, target_place='device', shard=(1, 2)" in repr(loss_of)


def arguments(name: str, table: Tensor, index: Tensor) -> tuple:
    logits, labels, _ = batch(20)
    given = {
        "logits": logits,
        "attention": logits[:, 0].contiguous(),
        "labels": labels,
        "index": index,
        "targets": table,
        "knobs": torch.tensor([1.0, 0.7, 3.0]),
        "code": False,
        "reverse": 0.1,
        "gate": 0.0,
        "rate_u": 0.5,
        "rate_v": 0.25,
    }
    return tuple(given[argument] for argument in OPS[name].names)


@pytest.mark.parametrize("name", UPDATING)
def test_opcheck(name: str) -> None:
    """With every argument that a placement gives; the update of `visits` is declared."""
    table, visits = torch.full((10, 10), 0.125, dtype=torch.bfloat16), torch.zeros(10, dtype=torch.int32)
    inputs = (*arguments(name, table, 2 * torch.arange(8) + 1), None, "none", None, None, True, visits, 1, 2, 3)
    opcheck(OPS[name].overload, inputs)
    OPS[name].overload(*inputs)
    assert visits.tolist() == [1] * 8 + [0, 0]
    assert (table != 0.125).any(1).tolist() == [True] * 8 + [False, False]


def test_compiled_equals_eager() -> None:
    storage = {"target_dtype": torch.bfloat16, "shard": (1, 2)}
    torch._dynamo.reset()
    eager, module = elr(40, **storage), elr(40, **storage)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for size in (8, 8, 6):
        logits, labels, index = batch(20, size=size, seed=size)
        results = []
        for loss_of in (eager, compiled):
            leaf = logits.clone().requires_grad_()
            loss = loss_of(leaf, labels, 2 * index + 1)
            loss.sum().backward()
            results += [loss.detach(), leaf.grad]
        assert torch.equal(results[0], results[2])
        assert torch.equal(results[1], results[3])
    assert torch.equal(eager.targets, module.targets)
    assert torch.equal(eager.visits, module.visits)
    assert module.visits.sum() == 22


def test_every_loss_with_targets_takes_a_placement() -> None:
    """One call of each updates the row in its half-precision shard."""
    kinds = [kind for kind in vars(losses).values() if isinstance(kind, type) and issubclass(kind, TargetLoss)]
    kinds.remove(TargetLoss)
    kinds.remove(losses.SOPLoss)  # float32 alone, below
    assert {kind.__name__ for kind in kinds} >= {"ELRLoss", "ELRPlusLoss", "NALLoss", "SELCLoss"}
    index, labels = torch.tensor([5, 1]), torch.tensor([2, 0])
    for kind in kinds:
        required = [name for name in ("strength", "momentum") if name in signature(kind).parameters]
        options = dict.fromkeys(required, 0.5)
        loss_of = kind(8, 3, **options, target_dtype=torch.float16, shard=(1, 4), seed=2)
        attention = (torch.zeros(2),) if kind is NALLoss else ()
        if kind is losses.ELRPlusLoss:
            loss_of.update_targets(torch.zeros(2, 3), index)
        else:
            assert loss_of(torch.zeros(2, 3), labels, index, *attention).isfinite()
        assert loss_of.targets.dtype == torch.float16
        assert loss_of.visits.tolist() == [1, 1]
        assert loss_of.targets.any(1).all()


def test_sop_is_one_table_in_shards_and_of_float32_alone() -> None:
    """Each shard begins with its rows of what a whole table begins with, and steps them as the whole one does."""
    rates = {"rate_u": 100.0, "rate_v": 100.0, "reduction": "none"}
    whole = losses.SOPLoss(11, 4, **rates, seed=5)
    assert not torch.equal(whole.targets, losses.SOPLoss(11, 4, **rates, seed=6).targets)
    logits, labels = torch.randn(11, 4), torch.randint(4, (11,))
    shards = [losses.SOPLoss(11, 4, **rates, seed=5, shard=(rank, 3)) for rank in range(3)]
    for step in range(3):
        for rank, shard in enumerate(shards):
            assert torch.equal(shard.targets, whole.targets[rank::3]), step
        together = whole(logits, labels, torch.arange(11))
        for rank, shard in enumerate(shards):
            rows = torch.arange(rank, 11, 3)
            assert torch.equal(shard(logits[rows], labels[rows], rows), together[rows])
    loaded = losses.SOPLoss(11, 4, **rates)
    loaded.load_state_dict(merge_shards([shard.state_dict() for shard in shards]))
    assert torch.equal(loaded.targets, whole.targets)
    message = r"^SOPLoss: target_dtype is torch\.bfloat16: it must be torch\.float32, since u and v"
    with pytest.raises(ConfigError, match=message):
        losses.SOPLoss(11, 4, **rates, target_dtype=torch.bfloat16)


def test_a_large_start_is_drawn_in_parts_alike_in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.separation, "DRAWN", 70)
    whole = losses.SOPLoss(25, 10, rate_u=1.0, rate_v=1.0).targets
    assert len(whole.unique()) == 250
    for rank in range(4):
        shard = losses.SOPLoss(25, 10, rate_u=1.0, rate_v=1.0, shard=(rank, 4))
        assert torch.equal(shard.targets, whole[rank::4])


# --- Memory


def test_table_bytes() -> None:
    assert table_bytes(1_281_167, 1000) == 1_281_167 * 4000
    assert table_bytes(50_000, 100, torch.bfloat16) == 50_000 * 204
    assert [table_bytes(7, 10, shard=(rank, 3)) for rank in range(3)] == [120, 80, 80]
    for storage in ({}, {"target_dtype": torch.float16}, {"shard": (2, 3)}):
        loss_of = elr(7, **storage)
        held = loss_of.targets.nbytes + (0 if loss_of.visits is None else loss_of.visits.nbytes)
        assert held == table_bytes(7, 10, loss_of.targets.dtype, loss_of.shard)


def test_table_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 3_200_000_000)
    message = (
        r"the targets of 1281167 samples and 1000 classes take 5\.1 GB as float32, and cpu has 3\.2 GB free: "
        r"use target_dtype=torch\.bfloat16 \(2\.6 GB\), or hold a part in each of several processes \(shard=\(rank, "
    )
    with pytest.raises(ConfigError, match=message) as error:
        elr(1_281_167, 1000)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match=r"take 9\.6 kB as float16, and cpu has 1\.0 kB free: hold a part in each"):
        elr(100, 46, target_dtype=torch.float16)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)
    assert elr(100, 10).targets.nbytes == 4000


def test_free_memory_is_that_of_the_device() -> None:
    with pytest.raises(ConfigError, match=r"take 4000\.0 TB as float32, and cpu has .* free"):
        elr(10**12, 1000)
    with torch.device("meta"):
        assert elr(10**12, 1000).targets.shape == (10**12, 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_free_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """From /proc and from sysconf alike: something between 1 MB and 1 PB."""
    cpu = torch.device("cpu")
    told = memory.free_memory(cpu)
    monkeypatch.setattr(Path, "read_text", lambda path: "")
    for found in (told, memory.free_memory(cpu)):
        assert found is None or 10**6 < found < 10**15


@pytest.mark.gpu
def test_table_that_does_not_fit_on_the_gpu_is_refused() -> None:
    samples = torch.cuda.mem_get_info()[1] // 40 + 1
    with torch.device("cuda"), pytest.raises(ConfigError, match=r"as float32, and cuda\S* has .* free"):
        elr(samples, 10)


# --- Shards


@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_equal_the_whole_table(dtype: str) -> None:
    """Each batch goes to the whole table, and its samples of even and odd index to one shard each, to the bit."""
    storage = {"target_dtype": DTYPES[dtype], "seed": 9}
    whole = elr(21, **storage)
    shards = [elr(21, shard=(rank, 2), **storage) for rank in range(2)]
    assert [len(shard.targets) for shard in shards] == [11, 10]
    for step in range(5):
        logits, labels, index = batch(21, seed=step)
        leaf = logits.clone().requires_grad_()
        expected = whole(leaf, labels, index)
        expected.sum().backward()
        for rank, shard in enumerate(shards):
            own = index % 2 == rank
            part = logits[own].requires_grad_()
            loss = shard(part, labels[own], index[own])
            loss.sum().backward()
            assert torch.equal(loss, expected[own])
            assert torch.equal(part.grad, leaf.grad[own])
    labels = torch.arange(21) % 10
    for rank, shard in enumerate(shards):
        assert torch.equal(shard.targets, whole.targets[rank::2])
        assert torch.equal(shard.hard_targets(labels), whole.hard_targets(labels)[rank::2])
    merged = merge_shards([shard.state_dict() for shard in reversed(shards)])
    assert list(merged) == list(whole.state_dict())
    assert all(torch.equal(merged[name], buffer) for name, buffer in whole.state_dict().items())
    again = elr(21, shard=(2, 3), **storage)
    again.load_state_dict(merged)
    assert torch.equal(again.targets, whole.targets[2::3])
    assert again.visits is None or torch.equal(again.visits, whole.visits[2::3])


def test_shards_within_a_model() -> None:
    models = [nn.ModuleDict({"layer": nn.Linear(2, 2), "loss": elr(7, 3, shard=(rank, 3))}) for rank in range(3)]
    for rank, model in enumerate(models):
        model["loss"].targets.fill_(rank + 1)
    merged = merge_shards([model.state_dict() for model in models])
    assert merged["loss.targets"][:, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
    whole = nn.ModuleDict({"layer": nn.Linear(2, 2), "loss": elr(7, 3)})
    whole.load_state_dict(merged)
    models[1].load_state_dict(whole.state_dict())
    assert models[1]["loss"].targets.unique().tolist() == [2]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ((0, 1), r"shards 0 to 2 of 3 are needed, each once; given: 0 of 3 \(21 samples\), 1 of 3 \(21 samples\)"),
        ((0, 1, 1), "each once; given: 0 of 3"),
        ((), "nothing to merge"),
    ],
)
def test_refused_merges(ranks: tuple[int, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        merge_shards([elr(21, shard=(rank, 3)).state_dict() for rank in ranks])


def test_refused_states() -> None:
    with pytest.raises(CheckpointError, match="nothing to merge"):
        merge_shards([elr().state_dict()])
    message = "the saved targets are shard 0 of 2 of 20 samples, not 1 of 2 of 20: .*merge_shards"
    with pytest.raises(CheckpointError, match=message):
        elr(shard=(1, 2)).load_state_dict(elr(shard=(0, 2)).state_dict())
    with pytest.raises(CheckpointError, match="shard 0 of 2 of 20 samples, not 0 of 1 of 10"):
        elr(10).load_state_dict(elr(shard=(0, 2)).state_dict())
    with pytest.raises(CheckpointError, match="the saved targets are of 22 samples, those to be loaded of 20"):
        elr(shard=(0, 2)).load_state_dict(elr(22).state_dict())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([1, 3, 4, 5], "ELRLoss: index 4 belongs to shard 0, not to 1, of 2; give each process"),
        ([1, 3, 21, 5], r"index 21 is outside 0\.\.19, for a shard of 10 samples and an end of 20"),
        ([1, 3, -1, 5], r"index -1 is outside 0\.\.19"),
    ],
)
def test_index_of_another_shard(index: list[int], message: str) -> None:
    loss_of = elr(shard=(1, 2), target_dtype=torch.bfloat16)
    with pytest.raises(DataError, match=message) as error:
        loss_of(torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64), torch.tensor(index))
    assert "\n" not in str(error.value)
    assert not loss_of.targets.any()
    assert not loss_of.visits.any()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            {"target_dtype": torch.float64},
            "target_dtype is torch.float64: it must be torch.float32, bfloat16 or float16",
        ),
        ({"target_dtype": torch.int8}, "target_dtype is torch.int8"),
        ({"shard": (2, 2)}, r"shard is \(2, 2\): give \(rank, world\) with 0 <= rank < world, and at most 20 shards"),
        ({"shard": (0, 21)}, "at most 20 shards"),
        ({"shard": (-1, 2)}, "0 <= rank"),
        ({"seed": -1}, r"seed is -1: it must lie in 0\.\.2\^31 - 1"),
    ],
)
def test_refused_storage(storage: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        elr(**storage)


@pytest.mark.parametrize(
    ("dtype", "visits", "message"),
    [
        (torch.bfloat16, None, r"targets is bfloat16 \[20, 10\]; expected contiguous float32 \[N, 10\]"),
        (torch.float32, torch.zeros(20, dtype=torch.int32), "expected contiguous float16 or bfloat16"),
        (
            torch.float16,
            torch.zeros(19, dtype=torch.int32),
            r"visits is int32 \[19\]; expected contiguous int32 \[20\]",
        ),
        (torch.float16, torch.zeros(20), r"visits is float32 \[20\]"),
        (torch.float16, torch.zeros(20, dtype=torch.int32, device="meta"), "visits on meta, logits on cpu"),
    ],
)
def test_refused_tables(dtype: torch.dtype, visits: Tensor | None, message: str) -> None:
    logits, labels, index = batch(20)
    given = logits, labels, index, torch.zeros(20, 10, dtype=dtype), torch.tensor([1.0, 0.7, 3.0])
    with pytest.raises(DataError, match=message):
        OPS["elr"](*given, placement=tables.Placement(visits))


# --- Repeated indices


REPEATED = torch.tensor([3, 5, 7, 5, 3, 1, 0, 2])


@pytest.mark.parametrize("storage", [{}, {"target_dtype": torch.bfloat16}])
def test_debug_names_the_first_duplicate(storage: dict[str, Any]) -> None:
    logits, labels, _ = batch(20)
    loss_of = elr(**storage)
    with debug(), pytest.raises(DataError, match=r"ELRLoss: index 5 occurs twice .* in rows 1 and 3; .* distinct"):
        loss_of(logits, labels, REPEATED)
    assert not loss_of.targets.any(), "a refused batch must leave the targets alone"
    loss_of(logits, labels, REPEATED)
    assert loss_of.targets.any(1).sum() == 6


def test_debug_within_a_compiled_function() -> None:
    logits, labels, index = batch(20)
    loss_of = elr()
    torch._dynamo.reset()
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    with debug():
        compiled(logits, labels, index)
        with pytest.raises(DataError, match="index 5 occurs twice"):
            compiled(logits, labels, REPEATED)


def test_debug_switches() -> None:
    assert not debug.on
    try:
        with debug():
            assert debug.on
            with debug(False):
                assert not debug.on
            assert debug.on
        assert not debug.on
        debug(True)
        assert debug.on
    finally:
        debug(False)
    for value, expected in (("1", "True"), ("0", "False")):
        script = "from fastnoise.losses import debug; print(debug.on)"
        given = {**os.environ, "FASTNOISE_DEBUG": value}
        done = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@pytest.mark.gpu
def test_debug_on_the_gpu() -> None:
    loss_of = elr(shard=(1, 2)).cuda()
    logits, labels, _ = batch(20, device="cuda")
    index = 2 * torch.arange(8, device="cuda") + 1
    with debug():
        loss_of(logits, labels, index)
        for wrong, message in ((4, "index 4 belongs to shard 0"), (3, "index 3 occurs twice"), (21, "index 21 is out")):
            bad = index.clone()
            bad[6] = wrong
            with pytest.raises(DataError, match=message):
                loss_of(logits, labels, bad)
        labels[2] = 10
        with pytest.raises(DataError, match=r"ce: label 10 is outside 0\.\.9"):
            OPS["ce"](logits, labels)


# --- Repeated calls


WITH_TARGETS = {"nal": NALLoss, "elr": ELRLoss, "elr_plus": losses.ELRPlusLoss, "selc": losses.SELCLoss}


class Network(nn.Module):
    """A layer and the loss on it, recomputed in backward or not."""

    def __init__(self, how: str, dtype: torch.dtype, name: str = "nal"):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(10, 10)
        options = {} if name == "selc" else {"strength": 1.0}
        self.loss_of = WITH_TARGETS[name](20, 10, momentum=0.9, target_dtype=dtype, **options)
        self.how = how
        self.name = name

    def step(self, inputs: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        logits = self.layer(inputs)
        if self.name == "elr_plus":
            self.loss_of.update_targets(logits.detach().flip(0), index)
            return self.loss_of(logits, labels, index, labels.flip(0), index.flip(0), inputs.new_full((), 0.3))
        return self.loss_of(logits, labels, index, *([logits[:, 0]] if self.name == "nal" else []))

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.how == "plain":
            return self.step(*inputs)
        return checkpoint(self.step, *inputs, use_reentrant=self.how == "reentrant")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("how", ["reentrant", "recomputed"])
@pytest.mark.parametrize("name", WITH_TARGETS)
def test_activation_checkpointing_updates_once(name: str, how: str, compiled: bool) -> None:
    """To the bit: the second call finds the targets that the first has left, and uses them as they are."""
    if compiled and how == "reentrant":
        pytest.skip("torch.compile takes no reentrant checkpoint in one graph")
    torch._dynamo.reset()
    results = []
    for network in (Network("plain", torch.float32, name), Network(how, torch.float32, name)):
        step = torch.compile(network, fullgraph=True, backend="aot_eager") if compiled else network
        for number in range(3):
            inputs, labels, index = batch(20, seed=number)
            inputs.requires_grad_()
            loss = step(inputs, labels, index)
            loss.backward()
            results.append([loss.detach(), inputs.grad])
        results.append([network.loss_of.targets, network.layer.weight.grad])
    for plain, repeated in zip(results[:4], results[4:], strict=True):
        for expected, found in zip(plain, repeated, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_activation_checkpointing_records_the_same_selection() -> None:
    layer, (inputs, labels, index) = nn.Linear(10, 10), batch(20)
    found = []
    for how in ("plain", "recomputed"):
        stages = StageTables(1, 20)

        def step(inputs: Tensor, stages: StageTables = stages) -> Tensor:
            logits = layer(inputs)
            stages.record(0, logits, index, labels)
            return logits

        (step(inputs) if how == "plain" else checkpoint(step, inputs, use_reentrant=False)).sum().backward()
        found.append(list(stages.buffers()))
    for plain, repeated in zip(*found, strict=True):
        torch.testing.assert_close(repeated, plain, rtol=0, atol=0, equal_nan=True)


def test_activation_checkpointing_of_a_half_precision_table() -> None:
    """Visited once; the gradient is that of the rounded targets."""
    plain, repeated = Network("plain", torch.bfloat16), Network("recomputed", torch.bfloat16)
    for number in range(3):
        for network in (plain, repeated):
            network(*batch(20, seed=number)).backward()
    assert repeated.loss_of.visits.sum() == 24
    assert torch.equal(plain.loss_of.targets, repeated.loss_of.targets)
    torch.testing.assert_close(repeated.layer.weight.grad, plain.layer.weight.grad, rtol=0, atol=1e-2)


# --- The Triton kernels without a GPU


PLACED = [
    # Rows that share a program, rows in stretches, and a block to themselves; shards of odd sizes.
    *product(("elr", "nal"), HALF, ((0, 1), (1, 3)), ((10, None), (100, 32))),
    *product(("selc", "ema", "elr_plus"), HALF, ((1, 3),), ((10, 16),)),
    *product(("elr",), ("float32",), ((2, 3),), ((10, None), (100, 32))),
]


@pytest.fixture(scope="module")
def interpreted() -> list[Any]:
    pytest.importorskip("triton", reason="needs triton")
    from _interpret import interpret

    requests: list[Any] = [["rounding", dtype] for dtype in HALF]
    requests += [["placed", name, dtype, *shard, *size] for name, dtype, shard, size in PLACED]
    return interpret("_table_cases.py", [*requests, ["foreign"]])


def test_triton_rounds_like_numpy(interpreted: list[Any]) -> None:
    assert interpreted[:2] == [0, 0]


@pytest.mark.parametrize("number", range(len(PLACED)), ids=["-".join(map(str, case)) for case in PLACED])
def test_triton_keeps_tables_like_the_cpu(interpreted: list[Any], number: int) -> None:
    """Same visits and same bits. The float32 values may differ in the last place and so rarely round apart."""
    found, (name, dtype, *_) = interpreted[2 + number], PLACED[number]
    assert found["visits"] == found["visits_cpu"]
    assert sum(found["visits"]) == (0 if dtype == "float32" or name == "elr_plus" else 4 * 9)
    assert found["differing"] <= (0 if dtype == "float32" else 0.005)
    assert found["distance"] <= (1e-6 if dtype == "float32" else torch.finfo(HALF[dtype]).eps)
    assert found["loss"] < 1e-4


def test_triton_reports_the_index_of_another_shard(interpreted: list[Any]) -> None:
    """Of 1, 4, 5, 21, -1, -2, 3 in shard 1 of 2 of 20 samples, 1, 5 and 3 have the rows 0, 2 and 1."""
    assert interpreted[-1] == {"loss": [1, 3, 4, 5], "gradient": [1, 3, 4, 5], "written": [0, 1, 2]}


def check_ahead(name: str, num_classes: int, dtype: str, arch: int, folder: Path) -> None:
    """A half-precision shard with an ignored label, as `launch` would compile it: no spill, rows moved in vectors."""
    from _ahead import compile_op, spilled
    from fastnoise.kernels import rules

    options = {"nal": (True, 0.0, 0.0), "elr_plus": (True,)}.get(name, ())
    op, rule = OPS[name], getattr(rules, name.upper())
    ignored = -100 if op.loss else None
    placement = {"targets": dtype, "RANK": 1, "WORLD": 3, "SEED": 7, "IGNORE": ignored}
    kernel = compile_op(op, rule, options, num_classes, dtype, arch, **placement)
    assert spilled(kernel, folder) == {"STACK": 0, "LOCAL": 0}
    if num_classes in (100, 1000):
        width = "v2" if num_classes == 100 else "v4"
        moved = {kind: len(re.findall(rf"{kind}\.global\S*\.{width}\.b32", kernel.asm["ptx"])) for kind in ("ld", "st")}
        assert moved["ld"] >= 2 + (name == "elr_plus"), "logits and targets"
        assert moved["st"] >= op.loss + op.updates_table, "gradient and targets"


@pytest.mark.parametrize("num_classes", [10, 100, 1000, 9000])
@pytest.mark.parametrize("name", ["elr", "nal"])
def test_compiles_ahead_of_time(name: str, num_classes: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    number = [10, 100, 1000, 9000].index(num_classes) + (name == "nal")
    check_ahead(name, num_classes, list(HALF)[number % 2], (80, 90, 100)[number % 3], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 10, 14, 100, 1000, 4096, 8192, 9000, 21841])
@pytest.mark.parametrize("name", ["elr", "elr_plus", "ema", "nal", "selc"])
def test_compiles_ahead_of_time_everywhere(name: str, num_classes: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    for dtype, arch in product(HALF, (80, 90, 100)):
        check_ahead(name, num_classes, dtype, arch, tmp_path)


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("num_classes", [10, 100, 1000, 9000])
    @pytest.mark.parametrize("dtype", HALF)
    def test_same_bits_as_the_cpu(self, dtype: str, num_classes: int) -> None:
        storage = {"target_dtype": HALF[dtype], "shard": (1, 3), "seed": 11}
        on_cpu, on_gpu = elr(200, num_classes, **storage), elr(200, num_classes, **storage).cuda()
        for step in range(5):
            logits, labels, index = batch(66, num_classes, size=33, seed=step)
            expected = on_cpu(logits, labels, 3 * index + 1)
            found = on_gpu(logits.cuda(), labels.cuda(), (3 * index + 1).cuda())
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(on_cpu.visits, on_gpu.visits.cpu())
        differing = on_cpu.targets != on_gpu.targets.cpu()
        assert differing.float().mean() < 0.005

    def test_replayed_graph_draws_fresh_bits(self) -> None:
        """100 replays equal 100 calls, bits included, and never wait for the device."""
        logits, labels, index = batch(200, size=64, device="cuda")
        tables_ = []
        for replayed in (False, True):
            loss_of = elr(200, target_dtype=torch.bfloat16).cuda()
            loss_of.set_update(False)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                loss_of(logits, labels, index)
            torch.cuda.current_stream().wait_stream(stream)
            loss_of.set_update(True)
            if replayed:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    loss_of(logits, labels, index)
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(100):
                    graph.replay() if replayed else loss_of(logits, labels, index)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert loss_of.visits.sum() == 6400
            tables_.append(loss_of.targets)
        assert torch.equal(*tables_)

    def test_index_of_another_shard_yields_nan(self) -> None:
        loss_of: TargetLoss = elr(shard=(1, 2)).cuda()
        index = torch.tensor([1, 4, 5, 21, -1, -2, 3], device="cuda")
        loss = loss_of(torch.zeros(7, 10, device="cuda"), torch.zeros(7, dtype=torch.int64, device="cuda"), index)
        assert loss.isnan().nonzero().flatten().tolist() == [1, 3, 4, 5]
        assert loss_of.targets.any(1).nonzero().flatten().tolist() == [0, 1, 2]

    def test_activation_checkpointing_updates_once(self) -> None:
        tables_ = []
        for how in ("plain", "recomputed", "reentrant"):
            network = Network(how, torch.float32).cuda()
            for number in range(3):
                inputs, labels, index = batch(20, seed=number, device="cuda")
                network(inputs.requires_grad_(), labels, index).backward()
            tables_.append(network.loss_of.targets)
        assert torch.equal(tables_[0], tables_[1])
        assert torch.equal(tables_[0], tables_[2])
