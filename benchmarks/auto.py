"""--method auto: the sweep that its table is learnt from, and what its choices lose on labels that it was not.

    python -m benchmarks.auto learn --data-root data [--features cifar10.npy ...]
    python -m benchmarks.auto try --data-root data
    python -m benchmarks.auto table
    python -m benchmarks.auto check
    python -m benchmarks.auto regret

learn and try train every method of the table on settings of digits, the first images of MNIST, and features: clean,
symmetric, pair, asymmetric and instance-dependent noise of several rates, with the labels of people where there are
some. try has other rates and seeds than learn, and noise models and data that learn has not. Each run adds a row to
results/auto_runs.csv as soon as it has ended, each probe one to results/auto_probes.csv; what is recorded is not run
again. table makes fastnoise/auto/table.csv from the settings of learn, and check says what is lost where a setting
itself is left out of it, and by a table of the other seed. regret makes results/auto.csv: of each setting of try the
method chosen, its points below the best method in hindsight, those of nal and elr_plus as fixed choices, and the rate
found beside the true one.

features:FILE.npy are made by `fastnoise features`. The networks of digits and MNIST train for shorter than their
recipes say, so that all takes hours and not days: EPOCHS.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from rich.console import Console

from fastnoise.auto.choice import Choice, decide
from fastnoise.auto.findings import Findings, probe
from fastnoise.auto.table import PATH, Arm, MethodTable, Row, merged
from fastnoise.config import RunConfig
from fastnoise.engine import train
from fastnoise.engine.prepare import load_data
from fastnoise.errors import ConfigError
from fastnoise.options import AUTO
from fastnoise.recipes import recipe

from . import record

RUNS = record.RESULTS / "auto_runs.csv"
PROBES = record.RESULTS / "auto_probes.csv"
RESULTS = record.RESULTS / "auto.csv"
KEY_RUN = ("part", "setting", "seed", "arm")
KEY_PROBE = ("part", "setting", "seed")

ARMS = {
    "images": ("ce", "elr", "nal", "elr_plus", "dividemix", "sop_plus", "ssr_plus"),
    "features": ("ce", "gce", "elr", "nal", "coteaching", "elr_plus", "dividemix", "plc"),
}
"""What can be chosen, by the kind of data."""

EPOCHS = {"digits": 30, "mnist": 15}
IMAGES = {"mnist": 4000}

_LEARN = (
    "none",
    "symmetric:0.2",
    "symmetric:0.4",
    "symmetric:0.6",
    "pair:0.2",
    "pair:0.4",
    "pair:0.45",
    "idn:0.2",
    "idn:0.4",
)
_TRY = (
    "symmetric:0.1",
    "symmetric:0.3",
    "symmetric:0.5",
    "symmetric:0.7",
    "pair:0.1",
    "pair:0.3",
    "pair:0.45",
    "idn:0.1",
    "idn:0.3",
)
LEARN = {
    "digits": (*_LEARN, "symmetric:0.75"),
    "mnist": (
        "none",
        "symmetric:0.2",
        "symmetric:0.5",
        "symmetric:0.7",
        "pair:0.2",
        "pair:0.4",
        "pair:0.45",
        "idn:0.2",
        "idn:0.4",
    ),
    "features": _LEARN,
}
TRY = {
    "digits": (*_TRY, "asymmetric:0.4,map=mnist"),
    "mnist": (
        "symmetric:0.1",
        "symmetric:0.3",
        "symmetric:0.6",
        "pair:0.1",
        "pair:0.3",
        "pair:0.45",
        "idn:0.3",
        "asymmetric:0.3",
        "asymmetric:0.45",
    ),
    "features": (*_TRY, "asymmetric:0.4,map=cifar10"),
}
HUMAN = {"learn": ("human:aggre", "human:random1", "human:worse"), "try": ("human:random2", "human:random3")}
"""Of features of CIFAR-10N, whose images are those of CIFAR-10."""
SEEDS = {"learn": (0, 1), "try": (10, 11)}
"""Of training and noise alike."""


@dataclass(frozen=True)
class Case:
    """A setting with a seed."""

    part: str
    dataset: str
    noise: str
    seed: int
    options: argparse.Namespace

    @property
    def kind(self) -> str:
        return "features" if self.dataset.startswith("features:") else "images"

    @property
    def setting(self) -> str:
        """Its name, which is the same wherever the files lie."""
        name = f"features of {Path(self.dataset).stem}" if self.kind == "features" else self.dataset
        return f"{name} {self.noise}"

    def key(self) -> dict[str, str]:
        return {"part": self.part, "setting": self.setting, "seed": str(self.seed)}

    def changes(self) -> dict[str, object]:
        """What all runs of the case have other than their recipe."""
        changes: dict[str, object] = {"seed": self.seed, "noise_seed": self.seed, "data_root": self.options.data_root}
        changes |= {"val_fraction": 0.0, "device": "cpu", "download": False}
        if self.dataset in EPOCHS:
            changes["epochs"] = EPOCHS[self.dataset]
        if self.dataset in IMAGES:
            changes["limit_train"] = IMAGES[self.dataset]
        return changes

    def config(self, arm: str, found: Findings) -> RunConfig:
        """The run by an arm. Methods that go by the rate get the one that the probe found."""
        return Choice(Arm.parse(arm), found, ("", "", "")).config(self.asked())

    def asked(self) -> RunConfig:
        """The run by auto."""
        return recipe(AUTO, self.dataset, self.noise).replace(self.changes())


def cases(part: str, options: argparse.Namespace) -> Iterator[Case]:
    """The cases of a part, those of the first seed first."""
    settings = LEARN if part == "learn" else TRY
    for seed in SEEDS[part]:
        for family in options.families:
            noises = settings[family]
            names = [f"features:{path}" for path in options.features] if family == "features" else [family]
            for name in names:
                for noise in HUMAN[part] if "cifar10n" in name else noises:
                    yield Case(part, name, noise, seed, options)


def measured(part: str, options: argparse.Namespace) -> None:
    """Probe and train whatever is not recorded yet."""
    stamp = record.stamp()
    runs = {tuple(row[name] for name in KEY_RUN) for row in record.read(RUNS)} if RUNS.exists() else set()
    probes = (
        {tuple(row[name] for name in KEY_PROBE): Findings.read(row) for row in record.read(PROBES)}
        if PROBES.exists()
        else {}
    )
    for case in cases(part, options):
        key = case.key()
        found = probes.get(tuple(key.values()))
        if found is None:
            found = probe(case.asked())
            data = load_data(case.config("ce", found))
            assert data.clean is not None
            true = f"{float((data.given != data.clean).mean()):.4f}"
            record.append(PROBES, [{**key, "kind": case.kind, "true_rate": true, **found.row(), **stamp}], KEY_PROBE)
        for arm in ARMS[case.kind]:
            if (*key.values(), arm) in runs:
                continue
            began = time.perf_counter()
            try:
                with tempfile.TemporaryDirectory() as folder:
                    config = case.config(arm, found).replace({"run_dir": f"{folder}/run"})
                    summary = train(config, console=Console(quiet=True))
            except ConfigError as error:
                raise ConfigError(f"{case.setting} by {arm}: {error}") from error
            row = {
                **key,
                "kind": case.kind,
                "arm": arm,
                "accuracy": f"{100 * summary['test_accuracy']['last']:.2f}",
                "seconds": f"{time.perf_counter() - began:.1f}",
                **stamp,
            }
            record.append(RUNS, [row], KEY_RUN)
            print(f"{case.setting} seed {case.seed} {arm}: {row['accuracy']} % in {row['seconds']} s", flush=True)


def recorded(part: str) -> dict[str, dict[str, Row]]:
    """Setting -> seed -> a row, where probe and all runs are recorded."""
    accuracy: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    seconds: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for run in record.read(RUNS):
        if run["part"] == part:
            accuracy[run["setting"], run["seed"]][run["arm"]] = float(run["accuracy"])
            seconds[run["setting"], run["seed"]][run["arm"]] = float(run["seconds"])
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for line in record.read(PROBES):
        key = (line["setting"], line["seed"])
        arms = ARMS[line["kind"]]
        if line["part"] != part or any(arm not in accuracy[key] for arm in arms):
            continue
        times = {arm: seconds[key][arm] / seconds[key]["ce"] for arm in arms}
        reached = {arm: accuracy[key][arm] for arm in arms}
        found[line["setting"]][line["seed"]] = Row(key[0], line["kind"], Findings.read(line), reached, times)
    return dict(found)


def learnt() -> MethodTable:
    """The table that follows from the settings of learn."""
    return merged({setting: list(seeds.values()) for setting, seeds in recorded("learn").items()})


def lost(row: Row, table: MethodTable) -> tuple[str, float]:
    """The arm that a table chooses for a setting, and the points that it ends below the best."""
    arm = str(decide(row.found, row.kind, table).arm)
    return arm, max(row.accuracy.values()) - row.accuracy[arm]


def left_out() -> None:
    """What choices lose where the setting itself is not in the table, and by a table of the other seed."""
    rows = learnt().rows
    points = []
    for row in rows:
        arm, below = lost(row, MethodTable([each for each in rows if each.setting != row.setting]))
        points.append(below)
        print(f"{row.setting:40} {arm:12} {below:5.2f} below the best")
    print(f"{len(points)} settings left out: mean {np.mean(points):.2f}, worst {np.max(points):.2f}")
    seeds = recorded("learn")
    points = []
    for here, there in permutations(map(str, SEEDS["learn"]), 2):
        table = merged({setting: [found[there]] for setting, found in seeds.items() if there in found})
        points += [lost(found[here], table)[1] for found in seeds.values() if here in found]
    print(f"{len(points)} by the other seed: mean {np.mean(points):.2f}, worst {np.max(points):.2f}")


def regrets() -> list[record.Row]:
    """A row for each setting and seed of try."""
    table = MethodTable.read()
    true = {tuple(line[name] for name in KEY_PROBE): line["true_rate"] for line in record.read(PROBES)}
    stamp, rows = record.stamp(), []
    for setting, seeds in recorded("try").items():
        for seed, row in seeds.items():
            chosen = lost(row, table)[0]
            best = max(row.accuracy, key=row.accuracy.__getitem__)
            top = row.accuracy[best]
            rows.append(
                {
                    "setting": setting,
                    "seed": seed,
                    "chosen": chosen,
                    "best": best,
                    "best_accuracy": f"{top:.2f}",
                    **{
                        f"regret_{name}": f"{top - row.accuracy[arm]:.2f}"
                        for name, arm in (("auto", chosen), ("nal", "nal"), ("elr_plus", "elr_plus"))
                    },
                    "rate_found": f"{row.found.rate:.4f}",
                    "rate_true": true["try", setting, seed],
                    **stamp,
                }
            )
    return rows


def summary(rows: list[record.Row]) -> list[str]:
    """The figures of the claim, in lines."""
    lines = []
    for name in ("auto", "nal", "elr_plus"):
        points = np.array([float(row[f"regret_{name}"]) for row in rows])
        lines.append(f"{name}: {points.mean():.2f} points below the best on average, {points.max():.2f} at worst")
    made = [row for row in rows if "human" not in row["setting"]]
    near = [abs(float(row["rate_found"]) - float(row["rate_true"])) <= 0.03 for row in made]
    lines.append(f"rate within 3 points in {100 * np.mean(near):.0f} % of {len(made)} settings")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("learn", "try", "table", "check", "regret"))
    parser.add_argument("--data-root", default="data")
    parser.add_argument(
        "--families", nargs="+", choices=LEARN, default=list(LEARN), help="kinds of data, in this order"
    )
    parser.add_argument("--features", nargs="*", default=[], help="files of fastnoise features")
    options = parser.parse_args()
    if options.what in ("learn", "try"):
        measured(options.what, options)
    elif options.what == "table":
        learnt().write(PATH)
    elif options.what == "check":
        left_out()
    else:
        rows = regrets()
        record.append(RESULTS, rows, ("setting", "seed"))
        for line in summary(rows):
            print(line)


if __name__ == "__main__":
    main()
