"""A client connection before, between and without proxied requests. In memory, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.proxy.stage import (
    IDLE_TIMEOUT,
    PING_STATUS_STOPPING,
    READ_TIMEOUT,
    End,
    get,
    greet,
    handshake,
    last,
    ok,
    post,
    staged,
    status_of,
)
from trio_wsb.http.head import REQUEST_LIMITS
from trio_wsb.proxy.runtime import Runtime
from trio_wsb.proxy.turnaway import REFUSAL_LIMIT, REFUSAL_TIMEOUT
from trio_wsb.routing.table import RouterTable

PING = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 3\r\n\r\nOK\n"


# The head: time and size.


async def test_silence_without_a_byte_closes_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        assert await client.rest() == b""
        assert trio.current_time() == READ_TIMEOUT
        await client.done.wait()
        assert stage.logs == []


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: chat.exam", handshake()[:-1]])
async def test_half_a_head_is_408(sent: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        answer = await stage.ask(sent)
        assert status_of(answer) == 408
        [line] = stage.logs
        assert (line["status"], line["log_level"]) == (408, "info")
        assert stage.dialled == []


async def test_empty_lines_alone_are_no_request(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        assert await stage.ask(b"\r\n") == b""


async def test_a_head_that_drips_hits_the_absolute_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage, trio.open_nursery() as nursery:
        client = stage.connect()

        async def drip() -> None:
            for byte in handshake("X-Long: " + "x" * 1000):
                await client.send(bytes([byte]))
                await trio.sleep(1)

        nursery.start_soon(drip)
        assert status_of(await client.rest()) == 408
        assert trio.current_time() == READ_TIMEOUT
        nursery.cancel_scope.cancel()


async def test_a_head_just_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        for byte in get("/x"):
            await client.send(bytes([byte]))
            await trio.sleep((READ_TIMEOUT - 1) / len(get("/x")))
        assert (await client.response())[1] == b"/x"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/" + "x" * 9000), 414),
        (b"GET /" + b"x" * 9000, 414),  # without an end
        (get("/", "X: " + "x" * 70_000), 431),
        (get("/", *["X: y"] * 150), 431),
        (get("/").replace(b"\r\n\r\n", b"\r\n") + b"X: y\r\n" * 150, 431),  # without an end
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on the wrong port
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n\r\n\r\n" + get(), 400),
        (get(version="2.0"), 505),
        (get(version="0.9"), 505),
        (post(b"x", "Transfer-Encoding: chunked"), 400),
        (get("/", "Transfer-Encoding: gzip, chunked"), 501),
        (get("http://other.example/"), 400),
    ],
)
async def test_what_is_no_request_is_refused_with_one_line(
    request_: bytes, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        answer = await stage.ask(request_)
        assert status_of(answer) == status
        [line] = stage.logs
        assert (line["event"], line["status"], line["log_level"]) == ("request refused", status, "info")
        assert trio.current_time() == 0  # at once, without waiting for more
        assert stage.dialled == []


async def test_the_size_of_a_head_is_the_entry_points(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.reload(head_limits=evolve(REQUEST_LIMITS, head=1024))
        assert status_of(await stage.ask(get("/", "X: " + "x" * 1024))) == 431
        stage.reload(head_limits=evolve(REQUEST_LIMITS, head=2**20))
        assert status_of(await stage.ask(get("/", "Connection: close", "X: " + "x" * 70_000))) == 200


async def test_a_refused_request_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        answer = await stage.ask(get("/", "Bad Name: x") + get("/smuggled"))
        assert status_of(answer) == 400
        assert stage.dialled == []


async def test_a_refused_client_may_go_on_sending_for_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Closing at once would reset the connection, and the reset can overtake the answer."""
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(b"nonsense\r\n\r\n")
        await client.rest()
        await client.send(bytes(10_000))
        assert not client.done.is_set()
        await client.done.wait()
        assert trio.current_time() == REFUSAL_TIMEOUT


async def test_a_refused_client_that_goes_on_sending_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(b"nonsense\r\n\r\n")
        with pytest.raises(BrokenPipeError):
            await client.send(bytes(2 * REFUSAL_LIMIT))
        assert trio.current_time() == 0


async def test_a_refused_client_that_takes_no_answer_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect(capacity=12)
        await client.send(b"nonsense\r\n\r\n")
        await client.done.wait()
        assert trio.current_time() == REFUSAL_TIMEOUT
        assert await client.is_reset()


@pytest.mark.parametrize("leave", ["close", "abort", "shutdown"])
@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_a_client_that_leaves_early(
    sent: bytes, leave: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(sent)
        getattr(client.channel, leave)()
        await client.done.wait()
        assert trio.current_time() == 0
        assert stage.logs == []


async def test_secrets_stay_out_of_the_log(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet, rule="Host(`other.example`)") as stage:
        secrets = ("Authorization: Bearer hunter2", "Cookie: id=hunter2", "Sec-WebSocket-Protocol: hunter2")
        for request_ in (
            get("/?token=hunter2", *secrets),
            handshake(*secrets, path="/?token=hunter2"),
            handshake(*secrets, key="hunter2"),
            get("/hunter2", "hunter2 bad: x"),
        ):
            assert b"hunter2" not in await stage.ask(request_)
        assert len(stage.logs) == 4
        assert "hunter2" not in str(stage.logs)


# Between requests.


async def test_an_idle_connection_is_closed_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(get())
        await client.response()
        assert await client.rest() == b""
        assert trio.current_time() == IDLE_TIMEOUT


async def test_the_next_head_has_its_own_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(get())
        await client.response()
        await trio.sleep(IDLE_TIMEOUT - 1)
        await client.send(b"GET")
        begun = trio.current_time()
        assert status_of(await client.rest()) == 408
        assert trio.current_time() - begun == READ_TIMEOUT


async def test_a_stop_closes_idle_connections_and_no_other(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        if b"/slow" in head:
            await trio.sleep(5)
        await end.send(ok(b"done"))

    async with staged(backend) as stage:
        idle, busy, fresh = stage.connect(), stage.connect(), stage.connect()
        await idle.send(get())
        await idle.response()
        await busy.send(get("/slow"))
        await trio.sleep(1)
        stage.proxy.stop()
        assert await idle.rest() == b""
        assert trio.current_time() == 1
        assert await busy.rest() == ok(b"done", "Connection: close")
        # What was connected before the listener closed is still served, once.
        assert await fresh.ask(get()) == ok(b"done", "Connection: close")


async def test_a_connection_that_goes_idle_while_stopping_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(get("/1"))
        await client.head()  # it was promised another request
        stage.proxy.stop()
        assert await client.rest() == b"/1"
        assert trio.current_time() == 0


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_removed_entry_point_ends_a_kept_connection(
    waiting: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(get("/1"))
        await client.response()
        if waiting:
            await trio.testing.wait_all_tasks_blocked()
        stage.proxy.swap(Runtime({}))
        if waiting:
            assert await client.rest() == b""
            assert trio.current_time() == 0
        else:
            assert await client.ask(get("/2")) == b""
        assert stage.dialled == ["b1"]


async def test_the_next_request_of_a_kept_connection_sees_the_new_configuration(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(get("/1"))
        await client.response()
        await trio.testing.wait_all_tasks_blocked()  # the connection waits already
        stage.reload(routers=RouterTable([]))
        assert status_of(await client.ask(last(get("/2")))) == 404


# Ping.


async def test_ping(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        for _ in range(2):
            await client.send(get("/ping?x=y"))
            assert await client.exactly(len(PING)) == PING
        await client.send(get("/ping", method="HEAD") + get("/ping"))
        assert await client.exactly(2 * len(PING) - 3) == PING[:-3] + PING
        assert stage.dialled == []
        assert stage.logs == []


async def test_ping_while_stopping(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.proxy.stop()
        answer = await stage.ask(get("/ping"))
        assert status_of(answer) == PING_STATUS_STOPPING
        assert answer.endswith(b"stopping\n")


async def test_a_ping_with_a_body_is_the_last_request(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        answer = await stage.ask(post(b"GET /smuggled HTTP/1.1\r\n\r\n", path="/ping", method="GET"))
        assert status_of(answer) == 200
        assert stage.dialled == []


@pytest.mark.parametrize(
    "request_", [post(b"x", path="/ping"), get("/ping/"), get("/pingpong"), get("/x/ping")]
)
async def test_what_only_looks_like_a_ping_is_proxied(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        client = stage.connect()
        await client.send(request_)
        await client.response()
        assert stage.dialled == ["b1"]


async def test_no_ping_where_it_is_switched_off(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.reload(ping=False)
        client = stage.connect()
        await client.send(get("/ping"))
        assert (await client.response())[1] == b"/ping"
