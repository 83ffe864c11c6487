"""`status`, `sessions` and `reload` against the real daemon, as an operator uses them; curl's way too."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import (
    PATIENCE,
    Backend,
    Running,
    backends,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.daemon.shell import Operator, at_a_terminal
from tests.daemon.waiting import eventually
from tests.opening import opening

pytestmark = pytest.mark.daemon


async def figures_settle(operator: Operator, started: Sequence[Backend], sessions: int) -> dict[str, Any]:
    """Return the status once every backend's report is younger than the last session."""

    async def status() -> dict[str, Any]:
        document: dict[str, Any] = (await operator.curl("GET", "/status")).json()
        return document

    def settled(status: dict[str, Any]) -> bool:
        reported = sum(each["reported"] or 0 for each in status["backends"])
        exact = not any(each["foreign"] for each in status["backends"])
        return bool(exact and reported == sessions == status["sessions"]["open"])

    return await eventually(status, settled)


async def test_status_sessions_and_reload(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(2) as started,
        daemon(
            tmp_path, [each.url for each in started], control={"socket": str(operator.socket_path)}
        ) as running,
        clients() as made,
    ):
        assert stat.S_IMODE(operator.socket_path.lstat().st_mode) == 0o600
        connections = await made.connect_many(running.ws, 6)
        await echo(connections[0], "hello")

        # Its numbers are those of both sides.
        status = await figures_settle(operator, started, 6)
        assert status["configuration"]["file"] == str(running.path)
        assert [each["live"] for each in status["backends"]] == [
            (await each.stats())["sessions"] for each in started
        ]
        assert [(each["reported"], each["foreign"], each["podName"]) for each in status["backends"]] == [
            (3, 0, "backend-1"),
            (3, 0, "backend-2"),
        ]
        assert status["entryPoints"][0]["addresses"] == [f"127.0.0.1:{running.port}"]
        assert status["entryPoints"][0]["connections"] == 6
        assert (await operator.curl("GET", "/status")).json()["pid"] == running.running.process.pid

        # The screen fits.
        code, out, err = await operator.run("status")
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert "6 open, 6 opened, 0 ended" in out
        assert started[0].url.removeprefix("http://") in out

        # Sessions, by each filter.
        listed = await operator.json("sessions", "--limit", "4", "--offset", "1")
        assert (listed["total"], [each["session"] for each in listed["sessions"]]) == (6, [2, 3, 4, 5])
        listed = await operator.json("sessions", "--backend", "backend-2", "--service", "wsbalancer")
        assert listed["total"] == 3
        assert {each["backend"] for each in listed["sessions"]} == {started[1].url}
        assert (await operator.json("sessions", "--client", "10.0.0.0/8"))["total"] == 0
        code, out, _ = await operator.run("sessions", "--client", "127.0.0.1")
        assert code == 0
        assert out.endswith("sessions 1 to 6 of 6\n")
        assert (await operator.run("sessions", "--limit", "1001"))[0] == 2
        assert sum(each["messagesIn"] for each in (await operator.json("sessions"))["sessions"]) == 1

        # A reload that works, and one that does not.
        code, out, err = await operator.run("reload")
        assert (code, err) == (0, "")
        assert out.startswith("reloaded in ")
        good = running.path.read_text()
        running.path.write_text("wsbalancer:\n  pods: []\n  cacheTTl: 30s\n")
        code, out, err = await operator.run("reload")
        assert (code, out) == (1, "")
        assert f"{running.path}:2:9 wsbalancer.pods: is empty" in err
        assert f'{running.path}:3:3 wsbalancer.cacheTTl: unknown key (write "cacheTTL"' in err
        assert err.endswith("not reloaded: the old configuration stays in force\n")
        answer = await operator.curl("POST", "/reload")
        assert answer.status_code == 422
        assert answer.json()["problems"] == err.splitlines()[:-1]
        code, out, _ = await operator.run("status")
        assert "failed, " in out
        status = await operator.json("status")
        assert (status["configuration"]["reloads"], status["configuration"]["reloadsFailed"]) == (1, 2)
        running.path.write_text(good)
        assert (await operator.run("reload"))[0] == 0
        assert status["sessions"]["open"] == 6
        await echo(connections[-1], "still here")

        # Ended sessions are counted by cause.
        await connections[0].aclose()
        await running.logged("session ended")
        assert (await operator.json("status"))["sessions"]["ended"]["client_closed"] == 1
    assert not operator.socket_path.exists()


async def test_it_answers_while_stopping_and_says_so(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    port = free_port()
    entry = {"address": f"127.0.0.1:{port}", "transport": {"lifeCycle": {"graceTimeOut": "60s"}}}
    async with (
        backends(1) as (only,),
        daemon(
            tmp_path,
            [only.url],
            port=port,
            entryPoints={"web": entry},
            control={"socket": str(operator.socket_path)},
        ) as running,
    ):
        # A client that does not answer a Close frame, so that the stop takes its time.
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(opening())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            running.running.signal(signal.SIGTERM)
            await running.logged("stopping")
            status = await running.shows(lambda status: not status["entryPoints"][0]["addresses"])
            assert status["stopping"] is True
            assert status["sessions"]["open"] == 1
            assert await operator.run("reload") == (1, "", "Error: the daemon is stopping\n")
            running.running.signal(signal.SIGTERM)
            assert await running.running.exit() == 0
    assert not operator.socket_path.exists()


async def test_a_killed_daemons_socket_is_taken_over_and_a_living_ones_is_not(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    control = {"socket": str(operator.socket_path)}
    async with backends(1) as (only,):
        async with daemon(tmp_path, [only.url], control=control) as killed:
            killed.running.process.kill()
            await killed.running.exit()
        assert operator.socket_path.exists()
        code, _, err = await operator.run("status")
        assert code == 2
        assert "has ended" in err
        async with daemon(tmp_path, [only.url], control=control) as running:
            assert (await operator.json("status"))["pid"] == running.running.process.pid
            other = tmp_path / "other.yaml"
            document = running.document | {"entryPoints": {"web": {"address": f"127.0.0.1:{free_port()}"}}}
            other.write_text(json.dumps(document))
            async with Running.start("run", "--config", str(other)) as second:
                assert await second.exit() == 1
                assert any("control.socket: cannot listen at" in line for line in second.lines)
            assert (await operator.json("status"))["pid"] == running.running.process.pid


async def test_watching_in_a_terminal(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], control={"socket": str(operator.socket_path)}) as running,
        at_a_terminal(operator, "status", "--watch") as (process, see),
    ):
        await see("0 open, 0 opened")
        async with clients() as made:
            await made.connect(running.ws)
            await see("1 open, 1 opened")
        # A restart is something that one wants to watch.
        running.running.signal(signal.SIGTERM)
        await running.running.exit()
        await see("there is no daemon at")
        process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0


async def test_watching_as_json_lines(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "control.sock")
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], control={"socket": str(operator.socket_path)}),
    ):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_wsb", "status", "--watch", "--json"],
            stdout=subprocess.PIPE,
            env=operator.environment | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        received = b""
        with trio.fail_after(PATIENCE):
            while received.count(b"\n") < 2:
                received += await process.stdout.receive_some()
            first, second = map(json.loads, received.splitlines()[:2])
            assert second["uptime"] > first["uptime"]
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        await process.stdout.aclose()


async def test_the_balancers_metrics_over_http(tmp_path: Path) -> None:
    admin = free_port()
    async with (
        backends(2, [], ["--foreign", "7"]) as started,
        daemon(tmp_path, [each.url for each in started]) as running,
        clients() as made,
        http_client() as http,
    ):
        running.document["entryPoints"]["admin"] = {"address": f"127.0.0.1:{admin}"}
        running.write()
        await running.reload(count=1)
        await made.connect_many(running.ws, 5)
        url = f"http://127.0.0.1:{admin}/balancer-metrics"

        async def metrics() -> dict[str, Any]:
            document: dict[str, Any] = (await http.get(url)).json()
            return document

        document = await eventually(
            metrics, lambda seen: len(seen["podMetrics"]) == 2 and seen["totalConnections"] == 12
        )
        assert document["agentsConnections"] == 12
        assert {each["url"] for each in document["services"]} == {each.url for each in started}
        assert document["podMetrics"][started[1].url][0]["podName"] == "backend-2"
        page = await http.get(url, headers={"Accept": "text/html"})
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert (await http.get(f"http://127.0.0.1:{admin}/ping")).text == "OK\n"
        # On the traffic entry point: to us here, and not to somebody behind a proxy.
        traffic = f"{running.url}/balancer-metrics"
        assert (await http.get(traffic)).json()["totalConnections"] == 12
        stranger = await http.get(traffic, headers={"X-Forwarded-For": "203.0.113.9"})
        assert "totalConnections" not in stranger.text
