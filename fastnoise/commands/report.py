"""fastnoise report: one HTML page of runs, a sweep or a study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError
from ..helptext import REQUIRED


@dataclass(frozen=True)
class ReportCommand:
    """Make one HTML page of a run, of several runs, of a sweep or of a study.

    The page holds all figures and needs no internet connection. The folders are all that it reads. Several runs are
    laid over each other. For a run that was killed, the page shows what there is and says what is missing. Examples:
      fastnoise report runs/nal-digits-symmetric-0.4-s0
      fastnoise report runs/ce runs/elr runs/nal --out methods.html
      fastnoise report sweeps/elr --out elr.html --png figures
    """

    folders: Annotated[tuple[str, ...], REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ()
    """Folder of a run, a sweep or a study, or the folders of several runs."""
    out: str | None = None
    """HTML file to write. None: report.html in FOLDER, or comparison.html beside the first of several."""
    png: str | None = None
    """Folder for each figure as PNG, with its numbers as CSV."""


def run(command: ReportCommand) -> int:
    """Write the page and say where; FastnoiseError in one line."""
    if not command.folders:
        raise ConfigError("give the folder of a run, a sweep or a study, as in fastnoise report runs/NAME")
    from ..report import write_comparison, write_report

    png = None if command.png is None else Path(command.png)
    place = None if command.out is None else Path(command.out)
    folders = [Path(folder) for folder in command.folders]
    out = write_report(folders[0], place, png) if len(folders) == 1 else write_comparison(folders, place, png)
    print(f"written: {out}" + ("" if png is None else f", figures in {png}"))
    return 0
