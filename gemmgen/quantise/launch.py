"""What one call gives a quantising kernel: how many CTAs, and the value of every parameter.

Pure functions of a plan, sizes and strides, in elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gemmgen.quantise.plan import QuantisePlan
from gemmgen.target import H200

RESIDENT_CTAS = 4 * H200.sms  # of the kernels that share out a whole matrix; more find no room


@dataclass(frozen=True)
class Matrices:
    """Where [groups, rows, k] elements lie; the last axis is contiguous."""

    groups: int
    rows: int
    k: int
    row_pitch: int
    group_pitch: int


@dataclass(frozen=True)
class Scales:
    """Where scales [groups, row blocks, K blocks] lie: the strides of the three axes."""

    group: int
    row: int
    block: int


def count_ctas(plan: QuantisePlan, x: Matrices) -> int:
    """CTAs of a launch, over all groups."""
    return x.groups * ctas_per_group(plan, x)


def ctas_per_group(plan: QuantisePlan, x: Matrices) -> int:
    """CTAs that share out one matrix; at least one, unless it is empty."""
    if plan.kernel in ("amax", "tensor"):
        work = plan.threads * plan.unroll * plan.vector
        most = max(RESIDENT_CTAS // max(x.groups, 1), 1)
        return min(-(-x.rows * x.k // work), most)
    row_tiles, k_tiles = _tiles(plan, x)
    return row_tiles * k_tiles


def param_values(
    plan: QuantisePlan, pointers: Mapping[str, int], x: Matrices, scales: Scales
) -> list[int]:
    """The kernel's parameters in signature order."""
    row_tiles, k_tiles = _tiles(plan, x)
    values = {
        **pointers,
        "rows": x.rows,
        "k": x.k,
        "row_pitch": x.row_pitch,
        "group_pitch": x.group_pitch,
        "row_tiles": row_tiles,
        "k_tiles": k_tiles,
        "scale_group": scales.group,
        "scale_row": scales.row,
        "scale_block": scales.block,
        "ctas": ctas_per_group(plan, x),
    }
    return [values[param.name] for param in plan.params]


def _tiles(plan: QuantisePlan, x: Matrices) -> tuple[int, int]:
    """Tiles of a matrix along its rows and along K."""
    columns = plan.tile_blocks * (1 if plan.kernel == "transpose" else plan.block_k or x.k)
    return -(-x.rows // plan.tile_rows), -(-x.k // max(columns, 1))
