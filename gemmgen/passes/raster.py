"""The order in which CTAs visit tiles."""

from __future__ import annotations

from gemmgen.errors import SpecError
from gemmgen.passes.structure import ASSUMED_K
from gemmgen.plan import Cluster, Pipeline, Problem, Scheduler, Tile
from gemmgen.spec import GemmSpec

# With short K every tile along M before the next column is fastest, with K of 16384 bands of 16;
# between them 4 to 32 are within 1 % of each other (docs/kernel-notes.md).
SHORT_K = 2048
WIDEST_BAND = 32
ALL_ROWS = 2**31 - 1  # a band of every tile along M
GROUP_ROWS = 128  # that are of one group, with `grouping: contiguous`


def choose_raster(
    spec: GemmSpec, problem: Problem, tile: Tile, cluster: Cluster, pipeline: Pipeline
) -> Scheduler:
    """Bands along M: the CTAs that run at the same time share rows of A and of B in L2.

    Raises SpecError for a band that clusters do not fill, and for tiles that two groups share.
    """
    if spec.grouping == "contiguous":
        _within_one_group(tile, cluster)
    if pipeline.a_stationary:
        reason = "row by row: a CTA loads its rows of A once, and all rows share the columns of B"
        return Scheduler(spec.grouping, ALL_ROWS, reason, by_row=True)
    band, reason = _band(spec, problem, tile)
    if spec.raster != "auto" and band % cluster.m:
        raise SpecError(
            "a band of the raster that clusters do not fill",
            where="raster",
            expected=f"a multiple of {cluster.m}, the tiles of a cluster along M",
            got=band,
            fix=f"for example raster: {-(-band // cluster.m) * cluster.m}",
        )
    return Scheduler(spec.grouping, max(band // cluster.m, 1), reason)


def _within_one_group(tile: Tile, cluster: Cluster) -> None:
    """All CTAs of a cluster, and all rows of a tile, read the B of one group."""
    if GROUP_ROWS % tile.m or cluster.m > 1:
        raise SpecError(
            "a tile, or a cluster, could hold rows of two groups",
            where="grouping: contiguous",
            expected=f"tiles of 64 or {GROUP_ROWS} rows, clusters along N",
            got=f"tile {tile.m}x{tile.n}x{tile.k}, cluster {cluster.m}x{cluster.n}",
            fix="grouping: contiguous_ends takes any",
        )


def _band(spec: GemmSpec, problem: Problem, tile: Tile) -> tuple[int, str]:
    if spec.raster != "auto":
        return spec.raster, "asked for"
    k = problem.k or ASSUMED_K
    tiles_m = -(-problem.expected_m // tile.m)
    if k <= SHORT_K:
        return min(tiles_m, WIDEST_BAND), "short K: all tiles along M before the next column"
    return 16, "bands of about 16 tiles along M"
