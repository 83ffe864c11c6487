"""A router whose service is `ping@internal` answers as /ping does, behind its own middlewares."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import field_of, get, greet, handshake, last, post, staged, status_of
from trio_wsb.addresses import parse_network
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.middleware.ip_allow import IPAllowList, IPAllowListOptions
from trio_wsb.proxy.chain import Step
from trio_wsb.proxy.internal import ping
from trio_wsb.proxy.runtime import InternalService, Route
from trio_wsb.proxy.steps import HeadersStep, JudgeStep
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable


def table(*steps: Step) -> RouterTable[Route]:
    return RouterTable(
        [("health", parse_rule("Path(`/health`)"), 0, Route(InternalService("ping@internal", ping), steps))]
    )


async def test_it_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table())
        client = stage.connect()
        for method in ("GET", "POST"):
            await client.send(get("/health?x", method=method))
            head, body = await client.response()
            assert (int(head.split()[1]), body) == (200, b"OK\n")
        await client.send(get("/health", method="HEAD"))
        assert field_of(await client.head(), "Content-Length") == ["3"]
        assert status_of(await stage.ask(last(get("/other")))) == 404
        assert stage.dialled == []


async def test_while_stopping(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table(), ping_status_stopping=418)
        stage.proxy.stop()
        answer = await stage.ask(get("/health"))
        assert status_of(answer) == 418
        assert answer.endswith(b"stopping\n")


@pytest.mark.parametrize(
    "request_", [handshake(path="/health"), post(b"GET /smuggled HTTP/1.1\r\n\r\n", path="/health")]
)
async def test_nothing_may_follow_an_upgrade_or_a_body(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(greet) as stage:
        stage.reload(routers=table())
        answer = await stage.ask(request_)
        assert status_of(answer) == 200
        assert answer.endswith(b"\r\n\r\nOK\n")
        assert stage.dialled == []


async def test_its_middlewares_apply(autojump_clock: trio.testing.MockClock) -> None:
    fields = HeadersStep(HeaderEditor(HeadersOptions(custom_response_headers={"X-Probe": "yes"})))
    guard = JudgeStep(IPAllowList(IPAllowListOptions((parse_network("192.0.2.7"),))))
    async with staged(greet) as stage:
        stage.reload(routers=table(guard, fields))
        client = stage.connect()
        await client.send(get("/health"))
        head, _ = await client.response()
        assert field_of(head, "X-Probe") == ["yes"]
        stranger = stage.connect("198.51.100.1")
        assert status_of(await stranger.ask(last(get("/health")))) == 403
