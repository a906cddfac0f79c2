"""A transition matrix as a picture; needs the extra `plot`."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_NAMED_TICKS = 20  # classes whose names or ids fit along an axis
_PRINTED_CELLS = 12  # classes up to which each cell says its value


def check_plot(what: str = "a PNG") -> None:
    """Raise ConfigError, which begins with `what`, where matplotlib isn't installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(f"{what} needs matplotlib: pip install 'fastnoise[plot]'") from None


def as_shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Counts [R, C] as shares of each row; a row without counts stays 0."""
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def as_text(name: str) -> str:
    """A name that matplotlib draws as it is written, where it would take what stands between dollars for a formula."""
    return name.replace("$", r"\$")


def draw_matrix(
    axes: "Axes",
    values: NDArray[Any],
    *,
    low: float = 0.0,
    high: float = 1.0,
    class_names: tuple[str, ...] | None = None,
    cell: Callable[[float], str] = lambda share: f"{100 * share:.1f}" if share > 0 else "",
) -> "AxesImage":
    """Draw a class by class matrix [C, C] on `axes` as a heat map, dark for `high` and grey for NaN.

    Up to 12 classes `cell` says what stands in each cell; up to 20 the classes are named along the axes.
    """
    from matplotlib import colormaps

    colours = colormaps["magma_r"].with_extremes(bad="#9aa0a6")
    num_classes = len(values)
    # Uninterpolated, a vector format gets the C x C values themselves and not a picture of them.
    image = axes.imshow(np.ma.masked_invalid(values), vmin=low, vmax=high, cmap=colours, interpolation="none")
    if num_classes <= _NAMED_TICKS:
        ticks = class_names or tuple(map(str, range(num_classes)))
        turn: dict[str, Any] = {"rotation": 45, "ha": "right"} if class_names else {}
        axes.set_xticks(range(num_classes), ticks, **turn)
        axes.set_yticks(range(num_classes), ticks)
    if num_classes <= _PRINTED_CELLS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                brightness = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
                colour = "white" if brightness < 0.5 else "black"
                axes.text(column, row, cell(float(value)), ha="center", va="center", fontsize=7, color=colour)
    return image


def plot_transition(
    transition: NDArray[np.int64],
    path: Path,
    *,
    title: str,
    class_names: tuple[str, ...] | None = None,
    words: tuple[str, str] = ("true class", "given label"),
) -> None:
    """Draw counts [C, C] as shares of each row's class and write a PNG. DataError when it can't be written.

    `words` say what rows and columns are.
    """
    check_plot()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    names = None if class_names is None else tuple(map(as_text, class_names))
    image = draw_matrix(axes, as_shares(transition), class_names=names)
    figure.colorbar(image, label=f"share of the {words[0]}")
    axes.set(xlabel=words[1], ylabel=words[0])
    axes.set_title(as_text(textwrap.fill(title, 90)), fontsize=9)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150), DataError)
