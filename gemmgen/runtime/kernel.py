"""GemmKernel: a built kernel that is called with torch tensors."""

from __future__ import annotations

import threading

import torch

from gemmgen.artifact import Artifact
from gemmgen.errors import DeviceError
from gemmgen.runtime import driver
from gemmgen.runtime.arguments import Arguments, common_device
from gemmgen.runtime.call import Call, count_ctas, prepare_call
from gemmgen.runtime.layout import TensorView
from gemmgen.runtime.loading import launch_in, refuse_capture
from gemmgen.target import COMPUTE_CAPABILITY

REMEMBERED_CALLS = 1024  # combinations of tensors whose parameters are kept, about 2 KB each


class GemmKernel:
    """A built kernel. A call enqueues one launch on torch's current stream and returns at once.

    `kernel(a, scale_a, b, scale_b, d)` takes the tensors of `plan.arguments`, in that order, on any
    Hopper GPU of the process, from any thread, and inside CUDA-graph capture once loaded.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.plan = artifact.plan
        self.name = artifact.name
        self._artifact = artifact
        self._arguments = Arguments(artifact.plan)
        self._calls: dict[tuple[TensorView, ...], Call] = {}
        self._loaded: dict[int, LoadedKernel] = {}
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        return f"<GemmKernel {self.name}, loaded on {sorted(self._loaded) or 'no GPU'}>"

    def load(self, device: torch.device | str | int | None = None) -> None:
        """Load the code on a GPU, by default torch's current one; nothing happens where it is.

        Raises DeviceError or LaunchError, as `gemmgen.load_kernel` does.
        """
        driver.initialize()
        index = device_index(device)
        if index not in self._loaded:
            self._load(index, torch.cuda.current_stream(index).cuda_stream)

    def __call__(self, *tensors: torch.Tensor, num_sms: int | None = None) -> None:
        """Enqueue D = A B^T with scales. `num_sms` limits the launch to so many multiprocessors.

        The tensors are those of `plan.arguments`, in that order: a [m, k] and b [n, k] in FP8 with
        contiguous rows, scale_a [m, ceil(k/128)] in FP32 with stride 1 over m, scale_b
        [ceil(n/128), ceil(k/128)] in FP32, d [m, n], which is written.
        Raises TensorError, naming the argument, for tensors that the kernel does not take,
        DeviceError for a GPU that is not Hopper, and LaunchError when the driver refuses or the
        number of tensors is wrong. Every tensor is checked before the launch; none is converted.
        Nothing is launched when D is empty.
        """
        views = self._arguments.views(tensors)
        index = common_device(self._arguments.rules, tensors)
        # Addresses are unique among the GPUs of a process, so the views tell the device, too.
        call = self._calls.get(views) or self._remember(views, index)
        if not call.clusters:
            return
        stream = torch.cuda.current_stream(index).cuda_stream
        loaded = self._loaded.get(index) or self._load(index, stream)
        loaded.launch(call, stream, num_sms)

    def _remember(self, views: tuple[TensorView, ...], index: int) -> Call:
        driver.initialize()
        # The driver encodes tensor maps for a context; a thread that never used the GPU has none.
        with driver.current(driver.primary_context(index)):
            call = prepare_call(self.plan, self._arguments, views)
        if len(self._calls) >= REMEMBERED_CALLS:
            self._calls.clear()
        self._calls[views] = call
        return call

    def _load(self, index: int, stream: int) -> LoadedKernel:
        with self._loading:
            if index not in self._loaded:
                self._loaded[index] = LoadedKernel(self._artifact, index, stream)
        return self._loaded[index]


class LoadedKernel:
    """A kernel in the memory of one GPU."""

    def __init__(self, artifact: Artifact, index: int, stream: int) -> None:
        """`stream` is the one that the caller works on; it must not be captured."""
        driver.initialize()
        _require_hopper(index)
        self._name = artifact.name
        self._geometry = artifact.plan.launch
        self._context = driver.primary_context(index)
        self._configs: dict[tuple[int, int], driver.LaunchConfig] = {}
        with driver.current(self._context):
            fix = f"kernel.load({index}), or one call, before the capture"
            refuse_capture(stream, self._name, index, fix)
            self._function = driver.load_function(
                artifact.cubin, self._name, self._geometry.shared_bytes
            )
            self._resident_clusters = self._count_resident(driver.multiprocessors(index))

    def _count_resident(self, multiprocessors: int) -> int:
        """Clusters that run at the same time, at one CTA a multiprocessor.

        A cluster lies within one GPC, which can leave multiprocessors without one.
        """
        cluster = self._geometry.cluster
        clusters = multiprocessors // cluster
        if cluster > 1:
            config = self._config(max(clusters, 1) * cluster, stream=0)
            clusters = min(clusters, driver.active_clusters(self._function, config))
        if not clusters:
            raise DeviceError(
                "this GPU runs no cluster of the kernel",
                where=self._name,
                expected=f"{cluster} multiprocessors of one GPC",
                got=f"{multiprocessors} multiprocessors",
                fix="a kernel with a smaller cluster",
            )
        return clusters

    def _config(self, ctas: int, stream: int) -> driver.LaunchConfig:
        config = self._configs.get((ctas, stream))
        if config is None:
            if len(self._configs) >= REMEMBERED_CALLS:  # streams come and go
                self._configs.clear()
            shape = self._geometry
            config = self._configs[ctas, stream] = driver.launch_config(
                ctas, shape.threads, shape.cluster, shape.shared_bytes, stream
            )
        return config

    def launch(self, call: Call, stream: int, num_sms: int | None) -> None:
        """Enqueue one call. Raises LaunchError."""
        ctas = count_ctas(call.clusters, self._geometry.cluster, self._resident_clusters, num_sms)
        config = self._config(ctas, stream)
        launch_in(self._context, self._function, config, call.params, self._name)


def _require_hopper(index: int) -> None:
    capability = driver.compute_capability(index)
    if capability != COMPUTE_CAPABILITY:
        raise DeviceError(
            f"GPU {index} is not a Hopper GPU",
            expected="compute capability 9.0: sm_90a code runs on no other",
            got="compute capability {}.{}".format(*capability),
        )


def device_index(device: torch.device | str | int | None) -> int:
    """Index of a GPU, as torch counts them. Raises DeviceError for one that torch does not see."""
    if not torch.cuda.is_available():
        raise DeviceError(
            "torch sees no GPU",
            got=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
            fix="install a CUDA build of torch, and look at CUDA_VISIBLE_DEVICES",
        )
    try:
        wanted = torch.device(f"cuda:{device}" if isinstance(device, int) else device or "cuda")
    except RuntimeError:
        raise DeviceError(
            "not a device", expected='such as 0, "cuda" or "cuda:1"', got=repr(device)
        ) from None
    index = torch.cuda.current_device() if wanted.index is None else wanted.index
    if wanted.type != "cuda" or index >= torch.cuda.device_count():
        raise DeviceError(
            "there is no such GPU",
            expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}",
            got=wanted,
        )
    return index
