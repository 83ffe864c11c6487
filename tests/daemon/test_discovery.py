"""Backends that DNS names: the daemon, backends on addresses of their own, and a name server that says where they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import dns.rcode
import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.daemon.harness import (
    PATIENCE,
    Backend,
    Daemon,
    backend,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.providers.nameserver import FakeNameServer
from tests.tlsfiles import Authority

pytestmark = pytest.mark.daemon

NAME = "chat.internal"


@pytest.fixture
async def server() -> AsyncIterator[FakeNameServer]:
    async with FakeNameServer().running() as running:
        running.ttl = running.negative_ttl = 1
        yield running


@asynccontextmanager
async def pods(count: int, port: int, *options: str) -> AsyncIterator[list[Backend]]:
    """Run backends at one port of 127.0.0.1, 127.0.0.2 and so on."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                backend(*options, name=f"pod-{index}", port=port, host=f"127.0.0.{index}")
            )
            for index in range(1, count + 1)
        ]


def document(url: str, resolve: str = "all", **keys: Any) -> dict[str, Any]:
    balancer = {"servers": [{"url": url, "resolve": resolve}], **keys}
    return {
        "routers": {"chat": {"rule": "PathPrefix(`/`)", "service": "chat"}},
        "services": {"chat": {"loadBalancer": balancer}},
    }


def settings(server: FakeNameServer) -> dict[str, Any]:
    """Return what else the file says: a quick name server, and nothing that holds changes back."""
    return {
        "dns": {"nameservers": [str(server.address)], "minTTL": "1s", "timeout": "500ms"},
        "providers": {"providersThrottleDuration": "10ms"},
    }


def urls(found: dict[str, Any]) -> list[str]:
    return [each["url"] for each in found["backends"] if each["state"] == "ready"]


async def get(running: Daemon, **headers: str) -> httpx.Response:
    async with http_client() as client:
        return await client.get(f"{running.url}/request", headers=headers)


async def test_addresses_come_and_go_under_live_sessions(tmp_path: Path, server: FakeNameServer) -> None:
    port = free_port()
    server.set(NAME, "A", "127.0.0.1", "127.0.0.2")
    http = document(
        f"http://{NAME}:{port}",
        connectionCount={"path": "/metric", "interval": "200ms"},
        healthCheck={"path": "/api/health", "interval": "1s"},
    )
    async with (
        pods(3, port) as started,
        daemon(tmp_path, [], http=http, **settings(server)) as running,
        clients() as made,
    ):
        # The first answer was there before the first client.
        await made.connect_many(running.ws, 4)
        assert [(await each.stats())["sessions"] for each in started] == [2, 2, 0]
        found = await running.shows(lambda each: all(pod["podName"] for pod in each["backends"]))
        assert urls(found) == [each.url for each in started[:2]]
        assert [each["podName"] for each in found["backends"]] == ["pod-1", "pod-2"]
        assert {each["dnsName"] for each in found["backends"]} == {NAME}
        [name] = found["names"]
        assert (name["name"], name["endpoints"], name["problem"]) == (NAME, 2, None)

        # One goes and one comes: its sessions stay, new ones go to the others.
        server.set(NAME, "A", "127.0.0.2", "127.0.0.3")
        found = await running.shows(lambda each: urls(each) == [pod.url for pod in started[1:]])
        removed = [each for each in found["backends"] if each["state"] == "removed"]
        assert [(each["url"], each["live"], each["podName"]) for each in removed] == [
            (started[0].url, 2, "pod-1")
        ]
        for connection in made.connections:
            await echo(connection, "still here")
        await made.connect_many(running.ws, 4)
        assert [(await each.stats())["sessions"] for each in started] == [2, 3, 3]
        line = running.log("name resolved")[-1]
        assert (line["added"], line["removed"]) == (["127.0.0.3"], ["127.0.0.1"])

        # It comes back, and what it has is known.
        server.set(NAME, "A", "127.0.0.1", "127.0.0.2", "127.0.0.3")
        await running.shows(lambda each: len(urls(each)) == 3)
        await made.connect_many(running.ws, 1)
        assert [(await each.stats())["sessions"] for each in started] == [3, 3, 3]
        assert not running.log("configuration reloaded")
        opened = running.log("session opened")
        assert {line.get("podName") for line in opened[-4:]} >= {"pod-1"}


async def test_a_failing_name_server_keeps_the_last_answer(tmp_path: Path, server: FakeNameServer) -> None:
    port = free_port()
    server.set(NAME, "A", "127.0.0.1")
    async with (
        pods(1, port) as started,
        daemon(tmp_path, [], http=document(f"http://{NAME}:{port}"), **settings(server)) as running,
    ):
        server.rcode = dns.rcode.SERVFAIL
        line = await running.logged("name not resolved")
        assert line["reason"] == f"A of {NAME}: 127.0.0.1 port {server.address.port} answered SERVFAIL"
        found = await running.status()
        assert urls(found) == [started[0].url]
        assert found["names"][0]["problem"] == line["reason"]
        assert (await get(running)).status_code == 200
        # A reload forgets nothing either.
        await running.reload(count=1)
        assert (await get(running)).status_code == 200
        server.rcode = dns.rcode.NOERROR
        await running.logged("name resolves again")
        assert len(running.log("name not resolved")) == 1


async def test_without_an_answer_it_starts_and_says_why_nobody_is_there(
    tmp_path: Path, server: FakeNameServer
) -> None:
    port = free_port()
    http = document(f"http://{NAME}:{port}", passHostHeader=False)
    async with pods(1, port), daemon(tmp_path, [], http=http, **settings(server)) as running:
        answer = await get(running)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        line = await running.logged("no backend")
        assert line["reason"] == f"{NAME} is not resolved (the name does not exist)"
        assert (await running.status())["backends"] == []
        server.set(NAME, "A", "127.0.0.1")
        await running.shows(lambda found: len(urls(found)) == 1)
        answer = await get(running, Host="client.example")
        assert answer.status_code == 200
        # It is spoken to by its name, whatever the address.
        assert dict(answer.json()["headers"])["Host"] == f"{NAME}:{port}"


async def test_a_reload_to_a_name_leaves_no_gap(tmp_path: Path, server: FakeNameServer) -> None:
    port = free_port()
    server.set(NAME, "A", "127.0.0.1")
    async with (
        pods(1, port) as started,
        daemon(
            tmp_path, [], http=document("http://x", "all") | static(started), **settings(server)
        ) as running,
    ):
        running.document["http"] = document(f"http://{NAME}:{port}")
        running.write()
        await running.reload(count=1)
        assert (await get(running)).status_code == 200
        assert not running.log("no backend")


def static(started: list[Backend]) -> dict[str, Any]:
    servers = [{"url": each.url} for each in started]
    return {"services": {"chat": {"loadBalancer": {"servers": servers}}}}


async def test_service_records_with_ports_weights_and_one_that_stands_by(
    tmp_path: Path, server: FakeNameServer
) -> None:
    server.set("one.internal", "A", "127.0.0.1")
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(backend(name=f"pod-{index}")) for index in range(3)]
        records = [
            f"{priority} {weight} {each.port} one.internal."
            for (priority, weight), each in zip([(10, 3), (10, 1), (20, 1)], started, strict=True)
        ]
        server.set(f"_ws._tcp.{NAME}", "SRV", *records)
        http = document(f"http://_ws._tcp.{NAME}", "srv", passHostHeader=False)
        running = await stack.enter_async_context(daemon(tmp_path, [], http=http, **settings(server)))
        async with clients() as made:
            await made.connect_many(running.ws, 8)
            assert [(await each.stats())["sessions"] for each in started] == [6, 2, 0]
        found = await running.status()
        assert {each["url"]: (each["weight"], each["standby"]) for each in found["backends"]} == {
            started[0].url: (3, False),
            started[1].url: (1, False),
            started[2].url: (1, True),
        }
        assert dict((await get(running)).json()["headers"])["Host"].partition(":")[0] == NAME
        # When those that are preferred have gone, the one that stands by gets them.
        for each in started[:2]:
            each.running.process.kill()
            await each.running.exit()
        answer = await get(running)
        assert answer.status_code == 200
        assert running.log("no backend") == []


async def test_a_certificate_is_for_the_name(tmp_path: Path, server: FakeNameServer) -> None:
    port, authority = free_port(), Authority(tmp_path)
    files = authority.issue("chat", NAME)
    options = ("--certificate", str(files.cert), "--key", str(files.key))
    server.set(NAME, "A", "127.0.0.1")
    http = document(
        f"https://{NAME}:{port}",
        serversTransport="ours",
        connectionCount={"path": "/metric", "interval": "200ms"},
        healthCheck={"path": "/api/health", "interval": "200ms", "mode": "http"},
    )
    http["serversTransports"] = {"ours": {"rootCAs": [str(authority.file)]}}
    async with (
        backend(*options, name="pod-1", port=port, host="127.0.0.1"),
        daemon(tmp_path, [], http=http, **settings(server)) as running,
        clients() as made,
    ):
        await echo(await made.connect(running.ws), "over TLS")
        found = await running.shows(lambda each: each["backends"][0]["podName"] == "pod-1")
        await running.shows(lambda each: each["backends"][0]["health"]["up"] is True)
        assert found["backends"][0]["reportProblem"] is None


async def test_an_address_that_leaves_is_drained_where_the_service_says_so(
    tmp_path: Path, server: FakeNameServer
) -> None:
    port = free_port()
    server.set(NAME, "A", "127.0.0.1", "127.0.0.2")
    http = document(f"http://{NAME}:{port}", onRemove="drain", drain={"rate": "1000/s", "closeCode": 1012})
    async with (
        pods(2, port) as started,
        daemon(tmp_path, [], http=http, **settings(server)) as running,
        clients() as made,
    ):
        await made.connect_many(running.ws, 4)
        server.set(NAME, "A", "127.0.0.2")
        codes: list[int] = []

        async def wait_for_the_end(connection: WebSocketConnection) -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await connection.get_message()
            assert caught.value.reason is not None
            codes.append(caught.value.reason.code)
            if len(codes) == 2:
                nursery.cancel_scope.cancel()

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for connection in made.connections:
                    nursery.start_soon(wait_for_the_end, connection)
        assert codes == [1012, 1012]
        await running.logged("drain begins", backend=started[0].url)
