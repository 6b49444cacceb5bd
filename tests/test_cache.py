"""The cache: keys that miss nothing, one build however many ask, no damage that lasts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from strategies import spec

from gemmgen import artifact, cache
from gemmgen.cache import Cache, CacheWarning, cache_key
from gemmgen.errors import CompileError, OutputError
from gemmgen.passes import lower
from gemmgen.spec import GemmSpec

KEY = "ab" * 32

# What a process of these tests runs: a "compiler" that counts its runs, then what the test adds.
PROCESS = """
import os, sys, time
from pathlib import Path
from gemmgen import artifact
from gemmgen.cache import Cache
from gemmgen.plan import KernelPlan

root, keys = Path(sys.argv[1]), sys.argv[2:]
plan = KernelPlan.from_json((root / "plan.json").read_text())
made_by_compiler = set(artifact.RECORDED) - {artifact.SPEC, artifact.PLAN}

def build(key):
    (root / "builds" / f"{key}.{os.getpid()}").touch()
    time.sleep(0.02)
    files = {name: key.encode() * 99 for name in made_by_compiler}
    return artifact.assemble(plan, files, key=key, toolchain={}, resources={}, sass=())

def ask(key):
    store = Cache(root / "cache")
    found = store.find(key) or store.build_once(key, lambda: build(key))
    assert found.cubin == key.encode() * 99
"""


@pytest.fixture(scope="module")
def plan_json() -> str:
    return lower(GemmSpec(**spec(n=2112, k=7168))).to_json()


@pytest.fixture
def root(tmp_path: Path, plan_json: str) -> Path:
    (tmp_path / "builds").mkdir()
    (tmp_path / artifact.PLAN).write_text(plan_json)
    return tmp_path


@pytest.fixture
def store(root: Path) -> Cache:
    return Cache(root / "cache")


@pytest.fixture
def files(plan_json: str) -> dict[str, bytes]:
    return built_files(plan_json, KEY)


def built_files(plan_json: str, key: str, cubin: bytes = b"cubin") -> dict[str, bytes]:
    made = dict.fromkeys(set(artifact.RECORDED) - {artifact.SPEC, artifact.PLAN}, cubin)
    plan = artifact.KernelPlan.from_json(plan_json)
    return artifact.assemble(plan, made, key=key, toolchain={}, resources={}, sass=())


def no_build() -> Mapping[str, bytes]:
    pytest.fail("built although it is stored")


def start(root: Path, code: str, *keys: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PROCESS + code, str(root), *keys]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


# --- Keys ---------------------------------------------------------------------------------------

INPUTS = {
    "plan_json": "{}",
    "source": "__global__",
    "toolchain": {"ptxas": "12.8.93", "ptxas_options": "-v"},
    "passes": [("interleave_ffma", 1), ("sparse_yield", 1)],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan_json", "{ }"),
        ("source", "__global__ "),
        ("toolchain", {"ptxas": "12.9.86", "ptxas_options": "-v"}),
        ("toolchain", {"ptxas": "12.8.93", "ptxas_options": "-v -O3"}),
        ("toolchain", {"ptxas": "12.8.93"}),
        ("passes", [("sparse_yield", 1), ("interleave_ffma", 1)]),
        ("passes", [("interleave_ffma", 1), ("sparse_yield", 2)]),
        ("passes", [("interleave_ffma", 1)]),
        ("passes", []),
    ],
)
def test_every_input_changes_the_key(name: str, value: object) -> None:
    assert cache_key(**{**INPUTS, name: value}) != cache_key(**INPUTS)


@pytest.mark.parametrize("module", [cache.plan, cache.artifact])
def test_every_schema_version_changes_the_key(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache_key(**INPUTS)
    monkeypatch.setattr(module, "SCHEMA_VERSION", 99)
    assert cache_key(**INPUTS) != before


def test_the_key_does_not_depend_on_the_order_of_the_toolchain() -> None:
    toolchain = dict(reversed(INPUTS["toolchain"].items()))
    assert cache_key(**{**INPUTS, "toolchain": toolchain}) == cache_key(**INPUTS)


# --- Root ---------------------------------------------------------------------------------------


def test_the_root_is_what_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path))
    assert cache.default_root() == tmp_path


def test_without_the_variable_the_root_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMMGEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.default_root() == Path("/somewhere/gemmgen")


# --- Hits and misses ----------------------------------------------------------------------------


def test_what_is_built_is_found(store: Cache, files: dict[str, bytes]) -> None:
    assert store.find(KEY) is None
    built = store.build_once(KEY, lambda: files)
    assert store.find(KEY) == built
    assert store.build_once(KEY, no_build) == built


def test_looking_makes_nothing(store: Cache) -> None:
    assert store.find(KEY) is None
    assert list(store.entries()) == []
    assert not store.root.exists()


def test_a_failed_build_stores_nothing(store: Cache, files: dict[str, bytes]) -> None:
    def fail() -> Mapping[str, bytes]:
        raise CompileError("no")

    with pytest.raises(CompileError):
        store.build_once(KEY, fail)
    assert store.find(KEY) is None
    assert store.build_once(KEY, lambda: files).cubin == b"cubin"


def damage_file(folder: Path) -> None:
    (folder / artifact.CUBIN).write_bytes(b"cub")


def damage_plan(folder: Path) -> None:
    (folder / artifact.PLAN).unlink()


def damage_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("a file where a folder should be")


def damage_by_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("nowhere")


@pytest.mark.parametrize("damage", [damage_file, damage_plan, damage_all, damage_by_link])
def test_a_damaged_entry_is_a_miss_and_is_replaced(
    store: Cache, files: dict[str, bytes], damage
) -> None:
    damage(store.build_once(KEY, lambda: files).path)
    assert store.find(KEY) is None
    with pytest.warns(CacheWarning, match="damaged") as caught:
        store.build_once(KEY, lambda: files)
    assert len(caught) == 1
    assert store.find(KEY) is not None


def test_an_entry_of_another_key_is_a_miss(store: Cache, plan_json: str) -> None:
    other = "cd" * 32
    artifact.write(built_files(plan_json, other), store.root / "kernels" / KEY)
    assert store.find(KEY) is None
    with pytest.warns(CacheWarning, match="damaged"):
        store.build_once(KEY, lambda: built_files(plan_json, KEY))
    assert store.find(KEY) is not None


# --- Caches that cannot be used -----------------------------------------------------------------


def unwritable(path: Path, *_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_read_only_cache_still_answers(
    store: Cache, files: dict[str, bytes], plan_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.build_once(KEY, lambda: files)
    original = Path.mkdir

    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        action = unwritable if path.is_relative_to(store.root) else original
        action(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert store.find(KEY) == stored
    missing = "cd" * 32
    with pytest.warns(CacheWarning, match="Read-only") as caught:
        built = store.build_once(missing, lambda: built_files(plan_json, missing))
    assert len(caught) == 1
    assert artifact.read(built.path) == built
    assert not built.path.is_relative_to(store.root)
    assert store.find(missing) is None


def test_a_full_cache_costs_a_warning(
    store: Cache, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = artifact.write

    def write(files: Mapping[str, bytes], folder: Path) -> artifact.Artifact:
        if folder.is_relative_to(store.root):
            raise OutputError("a built kernel cannot be written", got="No space left on device")
        return original(files, folder)

    monkeypatch.setattr(artifact, "write", write)
    with pytest.warns(CacheWarning, match="No space left"):
        assert store.build_once(KEY, lambda: files).cubin == b"cubin"


def test_where_no_disk_has_room_the_kernel_is_in_memory(
    store: Cache, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(files: Mapping[str, bytes], folder: Path) -> artifact.Artifact:
        raise OutputError("a built kernel cannot be written", got="No space left on device")

    monkeypatch.setattr(artifact, "write", write)
    with pytest.warns(CacheWarning, match="No space left"):
        built = store.build_once(KEY, lambda: files)
    assert (built.cubin, built.files) == (b"cubin", files)
    assert not store.root.joinpath("kernels").exists()


def test_a_file_where_the_cache_should_be_costs_a_warning(
    store: Cache, files: dict[str, bytes]
) -> None:
    store.root.write_text("mine")
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert store.build_once(KEY, lambda: files).cubin == b"cubin"
    assert store.root.read_text() == "mine"


def test_a_lost_lock_costs_a_warning(
    store: Cache, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    monkeypatch.setattr(cache, "LOCK_SECONDS", 0)
    (store.root / "locks").mkdir(parents=True)
    with (
        FileLock(store.root / "locks" / KEY),
        pytest.warns(CacheWarning, match="lock of the kernel cache is lost"),
    ):
        store.build_once(KEY, lambda: files)
    assert store.find(KEY) is not None


# --- Many processes -----------------------------------------------------------------------------


# What forks the processes that a test is about: they start at once, without importing anything.
FORKING = """
import random, signal

def fork(ask_for):
    child = os.fork()
    if child == 0:
        try:
            for key in ask_for:
                ask(key)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return child
"""


def test_sixteen_processes_that_ask_at_once_build_each_kernel_once(root: Path) -> None:
    keys = [f"{number:064x}" for number in range(8)]
    code = """
children = [fork(keys[turn % 8:] + keys[:turn % 8]) for turn in range(16)]
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
    processes = start(root, FORKING + code, *keys)
    _, errors = processes.communicate(timeout=60)
    assert (processes.returncode, errors) == (0, "")
    built = [name.split(".")[0] for name in sorted(os.listdir(root / "builds"))]
    assert built == keys


@pytest.mark.toolchain
def test_sixteen_processes_compile_eight_kernels_once(tmp_path: Path) -> None:
    code = """
import os, sys
from gemmgen import GemmSpec, stats
from gemmgen.build import build_kernel

a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
specs = [GemmSpec(a=a, b=b, d={"dtype": "bf16"}, n=64 + 8 * i, k=256, tile="64x64")
         for i in range(8)]
children = []
for turn in range(16):
    children.append(os.fork())
    if children[-1] == 0:
        for i in range(8):
            build_kernel(specs[(turn + i) % 8])
        os.write(1, b"%d\\n" % stats()["builds"])
        os._exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "GEMMGEN_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert sum(map(int, process.stdout.split())) == 8
    assert len(os.listdir(tmp_path / "kernels")) == 8


def test_fifty_builds_killed_at_random_points_leave_a_usable_cache(root: Path) -> None:
    keys = [f"{number:064x}" for number in range(3)]
    code = """
random.seed(0)
finished = 0
for _ in range(50):
    child = fork(keys)
    time.sleep(random.uniform(0.0, 0.08))
    os.kill(child, signal.SIGKILL)
    finished += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # So that the next one has something to build, and sometimes something half-built to find.
    for key in random.sample(keys, 2):
        (root / "cache/kernels" / key).exists() and os.rename(
            root / "cache/kernels" / key, root / f"taken.{random.random()}")
children = [fork(keys) for _ in range(2)]
failed = [os.waitpid(child, 0)[1] for child in children]
print(finished, file=sys.stderr)
sys.exit(any(failed))
"""
    processes = start(root, FORKING + code, *keys)
    _, errors = processes.communicate(timeout=60)
    assert processes.returncode == 0, errors
    assert int(errors) < 25, "most were killed while they built"
    entries = list(Cache(root / "cache").entries())
    assert [entry.key for entry in entries] == keys
    assert not any(entry.problem for entry in entries)


@pytest.mark.parametrize("call", ["build(keys[0])", "fsync 1", "fsync 8", "rename 1"])
def test_a_killed_writer_leaves_a_usable_cache(root: Path, store: Cache, call: str) -> None:
    if call.startswith("build"):
        deadly = "def build(key): os.kill(os.getpid(), 9)\n"
    else:
        function, number = call.split()
        deadly = f"""
calls, original = [], os.{function}
def {function}(*arguments):
    calls.append(arguments)
    if len(calls) == {number}:
        os.kill(os.getpid(), 9)
    original(*arguments)
os.{function} = {function}
"""
    killed = start(root, deadly + "ask(keys[0])", KEY)
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert store.find(KEY) is None

    next_one = start(root, "ask(keys[0])", KEY)
    _, errors = next_one.communicate(timeout=60)
    assert (next_one.returncode, errors) == (0, "")
    assert os.listdir(store.root / "kernels") == [KEY], "the killed writer's files are still there"


# --- List, verify, clear ------------------------------------------------------------------------


def test_entries_tell_names_sizes_and_damage(store: Cache, plan_json: str) -> None:
    whole, damaged = "0" * 64, "f" * 64
    for key in (whole, damaged):
        store.build_once(key, lambda key=key: built_files(plan_json, key))
    damage_file(store.root / "kernels" / damaged)
    first, second = store.entries()
    assert (first.key, second.key) == (whole, damaged)
    assert first.name == artifact.KernelPlan.from_json(plan_json).name
    assert first.bytes == sum(map(len, built_files(plan_json, whole).values()))
    assert first.problem is None
    assert second.name is None
    assert artifact.CUBIN in (second.problem or "")


def test_an_entry_that_is_a_file_is_listed_as_damaged(
    store: Cache, files: dict[str, bytes]
) -> None:
    damage_all(store.build_once(KEY, lambda: files).path)
    (entry,) = store.entries()
    assert entry.problem is not None


def test_clear_removes_what_is_ours_and_nothing_else(store: Cache, files: dict[str, bytes]) -> None:
    store.build_once(KEY, lambda: files)
    leftover = store.root / "kernels" / f".{'cd' * 32}.1234abcd"
    leftover.mkdir()
    (leftover / artifact.CUBIN).write_bytes(b"half")
    theirs = store.root / "kernels" / "letters"
    theirs.mkdir()
    (theirs / "love.txt").write_text("mine")
    assert store.clear() == 1
    assert os.listdir(store.root / "kernels") == ["letters"]
    assert (theirs / "love.txt").read_text() == "mine"
    assert os.listdir(store.root / "locks") == []
    assert store.clear() == 0


def test_what_cannot_be_cleared_is_an_output_error(
    store: Cache, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.build_once(KEY, lambda: files)
    monkeypatch.setattr(cache.shutil, "rmtree", unwritable)
    with pytest.raises(OutputError, match="cannot be cleared"):
        store.clear()
