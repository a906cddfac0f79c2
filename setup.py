"""Compiles csrc/ into fastnoise._C, maps kernels/ and benchmarks/ into fastnoise; all else is in pyproject.toml.

Imports nothing but setuptools and pybind11, so that it builds in isolation with no torch at hand.
"""

from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import find_packages, setup

extension = Pybind11Extension(
    "fastnoise._C",
    sources=sorted(glob("csrc/*.cpp") + glob("csrc/core/*.cpp")),
    depends=sorted(glob("csrc/core/**/*.hpp", recursive=True)),
    include_dirs=["csrc"],
    cxx_std=17,
    extra_compile_args=["-O3", "-pthread"],
    extra_link_args=["-pthread"],
)

setup(
    packages=[
        *find_packages(include=["fastnoise", "fastnoise.*"]),
        *("fastnoise.kernels", "fastnoise.kernels.rules", "fastnoise.benchmarks", "fastnoise.benchmarks.gpu"),
    ],
    package_dir={"fastnoise.kernels": "kernels", "fastnoise.benchmarks": "benchmarks"},
    package_data={
        "fastnoise": [
            *("py.typed", "*.pyi", "extend.md", "deviations.md", "docs/*.md", "auto/table.csv"),
            *("sweeps/published/*.toml", "leaderboard/boards/*.toml"),
        ]
    },
    ext_modules=[extension],
    cmdclass={"build_ext": build_ext},
)
