"""The content-addressed store of built kernels, shared by every process of a user.

A key is a hash of all that a kernel is made of, so an entry never goes stale. One process builds
what several ask for, the others wait and find it. An entry is published by a rename and checked
when it is read; a damaged one is a miss. A cache that cannot be written costs time, never a build.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gemmgen import artifact, plan
from gemmgen.artifact import Artifact
from gemmgen.errors import ArtifactError, CorruptArtifactError, OutputError

LOCK_SECONDS = 120  # many times a build: a lock that is held longer is lost


class CacheWarning(UserWarning):
    """An entry was damaged, or the cache cannot be used; the build went on."""


def default_root() -> Path:
    """`GEMMGEN_CACHE_DIR`, or the user's cache folder."""
    if root := os.environ.get("GEMMGEN_CACHE_DIR"):
        return Path(root).expanduser().absolute()
    from platformdirs import user_cache_path  # 20 ms that a set variable saves

    return user_cache_path("gemmgen", appauthor=False)


def cache_key(
    plan_json: str,
    source: str,
    toolchain: Mapping[str, str],
    passes: Sequence[tuple[str, int]],
) -> str:
    """The name of a kernel's entry: a hash of everything that the artifact depends on.

    `toolchain` is the compilers with their builds and options, `passes` the SASS passes in order
    with their versions. Paths and times are no part of it: the same kernel has the same key on
    every machine.
    """
    parts = {
        "schemas": [plan.SCHEMA_VERSION, artifact.SCHEMA_VERSION],
        "plan": plan_json,
        "source": source,
        "toolchain": dict(toolchain),
        "passes": [list(step) for step in passes],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One stored kernel, as `gemmgen cache` shows it."""

    key: str
    name: str | None  # None: damaged
    bytes: int  # 0: damaged
    problem: str | None = None


@dataclass(frozen=True)
class Cache:
    """Kernels in `kernels/<key>/`, locks in `locks/<key>`, below a root that need not exist yet."""

    root: Path

    def find(self, key: str) -> Artifact | None:
        """The stored kernel, or None when there is none or it is damaged. Writes nothing."""
        try:
            return self._read(key)
        except ArtifactError:
            return None

    def build_once(self, key: str, build: Callable[[], Mapping[str, bytes]]) -> Artifact:
        """The kernel that `build` makes, stored; others who ask for it wait, and find it.

        What `build` raises is passed on, and nothing is stored. When the cache cannot be written,
        warns (CacheWarning) and answers with a kernel that goes with the process: in a folder, or
        in memory alone where no disk takes it.
        """
        with self._lock(key):
            try:
                # Another process may have built it while this one waited for the lock.
                if found := self._read(key):
                    return found
            except ArtifactError as error:
                warn(f"a stored kernel is damaged and is built again: {error.where}")
            return self._store(key, build())

    def entries(self) -> Iterator[Entry]:
        """Every stored kernel with every file checked, in order of keys."""
        for key in sorted(self._keys("kernels")):
            try:
                if found := self._read(key):
                    yield Entry(key, found.name, sum(map(len, found.files.values())))
            except ArtifactError as error:
                yield Entry(key, None, 0, problem=str(error))

    def clear(self) -> int:
        """Remove all that is stored and what killed builds left; how many entries that were.

        Waits for builds under way. Raises OutputError when something cannot be removed.
        """
        removed = 0
        for key in self._keys("kernels") | self._keys("locks"):
            with self._lock(key):
                removed += os.path.lexists(self._folder(key))
                try:
                    self._remove(key)
                    (self.root / "locks" / key).unlink(missing_ok=True)
                except OSError as error:
                    raise OutputError(
                        "the cache cannot be cleared",
                        where=error.filename or self.root,
                        got=error.strerror,
                        fix="clear it as the user who owns it",
                    ) from error
        return removed

    def _folder(self, key: str) -> Path:
        return self.root / "kernels" / key

    def _keys(self, room: str) -> set[str]:
        """Keys that the files of a room belong to; what is not ours has none and is left alone."""
        try:
            names = os.listdir(self.root / room)
        except OSError:
            return set()
        return {match[1] for name in names if (match := re.match(r"\.?([0-9a-f]{64})\b", name))}

    def _read(self, key: str) -> Artifact | None:
        folder = self._folder(key)
        if not os.path.lexists(folder):
            return None
        found = artifact.read(folder)
        if found.manifest.key != key:
            raise CorruptArtifactError(
                "an entry of another key", where=folder, expected=key, got=found.manifest.key
            )
        return found

    def _store(self, key: str, files: Mapping[str, bytes]) -> Artifact:
        try:
            self._remove(key)
            return artifact.write(files, self._folder(key))
        except (OSError, OutputError) as error:
            cause = error.got if isinstance(error, OutputError) else error.strerror
            warn(
                f"the kernel cache cannot be written, so this kernel is not kept: {cause}: "
                f"{self.root}; GEMMGEN_CACHE_DIR can name another folder"
            )
            try:
                return artifact.write(files, _temporary_root() / key)
            except (OSError, OutputError):  # no room there, either: it is in memory
                return artifact.checked(self._folder(key), files.__getitem__)

    def _remove(self, key: str) -> None:
        """Remove a damaged entry, and what a killed build of this key left. The lock is held."""
        for path in (self._folder(key), *self._folder(key).parent.glob(f".{key}.*")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Hold the lock of a key, or go on without it: at worst a kernel is built twice."""
        from filelock import FileLock, Timeout  # 50 ms that a hit does not pay

        lock = FileLock(self.root / "locks" / key, timeout=LOCK_SECONDS)
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            warn(f"a lock of the kernel cache is lost; going on without it: {lock.lock_file}")
        except OSError:
            pass  # what cannot be locked cannot be written either, and `_store` says so
        try:
            yield
        finally:
            lock.release()


def warn(text: str) -> None:
    """A CacheWarning, as of the caller of who calls."""
    warnings.warn(text, CacheWarning, stacklevel=3)


@cache
def _temporary_root() -> Path:
    """A folder that goes when the process ends."""
    import atexit
    import tempfile

    folder = tempfile.mkdtemp(prefix="gemmgen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
