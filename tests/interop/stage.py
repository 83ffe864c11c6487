"""One balancer as a process of its own, with a client of one library on one side and a server of another behind it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE, Daemon, daemon
from tests.interop.peers.endpoint import End, Offer, Peer, Policy, Server
from tests.interop.peers.triopeer import TrioPeer
from tests.interop.peers.websocketspeer import WebsocketsPeer
from tests.interop.peers.wsprotopeer import WsprotoPeer

PEERS: dict[str, Callable[[], AbstractAsyncContextManager[Peer]]] = {
    "websockets": WebsocketsPeer.open,
    "wsproto": WsprotoPeer.open,
    "trio-websocket": TrioPeer.open,
}

RING = list(zip(PEERS, [*list(PEERS)[1:], *list(PEERS)[:1]], strict=True))
"""Every library once as a client and once as a server."""

every_client = pytest.mark.parametrize("client_name", list(PEERS))
"""Run a test with each library as the client."""


class Stage:
    """The balancer between clients of every library and some servers, each of them behind a path of its own."""

    def __init__(self, running: Daemon, peers: dict[str, Peer], servers: dict[str, Server]) -> None:
        self.daemon = running
        self.peers = peers
        self.servers = servers

    async def connect(
        self, client_name: str, server_name: str, offer: Offer | None = None
    ) -> tuple[End, End]:
        """Open a session and return its two ends, the client's first. The offer's path is that below the server's."""
        offer = offer or Offer()
        with trio.fail_after(PATIENCE):
            url = f"{self.daemon.ws}/{server_name}{offer.path}"
            client = await self.peers[client_name].connect(url, offer)
            return client, await self.servers[server_name].accept()

    async def record(self, client: End) -> dict[str, Any]:
        """Return what the log says about the end of a client's session."""
        return await self.daemon.logged("session ended", client=client.address)


@asynccontextmanager
async def stage(
    tmp_path: Path,
    *server_names: str,
    policy: Policy | None = None,
    ssl_context: SSLContext | None = None,
    transport: dict[str, Any] | None = None,
) -> AsyncIterator[Stage]:
    """Set everything up, with servers of all libraries if none is named.

    `transport` is how the balancer connects to the servers, which speak TLS with an `ssl_context`.
    """
    async with AsyncExitStack() as stack:
        peers = {name: await stack.enter_async_context(open_peer()) for name, open_peer in PEERS.items()}
        servers = {
            name: await stack.enter_async_context(peers[name].serve(policy or Policy(), ssl_context))
            for name in server_names or PEERS
        }
        http = services({f"/{name}": [server.url] for name, server in servers.items()}, transport=transport)
        yield Stage(await stack.enter_async_context(daemon(tmp_path, [], http=http)), peers, servers)


def services(
    urls: dict[str, list[str]],
    *,
    transport: dict[str, Any] | None = None,
    count: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `http` block for services by their paths, each with its URLs."""
    http: dict[str, Any] = {"routers": {}, "services": {}}
    for path, own in urls.items():
        name = path.strip("/") or "root"
        http["routers"][name] = {"rule": f"PathPrefix(`{path}`)", "service": name}
        http["services"][name] = {"loadBalancer": {"servers": [{"url": url} for url in own]}}
    for service in http["services"].values():
        if count is not None:
            service["loadBalancer"]["connectionCount"] = count
        if transport is not None:
            service["loadBalancer"]["serversTransport"] = "backends"
    if transport is not None:
        http["serversTransports"] = {"backends": transport}
    return http


async def exchange(client: End, server: End) -> None:
    """Send a message each way, which shows that the session lives."""
    with trio.fail_after(PATIENCE):
        await client.send("to the server")
        assert await server.receive() == "to the server"
        await server.send(b"to the client")
        assert await client.receive() == b"to the client"


async def exchange_large(client: End, server: End) -> None:
    """Send 16 MiB in one message each way at the same time, and close."""
    up, down = (random.Random(seed).randbytes(16 * 2**20) for seed in (1, 2))

    async def receive(end: End, expected: bytes) -> None:
        assert await end.receive() == expected

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, up)
            nursery.start_soon(server.send, down)
            nursery.start_soon(receive, server, up)
            nursery.start_soon(receive, client, down)
        await client.close(1000)
        await server.closed()


def check_counts(line: dict[str, Any], client: End, server: End) -> None:
    """The balancer counted what both ends did."""
    assert line["messagesIn"] == client.sent.messages == server.received.messages
    assert line["messagesOut"] == server.sent.messages == client.received.messages
    for counted, traffics in (
        (line["bytesIn"], (client.sent, server.received)),
        (line["bytesOut"], (server.sent, client.received)),
    ):
        known = [traffic.wire.bytes for traffic in traffics if traffic.wire is not None]
        assert known == [counted] * len(known)
        assert known
