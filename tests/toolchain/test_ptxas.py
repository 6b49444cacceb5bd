from __future__ import annotations

import errno
import os
import struct
import tempfile
from pathlib import Path

import pytest

from gemmgen.errors import CompileError, ToolchainError
from gemmgen.toolchain import Ptxas, Toolchain, assemble
from gemmgen.toolchain.ptx_isa import lower_ptx_version
from gemmgen.toolchain.ptxas import accepted_ptx_version

from .conftest import write_script

PTX = """\
.version 8.0
.target sm_90a
.address_size 64
.visible .entry store_one(.param .u64 data)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [data];
    st.global.u32 [%rd1], 1;
    ret;
}
"""


def elf(section_count: int) -> bytes:
    """Make an ELF64 header whose section table lies right behind it."""
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    struct.pack_into("<QQ", header, 32, 0, 64)
    struct.pack_into("<4H", header, 54, 56, 0, 64, section_count)
    return bytes(header)


def fake(tmp_path: Path, body: str) -> Ptxas:
    return Ptxas(write_script(tmp_path / "ptxas", body), "12.8.93", "pip", "")


def test_a_refusal_carries_the_whole_log(tmp_path: Path) -> None:
    ptxas = fake(tmp_path, "echo 'ptxas fatal   : no' >&2; exit 255")
    with pytest.raises(CompileError, match=r"ptxas 12\.8\.93 refuses the PTX") as raised:
        assemble(PTX, ptxas)
    assert raised.value.detail == "ptxas fatal   : no\n"


@pytest.mark.parametrize("cubin", [b"", b"\x7fELF", elf(section_count=1)])
def test_a_truncated_cubin_is_an_error_though_ptxas_is_content(
    tmp_path: Path, cubin: bytes
) -> None:
    (tmp_path / "cubin").write_bytes(cubin)
    ptxas = fake(tmp_path, f"cat {tmp_path}/cubin > kernel.cubin")
    with pytest.raises(ToolchainError, match=f"truncated cubin of {len(cubin)} bytes"):
        assemble(PTX, ptxas)


def test_a_whole_cubin_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cubin").write_bytes(elf(section_count=0))
    ptxas = fake(tmp_path, f"cat {tmp_path}/cubin > kernel.cubin; echo Used 7 registers")
    result = assemble(PTX, ptxas)
    assert result.cubin == elf(section_count=0)
    assert result.resources.registers == 7


def test_no_cubin_at_all(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"temporary folder[\s\S]*set TMPDIR"):
        assemble(PTX, fake(tmp_path, "exit 0"))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ToolchainError, match="No space left on device"):
        assemble(PTX, Ptxas(tmp_path / "ptxas", "12.8.93", "pip", ""))


def test_a_temporary_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(ToolchainError, match="No such file or directory"):
        assemble(PTX, Ptxas(tmp_path / "ptxas", "12.8.93", "pip", ""))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(ToolchainError, match="SIGKILL"):
        assemble(PTX, fake(tmp_path, "kill -KILL $$"))
    assert list(scratch.iterdir()) == []


def test_an_unknown_release_is_asked_for_its_ptx_version(tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "ptxas", "echo \"Unsupported .version 99.0; current version is '10.1'\"; exit 1"
    )
    assert accepted_ptx_version(Ptxas(script, "19.7.1", "pip", "")) == "10.1"
    assert accepted_ptx_version(Ptxas(script, "12.8.93", "pip", "")) == "8.7"


@pytest.mark.toolchain
def test_the_table_agrees_with_the_real_ptxas(toolchain: Toolchain) -> None:
    accepted = accepted_ptx_version(toolchain.ptxas)
    too_new = PTX.replace(".version 8.0", ".version 99.0")
    assert assemble(lower_ptx_version(too_new, accepted), toolchain.ptxas).cubin
    with pytest.raises(CompileError, match=f"current version is '{accepted}'"):
        assemble(too_new, toolchain.ptxas)


@pytest.mark.toolchain
def test_the_cubin_depends_on_no_folder(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = assemble(PTX, toolchain.ptxas)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert assemble(PTX, toolchain.ptxas) == first
