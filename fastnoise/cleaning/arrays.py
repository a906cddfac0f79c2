"""Cleaning of images and labels that are in memory."""

import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console

from ..data import ImageDataset
from ..errors import CheckpointError, ConfigError
from ..fields import checked
from ..files import write_atomically, write_json, write_text
from ..recipes import recipe
from .defaults import FOLDS, METHOD, SETTINGS
from .review import SETTINGS as SETTINGS_FILE
from .run import ARRAYS, CleanOptions, claim, settings_of
from .run import clean as clean_dataset
from .verdict import Verdict

_FILE = "arrays.py"
_FUNCTION = "arrays"
_CODE = f'''"""The images and labels beside this file, as a data set."""

from pathlib import Path

from fastnoise.cleaning.arrays import read_arrays


def {_FUNCTION}():
    return read_arrays(Path(__file__).parent)
'''


def clean(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    clean_labels: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    method: str = METHOD,
    folds: int = FOLDS,
    jobs: int = 0,
    threads: int = 1,
    out: str | Path | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Verdict:
    """Judge the labels of images in memory, as `fastnoise clean` judges those of files.

    The networks are trained in processes of their own, several at a time.

    Args:
        images: uint8 [N, H, W, C], or [N, H, W] for grey ones.
        labels: the given classes, integers [N] from 0.
        clean_labels: integers [N], the right classes where they are known, -1 elsewhere. Known labels are learnt from
            and judge others. If all are known, they only measure the result.
        names: N different texts that name the images in what `out` holds. The default is their positions.
        class_names: C different texts. The default is the numbers of the classes.
        method: by which the networks learn.
        folds: number of networks. Each learns from all labels but those of its fold. 1: one network learns from all.
        jobs: networks that are trained at once; 0: one per GPU, or one per core.
        threads: torch threads of each on the CPU.
        out: a folder for all results, those of `fastnoise clean`, which the same call continues if it was stopped. A
            call with other labels of the same images judges them anew. None keeps nothing.
        quiet: print nothing.
        settings: options of `fastnoise train` by their names, such as epochs=30, model="resnet18".

    Returns:
        The verdict: `probability` that each label is wrong, float64 [N]; `suggested` classes, int64 [N]; `suspected`,
        bool [N]; `rate` of wrong labels with its `rate_interval`; `transition` matrix; `warnings`.

    Raises:
        DataError: arrays of wrong dtypes or shapes.
        ConfigError: unknown or impossible settings, or others than those of the cleaning in `out`.
    """
    for name in ("dataset", "run_dir", "labels"):
        if name in settings:
            raise ConfigError(f"{name}: clean takes images and labels as arrays; drop it")
    dataset = _dataset(images, labels, clean_labels, names, class_names)
    if out is not None:
        return _clean(Path(out).absolute(), dataset, method, settings, folds, jobs, threads, quiet)
    with tempfile.TemporaryDirectory(prefix="fastnoise-clean-") as folder:
        return _clean(Path(folder) / "out", dataset, method, settings, folds, jobs, threads, quiet)


def _clean(
    out: Path,
    dataset: ImageDataset,
    method: str,
    settings: dict[str, Any],
    folds: int,
    jobs: int,
    threads: int,
    quiet: bool,
) -> Verdict:
    name = f"{out / ARRAYS / _FILE}:{_FUNCTION}"
    default = recipe(method, name, "none", model=settings.get("model")).replace(SETTINGS)
    config = default.replace(checked(default, settings, "clean: {}".format))
    options = CleanOptions(out, folds, jobs, threads)
    if (out / SETTINGS_FILE).exists():
        claim(out, settings_of(config, options))  # which refuses other settings before anything is written
    _write(out / ARRAYS, dataset)
    console = Console(file=io.StringIO()) if quiet else None
    return clean_dataset(config, options, console).verdict


def _dataset(
    images: ArrayLike,
    labels: ArrayLike,
    clean_labels: ArrayLike | None,
    names: Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> ImageDataset:
    """All of the images as training and as test set."""
    found = ImageDataset.from_arrays(
        images,
        labels,
        clean_labels=clean_labels,
        names=names if names is not None else list(map(str, range(len(np.asarray(labels))))),
        class_names=class_names,
        test_images=images,
        test_labels=labels,
    )
    return replace(found, test=found.train)


def _write(folder: Path, dataset: ImageDataset) -> None:
    """Write what `read_arrays` reads; ConfigError if there are other images already. Labels and names may be others
    than those of an earlier call."""
    arrays = {"labels": dataset.train.labels, "clean_labels": dataset.clean_labels}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "names.json").exists():  # the last that is written but for the code
            arrays = {"images": dataset.train.images, **arrays}
        elif not np.array_equal(np.load(folder / "images.npy", mmap_mode="r"), dataset.train.images):  # type: ignore[arg-type]
            raise ConfigError(f"out {folder.parent} holds a cleaning of other images; choose another")
        for name, array in arrays.items():
            path = folder / f"{name}.npy"
            if array is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, lambda stream, array=array: np.save(stream, array))  # type: ignore[misc]
    except ValueError:  # damaged
        raise ConfigError(f"{folder}/images.npy is damaged; choose another out") from None
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror}; choose another out") from error
    write_json(folder / "names.json", {"names": dataset.train.names, "class_names": dataset.class_names})
    write_text(folder / _FILE, _CODE)


def read_arrays(folder: Path) -> ImageDataset:
    """The data set of the arrays that a cleaning keeps. CheckpointError if a file is damaged."""
    try:
        named = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        clean = folder / "clean_labels.npy"
        return _dataset(
            np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False),
            np.load(folder / "labels.npy", allow_pickle=False),
            np.load(clean, allow_pickle=False) if clean.exists() else None,
            named["names"],
            named["class_names"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is damaged ({type(error).__name__}: {error}); clean again") from error
