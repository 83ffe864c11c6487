"""What passes with the opening handshake: subprotocols, header fields, the target, and refusals."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import Offer, Policy, RefusedError
from tests.interop.stage import every_client, exchange, stage

pytestmark = pytest.mark.daemon

REQUEST_FIELDS = (
    ("Origin", "https://app.example:8443"),
    ("Cookie", "session=abc; theme=dark"),
    ("Authorization", "Bearer a.b.c"),
    ("X-Tenant", "one"),
    ("X-Tenant", "two"),
    ("X-Empty", ""),
    ("X-Path", "/a b/%20/*"),
)
ANSWER_FIELDS = (
    ("Set-Cookie", "affinity=b2; Path=/; HttpOnly"),
    ("Set-Cookie", "seen=1"),
    ("X-Served-By", "peer 2"),
)

SPEAKING = Offer(
    path="/rooms/%C3%A9/7//x;y=1?token=s%20e&again=1&again=2&empty",
    subprotocols=("chat.v2", "chat.v1", "json"),
    headers=REQUEST_FIELDS,
)
LONG = Offer(
    path="/" + "long/" * 1400 + "?" + "q" * 500,
    headers=tuple((f"X-Field-{number}", str(number) * 100) for number in range(60)),
)


def values(fields: tuple[tuple[str, str], ...], name: str) -> list[str]:
    return [value for found, value in fields if found == name]


@every_client
async def test_what_both_sides_say_in_the_handshake_arrives(tmp_path: Path, client_name: str) -> None:
    policy = Policy(subprotocols=("chat.v1",), headers=ANSWER_FIELDS)
    async with stage(tmp_path, policy=policy) as on:
        for server_name in on.servers:
            for offer, agreed in ((SPEAKING, "chat.v1"), (LONG, None), (Offer(subprotocols=("mqtt",)), None)):
                client, server = await on.connect(client_name, server_name, offer)
                assert server.received.wire is not None
                assert server.received.wire.first_line == f"GET /{server_name}{offer.path} HTTP/1.1"
                assert server.field("host") == [f"127.0.0.1:{on.daemon.port}"]
                for name, _ in offer.headers:
                    assert server.field(name.lower()) == values(offer.headers, name)
                for name, _ in ANSWER_FIELDS:
                    assert client.field(name.lower()) == values(ANSWER_FIELDS, name)
                # The client's order stays: a server may take the first one that it knows.
                offered = ",".join(server.field("sec-websocket-protocol")).replace(" ", "")
                assert offered == ",".join(offer.subprotocols)
                assert client.subprotocol == server.subprotocol == agreed
                await exchange(client, server)
                await client.close(1000)
                await server.closed()


async def test_a_refusal_of_the_server_reaches_the_client_as_it_is(tmp_path: Path) -> None:
    async with stage(tmp_path, policy=Policy(refusal=403)) as on:
        for client_name, server_name in itertools.product(on.peers, on.servers):
            with trio.fail_after(PATIENCE), pytest.raises(RefusedError) as refused:
                await on.connect(client_name, server_name)
            assert (refused.value.status, refused.value.body) == (403, b"not today\n")
        assert on.daemon.log("session opened") == []
