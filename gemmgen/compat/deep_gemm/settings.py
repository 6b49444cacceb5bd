"""What DeepGEMM keeps for a process: multiprocessors, alignment, launches, hints to its planner."""

from __future__ import annotations

import torch

from gemmgen import ops
from gemmgen.compat.deep_gemm.arguments import BLOCK
from gemmgen.errors import LaunchError, UnsupportedError


class _Settings:
    tc_util = 100
    compile_only = False
    mk_alignment = BLOCK


# --- The GPU ------------------------------------------------------------------------------------


def _multiprocessors() -> int:
    count: int = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    return count


def set_num_sms(new_num_sms: int) -> None:
    """How many multiprocessors kernels may use, 1 to all. Raises LaunchError for another number."""
    most = _multiprocessors()
    if not 1 <= new_num_sms <= most:
        raise LaunchError(
            "not a number of multiprocessors",
            where="set_num_sms",
            expected=f"1 to {most}",
            got=new_num_sms,
        )
    # All of them is no limit: what was saved and is set again leaves things as they were.
    ops.set_num_sms(None if new_num_sms == most else new_num_sms)


def get_num_sms() -> int:
    """What `set_num_sms` set; all of the current GPU before that."""
    return ops.get_num_sms() or _multiprocessors()


def set_tc_util(new_tc_util: int) -> None:
    """A share of the tensor cores' time, in percent: kept, and without effect here.

    Raises LaunchError outside of 0 to 100.
    """
    if not 0 <= new_tc_util <= 100:
        expected = "0 to 100 percent"
        raise LaunchError("not a share", where="set_tc_util", expected=expected, got=new_tc_util)
    _Settings.tc_util = new_tc_util


def get_tc_util() -> int:
    """What `set_tc_util` set; 100 before that."""
    return _Settings.tc_util


def set_pdl(new_enable_pdl: bool) -> None:
    """Whether kernels are launched by programmatic dependent launch; see `ops.set_pdl`."""
    ops.set_pdl(bool(new_enable_pdl))


def get_pdl() -> bool:
    """What `set_pdl` set; False before that."""
    return ops.get_pdl()


# --- Compilation --------------------------------------------------------------------------------


def set_compile_mode(mode: int) -> None:
    """0: calls launch; 1: they build and load their kernel, and launch nothing.

    Raises LaunchError for another mode.
    """
    if mode not in (0, 1):
        expected = "0, or 1 to compile without a launch"
        raise LaunchError("not a mode", where="set_compile_mode", expected=expected, got=mode)
    _Settings.compile_only = bool(mode)


def get_compile_mode() -> int:
    """What `set_compile_mode` set; 0 before that."""
    return int(_Settings.compile_only)


def set_ignore_compile_dims(new_value: bool) -> None:
    """Whether `compiled_dims` count, which they never do: gemmgen compiles N and K in."""


def set_block_size_multiple_of(new_value: int | tuple[int, int]) -> None:
    """A wish about DeepGEMM's tiles, which are not gemmgen's: without effect."""


# --- Groups -------------------------------------------------------------------------------------


def set_mk_alignment_for_contiguous_layout(new_value: int) -> None:
    """The rows, or elements of K, whose multiples contiguous groups start at.

    Raises UnsupportedError unless it is a multiple of 128: Hopper's kernels read one group id for
    128 rows.
    """
    if new_value < BLOCK or new_value % BLOCK:
        raise UnsupportedError(
            "groups cannot start there",
            where="set_mk_alignment_for_contiguous_layout",
            expected=f"a multiple of {BLOCK}",
            got=new_value,
        )
    _Settings.mk_alignment = new_value


def get_mk_alignment_for_contiguous_layout() -> int:
    """What `set_mk_alignment_for_contiguous_layout` set; 128 before that."""
    return _Settings.mk_alignment


def get_theoretical_mk_alignment_for_contiguous_layout(
    expected_m: int | None = None, num_groups: int | None = None
) -> int:
    """The best alignment for so many rows of a group: on Hopper always 128."""
    return BLOCK


get_m_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
get_k_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
