"""Launch: a kernel with everything that it is given, ready for the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from gemmgen.errors import DeviceError
from gemmgen.plan import Launch as Geometry
from gemmgen.runtime import driver, launcher, streams
from gemmgen.runtime.loading import launch_in

REMEMBERED_CONFIGS = 1024  # grids on streams: streams come and go


class LoadedKernel:
    """A kernel in the memory of one GPU."""

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        cubin: bytes,
        context: driver.Context,
        index: int,
        multiprocessors: int,
    ) -> None:
        """The GPU's context is the current one, and its current stream is not captured."""
        self.name = name
        self.context = context
        self.index = index
        self._geometry = geometry
        self._configs: dict[tuple[int, int], driver.LaunchConfig] = {}
        self.function = driver.load_function(cubin, name, geometry.shared_bytes)
        self.resident_clusters = self._count_resident(multiprocessors)

    def _count_resident(self, multiprocessors: int) -> int:
        """Clusters that run at the same time, at one CTA a multiprocessor.

        A cluster lies within one GPC, which can leave multiprocessors without one.
        """
        cluster = self._geometry.cluster
        clusters = multiprocessors // cluster
        if cluster > 1:
            config = self.config(max(clusters, 1) * cluster, stream=0)
            clusters = min(clusters, driver.active_clusters(self.function, config))
        if not clusters:
            raise DeviceError(
                "this GPU runs no cluster of the kernel",
                where=self.name,
                expected=f"{cluster} multiprocessors of one GPC",
                got=f"{multiprocessors} multiprocessors",
                fix="a kernel with a smaller cluster",
            )
        return clusters

    def config(self, ctas: int, stream: int) -> driver.LaunchConfig:
        """What the driver is told of a launch of so many CTAs on a stream."""
        config = self._configs.get((ctas, stream))
        if config is None:
            if len(self._configs) >= REMEMBERED_CONFIGS:
                self._configs.clear()
            shape = self._geometry
            config = self._configs[ctas, stream] = driver.launch_config(
                *(ctas, shape.threads, shape.cluster, shape.shared_bytes, stream),
                programmatic=shape.programmatic,
            )
        return config


class Launch:
    """A kernel bound to tensors. A call enqueues it on torch's current stream, and returns at once.

    Several threads may call it. What the tensors hold may change from call to call, their shapes
    and places may not.
    """

    __slots__ = ("_ctas", "_loaded", "_params", "_storage", "tensors")

    def __init__(
        self, loaded: LoadedKernel | None, ctas: int, params: int, storage: tuple[Any, ...]
    ) -> None:
        """`params` is the address of an array of addresses, which `storage` keeps good."""
        self._loaded = loaded
        self._ctas = ctas
        self._params = params
        self._storage = storage
        self.tensors: tuple[torch.Tensor, ...] = ()  # kept alive

    @classmethod
    def of_nothing(cls) -> Launch:
        """What an empty output takes."""
        return cls(None, 0, 0, ())

    def __call__(self) -> None:
        """Raises LaunchError when the driver refuses."""
        loaded = self._loaded
        if loaded is None:
            return
        config = loaded.config(self._ctas, streams.current_stream(loaded.index))
        launch_in(loaded.context, loaded.function, config, self._params, loaded.name)

    def refuse(self, status: int) -> NoReturn:
        """Raise LaunchError for what the driver answered to this launch."""
        driver.refuse_launch(status, self._loaded.name if self._loaded else "")

    def compiled(self) -> Callable[[], None]:
        """The same launch by the compiled launcher, or this one where there is none."""
        loaded, module = self._loaded, launcher.find().module
        if loaded is None or module is None:
            return self
        config = loaded.config(self._ctas, stream=0)
        launch: Callable[[], None] = module.Launch(
            *(self, config, streams.current_stream, (loaded.index,), config.getPtr()),
            *map(driver.entry_point, ("cuLaunchKernelEx", "cuCtxGetCurrent")),
            *(loaded.context, loaded.function, self._params),
        )
        return launch
