"""Labels from files of every kind: matched to samples by name, by position or by row, with names of classes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _train_cases import refusal
from PIL import Image

from fastnoise.cli import main
from fastnoise.data import ImageDataset, ImageTable
from fastnoise.errors import DataError
from fastnoise.noise import NoisyLabels, corrupt
from fastnoise.noise.files import read_label_file, read_labels
from fastnoise.noise.samples import aligned, classes_in, columns_in, known_classes, match, with_clean
from fastnoise.noise.targets import NoisyTargets

CLASSES = ("cat", "dog", "01")
NAMES = ("train/cat/a.png", "train/cat/b.jpg", "train/dog/a.png", "train/köter/c.png", "train/dog/d.png")
LABELS = [0, 0, 1, 2, 1]
QUICK = ("--dataset", "digits", "--limit-train", "100", "--epochs", "1", "--width", "0.25", "--loader", "torch")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dataset(named: bool = True) -> ImageDataset:
    images = np.zeros((5, 4, 4, 1), np.uint8)
    train = ImageTable(np.array(LABELS), images=images, names=NAMES if named else ())
    test = ImageTable(np.array([0]), images=images[:1], names=("test/cat/t.png",) if named else ())
    return ImageDataset("five", train, test, CLASSES, (0.5,), (0.5,), given_labels=True)


def labels_of(source: str, named: bool = True, count: int = 5) -> tuple[list[int], str]:
    """The classes that a file gives the first samples, and how they were matched."""
    file = read_label_file(source, CLASSES)
    found = match(file, dataset(named), count)
    return classes_in(file, CLASSES)[found.rows].tolist(), found.how


def sheet(name: str, header: str, rows: list[str]) -> str:
    Path(name).write_text("\n".join([header, *rows]))
    return name


ORDERS = {
    "whole names": (NAMES, "by name"),
    "ends of paths": (tuple(name.removeprefix("train/") for name in NAMES), "by the ends of paths"),
    "longer paths": (tuple(f"/data/x/{name}" for name in NAMES), "by the ends of paths"),
    "no suffixes": (tuple(name.rpartition(".")[0] for name in NAMES), "by the ends of paths"),
    "another Unicode form": (tuple(name.replace("ö", "o\u0308") for name in NAMES), "by name"),
    "another system's paths": (tuple(name.replace("/", "\\") for name in NAMES), "by name"),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_samples_are_found_by_their_names(kind: str) -> None:
    names, how = ORDERS[kind]
    rows = [f"{name},{CLASSES[label]}" for name, label in zip(names, LABELS, strict=True)]
    random.Random(1).shuffle(rows)
    assert labels_of(sheet("l.csv", "filename,label", [*rows, "test/cat/t.png,dog"])) == (LABELS, how)
    assert labels_of(sheet("l.tsv", "image\tlabel", [row.replace(",", "\t") for row in rows])) == (LABELS, how)


def test_a_column_of_any_name_may_name_the_samples() -> None:
    """As pandas writes it, with or without the number of each row."""
    order = [3, 0, 4, 2, 1]
    rows = [f"{NAMES[place]},{place % 2},{CLASSES[LABELS[place]]}" for place in order]
    how = "by name, of column Datei"
    assert labels_of(sheet("l.csv", "Datei,fold,label", rows)) == (LABELS, how)
    numbered = [f"{number},{row}" for number, row in enumerate(rows)]
    assert labels_of(sheet("l.csv", ",Datei,fold,label", numbered)) == (LABELS, how)
    with pytest.raises(DataError, match="1 of 5 names are of no image of this data set"):
        labels_of(sheet("l.csv", "Datei,fold,label", [*rows[1:], "other.png,0,cat"]))
    by_row = [f"note {number},{label}" for number, label in enumerate(LABELS)]
    assert labels_of(sheet("l.csv", "remark,label", by_row)) == (LABELS, "by row")


def test_positions_come_after_names_and_rows_last() -> None:
    order = [3, 0, 4, 2, 1]
    rows = [f"{place},{LABELS[place]}" for place in order]
    assert labels_of(sheet("l.csv", "index,label", rows)) == (LABELS, "by position")
    assert labels_of(sheet("l.csv", ",label", rows)) == (LABELS, "by position")  # as pandas writes it
    both = [f"{number},{NAMES[place]},{LABELS[place]}" for number, place in enumerate(order)]
    assert labels_of(sheet("l.csv", "index,name,label", both)) == (LABELS, "by name")
    assert labels_of(sheet("l.csv", "index,name,label", both), named=False)[1] == "by position"
    assert labels_of(sheet("l.csv", "label", list(map(str, LABELS)))) == (LABELS, "by row")
    unnamed = labels_of(sheet("l.csv", "name,label", [f"{n},{n % 3}" for n in range(5)]), named=False)
    assert unnamed == ([0, 1, 2, 0, 1], "by row; the images of this data set have no names")
    assert labels_of(sheet("l.csv", "label", ["1", "2"]), count=2) == ([1, 2], "by row")


def test_arrays_json_and_pt() -> None:
    words = [CLASSES[label] for label in LABELS]
    hot = np.eye(3)[LABELS]
    unknown = hot.copy()
    unknown[1] = -1
    np.save("hot.npy", hot.astype(np.uint8))
    np.save("unknown.npy", unknown)
    np.save("words.npy", np.array(words))
    np.savez("named.npz", labels=LABELS[::-1], names=np.array(NAMES[::-1]))
    torch.save(torch.tensor(LABELS), "tensor.pt")
    torch.save({"label": np.array(LABELS), "other": np.zeros(5)}, "arrays.pt")
    torch.save({"aggre": torch.tensor(LABELS), "worst": torch.zeros(5)}, "two.pt")
    contents = {
        "list": words,
        "numbers": LABELS,
        "rows": [{"label": label, "file": name} for name, label in zip(NAMES, words, strict=True)][::-1],
        "columns": {"index": [4, 3, 2, 1, 0], "label": words[::-1]},
        "by_name": dict(zip(NAMES[::-1], words[::-1], strict=True)),
        "hot": hot.tolist(),
    }
    for name, content in contents.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    files = [
        "hot.npy",
        "words.npy",
        "named.npz",
        "tensor.pt",
        "arrays.pt",
        "two.pt:aggre",
        *(f"{n}.json" for n in contents),
    ]
    for source in files:
        assert labels_of(source)[0] == LABELS, source
    assert labels_of("unknown.npy")[0] == [0, -1, 1, 2, 1]
    assert [labels_of(f"{name}.json")[1] for name in contents] == [
        "by row", "by row", "by name", "by position", "by name", "by row",
    ]  # fmt: skip


def test_one_column_for_each_class() -> None:
    rows = [
        f"{name},{int(label == 2)},{int(label == 0)},{int(label == 1)}"
        for name, label in zip(NAMES, LABELS, strict=True)
    ]
    assert labels_of(sheet("l.csv", "image,01,cat,dog", rows[::-1])) == (LABELS, "by name")
    with pytest.raises(DataError, match=r"line 2 is \[1.0, 0.0, 1.0\]: a row needs a one in one column"):
        labels_of(sheet("l.csv", "image,01,cat,dog", [f"{NAMES[0]},1,1,0", *rows[1:]]))


def test_a_number_may_be_the_name_of_a_class() -> None:
    assert labels_of(sheet("l.csv", "label", ["01", "cat", "dog", "01", "-1"]))[0] == [2, 0, 1, 2, -1]
    assert labels_of(sheet("l.csv", "label", ["01", "01", "01", "01", "01"]))[0] == [2] * 5
    assert labels_of(sheet("l.csv", "label", ["1", "1", "0", "2", "1"]))[0] == [1, 1, 0, 2, 1]
    file = read_label_file(sheet("l.csv", "label", ["3", "1", "2"]))
    assert classes_in(file, ("1", "2", "3")).tolist() == [2, 0, 1]  # by name, as in folders 1, 2 and 3
    file = read_label_file(sheet("l.csv", "label", ["0", "1", "2"]))
    assert classes_in(file, ("1", "2", "3")).tolist() == [0, 1, 2]


def test_whole_numbers_may_be_written_as_floats() -> None:
    """As pandas writes a column of integers with gaps."""
    file = read_label_file(sheet("l.csv", "label,clean_label", ["0.0,2.0", "2.0,", "-1.0,1.0", "1,-1"]))
    for names, labels, true in (
        (CLASSES, [0, 2, -1, 1], [2, -1, 1, -1]),
        (("0", "1", "10", "2"), [0, 3, -1, 1], [3, -1, 1, -1]),
    ):
        assert classes_in(file, names).tolist() == labels
        assert classes_in(with_clean(file), names).tolist() == true
    assert known_classes(file)[1] is None
    assert known_classes(file)[0].tolist() == [0, 2, -1, 1]
    assert read_labels(sheet("l.csv", "label", ["0.0", "2.0"])).tolist() == [0, 2]
    file = read_label_file(sheet("l.csv", "label", ["1.0", "2.0"]))
    assert classes_in(file, ("1.0", "2.0")).tolist() == [0, 1]  # the names of these classes
    file = read_label_file(sheet("l.csv", "label,clean_label", ["0,2.0", "2,"]))
    assert classes_in(with_clean(file), CLASSES).tolist() == [2, -1]
    assert known_classes(with_clean(file))[0].tolist() == [2, -1]
    for wrong, message in (("1.5", "line 3 holds '1.5' instead of an integer"), ("3.0", "line 3 holds 3, outside")):
        with pytest.raises(DataError, match=message):
            classes_in(read_label_file(sheet("l.csv", "label", ["0.0", wrong])), CLASSES)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,label", ["x.png,0", *(f"{name},0" for name in NAMES)],
         "1 of 6 names are of no image of this data set, or of "
         "several: line 2 has 'x.png'; its names are as 'train/cat/a.png'"),
        ("name,label", [f"{letter}.gif,0" for letter in "mnopqr"],
         "line 2 has 'm.gif', line 3 has 'n.gif', line 4 has 'o.gif' and 3 more"),
        ("name,label", [f"{name},0" for name in NAMES[:2]], "no label for 3 of 5 training images: 'train/dog/a.png', "),
        ("name,label", [f"{name},0" for name in (*NAMES, "/x/train/cat/a.png")], "line 2 and line 7 are of one sample"),
        ("name,label", [f"{name},0" for name in (*NAMES, NAMES[0])], "'train/cat/a.png' is in line 2 too"),
        ("name,label", [*map(",".join, zip(NAMES, ["cat", "dgo", "bird", "dog", "x"], strict=True))],
         "line 3 holds 'dgo', line 4 holds 'bird', line 6 holds 'x', which is no class; the 3 classes are 'cat', "),
        ("index,label", [f"{place},0" for place in range(1, 6)],
         "line 6 has position 5, and the training set has positions 0 to 4"),
        ("index,label", ["0,1", "1,1", "1,2", "2,0", "3,0"], "line 3 and line 4 are of one sample"),
        ("index,label", ["0,1", "1,1"], "no label for 3 of 5 training images: 'train/dog/a.png'"),
        ("index,label", ["x,1"], "line 2: column 'index' holds 'x' instead of the position"),
        ("label", ["0", "1"], "2 labels for a training set of 5 images, by row; give a column of names"),
        ("label", ["0", "7", "-2", "3", "4"],
         "line 3 holds 7, outside [0, 3); line 4 holds -2; line 5 holds 3; 4 in all"),
        ("label", ["-1"] * 5, "all of its labels are -1"),
        ("name,label", ["a,1", "b,"], "line 3: column 'label' is empty"),
        ("name;label", ["a;1", "b,2"], "line 3 has 1 field and the first line 2"),
    ],
)  # fmt: skip
def test_misfits_are_named(header: str, rows: list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        labels_of(sheet("l.csv", header, rows))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("header", "rows"), [("index,label", ["0,0", "1,0", "0,1"]), ("name,label", ["a.png,0", "b.png,0", "./a.png,1"])]
)
def test_a_sample_that_is_twice_in_one_of_two_files_is_refused(header: str, rows: list[str]) -> None:
    """As pandas joins tables without ignore_index; the first row would be forgotten."""
    once, twice = sheet("a.csv", header, rows[:2]), sheet("b.csv", header, rows)
    for names in ((once, twice), (twice, once), (twice, twice)):
        with pytest.raises(DataError, match=r"^b\.csv: line 2 and line 4 are of one sample; drop one$"):
            aligned(*map(read_label_file, names))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "not a file of labels"),
        ('{"a.png": 1, "a.png": 2}', "'a.png' is given twice"),
        ('[{"file": "a", "label": 1}, {"file": "b"}]', "object 2 has other keys than the first"),
        ('{"label": [1, 2], "file": ["a"]}', "its lists must have one length"),
        ('{"label": [1, null]}', "label 2 is None, neither a number nor a text"),
        ("3", "need a list of labels"),
        ("[]", "its lists must have one length"),
    ],
)
def test_bad_json_is_refused(content: str, message: str) -> None:
    Path("l.json").write_text(content)
    with pytest.raises(DataError, match=r"l\.json") as error:
        labels_of("l.json")
    assert message in str(error.value)


def test_a_pt_file_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    torch.save({"label": Payload()}, "l.pt")
    with pytest.raises(DataError, match="names"):
        labels_of("l.pt")
    assert not (tmp_path / "ran").exists()


def test_names_in_own_files_survive(tmp_path: Path) -> None:
    names = ("käse.png", "b\udcff.png", 'c,"\n.png')  # the second is not UTF-8 on the disk
    noisy = NoisyLabels(
        np.array([0, 1, 0]),
        None,
        "given",
        None,
        2,
        None,
        class_names=("no", "yes"),
        names=names,
        index=np.array([4, 0, 2]),
    )
    noisy.save("l.npz")
    read = NoisyLabels.load("l.npz")
    assert (read.names, read.class_names, read.positions.tolist()) == (names, ("no", "yes"), [4, 0, 2])
    content = dict(np.load("l.npz"))
    np.savez("changed.npz", **(content | {"index": np.array([4, 0, 1])}))
    with pytest.raises(DataError, match="altered or damaged"):
        NoisyLabels.load("changed.npz")


def own_file(name: str, labels: list[int], class_names: tuple[str, ...] | None, clean: list[int] | None = None) -> str:
    noisy = NoisyLabels(np.array(labels), None if clean is None else np.array(clean), "given", None, 2, None)
    replace(noisy, class_names=class_names, names=NAMES[: len(labels)]).save(name)
    return name


def test_numbers_in_own_files_are_of_the_classes_that_they_name() -> None:
    """The data set may have got another class since, or has its classes in another order."""
    file = read_label_file(own_file("l.npz", [0, 0, 1, 1], ("cat", "dog"), [0, 1, 1, -1]))
    assert classes_in(file, ("ant", "cat", "dog")).tolist() == [1, 1, 2, 2]
    assert classes_in(file, ("dog", "cat")).tolist() == [1, 1, 0, 0]
    assert classes_in(file, ("cat", "dog")).tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="position 2 holds 'dog', position 3 holds 'dog', which is no class"):
        classes_in(file, ("ant", "cat"))
    part = read_label_file("l.npz:clean_labels")
    assert part.names == NAMES[:4]
    assert classes_in(part, ("ant", "cat", "dog")).tolist() == [1, 2, 2, -1]
    for names in (None, ("0", "1")):
        file = read_label_file(own_file("l.npz", [0, 0, 1, 1], names))
        assert classes_in(file, ("ant", "cat")).tolist() == [0, 0, 1, 1]
        with pytest.raises(DataError, match="its 2 classes have no names"):
            classes_in(file, CLASSES)
    with pytest.raises(DataError, match=r"name one of its arrays, as l\.npz:ARRAY: .*valid: labels"):
        read_label_file("l.npz:clean_labels")


def test_columns_in_own_files_are_found_by_their_names() -> None:
    tags = np.array([[1, 0], [0, 1]], np.uint8)
    NoisyTargets(tags, tags, "given", None, 2, None, class_names=("cat", "dog")).save("l.npz")
    for source in ("l.npz", "l.npz:clean_labels"):
        assert columns_in(read_label_file(source), ("dog", "cat")).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="it has a column 'cat'; those here are ant, dog"):
        columns_in(read_label_file("l.npz"), ("ant", "dog"))


def test_inspect_compares_own_files_by_the_names_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    words = [own_file("a.npz", [0, 0, 1, 1], ("cat", "dog")), own_file("b.npz", [1, 1, 0, 1], ("dog", "cat"))]
    assert main(["inspect", *words]) == 0
    assert "rate: 25.00 % (1 of 4 labels differ)" in capsys.readouterr().out


# -- through the commands ------------------------------------------------------------------------------------------


TRAIN = ["train", "--dataset", "folder:d", "--epochs", "1", "--width", "0.25", "--loader", "torch"]


def folders(root: str, count: int) -> None:
    for number, name in enumerate(("cat", "dog owl")):
        Path(root, name).mkdir(parents=True)
        for image in range(count):
            Image.new("RGB", (8, 8), (100 * number, 10 * image, 0)).save(f"{root}/{name}/{image}.png")


def test_training_matches_by_name_and_leaves_out_the_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    folders("d/train", 8)
    folders("d/test", 2)
    rows = [f"{name}/{image}.png;{name}" for name in ("cat", "dog owl") for image in range(8)]
    rows[3] = "cat/3.png;-1"
    sheet("l.csv", "file;label", rows[::-1])
    train = [*TRAIN, "--method", "elr", "--batch-size", "4"]
    assert main([*train, "--labels", "l.csv", "--val-fraction", "0.2", "--run-dir", "a"]) == 0
    said = capsys.readouterr().out
    assert (
        "labels of l.csv: matched by the ends of paths; 1 of 16 training images have no known label and are left"
        in said
    )
    stored = NoisyLabels.load("a/labels.npz")
    assert 3 not in stored.positions
    assert stored.labels.tolist() == [0] * 7 + [1] * 8
    assert [name.split("/")[-2] for name in stored.names] == ["cat"] * 7 + ["dog owl"] * 8
    lines = Path("a/corrected.csv").read_text().splitlines()
    assert lines[0].startswith("position,name,given,corrected")
    assert all(line.split(",")[2] == line.split(",")[1].split("/")[-2] for line in lines[1:])
    assert main([*train, "--labels", "a/corrected.csv", "--run-dir", "b"]) == 0
    assert "of 16 training images have no known label" in capsys.readouterr().out
    assert main(["inspect", "a/corrected.csv:given", "a/corrected.csv", "--dataset", "folder:d"]) == 0
    assert "dog owl" in capsys.readouterr().out


def test_commands_read_each_others_files(capsys: pytest.CaptureFixture[str]) -> None:
    """After --limit-train and --val-fraction too."""
    assert main(["corrupt", "--dataset", "digits", "--noise", "symmetric:0.2", "--out", "a.csv", "a.npz"]) == 0
    header, *rows = Path("a.csv").read_text().splitlines()
    Path("sorted.csv").write_text("\n".join([header, *sorted(rows, key=lambda row: row.split(",")[1])]))
    rates = set()
    for source in ("a.csv", "sorted.csv", "a.npz"):
        words = ["--labels", source, "--method", "elr", "--val-fraction", "0.1", "--run-dir", f"run-{source}"]
        assert main(["train", *QUICK, *words]) == 0
        rates.add(json.loads(Path(f"run-{source}/summary.json").read_text())["noise"]["realised_rate"])
    assert len(rates) == 1
    run = Path("run-a.csv")
    capsys.readouterr()
    for words in (
        ["sorted.csv", "--dataset", "digits"],
        ["sorted.csv"],
        ["a.npz", str(run / "labels.npz")],
        ["a.csv", str(run / "corrected.csv:given")],
        [str(run / "labels.npz"), "--dataset", "digits"],
        [str(run / "corrected.csv"), "--dataset", "digits"],
        [str(run / "corrected.npz"), "--dataset", "digits"],
        [str(run / "corrected.csv:given")],
    ):
        assert main(["inspect", *words]) == 0, words
        said = capsys.readouterr().out
        assert "compared by position" in said or words == ["sorted.csv"] or len(words) == 1
    assert f"rate: {100 * _rate(run):.2f} %" in said
    for source in ("corrected.csv", "corrected.csv:given", "labels.npz"):
        assert main(["corrupt", "--labels", str(run / source), "--noise", "pair:0.3", "--out", "b.csv"]) == 0
        assert main(["inspect", "b.csv", "--dataset", "digits"]) == 0
        assert main(["train", *QUICK, "--labels", str(run / source), "--run-dir", f"again-{source}"]) == 0


def _rate(run: Path) -> float:
    lines = [line.split(",") for line in (run / "corrected.csv").read_text().splitlines()]
    given, true = lines[0].index("given"), lines[0].index("true")
    return float(np.mean([line[given] != line[true] for line in lines[1:]]))


def test_labels_of_all_images_of_a_folder_without_test_images(capsys: pytest.CaptureFixture[str]) -> None:
    folders("d", 10)
    np.save("l.npy", np.repeat([0, 1], 10))
    train = [*TRAIN, "--method", "ce"]
    assert main([*train, "--labels", "l.npy", "--run-dir", "a"]) == 0
    assert (
        "by row of the 20 images in the order of their names, of which 16 are the training set"
        in capsys.readouterr().out
    )
    assert NoisyLabels.load("a/labels.npz").labels.tolist() == [0] * 8 + [1] * 8
    np.save("l.npy", np.repeat([0, 1], 9))
    assert "18 labels for a training set of 16 images" in refusal(capsys, *train[1:], "--labels", "l.npy")


def test_true_labels_of_another_set_are_refused_by_position_too(capsys: pytest.CaptureFixture[str]) -> None:
    noisy = corrupt(np.arange(1438) % 10, "symmetric:0.2", seed=0, num_classes=10)
    noisy.save("other.npz")
    assert "made from other true labels than the data set's" in refusal(capsys, *QUICK, "--labels", "other.npz")
