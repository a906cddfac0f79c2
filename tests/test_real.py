"""Published data sets from made folders in their official layouts, and what their lists may get wrong."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _real_cases import (
    CLOTHING,
    ILSVRC,
    MAKERS,
    WNIDS,
    chaoyang,
    clothing1m,
    food101n,
    imagenet,
    webvision,
    write_lines,
)
from _set_cases import write_coco

from fastnoise.cli import main
from fastnoise.data import ImageDataset, load_dataset
from fastnoise.data.facts import FACTS
from fastnoise.data.images import read_image
from fastnoise.data.lines import read_pairs
from fastnoise.data.texts import Texts, packed, picked, places, repeated
from fastnoise.errors import DataError
from fastnoise.noise import corrupt
from fastnoise.noise.targets import load_noisy
from fastnoise.recipes import recipe


@contextmanager
def refuses(*parts: str) -> Iterator[None]:
    """A DataError of one line that has all of these parts."""
    with pytest.raises(DataError) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said
    assert [part for part in parts if part not in said] == [], said


def loaded(name: str, root: Path) -> ImageDataset:
    return load_dataset(name, root)


def test_there_is_a_made_folder_for_each() -> None:
    assert set(MAKERS) == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_every_data_set_is_read_from_its_official_layout(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    data = loaded(name, tmp_path)
    assert data.name == name
    tables = [data.train, data.test, *data.second_tests.values(), *([data.validation] if data.validation else [])]
    for table in tables:
        assert all(os.path.isfile(file) for file in table.files)
        assert len(set(table.files)) == len(set(table.names)) == len(table)
        assert all(file.endswith(name.split("/")[-1]) for file, name in zip(table.files, table.names, strict=True))
        assert table.shape == (3, FACTS[name].size, FACTS[name].size)
    assert len(set(data.class_names)) == data.num_classes
    assert loaded(name, tmp_path).list_hash == data.list_hash


@pytest.mark.parametrize("name", FACTS)
def test_missing_files_get_a_line_of_what_to_get_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    with refuses(f"{name}: no {tmp_path}/{FACTS[name].folders[0]}", FACTS[name].get, "unpack it into"):
        loaded(name, tmp_path)


def class_of(file: str) -> int:
    """The class that a made image shows, by its colour."""
    pixels = read_image(file, (40, 40))[:10].astype(float).mean((0, 1))
    return round((pixels.max() - 20 - 40) / 10)


# -- what each has of its own --------------------------------------------------------------------------------------


def test_animal10n_has_its_labels_in_the_names(tmp_path: Path) -> None:
    MAKERS["animal10n"](tmp_path)
    data = loaded("animal10n", tmp_path)
    assert (len(data.train), len(data.test)) == (30, 20)
    assert [class_of(file) for file in data.train.files[:10]] == data.train.labels[:10].tolist()
    assert data.train.names[:4] == tuple(f"training/{name}_img.jpg" for name in ("0_0", "0_1", "0_2", "1_0"))
    (tmp_path / "animal10n" / "training" / "cat.jpg").write_bytes(b"")
    with refuses("1 files do not begin with a class 0 to 9 and _: 'cat.jpg'"):
        loaded("animal10n", tmp_path)


@pytest.mark.parametrize("convention", CLOTHING)
def test_clothing1m_is_read_in_all_its_conventions(convention: str, tmp_path: Path) -> None:
    lists = clothing1m(tmp_path, convention)
    data = loaded("clothing1m", tmp_path)
    assert data.validation is not None
    assert data.clean_labels is not None
    assert [len(table) for table in (data.train, data.validation, data.test)] == [28, 14, 14]
    assert (
        [class_of(file) for file in data.train.files] == [row % 14 for row in range(28)] == data.train.labels.tolist()
    )
    known = np.flatnonzero(data.clean_labels >= 0)
    assert known.tolist() == list(range(0, 28, 4))
    wrong = data.clean_labels[known] != data.train.labels[known]
    assert known[wrong].tolist() == [0, 8, 16, 24]
    assert "clean labels are known of 7 of 28 training images" in data.notes
    assert all(os.path.isfile(file) for table in (data.train, data.validation, data.test) for file in table.files)
    # keys without a label, and keys that are there twice
    keys = lists / "noisy_train_key_list.txt"
    whole = keys.read_text()
    keys.write_text(whole + "".join(f"images/0/lost{number}.jpg\n" for number in range(5)))
    with refuses("5 of 33 keys have no label in noisy_label_kv.txt: 'images/0/lost0.jpg' in line 29", "and 2 more"):
        loaded("clothing1m", tmp_path)
    keys.write_text(whole + "images/0/00.jpg\n")
    with refuses("1 keys are there twice: 'images/0/00.jpg' in line 29; drop one of each"):
        loaded("clothing1m", tmp_path)
    keys.write_text(whole)
    table = lists / "clean_label_kv.txt"
    table.write_text(table.read_text() + "images/0/00.jpg 14\n")
    with refuses("'images/0/00.jpg' in line 36; drop"):
        loaded("clothing1m", tmp_path)


def test_a_training_image_that_is_tested_too_is_counted(tmp_path: Path) -> None:
    lists = clothing1m(tmp_path)
    keys = lists / "noisy_train_key_list.txt"
    keys.write_text(keys.read_text() + "images/test/03.jpg\n")
    labels = lists / "noisy_label_kv.txt"
    labels.write_text(labels.read_text() + "images/test/03.jpg 5\n")
    assert "1 test images are training images too, as the lists have it" in loaded("clothing1m", tmp_path).notes


@pytest.mark.parametrize("layout", ILSVRC)
def test_ilsvrc_is_mapped_by_wordnet_id(layout: str, tmp_path: Path) -> None:
    """The classes' own order is not that of the sorted ids, nor ILSVRC's."""
    webvision(tmp_path, layout)
    mini, whole = loaded("mini_webvision", tmp_path), loaded("webvision", tmp_path)
    assert mini.num_classes == 50
    assert whole.num_classes == 60
    for data, classes in ((mini, [0, 1, 2, 49]), (whole, [0, 1, 2, 49, 50, 59])):
        second = data.second_tests["ilsvrc"]
        assert sorted(second.labels.tolist()) == sorted(2 * classes)
        for table in (data.train, data.test, second):
            for file, label in zip(table.files, table.labels.tolist(), strict=True):
                stem = Path(file).stem
                told = int(stem[-3:]) if "ILSVRC" in stem else int(Path(file).parent.name[1:]) if "/q" in file else None
                assert label == (told if told is not None else int(stem[3:9]))
    assert len(whole.train) == 2 * 18
    assert len(mini.train) == 12
    assert mini.class_names[3] == f"of two, other ({WNIDS[3]})" or "of two" in mini.class_names[3]


def test_webvision_without_its_second_test_set_says_so(tmp_path: Path) -> None:
    folder = webvision(tmp_path, None, google="")
    data = loaded("mini_webvision", tmp_path)
    assert data.second_tests == {}
    assert f"no validation images of ILSVRC2012 in {tmp_path}/imagenet/val" in data.notes[0]
    assert all(map(os.path.isfile, data.train.files)), "paths relative to the folder google"
    (folder / "info" / "train_filelist_flickr.txt").unlink()
    (folder / "info" / "train_filelist_google.txt").write_text("google/q0000/0.jpg 0\ngoogle/q0001/0.jpg 1\n")
    notes = loaded("webvision", tmp_path).notes
    assert "without train_filelist_flickr.txt: the training set is what Google found" in notes


def test_ilsvrc_ids_are_not_taken_for_sorted_ones(tmp_path: Path) -> None:
    webvision(tmp_path, "devkit")
    (tmp_path / "imagenet" / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink()
    with refuses("ILSVRC2012_validation_ground_truth.txt: its numbers are ILSVRC's own ids", "put meta.mat"):
        loaded("mini_webvision", tmp_path)
    webvision(tmp_path / "bare", None)
    (tmp_path / "bare" / "imagenet" / "val").mkdir(parents=True)
    with refuses("the images in val have no classes; sort them into val/WNID"):
        loaded("mini_webvision", tmp_path / "bare")


def test_food101n_has_headers_flags_and_a_list_without_suffixes(tmp_path: Path) -> None:
    folder = food101n(tmp_path)
    data = loaded("food101n", tmp_path)
    assert data.class_names == ("apple_pie", "baklava", "waffles"), "no class is called class_name"
    assert data.train.labels.tolist() == [0, 1, 2] * 3
    assert data.clean_labels is not None
    assert data.clean_labels.tolist() == [0, 1, 2, 0, -1, 2, -1, -1, -1]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.files[0] == f"{tmp_path}/food-101/images/apple_pie/101.jpg"
    assert data.notes == (
        "6 training images are verified: 5 right, which alone have clean labels, and 1 wrong",
        "1 verified images are not in imagelist.tsv under their class and are left out",
    )
    (tmp_path / "food-101" / "meta" / "test.txt").rename(tmp_path / "test.txt")
    with refuses("food101n: no", "get Food-101 (food-101.tar.gz", f"unpack it into {tmp_path}/food-101"):
        loaded("food101n", tmp_path)
    (tmp_path / "test.txt").rename(tmp_path / "food-101" / "meta" / "test.txt")
    rows = folder / "meta" / "verified_val.tsv"
    rows.write_text(rows.read_text() + "apple_pie/1abc.jpg\t2\n")
    with refuses("the flags are 0 or 1, not as 'apple_pie/1abc.jpg' in line 4"):
        loaded("food101n", tmp_path)


def test_chaoyang_has_the_labels_of_three_pathologists(tmp_path: Path) -> None:
    folder = chaoyang(tmp_path)
    data = loaded("chaoyang", tmp_path)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert data.human_labels["B"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0]
    rows = folder / "train.json"
    for content, said in (
        ('[{"name": "a.jpg", "label": 4}]', "entry 0 is"),
        ('[{"name": "../a.jpg", "label": 1}]', "entry 0: the path '../a.jpg' leads out"),
        ('[{"name": "a.jpg", "label": 1}, {"name": "a.jpg", "label": 1}]', "is there twice, in entries 0 and 1"),
        ("[", "cannot be read as JSON"),
    ):
        rows.write_text(content)
        with refuses(said):
            loaded("chaoyang", tmp_path)


def test_chest_xray_joins_validation_and_test(tmp_path: Path) -> None:
    MAKERS["chest_xray"](tmp_path)
    data = loaded("chest_xray", tmp_path)
    assert (len(data.train), len(data.test), data.validation) == (8, 6, None)
    assert not data.given_labels


@pytest.mark.parametrize("layout", ILSVRC)
def test_imagenet_takes_its_validation_images_in_any_layout(layout: str, tmp_path: Path) -> None:
    imagenet(tmp_path, layout)
    data = loaded("imagenet", tmp_path)
    assert list(data.class_names) == sorted(data.class_names)
    assert sorted(data.test.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert [int(Path(file).stem[-3:]) for file in data.test.files] == data.test.labels.tolist()


def test_another_rate_than_those_that_are_there_is_refused(tmp_path: Path) -> None:
    MAKERS["red_mini_imagenet"](tmp_path)
    assert len(loaded("red_mini_imagenet:rate=0.4", tmp_path).train) == 9
    with refuses("red_noise_nl_0.8; there are rates 0.4"):
        loaded("red_mini_imagenet:rate=0.8", tmp_path)
    with refuses("red_noise_nl_0.42; there are rates 0.4"):
        loaded("red_mini_imagenet:rate=0.42", tmp_path)


# -- runs by the command line --------------------------------------------------------------------------------------


def train(root: Path, name: str, *words: str) -> dict[str, Any]:
    """One epoch of small_cnn at 32 pixels in the folder `run`; returns its summary."""
    run = root / "run"
    small = ["--model", "small_cnn", "--image-size", "32", "--width", "0.25", "--batch-size", "8"]
    small += ["--epoch-batches", "3"] * (name == "clothing1m")
    where = ("--data-root", str(root), "--run-dir", str(run), "--loader", "torch", "--device", "cpu")
    assert main(["train", "--dataset", name, "--method", "ce", "--epochs", "1", *small, *where, *words]) == 0
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


@pytest.mark.parametrize("name", FACTS)
def test_every_data_set_is_trained_and_tested_by_the_command_line(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    summary = train(tmp_path, name)
    (epoch,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    second = ["ilsvrc"] if "webvision" in name else []
    assert summary.get("second_tests", []) == second
    for part in ("test", *second):
        assert summary[f"{part}_accuracy"]["last"] == epoch[f"{part}_accuracy"]
        assert ("top5" in "".join(summary)) == (f"{part}_top5" in epoch)
    assert (summary["noise"]["spec"] == "given") == FACTS[name].given_labels


def test_both_test_sets_are_in_the_page_and_in_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    webvision(tmp_path)
    train(tmp_path, "mini_webvision")
    said = capsys.readouterr().out
    assert "8 test images, 8 of ilsvrc, 50 classes" in said
    assert "ilsvrc accuracy, last epoch" in said
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "ilsvrc" in page


# -- lists that lie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "google/../../x.jpg", "google/a\0b.jpg"])
def test_a_list_that_names_files_outside_its_root_is_refused(path: str, tmp_path: Path) -> None:
    folder = webvision(tmp_path)
    rows = folder / "info" / "train_filelist_google.txt"
    rows.write_text(rows.read_text() + f"{path} 3\n")
    with refuses("train_filelist_google.txt: 1 paths lead out of the data set's folder", "in line 19"):
        loaded("mini_webvision", tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("google/a.jpg", "line 19 is 'google/a.jpg', not a path and the number of a class behind it"),
        ("google/a.jpg x", "line 19 is 'google/a.jpg x'"),
        ("google/a.jpg -1", "line 19 is 'google/a.jpg -1'"),
        ("google/a.jpg 60", "line 19 has the class 60, and the data set has classes 0 to 59"),
        ("google/q0000/0.jpg 1", "1 keys are there twice: 'google/q0000/0.jpg' in line 19"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    folder = webvision(tmp_path)
    rows = folder / "info" / "train_filelist_google.txt"
    rows.write_text(rows.read_text() + f"{line}\n")
    with refuses(said):
        loaded("mini_webvision", tmp_path)
    rows.write_text("\n\n")
    with refuses("the list is empty"):
        loaded("mini_webvision", tmp_path)


def test_lines_are_read_whatever_ends_them(tmp_path: Path) -> None:
    lines = ["with blanks in it.jpg 7", "a.jpg  12", "", "b.jpg\t3 "]
    for end in ("\n", "\r\n"):
        found = read_pairs(write_lines(tmp_path / "list.txt", lines, end=end))
        assert list(found.texts) == ["with blanks in it.jpg", "a.jpg", "b.jpg"]
        assert found.labels.tolist() == [7, 12, 3]
        assert found.lines.tolist() == [1, 2, 4]
    (tmp_path / "list.txt").write_text("a 1\nb 2")
    assert read_pairs(tmp_path / "list.txt").labels.tolist() == [1, 2]


# -- texts in little memory ----------------------------------------------------------------------------------------


def test_texts_are_a_sequence_like_a_tuple() -> None:
    random = np.random.default_rng(0)
    plain = tuple("".join(random.choice(list("ab/\u00e9\udc80"), int(random.integers(0, 9)))) for _ in range(300))
    texts = Texts.of(plain)
    assert texts == plain
    assert (len(texts), texts[-1], tuple(texts[5:9])) == (300, plain[-1], plain[5:9])
    assert tuple(texts.behind("x/")) == tuple(f"x/{text}" for text in plain)
    rows = random.permutation(300)[:50]
    assert tuple(picked(texts, rows)) == picked(plain, rows)
    assert b"".join(packed(texts)) == "\0".join(plain).encode("utf-8", "surrogateescape")
    assert Texts.of([]) == ()
    assert Texts.of(["images/a", "images/"]).without("images/") == ("a", "")
    assert Texts.of(["images/a", "b"]).without("images/") == ("images/a", "b")


def test_keys_are_found_and_repeats_named_as_by_a_dictionary() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        words = ["".join(random.choice(list("ab"), int(random.integers(0, 5)))) for _ in range(40)]
        seen: set[str] = set()
        again = [row for row, word in enumerate(words) if word in seen or seen.add(word)]  # type: ignore[func-returns-value]
        assert repeated(Texts.of(words)).tolist() == again
        among = list(dict.fromkeys(words[:20]))
        expected = [among.index(word) if word in among else -1 for word in words]
        assert places(Texts.of(words), Texts.of(among)).tolist() == expected


# -- recipes -------------------------------------------------------------------------------------------------------


def test_a_side_takes_the_place_of_a_preset_that_resizes() -> None:
    config = recipe("ce", "clothing1m")
    assert (config.data.augment, config.data.image_size) == ("clothing1m", None)
    whole = config.replace({"image_size": 32})
    assert (whole.data.augment, whole.data.flip, whole.data.crop_padding) == (None, True, 0)
    said = config.replace({"image_size": 32, "augment": "flip"})
    assert said.data.augment == "flip"
    assert recipe("ce", "animal10n").replace({"image_size": 32}).data.augment == "animal10n", "which does not resize"


@pytest.mark.parametrize("name", FACTS)
def test_presets_are_words_of_the_grammar(name: str) -> None:
    config = recipe("ce", name)
    assert config.data.augment == name
    assert config.data.augmentation().flip
    evaluation = config.data.eval_augmentation()
    assert evaluation is not None
    assert evaluation.output_size((FACTS[name].size, FACTS[name].size))[0] == FACTS[name].size


def test_instance_dependent_noise_is_made_from_files(tmp_path: Path) -> None:
    """As in SWCE's tables: the pipeline with its threshold of 0.25, on labels whose noise depends on the images."""
    MAKERS["chest_xray"](tmp_path)
    words = ("--method", "swce", "--noise", "idn:0.3", "--warm-up", "1", "--stages", "1", "--rate-factors", "1,1")
    summary = train(tmp_path, "chest_xray", *words, "--epochs", "2")
    assert summary["noise"]["spec"].startswith("idn:0.3")
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "selection_threshold = 0.25" in config
    labels = load_noisy(tmp_path / "run" / "labels.npz")
    again = corrupt(
        labels.clean_labels,
        "idn:0.3",
        seed=0,
        num_classes=2,
        inputs=np.stack([read_image(file, (32, 32)) for file in loaded("chest_xray", tmp_path).train.files]),
    )
    assert np.array_equal(labels.labels, again.labels)


def test_published_augmentation_trains_and_both_test_sets_are_cropped(tmp_path: Path) -> None:
    """With the recipe's own resize and crop, on the smallest network."""
    webvision(tmp_path)
    run = tmp_path / "run"
    words = ("--model", "small_cnn", "--width", "0.25", "--batch-size", "6", "--epochs", "1", "--loader", "torch")
    where = ("--data-root", str(tmp_path), "--run-dir", str(run))
    assert main(["train", "--dataset", "mini_webvision", "--method", "elr", *words, *where]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["network"]["image_size"] == [227, 227]
    assert "last" in summary["ilsvrc_accuracy"]


def test_an_image_that_is_missing_is_named_when_its_batch_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clothing1m(tmp_path)
    gone = tmp_path / "clothing1m" / "images" / "1" / "04.jpg"
    gone.unlink()
    words = (
        "--model",
        "small_cnn",
        "--image-size",
        "32",
        "--batch-size",
        "14",
        "--epoch-batches",
        "2",
        "--epochs",
        "1",
    )
    where = ("--data-root", str(tmp_path), "--run-dir", str(tmp_path / "run"), "--loader", "torch")
    assert main(["train", "--dataset", "clothing1m", "--method", "ce", *words, *where]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert str(gone) in said


# -- several labels an image ---------------------------------------------------------------------------------------


def test_mini_coco_is_a_draw_of_coco_or_the_published_part(tmp_path: Path) -> None:
    with refuses("mini_coco: no", "instances_train2017.json", f"unpack them into {tmp_path}/coco"):
        load_dataset("mini_coco", tmp_path)
    notes = tmp_path / "coco" / "annotations"
    notes.mkdir(parents=True)
    for part, count in (("train2017", 9), ("val2017", 4)):
        file, folder, _ = write_coco(tmp_path / "made", part, count)
        file.rename(notes / f"instances_{part}.json")
        folder.rename(tmp_path / "coco" / part)
    data = load_dataset("mini_coco:limit=5,side=16", tmp_path)
    assert (data.task, len(data.train), len(data.test), data.train.shape) == ("multilabel", 5, 4, (3, 16, 16))
    assert data.notes == ("5 images are drawn from those of instances_train2017.json by the seed",)
    whole = json.loads((notes / "instances_train2017.json").read_text())
    some = {image["id"] for image in whole["images"][:3]}
    whole["images"] = whole["images"][:3]
    whole["annotations"] = [each for each in whole["annotations"] if each["image_id"] in some]
    (notes / "instances_minitrain2017.json").write_text(json.dumps(whole))
    published = load_dataset("mini_coco:side=16", tmp_path)
    assert (len(published.train), published.notes) == (3, ())
    words = ["--model", "small_cnn", "--width", "0.25", "--batch-size", "2", "--epochs", "1", "--device", "cpu"]
    where = ["--data-root", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    assert main(["train", "--dataset", "mini_coco:limit=5,side=32", *words, *where]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary[f"test_{summary['score']['name']}"]["last"] <= 1
