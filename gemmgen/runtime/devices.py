"""The GPUs of this machine, by name. Source: CUDA Driver API, "Device Management"."""

from __future__ import annotations

from cuda.bindings import driver as cuda

from gemmgen.errors import DeviceError
from gemmgen.runtime import driver
from gemmgen.target import H200, Target, hopper


def names() -> list[str]:
    """Of all GPUs, as torch gives them. Raises DeviceError when there is no driver or no GPU."""
    driver.initialize()
    _, count = cuda.cuDeviceGetCount()
    devices = (cuda.cuDeviceGet(index)[1] for index in range(count))
    return [cuda.cuDeviceGetName(64, device)[1].rstrip(b"\0").decode() for device in devices]


def first_target() -> Target:
    """What the planner counts on where nobody says: the first GPU, an H200 where there is none."""
    try:
        name, *_ = names()
    except DeviceError:
        return H200
    return hopper(name, driver.multiprocessors(0))
