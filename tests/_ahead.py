"""Compiles Triton kernels for a GPU that is not there and reads what the binary says of itself."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import triton
from fastnoise.kernels import row
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastnoise.ops.registry import FusedOp

ARCHITECTURES = (80, 90, 100)  # A100, H100, B200


def compile_ahead(
    kernel: Any, types: dict[str, str], constants: dict[str, object], arch: int, num_warps: int, **options: object
) -> Any:
    """The kernel for that architecture, from aligned tensors; a parameter given nowhere is None."""
    constants = constants | {name: options.pop(name) for name in kernel.arg_names if name in options}
    types = dict.fromkeys(kernel.arg_names, "constexpr") | types
    constants = {name: None for name, kind in types.items() if kind == "constexpr"} | constants
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    options |= {"num_warps": num_warps, "enable_fp_fusion": True}
    return triton.compile(
        ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", arch, 32), options=options
    )


def compile_op(
    op: FusedOp,
    rule: Any,
    options: tuple[Any, ...],
    num_classes: int,
    dtype: str,
    arch: int,
    *,
    targets: str = "float32",
    reduction: str = "none",
    geometry: tuple[int, int, int] | None = None,
    **constants: object,
) -> Any:
    """The kernel of an op as `launch` would run it on that architecture, for logits and targets of these dtypes."""
    pointers = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}
    logits = pointers[dtype]
    types = {"logits_BC": logits, "loss": "*fp32", "gradient": logits, "num_rows": "i32", "num_samples": "i32"}
    types |= {"loss_scale": "fp32", "gradient_scale": "fp32"}
    if reduction != "none":
        types |= {"partials_P": "*fp32", "arrivals": "*i32"}
    for name, parameter, kind in (
        ("labels", "labels_B", "*i64"),
        ("index", "index_B", "*i64"),
        ("columns", "index_B", "*i64"),
        ("pair_labels", "pair_labels_B", "*i64"),
        ("pair_index", "pair_index_B", "*i64"),
        ("share", "share_B", "*fp32"),
        ("knobs", "knobs_3", "*fp32"),
        ("attention", "attention_B", logits),
        ("targets", "targets_NC", pointers[targets]),
        ("soft_labels", "targets_NC", "*fp32"),
        ("columns", "targets_NC", "*fp32"),
    ):
        if name in op.names:
            types[parameter] = kind
    if targets != "float32":
        types["visits_N"] = "*i32"
    if not op.loss:
        del types["loss"], types["gradient"]
    known = {part.upper(): value for part, value in rule._asdict().items()}
    known |= {"C": num_classes, "OPTIONS": options, "STORE": True, "RANK": 0, "WORLD": 1, "SEED": 0}
    known |= constants
    given = row.constants(num_classes, geometry)
    known["LANES"] = 128 * given["num_warps"]
    return compile_ahead(row.fused_rows, types, known, arch, **given)


def spilled(kernel: Any, folder: Path) -> dict[str, int]:
    """Bytes of stack and local memory per thread."""
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not cuobjdump.exists():
        pytest.skip("this Triton ships no cuobjdump: spills not checked")
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    usage = subprocess.run([cuobjdump, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return {kind: int(size) for kind, size in re.findall(r"(STACK|LOCAL):(\d+)", usage)}
