"""What an sm_90a device offers: the limits that passes check and name in their errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

COMPUTE_CAPABILITY = (9, 0)  # of every Hopper GPU; sm_90a code runs on no other
LARGEST_EXTENT = 2**31 - 1  # coordinates of a TMA copy are signed 32-bit integers (PTX ISA)


@dataclass(frozen=True)
class Target:
    """One device model. Sizes in bytes; registers are 32-bit.

    Sources: CUDA C++ Programming Guide, technical specifications of compute capability 9.0; PTX
    ISA, setmaxnreg.
    """

    name: str
    architecture: str
    sms: int  # multiprocessors; only the planner's sense of a wave, a kernel runs on any count
    memory: float  # TB/s that the data sheet gives; only for the planner, too
    shared_memory: int = 232_448  # a CTA's dynamic shared memory, opted in (227 KB)
    registers: int = 65_536  # of one multiprocessor
    cluster_size: int = 8  # largest portable cluster
    tma_box: int = 256  # elements along one axis of a TMA box
    tma_alignment: int = 16  # bytes: global addresses and strides of a tensor map


H200 = Target("NVIDIA H200", "sm_90a", sms=132, memory=4.8)
H100 = Target("NVIDIA H100 80GB HBM3", "sm_90a", sms=132, memory=3.35)
H100_PCIE = Target("NVIDIA H100 PCIe", "sm_90a", sms=114, memory=2.0)
DEVICES = {device.name: device for device in (H200, H100, H100_PCIE)}


def hopper(name: str, sms: int) -> Target:
    """Any device of the architecture, by the name that its driver gives and its multiprocessors."""
    return replace(DEVICES.get(name, H200), name=name, sms=sms)


class Swizzle(Enum):
    """Shared-memory address permutation of TMA and wgmma: the 16-byte chunks of a span are XORed
    with the index of the 128-byte line (PTX ISA, "Swizzling Modes")."""

    NONE = 0
    B32 = 32
    B64 = 64
    B128 = 128

    @property
    def span(self) -> int:
        """Bytes of one row of the pattern."""
        return self.value

    @property
    def mask(self) -> int:
        """Bits of the line index that are XORed onto the chunk index."""
        return max(self.value // 16 - 1, 0)

    @property
    def alignment(self) -> int:
        """Bytes after which the pattern repeats: what a buffer must be aligned to."""
        return max(self.value * 8, 128)
