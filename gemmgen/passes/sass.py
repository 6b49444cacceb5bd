"""Which ptxas makes the code, and which control bits are rewritten afterwards."""

from __future__ import annotations

from gemmgen.plan import Sass
from gemmgen.spec import GemmSpec

# Every 8th FFMA of a promotion run yields, the others keep reuse: the best pattern measured on an
# H200, 1.6 % faster (geometric mean of the M = 4096 shapes) than what ptxas 13.0 emits.
DEFAULT_PASSES = ("sparse_yield",)


def choose_sass(spec: GemmSpec) -> Sass:
    """The passes that the spec names, or the default."""
    if spec.sass == "auto":
        return Sass(DEFAULT_PASSES, spec.toolchain, spec.allow, "sparse yields win on an H200")
    reason = "asked for" if spec.sass else "the cubin stays as it is"
    return Sass(spec.sass, spec.toolchain, spec.allow, reason)
