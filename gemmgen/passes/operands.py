"""How A and B lie in shared memory: swizzle, stage size, L2 priority of their loads."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.passes.structure import Structure
from gemmgen.passes.tiling import SWIZZLE_SPAN
from gemmgen.plan import Cluster, Operand, Problem, Tile
from gemmgen.spec import GemmSpec
from gemmgen.target import Swizzle

MMA_K_BYTES = 32  # of a K-major row that one wgmma reads (PTX ISA, wgmma.mma_async)
MMA_ROW_BYTES = 16 * SWIZZLE_SPAN  # MN-major: 16 elements of K, each a row of one span


def place_operands(
    spec: GemmSpec, problem: Problem, structure: Structure, tile: Tile, cluster: Cluster
) -> tuple[Operand, Operand]:
    """A and B as boxes whose rows fill one swizzle span.

    PTX ISA, "Strides" of wgmma's shared-memory layouts: a K-major row holds the K tile; an MN-major
    row holds 64 elements of M or N, for one element of K.
    """
    hint_a, hint_b, reason = _hints(spec, problem, tile.m * cluster.m)
    major_a = "mn" if problem.layout[0] == "t" else "k"
    major_b = "mn" if problem.layout[1] == "n" else "k"

    # Where one tile has all rows, those that TMA would fill with zeros, slowly, are left out.
    whole = cluster.multicast_a or structure.a_stationary
    fitted = spec.grouping == "dense" and major_a == "k" and not whole
    fits = "; boxes end where A does: zeros that TMA fills in are slow"

    def place(
        name: str, rows: int, dtype: str, major: str, hint: str, fitted: bool = False
    ) -> Operand:
        span = SWIZZLE_SPAN // DTYPES[dtype].bytes
        box = (span, rows) if major == "k" else (span, tile.k)
        boxes = 1 if major == "k" else -(-rows // span)
        return Operand(
            name=name,
            rows=rows,
            major=major,
            box=box,
            boxes=boxes,
            box_bytes=SWIZZLE_SPAN * box[1],
            leading_bytes=SWIZZLE_SPAN * box[1] if major == "mn" else 16,
            mma_bytes=MMA_K_BYTES if major == "k" else MMA_ROW_BYTES,
            swizzle=Swizzle(SWIZZLE_SPAN),
            fitted=fitted,
            l2_hint=hint,
            reason=reason + fits * fitted,
        )

    return (
        place("a", tile.m, problem.a, major_a, hint_a, fitted),
        place("b", tile.n, problem.b, major_b, hint_b),
    )


def _hints(spec: GemmSpec, problem: Problem, rows: int) -> tuple[str, str, str]:
    if spec.l2_hint != "auto":
        return spec.l2_hint.a, spec.l2_hint.b, "rows fill one swizzle span; L2 hints asked for"
    if problem.expected_m <= rows:
        reason = "B is read once: its lines leave L2 first"
        return "evict_normal", "evict_first", f"rows fill one swizzle span; {reason}"
    reason = "both operands are read again by other CTAs"
    return "evict_normal", "evict_normal", f"rows fill one swizzle span; {reason}"
