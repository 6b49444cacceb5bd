"""From bytes to bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from sass_patch.samples import NAMES, example, sample

from gemmgen.errors import PatchError
from gemmgen.sass_patch import PASSES, parse_pass, patch, read_listings


@pytest.mark.parametrize("data", [b"", b"no cubin", sample("s64.12.8.93")])
def test_without_passes_the_bytes_come_back(data: bytes) -> None:
    result = patch(data, passes=[])
    assert result.cubin is data
    assert (result.changes, result.reports) == ((), ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of_pass", PASSES)
def test_changes_tell_all_that_differs(name: str, of_pass: str) -> None:
    data = sample(name)
    text = example(of_pass, data)
    result = patch(data, [text])
    (listing,) = read_listings(data)
    (after,) = read_listings(result.cubin)
    differing = [
        (16 * k, old.word, new.word)
        for k, (old, new) in enumerate(zip(listing.code, after.code, strict=True))
        if old != new
    ]
    assert [(c.offset, c.before, c.after) for c in result.changes] == differing
    assert {c.kernel for c in result.changes} <= {"gemm"}
    assert result.reports[0].changed == len(differing)
    assert patch(data, [text]) == result


def test_passes_run_in_order() -> None:
    data = sample("g128.12.8.93")
    both = patch(data, ["interleave_ffma", "sparse_yield(period=4, phase=0)"])
    first = patch(data, ["interleave_ffma"])
    second = patch(first.cubin, ["sparse_yield(period=4, phase=0)"])
    assert both.cubin == second.cubin
    assert both.changes == first.changes + second.changes
    assert [report.changed for report in both.reports] == [len(first.changes), len(second.changes)]


def test_a_call_is_as_good_as_its_text() -> None:
    data = sample("s64.12.8.93")
    assert patch(data, [parse_pass("sparse_yield")]) == patch(data, ["sparse_yield"])


def test_the_record_is_json() -> None:
    result = patch(sample("g128.12.8.93"), ["interleave_ffma(fraction=9/16)", "sparse_yield"])
    assert [asdict(report) for report in result.reports] == [
        {
            "name": "interleave_ffma",
            "parameters": {"fraction": "9/16"},
            "version": 1,
            "changed": 69,
            "note": "",
        },
        {
            "name": "sparse_yield",
            "parameters": {"period": 8, "phase": 7, "on": "ffma"},
            "version": 1,
            "changed": 95,
            "note": "",
        },
    ]
    record = json.loads(json.dumps(result.to_json()))
    assert record["passes"] == [asdict(report) for report in result.reports]
    assert record["changes"][0] == {
        "kernel": "gemm",
        "offset": 0x15B0,
        "pass": "interleave_ffma(fraction=9/16)",
        "instruction": "FFMA R126, R33, R135, R126",
        "before": "B------:R-:W-:-:S01 reuse=b",
        "after": "B------:R-:W-:Y:S01",
        "word_before": "0x080fe2000000007e00000087217e7223",
        "word_after": "0x000fc2000000007e00000087217e7223",
    }
    assert str(result.changes[0]) == (
        "015b0  B------:R-:W-:-:S01 reuse=b -> B------:R-:W-:Y:S01  FFMA R126, R33, R135, R126"
    )


def test_several_kernels() -> None:
    result = patch(sample("pair.12.8.93"), ["sparse_yield(on=all)"])
    assert [(c.kernel, c.offset) for c in result.changes] == sorted(
        (c.kernel, c.offset) for c in result.changes
    )
    assert {c.kernel for c in result.changes} == {"plain", "scaled"}
    assert result.reports[0].changed == len(result.changes)
    only_scaled = patch(sample("pair.12.8.93"), ["sparse_yield"])
    assert {c.kernel for c in only_scaled.changes} == {"scaled"}


def test_notes() -> None:
    (report,) = patch(sample("pair.12.9.86"), ["interleave_ffma"]).reports
    reason = "already interleaved by ptxas 12.9"
    assert report.note == f"plain: {reason}; scaled: {reason}"
    (report,) = patch(sample("pair.12.8.93"), ["interleave_ffma"]).reports
    assert (report.changed, report.note) == (38, "plain: nothing to change")
    (report,) = patch(sample("s64.12.8.93"), ["sparse_yield(on=fmul)"]).reports
    assert (report.changed, report.note) == (0, "nothing to change")


def test_an_unknown_pass_is_refused_before_the_file_is_read() -> None:
    with pytest.raises(PatchError, match="no such SASS pass"):
        patch(b"no cubin", ["sparse_yield", "dense_yield"])


def test_code_that_ptxas_would_not_make() -> None:
    data = bytearray(sample("s64.12.8.93"))
    (listing,) = read_listings(bytes(data))
    data[listing.kernel.offset + 0x20 + 13] |= 0b00111110  # all of bits 105-109
    with pytest.raises(PatchError, match=r"legal control code[\s\S]*offset 0x0020"):
        patch(bytes(data), ["sparse_yield"])


def test_importing_costs_nothing_heavy() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, gemmgen.sass_patch; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not {"elftools", "torch", "cuda", "numpy", "pydantic"} & set(loaded)
