"""Plans, and tensors that a kernel would take, in the memory of the host."""

from __future__ import annotations

from typing import Any

import pytest
import stand_in_gpus
import torch

from gemmgen import GemmSpec, KernelPlan, lower, numerics


@pytest.fixture
def gpus(monkeypatch) -> stand_in_gpus.StandInDriver:
    return stand_in_gpus.install(monkeypatch)


@pytest.fixture
def make_plan():
    def make(**keys: Any) -> KernelPlan:
        a, b = {"dtype": "e4m3", "scale": "1x128"}, {"dtype": "e4m3", "scale": "128x128"}
        return lower(GemmSpec(**({"n": 256, "k": 384} | keys), a=a, b=b, d={"dtype": "bf16"}))

    return make


@pytest.fixture
def make_tensors():
    """By argument name, in call order."""

    def make(m: int, n: int = 256, k: int = 384) -> dict[str, torch.Tensor]:
        k_blocks = -(-k // 128)
        return {
            "a": torch.zeros(m, k).to(torch.float8_e4m3fn),
            "scale_a": numerics.to_m_major(torch.ones(m, k_blocks)),
            "b": torch.zeros(n, k).to(torch.float8_e4m3fn),
            "scale_b": torch.ones(-(-n // 128), k_blocks),
            "d": torch.zeros(m, n, dtype=torch.bfloat16),
        }

    return make
