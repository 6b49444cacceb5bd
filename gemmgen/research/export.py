"""A results file as one flat table for other programs: CSV, or Parquet by pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from gemmgen import cubin_file
from gemmgen.errors import ResultsError
from gemmgen.research.database import Row

FORMATS = ("parquet", "csv")


def export(rows: Sequence[Row], form: str, path: Path) -> Path:
    """Write rows to a file, whole or not at all. Raises OutputError, and ResultsError without
    pyarrow for Parquet."""
    content = _parquet(rows, path) if form == "parquet" else _csv(rows)
    cubin_file.write(path, content, "the table")
    return path


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(rows))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row], path: Path) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ResultsError(
            "Parquet is written by pyarrow, which is not installed",
            where=path,
            got=error,
            fix='pip install "gemmgen[research]", or --export csv',
        ) from None
    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    for name, values in columns.items():
        if len({type(value) for value in values} - {type(None)}) > 1:  # "auto" among numbers
            columns[name] = [None if value is None else str(value) for value in values]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """The columns of all rows, in order: sweeps of one file have different axes."""
    return list(dict.fromkeys(name for row in rows for name in row))
