"""What a plan's kernel calls, and with which arguments: lists that a template cannot make.

A declaration and its calls come from one list of parameters, so that they agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.grouping import Grouping
from gemmgen.plan import KernelPlan, Operand, Scales
from gemmgen.spelling_copies import MainloopCopies, mainloop_copies
from gemmgen.spelling_function import DeviceFunction
from gemmgen.spelling_release import Release, release_of
from gemmgen.spelling_tma import TmaLoad, tma_load
from gemmgen.spelling_wgmma import WgmmaStatement, wgmma_statement


@dataclass(frozen=True)
class Copy:
    """One TMA copy of the producer, or a loop of them."""

    call: str
    condition: str = ""
    count: str = ""  # a constant's name when there are several


@dataclass(frozen=True)
class GroupScales:
    """Where the scales of a tile's group begin."""

    name: str
    start: str


class Spelling:
    """The names and lists that the templates of one kernel print."""

    def __init__(self, plan: KernelPlan, grouping: Grouping) -> None:
        self._plan, self._grouping = plan, grouping
        promotion = plan.promotion
        self.scales = (("a", promotion.scales_a), ("b", promotion.scales_b))

    # --- Promotion ------------------------------------------------------------------------------

    @property
    def promote(self) -> str:
        """The template of `promote`; none when the tensor core's sums are the totals."""
        promotion = self._plan.promotion
        if promotion.interval_k is None:
            return ""
        if promotion.scales_b.way == "stage":
            return "promotion/columns.cuh.jinja"
        return f"promotion/{'blocks' if self.factors else 'sums'}.cuh.jinja"

    @property
    def factors(self) -> str:
        """What `multiply_scales` is given; empty when no scale is multiplied ahead of promotion."""
        a, b = self._plan.promotion.scales_a, self._plan.promotion.scales_b
        names = [", scales_a"] * (a.way in ("stage", "ahead")) + [", scales_b"] * (b.way == "ahead")
        return "scales" + "".join(names) if names else ""

    @property
    def wgmma(self) -> WgmmaStatement:
        return wgmma_statement(self._plan)

    @property
    def k_tile_of_a(self) -> str:
        """Where the K tile of A that is multiplied lies."""
        return "k_tile" if self._plan.pipeline.a_stationary else "ring.stage"

    @property
    def first_a_of_interval(self) -> str:
        """Where the first K tile of A of several that are summed lies."""
        return "first_a" + " + k_tile * (kBytesA / 16)" * self._plan.pipeline.a_stationary

    def in_stage(self, name: str, ring: str = "ring", k_tile: str = "k_tile") -> str:
        """The address of an operand's K tile, or of its scales."""
        stays = self._plan.pipeline.a_stationary and name.endswith("a")
        return f"ring.{name}({k_tile})" if stays else f"{ring}.{name}()"

    @property
    def scales_of_a(self) -> str:
        """The address of this thread's scales of A of the K tile that has arrived."""
        line = " + scales_at % 128" * self._plan.promotion.scales_a.by_line
        thread = "reads.scales_a" if self._plan.for_few_rows else "scale_offset_a"
        return f"ring.scale_a(){line} + {thread}"

    @property
    def release(self) -> Release:
        return release_of(self._plan)

    @property
    def scaled(self) -> bool:
        """Whether scales change along K."""
        return bool(self.factors) or self._plan.promotion.scales_b.way == "stage"

    @property
    def promoted(self) -> str:
        """What `promote` is given before the wave."""
        promotion = self._plan.promotion
        accumulators = "accumulators[wave]" if promotion.kept else "accumulators"
        columns = ["scales_b", self.scales_b_address] * (promotion.scales_b.way == "stage")
        return ", ".join(["totals", accumulators, *["scales"] * bool(self.factors), *columns])

    @property
    def scales_b_address(self) -> str:
        """Of this thread's first scale of B for a wave, where every column has one."""
        promotion = self._plan.promotion
        part = "part * kBytesPartB + " if promotion.parts > 1 else ""
        ring = "behind" if promotion.kept else "ring"
        return f"{ring}.scale_b() + {part}scale_offset_b + 4 * wave_n * kMmaN"

    @property
    def first_interval(self) -> str:
        """Number along K of a tile's first promotion interval."""
        parts = " * kParts" if self._plan.promotion.parts > 1 else ""
        return f"first_k_tile{parts}" if self._grouping.sliced else "0"

    @property
    def next_interval(self) -> str:
        """Number of the interval after the one that is being summed."""
        promotion = self._plan.promotion
        if promotion.kept:
            return "k_tile / kIntervalTiles + 1"
        if promotion.parts > 1:
            k_tile = "(first_k_tile + k_tile)" if self._grouping.sliced else "k_tile"
            return f"{k_tile} * kParts + part + 1"
        return "first_k_tile + " * self._grouping.sliced + "k_tile + 1"

    @property
    def formula(self) -> str:
        """What is computed, and what is multiplied where."""
        promotion = self._plan.promotion
        inner = [f"scale_{x}" for x, s in self.scales if s.way in ("stage", "ahead")]
        outer = [f"scale_{x}" for x, s in self.scales if s.way == "after"]
        total = "sum over K of A . B^T"
        if promotion.interval_k:
            blocks = f"sum over blocks of {promotion.interval_k} along K of"
            total = " * ".join([f"{blocks} (A . B^T)", *inner])
        addend = "C[m, n] + " if self._plan.problem.c else ""
        return f"D[m, n] = {addend}" + " * ".join([f"({total})" if outer else total, *outer])

    # --- Functions ------------------------------------------------------------------------------

    @property
    def mainloop(self) -> DeviceFunction:
        a, b = self._plan.promotion.scales_a, self._plan.promotion.scales_b
        any_row = self._grouping.any_row and a.way == "stage"
        return DeviceFunction(
            "mainloop",
            (
                ("Totals& totals", "totals"),
                *self._late_store,
                ("Ring& ring", "ring"),
                *self._scales_at,
                *(self._pointer(x) for x, s in self.scales if s.way == "ahead"),
                ("Problem problem", "problem"),
                *[("uint32_t first_k_tile", "tile.first_k_tile")] * self._grouping.sliced,
                *[("uint32_t k_tiles", "tile.k_tiles")] * self._grouping.sliced,
                *[("uint32_t m", "row")] * (a.way == "ahead"),
                *[("uint32_t n", "column")] * (b.way == "ahead"),
                ("uint32_t warp", "warp"),
                ("uint32_t lane", "lane"),
                *[("uint32_t first_scale", "tile.m % 4")] * any_row,
            ),
        )

    @property
    def few_rows_mainloop(self) -> DeviceFunction:
        plan = self._plan
        return DeviceFunction(
            "mainloop",
            (
                ("Totals& totals", "totals"),
                ("Ring& ring", "ring"),
                ("const Reads& reads", "reads"),
                *self._scales_at,
                ("const float* scale_b", "scales"),
                ("uint32_t k_tiles", "k_tiles"),
                *[("uint32_t& k_tile", "k_tile")] * (plan.warps.consumers_k > 1),
                ("uint32_t lane", "lane"),
            ),
        )

    @property
    def _scales_at(self) -> tuple[tuple[str, str], ...]:
        """Where a tile's scales of A begin in global memory, the low word, and those of K tiles."""
        if not self._plan.promotion.scales_a.by_line:
            return ()
        first = "first * scale_pitch(problem) + " * (self._plan.cluster.k > 1)
        start = ("uint32_t scales_at", f"low_word(scale_a + {first}tile.m)")
        return (start, ("uint32_t pitch", "4 * scale_pitch(problem)"))

    @property
    def _late_store(self) -> tuple[tuple[str, str], ...]:
        """What the store of the tile before needs."""
        if not self._plan.store.late:
            return ()
        map_d, buffers = ("const TensorMap& map_d", "tensor_map_d"), ("uint32_t buffers", "buffers")
        d = [("Element* d", "d")] * self._grouping.clipped
        packed, turn = ("const PackedTile& packed", "packed"), ("uint32_t& turn", "turn")
        return (packed, map_d, *d, buffers, turn)

    @property
    def of_copy(self) -> MainloopCopies:
        return mainloop_copies(self._plan, self.mainloop)

    @property
    def scale_totals(self) -> DeviceFunction:
        after = [(x, s) for x, s in self.scales if s.way == "after"]
        return DeviceFunction(
            "scale_totals",
            (
                ("Totals& totals", "totals"),
                *(self._pointer(x) for x, _ in after),
                ("Problem problem", "problem"),
                *[("uint32_t row", "row + lane / 4")],
                *[("uint32_t column", "column + lane % 4 * 2")],
            ),
        )

    @property
    def load_tiles(self) -> DeviceFunction:
        maps = ["a", "b", *(f"scale_{x}" for x, s in self.scales if s.by_map)]
        return DeviceFunction(
            "load_tiles",
            (
                ("Ring ring", "ring"),
                ("TileScheduler tile", "tile"),
                ("Problem problem", "problem"),
                *((f"const TensorMap& map_{name}", f"tensor_map_{name}") for name in maps),
                *[("const float* scale_a", "scale_a")] * self._plan.promotion.scales_a.by_line,
                *[("uint32_t rank", "rank")] * (self._plan.cluster.k > 1),
            ),
        )

    def _pointer(self, operand: str) -> tuple[str, str]:
        grouped = f"scale_{operand}" in self._grouping.grouped
        return f"const float* scale_{operand}", f"{'group_' * grouped}scale_{operand}"

    @property
    def group_scales(self) -> list[GroupScales]:
        """Scales that are read through a pointer and lie group by group."""
        return [
            GroupScales(
                f"group_scale_{x}", f"scale_{x} + uint64_t(tile.group) * ({_scales_of_group(x, s)})"
            )
            for x, s in self.scales
            if s.way in ("ahead", "after") and f"scale_{x}" in self._grouping.grouped
        ]

    @property
    def loads_b_if(self) -> bool:
        """Whether scales of B are loaded by `load_global_if`, the others by `load_global`."""
        return self._plan.promotion.scales_b.way == "ahead" and self._plan.store.late

    @property
    def loads_b_last(self) -> bool:
        """Whether the last wave of a K tile loads the next scales of B, not the first: measured."""
        return self.loads_b_if and self._grouping.name != "contiguous"

    @property
    def loads_global(self) -> bool:
        ways = [s.way for x, s in self.scales if x == "a" or not self.loads_b_if]
        return "ahead" in ways or "after" in ways

    # --- The producer ---------------------------------------------------------------------------

    @property
    def loaded_k_tile(self) -> str:
        """Number of the K tile that is loaded; k_tile counts those of the tile, or of the CTA."""
        if self._grouping.sliced:
            return "(tile.first_k_tile + k_tile)"
        return "(first + k_tile)" if self._plan.cluster.k > 1 else "k_tile"

    @property
    def copies(self) -> list[Copy]:
        """What fills a stage, in the order in which it is asked for: what streams comes first."""
        (b, *scale_b), (a, *scale_a) = self.copies_of_b, self.copies_of_a
        return [b, a, *scale_a, *scale_b]

    @property
    def copies_of_a(self) -> list[Copy]:
        return self._copies(self._plan.operand_a, "m", self._plan.cluster.multicast_a, "n")

    @property
    def copies_of_b(self) -> list[Copy]:
        return self._copies(self._plan.operand_b, "n", self._plan.cluster.multicast_b, "m")

    def _copies(self, operand: Operand, axis: str, multicast: bool, rank: str) -> list[Copy]:
        name, upper = operand.name, operand.name.upper()
        several = operand.boxes > 1
        smem = self.in_stage(name) + f" + i * kBoxBytes{upper}" * several
        start = f"tile.{axis}" + f" + i * kBoxColumns{upper}" * several
        where = ("k", start) if operand.major == "k" else (start, "k")
        extra = (
            self._group(name) + [f"ctas_{name}"] * multicast + [f"policy_{name}"] * operand.hinted
        )
        function = "tma_multicast" if multicast else "tma_load"
        copy = Copy(
            call=f"{function}({', '.join([smem, f'map_{name}', 'full', *where, *extra])});",
            condition=f"if (tile.rank_{rank} == 0) " if multicast else "",
            count=f"kBoxes{upper}" if several else "",
        )
        return [copy, *self._scale_copies(name, axis)]

    def _scale_copies(self, operand: str, axis: str) -> list[Copy]:
        if dict(self.scales)[operand].way != "stage":
            return []
        if dict(self.scales)[operand].by_line:
            place = "ring.scale_a() + low_word(scales) % 128"
            return [Copy(f"bulk_load({place}, scales, scale_bytes, full);")]
        upper, parts = operand.upper(), self._plan.promotion.parts > 1
        smem = self.in_stage(f"scale_{operand}") + f" + i * kBytesPart{upper}" * parts
        k = "(k + i * kIntervalK)" if parts else "k"
        # From a multiple of 16 bytes on: TMA takes no other coordinate on the innermost axis.
        any_row = self._grouping.any_row and operand == "a"
        start = "tile.m - tile.m % 4" if any_row else f"tile.{axis}"
        where = [start, f"{k} / kScaleBlockK{upper}", *self._group(f"scale_{operand}")]
        call = f"tma_load({', '.join([smem, f'map_scale_{operand}', 'full', *where])});"
        return [Copy(call, count="kParts" if parts else "")]

    def _group(self, name: str) -> list[str]:
        return ["tile.group"] * (name in self._grouping.grouped)

    @property
    def loads(self) -> list[TmaLoad]:
        """The forms of TMA load that the producer uses, each once."""
        plan, cluster = self._plan, self._plan.cluster

        def rank(name: str) -> int:
            return 3 if name in self._grouping.grouped else 2

        forms = [
            (rank("b"), cluster.multicast_b, plan.operand_b.hinted),
            (rank("a"), cluster.multicast_a, plan.operand_a.hinted),
            *((rank(f"scale_{x}"), False, False) for x, s in self.scales if s.by_map),
        ]
        return [tma_load(*form) for form in dict.fromkeys(forms)]


def _scales_of_group(operand: str, scales: Scales) -> str:
    """How many scales of an operand one group has."""
    axis = "m" if operand == "a" else "n"
    if scales.way == "ahead":
        upper = operand.upper()
        rows = f"ceil_div(problem.{axis}, kScaleBlock{axis.upper()})"
        return f"{rows} * ceil_div(problem.k, kScaleBlockK{upper})"
    return f"problem.{axis}" if scales.block_mn else "1"
