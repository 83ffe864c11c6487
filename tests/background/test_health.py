"""Checks in virtual time: when they are made, and what they mean."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from trio_wsb.addresses import BackendURL
from trio_wsb.background.health import HealthChecker
from trio_wsb.background.probe import HealthTarget
from trio_wsb.background.rounds import AT_ONCE, FIRST_ROUND
from trio_wsb.balancing.health import HealthTable, Question


def target(number: int = 1, *, interval: float = 30.0, path: str = "/health", **fields: Any) -> HealthTarget:
    url = BackendURL("http", f"10.0.{number // 256}.{number % 256}", 8080)
    return HealthTarget(url, Question(path), interval, fields.pop("unhealthy", interval), 5.0, **fields)


class World:
    """A checker whose servers answer as a test says."""

    def __init__(self) -> None:
        self.table = HealthTable()
        self.checker = HealthChecker(self.table, ask=self.ask)
        self.asked: list[tuple[float, HealthTarget]] = []
        self.ill: dict[BackendURL, str] = {}
        self.takes = 0.01
        self.under_way = self.most = 0

    async def ask(self, target: HealthTarget) -> str | None:
        self.asked.append((trio.current_time(), target))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await trio.sleep(self.takes)
        self.under_way -= 1
        return self.ill.get(target.url)

    def times(self, target: HealthTarget) -> list[float]:
        return [when for when, each in self.asked if each == target]

    def down(self, target: HealthTarget) -> bool:
        return self.table.entry(target.key).down


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    made = World()
    await nursery.start(made.checker.run)
    return made


async def test_the_first_check_comes_at_the_start_and_the_others_spread(
    world: World, autojump_clock: MockClock
) -> None:
    targets = [target(number) for number in range(100)]
    begun = trio.current_time()
    world.checker.configure(targets)
    await trio.sleep(FIRST_ROUND + 1)
    firsts = [world.times(each)[0] - begun for each in targets]
    assert firsts == sorted(firsts)
    assert max(firsts) <= FIRST_ROUND + 0.1
    await trio.sleep(45)
    seconds = sorted(world.times(each)[1] - begun for each in targets)
    assert seconds[0] >= 15
    gaps = [b - a for a, b in pairwise(seconds)]
    assert max(gaps) < 1.0


async def test_no_more_than_so_many_at_once(world: World, autojump_clock: MockClock) -> None:
    world.takes = 5.0
    world.checker.configure(target(number) for number in range(200))
    await trio.sleep(3)
    assert world.most == AT_ONCE
    assert world.checker.statistics().waiting > 100


async def test_down_and_up_with_one_line_each(
    world: World, autojump_clock: MockClock, log: list[Any]
) -> None:
    one = target()
    world.checker.configure([one])
    await trio.sleep(5)
    world.ill[one.url] = "answered 503"
    await trio.sleep(100)
    assert world.down(one)
    world.ill.clear()
    await trio.sleep(100)
    assert not world.down(one)
    lines = [(each["event"], each["log_level"], each.get("reason")) for each in log]
    assert lines == [("backend down", "warning", "answered 503"), ("backend up", "info", None)]


async def test_a_contradiction_is_looked_into_soon(world: World, autojump_clock: MockClock) -> None:
    one = target(interval=60.0, fall=3)
    world.checker.configure([one])
    await trio.sleep(5)
    world.ill[one.url] = "x"
    await trio.sleep(100)
    times = world.times(one)
    assert world.down(one)
    assert times[2] - times[1] < 1.5
    assert times[3] - times[2] < 1.5


async def test_the_unhealthy_interval(world: World, autojump_clock: MockClock) -> None:
    one = target(interval=60.0, unhealthy=5.0)
    world.ill[one.url] = "x"
    world.checker.configure([one])
    await trio.sleep(61)
    assert 10 <= len(world.times(one)) <= 14


async def test_a_reload_forgets_nothing_and_asks_no_more_than_before(
    world: World, autojump_clock: MockClock
) -> None:
    one, two = target(1), target(2)
    world.ill[one.url] = "x"
    world.checker.configure([one, two])
    await trio.sleep(5)
    assert world.down(one)
    asked = len(world.asked)
    world.checker.configure([one, two, target(3)])
    await trio.sleep(2)
    assert world.down(one)
    assert len(world.asked) == asked + 1
    # Another interval is another schedule, and the same knowledge.
    world.checker.configure([evolve(one, interval=10.0)])
    assert world.down(one)
    assert len(world.table) == 1


async def test_another_question_is_another_entry(world: World, autojump_clock: MockClock) -> None:
    one = target()
    world.ill[one.url] = "x"
    world.checker.configure([one])
    await trio.sleep(2)
    other = target(path="/other")
    world.ill.clear()
    world.checker.configure([other])
    await trio.sleep(2)
    assert not world.down(other)
    assert [each.key for each in world.table] == [other.key]


async def test_one_question_of_two_services_is_asked_once(world: World, autojump_clock: MockClock) -> None:
    world.checker.configure([target(interval=30.0), target(interval=10.0)])
    await trio.sleep(2)
    assert len(world.asked) == 1
    assert world.asked[0][1].interval == 10.0
