"""What a pass returns."""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.sass_patch.encoding import Instruction


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The instructions of a kernel after a pass, as many as before."""

    code: tuple[Instruction, ...]
    note: str = ""  # why a pass did less than its name says
