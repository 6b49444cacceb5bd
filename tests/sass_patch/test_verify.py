"""The verifier rejects exactly what the rules forbid.

Its judgement is compared with `is_legal` below, which is written on raw bits and shares nothing
with it.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import (
    CONTROL_BITS,
    EXIT,
    YIELD,
    every_opcode,
    fadd,
    ffma,
    fmul,
    instruction,
    made,
    sample,
    sample_listing,
)

from gemmgen.errors import PatchError
from gemmgen.sass_patch import (
    Instruction,
    Listing,
    patch,
    read_cubin,
    verify_code,
    verify_file,
)
from gemmgen.sass_patch.pass_table import PASSES, Pass
from gemmgen.sass_patch.passes.rewrite import Rewrite
from gemmgen.sass_patch.passes.sparse_yield import sparse_yield
from gemmgen.sass_patch.verify import RULES

KEEPS = 2 << 122  # reuse in slot b


def is_legal(before: int, after: int, following: list[int]) -> bool:
    """The rules on raw words, where FFMA, FMUL, FADD or the end of the kernel follow."""
    if before == after:
        return True
    opcode = before & 0xFFF
    if opcode not in (0x223, 0x220, 0x221) or (before ^ after) & ~CONTROL_BITS:
        return False
    stall, stays, reuse = after >> 105 & 15, after >> 109 & 1, after >> 122 & 7
    if reuse and not stays:
        return False
    if stays and not 1 <= stall <= 11:
        return False
    if opcode != 0x223 and reuse & 4:
        return False
    added = reuse & ~(before >> 122)
    return all(_is_taken(after, following, slot) for slot in range(3) if added >> slot & 1)


def _is_taken(word: int, following: list[int], slot: int) -> bool:
    low = (24, 32, 64)[slot]
    register = word >> low & 255
    if register == 255 or register == word >> 16 & 255:
        return False
    for other in following:
        if other & 0xFFF not in (0x223, 0x220, 0x221):
            return False
        if slot < 2 or other & 0xFFF == 0x223:
            read = other >> low & 255
            if read == register:
                return True
            if read != 255 and read % 2 == register % 2:
                return False
        if other >> 16 & 255 == register or not other >> 109 & 1:
            return False
    return False


def accepts(listing: Listing, index: int, word: int) -> bool:
    after = list(listing.code)
    after[index] = Instruction(word)
    try:
        verify_code(listing, after, "a test")
    except PatchError:
        return False
    return True


@pytest.mark.parametrize("opcode", sorted(every_opcode()), ids=hex)
def test_each_bit_of_each_kind_of_instruction(opcode: int) -> None:
    word = every_opcode()[opcode].word
    listing = made([Instruction(word), EXIT])
    for bit in range(128):
        mutated = word ^ 1 << bit
        assert accepts(listing, 0, mutated) == is_legal(word, mutated, []), bit


def arithmetic(generator: random.Random) -> Instruction:
    """A random FFMA, FMUL or FADD on few registers, so that some are read again soon."""
    rd, ra, rb, rc = (generator.choice((4, 5, 6, 7, 255)) for _ in range(4))
    return generator.choice((ffma(rd, ra, rb, rc), fmul(rd, ra, rb), fadd(rd, ra, rb)))


@pytest.mark.parametrize("seed", range(40))
def test_each_issue_code_in_each_context(seed: int) -> None:
    generator = random.Random(seed)
    code = [arithmetic(generator) for _ in range(5)]
    code = [i.with_issue(YIELD) if generator.random() < 0.2 else i for i in code]
    listing = made([*code, EXIT])
    following = [i.word for i in listing.code[1:]]
    for start in (code[0].word, code[0].with_issue(YIELD).word):
        listing = made([Instruction(start), *code[1:], EXIT])
        for issue in range(256):
            word = start & ~(0b11111 << 105 | 0b111 << 122)
            word |= (issue & 31) << 105 | issue >> 5 << 122
            assert accepts(listing, 0, word) == is_legal(start, word, following), hex(issue)


@given(st.integers(0, 1607), st.sets(st.integers(0, 127), max_size=3))
def test_mutations_of_a_real_kernel(index: int, bits: set[int]) -> None:
    listing = sample_listing("g128.12.9.86")
    before = listing.code[index].word
    after = before
    for bit in bits:
        after ^= 1 << bit
    run = [i.word for i in listing.code[index + 1 : index + 40]]
    # `is_legal` gives up at other instructions, where reuse may be legal; clearing always is.
    if not after >> 122 & 7 & ~(before >> 122):
        assert accepts(listing, index, after) == is_legal(before, after, run)
    elif is_legal(before, after, run):
        assert accepts(listing, index, after)


def test_the_rules_have_names_and_words() -> None:
    names = [rule.name for rule in RULES]
    assert names == ["operation", "operands", "scoreboards", "encoding", "stall", "slots"]
    assert all(rule.text for rule in RULES)


FFMA = ffma(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("operation", instruction(0x224), instruction(0x224, YIELD)),
        ("operands", FFMA, FFMA.replace(rc=5)),
        ("operands", FFMA, FFMA.replace(guard=0)),
        ("operands", FFMA, Instruction(FFMA.word | 1 << 77)),
        ("scoreboards", FFMA, FFMA.replace(wait_mask=1)),
        ("scoreboards", FFMA, FFMA.replace(write_scoreboard=0)),
        ("encoding", FFMA.with_issue(YIELD), Instruction(FFMA.with_issue(YIELD).word | KEEPS)),
        ("stall", FFMA, Instruction(FFMA.word + (1 << 105))),
        ("slots", fmul(1, 2, 3), Instruction(fmul(1, 2, 3).word | 4 << 122)),
        ("reuse", FFMA, Instruction(FFMA.word | KEEPS)),
    ],
)
def test_a_broken_rule_is_named(rule: str, before: Instruction, after: Instruction) -> None:
    listing = made([instruction(0x918), before, EXIT], name="gemm_1")
    with pytest.raises(PatchError) as caught:
        verify_code(listing, [listing.code[0], after, EXIT], "my_pass(period=8)")
    message = str(caught.value)
    assert f"my_pass(period=8) broke the rule '{rule}'" in message
    assert "kernel gemm_1, offset 0x0010" in message
    assert " became " in message
    assert "B------:R-:W-:" in message


def test_reuse_in_a_kernel_whose_flow_is_not_known() -> None:
    kept = Instruction(FFMA.word | KEEPS)
    for last, legal in ((EXIT, True), (instruction(0x949), False)):
        assert accepts(made([FFMA, FFMA.replace(rd=9), last]), 0, kept.word) == legal


def test_code_stays_in_place() -> None:
    listing = made([FFMA, EXIT])
    for after in ([FFMA], [FFMA, FFMA, EXIT]):
        with pytest.raises(PatchError, match="in place"):
            verify_code(listing, after, "a test")


def test_the_rest_of_the_file_stays() -> None:
    data = sample("s64.12.8.93")
    kernels = read_cubin(data).kernels
    (kernel,) = kernels
    verify_file(data, data, kernels)
    inside = {kernel.offset, kernel.offset + kernel.size - 1}
    edges = {0, 20, kernel.offset - 1, kernel.offset + kernel.size, len(data) - 1}
    for place in inside | edges:
        changed = bytearray(data)
        changed[place] ^= 1
        if place in inside:
            verify_file(data, bytes(changed), kernels)
        else:
            with pytest.raises(PatchError, match="outside of the code"):
                verify_file(data, bytes(changed), kernels)
    for changed_length in (data + b"\0", data[:-1]):
        with pytest.raises(PatchError, match="outside of the code"):
            verify_file(data, changed_length, kernels)


def test_a_pass_that_breaks_a_rule_leaves_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def toggle_yield_only(listing: Listing, **values: object) -> Rewrite:
        # What an XOR of bit 109 does to an FFMA with reuse: nvdisasm shows nothing wrong with it.
        code = tuple(
            Instruction(i.word & ~(1 << 109)) if i.opcode == 0x223 else i for i in listing.code
        )
        return Rewrite(code)

    monkeypatch.setitem(PASSES, "sparse_yield", Pass(toggle_yield_only, 1))
    with pytest.raises(PatchError, match=r"broke the rule 'encoding'[\s\S]*no legal control code"):
        patch(sample("g128.12.8.93"), ["sparse_yield"])


@pytest.mark.parametrize("seed", range(20))
def test_passes_on_random_promotions_are_accepted(seed: int) -> None:
    generator = random.Random(seed)
    arithmetics = [arithmetic(generator) for _ in range(40)]
    listing = made([instruction(0x9C5), *arithmetics, EXIT])
    for period in (1, 2, 8):
        rewrite = sparse_yield(listing, period, 0, "all")
        verify_code(listing, rewrite.code, "sparse_yield")
