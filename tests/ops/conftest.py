"""Calls of operators with stand-ins for compilers, GPUs and their driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stand_in_gpus
import stand_ins
import torch

import gemmgen
from gemmgen import build
from gemmgen.ops import dispatch, warming


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> stand_ins.Compilers:
    monkeypatch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GEMMGEN_STRICT", raising=False)
    stand_in = stand_ins.Compilers()
    stand_in.install(monkeypatch)
    return stand_in


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, compilers) -> Iterator[stand_in_gpus.StandInDriver]:
    dispatch.forget()
    # Of what no compiler made, nobody counts the registers.
    monkeypatch.setattr(build, "_check_registers", lambda plan, compiled: None)
    monkeypatch.setattr(warming, "_load_conversions", lambda index: None)
    # A tensor that only pretends to be on a GPU is nothing that torch has to see.
    monkeypatch.setattr("gemmgen.ops.library.PLAIN", (torch.Tensor, stand_in_gpus.OnGpu))
    yield stand_in_gpus.install(monkeypatch)
    dispatch.forget()
    dispatch.set_num_sms(None)
    dispatch.set_pdl(False)
    gemmgen.unseal()
