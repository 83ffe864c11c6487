"""Behind the real Traefik, with the configuration files that we ship for it."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import ConnectionRejected, WebSocketConnection

from tests.daemon.harness import PATIENCE, Backend, Daemon, Running, backends, echo, free_port, http_client
from tests.daemon.waiting import eventually, reports_arrived, sessions
from tests.traefik.harness import Traefik, balancer, traefik_program, visitors
from trio_wsb.demo.client import Client, ClientOptions
from trio_wsb.demo.connect import open_session, parse_target

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(
        traefik_program() is None, reason="traefik is not installed (pip install 'trio-wsb[peers]')"
    ),
]

TRAEFIK = "127.0.0.1"
CLIENT = "127.0.0.77"
"""Where clients connect from; not among the addresses that the example trusts."""

FORGED = [
    ("X-Forwarded-For", "192.0.2.66"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("X-Real-Ip", "192.0.2.66"),
    ("X_Forwarded_For", "192.0.2.66"),
]


async def whoami(connection: WebSocketConnection) -> tuple[str, dict[str, str]]:
    """Return the backend's name and the header fields that it saw, by lower-case name."""
    with trio.fail_after(PATIENCE):
        await connection.send_message('{"trio-wsb": "whoami"}')
        answer: dict[str, Any] = json.loads(await connection.get_message())
    fields = [(name.lower(), value) for name, value in answer["headers"]]
    assert len(fields) == len(dict(fields)), "a field came twice"
    return answer["backend"], dict(fields)


async def until_sessions(started: Sequence[Backend], counts: Sequence[int]) -> None:
    """Wait until each backend has so many sessions."""
    await eventually(partial(sessions, started), lambda now: now == list(counts))


async def until_ended(running: Daemon, count: int) -> list[dict[str, Any]]:
    """Return the lines of the sessions that ended, once there are `count`."""
    await running.running.line(lambda _: len(running.log("session ended")) >= count)
    return running.log("session ended")


async def open_and_close(url: str, answers: list[int]) -> None:
    """Open one session after the other until cancelled; note the status of each answer."""
    while True:
        try:
            async with open_session(parse_target(url)) as connection:
                answers.append(101)
                await echo(connection, "hello")
        except ConnectionRejected as refusal:
            answers.append(refusal.status_code)
        await trio.sleep(0.02)


def load(url: str, clients: int) -> Client:
    """Return clients that talk all the time and come back when their session is lost."""
    return Client(ClientOptions(url, clients=clients, message_interval=0.2, reconnect=True))


async def until_open(client: Client, count: int) -> None:
    """Wait until so many sessions of `client` are open."""
    with trio.fail_after(PATIENCE):
        while client.totals().open < count:
            await trio.sleep(0.02)


async def leave(client: Client) -> None:
    """Close the sessions of `client` and wait until they are."""
    client.stop()
    with trio.fail_after(PATIENCE):
        while client.totals().open:
            await trio.sleep(0.02)


def warnings(running: Daemon | Running) -> list[str]:
    lines = running.running.lines if isinstance(running, Daemon) else running.lines
    return [line for line in lines if '"level": "warning"' in line or " WRN " in line]


async def test_sessions_are_spread_by_reports_through_both(tmp_path: Path) -> None:
    async with (
        backends(3, [], ["--foreign", "30"], ["--foreign", "60"]) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        async with traefik.running(), visitors() as made:
            await reports_arrived(started)
            for connection in await made.connect_many(traefik.ws, 120):
                await echo(connection, "through both")
            own = await sessions(started)
            assert sum(own) == 120
            totals = [count + foreign for count, foreign in zip(own, (0, 30, 60), strict=True)]
            assert all(69 <= total <= 71 for total in totals), totals


async def test_moving_over_counts_the_sessions_that_traefik_still_has_by_itself(tmp_path: Path) -> None:
    async with (
        backends(2) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [started[0].url])
        async with traefik.running(), visitors() as made:
            before = await made.connect_many(traefik.ws, 20)
            traefik.service["servers"] = [{"url": running.url}]
            await traefik.apply()
            await reports_arrived(started)
            await made.connect_many(traefik.ws, 40)
            # 20 old ones and 10 new ones, against 30 new ones.
            assert await sessions(started) == [30, 30]
            for connection in before:
                await echo(connection, "where I was")


async def test_what_traefik_says_of_the_client_is_believed(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        async with traefik.running(), visitors() as made:
            _, fields = await whoami(await made.visit(traefik.ws, source=CLIENT, headers=FORGED))
            assert fields["host"] == fields["x-forwarded-host"] == f"127.0.0.1:{traefik.port}"
            assert fields["x-forwarded-for"] == f"{CLIENT}, {TRAEFIK}"
            assert fields["x-real-ip"] == CLIENT
            assert fields["x-forwarded-proto"] == "ws"
            assert fields["x-forwarded-port"] == str(traefik.port)
            assert "x_forwarded_for" not in fields
            assert (await running.logged("session opened"))["client"] == CLIENT


async def test_what_a_stranger_says_of_itself_is_not(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "balancer", started) as running,
        visitors() as made,
    ):
        _, fields = await whoami(await made.visit(running.ws, source=CLIENT, headers=FORGED))
        assert fields["x-forwarded-for"] == fields["x-real-ip"] == CLIENT
        assert fields["x-forwarded-host"] == fields["host"] == f"127.0.0.1:{running.port}"
        assert fields["x-forwarded-proto"] == "ws"
        assert fields["x-forwarded-port"] == str(running.port)
        assert "x_forwarded_for" not in fields
        client = (await running.logged("session opened"))["client"]
        assert client.startswith(f"{CLIENT}:")


@pytest.mark.parametrize("rule", [None, "PathPrefix(`/`)"])
async def test_nobody_sees_the_count_table_through_traefik(tmp_path: Path, rule: str | None) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "balancer", started) as running,
        http_client() as client,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        if rule is not None:
            traefik.router["rule"] = rule
        async with traefik.running():
            assert "totalConnections" in (await client.get(f"{running.url}/balancer-metrics")).json()
            public = f"http://127.0.0.1:{traefik.port}"
            answer = await client.get(f"{public}/balancer-metrics")
            assert answer.status_code == 404
            assert "totalConnections" not in answer.text
            ping = await client.get(f"{public}/ping")
            assert ping.status_code == (404 if rule is None else 200)


async def test_a_stopping_balancer_loses_its_new_sessions_to_the_other_one(tmp_path: Path) -> None:
    async with (
        backends(2) as started,
        balancer(tmp_path / "stopping", started, like_the_example=True) as stopping,
        balancer(tmp_path / "staying", started) as staying,
    ):
        traefik = Traefik(tmp_path / "traefik", [stopping.url, staying.url])
        # Without another attempt every handshake that goes wrong is seen.
        del traefik.router["middlewares"]
        async with traefik.running() as process, trio.open_nursery() as nursery:
            client = load(traefik.ws, 40)
            nursery.start_soon(client.run)
            await until_open(client, 40)
            answers: list[int] = []
            with trio.CancelScope() as opening:
                nursery.start_soon(open_and_close, traefik.ws, answers)
                stopping.running.signal(signal.SIGTERM)
                await process.line(lambda line: "Health check failed" in line and "503" in line)
                await traefik.until(lambda status: status[stopping.url] == "DOWN")
                last = len(stopping.log("session opened"))
                assert await stopping.running.exit() == 0
                # Nothing came any more for seconds when it closed its listener.
                assert len(stopping.log("session opened")) <= last + 1
                await until_open(client, 40)
                opening.cancel()
            await leave(client)
            nursery.cancel_scope.cancel()
        totals = client.totals()
        assert len(answers) > 50
        assert set(answers) == {101}
        assert totals.failed == 0
        # Each session of the one that stopped was told to go, and came back.
        told = [line for line in stopping.log("session ended") if line["cause"] == "shutdown"]
        assert {line["closeCode"] for line in told} == {1001}
        assert totals.lost == {"1001": 20}
        assert not stopping.log("grace period over, cutting sessions")


async def test_sessions_survive_reloads_of_both(tmp_path: Path) -> None:
    async with (
        backends(3) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        async with traefik.running(), visitors() as made:
            connections = await made.connect_many(traefik.ws, 60)
            servers = running.document["http"]["services"]["chat"]["loadBalancer"]["servers"]
            for count in range(1, 6):
                servers[0]["weight"] = count
                running.write()
                await running.reload(count=count)
                await traefik.apply()
                for connection in connections:
                    await echo(connection, f"after reload {count}")
            assert running.log("session ended") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_of_traefik_ends_its_sessions_with_a_known_cause(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        backends(3) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        traefik.static["entryPoints"]["web"]["transport"]["lifeCycle"]["graceTimeOut"] = "1s"
        async with visitors() as made:
            async with traefik.running() as process:
                await made.connect_many(traefik.ws, 60)
                quiet = len(warnings(running))
                process.signal(number)
                await process.exit()
            ended = await until_ended(running, 60)
            assert [line["cause"] for line in ended] == ["client_lost"] * 60
            # The backends saw them go, and are not blamed.
            await until_sessions(started, [0, 0, 0])
            await running.logged("clients lost", peer="127.0.0.1")
            told = [json.loads(line) for line in warnings(running)[quiet:]]
            assert {(line["msg"], line["peer"]) for line in told} == {("clients lost", "127.0.0.1")}
            async with traefik.running():
                for connection in await made.connect_many(traefik.ws, 30):
                    await echo(connection, "back again")
                assert await sessions(started) == [10, 10, 10]


async def test_a_traefik_that_stops_keeps_its_sessions_for_the_grace_period(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        async with visitors() as made, traefik.running() as process:
            kept = await made.connect(traefik.ws)
            process.signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", traefik.port))
                    except OSError:
                        break
                    await trio.sleep(0.02)
            await echo(kept, "nobody else gets in, I am still here")


async def test_a_restart_of_the_only_balancer_refuses_nobody(tmp_path: Path) -> None:
    directory, port = tmp_path / "balancer", free_port()
    traefik = Traefik(tmp_path / "traefik", [f"http://127.0.0.1:{port}"])
    async with backends(2) as started, traefik.running(), trio.open_nursery() as nursery:
        client = load(traefik.ws, 40)
        answers: list[int] = []
        async with balancer(directory, started, port=port) as running:
            nursery.start_soon(client.run)
            await until_open(client, 40)
            nursery.start_soon(open_and_close, traefik.ws, answers)
            running.running.signal(signal.SIGTERM)
            assert await running.running.exit() == 0
            counted = len(answers)
        async with balancer(directory, started, port=port):
            await until_open(client, 40)
            with trio.fail_after(PATIENCE):
                while len(answers) <= counted + 1:
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    assert set(answers) == {101}
    totals = client.totals()
    assert totals.lost == {"1001": 40}
    assert totals.failed == 0


async def test_a_killed_balancer_costs_its_own_sessions_and_no_new_one(tmp_path: Path) -> None:
    async with (
        backends(2) as started,
        balancer(tmp_path / "victim", started) as victim,
        balancer(tmp_path / "staying", started) as staying,
    ):
        traefik = Traefik(tmp_path / "traefik", [victim.url, staying.url])
        async with traefik.running() as process, trio.open_nursery() as nursery:
            client = load(traefik.ws, 40)
            nursery.start_soon(client.run)
            await until_open(client, 40)
            quiet = len(warnings(staying))
            victim.running.process.kill()
            await victim.running.exit()
            line = await process.line("Health check failed")
            assert victim.url in line
            assert "connection refused" in line
            await until_open(client, 40)
            totals = client.totals()
            assert totals.lost == {"1006": 20}
            assert totals.failed == 0  # Traefik tried again, with the other one in the end
            assert sum(await sessions(started)) == 40
            await leave(client)
        assert warnings(staying)[quiet:] == []


async def test_a_killed_backend_is_named_in_our_log_and_not_in_traefiks(tmp_path: Path) -> None:
    async with (
        backends(3) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        async with traefik.running() as process, trio.open_nursery() as nursery:
            await reports_arrived(started)
            client = load(traefik.ws, 60)
            nursery.start_soon(client.run)
            await until_open(client, 60)
            quiet, traefik_quiet = len(warnings(running)), len(warnings(process))
            victim, *rest = started
            victim.running.process.kill()
            ended = await until_ended(running, 20)
            assert {(line["cause"], line["backend"]) for line in ended} == {("backend_lost", victim.url)}
            await until_open(client, 60)
            await until_sessions(rest, [30, 30])
            # The next clients find the victim's place empty, which would be the best one: that costs one dial.
            answers: list[int] = []
            async with trio.open_nursery() as opening:
                opening.start_soon(open_and_close, traefik.ws, answers)
                await running.logged("no fresh report", backend=victim.url)
                await running.logged(
                    "backend failed", backend=victim.url, reason="connect: connection refused"
                )
                opening.cancel_scope.cancel()
            assert set(answers) <= {101}
            totals = client.totals()
            assert totals.lost == {"1006": 20}
            assert totals.failed == 0
            await leave(client)
        told = [json.loads(line) for line in warnings(running)[quiet:]]
        assert {line["backend"] for line in told} == {victim.url}
        assert [line["msg"] for line in told].count("no fresh report") == 1
        assert warnings(process)[traefik_quiet:] == []


async def test_a_reload_of_traefik_takes_a_dead_balancer_for_up_and_nobody_notices(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "victim", started) as victim,
        balancer(tmp_path / "staying", started) as staying,
    ):
        traefik = Traefik(tmp_path / "traefik", [victim.url, staying.url])
        traefik.service["healthCheck"]["interval"] = "1s"
        async with traefik.running():
            victim.running.process.kill()
            await traefik.until(lambda status: status[victim.url] == "DOWN")
            await traefik.apply()
            assert (await traefik.status())[victim.url] == "UP"  # until the next probe
            answers: list[int] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_and_close, traefik.ws, answers)
                await traefik.until(lambda status: status[victim.url] == "DOWN")
                nursery.cancel_scope.cancel()
            assert set(answers) == {101}


async def test_no_timeout_of_either_ends_an_idle_session(tmp_path: Path) -> None:
    async with (
        backends(1) as started,
        balancer(tmp_path / "balancer", started, readTimeout="300ms", idleTimeout="300ms") as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url])
        traefik.static["entryPoints"]["web"]["transport"]["respondingTimeouts"] = dict.fromkeys(
            ("readTimeout", "writeTimeout", "idleTimeout"), "300ms"
        )
        traefik.dynamic["http"]["serversTransports"]["trio-wsb"]["forwardingTimeouts"] = dict.fromkeys(
            ("dialTimeout", "responseHeaderTimeout", "idleConnTimeout"), "300ms"
        )
        async with traefik.running(), visitors() as made:
            connection = await made.connect(traefik.ws)
            await trio.sleep(0.9)  # three times as idle as anybody may be
            await echo(connection, "still there")


async def test_wss_through_traefik(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "chat.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        backends(2) as started,
        balancer(tmp_path / "balancer", started) as running,
    ):
        traefik = Traefik(tmp_path / "traefik", [running.url], certificate=certificate)
        async with traefik.running(), visitors() as made:
            connection = await made.visit(traefik.wss, source=CLIENT, headers=FORGED, ssl_context=context)
            _, fields = await whoami(connection)
            assert fields["x-forwarded-proto"] == "wss"
            assert fields["x-forwarded-port"] == str(traefik.tls_port)
            assert fields["x-forwarded-for"] == f"{CLIENT}, {TRAEFIK}"
            await echo(connection, "x" * 200_000)
            await echo(await made.connect(traefik.ws), "both entry points")
            assert await sessions(started) == [1, 1]
