"""The API of the real daemon, asked with curl and jq as the guide does, and behind routers and middlewares."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.daemon.harness import PATIENCE, Daemon, backends, clients, daemon, echo, free_port, http_client
from tests.daemon.waiting import eventually
from tests.opening import UPGRADE

pytestmark = pytest.mark.daemon

QUICK = {"transport": {"lifeCycle": {"graceTimeOut": "200ms"}}}

USER = "admin:$2y$05$dO4CgPEc2h1fUHCqy.qY6eS/M8Q0CLbaKfvpUdsyvmaQwbxgSZqGO"


class Asker:
    """Somebody who asks a daemon's API."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"

    async def ask(self, path: str, *, method: str = "GET", **known: Any) -> httpx.Response:
        async with http_client() as client:
            return await client.request(method, f"{self.base}{path}", **known)

    async def get(self, path: str) -> Any:
        answer = await self.ask(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, path: str, fits: Any) -> Any:
        """Ask until the document fits."""
        return await eventually(partial(self.get, path), fits)


async def told(connection: WebSocketConnection, fits: Any) -> dict[str, Any]:
    """Return the first message of the feed that fits."""
    with trio.fail_after(PATIENCE):
        while True:
            message: dict[str, Any] = json.loads(await connection.get_message())
            if fits(message):
                return message


@asynccontextmanager
async def running(tmp_path: Path, count: int = 2, **changes: Any) -> AsyncIterator[tuple[Daemon, Asker]]:
    web, admin = free_port(), free_port()
    entry_points: dict[str, Any] = {
        "web": {"address": f"127.0.0.1:{web}", **QUICK},
        "admin": {"address": f"127.0.0.1:{admin}", **QUICK, **changes.pop("admin", {})},
    }
    async with backends(count) as started:
        servers = [{"url": each.url} for each in started]
        http: dict[str, Any] = {
            "routers": {"chat": {"rule": "PathPrefix(`/chat`)", "service": "chat"}},
            "services": {
                "chat": {
                    "loadBalancer": {
                        "servers": servers,
                        "connectionCount": {"path": "/metric", "interval": "200ms"},
                        "healthCheck": {
                            "path": "/api/health",
                            "interval": "100ms",
                            "timeout": "5s",
                            "fall": 1,
                        },
                    }
                }
            },
            "middlewares": {"auth": {"basicAuth": {"users": [USER]}}},
        }
        for section, more in changes.pop("http", {}).items():
            http[section] |= more
        async with daemon(tmp_path, [], port=web, entryPoints=entry_points, http=http, **changes) as found:
            found.document["backends"] = [each.running for each in started]
            yield found, Asker(admin)


def stop(found: Daemon, index: int) -> None:
    found.document["backends"][index].signal(signal.SIGTERM)


async def test_the_guides_commands(tmp_path: Path) -> None:
    curl, jq = shutil.which("curl"), shutil.which("jq")
    if curl is None or jq is None:
        pytest.skip("curl and jq are not installed")
    async with running(tmp_path) as (found, asker):

        async def piped(path: str, query: str) -> Any:
            command = f"{curl} -s {asker.base}{path} | {jq} '{query}'"
            done = await trio.run_process(
                ["/bin/sh", "-c", command], capture_stdout=True, capture_stderr=True
            )
            assert done.stderr == b""
            return json.loads(done.stdout)

        url = next(iter(await piped("/api/overview", '.http.services."chat@file".serverStatus')))
        assert url.startswith("http://127.0.0.1:")
        stop(found, 0)
        await asker.until(
            "/api/http/services/chat@file", lambda each: "DOWN" in each["serverStatus"].values()
        )
        status = await piped("/api/http/services/chat@file", ".serverStatus")
        assert sorted(status.values()) == ["DOWN", "UP"]
        assert await piped("/api/overview", '.http.services."chat@file".serverStatus') == status
        assert await piped("/api/http/routers", "map(.name)") == [
            "api@internal", "chat@file", "dashboard@internal", "ping@internal", "prometheus@internal",
        ]  # fmt: skip


async def test_sessions_backends_and_metrics_are_true(tmp_path: Path) -> None:
    async with running(tmp_path) as (found, asker), clients() as made:
        # A first report that crosses a handshake is an estimate, and the next choice goes by it.
        await asker.until("/api/backends", lambda each: all(row["reported"] == 0 for row in each["backends"]))
        for _ in range(4):
            await echo(await made.connect(f"{found.ws}/chat/%3Cb%3E"), "hello")
        page = await asker.get("/api/sessions?limit=3&search=chat")
        assert (page["total"], len(page["sessions"])) == (4, 3)
        one = await asker.get(f"/api/sessions/{page['sessions'][0]['session']}")
        assert (one["messagesIn"], one["messagesOut"], one["path"]) == (1, 1, "/chat/%3Cb%3E")
        settled = await asker.until(
            "/api/backends", lambda each: sum(row["reported"] or 0 for row in each["backends"]) == 4
        )
        assert [row["live"] for row in settled["backends"]] == [2, 2]
        metrics = await asker.get("/api/websocket-metrics")
        assert (metrics["active_connections"], metrics["messages_received"], metrics["messages_sent"]) == (
            4,
            4,
            4,
        )
        (first, *_) = made.connections
        await first.aclose(4001)
        ended = await asker.until("/api/websocket-metrics", lambda each: each["active_connections"] == 3)
        assert len(ended["connection_duration_seconds"]) == 1
        missing = await asker.ask(f"/api/sessions/{one['session'] + 1000}")
        assert (missing.status_code, missing.json()) == (404, {"message": "no live session has this id"})


async def test_the_feed_tells_of_sessions_reloads_and_backends(tmp_path: Path) -> None:
    async with running(tmp_path) as (found, asker), clients() as made:
        feed = await made.connect(f"{asker.ws}/api/events")
        hello = await told(feed, lambda each: each["type"] == "hello")
        assert [each["kind"] for each in hello["events"]] == ["started"]
        await made.connect(f"{found.ws}/chat")
        await told(feed, lambda each: each.get("sessions", {}).get("open") == 1)
        found.running.signal(signal.SIGHUP)
        await told(feed, lambda each: "reloaded" in {event["kind"] for event in each.get("events", ())})
        stop(found, 0)
        down = await told(feed, lambda each: any(row["state"] == "down" for row in each.get("backends", ())))
        assert "backend_down" in {event["kind"] for event in down["events"]}
        found.path.write_text("wsbalancer: {pods: 5}")
        found.running.signal(signal.SIGHUP)
        failed = await told(
            feed, lambda each: "reload_failed" in {event["kind"] for event in each.get("events", ())}
        )
        (event,) = [each for each in failed["events"] if each["kind"] == "reload_failed"]
        assert event["severity"] == "error"
        assert "wsbalancer.pods" in event["details"]["problem"]
        # A dashboard that is open must not hold up the daemon's end.
        found.running.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            await told(feed, lambda _: False)
        assert await found.running.exit() == 0


async def test_routers_lead_to_it_behind_their_middlewares(tmp_path: Path) -> None:
    rule = "Host(`dash.example`) && (PathPrefix(`/api`) || PathPrefix(`/dashboard`))"
    router = {"rule": rule, "service": "api@internal", "middlewares": ["auth"]}
    async with running(tmp_path, 1, http={"routers": {"dash": router}}) as (found, asker):
        traffic = Asker(found.port)
        named = {"Host": "dash.example"}
        assert (await traffic.ask("/api/sessions")).status_code == 404
        refused = await traffic.ask("/api/sessions", headers=named)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        wrong = await traffic.ask("/api/sessions", headers=named, auth=("admin", "wrong"))
        assert wrong.status_code == 401
        routers = await asker.get("/api/http/services/api@internal")
        assert routers["usedBy"] == ["api@internal", "dash@file"]
        # A stranger's page, by the name that it has pointed here and by its own.
        assert (await asker.ask("/api/sessions", headers={"Host": "evil.example"})).status_code == 421
        evil = {**UPGRADE, "Origin": "https://evil.example"}
        assert (await asker.ask("/api/events", headers=evil)).status_code == 403


async def test_the_middlewares_of_admin_stand_before_it(tmp_path: Path) -> None:
    admin = {"http": {"middlewares": ["auth"]}}
    async with running(tmp_path, 1, admin=admin) as (_, asker):
        for path in ("/api/sessions", "/dashboard/", "/"):
            assert (await asker.ask(path)).status_code == 401
        assert (await asker.ask("/api/events", headers=UPGRADE)).status_code == 401
        assert (await asker.ask("/ping")).status_code == 200


async def test_switching_it_off_is_a_reload_away(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (found, asker):
        assert (await asker.ask("/dashboard/")).status_code == 200
        document = {key: value for key, value in found.document.items() if key != "backends"}
        found.document = {**document, "api": False}
        found.write()
        await found.reload(count=1)
        for path in ("/api/version", "/dashboard/", "/"):
            assert (await asker.ask(path)).status_code == 404
