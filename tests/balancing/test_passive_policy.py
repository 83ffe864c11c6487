from __future__ import annotations

from trio_wsb.balancing.passive import PassiveHealth, PassivePolicy


def health(failures: int, window: float) -> PassiveHealth:
    made = PassiveHealth()
    made.policy = PassivePolicy(failures, window)
    return made


def test_so_many_failures_within_the_window() -> None:
    made = health(3, 30.0)
    assert [made.failed(now) for now in (0.0, 20.0, 31.0, 40.0)] == [False, False, False, True]
    assert not made.available(40.5)
    assert made.available(41.0)


def test_failures_that_led_to_a_cool_down_do_not_count_again() -> None:
    made = health(2, 30.0)
    made.failed(0.0)
    assert made.failed(1.0)
    assert not made.failed(3.0)
    assert made.failed(4.0)
    assert made.cool_down == 2.0


def test_the_window_bounds_the_cool_down() -> None:
    made, now = health(1, 60.0), 0.0
    for _ in range(10):
        made.failed(now)
        now = made.retry_at
    assert made.cool_down == 60.0
    short = health(1, 0.5)
    short.failed(0.0)
    assert short.cool_down == 0.5


def test_never() -> None:
    made = health(0, 10.0)
    assert not any(made.failed(float(now)) for now in range(100))
    assert made.available(100.0)
