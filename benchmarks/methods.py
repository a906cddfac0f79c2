"""Accuracy of the methods on equal terms: the claim that robust methods beat cross-entropy on wrong labels.

    python -m benchmarks.methods digits mnist mnist_pair --data-root data
    python -m benchmarks.methods mnist --methods elr nal --data-root data
    python -m benchmarks.methods mnist --recorded

Each cell is the last-epoch test accuracy of `fastnoise train` over three seeds (training and noise seed alike), by the
recipe of the method. A method's row is appended to results/methods.csv once its three runs have ended, with machine,
versions, commit and date.
"""

import argparse
import shlex
import tempfile

import numpy as np
from rich.console import Console

from fastnoise import methods
from fastnoise.engine import train
from fastnoise.words import train_config

from . import record

RESULTS = record.RESULTS / "methods.csv"

_OTHERWISE = ("simclr", "plain", "posteriors")
"""simclr trains an encoder and classifies nothing. On labels of one class the others learn as ce does."""
METHODS = tuple(
    name
    for name, method in methods.METHODS.items()
    if name not in _OTHERWISE and "classification" in (method.tasks or ("classification",))
)
SEEDS = (0, 1, 2)

STUDIES = {
    "digits": "--dataset digits --noise symmetric:0.4",
    "mnist": "--dataset mnist --limit-train 10000 --noise symmetric:0.6",
    "mnist_pair": "--dataset mnist --limit-train 10000 --noise pair:0.45",
}
"""A small convolutional network on digits, LeNet-5 on 10,000 images of MNIST, by the methods' recipes and `EQUAL`."""

_LENET5 = "--model lenet5 --optimizer sgd --batch-size 64 --learning-rate 0.05 --weight-decay 0 --epochs 20"
EQUAL = {
    "apl": f"{_LENET5} --schedule cosine --beta 0.1 --clip-norm None",
    "coteaching": f"{_LENET5} --schedule cosine --variant paper --forget-epochs 5 --normalisation dataset "
    "--no-drop-last --dropout 0",
    "dual_t": f"{_LENET5} --schedule cosine --warm-up 5 --epochs 25 --val-fraction 0",
    "sce": f"{_LENET5} --schedule cosine --alpha 0.1 --beta 0.1 --normalisation dataset",
    "volminnet": f"{_LENET5} --schedule cosine --val-fraction 0",
}
"""On MNIST these have published recipes, for other networks or for courses of up to 300 epochs. Here they train as the
other methods do, dual_t for 20 epochs after the 5 that its T is estimated from."""


def run(words: str, seed: int, data_root: str | None) -> dict[str, float]:
    """Train once in a temporary run folder; returns the figures of the table."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*shlex.split(words), "--seed", str(seed), "--noise-seed", str(seed), "--run-dir", f"{folder}/run"]
        if data_root is not None:
            arguments += ["--data-root", data_root]
        config, _ = train_config(arguments)
        summary = train(config, console=Console(quiet=True))
    figures = {
        "last": summary["test_accuracy"]["last"],
        "best": summary["test_accuracy"]["best"],
        "memorised": summary["training_samples"]["mislabelled_memorised"],
        "images_per_second": summary["throughput"]["images_per_second"],
    }
    if "attention" in summary:
        figures["auroc"] = summary["attention"]["attention_auroc"]
    return figures


def table(rows: list[dict[str, str]]) -> list[str]:
    """The Markdown table of one study's rows."""
    lines = ["| method | last epoch | best epoch | memorised | AUROC |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        last, spread, best, memorised = (
            f"{100 * float(row[key]):.2f}" for key in ("last_mean", "last_sd", "best_mean", "memorised_mean")
        )
        auroc = f"{float(row['auroc_mean']):.3f}" if row["auroc_mean"] else "-"
        lines.append(f"| {row['method']} | {last} ± {spread} | {best} | {memorised} | {auroc} |")
    return lines


def latest(study: str) -> list[dict[str, str]]:
    """The newest recorded row of every method that a study has been run for."""
    rows = {row["method"]: row for row in record.read(RESULTS) if row["study"] == study}
    return [rows[method] for method in METHODS if method in rows]


def measure(study: str, method: str, data_root: str | None) -> dict[str, str]:
    """The row of one method in one study."""
    words = f"--method {method} {STUDIES[study]}"
    if study != "digits" and method in EQUAL:
        words += f" {EQUAL[method]}"
    results = [run(words, seed, data_root) for seed in SEEDS]
    means = {key: float(np.mean([result[key] for result in results])) for key in results[0]}
    last = [result["last"] for result in results]
    stamp = record.stamp()
    row = {
        "study": study,
        "method": method,
        "command": f"fastnoise train {words} --seed S --noise-seed S",
        "seeds": " ".join(map(str, SEEDS)),
        "last_mean": round(means["last"], 5),
        "last_sd": round(float(np.std(last, ddof=1)), 5),
        "last_each": " ".join(f"{accuracy:.4f}" for accuracy in last),
        "best_mean": round(means["best"], 5),
        "memorised_mean": round(means["memorised"], 5),
        "auroc_mean": round(means["auroc"], 5) if "auroc" in means else "",
        "images_per_second": round(means["images_per_second"]),
        **{name: stamp[name] for name in ("machine", "gpu", "torch", "commit", "date")},
    }
    return {key: str(value) for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--recorded", action="store_true", help="print the recorded tables and measure nothing")
    parser.add_argument("--data-root")
    arguments = parser.parse_args()
    for study in arguments.studies:
        for method in () if arguments.recorded else arguments.methods:
            row = measure(study, method, arguments.data_root)
            record.append(RESULTS, [row])
            print(f"{study} {method}: {row['last_each']}", flush=True)
        print("\n".join([f"{study}: fastnoise train --method METHOD {STUDIES[study]}", *table(latest(study))]))


if __name__ == "__main__":
    main()
