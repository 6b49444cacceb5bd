"""What is known of a cubin: sections, statistics, text, and what differs between two."""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import (
    ARRIVE,
    EXIT,
    NAMES,
    NOP,
    PAIRS,
    QGMMA,
    WAIT,
    branch,
    fadd,
    ffma,
    instruction,
    made,
    sample,
    sample_listing,
)

import gemmgen
from gemmgen import inspection
from gemmgen.errors import PatchError
from gemmgen.inspection import (
    OWN_DECODER,
    Arithmetic,
    Disassembly,
    Inspection,
    Line,
    Section,
    compare,
    find_sections,
    kind_of_change,
)
from gemmgen.inspection.disassembly import parse_listing
from gemmgen.inspection.statistics import count
from gemmgen.sass_patch import Instruction, Issue, describe, mnemonic, notation, patch
from gemmgen.sass_patch.operations import is_wgmma

UTMALDG = instruction(0x5B4)
STSM = instruction(0x844)
MBARRIER_TRY_WAIT = 0x5A7
ADD = ffma(30, 24, 5, 31)


@functools.cache
def inspect(name: str) -> Inspection:
    return inspection.inspect(sample(name))


def lines(name: str) -> tuple[Line, ...]:
    return inspect(name).kernels[0].lines


# --- Facts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_is_there_in_order(name: str) -> None:
    listing = sample_listing(name)
    assert [line.offset for line in lines(name)] == [16 * k for k in range(len(listing.code))]
    for line, code in zip(lines(name), listing.code, strict=True):
        assert (line.control, line.text, line.word) == (notation(code), describe(code), code.word)
        block = listing.flow.blocks[line.block]
        assert block.start <= line.offset // 16 < block.end


def test_a_cubin_of_two_kernels() -> None:
    facts = inspect(PAIRS[0])
    assert facts.architecture == "sm_90a"
    assert [kernel.resources.name for kernel in facts.kernels] == ["plain", "scaled"]


def test_text_of_another_disassembler_comes_first() -> None:
    other = Disassembly("someone", {"gemm": {16: "S2R R3, SR_TID.X"}, "else": {0: "NOP"}})
    facts = inspection.inspect(sample("s64.12.8.93"), other)
    assert facts.decoder == "someone"
    assert [line.text for line in facts.kernels[0].lines[:3]] == ["LDC", "S2R R3, SR_TID.X", "LDC"]


@pytest.mark.parametrize("data", [b"", b"no cubin", sample("s64.12.8.93")[:-1]])
def test_no_cubin(data: bytes) -> None:
    with pytest.raises(PatchError):
        inspection.inspect(data)


@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    cubin = bytearray(sample("s64.12.8.93"))
    for place in data.draw(st.lists(st.integers(0, len(cubin) - 1), max_size=20)):
        cubin[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(cubin)), st.integers(0, len(cubin))))
    try:
        facts = inspection.inspect(bytes(cubin[:end]))
    except PatchError:
        return
    assert facts.kernels


# --- Sections -----------------------------------------------------------------------------------


def sections(code: list[Instruction]) -> list[str]:
    return [section.value for section in find_sections(made(code))]


def test_a_loop_takes_the_section_of_what_it_holds() -> None:
    body = [ARRIVE, QGMMA, WAIT, ADD, NOP, fadd(30, 31, 30), NOP]
    spin = [NOP, branch(-2, guard=0)]
    code = [NOP, *spin, *body, branch(-len(body) - 3, guard=0), STSM, EXIT]
    assert sections(code) == [
        "other",
        *["mainloop"] * 5,
        *["promotion"] * 3,
        *["mainloop"] * 2,
        *["epilogue"] * 2,
    ]


def test_a_loop_over_tiles_has_no_section_of_its_own() -> None:
    inner = [QGMMA, branch(-2, guard=0)]
    code = [NOP, NOP, *inner, NOP, branch(0), STSM, branch(-len(inner) - 5, guard=0), EXIT]
    assert sections(code) == ["other"] * 2 + ["mainloop"] * 2 + ["other"] * 2 + [
        "epilogue",
        "epilogue",
        "other",
    ]


def test_a_loop_around_only_one_section_is_that_section() -> None:
    inner = [UTMALDG, branch(-2, guard=0)]
    code = [NOP, *inner, NOP, branch(-len(inner) - 3, guard=0), EXIT]
    assert sections(code) == ["producer"] * 5 + ["other"]


def test_arithmetic_that_wgmma_overlaps_is_no_promotion() -> None:
    body = [WAIT, ADD, QGMMA, ADD]
    assert set(sections([*body, branch(-len(body) - 1, guard=0), EXIT])) == {"mainloop", "other"}


def test_arithmetic_of_an_epilogue_is_no_promotion() -> None:
    assert sections([QGMMA, WAIT, branch(0), ADD, STSM, EXIT])[3] == "epilogue"


@pytest.mark.parametrize("name", NAMES)
def test_sections_of_the_samples(name: str) -> None:
    where: dict[str, set[Section]] = {}
    for line in lines(name):
        where.setdefault(mnemonic(Instruction(line.word)), set()).add(line.section)
    assert where["QGMMA"] == where["WARPGROUP"] == {Section.MAINLOOP}
    assert where["FFMA"] == {Section.PROMOTION}
    assert where["UTMALDG"] == {Section.PRODUCER}
    assert where["STG"] == {Section.EPILOGUE}
    waits = {li.section for li in lines(name) if Instruction(li.word).opcode == MBARRIER_TRY_WAIT}
    assert waits <= {Section.MAINLOOP, Section.PROMOTION, Section.PRODUCER}
    assert where["USETMAXREG"] == {Section.OTHER}


# --- Statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ffma", "reuse", "yields"),  # the table of sass_patch/data/README.md
    [
        ("s64.12.3.107", 64, 56, 1),
        ("s64.12.8.93", 64, 56, 0),
        ("s64.12.9.86", 64, 28, 32),
        ("s64.13.0.88", 64, 28, 32),
        ("g128.12.8.93", 256, 246, 0),
        ("g128.12.9.86", 256, 121, 129),
    ],
)
def test_counts_of_the_samples(name: str, ffma: int, reuse: int, yields: int) -> None:
    (kernel,) = inspect(name).kernels
    statistics = kernel.statistics
    assert statistics.arithmetic["FFMA"] == Arithmetic(ffma, reuse, yields)
    assert statistics.arithmetic["FADD"] == Arithmetic(0, 0, 0)
    assert sum(statistics.promotion_runs) == ffma
    assert statistics.instructions == sum(statistics.classes.values()) == len(kernel.lines)
    assert statistics.wgmma == 4 * len(statistics.wgmma_to_wait) == statistics.classes["wgmma"]


def test_rows_runs_and_waits() -> None:
    code = [NOP, QGMMA, QGMMA, NOP, NOP, WAIT, ADD, ADD, NOP, ADD, WAIT, ARRIVE, QGMMA, WAIT, EXIT]
    statistics = count(made(code))
    assert statistics.longest_ffma_row == 2
    assert statistics.promotion_runs == (3,)
    assert statistics.wgmma_to_wait == (2, 0)
    assert count(made([NOP, EXIT])).longest_ffma_row == 0


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
def test_every_instruction_of_the_samples_has_a_class(name: str) -> None:
    for kernel in inspect(name).kernels:
        assert "other" not in kernel.statistics.classes


# --- Comparison ---------------------------------------------------------------------------------


def test_the_golden_pair() -> None:
    (found,) = compare(inspect("g128.12.8.93"), inspect("g128.12.9.86"))
    assert (found.kernel, found.instructions) == ("gemm", 1608)
    assert found.kinds == {"yield set, reuse cleared": 125, "yield set": 4}
    assert {each.section for each in found.differences} == {Section.PROMOTION}
    first = found.differences[0]
    assert (first.before, first.after) == ("B------:R-:W-:-:S01 reuse=b", "B------:R-:W-:Y:S01")
    assert first.text_before == first.text_after == "FFMA R137, R84, R135, R9"


def test_a_patch_is_seen_as_what_it_was() -> None:
    result = patch(sample("g128.12.9.86"), ["sparse_yield"])
    (found,) = compare(inspect("g128.12.9.86"), inspection.inspect(result.cubin))
    assert [each.offset for each in found.differences] == [c.offset for c in result.changes]


def test_kernels_are_compared_by_name() -> None:
    before = inspect(PAIRS[0])
    after = replace(before, kernels=before.kernels[::-1])
    assert [found.differences for found in compare(before, after)] == [(), ()]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(PatchError, match=r"do not hold the same kernels[\s\S]*plain, scaled"):
        compare(inspect(PAIRS[0]), inspect("g128.12.8.93"))
    with pytest.raises(PatchError, match=r"instruction by instruction[\s\S]*896[\s\S]*1608"):
        compare(inspect("s64.12.8.93"), inspect("g128.12.8.93"))


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (ADD.with_issue(Issue(1, yields=True)), "yield set, reuse cleared"),
        (ADD.with_issue(Issue(1, yields=False)), "reuse cleared"),
        (ADD.with_issue(Issue(1, yields=False, reuse=0b100)), "reuse set, reuse cleared"),
        (ADD.with_issue(Issue(4, yields=False, reuse=0b010)), "stall changed"),
        (ADD.replace(issue=Issue(1, False, 0b010).code, wait_mask=1), "scoreboards changed"),
        (ffma(30, 24, 6, 31), "another instruction"),
    ],
)
def test_kinds_of_change(after: Instruction, kind: str) -> None:
    before = ADD.with_issue(Issue(1, yields=False, reuse=0b010))
    assert kind_of_change(before.word, after.word) == kind


# --- nvdisasm -----------------------------------------------------------------------------------

LISTING = """\
nvdisasm warning : Dataflow analysis disabled due to previous warnings
\t.section\t.text.first,"ax",@progbits
first:
.text.first:
        /*0000*/              @!P0 BRA `(.L_x_1) ;
.L_x_0:
        /*0010*/                   BRA `(.L_x_0);
.L_x_1:
        /*0020*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
.L_x_2:
.text.second:
        /*0000*/                   LEPC R20, `(.L_x_9) ;
"""


def test_labels_become_addresses() -> None:
    assert parse_listing(LISTING.splitlines()) == {
        "first": {
            0: "@!P0 BRA 0x0020",
            16: "BRA 0x0010",
            32: "WARPGROUP.DEPBAR.LE gsb0, 0x0",
        },
        "second": {0: "LEPC R20, `(.L_x_9)"},
    }


def test_without_nvdisasm_the_own_decoder_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for places in ("in_wheels", "in_toolkits"):
        monkeypatch.setattr(f"gemmgen.toolchain.locations.{places}", lambda _: [])
    assert inspection.disassemble(sample("s64.12.8.93")) == OWN_DECODER


@pytest.mark.parametrize("script", ["exit 1", "echo nothing to read", "kill $$"])
def test_an_nvdisasm_that_fails_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    tool = tmp_path / "nvdisasm"
    banner = "nvdisasm: NVIDIA (R) CUDA disassembler\\nCuda compilation tools, V13.5.37"
    tool.write_text(f'#!/bin/sh\n[ "$1" = --version ] && printf "{banner}" && exit\n{script}\n')
    tool.chmod(0o755)
    monkeypatch.setattr("gemmgen.toolchain.locations.in_wheels", lambda _: [tool])
    assert inspection.disassemble(sample("s64.12.8.93")) == OWN_DECODER


@pytest.mark.toolchain
@pytest.mark.parametrize("name", ["g128.12.8.93", "s64.13.0.88", PAIRS[0]])
def test_nvdisasm_and_the_own_decoder_agree(name: str) -> None:
    found = inspection.disassemble(sample(name))
    if found is OWN_DECODER:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    assert found.decoder.startswith("nvdisasm 1")
    for kernel in inspection.inspect(sample(name), found).kernels:
        for line in kernel.lines:
            operation = re.sub(r"@!?U?P\d\s+", "", line.text).split(" ")[0].split(".")[0]
            assert operation == mnemonic(Instruction(line.word))
            assert "L_x" not in line.text


@pytest.mark.toolchain
def test_a_built_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path))
    spec = gemmgen.GemmSpec.from_yaml(Path(__file__).parent.parent / "specs" / "prefill.yaml")
    built = gemmgen.build_kernel(spec)
    (kernel,) = inspection.inspect(built.cubin).kernels
    assert kernel.resources.name == built.name
    where: dict[Section, Counter[str]] = {}
    for line in kernel.lines:
        where.setdefault(line.section, Counter())[mnemonic(Instruction(line.word))] += 1
    ffma = kernel.statistics.arithmetic["FFMA"]
    assert where[Section.PROMOTION]["FFMA"] == ffma.count
    assert set(kernel.statistics.promotion_runs) == {64}
    assert ffma.yielding >= ffma.count // 8  # sparse_yield
    assert where[Section.MAINLOOP]["QGMMA"] == sum(
        is_wgmma(Instruction(li.word)) for li in kernel.lines
    )
    assert {"STSM", "UTMASTG"} <= set(where[Section.EPILOGUE])
    assert "UTMALDG" in where[Section.PRODUCER]
