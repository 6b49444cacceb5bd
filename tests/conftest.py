"""Options and tiers of the test suite."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from command_line import Run, runner
from hypothesis import settings

# The same examples everywhere: a failure that one machine finds, every machine finds.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
os.environ.setdefault("TERM", "dumb")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-generated",
        action="store_true",
        help="write generated/ anew from specs/ instead of comparing",
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache, unless they are told where one is; and plan
    without the user's tuned table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMGEN_TUNED", "")
        if "GEMMGEN_CACHE_DIR" not in os.environ:
            patch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command line."""
    return runner(capsys)


@pytest.fixture
def update_generated(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-generated"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of benchmarks/ by its name, for one test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).parent.name == "benchmarks":
            del sys.modules[name]
