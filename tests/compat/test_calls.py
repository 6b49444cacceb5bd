"""DeepGEMM's calls: which operator they become, with which tensors; what is refused."""

from __future__ import annotations

import pytest
import torch

import gemmgen
import gemmgen.compat.deep_gemm as deep_gemm
from gemmgen import StrictError, TensorError, UnsupportedError, numerics

M, N, K, G = 256, 384, 512, 3
E4M3 = torch.float8_e4m3fn
BF16 = torch.bfloat16


def scaled(*shape: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    *groups, mn, k = shape
    scales = torch.rand(*groups, -(-mn // rows), -(-k // 128))
    return torch.zeros(shape).to(E4M3), numerics.to_m_major(scales) if rows == 1 else scales


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    at = (left.data_ptr(), left.shape, left.stride())
    return at == (right.data_ptr(), right.shape, right.stride())


def gets(call, *operands: torch.Tensor | None) -> bool:
    given = (call.a, call.scale_a, call.b, call.scale_b)
    return all(
        want is got if want is None else same(want, got)
        for want, got in zip(operands, given, strict=True)
    )


def int32(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


# --- Dense --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("a", "b", "d"), ("lhs", "rhs", "out")])
@pytest.mark.parametrize("function", ["fp8_gemm_nt", "gemm_fp8_fp8_bf16_nt"])
def test_both_sets_of_keywords(calls, function: str, names) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    getattr(deep_gemm, function)(**dict(zip(names, (a, b, d), strict=True)))
    getattr(deep_gemm, function)(a, b, d)
    for call in calls:
        assert call.grouping == "dense"
        assert gets(call, *a, *b)
        assert call.d is d
        assert call.c is None


def test_one_argument_by_two_names_is_refused(calls) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    with pytest.raises(TypeError, match="both lhs and a"):
        deep_gemm.fp8_gemm_nt(a, b, d, lhs=a, a=a)
    with pytest.raises(TypeError, match="'d'"):
        deep_gemm.fp8_gemm_nt(a, b)


def test_hints_change_nothing(calls) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    hints = {"disable_ue8m0_cast": True, "compiled_dims": "mnk", "something_new": 7}
    deep_gemm.fp8_gemm_nt(a, b, d, recipe=(1, 128, 128), alpha=None, **hints)
    deep_gemm.fp8_gemm_nt(a, b, d, recipe_a=(1, 128), recipe_b=(128, 128))
    assert len(calls) == 2


@pytest.mark.parametrize(
    "effect", [{"alpha": 0.5}, {"enable_overlap": True}, {"signal": torch.zeros(4)}], ids=list
)
def test_what_would_change_the_result_is_no_hint(calls, effect) -> None:
    a, b, d = scaled(G, M, K), scaled(G, N, K, rows=128), torch.empty(G, M, N, dtype=BF16)
    with pytest.raises(UnsupportedError, match="changes the result"):
        deep_gemm.fp8_m_grouped_gemm_nt_masked(a, b, d, int32(1, 2, 3), 64, **effect)
    deep_gemm.fp8_m_grouped_gemm_nt_masked(
        a, b, d, int32(1, 2, 3), 64, enable_overlap=False, max_block_n=256, signal=None
    )
    assert len(calls) == 1


@pytest.mark.parametrize("layout", ["nn", "tn", "tt"])
def test_transposed_views_come_back(calls, layout: str) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    turned_a = (a[0].T, a[1].T) if layout[0] == "t" else a
    turned_b = (b[0].T, b[1].T) if layout[1] == "n" else b
    getattr(deep_gemm, f"fp8_gemm_{layout}")(turned_a, turned_b, d)
    assert gets(calls[0], *a, *b)
    x, y = torch.zeros(M, K, dtype=BF16), torch.zeros(N, K, dtype=BF16)
    turned_x = x.T if layout[0] == "t" else x
    turned_y = y.T if layout[1] == "n" else y
    getattr(deep_gemm, f"bf16_gemm_{layout}")(turned_x, turned_y, d, c=d)
    assert gets(calls[1], x, None, y, None)
    assert calls[1].c is d


def test_weight_gradients_add_to_their_output(calls) -> None:
    a, b, d = scaled(M, K), scaled(N, K), torch.zeros(M, N)
    deep_gemm.fp8_gemm_nt(a, b, d, c=d, recipe=(1, 1, 128))
    deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt(a, b, d)
    transposed = [(x, scale.T) for x, scale in (a, b)]  # [K blocks, rows], as is allowed there
    deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt(*transposed, d)
    for call in calls:
        assert gets(call, *a, *b)
        assert call.c is call.d is d


def test_an_addend_with_rows_apart_is_copied_together(calls) -> None:
    a, b, wide = scaled(M, K), scaled(N, K), torch.rand(M, 2 * N)
    deep_gemm.wgrad_gemm_fp8_fp8_fp32_nt(a, b, wide[:, :N])
    (call,) = calls
    assert call.c.is_contiguous()
    assert torch.equal(call.c, wide[:, :N])
    assert same(call.d, wide[:, :N])


def test_slices_of_larger_buffers_go_as_they_are(calls) -> None:
    """Scales of a slice lie apart by the buffer's pitch: operators copy them, and count that."""
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    deep_gemm.fp8_gemm_nt((a[0][:5], a[1][:5]), b, d[:5])
    assert gets(calls[0], a[0][:5], a[1][:5], *b)


# --- Nothing to do ------------------------------------------------------------------------------


def test_without_rows_a_call_returns(calls) -> None:
    a, b, d = scaled(0, K), scaled(N, K, rows=128), torch.empty(0, N, dtype=BF16)
    weights = scaled(G, N, K, rows=128)
    deep_gemm.fp8_gemm_nt(a, b, d)
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, weights, d, int32())
    deep_gemm.m_grouped_bf16_gemm_nt_contiguous(a[0].to(BF16), weights[0].to(BF16), d, int32())
    assert not calls


@pytest.mark.parametrize("added", [None, "other", "same"])
def test_without_k_the_output_is_what_was_there(calls, added) -> None:
    d = torch.full((M, N), 3.0)
    c = {None: None, "same": d, "other": torch.full((M, N), 5.0)}[added]
    deep_gemm.bf16_gemm_nt(torch.empty(M, 0, dtype=BF16), torch.empty(N, 0, dtype=BF16), d, c)
    assert not calls
    assert (d == {None: 0.0, "same": 3.0, "other": 5.0}[added]).all()


# --- Groups of rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["grouped_layout", "m_indices"])
@pytest.mark.parametrize(
    "function",
    ["m_grouped_gemm_fp8_fp8_bf16_nt_contiguous", "m_grouped_fp8_gemm_nt_contiguous"],
)
def test_contiguous_groups_by_id(calls, function: str, index: str) -> None:
    a, b, d = scaled(M, K), scaled(G, N, K, rows=128), torch.empty(M, N, dtype=BF16)
    ids = int32(*[0] * 100, *[-1] * 28, *[2] * 128)
    getattr(deep_gemm, function)(a, b, d, **{index: ids})
    (call,) = calls
    assert call.grouping == "contiguous"
    assert gets(call, *a, *b)
    assert call.index is ids
    assert call.d is d


def test_contiguous_groups_by_end(calls) -> None:
    a, b, d = scaled(M, K), scaled(G, N, K, rows=128), torch.empty(M, N, dtype=BF16)
    ends = int32(100, 130, 200)
    keys = {"use_psum_layout": True, "expected_m_for_psum_layout": 64, "ensure_zero_padding": False}
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, b, d, ends, **keys)
    deep_gemm.m_grouped_fp8_gemm_nn_contiguous(a, (b[0].mT, b[1].mT), d, ends, use_psum_layout=True)
    x, y = a[0].to(BF16), b[0].to(BF16)
    deep_gemm.m_grouped_bf16_gemm_nt_contiguous(x, y, d, ends, use_psum_layout=True)
    deep_gemm.m_grouped_bf16_gemm_nn_contiguous(x, y.mT, d, ends, use_psum_layout=True)
    assert {call.grouping for call in calls} == {"contiguous_ends"}
    assert all(call.index is ends for call in calls)
    assert gets(calls[1], *a, *b)
    assert gets(calls[3], x, None, y, None)


@pytest.mark.parametrize(
    "names", [("lhs", "rhs", "out"), ("a", "b", "d")], ids=["early", "current"]
)
@pytest.mark.parametrize(
    "function", ["m_grouped_gemm_fp8_fp8_bf16_nt_masked", "fp8_m_grouped_gemm_nt_masked"]
)
def test_masked_groups(calls, function: str, names) -> None:
    a, b, d = scaled(G, M, K), scaled(G, N, K, rows=128), torch.empty(G, M, N, dtype=BF16)
    counts = int32(1, 0, 200)
    given = dict(zip(names, (a, b, d), strict=True))
    getattr(deep_gemm, function)(**given, masked_m=counts, expected_m=60)
    deep_gemm.bf16_m_grouped_gemm_nt_masked(a[0].to(BF16), b[0].to(BF16), d, counts, 60)
    assert [call.grouping for call in calls] == ["masked"] * 2
    assert [call.rows for call in calls] == [64, 64]
    assert gets(calls[0], *a, *b)
    assert calls[1].scale_a is calls[1].scale_b is None
    assert all(call.index is counts and call.d is d for call in calls)


# --- Groups along K -----------------------------------------------------------------------------

SIZES = [256, 0, 128]


def flat(rows: int, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Data of groups one after the other, and scales [K blocks, rows]."""
    return (
        torch.zeros(rows * sum(sizes)).to(E4M3),
        torch.rand(sum(-(-k // 128) for k in sizes), rows),
    )


def is_right(call, g: int, a, b, d: torch.Tensor, sizes: list[int]) -> bool:
    start, k = sum(sizes[:g]), sizes[g]
    blocks = slice(sum(-(-size // 128) for size in sizes[:g]), None)
    expected = [
        t
        for (x, scales), rows in ((a, M), (b, N))
        for t in (
            x[rows * start : rows * (start + k)].view(rows, k),
            scales[blocks][: -(-k // 128)].T,
        )
    ]
    return gets(call, *expected) and same(call.d.view(M, N), d[g])


def test_k_grouped_is_a_launch_for_each_group(calls) -> None:
    (a, a_scales), (b, b_scales) = flat(M, SIZES), flat(N, SIZES)
    d, sizes = torch.zeros(G, M, N), int32(*SIZES)
    deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
        (a, a_scales.T), (b, b_scales.T), d, SIZES, sizes, c=d
    )
    assert [call.grouping for call in calls] == ["k_grouped"] * 2
    for call, g in zip(calls, (0, 2), strict=True):
        assert is_right(call, g, (a, a_scales), (b, b_scales), d, SIZES)
        assert same(call.index, sizes[g : g + 1])
        assert same(call.c, d[g : g + 1])


def test_early_k_grouped_takes_ragged_k_too(calls) -> None:
    sizes = [256, 0, 144]
    a, b, d = flat(M, sizes), flat(N, sizes), torch.zeros(G, M, N)
    deep_gemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(a, b, d, batch_sizes=sizes)
    assert [call.grouping for call in calls] == ["k_grouped", "dense"]
    assert calls[0].index.tolist() == [256]
    for call, g in zip(calls, (0, 2), strict=True):
        assert is_right(call, g, a, b, d, sizes)
        assert same(call.c, call.d)


def test_k_grouped_of_bf16_is_one_launch(calls) -> None:
    total = sum(SIZES)
    a, b = torch.zeros(total, M, dtype=BF16), torch.zeros(total, N, dtype=BF16)
    d, sizes = torch.zeros(G, M, N), int32(*SIZES)
    deep_gemm.k_grouped_bf16_gemm_tn_contiguous(a, b, d, SIZES, sizes, d)
    (call,) = calls
    assert call.grouping == "k_grouped"
    assert gets(call, a.T, None, b.T, None)
    assert call.index is sizes
    assert call.c is call.d is d


def test_k_grouped_of_transposed_fp8_copies_and_says_so(calls) -> None:
    total = sum(SIZES)
    a, b = ((torch.rand(total, rows).to(E4M3), torch.rand(total // 128, rows)) for rows in (M, N))
    d, before = torch.zeros(G, M, N), gemmgen.stats()["conversions"]
    arguments = (a, b, d, SIZES, int32(*SIZES), d)
    deep_gemm.k_grouped_fp8_gemm_tn_contiguous(*arguments)
    (call,) = calls
    assert gemmgen.stats()["conversions"] == before + 2
    assert call.a.is_contiguous()
    assert torch.equal(call.a.view(torch.uint8), a[0].T.view(torch.uint8))
    assert torch.equal(call.scale_b, b[1].T)
    gemmgen.seal()
    try:
        with pytest.raises(StrictError, match="transposed"):
            deep_gemm.k_grouped_fp8_gemm_tn_contiguous(*arguments)
    finally:
        gemmgen.unseal()


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"recipe": (1, 1, 32)},
        {"recipe": (128, 128, 128)},
        {"recipe_a": (1, 128)},
        {"recipe": (1, 128, 128), "recipe_a": (1, 128), "recipe_b": (128, 128)},
    ],
    ids=str,
)
def test_a_recipe_of_other_gpus(calls, keys) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    with pytest.raises(UnsupportedError, match="recipe"):
        deep_gemm.fp8_gemm_nt(a, b, d, **keys)


def test_scales_of_another_recipe(calls) -> None:
    a, b, d = scaled(M, K), scaled(N, K, rows=128), torch.empty(M, N, dtype=BF16)
    with pytest.raises(TensorError, match=r"scales of b[\s\S]*\[384, 4\][\s\S]*\[3, 4\]"):
        deep_gemm.fp8_gemm_nt(a, b, d, recipe=(1, 1, 128))
    with pytest.raises(UnsupportedError, match="Blackwell"):
        deep_gemm.fp8_gemm_nt((a[0], a[1].int()), b, d)
    with pytest.raises(TensorError, match="a is no pair"):
        deep_gemm.fp8_gemm_nt(a[0], b, d)
    assert not calls


@pytest.mark.parametrize(
    ("sizes", "keys", "error"),
    [
        ([256, 0, 100], {}, TensorError),
        ([256, 128], {}, TensorError),
        ([256, -128, 256], {}, TensorError),
        ([256, 128, 128], {}, TensorError),  # more than the data hold
        (SIZES, {"use_psum_layout": True}, UnsupportedError),
        (None, {}, UnsupportedError),
        (SIZES, {"recipe": (1, 1, 32)}, UnsupportedError),
    ],
)
def test_wrong_groups_along_k(calls, sizes, keys, error) -> None:
    a, b, d = flat(M, SIZES), flat(N, SIZES), torch.zeros(G, M, N)
    with pytest.raises(error):
        deep_gemm.k_grouped_fp8_gemm_nt_contiguous(a, b, d, sizes, int32(1, 2, 3), d, **keys)
    assert not calls
