"""The way down the tree against a slow and obvious model of it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthKey, HealthTable, Question
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.sticky import sticky_value
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.http.headers import Headers
from trio_wsb.proxy.services import (
    FailoverRuntime,
    MirroringRuntime,
    MirrorRuntime,
    ServiceNode,
    ServiceRuntime,
    TransportRuntime,
    WeightedRuntime,
    find_way,
    well,
)

LEAVES = 4
COOKIE = StickyCookie("c")


class World:
    """Leaves 0 to 3 with one backend each; those in `down` are down."""

    def __init__(self, down: set[int]) -> None:
        self.down = down
        health, question = HealthTable(), Question("/")
        self.leaves: list[ServiceRuntime] = []
        for number in range(LEAVES):
            backend = Backend(BackendURL("http", f"b{number}", 80))
            pool = Pool(
                [Member(backend)],
                "leastconn",
                counts=CountTable(),
                rng=random.Random(1),
                health=(health, question),
            )
            if number in down:
                health.failed(HealthKey(backend.url, question), "x", 0.0, fall=1)
            transport = TransportRuntime(1.0, 1.0, None, None)
            self.leaves.append(ServiceRuntime(str(number), pool, transport, True, 1.0))

    def build(self, shape: object, name: str = "n") -> ServiceNode:
        match shape:
            case int(number):
                return self.leaves[number]
            case ("failover", main, spare):
                return FailoverRuntime(name, self.build(main, f"{name}m"), self.build(spare, f"{name}s"))
            case ("mirroring", main, mirror):
                copies = (MirrorRuntime(self.build(mirror, f"{name}c"), 1.0),)
                return MirroringRuntime(name, self.build(main, f"{name}m"), copies, 1, random.Random(1))
            case ("weighted", list(parts)):
                built = [
                    (self.build(("failover", part, part), f"{name}{index}"), weight)
                    for index, (part, weight) in enumerate(parts)
                ]
                return WeightedRuntime(name, built, sticky=COOKIE, rng=random.Random(1))
            case _:
                raise AssertionError(shape)

    def well(self, shape: object) -> bool:
        match shape:
            case int(number):
                return number not in self.down
            case ("failover", main, spare):
                return self.well(main) or self.well(spare)
            case ("mirroring", main, _):
                return self.well(main)
            case ("weighted", list(parts)):
                return any(weight and self.well(part) for part, weight in parts)
            case _:
                raise AssertionError(shape)

    def possible(self, shape: object) -> set[int]:
        """Return the leaves that a request may end at."""
        match shape:
            case int(number):
                return {number}
            case ("failover", main, spare):
                return self.possible(main if self.well(main) or not self.well(spare) else spare)
            case ("mirroring", main, _):
                return self.possible(main)
            case ("weighted", list(parts)):
                weighed = [part for part, weight in parts if weight]
                good = [part for part in weighed if self.well(part)]
                return {leaf for part in good or weighed for leaf in self.possible(part)}
            case _:
                raise AssertionError(shape)


def shapes() -> st.SearchStrategy[object]:
    def inner(below: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        parts = st.lists(st.tuples(below, st.integers(0, 3)), min_size=1, max_size=3)
        weighted = parts.filter(lambda found: any(weight for _, weight in found))
        return st.one_of(
            st.tuples(st.just("failover"), below, below),
            st.tuples(st.just("mirroring"), below, below),
            st.tuples(st.just("weighted"), weighted),
        )

    leaf: st.SearchStrategy[object] = st.integers(0, LEAVES - 1)
    return st.recursive(leaf, inner, max_leaves=6)


@given(shape=shapes(), down=st.sets(st.integers(0, LEAVES - 1)))
def test_where_requests_end(shape: object, down: set[int]) -> None:
    world = World(down)
    node = world.build(shape)
    assert well(node, 0.0) == world.well(shape)
    allowed = world.possible(shape)
    for _ in range(6):
        way = find_way(node, Headers(), 0.0)
        assert int(way.service.name) in allowed
        if world.well(shape):
            assert int(way.service.name) not in down


@given(
    weights=st.lists(st.integers(0, 5), min_size=1, max_size=LEAVES).filter(any),
    down=st.sets(st.integers(0, LEAVES - 1)),
    value=st.integers(0, LEAVES),
)
def test_a_cookie_decides_where_it_can(weights: list[int], down: set[int], value: int) -> None:
    world = World(down)
    parts = list(zip(world.leaves, weights, strict=False))
    node = WeightedRuntime("w", parts, sticky=COOKIE, rng=random.Random(1))
    headers = Headers([("Cookie", f"c={sticky_value(str(value))}")])
    way = find_way(node, headers, 0.0)
    if value < len(weights) and weights[value] and value not in down:
        assert (way.service.name, way.cookies) == (str(value), [])
    else:
        assert way.cookies == [COOKIE.field(sticky_value(way.service.name))]


@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=LEAVES).filter(any))
def test_a_round_is_exact(weights: list[int]) -> None:
    world = World(set())
    parts = list(zip(world.leaves, weights, strict=False))
    node = WeightedRuntime("w", parts, sticky=None, rng=random.Random(1))
    got = [int(find_way(node, Headers(), 0.0).service.name) for _ in range(sum(weights))]
    assert [got.count(number) for number in range(len(weights))] == weights
