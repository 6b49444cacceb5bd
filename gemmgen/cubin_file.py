"""Cubins on disk: read from a file or the folder of a built kernel, written whole or not at all.

Knows paths and the operating system's refusals; refuses to know what a cubin holds.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gemmgen import artifact
from gemmgen.artifact import Artifact
from gemmgen.errors import OutputError, PatchError


@dataclass(frozen=True)
class Source:
    """Bytes to be read as a cubin, and where they come from."""

    path: Path  # of the cubin itself
    cubin: bytes
    artifact: Artifact | None = None  # the built kernel, when its folder was given


def read(path: Path) -> bytes:
    """The bytes of a file. Raises PatchError when there is none or it cannot be read."""
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise PatchError(
            "this is a folder, not a cubin",
            where=path,
            expected="a file",
            fix=f"name the cubin; in a built kernel's folder, {artifact.UNPATCHED_CUBIN}",
        ) from None
    except OSError as error:
        raise PatchError("the cubin cannot be read", where=path, got=error.strerror) from None


def read_source(path: Path) -> Source:
    """A cubin, or that of a built kernel when the path is a folder.

    Raises PatchError for a file that cannot be read, CorruptArtifactError for a folder that is not
    a whole built kernel.
    """
    if not os.path.isdir(path):  # of Path, it raises where a parent may not be searched
        return Source(path, read(path))
    built = artifact.read(path)
    return Source(path / artifact.CUBIN, built.cubin, built)


def write(path: Path, content: bytes, what: str = "the cubin") -> None:
    """Put content in the place of a file, or of nothing; a reader sees the old one or the new one.

    A link stays a link. Raises OutputError when the place cannot be written or holds no file.
    """
    place = Path(os.path.realpath(path))
    staging = place.with_name(f".gemmgen.{os.urandom(4).hex()}")  # on the same file system
    try:
        if place.exists():
            _refuse_unless_replaceable(place, what)
        with open(staging, "xb") as file:
            file.write(content)
            file.flush()
            # Delayed allocation and network file systems report a full disk no earlier than here.
            os.fsync(file.fileno())
        os.replace(staging, place)
    except OSError as error:
        raise OutputError(
            f"{what} cannot be written",
            where=path,
            expected="a file in a folder that you may write",
            got=error.strerror or error,
            fix="choose another place with -o",
        ) from None
    finally:
        with suppress(OSError):  # it is gone, having taken its place, or never was
            staging.unlink()


def _refuse_unless_replaceable(place: Path, what: str) -> None:
    """A rename would take the place of a device, and of a file that its owner protects."""
    if not place.is_file():
        got = "a folder" if place.is_dir() else "neither a file nor a folder"
    elif not os.access(place, os.W_OK):
        got = "a file that you may not write"
    else:
        return
    raise OutputError(
        f"{what} cannot be written",
        where=place,
        expected="a new file, or one that you may replace",
        got=got,
        fix="choose another place with -o",
    )
