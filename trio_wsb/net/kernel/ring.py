"""The ring of notes from the verdict program: slots that want attention (Documentation/bpf/ringbuf.rst of the kernel)."""

from __future__ import annotations

import mmap
import struct
from typing import Final

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_HEADER: Final = 8


class NoteRing:
    """The consumer's side of a ring buffer map.

    Resource handling: owns its memory maps; `close` gives them back. The descriptor stays the caller's.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Map the ring of `size` bytes behind `descriptor`. Raises OSError."""
        page = mmap.PAGESIZE
        self._size = size
        self._consumer = mmap.mmap(descriptor, page)
        # The data is mapped twice in a row, so that no record is ever cut by the end.
        self._ring = mmap.mmap(descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        self._data = page

    def take(self) -> list[int]:
        """Return the slots of all notes that are there, the oldest first, and forget them."""
        notes = []
        (position,) = struct.unpack_from("<Q", self._consumer)
        while position < struct.unpack_from("<Q", self._ring)[0]:
            at = self._data + position % self._size
            (length,) = struct.unpack_from("<I", self._ring, at)
            if length & _BUSY:
                break  # being written at this moment; its writer wakes us
            if not length & _DISCARDED:
                notes.append(struct.unpack_from("<I", self._ring, at + _HEADER)[0])
            position += _HEADER + ((length & ~_DISCARDED) + 7 & ~7)
            struct.pack_into("<Q", self._consumer, 0, position)
        return notes

    def close(self) -> None:
        """Give the memory back."""
        self._consumer.close()
        self._ring.close()
