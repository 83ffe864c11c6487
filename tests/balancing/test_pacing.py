from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.balancing.pacing import CATCH_UP, Pacer


def moments(pacer: Pacer, count: int) -> list[float]:
    """Return when events happen if somebody takes each one as soon as it is due."""
    found = []
    for _ in range(count):
        now = pacer.next_at
        assert pacer.take(now)
        found.append(now)
    return found


@pytest.mark.parametrize("rate", [0.5, 10.0, 200.0])
def test_one_event_in_each_slot(rate: float) -> None:
    found = moments(Pacer(rate, 100.0, Random(1)), 500)
    assert [int((moment - 100.0) * rate + 1e-6) for moment in found] == list(range(500))


def test_the_moments_are_not_a_beat() -> None:
    found = moments(Pacer(10.0, 0.0, Random(1)), 200)
    pauses = [after - before for before, after in pairwise(found)]
    assert min(pauses) < 0.05
    assert max(pauses) > 0.15


@given(st.lists(st.floats(0.0, 0.3), max_size=60), st.sampled_from([1.0, 7.0, 200.0]))
def test_looking_late_costs_nothing_of_the_rate(naps: list[float], rate: float) -> None:
    pacer, now, taken = Pacer(rate, 0.0, Random(2)), 0.0, 0
    for nap in naps:
        now += nap
        while pacer.take(now):
            taken += 1
        assert taken in {int(now * rate), int(now * rate) + 1}


def test_a_long_absence_is_not_made_up_for() -> None:
    pacer = Pacer(100.0, 0.0, Random(1))
    taken = 0
    while pacer.take(3600.0):
        taken += 1
    assert taken <= 100 * CATCH_UP + 2


def test_another_rate_counts_from_now_on() -> None:
    pacer = Pacer(1.0, 0.0, Random(1))
    assert not pacer.take(0.0)
    pacer.change(1000.0, 0.1)
    assert 0.1 <= pacer.next_at < 0.102
    before = pacer.next_at
    pacer.change(1000.0, 0.1)
    assert pacer.next_at == before
