"""The cost model: what must follow from what, and how far it is from what was measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gemmgen.model import H200, Work, dram_bytes, predict, recorded_plan, wave_count
from gemmgen.passes import lower
from gemmgen.spec import GemmSpec

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMS = 132
MOST_WRONG = 0.15  # the median of the absolute errors

A_B_D = {
    "a": {"dtype": "e4m3", "scale": "1x128"},
    "b": {"dtype": "e4m3", "scale": "128x128"},
    "d": {"dtype": "bf16"},
}


def work(m: int = 4096, n: int = 7168, k: int = 7168, **keys: object) -> Work:
    return Work.of(lower(GemmSpec(**A_B_D, n=n, k=k, expected_m=m, **keys)), m, n, k)


def us(work: Work) -> float:
    return predict(work, SMS, H200).us


def test_the_median_error_on_the_measured_times_is_small(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    fit_model = script("fit_model")
    samples = list(fit_model.read(BENCHMARKS / "results" / "dense-nvidia-h200.jsonl"))
    errors = [fit_model.error(sample, H200) for sample in samples]
    with capsys.disabled():
        print(f" median error of {len(errors)} times: {statistics.median(errors):.1%}")
    assert len(errors) >= 21
    assert statistics.median(errors) <= MOST_WRONG


@pytest.mark.parametrize("size", ["m", "n", "k"])
def test_more_work_takes_longer(size: str) -> None:
    times = [us(dataclasses.replace(work(), **{size: 2**power})) for power in range(9, 15)]
    assert times == sorted(times)
    assert times[-1] > 1.5 * times[0]


def test_yields_and_more_warpgroups_hide_promotion() -> None:
    assert us(work(sass=[])) > us(work())
    alone = dataclasses.replace(work(tile="64x128"), consumers=1)
    assert us(alone) > us(dataclasses.replace(alone, consumers=2))


def test_clusters_gain_where_l2_is_the_limit_alone() -> None:
    alone, pair = work(tile="128x64"), work(tile="128x64", cluster="2x1")
    assert us(pair) > us(alone)
    slow = dataclasses.replace(H200, l2=H200.l2 / 4)
    assert predict(pair, SMS, slow).us < predict(alone, SMS, slow).us


def test_narrow_instructions_wait_for_shared_memory() -> None:
    narrow, wide = (predict(work(m=8192, tile=tile), SMS, H200) for tile in ("128x16", "128x128"))
    assert narrow.tensor > 1.1 * wide.tensor


def test_a_recorded_plan_is_the_same_work() -> None:
    plan = lower(GemmSpec(**A_B_D, n=2112, k=7168, cluster="2x1", tile="128x128"))
    record = recorded_plan(plan.to_json().replace('"arguments"', '"what_others_call_arguments"'))
    assert Work.of(record, 64, 2112, 7168) == Work.of(plan, 64, 2112, 7168)


def test_a_kernel_without_promotion_is_faster() -> None:
    assert us(dataclasses.replace(work(), promotions=0.0)) < us(work())


def test_few_rows_are_bound_by_memory_and_many_by_the_tensor_core() -> None:
    few, many = (predict(work(m=m), SMS, H200) for m in (64, 8192))
    assert few.dram > few.tensor
    assert many.tensor > many.dram


def test_no_time_beats_the_limits_of_the_device() -> None:
    for m in (1, 64, 300, 4096):
        part = predict(work(m=m), SMS, H200)
        assert part.us > max(part.dram, part.tensor, part.promotion, part.epilogue) > 0


def test_waves_count_whole_ones_and_a_share_of_the_last() -> None:
    one = dataclasses.replace(work(tile="128x128"), m=128 * 132, n=128, cluster_m=1, cluster_n=1)
    assert wave_count(one, 132, 0.62) == 1
    half = dataclasses.replace(one, m=128 * 66)
    assert wave_count(half, 132, 0.62) == 1  # alone it is not hidden
    more = dataclasses.replace(one, m=128 * 198)
    assert wave_count(more, 132, 0.62) == pytest.approx(1 + 0.38 + 0.31)
    pairs = dataclasses.replace(one, cluster_m=2, m=128 * 131)
    assert wave_count(pairs, 132, 0.62) == 1


def test_ctas_that_share_k_each_do_a_part_of_it() -> None:
    few = dataclasses.replace(work(m=64, n=2112), split_k=1)
    whole, halves = (predict(dataclasses.replace(few, split_k=s), SMS, H200) for s in (1, 2))
    assert halves.waves == whole.waves == 1  # the machine is not full
    assert halves.tensor == pytest.approx(whole.tensor / 2)
    full = dataclasses.replace(few, m=64 * 264)
    assert wave_count(dataclasses.replace(full, split_k=2), SMS, 0.62) > wave_count(full, SMS, 0.62)


def test_operands_that_stay_in_l2_come_once() -> None:
    small = dataclasses.replace(work(m=4096, n=2112, k=2048), band=1)
    once = 4096 * 2048 + 2112 * 2048 + 2 * 4096 * 2112
    assert dram_bytes(small, l2_bytes=30e6) == once
    assert dram_bytes(small, l2_bytes=1e6) > once
