"""Refusals: how many connections were turned away for one reason, and when it is time to say so."""

from __future__ import annotations

from collections import Counter
from typing import Final

REPORT_INTERVAL: Final = 60.0
"""Seconds between two log lines about refused connections of an entry point."""


class Refusals:
    """How many connections each entry point has turned away for one reason; survives reloads."""

    def __init__(self) -> None:
        self.refused_total: Counter[str] = Counter()
        """By entry point."""
        self._told: dict[str, float] = {}

    def refused(self, entry_point: str, now: float) -> bool:
        """Count a connection that was turned away; whether it is time to say so."""
        self.refused_total[entry_point] += 1
        if now - self._told.get(entry_point, -REPORT_INTERVAL) < REPORT_INTERVAL:
            return False
        self._told[entry_point] = now
        return True
