"""What is counted of a kernel's code. Knows kinds of instructions and the order of addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from gemmgen.inspection.sections import PROMOTES
from gemmgen.sass_patch import Instruction, Listing, mnemonic
from gemmgen.sass_patch.encoding import issue_of
from gemmgen.sass_patch.listing import REWRITABLE
from gemmgen.sass_patch.operations import FFMA, is_warpgroup_wait, is_wgmma

_CLASSES = {
    "wgmma": "HGMMA IGMMA BGMMA QGMMA",
    "float": "FADD FFMA FMUL FSEL FSETP FCHK HFMA2 MUFU F2FP F2I I2F I2FP",
    "integer": "IABS IADD3 IMAD ISETP LEA LOP3 PLOP3 PRMT SEL SHF VIADD VIADDMNMX VIMNMX",
    "uniform": "UIADD3 UIMAD UISETP ULEA ULOP3 UMOV UPRMT USEL USHF VOTEU",
    "move": "CS2R ELECT MOV R2UR S2R S2UR SHFL",
    "TMA": "UTMACCTL UTMACMDFLUSH UTMALDG UTMASTG",
    "mbarrier": "SYNCS",
    "shared memory": "LDS STS STSM",
    "global memory": "CCTL LDG ST STG",
    "local memory": "LDL STL",
    "constants": "LDC ULDC",
    "synchronisation": "BAR CGAERRBAR DEPBAR ERRBAR FENCE MEMBAR UCGABAR UCGABAR_ARV UCGABAR_WAIT "
    "USETMAXREG WARPGROUP WARPSYNC",
    "control flow": "BRA BSSY BSYNC CALL EXIT RET YIELD",
    "NOP": "NOP",
}
_CLASS_OF = {name: kind for kind, names in _CLASSES.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How many instructions of one operation there are, and what their control codes say."""

    count: int
    reusing: int  # that keep a register in the operand cache
    yielding: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over one kernel. "Between" and "adjacent" go by addresses, not by execution."""

    instructions: int  # padding included
    classes: Mapping[str, int]  # instructions by class, the commonest first
    arithmetic: Mapping[str, Arithmetic]  # of FFMA, FMUL and FADD: what the SASS passes rewrite
    longest_ffma_row: int  # adjacent FFMA
    promotion_runs: tuple[int, ...]  # FFMA and FADD in each, see sass_patch.listing
    wgmma: int
    wgmma_to_wait: tuple[int, ...]  # instructions between each wgmma wait and the last wgmma


def count(listing: Listing) -> Statistics:
    """Count what a kernel's code holds."""
    code = listing.code
    classes = Counter(_CLASS_OF.get(mnemonic(instruction), "other") for instruction in code)
    return Statistics(
        instructions=len(code),
        classes=dict(classes.most_common()),
        arithmetic={
            name.upper(): _arithmetic([i for i in code if i.opcode in opcodes])
            for name, opcodes in REWRITABLE.items()
            if len(opcodes) == 1
        },
        longest_ffma_row=max(
            (len(list(row)) for ffma, row in groupby(i.opcode == FFMA for i in code) if ffma),
            default=0,
        ),
        promotion_runs=tuple(map(len, listing.promotion_runs(PROMOTES))),
        wgmma=sum(map(is_wgmma, code)),
        wgmma_to_wait=tuple(_wgmma_to_wait(listing)),
    )


def _arithmetic(instructions: list[Instruction]) -> Arithmetic:
    issues = [issue_of(instruction) for instruction in instructions]
    return Arithmetic(
        count=len(issues),
        reusing=sum(issue.reuse != 0 for issue in issues),
        yielding=sum(issue.yields for issue in issues),
    )


def _wgmma_to_wait(listing: Listing) -> list[int]:
    """For each wait with a wgmma before it that no earlier wait stands behind."""
    distances: list[int] = []
    last: int | None = None
    for index, instruction in enumerate(listing.code):
        if is_wgmma(instruction):
            last = index
        elif is_warpgroup_wait(instruction) and last is not None:
            distances.append(index - last - 1)
            last = None
    return distances
