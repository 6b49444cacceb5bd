"""Single passes on minimal input: the expected part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from strategies import spec

from gemmgen.errors import SpecError
from gemmgen.passes import lower
from gemmgen.passes.promotion import first_block_columns, scale_parts
from gemmgen.plan import KernelPlan
from gemmgen.sass_patch import Pattern
from gemmgen.scaling import copies, shared_columns
from gemmgen.spec import GemmSpec
from gemmgen.target import Swizzle


def plan_of(**keys: Any) -> KernelPlan:
    return lower(GemmSpec(**spec(**keys)))


@pytest.mark.parametrize(
    ("tile_n", "across", "expected"),
    [
        (128, 1, (128,)),
        (256, 1, (128,)),
        (256, 2, (128,)),
        (64, 1, (64,)),
        (16, 1, (16,)),
        (192, 1, (64, 128)),
        (192, 2, (32, 64, 96)),
        (96, 1, (32, 64, 96)),
        (176, 1, (16, 32, 48, 64, 80, 96, 112, 128)),
    ],
)
def test_how_tiles_meet_scale_blocks(tile_n: int, across: int, expected: tuple[int, ...]) -> None:
    assert first_block_columns(tile_n, tile_n // across, across, 128, tiles=10**6) == expected


def test_only_the_tiles_that_exist_count() -> None:
    assert first_block_columns(176, 176, 1, 128, tiles=1) == (128,)
    assert plan_of(tile="128x176", n=176).promotion.first_block_columns == (128,)
    assert len(plan_of(tile="128x176", n="dynamic").promotion.first_block_columns) == 8


@pytest.mark.parametrize("tile_n", range(16, 257, 16))
def test_every_column_has_its_scale(tile_n: int) -> None:
    """The CUDA text's block of a column, for every start of a tile, against division by 128."""
    for tile in range(64):
        start = tile * tile_n
        first = min(128 - start % 128, tile_n)
        for column in range(0, tile_n, 8):
            block = 0 if column < first else 1 + (column - first) // 128
            assert start // 128 + block == (start + column) // 128


@pytest.mark.parametrize("tile_n", range(16, 257, 16))
def test_columns_that_share_a_scale_lie_in_one_block(tile_n: int) -> None:
    """The CUDA text's parts of the columns, for all ways to straddle that share a copy."""
    ways = first_block_columns(tile_n, tile_n, 1, 128, tiles=10**6)
    shared = shared_columns(ways)
    if not shared:
        assert copies(ways) == {way: [way] for way in ways}
        return
    assert len(copies(ways)) <= 3
    assert sorted(way for its in copies(ways).values() for way in its) == list(ways)
    most = max(scale_parts(tile_n, its, 128, shared) for its in copies(ways).values())
    for tile in range(64):
        start = tile * tile_n
        way = min(128 - start % 128, tile_n)
        first, its = next((copy, its) for copy, its in copies(ways).items() if way in its)
        count = (its[-1] - first) // shared + 1
        for column in range(0, tile_n, 8):
            beyond = column - first
            within = min(beyond % 128 // shared, count - 1)
            part = 0 if beyond < 0 else 1 + count * (beyond // 128) + within
            block, number = divmod(part - 1, count)
            begin = 0 if part == 0 else first + block * 128 + number * shared
            assert part < most
            assert (start + begin) // 128 == (start + column) // 128


@pytest.mark.parametrize("tile_n", range(16, 257, 16))
def test_stores_meet_no_bank_conflict(tile_n: int) -> None:
    """Eight rows of a stmatrix write to eight different groups of four banks."""
    store = plan_of(tile=f"64x{tile_n}").store
    row_bytes = 2 * store.columns
    for chunk in range(store.columns // 8):
        for half in range(2):
            groups = set()
            for row in range(8 * half, 8 * half + 8):
                offset = row * row_bytes
                swizzle = (offset >> 7 & store.swizzle.mask) << 4
                groups.add((offset + (16 * chunk ^ swizzle)) // 16 % 8)
            assert len(groups) == 8
    assert store.columns * store.chunks * plan_of(tile=f"64x{tile_n}").warps.consumers_n == tile_n


@pytest.mark.parametrize("tile_n", range(16, 257, 16))
def test_stores_of_f32_meet_no_bank_conflict(tile_n: int) -> None:
    """Half a warp writes 8 bytes a thread, four rows, to sixteen different pairs of banks."""
    store = plan_of(tile=f"64x{tile_n}", d={"dtype": "f32"}).store
    row_bytes = 4 * store.columns
    for group in range(store.columns // 8):
        for rows in (range(4), range(4, 8)):
            pairs = set()
            for row in rows:
                for thread in range(4):
                    column = 8 * group + 2 * thread
                    if store.swizzle is Swizzle.B128 and row % 2:
                        column ^= 16
                    swizzle = (row & store.swizzle.mask) << 4
                    pairs.add((row * row_bytes + (4 * column ^ swizzle)) // 8 % 16)
            assert len(pairs) == 16
    assert store.columns * store.chunks * plan_of(tile=f"64x{tile_n}").warps.consumers_n == tile_n


def test_swizzle_fields() -> None:
    assert [(s.span, s.mask, s.alignment) for s in Swizzle] == [
        (0, 0, 128),
        (32, 1, 256),
        (64, 3, 512),
        (128, 7, 1024),
    ]


def test_the_signature_and_the_arguments_come_from_one_place() -> None:
    plan = plan_of(n="dynamic")
    assert [argument.name for argument in plan.arguments] == ["a", "scale_a", "b", "scale_b", "d"]
    assert [param.name for param in plan.params] == [
        "tensor_map_a",
        "tensor_map_b",
        "tensor_map_scale_a",
        "tensor_map_d",
        "scale_b",
        "m",
        "n",
    ]
    assert {param.source for param in plan.params if param.kind != "scalar"} == {
        argument.name for argument in plan.arguments
    }
    assert str(plan.arguments[3].shape[0]) == "ceil(n/128)"
    assert plan_of(m=4096).params[-1].name == "scale_b"


def test_weights_that_are_read_once_leave_l2_first() -> None:
    assert plan_of(expected_m=64).operand_b.l2_hint == "evict_first"
    assert plan_of(expected_m=4096).operand_b.l2_hint == "evict_normal"
    assert plan_of(expected_m=64, l2_hint={"a": "evict_last"}).operand_b.l2_hint == "evict_normal"


def test_a_pattern_stands_in_the_plan_and_not_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(Pattern.parse("8x64:0101010101010101").to_json())
    plan = plan_of(sass=["strip_interleave", f"pattern(file={path})"])
    path.unlink()
    assert plan.sass.passes == ("strip_interleave", "pattern(yields=8x64:0101010101010101)")
    again = lower(GemmSpec(**yaml.safe_load(plan.spec)))
    assert again == plan
    with pytest.raises(SpecError, match=r"cannot be read[\s\S]*sass: .*best\.json"):
        plan_of(sass=[f"pattern(file={path})"])


def test_sass_and_toolchain_reach_the_plan() -> None:
    assert plan_of().sass.passes == ("sparse_yield",)
    assert plan_of(sass=[]).sass.passes == ()
    assert plan_of(sass=["interleave_ffma"], toolchain="13.0").sass.toolchain == "13.0"


def test_flaws_are_allowed_by_name() -> None:
    """The spec's names are the toolchain's: the spec must not import a compiler to know them."""
    from typing import get_args

    from gemmgen.spec import CodeFlaw
    from gemmgen.toolchain import Flaw

    assert set(get_args(CodeFlaw)) == {flaw.value for flaw in Flaw}
    assert plan_of(allow=["spills"]).sass.allow == ("spills",)
