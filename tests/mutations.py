"""Plants faults in the code, one at a time, and says which of them the tests find.

    python tests/mutations.py draw FILE [--seed 22] [--count 40]
    python tests/mutations.py run [--faults tests/mutations.toml] [--minutes 10] [--only NAME ...] [--everything]
    python tests/mutations.py table

draw lists faults that a seeded mutator makes, spread over the areas of the code. The list is kept in
tests/mutations.toml with faults made by hand, and was there before any test was looked at. run copies the checkout,
plants a fault, and runs the test files that name what the fault is in, those that name most first, until one fails;
faults that survive are run against everything with --everything. Results go to benchmarks/results/mutations.csv as they
come; a fault that has a row is not run again, so that a run that was interrupted goes on. A fault that cannot be told
from the right code by any test has `equivalent` in the list, with the reason.
"""

import argparse
import ast
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from fastnoise.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import record  # noqa: E402

sys.path.remove(str(ROOT))

LIST = ROOT / "tests" / "mutations.toml"
RESULTS = ROOT / "benchmarks" / "results" / "mutations.csv"

AREAS = {
    "kernels": ("kernels/**/*.py",),
    "csrc": ("csrc/core/**/*.cpp", "csrc/core/**/*.hpp"),
    "engine": ("fastnoise/engine/*.py",),
    "data": ("fastnoise/data/*.py",),
    "noise": ("fastnoise/noise/*.py",),
    "methods": ("fastnoise/methods/*.py", "fastnoise/losses/*.py", "fastnoise/selection/*.py", "fastnoise/ops/*.py"),
}
"""Area -> its files."""

SLACK = 120.0
"""Seconds that a test file may take beside its share of the minutes: a fault that makes a loop endless is found."""


@dataclass(frozen=True)
class Fault:
    """A change of one line."""

    name: str
    path: str
    line: int
    """Where it was when the list was made; the nearest line with this text is taken."""
    before: str
    """The whole line."""
    after: str
    """What stands there instead: "" for nothing."""
    by: str
    """mutator or hand."""
    why: str = ""
    """What it does, of those by hand."""
    equivalent: str = ""
    """Why no test can find it."""

    def planted(self, source: str) -> str:
        """The source with the fault; LookupError if the line is not there."""
        lines = source.split("\n")
        places = [number for number, line in enumerate(lines) if line == self.before]
        if not places:
            raise LookupError(f"{self.name}: {self.path} has no line {self.before.strip()!r} any more")
        place = min(places, key=lambda number: abs(number + 1 - self.line))
        return "\n".join([*lines[:place], *([self.after] if self.after else []), *lines[place + 1 :]])


# -- the mutator ---------------------------------------------------------------------------------------------------

_COMPARED = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}  # fmt: skip
_COMPUTED = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
_CPP = (
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " / "), (r" && ", " || "), (r" \|\| ", " && "), (r" \+= ", " -= "),
    (r"\b1\b", "2"), (r"\b0\b", "1"),
)  # fmt: skip


class _Spots(ast.NodeVisitor):
    """Collects changes of single lines: (line, first column, last column, text), columns in bytes."""

    def __init__(self, source: str):
        self.lines = source.split("\n")
        self.found: list[tuple[int, int, int, str]] = []

    def _between(self, left: ast.expr, right: ast.expr, signs: tuple[str, str]) -> None:
        if left.end_lineno != right.lineno or left.end_col_offset is None:
            return
        start = left.end_col_offset
        gap = self.lines[right.lineno - 1].encode()[start : right.col_offset].decode()
        if gap.strip(" ()") == signs[0]:
            self.found.append((right.lineno, start, right.col_offset, gap.replace(*signs)))

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, sign, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._between(left, right, _COMPARED[type(sign)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _COMPUTED:
            self._between(node.left, node.right, _COMPUTED[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        signs = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, signs)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.lineno == node.end_lineno and isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            self.found.append((node.lineno, node.col_offset, node.end_col_offset or 0, repr(value)))

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        if test.lineno == test.end_lineno and not isinstance(test, ast.NamedExpr):
            text = self.lines[test.lineno - 1].encode()[test.col_offset : test.end_col_offset].decode()
            self.found.append((test.lineno, test.col_offset, test.end_col_offset or 0, f"not ({text})"))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):  # a docstring
            return
        self._dropped(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._dropped(node)
        self.generic_visit(node)

    def _dropped(self, node: ast.stmt) -> None:
        if node.lineno == node.end_lineno:
            self.found.append((node.lineno, node.col_offset, node.end_col_offset or 0, "pass"))

    def visit_Raise(self, node: ast.Raise) -> None:
        """What an error says is not changed."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nor other texts."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)


def python_faults(source: str) -> list[tuple[int, str]]:
    """Line number and new text of each change of one line that the mutator can make in Python."""
    spots = _Spots(source)
    spots.visit(ast.parse(source))
    made = []
    for number, first, last, text in spots.found:
        line = spots.lines[number - 1].encode()
        made.append((number, (line[:first] + text.encode() + line[last:]).decode()))
    return [(number, line) for number, line in made if line != spots.lines[number - 1]]


def cpp_faults(source: str) -> list[tuple[int, str]]:
    """The same in C++: by signs, outside of comments, texts, includes, templates and headers of functions."""
    made = []
    for number, line in enumerate(source.split("\n"), 1):
        code = line.split("//")[0]
        if not code.rstrip().endswith((";", "{")) or any(sign in code for sign in ('"', "#", "template", "operator")):
            continue
        for pattern, text in _CPP:
            made += [
                (number, code[: spot.start()] + text + code[spot.end() :] + line[len(code) :])
                for spot in re.finditer(pattern, code)
            ]
    return made


def draw(root: Path, count: int, seed: int) -> list[Fault]:
    """So many faults, spread evenly over the areas, at most one of a file while others are left."""
    generator = random.Random(seed)
    faults: list[Fault] = []
    shares = [len(range(number, count, len(AREAS))) for number in range(len(AREAS))]
    for (area, patterns), share in zip(AREAS.items(), shares, strict=True):
        files = sorted({file for pattern in patterns for file in root.glob(pattern) if file.name != "__init__.py"})
        generator.shuffle(files)
        made: list[Fault] = []
        while files and len(made) < share:
            file = files.pop(0)
            source = file.read_text(encoding="utf-8")
            found = python_faults(source) if file.suffix == ".py" else cpp_faults(source)
            if found:
                line, after = generator.choice(found)
                before = source.split("\n")[line - 1]
                path = str(file.relative_to(root))
                made.append(Fault(f"{area}-{len(made) + 1}", path, line, before, after, "mutator"))
        faults += made
    return faults


# -- the list ------------------------------------------------------------------------------------------------------


def read_list(path: Path) -> list[Fault]:
    """The faults of a list."""
    return [Fault(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]]


def as_toml(faults: Sequence[Fault]) -> str:
    """A list as `read_list` reads it."""

    def value(of: object) -> str:
        if isinstance(of, int):
            return str(of)
        text = str(of)
        return f"'{text}'" if "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    parts = []
    for fault in faults:
        entries = [(field.name, getattr(fault, field.name)) for field in fields(fault)]
        shown = [f"{name} = {value(of)}" for name, of in entries if of != "" or name == "after"]
        parts.append("\n".join(["[[fault]]", *shown]))
    return "\n\n".join(parts) + "\n"


# -- which tests look at it ----------------------------------------------------------------------------------------


def _names(root: Path, fault: Fault) -> dict[str, float]:
    """What a test would call that has to do with the fault, and what one mention weighs."""
    path = root / fault.path
    module = fault.path.removesuffix(".py").replace("/", ".")
    names = {path.stem.removesuffix("_body"): 1.0, module: 5.0}
    if path.suffix != ".py":
        return {**names, "_C": 2.0, "cpp": 2.0}
    if fault.path.startswith("kernels/"):
        names |= {"_interpret": 8.0, "kernels": 2.0, path.parent.name: 8.0}
    source = path.read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = node.lineno <= fault.line <= (node.end_lineno or 0)
            names[node.name.lstrip("_")] = 8.0 if inside else 2.0
    return names


def _said(root: Path, fault: Fault) -> str:
    """The texts of the function or class that a fault in Python is in."""
    if not fault.path.endswith(".py"):
        return ""
    for node in ast.parse((root / fault.path).read_text(encoding="utf-8")).body:
        if node.lineno <= fault.line <= (node.end_lineno or 0):
            texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def _importers(root: Path, fault: Fault) -> dict[str, float]:
    """The modules that import the fault's, and what one mention weighs."""
    use = re.compile(rf"^\s*from \S*\b{re.escape(Path(fault.path).stem)} import ", re.MULTILINE)
    return {file.stem: 0.5 for file in (root / "fastnoise").rglob("*.py") if use.search(file.read_text("utf-8"))}


def covering(root: Path, fault: Fault) -> list[Path]:
    """The test files that look at a fault, those that say so most often first.

    They name its module, what is defined there or a module that imports it, or hold a part of a message of the function
    that the fault is in.
    """
    weights = {**_importers(root, fault), **_names(root, fault)}
    said = _said(root, fault)
    texts: dict[Path, str] = {}
    for file in sorted((root / "tests").glob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        helpers = [root / "tests" / f"{name}.py" for name in sorted({*re.findall(r"\b_[a-z_]+", text)})]
        texts[file] = text + "".join(helper.read_text(encoding="utf-8") for helper in helpers if helper.exists())
    scores = {
        file: 2.0 * (Path(fault.path).stem in file.stem)
        + 8.0 * sum(part in said for part in set(re.findall(r"\"([^\"\n]{12,})\"", text)))
        for file, text in texts.items()
    }
    for name, weight in weights.items():
        counts = {file: len(re.findall(rf"\b{re.escape(name)}\b", text)) for file, text in texts.items()}
        holders = sum(map(bool, counts.values()))
        for file, count in counts.items():  # what every file names tells nothing
            scores[file] += weight * min(5, count) / max(1, holders)
    best = sorted(texts, key=lambda file: (-scores[file], file.name))
    return [file for file in best if scores[file]]


# -- running -------------------------------------------------------------------------------------------------------


class Copy:
    """A copy of the checkout's last commit in which faults are planted. The extension is built in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / ".git").exists():
            _call(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)])
        _call(["git", "-C", str(folder), "checkout", "--quiet", "--force", "."])
        self.commit = _call(["git", "-C", str(folder), "rev-parse", "HEAD"]).strip()
        for name in ("kernels", "benchmarks"):
            link = folder / "fastnoise" / name
            if not link.exists():
                link.symlink_to(f"../{name}")
        if not list((folder / "fastnoise").glob("_C*.so")):
            self.build()

    @property
    def core(self) -> Path:
        """The compiled C++ core."""
        return next((self.folder / "fastnoise").glob("_C*.so"))

    def build(self) -> bool:
        """Compile the C++ core; False if it does not compile."""
        words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        return subprocess.run(words, cwd=self.folder, capture_output=True, check=False).returncode == 0

    def test(self, names: Sequence[str], seconds: float) -> str:
        """The first test that fails, "" if none does. `names`: of test files or tests, as pytest takes them."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and what its tests have started
            process.communicate()
            return f"{names[0]} takes longer than {seconds:.0f} s"
        if process.returncode in (0, 5):
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        return failed.group(1) if failed else f"{names[0]} ended with {process.returncode}"

    def restore(self, path: str) -> None:
        """Take a fault away."""
        _call(["git", "-C", str(self.folder), "checkout", "--quiet", "--", path])


def _call(words: Sequence[str]) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def planted(copy: Copy, fault: Fault) -> Iterator[bool]:
    """The copy with a fault; gives whether it compiles."""
    file = copy.folder / fault.path
    file.write_text(fault.planted(file.read_text(encoding="utf-8")), encoding="utf-8")
    compiled = file.suffix != ".py"
    right = copy.core.read_bytes() if compiled else b""
    try:
        yield not compiled or copy.build()
    finally:
        copy.restore(fault.path)
        if compiled:
            write_atomically(copy.core, lambda stream: stream.write(right))


def look(copy: Copy, fault: Fault, minutes: float, *, everything: bool) -> dict[str, str]:
    """Plant a fault, run tests until one fails, and take it away again: the row.

    A test that fails on the right code too has found nothing, and the next file is run.
    """
    began, found, stage = time.perf_counter(), "", "everything" if everything else "covering"
    files = [f"tests/{file.name}" for file in covering(copy.folder, fault)]
    if everything:
        others = sorted(f"tests/{file.name}" for file in (copy.folder / "tests").glob("test_*.py"))
        files += [name for name in others if name not in files]
    limit = 4 * 3600.0 if everything else 60 * minutes
    while files and not found and time.perf_counter() - began < limit:
        with planted(copy, fault) as compiles:
            while files and not found and time.perf_counter() - began < limit:
                found = copy.test([files.pop(0)], limit + SLACK) if compiles else "it does not compile"
        if "::" in found and copy.test([found], limit + SLACK):
            print(f"{fault.name}: {found} fails without the fault too", flush=True)
            found = ""
    return {
        "name": fault.name,
        "path": fault.path,
        "line": str(fault.line),
        "by": fault.by,
        "found": "yes" if found else "no",
        "test": found,
        "stage": stage,
        "seconds": f"{time.perf_counter() - began:.0f}",
        "commit": copy.commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def rows(path: Path) -> dict[str, dict[str, str]]:
    """The recorded rows by name."""
    return {row["name"]: row for row in record.read(path)} if path.exists() else {}


def table(faults: Sequence[Fault], known: dict[str, dict[str, str]]) -> Iterator[str]:
    """The lines of the table."""
    yield "| fault | file | by | found by |"
    yield "| --- | --- | --- | --- |"
    for fault in faults:
        row = known.get(fault.name)
        if fault.equivalent:
            found = f"none can: {fault.equivalent}"
        elif row is None:
            found = "not run"
        else:
            found = row["test"].replace("tests/", "") or f"**missed** ({row['stage']})"
        yield f"| {fault.name} | {fault.path}:{fault.line} | {fault.by} | {found} |"
    counted = [known[fault.name]["found"] for fault in faults if fault.name in known and not fault.equivalent]
    yield ""
    yield f"{len(faults)} faults, {counted.count('yes')} found, {counted.count('no')} missed"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    drawing = parts.add_parser("draw")
    drawing.add_argument("file", type=Path)
    drawing.add_argument("--seed", type=int, default=22)
    drawing.add_argument("--count", type=int, default=40)
    running = parts.add_parser("run")
    running.add_argument("--faults", type=Path, default=LIST)
    running.add_argument("--only", nargs="+")
    running.add_argument("--minutes", type=float, default=10.0, help="after which no further test file is begun")
    running.add_argument("--everything", action="store_true", help="run all tests for the faults that were missed")
    running.add_argument("--folder", type=Path, default=ROOT / "build" / "mutations", help="of the copy")
    running.add_argument("--output", type=Path, default=RESULTS)
    parts.add_parser("table")
    given = parser.parse_args(words)
    if given.part == "draw":
        given.file.write_text(as_toml(draw(ROOT, given.count, given.seed)), encoding="utf-8")
        return
    if given.part == "run":
        copy = Copy(given.folder.resolve())  # its tests run elsewhere, and start processes by this path
        for fault in read_list(given.faults):
            row = rows(given.output).get(fault.name)
            missed = row is not None and row["found"] == "no" and row["stage"] != "everything"
            due = missed if given.everything else row is None
            if fault.equivalent or not due or (given.only and fault.name not in given.only):
                continue
            row = look(copy, fault, given.minutes, everything=given.everything)
            record.append(given.output, [row], key=("name",))
            print(f"{fault.name}: {row['test'] or 'missed'} ({row['seconds']} s)", flush=True)
    print("\n".join(table(read_list(LIST), rows(RESULTS))))


if __name__ == "__main__":
    main()
