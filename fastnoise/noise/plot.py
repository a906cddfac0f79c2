"""A transition matrix as a picture; needs the extra `plot`."""

import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..files import write_atomically

_NAMED_TICKS = 20  # classes whose names or ids fit along an axis
_PRINTED_CELLS = 12  # classes up to which each cell says its per cent


def check_plot() -> None:
    """Raise ConfigError where matplotlib isn't installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("a PNG needs matplotlib: pip install 'fastnoise[plot]'") from None


def plot_transition(
    transition: NDArray[np.int64], path: Path, *, title: str, class_names: tuple[str, ...] | None = None
) -> None:
    """Draw counts [C, C] as shares of each true class (rows) and write a PNG. DataError when it can't be written."""
    check_plot()
    from matplotlib.figure import Figure

    num_classes = len(transition)
    shares = transition / np.maximum(transition.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="magma_r", interpolation="nearest")
    figure.colorbar(image, label="share of the true class")
    axes.set(xlabel="given label", ylabel="true class")
    axes.set_title(textwrap.fill(title, 90), fontsize=9)
    if num_classes <= _NAMED_TICKS:
        ticks = class_names or tuple(map(str, range(num_classes)))
        axes.set_xticks(range(num_classes), ticks, rotation=45, ha="right")
        axes.set_yticks(range(num_classes), ticks)
    if num_classes <= _PRINTED_CELLS:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                axes.text(
                    column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=7,
                    color="white" if share > 0.5 else "black",
                )  # fmt: skip
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150), DataError)
