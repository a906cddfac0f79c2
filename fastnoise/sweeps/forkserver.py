"""A process of its own for each assignment, at the cost of a fork.

Importing torch takes seconds, and a run must not inherit another run's state of torch: seeds, threads, compiled code.
So a server imports everything that training needs, does nothing with it, and forks itself for each assignment. Python's
multiprocessing has such a server too, but it runs the caller's main module again in each child.

No process outlives its sweep. If the sweep's process ends in any way, the server reads the end of its input and kills
its children. If the server is killed, Linux kills the children (PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from ..errors import TrainingError
from ..lazy import uncollected
from .job import Assignment, run_assignment

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

PRELOAD = (
    *("fastnoise.engine.single", "fastnoise.sweeps.results", "rich.progress"),  # fastnoise.engine alone imports nothing
    *("sklearn.datasets", "sklearn.metrics"),
    "torch._dynamo",  # which torch's optimisers import when they are made
)


class ForkServer:
    """The sweep's side of a server: starts assignments, and says how they ended.

    Args:
        threads: torch threads of each assignment.
    """

    def __init__(self, threads: int = 1):
        # Checking for a GPU through NVML, should an import do that, keeps the CUDA driver out of the server: one that
        # is set up before a fork does not work after it.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from fastnoise.sweeps.forkserver import serve; serve({threads})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._buffer = b""
        self.running: set[int] = set()

    def fileno(self) -> int:
        """The file descriptor for select. It is readable when an assignment has ended."""
        return self._replies.fileno()

    def start(self, number: int, assignment: Assignment) -> None:
        """Start an assignment under a number that the caller chooses."""
        self.running.add(number)
        self._send({"start": number, "assignment": assignment.to_json()})

    def signal(self, number: int, signal_number: int) -> None:
        """Send a signal to an assignment that runs."""
        self._send({"signal": signal_number, "to": number})

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # `ended` tells
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def ended(self) -> list[tuple[int, int]]:
        """The assignments that have ended since the last call, with their exit codes (-N for signal N). Call it when
        `fileno` is readable.

        If the server itself was killed, its assignments were killed too. All of them are returned as killed, and the
        server takes no more (`alive`). TrainingError if the server failed, for example if torch can't be imported.
        """
        data = os.read(self._replies.fileno(), 1 << 16)
        if not data:
            code = self._process.wait()
            if code >= 0:
                raise TrainingError(f"the process that starts jobs ended with exit code {code}; see its error above")
            lost = [(number, code) for number in sorted(self.running)]
            self.running.clear()
            return lost
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        replies = [json.loads(line) for line in lines]
        self.running -= {reply["ended"] for reply in replies}
        return [(reply["ended"], reply["code"]) for reply in replies]

    @property
    def alive(self) -> bool:
        """Whether the server can take assignments."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the running assignments and the server."""
        if not self.running:  # which may be at its imports still
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._replies.close()
        self._process.wait()


def die_with(parent: int) -> bool:
    """Have this process killed when its parent ends, on Linux; False if that one has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def serve(threads: int) -> None:
    """Run the server: it reads assignments from standard input until that ends, and writes to standard output how each
    ended."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no reply
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # the sweep decides when to stop, and its end is ours
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.signal(signal.SIGCHLD, _note)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    with uncollected():
        for module in PRELOAD:
            __import__(module)
    gc.freeze()  # a collection in a child would copy every page
    server, numbers, pids, buffer = os.getpid(), dict[int, int](), dict[int, int](), b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 1 << 12)
            while numbers:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                number = numbers.pop(pid)
                del pids[number]
                reply = {"ended": number, "code": os.waitstatus_to_exitcode(status)}
                os.write(replies, json.dumps(reply).encode() + b"\n")
        if 0 not in ready:
            continue
        data = os.read(0, 1 << 20)
        if not data:
            for pid in numbers:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)  # frozen objects can't be torn down in order
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "signal" in message:
                if message["to"] in pids:  # not yet waited for, so the id is still the assignment's
                    os.kill(pids[message["to"]], message["signal"])
                continue
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if die_with(server):
                        for descriptor in (replies, awake, wake):
                            os.close(descriptor)
                        code = _child(message["assignment"], threads)
                    sys.stdout.flush()
                    sys.stderr.flush()
                except BaseException:  # not of the assignment, which tells its own; its log can't be written
                    traceback.print_exc()
                finally:
                    os._exit(code)
            numbers[pid] = message["start"]
            pids[message["start"]] = pid


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing. SIGCHLD writes to the wake-up pipe only if it has a handler in Python."""


def _child(content: Mapping[str, Any], threads: int) -> int:
    """Run an assignment in the process that was forked for it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assignment = Assignment.from_json(content)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(assignment.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(log)
    faulthandler.enable()
    if assignment.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = assignment.devices
    import torch

    torch.set_num_threads(threads)
    return run_assignment(assignment)
