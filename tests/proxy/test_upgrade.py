"""The upgrade when it succeeds: what passes, in which order. In memory, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import (
    ACCEPT,
    SWITCH,
    SWITCHED,
    Client,
    End,
    answering,
    echo,
    field_of,
    get,
    handshake,
    staged,
)
from tests.proxy.world import close_frame, frame
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.client import EARLY_LIMIT


async def test_a_session_from_the_handshake_to_its_end(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(echo) as stage:
        client = await stage.open_session()
        assert stage.counts == [(1, 0)]
        sent = frame(b"hello", mask=True) + close_frame(1000, mask=True)
        await client.send(sent)
        assert await client.exactly(len(sent)) == sent
        client.close()
        await client.done.wait()
        assert stage.counts == [(0, 0)]
        assert stage.causes == {Cause.CLIENT_CLOSED: 1}
        assert [entry["event"] for entry in stage.logs] == ["session opened", "session ended"]
        opened, ended = stage.logs
        assert opened["backend"] == "http://b1:8080"
        assert opened["client"] == "192.0.2.7:50000"
        assert (ended["cause"], ended["closeCode"], ended["messagesIn"]) == ("client_closed", 1000, 1)


async def test_the_handshake_passes_end_to_end(autojump_clock: trio.testing.MockClock) -> None:
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())
        extra = (
            b"Sec-WebSocket-Protocol: mqtt\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
            b"X-Served-By: pod-1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\n\r\n"
        )
        await end.send(SWITCH.removesuffix(b"\r\n") + extra)
        await end.rest()

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(
            handshake(
                "Origin: https://chat.example",
                "Sec-WebSocket-Protocol: stomp, mqtt",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-test",
                "Cookie: session=1; other=2",
                "Authorization: Bearer token",
                "X-Custom: kept as it is",
                path="/chat/room?token=a%20b",
            )
        )
        answer = await client.head()
        head = heads[0]
        assert head.startswith(b"GET /chat/room?token=a%20b HTTP/1.1\r\n")
        for line in (
            b"Host: chat.example",
            b"Origin: https://chat.example",
            b"Sec-WebSocket-Protocol: stomp, mqtt",
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-test",
            b"Cookie: session=1; other=2",
            b"Authorization: Bearer token",
            b"X-Custom: kept as it is",
            b"Sec-WebSocket-Version: 13",
        ):
            assert b"\r\n" + line + b"\r\n" in head
        assert field_of(head, "Connection") == ["Upgrade"]
        assert field_of(head, "Upgrade") == ["websocket"]
        assert field_of(answer, "Sec-WebSocket-Accept") == [ACCEPT]
        assert field_of(answer, "Sec-WebSocket-Protocol") == ["mqtt"]
        extensions = "permessage-deflate; server_no_context_takeover"
        assert field_of(answer, "Sec-WebSocket-Extensions") == [extensions]
        assert field_of(answer, "X-Served-By") == ["pod-1"]
        assert field_of(answer, "Set-Cookie") == ["a=1", "b=2"]
        assert field_of(answer, "Connection") == ["Upgrade"]
        assert field_of(answer, "Keep-Alive") == []


async def head_at_backend(*lines: str, trusted: tuple[str, ...] = (), peer: str = "192.0.2.7") -> bytes:
    """Return the handshake as the backend sees it."""
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())

    async with staged(backend, trusted=trusted, server_name="edge-1") as stage:
        client = stage.connect(peer)
        await client.send(handshake(*lines))
        await client.rest()
    return heads[0]


async def test_the_client_is_described_to_the_backend(autojump_clock: trio.testing.MockClock) -> None:
    head = await head_at_backend()
    assert field_of(head, "X-Forwarded-For") == ["192.0.2.7"]
    assert field_of(head, "X-Real-Ip") == ["192.0.2.7"]
    assert field_of(head, "X-Forwarded-Proto") == ["ws"]
    assert field_of(head, "X-Forwarded-Host") == ["chat.example"]
    assert field_of(head, "X-Forwarded-Port") == ["80"]
    assert field_of(head, "X-Forwarded-Server") == ["edge-1"]


async def test_what_a_stranger_says_about_itself_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    head = await head_at_backend(
        "X-Forwarded-For: 10.0.0.1",
        "X_Forwarded_For: 10.0.0.2",
        "X-Forwarded-Proto: wss",
        "X-Real-Ip: 10.0.0.3",
        "Forwarded: for=10.0.0.4",
    )
    assert field_of(head, "X-Forwarded-For") == ["192.0.2.7"]
    assert field_of(head, "X-Forwarded-Proto") == ["ws"]
    assert field_of(head, "X-Real-Ip") == ["192.0.2.7"]
    assert b"10.0.0." not in head


async def test_what_a_trusted_peer_says_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    lines = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: wss")
    head = await head_at_backend(*lines, trusted=("192.0.2.0/24",))
    assert field_of(head, "X-Forwarded-For") == ["203.0.113.9, 192.0.2.7"]
    assert field_of(head, "X-Forwarded-Proto") == ["wss"]
    assert field_of(head, "X-Real-Ip") == ["203.0.113.9"]


async def test_what_connection_nominates_is_stripped_but_not_ours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    nominating = handshake("X-Hop: secret", "X-End: kept").replace(
        b"Connection: Upgrade", b"Connection: upgrade, X-Hop, X-Forwarded-For, Host"
    )
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())

    async with staged(backend) as stage:
        await stage.ask(nominating)
    assert b"secret" not in heads[0]
    assert field_of(heads[0], "X-End") == ["kept"]
    assert field_of(heads[0], "Host") == ["chat.example"]
    assert field_of(heads[0], "X-Forwarded-For") == ["192.0.2.7"]


async def test_the_backends_own_host_when_the_clients_does_not_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())

    async with staged(backend, pass_host_header=False) as stage:
        await stage.ask(handshake())
    assert field_of(heads[0], "Host") == ["b1:8080"]
    assert field_of(heads[0], "X-Forwarded-Host") == ["chat.example"]


# Early bytes.


async def test_what_the_client_pipelines_reaches_the_backend_after_its_101(
    autojump_clock: trio.testing.MockClock,
) -> None:
    early = [frame(bytes([65 + n]) * 500, mask=True) for n in range(4)]
    before: list[bytes] = []

    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(5)
        before.append(end.now())
        await end.send(SWITCH)
        assert await end.exactly(len(b"".join(early))) == b"".join(early)
        await end.send(frame(b"got them"))
        await end.rest()

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(handshake() + early[0] + early[1][:7])
        await trio.sleep(1)  # the rest comes in while the backend still thinks
        await client.send(early[1][7:] + early[2])
        await trio.sleep(1)
        await client.send(early[3])
        assert await client.head() == SWITCHED
        assert await client.exactly(10) == frame(b"got them")
        assert before == [b""]
        [session] = stage.proxy.sessions
        assert session.relay.up.scanner.messages == 4


async def test_early_bytes_are_held_to_a_limit_and_none_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    early = frame(bytes(3 * EARLY_LIMIT), mask=True)

    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(5)
        await end.send(SWITCH)
        await end.send(await end.exactly(len(early)))
        await end.rest()

    sent = 0

    async def send(client: Client) -> None:
        nonlocal sent
        await client.send(handshake())
        for at in range(0, len(early), 100):
            await client.send(early[at : at + 100])
            sent += 100

    async with staged(backend, capacity=1000) as stage, trio.open_nursery() as nursery:
        client = stage.connect()
        nursery.start_soon(send, client)
        await trio.sleep(4)
        assert EARLY_LIMIT <= sent <= EARLY_LIMIT + 1000
        assert await client.head() == SWITCHED
        assert await client.exactly(len(early)) == early


async def test_what_the_backend_sends_with_its_101_follows_it(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(answering(SWITCH + frame(b"welcome"), until_closed=True)) as stage:
        client = stage.connect()
        await client.send(handshake())
        assert await client.exactly(len(SWITCHED) + 9) == SWITCHED + frame(b"welcome")


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]
)
async def test_interim_answers_are_passed_over(
    interim: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(answering(interim * 2 + SWITCH, until_closed=True)) as stage:
        client = stage.connect()
        await client.send(handshake())
        assert await client.head() == SWITCHED


async def test_a_session_after_a_plain_request_on_the_same_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        if b"GET /plain" in head:
            await end.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            await end.send(SWITCH)
            await end.rest()

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get("/plain") + handshake() + frame(b"early", mask=True))
        assert await client.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        assert await client.exactly(2) == b"ok"
        assert await client.head() == SWITCHED
        await trio.testing.wait_all_tasks_blocked()
        [session] = stage.proxy.sessions
        await trio.testing.wait_all_tasks_blocked()
        assert session.relay.up.scanner.messages == 1


async def test_upgrade_without_the_connection_option_is_a_plain_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())
        await end.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(handshake().replace(b"Connection: Upgrade", b"Connection: keep-alive"))
        assert (await client.head()).startswith(b"HTTP/1.1 426 ")
        assert field_of(heads[0], "Upgrade") == []
        assert stage.proxy.sessions.opened_total == 0
