"""Builds the sdist and a wheel for every Python at hand, installs each in a fresh environment and runs it there.

    python .ci/wheels.py                            # full installs: 6 GB of disk each, one after the other
    python .ci/wheels.py --lend .venv --lend other  # dependencies from environments that have them
    python .ci/wheels.py --light                    # without PyTorch: the commands and the C++ core only

Pythons are the supported versions among this one, `python3.N` on PATH, those that pyenv or uv know, and those installed
beside this one; `--python FILE` adds one. `--lend DIR` is an environment with the dependencies: if it is of the same
version as a Python at hand, that Python's fresh environment reads its packages in place of installing them, so that the
dependencies that the wheel declares are then not tried. The first command of the README, with two epochs, runs in an
empty folder. A line per Python says what was done. Exit code 1 if one fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"
HEAVY = ("torch", "torchvision", "triton", "nvidia-dali-cuda130")
"""Dependencies that a light install leaves out."""
CHECK = """
import pathlib, sys, fastnoise
from fastnoise import _C
home = pathlib.Path(fastnoise.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), home
assert _C.LOSS_RULES, "the C++ core has no losses"
"""


def run(words: Sequence[str | Path], **options: object) -> str:
    """A command's output; SystemExit with its last lines if it fails."""
    result = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")},
        **options,  # type: ignore[call-overload]
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-15:])
        raise SystemExit(f"{' '.join(map(str, words))} ended with {result.returncode}:\n{tail}")
    return str(result.stdout)


def version(python: str | Path) -> str | None:
    """`3.12` of an interpreter; None if it does not run, as a shim without a version, or is of no CPython."""
    code = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, _, number = ran.stdout.strip().partition(" ")
    return number if ran.returncode == 0 and name == "cpython" else None


def supported() -> list[str]:
    """The versions of Python that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [found[1] for line in project["classifiers"] if (found := re.search(r":: Python :: (3\.\d+)$", line))]


def candidates(versions: Sequence[str]) -> Iterator[Path]:
    """Where a Python may be. Not all of these exist or run."""
    yield Path(sys.executable)
    for number in versions:
        if found := shutil.which(f"python{number}"):
            yield Path(found)
        for words in (["uv", "python", "find", "--system", number], ["pyenv", "prefix", number]):
            if shutil.which(words[0]):
                ran = subprocess.run(words, capture_output=True, text=True, check=False)
                if ran.returncode == 0:
                    found_at = Path(ran.stdout.strip())
                    yield found_at / BIN / "python3" if found_at.is_dir() else found_at
    beside = Path(sys.base_prefix).resolve().parent
    yield from sorted(path / BIN / "python3" for path in beside.iterdir() if (path / BIN / "python3").exists())


def pythons(versions: Sequence[str], more: Sequence[Path] = ()) -> dict[str, Path]:
    """Version -> an interpreter of it; those that were named come first."""
    found: dict[str, Path] = {}
    for path in (*more, *candidates(versions)):
        number = version(path)
        if path in more and number not in versions:
            raise SystemExit(f"{path} is no CPython of {', '.join(versions)}")
        if number in versions:
            found.setdefault(str(number), path)
    return {number: found[number] for number in versions if number in found}


def packages_of(environment: Path) -> tuple[str, Path]:
    """The version of an environment, and the folder of its packages."""
    python = environment / BIN / "python"
    number = version(python)
    if number is None:
        raise SystemExit(f"--lend {environment}: no environment with a CPython in it")
    return number, Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())


def light_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line for line in project["dependencies"] if re.split(r"[><=; ]", line)[0] not in HEAVY]


def build(python: Path, sdist: Path, folder: Path) -> Path:
    """The wheel that an interpreter makes of the sdist, in an isolated build."""
    before = set(folder.glob("*.whl"))
    run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist])
    (made,) = set(folder.glob("*.whl")) - before
    return made


def try_out(python: Path, wheel: Path, lent: Path | None, light: bool, command: Sequence[str]) -> str:
    """Install a wheel in a fresh environment, run the command there, and say how the dependencies came."""
    with tempfile.TemporaryDirectory() as name:
        place, work = Path(name, "environment"), Path(name, "work")
        work.mkdir()
        run([python, "-m", "venv", place])
        own = place / BIN / "python"
        if light:
            run([own, "-m", "pip", "install", "-q", *light_dependencies()])
            how, command = "without PyTorch", ["methods"]
        elif lent is not None:
            packages = Path(run([own, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
            (packages / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
            how = f"dependencies of {lent}"
        else:
            how = "all dependencies installed"
        alone = ["--no-deps"] if light or lent is not None else []
        run([own, "-m", "pip", "install", "-q", "--force-reinstall", *alone, wheel])
        run([own, "-c", CHECK], cwd=work)
        start = time.monotonic()
        lines = run([place / BIN / "fastnoise", *command], cwd=work).splitlines()
        return f"{how}; fastnoise {' '.join(command)}: {len(lines)} lines in {time.monotonic() - start:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--python", type=Path, action="append", default=[], metavar="FILE", help="an interpreter")
    parser.add_argument("--only", action="append", metavar="3.N", help="only this version; may be repeated")
    parser.add_argument("--lend", type=Path, action="append", default=[], metavar="DIR", help="an environment")
    parser.add_argument("--light", action="store_true", help="install no PyTorch; nothing is trained")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "dist", help="where the files go")
    words = parser.parse_args()
    found = pythons(words.only or supported(), words.python)
    lent = dict(packages_of(place) for place in words.lend)
    shutil.rmtree(words.out, ignore_errors=True)
    words.out.mkdir(parents=True)
    run([sys.executable, "-m", "build", "-q", "--sdist", "--outdir", words.out, ROOT])
    (sdist,) = words.out.glob("*.tar.gz")
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB", flush=True)
    failed = [number for number in words.only or supported() if number not in found]
    for number in failed:
        print(f"Python {number}: not at hand", flush=True)
    if words.only is None:
        failed = []  # the Pythons at hand are asked for
    for number, python in found.items():
        try:
            wheel = build(python, sdist, words.out)
            told = try_out(python, wheel, lent.get(number), words.light, ["train", "--epochs", "2", "--run-dir", "run"])
            print(f"Python {number}: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB; {told}", flush=True)
        except SystemExit as error:
            failed.append(number)
            print(f"Python {number}: FAILED: {error}", flush=True)
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
