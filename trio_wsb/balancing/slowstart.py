"""Slow start: a backend that came up gets its weight little by little.

One that has no sessions looks least loaded, and gets every client that comes until it has as many as the others:
too many at once for caches that are cold.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

STEPS = 100
"""Into how many steps the way to the whole weight is divided; the first one is where it begins."""


class SlowStart:
    """The weights of a pool while some of its backends ramp up. Times are seconds of any one clock.

    Args:
      duration: seconds from the first step to the whole weight; 0 switches it off.
      weights: the whole weights.

    """

    __slots__ = ("_begun", "_duration", "_steps", "_undated", "_weights")

    def __init__(self, duration: float, weights: Sequence[int]) -> None:
        self._duration = duration
        self._weights = list(weights)
        self._begun: dict[int, float] = {}
        self._undated: list[int] = []
        self._steps: dict[int, int] = {}

    @property
    def ramping(self) -> bool:
        """Whether `weights` is worth asking."""
        return bool(self._begun or self._undated or self._steps)

    def begin(self, index: int, when: float) -> None:
        """Backend `index` came up at `when`; -inf is never."""
        if self._duration and when > -inf:
            self._begun[index] = when

    def begin_at_next_look(self, index: int) -> None:
        """Backend `index` is new, and begins when somebody is first to be sent there."""
        if self._duration:
            self._undated.append(index)

    def begun(self, index: int) -> float:
        """Return when backend `index` came up if it is on its way still, else -inf."""
        return self._begun.get(index, -inf)

    def weights(self, now: float) -> list[float] | None:
        """Return the weights at `now`, or None when they are as they were the last time."""
        for index in self._undated:
            self._begun[index] = now
        self._undated.clear()
        steps: dict[int, int] = {}
        for index, begun in list(self._begun.items()):
            step = int(STEPS * (now - begun) / self._duration)
            if step >= STEPS:
                del self._begun[index]
            else:
                steps[index] = max(1, step)
        if steps == self._steps:
            return None
        self._steps = steps
        weights: list[float] = [float(weight) for weight in self._weights]
        for index, step in steps.items():
            weights[index] *= step / STEPS
        return weights
