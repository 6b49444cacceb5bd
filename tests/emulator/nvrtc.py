"""CUDA text -> PTX through the NVRTC of the pip wheel, for the emulator's own tests."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("nvidia.cuda_nvrtc")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the wheel nvidia-cuda-nvrtc-cu12 is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "lib"
    return ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))


def compile_ptx(source: str, *options: str) -> str:
    """Compile for compute_90a; a failure raises with the compiler's log."""
    library, program = _library(), ctypes.c_void_p()
    text = source.encode()
    if library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None):
        raise RuntimeError("nvrtcCreateProgram failed")
    flags = [b"--gpu-architecture=compute_90a", b"--std=c++17", *(o.encode() for o in options)]
    try:
        if library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags)):
            raise RuntimeError(_text(library, program, "ProgramLog"))
        return _text(library, program, "PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()
