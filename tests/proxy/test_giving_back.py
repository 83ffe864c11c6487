"""When what a request took is free again: no later than its client has its whole answer, and can ask anew."""

from __future__ import annotations

import pytest
import trio.testing

from tests.proxy.stage import Script, answering, echo, get, handshake, ok, staged
from tests.proxy.test_chain import COMPRESS, PAGE, TEXT, Limit
from tests.proxy.world import close_frame

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "request_", "end"),
    [
        (answering(ok(b"hello"), until_closed=True), get(), b"hello"),
        (answering(ok(), until_closed=True), get(), b"\r\n\r\n"),
        (answering(ok(PAGE), until_closed=True), get(), PAGE),
        (answering(b"HTTP/1.1 204 No Content\r\n\r\n", until_closed=True), get(), b"\r\n\r\n"),
        (answering(ok(b"hello")[:-5], until_closed=True), get(method="HEAD"), b"\r\n\r\n"),
        (answering(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", until_closed=True), get(), b"\r\n0\r\n\r\n"),
        (
            answering(ok(PAGE, TEXT), until_closed=True),
            get("/", "Accept-Encoding: gzip"),
            b"\r\n0\r\n\r\n",
        ),
        (answering(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", until_closed=True), handshake(), b"no"),
        (answering(b"nonsense\r\n\r\n"), get(), b"malformed status line\n"),
    ],
    ids=["length", "empty", "long", "no content", "head", "chunked", "gzip", "refused", "our own"],
)
@pytest.mark.parametrize("capacity", [40, 65536])
async def test_whoever_has_the_whole_answer_may_ask_again(
    script: Script, request_: bytes, end: bytes, capacity: int, autojump_clock: trio.testing.MockClock
) -> None:
    limit = Limit()
    async with staged(script, capacity=capacity, steps=[COMPRESS, limit]) as stage:
        client = stage.connect()
        await client.send(request_)
        await client.until(end)
        assert limit.limiter.total == 0
        assert stage.counts == [(0, 0)]
        client.close()
        await client.done.wait()


async def test_an_answer_that_is_still_taken_holds_its_place(autojump_clock: trio.testing.MockClock) -> None:
    limit = Limit()
    async with staged(answering(ok(PAGE)), capacity=1000, steps=[limit]) as stage:
        client = stage.connect()
        await client.send(get())
        await client.head()
        await trio.testing.wait_all_tasks_blocked()
        assert (limit.limiter.total, stage.counts) == (1, [(0, 1)])
        await client.exactly(len(PAGE))
        assert (limit.limiter.total, stage.counts) == (0, [(0, 0)])
        client.close()


async def test_whoever_sees_the_end_of_a_session_may_open_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limit = Limit()
    async with staged(echo, steps=[limit]) as stage:
        client = await stage.open_session()
        assert limit.limiter.total == 1
        await client.send(close_frame(1000, mask=True))
        await client.rest()
        assert limit.limiter.total == 0
        client.close()
