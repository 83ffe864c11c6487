"""A small client and server made of `wsproto`, which speaks the protocol, and of Trio's streams.

It sees every control frame, and it can leave TCP open after the closing handshake: what the other libraries hide.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ssl import SSLContext
from urllib.parse import urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason

from tests.interop.peers.endpoint import (
    LOST,
    REFUSAL_BODY,
    Closing,
    Deflate,
    End,
    Fragments,
    Message,
    NurseryPeer,
    Offer,
    Policy,
    QueueingServer,
    RefusedError,
    Server,
)
from tests.interop.peers.streams import CountedStream, Transport, address_of

RECEIVE_BYTES = 256 * 1024


class WsprotoEnd(End):
    """An open session; somebody has to `run` it."""

    def __init__(self, stream: CountedStream, protocol: WSConnection, subprotocol: str | None) -> None:
        super().__init__(stream.sent, stream.received)
        self._stream = stream
        self._protocol = protocol
        self._subprotocol = subprotocol
        self._address = address_of(stream.socket)
        self._sending = trio.Lock()
        self._arrived, self._messages = trio.open_memory_channel[Message](math.inf)
        self._parts: list[Message] = []
        self._pongs: dict[bytes, trio.Event] = {}
        self._closing = Closing(LOST)
        self._close_seen = trio.Event()
        self._ended = trio.Event()
        self.pings: list[bytes] = []
        """Payloads of the pings that came."""
        self.pongs: list[bytes] = []
        """Payloads of the pongs that came."""
        self.holds_tcp = False
        """Whether TCP is left open after the closing handshake, and after the peer's end too, until `released`."""
        self.released = trio.Event()

    @property
    def address(self) -> str:
        return self._address

    @property
    def subprotocol(self) -> str | None:
        return self._subprotocol

    async def run(self) -> None:
        """Read until the connection ends; answer pings and a Close."""
        try:
            await self._handle_events()
            while not (self._finished and not self.holds_tcp):
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    break
                if self._protocol.state in {ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING}:
                    self._protocol.receive_data(bytes(data))
                    await self._handle_events()
            if self.holds_tcp:
                await self.released.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._ended.set()
            self._arrived.close()
            await trio.aclose_forcefully(self._stream)

    @property
    def _finished(self) -> bool:
        # RFC 6455 section 7.1.1: the server closes TCP first, the client waits for that.
        return self._protocol.state is ConnectionState.CLOSED and not self._protocol.client

    async def _handle_events(self) -> None:
        for event in self._protocol.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                    if event.message_finished:
                        parts, self._parts = self._parts, []
                        whole = (b"" if isinstance(parts[0], bytes) else "").join(parts)  # type: ignore[arg-type]  # all are of one kind
                        self._arrived.send_nowait(whole)
                case Ping():
                    self.pings.append(bytes(event.payload))
                    await self._transmit(event.response())
                case Pong():
                    payload = bytes(event.payload)
                    self.pongs.append(payload)
                    if payload in self._pongs:
                        self._pongs.pop(payload).set()
                case CloseConnection():
                    self._closing = Closing(int(event.code), event.reason or "")
                    await self._transmit_close(event.response())
                    self._close_seen.set()

    async def _transmit(self, *events: Event) -> None:
        async with self._sending:
            for event in events:
                await self._stream.send_all(self._protocol.send(event))

    async def _transmit_close(self, event: CloseConnection) -> None:
        """Send a Close frame, unless there was one: the test and an echo may want to at the same time."""
        async with self._sending:
            if self._protocol.state in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}:
                await self._stream.send_all(self._protocol.send(event))

    async def _send(self, message: Message) -> None:
        await self._transmit(_data(message))

    async def _send_fragments(self, fragments: Fragments) -> None:
        parts: Sequence[Message] = fragments
        last = len(parts) - 1
        for number, fragment in enumerate(parts):
            # One by one, so that an answer to a ping can go out between two of them.
            await self._transmit(_data(fragment, final=number == last))

    async def _receive(self) -> Message:
        return await self._messages.receive()

    async def ping(self, payload: bytes) -> None:
        answered = self._pongs[payload] = trio.Event()
        await self._transmit(Ping(payload))
        await answered.wait()

    async def pong(self, payload: bytes) -> None:
        await self._transmit(Pong(payload))

    async def close(self, code: int, reason: str = "") -> None:
        await self.send_close(code, reason)
        await self._ended.wait()

    async def send_close(self, code: int, reason: str = "") -> None:
        """Send a Close frame and wait for that of the peer, not for the end of TCP."""
        # Only the enumeration's member stands for a Close without a code.
        wanted = CloseReason.NO_STATUS_RCVD if code == CloseReason.NO_STATUS_RCVD else code
        await self._transmit_close(CloseConnection(wanted, reason or None))
        await self._close_seen.wait()

    async def leave(self, code: int) -> None:
        """Send a Close frame and close the connection right behind it, as a process that ends does."""
        await self._transmit_close(CloseConnection(code))
        await self._stream.aclose()
        await self._ended.wait()

    async def closed(self) -> Closing:
        await self._ended.wait()
        return self._closing

    async def drop(self, *, reset: bool) -> None:
        await self._stream.drop(reset=reset)
        await self._ended.wait()


class WsprotoServer(QueueingServer):
    async def handle(self, transport: Transport) -> None:
        stream = CountedStream(transport)
        try:
            end = await self._handshake(stream)
            if end is not None:
                self._arrived.send_nowait(end)
                await end.run()
        except trio.BrokenResourceError:
            pass  # a client that does not want to trust us
        finally:
            await trio.aclose_forcefully(stream)

    async def _handshake(self, stream: CountedStream) -> WsprotoEnd | None:
        protocol = WSConnection(ConnectionType.SERVER)
        request = await _next_event(stream, protocol)
        if request is None:
            return None
        assert isinstance(request, Request)
        policy = self._policy
        if policy.refusal is not None:
            length = (b"Content-Length", str(len(REFUSAL_BODY)).encode())
            await stream.send_all(
                protocol.send(RejectConnection(status_code=policy.refusal, headers=[length], has_body=True))
                + protocol.send(RejectData(REFUSAL_BODY))
            )
            return None
        subprotocol = policy.choose(tuple(request.subprotocols))
        accept = AcceptConnection(
            subprotocol=subprotocol,
            extensions=_extensions(policy.deflate),
            extra_headers=_encoded(policy.headers),
        )
        await stream.send_all(protocol.send(accept))
        return WsprotoEnd(stream, protocol, subprotocol)


class WsprotoPeer(NurseryPeer):
    async def connect(self, url: str, offer: Offer) -> End:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        stream = CountedStream(await trio.open_tcp_stream(parts.hostname, parts.port))
        try:
            protocol = WSConnection(ConnectionType.CLIENT)
            request = Request(
                host=parts.netloc,
                target=f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
                extensions=_extensions(offer.deflate),
                extra_headers=_encoded(offer.headers),
                subprotocols=list(offer.subprotocols),
            )
            await stream.send_all(protocol.send(request))
            answer = await _next_event(stream, protocol)
            if isinstance(answer, RejectConnection):
                raise RefusedError(answer.status_code, await _refusal_body(stream, protocol))
            assert isinstance(answer, AcceptConnection)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        end = WsprotoEnd(stream, protocol, answer.subprotocol)
        self._nursery.start_soon(end.run)
        return end

    @asynccontextmanager
    async def serve(self, policy: Policy, ssl_context: SSLContext | None = None) -> AsyncIterator[Server]:
        server = WsprotoServer(policy)
        async with listening(server.handle, ssl_context) as server.url:
            yield server


@asynccontextmanager
async def listening(handle: object, ssl_context: SSLContext | None) -> AsyncIterator[str]:
    """Hand the connections to a free port of loopback to `handle`; gives the URL."""
    tcp = await trio.open_tcp_listeners(0, host="127.0.0.1")
    scheme = "http" if ssl_context is None else "https"
    port = tcp[0].socket.getsockname()[1]
    listeners = [
        listener if ssl_context is None else trio.SSLListener(listener, ssl_context, https_compatible=True)
        for listener in tcp
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, listeners))  # type: ignore[arg-type]  # two kinds of stream
        yield f"{scheme}://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def _data(content: Message, *, final: bool = True) -> Event:
    if isinstance(content, str):
        return TextMessage(content, message_finished=final)
    return BytesMessage(content, message_finished=final)


async def _next_event(stream: CountedStream, protocol: WSConnection) -> Event | None:
    while True:
        for event in protocol.events():
            return event
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            return None
        protocol.receive_data(bytes(data))


async def _refusal_body(stream: CountedStream, protocol: WSConnection) -> bytes:
    body = b""
    while True:
        event = await _next_event(stream, protocol)
        if event is None:
            return body
        assert isinstance(event, RejectData)
        body += event.data
        if event.body_finished:
            return body


def _extensions(wanted: Deflate | None) -> list[Extension]:
    if wanted is None:
        return []
    return [
        PerMessageDeflate(
            server_no_context_takeover=wanted.server_no_context_takeover,
            client_no_context_takeover=wanted.client_no_context_takeover,
            server_max_window_bits=wanted.server_max_window_bits,
            client_max_window_bits=wanted.client_max_window_bits,
        )
    ]


def _encoded(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
