"""Which ptxas makes the code, and which control bits are rewritten afterwards."""

from __future__ import annotations

from gemmgen.errors import PatchError, SpecError
from gemmgen.plan import Sass
from gemmgen.spec import GemmSpec

# Every 8th FFMA of a promotion run yields, the others keep reuse: the best of the patterns that
# were tried, and better than what ptxas 12.9 and later emit (docs/kernel-notes.md).
DEFAULT_PASSES = ("sparse_yield",)


def choose_sass(spec: GemmSpec) -> Sass:
    """The passes that the spec names, or the default. Raises SpecError for a pass there is not."""
    if spec.sass == "auto":
        return Sass(
            DEFAULT_PASSES,
            spec.toolchain,
            spec.allow,
            "the default: every 8th FFMA of a promotion run yields",
        )
    for call in spec.sass:
        _check(call)
    reason = "asked for" if spec.sass else "the cubin stays as it is"
    return Sass(spec.sass, spec.toolchain, spec.allow, reason)


def _check(call: str) -> None:
    from gemmgen.sass_patch import parse_pass  # 50 ms that only a spec with passes pays

    try:
        parse_pass(call)
    except PatchError as error:
        raise SpecError(
            error.what, where="sass", expected=error.expected, got=error.got or call, fix=error.fix
        ) from None
