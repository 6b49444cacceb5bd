"""Operators on a Hopper GPU: right, captured, compiled, bound, strict; whose a fault is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from gpu.kernels import CHAIN, GROUPED, MLP, OPS_MS, STRUCTURE_K, STRUCTURE_N, spec, use_bundle
from gpu.problem import LARGEST_ERROR, known_problem, random_problem
from gpu.test_grouped import INDICES, MARK, M, marked, operands, poison_nobodys_rows
from gpu.test_grouped import assert_right as assert_groups_right

import gemmgen
from gemmgen import LaunchError, StrictError, TensorError, numerics, ops, plan_set
from gemmgen.build import build_plan
from gemmgen.export import write_library
from gemmgen.ops import dispatch

pytestmark = pytest.mark.gpu
use_bundle()


@pytest.fixture(autouse=True)
def _as_before():
    yield
    gemmgen.unseal()
    ops.set_num_sms(None)
    ops.set_pdl(False)


# --- Results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", OPS_MS)
def test_a_product(m: int) -> None:
    problem, expected = known_problem(m, STRUCTURE_N, STRUCTURE_K)
    d = ops.gemm(*problem.inputs)
    rounding = 1.01 * numerics.relative_error(expected.bfloat16(), expected)
    assert numerics.relative_error(d, expected) <= max(LARGEST_ERROR, rounding)
    out = torch.full_like(d, torch.nan)
    assert ops.gemm(*problem.inputs, out=out) is out
    assert numerics.equal_bits(out, d) == 1.0
    assert numerics.equal_bits(torch.ops.gemmgen.gemm(*problem.inputs), d) == 1.0


def test_half_precision_output() -> None:
    problem, expected = known_problem(300, STRUCTURE_N, STRUCTURE_K)
    d = ops.gemm(*problem.inputs, out_dtype=torch.float16)
    assert d.dtype is torch.float16
    assert numerics.relative_error(d, expected) <= LARGEST_ERROR


def test_scales_as_torch_puts_them_give_the_same_bits() -> None:
    a, scale_a, b, scale_b = random_problem(300, STRUCTURE_N, STRUCTURE_K).inputs
    d, before = ops.gemm(a, scale_a, b, scale_b), gemmgen.stats()["conversions"]
    for _ in range(3):
        assert numerics.equal_bits(ops.gemm(a, scale_a.contiguous(), b, scale_b), d) == 1.0
    assert gemmgen.stats()["conversions"] - before == 3


def call(grouping: str, inputs: list[torch.Tensor], **keys) -> torch.Tensor:
    if grouping == "batched":
        return ops.batched_gemm(*inputs, **keys)
    if grouping == "masked":
        return ops.grouped_gemm_masked(*inputs, M, **keys)
    if grouping == "contiguous":
        return ops.grouped_gemm_contiguous(*inputs, **keys)
    return ops.grouped_gemm_contiguous(*inputs[:4], group_ends=inputs[4], **keys)


@pytest.mark.parametrize("grouping", GROUPED)
def test_groups(grouping: str) -> None:
    for index in INDICES[grouping]:
        inputs = operands(grouping, index)
        expected = marked(numerics.grouped_reference(grouping, *inputs))
        poison_nobodys_rows(inputs, expected)
        d = torch.full(expected.shape, MARK, dtype=torch.bfloat16, device="cuda")
        call(grouping, inputs, out=d)
        assert_groups_right(d, expected)


def test_slices_of_k_added_in_place() -> None:
    generator = torch.Generator("cuda").manual_seed(5)
    a, b = torch.randn(2, CHAIN, 384, device="cuda", generator=generator)
    a8, scale_a = numerics.quantize(a, "e4m3", "1x128", layout="m_major")
    b8, scale_b = numerics.quantize(b, "e4m3", "1x128", layout="m_major")
    sizes = torch.tensor([128, 0, 256], dtype=torch.int32, device="cuda")
    d = torch.randn(3, CHAIN, CHAIN, device="cuda", generator=generator)
    operands = (a8, scale_a, b8, scale_b, sizes)
    expected = d + numerics.grouped_reference("k_grouped", *operands, "1x128", "1x128")
    assert ops.k_grouped_gemm(*operands, c=d, out=d) is d
    assert numerics.relative_error(d, expected) <= LARGEST_ERROR


def test_fewer_multiprocessors_give_the_same_bits() -> None:
    problem = random_problem(2000, STRUCTURE_N, STRUCTURE_K)
    d = ops.gemm(*problem.inputs)
    assert ops.explain(*problem.inputs, num_sms=66).sms == 66
    assert numerics.equal_bits(ops.gemm(*problem.inputs, num_sms=66), d) == 1.0
    ops.set_num_sms(66)
    assert numerics.equal_bits(ops.gemm(*problem.inputs), d) == 1.0


# --- CUDA graphs --------------------------------------------------------------------------------


def test_a_graph_of_masked_groups_replayed_with_a_hundred_count_vectors() -> None:
    inputs = operands("masked", INDICES["masked"][0])
    d = torch.full((*inputs[0].shape[:-1], inputs[2].shape[1]), MARK, device="cuda").bfloat16()
    ops.grouped_gemm_masked(*inputs, 160, out=d)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.grouped_gemm_masked(*inputs, 160, out=d)
    random = torch.Generator().manual_seed(1)
    for _ in range(100):
        inputs[4].copy_(torch.randint(0, M + 1, (4,), generator=random, dtype=torch.int32))
        d.fill_(MARK)
        graph.replay()
        assert_groups_right(d, marked(numerics.grouped_reference("masked", *inputs)))


def test_a_first_call_in_a_capture_needs_a_warmup() -> None:
    problem = random_problem(64, 128, 256)
    dispatch.forget()
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(LaunchError, match=r"captured[\s\S]*ops\.warmup"),
        torch.cuda.graph(graph),
    ):
        ops.gemm(*problem.inputs)
    torch.cuda.synchronize()
    ops.warmup(spec(n=128, k=256), (1, 300))
    gemmgen.seal()
    loads = gemmgen.stats()["loads"]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        d = ops.gemm(*problem.inputs)
    d.fill_(torch.nan)
    graph.replay()
    assert numerics.equal_bits(d, ops.gemm(*problem.inputs)) == 1.0
    assert gemmgen.stats()["loads"] == loads


def test_a_kernel_is_loaded_while_another_thread_captures() -> None:
    """In global mode, a capture forbids loading to every thread that does not insist."""
    problem, other = random_problem(64, 256, 256), random_problem(64, 384, 256)
    d = ops.gemm(*problem.inputs)
    e = torch.empty(64, 384, dtype=torch.bfloat16, device="cuda")
    plan = ops.explain(*other.inputs).plan
    dispatch._kernels.pop((plan.name, plan.spec), None)
    failures, stream = [], torch.cuda.Stream()
    torch.cuda.synchronize()

    def load() -> None:
        try:
            with torch.cuda.stream(stream):
                ops.gemm(*other.inputs, out=e)
        except Exception as error:
            failures.append(error)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="global"):
        ops.gemm(*problem.inputs, out=d)
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    assert not failures
    d.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert numerics.equal_bits(d, ops.gemm(*problem.inputs)) == 1.0
    assert numerics.equal_bits(e, ops.gemm(*other.inputs)) == 1.0


# --- torch.compile ------------------------------------------------------------------------------


class Mlp(torch.nn.Module):
    """Two layers in FP8 with a quantisation between them."""

    def __init__(self) -> None:
        super().__init__()
        _, width, between = MLP
        for name, (n, k) in {"up": (between, width), "down": (width, between)}.items():
            w = torch.randn(n, k, generator=torch.Generator().manual_seed(n)) / k**0.5
            w8, scale = numerics.quantize(w, "e4m3", "128x128")
            self.register_buffer(name, w8)
            self.register_buffer(f"{name}_scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a8 = numerics.quantize(x, "e4m3", "1x128", kernels="torch")
        hidden = torch.nn.functional.silu(ops.gemm(*a8, self.up, self.up_scale))
        out = torch.empty_like(x)
        a8 = numerics.quantize(hidden, "e4m3", "1x128", kernels="torch")
        return ops.gemm(*a8, self.down, self.down_scale, out=out)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@torch.no_grad()
def test_a_compiled_model_is_equal_to_eager(backend: str) -> None:
    mlp = Mlp().cuda()
    x = torch.randn(*MLP[:2], generator=torch.Generator().manual_seed(1)).cuda().bfloat16()
    expected = mlp(x)
    torch.compiler.reset()
    compiled = torch.compile(mlp, fullgraph=True, backend=backend)
    for _ in range(2):
        result = compiled(x)
    if backend == "aot_eager":
        assert numerics.equal_bits(result, expected) == 1.0
    else:  # silu in one kernel rounds otherwise, and a code of FP8 is a step of 6 %
        assert numerics.relative_error(result, expected) < 3e-2


def test_torch_finds_nothing_wrong() -> None:
    inputs = random_problem(64, 128, 256).inputs
    checks = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    out = torch.zeros(64, 128, dtype=torch.bfloat16, device="cuda")
    torch.library.opcheck(torch.ops.gemmgen.gemm.default, inputs, {}, test_utils=checks)
    torch.library.opcheck(torch.ops.gemmgen.gemm.out, inputs, {"out": out}, test_utils=checks)


# --- Launches -----------------------------------------------------------------------------------


def test_a_bound_launch_reads_what_its_tensors_hold_now() -> None:
    inputs = [
        t.clone(memory_format=torch.preserve_format) for t in random_problem(64, 128, 256).inputs
    ]
    d = ops.gemm(*inputs)
    out = torch.empty_like(d)
    launch = dispatch.loaded_kernel(ops.explain(*inputs).plan).bind(*inputs, out)
    for _ in range(3):
        out.fill_(torch.nan)
        launch()
        assert numerics.equal_bits(out, ops.gemm(*inputs)) == 1.0
        inputs[3].mul_(2)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        launch()
    stream.synchronize()
    assert numerics.equal_bits(out, ops.gemm(*inputs)) == 1.0


def test_threads_with_streams_of_their_own() -> None:
    problem = random_problem(64, 128, 256)
    expected, wrong = ops.gemm(*problem.inputs), []
    torch.cuda.synchronize()

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(200):
                d = ops.gemm(*problem.inputs)
            torch.cuda.current_stream().synchronize()
            if numerics.equal_bits(d, expected) < 1.0:
                wrong.append(d)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus() -> None:
    problem = random_problem(64, 128, 256)
    expected = ops.gemm(*problem.inputs)
    inputs = [
        torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda:1").copy_(t)
        for t in problem.inputs
    ]
    d = ops.gemm(*inputs)
    torch.cuda.synchronize("cuda:1")
    assert d.device.index == 1
    assert numerics.equal_bits(d.to(expected.device), expected) == 1.0
    with pytest.raises(TensorError, match="wrong device"):
        ops.gemm(problem.a, problem.scale_a, *inputs[2:])


def chain(x: torch.Tensor, b: torch.Tensor, links: int = 40) -> torch.Tensor:
    """Each product reads what the one before has written."""
    for _ in range(links):
        x = ops.gemm(x, None, b, None)
    return x


def test_kernels_that_start_early_see_what_those_before_wrote() -> None:
    generator = torch.Generator("cuda").manual_seed(3)
    x, b = torch.randn(2, CHAIN, CHAIN, device="cuda", generator=generator)
    x, b = x.bfloat16(), (b / CHAIN**0.5).bfloat16()
    expected = chain(x, b)
    assert expected.abs().max() > 0
    ops.set_pdl(True)
    for _ in range(50):
        assert numerics.equal_bits(chain(x, b), expected) == 1.0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = chain(x, b)
    for _ in range(50):
        result.fill_(torch.nan)
        graph.replay()
        assert numerics.equal_bits(result, expected) == 1.0


def test_kernels_that_start_early_see_the_counts_of_the_kernel_before() -> None:
    inputs = operands("masked", INDICES["masked"][0])
    wanted = inputs[4].clone()
    expected = marked(numerics.grouped_reference("masked", *inputs))
    d = torch.empty(expected.shape, dtype=torch.bfloat16, device="cuda")
    ops.set_pdl(True)
    for _ in range(50):
        d.fill_(MARK)
        inputs[4].zero_()
        inputs[4].copy_(wanted)
        ops.grouped_gemm_masked(*inputs, 160, out=d)
        assert_groups_right(d, expected)


# --- What is refused ----------------------------------------------------------------------------


def test_strict_mode() -> None:
    a, scale_a, b, scale_b = random_problem(64, 128, 256).inputs
    expected = ops.gemm(a, scale_a, b, scale_b)
    gemmgen.seal()
    with pytest.raises(StrictError, match=r"scale_a[\s\S]*ops\.gemm"):
        ops.gemm(a, scale_a.contiguous(), b, scale_b)
    with pytest.raises((StrictError, gemmgen.CompilerNotFoundError)):
        ops.gemm(*random_problem(64, 1000, 256).inputs)
    assert numerics.equal_bits(ops.gemm(a, scale_a, b, scale_b), expected) == 1.0


def test_after_a_refused_call_the_right_one_works() -> None:
    a, scale_a, b, scale_b = random_problem(64, 128, 256).inputs
    expected = ops.gemm(a, scale_a, b, scale_b)
    for wrong in (
        {"out": torch.empty(63, 128, dtype=torch.bfloat16, device="cuda")},
        {"out": torch.empty(64, 128, dtype=torch.bfloat16)},
        {"num_sms": 0},
    ):
        with pytest.raises(LaunchError):
            ops.gemm(a, scale_a, b, scale_b, **wrong)
    with pytest.raises(TensorError, match="wrong device"):
        ops.gemm(a.cpu(), scale_a, b, scale_b)
    assert numerics.equal_bits(ops.gemm(a, scale_a, b, scale_b), expected) == 1.0


FAULT = """
import torch
from gpu.kernels import use_bundle
from gpu.problem import random_problem
from gemmgen import LaunchError, ops

use_bundle()
inputs = random_problem(64, 128, 256).inputs
ops.gemm(*inputs)
torch.cuda.synchronize()
table = torch.zeros(4, device="cuda")
table[torch.full((32,), 2**40, device="cuda")]  # an assertion of torch's own kernel fails
try:
    torch.cuda.synchronize()
except Exception:
    pass
try:
    ops.gemm(*inputs)
except LaunchError as error:
    print(error)
"""


FORK = """
import os
import torch
from gpu.kernels import use_bundle
from gpu.problem import random_problem
from gemmgen import ops

use_bundle()
assert not torch.cuda.is_initialized()
child = os.fork()
d = ops.gemm(*random_problem(64, 128, 256).inputs)
torch.cuda.synchronize()
if child == 0:
    os._exit(int(d.isnan().any()))
assert os.waitpid(child, 0)[1] == 0
print("both")
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A process that imports what the tests do."""
    tests = str(Path(__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {tests!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_fault_of_another_kernel_is_told_as_such() -> None:
    done = python(FAULT)
    said = "a kernel that was enqueued earlier failed; this one was not launched"
    assert said in done.stdout, done.stderr


def test_a_process_may_fork_before_its_first_call() -> None:
    done = python(FORK)
    assert "both" in done.stdout, done.stderr


# --- C ------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_example_of_an_exported_library_runs(tmp_path: Path) -> None:
    plans = [
        *plan_set(spec(n=128, k=256), (1, 300)),
        *plan_set(spec(n=584, k=912, grouping="masked", groups=4), (160, 160)),
    ]
    write_library([build_plan(plan).artifact for plan in plans], tmp_path / "lib")
    sources = [str(tmp_path / "lib" / name) for name in ("lib.c", "cubins.c", "example.c")]
    example = str(tmp_path / "example")
    subprocess.run(["cc", "-std=c11", *sources, "-o", example, "-ldl", "-lm"], check=True)
    done = subprocess.run([example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loaded") == len(plans)
    assert done.stdout.count("largest relative error") == len(plans) - 1
