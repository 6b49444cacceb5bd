"""The compiled launcher does what the one in Python does, and nothing depends on it."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import sysconfig
import threading
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cuda.bindings import driver as cuda
from stand_in_gpus import OnGpu, on_gpu

from gemmgen import LaunchError, plan, seal, unseal
from gemmgen.runtime import driver, identity, launcher, streams
from gemmgen.runtime.kernel import GemmKernel
from gemmgen.runtime.launch import Launch, LoadedKernel

HERE = Path(__file__).parent
CONTEXT, FUNCTION, PARAMS = 0x1000, 0x2000, 0x3000
GEOMETRY = plan.Launch(384, cluster=1, shared_bytes=1000, programmatic=False, reason="")

needs_cc = pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").is_file(),
    reason="needs a C compiler and the headers of Python",
)


class Noted(ctypes.Structure):
    _fields_ = [
        ("config", ctypes.c_uint32 * 7),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("attribute_count", ctypes.c_uint32),
        ("function", ctypes.c_void_p),
        ("params", ctypes.c_void_p),
        ("launches", ctypes.c_uint32),
    ]


class Stub:
    """`launch_driver.c`, in the place of the driver."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.noted = Noted.in_dll(library, "noted")
        self.context = ctypes.c_void_p.in_dll(library, "context")
        self.status = ctypes.c_int.in_dll(library, "status")
        ctypes.memset(ctypes.byref(self.noted), 0, ctypes.sizeof(Noted))
        self.context.value, self.status.value = CONTEXT, 0

    def entry_point(self, name: str) -> int:
        return ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value or 0

    @contextmanager
    def current(self, context: int):
        before, self.context.value = self.context.value, context
        yield
        self.context.value = before


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("driver") / "driver.so"
    command = ("cc", "-shared", "-fPIC", "-Wall", "-Werror", HERE / "launch_driver.c", "-o", path)
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    found = launcher._load(tmp_path_factory.mktemp("launchers"))
    assert found.module, found.why
    return found.module


@pytest.fixture
def stub(library, monkeypatch) -> Stub:
    stub = Stub(library)
    driver._c_function.cache_clear()
    monkeypatch.setattr(driver, "entry_point", stub.entry_point)
    monkeypatch.setattr(driver, "current", stub.current)
    monkeypatch.setattr(driver, "load_function", lambda *_: FUNCTION)
    monkeypatch.setattr(driver, "active_clusters", lambda *_: 60)
    monkeypatch.setattr(streams, "current_stream", lambda index: 100 + index)
    monkeypatch.setattr(cuda, "cuGetErrorName", lambda status: (driver.SUCCESS, b"NAME"))
    monkeypatch.setattr(cuda, "cuGetErrorString", lambda status: (driver.SUCCESS, b"its text"))
    yield stub
    driver._c_function.cache_clear()


@pytest.fixture(params=["ctypes", pytest.param("c", marks=needs_cc)])
def launcher_used(request, monkeypatch) -> str:
    module = request.getfixturevalue("module") if request.param == "c" else None
    monkeypatch.setattr(launcher, "_found", launcher.Found(module, "of this test"))
    return str(request.param)


@pytest.fixture
def make_launch(stub, launcher_used):
    def make(cluster: int = 1, index: int = 0):
        geometry = replace(GEOMETRY, cluster=cluster)
        loaded = LoadedKernel("gemm", geometry, b"code", CONTEXT, index, multiprocessors=132)
        launch = Launch(loaded, 66, PARAMS, ()).compiled()
        assert isinstance(launch, Launch) == (launcher_used == "ctypes")
        return launch

    return make


pytestmark = needs_cc  # the stub of the driver is compiled, too


@pytest.mark.parametrize(("cluster", "attributes"), [(1, 0), (2, 1)])
def test_what_the_driver_is_given(stub, make_launch, cluster: int, attributes: int) -> None:
    launch = make_launch(cluster, index=1)
    assert launch() is None
    noted = stub.noted
    assert noted.config[:] == [66, 1, 1, 384, 1, 1, 1000]
    assert (noted.stream, noted.function, noted.params) == (101, FUNCTION, PARAMS)
    assert noted.attribute_count == attributes
    if attributes:
        # cuda.h: id 4 is the extent of a cluster, the value comes after 8 bytes.
        given = (ctypes.c_uint32 * 5).from_address(noted.attributes)
        assert given[:] == [4, given[1], cluster, 1, 1]


def test_every_launch_asks_for_the_stream(stub, make_launch, monkeypatch) -> None:
    current = 0
    monkeypatch.setattr(streams, "current_stream", lambda index: current)
    launch, seen = make_launch(), []
    for current in (0, 2**47, 7, 0):  # noqa: B007
        launch()
        seen.append(stub.noted.stream or 0)
    assert seen == [0, 2**47, 7, 0]


def test_a_thread_with_another_context(stub, make_launch) -> None:
    launch = make_launch()
    for other in (None, CONTEXT + 64):
        stub.context.value = other
        launch()
        assert stub.context.value == other
    assert stub.noted.launches == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("CUDA_ERROR_INVALID_VALUE", r"refuses the launch\n  where: gemm[\s\S]*NAME: its text"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS", r"enqueued earlier failed[\s\S]*CUDA_LAUNCH_BLOCKING"),
    ],
)
def test_a_refused_launch_and_the_next(stub, make_launch, status: str, said: str) -> None:
    launch = make_launch()
    stub.status.value = int(getattr(cuda.CUresult, status))
    with pytest.raises(LaunchError, match=said):
        launch()
    stub.status.value = 0
    launch()
    assert stub.noted.launches == 1


def test_an_error_of_torch_is_passed_on(stub, make_launch, monkeypatch) -> None:
    def lost(index: int) -> int:
        raise RuntimeError("torch lost its stream")

    monkeypatch.setattr(streams, "current_stream", lost)
    with pytest.raises(RuntimeError, match="lost its stream"):
        make_launch()()
    monkeypatch.setattr(streams, "current_stream", lambda index: "no handle")
    with pytest.raises((TypeError, ctypes.ArgumentError)):
        make_launch()()
    assert stub.noted.launches == 0


def test_a_launch_takes_no_arguments(stub, make_launch) -> None:
    for given, named in (((1,), {}), ((), {"stream": 1})):
        with pytest.raises(TypeError):
            make_launch()(*given, **named)
    assert stub.noted.launches == 0


def test_many_threads_launch_one_object(stub, make_launch) -> None:
    launch = make_launch()
    threads = [threading.Thread(target=lambda: [launch() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stub.noted.launches == 2000


def test_a_launch_keeps_what_it_needs_and_no_more(stub, launcher_used) -> None:
    class Storage:
        pass

    storage = Storage()
    loaded = LoadedKernel("gemm", GEOMETRY, b"code", CONTEXT, 0, multiprocessors=132)
    storage.launch = launch = Launch(loaded, 1, PARAMS, (storage,)).compiled()  # a cycle
    alive = weakref.ref(storage)
    del storage
    gc.collect()
    launch()
    assert alive() is not None
    del launch
    gc.collect()
    assert alive() is None


def test_nothing_to_launch_stays_in_python(launcher_used) -> None:
    nothing = Launch.of_nothing()
    assert nothing.compiled() is nothing


# --- What a call is remembered by ---------------------------------------------------------------


@pytest.fixture
def identity_used(launcher_used, monkeypatch) -> bool:
    """Whether tensors are looked at in C."""
    monkeypatch.setattr(identity, "of", identity.in_python)
    identity.use(launcher.find().module)
    in_c = identity.of is not identity.in_python
    assert in_c == (launcher_used == "c")
    return in_c


def tensors_that_differ() -> list[torch.Tensor | None]:
    memory = torch.zeros(64, 64)
    fp8 = memory.view(torch.float8_e4m3fn)
    return [
        *(None, memory, memory[1:], memory[:, :32], memory[:32], memory.T, memory.view(64, 8, 8)),
        *(memory.view(torch.int32), fp8, fp8.view(torch.float8_e5m2), fp8.view(torch.uint8)),
        *(fp8.view(torch.int8), memory.bfloat16(), memory.half(), torch.zeros(()), torch.zeros(0)),
        *(memory.view(torch.bool), memory.as_strided((64, 64), (32, 1)), torch.zeros(0, 8)),
        torch.zeros(2, 2, dtype=torch.complex64).conj().imag,  # negated by a bit
        torch.nn.Parameter(torch.zeros(8)),
        memory.view(2, 2, 4, 4, 64),  # more axes than C looks at
    ]


def test_tensors_of_one_identity(identity_used: bool) -> None:
    tensors = tensors_that_differ()
    seen = {identity.of((tensor,)) for tensor in tensors}
    assert len(seen) == len(tensors)
    again = [t if t is None or t.is_neg() else t.view(t.shape) for t in tensors]
    assert {identity.of((tensor,)) for tensor in again} == seen
    assert identity.of(tuple(tensors[:9])) == identity.of(tuple(again[:9]))
    assert identity.of((tensors[1], None)) != identity.of((None, tensors[1]))
    assert isinstance(identity.of(tuple(tensors[:9])), bytes) == identity_used


def test_a_tensor_that_changes_has_another_identity(identity_used: bool) -> None:
    tensor = torch.zeros(4, 8)
    seen = {identity.of((tensor,))}
    for change in (lambda: tensor.t_(), lambda: tensor.resize_(2, 8), lambda: tensor.set_()):
        change()
        seen.add(identity.of((tensor,)))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.zeros(2, 2).as_subclass(type("Sub", (torch.Tensor,), {})),),
        tuple(torch.zeros(2) for _ in range(17)),
        [torch.zeros(2)],
        (torch.zeros(2, 2, dtype=torch.complex64).conj().imag,),
    ],
)
def test_unusual_tensors_are_left_to_python(identity_used: bool, tensors) -> None:
    assert identity.of(tensors) == identity.in_python(tensors)


@pytest.mark.parametrize("wrong", [1, "a", torch.zeros(2, 2).to_sparse()])
def test_what_is_no_tensor_in_memory(identity_used: bool, wrong) -> None:
    with pytest.raises((AttributeError, RuntimeError)):
        identity.of((wrong,))


def test_calls_are_remembered_by_it(gpus, module, make_plan, make_tensors, monkeypatch) -> None:
    exchange = torch.Tensor.__dlpack_c_exchange_api__
    of = module.Identity(pytest.fail, exchange, torch.Tensor.is_neg, OnGpu, OnGpu)
    monkeypatch.setattr(identity, "of", of)
    plan = make_plan()
    kernel = GemmKernel(SimpleNamespace(plan=plan, name=plan.name, cubin=b"code"))
    first, second = on_gpu(make_tensors(64)), on_gpu(make_tensors(65))
    for _ in range(3):
        kernel(*first)
        kernel(*second)
    assert len(gpus.launches) == 6
    assert len(gpus.encoded) == 8


def test_looking_at_tensors_leaks_nothing(identity_used: bool) -> None:
    tensor = torch.zeros(2, 2)
    before = sys.getrefcount(tensor), sys.getrefcount(None)
    for _ in range(1000):
        identity.of((tensor, None))
    assert sys.getrefcount(tensor) == before[0]
    assert abs(sys.getrefcount(None) - before[1]) < 500


# --- Where it comes from ------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch, tmp_path) -> Path:
    """A process that has not looked yet, and its empty cache."""
    monkeypatch.setattr(launcher, "_found", None)
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("GEMMGEN_STRICT", raising=False)
    launcher._compiler.cache_clear()
    yield tmp_path / "launchers"
    launcher._compiler.cache_clear()


def test_it_is_built_once_and_found_again(fresh, monkeypatch) -> None:
    first = launcher.find()
    assert first.module is not None
    assert Path(first.why).parent == fresh
    assert sorted(path.suffix for path in fresh.iterdir()) == [".lock", ".so"]
    monkeypatch.setattr(launcher, "_found", None)
    monkeypatch.setattr(launcher, "_build_once", lambda *_: pytest.fail("it is stored"))
    assert launcher.find().why == first.why


def test_a_damaged_one_is_built_again(fresh, monkeypatch) -> None:
    library = Path(launcher.find().why)
    whole = library.read_bytes()
    library.unlink()  # the mapped file stays as it is
    library.write_bytes(whole[: len(whole) // 2])
    Path(fresh, f".{library.stem}-killed").mkdir()  # what a killed build leaves
    monkeypatch.setattr(launcher, "_found", None)
    assert launcher.find().module is not None
    assert launcher._is_whole(library)
    assert sorted(path.suffix for path in fresh.iterdir()) == [".lock", ".so"]


def test_no_compiler(fresh, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    assert launcher.find() == (None, "no C compiler: none of cc, gcc, clang is on PATH")
    assert not fresh.exists()


def test_no_headers_of_python(fresh, monkeypatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")
    found = launcher.find()
    assert found.module is None
    assert "no Python.h in /nowhere" in found.why
    assert not fresh.exists()


def test_a_compiler_that_refuses_leaves_nothing(fresh, monkeypatch) -> None:
    monkeypatch.setattr(launcher, "OPTIONS", ("-no-such-option",))
    found = launcher.find()
    assert found.module is None
    assert "does not take the launcher" in found.why
    assert [path.suffix for path in fresh.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(fresh, monkeypatch, tmp_path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(file))
    assert launcher.find().module is None


def test_strict_mode_builds_none_and_takes_a_stored_one(fresh, monkeypatch) -> None:
    seal()
    try:
        found = launcher.find()
        assert found.module is None
        assert "strict mode" in found.why
        assert not fresh.exists()
        unseal()
        monkeypatch.setattr(launcher, "_found", None)
        assert launcher.find().module is not None
        seal()
        monkeypatch.setattr(launcher, "_found", None)
        assert launcher.find().module is not None
    finally:
        unseal()


def test_processes_build_it_at_the_same_time(fresh) -> None:
    code = "from gemmgen.runtime import launcher; launcher.start(); print(launcher.find())"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for process in running:
        assert "module 'gemmgen_launcher'" in process.communicate(timeout=100)[0]
    assert sorted(path.suffix for path in fresh.iterdir()) == [".lock", ".so"]


def test_a_fork_while_another_thread_looks(fresh) -> None:
    code = """if True:
        import os, signal
        from gemmgen.runtime import launcher
        with launcher._finding:
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # ends a child that waits for the lock
                os._exit(0 if launcher.find().module else 1)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_source_compiles_without_warnings(tmp_path) -> None:
    include = sysconfig.get_path("include")
    strict = ("-std=c11", "-Wall", "-Wextra", "-Werror")
    command = ("cc", *strict, *launcher.OPTIONS, f"-I{include}", launcher.SOURCE)
    subprocess.run((*command, "-o", tmp_path / "launcher.so"), check=True)
