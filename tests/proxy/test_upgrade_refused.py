"""The upgrade when it is refused, by us or by the backend. In memory, in virtual time."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from tests.proxy.stage import (
    ACCEPT,
    SWITCH,
    End,
    answering,
    echo,
    field_of,
    handshake,
    staged,
    status_of,
)
from tests.proxy.world import frame

HANDSHAKE = handshake()
REFUSED = {
    "no key": (re.sub(rb"Sec-WebSocket-Key: .*\r\n", b"", HANDSHAKE), 400),
    "two keys": (handshake("Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="), 400),
    "short key": (handshake(key="c2hvcnQ="), 400),
    "key that is no base64": (handshake(key="!" * 24), 400),
    "empty key": (handshake(key=""), 400),
    "version 12": (HANDSHAKE.replace(b"Version: 13", b"Version: 12"), 426),
    "version 8": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), 426),
    "no version": (HANDSHAKE.replace(b"Sec-WebSocket-Version: 13\r\n", b""), 426),
    "two versions": (handshake("Sec-WebSocket-Version: 13"), 400),
    "POST": (HANDSHAKE.replace(b"GET", b"POST"), 400),
    "PUT": (HANDSHAKE.replace(b"GET", b"PUT"), 400),
    "CONNECT": (HANDSHAKE.replace(b"GET /chat", b"CONNECT chat.example:80"), 501),
    "HTTP/1.0": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "HTTP/2.0": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    "a body": (handshake("Content-Length: 5") + b"hello", 400),
    "a chunked body": (handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "both framings": (handshake("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "two lengths": (handshake("Content-Length: 0", "Content-Length: 5"), 400),
    "folding": (handshake("X-Folded: one\r\n two"), 400),
    "bare LF": (HANDSHAKE.replace(b"Host: chat.example\r\n", b"Host: chat.example\n"), 400),
    "bare LF throughout": (HANDSHAKE.replace(b"\r\n", b"\n"), 400),
    "bare CR": (handshake("X-Split: a\rInjected: b"), 400),
    "NUL": (handshake("X-Nul: a\0b"), 400),
    "space before the colon": (handshake("X-Space : a"), 400),
    "no Host": (HANDSHAKE.replace(b"Host: chat.example\r\n", b""), 400),
    "two Hosts": (handshake("Host: other.example"), 400),
    "bad Host": (HANDSHAKE.replace(b"chat.example", b"chat.example/../x"), 400),
    "a 100 kB header": (handshake("X-Large: " + "x" * 100_000), 431),
    "too many headers": (handshake(*(f"X-{n}: x" for n in range(120))), 431),
    "a long request line": (handshake(path="/" + "x" * 9000), 414),
    "a bad subprotocol": (handshake("Sec-WebSocket-Protocol: a b"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_handshake_is_refused_with_one_line_and_reaches_no_backend(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    request, status = REFUSED[name]
    async with staged(echo) as stage:
        answer = await stage.ask(request)
        assert status_of(answer) == status
        assert stage.dialled == []
        [line] = stage.logs
        assert (line["event"], line["status"], line["log_level"]) == ("request refused", status, "info")
        assert line["client"] == "192.0.2.7:50000"


async def test_426_names_the_version_that_is_spoken(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(echo) as stage:
        answer = await stage.ask(REFUSED["version 12"][0])
        assert field_of(answer, "Sec-WebSocket-Version") == ["13"]


async def test_no_router_is_404(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(echo, rule="Host(`other.example`)") as stage:
        answer = await stage.ask(handshake())
        assert status_of(answer) == 404
        assert answer.endswith(b"\r\n\r\n404 page not found\n")
        assert stage.dialled == []


# A wrong 101.

WRONG_SWITCHES = {
    "wrong accept": SWITCH.replace(ACCEPT.encode(), b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "accept in another case": SWITCH.replace(ACCEPT.encode(), ACCEPT.lower().encode()),
    "no accept": SWITCH.replace(f"Sec-WebSocket-Accept: {ACCEPT}\r\n".encode(), b""),
    "two accepts": SWITCH.removesuffix(b"\r\n") + f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode(),
    "no Upgrade": SWITCH.replace(b"Upgrade: websocket\r\n", b""),
    "another Upgrade": SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "no Connection": SWITCH.replace(b"Connection: Upgrade\r\n", b""),
    "another Connection": SWITCH.replace(b"Connection: Upgrade", b"Connection: close"),
    "a subprotocol that was not offered": SWITCH.removesuffix(b"\r\n")
    + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n",
}


@pytest.mark.parametrize("name", WRONG_SWITCHES)
async def test_a_wrong_101_opens_no_tunnel(name: str, autojump_clock: trio.testing.MockClock) -> None:
    after: list[bytes] = []

    async def backend(end: End) -> None:
        await end.head()
        await end.send(WRONG_SWITCHES[name] + frame(b"a first message"))
        after.append(await end.rest())

    async with staged(backend, echo) as stage:
        answer = await stage.ask(handshake() + frame(b"from the client", mask=True))
        assert status_of(answer) == 502
        assert b"a first message" not in answer
        assert after == [b""]  # closed, and nothing tunnelled
        assert stage.dialled == ["b1"]
        assert stage.backends[0].failures_total == 1
        assert len(stage.proxy.sessions) == stage.proxy.sessions.opened_total == 0


BROKEN_ANSWERS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "bare LF": SWITCH.replace(b"\r\n", b"\n"),
    "HTTP/2": SWITCH.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "folding": SWITCH.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
    "a head without end": b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 20_000,
    "200 with two framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "half a head": SWITCH[:40],
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
async def test_an_answer_that_cannot_be_understood_is_502_and_not_tried_again(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(answering(BROKEN_ANSWERS[name]), echo) as stage:
        assert status_of(await stage.ask(handshake())) == 502
        assert stage.dialled == ["b1"]


# Refused by the backend.

REFUSALS = {
    "401 with a length": (
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 7\r\n\r\ngo away",
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 7\r\nConnection: close\r\n\r\ngo away",
    ),
    "404 in chunks": (
        b"HTTP/1.1 404 Nothing Here\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\nX-Trailer: t\r\n\r\n",
        b"HTTP/1.1 404 Nothing Here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nnope\r\n0\r\nX-Trailer: t\r\n\r\n",
    ),
    "503 until the end": (
        b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 9\r\n\r\nlater",
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\nConnection: close\r\n\r\nlater",
    ),
    "200 to a handshake": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_passes_as_it_is_and_early_bytes_go_nowhere(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    refusal, expected = REFUSALS[name]
    seen: list[bytes] = []

    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(1)
        await end.send(refusal)
        if name == "503 until the end":
            end.channel.shutdown()
        seen.append(await end.rest())

    async with staged(backend, echo) as stage:
        client = stage.connect()
        await client.send(handshake() + b"GET /admin HTTP/1.1\r\nHost: chat.example\r\n\r\n")
        await trio.sleep(0.5)
        await client.send(frame(b"as if it was accepted", mask=True))
        assert await client.rest() == expected
        await client.send(b"GET /admin HTTP/1.1\r\nHost: chat.example\r\n\r\n")
        client.close()
        await client.done.wait()
        assert seen == [b""]
        assert stage.dialled == ["b1"]
        assert stage.backends[0].failures_total == 0


async def test_a_refusal_that_breaks_off_resets_the_client(autojump_clock: trio.testing.MockClock) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nonly this"
    async with staged(answering(refusal)) as stage:
        client = stage.connect()
        await client.send(handshake())
        assert await client.is_reset()


async def test_a_client_that_leaves_a_refusal_without_end_frees_the_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left = trio.Event()

    async def backend(end: End) -> None:
        await end.head()
        await end.send(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n")
        await end.rest()
        left.set()

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(handshake())
        await client.head()
        client.close()
        await client.done.wait()
        await left.wait()
