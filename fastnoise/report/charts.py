"""Charts of a report: drawn by matplotlib as SVG for the page or as PNG, their numbers as CSV."""

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import csv_text
from ..noise.plot import draw_matrix
from .html import Html, attribute, element

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1b1f24", "#d5dae0"
"""Text and grid on white. In a page they are replaced by the colours of its theme."""
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3f7fbf", "#d9822b", "#3a9a5f", "#d0494f", "#8e6bbf", "#868e96"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#8c6d4f", "#c65d9e", GREY, "#9aa02c", "#2ba3b0")
"""Mid-tones, which are visible on white and on near black."""

Missing = str
"""Why a chart cannot be drawn."""

HALF, WIDE = 5.6, 11.4
"""Widths in inches of a chart of one column and of a chart of two columns. The page has two."""

_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from files, where a dollar is a dollar
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": FAINT,
}


_CJK = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Source Han Sans SC", "Source Han Sans"),
    *("Microsoft YaHei", "PingFang SC", "PingFang HK", "Hiragino Sans", "Yu Gothic", "Malgun Gothic"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "Arial Unicode MS"),
)
"""Fonts with Chinese, Japanese or Korean letters, of Linux, Windows and macOS."""


@cache
def _fonts() -> list[str]:
    """The fonts that letters are taken from, in their order: one that is wider than what browsers take for system-ui,
    so that nothing comes to overlap, then those for other scripts that the machine has."""
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CJK if name in there)]


@dataclass(frozen=True)
class Chart:
    """One figure: the name of its files, what it shows as text and as numbers, and a function that draws it."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    draw: Callable[["Figure"], None]
    width: float = HALF
    height: float = 3.3
    panels: Sequence["Panel"] = ()
    """The lines of each pair of axes, whose values a page shows under the pointer."""
    axis: str = ""
    """What the x axis of `panels` counts."""

    def csv(self) -> str:
        """The numbers that are drawn. A missing number is an empty cell."""
        return csv_text(self.header, (map(_number, row) for row in self.rows))

    def png(self) -> bytes:
        """The figure on white."""
        return self._saved("png")[0]

    def html(self) -> Html:
        """The figure as an SVG element with the colours and the font of the page around it."""
        content, lines = self._saved("svg")
        text = content.decode()
        text = text[text.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
        text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
        text = re.sub(r'(<(?:g|image)\b[^>]*?) id="[^"]*"', r"\1", text)  # not unique, and nobody refers to them
        text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
        box = re.search(r'viewBox="[^"]*"', text)
        head = f'<svg {_NAMESPACES} {box[0] if box else ""} role="img" {attribute("aria-label", self.title)}>'
        picture = Html(head + text[text.index(">") + 1 :])
        caption = element("figcaption", element("b", self.title), " ", self.caption)
        kind = "wide" if self.width > HALF else ""
        plot = element("div", picture, class_="plot")
        return element("figure", caption, plot, class_=kind, id=self.name, data_lines=lines)

    def _saved(self, kind: str) -> tuple[bytes, str]:
        """The file, and the lines in it as JSON with the places of their axes; an empty text if it has none."""
        import matplotlib
        from matplotlib.figure import Figure

        stream = io.BytesIO()
        with matplotlib.rc_context(_STYLE | {"font.family": _fonts(), "svg.hashsalt": self.name}):
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            self.draw(figure)
            options: dict[str, Any] = {"facecolor": "white"}
            if kind == "svg":
                options = {"transparent": True, "metadata": dict.fromkeys(("Creator", "Date", "Format", "Type"))}
            with warnings.catch_warnings():  # a browser has letters that matplotlib's fonts lack
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure.savefig(stream, format=kind, dpi=150, **options)
            return stream.getvalue(), self._lines(figure) if self.panels else ""

    def _lines(self, figure: "Figure") -> str:
        """What `script.SCRIPT` reads: boxes are left, top, right and bottom as shares of the picture."""
        found = []
        for axes, panel in zip(figure.axes, self.panels, strict=False):
            box = axes.get_position()
            series = [
                {
                    "label": each.label or panel.title or "value",
                    "colour": each.colour,
                    "places": list(map(float, each.places)),
                    "values": [float(f"{value:.6g}") for value in each.values],
                }
                for each in panel.series
            ]
            found.append(
                {
                    "box": [round(share, 5) for share in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
                    "range": list(map(float, axes.get_xlim())),
                    "places": sorted({float(place) for each in panel.series for place in each.places}),
                    "share": panel.shares,
                    "series": series,
                }
            )
        return json.dumps({"axis": self.axis, "panels": found}, ensure_ascii=False)


_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def _number(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


# -- lines over epochs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """A line: `values` [n] at `places` [n], with a band of +- `spread` [n] if it is given."""

    key: str
    """Its column in the CSV."""
    label: str
    places: Sequence[float]
    values: Sequence[float]
    colour: str
    dash: str = "-"
    spread: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes with lines. `marks` are points with a name in the legend: (label, x, y, marker, colour)."""

    series: Sequence[Series]
    title: str = ""
    label: str = ""
    shares: bool = True
    """Whether the values are shares, shown in per cent."""
    marks: Sequence[tuple[str, float, float, str, str]] = ()
    zero: bool = False
    """Whether the axis begins at 0."""


def line_chart(
    name: str,
    title: str,
    caption: str,
    panels: Sequence[Panel],
    *,
    axis: str = "epoch",
    columns: int | None = None,
    shared: bool = False,
    width: float | None = None,
) -> Chart:
    """Lines in one or more panels side by side, with one legend. `shared`: the panels have one y axis."""
    columns = columns or len(panels)
    lines = math.ceil(len(panels) / columns)
    places = sorted({float(place) for panel in panels for series in panel.series for place in series.places})
    found: dict[str, dict[float, float]] = {}
    for panel in panels:
        for series in panel.series:
            found[series.key] = {float(x): float(y) for x, y in zip(series.places, series.values, strict=True)}
            if series.spread is not None:
                pairs = zip(series.places, series.spread, strict=True)
                found[f"{series.key}_sd"] = {float(x): float(y) for x, y in pairs}
    rows = [[f"{place:g}", *(column.get(place) for column in found.values())] for place in places]

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=shared).ravel()
        for axes in grid[len(panels) :]:
            axes.remove()
        for number, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            _draw_panel(axes, panel)
            axes.set_xlabel(axis if number >= len(panels) - columns else "")
            if shared and number % columns:
                axes.set_ylabel("")
        if shared:
            _set_height(grid[0], panels)
        _legend(figure, grid[: len(panels)])

    entries = {series.label for panel in panels for series in panel.series} | {m[0] for p in panels for m in p.marks}
    width = width or (HALF if columns == 1 else WIDE)
    legend = 0.19 * math.ceil(len(entries) / _fit(entries, width)) if entries - {""} else 0
    height = (2.9 if lines == 1 else 2.2 * lines) + legend
    return Chart(name, title, caption, (axis, *found), rows, draw, width, height, panels, axis)


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    few = max((len(series.places) for series in panel.series), default=0) <= 40
    for series in panel.series:
        values = np.asarray(series.values, dtype=float)
        axes.plot(
            *(series.places, values, series.dash),
            color=series.colour,
            label=_entry(series.label),
            marker="." if few else None,
        )
        if series.spread is not None:
            spread = np.asarray(series.spread, dtype=float)
            axes.fill_between(
                series.places, values - spread, values + spread, color=series.colour, alpha=0.2, linewidth=0
            )
    for label, x, y, marker, colour in panel.marks:
        axes.plot([x], [y], marker, color=colour, label=_entry(label), markersize=9 if marker == "*" else 6, zorder=3)
    _set_height(axes, [panel])
    if panel.shares:
        axes.yaxis.set_major_formatter(percent_ticks)
    if all(float(place).is_integer() for series in panel.series for place in series.places):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=panel.title, ylabel=panel.label)
    axes.margins(x=0.02)


def _entry(label: str) -> str:
    """A label of the legend: matplotlib leaves out those that begin with `_`, so that a space without width comes
    first."""
    return f"\u200b{label}" if label.startswith("_") else label


def _set_height(axes: "Axes", panels: Sequence[Panel]) -> None:
    """Let an axis that begins at 0 reach a little above everything in the panels."""
    if panels[0].zero:
        highest = max(max(series.values) for panel in panels for series in panel.series)
        axes.set_ylim(0, 1.05 * highest or 1)


def percent_ticks(value: float, place: float = 0) -> str:
    """A share on an axis in per cent, with as many decimals as it needs. matplotlib passes `place`."""
    return f"{100 * value:.6g} %"


def _fit(labels: set[str], width: float) -> int:
    """How many legend entries fit side by side. A letter of 8 points takes 0.067 inches, a line 0.5."""
    longest = max((len(label) for label in labels), default=0)
    most = max(1, int(width / (0.5 + 0.067 * longest)))
    return math.ceil(len(labels) / max(1, math.ceil(len(labels) / most)))


def _legend(figure: "Figure", grid: "Iterable[Axes]") -> None:
    """One legend below all axes, where it hides nothing."""
    handles: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    handles.pop("", None)
    if handles:
        columns = _fit(set(handles), figure.get_figwidth())
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=columns,
            fontsize=8,
            columnspacing=1.2,
        )


# -- matrices, histograms, dots ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """A class by class matrix of values [C, C]; NaN if there is nothing."""

    key: str
    title: str
    values: NDArray[Any]
    rows: str
    columns: str
    low: float = 0.0
    high: float = 1.0
    cell: Callable[[float], str] = field(default=lambda share: f"{100 * share:.1f}" if share > 0 else "")
    counts: NDArray[Any] | None = None
    """int64 [C, C]: how many samples each cell stands for."""


def matrix_chart(
    name: str,
    title: str,
    caption: str,
    matrices: Sequence[Matrix],
    legend: str,
    class_names: tuple[str, ...] | None = None,
) -> Chart:
    """Heat maps side by side with a common scale. `legend` says what the colour means."""
    first = matrices[0]
    header = [first.rows, first.columns if len(matrices) == 1 else "label"]
    for matrix in matrices:
        header += [f"{matrix.key}_samples"] * (matrix.counts is not None) + [matrix.key]
    rows: list[list[Any]] = []
    for row, column in np.ndindex(first.values.shape):
        cells: list[Any] = [row, column]
        for matrix in matrices:
            cells += [] if matrix.counts is None else [int(matrix.counts[row, column])]
            cells.append(float(matrix.values[row, column]))
        rows.append(cells)

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(1, len(matrices), squeeze=False).ravel()
        for axes, matrix in zip(grid, matrices, strict=True):
            image = draw_matrix(
                axes, matrix.values, low=matrix.low, high=matrix.high, class_names=class_names, cell=matrix.cell
            )
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.set(title=matrix.title, xlabel=matrix.columns, ylabel=matrix.rows)
        bar = figure.colorbar(image, ax=list(grid), label=legend, shrink=0.9)
        if bar.solids is not None:  # 256 colours, better one picture than as many paths
            bar.solids.set_rasterized(True)
        bar.outline.set_visible(False)

    return Chart(
        name, title, caption, tuple(header), rows, draw, HALF if len(matrices) == 1 else WIDE, 4.6
    )  # fmt: skip


def histogram_chart(
    name: str, title: str, caption: str, groups: Sequence[tuple[str, str, NDArray[Any]]], axis: str
) -> Chart:
    """Overlaid histograms of (label, colour, values [n] within 0..1), each as shares of its group.

    The bins cover 0 to 1, or the range of the values if that is less than a tenth of it.
    """
    everything = np.concatenate([values for *_, values in groups])
    low, high = float(everything.min()), float(everything.max())
    if high - low >= 0.1:
        low, high = 0.0, 1.0
    elif high == low:
        low, high = low - 0.01, high + 0.01
    edges = np.linspace(low, high, 41)
    counts = [np.histogram(values, edges)[0] for *_, values in groups]
    header = ("from", "to", *(label for label, *_ in groups))
    rows = [
        [*pair, *map(int, column)]
        for *pair, column in zip(edges[:-1], edges[1:], zip(*counts, strict=True), strict=True)
    ]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for (label, colour, values), column in zip(groups, counts, strict=True):
            share = column / len(values)
            text = f"{label}, mean {values.mean():.4g}"
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(share, edges, color=colour, label=text)
            axes.axvline(float(values.mean()), color=colour, linestyle=":")
        axes.set(xlabel=axis, ylabel="share of the group")
        axes.yaxis.set_major_formatter(percent_ticks)
        axes.locator_params(axis="x", nbins=6)
        axes.margins(x=0.02)
        _legend(figure, [axes])

    return Chart(name, title, caption, header, rows, draw)


def dot_chart(
    name: str,
    title: str,
    caption: str,
    rows: Sequence[tuple[str, float, float, int]],
    header: tuple[str, ...],
    axis: str,
) -> Chart:
    """Means and standard deviations of shares, from (label, mean, sd, count): a dot with a bar on a line for each."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        labels, means, deviations, _ = zip(*rows, strict=True)
        axes.errorbar(means, places, xerr=np.nan_to_num(deviations), fmt="o", color=BLUE, capsize=3)
        axes.set_yticks(places, labels)
        axes.set(xlabel=axis, ylim=(-0.6, len(rows) - 0.4))
        axes.xaxis.set_major_formatter(percent_ticks)

    return Chart(name, title, caption, header, rows, draw, HALF, 0.9 + 0.24 * max(len(rows), 4))
