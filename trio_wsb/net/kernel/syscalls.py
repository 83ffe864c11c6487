"""The system call bpf(2), as far as the kernel relay needs it. No library: the attributes are few, and every host has them."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from typing import Final

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
"""Number of the system call by machine."""

_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT, _PROG_LOAD, _PROG_ATTACH, _BTF_LOAD = 0, 2, 3, 4, 5, 8, 18

HASH: Final = 1
ARRAY: Final = 2
SOCKMAP: Final = 15
RINGBUF: Final = 27

NO_PREALLOC: Final = 1
MMAPABLE: Final = 1 << 10

_SK_SKB: Final = 14
_SK_SKB_VERDICT: Final = 38

_LOG_SIZE: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


_NUMBER: Final = _NUMBERS.get(platform.machine())


def _bpf(command: int, attributes: bytes) -> int:
    if _NUMBER is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known on {platform.machine()}")
    result: int = _libc.syscall(_NUMBER, command, attributes, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def create_map(kind: int, name: str, *, key: int, value: int, entries: int, flags: int = 0) -> int:
    """Return the descriptor of a new map.

    Args:
      kind: HASH, ARRAY, SOCKMAP or RINGBUF.
      name: for whoever looks at the host's maps; at most 15 bytes.
      key: bytes of a key.
      value: bytes of a value.
      entries: how many there can be; bytes for a RINGBUF.
      flags: NO_PREALLOC, MMAPABLE.

    Raises:
      OSError: the kernel does not give one.

    """
    attributes = struct.pack("<IIIIIII16s", kind, key, value, entries, flags, 0, 0, name.encode()[:15])
    return _bpf(_MAP_CREATE, attributes)


class Elements:
    """The elements of a map. What a call needs is laid out once, since every session makes eight of them."""

    def __init__(self, descriptor: int, *, key: int, value: int) -> None:
        """Make room for a key of `key` bytes and a value of `value` bytes; the map stays the caller's."""
        self._key = ctypes.create_string_buffer(key)
        self._value = ctypes.create_string_buffer(value)
        at, to = ctypes.addressof(self._key), ctypes.addressof(self._value)
        self._update = struct.pack("<IIQQQ", descriptor, 0, at, to, 0)
        self._delete = struct.pack("<IIQ", descriptor, 0, at)

    def update(self, key: bytes, value: bytes) -> None:
        """Set an element. Raises OSError."""
        self._key.raw, self._value.raw = key, value
        _bpf(_MAP_UPDATE, self._update)

    def delete(self, key: bytes) -> None:
        """Remove an element. Raises OSError: ENOENT, of a map of sockets EINVAL, when it is not there."""
        self._key.raw = key
        _bpf(_MAP_DELETE, self._delete)


def keys(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield the keys of a map, of `size` bytes each; some may be missed while others change it. Raises OSError."""
    found = ctypes.create_string_buffer(size)
    previous = 0
    while True:
        attributes = struct.pack("<IIQQQ", descriptor, 0, previous, ctypes.addressof(found), 0)
        try:
            _bpf(_MAP_NEXT, attributes)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield found.raw
        last = ctypes.create_string_buffer(found.raw, size)
        previous = ctypes.addressof(last)


def load_types(names: Sequence[str]) -> int:
    """Return the descriptor of types for functions of these names, which the kernel wants for callbacks. Raises OSError.

    They are made by hand, since those that a compiler writes need a linker: an int, a function that takes nothing
    and returns one, and that under each name, static but for the first (Documentation/bpf/btf.rst of the kernel).
    """
    text = b"\0int\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32) + struct.pack("<III", 0, 13 << 24, 1)
    for index, name in enumerate(names):
        types += struct.pack("<III", len(text), 12 << 24 | (1 if index == 0 else 0), 2)
        text += name.encode() + b"\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text))
    blob = ctypes.create_string_buffer(header + types + text, len(header) + len(types) + len(text))
    return _bpf(_BTF_LOAD, struct.pack("<QQIIII", ctypes.addressof(blob), 0, len(blob), 0, 0, 0))


FIRST_FUNCTION: Final = 3
"""Number of the type of the first function of `load_types`; the others follow."""


def load_verdict(
    code: bytes, name: str, licence: bytes, types: int, functions: Sequence[tuple[int, int]]
) -> int:
    """Return the descriptor of a verdict program for sockets.

    Args:
      code: its instructions.
      name: for whoever looks at the host's programs.
      licence: what the kernel is told.
      types: what `load_types` returned.
      functions: where each function begins, in instructions, and the number of its type.

    Raises:
      OSError: the kernel refuses it; the verifier's last words are in the message if it has some.

    """
    instructions = ctypes.create_string_buffer(code, len(code))
    terms = ctypes.create_string_buffer(licence)
    known = b"".join(struct.pack("<II", *each) for each in functions)
    records = ctypes.create_string_buffer(known, len(known))

    def attributes(level: int, size: int, log: int) -> bytes:
        return struct.pack(
            "<IIQQIIQII16sIIIIQI4x",
            _SK_SKB, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(terms),
            level, size, log, 0, 0, name.encode()[:15], 0, _SK_SKB_VERDICT,
            types, 8, ctypes.addressof(records), len(functions),
        )  # fmt: skip

    try:
        return _bpf(_PROG_LOAD, attributes(0, 0, 0))
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EINVAL, errno.E2BIG}:
            raise
        # Only a refused program is worth the time that a log takes.
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            return _bpf(_PROG_LOAD, attributes(1, _LOG_SIZE, ctypes.addressof(log)))
        except OSError as again:
            lines = log.value.decode(errors="replace").strip().splitlines()
            said = next((line for line in reversed(lines) if not line.startswith("processed ")), "")
            raise OSError(again.errno, f"{again.strerror}{': ' + said if said else ''}") from None


def attach_verdict(program: int, sockets: int) -> None:
    """Let `program` judge what the sockets of the map `sockets` receive. Raises OSError."""
    _bpf(_PROG_ATTACH, struct.pack("<IIII", sockets, program, _SK_SKB_VERDICT, 0))
