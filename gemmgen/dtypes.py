"""Element types: one row each, with every spelling that a stage needs."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class DType:
    """One element type of an operand or of the output."""

    name: str  # the spec's spelling
    ptx: str  # type suffix in `wgmma.mma_async` and `cvt`
    bits: int
    torch: str  # attribute of the torch module
    tensor_map: str  # CU_TENSOR_MAP_DATA_TYPE_*; FP8 travels as bytes
    largest: float  # largest finite magnitude
    mma_k: int  # K of one wgmma on operands of this type (PTX ISA, wgmma.mma_async); 0: no operand

    @property
    def bytes(self) -> int:
        return self.bits // 8


# Of the tensors that tell a kernel its groups; no operand has it.
INDEX = DType("i32", "s32", 32, "int32", "INT32", 2147483647.0, 0)

DTYPES = MappingProxyType(
    {
        row.name: row
        for row in (
            DType("e4m3", "e4m3", 8, "float8_e4m3fn", "UINT8", 448.0, 32),
            DType("e5m2", "e5m2", 8, "float8_e5m2", "UINT8", 57344.0, 32),
            DType("bf16", "bf16", 16, "bfloat16", "BFLOAT16", 3.3895313892515355e38, 16),
            DType("f16", "f16", 16, "float16", "FLOAT16", 65504.0, 16),
            DType("f32", "f32", 32, "float32", "FLOAT32", 3.4028234663852886e38, 0),
        )
    }
)
