"""Initial weights of convolutions: by fan-out, as fastnoise's ResNets draw them, against PyTorch's default.

    python -m benchmarks.initialisation [--data-root data] [--methods ce elr] [--seeds 0 1 2]

The first 10,000 images of CIFAR-10, ResNet-18 at width 0.25, 40 % symmetric noise, 15 epochs in bfloat16. Everything
else is the methods' recipes for CIFAR-10; their schedules are longer than this course, which ends in the first part of
each. Writes benchmarks/results/initialisation.csv, a row per method, initialisation and seed as soon as it has ended.
"""

import argparse
import tempfile
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from fastnoise.engine import train
from fastnoise.recipes import recipe

from . import record

RESULTS = record.RESULTS / "initialisation.csv"
KEY = ("method", "init", "noise", "seed", "machine", "gpu")
INITS = ("network", "pytorch")
COURSE = {"limit_train": 10_000, "width": 0.25, "epochs": 15, "amp": "bf16"}
NOISE = "symmetric:0.4"


def accuracies(method: str, init: str, seed: int, data_root: str) -> tuple[float, float]:
    """Test accuracy after the last epoch, and the best of all epochs."""
    config = recipe(method, "cifar10", NOISE, model="resnet18")
    changes = {"init": init, "seed": seed, "noise_seed": seed, "data_root": data_root, "download": False}
    with tempfile.TemporaryDirectory() as folder:
        run = config.replace({**COURSE, **changes, "run_dir": f"{folder}/run"})
        found = train(run, console=Console(quiet=True))["test_accuracy"]
    return found["last"], found["best"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--methods", nargs="+", default=["ce", "elr"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for method in arguments.methods:
            for init in INITS:
                last, best = accuracies(method, init, seed, arguments.data_root)
                row = {"method": method, "init": init, "noise": NOISE, "seed": str(seed)}
                figures = {"last": f"{last:.4f}", "best": f"{best:.4f}"}
                record.append(RESULTS, [{**row, **figures, **record.stamp()}], KEY)
                print(f"{method} {init} seed {seed}: {100 * last:.2f}", flush=True)
    print("\n".join(table(record.read(RESULTS))))


def table(rows: Sequence[record.Row]) -> list[str]:
    """The Markdown table of the rows: mean and standard deviation over the seeds."""
    lines = ["| method | weights | seeds | last epoch | best epoch |", "| --- | --- | --- | --- | --- |"]
    groups: dict[tuple[str, str], list[record.Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["init"]), []).append(row)
    for (method, init), members in sorted(groups.items()):
        last, best = ([100 * float(row[name]) for row in members] for name in ("last", "best"))
        spread = f" ± {np.std(last, ddof=1):.2f}" if len(last) > 1 else ""
        lines.append(f"| {method} | {init} | {len(last)} | {np.mean(last):.2f}{spread} | {np.mean(best):.2f} |")
    return lines


if __name__ == "__main__":
    main()
