from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gemmgen.errors import CompileError, ToolchainError
from gemmgen.toolchain import Nvrtc, Toolchain, compile_to_ptx
from gemmgen.toolchain.nvrtc import nvrtc_at
from gemmgen.toolchain.ptx_isa import read_ptx_version

SOURCE = """\
extern "C" __global__ void store_index(unsigned int* data) { data[threadIdx.x] = threadIdx.x; }
"""


def test_a_library_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "libnvrtc.so.12"
    path.write_bytes(b"no library")
    with pytest.raises(ToolchainError, match=r"cannot be loaded[\s\S]*pip install"):
        nvrtc_at(path, "pip")
    with pytest.raises(ToolchainError, match="cannot be loaded"):
        compile_to_ptx(SOURCE, "k.cu", Nvrtc(path, "12.9.86", "pip"))


@pytest.mark.toolchain
def test_a_library_without_its_end_is_refused_and_not_loaded(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    path = tmp_path / "libnvrtc.so.12"
    with toolchain.nvrtc.path.open("rb") as library:
        path.write_bytes(library.read(100_000))
    with pytest.raises(ToolchainError, match="not a whole ELF file: 100000 bytes"):
        nvrtc_at(path, "pip")


@pytest.mark.toolchain
def test_ptx_of_a_kernel(toolchain: Toolchain) -> None:
    result = compile_to_ptx(SOURCE, "store_index.cu", toolchain.nvrtc)
    assert read_ptx_version(result.text) is not None
    assert ".target sm_90a" in result.text
    assert ".entry store_index(" in result.text
    assert result.log == ""


@pytest.mark.toolchain
def test_a_refusal_names_the_file_and_carries_the_whole_log(toolchain: Toolchain) -> None:
    with pytest.raises(CompileError) as raised:
        compile_to_ptx("__global__ void k() { absent(); }", "k.cu", toolchain.nvrtc)
    assert f"NVRTC {toolchain.nvrtc.version} refuses k.cu" in str(raised.value)
    assert 'k.cu(1): error: identifier "absent" is undefined' in str(raised.value.detail)


@pytest.mark.toolchain
def test_a_wrong_option_is_no_fault_of_the_source(toolchain: Toolchain) -> None:
    with pytest.raises(ToolchainError, match="NVRTC_ERROR_INVALID_OPTION") as raised:
        compile_to_ptx(SOURCE, "k.cu", toolchain.nvrtc, ("--no-such-option",))
    assert not isinstance(raised.value, CompileError)


@pytest.mark.toolchain
def test_the_library_confirms_the_version_of_its_wheel(toolchain: Toolchain) -> None:
    text = compile_to_ptx("", "empty.cu", toolchain.nvrtc).text
    assert f"V{toolchain.nvrtc.version}" in text


@pytest.mark.toolchain
def test_a_library_away_from_its_wheel_says_its_own_version(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    for library in toolchain.nvrtc.path.parent.iterdir():
        (tmp_path / library.name).symlink_to(library)
    moved = nvrtc_at(tmp_path / toolchain.nvrtc.path.name, "toolkit")
    assert moved.version == toolchain.nvrtc.version


@pytest.mark.toolchain
def test_several_threads(toolchain: Toolchain) -> None:
    def compile_one(number: int) -> str:
        source = SOURCE.replace("store_index", f"kernel_{number}")
        return compile_to_ptx(source, f"{number}.cu", toolchain.nvrtc).text

    alone = [compile_one(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(compile_one, range(8)))
    assert together == alone
    assert ".entry kernel_7(" in together[7]
