"""Roles of the warpgroups, and how setmaxnreg divides the register file between them."""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.errors import SpecError
from gemmgen.passes.structure import Structure
from gemmgen.passes.tiling import MMA_M
from gemmgen.plan import Tile, Warps
from gemmgen.target import Target


@dataclass(frozen=True)
class RegisterSplit:
    """Registers a thread: as launched, and after setmaxnreg in each role."""

    launch: int
    consumer: int
    producer: int


# By number of consumer warpgroups. Launch counts are what ptxas allots for the thread count. The
# sum after setmaxnreg never exceeds the sum at launch: setmaxnreg.inc would wait for ever. Below
# 32 the producer spills. One consumer warpgroup has the whole file already.
SPLITS = {
    1: RegisterSplit(255, 255, 255),
    2: RegisterSplit(168, 232, 40),
    3: RegisterSplit(128, 160, 32),
    4: RegisterSplit(96, 104, 40),
}


def assign_warpgroups(structure: Structure, tile: Tile, target: Target) -> Warps:
    """Raises SpecError when the warpgroups cannot share the tile."""
    across_m, across_n, across_k = (
        structure.warpgroups_m,
        structure.warpgroups_n,
        structure.warpgroups_k,
    )
    consumers = across_m * across_n * across_k
    where = f"warpgroups: {across_m}x{across_n}x{across_k} on tile {tile.m}x{tile.n}"
    if consumers not in SPLITS:
        raise SpecError(
            "too many consumer warpgroups",
            where=where,
            expected=f"1 to {max(SPLITS)}",
            got=consumers,
        )
    if structure.swap_ab:
        _share_swapped(tile, across_m, across_n, where)
    elif tile.m % (MMA_M * across_m):
        raise SpecError(
            "the warpgroups cannot share the rows of the tile",
            where=where,
            expected=f"tile M a multiple of {MMA_M * across_m}: {MMA_M} rows are the least of each",
            got=tile.m,
        )
    if tile.n % (8 * across_n):
        raise SpecError(
            "the warpgroups cannot share the columns of the tile",
            where=where,
            expected=f"tile N a multiple of {8 * across_n}: each takes multiples of 8 columns",
            got=tile.n,
        )
    split = SPLITS[consumers]
    if structure.swap_ab or across_k * structure.split_k > 1:
        # Few totals a thread: the registers suffice without setmaxnreg.
        split = RegisterSplit(split.launch, split.launch, split.launch)
    moves = split.consumer != split.launch
    return Warps(
        consumers_m=across_m,
        consumers_n=across_n,
        consumers_k=across_k,
        threads=128 * (consumers + 1),
        launch_registers=split.launch,
        consumer_registers=split.consumer,
        producer_registers=split.producer,
        moves_registers=moves,
        reason=(
            f"{consumers} consumer warpgroups; the producer gives its registers to them"
            if moves
            else f"{consumers} consumer warpgroup{'s' * (consumers > 1)}: "
            "the registers suffice as launched"
        ),
    )


def _share_swapped(tile: Tile, across_m: int, across_n: int, where: str) -> None:
    """Every warpgroup has all rows of the tile and 64 columns. Raises SpecError."""
    if across_m > 1 or tile.n != MMA_M * across_n:
        raise SpecError(
            "the warpgroups cannot share the tile with swap_ab",
            where=where,
            expected=f"one warpgroup along M and {MMA_M} columns of the tile for each along N",
            got=f"{across_m} along M, {across_n} along N, {tile.n} columns",
            fix=f"for example warpgroups: 1x{max(tile.n // MMA_M, 1)}",
        )
