"""The cache of names: who waits for an answer, and who never does."""

from __future__ import annotations

import math
import socket

import pytest
import structlog.testing
import trio
import trio.testing

from trio_wsb.addresses import BackendURL
from trio_wsb.errors import DialError
from trio_wsb.net.resolver import (
    FAILURE_TTL,
    FORGET_AFTER,
    LOOKUP_TIMEOUT,
    Resolved,
    Resolver,
    system_source,
)
from trio_wsb.net.sockets import SocketAddress
from trio_wsb.proxy.runtime import TransportRuntime
from trio_wsb.proxy.upstream import dial

NAME = "backend.example"
TTL = 30.0


class Answers:
    """A source that answers after `delay` seconds, or fails for as long as `failing` says why."""

    def __init__(self, host: str = "10.0.0.1", *, delay: float = 0.0, ttl: float = TTL) -> None:
        self.host = host
        self.delay = delay
        self.ttl = ttl
        self.failing = ""
        self.asked: list[float] = []

    async def __call__(self, name: str, port: int) -> Resolved:
        self.asked.append(trio.current_time())
        await trio.sleep(self.delay)
        if self.failing:
            raise DialError("resolve", self.failing)
        return Resolved([there(self.host, port)], self.ttl)


def there(host: str, port: int = 80) -> SocketAddress:
    return socket.AF_INET, (host, port)


async def timed(resolver: Resolver) -> tuple[float, str]:
    """Return how long a connection waits for the address, and the address."""
    before = trio.current_time()
    [(_, address)] = await resolver.addresses(NAME, 80)
    return trio.current_time() - before, str(address[0])


async def test_only_the_first_connection_waits(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers(delay=2.0)
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    assert await timed(resolver) == (2.0, "10.0.0.1")
    source.host = "10.0.0.2"
    waits = []
    for _ in range(10 * int(TTL)):
        await trio.sleep(1.0)
        waits.append(await timed(resolver))
    assert max(wait for wait, _ in waits) == 0.0
    assert waits[0][1] == "10.0.0.1"
    assert waits[int(TTL) + 5][1] == "10.0.0.2"
    assert 10 <= len(source.asked) <= 12  # once for each time that the answer was nearly too old


async def test_a_burst_asks_once(autojump_clock: trio.testing.MockClock) -> None:
    source = Answers(delay=1.0)
    resolver = Resolver(source)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(timed, resolver)
    assert len(source.asked) == 1


async def test_a_failure_holds_for_a_moment_only(autojump_clock: trio.testing.MockClock) -> None:
    source = Answers()
    source.failing = "no such name"
    resolver = Resolver(source)
    for _ in range(3):
        with pytest.raises(DialError) as caught:
            await resolver.addresses(NAME, 80)
        assert (caught.value.stage, caught.value.reason) == ("resolve", "no such name")
    assert len(source.asked) == 1
    await trio.sleep(FAILURE_TTL)
    source.failing = ""
    assert (await timed(resolver))[1] == "10.0.0.1"


async def test_questions_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    source = Answers()
    resolver = Resolver(source)
    await resolver.addresses(NAME, 80)
    assert (resolver.answered_total, resolver.failed_total, resolver.failing) == (1, 0, {NAME: False})
    source.failing = "no such name"
    with pytest.raises(DialError):
        await resolver.addresses(NAME, 81)
    assert (resolver.answered_total, resolver.failed_total, resolver.failing) == (1, 1, {NAME: True})
    # Nobody waits for ever; a question that nobody waits for any more has failed.
    source.delay = math.inf
    with trio.move_on_after(5.0):
        await resolver.addresses("slow.example", 80)
    assert (resolver.answered_total, resolver.failed_total) == (1, 2)
    assert resolver.failing == {NAME: True, "slow.example": True}
    source.failing, source.delay = "", 0.0
    await trio.sleep(FAILURE_TTL)
    for name, port in ((NAME, 81), ("slow.example", 80)):
        await resolver.addresses(name, port)
    assert (resolver.answered_total, resolver.failing) == (3, {NAME: False, "slow.example": False})


@pytest.mark.parametrize("trouble", ["no name server answers", "hangs"])
async def test_an_old_answer_is_better_than_none(
    trouble: str, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers()
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    await timed(resolver)
    if trouble == "hangs":
        source.delay = math.inf
    else:
        source.failing = trouble
    with structlog.testing.capture_logs() as logs:
        for _ in range(60):
            await trio.sleep(2.0)
            assert await timed(resolver) == (0.0, "10.0.0.1")
        source.failing, source.delay, source.host = "", 0.0, "10.0.0.2"
        await trio.sleep(LOOKUP_TIMEOUT + 5.0)
        assert (await timed(resolver))[1] == "10.0.0.2"
    assert [line["event"] for line in logs] == [
        "name not resolved, last addresses kept",
        "name resolved again",
    ]


async def test_names_that_nobody_wants_are_forgotten(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers()
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    await timed(resolver)
    await trio.sleep(FORGET_AFTER + 2.0)
    assert len(resolver) == 0
    asked = len(source.asked)
    await trio.sleep(10 * TTL)
    assert len(source.asked) == asked


async def test_who_gives_up_leaves_the_question_to_the_others(autojump_clock: trio.testing.MockClock) -> None:
    source = Answers(delay=3.0)
    resolver = Resolver(source)
    found: list[tuple[float, str]] = []

    async def wait() -> None:
        found.append(await timed(resolver))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1.0):
            nursery.start_soon(_after_a_moment, wait)
            await timed(resolver)
    [(waited, address)] = found
    assert waited == pytest.approx(3.5)
    assert address == "10.0.0.1"
    assert len(source.asked) == 2


async def _after_a_moment(wait: object) -> None:
    await trio.sleep(0.5)
    assert callable(wait)
    await wait()


async def test_without_the_task_a_connection_renews(autojump_clock: trio.testing.MockClock) -> None:
    source = Answers(delay=1.0, ttl=5.0)
    resolver = Resolver(source)
    assert [await timed(resolver) for _ in range(2)] == [(1.0, "10.0.0.1"), (0.0, "10.0.0.1")]
    await trio.sleep(5.0)
    assert (await timed(resolver))[0] == 1.0


async def test_a_dial_uses_it_and_stays_within_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    url = BackendURL("http", NAME, 80)
    resolver = Resolver(Answers(delay=60.0))
    with pytest.raises(DialError, match="timeout"):
        await dial(url, TransportRuntime(2.0, 0.0, None, None), addresses=resolver.addresses)


async def test_the_system_knows_localhost() -> None:
    found = await system_source("localhost", 80)
    assert {address[0] for _, address in found.addresses} <= {"127.0.0.1", "::1"}
    assert found.addresses
