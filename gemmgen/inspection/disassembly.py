"""The text of instructions as nvdisasm writes it, with addresses in the place of labels.

nvdisasm knows every operand but prints no stall, yield or scoreboard; `sass_patch` decodes those,
and names operations well enough where there is no nvdisasm. Knows the listings that nvdisasm 13
prints with `-c -novliw`; no failure of it leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gemmgen.errors import ToolchainError

_TIMEOUT_S = 60.0  # 0.3 s for a GEMM kernel

_KERNEL = re.compile(r"\.text\.(\S+):\s*")
_LABEL = re.compile(r"(\.L_\w+):\s*")
_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;?\s*")
_REFERENCE = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True, slots=True)
class Disassembly:
    """What a disassembler made of a cubin."""

    decoder: str  # who it was, for a person to read
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # by kernel, by offset


OWN_DECODER = Disassembly("gemmgen: operands of FFMA, FMUL and FADD only")


def disassemble(cubin: bytes) -> Disassembly:
    """The text from the first nvdisasm that is found; `OWN_DECODER` where it is of no help."""
    from tempfile import NamedTemporaryFile

    from gemmgen.toolchain.locations import in_toolkits, in_wheels
    from gemmgen.toolchain.process import ask_version, run

    path = next(iter(in_wheels("nvdisasm") or in_toolkits("nvdisasm")), None)
    if path is None:
        return OWN_DECODER
    try:
        version = ask_version(path).version
        with NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            status, output = run((str(path), "-c", "-novliw", file.name), timeout_s=_TIMEOUT_S)
    except (ToolchainError, OSError):  # the second: no room for the temporary file
        return OWN_DECODER
    texts = parse_listing(output.splitlines()) if status == 0 else {}
    return Disassembly(f"nvdisasm {version}", texts) if texts else OWN_DECODER


def parse_listing(lines: Iterable[str]) -> dict[str, dict[int, str]]:
    """The instructions of each kernel of a listing, by offset in bytes."""
    texts: dict[str, dict[int, str]] = {}
    labels: dict[str, int] = {}
    current: dict[int, str] = {}
    waiting: list[str] = []
    for line in lines:
        if match := _KERNEL.fullmatch(line):
            current = texts.setdefault(match[1], {})
            waiting = []
        elif match := _LABEL.fullmatch(line):
            waiting.append(match[1])
        elif match := _INSTRUCTION.fullmatch(line):
            offset = int(match[1], 16)
            labels.update(dict.fromkeys(waiting, offset))
            waiting = []
            current[offset] = match[2]

    def address(reference: re.Match[str]) -> str:
        label = reference[1]
        return f"{labels[label]:#06x}" if label in labels else reference[0]

    return {
        kernel: {offset: _REFERENCE.sub(address, text) for offset, text in instructions.items()}
        for kernel, instructions in texts.items()
    }
