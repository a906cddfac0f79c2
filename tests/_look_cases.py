"""What fused losses note of the given labels, against the same in plain float64.

Run as a script under Triton's interpreter: cases as JSON from stdin, what `measure` finds of each as JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from _loss_cases import CASES, MOMENTUM, STRENGTH, batches, build, pair_of, soft_labels_of, transition_of
from torch import Tensor

from fastnoise.ops.looks import LABEL, LOOK, new_looks
from fastnoise.ops.registry import OPS, FusedOp

SAMPLES, ROWS = 23, 9


def op_of(rule: str) -> FusedOp:
    return LOOK if rule == "look" else OPS[CASES[rule][0] if rule in CASES else rule]


def options_of(rule: str) -> tuple[Any, ...]:
    return getattr(build(rule, 2, 10), "form", (None, ()))[1] if rule in CASES else ()


def transcribed(looks: Tensor, logits: Tensor, index: Tensor, skipped: Tensor | None = None) -> None:
    """One look at the samples `index` in float64: Eq. 1 of Pleiss et al. 2020, and the events of Toneva et al. 2019."""
    for row, sample in enumerate(index.tolist()):
        z = logits[row].double().clamp(min=-1e30)
        if (skipped is not None and skipped[row]) or z.isnan().any() or (z == torch.inf).any():
            continue
        given = int(looks[sample, LABEL])
        others = torch.cat([z[:given], z[given + 1 :]])
        margin = z[given] - others.max()
        right = bool(margin > 0)
        _, was_right, count, forgotten, margins, total, confidence, free = looks[sample].tolist()
        looks[sample] = torch.tensor(
            [
                given,
                right,
                count + 1,
                forgotten + (was_right == 1 and not right),
                margins + 1,
                total + margin,
                confidence + z.softmax(0)[given],
                free,
            ]
        )


def measure(
    note: Callable[..., Any], rule: str, columns: int, dtype: str, half: bool = False, ignore: bool = False
) -> dict[str, Any]:
    """Several steps over the samples: the largest error of sums, and whether counts and all other rows are right.

    Some logits are NaN, +inf and -inf. Labels of the loss are others than the given ones, and some are ignored.
    """
    op = op_of(rule)
    given = torch.randint(columns, (SAMPLES,), generator=torch.Generator().manual_seed(0))
    looks = new_looks(given)
    looks[:, 7] = 5.0  # the free column stays
    expected = looks.double()
    table = torch.full((SAMPLES, columns), 0.125, dtype=torch.bfloat16 if half else torch.float32)
    visits = torch.zeros(SAMPLES, dtype=torch.int32) if half else None
    for data in batches(columns, getattr(torch, dtype), ROWS, SAMPLES, 6):
        data.logits[[0, 1, 2], 1] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=data.logits.dtype)
        data.logits[3] = data.logits[3, 0]  # a tie is not right
        pair_labels, pair_index, share = pair_of(data.labels, data.index)
        known = {
            "logits": data.logits,
            "attention": data.attention,
            "labels": data.labels,
            "index": data.index,
            "pair_labels": pair_labels,
            "pair_index": pair_index,
            "share": share,
            "soft_labels": soft_labels_of(data.labels, columns),
            "columns": transition_of(columns),
            "targets": table,
            "knobs": torch.tensor([1.0, MOMENTUM, STRENGTH]),
        }
        ignored = 0 if ignore else None
        skipped = data.labels == 0 if ignore and "labels" in op.tensors else None
        own = "index" in op.tensors
        note(op, [known[name] for name in op.tensors], options_of(rule), ignored, visits, looks, own, data.index)
        transcribed(expected, data.logits, data.index, skipped)
    error = (looks.double() - expected).abs() / expected.abs().clamp(min=1)
    return {"sums": float(error[:, 5:7].max()), "others": float(error[:, [0, 1, 2, 3, 4, 7]].max())}


def by_op(
    op: FusedOp, inputs: list[Tensor], options: tuple[Any, ...], ignored: int | None, visits: Tensor | None,
    looks: Tensor, own: bool, index: Tensor,
) -> None:  # fmt: skip
    """The op as a method calls it."""
    from fastnoise.ops.tables import Placement

    placement = None if visits is None else Placement(visits)
    ignored = ignored if "labels" in op.tensors else None
    op(*inputs, *options, ignore_index=ignored, looks=looks, look_index=None if own else index, placement=placement)


def main() -> None:
    from _interpret import prepare, row_form
    from fastnoise.kernels import row, rules

    prepare()

    def note(stretch: int | str | None) -> Callable[..., Any]:
        def launched(op: FusedOp, inputs: list[Tensor], options: Any, ignored: Any, visits: Any, *rest: Any) -> None:
            looks, _, index = rest
            rule = rules.Rule() if op is LOOK else getattr(rules, op.name.upper())
            row.launch(
                rule,
                **dict(zip(op.tensors, inputs, strict=True)),
                options=options,
                ignore_index=ignored if "labels" in op.tensors else None,
                visits=visits,
                looks=looks,
                look_index=index,
                **row_form(stretch),
            )

        return launched

    json.dump([measure(note(stretch), *case) for stretch, *case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
