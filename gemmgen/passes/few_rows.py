"""Few rows: weights on wgmma's M axis (swap-AB), and K that several warpgroups share.

Every weight is read once, so what counts is that the stream of weights never waits: as many CTAs as
it takes to draw it, and several warpgroups on alternate K tiles where one is too slow for its
share. Rules and thresholds come from measurements on an H200 and an H100 (docs/kernel-notes.md).
"""

from __future__ import annotations

import dataclasses

from gemmgen.dtypes import DTYPES
from gemmgen.passes.structure import Structure
from gemmgen.spec import GemmSpec

LEAST_UNSWAPPED_M = 64  # rows of the smallest tile with A on wgmma's M axis
MMA_COLUMNS = 8  # of wgmma's N axis: the step in which rows of A are computed, swapped
MMA_ROWS = 64  # of its M axis: columns of D of one warpgroup, swapped
TILE_K = 128  # one block of scales
WIDTHS = (128, 192, 256)  # columns of tiles with warpgroups side by side, if they are asked for

# Swapped kernels win up to 32 rows; up to 64 where K is long and one wave of 64 columns fills more
# than half of the multiprocessors; up to 24 where others divide K: 32x4096x7168 15.1 us, if not
# swapped 14.6 (H100).
MOST_SWAPPED_M, MOST_SWAPPED_M_OF_DIVIDED = 32, 24
LONG_K = 8192
# Up to here K needs no division, and a short first burst of loads beats a deep ring: 8x24576x1536
# 16.6 us, with twelve stages 17.2, in tiles of 192 columns 19.2 (H100).
SHORT_K, SHORT_K_STAGES = 2048, 6
MOST_UNSHARED_M = 96  # 96x4096x7168 16.2 us, 16.5 in two rows of tiles; with 112 rows 16.7, 15.9
LEAST_DIVIDED_K = 4096  # below, tiles that are not swapped have their K to themselves
LEAST_SHARED_K = 1024  # of few swapped tiles: 24x3072x1536 5.4 us, not shared 5.7 (H100)
LEAST_WAVE_SHARE = 0.7
DIVIDED_COLUMNS, DIVIDED_STAGES = 32, 12


def swap_wins(spec: GemmSpec, m: int, n: int, k: int, groups: int, sms: int) -> bool:
    """Whether a swapped kernel is the faster one, and can obey what the spec fixes."""
    if not _may_swap(spec):
        return False
    tiles = _tiles(n, MMA_ROWS, groups)
    divided = k >= LEAST_DIVIDED_K and _tiles(n, DIVIDED_COLUMNS, groups) <= sms
    most = MOST_SWAPPED_M_OF_DIVIDED if divided and not spec.batch_invariant else MOST_SWAPPED_M
    return m <= most or (m <= 64 and k >= LONG_K and sms // 2 < tiles <= sms)


def _may_swap(spec: GemmSpec) -> bool:
    """Whether what the spec fixes leaves room for a swapped kernel."""
    alone = spec.cluster == "auto" or (spec.cluster.m, spec.cluster.n) == (1, 1)
    return _built(spec) and alone and (spec.warpgroups == "auto" or spec.warpgroups.m == 1)


def _built(spec: GemmSpec) -> bool:
    """Whether templates/few_rows has what the spec asks for."""
    scales = (spec.a.scale, spec.b.scale)
    return (
        scales == ("1x128", "128x128")
        and spec.promotion_interval in ("auto", 128)
        and spec.grouping != "k_grouped"
        and DTYPES[spec.d.dtype].bytes == 2
        and not (spec.accumulate or spec.epilogue)
    )


def swapped_structure(tile_m: int, tile_n: int, tile_k: int) -> Structure:
    """The usual swapped structure of a tile, one sum along K."""
    return Structure(
        tile_m,
        tile_n,
        warpgroups_m=1,
        warpgroups_n=max(tile_n // MMA_ROWS, 1),
        unroll=4,
        early_wait=True,
        tile_k=tile_k,
        swap_ab=True,
    )


def swapped_structures(m: int, n: int, k: int, groups: int, sms: int) -> list[Structure]:
    """Swapped structures, best first: narrow tiles, then those with room for more warpgroups."""
    rows = -(-min(m, LEAST_UNSWAPPED_M) // MMA_COLUMNS) * MMA_COLUMNS
    # Where tiles of `rows` are refused because a block of 128 rows has one group: the next power.
    heights = dict.fromkeys((rows, 1 << (rows - 1).bit_length()))
    wide = [swapped_structure(rows, width, TILE_K) for width in WIDTHS]
    return [
        dataclasses.replace(structure, tile_m=height)
        for structure in (_narrow(rows, n, k, groups, sms), *wide)
        for height in heights
    ]


def _narrow(rows: int, n: int, k: int, groups: int, sms: int) -> Structure:
    """64 columns; the fewer tiles there are, the more share the K of one."""
    tiles = _tiles(n, MMA_ROWS, groups)
    split_k, warpgroups_k, stages, unroll = 1, 2, 8, 1
    if k > SHORT_K and tiles <= sms // 4:
        # Half of the multiprocessors draw the whole stream; clusters of 4 would not fill the chip.
        split_k, warpgroups_k, stages = 2, 3, 15
    elif k >= LEAST_SHARED_K and tiles <= sms // 2:
        warpgroups_k, stages = 3, 12
    elif k <= SHORT_K:
        warpgroups_k, stages, unroll = 1, SHORT_K_STAGES, 4
    elif k >= LEAST_DIVIDED_K and wave_share(tiles, sms) < LEAST_WAVE_SHARE:
        split_k, unroll = 2, 4  # halves fill the last wave: 4x10240x8192 33.6 us instead of 37.0
    return dataclasses.replace(
        swapped_structure(rows, MMA_ROWS, TILE_K),
        split_k=split_k,
        warpgroups_k=warpgroups_k,
        unroll=unroll,
        most_stages=stages,
        reason=f"few rows: the weights stream through {tiles} tiles of {MMA_ROWS} columns, "
        f"{split_k * warpgroups_k} warpgroups for the K of each",
    )


def divided_structures(
    spec: GemmSpec, m: int, n: int, k: int, groups: int, sms: int
) -> list[Structure]:
    """Not swapped, K divided: for long K and so few columns that one wave of tiles holds them."""
    asked_for_one = spec.warpgroups != "auto" and spec.warpgroups.k == 1
    clustered = spec.cluster != "auto" and spec.cluster.n > 1
    if (
        not _built(spec)
        or k < LEAST_DIVIDED_K
        or spec.batch_invariant
        or asked_for_one
        or clustered
    ):
        return []
    rows = -(-m // LEAST_UNSWAPPED_M)  # of tiles
    tile = Structure(
        LEAST_UNSWAPPED_M,
        DIVIDED_COLUMNS,
        1,
        1,
        unroll=4,
        early_wait=True,
        most_stages=DIVIDED_STAGES,
    )
    tiles = _tiles(n, tile.tile_n, groups) * rows
    shares = (
        "few rows, long K: the weights stream through {} tiles of {}x{}, "
        "{} warpgroups for the K of each"
    )
    thirds = dataclasses.replace(tile, unroll=1)
    both = dataclasses.replace(tile, tile_m=128, warpgroups_m=2, most_stages=8)
    one_wave = _tiles(n, 64, groups) * rows <= sms
    split_k = cluster_m = 1
    if tiles <= sms // 2:
        # 64x2112x7168 10.2 us, 10.5 without the split; unroll 1 9.9 us (H100).
        tile, warpgroups_k, split_k = thirds, 3, 2
    elif tiles <= sms and rows == 2:
        # All rows in one CTA, half of K: fewer bytes for each. 128x2112x7168 11.0 us, in tiles of
        # 64 rows with the whole K 11.7, in clusters of two of them 11.4 (H100).
        tile, warpgroups_k, split_k = dataclasses.replace(both, early_wait=False), 1, 2
    elif tiles <= sms:
        tile, warpgroups_k = thirds, 3
    elif one_wave and rows == 2 and m <= MOST_UNSHARED_M:
        tile, warpgroups_k = both, 2
    elif one_wave and rows > 1:
        tile = dataclasses.replace(tile, tile_n=64, most_stages=10)
        warpgroups_k, cluster_m = 2, rows
    else:
        return []
    tiles = _tiles(n, tile.tile_n, groups) * -(-m // tile.tile_m)
    return [
        dataclasses.replace(
            tile,
            warpgroups_k=warpgroups_k,
            split_k=split_k,
            cluster_m=cluster_m,
            reason=shares.format(tiles, tile.tile_m, tile.tile_n, split_k * warpgroups_k),
        )
    ]


def wave_share(tiles: int, sms: int) -> float:
    """The share of the waves of tiles that is filled; one wave counts as full."""
    return tiles / (-(-tiles // sms) * sms) if tiles > sms else 1.0


def _tiles(n: int, columns: int, groups: int) -> int:
    return groups * -(-n // columns)
