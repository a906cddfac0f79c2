"""What a loss asks of the device, and that its gradient is right however the loss is used: scaled, added up, twice, in
parts, half precision, compiled, and in the engine's step, where the upstream gradient is known to be one."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _loss_cases import CASES, DTYPES, ONE_PER_OP, RULES, Batch, batches, build, call, call_reference, leaf
from test_step import CORE, make_step
from test_step import batches as step_batches
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fastnoise.losses import CrossEntropyLoss, ELRLoss, NALLoss, functional
from fastnoise.methods import METHODS, Forward
from fastnoise.ops.unit import inductor_options, with_unit_gradient

COUNTED = ("ce", "elr", "nal", "swce")


class Launches(TorchDispatchMode):
    """Names of the ops that would launch something on a GPU: neither views nor what only takes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = [result.alias_info for result in op._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        if not is_view and "empty" not in op.name():
            self.ops.append(op.name())
        return op(*args, **(kwargs or {}))


def given(rule: str, dtype: str) -> tuple[Callable[..., Tensor], Tensor, Tensor, Batch]:
    data = batches(10, DTYPES[dtype], 8, 20, 1)[0]
    logits, attention = leaf(data.logits), leaf(data.attention)

    def loss_of(reduction: str, **common: Any) -> Tensor:
        module = build(rule, 20, 10, reduction)
        return call(module, rule, logits, attention, data.labels, data.index, **common)

    return loss_of, logits, attention, data


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", COUNTED)
def test_launches(rule: str, reduction: str, dtype: str) -> None:
    data, one = batches(10, DTYPES[dtype], 8, 20, 1)[0], torch.ones(())
    logits, attention, module = leaf(data.logits), leaf(data.attention), build(rule, 20, 10, reduction)
    with Launches() as forward:
        loss = call(module, rule, logits, attention, data.labels, data.index)
    assert forward.ops == [f"fastnoise::{rule}"]
    with Launches() as backward:
        loss.backward(retain_graph=True)
    assert backward.ops in (["aten::ones_like", "aten::mul.Tensor"], ["aten::ones_like", "aten::mul.out"])
    with Launches() as backward:
        with_unit_gradient(loss).backward(one)
    assert [name for name in backward.ops if name != "aten::add_.Tensor"] == []  # to the gradient that is there


# Forward, and backward after PyTorch's ones_like, as before the reduction was folded.
EXCEPTIONS = {
    "none": ({"reduction": "none"}, "float32", 1, 1),
    "weight": ({"weight": torch.ones(8)}, "float32", 3, 5),
    "ignored": ({"ignore_index": 3}, "float32", 6, 3),
    "float16": ({}, "float16", 1, 2),
}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_launches_of_what_is_not_folded(name: str) -> None:
    options, dtype, forward, backward = EXCEPTIONS[name]
    data = batches(10, DTYPES[dtype], 8, 20, 1)[0]
    logits = leaf(data.logits)
    with Launches() as first:
        loss = functional.swce(logits, data.labels, **options)
    assert len(first.ops) <= forward, first.ops
    with Launches() as second:
        loss.backward(torch.ones_like(loss))
    assert len(second.ops) - 1 <= backward, second.ops


def exact_of(rule: str, data: Batch, combine: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
    """The reference's gradients, in float64, of what `combine` makes of the losses [B] of a first batch."""
    logits, attention = leaf(data.logits.double()), leaf(data.attention.double())
    table = getattr(build(rule, 20, 10), "targets", torch.zeros(20, 10)).double()
    combine(call_reference(rule, logits, attention, data.labels, data.index, table, update=True)).backward()
    return logits.grad, attention.grad


def assert_near(found: Tensor | None, exact: Tensor | None, dtype: str) -> None:
    if exact is None:
        assert found is None
        return
    tolerance = 1e-5 if dtype == "float32" else 2 * torch.finfo(DTYPES[dtype]).eps
    error = torch.linalg.vector_norm(found.double() - exact)
    assert error <= tolerance * torch.linalg.vector_norm(exact)


WEIGHT = torch.linspace(0.5, 2, 8)
USES: dict[str, tuple[Callable[[Callable[..., Tensor]], Tensor], Callable[[Tensor], Tensor]]] = {
    "mean": (lambda loss_of: loss_of("mean"), lambda rows: rows.mean()),
    "sum": (lambda loss_of: loss_of("sum"), lambda rows: rows.sum()),
    "three times": (lambda loss_of: 3 * loss_of("mean"), lambda rows: 3 * rows.mean()),
    "loss scale": (lambda loss_of: 1024.0 * loss_of("sum"), lambda rows: 1024 * rows.sum()),
    "a third": (lambda loss_of: loss_of("sum") / 3, lambda rows: rows.sum() / 3),
    "two of them": (
        lambda loss_of: loss_of("mean") + 0.3 * loss_of("sum"),
        lambda rows: rows.mean() + 0.3 * rows.sum(),
    ),
    "none": (lambda loss_of: loss_of("none").square().sum(), lambda rows: rows.square().sum()),
    "weights": (lambda loss_of: loss_of("mean", weight=WEIGHT), lambda rows: (rows * WEIGHT).mean()),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_gradients(rule: str, dtype: str) -> None:
    for use in USES if dtype == "float32" else ("mean", "three times", "weights"):
        loss_of, logits, attention, data = given(rule, dtype)
        combine, of_rows = USES[use]
        combine(loss_of).backward()
        exact, exact_attention = exact_of(rule, data, of_rows)
        assert_near(logits.grad, exact, dtype)
        assert_near(attention.grad, exact_attention, dtype)


@pytest.mark.parametrize("rule", ["ce", "elr", "nal"])
def test_a_gradient_that_is_written_into_leaves_the_next_one_as_it_was(rule: str) -> None:
    loss_of, logits, attention, _ = given(rule, "float32")
    loss = loss_of("mean")
    inputs = (logits, attention) if rule == "nal" else (logits,)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.mul_(2)
    for _ in range(3):
        loss.backward(retain_graph=True)
    for one, other in zip(inputs, kept, strict=True):
        torch.testing.assert_close(one.grad, 3 * other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ONE_PER_OP)
def test_the_same_loss_twice(rule: str, dtype: str) -> None:
    """Added to itself, and one graph gone through twice: the first pass must leave the gradient as it was."""
    loss_of, logits, attention, data = given(rule, dtype)
    loss = loss_of("mean")
    (loss + loss).backward(retain_graph=True)
    loss.backward(torch.tensor(3.0))
    exact, exact_attention = exact_of(rule, data, lambda rows: 5 * rows.mean())
    assert_near(logits.grad, exact, dtype)
    assert_near(attention.grad, exact_attention, dtype)


def test_the_upstream_gradient_is_not_rounded_to_the_logits_dtype() -> None:
    """1 + 1/256 is 1 in bfloat16, and 171/512, a third in bfloat16, times 1 + 1/256 is nearest to 172/512."""
    logits = torch.zeros(1, 3, dtype=torch.bfloat16, requires_grad=True)
    functional.cross_entropy(logits, torch.tensor([0]), reduction="sum").backward(torch.tensor(1 + 1 / 256))
    assert logits.grad[0, 1] == 172 / 512


@pytest.mark.parametrize(
    ("logits_dtype", "attention_dtype"),
    [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32"), ("float16", "bfloat16")],
)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_attention_of_another_dtype(reduction: str, logits_dtype: str, attention_dtype: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    logits, attention = leaf(data.logits.to(DTYPES[logits_dtype])), leaf(data.attention.to(DTYPES[attention_dtype]))
    module = build("nal", 20, 10, reduction)
    loss = module(logits, data.labels, data.index, attention)
    (loss * 3).sum().backward()
    rounded = Batch(logits.detach(), attention.detach(), data.labels, data.index, data.upstream)
    scale = 3 / 8 if reduction == "mean" else 3
    exact, exact_attention = exact_of("nal", rounded, lambda rows: scale * rows.sum())
    assert logits.grad.dtype == logits.dtype
    assert attention.grad.dtype == attention.dtype
    assert_near(logits.grad, exact, logits_dtype)
    assert_near(attention.grad, exact_attention, attention_dtype)


def test_float16_keeps_what_a_loss_scale_would_lift() -> None:
    """An entry of 1e-6 / 4,096 is below the least float16; with a loss scale of 65,536 it must be there."""
    logits = torch.zeros(4096, 3, dtype=torch.float16)
    logits[:, 0] = 14.0
    logits.requires_grad_()
    loss = CrossEntropyLoss()(logits, torch.zeros(4096, dtype=torch.int64))
    (65536.0 * loss).backward()
    probability = logits.detach().double().softmax(1)[0, 1]
    assert logits.grad[:, 1].double().sub(65536 * probability / 4096).abs().max() < 0.05 * 65536 * probability / 4096


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_of_nothing(reduction: str) -> None:
    for rule in ("ce", "elr", "nal"):
        loss_of, logits = build(rule, 20, 10, reduction), leaf(torch.zeros(0, 10))
        nothing = torch.zeros(0, dtype=torch.int64)
        loss = call(loss_of, rule, logits, torch.zeros(0), nothing, nothing)
        loss.backward()
        assert loss.isnan() if reduction == "mean" else loss == 0
        assert logits.grad.shape == (0, 10)


def test_second_derivative_of_a_reduced_loss_is_refused() -> None:
    logits = leaf(torch.randn(4, 10))
    (gradient,) = torch.autograd.grad(CrossEntropyLoss()(logits, torch.arange(4)) * leaf(torch.ones(())), logits,
                                      create_graph=True)  # fmt: skip
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_checkpointed_gradients() -> None:
    """But those of SOP, whose loss reads u and v as they were before it moved them."""
    for rule in ONE_PER_OP:
        if rule.startswith("sop"):
            continue
        results = []
        for recomputed in (False, True):
            _, logits, attention, data = given(rule, "float32")
            module = build(rule, 20, 10, "mean")
            if CASES[rule][0] == "elr_plus":
                module.update_targets(data.logits, data.index)
                pairs = data.labels.flip(0), data.index.flip(0), torch.full((8,), 0.3)

                def step(logits: Tensor, attention: Tensor, module=module, data=data, pairs=pairs) -> Tensor:
                    return module(logits * 1.0, data.labels, data.index, *pairs) * 3
            else:

                def step(logits: Tensor, attention: Tensor, module=module, data=data, rule=rule) -> Tensor:
                    return call(module, rule, logits * 1.0, attention * 1.0, data.labels, data.index) * 3

            (
                checkpoint(step, logits, attention, use_reentrant=False) if recomputed else step(logits, attention)
            ).backward()
            results.append((logits.grad, attention.grad, *module.buffers()))
        for one, other in zip(*results, strict=True):
            assert one is other is None or torch.allclose(one, other, rtol=1e-6, atol=1e-8), rule


# --- Compiled


class Combined(nn.Module):
    """Reduced losses of every op on one layer's output, times factors, and one of them twice."""

    def __init__(self, reduction: str, autocast: bool):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(10, 10)
        self.losses = nn.ModuleList([build(rule, 20, 10, reduction) for rule in ONE_PER_OP])
        self.autocast = autocast

    def forward(self, inputs: Tensor, attention: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.layer(inputs)
            total = torch.zeros(())
            for number, (rule, loss) in enumerate(zip(ONE_PER_OP, self.losses, strict=True)):
                value = call(loss, rule, logits, attention, labels, index)
                total = total + (number - 2.5) * value + value
        return total


@pytest.mark.parametrize(("reduction", "autocast", "unit"), [("mean", False, True), ("sum", True, False)])
def test_compiled_combinations(reduction: str, autocast: bool, unit: bool) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        module, inputs, attention = Combined(reduction, autocast), leaf(data.logits), leaf(data.attention)

        def step(*given: Tensor, module=module) -> Tensor:
            return with_unit_gradient(module(*given)) if unit else module(*given)

        options = inductor_options() if unit else None
        run = torch.compile(step, fullgraph=True, dynamic=False, options=options) if compiled else step
        loss = run(inputs, attention, data.labels, data.index)
        if unit:
            loss.backward(torch.ones(()))
        else:
            (1024 * loss).backward()
        results.append((loss.detach(), inputs.grad, attention.grad, module.layer.weight.grad))
    for one, other in zip(*results, strict=True):
        assert torch.linalg.vector_norm(one - other) <= (2e-2 if autocast else 1e-5) * torch.linalg.vector_norm(one)


def kernels_of(autocast: bool, unit: bool) -> str:
    """The kernels of forward and backward of four layers and a loss on each, as Inductor writes them."""
    torch._dynamo.reset()
    layers = nn.ModuleList(nn.Linear(20, 11) for _ in COUNTED)
    losses = [build(rule, 20, 10, "mean") for rule in COUNTED]
    data = batches(10, torch.float32, 8, 20, 1)[0]

    def step(inputs: Tensor) -> Tensor:
        total = torch.zeros(())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for rule, layer, loss_of in zip(COUNTED, layers, losses, strict=True):
                output = layer(inputs)
                total = total + call(loss_of, rule, output[:, :10], output[:, 10], data.labels, data.index)
        return with_unit_gradient(total) if unit else total

    compiled = torch.compile(step, fullgraph=True, dynamic=False, options=inductor_options() if unit else None)
    with torch._inductor.config.patch(force_disable_caches=True):
        run = torch._inductor.utils.run_and_get_code
        _, sources = run(lambda: compiled(torch.randn(8, 20)).backward(torch.ones(())))
    assert len(sources) == 2
    backward = re.findall(r"(?m)^\s+(cpp_fused_\w+)\(|(extern_kernels\.\w+)\(", sources[1])
    return "\n".join(name for names in backward for name in names)


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_step_scales_nothing(autocast: bool) -> None:
    """And the backward pass stays where it was: the layers' gradients are computed there."""
    found = kernels_of(autocast, unit=True)
    assert "mul" not in found
    assert found.count("extern_kernels.mm") == len(COUNTED)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_the_check_sees_a_scaling_where_there_is_one() -> None:
    assert "mul" in kernels_of(autocast=True, unit=False)


# --- In the engine's step


@pytest.mark.parametrize("method", METHODS)
def test_a_step_has_the_gradients_of_plain_autograd(method: str) -> None:
    step, plain = make_step(method), make_step(method)
    ((images, index),) = step_batches(1, views=step.method.views)
    for one in (step, plain):
        one.method.before_step(1, 0, 0)
    found = step.train(images, index)
    expected = plain.method.training_step(plain.networks, images, plain.labels[index], index)
    expected.loss.backward()
    assert torch.equal(found.loss, expected.loss)
    for one, other in zip(step.networks, plain.networks, strict=True):
        for parameter, same in zip(one.parameters(), other.parameters(), strict=True):
            assert (parameter.grad is None) == (same.grad is None)
            assert parameter.grad is None or torch.allclose(parameter.grad, same.grad, rtol=1e-5, atol=1e-8)


COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "twice": lambda loss, other: loss * 2,
    "with another": lambda loss, other: loss + 0.5 * other,
    "itself": lambda loss, other: loss + loss,
    "alone": lambda loss, other: loss,
}


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *((name, False) for name in COMBINATIONS),
        ("with another", True),
        pytest.param("twice", True, marks=pytest.mark.slow),
    ],
)
def test_a_method_that_combines_losses(name: str, compiled: bool) -> None:
    """Parameters' gradients of the engine's step, against autograd on PyTorch's own loss."""
    torch._dynamo.reset()
    step, plain = make_step("ce", "compiled" if compiled else "eager"), make_step("ce")
    combine, first, second = COMBINATIONS[name], CrossEntropyLoss(), CrossEntropyLoss(label_smoothing=0.1)

    def training_step(networks: Any, images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        logits = networks[0](images).logits
        return Forward(combine(first(logits, labels), second(logits, labels)), logits.argmax(1))

    step.method.training_step = training_step  # type: ignore[method-assign]
    ((images, index),) = step_batches(1)
    step.train(images, index)
    logits, labels = plain.networks[0](images).logits, plain.labels[index]
    cross_entropy = nn.functional.cross_entropy
    combine(cross_entropy(logits, labels), cross_entropy(logits, labels, label_smoothing=0.1)).backward()
    for one, other in zip(step.networks[0].parameters(), plain.networks[0].parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", CORE)
def test_a_step_scales_nothing(method: str, amp: str) -> None:
    """Between the loss's op and the last layer's backward pass there is nothing but the predictions."""
    step = make_step(method, amp=amp)
    step.observe = None
    ((images, index),) = step_batches(1)
    with Launches() as seen:
        step.train(images, index)
    (loss,) = (number for number, name in enumerate(seen.ops) if name.startswith("fastnoise::"))
    assert seen.ops[loss + 1 : seen.ops.index("aten::mm", loss)] == ["aten::argmax"]


# --- Rows that are not finite, and evaluation


@pytest.mark.parametrize("storage", [{}, {"target_dtype": torch.bfloat16}, {"shard": (1, 2)}])
@pytest.mark.parametrize("rule", ["elr", "elr_plus", "selc", "sop", "nal", "nal-code", "nal-reverse"])
def test_rows_that_are_not_finite_keep_their_targets(rule: str, storage: dict[str, Any]) -> None:
    if rule == "sop" and "target_dtype" in storage:
        return  # it has float32 alone: test_losses_options
    data = batches(10, torch.float32, 8, 20, 1)[0]
    index = 2 * data.index + 1 if "shard" in storage else data.index
    module = build(rule, 40, 10, **storage)
    logits, attention = data.logits.clone(), data.attention.abs() + 1
    update = getattr(module, "update_targets", None)

    def visit(values: Tensor, heads: Tensor) -> Tensor:
        if update is not None:
            update(values, index)
            return torch.zeros(8)
        return call(module, rule, values, heads, data.labels, index)

    visit(logits, attention)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    spoilt = logits.clone()
    spoilt[0, 3], spoilt[1, 5], spoilt[2] = float("nan"), float("inf"), float("nan")
    spoilt[3, data.labels[3] - 1] = -float("inf")  # a class that is masked: as ever
    closed = {0, 1, 2}
    if rule.startswith("nal"):
        attention[4], attention[5] = float("nan"), float("inf")
        closed |= {4, 5}
    loss = visit(spoilt, attention)
    rows = index // 2 if "shard" in storage else index
    for row in range(8):
        same = torch.equal(module.targets[rows[row]], before["targets"][rows[row]])
        assert same == (row in closed), row
        if module.visits is not None:
            assert module.visits[rows[row]] == (1 if row in closed else 2)
    assert module.targets.isfinite().all()
    if update is None:
        assert [row for row in range(8) if loss[row].isnan()] == sorted(closed)
        assert loss[sorted({*range(8)} - closed)].isfinite().all()


@pytest.mark.parametrize("make", [lambda: ELRLoss(4, 3, strength=3.0, momentum=0.7), lambda: NALLoss(
    4, 3, strength=10.0, momentum=0.7)])  # fmt: skip
def test_training_goes_on_after_a_skipped_overflow(make: Callable[[], nn.Module]) -> None:
    """A loop with a GradScaler whose second step overflows: the weights stay finite, and so do targets and losses."""
    torch.manual_seed(0)
    loss_of, labels, index = make(), torch.tensor([0, 1, 2, 0]), torch.arange(4)
    weight = torch.randn(5, 3, requires_grad=True)
    attention = (torch.zeros(4),) if isinstance(loss_of, NALLoss) else ()
    optimizer, scaler = torch.optim.SGD([weight], lr=0.01), torch.amp.GradScaler("cpu", init_scale=2.0)
    for step in range(4):
        inputs = torch.randn(4, 5)
        if step == 1:
            inputs[2, 0] = float("inf")
        loss = loss_of(inputs @ weight, labels, index, *attention)
        assert bool(loss.isfinite()) == (step != 1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert weight.isfinite().all()
    assert loss_of.targets.isfinite().all()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rule", ["elr", "selc", "sop", "nal"])
def test_evaluation_mode_updates_nothing(rule: str, compiled: bool) -> None:
    torch._dynamo.reset()
    data = batches(10, torch.float32, 8, 20, 1)[0]
    module = build(rule, 20, 10)
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module
    inputs = rule, data.logits, data.attention, data.labels, data.index
    for mode in (False, True, False):
        before = module.train(mode).targets.clone()
        evaluated = call(run, *inputs, update=True)
        assert torch.equal(module.targets, before) != mode
        if not mode:
            assert torch.equal(evaluated, call(run, *inputs, update=False))


def test_targets_of_elr_plus_are_updated_when_asked_for_in_any_mode() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    module = build("elr_plus", 20, 10).eval()
    module.update_targets(data.logits, data.index)
    assert module.targets.any(1).sum() == 8
