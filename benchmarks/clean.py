r"""Wrong labels that are found, against cleanlab on the same images, folds, epochs and seeds.

    pip install 'fastnoise[bench]'
    python -m benchmarks.clean digits --data-root data
    python -m benchmarks.clean digits mnist cifar10 cifar10n --data-root data

Twelve settings: digits and the first 10,000 images of MNIST, each with symmetric, pair and instance-dependent noise of
20 %; the first 10,000 of CIFAR-10 with symmetric 20 %; those of CIFAR-10N with its five label sets. small_cnn
throughout, without augmentation: digits in five folds for 15 epochs; the others in three folds and in bfloat16, MNIST
for 4 epochs and CIFAR for 100, after which cross-entropy has nearly all wrong labels by heart. It takes seven hours of
one core, and half of that in two processes that have different --noises. cleanlab judges the out-of-fold probabilities
after the last epoch (a) of cross-entropy, (b) of the networks that `clean` trained: `rank.get_label_quality_scores` for
the wrong labels missed when as many are flagged as exist, `filter.find_label_issues` for precision and recall. A
setting's row is written to results/clean.csv when it is done; an earlier row of the same setting and options is
replaced. What each network said after each epoch is kept in a folder (--keep), and networks of the same settings are
not trained again: after a change of the verdicts the same command judges anew in minutes. --recorded prints the table.

    python -m benchmarks.clean cifar10 cifar10n --data-root data --words --flip --epochs 10

--words takes options of `train` for the networks of both sides, such as these short courses with flips, in which
cross-entropy learns hardly a wrong label by heart.

    python -m benchmarks.clean cifar10n --by-epoch 1 --methods ce --noises human:worse --words --width 2 --epochs 25

--by-epoch FOLDS says instead, of the first folds, what the networks of each method know after each epoch: the wrong
labels missed by cleanlab's score among images not learnt from, the share of these that are classified right, and the
share of the wrong labels that the networks give back for images learnt from (memorised). results/clean_epochs.csv.

    python -m benchmarks.clean cifar10 cifar10n --ceiling --data-root data

--ceiling says what there is to gain: what cleanlab's score misses by networks of the same course that learnt from the
right labels, beside what it misses by cross-entropy on the noisy ones. results/clean_ceiling.csv.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import softmax
from torch import Tensor

from fastnoise.cleaning.pool import Judged, fold_of, load_judged, part_of
from fastnoise.cleaning.run import measure
from fastnoise.cleaning.testimony import Judge, LogitWitness, Testimony
from fastnoise.cleaning.verdict import reach
from fastnoise.commands.clean import METHOD, SETTINGS
from fastnoise.config import RunConfig
from fastnoise.engine.single import train_on
from fastnoise.errors import ConfigError, DataError
from fastnoise.files import write_atomically
from fastnoise.models import Outputs
from fastnoise.words import train_config

from . import record

RESULTS = record.RESULTS / "clean.csv"
BY_EPOCH = record.RESULTS / "clean_epochs.csv"
CEILING = record.RESULTS / "clean_ceiling.csv"
KEY = ("setting", "options", "options_clean", "seed", "folds", "epochs")
KEY_BY_EPOCH = ("setting", "method", "options", "seed", "folds", "epoch")

MADE = ("symmetric:0.2", "pair:0.2", "idn:0.2")
HUMAN = ("human:aggre", "human:random1", "human:random2", "human:random3", "human:worse")
STUDIES = {"digits": MADE, "mnist": MADE, "cifar10": MADE[:1], "cifar10n": HUMAN}
"""Data set -> its noises."""
FOLDS = {"digits": 5, "mnist": 3, "cifar10": 3, "cifar10n": 3}

_FIRST = ("--limit-train", "10000", "--amp", "bf16", "--crop-padding", "0")
_ADAM = ("--batch-size", "32", "--optimizer", "adam", "--learning-rate", "0.003", "--weight-decay", "0")
_CIFAR = (*_FIRST, *_ADAM, "--no-flip", "--epochs", "100")
TRAINING = {"digits": (), "mnist": (*_FIRST, "--epochs", "4"), "cifar10": _CIFAR, "cifar10n": _CIFAR}
"""Options of all networks of a data set, by either method."""


class Keeper(LogitWitness):
    """Keeps the logits of every image after every epoch.

    Args:
        epochs: E.
        count: N.
        num_classes: C.
    """

    def __init__(self, epochs: int, count: int, num_classes: int):
        super().__init__(epochs, count, num_classes, torch.float16)

    def note(self, epoch: int, logits: Tensor, index: Tensor) -> None:
        self.logits[epoch, index] = logits.half()


OURS = dict.fromkeys(("cifar10", "cifar10n"), ("--strength", "3", "--momentum", "0.9"))
"""Options of the networks of `clean` on a data set. ELR's strength is the authors' value for symmetric noise on
CIFAR-10, its momentum theirs for noise of other kinds."""


@dataclass(frozen=True, eq=False)
class Words:
    """What one network said."""

    logits: NDArray[np.float16]
    """[E, N, C], after each epoch."""
    held: NDArray[np.bool_]
    """[N], the images whose labels the network did not learn from."""
    seconds: float
    """It took to train, judging included."""

    @property
    def testimony(self) -> Testimony:
        """What a judge of `clean` makes of it."""
        epochs, count, classes = self.logits.shape
        judge = Judge(epochs, count, classes)
        for logits in self.logits:
            judge.see(Outputs(torch.from_numpy(logits)), torch.arange(count))
        return Testimony.of(judge, self.held)

    @property
    def last(self) -> NDArray[np.float64]:
        """[N, C], the probabilities after the last epoch."""
        return np.asarray(softmax(self.logits[-1].astype(np.float64), 1))


@dataclass(frozen=True)
class Trained:
    """The networks of one method."""

    judged: Judged
    words: list[Words]

    @property
    def out_of_fold(self) -> NDArray[np.float64]:
        """[N, C], probabilities after the last epoch by the network that did not learn from the image."""
        probs = np.zeros(self.words[0].last.shape)
        for words in self.words:
            probs[words.held] = words.last[words.held]
        return probs

    @property
    def seconds(self) -> float:
        return sum(words.seconds for words in self.words)


def configured(
    method: str, dataset: str, noise: str, options: argparse.Namespace, *, recipe: bool = False
) -> RunConfig:
    """A method's runs on a setting, but for their seeds.

    Args:
        recipe: as they would be without TRAINING, OURS and --words.
    """
    words = ["--method", method, "--dataset", dataset, "--noise", noise, "--data-root", options.data_root]
    words += ["--model", "small_cnn", "--seed", str(options.seed), "--noise-seed", str(options.seed)]
    words += ["--device", "cpu"]
    if not recipe:
        words += [*TRAINING[dataset], *(OURS.get(dataset, ()) if method == METHOD else ()), *options.words]
    return train_config(words, settings=SETTINGS)[0]


def chosen(method: str, dataset: str, noise: str, options: argparse.Namespace) -> str:
    """The options of a method's runs that are not those of `clean` and the recipe."""
    usual = configured(method, dataset, noise, options, recipe=True).flat()
    fields = configured(method, dataset, noise, options).flat()
    return " ".join(f"{name}={value}" for name, value in fields.items() if value != usual[name])


def key_of(dataset: str, noise: str, options: argparse.Namespace) -> record.Row:
    """The columns of KEY."""
    epochs = configured("ce", dataset, noise, options).optim.epochs
    cells = (f"{dataset} {noise}", *(chosen(method, dataset, noise, options) for method in ("ce", METHOD)))
    return dict(zip(KEY, (*cells, str(options.seed), str(FOLDS[dataset]), str(epochs)), strict=True))


def train_folds(
    method: str, dataset: str, noise: str, options: argparse.Namespace, folds: int | None = None
) -> Trained:
    """Train a method's networks on all folds of a setting, or the first ones. What is kept is not trained again."""
    config = configured(method, dataset, noise, options)
    judged = load_judged(config)
    return Trained(judged, [_network(config, judged, number, options) for number in range(folds or FOLDS[dataset])])


def _network(config: RunConfig, judged: Judged, number: int, options: argparse.Namespace) -> Words:
    """Train the network that does not learn from a fold, or read what it said earlier."""
    folds = FOLDS[config.data.dataset]
    fields = {name: value for name, value in config.flat().items() if name not in ("run_dir", "data_root")}
    fields |= {"fold": number, "folds": folds, "sha256": judged.sha256}
    name = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    noise = config.noise.noise.replace(":", "-")
    kept = options.keep / f"{config.data.dataset}-{noise}-{config.method.method}-{number}-{name}.npz"
    if kept.exists():
        with np.load(kept) as file:
            return Words(file["logits"], file["held"], float(file["seconds"]))
    held = fold_of(judged.given, folds, options.seed) == number
    keeper = Keeper(config.optim.epochs, len(judged.given), len(judged.data.class_names))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = config.replace({"run_dir": f"{folder}/run", "seed": options.seed + number})
        train_on(run, part_of(judged, held), console=Console(quiet=True), witness=keeper)
    said = Words(keeper.logits.cpu().numpy(), held, time.perf_counter() - began)
    print(f"{kept.name}: {said.seconds:.0f} s", flush=True)
    options.keep.mkdir(parents=True, exist_ok=True)
    contents = {**asdict(said), "given": judged.given, "config": json.dumps(fields)}
    if judged.truth is not None:
        contents["truth"] = judged.truth
    write_atomically(kept, lambda stream: np.savez_compressed(stream, **contents), DataError)
    return said


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


def measure_setting(dataset: str, noise: str, options: argparse.Namespace) -> record.Row:
    """The row of one setting."""
    ours = train_folds(METHOD, dataset, noise, options)
    plain = train_folds("ce", dataset, noise, options)
    judged = ours.judged
    assert judged.truth is not None
    wrong = judged.given != judged.truth
    verdict = reach(judged, [words.testimony for words in ours.words], options.seed)
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
        **key_of(dataset, noise, options),
        "images": str(len(judged.given)),
        **{key: f"{value:.4f}" for key, value in figures.items()},
        "seconds": f"{ours.seconds:.0f}",
        "seconds_ce": f"{plain.seconds:.0f}",
        "warnings": " | ".join(verdict.warnings),
        **{name: stamp[name] for name in ("machine", "gpu", "torch", "commit", "date")},
    }


def courses(dataset: str, noise: str, options: argparse.Namespace) -> list[record.Row]:
    """Rows of what the networks of the first folds know after each epoch, means over the folds."""
    from cleanlab.rank import get_label_quality_scores

    stamp, rows = record.stamp(), []
    for method in options.methods:
        found = train_folds(method, dataset, noise, options, options.by_epoch)
        given, truth = found.judged.given, found.judged.truth
        assert truth is not None
        wrong = given != truth
        for epoch in range(len(found.words[0].logits)):
            shares = []
            for said in found.words:
                probs = softmax(said.logits[epoch].astype(np.float64), 1)
                held, answers = said.held, probs.argmax(1)
                score = get_label_quality_scores(given[held], probs[held])
                flagged = np.argsort(score, kind="stable")[: wrong[held].sum()]
                learnt = ~held & wrong
                shares.append(
                    (
                        1 - wrong[held][flagged].mean(),
                        (answers[held] == truth[held]).mean(),
                        (answers[learnt] == given[learnt]).mean(),
                    )
                )
            means = dict(zip(("missed", "right", "memorised"), np.mean(shares, axis=0), strict=True))
            rows.append(
                {
                    "setting": f"{dataset} {noise}",
                    "method": method,
                    "options": chosen(method, dataset, noise, options),
                    "seed": str(options.seed),
                    "folds": f"{len(found.words)} of {FOLDS[dataset]}",
                    "epoch": str(epoch + 1),
                    **{name: f"{value:.4f}" for name, value in means.items()},
                    **stamp,
                }
            )
    return rows


def ceilings(dataset: str, options: argparse.Namespace) -> list[record.Row]:
    """Rows of what networks miss that learnt from a data set's right labels, for each of its noises.

    ConfigError where results/clean.csv has no row of the same course to stand beside.
    """
    beside = recorded(dataset, STUDIES[dataset], options)
    right = train_folds("ce", dataset, "none", options)
    probs, truth = right.out_of_fold, right.judged.given
    stamp, rows = record.stamp(), []
    for noise, known in zip(STUDIES[dataset], beside, strict=True):
        given = load_judged(configured("ce", dataset, noise, options)).given
        missed = cleanlab_figures(probs, given, given != truth)["missed"]
        plain = float(known["cleanlab_ce_missed"])
        figures = {"missed": missed, "cleanlab_ce_missed": plain, "ratio": missed / plain}
        rows.append(
            {
                **{name: known[name] for name in KEY},
                "right": f"{(probs.argmax(1) == truth).mean():.4f}",
                **{name: f"{value:.4f}" for name, value in figures.items()},
                **stamp,
            }
        )
    return rows


def line(row: record.Row) -> str:
    """A setting's figures in one line."""
    missed = ", ".join(f"{row[key]}" for key in ("missed", "cleanlab_ce_missed", "cleanlab_same_missed"))
    return (
        f"{row['setting']}: missed by clean, cleanlab on ce, cleanlab on the same: {missed}; "
        f"rate {row['estimated_rate']} [{row['rate_low']}, {row['rate_high']}], true {row['rate']}; calibration error "
        f"{row['calibration']}"
    )


def noises_of(study: str, options: argparse.Namespace) -> list[str]:
    """Those of a study, or of them the ones of --noises."""
    return [noise for noise in STUDIES[study] if not options.noises or noise in options.noises]


def recorded(study: str, noises: Iterable[str], options: argparse.Namespace) -> list[record.Row]:
    """The recorded rows of a study with these options. ConfigError if one is not measured."""
    known = {tuple(row[name] for name in KEY): row for row in record.read(RESULTS)}
    keys = [tuple(key_of(study, noise, options).values()) for noise in noises]
    for key in keys:
        if key not in known:
            raise ConfigError(f"{RESULTS} has no row of {', '.join(key)}; measure it first")
    return [known[key] for key in keys]


def table(rows: Sequence[record.Row]) -> list[str]:
    """The Markdown table of recorded rows, in percent but for the ratio of the first two columns."""
    missed = ("`clean`", "cleanlab, cross-entropy", "ratio", "cleanlab, same networks")
    columns = ("data, noise", *missed, "rate found (95 %)", "true rate", "calibration error")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return lines + [f"| {' | '.join(_cells(row))} |" for row in rows]


def _cells(row: record.Row) -> tuple[str, ...]:
    def percent(name: str) -> str:
        return f"{100 * float(row[name]):.1f}"

    return (
        row["setting"],
        percent("missed"),
        percent("cleanlab_ce_missed"),
        f"{float(row['missed']) / float(row['cleanlab_ce_missed']):.2f}",
        percent("cleanlab_same_missed"),
        f"{percent('estimated_rate')} ({percent('rate_low')} to {percent('rate_high')})",
        percent("rate"),
        percent("calibration"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--seed", type=int, default=0, help="of networks, folds and noise")
    parser.add_argument("--noises", nargs="+", help="of the studies' noises only these")
    parser.add_argument("--keep", type=Path, default=Path("cleanwords"), help="folder of what the networks said")
    parser.add_argument("--words", nargs=argparse.REMAINDER, default=[], help="options of train for all networks")
    parser.add_argument("--by-epoch", type=int, metavar="FOLDS", help="tell what is known after each epoch instead")
    parser.add_argument("--ceiling", action="store_true", help="tell what networks miss that learnt from right labels")
    parser.add_argument("--methods", nargs="+", default=["ce", METHOD], help="of --by-epoch")
    parser.add_argument("--output", type=Path, help="the CSV file; default: benchmarks/results/clean*.csv")
    parser.add_argument("--recorded", action="store_true", help="print the recorded table and measure nothing")
    options = parser.parse_args()
    if options.recorded:
        rows = [row for study in options.studies for row in recorded(study, noises_of(study, options), options)]
        print("\n".join(table(rows)))
        return
    for study in options.studies:
        if options.ceiling:
            rows = ceilings(study, options)
            record.append(options.output or CEILING, rows, KEY)
            for row in rows:
                print(
                    *(row[name] for name in ("setting", "right", "missed", "cleanlab_ce_missed", "ratio")), flush=True
                )
            continue
        for noise in noises_of(study, options):
            if options.by_epoch:
                rows = courses(study, noise, options)
                record.append(options.output or BY_EPOCH, rows, KEY_BY_EPOCH)
                for row in rows:
                    print(" ".join(row[name] for name in (*KEY_BY_EPOCH, "missed", "right", "memorised")), flush=True)
                continue
            row = measure_setting(study, noise, options)
            record.append(options.output or RESULTS, [row], KEY)
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
