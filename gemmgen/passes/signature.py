"""The tensors that a caller passes and the parameters that the kernel takes, from one place.

The CUDA signature and the host's marshalling are both derived from the lists made here.
"""

from __future__ import annotations

from gemmgen.passes.store_path import WARP_ROWS
from gemmgen.plan import (
    Extent,
    KernelParam,
    Operand,
    Problem,
    Promotion,
    Store,
    TensorArgument,
    Tile,
)
from gemmgen.target import Swizzle

L2_PROMOTION = 256  # bytes that a missed line brings into L2


def derive_signature(
    problem: Problem,
    tile: Tile,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
    store: Store,
) -> tuple[tuple[TensorArgument, ...], tuple[KernelParam, ...]]:
    """Arguments in call order, parameters in signature order."""
    m, n, k = Extent("m"), Extent("n"), Extent("k")
    k_blocks = Extent("k", promotion.interval_k)
    n_blocks = Extent("n", promotion.scale_b_block_n)
    arguments = (
        TensorArgument("a", problem.a, (m, k), "row_major", written=False),
        TensorArgument("scale_a", "f32", (m, k_blocks), "m_major", written=False),
        TensorArgument("b", problem.b, (n, k), "row_major", written=False),
        TensorArgument("scale_b", "f32", (n_blocks, k_blocks), "contiguous", written=False),
        TensorArgument("d", problem.d, (m, n), "row_major", written=True),
    )

    def operand(part: Operand, dtype: str) -> KernelParam:
        box = (tile.k, part.rows)
        return KernelParam(
            f"tensor_map_{part.name}",
            "tensor_map",
            part.name,
            dtype,
            box,
            part.swizzle,
            L2_PROMOTION,
        )

    params = (
        operand(operand_a, problem.a),
        operand(operand_b, problem.b),
        KernelParam(
            "tensor_map_scale_a", "tensor_map", "scale_a", "f32", (tile.m, 1), Swizzle.NONE, 128
        ),
        KernelParam(
            "tensor_map_d", "tensor_map", "d", problem.d, (store.columns, WARP_ROWS), store.swizzle
        ),
        KernelParam("scale_b", "pointer", "scale_b", "f32"),
        *(
            KernelParam(dimension, "scalar", dimension)
            for dimension in ("m", "n", "k")
            if getattr(problem, dimension) is None
        ),
    )
    return arguments, params
