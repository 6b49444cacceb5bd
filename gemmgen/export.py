"""Kernels for C programs: cubins as arrays, a header, a source that launches through the driver.

`write_library` makes a folder that a C compiler alone turns into a library: no CUDA toolkit, no
Python. Everything that is decided here stands in tables; the C source checks tensors, encodes
tensor maps and launches as `runtime` does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmgen.artifact import Artifact, output_error
from gemmgen.dtypes import DTYPES, INDEX
from gemmgen.errors import OutputError, SpecError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import KernelParam, KernelPlan, TensorArgument
from gemmgen.render import render_template

DIMENSIONS = ("m", "n", "k", "g", "1")
EXAMPLE_SIZES = (70, 256, 384)  # of a dimension that is not compiled in
LARGEST_EXAMPLE = 2**28  # multiply-adds that the host does to check one
BYTES_A_LINE = 20
ROWS = ",\n       "  # between rows of a table in C


@dataclass(frozen=True)
class Argument:
    """One tensor of a kernel."""

    described: str


@dataclass(frozen=True)
class Kernel:
    """One kernel, spelled for C."""

    name: str
    bytes: int  # of its cubin
    cubin_text: str
    arguments: tuple[Argument, ...]
    geometry: str
    grid: str
    sizes: str
    counts: str
    argument_rows: str
    param_rows: str


@dataclass(frozen=True)
class Example:
    """A kernel whose product the example checks, and for which sizes."""

    name: str
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Library:
    """What the templates are given."""

    name: str  # of the files, and of the CMake target
    count: int
    kernels: tuple[Kernel, ...]
    examples: tuple[Example, ...]
    most_arguments: int
    most_params: int


FILES = {
    "{name}.h": "export/library.h.jinja",
    "{name}.c": "export/library.c.jinja",
    "cubins.c": "export/cubins.c.jinja",
    "example.c": "export/example.c.jinja",
    "CMakeLists.txt": "export/CMakeLists.txt.jinja",
}


def write_library(kernels: Sequence[Artifact], folder: str | Path) -> list[Path]:
    """Write the folder of a C library with these kernels; the paths of its files.

    The library has the folder's name. Its files there are replaced, others are left alone.
    Raises OutputError when the folder cannot be written, SpecError for two kernels of one name.
    """
    folder = Path(folder)
    names = [kernel.name for kernel in kernels]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise SpecError("two kernels have one name", where="name", got=", ".join(sorted(doubled)))
    library = Library(
        name=re.sub(r"\W+", "_", folder.absolute().name).strip("_") or "gemmgen_kernels",
        count=len(kernels),
        kernels=tuple(map(_kernel, kernels)),
        examples=tuple(example for kernel in kernels if (example := _example(kernel.plan))),
        most_arguments=max(len(kernel.plan.arguments) for kernel in kernels),
        most_params=max(len(kernel.plan.params) for kernel in kernels),
    )
    texts = {
        file.format(name=library.name): render_template(template, library=library)
        for file, template in FILES.items()
    }
    return _write(folder, texts)


def _write(folder: Path, texts: dict[str, str]) -> list[Path]:
    staging = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")
    try:
        try:
            staging.mkdir(parents=True)
            for name, text in texts.items():
                (staging / name).write_text(text)
            folder.mkdir(exist_ok=True)
            for name in texts:
                os.replace(staging / name, folder / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise _named(output_error(error, folder)) from error
    return [folder / name for name in texts]


def _named(error: OutputError) -> OutputError:
    error.what = "the C library cannot be written"
    return error


def _kernel(built: Artifact) -> Kernel:
    plan, cubin = built.plan, built.cubin
    lines = (cubin[i : i + BYTES_A_LINE] for i in range(0, len(cubin), BYTES_A_LINE))
    row_tiles = GROUPINGS[plan.scheduler.grouping].row_tiles
    none, one = row_tiles(1, plan.problem.groups), row_tiles(2, plan.problem.groups)
    factor = one - none  # row_tiles is linear in the tiles
    launch = plan.launch
    return Kernel(
        name=plan.name,
        bytes=len(cubin),
        cubin_text="\n".join(f"    {', '.join(map(str, line))}," for line in lines),
        arguments=tuple(map(_described, plan.arguments)),
        geometry=f"{launch.threads}, {launch.cluster}, {launch.shared_bytes}, "
        f"{int(launch.programmatic)}",
        grid=f"{plan.tile.m * plan.cluster.m}, {plan.tile.n * plan.cluster.n}, "
        f"{factor}, {none - factor}, {launch.most_idle}, {int(plan.scheduler.by_row)}",
        sizes=_sizes(plan),
        counts=f"{len(plan.arguments)}, {len(plan.params)}",
        argument_rows=ROWS.join(_argument_row(plan, argument) for argument in plan.arguments),
        param_rows=ROWS.join(_param_row(plan, param) for param in plan.params),
    )


def _described(argument: TensorArgument) -> Argument:
    shape = ", ".join(map(str, argument.shape))
    written = ", written" if argument.written else ""
    return Argument(f"{argument.name}: {argument.dtype} [{shape}], {argument.layout}{written}")


def _sizes(plan: KernelPlan) -> str:
    problem = plan.problem
    known = {"m": problem.m, "n": problem.n, "k": problem.k, "g": problem.groups, "1": 1}
    places = {
        extent.dimension: (number, axis)
        for number, argument in reversed(list(enumerate(plan.arguments)))
        for axis, extent in enumerate(argument.shape)
        if extent.block == 1
    }
    sizes = [-1 if (size := known[d]) is None else size for d in DIMENSIONS]
    told = [places.get(d, (0, 0)) if known[d] is None else (0, 0) for d in DIMENSIONS]
    return ", ".join(
        "{" + ", ".join(map(str, row)) + "}"
        for row in (sizes, [place[0] for place in told], [place[1] for place in told])
    )


def _argument_row(plan: KernelPlan, argument: TensorArgument) -> str:
    dimensions = ", ".join(_dimension(extent.dimension) for extent in argument.shape)
    blocks = ", ".join(str(extent.block) for extent in argument.shape)
    element = DTYPES.get(argument.dtype, INDEX)
    in_place = argument.in_place and argument.dtype == plan.problem.d
    return (
        f'{{"{argument.name}", {element.bytes}, {len(argument.shape)}, '
        f"{argument.layout.upper()}, {int(argument.written)}, {int(in_place)}, "
        f"{{{dimensions}}}, {{{blocks}}}}}"
    )


def _dimension(name: str) -> str:
    return "ONE" if name == "1" else name.upper()


def _param_row(plan: KernelPlan, param: KernelParam) -> str:
    names = [argument.name for argument in plan.arguments]
    if param.kind == "scalar":
        return f"{{.kind = SCALAR, .dimension = {_dimension(param.source)}}}"
    argument = f".argument = {names.index(param.source)}"
    if param.kind in ("pointer", "pitch"):
        return f"{{.kind = {param.kind.upper()}, {argument}}}"
    element = DTYPES[param.dtype].tensor_map
    box = ", ".join(map(str, param.box))
    axis, step = param.fitted or (0, 0)
    return (
        f"{{.kind = TENSOR_MAP, {argument}, .type = {element}, .swizzle = "
        f"SWIZZLE_{param.swizzle.span}, .l2_promotion = L2_{param.l2_promotion}, .box = {{{box}}}, "
        f".fitted_axis = {axis}, .fitted_step = {step}}}"
    )


def _example(plan: KernelPlan) -> Example | None:
    """Sizes for a kernel that the example can check on the host, None for another."""
    problem = plan.problem
    kind = (problem.a, problem.scale_a, problem.b, problem.scale_b, problem.d)
    if kind != ("e4m3", "1x128", "e4m3", "128x128", "bf16") or plan.scheduler.grouping != "dense":
        return None
    given = (problem.m, problem.n, problem.k)
    m, n, k = (size or usual for size, usual in zip(given, EXAMPLE_SIZES, strict=True))
    return Example(plan.name, m, n, k) if m * n * k <= LARGEST_EXAMPLE else None
