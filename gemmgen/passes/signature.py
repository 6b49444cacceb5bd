"""The tensors that a caller passes and the parameters that the kernel takes, from one place.

The CUDA signature and the host's marshalling are both derived from the lists made here.
"""

from __future__ import annotations

from gemmgen.dtypes import INDEX
from gemmgen.grouping import Grouping
from gemmgen.plan import (
    Extent,
    KernelParam,
    Operand,
    Problem,
    Promotion,
    Scales,
    Store,
    TensorArgument,
)
from gemmgen.target import Swizzle

OUTPUTS = ("d", "scale_d")
L2_PROMOTION, SCALE_L2_PROMOTION = 256, 128  # bytes that a missed line brings into L2
TMA_SCALES = 4  # FP32 in the 16 bytes of which a TMA box is a multiple


def derive_signature(
    problem: Problem,
    grouping: Grouping,
    operand_a: Operand,
    operand_b: Operand,
    promotion: Promotion,
    store: Store,
) -> tuple[tuple[TensorArgument, ...], tuple[KernelParam, ...]]:
    """Arguments in call order, parameters in signature order."""
    m, n, k = Extent("m"), Extent("n"), Extent("k")
    scales_a, scales_b = promotion.scales_a, promotion.scales_b

    def tensor(
        name: str, dtype: str, shape: tuple[Extent, ...], layout: str, like: str = "", **how: bool
    ) -> TensorArgument:
        """Grouped where the argument is that it is like; by default, itself."""
        groups = (Extent("g"),) if (like or name) in grouping.grouped else ()
        return TensorArgument(name, dtype, (*groups, *shape), layout, name in OUTPUTS, **how)

    def tensor_map(
        name: str,
        dtype: str,
        box: tuple[int, int],
        swizzle: Swizzle,
        l2_promotion: int = 0,
        fitted: tuple[int, ...] = (),
    ) -> KernelParam:
        return KernelParam(
            *(f"tensor_map_{name}", "tensor_map", name, dtype),
            box=(*box, *(1,) * (name in grouping.grouped)),
            fitted=fitted,
            swizzle=swizzle,
            l2_promotion=l2_promotion,
        )

    def operand_map(of: Operand, dtype: str) -> KernelParam:
        fitted = (1, 1) if of.fitted else ()  # rows are the outer axis
        return tensor_map(of.name, dtype, of.box, of.swizzle, L2_PROMOTION, fitted)

    def scale_map(of: Operand, scales: Scales) -> KernelParam:
        fitted = (0, TMA_SCALES) if of.fitted else ()  # rows are contiguous
        box = (scales.rows, 1)
        return tensor_map(f"scale_{of.name}", "f32", box, Swizzle.NONE, SCALE_L2_PROMOTION, fitted)

    def matrix(operand: Operand, dtype: str, rows: Extent) -> TensorArgument:
        shape = (rows, k) if operand.major == "k" else (k, rows)
        return tensor(operand.name, dtype, shape, "row_major")

    def scale(name: str, scales: Scales, axis: str) -> list[TensorArgument]:
        if scales.way == "none":
            return []
        blocks = (_blocks(axis, scales.block_mn), _blocks("k", scales.block_k))
        layout = "m_major" if scales.way == "stage" else "contiguous"
        return [tensor(name, "f32", blocks, layout)]

    index = grouping.index
    by_pointer = store.direct or grouping.clipped
    # Rows that are written without a tensor map: groups are then apart by their rows alone.
    packed = grouping.clipped or (store.direct and "d" in grouping.grouped)
    scales_d = []
    if block := store.scale_columns:
        scales_d = [tensor("scale_d", "f32", (m, Extent("n", block)), "m_major", like="d")]
    arguments = (
        matrix(operand_a, problem.a, m),
        *scale("scale_a", scales_a, "m"),
        matrix(operand_b, problem.b, n),
        *scale("scale_b", scales_b, "n"),
        *([tensor(index.name, INDEX.name, (Extent(index.extent),), "contiguous")] if index else []),
        *([tensor("bias", bias, (n,), "contiguous", like="b")] if (bias := problem.bias) else []),
        *([tensor("c", c, (m, n), "packed", like="d", in_place=True)] if (c := problem.c) else []),
        tensor("d", problem.d, (m, n), "packed" if packed else "row_major"),
        *scales_d,
    )
    scales = (("scale_a", operand_a, scales_a), ("scale_b", operand_b, scales_b))
    params = (
        operand_map(operand_a, problem.a),
        operand_map(operand_b, problem.b),
        *(scale_map(operand, of) for _, operand, of in scales if of.by_map),
        *(
            []
            if store.direct
            else [tensor_map("d", problem.d, (store.columns, store.rows), store.swizzle)]
        ),
        *(KernelParam(name, "pointer", name, "f32") for name, _, of in scales if of.by_pointer),
        *([KernelParam(index.name, "pointer", index.name, INDEX.name)] if index else []),
        *([KernelParam("bias", "pointer", "bias", bias)] if bias else []),
        *([KernelParam("c", "pointer", "c", c, in_place=True)] if c else []),
        *([KernelParam("d", "pointer", "d", problem.d, written=True)] if by_pointer else []),
        *(KernelParam(of.name, "pointer", of.name, "f32", written=True) for of in scales_d),
        *([KernelParam("pitch_d", "pitch", "d", "u64")] if store.direct else []),
        *(
            KernelParam(dimension, "scalar", dimension)
            for dimension in ("m", "n", "k")
            if getattr(problem, dimension) is None
        ),
    )
    return arguments, params


def _blocks(axis: str, block: int) -> Extent:
    """Scales along an axis; one when all elements of it share one."""
    return Extent(axis, block) if block else Extent("1")
