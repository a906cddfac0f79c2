"""Accuracy of the methods on equal terms: the claim that robust methods beat cross-entropy on wrong labels.

    python -m benchmarks.methods digits
    python -m benchmarks.methods mnist --data-root data

Each cell is the last-epoch test accuracy of `fastnoise train` over three seeds (training and noise seed alike), by
the command printed with the table. Rows are appended to results/methods.csv, with machine, versions, commit and date.
"""

import argparse
import shlex
import tempfile

import numpy as np
from rich.console import Console

from fastnoise.cli import train_config
from fastnoise.engine import train

from . import record

RESULTS = record.RESULTS / "methods.csv"

METHODS = ("ce", "elr", "nal", "swce")
SEEDS = (0, 1, 2)

STUDIES = {
    "digits": "--dataset digits --noise symmetric:0.4 --epochs 60",
    "mnist": "--dataset mnist --limit-train 10000 --noise symmetric:0.6 --epochs 20 --learning-rate 0.05",
}
"""The digits study is the digits recipe itself; mnist takes the first 10,000 training images and LeNet-5."""


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
    """The newest recorded row of every method in a study."""
    rows = {row["method"]: row for row in record.read(RESULTS) if row["study"] == study}
    return [rows[method] for method in METHODS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data-root")
    arguments = parser.parse_args()
    stamp = record.stamp()
    rows = []
    for method in METHODS:
        words = f"--method {method} {STUDIES[arguments.study]}"
        results = [run(words, seed, arguments.data_root) for seed in SEEDS]
        means = {key: float(np.mean([result[key] for result in results])) for key in results[0]}
        last = [result["last"] for result in results]
        print(f"{method}: {' '.join(f'{accuracy:.4f}' for accuracy in last)}", flush=True)
        row = {
            "study": arguments.study,
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
        rows.append({key: str(value) for key, value in row.items()})
    record.append(RESULTS, rows)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
