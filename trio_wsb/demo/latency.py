"""A histogram of round-trip times in constant memory, good to about 4 % at any scale."""

from __future__ import annotations

import math

SMALLEST = 1e-6
"""Seconds; everything below counts as this."""

BUCKETS_PER_OCTAVE = 20
_SCALE = BUCKETS_PER_OCTAVE / math.log(2)
_BUCKETS = 28 * BUCKETS_PER_OCTAVE
# 28 octaves above a microsecond are four and a half minutes.


class Latencies:
    """Round-trip times, in seconds."""

    __slots__ = ("_counts", "count", "maximum")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.maximum = 0.0

    def record(self, seconds: float) -> None:
        """Count one round trip."""
        octaves = math.log(max(seconds, SMALLEST) / SMALLEST)
        self._counts[min(int(octaves * _SCALE), _BUCKETS - 1)] += 1
        self.count += 1
        self.maximum = max(self.maximum, seconds)

    def quantile(self, fraction: float) -> float:
        """Return the time that `fraction` of the round trips did not exceed, or 0 without any."""
        wanted = math.ceil(fraction * self.count)
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(SMALLEST * math.exp((index + 1) / _SCALE), self.maximum)
        return 0.0
