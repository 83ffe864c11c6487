from __future__ import annotations

import math
from random import Random

import pytest
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.breaker import CircuitBreaker, CircuitBreakerOptions, State, Ticket
from trio_wsb.middleware.expression import Expression, parse_expression
from trio_wsb.middleware.statistics import WINDOW, RollingFigures
from trio_wsb.units import Duration

ERRORS = parse_expression("ResponseCodeRatio(500, 600, 0, 600) > 0.5")


class FixedRandom(Random):
    """Always the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


def breaker(
    expression: Expression = ERRORS,
    *,
    check: float = 0.1,
    fallback: float = 10.0,
    recovery: float = 10.0,
    draw: float = 0.5,
) -> CircuitBreaker:
    options = CircuitBreakerOptions(expression, Duration(check), Duration(fallback), Duration(recovery), 503)
    return CircuitBreaker(options, FixedRandom(draw))


def tell(circuit: CircuitBreaker, now: float, status: int) -> bool:
    ticket = circuit.admit(now)
    assert ticket is not None
    return circuit.record(ticket, now, status, 0.01)


def test_a_life() -> None:
    circuit = breaker()
    assert not tell(circuit, 0.0, 101)
    assert tell(circuit, 1.0, 101) is False
    assert circuit.figures_at(1.1).attempts == 2
    assert [tell(circuit, at, 500) for at in (1.2, 1.4, 1.6)] == [False, False, True]
    assert circuit.state is State.OPEN
    assert circuit.admit(11.59) is None
    assert circuit.state_at(11.6) is State.RECOVERING
    assert circuit.admit(16.5) is None
    assert circuit.admit(16.7) is not None
    assert circuit.state_at(21.6) is State.CLOSED
    assert circuit.admit(21.6) is not None
    assert circuit.passing(21.6) == 1.0


def test_a_failure_while_recovering_opens_it_again() -> None:
    circuit = breaker()
    assert tell(circuit, 0.0, 500)
    ticket = circuit.admit(16.0)
    assert ticket is not None
    assert circuit.record(ticket, 16.0, 502, 0.1)
    assert circuit.state is State.OPEN
    assert circuit.admit(25.9) is None
    assert circuit.state_at(26.0) is State.RECOVERING


def test_outcomes_from_before_it_opened_say_nothing() -> None:
    circuit = breaker()
    late = circuit.admit(0.0)
    assert late is not None
    assert tell(circuit, 0.0, 500)
    assert not circuit.record(late, 5.0, 500, 5.0)
    assert not circuit.record(late, 15.0, 500, 15.0)
    assert circuit.state is State.RECOVERING


def test_a_night_without_requests_closes_it() -> None:
    circuit = breaker(draw=0.999)
    assert tell(circuit, 0.0, 500)
    assert circuit.admit(30000.0) is not None
    assert circuit.state is State.CLOSED


def test_it_is_checked_once_in_a_period() -> None:
    circuit = breaker(check=10.0)
    assert not tell(circuit, 0.0, 101)
    assert not any(tell(circuit, at, 500) for at in (1.0, 2.0, 9.9))
    assert tell(circuit, 10.0, 500)


def test_the_ramp_is_linear() -> None:
    circuit = breaker()
    assert tell(circuit, 0.0, 500)
    assert circuit.state_at(10.0) is State.RECOVERING
    assert [circuit.passing(at) for at in (10.0, 12.5, 15.0, 19.0)] == pytest.approx([0.0, 0.25, 0.5, 0.9])
    lucky = breaker(draw=0.0)
    assert tell(lucky, 0.0, 500)
    assert lucky.admit(10.0) is None
    assert lucky.admit(10.001) is not None
    assert breaker().passing(0.0) == 1.0


def test_nothing_passes_while_it_is_open() -> None:
    circuit = breaker(draw=0.0)
    assert tell(circuit, 0.0, 500)
    assert circuit.passing(1.0) == 0.0
    assert circuit.admit(1.0) is None


@pytest.mark.parametrize(
    ("code", "body"), [(503, b"Service Unavailable"), (429, b"Too Many Requests"), (599, b"")]
)
def test_the_answer(code: int, body: bytes) -> None:
    circuit = CircuitBreaker(CircuitBreakerOptions(ERRORS, response_code=code), Random(0))
    answer = circuit.refusal()
    assert (answer.status, answer.body) == (code, body)


def test_network_errors_and_times() -> None:
    circuit = breaker(
        parse_expression("NetworkErrorRatio() >= 0.5 && LatencyAtQuantileMS(100) > 900"), check=0.001
    )
    for now, seconds, failed, opens in ((0.0, 0.1, True, False), (1.0, 1.0, False, True)):
        ticket = circuit.admit(now)
        assert ticket is not None
        assert circuit.record(ticket, now, 502, seconds, network_error=failed) is opens


# The figures, counted anew from everything that ever happened.


@frozen
class Event:
    time: float
    status: int
    seconds: float
    network_error: bool


def recent(events: list[Event], now: float) -> list[Event]:
    return [event for event in events if math.floor(now) - WINDOW < math.floor(event.time) <= math.floor(now)]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 12.0]),
        st.sampled_from([101, 200, 404, 500, 502, 599]),
        st.floats(0, 100),
        st.booleans(),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(EVENTS, st.sampled_from([0.0, 0.9, 5.0, 9.5, 20.0]), st.floats(0, 100))
def test_figures_like_the_slow_model(
    steps: list[tuple[float, int, float, bool]], later: float, quantile: float
) -> None:
    figures, events, now = RollingFigures(), [], 1000.0
    for pause, status, seconds, network_error in steps:
        now += pause
        figures.record(now, status, seconds, network_error=network_error)
        events.append(Event(now, status, seconds, network_error))
    now += later
    figures.at(now)
    left = recent(events, now)
    assert figures.attempts == len(left)
    failed = [event for event in left if event.network_error]
    assert figures.network_error_ratio() == (len(failed) / len(left) if left else 0)
    above = [event for event in left if 500 <= event.status < 600]
    below = [event for event in left if 100 <= event.status < 500]
    assert figures.response_code_ratio(500, 600, 100, 500) == (len(above) / len(below) if below else 0)
    found = figures.latency_at_quantile(quantile)
    times = sorted(event.seconds * 1000 for event in left)
    exact = times[max(1, math.ceil(quantile / 100 * len(times))) - 1] if times else 0.0
    assert exact * 0.99 - 0.001 <= found <= exact
    figures.clear()
    assert (figures.attempts, figures.latency_at_quantile(50)) == (0, 0.0)


def test_times_take_bounded_memory() -> None:
    figures, rng = RollingFigures(), Random(1)
    for _ in range(20000):
        figures.record(5.0, 200, 10 ** rng.uniform(-6, 3), network_error=False)
    bucket = figures._buckets[5]
    assert bucket is not None
    assert len(bucket.latencies) < 128 * 31


# The state machine, told as its definition says it: from everything that happened, again at each step.


@define
class SlowBreaker:
    expression: Expression
    check: float
    fallback: float
    recovery: float
    opened: float | None = None
    events: list[Event] = field(factory=list)
    next_check: float = -math.inf

    def state(self, now: float) -> State:
        if self.opened is None or now >= self.opened + self.fallback + self.recovery:
            return State.CLOSED
        return State.OPEN if now < self.opened + self.fallback else State.RECOVERING

    def admits(self, now: float, draw: float) -> bool:
        state = self.state(now)
        if state is State.RECOVERING:
            assert self.opened is not None
            return draw < (now - self.opened - self.fallback) / self.recovery
        return state is State.CLOSED

    def record(self, admitted: float, event: Event) -> None:
        """`admitted` is when the request passed: what passed before the last change to open or to recovering is void."""
        now = event.time
        start = -math.inf if self.opened is None else self.opened + self.fallback
        if self.state(now) is State.OPEN or (now >= start > admitted):
            return
        self.events.append(event)
        if now < self.next_check:
            return
        self.next_check = now + self.check
        figures = RollingFigures()
        for each in recent(self.events, now):
            figures.record(each.time, each.status, each.seconds, network_error=each.network_error)
        if self.expression.holds(figures.at(now)):
            self.opened = now
            self.events = []
            self.next_check = -math.inf


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0625, 0.25, 1.0, 4.0, 8.0]),
        st.sampled_from(["pass", "pass", "end", "end", "end"]),
        st.sampled_from([101, 101, 500]),
        st.sampled_from([0.0, 0.125, 0.5, 0.9375]),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from([0.125, 1.0, 16.0]), st.sampled_from([2.0, 8.0]), st.sampled_from([2.0, 8.0]))
def test_changes_like_the_slow_model(
    steps: list[tuple[float, str, int, float]], check: float, fallback: float, recovery: float
) -> None:
    rng = FixedRandom(0.0)
    options = CircuitBreakerOptions(ERRORS, Duration(check), Duration(fallback), Duration(recovery))
    quick = CircuitBreaker(options, rng)
    slow = SlowBreaker(ERRORS, check, fallback, recovery)
    under_way: list[tuple[float, Ticket]] = []
    now = 0.0
    for pause, step, status, draw in steps:
        now += pause
        rng.value = draw
        assert quick.state_at(now) is slow.state(now)
        if step == "pass" or not under_way:
            ticket = quick.admit(now)
            assert (ticket is not None) is slow.admits(now, draw)
            if ticket is not None:
                under_way.append((now, ticket))
        else:
            admitted, ticket = under_way.pop(0)
            before = slow.opened
            slow.record(admitted, Event(now, status, 0.01, network_error=False))
            assert quick.record(ticket, now, status, 0.01) is (slow.opened != before)
