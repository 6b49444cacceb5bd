"""Whether an ELF file is whole. Knows its two header tables, one of which lies at the end."""

from __future__ import annotations

import struct

HEADER_BYTES = 64


def is_whole_elf(header: bytes, size: int) -> bool:
    """Say whether an ELF64 file of `size` bytes reaches to the end of its two header tables.

    `header` holds at least its first 64 bytes. Source: ELF-64 Object File Format 1.5, ELF header.
    """
    if len(header) < HEADER_BYTES or header[:4] != b"\x7fELF":
        return False
    segments, sections = struct.unpack_from("<QQ", header, 32)  # e_phoff, e_shoff
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<4H", header, 54)
    end = max(segments + segment_size * segment_count, sections + section_size * section_count)
    return size >= int(end)
