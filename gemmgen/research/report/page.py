"""One HTML file that needs nothing but a browser: figures, the table, and every kernel's text."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from gemmgen.research.report.figures import DARK, GREY, Figure, Grid, Panel, Series, digits
from gemmgen.research.report.rows import Results, Row
from gemmgen.version import __version__

# What the table shows: name, title, digits of a number; None: text.
COLUMNS: tuple[tuple[str, str, int | None], ...] = (
    *(("problem", "problem", None), ("candidate", "candidate", None), ("label", "kernel", None)),
    *(("state", "L2", None), ("us", "us", 2), ("us_spread", "±", 2), ("best", "over best", 3)),
    *(("tflops", "TFLOP/s", 0), ("gbps", "GB/s", 0), ("predicted_us", "predicted us", 2)),
    *(("error", "error", 5), ("registers", "registers", 0), ("instructions", "instructions", 0)),
    *(("build_seconds", "build s", 2), ("sm_clock_mhz", "MHz", 0), ("watts", "W", 0)),
    ("status", "status", None),
)
# What the side panel shows beside the columns of the table.
DETAILS = (
    *("kernel", "device", "run", "when", "scales", "dtypes", "sweep", "reason", "events_us"),
    *("equal_bits", "celsius", "longest_ffma_row", "ffma", "ffma_yielding", "planned"),
)
FONT = {"family": "Inter, system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13}
LINE = "#E4E7EB"
HEAT = [[0, "#0B6E4F"], [0.25, "#7BC8A4"], [0.5, "#FDF6E3"], [0.75, "#F2A65A"], [1, "#B23A48"]]
MOST_NAMES = 6  # on an axis, before they are turned
GAP, GAP_TURNED = 110, 165  # px between two rows of panels
COLORBAR = {
    **{"title": {"text": "x best"}, "thickness": 12, "lenmode": "pixels", "len": 220},
    **{"yanchor": "top", "y": 1},
}
MARGIN = {"l": 68, "r": 24, "t": 48, "b": 56}


def html(results: Results, figures: Sequence[Figure]) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gemmgen.research", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = results.rows
    return environment.get_template("page.html.jinja").render(
        style=_resource("page.css"),
        script=_resource("page.js"),
        plotly=get_plotlyjs(),
        figures=figures,
        data=_packed(
            {
                "columns": [{"name": n, "title": t, "digits": d} for n, t, d in COLUMNS],
                "rows": [_record(row) for row in rows],
                "texts": results.texts,
                "figures": {figure.key: drawn(figure) for figure in figures},
            }
        ),
        sources=", ".join(results.sources),
        devices=", ".join(dict.fromkeys(row["device"] for row in rows if row["device"]))
        or "no GPU",
        kernels=len({row["kernel"] for row in rows if row["candidate"] == "gemmgen"} - {None}),
        times=len(results.timed),
        problems=len({row["problem"] for row in rows if row["problem"]}),
        version=__version__,
    )


def drawn(figure: Figure) -> dict[str, Any]:
    """A figure as Plotly's JSON."""
    columns, lines = figure.columns, figure.lines
    turned = any(len(panel.names) > MOST_NAMES for panel in figure.panels)
    gap = (GAP_TURNED if turned else GAP) / max(figure.height * lines, 1)
    plot = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=[panel.title for panel in figure.panels],
        horizontal_spacing=0.09 if columns > 1 else 0.0,
        vertical_spacing=gap if lines > 1 else 0.0,
    )
    for place, panel in enumerate(figure.panels):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for series in panel.series:
            plot.add_trace(_trace(series), **at)
        if panel.grid:
            plot.add_trace(_heat(panel.grid, first=place == 0), **at)
        for mark in panel.marks:
            plot.add_hline(mark, line={"color": DARK, "width": 1, "dash": "dot"}, **at)
        _axes(plot, panel, at)
    plot.update_layout(
        template="none",
        height=figure.height * lines,
        font={**FONT, "color": DARK},
        margin=MARGIN,
        hovermode="closest",
        plot_bgcolor="white",
        paper_bgcolor="white",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
        boxgap=0.4,
    )
    found: dict[str, Any] = json.loads(plot.to_json())
    return found


def _axes(plot: Any, panel: Panel, at: dict[str, int]) -> None:
    common = {"gridcolor": LINE, "zeroline": False, "linecolor": GREY, "ticks": "outside"}
    common |= {"tickcolor": LINE, "automargin": True}
    for axis, update, title, log in (
        ("x", plot.update_xaxes, panel.x, panel.log_x),
        ("y", plot.update_yaxes, panel.y, panel.log_y),
    ):
        scale: dict[str, Any] = {}
        if log:
            marks = digits(panel, axis)
            scale = {"type": "log", "tickvals": marks, "ticktext": [f"{at:g}" for at in marks]}
        update(title={"text": title, "standoff": 8}, **common, **scale, **at)
    if panel.names:
        order = {"categoryorder": "array", "categoryarray": list(panel.names)}
        beside = 0.5 if len(panel.names) > 2 else 1.0
        ends = [-beside, len(panel.names) - 1 + beside]
        plot.update_xaxes(type="category", range=ends, **order, **at)
    if panel.grid:
        for update in (plot.update_xaxes, plot.update_yaxes):
            update(type="category", showgrid=False, **at)


def _trace(series: Series) -> Any:
    shared: dict[str, Any] = {
        "name": series.name,
        "x": list(series.x),
        "y": list(series.y),
        "showlegend": bool(series.name) and series.listed,
        "legendgroup": series.name or None,
        "customdata": list(series.rows) or None,
    }
    if series.style in ("line", "dashes"):
        dash = "dash" if series.style == "dashes" else "solid"
        line = {"color": series.color, "width": 1.5, "dash": dash}
        return go.Scatter(**shared, mode="lines", line=line, hoverinfo="skip")
    hover = {"text": list(series.notes), "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>"}
    if series.style == "box":
        return go.Box(
            **shared,
            **hover,
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            width=0.4,
            line={"color": series.color, "width": 1.5},
            fillcolor="rgba(0,0,0,0)",
            marker={"color": series.color, "size": 4, "opacity": 0.45},
        )
    symbol = "circle-open" if series.style == "hollow" else "circle"
    many = len(series.x) > 60
    marker = {
        "color": series.color,
        "size": 6 if many else 9,
        "opacity": 0.6 if many else 0.9,
        "symbol": symbol,
        "line": {"width": 1.5 if series.style == "hollow" else 0, "color": series.color},
    }
    return go.Scatter(**shared, **hover, mode="markers", marker=marker)


def _heat(grid: Grid, first: bool) -> Any:
    return go.Heatmap(
        x=list(grid.across),
        y=list(grid.down),
        z=[list(line) for line in grid.values],
        customdata=[list(line) for line in grid.rows],
        text=[[f"{v:.2f}" if v is not None else "" for v in line] for line in grid.values],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertext=[list(line) for line in grid.notes],
        hovertemplate="%{hovertext}<br>%{z:.3f} x the best<extra></extra>",
        colorscale=HEAT,
        zmin=grid.low,
        zmax=grid.high,
        xgap=2,
        ygap=2,
        showscale=first,
        colorbar=COLORBAR,
        hoverongaps=False,
    )


def _record(row: Row) -> dict[str, Any]:
    names = [*(name for name, _, _ in COLUMNS), *DETAILS, "text"]
    record = {name: row.get(name) for name in names if row.get(name) not in (None, "")}
    return record | {"state": "back to back" if row["pace"] == "back_to_back" else row["l2"]}


def _packed(data: Any) -> str:
    """Compressed, since the texts of many kernels are much alike; in base 64."""
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _resource(name: str) -> str:
    return resources.files("gemmgen.research.report").joinpath(name).read_text(encoding="utf-8")
