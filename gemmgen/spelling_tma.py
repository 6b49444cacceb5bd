"""How one form of a TMA load is spelled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TmaLoad:
    """The spelling of one form of `cp.async.bulk.tensor` into shared memory."""

    function: str
    rank: int  # of the tensor map
    parameters: str  # after smem, map and barrier
    modifiers: str
    coordinates: str
    operands: str
    inputs: str  # after smem and the map

    @property
    def indent(self) -> str:
        return " " * len(f"DEVICE void {self.function}(")


def tma_load(rank: int, multicast: bool, hinted: bool) -> TmaLoad:
    extra = [("uint16_t", "h", "ctas")] * multicast + [("uint64_t", "l", "policy")] * hinted
    values = [("uint32_t", "r", axis) for axis in "xyz"[:rank]]
    inputs = [*values, ("uint32_t", "r", "barrier"), *extra]
    operands = [f"[%{rank + 2}]", *(f"%{rank + 3 + i}" for i in range(len(extra)))]
    return TmaLoad(
        function="tma_multicast" if multicast else "tma_load",
        rank=rank,
        parameters=", ".join(f"{kind} {name}" for kind, _, name in (*values, *extra)),
        modifiers=".multicast::cluster" * multicast + ".L2::cache_hint" * hinted,
        coordinates=", ".join(f"%{2 + i}" for i in range(rank)),
        operands=", ".join(operands),
        inputs=", ".join(f'"{constraint}"({name})' for _, constraint, name in inputs),
    )
