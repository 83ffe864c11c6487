"""Connected pairs of every kind of channel, the real ones over loopback."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import trio
import trustme

from trio_wsb.addresses import ListenAddress
from trio_wsb.net.channel import ByteChannel, receive_some
from trio_wsb.net.listener import bind
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.net.sockets import SocketChannel, dial_tcp
from trio_wsb.net.tls import TLSChannel, handshake

CA = trustme.CA()
NAME = "backend.example"


def descriptors() -> int:
    """Return how many descriptors this process has open, but for those that only wait for the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def trusting_context() -> ssl.SSLContext:
    """Return a client context that trusts `CA`, for those that do not test `client_context`."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def server_context(name: str = NAME, *, ca: trustme.CA = CA) -> ssl.SSLContext:
    """Return a server context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


async def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the client's and the server's end of a TCP connection over loopback."""
    with bind(ListenAddress("127.0.0.1", 0)) as listener:
        client = await dial_tcp("127.0.0.1", listener.getsockname()[1])
        await trio.lowlevel.wait_readable(listener)
        server, _ = listener.accept()
    server.setblocking(False)
    return client, server


async def serve_tls(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Make `sock` a TLS connection as its server."""
    secured = context.wrap_socket(
        sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    try:
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
    except BaseException:
        secured.close()
        raise


async def tls_pair() -> tuple[TLSChannel, ssl.SSLSocket]:
    """Return the client's end of a TLS connection over loopback, and the server's socket."""
    client, server = await tcp_pair()
    secured: list[ssl.SSLSocket] = []

    async def serve() -> None:
        secured.append(await serve_tls(server, server_context()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        channel = await handshake(client, trusting_context(), NAME)
    # Session tickets come before it, and make the socket readable although there is nothing to read.
    secured[0].send(b"x")
    assert await receive_some(channel, bytearray(1)) == 1
    return channel, secured[0]


Pair = tuple[ByteChannel, ByteChannel]


@asynccontextmanager
async def socket_channels() -> AsyncIterator[Pair]:
    client, server = await tcp_pair()
    with closing(SocketChannel(client)) as near, closing(SocketChannel(server)) as far:
        yield near, far


@asynccontextmanager
async def tls_channels() -> AsyncIterator[Pair]:
    client, server = await tls_pair()
    with closing(client) as near, closing(TLSChannel(server)) as far:
        yield near, far


@asynccontextmanager
async def memory_channels() -> AsyncIterator[Pair]:
    yield memory_channel_pair()


@asynccontextmanager
async def memory_channels_without_half_close() -> AsyncIterator[Pair]:
    yield memory_channel_pair(can_half_close=False)


PAIRS: dict[str, Callable[[], AbstractAsyncContextManager[Pair]]] = {
    "socket": socket_channels,
    "tls": tls_channels,
    "memory": memory_channels,
    "memory without half-close": memory_channels_without_half_close,
}
