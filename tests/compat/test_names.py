"""The names of DeepGEMM that there are and those that are not, their keywords, a light import."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import gemmgen.compat.deep_gemm as deep_gemm

FP8 = "a b d c recipe recipe_a recipe_b compiled_dims disable_ue8m0_cast hints"
BF16 = "a b d c compiled_dims hints"
RECIPES = "recipe recipe_a recipe_b compiled_dims disable_ue8m0_cast"
PSUM = "use_psum_layout ensure_zero_padding"
K_GROUPED = "a b d ks_cpu grouped_layout c {}compiled_dims use_psum_layout hints"
SIGNATURES = {
    # early 2025
    "gemm_fp8_fp8_bf16_nt": "lhs rhs out hints",
    "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous": "lhs rhs out m_indices hints",
    "m_grouped_gemm_fp8_fp8_bf16_nt_masked": "lhs rhs out masked_m expected_m hints",
    "wgrad_gemm_fp8_fp8_fp32_nt": "lhs rhs out hints",
    "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt": "lhs rhs out batch_sizes hints",
    # current
    **{f"fp8_gemm_{layout}": FP8 for layout in ("nt", "nn", "tn", "tt")},
    **{f"bf16_gemm_{layout}": BF16 for layout in ("nt", "nn", "tn", "tt")},
    **{f"cublaslt_gemm_{layout}": "a b d c" for layout in ("nt", "nn", "tn", "tt")},
    "m_grouped_fp8_gemm_nt_contiguous": f"a b d grouped_layout {RECIPES} {PSUM} "
    "expected_m_for_psum_layout hints",
    "m_grouped_fp8_gemm_nn_contiguous": f"a b d grouped_layout {RECIPES} {PSUM} hints",
    "m_grouped_fp8_gemm_nt_masked": f"a b d masked_m expected_m {RECIPES} hints",
    "m_grouped_bf16_gemm_nt_contiguous": f"a b d grouped_layout compiled_dims {PSUM} "
    "expected_m_for_psum_layout hints",
    "m_grouped_bf16_gemm_nn_contiguous": f"a b d grouped_layout compiled_dims {PSUM} hints",
    "m_grouped_bf16_gemm_nt_masked": "a b d masked_m expected_m compiled_dims hints",
    "k_grouped_fp8_gemm_nt_contiguous": K_GROUPED.format("recipe "),
    "k_grouped_fp8_gemm_tn_contiguous": K_GROUPED.format("recipe "),
    "k_grouped_bf16_gemm_tn_contiguous": K_GROUPED.format(""),
    # helpers
    "transform_sf_into_required_layout": "sf mn k recipe num_groups is_sfa disable_ue8m0_cast "
    "psum_layout",
    "get_tma_aligned_size": "x element_size",
    "get_mn_major_tma_aligned_tensor": "sf",
    "get_mn_major_tma_aligned_packed_ue8m0_tensor": "sf psum_layout",
    "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor": "sf grouped_layout ks_cpu gran_k "
    "k_alignment use_psum_layout",
    "per_token_cast_to_fp8": "x use_ue8m0 gran_k use_packed_ue8m0",
    "per_channel_cast_to_fp8": "x use_ue8m0 gran_k",
    "per_block_cast_to_fp8": "x use_ue8m0 gran_k",
    "per_custom_dims_cast_to_fp8": "x dims use_ue8m0",
    "ceil_div": "x y",
    "align": "x y",
    "bench": "fn num_warmups num_tests high_precision",
    "bench_kineto": "fn kernel_names num_tests suppress_kineto_output trace_path flush_l2 "
    "with_multiple_kernels barrier",
    "calc_diff": "x y",
    "get_theoretical_mk_alignment_for_contiguous_layout": "expected_m num_groups",
}
ALIASES = {
    **{f"fp8_fp4_gemm_{layout}": f"fp8_gemm_{layout}" for layout in ("nt", "nn", "tn", "tt")},
    "m_grouped_fp8_fp4_gemm_nt_contiguous": "m_grouped_fp8_gemm_nt_contiguous",
    "m_grouped_fp8_fp4_gemm_nn_contiguous": "m_grouped_fp8_gemm_nn_contiguous",
    "m_grouped_fp8_fp4_gemm_nt_masked": "m_grouped_fp8_gemm_nt_masked",
    "fp8_m_grouped_gemm_nt_masked": "m_grouped_fp8_gemm_nt_masked",
    "bf16_m_grouped_gemm_nt_masked": "m_grouped_bf16_gemm_nt_masked",
    "get_m_alignment_for_contiguous_layout": "get_mk_alignment_for_contiguous_layout",
    "get_k_alignment_for_contiguous_layout": "get_mk_alignment_for_contiguous_layout",
    "get_col_major_tma_aligned_tensor": "get_mn_major_tma_aligned_tensor",
    "cell_div": "ceil_div",
}
ABSENT = """einsum fp8_einsum fp8_mqa_logits fp8_paged_mqa_logits fp8_fp4_mqa_logits
fp8_fp4_paged_mqa_logits get_paged_mqa_logits_metadata tf32_hc_prenorm_gemm fp8_fp4_mega_moe
fp8_gemm_nt_skip_head_mid fp4_gemm_nt per_token_cast_to_fp4 m_grouped_fp8_gemm_nt_signal"""


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_arguments_of(name: str) -> None:
    parameters = inspect.signature(getattr(deep_gemm, name)).parameters
    assert list(parameters) == SIGNATURES[name].split()


def test_the_defaults_of_compiled_dims_and_recipes() -> None:
    def default(name: str, argument: str) -> object:
        return inspect.signature(getattr(deep_gemm, name)).parameters[argument].default

    for kind in ("fp8", "bf16"):
        for layout, dims in {"nt": "nk", "nn": "nk", "tn": "mn", "tt": "mn"}.items():
            assert default(f"{kind}_gemm_{layout}", "compiled_dims") == dims
    assert default("k_grouped_fp8_gemm_nt_contiguous", "recipe") == (1, 1, 128)
    assert default("m_grouped_fp8_gemm_nt_contiguous", "ensure_zero_padding") is True


@pytest.mark.parametrize("alias", ALIASES)
def test_the_alias(alias: str) -> None:
    assert getattr(deep_gemm, alias) is getattr(deep_gemm, ALIASES[alias])


@pytest.mark.parametrize("name", ABSENT.split())
def test_out_of_scope_is(name: str) -> None:
    assert not hasattr(deep_gemm, name)


def test_every_public_name_is_there_and_documented() -> None:
    for name in deep_gemm.__all__:
        assert inspect.getdoc(getattr(deep_gemm, name)), name
    for module in (deep_gemm.utils, deep_gemm.testing, deep_gemm.jit_kernels.utils):
        assert set(module.__all__) <= set(vars(module))


def test_the_import_starts_no_cuda_and_a_fork_is_fine() -> None:
    code = (
        "import os, torch\n"
        "def refuse(*args): raise AssertionError('CUDA was started')\n"
        "torch.cuda._lazy_init = torch._C._cuda_init = refuse\n"
        "from gemmgen.runtime import driver\n"
        "driver.initialize = refuse\n"
        "import gemmgen.compat.deep_gemm as d\n"
        "d.set_pdl(True), d.set_tc_util(50), d.set_compile_mode(1), d.get_pdl()\n"
        "assert not torch.cuda.is_initialized()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if d.get_pdl() else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
