"""The reference: public names say what they take, and the pages that are made of it hold together."""

import importlib.util
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastnoise
from fastnoise import losses
from fastnoise.losses import reference

ROOT = Path(__file__).resolve().parents[1]
SHAPE = re.compile(r"\[[A-Zn0-9][A-Za-z0-9, *+/_.-]*\]|\[\]")
DTYPE = re.compile(r"float|int64|int32|uint8|bool|dtype")
TENSORS = re.compile(r"Tensor|NDArray|ndarray|ArrayLike")
KERNELS = [f"fastnoise.kernels.{path.stem}" for path in sorted((ROOT / "kernels").glob("[a-z]*.py"))]
PUBLIC = [
    "fastnoise",
    *(f"fastnoise.{name}" for name in fastnoise.__all__ if isinstance(getattr(fastnoise, name), ModuleType)),
    "fastnoise.losses.functional",
    "fastnoise.losses.tables",
]


def names_of(module: ModuleType) -> list[str]:
    """What a module says is public, or what it defines without an underscore."""
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def functions() -> Iterator[tuple[str, Any]]:
    """The public functions, and the host's functions that launch kernels."""
    if importlib.util.find_spec("triton"):
        kernels = [(name, key) for name in KERNELS for key in names_of(import_module(name)) if key.startswith("launch")]
    else:
        kernels = []
    ours = [(name, key) for name in PUBLIC for key in names_of(import_module(name))]
    for module, key in [*ours, *kernels]:
        value = getattr(import_module(module), key)
        if inspect.isfunction(value):
            yield f"{module}.{key}", value


FUNCTIONS = dict(functions())
CLASSES = {
    f"{name}.{key}": value
    for name in PUBLIC
    for key in names_of(import_module(name))
    if inspect.isclass(value := getattr(import_module(name), key))
}


def test_everything_public_is_walked() -> None:
    assert {"fastnoise.clean", "fastnoise.losses.fused_linear", "fastnoise.losses.functional.gce"} <= set(FUNCTIONS)
    assert {"fastnoise.losses.ELRLoss", "fastnoise.ops.FusedOp", "fastnoise.ImageDataset"} <= set(CLASSES)
    assert len(FUNCTIONS) > 100
    assert len(CLASSES) > 50


@pytest.mark.parametrize("name", PUBLIC)
def test_modules_have_a_docstring(name: str) -> None:
    assert import_module(name).__doc__


def test_the_reference_says_once_what_all_its_functions_take() -> None:
    text = reference.__doc__ or ""
    assert SHAPE.search(text)
    assert DTYPE.search(text)
    for name in names_of(reference):
        assert inspect.getdoc(getattr(reference, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_shapes_dtypes_and_errors(name: str) -> None:
    """A function of tensors names their shapes and dtypes; one that raises an error names it."""
    function, text = FUNCTIONS[name], inspect.getdoc(FUNCTIONS[name]) or ""
    assert text
    if TENSORS.search(" ".join(map(str, function.__annotations__.values()))):
        assert SHAPE.search(text), "no shape"
        assert DTYPE.search(text), "no dtype"
    for error in set(re.findall(r"raise (\w+Error)", inspect.getsource(function))):
        assert error in text, f"does not say that it raises {error}"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_and_their_methods_have_docstrings(name: str) -> None:
    """Those of `forward` and the like are in the class's."""
    kind = CLASSES[name]
    assert vars(kind).get("__doc__")
    for key, value in vars(kind).items():
        short = {"forward", "extra_repr", "holds", "describe"}
        if inspect.isfunction(value) and not key.startswith("_") and key not in short:
            assert inspect.getdoc(value), key


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name.endswith("Loss")])
def test_losses_say_how_they_are_called_and_where_they_are_from(name: str) -> None:
    text = inspect.getdoc(getattr(losses, name)) or ""
    assert re.search("[Cc]alled (as|with)|Each call|`nt_xent`", text)
    if name not in ("CrossEntropyLoss", "SWCELoss", "TargetLoss", "NTXentLoss"):
        assert re.search(r"\((Sec. [\d.]+, )?[A-Z][^()]* (19|20)\d\d", text), "no paper"


def test_pages_have_no_broken_link(tmp_path: Path) -> None:
    """Nor does a docstring name something of fastnoise that there is not."""
    pytest.importorskip("pdoc", reason="install fastnoise[docs]")
    pytest.importorskip("triton", reason="the pages of the kernels import it")
    spec = importlib.util.spec_from_file_location("api", ROOT / ".ci" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    pages = {path.relative_to(tmp_path).as_posix() for path in api.build(tmp_path)}
    assert {"index.html", "fastnoise.html", "fastnoise/losses.html", "fastnoise/kernels/row.html"} <= pages
    text = (tmp_path / "fastnoise" / "losses.html").read_text(encoding="utf-8")
    assert 'id="ELRLoss"' in text
    assert api.broken_links(tmp_path) == []
    assert api.unknown_names(ROOT) == []
    (tmp_path / "fastnoise" / "errors.html").unlink()
    (tmp_path / "wrong.html").write_text('<a href="fastnoise/losses.html#NoLoss">x</a> <a href="#here">x</a>')
    broken = api.broken_links(tmp_path)
    assert {"wrong.html: fastnoise/losses.html#NoLoss", "wrong.html: #here"} <= set(broken)
    assert any("errors.html" in line for line in broken)
    assert not api.exists("fastnoise.losses.NoLoss")
