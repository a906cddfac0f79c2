"""The process that keeps the time. It holds no torch, starts the worker and the tests, and outlives both.

The worker gets one step after another over its standard input and says over a pipe which side it is at and how a step
ended. A step that passes its limit, wherever it hangs, is killed with all that it has started; a new worker takes up
the rest. A worker that dies within a step is replaced too, and the step goes on behind the side at which it died.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import records
from .programmes import STACK, Step

ROOT = Path(__file__).resolve().parents[2]

GRACE = 5.0
"""Seconds that a worker has to end by itself when there are no steps left."""

TEST_LIMIT = 60
"""Seconds of a test."""

BROKEN = 77
"""Exit code of tests whose process has lost CUDA (tests/conftest.py)."""

AT_ONCE = 8
"""Processes of test files that run side by side on a large machine."""


@dataclass
class Output:
    """Standard output and a copy of it in the folder, line by line and flushed."""

    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, line: str) -> None:
        with self.lock:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the folder is what counts
                print(line, flush=True)
            with open(self.path, "a", encoding="utf-8", errors="replace") as stream:
                stream.write(line + "\n")

    def follow(self, stream: IO[bytes], prefix: str = "") -> threading.Thread:
        """Pass on what a process writes, as it comes."""

        def run() -> None:
            for line in stream:
                self.say(prefix + line.decode(errors="replace").rstrip("\n"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


_prctl = ctypes.CDLL(None).prctl


def die_with_parent() -> None:
    """In a child before it becomes another program: the kernel kills it as soon as its parent is gone."""
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Worker:
    """A process of `worker.py` and the events that it reports."""

    def __init__(self, command: Sequence[str], output: Output):
        read_end, write_end = os.pipe()
        try:
            self.process = subprocess.Popen(
                [*command, "--events", str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        finally:
            os.close(write_end)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.reader = output.follow(self.process.stdout)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stack_loaded = False

        def listen() -> None:
            with open(read_end, "rb") as stream:
                for line in stream:
                    with contextlib.suppress(ValueError):  # part of a line, of a worker that was killed
                        self.events.put(json.loads(line))

        def wait() -> None:
            code = self.process.wait()
            listener.join(1)  # a child of the worker may hold the pipe open for longer
            self.events.put({"event": "exit", "code": code})

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        threading.Thread(target=wait, daemon=True).start()

    def begin(self, step: Step, seconds: float, skip: Iterable[str]) -> None:
        assert self.process.stdin is not None
        order = {"step": step.name, "seconds": seconds, "skip": sorted(skip)}
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which its exit says
            self.process.stdin.write((json.dumps(order) + "\n").encode())
            self.process.stdin.flush()

    def close(self) -> None:
        """Let it end by itself, or kill it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        kill(self.process)
        self.reader.join(1)

    def stop(self) -> None:
        """Kill it, after it has shown where it stands: faulthandler needs no Python to run for that."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.5)
        kill(self.process)
        self.reader.join(1)


class Supervisor:
    """Runs one half of a programme.

    Args:
        programme, half: as the records name them.
        steps: in the order of their weight.
        seconds: of the half, from `began` on, a value of time.monotonic().
        folder: of the records.
        worker: the command that starts a worker.
    """

    def __init__(
        self,
        programme: str,
        half: int,
        steps: Sequence[Step],
        seconds: float,
        folder: Path,
        worker: Sequence[str],
        began: float | None = None,
    ):
        self.programme, self.half, self.steps, self.folder, self.command = programme, half, steps, folder, worker
        self.began = time.monotonic() if began is None else began
        self.deadline = self.began + seconds
        self.output = Output(folder / f"{programme}-{half}.log")
        self.worker: Worker | None = None
        self.on_gpu = False
        """As the worker found it."""

    def run(self) -> None:
        self.output.say(f"{self.programme}, half {self.half}: {', '.join(step.name for step in self.steps)}")
        try:
            for step in self.steps:
                self._step(step)
        except BaseException:
            if self.worker is not None:
                kill(self.worker.process)
            raise
        if self.worker is not None:
            self.worker.close()

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _step(self, step: Step) -> None:
        if self._left() < step.needs:
            self._ended(step, "skipped", f"{max(0.0, self._left()):.0f} s are left and it needs {step.needs:.0f}", 0.0)
            return
        if step.module and not installed(step.module):
            self._ended(step, "not measured", f"{step.module} is not installed", 0.0)
            return
        start = time.monotonic()
        limit = min(self._limit(step, start), self._left())
        self.output.say(f"-- {step.name}: {step.words} (at {start - self.began:.0f} s, limit {limit:.0f} s)")
        run = self._tests if step.tests is not None else self._measure
        status, reason = run(step, start + limit)
        self._ended(step, status, reason, time.monotonic() - start)

    def _limit(self, step: Step, start: float) -> float:
        """Seconds that a step has which begins at `start`."""
        if not step.greedy:
            return step.limit
        planned = sum(earlier.limit for earlier in self.steps[: self.steps.index(step)])
        return step.limit + max(0.0, self.began + planned - start)

    def _ended(self, step: Step, status: str, reason: str, seconds: float) -> None:
        where = {"programme": self.programme, "half": self.half, "step": step.name}
        line = {"kind": "step", **where, "status": status, "reason": reason, "seconds": round(seconds, 2)}
        records.append(self.folder / records.LINES, {**line, "at": records.now()})
        self.output.say(f"-- {step.name}: {status}{': ' if reason else ''}{reason} ({seconds:.1f} s)")

    # -- steps of the worker -------------------------------------------------------------------------------

    def _measure(self, step: Step, deadline: float) -> tuple[str, str]:
        """Let a worker make a step until `deadline`, in a new process wherever one dies of a side."""
        tried: set[str] = set()
        deaths: list[str] = []
        while True:
            if self.worker is not None and self.worker.process.poll() is not None:  # it died between two steps
                self.worker = None
            if self.worker is None:
                self.worker = Worker(self.command, self.output)
            if step.name != STACK.name and not self.worker.stack_loaded:
                status, reason = self._command(STACK, min(time.monotonic() + STACK.limit, self.deadline), set())
                if self.worker is None:
                    return "failed", f"no worker: {reason}"
                # What a new worker takes to start is no fault of the step, as long as the half has the time.
                deadline = min(self.deadline, max(deadline, time.monotonic() + step.needs))
            before = len(tried)
            status, reason = self._command(step, deadline, tried)
            if status == "died":
                deaths.append(reason)
                if len(tried) > before and deadline - time.monotonic() > step.needs:
                    continue
                return "failed", "; ".join(deaths)
            if deaths and status == "done":
                return "failed", "; ".join(deaths)
            return status, "; ".join(filter(None, [*deaths, reason]))

    def _command(self, step: Step, deadline: float, tried: set[str]) -> tuple[str, str]:
        """Give the worker a step and wait for its end. `tried` gets the sides that it has begun."""
        worker = self.worker
        assert worker is not None
        worker.begin(step, max(0.0, deadline - time.monotonic()), tried)
        side = ""
        while True:
            try:
                event = worker.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                worker.stop()
                self.worker = None
                where = f" in {side}" if side else ""
                return "stopped", f"at its limit{where}; what it had measured is kept"
            if event["event"] == "side":
                side = event["side"]
                tried.add(side)
            elif event["event"] == "device":
                self.on_gpu = event["on_gpu"]
            elif event["event"] == "exit":
                self.worker = None
                where = f" in {side}" if side else ""
                code = event["code"]
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                if side:
                    self._failed(step, side, f"the worker died of {how}")
                kill(worker.process)
                return "died", f"the worker died{where}: {how}"
            elif event["event"] == "end":
                if step.name == STACK.name:
                    worker.stack_loaded = True
                if event["poisoned"]:  # the CUDA context is of no more use
                    self.output.say("-- the worker's CUDA context is broken: a new worker takes over")
                    kill(worker.process)
                    self.worker = None
                return event["status"], event["reason"]

    def _failed(self, step: Step, side: str, error: str) -> None:
        where = {"programme": self.programme, "half": self.half, "step": step.name}
        line = {"kind": "failure", **where, "side": side, "error": error, "at": records.now()}
        records.append(self.folder / records.LINES, line)

    # -- steps that are tests ------------------------------------------------------------------------------

    def _tests(self, step: Step, deadline: float) -> tuple[str, str]:
        """Run the files of the tests as processes side by side, until all have ended or `deadline`."""
        tests = ROOT / "tests"
        if not tests.is_dir():
            return "not measured", "the tests are in a checkout only"
        if self.on_gpu:
            paths, selection = (
                files_of_tests(tests),
                ["-m", step.tests or "", *(["-k", step.keyword] * bool(step.keyword))],
            )
        elif step.miniature:
            path, _, name = step.miniature.partition("::")
            paths, selection = [tests / path], ["-k", name]
        else:
            return "not measured", "without a GPU these tests are skipped"
        files = [FileOfTests(path, step.name, selection, self.folder, self.output) for path in paths]
        waiting, running, cut = list(files), list[FileOfTests](), False
        at_once = max(1, min(AT_ONCE, (os.cpu_count() or 1) // 2))
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start()
            if time.monotonic() > deadline:
                cut = True
                break
            time.sleep(0.1)
            running = [file for file in running if not file.ended()]
        for file in running:
            file.kill()
        outcomes = [outcome for file in files for outcome in file.outcomes().values()]
        counts = {word: outcomes.count(word) for word in ("passed", "failed", "skipped", "running")}
        words = ", ".join(f"{count} {word}" for word, count in counts.items() if count and word != "running")
        silent = [file.path.stem for file in files if file.broken()]
        if silent:
            words = f"{words or 'no outcome'}; {', '.join(silent)} ended with an error of pytest's"
        if cut:
            unfinished = [file.path.stem for file in (*running, *waiting)]
            return "stopped", f"at its limit: {words or 'no outcome'}; not finished: {', '.join(unfinished)}"
        if silent or counts["failed"] or counts["running"]:
            return "failed", words
        return "done", words or "no test was selected"


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


FIRST_FILES = ("test_losses", "test_step", "test_tables", "test_selection", "test_loaders", "test_contrastive")
"""Files of tests in the order of their weight; the others come after them."""

_MARK = re.compile(r"@pytest\.mark\.gpu\b|pytestmark\s*=.*\bgpu\b")


def files_of_tests(folder: Path) -> list[Path]:
    """Files that hold a test marked gpu, found by reading them."""
    found = [path for path in folder.glob("test_*.py") if _MARK.search(path.read_text(encoding="utf-8"))]
    ranks = {name: rank for rank, name in enumerate(FIRST_FILES)}
    return sorted(found, key=lambda path: (ranks.get(path.stem, len(ranks)), path.stem))


class FileOfTests:
    """One file's tests in a process of pytest. One that a test's time limit or broken CUDA has ended is started again
    behind that test."""

    def __init__(self, path: Path, step: str, selection: Sequence[str], folder: Path, output: Output):
        self.path, self.selection, self.output = path, selection, output
        self.journal = folder / f"tests-{step}-{path.stem}.jsonl"
        self.journal.unlink(missing_ok=True)
        self.left_out = self.journal.with_suffix(".txt")
        self.process: subprocess.Popen[bytes] | None = None
        self.cut_off = self.known = 0

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "--no-summary",
            "-p",
            "no:cacheprovider",
            str(self.path),
        ]
        command += [*self.selection, "--limit", str(TEST_LIMIT), "--journal", str(self.journal)]
        done = self.outcomes()
        if done:
            self.left_out.write_text("".join(f"{test}\n" for test in done), encoding="utf-8")
            command += ["--leave-out", str(self.left_out)]
        workers = self._workers()
        if workers > 1:
            command += ["-n", str(workers)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            # Several workers with a pool of compilers each would be more processes than cores.
            env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2"},
        )
        assert self.process.stdout is not None
        self.output.follow(self.process.stdout, f"[{self.path.stem}] ")

    def _workers(self) -> int:
        """Processes within the file: the losses have hundreds of tests that each compile a kernel."""
        if not installed("xdist"):
            return 1
        share = {"test_losses": 8, "test_step": 8}.get(self.path.stem, 1)
        return max(1, min(share, (os.cpu_count() or 1) // 2))

    def ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is None:
            return False
        kill(self.process)
        outcomes = self.outcomes()
        cut_off = list(outcomes.values()).count("running")
        if cut_off > self.cut_off or (self.process.returncode == BROKEN and len(outcomes) > self.known):
            self.cut_off, self.known = cut_off, len(outcomes)
            self.start()
            return False
        return True

    def kill(self) -> None:
        assert self.process is not None
        kill(self.process)

    def broken(self) -> bool:
        """Whether pytest itself failed: in a file that cannot be imported no test has an outcome."""
        code = None if self.process is None else self.process.poll()
        return code not in (None, 0, 1, 5, -signal.SIGKILL) or (code == 1 and not self.outcomes())

    def outcomes(self) -> dict[str, str]:
        """Test -> "passed", "failed", "skipped", or "running" for one that began and did not end."""
        if not self.journal.exists():
            return {}
        return {line["test"]: line["outcome"] for line in records.lines_of(self.journal)}
