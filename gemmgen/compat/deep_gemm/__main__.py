"""`python -m gemmgen.compat.deep_gemm install`: `import deep_gemm` finds gemmgen from then on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemmgen.compat.deep_gemm.installation import HOME, install, site_packages, uninstall
from gemmgen.errors import GemmgenError


def main(arguments: list[str] | None = None) -> int:
    """Install or remove the stand-in; the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {HOME}",
        description="Let `import deep_gemm` find gemmgen's stand-in, or no longer.",
    )
    parser.add_argument("action", choices=["install", "uninstall"])
    parser.add_argument("--site", type=Path, help="folder of packages; default: this Python's")
    given = parser.parse_args(arguments)
    site = given.site or site_packages()
    try:
        if given.action == "install":
            print(f"`import deep_gemm` now finds gemmgen: {install(site)}")
        else:
            print("removed" if uninstall(site) else f"nothing to remove in {site}")
    except GemmgenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
