"""Casts, layouts of scales, comparison and timing of DeepGEMM's helpers, on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

import gemmgen.compat.deep_gemm as deep_gemm
from gemmgen import TensorError, UnsupportedError, numerics
from gemmgen.compat.deep_gemm import testing, utils
from gemmgen.compat.deep_gemm.testing.bench import mean_seconds
from gemmgen.measure.stopwatch import Kernel

E4M3 = torch.float8_e4m3fn


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7)).bfloat16()


# --- Casts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_ue8m0", [False, True])
def test_a_cast_of_tokens(use_ue8m0: bool) -> None:
    x = normal(5, 300)
    x[2, 128:256] = 0
    x8, scale = utils.per_token_cast_to_fp8(x, use_ue8m0)
    assert (x8.shape, x8.dtype, scale.shape) == (x.shape, E4M3, (5, 3))
    for row in range(5):
        for block in range(3):
            part = x[row, 128 * block : 128 * block + 128].float()
            expected = max(part.abs().max().item(), 1e-4) / 448
            if use_ue8m0:
                assert scale[row, block].log2() % 1 == 0
                assert expected <= scale[row, block] < 2 * expected
            else:
                assert scale[row, block].item() == pytest.approx(expected, rel=1e-6)
            mine = x8[row, 128 * block : 128 * block + 128]
            assert torch.equal(mine.float(), (part / scale[row, block]).to(E4M3).float())


def test_a_cast_of_tokens_is_the_quantiser_where_no_block_is_tiny() -> None:
    x = normal(33, 512)
    for ours, theirs in zip(
        utils.per_token_cast_to_fp8(x, False), numerics.quantize(x, "e4m3", "1x128"), strict=True
    ):
        assert numerics.equal_bits(ours, theirs) == 1.0
    for ours, theirs in zip(
        utils.per_block_cast_to_fp8(x, False), numerics.quantize(x, "e4m3", "128x128"), strict=True
    ):
        assert numerics.equal_bits(ours, theirs) == 1.0


def test_a_cast_of_channels_is_that_of_tokens_turned() -> None:
    x = normal(384, 40)
    x8, scale = utils.per_channel_cast_to_fp8(x, False)
    turned, scale_turned = utils.per_token_cast_to_fp8(x.T.contiguous(), False)
    assert torch.equal(x8.float(), turned.float().T)
    assert torch.equal(scale, scale_turned.T)
    with pytest.raises(TensorError, match="ragged"):
        utils.per_channel_cast_to_fp8(x[:100], False)
    with pytest.raises(TensorError, match="axes"):
        utils.per_token_cast_to_fp8(x[None], False)


def test_a_cast_by_axes() -> None:
    x = normal(4, 6, 8)
    x8, scale = utils.per_custom_dims_cast_to_fp8(x, (0, 2), False)
    assert (x8.shape, scale.shape) == (x.shape, (4, 8))
    expected = x.abs().float().amax(dim=1).clamp_min(1e-4) / 448
    assert torch.allclose(scale, expected, rtol=1e-6)


def test_powers_of_two() -> None:
    x = torch.tensor([1.0, 1.5, -3.0, 2.0**-149, 0.25, 3e38])
    assert utils.ceil_to_ue8m0(x).tolist() == [1.0, 2.0, 4.0, 2.0**-126, 0.25, 2.0**127]
    packed = utils.pack_ue8m0_to_int(torch.tensor([[1.0, 2.0, 0.5, 2.0**-126]]))
    assert packed.view(torch.uint8).tolist() == [[127, 128, 126, 1]]
    with pytest.raises(TensorError, match="packed"):
        utils.pack_ue8m0_to_int(x[:4])
    with pytest.raises(TensorError, match="packed"):
        utils.pack_ue8m0_to_int(torch.ones(3))
    _, packed = utils.per_token_cast_to_fp8(normal(3, 512), True, use_packed_ue8m0=True)
    assert (packed.shape, packed.dtype) == ((3, 1), torch.int32)


def test_pairs_of_fp4() -> None:
    x = torch.tensor([[6.0, -3.0, 0.5, 0.2, -0.2, 5.0, 1.75, -1.0]])
    packed, scale = utils.per_token_cast_to_fp4(x, False, gran_k=8)
    assert scale.tolist() == [[1.0]]
    codes = [[7, 13, 1, 0, 0, 6, 3, 10]]
    expected = [[low | high << 4 for low, high in zip(codes[0][::2], codes[0][1::2], strict=True)]]
    assert (packed.shape, packed.dtype) == ((1, 4), torch.int8)
    assert packed.view(torch.uint8).tolist() == expected
    wide, scales = utils.per_token_cast_to_fp4(normal(6, 300), True, gran_k=32)
    assert (wide.shape, scales.shape) == ((6, 150), (6, 10))
    assert (scales.log2() % 1 == 0).all()
    turned = utils.transpose_packed_fp4(wide)
    assert turned.shape == (300, 3)
    assert torch.equal(utils.transpose_packed_fp4(turned), wide)
    assert (turned[:, 0] & 15)[10] == (wide[0] & 15)[5]
    with pytest.raises(TensorError, match="paired"):
        utils.per_token_cast_to_fp4(x[:, :3], False)
    with pytest.raises(TensorError, match="transpose"):
        utils.transpose_packed_fp4(wide[:5])


def test_whole_numbers() -> None:
    assert (deep_gemm.ceil_div(129, 128), utils.align(129, 128)) == (2, 256)
    assert (utils.get_tma_aligned_size(5, 4), utils.get_tma_aligned_size(17, 1)) == (8, 32)
    with pytest.raises(TensorError, match="line up"):
        utils.get_tma_aligned_size(5, 3)


# --- Layouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(129, 3), (4, 1), (1, 1), (2, 130, 5), (1, 7, 1)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_scales_in_the_layout_of_the_kernels(shape: tuple[int, ...], turned: bool) -> None:
    sf = torch.rand(shape)
    sf = sf.mT.contiguous().mT if turned else sf
    laid = deep_gemm.get_mn_major_tma_aligned_tensor(sf)
    *_, mn, blocks = shape
    pitch = deep_gemm.get_tma_aligned_size(mn, 4)
    assert torch.equal(laid, sf)
    assert laid.stride()[-2:] == (1, pitch)
    assert len(shape) == 2 or laid.stride(0) == pitch * blocks
    assert deep_gemm.get_col_major_tma_aligned_tensor(laid) is laid
    with pytest.raises(TensorError, match="no scales"):
        deep_gemm.get_mn_major_tma_aligned_tensor(sf.double())


def test_a_slice_of_scales_is_laid_anew() -> None:
    whole = deep_gemm.get_mn_major_tma_aligned_tensor(torch.rand(64, 4))
    part = deep_gemm.get_mn_major_tma_aligned_tensor(whole[:5])
    assert part.stride() == (1, 8)
    assert torch.equal(part, whole[:5])


def test_the_layout_that_a_recipe_asks_for() -> None:
    transform = deep_gemm.transform_sf_into_required_layout
    tokens, weights = torch.rand(2, 130, 3), torch.rand(2, 2, 3)
    for laid in (
        transform(tokens, 130, 300, (1, 128, 128), 2, True),
        transform(tokens, 130, 300, (1, 128), num_groups=2),
        transform(tokens, 130, 300, (1, 1, 128), 2, is_sfa=False, disable_ue8m0_cast=True),
    ):
        assert laid.stride() == (132 * 3, 1, 132)
    assert transform(weights, 130, 300, (1, 128, 128), 2, False) is weights
    assert transform(weights[0], 130, 300, (128, 128)) is not None
    with pytest.raises(TensorError, match="is_sfa"):
        transform(tokens, 130, 300, (1, 128, 128), 2)
    with pytest.raises(TensorError, match="wrong shape"):
        transform(weights, 300, 300, (128, 128), 2)
    with pytest.raises(UnsupportedError, match="Hopper"):
        transform(tokens, 130, 96, (1, 32), 2)


def test_packed_exponents() -> None:
    exponents = torch.randint(1, 254, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    sf = torch.ldexp(torch.ones(2, 6, 5), exponents - 127)
    packed = deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(sf)
    assert (packed.shape, packed.stride()) == ((2, 6, 2), (16, 1, 8))
    for block in range(8):
        stored = packed[..., block // 4] >> 8 * (block % 4) & 255
        assert torch.equal(stored.long(), exponents[..., block] if block < 5 else stored.long() * 0)
    flat = sf.permute(0, 2, 1).reshape(10, 6)  # two groups of five blocks
    grouped = deep_gemm.get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
        flat, torch.tensor([640, 640]), [640, 640], 128, 128
    )
    assert (grouped.shape, grouped.stride()) == ((4, 6), (8, 1))
    assert torch.equal(grouped, torch.cat([packed[0].T, packed[1].T]))
    with pytest.raises(UnsupportedError, match="sizes"):
        deep_gemm.get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
            flat, torch.tensor([640, 640]), [640, 640], 128, use_psum_layout=True
        )


# --- Tests --------------------------------------------------------------------------------------


def test_a_difference() -> None:
    x = torch.tensor([3.0, 4.0])
    assert deep_gemm.calc_diff(x, x) == 0
    assert deep_gemm.calc_diff(x * 0, x * 0) == 0
    assert deep_gemm.calc_diff(x, -x) == 2
    # 1 - 2 * 25 * 2 / (25 + 100)
    assert deep_gemm.calc_diff(x, 2 * x).item() == pytest.approx(0.2)


def test_bytes() -> None:
    x = torch.zeros(3, dtype=torch.bfloat16)
    assert testing.count_bytes(x, (x, None), [x, (torch.zeros(2),)]) == 26


def test_times_by_name() -> None:
    calls = [
        [Kernel("gemm_e4m3_t128x128", 0, 10.0), Kernel("transpose_scales", 0, 2.0)],
        [Kernel("gemm_e4m3_t128x128", 0, 20.0), Kernel("gemm_e4m3_t64x64", 0, 30.0)],
    ]
    for name in ("fp8_gemm", "gemm_", "bf16_gemm", "fp8_wgrad_gemm"):
        assert mean_seconds(calls, name, of_each_launch=False) == pytest.approx(30e-6)
        assert mean_seconds(calls, name, of_each_launch=True) == pytest.approx(20e-6)
    assert mean_seconds(calls, "transpose", of_each_launch=True) == pytest.approx(2e-6)
    assert mean_seconds(calls, "pack_fp32_into_ue8m0", of_each_launch=False) == pytest.approx(31e-6)
    for each in (False, True):
        assert mean_seconds(calls, "nvjet", of_each_launch=each) == 0


def test_conditions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    @testing.test_filter(lambda: False)
    def left_out() -> None:
        ran.append("left_out")

    @testing.test_filter(lambda: True)
    @testing.ignore_env("DG_SOMETHING", lambda: True)
    def without() -> None:
        ran.append(os.environ.get("DG_SOMETHING"))

    monkeypatch.setenv("DG_SOMETHING", "1")
    left_out()
    without()
    assert ran == [None]
    assert os.environ["DG_SOMETHING"] == "1"
    assert "left_out" in capsys.readouterr().out


# --- Early compilation --------------------------------------------------------------------------


def test_configurations_name_the_kernels_of_a_weight() -> None:
    from gemmgen import plan_set
    from gemmgen.compat.deep_gemm.jit_kernels.gemm import get_best_configs
    from gemmgen.compat.deep_gemm.jit_kernels.runtime import GemmType

    spec = GemmType.Normal.spec(512, 1024, 1, False)
    plans = {(p.tile.m, p.tile.n, p.pipeline.stages) for p in plan_set(spec, (1, 2048))}
    found = {get_best_configs(m, 512, 1024, 1, 132) for m in range(1, 2049, 7)}
    assert {config[1:4] for config in found} == plans
    assert {config[0] for config in found} == {132}
    sms, *tile, _, multicast, (shared, *_) = get_best_configs(
        4096, 512, 1024, 4, 100, is_grouped_masked=True
    )
    assert (sms, len(tile)) == (100, 2)
    assert multicast[0] in (1, 2)
    assert 0 < shared <= 232448
    assert get_best_configs(128, 512, 1024, 1, 132, is_grouped_contiguous=True)[1] % 8 == 0


@pytest.mark.parametrize("kind", ["GroupedMasked", "GemmType::Normal", None])
def test_compilation_before_the_first_call(monkeypatch: pytest.MonkeyPatch, kind) -> None:
    from gemmgen import ops
    from gemmgen.compat.deep_gemm.jit_kernels.runtime import FP8GemmRuntime
    from gemmgen.compat.deep_gemm.jit_kernels.tuner import jit_tuner

    warmed = []
    monkeypatch.setattr(ops, "warmup", lambda spec, m_range: warmed.append((spec, m_range)) or [])
    keys = {"N": 512, "K": 1024, "BLOCK_M": 64, "NUM_GROUPS": 4}
    keys |= {} if kind is None else {"GEMM_TYPE": kind}
    runtime, returned = jit_tuner.compile_and_tune(
        name="gemm", keys=keys, space=(), kwargs={}, runtime_cls=FP8GemmRuntime
    )
    ((spec, m_range),) = warmed
    assert (spec.n, spec.k, spec.groups) == (512, 1024, 4 if kind == "GroupedMasked" else 1)
    assert m_range == (1, 16384)
    assert isinstance(runtime, FP8GemmRuntime)
    assert returned == keys


def test_a_cache_that_may_be_watched(tmp_path) -> None:
    from gemmgen.compat.deep_gemm.jit.runtime import RuntimeCache

    assert RuntimeCache().get(str(tmp_path)) is None


@pytest.mark.toolchain
def test_the_compiler_that_is_told() -> None:
    from gemmgen.compat.deep_gemm.jit.compiler import get_nvcc_compiler

    path, version = get_nvcc_compiler()
    assert os.path.exists(path)
    assert version.count(".") == 2
