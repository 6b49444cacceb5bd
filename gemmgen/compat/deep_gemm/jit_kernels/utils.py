"""Helpers by their early place."""

from __future__ import annotations

from gemmgen.compat.deep_gemm.settings import get_num_sms, set_num_sms
from gemmgen.compat.deep_gemm.utils import (
    ceil_div,
    get_col_major_tma_aligned_tensor,
    get_m_alignment_for_contiguous_layout,
    get_tma_aligned_size,
)

__all__ = [
    "ceil_div",
    "get_col_major_tma_aligned_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_num_sms",
    "get_tma_aligned_size",
    "set_num_sms",
]
