"""Image files of a user's own: what is found, how it is decoded, what is kept of it, and what is refused."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastnoise.cli import main
from fastnoise.data import ImageDataset, ImageTable, load_dataset, make_loader, scan
from fastnoise.data.images import dali_reads, image_size, read_image
from fastnoise.engine.prepare import load_data
from fastnoise.errors import ConfigError, DataError
from fastnoise.recipes import recipe

try:
    import nvidia.dali  # noqa: F401

    HAS_DALI = True
except ImportError:
    HAS_DALI = False
KINDS = [pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")), "torch"]


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """An image of flat 4 x 4 squares, which every decoder gives alike."""
    squares = np.random.default_rng(seed).integers(0, 256, (-(-size[1] // 4), -(-size[0] // 4), 3), dtype=np.uint8)
    return Image.fromarray(squares.repeat(4, 0).repeat(4, 1)[: size[1], : size[0]])


def fill(folder: str, count: int = 5, suffix: str = ".png", size: tuple[int, int] = (12, 10)) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(hash((folder, number)) % 2**32, size).save(f"{folder}/{number}{suffix}")


@contextmanager
def refused(*words: str) -> Any:
    with pytest.raises(DataError) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def names(table: ImageTable | None) -> list[str]:
    assert table is not None
    return list(table.names)


# -- what is found ---------------------------------------------------------------------------------------------------


def test_a_folder_is_read_as_people_keep_it() -> None:
    fill("d/Train/cat/day 1")
    fill("d/Train/cat/day 2/night", suffix=".webp")
    fill("d/Train/chien à poil", suffix=".JPG")
    fill("d/Train/train", suffix=".gif")
    fill("d/VALID/cat", 2)
    fill("d/test/cat", 3, suffix=".jfif")
    fill("d/Train/.ipynb_checkpoints/cat")
    fill("d/Train/__MACOSX/cat")
    Path("d/Train/cat/day 1/._0.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    for name in ("d/.DS_Store", "d/Train/cat/Thumbs.db", "d/Train/cat/desktop.ini", "d/Train/Desktop.ini"):
        Path(name).write_bytes(b"x")
    picture(3).save("d/Train/cat/without_an_ending", "PNG")
    for name in ("d/readme.txt", "d/Train/cat/notes.txt", "d/Train/cat/LICENSE"):
        Path(name).write_text("no image")
    (Path("d") / "Train" / "empty").mkdir()
    dataset = load_dataset("folder:d", None)
    assert dataset.class_names == ("cat", "chien à poil", "train")
    assert np.bincount(dataset.train.labels).tolist() == [11, 5, 5]
    assert names(dataset.train)[:6] == [*(f"Train/cat/day 1/{number}.png" for number in range(5)),
                                        "Train/cat/day 2/night/0.webp"]  # fmt: skip
    assert "Train/cat/without_an_ending" in names(dataset.train)
    assert names(dataset.validation) == ["VALID/cat/0.png", "VALID/cat/1.png"]
    assert names(dataset.test) == [f"test/cat/{number}.jfif" for number in range(3)]
    left, empty, untested = dataset.notes
    assert left == "left out 3 files (2 .txt, 1 no ending): Train/cat/LICENSE, Train/cat/notes.txt, readme.txt"
    assert empty == "left out folders without images: Train/empty"
    assert untested == "no test images of chien à poil, train"


def test_images_for_validation_are_the_test_set_where_there_is_none() -> None:
    fill("d/train/a")
    fill("d/train/b")
    fill("d/val/b", 2)
    dataset = load_dataset("folder:d", None)
    assert (len(dataset.train), names(dataset.validation), names(dataset.test)) == (
        10, ["val/b/0.png", "val/b/1.png"], ["val/b/0.png", "val/b/1.png"])  # fmt: skip
    assert "no test images: those for validation (2) are the test set too" in dataset.notes[0]
    data = load_data(recipe("ce", "folder:d"))
    assert data.validation is dataset.validation or names(data.validation) == names(dataset.validation)
    assert data.validation_given is not None
    assert data.validation_given.tolist() == [1, 1]
    with pytest.raises(ConfigError, match="has 2 images for validation; drop"):
        load_data(recipe("ce", "folder:d").replace({"val_fraction": 0.2}))


def test_a_class_may_be_called_train() -> None:
    for name in ("train", "plane", "Test"):
        fill(f"d/{name}")
    assert load_dataset("folder:d", None).class_names == ("Test", "plane", "train")
    fill("e/train/monday")
    fill("e/bus/monday")
    assert load_dataset("folder:e", None).class_names == ("bus", "train")


def test_parts_that_are_there_twice_or_beside_classes_are_refused() -> None:
    fill("d/train/a")
    fill("d/val/a")
    fill("d/Validation/a")
    with refused("d has a folder Validation and a folder val; join them"):
        load_dataset("folder:d", None)
    for name in ("e/a", "e/b", "e/test/a"):
        fill(name)
    with refused("e has class folders beside its folder test"):
        load_dataset("folder:e", None)


def test_what_lies_beside_the_parts_is_left_out_and_said() -> None:
    for name in ("d/train/a", "d/train/b", "d/test/a", "d/old/x"):
        fill(name)
    assert load_dataset("folder:d", None).notes == (
        "left out 5 files (5 .png): old/x/0.png, old/x/1.png, old/x/2.png and 2 more",
        "left out folders beside train, test: old",
        "no test images of b",
    )


@pytest.mark.parametrize("train", ["", "train/"])
def test_links_that_lead_back_are_not_followed(train: str, tmp_path: Path) -> None:
    fill(f"d/{train}a")
    fill(f"d/{train}b")
    os.symlink(tmp_path / "d", f"d/{train}a/up")
    os.symlink(tmp_path / "d" / train, f"d/{train}a/near")
    os.symlink(".", f"d/{train}whole")
    os.symlink(tmp_path / "d" / train / "b", f"d/{train}c")
    dataset = load_dataset("folder:d", None)
    assert dataset.class_names == ("a", "b", "c")
    names = sorted((*dataset.train.names, *dataset.test.names))
    assert names == [f"{train}{name}/{number}.png" for name in "abc" for number in range(5)]
    assert f"left out folders without images: {train}whole" in dataset.notes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_pipes_and_broken_links_are_refused_and_not_waited_for() -> None:
    fill("d/a")
    fill("d/b")
    os.mkfifo("d/a/pipe.png")
    os.symlink("nowhere.png", "d/b/broken.png")
    with refused("cannot read 2 of 12 images", "pipe.png (it is no regular file)", "broken.png (No such file"):
        load_dataset("folder:d", None)


def test_names_that_are_not_utf8() -> None:
    fill("d/a")
    fill("d/b")
    picture(0).save(os.fsencode("d/a/").decode() + os.fsdecode(b"\xff.png"))
    dataset = load_dataset("folder:d", None)
    assert "a/\\xff.png" in (*dataset.train.names, *dataset.test.names)


# -- nothing is corrupted unasked ------------------------------------------------------------------------------------


def test_own_labels_are_given_and_stay_as_they_are() -> None:
    fill("d/a", 8)
    fill("d/b", 8)
    assert recipe("nal", "folder:d").noise.noise == recipe("elr", "list:l.csv").noise.noise == "none"
    data = load_data(recipe("nal", "folder:d"))
    assert (data.noisy.spec, data.clean) == ("given", None)
    assert "unknown" in data.noisy.describe()


def test_noise_on_own_labels_never_speaks_of_true_ones(capsys: pytest.CaptureFixture[str]) -> None:
    fill("d/a", 8)
    fill("d/$x^$", 8)
    assert (
        main(["corrupt", "--dataset", "folder:d", "--noise", "symmetric:0.4", "--out", "t.png", "t.csv", "t.npz"]) == 0
    )
    capsys.readouterr()
    assert Path("t.csv").read_text().splitlines()[0] == "index,name,label,given_label"
    data = load_data(recipe("nal", "folder:d", "symmetric:0.4"))
    assert data.noisy.words == ("given class", "noisy label")
    assert type(data.noisy).load("t.npz").words == data.noisy.words


def test_clean_labels_are_used_where_they_are_known() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    given = np.arange(40) % 2
    clean = np.where(np.arange(40) < 10, 1, -1)
    dataset = ImageDataset.from_arrays(images, given, clean_labels=clean, test_images=images, test_labels=given)
    data = load_data(recipe("ce", "arrays"), dataset)
    assert data.noisy.realised_rate == 0.5
    assert data.noisy.describe().endswith("realised 50.00 % (5 of 10 known, 40 labels in all)")
    assert data.noisy.transition.tolist() == [[0, 0], [5, 5]]
    data.noisy.save("l.npz")
    assert np.array_equal(type(data.noisy).load("l.npz").clean_labels, clean)
    with pytest.raises(ConfigError, match="has them for 10 of 40 images"):
        load_data(recipe("ce", "arrays", "symmetric:0.2"), dataset)
    unknown = ImageDataset.from_arrays(images, given, clean_labels=np.full(40, -1))
    assert unknown.clean_labels is None
    late = ImageDataset.from_arrays(images, given, clean_labels=clean[::-1], test_images=images, test_labels=given)
    assert load_data(recipe("ce", "arrays").replace({"limit_train": 30}), late).clean is None
    assert load_data(recipe("ce", "arrays").replace({"limit_train": 31}), late).clean is not None


def test_a_run_with_partly_known_labels_counts_those_alone(tmp_path: Path) -> None:
    from fastnoise.engine import train
    from fastnoise.report.stored import read_run

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    given = np.arange(40) % 2
    clean = np.where(np.arange(40) < 10, 1, -1)
    dataset = ImageDataset.from_arrays(images, given, clean_labels=clean, test_images=images, test_labels=given)
    config = recipe("nal", "arrays", model="small_cnn").replace(
        {"epochs": 1, "width": 0.2, "run_dir": str(tmp_path / "run"), "crop_padding": 0}
    )
    summary = train(config, dataset=dataset)
    shares = summary["training_samples"]
    assert sum(shares[f"mislabelled_{key}"] for key in ("true", "memorised", "other")) == pytest.approx(1)
    assert shares["mislabelled_other"] == 0  # of two classes and known ones alone there is no other
    run = read_run(tmp_path / "run")
    assert not run.problems
    assert np.bincount(run.corrected["true"] + 1).tolist() == [30, 0, 10]


# -- decoding --------------------------------------------------------------------------------------------------------


def first(kind: str, *files: str, exif: bool = True) -> np.ndarray:
    """What a loader gives of files of one size, uint8 values [N, H, W, 3]."""
    table = ImageTable(np.zeros(len(files), int), files=files, exif=exif)
    loader = make_loader(kind, table, batch_size=len(files), mean=(0.0,) * 3, std=(1 / 255,) * 3, device="cpu")
    return next(iter(loader.epoch(0)))[0].permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(kind: str, exif: bool, ending: str) -> None:
    image = picture(1)
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    for turn in range(1, 9):
        block = Image.Exif()
        block[0x112] = turn
        image.save(f"{turn}.{ending}", exif=block, **options)
        image.save("plain.png", exif=block)
        with Image.open("plain.png") as opened:
            wanted = np.asarray(ImageOps.exif_transpose(opened) if exif else image)
        found = first(kind, f"{turn}.{ending}", exif=exif)[0]
        assert found.shape == wanted.shape == (*image_size(f"{turn}.{ending}", exif), 3)
        assert np.abs(found - wanted).max() <= 3


def test_a_damaged_exif_block_is_no_orientation() -> None:
    picture(1).save("a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert image_size("a.jpg") == (10, 12)
    assert read_image("a.jpg", (10, 12)).shape == (10, 12, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_formats_that_dali_does_not_read_come_from_pillow(kind: str) -> None:
    wanted = picture(1)
    for ending in ("gif", "ppm", "tga", "jp2", "bmp", "pcx", "qoi", "ico", "im", "sgi", "tif", "png"):
        options: dict[str, Any] = {"sizes": [wanted.size]} if ending == "ico" else {}
        image = wanted.quantize(256) if ending == "gif" else wanted
        image.save(f"x.{ending}", **options)
        assert np.abs(first(kind, f"x.{ending}")[0] - np.asarray(wanted)).max() <= 1, ending
    assert not dali_reads(Path("x.gif").read_bytes()[:32])


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_unknown_range_are_refused_by_name(kind: str) -> None:
    ramp = np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)
    Image.fromarray(ramp).save("f.tif")
    Image.fromarray((255 * ramp).astype(np.int32)).save("i.tif")
    Image.new("LAB", (12, 10)).save("lab.tif")
    for file, word in (("f.tif", "mode F"), ("i.tif", "mode I"), ("lab.tif", "mode LAB")):
        with refused(file, word, "save it"):
            first(kind, file)


@pytest.mark.parametrize("kind", KINDS)
def test_modes_that_both_decoders_read_alike(kind: str) -> None:
    image = picture(1)
    inks = np.random.default_rng(0).integers(0, 256, (3, 3, 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    wide = np.linspace(0, 65535, 144).reshape(12, 12).astype(np.uint16)
    image.convert("L").save("l.png")
    image.convert("LA").save("la.png")
    image.convert("RGBA").save("rgba.webp", lossless=True)
    image.quantize(8).save("p.png", transparency=0)
    Image.fromarray(inks, "CMYK").save("cmyk.jpg", quality=100, subsampling=0)
    Image.fromarray(inks, "CMYK").save("cmyk.tif")
    Image.fromarray(wide).save("i16.png")
    Image.fromarray(wide).save("i16.tif")
    for file in ("l.png", "la.png", "rgba.webp", "p.png", "cmyk.jpg", "cmyk.tif"):
        with Image.open(file) as opened:
            wanted = np.asarray(opened.convert("RGB"), int)
        assert np.abs(first(kind, file)[0] - wanted).max() <= 1, file
    for file in ("i16.png", "i16.tif"):
        assert np.abs(first(kind, file)[0][..., 1] - wide / 257).max() <= 1, file


# -- what is kept ----------------------------------------------------------------------------------------------------


def damage(*files: str) -> None:
    for file in files:
        content = Path(file).read_bytes()
        Path(file).write_bytes(content[: len(content) * 6 // 10])


def test_every_unreadable_file_is_named_at_once_or_left_out() -> None:
    fill("d/a", 10, size=(40, 40))
    fill("d/b", 10, size=(40, 40))
    damage("d/a/2.png", "d/a/5.png", "d/b/7.png")
    with refused("cannot read 3 of 20 images", "a/2.png", "a/5.png", "b/7.png", "truncated", "--skip-unreadable"):
        load_dataset("folder:d", None)
    dataset = load_dataset("folder:d", None, skip_unreadable=True)
    assert len(dataset.train) + len(dataset.test) == 17
    assert dataset.notes == ("left out 3 unreadable images: a/2.png, a/5.png, b/7.png",)
    with pytest.raises(ConfigError, match="--skip-unreadable is for folder:PATH"):
        recipe("nal", "digits").replace({"skip_unreadable": True})


def test_the_second_start_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    fill("d/a", size=(40, 40))
    fill("d/b", size=(30, 40))
    damage("d/b/1.png")
    before = load_dataset("folder:d", None, skip_unreadable=True)
    opened: list[str] = []
    with monkeypatch.context() as context:
        context.setattr(scan, "_learn", lambda path, *_: opened.append(path))
        again = load_dataset("folder:d", None, skip_unreadable=True)
    assert opened == []
    for table, other in ((before.train, again.train), (before.test, again.test)):
        assert (table.files, table.size, table.names) == (other.files, other.size, other.names)
        assert np.array_equal(table.by_pillow, other.by_pillow)
    picture(9, (64, 64)).save("d/a/0.png")
    picture(10, (64, 64)).save("d/a/new.png")
    os.remove("d/a/1.png")
    learnt: list[str] = []
    learn = scan._learn
    monkeypatch.setattr(scan, "_learn", lambda path, *rest: (learnt.append(path), learn(path, *rest)))
    changed = load_dataset("folder:d", None, skip_unreadable=True)
    assert sorted(learnt) == ["d/a/0.png", "d/a/new.png"]
    assert len(changed.train) + len(changed.test) == 9


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no cache", "truncated", "pickle"])
def test_a_damaged_cache_is_made_anew(content: bytes | str) -> None:
    fill("d/a")
    fill("d/b")
    wanted = load_dataset("folder:d", None)
    cache = Path("d/.fastnoise-files.npz")
    if content == "pickle":
        np.savez(cache, about=np.array([{"a": 1}], dtype=object), names=np.zeros(1, np.uint8))
    else:
        cache.write_bytes(cache.read_bytes()[:-200] if isinstance(content, str) else content)
    assert load_dataset("folder:d", None).train.files == wanted.train.files
    with np.load(cache) as file:
        assert len(file["sizes"]) == 10


def test_a_folder_that_cannot_be_written_has_its_cache_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    save = scan._save
    monkeypatch.setattr(scan, "_save", lambda path, *rest: path.name != scan.CACHE and save(path, *rest))
    fill("d/a")
    fill("d/b")
    load_dataset("folder:d", None)
    assert not Path("d/.fastnoise-files.npz").exists()
    assert len(list(Path("caches/fastnoise/files").glob("*.npz"))) == 1
    monkeypatch.setattr(scan, "_learn", lambda *_: pytest.fail("read again"))
    load_dataset("folder:d", None)


def test_an_interrupted_start_keeps_what_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fill("d/a", 10)
    fill("d/b", 10)
    learn, read = scan._learn, list[str]()

    def interrupted(path: str, *rest: Any) -> None:
        if len(read) == 7:
            raise KeyboardInterrupt
        read.append(path)
        learn(path, *rest)

    with monkeypatch.context() as context:
        context.setattr(scan, "_learn", interrupted)
        context.setattr(scan.os, "sched_getaffinity", lambda _: {0}, raising=False)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("folder:d", None)
    again: list[str] = []
    monkeypatch.setattr(scan, "_learn", lambda path, *rest: (again.append(path), learn(path, *rest)))
    load_dataset("folder:d", None)
    assert len(read) == 7
    assert sorted(read + again) == sorted([f"d/{name}/{number}.png" for name in "ab" for number in range(10)])


# -- lists -----------------------------------------------------------------------------------------------------------


def write_list(path: str, rows: list[tuple[str, ...]], header: str = "path,label", encoding: str = "utf-8") -> None:
    Path(path).write_text("\n".join([header, *map(",".join, rows)]) + "\n", encoding=encoding)


def listed(count: int = 20) -> list[tuple[str, ...]]:
    fill("images", count)
    return [(f"images/{number}.png", ("hen", "coq")[number % 2]) for number in range(count)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_a_data_set(encoding: str) -> None:
    rows = listed()
    write_list("l.csv", rows, encoding=encoding)
    dataset = load_dataset("list:l.csv", None)
    assert dataset.class_names == ("coq", "hen")
    assert {*dataset.train.names, *dataset.test.names} == {name for name, _ in rows}
    assert (len(dataset.train), len(dataset.test)) == (16, 4)
    assert dataset.train.labels.tolist() == [int(dict(rows)[name] == "hen") for name in dataset.train.names]


def test_a_list_with_numbers_splits_and_true_classes() -> None:
    rows = [
        (
            f"images/{number}.png",
            str(number % 3),
            str(1) if number < 4 else "",
            ("train", "VAL", "Test")[number % 10 // 8],
        )
        for number, _ in enumerate(listed(20))
    ]
    write_list("l.csv", rows, "FILE,class,clean_label,split")
    dataset = load_dataset("list:l.csv", None)
    assert dataset.class_names == ("0", "1", "2")
    assert names(dataset.validation) == ["images/8.png", "images/9.png", "images/18.png", "images/19.png"]
    assert dataset.clean_labels is not None
    assert dataset.clean_labels.tolist() == [1] * 4 + [-1] * 12
    data = load_data(recipe("ce", "list:l.csv"))
    assert data.noisy.realised_rate == 0.75


@pytest.mark.parametrize(
    ("given", "true"), [("0,1,2", "0.0,,2.0"), ("0.0,1.0,2.0", "0,-1.0,2"), ("0,1.0,2", "0,,2.00")]
)
def test_integers_that_are_written_as_floats_are_the_same_classes(given: str, true: str) -> None:
    names = [name for name, _ in listed(15)]
    columns = (names, 5 * given.split(","), 5 * true.split(","))
    write_list("l.csv", [(*row, "train") for row in zip(*columns, strict=True)], "path,label,clean_label,split")
    dataset = load_dataset("list:l.csv", None)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.clean_labels is not None
    known = dataset.clean_labels >= 0
    assert np.count_nonzero(known) == 8
    assert np.array_equal(dataset.clean_labels[known], dataset.train.labels[known])


def test_names_beside_numbers_stay_as_they_are_written() -> None:
    rows = [(name, ("3.0", "3", "hen")[place % 3]) for place, (name, _) in enumerate(listed(15))]
    write_list("l.csv", rows)
    assert load_dataset("list:l.csv", None).class_names == ("3", "3.0", "hen")


@pytest.mark.parametrize("true", ["-100", "-100.0", "-2"])
def test_a_true_label_below_minus_one_is_refused(true: str) -> None:
    rows = [(name, str(place % 2), true if place == 3 else "") for place, (name, _) in enumerate(listed(12))]
    write_list("l.csv", rows, "path,label,clean_label")
    with refused("l.csv", "line 5", f"the true label '{true}' is below -1"):
        load_dataset("list:l.csv", None)


@pytest.mark.parametrize(
    ("line", "header", "words"),
    [
        ("images/none.png,hen", "path,label", ("1 of 3 files are missing", "'images/none.png' in line 4")),
        ("images/0.png,hen", "path,label", ("line 4", "'images/0.png' is in line 2 too")),
        ("./images/0.png,hen", "path,label", ("line 4", "'./images/0.png' is in line 2 too")),
        ("images/2.png,", "path,label", ("line 4", "column 'label' is empty")),
        (",hen", "path,label", ("line 4", "column 'path' is empty")),
        ("images,hen", "path,label", ("line 4", "'images' is a folder")),
        ("images/2.png", "path,label", ("line 4 has 1 field", "'images/2.png'")),
        ("images/2.png,hen", "path,what", ("no column 'label'",)),
        ("images/2.png,hen", "where,label", ("no column 'path'",)),
    ],
)
def test_lists_that_are_refused(line: str, header: str, words: tuple[str, ...]) -> None:
    listed(4)
    Path("l.csv").write_text(f"{header}\nimages/0.png,hen\nimages/1.png,coq\n{line}\n", encoding="utf-8")
    with refused("l.csv", *words):
        load_dataset("list:l.csv", None)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0.png,hen,train", "1.png,coq,train", "2.png,hem,test"], ("line 4", "'hem'", "did you mean 'hen'")),
        (["0.png,hen,train", "1.png,coq,trian", "2.png,hen,test"], ("line 3", "'trian'", "did you mean 'train'")),
        (["0.png,1,train", "1.png,2,train", "2.png,-1,train"], ("line 4", "'-1'", "below 0")),
        (["0.png,1,test", "1.png,2,val", "2.png,1,test"], ("no line is of the split train",)),
    ],
)
def test_classes_and_splits_that_no_line_of_training_has(rows: list[str], words: tuple[str, ...]) -> None:
    listed(4)
    lines = "\n".join(f"images/{row}" for row in rows)
    Path("l.csv").write_text(f"path,label,split\n{lines}\n", encoding="utf-8")
    with refused("l.csv", *words):
        load_dataset("list:l.csv", None)


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_says_what_was_left_out_and_knows_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    fill("d[/b]/a", 8)
    fill("d[/b]/b", 8)
    Path("d[/b]/notes.txt").write_text("no image")
    words = ("--method", "ce", "--model", "small_cnn", "--width", "0.2", "--epochs", "1", "--loader", "torch")
    assert main(["train", "--dataset", "folder:d[/b]", "--run-dir", "run[/b]", *words]) == 0
    text = capsys.readouterr().out
    assert "run folder: run[/b]" in text
    assert "labels: given: realised rate unknown" in text
    assert "left out 1 file (1 .txt): notes.txt" in text
    assert text.index("left out") < text.index("epoch 1/1")
    assert main(["train", "--dataset", "folder:d[/b]", *words, "--no-exif-orientation"]) == 0
    assert "runs/ce-b--given-s0" in capsys.readouterr().out


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_damaged_files_that_dali_has_from_pillow_are_named() -> None:
    fill("d", 12, ".gif", size=(40, 40))
    damage("d/7.gif")
    files = tuple(f"d/{number}.gif" for number in range(12))
    loader = make_loader(
        "dali", ImageTable(np.zeros(12, int), files=files), batch_size=4, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu"
    )
    for _ in range(2):
        with refused("d/7.gif"):
            list(loader.epoch(0))
    picture(1, (40, 40)).save("d/7.gif")
    for _ in range(2):
        assert sum(len(index) for _, index in loader.epoch(0)) == 12
        next(iter(loader.epoch(1)))
    loader.close()
