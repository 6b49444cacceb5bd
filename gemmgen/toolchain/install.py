"""Compilers of a release into the store, and out of it again.

Knows the order of the steps: fetch both wheels beside the store, ask both compilers who they are,
then make them visible by one rename. Processes take turns, and a killed one leaves nothing that
anyone would take for a compiler. Builds never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gemmgen.errors import ToolchainError
from gemmgen.toolchain import store
from gemmgen.toolchain.discovery import Toolchain
from gemmgen.toolchain.locations import Kind, in_folders
from gemmgen.toolchain.nvrtc import nvrtc_at, own_version
from gemmgen.toolchain.ptxas import ptxas_at
from gemmgen.toolchain.version import OLDEST, is_request, matches, release, release_name
from gemmgen.toolchain.wheels import fetch, requirement

_LOCK_S = 3600.0  # an installation over a slow network
_SCRATCH = ".scratch-"


def install(request: str, *, tell: Callable[[str], None] = lambda _: None) -> Toolchain:
    """Install ptxas of a version such as "12.9" or "12.9.86", and the newest NVRTC of its release.

    The two are built apart and need not share the last number. What is installed and works is not
    fetched again. `tell` gets the name of each wheel before it is fetched.
    Raises ToolchainError if pip fails, if a compiler does not work or is of another version, and if
    the store cannot be written; the store is then as it was.
    """
    _check(request)
    if present := _find(request):
        return present
    with _scratch() as scratch:
        if present := _find(request):  # by a process that this one waited for
            return present
        folder = scratch / "new"
        folder.mkdir()
        version = _fetch("ptxas", request, folder, tell)
        _fetch("nvrtc", release_name(version), folder, tell)
        installed = store.root() / version
        if installed.exists():  # and damaged, or it would have been found
            installed.rename(scratch / "damaged")
        folder.rename(installed)
    return _toolchain_in(installed)


def remove(request: str) -> list[str]:
    """Remove the installed versions that a request such as "12.9" means, and give them.

    Raises ToolchainError if there is none, or if the store cannot be written.
    """
    _check(request)
    doomed = [version for version in store.installed() if matches(version, request)]
    if not doomed:
        raise ToolchainError(
            f"CUDA {request} is not installed",
            where=store.root(),
            got=", ".join(store.installed()) or "nothing is installed",
            fix="only what `gemmgen toolchain install` installed can be removed",
        )
    with _scratch() as scratch:
        for version in doomed:
            with suppress(FileNotFoundError):  # another process was faster
                (store.root() / version).rename(scratch / version)
    return doomed


def _check(request: str) -> None:
    if not is_request(request) or release(f"{request}.0") < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ToolchainError(
            "this is no CUDA version for Hopper",
            expected=f'a version from {oldest} on, such as "12.9" or "12.9.86"',
            got=repr(request),
        )


def _find(request: str) -> Toolchain | None:
    """The newest installed version that answers a request and works."""
    for version in store.installed():
        if matches(version, request):
            folder = store.root() / version
            with suppress(ToolchainError):
                _verify("ptxas", version, folder)
                _verify("nvrtc", release_name(version), folder)
                return _toolchain_in(folder)
    return None


def _fetch(kind: Kind, request: str, folder: Path, tell: Callable[[str], None]) -> str:
    """Fetch one compiler into its folder; its version."""
    wheel = requirement(kind, request)
    tell(wheel)
    fetch(wheel, folder / kind)
    return _verify(kind, request, folder)


def _verify(kind: Kind, request: str, folder: Path) -> str:
    """The version of a compiler, in its own words. Raises ToolchainError if it is not as asked."""
    path = _path_in(folder, kind)
    version = ptxas_at(path, "store").version if kind == "ptxas" else own_version(path)
    if not matches(version, request):
        raise ToolchainError(
            f"{path.name} is of another version than its wheel",
            where=path,
            expected=request,
            got=version,
        )
    return version


def _toolchain_in(folder: Path) -> Toolchain:
    return Toolchain(
        nvrtc_at(_path_in(folder, "nvrtc"), "store"), ptxas_at(_path_in(folder, "ptxas"), "store")
    )


def _path_in(folder: Path, kind: Kind) -> Path:
    for path in in_folders(kind, [folder / kind]):
        return path
    raise ToolchainError(f"there is no {kind} in its wheel", where=folder / kind)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on the disk of the store, for one process at a time; it goes at the end."""
    from shutil import rmtree
    from tempfile import TemporaryDirectory

    from filelock import FileLock, Timeout

    root = store.root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock", timeout=_LOCK_S):
            for leftover in root.glob(f"{_SCRATCH}*"):  # of a process that was killed
                rmtree(leftover, ignore_errors=True)
            with TemporaryDirectory(prefix=_SCRATCH, dir=root) as name:
                yield Path(name)
    except Timeout as error:
        raise ToolchainError(
            "another process has been installing compilers for an hour",
            where=error.lock_file,
            fix="end that process",
        ) from error
    except OSError as error:
        raise ToolchainError(
            "the folder of installed compilers cannot be written",
            where=error.filename or root,
            got=error.strerror,
            fix="set GEMMGEN_CACHE_DIR to a folder with space that you may write",
        ) from error
