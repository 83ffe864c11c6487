"""Backends that speak TLS: wss and https, certificates that are trusted or not, large messages."""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.daemon.harness import PATIENCE, Daemon, daemon, http_client
from tests.daemon.waiting import eventually
from tests.interop.peers.endpoint import LOST, End, Offer, RefusedError
from tests.interop.peers.websocketspeer import WebsocketsPeer
from tests.interop.peers.wsprotopeer import WsprotoEnd
from tests.interop.stage import (
    RING,
    Stage,
    check_counts,
    exchange,
    exchange_large,
    services,
    stage,
)
from trio_wsb.addresses import ListenAddress
from trio_wsb.demo.backend import Behaviour, DemoBackend

pytestmark = pytest.mark.daemon

FOREIGN = 7
"""Connections that the backend reports beside our own."""


class Authority:
    """A certificate authority that nobody knows, and servers certified by it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def identify(self, name: str, cert: Path, key: Path) -> None:
        """Certify a client, in two files."""
        issued = self._authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(key))
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def server(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def tls_backend(context: ssl.SSLContext) -> AsyncIterator[tuple[DemoBackend, str]]:
    backend = DemoBackend(Behaviour(foreign=FOREIGN))
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(
            lambda task_status: backend.serve(
                ListenAddress("127.0.0.1", 0), ssl_context=context, task_status=task_status
            )
        )
        yield backend, url
        nursery.cancel_scope.cancel()


async def try_session(running: Daemon) -> str:
    """Return what a client's message comes back as, through a session of its own."""
    async with WebsocketsPeer.open() as peer:
        with trio.fail_after(PATIENCE):
            client = await peer.connect(f"{running.ws}/", Offer())
            await client.send("over TLS")
            echo = await client.receive()
            await client.close(1000)
        assert isinstance(echo, str)
        return echo


async def check_that_it_works(running: Daemon, backend: DemoBackend) -> None:
    """Sessions, plain requests and count requests reach the backend."""
    assert await try_session(running) == "over TLS"
    async with http_client() as client:
        answer = await client.get(f"{running.url}/api/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        # The foreign connections that only a report can tell.
        await eventually(partial(connections, client, running), lambda count: count >= FOREIGN)
    assert backend.metric_requests >= 1
    assert running.log("no fresh report") == []
    assert running.log("backend failed") == []


async def connections(client: httpx.AsyncClient, running: Daemon) -> int:
    total: int = (await client.get(f"{running.url}/balancer-metrics")).json()["totalConnections"]
    return total


def long_form(url: str, **transport: Any) -> dict[str, Any]:
    return services({"/": [url]}, transport=transport, count={"path": "/metric", "interval": "0.5s"})


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_the_authority_of_the_transport_is_trusted(
    tmp_path: Path, authority: Authority, scheme: str
) -> None:
    async with tls_backend(authority.server()) as (backend, url):
        http = long_form(url.replace("https", scheme), rootCAs=[str(authority.file)])
        async with daemon(tmp_path, [], http=http) as running:
            await check_that_it_works(running, backend)


async def test_verification_switched_off_counts_for_sessions_and_count_requests(
    tmp_path: Path, authority: Authority
) -> None:
    async with (
        tls_backend(authority.server("another.example")) as (backend, url),
        daemon(tmp_path, [url], tlsVerify=False) as running,
    ):
        await check_that_it_works(running, backend)


async def test_a_backend_that_wants_a_certificate_gets_the_renewed_one_after_a_reload(
    tmp_path: Path, authority: Authority
) -> None:
    context = authority.server()
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    stranger = Authority(tmp_path / "elsewhere")
    stranger.identify("client.example", cert, key)
    async with tls_backend(context) as (backend, url):
        transport = {"certFile": str(cert), "keyFile": str(key)}
        http = long_form(
            url, rootCAs=[str(authority.file)], certificates=[transport], minVersion="VersionTLS13"
        )
        async with daemon(tmp_path, [], http=http) as running:
            with pytest.raises(RefusedError):
                await try_session(running)
            authority.identify("client.example", cert, key)
            await running.reload(count=1)
            assert await try_session(running) == "over TLS"
            assert backend.accepted == 1
            key.write_text("half a key")
            running.running.signal(signal.SIGHUP)
            line = await running.logged("configuration problem")
            assert "certificates: cannot be used: " in line["problem"]
            assert await try_session(running) == "over TLS"


async def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    async with (
        tls_backend(authority.server()) as (backend, url),
        daemon(tmp_path, [url], tlsVerify=True) as running,
    ):
        with pytest.raises(RefusedError) as refused:
            await try_session(running)
        assert refused.value.status == 502
        line = await running.logged("backend failed")
        assert line["backend"] == url
        assert line["reason"].startswith("tls: the certificate is not trusted: ")
        line = await running.logged("no fresh report", backend=url)
        assert "certificate" in line["reason"]
        async with http_client() as client:
            assert (await client.get(f"{running.url}/api/health")).status_code == 502
        assert (backend.accepted, backend.metric_requests) == (0, 0)


async def test_the_name_in_the_certificate_must_be_the_expected_one(
    tmp_path: Path, authority: Authority
) -> None:
    async with tls_backend(authority.server("backend.example")) as (backend, url):
        http = long_form(url, rootCAs=[str(authority.file)])
        async with daemon(tmp_path, [], http=http) as running:
            with pytest.raises(RefusedError) as refused:
                await try_session(running)
            assert refused.value.status == 502
            line = await running.logged("backend failed")
            assert "127.0.0.1" in line["reason"]
            assert backend.accepted == 0
        http = long_form(url, rootCAs=[str(authority.file)], serverName="backend.example")
        async with daemon(tmp_path, [], http=http) as running:
            await check_that_it_works(running, backend)


async def test_a_plain_server_where_tls_is_expected_is_a_502(tmp_path: Path) -> None:
    backend = DemoBackend()
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(backend.serve, ListenAddress("127.0.0.1", 0))
        async with daemon(tmp_path, [], http=services({"/": [url.replace("http", "https")]})) as running:
            with pytest.raises(RefusedError) as refused:
                await try_session(running)
            assert refused.value.status == 502
            line = await running.logged("backend failed")
            assert line["reason"].startswith("tls: ")
        nursery.cancel_scope.cancel()


async def test_sessions_over_tls(tmp_path: Path, authority: Authority) -> None:
    async with tls_stage(tmp_path, authority) as on:
        for client_name, server_name in RING:
            client, server = await on.connect(client_name, server_name)
            await exchange_large(client, server)
            line = await on.record(client)
            assert (line["cause"], line["closeCode"]) == ("client_closed", 1000)
            check_counts(line, client, server)
            await server_closes(on, client_name, server_name)
            await one_drops(on, client_name, server_name, by_client=True)
            await one_drops(on, client_name, server_name, by_client=False)


async def server_closes(on: Stage, client_name: str, server_name: str) -> None:
    client, server = await on.connect(client_name, server_name)
    await exchange(client, server)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.close, 4001, "enough")
            assert (await client.closed()).code == 4001
    line = await on.record(client)
    assert (line["cause"], line["closeCode"]) == ("backend_closed", 4001)
    check_counts(line, client, server)


async def one_drops(on: Stage, client_name: str, server_name: str, *, by_client: bool) -> None:
    client, server = await on.connect(client_name, server_name)
    await exchange(client, server)
    dropper, other = (client, server) if by_client else (server, client)
    with trio.fail_after(PATIENCE):
        await dropper.drop(reset=False)
        assert (await other.closed()).code == LOST
    line = await on.record(client)
    assert line["cause"] == ("client_lost" if by_client else "backend_lost")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_nothing_is_lost_when_an_end_leaves_right_behind_its_close(
    tmp_path: Path, authority: Authority, tls: bool
) -> None:
    async with tls_stage(tmp_path, authority) if tls else stage(tmp_path) as on:
        for name in on.peers:
            client, server = await on.connect("wsproto", name)
            await check_departure(client, server)
            line = await on.record(client)
            assert (line["cause"], line["closeCode"]) == ("client_closed", 4002)
            client, server = await on.connect(name, "wsproto")
            await check_departure(server, client)
            line = await on.record(client)
            assert (line["cause"], line["closeCode"]) == ("backend_closed", 4002)


def tls_stage(tmp_path: Path, authority: Authority) -> AbstractAsyncContextManager[Stage]:
    transport = {"rootCAs": [str(authority.file)]}
    return stage(tmp_path, ssl_context=authority.server(), transport=transport)


async def check_departure(leaver: End, other: End) -> None:
    assert isinstance(leaver, WsprotoEnd)
    message = bytes(8 * 2**20)

    async def leave() -> None:
        await leaver.send(message)
        await leaver.leave(4002)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await other.receive() == message
            assert (await other.closed()).code == 4002
