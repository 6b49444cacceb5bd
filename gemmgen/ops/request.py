"""What the tensors of a call ask for: element types, scale granularities, sizes.

Reads types and shapes alone, so tensors of the meta device do as well. Knows nothing of kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gemmgen.dtypes import DTYPES
from gemmgen.errors import TensorError
from gemmgen.grouping import GROUPINGS
from gemmgen.plan_sets import expected_rows, m_bucket
from gemmgen.scaling import COMMON_BLOCKS, NAMED, parse_granularity
from gemmgen.spec import GemmSpec

DTYPE_NAMES = {getattr(torch, row.torch): row.name for row in DTYPES.values()}
GRANULARITIES = tuple(map(parse_granularity, (*COMMON_BLOCKS, "row", "tensor")))


@dataclass(frozen=True)
class Request:
    """What decides on the kernel of a call; the same for all calls that share one."""

    grouping: str
    groups: int
    a: tuple[str, str]  # element type, scale granularity
    b: tuple[str, str]
    d: str
    n: int
    k: int | None  # None: known at launch only
    layout: str  # nt, nn, tn or tt
    c: str | None  # element type of what is added
    bucket: int  # of the rows (of a group) that are expected
    pdl: bool = False
    epilogue: tuple[str, ...] = ()
    bias: str | None = None  # its element type

    def spec(self) -> GemmSpec:
        """Any M; N and K compiled in, unless groups are slices of K."""
        usual = self.d if DTYPES[self.d].bits > 8 else "f32"
        added = {
            name: {"dtype": dtype}
            for name, dtype in (("c", self.c), ("bias", self.bias))
            if dtype not in (None, usual)
        }
        return GemmSpec(
            a={"dtype": self.a[0], "scale": self.a[1]},
            b={"dtype": self.b[0], "scale": self.b[1]},
            d={"dtype": self.d},
            n=self.n,
            k=self.k or "dynamic",
            layout=self.layout,
            grouping=self.grouping,
            groups=self.groups,
            accumulate=self.c is not None,
            pdl=self.pdl,
            epilogue=self.epilogue,
            **added,
        )


def read_request(
    grouping: str,
    named: Mapping[str, torch.Tensor],
    out_dtype: torch.dtype,
    rows: int | None,
    pdl: bool = False,
    epilogue: tuple[str, ...] = (),
) -> Request:
    """The request of a call with tensors by their names in a kernel.

    `rows` are those expected of a group, None: all of A's. Raises TensorError for tensors that no
    kernel takes.
    """
    mode, a, b = GROUPINGS[grouping], named["a"], named["b"]
    grouped = mode.grouped
    for name, tensor in (("a", a), ("b", b)):
        if not isinstance(tensor, torch.Tensor):
            got = type(tensor).__name__
            raise TensorError(f"{name} is no tensor", where=name, expected="a tensor", got=got)
        axes = ("[G, rows, K]", 3) if name in grouped else ("[rows, K]", 2)
        if tensor.ndim != axes[1]:
            raise TensorError(
                f"{name} has the wrong number of axes",
                where=name,
                expected=f"{axes[1]}: {axes[0]}",
                got=f"{tensor.ndim}: {list(tensor.shape)}",
            )
    groups = b.shape[0] if "b" in grouped else 1
    if mode.sliced and mode.index:
        groups = len(named[mode.index.name])
    m, k = a.shape[-2:]
    if b.shape[-1] != k or ("a" in grouped and a.shape[0] != groups):
        raise TensorError(
            "a and b do not fit together",
            where="b",
            expected=f"{[a.shape[0], b.shape[-2], k] if 'a' in grouped else [b.shape[-2], k]}: "
            "[(groups,) N, K] with the groups and the K of a",
            got=f"{list(b.shape)}; a is {list(a.shape)}",
        )
    c, bias = named.get("c"), named.get("bias")
    epilogue = epilogue or (("bias",) if bias is not None else ())
    if ("bias" in epilogue) != (bias is not None):
        raise TensorError(
            "a bias and an epilogue that adds it come together",
            where="bias, epilogue",
            expected="both, or neither",
            got=f"epilogue {list(epilogue)}, {'no ' * (bias is None)}bias",
        )
    return Request(
        grouping=grouping,
        groups=groups,
        a=(_dtype("a", a.dtype), _granularity("scale_a", a, named.get("scale_a"))),
        b=(_dtype("b", b.dtype), _granularity("scale_b", b, named.get("scale_b"))),
        d=_dtype("out", out_dtype),
        n=b.shape[-2],
        k=None if mode.sliced else k,
        layout=_layout(a, b),
        c=None if c is None else _dtype("c", c.dtype),
        bucket=m_bucket(max(rows or expected_rows(grouping, m, groups), 1)),
        pdl=pdl,
        epilogue=epilogue,
        bias=None if bias is None else _dtype("bias", bias.dtype),
    )


def _layout(a: torch.Tensor, b: torch.Tensor) -> str:
    """How operands lie, as the BLAS spells it; wgmma transposes 16-bit types only."""

    def is_transposed(x: torch.Tensor) -> bool:
        return x.element_size() == 2 and x.stride(-2) == 1 and x.stride(-1) != 1 < x.shape[-1]

    return ("t" if is_transposed(a) else "n") + ("n" if is_transposed(b) else "t")


def _dtype(name: str, dtype: torch.dtype) -> str:
    if dtype not in DTYPE_NAMES:
        expected = ", ".join(DTYPES)
        raise TensorError(
            f"{name} has an element type without kernels", where=name, expected=expected, got=dtype
        )
    return DTYPE_NAMES[dtype]


def _granularity(name: str, operand: torch.Tensor, scale: torch.Tensor | None) -> str:
    """How many elements share a scale, from how many scales there are."""
    if scale is None:
        return NAMED["none"].name
    if not isinstance(scale, torch.Tensor):
        got = type(scale).__name__
        raise TensorError(f"{name} is no tensor", where=name, expected="a tensor", got=got)
    *leading, rows, k = operand.shape
    shapes: dict[str, list[int]] = {}
    for block in GRANULARITIES:
        blocks = [-(-rows // (block.mn or max(rows, 1))), -(-k // (block.k or max(k, 1)))]
        shape = shapes[block.name] = [*leading, *blocks]
        # Last axes of one scale may be left out: [rows] for `row`, [] for `tensor`.
        given = [*scale.shape, *[1] * (len(shape) - scale.ndim)]
        if scale.ndim >= len(leading) and given == shape:
            return block.name
    raise TensorError(
        f"{name} has the shape of no scale granularity",
        where=name,
        expected=" or ".join(f"{shape} ({block})" for block, shape in shapes.items()),
        got=list(scale.shape),
    )


def describe(op: str, tensors: dict[str, Any]) -> str:
    """A call, for a person to recognise."""
    given = (
        f"{name}: {str(t.dtype).removeprefix('torch.')} {list(t.shape)}"
        for name, t in tensors.items()
        if isinstance(t, torch.Tensor)
    )
    return f"ops.{op}({', '.join(given)})"
