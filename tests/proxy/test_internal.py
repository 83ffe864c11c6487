"""Requests that the balancer answers itself: found by a path or a router, whole or in pieces, behind middlewares."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.proxy.stage import Stage, field_of, get, greet, handshake, post, staged, status_of
from trio_wsb.addresses import parse_network
from trio_wsb.errors import HTTPError
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.middleware.ip_allow import IPAllowList, IPAllowListOptions
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.proxy.internal import ANSWER_TIMEOUT, STALL_TIMEOUT, InternalRequest
from trio_wsb.proxy.runtime import Handler, InternalService, Route
from trio_wsb.proxy.steps import HeadersStep, JudgeStep
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable

FIELDS = HeadersStep(HeaderEditor(HeadersOptions(custom_response_headers={"X-Seen": "yes"})))
NOBODY = JudgeStep(IPAllowList(IPAllowListOptions((parse_network("192.0.2.99"),))))


def page(stage: Stage, handler: Handler, path: str = "/page") -> None:
    """Let `handler` answer at `path` of every entry point."""
    stage.proxy.internal = lambda entry, peer, head: handler if head.path == path else None


async def hello(request: InternalRequest) -> bool:
    return await request.answer(200, "text/plain", b"hello", [("X-Page", "1")])


async def numbers(request: InternalRequest) -> bool:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"", b"two"):
            yield piece

    return await request.answer_pieces(200, "text/plain", pieces())


async def test_a_page_by_its_path(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        page(stage, hello)
        client = stage.connect()
        for _ in range(2):  # the connection stays
            await client.send(get("/page?x"))
            head, body = await client.response()
            assert (status_of(head + body, kept=True), body) == (200, b"hello")
            assert field_of(head, "X-Page") == ["1"]
        await client.send(get("/page", method="HEAD"))
        assert field_of(await client.head(), "Content-Length") == ["5"]
        assert stage.dialled == []


async def test_the_middlewares_of_the_entry_point_stand_before_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet) as stage:
        page(stage, hello)
        stage.reload(steps=(FIELDS,))
        client = stage.connect()
        await client.send(get("/page"))
        head, _ = await client.response()
        assert field_of(head, "X-Seen") == ["yes"]
        stage.reload(steps=(NOBODY,))
        assert status_of(await stage.ask(get("/page", "Connection: close"))) == 403
        assert (
            status_of(await stage.ask(get("/ping", "Connection: close"))) == 200
        )  # whoever balances us has no password


async def test_a_service_of_a_router_has_the_routers_middlewares(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet) as stage:
        route = Route(InternalService("page@internal", hello), (FIELDS,))
        stage.reload(routers=RouterTable([("r", parse_rule("Path(`/routed`)"), 0, route)]), steps=(NOBODY,))
        client = stage.connect()
        await client.send(get("/routed"))
        head, body = await client.response()
        assert (body, field_of(head, "X-Seen")) == (b"hello", ["yes"])


async def test_pieces(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        page(stage, numbers)
        client = stage.connect()
        for _ in range(2):
            await client.send(get("/page"))
            head = await client.head()
            assert field_of(head, "Transfer-Encoding") == ["chunked"]
            assert await client.until(b"0\r\n\r\n") == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
        await client.send(get("/page", method="HEAD"))
        assert field_of(await client.head(), "Transfer-Encoding") == ["chunked"]
        old = await stage.ask(get("/page", version="1.0"))
        assert field_of(old, "Transfer-Encoding") == []
        assert old.endswith(b"\r\n\r\none two")


async def test_an_answer_that_fails_half_way_is_no_whole_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def failing(request: InternalRequest) -> bool:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("a fault of ours")

        return await request.answer_pieces(200, "text/plain", pieces())

    resets: list[bool] = []

    async def ask() -> None:
        async with staged(greet) as stage:
            page(stage, failing)
            client = stage.connect()
            await client.send(get("/page"))
            with trio.CancelScope(shield=True):
                resets.append(await client.is_reset())

    with pytest.raises(ExceptionGroup) as caught:
        await ask()
    assert resets == [True]
    assert caught.group_contains(RuntimeError, match="a fault of ours")


async def test_a_refusal_is_as_any_other(autojump_clock: trio.testing.MockClock) -> None:
    async def refusing(request: InternalRequest) -> bool:
        raise HTTPError(418, "no tea")

    async with staged(greet) as stage:
        page(stage, refusing)
        answer = await stage.ask(get("/page", "Connection: close"))
        assert status_of(answer) == 418


@pytest.mark.parametrize(
    "request_", [handshake(path="/page"), post(b"GET /smuggled HTTP/1.1\r\n\r\n", path="/page")]
)
async def test_nothing_may_follow_an_upgrade_or_a_body(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        page(stage, hello)
        answer = await stage.ask(request_)
        assert status_of(answer) == 200
        assert answer.endswith(b"\r\n\r\nhello")


async def test_a_bad_handshake_never_reaches_a_page(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        page(stage, hello)
        answer = await stage.ask(handshake(path="/page", key="bad"))
        assert status_of(answer) == 400


async def test_a_page_may_take_the_connection_over(autojump_clock: trio.testing.MockClock) -> None:
    async def echo(request: InternalRequest) -> bool:
        assert request.upgrade
        await request.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + request.reader.take_rest())
        buffer = bytearray(100)
        while count := await receive_some(request.channel, buffer):
            await send_all(request.channel, bytes(buffer[:count]).upper())
        return False

    async with staged(greet) as stage:
        page(stage, echo)
        client = stage.connect()
        await client.send(handshake(path="/page") + b"early ")
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.exactly(6) == b"early "
        await client.send(b"later")
        assert await client.exactly(5) == b"LATER"


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    done: list[float] = []

    async def much(request: InternalRequest) -> bool:
        begun = trio.current_time()
        try:
            return await request.answer(200, "text/plain", b"x" * 1_000_000)
        finally:
            done.append(trio.current_time() - begun)

    async with staged(greet, capacity=1000) as stage:
        page(stage, much)
        client = stage.connect()
        await client.send(get("/page"))
        await trio.sleep(2 * STALL_TIMEOUT)
        assert done == [STALL_TIMEOUT]
        assert await client.is_reset()


async def test_a_client_that_takes_too_long_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def endless(request: InternalRequest) -> bool:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(1)
                yield b"more"

        return await request.answer_pieces(200, "text/plain", pieces())

    async with staged(greet) as stage:
        page(stage, endless)
        client = stage.connect()
        await client.send(get("/page"))
        begun = trio.current_time()
        assert await client.is_reset()
        assert trio.current_time() - begun == ANSWER_TIMEOUT
