"""Name servers that hang: no answer, no refusal, for as long as glibc waits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import backend, echo
from tests.daemon.waiting import eventually
from tests.faults.resolvconf import name_server
from tests.faults.stage import RELAYS, World, balancers, world
from trio_wsb.net.resolver import LOOKUP_TIMEOUT, SYSTEM_TTL

pytestmark = pytest.mark.daemon

QUICK = {"quick": {"forwardingTimeouts": {"dialTimeout": "500ms"}}}
DNS = {"minTTL": "1s", "maxTTL": "1s", "timeout": "1s"}


def port_of(url: str) -> str:
    return url.rpartition(":")[2]


async def names(found: World) -> dict[str, Any]:
    return {each["name"]: each for each in (await found.status())["names"]}


async def test_name_servers_hang(tmp_path: Path) -> None:
    """What is known stays in use, what is not known is passed over, one line says it, and an answer ends it."""
    async with (
        name_server(tmp_path, patience=3) as (server, under),
        backend(name="one") as one,
        backend(name="other") as other,
    ):
        for name in ("known.example", "pods.example", "late.example"):
            server.set(name, "A", "127.0.0.1")
        server.ttl = 1
        late = f"http://late.example:{port_of(one.url)}"
        services = {
            **balancers("known", [f"http://known.example:{port_of(one.url)}"]),
            **balancers("late", [late, other.url], serversTransport="quick"),
            "pods": {
                "loadBalancer": {
                    "servers": [{"url": f"http://pods.example:{port_of(one.url)}", "resolve": "all"}]
                }
            },
        }
        async with world(tmp_path, services, transports=QUICK, under=under, dns=DNS) as found:
            opened = [await found.connect(f"/{name}") for name in ("known-stream", "known-kernel", "pods")]
            assert (await names(found))["pods.example"]["problem"] is None
            server.silent = True
            line = await found.daemon.logged("name not resolved", name="pods.example")
            assert (line["reason"], line["endpoints"]) == ("A of pods.example: no answer within 1 s", 1)
            # Many more questions than would fit into the threads that a process shares.
            again = [await found.connect(f"/late-{relay}") for relay in RELAYS for _ in range(4)]
            assert set((await found.whereabouts(again)).values()) == {"other"}
            new = [await found.connect(f"/{name}") for name in ("known-stream", "pods")]
            assert set((await found.whereabouts(new)).values()) == {"one"}
            for session in opened:
                await echo(session, "not disturbed")
            await found.daemon.reload(count=1)
            await found.bystanders.go_on(50)
            status = await names(found)
            assert (status["pods.example"]["endpoints"], status["pods.example"]["problem"]) == (
                1,
                line["reason"],
            )
            assert len(found.logged("name not resolved")) == 1
            failed = found.logged("backend failed", backend=late)
            assert failed
            assert {each["reason"] for each in failed} == {"timeout: no answer about its name in time"}

            server.silent = False
            await found.daemon.logged("name resolves again", name="pods.example")
            await found.reaches(late, state="ready")

            async def reached() -> bool:
                session = await found.connect("/late-stream")
                return (await found.whereabouts([session]))[0] == "one"

            await eventually(reached, what="the name that was not known is used")
            assert len(found.logged("name resolves again")) == 1
            assert found.logged("session ended") == []


async def test_a_backend_moves(tmp_path: Path) -> None:
    """A client that is refused at the old address is enough to have the new one looked up, long before the old answer is old."""
    async with name_server(tmp_path, patience=3) as (server, under), backend(name="one") as one:
        server.set("moved.example", "A", "127.0.0.9")
        services = balancers("moved", [f"http://moved.example:{port_of(one.url)}"])
        async with world(tmp_path, services, under=under) as found:
            for relay in RELAYS:
                assert (await found.handshake(f"/moved-{relay}")).startswith(b"HTTP/1.1 502 ")
            server.set("moved.example", "A", "127.0.0.1")

            async def reached() -> bool:
                return (await found.handshake("/moved-stream")).startswith(b"HTTP/1.1 101 ")

            with trio.fail_after(SYSTEM_TTL / 3):
                await eventually(reached, what="the new address is used")
            session = await found.connect("/moved-kernel")
            assert await found.whereabouts([session]) == {0: "one"}


@pytest.mark.long
async def test_name_servers_hang_while_addresses_are_in_use(tmp_path: Path) -> None:
    """The system's answers hold for half a minute; no client waits for the next one, whether it comes or not."""
    async with name_server(tmp_path, patience=30) as (server, under), backend(name="one") as one:
        server.set("known.example", "A", "127.0.0.1")
        services = balancers("known", [f"http://known.example:{port_of(one.url)}"])
        async with world(tmp_path, services, under=under) as found:
            await found.connect("/known-stream")
            server.silent = True
            waits = []
            until = trio.current_time() + SYSTEM_TTL + 3 * LOOKUP_TIMEOUT
            while trio.current_time() < until:
                before = trio.current_time()
                session = await found.connect("/known-kernel")
                await echo(session, "hello")
                await session.aclose()
                waits.append(trio.current_time() - before)
                await trio.sleep(0.2)
            assert max(waits, default=math.inf) < 5.0
            [line] = found.logged("name not resolved, last addresses kept")
            assert (line["name"], line["reason"]) == (
                "known.example",
                f"no answer within {LOOKUP_TIMEOUT:g} s",
            )
            server.silent = False
            with trio.fail_after(60):
                while not found.logged("name resolved again"):
                    await found.bystanders.go_on(10)
            assert len(found.logged("name resolved again")) == 1
