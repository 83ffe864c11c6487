"""Plain requests that go wrong: cut off, malformed, silent, tried again, given up. In memory, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import (
    ANSWER_TIMEOUT,
    READ_TIMEOUT,
    SWITCH,
    WRITE_TIMEOUT,
    Client,
    End,
    Script,
    Stage,
    answering,
    cancelling_at_every_step,
    die,
    get,
    greet,
    hang_dial,
    last,
    ok,
    post,
    refuse_dial,
    staged,
    status_of,
    stay_silent,
)
from trio_wsb.proxy.client import EARLY_LIMIT


@pytest.fixture
def seen() -> list[str]:
    """How and when each connection to `watcher` ended."""
    return []


@pytest.fixture
def watcher(seen: list[str]) -> Script:
    """Return a backend that reads on, answers nothing, and tells how and when the connection ended."""

    async def script(end: End) -> None:
        await end.head()
        how = "reset" if await end.is_reset() else "end"
        seen.append(f"{how} at {trio.current_time():g}")

    return script


def streaming() -> tuple[Script, trio.Event]:
    """Return a backend that begins an answer without an end, and the event of its connection's end."""
    ended = trio.Event()

    async def script(end: End) -> None:
        await end.head()
        await end.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await end.rest()
        ended.set()

    return script, ended


# The request's body.


async def test_a_body_that_is_cut_off_is_400_and_never_complete_for_the_backend(
    watcher: Script, seen: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher) as stage:
        client = stage.connect()
        await client.send(post(b"x" * 100)[:-50])
        await trio.sleep(1)
        client.channel.shutdown()
        assert status_of(await client.rest()) == 400
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["end at 1"]
        assert stage.backends[0].failures_total == 0


async def test_a_client_that_resets_its_connection_in_its_body_frees_the_backend(
    watcher: Script, seen: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher) as stage:
        client = stage.connect()
        await client.send(post(b"x" * 100)[:-50])
        await trio.sleep(1)
        client.abort()
        await client.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["end at 1"]


async def test_a_body_that_stops_coming_is_408(
    watcher: Script, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher) as stage:
        client = stage.connect()
        await client.send(post(b"x" * 100)[:-50])
        begun = trio.current_time()
        assert status_of(await client.rest()) == 408
        assert trio.current_time() - begun == READ_TIMEOUT


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_malformed_chunks_are_400(chunks: bytes, autojump_clock: trio.testing.MockClock) -> None:
    seen: list[bytes] = []

    async def backend(end: End) -> None:
        await end.head()
        seen.append(await end.rest())

    async with staged(backend) as stage:
        answer = await stage.ask(
            get("/", "Transfer-Encoding: chunked", method="POST") + chunks + get("/next")
        )
        assert status_of(answer) == 400
        await trio.testing.wait_all_tasks_blocked()
        assert not seen[0].endswith(b"0\r\n\r\n")
        assert stage.dialled == ["b1"]  # what follows is not taken for a request


async def test_a_client_that_breaks_off_its_body_under_an_answer_frees_the_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The answer has begun, so that there is no status any more to tell anybody."""
    backend, ended = streaming()
    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(post(b"x" * 100)[:-50])
        await client.head()
        client.channel.shutdown()
        assert await client.is_reset()
        await ended.wait()


# The response.

CUT_OFF = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf and more\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", CUT_OFF)
async def test_an_answer_that_is_cut_off_never_looks_complete(
    name: str, version: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(answering(CUT_OFF[name])) as stage:
        client = stage.connect()
        await client.send(get(version=version))
        assert await client.is_reset()
        assert stage.backends[0].failures_total == 1
        [line] = stage.logs
        assert (line["event"], line["reason"]) == ("backend failed", "the response broke off")


async def test_a_reset_of_the_backend_is_no_end_of_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await end.send(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await trio.sleep(1)
        end.abort()

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get())
        assert await client.until(b"half")
        assert await client.is_reset()


BROKEN = {
    "nothing of HTTP": b"220 mail.example ESMTP\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "an unasked 101": SWITCH,
    "two framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_cannot_be_understood_is_502(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(answering(BROKEN[name]), greet) as stage:
        assert status_of(await stage.ask(last(get()))) == 502
        assert stage.dialled == ["b1"]
        assert stage.backends[0].failures_total == 1


# Silence.


@pytest.mark.parametrize("request_", [get(), post(b"x")], ids=["GET", "POST"])
async def test_a_silent_backend_is_504_and_not_tried_again(
    request_: bytes, watcher: Script, seen: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher, greet) as stage:
        assert status_of(await stage.ask(last(request_))) == 504
        assert seen == [f"end at {ANSWER_TIMEOUT:g}"]
        assert stage.dialled == ["b1"]
        assert stage.backends[0].failures_total == 1
        assert [line["event"] for line in stage.logs] == ["backend failed", "request refused"]


async def test_the_time_for_the_answer_begins_when_the_body_is_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await end.exactly(10)
        await trio.sleep(ANSWER_TIMEOUT - 1)
        await end.send(ok(b"late"))

    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(post(b"x" * 10)[:-10])
        for _ in range(10):
            await trio.sleep(READ_TIMEOUT - 1)
            await client.send(b"x")
        assert (await client.response())[1] == b"late"


async def test_a_backend_that_takes_nothing_of_the_body_is_504(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def stuck(end: End) -> None:
        await end.head()
        await trio.sleep_forever()

    async with staged(stuck, capacity=300) as stage:
        client = stage.connect(capacity=65536)
        await client.send(post(bytes(5000)))
        begun = trio.current_time()
        assert status_of(await client.rest()) == 504
        assert trio.current_time() - begun == WRITE_TIMEOUT + ANSWER_TIMEOUT


async def test_a_backend_that_takes_nothing_of_the_head_is_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def stuck(end: End) -> None:
        await trio.sleep_forever()

    async with staged(stuck, greet, capacity=100) as stage:
        client = stage.connect(capacity=65536)
        await client.send(get("/" + "x" * 200))
        await client.response()
        assert trio.current_time() == WRITE_TIMEOUT
        assert stage.dialled == ["b1", "b2"]


# Another try.


async def reset(end: End) -> None:
    await end.head()
    end.abort()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("first", [die, reset])
async def test_what_may_be_repeated_is_repeated_after_silence(
    first: Script, method: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(first, greet) as stage:
        client = stage.connect()
        await client.send(get("/again", method=method))
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert stage.dialled == ["b1", "b2"]
        assert stage.backends[0].failures_total == 1


@pytest.mark.parametrize(
    "request_",
    [get(method="POST"), post(b"x"), post(b"x", method="PUT"), get(method="PATCH")],
    ids=["POST", "POST with body", "PUT with body", "PATCH"],
)
async def test_what_may_not_be_repeated_is_502_after_silence(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(die, greet) as stage:
        assert status_of(await stage.ask(last(request_))) == 502
        assert stage.dialled == ["b1"]


@pytest.mark.parametrize("first", [refuse_dial, hang_dial])
async def test_anything_is_tried_again_when_the_dial_fails(
    first: Script, autojump_clock: trio.testing.MockClock
) -> None:
    async def backend(end: End) -> None:
        await end.head()
        await end.send(ok(await end.exactly(4)))

    async with staged(first, backend) as stage:
        client = stage.connect()
        await client.send(post(b"body"))
        assert (await client.response())[1] == b"body"


async def test_three_tries(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(die, refuse_dial, die) as stage:
        assert status_of(await stage.ask(last(get()))) == 502
        assert stage.dialled == ["b1", "b2", "b3"]


async def test_a_refused_head_request_gets_no_body(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(refuse_dial) as stage:
        answer = await stage.ask(last(get(method="HEAD")))
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert answer.endswith(b"\r\n\r\n")


# Clients that leave.


@pytest.mark.parametrize("leave", ["close", "abort", "shutdown"])
async def test_a_client_that_leaves_while_the_backend_thinks_frees_it(
    leave: str, watcher: Script, seen: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher) as stage:
        client = stage.connect()
        await client.send(get() + get("/pipelined"))
        await trio.sleep(7)
        assert stage.counts == [(0, 1)]
        getattr(client.channel, leave)()
        await client.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["end at 7"]
        assert stage.counts == [(0, 0)]
        assert stage.backends[0].failures_total == 0
        assert not stage.backends[0].passive.recovering
        assert stage.dialled == ["b1"]
        assert stage.logs == []


async def test_a_client_that_leaves_after_its_body_is_seen_too(
    watcher: Script, seen: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(watcher) as stage:
        client = stage.connect()
        await client.send(post(b"body"))
        await trio.sleep(7)
        client.close()
        await client.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["end at 7"]


async def test_a_client_that_leaves_a_stream_without_news_frees_the_backend(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backend, ended = streaming()
    async with staged(backend) as stage:
        client = stage.connect()
        await client.send(get())
        await client.head()
        client.close()
        await ended.wait()
        assert stage.backends[0].passive.recovering  # it did answer


async def test_a_client_that_takes_nothing_is_reset(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(answering(ok(bytes(5000)), until_closed=True)) as stage:
        client = stage.connect(capacity=100)
        await client.send(get())
        begun = trio.current_time()
        await client.done.wait()
        assert trio.current_time() - begun == WRITE_TIMEOUT
        assert await client.is_reset()


async def test_what_a_client_may_pipeline_is_bounded(
    watcher: Script, autojump_clock: trio.testing.MockClock
) -> None:
    sent = 0

    async def flood(client: Client) -> None:
        nonlocal sent
        await client.send(get())
        while True:
            await client.send(bytes(100))
            sent += 100

    async with staged(watcher, capacity=1000) as stage, trio.open_nursery() as nursery:
        client = stage.connect()
        nursery.start_soon(flood, client)
        await trio.sleep(ANSWER_TIMEOUT / 2)
        assert EARLY_LIMIT <= sent <= EARLY_LIMIT + 1000
        nursery.cancel_scope.cancel()


# Counts.


async def slow(end: End) -> None:
    await end.head()
    await trio.sleep(1)
    await end.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    await end.exactly(500)
    await end.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    await trio.sleep(1)
    await end.send(bytes(500))


@pytest.mark.parametrize(
    "scripts",
    [(slow,), (refuse_dial, slow), (stay_silent,), (die,)],
    ids=["answer", "retry", "silent", "die"],
)
async def test_counts_are_right_wherever_a_connection_is_cancelled(
    scripts: tuple[Script, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async def play(stage: Stage, client: Client) -> None:
        await client.send(post(bytes(500)) + get())

    await cancelling_at_every_step(scripts, play)
