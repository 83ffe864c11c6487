"""The token buckets of a session, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.websocket.allowance import WAKE_INTERVAL, Allowance, Bucket


def test_a_burst_and_then_the_rate() -> None:
    bucket = Bucket(10, 5, now=100.0)
    assert bucket.whole(100.0) == 5
    bucket.spend(5)
    assert bucket.whole(100.0) == 0
    assert bucket.wait() == pytest.approx(0.1)
    assert bucket.whole(100.1) == 1
    assert bucket.whole(99.0) == 1  # a clock that goes back takes nothing away
    assert bucket.whole(200.0) == 5


def test_a_burst_of_less_than_one_is_one() -> None:
    bucket = Bucket(1 / 60, 1 / 60, now=0.0)
    assert bucket.whole(0.0) == 1
    bucket.spend(1)
    assert bucket.wait() == pytest.approx(60)
    assert bucket.whole(60.0) == 1


def test_tokens_are_gathered_for_a_while() -> None:
    bucket = Bucket(100_000, 100_000, now=0.0)
    bucket.spend(bucket.whole(0.0))
    assert bucket.wait() == pytest.approx(WAKE_INTERVAL)
    assert bucket.whole(WAKE_INTERVAL) == 5000


@given(
    rate=st.floats(0.1, 10_000),
    burst=st.integers(1, 1000),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_the_rate(rate: float, burst: int, steps: list[float]) -> None:
    bucket = Bucket(rate, burst, now=0.0)
    now, spent = 0.0, 0
    for step in steps:
        now += step
        tokens = bucket.whole(now)
        bucket.spend(tokens)
        spent += tokens
        assert spent <= burst + rate * now + 1e-6


@given(rate=st.floats(0.01, 100_000), burst=st.integers(0, 10_000))
def test_who_waits_as_long_as_told_gets_the_rate(rate: float, burst: int) -> None:
    allowance = Allowance(message_rate=rate, message_burst=burst, now=0.0)
    allowance.spend_messages(allowance.messages(0.0, 1 << 60))  # the burst is gone
    now, spent = allowance.wait_for_messages(), 0
    for _ in range(200):
        tokens = allowance.messages(now, 1 << 60)
        assert tokens
        allowance.spend_messages(tokens)
        spent += tokens
        assert spent == pytest.approx(rate * now, rel=0.1, abs=2)
        now += allowance.wait_for_messages()


def test_what_has_no_limit() -> None:
    allowance = Allowance(now=0.0)
    assert allowance.messages(0.0, 77) == 77
    assert allowance.bytes(0.0, 77) == 77
    allowance.spend_messages(10)
    allowance.spend_bytes(10)
    assert allowance.wait_for_messages() == allowance.wait_for_bytes() == 0.0


def test_bytes_are_at_most_what_the_reader_has_room_for() -> None:
    allowance = Allowance(byte_rate=1000, byte_burst=5000, now=0.0)
    assert allowance.bytes(0.0, 300) == 300
    assert allowance.bytes(0.0, 65536) == 5000


def test_messages_and_bytes_have_limits_of_their_own() -> None:
    allowance = Allowance(message_rate=10, message_burst=3, byte_rate=100, byte_burst=50, now=0.0)
    assert (allowance.messages(0.0, 99), allowance.bytes(0.0, 99)) == (3, 50)
    allowance.spend_messages(3)
    assert (allowance.messages(0.0, 99), allowance.bytes(0.0, 99)) == (0, 50)
    assert allowance.wait_for_messages() == pytest.approx(0.1)
    assert allowance.wait_for_bytes() == 0.0
    allowance.spend_bytes(50)
    assert allowance.bytes(0.0, 99) == 0
    assert allowance.wait_for_bytes() > 0
    assert (allowance.messages(1.0, 99), allowance.bytes(1.0, 99)) == (3, 50)
