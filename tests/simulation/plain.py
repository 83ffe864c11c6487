"""Plain requests beside the sessions: what a client asks, how a backend answers, and what must be true of it."""

from __future__ import annotations

from collections import Counter
from random import Random

import trio
from attrs import define, field

from tests.simulation.ledger import Violation
from tests.simulation.network import SimChannel
from trio_wsb.net.channel import receive_some, send_all

PATIENCE = 75.0
"""Seconds that a client waits for an answer."""

FAILURES = frozenset({403, 502, 503, 504})
"""What a client may be told when a backend is not as it should be."""

END = b"\r\n\r\n"


@define(eq=False)
class Stream:
    """What comes of a connection, read as far as it is wanted."""

    channel: SimChannel
    data: bytearray = field(factory=bytearray)
    _buffer: bytearray = field(factory=lambda: bytearray(4096))

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to `mark`, without it. Raises EOFError and OSError."""
        while mark not in self.data:
            await self._more()
        found, _, rest = bytes(self.data).partition(mark)
        self.data = bytearray(rest)
        return found

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises EOFError and OSError."""
        while len(self.data) < size:
            await self._more()
        found = bytes(self.data[:size])
        del self.data[:size]
        return found

    async def body(self, fields: dict[bytes, bytes]) -> bytes:
        """Return a body with its length or its chunks. Raises EOFError and OSError."""
        if b"transfer-encoding" not in fields:
            return await self.exactly(int(fields.get(b"content-length", b"0")))
        body = b""
        while size := int(await self.until(b"\r\n"), 16):
            body += await self.exactly(size)
            await self.until(b"\r\n")
        await self.until(b"\r\n")
        return body

    async def _more(self) -> None:
        count = await receive_some(self.channel, self._buffer)
        if not count:
            raise EOFError
        self.data += self._buffer[:count]


def fields_of(head: bytes) -> dict[bytes, bytes]:
    """Return the fields of a head by their names in lower case."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}


def framed(body: bytes, rng: Random) -> bytes:
    """Return the end of a head and a body, with its length or in chunks."""
    if rng.random() < 0.5:
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    chunks = b""
    while body:
        size = rng.randint(1, len(body))
        chunks += b"%x\r\n%s\r\n" % (size, body[:size])
        body = body[size:]
    return b"Transfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % chunks


async def answer(channel: SimChannel, head: bytes, rest: bytes, rng: Random, done: Counter[str]) -> None:
    """Answer a request with its own body, and count it in `done`. Raises OSError."""
    stream = Stream(channel, bytearray(rest))
    try:
        body = await stream.body(fields_of(head))
    except EOFError:
        return
    done[head.split(b" ")[1].decode()] += 1
    await send_all(channel, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + framed(body, rng))
    channel.shutdown()
    try:
        await stream.exactly(1)  # the balancer uses a connection once
    except EOFError:
        pass


@define(eq=False)
class Asker:
    """A client that asks a few things on one connection, and judges what it is told."""

    channel: SimChannel
    rng: Random
    name: str
    done: Counter[str]
    """How often the backends have done what was asked, by path."""
    statuses: Counter[int | None] = field(factory=Counter)

    async def run(self) -> None:
        """Ask until it is enough, or the connection is over. Raises Violation."""
        stream = Stream(self.channel)
        try:
            for number in range(self.rng.randint(1, 4)):
                if not await self._ask(stream, f"/plain/{self.name}/{number}"):
                    return
                await trio.sleep(self.rng.choice((0.0, 0.5, 3.0)))
        finally:
            self.channel.close()

    async def _ask(self, stream: Stream, path: str) -> bool:
        rng = self.rng
        method, body = rng.choice(("GET", "POST")), b""
        request = f"{method} {path} HTTP/1.1\r\nHost: chat.example\r\n".encode()
        if method == "POST":
            body = rng.randbytes(rng.choice((0, 10, 3000, 20_000)))
            request += framed(body, rng)
        else:
            request += b"\r\n"
        status = None
        try:
            with trio.fail_after(PATIENCE):
                await send_all(self.channel, request)
                head = await stream.until(END)
                status = int(head.split(b" ")[1])
                answered = await stream.body(fields_of(head))
        except (OSError, EOFError, trio.TooSlowError):
            # Broken off: nothing to judge but how often it was done.
            self.statuses[None] += 1
            self._judge_count(path, method)
            return False
        self.statuses[status] += 1
        if status == 200:
            if answered != body:
                raise Violation(f"{path}: {len(answered)} bytes came back that are not the {len(body)} sent")
            if not self.done[path]:
                raise Violation(f"{path}: 200, and nobody has done it")
        elif status not in FAILURES:
            raise Violation(f"{path}: {status}")
        self._judge_count(path, method)
        return b"close" not in fields_of(head).get(b"connection", b"")

    def _judge_count(self, path: str, method: str) -> None:
        if method == "POST" and self.done[path] > 1:
            raise Violation(f"{path}: done {self.done[path]} times, and nobody may repeat a POST")
