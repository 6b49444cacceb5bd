"""CUDA text in, cubin out: which compilers this machine has, and how they are called.

Knows NVRTC, ptxas and the logs that they write; knows nothing of GEMM, specs, artifacts or caches.
Needs no GPU, no driver and no CUDA toolkit: the pip wheels of NVRTC and ptxas are enough.
"""

from gemmgen.toolchain.compilation import CompileResult, compile_cuda
from gemmgen.toolchain.discovery import Compilers, Toolchain, find_toolchain, list_compilers
from gemmgen.toolchain.nvdisasm import Nvdisasm
from gemmgen.toolchain.nvrtc import NVRTC_OPTIONS, Nvrtc, PtxResult, compile_to_ptx
from gemmgen.toolchain.ptxas import PTXAS_OPTIONS, AssembleResult, Ptxas, assemble
from gemmgen.toolchain.ptxas_log import Flaw, Resources
from gemmgen.toolchain.refusal import REFUSED_FOLDER
from gemmgen.toolchain.repeat import nvrtc_command, ptxas_command

__all__ = [
    "NVRTC_OPTIONS",
    "PTXAS_OPTIONS",
    "REFUSED_FOLDER",
    "AssembleResult",
    "CompileResult",
    "Compilers",
    "Flaw",
    "Nvdisasm",
    "Nvrtc",
    "PtxResult",
    "Ptxas",
    "Resources",
    "Toolchain",
    "assemble",
    "compile_cuda",
    "compile_to_ptx",
    "find_toolchain",
    "list_compilers",
    "nvrtc_command",
    "ptxas_command",
]
