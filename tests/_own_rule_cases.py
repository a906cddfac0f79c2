"""Runs the documented rules of one's own: on the CPU, or their Triton parts through the interpreter.

As a script it is started with TRITON_INTERPRET=1, reads the path of the file with the rules as JSON, and writes the
errors of every case and rule.
"""

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from _interpret import prepare, stretches
from _loss_cases import batches, leaf
from torch import Tensor, nn

NAMES = ("taylor", "ensemble")
STRENGTH, MOMENTUM = 1.5, 0.6
# Columns, and the columns per stretch where not as usual: rows that share a program, one, and one looped over.
CASES = ((2, None), (10, None), (100, None), (100, 32), (1000, None))


def load(path: str | Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mylab_rules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(module: ModuleType, name: str, num_samples: int, num_classes: int, **options: str) -> nn.Module:
    if name == "taylor":
        return module.TaylorLoss(**options)
    return module.EnsembleLoss(num_samples, num_classes, strength=STRENGTH, momentum=MOMENTUM, **options)


def exact(module: ModuleType, name: str, logits: Tensor, labels: Tensor, index: Tensor, table: Tensor) -> Tensor:
    """The twin in the logits' precision; writes the batch's rows of `table`."""
    if name == "taylor":
        return module.taylor(logits, labels)
    loss, rows = module.ensemble(logits, labels, table[index], MOMENTUM, STRENGTH)
    table[index] = rows.detach()
    return loss


def errors(module: ModuleType, name: str, num_classes: int) -> dict[str, float]:
    """Over four steps, against float64 autograd: loss, gradient, and the targets at the end.

    Gradients relative to their row's norm, but at least to 0.01 of the upstream gradient: the twin on the CPU is fp32
    autograd of a formula with 1 - p, which has no relative precision where p nears 1.
    """
    loss_of = build(module, name, 19, num_classes, reduction="none")
    table = torch.zeros(19, num_classes, dtype=torch.float64)
    found = {"loss": 0.0, "gradient": 0.0, "targets": 0.0}
    for data in batches(num_classes, torch.float32, 9, 19, 4):
        logits, exact_logits = leaf(data.logits), leaf(data.logits.double())
        loss = loss_of(logits, data.labels, data.index)
        loss.backward(data.upstream)
        true = exact(module, name, exact_logits, data.labels, data.index, table)
        true.backward(data.upstream.double())
        found["loss"] = max(found["loss"], float((loss - true).detach().abs().max()))
        scale = exact_logits.grad.norm(dim=1).maximum(0.01 * data.upstream.abs())
        error = (logits.grad - exact_logits.grad).norm(dim=1) / scale
        found["gradient"] = max(found["gradient"], float(error.max()))
    if name == "ensemble":
        found["targets"] = float((loss_of.targets - table).abs().max())
    return found


if __name__ == "__main__":
    prepare()
    from fastnoise.kernels import row, rules

    rule_module = load(json.load(sys.stdin))
    results = []
    for columns, stretch in CASES:
        for rule_name in NAMES:
            op = build(rule_module, rule_name, 1, 2).op
            run = partial(op.launch, row.launch, op.find_rule(rules), geometry=stretches(stretch))
            op.op.register_kernel("cpu", lambda *inputs, run=run: run(inputs))
            results.append(errors(rule_module, rule_name, columns))
    json.dump(results, sys.stdout)
