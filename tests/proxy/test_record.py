"""Records: observers are told of each request and session once, with what became of it and where it failed."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.proxy.stage import (
    ANSWER_TIMEOUT,
    READ_TIMEOUT,
    Client,
    Script,
    Stage,
    answering,
    cancelling_at_every_step,
    die,
    echo,
    get,
    greet,
    handshake,
    ok,
    post,
    refuse_dial,
    staged,
    stay_silent,
)
from tests.proxy.world import close_frame
from trio_wsb.addresses import parse_ip
from trio_wsb.errors import HTTPError
from trio_wsb.middleware.basic_auth import BasicAuth, BasicAuthOptions, CredentialCache
from trio_wsb.middleware.htpasswd import parse_user
from trio_wsb.middleware.ip_allow import IPAllowList, IPAllowListOptions
from trio_wsb.proxy.record import CLIENT_LEFT, RequestRecord
from trio_wsb.proxy.record import Stage as At
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.steps import BasicAuthStep, JudgeStep


@define
class Witness:
    """An observer that keeps what it is told."""

    requests: list[RequestRecord] = field(factory=list)
    opened: list[tuple[Session, RequestRecord]] = field(factory=list)
    ended: list[Session] = field(factory=list)

    def request_ended(self, record: RequestRecord) -> None:
        assert record.ended is not None
        assert record.ended >= record.started
        self.requests.append(record)

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        assert session.id
        assert session.opened_at == record.ended
        self.opened.append((session, record))

    def session_ended(self, session: Session) -> None:
        assert session.ended_at is not None
        self.ended.append(session)


@asynccontextmanager
async def witnessed(*scripts: Script, **options: Any) -> AsyncIterator[tuple[Stage, Witness]]:
    async with staged(*scripts, **options) as stage:
        witness = Witness()
        stage.proxy.observers = (witness,)
        yield stage, witness


async def test_a_plain_request(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(answering(ok(b"hello", "X-A: b"))) as (stage, witness):
        client = stage.connect()
        await client.send(post(b"abc", path="/a?b=c"))
        await client.rest()
    (record,) = witness.requests
    assert (record.entry_point, record.router, record.service, record.number) == ("web", "all", "chat", 1)
    assert record.head is not None
    assert record.head.target == "/a?b=c"
    assert record.client == parse_ip("192.0.2.7")
    assert record.client_text == "192.0.2.7:50000"
    assert (record.stage, record.status, record.origin_status) == (At.ANSWER, 200, 200)
    assert (record.bytes_in, record.bytes_out, record.origin_bytes) == (3, 5, 5)
    assert record.backend is stage.backends[0]
    assert record.tries == 1
    assert record.answer is not None
    assert record.answer.get("x-a") == "b"
    assert record.origin_duration is not None
    assert (record.upgrade, record.internal, record.reason) == (False, False, "")


async def test_chunks_are_counted_without_their_framing(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    async with witnessed(answering(answer)) as (stage, witness):
        client = stage.connect()
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nwxyz\r\n0\r\n\r\n")
        await client.rest()
    (record,) = witness.requests
    assert (record.bytes_in, record.bytes_out, record.origin_bytes) == (4, 5, 5)


async def test_each_request_of_a_connection_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(greet) as (stage, witness):
        client = stage.connect()
        for path in ("/a", "/ping", "/c"):
            await client.send(get(path))
            await client.response()
        client.close()
        await client.done.wait()
    assert [(each.number, each.service, each.status, each.bytes_out) for each in witness.requests] == [
        (1, "chat", 200, 2),
        (2, "ping@internal", 200, 3),
        (3, "chat", 200, 2),
    ]
    assert [each.internal for each in witness.requests] == [False, True, False]


async def test_a_session(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(refuse_dial, echo) as (stage, witness):
        client = await stage.open_session()
        ((session, record),) = witness.opened
        assert (record.upgrade, record.status, record.tries) == (True, 101, 2)
        assert record.backend is stage.backends[1] is session.backend
        assert witness.ended == []
        await trio.sleep(30)
        await client.send(close_frame(1000, mask=True))
        await client.rest()
        client.close()
        await client.done.wait()
    assert witness.ended == [session]
    assert witness.requests == []
    assert (session.close_code, session.closed_by, session.cause) == (1000, "client", "client_closed")
    assert 30.0 <= session.duration < 50.0


async def test_a_live_session_keeps_no_record(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(echo) as (stage, witness):
        client = await stage.open_session()
        assert len(witness.opened) == 1
        witness.opened.clear()
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is RequestRecord]
        client.close()


REFUSALS: list[tuple[str, bytes, tuple[Script, ...], int, At, int]] = [
    ("malformed", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", (), 400, At.HEAD, 0),
    ("not routed", get("/elsewhere"), (), 404, At.ROUTING, 0),
    ("no handshake", handshake("Sec-WebSocket-Key: x"), (echo,), 400, At.HEAD, 0),
    ("no backend", handshake(), (refuse_dial, refuse_dial), 502, At.DIAL, 2),
    ("silence", handshake(), (die,), 502, At.HANDSHAKE, 1),
    ("timeout", handshake(), (stay_silent,), 504, At.HANDSHAKE, 1),
    (
        "no 101",
        handshake(),
        (answering(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"),),
        502,
        At.HANDSHAKE,
        1,
    ),
    ("refused by the backend", handshake(), (answering(ok(b"no")),), 200, At.ANSWER, 1),
    ("nobody there", handshake(), (), 503, At.CHOOSING, 0),
]


@pytest.mark.parametrize(
    ("request_", "scripts", "status", "at", "tries"),
    [each[1:] for each in REFUSALS],
    ids=[each[0] for each in REFUSALS],
)
async def test_where_it_failed(
    request_: bytes,
    scripts: tuple[Script, ...],
    status: int,
    at: At,
    tries: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with witnessed(*scripts, rule="!Path(`/elsewhere`)") as (stage, witness):
        client = stage.connect()
        await client.send(request_)
        await client.rest()
        (record,) = witness.requests
        assert (record.status, record.stage, record.tries) == (status, at, tries)
        assert (record.reason == "") == (at is At.ANSWER)
        assert record.origin_status == (status if at is At.ANSWER else 101 if record.origin_status else 0)
        assert record.bytes_out > 0
        client.close()
        await client.done.wait()
    assert len(witness.requests) == 1
    assert witness.opened == []


async def test_a_refusal_is_told_before_the_client_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with witnessed() as (stage, witness):
        client = stage.connect()
        await client.send(b"nonsense\r\n\r\n")
        await client.head()
        await trio.testing.wait_all_tasks_blocked()
        assert [each.status for each in witness.requests] == [400]
        assert witness.requests[0].head is None


async def test_a_head_that_does_not_come_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed() as (stage, witness):
        client = stage.connect()
        await client.send(b"GET / HT")
        await trio.sleep(READ_TIMEOUT + 10)
        client.close()
        await client.done.wait()
    (record,) = witness.requests
    assert (record.status, record.stage, record.head) == (408, At.HEAD, None)


async def test_a_client_that_says_nothing_is_no_request(autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed() as (stage, witness):
        stage.connect().close()
        await trio.sleep(READ_TIMEOUT + 10)
    assert witness.requests == []


@pytest.mark.parametrize("request_", [get(), handshake()])
async def test_a_client_that_leaves(request_: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with witnessed(stay_silent) as (stage, witness):
        client = stage.connect()
        await client.send(request_)
        await trio.sleep(1)
        client.close()
        await client.done.wait()
    (record,) = witness.requests
    assert (record.status, record.stage, record.reason) == (CLIENT_LEFT, At.HANDSHAKE, "the client left")


async def test_an_answer_that_breaks_off(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    async with witnessed(answering(answer)) as (stage, witness):
        client = stage.connect()
        await client.send(get())
        assert await client.is_reset()
        await client.done.wait()
    (record,) = witness.requests
    assert (record.status, record.bytes_out, record.reason) == (200, 5, "the response broke off")


async def test_the_middleware_and_the_user_name(autojump_clock: trio.testing.MockClock) -> None:
    user = parse_user("bob:{SHA}Sbz+R4mI8ZkLlUOzvFxOfDbLVwg=")  # never right here
    auth = BasicAuth(BasicAuthOptions(), {user.name: user}, CredentialCache(bytes(32)))
    async with witnessed(greet, steps=[BasicAuthStep(auth)]) as (stage, witness):
        await stage.ask(get("/", "Authorization: Basic Ym9iOnNlY3JldA=="))
    (record,) = witness.requests
    assert (record.status, record.stage, record.username) == (401, At.MIDDLEWARE, "bob")

    forbidden = JudgeStep(IPAllowList(IPAllowListOptions(source_range=())))
    async with witnessed(greet, steps=[forbidden]) as (stage, witness):
        await stage.ask(get())
    assert [(each.status, each.stage) for each in witness.requests] == [(403, At.MIDDLEWARE)]


async def test_observers_may_be_replaced_and_fail(autojump_clock: trio.testing.MockClock) -> None:
    @define
    class Broken(Witness):
        def request_ended(self, record: RequestRecord) -> None:
            raise HTTPError(500, "what an observer does is its own affair")

    async with staged(greet) as stage:
        witness = Witness()
        stage.proxy.observers = (Broken(), witness)
        await stage.ask(get("/", "Connection: close"))
        assert len(witness.requests) == 1
        assert [each["observer"] for each in stage.events("internal error in an observer")] == ["Broken"]
        stage.proxy.observers = ()
        await stage.ask(get("/", "Connection: close"))
        assert len(witness.requests) == 1


@pytest.mark.parametrize("scripts", [(echo,), (stay_silent,)])
async def test_told_once_wherever_it_is_cancelled(
    scripts: tuple[Script, ...], autojump_clock: trio.testing.MockClock
) -> None:
    witness = Witness()

    async def play(stage: Stage, client: Client) -> None:
        stage.proxy.observers = (witness,)
        await client.send(handshake())
        with trio.move_on_after(ANSWER_TIMEOUT / 2):
            await client.rest()
        await client.send(close_frame(1000, mask=True))
        await client.rest()

    def check() -> None:
        assert len(witness.opened) == len(witness.ended)
        assert len(witness.opened) + len(witness.requests) <= 1
        for record in witness.requests:
            assert record.reason
        witness.requests.clear()
        witness.opened.clear()
        witness.ended.clear()

    await cancelling_at_every_step(scripts, play, after=check)
