"""A plain read of memory, the floor of a kernel that moves as many bytes. Needs Triton."""

import torch
import triton
import triton.language as tl

BLOCK = 4096  # 32-bit words that a program reads at a time
PROGRAMS_PER_SM = 8


@triton.jit
def _read(source, sink, words, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.int32)
    for start in range(tl.program_id(0) * BLOCK, words, tl.num_programs(0) * BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        total += tl.load(source + offsets, mask=offsets < words, other=0)
    # Hardly ever true, but the compiler cannot know, so the loads stay.
    if tl.sum(total) == 0x5A5A5A5A:
        tl.store(sink, 1)


def reader(nbytes: int):
    """A function that reads `nbytes` of random data of its own once."""
    words = nbytes // 4
    source = torch.randint(-(2**31), 2**31 - 1, (words,), dtype=torch.int32, device="cuda")
    sink = torch.zeros(1, dtype=torch.int32, device="cuda")
    sms = torch.cuda.get_device_properties("cuda").multi_processor_count
    grid = (min(triton.cdiv(words, BLOCK), PROGRAMS_PER_SM * sms),)

    def read() -> None:
        _read[grid](source, sink, words, BLOCK=BLOCK, num_warps=8)

    return read
