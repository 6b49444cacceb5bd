"""Options and tiers of the test suite."""

from __future__ import annotations

import os

import pytest
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


@pytest.fixture
def update_generated(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-generated"))
