"""How noise in a range of targets affects the others: the regression that Khanal and Kanan propose as future work
(2021, second version, "Discussion").

Real MNIST digits are rotated by known angles, uniform in [-limit, limit]; LeNet-5 with one output learns the angle by
mean squared error. Training targets in [low, high] get Gaussian noise cut so that they stay there
(`fastnoise.noise.corrupt_regression`); test targets are exact. Measured are the mean squared errors of test digits
inside and outside of the range against the noise level sigma, all in degrees.

What to expect inside: least squares learns the mean of an angle's noisy targets, which the cut draws towards the middle
of the range; `noise_bias` is the error of a network that learns it exactly. Outside: digits slant by themselves, so
that angles can't be told to within some ten degrees, and what is learned inside reaches beyond the edge of the range.
All settings are ours.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..config import OptimConfig
from ..errors import ConfigError
from .base import (
    StudyFolder,
    StudyOptions,
    announce,
    check_limit,
    draw_line,
    mean_sd,
    new_figure,
    run_jobs,
    save_figure,
    time_steps,
    workers,
    write_table,
)

if TYPE_CHECKING:
    import torch

    from ..data import Loader
    from ..models import Network

SIGMAS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 60.0, 90.0, 120.0, 180.0)
QUICK_SIGMAS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)
BATCH = 128
BINS = 24
"""Parts of [-limit, limit] over which errors are averaged for the second plot."""
FAR = 20.0
"""Degrees beyond the range from which on angles are hardly mistaken for ones inside."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """Noise in a range of targets: does it hurt the others? On the rotation angle of MNIST digits.

    --quick trains 12 networks on 30,000 digits each, in some two minutes on two free CPU cores; the full study 36
    on all 60,000, in about 25 minutes. Each start measures steps and prints the time on this machine. Examples:
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
            raise ConfigError(f"--low {self.low} --high {self.high} is all angles: none is left that is clean")
        for sigma in self.sigmas or ():
            if not 0 <= sigma < np.inf:
                raise ConfigError(f"--sigmas must be 0 or more degrees, not {sigma}")
        for name in ("repeats", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def run(options: Options, console: Console) -> Path:
    """Train the study's networks and write its figure; returns its folder.

    figure.csv has a row per noise level, trainings.csv one per training, angles.csv one per noise level and part of the
    angles.
    """
    import torch

    from ..data import load_dataset
    from ..engine.step import choose_device
    from ..sweeps import make_jobs

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
    places = {"data_root": str(Path(options.data_root).absolute()), "device": options.device}
    jobs = make_jobs(
        (
            ({"sigma": sigma}, {**shared, **places, "sigma": sigma, "seed": seed, "noise_seed": seed})
            for sigma in sigmas
            for seed in range(options.seed, options.seed + repeats)
        ),
        function=f"{__name__}:train",
    )
    device = choose_device(options.device)
    step = Trainer(make_network().to(device), _optim(shared["epochs"]), device).step
    images, targets = torch.randn(BATCH, 1, 28, 28, device=device), torch.zeros(BATCH, device=device)
    announce(
        console,
        folder,
        jobs,
        steps=lambda job: _steps(shared["epochs"], shared["limit_train"]),
        seconds_per_step=time_steps(lambda: step(images, targets)),
        workers=workers(options),
    )
    result = run_jobs(folder, jobs, options, console)
    trainings = [{"sigma": job.varied["sigma"], "seed": job.fields["seed"], **result.summary(job.name)} for job in jobs]
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


def _steps(epochs: int, images: int) -> float:
    """Steps of one training; an evaluated image counts as a third of one trained on, which has no backward pass."""
    return epochs * (-(-images // BATCH) + 10_000 / 3 / BATCH)


# -- one training ----------------------------------------------------------------------------------------------


def rotate(images: NDArray[np.uint8], degrees: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Each image uint8 [N, H, W, 1], H = W, turned counterclockwise about its centre by its angle [N], bilinearly.

    What comes from outside of an image is 0.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    turned = np.empty_like(images)
    radians = torch.from_numpy(np.deg2rad(degrees)).float()
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros(len(radians))
    # Where the pixel at (x, y) comes from, with y pointing down.
    source = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    for first in range(0, len(images), 1000):
        part = slice(first, first + 1000)
        batch = torch.from_numpy(images[part]).permute(0, 3, 1, 2).float()
        grid = affine_grid(source[part], list(batch.shape), align_corners=False)
        values = grid_sample(batch, grid, align_corners=False).round().clamp(0, 255)
        turned[part] = values.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return turned


def make_network() -> "Network":
    """LeNet-5 with one output, for images of 28 x 28 pixels."""
    import torch

    from ..models.heads import Network
    from ..models.small import LeNet5

    return Network(LeNet5(1, (28, 28)), 1).to(memory_format=torch.channels_last)


def _optim(epochs: int) -> OptimConfig:
    return OptimConfig(epochs, "adam", learning_rate=1e-3, weight_decay=0.0, schedule="cosine")


class Trainer:
    """Least squares on batches of images and targets."""

    def __init__(self, network: "Network", optim: OptimConfig, device: "torch.device"):
        from ..engine.step import create_optimizer, create_schedule

        self.network, self.device = network, device
        self.optimizer = create_optimizer(optim, network)
        self.schedule = create_schedule(optim, self.optimizer)

    def step(self, images: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """One update by images [B, 1, H, W] and targets [B]; returns the mean squared error before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.network(images).logits[:, 0] - targets).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def predict(self, loader: "Loader") -> NDArray[np.float64]:
        """The network's answers [N] for all samples of a loader."""
        import torch

        self.network.eval()
        answers = torch.empty(loader.num_samples, device=self.device)
        with torch.no_grad():
            for images, index in loader.epoch(0):
                answers[index] = self.network(images).logits[:, 0]
        self.network.train()
        return answers.double().cpu().numpy()


def train(config: dict[str, Any], folder: Path, console: Console) -> dict[str, Any]:
    """One training of the study; returns its mean squared errors in degrees squared.

    mse_inside, mse_outside and mse (all) of the test digits by their true angle, and mse_by_angle over BINS parts.
    """
    import torch

    from ..data import ImageTable, load_dataset, make_loader
    from ..engine import RunFolder
    from ..engine.step import choose_device
    from ..noise import corrupt_regression

    limit, low, high, sigma = (config[name] for name in ("limit", "low", "high", "sigma"))
    device = choose_device(config["device"])
    data = load_dataset("mnist", config["data_root"], download=False)
    tables, angles = [], []
    for part, table in enumerate((data.train.take(np.arange(config["limit_train"])), data.test)):
        assert table.images is not None
        degrees = np.random.default_rng([config["angle_seed"], part]).uniform(-limit, limit, len(table))
        tables.append(ImageTable(table.labels, rotate(table.images, degrees)))
        angles.append(degrees)
    truth, noisy = angles[1], angles[0]
    if sigma > 0:
        noisy = corrupt_regression(noisy, sigma, seed=config["noise_seed"], low=low, high=high)
    loaders = [
        make_loader("auto", table, batch_size=size, mean=data.mean, std=data.std, device=device, **options)
        for table, size, options in (
            (tables[0], BATCH, {"seed": config["seed"], "shuffle": True}),
            (tables[1], 4 * BATCH, {}),
        )
    ]
    torch.manual_seed(config["seed"])
    # Targets in units of the limit, for weights and rates of the usual size.
    targets = torch.from_numpy(noisy / limit).float().to(device)
    trainer = Trainer(make_network().to(device), _optim(config["epochs"]), device)
    run_folder = RunFolder(folder)
    run_folder.write_metrics([])
    inside = (truth >= low) & (truth <= high)
    for epoch in range(1, config["epochs"] + 1):
        losses = [trainer.step(images, targets[index]) for images, index in loaders[0].epoch(epoch)]
        trainer.schedule.step()
        errors = (limit * trainer.predict(loaders[1]) - truth) ** 2
        figures = {
            "train_mse": float(torch.stack(losses).mean()) * limit**2,
            "mse_inside": float(errors[inside].mean()),
            "mse_outside": float(errors[~inside].mean()),
            "mse": float(errors.mean()),
        }
        run_folder.append_metrics({"epoch": epoch, **figures})
        console.print(f"epoch {epoch}: {json.dumps(figures)}")
    place = np.clip(((truth + limit) * (BINS / (2 * limit))).astype(np.int64), 0, BINS - 1)
    by_angle = np.bincount(place, errors, BINS) / np.bincount(place, minlength=BINS)
    return {**figures, "mse_by_angle": by_angle.tolist()}


def noise_bias(sigma: float, low: float, high: float) -> float:
    """Mean over angles v uniform in [low, high] of the noise's squared bias, (E[noisy | v] - v)^2."""
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
    """At most so many of the values, evenly from first to last."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places]


def _finding(points: list[dict[str, Any]], options: Options) -> tuple[dict[str, Any], str]:
    """What the strongest noise does inside and outside of its range."""
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
