"""Backends that are hostile: answers that never come to an end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.proxy.stage import End, get, handshake, ok, staged, status_of
from trio_wsb.proxy.upstream import MAX_INTERIM

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes", [handshake(), get("/", "Connection: close")], ids=["upgrade", "plain"]
)
async def test_interim_answers_without_end_are_bounded(
    request_bytes: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 9110 section 15.2 allows any number of them; a flood would leave nobody else a turn, and no deadline a chance."""
    sent = 0

    async def flood(end: End) -> None:
        nonlocal sent
        await end.head()
        while True:
            await end.send(INTERIM)
            sent += 1

    async with staged(flood, capacity=1 << 20) as stage:
        answer = await stage.ask(request_bytes)
        passed = answer.count(INTERIM)
        assert status_of(answer[passed * len(INTERIM) :]) == 502
        assert passed in {0, MAX_INTERIM}
        assert stage.backends[0].failures_total == 1


async def test_as_many_as_anybody_needs_pass(autojump_clock: trio.testing.MockClock) -> None:
    async def patient(end: End) -> None:
        await end.head()
        for _ in range(MAX_INTERIM):
            await end.send(INTERIM)
        await end.send(ok(b"at last"))

    async with staged(patient) as stage:
        answer = await stage.ask(get("/", "Connection: close"))
        assert answer.count(INTERIM) == MAX_INTERIM
        assert answer.endswith(b"at last")
