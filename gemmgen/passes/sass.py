"""Which ptxas makes the code, and which control bits are rewritten afterwards."""

from __future__ import annotations

from gemmgen.errors import PatchError, SpecError
from gemmgen.plan import Sass
from gemmgen.scaling import has_columns
from gemmgen.spec import GemmSpec

# Every 8th FFMA of a promotion run yields, the others keep reuse: the best of the patterns that
# were tried, and better than what ptxas 12.9 and later emit (docs/kernel-notes.md).
DEFAULT_PASSES = ("sparse_yield",)
# With a scale a column every second instruction of a run is a multiplication: they yield, too.
COLUMN_PASSES = ("sparse_yield(on=all)",)


def choose_sass(spec: GemmSpec) -> Sass:
    """The passes that the spec names, or the default; a pattern's file is read here.

    Raises SpecError for a pass there is not, and for a file that holds no pattern.
    """
    if spec.sass == "auto":
        columns = has_columns(spec.b.scale)
        return Sass(
            COLUMN_PASSES if columns else DEFAULT_PASSES,
            spec.toolchain,
            spec.allow,
            f"the default: every 8th FFMA{' or FMUL' * columns} of a promotion run yields",
        )
    passes = tuple(map(_checked, spec.sass))
    reason = "asked for" if passes else "the cubin stays as it is"
    return Sass(passes, spec.toolchain, spec.allow, reason)


def _checked(call: str) -> str:
    from gemmgen.sass_patch import parse_pass  # 50 ms that only a spec with passes pays
    from gemmgen.sass_patch.pattern import with_file_read

    try:
        parse_pass(whole := with_file_read(call))
    except PatchError as error:
        raise SpecError(
            error.what,
            where=f"sass: {error.where or call}",
            expected=error.expected,
            got=error.got,
            fix=error.fix,
        ) from None
    return whole
