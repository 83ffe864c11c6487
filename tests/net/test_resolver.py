"""The cache of names: who waits for an answer, and who never does."""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Iterable
from itertools import pairwise

import pytest
import structlog.testing
import trio
import trio.testing

from trio_wsb.addresses import BackendURL
from trio_wsb.errors import DialError
from trio_wsb.net import sockets
from trio_wsb.net.resolver import (
    FAILURE_TTL,
    FORGET_AFTER,
    LONGEST_PAUSE,
    LOOKUP_TIMEOUT,
    SHORTEST_TTL,
    Resolved,
    Resolver,
    system_source,
)
from trio_wsb.net.sockets import SocketAddress, dial_tcp
from trio_wsb.proxy.runtime import TransportRuntime
from trio_wsb.proxy.upstream import dial

NAME = "backend.example"
TTL = 30.0
IN_TIME = TransportRuntime(2.0, 0.0, None, None)


class Answers:
    """A source that answers after `delay` seconds, with `more` beside `host`, or fails for as long as `failing` says why."""

    def __init__(self, host: str = "10.0.0.1", *, delay: float = 0.0, ttl: float = TTL) -> None:
        self.host = host
        self.delay = delay
        self.ttl = ttl
        self.failing = ""
        self.more: list[SocketAddress] = []
        self.asked: list[float] = []

    async def __call__(self, name: str, port: int) -> Resolved:
        self.asked.append(trio.current_time())
        await trio.sleep(self.delay)
        if self.failing:
            raise DialError("resolve", self.failing)
        return Resolved([there(self.host, port), *self.more], self.ttl)


def there(host: str, port: int = 80) -> SocketAddress:
    return socket.AF_INET, (host, port)


async def known(nursery: trio.Nursery) -> tuple[Answers, Resolver]:
    """Return a resolver that runs and has its first answer, and whoever gave it."""
    source = Answers()
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    await timed(resolver)
    return source, resolver


async def timed(resolver: Resolver) -> tuple[float, str]:
    """Return how long a connection waits for the address, and the address."""
    before = trio.current_time()
    [(_, address)] = (await resolver.addresses(NAME, 80)).addresses
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
    source, resolver = await known(nursery)
    if trouble == "hangs":
        source.delay = math.inf
    else:
        source.failing = trouble
    with structlog.testing.capture_logs() as logs:
        for _ in range(60):
            await trio.sleep(2.0)
            assert await timed(resolver) == (0.0, "10.0.0.1")
        source.failing, source.delay, source.host = "", 0.0, "10.0.0.2"
        await trio.sleep(LONGEST_PAUSE + LOOKUP_TIMEOUT + 5.0)
        assert (await timed(resolver))[1] == "10.0.0.2"
    assert [line["event"] for line in logs] == [
        "name not resolved, last addresses kept",
        "name resolved again",
    ]


async def test_names_that_nobody_wants_are_forgotten(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source, resolver = await known(nursery)
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
        await dial(url, IN_TIME, addresses=resolver.addresses)


class Network:
    """Where dials go: `hosts` accept, others fail with `code`, or never answer if that is 0. Nothing leaves this process."""

    def __init__(self, hosts: Iterable[str] = (), code: int = errno.ECONNREFUSED) -> None:
        self.hosts = set(hosts)
        self.code = code
        self.dialled: list[str] = []

    def begin(self, family: int, address: tuple[str, int]) -> tuple[socket.socket, bool]:
        self.dialled.append(address[0])
        if address[0] not in self.hosts and self.code:
            raise sockets._dial_error(self.code)
        return socket.socket(), address[0] in self.hosts

    async def finish(self, sock: socket.socket) -> None:
        with sock:
            await trio.sleep_forever()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(sockets, "_begin", made.begin)
    monkeypatch.setattr(sockets, "_finish", made.finish)
    return made


async def reached(resolver: Resolver) -> str:
    """Dial as a connection does, within 2 s; return the stage at which it failed, "" if it did not."""
    try:
        (await dial(BackendURL("http", NAME, 80), IN_TIME, addresses=resolver.addresses)).release()
    except DialError as error:
        return error.stage
    return ""


@pytest.mark.parametrize("code", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, 0])
async def test_a_backend_that_moved_is_found_by_the_next_connection(
    code: int, network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers()
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    network.hosts, network.code = {"10.0.0.1"}, code
    assert await reached(resolver) == ""
    await trio.sleep(5.0)
    source.host, source.delay, network.hosts = "10.0.0.2", 0.5, {"10.0.0.2"}
    failed_at = trio.current_time() + (0.0 if code else IN_TIME.dial_timeout)
    assert await reached(resolver) == ("connect" if code else "timeout")
    assert trio.current_time() == failed_at  # nobody waits for the question
    await trio.testing.wait_all_tasks_blocked()
    assert source.asked[1:] == [failed_at]
    # What is known stays in use meanwhile.
    assert await timed(resolver) == (0.0, "10.0.0.1")
    await trio.sleep(0.6)
    assert await reached(resolver) == ""
    assert network.dialled == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]


async def test_doubts_of_many_are_one_question_a_second(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source, resolver = await known(nursery)
    await trio.sleep(5.25)
    begun = trio.current_time()
    for _ in range(40):
        async with trio.open_nursery() as clients:
            for _ in range(20):
                clients.start_soon(reached, resolver)
        await trio.sleep(0.1)
    doubted = [at - begun for at in source.asked[1:]]
    assert doubted[0] == 0.0
    assert all(later - sooner >= SHORTEST_TTL for sooner, later in pairwise(doubted))
    assert 3 <= len(doubted) <= 5
    # The last doubts came too soon after a question, and lead to one more, though nobody dials any more.
    await trio.sleep(5.0)
    asked = len(source.asked)
    assert source.asked[-1] - begun > doubted[-1]
    await trio.sleep(TTL - 10.0)
    assert len(source.asked) == asked


async def test_a_doubt_while_a_question_is_under_way_leads_to_no_other(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source, resolver = await known(nursery)
    await trio.sleep(5.0)
    source.delay = 4.0
    for _ in range(4):
        assert await reached(resolver) == "connect"
        await trio.sleep(0.9)
    assert len(source.asked) == 2
    await trio.sleep(10.0)
    assert len(source.asked) == 2  # it is answered, and nobody has doubted that answer


async def test_what_is_not_doubted(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers()
    source.more = [there("10.0.0.9")]
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    network.hosts = {"10.0.0.9"}
    old = await resolver.addresses(NAME, 80)
    await trio.sleep(5.0)
    assert await reached(resolver) == ""  # at the second address
    network.hosts, network.code = set(), errno.EMFILE
    assert await reached(resolver) == "own"
    network.code = 0
    with trio.move_on_after(1.0):
        await reached(resolver)  # a client that leaves
    await trio.sleep(5.0)
    assert len(source.asked) == 1
    # An answer that is not the one in use any more, nor has all of its addresses.
    source.more = [there("10.0.0.8")]
    old.doubt()
    await trio.sleep(5.0)
    assert len(source.asked) == 2
    old.doubt()
    await trio.sleep(5.0)
    assert len(source.asked) == 2
    # The same addresses in another order are doubted all the same: name servers turn them round.
    new = await resolver.addresses(NAME, 80)
    source.host, source.more = "10.0.0.8", [there("10.0.0.1")]
    new.doubt()
    await trio.sleep(5.0)
    new.doubt()
    await trio.sleep(5.0)
    assert len(source.asked) == 4


async def test_a_doubt_about_a_name_that_is_forgotten(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers(ttl=2 * FORGET_AFTER)
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    found = await resolver.addresses(NAME, 80)
    await trio.sleep(FORGET_AFTER + 2.0)
    found.doubt()
    await trio.sleep(5.0)
    assert (len(resolver), len(source.asked)) == (0, 1)


async def test_without_the_task_a_doubt_lets_the_next_connection_ask(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    source = Answers()
    resolver = Resolver(source)
    assert [await reached(resolver) for _ in range(2)] == ["connect"] * 2
    assert len(source.asked) == 1
    source.host, network.hosts = "10.0.0.2", {"10.0.0.2"}
    await trio.sleep(SHORTEST_TTL)
    assert await reached(resolver) == ""


async def test_a_doubt_when_the_task_has_ended_starts_nothing(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    source = Answers()
    resolver = Resolver(source)
    async with trio.open_nursery() as background:
        background.start_soon(resolver.run)
        await trio.testing.wait_all_tasks_blocked()
        found = await resolver.addresses(NAME, 80)
        await trio.sleep(5.0)
        source.delay = math.inf
        found.doubt()
        await trio.sleep(1.5)
        background.cancel_scope.cancel()
        # In the turn of the loop in which the task and its question are cancelled, and after it.
        found.doubt()
    found.doubt()
    await trio.sleep(5.0)
    assert (len(source.asked), resolver.answered_total, resolver.failed_total) == (2, 1, 1)


async def test_a_name_that_keeps_failing_is_asked_about_less_and_less(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source, resolver = await known(nursery)

    def pauses(since: int) -> list[float]:
        return [round(later - sooner, 3) for sooner, later in pairwise(source.asked[since:])]

    for _ in range(2):  # an answer begins it anew
        since = len(source.asked)
        source.failing = "no name server answers"
        await trio.sleep(TTL + 1 + 2 + 4 + 8 + 16 + 2 * LONGEST_PAUSE)
        assert pauses(since) == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE]
        assert await timed(resolver) == (0.0, "10.0.0.1")
        source.failing = ""
        await trio.sleep(LONGEST_PAUSE)
        assert not resolver.failing[NAME]


async def test_a_doubt_does_not_wait_for_the_pause_of_a_name_that_fails(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source, resolver = await known(nursery)
    source.failing = "no name server answers"
    await trio.sleep(TTL + 1 + 2 + 4 + 8 + 16 + 5)
    source.failing, source.host, network.hosts = "", "10.0.0.2", {"10.0.0.2"}
    assert await reached(resolver) == "connect"
    await trio.testing.wait_all_tasks_blocked()
    assert await reached(resolver) == ""


async def test_clients_that_know_nothing_cause_a_question_a_second(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Answers()
    source.failing = "no such name"
    resolver = Resolver(source)
    nursery.start_soon(resolver.run)
    for _ in range(600):
        with pytest.raises(DialError, match="resolve: no such name"):
            await resolver.addresses(NAME, 80)
        await trio.sleep(0.1)
    assert len(source.asked) == pytest.approx(60, abs=6)
    source.failing = ""
    await trio.sleep(FAILURE_TTL)
    assert await timed(resolver) == (0.0, "10.0.0.1")


async def test_addresses_are_not_doubted(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(DialError, match="connect"):
        await dial_tcp("10.0.0.1", 80, addresses=Resolver(Answers()).addresses)


async def test_the_system_knows_localhost() -> None:
    found = await system_source("localhost", 80)
    assert {address[0] for _, address in found.addresses} <= {"127.0.0.1", "::1"}
    assert found.addresses
