"""Yields as data: the line, the file, the pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import (
    NAMES,
    YIELD,
    example,
    ffma,
    made,
    promotion,
    sample,
    sample_listing,
    yields,
)

from gemmgen.errors import PatchError
from gemmgen.sass_patch import (
    Issue,
    Pattern,
    RunYields,
    parse_pass,
    patch,
    pattern_of,
    read_listings,
)
from gemmgen.sass_patch.passes.pattern import pattern

ADD = ffma(30, 24, 5, 31)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    lengths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=5))
    return Pattern(
        tuple(
            RunYields(length, draw(st.frozensets(st.integers(0, length - 1)))) for length in lengths
        )
    )


def of_runs(*runs: str) -> Pattern:
    """A pattern of runs written `--Y`."""
    return Pattern(
        tuple(
            RunYields(len(run), frozenset(n for n, c in enumerate(run) if c == "Y")) for run in runs
        )
    )


# --- Data ---------------------------------------------------------------------------------------


@given(patterns())
def test_line_and_file_say_the_same(found: Pattern) -> None:
    assert Pattern.parse(str(found)) == found
    assert Pattern.from_json(found.to_json()) == found
    assert Pattern.from_json(found.to_json({"device": "GPU"})) == found
    assert parse_pass(f"pattern(yields={found})").values == {"yields": found}


def test_the_line_reads_from_left_to_right() -> None:
    assert str(of_runs("-------Y" * 2, "-------Y" * 2, "Y----Y")) == "2x16:0101+1x6:84"
    assert of_runs("Y" * 3, "Y" * 3, "Y" * 5).shape == "2 of 3, 1 of 5"


def test_the_file_is_for_people_too() -> None:
    assert of_runs("-Y", "-Y", "Y-").to_json() == (
        '{\n  "schema": 1,\n  "runs": [\n'
        '    {"count": 2, "length": 2, "yields": [1]},\n'
        '    {"count": 1, "length": 2, "yields": [0]}\n  ]\n}\n'
    )


RUN = {"count": 1, "length": 4, "yields": [0]}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "schema version 1"),
        ({"runs": [RUN]}, "schema version 1"),
        ({"schema": 2, "runs": [RUN]}, "schema version 1"),
        ({"schema": 1}, "a list of runs"),
        ({"schema": 1, "runs": []}, "a list of runs"),
        ({"schema": 1, "runs": [RUN], "yield": 1}, "unknown key yield"),
        ({"schema": 1, "runs": [{"length": 4}]}, "the keys count, length, yields"),
        ({"schema": 1, "runs": [RUN | {"yields": "7"}]}, "must be a list"),
        ({"schema": 1, "runs": [RUN | {"yields": [True]}]}, "whole numbers"),
        ({"schema": 1, "runs": [RUN | {"yields": [4]}]}, "FFMA 4 does not exist in a run of 4"),
        ({"schema": 1, "runs": [RUN | {"yields": [-1]}]}, "FFMA -1 does not exist"),
        ({"schema": 1, "runs": [RUN | {"count": 10**9}]}, "1 to 4096 runs"),
        ({"schema": 1, "runs": [RUN | {"length": 10**9}]}, "1 to 4096 FFMA"),
    ],
)
def test_a_file_that_holds_no_pattern(tmp_path: Path, record: object, said: str) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps(record))
    with pytest.raises(PatchError, match="the file holds no pattern") as refusal:
        parse_pass(f"pattern(file={path})")
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)


@given(st.one_of(st.binary(max_size=60), st.text('[]{}"truns:,1e', max_size=60).map(str.encode)))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Pattern.from_json(data)


def test_a_file_is_read_once_and_its_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "the best, (so far).json"
    path.write_text(of_runs("Y-").to_json())
    call = parse_pass(f" pattern ( file = {path} ) ")
    path.write_text(of_runs("-Y").to_json())
    assert str(call) == "pattern(yields=1x2:8)"
    assert str(parse_pass(f"pattern(file={path})")) == "pattern(yields=1x2:4)"


# --- The pass -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["sparse_yield", "sparse_yield(period=5, phase=2)", "strip_interleave"]
)
def test_a_pattern_read_from_code_makes_that_code(name: str, text: str) -> None:
    data = sample(name)
    wanted = patch(data, [text]).cubin
    (listing,) = read_listings(wanted)
    assert patch(data, [f"pattern(yields={pattern_of(listing)})"]).cubin == wanted


@given(st.data())
def test_any_pattern_is_what_the_code_has_then(data: st.DataObject) -> None:
    """On code of 12.8 and of 12.9, which come out the same; the verifier runs as in every build."""
    codes = []
    drawn: Pattern | None = None
    for name in ("s64.12.8.93", "s64.12.9.86"):
        lengths = [run.length for run in pattern_of(sample_listing(name)).runs]
        drawn = drawn or Pattern(
            tuple(RunYields(n, data.draw(st.frozensets(st.integers(0, n - 1)))) for n in lengths)
        )
        (after,) = read_listings(patch(sample(name), [f"pattern(yields={drawn})"]).cubin)
        assert pattern_of(after) == drawn
        codes.append(after.code)
    assert codes[0] == codes[1]


def test_runs_have_their_own_yields() -> None:
    code = promotion([ADD.with_issue(YIELD)] * 3) + promotion([ADD] * 4)
    assert yields(pattern(made(code), of_runs("-Y-", "Y--Y")).code) == "-Y-Y--Y"


def test_a_yield_that_waits_for_a_result_stays() -> None:
    code = promotion([ADD.with_issue(Issue(4, yields=True)), ADD])
    assert yields(pattern(made(code), of_runs("-Y")).code) == "YY"


def test_a_pattern_of_other_code_is_refused() -> None:
    g128, s64 = sample("g128.12.8.93"), sample("s64.12.8.93")
    with pytest.raises(PatchError, match="made for other code") as refusal:
        patch(s64, [example("pattern", g128)])
    assert "kernel gemm" in str(refusal.value)
    assert "4 of 64" in str(refusal.value.expected)
    with pytest.raises(PatchError, match="made for other code"):
        patch(sample("pair.12.8.93"), [example("pattern", g128)])


def test_the_record_holds_the_pattern() -> None:
    text = example("pattern", sample("s64.12.8.93"))
    (report,) = patch(sample("s64.12.8.93"), [text]).reports
    assert f"pattern(yields={report.parameters['yields']})" == text
