from __future__ import annotations

from random import Random

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthKey, HealthTable, Question
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.slowstart import SlowStart
from trio_wsb.balancing.strategies import STRATEGIES

QUESTION = Question("/health")


def backends(count: int) -> list[Backend]:
    return [Backend(BackendURL("http", f"10.0.0.{number}", 80)) for number in range(count)]


def make(
    members: list[Backend],
    health: HealthTable,
    *,
    strategy: str = "leastconn",
    previous: Pool | None = None,
    slow_start: float = 100.0,
) -> Pool:
    return Pool(
        [Member(each) for each in members],
        strategy,
        counts=CountTable(),
        rng=Random(1),
        previous=previous,
        health=(health, QUESTION),
        slow_start=slow_start,
    )


def open_sessions(pool: Pool, count: int, now: float) -> None:
    for _ in range(count):
        backend = pool.choose(None, now)
        assert backend is not None
        backend.begin_handshake()
        backend.session_opened(now)


def test_the_way_up() -> None:
    ramp = SlowStart(10.0, [2, 4])
    assert not ramp.ramping
    ramp.begin(1, 5.0)
    assert ramp.weights(5.0) == [2.0, 0.04]
    assert ramp.weights(5.01) is None
    assert ramp.weights(10.0) == [2.0, 2.0]
    assert ramp.weights(15.0) == [2.0, 4.0]
    assert ramp.weights(15.1) is None
    assert not ramp.ramping


def test_off() -> None:
    ramp = SlowStart(0.0, [1])
    ramp.begin(0, 1.0)
    ramp.begin_at_next_look(0)
    assert not ramp.ramping


def test_a_backend_that_comes_up_fills_as_fast_as_it_ramps() -> None:
    members, health = backends(3), HealthTable()
    pool = make(members, health)
    key = HealthKey(members[2].url, QUESTION)
    health.failed(key, "x", 0.0, fall=1)
    open_sessions(pool, 200, 0.0)
    assert [each.live for each in members] == [100, 100, 0]
    health.passed(key, 10.0, rise=1)
    open_sessions(pool, 10, 10.5)
    assert members[2].live <= 2
    open_sessions(pool, 30, 40.0)
    assert 30 <= members[2].live <= 36
    open_sessions(pool, 200, 111.0)
    assert max(each.live for each in members) - min(each.live for each in members) <= 1


def test_one_that_a_reload_adds_ramps_and_goes_on_over_the_next_reload() -> None:
    members, health = backends(2), HealthTable()
    first = make(members[:1], health)
    open_sessions(first, 100, 0.0)
    second = make(members, health, previous=first)
    open_sessions(second, 1, 10.0)
    third = make(members, health, previous=second)
    open_sessions(third, 60, 60.0)
    assert 45 <= members[1].live <= 56
    fourth = make(members, health, previous=third)
    open_sessions(fourth, 80, 200.0)
    assert abs(members[0].live - members[1].live) <= 2


def test_nobody_ramps_where_nobody_is_busy() -> None:
    members, health = backends(2), HealthTable()
    second = make(members, health, previous=make(members[:1], health))
    open_sessions(second, 10, 1.0)
    assert [each.live for each in members] == [5, 5]


def test_every_strategy_lets_it_begin_slowly() -> None:
    for strategy in STRATEGIES.keys() - {"iphash"}:
        members, health = backends(2), HealthTable()
        pool = make(members, health, strategy=strategy)
        key = HealthKey(members[1].url, QUESTION)
        health.failed(key, "x", 0.0, fall=1)
        health.passed(key, 1.0, rise=1)
        if strategy == "hrw":
            continue  # one client has one choice
        open_sessions(pool, 100, 2.0)
        assert members[1].live <= (60 if strategy == "p2c" else 3), strategy


def test_down_is_not_chosen_and_said() -> None:
    members, health = backends(3), HealthTable()
    pool = make(members, health)
    for each in members[:2]:
        health.failed(HealthKey(each.url, QUESTION), "x", 0.0, fall=1)
    open_sessions(pool, 5, 0.0)
    assert [each.live for each in members] == [0, 0, 5]
    assert pool.available(0.0)
    health.failed(HealthKey(members[2].url, QUESTION), "x", 0.0, fall=1)
    assert pool.choose(None, 0.0) is None
    assert pool.reason(0.0) == "all 3 backends down by health check"
    assert not pool.available(0.0)
    health.passed(HealthKey(members[0].url, QUESTION), 1.0, rise=1)
    assert pool.choose(None, 1.0) is members[0]
