"""What stands for GPUs and their driver: tensors that say they lie on one, noted launches."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from gemmgen.runtime import driver, launcher, streams
from gemmgen.runtime.tensor_map import encode


class OnGpu(torch.Tensor):
    """A tensor of the host that says it lies on a GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    gpu = 0
    is_cuda = True

    def get_device(self) -> int:
        return self.gpu

    def new_empty(self, shape, dtype: torch.dtype) -> torch.Tensor:
        (out,) = on_gpu({"out": torch.empty(shape, dtype=dtype)}, self.gpu)
        return out


def on_gpu(tensors, gpu: int = 0):
    pretending = [tensor.as_subclass(OnGpu) for tensor in tensors.values()]
    for tensor in pretending:
        tensor.gpu = gpu
    return pretending


class StandInDriver:
    """Two GPUs of 132 multiprocessors that note what they are asked to do."""

    def __init__(self) -> None:
        self.capability = (9, 0)
        self.capturing = False
        self.clusters = 60
        self._thread = threading.local()
        self.loaded: list[tuple[str, str, int]] = []
        self.encoded: list[tuple[int, ...]] = []
        self.launches: list[SimpleNamespace] = []

    @property
    def current_context(self) -> str | None:
        """Of this thread."""
        return getattr(self._thread, "context", None)

    @current_context.setter
    def current_context(self, context: str | None) -> None:
        self._thread.context = context

    def initialize(self) -> None:
        pass

    def compute_capability(self, index: int) -> tuple[int, int]:
        return self.capability

    def multiprocessors(self, index: int) -> int:
        return 132

    def primary_context(self, index: int) -> str:
        return f"context {index}"

    @contextmanager
    def current(self, context: str):
        before, self.current_context = self.current_context, context
        yield
        self.current_context = before

    def is_current(self, context: str) -> bool:
        return self.current_context == context

    def is_capturing(self, stream: int) -> bool:
        assert self.current_context is not None, "a default stream belongs to the current context"
        return self.capturing

    def load_function(self, cubin: bytes, name: str, shared_bytes: int) -> str:
        assert self.current_context is not None
        self.loaded.append((self.current_context, name, shared_bytes))
        return f"function in {self.current_context}"

    def active_clusters(self, function: str, config: SimpleNamespace) -> int:
        assert config.ctas % config.cluster == 0
        return self.clusters

    def encode_tensor_map(self, destination: int, dtype: str, address: int, *extents) -> None:
        assert self.current_context is not None, "the driver asks for a context"
        ctypes.memset(destination, 7, 128)
        self.encoded.append((address, *extents))

    def launch_config(
        self, ctas, threads, cluster, shared_bytes, stream, programmatic
    ) -> SimpleNamespace:
        early = {"programmatic": True} if programmatic else {}
        return SimpleNamespace(
            ctas=ctas,
            threads=threads,
            cluster=cluster,
            shared_bytes=shared_bytes,
            stream=stream,
            **early,
        )

    def launch(self, function: str, config: SimpleNamespace, params: int, name: str) -> None:
        assert function == f"function in {self.current_context}"
        self.launches.append(SimpleNamespace(config=config, params=params, function=function))


def install(monkeypatch: pytest.MonkeyPatch) -> StandInDriver:
    """Take the driver's place, and that of torch's view of the GPUs."""
    stand_in = StandInDriver()
    encode.cache_clear()
    for name, value in vars(StandInDriver).items():
        if callable(value) and not name.startswith("_"):
            monkeypatch.setattr(driver, name, getattr(stand_in, name))
    monkeypatch.setattr(streams, "current_stream", lambda index: 100 + index)
    monkeypatch.setattr(launcher, "_found", launcher.Found(None, "handles are words here"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return stand_in
