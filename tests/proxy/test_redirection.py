"""Redirections of an entry point, and the connections that go on after answers of our own."""

from __future__ import annotations

import pytest
import trio.testing

from tests.proxy.stage import End, field_of, get, greet, handshake, last, ok, post, staged, status_of
from trio_wsb.middleware.exchange import Answer
from trio_wsb.proxy.redirection import Redirection
from trio_wsb.proxy.runtime import Route
from trio_wsb.proxy.steps import JudgeStep
from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable


class No:
    """Says no to everybody."""

    def judge(self, _: object) -> Answer:
        return Answer(401, "no", body=b"no\n")


def table(redirection: Redirection, priority: int = 2**62) -> RouterTable[Route]:
    return RouterTable([("to", redirection.rule, priority, Route(redirection.service))])


@pytest.mark.parametrize(
    ("request_", "status", "location"),
    [
        (get("/a?b=c"), 301, "https://chat.example:8443/a?b=c"),
        (get("/a", method="POST"), 308, "https://chat.example:8443/a"),
        (get("/").replace(b"chat.example", b"[2001:db8::1]:80"), 301, "https://[2001:db8::1]:8443/"),
        (get("/").replace(b"chat.example", b"chat.example:8443"), 301, "https://chat.example:8443/"),
    ],
)
async def test_requests_are_sent_away(
    request_: bytes, status: int, location: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table(Redirection("https", 8443, permanent=True)))
        answer = await stage.ask(last(request_))
        assert status_of(answer) == status
        assert field_of(answer, "Location") == [location]
        assert stage.dialled == []


async def test_a_handshake_is_sent_away_and_is_the_last_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table(Redirection("https", 443, permanent=False)))
        answer = await stage.ask(handshake(path="/chat") + get("/smuggled"))
        assert status_of(answer) == 302
        assert field_of(answer, "Location") == ["https://chat.example/chat"]


async def test_without_a_host_there_is_nowhere_to_go(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table(Redirection("https", 443, permanent=True)))
        assert status_of(await stage.ask(b"GET / HTTP/1.0\r\n\r\n")) == 400
        assert stage.dialled == []


async def test_what_is_there_already_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet, trusted=["192.0.2.7"]) as stage:
        redirection = Redirection("https", 443, permanent=True)
        found = stage.proxy.runtime.entry_points["web"].routers.find(RequestView.of("chat.example", "/"))
        assert found is not None
        stage.reload(
            routers=RouterTable(
                [
                    ("all", parse_rule("PathPrefix(`/`)"), 0, found[1]),
                    ("to", redirection.rule, 2**62, Route(redirection.service)),
                ]
            )
        )
        for said in ("https", "wss"):
            client = stage.connect()
            await client.send(get("/x", f"X-Forwarded-Proto: {said}"))
            assert (await client.response())[1] == b"/x"
        stranger = stage.connect("198.51.100.1")
        assert status_of(await stranger.ask(last(get("/x", "X-Forwarded-Proto: https")))) == 301


# Connections that go on.


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_connection_goes_on_after_answers_of_our_own(
    method: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet, rule="Path(`/known`)") as stage:
        client = stage.connect()
        for _ in range(3):
            await client.send(get("/unknown", method=method))
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 404 ")
            assert field_of(head, "Connection") == []
            if method != "HEAD":
                await client.exactly(int(field_of(head, "Content-Length")[0]))
        await client.send(get("/known"))
        assert (await client.response())[1] == b"/known"
        assert trio.current_time() == 0


async def test_pipelined_requests_behind_a_refusal_are_answered_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with staged(greet, steps=[JudgeStep(No())]) as stage:
        client = stage.connect()
        await client.send(get("/1") * 50 + last(get("/2")))
        answers = await client.rest()
        assert answers.count(b"HTTP/1.1 401 ") == 51
        assert answers.count(b"Connection: close") == 1
        assert stage.dialled == []


@pytest.mark.parametrize(
    "request_",
    [post(get("/smuggled"), path="/unknown"), handshake(path="/unknown"), get("/unknown", version="1.0")],
    ids=["body", "handshake", "HTTP/1.0"],
)
async def test_a_connection_that_cannot_go_on(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet, rule="Path(`/smuggled`)") as stage:
        assert status_of(await stage.ask(request_ + get("/smuggled"))) == 404
        assert stage.dialled == []


async def test_a_failed_backend_costs_no_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with staged() as stage:
        client = stage.connect()
        for _ in range(2):
            await client.send(get())
            head, _ = await client.response()
            assert head.startswith(b"HTTP/1.1 503 ")


async def test_while_stopping_a_refusal_is_the_last_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet, rule="Path(`/known`)") as stage:
        stage.proxy.stop()
        assert status_of(await stage.ask(get("/unknown"))) == 404


async def test_every_answer_has_a_date_and_only_one(autojump_clock: trio.testing.MockClock) -> None:
    async def backend(end: End) -> None:
        head = await end.head()
        lines = ["Date: Tue, 15 Nov 1994 08:12:31 GMT"] if b"/dated" in head else []
        await end.send(ok(b"x", *lines))

    async with staged(backend, rule="PathPrefix(`/known`)", wall_clock=lambda: 784111777.9) as stage:
        for path, date in {
            "/known": "Sun, 06 Nov 1994 08:49:37 GMT",
            "/known/dated": "Tue, 15 Nov 1994 08:12:31 GMT",
            "/unknown": "Sun, 06 Nov 1994 08:49:37 GMT",
            "/ping": "Sun, 06 Nov 1994 08:49:37 GMT",
        }.items():
            assert field_of(await stage.ask(last(get(path))), "Date") == [date]
