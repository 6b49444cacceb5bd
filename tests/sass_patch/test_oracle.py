"""nvdisasm as a second opinion on what the tables of this stage say."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from sass_patch.samples import NAMES, PAIRS, sample

from gemmgen.sass_patch import mnemonic, patch, read_listings
from gemmgen.sass_patch.blocks import find_blocks
from gemmgen.sass_patch.operations import FFMA, describe, read_registers
from gemmgen.toolchain import list_compilers

pytestmark = pytest.mark.toolchain

LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;?\s*(?:/\*|$)")
LABEL = re.compile(r"(\.L_x_\d+):")
GUARD = re.compile(r"@!?U?P\d\s+")


@pytest.fixture(scope="session")
def nvdisasm() -> Path:
    found = list_compilers().nvdisasm
    if not found:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    return found[0].path


@functools.cache
def disassemble(nvdisasm: Path, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [nvdisasm, "-c", "-novliw", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(text: str) -> list[dict[int, str]]:
    """The instructions of each kernel, by offset."""
    found: list[dict[int, str]] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            offset = int(match[1], 16)
            if offset == 0:
                found.append({})
            found[-1][offset] = match[2]
    return found


def pairs(nvdisasm: Path, name: str):
    """Each instruction of a sample with the text that nvdisasm has for it."""
    texts = kernels(disassemble(nvdisasm, sample(name)))
    for listing, lines in zip(read_listings(sample(name)), texts, strict=True):
        for index, instruction in enumerate(listing.code):
            if 16 * index in lines:  # nvdisasm leaves the padding out
                yield instruction, lines[16 * index]


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
def test_names_of_operations(nvdisasm: Path, name: str) -> None:
    for instruction, text in pairs(nvdisasm, name):
        assert mnemonic(instruction) == re.split(r"[ .]", GUARD.sub("", text))[0]


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
def test_reused_registers(nvdisasm: Path, name: str) -> None:
    for instruction, text in pairs(nvdisasm, name):
        reuse = instruction.control.issue.reuse
        kept = [read_registers(instruction)[slot] for slot in range(3) if reuse >> slot & 1]
        assert sorted(map(str, kept)) == sorted(re.findall(r"R(\d+)\|?\.reuse", text)), text


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
def test_operands_of_ffma(nvdisasm: Path, name: str) -> None:
    for instruction, text in pairs(nvdisasm, name):
        if instruction.opcode == FFMA:
            assert describe(instruction) == text.replace(".reuse", "")


@pytest.mark.parametrize("name", NAMES)
def test_branch_targets(nvdisasm: Path, name: str) -> None:
    text = disassemble(nvdisasm, sample(name))
    places: dict[str, int] = {}
    waiting: list[str] = []
    for line in text.splitlines():
        label, instruction = LABEL.match(line.strip()), LINE.match(line)
        if label:
            waiting.append(label[1])
        elif instruction:
            places.update(dict.fromkeys(waiting, int(instruction[1], 16) // 16))
            waiting = []
    targets = {places[label] for label in re.findall(r"(?:BRA|BSSY)\S* .*`\((\.L_x_\d+)\)", text)}
    (listing,) = read_listings(sample(name))
    assert targets <= {block.start for block in find_blocks(listing.code).blocks}


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
@pytest.mark.parametrize("text", ["interleave_ffma", "sparse_yield(on=all)", "strip_interleave"])
def test_a_patched_cubin_is_the_same_program(nvdisasm: Path, name: str, text: str) -> None:
    before = disassemble(nvdisasm, sample(name))
    after = disassemble(nvdisasm, patch(sample(name), [text]).cubin)
    assert after.replace(".reuse", "") == before.replace(".reuse", "")
