"""Reviewing suspected labels in a browser on this machine."""

import csv
import json
import secrets
import shlex
from collections.abc import Container, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from .. import own
from ..config import RunConfig
from ..data import ImageTable
from ..data.names import FOLDER, LIST
from ..errors import CheckpointError, ConfigError, FastnoiseError
from ..fields import stored
from ..files import FINDING, write_text
from ..report.gallery import MOST, Suspect, gallery_page, pictures_of
from ..report.html import plain
from ..texts import counted
from .decisions import Decision, DecisionLog, read_decisions
from .outputs import SUSPECTS, apply_decisions
from .pool import load_judged

SETTINGS = "clean.json"
DECISIONS = "decisions.log"
PAGE = "suspects.html"

LOCAL = ("localhost", "127.0.0.1")
"""What a request may call the server. A page of another site whose name leads here calls it otherwise."""

_LONGEST = 4096  # bytes of a request


def pick_suspects(
    names: Sequence[str],
    table: ImageTable,
    rows: Sequence[Mapping[str, str]],
    decided: Container[str] = (),
    most: int = MOST,
) -> list[Suspect]:
    """The first suspects of suspects.csv with their pictures, those that nobody has `decided` on before others; those
    whose images are gone are left out."""
    places = {name: place for place, name in enumerate(names)}
    there = [row for row in rows if row["file"] in places]
    first = sorted(range(len(there)), key=lambda number: there[number]["file"] in decided)[:most]
    chosen = [there[number] for number in sorted(first)]
    pictures = pictures_of(table, [places[row["file"]] for row in chosen])
    return [
        Suspect(row["file"], row["given"], row["suggested"], float(row["probability"]), picture)
        for row, picture in zip(chosen, pictures, strict=True)
    ]


def require_finished(folder: Path) -> None:
    """CheckpointError for a folder without a cleaning that has ended."""
    if not (folder / FINDING).is_file():
        raise CheckpointError(f"{folder}: no finished cleaning here; give the --out of fastnoise clean")


class Reviewed:
    """A cleaning as its folder holds it, with the pictures of its suspects.

    Args:
        folder: of the cleaning.
        named: the code of the user's own that may be run, by kind (`own.KINDS`); no other is.

    Raises:
        CheckpointError: the folder holds no cleaning that has ended, or is damaged.
        ConfigError: it names code that is not in `named`.
    """

    def __init__(self, folder: Path, named: Mapping[str, str | None] | None = None):
        require_finished(folder)
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            self.finding: dict[str, Any] = json.loads((folder / FINDING).read_text(encoding="utf-8"))
            with open(folder / SUSPECTS, newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            own.require_named(settings, named or {}, f"{folder}: the cleaning")
            self.config: RunConfig = stored({key: value for key, value in settings.items() if key != "folds"})
            judged = load_judged(self.config)
            self.folder = folder
            self.suspects = pick_suspects(judged.names, judged.data.train, rows, self.decided)
            self.classes = {plain(name): name for name in judged.data.class_names}  # as the page has them
            self.page()  # which a damaged finding.json would make fail
        except FastnoiseError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder} is damaged ({type(error).__name__}: {reason}); clean again") from error

    @property
    def decided(self) -> dict[str, str]:
        """Name of an image -> its class, as was decided until now."""
        return read_decisions(self.folder / DECISIONS)

    def apply(self) -> Path:
        """Write the corrected data set anew with the decisions (`apply_decisions`); returns its path."""
        judged = load_judged(self.config, self.decided)
        return apply_decisions(self.folder, self.config.data.dataset, judged)

    def page(self, token: str = "") -> str:
        """The page with the decisions as they stand."""
        return cleaning_page(self.folder, self.config.data.dataset, self.finding, self.suspects, token)


def cleaning_page(
    folder: Path, dataset: str, finding: Mapping[str, Any], suspects: Sequence[Suspect], token: str = ""
) -> str:
    """The page of a cleaning."""
    found = finding["suspected"]
    lines = [
        f"{counted(finding['images'], 'image was', 'images were')} judged, "
        f"{counted(found, 'label is suspected', 'labels are suspected')}."
    ]
    if finding["rate"] is not None:
        rate, low, high = (f"{finding[key]:.1%}" for key in ("rate", "rate_low", "rate_high"))
        lines.append(f"{rate} of the labels are wrong; with 95 % certainty {low} to {high}.")
    if len(suspects) < found:
        lines.append(f"The page shows {len(suspects)} of them, the most suspected ones.")
    warnings = [f"Warning: {warning}." for warning in finding["warnings"]]
    if not token:
        lines.append(
            f"This page keeps no decisions. To decide on suspects: fastnoise review {shlex.quote(str(folder))}"
        )
    decided = read_decisions(folder / DECISIONS)
    title = f"Suspected labels of {Path(own.short(dataset).removeprefix(FOLDER).removeprefix(LIST)).name}"
    about = f"Data set {dataset}, results in {folder}"
    return gallery_page(title, about, suspects, finding["classes"], lines, warnings, decided, token)


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
        named: code of the user's own that may be run, as `Reviewed` takes it.

    Raises:
        ConfigError: the port is taken.
        CheckpointError: the folder holds no finished cleaning, or another review is open.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, named: Mapping[str, str | None] | None = None):
        require_finished(folder)
        self.log = DecisionLog(folder / DECISIONS)
        try:
            self.reviewed = Reviewed(folder, named)
        except BaseException:
            self.log.close()
            raise
        self.lock = Lock()
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            self.log.close()
            raise ConfigError(f"--port {port}: {getattr(error, 'strerror', None) or error}; choose another") from None

    @property
    def address(self) -> str:
        """Where the browser finds the page."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def decide(self, number: int, label: str | None) -> None:
        """Keep a decision: the right class of a suspect, or None to take an earlier decision back."""
        with self.lock:
            self.log.append(Decision.now(self.reviewed.suspects[number].file, label))

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
            number, label = said["suspect"], said["label"]
            if type(number) is not int or not 0 <= number < len(self.server.reviewed.suspects):
                raise ValueError("no such suspect")
            if label is not None:
                label = self.server.reviewed.classes[label]
        except (ValueError, KeyError, TypeError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, f"not a decision: {type(error).__name__}: {error}")
            return
        try:
            self.server.decide(number, label)
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
