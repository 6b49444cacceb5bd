"""What hypothesis may ask for: specs over every key, most of them buildable."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gemmgen.dtypes import DTYPES
from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.grouping import GROUPINGS
from gemmgen.scaling import COMMON_BLOCKS, NAMED

FP8_BLOCK_SCALED: dict[str, Any] = {
    "a": {"dtype": "e4m3", "scale": "1x128"},
    "b": {"dtype": "e4m3", "scale": "128x128"},
    "d": {"dtype": "bf16"},
}


def spec(**keys: Any) -> dict[str, Any]:
    """The keys of the dense FP8 spec of the README, with some replaced."""
    return {**FP8_BLOCK_SCALED, "n": 7168, "k": 16384, **keys}


def auto_or(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just("auto") | values


tiles = st.builds(
    "{}x{}x{}".format,
    st.sampled_from((64, 128, 192, 256, 320, 96, 8, 16, 40)),
    st.sampled_from(range(8, 273, 8)),
    st.sampled_from((128, 128, 128, 64)),
)
layouts = st.builds(
    "{}x{}x{}".format,
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from((1, 1, 1, 2, 3, 4)),
)
clusters = st.builds("{}x{}".format, st.integers(1, 5), st.integers(1, 4))
sizes = st.integers(1, 1024).map(lambda i: 16 * i) | st.just("dynamic")

WAYS_OUT = ({"dtype": "bf16"}, {"dtype": "f32"}, {"dtype": "e4m3", "scale": "1x128"})

# Dense FP8 with block scales, every way out: what this version builds, in any shape and structure.
buildable = st.fixed_dictionaries(
    {
        "a": st.just(FP8_BLOCK_SCALED["a"]),
        "b": st.just(FP8_BLOCK_SCALED["b"]),
        "d": st.sampled_from(WAYS_OUT),
        "n": sizes,
        "k": sizes,
    },
    optional={
        "m": st.integers(0, 10_000) | st.just("dynamic"),
        "expected_m": auto_or(st.integers(1, 100_000)),
        "tile": auto_or(tiles),
        "cluster": auto_or(clusters),
        "stages": auto_or(st.integers(1, 14)),
        "warpgroups": auto_or(layouts),
        "unroll": auto_or(st.integers(1, 8)),
        "early_wait": auto_or(st.booleans()),
        "late_store": auto_or(st.booleans()),
        "split_k": auto_or(st.integers(1, 2)),
        "swap_ab": auto_or(st.booleans()),
        "raster": auto_or(st.integers(1, 40)),
        "schedule": st.sampled_from(("auto", "auto", "a_stationary")),
        "l2_hint": auto_or(st.just({"b": "evict_first"})),
        "sass": auto_or(st.sampled_from(([], ["sparse_yield"], ["interleave_ffma"]))),
        "toolchain": auto_or(st.just("12.8")),
        "accumulate": st.booleans(),
        "epilogue": st.lists(st.sampled_from(tuple(EPILOGUE_OPS)), max_size=2, unique=True),
        "pdl": st.booleans(),
        "batch_invariant": st.booleans(),
        "name": st.sampled_from(("moe-up", "8x8", "int", "mainloop", "k_1")),
    },
)

operands = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(tuple(DTYPES)),
        "scale": st.sampled_from((*NAMED, *COMMON_BLOCKS, "1x64")),
    }
)

# Every key, every value that a spec may hold.
anything = st.builds(
    lambda first, second: {**first, **second},
    buildable,
    st.fixed_dictionaries(
        {},
        optional={
            "a": operands,
            "b": operands,
            "d": st.fixed_dictionaries({"dtype": st.sampled_from(tuple(DTYPES))}),
            "grouping": st.sampled_from(tuple(GROUPINGS)),
            "groups": st.integers(1, 64),
            "schedule": st.sampled_from(("auto", "cooperative", "a_stationary", "pingpong")),
            "split_k": auto_or(st.integers(1, 4)),
            "c": st.fixed_dictionaries({"dtype": st.sampled_from(("bf16", "f32"))}),
            "allow": st.lists(st.sampled_from(("spills", "serialized_wgmma")), max_size=2),
            "epilogue": st.lists(st.sampled_from(tuple(EPILOGUE_OPS)), max_size=3),
            "bias": st.fixed_dictionaries({"dtype": st.sampled_from(("bf16", "f32"))}),
        },
    ),
)
