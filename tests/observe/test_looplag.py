"""Event-loop lag: sampled by a task that wakes late when the loop is held up."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_wsb.observe.looplag import SAMPLE_INTERVAL, WORST_SECONDS, LoopLag


async def test_an_idle_loop_has_none(autojump_clock: MockClock) -> None:
    lag = LoopLag()
    with trio.move_on_after(10 * SAMPLE_INTERVAL + 0.01):
        await lag.run()
    assert lag.histogram.count == 10
    assert lag.worst(trio.current_time()) == pytest.approx(0, abs=1e-6)


async def test_a_task_that_holds_the_loop_up_is_seen(mock_clock: MockClock) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(SAMPLE_INTERVAL + 0.4)  # the clock goes on, and nobody got to run
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lag.histogram.count == 1
    assert lag.worst(trio.current_time()) == pytest.approx(0.4)
    assert dict(lag.histogram.cumulative())["0.5"] == 1
    assert dict(lag.histogram.cumulative())["0.25"] == 0


def test_the_worst_is_that_of_the_last_minute() -> None:
    lag = LoopLag()
    lag.sample(0.5, 0.0)
    lag.sample(0.2, 10.0)
    lag.sample(0.1, 20.0)
    assert lag.worst(30.0) == 0.5
    assert lag.worst(WORST_SECONDS + 5.0) == 0.2
    assert lag.worst(WORST_SECONDS + 15.0) == 0.1
    assert lag.worst(WORST_SECONDS + 25.0) == 0.0
    lag.sample(0.3, 100.0)
    lag.sample(0.3, 101.0)
    assert lag.worst(WORST_SECONDS + 100.5) == 0.3
