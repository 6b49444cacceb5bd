"""The three limits that a time is held against, all seen in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gemmgen.dtypes import DTYPES
from gemmgen.model import MACS
from gemmgen.research.bench.problem import BenchProblem


@dataclass(frozen=True)
class Limits:
    """Each is None where it was not measured."""

    stream_us: float | None  # a plain read of as many bytes
    peak_tflops: float | None  # of the tensor cores at the clock that was seen
    unscaled_us: float | None  # cuBLASLt without block scales

    def ratios(self, us: float, flops: int) -> dict[str, float | None]:
        """The share of each limit that a time reaches; above 1 it is better than the limit."""
        tflops = 1e-6 * flops / us
        return {
            "of_stream": _ratio(self.stream_us, us),
            "of_peak": _ratio(tflops, self.peak_tflops),
            "of_unscaled": _ratio(self.unscaled_us, us),
        }


def limits(problem: BenchProblem, times: Mapping[str, float], clock_mhz: float, sms: int) -> Limits:
    """From what candidates took, in us, and what the card did meanwhile."""
    bits = operand_bits(problem.dtypes)
    unscaled = "cublaslt_tensor_fast" if bits == 8 else "torch_bf16"
    peak = 2 * MACS[bits] * sms * clock_mhz * 1e-6
    return Limits(times.get("stream_read"), peak or None, times.get(unscaled))


def operand_bits(dtypes: str) -> int:
    """Of the wider operand in `e4m3/e4m3/bf16`, which is what the tensor cores compute with."""
    return max(DTYPES[name].bits for name in dtypes.split("/")[:2])


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else round(above / below, 4)
