"""The CTA tile and the cluster that shares operands."""

from __future__ import annotations

from gemmgen.dtypes import DTYPES
from gemmgen.errors import SpecError
from gemmgen.passes.limits import require
from gemmgen.passes.structure import Structure
from gemmgen.plan import Cluster, Problem, Tile
from gemmgen.target import Target

MMA_M = 64  # rows of one wgmma (PTX ISA, wgmma.mma_async)
SWIZZLE_SPAN = 128  # bytes: a K tile is one span of every row


def place_tile(structure: Structure, problem: Problem, target: Target) -> tuple[Tile, Cluster]:
    """Raises SpecError for a tile or a cluster that no Hopper kernel can have."""
    span = SWIZZLE_SPAN // DTYPES[problem.a].bytes
    tile_m, tile_n, tile_k = structure.tile_m, structure.tile_n, structure.tile_k or span
    most = target.tma_box
    least_m, least_n = (8, MMA_M) if structure.swap_ab else (MMA_M, 16)
    of_m, of_n = "rows of one wgmma", "columns of two 8x8 matrices"
    if structure.swap_ab:
        of_m, of_n = "columns of one wgmma, with swap_ab", "rows of one wgmma, with swap_ab"
    limits = (
        ("M", tile_m, least_m, most, f"{of_m}; the limit is one TMA box"),
        ("N", tile_n, least_n, most, f"{of_n}; the limit is one TMA box"),
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
    across_m, across_n, across_k = structure.cluster_m, structure.cluster_n, structure.split_k
    require(
        across_m * across_n * across_k,
        target.cluster_size,
        "CTAs of a portable cluster",
        where=f"cluster: {across_m}x{across_n}" + (f", split_k: {across_k}" * (across_k > 1)),
        fix="a smaller cluster",
    )
    if across_m * across_n > 1 and across_k > 1:
        raise SpecError(
            "the CTAs of a cluster share operands or a tile of D, not both",
            where=f"split_k: {across_k}",
            expected="cluster: 1x1, or auto",
            got=f"cluster: {across_m}x{across_n}",
        )
    shared = [
        word
        for word, count in (("B", structure.cluster_m), ("A", structure.cluster_n))
        if count > 1
    ]
    cluster_reason = (
        f"{' and '.join(shared)} by multicast" if shared else "every CTA loads for itself"
    )
    if across_k > 1:
        cluster_reason = f"{across_k} CTAs share the K of one tile"
    return (
        Tile(tile_m, tile_n, tile_k, reason=structure.reason),
        Cluster(across_m, across_n, across_k, reason=cluster_reason),
    )
