"""The TLS stage of an arrival, over loopback and without a daemon: places, time and what is left behind."""

from __future__ import annotations

import socket
import ssl
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing
from attrs import evolve

from tests.net.pairs import descriptors, tcp_pair
from tests.net.test_clienthello import real_hello
from tests.tlsfiles import Authority
from trio_wsb.addresses import parse_ip
from trio_wsb.daemon.tlsarrival import secure
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.poller import watch
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.net.tls import TLSChannel, handshake, load_certificate
from trio_wsb.net.tlsserver import server_context
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy, Runtime
from trio_wsb.proxy.secure import Terms, TLSEntry
from trio_wsb.proxy.upstream import dial
from trio_wsb.routing.hosts import HostTable
from trio_wsb.routing.table import RouterTable

NAME = "front.test"
PEER = Peer(parse_ip("192.0.2.7"), "192.0.2.7:50000")
TERMS = Terms("default", None)
KEY = b"key"

Logs = Sequence[MutableMapping[str, Any]]


class Stage:
    """An entry point with TLS."""

    def __init__(self, folder: Path, *, places: int = 2) -> None:
        self.authority = Authority(folder)
        files = self.authority.issue("front", NAME)
        context = server_context()
        load_certificate(context, str(files.cert), str(files.key))
        self.tls = TLSEntry(
            terms=HostTable(),
            fallback=TERMS,
            certificates=HostTable([(NAME, KEY)]),
            default=KEY,
            contexts={(TERMS, KEY): context},
            max_handshakes=places,
        )
        self.entry = EntryPointRuntime(
            name="web",
            port=443,
            read_timeout=5,
            idle_timeout=5,
            max_connections=0,
            accept_grace=0,
            grace=0,
            policy=ForwardPolicy(),
            ping=False,
            ping_status_stopping=503,
            routers=RouterTable(()),
            tls=self.tls,
        )
        self.proxy = Proxy(Runtime({"web": self.entry}), dial=dial)

    async def arrive(self, sock: socket.socket, seconds: float = 5) -> tuple[object, Peer] | None:
        with trio.fail_after(10):
            deadline = trio.current_time() + seconds
            return await secure(self.proxy, self.entry, self.tls, sock, PEER, deadline)

    @property
    def counts(self) -> tuple[int, ...]:
        """Handshakes under way, completed, failed and refused."""
        found = self.proxy.handshakes
        totals = found.completed_total, found.failed_total, found.refused_total
        return (found.under_way["web"], *(each["web"] for each in totals))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def greet(client: socket.socket, context: ssl.SSLContext) -> None:
    (await handshake(client, context, NAME)).close()


async def test_a_client_that_speaks_tls(stage: Stage) -> None:
    client, server = await tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet, client, stage.authority.client())
        found = await stage.arrive(server)
    assert found is not None
    channel, peer = found
    assert isinstance(channel, TLSChannel)
    assert peer.scheme == "https"
    assert peer.secured is not None
    assert (peer.secured.terms, peer.secured.server_name, peer.secured.version) == (TERMS, NAME, "1.3")
    assert evolve(peer, secured=None) == PEER
    assert stage.counts == (0, 1, 0, 0)
    channel.close()


async def test_a_client_that_does_not(stage: Stage) -> None:
    client, server = await tcp_pair()
    with client:
        client.send(b"GET / HTTP/1.1\r\n")
        found = await stage.arrive(server)
        assert found is not None
        channel, peer = found
        assert isinstance(channel, SocketChannel)
        assert (peer, peer.scheme) == (PEER, "http")
        buffer = bytearray(3)
        assert channel.recv_into(buffer) == 3
        assert buffer == b"GET"
        channel.close()
    assert stage.counts == (0, 0, 0, 0)


async def test_no_place_in_time(stage: Stage) -> None:
    before = descriptors()
    places = stage.proxy.handshakes.places("web", 2)
    for who in ("one", "two"):
        places.acquire_on_behalf_of_nowait(who)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            client, server = await tcp_pair()
            with client:
                client.send(real_hello(NAME))
                assert await stage.arrive(server, 0.05) is None
    assert stage.counts == (0, 0, 0, 3)
    (line,) = logs
    assert line["event"] == "too many TLS handshakes at once, refusing connections"
    assert (line["maxTLSHandshakes"], line["refused"]) == (2, 1)
    assert places.borrowed_tokens == 2
    # With a place again the next one is served.
    places.release_on_behalf_of("one")
    client, server = await tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet, client, stage.authority.client())
        found = await stage.arrive(server)
    assert found is not None
    assert isinstance(found[0], TLSChannel)
    found[0].close()
    assert descriptors() == before


async def test_a_client_that_stalls_gives_its_place_up(stage: Stage) -> None:
    before = descriptors()
    client, server = await tcp_pair()
    with client, structlog.testing.capture_logs() as logs:
        client.send(real_hello(NAME))
        assert await stage.arrive(server, 0.2) is None
    assert stage.counts == (0, 0, 1, 0)
    assert told(logs) == [("TLS handshake failed", "the handshake was not complete in time")]
    assert stage.proxy.handshakes.places("web", 2).borrowed_tokens == 0
    assert descriptors() == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", None),
        (real_hello(NAME)[:50], "no complete ClientHello came in time"),
        (real_hello(NAME, ["h2"]), "the client does not offer http/1.1"),
        (b"\x16\x03\x01\xff\xff", "a malformed TLS record"),
    ],
    ids=["nothing", "cut", "h2", "malformed"],
)
async def test_what_is_counted_and_told(stage: Stage, data: bytes, reason: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        watch(other)  # what tells of all sockets has a descriptor of its own from now on
    before = descriptors()
    client, server = await tcp_pair()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_when_told, client)
            if data:
                client.send(data)
            assert await stage.arrive(server, 0.1) is None
    assert told(logs) == ([] if reason is None else [("TLS handshake failed", reason)])
    assert stage.counts == (0, 0, 0 if reason is None else 1, 0)
    assert descriptors() == before


async def leave_when_told(client: socket.socket) -> None:
    with client:
        await trio.lowlevel.wait_readable(client)


async def test_a_client_that_leaves_is_nobodys_failure(stage: Stage) -> None:
    client, server = await tcp_pair()
    client.close()
    assert await stage.arrive(server) is None
    assert stage.counts == (0, 0, 0, 0)


async def test_cancelled_anywhere_it_leaves_nothing(stage: Stage) -> None:
    before = descriptors()
    for data in (b"", real_hello(NAME)[:50], real_hello(NAME)):
        client, server = await tcp_pair()
        with client:
            client.send(data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.arrive, server)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
    assert descriptors() == before
    assert stage.counts[0] == 0
    assert stage.proxy.handshakes.places("web", 2).borrowed_tokens == 0


def told(logs: Logs) -> list[tuple[str, str]]:
    return [(line["event"], line["reason"]) for line in logs if line["log_level"] != "debug"]
