"""`gemmgen report`: results as a page and pictures. What they show, is known in `research`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS...", readable=False, help="Files of `gemmgen sweep`, lines of the bench."
    ),
]
Folder = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="index.html, and a PNG and SVG each.")
]


def report(results: Sources, out: Folder = Path("report")) -> None:
    """Draw results: peers, limits, tiles, axes, code, the cost model; every kernel's text."""
    from gemmgen.research.report.write import report as write

    typer.echo(write(results, out))
