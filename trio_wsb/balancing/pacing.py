"""Pacing: when the next of many events is due, so that they come at a rate and yet not in step."""

from __future__ import annotations

from random import Random
from typing import Final

CATCH_UP: Final = 1.0
"""Seconds of the schedule that are made up for when nobody looked; what was missed before them is not."""


class Pacer:
    """A schedule of events, one at a random moment of each slot of ``1 / rate`` seconds.

    The slots follow each other from the beginning on, whenever the events really happen, so that being late now and then
    costs nothing of the rate; and the moment within the slot is drawn, so that those who react to the events do not do it
    to a beat. Times are seconds of any one clock.
    """

    __slots__ = ("_rng", "_slot", "next_at", "rate")

    def __init__(self, rate: float, now: float, rng: Random) -> None:
        """Begin the first slot at `now`; `rate` is in events per second and more than 0."""
        self._rng = rng
        self.rate = rate
        self._slot = now
        """When the slot of the next event begins."""
        self.next_at = now
        """When the next event is due."""
        self._draw()

    def take(self, now: float) -> bool:
        """Whether an event is due at `now`; if so it counts as done, and the next one is drawn."""
        if now < self.next_at:
            return False
        self._slot = max(self._slot + 1 / self.rate, now - CATCH_UP)
        self._draw()
        return True

    def change(self, rate: float, now: float) -> None:
        """Go on at another rate from `now` on; the same one changes nothing."""
        if rate != self.rate:
            self.rate, self._slot = rate, now
            self._draw()

    def _draw(self) -> None:
        self.next_at = self._slot + self._rng.random() / self.rate
