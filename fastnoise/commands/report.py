"""fastnoise report: one HTML page of a run, a sweep or a study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError
from ..helptext import REQUIRED


@dataclass(frozen=True)
class ReportCommand:
    """Make one HTML page of a run, a sweep or a study. The page holds all figures and needs no internet connection.

    The folder is all that it reads. For a run that was killed, the page shows what there is and says what is missing.
    Examples:
      fastnoise report runs/nal-digits-symmetric-0.4-s0
      fastnoise report sweeps/elr --out elr.html --png figures
    """

    folder: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of a run, a sweep or a study."""
    out: str | None = None
    """The HTML file; by default report.html in FOLDER."""
    png: str | None = None
    """Folder to which each figure is also written, as PNG with its numbers as CSV."""


def run(command: ReportCommand) -> int:
    """Write the page and say where; FastnoiseError in one line."""
    if command.folder is None:
        raise ConfigError("give the folder of a run, a sweep or a study, as in fastnoise report runs/NAME")
    from ..report import write_report

    png = None if command.png is None else Path(command.png)
    out = write_report(Path(command.folder), None if command.out is None else Path(command.out), png)
    print(f"written: {out}" + ("" if png is None else f", figures in {png}"))
    return 0
