"""Services of every kind and their health in the real daemon, over real backends."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import Backend, backends, clients, daemon, echo, http_client
from tests.daemon.waiting import eventually, sessions
from trio_wsb.balancing.sticky import sticky_value

pytestmark = pytest.mark.daemon

RULE = "PathPrefix(`/`)"
CHECK = {"path": "/api/health", "interval": "200ms", "timeout": "2s"}


def document(service: str, **services: Any) -> dict[str, Any]:
    return {"routers": {"all": {"rule": RULE, "service": service}}, "services": services}


def balancer(*started: Backend, **keys: Any) -> dict[str, Any]:
    return {"loadBalancer": {"servers": [{"url": each.url} for each in started], **keys}}


@pytest.mark.parametrize("mode", ["http", "websocket"])
async def test_checks_take_a_dead_backend_out_and_a_reload_remembers(tmp_path: Path, mode: str) -> None:
    async with backends(2) as started:
        http = document("chat", chat=balancer(*started, healthCheck={**CHECK, "mode": mode}))
        async with daemon(tmp_path, [], http=http) as running, clients() as made:
            started[0].running.process.kill()
            line = await running.logged("backend down", backend=started[0].url)
            assert line["reason"]
            await running.reload(count=1)
            await made.connect_many(running.ws, 10)
            # A check is a session too, for a moment.
            await eventually(partial(sessions, started[1:]), lambda counts: counts == [10])
            assert {line["tries"] for line in running.log("session opened")} == {1}
            assert len(running.log("backend down")) == 1
            states = {each["url"]: each["state"] for each in (await running.status())["backends"]}
            assert states == {started[0].url: "down", started[1].url: "ready"}
            started[1].running.process.kill()
            await running.logged("backend down", backend=started[1].url)
            async with http_client() as client:
                assert (await client.get(running.url)).status_code == 503
            assert running.log("no backend")[-1]["reason"] == "all 2 backends down by health check"


async def test_failover_weighted_and_sticky(tmp_path: Path) -> None:
    async with backends(3) as started:
        main, spare, canary = started
        http = document(
            "all",
            all={
                "weighted": {
                    "services": [{"name": "stable", "weight": 3}, {"name": "canary"}],
                    "sticky": {"cookie": {"name": "part"}},
                }
            },
            stable={"failover": {"service": "main", "fallback": "spare"}},
            main=balancer(main, healthCheck=CHECK),
            spare=balancer(spare),
            canary=balancer(canary, sticky={"cookie": {"name": "ws"}}),
        )
        async with (
            daemon(tmp_path, [], http=http) as running,
            clients() as made,
            http_client() as client,
        ):
            await made.connect_many(running.ws, 8)
            assert await sessions(started) == [6, 0, 2]
            cookies = [
                (await client.get(f"{running.url}/request")).headers.get_list("set-cookie") for _ in range(1)
            ]
            assert cookies[0][-1].startswith("part=")
            client.cookies.clear()
            client.cookies.set("part", sticky_value("canary"))
            answer = await client.get(f"{running.url}/request")
            assert answer.headers.get_list("set-cookie") == [f"ws={sticky_value(canary.url)}; Path=/"]
            main.running.process.kill()
            await running.logged("backend down", backend=main.url)
            await made.connect_many(running.ws, 4)
            assert await sessions([spare, canary]) == [3, 3]
            kinds = {each["name"]: each["strategy"] for each in (await running.status())["services"]}
            assert kinds["all"] == "weighted"
            assert kinds["stable"] == "failover"


async def test_a_mirror_gets_the_clients_messages(tmp_path: Path) -> None:
    async with backends(2) as started:
        http = document(
            "all",
            all={"mirroring": {"service": "main", "mirrors": [{"name": "copy", "percent": 100}]}},
            main=balancer(started[0]),
            copy=balancer(started[1]),
        )
        async with daemon(tmp_path, [], http=http) as running, clients() as made:
            connection = await made.connect(running.ws)
            for number in range(20):
                await echo(connection, f"message {number}")
            await eventually(started[1].stats, lambda stats: stats["messages"] == 20)
            assert await sessions(started) == [1, 1]
            await connection.aclose()
            await eventually(partial(sessions, started), lambda counts: counts == [0, 0])
            assert (await running.status())["mirrors"] == {"running": 0, "begun": 1, "dropped": {}}


async def test_a_storm_passes_a_narrow_door(tmp_path: Path) -> None:
    async with backends(1, ["--accept-delay", "50ms"]) as started:
        http = document("chat", chat=balancer(*started, pendingTimeout="20s"))
        http["services"]["chat"]["loadBalancer"]["servers"][0]["maxPending"] = 5
        async with daemon(tmp_path, [], http=http) as running, clients() as made:
            await made.connect_many(running.ws, 100)
            assert await sessions(started) == [100]
