"""What a figure shows, as plain data: whoever draws it decides nothing but looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

Style = Literal["points", "hollow", "line", "dashes", "box"]
Coordinate = float | str

# The palette of Okabe and Ito, which everybody can tell apart.
COLORS = {
    **{"gemmgen": "#0072B2", "deep_gemm": "#D55E00", "cublaslt_block": "#E69F00"},
    **{"cublaslt_tensor_fast": "#009E73", "cublaslt_row": "#8C6D31", "torch_bf16": "#56B4E9"},
    **{"triton_block": "#CC79A7", "stream_read": "#7F7F7F"},
}
OTHER_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31")
GREY = "#9AA5B1"
DARK = "#1F2933"


@dataclass(frozen=True)
class Series:
    """Points or a line."""

    name: str
    x: Sequence[Coordinate]
    y: Sequence[float]
    color: str = COLORS["gemmgen"]
    style: Style = "points"
    rows: Sequence[int | None] = ()  # what a click on each point opens
    notes: Sequence[str] = ()  # what each point says
    listed: bool = True  # in the legend, unless the name is empty


@dataclass(frozen=True)
class Grid:
    """A heat map; None where nothing was measured."""

    across: Sequence[str]
    down: Sequence[str]
    values: Sequence[Sequence[float | None]]  # [down][across]
    rows: Sequence[Sequence[int | None]]
    notes: Sequence[Sequence[str]]
    low: float = 1.0
    high: float = 2.0


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    x: str
    y: str
    series: Sequence[Series] = ()
    grid: Grid | None = None
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: Sequence[float] = ()  # horizontal lines
    names: Sequence[str] = ()  # of x, in order, where it is no number


NARROW = 30.0  # a range whose logarithmic axis has room for more marks than powers of ten


def digits(panel: Panel, axis: str) -> list[float]:
    """Where a logarithmic axis, `x` or `y`, wants marks: at some digits, or at powers of ten."""
    values = [at for each in panel.series for at in getattr(each, axis) if isinstance(at, float)]
    if not values or min(values) <= 0:
        return []
    low, high = min(values), max(values)
    each: tuple[float, ...] = (1, 1.5, 2, 3, 5, 7) if high < NARROW * low else (1,)
    decades = range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
    return [digit * 10.0**decade for decade in decades for digit in each]


@dataclass(frozen=True)
class Figure:
    """One or several panels that belong together."""

    key: str  # name of its files, and its place in the page
    short: str  # its title in a list
    title: str
    says: str  # what is to be seen
    panels: Sequence[Panel]
    columns: int = 1
    height: int = 460  # px of a row of panels

    @property
    def lines(self) -> int:
        """Rows of panels."""
        return -(-len(self.panels) // self.columns)
