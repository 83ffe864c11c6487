"""/api/events: the live feed as a WebSocket, one direction only.

The handshake has been read and checked by the connection. It is handed on to trio-websocket, which answers it and speaks the
protocol from there.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import structlog
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_server_stream

from trio_wsb.daemon.api.feed import Feed
from trio_wsb.daemon.api.hosts import is_same_origin
from trio_wsb.errors import HTTPError
from trio_wsb.http.headers import serialise_fields
from trio_wsb.net.stream import ChannelStream
from trio_wsb.observe.broadcast import TooManyListeners
from trio_wsb.proxy.internal import InternalRequest

log = structlog.stdlib.get_logger("trio_wsb.api")

HANDSHAKE_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 2.0

STALL_TIMEOUT: Final = 20.0
"""Seconds that a message may take to be taken; in that time the queue is full too, with a look each second."""

MAX_INCOMING: Final = 1024
"""Bytes of a message from a client, which has nothing to say."""

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013


async def serve_events(request: InternalRequest, feed: Feed) -> bool:
    """Tell the client what happens until it leaves, does not keep up, or the daemon stops.

    Raises:
      HTTPError: the page that asks is a stranger's (403), or there are too many listeners (503).

    """
    head = request.head
    if not is_same_origin(head.headers.get("origin"), head.authority):
        raise HTTPError(403, "the page that asks is not from here")
    try:
        with feed.listeners.listen() as listener:
            request.passage.conclude(101)
            request.passage.record.status = 101
            async with trio.open_nursery() as nursery:
                connection = await _accept(request, nursery)
                if connection is not None:
                    nursery.start_soon(_read, connection, nursery.cancel_scope)
                    try:
                        async with aclosing(feed.greeting()) as greeting:
                            async for message in greeting:
                                await _send(connection, message)
                        async for message in listener:
                            await _send(connection, message)
                    except (ConnectionClosed, trio.TooSlowError):
                        pass
                    else:
                        await _close(connection, TRY_AGAIN_LATER if listener.dropped else GOING_AWAY)
                if listener.dropped:
                    log.warning(
                        "listener to /api/events dropped, it does not keep up", client=request.peer.text
                    )
                nursery.cancel_scope.cancel()
    except TooManyListeners:
        raise HTTPError(503, "too many listen already", (("Retry-After", "10"),)) from None
    return False


async def _accept(request: InternalRequest, nursery: trio.Nursery) -> WebSocketConnection | None:
    """Answer the handshake; None when the client went away."""
    head = request.head
    start = serialise_fields(head.headers, f"GET {head.target} HTTP/1.1") + b"\r\n"
    stream = ChannelStream(request.channel, start + request.reader.take_rest())
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            asked = await wrap_server_stream(
                nursery, stream, message_queue_size=1, max_message_size=MAX_INCOMING
            )
            return await asked.accept()
    except (HandshakeError, ConnectionClosed, trio.TooSlowError):
        return None


async def _read(connection: WebSocketConnection, scope: trio.CancelScope) -> None:
    """Wait for the client's end; whatever it says before that is more than there is to say."""
    try:
        await connection.get_message()
        await _close(connection, POLICY_VIOLATION)
    except ConnectionClosed:
        pass
    scope.cancel()


async def _send(connection: WebSocketConnection, message: str) -> None:
    with trio.fail_after(STALL_TIMEOUT):
        await connection.send_message(message)


async def _close(connection: WebSocketConnection, code: int) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT):
        await connection.aclose(code)
