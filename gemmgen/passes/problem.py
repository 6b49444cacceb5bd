"""Which requests this version builds, and the sizes that the planner has in mind."""

from __future__ import annotations

from collections.abc import Iterator

from gemmgen.dtypes import DTYPES
from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.errors import SpecError, UnsupportedError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import Problem
from gemmgen.scaling import parse_granularity
from gemmgen.spec import AddendSpec, GemmSpec

EXPECTED_M = 4096  # the M that is assumed when nobody says: prefill, or a large batch
EXPECTED_ROWS = 32768  # and the rows of all groups together: 4096 tokens, eight experts each
LEAST_EXPECTED_M = 64  # of a group

OUTPUTS = ("bf16", "f16", "f32", "e4m3")
SCALES_OF_FP8_D = ("1x128",)


def admit(spec: GemmSpec) -> Problem:
    """The problem of a spec.

    Raises UnsupportedError with everything that is not built yet, and SpecError for operands that
    wgmma does not take.
    """
    _check_operands(spec)
    if unbuilt := list(_unbuilt(spec)):
        raise UnsupportedError(
            "this version of gemmgen does not build what the spec asks for",
            where=spec.name,
            detail="\n".join(unbuilt),
            fix="leave these keys at their defaults, or at the values named above",
        )
    m, n, k = (None if size == "dynamic" else size for size in (spec.m, spec.n, spec.k))
    expected_m, reason = _expected_m(spec, m)
    return Problem(
        m=m,
        n=n,
        k=k,
        groups=spec.groups,
        expected_m=expected_m,
        a=spec.a.dtype,
        b=spec.b.dtype,
        d=spec.d.dtype,
        scale_a=spec.a.scale,
        scale_b=spec.b.scale,
        layout=spec.layout,
        scale_d=spec.d.scale,
        c=addend_dtype(spec, spec.c) if spec.accumulate else None,
        bias=addend_dtype(spec, spec.bias)
        if any(EPILOGUE_OPS[name].biased for name in spec.epilogue)
        else None,
        operations=spec.epilogue,
        reason=reason,
    )


def addend_dtype(spec: GemmSpec, asked: AddendSpec | None) -> str:
    """What is asked for, else D's, or FP32 where D is FP8, which holds no sums without a scale."""
    if asked is not None:
        return asked.dtype
    return spec.d.dtype if DTYPES[spec.d.dtype].bits > 8 else "f32"


def _expected_m(spec: GemmSpec, m: int | None) -> tuple[int, str]:
    if m is not None:
        return max(m, 1), "M is compiled in"
    rowwise = not GROUPINGS[spec.grouping].sliced
    if rowwise and spec.groups > 1 and spec.expected_m == "auto" and not spec.batch_invariant:
        rows = min(max(EXPECTED_ROWS // spec.groups, LEAST_EXPECTED_M), EXPECTED_M)
        return rows, f"nothing said: planned for {rows} rows a group; any number is right"
    if spec.batch_invariant:
        return EXPECTED_M, f"batch_invariant: planned for M = {EXPECTED_M} whatever is expected"
    if spec.expected_m != "auto":
        return spec.expected_m, f"the spec expects M = {spec.expected_m}; any M is right"
    return EXPECTED_M, f"nothing said: planned for M = {EXPECTED_M}; any M is right"


def _check_operands(spec: GemmSpec) -> None:
    """wgmma multiplies FP8 with FP8, K-major, or two operands of one 16-bit type (PTX ISA)."""
    a, b = DTYPES[spec.a.dtype], DTYPES[spec.b.dtype]
    if not a.mma_k or a.mma_k != b.mma_k or (a.bits == 16 and a is not b):
        raise SpecError(
            "wgmma does not multiply these types",
            where="a.dtype, b.dtype",
            expected="two FP8 types, or one 16-bit type twice",
            got=f"{a.name} and {b.name}",
        )
    if a.bits == 16 and (spec.a.scale, spec.b.scale) != ("none", "none"):
        raise SpecError(
            "scales of 16-bit operands",
            where="a.scale, b.scale",
            expected="none: what FP8 needs scales for, 16 bits hold",
            got=f"{spec.a.scale} and {spec.b.scale}",
            fix="leave them out",
        )
    if a.bits == 8 and spec.layout != "nt":
        raise SpecError(
            "FP8 operands that are not K-major",
            where="layout",
            expected="nt: wgmma transposes 16-bit types only",
            got=spec.layout,
            fix="transpose the tensor once, or use bf16",
        )
    if spec.layout[0] == "t" and "contiguous" in spec.grouping:
        raise SpecError(
            "groups that start at any column of A",
            where="layout",
            expected=f"nt or nn with grouping: {spec.grouping}",
            got=spec.layout,
            fix="an A of contiguous rows",
        )
    slices = GROUPINGS[spec.grouping].k_slice
    for name, operand in (("a", spec.a), ("b", spec.b)):
        block, block_k = parse_granularity(operand.scale).mn, parse_granularity(operand.scale).k
        if slices and block_k and slices % block_k:
            raise SpecError(
                "slices of K that end within a scale block",
                where=f"{name}.scale",
                expected=f"K blocks that divide {slices}, with grouping: {spec.grouping}",
                got=operand.scale,
            )
        if name == "b" and block and block > 1 and block % 8:
            raise SpecError(
                "scale blocks that end within eight columns",
                where="b.scale",
                expected="R of RxK a multiple of 8, or 1: a thread's columns lie in eights",
                got=operand.scale,
            )


def _unbuilt(spec: GemmSpec) -> Iterator[str]:
    """One line a key whose value a later version will build."""
    if spec.d.dtype not in OUTPUTS:
        yield f"d.dtype: {spec.d.dtype}; built: {', '.join(OUTPUTS)}"
    elif DTYPES[spec.d.dtype].bits == 8 and spec.d.scale not in SCALES_OF_FP8_D:
        named = ", ".join(SCALES_OF_FP8_D)
        yield f"d.scale: {spec.d.scale}; built with {spec.d.dtype}: {named}"
    if GROUPINGS[spec.grouping].scheduler is None:
        modes = ", ".join(row.name for row in GROUPINGS.values() if row.scheduler)
        yield f"grouping: {spec.grouping}; built: {modes}"
    if spec.schedule == "pingpong":
        yield f"schedule: {spec.schedule}; built: cooperative, a_stationary"
    if spec.split_k not in ("auto", 1, 2):
        yield f"split_k: {spec.split_k}; built: 1, 2"
