"""One balancer as a process of its own, with a client of one library on one side and a server of another behind it."""

from __future__ import annotations

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

PAIRS = [(client, server) for client in PEERS for server in PEERS]
"""Every client with every server."""

RING = list(zip(PEERS, [*list(PEERS)[1:], *list(PEERS)[:1]], strict=True))
"""Every library once as a client and once as a server."""


def pairs(names: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """Run a test with these clients and servers."""
    return pytest.mark.parametrize(
        ("client_name", "server_name"), names, ids=[f"{client}-to-{server}" for client, server in names]
    )


class Stage:
    """The balancer between one kind of client and one server."""

    def __init__(self, running: Daemon, peer: Peer, server: Server) -> None:
        self.daemon = running
        self.peer = peer
        self.server = server

    async def connect(self, offer: Offer | None = None) -> tuple[End, End]:
        """Open a session and return its two ends, the client's first."""
        offer = offer or Offer()
        with trio.fail_after(PATIENCE):
            client = await self.peer.connect(self.daemon.ws + offer.path, offer)
            return client, await self.server.accept()

    async def record(self, client: End) -> dict[str, Any]:
        """Return what the log says about the end of a client's session."""
        return await self.daemon.logged("session ended", client=client.address)


@asynccontextmanager
async def stage(
    tmp_path: Path,
    client_name: str,
    server_name: str,
    policy: Policy | None = None,
    *,
    ssl_context: SSLContext | None = None,
    transport: dict[str, Any] | None = None,
) -> AsyncIterator[Stage]:
    """Set everything up; `transport` is how the balancer connects to the server."""
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(PEERS[client_name]())
        other = await stack.enter_async_context(PEERS[server_name]())
        server = await stack.enter_async_context(other.serve(policy or Policy(), ssl_context))
        http = one_service(server.url, transport=transport)
        running = await stack.enter_async_context(daemon(tmp_path, [], http=http))
        yield Stage(running, peer, server)


def one_service(
    *urls: str, transport: dict[str, Any] | None = None, count: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the `http` block for one service behind one router."""
    balancer: dict[str, Any] = {"servers": [{"url": url} for url in urls]}
    http: dict[str, Any] = {
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "peers"}},
        "services": {"peers": {"loadBalancer": balancer}},
    }
    if count is not None:
        balancer["connectionCount"] = count
    if transport is not None:
        balancer["serversTransport"] = "backends"
        http["serversTransports"] = {"backends": transport}
    return http


async def exchange(client: End, server: End) -> None:
    """Send a message each way, which shows that the session lives."""
    with trio.fail_after(PATIENCE):
        await client.send("to the server")
        assert await server.receive() == "to the server"
        await server.send(b"to the client")
        assert await client.receive() == b"to the client"


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
