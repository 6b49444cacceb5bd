"""Dense kernels on a Hopper GPU: right, in bounds, repeatable, and safe to launch from anywhere."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from gpu.kernels import (
    DIVIDED,
    DYNAMIC,
    EDGE_KS,
    EDGE_MS,
    EDGE_NS,
    ELEMENT_TYPES,
    FEW_MS,
    PEER_SHAPES,
    STRUCTURE_K,
    STRUCTURE_MS,
    STRUCTURE_N,
    STRUCTURES,
    built,
    compiled,
    few,
    kernel,
    planned,
    structure,
    typed,
)
from gpu.problem import (
    LARGEST_ERROR,
    LARGEST_ERROR_F32,
    Problem,
    assert_repeatable,
    assert_right,
    cublaslt,
    known_problem,
    poisoned_output,
    random_problem,
)

from gemmgen import GemmKernel, LaunchError, TensorError, numerics
from gemmgen.dtypes import DTYPES
from gemmgen.runtime import identity, launcher

pytestmark = pytest.mark.gpu

EDGES = [(m, n, k) for k in EDGE_KS for n in EDGE_NS for m in EDGE_MS]
SPECS = {shape: planned(*shape) for shape in PEER_SHAPES}
SPECS |= {(m, n, k): compiled(n, k) for m, n, k in EDGES if m}
LEAST_EQUAL_BITS = 0.999


# --- Results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", PEER_SHAPES, ids=str)
def test_the_planners_choice(shape: tuple[int, int, int]) -> None:
    assert_right(kernel(SPECS[shape]), *known_problem(*shape))


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_ragged_sizes(shape: tuple[int, int, int]) -> None:
    """N and K compiled in, and at run time; both give the same bits."""
    _, n, k = shape
    known = known_problem(*shape)
    fixed, dynamic = (assert_right(kernel(item), *known) for item in (compiled(n, k), DYNAMIC))
    assert numerics.equal_bits(fixed, dynamic) == 1


@pytest.mark.parametrize("m", FEW_MS)
@pytest.mark.parametrize("k", EDGE_KS)
@pytest.mark.parametrize("n", EDGE_NS)
def test_ragged_sizes_of_few_rows(n: int, k: int, m: int) -> None:
    """K divided or not; a CTA, or a warpgroup, can be without any K tile."""
    assert_right(kernel(few(n, k)), *known_problem(m, n, k))


@pytest.mark.parametrize("m", STRUCTURE_MS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str, m: int) -> None:
    """None of them changes the order of a sum, so all give the same bits."""
    known = known_problem(STRUCTURES[name].get("m", m), STRUCTURE_N, STRUCTURE_K)
    result = assert_right(kernel(structure(name)), *known)
    assert numerics.equal_bits(result, assert_right(kernel(DYNAMIC), *known)) == 1


@pytest.mark.parametrize("m", STRUCTURE_MS)
@pytest.mark.parametrize("name", DIVIDED)
def test_divided_k(name: str, m: int) -> None:
    """The same bits on one multiprocessor, or cluster, as on all: tiles add up in one order."""
    problem, expected = known_problem(m, STRUCTURE_N, STRUCTURE_K)
    gemm = kernel(structure(name))
    result = assert_right(gemm, problem, expected)
    d = torch.full_like(result, torch.nan)
    for num_sms in (gemm.plan.cluster.size, 6):
        gemm(*problem.inputs, d, num_sms=num_sms)
        assert numerics.equal_bits(result, d) == 1


@pytest.mark.parametrize("types", ELEMENT_TYPES, ids=str)
@pytest.mark.parametrize("m", STRUCTURE_MS)
def test_element_types(types: tuple[str, str, str], m: int) -> None:
    a_type, b_type, d_type = types
    generator = torch.Generator("cuda").manual_seed(m)
    a = torch.randn(m, STRUCTURE_K, device="cuda", generator=generator)
    b = torch.randn(STRUCTURE_N, STRUCTURE_K, device="cuda", generator=generator)
    inputs = (
        *numerics.quantize(a, a_type, "1x128", layout="m_major"),
        *numerics.quantize(b, b_type, "128x128"),
    )
    d_torch = getattr(torch, DTYPES[d_type].torch)
    d = torch.full((m, STRUCTURE_N), torch.nan, dtype=d_torch, device="cuda")
    kernel(typed(*types))(*inputs, d)
    largest = LARGEST_ERROR_F32 if d_type == "f32" else LARGEST_ERROR
    assert numerics.relative_error(d, numerics.reference(*inputs)) <= largest


@pytest.mark.parametrize("shape", SPECS, ids=str)
def test_bits_of_cublaslt(shape: tuple[int, int, int]) -> None:
    problem, expected = known_problem(*shape)
    ours = assert_right(kernel(SPECS[shape]), problem, expected)
    try:
        theirs = cublaslt(problem)
        torch.cuda.synchronize()
    except (AttributeError, ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        pytest.skip(f"cuBLASLt: {str(error).splitlines()[0]}")
    if not numerics.relative_error(theirs, expected) <= LARGEST_ERROR:
        pytest.skip("cuBLASLt is wrong for this shape")
    equal = numerics.equal_bits(ours, theirs)
    assert equal >= LEAST_EQUAL_BITS, f"{equal:.6f} of the elements are equal"


def test_offsets_beyond_32_bits() -> None:
    """D has more than 2^31 elements; its last rows are compared."""
    m, n, k = 2**31 // 7168 + 1000, 7168, 128
    problem = random_problem(m, n, k)
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16, device="cuda")
    kernel(DYNAMIC)(*problem.inputs, d)
    for rows in (slice(0, 300), slice(m - 300, m)):
        a, scale_a, b, scale_b = problem.inputs
        expected = numerics.reference(a[rows], scale_a[rows], b, scale_b)
        assert numerics.relative_error(d[rows], expected) <= LARGEST_ERROR
    assert not d.isnan().any()


# --- What lies beside the tensors ---------------------------------------------------------------


def framed(tensor: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The same matrix in a frame of NaN: `rows` below and above, `columns` left and right."""
    m, n = tensor.shape
    frame = torch.full((m + 2 * rows, n + 2 * columns), torch.nan, device="cuda").to(tensor.dtype)
    inside = frame[rows : rows + m, columns : columns + n]
    return inside.copy_(tensor)


def surrounded(problem: Problem) -> Problem:
    """The same problem with NaN around every input, as close as its layout allows."""
    scale_a = numerics.to_m_major(problem.scale_a)
    m, k_blocks = scale_a.shape
    pitch = numerics.m_major_pitch(m)
    storage = torch.full((k_blocks + 2, pitch), torch.nan, device="cuda")
    fast = storage[1:-1].T[:m].copy_(scale_a)
    blocks = problem.scale_b.numel()
    line = torch.full((blocks + 512,), torch.nan, device="cuda")
    scale_b = line[256 : 256 + blocks].view_as(problem.scale_b).copy_(problem.scale_b)
    return Problem(framed(problem.a, 256, 128), fast, framed(problem.b, 256, 128), scale_b)


@pytest.mark.parametrize(
    "name",
    [
        *("192x128", "128x256", "128x176", "64x64", "64x64 cluster 2x1", "swapped 16x192"),
        *("swapped 32x64x4 split", "64x32x3 cluster 2x1"),
    ],
)
@pytest.mark.parametrize("m", [1, 65, 300])
def test_nan_beside_the_inputs_changes_nothing(name: str, m: int) -> None:
    gemm = kernel(structure(name))
    problem, expected = known_problem(m, STRUCTURE_N, STRUCTURE_K)
    alone = assert_right(gemm, problem, expected)
    beside = assert_right(gemm, surrounded(problem), expected)
    assert numerics.equal_bits(beside, alone) == 1


# --- Repetition ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        *((64, 2112, 7168), (129, 576, 144), (4096, 2112, 7168), (4097, 7168, 128)),
        *((1, 7168, 16384), (8, 2112, 7168), (16, 4096, 7168), (16, 24576, 1536)),
        *((64, 7168, 16384), (64, 4096, 7168), (128, 2112, 7168), (128, 4096, 7168)),
    ],
    ids=str,
)
def test_a_thousand_launches_give_the_same_bits(shape: tuple[int, int, int]) -> None:
    assert_repeatable(kernel(SPECS[shape]), *known_problem(*shape))


@pytest.mark.parametrize("m", [20, 300])
@pytest.mark.parametrize("name", DIVIDED)
def test_divided_k_gives_the_same_bits_a_thousand_times(name: str, m: int) -> None:
    """A tile a CTA, and several: then parts are handed over in memory that was used before."""
    assert_repeatable(kernel(structure(name)), *known_problem(m, STRUCTURE_N, STRUCTURE_K))


# --- Launches -----------------------------------------------------------------------------------


@pytest.fixture
def problem() -> Problem:
    return random_problem(300, STRUCTURE_N, STRUCTURE_K)


def launched(gemm: GemmKernel, problem: Problem, **keys) -> torch.Tensor:
    m, n, _ = problem.sizes
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16, device=problem.a.device)
    gemm(*problem.inputs, d, **keys)
    return d


def test_graph_replays_read_what_the_buffers_hold_then(problem: Problem) -> None:
    gemm = kernel(DYNAMIC)
    d = torch.full((300, STRUCTURE_N), torch.nan, dtype=torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gemm(*problem.inputs, d)
    for seed in (1, 2):
        fresh = random_problem(300, STRUCTURE_N, STRUCTURE_K, seed)
        for static, values in zip(problem.inputs, fresh.inputs, strict=True):
            static.copy_(values)
        d.fill_(torch.nan)
        graph.replay()
        assert numerics.equal_bits(d, launched(gemm, fresh)) == 1


def test_loading_within_a_capture_is_refused_and_leaves_it_whole(problem: Problem) -> None:
    fresh = GemmKernel(built(DYNAMIC))
    d = torch.zeros(300, STRUCTURE_N, dtype=torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        d.fill_(1)
        with pytest.raises(LaunchError, match="captured"):
            fresh(*problem.inputs, d)
    graph.replay()
    assert (d == 1).all()
    assert numerics.equal_bits(launched(fresh, problem), launched(kernel(DYNAMIC), problem)) == 1


def test_a_launch_goes_to_the_current_stream(problem: Problem) -> None:
    gemm, stream = kernel(DYNAMIC), torch.cuda.Stream()
    expected = launched(gemm, problem)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        d = launched(gemm, problem)
        result = d.clone()
    stream.synchronize()
    assert numerics.equal_bits(result, expected) == 1


def test_both_launchers_launch_the_same(problem: Problem) -> None:
    gemm = kernel(DYNAMIC)
    expected = launched(gemm, problem)
    if launcher.find().module is None:
        pytest.skip(launcher.find().why)
    d = torch.empty_like(expected)
    in_c: Any = gemm.bind(*problem.inputs, d)
    known = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert isinstance(identity.of((*problem.inputs, d)), bytes) == known
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        in_c()
    for launch in (in_c, in_c.python, graph.replay):
        d.fill_(torch.nan)
        launch()
        assert numerics.equal_bits(d, expected) == 1


def test_a_thread_that_never_touched_the_gpu(problem: Problem) -> None:
    gemm = kernel(DYNAMIC)
    expected = launched(gemm, problem)
    d = torch.full_like(expected, torch.nan)
    torch.cuda.synchronize()
    thread = threading.Thread(target=gemm, args=(*problem.inputs, d))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert numerics.equal_bits(d, expected) == 1


def test_another_gpu(problem: Problem) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs a second GPU")
    gemm = kernel(DYNAMIC)
    there = Problem(*(part.to("cuda:1") for part in problem.inputs[:1]), *problem.inputs[1:])
    with pytest.raises(TensorError, match="on the wrong device"):
        launched(gemm, there)
    there = Problem(*(part.to("cuda:1") for part in problem.inputs))
    result = launched(gemm, there)
    assert numerics.equal_bits(result.to("cuda:0"), launched(gemm, problem)) == 1


@pytest.mark.parametrize("name", ["128x128", "128x128 cluster 2x1"])
@pytest.mark.parametrize("num_sms", [2, 7, 100])
def test_fewer_multiprocessors_give_the_same_bits(problem: Problem, name, num_sms: int) -> None:
    gemm = kernel(structure(name))
    limited = launched(gemm, problem, num_sms=num_sms)
    assert numerics.equal_bits(limited, launched(gemm, problem)) == 1


# --- Refusals -----------------------------------------------------------------------------------

WRONG = {
    # name: (argument, change, words of the message)
    "on the CPU": (0, lambda t: t.cpu(), "a = a.cuda()"),
    "dtype": (0, lambda t: t.to(torch.bfloat16), "float8_e4m3fn"),
    "K-block contiguous scales": (1, lambda t: t.contiguous(), "numerics.to_m_major"),
    "unaligned": (0, lambda t: framed(t, 0, 8), "multiple of 16 bytes"),
    "transposed": (2, lambda t: t.T.contiguous().T, "b.contiguous()"),
    "short output": (4, lambda t: t[:299], "m is that of a"),
    "strided output": (4, lambda t: t.T.contiguous().T, "torch.empty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tensors_are_refused_before_anything_is_launched(problem: Problem, case: str) -> None:
    position, change, words = WRONG[case]
    _, d = poisoned_output(300, STRUCTURE_N)
    tensors = [*problem.inputs, d]
    tensors[position] = change(tensors[position])
    with pytest.raises(TensorError) as refusal:
        kernel(structure("128x128"))(*tensors)
    assert words in str(refusal.value)
    assert d.isnan().all()
