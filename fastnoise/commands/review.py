"""fastnoise review: look at suspected labels in a browser and decide on them."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro

from .. import own
from ..errors import ConfigError
from ..helptext import REQUIRED
from ..texts import counted


@dataclass(frozen=True)
class ReviewCommand:
    """Show the suspected labels of a cleaning in the browser, and keep what you decide.

    The page is served to this machine alone. Each decision is on the disk before the page shows it. Ctrl-C ends the
    review and writes the corrected data set anew, with the decisions. The same `fastnoise clean` command takes the
    decided labels as known and trains anew. Examples:
      fastnoise review cleaned/photos
      fastnoise review cleaned/photos --apply
    """

    folder: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of a cleaning, the --out of fastnoise clean."""
    port: int = 0
    """Port of the page. 0 takes a free one."""
    apply: bool = False
    """Only write the corrected data set with the decisions that there are, as the end of a review does."""
    method: str | None = None
    """FILE.py:NAME, if the method is of your own."""
    model: str | None = None
    """FILE.py:NAME, if the network is of your own."""
    dataset: str | None = None
    """FILE.py:NAME, if the data set is of your own."""
    noise: str | None = None
    """FILE.py:NAME:RATE, if the noise is of your own."""
    task: str | None = None
    """FILE.py:NAME, if the task is of your own."""


def run(command: ReviewCommand) -> int:
    """Serve the page until Ctrl-C; FastnoiseError in one line."""
    if command.folder is None:
        raise ConfigError("give the folder of a cleaning, as in fastnoise review cleaned/photos")
    if not 0 <= command.port < 65536:
        raise ConfigError(f"--port must be from 0 to 65535, not {command.port}")
    from ..cleaning.outputs import words_for
    from ..cleaning.review import ReviewServer

    named: dict[str, str | None] = {kind: getattr(command, kind) for kind in own.KINDS}
    with ReviewServer(Path(command.folder).absolute(), command.port, named) as server, _stops():
        if not command.apply:
            count = len(server.reviewed.suspects)
            with contextlib.suppress(KeyboardInterrupt):
                print(f"{counted(count, 'suspect')} at {server.address} (Ctrl-C ends the review)", flush=True)
                server.serve_forever()
            print()
        corrected = server.reviewed.apply()
        count = len(server.reviewed.decided)
        print(
            f"{counted(count, 'label is', 'labels are')} decided, in {server.log.path}; "
            f"corrected data set with them: {corrected}; train on it: fastnoise train "
            f"{words_for(corrected, server.reviewed.config.data.dataset)}"
        )
    return 0


@contextlib.contextmanager
def _stops() -> Iterator[None]:
    """SIGTERM ends the review as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
