"""One run of a compiler as a process, and the ways in which it can fail to run at all.

Knows the operating system's side of a failure; what an exit status means is the caller's affair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gemmgen.errors import CompilerNotFoundError, ToolchainError
from gemmgen.toolchain.version import Banner, read_banner

_VERSION_TIMEOUT_S = 30.0  # 3 ms; a wheel on a cold network disk takes seconds


class Finished(NamedTuple):
    """A process that ran to its end."""

    status: int
    output: str  # stdout and stderr together, in the order of writing


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command in a folder; raise ToolchainError if it cannot start, hangs or is killed.

    `variables` are set in its environment, over those of this process.
    """
    import signal
    import subprocess  # 4 ms, for those who run a compiler

    tool = command[0]
    try:
        process = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise CompilerNotFoundError(
            f"{Path(tool).name} is not there, or the system lacks its program loader (glibc)",
            where=tool,
            fix="install its wheel again (pip install --force-reinstall --no-deps)",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"{Path(tool).name} did not finish",
            where=tool,
            expected=f"an end within {timeout_s:g} s",
            detail=_text(error.output),
        ) from error
    except OSError as error:
        raise ToolchainError(
            f"{Path(tool).name} could not be started",
            where=tool,
            expected="an executable file for this machine's processor",
            got=error.strerror,
            fix=f"chmod +x {tool}, or install its wheel again",
        ) from error
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ToolchainError(
            f"{Path(tool).name} was killed by {name}",
            where=tool,
            fix="free memory and try again" if name == "SIGKILL" else None,
            detail=process.stdout,
        )
    return Finished(process.returncode, process.stdout)


def ask_version(tool: Path) -> Banner:
    """Run `<tool> --version`, once for each state of the file."""
    try:
        state = tool.stat()
    except OSError as error:
        raise CompilerNotFoundError(
            f"{tool.name} is not there", where=tool, got=error.strerror
        ) from error
    return _ask_version(tool, state.st_mtime_ns, state.st_size)


@cache
def _ask_version(tool: Path, _mtime_ns: int, _size: int) -> Banner:
    status, output = run((str(tool), "--version"), timeout_s=_VERSION_TIMEOUT_S)
    banner = read_banner(output)
    if status != 0 or banner is None:
        raise ToolchainError(
            f"{tool.name} does not say its version",
            where=tool,
            expected="the banner of a CUDA compiler",
            got=f"exit status {status}",
            detail=output,
        )
    return banner


def _text(output: bytes | str | None) -> str | None:
    return output.decode(errors="replace") if isinstance(output, bytes) else output
