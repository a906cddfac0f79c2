"""Datasets: what is loaded, what is refused, and in which words."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from _growth import growth
from PIL import Image

from fastnoise.data import DATASETS, ImageDataset, ImageTable, load_dataset, stratified_split
from fastnoise.data import cifar as cifar_module
from fastnoise.data.facts import FACTS
from fastnoise.data.names import WRITTEN, needs_root
from fastnoise.data.unpickle import CIFAR_GLOBALS, TORCH_GLOBALS, unpickle
from fastnoise.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"


@contextmanager
def refuses(error: type[Exception], *words: str) -> Iterator[None]:
    """The block must raise an error of this type, whose message is one line with all of these words in it."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


# Tables and splits


def test_table_takes_positions_in_order():
    images = np.arange(5 * 2 * 3 * 1, dtype=np.uint8).reshape(5, 2, 3, 1)
    table = ImageTable(np.arange(5, dtype=np.uint8), images=images)
    part = table.take(np.array([3, 1]))
    assert (len(table), table.shape, table.labels.dtype) == (5, (1, 2, 3), np.int64)
    assert part.labels.tolist() == [3, 1]
    assert np.array_equal(part.images, images[[3, 1]])
    assert part.images.flags.c_contiguous


def test_table_of_files_finds_their_size(tmp_path):
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for file in files:
        Image.new("L", (7, 5)).save(file)
    assert ImageTable(np.zeros(3, int), files=files).shape == (3, 5, 7)
    Image.new("L", (5, 5)).save(files[1])
    table = ImageTable(np.zeros(3, int), files=files)
    assert table.shape == (3, 224, 224)
    assert table.take(np.array([2])).shape == (3, 224, 224)
    assert table.take(np.array([2])).files == (files[2],)
    assert len(table.take(np.array([], int))) == 0


@pytest.mark.parametrize(
    ("labels", "images", "word"),
    [
        (np.zeros(3), np.zeros((3, 2, 2, 1), np.uint8), "float64"),
        (np.zeros((3, 1), int), np.zeros((3, 2, 2, 1), np.uint8), "[3, 1]"),
        (np.zeros(2, int), np.zeros((3, 2, 2, 1), np.uint8), "3 images but 2 labels"),
        (np.zeros(3, int), np.zeros((3, 2, 2), np.uint8), "[3, 2, 2]"),
        (np.zeros(3, int), np.zeros((3, 2, 2, 1), np.float32), "float32"),
    ],
)
def test_table_refuses_what_does_not_fit(labels, images, word):
    with refuses(DataError, word):
        ImageTable(labels, images=images)


def test_dataset_refuses_labels_out_of_range_and_empty_splits():
    def table(labels):
        return ImageTable(np.array(labels, int), images=np.zeros((len(labels), 2, 2, 1), np.uint8))

    with refuses(DataError, "0..2", "0..1"):
        ImageDataset("x", table([0, 2]), table([0]), ("a", "b"), (0.5,), (0.5,))
    with refuses(DataError, "test set is empty"):
        ImageDataset("x", table([0, 1]), table([]), ("a", "b"), (0.5,), (0.5,))


def test_stratified_split_takes_the_fraction_of_each_class():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [10, 25, 100]))
    kept, held_out = stratified_split(labels, 0.2, seed=1)
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(135))
    assert np.bincount(labels[held_out]).tolist() == [2, 5, 20]
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert np.array_equal(stratified_split(labels, 0.2, seed=1)[1], held_out)
    assert not np.array_equal(stratified_split(labels, 0.2, seed=2)[1], held_out)
    assert [len(part) for part in stratified_split(labels, 0, seed=1)] == [135, 0]
    for fraction in (-0.1, 1.0):
        with refuses(ConfigError, str(fraction)):
            stratified_split(labels, fraction, seed=1)


def test_the_time_of_a_split_grows_with_the_samples_and_not_with_the_classes():
    labels = np.random.default_rng(0).integers(0, 1000, 400_000)
    assert growth(lambda size: partial(stratified_split, labels[:size], 0.1, 0), 20_000) < 10
    by_classes = growth(lambda classes: partial(stratified_split, labels % classes, 0.1, 0), 10, times=100)
    assert by_classes < 10, "up to 100 if each class took a pass over all samples"
    kept, held_out = stratified_split(labels, 0.1, seed=0)
    assert len(kept) + len(held_out) == len(labels)
    assert (np.bincount(labels[held_out]) == (0.1 * np.bincount(labels) + 0.5).astype(int)).all()


# Names and roots


def test_unknown_names_and_missing_roots(tmp_path):
    with refuses(ConfigError, "'cifar11'", "did you mean 'cifar10'", "mnist", "folder:PATH"):
        load_dataset("cifar11", tmp_path)
    with refuses(ConfigError, "folder:PATH"):
        load_dataset("folder:", None)
    for name in (name for name in DATASETS if needs_root(name) and name not in WRITTEN):
        with refuses(ConfigError, name, "data root"):
            load_dataset(name, None)
        if name in FACTS:  # which are not downloaded
            continue
        with refuses(DataError, name.removesuffix("n"), str(tmp_path / "no"), "allow the download"):
            load_dataset(name, tmp_path / "no", download=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_failed_download_says_where_the_files_belong(name, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", offline)
    with refuses(DataError, name, "no route to host", str(tmp_path / "new"), "https://"):
        load_dataset(name, tmp_path / "new")
    with refuses(DataError, str(tmp_path / "a" / "b")):
        load_dataset(name, tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_import_loads_nothing_heavy():
    code = "import sys, fastnoise.data; print({'torchvision', 'nvidia.dali', 'sklearn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# digits


def test_digits():
    digits = load_dataset("digits", None)
    assert (len(digits.train), len(digits.test), digits.num_classes) == (1438, 359, 10)
    assert digits.train.shape == (1, 8, 8)
    assert (digits.train.images.dtype, digits.train.images.min(), digits.train.images.max()) == (np.uint8, 0, 255)
    counts = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert np.abs(np.bincount(digits.test.labels) - 0.2 * counts).max() <= 0.5
    assert digits.mean[0] == pytest.approx(digits.train.images.mean() / 255)
    assert digits.std[0] == pytest.approx((digits.train.images / 255).std())
    again = load_dataset("digits", None)
    assert np.array_equal(again.test.images, digits.test.images)


# mnist


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def mnist_root(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"MNIST/raw/{split}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"MNIST/raw/{split}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_mnist(mnist_root):
    mnist = load_dataset("mnist", mnist_root, download=False)
    assert (len(mnist.train), len(mnist.test), mnist.train.shape, mnist.num_classes) == (30, 20, (1, 28, 28), 10)
    raw = (mnist_root / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    assert mnist.train.images.tobytes() == raw
    assert mnist.train.labels.tolist() == [i % 10 for i in range(30)]
    assert (mnist.mean, mnist.std) == ((0.1307,), (0.3081,))


@pytest.mark.parametrize("keep", [0, 3, 10, 5000])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_mnist_truncated(mnist_root, file, keep):
    path = mnist_root / "MNIST/raw" / file
    path.write_bytes(path.read_bytes()[: min(keep, path.stat().st_size - 1)])
    with refuses(DataError, file, "damaged"):
        load_dataset("mnist", mnist_root, download=False)


def test_mnist_labels_that_do_not_fit(mnist_root):
    labels = mnist_root / "MNIST/raw/train-labels-idx1-ubyte"
    write_idx(labels, np.zeros(29, np.uint8))
    with refuses(DataError, "30 images but 29 labels"):
        load_dataset("mnist", mnist_root, download=False)
    write_idx(labels, np.full(30, 10, np.uint8))
    with refuses(DataError, "10..10", "0..9"):
        load_dataset("mnist", mnist_root, download=False)


# The unpickler


class Payload:
    """Unpickled by pickle itself, this would call the function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("allowed", [CIFAR_GLOBALS, TORCH_GLOBALS], ids=["cifar", "torch"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unpickler_runs_nothing(allowed, protocol, tmp_path):
    target = tmp_path / "ran"
    for payload in (
        Payload(os.system, f"touch {target}"),
        Payload(eval, f"open({str(target)!r}, 'w')"),
        Payload(getattr, np.ndarray, "tofile"),
        Payload(np.load, str(target)),
        Payload(np.memmap, str(target), np.uint8, "w+", 0, (1,)),
        Payload(torch.load, str(target)),
        Payload(bytearray, 3),
    ):
        with refuses(DataError, "x.pkl", "damaged or tampered with"):
            unpickle(pickle.dumps({"data": payload}, protocol), allowed, "x.pkl")
    assert not target.exists()


@pytest.mark.parametrize("stream", [b"", b"\x80\x02}", b"cnumpy\nload\n.", b"\x80\x02X\xff\xff\xff\x7fab.", b"garbage"])
def test_unpickler_damaged_streams(stream):
    with refuses(DataError, "x.pkl"):
        unpickle(stream, TORCH_GLOBALS, "x.pkl")


def test_unpickler_makes_no_pointers():
    """A dtype with fields that hold objects would take the array's bytes for addresses."""
    head = b"\x80\x02}X\x04\0\0\0datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\x01btR(K\x01(K\x01t"
    field = b"cnumpy\ndtype\n(X\x02\0\0\0O8\x89\x88tR"
    struct = b"cnumpy\ndtype\n(X\x02\0\0\0V8\x89\x88tR(K\x03X\x01\0\0\0|N(X\x01\0\0\0at}X\x01\0\0\0a(" + field
    long = b"cnumpy\ndtype\n(X\x14\0\0\0" + b"U".ljust(19, b"0") + b"2\x89\x88tR"  # 20 letters, of NumPy's U2
    for dtype in (field, struct + b"K\0tsK\x08K\x01K\0tb", long):
        with refuses(DataError, "x.pkl", "a dtype other than numbers and texts"):
            unpickle(head + dtype + b"\x89C\x08AAAAAAAAtbs.", CIFAR_GLOBALS, "x.pkl")
    plain = (
        b"cnumpy\ndtype\n(X\x02\0\0\0u1\x89\x88tR(K\x03X\x01\0\0\0|N(X\x01\0\0\0atN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\0tb"
    )
    with refuses(DataError, "x.pkl", "a dtype that is made of others"):
        unpickle(head + plain + b"\x89C\x01Atbs.", CIFAR_GLOBALS, "x.pkl")


def test_unpickler_encodes_as_latin1_only():
    # Protocol 2 has no bytes: pickle writes them as a call of _codecs.encode, which knows more than text encodings.
    assert unpickle(pickle.dumps(b"\x00\xff", 2), TORCH_GLOBALS, "x.pkl") == b"\x00\xff"
    with refuses(DataError, "_codecs.encode"):
        unpickle(pickle.dumps(b"\x00\xff", 2), CIFAR_GLOBALS, "x.pkl")
    with refuses(DataError, "zlib"):
        unpickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", TORCH_GLOBALS, "x.pkl")


# CIFAR from pickles made here in the official form


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's names as they were then, as in the official files."""

    dispatch = pickle._Pickler.dispatch | {
        bytes: lambda self, value: self.write(b"T" + struct.pack("<i", len(value)) + value)
    }


def python2_pickle(value) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


class FakeCifar:
    """A CIFAR root with few images, whose MD5 sums torchvision is made to expect."""

    def __init__(self, root: Path, name: str, monkeypatch) -> None:
        import torchvision.datasets

        self.source = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
        self.folder = root / self.source.base_folder
        self.folder.mkdir()
        self.monkeypatch = monkeypatch
        rng = np.random.default_rng(0)
        classes, key = (10, "labels") if name == "cifar10" else (100, "fine_labels")
        self.parts = {
            file: {
                "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
                key: rng.integers(0, classes, 20).tolist(),
                "coarse_labels": [0] * 20,
            }
            for file, _ in [*self.source.train_list, *self.source.test_list]
        }
        for file, part in self.parts.items():
            self.write(file, python2_pickle(part))
        names = [f"class{i}" for i in range(classes)]
        self.write(self.source.meta["filename"], python2_pickle({self.source.meta["key"]: names}))

    def write(self, file: str, content: bytes) -> None:
        """Put a file in place and make its MD5 sum the official one."""
        (self.folder / file).write_bytes(content)
        checksum = md5(content).hexdigest()
        for split in ("train_list", "test_list"):
            listed = [[name, checksum if name == file else known] for name, known in getattr(self.source, split)]
            self.monkeypatch.setattr(self.source, split, listed)
        if file == self.source.meta["filename"]:
            self.monkeypatch.setattr(self.source, "meta", self.source.meta | {"md5": checksum})


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name, tmp_path, monkeypatch):
    fake = FakeCifar(tmp_path, name, monkeypatch)
    dataset = load_dataset(name, tmp_path, download=False)
    train = [fake.parts[file] for file, _ in fake.source.train_list]
    assert dataset.train.shape == (3, 32, 32)
    assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    assert dataset.class_names[:2] == ("class0", "class1")
    assert len(dataset.train) == 20 * len(train)
    assert dataset.train.images.flags.c_contiguous
    expected = np.concatenate([part["data"] for part in train]).reshape(-1, 3, 32, 32)
    assert np.array_equal(dataset.train.images.transpose(0, 3, 1, 2), expected)
    key = "labels" if name == "cifar10" else "fine_labels"
    assert dataset.train.labels.tolist() == [label for part in train for label in part[key]]


def test_cifar_damaged(tmp_path, monkeypatch):
    fake = FakeCifar(tmp_path, "cifar10", monkeypatch)
    path = fake.folder / "data_batch_3"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:1000] + b"\x00" + whole[1001:], b""):
        path.write_bytes(damaged)
        with refuses(DataError, str(path), "damaged", "delete it and get it again"):
            load_dataset("cifar10", tmp_path)
    fake.write("data_batch_3", pickle.dumps(Payload(os.system, f"touch {tmp_path / 'ran'}")))
    with refuses(DataError, str(path), "system"):  # even with the official MD5 sum
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()
    path.unlink()
    with refuses(DataError, str(path), "missing"):
        load_dataset("cifar10", tmp_path, download=False)


# CIFAR-N from files made here. The published error rates are those of 50,000 labels, so the images are tiny instead.


def human_labels(name: str, clean: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    found = {"clean_label": clean}
    rng = np.random.default_rng(1)
    for key, published in cifar_module.ERROR_RATES[name].values():
        wrong = rng.permutation(len(clean))[: round(published / 100 * len(clean))]
        found[key] = clean.copy()
        found[key][wrong] = (clean[wrong] + rng.integers(1, num_classes, len(wrong))) % num_classes
    return found


@pytest.fixture(params=["cifar10n", "cifar100n"])
def cifar_n(request, tmp_path, monkeypatch):
    """(name, root, labels as published, a function that puts labels in place as the official file)."""
    name = request.param
    num_classes = {"cifar10n": 10, "cifar100n": 100}[name]
    clean = np.random.default_rng(0).integers(0, num_classes, 50_000)

    def images_only(base, root, download):
        table = ImageTable(clean, images=np.zeros((50_000, 1, 1, 3), np.uint8))
        names = tuple(map(str, range(num_classes)))
        return ImageDataset(base, table, table, names, *cifar_module.MEAN_STD[base])

    def save(found):
        file = tmp_path / cifar_module.HUMAN_FILES[name][0]
        torch.save({**found, "clean_coarse_label": [1, 2, 3]}, file)
        checksum = md5(file.read_bytes()).hexdigest()
        monkeypatch.setitem(cifar_module.HUMAN_FILES, name, (file.name, checksum))
        return file

    monkeypatch.setattr(cifar_module, "load_cifar", images_only)
    return name, tmp_path, human_labels(name, clean, num_classes), save


def check_human_labels(dataset: ImageDataset, found: dict[str, np.ndarray]) -> None:
    keys = {"cifar10n": ["aggre", "random1", "random2", "random3", "worse"], "cifar100n": ["noisy"]}[dataset.name]
    assert sorted(dataset.human_labels) == keys
    for annotation, labels in dataset.human_labels.items():
        assert labels.dtype == np.int64
        assert np.array_equal(labels, found[cifar_module.ERROR_RATES[dataset.name][annotation][0]])


def test_cifar_n_official_file(cifar_n):
    name, root, found, save = cifar_n
    file = save(found)
    check_human_labels(load_dataset(name, root, download=False), found)
    file.write_bytes(file.read_bytes()[:-100])
    with refuses(DataError, str(file), "MD5"):
        load_dataset(name, root)


def test_cifar_n_npz(cifar_n):
    name, root, found, _ = cifar_n
    packed = {f"{name.removesuffix('n')}_{key}": labels.astype(np.uint8) for key, labels in found.items()}
    np.savez(root / "cifar_n_labels.npz", **packed)
    check_human_labels(load_dataset(name, root, download=False), found)
    packed.popitem()
    np.savez(root / "cifar_n_labels.npz", **packed)
    with refuses(DataError, "cifar_n_labels.npz", "50000 integers"):
        load_dataset(name, root)
    (root / "cifar_n_labels.npz").write_bytes(b"PK\x03\x04 not an archive")
    with refuses(DataError, "cifar_n_labels.npz"):
        load_dataset(name, root)


def test_cifar_n_wrong_content(cifar_n):
    name, root, found, save = cifar_n
    swapped = np.arange(50_000)
    other = np.flatnonzero(found["clean_label"] != found["clean_label"][0])[0]
    swapped[[0, other]] = other, 0
    few = ": 2 of its clean labels are not"
    for order, count in ((np.random.default_rng(2).permutation(50_000), ""), (swapped, few)):
        save({key: labels[order] for key, labels in found.items()})
        with refuses(DataError, "another order", count):
            load_dataset(name, root)
    key, published = next(iter(cifar_module.ERROR_RATES[name].values()))
    off = found[key].copy()
    right = np.flatnonzero(off == found["clean_label"])[:6]  # 6 of 50,000 are 0.012 %
    off[right] = (off[right] + 1) % 10
    save(found | {key: off})
    with refuses(DataError, key, f"{published + 0.01:.2f}", f"{published:.2f}"):
        load_dataset(name, root)
    save(found | {key: found[key][:-1]})
    with refuses(DataError, key, "50000 integers"):
        load_dataset(name, root)
    negative = found[key].copy()
    negative[np.flatnonzero(negative != found["clean_label"])[0]] = -1
    save(found | {key: negative})
    with refuses(DataError, key, "out of range"):
        load_dataset(name, root)


def test_cifar_n_file_that_would_run_code(cifar_n):
    name, root, found, save = cifar_n
    save(found | {"extra": Payload(os.system, f"touch {root / 'ran'}")})
    with refuses(DataError, "system"):
        load_dataset(name, root)
    assert not (root / "ran").exists()


def test_cifar_n_file_of_another_kind(cifar_n, monkeypatch):
    name, root, _, _ = cifar_n
    file = cifar_module.HUMAN_FILES[name][0]
    for content in (b"not a zip archive", _zip_of("other.txt")):
        (root / file).write_bytes(content)
        monkeypatch.setitem(cifar_module.HUMAN_FILES, name, (file, md5(content).hexdigest()))
        with refuses(DataError, file, "torch.save"):
            load_dataset(name, root)


def _zip_of(member: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(member, "text")
    return stream.getvalue()


def test_cifar_n_downloads_the_official_file(cifar_n, monkeypatch):
    name, root, found, save = cifar_n
    file = save(found)
    content = file.read_bytes()
    file.unlink()

    def download(url, folder, filename, checksum):
        assert url == f"https://github.com/UCSC-REAL/cifar-10-100n/raw/main/data/{filename}"
        assert checksum == md5(content).hexdigest()
        (Path(folder) / filename).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    with refuses(DataError, str(file), "allow the download"):
        load_dataset(name, root, download=False)
    check_human_labels(load_dataset(name, root), found)


# folder:PATH


def fill(folder: Path, count: int, suffix: str = ".png", size: tuple[int, int] = (6, 5)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (i, i, i)).save(folder / f"{i:03d}{suffix}")


@pytest.mark.parametrize("test", ["test", "val"])
def test_folder_with_both_splits(tmp_path, test):
    for name in ("b", "a", "c"):
        fill(tmp_path / "train" / name, 3)
        fill(tmp_path / test / name, 2, ".JPG")
    (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = load_dataset(f"folder:{tmp_path}", None)
    assert dataset.name == f"folder:{tmp_path}"
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.train.shape == (3, 5, 6)
    assert [Path(file).relative_to(tmp_path / "train") for file in dataset.train.files[2:4]] == [
        Path("a/002.png"),
        Path("b/000.png"),
    ]
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("inside", ["", "train"])
def test_folder_without_test_images_is_split(tmp_path, inside):
    for name, count in (("cat", 10), ("dog", 20)):
        fill(tmp_path / inside / name, count)
    dataset = load_dataset(f"folder:{tmp_path}", None)
    assert np.bincount(dataset.train.labels).tolist() == [8, 16]
    assert np.bincount(dataset.test.labels).tolist() == [2, 4]
    assert len({*dataset.train.files, *dataset.test.files}) == 30
    for table in (dataset.train, dataset.test):
        folders = [Path(file).parent.name for file in table.files]
        assert folders == [("cat", "dog")[label] for label in table.labels]
    assert load_dataset(f"folder:{tmp_path}", None).test.files == dataset.test.files


def test_folder_of_several_sizes(tmp_path):
    fill(tmp_path / "a", 5)
    fill(tmp_path / "b", 5, size=(7, 7))
    dataset = load_dataset(f"folder:{tmp_path}", None)
    assert dataset.train.shape == dataset.test.shape == (3, 224, 224)


def test_folder_refusals(tmp_path):
    with refuses(DataError, str(tmp_path / "no"), "not a folder"):
        load_dataset(f"folder:{tmp_path / 'no'}", None)
    with refuses(DataError, str(tmp_path), "no class folders"):
        load_dataset(f"folder:{tmp_path}", None)
    fill(tmp_path / "test" / "a", 2)
    with refuses(DataError, str(tmp_path), "no folder train"):
        load_dataset(f"folder:{tmp_path}", None)
    fill(tmp_path / "train" / "a", 2)
    fill(tmp_path / "train" / "b", 2)
    assert load_dataset(f"folder:{tmp_path}", None).notes == ("no test images of b",)
    fill(tmp_path / "test" / "c", 2)
    with refuses(DataError, str(tmp_path / "test"), "has no c"):
        load_dataset(f"folder:{tmp_path}", None)


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_folder_names_the_unreadable_image(tmp_path, content):
    fill(tmp_path / "a", 5)
    fill(tmp_path / "b", 5)
    (tmp_path / "b" / "002.png").write_bytes(content)
    with refuses(DataError, str(tmp_path / "b" / "002.png"), "replace or remove"):
        load_dataset(f"folder:{tmp_path}", None)


# The official files, where they are at hand


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A function that unpacks official files and returns their root."""
    root = tmp_path_factory.mktemp("official")

    def unpack(*parts: str) -> Path:
        if not (SHARED / "unpack.py").exists():
            pytest.skip("the official files are not at hand")
        if any(part.startswith("cifar") for part in parts):
            pytest.importorskip("pillow_jxl", reason="the packed CIFAR files need pillow-jxl-plugin")
        subprocess.run([sys.executable, SHARED / "unpack.py", root, *parts], check=True, capture_output=True)
        return root

    return unpack


def test_official_mnist(official):
    mnist = load_dataset("mnist", official("mnist"), download=False)
    assert (mnist.train.images.shape, mnist.test.images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train.labels).tolist() == counts
    assert mnist.train.images.mean() / 255 == pytest.approx(mnist.mean[0], abs=1e-4)
    assert (mnist.train.images / np.float32(255)).std() == pytest.approx(mnist.std[0], abs=1e-4)


def test_official_cifar10_and_its_human_labels(official):
    root = official("cifar10")
    cifar = load_dataset("cifar10", root, download=False)
    assert (cifar.train.images.shape, cifar.test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    assert " ".join(cifar.class_names) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert cifar.train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx(cifar.mean, abs=1e-4)
    (root / "cifar_n_labels.npz").write_bytes((SHARED / "cifar_n_labels.npz").read_bytes())
    human = load_dataset("cifar10n", root, download=False).human_labels
    confusion = np.zeros((10, 10))
    np.add.at(confusion, (cifar.train.labels, human["worse"]), 1 / 5000)
    assert confusion[9, 1] == pytest.approx(0.282, abs=5e-4)  # trucks taken for cars, the commonest mistake
    assert confusion[3, 5] == pytest.approx(0.206, abs=5e-4)


@pytest.mark.slow
def test_official_cifar100_and_its_human_labels(official):
    root = official("cifar100")
    cifar = load_dataset("cifar100", root, download=False)
    assert (cifar.train.images.shape, cifar.test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(cifar.train.labels).tolist() == [500] * 100
    assert (cifar.class_names[0], cifar.class_names[99]) == ("apple", "worm")
    assert cifar.train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx(cifar.mean, abs=2e-4)
    (root / "cifar_n_labels.npz").write_bytes((SHARED / "cifar_n_labels.npz").read_bytes())
    assert list(load_dataset("cifar100n", root, download=False).human_labels) == ["noisy"]
