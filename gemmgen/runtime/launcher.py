"""The compiled launcher: `launcher.c`, built once for a user where a C compiler is.

It does in C what every call does. Nothing depends on it: without a compiler, without the headers of
Python, or when anything fails, Python and ctypes do the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sysconfig
import tempfile
import threading
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, NamedTuple

from gemmgen.cache import default_root
from gemmgen.errors import ToolchainError
from gemmgen.sealing import is_sealed

SOURCE = Path(__file__).with_name("launcher.c")
NAME = "gemmgen_launcher"
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O2", "-shared", "-fPIC")
COMPILE_SECONDS = 60  # a hundred times what it takes
LOCK_SECONDS = 2 * COMPILE_SECONDS
_DIGEST = hashlib.sha256().digest_size

_finding = threading.Lock()
_found: Found | None = None


class Found(NamedTuple):
    """The module made of `launcher.c`, or why there is none."""

    module: Any | None
    why: str


def find() -> Found:
    """The launcher of this process; built if it is not stored. Raises nothing.

    Strict mode loads a stored one and builds none.
    """
    global _found
    with _finding:
        if _found is None:
            try:
                _found = _load(default_root() / "launchers")
            except Exception as error:  # whatever it is, ctypes launches
                _found = Found(None, str(error))
        return _found


def _renew_lock() -> None:
    global _finding
    _finding = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # the thread that holds it is not in the child


def start() -> None:
    """Begin what `find` does, while the caller has other things to do."""
    if _found is None:
        threading.Thread(target=find, daemon=True).start()


def _load(folder: Path) -> Found:
    compiler = _compiler()
    if compiler is None:
        return Found(None, f"no C compiler: none of {', '.join(COMPILERS)} is on PATH")
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        return Found(None, f"no Python.h in {include}: the headers of Python are not installed")
    library = folder / f"{_key(compiler)}.so"
    if not _is_whole(library):
        if is_sealed():
            return Found(None, f"not stored, and strict mode builds nothing: {library}")
        _build_once(compiler, include, library)
    return Found(_imported(library), str(library))


@cache
def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def _key(compiler: str) -> str:
    """Of the source, how it is compiled, by which compiler, and the Python that loads it."""
    parts = (
        *(SOURCE.read_text(), *OPTIONS, os.path.realpath(compiler)),
        *(str(sysconfig.get_config_var("SOABI")), sysconfig.get_platform()),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _is_whole(library: Path) -> bool:
    """Whether the stored library ends with its own hash, which a loader does not look at."""
    try:
        content = library.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _build_once(compiler: str, include: str, library: Path) -> None:
    """Raises OSError or ToolchainError; nothing is left behind then."""
    from filelock import FileLock

    folder, prefix = library.parent, f".{library.stem}-"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock"), timeout=LOCK_SECONDS):
        if _is_whole(library):  # another process built it meanwhile
            return
        for leftover in folder.glob(f"{prefix}*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
            built = Path(scratch, library.name)
            _compile(compiler, include, built)
            with built.open("r+b") as file:
                digest = hashlib.sha256(file.read()).digest()
                file.write(digest)
            built.replace(library)


def _compile(compiler: str, include: str, built: Path) -> None:
    from gemmgen.toolchain.process import run

    command = (compiler, *OPTIONS, f"-I{include}", str(SOURCE), "-o", str(built))
    status, output = run(command, timeout_s=COMPILE_SECONDS)
    if status != 0:
        raise ToolchainError(
            "the C compiler does not take the launcher",
            where=compiler,
            got=f"exit status {status}",
            detail=output,
        )


def _imported(library: Path) -> Any:
    loader = ExtensionFileLoader(NAME, str(library))
    module = module_from_spec(ModuleSpec(NAME, loader, origin=str(library)))
    loader.exec_module(module)
    return module
