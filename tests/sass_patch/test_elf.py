"""Reading cubins, and refusing what is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sass_patch.samples import NAMES, sample

from gemmgen.errors import PatchError
from gemmgen.sass_patch import Kernel, patch, read_cubin


@pytest.mark.parametrize("name", NAMES)
def test_what_a_cubin_says(name: str) -> None:
    cubin = read_cubin(sample(name))
    (kernel,) = cubin.kernels
    kind, major, minor, _ = name.split(".")
    stages = {"s64": 2, "g128": 4}[kind]
    assert cubin.architecture == ("sm_90a" if major == "12" else "sm_90")
    assert kernel == Kernel(
        name="gemm",
        offset=kernel.offset,
        size=kernel.size,
        toolkit=(int(major), int(minor)),
        registers=168,
        max_registers=168,
        max_threads=384,
        cluster=None,
        barriers=2,
        mbarriers=2 * stages,
        shared_bytes=1024,
        param_bytes=432,
    )


def test_where_the_code_is() -> None:
    (kernel,) = read_cubin(sample("g128.12.8.93")).kernels
    assert (kernel.offset, kernel.size) == (2304, 25728)


def edited(old: bytes, new: bytes, name: str = "s64.12.8.93") -> bytes:
    assert sample(name).count(old) >= 1
    return sample(name).replace(old, new)


def test_another_gpu() -> None:
    for name, sm_80 in (("s64.12.8.93", 0x00500550), ("s64.13.0.88", 0x06005004)):
        data = bytearray(sample(name))
        data[48:52] = sm_80.to_bytes(4, "little")
        with pytest.raises(PatchError, match=r"another GPU[\s\S]*sm_90[\s\S]*sm_80"):
            read_cubin(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a cubin"),
        (b"\x7fEL", "not a cubin"),
        (b"\x7fELF", "damaged"),
        (b"#!/bin/sh\n", "not a cubin"),
        (b"\x50\xed\x55\xba" + bytes(100), "fatbin"),
        (sample("s64.12.8.93")[:18] + b"\x3e\0" + sample("s64.12.8.93")[20:], "not a cubin"),
        (sample("s64.12.8.93")[:8] + b"\x09" + sample("s64.12.8.93")[9:], "ABI"),
        (edited(b".text.gemm", b".test.gemm"), "no kernel"),
        (edited(b".nv.info.gemm", b".nv.Info.gemm"), "no kernel"),
    ],
)
def test_no_cubin(data: bytes, reason: str) -> None:
    with pytest.raises(PatchError, match=reason):
        read_cubin(data)


@pytest.mark.parametrize("name", ["s64.12.8.93", "s64.13.0.88"])
def test_a_truncated_cubin(name: str) -> None:
    whole = sample(name)
    for size in (*range(0, 130), *range(130, len(whole), 997), len(whole) - 1):
        with pytest.raises(PatchError):
            read_cubin(whole[:size])


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    for start in (b"", b"\x7fELF\x02\x01\x01\x33\x07", sample("s64.12.8.93")[:64]):
        with pytest.raises(PatchError):
            read_cubin(start + data)


def damage(data: bytes, seed: int) -> bytes:
    """Overwrite a few bytes, most of them where the file describes itself."""
    generator = random.Random(seed)
    result = bytearray(data)
    code = read_cubin(data).kernels[0]
    for _ in range(generator.choice((1, 2, 8, 40))):
        place = generator.randrange(len(result))
        while code.offset <= place < code.offset + code.size and generator.random() < 0.9:
            place = generator.randrange(len(result))
        result[place] = generator.choice((0, 0xFF, 0x7F, generator.randrange(256)))
    return bytes(result)


@pytest.mark.parametrize("seed", range(120))
def test_damaged_cubins_are_patched_or_refused(seed: int) -> None:
    data = damage(sample(("s64.12.8.93", "s64.13.0.88")[seed % 2]), seed)
    try:
        result = patch(data, ["sparse_yield", "interleave_ffma"])
    except PatchError:
        return
    assert len(result.cubin) == len(data)
