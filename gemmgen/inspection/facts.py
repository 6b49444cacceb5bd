"""What is known of a cubin: resources, statistics, and every instruction with its control code.

A pure function of the cubin's bytes and, where there is one, of another disassembler's text. Knows
how the facts are put together; refuses to know how they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.inspection.disassembly import OWN_DECODER, Disassembly
from gemmgen.inspection.sections import Section, find_sections
from gemmgen.inspection.statistics import Statistics, count
from gemmgen.sass_patch import Kernel, Listing, describe, notation, read_cubin, read_listings
from gemmgen.sass_patch.encoding import INSTRUCTION_BYTES


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction."""

    offset: int  # bytes from the start of the kernel
    block: int  # number of its basic block
    section: Section
    control: str  # the control code in CuAssembler's notation
    text: str
    word: int  # all 128 bits


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One kernel of a cubin."""

    resources: Kernel
    statistics: Statistics
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One cubin."""

    architecture: str  # "sm_90a"; "sm_90" for CUDA 13.x, whose cubins do not tell the two apart
    decoder: str  # where the text of the instructions comes from
    kernels: tuple[KernelFacts, ...]


def inspect(cubin: bytes, disassembly: Disassembly = OWN_DECODER) -> Inspection:
    """Read a cubin; `disassembly` gives the text of those instructions that it knows.

    Raises PatchError for bytes that are no whole cubin for sm_90, or whose code holds a control
    code that does not exist.
    """
    kernels = tuple(_facts(listing, disassembly) for listing in read_listings(cubin))
    return Inspection(read_cubin(cubin).architecture, disassembly.decoder, kernels)


def _facts(listing: Listing, disassembly: Disassembly) -> KernelFacts:
    texts = disassembly.texts.get(listing.kernel.name, {})
    sections = find_sections(listing)
    lines = []
    for number, block in enumerate(listing.flow.blocks):
        for index in range(block.start, block.end):
            instruction, offset = listing.code[index], index * INSTRUCTION_BYTES
            lines.append(
                Line(
                    offset=offset,
                    block=number,
                    section=sections[index],
                    control=notation(instruction),
                    text=texts.get(offset) or describe(instruction),
                    word=instruction.word,
                )
            )
    return KernelFacts(listing.kernel, count(listing), tuple(lines))
