"""Basic blocks and loops."""

from __future__ import annotations

import pytest
from sass_patch.samples import EXIT, NAMES, NOP, branch, instruction, sample_listing

from gemmgen.sass_patch import Instruction
from gemmgen.sass_patch.blocks import Block, find_blocks
from gemmgen.sass_patch.operations import SYNC_OFFSET


def bounds(code: list[Instruction]) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(block.start, block.end, block.successors) for block in find_blocks(code).blocks]


def test_code_without_branches_is_one_block() -> None:
    assert bounds([NOP, NOP, EXIT]) == [(0, 3, ())]


def test_a_guarded_branch_goes_two_ways() -> None:
    assert bounds([NOP, branch(1, guard=0), NOP, EXIT]) == [
        (0, 2, (1, 2)),
        (2, 3, (2,)),
        (3, 4, ()),
    ]


def test_a_guarded_exit_may_go_on() -> None:
    assert bounds([EXIT.replace(guard=0), EXIT]) == [(0, 1, (1,)), (1, 2, ())]


def test_a_second_predicate_makes_a_branch_conditional() -> None:
    both = Instruction(branch(1).word & ~(7 << 87))  # BRA P0
    assert bounds([both, NOP, EXIT]) == [(0, 1, (1, 2)), (1, 2, (2,)), (2, 3, ())]


def test_where_bssy_points_a_block_begins() -> None:
    bssy = Instruction(SYNC_OFFSET.insert(instruction(0x945).word, 4))
    assert bounds([bssy, NOP, NOP, EXIT]) == [(0, 2, (1,)), (2, 4, ())]


def test_loops_inner_first() -> None:
    # 0: NOP; 1: NOP; 2: back to 1; 3: back to 0; 4: EXIT
    flow = find_blocks([NOP, NOP, branch(-2, guard=0), branch(-4, guard=0), EXIT])
    assert flow.blocks == (
        Block(0, 1, (1,)),
        Block(1, 3, (1, 2)),
        Block(3, 4, (0, 3)),
        Block(4, 5, ()),
    )
    assert flow.loops == ({1}, {0, 1, 2})
    assert flow.innermost == {1: {1}, 0: {0, 1, 2}, 2: {0, 1, 2}}


def test_code_out_of_line_that_jumps_back_is_no_loop() -> None:
    # 0: to 3 if P0; 1: NOP; 2: EXIT; 3: back to 1
    flow = find_blocks([branch(2, guard=0), NOP, EXIT, branch(-3)])
    assert flow.loops == ()


def test_a_block_that_nothing_reaches() -> None:
    flow = find_blocks([EXIT, branch(-1), branch(-1)])
    assert flow.loops == ()


@pytest.mark.parametrize(
    "unknown",
    [
        instruction(0x949),  # an operation among the branches that the table lacks
        Instruction(instruction(0x948).word | 1 << 34),  # WARPSYNC with a place to go to
        branch(100),  # out of the code
        branch(-100),
        Instruction(branch(0).word | 1 << 16),  # into the middle of an instruction
    ],
)
def test_flow_that_cannot_be_known(unknown: Instruction) -> None:
    assert not find_blocks([NOP, unknown, NOP, EXIT]).exact
    assert find_blocks([NOP, branch(0), NOP, EXIT]).exact


@pytest.mark.parametrize("name", NAMES)
def test_samples(name: str) -> None:
    flow = sample_listing(name).flow
    assert flow.exact
    assert [block.end for block in flow.blocks[:-1]] == [block.start for block in flow.blocks[1:]]
    assert flow.blocks[-1].end == len(sample_listing(name).code)


@pytest.mark.parametrize(("name", "runs"), [("s64.12.8.93", 2), ("g128.12.8.93", 4)])
def test_the_promotion_runs_of_a_sample(name: str, runs: int) -> None:
    listing = sample_listing(name)
    found = listing.promotion_runs({0x223})
    assert [len(run) for run in found] == [32 if name.startswith("s64") else 64] * runs
    assert len(listing.wgmma_loop_blocks()) >= runs
