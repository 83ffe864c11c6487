"""Drains in the table and in the choice: who draws no sessions, in which service, and why nobody is chosen."""

from __future__ import annotations

from random import Random

import pytest

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.drain import DrainKey, DrainTable
from trio_wsb.balancing.health import HealthKey, HealthTable, Question
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.strategies import STRATEGIES

POLICY = DrainPolicy()
QUESTION = Question("/health")


class World:
    """Two services over the same three backends, with one table of drains."""

    def __init__(self, strategy: str = "leastconn", *, slow_start: float = 0.0) -> None:
        self.drains = DrainTable()
        self.health = HealthTable()
        self.backends = [Backend(BackendURL("http", f"10.0.0.{number}", 80)) for number in range(3)]
        members = [Member(backend, sticky=f"cookie-{n}") for n, backend in enumerate(self.backends)]
        self.chat, self.site = (
            Pool(
                members,
                strategy,
                counts=CountTable(),
                rng=Random(1),
                health=(self.health, QUESTION),
                slow_start=slow_start,
                drains=self.drains,
                service=service,
            )
            for service in ("chat", "site")
        )

    def key(self, index: int, service: str | None = None) -> DrainKey:
        return DrainKey(self.backends[index].url, service)

    def drain(self, index: int, service: str | None = None) -> None:
        self.drains.begin(self.key(index, service), POLICY, 0.0)

    def chosen(self, pool: Pool, count: int = 30) -> set[int]:
        found = set()
        for _ in range(count):
            backend = pool.choose(None, 0.0)
            if backend is not None:
                found.add(self.backends.index(backend))
                backend.begin_handshake()
                backend.session_opened(0.0)
        return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_draining_backend_draws_nobody(strategy: str) -> None:
    world = World(strategy)
    before = world.chosen(world.chat)
    victim = min(before)
    world.drain(victim)
    assert victim not in world.chosen(world.chat)
    assert world.chosen(world.chat)
    world.drains.end(world.key(victim))
    assert victim in world.chosen(world.chat)


def test_in_one_service_alone() -> None:
    world = World()
    world.drain(1, "chat")
    assert world.chosen(world.chat) == {0, 2}
    assert 1 in world.chosen(world.site)
    drain = world.chat.drain(world.backends[1])
    assert drain is not None
    assert drain.covers(world.backends[1].url, "chat")
    assert not drain.covers(world.backends[1].url, "site")
    assert world.site.drain(world.backends[1]) is None


def test_the_reason_why_there_is_none() -> None:
    world = World()
    for index in range(3):
        world.drain(index)
    assert world.chat.choose(None, 0.0) is None
    assert world.chat.reason(0.0) == "all 3 backends draining"
    assert not world.chat.available(0.0)
    world.drains.end(world.key(0))
    world.health.failed(HealthKey(world.backends[0].url, QUESTION), "answered 503", 0.0, fall=1)
    assert world.chat.choose(None, 0.0) is None
    assert world.chat.reason(0.0) == "1 down by health check, 2 draining"


def test_a_drain_outlasts_bad_health_and_the_other_way_round() -> None:
    world = World()
    key = HealthKey(world.backends[0].url, QUESTION)
    world.drain(0)
    assert world.chosen(world.chat) == {1, 2}
    world.health.failed(key, "answered 503", 0.0, fall=1)
    assert world.chosen(world.chat) == {1, 2}
    world.health.passed(key, 0.0, rise=1)
    assert world.chosen(world.chat) == {1, 2}
    world.health.failed(key, "answered 503", 0.0, fall=1)
    world.drains.end(world.key(0))
    assert world.chosen(world.chat) == {1, 2}
    world.health.passed(key, 0.0, rise=1)
    assert 0 in world.chosen(world.chat)


def test_it_is_no_last_resort_either() -> None:
    world = World()
    world.drain(0)
    for backend in world.backends[1:]:
        for _ in range(3):
            backend.begin_handshake()
            backend.handshake_failed(0.0)
    assert world.chat.choose(None, 0.0) in world.backends[1:]
    assert world.chat.choose(None, 0.0, exclude=world.backends[1:]) is None


def test_a_cookie_that_leads_there_is_replaced() -> None:
    world = World()
    assert world.chat.affinity("cookie-0", 0.0).backend is world.backends[0]
    world.drain(0, "chat")
    found = world.chat.affinity("cookie-0", 0.0)
    assert (found.backend, found.lasting) == (None, False)
    assert world.site.affinity("cookie-0", 0.0).backend is world.backends[0]


def test_one_that_is_ready_again_begins_slowly() -> None:
    world = World(slow_start=100.0)
    world.drain(0)
    assert world.chosen(world.chat, 200) == {1, 2}
    assert not world.chat.ramping(0.0)
    world.drains.end(world.key(0))
    assert world.chat.ramping(0.0)
    world.chosen(world.chat, 50)
    assert world.backends[0].live < 5
    assert not world.chat.ramping(100.0)


def test_the_table() -> None:
    world = World()
    version = world.drains.version
    world.drain(0)
    world.drain(1, "chat")
    assert world.drains.version == version + 2
    assert [drain.key for drain in world.drains] == [world.key(0), world.key(1, "chat")]
    with pytest.raises(AssertionError):
        world.drain(0)
    covering = world.drains.covering(world.backends[0].url, "anything")
    assert covering is not None
    deadlines = [covering.deadline]
    covering.policy = DrainPolicy(timeout=0.0)
    assert [*deadlines, covering.deadline] == [300.0, None]
    assert world.drains.get(world.key(0)) is covering
    assert world.drains.get(world.key(1)) is None, "it is drained in one service alone"
    assert world.drains.end(world.key(2)) is None
    assert world.drains.version == version + 2
    assert world.drains.end(world.key(0)) is covering
    assert len(world.drains) == 1
