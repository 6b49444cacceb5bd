"""A small wgmma kernel and its ill-made sisters, through the real NVRTC and ptxas."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from gemmgen.errors import CompileError
from gemmgen.toolchain import (
    CompileResult,
    Flaw,
    Toolchain,
    compile_cuda,
    list_compilers,
    nvrtc_command,
    ptxas_command,
)
from gemmgen.toolchain.version import numbers

pytestmark = pytest.mark.toolchain

REPOSITORY = Path(__file__).parents[2]

# One warpgroup multiplies two 64x8 tiles whose descriptors the host made, and scales the sums.
WGMMA = """\
extern "C" __global__ void __launch_bounds__(128, 1) tiny_gemm(
    float* d, const float* scale, unsigned long long a_desc, unsigned long long b_desc) {
  float accum[4], total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#pragma unroll 2
  for (int k_tile = 0; k_tile < 8; ++k_tile) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3}, %4, %5, 0, 1, 1;"
        : "=f"(accum[0]), "=f"(accum[1]), "=f"(accum[2]), "=f"(accum[3])
        : "l"(a_desc + k_tile * 2), "l"(b_desc + k_tile * 2));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;"
        : "+f"(accum[0]), "+f"(accum[1]), "+f"(accum[2]), "+f"(accum[3]) :: "memory");
#pragma unroll
    for (int i = 0; i < 4; ++i) total[i] += scale[k_tile] * accum[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = total[i];
}
"""
# 64 values in the 32 registers that two CTAs of 1024 threads leave.
SPILLS = """\
extern "C" __global__ void __launch_bounds__(1024, 2) spill(float* data) {
  float value[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) value[i] = data[threadIdx.x + i * 1024];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) value[i] = value[i] * value[i * 7 % 64] + 1.0f;
#pragma unroll
  for (int i = 0; i < 64; ++i) data[threadIdx.x + i * 1024] = value[i];
}
"""
LOCAL_MEMORY = """\
extern "C" __global__ void local_array(float* data, int count) {
  float value[64];
  for (int i = 0; i < 64; ++i) value[i] = data[i];
  for (int i = 0; i < count; ++i) value[i * 7 % 64] += value[i * 3 % 61];
  data[count] = value[count % 64];
}
"""
# Accumulators that are read between two wgmma of one group.
SERIALIZED = """\
extern "C" __global__ void __launch_bounds__(128, 1) serialized(
    float* d, unsigned long long a_desc, unsigned long long b_desc) {
  float accum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int k = 0; k < 4; ++k) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3}, %4, %5, 1, 1, 1;"
        : "+f"(accum[0]), "+f"(accum[1]), "+f"(accum[2]), "+f"(accum[3])
        : "l"(a_desc + k), "l"(b_desc));
    accum[0] += 1.0f;
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = accum[i];
}
"""
NO_LAUNCH_BOUNDS = """\
extern "C" __global__ void unbounded(float* d) {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
  d[threadIdx.x] = 1.0f;
}
"""
SYNTAX_ERROR = 'extern "C" __global__ void broken(float* d) {\n  d[0] = 1.0f\n}\n'
PTX_ERROR = 'extern "C" __global__ void broken(float* d) {\n  asm volatile("no.such.thing;");\n}\n'


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def tiny_gemm(toolchain: Toolchain) -> CompileResult:
    return compile_cuda(WGMMA, "tiny_gemm", toolchain)


def refusal(source: str, name: str, toolchain: Toolchain) -> CompileError:
    with pytest.raises(CompileError) as raised:
        compile_cuda(source, name, toolchain)
    return raised.value


def test_a_kernel(tiny_gemm: CompileResult) -> None:
    assert tiny_gemm.cubin.startswith(b"\x7fELF")
    assert ".entry tiny_gemm(" in tiny_gemm.ptx
    assert 0 < tiny_gemm.resources.registers <= 255
    assert tiny_gemm.resources.spill_store_bytes == 0
    assert "Compiling entry function 'tiny_gemm'" in tiny_gemm.log


def test_the_same_result_again_and_in_another_folder(
    toolchain: Toolchain,
    tiny_gemm: CompileResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compile_cuda(WGMMA, "tiny_gemm", toolchain) == tiny_gemm
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "a folder with spaces"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert compile_cuda(WGMMA, "tiny_gemm", toolchain) == tiny_gemm
    assert list(elsewhere.iterdir()) == []


def test_the_commands_repeat_the_result(tiny_gemm: CompileResult, tmp_path: Path) -> None:
    (tmp_path / "tiny_gemm.cu").write_text(WGMMA)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for command in tiny_gemm.commands:
        words = shlex.split(command)
        words[:1] = [sys.executable] if words[0] == "python" else words[:1]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "tiny_gemm.ptx").read_text() == tiny_gemm.ptx
    assert (tmp_path / "tiny_gemm.cubin").read_bytes() == tiny_gemm.cubin


def test_the_module_refuses_with_status_1_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.cu").write_text(SYNTAX_ERROR)
    for source in ("broken.cu", "absent.cu"):
        command = [sys.executable, "-m", "gemmgen.toolchain", source, "-o", "broken.ptx"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 1
        assert source in run.stderr
        assert "Traceback" not in run.stderr
        assert not (tmp_path / "broken.ptx").exists()


def test_a_syntax_error_shows_cause_source_and_command(toolchain: Toolchain) -> None:
    error = refusal(SYNTAX_ERROR, "broken", toolchain)
    path = Path(str(error.where))
    assert path.read_text() == SYNTAX_ERROR
    assert f"NVRTC {toolchain.nvrtc.version} refuses broken.cu" in str(error)
    assert str(error.detail).startswith('broken.cu(3): error: expected a ";"')
    assert nvrtc_command(toolchain.nvrtc, path, path.with_suffix(".ptx")) in str(error.fix)


def test_an_error_in_ptx_leaves_source_and_ptx(toolchain: Toolchain) -> None:
    error = refusal(PTX_ERROR, "broken", toolchain)
    path = Path(str(error.where))
    assert path.read_text() == PTX_ERROR
    assert "no.such.thing" in path.with_suffix(".ptx").read_text()
    assert str(error.detail).splitlines()[0].endswith("Unknown modifier '.such'")
    command = ptxas_command(toolchain.ptxas, path.with_suffix(".ptx"), path.with_suffix(".cubin"))
    assert command in str(error.fix)


def test_the_callers_own_source_is_not_written_again(toolchain: Toolchain, tmp_path: Path) -> None:
    path = tmp_path / "kernel.cu"
    path.write_text(PTX_ERROR)
    with pytest.raises(CompileError) as raised:
        compile_cuda(PTX_ERROR, "broken", toolchain, source_path=path)
    assert raised.value.where == path
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kernel.cu", "kernel.ptx"]


def test_a_disk_that_is_full_does_not_hide_the_cause(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    error = refusal(SYNTAX_ERROR, "broken", toolchain)
    assert error.where == "broken.cu, which could not be written to the disk"
    assert 'expected a ";"' in str(error)


@pytest.mark.parametrize(
    ("source", "flaw", "got"),
    [
        (SPILLS, Flaw.SPILLS, "bytes spill stores"),
        (LOCAL_MEMORY, Flaw.LOCAL_MEMORY, "256 bytes stack frame"),
        (SERIALIZED, Flaw.SERIALIZED_WGMMA, "in function 'serialized'"),
        (NO_LAUNCH_BOUNDS, Flaw.IGNORED_SETMAXNREG, "'setmaxnreg' ignored"),
    ],
)
def test_a_flaw_is_an_error_unless_it_is_allowed(
    source: str, flaw: Flaw, got: str, toolchain: Toolchain
) -> None:
    error = refusal(source, "flawed", toolchain)
    assert f"ptxas makes slow code of flawed: {flaw.value}" in str(error)
    assert got in str(error.got)
    assert f"or allow {flaw.value};" in str(error.fix)
    assert Path(str(error.where)).read_text() == source
    assert compile_cuda(source, "flawed", toolchain, allow=frozenset({flaw})).cubin


def test_resources_of_spills(toolchain: Toolchain) -> None:
    result = compile_cuda(SPILLS, "spill", toolchain, allow=frozenset({Flaw.SPILLS}))
    assert result.resources.registers == 32
    assert result.resources.spill_store_bytes > 0
    assert result.resources.spill_load_bytes > 0


def test_every_nvrtc_with_every_ptxas_in_one_process(toolchain: Toolchain) -> None:
    found = list_compilers()
    for nvrtc in found.nvrtc:
        for ptxas in (ptxas for ptxas in found.ptxas if numbers(ptxas.version) >= (12,)):
            result = compile_cuda(WGMMA, "tiny_gemm", Toolchain(nvrtc, ptxas))
            assert f"V{nvrtc.version}" in result.ptx


def test_ptxas_taken_away_after_discovery(toolchain: Toolchain, tmp_path: Path) -> None:
    gone = replace(toolchain.ptxas, path=tmp_path / "ptxas")
    with pytest.raises(Exception, match="ptxas is not there"):
        compile_cuda(WGMMA, "tiny_gemm", replace(toolchain, ptxas=gone))
