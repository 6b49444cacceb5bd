"""The name of a kernel: its folder and its `extern "C"` symbol."""

from __future__ import annotations

import re

from gemmgen.errors import SpecError
from gemmgen.plan import (
    Cluster,
    Mma,
    Operand,
    Pipeline,
    Problem,
    Promotion,
    Scheduler,
    Store,
    Tile,
    Warps,
)
from gemmgen.spec import GemmSpec

# C++20 keywords, and functions that NVRTC declares itself, that a name of letters, digits and `_`
# can hit.
RESERVED = frozenset(
    re.findall(
        r"\w+",
        "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t "
        "char16_t char32_t class compl concept const consteval constexpr constinit const_cast "
        "continue co_await co_return co_yield decltype default delete do double dynamic_cast else "
        "enum explicit export extern false float for friend goto if inline int long mutable "
        "namespace new noexcept not not_eq nullptr operator or or_eq private protected public "
        "register reinterpret_cast requires return short signed sizeof static static_assert "
        "static_cast struct switch template this thread_local throw true try typedef typeid "
        "typename union unsigned using virtual void volatile wchar_t while xor xor_eq "
        "main printf vprintf malloc free memcpy memset abort assert clock clock64 trap ",
    )
)


def kernel_name(
    spec: GemmSpec,
    problem: Problem,
    tile: Tile,
    cluster: Cluster,
    warps: Warps,
    mma: Mma,
    promotion: Promotion,
    pipeline: Pipeline,
    scheduler: Scheduler,
    operand_a: Operand,
    operand_b: Operand,
    store: Store,
) -> str:
    """The spec's name as a C identifier, or one that spells every choice that shapes the kernel.

    Raises SpecError for a name that C++ keeps for itself.
    """
    if spec.name is not None:
        return _identifier(spec.name)
    sizes = "".join(
        f"_{axis}{size}"
        for axis, size in (("m", problem.m), ("n", problem.n), ("k", problem.k))
        if size is not None
    )
    hints = "".join(
        f"_{operand.name}{operand.l2_hint.removeprefix('evict_')}"
        for operand in (operand_a, operand_b)
        if operand.hinted
    )
    mode = "" if spec.grouping == "dense" else f"{spec.grouping}{problem.groups}_"
    layout = "" if problem.layout == "nt" else f"{problem.layout}_"
    a, b, d = (
        dtype if scale == "none" else f"{dtype}_{scale}"
        for dtype, scale in (
            (problem.a, problem.scale_a),
            (problem.b, problem.scale_b),
            (problem.d, problem.scale_d),
        )
    )
    interval = ""
    if spec.promotion_interval != "auto":
        interval = f"_p{promotion.interval_k or 'none'}"
    addends = f"_c_{problem.c}" if problem.c else ""
    addends += "".join(
        f"_{name}" + (f"_{problem.bias}" if name == "bias" else "") for name in problem.operations
    )
    hints += "_pdl" if spec.pdl else ""
    order = "astat" if scheduler.by_row else f"r{scheduler.raster_band}"
    return (
        f"gemm_{mode}{layout}{a}_{b}_{d}{addends}{sizes}{interval}"
        f"_{'swap' * mma.swap_ab}t{tile.m}x{tile.n}x{tile.k}"
        f"_w{warps.consumers_m}x{warps.consumers_n}"
        f"{f'x{warps.consumers_k}' * (warps.consumers_k > 1)}"
        f"_c{cluster.m}x{cluster.n}{f'x{cluster.k}' * (cluster.k > 1)}"
        f"_s{pipeline.stages}_u{pipeline.unroll}"
        f"{'_ew' * pipeline.early_wait}{'_late' * store.late}_{order}{hints}{_code(spec)}"
    )


def _code(spec: GemmSpec) -> str:
    """What is asked of the machine code: the text is the same, the cubin and its folder are not."""
    asked = [] if spec.sass == "auto" else list(spec.sass) or ["nosass"]
    if spec.toolchain != "auto":
        asked.append(f"cuda{spec.toolchain}")
    return "".join("_" + re.sub(r"\W+", "_", choice).strip("_") for choice in asked)


def _identifier(name: str) -> str:
    identifier = name.replace("-", "_")
    if identifier[0].isdigit():
        identifier = f"gemm_{identifier}"
    if identifier in RESERVED or identifier.startswith("__"):
        raise SpecError(
            "the kernel cannot have this name",
            where="name",
            expected="a name that C++ does not keep for itself",
            got=name,
            fix=f"for example gemm_{name.strip('_-')}",
        )
    return identifier
