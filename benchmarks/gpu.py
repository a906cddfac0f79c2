"""Everything that a GPU is needed for, in one command, within a few minutes.

    python -m benchmarks.gpu --out results-gpu --minutes 8
    python -m benchmarks.gpu --out results-gpu --minutes 9 --parts tests

Runs, each in a process of its own with a share of the time: a check that steps replay one CUDA graph and never wait,
the training steps (ResNet-34 and ResNet-18 on images in CIFAR's form at batch 64, 128 and 512, ResNet-50 at 224 on
synthetic batches and from JPEG files), the losses, the loaders, and the tests marked `gpu`. Images are generated;
nothing is downloaded. DIR/PART.json and DIR/PART.log are there as soon as a part ends, and DIR/summary.md sets every
goal beside its figure, or says why it was not measured. The tests alone take longer than their share of 8 minutes:
several hundred compile a kernel each, on up to 8 cores at once where pytest-xdist is installed. Without a GPU the same
parts run in miniature on the CPU, and count for no goal.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fastnoise.errors import FastnoiseError
from fastnoise.files import write_text

from . import loader, record, report, suite, train
from .report import Figure, short
from .timing import Spread
from .workload import Workload, generated, images_workload, jpeg_folder


@dataclass(frozen=True)
class Part:
    """A measurement of its own process, which ends after `seconds` or the time that is left. Where --minutes give more
    than all parts ask for, each gets as many times more."""

    seconds: float
    measure: Callable[[Path], list[Figure]]


def _options(seconds: float = 1.0, rounds: int = 5) -> train.Options:
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        seconds, rounds = 0.05, 2
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    return train.Options(device, workers=8 if on_gpu else 1, threads=8 if on_gpu else 1, rounds=rounds, seconds=seconds)


def _cifar(model: str, batch_size: int) -> Workload:
    """Generated images in CIFAR-10's form; on a CPU few and a small network."""
    if not torch.cuda.is_available():
        return images_workload(generated((256, 32, 32, 3), 10), "generated images", "cifar10", "small_cnn", 32, 10)
    return images_workload(generated((50_000, 32, 32, 3), 10), "generated images", "cifar10", model, batch_size, 10)


def _keep(output: Path, done: list[Figure], latest: list[Figure]) -> None:
    report.write(output, [*done, *latest])


def _train(model: str, cases: dict[int, tuple[str, ...]]) -> Callable[[Path], list[Figure]]:
    """Training steps at several batch sizes; what is measured is written after every round."""

    def measure(output: Path) -> list[Figure]:
        figures: list[Figure] = []
        for batch, sides in cases.items():
            torch.compiler.reset()
            if not torch.cuda.is_available():
                sides = ("ordinary", "fastnoise")
            figures += train.measure(
                _cifar(model, batch), _options(), sides, after_round=partial(_keep, output, figures)
            )
            report.write(output, figures)
            if not torch.cuda.is_available():
                break
        print("\n".join(train.describe(figures)))
        return figures

    return measure


def _resnet50(output: Path) -> list[Figure]:
    """From JPEG files through DALI, and on synthetic batches of the same form."""
    on_gpu = torch.cuda.is_available()
    side, count, batch = (224, 2048, 128) if on_gpu else (32, 32, 8)
    table = jpeg_folder(output.with_suffix(".jpeg"), count, side, 1000 if on_gpu else 10)
    model, classes = ("resnet50", 1000) if on_gpu else ("small_cnn", 10)
    workload = images_workload(table, f"{count} JPEG files written here", "jpeg", model, batch, classes)
    sides = ("fastnoise@synthetic", "fastnoise@dali", *(("amp@synthetic",) if on_gpu else ()))
    figures = train.measure(workload, _options(), sides, after_round=partial(_keep, output, []))
    print("\n".join(train.describe(figures)))
    return figures


def _losses(output: Path) -> list[Figure]:
    sizes, seconds = (["64x10", "128x100", "4096x1000"], "1.5") if torch.cuda.is_available() else (["8x3"], "0.05")
    return suite.from_losses(["--losses", "elr", "swce", "--sizes", *sizes, "--modes", "both", "--seconds", seconds])


def _loader(output: Path) -> list[Figure]:
    figures = loader.measure(_cifar("resnet34", 128), _options(0.5))
    print("\n".join(loader.describe(figures)))
    return figures


def _graph(output: Path) -> list[Figure]:
    """Steps replay one captured graph, as many times as asked, while any wait for the device is an error."""
    options = _options()
    if options.device.type != "cuda":
        raise FastnoiseError("there is no GPU")
    workload = _cifar("resnet18", 128)
    call, step = train.fastnoise_step(workload, "elr", options)
    stream, _ = train.fastnoise_batches(workload, "resident", options, step.amp or torch.float32)
    for _ in range(8):
        call(*next(stream))
    torch.cuda.synchronize()
    before, count = step.replays, 50
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(count):
            call(*next(stream))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    replays = float(step.replays - before)
    print(f"{replays:.0f} replays in {count} steps without a wait; {step.gear.reason}")
    return [Figure.of("graph/replays-per-step", Spread(*[replays / count] * 3), "replays", "higher", count)]


def _tests(output: Path) -> list[Figure]:
    folder = Path(__file__).resolve().parents[1] / "tests"
    if not folder.is_dir():
        raise FastnoiseError("the tests are in a checkout only")
    junit = output.with_suffix(".xml")
    selection = ["-m", "gpu"] if torch.cuda.is_available() else ["-k", "test_schedules_follow_their_formulas"]
    chosen = [str(folder)] if torch.cuda.is_available() else [str(folder / "test_step.py")]
    words = [sys.executable, "-m", "pytest", "-q", *selection, f"--junitxml={junit}", *chosen]
    if torch.cuda.is_available() and importlib.util.find_spec("xdist"):  # most of their time is compiling on the host
        words += ["-n", str(min(8, os.cpu_count() or 1))]
    subprocess.run(words, cwd=folder.parent, check=False)
    suites = list(ElementTree.parse(junit).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(each.get(name, 0)) for each in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    bad = failures + errors
    passed = total - skipped - bad
    return [
        Figure.of(f"tests/{name}", Spread(*[float(value)] * 3), "tests", better, 1)
        for name, value, better in (("passed", passed, "higher"), ("failed", bad, "lower"))
    ]


ALL_SIDES = ("ordinary", "amp", "compile", "fastnoise", "cross_entropy", "fastnoise@synthetic", "amp@resident",
             "compile@resident")  # fmt: skip

PARTS: dict[str, Part] = {
    "graph": Part(60, _graph),
    "resnet34": Part(180, _train("resnet34", {128: ALL_SIDES})),
    "losses": Part(80, _losses),
    "loader": Part(45, _loader),
    "resnet34-sizes": Part(
        110, _train("resnet34", {64: ("fastnoise", "compile@resident", "amp@resident"), 512: ("fastnoise",)})
    ),
    "resnet50": Part(110, _resnet50),
    "resnet18": Part(90, _train("resnet18", dict.fromkeys((128, 64, 512), ("fastnoise", "amp@resident")))),
    "tests": Part(150, _tests),
}
"""In the order of their weight: what the time does not reach is the least missed."""


@dataclass(frozen=True)
class Goal:
    words: str
    part: str
    key: str
    least: float | None = None
    most: float | None = None
    over: str | None = None
    """Key of a figure that this one is set against: over / key, how many times faster where both are times."""
    detail: str | None = None
    """A figure among the row's details instead of its value."""

    def value(self, figures: dict[str, Figure]) -> float | None:
        figure = figures.get(self.key)
        if figure is None or (self.over is not None and self.over not in figures):
            return None
        if self.detail is not None:
            return float(figure.details[self.detail])
        return figure.value if self.over is None else figures[self.over].value / figure.value

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


_R34, _LOSS = "train/cifar10-resnet34-b128/fastnoise", "losses/{}/{}-bfloat16/both{}/{}"


def _loss(loss: str, size: str, side: str, graph: str = "-graph") -> str:
    return _LOSS.format(loss, size, graph, side)


GOALS = (
    Goal("replays of one graph per step, no waits", "graph", "graph/replays-per-step", 1, 1),
    Goal("ResNet-34, batch 128, images/s", "resnet34", _R34, 32_000),
    Goal("the same, share of the counted ceiling", "resnet34", _R34, 0.54, detail="ceiling_share"),
    Goal("the same, times the ordinary loop with 8 workers", "resnet34", f"{_R34}:ordinary", 4),
    Goal("the same, times AMP and channels_last on resident data", "resnet34", f"{_R34}:amp@resident", 1.3),
    Goal("the same, times torch.compile on resident data", "resnet34", f"{_R34}:compile@resident", 1.1),
    Goal("times torch.compile on resident data, batch 64", "resnet34-sizes",
         "train/cifar10-resnet34-b64/fastnoise:compile@resident", 1.4),
    Goal("ELR's speed over plain cross-entropy's", "resnet34", f"{_R34}:cross_entropy", 0.98),
    Goal("waiting for data, share", "resnet34", _R34, most=0.02, detail="data_wait"),
    Goal("resident data's speed over synthetic data's", "resnet34", f"{_R34}:fastnoise@synthetic", 0.99),
    Goal("ResNet-18, batch 128, images/s", "resnet18", "train/cifar10-resnet18-b128/fastnoise", 60_000),
    Goal("ResNet-50 at 224 from JPEG files, images/s", "resnet50", "train/jpeg-resnet50-b128/fastnoise@dali", 4500),
    Goal("the same, speed on JPEG files over synthetic data's", "resnet50",
         "train/jpeg-resnet50-b128/fastnoise@dali:fastnoise@synthetic", 0.95),
    Goal("resident loader alone, images/s", "loader", "loader/cifar10-b128/resident", 20e6),
    Goal("ELR (64, 10), replayed, µs", "losses", _loss("elr", "64x10", "fused"), most=3.5),
    Goal("ELR (128, 100), replayed, µs", "losses", _loss("elr", "128x100", "fused"), most=3.5),
    Goal("ELR (128, 100), replayed, times its authors'", "losses", _loss("elr", "128x100", "fused"), 15,
         over=_loss("elr", "128x100", "authors")),
    Goal("ELR (128, 100), replayed, times theirs compiled", "losses", _loss("elr", "128x100", "fused"), 2.5,
         over=_loss("elr", "128x100", "authors_compiled")),
    Goal("ELR (128, 100), called, times its authors'", "losses", _loss("elr", "128x100", "fused", ""), 4,
         over=_loss("elr", "128x100", "authors_list", "")),
    Goal("ELR (4096, 1000), replayed, share of copying", "losses", _loss("elr", "4096x1000", "fused"), 0.85,
         detail="copy_share"),
    Goal("SWCE (4096, 1000), replayed, share of copying", "losses", _loss("swce", "4096x1000", "fused"), 0.8,
         detail="copy_share"),
    Goal("tests marked gpu that fail", "tests", "tests/failed", most=0),
)  # fmt: skip


def summary(figures: Sequence[Figure], reasons: dict[str, str], on_gpu: bool) -> str:
    """The page: stamp, goals, what else was measured, why the rest was not."""
    by_key, stamp = {figure.key: figure for figure in figures}, record.stamp()
    lines = [
        "# fastnoise on this GPU" if on_gpu else "# fastnoise: the GPU's benchmark, in miniature on a CPU",
        "",
        f"{stamp['gpu'] if on_gpu else 'no GPU'}; {stamp['machine']}; torch {stamp['torch']}, "
        f"triton {stamp['triton']}; commit {stamp['commit'][:12] or 'unknown'}; {stamp['date']}",
        "",
        "| goal | figure | wanted | |",
        "| --- | ---: | ---: | --- |",
    ]
    for goal in GOALS:
        wanted = " and ".join(
            f"{sign} {short(bound)}" for sign, bound in (("≥", goal.least), ("≤", goal.most)) if bound is not None
        )
        value = goal.value(by_key) if on_gpu else None
        if value is None:
            why = reasons.get(goal.part, f"the part {goal.part} gave no such figure") if on_gpu else "no GPU"
            lines.append(f"| {goal.words} | not measured | {wanted} | {why} |")
        else:
            lines.append(f"| {goal.words} | {short(value)} | {wanted} | {'met' if goal.met(value) else 'MISSED'} |")
    lines.append(
        "| 150 epochs of ELR on CIFAR-10, ResNet-34, minutes | not measured | ≤ 6 | longer than this command: "
        "`fastnoise train --method elr --dataset cifar10 --noise symmetric:0.4,true_class=included` |"
    )
    lines += ["", "| measured | median | 20th to 80th percentile | |", "| --- | ---: | ---: | --- |"]
    for figure in figures:
        notes = [f"{figure.details['ceiling_share']:.1%} of the ceiling"] if "ceiling_share" in figure.details else []
        notes += [f"waiting {figure.details['data_wait']:.1%}"] if "data_wait" in figure.details else []
        spread = f"{short(figure.low)} to {short(figure.high)}"
        lines.append(f"| {figure.key} | {short(figure.value)} {figure.unit} | {spread} | {', '.join(notes)} |")
    for part, reason in reasons.items():
        lines.append(f"\n{part}: {reason}.")
    return "\n".join(lines) + "\n"


def run_part(name: str, output: Path) -> int:
    """What the process of one part does. FastnoiseError's line goes to the log as the reason."""
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
    try:
        report.write(output, PARTS[name].measure(output))
    except FastnoiseError as error:
        print(f"not measured: {error}")
        return 2
    return 0


def in_a_process(name: str, output: Path, seconds: float) -> str:
    """Run a part for so long; returns why it gave nothing or not all, or nothing."""
    log = output.with_suffix(".log")
    words = [sys.executable, "-m", f"{__package__}.gpu", "--out", str(output.parent), "--part", name]
    with open(log, "wb") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
            process.wait()
            return f"stopped after {seconds:.0f} s, its share of the time"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = said[-1].strip() if said else "without a word"
    if code == 2 and last.startswith("not measured: "):
        return last.removeprefix("not measured: ")
    return "" if code == 0 else f"failed ({last[:120]}), see {log.name}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; made if it is not there")
    parser.add_argument("--minutes", type=float, default=8, help="for everything together; default: %(default)s")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        return run_part(arguments.part, arguments.out / f"{arguments.part}.json")
    on_gpu, deadline = torch.cuda.is_available(), time.monotonic() + 60 * arguments.minutes
    figures: list[Figure] = []
    generous = max(1.0, 60 * arguments.minutes / sum(PARTS[name].seconds for name in arguments.parts))
    reasons: dict[str, str] = {name: "not asked for" for name in PARTS if name not in arguments.parts}
    for name in arguments.parts:
        output = arguments.out / f"{name}.json"
        output.unlink(missing_ok=True)
        seconds = min(generous * PARTS[name].seconds, deadline - time.monotonic())
        start = time.monotonic()
        if seconds < 5:
            reasons[name] = "no time was left"
        else:
            reason = in_a_process(name, output, seconds)
            if reason:
                reasons[name] = reason
            if output.exists():
                figures += report.read(output)[1]
        print(f"{name}: {reasons.get(name, 'done')} ({time.monotonic() - start:.0f} s)", flush=True)
        write_text(arguments.out / "summary.md", summary(figures, reasons, on_gpu))
    print(arguments.out / "summary.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
