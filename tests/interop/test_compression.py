"""permessage-deflate (RFC 7692) is negotiated end to end: the balancer passes the offer, the answer and the bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import Deflate, Message, Offer, Policy
from tests.interop.stage import check_counts, pairs, stage

pytestmark = pytest.mark.daemon

COMPRESSING = [
    (client, server) for client in ("websockets", "wsproto") for server in ("websockets", "wsproto")
]

PARAMETERS = [
    Deflate(),
    Deflate(server_no_context_takeover=True),
    Deflate(client_no_context_takeover=True),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
    Deflate(server_max_window_bits=10),
    Deflate(client_max_window_bits=9, server_max_window_bits=9),
    Deflate(server_no_context_takeover=True, server_max_window_bits=12, client_max_window_bits=11),
]

TEXT = "".join(f"the same again and again, with a number: {number}. " for number in range(2000))
MESSAGES: list[Message] = [TEXT, TEXT, "", b"", TEXT.encode(), random.Random(7).randbytes(100_000), "once"]


@pairs(COMPRESSING)
async def test_compressed_sessions(tmp_path: Path, client_name: str, server_name: str) -> None:
    async with stage(tmp_path, client_name, server_name, Policy(deflate=Deflate())) as on:
        for deflate in PARAMETERS:
            client, server = await on.connect(Offer(deflate=deflate))
            (agreed,) = client.field("sec-websocket-extensions")
            parameters = {part.strip() for part in agreed.split(";")}
            assert "permessage-deflate" in parameters
            for name in ("server_no_context_takeover", "client_no_context_takeover"):
                assert (name in parameters) == getattr(deflate, name)
            for name in ("server_max_window_bits", "client_max_window_bits"):
                bits = getattr(deflate, name)
                assert bits is None or f"{name}={bits}" in parameters
            with trio.fail_after(PATIENCE):
                for sender, receiver in ((client, server), (server, client)):
                    for message in MESSAGES:
                        await sender.send(message)
                        assert await receiver.receive() == message
                    await sender.send_fragments([TEXT, "", TEXT[:1000], TEXT])
                    assert await receiver.receive() == TEXT + TEXT[:1000] + TEXT
                    await sender.ping(b"not compressed")
                await client.close(1000)
                await server.closed()
            line = await on.record(client)
            check_counts(line, client, server)
            plain = 5 * len(TEXT)
            assert 100_000 < line["bytesIn"] < 100_000 + plain / 4
            assert 100_000 < line["bytesOut"] < 100_000 + plain / 4


@pairs(COMPRESSING)
async def test_a_message_that_compresses_to_a_hundredth_stays_what_it_was(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    message = TEXT * 170  # about 16 MiB
    async with stage(tmp_path, client_name, server_name, Policy(deflate=Deflate())) as on:
        client, server = await on.connect(Offer(deflate=Deflate()))
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


@pairs(
    [
        ("websockets", "trio-websocket"),  # the server has no extensions
        ("trio-websocket", "websockets"),  # the client offers none
        ("websockets", "wsproto"),
        ("wsproto", "websockets"),
    ]
)
async def test_without_agreement_nothing_is_compressed(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    offers, answers = client_name != "trio-websocket", server_name == "websockets" == client_name
    policy = Policy(deflate=Deflate() if client_name == "trio-websocket" or answers else None)
    async with stage(tmp_path, client_name, server_name, policy) as on:
        client, server = await on.connect(Offer(deflate=Deflate() if offers else None))
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
