"""Tests that need a Hopper GPU; each is skipped where there is none."""

from __future__ import annotations

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a machine with a GPU, torch and its libraries warn of what is not ours to mend."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def hopper() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA Hopper GPU; torch sees no GPU")
    capability = torch.cuda.get_device_capability()
    if capability != (9, 0):
        pytest.skip(
            f"needs an NVIDIA Hopper GPU, compute capability 9.0; this one has {capability}"
        )
