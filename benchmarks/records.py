"""Names of runs and of the files that hold their results."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gemmgen.measure.telemetry import device_name

RESULTS = Path(__file__).parent / "results"


def new_run() -> str:
    """An id that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"


def results_file(what: str) -> Path:
    """Where results of a benchmark go on this machine. Raises DeviceError without a GPU."""
    return RESULTS / f"{what}-{'-'.join(device_name().lower().split())}.jsonl"
