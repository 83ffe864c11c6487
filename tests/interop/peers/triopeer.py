"""The library `trio-websocket`. It has no extensions and sends no fragments, but receives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_server_stream
from wsproto.frame_protocol import CloseReason

from tests.interop.peers.endpoint import (
    LOST,
    MAX_MESSAGE,
    REFUSAL_BODY,
    Closing,
    End,
    Fragments,
    Message,
    NurseryPeer,
    Offer,
    Policy,
    QueueingServer,
    RefusedError,
    Server,
    Wire,
)
from tests.interop.peers.streams import CountedStream, Transport, address_of
from tests.interop.peers.wsprotopeer import listening
from trio_wsb.demo.connect import open_session, parse_target

QUEUE = 10_000
"""Messages that wait to be received; a full queue would keep pings from being answered."""


class TrioEnd(End):
    def __init__(
        self,
        connection: WebSocketConnection,
        transport: trio.socket.SocketType,
        sent: Wire | None = None,
        received: Wire | None = None,
    ) -> None:
        super().__init__(sent, received)
        self._connection = connection
        self._address = address_of(transport)
        self.left = trio.Event()
        """Set when the test has seen the end; what holds the connection lets it go then."""

    @property
    def address(self) -> str:
        return self._address

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    @property
    def fields(self) -> list[tuple[str, str]]:
        if self.received.wire is not None:
            return super().fields
        pairs = self._connection.handshake_headers
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]

    async def _send(self, message: Message) -> None:
        await self._connection.send_message(message)

    async def _send_fragments(self, fragments: Fragments) -> None:
        empty: Any = "" if isinstance(fragments[0], str) else b""
        await self._connection.send_message(empty.join(fragments))

    async def _receive(self) -> Message:
        return await self._connection.get_message()

    async def ping(self, payload: bytes) -> None:
        await self._connection.ping(payload)

    async def pong(self, payload: bytes) -> None:
        await self._connection.pong(payload)

    async def close(self, code: int, reason: str = "") -> None:
        # Only the enumeration's member stands for a Close without a code.
        wanted = CloseReason.NO_STATUS_RCVD if code == CloseReason.NO_STATUS_RCVD else code
        await self._connection.aclose(wanted, reason or None)
        self.left.set()

    async def closed(self) -> Closing:
        try:
            message = await self._connection.get_message()
            raise AssertionError(f"unexpected message: {message[:100]!r}")
        except ConnectionClosed:
            self.left.set()
        reason = self._connection.closed
        return Closing(LOST) if reason is None else Closing(int(reason.code), reason.reason or "")

    async def drop(self, *, reset: bool) -> None:
        stream: Any = self._connection._stream
        if not isinstance(stream, CountedStream):
            stream = CountedStream(stream._stream)
        await stream.drop(reset=reset)
        self.left.set()


class TrioServer(QueueingServer):
    async def handle(self, transport: Transport) -> None:
        stream = CountedStream(transport)
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._session(stream, nursery)
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def _session(self, stream: CountedStream, nursery: trio.Nursery) -> None:
        policy = self._policy
        proposal = await wrap_server_stream(
            nursery,
            stream,
            max_message_size=MAX_MESSAGE,
            message_queue_size=QUEUE,
            receive_buffer_size=256 * 1024,
        )
        if policy.refusal is not None:
            await proposal.reject(policy.refusal, body=REFUSAL_BODY)
            return
        connection = await proposal.accept(
            subprotocol=policy.choose(proposal.proposed_subprotocols),
            extra_headers=[(name.encode(), value.encode()) for name, value in policy.headers],
        )
        end = TrioEnd(connection, stream.socket, stream.sent, stream.received)
        self._arrived.send_nowait(end)
        await end.left.wait()


class TrioPeer(NurseryPeer):
    async def connect(self, url: str, offer: Offer) -> End:
        end: End = await self._nursery.start(self._session, url, offer)
        return end

    async def _session(self, url: str, offer: Offer, *, task_status: trio.TaskStatus[End]) -> None:
        try:
            async with open_session(
                parse_target(url),
                subprotocols=offer.subprotocols,
                headers=[(name.encode(), value.encode()) for name, value in offer.headers],
                max_message_size=MAX_MESSAGE,
            ) as connection:
                # The library has no name for the connection under the stream that it was given.
                watched: Any = connection._stream
                end = TrioEnd(connection, watched._stream.socket)
                task_status.started(end)
                await end.left.wait()
        except ConnectionRejected as error:
            raise RefusedError(error.status_code, error.body or b"") from None

    @asynccontextmanager
    async def serve(self, policy: Policy, ssl_context: SSLContext | None = None) -> AsyncIterator[Server]:
        server = TrioServer(policy)
        async with listening(server.handle, ssl_context) as server.url:
            yield server
