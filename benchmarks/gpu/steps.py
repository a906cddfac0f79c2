"""The measurements of the programmes. Each step takes a Bench, measures one side after another and keeps each at once.

Without a GPU a step runs in miniature: small networks and sizes on the CPU, Triton's kernels in its interpreter. The
keys of such figures say their sizes, and their card is "none".
"""

import gzip
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from fastnoise.config import EngineConfig
from fastnoise.losses import CrossEntropyLoss
from fastnoise.ops.registry import OPS, FusedOp

from .. import counting, loader, loss_sides, losses, record, stacked, timing, train
from ..report import Figure
from ..workload import Workload, generated, images_workload, jpeg_folder, make_workload
from . import large, norms, runs
from .bench import Bench, NotMeasured

ROUNDS = 3
"""Turns of a side of training: its first as soon as it is built, the others in turn with the other sides."""

TESTS = record.ROOT / "tests"


def device_of(bench: Bench) -> torch.device:
    return torch.device("cuda", 0) if bench.on_gpu else torch.device("cpu")


def options_of(bench: Bench, seconds: float = 1.0) -> train.Options:
    """Of the sides of training. What does not say otherwise is not compiled, which costs a minute a side."""
    engine = EngineConfig(compile="off")
    if not bench.on_gpu:
        return train.Options(device_of(bench), engine=engine, workers=0, threads=1, rounds=2, seconds=0.05)
    return train.Options(device_of(bench), engine=engine, workers=8, threads=8, rounds=ROUNDS, seconds=seconds)


@cache
def _images(count: int) -> Any:
    return generated((count, 32, 32, 3), 10)


def cifar(bench: Bench, model: str, batch_size: int) -> Workload:
    """Generated images in CIFAR-10's form; on a CPU few and a small network."""
    if not bench.on_gpu:
        workload = images_workload(_images(256), "generated images", "cifar10", "small_cnn", 16, 10)
        return replace(workload, width=0.25)
    return images_workload(_images(50_000), "generated images", "cifar10", model, batch_size, 10)


# -- the machine ---------------------------------------------------------------------------------------------


def first_kernel(bench: Bench) -> None:
    """Compiles one Triton kernel and runs it: without a C compiler none of them can be launched."""
    torch.manual_seed(0)
    with kernels_of_triton(bench):
        logits = torch.randn(16, 10, device=device_of(bench), requires_grad=True)
        labels = torch.arange(16, device=device_of(bench)) % 10
        loss = CrossEntropyLoss()(logits, labels)
        loss.backward()
    expected = torch.nn.functional.cross_entropy(logits.detach().cpu(), labels.cpu())
    torch.testing.assert_close(loss.detach().cpu(), expected, rtol=1e-5, atol=1e-5)


def bandwidth(bench: Bench) -> None:
    device, dtype = device_of(bench), torch.bfloat16 if bench.on_gpu else torch.float32
    name = str(dtype).removeprefix("torch.")

    def copy() -> None:
        bench.value("machine/copy", copy_gb_s(bench), "GB/s", "higher")

    def product() -> None:
        machine = counting.measured(device, dtype)
        bench.value(f"machine/{name}-product", machine.flops / 1e12, "TFLOP/s", "higher", how=machine.words)

    bench.attempt("machine/copy", copy)
    bench.attempt(f"machine/{name}-product", product)


def copy_gb_s(bench: Bench) -> float:
    return losses.copy_bandwidth(device_of(bench)) if bench.on_gpu else timing.copy_bandwidth(1 << 24) / 1e9


# -- the losses ----------------------------------------------------------------------------------------------


@contextmanager
def kernels_of_triton(bench: Bench) -> Iterator[None]:
    """On a CPU Triton's interpreter in the place of the C++ kernels; on a GPU nothing."""
    if bench.on_gpu:
        yield
        return
    from fastnoise.kernels import row, rules

    try:
        for op in OPS.values():
            op.on_cpu = partial(_interpreted, op, row.launch, getattr(rules, op.name.upper()))  # type: ignore[method-assign]
        yield
    finally:
        for op in OPS.values():
            vars(op).pop("on_cpu", None)


def _interpreted(op: FusedOp, launch: Any, rule: Any, *inputs: Any) -> Any:
    return op.launch(launch, rule, inputs)


@contextmanager
def from_tests() -> Iterator[None]:
    """Modules of the tests can be imported: the cases of the losses and their references stand there."""
    if not TESTS.is_dir():
        raise NotMeasured("the cases of the losses are in a checkout only")
    sys.path.insert(0, str(TESTS))
    try:
        yield
    finally:
        sys.path.remove(str(TESTS))


RULE_SIZES = ((64, 10), (128, 100), (4096, 1000))
FIRST_RULES = ("elr", "nal-code", "swce", "ce")


def rules(bench: Bench) -> None:
    """Every rule over five steps against float64, by the tests' own measure and bounds."""
    with from_tests():
        import _loss_cases as cases  # type: ignore[import-not-found]
    names = cases.RULES if bench.on_gpu else cases.ONE_PER_OP  # the interpreter takes half a second for each
    sizes = RULE_SIZES if bench.on_gpu else ((4, 10),)
    first = list(itertools.product(FIRST_RULES, sizes))
    others = [case for case in itertools.product(names, sizes) if case not in first]
    dtype = "bfloat16"
    with kernels_of_triton(bench):
        for rule, (batch, num_classes) in [*first, *others]:
            key = f"rules/{rule}/{batch}x{num_classes}-{dtype}"

            def one(rule: str = rule, batch: int = batch, num_classes: int = num_classes, key: str = key) -> None:
                where = device_of(bench).type
                # At (4096,1000) a CPU would take minutes for the references.
                exact_device = where if batch * num_classes > 100_000 else "cpu"
                errors = cases.measure(rule, num_classes, dtype, batch=batch, device=where, exact_device=exact_device)
                bench.value(key, errors.gradient, "error", loss=errors.loss, targets=errors.targets,
                            attention=errors.attention, gradient_of_torch=errors.gradient_torch)  # fmt: skip
                cases.assert_close(errors, dtype, interpreted=not bench.on_gpu)

            bench.attempt(key, one)


LOSS_SIZES = ((64, 10), (128, 100), (4096, 1000), (8192, 21841))
GEOMETRIES: dict[int, tuple[tuple[int, int, int], ...]] = {
    3: ((2, 4, 1),),
    10: ((2, 16, 1), (8, 16, 1), (16, 16, 1), (64, 16, 4)),
    100: ((2, 128, 1), (1, 128, 2), (4, 128, 2), (8, 128, 4)),
    1000: ((1, 1024, 1), (1, 1024, 4), (1, 1024, 8)),
    21841: ((1, 1024, 4), (1, 2048, 4), (1, 2048, 16), (1, 4096, 8)),
}
"""By the number of classes: rows per program, columns per stretch and warps, around the kernel's own choice."""


def replayed_losses(bench: Bench) -> None:
    """The losses in graphs, most telling first: ELR at all sizes, its kernel in other geometries, the other losses, the
    authors' ELR, and that compiled, which takes longest to build."""
    from fastnoise.kernels import row

    dtype = "bfloat16" if bench.on_gpu else "float32"
    seconds = 0.3 if bench.on_gpu else 0.02
    measured = losses.Bench(device_of(bench), dtype, seconds, bench.stamp, copy_gb_s(bench))
    made: dict[tuple[int, int], list[losses.Inputs]] = {}

    def sides(
        loss: str,
        batch: int,
        num_classes: int,
        names: Sequence[str],
        modes: Sequence[str],
        graph: bool = bench.on_gpu,
    ) -> None:
        for name, mode in itertools.product(names, modes):
            kernel, _, geometry = name.partition("@")
            how = "kernel" if kernel == "kernel" else mode
            key = f"losses/{loss}/{batch}x{num_classes}-{dtype}/{how}{'-graph' if graph else ''}/{name}"

            def one(name: str = name, mode: str = mode, kernel: str = kernel, geometry: str = geometry,
                    how: str = how, graph: bool = graph) -> None:  # fmt: skip
                if (batch, num_classes) not in made:
                    made.clear()  # inputs of other sizes give their memory back
                    made[batch, num_classes] = measured.inputs(batch, num_classes)
                inputs = made[batch, num_classes]
                rows = losses.table_rows(batch, num_classes)
                if kernel == "kernel":
                    given = tuple(int(number) for number in geometry.split("x")) if geometry else None
                    side = loss_sides.kernel_side(loss, rows, num_classes, device_of(bench), given)  # type: ignore[arg-type]
                    mode = "forward"
                else:
                    side = losses.sides_of(loss, rows, num_classes, device_of(bench))[name]
                sampler = losses.graph_samples if graph else losses.cuda_samples if bench.on_gpu else losses.cpu_samples
                samples = losses.in_turn({name: sampler(side, mode, inputs, loss == "nal")}, seconds)[name]
                figure = losses.figure(measured.row(loss, batch, num_classes, name, how, graph, samples, len(inputs)))
                if kernel == "kernel":
                    shape = "x".join(map(str, given or row.geometry(num_classes)))
                    figure = replace(figure, details={**figure.details, "geometry": shape})
                bench.keep(figure)

            bench.attempt(key, one)

    def geometries(loss: str, batch: int, num_classes: int) -> None:
        names = ["kernel", *(f"kernel@{'x'.join(map(str, shape))}" for shape in GEOMETRIES[num_classes])]
        sides(loss, batch, num_classes, names, ("both",))

    if not bench.on_gpu:
        sides("elr", 8, 3, ("fused", "authors"), ("step", "both"))
        geometries("elr", 8, 3)
        return
    for size in LOSS_SIZES:
        sides("elr", *size, ("fused",), ("step", "both", "forward"))
        geometries("elr", *size)
    for loss in ("swce", "nal", "ce"):
        sides(loss, 4096, 1000, ("fused",), ("step", "both"))
    geometries("swce", 4096, 1000)
    sides("elr", 128, 100, ("authors",), ("step", "both"))
    sides("elr", 128, 100, ("fused", "authors_list"), ("both",), graph=False)
    geometries("nal", 4096, 1000)
    sides("elr", 4096, 1000, ("authors",), ("step", "both"))
    sides("elr", 128, 100, ("authors_compiled",), ("step", "both"))
    for loss, size in itertools.product(("nal", "swce", "ce"), ((64, 10), (128, 100), (8192, 21841))):
        sides(loss, *size, ("fused",), ("both", "forward"))


# -- training steps ------------------------------------------------------------------------------------------


def capture(bench: Bench) -> None:
    """Steps replay one captured graph, as many times as asked, while any wait for the device is an error."""
    models = ("small_cnn", "resnet18") if bench.on_gpu else ("small_cnn",)
    for model in models:
        bench.attempt(f"graph/{model}", lambda model=model: _capture(bench, model))  # type: ignore[misc]


def _capture(bench: Bench, model: str) -> None:
    options, workload = options_of(bench), cifar(bench, model, 128)
    call, step = train.fastnoise_step(workload, "elr", options)
    stream, _ = train.fastnoise_batches(workload, "resident", options, step.amp or torch.float32)
    for _ in range(8):
        call(*next(stream))
    before, count = step.replays, 50
    if not bench.on_gpu:
        bench.say(f"  {model}: no CUDA graphs without a GPU; {step.gear.reason}")
        bench.value(f"graph/{model}/eager-steps", 8, "steps", "higher")
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(count):
            call(*next(stream))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    memory = torch.cuda.max_memory_reserved() / 2**30
    bench.value(f"graph/{model}/replays-per-step", (step.replays - before) / count, "replays", "higher",
                steps=count, gear=step.gear.reason, reserved_gib=memory)  # fmt: skip


def _contest(bench: Bench, workload: Workload, sides: Sequence[str], profiled: Sequence[str] = ()) -> None:
    """Sides of training, each measured and kept as soon as it is built, then in turn."""
    contest = train.Contest(workload, options_of(bench), bench.say)

    def enter(name: str) -> None:
        contest.enter(name)
        side = contest.sides[name]
        bench.keep(*contest.figures())
        bench.value(f"train/{workload.key}/{name}/first-step", side.details["first_step_s"], "s")

    try:
        for name in sides:
            bench.attempt(f"train/{workload.key}/{name}", lambda name=name: enter(name))  # type: ignore[misc]
        for _ in range(contest.options.rounds - 1):
            # A turn, and as long again to use up what was prepared. What comes after the rounds takes some time, too.
            if (
                contest.sides
                and bench.left() > 2 * contest.options.seconds * len(contest.sides) + 10 * len(profiled) + 3
            ):
                contest.round()
                bench.keep(*contest.figures())
        for name in profiled:
            if name in contest.sides:
                key = f"profile/{workload.key}/{name}"
                bench.attempt(key, lambda name=name, key=key: _profile(bench, key, contest, name))  # type: ignore[misc]
    finally:
        contest.close()


def _profile(bench: Bench, key: str, contest: train.Contest, side_name: str) -> None:
    """One step under the profiler: a table of what ran and the trace of it, in the folder. A turn afterwards shows
    whether the profiler still holds up the process, and with it what is measured later."""
    side = contest.sides[side_name]
    before = timing.spread([turn.images_per_second for turn in contest.turns[side_name]]).median
    batch = next(side.batches)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.on_gpu:
        torch.cuda.synchronize()
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        side.step(*batch)
        if bench.on_gpu:
            torch.cuda.synchronize()
    name = key.replace("/", "-")
    trace = bench.folder / f"{name}.json.gz"
    profiler.export_chrome_trace(str(trace))
    kinds = ("kernel", "gpu_memcpy", "gpu_memset") if bench.on_gpu else ("cpu_op",)
    events = [event for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
              if event.get("ph") == "X" and event.get("cat") in kinds]  # fmt: skip
    spent: dict[str, list[float]] = {}
    for event in events:
        spent.setdefault(event["name"], []).append(event["dur"])
    rows = sorted(spent.items(), key=lambda item: -sum(item[1]))
    total = sum(event["dur"] for event in events)
    lines = [f"{key}: {len(events)} events, {total:.1f} us", "us in all  share   calls  us each  name"]
    lines += [f"{sum(times):9.1f}  {sum(times) / max(total, 1e-9):5.1%}  {len(times):6}  {sum(times) / len(times):7.2f}"
              f"  {name}" for name, times in rows]  # fmt: skip
    (bench.folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bench.say("\n".join(line[:150] for line in lines[:12]))
    bench.value(f"{key}/events", len(events), "kernels" if bench.on_gpu else "ops")
    bench.value(f"{key}/busy", total, "us")
    turn = train.take_turn(side, contest.steps[side_name], contest.workload.batch_size, contest.options.device)
    bench.value(f"{key}/speed-afterwards", turn.images_per_second / before, "times", "higher")


def resnet34(bench: Bench) -> None:
    _contest(bench, cifar(bench, "resnet34", 128), ("uncompiled",), profiled=("uncompiled",))


def resnet34_compiled(bench: Bench) -> None:
    _contest(bench, cifar(bench, "resnet34", 128), ("compiled",), profiled=("compiled",))


def ratios(bench: Bench) -> None:
    sides = ["uncompiled", "amp@resident", "ordinary", "compile@resident", "cross_entropy", "uncompiled@synthetic"]
    sides += ["combo_kernels"]
    if not bench.on_gpu:
        sides = [side for side in sides if side not in ("compile@resident", "combo_kernels")]
        bench.say("  what is compiled: left out on a CPU, where resnet34_compiled shows what compiling takes")
    _contest(bench, cifar(bench, "resnet34", 128), sides)


def options(bench: Bench) -> None:
    """One network at a time: to have several compiled ones side by side would only keep memory busy."""
    if not bench.on_gpu:
        raise NotMeasured("combo kernels and PDL are options of Inductor's for GPUs")
    for side in ("combo_kernels", "pdl", "compiled"):
        _contest(bench, cifar(bench, "resnet34", 128), (side,))
        bench.free()


def batch_norm(bench: Bench) -> None:
    """Layers alone, then steps of ResNet-34 with both kinds of batch norm, not compiled and compiled."""
    norms.norm_layers(bench)
    sides = ["fused_norm", "uncompiled", "compiled_fused_norm", "compiled"]
    if not bench.on_gpu:
        sides = sides[:2]
        bench.say("  what is compiled: left out on a CPU, where resnet34_compiled shows what compiling takes")
    profiled = [side for side in sides if "fused_norm" in side] if bench.on_gpu else []
    _contest(bench, cifar(bench, "resnet34", 128), sides, profiled=profiled)


def _sizes(model: str, cases: dict[int, tuple[str, ...]]) -> Callable[[Bench], None]:
    def measure(bench: Bench) -> None:
        for batch_size, sides in cases.items() if bench.on_gpu else ((16, ("uncompiled", "amp@resident")),):
            _contest(bench, cifar(bench, model, batch_size), sides)
            bench.free()

    return measure


def resnet50(bench: Bench) -> None:
    """From JPEG files through DALI, and on synthetic batches of the same form."""
    side, count, batch, model, classes = (
        (224, 2048, 128, "resnet50", 1000) if bench.on_gpu else (32, 32, 8, "small_cnn", 10)
    )
    with tempfile.TemporaryDirectory() as folder:
        table = jpeg_folder(Path(folder), count, side, classes)
        workload = images_workload(table, f"{count} JPEG files written here", "jpeg", model, batch, classes)
        _contest(bench, workload, ("uncompiled@dali", "uncompiled@synthetic", "amp@synthetic"))


def optimizer(bench: Bench) -> None:
    """The kernel of the optimisers against PyTorch's. Compiled sides come last, since they take longest to build."""
    if not bench.on_gpu:
        raise NotMeasured("the optimisers' kernel needs a GPU")
    for sides in (("uncompiled", "triton_optimizer"), ("compiled", "compiled_triton_optimizer")):
        _contest(bench, cifar(bench, "resnet34", 128), sides)
        bench.free()


def joint(bench: Bench) -> None:
    """Eight steps a graph against one, where steps are short."""
    _contest(bench, make_workload("mnist", bench.data, batch_size=128 if bench.on_gpu else 16), ("uncompiled", "joint"))
    bench.free()
    if bench.on_gpu:
        _contest(bench, cifar(bench, "small_cnn", 128), ("uncompiled", "joint"))


# -- loaders, stacks -----------------------------------------------------------------------------------------


def loaders(bench: Bench) -> None:
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    loader.measure(
        cifar(bench, "resnet34", 128),
        options_of(bench, 0.5),
        bench.say,
        dtype=dtype,
        keep=lambda found: bench.keep(*found),
        attempt=bench.attempt,
    )


def stacks(bench: Bench) -> None:
    """Stacked LeNet-5 against one run after another."""
    workload = make_workload("mnist", bench.data, batch_size=128 if bench.on_gpu else 16)
    for count in (8, 32, 128) if bench.on_gpu else (2,):

        def one(count: int = count) -> None:
            row = stacked.measure(workload, count, None, replace(options_of(bench), method="ce"))
            spread = timing.Spread(*(float(row[name]) for name in ("speed_up_low", "speed_up", "speed_up_high")))
            details = {name: row[name] for name in ("form", "gear", "source")}
            key = f"stacked/{workload.key}/{count}"
            bench.keep(Figure.of(f"{key}:separate", spread, "times", "higher", int(row["rounds"]), **details))
            bench.value(key, float(row["stacked_images_per_s"]), "images/s", "higher", **details)

        bench.attempt(f"stacked/{workload.key}/{count}", one)
        bench.free()


_R34_SIDES: dict[int, tuple[str, ...]] = {
    128: ("uncompiled", "amp@resident"),
    64: ("uncompiled", "amp@resident", "compiled", "compile@resident"),
    512: ("uncompiled", "amp@resident"),
}
_R18_SIDES: dict[int, tuple[str, ...]] = {
    128: ("uncompiled", "amp@resident", "compiled"),
    64: ("uncompiled", "amp@resident"),
    512: ("uncompiled", "amp@resident"),
}

STEPS: dict[str, Callable[[Bench], str | None]] = {
    "bandwidth": bandwidth,
    "rules": rules,
    "capture": capture,
    "losses": replayed_losses,
    "resnet34": resnet34,
    "resnet34_compiled": resnet34_compiled,
    "ratios": ratios,
    "options": options,
    "optimizer": optimizer,
    "joint": joint,
    "train": runs.three_epochs,
    "batch_norm": batch_norm,
    "held_rows": large.held_rows,
    "fused_head": large.fused_head,
    "resnet50": resnet50,
    "resnet34_sizes": _sizes("resnet34", _R34_SIDES),
    "resnet18_sizes": _sizes("resnet18", _R18_SIDES),
    "loaders": loaders,
    "stacked": stacks,
    **runs.WHOLE,
}
"""The function of every step that is neither the first nor a matter of tests."""
