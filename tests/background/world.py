"""Backends that answer count requests as a test says, without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import httpx
import trio
import trio.testing

from trio_wsb.addresses import BackendURL
from trio_wsb.background.counts import CountRefresher, CountTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable

Answer = Callable[["FakeBackend"], Awaitable[httpx.Response]]


def target(
    number: int = 1, *, interval: float = 30.0, timeout: float = 5.0, path: str = "/metric"
) -> CountTarget:
    url = BackendURL("http", f"10.0.{number // 256}.{number % 256}", 8080)
    return CountTarget(url, path, "agentsConnections", interval, timeout)


class Body(httpx.AsyncByteStream):
    """A body in chunks, each after a pause."""

    def __init__(self, chunks: list[bytes], pause: float = 0.0) -> None:
        self.chunks = chunks
        self.pause = pause
        self.read = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if self.closed:
                raise httpx.ReadError("closed")
            await trio.sleep(self.pause)
            self.read += 1
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


def report(connections: object = 7, **names: str) -> httpx.Response:
    return httpx.Response(200, json={"agentsConnections": connections, **names})


def body(chunks: list[bytes], pause: float = 0.0, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, headers=headers, stream=Body(chunks, pause))


class FakeBackend(httpx.AsyncBaseTransport):
    """What one transport is asked, and what it answers."""

    def __init__(self, world: World, target: CountTarget) -> None:
        self.world = world
        self.target = target
        self.asked: list[float] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.closed
        self.asked.append(trio.current_time())
        self.world.requests.append(request)
        self.world.under_way += 1
        self.world.most_under_way = max(self.world.most_under_way, self.world.under_way)
        try:
            return await self.world.answers.get(self.target.url, self.world.answer)(self)
        finally:
            self.world.under_way -= 1

    async def aclose(self) -> None:
        self.closed = True


async def hang(_backend: FakeBackend) -> httpx.Response:
    """Never answer."""
    await trio.sleep_forever()
    raise AssertionError


class World:
    """A refresher whose backends answer as a test says."""

    def __init__(self) -> None:
        self.table = CountTable()
        self.backends = BackendTable()
        self.transports: list[FakeBackend] = []
        self.requests: list[httpx.Request] = []
        self.answers: dict[BackendURL, Answer] = {}
        self.under_way = 0
        self.most_under_way = 0
        self.refresher = CountRefresher(self.table, self.backends, rng=Random(1), transport=self.transport)

    def transport(self, target: CountTarget) -> FakeBackend:
        backend = FakeBackend(self, target)
        self.transports.append(backend)
        return backend

    @staticmethod
    async def answer(_backend: FakeBackend) -> httpx.Response:
        await trio.sleep(0.01)
        return report()

    def configure(self, *targets: CountTarget) -> None:
        self.backends.retain(target.url for target in targets)
        self.refresher.configure(targets)

    def asked(self, target: CountTarget) -> list[float]:
        return [
            moment
            for backend in self.transports
            if backend.target.url == target.url
            for moment in backend.asked
        ]
