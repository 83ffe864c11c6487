"""Sessions whose bytes the kernel moves, against everything that it may do meanwhile."""

from __future__ import annotations

import pytest

from tests.simulation.drill import drill

SESSIONS = 80
AT_ONCE = 20


@pytest.mark.parametrize("first", range(0, SESSIONS, AT_ONCE))
def test_every_byte_arrives_whoever_moves_it(first: int) -> None:
    drilled = [drill(seed) for seed in range(first, first + AT_ONCE)]
    # It was about something: a good part went through the kernel, another one did not, and somebody was overtaken.
    sent, in_kernel = (
        sum(each) for each in zip(*((one.sent, one.in_kernel) for one in drilled), strict=True)
    )
    assert sent / 5 < in_kernel < sent * 4 / 5
    assert all(one.overtaken for one in drilled)


def test_a_seed_is_the_same_session_again() -> None:
    assert drill(5) == drill(5)
