"""Draws the recorded times of the losses: python -m benchmarks.plot_losses [--device cpu] [--output losses.png]

One panel per loss: microseconds of forward, backward and target update against the size, with p20 to p80, and below it
how many times the fused loss's time every other side takes. Of every side and size, the row recorded last on the
machine of the last row is drawn.
Needs matplotlib: pip install 'fastnoise[plot]'.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from fastnoise.errors import DataError, FastnoiseError

from . import record
from .losses import MODES, RESULTS

STYLES = {
    "authors_list": ("tab:brown", "v"),
    "authors": ("tab:red", "s"),
    "authors_compiled": ("tab:orange", "D"),
    "reference": ("tab:gray", "^"),
    "reference_compiled": ("tab:blue", "o"),
    "fused": ("black", "*"),
}
"""Colour and marker of every side, in the legend's order."""


def draw(rows: list[record.Row], title: str, output: Path) -> None:
    """A PNG of rows of one device, mode and way of launching."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    latest = {(row["loss"], row["side"], int(row["B"]), int(row["C"])): row for row in rows}
    losses = list(dict.fromkeys(loss for loss, *_ in latest))
    sizes = sorted({(batch, num_classes) for _, _, batch, num_classes in latest}, key=lambda size: size[0] * size[1])
    figure, axes = pyplot.subplots(
        2, len(losses), figsize=(4.2 * len(losses) + 1.5, 7), sharex=True, sharey="row", squeeze=False
    )
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    for column, loss in enumerate(losses):
        times, ratios = axes[:, column]
        for side, (colour, marker) in STYLES.items():
            here = [
                (x, latest[loss, side, *size], size) for x, size in enumerate(sizes) if (loss, side, *size) in latest
            ]
            if not here:
                continue
            xs = [x for x, _, _ in here]
            low, middle, high = ([float(row[f"us_{p}"]) for _, row, _ in here] for p in ("p20", "p50", "p80"))
            style = {"color": colour, "marker": marker, "label": side, "linewidth": 1, "markersize": 7}
            spread = ([m - value for m, value in zip(middle, low, strict=True)],
                      [value - m for m, value in zip(middle, high, strict=True)])  # fmt: skip
            times.errorbar(xs, middle, yerr=spread, capsize=2, **style)
            if all((loss, "fused", *size) in latest for _, _, size in here):
                own = [float(latest[loss, "fused", *size]["us_p50"]) for _, _, size in here]
                ratios.plot(xs, [m / o for m, o in zip(middle, own, strict=True)], **style)
        times.set_title(loss)
        for axis in (times, ratios):
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(plain)
            axis.yaxis.set_minor_formatter(NullFormatter())
        ratios.set_xticks(range(len(sizes)), [f"{batch}\n×{num_classes}" for batch, num_classes in sizes], fontsize=8)
    axes[0, 0].set_ylabel("µs per call")
    axes[1, 0].set_ylabel("times the fused loss's time")
    handles = {
        label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    names = [side for side in STYLES if side in handles]
    figure.legend([handles[name] for name in names], names, loc="lower center", ncols=len(names), frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: that of the last row")
    parser.add_argument("--mode", choices=MODES, default="both")
    parser.add_argument("--graph", choices=("yes", "no"), default="no", help="replayed from CUDA graphs")
    parser.add_argument("--dtype", help="of the logits; default: that of the last row that fits the rest")
    parser.add_argument("--output", type=Path, help="PNG; default: the CSV file's name with .png")
    arguments = parser.parse_args(words)
    if find_spec("matplotlib") is None:
        raise FastnoiseError("drawing needs matplotlib: pip install 'fastnoise[plot]'")
    rows = record.read(arguments.input)
    device = arguments.device or rows[-1]["device"]
    rows = [
        row for row in rows if (row["device"], row["mode"], row["graph"]) == (device, arguments.mode, arguments.graph)
    ]
    dtype = arguments.dtype or (rows[-1]["dtype"] if rows else "")
    rows = [row for row in rows if row["dtype"] == dtype]
    if not rows:
        raise DataError(f"{arguments.input} holds no row of that device, mode, graph and dtype: measure it first")
    last = rows[-1]
    rows = [row for row in rows if (row["machine"], row["gpu"]) == (last["machine"], last["gpu"])]
    where = last["gpu"] if device == "cuda" else last["machine"]
    graph = ", replayed from graphs" if arguments.graph == "yes" else ""
    output = arguments.output or arguments.input.with_suffix(".png")
    draw(rows, f"{where}; torch {last['torch']}, {dtype} logits, mode {arguments.mode}{graph}, {last['date']}", output)
    print(output)


if __name__ == "__main__":
    main()
