from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import inf, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import IPAddress
from trio_wsb.balancing.strategies import (
    STRATEGIES,
    ClientNetworkHash,
    LeastConnections,
    RendezvousHash,
    Strategy,
    TwoChoices,
    WeightedRoundRobin,
)

CLIENT = IPv4Address("192.0.2.7")
HASHES = ["hrw", "iphash"]


def make(name: str, weights: list[int], names: list[str] | None = None, seed: int = 1) -> Strategy:
    names = names or [f"http://10.0.0.{number}:80" for number in range(len(weights))]
    return STRATEGIES[name](names, weights, Random(seed))


def clients(count: int) -> list[IPAddress]:
    """Return clients of as many different networks."""
    rng = Random(7)
    return [IPv4Address(rng.getrandbits(32)) for _ in range(count)]


def assert_proportions(counts: Counter[int | None], weights: list[int]) -> None:
    """Check that every backend's count is within five standard deviations of its share."""
    turns, total = counts.total(), sum(weights)
    for index, weight in enumerate(weights):
        share = weight / total
        assert abs(counts[index] - turns * share) <= 5 * sqrt(turns * share * (1 - share)), counts


weights_and_loads = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 50), st.just(inf))), min_size=1, max_size=8
)


@pytest.mark.parametrize("name", STRATEGIES)
@given(members=weights_and_loads, client=st.none() | st.ip_addresses(), seed=st.integers(0, 99))
def test_chooses_an_eligible_one_whenever_there_is_one(
    name: str, members: list[tuple[int, float]], client: IPAddress | None, seed: int
) -> None:
    strategy = make(name, [weight for weight, _ in members], seed=seed)
    eligible = {index for index, (weight, load) in enumerate(members) if weight and load < inf}
    for _ in range(3):
        chosen = strategy.choose([load for _, load in members], client)
        assert chosen in eligible if eligible else chosen is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_to_choose_from(name: str) -> None:
    assert make(name, []).choose([], CLIENT) is None


def test_names_are_told_apart() -> None:
    with pytest.raises(AssertionError):
        make("hrw", [1, 1], ["http://a", "http://a"])
    with pytest.raises(AssertionError):
        make("leastconn", [1, -1])


# --- least connections


@given(members=weights_and_loads)
def test_leastconn_takes_the_smallest(members: list[tuple[int, float]]) -> None:
    strategy = LeastConnections([str(n) for n in range(len(members))], [w for w, _ in members], Random(1))
    chosen = strategy.choose([load for _, load in members], None)
    scores = {i: (load + 1) / weight for i, (weight, load) in enumerate(members) if weight and load < inf}
    if chosen is None:
        assert not scores
    else:
        assert scores[chosen] == min(scores.values())


def test_leastconn_breaks_ties_at_random() -> None:
    strategy = make("leastconn", [1, 1, 1, 1])
    assert_proportions(Counter(strategy.choose([5, 5, 9, 5], None) for _ in range(3000)), [1, 1, 0, 1])


def test_leastconn_breaks_weighted_ties_at_random() -> None:
    strategy = make("leastconn", [1, 2, 3])
    assert_proportions(Counter(strategy.choose([1, 3, 5], None) for _ in range(3000)), [1, 1, 1])


def test_leastconn_is_the_same_for_the_same_seed() -> None:
    first, second = (make("leastconn", [1] * 5, seed=9) for _ in range(2))
    turns = [(first.choose([0] * 5, None), second.choose([0] * 5, None)) for _ in range(50)]
    assert all(a == b for a, b in turns)
    assert len(set(turns)) > 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 300))
def test_leastconn_fills_in_proportion_to_weight(weights: list[int], count: int) -> None:
    strategy, loads = make("leastconn", weights), [0] * len(weights)
    for _ in range(count):
        chosen = strategy.choose(loads, None)
        assert chosen is not None
        loads[chosen] += 1
    for load, weight in zip(loads, weights, strict=True):
        assert abs(load - count * weight / sum(weights)) <= len(weights)


# --- weighted round robin


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any), st.integers(1, 3))
def test_wrr_is_exact_over_each_round(weights: list[int], rounds: int) -> None:
    strategy, loads = make("wrr", weights), [0] * len(weights)
    for _ in range(rounds):
        counts = Counter(strategy.choose(loads, None) for _ in range(sum(weights)))
        assert [counts[index] for index in range(len(weights))] == weights


def test_wrr_is_smooth() -> None:
    strategy = make("wrr", [5, 1, 1])
    assert [strategy.choose([0, 0, 0], None) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


def test_wrr_without_one_goes_on_exactly() -> None:
    strategy = make("wrr", [2, 1, 1])
    assert Counter(strategy.choose([0, inf, 0], None) for _ in range(30)) == {0: 20, 2: 10}
    assert Counter(strategy.choose([0, 0, 0], None) for _ in range(40)) == {0: 20, 1: 10, 2: 10}


def test_wrr_goes_on_after_a_reload() -> None:
    whole = make("wrr", [3, 2, 1])
    expected = [whole.choose([0, 0, 0], None) for _ in range(12)]
    strategy, turns = make("wrr", [3, 2, 1]), []
    for _ in range(12):
        turns.append(strategy.choose([0, 0, 0], None))
        following = make("wrr", [3, 2, 1])
        following.adopt(strategy)
        strategy = following
    assert turns == expected


def test_wrr_after_a_reload_with_other_members_and_weights() -> None:
    before = WeightedRoundRobin(["a", "b", "c"], [5000, 1, 1], Random(1))
    for _ in range(3):
        before.choose([0, 0, 0], None)
    assert max(map(abs, before.balance)) > 3
    after = WeightedRoundRobin(["c", "a", "d"], [1, 1, 1], Random(1))
    after.adopt(before)
    assert max(map(abs, after.balance)) <= 3
    assert after.balance[2] == 0
    counts = Counter(after.choose([0, 0, 0], None) for _ in range(300))
    assert all(abs(counts[index] - 100) <= 4 for index in range(3))


def test_adopting_from_another_strategy_begins_anew() -> None:
    for name in STRATEGIES:
        strategy = make("wrr", [1, 1])
        strategy.adopt(make(name, [1, 1]))
        assert isinstance(strategy, WeightedRoundRobin)
        assert strategy.balance == [0, 0]


# --- two choices


def test_p2c_takes_the_better_of_two() -> None:
    strategy = make("p2c", [1, 1])
    assert {strategy.choose([3, 4], None) for _ in range(50)} == {0}
    weighted = make("p2c", [1, 3])
    assert {weighted.choose([3, 4], None) for _ in range(50)} == {1}


def test_p2c_draws_in_proportion_to_weight() -> None:
    # Loads so that every pair ties: the first one drawn wins.
    weights = [1, 2, 0, 3]
    strategy = make("p2c", weights)
    assert_proportions(Counter(strategy.choose([0, 1, 0, 2], None) for _ in range(6000)), weights)


def test_p2c_never_takes_the_worst_of_three() -> None:
    strategy = make("p2c", [1, 1, 1])
    counts = Counter(strategy.choose([1, 2, 3], None) for _ in range(3000))
    assert counts[2] == 0
    assert_proportions(counts, [2, 1, 0])


def test_p2c_with_most_out_draws_in_proportion_too() -> None:
    weights = [1] * 200
    weights[77] = 3
    loads: list[float] = [inf] * 200
    loads[3], loads[77] = 1, 5  # a tie
    strategy = make("p2c", weights)
    assert isinstance(strategy, TwoChoices)
    counts = Counter(strategy.choose(loads, None) for _ in range(2000))
    assert_proportions(Counter({0: counts[3], 1: counts[77]}), [1, 3])


# --- hashes


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 1, 2, 2], [1, 0, 3], [1, 1, 1, 4, 4, 4, 2]])
def test_hashes_spread_by_weight(name: str, weights: list[int]) -> None:
    strategy, loads = make(name, weights), [0.0] * len(weights)
    assert_proportions(Counter(strategy.choose(loads, client) for client in clients(10_000)), weights)


@pytest.mark.parametrize("name", HASHES)
def test_neighbouring_clients_spread_too(name: str) -> None:
    strategy = make(name, [1, 1, 1, 1])
    networks = [ip_address((10 << 24) + (number << 8) + 1) for number in range(4000)]
    assert_proportions(Counter(strategy.choose([0] * 4, client) for client in networks), [1, 1, 1, 1])


@pytest.mark.parametrize("name", HASHES)
@given(client=st.ip_addresses(), loads=st.lists(st.integers(0, 99), min_size=5, max_size=5))
def test_hashes_depend_on_nothing_but_the_client(name: str, client: IPAddress, loads: list[int]) -> None:
    assert make(name, [1, 2, 1, 1, 3], seed=1).choose(loads, client) == make(
        name, [1, 2, 1, 1, 3], seed=2
    ).choose([0] * 5, client)


def test_hashes_are_the_same_in_every_version() -> None:
    # Fixed values: instances of different versions stand side by side during an upgrade.
    chosen = {
        name: [
            make(name, [1, 2, 1, 3]).choose([0] * 4, ip_address(text))
            for text in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1")
        ]
        for name in HASHES
    }
    assert chosen == {"hrw": [3, 3, 1, 3], "iphash": [1, 1, 2, 0]}


@pytest.mark.parametrize("name", HASHES)
def test_only_the_clients_of_one_that_is_out_move_and_they_spread(name: str) -> None:
    weights, out = [1, 2, 1, 1], 1
    strategy = make(name, weights)
    moved: Counter[int | None] = Counter()
    for client in clients(8000):
        usual = strategy.choose([0, 0, 0, 0], client)
        now = strategy.choose([0, inf, 0, 0], client)
        if usual == out:
            moved[now] += 1
        else:
            assert now == usual
    assert_proportions(moved, [1, 0, 1, 1])


@pytest.mark.parametrize("name", HASHES)
def test_almost_all_out(name: str) -> None:
    loads: list[float] = [inf] * 300
    loads[123] = 0
    strategy = make(name, [1] * 300)
    assert {strategy.choose(loads, client) for client in clients(50)} == {123}
    assert strategy.choose([inf] * 300, CLIENT) is None


names = st.lists(st.integers(0, 10**6), min_size=2, max_size=8, unique=True).map(
    lambda numbers: [f"http://backend-{number}" for number in numbers]
)


@given(names, st.data(), st.ip_addresses())
def test_hrw_moves_a_client_only_to_a_backend_that_comes(
    names: list[str], data: st.DataObject, client: IPAddress
) -> None:
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(names), max_size=len(names)))
    rng = Random(1)
    fewer = RendezvousHash(names[:-1], weights[:-1], rng).choose([0] * (len(names) - 1), client)
    more = RendezvousHash(names, weights, rng).choose([0] * len(names), client)
    assert more in {fewer, len(names) - 1}


@given(names, st.randoms(use_true_random=False), st.ip_addresses())
def test_hrw_does_not_depend_on_the_order_in_the_file(
    names: list[str], shuffler: Random, client: IPAddress
) -> None:
    order = shuffler.sample(names, len(names))
    rng, loads = Random(1), [0] * len(names)
    first = RendezvousHash(names, [1] * len(names), rng).choose(loads, client)
    second = RendezvousHash(order, [1] * len(names), rng).choose(loads, client)
    assert first is not None
    assert second is not None
    assert names[first] == order[second]


def test_hrw_gives_a_backend_that_comes_its_share() -> None:
    fewer = make("hrw", [1] * 9)
    more = make("hrw", [1] * 10)
    moved = sum(fewer.choose([0] * 9, client) != more.choose([0] * 10, client) for client in clients(5000))
    assert_proportions(Counter({0: moved, 1: 5000 - moved}), [1, 9])


def test_hrw_moves_clients_only_towards_a_weight_that_rises() -> None:
    before, after = make("hrw", [1, 1, 1]), make("hrw", [1, 3, 1])
    for client in clients(500):
        usual, now = before.choose([0] * 3, client), after.choose([0] * 3, client)
        assert now in {usual, 1}


@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255))
def test_iphash_takes_a_v4_network_as_one_client(network: int, first: int, second: int) -> None:
    strategy = make("iphash", [1] * 50)
    addresses = [IPv4Address((network << 8) + host) for host in (first, second)]
    assert strategy.choose([0] * 50, addresses[0]) == strategy.choose([0] * 50, addresses[1])


def test_iphash_takes_the_whole_v6_address() -> None:
    strategy = make("iphash", [1] * 50)
    addresses = [IPv6Address(f"2001:db8::{host:x}") for host in range(64)]
    assert len({strategy.choose([0] * 50, address) for address in addresses}) > 20


def test_iphash_passes_a_weight_of_zero_on_the_way_to_the_next() -> None:
    # One in a thousand: twenty draws will not meet it for some clients.
    weights, loads = [1000, 0, 1], [inf, 0.0, 0.0]
    strategy = make("iphash", weights)
    assert isinstance(strategy, ClientNetworkHash)
    assert {strategy.choose(loads, client) for client in clients(100)} == {2}


def test_hrw_with_other_weights_moves_clients_to_what_grows_alone() -> None:
    strategy = make("hrw", [1, 1, 1])
    some = clients(600)
    before = [strategy.choose([0, 0, 0], client) for client in some]
    strategy.reweigh([3, 1, 1])
    after = [strategy.choose([0, 0, 0], client) for client in some]
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert moved
    assert {new for _, new in moved} == {0}
    # What a new one with these weights would do: nothing of the old ones is left.
    assert after == [make("hrw", [3, 1, 1]).choose([0, 0, 0], client) for client in some]
