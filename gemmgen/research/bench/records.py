"""Results as lines of JSON: which columns they have, where they go, how they are read.

`line.schema.json` says what a line holds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from gemmgen.errors import OutputError, ResultsError

SCHEMA = "line.schema.json"
RESULTS = Path("benchmarks/results")
PACKAGES = ("torch", "triton", "deep_gemm", "sgl-deep-gemm", "cuda-bindings")

Line = dict[str, Any]


def new_run() -> str:
    """An id that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"


def results_file(what: str, device: str, folder: Path = RESULTS) -> Path:
    """Where results of a kind go on a device."""
    return folder / f"{what}-{'-'.join(device.lower().split())}.jsonl"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def package_versions() -> dict[str, str]:
    """Of those packages that are installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def schema() -> Mapping[str, Any]:
    """The JSON Schema of one line."""
    text = resources.files("gemmgen.research.bench").joinpath(SCHEMA).read_text(encoding="utf-8")
    return dict(json.loads(text))


def append(path: Path, lines: Iterable[Line]) -> None:
    """Add lines to a file, which is made when it is not there. Raises OutputError."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(
            "results cannot be written", where=path, got=error.strerror, fix="another --out"
        ) from None


def read(path: Path) -> list[Line]:
    """All lines of a file. Raises ResultsError, which says where the file is not one of results."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError("the results cannot be read", where=path, got=error) from None
    lines = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise _not_a_line(path, number, error) from None
        missing = {"candidate", "us"} - line.keys() if isinstance(line, dict) else {"an object"}
        if missing:
            raise _not_a_line(path, number, f"no {', '.join(sorted(missing))}")
        lines.append(line)
    return lines


def _not_a_line(path: Path, number: int, got: object) -> ResultsError:
    return ResultsError(
        "this is not a line of results",
        where=f"{path}, line {number}",
        expected=f"an object with the columns of {SCHEMA}",
        got=got,
    )
