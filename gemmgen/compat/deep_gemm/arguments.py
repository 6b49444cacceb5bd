"""What callers of DeepGEMM pass: two sets of keywords, hints, pairs of data and scales, recipes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeAlias, TypeVar

import torch

from gemmgen.counters import count
from gemmgen.errors import TensorError, UnsupportedError
from gemmgen.numerics import to_m_major
from gemmgen.scaling import m_major_pitch
from gemmgen.sealing import refuse_if_sealed

Scaled: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # FP8 data, FP32 scales
Recipe: TypeAlias = tuple[int, int, int]  # elements that share a scale: rows of A, rows of B, K
OperandRecipe: TypeAlias = tuple[int, int]  # rows of the operand, K

BLOCK = 128  # elements of K that share a scale, and rows of a block of weights

# Early and current keywords of one argument; functions take both.
EARLY_NAMES = {"lhs": "a", "rhs": "b", "out": "d", "m_indices": "grouped_layout"}
CURRENT_NAMES = {current: early for early, current in EARLY_NAMES.items()}

# Keywords of forks and of later versions that are no hints: without them the result is another.
EFFECTS = ("alpha", "sfd", "enable_overlap", "signal")

P = ParamSpec("P")
R = TypeVar("R")


def also_by(names: dict[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let callers say arguments by other names, too. `names`: from those to the function's own."""

    def accept(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            if given and not names.keys().isdisjoint(given):
                for other in names.keys() & given.keys():
                    if names[other] in given:
                        both = f"{function.__name__}() got both {other} and {names[other]}"
                        raise TypeError(f"{both}: they are one argument")
                given = {names.get(name, name): value for name, value in given.items()}  # type: ignore[assignment]
            return function(*args, **given)

        return call

    return accept


def refuse_effects(hints: dict[str, object]) -> None:
    """Unknown keywords are hints, which change no result; these do. Raises UnsupportedError."""
    for name, value in hints.items():
        if name in EFFECTS and value is not None and value is not False:
            raise UnsupportedError(
                f"{name} changes the result of a call, and no kernel does it",
                where=name,
                expected="nothing, None or False",
                got=value if isinstance(value, int | float) else type(value).__name__,
            )


def pair(name: str, operand: Scaled) -> Scaled:
    """Data and scales of an operand. Raises TensorError, or UnsupportedError for packed scales."""
    if not isinstance(operand, (tuple, list)) or len(operand) != 2:
        raise TensorError(
            f"{name} is no pair",
            where=name,
            expected="(FP8 data, FP32 scales)",
            got=type(operand).__name__,
        )
    data, scales = operand
    if scales.dtype is torch.int32:
        raise UnsupportedError(
            f"the scales of {name} are packed exponents, which Blackwell reads",
            where=f"{name}[1]",
            expected="FP32 scales on Hopper",
            got=scales.dtype,
        )
    return data, scales


def turned(name: str, operand: Scaled) -> Scaled:
    """Views of data and scales with the last two axes exchanged. Raises as `pair`."""
    data, scales = pair(name, operand)
    return data.mT, scales.mT


def rows_per_scale(
    recipe: Recipe | None, recipe_a: OperandRecipe | None, recipe_b: OperandRecipe | None
) -> int | None:
    """How many rows of B share a scale by its recipe: 128, or 1 for weight gradients.

    None without a recipe: operators read it off the scales. Raises UnsupportedError.
    """
    if recipe is None and recipe_a is None and recipe_b is None:
        return None
    whole = tuple(recipe or ())
    halves = (tuple(recipe_a or ()), tuple(recipe_b or ()))
    for rows in (BLOCK, 1):
        if (whole, halves) in (((1, rows, BLOCK), ((), ())), ((), ((1, BLOCK), (rows, BLOCK)))):
            return rows
    raise UnsupportedError(
        "this recipe is not one of Hopper's",
        where="recipe, recipe_a, recipe_b",
        expected="recipe (1, 128, 128) or (1, 1, 128), or recipe_a (1, 128) with recipe_b "
        "(128, 128) or (1, 128)",
        got=f"{recipe}, {recipe_a}, {recipe_b}",
    )


def check_scales(name: str, data: torch.Tensor, scales: torch.Tensor, rows: int) -> None:
    """Raises TensorError unless there is a scale for `rows` of the operand by 128 elements of K."""
    expected = _scale_shape(data.shape, rows)
    if scales.shape != expected:
        raise TensorError(
            f"the scales of {name} have the wrong shape",
            where=f"{name}[1]",
            expected=f"{list(expected)}, one for {rows} x {BLOCK} elements of {list(data.shape)}",
            got=list(scales.shape),
        )


@lru_cache(maxsize=4096)
def _scale_shape(shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    *groups, mn, k = shape
    return (*groups, -(-mn // rows), -(-k // BLOCK))


def is_done(d: torch.Tensor, c: torch.Tensor | None, k: int) -> bool:
    """Whether there is nothing to multiply; D is then C, or zeros where K is empty."""
    if d.numel() and k:
        return False
    if not k:
        if c is None:
            d.zero_()
        elif c.data_ptr() != d.data_ptr():
            d.copy_(c)
    return True


def addend(c: torch.Tensor | None) -> torch.Tensor | None:
    """C as kernels read it; rows that lie apart are copied together."""
    return c if c is None or c.is_contiguous() else c.contiguous()


def lies_m_major(scales: torch.Tensor) -> bool:
    """Whether [(G,) MN, K blocks] have just the strides of `numerics.to_m_major`."""
    *_, mn, blocks = scales.shape
    pitch = m_major_pitch(mn)
    return scales.stride() == (pitch * blocks, 1, pitch)[-scales.ndim :]


def as_m_major(name: str, scales: torch.Tensor) -> torch.Tensor:
    """Scales in the layout of the kernels, behind a call: counted, and refused in strict mode."""
    if lies_m_major(scales):
        return scales
    refuse_if_sealed(
        f"{name} would have to be copied into another layout",
        where=name,
        fix="deep_gemm.get_mn_major_tma_aligned_tensor, when the scales are made",
    )
    count("conversions")
    return to_m_major(scales)
