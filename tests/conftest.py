"""Shared by all tests: marks that decide what runs where, a time limit per test, and small helpers."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

from fastnoise.lazy import uncollected

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real data beside the checkout, where a developer has it; nothing may depend on it."""

BROKEN = 77
"""Exit code of a process that a test has left without CUDA; what it has not run yet needs another one."""

LONGEST = (
    *("distributed", "package", "style", "train", "kernels", "losses", "sweeps", "use", "afternoon", "clean", "tables"),
    *("report", "bench_gpu", "networks", "cpp_core", "optimizers", "selection"),
)
"""Files that take most of the time, which begin first: one that began last would have a core to itself."""

GRACE = 5
"""Seconds after a test's limit in which Python must have noticed; a test that hangs outside of it ends the process."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the exhaustive grids too")
    parser.addoption("--limit", type=float, metavar="SECONDS", help="fail a test that takes longer")
    parser.addoption("--journal", type=Path, metavar="FILE", help="append a line of JSON as a test begins and ends, "
                     "and print failures as they come")  # fmt: skip
    parser.addoption("--leave-out", type=Path, metavar="FILE", help="do not run the tests named in it, one a line")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's own, which reads what is set here
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Spread all tests over the cores, a file to a process, unless -n or a test is named or benchmarks are timed."""
    option, cores = config.option, len(os.sched_getaffinity(0))
    everything = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    timed = getattr(option, "benchmark_enable", False) or getattr(option, "benchmark_only", False)
    if not config.pluginmanager.has_plugin("xdist") or option.numprocesses is not None or option.usepdb:
        return
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker, which is told its tests, or a test's own pytest
        return
    if everything and cores > 1 and not timed and not option.collectonly:
        option.numprocesses, option.dist = cores, "loadfile"
        option.loadscopereorder = False  # by the number of tests, which says little of their time
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("--limit")
    if limit:
        # A copy of stderr from before pytest captures it: what a hanging test shows must not be captured with it.
        config.pluginmanager.register(TimeLimit(limit, os.dup(sys.__stderr__.fileno())))  # type: ignore[union-attr]
        config.pluginmanager.register(WorkingCuda())
    journal = config.getoption("--journal")
    if journal and not hasattr(config, "workerinput"):  # workers of pytest-xdist report to the process that has them
        config.pluginmanager.register(Journal(journal, config))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without collecting garbage, which takes half of the time."""
    with uncollected():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    leave_out(config, items)
    items.sort(key=begins)
    chosen = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and "slow" not in chosen and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="exhaustive; run with --slow"))
        if item.get_closest_marker("sanitizers") and "sanitizers" not in chosen:
            item.add_marker(pytest.mark.skip(reason="builds of a minute; run with -m sanitizers"))


def begins(item: pytest.Item) -> int:
    """Where a test's file stands among the longest, or behind them."""
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that --leave-out names."""
    file = config.getoption("--leave-out")
    if file:
        names = set(file.read_text(encoding="utf-8").splitlines())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in names])
        items[:] = [item for item in items if item.nodeid not in names]


class TimeLimit:
    """Fails a test after so many seconds.

    An alarm raises in the test, which shows where it stands. Where Python cannot run, since C code hangs and lets
    nobody in, faulthandler's own thread shows the stacks and ends the process GRACE seconds later.
    """

    def __init__(self, seconds: float, stderr: int):
        self.seconds, self.stderr = seconds, stderr

    def _raise(self, number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {self.seconds:g} s")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        faulthandler.dump_traceback_later(self.seconds + GRACE, exit=True, file=self.stderr)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._raise)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def cuda_works() -> bool:
    """False after an illegal access: every later call of the process fails, whatever test makes it."""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


class WorkingCuda:
    """Ends the process behind a test that has broken CUDA, or all tests after it would fail too."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        result = yield
        if item.get_closest_marker("gpu") and not item.get_closest_marker("skip") and not cuda_works():
            print(f"\n{item.nodeid} has left CUDA broken: this process ends", file=sys.__stderr__, flush=True)
            os._exit(BROKEN)
        return result


class Journal:
    """Tells of tests as they begin and end: in a file, which outlives the process, and failures on the screen."""

    def __init__(self, path: Path, config: pytest.Config):
        self.path, self.config = path, config

    def _write(self, test: str, outcome: str, seconds: float = 0.0, message: str = "") -> None:
        line = {"kind": "test", "test": test, "outcome": outcome, "seconds": round(seconds, 3), "message": message}
        text = json.dumps({**line, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}) + "\n"
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(text)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, "running")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write(report.nodeid, "failed", report.duration, report.longreprtext[-2000:])
            writer = self.config.get_terminal_writer()
            writer.line(f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.1f} s)\n{report.longreprtext}")
            writer.flush()
        elif report.skipped or report.when == "call":
            self._write(report.nodeid, report.outcome, report.duration)


@pytest.fixture(scope="module")
def forked_servers() -> Iterator[None]:
    """Fork the servers of this process's sweeps from one that has their imports. test_sweeps.py tests real ones."""
    import _forked

    popen = SimpleNamespace(Popen=_forked.ForkedScript, PIPE=subprocess.PIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastnoise.sweeps.forkserver.subprocess", popen)
        yield


@pytest.fixture
def run_fastnoise(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call the command line in a process of its own, in an empty folder, and return what it said."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastnoise.cli", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "120"},
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run
