"""The command line, or another script, in a process of its own that is forked from one which has torch imported:
seconds earlier than by `python`."""

import multiprocessing
import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import PIPE
from threading import Timer
from weakref import finalize

from fastnoise.cli import main
from fastnoise.sweeps.forkserver import PRELOAD

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fastnoise.commands.train", *PRELOAD])


def _command(
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    outputs: tuple[Connection, Connection],
    session: bool,
    limit: int | None,
) -> None:
    for number, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), number)
        output.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if session:
        os.setsid()
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(main(words))


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()


def _script(code: str, folder: Path, environment: dict[str, str], ends: tuple[Connection, Connection]) -> None:
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    exec(code, {"__name__": "__main__"})


class ForkedScript:
    """`subprocess.Popen([sys.executable, "-c", CODE], stdin=PIPE, stdout=PIPE, env=...)`, the part of it that
    fastnoise's own server of a sweep's jobs uses."""

    def __init__(self, words: list[str], *, stdin: int, stdout: int, env: dict[str, str]):
        executable, option, code = words
        assert (executable, option, stdin, stdout) == (sys.executable, "-c", PIPE, PIPE)
        (read, ours), (theirs, written) = (PROCESSES.Pipe(duplex=False) for _ in range(2))
        self._process = PROCESSES.Process(target=_script, args=(code, Path.cwd(), env, (read, written)))
        self._process.start()
        finalize(self, _end, self._process)
        read.close()
        written.close()
        self.stdin = os.fdopen(os.dup(ours.fileno()), "wb")
        self.stdout = os.fdopen(os.dup(theirs.fileno()), "rb")
        ours.close()
        theirs.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


class Forked:
    """`fastnoise WORDS` in this folder and environment; the part of `subprocess.Popen` that tests use.

    Args:
        session: whether it begins a session, and with it a group of processes.
        limit: of bytes that a file may have.
    """

    def __init__(self, *words: str, session: bool = False, limit: int | None = None):
        pipes = [PROCESSES.Pipe(duplex=False) for _ in range(2)]
        outputs = tuple(written for _, written in pipes)
        self._process = PROCESSES.Process(
            target=_command, args=(words, Path.cwd(), dict(os.environ), outputs, session, limit)
        )
        self._process.start()
        finalize(self, _end, self._process)
        for output in outputs:
            output.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(read.fileno()), encoding="utf-8") for read, _ in pipes)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or a signal's number, negative."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What is left of its output and of its errors, when it has ended; it is killed after so many seconds."""
        late = Timer(timeout, _end, [self._process])
        late.start()
        with ThreadPoolExecutor(2) as pool:
            output, errors = pool.map(lambda stream: stream.read(), (self.stdout, self.stderr))
        self.wait()
        late.cancel()
        return output, errors
