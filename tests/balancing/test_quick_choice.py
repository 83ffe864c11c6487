"""The quick look at who takes the fewest chooses as the thorough one does, whatever stands in the way."""

from __future__ import annotations

from collections import Counter
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountKey, CountTable
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.strategies import LeastConnections

COUNT = ("/metric", "connections")
NOW = 100.0

states = st.lists(
    st.tuples(
        st.integers(0, 3),  # own sessions
        st.integers(0, 3),  # foreign ones
        st.integers(0, 2),  # weight
        st.sampled_from([0, 2, 4]),  # maxConnections
        st.sampled_from([0, 1]),  # maxPending
        st.booleans(),  # a handshake is under way
        st.sampled_from(["", "", "", "excluded", "failed"]),
    ),
    min_size=1,
    max_size=6,
)


@given(states, st.booleans())
def test_the_chosen_one_is_eligible_and_nobody_eligible_takes_fewer(
    state: list[tuple[int, int, int, int, int, bool, str]], opening: bool
) -> None:
    counts, members, scores, exclude = CountTable(), [], [], []
    for number, (own, foreign, weight, most, pending, under_way, trouble) in enumerate(state):
        backend = Backend(BackendURL("http", f"10.0.0.{number}", 80))
        sample = counts.start(CountKey(backend.url, *COUNT), 0, 0.0)
        counts.finish(sample, foreign, 0, 0, 0.1)
        for _ in range(own):
            backend.begin_handshake()
            backend.session_opened(1.0)
        if trouble == "failed":
            backend.begin_handshake()
            backend.handshake_failed(NOW)
        if trouble == "excluded":
            exclude.append(backend)
        if under_way:
            backend.begin_handshake()
            backend.opening += 1
        members.append(Member(backend, weight, max_connections=most, max_pending=pending))
        load = own + foreign + under_way
        eligible = (
            weight
            and not trouble
            and (not most or load < most)
            and not (opening and pending and backend.opening >= pending)
        )
        scores.append((load + 1) / weight if eligible else inf)
    pool = Pool(members, "leastconn", counts=counts, count=COUNT, rng=Random(1))
    chosen = pool.choose(None, NOW, exclude, opening=opening)
    least = min(scores)
    if least < inf:  # else cool-downs alone may be passed over
        assert chosen is not None
        assert scores[[member.backend for member in members].index(chosen)] == least


def test_ties_are_equally_likely_however_many_there_are() -> None:
    for ties in (2, 5, 40):
        loads = [1.0] * 40
        loads[-ties:] = [0.0] * ties
        strategy = LeastConnections([str(number) for number in range(40)], [1] * 40, Random(7))
        chosen = Counter(strategy.choose(loads, None) for _ in range(1000 * ties))
        assert set(chosen) == set(range(40 - ties, 40))
        assert max(chosen.values()) < 1.2 * min(chosen.values())
