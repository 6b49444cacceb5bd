"""What all kernels in the memory of a GPU share: when they may be loaded, how they are launched."""

from __future__ import annotations

from gemmgen.errors import LaunchError
from gemmgen.runtime import driver


def refuse_capture(stream: int, name: str, index: int, fix: str) -> None:
    """Raise LaunchError when work on the caller's stream would go into a CUDA graph."""
    if driver.is_capturing(stream):
        raise LaunchError(
            "a kernel cannot be loaded while a CUDA graph is being captured",
            where=name,
            expected=f"a kernel that is loaded on GPU {index} already",
            fix=fix,
        )


def launch_in(
    context: driver.Context,
    function: driver.Function,
    config: driver.LaunchConfig,
    params: int,
    name: str,
) -> None:
    """`driver.launch` in the context that holds the function, whatever the thread's own is.

    A thread that works on another GPU, or has not touched one yet, has another context.
    """
    if driver.is_current(context):
        driver.launch(function, config, params, name)
    else:
        with driver.current(context):
            driver.launch(function, config, params, name)
