"""Peers whose bytes are always there: everybody else still gets a turn, and deadlines a chance.

The channels here never make anybody wait, as those of a fast peer on a busy host do not.
"""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.proxy.stage import die, get, staged
from trio_wsb.addresses import BackendURL, parse_ip
from trio_wsb.net.channel import Buffer, ByteChannel, Data
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.pump import SCRATCH_SIZE
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.runtime import TransportRuntime
from trio_wsb.websocket.gate import FRAMES_AT_ONCE

MOST_AT_ONCE = 128 * 1024
"""Bytes that one connection may take in a turn."""

TINY_CHUNKS = b"1\r\nx\r\n"


@define(eq=False)
class Endless(ByteChannel):
    """Says `first`, then `again` without end or, if that is empty, nothing; takes whatever it is sent."""

    first: bytes
    again: bytes = b""
    at_once: int = 0
    """Bytes that were read since somebody else had a turn."""
    total: int = 0
    can_half_close: bool = True
    _closed: trio.Event = field(factory=trio.Event)

    def recv_into(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        if self._closed.is_set():
            raise ConnectionResetError
        if not self.first:
            if not self.again:
                raise BlockingIOError
            self.first = self.again * (1 + len(view) // len(self.again))
        count = min(len(view), len(self.first))
        view[:count] = self.first[:count]
        self.first = self.first[count:]
        self.at_once += count
        self.total += count
        assert self.at_once < 1 << 20, "nobody else gets a turn"
        return count

    def send(self, data: Data, /) -> int:
        return len(memoryview(data))

    async def wait_readable(self) -> None:
        await self._closed.wait()

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def shutdown(self) -> None: ...

    def close(self) -> None:
        self._closed.set()

    def abort(self) -> None:
        self._closed.set()


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BULK = b"HTTP/1.1 200 OK\r\n\r\n"

CASES = {
    "tiny chunks of a client": (Endless(get("/", "Transfer-Encoding: chunked", method="POST"), TINY_CHUNKS), Endless(b"")),
    "a long body of a client": (Endless(get("/", "Content-Length: 999999999999", method="POST"), b"x"), Endless(b"")),
    "tiny chunks of a backend": (Endless(get("/")), Endless(HEAD, TINY_CHUNKS)),
    "a long body of a backend": (Endless(get("/")), Endless(BULK, b"x")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_others_get_their_turn(name: str, autojump_clock: trio.testing.MockClock) -> None:
    client, backend = CASES[name]
    async with staged(die) as stage, trio.open_nursery() as nursery:

        async def dial(url: BackendURL, transport: TransportRuntime) -> ByteChannel:
            return backend

        stage.proxy.dial = dial
        address = parse_ip("192.0.2.7")
        nursery.start_soon(Connection(stage.proxy, "web", client, Peer(address, "192.0.2.7:1")).run)
        source = client if client.again else backend
        worst = 0
        for _ in itertools.repeat(None):
            await trio.lowlevel.checkpoint()
            worst = max(worst, source.at_once)
            source.at_once = 0
            if source.total > 10 * MOST_AT_ONCE:
                break
        nursery.cancel_scope.cancel()
    assert worst <= MOST_AT_ONCE


class Flood(Endless):
    """One that fills every buffer."""

    def recv_into(self, buffer: Buffer, /) -> int:
        missing = len(memoryview(buffer)) - len(self.first)
        if missing > 0:
            self.first += self.again * (1 + missing // len(self.again))
        return super().recv_into(buffer)


EMPTY = {
    "messages": b"\x82\x80abcd",
    "pings": b"\x89\x80abcd",
    "fragments": b"\x00\x80abcd",
}
LIMITS = {
    "no limit": NO_LIMITS,
    "size": SessionLimits(max_message_bytes=1000),
    "rate": SessionLimits(message_rate=1e9, message_burst=1 << 40),
}

MOST_FRAMES = 2 * (1 + SCRATCH_SIZE // len(EMPTY["messages"]))
"""Frames of one session that pass in a turn, about 10 ms, where they are only counted."""

MOST_JUDGED = 5 * FRAMES_AT_ONCE
"""The same where each is judged."""


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", EMPTY)
async def test_empty_frames_leave_others_their_turn(kind: str, limit: str) -> None:
    client = Flood(b"\x02\x80abcd" if kind == "fragments" else b"\x82\x80abcd", EMPTY[kind])
    relay = Relay(
        client,
        Endless(b""),
        scratch=memoryview(bytearray(SCRATCH_SIZE)),
        write_timeout=0,
        watch=lambda _: None,
        limits=LIMITS[limit],
    )
    worst = seen = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        while seen < 10 * MOST_FRAMES:
            await trio.lowlevel.checkpoint()
            client.at_once = 0
            frames = relay.up.scanner.frames
            worst, seen = max(worst, frames - seen), frames
        nursery.cancel_scope.cancel()
    assert worst <= (MOST_FRAMES if limit == "no limit" else MOST_JUDGED)
