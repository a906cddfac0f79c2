"""Runs the Triton kernels on CPU tensors: reads cases as JSON from stdin, writes the errors of each as JSON.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported. The Triton
launcher takes the place of each op's CPU kernel, so that the modules run through the kernels unchanged.
"""

import json
import sys
import warnings
from dataclasses import asdict

import torch
from _loss_cases import batches, build, call, measure, measure_saturated
from fastnoise.kernels import row, rules

from fastnoise.ops.registry import OPS


def use_triton(max_block: int) -> None:
    for op in OPS.values():

        def interpreted(*inputs: object, op=op) -> tuple[torch.Tensor, ...] | None:
            return op.launch(row.launch, getattr(rules, op.name.upper()), inputs, max_block=max_block)

        op.on_cpu = interpreted


def invalid_rows(rule: str) -> dict[str, object]:
    """A label and an index out of range: which losses and gradient rows are NaN, and which table rows were written."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    data.labels[2] = 10
    data.index[5] = 20
    loss_of = build(rule, 20, 10)
    logits = data.logits.requires_grad_()
    loss = call(loss_of, rule, logits, data.attention, data.labels, data.index)
    loss.backward(torch.ones(8))
    return {
        "loss": loss.isnan().nonzero().flatten().tolist(),
        "gradient": logits.grad.isnan().all(1).nonzero().flatten().tolist(),
        "partial": int(logits.grad.isnan().any(1).sum()),
        "written": sorted(loss_of.targets.any(1).nonzero().flatten().tolist()) if hasattr(loss_of, "targets") else [],
        # The targets of ELR+ come from logits alone, whatever the label.
        "expected": sorted(data.index[[i for i in range(8) if i != 5 and (i != 2 or rule == "elr_plus")]].tolist()),
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # NumPy on log 0, which the rules mean
    request = json.load(sys.stdin)
    results: dict[str, object] = {}
    for kind, function in (("measure", lambda **case: asdict(measure(**case))), ("saturated", measure_saturated)):
        found = []
        for case in request[kind]:
            use_triton(case.pop("max_block"))
            found.append(function(**case))
        results[kind] = found
    use_triton(row.MAX_BLOCK)
    results["invalid"] = {rule: invalid_rows(rule) for rule in request["invalid"]}
    json.dump(results, sys.stdout)
