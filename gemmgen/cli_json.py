"""How every verb answers a program. Shared by the files of the command line."""

from __future__ import annotations

import json
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]


def print_json(record: object) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(record, indent=2))
