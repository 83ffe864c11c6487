"""The plain-HTTP side of the demo backend: one client connection before, or without, an upgrade.

`PlainConnection` reads request heads with h11 and remembers their bytes, so that a WebSocket handshake can
be handed over unread to an implementation that wants to read it itself; `ReplayStream` is how it is handed
over. Neither knows what the demo backend serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
import trio

MAX_HEAD = 64 * 1024
"""Largest request head read, in bytes; h11 refuses more with 431."""

RECEIVE_BYTES = 64 * 1024


class ReplayStream(trio.abc.Stream):
    """A stream whose first bytes were read already.

    `head`, a complete request head, is received first. What comes after it (`rest`, then the stream itself)
    is held until `release`: trio-websocket looks at frames that arrive before it accepted only when more
    bytes come, so frames that a client sends together with its handshake would wait for the next one.

    Owns `stream`: closing this closes it, and calls `on_close` first.
    """

    def __init__(
        self, stream: trio.abc.Stream, head: bytes, rest: bytes, on_close: Callable[[], None] = lambda: None
    ) -> None:
        self._stream = stream
        self._head = head
        self._rest = rest
        self._released = trio.Event()
        self._on_close = on_close

    def release(self) -> None:
        """Let through what follows the head."""
        self._released.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive the head, then what was read behind it, then from the stream."""
        if self._head:
            await trio.lowlevel.checkpoint()
            head, self._head = self._head[:max_bytes], self._head[max_bytes:] if max_bytes else b""
            return head
        if not self._released.is_set():
            await self._released.wait()
        if self._rest:
            await trio.lowlevel.checkpoint()
            rest, self._rest = self._rest[:max_bytes], self._rest[max_bytes:] if max_bytes else b""
            return rest
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` to the stream."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream."""
        self._released.set()
        self._on_close()
        await self._stream.aclose()


class PlainConnection:
    """One client connection, spoken to in HTTP/1.1; does not own `stream`.

    For each request: `read_request`, then either `respond` (or pieces of it with `send`), or
    `upgrade_bytes` to hand the connection over. Errors of the stream pass through.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._received = bytearray()

    async def read_request(self, timeout: float) -> h11.Request | None:
        """Return the next request, or None when no more comes: the end, `timeout` seconds, or nonsense.

        Nonsense is answered with the status that h11 suggests.
        """
        if self._http.our_state is h11.MUST_CLOSE or not self._next_cycle():
            return None
        try:
            with trio.move_on_after(timeout):
                event = await self._next_event()
                return event if isinstance(event, h11.Request) else None
        except h11.RemoteProtocolError as error:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await self.respond(error.error_status_hint, {"error": str(error)}, close=True)
        return None

    def _next_cycle(self) -> bool:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        self._received = bytearray(self._http.trailing_data[0])
        return self._http.our_state is h11.IDLE

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            self._received += data
            self._http.receive_data(bytes(data))
        return event

    def upgrade_bytes(self) -> tuple[bytes, bytes]:
        """Return the current request's head as it was received, and what was received after it."""
        rest = self._http.trailing_data[0]
        return bytes(self._received[: len(self._received) - len(rest)]), rest

    async def read_body(self, limit: int) -> bytes | None:
        """Return the request's body, or None when it has more than `limit` bytes or breaks off."""
        body = bytearray()
        try:
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
                if len(body) > limit:
                    return None
        except h11.RemoteProtocolError:
            return None
        return bytes(body) if isinstance(event, h11.EndOfMessage) else None

    async def respond(
        self,
        status: int,
        body: object,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        close: bool = False,
    ) -> None:
        """Answer the current request: `body` as it is when bytes, else as JSON.

        With `close` the connection ends after it.
        """
        content, kind = (body, "text/html") if isinstance(body, bytes) else (_json(body), "application/json")
        fields = [*headers, ("Content-Type", kind), ("Content-Length", str(len(content)))]
        if close:
            fields.append(("Connection", "close"))
        await self.send(h11.Response(status_code=status, headers=fields, reason=_reason(status)))
        if not self._head_request:
            await self.send(h11.Data(data=content))
        await self.send(h11.EndOfMessage())

    @property
    def _head_request(self) -> bool:
        return self._received.startswith(b"HEAD ")

    async def send(self, event: h11.Event) -> None:
        """Send one h11 event."""
        data = self._http.send(event)
        if data:
            await self.stream.send_all(data)


def _json(body: object) -> bytes:
    return json.dumps(body).encode() + b"\n"


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
