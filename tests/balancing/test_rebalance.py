"""What is to be shed, and when: the planner, and the state of a service over time."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.balancing.rebalance import (
    COOL_DOWN,
    RETURN_WINDOW,
    SETTLE,
    Figure,
    Plan,
    Rebalance,
    level,
    make_plan,
)

RNG = Random(1)


def own(*loads: int) -> list[Figure]:
    """Return the figures of backends that have our own sessions alone."""
    return [Figure(load, load) for load in loads]


def sheds(figures: list[Figure], tolerance: float = 0.2, missing: int = 0) -> dict[int, int]:
    plan = make_plan(figures, tolerance, Random(1), missing).plan
    return {} if plan is None else dict(plan.sheds)


def reason(figures: list[Figure], tolerance: float = 0.2, missing: int = 0) -> str:
    verdict = make_plan(figures, tolerance, Random(1), missing)
    assert verdict.plan is None
    return verdict.reason


def test_the_excess_over_the_mean() -> None:
    assert sheds(own(100, 100, 0)) == {0: 33, 1: 33}
    assert sheds(own(0, 1000)) == {1: 500}


def test_only_those_above_the_tolerance() -> None:
    assert sheds(own(119, 81)) == {}
    assert sheds(own(121, 79)) == {0: 21}
    # The second is above its share too, and stays as it is.
    assert sheds(own(150, 110, 40)) == {0: 50}
    assert reason(own(119, 81)) == "no backend is above its share by more than 20%"


def test_weights() -> None:
    figures = [Figure(100, 100, weight=1), Figure(100, 100, weight=3)]
    assert sheds(figures) == {0: 50}
    assert level(figures) == 50.0


def test_one_session_too_many_is_not_worth_it() -> None:
    assert sheds(own(2, 1), tolerance=0.0) == {}
    assert sheds(own(1, 0), tolerance=0.0) == {}
    assert sheds(own(2, 0), tolerance=0.0) == {0: 1}


def test_those_that_do_not_count_neither_shed_nor_weigh() -> None:
    out = Figure(1000, 1000, counts=False)
    assert sheds([*own(100, 0), out]) == {0: 50}
    assert reason([*own(100), out]) == "fewer than two backends have known figures and get new sessions"


def test_of_several_balancers_each_sheds_its_part() -> None:
    assert sheds([Figure(100, 25), Figure(0, 0)]) == {0: 12} or sheds([Figure(100, 25), Figure(0, 0)]) == {
        0: 13
    }
    assert reason([Figure(100, 0), Figure(0, 0)]) == "what is too much are not our own sessions"
    rng, total = Random(3), 0
    for _ in range(400):  # half a session each
        plan = make_plan([Figure(12, 1), Figure(0, 0)], 0.2, rng).plan
        total += 0 if plan is None else plan.size
    assert 160 <= total <= 240


def test_no_more_than_the_others_have_room_for() -> None:
    figures = [Figure(100, 100), Figure(0, 0, limit=10)]
    assert sheds(figures) == {0: 10}
    assert reason([Figure(100, 100), Figure(10, 10, limit=10)]) == "the other backends have no room"


def test_sessions_on_their_way_count() -> None:
    assert sheds(own(500, 100)) == {0: 200}
    assert sheds(own(500, 100), missing=400) == {}


FIGURES = st.lists(
    st.builds(
        lambda load, part, weight, limit, counts: Figure(load, int(load * part), weight, limit, counts),
        st.integers(0, 500),
        st.floats(0, 1),
        st.integers(1, 5),
        st.sampled_from([float("inf"), 50.0, 200.0]),
        st.booleans() | st.just(True),  # mostly
    ),
    max_size=12,
)


@given(FIGURES, st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 300))
def test_a_plan_never_goes_below_the_share(figures: list[Figure], tolerance: float, missing: int) -> None:
    verdict = make_plan(figures, tolerance, Random(4), missing)
    plan = verdict.plan
    if plan is None:
        assert verdict.reason
        return
    mean = level(figures, missing)
    assert plan.size >= 1
    room = 0
    for index, figure in enumerate(figures):
        count = plan.sheds.get(index, 0)
        share = mean * figure.weight
        if figure.counts:
            room += max(0, min(ceil(share), int(min(figure.limit, 10**6))) - figure.load)
        if count:
            assert figure.counts
            assert count <= figure.own
            assert figure.load - count >= share
            assert figure.load > share * (1 + tolerance)
            assert plan.may_shed(index, figures, 0, missing)
            assert not plan.may_shed(index, figures, figure.load - ceil(share), missing)
    # Each part may be rounded up.
    assert plan.size <= max(0, room - missing) + len(plan.sheds)


def test_a_plan_stops_when_things_change() -> None:
    plan = Plan(50.0, {0: 50}, 50)
    assert plan.may_shed(0, own(100, 0), closing=49)
    assert not plan.may_shed(0, own(100, 0), closing=50)
    # Sessions have ended by themselves, others have come, or it gets no new ones any more.
    assert not plan.may_shed(0, own(50, 0), closing=0)
    assert not plan.may_shed(0, own(100, 100, 100), closing=0)
    assert not plan.may_shed(0, [Figure(100, 100, counts=False), *own(0, 0)], closing=0)


class TestOverTime:
    """A service whose backends have 1000 and 0 sessions, and whose clients take their time to come back."""

    def look(self, state: Rebalance, now: float, *loads: int, wanted: bool = False) -> str:
        return state.look(own(*loads), 0.2, now, RNG, wanted=wanted).outcome

    def begin(self, state: Rebalance, now: float, *loads: int) -> Plan:
        plan = state.look(own(*loads), 0.2, now, RNG, wanted=True).plan
        assert plan is not None
        state.begin(plan, own(*loads), now)
        return plan

    def test_an_imbalance_must_last(self) -> None:
        state = Rebalance()
        assert self.look(state, 0.0, 1000, 0) == "waiting"
        assert self.look(state, SETTLE - 1, 900, 100) == "waiting"
        assert self.look(state, SETTLE, 900, 100) == "planned"
        assert self.look(state, SETTLE, 500, 500) == "balanced"
        assert self.look(state, SETTLE + 1, 900, 100) == "waiting"
        assert self.look(state, SETTLE + 1, 900, 100, wanted=True) == "planned"

    def test_one_at_a_time_and_then_a_pause(self) -> None:
        state = Rebalance()
        self.begin(state, 0.0, 1000, 0)
        assert self.look(state, 5.0, 900, 100, wanted=True) == "running"
        state.finish(10.0)
        assert self.look(state, 11.0, 1000, 500, wanted=True) == "waiting"
        assert self.look(state, 10.0 + COOL_DOWN, 1000, 500, wanted=True) == "planned"

    def test_the_pause_lasts_until_the_reports_are_new(self) -> None:
        state = Rebalance()
        self.begin(state, 0.0, 1000, 0)
        state.finish(10.0, report_interval=60.0)
        assert self.look(state, 129.0, 1000, 500, wanted=True) == "waiting"
        assert self.look(state, 130.0, 1000, 500, wanted=True) == "planned"

    def test_those_on_their_way_back_are_waited_for_and_then_given_up(self) -> None:
        state = Rebalance()
        plan = self.begin(state, 0.0, 1000, 0)
        assert dict(plan.sheds) == {0: 500}
        assert state.missing(own(700, 50), 30.0) == 250
        state.finish(50.0)
        assert state.missing(own(500, 100), 90.0) == 400
        assert self.look(state, 90.0, 500, 100, wanted=True) == "balanced"
        # No more than were sent away, and not for ever.
        assert state.missing(own(100, 0), 90.0) == 500
        assert state.missing(own(500, 600), 90.0) == 0
        assert state.missing(own(500, 100), 50.0 + RETURN_WINDOW) == 0
        assert self.look(state, 50.0 + RETURN_WINDOW, 500, 100, wanted=True) == "planned"

    def test_a_second_plan_still_counts_those_of_the_first(self) -> None:
        state = Rebalance()
        self.begin(state, 0.0, 1000, 0)
        state.finish(50.0)
        self.begin(state, 100.0, 800, 50)
        assert state.missing(own(800, 50), 100.0) == 150
        state.finish(110.0)
        assert state.missing(own(500, 50), 120.0) == 450


@pytest.mark.parametrize("loads", [(), (5,), (0, 0, 0)])
def test_little_to_look_at(loads: tuple[int, ...]) -> None:
    assert make_plan(own(*loads), 0.0, RNG).plan is None
    assert level([]) == 0.0
