"""KernelPlan -> CUDA C++. The one Jinja environment, and the filters that spell lists for it."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from gemmgen.epilogue import EPILOGUE_OPS
from gemmgen.errors import SpecError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan import KernelParam, KernelPlan
from gemmgen.spelling import Spelling
from gemmgen.spelling_epilogue import CUDA_TYPES, way_out
from gemmgen.version import __version__

if TYPE_CHECKING:
    import jinja2


def render(plan: KernelPlan) -> str:
    """The kernel of a plan as CUDA C++: no includes, one `extern "C"` symbol, the plan's name.

    Raises SpecError when the name is one that the kernel's own text uses.
    """
    grouping = GROUPINGS[plan.scheduler.grouping]
    spelling = Spelling(plan, grouping)
    text = render_template(
        "kernel.cu.jinja",
        plan=plan,
        grouping=grouping,
        spelling=spelling,
        way_out=way_out(plan, grouping),
        integers=_integers(plan),
        operations=[EPILOGUE_OPS[name] for name in plan.problem.operations],
    )
    code = re.sub(r"//.*", "", text)
    if len(re.findall(rf"\b{re.escape(plan.name)}\b", code)) != 1:
        raise SpecError(
            "the kernel cannot have this name",
            where="name",
            expected="a name that the text of the kernel does not use itself",
            got=plan.name,
            fix=f"for example gemm_{plan.name}",
        )
    return text


def _integers(plan: KernelPlan) -> list[tuple[str, str]]:
    """Integer types that not every kernel uses, and what they are."""
    signature = _cuda_params(plan.params)
    # The mask of a multicast, a pair of codes.
    used = {"uint16_t": plan.cluster.size > 1 or plan.store.scale_columns}
    types = (("uint8_t", "unsigned char"), ("uint16_t", "unsigned short"))
    return [item for item in types if used.get(item[0]) or f"{item[0]}*" in signature]


def render_template(template: str, **names: object) -> str:
    """The text of a template that is given these names, and the version."""
    return _environment().get_template(template).render(names, version=__version__)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gemmgen"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        finalize=_spell,
    )
    environment.filters.update(
        camel=_camel,
        operands=_operands,
        constraints=_constraints,
        cuda_params=_cuda_params,
        cuda_type=CUDA_TYPES.__getitem__,
    )
    return environment


def _spell(value: object) -> object:
    """What a template may print: text and integers; booleans as C++ spells them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) or type(value) is int:
        return value
    raise TypeError(
        f"a template printed {value!r} ({type(value).__name__}): "
        "give the plan a field that holds the C++ spelling as text"
    )


def _camel(name: str) -> str:
    """scale_a -> ScaleA."""
    return "".join(part.capitalize() for part in name.split("_"))


def _operands(count: int) -> list[str]:
    """%0, %1, ... in lines of sixteen, for the text of an asm statement."""
    return _lines([f"%{i}" for i in range(count)], 16)


def _constraints(count: int, macro: str) -> list[str]:
    """`count` elements through a macro that spells four, as the continued lines of another."""
    lines = _lines([f"{macro}({i})" for i in range(0, count, 4)], 8)
    return [line + " \\" for line in lines[:-1]] + lines[-1:]


def _lines(items: list[str], width: int) -> list[str]:
    rows = [", ".join(items[i : i + width]) for i in range(0, len(items), width)]
    return [row + "," for row in rows[:-1]] + rows[-1:]


def _cuda_params(params: tuple[KernelParam, ...]) -> str:
    """The kernel's signature, one parameter a line."""
    return ",\n    ".join(map(_cuda_param, params))


def _cuda_param(param: KernelParam) -> str:
    if param.kind == "tensor_map":
        return f"const __grid_constant__ TensorMap {param.name}"
    if param.kind == "pointer":
        access = "{}*" if param.written else "const {}*"
        # What may be an output is restricted to nobody.
        alone = "" if param.written or param.in_place else " __restrict__"
        return f"{access.format(CUDA_TYPES[param.dtype])}{alone} {param.name}"
    return f"{CUDA_TYPES[param.dtype]} {param.name}"
