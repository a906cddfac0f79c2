"""The registered ops themselves: schema, mutation, tracing, and what autograd may and may not do with them."""

import pytest
import torch
from _loss_cases import CASES, RULES, batches, build, call, leaf, pair_of, soft_labels_of, transition_of
from torch.library import opcheck

from fastnoise import _C, losses
from fastnoise.errors import DataError
from fastnoise.ops.registry import OPS, FusedOp

# Every op with the options of every case that uses it.
VARIANTS = [*{(op, getattr(build(rule, 20, 10), "form", (None, ()))[1]): None for rule, (op, *_) in CASES.items()}]


def inputs_of(op: FusedOp, options: tuple) -> tuple:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    pair_labels, pair_index, share = pair_of(data.labels, data.index)
    given = {
        "logits": data.logits,
        "attention": data.attention,
        "labels": data.labels,
        "pair_labels": pair_labels,
        "index": data.index,
        "pair_index": pair_index,
        "share": share,
        "soft_labels": soft_labels_of(data.labels, 10),
        "columns": transition_of(10).T.contiguous(),
        "targets": torch.full((20, 10), 0.125 if op.name == "sop" else 0.0),  # sop's u and v stay where they are 0
        "knobs": torch.tensor([1.0, 0.7, 3.0]),
    }
    return *(given[name] for name in op.tensors), *options, *op.settings.values()


@pytest.mark.parametrize(("name", "options"), [*VARIANTS, ("ema", ())])
def test_opcheck(name: str, options: tuple) -> None:
    """Schema, declared mutation, fake kernel and AOT dispatch. Inputs need no gradient: `Fused` gives that."""
    opcheck(OPS[name].overload, inputs_of(OPS[name], options))


@pytest.mark.parametrize("name", ["ce", "elr", "nal"])
def test_opcheck_of_a_reduced_loss(name: str) -> None:
    op = OPS[name]
    inputs = list(inputs_of(op, dict(VARIANTS)[name]))
    inputs[op.at["reduction"]] = "mean"
    opcheck(op.overload, tuple(inputs))


def test_every_op_is_checked() -> None:
    assert {name for name, _ in VARIANTS} | {"ema"} == set(OPS)


@pytest.mark.parametrize(("name", "options"), [*dict(VARIANTS).items(), ("ema", ())])
def test_mutates_the_targets_alone(name: str, options: tuple) -> None:
    op = OPS[name]
    written = [argument.name for argument in op.overload._schema.arguments if argument.is_write]
    assert sorted(written) == (["looks", "targets", "visits"] if op.updates_table else ["looks"])
    inputs = inputs_of(op, options)
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    op.overload(*inputs)
    for argument, was, now in zip((*op.names, *op.settings), before, inputs, strict=True):
        if argument == "targets" and op.updates_table:
            assert not torch.equal(was, now)
            assert now._version > 0, "autograd must see the update"
        elif isinstance(now, torch.Tensor):
            assert torch.equal(was, now)


def test_two_forwards_before_a_backward() -> None:
    """Nothing that the second call updates is saved for the first call's gradient."""
    first, second = batches(10, torch.float32, 8, 20, 2)
    for rule in RULES:
        alone = leaf(first.logits)
        call(build(rule, 20, 10), rule, alone, first.attention, first.labels, first.index).sum().backward()
        loss_of, logits = build(rule, 20, 10), leaf(first.logits)
        loss = call(loss_of, rule, logits, first.attention, first.labels, first.index).sum()
        call(loss_of, rule, second.logits, second.attention, second.labels, second.index)
        loss.backward()
        assert torch.equal(alone.grad, logits.grad)


def test_second_derivative_is_refused() -> None:
    logits, weights = leaf(torch.randn(4, 10)), leaf(torch.ones(4))
    (gradient,) = torch.autograd.grad((OPS["ce"](logits, torch.arange(4)) * weights).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_non_contiguous_inputs() -> None:
    for rule in RULES:
        data = batches(10, torch.float32, 8, 20, 1)[0]
        results = []
        for wide in (data.logits, data.logits.repeat_interleave(2, 1)[:, ::2], data.logits.T.contiguous().T):
            logits = wide.detach().requires_grad_()
            loss = call(build(rule, 20, 10), rule, logits, data.attention, data.labels, data.index)
            loss.sum().backward()
            results.append((loss.detach(), logits.grad))
        for loss, gradient in results[1:]:
            torch.testing.assert_close(loss, results[0][0])
            torch.testing.assert_close(gradient, results[0][1])


@pytest.mark.parametrize(
    "targets", [torch.zeros(20, 10, dtype=torch.bfloat16), torch.zeros(10, 20).T, torch.zeros(20), torch.zeros(20, 9)]
)
def test_refused_table(targets: torch.Tensor) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    with pytest.raises(DataError, match=r"elr: targets is .*; expected contiguous float32 \[N, 10\]"):
        OPS["elr"](data.logits, data.labels, data.index, targets, torch.tensor([1.0, 0.7, 3.0]))


def test_backends() -> None:
    found = losses.backends()
    assert set(found) == {*OPS, "select", "nt_xent"}
    assert {name for name, devices in found.items() if devices["cpu"] == "torch"} == {"select", "nt_xent"}
    in_cpp = {name for name, devices in found.items() if devices["cpu"] == "c++"}
    assert in_cpp == set(_C.LOSS_RULES) - {"look"} == set(OPS)
    assert all(devices["cuda"] in ("triton", "unavailable (triton is not installed)") for devices in found.values())
