from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gemmgen.toolchain

FILES = sorted(Path(gemmgen.toolchain.__file__).parent.glob("*.py"))
# Only a process that runs a compiler needs these; `import gemmgen` does not pay for them.
LAZY = {"ctypes", "shutil", "signal", "subprocess", "tempfile"}


def imported(tree: ast.Module) -> set[str]:
    """Give the modules that the import of a file imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_imports_are_cheap_and_of_this_room(file: Path) -> None:
    names = imported(ast.parse(file.read_text(encoding="utf-8")))
    assert not names & LAZY
    ours = {name for name in names if name.startswith("gemmgen") and name != "gemmgen.errors"}
    assert all(name.startswith("gemmgen.toolchain") for name in ours)
