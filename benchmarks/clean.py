"""Wrong labels that are found, against cleanlab on the same images, folds, epochs and seeds.

    pip install 'fastnoise[bench]'
    python -m benchmarks.clean digits --data-root data
    python -m benchmarks.clean digits mnist cifar10 cifar10n --data-root data

Twelve settings: digits and the first 10,000 images of MNIST, each with symmetric, pair and instance-dependent noise of
20 %; the first 10,000 of CIFAR-10 with symmetric 20 %; those of CIFAR-10N with its five label sets. small_cnn in five
folds throughout. cleanlab judges the out-of-fold probabilities after the last epoch (a) of cross-entropy, (b) of the
networks that `clean` trained: `rank.get_label_quality_scores` for the wrong labels missed when as many are flagged as
exist, `filter.find_label_issues` for precision and recall. A setting's row is written to results/clean.csv when it is
done; an earlier row of the same setting is replaced.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from fastnoise.cleaning.judge import Judge, Testimony
from fastnoise.cleaning.pool import Judged, fold_of, load_judged, part_of
from fastnoise.cleaning.run import measure
from fastnoise.cleaning.verdict import reach
from fastnoise.commands.clean import METHOD, SETTINGS
from fastnoise.engine.single import train_on
from fastnoise.errors import ConfigError
from fastnoise.models import Outputs
from fastnoise.words import train_config

from . import record

RESULTS = record.RESULTS / "clean.csv"

MADE = ("symmetric:0.2", "pair:0.2", "idn:0.2")
HUMAN = ("human:aggre", "human:random1", "human:random2", "human:random3", "human:worse")
STUDIES = {"digits": MADE, "mnist": MADE, "cifar10": MADE[:1], "cifar10n": HUMAN}
"""Data set -> its noises."""
IMAGES = 10_000
FOLDS = 5


class LastJudge(Judge):
    """A judge that also keeps the probabilities after the last epoch, which cleanlab takes."""

    last: Tensor

    def __init__(self, given: NDArray[np.int64], num_classes: int):
        super().__init__(given, num_classes)
        self.register_buffer("last", torch.zeros(len(given), num_classes))

    def see(self, outputs: Outputs, index: Tensor) -> None:
        super().see(outputs, index)
        self.last[index] = outputs.logits.float().softmax(1)


@dataclass(frozen=True)
class Trained:
    """The networks of one method."""

    judged: Judged
    testimonies: list[Testimony]
    out_of_fold: NDArray[np.float64]
    """[N, C], probabilities after the last epoch by the network that did not learn from the image."""
    seconds: float


def train_folds(method: str, dataset: str, noise: str, data_root: str, epochs: int | None, seed: int) -> Trained:
    """Train a method's networks on all folds of a setting."""
    words = ["--method", method, "--dataset", dataset, "--noise", noise, "--data-root", data_root]
    words += ["--model", "small_cnn", "--seed", str(seed), "--noise-seed", str(seed)]
    words += [] if dataset == "digits" else ["--limit-train", str(IMAGES)]
    words += [] if epochs is None else ["--epochs", str(epochs)]
    config, _ = train_config(words, settings=SETTINGS)
    judged = load_judged(config)
    fold, classes = fold_of(judged.given, FOLDS, seed), len(judged.data.class_names)
    testimonies, out_of_fold = [], np.zeros((len(judged.given), classes))
    began = time.perf_counter()
    for number in range(FOLDS):
        held = fold == number
        judge = LastJudge(judged.given, classes)
        with tempfile.TemporaryDirectory() as folder:
            run = config.replace({"run_dir": f"{folder}/run", "seed": seed + number})
            train_on(run, part_of(judged, held), console=Console(quiet=True), witness=judge)
        testimonies.append(Testimony.of(judge, held))
        out_of_fold[held] = judge.last.double().cpu().numpy()[held]
    return Trained(judged, testimonies, out_of_fold, time.perf_counter() - began)


def cleanlab_figures(
    probs: NDArray[np.float64], given: NDArray[np.int64], wrong: NDArray[np.bool_]
) -> dict[str, float]:
    """What cleanlab finds by these probabilities: missed, precision and recall."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise ConfigError("this benchmark needs cleanlab: pip install 'fastnoise[bench]'") from None
    probs = probs / probs.sum(1, keepdims=True)
    quality = get_label_quality_scores(given, probs)
    count = int(wrong.sum())
    flagged = np.argsort(quality, kind="stable")[:count]
    issues = find_label_issues(given, probs, n_jobs=1)
    found = int((issues & wrong).sum())
    return {
        "missed": 1 - float(wrong[flagged].sum()) / max(1, count),
        "precision": found / max(1, int(issues.sum())),
        "recall": found / max(1, count),
    }


def measure_setting(dataset: str, noise: str, data_root: str, epochs: int | None, seed: int) -> record.Row:
    """The row of one setting."""
    ours = train_folds(METHOD, dataset, noise, data_root, epochs, seed)
    plain = train_folds("ce", dataset, noise, data_root, epochs, seed)
    judged = ours.judged
    assert judged.truth is not None
    wrong = judged.given != judged.truth
    verdict = reach(judged, ours.testimonies, seed)
    figures = {
        **measure(verdict, judged.given, judged.truth),
        "estimated_rate": verdict.rate,
        "rate_low": verdict.rate_interval[0],
        "rate_high": verdict.rate_interval[1],
        **{
            f"cleanlab_ce_{key}": value
            for key, value in cleanlab_figures(plain.out_of_fold, judged.given, wrong).items()
        },
        **{
            f"cleanlab_same_{key}": value
            for key, value in cleanlab_figures(ours.out_of_fold, judged.given, wrong).items()
        },
    }
    stamp = record.stamp()
    return {
        "setting": f"{dataset} {noise}",
        "seed": str(seed),
        "epochs": str(SETTINGS["epochs"] if epochs is None else epochs),
        "images": str(len(judged.given)),
        **{key: f"{value:.4f}" for key, value in figures.items()},
        "seconds": f"{ours.seconds:.0f}",
        "seconds_ce": f"{plain.seconds:.0f}",
        "warnings": " | ".join(verdict.warnings),
        **{name: stamp[name] for name in ("machine", "gpu", "torch", "commit", "date")},
    }


def line(row: record.Row) -> str:
    """A setting's figures in one line."""
    missed = ", ".join(f"{row[key]}" for key in ("missed", "cleanlab_ce_missed", "cleanlab_same_missed"))
    return (
        f"{row['setting']}: missed by clean, cleanlab on ce, cleanlab on the same: {missed}; "
        f"rate {row['estimated_rate']} [{row['rate_low']}, {row['rate_high']}], true {row['rate']}; calibration error "
        f"{row['calibration']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--epochs", type=int, help="of all networks; default: those of clean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    options = parser.parse_args()
    for study in options.studies:
        for noise in STUDIES[study]:
            row = measure_setting(study, noise, options.data_root, options.epochs, options.seed)
            record.append(options.output, [row], key=("setting", "seed", "epochs"))
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
