"""The kernel's table of sessions: its maps, its program, and the task that listens to both."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice
from typing import Final

import structlog
import trio

from trio_wsb.net.kernel.direction import FLUSH_PAUSES, Direction
from trio_wsb.net.kernel.elf import BadObject
from trio_wsb.net.kernel.legs import KernelLeg, KernelPair, end_sending
from trio_wsb.net.kernel.maps import KernelMaps

log = structlog.stdlib.get_logger("trio_wsb.kernel")

LINGER: Final = 10.0
"""Seconds for what was sent on to reach the queue of a peer that takes nothing meanwhile, when the session is over."""

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks for ways that are stuck."""

WATCHED_AT_ONCE: Final = 1000
"""Directions in one look, which takes two milliseconds in all where nothing moves."""

TURN: Final = 100
"""Directions looked at before other tasks run."""


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
        self._free = list(range(0, 2 * sessions, 2))[::-1]
        self._directions: dict[int, Direction] = {}
        self._flushing: dict[Direction, tuple[float, int, KernelPair | None]] = {}
        self._wanted = trio.Event()
        self._maps = self._load(2 * sessions)

    # What a table over another kernel, a simulated one say, does otherwise.

    def _load(self, slots: int) -> KernelMaps:
        return KernelMaps(slots, self._credit)

    def _direction(self, slot: int, source: socket.socket, sink: socket.socket) -> Direction:
        return Direction(slot, self._maps.words, source, sink, self._credit)

    def _pair(self, up: Direction, down: Direction) -> KernelPair:
        return KernelPair(self, up, down)

    def __len__(self) -> int:
        """How many sessions are in the table."""
        return len(self._directions) // 2

    def entries(self) -> int:
        """Return how many sockets the kernel knows of; twice as many as sessions, unless something leaks."""
        return self._maps.entries()

    def enter(self, client: socket.socket, backend: socket.socket) -> tuple[KernelLeg, KernelLeg] | None:
        """Put a session in the table and return its channels, which own the sockets; None if there is no room.

        Everything that was read from the sockets so far must have been written, or be given to `follow`, and nothing
        must wait that came before: a segment that was read in part would confuse the kernel for good.

        Raises:
          OSError: a socket cannot be in the table, it may be closed; both are still the caller's.

        """
        if not self._free:
            return None
        slot = self._free.pop()
        try:
            up = self._direction(slot, client, backend)
            down = self._direction(slot + 1, backend, client)
            for direction in (up, down):
                self._maps.insert(direction.slot, direction.source)
        except OSError:
            self._forget(slot, (client, backend))
            raise
        self._directions[slot], self._directions[slot + 1] = up, down
        return self._pair(up, down).legs()

    def later(self, direction: Direction, pair: KernelPair | None = None) -> None:
        """End the sending to the sink of `direction`, or close `pair`, when what was sent on is flushed."""
        self._flushing[direction] = (trio.current_time() + LINGER, direction.taken, pair)
        self._wanted.set()

    def leave(self, pair: KernelPair, *, flush: bool) -> None:
        """Take a session whose ways are shut out of the table and close its sockets, when it is flushed."""
        for direction in (pair.up, pair.down):
            if flush and not direction.is_flushed():
                self.later(direction, pair)
                return
            self._flushing.pop(direction, None)
        up, down = pair.up, pair.down
        del self._directions[up.slot], self._directions[down.slot]
        for direction in (up, down):
            direction.drop_rest()
        self._forget(up.slot, (up.source, down.source))
        for sock in (down.source, up.source):
            if sock.fileno() != -1:
                if pair.waited:
                    trio.lowlevel.notify_closing(sock)
                sock.close()

    def _forget(self, slot: int, socks: tuple[socket.socket, socket.socket]) -> None:
        for number, sock in zip((slot, slot + 1), socks, strict=True):
            self._maps.remove(number, sock)
        self._free.append(slot)

    async def run(self) -> None:
        """Listen to the program and the sockets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            nursery.start_soon(self._watch)
            while True:
                await self._maps.wait()
                noted, ended = self._maps.take()
                for slot in ended:
                    if (direction := self._directions.get(slot)) is not None:
                        direction.ended = True
                        direction.wake()
                for slot in noted:
                    if (direction := self._directions.get(slot)) is not None:
                        direction.noted()

    async def _flush(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            pauses = iter(FLUSH_PAUSES)
            while self._flushing:
                now = trio.current_time()
                for direction, (deadline, taken, pair) in list(self._flushing.items()):
                    if direction not in self._flushing or not (direction.is_flushed() or now >= deadline):
                        continue
                    if now >= deadline and direction.taken > taken:
                        self.later(direction, pair)  # slow, but it takes something
                        continue
                    del self._flushing[direction]
                    if pair is None:
                        end_sending(direction.sink)
                    else:
                        self.leave(pair, flush=now < deadline)
                await trio.sleep(next(pauses, FLUSH_PAUSES[-1]))

    async def _watch(self) -> None:
        """Find ways that are stuck, a part of all in each second, and take them back."""
        suspects: dict[Direction, tuple[int, int]] = {}
        slots: Iterator[int] = iter(())
        while True:
            await trio.sleep(WATCH_INTERVAL)
            stuck = [
                direction
                for direction, moved in suspects.items()
                if direction.lags() and direction.moved == moved
            ]
            for direction in stuck:
                self.stalls += 1
                direction.give_up()
            if stuck:
                log.error("kernel relay stuck, sessions go on without it", directions=len(stuck))
            suspects.clear()
            batch = list(islice(slots, WATCHED_AT_ONCE))
            if not batch:
                slots = iter(tuple(self._directions))
            for number, slot in enumerate(batch, 1):
                found = self._directions.get(slot)
                if found is not None and found.lags():
                    suspects[found] = found.moved
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()

    async def empty(self) -> None:
        """Wait until no session is left."""
        while self._directions:  # noqa: ASYNC110 - nothing tells when the kernel has written it
            await trio.sleep(FLUSH_PAUSES[2])

    def close(self) -> None:
        """Give everything back to the kernel."""
        self._maps.close()


__all__ = ["BadObject", "KernelTable"]
