"""The layout of an instruction and the control codes that exist."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import NAMES, every_opcode, sample_listing

from gemmgen.errors import PatchError
from gemmgen.sass_patch import ControlCode, Instruction, Issue, notation
from gemmgen.sass_patch.encoding import FIELDS, ISSUES, BitField, issue_of, staying, yielding

WORDS = st.integers(0, 2**128 - 1)


@st.composite
def real_opcodes(draw: st.DrawFn) -> int:
    """Random operands, modifiers and control bits behind an opcode that ptxas emits."""
    opcode = draw(st.sampled_from(sorted(every_opcode())))
    return draw(WORDS) & ~0xFFF | opcode


def test_each_bit_belongs_to_one_field() -> None:
    bits = [
        bit
        for field in FIELDS.values()
        for low, width in field.runs
        for bit in range(low, low + width)
    ]
    assert sorted(bits) == list(range(128))
    assert all(field.name == name for name, field in FIELDS.items())


@given(st.one_of(WORDS, real_opcodes()))
def test_fields_and_words_are_inverse(word: int) -> None:
    fields = Instruction(word).fields()
    again = 0
    for name, value in fields.items():
        again = FIELDS[name].insert(again, value)
    assert again == word
    assert all(getattr(Instruction(word), name) == value for name, value in fields.items())


@given(real_opcodes())
def test_control_codes_and_words_are_inverse(word: int) -> None:
    instruction = Instruction(word)
    try:
        control = instruction.control
    except PatchError:
        illegal_scoreboard = 6 in (instruction.write_scoreboard, instruction.read_scoreboard)
        assert instruction.issue not in ISSUES or illegal_scoreboard
        assert notation(instruction).startswith("no legal control code")
    else:
        assert control.encode(instruction) == instruction
        assert control.encode(Instruction(0)).control == control
        assert str(control) == notation(instruction)


@given(WORDS, st.sampled_from(sorted(FIELDS)), st.data())
def test_setting_one_field_leaves_the_others(word: int, name: str, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, (1 << FIELDS[name].width) - 1))
    if name == "issue" and value not in ISSUES:
        with pytest.raises(PatchError, match="no sm_90 control code"):
            Instruction(word).replace(issue=value)
        return
    changed = Instruction(word).replace(**{name: value}).fields()
    assert changed == {**Instruction(word).fields(), name: value}


@pytest.mark.parametrize("value", [-1, 256, 1 << 40])
def test_a_value_that_does_not_fit(value: int) -> None:
    with pytest.raises(PatchError, match=r"field rd[\s\S]*0 to 255"):
        Instruction(0).replace(rd=value)


@pytest.mark.parametrize("word", [-1, 1 << 128])
def test_an_instruction_has_128_bits(word: int) -> None:
    with pytest.raises(PatchError, match="128 bits"):
        Instruction(word)


def test_a_scattered_field_reads_its_lowest_run_first() -> None:
    field = BitField((105, 5), (122, 3))
    word = 0b10001 << 105 | 0b010 << 122
    assert field.extract(word) == 0b010_10001
    assert field.insert(0, 0b010_10001) == word


def test_the_issue_codes_that_exist() -> None:
    # Measured with nvdisasm 13.5 on an FFMA with each value of the five lower and three upper bits.
    legal = {
        usched | reuse << 5
        for usched in range(32)
        for reuse in range(8)
        if (usched <= 15 and reuse == 0) or 17 <= usched <= 27
    }
    assert set(ISSUES) == legal
    assert len(ISSUES) == 104
    assert all(issue.code == code for code, issue in ISSUES.items())


@pytest.mark.parametrize(
    ("stall", "yields", "reuse"),
    [(1, True, 0b010), (16, True, 0), (-1, True, 0), (0, False, 0), (12, False, 0), (1, False, 8)],
)
def test_other_issue_codes_cannot_be_made(stall: int, yields: bool, reuse: int) -> None:
    with pytest.raises(PatchError, match="no sm_90 control code"):
        Issue(stall, yields, reuse)


def test_a_yield_and_reuse_exclude_each_other() -> None:
    reusing = Instruction(0).with_issue(Issue(1, yields=False, reuse=0b010))
    assert issue_of(yielding(reusing)) == Issue(1, yields=True)
    assert issue_of(staying(yielding(reusing))) == Issue(1, yields=False)
    with pytest.raises(PatchError):
        staying(Instruction(0).with_issue(Issue(13, yields=True)))


@pytest.mark.parametrize(
    ("control", "text"),
    [
        (ControlCode(Issue(1, True)), "B------:R-:W-:Y:S01"),
        (ControlCode(Issue(4, False), 1, 0, 0b100001), "B0----5:R0:W1:-:S04"),
        (ControlCode(Issue(11, False, 0b110), 7, 5, 0), "B------:R5:W-:-:S11 reuse=bc"),
    ],
)
def test_notation(control: ControlCode, text: str) -> None:
    assert str(control) == text


@pytest.mark.parametrize("name", NAMES)
def test_ptxas_uses_legal_control_codes(name: str) -> None:
    for instruction in sample_listing(name).code:
        assert instruction.control.encode(instruction) == instruction
        assert instruction.spare == instruction.perf_monitor == 0


def test_decoding_is_fast() -> None:
    words = [i.word for i in sample_listing("g128.12.8.93").code]
    start = time.perf_counter()
    for word in words:
        instruction = Instruction(word)
        _ = instruction.operation, instruction.rd, instruction.rb, ISSUES[instruction.issue]
    per_second = len(words) / (time.perf_counter() - start)
    assert per_second > 100_000
