"""The package as users get it: imports, wheel, sdist, and what the README promises."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import _manual
import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("triton", "nvidia")


def python(code: str, **options: object) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light_and_needs_neither_triton_nor_dali() -> None:
    code = f"""
import sys
for name in {OPTIONAL}: sys.modules[name] = None
import fastnoise
assert "torch" not in sys.modules, "import fastnoise alone loads torch"
import torch, fastnoise.losses, fastnoise.noise, fastnoise.data, fastnoise.models, fastnoise.engine
loss = fastnoise.losses.ELRLoss(8, 3, strength=3.0, momentum=0.7)
loss(torch.randn(4, 3, requires_grad=True), torch.arange(4) % 3, torch.arange(4)).backward()
"""
    python(code)


def test_training_needs_neither_triton_nor_dali_says_which_loader_it_takes_and_refuses_dali(tmp_path: Path) -> None:
    code = f"""
import sys
for name in {OPTIONAL}: sys.modules[name] = None
from fastnoise.cli import main
assert main(["train", "--epochs", "1", "--loader", "dali", "--run-dir", "run"]) == 2
sys.exit(main(["train", "--epochs", "1", "--limit-train", "100", "--run-dir", "run"]))
"""
    output = python(code, cwd=tmp_path)
    assert "augmented fastest by the C++ core" in output


def test_env_names_versions_devices_simd_and_backends() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastnoise.cli", "env"], capture_output=True, text=True, check=True
    ).stdout
    for pattern in (
        r"torch +\d",
        r"SIMD (generic|avx2|avx512)",
        r"op elr +cpu: c\+\+, cuda: (triton|unavailable)",
        r"step times +\d+ measured, in /",
    ):
        assert re.search(pattern, result), result


def test_help_reads(capsys: pytest.CaptureFixture[str]) -> None:
    from fastnoise.cli import main

    assert main(["--help"]) == 0
    assert "fastnoise COMMAND" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["train", "--method", "elr", "--help"])
    assert not end.value.code
    output = capsys.readouterr().out
    for flag in [
        "--method",
        "--dataset",
        "--data-root",
        "--model",
        "--noise",
        "--noise-seed",
        "--epochs",
        "--limit-train",
        "--seed",
        "--loader",
        "--compile",
        "--run-dir",
        "--resume",
    ]:
        assert flag in output


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from an sdist, as an index would get them."""
    pytest.importorskip("build", reason="needs the package build")
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    environment = dict(os.environ)
    if shutil.which("c++"):  # what is looked at is the package: optimising and debuggers' notes take most of the time
        hasty = tmp_path_factory.mktemp("compiler") / "c++"
        hasty.write_text('#!/bin/sh\nexec c++ "$@" -O0 -g0\n')
        hasty.chmod(0o755)
        environment |= {"CC": str(hasty), "CXX": str(hasty)}
    result = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(source)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return out


def test_wheel_holds_kernels_extension_and_licence(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for expected in (
        "fastnoise/kernels/row.py",
        "fastnoise/kernels/rules/early_learning.py",
        "fastnoise/engine/trainer.py",
        "fastnoise/py.typed",
        "fastnoise/_C.pyi",
    ):
        assert expected in names
    assert any(re.fullmatch(r"fastnoise/_C\..*\.(so|pyd)", name) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "kernels", "csrc"))]


def test_wheel_works_installed(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
import fastnoise, fastnoise.noise
assert fastnoise.__file__.startswith({str(tmp_path / "site")!r})
assert fastnoise.noise.corrupt([0, 1] * 50, "symmetric:0.5", seed=0, num_classes=2).realised_rate > 0
"""
    python(code, cwd=tmp_path)


def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheels", ROOT / ".ci" / "wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_wheels_script_finds_the_pythons_at_hand(tmp_path: Path) -> None:
    script = wheels()
    versions = script.supported()
    assert "3.11" in versions
    here = script.version(sys.executable)
    assert here == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert here in script.pythons([here])
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert script.version(shim) is None
    assert script.version(tmp_path / "none") is None
    with pytest.raises(SystemExit, match=r"is no CPython of 3\.11"):
        script.pythons(["3.11"], [shim])
    with pytest.raises(SystemExit, match="no environment with a CPython"):
        script.packages_of(tmp_path)
    assert not [line for line in script.light_dependencies() if line.startswith(("torch", "triton", "nvidia"))]


@pytest.mark.slow
def test_the_wheels_script_makes_a_wheel_that_trains(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="needs the package build")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = ["--python", sys.executable, "--only", here, "--lend", sys.prefix, "--out", str(tmp_path / "dist")]
    ran = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "wheels.py"), *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(rf"Python {here}: fastnoise-.*\.whl, .*; fastnoise train --epochs 2", ran.stdout)


def test_python_in_the_readme_runs(tmp_path: Path) -> None:
    found = _manual.blocks("python", marked=False)
    assert found
    for block in found:
        python(block, cwd=tmp_path)


def test_commands_in_the_readme_parse() -> None:
    from fastnoise.words import train_config

    commands = re.findall(r"fastnoise train([^\n`#&|]*)", "\n".join(_manual.blocks("bash")))
    assert len(commands) >= 3
    for command in commands:
        words = command.split()
        if "--data-root" not in words and "--resume" not in words:
            train_config(words)


@pytest.mark.parametrize("study", ["digits", "mnist", "mnist_pair"])
def test_tables_in_the_readme_are_the_recorded_ones(study: str) -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.methods import latest, table
    finally:
        sys.path.remove(str(ROOT))
    assert "\n".join(table(latest(study))) in _manual.pages()["results.md"]
