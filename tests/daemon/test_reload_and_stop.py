"""Reload and stop of the real daemon: what operators do all day, and what must never cost a session."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.daemon.harness import Backend, Daemon, backends, clients, daemon, echo, free_port, http_client
from tests.opening import opening

pytestmark = pytest.mark.daemon


async def status(url: str) -> int:
    async with http_client() as client:
        return (await client.get(f"{url}/ping")).status_code


@asynccontextmanager
async def stoppable(tmp_path: Path, only: Backend, life_cycle: dict[str, str]) -> AsyncIterator[Daemon]:
    """Run the daemon over one backend, with this lifeCycle."""
    port = free_port()
    web = {"address": f"127.0.0.1:{port}", "transport": {"lifeCycle": life_cycle}}
    async with daemon(tmp_path, [only.url], port=port, entryPoints={"web": web}) as running:
        yield running


async def test_100_reloads_under_300_echoing_sessions_end_none(tmp_path: Path) -> None:
    async with (
        backends(3) as started,
        daemon(tmp_path, [backend.url for backend in started]) as running,
        clients() as made,
    ):
        connections = [await made.connect(running.ws) for _ in range(300)]
        echoes = [0] * len(connections)
        reloading = True

        async def keep_echoing(index: int) -> None:
            while reloading:
                await echo(connections[index], f"{index}/{echoes[index]}")
                echoes[index] += 1

        async with trio.open_nursery() as echoing:
            for index in range(len(connections)):
                echoing.start_soon(keep_echoing, index)
            for count in range(1, 101):
                # Every reload changes something: weights, and a backend that comes and goes.
                pods = [backend.url for backend in started]
                running.document["wsbalancer"]["pods"] = pods if count % 2 else pods[:2]
                running.write()
                await running.reload(count=count)
            reloading = False
        assert min(echoes) > 0
        assert running.log("session ended") == []
        assert running.log("configuration reloaded")[-1]["reloadsFailed"] == 0


@pytest.mark.usefixtures("both_relays")
async def test_backends_and_listeners_come_and_go(tmp_path: Path) -> None:
    second = free_port()
    async with (
        backends(2) as (old, new),
        daemon(tmp_path, [old.url]) as running,
        clients() as made,
    ):
        kept = await made.connect(running.ws)
        running.document["wsbalancer"]["pods"] = [new.url]
        running.document["entryPoints"]["second"] = {"address": f"127.0.0.1:{second}"}
        running.write()
        await running.reload(count=1)
        fresh = await made.connect(f"ws://127.0.0.1:{second}")
        assert (await old.stats())["sessions"] == 1  # a removed backend's session lives on
        assert (await new.stats())["sessions"] == 1
        await echo(kept, "kept")
        await echo(fresh, "fresh")
        del running.document["entryPoints"]["second"]
        running.write()
        await running.reload(count=2)
        await echo(fresh, "the listener is gone, the session is not")
        with pytest.raises(httpx.ConnectError):
            await status(f"http://127.0.0.1:{second}")
        assert await status(running.url) == 200


async def test_a_broken_file_changes_nothing_and_is_explained(tmp_path: Path) -> None:
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url]) as running,
        clients() as made,
    ):
        kept = await made.connect(running.ws)
        good = running.path.read_text()
        running.path.write_text(
            "wsbalancer:\n  pods: ['http://127.0.0.1:1']\n  cacheTTl: 30s\n  dialTimeout: soon\n"
        )
        running.running.signal(signal.SIGHUP)
        await running.logged("reload failed, the old configuration stays in force", reloadsFailed=1)
        problems = [line["problem"] for line in running.log("configuration problem")]
        assert len(problems) == 2
        assert problems[0].startswith(f"{running.path}:3:3 wsbalancer.cacheTTl: ")
        assert "cacheTTL" in problems[0]
        assert problems[1].startswith(f"{running.path}:4:16 wsbalancer.dialTimeout: ")
        await echo(kept, "as if nothing had happened")
        await made.connect(running.ws)
        assert (await only.stats())["sessions"] == 2
        # A listener that cannot be opened is the same: nothing changes.
        running.path.write_text(good)
        running.document["entryPoints"]["taken"] = {"address": f"127.0.0.1:{only.port}"}
        running.document["wsbalancer"]["pods"] = ["http://127.0.0.1:1"]
        running.write()
        running.running.signal(signal.SIGHUP)
        await running.logged("reload failed, the old configuration stays in force", reloadsFailed=2)
        assert "in use" in running.log("configuration problem")[-1]["problem"]
        await made.connect(running.ws)
        assert (await only.stats())["sessions"] == 3


@pytest.mark.usefixtures("both_relays")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_closes_every_session_with_1001_spread_over_the_grace_period(
    tmp_path: Path, number: signal.Signals
) -> None:
    life_cycle = {"graceTimeOut": "3s"}
    async with (
        backends(1) as (only,),
        stoppable(tmp_path, only, life_cycle) as running,
        clients() as made,
    ):
        connections = [await made.connect(running.ws) for _ in range(60)]
        kept_alive = http_client()
        assert (await kept_alive.get(f"{running.url}/ping")).status_code == 200
        closed_at: list[float] = []

        async def wait_for_close(connection: WebSocketConnection) -> None:
            with pytest.raises(ConnectionClosed):
                await connection.get_message()
            assert connection.closed is not None
            assert connection.closed.code == 1001
            closed_at.append(trio.current_time())

        begun = trio.current_time()
        async with trio.open_nursery() as closing:
            for connection in connections:
                closing.start_soon(wait_for_close, connection)
            running.running.signal(number)
        assert await running.running.exit() == 0
        await kept_alive.aclose()
        assert trio.current_time() - begun < 3 + 5
        spread = sorted(at - begun for at in closed_at)
        assert spread[-1] - spread[0] > 1.0  # not all at once
        ended = running.log("session ended")
        assert [line["cause"] for line in ended] == ["shutdown"] * 60
        assert (await only.stats())["sessions"] == 0


@pytest.mark.usefixtures("both_relays")
async def test_ping_says_503_while_stopping_and_a_second_sigterm_is_at_once(tmp_path: Path) -> None:
    life_cycle = {"graceTimeOut": "60s", "requestAcceptGraceTimeout": "60s"}
    async with (
        backends(1) as (only,),
        stoppable(tmp_path, only, life_cycle) as running,
        clients() as made,
    ):
        connection = await made.connect(running.ws)
        assert await status(running.url) == 200
        running.running.signal(signal.SIGTERM)
        await running.logged("stopping")
        assert await status(running.url) == 503
        await echo(connection, "still served")
        running.running.signal(signal.SIGTERM)
        assert await running.running.exit() == 0
        assert [line["cause"] for line in running.log("session ended")] == ["shutdown"]


@pytest.mark.usefixtures("both_relays")
async def test_a_client_that_ignores_the_close_is_cut_at_the_end_of_the_grace_period(tmp_path: Path) -> None:
    life_cycle = {"graceTimeOut": "1s"}
    async with (
        backends(1) as (only,),
        stoppable(tmp_path, only, life_cycle) as running,
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(opening())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            running.running.signal(signal.SIGTERM)
            assert await running.running.exit() == 0
            assert await stream.receive_some() == b"\x88\x02\x03\xe9"
            assert await stream.receive_some() == b""
        assert running.log("session ended")[0]["cause"] == "shutdown"


async def test_a_configuration_that_cannot_be_used_is_said_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("wsbalancer: {pods: []}\n")
    async with trio.open_nursery():
        result = await trio.run_process(
            [sys.executable, "-m", "trio_wsb", "run", "--config", str(path)], capture_stderr=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr.decode().startswith(f"{path}:1:20 wsbalancer.pods: ")
    assert b"Traceback" not in result.stderr
