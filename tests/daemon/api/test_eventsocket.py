"""/api/events as a client sees it that we did not write: trio-websocket over memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.daemon import pages
from tests.daemon.api.ask import ask
from tests.daemon.state import World, make_world
from tests.opening import UPGRADE_LINES
from trio_wsb.daemon.api.feed import MAX_LISTENERS, QUEUE
from trio_wsb.http.reader import RequestReader
from trio_wsb.net.channel import receive_some
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.net.stream import ChannelStream
from trio_wsb.observe.events import Kind


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def serve(world: World, near: MemoryChannel) -> None:
    """Do what a connection does with the first request."""
    reader, buffer = RequestReader(), bytearray(65536)
    while (head := reader.next_head()) is None:
        reader.feed(buffer[: await receive_some(near, buffer)])
    page = pages.find(world, head)
    assert page is not None
    await page(pages.request_of(world, head, near))
    near.close()


@asynccontextmanager
async def listening(world: World, *, capacity: int = 1 << 20) -> AsyncIterator[WebSocketConnection]:
    near, far = memory_channel_pair(capacity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, world, near)
        connection = await connect(nursery, far)
        yield connection
        far.close()


async def connect(nursery: trio.Nursery, far: MemoryChannel) -> WebSocketConnection:
    stream: Any = ChannelStream(far)  # any stream does, whatever its annotation says
    return await wrap_client_stream(nursery, stream, "127.0.0.1", "/api/events")


async def hear(connection: WebSocketConnection) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await connection.get_message())
    return told


async def hear_all(connection: WebSocketConnection) -> None:
    while True:
        await hear(connection)


async def test_greeting_then_each_look(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with listening(world) as connection:
        assert [(await hear(connection))["type"] for _ in range(2)] == ["hello", "backends"]
        world.state.events.record(Kind.RELOADED)
        await world.api.feed.look()
        tick = await hear(connection)
        assert (tick["type"], [each["kind"] for each in tick["events"]]) == ("tick", ["reloaded"])
        await connection.aclose()
    assert len(world.api.feed.listeners) == 0


async def test_the_end_of_the_daemon_is_a_close(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with listening(world) as connection:
        await hear(connection)
        await hear(connection)
        world.proxy.stop()
        await world.api.feed.look()
        with pytest.raises(ConnectionClosed) as caught:
            await hear_all(connection)  # what began is told before
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1001


async def test_whoever_talks_is_closed(world: World, autojump_clock: trio.testing.MockClock) -> None:
    async with listening(world) as connection:
        await connection.send_message("hello?")
        with pytest.raises(ConnectionClosed) as caught:
            await hear_all(connection)
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1008


async def test_a_client_that_vanishes(world: World, autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, world, near)
        connection = await connect(nursery, far)
        await hear(connection)
        far.abort()
    assert len(world.api.feed.listeners) == 0


async def test_a_client_that_reads_nothing_is_given_up(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_channel_pair(2048)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, world, near)
            stream = ChannelStream(far)
            await stream.send_all(
                "\r\n".join(["GET /api/events HTTP/1.1", "Host: 127.0.0.1", *UPGRADE_LINES, "", ""]).encode()
            )
            await trio.testing.wait_all_tasks_blocked()
            assert len(world.api.feed.listeners) == 1
            for _ in range(QUEUE + 2):
                await world.api.feed.look()
                await trio.sleep(1)
    assert trio.current_time() < 60
    assert len(world.api.feed.listeners) == 0
    assert "listener to /api/events dropped, it does not keep up" in {line["event"] for line in logs}


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("https://evil.example", "127.0.0.1:9001", 403),
        ("http://127.0.0.1:9002", "127.0.0.1:9001", 403),
        ("null", "127.0.0.1:9001", 403),
        ("file://", "127.0.0.1:9001", 403),
        ("http://127.0.0.1:9001.evil.example", "127.0.0.1:9001", 403),
        ("", "127.0.0.1:9001", 403),
        ("http://127.0.0.1:9001", "127.0.0.1:9001", 101),
        ("http://LOCALHOST", "localhost", 101),
        ("http://localhost:80", "localhost", 101),
        ("https://localhost", "localhost:443", 101),
    ],
)
async def test_origins(
    world: World, origin: str, host: str, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_channel_pair(1 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, world, near)
        lines = ["GET /api/events HTTP/1.1", f"Host: {host}", f"Origin: {origin}", *UPGRADE_LINES, "", ""]
        await ChannelStream(far).send_all("\r\n".join(lines).encode())
        answer = await ChannelStream(far).receive_some()
        assert int(answer.split()[1]) == status
        far.close()


async def test_listeners_are_bounded(world: World) -> None:
    taken = [world.api.feed.listeners.listen() for _ in range(MAX_LISTENERS)]
    for each in taken:
        each.__enter__()
    answer = await ask(world, "/api/events", *UPGRADE_LINES)
    assert answer is not None
    assert (answer.status, answer.fields["retry-after"]) == (503, "10")
    for each in taken:
        each.__exit__(None, None, None)
