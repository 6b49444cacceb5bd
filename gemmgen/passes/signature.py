"""The tensors that a caller passes and the parameters that the kernel takes, from one place.

The CUDA signature and the host's marshalling are both derived from the lists made here.
"""

from __future__ import annotations

from typing import Any

from gemmgen.dtypes import INDEX
from gemmgen.grouping import Grouping
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
    grouping: Grouping,
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

    def tensor(name: str, dtype: str, shape: tuple[Extent, ...], layout: str) -> TensorArgument:
        groups = (Extent("g"),) if name in grouping.grouped else ()
        return TensorArgument(name, dtype, (*groups, *shape), layout, written=name == "d")

    def tensor_map(name: str, dtype: str, box: tuple[int, int], *rest: Any) -> KernelParam:
        groups = (1,) if name in grouping.grouped else ()
        return KernelParam(f"tensor_map_{name}", "tensor_map", name, dtype, (*box, *groups), *rest)

    index = grouping.index
    by_pointer = store.direct or grouping.clipped
    # Rows that are written without a tensor map: groups are then apart by their rows alone.
    packed = grouping.clipped or (store.direct and "d" in grouping.grouped)
    box_a, box_b = (tile.k, operand_a.rows), (tile.k, operand_b.rows)
    arguments = (
        tensor("a", problem.a, (m, k), "row_major"),
        tensor("scale_a", "f32", (m, k_blocks), "m_major"),
        tensor("b", problem.b, (n, k), "row_major"),
        tensor("scale_b", "f32", (n_blocks, k_blocks), "contiguous"),
        *([tensor(index.name, INDEX.name, (Extent(index.extent),), "contiguous")] if index else []),
        tensor("d", problem.d, (m, n), "packed" if packed else "row_major"),
    )
    params = (
        tensor_map("a", problem.a, box_a, operand_a.swizzle, L2_PROMOTION),
        tensor_map("b", problem.b, box_b, operand_b.swizzle, L2_PROMOTION),
        tensor_map("scale_a", "f32", (promotion.scale_a_rows, 1), Swizzle.NONE, 128),
        *(
            []
            if store.direct
            else [tensor_map("d", problem.d, (store.columns, store.rows), store.swizzle)]
        ),
        KernelParam("scale_b", "pointer", "scale_b", "f32"),
        *([KernelParam(index.name, "pointer", index.name, INDEX.name)] if index else []),
        *([KernelParam("d", "pointer", "d", problem.d, written=True)] if by_pointer else []),
        *([KernelParam("pitch_d", "pitch", "d")] if store.direct else []),
        *(
            KernelParam(dimension, "scalar", dimension)
            for dimension in ("m", "n", "k")
            if getattr(problem, dimension) is None
        ),
    )
    return arguments, params
