"""What DeepGEMM keeps for a process, and compilation without a launch."""

from __future__ import annotations

import pytest
import torch
from compat.test_calls import BF16, G, K, M, N, int32, scaled
from stand_in_gpus import on_gpu

import gemmgen
import gemmgen.compat.deep_gemm as deep_gemm
from gemmgen import UnsupportedError
from gemmgen.compat.deep_gemm import launching


def test_settings_come_back(gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        multi_processor_count = 132

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert deep_gemm.get_num_sms() == 132
    deep_gemm.set_num_sms(100)
    assert (deep_gemm.get_num_sms(), gemmgen.ops.get_num_sms()) == (100, 100)
    deep_gemm.set_num_sms(132)
    assert (deep_gemm.get_num_sms(), gemmgen.ops.get_num_sms()) == (132, None)
    for wrong in (0, 133):
        with pytest.raises(gemmgen.LaunchError, match="1 to 132"):
            deep_gemm.set_num_sms(wrong)
    deep_gemm.set_pdl(True)
    assert deep_gemm.get_pdl()
    assert gemmgen.ops.get_pdl()
    deep_gemm.set_tc_util(70)
    assert deep_gemm.get_tc_util() == 70
    with pytest.raises(gemmgen.LaunchError, match="percent"):
        deep_gemm.set_tc_util(101)
    deep_gemm.set_ignore_compile_dims(True)
    deep_gemm.set_block_size_multiple_of((64, 128))
    assert deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(64) == 128
    deep_gemm.set_mk_alignment_for_contiguous_layout(256)
    assert deep_gemm.get_m_alignment_for_contiguous_layout() == 256
    with pytest.raises(UnsupportedError, match="multiple of 128"):
        deep_gemm.set_mk_alignment_for_contiguous_layout(64)


def test_compilation_without_a_launch(gpus, compilers) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    x, sx, y, sy, out = on_gpu(dict(enumerate((*a, *b, d))))
    deep_gemm.set_compile_mode(1)
    assert deep_gemm.get_compile_mode() == 1
    deep_gemm.fp8_gemm_nt((x, sx), (y, sy), out)
    assert len(compilers.compiled) == len(gpus.loaded) == 1
    assert not gpus.launches
    deep_gemm.set_compile_mode(0)
    deep_gemm.fp8_gemm_nt((x, sx), (y, sy), out)
    assert len(compilers.compiled) == len(gpus.loaded) == len(gpus.launches) == 1
    with pytest.raises(gemmgen.LaunchError, match="without a launch"):
        deep_gemm.set_compile_mode(2)


def test_compilation_of_every_kind_is_of_the_kernel_that_calls_take(gpus, compilers) -> None:
    a, b, d = scaled(G, M, K), scaled(G, N, K, rows=128), torch.empty(G, M, N, dtype=BF16)
    x, sx, y, sy, out, rows, f32 = on_gpu(
        dict(enumerate((*a, *b, d, int32(1, 2, 3), torch.zeros(1, M, N))))
    )
    flat_x, flat_sx, flat_out, ids, sizes = on_gpu(
        dict(enumerate((*scaled(M, K), torch.empty(M, N, dtype=BF16), int32(*[0] * M), int32(K))))
    )
    flat_y, flat_sy = on_gpu(dict(enumerate(scaled(N, K))))

    def all_kinds() -> None:
        deep_gemm.m_grouped_fp8_gemm_nt_masked((x, sx), (y, sy), out, rows, 64)
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous((flat_x, flat_sx), (y, sy), flat_out, ids)
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            (flat_x, flat_sx), (y, sy), flat_out, rows, use_psum_layout=True
        )
        launching.k_grouped((flat_x, flat_sx, flat_y, flat_sy), sizes, f32, f32)

    deep_gemm.set_compile_mode(1)
    all_kinds()
    compiled = len(compilers.compiled)
    assert compiled == 4
    deep_gemm.set_compile_mode(0)
    all_kinds()
    assert len(compilers.compiled) == compiled
    assert len(gpus.launches) == 4
