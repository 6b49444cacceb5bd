"""What a quantising kernel is, decided. Sizes and strides come at launch; nothing else does.

Extents are in elements unless a comment says bytes. Data, and the functions that decide it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from gemmgen.dtypes import DTYPES
from gemmgen.errors import UnsupportedError
from gemmgen.plan import Sass
from gemmgen.scaling import parse_granularity

SCHEMA_VERSION = 1
LOAD_BYTES = 16  # of one load of a thread
LANE_ELEMENTS = 16  # of a block that lanes share: few enough lanes for a short reduction
HELD_BYTES = 64  # of a thread, in flight at once: 64 KB an SM with 1024 threads hide the latency
CTA_ELEMENTS = 16384  # of the largest block that a CTA keeps in registers
HELD_ROW = 8192  # elements of a row that a CTA keeps in registers
NARROWEST, WIDEST = LANE_ELEMENTS, 32 * LANE_ELEMENTS  # K blocks: a lane's share, and a warp's

# The reference divides; kernels multiply by a reciprocal and correct. One correction is exact for
# every quotient of short numbers over 448 or 57344 (tests/test_quantise.py tries them all), two are
# for all of FP32.
CORRECTIONS = {"bf16": 1, "f16": 1, "f32": 2}
CUDA_BITS = {2: "unsigned short", 4: "unsigned int"}  # by bytes of an element


@dataclass(frozen=True)
class Param:
    """One parameter of the CUDA kernel, in signature order."""

    name: str
    type: str  # as C++ spells it; a pointer, uint32_t or uint64_t


@dataclass(frozen=True)
class QuantisePlan:
    """Everything that a quantising kernel is."""

    name: str
    kernel: str  # of templates/quantise: blocks | ctas | amax | tensor | transpose
    title: str
    x: str  # dtype of the input
    x8: str  # of the codes; f32 for scales that stay what they are
    granularity: str
    aligned: bool  # rows begin at multiples of 16 bytes and hold whole vectors
    block_rows: int  # that share a scale; 0: all
    block_k: int  # elements of K that share a scale; 0: all
    threads: int
    resident: int  # CTAs of an SM that registers must suffice for
    vector: int  # elements of one load
    vectors: int  # of a block that a thread holds
    lanes: int  # of a warp that share a block
    unroll: int  # blocks (`blocks`) or vectors (`amax`, `tensor`) of a thread in flight
    rows_first: bool  # a warp takes rows of one K block
    tile_rows: int  # of a CTA
    tile_blocks: int  # of a CTA, along K
    params: tuple[Param, ...]
    sass: Sass

    @property
    def spec(self) -> str:
        """The request, as YAML."""
        keys = ("kernel", "x", "x8", "granularity", "aligned", "rows_first")
        return "".join(f"{key}: {json.dumps(getattr(self, key))}\n" for key in keys)

    @property
    def element(self) -> str:
        return CUDA_BITS[DTYPES[self.x].bytes]

    @property
    def corrections(self) -> int:
        return CORRECTIONS[self.x]

    @property
    def largest(self) -> str:
        """The largest finite code's value, as C++ spells it."""
        return f"{DTYPES[self.x8].largest}f"

    @property
    def signature(self) -> str:
        return ",\n    ".join(f"{param.type} {param.name}" for param in self.params)

    def to_json(self) -> str:
        """The plan as JSON text."""
        record = {"schema": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(record, indent=2) + "\n"


@cache
def plan_quantiser(
    x: str, x8: str, granularity: str, *, aligned: bool = True, rows_first: bool = False
) -> tuple[QuantisePlan, ...]:
    """The kernels that quantise `x` (bf16, f16, f32) to `x8` (FP8), in order of their launches.

    `rows_first`: the scales of neighbouring rows are neighbours in memory, as in the fast layout.
    Raises UnsupportedError for an input type or a granularity that no kernel is made for.
    """
    block = parse_granularity(granularity)
    rows, k = block.mn or 0, block.k or 0
    if x not in CORRECTIONS:
        _refuse("x", " or ".join(CORRECTIONS), x)
    if not has_kernel(granularity):
        expected = (
            f"tensor, row, or RxK with K a multiple of {NARROWEST} and "
            f"no more than {CTA_ELEMENTS} elements"
        )
        _refuse("granularity", expected, granularity)
    if granularity == "tensor":
        kernels: tuple[str, ...] = ("amax", "tensor")
    elif rows == 1 and 0 < k <= WIDEST and k & (k - 1) == 0:
        kernels = ("blocks",)
    else:
        kernels, rows_first = ("ctas",), False
    # The first pass over a matrix knows nothing of the codes: one kernel serves all of them.
    plans = []
    for kernel in kernels:
        first = kernel == "amax"
        codes, transposed = ("f32", False) if first else (x8, rows_first)
        plans.append(_plan(kernel, x, codes, granularity, aligned, rows, k, transposed))
    return tuple(plans)


def has_kernel(granularity: str) -> bool:
    """Whether kernels are made for blocks of this granularity."""
    block = parse_granularity(granularity)
    rows, k = block.mn or 0, block.k or 0
    return block.scaled and not k % NARROWEST and rows * k <= CTA_ELEMENTS


@cache
def plan_transpose() -> QuantisePlan:
    """The kernel of numerics.to_m_major."""
    return _plan("transpose", "f32", "f32", "1x128", False, 1, 128, True)


def _refuse(where: str, expected: str, got: str) -> NoReturn:
    raise UnsupportedError(
        "no kernel quantises this",
        where=where,
        expected=expected,
        got=got,
        fix='numerics.quantize(..., kernels="torch") takes everything',
    )


# --- Structures ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Structure:
    """The fields of a plan that are arithmetic."""

    threads: int
    resident: int
    vectors: int = 1
    lanes: int = 1
    unroll: int = 1
    tile_rows: int = 1
    tile_blocks: int = 1


def _blocks(vector: int, aligned: bool, k: int, rows_first: bool) -> _Structure:
    """Lanes share a block, a warp has several, and a thread several of these one after another."""
    threads, warps = 128, 4
    lanes = k // LANE_ELEMENTS
    vectors = LANE_ELEMENTS // vector
    # Element by element, loads hit L1 and one block is enough; every block needs a lane to store
    # its scale.
    unroll = min(HELD_BYTES // (vectors * LOAD_BYTES), lanes) if aligned else 1
    members = 32 // lanes
    tile = (members * unroll, warps) if rows_first else (warps * members, unroll)
    return _Structure(threads, 8 if aligned else 4, vectors, lanes, unroll, *tile)


def _ctas(vector: int, aligned: bool, rows: int, k: int) -> _Structure:
    threads = 256
    vectors = -(-(rows * k or HELD_ROW) // (threads * vector))
    resident = next(ctas for most, ctas in ((4, 4), (8, 3), (vectors, 2)) if vectors <= most)
    if not aligned:
        resident = 1 if vectors > 8 else 2
    return _Structure(threads, resident, vectors, tile_rows=max(rows, 1))


def _plan(
    kernel: str,
    x: str,
    x8: str,
    granularity: str,
    aligned: bool,
    rows: int,
    k: int,
    rows_first: bool,
) -> QuantisePlan:
    vector = LOAD_BYTES // DTYPES[x].bytes
    if kernel == "blocks":
        structure = _blocks(vector, aligned, k, rows_first)
    elif kernel == "ctas":
        structure = _ctas(vector, aligned, rows, k)
    elif kernel == "transpose":
        structure = _Structure(256, 4, tile_rows=64, tile_blocks=32)
    else:
        structure = _Structure(256, 4 if aligned else 2, unroll=4)
    order = "_rows_first" if rows_first else ""
    any_address = "" if aligned else "_any_address"
    spelled = f"quantise_{x}_{x8}_{granularity}{order}{any_address}"
    names = {
        "amax": f"amax_{x}{any_address}",
        "transpose": "transpose_scales",
    }
    titles = {
        "amax": f"The largest finite magnitude that each CTA finds in a matrix of {x}.",
        "transpose": "Scales [rows, K blocks], to stride 1 over rows.",
    }
    title = f"{x} to {x8}, FP32 scales of {granularity} blocks."
    return QuantisePlan(
        name=names.get(kernel, spelled),
        kernel=kernel,
        title=titles.get(kernel, title),
        x=x,
        x8=x8,
        granularity=granularity,
        aligned=aligned,
        block_rows=rows,
        block_k=k,
        vector=vector,
        rows_first=rows_first,
        params=PARAMS[kernel],
        sass=Sass((), "auto", (), "no run of FFMA to interleave"),
        **dataclasses.asdict(structure),
    )


# --- Signatures ---------------------------------------------------------------------------------

_TILES = (
    Param("row_pitch", "uint64_t"),
    Param("group_pitch", "uint64_t"),
    Param("row_tiles", "uint32_t"),
    Param("k_tiles", "uint32_t"),
    Param("scale_row", "uint64_t"),
    Param("scale_block", "uint64_t"),
    Param("scale_group", "uint64_t"),
)
_SIZES = (Param("rows", "uint32_t"), Param("k", "uint32_t"))
_CODES = (
    Param("x", "const Element* __restrict__"),
    Param("x8", "uint8_t* __restrict__"),
    Param("scale", "float* __restrict__"),
)
_SHARES = (
    Param("row_pitch", "uint64_t"),
    Param("group_pitch", "uint64_t"),
    Param("ctas", "uint32_t"),
)
_SCALES = (Param("x", "const float* __restrict__"), Param("scale", "float* __restrict__"))
PARAMS = {
    "blocks": (*_CODES, *_SIZES, *_TILES),
    "ctas": (*_CODES, *_SIZES, *_TILES),
    "amax": (_CODES[0], Param("partial", "float* __restrict__"), *_SIZES, *_SHARES),
    "tensor": (
        *_CODES,
        Param("partial", "const float* __restrict__"),
        *_SIZES,
        *_SHARES,
        _TILES[-1],
    ),
    "transpose": (*_SCALES, *_SIZES, *_TILES),
}
