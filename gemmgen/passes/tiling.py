"""The CTA tile and the cluster that shares operands."""

from __future__ import annotations

from gemmgen.errors import SpecError
from gemmgen.passes.limits import require
from gemmgen.passes.structures import Structure
from gemmgen.plan import Cluster, Tile
from gemmgen.target import Target

MMA_M = 64  # rows of one wgmma (PTX ISA, wgmma.mma_async)
TILE_K = 128  # one scale block of K, and one 128-byte swizzle span of FP8


def place_tile(structure: Structure, target: Target) -> tuple[Tile, Cluster]:
    """Raises SpecError for a tile or a cluster that no Hopper kernel can have."""
    tile_m, tile_n, tile_k = structure.tile_m, structure.tile_n, structure.tile_k
    if tile_m % MMA_M or not tile_m <= target.tma_box:
        raise SpecError(
            "a tile that cannot exist",
            where="tile",
            expected=f"M a multiple of {MMA_M} (one wgmma) up to {target.tma_box} (one TMA box)",
            got=tile_m,
        )
    if tile_n % 16 or not 16 <= tile_n <= target.tma_box:
        raise SpecError(
            "a tile that cannot exist",
            where="tile",
            expected=f"N a multiple of 16 up to {target.tma_box} (one TMA box)",
            got=tile_n,
        )
    if tile_k != TILE_K:
        raise SpecError(
            "a tile that cannot exist",
            where="tile",
            expected=f"K of {TILE_K}: the scales change after every {TILE_K} elements",
            got=tile_k,
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
        f"{' and '.join(shared)} by multicast" if shared else "multicast did not pay on an H200"
    )
    return (
        Tile(tile_m, tile_n, tile_k, reason=structure.reason),
        Cluster(structure.cluster_m, structure.cluster_n, reason=cluster_reason),
    )
