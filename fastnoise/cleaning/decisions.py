"""The log of what people decided about labels. It survives that its writer is killed at any moment."""

import fcntl
import json
import os
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CheckpointError

_CHECKSUM = 8  # hexadecimal digits at the end of a line


@dataclass(frozen=True)
class Decision:
    """What the label of one image is decided to be."""

    file: str
    """The name of the image, as in labels.csv."""
    label: str | None
    """The right class by its name; None takes an earlier decision back."""
    at: str
    """When it was taken, UTC, as 2026-01-31T12:00:00."""

    @classmethod
    def now(cls, file: str, label: str | None) -> "Decision":
        """A decision of this moment."""
        return cls(file, label, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")


def _line(decision: Decision) -> bytes:
    text = json.dumps(asdict(decision), ensure_ascii=True, sort_keys=True).encode()
    return text + b" %08x\n" % zlib.crc32(text)


def _parse(line: bytes) -> Decision | None:
    """The decision in a line without its end; None if the line is cut off or altered."""
    text, _, checksum = line.rpartition(b" ")
    if len(checksum) != _CHECKSUM or checksum != b"%08x" % zlib.crc32(text):
        return None
    fields = json.loads(text)
    return Decision(fields["file"], fields["label"], fields["at"])


def _whole(path: Path, content: bytes) -> tuple[list[Decision], int]:
    """The decisions in a log and the length of the part that holds them. What stands behind it was being written when
    the writer was killed, and nobody was told that it was kept. CheckpointError for damage before the end."""
    decisions: list[Decision] = []
    length = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        decision = _parse(line)
        if decision is None and number < len(lines) - 1:
            raise CheckpointError(f"{path}: line {number} is damaged; restore the file, or remove the line")
        if decision is None:
            break
        decisions.append(decision)
        length += len(line) + 1
    return decisions, length


def read_decisions(path: Path) -> dict[str, str]:
    """Name of an image -> its class, as was decided last. Empty if there is no log yet.

    CheckpointError for a log that is damaged or cannot be read. A last line that was cut off is passed over.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    decided: dict[str, str] = {}
    for decision in _whole(path, content)[0]:
        if decision.label is None:
            decided.pop(decision.file, None)
        else:
            decided[decision.file] = decision.label
    return decided


class DecisionLog:
    """The log, open for one writer.

    Each decision is a line of JSON with the CRC-32 of its bytes. `append` returns when the line is on the disk.

    Args:
        path: made if it is missing. What an earlier writer had begun to write when it was killed is cut off.

    Raises:
        CheckpointError: another process has the log open, the file is damaged, or it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise CheckpointError(f"{path}: another review writes to it; end that one first") from None
        try:
            _, self._length = _whole(path, os.pread(self._file, os.fstat(self._file).st_size, 0))
        except CheckpointError:
            self.close()
            raise
        os.ftruncate(self._file, self._length)

    def append(self, decision: Decision) -> None:
        """Add a decision. After a CheckpointError, as of a full disk, the log is as it was before."""
        line = _line(decision)
        try:
            written = os.pwrite(self._file, line, self._length)
            if written < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._length)
            raise CheckpointError(f"cannot write {self.path}: {error.strerror}; free space") from error
        self._length += len(line)

    def close(self) -> None:
        """Let go of the log; again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
