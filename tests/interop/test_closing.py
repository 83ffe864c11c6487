"""Every way in which a session ends: what the other end sees, and what the balancer records."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import LOST, NO_CODE, Closing
from tests.interop.peers.wsprotopeer import WsprotoEnd
from tests.interop.stage import Stage, check_counts, every_client, exchange, stage

pytestmark = pytest.mark.daemon

CLOSINGS = [
    Closing(1000),
    Closing(1001, "moving on"),
    Closing(1011, "something broke"),
    Closing(3000, "a library's own"),
    Closing(4999, "é" * 61 + "!"),  # with the code 125 bytes, as long as a control frame may be
    Closing(NO_CODE),
]


@pytest.mark.usefixtures("both_relays")
@every_client
async def test_every_way_in_which_a_session_ends(tmp_path: Path, client_name: str) -> None:
    async with stage(tmp_path) as on:
        for server_name in on.servers:
            for closing in CLOSINGS:
                await one_closes(on, client_name, server_name, closing, by_client=True)
                await one_closes(on, client_name, server_name, closing, by_client=False)
            for _ in range(3):
                await both_close(on, client_name, server_name)
            for reset in (False, True):
                await one_drops(on, client_name, server_name, by_client=True, reset=reset)
                await one_drops(on, client_name, server_name, by_client=False, reset=reset)


async def one_closes(
    on: Stage, client_name: str, server_name: str, closing: Closing, *, by_client: bool
) -> None:
    client, server = await on.connect(client_name, server_name)
    await exchange(client, server)
    closer, other = (client, server) if by_client else (server, client)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closer.close, closing.code, closing.reason)
            assert await other.closed() == closing
        # The echo brings the code back to who began.
        assert (await closer.closed()).code == closing.code
    line = await on.record(client)
    cause = "client_closed" if by_client else "backend_closed"
    assert (line["cause"], line["closeCode"]) == (cause, closing.code)
    check_counts(line, client, server)


async def both_close(on: Stage, client_name: str, server_name: str) -> None:
    client, server = await on.connect(client_name, server_name)
    await exchange(client, server)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.close, 3001, "the client")
            nursery.start_soon(server.close, 3002, "the server")
        await client.closed()
        await server.closed()
    line = await on.record(client)
    # Whose frame the balancer saw first is who closed.
    assert (line["cause"], line["closeCode"]) in {("client_closed", 3001), ("backend_closed", 3002)}
    check_counts(line, client, server)


async def one_drops(on: Stage, client_name: str, server_name: str, *, by_client: bool, reset: bool) -> None:
    client, server = await on.connect(client_name, server_name)
    await exchange(client, server)
    dropper, other = (client, server) if by_client else (server, client)
    with trio.fail_after(PATIENCE):
        await dropper.drop(reset=reset)
        assert (await other.closed()).code == LOST
    line = await on.record(client)
    assert (line["cause"], line["closeCode"]) == ("client_lost" if by_client else "backend_lost", None)
    check_counts(line, client, server)


async def test_tcp_left_open_after_the_closing_handshake_is_closed_for_the_peers(tmp_path: Path) -> None:
    """Peers that forget to close TCP do not keep a session alive (RFC 6455 section 7.1.1)."""
    async with stage(tmp_path, "wsproto") as on:

        async def hold(client: WsprotoEnd, server: WsprotoEnd, both: bool) -> None:
            client.holds_tcp, server.holds_tcp = True, both
            await client.send_close(4000, "goodbye")
            line = await on.record(client)
            assert (line["cause"], line["closeCode"]) == ("client_closed", 4000)
            check_counts(line, client, server)
            client.released.set()
            server.released.set()
            assert await client.closed() == await server.closed() == Closing(4000, "goodbye")

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for both in (False, True):
                    client, server = await on.connect("wsproto", "wsproto")
                    await exchange(client, server)
                    assert isinstance(client, WsprotoEnd)
                    assert isinstance(server, WsprotoEnd)
                    nursery.start_soon(hold, client, server, both)
