"""The CTA tile and the cluster that shares operands."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.passes.limits import require
from gemmgen.passes.structures import Structure
from gemmgen.plan import Cluster, Problem, Tile
from gemmgen.target import Target

MMA_M = 64  # rows of one wgmma (PTX ISA, wgmma.mma_async)
SWIZZLE_SPAN = 128  # bytes: a K tile is one span of every row


def place_tile(structure: Structure, problem: Problem, target: Target) -> tuple[Tile, Cluster]:
    """Raises SpecError for a tile or a cluster that no Hopper kernel can have."""
    span = SWIZZLE_SPAN // DTYPES[problem.a].bytes
    tile_m, tile_n, tile_k = structure.tile_m, structure.tile_n, structure.tile_k or span
    most = target.tma_box
    limits = (
        ("M", tile_m, MMA_M, most, "rows of one wgmma; the limit is one TMA box"),
        ("N", tile_n, 16, most, "columns of two 8x8 matrices; the limit is one TMA box"),
        ("K", tile_k, span, span, f"{SWIZZLE_SPAN} bytes, one swizzle span of a row"),
    )
    for axis, extent, multiple, limit, why in limits:
        if extent % multiple or not multiple <= extent <= limit:
            raise SpecError(
                "a tile that cannot exist",
                where=f"tile: {tile_m}x{tile_n}x{tile_k}",
                expected=f"{axis} a multiple of {multiple} up to {limit}: {why}",
                got=f"{axis} = {extent}",
                fix=f"for example tile: 128x256x{span}, or tile: auto",
            )
    size = structure.cluster_m * structure.cluster_n
    require(
        size,
        target.cluster_size,
        "CTAs of a portable cluster",
        where=f"cluster: {structure.cluster_m}x{structure.cluster_n}",
        fix="a smaller cluster",
    )
    shared = [
        word
        for word, count in (("B", structure.cluster_m), ("A", structure.cluster_n))
        if count > 1
    ]
    cluster_reason = (
        f"{' and '.join(shared)} by multicast" if shared else "every CTA loads for itself"
    )
    return (
        Tile(tile_m, tile_n, tile_k, reason=structure.reason),
        Cluster(structure.cluster_m, structure.cluster_n, reason=cluster_reason),
    )
