"""Short courses on real images: what --recipe cpu and fast-r18 reach, and what their networks learn by heart.

    python -m benchmarks.recipes real [--data-root data] [--methods ce elr] [--seeds 0] [--amp bf16] [--runs FOLDER]
    python -m benchmarks.recipes learn [--data-root data] [--seeds 0 1] [--recipes fast-r18] [--runs FOLDER]
    python -m benchmarks.recipes --recorded

real: all 50,000 images of CIFAR-10 and CIFAR-10N with --recipe cpu, under symmetric noise of 40 %, the worst human
labels, and for cross-entropy clean labels too. learn: ResNet-18 at width 0.25 on the first 10,000 images of CIFAR-10
under symmetric noise of 40 %, fast-r18's 50 epochs against 120 epochs of the published recipe.

Writes benchmarks/results/recipes.csv, a row per run as soon as it has ended. Runs that have a row with their settings
are not made again. With --runs a run that was interrupted goes on where it was; otherwise it begins anew. A row has
the minutes of training (none where other work slowed or stopped the run), the test accuracy of the last and of the best
epoch, and the share of the wrongly labelled training images for which the network that comes out predicts the wrong
label (memorised).
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from fastnoise.config import RECIPES, RunConfig
from fastnoise.engine import train
from fastnoise.recipes import recipe

from . import record

RESULTS = record.RESULTS / "recipes.csv"
KEY = ("part", "recipe", "dataset", "noise", "method", "seed", "epochs", "amp")
SETTINGS = (("cifar10", "symmetric:0.4"), ("cifar10n", "human:worse"))
METHODS = {"real": ("ce", "gce", "elr", "nal"), "learn": ("ce", "elr")}
SEEDS = {"real": (0, 1, 2), "learn": (0, 1)}
PUBLISHED_EPOCHS = 120
MEMORISED = "mislabelled_memorised"


class Case(NamedTuple):
    """One run."""

    part: str
    config: RunConfig

    def key(self) -> record.Row:
        """Its columns of KEY."""
        config = self.config
        return {
            "part": self.part,
            "recipe": config.optim.recipe,
            "dataset": config.data.dataset,
            "noise": config.noise.noise,
            "method": config.method.method,
            "seed": str(config.engine.seed),
            "epochs": str(config.optim.epochs),
            "amp": config.engine.amp,
        }


def cases(part: str, methods: Sequence[str], seeds: Sequence[int], epochs: int | None, amp: str) -> Iterator[Case]:
    """The runs of a part, those of the first seed first."""
    for seed in seeds:
        common = {"seed": seed, "noise_seed": seed, "amp": amp, "download": False}
        if part == "learn":
            small = {**common, "limit_train": 10_000, "width": 0.25, "val_fraction": 0.0}
            for method in methods:
                fast = recipe(method, "cifar10", "symmetric:0.4", recipe="fast-r18", limit_train=10_000)
                whole = recipe(method, "cifar10", "symmetric:0.4", model="resnet18")
                yield Case(part, whole.replace({**small, "epochs": PUBLISHED_EPOCHS}))
                yield Case(part, fast.replace({**small, "epochs": epochs or fast.optim.epochs}))
            continue
        found = [(dataset, noise, method) for dataset, noise in SETTINGS for method in methods]
        for dataset, noise, method in [*found, *([("cifar10", "none", "ce")] if "ce" in methods else [])]:
            config = recipe(method, dataset, noise, recipe="cpu")
            yield Case(part, config.replace({**common, "epochs": epochs or config.optim.epochs}))


def measured(case: Case, data_root: str, folder: Path) -> record.Row:
    """The row of a run, which goes on if its folder has a checkpoint."""
    key = case.key()
    run = folder / "-".join(key.values()).replace(":", "_")
    config = case.config.replace({"data_root": data_root, "run_dir": str(run)})
    summary = train(config, resume=(run / "checkpoint.pt").exists(), console=Console(quiet=True))
    accuracy, shares = summary["test_accuracy"], summary["training_samples"]
    return {
        **key,
        "minutes": f"{summary['throughput']['training_seconds'] / 60:.1f}",
        "last": f"{accuracy['last']:.4f}",
        "best": f"{accuracy['best']:.4f}",
        "memorised": f"{shares[MEMORISED]:.4f}" if MEMORISED in shares else "",  # clean labels have none to learn
    }


def table(rows: Sequence[record.Row]) -> list[str]:
    """The Markdown table of the rows: means over the seeds, and the standard deviation of the last epoch."""
    columns = ("part", "recipe", "epochs", "dataset", "noise", "method")
    heads = (*columns, "seeds", "minutes", "last epoch", "best epoch", "memorised")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    groups: dict[tuple[str, ...], list[record.Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in columns), []).append(row)
    for key, members in groups.items():
        last, best = ([float(row[name]) for row in members] for name in ("last", "best"))
        minutes = [float(row["minutes"]) for row in members if row["minutes"]]
        length = f"{np.mean(minutes):.1f}" if minutes else "-"
        spread = f" ± {100 * np.std(last, ddof=1):.2f}" if len(last) > 1 else ""
        wrong = [float(row["memorised"]) for row in members if row["memorised"]]
        shown = f"{100 * np.mean(wrong):.1f}" if wrong else "-"
        lines.append(
            f"| {' | '.join(key)} | {len(members)} | {length} | {100 * np.mean(last):.2f}{spread} | "
            f"{100 * np.mean(best):.2f} | {shown} |"
        )
    return lines


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=[*METHODS])
    parser.add_argument("--recorded", action="store_true", help="print the table of the recorded rows, and end")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, help="of the part's runs only these")
    parser.add_argument("--epochs", type=int, help="of the short courses; by default the recipe's")
    parser.add_argument("--amp", default="auto", choices=["auto", "off", "bf16"])
    parser.add_argument("--runs", type=Path, help="folder of the runs, which then can go on; by default they are lost")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    if given.part is None and not given.recorded:
        parser.error(f"give a part: {' or '.join(METHODS)}; or --recorded")
    if not given.recorded:
        found = cases(
            given.part, given.methods or METHODS[given.part], given.seeds or SEEDS[given.part], given.epochs, given.amp
        )
        for case in found:
            if given.recipes and case.config.optim.recipe not in given.recipes:
                continue
            done = record.read(given.output) if given.output.exists() else []
            if any(case.key().items() <= row.items() for row in done):
                continue
            with tempfile.TemporaryDirectory() as lost:
                row = measured(case, given.data_root, given.runs or Path(lost))
            record.append(given.output, [{**row, **record.stamp()}], KEY)
            print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
    print("\n".join(table(record.read(given.output))))


if __name__ == "__main__":
    main()
