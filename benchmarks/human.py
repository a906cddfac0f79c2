"""Heads on frozen features of CIFAR-10N: what methods for noisy labels are worth on real images with human mistakes.

    fastnoise features cifar10n --data-root data --limit-train 10000 --image-size 128 --out F.npy \\
        --model timm:tf_efficientnet_lite0,weights=FILE.safetensors
    python -m benchmarks.human F.npy
    python -m benchmarks.human F.npy --recorded

A linear head on the features of a network that was trained on ImageNet learns from the labels of people: the worst of
three (worse) and their majority (aggre). Every method has the weight decay with the best accuracy on held-out tenths,
whose labels are noisy too, after the last epoch: once of `USUAL` values (usual), and once of all of `DECAYS` (any),
which reach so far that cross-entropy is held back from learning the wrong labels by heart. A row has the test accuracy
of the last and of the best epoch over three seeds, the AUROC with which the probability of the given label tells wrong
labels from right ones, and FNR, the share of the wrong labels that the head predicts itself, so that they aren't found.
benchmarks/lite.py writes the weights from a package of the registry. The recorded rows name the network lite0: these
weights through a file FILE.py:NAME; the command above writes the same rows of features, byte for byte.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.metrics import roc_auc_score

from fastnoise.config import RunConfig
from fastnoise.data.features import FeatureFiles, about_of, read_about
from fastnoise.engine import load, train
from fastnoise.engine.prepare import load_data
from fastnoise.recipes import recipe

from . import record

RESULTS = record.RESULTS / "human.csv"
METHODS = ("ce", "gce", "elr", "nal")
NOISES = ("human:worse", "human:aggre")
USUAL = (0.0, 1e-3)
DECAYS = (*USUAL, 1e-2, 1e-1)
SEEDS = (0, 1, 2)
TRAINING = {"epochs": 40, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "cosine", "batch_size": 512}


def configured(features: Path, method: str, noise: str, decay: float, seed: int) -> RunConfig:
    """The configuration of a head."""
    config = recipe(method, f"features:{features}", noise)
    return config.replace({**TRAINING, "weight_decay": decay, "seed": seed, "device": "cpu"})


def held_out(config: RunConfig) -> float:
    """The accuracy on a noisy tenth of the training set after the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = {"val_fraction": 0.1, "run_dir": f"{folder}/run"}
        summary = train(config.replace(words), console=Console(quiet=True))
        return float(summary["validation_accuracy"]["last"])


def measured(config: RunConfig) -> dict[str, float]:
    """The figures of one run on all training images."""
    with tempfile.TemporaryDirectory() as folder:
        summary = train(config.replace({"run_dir": f"{folder}/run"}), console=Console(quiet=True))
        data = load_data(config)
        assert data.train.images is not None
        assert data.clean is not None
        probs = load(f"{folder}/run").predict(data.train.images, batch_size=512)
    wrong = data.given != data.clean
    accuracy = summary["test_accuracy"]
    return {
        "last": accuracy["last"],
        "best": accuracy["best"],
        "auroc": float(roc_auc_score(wrong, -probs[np.arange(len(wrong)), data.given])),
        "fnr": float((probs.argmax(1) == data.given)[wrong].mean()),
    }


def rows_of(features: Path, method: str, noise: str) -> list[record.Row]:
    """The rows of a method: with the best of the usual weight decays, and with the best of all."""
    about, stamp = about_of(read_about(FeatureFiles(features))), record.stamp()
    found = {decay: held_out(configured(features, method, noise, decay, SEEDS[0])) for decay in DECAYS}
    rows, results = [], dict[float, list[dict[str, float]]]()
    for tuned, choices in (("usual", USUAL), ("any", DECAYS)):
        decay = max(choices, key=lambda choice: found[choice])
        if decay not in results:
            results[decay] = [measured(configured(features, method, noise, decay, seed)) for seed in SEEDS]
        figures = {key: [result[key] for result in results[decay]] for key in results[decay][0]}
        rows.append(
            {
                "noise": noise,
                "method": method,
                "tuned": tuned,
                "weight_decay": f"{decay:g}",
                "validation": " ".join(f"{key:g}:{value:.4f}" for key, value in found.items()),
                **{f"{key}_mean": f"{np.mean(values):.4f}" for key, values in figures.items()},
                "last_sd": f"{np.std(figures['last'], ddof=1):.4f}",
                "last_each": " ".join(f"{value:.4f}" for value in figures["last"]),
                "images": str(about.rows["train"]),
                "network": f"{about.network} at {about.image_size[0]}",
                "weights": about.weights[:16],
                **{name: stamp[name] for name in ("machine", "torch", "commit", "date")},
            }
        )
    return rows


def table(rows: list[record.Row]) -> list[str]:
    """The recorded rows as a Markdown table."""
    lines = ["| labels | weight decay | method | last epoch | best epoch | AUROC | FNR |", "|-|-|-|-|-|-|-|"]
    for row in rows:
        last, spread, best, fnr = (
            f"{100 * float(row[key]):.2f}" for key in ("last_mean", "last_sd", "best_mean", "fnr_mean")
        )
        lines.append(
            f"| {row['noise']} | {row['weight_decay']} ({row['tuned']}) | {row['method']} | {last} ± {spread} | "
            f"{best} | {float(row['auroc_mean']):.3f} | {fnr} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=NOISES)
    parser.add_argument("--recorded", action="store_true", help="print the recorded table and measure nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    options = parser.parse_args()
    for noise in () if options.recorded else options.noises:
        for method in options.methods:
            rows = rows_of(options.features, method, noise)
            record.append(options.output, rows, key=("noise", "method", "tuned", "network"))
            print("\n".join(table(rows)[2:]), flush=True)
    print("\n".join(table(record.read(options.output))))


if __name__ == "__main__":
    main()
