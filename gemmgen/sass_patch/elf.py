"""The kernels of a cubin: where their code lies in the file and what the driver is told about them.

Knows the ELF layouts of CUDA 12.x and 13.x (pyelftools reads the sections, this module the records
of `.nv.info`); refuses to know instructions. Any file that is not a complete cubin for sm_90 is
refused with a `PatchError`; no other exception leaves this module, whatever the bytes are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemmgen.errors import PatchError
from gemmgen.sass_patch.encoding import INSTRUCTION_BYTES

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

SM = 90

_EM_CUDA = "EM_CUDA"
_SECTION_HEADER_BYTES = 64
_ABI_12, _ABI_13 = 7, 8  # EI_ABIVERSION: where e_flags holds the SM differs
_ARCHITECTURE_SPECIFIC = 1 << 11  # in e_flags of CUDA 12.x: the "a" of sm_90a
_FATBIN_MAGICS = (b"\x50\xed\x55\xba", b"\xb1\x43\x62\x46")

# Attributes of `.nv.info` (EIATTR_*), by the names cuobjdump gives them.
_MAX_THREADS = 0x05
_PARAM_BYTES = 0x19
_MAXREG_COUNT = 0x1B
_REGCOUNT = 0x2F
_NUM_MBARRIERS = 0x38
_CUDA_API_VERSION = 0x37
_CTA_PER_CLUSTER = 0x3D
_NUM_BARRIERS = 0x4C  # since 13.0; before, bits 20 and up of the flags of the code section


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a cubin. None stands for what the file does not say."""

    name: str
    offset: int  # bytes from the start of the file to the first instruction
    size: int  # bytes of code
    toolkit: tuple[int, int] | None  # of the ptxas that made it: (12, 8)
    registers: int | None  # a thread, at launch; setmaxnreg changes it while the kernel runs
    max_registers: int | None  # the limit that ptxas worked under; 255: none
    max_threads: int | None  # a CTA, from the launch bounds
    cluster: tuple[int, int, int] | None  # CTAs, only if the source fixes it
    barriers: int  # named barriers (bar.sync)
    mbarriers: int | None  # mbarrier objects that the compiler saw being initialised
    shared_bytes: int  # static; includes the 1024 bytes that sm_90 reserves
    param_bytes: int | None


@dataclass(frozen=True, slots=True)
class Cubin:
    """What the file as a whole says."""

    architecture: str  # "sm_90a"; a cubin of CUDA 13.x does not say whether it is "sm_90a"
    kernels: tuple[Kernel, ...]


def read_cubin(data: bytes) -> Cubin:
    """Find the kernels. `PatchError` for what is no ELF file, damaged, not CUDA or not sm_90."""
    if data[:4] in _FATBIN_MAGICS:
        raise PatchError("this is a fatbin, not a cubin", fix="take the cubin out: cuobjdump -xelf")
    if data[:4] != b"\x7fELF":
        raise PatchError("this is not a cubin", expected="an ELF file", got=repr(data[:4]))
    try:
        return _read(data)
    except PatchError:
        raise
    except Exception as error:  # pyelftools lets out whatever its parsers meet in damaged bytes
        reason = f"{type(error).__name__}: {error}"
        raise PatchError("the cubin is damaged", expected="a whole ELF file", got=reason) from None


def _read(data: bytes) -> Cubin:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    _check_header(elf, len(data))
    architecture = _architecture(elf)
    sections = list(elf.iter_sections())
    for section in sections:
        if section["sh_type"] != "SHT_NOBITS":
            _check_extent(section.name, section["sh_offset"], section["sh_size"], len(data))
    info = {
        section.name[len(".nv.info") :].lstrip("."): _attributes(section.data())
        for section in sections
        if section.name.startswith(".nv.info")
    }
    symbol_names = _symbol_names(elf)
    kernels = []
    for section in sections:
        name = section.name.removeprefix(".text.")
        if name == section.name or name not in info:
            continue
        whole = section["sh_size"] > 0 and section["sh_size"] % INSTRUCTION_BYTES == 0
        if not whole or section["sh_type"] != "SHT_PROGBITS":
            raise PatchError(
                "the code of a kernel is no sequence of instructions",
                where=f"kernel {name}",
                expected=f"a multiple of {INSTRUCTION_BYTES} bytes",
                got=section["sh_size"],
            )
        own = info[name]
        version = _number(own, _CUDA_API_VERSION)
        shared = elf.get_section_by_name(f".nv.shared.{name}")
        barriers = _number(own, _NUM_BARRIERS)
        kernels.append(
            Kernel(
                name=name,
                offset=section["sh_offset"],
                size=section["sh_size"],
                toolkit=None if version is None else divmod(version, 10),
                registers=_registers(info.get("", []), name, symbol_names),
                max_registers=_number(own, _MAXREG_COUNT),
                max_threads=_product(_triple(own, _MAX_THREADS)),
                cluster=_triple(own, _CTA_PER_CLUSTER),
                barriers=section["sh_flags"] >> 20 if barriers is None else barriers,
                mbarriers=_number(own, _NUM_MBARRIERS),
                shared_bytes=shared["sh_size"] if shared else 0,
                param_bytes=_number(own, _PARAM_BYTES),
            )
        )
    if not kernels:
        raise PatchError("the cubin holds no kernel", expected="a section .text.<kernel>")
    _check_disjoint(kernels)
    return Cubin(architecture, tuple(kernels))


def _check_header(elf: ELFFile, size: int) -> None:
    """Both tables of headers stand at the end of a cubin: this finds a file that was cut off."""
    header = elf.header
    if header["e_machine"] != _EM_CUDA:
        raise PatchError(
            "this is not a cubin", expected="an ELF file for CUDA", got=header["e_machine"]
        )
    if elf.elfclass != 64 or not elf.little_endian:
        raise PatchError("this is not a cubin of CUDA 12 or 13", expected="64 bit, little endian")
    entries, entry_bytes = header["e_shnum"], header["e_shentsize"]
    if not entries or entry_bytes != _SECTION_HEADER_BYTES:
        got = f"{entries} of {entry_bytes} bytes"
        raise PatchError("the cubin is damaged", expected="section headers of 64 bytes", got=got)
    _check_extent("section headers", header["e_shoff"], entries * entry_bytes, size)
    segment_bytes = header["e_phnum"] * header["e_phentsize"]
    _check_extent("program headers", header["e_phoff"], segment_bytes, size)


def _check_extent(what: str, offset: int, length: int, size: int) -> None:
    if offset + length > size:
        raise PatchError(
            "the cubin is truncated",
            where=what,
            expected=f"{offset + length} bytes or more",
            got=f"{size} bytes",
        )


def _check_disjoint(kernels: list[Kernel]) -> None:
    end = 0
    for kernel in sorted(kernels, key=lambda kernel: kernel.offset):
        if kernel.offset < end:
            raise PatchError("the cubin is damaged: kernels share code", where=kernel.name)
        end = kernel.offset + kernel.size


def _architecture(elf: ELFFile) -> str:
    flags, abi = elf.header["e_flags"], elf.header["e_ident"]["EI_ABIVERSION"]
    if abi == _ABI_12:
        sm, suffix = flags & 0xFF, "a" if flags & _ARCHITECTURE_SPECIFIC else ""
    elif abi == _ABI_13:
        sm, suffix = flags >> 8 & 0xFF, ""
    else:
        raise PatchError(
            "the cubin has an ABI that is not known here",
            expected=f"version {_ABI_12} (CUDA 12.x) or {_ABI_13} (CUDA 13.x)",
            got=abi,
        )
    if sm != SM:
        raise PatchError("the cubin is for another GPU", expected=f"sm_{SM}", got=f"sm_{sm}")
    return f"sm_{sm}{suffix}"


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """The records of a `.nv.info` section: attribute and payload."""
    return list(_records(data))


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(data):
        encoding, attribute = data[position], data[position + 1]
        start, length = position + 2, 2
        if encoding == 4:
            start, length = (
                position + 4,
                int.from_bytes(data[position + 2 : position + 4], "little"),
            )
        if start + length > len(data):
            raise PatchError("the cubin is damaged: a record of .nv.info is cut off")
        yield attribute, data[start : start + length]
        position = start + length


def _words(payload: bytes) -> list[int]:
    return [int.from_bytes(payload[k : k + 4], "little") for k in range(0, len(payload), 4)]


def _number(records: list[tuple[int, bytes]], attribute: int) -> int | None:
    return next((int.from_bytes(data, "little") for key, data in records if key == attribute), None)


def _triple(records: list[tuple[int, bytes]], attribute: int) -> tuple[int, int, int] | None:
    data = next((data for key, data in records if key == attribute and len(data) == 12), None)
    if data is None:
        return None
    x, y, z = _words(data)
    return x, y, z


def _product(triple: tuple[int, int, int] | None) -> int | None:
    return triple and triple[0] * triple[1] * triple[2]


def _symbol_names(elf: ELFFile) -> dict[int, str]:
    table = elf.get_section_by_name(".symtab")
    if table is None or not hasattr(table, "iter_symbols"):
        return {}
    return {number: symbol.name for number, symbol in enumerate(table.iter_symbols())}


def _registers(
    records: list[tuple[int, bytes]], name: str, symbol_names: dict[int, str]
) -> int | None:
    """The register counts stand in the `.nv.info` of the whole file, by symbol."""
    for attribute, payload in records:
        if attribute == _REGCOUNT and len(payload) == 8:
            symbol, count = _words(payload)
            if symbol_names.get(symbol) == name:
                return count
    return None
