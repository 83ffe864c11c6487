"""The in-memory channel: two ends in one process, with a bounded buffer and faults to order.

It behaves as a TCP connection does, so that the relay can be tested in virtual time against back-pressure,
partial writes, half-closed connections and resets.
"""

from __future__ import annotations

import trio

from trio_wsb.net.channel import Buffer, ByteChannel, Data


class _Pipe:
    """One direction: bytes in flight from one end to the other."""

    __slots__ = ("buffer", "capacity", "changed", "eof", "lost", "reader_gone", "segment")

    def __init__(self, capacity: int) -> None:
        self.buffer = bytearray()
        self.capacity = capacity
        self.segment = capacity  # the most that one send takes and one receive gives
        self.eof = False
        self.lost = False
        self.reader_gone = False
        self.changed = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        self.changed.unpark_all()


class MemoryChannel(ByteChannel):
    """One end of an in-memory connection; `memory_channel_pair` makes both."""

    __slots__ = ("_closed", "_incoming", "_outgoing", "can_half_close")

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, *, can_half_close: bool) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self.can_half_close = can_half_close

    def recv_into(self, buffer: Buffer, /) -> int:
        self._check_open()
        pipe = self._incoming
        if pipe.lost:
            raise ConnectionResetError("reset by the peer")
        if not pipe.buffer:
            if pipe.eof:
                return 0
            raise BlockingIOError
        count = min(len(buffer), len(pipe.buffer), pipe.segment)
        buffer[:count] = pipe.buffer[:count]
        del pipe.buffer[:count]
        pipe.wake()
        return count

    def send(self, data: Data, /) -> int:
        self._check_open()
        pipe = self._outgoing
        if pipe.lost or pipe.eof or pipe.reader_gone:
            raise BrokenPipeError("the peer does not read any more")
        count = min(len(data), pipe.capacity - len(pipe.buffer), pipe.segment)
        if count == 0 and data:
            raise BlockingIOError
        pipe.buffer += memoryview(data)[:count]
        pipe.wake()
        return count

    def has_ended(self) -> bool:
        pipe = self._incoming
        return pipe.eof and not (pipe.buffer or pipe.lost or self._closed)

    async def wait_readable(self) -> None:
        pipe = self._incoming
        await trio.lowlevel.checkpoint()
        while not (self._closed or pipe.buffer or pipe.eof or pipe.lost):
            await pipe.changed.park()
        if self._closed:
            raise trio.ClosedResourceError

    async def wait_writable(self) -> None:
        pipe = self._outgoing
        await trio.lowlevel.checkpoint()
        while not (
            self._closed or len(pipe.buffer) < pipe.capacity or pipe.lost or pipe.reader_gone or pipe.eof
        ):
            await pipe.changed.park()
        if self._closed:
            raise trio.ClosedResourceError

    def shutdown(self) -> None:
        self._outgoing.eof = True
        self._outgoing.wake()
        if not self.can_half_close:
            self._incoming.reader_gone = True
            self._incoming.wake()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._outgoing.eof = True
            self._incoming.reader_gone = True
            self._incoming.wake()
            self._outgoing.wake()

    def abort(self) -> None:
        self._outgoing.buffer.clear()
        self._outgoing.lost = self._incoming.lost = True
        self.close()

    def set_segment(self, size: int) -> None:
        """Let every later send take, and every later receive give, at most `size` bytes."""
        self._incoming.segment = self._outgoing.segment = size

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(9, "the channel is closed")


def memory_channel_pair(
    capacity: int = 65536, *, can_half_close: bool = True
) -> tuple[MemoryChannel, MemoryChannel]:
    """Return the two ends of an in-memory connection that holds `capacity` bytes in each direction.

    Args:
      capacity: bytes that one end may send before the other has read any; at least 1.
      can_half_close: False for a connection that behaves as TLS does.

    """
    there, back = _Pipe(capacity), _Pipe(capacity)
    return (
        MemoryChannel(back, there, can_half_close=can_half_close),
        MemoryChannel(there, back, can_half_close=can_half_close),
    )
