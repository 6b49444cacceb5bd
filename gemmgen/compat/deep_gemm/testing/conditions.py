"""Where tests run, and under which conditions."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch

P = ParamSpec("P")
Decorator = Callable[[Callable[P, None]], Callable[P, None]]


def get_arch_major() -> int:
    """The first number of the GPU's compute capability: 9 on Hopper."""
    major: int = torch.cuda.get_device_capability()[0]
    return major


def test_filter(condition: Callable[[], bool]) -> Decorator[P]:
    """Run a function where the condition holds, and say so where it does not."""

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def call(*args: P.args, **keys: P.kwargs) -> None:
            if condition():
                function(*args, **keys)
            else:
                print(f"{function.__name__}: left out, {condition} does not hold")

        return call

    return decorate


test_filter.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def ignore_env(name: str, condition: Callable[[], bool]) -> Decorator[P]:
    """Run a function without a variable of the environment where the condition holds."""

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def call(*args: P.args, **keys: P.kwargs) -> None:
            saved = os.environ.pop(name, None) if condition() else None
            try:
                function(*args, **keys)
            finally:
                if saved is not None:
                    os.environ[name] = saved

        return call

    return decorate
