"""What a run stands on: versions, devices, instruction sets and the backend of every op."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checks import processor
from ..losses import backends
from ..noise import simd_level

_PACKAGES = ("torch", "torchvision", "triton", "nvidia-dali-cuda130", "numpy", "scikit-learn")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


_CODE = ("fastnoise", "kernels", "csrc", "benchmarks/*.py")


def _commit() -> str | None:
    """The commit an editable install was made from, so that a recorded figure can be traced; "+changes" follows if the
    code that runs is not the one committed."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    return head and head + ("+changes" if _git(folder, "status", "--porcelain", "--", *_CODE) else "")


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None if it fails."""
    import subprocess

    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def machine(environment: Mapping[str, Any]) -> str:
    """The machine of an environment, in words, as beside recorded figures. Earlier versions noted no processor."""
    processor = environment.get("processor", "unknown processor")
    return f"{processor}, {environment['cpus']} cores, {environment['torch_threads']} threads"


def describe_environment() -> dict[str, Any]:
    """Versions, devices, SIMD level and op backends as a JSON-ready dictionary."""
    gpus = [
        {
            "name": (properties := torch.cuda.get_device_properties(number)).name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
        }
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    return {
        "fastnoise": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "gpus": gpus,
        "processor": processor(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "simd": simd_level(),
        "ops": backends(),
    }
