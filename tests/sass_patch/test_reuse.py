"""The operand cache."""

from __future__ import annotations

import pytest
from sass_patch.samples import (
    ARRIVE,
    EXIT,
    NAMES,
    NOP,
    QGMMA,
    UMOV,
    WAIT,
    YIELD,
    branch,
    ffma,
    fmul,
    instruction,
    sample_listing,
)

from gemmgen.sass_patch import Issue
from gemmgen.sass_patch.blocks import find_blocks
from gemmgen.sass_patch.operations import FFMA
from gemmgen.sass_patch.reuse import Fate, fate, settle_reuse

SCALE = 5
FIRST = ffma(30, 24, SCALE, 30)
TAKER = ffma(31, 25, SCALE, 31)
LDS_SCALE = instruction(0x984, rd=4, ra=2, modifiers=6 << 1)  # writes R4 to R7


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ([], Fate.TAKEN),
        ([NOP, UMOV, ARRIVE.with_issue(Issue(1, yields=False))], Fate.TAKEN),
        ([ARRIVE], Fate.CUT),
        ([ffma(31, 25, SCALE + 1, 31)], Fate.TAKEN),  # the other parity has its own place
        ([fmul(31, SCALE, 25)], Fate.LOST),  # slot b holds R25
        ([instruction(0x836, rd=8, ra=SCALE, rb=1)], Fate.TAKEN),  # slot a, and an immediate
        ([ffma(31, 25, SCALE + 2, 31)], Fate.LOST),
        ([ffma(SCALE, 25, 8, 31)], Fate.LOST),
        ([LDS_SCALE], Fate.LOST),
        ([ffma(31, 25, 8, 31, YIELD)], Fate.CUT),
        ([NOP.with_issue(Issue(2, yields=True))], Fate.CUT),
        ([QGMMA], Fate.UNKNOWN),
        ([WAIT], Fate.UNKNOWN),
        ([instruction(0xB1D)], Fate.UNKNOWN),  # BAR
        ([instruction(0x13F)], Fate.UNKNOWN),
        ([EXIT.replace(guard=0)], Fate.UNKNOWN),
    ],
)
def test_fate(between, expected: Fate) -> None:
    code = [FIRST, *between, TAKER, EXIT]
    assert fate(code, find_blocks(code).blocks[0], 0, slot=1) is expected


def test_half_of_a_pair_is_not_taken() -> None:
    code = [ffma(30, 24, 5, 8), instruction(0x825, rd=6, ra=2, rc=8), EXIT]
    assert fate(code, find_blocks(code).blocks[0], 0, slot=2) is Fate.UNKNOWN


def test_the_taker_may_yield_and_overwrite() -> None:
    code = [FIRST, ffma(SCALE, 25, SCALE, 31, YIELD), EXIT]
    assert fate(code, find_blocks(code).blocks[0], 0, slot=1) is Fate.TAKEN


@pytest.mark.parametrize(
    "first", [ffma(SCALE, 24, SCALE, 30), ffma(30, 24, 255, 30), instruction(0x13F, rb=SCALE)]
)
def test_nothing_to_keep(first) -> None:
    code = [first, TAKER, ffma(31, 25, 255, 31), EXIT]
    assert fate(code, find_blocks(code).blocks[0], 0, slot=1) is Fate.LOST


def test_a_label_between() -> None:
    code = [branch(1, guard=0), FIRST, TAKER, EXIT]
    assert fate(code, find_blocks(code).blocks[1], 1, slot=1) is Fate.LOST


def masks(code, indices) -> list[int]:
    code = list(code)
    settle_reuse(code, find_blocks(code), indices)
    return [i.control.issue.reuse for i in code]


def test_settle() -> None:
    kept = Issue(1, yields=False, reuse=0b010)
    code = [FIRST, TAKER, ffma(32, 26, SCALE, 32, YIELD), ffma(33, 27, SCALE, 33), EXIT]
    assert masks(code, range(4)) == [0b010, 0b010, 0, 0, 0]
    assert masks(code, [1]) == [0, 0b010, 0, 0, 0]
    # A yield before the taker: the bit is dropped. No taker that is known of: it stays.
    cut = [FIRST.with_issue(kept), ffma(32, 26, 8, 32, YIELD), TAKER, EXIT]
    assert masks(cut, [0]) == [0, 0, 0, 0]
    unknown = [FIRST.with_issue(kept), QGMMA, TAKER, EXIT]
    assert masks(unknown, [0]) == [0b010, 0, 0, 0]


def test_nothing_is_set_where_control_flow_is_not_known() -> None:
    assert masks([FIRST, TAKER, instruction(0x949), EXIT], [0]) == [0, 0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_ptxas_sets_the_same_bits(name: str) -> None:
    listing = sample_listing(name)
    kept = 0
    for block in listing.flow.blocks:
        for index in range(block.start, block.end):
            issue = listing.code[index].control.issue
            if listing.code[index].opcode == FFMA and not issue.yields:
                for slot in range(3):
                    taken = fate(listing.code, block, index, slot) is Fate.TAKEN
                    assert taken == bool(issue.reuse >> slot & 1)
                    kept += taken
    assert kept == {"s64.12.8": 56, "s64.12.3": 56, "g128.12.8": 246, "g128.12.9": 121}.get(
        ".".join(name.split(".")[:3]), 28
    )
