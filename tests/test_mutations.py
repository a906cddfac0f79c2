"""The script that plants faults: what its mutator makes, and that a fault stands where the list says."""

from pathlib import Path

import mutations
import pytest

ROOT = Path(__file__).resolve().parents[1]

SOURCE = '''"""A module that says 1 + 1."""

def share(part: int, whole: int = 3) -> float:
    if part > whole:
        raise ValueError(f"{part} > {whole + 1}")
    total = 0.0
    total += part / whole
    return total
'''


def test_python_faults_change_code_and_no_text() -> None:
    made = mutations.python_faults(SOURCE)
    assert set(made) == {
        (3, "def share(part: int, whole: int = 4) -> float:"),
        (4, "    if part >= whole:"),
        (4, "    if not (part > whole):"),
        (6, "    total = 1.0"),
        (7, "    pass"),
        (7, "    total += part * whole"),
    }
    for number, line in made:
        lines = SOURCE.split("\n")
        lines[number - 1] = line
        compile("\n".join(lines), "module.py", "exec")


def test_cpp_faults_change_code_and_no_comment() -> None:
    assert mutations.cpp_faults("int f(int a) {\n    return a < 2;  // a < 2\n}\n#define N 1\n") == [
        (2, "    return a <= 2;  // a < 2")
    ]


def test_a_drawn_list_is_the_same_again_and_spread(tmp_path: Path) -> None:
    drawn = mutations.draw(ROOT, 12, seed=5)
    assert drawn == mutations.draw(ROOT, 12, seed=5)
    assert [fault.name.rpartition("-")[0] for fault in drawn] == [area for area in mutations.AREAS for _ in range(2)]
    file = tmp_path / "list.toml"
    file.write_text(mutations.as_toml(drawn), encoding="utf-8")
    assert mutations.read_list(file) == drawn
    for fault in drawn:
        source = (ROOT / fault.path).read_text(encoding="utf-8")
        planted = fault.planted(source)
        assert [new for new, old in zip(planted.split("\n"), source.split("\n"), strict=True) if new != old] == [
            fault.after
        ]


def test_a_fault_moves_with_its_line() -> None:
    fault = mutations.Fault("a", "a.py", 2, "x = 1", "x = 2", "hand")
    assert fault.planted("x = 1\ny\n\n\nx = 1\n") == "x = 2\ny\n\n\nx = 1\n"
    assert fault.planted("\n\n\ny\nx = 1\n") == "\n\n\ny\nx = 2\n"
    with pytest.raises(LookupError, match="no line 'x = 1'"):
        fault.planted("y = 1\n")


def test_tests_of_the_faulty_module_come_first() -> None:
    fault = next(fault for fault in mutations.read_list(mutations.LIST) if fault.path == "fastnoise/data/balance.py")
    assert mutations.covering(ROOT, fault)[0].name == "test_balance.py"


def test_the_table_counts_what_was_found() -> None:
    faults = [mutations.Fault(name, "a.py", 1, "x", "y", "hand") for name in ("a", "b", "c")]
    known = {"a": {"found": "yes", "test": "tests/test_a.py::test", "stage": "covering"},
             "b": {"found": "no", "test": "", "stage": "everything"}}  # fmt: skip
    lines = list(mutations.table(faults, known))
    assert lines[2:] == [
        "| a | a.py:1 | hand | test_a.py::test |",
        "| b | a.py:1 | hand | **missed** (everything) |",
        "| c | a.py:1 | hand | not run |",
        "",
        "3 faults, 1 found, 1 missed",
    ]
