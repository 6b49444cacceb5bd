"""The grid of a launch."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemmgen import LaunchError
from gemmgen.runtime.call import balance_ctas, count_clusters, count_ctas, param_values
from gemmgen.runtime.layout import TensorView


@pytest.mark.parametrize(
    ("m", "n", "clusters"), [(0, 256, 0), (1, 8, 1), (128, 128, 1), (129, 128, 2), (300, 300, 9)]
)
def test_clusters_of_one_cta(make_plan, m: int, n: int, clusters: int) -> None:
    assert count_clusters(make_plan(tile="128x128", cluster="1x1"), m, n) == clusters


@pytest.mark.parametrize(
    ("cluster", "clusters"), [("1x1", 9), ("2x1", 6), ("1x2", 6), ("2x2", 4), ("4x1", 3)]
)
def test_a_cluster_covers_tiles_beside_each_other(make_plan, cluster, clusters) -> None:
    assert count_clusters(make_plan(tile="128x128", cluster=cluster), 300, 300) == clusters


@pytest.mark.parametrize(
    ("clusters", "cluster", "resident", "num_sms", "ctas"),
    [
        (1000, 1, 132, None, 132),
        (7, 1, 132, None, 7),
        (1000, 2, 60, None, 120),
        (7, 2, 66, None, 14),
        (1000, 1, 132, 100, 100),
        (1000, 2, 66, 101, 100),
        (1000, 2, 60, 132, 120),
        (3, 2, 66, 100, 6),
    ],
)
def test_whole_clusters_that_run_at_once_and_have_work(
    clusters, cluster, resident, num_sms, ctas
) -> None:
    assert count_ctas(clusters, cluster, resident, num_sms) == ctas


@pytest.mark.parametrize(
    ("m", "ctas", "equal"),
    [
        (4096, 132, 128),  # 32 rows of tiles
        (4096, 131, 128),
        (4096, 100, 100),  # a twenty-fifth would be idle
        (4096, 40, 40),
        (4608, 132, 132),  # 36 rows would leave 24 idle
        (128 * 70, 132, 132),
        (128 * 200, 132, 132),
        (1, 132, 132),
    ],
)
def test_as_many_ctas_for_every_row_of_tiles(make_plan, m: int, ctas: int, equal: int) -> None:
    plan = make_plan(tile="128x128", k=512, schedule="a_stationary")
    assert balance_ctas(plan, m, 10**6, ctas) == equal


@pytest.mark.parametrize(
    ("clusters", "ctas", "even"),
    [
        (2048, 132, 128),  # 16 waves
        (4096, 132, 128),  # 32 instead of 31 and a few tiles
        (1024, 132, 128),
        (1320, 132, 132),
        (133, 132, 132),  # half of them would be idle
        (900, 132, 129),
        (100, 100, 100),
        (1, 1, 1),
    ],
)
def test_no_more_ctas_than_have_equally_many_tiles(make_plan, clusters, ctas, even) -> None:
    assert balance_ctas(make_plan(tile="128x256"), 128, clusters, ctas) == even
    pairs = make_plan(tile="128x128", cluster="2x1")
    assert balance_ctas(pairs, 128, clusters, 2 * ctas) == 2 * even


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it holds no state
@given(st.integers(1, 10**6), st.integers(1, 132))
def test_fewer_ctas_take_no_more_waves(make_plan, clusters: int, at_once: int) -> None:
    ctas = min(clusters, at_once)
    fewer = balance_ctas(make_plan(tile="128x256"), 128, clusters, ctas)
    assert 1 <= fewer <= ctas
    assert -(-clusters // fewer) == -(-clusters // ctas)


@pytest.mark.parametrize(
    "keys",
    [
        {"grouping": "masked", "groups": 4},  # only the GPU knows how many tiles there are
        {"grouping": "contiguous_ends", "groups": 4},
        {"tile": "16x64", "split_k": 2},  # all multiprocessors draw weights
    ],
    ids=str,
)
def test_who_keeps_all_ctas(make_plan, keys) -> None:
    assert balance_ctas(make_plan(**{"tile": "128x128", **keys}), 128, 2048, 132) == 132


@pytest.mark.parametrize(("cluster", "num_sms"), [(1, 0), (2, 1), (1, -1)])
def test_a_cluster_must_fit(cluster: int, num_sms: int) -> None:
    with pytest.raises(LaunchError, match=f"at least {cluster}"):
        count_ctas(1000, cluster, 132, num_sms)


@pytest.mark.parametrize(
    ("m", "strides", "pitch"),
    [(20, (72, 1), 72), (20, (2**33, 1), 2**33), (1, (5, 1), 72)],  # of one row, any
)
def test_the_pitch_of_an_output_without_a_tensor_map(make_plan, m, strides, pitch) -> None:
    plan = make_plan(tile="16x64", split_k=2, n=72, k=256)
    shapes = ((m, 256), (m, 2), (72, 256), (1, 2), (m, 72))
    views = [TensorView(1 << 20, shape, (shape[1], 1)) for shape in shapes]
    views[4] = TensorView(1 << 20, shapes[4], strides)
    values = param_values(plan, {"m": m, "n": 72, "k": 256, "g": 1}, views)
    names = [param.name for param in plan.params]
    assert values[names.index("pitch_d")] == pitch
