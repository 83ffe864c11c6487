"""The library `websockets`, with its asyncio API."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, cast

import trio
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.interop.peers.asynciothread import AsyncioThread
from tests.interop.peers.endpoint import (
    MAX_MESSAGE,
    NO_CODE,
    REFUSAL_BODY,
    Closing,
    Deflate,
    End,
    Fragments,
    Message,
    Offer,
    Peer,
    Policy,
    RefusedError,
    Server,
    Wire,
)

_OPTIONS: dict[str, Any] = {
    "compression": None,  # what is offered is said by the extensions
    "ping_interval": None,
    "max_size": MAX_MESSAGE,
    "open_timeout": 30,
}


class _CountedTransport:
    """A transport that counts what is written; everything else is the real one's."""

    def __init__(self, transport: asyncio.BaseTransport, wire: Wire) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._wire = wire

    def write(self, data: bytes) -> None:
        self._wire.add(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Counted(Connection):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wires = (Wire(), Wire())
        super().connection_made(cast("asyncio.BaseTransport", _CountedTransport(transport, self.wires[0])))

    def data_received(self, data: bytes) -> None:
        self.wires[1].add(data)
        super().data_received(data)


class CountedClient(_Counted, ClientConnection):
    pass


class CountedServer(_Counted, ServerConnection):
    pass


class WebsocketsEnd(End):
    def __init__(self, thread: AsyncioThread, connection: CountedClient | CountedServer) -> None:
        super().__init__(*connection.wires)
        self._thread = thread
        self._connection = connection
        host, port = connection.local_address[:2]
        self._address = f"{host}:{port}"

    @property
    def address(self) -> str:
        return self._address

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    async def _send(self, message: Message) -> None:
        await self._thread.call(self._connection.send(message))

    async def _send_fragments(self, fragments: Fragments) -> None:
        await self._thread.call(self._connection.send(fragments))

    async def _receive(self) -> Message:
        return await self._thread.call(self._connection.recv())

    async def ping(self, payload: bytes) -> None:
        async def ping() -> None:
            await (await self._connection.ping(payload))

        await self._thread.call(ping())

    async def pong(self, payload: bytes) -> None:
        await self._thread.call(self._connection.pong(payload))

    async def close(self, code: int, reason: str = "") -> None:
        if code == NO_CODE:
            await self._thread.call(self._close_without_code())
        else:
            await self._thread.call(self._connection.close(code, reason))

    async def _close_without_code(self) -> None:
        # close() always sends a code; the protocol can do without. The context waits for the end.
        async with self._connection.send_context():
            self._connection.protocol.send_close()

    async def closed(self) -> Closing:
        await self._thread.call(self._connection.wait_closed())
        assert self._connection.close_code is not None
        return Closing(self._connection.close_code, self._connection.close_reason or "")

    async def drop(self, *, reset: bool) -> None:
        async def drop() -> None:
            transport = self._connection.transport
            if reset:
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await self._connection.wait_closed()

        await self._thread.call(drop())


class WebsocketsServer(Server):
    def __init__(self, url: str, sessions: trio.MemoryReceiveChannel[End]) -> None:
        self.url = url
        self._sessions = sessions

    async def accept(self) -> End:
        return await self._sessions.receive()


class WebsocketsPeer(Peer):
    def __init__(self, thread: AsyncioThread) -> None:
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Peer]:
        async with AsyncioThread.start() as thread:
            yield cls(thread)

    async def connect(self, url: str, offer: Offer) -> End:
        async def opened() -> ClientConnection:
            return await connect(
                url,
                subprotocols=[Subprotocol(name) for name in offer.subprotocols] or None,
                additional_headers=list(offer.headers),
                extensions=None if offer.deflate is None else [_client_deflate(offer.deflate)],
                create_connection=CountedClient,
                proxy=None,
                **_OPTIONS,
            )

        try:
            connection = await self._thread.call(opened())
        except InvalidStatus as error:
            raise RefusedError(error.response.status_code, bytes(error.response.body or b"")) from None
        return WebsocketsEnd(self._thread, cast("CountedClient", connection))

    @asynccontextmanager
    async def serve(self, policy: Policy, ssl_context: SSLContext | None = None) -> AsyncIterator[Server]:
        token = trio.lowlevel.current_trio_token()
        # The limit is that of the test: it accepts what it has opened.
        arrived, sessions = trio.open_memory_channel[End](math.inf)

        async def handle(connection: ServerConnection) -> None:
            end = WebsocketsEnd(self._thread, cast("CountedServer", connection))
            token.run_sync_soon(arrived.send_nowait, end)
            await connection.wait_closed()

        def select(_: ServerConnection, offered: Any) -> Subprotocol | None:
            chosen = policy.choose(tuple(offered))
            return None if chosen is None else Subprotocol(chosen)

        def refuse(connection: ServerConnection, _: Request) -> Response | None:
            return (
                None if policy.refusal is None else connection.respond(policy.refusal, REFUSAL_BODY.decode())
            )

        def answer(_: ServerConnection, __: Request, response: Response) -> None:
            for name, value in policy.headers:
                response.headers[name] = value

        async def listen() -> Any:
            return await serve(
                handle,
                "127.0.0.1",
                0,
                ssl=ssl_context,
                select_subprotocol=select,
                process_request=refuse,
                process_response=answer,
                extensions=None if policy.deflate is None else [_server_deflate(policy.deflate)],
                create_connection=CountedServer,
                **_OPTIONS,
            )

        server = await self._thread.call(listen())
        scheme = "http" if ssl_context is None else "https"
        try:
            yield WebsocketsServer(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", sessions)
        finally:
            server.get_loop().call_soon_threadsafe(server.close)
            with trio.move_on_after(5, shield=True):
                await self._thread.call(server.wait_closed())


def _client_deflate(wanted: Deflate) -> ClientPerMessageDeflateFactory:
    return ClientPerMessageDeflateFactory(
        server_no_context_takeover=wanted.server_no_context_takeover,
        client_no_context_takeover=wanted.client_no_context_takeover,
        server_max_window_bits=wanted.server_max_window_bits,
        client_max_window_bits=wanted.client_max_window_bits or True,
    )


def _server_deflate(wanted: Deflate) -> ServerPerMessageDeflateFactory:
    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=wanted.server_no_context_takeover,
        client_no_context_takeover=wanted.client_no_context_takeover,
        server_max_window_bits=wanted.server_max_window_bits,
        client_max_window_bits=wanted.client_max_window_bits,
    )
