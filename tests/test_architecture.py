"""The house rules: who may import whom, what `import gemmgen` costs, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import cpu_seconds

PACKAGE = Path(__file__).parent.parent / "gemmgen"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A room is a module or a package at the top of gemmgen; `spec` stands for all files of that prefix.
AXES = {"dtypes", "scaling", "grouping", "epilogue", "target"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    **{axis: {"errors"} for axis in AXES},
    "spec": {"errors", *AXES},
    "plan": {
        *("scaling", "target"),
        *("plan_params", "plan_pipeline", "plan_record", "plan_smem", "plan_store"),
    },
    "plan_params": {"target"},
    "plan_record": {"target"},
    "plan_pipeline": set(),
    "plan_store": {"target"},
    "plan_smem": set(),
    "model": {"plan", *AXES},
    "tuned": {"errors", "spec", "plan", "target"},
    "passes": {"errors", "tuned", "spec", "plan", "sass_patch", *AXES},
    "plan_sets": {"errors", "spec", "plan", "passes", *AXES},
    "spelling_copies": {"spelling_function", "plan"},
    "spelling_function": set(),
    "spelling_release": {"plan"},
    "spelling_tma": set(),
    "spelling_wgmma": {"plan"},
    "spelling": {
        *("spelling_copies", "spelling_function", "spelling_release", "spelling_tma"),
        *("spelling_wgmma", "plan", *AXES),
    },
    "spelling_epilogue": {"spelling_function", "plan", *AXES},
    "render": {"errors", "version", "plan", "spelling", "spelling_epilogue", *AXES},
    "counters": set(),
    "sealing": {"errors"},
    "toolchain": {"errors"},
    "sass_patch": {"errors"},
    "artifact": {"errors", "plan"},
    "cache": {"errors", "plan", "artifact"},
    "bundle": {"errors", "version", "artifact", "cache"},
    "build": {
        *("errors", "spec", "plan", "passes", "render", "toolchain", "sass_patch"),
        *("artifact", "cache", "bundle", "counters", "sealing", "target"),
    },
    "export": {"errors", "plan", "render", "artifact", *AXES},
    "runtime": {
        *("errors", "plan", "artifact", "cache", "counters", "sealing", "toolchain", *AXES),
    },
    "quantise": {
        *("errors", "plan", "render", "build", "artifact", "runtime", "toolchain", *AXES),
    },
    "numerics": {"errors", "quantise", *AXES},
    "ops": {
        *("errors", "spec", "plan", "plan_sets", "build", "counters", "sealing"),
        *("runtime", "numerics", *AXES),
    },
    "measure": {"errors", "artifact", "numerics", "runtime"},
    "compat": {
        *("errors", "spec", "plan", "plan_sets", "toolchain", "artifact", "counters", "sealing"),
        *("numerics", "ops", "measure", *AXES),
    },
    "tune": {"errors", "sass_patch", "measure"},
    "research": {
        *("errors", "version", "spec", "plan", "passes", "render", "build", "artifact", "cache"),
        *("inspection", "sass_patch", "toolchain", "runtime", "numerics", "measure"),
        *("cubin_file", "cli_json", "model", "tuned", *AXES),
    },
    "tables": {"plan"},
    "doctor": {"errors", "version", "target", "toolchain", "cache", "runtime"},
    "inspection": {"errors", "toolchain", "sass_patch"},
    "inspection_tables": {"sass_patch", "inspection"},
    "cubin_file": {"errors", "artifact"},
    "cli_json": set(),
    "cli_progress": set(),
    "cli_target": {"errors", "target", "runtime"},
    "cli_bench": {
        *("errors", "spec", "target", "runtime", "measure", "research", "cli_json"),
        *("cli_progress", "cli_target"),
    },
    "cli_sass": {
        *("errors", "sass_patch", "artifact", "cubin_file"),
        *("inspection", "inspection_tables", "cli_json"),
    },
    "cli_toolchain": {"errors", "toolchain", "cli_json"},
    "tune_tables": {"measure", "tune"},
    "cli_tune": {
        *("errors", "spec", "build", "artifact", "cubin_file", "runtime", "measure"),
        *("tune", "tune_tables", "research", "cli_json", "cli_progress", "cli_tune_plans"),
    },
    "cli_tune_plans": {
        *("errors", "version", "target", "spec", "cubin_file", "tuned", "research"),
        *("cli_json", "cli_progress"),
    },
    "cli_serving": {
        *("errors", "spec", "plan", "passes", "plan_sets", "build", "export", "runtime", "target"),
        *("cli_json", "cli_progress", "cli_target"),
    },
    "cli_sweep": {"research"},
    "cli_report": {"research"},
    "cli": {
        *("errors", "version", "spec", "passes", "build", "cache", "doctor", "tables"),
        *("cli_bench", "cli_json", "cli_progress", "cli_report", "cli_sass", "cli_serving"),
        *("cli_sweep", "cli_target", "cli_toolchain", "cli_tune", "target"),
    },
    "__main__": {"cli"},
    "__init__": {"errors", "version", "plan", "render", "counters", "sealing"},
}

# Packages of others, and the rooms that may import them.
GUESTS = {
    "torch": {"runtime", "quantise", "numerics", "ops", "compat", "measure", "research"},
    "triton": {"research"},
    "deep_gemm": {"research"},
    "pynvml": {"measure"},
    "cuda": {"runtime", "doctor"},
    "pydantic": {"spec"},
    "yaml": {"spec", "research"},
    "jinja2": {"render", "research"},
    "elftools": {"sass_patch"},
    # toolchain: the store of `gemmgen toolchain install` lies in the cache folder, under a lock.
    "filelock": {"cache", "toolchain", "runtime", "research"},
    "platformdirs": {"cache", "toolchain", "tuned"},
    "typer": {
        *("cli", "cli_bench", "cli_json", "cli_report", "cli_sass", "cli_sweep", "cli_toolchain"),
        *("cli_serving", "cli_target", "cli_tune", "cli_tune_plans"),
    },
    "rich": {"cli_progress", "tables", "inspection_tables", "research", "tune_tables"},
    "dask": {"research"},
    "pandas": {"research"},
    "pyarrow": {"research"},
    "plotly": {"research"},
    "matplotlib": {"research"},
    "optuna": {"research"},
}
LAZY = {
    *{("doctor", "cuda"), ("doctor", "runtime"), ("render", "jinja2"), ("cache", "filelock")},
    ("runtime", "filelock"),
    *{
        ("toolchain", "filelock"),
        ("toolchain", "platformdirs"),
        ("tuned", "platformdirs"),
        ("numerics", "quantise"),
    },
}

IMPORT_SECONDS = 2 * 0.15  # twice the budget: a test machine has other things to do
MOST_LINES = 350


def room_of(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "spec" if name.startswith("spec_") else name


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names that a file imports, and whether it does so as it is imported itself."""

    def visit(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            children = node.orelse
        elif isinstance(node, ast.Import):
            yield from ((alias.name, eager) for alias in node.names)
            return
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            # `from gemmgen import x` imports the room x.
            names = [node.module or ""]
            if names == ["gemmgen"]:
                names = [f"gemmgen.{alias.name}" for alias in node.names]
            yield from ((name, eager) for name in names)
            return
        else:
            children = list(ast.iter_child_nodes(node))
        inner = eager and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in children:
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text()), True)


def rooms_imported(path: Path) -> Iterator[tuple[str, bool]]:
    for name, eager in imports(path):
        if name.split(".")[0] == "gemmgen":
            yield room_of(PACKAGE / name.split(".")[1]), eager


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} is new: say in ROOMS what it may import"
    for imported, eager in rooms_imported(path):
        assert imported in {room, *ROOMS[room]}, f"{room} may not import {imported}"
        assert not (eager and (room, imported) in LAZY), f"{room} imports {imported} lazily"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_guests_stay_in_their_rooms(path: Path) -> None:
    room = room_of(path)
    for name, eager in imports(path):
        guest = name.split(".")[0]
        if guest in ("gemmgen", "__future__") or guest in sys.stdlib_module_names:
            continue
        assert guest in GUESTS, f"{guest} is new: say in GUESTS who may import it"
        assert room in GUESTS[guest], f"{room} may not import {guest}"
        assert not (eager and (room, guest) in LAZY), f"{room} imports {guest} lazily"


def test_the_rooms_have_an_order() -> None:
    placed: set[str] = set()
    while waiting := ROOMS.keys() - placed:
        ready = {room for room in waiting if ROOMS[room] <= placed}
        assert ready, f"these rooms import each other: {waiting}"
        placed |= ready


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_importing_gemmgen_loads_nothing_heavy() -> None:
    loaded = python("import sys, gemmgen; print(*{name.split('.')[0] for name in sys.modules})")
    assert set(GUESTS).isdisjoint(loaded.split())


def test_importing_gemmgen_is_fast() -> None:
    assert min(cpu_seconds(lambda: python("import gemmgen")) for _ in range(5)) < IMPORT_SECONDS


def test_every_public_name_has_a_home() -> None:
    found = python(
        "import gemmgen\n"
        "lazy = {*gemmgen._HOMES, *gemmgen._MODULES}\n"
        "print(*(set(gemmgen.__all__) - lazy - set(vars(gemmgen))), *(lazy - set(gemmgen.__all__)))"
    )
    assert found.split() == []


def test_the_function_render_wins_over_the_module_of_that_name() -> None:
    code = "import gemmgen.render, gemmgen.build; print(type(gemmgen.render).__name__)"
    assert python(code).strip() == "function"


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *sorted(PACKAGE.rglob("*.jinja"))],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
