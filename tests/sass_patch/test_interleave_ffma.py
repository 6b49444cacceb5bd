"""`interleave_ffma` against the compiler whose rule it is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from sass_patch.samples import (
    CONTROL_BITS,
    EXIT,
    QGMMA,
    UMOV,
    WAIT,
    YIELD,
    fadd,
    ffma,
    instruction,
    made,
    promotion,
    sample,
    sample_listing,
    yields,
)

from gemmgen.sass_patch import Instruction, Issue, patch, read_listings
from gemmgen.sass_patch.operations import FFMA, SYNC_OFFSET
from gemmgen.sass_patch.passes.interleave_ffma import interleave_ffma

ADD = ffma(30, 24, 5, 30)
BSSY = Instruction(SYNC_OFFSET.insert(instruction(0x945).word, 3 * 4))  # to EXIT
LDS = instruction(0x984, rd=9, ra=2, modifiers=4 << 1)


def interleaved(arithmetic, fraction: Fraction = Fraction(1), **kernel) -> str:
    return yields(interleave_ffma(made(promotion(arithmetic), **kernel), fraction).code)


@pytest.mark.parametrize("kernel", ["g128", "s64"])
def test_ptxas_12_9_does_the_same(kernel: str) -> None:
    ours = patch(sample(f"{kernel}.12.8.93"), ["interleave_ffma"])
    theirs = sample_listing(f"{kernel}.12.9.86").code
    (before,) = {len(sample_listing(f"{kernel}.12.8.93").code)}
    assert before == len(theirs)
    changed = {change.offset // 16: change.after for change in ours.changes}
    for index, old in enumerate(sample_listing(f"{kernel}.12.8.93").code):
        assert changed.get(index, old.word) == theirs[index].word
    assert len(changed) == {"g128": 129, "s64": 32}[kernel]


def test_each_kernel_of_a_file() -> None:
    ours = read_listings(patch(sample("pair.12.8.93"), ["interleave_ffma"]).cubin)
    assert [listing.code for listing in ours] == [
        listing.code for listing in read_listings(sample("pair.12.9.86"))
    ]


def test_the_patched_file_differs_from_that_of_12_9_in_its_version_only() -> None:
    ours, theirs = patch(sample("g128.12.8.93"), ["interleave_ffma"]).cubin, sample("g128.12.9.86")
    differing = [
        place for place, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1
    ]
    assert [(ours[place], theirs[place]) for place in differing] == [(128, 129)] * 2


def test_only_bits_109_and_122_to_124_change() -> None:
    for change in patch(sample("g128.12.8.93"), ["interleave_ffma"]).changes:
        assert change.before & ~CONTROL_BITS == change.after & ~CONTROL_BITS
        assert Instruction(change.before).opcode == FFMA
        assert not change.after & CONTROL_BITS


@pytest.mark.parametrize("name", ["s64.12.9.86", "s64.13.0.88", "g128.12.9.86"])
def test_later_versions_are_left_alone(name: str) -> None:
    result = patch(sample(name), ["interleave_ffma"])
    assert result.cubin == sample(name)
    assert result.reports[0].note == f"already interleaved by ptxas {name.split('.', 1)[1][:4]}"


def test_twice_is_once() -> None:
    once = patch(sample("g128.12.8.93"), ["interleave_ffma"])
    twice = patch(once.cubin, ["interleave_ffma"])
    assert twice.cubin == once.cubin
    assert not twice.changes


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        ([ADD] * 5, "Y-Y-Y"),
        ([UMOV, ADD, ADD], "Y-"),  # counted from the first FFMA
        ([ADD, UMOV, ADD, ADD], "YY-"),  # a fixed-latency instruction is a slot
        ([ADD, LDS, ADD, ADD], "YY-"),  # one of variable latency starts anew
        ([ADD, LDS, UMOV, ADD, ADD], "Y-Y"),
        ([ADD, UMOV, UMOV.with_issue(Issue(3, yields=True)), ADD], "Y-"),  # so does a wait: slot 0
        ([ADD, UMOV, UMOV.with_issue(Issue(2, yields=True)), ADD], "Y-"),
        ([ADD, UMOV.with_issue(Issue(3, yields=True)), ADD], "Y-"),
        ([ADD, UMOV.with_issue(Issue(2, yields=True)), ADD], "YY"),
        ([UMOV.with_issue(YIELD), ADD, ADD], "-Y"),  # a yield right before the first FFMA
        ([ADD, BSSY, ADD, ADD], "YY-"),  # and BSSY
        ([ADD, ADD.with_issue(Issue(4, yields=True)), ADD, ADD], "YY-Y"),
        ([ADD, fadd(31, 31, 25), ADD], "Y-Y"),
    ],
)
def test_the_rule(arithmetic, expected: str) -> None:
    assert interleaved(arithmetic) == expected


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [
        (8, Fraction(1, 2), "Y-Y-----"),
        (16, Fraction(9, 16), "Y-Y-Y-Y-Y-------"),
        (2, Fraction(1, 4), "--"),
    ],
)
def test_the_first_part_of_a_row(count: int, fraction: Fraction, expected: str) -> None:
    assert interleaved([ADD] * count, fraction) == expected
    assert interleaved([*[ADD] * count, LDS, *[ADD] * count], fraction) == 2 * expected


def test_reuse_that_a_yield_cuts_off_is_dropped() -> None:
    # R5 waits in slot b behind R4, which has the place of the other parity, and behind its yield.
    kept = Issue(1, yields=False, reuse=0b010)
    code = [ffma(30, 24, 8, 30), ADD.with_issue(kept), ffma(31, 25, 4, 31, kept), ADD]
    rewritten = interleave_ffma(made(promotion(code)), Fraction(1)).code
    assert [i.control.issue.reuse for i in rewritten if i.opcode == FFMA] == [0, 0, 0, 0]


def test_where_ptxas_does_not_interleave() -> None:
    assert interleaved([ADD] * 4, max_registers=255) == "----"
    assert interleaved([ADD] * 4, max_registers=None) == "Y-Y-"
    assert interleaved([ADD] * 4, toolkit=None) == "----"
    straight = made([QGMMA, WAIT, ADD, ADD, EXIT])  # no loop
    assert yields(interleave_ffma(straight, Fraction(1)).code) == "--"
