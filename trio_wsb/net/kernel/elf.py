"""The object file of the verdict program: from its bytes to instructions that wait for their maps.

Just what one section of a 64-bit little-endian BPF object needs (System V ABI, "Object Files"; the kernel's
"BPF ELF relocations"). The file is our own, shipped with the package, but it is read as if it were not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from trio_wsb.errors import Error

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQ")

_EM_BPF: Final = 247
_SYMBOLS: Final = 2
_FUNCTION: Final = 2
_RELOCATIONS: Final = 9
_R_BPF_64_64: Final = 1

_INSTRUCTION: Final = 8
_LOAD_64: Final = 0x18
_PSEUDO_MAP: Final = 1
"""Source register of an instruction whose constant is the descriptor of a map."""
_PSEUDO_FUNC: Final = 4
"""Source register of an instruction whose constant is the distance to a function of the program."""


class BadObject(Error):
    """The file is no object that this loader understands."""


@frozen
class Program:
    """The instructions of one section, and where each map goes in."""

    code: bytes
    maps: tuple[tuple[int, str], ...]
    """Offsets of instructions and the names of the maps that they load."""
    functions: tuple[tuple[int, str], ...]
    """Where each function begins, in instructions, and its name; the first is the program itself."""

    def linked(self, descriptors: Mapping[str, int]) -> bytes:
        """Return the code with the descriptors of its maps put in.

        Raises:
          BadObject: a map that it needs is not among `descriptors`.

        """
        code = bytearray(self.code)
        for offset, name in self.maps:
            if name not in descriptors:
                raise BadObject(f"the program needs a map {name!r}")
            code[offset + 1] = (code[offset + 1] & 0x0F) | _PSEUDO_MAP << 4
            struct.pack_into("<i", code, offset + 4, descriptors[name])
        return bytes(code)


@frozen
class _Section:
    name: str
    type: int
    info: int
    link: int
    data: bytes


def read_program(data: bytes, section: str) -> Program:
    """Return the program in `section` of an object file.

    Raises:
      BadObject: it is not there, or the file is malformed.

    """
    try:
        sections = list(_sections(data))
        found = next((i for i, each in enumerate(sections) if each.name == section), None)
        if found is None:
            raise BadObject(f"there is no section {section!r}")
        if not sections[found].data or len(sections[found].data) % _INSTRUCTION:
            raise BadObject("the program is no whole number of instructions")
        code = bytearray(sections[found].data)
        maps = tuple(_linked(sections, found, code))
        return Program(bytes(code), maps, tuple(_functions(sections, found)))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadObject("the object file is cut off or malformed") from error


def _sections(data: bytes) -> Iterator[_Section]:
    ident, _, machine, *rest = _HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\x02\x01" or machine != _EM_BPF:
        raise BadObject("this is no 64-bit little-endian BPF object")
    offset, size, count, names = rest[3], rest[8], rest[9], rest[10]
    headers = [_SECTION.unpack_from(data, offset + index * size) for index in range(count)]
    text = _content(data, headers[names])
    for header in headers:
        yield _Section(_name(text, header[0]), header[1], header[7], header[6], _content(data, header))


def _content(data: bytes, header: tuple[int, ...]) -> bytes:
    offset, size = header[4], header[5]
    if header[1] and offset + size > len(data):
        raise BadObject("the object file is cut off")
    return data[offset : offset + size]


def _name(text: bytes, offset: int) -> str:
    return text[offset : text.index(b"\0", offset)].decode("ascii")


def _linked(sections: list[_Section], target: int, code: bytearray) -> Iterator[tuple[int, str]]:
    """Put the distances to functions into `code`, and yield where descriptors of maps belong."""
    for section in sections:
        if section.type != _RELOCATIONS or section.info != target:
            continue
        symbols = sections[section.link]
        names = sections[symbols.link].data
        for offset, info in _RELOCATION.iter_unpack(section.data):
            if info & 0xFFFFFFFF != _R_BPF_64_64 or code[offset] != _LOAD_64:
                raise BadObject("a relocation of a kind that is not known")
            name, _, _, home, value, _ = _SYMBOL.unpack_from(symbols.data, (info >> 32) * _SYMBOL.size)
            if home != target:
                yield offset, _name(names, name)
                continue
            (addend,) = struct.unpack_from("<i", code, offset + 4)
            distance = (value + addend - offset) // _INSTRUCTION - 1
            code[offset + 1] = (code[offset + 1] & 0x0F) | _PSEUDO_FUNC << 4
            struct.pack_into("<i", code, offset + 4, distance)


def _functions(sections: list[_Section], target: int) -> list[tuple[int, str]]:
    found = []
    for section in sections:
        if section.type != _SYMBOLS:
            continue
        names = sections[section.link].data
        for name, info, _, home, value, _ in _SYMBOL.iter_unpack(section.data):
            if home == target and info & 0xF == _FUNCTION:
                found.append((value // _INSTRUCTION, _name(names, name)))
    return sorted(found)
