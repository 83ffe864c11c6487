"""A byte channel as a Trio stream, for libraries that speak to streams."""

from __future__ import annotations

import trio

from trio_wsb.net.channel import ByteChannel, receive_some, send_all

_CHUNK = 16384


class ChannelStream(trio.abc.HalfCloseableStream):
    """The stream over a channel.

    Resource handling: the channel stays the caller's; closing the stream closes it.

    Error handling: what the channel's `OSError` says becomes `trio.BrokenResourceError`, and
    `trio.ClosedResourceError` after `aclose`.
    """

    def __init__(self, channel: ByteChannel, early: bytes = b"") -> None:
        """Wrap `channel`; `early` is what was received of it already and is read first."""
        self._channel = channel
        self._early = early
        self._closed = False
        self._conflict = trio.Lock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what is there, at most `max_bytes`; empty at the end of the stream."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._early:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._early)
            data, self._early = self._early[:size], self._early[size:]
            return data
        buffer = bytearray(max_bytes or _CHUNK)
        try:
            count = await receive_some(self._channel, buffer)
        except OSError as error:
            raise self._fault() from error
        return bytes(buffer[:count])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; one call at a time."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        async with self._conflict:
            try:
                await send_all(self._channel, data)
            except OSError as error:
                raise self._fault() from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending is worth trying."""
        try:
            await self._channel.wait_writable()
        except OSError as error:
            raise self._fault() from error

    async def send_eof(self) -> None:
        """Say that no more is sent."""
        self._channel.shutdown()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the channel."""
        self._closed = True
        self._channel.close()
        await trio.lowlevel.checkpoint()

    def _fault(self) -> Exception:
        return trio.ClosedResourceError() if self._closed else trio.BrokenResourceError()
