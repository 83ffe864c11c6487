"""Event-loop lag: how much later than they could tasks run.

One task sleeps for a moment again and again; by how much it wakes too late is what any other task would have waited. It
sees a stall that falls on one of its wake-ups, so rare short ones are missed and a loop that is always busy is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from trio_wsb.observe.histogram import Histogram

SAMPLE_INTERVAL: Final = 0.5
"""Seconds between two samples: a wake-up of a process that slept takes a third of a millisecond, its caches being cold."""

LAG_BUCKETS: Final[Sequence[float]] = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

WORST_SECONDS: Final = 60
"""Seconds for which the worst lag is remembered. Longer than a scrape interval, so that every scraper sees it."""


class LoopLag:
    """Samples the lag of the event loop that `run` runs in."""

    def __init__(self) -> None:
        self.histogram = Histogram(LAG_BUCKETS)
        self._worst: deque[tuple[float, float]] = deque()  # (when, lag), lags falling: the first is the worst

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            due = trio.current_time() + SAMPLE_INTERVAL
            await trio.sleep_until(due)
            now = trio.current_time()
            self.sample(max(0.0, now - due), now)

    def sample(self, lag: float, now: float) -> None:
        """Note a lag of `lag` seconds that was seen at `now`."""
        self.histogram.observe(lag)
        worst = self._worst
        while worst and worst[-1][1] <= lag:
            worst.pop()
        worst.append((now, lag))
        self._forget(now)

    def worst(self, now: float) -> float:
        """Return the worst lag of the last `WORST_SECONDS`."""
        self._forget(now)
        return self._worst[0][1] if self._worst else 0.0

    def _forget(self, now: float) -> None:
        while self._worst and now - self._worst[0][0] > WORST_SECONDS:
            self._worst.popleft()
