"""A simulated backend: takes connections, reports a count, answers checks; truthfully, wrongly, late or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Literal

import httpx
import trio
from attrs import define, field

from tests.simulation import plain
from tests.simulation.network import Network, SimChannel, drawn_conditions
from trio_wsb.addresses import BackendURL
from trio_wsb.background.counts import CountTarget
from trio_wsb.errors import DialError
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.websocket.handshake import accept_value

Reach = Literal["up", "refuses", "blackhole"]
Answers = Literal["accepts", "slow", "silent", "dies", "forbids", "garbage", "drops"]
Reports = Literal["true", "zero", "high", "random", "stale", "garbage", "error", "hangs", "broken"]
"""What it reports: the truth; 0; ten times too much; anything; what was true a minute ago; no report; 500; nothing in time;
a connection that breaks."""

SLOW_HANDSHAKE = 0.7
STALE = 60.0


@define(eq=False)
class SimBackend:
    """One backend. What it is like may be changed at any time."""

    url: BackendURL
    network: Network
    rng: Random
    rough: float = 0.0
    tls: float = 0.0
    reach: Reach = "up"
    answers: Answers = "accepts"
    reports: Reports = "true"
    healthy: bool = True
    foreign: int = 0
    """Connections that did not come through the balancer."""
    report_delay: float = 0.002
    open: dict[SimChannel, None] = field(factory=dict)
    """Its ends of the connections that it has accepted and that are not over: what it counts."""
    connections: dict[SimChannel, None] = field(factory=dict)
    """Those on which nothing was accepted yet too."""
    over: dict[SimChannel, None] = field(factory=dict)
    """Those that it has ended and the balancer may not know of yet."""
    changes: list[tuple[float, int]] = field(factory=list)
    """When its count of connections changed, and to what."""
    done: Counter[str] = field(factory=Counter)
    """Plain requests that were done, by path; several backends of a story may share it."""
    in_doubt: int = 0
    """When it counted last: connections that one side knew to be over and the other one did not."""
    foreign_then: int = 0
    """When it counted last."""

    @property
    def count(self) -> int:
        """How many connections it has, really."""
        return len(self.open) + self.foreign

    def opened(self, channel: SimChannel) -> None:
        self.open[channel] = None
        self.note()

    def ended(self, channel: SimChannel) -> None:
        self.connections.pop(channel, None)
        if self.open.pop(channel, self) is None:
            self.over[channel] = None
            self.note()

    def note(self) -> None:
        """Remember the count, after each change of it."""
        self.changes.append((trio.current_time(), self.count))

    def count_at(self, when: float) -> int:
        """Return how many connections it had."""
        return next((count for at, count in reversed(self.changes) if at <= when), 0)

    # The balancer's side.

    async def dial(self, timeout: float) -> SimChannel:
        """Return the balancer's end of a new connection; this end is in `connections`. Raises DialError."""
        conditions = drawn_conditions(self.rng, rough=self.rough, tls=self.tls)
        await trio.sleep(conditions.latency)
        if self.reach == "refuses":
            raise DialError("connect", "connection refused")
        if self.reach == "blackhole":
            await trio.sleep(timeout)
            raise DialError("timeout", "no connection in time")
        near, far = self.network.connect(conditions)
        self.connections[far] = None
        return near

    async def check(self) -> str | None:
        """Answer a health check: None or what was wrong."""
        await trio.sleep(0.003)
        if self.reach == "refuses":
            return "cannot connect: connection refused"
        if self.reach == "blackhole" or not self.healthy:
            await trio.sleep(0.5)
            return "no complete answer within 0.5 s"
        return None

    async def report(self) -> httpx.Response:
        """Answer a count request."""
        if self.reach == "refuses":
            raise httpx.ConnectError("refused")
        await trio.sleep(self.report_delay * self.rng.random())
        if self.reach == "blackhole" or self.reports == "hangs":
            await trio.sleep(3600)
        if self.reports == "broken":
            raise httpx.ReadError("reset")
        number: object = self.count
        self.over = {channel: None for channel in self.over if not channel.peer.closed}
        self.in_doubt = len(self.over) + sum(
            channel.peer.closed or channel.peer.leaving for channel in self.open
        )
        self.foreign_then = self.foreign
        match self.reports:
            case "zero":
                number = 0
            case "high":
                number = self.count * 10 + 50
            case "random":
                number = self.rng.choice((self.rng.randrange(1000), -5, 1e300, None, "12", True, 10**30))
            case "stale":
                number = self.count_at(trio.current_time() - STALE)
        body = {"agentsConnections": number, "podName": self.url.host}
        await trio.sleep(self.report_delay * self.rng.random())
        if self.reports == "garbage":
            return httpx.Response(200, content=self.rng.randbytes(50))
        if self.reports == "error":
            return httpx.Response(500, content=b"no")
        if number == 1e300:
            return httpx.Response(200, content=b'{"agentsConnections": 1e300}')
        return httpx.Response(200, json=body)

    # Its own side.

    async def handshake(self, channel: SimChannel) -> str | None:
        """Read a request and answer it; its path if it was accepted, and a word more if it is dropped now. Raises OSError."""
        head, buffer = bytearray(), bytearray(4096)
        while b"\r\n\r\n" not in head:
            count = await receive_some(channel, buffer)
            if not count:
                return None
            head += buffer[:count]
        answers = self.answers
        if answers == "dies":
            return None
        if answers == "slow":
            await trio.sleep(SLOW_HANDSHAKE * self.rng.random())
        if answers == "silent":
            while await receive_some(channel, buffer):
                pass
            return None
        if answers == "forbids":
            await send_all(channel, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            return None
        if answers == "garbage":
            await send_all(
                channel, self.rng.choice((b"\x16\x03\x01" * 20, b"HTTP/1.1 101 X\r\n\r\n", b"SSH-2.0\r\n"))
            )
            return None
        if b"\r\nUpgrade: websocket" not in head:
            head_, _, rest = bytes(head).partition(b"\r\n\r\n")
            await plain.answer(channel, head_, rest, self.rng, self.done)
            return None
        fields = dict(line.split(b": ", 1) for line in bytes(head).split(b"\r\n")[1:] if line)
        accept = accept_value(fields[b"Sec-WebSocket-Key"].decode())
        self.opened(channel)
        await send_all(
            channel,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept.encode(),
        )
        path = bytes(head).split(b" ")[1].decode()
        return f"{path} dropped" if answers == "drops" else path


class ReportTransport(httpx.AsyncBaseTransport):
    """What the refresher asks through."""

    def __init__(self, find: Callable[[BackendURL], SimBackend | None], target: CountTarget) -> None:
        self._find = find
        self._target = target

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        backend = self._find(self._target.url)
        if backend is None:
            raise httpx.ConnectError("nobody is there")
        return await backend.report()
