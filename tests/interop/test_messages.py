"""Messages of every form, through the balancer, between libraries that know nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import End, Message
from tests.interop.peers.wsprotopeer import WsprotoEnd
from tests.interop.stage import RING, check_counts, every_client, exchange_large, stage

pytestmark = pytest.mark.daemon

MESSAGES: list[Message] = [
    "hello",
    "",
    b"",
    b"\x00\xff\x88\x02",
    "zwölf Boxkämpfer \U0001f94a",
    # The sizes at which the header grows (RFC 6455 section 5.2), and that of the relay's buffer.
    *(b"x" * size for size in (125, 126, 65535, 65536, 65537)),
    "ß" * 40_000,
]


async def send_and_compare(sender: End, receiver: End, messages: list[Message]) -> None:
    for message in messages:
        await sender.send(message)
        assert await receiver.receive() == message


async def converse(client: End, server: End) -> None:
    """Everything that a session may carry, both ways at the same time and one after the other."""
    for sender, receiver in ((client, server), (server, client)):
        await send_and_compare(sender, receiver, MESSAGES)
        fragments = [f"fragment {number} é;" for number in range(200)]
        await sender.send_fragments(fragments)
        assert await receiver.receive() == "".join(fragments)
        await sender.send_fragments([b"", b"one", b"", b"two", b""])
        assert await receiver.receive() == b"onetwo"
        await sender.ping(b"are you there?")
        await sender.ping(b"")
        await sender.ping(b"\xff" * 125)
        await sender.pong(b"a heartbeat that nobody asked for")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_compare, client, server, MESSAGES * 3)
        nursery.start_soon(send_and_compare, server, client, MESSAGES * 3)


@pytest.mark.usefixtures("both_relays")
@every_client
async def test_every_kind_of_message_passes_both_ways(tmp_path: Path, client_name: str) -> None:
    async with stage(tmp_path) as on:
        for server_name in on.servers:
            client, server = await on.connect(client_name, server_name)
            with trio.fail_after(PATIENCE):
                await converse(client, server)
                await client.close(1000)
                assert (await server.closed()).code == 1000
            line = await on.record(client)
            assert (line["cause"], line["closeCode"]) == ("client_closed", 1000)
            check_counts(line, client, server)
            for end in (client, server):
                if isinstance(end, WsprotoEnd):
                    assert end.pings == [b"are you there?", b"", b"\xff" * 125]
                    assert end.pongs.count(b"a heartbeat that nobody asked for") == 1


@pytest.mark.usefixtures("both_relays")
@pytest.mark.parametrize("client_name", ["websockets", "wsproto"])
async def test_pings_pass_between_the_fragments_of_a_message(tmp_path: Path, client_name: str) -> None:
    fragments = [bytes([number % 256]) * 997 for number in range(500)]
    whole = b"".join(fragments)

    async def ping(end: End) -> None:
        for number in range(30):
            await end.ping(f"ping {number}".encode())

    async with stage(tmp_path, "websockets", "wsproto") as on:
        for server_name in on.servers:
            client, server = await on.connect(client_name, server_name)
            with trio.fail_after(PATIENCE):
                for sender, receiver in ((client, server), (server, client)):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(sender.send_fragments, fragments)
                        nursery.start_soon(ping, sender)
                        nursery.start_soon(ping, receiver)
                        assert await receiver.receive() == whole
                await server.close(1000)
                await client.closed()
            check_counts(await on.record(client), client, server)


@pytest.mark.usefixtures("both_relays")
async def test_messages_of_16_mib_pass_both_ways_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        for client_name, server_name in RING:
            client, server = await on.connect(client_name, server_name)
            await exchange_large(client, server)
            check_counts(await on.record(client), client, server)
