"""Opening WebSocket sessions with trio-websocket, with three of its edges taken off.

Its own `open_websocket_url` leaves the socket to the garbage collector when the server ends the session,
waits for its whole timeout when the connection ends during the handshake, and may raise groups.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio
from attrs import frozen
from trio_websocket import (
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from trio_wsb.addresses import format_host

CONNECT_TIMEOUT = 30.0
"""Time for TCP, TLS and the opening handshake, in seconds."""

CLOSE_TIMEOUT = 10.0
"""Time for the closing handshake, in seconds."""

MAX_MESSAGE_SIZE = 64 * 2**20
RECEIVE_BYTES = 64 * 1024


@frozen
class Target:
    """A parsed WebSocket URL."""

    host: str
    port: int
    tls: bool
    resource: str

    @property
    def authority(self) -> str:
        """The Host field."""
        host = format_host(self.host)
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Return what `url` names; ``http`` and ``https`` mean ``ws`` and ``wss``.

    Raises:
      ValueError: it is no such URL.

    """
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss", "http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError('is not a WebSocket URL; write "ws://HOST:PORT/PATH"')
    tls = parts.scheme in {"wss", "https"}
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, parts.port or (443 if tls else 80), tls, resource)


@asynccontextmanager
async def open_session(
    target: Target,
    *,
    ssl_context: ssl.SSLContext | None = None,
    subprotocols: Sequence[str] = (),
    headers: Sequence[tuple[bytes, bytes]] = (),
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    max_message_size: int = MAX_MESSAGE_SIZE,
) -> AsyncIterator[WebSocketConnection]:
    """Open a session and close it with 1000 at the end of the context; the socket is closed in every case.

    Errors leave the context by themselves, never in a group:

    Raises:
      OSError: no connection.
      HandshakeError: no session; `ConnectionRejected` has the status of the answer, `ConnectionTimeout` says
        that none came within `connect_timeout` seconds.
      DisconnectionTimeout: the server did not answer our Close within `close_timeout` seconds.

    """
    deadline = trio.current_time() + connect_timeout
    stream = await _open_stream(target, ssl_context, deadline)
    try:
        async with trio.open_nursery() as nursery:
            opening = trio.CancelScope(deadline=deadline)
            watched: Any = _Watched(stream, opening.cancel)
            connection = None
            with opening:
                connection = await wrap_client_stream(
                    nursery,
                    watched,
                    target.authority,
                    target.resource,
                    subprotocols=subprotocols,
                    extra_headers=list(headers),
                    max_message_size=max_message_size,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            if connection is None:
                raise HandshakeError("the connection ended") if watched.ended else ConnectionTimeout
            yield connection
            with trio.move_on_after(close_timeout) as closing:
                await connection.aclose()
            nursery.cancel_scope.cancel()
            if closing.cancelled_caught:
                raise DisconnectionTimeout
    except BaseExceptionGroup as group:
        raise _single(group) from None
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(
    target: Target, ssl_context: ssl.SSLContext | None, deadline: float
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    with trio.CancelScope(deadline=deadline):
        tcp = await trio.open_tcp_stream(target.host, target.port)
        if not target.tls:
            return tcp
        context = ssl_context or ssl.create_default_context()
        stream = trio.SSLStream(tcp, context, server_hostname=target.host, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(tcp)
            if isinstance(error, trio.BrokenResourceError):
                raise HandshakeError(f"TLS: {error.__cause__ or error}") from error
            raise
        return stream
    raise ConnectionTimeout


class _Watched(trio.abc.Stream):
    """A stream that says when it has ended, by whichever side."""

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self.ended = False

    def _end(self) -> None:
        self.ended = True
        self._on_end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._end()
            raise
        if not data:
            self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of a group, cancellations apart, or the group when it is not one."""
    leaves: list[BaseException] = []
    queue: list[BaseException] = [group]
    while queue:
        error = queue.pop()
        if isinstance(error, BaseExceptionGroup):
            queue += error.exceptions
        elif not isinstance(error, trio.Cancelled):
            leaves.append(error)
    return leaves[0] if len(leaves) == 1 else group
