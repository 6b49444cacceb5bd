"""From a built kernel to launches on torch tensors.

torch and the CUDA driver are imported when the first kernel is loaded, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemmgen.errors import DeviceError

if TYPE_CHECKING:
    import torch

    from gemmgen.artifact import Artifact
    from gemmgen.runtime.kernel import GemmKernel


def load_kernel(artifact: Artifact, device: torch.device | str | int | None = None) -> GemmKernel:
    """A built kernel, loaded on a Hopper GPU: on `device`, else on torch's current one.

    On another GPU of the process it is loaded by its first call there.
    Raises DeviceError when there is no torch, no driver or no GPU, or the GPU is not Hopper;
    LaunchError when the driver refuses the code, or while a CUDA graph is being captured.
    """
    require_torch()
    from gemmgen.runtime.kernel import GemmKernel

    kernel = GemmKernel(artifact)
    kernel.load(device)
    return kernel


def require_torch() -> None:
    """Raises DeviceError when torch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise DeviceError(
            "kernels are launched on torch tensors, and torch is not installed",
            got=error,
            fix="pip install torch",
        ) from None
