"""Runs the Triton kernels on CPU tensors: reads cases as JSON from stdin, writes the errors of each as JSON.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported. The Triton
launcher takes the place of each op's CPU kernel, so that the modules run through the kernels unchanged.
"""

import json
import sys
import warnings
from dataclasses import asdict

import torch
from _interpret import prepare, row_form
from _loss_cases import (
    CASES,
    MOMENTUM,
    STRENGTH,
    batches,
    build,
    call,
    measure,
    measure_saturated,
    pair_of,
    soft_labels_of,
    transition_of,
)
from fastnoise.kernels import counters, row, rules

from fastnoise.ops.registry import OPS


def use_triton(stretch: int | str | None) -> None:
    for op in OPS.values():

        def interpreted(*inputs: object, op=op) -> tuple[torch.Tensor, ...] | None:
            return op.launch(row.launch, getattr(rules, op.name.upper()), inputs, **row_form(stretch))

        op.on_cpu = interpreted


def invalid_rows(rule: str) -> dict[str, object]:
    """A label and an index out of range: which losses and gradient rows are NaN, and which table rows were written."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    data.labels[2] = 10
    data.index[5] = 20
    loss_of = build(rule, 20, 10)
    before = loss_of.targets.clone() if hasattr(loss_of, "targets") else None
    logits = data.logits.requires_grad_()
    loss = call(loss_of, rule, logits, data.attention, data.labels, data.index)
    loss.backward(torch.ones(8))
    return {
        "loss": loss.isnan().nonzero().flatten().tolist(),
        "gradient": logits.grad.isnan().all(1).nonzero().flatten().tolist(),
        "partial": int(logits.grad.isnan().any(1).sum()),
        "written": [] if before is None else (loss_of.targets != before).any(1).nonzero().flatten().tolist(),
        # The targets of ELR+ come from logits alone, whatever the label.
        "expected": sorted(data.index[[i for i in range(8) if i != 5 and (i != 2 or rule == "elr_plus")]].tolist()),
    }


def folded(rule: str, num_classes: int, num_rows: int, last_label: int | None, ignore_index: int | None) -> dict:
    """The same batch without reduction, as a mean whose gradient is halved, and as a sum."""
    op = OPS[CASES[rule][0]]
    data = batches(num_classes, torch.float32, num_rows, num_rows + 1, 1)[0]
    if last_label is not None:
        data.labels[-1] = last_label
    pair_labels, pair_index, share = pair_of(data.labels, data.index)
    given = {
        "logits": data.logits,
        "attention": data.attention.bfloat16(),
        "labels": data.labels,
        "index": data.index,
        "pair_labels": pair_labels,
        "pair_index": pair_index,
        "share": share,
        "soft_labels": soft_labels_of(data.labels.clamp(max=num_classes - 1), num_classes),
        "columns": transition_of(num_classes),
        "knobs": torch.tensor([1.0, MOMENTUM, STRENGTH]),
    }
    results = []
    for reduction, scale in (("none", 1.0), ("mean", 0.5), ("sum", 1.0)):
        given["targets"] = torch.zeros(num_rows + 1, num_classes)
        loss, gradient = row.launch(
            getattr(rules, op.name.upper()),
            **{name: given[name] for name in op.tensors},
            options=getattr(build(rule, 2, num_classes), "form", (op, ()))[1],
            ignore_index=ignore_index,
            reduction=reduction,
            gradient_scale=scale,
        )
        results.append((loss, gradient))
    (losses, gradient), (mean, halved), (total, same) = results
    return {
        "losses": losses.tolist(),
        "mean": mean.item(),
        "sum": total.item(),
        "shapes": [list(losses.shape), list(mean.shape), list(total.shape), list(gradient.shape)],
        "dtypes": sorted({str(result.dtype) for pair in results for result in pair}),
        "gradients": [
            torch.equal(other.nan_to_num(7.0), (scale * gradient).nan_to_num(7.0))
            for other, scale in ((halved, 0.5), (same, 1.0))
        ],
        "arrived": max(int(counter.abs().max()) for counter in counters.of_streams.values()),
    }


def not_finite(rule: str, stretch: int | str | None, half: bool) -> dict[str, list[int]]:
    """Which rows of a batch write their targets and count a visit, and whose loss and gradient are not finite.

    Logits hold NaN in row 0, +inf in rows 1 and 3 (there for the label), -inf in row 2; attention is NaN, +inf and -inf
    in rows 5, 6 and 7. The label of row 8, with a NaN, is ignored.
    """
    op = OPS[CASES[rule][0] if rule in CASES else rule]
    data = batches(10, torch.float32, 9, 9, 1)[0]
    data.logits[[0, 1, 2, 8], 3] = torch.tensor([float("nan"), float("inf"), float("-inf"), float("nan")])
    data.labels[data.labels == 9] = 0
    data.labels[8] = 9
    data.logits[3, data.labels[3]] = float("inf")
    data.attention[5:8] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    pair_labels, pair_index, share = pair_of(data.labels, data.index)
    given = {
        "logits": data.logits,
        "attention": data.attention,
        "labels": data.labels,
        "index": torch.arange(9),
        "pair_labels": pair_labels,
        "pair_index": pair_index,
        "share": share,
        "soft_labels": soft_labels_of(data.labels, 10),
        "columns": transition_of(10),
        "targets": torch.full((9, 10), 0.125, dtype=torch.bfloat16 if half else torch.float32),
        "knobs": torch.tensor([1.0, MOMENTUM, STRENGTH]),
    }
    visits = torch.zeros(9, dtype=torch.int32) if half else None
    results = row.launch(
        getattr(rules, op.name.upper()),
        **{name: given[name] for name in op.tensors},
        options=getattr(build(rule, 2, 10), "form", (op, ()))[1] if rule in CASES else (),
        ignore_index=9 if "labels" in op.tensors else None,
        **row_form(stretch),
        visits=visits,
    )
    found = {
        "written": (given["targets"] != 0.125).any(1),
        "visited": torch.zeros(9) if visits is None else visits,
    }
    if op.loss:
        gradient = results[1].flatten()[:90].view(9, 10)
        found |= {"loss": ~results[0].isfinite(), "gradient": ~gradient.isfinite().all(1), "zero": gradient.sum(1) == 0}
    return {name: rows.nonzero().flatten().tolist() for name, rows in found.items()}


if __name__ == "__main__":
    prepare()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy on log 0, which the rules mean
    request = json.load(sys.stdin)
    results: dict[str, object] = {}
    for kind, function in (("measure", lambda **case: asdict(measure(**case))), ("saturated", measure_saturated)):
        found = []
        for case in request[kind]:
            use_triton(case.pop("stretch"))
            found.append(function(**case))
        results[kind] = found
    use_triton(None)
    results["folded"] = [folded(*case) for case in request["folded"]]
    results["not_finite"] = [not_finite(*case) for case in request["not_finite"]]
    results["invalid"] = {rule: invalid_rows(rule) for rule in request["invalid"]}
    json.dump(results, sys.stdout)
