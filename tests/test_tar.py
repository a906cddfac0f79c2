"""Tar shards: the index of their members, and training on them."""

import bz2
import csv
import gzip
import io
import json
import lzma
import mmap
import os
import tarfile
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from _growth import growth
from PIL import Image

from fastnoise.cli import main
from fastnoise.data import load_dataset, make_loader
from fastnoise.data.datasets import find_files
from fastnoise.data.images import read_image
from fastnoise.data.members import Member, Members
from fastnoise.data.names import located
from fastnoise.data.shards import braces, read_index
from fastnoise.data.table import joined
from fastnoise.data.tar import tar_members
from fastnoise.errors import ConfigError, DataError
from fastnoise.files import csv_text

pytestmark = pytest.mark.usefixtures("forked_servers")

CLASSES = ("cat", "dog", "owl")
DEEP = "a folder/" * 12  # with a key too long for one field of a header, and for two
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pixels(number: int) -> np.ndarray:
    image = np.random.default_rng(number).integers(0, 60, (16, 16, 3), dtype=np.uint8)
    image[:, 5 * (number % 3) : 5 * (number % 3) + 5] = 230
    return image


def encoded(number: int, ending: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "JPEG" if ending == "jpg" else ending.upper())
    return stream.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(first: int, count: int, *, ending: str = "png", start: str = "") -> dict[str, bytes]:
    """Images whose class is their number modulo 3, with a member .cls each."""
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        members[f"{start}{number:05}.{ending}"] = encoded(number, ending)
        members[f"{start}{number:05}.cls"] = CLASSES[number % 3].encode()
    return members


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of 24 and 21 images."""
    write_tar(tmp_path / "00.tar", samples(0, 24))
    write_tar(tmp_path / "01.tar", samples(24, 21), tarfile.PAX_FORMAT)
    return tmp_path


def members_of(path: Path) -> list[tuple[str, int, int]]:
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as archive:
        return [tuple(member) for member in tar_members(path, archive)]  # type: ignore[misc]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", "./b/c.jpg", DEEP[:90] + "/x.jpg", DEEP + "y" * 150 + ".jpg", "naïve/é.jpg"])
def test_headers_are_read_as_tarfile_reads_them(form: str, name: str, tmp_path: Path) -> None:
    contents = {"first.cls": b"3", name: b"x" * 513, "empty.txt": b"", "last.jpg": b"y" * 512}
    try:
        path = write_tar(tmp_path / "a.tar", contents, FORMATS[form])
    except ValueError:  # POSIX of 1988 has no room for it
        assert form == "ustar"
        return
    with tarfile.open(path, "a", format=FORMATS[form]) as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("other" * (3 if form == "ustar" else 30) + kind.decode())
            info.type, info.linkname = kind, "x"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("behind.jpg"))
    with tarfile.open(path) as archive:
        expected = [
            (found.name.removeprefix("./"), found.offset_data, found.size) for found in archive if found.isreg()
        ]
    assert members_of(path) == expected


def test_sizes_in_pax_and_in_binary_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    info.pax_headers = {"size": "5", "comment": "a b=c\n d"}
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + (5).to_bytes(11, "big")
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    path.write_bytes(
        info.tobuf(tarfile.PAX_FORMAT) + b"hello".ljust(512, b"\0") + block + b"again".ljust(512, b"\0") + bytes(1024)
    )
    assert [(name, size) for name, _, size in members_of(path)] == [("a.jpg", 5), ("a.jpg", 5)]


@pytest.mark.parametrize("size", ["-1024", "x"])
def test_a_size_in_pax_that_is_no_number_is_refused(size: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"size": size}
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    _refused(path, f"a.tar is damaged: a PAX header has the size '{size}'")


def test_samples_have_their_bytes_names_and_labels(shards: Path) -> None:
    dataset = load_dataset(f"tar:{shards}/{{00..01}}.tar", None)
    assert dataset.class_names == CLASSES
    assert (len(dataset.train), len(dataset.test)) == (36, 9)
    assert dataset.given_labels
    whole = joined([dataset.train, dataset.test])
    for place, name in enumerate(whole.names):
        shard, number = name.split("/")
        assert int(shard[:2]) == (int(number) >= 24)
        assert whole.labels[place] == int(number) % 3
        assert whole.read_bytes(place) == encoded(int(number))
        assert str(whole.files[place]) == f"{shards}/{shard}/{number}.png"
    taken = dataset.train.take(np.array([5, 2]))
    assert isinstance(taken.files, Members)
    assert [taken.read_bytes(0), taken.read_bytes(1)] == [dataset.train.read_bytes(5), dataset.train.read_bytes(2)]


def test_labels_are_also_read_from_json_with_true_classes(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number in range(12):
        fields = {"label": number % 2, "clean_label": 1 if number < 6 else None, "other": [1]}
        members[f"{number}.jpg"] = encoded(number, "jpg")
        members[f"{number}.json"] = json.dumps(fields).encode()
        members[f"{number}.seg.png"] = b"no image of its own"
    write_tar(tmp_path / "a.tar", members)
    dataset = load_dataset(f"tar:{tmp_path / 'a.tar'}", None)
    assert dataset.class_names == ("0", "1")
    assert dataset.clean_labels is not None
    for name, clean in zip(dataset.train.names, dataset.clean_labels.tolist(), strict=True):
        assert clean == (1 if int(name.split("/")[1]) < 6 else -1)


@pytest.mark.parametrize("lowest", ["-1.0", "-2"])
def test_true_classes_in_json_are_numbers_as_those_in_cls(tmp_path: Path, lowest: str) -> None:
    members: dict[str, bytes] = {}
    for number in range(12):
        members[f"{number}.jpg"] = encoded(number, "jpg")
        members[f"{number}.cls"] = str(number % 2).encode()
        members[f"{number}.json"] = json.dumps({"clean_label": lowest if number < 6 else "1.0"}).encode()
    write_tar(tmp_path / "a.tar", members)
    if lowest == "-2":
        with pytest.raises(DataError, match=r"a\.tar/0\.jpg: the true label '-2' is below -1"):
            load_dataset(f"tar:{tmp_path / 'a.tar'}", None)
        return
    dataset = load_dataset(f"tar:{tmp_path / 'a.tar'}", None)
    assert dataset.class_names == ("0", "1")
    assert dataset.clean_labels is not None
    assert {*dataset.clean_labels.tolist()} == {-1, 1}


@pytest.mark.parametrize("exif", [True, False])
def test_images_that_are_not_turned_upright_keep_their_shape(exif: bool, tmp_path: Path) -> None:
    stream, turned = io.BytesIO(), Image.Exif()
    turned[0x112] = 6
    Image.new("RGB", (20, 12)).save(stream, "JPEG", exif=turned)
    members = {}
    for number in range(20):
        members |= {f"{number}.jpg": stream.getvalue(), f"{number}.cls": str(number % 2).encode()}
    write_tar(tmp_path / "a.tar", members)
    dataset = load_dataset(f"tar:{tmp_path / 'a.tar'}", None, exif=exif)
    assert dataset.train.size == dataset.test.size == ((20, 12) if exif else (12, 20))


def test_shards_of_validation_and_test_are_named_beside_those_of_training(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(shards / "val.tar", samples(60, 6))
    write_tar(shards / "test.tar", samples(70, 9))
    name = f"tar:{shards}/{{00..01}}.tar,val={shards}/val.tar,test={shards}/test.tar"
    dataset = load_dataset(name, None)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45, 6, 9)
    assert dataset.test.names[0] == "test.tar/00070"
    monkeypatch.chdir(shards)
    assert located(name.replace(f"{shards}/", "")) == name


def test_ranges_in_braces() -> None:
    assert braces("a") == ["a"]
    assert braces("s{08..11}.tar") == ["s08.tar", "s09.tar", "s10.tar", "s11.tar"]
    assert braces("s{8..11}") == ["s8", "s9", "s10", "s11"]
    assert braces("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    with pytest.raises(ConfigError, match="is empty; write the smaller number first"):
        braces("{3..1}")


def test_the_index_is_kept_and_made_anew_for_a_shard_that_has_changed(
    shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = [shards / "00.tar", shards / "01.tar"]
    first = read_index(paths)
    again = read_index(paths)
    assert (first.read, again.read) == (2, 0)
    assert list(again.images) == list(first.images)
    assert [member.offset for member in again.images] == [member.offset for member in first.images]
    assert (again.labels, again.clean) == (first.labels, first.clean)
    np.testing.assert_array_equal(again.by_pillow, first.by_pillow)
    cache = next(shards.glob(".fastnoise-shards-*"))
    cache.write_bytes(cache.read_bytes()[:100])
    assert read_index(paths).read == 2
    write_tar(shards / "01.tar", samples(24, 6))
    assert len(read_index(paths).labels) == 30
    cache.unlink()
    cache.mkdir()  # which no file can replace
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    assert read_index(paths).read == 2
    assert read_index(paths).read == 0


def test_the_time_to_index_a_shard_grows_with_its_members(tmp_path: Path) -> None:
    names = (tmp_path / f"{number}.tar" for number in count())

    def made(size: int) -> Path:
        pieces: list[bytes] = []
        for number in range(size):
            for ending, content in (("jpg", b"\xff\xd8\xff" + bytes(61)), ("cls", b"%d" % (number % 10))):
                info = tarfile.TarInfo(f"{number:06}.{ending}")
                info.size = len(content)
                pieces += [info.tobuf(tarfile.USTAR_FORMAT), content.ljust(512, b"\0")]
        path = next(names)
        path.write_bytes(b"".join(pieces) + bytes(1024))
        return path

    assert growth(lambda size: partial(read_index, [made(size)]), 2_000) < 10, "16 if it grew with the square"
    index = read_index([made(8_000)])
    assert len(index.labels) == 8_000
    assert index.images[7_999].read(3) == b"\xff\xd8\xff"


LOADERS = ["torch", *(["dali"] if find_spec("nvidia.dali") else [])]


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_give_the_images_in_any_order_and_from_any_batch_on(shards: Path, kind: str) -> None:
    write_tar(shards / "02.tar", samples(45, 6, ending="bmp"))  # which Pillow decodes for DALI
    table = load_dataset(f"tar:{shards}/{{00..02}}.tar", None).train
    options = {"batch_size": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3, "device": "cpu", "shuffle": True}
    loader = make_loader(kind, table, **options)  # type: ignore[arg-type]
    seen: list[int] = []
    for images, index in loader.epoch(1):
        for image, place in zip(images, index.tolist(), strict=True):
            expected = pixels(int(table.names[place].split("/")[1])).astype(np.float32) / 255
            np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-6)
            seen.append(place)
    assert sorted(seen) == list(range(len(table)))
    later = [place for _, index in loader.epoch(1, start_batch=2) for place in index.tolist()]
    assert later == seen[16:]
    loader.close()


def test_a_run_on_shards_is_resumed_evaluated_and_used(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shards)
    words = ["train", "--dataset", "tar:{00..01}.tar", "--model", "small_cnn", "--method", "ce", "--loader", "torch"]
    words += ["--batch-size", "16", "--crop-padding", "0", "--no-flip", "--schedule", "constant"]
    assert main([*words, "--epochs", "3", "--run-dir", "whole"]) == 0
    assert main([*words, "--epochs", "1", "--run-dir", "part"]) == 0
    monkeypatch.chdir(shards.parent)
    assert main(["train", "--resume", str(shards / "part"), "--epochs", "3"]) == 0
    monkeypatch.chdir(shards)
    states = [torch.load(f"{name}/checkpoint.pt", weights_only=True)["networks"] for name in ("whole", "part")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert main(["evaluate", "whole", "tar:{00..01}.tar", "--split", "all", "--out", "figures.json"]) == 0
    assert json.loads(Path("figures.json").read_text())["images"] == 45
    assert main(["features", "tar:{00..01}.tar", "--model", "whole", "--out", "f.npy"]) == 0
    assert load_dataset("features:f.npy", None).train.names[0] == "00.tar/00000"
    capsys.readouterr()
    assert (
        main(["clean", "tar:{00..01}.tar", "--folds", "2", "--epochs", "1", "--jobs", "1", "--model", "small_cnn"]) == 0
    )
    corrected = next(Path("cleaned").rglob("corrected.csv"))
    assert corrected.read_text().splitlines()[0].startswith("file,path,label")
    labels = ["--noise", "none", "--labels", str(corrected), "--epochs", "1", "--run-dir", "corrected"]
    assert main([*words, *labels]) == 0


def test_the_corrected_labels_of_shards_are_a_list_that_is_trained_on(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shards)
    write_tar(shards / "test.tar", {f"{n}.{end}": c for n, end, c in ((70, "PNG", encoded(70)), (70, "cls", b"dog"))})
    name = "tar:{00..01}.tar,test=test.tar"
    words = ["--epochs", "1", "--model", "small_cnn", "--width", "0.25", "--loader", "torch", "--batch-size", "16"]
    assert main(["clean", name, "--folds", "2", "--jobs", "1", "--method", "ce", *words]) == 0
    assert main(["review", "cleaned/00..01-.tar", "--apply"]) == 0
    corrected = shards / "cleaned/00..01-.tar/corrected.csv"
    assert f"train on it: fastnoise train --dataset list:{corrected}\n" in capsys.readouterr().out
    with open(corrected, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [rows[place]["path"] for place in (0, 45)] == [f"{shards}/00.tar/00000.png", f"{shards}/test.tar/70.PNG"]
    rows[1]["label"] = "owl"
    corrected.write_text(csv_text(rows[0], (row.values() for row in rows)), encoding="utf-8")
    dataset = load_dataset(f"list:{corrected}", None)
    given = load_dataset(name, None)
    assert isinstance(dataset.train.files, Members)
    assert (len(dataset.train), len(dataset.test)) == (45, 1)
    assert [dataset.class_names[label] for label in dataset.train.labels] == [row["label"] for row in rows[:45]]
    for place in range(45):
        assert dataset.train.read_bytes(place) == given.train.read_bytes(place)
    assert main(["train", "--dataset", f"list:{corrected}", "--method", "ce", *words, "--run-dir", "run"]) == 0
    assert "left out the columns file" in capsys.readouterr().out
    assert main(["predict", "run", str(corrected)]) == 0
    assert capsys.readouterr().out.startswith(f"{shards}/00.tar/00000.png: ")


def test_a_list_names_files_and_members_of_shards(shards: Path, tmp_path: Path) -> None:
    for number in range(45, 51):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    lines = [f"{number}.png,{number % 3}" for number in range(45, 51)]
    lines += [f"0{number // 24}.tar/{number:05}.png,{number % 3}" for number in range(45)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["path,label", *lines]))
    files = find_files(f"list:{path}")
    assert (files.scan().read, files.scan().read) == (51, 0)
    whole = joined([(dataset := load_dataset(f"list:{path}", None)).train, dataset.test])
    for place, name in enumerate(whole.names):
        assert whole.read_bytes(place) == encoded(int(Path(name).stem))
    for kind in LOADERS:
        loader = make_loader(kind, dataset.train, batch_size=8, mean=(0.0,) * 3, std=(1.0,) * 3, device="cpu")
        for images, index in loader.epoch(0):
            for image, place in zip(images, index.tolist(), strict=True):
                expected = pixels(int(Path(dataset.train.names[place]).stem)).astype(np.float32) / 255
                np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-6)
        loader.close()
    write_tar(shards / "01.tar", samples(24, 21), tarfile.GNU_FORMAT)
    os.utime(shards / "01.tar", ns=(1, 1))
    assert find_files(f"list:{path}").scan().read == 21  # those of the shard that changed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("00.tar/99999.png", "1 of 2 files are missing in .*: '00.tar/99999.png' in line 3"),
        ("02.tar/00000.png", "1 of 2 files are missing in .*: '02.tar/00000.png' in line 3"),
        ("a.png/b.png", "list.csv: .*a.png is no tar file"),
    ],
)
def test_a_list_of_members_that_are_not_there_is_refused_in_one_line(name: str, said: str, shards: Path) -> None:
    (shards / "a.png").write_bytes(encoded(0).ljust(600))
    (shards / "list.csv").write_text(f"path,label\n00.tar/00000.png,cat\n{name},dog\n")
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"list:{shards / 'list.csv'}", None)
    assert "\n" not in str(caught.value)


def test_networks_say_what_they_make_of_shards_without_labels(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shards)
    words = ["--method", "ce", "--model", "small_cnn", "--epochs", "1", "--loader", "torch", "--batch-size", "8"]
    assert main(["train", "--dataset", "tar:{00..01}.tar", *words, "--run-dir", "run"]) == 0
    (shards / "new").mkdir()
    content: dict[str, bytes] = {"notes.txt": b"", "._1.png": b"", "3.seg.png": encoded(3)}
    for number in range(6):
        content[f"{number}.PNG"] = encoded(number)
        (shards / f"new/{number}.png").write_bytes(encoded(number))
    write_tar(shards / "new-0.tar", dict(list(content.items())[:6]))
    write_tar(shards / "new-1.tar", dict(list(content.items())[6:]))
    assert main(["predict", "run", "new", "--out", "files.csv"]) == 0
    capsys.readouterr()
    assert main(["predict", "run", "tar:new-{0..1}.tar", "--out", "shards.csv"]) == 0
    assert "1 file is no image and is left out" in capsys.readouterr().out
    found, expected = (
        list(csv.reader(Path(f"{name}.csv").read_text(encoding="utf-8").splitlines())) for name in ("shards", "files")
    )
    assert [row[0] for row in found[1:]] == [f"new-{number // 3}.tar/{number}.PNG" for number in range(6)]
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert main(["predict", "run", "new", "new-1.tar", "--out", "both.csv", "--skip-unreadable"]) == 0
    assert len(Path("both.csv").read_text().splitlines()) == 10
    write_tar(shards / "none.tar", {"a.txt": b""})
    assert main(["predict", "run", "none.tar"]) == 2
    assert "tar:none.tar holds no images of a format that is read" in capsys.readouterr().err


def test_a_member_of_a_shard_that_became_shorter_is_refused(shards: Path) -> None:
    table = load_dataset(f"tar:{shards}/{{00..01}}.tar", None).train
    os.truncate(shards / "00.tar", 512)
    with pytest.raises(DataError, match=r"00.tar has become shorter since it was read"):
        read_image(table.files[0], (16, 16))
    member = table.files[0]
    assert isinstance(member, Member)
    (shards / "00.tar").unlink()
    with pytest.raises(DataError, match="No such file"):
        table.read_bytes(0)


def _refused(path: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"tar:{path}", None)
    assert "\n" not in str(caught.value)


def test_tar_files_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "a.tar", samples(0, 9)).read_bytes()
    other = tmp_path / "b.tar"
    for pack, name in ((gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")):
        other.write_bytes(pack(plain))
        _refused(other, rf"b.tar is compressed \({name}\)")
    whole = plain.rstrip(b"\0")
    for length in (700, 512 * 7, len(whole) // 512 * 512, len(whole) - 100):
        other.write_bytes(plain[:length])
        _refused(other, "b.tar is cut off")
    other.write_bytes(b"")
    _refused(other, "b.tar is empty")
    other.write_bytes(b"no tar file".ljust(2000))
    _refused(other, "b.tar is no tar file: a header's checksum is wrong")
    damaged = bytearray(plain)
    damaged[plain.index(b"00003.png")] = 65
    other.write_bytes(damaged)
    _refused(other, r"b.tar is damaged at byte \d+")
    _refused(tmp_path / "c.tar", "1 of 1 shards are missing")
    _refused(f"{tmp_path}/a.tar,test={tmp_path}/a.tar", "the shard .*a.tar is named twice")  # type: ignore[arg-type]
    (tmp_path / "none").mkdir()
    _refused(tmp_path / "none", "holds no .tar files")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"x.png": b"1"}, r"1 of 10 samples have no label \('x'\)"),
        ({"x.png": b"1", "y.png": b"1"}, r"2 of 11 samples have no label \('x', 'y'\)"),
        ({"x.png": b"1", "x.cls": b"-1"}, r"1 of 10 samples have no label \('x'\)"),
        ({"x.json": b'{"label": 1}'}, "the key 'x' has no image, only json"),
        ({"x.png": b"1", "x.jpg": b"1", "x.cls": b"cat"}, "the key 'x' has images png, jpg"),
        ({"x.png": b"1", "x.json": b"{"}, "'x'.json cannot be read"),
        ({"x.png": b"1", "x.json": b'{"label": [1]}'}, "'x'.json has the class"),
        ({"x.png": b"1", "x.json": b'{"label": "\\ud800"}'}, r"the class '\\ud800', which is no UTF-8 text"),
        ({"x.png": b"1", "x.cls": "é".encode("latin-1")}, r"the class '\\udce9', which is no UTF-8 text"),
        ({"x.png": b"1", "x.cls": b"a\0b"}, r"the class 'a\\x00b', which is no UTF-8 text"),
        ({"00000.txt": b"1"}, "the key '00000' is there twice"),
        ({"x.png": b"1", "x.cls": b"cat", "./x.png": b"2"}, "the key 'x' has two members .png"),
    ],
)
def test_samples_that_cannot_be_used_are_refused_in_one_line(more: dict[str, bytes], said: str, tmp_path: Path) -> None:
    _refused(write_tar(tmp_path / "a.tar", samples(0, 9) | more), said)


def test_a_member_that_is_no_image_is_named_with_its_shard(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"x.png": b"junk", "x.cls": b"cat"})
    _refused(path, r"cannot read the image .*a.tar/x.png \(its bytes begin like no image that can be read\)")


def test_too_few_samples_are_refused_with_what_shards_need(tmp_path: Path) -> None:
    _refused(
        write_tar(tmp_path / "a.tar", samples(0, 3)),
        "3 images are too few to hold some out for the test; give shards with test images behind them, as ,test=SHARDS",
    )


def test_a_class_that_training_has_not_is_refused(shards: Path) -> None:
    write_tar(shards / "test.tar", {"a.png": encoded(0), "a.cls": b"cow"})
    _refused(
        f"{shards}/{{00..01}}.tar,test={shards}/test.tar", "test.tar/a.png: no training sample has its class 'cow'"
    )  # type: ignore[arg-type]


def test_a_true_class_that_training_has_not_is_refused(shards: Path) -> None:
    """Which a mistake in writing would else make an unknown one."""
    fields = json.dumps({"label": "cat", "clean_label": "cow"}).encode()
    write_tar(shards / "test.tar", {"a.png": encoded(0), "a.json": fields})
    _refused(
        f"{shards}/{{00..01}}.tar,test={shards}/test.tar",  # type: ignore[arg-type]
        "test.tar/a.png: no training sample has its true class 'cow'",
    )


def test_the_name_needs_shards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset", "tar:"]) == 2
    assert "the dataset tar:SHARDS needs the paths of shards after the colon" in capsys.readouterr().err


def test_a_part_without_shards_is_not_the_folder_of_the_command(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards)
    assert main(["train", "--dataset", "tar:00.tar,test="]) == 2
    assert "the shards of test are missing" in capsys.readouterr().err


def test_shards_with_commas_between_them_are_refused_with_the_braces_that_they_need(shards: Path) -> None:
    _refused(f"{shards}/00.tar,{shards}/01.tar", r"1 of 1 shards are missing, .*; write several shards as \{a,b\}.tar")  # type: ignore[arg-type]
