"""Bundles: many built kernels in one file, for machines that have no compiler.

A bundle is a ZIP archive with an index. A kernel is found by what was asked for, whatever compilers
made it. Every file is held against its SHA-256 when it is read. Bundles lie under the user's cache:
what is in both comes from the cache, and nothing is ever written into a bundle.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from gemmgen import artifact
from gemmgen.artifact import Artifact, FileRecord
from gemmgen.cache import warn
from gemmgen.errors import ArtifactError, CorruptArtifactError
from gemmgen.version import __version__

SCHEMA_VERSION = 1
INDEX = "bundle.json"
VARIABLE = "GEMMGEN_BUNDLES"  # paths of bundles, separated as those of PATH


@dataclass(frozen=True)
class Entry:
    """One kernel of a bundle."""

    name: str
    folder: str
    manifest: FileRecord  # which vouches for the other files


@dataclass(frozen=True)
class Bundle:
    """An archive whose index was read."""

    path: Path
    entries: Mapping[str, Entry]  # by request

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Raises CorruptArtifactError for a file that is no bundle, ArtifactError for none."""
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                index = json.loads(archive.read(INDEX))
            if index["schema"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {index['schema']}")
            entries = {
                request: Entry(**{**entry, "manifest": FileRecord(**entry["manifest"])})
                for request, entry in index["kernels"].items()
            }
        except OSError as error:
            raise ArtifactError("a bundle cannot be read", where=path, got=error.strerror) from None
        except (AttributeError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptArtifactError(
                "not a whole bundle",
                where=path,
                expected=f"a bundle of schema version {SCHEMA_VERSION}",
                got=error,
                fix="pack it again with `gemmgen bundle`",
            ) from None
        return cls(path, entries)

    def find(self, request: str) -> Artifact | None:
        """A kernel with every file checked, or None. Raises ArtifactError for a damaged one."""
        entry = self.entries.get(request)
        if entry is None:
            return None
        folder = self.path / entry.folder
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = artifact.checked(
                    folder, lambda name: archive.read(f"{entry.folder}/{name}")
                )
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptArtifactError("a damaged bundle", where=folder, got=error) from None
        if FileRecord.of(found.files[artifact.MANIFEST]) != entry.manifest:
            raise CorruptArtifactError("a damaged bundle", where=folder, got="another manifest")
        return found


def write(path: Path, kernels: Mapping[str, Artifact]) -> None:
    """Pack kernels, by request, in the place of an older file, whole or not at all.

    Raises OutputError when the file cannot be written.
    """
    entries: dict[str, Entry] = {}
    staging = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(staging, "x", zipfile.ZIP_DEFLATED) as archive:
                for request, kernel in sorted(kernels.items()):
                    folder = f"kernels/{request[:16]}-{kernel.name}"[:200]
                    manifest = FileRecord.of(kernel.files[artifact.MANIFEST])
                    entries[request] = Entry(kernel.name, folder, manifest)
                    for name, content in sorted(kernel.files.items()):
                        archive.writestr(_member(f"{folder}/{name}"), content)
                index = {
                    "schema": SCHEMA_VERSION,
                    "gemmgen": __version__,
                    "kernels": {request: asdict(entry) for request, entry in entries.items()},
                }
                archive.writestr(_member(INDEX), json.dumps(index, indent=2))
            os.replace(staging, path)
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise artifact.output_error(error, path) from error


def _member(name: str) -> zipfile.ZipInfo:
    """Without a date: the same kernels are the same bytes."""
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


# --- The bundles of this process ----------------------------------------------------------------

_added: list[Bundle] = []


def add_bundle(path: str | Path) -> None:
    """Let builds of this process find the kernels of a bundle, before those of earlier ones.

    Raises CorruptArtifactError for a file that is no bundle, ArtifactError where there is none.
    """
    _added.insert(0, Bundle.open(path))


def find(request: str) -> Artifact | None:
    """A kernel from the bundles that were added, then from those of GEMMGEN_BUNDLES.

    What is damaged is a miss with a warning (CacheWarning).
    """
    for bundle in (*_added, *_named(os.environ.get(VARIABLE, ""))):
        try:
            if found := bundle.find(request):
                return found
        except ArtifactError as error:
            warn(f"a kernel of a bundle cannot be used: {error}")
    return None


@lru_cache(maxsize=8)
def _named(paths: str) -> tuple[Bundle, ...]:
    bundles = []
    for path in filter(None, paths.split(os.pathsep)):
        try:
            bundles.append(Bundle.open(path))
        except ArtifactError as error:
            warn(f"{VARIABLE}: {error}")
    return tuple(bundles)
