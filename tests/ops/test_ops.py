"""Operators: which kernel a call takes, what it is given, what is remembered, what is refused."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
import torch
from stand_in_gpus import on_gpu

import gemmgen
from gemmgen import LaunchError, SpecError, TensorError, numerics, ops, plan_set
from gemmgen.ops import dispatch
from gemmgen.ops.request import read_request
from gemmgen.target import H200

N, K, G = 256, 384, 3
E4M3 = torch.float8_e4m3fn


def placed(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    filled = {str(i): tensor for i, tensor in enumerate(tensors) if tensor is not None}
    pretending = dict(zip(filled, on_gpu(filled), strict=True))
    return [pretending.get(str(i)) for i in range(len(tensors))]


def dense(m: int, n: int = N, k: int = K, layout: str = "m_major") -> list[torch.Tensor]:
    """a, scale_a, b, scale_b."""
    scale_a = torch.ones(m, -(-k // 128))
    scale_a = numerics.to_m_major(scale_a) if layout == "m_major" else scale_a
    scale_b = torch.ones(-(-n // 128), -(-k // 128))
    return placed(torch.zeros(m, k).to(E4M3), scale_a, torch.zeros(n, k).to(E4M3), scale_b)


def grouped(*rows: int) -> list[torch.Tensor]:
    scale_a = numerics.to_m_major(torch.ones(*rows, 3))
    a, b = torch.zeros(*rows, K).to(E4M3), torch.zeros(G, N, K).to(E4M3)
    return placed(a, scale_a, b, torch.ones(G, 2, 3))


def int32(*numbers: int) -> torch.Tensor:
    (tensor,) = placed(torch.tensor(numbers, dtype=torch.int32))
    return tensor


# --- The kernel ---------------------------------------------------------------------------------


def test_a_call_plans_builds_loads_and_launches(gpus, compilers) -> None:
    a, scale_a, b, scale_b = dense(300)
    d = ops.gemm(a, scale_a, b, scale_b)
    assert (d.shape, d.dtype) == ((300, N), torch.bfloat16)
    assert len(gpus.launches) == 1
    (name,) = compilers.compiled
    assert [loaded[1] for loaded in gpus.loaded] == [name]
    encoded = [at for at, *_ in gpus.encoded]
    assert encoded == [t.data_ptr() for t in (a, b, scale_a, d)]


def test_an_output_is_written_in_place(gpus) -> None:
    inputs = dense(64)
    (d,) = placed(torch.zeros(64, N, dtype=torch.float16))
    assert ops.gemm(*inputs, out=d) is d
    assert "_f16_" in gpus.loaded[0][1]
    with pytest.raises(TensorError, match="another element type"):
        ops.gemm(*inputs, out=d, out_dtype=torch.bfloat16)


def test_the_kernel_is_one_of_the_plan_set(gpus, compilers) -> None:
    """What `warmup` builds for a range of M is what calls take, bit for bit the same request."""
    spec = gemmgen.GemmSpec(
        a={"dtype": "e4m3", "scale": "1x128"},
        b={"dtype": "e4m3", "scale": "128x128"},
        d={"dtype": "bf16"},
        n=N,
        k=K,
    )
    known = ops.warmup(spec, (1, 2000))
    assert known == list(plan_set(spec, (1, 2000)))
    assert len(gpus.loaded) == len(compilers.compiled) == len(known)
    gemmgen.seal()
    for m in (1, 17, 64, 65, 300, 1025, 2000):
        ops.gemm(*dense(m))
    assert len(gpus.loaded) == len(compilers.compiled) == len(known)


@pytest.mark.parametrize("keys", [{"tile": "64x64"}, {"n": "dynamic"}, {"m": 5}])
def test_a_warmup_that_no_call_would_profit_from_is_refused(gpus, keys) -> None:
    keys = {"n": N, "k": K, **keys}
    a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
    with pytest.raises(gemmgen.SpecError, match="operators"):
        ops.warmup(gemmgen.GemmSpec(a=a, b=b, d={"dtype": "bf16"}, **keys), (1, 100))


def test_num_sms_plans_and_limits_the_launch(gpus) -> None:
    inputs = dense(4000)
    ops.gemm(*inputs, num_sms=8)
    ops.set_num_sms(4)
    ops.gemm(*inputs)
    ops.gemm(*inputs, num_sms=16)
    ops.set_num_sms(None)
    ops.gemm(*inputs)
    ctas = [launch.config.ctas for launch in gpus.launches]
    assert ctas[:3] == [8, 4, 16]
    assert ctas[3] > 16
    assert ops.get_num_sms() is None
    with pytest.raises(LaunchError, match="1 or more"):
        ops.set_num_sms(0)


def test_programmatic_dependent_launch_is_another_kernel(gpus) -> None:
    inputs = dense(64)
    (d,) = placed(torch.zeros(64, N, dtype=torch.bfloat16))
    for pdl in (False, True, True, False):
        ops.set_pdl(pdl)
        assert ops.get_pdl() is pdl
        ops.gemm(*inputs, out=d)
        assert ops.explain(*inputs, out=d).plan.launch.programmatic is pdl
    early = [hasattr(launch.config, "programmatic") for launch in gpus.launches]
    assert early == [False, True, True, False]
    assert len(gpus.loaded) == 2


@pytest.mark.parametrize("told", ["group_ids", "group_ends", "rows_per_group", "batched"])
def test_groups(gpus, told: str) -> None:
    m = 384
    if told == "group_ids":
        d = ops.grouped_gemm_contiguous(*grouped(m), int32(*[0] * m))
    elif told == "group_ends":
        d = ops.grouped_gemm_contiguous(*grouped(m), group_ends=int32(1, 2, 3))
    elif told == "rows_per_group":
        d = ops.grouped_gemm_masked(*grouped(G, m), int32(1, 2, 3), 100)
    else:
        d = ops.batched_gemm(*grouped(G, m))
    assert d.shape == ((m, N) if "group_" in told[:6] else (G, m, N))
    mode = {"group_ids": "contiguous", "group_ends": "contiguous_ends", "batched": "batched"}
    assert gpus.loaded[0][1].startswith(f"gemm_{mode.get(told, 'masked')}{G}_")
    assert len(gpus.launches) == 1


def test_expected_rows_of_one_bucket_share_a_kernel_and_a_launch(gpus) -> None:
    inputs, counts = grouped(G, 384), int32(1, 2, 3)
    (d,) = placed(torch.zeros(G, 384, N, dtype=torch.bfloat16))
    encoded = set()
    for expected in (100, 128, 65):
        ops.grouped_gemm_masked(*inputs, counts, expected, out=d)
        encoded.add(len(gpus.encoded))
    assert len(gpus.loaded) == len(encoded) == 1


# --- What is remembered -------------------------------------------------------------------------


def test_a_known_call_only_launches(gpus, monkeypatch) -> None:
    inputs = dense(64)
    (d,) = placed(torch.zeros(64, N, dtype=torch.bfloat16))
    ops.gemm(*inputs, out=d)
    encoded = list(gpus.encoded)
    monkeypatch.setattr(dispatch, "_prepare", None)
    for _ in range(3):
        ops.gemm(*inputs, out=d)
    assert len(gpus.launches) == 4
    assert gpus.encoded == encoded


def test_tensor_maps_of_weights_are_kept_while_activations_move(gpus) -> None:
    a, scale_a, b, scale_b = dense(64)
    ops.gemm(a, scale_a, b, scale_b)
    before = [at for at, *_ in gpus.encoded]
    assert b.data_ptr() in before
    other, scale_other, *_ = dense(60)
    ops.gemm(other, scale_other, b, scale_b)
    after = [at for at, *_ in gpus.encoded[len(before) :]]
    assert other.data_ptr() in after  # its scales are read through a pointer
    assert b.data_ptr() not in after
    assert len(after) == len(before) - 1


def test_remembered_launches_are_bounded(gpus, monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "REMEMBERED_LAUNCHES", 4)
    for m in range(1, 12):
        ops.gemm(*dense(m))
        assert len(dispatch._launches) <= 4


def test_threads_that_ask_at_once_share_one_build(gpus, compilers) -> None:
    threads = [threading.Thread(target=lambda: ops.gemm(*dense(64))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compilers.compiled) == len(gpus.loaded) == 1
    assert len(gpus.launches) == 8


def test_a_forked_child_starts_anew(gpus) -> None:
    ops.gemm(*dense(64))
    assert dispatch._kernels
    lock = dispatch._locks.setdefault("held while forking", threading.Lock())
    with lock:
        child = os.fork()
        if child == 0:
            clean = not (dispatch._kernels or dispatch._launches or dispatch._locks)
            os._exit(0 if clean else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert dispatch._kernels


def test_two_gpus(gpus) -> None:
    for gpu in (0, 1):
        tensors = dense(64)
        for tensor in tensors:
            tensor.gpu = gpu
        (d,) = placed(torch.zeros(64, N, dtype=torch.bfloat16))
        d.gpu = gpu
        ops.gemm(*tensors, out=d)
    assert [launch.function for launch in gpus.launches] == [
        "function in context 0",
        "function in context 1",
    ]


# --- Layouts ------------------------------------------------------------------------------------


def test_scales_as_torch_puts_them_are_copied_and_counted(gpus, monkeypatch) -> None:
    def to_m_major(scale: torch.Tensor) -> torch.Tensor:
        return placed(numerics.to_m_major(scale.as_subclass(torch.Tensor)))[0]

    monkeypatch.setattr(dispatch, "to_m_major", to_m_major)
    inputs = dense(64, layout="contiguous")
    (d,) = placed(torch.zeros(64, N, dtype=torch.bfloat16))
    before = gemmgen.stats()["conversions"]
    for _ in range(3):
        ops.gemm(*inputs, out=d)
    assert gemmgen.stats()["conversions"] - before == 3
    assert inputs[1].data_ptr() not in [at for at, *_ in gpus.encoded]
    assert len(gpus.launches) == 3


def test_strict_mode_names_the_call_and_mends_it(gpus) -> None:
    ops.gemm(*dense(64))
    gemmgen.seal()
    with pytest.raises(gemmgen.StrictError, match=r"scale_a[\s\S]*\[64, 384\][\s\S]*to_m_major"):
        ops.gemm(*dense(64, layout="contiguous"))
    with pytest.raises(gemmgen.StrictError, match=r"compiled[\s\S]*ops\.gemm\(.*\[64, 512\]"):
        ops.gemm(*dense(64, k=512))
    ops.gemm(*dense(64))


# --- What is refused ----------------------------------------------------------------------------


def test_a_first_call_within_a_capture_is_refused_before_it_compiles(gpus, compilers) -> None:
    gpus.capturing = True
    with pytest.raises(LaunchError, match=r"captured[\s\S]*ops\.warmup"):
        ops.gemm(*dense(64))
    assert compilers.compiled == []
    gpus.capturing = False
    ops.gemm(*dense(64))
    gpus.capturing = True
    ops.gemm(*dense(63))
    assert len(gpus.launches) == 2


def test_after_a_refused_call_the_right_one_works(gpus) -> None:
    a, scale_a, b, scale_b = dense(64)
    with pytest.raises(TensorError, match="no scale granularity"):
        ops.gemm(a, placed(torch.ones(64, 9))[0], b, scale_b)
    with pytest.raises(TensorError, match="d has the wrong shape"):
        ops.gemm(a, scale_a, b, scale_b, out=placed(torch.zeros(63, N).bfloat16())[0])
    with pytest.raises(TensorError, match="do not fit together"):
        ops.gemm(a, scale_a, b[:, :128], scale_b)
    with pytest.raises(SpecError, match="wgmma does not multiply"):
        ops.gemm(placed(torch.zeros(64, K).bfloat16())[0], None, b, scale_b)
    with pytest.raises(TensorError, match="a is no matrix"):
        ops.gemm(None, scale_a, b, scale_b)
    with pytest.raises(TensorError, match="one way"):
        ops.grouped_gemm_contiguous(*grouped(384))
    with pytest.raises(TensorError, match="no rows"):
        ops.grouped_gemm_masked(*grouped(G, 384), int32(1, 2, 3), 0)
    assert gpus.launches == []
    ops.gemm(a, scale_a, b, scale_b)
    assert len(gpus.launches) == 1


def test_tensors_of_the_host_are_refused(gpus) -> None:
    inputs = [tensor.as_subclass(torch.Tensor) for tensor in dense(64)]
    with pytest.raises(TensorError, match=r"wrong device[\s\S]*a\.cuda\(\)"):
        ops.gemm(*inputs)


def test_no_rows_launch_nothing(gpus, compilers) -> None:
    assert ops.gemm(*dense(0)).shape == (0, N)
    assert gpus.launches == compilers.compiled == []


# --- Explanations -------------------------------------------------------------------------------


def meta(*shape: int, dtype: torch.dtype = E4M3) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_an_explanation_needs_no_gpu() -> None:
    f32 = torch.float32
    tensors = (meta(64, 7168), meta(64, 56, dtype=f32), meta(2112, 7168), meta(17, 56, dtype=f32))
    told = ops.explain(*tensors)
    assert (told.expected_rows, told.sms, told.loaded) == (64, 132, False)
    assert told.conversions == ("scale_a",)
    assert "few rows" in str(told)
    assert "copied" in str(told)
    limited = ops.explain(meta(4096, 7168), meta(4096, 56, dtype=f32), *tensors[2:], num_sms=66)
    assert limited.sms == 66
    named = dict(zip(("a", "scale_a", "b", "scale_b"), tensors, strict=True))
    spec = read_request("dense", named, torch.bfloat16, None).spec()
    at_66 = plan_set(spec, (4096, 4096), replace(H200, sms=66))
    assert limited.plan in at_66.plans


def test_an_explanation_of_a_loaded_kernel(gpus) -> None:
    inputs = grouped(G, 384)
    counts = int32(1, 2, 3)
    assert not ops.explain(*inputs, rows_per_group=counts, expected_rows=100).loaded
    ops.grouped_gemm_masked(*inputs, counts, 100)
    told = ops.explain(*inputs, rows_per_group=counts, expected_rows=100)
    assert told.loaded
    assert told.plan.name == gpus.loaded[0][1]
    assert told.conversions == ()
