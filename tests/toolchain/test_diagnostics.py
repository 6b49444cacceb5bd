from __future__ import annotations

from gemmgen.toolchain.diagnostics import trim_log

NVRTC_LOG = """\
bad.cu(3): warning #177-D: variable "unused" was declared but never referenced
    int unused = 3;
        ^

Remark: The warnings can be suppressed with "-diag-suppress <warning-number>"

bad.cu(2): error: identifier "undefined_name" is undefined
    data[threadIdx.x] = undefined_name + 1;
                        ^

1 error detected in the compilation of "bad.cu".
"""
PTXAS_LOG = """\
ptxas info    : 0 bytes gmem
ptxas kernel.ptx, line 23; error   : Unknown modifier '.such'
ptxas kernel.ptx, line 27; error   : Arguments mismatch for instruction 'wgmma.fence'
ptxas fatal   : Ptx assembly aborted due to errors
"""


def test_errors_of_nvrtc_come_first_with_their_lines() -> None:
    lines = trim_log(NVRTC_LOG).splitlines()
    assert lines[0].startswith("bad.cu(2): error:")
    assert lines[1] == "    data[threadIdx.x] = undefined_name + 1;"
    assert lines[3].startswith("bad.cu(3): warning")


def test_errors_of_ptxas_keep_their_order() -> None:
    lines = trim_log(PTXAS_LOG).splitlines()
    assert "line 23" in lines[0]
    assert "line 27" in lines[1]
    assert lines[-1].startswith("ptxas info")


def test_a_long_log_ends_with_what_is_left_out() -> None:
    log = "".join(f"ptxas info    : line {number}\n" for number in range(100))
    lines = trim_log(log).splitlines()
    assert lines[0] == "ptxas info    : line 0"
    assert lines[-1] == "... and 70 more lines"


def test_a_long_line_is_cut() -> None:
    (line,) = trim_log("x.cu(1): error: " + "%0, " * 500).splitlines()
    assert len(line) == 240
    assert line.endswith(" ...")


def test_an_empty_log_stays_empty() -> None:
    assert trim_log("\n\n") == ""
