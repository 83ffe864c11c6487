"""Figures of the last ten seconds: statuses, network errors and times of attempts, in a bucket for each second."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

WINDOW: Final = 10
"""Seconds that figures are about: the present one, of which only a part has passed, and those before it."""

_PRECISION_BITS: Final = 8
"""Times are counted with this many leading bits, so that a quantile is below the true one by less than 1 %."""


class _Bucket:
    """What happened in one second."""

    __slots__ = ("latencies", "network_errors", "second", "statuses")

    def __init__(self, second: int) -> None:
        self.second = second
        self.network_errors = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: Counter[int] = Counter()


class RollingFigures:
    """The figures of one circuit breaker at a time that `at` sets.

    Resource handling: memory is bounded by the window and by the number of different statuses and times, of which
    there are at most 128 for each doubling.
    """

    __slots__ = ("_buckets", "_second")

    def __init__(self) -> None:
        self._buckets: list[_Bucket | None] = [None] * WINDOW
        self._second = 0

    def at(self, now: float) -> RollingFigures:
        """Return these figures, which from now on are about the seconds up to `now`."""
        self._second = math.floor(now)
        return self

    def record(self, now: float, status: int, seconds: float, *, network_error: bool) -> None:
        """Count an attempt that ended at `now` with `status` and took `seconds`."""
        second = math.floor(now)
        index = second % WINDOW
        bucket = self._buckets[index]
        if bucket is None or bucket.second != second:
            bucket = self._buckets[index] = _Bucket(second)
        bucket.statuses[status] += 1
        bucket.network_errors += network_error
        bucket.latencies[_rounded(seconds)] += 1

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = [None] * WINDOW

    @property
    def attempts(self) -> int:
        """How many attempts were counted."""
        return sum(bucket.statuses.total() for bucket in self._recent())

    def network_error_ratio(self) -> float:
        """Return which part of the attempts got no answer from a backend; 0 without attempts."""
        attempts = self.attempts
        return sum(bucket.network_errors for bucket in self._recent()) / attempts if attempts else 0.0

    def response_code_ratio(self, low: int, high: int, divisor_low: int, divisor_high: int) -> float:
        """Return how many statuses from `low` to below `high` there are for each of the other range; 0 without those."""
        part = whole = 0
        for bucket in self._recent():
            for status, count in bucket.statuses.items():
                if low <= status < high:
                    part += count
                if divisor_low <= status < divisor_high:
                    whole += count
        return part / whole if whole else 0.0

    def latency_at_quantile(self, quantile: float) -> float:
        """Return the milliseconds that `quantile` percent of the attempts did not exceed; 0 without attempts.

        The nearest rank: with one attempt every quantile is its time.
        """
        latencies: Counter[int] = Counter()
        for bucket in self._recent():
            latencies.update(bucket.latencies)
        rank = max(1, math.ceil(quantile / 100 * latencies.total()))
        for microseconds in sorted(latencies):
            rank -= latencies[microseconds]
            if rank <= 0:
                return microseconds / 1000
        return 0.0

    def _recent(self) -> list[_Bucket]:
        first = self._second - WINDOW
        return [
            bucket for bucket in self._buckets if bucket is not None and first < bucket.second <= self._second
        ]


def _rounded(seconds: float) -> int:
    """Return whole microseconds, rounded down to `_PRECISION_BITS` leading bits."""
    microseconds = max(0, int(seconds * 1e6))
    shift = max(0, microseconds.bit_length() - _PRECISION_BITS)
    return microseconds >> shift << shift
