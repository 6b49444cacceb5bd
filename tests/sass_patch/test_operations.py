"""What is known of single operations."""

from __future__ import annotations

import pytest
from sass_patch.samples import (
    ARRIVE,
    NAMES,
    QGMMA,
    WAIT,
    every_opcode,
    fadd,
    ffma,
    fmul,
    instruction,
    sample_listing,
)

from gemmgen.sass_patch import describe, mnemonic
from gemmgen.sass_patch.operations import (
    OPERATIONS,
    has_fixed_latency,
    is_warpgroup_arrive,
    is_warpgroup_wait,
    is_wgmma,
    operation_of,
    read_registers,
    written_registers,
)


def test_every_operation_of_the_samples_is_known() -> None:
    assert {
        f"{opcode:#x}" for opcode, i in every_opcode().items() if operation_of(i) is None
    } == set()


@pytest.mark.parametrize("name", NAMES)
def test_only_variable_latency_sets_a_scoreboard(name: str) -> None:
    for i in sample_listing(name).code:
        if has_fixed_latency(i):
            assert i.write_scoreboard == i.read_scoreboard == 7, mnemonic(i)


@pytest.mark.parametrize("name", NAMES)
def test_reuse_is_on_registers(name: str) -> None:
    for i in sample_listing(name).code:
        reuse = i.control.issue.reuse
        kept = [read_registers(i)[slot] for slot in range(3) if reuse >> slot & 1]
        assert None not in kept, describe(i)


@pytest.mark.parametrize(
    ("made", "reads", "writes"),
    [
        (ffma(1, 2, 3, 4), (2, 3, 4), [1]),
        (ffma(1, 2, 255, 255), (2, None, None), [1]),
        (ffma(255, 2, 3, 4), (2, 3, 4), []),
        (instruction(0x823, rd=1, ra=2, rb=3, rc=4), (2, None, 4), [1]),  # immediate in slot b
        (instruction(0x423, rd=1, ra=2, rb=3, rc=4), (2, 4, None), [1]),  # immediate in slot c
        (fmul(1, 2, 3), (2, 3, None), [1]),
        (fadd(1, 2, 3), (2, 3, None), [1]),
        (instruction(0x825, rd=6, ra=2, rc=4), (2, None, 4), [6, 7]),  # IMAD.WIDE
        (instruction(0x20C, ra=2, rb=3), (2, 3, None), []),  # ISETP
        (instruction(0x984, rd=8, ra=2, modifiers=4 << 1), (None,) * 3, [8]),  # LDS
        (instruction(0x984, rd=8, ra=2, modifiers=6 << 1), (None,) * 3, [8, 9, 10, 11]),
        (instruction(0x388, ra=2, rb=3), (None,) * 3, []),  # STS
        (instruction(0x890), (None,) * 3, []),  # UIADD3
        (ARRIVE, (None,) * 3, []),
        (WAIT, (None,) * 3, None),
        (QGMMA, (None,) * 3, None),
        (instruction(0x93F), (None,) * 3, None),  # not known
    ],
    ids=lambda value: describe(value) if hasattr(value, "word") else "",
)
def test_registers(made, reads, writes) -> None:
    assert read_registers(made) == reads
    written = written_registers(made)
    assert (None if written is None else list(written)) == writes


def test_kinds() -> None:
    assert is_warpgroup_arrive(ARRIVE)
    assert not is_warpgroup_arrive(WAIT)
    assert is_warpgroup_wait(WAIT)
    assert not is_warpgroup_wait(ARRIVE)
    assert is_wgmma(QGMMA)
    assert not is_wgmma(ARRIVE)
    assert not has_fixed_latency(instruction(0x984))
    assert has_fixed_latency(instruction(0x93F))
    assert not has_fixed_latency(instruction(0x93F, write_scoreboard=0))


def test_the_table_is_well_formed() -> None:
    for operation, row in OPERATIONS.items():
        assert 0 <= operation < 512
        assert row.slots in ("", "a", "b", "ab", "abc")
        assert row.name.isupper() or "_" in row.name


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (ffma(137, 84, 135, 9), "FFMA R137, R84, R135, R9"),
        (fmul(1, 255, 3), "FMUL R1, RZ, R3"),
        (fadd(1, 2, 3).replace(guard=2, guard_not=1), "@!P2 FADD R1, R2, R3"),
        (instruction(0x918, guard_not=1), "@!PT NOP"),
        (ARRIVE, "WARPGROUP.ARRIVE"),
        (WAIT, "WARPGROUP.DEPBAR"),
        (instruction(0x93F), "op_0x13f"),
        (instruction(0x9C7), "UCGABAR_ARV"),
    ],
)
def test_describe(made, text: str) -> None:
    assert describe(made) == text
