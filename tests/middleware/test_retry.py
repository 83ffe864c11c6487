from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.middleware.helpers import summary
from trio_wsb.middleware.retry import RetryOptions, pauses
from trio_wsb.units import Duration


class Middle(Random):
    """Varies nothing."""

    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RetryOptions(1), []),
        (RetryOptions(3), [0.0, 0.0]),
        (RetryOptions(4, Duration(0.1), Duration(1.0), 2.0), [0.1, 0.2, 0.4]),
        (RetryOptions(6, Duration(0.1), Duration(0.5), 3.0), [0.1, 0.3, 0.5, 0.5, 0.5]),
        (RetryOptions(3, Duration(0.1)), [0.1, 0.1 * 2**0.5]),
        (RetryOptions(2, Duration(0.1)), [0.1]),
        (RetryOptions(3, Duration(40.0), None, 10.0), [40.0, 60.0]),
        (RetryOptions(1, Duration(0.1), None, 2.0), []),
    ],
)
def test_pauses(options: RetryOptions, expected: list[float]) -> None:
    assert list(pauses(options, Middle())) == pytest.approx(expected)


@settings(deadline=None)
@given(
    st.integers(1, 100),
    st.floats(0, 10),
    st.none() | st.floats(10, 60),
    st.none() | st.floats(1, 10),
    st.randoms(use_true_random=False),
)
def test_one_pause_less_than_tries_and_none_longer_than_allowed(
    attempts: int, initial: float, longest: float | None, factor: float | None, rng: Random
) -> None:
    limit = None if longest is None else Duration(longest)
    found = list(pauses(RetryOptions(attempts, Duration(initial), limit, factor), rng))
    assert len(found) == attempts - 1
    assert all(0 <= pause <= 1.5 * (60 if longest is None else longest) for pause in found)


def test_problems() -> None:
    assert summary(RetryOptions(4, Duration(0.1), Duration(1.0), 2.0).problems()) == []
    options = RetryOptions(4, Duration(2.0), Duration(1.0))
    assert summary(options.problems()) == [(("max_interval",), "error")]
    assert summary(RetryOptions(4, multiplier=2.0).problems()) == [(("multiplier",), "warning")]
