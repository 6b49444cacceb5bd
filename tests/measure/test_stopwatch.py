"""Rotation, and which kernel belongs to which candidate. Needs torch, no GPU."""

from __future__ import annotations

from gemmgen.measure.stopwatch import Kernel, Timing, between_markers, rotated


def test_every_candidate_takes_every_place() -> None:
    order = rotated(3, 6)
    rounds = [order[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(each) == [0, 1, 2] for each in rounds)
    assert [each[0] for each in rounds] == [0, 1, 2, 0, 1, 2]


def test_kernels_belong_to_the_call_between_their_markers() -> None:
    names = ["Memset", "cosh", "gemm", "cosh", "Memset", "cosh", "fill", "gemm", "cosh"]
    kernels = [Kernel(name, float(at), 1.0) for at, name in enumerate(names)]
    calls = between_markers(kernels[::-1])
    assert [[kernel.name for kernel in call] for call in calls] == [["gemm"], ["fill", "gemm"]]
    assert between_markers(kernels[:-1]) == []
    assert between_markers([]) == []


def test_median_and_spread() -> None:
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0), "gemm", "cupti")
    assert (timing.median, timing.spread) == (3.0, 2.0)
