from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.rate_limit import (
    Admit,
    RateLimiter,
    RateLimitOptions,
    Reject,
    Verdict,
    Wait,
    go_duration,
)
from trio_wsb.units import Duration


def limiter(average: int, burst: int = 1, period: float = 1.0, max_sources: int = 65536) -> RateLimiter:
    options = RateLimitOptions(average=average, burst=burst, period=Duration(period))
    return RateLimiter(options, max_sources=max_sources)


def wait(seconds: float) -> Verdict:
    # Rounding in the last bits is no fault.
    return Wait(pytest.approx(seconds))  # type: ignore[arg-type]


def reject(seconds: float) -> Verdict:
    return Reject(pytest.approx(seconds))  # type: ignore[arg-type]


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    bucket = limiter(average=2, burst=2)
    assert [type(bucket.take("a", 0.0)) for _ in range(3)] == [Admit, Admit, Reject]
    assert bucket.take("a", 0.3) == wait(0.2)
    assert bucket.take("a", 0.3) == reject(0.7)
    assert bucket.take("b", 0.3) == Admit()


def test_a_refused_request_costs_nothing() -> None:
    bucket = limiter(average=1)
    assert bucket.take("a", 0.0) == Admit()
    for _ in range(100):
        assert bucket.take("a", 0.0) == Reject(1.0)
    assert bucket.take("a", 1.0) == Admit()


@pytest.mark.parametrize(
    ("average", "period", "wait"), [(1, 1.0, 0.5), (1, 60.0, 0.5), (2, 1.0, 0.25), (1000, 1.0, 0.0005)]
)
def test_the_longest_wait(average: int, period: float, wait: float) -> None:
    bucket = limiter(average, period=period)
    token = period / average
    assert bucket.take("a", 0.0) == Admit()
    assert isinstance(bucket.take("a", token - wait - wait / 10), Reject)
    found = bucket.take("a", token - wait + wait / 10)
    assert isinstance(found, Wait)
    assert found.seconds == pytest.approx(0.9 * wait)


def test_waiting_requests_queue_for_the_tokens_to_come() -> None:
    bucket = limiter(average=1)
    assert bucket.take("a", 0.0) == Admit()
    assert bucket.take("a", 0.5) == Wait(0.5)
    assert bucket.take("a", 1.4) == reject(0.6)
    assert bucket.take("a", 1.5) == wait(0.5)


def test_no_limit() -> None:
    bucket = limiter(average=0)
    assert all(bucket.take("a", 0.0) == Admit() for _ in range(1000))
    assert bucket.sources == 0


def test_a_burst_of_0_is_1() -> None:
    bucket = limiter(average=1, burst=0)
    assert [type(bucket.take("a", 0.0)) for _ in range(2)] == [Admit, Reject]


def test_a_long_pause_fills_the_bucket_and_no_more() -> None:
    bucket = limiter(average=10, burst=3)
    assert [type(bucket.take("a", 0.0)) for _ in range(4)] == [Admit, Admit, Admit, Reject]
    assert [type(bucket.take("a", 1e9)) for _ in range(4)] == [Admit, Admit, Admit, Reject]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = limiter(average=1)
    assert bucket.take("a", 10.0) == Admit()
    assert bucket.take("a", 5.0) == Reject(1.0)


def test_the_source_that_was_silent_longest_is_forgotten() -> None:
    bucket = limiter(average=1, max_sources=2)
    for key in ("a", "b", "a", "c"):
        bucket.take(key, 0.0)
    assert bucket.sources == 2
    assert isinstance(bucket.take("a", 0.0), Reject)
    assert bucket.take("b", 0.0) == Admit()


def test_the_answer() -> None:
    answer = Reject(9.991877173).answer()
    assert answer.status == 429
    assert answer.headers == (("Retry-After", "10"), ("X-Retry-In", "9.991877173s"))
    assert answer.body == b"Too Many Requests"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (5e-10, "0s"),
        (1e-9, "1ns"),
        (1.5e-6, "1.5us"),
        (0.39504222, "395.04222ms"),
        (0.9999999999, "1s"),
        (59.896063471, "59.896063471s"),
        (90.5, "1m30.5s"),
        (3600.0, "1h0m0s"),
        (1.000000001, "1.000000001s"),
    ],
)
def test_go_duration(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


class SlowBucket:
    """A bucket by its definition, in exact arithmetic, that keeps every event and counts anew each time."""

    def __init__(self, rate: Fraction, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self.taken: list[Fraction] = []

    def tokens(self, now: Fraction) -> Fraction:
        tokens, at = Fraction(self.burst), Fraction(0)
        for time in self.taken:
            tokens = min(Fraction(self.burst), tokens + (time - at) * self.rate) - 1
            at = time
        return min(Fraction(self.burst), tokens + (now - at) * self.rate)

    def take(self, now: Fraction) -> Verdict:
        missing = (1 - self.tokens(now)) / self.rate
        if missing <= 0:
            self.taken.append(now)
            return Admit()
        if missing <= min(Fraction(1, 2), 1 / (2 * self.rate)):
            self.taken.append(now)
            return Wait(float(missing))
        return Reject(float(missing))


# Powers of two, for which floating point is exact too, so that the two can be compared to the last bit.
POWERS = st.integers(-6, 8).map(lambda power: Fraction(2) ** power)


@settings(deadline=None)
@given(
    rate=POWERS,
    burst=st.integers(1, 6),
    pauses=st.lists(
        st.one_of(st.just(0), st.integers(0, 4096)).map(lambda n: Fraction(n, 1024)), max_size=60
    ),
)
def test_decides_like_the_slow_bucket(rate: Fraction, burst: int, pauses: list[Fraction]) -> None:
    quick = limiter(average=rate.numerator, period=float(rate.denominator), burst=burst)
    slow = SlowBucket(rate, burst)
    now = Fraction(0)
    for pause in pauses:
        now += pause
        assert quick.take("a", float(now)) == slow.take(now)


@settings(deadline=None)
@given(
    average=st.integers(1, 50),
    period=st.floats(0.1, 100),
    burst=st.integers(1, 10),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_allows(
    average: int, period: float, burst: int, pauses: list[float]
) -> None:
    bucket = limiter(average, burst, period)
    now = 0.0
    passed: list[float] = []
    for pause in pauses:
        now += pause
        verdict = bucket.take("a", now)
        if not isinstance(verdict, Reject):
            passed.append(now + (verdict.seconds if isinstance(verdict, Wait) else 0))
    for index, begin in enumerate(passed):
        for count, end in enumerate(passed[index:], 1):
            assert count <= burst + (end - begin) * average / period + 1e-6 or math.isclose(count, burst)
