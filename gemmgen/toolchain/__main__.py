"""`python -m gemmgen.toolchain KERNEL.cu -o KERNEL.ptx`: NVRTC has no command of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemmgen.errors import GemmgenError
from gemmgen.toolchain.discovery import find_toolchain
from gemmgen.toolchain.nvrtc import compile_to_ptx, nvrtc_at
from gemmgen.toolchain.ptx_isa import lower_ptx_version
from gemmgen.toolchain.ptxas import accepted_ptx_version


def main() -> int:
    """Compile one file to PTX that ptxas accepts."""
    parser = argparse.ArgumentParser(
        prog="python -m gemmgen.toolchain", description="Compile CUDA C++ to PTX for sm_90a."
    )
    parser.add_argument("source", type=Path, help="CUDA C++ that includes no header")
    parser.add_argument("-o", dest="ptx", type=Path, required=True, help="PTX file to write")
    parser.add_argument("--nvrtc", type=Path, help="libnvrtc to use; default: as `gemmgen build`")
    parser.add_argument("--ptx-version", help="highest .version; default: as ptxas accepts")
    arguments = parser.parse_args()
    try:
        library = arguments.nvrtc
        nvrtc = nvrtc_at(library, "pip") if library else find_toolchain().nvrtc
        highest = arguments.ptx_version or accepted_ptx_version(find_toolchain().ptxas)
        source = arguments.source.read_text(encoding="utf-8")
        text, log = compile_to_ptx(source, arguments.source.name, nvrtc)
        arguments.ptx.write_text(lower_ptx_version(text, highest), encoding="utf-8")
    except (GemmgenError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(log, end="", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
