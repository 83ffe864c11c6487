"""Several balancers by reports alone: what an echo is taken to be, and how even ten of them keep their backends."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.several import CASES, Balancers, Several, echoing, evenness, plain
from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountEntry, CountKey, CountTable
from trio_wsb.balancing.echo import MOST, echo
from trio_wsb.balancing.pool import Member, Pool

COUNT = ("/metric", "agentsConnections")
URLS = [BackendURL("http", f"10.0.0.{index}", 80) for index in range(1, 4)]


class World:
    """A pool of one balancer and what its backends report."""

    def __init__(self, strategy: str = "leastconn", limit: int = 0) -> None:
        self.backends = [Backend(url) for url in URLS]
        self.counts = CountTable()
        members = [Member(each, max_connections=limit) for each in self.backends]
        self.pool = Pool(members, strategy, counts=self.counts, count=COUNT, rng=Random(1))

    def open(self, index: int, count: int) -> None:
        for _ in range(count):
            self.backends[index].begin_handshake()
            self.backends[index].session_opened(0.0)

    def report(self, *foreign: int) -> None:
        """Let every backend report its sessions of ours and so many others."""
        for index, count in enumerate(foreign):
            self.report_of(index, count)

    def report_of(self, index: int, foreign: int) -> None:
        """Let one backend report its sessions of ours and so many others."""
        backend = self.backends[index]
        sample = self.counts.start(CountKey(backend.url, *COUNT), backend.live, 0.0)
        self.counts.finish(sample, backend.live + foreign, backend.live, backend.pending, 0.0)

    @property
    def entries(self) -> list[CountEntry]:
        return [self.counts.entry(CountKey(url, *COUNT)) for url in URLS]

    def choose(self) -> int:
        backend = self.pool.choose(None, 0.0)
        assert backend is not None
        return self.backends.index(backend)

    def burst(self, count: int) -> list[int]:
        """Let clients come between two reports; return where they went."""
        for _ in range(count):
            self.open(self.choose(), 1)
        return [each.live for each in self.backends]


def test_alone_there_is_no_echo() -> None:
    world = World()
    world.open(0, 50)
    world.report(0, 0, 0)
    assert echo(world.entries) == 0.0
    world.burst(100)
    assert [each.live for each in world.backends] == [50, 50, 50]


def test_without_sessions_of_ours_nobody_is_taken_to_follow() -> None:
    world = World()
    world.report(0, 100, 200)
    assert echo(world.entries) == 0.0
    assert world.burst(900) == [400, 300, 200]


def test_at_first_all_foreign_connections_are_taken_for_followers() -> None:
    world = World()
    for index in range(3):
        world.open(index, 10)
    world.report(90, 90, 90)
    assert echo(world.entries) == pytest.approx(9.0)


def test_each_of_ten_balancers_fills_a_tenth_of_a_gap() -> None:
    world = World()
    for index, count in enumerate((30, 30, 0)):
        world.open(index, count)
    world.report(270, 270, 0)
    # A gap of 300: with 9 others that do the same, 30 of ours fill it.
    assert world.burst(30) == [30, 30, 30]
    assert world.burst(30) == [40, 40, 40]


def test_clients_that_come_directly_follow_nobody() -> None:
    world = World()
    for index in range(3):
        world.open(index, 10)
    for _ in range(10):
        for index in range(3):
            world.open(index, 10)
        world.report(500, 500, 100)
    assert echo(world.entries) < 0.01
    assert world.burst(300) == [110, 110, 410]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("moment", [1, 2, 4, 8, 12, 20, 35, 50, 100, 200, 500, 899])
def test_a_report_in_a_burst_takes_nobody_for_a_follower(moment: int, index: int) -> None:
    """All that is known of others is that they were there before us and have not moved since."""
    world, direct = World(), (0, 100, 200)
    world.report(*direct)
    world.burst(moment)
    world.report_of(index, direct[index])
    assert echo(world.entries) == 0.0
    world.burst(900 - moment)
    totals = [each.live + others for each, others in zip(world.backends, direct, strict=True)]
    assert all(399 <= total <= 401 for total in totals), totals


@pytest.mark.parametrize("others", [1, 2, 5])
def test_who_comes_beside_our_first_sessions_follows(others: int) -> None:
    """Balancers that were started together get their first burst: one report in it must not look like a backend that is fuller."""
    world = World()
    world.report(0, 0, 0)
    for index in range(3):
        world.open(index, 1)
    world.report_of(0, others)
    assert echo(world.entries) == others
    world.burst(57)
    assert [each.live for each in world.backends] == [20, 20, 20]


def test_a_few_sessions_that_nobody_followed_end_the_doubt() -> None:
    world, direct = World(), (0, 100, 200)
    for index in range(3):
        world.open(index, 10)
    world.report(*direct)
    found = [echo(world.entries)]
    assert found[0] > 5
    for _ in range(5):
        world.open(0, 5)
        world.report_of(0, direct[0])
        found.append(echo(world.entries))
    assert found == sorted(found, reverse=True)
    assert found[3] < found[0] / 10
    assert found[5] == 0.0


def test_a_first_guess_that_is_put_right_is_nobody_who_moved() -> None:
    """The first report came while a burst crossed it, so that it could only be guessed what of it is ours."""
    world = World()
    [backend, *_] = world.backends
    sample = world.counts.start(CountKey(backend.url, *COUNT), backend.live, 0.0)
    world.open(0, 40)
    world.counts.finish(sample, 40, backend.live, backend.pending, 1.0)
    assert world.entries[0].foreign == 20
    assert echo(world.entries) > 0
    world.open(0, 40)
    world.report_of(0, 0)
    assert [(each.foreign, each.foreign_moved) for each in world.entries[:1]] == [(0, 0.0)]
    world.report_of(0, 4)
    assert world.entries[0].foreign_moved == 4.0


def test_others_that_move_as_we_do_follow() -> None:
    world, others = World(), 0
    for _ in range(10):
        others += 40
        for index in range(3):
            world.open(index, 10)
        world.report(others, others, others)
    assert echo(world.entries) == pytest.approx(4.0, rel=0.05)


def test_what_is_counted_for_limits_is_what_is_there() -> None:
    world = World(limit=110)
    for index in range(3):
        world.open(index, 10)
    world.report(90, 90, 90)
    assert echo(world.entries) > 8
    assert world.burst(30) == [20, 20, 20]
    assert world.pool.choose(None, 0.0) is None
    assert world.pool.reason(0.0) == "all 3 backends at maxConnections"
    assert [world.pool.load(each) for each in world.backends] == [110, 110, 110]


def test_two_choices_hear_it_too() -> None:
    world = World("p2c")
    for index, count in enumerate((30, 30, 0)):
        world.open(index, count)
    world.report(270, 270, 0)
    world.burst(600)
    assert max(each.live for each in world.backends) < 260


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=3, max_size=3),
    st.lists(st.lists(st.integers(-60, 60), min_size=3, max_size=3), max_size=8),
)
def test_an_echo_is_bounded_and_changes_no_load(
    begin: list[tuple[int, int]], changes: list[list[int]]
) -> None:
    world = World()
    foreign = [count for _, count in begin]
    for index, (own, _) in enumerate(begin):
        world.open(index, own)
    world.report(*foreign)
    for change in changes:
        foreign = [max(0, each + more) for each, more in zip(foreign, change, strict=True)]
        world.open(world.choose(), 3)
        world.report(*foreign)
        known, own = sum(foreign), sum(each.live for each in world.backends)
        assert 0.0 <= echo(world.entries) <= min(MOST, known / max(own, 1) + 1e-9)
        assert world.choose() in range(3)
        assert [world.pool.load(each) for each in world.backends] == [
            each.live + count for each, count in zip(world.backends, foreign, strict=True)
        ]


@pytest.mark.parametrize(
    ("title", "deviation", "peak"),
    [
        ("10 balancers, sessions come and go", 0.012, 1.05),
        ("10 balancers, 2 of 10 backends are new", 0.02, 1.15),
        ("10 balancers, 1,000 clients at once, 1 of 10 is new", 0.04, 1.10),
        ("2 balancers, 2 of 10 backends are new", 0.02, 1.15),
        ("1 balancer", 0.005, 1.02),
    ],
)
def test_backends_stay_even(title: str, deviation: float, peak: float) -> None:
    case = CASES[title]
    found = evenness(Balancers(case, echoing).run(), case.judged_from)
    assert (found.deviation <= deviation, found.peak <= peak) == (True, True), found


def test_without_the_echo_they_herd() -> None:
    """So that the numbers above are known to say something."""
    case = CASES["10 balancers, 2 of 10 backends are new"]
    assert evenness(Balancers(case, plain).run(), case.judged_from).peak > 1.3


def test_ten_balancers_with_reports_of_a_minute_ago() -> None:
    case = Several(10, (375,) * 8 + (0,) * 2, interval=60.0, rate=25.0, life=120.0, judged_from=60.0)
    found = evenness(Balancers(case, echoing).run(), case.judged_from)
    assert found.deviation < 0.03
    assert found.peak < 1.2
