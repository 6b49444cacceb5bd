"""How A and B lie in shared memory: swizzle, stage size, L2 priority of their loads."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.plan import Cluster, Operand, Problem, Tile
from gemmgen.spec import GemmSpec
from gemmgen.target import Swizzle


def place_operands(
    spec: GemmSpec, problem: Problem, tile: Tile, cluster: Cluster
) -> tuple[Operand, Operand]:
    """A and B as K-major boxes whose rows fill one swizzle span."""
    hint_a, hint_b, reason = _hints(spec, problem, tile.m * cluster.m)

    def place(name: str, rows: int, dtype: str, hint: str) -> Operand:
        row_bytes = tile.k * DTYPES[dtype].bytes
        return Operand(name, rows, rows * row_bytes, Swizzle(row_bytes), hint, reason)

    return place("a", tile.m, problem.a, hint_a), place("b", tile.n, problem.b, hint_b)


def _hints(spec: GemmSpec, problem: Problem, rows: int) -> tuple[str, str, str]:
    if spec.l2_hint != "auto":
        return spec.l2_hint.a, spec.l2_hint.b, "rows fill one swizzle span; L2 hints asked for"
    if problem.expected_m <= rows:
        reason = "B is read once: its lines leave L2 first"
        return "evict_normal", "evict_first", f"rows fill one swizzle span; {reason}"
    reason = "both operands are read again by other CTAs"
    return "evict_normal", "evict_normal", f"rows fill one swizzle span; {reason}"
