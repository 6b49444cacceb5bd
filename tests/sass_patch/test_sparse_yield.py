"""`sparse_yield`, and the passes that take its parts."""

from __future__ import annotations

import pytest
from sass_patch.samples import (
    CONTROL_BITS,
    NAMES,
    PAIRS,
    YIELD,
    fadd,
    ffma,
    made,
    promotion,
    sample,
    sample_listing,
    yields,
)

from gemmgen.sass_patch import Instruction, Issue, patch, read_listings
from gemmgen.sass_patch.listing import REWRITABLE
from gemmgen.sass_patch.operations import FADD
from gemmgen.sass_patch.passes.clear_reuse import clear_reuse
from gemmgen.sass_patch.passes.set_reuse import set_reuse
from gemmgen.sass_patch.passes.sparse_yield import sparse_yield
from gemmgen.sass_patch.passes.strip_interleave import strip_interleave
from gemmgen.sass_patch.verify import verify_code

ADD = ffma(30, 24, 5, 31)
REUSING = ADD.with_issue(Issue(1, yields=False, reuse=0b010))
PERIOD_8 = "-------Y"


def code_of(name: str, *passes: str) -> bytes:
    """The code after some passes: two files differ in more than that."""
    kernel = sample_listing(name).kernel
    return patch(sample(name), list(passes)).cubin[kernel.offset : kernel.offset + kernel.size]


@pytest.mark.parametrize("name", ["s64.12.8.93", "s64.12.9.86", "s64.13.0.88", "g128.12.9.86"])
@pytest.mark.parametrize(("period", "phase"), [(8, 7), (2, 0), (1, 0), (5, 3), (1024, 0)])
def test_the_pattern(name: str, period: int, phase: int) -> None:
    listing = sample_listing(name)
    code = sparse_yield(listing, period, phase, "ffma").code
    verify_code(listing, code, "sparse_yield")
    for run in listing.promotion_runs(REWRITABLE["ffma"]):
        issues = [code[index].control.issue for index in run]
        assert [issue.yields for issue in issues] == [n % period == phase for n in range(len(run))]
        assert not any(issue.reuse for issue in issues if issue.yields)


@pytest.mark.parametrize("kernel", ["g128", "s64"])
@pytest.mark.parametrize(
    "text", ["sparse_yield", "sparse_yield(period=3, phase=1)", "strip_interleave"]
)
def test_code_of_12_8_and_12_9_becomes_the_same(kernel: str, text: str) -> None:
    assert code_of(f"{kernel}.12.8.93", text) == code_of(f"{kernel}.12.9.86", text)


@pytest.mark.parametrize("kernel", ["g128", "s64"])
def test_strip_is_the_inverse_of_interleave(kernel: str) -> None:
    plain = code_of(f"{kernel}.12.8.93")
    assert code_of(f"{kernel}.12.8.93", "interleave_ffma", "strip_interleave") == plain
    assert code_of(f"{kernel}.12.9.86", "strip_interleave") == plain
    assert code_of(f"{kernel}.12.8.93", "strip_interleave") == plain


def test_on_12_8_it_only_clears_reuse_and_sets_yields() -> None:
    changes = patch(sample("g128.12.8.93"), ["sparse_yield"]).changes
    assert len(changes) == 256 // 8
    for change in changes:
        assert change.before & ~CONTROL_BITS == change.after
        assert Instruction(change.after).control.issue == YIELD


@pytest.mark.parametrize("name", NAMES)
def test_reuse_is_set_again_where_it_was(name: str) -> None:
    assert code_of(name, "set_reuse") == code_of(name)
    assert code_of(name, "clear_reuse", "set_reuse") == code_of(name)
    cleared = code_of(name, "clear_reuse")
    assert code_of(name, "clear_reuse", "clear_reuse") == cleared != code_of(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["sparse_yield", "strip_interleave", "clear_reuse", "set_reuse"])
def test_twice_is_once(name: str, text: str) -> None:
    assert code_of(name, text, text) == code_of(name, text)


def test_fadd_that_12_8_has_interleaved() -> None:
    plain, scaled = read_listings(patch(sample("pair.12.8.93"), ["sparse_yield(on=fadd)"]).cubin)
    assert (
        yields(plain.code[i] for run in plain.promotion_runs({FADD}) for i in run) == 10 * PERIOD_8
    )
    assert scaled.code == read_listings(sample("pair.12.8.93"))[1].code


@pytest.mark.parametrize("text", ["sparse_yield(on=all)", "strip_interleave(on=all)"])
def test_each_kernel_of_a_file(text: str) -> None:
    old, new = (read_listings(patch(sample(name), [text]).cubin) for name in PAIRS)
    assert [listing.code for listing in old] == [listing.code for listing in new]


def test_runs_are_counted_anew() -> None:
    code = promotion([ADD] * 10) + promotion([ADD] * 9)
    assert yields(sparse_yield(made(code), 8, 7, "ffma").code) == PERIOD_8 + "--" + PERIOD_8 + "-"


def test_yields_that_wait_for_a_result_stay() -> None:
    waiting = ADD.with_issue(Issue(4, yields=True))
    code = promotion([waiting, ADD.with_issue(YIELD), *[ADD] * 6])
    assert yields(sparse_yield(made(code), 8, 7, "ffma").code) == "Y------Y"
    assert yields(strip_interleave(made(code), "ffma").code) == "Y-------"


def test_fadd_only_where_asked() -> None:
    code = promotion([fadd(30, 30, 24, YIELD), ADD, fadd(31, 31, 25, YIELD), ADD])
    assert yields(sparse_yield(made(code), 2, 1, "ffma").code) == "Y-YY"
    assert yields(sparse_yield(made(code), 2, 1, "fadd").code) == "--Y-"
    assert yields(sparse_yield(made(code), 2, 1, "all").code) == "-Y-Y"


def test_the_last_of_a_register_is_not_kept() -> None:
    code = made(promotion([ADD, ADD, ffma(31, 25, 7, 31)]))
    reuse = [i.control.issue.reuse for i in set_reuse(code, "ffma").code[3:6]]
    assert reuse == [0b111, 0b100, 0]  # R24, R5, R31; R31 only; none


def test_clear_reuse_leaves_what_is_outside_of_the_runs() -> None:
    listing = made([REUSING, *promotion([REUSING, ADD])])
    cleared = clear_reuse(listing, "ffma").code
    assert [i.control.issue.reuse for i in (cleared[0], cleared[4])] == [0b010, 0]
