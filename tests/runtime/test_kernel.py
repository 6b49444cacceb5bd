"""GemmKernel: when it loads, what it launches, what it remembers; the driver is a stand-in."""

from __future__ import annotations

import ctypes
import weakref
from types import SimpleNamespace

import pytest
import torch
from stand_in_gpus import on_gpu

from gemmgen import DeviceError, LaunchError, TensorError
from gemmgen.runtime import load_kernel, streams
from gemmgen.runtime.kernel import REMEMBERED_CALLS, GemmKernel


@pytest.fixture
def make_kernel(make_plan):
    def make(**keys) -> GemmKernel:
        plan = make_plan(**keys)
        return GemmKernel(SimpleNamespace(plan=plan, name=plan.name, cubin=b"code"))

    return make


def test_load_puts_the_code_on_the_current_gpu(gpus, make_plan) -> None:
    plan = make_plan()
    kernel = load_kernel(SimpleNamespace(plan=plan, name=plan.name, cubin=b"code"))
    assert gpus.loaded == [("context 0", plan.name, plan.launch.shared_bytes)]
    kernel.load()
    kernel.load("cuda:0")
    assert len(gpus.loaded) == 1
    kernel.load(1)
    assert gpus.loaded[1][0] == "context 1"
    assert "[0, 1]" in repr(kernel)


def test_a_call_is_one_launch_on_the_current_stream(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel(tile="128x128", cluster="1x1")
    tensors = on_gpu(make_tensors(300))
    kernel(*tensors)
    (launch,) = gpus.launches
    geometry = kernel.plan.launch
    assert launch.config == SimpleNamespace(
        ctas=6,
        threads=geometry.threads,
        cluster=1,
        shared_bytes=geometry.shared_bytes,
        stream=100,
    )


def test_parameters_are_those_of_the_signature(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    a, scale_a, b, scale_b, d = on_gpu(make_tensors(300))
    kernel(a, scale_a, b, scale_b, d)
    assert [encoded[0] for encoded in gpus.encoded] == [x.data_ptr() for x in (a, b, scale_a, d)]
    addresses = (ctypes.c_void_p * 6).from_address(gpus.launches[0].params)
    assert [ctypes.string_at(address, 128) for address in addresses[:4]] == [b"\7" * 128] * 4
    assert ctypes.c_uint64.from_address(addresses[4]).value == scale_b.data_ptr()
    assert ctypes.c_uint32.from_address(addresses[5]).value == 300


def test_the_grid_is_limited_by_resident_clusters(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel(tile="64x64", cluster="2x1")
    tensors = on_gpu(make_tensors(8192))
    kernel(*tensors)
    kernel(*tensors, num_sms=100)
    assert [launch.config.ctas for launch in gpus.launches] == [120, 100]


def test_an_empty_output_launches_nothing(gpus, make_kernel, make_tensors) -> None:
    make_kernel()(*on_gpu(make_tensors(m=0)))
    assert gpus.launches == gpus.loaded == []


def test_tensor_maps_are_encoded_once(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    first, second = on_gpu(make_tensors(64)), on_gpu(make_tensors(65))
    for _ in range(3):
        kernel(*first)
        kernel(*second)
    assert len(gpus.launches) == 6
    assert len(gpus.encoded) == 8


def test_a_bound_launch_only_launches(gpus, make_kernel, make_tensors, monkeypatch) -> None:
    kernel = make_kernel(tile="128x128", cluster="1x1")
    launch = kernel.bind(*on_gpu(make_tensors(300)), num_sms=4)
    assert gpus.launches == []
    encoded = len(gpus.encoded)
    for stream in (100, 7):
        monkeypatch.setattr(streams, "current_stream", lambda index, stream=stream: stream)
        launch()
        launch()
    assert [noted.config.stream for noted in gpus.launches] == [100, 100, 7, 7]
    assert {noted.config.ctas for noted in gpus.launches} == {4}
    assert len(gpus.encoded) == encoded


def test_a_bound_launch_keeps_its_tensors(gpus, make_kernel, make_tensors) -> None:
    tensors = on_gpu(make_tensors(64))
    output = weakref.ref(tensors[-1].untyped_storage())
    launch = make_kernel().bind(*tensors)
    del tensors
    launch()
    assert output() is not None


def test_an_empty_output_binds_to_nothing(gpus, make_kernel, make_tensors) -> None:
    make_kernel().bind(*on_gpu(make_tensors(m=0)))()
    assert gpus.launches == gpus.loaded == []


def test_another_dtype_at_a_known_address_is_refused(gpus, make_kernel, make_tensors) -> None:
    kernel, (a, *rest) = make_kernel(), on_gpu(make_tensors(64))
    kernel(a, *rest)
    with pytest.raises(TensorError, match="element type"):
        kernel(a.view(torch.float8_e5m2), *rest)


def test_memory_of_remembered_calls_is_bounded(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    tensors = make_tensors(64)
    memory = torch.zeros(64 * 256 + 8 * 2 * REMEMBERED_CALLS, dtype=torch.bfloat16)
    for call in range(REMEMBERED_CALLS + 1):
        start = 8 * call
        tensors["d"] = memory[start : start + 64 * 256].view(64, 256)
        kernel(*on_gpu(tensors))
    assert len(kernel._launches) == 1


def test_known_shapes_at_wrong_places_are_refused(gpus, make_kernel, make_tensors) -> None:
    kernel, tensors = make_kernel(), make_tensors(64)
    kernel(*on_gpu(tensors))
    shifted = torch.zeros(64 * 384 + 8).to(torch.float8_e4m3fn)[8:].view(64, 384)
    with pytest.raises(TensorError, match="unaligned"):
        kernel(*on_gpu(tensors | {"a": shifted}))
    memory = torch.zeros(64 * 512, dtype=torch.bfloat16)
    a = memory.view(torch.float8_e4m3fn)[: 64 * 384].view(64, 384)
    with pytest.raises(TensorError, match="shares memory"):
        kernel(*on_gpu(tensors | {"a": a, "d": memory[: 64 * 256].view(64, 256)}))
    assert len(gpus.launches) == 1


def test_tensors_that_move_are_launched_where_they_are(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    for _ in range(3):
        tensors = on_gpu(make_tensors(64))
        kernel(*tensors)
        addresses = (ctypes.c_void_p * 6).from_address(gpus.launches[-1].params)
        assert ctypes.c_uint64.from_address(addresses[4]).value == tensors[3].data_ptr()
        placed = {encoded[0] for encoded in gpus.encoded}
        assert {tensors[n].data_ptr() for n in (0, 1, 2, 4)} <= placed


def test_wrong_tensors_launch_nothing(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    tensors = make_tensors(64)
    kernel(*on_gpu(tensors))
    with pytest.raises(TensorError):
        kernel(*on_gpu(tensors | {"d": torch.zeros(64, 255, dtype=torch.bfloat16)}))
    assert len(gpus.launches) == 1


def test_tensors_of_two_gpus_are_refused(gpus, make_kernel, make_tensors) -> None:
    tensors = on_gpu(make_tensors(64))
    tensors[2].gpu = 1
    with pytest.raises(TensorError, match=r"b is on the wrong device[\s\S]*as a"):
        make_kernel()(*tensors)


def test_another_gpu_is_loaded_by_its_first_call(gpus, make_kernel, make_tensors) -> None:
    kernel = make_kernel()
    kernel.load(0)
    kernel(*on_gpu(make_tensors(64), gpu=1))
    assert [context for context, *_ in gpus.loaded] == ["context 0", "context 1"]
    (launch,) = gpus.launches
    assert (launch.function, launch.config.stream) == ("function in context 1", 101)
    assert gpus.current_context is None


def test_the_context_of_a_torch_thread_is_left_alone(gpus, make_kernel, make_tensors) -> None:
    gpus.current_context = "context 0"
    make_kernel()(*on_gpu(make_tensors(64)))
    assert gpus.current_context == "context 0"


def test_loading_while_a_graph_is_captured_is_refused(gpus, make_kernel, make_tensors) -> None:
    kernel, tensors = make_kernel(), on_gpu(make_tensors(64))
    gpus.capturing = True
    with pytest.raises(LaunchError, match=r"captured[\s\S]*kernel\.load\(0\)"):
        kernel(*tensors)
    gpus.capturing = False
    kernel.load()
    gpus.capturing = True
    kernel(*tensors)
    assert len(gpus.launches) == 1


def test_other_gpus_than_hopper_are_refused(gpus, make_kernel) -> None:
    gpus.capability = (10, 0)
    with pytest.raises(DeviceError, match=r"9\.0[\s\S]*10\.0"):
        make_kernel().load()


def test_a_gpu_without_room_for_a_cluster(gpus, make_kernel) -> None:
    gpus.clusters = 0
    make_kernel(cluster="1x1").load()
    with pytest.raises(DeviceError, match="no cluster"):
        make_kernel(cluster="2x1").load()


@pytest.mark.parametrize("device", ["cpu", "nonsense", 2, "cuda:2"])
def test_devices_that_are_no_gpu_of_ours(gpus, make_kernel, device) -> None:
    with pytest.raises(DeviceError):
        make_kernel().load(device)


def test_torch_without_a_gpu(gpus, make_kernel, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch sees no GPU"):
        make_kernel().load()
