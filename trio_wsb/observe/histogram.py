"""Histograms: how often a value fell into which range. Counting one value is a bisection and two additions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf, isfinite, isnan


def number(value: float) -> str:
    """Return `value` as metrics are written: ``12``, ``0.5``, ``+Inf``."""
    if isinstance(value, int):
        return str(int(value))  # a boolean too
    if value == inf:
        return "+Inf"
    return repr(value) if isfinite(value) else "NaN" if isnan(value) else "-Inf"


class Histogram:
    """Counts of values by upper bounds, and their sum.

    Not locked: one thread counts and reads. Memory is that of the bounds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count nothing yet; `bounds` are the upper ends of the ranges, ascending, without the infinite last one."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        """Sum of the values."""

    def observe(self, value: float) -> None:
        """Count `value`; a bound belongs to the range that it ends."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """Return for each bound, the infinite one included, as text how many values do not exceed it."""
        rows: list[tuple[str, int]] = []
        below = 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            below += count
            rows.append((number(bound), below))
        return rows

    @classmethod
    def sum_of(cls, histograms: Sequence[Histogram]) -> Histogram:
        """Return the histogram of the values of all of `histograms`, which have the same bounds; at least one."""
        found = cls(histograms[0].bounds)
        for each in histograms:
            found.counts = [mine + other for mine, other in zip(found.counts, each.counts, strict=True)]
            found.total += each.total
        return found
