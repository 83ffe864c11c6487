from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.in_flight import InFlightLimiter, InFlightReqOptions
from trio_wsb.middleware.source import SourceCriterionOptions


def test_as_many_as_the_amount_for_each_source() -> None:
    limiter = InFlightLimiter(2)
    assert [limiter.acquire("a"), limiter.acquire("a"), limiter.acquire("a"), limiter.acquire("b")] == [
        True, True, False, True,
    ]  # fmt: skip
    limiter.release("a")
    assert limiter.acquire("a")
    assert (limiter.held("a"), limiter.held("b"), limiter.held("c"), limiter.total) == (2, 1, 0, 3)


def test_an_amount_of_0_refuses_all() -> None:
    assert not InFlightLimiter(0).acquire("a")


def test_a_smaller_amount_leaves_what_is_there() -> None:
    limiter = InFlightLimiter(3)
    for _ in range(3):
        assert limiter.acquire("a")
    limiter.amount = 1
    assert not limiter.acquire("a")
    limiter.release("a")
    limiter.release("a")
    assert not limiter.acquire("a")
    limiter.release("a")
    assert limiter.acquire("a")


def test_what_was_not_acquired_cannot_be_given_back() -> None:
    with pytest.raises(KeyError):
        InFlightLimiter(1).release("a")


def test_the_answer() -> None:
    answer = InFlightLimiter(7).refusal()
    assert (answer.status, answer.body) == (429, b"max connections reached: 7")


@settings(deadline=None)
@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_counts_like_a_counter(amount: int, steps: list[tuple[bool, str]]) -> None:
    limiter = InFlightLimiter(amount)
    held: Counter[str] = Counter()
    for acquires, key in steps:
        if acquires:
            assert limiter.acquire(key) is (held[key] < amount)
            held[key] += held[key] < amount
        elif held[key]:
            limiter.release(key)
            held[key] -= 1
    assert limiter.total == held.total()
    assert all(limiter.held(key) == held[key] for key in "abc")


def test_what_is_wrong_with_the_source_is_said_in_its_place() -> None:
    assert list(InFlightReqOptions(3).problems()) == []
    both = SourceCriterionOptions(request_header_name="X-User", request_host=True)
    problems = list(InFlightReqOptions(3, both).problems())
    assert problems
    assert {each.path[0] for each in problems} == {"source_criterion"}
