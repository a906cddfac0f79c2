"""How noise in a range of targets affects the others: the regression that Khanal and Kanan propose as future work
(2021, second version, "Discussion").

MNIST digits are rotated by known angles, uniform in [-limit, limit]. LeNet-5 with one output learns the angle by mean
squared error. Training targets in [low, high] get Gaussian noise, cut so that they stay in this range
(`fastnoise.noise.corrupt_regression`). Test targets are exact. The study measures the mean squared errors of test
digits inside and outside of the range against the noise level sigma, all in degrees.

What to expect inside the range: least squares learns the mean of an angle's noisy targets. The cut moves this mean
towards the middle of the range; `noise_bias` is the error of a network that learns the mean exactly. Outside: digits
slant by themselves, so angles are known only to within some ten degrees, and errors that are learnt inside the range
extend beyond its edge. All settings are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..config import RunConfig
from ..data.datasets import load_dataset
from ..errors import ConfigError
from ..noise.spec import parse
from ..recipes import recipe
from .base import (
    StudyFolder,
    StudyOptions,
    announce,
    check_limit,
    draw_line,
    make_step,
    mean_sd,
    new_figure,
    run_jobs,
    save_figure,
    steps_of,
    time_steps,
    workers,
    write_table,
)

if TYPE_CHECKING:
    from ..sweeps import SweepResult

SIGMAS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 60.0, 90.0, 120.0, 180.0)
QUICK_SIGMAS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)
BATCH = 128
BINS = 24
"""Parts of [-limit, limit] over which errors are averaged for the second plot."""
FAR = 20.0
"""Distance from the range, in degrees, beyond which angles are hardly mistaken for angles inside."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """Does noise in a range of targets hurt the others? The targets are rotation angles of MNIST digits.

    --quick trains 12 networks on 30,000 digits each, in some two minutes on two free CPU cores. The full study trains
    36 on all 60,000, in about 25 minutes. Each start measures steps and prints the time on this machine. Examples:
      fastnoise study regression --quick
      fastnoise study regression
      fastnoise study regression --low -20 --high 20 --sigmas 0 10 40
    """

    limit: float = 60.0
    """Digits are rotated by angles in [-limit, limit], in degrees."""
    low: float = 0.0
    """Smallest angle whose target is noisy, in degrees."""
    high: float = 60.0
    """Largest angle whose target is noisy, in degrees."""
    sigmas: tuple[float, ...] | None = None
    """Standard deviations of the noise before it is cut, in degrees. 0 is always added."""
    repeats: int | None = None
    """Trainings of each noise level, with different seeds. Default: 3, or 2 with --quick."""
    epochs: int | None = None
    """Epochs of each training. Default: 14, or 5 with --quick."""
    limit_train: int | None = None
    """Number of training digits to use, from the first on. Default: all, or 30,000 with --quick."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.limit <= 180:
            raise ConfigError(f"--limit must lie in (0, 180] degrees, not {self.limit}")
        if not -self.limit <= self.low < self.high <= self.limit:
            raise ConfigError(
                f"--low {self.low} --high {self.high}: give a rising range within [{-self.limit}, {self.limit}]"
            )
        if (self.low, self.high) == (-self.limit, self.limit):
            raise ConfigError(f"--low {self.low} --high {self.high} covers all angles: none is left that is clean")
        for sigma in self.sigmas or ():
            if not 0 <= sigma < np.inf:
                raise ConfigError(f"--sigmas must be 0 or more degrees, not {sigma}")
        for name in ("repeats", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure. Returns its folder.

    figure.csv has a row per noise level, trainings.csv a row per training, and angles.csv a row per noise level and
    part of the angles.
    """
    from ..sweeps import make_jobs
    from ..tasks.regression import Regression

    available = len(load_dataset("mnist", options.data_root, download=options.download).train)
    check_limit(options.limit_train, "mnist", available)
    sigmas = sorted({0.0, *(options.sigmas or (QUICK_SIGMAS if options.quick else SIGMAS))})
    repeats = options.repeats or (2 if options.quick else 3)
    shared: dict[str, Any] = {
        "dataset": "mnist",
        "limit": options.limit,
        "low": options.low,
        "high": options.high,
        "epochs": options.epochs or (5 if options.quick else 14),
        "limit_train": options.limit_train or (30_000 if options.quick else available),
        "angle_seed": options.seed,
    }
    folder = StudyFolder.open("regression", options, {**shared, "sigmas": sigmas, "repeats": repeats})
    base = _base(options, shared)
    jobs = make_jobs(
        ({"sigma": sigma}, base.replace({"noise": _noise(sigma, options), "seed": seed, "noise_seed": seed}))
        for sigma in sigmas
        for seed in range(options.seed, options.seed + repeats)
    )
    targets = np.zeros((BATCH, 1), np.float32)
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: steps_of(base, shared["limit_train"], 10_000),
        seconds_per_step=time_steps(make_step(base, Regression(("angle",)), (1, 28, 28), targets)),
        workers=workers(options),
    )
    result = run_jobs(folder, jobs, options, console)
    trainings = [
        {"sigma": job.varied["sigma"], "seed": job.fields["seed"], **_errors(result, job.name, options)} for job in jobs
    ]
    names = ("mse_inside", "mse_outside", "mse")
    write_table(
        folder.path / "trainings.csv", [{name: row[name] for name in ("sigma", "seed", *names)} for row in trainings]
    )
    points, angles = [], []
    edges = np.linspace(-options.limit, options.limit, BINS + 1)
    far = (edges[1:] <= options.low - FAR) | (edges[:-1] >= options.high + FAR)
    for sigma in sigmas:
        group = [row for row in trainings if row["sigma"] == sigma]
        point: dict[str, Any] = {"sigma": sigma, "trainings": len(group)}
        for name in names:
            point[name], point[f"{name}_sd"] = mean_sd([row[name] for row in group])
        mean = np.mean([row["mse_by_angle"] for row in group], axis=0)
        point["mse_far"] = float(mean[far].mean()) if far.any() else math.nan
        points.append(point | {"noise_bias": noise_bias(sigma, options.low, options.high)})
        angles += [
            {"sigma": sigma, "angle_from": low, "angle_to": high, "mse": value}
            for (low, high), value in zip(pairwise(edges.tolist()), mean.tolist(), strict=True)
        ]
    write_table(folder.table, points)
    write_table(folder.path / "angles.csv", angles)
    _draw(folder.figure, options, points, angles, repeats)
    finding, text = _finding(points, options)
    folder.finish(finding, text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"figure: {folder.figure}, its data beside it", highlight=False, soft_wrap=True)
    return folder.path


def _base(options: Options, shared: dict[str, Any]) -> RunConfig:
    """The configuration of all trainings, without their noise."""
    dataset = f"rotated:of=mnist,limit={options.limit!r},seed={options.seed}"
    return recipe("plain", dataset, "none").replace(
        {
            "epochs": shared["epochs"],
            "limit_train": shared["limit_train"],
            "batch_size": BATCH,
            "data_root": str(Path(options.data_root).absolute()),
            "download": options.download,
            "device": options.device,
        }
    )


def _noise(sigma: float, options: Options) -> str:
    return str(parse(f"gaussian:{sigma!r},low={options.low!r},high={options.high!r}")) if sigma > 0 else "none"


def _errors(result: "SweepResult", name: str, options: Options) -> dict[str, Any]:
    """One training's mean squared errors on the test digits after the last epoch, in degrees squared.

    mse_inside, mse_outside and mse are over the true angles inside, outside, and all. mse_by_angle has BINS parts of
    [-limit, limit].
    """
    with np.load(result.run_folder(name) / "answers.npz") as arrays:
        truth, answers = arrays["truth"][:, 0], arrays["answers"][:, 0]
    errors = (answers - truth) ** 2
    inside = (truth >= options.low) & (truth <= options.high)
    place = np.clip(((truth + options.limit) * (BINS / (2 * options.limit))).astype(np.int64), 0, BINS - 1)
    return {
        "mse_inside": float(errors[inside].mean()),
        "mse_outside": float(errors[~inside].mean()),
        "mse": float(errors.mean()),
        "mse_by_angle": (np.bincount(place, errors, BINS) / np.bincount(place, minlength=BINS)).tolist(),
    }


def noise_bias(sigma: float, low: float, high: float) -> float:
    """The noise's squared bias (E[noisy | v] - v)^2, as a mean over angles v uniform in [low, high]."""
    from scipy.stats import truncnorm

    if sigma == 0:
        return 0.0
    angles = low + (np.arange(1000) + 0.5) * (high - low) / 1000
    noisy = truncnorm.mean((low - angles) / sigma, (high - angles) / sigma, loc=angles, scale=sigma)
    return float(np.mean((noisy - angles) ** 2))


# -- what came out ---------------------------------------------------------------------------------------------


def _draw(
    path: Path, options: Options, points: list[dict[str, Any]], angles: list[dict[str, Any]], repeats: int
) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullLocator

    figure, (left, right) = new_figure(columns=2, title="Angle of MNIST digits, LeNet-5: noise in a range of targets")
    sigmas = [point["sigma"] for point in points]
    span = f"[{options.low:g}°, {options.high:g}°]"

    def values(name: str) -> list[float]:
        return [point[name] for point in points]

    draw_line(left, sigmas, values("mse_outside"), values("mse_outside_sd"), label=f"outside {span}", role="clean")
    if not math.isnan(points[0]["mse_far"]):
        draw_line(left, sigmas, values("mse_far"), label=f"outside by more than {FAR:g}°", role="overall")
    draw_line(left, sigmas, values("mse_inside"), values("mse_inside_sd"), label=f"inside {span}", role="corrupted")
    left.set(xlabel="σ of the noise before it is cut (degrees)", ylabel="mean squared error (degrees²)", yscale="log")
    left.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    right.axvspan(options.low, options.high, color="#D55E00", alpha=0.08, linewidth=0)
    shown = _spread_out(sigmas, 5)
    for number, sigma in enumerate(shown):
        own = [row for row in angles if row["sigma"] == sigma]
        right.plot(
            [(row["angle_from"] + row["angle_to"]) / 2 for row in own],
            [row["mse"] for row in own],
            color=colormaps["viridis"](0.9 * number / max(1, len(shown) - 1)),
            label=f"σ = {sigma:g}°",
            linewidth=1.6,
        )
    right.set(xlabel="true angle (degrees; shaded: noisy targets)")
    right.legend(frameon=False, fontsize=8)
    bottom, top = left.get_ylim()  # before the bias, which begins at zero
    draw_line(left, sigmas, values("noise_bias"), label="bias² of the noise inside", role="baseline")
    left.set_ylim(bottom, top)
    spread = f"band: ± 1 sd over {repeats} trainings" if repeats > 1 else None
    left.legend(frameon=False, fontsize=8, title=spread, title_fontsize=8)
    save_figure(figure, path)


def _spread_out(values: Sequence[float], most: int) -> list[float]:
    """At most `most` of the values, evenly spaced from the first to the last."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places]


def _finding(points: list[dict[str, Any]], options: Options) -> tuple[dict[str, Any], str]:
    """The effect of the strongest noise inside and outside of its range."""
    first, last = points[0], points[-1]
    finding = {f"{name}_{when}": point[name] for when, point in (("before", first), ("after", last)) for name in (
        "mse_inside", "mse_outside", "mse_far"
    )}  # fmt: skip
    finding["sigma"] = last["sigma"]
    text = (
        f"from no noise to sigma = {last['sigma']:g} degrees on targets in [{options.low:g}, {options.high:g}] the "
        f"mean squared error goes from {first['mse_inside']:.1f} to {last['mse_inside']:.1f} degrees^2 inside the "
        f"range and from {first['mse_outside']:.1f} to {last['mse_outside']:.1f} outside"
    )
    if math.isnan(first["mse_far"]):
        finding = {name: value for name, value in finding.items() if "far" not in name}
    else:
        text += f" ({first['mse_far']:.1f} to {last['mse_far']:.1f} farther than {FAR:g} degrees from it)"
    return finding, text
