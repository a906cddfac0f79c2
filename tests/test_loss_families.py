"""One file per family of losses: what it holds, and what follows from it."""

import inspect
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from fastnoise import losses
from fastnoise.losses import base, families, functional, reference
from fastnoise.ops.registry import OPS, FusedOp

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"base", "contrastive", "families", "forms", "functional", "naming", "own_rule", "reference", "tables"}
NAMES = sorted({path.stem for path in (ROOT / "fastnoise" / "losses").glob("*.py")} - SHARED - {"__init__"})


def family(name: str) -> ModuleType:
    return import_module(f"fastnoise.losses.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_family_lists_its_losses_and_all_are_exported(name: str) -> None:
    """Every module, and every function of logits, with a function of the same name in the reference."""
    members = {
        key: value
        for key, value in vars(family(name)).items()
        if getattr(value, "__module__", "") == family(name).__name__
    }
    classes = {key for key, value in members.items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    functions = {
        key
        for key, value in members.items()
        if inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), "") == "logits"
    }
    assert set(family(name).__all__) == classes | functions
    assert classes
    assert all(issubclass(members[key], base.FusedLoss) for key in classes)
    assert classes <= set(losses.__all__)
    assert functions <= set(functional.__all__)
    assert all(getattr(losses, key) is members[key] for key in classes)
    assert all(getattr(functional, key) is members[key] for key in functions)
    assert {"ce" if key == "cross_entropy" else key for key in functions} <= set(vars(reference))


def test_nothing_else_is_exported_as_a_loss() -> None:
    listed = [key for name in NAMES for key in family(name).__all__]
    assert len(listed) == len(set(listed))
    assert set(functional.__all__) == {key for key in listed if key[0].islower()}
    modules = {key for key in losses.__all__ if inspect.isclass(getattr(losses, key)) and key.endswith("Loss")}
    assert modules == {key for key in listed if key[0].isupper()} | {"NTXentLoss", "TargetLoss"}
    assert {key for key in vars(families) if not key.startswith("_")} == set(listed)


def test_ops_are_those_of_the_families() -> None:
    made = {
        value.name: key for name in NAMES for key, value in vars(family(name)).items() if isinstance(value, FusedOp)
    }
    assert set(made) == set(OPS)
    assert all(key == name.upper() for name, key in made.items())


def test_rules_stand_in_their_families_files() -> None:
    rules = pytest.importorskip("fastnoise.kernels.rules", reason="needs triton")
    for name in NAMES:
        of_family = import_module(f"fastnoise.kernels.rules.{name}")
        for key, value in vars(family(name)).items():
            if isinstance(value, FusedOp):
                assert getattr(of_family, key) is getattr(rules, key)
                assert isinstance(getattr(rules, key), rules.Rule)


def test_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    shutil.copytree(ROOT / "kernels" / "rules", tmp_path / "rules")
    (tmp_path / "rules" / "twice.py").write_text("ELR = 1\n")
    ran = subprocess.run(
        [sys.executable, "-c", "import rules"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    expected = "ImportError: kernels/rules: twice.py and another file define ELR; rename one of them"
    assert ran.stderr.splitlines()[-1] == expected
