"""Every output tile is visited exactly once: a Python model of `struct TileScheduler`.

`tests/test_kernels.py` runs the scheduler itself; the model covers sizes that are too large for
that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st


def visited(
    rows: int,
    columns: int,
    band_rows: int,
    cluster: tuple[int, int],
    rank: int,
    start: int,
    grid: int,
) -> Iterator[tuple[int, int]]:
    """Tiles of the CTA `rank` of cluster `start`, in order; the arithmetic of the CUDA text."""
    cluster_m, cluster_n = cluster
    index = start
    while index < rows * columns:
        full = min(band_rows, rows)
        assert full * columns < 2**32
        band = index // (full * columns) * full
        within = index % (full * columns)
        height = min(full, rows - band)
        yield (
            (band + within % height) * cluster_m + rank % cluster_m,
            within // height * cluster_n + rank // cluster_m,
        )
        index += grid


def visited_by_row(rows: int, columns: int, cta: int, ctas: int) -> Iterator[tuple[int, int]]:
    """The same of templates/a_stationary/scheduler."""
    if ctas % rows == 0:
        index, step = cta % rows * columns + cta // rows, ctas // rows
        end = (cta % rows + 1) * columns
    else:
        least, more = divmod(rows * columns, ctas)
        index, step = cta * least + min(cta, more), 1
        end = index + least + (cta < more)
    while index < end:
        yield index // columns, index % columns
        index += step


@given(rows=st.integers(1, 60), columns=st.integers(1, 60), ctas=st.integers(1, 140))
@settings(max_examples=150)
def test_every_tile_once_by_row(rows: int, columns: int, ctas: int) -> None:
    visits = [list(visited_by_row(rows, columns, cta, ctas)) for cta in range(ctas)]
    assert sorted(tile for tiles in visits for tile in tiles) == [
        (row, column) for row in range(rows) for column in range(columns)
    ]
    assert max(map(len, visits)) - min(map(len, visits)) <= 1
    changes = sum(len({row for row, _ in tiles}) for tiles in visits if tiles) - ctas
    assert changes < (rows if ctas % rows else 1)


@given(
    tiles_m=st.integers(1, 60),
    tiles_n=st.integers(1, 60),
    band=st.integers(1, 40) | st.just(2**31 - 1),
    cluster=st.tuples(st.integers(1, 4), st.integers(1, 2)),
    clusters=st.integers(1, 140),
)
@settings(max_examples=150)
def test_every_tile_once(
    tiles_m: int, tiles_n: int, band: int, cluster: tuple[int, int], clusters: int
) -> None:
    rows, columns = -(-tiles_m // cluster[0]), -(-tiles_n // cluster[1])
    grid = min(clusters, rows * columns)
    visits = Counter(
        tile
        for start in range(grid)
        for rank in range(cluster[0] * cluster[1])
        for tile in visited(rows, columns, band, cluster, rank, start, grid)
    )
    assert set(visits.values()) == {1}
    assert {(m, n) for m, n in visits if m < tiles_m and n < tiles_n} == {
        (m, n) for m in range(tiles_m) for n in range(tiles_n)
    }
