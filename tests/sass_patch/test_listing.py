"""Where the promotion is."""

from __future__ import annotations

from sass_patch.samples import ARRIVE, EXIT, NOP, QGMMA, WAIT, branch, fadd, ffma, made, promotion

from gemmgen.sass_patch.listing import REWRITABLE
from gemmgen.sass_patch.operations import FFMA

ADD = ffma(30, 24, 5, 30)


def runs(code, on: str = "ffma") -> list[list[int]]:
    return made(code).promotion_runs(REWRITABLE[on])


def test_a_run_lies_between_warpgroup_instructions() -> None:
    assert runs([ADD, ARRIVE, ADD, QGMMA, ADD, WAIT, ADD, NOP, ADD, ARRIVE, WAIT, ADD, EXIT]) == [
        [2, 4],
        [6, 8],
        [11],
    ]


def test_a_run_ends_with_its_loop() -> None:
    code = [*promotion([ADD, ADD])[:-1], ADD, EXIT, ADD]
    assert runs(code) == [[3, 4]]


def test_a_run_goes_on_behind_a_loop_that_waits() -> None:
    spin = [NOP, branch(-2, guard=1)]
    assert runs(promotion([ADD, *spin, ADD])) == [[3, 6]]


def test_a_run_without_a_loop_ends_with_the_kernel() -> None:
    assert runs([WAIT, ADD, EXIT, ADD]) == [[1]]


def test_which_instructions_a_run_holds() -> None:
    code = promotion([ADD, fadd(31, 31, 25), NOP])
    assert runs(code, "fadd") == [[4]]
    assert runs(code, "all") == [[3, 4]]
    assert runs(code, "fmul") == []


def test_only_the_loop_around_wgmma_itself() -> None:
    inner = promotion([ADD])[:-1]
    code = [NOP, *inner, ADD, branch(-len(inner) - 3, guard=0), EXIT]
    listing = made(code)
    (block,) = listing.wgmma_loop_blocks()
    assert [k for k in range(block.start, block.end) if code[k].opcode == FFMA] == [4]
