"""Servers that do to a connection whatever a test wants, on loopback or wherever their socket was made."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

Handle = Callable[[trio.SocketStream], Awaitable[None]]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """A listening server: its URL, and how many connections it has had."""

    def __init__(self, listener: trio.SocketListener) -> None:
        host, port = listener.socket.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self.connections = 0
        self._listening = trio.CancelScope()
        self._listener = listener

    async def close_listener(self) -> None:
        """Accept nothing more; what is accepted goes on."""
        self._listening.cancel()
        await self._listener.aclose()


@asynccontextmanager
async def server(handle: Handle, sock: socket.socket | None = None) -> AsyncIterator[Server]:
    """Serve every connection with `handle`, at a free port of loopback or on a listening `sock`, until the block ends."""
    if sock is None:
        sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    found = Server(listener)

    async def serve(stream: trio.SocketStream) -> None:
        found.connections += 1
        async with stream:
            try:
                await handle(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with found._listening:
                await trio.serve_listeners(serve, [listener], handler_nursery=nursery)

        nursery.start_soon(listen)
        yield found
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def read_head(stream: trio.SocketStream) -> str:
    """Return a request's head; "" for a connection that ended before."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return ""
        data += more
    return data.decode("latin-1")


def switching(head: str) -> bytes:
    """Return the 101 that the handshake in `head` asks for (RFC 6455 section 4.2.2)."""
    lines = [line.partition(":") for line in head.split("\r\n")]
    key = next(value.strip() for name, _, value in lines if name.lower() == "sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


def reset(stream: trio.SocketStream) -> None:
    """Make the end of `stream` a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def accept_session(stream: trio.SocketStream) -> bool:
    """Answer a handshake; whether there was one."""
    head = await read_head(stream)
    if not head:
        return False
    await stream.send_all(switching(head))
    return True
