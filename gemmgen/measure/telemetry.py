"""Clock, power and temperature of the GPU while it is measured. Reads, and changes no setting."""

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
    celsius: list[float] = field(default_factory=list)

    @property
    def clock(self) -> int:
        return round(statistics.median(self.clocks))

    @property
    def power(self) -> int:
        return round(statistics.median(self.watts))

    @property
    def temperature(self) -> int:
        """The highest one."""
        return round(max(self.celsius))


@contextmanager
def sampling(uuid: str, samples: Samples | None = None) -> Iterator[Samples]:
    """Read a GPU in the background until the block ends, once at least; `samples` takes more."""
    read, done = _reader(uuid), threading.Event()
    samples = Samples() if samples is None else samples

    def sample() -> None:
        while True:
            clock, watts, celsius = read()
            samples.clocks.append(clock)
            samples.watts.append(watts)
            samples.celsius.append(celsius)
            if done.wait(INTERVAL):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def driver_version() -> str:
    return _nvidia_smi("driver_version").splitlines()[0]


def temperature(uuid: str) -> float:
    """Degrees Celsius now."""
    return _reader(uuid)()[2]


def _reader(uuid: str) -> Callable[[], tuple[float, float, float]]:
    """A function that reads clock (MHz), power (W) and degrees Celsius. `uuid` begins with GPU-."""
    if pynvml is None:

        def read() -> tuple[float, float, float]:
            fields = _nvidia_smi("clocks.sm,power.draw,temperature.gpu", uuid).split(",")
            clock, watts, celsius = map(float, fields)
            return clock, watts, celsius

        return read
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return lambda: (
        pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
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
