"""A whole proxy without a network: scripted backends on one side, the test as the client on the other.

Backends are named b1, b2, b3 and are tried in that order: their weights are so far apart that the loads of a
test never matter. When the stage is taken down every count must be back to 0.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import structlog.testing
import trio
import trio.testing
from attrs import define, evolve, field
from trio.abc import Instrument
from trio.lowlevel import Task

from trio_wsb.addresses import BackendURL, Networks, parse_backend_url, parse_ip, parse_network
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.errors import DialError
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.chain import Step
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.request import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy, Route, Runtime, ServiceRuntime, TransportRuntime
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable
from trio_wsb.websocket.handshake import accept_value

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the sample of RFC 6455 section 1.3
SWITCH = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode()
"""What a backend answers to `handshake()`."""
SWITCHED = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
"""The same as the client gets it."""

DIAL_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
READ_TIMEOUT = 20.0
IDLE_TIMEOUT = 60.0
WRITE_TIMEOUT = 10.0
PING_STATUS_STOPPING = 503

PATIENCE = 100_000.0
"""Seconds of virtual time after which a test has failed."""


def handshake(*lines: str, path: str = "/chat", key: str = KEY) -> bytes:
    """Return a good opening handshake; `lines` are more header lines."""
    head = [
        f"GET {path} HTTP/1.1",
        "Host: chat.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1")


def get(path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return a request without a body; `lines` are more header lines."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: chat.example", *lines, "", ""]).encode()


def post(body: bytes, *lines: str, path: str = "/", method: str = "POST") -> bytes:
    """Return a request with a body and its length."""
    return get(path, f"Content-Length: {len(body)}", *lines, method=method) + body


def last(request: bytes) -> bytes:
    """Return a plain request as the last one of its connection; a handshake as it is."""
    if b"\r\nConnection:" in request:
        return request
    return request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def ok(body: bytes = b"", *lines: str) -> bytes:
    """Return a good answer with a body and its length; `lines` are more header lines."""
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@define(eq=False)
class End:
    """The far end of one of the proxy's connections."""

    channel: MemoryChannel
    _read: bytearray = field(factory=bytearray)

    async def send(self, data: bytes) -> None:
        await send_all(self.channel, data)

    async def until(self, marker: bytes) -> bytes:
        """Receive through `marker`; what came after it is left for the next call."""
        while (at := self._read.find(marker)) < 0:
            await self._more()
        return self._take(at + len(marker))

    async def head(self) -> bytes:
        """Receive through the end of the next head."""
        return await self.until(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            await self._more()
        return self._take(size)

    async def response(self) -> tuple[bytes, bytes]:
        """Receive a response with a length; its head and its body."""
        head = await self.head()
        return head, await self.exactly(int(field_of(head, "Content-Length")[0]))

    async def rest(self) -> bytes:
        """Receive until the peer's orderly end; a reset raises `ConnectionResetError`."""
        buffer = bytearray(65536)
        while count := await receive_some(self.channel, buffer):
            self._read += buffer[:count]
        return self._take(len(self._read))

    def now(self) -> bytes:
        """Receive what is there without waiting."""
        buffer = bytearray(65536)
        try:
            while count := self.channel.recv_into(buffer):
                self._read += buffer[:count]
        except BlockingIOError:
            pass
        return self._take(len(self._read))

    async def is_reset(self) -> bool:
        """Wait for the peer's end, and say whether it is a reset."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        self.channel.close()

    def abort(self) -> None:
        self.channel.abort()

    async def _more(self) -> None:
        buffer = bytearray(65536)
        count = await receive_some(self.channel, buffer)
        if not count:
            raise EOFError(f"end of stream after {bytes(self._read)!r}")
        self._read += buffer[:count]

    def _take(self, size: int) -> bytes:
        data = bytes(self._read[:size])
        del self._read[:size]
        return data


@define(eq=False)
class Client(End):
    """The client's end, and the connection that serves it."""

    done: trio.Event = field(factory=trio.Event, kw_only=True)
    scope: trio.CancelScope = field(factory=trio.CancelScope, kw_only=True)

    async def ask(self, request: bytes) -> bytes:
        """Send `request` and receive everything until the end of the connection; then end it too."""
        await self.send(request)
        answer = await self.rest()
        self.close()
        await self.done.wait()
        return answer


Script = Callable[[End], Awaitable[None]]
"""What a backend does with one connection; when it returns, the connection is closed."""


async def refuse_dial(end: End) -> None:
    """Stand for a backend that cannot be connected to."""
    raise AssertionError("nobody connects to it")


async def hang_dial(end: End) -> None:
    """Stand for a backend that does not even accept within the dial timeout."""
    raise AssertionError("nobody connects to it")


async def die(end: End) -> None:
    """Accept the connection, read the request and end it without a word."""
    await end.head()


async def greet(end: End) -> None:
    """Answer with the target that was asked for."""
    head = await end.head()
    await end.send(ok(head.split(b" ")[1]))


async def stay_silent(end: End) -> None:
    """Accept everything and answer nothing."""
    await end.rest()


async def echo(end: End) -> None:
    """Accept the handshake and send back whatever comes."""
    head = await end.head()
    await end.send(SWITCH.replace(ACCEPT.encode(), accept_value(key_of(head)).encode()))
    buffer = bytearray(4096)
    while count := await receive_some(end.channel, buffer):
        await end.send(bytes(buffer[:count]))


def answering(answer: bytes, *, until_closed: bool = False) -> Script:
    """Return a backend that reads a request head, says `answer` and closes, or waits for us to."""

    async def script(end: End) -> None:
        await end.head()
        await end.send(answer)
        if until_closed:
            await end.rest()

    return script


def field_of(head: bytes, name: str) -> list[str]:
    """Return the values of the header lines called `name`."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = [line.partition(": ") for line in lines]
    return [value for found, _, value in pairs if found.lower() == name.lower()]


def status_of(answer: bytes, *, kept: bool = False) -> int:
    """Return the status of an answer, and check that it is whole and says whether the connection goes on."""
    head, _, body = answer.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    assert field_of(head, "Connection") == ([] if kept else ["close"])
    assert field_of(head, "Content-Length") == [str(len(body))]
    return int(head.split(b" ")[1])


def key_of(head: bytes) -> str:
    return field_of(head, "Sec-WebSocket-Key")[0]


@define(eq=False)
class Stage:
    """The proxy, its backends and what they saw."""

    proxy: Proxy
    backends: list[Backend]
    logs: Sequence[MutableMapping[str, Any]]
    _nursery: trio.Nursery
    _capacity: int
    dialled: list[str] = field(factory=list)
    """Names of the backends that were dialled, in order."""

    def connect(self, peer: str = "192.0.2.7", capacity: int | None = None) -> Client:
        """Connect a client."""
        far, near = memory_channel_pair(capacity or self._capacity)
        client = Client(far)
        ip = parse_ip(peer)
        connection = Connection(self.proxy, "web", near, Peer(ip, f"{ip}:50000"))

        async def serve() -> None:
            with client.scope:
                await connection.run()
            client.done.set()

        self._nursery.start_soon(serve)
        return client

    async def ask(self, request: bytes) -> bytes:
        """Connect, send `request`, and return everything until the end of the connection."""
        return await self.connect().ask(request)

    async def open_session(self, *lines: str) -> Client:
        """Connect a client and open a session for it."""
        client = self.connect()
        await client.send(handshake(*lines))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await trio.testing.wait_all_tasks_blocked()  # the client has its 101 before the session begins
        return client

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Live sessions and attempts under way of each backend."""
        return [(backend.live, backend.pending) for backend in self.backends]

    @property
    def causes(self) -> dict[Cause, int]:
        return dict(self.proxy.sessions.ended_total)

    def events(self, name: str) -> list[MutableMapping[str, Any]]:
        return [entry for entry in self.logs if entry["event"] == name]

    def reload(self, **changes: Any) -> None:
        """Swap in a runtime whose entry point differs in `changes`."""
        entry = evolve(self.proxy.runtime.entry_points["web"], **changes)
        self.proxy.swap(Runtime({"web": entry}))


@asynccontextmanager
async def staged(
    *scripts: Script,
    capacity: int = 65536,
    max_connections: int = 0,
    trusted: Sequence[str] = (),
    rule: str = "PathPrefix(`/`)",
    pass_host_header: bool = True,
    server_name: str = "",
    tls_backends: bool = False,
    steps: Sequence[Step] = (),
    wall_clock: Callable[[], float] | None = None,
) -> AsyncIterator[Stage]:
    """Run a proxy whose backends follow `scripts`, for as long as the block lasts; `steps` stand before them."""
    urls = [parse_backend_url(f"http://b{number}:8080") for number in range(1, len(scripts) + 1)]
    script_of = dict(zip(urls, scripts, strict=True))
    backends = [Backend(url) for url in urls]
    members = [
        Member(backend, weight, max_connections)
        for backend, weight in zip(backends, (10_000, 100, 1), strict=False)
    ]
    pool = Pool(members, "leastconn", counts=CountTable(), rng=random.Random(1))
    transport = TransportRuntime(DIAL_TIMEOUT, ANSWER_TIMEOUT, None, None)
    service = ServiceRuntime("chat", pool, transport, pass_host_header, WRITE_TIMEOUT)
    entry = EntryPointRuntime(
        name="web",
        port=9000,
        read_timeout=READ_TIMEOUT,
        idle_timeout=IDLE_TIMEOUT,
        max_connections=0,
        accept_grace=0.0,
        grace=10.0,
        policy=ForwardPolicy(Networks(tuple(map(parse_network, trusted)))),
        ping=True,
        ping_status_stopping=PING_STATUS_STOPPING,
        routers=RouterTable([("all", parse_rule(rule), 0, Route(service, tuple(steps)))]),
    )

    async def dial(url: BackendURL, transport: TransportRuntime) -> MemoryChannel:
        stage.dialled.append(url.host)
        await trio.lowlevel.checkpoint()
        script = script_of[url]
        if script is refuse_dial:
            raise DialError("connect", "connection refused")
        if script is hang_dial:
            await trio.sleep(transport.dial_timeout)
            raise DialError("timeout", "no connection in time")
        far, near = memory_channel_pair(capacity, can_half_close=not tls_backends)
        nursery.start_soon(play, script, End(far))
        return near

    async def play(script: Script, end: End) -> None:
        try:
            await script(end)
        except (OSError, EOFError):
            pass  # the proxy gave the connection up
        finally:
            end.close()

    proxy = Proxy(Runtime({"web": entry}), dial=dial, server_name=server_name, wall_clock=wall_clock)
    with structlog.testing.capture_logs() as logs:
        # In virtual time a test that would hang fails at once.
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                stage = Stage(proxy, backends, logs, nursery, capacity)
                nursery.start_soon(proxy.sweeper.run)
                await nursery.start(proxy.mirrors.run)
                yield stage
                nursery.cancel_scope.cancel()
    assert [(backend.own, backend.live) for backend in backends] == [(0, 0)] * len(backends)
    assert len(proxy.sessions) == 0


class _CancelAtStep(Instrument):
    """Cancels a client's connection when its task is about to take its n-th step."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.scope: trio.CancelScope | None = None

    def before_task_step(self, task: Task) -> None:
        if self.scope is not None and task.name.endswith(".serve"):
            self._left -= 1
            if self._left == 0:
                self.scope.cancel()


async def cancelling_at_every_step(
    scripts: Sequence[Script],
    play: Callable[[Stage, Client], Awaitable[None]],
    *,
    steps: Sequence[Step] = (),
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run `play` again and again, with its connection cancelled one step later each time.

    The counts are checked after each, and `after` is called. Buffers are small, so that every send has to wait at some time.
    """
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        instrument = _CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with staged(*scripts, capacity=60, steps=steps) as stage:
                client = stage.connect()
                instrument.scope = client.scope

                async def converse(stage: Stage = stage, client: Client = client) -> None:
                    try:
                        await play(stage, client)
                    except (OSError, trio.ClosedResourceError):
                        pass

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(converse)
                    with trio.move_on_after(60):
                        await client.is_reset()
                    client.close()
                    await client.done.wait()
                assert stage.counts == [(0, 0)] * len(scripts)
                after()
                cancelled = client.scope.cancelled_caught
        finally:
            trio.lowlevel.remove_instrument(instrument)
    assert step > 10  # it went through all the steps there are
