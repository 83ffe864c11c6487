"""The byte channel: what a relay needs of a connection, and nothing else.

Three implementations: `SocketChannel` (a non-blocking socket), `TLSChannel` (the same under TLS) and
`MemoryChannel` (two ends in one process, with faults to order). The relay is the same code over all three.

The contract is that of a non-blocking socket, because the socket implementation hands out its socket's own
bound methods: a Python wrapper around `recv_into` and `send` is a measurable part of a small message's time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from attrs import frozen

if TYPE_CHECKING:
    from trio_wsb.websocket.frames import FrameScanner

Buffer: TypeAlias = bytearray | memoryview
Data: TypeAlias = bytes | bytearray | memoryview

UNBOUNDED: Final = 1 << 62
"""More than there will ever be."""


@frozen
class Terms:
    """On which terms bytes may go on by themselves."""

    message: int = UNBOUNDED
    """Payload bytes of a message."""
    bytes: int = UNBOUNDED
    """Bytes in all."""
    frames: int = UNBOUNDED
    """Messages and control frames in all, counted when they begin."""


FREELY: Final = Terms()


@frozen
class Carried:
    """What went on by itself; `message` is the payload so far of the message whose beginning was among it."""

    message: int = 0
    bytes: int = 0
    frames: int = 0


NOTHING: Final = Carried()


class ByteChannel(ABC):
    """A bidirectional stream of bytes that never blocks the thread.

    Resource handling: whoever made the channel closes it; `close` is synchronous, idempotent and safe in a
    cancelled task.

    Error handling: `recv_into` and `send` raise `BlockingIOError` when they would block and any other
    `OSError` when the channel is broken (`ConnectionResetError`, `BrokenPipeError`, ...). After `close`
    they raise `OSError` too, and a task inside one of the waits gets `trio.ClosedResourceError`.
    At most one task waits for reading and one for writing.
    """

    __slots__ = ()

    can_half_close: bool
    """Whether `shutdown` ends only our direction, so that the peer can go on sending."""

    @abstractmethod
    def recv_into(self, buffer: Buffer, /) -> int:
        """Read what is there into `buffer` and return how many bytes; 0 is the end of the stream."""

    @abstractmethod
    def send(self, data: Data, /) -> int:
        """Write as much of `data` as is taken without blocking and return how many bytes.

        After a `BlockingIOError` or a partial write the next call must begin with the very bytes that are
        left: TLS has already sealed some of them.
        """

    @abstractmethod
    def wait_readable(self) -> Awaitable[None]:
        """Wait until `recv_into` is worth trying. A checkpoint; to be awaited at once.

        Only after a `recv_into` that would have blocked, or that filled less than the buffer: nobody tells again of what
        a full one has left over.
        """

    def has_ended(self) -> bool:
        """Whether the peer's end is all that there is to read. False where that cannot be told without reading."""
        return False

    # What else a channel does whose bytes somebody else may move on, as `trio_wsb.net.kernel` can.

    def follow(self, scanner: FrameScanner, early: int) -> None:  # noqa: B027 - nothing to do for the others
        """Know the scanner of what is received, which is yet to be fed with `early` bytes that were read before."""

    def carry(self, terms: Terms = FREELY) -> Awaitable[None]:  # noqa: ARG002 - for those that can
        """Wait like `wait_readable`; until then bytes may go on to the other side of the session by themselves.

        Only for whoever has written all that it has read. What does not keep the terms waits to be read. A checkpoint.
        """
        return self.wait_readable()

    def reclaim(self) -> None:  # noqa: B027
        """End a `carry` that is under way, without waiting; from now on the scanner knows where the stream stands."""

    def merge(self) -> None:  # noqa: B027
        """Let the scanner count what went on by itself so far."""

    @property
    def carried(self) -> Carried:
        """What went on by itself during the last `carry`."""
        return NOTHING

    @property
    def taken(self) -> int:
        """How many bytes the peer has taken, where others write too; 0 for the rest. More than before is progress."""
        return 0

    @abstractmethod
    def wait_writable(self) -> Awaitable[None]:
        """Wait until `send` is worth trying. A checkpoint."""

    @abstractmethod
    def shutdown(self) -> None:
        """Say that we send no more (TCP FIN, TLS close_notify). Errors are swallowed: the peer may be gone."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection up. What was sent is still delivered if the peer and the network allow it."""

    def release(self) -> None:
        """Close where nobody waits on it any more: cheaper than `close`, which looks for those who do."""
        self.close()

    @abstractmethod
    def abort(self) -> None:
        """Give the connection up at once: unsent bytes are thrown away and the peer sees a reset."""


async def receive_some(channel: ByteChannel, buffer: Buffer) -> int:
    """Read into `buffer`, waiting until there is something; return how many bytes, 0 at the end of the stream.

    Raises `OSError` as `ByteChannel.recv_into` does, except that it never would block.
    """
    while True:
        try:
            return channel.recv_into(buffer)
        except BlockingIOError:
            await channel.wait_readable()


async def send_all(channel: ByteChannel, data: Data, *, stall_timeout: float = math.inf) -> None:
    """Write all of `data`, waiting as often as it takes, but never more than `stall_timeout` seconds at a time.

    Raises `OSError` as `ByteChannel.send` does, and `TimeoutError`, which is one, when the peer took nothing for so
    long. When this happens or it is cancelled, how much was written is lost: give the channel up after that.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[channel.send(view) :]
        except BlockingIOError:
            with trio.move_on_after(stall_timeout) as waiting:
                await channel.wait_writable()
            if waiting.cancelled_caught:
                raise TimeoutError("the peer takes nothing") from None


async def linger(channel: ByteChannel, buffer: Buffer, *, seconds: float, limit: int) -> None:
    """Shut our direction down and read until the peer is done, then close.

    Closing a TCP socket that has unread bytes resets the connection, and the reset can overtake the answer
    that we have just written; so whoever refuses a client must read on for a moment (RFC 9112 section 9.6).

    Args:
      channel: closed on every way out.
      buffer: scratch space; what is read is thrown away.
      seconds: how long the peer may take.
      limit: how many bytes the peer may still send.

    """
    try:
        channel.shutdown()
        with trio.move_on_after(seconds):
            while limit > 0 and (received := await receive_some(channel, buffer)):
                limit -= received
    except (OSError, trio.ClosedResourceError):
        pass
    finally:
        channel.close()


async def send_shared(channel: ByteChannel, data: memoryview, *, stall_timeout: float = math.inf) -> None:
    """Write all of `data`, a part of a buffer that others may overwrite at the next checkpoint.

    Raises `OSError` as `send_all` does.
    """
    try:
        sent = channel.send(data) if data else 0
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await send_all(channel, bytes(data[sent:]), stall_timeout=stall_timeout)
