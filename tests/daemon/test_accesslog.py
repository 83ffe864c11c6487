"""The access log of the real daemon: lines of sessions and requests, rotation, reloads, full disks, and the stop."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml
from trio_websocket import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.daemon.harness import PATIENCE, Daemon, backends, clients, daemon, echo, free_port, http_client
from tests.daemon.waiting import until

pytestmark = pytest.mark.daemon

UPGRADES = "Upgrade.*websocket"
"""What the guide that users of Traefik come with looks for."""

OPENED_ANEW = "log files opened anew"

Line = dict[str, Any]


def texts(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def lines(path: Path, event: str = "") -> list[Line]:
    found = [json.loads(line) for line in texts(path)]
    return [line for line in found if not event or line["event"] == event]


async def ask_at(url: str, **options: Any) -> httpx.Response:
    async with http_client() as client:
        return await client.get(url, **options)


async def ask(running: Daemon, path: str, **options: Any) -> httpx.Response:
    return await ask_at(running.url + path, **options)


def converse(url: str, code: int) -> None:
    """Be a client that we did not write, for one session."""
    client: ClientConnection
    with connect(url, proxy=None, additional_headers={"Authorization": "Bearer secret"}) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"
        client.close(code, "so long")


async def test_sessions_and_requests(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "access.log"
    access = {"filePath": str(log), "format": "json", "fields": {"headers": {"defaultMode": "keep"}}}
    async with backends(1) as (only,), daemon(tmp_path, [only.url], accessLog=access) as running:
        for code in (1000, 4321):
            await trio.to_thread.run_sync(converse, f"{running.ws}/chat?token=secret", code)
        answer = await ask(running, "/chat?token=secret", headers={"Cookie": "secret"})
        assert answer.status_code == 404
        assert (await ask(running, "/ping")).status_code == 200
        await until(lambda: len(lines(log)) == 5)

        opened, ended = lines(log, "session_opened"), lines(log, "session_ended")
        assert [line["session"] for line in opened] == [line["session"] for line in ended] == [1, 2]
        for line in opened:
            assert (line["DownstreamStatus"], line["OriginStatus"], line["entryPointName"]) == (
                101,
                101,
                "web",
            )
            assert line["ServiceURL"] == only.url
            assert line["RequestPath"] == "/chat?token=REDACTED"
            assert line["request_Authorization"] == "REDACTED"
        assert [(line["closeCode"], line["cause"], line["closedBy"]) for line in ended] == [
            (1000, "client_closed", "client"),
            (4321, "client_closed", "client"),
        ]
        assert [(line["messagesIn"], line["messagesOut"], line["tries"]) for line in ended] == [(1, 1, 1)] * 2
        assert all(line["Duration"] > before["Duration"] for line, before in zip(ended, opened, strict=True))
        (plain,) = lines(log, "request")
        assert (plain["DownstreamStatus"], plain["RequestMethod"], plain["RouterName"]) == (
            404, "GET", opened[0]["RouterName"],
        )  # fmt: skip
        assert plain["DownstreamContentSize"] == len(answer.content)
        assert "secret" not in log.read_text()
        found = subprocess.run(["grep", "-cE", UPGRADES, log], capture_output=True, text=True)
        assert found.stdout == "2\n"

        # A reload changes the format; the session that is open then has its end in the new one.
        async with clients() as made:
            kept = await made.connect(running.ws)
            running.document["accessLog"]["format"] = "common"
            running.write()
            await running.reload(count=1)
            await echo(kept, "still here")
            await made.close()
        await until(lambda: len(texts(log)) == 7)
        assert '"event":"session_opened"' in texts(log)[5]
        assert re.search(
            r'"GET / HTTP/1\.1" 101 \d+ .* event=session_ended session=3 .*closedBy=client', texts(log)[6]
        )
        assert not re.search(UPGRADES, texts(log)[6])


async def test_connections_that_are_too_many(tmp_path: Path) -> None:
    log, admin = tmp_path / "access.log", free_port()
    entry_points = {
        "web": {"address": f"127.0.0.1:{(port := free_port())}", "maxConnections": 1},
        "admin": {"address": f"127.0.0.1:{admin}"},
    }
    access = {"filePath": str(log), "format": "json"}
    metrics = {"prometheus": {"entryPoint": "admin"}}
    async with (
        backends(1) as (only,),
        daemon(
            tmp_path, [only.url], port=port, entryPoints=entry_points, accessLog=access, metrics=metrics
        ) as running,
        clients() as made,
    ):
        session = await made.connect(running.ws)
        for _ in range(2):
            assert (await ask(running, "/chat")).status_code == 503
        await echo(session, "not disturbed")
        await until(lambda: len(lines(log, "request")) == 2)
        page = (await ask_at(f"http://127.0.0.1:{admin}/metrics")).text
    for line in lines(log, "request"):
        assert (line["DownstreamStatus"], line["entryPointName"], line["ClientHost"]) == (
            503,
            "web",
            "127.0.0.1",
        )
        assert (line["stage"], line["reason"]) == ("arrival", "too many connections")
        assert (line["RequestMethod"], line["DownstreamContentSize"] > 0) == ("-", True)
    assert 'trio_wsb_request_failures_total{stage="arrival",reason="too many connections"} 2\n' in page


async def test_rotation_loses_nothing(tmp_path: Path) -> None:
    log, own = tmp_path / "access.log", tmp_path / "own.log"
    own_files = [*(tmp_path / f"own.log.{number}" for number in range(1, 6)), own]
    asked = 0
    later: list[int] = []
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], accessLog={"filePath": str(log), "format": "json"}) as running,
    ):
        running.document["log"]["filePath"] = str(own)
        running.write()
        running.running.signal(signal.SIGHUP)
        await until(lambda: own.exists() and "configuration reloaded" in own.read_text())
        rotating = True

        async def keep_asking() -> None:
            nonlocal asked
            while rotating:
                await ask(running, f"/{asked}")
                asked += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking)
            await until(lambda: texts(log) != [])
            for number in range(1, 6):
                log.rename(tmp_path / f"access.log.{number}")
                own.rename(tmp_path / f"own.log.{number}")
                running.running.signal(signal.SIGUSR1)
                await until(lambda: own.exists() and OPENED_ANEW in own.read_text())
                # What was asked for before that may stand in either file. What is asked for from now on stands in the new one.
                later.append(asked + 1)
                await until(lambda: texts(log) != [])
            rotating = False
        files = [*(tmp_path / f"access.log.{number}" for number in range(1, 6)), log]
        await until(lambda: sum(file.read_text().count("\n") for file in files) >= asked)
        paths = [line["RequestPath"] for file in files for line in lines(file)]
        assert paths == [f"/{number}" for number in range(asked)]
        for number, path in enumerate(later, 1):
            assert f"/{path}" not in {line["RequestPath"] for file in files[:number] for line in lines(file)}
        assert [file.read_text().count(OPENED_ANEW) for file in own_files] == [0, 1, 1, 1, 1, 1]


async def test_logrotate_with_the_example(tmp_path: Path) -> None:
    program = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")
    if program is None:
        pytest.skip("logrotate is not installed")
    log = tmp_path / "access.log"
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], accessLog={"filePath": str(log), "format": "json"}) as running,
    ):
        await ask(running, "/before")
        await until(lambda: len(texts(log)) == 1)
        example = (Path(__file__).parents[2] / "etc/logrotate.d/trio-wsb").read_text()
        example = example.replace("/var/log/trio-wsb/*.log", str(log))
        example = re.sub(r"systemctl kill .*", f"kill -USR1 {running.running.process.pid}", example)
        example = re.sub(r"create .*", "create 0640", example)
        config = tmp_path / "rotate.conf"
        config.write_text(example)
        config.chmod(0o644)
        tmp_path.chmod(0o755)
        command = [program, "--force", "--state", str(tmp_path / "state"), str(config)]
        await trio.run_process(command, capture_stderr=True)
        await ask(running, "/after")
        await until(lambda: len(texts(log)) == 1)
        assert lines(log)[0]["RequestPath"] == "/after"
        assert lines(tmp_path / "access.log.1")[0]["RequestPath"] == "/before"


async def test_a_full_disk_and_a_vanished_folder_stop_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], accessLog={"filePath": "/dev/full"}) as running,
        clients() as made,
    ):
        kept = await made.connect(running.ws)
        line = await running.logged("access log cannot be written", file="/dev/full")
        assert (line["level"], line["reason"]) == ("error", "no space left on device")
        await echo(kept, "hello")
        for number in range(20):
            assert (await ask(running, f"/{number}")).status_code == 404
        assert len(running.log("access log cannot be written")) == 1

        running.document["accessLog"] = {"filePath": str(folder / "access.log"), "format": "json"}
        running.write()
        await running.reload(count=1)
        # What waited for the device is given up with it, and told.
        lost = await running.logged("access log ends, lines lost", file="/dev/full")
        assert lost["linesLost"] == 21
        await ask(running, "/first")
        await until(lambda: len(texts(folder / "access.log")) == 1)

        shutil.rmtree(folder)
        folder.write_text("in the way")
        await ask(running, "/second")
        await running.logged("access log cannot be written", file=str(folder / "access.log"))
        await echo(kept, "still here")
        folder.unlink()
        again = await running.logged("access log is written again")
        assert again["linesLost"] == 0
        assert [line["RequestPath"] for line in lines(folder / "access.log")] == ["/second"]


async def test_on_standard_output_and_everything_at_the_stop(tmp_path: Path) -> None:
    port = free_port()
    web = {"address": f"127.0.0.1:{port}", "transport": {"lifeCycle": {"graceTimeOut": "1s"}}}
    access = {"format": "json", "bufferingSize": 5000}
    async with (
        backends(1) as (only,),
        daemon(tmp_path, [only.url], port=port, entryPoints={"web": web}, accessLog=access) as running,
        clients() as made,
    ):
        connections = await made.connect_many(running.ws, 50)
        running.running.signal(signal.SIGTERM)
        for connection in connections:
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed):
                await connection.get_message()
        assert await running.running.exit() == 0
        await running.running.line('"msg": "stopped"')
        found = [json.loads(line) for line in running.running.lines if '"event":' in line]
        assert sum(line["event"] == "session_opened" for line in found) == 50
        ended = [line for line in found if line["event"] == "session_ended"]
        assert {line["session"] for line in ended} == set(range(1, 51))
        assert {(line["cause"], line["closeCode"], line["closedBy"]) for line in ended} == {
            ("shutdown", 1001, "balancer")
        }


@pytest.mark.parametrize("name", ["traefik", "debugging"])
async def test_the_files_of_the_guide_act(name: str, tmp_path: Path) -> None:
    guide = yaml.safe_load((Path(__file__).parents[1] / "config/guide" / f"{name}.yml").read_text())
    log = tmp_path / "access.log"
    access = {**guide["accessLog"], "filePath": str(log)}
    async with backends(1) as (only,), daemon(tmp_path, [only.url], accessLog=access) as running:
        for _ in range(3):
            await trio.to_thread.run_sync(converse, running.ws, 1000)
        await ask(running, "/")
        await until(lambda: len(texts(log)) == 7)
        found = subprocess.run(["grep", "-cE", UPGRADES, log], capture_output=True, text=True)
        assert found.stdout == "3\n"
