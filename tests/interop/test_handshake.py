"""What passes with the opening handshake: subprotocols, header fields, the target, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import Offer, Policy, RefusedError
from tests.interop.stage import PAIRS, RING, exchange, pairs, stage

pytestmark = pytest.mark.daemon

REQUEST_FIELDS = (
    ("Origin", "https://app.example:8443"),
    ("Cookie", "session=abc; theme=dark"),
    ("Authorization", "Bearer a.b.c"),
    ("X-Tenant", "one"),
    ("X-Tenant", "two"),
    ("X-Empty", ""),
    ("X-Latin", "caf\xe9".encode().decode("latin-1")),
)
ANSWER_FIELDS = (
    ("Set-Cookie", "affinity=b2; Path=/; HttpOnly"),
    ("X-Served-By", "peer 2"),
)


@pairs(PAIRS)
async def test_what_both_sides_say_in_the_handshake_arrives(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    policy = Policy(subprotocols=("chat.v1",), headers=ANSWER_FIELDS)
    offer = Offer(
        path="/rooms/%C3%A9/7//x;y=1?token=s%20e&again=1&again=2&empty",
        subprotocols=("chat.v2", "chat.v1", "json"),
        headers=tuple(field for field in REQUEST_FIELDS if client_name != "trio-websocket" or field[1].isascii()),
    )
    async with stage(tmp_path, client_name, server_name, policy) as on:
        client, server = await on.connect(offer)
        assert server.received.wire is not None
        assert server.received.wire.first_line == f"GET {offer.path} HTTP/1.1"
        assert server.field("host") == [f"127.0.0.1:{on.daemon.port}"]
        for name in {name for name, _ in offer.headers}:
            assert server.field(name.lower()) == [value for found, value in offer.headers if found == name]
        for name in {name for name, _ in ANSWER_FIELDS}:
            assert client.field(name.lower()) == [value for found, value in ANSWER_FIELDS if found == name]
        # The client's order stays: servers may take the first that they know.
        offered = ",".join(server.field("sec-websocket-protocol")).replace(" ", "").split(",")
        assert offered == ["chat.v2", "chat.v1", "json"]
        assert client.subprotocol == server.subprotocol == "chat.v1"
        await exchange(client, server)
        await client.close(1000)


@pairs(RING)
async def test_no_subprotocol_in_common_is_a_session_without_one(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    async with stage(tmp_path, client_name, server_name, Policy(subprotocols=("mqtt",))) as on:
        client, server = await on.connect(Offer(subprotocols=("chat.v2",)))
        assert client.subprotocol is None
        assert server.subprotocol is None
        await exchange(client, server)
        await client.close(1000)


@pairs(RING)
async def test_long_paths_and_many_fields_pass(tmp_path: Path, client_name: str, server_name: str) -> None:
    offer = Offer(
        path="/" + "long/" * 1400 + "?" + "q" * 500,
        headers=tuple((f"X-Field-{number}", str(number) * 100) for number in range(60)),
    )
    async with stage(tmp_path, client_name, server_name) as on:
        client, server = await on.connect(offer)
        assert server.received.wire is not None
        assert server.received.wire.first_line == f"GET {offer.path} HTTP/1.1"
        for name, value in offer.headers:
            assert server.field(name.lower()) == [value]
        await exchange(client, server)
        await client.close(1000)


@pairs(RING)
async def test_a_refusal_of_the_server_reaches_the_client_as_it_is(
    tmp_path: Path, client_name: str, server_name: str
) -> None:
    async with stage(tmp_path, client_name, server_name, Policy(refusal=403)) as on:
        with trio.fail_after(PATIENCE), pytest.raises(RefusedError) as refused:
            await on.connect()
        assert (refused.value.status, refused.value.body) == (403, b"not today\n")
        assert on.daemon.log("session opened") == []
