"""Every figure as PNG and SVG, for papers. Drawn by matplotlib, which needs no browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullFormatter

from gemmgen.research.report.figures import DARK, GREY, Figure, Grid, Panel, Series, digits

DPI = 160
WIDTH, HEIGHT = 10.0, 100.0  # inches across, px of a figure to an inch of height
HEAT = ("#0B6E4F", "#7BC8A4", "#FDF6E3", "#F2A65A", "#B23A48")
LINE = "#E4E7EB"
STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": GREY,
    "axes.labelcolor": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "gemmgen",  # the same file for the same results
}
DARK_CELLS = 0.35  # of the range, from its middle, where black text is hard to read
MOST_NAMES = 6  # on an axis, before they are turned


def write(figures: Sequence[Figure], folder: Path) -> None:
    """`<key>.png` and `<key>.svg` of each. Raises OSError."""
    with matplotlib.rc_context(STYLE):
        for figure in figures:
            canvas = _drawn(figure)
            canvas.savefig(folder / f"{figure.key}.png", dpi=DPI)
            canvas.savefig(folder / f"{figure.key}.svg", metadata={"Date": None})


def _drawn(figure: Figure) -> Canvas:
    size = (WIDTH, 0.6 + figure.lines * figure.height / HEIGHT)
    canvas = Canvas(figsize=size, layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=DARK)
    places = canvas.subplots(figure.lines, figure.columns, squeeze=False).flat
    for place, panel in zip(places, figure.panels, strict=False):
        _panel(place, panel)
    for spare in list(places):
        spare.remove()
    if any(series.name for panel in figure.panels for series in panel.series):
        canvas.legend(frameon=False, fontsize=8, ncols=6, loc="outside lower center")
    return canvas


def _panel(place: Any, panel: Panel) -> None:
    place.set_xlabel(panel.x)
    place.set_ylabel(panel.y)
    place.set_title(panel.title, fontsize=9, color=DARK)
    if panel.grid:
        _heat(place, panel.grid)
        return
    order = {name: at for at, name in enumerate(dict.fromkeys(panel.names))}
    for number, series in enumerate(panel.series):
        _series(place, series, [order[x] if isinstance(x, str) else x for x in series.x], number)
    if order:
        turned = len(order) > MOST_NAMES
        place.set_xticks(range(len(order)), list(order))
        place.tick_params(axis="x", labelrotation=45 if turned else 0)
        beside = 0.5 if len(order) > 2 else 1.0
        place.set_xlim(-beside, len(order) - 1 + beside)
        if turned:
            for label in place.get_xticklabels():
                label.set_ha("right")
    for mark in panel.marks:
        place.axhline(mark, color=DARK, linewidth=0.8, linestyle=":")
    for name, log, axis, scale in (
        ("x", panel.log_x, place.xaxis, place.set_xscale),
        ("y", panel.log_y, place.yaxis, place.set_yscale),
    ):
        if log:
            scale("log")
            shown = axis.get_view_interval()
            marks = [at for at in digits(panel, name) if shown[0] <= at <= shown[1]]
            axis.set_ticks(marks, [f"{at:g}" for at in marks])
            axis.set_minor_formatter(NullFormatter())


def _series(place: Any, series: Series, x: Sequence[float], number: int) -> None:
    label = series.name if series.name and series.listed else "_"
    if series.style in ("line", "dashes"):
        style = "--" if series.style == "dashes" else "-"
        place.plot(x, series.y, color=series.color, linewidth=1.1, linestyle=style, label=label)
        return
    if series.style == "box":
        line = {"color": series.color, "linewidth": 1.1}
        place.boxplot(
            [series.y],
            positions=[x[0]],
            widths=0.5,
            showfliers=False,
            **{"boxprops": line, "whiskerprops": line, "capprops": line, "medianprops": line},
        )
        # Beside each other by the golden ratio: spread, and the same in every picture.
        shifts = [0.4 * (at * (math.sqrt(5) - 1) / 2 % 1 - 0.5) for at in range(len(x))]
        x = [at + shift for at, shift in zip(x, shifts, strict=True)]
    many = len(x) > 60 or series.style == "box"
    place.scatter(
        x,
        series.y,
        s=9 if many else 26,
        alpha=0.5 if many else 0.9,
        facecolors="none" if series.style == "hollow" else series.color,
        edgecolors=series.color if series.style == "hollow" else "none",
        label=label,
        zorder=3 + number / 100,
    )


def _heat(place: Any, grid: Grid) -> None:
    colours = LinearSegmentedColormap.from_list("times", HEAT)
    values = [[math.nan if v is None else v for v in line] for line in grid.values]
    place.imshow(values, cmap=colours, vmin=grid.low, vmax=grid.high, aspect="auto", origin="lower")
    place.set_xticks(range(len(grid.across)), list(grid.across))
    place.set_yticks(range(len(grid.down)), list(grid.down))
    place.grid(False)
    middle = (grid.low + grid.high) / 2
    for row, line in enumerate(grid.values):
        for column, value in enumerate(line):
            if value is None:
                continue
            dark = abs(value - middle) > DARK_CELLS * (grid.high - grid.low)
            text = {"ha": "center", "va": "center", "fontsize": 7}
            place.text(column, row, f"{value:.2f}", color="white" if dark else DARK, **text)
    for axis, count in ((place.xaxis, len(grid.across)), (place.yaxis, len(grid.down))):
        axis.set_ticks([at - 0.5 for at in range(1, count)], minor=True)
    place.grid(which="minor", color="white", linewidth=1.5)
    place.tick_params(which="minor", length=0)
