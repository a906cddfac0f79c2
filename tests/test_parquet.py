"""Data sets of Hugging Face's form: Parquet files with encoded images."""

import io
import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastnoise.cli import main
from fastnoise.data import load_dataset, parquet
from fastnoise.data.names import located
from fastnoise.errors import ConfigError, DataError

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
import pyarrow.parquet as pq  # noqa: E402

NAMES = ("owl", "cat", "dog")


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 60, (12, 12, 3), dtype=np.uint8)
    pixels[:, 4 * (number % 3) : 4 * (number % 3) + 4] = 230
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, numbers: range, *, names: bool = True, **columns: list[Any]) -> None:
    """A file as `datasets` writes it: images are structs of bytes and path, and metadata name the classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "image": [{"bytes": encoded(number), "path": f"{number}.png"} for number in numbers],
        "label": [number % 3 for number in numbers],
    }
    table = pa.table({**table, **columns})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "set" / "data" / "train-00000-of-00002.parquet", range(20))
    write(tmp_path / "set" / "data" / "train-00001-of-00002.parquet", range(20, 33))
    write(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", range(40, 49))
    return tmp_path / "set"


def test_rows_have_their_bytes_in_any_order(folder: Path) -> None:
    for _ in range(2):  # the second time from what was kept
        dataset = load_dataset(f"hf:{folder}", None)
        assert dataset.class_names == NAMES
        assert (len(dataset.train), len(dataset.test)) == (33, 9)
        assert dataset.train.names[21] == "data/train-00001-of-00002.parquet/1"
        assert dataset.train.labels.tolist() == [number % 3 for number in range(33)]
        taken = dataset.train.take(np.array([30, 2]))
        assert [taken.read_bytes(0), taken.read_bytes(1)] == [encoded(30), encoded(2)]
        assert dataset.test.read_bytes(8) == encoded(48)
    kept = sorted(path.suffix for path in folder.glob(".fastnoise-rows-*"))
    assert kept == [".bin", ".bin", ".npz", ".npz"]


def test_a_file_that_has_changed_is_read_anew(folder: Path) -> None:
    load_dataset(f"hf:{folder}", None)
    write(folder / "data" / "test-00000-of-00001.parquet", range(50, 56))
    dataset = load_dataset(f"hf:{folder}", None)
    assert [dataset.test.read_bytes(place) for place in range(6)] == [encoded(number) for number in range(50, 56)]


def test_classes_without_names_are_their_numbers_or_texts(tmp_path: Path) -> None:
    clean = [1, -1, None] * 4
    labels = [f"class {number % 2}" for number in range(12)]
    write(tmp_path / "a.parquet", range(12), names=False, label=labels)
    assert load_dataset(f"hf:{tmp_path}", None).class_names == ("class 0", "class 1")
    write(tmp_path / "a.parquet", range(12), names=False, clean_label=clean)
    dataset = load_dataset(f"hf:{tmp_path}", None)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.clean_labels is not None
    row = [int(name.rpartition("/")[2]) for name in dataset.train.names]
    assert dataset.clean_labels.tolist() == [1 if number % 3 == 0 else -1 for number in row]


@pytest.mark.parametrize(
    ("values", "classes"),
    [([Decimal(0), Decimal(1)], ("0", "1")), ([b"cat", b"d\xc3\xb6g"], ("cat", "dög")),
     ([date(2026, 1, 1), date(2026, 1, 2)], ("2026-01-01", "2026-01-02"))],
)  # fmt: skip
def test_classes_as_databases_write_them(values: list[Any], classes: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", range(12), names=False, label=values * 6)
    assert load_dataset(f"hf:{tmp_path}", None).class_names == classes


@pytest.mark.parametrize("names", [True, False])
def test_classes_in_columns_of_floats_are_integers(tmp_path: Path, names: bool) -> None:
    clean = [float(number % 3) if number % 2 else None for number in range(12)]
    write(tmp_path / "train.parquet", range(12), names=names, clean_label=clean)
    write(tmp_path / "test.parquet", range(12, 18), names=names, label=[0.0, 1.0, 2.0] * 2, clean_label=[None] * 6)
    dataset = load_dataset(f"hf:{tmp_path}", None)
    assert dataset.class_names == (NAMES if names else ("0", "1", "2"))
    assert dataset.clean_labels is not None
    assert dataset.clean_labels.tolist() == [number % 3 if number % 2 else -1 for number in range(12)]
    assert dataset.test.labels.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", [[0, 3]] * 12, r"row 0 has the class \[0, 3\] in column 'label'; give an integer or a name"),
        ("label", [0.5] * 12, "row 0 has the class 0.5 in column 'label'"),
        ("clean_label", [None, [1]] * 6, r"row 1 has the class \[1\] in column 'clean_label'"),
        ("clean_label", [-100] * 12, "train.parquet/0: the true label '-100' is below -1"),
    ],
)
def test_what_is_no_class_is_refused_in_one_line(tmp_path: Path, column: str, values: list[Any], said: str) -> None:
    write(tmp_path / "train.parquet", range(12), names=False, **{column: values})
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"hf:{tmp_path}", None)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("owls-train.parquet", "owls-test.parquet"),
        ("a/0.parquet", "test/a/0.parquet"),
        ("data/train.0.parquet", "TEST_0.parquet"),
        ("train/0.parquet", "train/b_test/0.parquet"),
    ],
)
def test_the_part_of_a_file_is_said_by_its_name_or_by_a_folder_above_it(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path / train, range(12))
    write(tmp_path / test, range(20, 26))
    dataset = load_dataset(f"hf:{tmp_path}", None)
    assert {name.rpartition("/")[0] for name in dataset.train.names} == {train}
    assert {name.rpartition("/")[0] for name in dataset.test.names} == {test}


def test_two_processes_that_unpack_at_once_do_not_disturb_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, other = parquet._rows, folder / "other"

    def beside(*arguments: Any) -> Any:
        for place, row in enumerate(rows(*arguments)):
            if place == 5 and not other.exists():  # another process begins, and ends
                other.touch()
                with monkeypatch.context() as context:
                    context.setattr(os, "getpid", lambda: 1)
                    load_dataset(f"hf:{folder}", None)
            yield row

    monkeypatch.setattr(parquet, "_rows", beside)
    for _ in range(2):
        dataset = load_dataset(f"hf:{folder}", None)
        assert [dataset.train.read_bytes(place) for place in range(33)] == [encoded(number) for number in range(33)]
    assert other.exists()
    assert not list(folder.glob("*.partial"))


def test_bytes_that_were_cut_off_are_unpacked_anew(folder: Path) -> None:
    load_dataset(f"hf:{folder}", None)
    for path in folder.glob(".fastnoise-rows-*.bin"):
        path.write_bytes(path.read_bytes()[:-9])
    assert load_dataset(f"hf:{folder}", None).train.read_bytes(32) == encoded(32)


def test_training_on_parquet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    words = ["--model", "small_cnn", "--method", "ce", "--epochs", "1", "--batch-size", "8", "--run-dir", "run"]
    assert main(["train", "--dataset", "hf:set", *words]) == 0
    assert located("hf:set") == f"hf:{folder}"
    assert located("hf:owner/set") == "hf:owner/set"
    assert main(["evaluate", "run", f"hf:{folder}", "--out", "figures.json"]) == 0
    assert json.loads(Path("figures.json").read_text())["images"] == 9


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(said: str, name: str = f"hf:{tmp_path / 'set'}") -> None:
        with pytest.raises((DataError, ConfigError), match=said) as caught:
            load_dataset(name, None, download=False)
        assert "\n" not in str(caught.value)

    (tmp_path / "set").mkdir()
    refused("holds no Parquet files of a training set")
    file = tmp_path / "set" / "a.parquet"
    file.write_bytes(b"PAR1 no more")
    refused("a.parquet is cut off or no Parquet file")
    pq.write_table(pa.table({"label": [1, 2]}), file)
    refused("has no column image; it has label")
    pq.write_table(pa.table({"image": [b"x"]}), file)
    refused("has no column label; it has image")
    write(file, range(9), image=[None] * 9)
    refused("row 0 has no encoded image in column 'image'")
    assert not list((tmp_path / "set").glob("*.partial"))
    write(file, range(9), label=[7] * 9)
    refused("a.parquet/0 is '7', which is unknown or no class")
    write(file, range(9))
    second = tmp_path / "set" / "b.parquet"
    second.write_bytes(file.read_bytes()[:-50])
    refused("b.parquet is cut off or no Parquet file")
    content = bytearray(file.read_bytes())
    content[4:40] = bytes(36)
    second.write_bytes(content)
    refused("b.parquet is damaged")
    pq.write_table(pa.table({"image": [b"x"]}), second)
    refused("b.parquet has no column 'label', and a.parquet has one")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("no folder owner/none here, and the hub does not give it", "hf:owner/none")
    refused(r"/none/at/all is not a folder", "hf:/none/at/all")
