"""The losses' C++ kernel as PyTorch calls it: instruction sets, threads, layouts, repeated indices, who sees the op."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from _loss_cases import CASES, ONE_PER_OP, RULES, batches, build, call, call_reference, leaf, pair_of, relative
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise import _C
from fastnoise.errors import DataError
from fastnoise.ops.registry import OPS

LEVELS = ("generic", "avx2", "avx512")
AVAILABLE = LEVELS[: LEVELS.index(_C.simd_level()) + 1]
KNOBS = (1.0, 0.75, 3.0)


def digest() -> str:
    """Of the losses, gradients and targets of every case over three steps: 2 classes in double, the others in float,
    100 in several blocks with a part at the end."""
    found = hashlib.sha256()
    for rule in RULES:
        for num_classes in (2, 10, 100):
            loss_of = build(rule, 40, num_classes)
            for data in batches(num_classes, torch.float32, 16, 40, 3):
                logits, attention = leaf(data.logits), leaf(data.attention)
                loss = call(loss_of, rule, logits, attention, data.labels, data.index)
                loss.sum().backward()
                grads = [logits.grad, *([] if attention.grad is None else [attention.grad])]
                for result in (loss.detach(), *grads, *loss_of.buffers()):
                    found.update(result.numpy().tobytes())
    return found.hexdigest()


def test_instruction_sets_give_the_same_bytes() -> None:
    script = "from test_losses_cpp import digest; from fastnoise import _C; print(_C.active_isa(), digest())"
    digests = set()
    for level in AVAILABLE:
        environment = {**os.environ, "FASTNOISE_FORCE_ISA": level, "PYTHONPATH": os.path.dirname(__file__)}
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr
        used, found = ran.stdout.split()
        assert used == level
        digests.add(found)
    assert len(digests) == 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rule", ["ce", "elr", "nal-code-reverse"])
def test_threads_do_not_matter(rule: str) -> None:
    data = batches(1000, torch.float32, 300, 601, 1)[0]
    results = []
    for count in (1, 3):
        with threads(count):
            loss_of, logits = build(rule, 601, 1000), leaf(data.logits)
            loss = call(loss_of, rule, logits, data.attention, data.labels, data.index)
            loss.sum().backward()
            results.append([loss.detach(), logits.grad, *loss_of.buffers()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("num_classes", [2, 3, 4])
@pytest.mark.parametrize("rule", RULES)
def test_every_row_of_few_classes_is_exact(rule: str, num_classes: int) -> None:
    """Against float64 on the same stored targets, within 1e-5 of the row's own norm, though terms may cancel."""
    data = batches(num_classes, torch.float32, 4000, 4001, 1)[0]
    loss_of = build(rule, 4001, num_classes)
    table = torch.rand(4001, num_classes, generator=torch.Generator().manual_seed(1)).softmax(1)
    if hasattr(loss_of, "targets"):
        loss_of.targets.copy_(table)
    logits, exact = leaf(data.logits), leaf(data.logits.double())
    call(loss_of, rule, logits, data.attention, data.labels, data.index).sum().backward()
    only_read = CASES[rule][0] == "elr_plus"  # what another op has updated
    rows = (loss_of.targets if only_read else table).double()
    inputs = exact, data.attention.double(), data.labels, data.index
    call_reference(rule, *inputs, rows, update=not only_read).sum().backward()
    assert relative(logits.grad - exact.grad, exact.grad).max() < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_rows_of_any_stride(rule: str) -> None:
    """A part of wider rows, as a slice of a model's output is, columns apart, and one row for all, to the bit."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    wide = torch.full((8, 29), float("nan"))
    wide[:, 7:17] = data.logits
    same = data.logits[:1].expand(8, 10)
    layouts = ((data.logits, wide[:, 7:17]), (data.logits, data.logits.T.contiguous().T), (same.clone(), same))
    for plain, given in layouts:
        results = []
        for values in (plain, given):
            logits = values.detach().requires_grad_()
            loss_of = build(rule, 20, 10)
            loss = call(loss_of, rule, logits, data.attention, data.labels, data.index)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
            results.append([loss.detach(), gradient, *loss_of.buffers()])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("rule", RULES)
def test_nan_and_infinity_show_in_their_row_alone(rule: str, bad: float) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    if rule.startswith("elr_plus"):
        pytest.skip("its targets come from other rows")
    results = []
    for column in (None, 0, 5):
        values = data.logits.clone()
        if column is not None:
            values[3, column] = bad
        logits = leaf(values)
        loss_of = build(rule, 20, 10)
        loss = call(loss_of, rule, logits, data.attention, data.labels, data.index)
        loss.sum().backward()
        results.append((loss.detach(), logits.grad))
    others = torch.arange(8) != 3
    for loss, gradient in results[1:]:
        assert loss[3].isnan()
        assert gradient[3].isnan().any()
        assert torch.equal(loss[others], results[0][0][others])
        assert torch.equal(gradient[others], results[0][1][others])


@pytest.mark.parametrize("rule", ["elr", "nal", "selc"])
def test_repeated_index(rule: str) -> None:
    """Each row finds the targets as they were before the batch; of the updates the last one stays."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    index = torch.tensor([3, 5, 7, 5, 3, 1, 3, 2])
    loss_of, alone = build(rule, 20, 10), []
    for row in range(8):
        part = slice(row, row + 1)
        single = build(rule, 20, 10)
        loss = call(single, rule, data.logits[part], data.attention[part], data.labels[part], index[part])
        alone.append(loss.detach())
        loss_of.targets[index[row]] = single.targets[index[row]]
    expected = loss_of.targets.clone()
    loss_of.targets.zero_()
    loss = call(loss_of, rule, data.logits, data.attention, data.labels, index)
    assert torch.equal(loss, torch.cat(alone))
    assert torch.equal(loss_of.targets, expected)


def inputs_of(name: str) -> tuple[object, ...]:
    """Of the op as the dispatcher takes it."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    pair_labels, pair_index, share = pair_of(data.labels, data.index)
    given = {
        "logits": data.logits,
        "attention": data.attention,
        "labels": data.labels,
        "index": data.index,
        "pair_labels": pair_labels,
        "pair_index": pair_index,
        "share": share,
        "soft_labels": data.logits.softmax(1),
        "columns": data.logits[:1].softmax(1).expand(10, 10).contiguous(),
        "targets": torch.zeros(20, 10),
        "knobs": torch.tensor(KNOBS),
    }
    options = next(getattr(build(rule, 20, 10), "form", (None, ()))[1] for rule in RULES if CASES[rule][0] == name)
    return *(given[tensor] for tensor in OPS[name].tensors), *options


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.ops.append(str(op))
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [CASES[rule][0] for rule in ONE_PER_OP])
def test_eager_call_equals_the_op(name: str) -> None:
    """A plain eager call goes past PyTorch's dispatcher. One that a mode or a profiler watches doesn't."""
    op = OPS[name]

    def run() -> list[Tensor]:
        inputs = inputs_of(name)
        logits = leaf(inputs[0])
        loss = op(logits, *inputs[1:])
        loss.sum().backward()
        targets = [inputs[op.tensors.index("targets")]] if op.updates_table else []
        assert all(table._version > 0 for table in targets), "autograd must see the update"
        return [loss.detach(), logits.grad, *targets]

    plain = run()
    with Seen() as seen:
        watched = run()
    assert f"fastnoise.{name}.default" in seen.ops
    with torch.profiler.profile() as profile:
        profiled = run()
    assert f"fastnoise::{name}" in {event.name for event in profile.events()}
    inputs = inputs_of(name)
    traced = torch.jit.trace(lambda logits: op(logits, *inputs[1:]), inputs[0], check_trace=False)
    assert "Fused" in str(traced.graph)
    for results in zip(plain, watched, profiled, strict=True):
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", [CASES[rule][0] for rule in ONE_PER_OP])
def test_defaults_of_device_and_dtype_do_not_matter(name: str) -> None:
    inputs = inputs_of(name)
    before = torch.get_default_dtype()
    expected = OPS[name](*inputs_of(name))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = OPS[name](*inputs)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, torch.zeros(7, dtype=torch.int64), r"elr: labels is int64 \[7\]; expected int64 \[8\]"),
        (2, torch.zeros(8, dtype=torch.int32), "elr: index is int32"),
        (3, torch.zeros(20, 9), r"elr: targets is float32 \[20, 9\]"),
        (3, torch.zeros(10, 20).T, "elr: targets is float32"),
        (2, torch.full((8,), 20), r"elr: index 20 is outside 0\.\.19"),
    ],
)
def test_the_op_itself_refuses_what_would_lie_beyond_memory(position: int, value: Tensor, message: str) -> None:
    inputs = [*inputs_of("elr"), *OPS["elr"].settings.values()]
    inputs[position] = value
    with pytest.raises(DataError, match=message):
        torch.ops.fastnoise.elr.default(*inputs)
    assert not inputs[3].any()


def test_inference_mode() -> None:
    with torch.inference_mode():
        inputs = inputs_of("elr")
        loss = OPS["elr"](*inputs)
    assert torch.equal(loss, OPS["elr"](*inputs_of("elr")))
    assert inputs[3].any()
