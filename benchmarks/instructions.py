"""Instructions of the fused losses' kernel, counted in what a compiler makes of it for an H100. Needs no GPU.

    python -m benchmarks.instructions [--before CHECKOUT] [--rules elr nal ...] [--output FOLDER]

Every rule is compiled for sm_90 as a mean over bfloat16 logits with a float32 table, and disassembled by the cuobjdump
that Triton ships: instructions per warp as they stand in the binary, padding included, and of a row, which is per warp
times warps over rows; registers, bytes of stack (spills), barriers, and the loops that load logits. What runs is less
where rows share a program and the last of them alone adds up the mean, and more where rows are looped over.

Writes instructions.csv, a row per checkout, Triton, rule and size, and instructions.md, in which the figures of
--before, the root of another checkout, stand beside this one's. There the mean was still a kernel of its own.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import fastnoise.losses  # noqa: F401  which registers the ops
from fastnoise.errors import DataError
from fastnoise.files import write_atomically
from fastnoise.ops.registry import OPS, FusedOp

from . import record

SIZES = ((64, 10), (128, 100), (4096, 1000), (8192, 21841))
"""Batch and columns."""
OPTIONS: dict[str, tuple[Any, ...]] = {
    "label_smoothing": (0.1,),
    "swce": (False,),
    "gce": (0.7, 0.0),
    "apl": (1.0, 0.5, 0.0, -1e30, 0.5),
    "apl_normalised": (1.0, 0.0, 1.0, 0.0),
    "bootstrap_soft": (0.95, False, True),
    "bootstrap_hard": (0.8, False),
    "elr_plus": (False,),
    "nal": (False, 0.0, 0.0),
}
"""Of ops in their usual form; others are compiled with flags off and numbers of one half."""
KEY = ("commit", "triton", "rule", "batch", "columns")
POINTERS = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}


def kernels_of(checkout: Path | None = None) -> tuple[Any, Any]:
    """The modules `row` and `rules` of this checkout or another."""
    if checkout is None:
        return import_module("fastnoise.kernels.row"), import_module("fastnoise.kernels.rules")
    folder = checkout.resolve() / "kernels"
    name = f"kernels_of_{abs(hash(folder))}"
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    if spec is None or spec.loader is None or not (folder / "row.py").is_file():
        raise DataError(f"{checkout} has no kernels/row.py; give the root of a checkout")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return import_module(f"{name}.row"), import_module(f"{name}.rules")


def options_of(op: FusedOp) -> tuple[Any, ...]:
    """The op's options as OPTIONS has them."""
    types = {argument.name: str(argument.type) for argument in op.overload._schema.arguments}
    return OPTIONS.get(op.name, tuple(False if types[name] == "bool" else 0.5 for name in op.options))


def compile_ahead(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], arch: int, num_warps: int, **options: Any
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


def constants_of(
    row: Any, rule: Any, num_classes: int, geometry: tuple[int, int, int] | None = None, **hold: bool
) -> dict[str, Any]:
    """The launch's constants and options, also of checkouts before these came from one function."""
    if hasattr(row, "constants"):
        given = row.constants(num_classes, geometry, rule, **hold)
        return given | {"LANES": 128 * given["num_warps"]}
    rows, block, num_warps = geometry or row.geometry(num_classes)
    return {"ROWS": rows, "BLOCK": block, "num_warps": num_warps, "maxnreg": row.max_registers(num_warps)}


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
    hold: bool = False,
    looks: bool = False,
    row: Any = None,
    **constants: Any,
) -> Any:
    """The kernel of an op as `launch` would run it on that architecture, for logits and targets of these dtypes."""
    row = row or kernels_of()[0]
    logits = POINTERS[dtype]
    types = {"logits_BC": logits, "num_rows": "i32", "num_samples": "i32", "num_looks": "i32"}
    types |= {"loss_scale": "fp32", "gradient_scale": "fp32"}
    if op.loss:
        types |= {"loss": "*fp32", "gradient": logits, "loss_B": "*fp32", "dlogits_BC": logits}
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
        ("attention", "dattention_B", logits),
        ("targets", "targets_NC", POINTERS[targets]),
        ("soft_labels", "targets_NC", "*fp32"),
        ("columns", "targets_NC", "*fp32"),
    ):
        if name in op.names:
            types[parameter] = kind
    if targets != "float32":
        types["visits_N"] = "*i32"
    if looks:
        types |= {"looks_N8": "*fp32", "look_index_B": "*i64"}
    types = {name: kind for name, kind in types.items() if name in row.fused_rows.arg_names}
    known = {part.upper(): value for part, value in rule._asdict().items()}
    held = {"hold": True} if hold else {}  # which other checkouts may not know
    known |= {"C": num_classes, "OPTIONS": options, "STORE": True, "RANK": 0, "WORLD": 1, "SEED": 0} | constants
    return compile_ahead(row.fused_rows, types, known, arch, **constants_of(row, rule, num_classes, geometry, **held))


def tool() -> Path | None:
    """Triton's own disassembler, where it ships one."""
    path = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return path if path.exists() else None


def disassemble(kernel: Any, option: str, folder: Path) -> str:
    """What cuobjdump says of a compiled kernel, which is written to that folder for it."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    return subprocess.run([str(tool()), option, str(binary)], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Count:
    """Of one kernel: programs of the batch, rows and warps of a program, and what stands in the binary per warp."""

    programs: int
    rows: int
    warps: int
    instructions: int
    registers: int
    stack: int
    barriers: int
    logit_loops: int

    @property
    def of_a_row(self) -> float:
        return self.instructions * self.warps / self.rows


def count_logit_loops(kernel: Any, pointer: str) -> int:
    """Loops of the kernel in Triton's terms that load from a tensor of that type."""
    ends: list[str] = []
    loads: set[int] = set()
    opened = 0
    numbers: list[int] = []
    for line in kernel.asm["ttir"].splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if ends and line.startswith(ends[-1] + "}"):
            ends.pop()
            numbers.pop()
        if "scf.for" in line:
            ends.append(indent)
            numbers.append(opened)
            opened += 1
        if "tt.load" in line and f"!tt.ptr<{pointer}>" in line:
            loads.update(numbers)
    return len(loads)


def count(
    name: str, batch: int, num_classes: int, modules: tuple[Any, Any] | None = None, options: tuple[Any, ...] = ()
) -> Count:
    """Compile the op's kernel for sm_90 and count; `options` by default those of its usual form."""
    row, rules = modules or kernels_of()
    op, rule = OPS[name], getattr(rules, name.upper())
    kernel = compile_op(
        op,
        rule,
        options or options_of(op),
        num_classes,
        "bfloat16",
        90,
        reduction="mean" if op.loss else "none",
        row=row,
    )
    with tempfile.TemporaryDirectory() as folder:
        sass, used = (disassemble(kernel, option, Path(folder)) for option in ("-sass", "-res-usage"))
    code = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", sass, re.MULTILINE)
    usage = {kind: int(size) for kind, size in re.findall(r"(\w+):(\d+)", used)}
    given = constants_of(row, rule, num_classes)
    return Count(
        programs=-(-batch // given["ROWS"]),
        rows=given["ROWS"],
        warps=given["num_warps"],
        instructions=len(code),
        registers=usage["REG"],
        stack=usage["STACK"] + usage["LOCAL"],
        barriers=sum("BAR." in line for line in code),
        logit_loops=count_logit_loops(kernel, "bf16"),
    )


def measure(names: Sequence[str], checkout: Path | None, commit: str) -> list[record.Row]:
    modules = kernels_of(checkout)
    rows = []
    for name in names:
        for batch, num_classes in SIZES:
            found = count(name, batch, num_classes, modules)
            print(f"{commit[:7]} {name} {batch} x {num_classes}: {found}", flush=True)
            numbers = {part: str(getattr(found, part)) for part in Count.__annotations__}
            key = (commit, triton.__version__, name, str(batch), str(num_classes))
            rows.append(dict(zip(KEY, key, strict=True)) | numbers | {"of_a_row": f"{found.of_a_row:.0f}"})
    return rows


def table(rows: Sequence[record.Row], before: str, after: str) -> str:
    """Markdown, a section per Triton: the figures of both commits, an arrow between them."""
    lines = [
        "# Instructions of the fused losses' kernel",
        "",
        "`python -m benchmarks.instructions`: sm_90, bfloat16 logits, float32 table, mean; per warp as they stand in "
        f"the binary, padding included. {before[:7]} -> {after[:7]}; before, the mean was a kernel of its own.",
    ]
    for version in sorted({row["triton"] for row in rows}):
        found = {tuple(row[name] for name in KEY): row for row in rows if row["triton"] == version}
        heads = ("rule", "size", "programs", "rows x warps", "per warp", "of a row", "registers", "stack", "barriers")
        lines += ["", f"## Triton {version}", "", f"| {' | '.join(heads)} | loops over logits |", "|---" * 10 + "|"]
        for commit, _, name, batch, columns in found:
            if commit != after:
                continue
            pair = [found.get((sha, version, name, batch, columns)) for sha in (before, after)]
            pair = [row for row in pair if row is not None]
            cells = [
                " -> ".join(dict.fromkeys(form(row) for row in pair))
                for form in (
                    lambda row: row["programs"],
                    lambda row: f"{row['rows']} x {row['warps']}",
                    *(
                        lambda row, part=part: f"{int(row[part]):,}"
                        for part in ("instructions", "of_a_row", "registers", "stack", "barriers", "logit_loops")
                    ),
                )
            ]
            lines.append(f"| {name} | {batch} x {columns} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def refuse(why: str) -> NoReturn:
    print(f"benchmarks.instructions: {why}", file=sys.stderr)
    raise SystemExit(2)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="root of another checkout, counted too")
    parser.add_argument("--rules", nargs="+", choices=list(OPS), default=list(OPS), metavar="RULE")
    parser.add_argument("--output", type=Path, default=record.RESULTS, help="folder; default: %(default)s")
    arguments = parser.parse_args(words)
    if tool() is None:
        refuse("this Triton ships no cuobjdump, by which instructions are counted")
    after = record.stamp()["commit"]
    before = ""
    rows = []
    if arguments.before is not None:
        done = subprocess.run(
            ["git", "-C", str(arguments.before), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        before = done.stdout.strip() or str(arguments.before)
        try:
            rows += measure(arguments.rules, arguments.before, before)
        except DataError as error:
            refuse(str(error))
    rows += measure(arguments.rules, None, after)
    path = arguments.output / "instructions.csv"
    record.append(path, rows, KEY)
    text = table(record.read(path), before, after)
    write_atomically(path.with_suffix(".md"), lambda stream: stream.write(text.encode()), DataError)
    print(text)


if __name__ == "__main__":
    main()
