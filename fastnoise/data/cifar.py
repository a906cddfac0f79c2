"""CIFAR-10 and CIFAR-100 from the official pickles, and the human labels of CIFAR-N."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .download import complete, read_verified
from .images import one_line
from .table import ImageDataset, ImageTable
from .unpickle import CIFAR_GLOBALS, unpickle, unpickle_archive

MEAN_STD = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""As in the ELR authors' code."""


def load_cifar(name: str, root: Path, download: bool) -> ImageDataset:
    """`name` is "cifar10" or "cifar100". Downloads, file names and MD5 sums are torchvision's."""
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    source: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = root / source.base_folder
    meta = source.meta["filename"]
    checksums = dict([*source.train_list, *source.test_list, (meta, source.meta["md5"])])

    def get() -> None:
        root.mkdir(exist_ok=True)
        download_and_extract_archive(source.url, str(root), filename=source.filename, md5=source.tgz_md5)

    complete(
        [folder / file for file in checksums],
        name=name,
        remedy=f"put the folder {source.base_folder} of {source.url} into {root}",
        download=get if download else None,
    )

    def read(file: str) -> Any:
        path = folder / file
        return unpickle(read_verified(path, checksums[file]), CIFAR_GLOBALS, str(path))

    def table(files: list[list[str]]) -> ImageTable:
        parts = [read(file) for file, _ in files]
        labels = [label for part in parts for label in part["labels" if name == "cifar10" else "fine_labels"]]
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        return ImageTable(np.array(labels), images=pixels.transpose(0, 2, 3, 1))

    mean, std = MEAN_STD[name]
    return ImageDataset(
        name=name,
        train=table(source.train_list),
        test=table(source.test_list),
        class_names=tuple(read(meta)[source.meta["key"]]),
        mean=mean,
        std=std,
    )


# Wei et al., "Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations", ICLR 2022. The labels
# are CC BY-NC 4.0.
HUMAN_URL = "https://github.com/UCSC-REAL/cifar-10-100n/raw/main/data/"
HUMAN_FILES = {
    "cifar10n": ("CIFAR-10_human.pt", "96644db5574813cae939af5f7f2a0aec"),
    "cifar100n": ("CIFAR-100_human.pt", "a67b45c1d7992051865b5c755bd68bb1"),
}
HUMAN_NPZ = "cifar_n_labels.npz"
ERROR_RATES = {
    "cifar10n": {
        "aggre": ("aggre_label", 9.01),
        "random1": ("random_label1", 17.23),
        "random2": ("random_label2", 18.12),
        "random3": ("random_label3", 17.64),
        "worse": ("worse_label", 40.21),
    },
    "cifar100n": {"noisy": ("noisy_label", 40.20)},
}
"""Annotation -> its key in the file, and the share of labels (%) that differ from CIFAR's own, as published."""


def load_cifar_n(name: str, root: Path, download: bool) -> ImageDataset:
    """`name` is "cifar10n" or "cifar100n": CIFAR's images and labels, with the human labels in `human_labels`.

    Labels come from the authors' file or, where only that is there, from `cifar_n_labels.npz`, whose keys are
    "cifar10_clean_label", "cifar10_worse_label" and so on. Copies in another image order are about, so labels are
    accepted only where the clean ones equal CIFAR's and the error rates are the published ones.
    """
    from torchvision.datasets.utils import download_url

    base = load_cifar(name.removesuffix("n"), root, download)
    file, checksum = HUMAN_FILES[name]
    official, packed = root / file, root / HUMAN_NPZ
    if packed.is_file() and not official.is_file():
        path, found = packed, _read_npz(packed, prefix=f"{base.name}_")
    else:
        complete(
            [official],
            name=name,
            remedy=f"put {HUMAN_URL}{file} into {root}",
            download=(lambda: download_url(HUMAN_URL + file, str(root), file, checksum)) if download else None,
        )
        path, found = official, _read_pt(official, checksum)

    def labels(key: str) -> np.ndarray:
        array = np.asarray(found.get(key))
        if array.shape != base.train.labels.shape or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path}: {key} must be {len(base.train)} integers: get the file again")
        return array.astype(np.int64)

    agreement = (labels("clean_label") == base.train.labels).mean()
    if agreement < 1:
        raise DataError(
            f"{path}: {round((1 - agreement) * len(base.train))} of its clean labels are not {base.name}'s, so its "
            f"rows are in another order: use a file in the order of the official training set"
        )
    human = {annotation: labels(key) for annotation, (key, _) in ERROR_RATES[name].items()}
    for annotation, (key, published) in ERROR_RATES[name].items():
        rate = 100 * (human[annotation] != base.train.labels).mean()
        if abs(rate - published) > 0.01 or human[annotation].min() < 0 or human[annotation].max() >= base.num_classes:
            raise DataError(
                f"{path}: {key} is wrong in {rate:.2f} % of rows instead of the published {published:.2f} %, or out of "
                f"range: get the file again"
            )
    return ImageDataset(name, base.train, base.test, base.class_names, base.mean, base.std, human)


def _read_pt(path: Path, checksum: str) -> dict[str, Any]:
    """A file of torch.save is a zip archive with a pickle in it; the labels are NumPy arrays within the pickle."""
    return unpickle_archive(read_verified(path, checksum), str(path))


def _read_npz(path: Path, prefix: str) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key.removeprefix(prefix): archive[key] for key in archive.files if key.startswith(prefix)}
    except Exception as error:  # a damaged archive raises errors of any kind
        raise DataError(f"cannot read {path} ({one_line(error)}): get it again") from error
