"""GemmKernel: a built kernel that is called with torch tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gemmgen.artifact import Artifact
from gemmgen.counters import count
from gemmgen.errors import DeviceError
from gemmgen.runtime import driver, identity, launcher, streams
from gemmgen.runtime.arguments import Arguments, common_device
from gemmgen.runtime.call import Form, balance_ctas, count_ctas, form_of, marshal
from gemmgen.runtime.launch import Launch, LoadedKernel
from gemmgen.runtime.layout import TensorView
from gemmgen.runtime.loading import refuse_capture
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
        self._launches: dict[tuple[Any, ...], Callable[[], None]] = {}
        self._forms: dict[tuple[Any, ...], Form] = {}
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
            self._load(index)

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
        self.launch_for(tensors, num_sms)()

    def launch_for(
        self, tensors: Sequence[torch.Tensor], num_sms: int | None
    ) -> Callable[[], None]:
        """What a call launches, from the last calls where it can be; the caller keeps the tensors.

        Raises what a call raises.
        """
        try:
            launch = self._launches.get((num_sms, identity.of(tensors)))
        except (AttributeError, RuntimeError):  # no tensor, or none in memory: `_prepare` says so
            launch = None
        if launch is None:
            launch = self._prepare(tensors, num_sms).compiled()
            if len(self._launches) >= REMEMBERED_CALLS:
                self._launches.clear()
            self._launches[num_sms, identity.of(tensors)] = launch
        return launch

    def bind(self, *tensors: torch.Tensor, num_sms: int | None = None) -> Callable[[], None]:
        """All that a call does before its launch, done once: calling the result only launches.

        It holds on to the tensors; what is in them may change between launches. Raises what a
        call raises.
        """
        launch = self._prepare(tensors, num_sms)
        launch.tensors = tensors
        return launch.compiled()

    def _prepare(self, tensors: Sequence[torch.Tensor], num_sms: int | None) -> Launch:
        views = self._arguments.views(tensors)
        index = common_device(self._arguments.rules, tensors)
        form = self._form(views)
        if not form.clusters:
            return Launch.of_nothing()
        loaded = self._loaded.get(index) or self._load(index)
        geometry = self.plan.launch
        ctas = count_ctas(form.clusters, geometry.cluster, loaded.resident_clusters, num_sms)
        ctas = balance_ctas(self.plan, form.m, form.clusters, ctas)
        # The driver encodes tensor maps for a context; a thread that never used the GPU has none.
        with driver.current(loaded.context):
            params, storage = marshal(form, views)
        count("prepared_calls")
        return Launch(loaded, ctas, params, storage)

    def _form(self, views: Sequence[TensorView]) -> Form:
        """Of checked tensors. Activations come with few shapes, at many places."""
        shapes = tuple([(view.shape, view.strides) for view in views])
        form = self._forms.get(shapes)
        if form is not None:
            self._arguments.check_places(views)
            return form
        form = form_of(self.plan, self._arguments.check(views), views)
        if len(self._forms) >= REMEMBERED_CALLS:
            self._forms.clear()
        self._forms[shapes] = form
        return form

    def _load(self, index: int) -> LoadedKernel:
        driver.initialize()
        with self._loading:
            if index not in self._loaded:
                _require_hopper(index)
                self._loaded[index] = self._load_into(driver.primary_context(index), index)
                count("loads")
                identity.use(launcher.find().module)  # compiled now rather than by the first call
        return self._loaded[index]

    def _load_into(self, context: driver.Context, index: int) -> LoadedKernel:
        with driver.current(context):
            fix = f"kernel.load({index}), or one call, before the capture"
            refuse_capture(streams.current_stream(index), self.name, index, fix)
            multiprocessors = driver.multiprocessors(index)
            return LoadedKernel(
                self.name, self.plan.launch, self._artifact.cubin, context, index, multiprocessors
            )


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
