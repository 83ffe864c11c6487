"""The demo client, against the demo backend and against a server that answers wrongly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket

from trio_wsb.addresses import ListenAddress
from trio_wsb.demo.backend import Behaviour, DemoBackend
from trio_wsb.demo.client import Client, ClientOptions
from trio_wsb.demo.connect import open_session, parse_target
from trio_wsb.demo.totals import Totals

LOOPBACK = ListenAddress("127.0.0.1", 0)


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None) -> AsyncIterator[tuple[DemoBackend, str]]:
    backend = DemoBackend(behaviour)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(backend.serve, LOOPBACK)
            yield backend, url
            nursery.cancel_scope.cancel()


async def run_until(client: Client, condition: Callable[[], bool], then: Callable[[], None]) -> Totals:
    """Run `client`; when `condition` holds do `then`, which has to end it."""

    async def watch() -> None:
        while not condition():
            await trio.sleep(0.005)
        then()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        return await client.run()


async def test_holds_sessions_and_checks_every_echo() -> None:
    async with serving() as (backend, url):
        client = Client(ClientOptions(url=url, clients=20, message_interval=0.01))
        totals = await run_until(client, lambda: client.totals().messages > 200, client.stop)
        assert (totals.opened, totals.open, totals.failed, totals.lost, totals.wrong) == (20, 0, 0, {}, 0)
        assert totals.good
        assert 0 < totals.p50 <= totals.p99
        assert backend.accepted == 20


async def test_sends_as_fast_as_echoes_come_and_ends_by_itself() -> None:
    async with serving() as (_, url):
        client = Client(ClientOptions(url=url, clients=2, message_interval=0))
        totals = await run_until(client, lambda: client.totals().messages > 100, client.stop)
        assert totals.good
        assert totals.elapsed < 20  # at one a second from each it would be fifty
        totals = await Client(ClientOptions(url=url, clients=2, duration=0.1)).run()
        assert totals.good
        assert totals.elapsed >= 0.1


async def test_connects_at_the_rate() -> None:
    async with serving() as (_, url):
        client = Client(ClientOptions(url=url, clients=6, rate=50))
        totals = await run_until(client, lambda: client.totals().open == 6, client.stop)
        assert totals.elapsed >= 5 / 50
        client = Client(ClientOptions(url=url, clients=100, rate=0.001))
        totals = await run_until(client, lambda: client.totals().open == 1, client.stop)
        assert (totals.opened, totals.never_opened) == (1, 99)


@pytest.mark.parametrize("interval", [0.0, 0.01, 100.0])
async def test_a_session_that_the_server_ends_is_lost(interval: float) -> None:
    async with serving() as (backend, url):
        client = Client(ClientOptions(url=url, clients=5, message_interval=interval))
        totals = await run_until(client, lambda: backend.sessions == 5, backend.stop)
        assert totals.lost == {"1001": 5}
        assert not totals.good


async def test_a_session_that_breaks_off_is_lost_and_with_reconnect_replaced() -> None:
    async with serving(Behaviour(drop_after=0.0)) as (backend, url):
        client = Client(ClientOptions(url=url, clients=3, reconnect=True))
        calm = partial(setattr, backend.behaviour, "drop_after", None)

        async def watch() -> None:
            while client.totals().lost.get("1006", 0) < 3:
                await trio.sleep(0.005)
            calm()
            while client.totals().open < 3:
                await trio.sleep(0.005)
            client.stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            totals = await client.run()
        assert totals.lost_sessions >= 3
        assert not totals.never_opened
        assert not totals.good


async def test_failures_are_explained() -> None:
    async with serving(Behaviour(refuse_status=503)) as (_, url):
        totals = await Client(ClientOptions(url=url, clients=2)).run()
        assert (totals.failed, totals.never_opened, totals.last_failure) == (
            2,
            2,
            "status 503 instead of 101",
        )
        assert not totals.good
    totals = await Client(ClientOptions(url=url, clients=1)).run()
    assert "refused" in totals.last_failure


async def test_stop_does_not_wait_for_a_handshake() -> None:
    async with serving(Behaviour(accept_delay=60)) as (backend, url):
        client = Client(ClientOptions(url=url, clients=3))
        connecting = lambda: trio.lowlevel.current_statistics().tasks_living > 12  # noqa: E731
        totals = await run_until(client, connecting, client.stop)
        assert (totals.opened, totals.failed, totals.lost, totals.never_opened) == (0, 0, {}, 3)
        assert backend.accepted == 0


async def test_wrong_and_unasked_messages_are_noticed() -> None:
    async def parrot(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message("good morning")
        try:
            while True:
                await connection.get_message()
                await connection.send_message("something else")
        except trio_websocket.ConnectionClosed:
            return

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            serve: Any = partial(trio_websocket.serve_websocket, parrot, "127.0.0.1", 0, None)
            server: trio_websocket.WebSocketServer = await nursery.start(serve)
            client = Client(
                ClientOptions(url=f"ws://127.0.0.1:{server.port}/", clients=1, message_interval=0.02)
            )
            totals = await run_until(client, lambda: client.totals().wrong >= 3, client.stop)
            assert not totals.lost
            assert not totals.good
            nursery.cancel_scope.cancel()


async def test_a_connection_that_ends_during_the_handshake_fails_at_once() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(trio_websocket.HandshakeError, match="ended"):
                async with open_session(parse_target(f"ws://127.0.0.1:{port}/")):
                    pass
            nursery.cancel_scope.cancel()


async def test_timeouts_of_a_silent_server() -> None:
    async with serving(Behaviour(accept_delay=60)) as (_, url):
        with pytest.raises(trio_websocket.ConnectionTimeout):
            async with open_session(parse_target(url), connect_timeout=0.05):
                pass


async def test_errors_of_the_body_come_out_alone() -> None:
    async with serving() as (_, url):
        with pytest.raises(KeyError):
            async with open_session(parse_target(url)):
                raise KeyError
        with trio.move_on_after(60) as scope:
            async with open_session(parse_target(url)):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("url", "authority", "resource"),
    [
        ("ws://host", "host", "/"),
        ("wss://host:443/a?b=c", "host", "/a?b=c"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ("https://host:80", "host:80", "/"),
    ],
)
def test_targets(url: str, authority: str, resource: str) -> None:
    target = parse_target(url)
    assert (target.authority, target.resource) == (authority, resource)


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host", "ws://", "ws://host:0", "ws://host:99999", "ws:///x"]
)
def test_no_targets(url: str) -> None:
    with pytest.raises(ValueError):
        parse_target(url)
