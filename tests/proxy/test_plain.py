"""Plain requests that go well: framing, keep-alive, interim answers, streaming. In memory, in virtual time."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from tests.proxy.stage import (
    ANSWER_TIMEOUT,
    WRITE_TIMEOUT,
    End,
    answering,
    field_of,
    get,
    greet,
    ok,
    post,
    staged,
)

CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: abc\r\n\r\n"


# Heads and framing.


async def test_a_get_and_its_answer(autojump_clock: trio.testing.MockClock) -> None:
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())
        await end.send(ok(b"hi", "X-Served-By: pod-1", "Connection: x-hop", "X-Hop: 1"))
        assert await end.rest() == b""  # never used again

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get("/page?q=1", "Accept: text/plain", "Connection: X-Mine", "X-Mine: 1"))
        head, body = await client.response()
    assert heads[0].startswith(b"GET /page?q=1 HTTP/1.1\r\nHost: chat.example\r\nAccept: text/plain\r\n")
    assert field_of(heads[0], "Connection") == ["close"]
    assert field_of(heads[0], "X-Mine") == []
    assert field_of(heads[0], "X-Forwarded-For") == ["192.0.2.7"]
    assert field_of(heads[0], "X-Forwarded-Proto") == ["http"]
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Served-By: pod-1\r\n\r\n"
    assert body == b"hi"
    assert stage.logs == []


async def test_head_has_no_body_whatever_its_length(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with staged(answering(answer)) as stage:
        client = stage.connect()
        await client.send(get(method="HEAD") + get(method="HEAD", path="/2"))
        assert await client.exactly(2 * len(answer)) == answer * 2
        assert stage.dialled == ["b1", "b1"]


@pytest.mark.parametrize("segment", [1, 7, 10_000])
async def test_bodies_with_a_length_both_ways(segment: int, autojump_clock: trio.testing.MockClock) -> None:
    sent, answered = random.Random(1).randbytes(5000), random.Random(2).randbytes(7000)

    async def backend(end: End) -> None:
        end.channel.set_segment(segment)
        head = await end.head()
        assert field_of(head, "Content-Length") == ["5000"]
        assert await end.exactly(5000) == sent
        await end.send(ok(answered))

    async with staged(backend) as stage:
        client = stage.connect()
        client.channel.set_segment(segment)
        for _ in range(2):
            await client.send(post(sent))
            assert (await client.response())[1] == answered


@pytest.mark.parametrize("segment", [1, 7, 10_000])
async def test_chunks_pass_as_they_are_both_ways(
    segment: int, autojump_clock: trio.testing.MockClock
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS

    async def backend(end: End) -> None:
        end.channel.set_segment(segment)
        head = await end.head()
        assert field_of(head, "Transfer-Encoding") == ["chunked"]
        assert await end.until(b"abc\r\n\r\n") == CHUNKS
        await end.send(answer)

    async with staged(backend) as stage:
        client = stage.connect()
        client.channel.set_segment(segment)
        for _ in range(2):
            await client.send(get("/", CHUNKED, method="POST") + CHUNKS)
            assert await client.exactly(len(answer)) == answer


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_that_have_no_body(status: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with staged(answering(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")) as stage:
        client = stage.connect()
        await client.send(get() * 2)
        assert await client.head() == await client.head() == b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"


async def test_an_answer_until_the_end_of_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(answering(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as stage:
        answer = await stage.ask(get())
        assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"


async def test_interim_answers_pass(autojump_clock: trio.testing.MockClock) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    async with staged(answering(hints + hints + ok(b"done"))) as stage:
        client = stage.connect()
        await client.send(get())
        assert await client.head() == await client.head() == hints
        assert (await client.response())[1] == b"done"


async def test_a_client_of_http_1_0_gets_no_chunks_and_no_interim_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backend = answering(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
        + CHUNKS
    )
    async with staged(backend) as stage:
        answer = await stage.ask(get(version="1.0") + get("/never"))
        assert answer == b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\nhello world"
        assert stage.dialled == ["b1"]


async def test_a_client_of_http_1_0_need_not_send_a_host(autojump_clock: trio.testing.MockClock) -> None:
    heads: list[bytes] = []

    async def backend(end: End) -> None:
        heads.append(await end.head())
        await end.send(ok(b"hi"))

    async with staged(backend) as stage:
        await stage.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert field_of(heads[0], "Host") == ["b1:8080"]


async def test_another_upgrade_is_dropped_and_proxied_plainly(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[bytes] = []

    async def backend(end: End) -> None:
        seen.append(await end.head())
        await end.send(ok(b"plain"))
        seen.append(await end.rest())

    async with staged(backend) as stage:
        client = stage.connect()
        h2c = (
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
            "Connection: Upgrade, HTTP2-Settings",
        )
        await client.send(get("/", *h2c) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.response())[1] == b"plain"
        assert (await client.head()).startswith(
            b"HTTP/1.1 505 "
        )  # what follows is another request, a bad one
        assert field_of(seen[0], "Upgrade") == field_of(seen[0], "HTTP2-Settings") == []
        await trio.testing.wait_all_tasks_blocked()
        assert seen[1:] == [b""]


# Several requests on one connection.


async def test_keep_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        for path in ("/1", "/2", "/3"):
            await client.send(get(path))
            head, body = await client.response()
            assert body == path.encode()
            assert field_of(head, "Connection") == []
            await trio.sleep(10)
        assert stage.dialled == ["b1"] * 3


async def test_pipelined_requests_are_answered_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        body = await end.exactly(int((field_of(head, "Content-Length") or ["0"])[0]))
        await trio.sleep(1)
        await end.send(ok(head.split(b" ")[1] + body))

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get("/1") + post(b"body", path="/2") + get("/3"))
        assert [(await client.response())[1] for _ in range(3)] == [b"/1", b"/2body", b"/3"]


async def test_requests_that_come_while_the_backend_thinks_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        await trio.sleep(5)
        await end.send(ok(head.split(b" ")[1]))

    async with staged(backend) as stage:
        client = stage.connect()
        stream = get("/1") + get("/2") + get("/3")
        for at in range(0, len(stream), 40):
            await client.send(stream[at : at + 40])
            await trio.sleep(1)
        assert [(await client.response())[1] for _ in range(3)] == [b"/1", b"/2", b"/3"]


@pytest.mark.parametrize("lines", [("Connection: close",), ("Connection: keep-alive, CLOSE",)])
async def test_close_ends_the_connection(
    lines: tuple[str, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        answer = await stage.ask(get("/1", *lines) + get("/2"))
        assert answer == ok(b"/1", "Connection: close")


async def test_the_last_answer_while_stopping_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(5)
        await end.send(ok(b"last"))

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get())
        await trio.sleep(1)
        stage.proxy.stop()
        assert await client.rest() == ok(b"last", "Connection: close")


async def test_what_follows_a_body_is_the_next_request_whatever_others_do_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The receive buffer is shared: what is left in it must be kept before the first wait."""

    async def backend(end: End) -> None:
        head = await end.head()
        await trio.sleep(2)  # the body has to wait, for the connection holds 300 bytes
        await end.exactly(int((field_of(head, "Content-Length") or ["0"])[0]))
        await end.send(ok(head.split(b" ")[1]))

    async with staged(backend, capacity=300) as stage:
        victim, other = stage.connect(capacity=5000), stage.connect(capacity=5000)
        body = post(b"x" * 1000, path="/1")
        head_size = body.index(b"\r\n\r\n") + 4
        await victim.send(body[:head_size])
        await trio.sleep(1)
        await victim.send(body[head_size:] + get("/mine"))
        await trio.sleep(0.5)
        await other.send(get("/other" + "y" * 2000))
        assert (await victim.response())[1] == b"/1"
        assert (await victim.response())[1] == b"/mine"


# Expect.


async def test_the_backends_continue_passes(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        assert field_of(head, "Expect") == ["100-continue"]
        await trio.sleep(1)
        await end.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await end.exactly(4) == b"body"
        await end.send(ok(b"thanks"))

    async with staged(backend) as stage:
        client = stage.connect()
        request = post(b"body", "Expect: 100-continue")
        await client.send(request[:-4])
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(request[-4:])
        assert (await client.response())[1] == b"thanks"
        await client.send(request)  # a client that does not wait
        await client.head()
        assert (await client.response())[1] == b"thanks"


async def test_a_refusal_instead_of_continue_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n"
    async with staged(answering(refusal + b"\r\nbig", until_closed=True)) as stage:
        client = stage.connect()
        await client.send(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 900"))
        # Whether the body comes now, only the client knows: nothing after this could be told from it.
        assert await client.rest() == refusal + b"Connection: close\r\n\r\nbig"


async def test_a_refusal_while_the_client_is_still_sending(autojump_clock: trio.testing.MockClock) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n"

    async def backend(end: End) -> None:
        await end.head()
        await end.exactly(1000)
        await end.send(refusal + b"\r\nbig")

    async with staged(backend, capacity=500) as stage, trio.open_nursery() as nursery:
        client = stage.connect()
        nursery.start_soon(client.send, post(bytes(50_000)))
        assert await client.rest() == refusal + b"Connection: close\r\n\r\nbig"
        assert stage.counts == [(0, 0)]


async def test_an_answer_from_a_backend_that_takes_no_more_of_the_body(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await end.send(ok(b"enough", "Connection: close"))

    async with staged(backend, capacity=500) as stage, trio.open_nursery() as nursery:
        client = stage.connect()
        nursery.start_soon(client.send, post(bytes(50_000)))
        assert await client.rest() == ok(b"enough", "Connection: close")


# Large and slow.


async def test_a_slow_client_holds_the_backend_back(autojump_clock: trio.testing.MockClock) -> None:
    body = random.Random(3).randbytes(300_000)
    sent = 0

    async def backend(end: End) -> None:
        nonlocal sent
        await end.head()
        await end.send(ok(body)[:-300_000])
        for at in range(0, len(body), 100):
            await end.send(body[at : at + 100])
            sent += 100

    async with staged(backend, capacity=1000) as stage:
        client = stage.connect()
        await client.send(get())
        await trio.sleep(WRITE_TIMEOUT / 2)
        assert sent <= 3 * 1000  # two connections, and what was read but not written yet
        assert (await client.response())[1] == body


async def test_a_slow_backend_holds_the_client_back(autojump_clock: trio.testing.MockClock) -> None:
    body = random.Random(4).randbytes(300_000)
    sent = 0

    async def backend(end: End) -> None:
        await end.head()
        await trio.sleep(WRITE_TIMEOUT / 2)
        assert sent <= 3 * 1000
        assert await end.exactly(len(body)) == body
        await end.send(ok(b"all"))

    async with staged(backend, capacity=1000) as stage, trio.open_nursery() as nursery:
        client = stage.connect()

        async def send() -> None:
            nonlocal sent
            await client.send(post(body)[:-300_000])
            for at in range(0, len(body), 100):
                await client.send(body[at : at + 100])
                sent += 100

        nursery.start_soon(send)
        assert (await client.response())[1] == b"all"


async def test_however_slowly_a_client_reads_as_long_as_it_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answer = ok(bytes(2000))
    async with staged(answering(answer)) as stage:
        client = stage.connect(capacity=50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, get())
            received = b""
            while len(received) < len(answer):
                await trio.sleep(WRITE_TIMEOUT - 1)
                received += await client.exactly(min(50, len(answer) - len(received)))
        assert received == answer


async def test_however_slowly_a_backend_reads_as_long_as_it_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def backend(end: End) -> None:
        await end.head()
        for _ in range(20):
            await trio.sleep(WRITE_TIMEOUT - 1)
            await end.exactly(100)
        await end.send(ok(b"all"))

    async with staged(backend, capacity=100) as stage:
        client = stage.connect(capacity=5000)
        await client.send(post(bytes(2000)))
        assert (await client.response())[1] == b"all"


async def test_a_stream_of_events_passes_piece_by_piece(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await end.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await trio.sleep(10 * ANSWER_TIMEOUT)  # how long it thinks in between is its own affair
            await end.send(b"1\r\n%d\r\n" % number)
        await end.send(b"0\r\n\r\n")

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get())
        await client.head()
        for number in range(5):
            assert await client.exactly(6) == b"1\r\n%d\r\n" % number
            assert trio.current_time() % (10 * ANSWER_TIMEOUT) == pytest.approx(0, abs=1e-6) or number == 0
        assert await client.exactly(5) == b"0\r\n\r\n"
