"""Literal logs of several ptxas releases."""

from __future__ import annotations

import pytest

from gemmgen.toolchain.ptxas_log import (
    FLAWS,
    Flaw,
    Resources,
    find_flaws,
    read_resources,
    without_times,
)

GEMM_12_8 = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'gemm' for 'sm_90a'
ptxas info    : Function properties for gemm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers
ptxas info    : Compile time = 140.786 ms
"""
SPILLS_12_3 = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spill' for 'sm_90a'
ptxas info    : Function properties for spill
    352 bytes stack frame, 472 bytes spill stores, 504 bytes spill loads
ptxas info    : Used 32 registers
"""
SPILLS_13_5 = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spill' for 'sm_90a'
ptxas info    : Function properties for spill
    344 bytes stack frame, 468 bytes spill stores, 500 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 344 bytes cumulative stack size
ptxas info    : Compile time = 15.990 ms
"""
CALL_12_6 = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'callee' for 'sm_90a'
ptxas info    : Function properties for callee
    128 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 128 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Function properties for _Z4slowPfi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
NO_SETMAXNREG_12_8 = """\
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine \
register count at entry.
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'regs' for 'sm_90a'
ptxas info    : Function properties for regs
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""
SERIALIZED_12_3 = """\
ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized \
due to non wgmma instructions defining accumulator registers of a wgmma between start and end of \
the pipeline stage in the function 'ser'
ptxas info    : Used 30 registers
"""
SERIALIZED_12_8 = """\
ptxas info    : (C7519) warpgroup.arrive is injected in around line 45 by compiler to allow use \
of registers in GMMA in function 'ser'
ptxas info    : (C7517) warpgroup.wait is injected in around line 42 by compiler to allow use of \
registers defined by GMMA in function 'ser'
ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized \
due to insufficient register resources for the wgmma pipeline in the function 'ser'
ptxas info    : Used 30 registers, used 0 barriers
"""
SERIALIZED_13_2 = """\
ptxas info    : (C7517) wgmma.wait_group is injected in around line 42 by compiler to allow use \
of registers defined by GMMA in function 'ser'
ptxas info    : Used 30 registers, used 0 barriers
"""


def test_resources_of_a_clean_kernel() -> None:
    assert read_resources(GEMM_12_8) == Resources(
        registers=168,
        stack_bytes=0,
        spill_store_bytes=0,
        spill_load_bytes=0,
        shared_bytes=0,
        barriers=2,
    )


def test_resources_with_spills() -> None:
    spills = read_resources(SPILLS_13_5)
    assert (spills.stack_bytes, spills.spill_store_bytes, spills.spill_load_bytes) == (
        344,
        468,
        500,
    )


def test_old_releases_do_not_count_barriers() -> None:
    assert read_resources(SPILLS_12_3).barriers is None


def test_resources_of_several_functions() -> None:
    resources = read_resources(CALL_12_6)
    assert (resources.registers, resources.stack_bytes, resources.shared_bytes) == (32, 128, 1024)


def test_resources_of_nothing() -> None:
    assert read_resources("") == Resources(0, 0, 0, 0, 0, None)


@pytest.mark.parametrize(
    ("log", "flaws"),
    [
        (GEMM_12_8, []),
        (SPILLS_12_3, [Flaw.SPILLS]),
        (SPILLS_13_5, [Flaw.SPILLS]),
        (CALL_12_6, [Flaw.LOCAL_MEMORY]),
        (NO_SETMAXNREG_12_8, [Flaw.IGNORED_SETMAXNREG]),
        (SERIALIZED_12_3, [Flaw.SERIALIZED_WGMMA]),
        (SERIALIZED_12_8, [Flaw.SERIALIZED_WGMMA]),
        (SERIALIZED_13_2, [Flaw.SERIALIZED_WGMMA]),
        (SPILLS_12_3 + SERIALIZED_12_8, [Flaw.SPILLS, Flaw.SERIALIZED_WGMMA]),
        ("    40 bytes stack frame, 10 bytes spill stores, 0 bytes spill loads", [Flaw.SPILLS]),
    ],
)
def test_flaws(log: str, flaws: list[Flaw]) -> None:
    assert list(find_flaws(log)) == flaws


@pytest.mark.parametrize("code", ["C7510", "C7511", "C7514", "C7517", "C7519"])
def test_advisories_are_known_by_their_codes_whatever_they_say(code: str) -> None:
    assert list(find_flaws(f"ptxas info    : ({code}) new words")) == [Flaw.SERIALIZED_WGMMA]


def test_evidence_is_the_line_that_shows_the_flaw() -> None:
    (line,) = find_flaws(SPILLS_12_3)[Flaw.SPILLS]
    assert line == "352 bytes stack frame, 472 bytes spill stores, 504 bytes spill loads"


def test_every_flaw_has_a_row() -> None:
    assert set(FLAWS) == set(Flaw)


def test_a_name_in_plain_text_stands_for_a_flaw() -> None:
    assert Flaw.SPILLS in {"spills"}


def test_the_compile_time_is_dropped() -> None:
    assert without_times(GEMM_12_8) == GEMM_12_8[: GEMM_12_8.index("ptxas info    : Compile time")]
