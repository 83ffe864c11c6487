"""Backends behind a network that swallows everything, and clients that vanish without a word."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE, backend
from tests.daemon.waiting import eventually
from tests.faults.netns import host
from tests.faults.servers import accept_session, server
from tests.faults.stage import RELAYS, balancers, world
from tests.opening import opening

pytestmark = pytest.mark.daemon

KERNEL_PATIENCE = 150.0
"""Seconds for a dead peer to be found by TCP: about a minute, and as much again for a busy machine."""


async def swallow(stream: trio.SocketStream) -> None:
    if await accept_session(stream):
        while await stream.receive_some():
            pass


async def test_a_backend_is_blackholed(tmp_path: Path) -> None:
    """Dials time out and go elsewhere; pings find out about its sessions; when it is back, so are its clients."""
    limits = {"pingInterval": "1s", "pongTimeout": "1s"}
    transports = {"quick": {"forwardingTimeouts": {"dialTimeout": "500ms"}}}
    with host() as there:
        async with server(swallow, there.listen()) as dark, backend(name="other") as other:
            services = balancers("chat", [dark.url, other.url], session=limits, serversTransport="quick")
            async with world(tmp_path, services, transports=transports) as found:
                opened = [await found.connect(f"/chat-{relay}") for relay in RELAYS for _ in range(4)]
                assert (await found.backend(dark.url))["live"] == 4
                there.silence()
                await found.reaches(dark.url, live=0)
                await eventually(
                    lambda: ended(found.logged("session ended", backend=dark.url), 4), what="four lines"
                )
                causes = {line["cause"] for line in found.logged("session ended", backend=dark.url)}
                assert causes == {"backend_ping_timeout"}
                again = [await found.connect(f"/chat-{relay}") for relay in RELAYS for _ in range(2)]
                assert set((await found.whereabouts(again)).values()) == {"other"}
                reason = "timeout: no connection in time"
                await found.daemon.logged("backend failed", backend=dark.url, reason=reason)
                assert (await found.backend(other.url))["failures"] == 0
                there.speak()
                await found.reaches(dark.url, state="ready")
                assert opened


async def ended(lines: list[dict[str, object]], count: int) -> bool:
    return len(lines) == count


@pytest.mark.long
@pytest.mark.parametrize("relay", RELAYS)
@pytest.mark.parametrize("talks", [False, True], ids=["idle", "sent-to"])
async def test_a_client_vanishes(tmp_path: Path, relay: str, talks: bool) -> None:
    """No ping is configured: TCP finds it, by keepalive where nothing is sent to it and by what is unacknowledged elsewhere."""

    async def chatters(stream: trio.SocketStream) -> None:
        if await accept_session(stream):
            while talks:
                await stream.send_all(b"\x81\x04tick")
                await trio.sleep(1)
            await trio.sleep_forever()

    with host() as there:
        async with (
            server(chatters) as behind,
            world(tmp_path, balancers("chat", [behind.url]), address="0.0.0.0") as found,
        ):
            client = there.connect(found.daemon.port)
            with client:
                client.sendall(opening(f"/chat-{relay}"))
                assert await trio.to_thread.run_sync(client.recv, 12) == b"HTTP/1.1 101"
                await found.daemon.logged("session opened", service=f"chat-{relay}")
                there.cut()
                with trio.fail_after(KERNEL_PATIENCE):
                    while not found.logged("session ended"):
                        await found.bystanders.go_on(50)
                [line] = found.logged("session ended")
                assert line["cause"] == "client_lost"
                assert line["duration"] < 100
                await found.reaches(behind.url, live=0)


@pytest.mark.long
@pytest.mark.parametrize("relay", RELAYS)
async def test_a_backend_vanishes_without_pings(tmp_path: Path, relay: str) -> None:
    with host() as there:
        async with (
            server(swallow, there.listen()) as dark,
            world(tmp_path, balancers("chat", [dark.url])) as found,
        ):
            with socket.create_connection(("127.0.0.1", found.daemon.port), timeout=PATIENCE) as client:
                client.sendall(opening(f"/chat-{relay}"))
                assert await trio.to_thread.run_sync(client.recv, 12) == b"HTTP/1.1 101"
                there.silence()
                with trio.fail_after(KERNEL_PATIENCE):
                    while not found.logged("session ended"):
                        await found.bystanders.go_on(50)
            [line] = found.logged("session ended")
            assert line["cause"] == "backend_lost"
            assert line["duration"] < 100
