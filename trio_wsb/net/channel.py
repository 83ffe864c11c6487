"""The byte channel: what a relay needs of a connection, and nothing else.

Three implementations: `SocketChannel` (a non-blocking socket), `TLSChannel` (the same under TLS) and
`MemoryChannel` (two ends in one process, with faults to order). The relay is the same code over all three.

The contract is that of a non-blocking socket, because the socket implementation hands out its socket's own
bound methods: a Python wrapper around `recv_into` and `send` costs a fifth of a small message's time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

Buffer: TypeAlias = bytearray | memoryview
Data: TypeAlias = bytes | bytearray | memoryview


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
    async def wait_readable(self) -> None:
        """Wait until `recv_into` is worth trying. A checkpoint."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until `send` is worth trying. A checkpoint."""

    @abstractmethod
    def shutdown(self) -> None:
        """Say that we send no more (TCP FIN, TLS close_notify); errors are swallowed, the peer may be gone."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection up. What was sent is still delivered if the peer and the network allow it."""

    @abstractmethod
    def abort(self) -> None:
        """Give the connection up at once: unsent bytes are thrown away and the peer sees a reset."""


async def send_all(channel: ByteChannel, data: Data) -> None:
    """Write all of `data`, waiting as often as it takes.

    Raises `OSError` as `ByteChannel.send` does. When cancelled, how much was written is lost: give the
    channel up after that.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[channel.send(view) :]
        except BlockingIOError:
            await channel.wait_writable()
