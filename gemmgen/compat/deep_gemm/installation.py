"""`import deep_gemm` finds this module: for a while, or from a folder of packages on."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gemmgen.errors import OutputError

NAME = "deep_gemm"
HOME = "gemmgen.compat.deep_gemm"
MODULES = (
    "",
    *(".jit", ".jit.compiler", ".jit.runtime"),
    *(".jit_kernels", ".jit_kernels.gemm", ".jit_kernels.runtime", ".jit_kernels.tuner"),
    ".jit_kernels.utils",
    *(".testing", ".testing.bench", ".testing.numeric"),
    *(".utils", ".utils.layout", ".utils.math"),
)

MARK = "gemmgen stands in for DeepGEMM"
SHIM = f'''"""{MARK}. To remove it: python -m {HOME} uninstall"""

from {HOME}.installation import take_place

take_place()
'''


# --- In this process ----------------------------------------------------------------------------


def take_place() -> None:
    """From now on, `import deep_gemm` and its submodules give gemmgen's."""
    for module in MODULES:
        sys.modules[NAME + module] = importlib.import_module(HOME + module)


@contextmanager
def stand_in() -> Iterator[None]:
    """`import deep_gemm` gives gemmgen's within; before and after it, what is installed."""

    def imported() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] == NAME]

    before = {name: sys.modules.pop(name) for name in imported()}
    try:
        take_place()
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(before)


# --- In a folder of packages --------------------------------------------------------------------


def site_packages() -> Path:
    """The folder of packages of the Python that runs."""
    return Path(sysconfig.get_path("purelib"))


def install(site: Path) -> Path:
    """Write a package `deep_gemm` that imports gemmgen's; the folder. Again: nothing changes.

    Raises OutputError where another `deep_gemm` is installed, or where nothing can be written.
    """
    folder = site / NAME
    other = _other_installation(folder)
    if other is not None:
        raise OutputError(
            "another deep_gemm is installed",
            where=other,
            expected=f"none, or one that `python -m {HOME} install` wrote",
            got="a package that is not ours",
            fix="pip uninstall deep_gemm, or use gemmgen.compat.deep_gemm.stand_in()",
        )
    if _is_ours(folder):
        return folder
    try:
        with tempfile.TemporaryDirectory(dir=site, prefix=f".{NAME}-") as aside:
            draft = Path(aside) / NAME
            draft.mkdir()
            (draft / "__init__.py").write_text(SHIM, encoding="utf-8")
            os.rename(draft, folder)
    except OSError as error:
        raise OutputError(
            "the stand-in cannot be written",
            where=site,
            expected="a folder of packages that can be written",
            got=error.strerror,
            fix="--site with such a folder, which Python searches",
        ) from None
    return folder


def uninstall(site: Path) -> bool:
    """Remove what `install` wrote; False when there is nothing. Raises OutputError for another."""
    folder = site / NAME
    if not folder.exists():
        return False
    if not _is_ours(folder):
        raise OutputError(
            "this deep_gemm is not ours to remove",
            where=folder,
            expected=f"one that `python -m {HOME} install` wrote",
            got="another package",
            fix="pip uninstall deep_gemm",
        )
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError("cannot be removed", where=folder, got=error.strerror) from None
    return True


def _is_ours(package: Path) -> bool:
    try:
        return MARK in (package / "__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _other_installation(folder: Path) -> Path | None:
    """A `deep_gemm` in the folder or on Python's path that is not ours."""
    with suppress(PackageNotFoundError):  # an editable one lies elsewhere
        return Path(str(distribution(NAME).locate_file(NAME)))
    if folder.exists() and not _is_ours(folder):
        return folder
    for entry in sys.path:
        package = Path(entry or ".") / NAME
        is_package = (package / "__init__.py").exists() or package.with_suffix(".py").exists()
        if is_package and not _is_ours(package):
            return package
    return None
