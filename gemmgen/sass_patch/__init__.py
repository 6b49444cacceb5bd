"""The SASS stage: cubin bytes in, cubin bytes out. Knows instructions, knows nothing of GEMM.

    from gemmgen import sass_patch

    result = sass_patch.patch(cubin, passes=["sparse_yield(period=8, phase=7)"])
    result.cubin, result.changes, result.reports

A pass rewrites control codes, that is when a warp issues and what it keeps in the operand cache,
never what is computed; every pass is verified. Reading starts at `patching`; the files below it,
in order: `elf` (the file), `encoding` (128 bits), `operations` (opcodes), `blocks` (control flow),
`listing` (the code of a kernel), `reuse` (the operand cache), `pattern` (yields as data), `passes`,
`pass_table`, `verify`.
"""

from gemmgen.sass_patch.elf import Cubin, Kernel, read_cubin
from gemmgen.sass_patch.encoding import ControlCode, Instruction, Issue, notation
from gemmgen.sass_patch.listing import Listing
from gemmgen.sass_patch.operations import describe, mnemonic
from gemmgen.sass_patch.pass_table import PASSES, PassCall, parse_pass
from gemmgen.sass_patch.patching import Change, PassReport, PatchResult, patch, read_listings
from gemmgen.sass_patch.pattern import Pattern, RunYields, pattern_of
from gemmgen.sass_patch.verify import verify_code, verify_file

__all__ = [
    "PASSES",
    "Change",
    "ControlCode",
    "Cubin",
    "Instruction",
    "Issue",
    "Kernel",
    "Listing",
    "PassCall",
    "PassReport",
    "PatchResult",
    "Pattern",
    "RunYields",
    "describe",
    "mnemonic",
    "notation",
    "parse_pass",
    "patch",
    "pattern_of",
    "read_cubin",
    "read_listings",
    "verify_code",
    "verify_file",
]
