"""Reviewing suspected labels in a browser on this machine."""

import csv
import json
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import RunConfig
from ..data import ImageTable
from ..data.images import read_image
from ..errors import CheckpointError, ConfigError, FastnoiseError
from ..fields import stored
from ..files import FINDING, write_text
from ..report.gallery import MOST, Suspect, gallery_page
from .decisions import Decision, DecisionLog, read_decisions
from .outputs import SUSPECTS
from .pool import load_judged

SETTINGS = "clean.json"
DECISIONS = "decisions.log"
PAGE = "suspects.html"

LOCAL = ("localhost", "127.0.0.1")
"""What a request may call the server. A page of another site whose name leads here calls it otherwise."""

_LONGEST = 4096  # bytes of a request


def pixels_of(table: ImageTable, place: int) -> NDArray[np.uint8]:
    """[H, W, C], one image of a table."""
    if table.images is not None:
        return np.asarray(table.images[place])
    return read_image(table.files[place], table.size)


def pick_suspects(
    names: Sequence[str], table: ImageTable, rows: Sequence[Mapping[str, str]], most: int = MOST
) -> list[Suspect]:
    """The first suspects of suspects.csv with their pictures; those whose images are gone are left out."""
    places = {name: place for place, name in enumerate(names)}
    return [
        Suspect(
            row["file"],
            row["given"],
            row["suggested"],
            float(row["probability"]),
            pixels_of(table, places[row["file"]]),
        )
        for row in rows[:most]
        if row["file"] in places
    ]


class Reviewed:
    """A cleaning as its folder holds it, with the pictures of its suspects.

    CheckpointError for a folder without a cleaning that has ended, or a damaged one.
    """

    def __init__(self, folder: Path):
        if not (folder / FINDING).is_file():
            raise CheckpointError(f"{folder}: no finished cleaning here; give the --out of fastnoise clean")
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            self.finding: dict[str, Any] = json.loads((folder / FINDING).read_text(encoding="utf-8"))
            with open(folder / SUSPECTS, newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            self.config: RunConfig = stored({key: value for key, value in settings.items() if key != "folds"})
            judged = load_judged(self.config)
            self.suspects = pick_suspects(judged.names, judged.data.train, rows)
        except FastnoiseError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder} is damaged ({type(error).__name__}: {reason}); clean again") from error
        self.folder = folder

    def page(self, token: str = "") -> str:
        """The page with the decisions as they stand."""
        return cleaning_page(self.folder, self.config.data.dataset, self.finding, self.suspects, token)


def cleaning_page(
    folder: Path, dataset: str, finding: Mapping[str, Any], suspects: Sequence[Suspect], token: str = ""
) -> str:
    """The page of a cleaning."""
    found = finding["suspected"]
    lines = [f"{finding['images']} images were judged, {found} labels are suspected."]
    if finding["rate"] is not None:
        rate, low, high = (f"{finding[key]:.1%}" for key in ("rate", "rate_low", "rate_high"))
        lines.append(f"{rate} of the labels are wrong; with 95 % certainty {low} to {high}.")
    if len(suspects) < found:
        lines.append(f"The page shows {len(suspects)} of them, the most suspected ones.")
    lines += [f"Warning: {warning}." for warning in finding["warnings"]]
    decided = read_decisions(folder / DECISIONS)
    title = f"Suspected labels of {dataset}"
    return gallery_page(title, f"Folder {folder}", suspects, finding["classes"], lines, decided, token)


def write_page(folder: Path, dataset: str, finding: Mapping[str, Any], suspects: Sequence[Suspect]) -> Path:
    """Write suspects.html, which needs nothing beside it and keeps no decisions."""
    write_text(folder / PAGE, cleaning_page(folder, dataset, finding, suspects))
    return folder / PAGE


class ReviewServer(ThreadingHTTPServer):
    """Serves the page on this machine alone, and keeps decisions.

    A decision is answered once it is on the disk. Requests need a token that only the page knows, so that no other
    site's page in the same browser can decide.

    Args:
        folder: of a finished cleaning.
        port: 0 takes a free one.

    Raises:
        ConfigError: the port is taken.
        CheckpointError: the folder holds no finished cleaning, or another review is open.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0):
        self.reviewed = Reviewed(folder)
        self.log = DecisionLog(folder / DECISIONS)
        self.lock = Lock()
        self.token = secrets.token_urlsafe(16)
        self.decided = 0
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            self.log.close()
            raise ConfigError(f"--port {port}: {getattr(error, 'strerror', None) or error}; choose another") from None

    @property
    def address(self) -> str:
        """Where the browser finds the page."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def decide(self, number: int, choice: str | None) -> None:
        """Keep a decision: suggested, given, or None to take one back."""
        suspect = self.reviewed.suspects[number]
        label = {"suggested": suspect.suggested, "given": suspect.given, None: None}[choice]
        with self.lock:
            self.log.append(Decision.now(suspect.file, label))
            self.decided += 1

    def server_close(self) -> None:
        super().server_close()
        self.log.close()


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer

    def do_GET(self) -> None:
        if not self._is_local():
            return
        if self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND, "no such page")
            return
        self._answer(HTTPStatus.OK, self.server.reviewed.page(self.server.token), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if not self._is_local():
            return
        if self.path != "/decide" or not secrets.compare_digest(
            self.headers.get("X-Token", "").encode(), self.server.token.encode()
        ):
            self._answer(HTTPStatus.FORBIDDEN, "reload the page")
            return
        try:
            size = int(self.headers.get("Content-Length", ""))
            if not 0 < size <= _LONGEST:
                raise ValueError("wrong size")
            said = json.loads(self.rfile.read(size))
            number, choice = said["suspect"], said["choice"]
            if type(number) is not int or not 0 <= number < len(self.server.reviewed.suspects):
                raise ValueError("no such suspect")
            if choice not in ("suggested", "given", None):
                raise ValueError("no such choice")
        except (ValueError, KeyError, TypeError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, f"not a decision: {error}")
            return
        try:
            self.server.decide(number, choice)
        except CheckpointError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return
        self._answer(HTTPStatus.OK, "kept")

    def _is_local(self) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in LOCAL:
            self._answer(HTTPStatus.FORBIDDEN, "this page is served to this machine alone")
        return host in LOCAL

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the console is for the user."""
