"""Two cubins side by side, instruction by instruction: which control codes differ, and how.

For what a rewrite in place changes, or two versions of ptxas decide differently about the same
instructions. Code of different lengths is refused: addresses would no longer correspond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gemmgen.errors import PatchError
from gemmgen.inspection.facts import Inspection, KernelFacts, Line
from gemmgen.inspection.sections import Section
from gemmgen.sass_patch import Instruction
from gemmgen.sass_patch.encoding import FIELDS, issue_of

OTHER_INSTRUCTION = "another instruction"

_SCOREBOARDS = ("write_scoreboard", "read_scoreboard", "wait_mask")
_OPERANDS = tuple(name for name in FIELDS if name not in (*_SCOREBOARDS, "issue"))


@dataclass(frozen=True, slots=True)
class Difference:
    """One instruction that differs."""

    offset: int  # bytes from the start of the kernel
    section: Section
    kind: str  # of change, see kind_of_change
    before: str  # control code
    after: str
    text_before: str
    text_after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two kernels."""

    kernel: str
    instructions: int
    differences: tuple[Difference, ...]

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many instructions differ, by kind of change, the commonest first."""
        return dict(Counter(each.kind for each in self.differences).most_common())


def kind_of_change(before: int, after: int) -> str:
    """What the change of a 128-bit word means: `yield set, reuse cleared`.

    Raises PatchError for a word without a legal control code.
    """
    old, new = Instruction(before), Instruction(after)
    if any(getattr(old, name) != getattr(new, name) for name in _OPERANDS):
        return OTHER_INSTRUCTION
    was, now = issue_of(old), issue_of(new)
    told = {
        "yield set": now.yields and not was.yields,
        "yield cleared": was.yields and not now.yields,
        "reuse set": now.reuse & ~was.reuse,
        "reuse cleared": was.reuse & ~now.reuse,
        "stall changed": was.stall != now.stall,
        "scoreboards changed": any(getattr(old, n) != getattr(new, n) for n in _SCOREBOARDS),
    }
    return ", ".join(kind for kind, holds in told.items() if holds)


def compare(before: Inspection, after: Inspection) -> tuple[Comparison, ...]:
    """Compare the kernels of two cubins, by name, or the only two there are.

    Raises PatchError when the cubins hold other kernels, or code of another length.
    """
    return tuple(_compare(*pair) for pair in _pairs(before, after))


def _pairs(before: Inspection, after: Inspection) -> list[tuple[KernelFacts, KernelFacts]]:
    if len(before.kernels) == len(after.kernels) == 1:
        return [(before.kernels[0], after.kernels[0])]
    olds = {kernel.resources.name: kernel for kernel in before.kernels}
    news = {kernel.resources.name: kernel for kernel in after.kernels}
    if olds.keys() != news.keys():
        raise PatchError(
            "the two cubins do not hold the same kernels",
            expected=", ".join(sorted(olds)),
            got=", ".join(sorted(news)),
        )
    return [(kernel, news[name]) for name, kernel in olds.items()]


def _compare(before: KernelFacts, after: KernelFacts) -> Comparison:
    name = after.resources.name
    if len(before.lines) != len(after.lines):
        raise PatchError(
            "the two cubins cannot be compared instruction by instruction",
            where=f"kernel {name}",
            expected=f"{len(before.lines)} instructions",
            got=f"{len(after.lines)}",
            fix="compare the two listings, `gemmgen inspect` of each, with diff",
        )
    differences = tuple(
        _difference(old, new)
        for old, new in zip(before.lines, after.lines, strict=True)
        if old.word != new.word
    )
    return Comparison(name, len(after.lines), differences)


def _difference(old: Line, new: Line) -> Difference:
    return Difference(
        offset=new.offset,
        section=new.section,
        kind=kind_of_change(old.word, new.word),
        before=old.control,
        after=new.control,
        text_before=old.text,
        text_after=new.text,
    )
