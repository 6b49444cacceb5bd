"""Which requests this version builds, and the sizes that the planner has in mind."""

from __future__ import annotations

from collections.abc import Iterator

from gemmgen.dtypes import DTYPES
from gemmgen.errors import UnsupportedError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import Problem
from gemmgen.spec import GemmSpec

EXPECTED_M = 4096  # the M that is assumed when nobody says: prefill, or a large batch
EXPECTED_ROWS = 32768  # and the rows of all groups together: 4096 tokens, eight experts each
LEAST_EXPECTED_M = 64  # of a group

# What the promotion template does today: the scales of DeepSeek's FP8 training recipe
# (arXiv 2412.19437, section 3.3): a row of A and a 128-block of K, a 128x128 block of B.
FP8 = tuple(row.name for row in DTYPES.values() if row.bits == 8)
DTYPES_BUILT = (FP8, FP8, ("bf16", "f16"))
SCALES_BUILT = (("1x128",), ("128x128",))


def admit(spec: GemmSpec) -> Problem:
    """The problem of a spec. Raises UnsupportedError with everything that is not built yet."""
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
        reason=reason,
    )


def _expected_m(spec: GemmSpec, m: int | None) -> tuple[int, str]:
    if m is not None:
        return max(m, 1), "M is compiled in"
    if spec.groups > 1 and spec.expected_m == "auto" and not spec.batch_invariant:
        rows = min(max(EXPECTED_ROWS // spec.groups, LEAST_EXPECTED_M), EXPECTED_M)
        return rows, f"nothing said: planned for {rows} rows a group; any number is right"
    if spec.batch_invariant:
        return EXPECTED_M, f"batch_invariant: planned for M = {EXPECTED_M} whatever is expected"
    if spec.expected_m != "auto":
        return spec.expected_m, f"the spec expects M = {spec.expected_m}; any M is right"
    return EXPECTED_M, f"nothing said: planned for M = {EXPECTED_M}; any M is right"


def _unbuilt(spec: GemmSpec) -> Iterator[str]:
    """One line a key whose value a later version will build."""
    dtypes = (spec.a.dtype, spec.b.dtype, spec.d.dtype)
    for key, got, built in zip(
        ("a.dtype", "b.dtype", "d.dtype"), dtypes, DTYPES_BUILT, strict=True
    ):
        if got not in built:
            yield f"{key}: {got}; built: {', '.join(built)}"
    scales = (spec.a.scale, spec.b.scale)
    for key, got, built in zip(("a.scale", "b.scale"), scales, SCALES_BUILT, strict=True):
        if got not in built:
            yield f"{key}: {got}; built: {', '.join(built)}"
    if GROUPINGS[spec.grouping].scheduler is None:
        modes = ", ".join(row.name for row in GROUPINGS.values() if row.scheduler)
        yield f"grouping: {spec.grouping}; built: {modes}"
    if spec.schedule not in ("auto", "cooperative"):
        yield f"schedule: {spec.schedule}; built: cooperative"
    if spec.split_k not in ("auto", 1, 2):
        yield f"split_k: {spec.split_k}; built: 1, 2"
    if spec.accumulate:
        yield "accumulate: true; built: false"
    if spec.epilogue:
        yield f"epilogue: [{', '.join(spec.epilogue)}]; built: []"
