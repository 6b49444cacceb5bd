"""The folder of one built kernel: its file names, its manifest, how it is written and read.

An artifact is whole or it is not there: it is written beside its place and renamed into it, and
every file is held against its size and SHA-256 when it is read. Knows nothing of how a kernel is
built.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from gemmgen.errors import ArtifactError, CorruptArtifactError, OutputError
from gemmgen.plan import KernelPlan, Sass

SCHEMA_VERSION = 1

SPEC = "spec.yaml"
PLAN = "plan.json"
SOURCE = "kernel.cu"
PTX = "kernel.ptx"
UNPATCHED_CUBIN = "kernel.unpatched.cubin"
CUBIN = "kernel.cubin"
LOG = "compile.log"
MANIFEST = "manifest.json"
RECORDED = (SPEC, PLAN, SOURCE, PTX, UNPATCHED_CUBIN, CUBIN, LOG)  # what the manifest vouches for


@dataclass(frozen=True)
class FileRecord:
    """What a file must be when it is read."""

    size: int  # bytes
    sha256: str

    def __str__(self) -> str:
        return f"{self.size} bytes, SHA-256 {self.sha256}"

    @classmethod
    def of(cls, content: bytes) -> FileRecord:
        return cls(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What is known about a built kernel beside its plan, which is the file `plan.json`."""

    name: str  # of the kernel: its `extern "C"` symbol
    key: str  # under which the cache stores it
    toolchain: Mapping[str, str]  # which compilers made it
    resources: Mapping[str, Any]  # registers, spills and memory, as the compiler reports them
    sass: tuple[Mapping[str, Any], ...]  # one report a SASS pass, in order
    files: Mapping[str, FileRecord]
    schema: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The manifest as JSON text; `from_json` is its inverse."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Raises ValueError when the text is not a manifest of this schema version."""
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"not a manifest of schema version {SCHEMA_VERSION}")
        try:
            files = {name: FileRecord(**entry) for name, entry in record["files"].items()}
            manifest = cls(**{**record, "sass": tuple(record["sass"]), "files": files})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a manifest: {error}") from None
        # The name becomes a folder: a path must not come out of it.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(manifest.name)):
            raise ValueError(f"not a manifest: {manifest.name!r} is no name of a kernel")
        return manifest


@dataclass(frozen=True)
class Artifact:
    """One built kernel: a folder, and its files as they were when it was written or read."""

    path: Path  # of a kernel in a bundle, or of one that no disk took: where it would lie
    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def cubin(self) -> bytes:
        """The code to load, SASS passes applied."""
        return self.files[CUBIN]

    @cached_property
    def plan(self) -> KernelPlan:
        """What was decided. Raises CorruptArtifactError for a plan of another schema version."""
        try:
            return KernelPlan.from_json(self.files[PLAN].decode())
        except (ValueError, KeyError, TypeError) as error:
            raise _corrupt(self.path / PLAN, "a kernel plan of this gemmgen", error) from None


class Buildable(Protocol):
    """What a plan must have for its kernel to be compiled and stored."""

    @property
    def name(self) -> str: ...  # folder, file and `extern "C"` symbol
    @property
    def spec(self) -> str: ...  # the request, as YAML
    @property
    def sass(self) -> Sass: ...
    def to_json(self) -> str: ...


def assemble(
    plan: Buildable,
    files: Mapping[str, bytes],
    *,
    key: str,
    toolchain: Mapping[str, str],
    resources: Mapping[str, Any],
    sass: tuple[Mapping[str, Any], ...],
) -> dict[str, bytes]:
    """Every file of an artifact, the manifest included.

    `files` is what the plan does not hold: the text, and what the compilers made of it.
    """
    recorded = {SPEC: plan.spec.encode(), PLAN: plan.to_json().encode(), **files}
    records = {name: FileRecord.of(recorded[name]) for name in RECORDED}
    manifest = Manifest(plan.name, key, toolchain, resources, sass, records)
    return {**recorded, MANIFEST: manifest.to_json().encode()}


# --- Reading ------------------------------------------------------------------------------------


def read(folder: str | Path) -> Artifact:
    """The artifact in a folder, every file of it checked.

    Raises CorruptArtifactError when a file is missing, truncated or changed, or the folder is not
    an artifact of this schema version; ArtifactError when a file cannot be read.
    """
    folder = Path(folder)
    return checked(folder, lambda name: _content(folder / name))


def checked(folder: Path, content: Callable[[str], bytes]) -> Artifact:
    """The artifact whose files `content` gives by name, every one checked. Raises as `read` does.

    Errors name the files as those of `folder`.
    """
    text = content(MANIFEST)
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        raise _corrupt(folder / MANIFEST, "a manifest of this gemmgen", error) from None
    if set(manifest.files) != set(RECORDED):
        raise _corrupt(folder / MANIFEST, ", ".join(RECORDED), ", ".join(manifest.files))
    files = {MANIFEST: text}
    for name, record in manifest.files.items():
        files[name] = content(name)
        if (found := FileRecord.of(files[name])) != record:
            raise _corrupt(folder / name, record, found)
    return Artifact(folder, manifest, files)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _corrupt(path, "a file of a built kernel", "nothing") from None
    except OSError as error:
        raise ArtifactError(
            "a built kernel cannot be read", where=path, got=error.strerror
        ) from None


def _corrupt(path: Path, expected: object, got: object) -> CorruptArtifactError:
    return CorruptArtifactError(
        "not a whole built kernel",
        where=path,
        expected=expected,
        got=got,
        fix="build it again with `gemmgen build`",
    )


# --- Writing ------------------------------------------------------------------------------------


def write(files: Mapping[str, bytes], folder: Path) -> Artifact:
    """Put an artifact at `folder`, in the place of an older one, whole or not at all.

    Raises OutputError when the folder cannot be written, or holds what gemmgen did not write.
    """
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = _sibling(folder)
        try:
            staging.mkdir()
            for name, content in files.items():
                _write_durably(staging / name, content)
            _put_in_place(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise output_error(error, folder) from error
    return Artifact(folder, Manifest.from_json(files[MANIFEST]), dict(files))


def _sibling(folder: Path) -> Path:
    """A new hidden name beside a folder, on the same file system."""
    return folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")


def _write_durably(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        # Delayed allocation and network file systems report a full disk no earlier than here.
        os.fsync(file.fileno())


def _put_in_place(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; for an instant there may be no folder, never half a one."""
    while True:
        try:
            os.rename(staging, folder)  # takes the place of nothing, or of an empty folder
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = _sibling(folder)
        try:
            os.rename(folder, aside)
            os.rename(staging, folder)
            return
        except FileNotFoundError:
            continue  # another process has just moved the old folder away
        finally:
            _discard(aside, folder)


def _discard(aside: Path, folder: Path) -> None:
    """Remove the replaced folder, or bring it back when nothing has taken its place."""
    if not folder.exists() and aside.exists():
        os.rename(aside, folder)
    shutil.rmtree(aside, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    """Let go an older artifact, or the part of one that is under version control; nothing else."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return
    foreign = names - {*RECORDED, MANIFEST}
    if foreign or (names and PLAN not in names):
        raise OutputError(
            "the folder holds something else than a built kernel",
            where=folder,
            expected=f"a new or empty folder, or {PLAN} with no files but gemmgen's beside it",
            got=", ".join(sorted(foreign or names)[:5]),
            fix="move these files away, or choose another folder with --out",
        )


_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("free space", "free some space, or choose another folder with --out"),
    errno.EDQUOT: ("free space", "free some of your quota, or choose another folder with --out"),
    errno.ENOTDIR: ("a folder", "move the file away, or choose another folder with --out"),
    errno.EEXIST: ("a folder", "move the file away, or choose another folder with --out"),
}
_OTHER_CAUSE = ("a folder that you may write", "choose another folder with --out")


def output_error(error: OSError, folder: Path) -> OutputError:
    """What kept `folder`, or a file at its place, from being written."""
    expected, fix = _CAUSES.get(error.errno or 0, _OTHER_CAUSE)
    # What stands in the way of a parent is named; a name of ours beside the folder helps nobody.
    above = error.filename and Path(error.filename) in folder.parents
    return OutputError(
        "a built kernel cannot be written",
        where=error.filename if above else folder,
        expected=expected,
        got=error.strerror or error,
        fix=fix,
    )
