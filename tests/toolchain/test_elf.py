from __future__ import annotations

import struct

import pytest

from gemmgen.toolchain.elf import HEADER_BYTES, is_whole_elf


def header(segments: tuple[int, int, int], sections: tuple[int, int, int]) -> bytes:
    """An ELF64 header whose tables have these offsets, sizes and counts of entries."""
    data = bytearray(HEADER_BYTES)
    data[:4] = b"\x7fELF"
    struct.pack_into("<QQ", data, 32, segments[0], sections[0])
    struct.pack_into("<4H", data, 54, *segments[1:], *sections[1:])
    return bytes(data)


@pytest.mark.parametrize(
    "tables", [((64, 56, 2), (1000, 64, 10)), ((1528, 56, 2), (64, 64, 10))], ids=["last", "first"]
)
def test_a_file_reaches_to_the_end_of_its_last_table(
    tables: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    assert is_whole_elf(header(*tables), 1640)
    assert not is_whole_elf(header(*tables), 1639)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", bytes(HEADER_BYTES)])
def test_other_files_are_none(data: bytes) -> None:
    assert not is_whole_elf(data, 10_000)
