"""fastnoise review: look at suspected labels in a browser and decide on them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError


@dataclass(frozen=True)
class ReviewCommand:
    """Show the suspected labels of a cleaning in the browser, and keep what you decide.

    The page is served to this machine alone. Each decision is on the disk before the page shows it. Ctrl-C ends the
    review. The same `fastnoise clean` command then takes the decided labels as known. Example:
      fastnoise review cleaned/photos
    """

    folder: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of a cleaning, the --out of fastnoise clean."""
    port: int = 0
    """Port of the page. 0 takes a free one."""


def run(command: ReviewCommand) -> int:
    """Serve the page until Ctrl-C; FastnoiseError in one line."""
    if command.folder is None:
        raise ConfigError("give the folder of a cleaning, as in fastnoise review cleaned/photos")
    from ..cleaning.review import ReviewServer

    with ReviewServer(Path(command.folder).absolute(), command.port) as server:
        count = len(server.reviewed.suspects)
        print(f"{count} suspects at {server.address} (Ctrl-C ends the review)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\n{server.decided} decisions kept in {server.log.path}; fastnoise clean takes them as known labels")
    return 0
