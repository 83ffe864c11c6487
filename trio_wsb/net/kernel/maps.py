"""The kernel's part of the relay: the program, its maps, and what both have to tell."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from mmap import mmap
from typing import Final

import trio

from trio_wsb.net.kernel import syscalls
from trio_wsb.net.kernel.direction import WORDS
from trio_wsb.net.kernel.elf import read_program
from trio_wsb.net.kernel.ring import NoteRing

SECTION: Final = "sk_skb/stream_verdict"
LICENCE: Final = b"Dual MIT/GPL"
NOTE_SIZE: Final = 16
"""Bytes of a note in their ring."""

NOTES: Final = 2
"""Notes that a direction has at most that nobody has read yet: its credit runs low, and the way was shut."""

_LEAST_RING: Final = 1 << 16
"""Bytes: whole pages, of whatever size."""

_NOTSENT_LOWAT: Final = 25
"""TCP_NOTSENT_LOWAT of linux/tcp.h."""

_COOKIE: Final = 57
"""SO_COOKIE of asm-generic/socket.h."""

_ENDS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLET


class KernelMaps:
    """The program and its maps, with a number of slots: one for each direction of a session.

    Each socket may have `in_flight` bytes that are not sent yet, whoever wrote them.

    Resource handling: owns the maps and the program until `close`; never a socket.
    """

    def __init__(self, slots: int, in_flight: int) -> None:
        """Load the program.

        Raises:
          OSError: the kernel does not do it, or we may not ask.
          BadObject: the object file is not ours.

        """
        self._in_flight = in_flight
        self._descriptors: list[int] = []
        self._sources: dict[int, int] = {}  # slots by descriptor
        self._cookies: dict[int, bytes] = {}  # by slot
        try:
            self._load(slots)
        except BaseException:
            for descriptor in self._descriptors:
                os.close(descriptor)
            raise

    def _load(self, slots: int) -> None:
        data = resources.files(__package__).joinpath("relay.bpf.o").read_bytes()
        program = read_program(data, SECTION)
        size = ring_size(slots)
        maps = {
            "slots": (syscalls.HASH, 8, 4, slots, syscalls.NO_PREALLOC),
            "directions": (syscalls.ARRAY, 4, 8 * WORDS, slots, syscalls.MMAPABLE),
            "sockets": (syscalls.SOCKMAP, 4, 4, slots, 0),
            "notes": (syscalls.RINGBUF, 0, 0, size, 0),
        }
        found = {}
        for name, (kind, key, value, entries, flags) in maps.items():
            with _step(f"creating the map {name}"):
                found[name] = syscalls.create_map(
                    kind, f"wsb_{name}", key=key, value=value, entries=entries, flags=flags
                )
            self._descriptors.append(found[name])
        with _step("loading the types"):
            types = syscalls.load_types([name for _, name in program.functions])
        self._descriptors.append(types)
        functions = [(at, syscalls.FIRST_FUNCTION + i) for i, (at, _) in enumerate(program.functions)]
        with _step("loading the program"):
            verdict = syscalls.load_verdict(program.linked(found), "wsb_relay", LICENCE, types, functions)
        self._descriptors.append(verdict)
        with _step("attaching the program"):
            syscalls.attach_verdict(verdict, found["sockets"])
        self._slots = found["slots"]
        self._by_cookie = syscalls.Elements(found["slots"], key=8, value=4)
        self._by_slot = syscalls.Elements(found["sockets"], key=4, value=4)
        self._memory = mmap(found["directions"], 8 * WORDS * slots)
        self.words: memoryview = memoryview(self._memory).cast("Q")
        """`WORDS` words for each slot, which the program reads and writes too."""
        self._ring = NoteRing(found["notes"], size)
        self._epoll = select.epoll()
        self._epoll.register(found["notes"], select.EPOLLIN)
        self._notes = found["notes"]

    def entries(self) -> int:
        """Return how many sockets the kernel knows of."""
        return sum(1 for _ in syscalls.keys(self._slots, 8))

    def insert(self, slot: int, source: socket.socket) -> None:
        """Let the program judge what `source` receives from now on, and tell when it ends. Raises OSError."""
        key = struct.pack("=I", slot)
        cookie = source.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)
        self._by_cookie.update(cookie, key)
        self._cookies[slot] = cookie
        self._by_slot.update(key, struct.pack("=I", source.fileno()))
        # What came a moment before would wait for what comes next, and go past the program; this makes the kernel look.
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        # What the daemon writes itself is bounded as what the kernel sends on is: without it a send buffer grows to
        # tcp_wmem, 4 MiB mostly.
        source.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, self._in_flight)
        self._epoll.register(source, _ENDS)
        self._sources[source.fileno()] = slot

    def remove(self, slot: int, source: socket.socket) -> None:
        """Undo `insert`, however far it came."""
        self._sources.pop(source.fileno(), None)
        try:
            self._epoll.unregister(source)
        except (OSError, ValueError):
            pass
        cookie = self._cookies.pop(slot, None)
        if cookie is None:
            return  # it was not in yet
        for elements, key in ((self._by_slot, struct.pack("=I", slot)), (self._by_cookie, cookie)):
            try:
                elements.delete(key)
            except OSError:
                pass  # it was not in yet, or left when it was closed

    async def wait(self) -> None:
        """Wait until there is something to `take`."""
        await trio.lowlevel.wait_readable(self._epoll.fileno())

    def take(self) -> tuple[list[int], list[int]]:
        """Return the slots that want attention, and those whose source has sent its last byte, or broke."""
        noted, ended = [], []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._notes:
                noted = self._ring.take()
            elif (slot := self._sources.get(descriptor)) is not None:
                ended.append(slot)
        return noted, ended

    def close(self) -> None:
        """Give everything back to the kernel."""
        self._epoll.close()
        self._ring.close()
        self.words.release()
        self._memory.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def ring_size(slots: int) -> int:
    """Return the bytes of a ring in which no note of `slots` directions is ever lost: a power of two, as Linux wants it."""
    return max(_LEAST_RING, 1 << (slots * NOTES * NOTE_SIZE - 1).bit_length())


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say in an OSError what was being done."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({what})") from error
