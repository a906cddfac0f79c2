"""The house keeps its order: files of a readable length, imports that go one way, names that mean one thing.

All of it is read from the sources, without importing them. Where the order is broken at present, the KNOWN tables say
so; an entry that is needed no longer fails, so that the tables only ever get shorter.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import conftest
import pytest

ROOT = Path(__file__).parents[1]
PARTS = {"fastnoise": "fastnoise", "kernels": "fastnoise.kernels", "benchmarks": "fastnoise.benchmarks"}
"""Folder -> the package that it becomes."""

LONGEST = 500
LONG = {"kernels/row.py"}
"""The one row kernel is a file of its own, whatever its length."""

LAYERS = (
    {"kernels"},
    {"ops"},
    {"losses"},
    {"data", "models", "noise", "selection"},
    {"tasks"},
    {"methods"},
    {"recipes"},
    {"engine"},
    {"auto", "cleaning", "helptext", "leaderboard", "report", "studies", "sweeps", "words"},
    {"commands"},
    {"cli"},
    {"benchmarks"},
)
"""From the ground up: a file imports its own layer and those before it."""
GROUND = {
    "_C",
    "checks",
    "config",
    "errors",
    "fields",
    "files",
    "lazy",
    "options",
    "own",
    "schedules",
    "sources",
    "texts",
}
"""Files beside the layers. Every layer but the kernels may import them, and they import none from the engine up."""

ALLOWED = {("commands.bench", "benchmarks")}
"""The command that runs the benchmarks is all that imports them."""

KNOWN_LONG: set[str] = set()
KNOWN_CYCLES: set[tuple[str, str]] = set()
"""(importer, imported): imports without which there would be no cycle."""
KNOWN_UPWARD: set[tuple[str, str]] = set()
"""(importer, imported): imports of a layer above."""
KNOWN_NAMESAKES: set[str] = set()
"""Classes that share their name with another."""


# -- reading -------------------------------------------------------------------------------------------------


@cache
def sources() -> dict[str, Path]:
    """The modules of the package by their names, without the leading `fastnoise`: `engine.step`."""
    found = {}
    for folder, package in PARTS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            words = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "fastnoise" and words[0] in PARTS:
                continue  # a link to a folder beside it, in a development tree
            words = words[:-1] if words[-1] == "__init__" else words
            found[".".join((*package.split("."), *words)[1:])] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def is_package(module: str) -> bool:
    return sources()[module].name == "__init__.py"


@cache
def only_exports(module: str) -> bool:
    """Whether a package's file has nothing of its own but what a lazy export needs."""

    def exports(node: ast.stmt) -> bool:
        if isinstance(node, ast.If):
            return all(map(exports, node.body))
        if isinstance(node, ast.FunctionDef):
            return node.name in ("__getattr__", "__dir__")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return all(name.startswith("_") for name in assigned(node))
        return isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)

    return is_package(module) and all(map(exports, tree(module).body))


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def absolute(module: str, node: ast.ImportFrom) -> str | None:
    """The module that `from ... import` names, without the leading `fastnoise`; None for another package's."""
    name = node.module or ""
    if node.level == 0:
        package, _, rest = name.partition(".")
        return rest if package == "fastnoise" else None
    words = module.split(".") if module else []
    words = words[: len(words) - node.level + is_package(module)]
    return ".".join([*words, *([name] if name else [])])


@cache
def exported(package: str) -> dict[str, tuple[str, str]]:
    """What a package's file imports: name -> (module, its name there)."""
    return {
        alias.asname or alias.name: (origin, alias.name)
        for node in ast.walk(tree(package))
        if isinstance(node, ast.ImportFrom) and (origin := absolute(package, node)) is not None
        for alias in node.names
    }


def home(module: str, name: str) -> str | None:
    """The module in which `name` of `module` is defined; None where a re-exporting file doesn't say."""
    if module not in sources():
        return None
    inner = f"{module}.{name}" if module else name
    if is_package(module) and exported(module).get(name, ("", ""))[0] not in ("", module):
        return home(*exported(module)[name])
    if inner in sources():
        return inner
    return None if only_exports(module) else module


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the package that a module imports anywhere in it, as the files in which the names are defined."""
    found: set[str | None] = set()
    packages: dict[str, str] = {}  # local name -> a re-exporting package, of which single names are taken by dots
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("fastnoise.")}
        elif isinstance(node, ast.ImportFrom) and (origin := absolute(module, node)) in sources():
            assert origin is not None
            for alias in node.names:
                target = home(origin, alias.name)
                if target is not None and target.rpartition(".")[2] == alias.name and only_exports(target):
                    packages[alias.asname or alias.name] = target
                else:
                    found.add(target)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            text = str(node.args[0].value)
            if function == "import_module" and text.startswith("fastnoise."):
                found.add(text.removeprefix("fastnoise."))
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            found.add(home(packages[node.value.id], node.attr))
    return frozenset(name for name in found if name in sources() and name != module)


def edges() -> Iterator[tuple[str, str]]:
    for module in sources():
        if not only_exports(module):
            for target in imports(module):
                yield module, target


def in_cycles(graph: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges of a graph that lie on a cycle."""
    following = defaultdict(set)
    for start, end in graph:
        following[start].add(end)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = following.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reach = {node: reached(node) for node in list(following)}
    return {(start, end) for start, ends in following.items() for end in ends if start in reach.get(end, ())}


# -- the order -----------------------------------------------------------------------------------------------


def test_the_files_of_tests_that_begin_first_are_there() -> None:
    assert [name for name in conftest.LONGEST if not (ROOT / "tests" / f"test_{name}.py").is_file()] == []


def test_no_file_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in sources().values()
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long - LONG == KNOWN_LONG


def test_no_modules_import_each_other() -> None:
    """Nor in a circle, nor inside of functions; files that only export the names of their package are left out."""
    graph = set(edges())
    assert not in_cycles(graph - KNOWN_CYCLES)
    for edge in KNOWN_CYCLES:
        assert edge in in_cycles((graph - KNOWN_CYCLES) | {edge}), f"{edge} is no cycle any more: take it out"


def test_imports_go_down() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    engine = level["engine"]

    def upward(module: str, target: str) -> bool:
        start, end = module.partition(".")[0], target.partition(".")[0]
        if end in GROUND or (module, end) in ALLOWED:
            return start == "kernels"
        return level[end] > (engine - 1 if start in GROUND else level[start])

    for module in sources():
        first = module.partition(".")[0]
        assert first in level or first in GROUND or not module, f"{module} has no place in LAYERS"
    assert {edge for edge in edges() if edge[0] and edge[1] and upward(*edge)} == KNOWN_UPWARD


def test_the_order_is_read_rightly() -> None:
    """A cycle, a lazy import, a name taken through a package's file and one by a dot are seen."""
    assert in_cycles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]) == {("a", "b"), ("b", "c"), ("c", "a")}
    assert home("engine", "train") == "engine.single"
    assert "engine.stacked.stack" in imports("engine.stacked.entry")
    assert "engine.single" in imports("sweeps.job")  # inside of a function
    assert "noise.corrupt" in imports("tasks.classification")  # as noises.corrupt(...)
    assert "kernels.average" in imports("ops.averages")  # by its name as a text


# -- names ---------------------------------------------------------------------------------------------------


def classes() -> dict[str, list[str]]:
    """Public classes of fastnoise, at the top of a file, by name: the modules that define one."""
    found = defaultdict(list)
    for module in sources():
        for node in tree(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not module.startswith("benchmarks"):
                found[node.name].append(module)
    return found


def test_a_class_has_its_name_to_itself() -> None:
    """The options of each method are its own `Options`."""
    shared = {name: modules for name, modules in classes().items() if len(modules) > 1 and name != "Options"}
    assert set(shared) == KNOWN_NAMESAKES, shared


def texts(module: str) -> set[str]:
    """The strings in a module's code, without those that stand for themselves as documentation."""
    documentation = {id(node.value) for node in ast.walk(tree(module)) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    }


def identifiers(module: str) -> set[str]:
    nodes = list(ast.walk(tree(module)))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("module", [name for name in sources() if name.startswith("engine")])
def test_the_engine_names_no_method(module: str) -> None:
    methods = pytest.importorskip("fastnoise.methods").METHODS
    assert not texts(module) & set(methods)
    assert not identifiers(module) & {method.__name__ for method in methods.values()}
    homes = {method.__module__.removeprefix("fastnoise.") for method in methods.values()}
    assert not imports(module) & homes
