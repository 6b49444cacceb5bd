"""From a cubin and a list of passes to a patched cubin with a record of what was changed.

Knows the order of work: read, rewrite, verify after every pass, write. The bytes given are never
written to; when anything fails there is an error and no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gemmgen.errors import PatchError
from gemmgen.sass_patch.elf import Kernel, read_cubin
from gemmgen.sass_patch.encoding import INSTRUCTION_BYTES, ISSUES, Instruction, notation
from gemmgen.sass_patch.listing import Listing
from gemmgen.sass_patch.operations import describe
from gemmgen.sass_patch.pass_table import PASSES, PassCall, parse_pass
from gemmgen.sass_patch.verify import verify_code, verify_file


@dataclass(frozen=True, slots=True)
class Change:
    """One instruction that one pass changed."""

    kernel: str
    offset: int  # bytes from the start of the kernel
    changed_by: str  # the pass with its parameters
    before: int  # 128-bit words
    after: int

    def __str__(self) -> str:
        before, after = Instruction(self.before), Instruction(self.after)
        return f"{self.offset:05x}  {notation(before)} -> {notation(after)}  {describe(before)}"

    def to_json(self) -> dict[str, Any]:
        """For a manifest: the words as hexadecimal text, the control codes in notation."""
        before, after = Instruction(self.before), Instruction(self.after)
        return {
            "kernel": self.kernel,
            "offset": self.offset,
            "pass": self.changed_by,
            "instruction": describe(before),
            "before": notation(before),
            "after": notation(after),
            "word_before": f"{self.before:#034x}",
            "word_after": f"{self.after:#034x}",
        }


@dataclass(frozen=True)
class PassReport:
    """What one pass did to a cubin. `dataclasses.asdict` of it can be written as JSON."""

    name: str
    parameters: dict[str, int | str]
    version: int
    changed: int  # instructions, over all kernels
    note: str  # why it did less than its name says, by kernel where there are several


@dataclass(frozen=True)
class PatchResult:
    """A patched cubin and its record."""

    cubin: bytes
    changes: tuple[Change, ...]  # by pass, kernel and offset
    reports: tuple[PassReport, ...]  # one a pass, in the order given

    def to_json(self) -> dict[str, Any]:
        """The record without the cubin."""
        return {
            "passes": [asdict(report) for report in self.reports],
            "changes": [change.to_json() for change in self.changes],
        }


def patch(cubin: bytes, passes: Sequence[str | PassCall]) -> PatchResult:
    """Run SASS passes over every kernel of a cubin, in order, and verify after each.

    Deterministic; without passes the cubin comes back as it is, unread. Raises PatchError for a
    pass that does not exist, for bytes that are no complete cubin for sm_90, and for a rewrite that
    breaks a rule of the verifier; the message says which instruction, which rule, before and after.
    """
    calls = [call if isinstance(call, PassCall) else parse_pass(call) for call in passes]
    if not calls:
        return PatchResult(cubin, (), ())
    listings = read_listings(cubin)
    changes: list[Change] = []
    reports = []
    for call in calls:
        row = PASSES[call.name]
        notes: list[str] = []
        found: list[Change] = []
        for number, listing in enumerate(listings):
            rewrite = row.run(listing, **call.values)
            verify_code(listing, rewrite.code, str(call))
            changed = _changes(listing, rewrite.code, str(call))
            if rewrite.note or not changed:
                where = f"{listing.kernel.name}: " if len(listings) > 1 else ""
                notes.append(where + (rewrite.note or "nothing to change"))
            found += changed
            listings[number] = replace(listing, code=rewrite.code)
        changes += found
        reports.append(
            PassReport(
                name=call.name,
                parameters={
                    name: value if isinstance(value, int) else str(value)
                    for name, value in call.values.items()
                },
                version=call.version,
                changed=len(found),
                note="; ".join(notes),
            )
        )
    patched = bytearray(cubin)
    for listing in listings:
        _write(patched, listing)
    verify_file(cubin, bytes(patched), [listing.kernel for listing in listings])
    return PatchResult(bytes(patched), tuple(changes), tuple(reports))


def read_listings(cubin: bytes) -> list[Listing]:
    """The code of every kernel of a cubin.

    Raises PatchError as `read_cubin`, and where an instruction has a control code that sm_90 does
    not have: such code was not made by ptxas, and nothing is known of what it does.
    """
    return [_listing(cubin, kernel) for kernel in read_cubin(cubin).kernels]


def _listing(cubin: bytes, kernel: Kernel) -> Listing:
    code = cubin[kernel.offset : kernel.offset + kernel.size]
    listing = Listing(
        kernel,
        tuple(
            Instruction(int.from_bytes(code[k : k + INSTRUCTION_BYTES], "little"))
            for k in range(0, len(code), INSTRUCTION_BYTES)
        ),
    )
    for index, instruction in enumerate(listing.code):
        if instruction.issue not in ISSUES:
            raise PatchError(
                "the cubin holds an instruction without a legal control code",
                where=f"kernel {kernel.name}, offset {index * INSTRUCTION_BYTES:#06x}",
                expected="code made by ptxas for sm_90",
                got=f"{instruction.word:#034x}",
            )
    return listing


def _changes(before: Listing, after: Sequence[Instruction], changed_by: str) -> list[Change]:
    return [
        Change(before.kernel.name, index * INSTRUCTION_BYTES, changed_by, old.word, new.word)
        for index, (old, new) in enumerate(zip(before.code, after, strict=True))
        if old != new
    ]


def _write(cubin: bytearray, listing: Listing) -> None:
    start = listing.kernel.offset
    code = b"".join(i.word.to_bytes(INSTRUCTION_BYTES, "little") for i in listing.code)
    cubin[start : start + listing.kernel.size] = code
