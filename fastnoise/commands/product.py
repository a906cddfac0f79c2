"""Commands that train as `fastnoise train` does and write one file of what came out: pretrain and posteriors."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import helptext
from ..config import RunConfig
from ..errors import ConfigError
from ..files import expanded
from ..words import train_words
from . import train


@dataclass(frozen=True)
class Product:
    """A command that trains by one method and writes a file."""

    command: str
    method: str
    what: str
    """Name of what is written."""
    example: str
    """Name of a file for it."""
    help: str
    """What --help says that it does."""
    write: Callable[[Path, dict[str, Any]], None]
    """Writes the file, from the summary of the finished run."""
    check: Callable[[RunConfig], None] | None = None
    """Raises ConfigError for a run whose product would be of no use."""

    def run(self, arguments: Sequence[str]) -> int:
        """Train and write; returns 0, or 130 or 143 when stopped by a signal. FastnoiseError in one line."""
        if helptext.wanted(arguments) is not None:
            train_words(
                ["--method", self.method, *arguments],
                f"fastnoise {self.command}",
                noise="none",
                intro=self.help,
                own_options=[helptext.Option("out", ("--out",), "FILE", f"The {self.what} to write.", required=True)],
                without=("method", "gpus", "max_restarts"),
            )
        out, words = self._split_out(arguments)
        code = train.run(words, lambda summary: self.write(out, summary), self.check, noise="none")
        if code:
            print(
                f"fastnoise: to write the {self.what} too, continue by fastnoise {self.command} --resume with the same "
                "--out",
                file=sys.stderr,
            )
        return code

    def _split_out(self, arguments: Sequence[str]) -> tuple[Path, list[str]]:
        """The file after --out, and the words of the run with its method.

        ConfigError without a file that can be written.
        """
        words, out = list(arguments), None
        while "--out" in (names := [word.partition("=")[0] for word in words]):
            place = names.index("--out")
            word = words.pop(place)
            out = word.partition("=")[2] if "=" in word else words.pop(place) if place < len(words) else None
        if not out or out.startswith("--"):
            raise ConfigError(
                f"fastnoise {self.command} needs --out FILE for the {self.what}, as in --out {self.example}"
            )
        path = expanded(out).absolute()
        if not path.parent.is_dir():
            raise ConfigError(f"--out {out}: no such folder; create it")
        if path.is_dir():
            raise ConfigError(f"--out {out} is a folder; name a file in it")
        if any(word.partition("=")[0] == "--method" for word in words):
            raise ConfigError(f"fastnoise {self.command} always takes method {self.method}; drop --method")
        return path, ["--method", self.method, *words]
