"""GemmSpec: what the user asked for, from Python or YAML.

Knows the keys, their values and which values contradict each other. It refuses to know what gemmgen
can build or what is fast: that is for `passes.lower` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    ValidationError,
    WithJsonSchema,
)

from gemmgen.dtypes import DTYPES
from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.errors import SpecError
from gemmgen.grouping import GROUPINGS
from gemmgen.scaling import GRANULARITY_GRAMMAR, parse_granularity
from gemmgen.spec_problems import merged_problems, problems_error, run_checks
from gemmgen.target import LARGEST_EXTENT

if TYPE_CHECKING:
    DTypeName: TypeAlias = str
    GroupingName: TypeAlias = str
    EpilogueName: TypeAlias = str
else:
    DTypeName = Literal[tuple(DTYPES)]
    GroupingName = Literal[tuple(GROUPINGS)]
    EpilogueName = Literal[tuple(EPILOGUE_OPS)]

Auto = Literal["auto"]
Dynamic = Literal["dynamic"]
L2Hint = Literal["evict_normal", "evict_first", "evict_last"]
Schedule = Literal["cooperative", "a_stationary", "pingpong"]
OperandLayout = Literal["nt", "nn", "tn", "tt"]
CodeFlaw = Literal["spills", "local_memory", "serialized_wgmma", "ignored_setmaxnreg"]
Size = Annotated[StrictInt, Field(ge=1, le=LARGEST_EXTENT)]
Stages = Annotated[StrictInt, Field(ge=2, le=64)]  # with one, the producer could never run ahead
Unroll = Annotated[StrictInt, Field(ge=1, le=16)]  # more makes the compiler slow and spills
SizeOrZero = Annotated[StrictInt, Field(ge=0, le=LARGEST_EXTENT)]


# --- Values with a text form --------------------------------------------------------------------

Shape = TypeVar("Shape", bound="_Extents")


@dataclass(frozen=True)
class _Extents:
    """Three positive integers that are written with `x` between them; the last may be left out."""

    m: int
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"

    @classmethod
    def parse(cls: type[Shape], text: object, last: int, example: str) -> Shape:
        if isinstance(text, cls):
            return text
        extents = r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){1,2}"
        if not isinstance(text, str) or not re.fullmatch(extents, text):
            raise ValueError(f"expected positive integers such as {example}")
        return cls(*([int(part) for part in text.split("x")] + [last])[:3])


class TileShape(_Extents):
    """A CTA tile: rows and columns of D, and the K step, in elements; k is 0 when not said."""

    def __str__(self) -> str:
        return f"{self.m}x{self.n}" + (f"x{self.k}" if self.k else "")


class WarpgroupLayout(_Extents):
    """Consumer warpgroups of a CTA along M, N and K."""


class ClusterShape(_Extents):
    """CTAs of a cluster along M and N; k is 1."""

    @classmethod
    def parse(cls, text: object, last: int, example: str) -> ClusterShape:
        shape = super().parse(text, last, example)
        if shape.k != 1:
            raise ValueError(f"expected CTAs along M and N only, such as {example}")
        return shape

    def __str__(self) -> str:
        return f"{self.m}x{self.n}"


def _text_form(shape: type[Shape], last: int, example: str) -> Any:
    return Annotated[
        shape,
        PlainValidator(lambda text: shape.parse(text, last, example)),
        PlainSerializer(str, return_type=str),
        WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*(x[1-9][0-9]*){1,2}$"}),
    ]


if TYPE_CHECKING:
    TileText: TypeAlias = TileShape
    WarpgroupText: TypeAlias = WarpgroupLayout
    ClusterText: TypeAlias = ClusterShape
else:
    TileText = _text_form(TileShape, 0, "128x256x128")
    WarpgroupText = _text_form(WarpgroupLayout, 1, "2x1x1")
    ClusterText = _text_form(ClusterShape, 1, "2x1")


def _matching(pattern: str, allowed: str) -> Any:
    """Text of a closed grammar, with words for it: a pattern alone mends nothing."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {allowed}")
        return text

    schema = {"type": "string", "pattern": f"^{pattern}$", "description": allowed}
    return Annotated[str, AfterValidator(check), WithJsonSchema(schema)]


def _granularity(text: str) -> str:
    parse_granularity(text)
    return text


def _version_text(value: object) -> object:
    # YAML reads an unquoted 12.8 as a number; repr gives back what was written.
    return repr(value) if isinstance(value, float) else value


Granularity = Annotated[str, AfterValidator(_granularity), Field(description=GRANULARITY_GRAMMAR)]
if TYPE_CHECKING:
    CudaVersion: TypeAlias = str
    KernelName: TypeAlias = str
else:
    CudaVersion = Annotated[
        _matching(r"[0-9]{2}\.[0-9]{1,2}(\.[0-9]{1,4})?", 'a CUDA version such as "12.8"'),
        BeforeValidator(_version_text),
    ]
    KernelName = _matching(r"[A-Za-z0-9_-]{1,200}", "1 to 200 letters, digits, '_' or '-'")


# --- The spec -----------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OperandSpec(_Model):
    """One input: A is [M, K], B is [N, K], both K-contiguous unless `layout` says otherwise."""

    dtype: DTypeName
    scale: Granularity = "none"
    """Rows x K elements that share one FP32 scale."""


class OutputSpec(_Model):
    """The output D, [M, N], row-major."""

    dtype: DTypeName
    scale: Granularity = "none"
    """Rows x columns that share one new FP32 scale, with a dtype of 8 bits."""


class AddendSpec(_Model):
    """What is added to the sums before they become D."""

    dtype: DTypeName


class L2Hints(_Model):
    """L2 eviction priority of the loads of an operand (PTX ISA, createpolicy)."""

    a: L2Hint = "evict_normal"
    b: L2Hint = "evict_normal"


class GemmSpec(_Model):
    """A request for one GEMM kernel: D[m, n] = sum over k of A[m, k] * B[n, k], with scales.

    `auto` leaves a decision to the planner, which records it with its reason in the plan. All
    problems of a request are raised together, as one SpecError.
    """

    name: KernelName | None = None
    """Replaces the derived kernel name; `-` becomes `_`."""
    a: OperandSpec
    b: OperandSpec
    d: OutputSpec
    m: SizeOrZero | Dynamic = "dynamic"
    """Rows of A and D."""
    n: Size | Dynamic
    """Rows of B, columns of D; an integer is compiled in."""
    k: Size | Dynamic
    """The summed axis; an integer is compiled in."""
    layout: OperandLayout = "nt"
    """A [M, K] (n) or [K, M] (t), then B [K, N] (n) or [N, K] (t); FP8 takes nt alone."""
    expected_m: Size | Auto = "auto"
    """The M (rows of a group when grouped) that the planner has in mind; any M stays right."""
    grouping: GroupingName = "dense"
    groups: Size = 1
    tile: TileText | Auto = "auto"
    """CTA tile M x N x K."""
    cluster: ClusterText | Auto = "auto"
    """CTAs along M x N that share operands by multicast."""
    stages: Stages | Auto = "auto"
    """Stages of the shared-memory ring."""
    warpgroups: WarpgroupText | Auto = "auto"
    """Consumer warpgroups along M x N x K of the tile."""
    schedule: Schedule | Auto = "auto"
    unroll: Unroll | Auto = "auto"
    """K tiles in one pass of the K loop."""
    early_wait: StrictBool | Auto = "auto"
    """Wait for the next stage and load its scales before promotion."""
    late_store: StrictBool | Auto = "auto"
    """Store a tile while the tensor cores begin the next."""
    promotion_interval: Size | Literal["none"] | Auto = "auto"
    """Elements of K that the tensor core sums by itself before FP32 totals take them over."""
    split_k: Size | Auto = "auto"
    """CTAs of a cluster that share one output tile."""
    swap_ab: StrictBool | Auto = "auto"
    """Weights on wgmma's M axis (small M)."""
    l2_hint: L2Hints | Auto = "auto"
    raster: Size | Auto = "auto"
    """Tiles along M before the next column."""
    accumulate: StrictBool = False
    """D = C + A B^T; C is an argument before D, and may be D."""
    c: AddendSpec | None = None
    """C [M, N], contiguous; of D's dtype by default (f32 where D is FP8), or f32."""
    epilogue: tuple[EpilogueName, ...] = ()
    """Operations on the FP32 sums, C included, in this order, before they become D."""
    bias: AddendSpec | None = None
    """The bias of the epilogue, [N] ([G, N] in groups); types as of C."""
    toolchain: CudaVersion | Auto = "auto"
    """CUDA version of ptxas, such as "12.8"."""
    sass: tuple[str, ...] | Auto = "auto"
    """SASS passes in order; [] leaves the cubin alone."""
    allow: tuple[CodeFlaw, ...] = ()
    """Flaws of compiled code that refuse a build unless they stand here; for experiments."""
    pdl: StrictBool = False
    """Programmatic dependent launch: start while the kernel before it on the stream still runs, and
    wait for it before memory is touched."""
    batch_invariant: StrictBool = False
    """One tile configuration and one K order for every M."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            problems = merged_problems(error, data, type(self))
            invalid = {problem.key for problem in problems}
            partial = self._partial(data, invalid)
            raise problems_error(problems + run_checks(partial, invalid)) from None
        if problems := run_checks(self, set()):
            raise problems_error(problems)

    @classmethod
    def _partial(cls, data: dict[str, Any], invalid: set[str]) -> GemmSpec:
        """A spec of the keys that are valid by themselves, with stand-ins for the others."""
        stand_ins: dict[str, Any] = {
            "a": {"dtype": "e4m3"},
            "b": {"dtype": "e4m3"},
            "d": {"dtype": "bf16"},
        }
        stand_ins |= {"n": "dynamic", "k": "dynamic"}
        valid = {key: value for key, value in data.items() if key not in invalid}
        spec = cls.model_construct()
        cls.__pydantic_validator__.validate_python(stand_ins | valid, self_instance=spec)
        return spec

    @classmethod
    def from_yaml(cls, path: str | Path) -> GemmSpec:
        """The one spec of a file. Raises SpecError; for a file with several see `load_specs`."""
        from gemmgen.spec_file import load_specs

        specs = load_specs(path)
        if len(specs) != 1:
            raise SpecError(
                "a file with several kernels where one was expected",
                where=path,
                expected="one spec",
                got=f"{len(specs)} under `kernels:`",
                fix="use gemmgen.load_specs(path)",
            )
        return specs[0]

    def to_yaml(self) -> str:
        """The request as YAML, keys in the order of the schema, defaults left out."""
        asked = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(asked, sort_keys=False, default_flow_style=None, width=96)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of a spec file: one spec, or `kernels:` with a list of them."""
        from gemmgen.spec_schema import file_schema

        return file_schema(cls)
