"""Clock and power of the GPU while it is measured. Reads, and touches no setting of the card."""

from __future__ import annotations

import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gemmgen.errors import DeviceError

try:
    import pynvml
except ImportError:  # nvidia-smi answers the same questions, a thousand times slower
    pynvml = None

INTERVAL = 0.01  # seconds between two readings


@dataclass
class Samples:
    """Readings over one measurement."""

    clocks: list[float] = field(default_factory=list)  # MHz, of the multiprocessors
    watts: list[float] = field(default_factory=list)

    @property
    def clock(self) -> int:
        return round(statistics.median(self.clocks))

    @property
    def power(self) -> int:
        return round(statistics.median(self.watts))


@contextmanager
def sampling(uuid: str) -> Iterator[Samples]:
    """Read clock and power of a GPU in the background until the block ends, once at least."""
    read, samples, done = _reader(uuid), Samples(), threading.Event()

    def sample() -> None:
        while True:
            clock, watts = read()
            samples.clocks.append(clock)
            samples.watts.append(watts)
            if done.wait(INTERVAL):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def device_name() -> str:
    """Name of the machine's first GPU."""
    return _nvidia_smi("name").splitlines()[0]


def driver_version() -> str:
    return _nvidia_smi("driver_version").splitlines()[0]


def _reader(uuid: str) -> Callable[[], tuple[float, float]]:
    """A function that reads clock (MHz) and power (W). `uuid` begins with GPU-."""
    if pynvml is None:

        def read() -> tuple[float, float]:
            clock, watts = _nvidia_smi("clocks.sm,power.draw", uuid).split(",")
            return float(clock), float(watts)

        return read
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return lambda: (
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    )


def _nvidia_smi(query: str, uuid: str | None = None) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += ["-i", uuid] if uuid else []
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise DeviceError(
            "there is no GPU to measure on",
            expected="nvidia-smi, which comes with NVIDIA's driver, and a GPU that it shows",
            got=error,
        ) from None
