from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountKey, CountTable
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.strategies import STRATEGIES

COUNT = ("/metric", "agentsConnections")
CLIENT = IPv4Address("192.0.2.7")


class Service:
    """A pool with its backends and count table, and clients that come and go."""

    def __init__(
        self,
        count: int = 3,
        *,
        strategy: str = "leastconn",
        weights: list[int] | None = None,
        limits: list[int] | None = None,
    ) -> None:
        self.backends = [Backend(BackendURL("http", f"10.0.0.{number}", 80)) for number in range(count)]
        self.counts = CountTable()
        self.pool = Pool(
            [
                Member(backend, weight, limit)
                for backend, weight, limit in zip(
                    self.backends, weights or [1] * count, limits or [0] * count, strict=True
                )
            ],
            strategy,
            counts=self.counts,
            count=COUNT,
            rng=Random(1),
        )

    def report(self, index: int, reported: int, now: float = 0.0) -> None:
        backend = self.backends[index]
        sample = self.counts.start(CountKey(backend.url, *COUNT), backend.live, now)
        self.counts.finish(sample, reported, backend.live, backend.pending, now)

    def connect(self, now: float = 0.0, *, opened: bool = True) -> int | None:
        backend = self.pool.choose(CLIENT, now)
        if backend is None:
            return None
        backend.begin_handshake()
        if opened:
            backend.session_opened(now)
        return self.backends.index(backend)

    def loads(self) -> list[int]:
        return [self.pool.load(backend) for backend in self.backends]


@pytest.mark.parametrize("opened", [True, False])
def test_a_burst_between_two_reports_spreads_evenly(opened: bool) -> None:
    service = Service()
    for index, foreign in enumerate((0, 100, 200)):
        service.report(index, foreign)
    for _ in range(900):
        service.connect(opened=opened)
    assert service.loads() == [400, 400, 400]
    assert [backend.own for backend in service.backends] == [400, 300, 200]


def test_the_next_reports_change_nothing() -> None:
    service = Service()
    for index, foreign in enumerate((0, 100, 200)):
        service.report(index, foreign)
    for _ in range(900):
        service.connect()
    for index in range(3):
        service.report(index, 400)
    assert service.loads() == [400, 400, 400]
    assert [service.pool.foreign(backend) for backend in service.backends] == [0, 100, 200]


def test_a_backend_whose_report_hangs_does_not_attract_the_next_burst() -> None:
    service = Service()
    for index in range(3):
        service.report(index, 100)
    for round_ in range(1, 20):
        now = 30.0 * round_
        service.counts.fail(CountKey(service.backends[0].url, *COUNT), "no complete answer within 5 s", now)
        service.report(1, 100, now)
        service.report(2, 100, now)
    for _ in range(300):
        service.connect(600.0)
    assert service.loads() == [200, 200, 200]


def test_a_backend_that_never_reported_is_taken_for_the_median() -> None:
    service = Service(4)
    for index, foreign in enumerate((90, 100, 130)):
        service.report(index, foreign)
    assert service.loads() == [90, 100, 130, 100]
    service.report(3, 0)
    assert service.loads() == [90, 100, 130, 0]


def test_without_reports_only_our_own_count() -> None:
    service = Service()
    pool = Pool([Member(b) for b in service.backends], "leastconn", counts=service.counts, rng=Random(1))
    service.report(0, 500)
    assert [pool.load(backend) for backend in service.backends] == [0, 0, 0]
    assert service.pool.load(service.backends[0]) == 500


def test_services_share_our_own_count_but_not_the_reports() -> None:
    service = Service(2)
    other = Pool(
        [Member(b) for b in service.backends],
        "leastconn",
        counts=service.counts,
        count=("/other", "n"),
        rng=Random(1),
    )
    service.report(0, 10)
    service.report(1, 0)
    service.connect()
    assert [other.load(backend) for backend in service.backends] == [0, 1]


def test_weights() -> None:
    service = Service(weights=[1, 2, 0])
    assert Counter(service.connect() for _ in range(300)) == {0: 100, 1: 200}


def test_limits_count_foreign_connections_too() -> None:
    service = Service(limits=[30, 50, 20])
    service.report(0, 10)
    service.report(1, 10)
    service.report(2, 25)
    counts = Counter(service.connect() for _ in range(100))
    assert counts == {0: 20, 1: 40, None: 40}
    assert service.pool.reason(0.0) == "all 3 backends at maxConnections"
    service.backends[0].session_ended(60.0, 0.0)
    assert service.connect() == 0


def test_reason() -> None:
    service = Service(4, weights=[0, 1, 1, 1], limits=[0, 1, 1, 0])
    assert service.pool.reason(0.0) == "1 of weight 0, 3 eligible"
    for backend in service.backends[1:3]:
        backend.begin_handshake()
    last = service.backends[3]
    last.passive.failed(0.0)
    assert service.pool.reason(0.5) == "1 of weight 0, 2 at maxConnections, 1 cooling down after failures"
    assert service.pool.reason(0.5, {last}) == "1 of weight 0, 2 at maxConnections, 1 failed for this client"
    assert service.pool.choose(CLIENT, 0.5, {last}) is None


def test_reason_for_one_or_none() -> None:
    assert Service(0).pool.reason(0.0) == "no backends"
    assert Service(0).pool.choose(CLIENT, 0.0) is None
    assert Service(1, weights=[0]).pool.reason(0.0) == "the only backend of weight 0"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_try_goes_to_another_backend(strategy: str) -> None:
    service, tried = Service(5, strategy=strategy), list[Backend]()
    for _ in range(5):
        backend = service.pool.choose(CLIENT, 0.0, tried)
        assert backend is not None
        assert backend not in tried
        tried.append(backend)
    assert service.pool.choose(CLIENT, 0.0, tried) is None
    assert service.pool.reason(0.0, tried) == "all 5 backends failed for this client"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cooling_backend_is_avoided_until_its_time(strategy: str) -> None:
    service = Service(2, strategy=strategy)
    service.backends[0].passive.failed(10.0)
    assert {service.connect(10.9) for _ in range(20)} == {1}
    assert 0 in {
        service.backends.index(backend)
        for host in range(50)
        if (backend := service.pool.choose(IPv4Address(host << 8), 11.0))
    }


def test_when_all_cool_down_the_longest_waiting_is_tried() -> None:
    service = Service()
    for index, when in ((1, 5.0), (0, 5.1), (2, 5.2)):
        service.backends[index].passive.failed(when)
    first = service.pool.choose(CLIENT, 5.5)
    assert first is service.backends[1]
    first.begin_handshake()
    # A burst does not pile up on one that may hang until the dial timeout.
    assert service.pool.choose(CLIENT, 5.5) is service.backends[0]
    first.handshake_failed(5.6)
    assert service.pool.choose(CLIENT, 5.7) is service.backends[0]
    assert service.pool.choose(CLIENT, 5.7, {service.backends[0]}) is service.backends[2]


def test_when_all_cool_down_those_that_recover_take_the_clients() -> None:
    service = Service()
    for backend in service.backends:
        backend.passive.failed(5.0)
    for backend in service.backends[1:]:
        backend.passive.succeeded(5.2)
    assert Counter(service.connect(5.5) for _ in range(40)) == {1: 20, 2: 20}


def test_a_full_backend_is_no_last_resort() -> None:
    service = Service(2, limits=[1, 1])
    service.connect(0.0)
    service.connect(0.0)
    service.backends[0].passive.failed(0.0)
    assert service.pool.choose(CLIENT, 0.5) is None


def test_a_backend_that_accepts_and_drops_does_not_take_all() -> None:
    service, now = Service(), 0.0
    counts: Counter[int | None] = Counter()
    for _ in range(3000):
        now += 0.01
        chosen = service.connect(now)
        counts[chosen] += 1
        if chosen == 0:
            service.backends[0].session_ended(now + 0.001, now, backend_fault=True)
    # Three at first, then one after each of the cool-downs of 1, 2, 4, 8 and 10 s within 30 s, and three more
    # once the drops before the longest are out of the window.
    assert counts[0] <= 10
    assert abs(counts[1] - counts[2]) <= 1


def test_the_round_goes_on_over_a_reload() -> None:
    service = Service(strategy="wrr", weights=[3, 2, 1])
    turns = []
    for _ in range(12):
        turns.append(service.connect())
        service.pool = Pool(
            service.pool.members,
            "wrr",
            counts=service.counts,
            count=COUNT,
            rng=Random(1),
            previous=service.pool,
        )
    assert Counter(turns) == {0: 6, 1: 4, 2: 2}
    assert Counter(turns[:6]) == {0: 3, 1: 2, 2: 1}


def test_loads_survive_a_reload_and_a_change_of_members() -> None:
    service = Service()
    for index, foreign in enumerate((0, 100, 200)):
        service.report(index, foreign)
    for _ in range(90):
        service.connect()
    fourth = Backend(BackendURL("http", "10.0.0.9", 80))
    members = [*service.pool.members[:2], Member(fourth)]
    pool = Pool(members, "p2c", counts=service.counts, count=COUNT, rng=Random(1), previous=service.pool)
    assert service.loads() == [90, 100, 200]
    assert [pool.load(member.backend) for member in members] == [90, 100, 50]
    assert fourth in pool
    assert service.backends[2] not in pool
    with pytest.raises(KeyError):
        pool.load(service.backends[2])


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    members=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    excluded=st.sets(st.integers(0, 5)),
)
def test_choice_is_eligible_or_there_is_none(
    strategy: str, members: list[tuple[int, int, int, bool]], excluded: set[int]
) -> None:
    service = Service(
        len(members), strategy=strategy, weights=[m[0] for m in members], limits=[m[1] for m in members]
    )
    for index, (_, _, foreign, cooling) in enumerate(members):
        service.report(index, foreign)
        if cooling:
            service.backends[index].passive.failed(0.0)
    usable = {
        index
        for index, (weight, limit, foreign, _) in enumerate(members)
        if weight and (not limit or foreign < limit) and index not in excluded
    }
    best = {index for index in usable if not members[index][3]} or usable
    exclude = [backend for index, backend in enumerate(service.backends) if index in excluded]
    chosen = service.pool.choose(CLIENT, 0.5, exclude)
    if chosen is None:
        assert not best
        assert "eligible" not in service.pool.reason(0.5, exclude)
    else:
        assert service.backends.index(chosen) in best


class TestStandby:
    """Backends of a higher rank are chosen only while none of a lower one can be."""

    def pool(self, *ranks: int, strategy: str = "leastconn", limit: int = 0) -> Pool:
        members = [
            Member(Backend(BackendURL("http", f"10.0.0.{index}", 80)), rank=rank, max_connections=limit)
            for index, rank in enumerate(ranks)
        ]
        return Pool(members, strategy, counts=CountTable(), rng=Random(1))

    @pytest.mark.parametrize("strategy", ["leastconn", "wrr", "p2c", "hrw", "iphash"])
    def test_they_wait_for_their_turn(self, strategy: str) -> None:
        pool = self.pool(0, 0, 1, 2, strategy=strategy)
        backends = [member.backend for member in pool.members]
        clients = [ip_address(f"192.0.{index}.1") for index in range(50)]
        chosen = {pool.choose(client, 0.0) for client in clients}
        assert chosen == {*backends[:2]}
        assert {pool.choose(client, 0.0, backends[:2]) for client in clients} == {backends[2]}
        assert {pool.choose(client, 0.0, backends[:3]) for client in clients} == {backends[3]}
        assert pool.choose(clients[0], 0.0, backends) is None

    def test_those_that_are_full_give_way(self) -> None:
        pool = self.pool(0, 1, limit=1)
        first, second = (member.backend for member in pool.members)
        first.begin_handshake()
        assert pool.choose(None, 0.0) is second
        second.begin_handshake()
        assert pool.choose(None, 0.0) is None

    def test_nobody_is_moved_to_them(self) -> None:
        assert [each.counts for each in self.pool(0, 1).standing(0.0)] == [True, False]

    def test_without_members_it_says_why(self) -> None:
        pool = Pool([], "leastconn", counts=CountTable(), rng=Random(1), missing=lambda: "nothing is known")
        assert pool.choose(None, 0.0) is None
        assert pool.reason(0.0) == "nothing is known"


def test_a_member_of_nothing_can_be_left_out() -> None:
    service = Service()
    stranger = Backend(BackendURL("http", "10.9.9.9", 80))
    chosen = {service.pool.choose(CLIENT, 0.0, exclude=[stranger]) for _ in range(50)}
    assert chosen == set(service.backends)


def test_crowded_is_what_fewer_handshakes_would_open() -> None:
    backends = [Backend(BackendURL("http", f"10.0.0.{number}", 80)) for number in range(2)]
    members = [Member(backend, max_pending=1) for backend in backends]
    pool = Pool(members, "leastconn", counts=CountTable(), rng=Random(1))
    assert not pool.crowded()
    for backend in backends:
        backend.begin_handshake()
        backend.opening += 1
    assert pool.crowded()
    assert pool.crowded([backends[0]])
    assert not pool.crowded(backends)
    assert pool.choose(CLIENT, 0.0, opening=True) is None
    assert pool.reason(0.0, opening=True) == "all 2 backends at maxPending"
    backends[0].session_opened(0.0)
    backends[0].opening -= 1
    assert pool.choose(CLIENT, 0.0, opening=True) is backends[0]


def test_a_pool_without_reports_and_checks_has_none_to_show() -> None:
    backends = [Backend(BackendURL("http", "10.0.0.1", 80))]
    pool = Pool([Member(backends[0])], "leastconn", counts=CountTable(), rng=Random(1))
    assert pool.report(backends[0]) is None
    assert pool.health(backends[0]) is None
    service = Service()
    service.report(0, 7)
    entry = service.pool.report(service.backends[0])
    assert entry is not None
    assert entry.reported == 7
    with pytest.raises(KeyError):
        pool.report(service.backends[0])


def test_where_a_cookie_leads() -> None:
    backends = [Backend(BackendURL("http", f"10.0.0.{number}", 80)) for number in range(3)]
    members = [
        Member(backend, weight, 1, sticky=f"cookie-{number}")
        for number, (backend, weight) in enumerate(zip(backends, (1, 1, 0), strict=True))
    ]
    pool = Pool(members, "leastconn", counts=CountTable(), rng=Random(1))
    assert [pool.sticky_value(backend) for backend in backends] == ["cookie-0", "cookie-1", "cookie-2"]

    def leads(value: str) -> tuple[Backend | None, bool]:
        found = pool.affinity(value, 0.0)
        return found.backend, found.lasting

    assert leads("cookie-0") == (backends[0], True)
    assert leads("made up") == (None, False)
    assert leads("cookie-2") == (None, False), "of weight 0"
    backends[0].begin_handshake()
    backends[0].session_opened(0.0)
    assert leads("cookie-0") == (None, True), "full, for now"
    backends[1].begin_handshake()
    backends[1].handshake_failed(0.0)
    assert leads("cookie-1") == (None, False), "it cools down"
