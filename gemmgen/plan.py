"""What was decided: one frozen part a decision, all of them data.

`passes.lower` makes a plan, `render` prints it, the runtime launches by it. A plan holds numbers,
names and reasons; nothing here computes but sums of its fields. Extents are in elements.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from gemmgen.plan_params import Extent as Extent
from gemmgen.plan_params import KernelParam as KernelParam
from gemmgen.plan_params import TensorArgument as TensorArgument
from gemmgen.plan_pipeline import Pipeline as Pipeline
from gemmgen.plan_record import from_record
from gemmgen.plan_smem import Smem as Smem
from gemmgen.plan_smem import SmemRegion as SmemRegion
from gemmgen.plan_store import Store as Store
from gemmgen.scaling import copies, shared_columns
from gemmgen.target import Swizzle

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Problem:
    """The GEMM: D[m, n] = sum over k of A[m, k] * B[n, k]. Sizes of None: known at launch only."""

    m: int | None
    n: int | None
    k: int | None
    groups: int  # problems in one launch
    expected_m: int  # the M, of one group, that the planner had in mind
    a: str  # dtype names
    b: str
    d: str
    scale_a: str  # scale granularities
    scale_b: str
    scale_d: str
    layout: str  # nt, nn, tn or tt, as in the BLAS
    c: str | None  # dtype of what is added; None: nothing
    bias: str | None  # dtype of what an operation adds to every row; None: nothing
    operations: tuple[str, ...]  # on the totals, in their order
    reason: str


@dataclass(frozen=True)
class Tile:
    """The block of D that one CTA computes, and its K step."""

    m: int
    n: int
    k: int
    reason: str


@dataclass(frozen=True)
class Cluster:
    """CTAs along M and N that share operands by multicast, or along K that share a tile of D."""

    m: int
    n: int
    k: int
    reason: str

    @property
    def size(self) -> int:
        return self.m * self.n * self.k

    @property
    def shares_operands(self) -> bool:
        return self.m * self.n > 1

    @property
    def multicast_a(self) -> bool:
        """CTAs beside each other along N read the same rows of A."""
        return self.n > 1

    @property
    def multicast_b(self) -> bool:
        """CTAs above each other along M read the same rows of B."""
        return self.m > 1


@dataclass(frozen=True)
class Warps:
    """Roles of the warpgroups and their registers."""

    consumers_m: int  # consumer warpgroups along the tile's M
    consumers_n: int  # and along its N
    consumers_k: int  # that take its K tiles in turn
    threads: int  # of the CTA, the producer warpgroup included
    launch_registers: int  # a thread, as ptxas allots them from the launch bounds
    consumer_registers: int  # a thread, after setmaxnreg
    producer_registers: int
    moves_registers: bool  # False: no setmaxnreg, every role keeps the launch registers
    reason: str

    @property
    def consumers(self) -> int:
        return self.consumers_m * self.consumers_n * self.consumers_k

    @property
    def consumer_warps(self) -> int:
        return 4 * self.consumers


@dataclass(frozen=True)
class Mma:
    """The wgmma instruction and how often a warpgroup issues it to cover its part of the tile."""

    swap_ab: bool  # rows of B lie on wgmma's M axis, rows of A on its N axis
    n: int  # N of one wgmma; its M is 64
    k: int  # K of one wgmma
    waves_m: int  # wgmma tiles of a warpgroup along M
    waves_n: int  # and along N
    a_type: str  # PTX types of wgmma's operands
    b_type: str
    majors: str  # the last immediate operands: which of A and B are MN-major; FP8 has none
    reason: str

    @property
    def accumulators(self) -> int:
        """FP32 registers a thread that one wgmma writes."""
        return self.n // 2

    @property
    def totals(self) -> int:
        """FP32 registers a thread that hold promoted sums."""
        return self.waves_m * self.waves_n * self.accumulators


@dataclass(frozen=True)
class Operand:
    """One operand in shared memory: boxes of rows that fill one swizzle span, a stage.

    K-major, one box of [rows, tile.k]; MN-major, boxes of [tile.k, 64] beside each other.
    """

    name: str
    rows: int  # of the tile
    major: str  # k | mn: the axis that is contiguous
    box: tuple[int, int]  # elements that one TMA copy brings, contiguous axis first
    boxes: int  # a stage
    box_bytes: int
    leading_bytes: int  # of the matrix descriptor: MN-major, from one box to the next
    mma_bytes: int  # from one wgmma's K to the next
    swizzle: Swizzle
    fitted: bool  # no rows beyond the last of the matrix are loaded
    l2_hint: str  # evict_normal | evict_first | evict_last
    reason: str

    @property
    def stage_bytes(self) -> int:
        return self.boxes * self.box_bytes

    @property
    def hinted(self) -> bool:
        """Whether loads carry a policy.

        One of normal priority would not be free: requests of several CTAs for the same lines are
        then no longer merged on their way to L2 (docs/kernel-notes.md).
        """
        return self.l2_hint != "evict_normal"


@dataclass(frozen=True)
class Scales:
    """How the scales of one operand reach the sums.

    stage: one a row and K block, by TMA with the stage. ahead: one a block of rows, loaded one
    interval ahead. after: the same along K, once, after the last K tile. none: no scales."""

    way: str
    block_mn: int  # rows of the operand that share one; 0: all
    block_k: int  # elements of K that share one; 0: all
    rows: int  # stage: FP32 scales of one interval
    bytes: int  # and the shared memory that they take
    # stage: not by a TMA box, but by a plain copy that keeps their place in lines of 128 bytes
    by_line: bool = False

    @property
    def by_map(self) -> bool:
        """Whether a tensor map says where they lie."""
        return self.way == "stage" and not self.by_line

    @property
    def by_pointer(self) -> bool:
        return self.way != "none" and not self.by_map


@dataclass(frozen=True)
class Promotion:
    """How the tensor core's partial sums become FP32 totals."""

    interval_k: int | None  # K elements whose sums the tensor core keeps; None: all
    parts: int  # intervals of one K tile
    k_tiles: int  # K tiles of one interval; 0: all
    scales_a: Scales
    scales_b: Scales
    # ahead: most scale blocks that the columns of one warpgroup touch; with shared columns most
    # parts of them that have a scale of their own
    scale_b_blocks: int
    scale_b_held: bool  # stage: a wave's scales stay in registers for those below it
    # Every count of a warpgroup's columns that can lie in the first of their scale blocks.
    first_block_columns: tuple[int, ...]
    reason: str

    @property
    def shared_columns(self) -> int:
        return shared_columns(self.first_block_columns)

    @property
    def copies(self) -> dict[int, list[int]]:
        return copies(self.first_block_columns)

    @property
    def straddles(self) -> bool:
        """Tiles meet the scale blocks of B in more than one way."""
        return len(self.first_block_columns) > 1

    @property
    def kept(self) -> bool:
        """Sums stay in the tensor core's accumulators beyond one K tile."""
        return self.k_tiles != 1

    def scale_bytes(self, scales: Scales) -> int:
        """Of one operand's scales in the boxes of a K tile."""
        return 4 * self.parts * scales.rows if scales.by_map else 0


@dataclass(frozen=True)
class Reduction:
    """How the sum over K of an element of D is divided between CTAs and warpgroups."""

    parts: int  # partial sums of an element, added in FP32 in this fixed order: CTA, first K tile
    fragments: int  # groups of four totals of a thread that one CTA adds up
    threads: int  # that hold one part of a tile
    keeps_k_order: bool  # one FP32 sum from the first block of K to the last
    reason: str

    @property
    def divided(self) -> bool:
        return self.parts > 1

    @property
    def part_bytes(self) -> int:
        """Shared memory of one part in the CTA that adds it up."""
        return self.fragments * self.threads * 16


@dataclass(frozen=True)
class Scheduler:
    """Which CTA computes which tile, and in which order."""

    grouping: str
    raster_band: int  # cluster tiles along M that are visited before the next column
    reason: str
    by_row: bool = False  # a CTA stays in a row of tiles for as long as it can


@dataclass(frozen=True)
class Launch:
    """The geometry of a launch: persistent, as many whole clusters as run at once."""

    threads: int
    cluster: int  # CTAs; 1: launched without a cluster
    shared_bytes: int
    programmatic: bool  # it may start before the kernel ahead of it has ended, and waits for it
    reason: str
    # One in so many CTAs may be left out, so that every row of tiles has as many (by_row), or every
    # CTA as many tiles; 0: none.
    most_idle: int = 0


@dataclass(frozen=True)
class Sass:
    """What the cubin pass is asked to do, and by which compiler the code is made."""

    passes: tuple[str, ...]
    toolchain: str
    allow: tuple[str, ...]  # flaws of the compiled code that do not refuse the build
    reason: str


def of_few_rows(mma: Mma, reduction: Reduction) -> bool:
    """Of the family of templates/few_rows: swapped operands, or K that is divided."""
    return mma.swap_ab or reduction.divided


@dataclass(frozen=True)
class KernelPlan:
    """Everything that a kernel is, decided."""

    name: str  # folder, file and `extern "C"` symbol
    spec: str  # the request, as YAML
    problem: Problem
    tile: Tile
    cluster: Cluster
    warps: Warps
    mma: Mma
    operand_a: Operand
    operand_b: Operand
    promotion: Promotion
    reduction: Reduction
    pipeline: Pipeline
    store: Store
    smem: Smem
    scheduler: Scheduler
    arguments: tuple[TensorArgument, ...]
    params: tuple[KernelParam, ...]
    launch: Launch
    sass: Sass

    @property
    def mma_steps(self) -> int:
        """wgmma along K of a promotion interval, or of a K tile where sums are kept longer."""
        interval = None if self.promotion.kept else self.promotion.interval_k
        return (interval or self.tile.k) // self.mma.k

    def interval_bytes(self, operand: Operand) -> int:
        """From one interval's K to the next, of an operand in shared memory."""
        return self.mma_steps * operand.mma_bytes

    @property
    def for_few_rows(self) -> bool:
        return of_few_rows(self.mma, self.reduction)

    def to_json(self) -> str:
        """The plan as JSON text; `from_json` is its inverse."""
        record = {"schema": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(record, indent=2, default=lambda member: member.name) + "\n"

    @classmethod
    def from_json(cls, text: str) -> KernelPlan:
        """Raises ValueError when the text is not a plan of this schema version."""
        record = json.loads(text)
        if not isinstance(record, dict) or record.pop("schema", None) != SCHEMA_VERSION:
            raise ValueError(f"not a kernel plan of schema version {SCHEMA_VERSION}")
        try:
            return from_record(cls, record)  # type: ignore[no-any-return]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a kernel plan: {error!r}") from None
