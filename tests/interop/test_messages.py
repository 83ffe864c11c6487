"""Messages of every form, through the balancer, between libraries that know nothing of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import End, Message
from tests.interop.peers.wsprotopeer import WsprotoEnd
from tests.interop.stage import PAIRS, RING, check_counts, pairs, stage

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


@pairs(PAIRS)
async def test_every_kind_of_message_passes_both_ways(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    async with stage(tmp_path, client_name, server_name) as on:
        with trio.fail_after(PATIENCE):
            client, server = await on.connect()
            await converse(client, server)
            # What came with no message to wait for has come when a later message has.
            await client.send("the end")
            assert await server.receive() == "the end"
            await client.close(1000)
            assert (await server.closed()).code == 1000
        line = await on.record(client)
        assert (line["cause"], line["closeCode"]) == ("client_closed", 1000)
        check_counts(line, client, server)
        for end in (client, server):
            if isinstance(end, WsprotoEnd):
                assert end.pings == [b"are you there?", b"", b"\xff" * 125]
                assert end.pongs.count(b"a heartbeat that nobody asked for") == 1


@pairs([("wsproto", "wsproto"), ("wsproto", "websockets"), ("websockets", "wsproto")])
async def test_pings_pass_between_the_fragments_of_a_message(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    async with stage(tmp_path, client_name, server_name) as on:
        client, server = await on.connect()
        fragments = [bytes([number % 256]) * 997 for number in range(1000)]

        async def ping(end: End, count: int) -> None:
            for number in range(count):
                await end.ping(f"ping {number}".encode())

        with trio.fail_after(PATIENCE):
            for sender, receiver in ((client, server), (server, client)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sender.send_fragments, fragments)
                    nursery.start_soon(ping, sender, 50)
                    nursery.start_soon(ping, receiver, 50)
                    assert await receiver.receive() == b"".join(fragments)
            await server.close(1000)
            await client.closed()
        check_counts(await on.record(client), client, server)


@pairs(RING)
async def test_messages_of_16_mib_pass_both_ways_at_once(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    up, down = (random.Random(seed).randbytes(16 * 2**20) for seed in (1, 2))
    async with stage(tmp_path, client_name, server_name) as on:
        client, server = await on.connect()
        received: dict[str, Message] = {}

        async def receive(name: str, end: End) -> None:
            received[name] = await end.receive()

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, up)
                nursery.start_soon(server.send, down)
                nursery.start_soon(receive, "up", server)
                nursery.start_soon(receive, "down", client)
            await client.close(1000)
            await server.closed()
        assert received["up"] == up
        assert received["down"] == down
        check_counts(await on.record(client), client, server)
