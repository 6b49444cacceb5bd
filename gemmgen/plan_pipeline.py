"""The ring of stages, as a part of a plan. `plan` has the name, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pipeline:
    """The ring of shared-memory stages between producer and consumers."""

    stages: int
    stage_bytes: int  # bytes that TMA delivers to one full barrier
    unroll: int  # K tiles in one pass of the K loop
    early_wait: bool  # wait for the next stage and load its scales before promotion
    hidden_length: bool  # the compiler must not know that the K loop has one pass
    reason: str
    a_tiles: int = 0  # K tiles of A that stay in shared memory; 0: A comes with every stage
    a_bytes: int = 0  # of one of them and its scales, which come on top of `stage_bytes`

    @property
    def a_stationary(self) -> bool:
        """A's rows stay in shared memory from one tile to the next, only B streams."""
        return self.a_tiles > 0

    @property
    def runs_ahead(self) -> bool:
        """The producer can be a whole tile ahead of the consumers: that a stage is empty does not
        say that they have read A."""
        return self.stages > self.a_tiles
