"""The kernel's table of sessions: its maps, its program, and the task that listens to both."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from importlib import resources
from itertools import islice
from mmap import mmap
from typing import Final

import structlog
import trio

from trio_wsb.net.kernel import syscalls
from trio_wsb.net.kernel.elf import BadObject, read_program
from trio_wsb.net.kernel.legs import FLUSH_PAUSES, WORDS, Direction, KernelLeg, KernelPair, end_sending
from trio_wsb.net.kernel.ring import NoteRing

log = structlog.stdlib.get_logger("trio_wsb.kernel")

SECTION: Final = "sk_skb/stream_verdict"
LICENCE: Final = b"Dual MIT/GPL"
NOTES_SIZE: Final = 1 << 18
"""Bytes of the ring of notes; a note takes 16, and a direction has two at most that nobody has read yet."""

LINGER: Final = 10.0
"""Seconds for what was sent on to reach the queue of a peer that takes nothing, when the session is over."""

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks for ways that are stuck."""

WATCHED_AT_ONCE: Final = 1000
"""Directions in one look, which takes two milliseconds then."""

_COOKIE: Final = 57
"""SO_COOKIE of asm-generic/socket.h."""

_ENDS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLET


class KernelTable:
    """Sessions whose bytes the kernel moves.

    Resource handling: owns the maps, the program and the sockets of sessions that are over but not flushed, until
    `close`. `run` must be running as long as there are sessions.
    """

    def __init__(self, sessions: int, credit: int) -> None:
        """Load the program, with room for `sessions` sessions and `credit` bytes under way in each direction.

        Raises:
          OSError: the kernel does not do it, or we may not ask.
          BadObject: the object file is not ours.

        """
        self._credit = credit
        self.capacity = sessions
        self.stalls = 0
        """Ways that were found stuck since the start."""
        self._descriptors: list[int] = []
        self._free = list(range(0, 2 * sessions, 2))[::-1]
        self._directions: dict[int, Direction] = {}
        self._sources: dict[int, Direction] = {}
        self._flushing: dict[Direction, tuple[float, KernelPair | None]] = {}
        self._wanted = trio.Event()
        try:
            self._load(2 * sessions)
        except BaseException:
            for descriptor in self._descriptors:
                os.close(descriptor)
            raise

    def _load(self, slots: int) -> None:
        data = resources.files(__package__).joinpath("relay.bpf.o").read_bytes()
        program = read_program(data, SECTION)
        maps = {
            "slots": (syscalls.HASH, 8, 4, slots, syscalls.NO_PREALLOC),
            "directions": (syscalls.ARRAY, 4, 8 * WORDS, slots, syscalls.MMAPABLE),
            "sockets": (syscalls.SOCKMAP, 4, 4, slots, 0),
            "notes": (syscalls.RINGBUF, 0, 0, NOTES_SIZE, 0),
        }
        found = {}
        for name, (kind, key, value, entries, flags) in maps.items():
            found[name] = syscalls.create_map(
                kind, f"wsb_{name}", key=key, value=value, entries=entries, flags=flags
            )
            self._descriptors.append(found[name])
        types = syscalls.load_types([name for _, name in program.functions])
        self._descriptors.append(types)
        functions = [(at, syscalls.FIRST_FUNCTION + i) for i, (at, _) in enumerate(program.functions)]
        verdict = syscalls.load_verdict(program.linked(found), "wsb_relay", LICENCE, types, functions)
        self._descriptors.append(verdict)
        syscalls.attach_verdict(verdict, found["sockets"])
        self._slots, self._sockets = found["slots"], found["sockets"]
        self._memory = mmap(found["directions"], 8 * WORDS * slots)
        self._words = memoryview(self._memory).cast("Q")
        self._ring = NoteRing(found["notes"], NOTES_SIZE)
        self._epoll = select.epoll()
        self._epoll.register(found["notes"], select.EPOLLIN)
        self._notes = found["notes"]

    def __len__(self) -> int:
        """How many sessions are in the table."""
        return len(self._directions) // 2

    def entries(self) -> int:
        """Return how many sockets the kernel knows of; twice as many as sessions, unless something leaks."""
        return sum(1 for _ in syscalls.keys(self._slots, 8))

    def enter(self, client: socket.socket, backend: socket.socket) -> tuple[KernelLeg, KernelLeg] | None:
        """Put a session in the table and return its channels, which own the sockets; None if there is no room.

        Everything that was read from the sockets so far must have been written, or be given to `follow`.

        Raises:
          OSError: a socket cannot be in the table, it may be closed; both are still the caller's.

        """
        if not self._free:
            return None
        slot = self._free.pop()
        try:
            up = Direction(slot, self._words, client, backend, self._credit)
            down = Direction(slot + 1, self._words, backend, client, self._credit)
            for direction in (up, down):
                key = struct.pack("=I", direction.slot)
                cookie = direction.source.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)
                syscalls.update(self._slots, cookie, key)
                syscalls.update(self._sockets, key, struct.pack("=I", direction.source.fileno()))
                self._epoll.register(direction.source, _ENDS)
        except OSError:
            self._forget(slot, (client, backend))
            raise
        self._directions[slot], self._directions[slot + 1] = up, down
        self._sources[client.fileno()], self._sources[backend.fileno()] = up, down
        return KernelPair(self, up, down).legs()

    def later(self, direction: Direction, pair: KernelPair | None = None) -> None:
        """End the sending to the sink of `direction`, or close `pair`, when what was sent on is flushed."""
        self._flushing[direction] = (trio.current_time() + LINGER, pair)
        self._wanted.set()

    def leave(self, pair: KernelPair, *, flush: bool) -> None:
        """Take a session whose ways are shut out of the table and close its sockets, when it is flushed."""
        for direction in (pair.up, pair.down):
            if flush and not direction.is_flushed():
                self.later(direction, pair)
                return
            self._flushing.pop(direction, None)
        up, down = pair.up, pair.down
        self._sources.pop(up.source.fileno(), None)
        self._sources.pop(down.source.fileno(), None)
        del self._directions[up.slot], self._directions[down.slot]
        self._forget(up.slot, (up.source, down.source))
        for sock in (down.source, up.source):
            if sock.fileno() != -1:
                trio.lowlevel.notify_closing(sock)
                sock.close()

    def _forget(self, slot: int, socks: tuple[socket.socket, socket.socket]) -> None:
        for number, sock in zip((slot, slot + 1), socks, strict=True):
            try:
                self._epoll.unregister(sock)
            except (OSError, ValueError):
                pass
            for descriptor, key in ((self._sockets, struct.pack("=I", number)), (self._slots, _cookie(sock))):
                try:
                    syscalls.delete(descriptor, key)
                except OSError:
                    pass  # it was not in yet
        self._free.append(slot)

    async def run(self) -> None:
        """Listen to the program and the sockets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            nursery.start_soon(self._watch)
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, _ in self._epoll.poll(0):
                    if descriptor == self._notes:
                        for slot in self._ring.take():
                            if (direction := self._directions.get(slot)) is not None:
                                direction.noted()
                    elif (direction := self._sources.get(descriptor)) is not None:
                        direction.ended = True
                        direction.wake()

    async def _flush(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            pauses = iter(FLUSH_PAUSES)
            while self._flushing:
                now = trio.current_time()
                for direction, (deadline, pair) in list(self._flushing.items()):
                    if direction not in self._flushing or not (direction.is_flushed() or now >= deadline):
                        continue
                    del self._flushing[direction]
                    if pair is None:
                        end_sending(direction.sink)
                    else:
                        self.leave(pair, flush=now < deadline)
                await trio.sleep(next(pauses, FLUSH_PAUSES[-1]))

    async def _watch(self) -> None:
        """Find ways that are stuck, a part of all in each second, and take them back."""
        suspects: dict[Direction, int] = {}
        slots: Iterator[int] = iter(())
        while True:
            await trio.sleep(WATCH_INTERVAL)
            for direction, redirected in suspects.items():
                if direction.lags() and direction.redirected == redirected:
                    log.error("kernel relay stuck, session goes on without it", slot=direction.slot)
                    self.stalls += 1
                    direction.give_up()
            suspects.clear()
            batch = list(islice(slots, WATCHED_AT_ONCE))
            if not batch:
                slots = iter(tuple(self._directions))
            for slot in batch:
                found = self._directions.get(slot)
                if found is not None and found.lags():
                    suspects[found] = found.redirected

    async def empty(self) -> None:
        """Wait until no session is left."""
        while self._directions:  # noqa: ASYNC110 - nothing tells when the kernel has written it
            await trio.sleep(FLUSH_PAUSES[2])

    def close(self) -> None:
        """Give everything back to the kernel."""
        self._epoll.close()
        self._ring.close()
        self._words.release()
        self._memory.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def _cookie(sock: socket.socket) -> bytes:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)
    except OSError:
        return bytes(8)


__all__ = ["BadObject", "KernelTable"]
