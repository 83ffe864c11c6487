"""What a test can do with one end of a session, whatever library speaks there.

Each end counts what it sends and receives: the messages, and the bytes on the wire behind the heads of the
opening handshake. That is what the balancer must have counted too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext
from typing import Self, TypeAlias

import trio
from attrs import define, frozen

Message: TypeAlias = str | bytes
Fragments: TypeAlias = Sequence[str] | Sequence[bytes]

MAX_MESSAGE = 32 * 2**20

NO_CODE = 1005
"""Stands for a Close frame without a code (RFC 6455 section 7.4.1)."""

LOST = 1006
"""Stands for the end of a connection without a Close frame."""


@frozen
class Deflate:
    """Parameters of permessage-deflate (RFC 7692 section 7.1), as a client offers them or a server insists on them."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None


@frozen
class Offer:
    """What a client asks for in its handshake."""

    path: str = "/"
    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    deflate: Deflate | None = None


@frozen
class Policy:
    """How a server answers handshakes."""

    subprotocols: tuple[str, ...] = ()
    """Those it knows; it takes the first of them that the client offers."""
    headers: tuple[tuple[str, str], ...] = ()
    deflate: Deflate | None = None
    refusal: int | None = None
    """A status to answer instead of 101."""

    def choose(self, offered: tuple[str, ...]) -> str | None:
        return next((protocol for protocol in self.subprotocols if protocol in offered), None)


REFUSAL_BODY = b"not today\n"


class RefusedError(Exception):
    """The answer to a client's handshake was no 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.body = body


@frozen
class Closing:
    """How a session ended for one of its ends; `code` may be `NO_CODE` or `LOST`."""

    code: int
    reason: str = ""


class Wire:
    """One direction of a connection: the head of the handshake, and how many bytes came behind it."""

    def __init__(self) -> None:
        self.head = b""
        self.bytes = 0
        self._complete = False

    def add(self, data: bytes | bytearray | memoryview) -> None:
        if self._complete:
            self.bytes += len(data)
            return
        self.head += bytes(data)
        head, mark, rest = self.head.partition(b"\r\n\r\n")
        if mark:
            self.head, self.bytes, self._complete = head + mark, len(rest), True

    @property
    def first_line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header fields, with their names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.split(": ", 1) for line in lines)
        return [(name.lower(), value) for name, value in pairs]


@define(eq=False)
class Traffic:
    """What went one way."""

    wire: Wire | None
    """None where the library does not show it."""
    messages: int = 0


class End(ABC):
    """One end of an open session."""

    def __init__(self, sent: Wire | None, received: Wire | None) -> None:
        self.sent = Traffic(sent)
        self.received = Traffic(received)

    @property
    @abstractmethod
    def address(self) -> str:
        """Where its connection comes from, as the balancer's log has it for clients."""

    @property
    @abstractmethod
    def subprotocol(self) -> str | None: ...

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header fields of the peer's handshake, with their names in lower case."""
        assert self.received.wire is not None
        return self.received.wire.fields

    def field(self, name: str) -> list[str]:
        return [value for found, value in self.fields if found == name]

    async def send(self, message: Message) -> None:
        self.sent.messages += 1
        await self._send(message)

    async def send_fragments(self, fragments: Fragments) -> None:
        """Send one message, each fragment in a frame of its own."""
        self.sent.messages += 1
        await self._send_fragments(fragments)

    async def receive(self) -> Message:
        message = await self._receive()
        self.received.messages += 1
        return message

    @abstractmethod
    async def _send(self, message: Message) -> None: ...

    @abstractmethod
    async def _send_fragments(self, fragments: Fragments) -> None: ...

    @abstractmethod
    async def _receive(self) -> Message: ...

    @abstractmethod
    async def ping(self, payload: bytes) -> None:
        """Send a Ping and wait for the Pong with its payload."""

    @abstractmethod
    async def pong(self, payload: bytes) -> None:
        """Send a Pong that nobody asked for."""

    @abstractmethod
    async def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame and wait until the session has ended; the peer may have closed it at the same time."""

    @abstractmethod
    async def closed(self) -> Closing:
        """Wait until the session has ended; every message must have been received before."""

    @abstractmethod
    async def drop(self, *, reset: bool) -> None:
        """Close the TCP connection without a Close frame, by FIN or by RST."""


class Server(ABC):
    """A listening server; the test speaks for it."""

    url: str

    @abstractmethod
    async def accept(self) -> End:
        """Wait for the next session."""


class QueueingServer(Server):
    """A server that is handed its connections one by one, and queues their sessions."""

    def __init__(self, policy: Policy) -> None:
        self.url = ""
        self._policy = policy
        self._arrived, self._sessions = trio.open_memory_channel[End](math.inf)

    async def accept(self) -> End:
        return await self._sessions.receive()


class Peer(ABC):
    """A WebSocket library that somebody else wrote."""

    @abstractmethod
    async def connect(self, url: str, offer: Offer) -> End:
        """Open a session; raises `RefusedError`."""

    @abstractmethod
    def serve(
        self, policy: Policy, ssl_context: SSLContext | None = None
    ) -> AbstractAsyncContextManager[Server]: ...


class NurseryPeer(Peer):
    """A peer whose sessions run in a nursery of its own."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Make one that lasts as long as the block does."""
        async with trio.open_nursery() as nursery:
            yield cls(nursery)
            nursery.cancel_scope.cancel()
