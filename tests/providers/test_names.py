"""The resolver in virtual time: when it asks, what it tells, and that one name keeps no other one waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import TypeAlias

import pytest
import structlog.testing
import trio
import trio.testing

from tests.providers.nameserver import FakeNameServer
from trio_wsb.balancing.discovery import (
    Answer,
    DiscoveryPolicy,
    Endpoint,
    Name,
    NameTable,
    Query,
    ServiceRecord,
)
from trio_wsb.providers.lookup import Lookup, LookupFailed
from trio_wsb.providers.names import FIRST_ANSWER, NameResolver, ResolverSettings

CHAT = Name("chat.internal", "all")
IPV4 = ResolverSettings(policy=DiscoveryPolicy("ipv4"))

Says: TypeAlias = "Answer | Exception | float | None"
"""What a name server says: an answer, a failure, an answer after so many seconds, or nothing ever."""


class World:
    """A resolver and the name servers that it believes to ask."""

    def __init__(self) -> None:
        self.says: dict[Query, Says] = {}
        self.asked: list[tuple[float, Query]] = []
        self.changes = 0
        self.table = NameTable()
        self.resolver = NameResolver(
            self.table, rng=Random(1), changed=self._changed, lookup=self._make_lookup
        )

    def _changed(self) -> None:
        self.changes += 1

    def _make_lookup(self, settings: ResolverSettings) -> Lookup:
        return self.lookup

    async def lookup(self, query: Query) -> Answer:
        self.asked.append((trio.current_time(), query))
        match self.says.get(query, Answer((), 60, "the name does not exist")):
            case Answer() as answer:
                return answer
            case Exception() as error:
                raise error
            case float(seconds):
                await trio.sleep(seconds)
                return Answer(("10.9.9.9",), 60)
            case _:
                await trio.sleep_forever()
                raise AssertionError

    def addresses(self, name: Name = CHAT) -> list[str]:
        return [each.address for each in self.table.endpoints(name)]

    def times(self, host: str = CHAT.host) -> list[float]:
        return [when for when, query in self.asked if query.host == host]

    @asynccontextmanager
    async def running(self, *names: Name, settings: ResolverSettings = IPV4) -> AsyncIterator[None]:
        self.resolver.configure(names, settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.resolver.run)
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def world() -> World:
    return World()


def four(*addresses: str, ttl: float = 10.0) -> Answer:
    return Answer(addresses, ttl)


def a(name: Name = CHAT) -> Query:
    return Query(name.host, "A")


@pytest.mark.parametrize(("ttl", "pause"), [(0.0, 5.0), (10.0, 10.0), (3600.0, 30.0)])
async def test_a_name_is_asked_for_when_its_ttl_is_over(
    world: World, autojump_clock: trio.testing.MockClock, ttl: float, pause: float
) -> None:
    world.says[a()] = four("10.0.0.1", ttl=ttl)
    async with world.running(CHAT):
        await trio.sleep(600)
    pauses = [later - earlier for earlier, later in pairwise(world.times())]
    assert len(pauses) > 10
    # Never before it is due, and not in step with other instances.
    assert all(pause <= each <= pause * 1.1 + 1e-6 for each in pauses)
    assert len({round(each, 3) for each in pauses}) > 5
    assert world.changes == 1


async def test_what_comes_and_goes_is_told(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.says[a()] = four("10.0.0.1", "10.0.0.2")
    with structlog.testing.capture_logs() as lines:
        async with world.running(CHAT):
            await trio.sleep(1)
            assert world.addresses() == ["10.0.0.1", "10.0.0.2"]
            world.says[a()] = four("10.0.0.2", *(f"10.0.1.{index}" for index in range(20)))
            await trio.sleep(15)
    assert world.changes == 2
    last = lines[-1]
    assert (last["event"], last["endpoints"], last["removed"]) == ("name resolved", 21, ["10.0.0.1"])
    assert last["added"][-1] == "and 12 more"


async def test_a_failing_name_server_is_told_of_once(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.says[a()] = four("10.0.0.1")
    with structlog.testing.capture_logs() as lines:
        async with world.running(CHAT):
            await trio.sleep(5)
            world.says[a()] = LookupFailed("10.0.0.53 answered SERVFAIL")
            await trio.sleep(3600)
            assert world.addresses() == ["10.0.0.1"]
            world.says[a()] = four("10.0.0.1")
            await trio.sleep(60)
    told = [(line["event"], line.get("reason")) for line in lines]
    assert told == [
        ("name resolved", None),
        ("name not resolved", "A of chat.internal: 10.0.0.53 answered SERVFAIL"),
        ("name resolves again", None),
    ]
    # After the first failures it is left in peace for the longest pause.
    assert len(world.times()) < 130


async def test_a_family_that_hangs_keeps_the_other_waiting_no_more_than_that(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.says[a()] = four("10.0.0.1")
    world.says[Query(CHAT.host, "AAAA")] = None
    async with world.running(CHAT, settings=ResolverSettings()):
        await trio.sleep(0.5)
        assert world.addresses() == ["10.0.0.1"]


async def test_names_that_hang_keep_no_other_waiting(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    hanging = [Name(f"dead{index}.internal", "all") for index in range(100)]
    for name in hanging:
        world.says[a(name)] = LookupFailed("no answer within 5 s")
    world.says[a()] = four("10.0.0.1")
    async with world.running(*hanging, CHAT):
        await trio.sleep(30)
        for name in hanging:
            world.says[a(name)] = None
        await trio.sleep(300)
        world.says[a()] = four("10.0.0.2")
        await trio.sleep(15)
        assert world.addresses() == ["10.0.0.2"]


async def test_an_error_of_ours_is_that_of_one_name(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    other = Name("other.internal", "all")
    world.says[a()] = RuntimeError("a bug")
    world.says[a(other)] = four("10.0.0.1")
    with structlog.testing.capture_logs() as lines:
        async with world.running(CHAT, other):
            await trio.sleep(60)
    assert world.addresses(other) == ["10.0.0.1"]
    assert world.table.entry(CHAT).problem == "A of chat.internal: internal error: RuntimeError"
    assert any(line["log_level"] == "error" for line in lines)


async def test_targets_of_service_records_are_asked_for_at_once(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    chat = Name("_ws._tcp.chat.internal", "srv")
    world.says[Query(chat.host, "SRV")] = Answer((ServiceRecord(0, 0, 8080, "one."),), 10)
    world.says[Query("one.", "A")] = four("10.0.0.1")
    async with world.running(chat):
        await trio.sleep(0.01)
        assert world.addresses(chat) == ["10.0.0.1"]


async def test_what_is_configured_anew(world: World, autojump_clock: trio.testing.MockClock) -> None:
    other = Name("other.internal", "all")
    world.says[a()] = four("10.0.0.1")
    world.says[a(other)] = four("10.0.0.2")
    async with world.running(CHAT):
        await trio.sleep(1)
        world.resolver.configure([CHAT, other], IPV4)
        await trio.sleep(1)
        # The one that was there keeps its answer and its schedule.
        assert (len(world.times()), len(world.times(other.host))) == (1, 1)
        world.resolver.configure([other], IPV4)
        await trio.sleep(60)
    assert len(world.times()) == 1
    assert list(world.table.entries) == [other]


class TestLearning:
    async def test_answers_are_there_before_it_runs(
        self, world: World, autojump_clock: trio.testing.MockClock
    ) -> None:
        world.says[a()] = four("10.0.0.1")
        await world.resolver.learn([CHAT], IPV4)
        assert (world.addresses(), trio.current_time()) == (["10.0.0.1"], 0.0)
        async with world.running(CHAT):
            await trio.sleep(5)
        # What is known is not asked for again before its time.
        assert len(world.times()) == 1

    async def test_it_waits_no_longer_than_a_moment(
        self, world: World, autojump_clock: trio.testing.MockClock
    ) -> None:
        slow, fast = Name("slow.internal", "all"), CHAT
        world.says[a(slow)] = 3.0
        world.says[a(fast)] = four("10.0.0.1")
        await world.resolver.learn([slow, fast], IPV4)
        assert trio.current_time() == FIRST_ANSWER
        assert (world.addresses(slow), world.addresses(fast)) == ([], ["10.0.0.1"])
        async with world.running(slow, fast):
            await trio.sleep(5)
            assert world.addresses(slow) == ["10.9.9.9"]

    async def test_what_is_known_is_not_waited_for(
        self, world: World, autojump_clock: trio.testing.MockClock
    ) -> None:
        world.says[a()] = four("10.0.0.1")
        await world.resolver.learn([CHAT], IPV4)
        world.says[a()] = None
        await world.resolver.learn([CHAT], IPV4)
        assert trio.current_time() == 0.0


async def test_with_a_name_server() -> None:
    table = NameTable()
    resolver = NameResolver(table)
    chat, service = Name("chat.internal", "all"), Name("_ws._tcp.chat.internal", "srv")
    async with FakeNameServer().running() as server:
        server.set("chat.internal", "A", "10.0.0.1", "10.0.0.2")
        server.set("chat.internal", "AAAA", "fd00::1")
        server.set("_ws._tcp.chat.internal", "SRV", "0 2 8081 one.internal.", "5 0 8082 two.internal.")
        server.set("one.internal", "A", "10.0.0.3")
        server.set("two.internal", "AAAA", "fd00::2")
        await resolver.learn([chat, service], ResolverSettings((server.address,)))
    assert [each.address for each in table.endpoints(chat)] == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert table.endpoints(service) == (Endpoint(0, "10.0.0.3", 8081, 2), Endpoint(1, "fd00::2", 8082, 1))
