"""Whether A stays in shared memory, and what that rules out.

With short K the rows of A of one tile fit beside the ring. A CTA that computes one tile after the
other of a row of tiles loads them once, and only B streams.
"""

from __future__ import annotations

from gemmgen.errors import SpecError
from gemmgen.passes.structure import Structure
from gemmgen.plan import Problem, Tile
from gemmgen.spec import GemmSpec


def resident_k_tiles(spec: GemmSpec, problem: Problem, structure: Structure, tile: Tile) -> int:
    """K tiles of A that stay in shared memory; 0: A comes with every stage.

    Raises SpecError where a CTA has no rows of A of its own, or K is not known.
    """
    if not structure.a_stationary:
        return 0
    asked = "schedule: a_stationary"
    if problem.k is None:
        raise SpecError(
            "how much of A would stay in shared memory is not known",
            where=asked,
            expected="k: an integer, compiled in",
            got="k: dynamic",
            fix="schedule: cooperative",
        )
    shape = f"{structure.cluster_m}x{structure.cluster_n}"
    layout = f"{structure.warpgroups_m}x{structure.warpgroups_n}x{structure.warpgroups_k}"
    for holds, expected, got in (
        (spec.grouping == "dense", "grouping: dense", spec.grouping),
        (shape == "1x1", "cluster: 1x1, every CTA with rows of its own", shape),
        (structure.split_k == 1, "split_k: 1", structure.split_k),
        (structure.warpgroups_k == 1, "one warpgroup along K", f"warpgroups: {layout}"),
        (not structure.swap_ab, "swap_ab: false", "swap_ab: true"),
        (spec.raster == "auto", "raster: auto, all tiles along M at the same time", spec.raster),
    ):
        if not holds:
            raise SpecError(
                "not built with A in shared memory",
                where=asked,
                expected=expected,
                got=got,
                fix="schedule: cooperative",
            )
    return -(-problem.k // tile.k)
