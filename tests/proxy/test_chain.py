"""The chain in its place: order, every ending, what is judged, and what a session keeps of it."""

from __future__ import annotations

import gc
import gzip
import random
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.middleware.helpers import request
from tests.proxy.stage import (
    ACCEPT,
    ANSWER_TIMEOUT,
    Client,
    Script,
    Stage,
    answering,
    cancelling_at_every_step,
    die,
    echo,
    field_of,
    get,
    handshake,
    last,
    ok,
    refuse_dial,
    staged,
    stay_silent,
)
from tests.proxy.world import close_frame
from trio_wsb.http.headers import Headers
from trio_wsb.middleware.basic_auth import BasicAuth, BasicAuthOptions, CredentialCache
from trio_wsb.middleware.breaker import CircuitBreaker, CircuitBreakerOptions, State
from trio_wsb.middleware.compress import Compress, CompressOptions
from trio_wsb.middleware.exchange import Answer
from trio_wsb.middleware.expression import parse_expression
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.middleware.htpasswd import by_name, parse_user
from trio_wsb.middleware.in_flight import InFlightLimiter
from trio_wsb.middleware.source import REQUEST_HOST, Source
from trio_wsb.proxy.chain import Outcome, Passage, RetryPolicy
from trio_wsb.proxy.steps import (
    VERIFYING_AT_ONCE,
    VERIFYING_QUEUED,
    BasicAuthStep,
    BreakerStep,
    CompressStep,
    HeadersStep,
    InFlightStep,
    RetryStep,
)

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
WRONG_101 = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAA\r\n\r\n"
)


@define
class Mark:
    """A step that writes its name everywhere, and gives an answer if it has one."""

    name: str
    answer: Answer | None = None
    taken: list[str] = field(factory=list)
    outcomes: list[Outcome] = field(factory=list)
    ended: int = 0

    async def take(self, passage: Passage) -> Answer | None:
        self.taken.append(passage.request.head.path)
        passage.edit_response(lambda headers: Headers([*headers, ("X-Order", self.name)]))
        passage.judge(self.outcomes.append)
        passage.at_end(self._end)
        return self.answer

    def _end(self) -> None:
        self.ended += 1


class Limit(InFlightStep):
    """inFlightReq for a host, with its figures at hand."""

    def __init__(self, amount: int = 1) -> None:
        self.limiter = InFlightLimiter(amount)
        super().__init__(self.limiter, Source(REQUEST_HOST))


def breaker(expression: str) -> tuple[CircuitBreaker, BreakerStep]:
    made = CircuitBreaker(CircuitBreakerOptions(parse_expression(expression)), random.Random(1))
    return made, BreakerStep("b", made)


# Order.


async def test_steps_are_taken_in_order_and_edit_answers_in_the_opposite_one() -> None:
    async with staged(answering(ok(b"hello", "X-Order: backend"))) as plain:
        assert field_of(await plain.ask(get("/", "Connection: close")), "X-Order") == ["backend"]
    outer, inner = Mark("outer"), Mark("inner")
    async with staged(answering(ok(b"hello", "X-Order: backend")), steps=[outer, inner]) as stage:
        answer = await stage.ask(get("/", "Connection: close"))
        assert field_of(answer, "X-Order") == ["backend", "inner", "outer"]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (echo, 101),
        (answering(FORBIDDEN), 403),
        (answering(WRONG_101), 502),
        (refuse_dial, 502),
        (die, 502),
        (stay_silent, 504),
    ],
)
async def test_edits_reach_every_answer_to_a_handshake(
    script: Script, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    outer, inner = Mark("outer"), Mark("inner")
    async with staged(script, steps=[outer, inner]) as stage:
        client = stage.connect()
        await client.send(handshake())
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert field_of(head, "X-Order") == ["inner", "outer"]
        client.close()
        await client.done.wait()
    for each in (outer, inner):
        assert [outcome.status for outcome in each.outcomes] == [status]
        assert each.ended == 1


@pytest.mark.parametrize(
    ("script", "status", "network_error"),
    [
        (answering(ok()), 200, False),
        (answering(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), 500, False),
        (refuse_dial, 502, True),
        (die, 502, True),
        (answering(b"garbage\r\n\r\n"), 502, True),
        (stay_silent, 504, True),
    ],
)
async def test_what_is_judged_of_a_plain_request(
    script: Script, status: int, network_error: bool, autojump_clock: trio.testing.MockClock
) -> None:
    mark = Mark("m")
    async with staged(script, steps=[mark]) as stage:
        answer = await stage.ask(get("/", "Connection: close"))
        assert field_of(answer, "X-Order") == ["m"]
    assert mark.outcomes == [Outcome(status, network_error)]
    assert mark.ended == 1


async def test_no_backend_is_no_network_error() -> None:
    mark = Mark("m")
    async with staged(echo, max_connections=1, steps=[mark]) as stage:
        client = await stage.open_session()
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 503 ")
        client.close()
        await client.done.wait()
    assert mark.outcomes == [Outcome(101, network_error=False), Outcome(503, network_error=False)]


@pytest.mark.parametrize("asked", [get(), handshake()], ids=["plain", "handshake"])
async def test_a_refusal_ends_the_chain_and_is_edited_by_those_before_it(asked: bytes) -> None:
    outer, refusing, inner = Mark("outer"), Mark("refusing", Answer(429, "no", body=b"no\n")), Mark("inner")
    async with staged(echo, steps=[outer, refusing, inner]) as stage:
        answer = await stage.ask(last(asked))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert answer.endswith(b"\r\n\r\nno\n")
        assert field_of(answer, "X-Order") == ["refusing", "outer"]
        assert stage.dialled == []
    assert not inner.taken
    assert outer.outcomes == [Outcome(429, network_error=False)]
    assert (outer.ended, refusing.ended) == (1, 1)


async def test_a_refusal_of_a_head_request_has_no_body() -> None:
    async with staged(echo, steps=[Mark("m", Answer(429, "no", body=b"no\n"))]) as stage:
        answer = await stage.ask(last(get(method="HEAD")))
        assert answer.endswith(b"\r\n\r\n")
        assert field_of(answer, "Content-Length") == ["3"]


async def test_a_request_without_a_router_passes_no_step() -> None:
    mark = Mark("m")
    async with staged(echo, rule="Path(`/other`)", steps=[mark]) as stage:
        answer = await stage.ask(last(get()))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert not field_of(answer, "X-Order")
    assert not mark.taken


async def test_each_request_of_a_connection_has_a_passage_of_its_own() -> None:
    mark = Mark("m")
    async with staged(answering(ok(b"x")), steps=[mark]) as stage:
        client = stage.connect()
        for number in (1, 2, 3):
            await client.send(get(f"/{number}"))
            head, _ = await client.response()
            assert field_of(head, "X-Order") == ["m"]
            assert mark.ended == number
        client.close()
        await client.done.wait()
    assert mark.taken == ["/1", "/2", "/3"]
    assert (mark.ended, len(mark.outcomes)) == (3, 3)


async def test_an_answer_of_headers_itself_is_complete() -> None:
    options = HeadersOptions(
        access_control_allow_origin_list=("https://page",),
        frame_deny=True,
        custom_response_headers={"X-Set": "1"},
        allowed_hosts=("chat.example",),
    )
    async with staged(echo, steps=[HeadersStep(HeaderEditor(options))]) as stage:
        preflight = ("Origin: https://page", "Access-Control-Request-Method: PUT")
        answer = await stage.ask(last(get("/", *preflight, method="OPTIONS")))
        assert field_of(answer, "Access-Control-Allow-Origin") == ["https://page"]
        assert not field_of(answer, "X-Set")
        answer = await stage.ask(last(get().replace(b"chat.example", b"other.example")))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert field_of(answer, "X-Set") == ["1"]


# Every ending gives back what was taken.


async def test_a_session_holds_its_place_until_its_end() -> None:
    limit = Limit()
    async with staged(echo, steps=[limit]) as stage:
        client = await stage.open_session()
        assert limit.limiter.total == 1
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 429 ")
        assert (await stage.ask(last(get()))).startswith(b"HTTP/1.1 429 ")
        assert limit.limiter.total == 1
        await client.send(close_frame(1000, mask=True))
        client.close()
        await client.done.wait()
        assert limit.limiter.total == 0
        again = await stage.open_session()
        again.scope.cancel()
        await again.done.wait()
        assert limit.limiter.total == 0


async def test_a_client_that_leaves_during_the_handshake_holds_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limit, mark = Limit(), Mark("m")
    async with staged(stay_silent, steps=[limit, mark]) as stage:
        client = stage.connect()
        await client.send(handshake())
        await trio.sleep(1)
        assert limit.limiter.total == 1
        client.abort()
        await client.done.wait()
        assert limit.limiter.total == 0
        assert trio.current_time() < ANSWER_TIMEOUT
    assert (mark.outcomes, mark.ended) == ([], 1)


@pytest.mark.parametrize("asked", [handshake(), get("/", "Connection: close")], ids=["session", "plain"])
async def test_a_connection_cancelled_at_any_step_holds_nothing(
    asked: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    limit = Limit()

    async def play(stage: Stage, client: Client) -> None:
        await client.send(asked + close_frame(1000, mask=True))

    def nothing_held() -> None:
        assert limit.limiter.total == 0

    script = echo if asked == handshake() else answering(ok(b"x" * 100))
    await cancelling_at_every_step([script], play, steps=[limit], after=nothing_held)


# The breaker.


async def test_a_breaker_judges_the_handshake_and_not_the_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    circuit, step = breaker("LatencyAtQuantileMS(50.0) > 1000")
    async with staged(echo, steps=[step]) as stage:
        client = await stage.open_session()
        await trio.sleep(3600)
        client.close()
        await client.done.wait()
        assert (await stage.open_session()).channel is not None
        assert circuit.state is State.CLOSED


async def test_a_breaker_opens_on_handshakes_that_fail(autojump_clock: trio.testing.MockClock) -> None:
    circuit, step = breaker("NetworkErrorRatio() > 0.5")
    async with staged(refuse_dial, steps=[step]) as stage:
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 502 ")
        assert circuit.state is State.OPEN
        assert stage.events("circuit breaker opened")[0]["middleware"] == "b"
        tried = len(stage.dialled)
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 503 ")
        assert len(stage.dialled) == tried


async def test_a_breaker_does_not_count_the_time_before_it(autojump_clock: trio.testing.MockClock) -> None:
    class Slow:
        async def take(self, passage: Passage) -> Answer | None:
            await trio.sleep(5)
            return None

    outer, step = breaker("LatencyAtQuantileMS(50.0) > 1000")
    async with staged(echo, steps=[Slow(), step]) as stage:
        await stage.open_session()
        assert outer.state is State.CLOSED
    inner, step = breaker("LatencyAtQuantileMS(50.0) > 1000")
    async with staged(echo, steps=[step, Slow()]) as stage:
        await stage.open_session()
        assert inner.state is State.OPEN


# Retry.


def policy(attempts: int, *pauses: float) -> RetryStep:
    def made() -> Iterator[float]:
        return iter(pauses)

    return RetryStep(RetryPolicy(attempts, made))


async def test_retry_tries_as_often_as_it_says_and_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(refuse_dial, refuse_dial, echo, steps=[policy(2, 7.0)]) as stage:
        begun = trio.current_time()
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 502 ")
        assert trio.current_time() - begun == 7
        assert len(stage.dialled) == 2


async def test_retry_goes_round_when_every_backend_has_failed(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(refuse_dial, steps=[policy(4, 1.0, 2.0, 4.0)]) as stage:
        begun = trio.current_time()
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 502 ")
        assert trio.current_time() - begun == 7
        assert stage.dialled == ["b1"] * 4


async def test_one_attempt_is_no_retry(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(refuse_dial, echo, steps=[policy(1)]) as stage:
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 502 ")
        assert stage.dialled == ["b1"]


async def test_each_request_has_pauses_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(refuse_dial, steps=[policy(2, 3.0)]) as stage:
        for _ in range(2):
            begun = trio.current_time()
            await stage.ask(handshake())
            assert trio.current_time() - begun == 3


# Compress.

PAGE = b"the same words again and again\n" * 100
TEXT = "Content-Type: text/plain"
COMPRESS = CompressStep(Compress(CompressOptions()))


async def test_compress_of_a_plain_answer() -> None:
    async with staged(answering(ok(PAGE, TEXT)), steps=[COMPRESS, Mark("m")]) as stage:
        client = stage.connect()
        await client.send(get("/", "Accept-Encoding: gzip"))
        head = await client.head()
        assert field_of(head, "Content-Encoding") == ["gzip"]
        assert field_of(head, "Transfer-Encoding") == ["chunked"]
        assert field_of(head, "X-Order") == ["m"]
        body = b""
        while size := int(await client.until(b"\r\n"), 16):
            body += await client.exactly(size)
            await client.until(b"\r\n")
        assert gzip.decompress(body) == PAGE
        client.close()


async def test_compress_for_http_1_0_ends_with_the_connection() -> None:
    async with staged(answering(ok(PAGE, TEXT)), steps=[COMPRESS]) as stage:
        answer = await stage.ask(get("/", "Accept-Encoding: gzip", version="1.0"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert field_of(head + b"\r\n\r\n", "Connection") == ["close"]
        assert b"chunked" not in head
        assert gzip.decompress(body) == PAGE


async def test_compress_leaves_head_and_sessions_alone() -> None:
    head_only = answering(ok(PAGE, TEXT).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    async with staged(head_only, steps=[COMPRESS]) as stage:
        answer = await stage.ask(get("/", "Accept-Encoding: gzip", "Connection: close", method="HEAD"))
        assert field_of(answer, "Content-Length") == [str(len(PAGE))]
        assert not field_of(answer, "Content-Encoding")
    async with staged(echo, steps=[COMPRESS]) as stage:
        client = stage.connect()
        await client.send(handshake("Accept-Encoding: gzip"))
        head = await client.head()
        assert ACCEPT.encode() in head
        assert not field_of(head, "Content-Encoding")
        client.close()


# Memory.


def passages() -> list[Passage]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Passage)]


async def test_a_session_that_took_nothing_keeps_nothing_of_its_passage() -> None:
    editor = HeaderEditor(HeadersOptions(custom_response_headers={"X-Set": "1"}))
    _, judging = breaker("NetworkErrorRatio() > 0.5")
    async with staged(echo, steps=[HeadersStep(editor), judging, policy(2, 1.0), COMPRESS]) as stage:
        client = await stage.open_session()
        await trio.testing.wait_all_tasks_blocked()
        assert passages() == []
        client.close()


async def test_a_session_that_took_something_keeps_that_alone() -> None:
    limit = Limit()
    async with staged(echo, steps=[limit, Mark("m")]) as stage:
        client = await stage.open_session()
        await trio.testing.wait_all_tasks_blocked()
        assert passages() == []
        assert limit.limiter.total == 1
        client.close()
        await client.done.wait()
        assert limit.limiter.total == 0


# basicAuth.


class Slow(BasicAuth):
    """Verifies only when it may."""

    def __init__(self) -> None:
        users = by_name([parse_user("ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=")])
        super().__init__(BasicAuthOptions(tuple(users.values())), users, CredentialCache(bytes(32)))
        self.may = trio.Event()
        self.verified = 0

    def verify(self, credentials: object) -> bool:
        trio.from_thread.run(self.may.wait)
        self.verified += 1
        return True


async def test_passwords_are_verified_off_the_loop_and_only_so_many_wait() -> None:
    auth = Slow()
    step = BasicAuthStep(auth)
    asked = request("/", [("Authorization", "Basic YWRhOnBhc3N3b3Jk")])
    answers: list[Answer | None] = []

    async def ask() -> None:
        answers.append(await step.take(Passage(asked)))

    async with trio.open_nursery() as nursery:
        for _ in range(VERIFYING_AT_ONCE + VERIFYING_QUEUED):
            nursery.start_soon(ask)
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        await ask()
        [refused] = answers
        assert refused is not None
        assert (refused.status, refused.headers) == (503, (("Retry-After", "1"),))
        auth.may.set()
    assert answers[1:] == [None] * (VERIFYING_AT_ONCE + VERIFYING_QUEUED)
    verified = auth.verified
    await ask()
    assert answers[-1] is None
    assert auth.verified == verified  # it is remembered now
