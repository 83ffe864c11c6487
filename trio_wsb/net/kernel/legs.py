"""The two channels of a session whose bytes the kernel moves.

To the relay a leg is a byte channel like any other. What is different is `carry`: instead of waiting for
bytes it opens the way, and from then on the kernel sends them on, until something comes up that user space
must decide. So user space is the slow path and the flow controller, and the rules of the byte
channel are what keeps the order: whoever waits for reading has written everything that it has read.
What must hold at the hand-over is said in `trio_wsb.net.kernel.direction`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import trio

from trio_wsb.net.channel import FREELY, NOTHING, Buffer, ByteChannel, Carried, Data, Terms
from trio_wsb.net.kernel.direction import FLUSH_PAUSES, Direction, is_closed
from trio_wsb.net.sockets import check_open, set_reset_on_close

if TYPE_CHECKING:
    from trio_wsb.net.kernel.table import KernelTable
    from trio_wsb.websocket.frames import FrameScanner


class KernelLeg(ByteChannel):
    """One side of a session in the kernel: reads from one direction and writes to the other."""

    __slots__ = ("_carried", "_pair", "_reads", "_recv_into", "_sock", "_writes")

    can_half_close = True

    def __init__(self, pair: KernelPair, sock: socket.socket, reads: Direction, writes: Direction) -> None:
        self._pair = pair
        self._sock = sock
        self._reads = reads
        self._writes = writes
        self._carried = NOTHING
        self._recv_into = self._recv_first

    @property
    def direction(self) -> Direction:
        """What this leg receives."""
        return self._reads

    def follow(self, scanner: FrameScanner, early: int) -> None:
        self._reads.follow(scanner, early)

    def recv_into(self, buffer: Buffer, /) -> int:
        try:
            count = self._recv_into(buffer)
        except BlockingIOError:
            # A socket in the map that is reset while bytes of it are queued was seen to say so for ever, and to be readable.
            if self._reads.ended and is_closed(self._sock):
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
            raise
        if count:
            self._reads.read += count
        elif self._reads.is_behind():
            raise BlockingIOError
        return count

    def _recv_first(self, buffer: Buffer, /) -> int:
        """Receive for the first time.

        The program knows what has come before, and cuts it off, from the first segment on that it sees. When that one
        has old bytes the kernel takes them for new ones too, and would keep as many of those that come next to itself.
        """
        count = self._sock.recv_into(buffer)
        if count and self._reads.has_old_bytes():
            raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        self._recv_into = self._sock.recv_into
        return count

    def send(self, data: Data, /) -> int:
        if not self._writes.flushed and not self._writes.is_flushed():
            raise BlockingIOError
        sent = self._sock.send(data)
        self._writes.forwarded += sent
        return sent

    def wait_readable(self) -> Awaitable[None]:
        check_open(self._sock)
        if self._reads.held_since is not None:
            return trio.sleep(FLUSH_PAUSES[-1])  # the end makes it readable, whatever is missing
        return self._wait_for_bytes()

    def _wait_for_bytes(self) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(self._sock)

    async def carry(self, terms: Terms = FREELY) -> None:
        check_open(self._sock)
        reads = self._reads
        if not reads.open(terms):
            self._carried = NOTHING
            await self.wait_readable()
            return
        try:
            await reads.wait()
        finally:
            reads.shut()
            self._carried = reads.carried

    async def wait_writable(self) -> None:
        pauses = iter(FLUSH_PAUSES)
        while True:
            # What the kernel has still to write takes the room first, so that nobody polls for a peer that does not read.
            await self._wait_for_room()
            if self._writes.flushed or self._writes.is_flushed():
                return
            await trio.sleep(next(pauses, FLUSH_PAUSES[-1]))

    def _wait_for_room(self) -> Awaitable[None]:
        check_open(self._sock)
        return trio.lowlevel.wait_writable(self._sock)

    def reclaim(self) -> None:
        self._reads.shut()
        self._reads.wake()

    def merge(self) -> None:
        self._reads.merge()

    @property
    def carried(self) -> Carried:
        return self._carried

    @property
    def taken(self) -> int:
        return self._writes.taken

    def shutdown(self) -> None:
        self._pair.shutdown(self._sock, self._writes)

    def close(self) -> None:
        self._pair.close()

    def release(self) -> None:
        self._pair.waited = False
        self._pair.close()

    def abort(self) -> None:
        set_reset_on_close(self._sock)
        self._pair.close(flush=False)


class KernelPair:
    """Both directions of one session, in the map from its creation to its end.

    Resource handling: owns both sockets; they are closed after `close`, when what was sent on is flushed.
    """

    __slots__ = ("_closed", "_table", "down", "up", "waited")

    def __init__(self, table: KernelTable, up: Direction, down: Direction) -> None:
        self._table = table
        self._closed = False
        self.waited = True
        """Whether somebody may wait on the sockets, and is to hear of their end."""
        self.up = up
        self.down = down

    def legs(self) -> tuple[KernelLeg, KernelLeg]:
        """Return the client's and the backend's side."""
        return (
            KernelLeg(self, self.up.source, self.up, self.down),
            KernelLeg(self, self.down.source, self.down, self.up),
        )

    def shutdown(self, sock: socket.socket, writes: Direction) -> None:
        """End the direction towards `sock` when what was sent on is in its queue."""
        writes.shut()
        writes.wake()
        if writes.is_flushed():
            end_sending(sock)
        else:
            self._table.later(writes)

    def close(self, *, flush: bool = True) -> None:
        """Shut both ways; close the sockets, now or when what was sent on is flushed."""
        if self._closed:
            return
        self._closed = True
        for direction in (self.up, self.down):
            direction.shut()
            direction.wake()
        self._table.leave(self, flush=flush)


def end_sending(sock: socket.socket) -> None:
    """Send the end of our direction. Errors are swallowed: the peer may be gone."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
