"""permessage-deflate (RFC 7692) is negotiated end to end: the balancer passes the offer, the answer and the bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import Deflate, End, Message, Offer, Policy
from tests.interop.stage import Stage, check_counts, stage

pytestmark = pytest.mark.daemon

COMPRESSING = ("websockets", "wsproto")

PARAMETERS = [
    Deflate(),
    Deflate(server_no_context_takeover=True),
    Deflate(client_no_context_takeover=True),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
    Deflate(server_max_window_bits=10),
    Deflate(client_max_window_bits=9, server_max_window_bits=9),
    Deflate(server_no_context_takeover=True, server_max_window_bits=12, client_max_window_bits=11),
]

TEXT = "".join(f"the same again and again, with a number: {number}. " for number in range(1000))
NOISE = random.Random(7).randbytes(50_000)
MESSAGES: list[Message] = [TEXT, TEXT, "", b"", TEXT.encode(), NOISE, "once"]
TEXT_SENT = 5 * len(TEXT)


async def talk(sender: End, receiver: End) -> None:
    for message in MESSAGES:
        await sender.send(message)
        assert await receiver.receive() == message
    await sender.send_fragments([TEXT, "", TEXT[:1000], TEXT])
    assert await receiver.receive() == TEXT + TEXT[:1000] + TEXT
    await sender.ping(b"control frames are never compressed")


def check_agreement(client: End, wanted: Deflate) -> None:
    """The server's answer has what the client wanted."""
    (answer,) = client.field("sec-websocket-extensions")
    parameters = {part.strip() for part in answer.split(";")}
    assert "permessage-deflate" in parameters
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        assert (name in parameters) == getattr(wanted, name)
    for name in ("server_max_window_bits", "client_max_window_bits"):
        bits = getattr(wanted, name)
        assert bits is None or f"{name}={bits}" in parameters


@pytest.mark.usefixtures("both_relays")
@pytest.mark.parametrize("client_name", COMPRESSING)
async def test_compressed_sessions(tmp_path: Path, client_name: str) -> None:
    policy = Policy(deflate=Deflate())
    async with stage(tmp_path, *COMPRESSING, policy=policy) as on:
        for server_name in on.servers:
            for wanted in PARAMETERS:
                client, server = await on.connect(client_name, server_name, Offer(deflate=wanted))
                check_agreement(client, wanted)
                with trio.fail_after(PATIENCE):
                    await talk(client, server)
                    await talk(server, client)
                    await client.close(1000)
                    await server.closed()
                line = await on.record(client)
                check_counts(line, client, server)
                for size in (line["bytesIn"], line["bytesOut"]):
                    assert len(NOISE) < size < len(NOISE) + TEXT_SENT / 3

            await exchange_16_mib(on, client_name, server_name)


async def exchange_16_mib(on: Stage, client_name: str, server_name: str) -> None:
    message = TEXT * (16 * 2**20 // len(TEXT))
    client, server = await on.connect(client_name, server_name, Offer(deflate=Deflate()))
    with trio.fail_after(PATIENCE):
        await client.send(message)
        assert await server.receive() == message
        await server.send(message)
        assert await client.receive() == message
        await server.close(1000)
        await client.closed()
    line = await on.record(client)
    check_counts(line, client, server)
    assert line["bytesIn"] < len(message) / 4


@pytest.mark.parametrize(
    ("client_name", "server_names", "offered", "known"),
    [
        pytest.param("websockets", ("trio-websocket", "wsproto"), Deflate(), None, id="not-known"),
        pytest.param("trio-websocket", ("websockets", "wsproto"), None, Deflate(), id="not-offered"),
    ],
)
async def test_without_agreement_nothing_is_compressed(
    tmp_path: Path,
    client_name: str,
    server_names: tuple[str, ...],
    offered: Deflate | None,
    known: Deflate | None,
) -> None:
    async with stage(tmp_path, *server_names, policy=Policy(deflate=known)) as on:
        for server_name in on.servers:
            client, server = await on.connect(client_name, server_name, Offer(deflate=offered))
            assert client.field("sec-websocket-extensions") == []
            with trio.fail_after(PATIENCE):
                await client.send(TEXT)
                assert await server.receive() == TEXT
                await server.send(TEXT)
                assert await client.receive() == TEXT
                await client.close(1000)
                await server.closed()
            line = await on.record(client)
            check_counts(line, client, server)
            assert min(line["bytesIn"], line["bytesOut"]) > len(TEXT)
