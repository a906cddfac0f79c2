"""The run folder: what a run writes, and reads when it continues.

config.toml        every field of the configuration. It is written last when a run starts, so that it marks a run folder
environment.json   versions, devices and backends, one entry per start
labels.npz         the given labels with their true ones, noise, seed and hash
classes.json       the names of the classes, in the order of their numbers
metrics.jsonl      one line per epoch
checkpoint.pt      the state when a checkpoint was last written: after an epoch, or inside one
checkpoints/       in its place, if several processes train the run or its tables are large: a folder for each
                   checkpoint, with state.pt by the first process, part-R-of-W.pt and tables-R-of-W.pt by each, and
                   `latest`, the name of the one that counts. With --save-tables-every its tables may be in the folder
                   of an earlier one, which state.pt names
model.safetensors  the networks after the last epoch, with what it takes to use them (`engine.model_file`), once
                   training has ended
model-best.safetensors
                   those after the epoch with the best validation score, if there is a validation set: written with a
                   checkpoint, when there are better ones than before
summary.json       the final table, once training has ended
corrected.csv      the method's estimate for each training sample, once training has ended: position in the data set,
                   name if it has one, given and corrected class, confidence in the given class, suspected (0 or 1),
                   NAL's attention weight, and the true class if it is known. Classes are named
corrected.npz      the same as arrays, with the numbers of the classes
scores.csv         what the training steps have seen of each given label, once training has ended: position, name and
                   given class as in corrected.csv, the mean margin of the label (aum), its mean probability
                   (confidence), forgetting events, looks, and the true class if it is known
scores.npz         the same as arrays, with the numbers of the classes
answers.npz        of the tasks that keep them: the test images' true labels and the answers after the last epoch
loggers.json       with --log, the names by which its tools know the run, so that a resumed run goes on there; their
                   files are in tensorboard/, wandb/ and mlruns/
profile.json       with --profile, the trace of some training steps for chrome://tracing or ui.perfetto.dev
"""

import fcntl
import json
import os
import shutil
import tomllib
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray

from .. import own
from ..checks import shown
from ..config import RunConfig
from ..data.names import FOLDER, LIST, is_given, moved, short
from ..errors import CheckpointError, ConfigError
from ..fields import changed, prolonged, stored
from ..files import PARTIAL, csv_text, require_file, stored_json, stored_text, write_atomically, write_json, write_text
from ..methods import find_method
from ..noise import NoisyLabels
from ..noise.files import written_name


class RunFolder:
    """Paths and formats of a run folder at `path`."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.toml"
        self.environment = path / "environment.json"
        self.labels = path / "labels.npz"
        self.classes = path / "classes.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model.safetensors"
        self.best_model = path / "model-best.safetensors"
        self.summary = path / "summary.json"
        self.corrected = path / "corrected.csv"
        self.scores = path / "scores.csv"
        self.answers = path / "answers.npz"
        self.loggers = path / "loggers.json"
        self.profile = path / "profile.json"
        self._lock: int | None = None

    def lock(self) -> None:
        """Be the one process that writes to the folder, until `release` or the end of the process, however it ends.

        A checkpoint that an earlier one was killed in writing is removed: nobody is writing it any more.

        CheckpointError if another process is. The lock is one of the folder itself (flock), so that it leaves no file.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise CheckpointError(
                f"{self.path}: another process trains this run; wait for its end, or end it, before you go on with it"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise CheckpointError(
                f"{self.path}: its file system cannot lock a folder ({error.strerror}), without which two processes "
                "could write to it; choose a --run-dir on another"
            ) from None
        self._lock = descriptor
        self.checkpoint.with_name(self.checkpoint.name + PARTIAL).unlink(missing_ok=True)

    def release(self) -> None:
        """Let another process write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def require_free(path: Path) -> None:
        """CheckpointError if a folder that is to be a new run's holds a run or other files."""
        if (path / "config.toml").exists():
            raise CheckpointError(f"--run-dir {path} holds a run; continue it with --resume {path} or choose another")
        if path.is_dir() and any(path.iterdir()):
            raise CheckpointError(f"--run-dir {path} is not empty and holds no run; choose another")

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """A new folder for a run: `config.run_dir`, or the next free name under ./runs.

        CheckpointError when `run_dir` holds a run or other files, or cannot be made.
        """
        if config.run_dir is not None:
            path = Path(config.run_dir)
            cls.require_free(path)
            _make(path, exist_ok=True)
            return cls(path)
        dataset = Path(short(config.data.dataset).removeprefix(FOLDER).removeprefix(LIST)).name
        noise = "labels" if config.noise.labels else own.short(config.noise.noise)
        if noise == "none" and is_given(config.data.dataset):
            noise = "given"
        words = f"{own.short(config.method.method)}-{dataset}-{noise}-s{config.engine.seed}"
        name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in words)
        number = 1
        while True:
            path = Path("runs") / (name if number == 1 else f"{name}-{number}")
            if not path.exists() and _make(path, exist_ok=False):
                return cls(path)
            number += 1

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run; CheckpointError if there is none."""
        folder = cls(path)
        if not folder.config.is_file():
            raise CheckpointError(f"--resume {path}: no run here (it has no config.toml); give the folder of a run")
        return folder

    def write_config(self, config: RunConfig) -> None:
        """Write every field that is set, by its flat name."""
        fields = {name: value for name, value in config.flat().items() if value is not None}
        write_text(self.config, tomli_w.dumps(fields))

    def read_fields(self) -> dict[str, Any]:
        """The configuration's fields as they were written, unchecked; CheckpointError if the file is damaged."""
        try:
            return tomllib.loads(stored_text(self.config))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.config} is damaged: {error}; start the run anew") from error

    def data_hash(self, key: str) -> str | None:
        """A hash of the data set that the run was started with, data_list or data_rest; None if it has none."""
        try:
            found = stored_json(self.environment)[0].get(key)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None  # what is damaged, `add_environment` says
        return found if isinstance(found, str) else None

    def read_config(self) -> RunConfig:
        """The configuration as it was written; of a method of the user's own the file is imported for its options.

        CheckpointError if the file is damaged, ConfigError for what is wrong with the method's file.
        """
        written = self.read_fields()
        if own.is_own(str(written.get("method"))):
            find_method(str(written["method"]))
        try:
            return stored(written)
        except KeyError as error:
            raise CheckpointError(f"{self.config} is damaged: it has no {error}; start the run anew") from error
        except ConfigError as error:
            raise CheckpointError(f"{self.config} is damaged: {error}; start the run anew") from error

    def require(self, config: RunConfig) -> None:
        """CheckpointError unless the run in this folder computes what `config` says; imports no code that it names."""
        before = RunConfig(type(config.method)(config.method.method)).flat() | self.read_fields()
        now = config.flat()
        if moved(str(before.get("dataset")), config.data.dataset):
            before["dataset"] = config.data.dataset  # whose list and labels `open_folder` compares
        before |= prolonged(before, now)
        if (name := changed(before, now)) is not None:
            raise CheckpointError(
                f"{self.path} holds another run: its {name} is {before.get(name)}, not {now[name]}; go on with its own "
                "configuration, or choose another folder"
            )

    def add_environment(self, environment: dict[str, Any]) -> None:
        """Add the environment of this start to those of earlier ones."""
        try:
            starts = stored_json(self.environment) if self.environment.exists() else []
            if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
                raise ValueError("not a list of objects")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.environment} is damaged ({error}); remove it to go on") from error
        write_json(self.environment, [*starts, environment])

    def changed_code(self, config: RunConfig) -> list[str]:
        """The names FILE.py:NAME in `config` whose file has changed since the run last started."""
        try:
            starts = stored_json(self.environment)
            before = dict(starts[-1].get("own_files", {}))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return []  # what is damaged, `add_environment` says
        now = own.fingerprints(config.flat())
        return [str(config.flat()[kind]) for kind in now if before.get(kind, now[kind]) != now[kind]]

    def detail(self, name: str) -> Any:
        """What the latest start that had such a detail kept under this name; None if none had it."""
        try:
            starts = stored_json(self.environment)
            return next((start[name] for start in reversed(starts) if name in start), None)
        except (OSError, ValueError, TypeError):
            return None  # what is damaged, `add_environment` says

    def read_summary(self) -> dict[str, Any]:
        """The content of summary.json; CheckpointError if it is damaged."""
        try:
            found = stored_json(self.summary)
            if not isinstance(found, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.summary} is damaged ({error}); remove it to go on") from error
        return found

    def write_labels(self, noisy: NoisyLabels, class_names: Sequence[str]) -> None:
        """Write labels.npz and classes.json."""
        noisy.save(self.labels)
        write_json(self.classes, list(class_names))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.summary, summary)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew: one line per epoch."""
        write_text(self.metrics, "".join(json.dumps(epoch) + "\n" for epoch in history))

    def append_metrics(self, epoch: dict[str, Any]) -> None:
        """Add one epoch's line."""
        try:
            with open(self.metrics, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(epoch) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.metrics}: {error.strerror}; free space, then --resume {self.path}"
            ) from error

    def write_corrected(self, columns: Mapping[str, NDArray[Any]], named: Mapping[str, list[Any]]) -> None:
        """Write corrected.csv and corrected.npz; columns of one length, in this order. The csv has those of `named` in
        place of the numbers of classes."""
        _write_table(self.corrected, columns, named)

    def write_scores(self, columns: Mapping[str, NDArray[Any]], named: Mapping[str, list[Any]]) -> None:
        """Write scores.csv and scores.npz, as `write_corrected` does."""
        _write_table(self.scores, columns, named)

    def write_answers(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write answers.npz."""
        _write_arrays(self.answers, arrays)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; a failure leaves the old one as it is (CheckpointError)."""
        write_atomically(self.checkpoint, lambda stream: torch.save(state, stream))
        if self.checkpoints.exists():  # of several processes, before
            (self.checkpoints / LATEST).unlink(missing_ok=True)  # first: what it names may be removed in part
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def new_parts(self, epoch: int, batch: int) -> Path:
        """A new folder for a checkpoint of several processes; CheckpointError if it can't be made."""
        number = 1
        while True:
            path = self.checkpoints / (f"{epoch}-{batch}" if number == 1 else f"{epoch}-{batch}-{number}")
            if not path.exists() and _make(path, exist_ok=False):
                return path
            number += 1

    def keep_parts(self, parts: Path, tables_in: str) -> None:
        """Let the folder `parts`, in which all files are written, be the checkpoint, and remove others but the one that
        its tables are in."""
        write_text(self.checkpoints / LATEST, parts.name + "\n")
        self.checkpoint.unlink(missing_ok=True)
        for other in self.checkpoints.iterdir():
            if other.name not in (LATEST, parts.name, tables_in):
                shutil.rmtree(other, ignore_errors=True)

    def parts(self) -> Path | None:
        """The folder of the last checkpoint of several processes, None if there is none; CheckpointError if the file
        that names it is damaged."""
        pointer = self.checkpoints / LATEST
        if not pointer.exists():
            return None
        try:
            name = stored_text(pointer).strip()
            if name != Path(name).name or not (self.checkpoints / name).is_dir():
                raise ValueError(f"there is no folder {shown(name)}")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{pointer} is damaged ({error}); start the run anew") from error
        return self.checkpoints / name

    def last_checkpoint(self) -> Path | None:
        """The file or folder of the last checkpoint, None if none was written."""
        return self.checkpoint if self.checkpoint.exists() else self.parts()

    def read_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint on `device`, None if none was written yet; read without executing code.

        Of one of several processes it is the state that the first has written, with its folder as "parts".

        CheckpointError for a truncated or foreign file, or for one whose content does not match its checksums (CRC-32),
        and if the run is complete and its checkpoint is gone: without one it would begin again.
        """
        found = []
        if self.checkpoint.exists():
            found.append(read_stored(self.checkpoint, device))
        if (parts := self.parts()) is not None:
            found.append({**read_stored(parts / STATE, device), "parts": str(parts)})
        if not found and self.summary.exists():
            raise CheckpointError(f"{self.path}: the run is complete, and its checkpoint was removed; start a new run")
        # Both are there if the process that wrote the later one was killed before it removed the other.
        return max(found, key=lambda state: (state.get("epoch", 0), state.get("batch", 0)), default=None)


def read_stored(path: Path, device: torch.device, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a file of a checkpoint on `device`; CheckpointError as `RunFolder.read_checkpoint`.

    With `mmap`, for the CPU, its tensors are read from the file when they are used.
    """
    try:
        require_file(path)
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            changed_part = archive.testzip()
        if changed_part is not None:
            raise ValueError(f"the checksum of {changed_part} is wrong")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that are not its own; the error says enough
            state = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler meet
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated or damaged ({reason}); restore it from a copy or start the run anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of fastnoise; start the run anew")
    return state


LATEST, STATE = "latest", "state.pt"
"""In checkpoints/ and in the folder of one of them."""

CHECKPOINT_FORMAT = 2


class ReadFolder(RunFolder):
    """The folder of a run whose files another process writes. Writing writes nothing."""

    def lock(self) -> None:
        """The process that writes holds the lock."""

    def write_config(self, config: RunConfig) -> None:
        pass

    def add_environment(self, environment: dict[str, Any]) -> None:
        pass

    def write_labels(self, noisy: NoisyLabels, class_names: Sequence[str]) -> None:
        pass

    def write_summary(self, summary: dict[str, Any]) -> None:
        pass

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        pass

    def append_metrics(self, epoch: dict[str, Any]) -> None:
        pass

    def write_corrected(self, columns: Mapping[str, NDArray[Any]], named: Mapping[str, list[Any]]) -> None:
        pass

    def write_scores(self, columns: Mapping[str, NDArray[Any]], named: Mapping[str, list[Any]]) -> None:
        pass

    def write_answers(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        pass


def _write_table(path: Path, columns: Mapping[str, NDArray[Any]], named: Mapping[str, list[Any]]) -> None:
    """Write columns of one length to a csv, with those of `named` in place of the numbers, and to an npz beside it."""
    rows = zip(*(named.get(key, column.tolist()) for key, column in columns.items()), strict=True)
    write_text(path, csv_text(columns, (map(_cell, row) for row in rows)))
    _write_arrays(path.with_suffix(".npz"), columns)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    write_atomically(
        path,
        lambda stream: np.savez(stream, **arrays),  # type: ignore[arg-type]  # its stub sees other keywords
    )


def _cell(value: float | bool | str) -> str:
    if isinstance(value, str):
        return written_name(value)
    return f"{value:.6g}" if isinstance(value, float) else str(int(value))


def _make(path: Path, exist_ok: bool) -> bool:
    """Make a folder; False if it is there after all and `exist_ok` does not take it, since another process made it."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        return True
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            return False
        raise CheckpointError(
            f"cannot make the run folder {path}: {error.strerror}; choose another --run-dir"
        ) from error
