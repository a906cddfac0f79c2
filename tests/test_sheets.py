"""Files of columns: encodings, separators, and one line for whatever is wrong with one."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastnoise.data import load_dataset
from fastnoise.data.sheets import Sheet, read_sheet
from fastnoise.errors import DataError

TEXT = "file,label\nkäse/1.png,cat\n狐.png,dog\n"
ROWS = (("käse/1.png", "cat"), ("狐.png", "dog"))


def sheet_of(tmp_path: Path, content: bytes | str, **options: object) -> Sheet:
    path = tmp_path / "sheet.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sheet(path, source="FILE", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends(tmp_path: Path, encoding: str, separator: str, ending: str) -> None:
    text = TEXT.replace(",", separator).replace("\n", ending)
    sheet = sheet_of(tmp_path, text.encode(encoding))
    assert (sheet.names, sheet.rows, sheet.lines) == (("file", "label"), ROWS, (2, 3))


def test_utf16_of_either_order_is_read(tmp_path: Path) -> None:
    for bom, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert sheet_of(tmp_path, bom + TEXT.encode(encoding)).rows == ROWS


def test_quotes_blank_lines_and_the_lines_of_rows(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 'file,"a, b"\n\n"x;1,""2"".png","two\nlines"\n,,\n\ny.png,3')
    assert sheet.names == ("file", "a, b")
    assert sheet.rows == (('x;1,"2".png', "two\nlines"), ("y.png", "3"))
    assert sheet.lines == (3, 7)
    assert sheet.column("a, b") == sheet.column(1) == ["two\nlines", "3"]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, "Path , label,LABEL\na,1,2\n")
    assert sheet.find("file", "path") == "Path"
    assert sheet.find("label") == "label"
    assert sheet.find("Label") is None  # which of the two is not said
    with pytest.raises(DataError, match="FILE: no column 'file' or 'name'; valid: LABEL, Path, label"):
        sheet.require("file", "name")


def test_a_first_line_of_values(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, "3\n1\n", headless=lambda fields: fields[0].isdigit())
    assert (sheet.names, sheet.rows, sheet.lines) == ((), (("3",), ("1",)), (1, 2))
    assert sheet_of(tmp_path, "label\n1\n", headless=lambda fields: fields[0].isdigit()).names == ("label",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FILE: empty"),
        (b"\n \n", "FILE: empty"),
        (b"file,label\n", "FILE: it has a line of column names and no other"),
        ("file,label\na,1\nkäse,2\n".encode("latin-1"), "FILE: line 3 is not UTF-8 (bytes e4 73 65 2c)"),
        (b"\xff\xfe" + "file\na\n".encode("utf-16-le")[:-1], "FILE: line 2 is not UTF-16 (bytes 0a)"),
        (TEXT.encode("utf-32"), "FILE: line 1 begins as UTF-32; save the file as UTF-8"),
        ("file,label\na,1\n".encode("utf-16-le"), "FILE: line 1 has a NUL byte"),
        (b"file,label\na,1\nb,\x002\n", "FILE: line 3 has a NUL byte"),
        (b"file,label\na,1\nb\n", "FILE: line 3 has 1 field and the first line 2, separated by a comma: 'b'"),
        (b"file;label\na;1;x\n", "FILE: line 2 has 3 fields and the first line 2, separated by a semicolon: 'a;1;x'"),
        (b"file,label\na;1\n", "line 2 has 1 field and the first line 2, separated by a comma: 'a;1'"),
        (b"a,b;c\n1,2;3\n", "line 1 is split by a comma and a semicolon alike"),
        (b"file,label,label\na,1,2\n", "line 1: two columns are called 'label'; rename one"),
        (b"file,,label\na,1,2\n", "line 1: column 2 has no name"),
        (b'file,label\n\n"a",1\n"b,2\n', "FILE: line 4 can't be split into fields (unexpected end of data): '\"b,2'"),
        (b'file,label\n"a"x,1\n', "FILE: line 2 can't be split"),
        (b"file,label\n" + b"a" * 200_000 + b",1\n", "FILE: line 2 can't be split into fields (field larger"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        sheet_of(tmp_path, content)
    assert str(error.value).startswith("FILE: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_empty_and_repeated_fields_are_named_by_line(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, "file,label\na,1\nb, \n\na,2\n")
    with pytest.raises(DataError, match="FILE: line 3: column 'label' is empty"):
        sheet.column("label")
    assert sheet.column("label", empty=True) == ["1", " ", "2"]
    with pytest.raises(DataError, match="FILE: line 5: column 'file': 'a' is in line 2 too"):
        sheet.column("file", different=True)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "pipe": "not a regular file",
        "none": "No such file",
        "": "not a regular",
        "a\0b": "null",
    }.items():
        with pytest.raises(DataError, match=message):
            read_sheet(tmp_path / name)


def test_a_set_of_values_reads_any_sheet(tmp_path: Path) -> None:
    for number in range(10):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    lines = ["width;file", *(f"{number}.5;{number}.png" for number in range(10))]
    path = tmp_path / "values.csv"
    path.write_text("\n".join(lines), encoding="utf-16")
    dataset = load_dataset(f"values:train={path}", None)
    assert dataset.class_names == ("width",)
    assert set(dataset.train.names + dataset.test.names) == {f"{number}.png" for number in range(10)}
    values = dict(zip(dataset.train.names, dataset.train.labels[:, 0], strict=True))
    assert values == {name: float(name[0]) + 0.5 for name in dataset.train.names}
    for line, message in {
        "nan;1.png": "line 3: column 'width' holds 'nan' instead of a finite number",
        "wide;1.png": "line 3: column 'width' holds 'wide'",
        "2;0.png": "line 3: column 'file': '0.png' is in line 2 too",
        "2;11.png": "line 3: there is no file",
        "2": "line 3 has 1 field",
    }.items():
        path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
        with pytest.raises(DataError) as error:
            load_dataset(f"values:train={path}", None)
        assert message in str(error.value)
    assert np.isfinite(dataset.test.labels).all()
