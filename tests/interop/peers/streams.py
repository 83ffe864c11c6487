"""A Trio stream that counts, for the libraries that run on one."""

from __future__ import annotations

import socket
import struct

import trio

from tests.interop.peers.endpoint import Wire

Transport = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class CountedStream(trio.abc.Stream):
    """Counts what passes; the end of the peer and a reset by it are both the end of what it sends."""

    def __init__(self, stream: Transport) -> None:
        self._stream = stream
        self.sent = Wire()
        self.received = Wire()

    @property
    def socket(self) -> trio.socket.SocketType:
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        return stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.received.add(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.add(data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def drop(self, *, reset: bool) -> None:
        """Close the TCP connection and nothing above it, by FIN or by RST."""
        if self.socket.fileno() != -1 and reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self._stream)


def address_of(sock: trio.socket.SocketType) -> str:
    """Return the local address as the balancer's log has it for clients."""
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"
