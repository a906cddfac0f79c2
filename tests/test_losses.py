"""The loss modules on the CPU, eager and compiled, against the references; and on a GPU where there is one."""

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from _loss_cases import (
    CASES,
    DETACHED,
    DTYPES,
    ONE_PER_OP,
    RULES,
    STATEFUL,
    UPDATES,
    assert_close,
    assert_saturated,
    batches,
    build,
    call,
    call_reference,
    leaf,
    measure,
    measure_saturated,
    soft_labels_of,
    transition_of,
)
from torch import Tensor, nn

from fastnoise import losses
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import CrossEntropyLoss, ELRLoss, ForwardLoss, NALLoss, SWCELoss, functional, reference
from fastnoise.ops.registry import OPS
from fastnoise.selection import StageTables

# 2: the smallest, where p_y nears 1; 3: no power of two; 10 and 14: rows of 40 and 56 bytes, 8-byte aligned; 100:
# 16-byte aligned; 1000: one row per program. 9 rows: the last program of several rows is only partly filled.
CLASSES = (2, 3, 10, 14, 100, 1000)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("rule", RULES)
def test_matches_reference(rule: str, num_classes: int, dtype: str) -> None:
    assert_close(measure(rule, num_classes, dtype), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [4097, 21841])
@pytest.mark.parametrize("rule", RULES)
def test_matches_reference_in_long_rows(rule: str, num_classes: int, dtype: str) -> None:
    assert_close(measure(rule, num_classes, dtype, batch=4), dtype)


def detached_gradient(rule: str, logits: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cases in DETACHED, as a formula: a factor times p - y, or p_j sum_k g_k - g_j."""
    probs, one_hot = logits.softmax(1), nn.functional.one_hot(labels, logits.shape[1])
    own = (probs * one_hot).sum(1, keepdim=True)
    if rule in ("swce", "bootstrap-detached", "focal-code"):
        factor = {"swce": own, "bootstrap-detached": 0.95, "focal-code": (1 - own) ** 2}[rule]
        return factor * (probs - one_hot)
    factors = (1 - probs) ** 0.5
    losses = -factors * probs.log()  # f_k, and F is their sum
    label_loss, whole = (losses * one_hot).sum(1, keepdim=True), losses.sum(1, keepdim=True)
    falls = factors * (one_hot * whole - label_loss) / whole**2
    passive = own * (probs - one_hot) if rule == "apl-nfl-code" else 0.0
    return probs * falls.sum(1, keepdim=True) - falls + passive


@pytest.mark.parametrize("rule", RULES)
def test_reference_gradients_equal_finite_differences(rule: str) -> None:
    data = batches(5, torch.float64, 4, 9, 1)[0]
    table = torch.rand(9, 5, dtype=torch.float64).softmax(1)

    def loss(logits: Tensor, attention: Tensor) -> Tensor:
        return call_reference(rule, logits, attention, data.labels, data.index, table.clone(), update=False)

    inputs = (leaf(data.logits), leaf(data.attention))
    if rule in DETACHED:
        loss(*inputs).sum().backward()
        torch.testing.assert_close(inputs[0].grad, detached_gradient(rule, data.logits, data.labels))
    else:
        assert torch.autograd.gradcheck(loss, inputs)


def test_reference_elr_is_the_papers_gradient() -> None:
    """Lemma 2 (Eq. 7 and 8): p - y + strength * g, where no clamp acts."""
    data = batches(4, torch.float64, 6, 6, 1)[0]
    logits, rows = leaf(data.logits / 3), torch.rand(6, 4, dtype=torch.float64).softmax(1)
    reference.elr(logits, data.labels, rows, strength=3.0, momentum=0.7, update=False)[0].sum().backward()
    probs = logits.detach().softmax(1)
    inner = (probs * rows).sum(1, keepdim=True)
    expected = probs - nn.functional.one_hot(data.labels, 4) + 3.0 * probs / (1 - inner) * (inner - rows)
    torch.testing.assert_close(logits.grad, expected)


def test_reference_nal_is_the_papers_gradient() -> None:
    """Theorem 1: for a one-hot target the cross-entropy gradient times p_y / (p_y - 1 + 1/tau)."""
    data = batches(4, torch.float64, 6, 6, 1)[0]
    logits, rows = leaf(data.logits), torch.zeros(6, 4, dtype=torch.float64)
    loss, _ = reference.nal(logits, data.attention, data.labels, rows, strength=1.0, momentum=0.9, update=False)
    loss.sum().backward()
    probs, tau = logits.detach().softmax(1), data.attention.sigmoid()
    own = probs.gather(1, data.labels[:, None])
    factor = own / (own - 1 + 1 / tau[:, None])
    torch.testing.assert_close(logits.grad, factor * (probs - nn.functional.one_hot(data.labels, 4)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rule", RULES)
def test_reduction(rule: str, reduction: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    losses, gradients = [], []
    for given in ("none", reduction):
        logits = leaf(data.logits)
        loss = call(build(rule, 20, 10, given), rule, logits, data.attention, data.labels, data.index)
        assert loss.shape == ((8,) if given == "none" else ())
        final = loss if loss.dim() == 0 else getattr(loss, reduction if reduction != "none" else "sum")()
        final.backward()
        losses.append(final.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


class AllLosses(nn.Module):
    """A linear layer, optionally under bf16 autocast, and a loss of every op on its output: one graph for all."""

    def __init__(self, num_samples: int, num_classes: int, autocast: bool):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(num_classes, num_classes)
        self.losses = nn.ModuleList([build(rule, num_samples, num_classes) for rule in ONE_PER_OP])
        self.autocast = autocast

    def forward(self, inputs: Tensor, attention: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.layer(inputs)
            return torch.stack(
                [
                    call(loss, rule, logits, attention, labels, index)
                    for rule, loss in zip(ONE_PER_OP, self.losses, strict=True)
                ]
            )


def run_steps(module: AllLosses, compiled: nn.Module, sizes: tuple[int, ...]) -> list[Tensor]:
    """Losses and gradients of one step per batch size, then the target tables."""
    results = []
    for step, size in enumerate(sizes):
        data = batches(module.layer.in_features, torch.float32, size, 977, 1, seed=step)[0]
        inputs, attention = leaf(data.logits), leaf(data.attention)
        tables = [loss for loss in module.losses if hasattr(loss, "targets")]
        for table in tables:
            table.set_update(UPDATES[step])
        loss = compiled(inputs, attention, data.labels, data.index)
        loss.backward(data.upstream.expand(len(ONE_PER_OP), -1))
        results += [loss.detach(), inputs.grad, attention.grad]
    return results + [table.targets for table in tables]


@pytest.mark.parametrize(("backend", "autocast"), [("aot_eager", False), ("inductor", False), ("inductor", True)])
def test_compiled_equals_eager(backend: str, autocast: bool) -> None:
    """Full graph, over steps with updates off and on and a batch of another size, forward, backward and tables."""
    sizes = (16, 16, 16, 11, 11)
    torch._dynamo.reset()
    eager, module = AllLosses(977, 10, autocast), AllLosses(977, 10, autocast)
    # Inductor's C++ takes long: once is enough. aot_eager goes from fixed sizes to any size.
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True if backend == "inductor" else None)
    expected, found = run_steps(eager, eager, sizes), run_steps(module, compiled, sizes)
    # The losses are opaque to the compiler. What may differ is the linear layer, and the sum of the bf16 gradients,
    # which eager rounds at each addition and the compiler once.
    for one, other in zip(expected, found, strict=True):
        assert torch.linalg.vector_norm(one - other) <= (1e-2 if autocast else 1e-6) * torch.linalg.vector_norm(one)


def generated_code(function: Callable, *inputs: Tensor) -> str:
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True)
    with torch._inductor.config.patch(force_disable_caches=True):
        _, sources = torch._inductor.utils.run_and_get_code(lambda: compiled(*inputs).sum().backward())
    return "\n".join(sources)


def lines_that_touch(extent: int, code: str) -> list[str]:
    """Lines that name the extent or its product with 10 columns, but for input assertions and made-up sample inputs."""
    lines = [line for line in code.splitlines() if re.search(rf"{extent}0?L?\b", line)]
    return [line for line in lines if not re.search(r"assert_size_stride|rand_strided|^\s*#", line)]


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_compiled_code_never_copies_the_table() -> None:
    module = AllLosses(977, 10, autocast=False)
    data = batches(10, torch.float32, 16, 977, 1)[0]
    code = generated_code(module, leaf(data.logits), data.attention, data.labels, data.index)
    assert {name for name in OPS if f"fastnoise.{name}.default" in code} == set(OPS)
    assert lines_that_touch(977, code) == []
    assert module.losses[ONE_PER_OP.index("elr")].targets.any()
    # The check sees a copy where there is one.
    assert lines_that_touch(977, generated_code(lambda table: table.clone().exp(), leaf(torch.zeros(977, 10))))


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_compiled_code_never_copies_the_stage_tables() -> None:
    tables, layer = StageTables(3, 977), nn.Linear(10, 10)
    data = batches(10, torch.float32, 16, 977, 1)[0]

    def record(inputs: Tensor, index: Tensor, labels: Tensor) -> Tensor:
        logits = layer(inputs)
        tables.record(1, logits, index, labels)
        return logits

    code = generated_code(record, data.logits, data.index, data.labels)
    assert "fastnoise.select.default" in code
    assert lines_that_touch(977, code) == []
    assert (tables.prediction >= 0).sum() == 16


def test_batch_size_is_dynamic() -> None:
    """One graph serves all batch sizes: after the first batch nothing is compiled again, forward or backward."""
    torch._dynamo.reset()
    module = AllLosses(977, 10, autocast=False)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    stages = StageTables(2, 977)
    record = torch.compile(stages.record, backend="aot_eager", fullgraph=True, dynamic=True)
    for sizes in ((16,), (11, 23, 64)):
        with torch._dynamo.config.patch(error_on_recompile=len(sizes) > 1):
            run_steps(module, compiled, sizes)
            for size in sizes:
                data = batches(10, torch.float32, size, 977, 1)[0]
                record(0, data.logits, data.index, data.labels)


def test_update_switch() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    for rule in STATEFUL:
        loss = build(rule, 20, 10)
        start = loss.targets.clone()
        loss.set_update(False)
        call(loss, rule, data.logits, data.attention, data.labels, data.index)
        assert torch.equal(loss.targets, start)
        loss.set_update(True)
        call(loss, rule, data.logits, data.attention, data.labels, data.index)
        visited = (loss.targets != start).any(1)
        if "gate" in CASES[rule][3]:
            assert torch.equal(visited[data.index], data.attention.sigmoid() > CASES[rule][3]["gate"])
            continue
        assert visited[data.index].all()
        assert visited.sum() == 8


def test_targets_start_as_the_papers_say() -> None:
    """ELR from zero (Eq. 9), NAL from the one-hot of the given label (Eq. 4), the code's NAL clamped from below."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    probs, one_hot = data.logits.softmax(1), nn.functional.one_hot(data.labels, 10)
    clamped = probs.clamp(1e-4, 1 - 1e-4)
    expected = {
        "elr": 0.25 * clamped / clamped.sum(1, keepdim=True),
        "nal": 0.75 * one_hot + 0.25 * probs,
        "nal-code": (0.75 * one_hot.clamp(1e-4, 1) + 0.25 * probs).clamp(1e-4, 1),
    }
    for rule, rows in expected.items():
        loss = build(rule, 20, 10)
        call(loss, rule, data.logits, data.attention, data.labels, data.index)
        torch.testing.assert_close(loss.targets[data.index], rows)


def test_hard_targets() -> None:
    loss = build("nal", 4, 3)
    loss.targets[1] = torch.tensor([0.1, 0.2, 0.7])
    assert loss.hard_targets(torch.tensor([2, 0, 1, 0])).tolist() == [2, 2, 1, 0]


def test_state_dict_carries_the_targets_alone() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    saved = build("elr", 20, 10)
    saved(data.logits, data.labels, data.index)
    assert list(saved.state_dict()) == ["targets"]
    assert not CrossEntropyLoss().state_dict()
    loaded = build("elr", 20, 10)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.targets, saved.targets)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_casting_a_model_leaves_the_targets_in_fp32(cast) -> None:
    model = nn.Sequential(nn.Linear(3, 3), build("nal", 20, 10))
    model[1].targets[3, 2] = 1 / 3
    cast(model)
    assert model[0].weight.dtype != torch.float32
    assert model[1].targets.dtype == model[1].knobs.dtype == torch.float32
    assert model[1].targets[3, 2] == torch.tensor(1 / 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_saturated_rows(rule: str, dtype: str) -> None:
    assert_saturated(measure_saturated(rule, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_extreme_logits(rule: str, dtype: str) -> None:
    """Probabilities that underflow to 0 or round to 1, equal logits, saturated attention: all stay finite."""
    limit = 1e4
    logits = torch.zeros(6, 10)
    logits[1, 0] = limit  # p_y = 1
    logits[2, 3] = limit  # p_y = 0
    logits[3] = torch.linspace(-limit, limit, 10)
    logits[4] = limit
    logits[5] = -limit
    labels = torch.zeros(6, dtype=torch.int64)
    loss_of = build(rule, 6, 10)
    for attention in (-limit, -30.0, 0.0, 30.0, limit):
        given, head = leaf(logits.to(DTYPES[dtype])), leaf(torch.full((6,), attention, dtype=DTYPES[dtype]))
        loss = call(loss_of, rule, given, head, labels, torch.arange(6))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert given.grad.isfinite().all()
        assert head.grad is None or head.grad.isfinite().all()
        torch.testing.assert_close(given.grad.float().sum(1), torch.zeros(6), atol=2e-2, rtol=0)
    if hasattr(loss_of, "targets"):
        assert loss_of.targets.isfinite().all()


def test_class_that_is_masked_out_with_minus_infinity() -> None:
    for rule in RULES:
        logits = leaf(torch.tensor([[0.5, -float("inf"), 1.0]]))
        loss = call(build(rule, 1, 3), rule, logits, torch.zeros(1), torch.tensor([2]), torch.tensor([0]))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert logits.grad.isfinite().all()
        if rule not in ("ce-smooth", "ce-soft"):  # whose labels give every class a share
            assert logits.grad[0, 1] == 0


def test_nal_with_saturated_attention_is_cross_entropy_or_nothing() -> None:
    """tau = 1 leaves -<t, log p> (Sec. 3.2), also where p_y has underflowed; tau = 0 leaves the boost term alone."""
    logits = leaf(torch.tensor([[0.0, 200.0], [1.0, 0.5]]))
    labels, index = torch.tensor([0, 1]), torch.arange(2)
    loss_of = NALLoss(2, 2, strength=0.5, momentum=0.9, reduction="none")
    loss_of.set_update(False)
    loss_of(logits, labels, index, torch.full((2,), 1e4)).sum().backward()
    expected = leaf(logits)
    nn.functional.cross_entropy(expected, labels, reduction="sum").backward()
    torch.testing.assert_close(logits.grad, expected.grad)

    logits.grad = None
    loss = loss_of(logits, labels, index, torch.full((2,), -1e4))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.full((2,), 0.5e4))
    assert not logits.grad.any()


def test_empty_batch() -> None:
    for rule in RULES:
        none = torch.zeros(0, dtype=torch.int64)
        logits = leaf(torch.zeros(0, 10))
        loss = call(build(rule, 20, 10), rule, logits, torch.zeros(0), none, none)
        loss.sum().backward()
        assert loss.shape == (0,)
        assert logits.grad.shape == (0, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELRLoss(10, 1, strength=3.0, momentum=0.7), "num_classes is 1"),
        (lambda: ELRLoss(0, 10, strength=3.0, momentum=0.7), "num_samples is 0"),
        (lambda: ELRLoss(5.5, 10, strength=3.0, momentum=0.7), "num_samples is 5.5: give a whole number"),  # type: ignore[arg-type]
        (lambda: ELRLoss(10, 10, strength=-1.0, momentum=0.7), "strength is -1.0"),
        (lambda: ELRLoss(10, 10, strength=float("nan"), momentum=0.7), "strength is nan"),
        (lambda: NALLoss(10, 10, strength=1.0, momentum=1.0), r"momentum is 1.0: it must lie in \[0, 1\)"),
        (
            lambda: NALLoss(10, 10, strength=1.0, momentum=0.9, variant="cod"),
            "unknown variant 'cod': did you mean 'code'",
        ),
        (lambda: SWCELoss(weight="detach"), "did you mean 'detached'"),
        (lambda: CrossEntropyLoss(reduction="avg"), "unknown reduction 'avg'.*valid: mean, none, sum"),
    ],
)
def test_refused_options(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def changed(name: str, value: object) -> dict[str, object]:
    given = {
        "logits": torch.zeros(4, 10),
        "labels": torch.zeros(4, dtype=torch.int64),
        "index": torch.arange(4),
        "attention": torch.zeros(4),
    }
    return given | {name: value}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", torch.zeros(4, 10, dtype=torch.float64), "logits is float64"),
        ("logits", torch.zeros(10), r"logits is float32 \[10\]"),
        ("logits", torch.zeros(4, 1), "at least two classes"),
        ("logits", torch.zeros(4, 11), r"targets is float32 \[20, 10\]; expected contiguous float32 \[N, 11\]"),
        ("labels", torch.zeros(3, dtype=torch.int64), r"labels is int64 \[3\]; expected int64 \[4\]"),
        ("labels", torch.zeros(4, dtype=torch.int32), "labels is int32"),
        ("labels", torch.zeros(4, 9), r"labels is float32 \[4, 9\]; expected int64 \[4\], or soft labels"),
        ("labels", torch.tensor([0, 1, 10, 3]), r"label 10 is outside 0\.\.9"),
        ("labels", torch.tensor([0, -1, 1, 3]), r"label -1 is outside 0\.\.9"),
        ("index", torch.arange(5), r"index is int64 \[5\]"),
        ("index", [0, 1, 2, 3], "index is list; expected a tensor"),
        ("index", torch.tensor([0, 1, 2, 20]), r"index 20 is outside 0\.\.19"),
        ("index", torch.tensor([0, 1, 2, -1]), r"index -1 is outside 0\.\.19"),
        ("attention", torch.zeros(4, 1), r"attention is float32 \[4, 1\]"),
        ("attention", None, "attention is NoneType"),
        ("labels", torch.zeros(4, dtype=torch.int64, device="meta"), "labels on meta, logits on cpu"),
    ],
)
def test_refused_tensors(name: str, value: object, message: str) -> None:
    loss = build("nal", 20, 10)
    with pytest.raises(DataError, match=message) as error:
        loss(**changed(name, value))
    assert "\n" not in str(error.value)
    assert not loss.targets.any(), "a refused batch must leave the targets alone"


@pytest.mark.parametrize("rule", RULES)
def test_ignored_samples(rule: str) -> None:
    """Loss and gradient 0, targets untouched, and the mean over the others, whatever the ignored label."""
    if rule == "ce-soft":
        return  # soft labels have no label to ignore: test_soft_labels
    data = batches(10, torch.float32, 8, 20, 1)[0]
    kept = torch.tensor([True, False, True, True, True, True, False, True])  # also as seen from their mixup partners
    for ignored in (-100, 3):
        labels = torch.where(kept, data.labels.where(data.labels != ignored, 4), ignored)
        results = []
        for reduction in ("none", "mean"):
            loss_of = build(rule, 20, 10, reduction, ignore_index=ignored)
            logits, attention = leaf(data.logits), leaf(data.attention)
            if rule.startswith("elr_plus"):
                tensors = data.index, labels.where(kept, 0).flip(0), data.index.flip(0), torch.tensor(0.7)
                loss_of.update_targets(data.logits.flip(0), data.index)
                before = loss_of.targets.clone()
                loss = loss_of(logits, labels, *tensors)
                assert torch.equal(before, loss_of.targets)
            else:
                rows = data.index[~kept]
                before = loss_of.targets[rows] if rule in STATEFUL else None
                loss = call(loss_of, rule, logits, attention, labels, data.index)
                if before is not None:
                    assert torch.equal(loss_of.targets[rows], before)
            loss.sum().backward()
            results.append((loss.detach(), logits.grad))
            assert not logits.grad[~kept].any()
            if attention.grad is not None:
                assert not attention.grad[~kept].any()
        (each, gradient), (mean, mean_gradient) = results
        assert not each[~kept].any()
        torch.testing.assert_close(mean, each[kept].mean())
        torch.testing.assert_close(mean_gradient, gradient / 6)
        if not rule.startswith("elr_plus"):
            alone = call(build(rule, 20, 10), rule, data.logits, data.attention, labels.where(kept, 0), data.index)
            torch.testing.assert_close(each[kept], alone[kept])


def test_mean_of_nothing_is_zero() -> None:
    logits = leaf(torch.randn(4, 10))
    loss = CrossEntropyLoss(ignore_index=7)(logits, torch.full((4,), 7))
    loss.backward()
    assert loss.detach() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("rule", RULES)
def test_weights(rule: str) -> None:
    """Each sample's loss times its weight, gradient to the weight included; the mean divides by the batch size."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    logits, weight = leaf(data.logits), leaf(torch.rand(8))
    inputs = data.attention, data.labels, data.index
    call(build(rule, 20, 10, "mean"), rule, logits, *inputs, weight=weight).backward()
    plain = leaf(data.logits)
    each = call(build(rule, 20, 10), rule, plain, *inputs)
    (each * weight.detach() / 8).sum().backward()
    torch.testing.assert_close(logits.grad, plain.grad)
    torch.testing.assert_close(weight.grad, each.detach() / 8)
    for wrong in (torch.ones(8, dtype=torch.int64), torch.ones(7)):
        with pytest.raises(DataError, match=r"weight is .*; expected floating point \[8\], one per sample"):
            call(build(rule, 20, 10), rule, data.logits, *inputs, weight=wrong)


@pytest.mark.parametrize("rule", [rule for rule in STATEFUL if not rule.startswith("elr_plus")])
def test_evaluation_leaves_the_targets_alone(rule: str) -> None:
    first, second = batches(10, torch.float32, 8, 20, 2)
    loss_of = build(rule, 20, 10)
    call(loss_of, rule, first.logits, first.attention, first.labels, first.index)
    before = loss_of.targets.clone()
    evaluated = call(loss_of, rule, second.logits, second.attention, second.labels, second.index, update=False)
    assert torch.equal(before, loss_of.targets)
    loss_of.set_update(False)
    switched = call(loss_of, rule, second.logits, second.attention, second.labels, second.index)
    torch.testing.assert_close(evaluated, switched, rtol=0, atol=0)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.startswith("elr_plus")])
def test_modules_are_copied_and_pickled(rule: str) -> None:
    """A copy has a table of its own and the one op that the process has."""
    first, second = batches(10, torch.float32, 8, 20, 2)
    original = build(rule, 20, 10)
    call(original, rule, first.logits, first.attention, first.labels, first.index)
    copies = [original, copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    found = [call(each, rule, second.logits, second.attention, second.labels, second.index) for each in copies]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_strength_ramp() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    loss_of = build("elr", 20, 10)
    loss_of.set_strength(0.0)
    loss = loss_of(data.logits, data.labels, data.index)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(data.logits, data.labels, reduction="none"))
    with pytest.raises(ConfigError, match=r"strength is -1\.0"):
        loss_of.set_strength(-1.0)


FUNCTIONS = {
    "ce-smooth": functional.cross_entropy,
    "swce-literal": lambda *inputs, weight, **common: functional.swce(*inputs, weighting=weight, **common),
    "gce-truncated": functional.gce,
    "sce": functional.sce,
    "mae-reduced": functional.mae,
    "focal": functional.focal,
    "focal-code": functional.focal,
    "nfl-code": functional.nfl,
    "apl-nfl-code": functional.apl,
    "bootstrap-code": functional.bootstrap,
    "nce": functional.nce,
    "nfl": functional.nfl,
    "apl-nfl-rce": functional.apl,
    "bootstrap": functional.bootstrap,
    "bootstrap-hard": functional.bootstrap,
}


@pytest.mark.parametrize("rule", FUNCTIONS)
def test_functions_equal_modules(rule: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    expected = build(rule, 20, 10, "sum", ignore_index=2)(data.logits, data.labels)
    found = FUNCTIONS[rule](data.logits, data.labels, **CASES[rule][3], reduction="sum", ignore_index=2)
    assert torch.equal(found, expected)


def test_functions_with_tables_equal_modules() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    knobs = torch.tensor([1.0, 0.75, 3.0])
    pair = data.labels.flip(0), data.index.flip(0), torch.rand(8)
    for rule in ("elr", "selc", "sop", "nal-code-reverse", "elr_plus-weighted"):
        module = build(rule, 20, 10, "mean")
        table = module.targets.clone()
        if rule == "elr_plus-weighted":
            module.update_targets(data.logits, data.index)
            expected = module(data.logits, data.labels, data.index, *pair)
            functional.update_targets(data.logits, data.index, table, knobs)
            tensors = data.labels, pair[0], data.index, pair[1], pair[2]
            found = functional.elr_plus(data.logits, *tensors, table, knobs, target="weighted")
        else:
            expected = call(module, rule, data.logits, data.attention, data.labels, data.index)
            inputs = (data.logits, *([data.attention] if rule.startswith("nal") else []), data.labels, data.index)
            function = getattr(functional, rule.partition("-")[0])
            found = function(*inputs, table, knobs, **CASES[rule][3])
        assert torch.equal(found, expected)
        assert torch.equal(table, module.targets)
    transition = transition_of(10)
    found = functional.forward(data.logits, data.labels, transition)
    assert torch.equal(found, ForwardLoss(transition)(data.logits, data.labels))
    found = functional.forward(data.logits, data.labels, transition, variant="code")
    assert torch.equal(found, ForwardLoss(transition, variant="code")(data.logits, data.labels))


def test_soft_labels() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    soft = soft_labels_of(data.labels, 10)
    torch.testing.assert_close(CrossEntropyLoss()(data.logits, soft), nn.functional.cross_entropy(data.logits, soft))
    half = CrossEntropyLoss()(data.logits, soft.bfloat16())
    torch.testing.assert_close(half, nn.functional.cross_entropy(data.logits, soft.bfloat16().float()))
    smoothed = nn.functional.cross_entropy(data.logits, soft, label_smoothing=0.1)
    torch.testing.assert_close(CrossEntropyLoss(label_smoothing=0.1)(data.logits, soft), smoothed)
    with pytest.raises(DataError, match="CrossEntropyLoss: soft labels take no ignore_index"):
        CrossEntropyLoss(ignore_index=3)(data.logits, soft)
    with pytest.raises(DataError, match="soft_labels requires a gradient, which this loss has none for; detach it"):
        CrossEntropyLoss()(data.logits, leaf(soft))
    with pytest.raises(DataError, match=r"soft_labels is float32 \[8, 9\]; expected .* \[8, 10\], as logits"):
        CrossEntropyLoss()(data.logits, soft[:, :9])


def test_masked_transitions_stay_finite() -> None:
    """Where T lets the favoured class turn into no other, the label's likelihood underflows, its loss does not."""
    logits = leaf(torch.tensor([[0.0, 1e4, -1e4]]))
    loss = ForwardLoss(torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]]))(logits, torch.tensor([0]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(1e4 - torch.tensor(0.7).log().item()))
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.GCELoss(q=0), r"q is 0: it must lie in \(0, 1\]"),
        (lambda: losses.GCELoss(k=1.5), r"k is 1.5: it must be in \[0, 1\]"),
        (lambda: losses.SCELoss(alpha=-1, beta=1), "alpha is -1: it must be finite and at least 0"),
        (lambda: losses.SCELoss(alpha=1, beta=1, variant="cod"), "did you mean 'code'"),
        (lambda: losses.MAELoss(form="l2"), "unknown MAE form 'l2'"),
        (lambda: losses.FocalLoss(gamma=float("inf")), "gamma is inf"),
        (lambda: losses.NFLLoss(gamma=-0.5), "gamma is -0.5"),
        (lambda: losses.APLLoss(active="mae"), "unknown active loss 'mae'"),
        (lambda: losses.APLLoss(passive="nce"), "unknown passive loss 'nce'"),
        (lambda: losses.APLLoss(log_zero=0.0), "log_zero is 0.0"),
        (lambda: losses.BootstrapLoss(kind="sof"), "did you mean 'soft'"),
        (lambda: losses.BootstrapLoss(beta=2.0), r"beta is 2.0: it must be in \[0, 1\]"),
        (lambda: CrossEntropyLoss(label_smoothing=float("nan")), r"label_smoothing is nan: it must be in \[0, 1\]"),
        (lambda: NALLoss(10, 10, strength=1.0, momentum=0.9, gate=2.0), "gate is 2.0"),
        (lambda: losses.ELRPlusLoss(10, 10, strength=1.0, momentum=0.9, target="label"), "did you mean 'labels'"),
        (lambda: ForwardLoss(torch.eye(3)[:2]), r"transition is \[2, 3\]: it must be \[C, C\]"),
        (lambda: ForwardLoss(torch.eye(3) * 0.9), "transition is not row-stochastic: row 0 sums to 0.9"),
        (lambda: ForwardLoss(torch.tensor([[1.1, -0.1], [0.0, 1.0]])), "must not be negative"),
        (lambda: ForwardLoss(torch.tensor([[1.0, 0.0], [1.0, 0.0]])), "lets no class turn into 1"),
    ],
)
def test_refused_options_of_rules(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pair_labels", torch.zeros(3, dtype=torch.int64), r"pair_labels is int64 \[3\]; expected int64 \[4\]"),
        ("pair_labels", torch.tensor([0, 1, 10, 3]), r"label 10 is outside 0\.\.9"),
        ("pair_index", torch.tensor([0, 1, 2, 20]), r"index 20 is outside 0\.\.19"),
        ("share", 0.5, "share is float; expected a tensor"),
        ("share", torch.zeros(4, 1), r"share is float32 \[4, 1\]; expected .* \[\] or \[4\]"),
    ],
)
def test_refused_pairs(name: str, value: object, message: str) -> None:
    labels, index = torch.zeros(4, dtype=torch.int64), torch.arange(4)
    given = {"pair_labels": labels, "pair_index": index, "share": torch.tensor(0.5)} | {name: value}
    with pytest.raises(DataError, match=message):
        build("elr_plus", 20, 10)(torch.zeros(4, 10), labels, index, **given)


def test_needs_no_triton() -> None:
    """Where Triton is missing the losses import and run on the CPU, and say what a CUDA device would need."""
    script = """
import sys
sys.modules["triton"] = None
import torch
from fastnoise import losses
loss = losses.NALLoss(8, 3, strength=1.0, momentum=0.9)
loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4), torch.zeros(4))
assert loss.targets[:4].all() and not loss.targets[4:].any()
assert {op["cuda"] for op in losses.backends().values()} == {"unavailable (triton is not installed)"}
from fastnoise.ops.registry import load_kernels
from fastnoise.errors import FastnoiseError
try:
    load_kernels()
except FastnoiseError as error:
    assert "pip install triton" in str(error)
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("num_classes", [*CLASSES, pytest.param(9000, id="looped")])
    @pytest.mark.parametrize("rule", RULES)
    def test_matches_reference(self, rule: str, num_classes: int, dtype: str) -> None:
        assert_close(measure(rule, num_classes, dtype, device="cuda", batch=130), dtype)

    def test_never_waits_for_the_device(self) -> None:
        data = batches(10, torch.float32, 64, 200, 1)[0]
        for rule in RULES:
            loss_of = build(rule, 200, 10, "mean").cuda()
            logits, attention = leaf(data.logits, "cuda"), leaf(data.attention, "cuda")
            labels, index = data.labels.cuda(), data.index.cuda()
            call(loss_of, rule, logits, attention, labels, index).backward()  # compiles and loads the kernel
            torch.cuda.set_sync_debug_mode("error")
            try:
                if rule in STATEFUL:
                    loss_of.set_update(False)
                call(loss_of, rule, logits, attention, labels, index).backward()
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def test_replayed_graph_equals_eager(self) -> None:
        """100 replays, with the update switched off half-way through the device flag alone."""
        steps = batches(100, torch.bfloat16, 64, 200, 100)
        for rule in RULES:
            results = []
            for replayed in (False, True):
                loss_of = build(rule, 200, 100, "mean").cuda()
                logits, attention = leaf(steps[0].logits, "cuda"), leaf(steps[0].attention, "cuda")
                labels, index = steps[0].labels.cuda(), steps[0].index.cuda()

                def step(loss_of=loss_of, rule=rule, inputs=(logits, attention, labels, index)) -> Tensor:
                    loss = call(loss_of, rule, *inputs)
                    loss.backward()
                    return loss

                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    step()
                torch.cuda.current_stream().wait_stream(stream)
                logits.grad = attention.grad = None
                if rule in STATEFUL:
                    loss_of.targets.zero_()
                if replayed:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        captured = step()
                seen = []
                for number, data in enumerate(steps):
                    if rule in STATEFUL:
                        loss_of.set_update(number < 50)
                    with torch.no_grad():
                        for static, fresh in ((logits, data.logits), (attention, data.attention)):
                            static.copy_(fresh)
                        labels.copy_(data.labels)
                        index.copy_(data.index)
                    if replayed:
                        graph.replay()
                        loss = captured
                    else:
                        logits.grad = attention.grad = None
                        loss = step()
                    seen += [loss.detach().clone(), logits.grad.clone()]
                results.append([*seen, *loss_of.buffers()])
            for one, other in zip(*results, strict=True):
                assert torch.equal(one, other), rule

    @pytest.mark.compiles
    def test_compiled_equals_eager(self) -> None:
        data = batches(10, torch.float32, 64, 200, 1)[0]
        for rule in RULES:
            torch._dynamo.reset()  # the modules share a few forward methods, and one is compiled 8 times at most
            results = []
            for wrap in (lambda f: f, lambda f: torch.compile(f, fullgraph=True, mode="reduce-overhead")):
                loss_of = build(rule, 200, 10).cuda()
                wrapped = wrap(loss_of)
                for _ in range(4):
                    logits, attention = leaf(data.logits, "cuda"), leaf(data.attention, "cuda")
                    loss = call(wrapped, rule, logits, attention, data.labels.cuda(), data.index.cuda())
                    loss.sum().backward()
                results.append([loss.detach().clone(), logits.grad.clone(), *loss_of.buffers()])
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other)

    def test_out_of_range_yields_nan_and_writes_nothing(self) -> None:
        for rule in RULES:
            if CASES[rule][0] == "soft_ce":  # whose labels are no classes
                continue
            loss_of = build(rule, 200, 10).cuda()
            data = batches(10, torch.float32, 8, 200, 1)[0]
            labels, index = data.labels.cuda(), data.index.cuda()
            labels[2] = 10
            index[5] = 200
            loss = call(loss_of, rule, data.logits.cuda(), data.attention.cuda(), labels, index)
            assert loss.isnan().nonzero().flatten().tolist() == ([2, 5] if rule in STATEFUL else [2])
            if rule in STATEFUL:
                written = data.attention.sigmoid() > CASES[rule][3].get("gate", 0.0)
                written[5] = False
                if CASES[rule][0] != "elr_plus":  # whose targets are made of logits alone
                    written[2] = False
                assert torch.equal(loss_of.targets.any(1).sum().cpu(), written.sum())
