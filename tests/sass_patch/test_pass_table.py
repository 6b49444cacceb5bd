"""Passes as text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmgen.errors import PatchError
from gemmgen.sass_patch import PASSES, parse_pass

EXAMPLES = {"pattern": "pattern(yields=1x4:1)"}  # of passes that run with no defaults


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_has_defaults(name: str) -> None:
    call = parse_pass(EXAMPLES.get(name, name))
    assert call.name == name
    assert call.version == PASSES[name].version >= 1
    assert parse_pass(str(call)) == call
    for key, parameter in PASSES[name].parameters.items():
        assert parameter.accepts(call.values[key]), key
        assert (parameter.default is parameter.follows is None) == (name in EXAMPLES)
    assert (PASSES[name].run.__doc__ or "").count("\n") > 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sparse_yield", "sparse_yield(period=8, phase=7, on=ffma)"),
        ("sparse_yield()", "sparse_yield(period=8, phase=7, on=ffma)"),
        ("sparse_yield(period=4)", "sparse_yield(period=4, phase=3, on=ffma)"),
        (" sparse_yield ( phase = 3,period=16 ) ", "sparse_yield(period=16, phase=3, on=ffma)"),
        ("sparse_yield(on=fadd)", "sparse_yield(period=8, phase=7, on=fadd)"),
        ("interleave_ffma", "interleave_ffma(fraction=1)"),
        ("interleave_ffma(fraction=9/16)", "interleave_ffma(fraction=9/16)"),
        ("interleave_ffma(fraction=18/32)", "interleave_ffma(fraction=9/16)"),
        ("interleave_ffma(fraction=2/2)", "interleave_ffma(fraction=1)"),
        ("set_reuse(on=all)", "set_reuse(on=all)"),
        ("pattern( yields = 2x4:1 )", "pattern(yields=2x4:1)"),
        ("pattern(yields=1x4:1+1x4:1+1x8:01)", "pattern(yields=2x4:1+1x8:01)"),
    ],
)
def test_parse(text: str, meant: str) -> None:
    assert str(parse_pass(text)) == meant


def test_values_have_their_types() -> None:
    assert parse_pass("interleave_ffma(fraction=1)").values == {"fraction": Fraction(1)}
    assert parse_pass("sparse_yield").values == {"period": 8, "phase": 7, "on": "ffma"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a SASS pass"),
        ("sparse_yield(", "not a SASS pass"),
        ("sparse_yield)", "not a SASS pass"),
        ("sparse-yield", "not a SASS pass"),
        ("sparse_yield; rm", "not a SASS pass"),
        ("interleave", "no such SASS pass[\\s\\S]*interleave_ffma, sparse_yield"),
        ("sparse_yield(perod=8)", "no parameter perod[\\s\\S]*period, phase, on"),
        ("sparse_yield(period=8, period=8)", "no second parameter period"),
        ("sparse_yield(8)", "not a parameter"),
        ("sparse_yield(period=8,)", "not a parameter"),
        ("sparse_yield(period=-8)", "not a parameter"),
        ("sparse_yield(period=8.0)", "not a parameter"),
        ("sparse_yield(period=__import__)", "not a parameter"),
        ("sparse_yield(period=(8))", "not a parameter"),
        ("sparse_yield(period=8/2)", "period cannot be 4[\\s\\S]*whole number from 1 to"),
        ("sparse_yield(period=0)", "period cannot be 0"),
        ("sparse_yield(period=9999)", "period cannot be 9999"),
        ("sparse_yield(period=ffma)", "period cannot be ffma"),
        ("sparse_yield(period=4, phase=4)", "phase below period, which is 4"),
        ("sparse_yield(on=hfma)", "on cannot be hfma[\\s\\S]*ffma, fmul, fadd, all"),
        ("interleave_ffma(fraction=0)", "fraction cannot be 0"),
        ("interleave_ffma(fraction=17/16)", "fraction cannot be 17/16"),
        ("interleave_ffma(fraction=1/0)", "not a parameter"),
        ("interleave_ffma(fraction=ffma)", "fraction cannot be ffma"),
        ("interleave_ffma(fraction=1x4:1)", "fraction cannot be 1x4:1"),
        ("sparse_yield(period=1x4:1)", "period cannot be 1x4:1"),
        ("pattern", "pattern needs yields[\\s\\S]*COUNTxLENGTH:YIELDS"),
        ("pattern(yields=8)", "yields cannot be 8"),
        ("pattern(yields=ffma)", "yields cannot be ffma"),
        ("pattern(yields=1x4:)", "not a parameter"),
        ("pattern(yields=1x4:g)", "not a parameter"),
        ("pattern(yields=1x4:1+)", "not a parameter"),
        ("pattern(yields=1x4:10)", "not a pattern[\\s\\S]*4 FFMA take 1 digits, not 2"),
        ("pattern(yields=1x3:1)", "FFMA 3 does not exist in a run of 3"),
        ("pattern(yields=0x4:1)", "1 to 4096 runs, not 0"),
        ("pattern(yields=1x0:1)", "0 FFMA take 0 digits"),
        ("pattern(yields=9999x4:1)", "1 to 4096 runs, not 9999"),
        ("pattern(file=nowhere.json)", "the pattern cannot be read[\\s\\S]*nowhere.json"),
        ("pattern(file=)", "the pattern cannot be read"),
        ("pattern(file=nowhere.json, on=ffma)", "the pattern cannot be read"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        parse_pass(text)


PARAMETERS = sorted({key for row in PASSES.values() for key in row.parameters})


@given(
    st.one_of(
        st.text(max_size=40),
        st.builds(
            "{}({}={}, {}={})".format,
            st.sampled_from([*PASSES, "x"]),
            *[st.sampled_from([*PARAMETERS, "0", "1/3", "ffma", "7", "", "2x4:1+1x8:0f"])] * 4,
        ),
    )
)
def test_any_text_is_a_pass_or_refused(text: str) -> None:
    try:
        call = parse_pass(text)
    except PatchError:
        return
    assert parse_pass(str(call)) == call
