from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemmgen.errors import CompilerNotFoundError, ToolchainError
from gemmgen.toolchain.process import ask_version, run

from .conftest import write_script, write_tool


def test_output_is_both_streams(tmp_path: Path) -> None:
    tool = write_script(tmp_path / "tool", "echo out; echo err >&2; exit 4")
    assert run([str(tool)], timeout_s=10) == (4, "out\nerr\n")


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(CompilerNotFoundError, match="ptxas is not there"):
        run([str(tmp_path / "ptxas")], timeout_s=10)
    with pytest.raises(CompilerNotFoundError, match="ptxas is not there"):
        ask_version(tmp_path / "ptxas")


def test_not_executable(tmp_path: Path) -> None:
    tool = write_script(tmp_path / "ptxas", "exit 0")
    tool.chmod(0o644)
    with pytest.raises(ToolchainError, match=r"could not be started[\s\S]*chmod \+x"):
        run([str(tool)], timeout_s=10)


def test_of_another_processor(tmp_path: Path) -> None:
    tool = tmp_path / "ptxas"
    tool.write_bytes(b"\x7fELF of no processor")
    tool.chmod(0o755)
    with pytest.raises(ToolchainError, match="Exec format error"):
        run([str(tool)], timeout_s=10)


def test_hanging(tmp_path: Path) -> None:
    tool = write_script(tmp_path / "ptxas", "echo half; exec sleep 30")
    with pytest.raises(ToolchainError, match=r"did not finish[\s\S]*an end within 0\.3 s"):
        run([str(tool)], timeout_s=0.3)


@pytest.mark.parametrize(
    ("signal", "advice"), [("SEGV", "killed by SIGSEGV"), ("KILL", "free memory and try again")]
)
def test_killed(tmp_path: Path, signal: str, advice: str) -> None:
    tool = write_script(tmp_path / "ptxas", f"echo before; kill -{signal} $$")
    with pytest.raises(ToolchainError, match=advice) as raised:
        run([str(tool)], timeout_s=10)
    assert raised.value.detail == "before\n"


def test_a_version_is_asked_once_for_each_state_of_the_file(tmp_path: Path) -> None:
    tool = write_tool(tmp_path / "ptxas", "12.8.93")
    assert ask_version(tool).version == "12.8.93"
    state = tool.stat()
    write_tool(tool, "12.9.86")
    os.utime(tool, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert ask_version(tool).version == "12.8.93"
    os.utime(tool, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert ask_version(tool).version == "12.9.86"


def test_a_tool_without_a_version(tmp_path: Path) -> None:
    tool = write_script(tmp_path / "ptxas", "echo GNU assembler")
    with pytest.raises(ToolchainError, match=r"does not say its version[\s\S]*GNU assembler"):
        ask_version(tool)
