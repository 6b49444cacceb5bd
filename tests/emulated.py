"""Runs a plan's kernel on the PTX emulator: the host side of a launch.

Every tensor lies in a larger buffer whose other bytes are poison: NaN codes around the inputs, a
pattern around the output that must survive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import emulator
import numpy as np

from gemmgen.dtypes import DTYPES
from gemmgen.plan import KernelParam, KernelPlan

NAN_CODE = 0x7F  # e4m3
UNTOUCHED = 0x5A  # in every byte: what no kernel writes by chance


@dataclass(frozen=True)
class Tensors:
    """Inputs of D = A B^T as a caller holds them: FP8 codes as bytes, FP32 scales."""

    a: np.ndarray  # uint8 [m, k]
    scale_a: np.ndarray  # float32 [m, ceil(k / 128)]
    b: np.ndarray  # uint8 [n, k]
    scale_b: np.ndarray  # float32 [ceil(n / 128), ceil(k / 128)]

    @property
    def sizes(self) -> dict[str, int]:
        return {"m": len(self.a), "n": len(self.b), "k": self.a.shape[1]}


def random_tensors(m: int, n: int, k: int, seed: int = 0) -> Tensors:
    """Normal data in FP8 codes, scales spread over two binades."""
    random = np.random.default_rng(seed)

    def codes(rows: int) -> np.ndarray:
        return emulator.floats.encode_fp8(8 * random.normal(size=(rows, k)), "e4m3")

    def scales(rows: int) -> np.ndarray:
        return random.uniform(0.5, 2, size=(rows, -(-k // 128))).astype(np.float32)

    return Tensors(codes(m), scales(m), codes(n), scales(-(-n // 128)))


def reference(tensors: Tensors) -> np.ndarray:
    """The float64 product of the dequantised inputs."""
    k = tensors.sizes["k"]
    a = emulator.floats.decode(tensors.a, "e4m3").astype(np.float64)
    b = emulator.floats.decode(tensors.b, "e4m3").astype(np.float64)
    a *= np.repeat(tensors.scale_a, 128, axis=1)[:, :k]
    b *= np.repeat(np.repeat(tensors.scale_b, 128, axis=0), 128, axis=1)[: len(b), :k]
    return a @ b.T


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """Frobenius norm of the difference, relative."""
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


class Launch:
    """One launch of a plan's kernel on its own memory."""

    def __init__(self, plan: KernelPlan, ptx: str, tensors: Tensors) -> None:
        self.plan = plan
        self.program = emulator.load(ptx)
        self.sizes = tensors.sizes
        self.memory = emulator.Memory()
        m, n, k = self.sizes["m"], self.sizes["n"], self.sizes["k"]
        self.d = DTYPES[plan.problem.d]
        pitch_d = n + 16 // self.d.bytes
        self.tensors = {
            "a": self._pitched(tensors.a, NAN_CODE, k + 16),
            "b": self._pitched(tensors.b, NAN_CODE, k + 32),
            "scale_a": self._pitched(tensors.scale_a.T, np.nan, -(-m // 4) * 4),
            "scale_b": (self.memory.place(tensors.scale_b), tensors.scale_b.shape[1]),
            "d": (self.memory.alloc((m + 1) * pitch_d * self.d.bytes, UNTOUCHED), pitch_d),
        }
        self.extents = {"a": (k, m), "b": (k, n), "scale_a": (m, -(-k // 128)), "d": (n, m)}

    def run(self, sms: int = 4, seed: int = 0) -> np.ndarray:
        """D as float32 [m, n]; raises AssertionError when anything around it was written."""
        plan, cluster = self.plan, self.plan.cluster
        rows = -(-self.sizes["m"] // (plan.tile.m * cluster.m))
        columns = -(-self.sizes["n"] // (plan.tile.n * cluster.n))
        clusters = min(rows * columns, max(sms // cluster.size, 1))
        emulator.launch(
            self.program,
            plan.name,
            grid=(clusters * cluster.size,),
            block=(plan.launch.threads,),
            cluster=(cluster.size,),
            shared_bytes=plan.launch.shared_bytes,
            args=[self._argument(param) for param in plan.params],
            memory=self.memory,
            seed=seed,
            registers=plan.warps.launch_registers // 8 * 8,
        )
        m, n = self.sizes["m"], self.sizes["n"]
        address, pitch = self.tensors["d"]
        raw = self.memory.read(address, (m + 1, pitch, self.d.bytes), np.uint8)
        assert (raw[m] == UNTOUCHED).all(), "rows beyond M were written"
        assert (raw[:, n:] == UNTOUCHED).all(), "columns beyond N were written"
        codes = np.ascontiguousarray(raw[:m, :n]).view(f"u{self.d.bytes}")[..., 0]
        return emulator.floats.decode(codes, self.d.name)

    def _pitched(self, rows: np.ndarray, poison: float, pitch: int) -> tuple[int, int]:
        """Address and pitch (elements) of rows that lie in a poisoned buffer."""
        buffer = np.full((len(rows), pitch), poison, rows.dtype)
        buffer[:, : rows.shape[1]] = rows
        return self.memory.place(buffer), pitch

    def _argument(self, param: KernelParam) -> Any:
        if param.kind == "scalar":
            return self.sizes[param.source]
        address, pitch = self.tensors[param.source]
        if param.kind == "pitch":
            return pitch
        if param.kind == "pointer":
            return address
        dims = self.extents[param.source]
        return emulator.TensorMap(
            address=address,
            element=param.dtype,
            dims=dims,
            strides=(pitch * DTYPES[param.dtype].bytes,),
            box=param.box_over(dims),
            swizzle=param.swizzle.span,
        )
