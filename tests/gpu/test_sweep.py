"""A sweep with a GPU: kernels are built, checked and timed, beside cuBLASLt, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemmgen.research import Database, Options, Sweep
from gemmgen.research.progress import Counts

pytestmark = [pytest.mark.gpu, pytest.mark.toolchain]

ASKED: dict[str, Any] = {
    "base": {
        "a": {"dtype": "e4m3", "scale": "1x128"},
        "b": {"dtype": "e4m3", "scale": "128x128"},
        "d": {"dtype": "bf16"},
    },
    "vary": {"tile": ["64x64", "64x128"], "stages": [3, 4]},
    "shapes": ["64x2112x7168", "64x4096x512"],
}


def test_every_variant_is_right_and_timed(tmp_path: Path) -> None:
    sweep = Sweep(ASKED, tmp_path / "r.db")
    assert sweep.run(options=Options(rounds=20)).counts() == Counts(8, 8, 0, 8)
    for row in sweep.rows():
        assert row["status"] == "ok"
        assert 1 < row["us"] < 200
        assert row["error"] < 2.5e-3
        assert row["timer"] == "cupti"
        assert row["sm_clock_mhz"] > 500
    with Database(sweep.path) as database:
        peers = {row["candidate"]: row["us"] for row in database.peers() if row["k"] == 7168}
    assert peers["cublaslt_block"] > 1
    before = sweep.rows()
    assert Sweep(ASKED, sweep.path).run().rows() == before  # nothing is timed again
