"""Containers in the running daemon: they come and go, sessions live on, and what is wrong is said with the container's name."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import (
    Backend,
    Daemon,
    backends,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.providers.engine import Engine, serve

pytestmark = pytest.mark.daemon

CHAT = {
    "traefik.enable": "true",
    "traefik.http.routers.chat.rule": "PathPrefix(`/`)",
    "traefik.http.routers.chat.entrypoints": "web",
    "traefik.http.services.chat.loadbalancer.connectioncount.path": "/metric",
    "traefik.http.services.chat.loadbalancer.connectioncount.interval": "1s",
}


def replica(engine: Engine, backend: Backend, name: str, **labels: str) -> str:
    port = backend.url.rpartition(":")[2]
    given = {**CHAT, "traefik.http.services.chat.loadbalancer.server.port": port, **labels}
    return engine.start(name, given, ip="127.0.0.1")


@asynccontextmanager
async def over(tmp_path: Path, engine: Engine, **changes: Any) -> AsyncIterator[Daemon]:
    """Run the daemon over an Engine that is at ``docker.sock``, or is not."""
    docker = {"endpoint": f"unix://{tmp_path}/docker.sock", "exposedByDefault": False}
    entry_points = {
        "web": {"address": f"127.0.0.1:{(port := free_port())}"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
    }
    providers = {"docker": docker, "providersThrottleDuration": "1ms"}
    async with daemon(
        tmp_path, [], port=port, entryPoints=entry_points, providers=providers, http={}, **changes
    ) as running:
        yield running


def servers(document: dict[str, Any], service: str = "chat@docker") -> set[str]:
    return {each["url"] for each in document["backends"] if each["service"] == service}


def docker(document: dict[str, Any]) -> dict[str, Any]:
    (provider,) = document["configuration"]["providers"]
    found: dict[str, Any] = provider
    return found


async def test_replicas_come_and_go_and_sessions_stay(tmp_path: Path) -> None:
    engine = Engine()
    async with (
        backends(3) as (one, two, three),
        serve(engine, tmp_path / "docker.sock"),
        clients() as made,
    ):
        first = replica(engine, one, "chat-1")
        async with over(tmp_path, engine) as running:
            # The first connection already finds it: the start has waited for the Engine.
            session = await made.connect(f"{running.ws}/ws")
            await echo(session, "hello")
            replica(engine, two, "chat-2")
            late = replica(engine, three, "chat-3")
            engine.turn(late, "starting")
            await running.shows(
                lambda now: (
                    servers(now) == {one.url, two.url}
                    and docker(now)["containers"] == {"used": 2, "ignored": 1, "bad": 0}
                ),
            )
            engine.turn(late, "healthy")
            await running.shows(lambda now: servers(now) == {one.url, two.url, three.url})
            others = await made.connect_many(f"{running.ws}/ws", 5)
            document = await running.status()
            live = [each["live"] for each in document["backends"]]
            assert (sum(live), min(live) > 0) == (6, True)
            # The first one stops being offered; its sessions live as long as it does.
            engine.turn(first, "unhealthy")
            await running.shows(lambda now: servers(now) == {two.url, three.url})
            await echo(session, "still here")
            engine.stop(first)
            await running.logged("container left out", container="chat-1", reason="is unhealthy")
            for other in others:
                await echo(other, "too")
            assert running.log("session ended") == []


async def test_sessions_of_a_container_that_goes_are_drained(tmp_path: Path) -> None:
    engine = Engine()
    balancer = "traefik.http.services.chat.loadbalancer"
    wanted = {
        f"{balancer}.onremove": "drain",
        f"{balancer}.drain.rate": "20/s",
        f"{balancer}.drain.closecode": "1012",
    }
    async with (
        backends(2) as (one, two),
        serve(engine, tmp_path / "docker.sock"),
        clients() as made,
    ):
        leaving = replica(engine, one, "chat-1", **wanted)
        replica(engine, two, "chat-2", **wanted)
        async with over(tmp_path, engine) as running:
            sessions = await made.connect_many(f"{running.ws}/ws", 20)
            before = {each["url"]: each["live"] for each in (await running.status())["backends"]}
            there, elsewhere = before[one.url], before[two.url]
            assert there + elsewhere == 20
            assert min(there, elsewhere) > 5
            # It is told to go and goes on for a while, as a container with a stop signal does.
            engine.turn(leaving, "unhealthy")
            begun = await running.logged("drain begins", backend=one.url)
            assert (begun["service"], begun["sessions"]) == ("chat@docker", there)
            over_with = await running.logged("drained", backend=one.url)
            assert (over_with["ended"], over_with["cut"]) == (there, 0)
            closed = [each for each in sessions if each.closed]
            assert [each.closed.code for each in closed if each.closed is not None] == [1012] * there
            assert {line["cause"] for line in running.log("session ended")} == {"drain"}
            engine.stop(leaving)
            for each in sessions:
                if not each.closed:
                    await echo(each, "not disturbed")
            document = await running.status()
            assert servers(document) == {two.url}
            assert [each["live"] for each in document["backends"]] == [elsewhere]
            # Those that come again find the other one.
            again = await made.connect_many(f"{running.ws}/ws", 10)
            for each in again:
                await echo(each, "hello")


async def test_what_is_bad_is_shown_with_its_name(tmp_path: Path) -> None:
    engine = Engine()
    async with (
        backends(2) as (one, two),
        serve(engine, tmp_path / "docker.sock"),
        over(tmp_path, engine) as running,
        clients() as made,
    ):
        replica(engine, one, "chat-1")
        bad = replica(
            engine,
            two,
            "typo-1",
            **{"traefik.http.routers.other.rule": "Hots(`a`)", "traefik.http.routers.chat.rul": "x"},
        )
        document = await running.shows(lambda now: docker(now)["containers"]["bad"])
        assert servers(document) == {one.url}
        (shown,) = docker(document)["bad"]
        assert shown["name"] == "typo-1"
        problems = [
            'container "typo-1" traefik.http.routers.chat.rul: unknown key (did you mean "rule"?)',
            "container \"typo-1\" traefik.http.routers.other.rule: unknown matcher 'Hots' (did you mean Host?)",
        ]
        assert sorted(shown["problems"]) == problems
        assert {line["problem"] for line in running.log("configuration problem")} == set(problems)
        async with http_client() as client:
            admin = running.document["entryPoints"]["admin"]["address"]
            row = (await client.get(f"http://{admin}/api/http/routers/other@docker")).json()
            assert (row["status"], row["provider"]) == ("disabled", "docker")
            assert sorted(row["error"]) == problems
            page = (await client.get(f"http://{admin}/metrics")).text
            assert 'trio_wsb_docker_containers{state="bad"} 1' in page
            assert "trio_wsb_docker_engine_away 0" in page
            service = (await client.get(f"http://{admin}/api/http/services/chat@docker")).json()
            assert service["serverStatus"] == {one.url: "UP"}
        await echo(await made.connect(f"{running.ws}/ws"), "hello")
        # Once it is gone, so is what was said of it.
        engine.stop(bad)
        document = await running.shows(lambda now: not docker(now)["containers"]["bad"])
        assert [each["name"] for each in document["routers"]] == ["chat@docker"]
        await running.logged("container gone", container="typo-1")


async def test_an_engine_that_is_away(tmp_path: Path) -> None:
    engine = Engine()
    path = tmp_path / "docker.sock"
    async with backends(2) as (one, two), over(tmp_path, engine) as running, clients() as made:
        await running.shows(lambda now: docker(now)["state"] == "away")
        assert (
            docker(await running.status())["reason"]
            == "GET /version: cannot connect: No such file or directory"
        )
        replica(engine, one, "chat-1")
        async with serve(engine, path):
            running.running.signal(signal.SIGHUP)  # it would be tried again anyhow, later
            await running.shows(servers)
            session = await made.connect(f"{running.ws}/ws")
        document = await running.shows(lambda now: docker(now)["state"] == "away")
        assert servers(document) == {one.url}
        await echo(session, "hello")
        await echo(await made.connect(f"{running.ws}/ws"), "new")
        # A reload keeps what is known, and tries again.
        replica(engine, two, "chat-2")
        await running.reload(count=running.log("configuration reloaded")[-1]["reloads"] + 1)
        assert servers(await running.status()) == {one.url}
        async with serve(engine, path):
            running.running.signal(signal.SIGHUP)
            await running.shows(lambda now: servers(now) == {one.url, two.url})
            await echo(session, "still here")


async def test_files_and_containers_together(tmp_path: Path) -> None:
    engine = Engine()
    route = {"rule": "Host(`127.0.0.1`) && PathPrefix(`/`)", "service": "chat@docker", "entryPoints": ["web"]}
    async with (
        backends(1) as (one,),
        serve(engine, tmp_path / "docker.sock"),
        over(tmp_path, engine) as running,
        clients() as made,
    ):
        running.document["http"] = {
            "routers": {"mine": route},
            "middlewares": {"limit": {"inFlightReq": {"amount": 1}}},
        }
        running.write()
        await running.reload(count=1)
        (disabled,) = (await running.status())["routers"]
        assert disabled["status"] == "disabled"
        assert "the labels of a container define it" in disabled["error"][0]
        replica(engine, one, "chat-1", **{"traefik.http.routers.chat.middlewares": "limit@file"})
        document = await running.shows(lambda now: len(now["routers"]) == 2)
        assert {each["name"]: each["middlewares"] for each in document["routers"]} == {
            "mine": [],
            "chat@docker": ["limit"],
        }
        await echo(await made.connect(f"{running.ws}/ws"), "hello")
        # Without the provider nothing of it is left.
        del running.document["providers"]["docker"]
        running.write()
        running.running.signal(signal.SIGHUP)  # the next reload may be one for a container still
        document = await running.shows(lambda now: not now["configuration"]["providers"])
        assert servers(document) == set()
