"""What compat tests share: calls that are noted where operators would run them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ops.conftest import compilers, gpus

import gemmgen.compat.deep_gemm as deep_gemm
from gemmgen import ops
from gemmgen.ops import library

__all__ = ["compilers", "gpus"]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    ops.set_num_sms(None)
    ops.set_pdl(False)
    deep_gemm.set_tc_util(100)
    deep_gemm.set_compile_mode(0)
    deep_gemm.set_mk_alignment_for_contiguous_layout(128)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What operators were called with: grouping, a, scale_a, b, scale_b, index, c, d, rows."""
    made: list[SimpleNamespace] = []
    names = ("a", "scale_a", "b", "scale_b", "index", "bias", "c", "d")

    def run(op, grouping, tensors, rows, num_sms, epilogue=None) -> None:
        assert not epilogue
        given = dict(zip(names, tensors, strict=True))
        made.append(SimpleNamespace(grouping=grouping, rows=rows, **given))

    monkeypatch.setattr(library, "run", run)
    return made
