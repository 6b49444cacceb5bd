"""`gemmgen sweep`: many variants, built and timed. How, is known in `research`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="base, vary, where, shapes.")]
Results = Annotated[
    Path, typer.Option("--db", metavar="RESULTS.db", readable=False, help="SQLite; gone on with.")
]
NoGpu = Annotated[bool, typer.Option("--no-gpu", help="Build only.")]
Place = Annotated[str, typer.Option("--executor", help="local, or dask://host:port.")]
Builders = Annotated[
    int | None, typer.Option(min=1, help="Builds side by side; as many as cores by default.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Launches of each kernel that are timed.")]
L2 = Annotated[str, typer.Option(help="Before each launch: dirty, clean, or both with a comma.")]
Seed = Annotated[int, typer.Option(help="Of the inputs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Very many variants are meant.")]
AsLine = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


class Format(str, Enum):
    """What results can be exported to."""

    PARQUET = "parquet"
    CSV = "csv"


Export = Annotated[
    Format | None, typer.Option(help="Write all results beside the file, as one flat table.")
]


def sweep(
    definition: SweepFile,
    db: Results = Path("results.db"),
    no_gpu: NoGpu = False,
    executor: Place = "local",
    builders: Builders = None,
    rounds: Rounds = 24,
    l2: L2 = "dirty",
    seed: Seed = 0,
    export: Export = None,
    yes: Yes = False,
    as_json: AsLine = False,
) -> None:
    """Build and time every variant of a sweep; what the results file holds is not repeated."""
    from gemmgen.research.sweep import LARGE, Sweep
    from gemmgen.research.work import Options

    options = Options(rounds, tuple(l2.split(",")), seed)
    wanted = Sweep.from_yaml(definition, db)
    if wanted.space.size > LARGE and not yes and sys.stdin.isatty():
        yes = typer.confirm(f"{wanted.space.size:,} variants: are they meant?", err=True)
    wanted.run(
        gpu=not no_gpu,
        executor=executor,
        builders=builders,
        options=options,
        yes=yes,
        tell=None,
        say=lambda text: typer.echo(f"gemmgen: {text}", err=True),
    )
    counts = asdict(wanted.counts())
    if export is not None:
        from gemmgen.research.export import export as write

        path = write(wanted.rows(), export.value, db.with_suffix(f".{export.value}"))
        typer.echo(f"gemmgen: {path} is written", err=True)
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()) + f", in {db}")
