"""C libraries: compiled here, linked to a stand-in of the driver, told the same as by `runtime`."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cuda.bindings import driver as cuda
from stand_ins import spec

from gemmgen import OutputError, SpecError, lower
from gemmgen.dtypes import DTYPES
from gemmgen.export import write_library
from gemmgen.grouping import GROUPINGS
from gemmgen.runtime.arguments import Arguments
from gemmgen.runtime.call import balance_ctas, count_clusters, count_ctas, param_values
from gemmgen.runtime.layout import TensorView
from gemmgen.runtime.tensor_map import TensorMapArgs

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
HERE = Path(__file__).parent
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")

N, K, G = 264, 272, 3
PLANS = [
    lower(spec(n=N, k=K, tile="64x64")),
    lower(spec(n="dynamic", k="dynamic", tile="128x128", cluster="2x1")),
    lower(spec(m=70, n=N, k=K, tile="64x64", cluster="1x2")),
    lower(
        spec(n=N, k=K, a={"dtype": "e4m3", "scale": "row"}, b={"dtype": "e4m3", "scale": "tensor"})
    ),
    lower(spec(n=N, k=K, a={"dtype": "bf16"}, b={"dtype": "bf16"}, layout="tn")),
    lower(spec(n=N, k=K, accumulate=True, tile="64x64")),
    lower(spec(n=N, k=K, pdl=True, tile="64x64")),
    lower(spec(n=N, k=K, pdl=True, tile="64x64", cluster="2x1")),
    lower(spec(n=N, k=K, schedule="a_stationary", tile="64x64")),
    lower(spec(n=N, k=K, tile="16x64")),
    lower(spec(n=N, k=K, tile="16x64", warpgroups="1x1x2", split_k=2)),
    *(
        lower(
            spec(
                n=N,
                k="dynamic" if row.sliced else K,
                groups=G,
                grouping=row.name,
                tile="64x64",
            )
        )
        for row in GROUPINGS.values()
        if row.scheduler and row.name != "dense"
    ),
]

LETTERS = {"tensor_map": "m", "pointer": "p", "scalar": "s", "pitch": "w"}

# What a process does with the library: one launch a case, each with its tensors.
LAUNCH = """
import ctypes, json, sys

class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("shape", ctypes.c_int64 * 3),
                ("stride", ctypes.c_int64 * 3)]

library = ctypes.CDLL(sys.argv[1])
library.gemmgen_error.restype = ctypes.c_char_p
name, cases = json.loads(sys.argv[2])
kernel = ctypes.c_void_p()
if library.gemmgen_load(name.encode(), ctypes.byref(kernel)):
    sys.exit(library.gemmgen_error().decode())
for views, num_sms in cases:
    tensors = (Tensor * len(views))(*[
        Tensor(at, (ctypes.c_int64 * 3)(*shape), (ctypes.c_int64 * 3)(*strides))
        for at, shape, strides in views])
    failed = library.gemmgen_launch(kernel, tensors, len(views), num_sms, ctypes.c_void_p(77))
    ctypes.CDLL(None).fflush(None)
    print("refused " + library.gemmgen_error().decode() if failed else "done", flush=True)
sys.exit(library.gemmgen_unload(kernel))
"""


def artifact_of(plan) -> SimpleNamespace:
    return SimpleNamespace(plan=plan, name=plan.name, cubin=b"cubin of " + plan.name.encode())


def compile_c(*arguments: object) -> None:
    command = ["cc", *STRICT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "our-kernels"
    write_library([artifact_of(plan) for plan in PLANS], folder)
    shared = folder / "lib.so"
    sources = (folder / "our_kernels.c", folder / "cubins.c")
    compile_c("-shared", "-fPIC", *sources, "-o", shared, "-ldl")
    compile_c("-shared", "-fPIC", HERE / "export_driver.c", "-o", folder / "libcuda.so.1")
    return shared


def run(library: Path, plan, cases, **environment: str) -> subprocess.CompletedProcess[str]:
    kinds = "".join(LETTERS[param.kind] for param in plan.params)
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, str(library), json.dumps([plan.name, cases])],
        env={**os.environ, "LD_LIBRARY_PATH": str(library.parent), "PARAMS": kinds, **environment},
        capture_output=True,
        text=True,
    )


def views_of(plan, m: int, n: int = N, k: int = K) -> list[TensorView]:
    """Tensors in the kernel's layouts, megabytes apart."""
    sizes = {"m": plan.problem.m or m, "n": n, "k": k, "g": G}
    views, at = [], 1 << 30
    for argument in plan.arguments:
        shape = tuple(extent.size(sizes) for extent in argument.shape)
        *leading, rows, columns = (1, *shape) if len(shape) == 1 else shape
        if argument.layout == "m_major":
            pitch = rows + -rows % 4
            strides = (*[pitch * columns for _ in leading], 1, pitch)
        else:
            pitch = columns + -columns % 16 if argument.layout == "row_major" else columns
            strides = (*[rows * pitch for _ in leading], pitch, 1)[-len(shape) :]
        views.append(TensorView(at, shape, strides))
        at += 1 << 24
    return views


def expected_lines(plan, views, num_sms: int) -> list[str]:
    """What `runtime` tells the driver."""
    sizes = Arguments(plan).check(views)
    clusters = count_clusters(plan, sizes["m"], sizes["n"])
    if not clusters:
        return []
    resident = 132 if plan.launch.cluster == 1 else 60
    ctas = count_ctas(clusters, plan.launch.cluster, resident, num_sms or None)
    ctas = balance_ctas(plan, sizes["m"], clusters, ctas)
    lines, params = [], []
    for param, value in zip(plan.params, param_values(plan, sizes, views), strict=True):
        if not isinstance(value, TensorMapArgs):
            params.append(f"{LETTERS[param.kind]}{value}")
            continue
        params.append(f"m{len(lines)}")
        kind = getattr(
            cuda.CUtensorMapDataType,
            f"CU_TENSOR_MAP_DATA_TYPE_{DTYPES[value.dtype].tensor_map}",
        )
        words = "NONE" if not value.swizzle.span else f"{value.swizzle.span}B"
        swizzle = getattr(cuda.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{words}")
        words = "NONE" if not value.l2_promotion else f"L2_{value.l2_promotion}B"
        promotion = getattr(cuda.CUtensorMapL2promotion, f"CU_TENSOR_MAP_L2_PROMOTION_{words}")
        extents = [
            number
            for dim, box in zip(value.dims, value.box, strict=True)
            for number in (dim, box, 1)
        ]
        numbers = (len(lines), int(kind), value.address, 0, int(swizzle), int(promotion), 0)
        lines.append(f"map {' '.join(map(str, (*numbers, *extents, *value.strides)))}")
    geometry = plan.launch
    grid = (ctas, 1, 1, geometry.threads, 1, 1, geometry.shared_bytes, 77)
    attributes = f" 4={geometry.cluster}" if geometry.cluster > 1 else ""
    attributes += " 6=1" if geometry.programmatic else ""
    return [*lines, f"launch {' '.join(map(str, grid))}{attributes} {' '.join(params)}"]


@needs_cc
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name[:30])
def test_the_driver_is_told_the_same_as_from_python(library: Path, plan) -> None:
    cases = [
        (views_of(plan, m), num_sms)
        # The last but one in 40 CTAs for most: as few as take as many waves.
        for m, num_sms in ((128, 0), (1, 0), (1000, 6), (640, 41), (5000, 41), (0, 0))
    ]
    done = run(library, plan, cases)
    assert done.returncode == 0, done.stderr
    loaded = ["load cubin of g", f"function {plan.name}", f"attribute 8 {plan.launch.shared_bytes}"]
    told = [line for case in cases for line in (*expected_lines(plan, *case), "done")]
    assert done.stdout.splitlines() == [*loaded, *told]


@needs_cc
def test_what_python_refuses_is_refused(library: Path) -> None:
    plan = PLANS[1]
    good = views_of(plan, 70)
    cases = [(good, 0)]

    def change(position: int, **parts: object) -> None:
        changed = good[position]._replace(**parts)
        cases.append(([*good[:position], changed, *good[position + 1 :]], 0))

    change(0, pointer=good[0].pointer + 8)
    change(0, shape=(70, K + 1))
    change(0, shape=(70, 0))
    change(0, strides=(K + 8, 1))
    change(0, strides=(K + 16, 1))
    change(0, strides=(1, K))
    change(1, strides=(3, 1))
    change(1, strides=(1, 70))
    change(1, shape=(71, 3))
    change(3, strides=(4, 1))
    change(3, pointer=good[3].pointer + 4)
    change(3, pointer=good[3].pointer + 2)
    change(4, pointer=good[0].pointer + 16)
    change(4, strides=(N + 8, 1))
    change(4, strides=(N - 8, 1))
    change(4, shape=(2**31, N))
    arguments, refused = Arguments(plan), []
    for views, _ in cases:
        try:
            arguments.check(views)
            refused.append(False)
        except Exception:
            refused.append(True)
    done = run(library, plan, cases)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("done", "refused"))]
    assert [line.startswith("refused ") for line in lines] == refused
    assert 5 < sum(refused) < len(refused)


@needs_cc
def test_what_is_added_may_be_the_output(library: Path) -> None:
    plan = next(plan for plan in PLANS if plan.problem.c)
    *inputs, c, d = views_of(plan, 70)
    c = d._replace(strides=(N, 1))
    same, shifted = (*inputs, c, c), (*inputs, c, c._replace(pointer=c.pointer + 16 * N))
    done = run(library, plan, [(same, 0), (shifted, 0)])
    assert [line for line in done.stdout.splitlines() if line.startswith(("done", "refused"))] == [
        "done",
        "refused d shares memory with c",
    ]


@needs_cc
def test_errors_have_words(library: Path) -> None:
    plan = PLANS[1]
    good = views_of(plan, 70)
    done = run(library, plan, [(good[:4], 0), (good, 1)])
    assert "takes 5 tensors, got 4" in done.stdout
    assert "num_sms: at least 2" in done.stdout
    unknown = SimpleNamespace(name="other", params=())
    assert "there is no kernel other" in run(library, unknown, []).stderr
    assert "no CUDA context" in run(library, plan, [], NO_CONTEXT="1").stderr
    assert "error 200 of cuModuleLoadData" in run(library, plan, [], NO_LOAD="1").stderr


@needs_cc
def test_the_example_is_built_as_it_says(library: Path, tmp_path: Path) -> None:
    folder = library.parent
    if shutil.which("cmake"):
        for step in (("-S", folder, "-B", tmp_path), ("--build", tmp_path)):
            done = subprocess.run(["cmake", *map(str, step)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    else:
        sources = (folder / name for name in ("our_kernels.c", "cubins.c", "example.c"))
        compile_c(*sources, "-o", tmp_path / "example", "-ldl", "-lm")
    compile_c("-c", folder / "example.c", "-o", tmp_path / "example.o")
    example = subprocess.run([str(tmp_path / "example")], capture_output=True, text=True)
    machine_has_a_driver = True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        machine_has_a_driver = False
    if not machine_has_a_driver:
        assert (example.returncode, example.stderr) == (1, "no NVIDIA driver: \n")


def test_the_header_says_what_to_pass(library: Path) -> None:
    header = (library.parent / "our_kernels.h").read_text()
    for plan in PLANS:
        assert f"// {plan.name}\n" in header
    assert "//   scale_a: f32 [g, m, ceil(k/128)], m_major\n" in header
    assert "//   d: bf16 [m, n], row_major, written\n" in header


def test_the_enumerators_are_those_of_cuda() -> None:
    source = (HERE.parent / "gemmgen/templates/export/library.c.jinja").read_text()
    for kind in {row.tensor_map for row in DTYPES.values()} | {"INT32"}:
        value = int(getattr(cuda.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{kind}"))
        assert f"{kind} = {value}" in source


def test_two_kernels_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one name"):
        write_library([artifact_of(PLANS[0])] * 2, tmp_path / "out")


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="C library"):
        write_library([artifact_of(PLANS[0])], tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "mine"
