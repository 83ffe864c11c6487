from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.balancing.passive import DROP_WINDOW, LAST_COOL_DOWN, QUICK_DROP, PassiveHealth


def test_fresh() -> None:
    health = PassiveHealth()
    assert health.available(0.0)
    assert health.cool_down == 0.0
    assert not health.recovering


def test_cool_down_doubles_up_to_ten_seconds() -> None:
    health, now, waits = PassiveHealth(), 100.0, []
    for _ in range(6):
        assert health.failed(now)
        assert not health.available(now)
        waits.append(health.retry_at - now)
        now = health.retry_at
        assert health.available(now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_down_for_weeks() -> None:
    health = PassiveHealth()
    health.failures = 10**6
    assert health.failed(0.0)
    assert health.cool_down == LAST_COOL_DOWN


def test_a_burst_of_failures_is_one() -> None:
    health = PassiveHealth()
    assert health.failed(0.0)
    assert not any(health.failed(0.001 * number) for number in range(1, 900))
    assert health.failures == 1
    assert health.available(1.0)
    assert health.last_failure == 0.899


def test_forgotten_after_a_success_that_lasts() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.failed(1.0)
    assert health.failures == 2
    health.succeeded(4.0)
    assert health.recovering
    assert health.failed(4.0 + QUICK_DROP)
    assert health.cool_down == 1.0


def test_not_forgotten_after_a_success_that_does_not_last() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.succeeded(2.0)
    assert health.failed(2.0 + QUICK_DROP - 0.1)
    assert not health.recovering
    assert health.cool_down == 2.0


def test_later_successes_do_not_start_the_wait_again() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.succeeded(1.0)
    health.succeeded(2.9)
    health.failed(3.0)
    assert health.failures == 1


def test_a_success_does_not_end_a_cool_down() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.succeeded(0.1)
    assert not health.available(0.9)


def test_three_quick_drops_within_ten_seconds_are_a_failure() -> None:
    health = PassiveHealth()
    assert not health.dropped(0.0)
    assert not health.dropped(5.0)
    assert health.dropped(DROP_WINDOW)
    assert not health.available(10.5)


def test_quick_drops_further_apart_are_none() -> None:
    health = PassiveHealth()
    assert not any(health.dropped(5.1 * number) for number in range(50))
    assert health.failures == 0


def test_one_drop_is_enough_while_failures_are_not_forgotten() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.succeeded(20.0)
    assert health.dropped(20.5)
    assert health.cool_down == 2.0


def test_one_drop_is_not_enough_after_a_success_that_lasted() -> None:
    health = PassiveHealth()
    health.failed(0.0)
    health.succeeded(20.0)
    assert not health.dropped(30.0)


def test_accept_and_drop_is_avoided_longer_and_longer() -> None:
    health, now, waits = PassiveHealth(), 0.0, []
    for _ in range(60):
        if not health.available(now):
            waits.append(health.retry_at - now)
            now = health.retry_at
        health.succeeded(now)
        now += 0.0625  # exact in binary
        health.dropped(now)
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 10.0]
    assert set(waits[5:]) == {10.0}


@given(st.lists(st.tuples(st.sampled_from(["failed", "dropped", "succeeded"]), st.integers(0, 30 * 64))))
def test_cool_downs_are_bounded_whatever_happens(events: list[tuple[str, int]]) -> None:
    health, now = PassiveHealth(), 0.0
    for event, pause in events:
        now += pause / 64  # exact in binary
        failures, was_available = health.failures, health.available(now)
        began = getattr(health, event)(now)
        if began:
            assert was_available
            assert 1.0 <= health.retry_at - now <= LAST_COOL_DOWN
            assert 1 <= health.failures <= failures + 1
        assert health.available(now) == (was_available and not began)
        assert health.available(now + LAST_COOL_DOWN)
