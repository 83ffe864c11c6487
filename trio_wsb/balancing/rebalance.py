"""Rebalancing: how many sessions which backends should shed, so that all have their share. No I/O.

A backend's *share* is the mean level, which is the load of all backends that count over the sum of their weights, times its
weight. Three things keep this from going too far or to and fro:

- It begins only where a backend is above its share by more than the tolerance, and goes down to the share and never below.
- Sessions that were shed and have not come back are counted in the mean as long as they may still be on their way. Without
  them the mean would sink while clients wait to reconnect, and the next look would find everybody above it.
- Of an excess a balancer sheds only the part that is its own: with several in front of the same backends each does its own, and
  together they shed the excess once. After it nothing begins until the reports have caught up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, inf
from random import Random
from typing import Final, Literal, NamedTuple

from attrs import frozen

COOL_DOWN: Final = 30.0
"""The least time from the end of a plan to the next one, in seconds."""

REPORTS: Final = 2
"""Report intervals that a cool-down lasts at least: then every report is younger than the plan."""

RETURN_WINDOW: Final = 300.0
"""Seconds after a plan within which sessions that it has shed, and that are missing, count as on their way back."""

SETTLE: Final = 10.0
"""Seconds for which an imbalance must have lasted before a plan begins by itself: a start or a burst levels out."""


class Figure(NamedTuple):
    """A backend as the planner sees it.

    `load` is all of its connections, `own` those of them that are our own sessions. `limit` is the load at which it is full.
    One that does not count gets no new sessions, or its load is not known: it neither sheds nor belongs to the mean.
    """

    load: int
    own: int
    weight: float = 1.0
    limit: float = inf
    counts: bool = True


@frozen
class Plan:
    """What is to be shed: `sheds` has the number for each backend that sheds, by its index.

    `level` is the mean load for a weight of 1 when it was made, `excess` what all balancers together have to shed.
    """

    level: float
    sheds: Mapping[int, int]
    excess: int

    @property
    def size(self) -> int:
        """How many sessions it is about."""
        return sum(self.sheds.values())

    def may_shed(self, index: int, figures: Sequence[Figure], closing: int, missing: int = 0) -> bool:
        """Whether a backend is still above its share, both as the plan was made and as things are now.

        Args:
          index: the backend.
          figures: how everybody stands now.
          closing: of its sessions those that were sent away and have not ended.
          missing: sessions that are on their way back.

        """
        figure = figures[index]
        if not figure.counts:
            return False
        target = max(self.level, level(figures, missing)) * figure.weight
        return figure.load - closing > ceil(target)


Outcome = Literal["planned", "balanced", "waiting", "running", "impossible"]
"""What a look finds; "waiting" is for what time will change."""


@frozen
class Verdict:
    """What came of a look: a plan, or why there is none. `level` is the mean at the time, None where there is none."""

    outcome: Outcome
    reason: str = ""
    level: float | None = None
    plan: Plan | None = None


def level(figures: Sequence[Figure], missing: int = 0) -> float:
    """Return the mean load for a weight of 1 of the backends that count; 0 if none does."""
    weight = load = 0.0
    for figure in figures:
        if figure.counts:
            weight += figure.weight
            load += figure.load
    return (load + missing) / weight if weight else 0.0


def make_plan(figures: Sequence[Figure], tolerance: float, rng: Random, missing: int = 0) -> Verdict:
    """Return what should be shed as things stand.

    Args:
      figures: the backends.
      tolerance: the fraction by which one may be above its share.
      rng: rounds the own part of an excess, so that it is right in the mean.
      missing: sessions that are on their way back.

    """
    counted = [(index, figure) for index, figure in enumerate(figures) if figure.counts]
    if len(counted) < 2:
        return Verdict("impossible", "fewer than two backends have known figures and get new sessions")
    mean = level(figures, missing)
    over: dict[int, int] = {}
    room = -missing
    for index, figure in counted:
        share = mean * figure.weight
        spare = ceil(share) - figure.load
        if spare > 0:
            room += max(0, floor(min(figure.limit, ceil(share))) - figure.load)
        elif spare < 0 and figure.load > share * (1 + tolerance):
            over[index] = -spare
    if not over:
        return Verdict("balanced", f"no backend is above its share by more than {tolerance:.0%}", mean)
    if room <= 0:
        return Verdict("impossible", "the other backends have no room", mean)
    excess = sum(over.values())
    fits = min(1.0, room / excess)
    sheds = {}
    for index, each in over.items():
        figure = figures[index]
        own = min(_round(each * fits * figure.own / figure.load, rng), figure.own)
        if own:
            sheds[index] = own
    if not sheds:
        return Verdict("impossible", "what is too much are not our own sessions", mean)
    return Verdict("planned", level=mean, plan=Plan(mean, sheds, excess))


def _round(number: float, rng: Random) -> int:
    """Round so that the mean over many calls is `number`: of ten balancers with half a session each, five shed one."""
    whole = floor(number + 1e-9)
    return whole + (rng.random() < number - whole)


class Rebalance:
    """The rebalancing of one service over time: when to look, what is under way, what may still come back.

    It outlives reloads. Whoever sheds tells `begin` and `finish`; times are seconds of any one clock.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        """What is being carried out."""
        self.begun_at = -inf
        self.finished_at = -inf
        """When the last plan was over."""
        self.quiet_until = -inf
        """When the next plan may begin."""
        self._over_since: float | None = None
        self._baseline = 0
        """All connections of the service before the plan."""
        self._allowance = 0
        self._allowed_until = -inf

    def missing(self, figures: Sequence[Figure], now: float) -> int:
        """Return how many sessions that were shed have not come back, as far as the loads tell.

        Others that went meanwhile are taken for such too, until `RETURN_WINDOW` is over: that errs on the safe side.
        """
        if self.plan is None and now >= self._allowed_until:
            self._allowance = 0
        if not self._allowance:
            return 0
        return min(max(0, self._baseline - sum(figure.load for figure in figures)), self._allowance)

    def look(
        self, figures: Sequence[Figure], tolerance: float, now: float, rng: Random, *, wanted: bool = False
    ) -> Verdict:
        """Return what should be shed now, and nothing while a plan is under way or its effect is not known.

        Args:
          figures: how the backends stand.
          tolerance: as in `make_plan`.
          now: the time.
          rng: as in `make_plan`.
          wanted: somebody has asked for it, so that the imbalance need not have lasted.

        """
        if self.plan is not None:
            return Verdict("running", "a rebalancing is under way", self.plan.level)
        missing = self.missing(figures, now)
        verdict = make_plan(figures, tolerance, rng, missing)
        if verdict.plan is None:
            self._over_since = None
            return verdict
        if self._over_since is None:
            self._over_since = now
        if now < self.quiet_until:
            left = ceil(self.quiet_until - now)
            return Verdict(
                "waiting", f"the last one is too recent: the next may begin in {left} s", verdict.level
            )
        if not wanted and now - self._over_since < SETTLE:
            return Verdict("waiting", "it may level out by itself", verdict.level)
        return verdict

    def begin(self, plan: Plan, figures: Sequence[Figure], now: float) -> None:
        """Note that `plan` is carried out from now on."""
        missing = self.missing(figures, now)
        self._baseline = sum(figure.load for figure in figures) + missing
        self._allowance = missing + plan.excess
        self.plan, self.begun_at, self._over_since = plan, now, None

    def finish(self, now: float, report_interval: float = 0.0) -> None:
        """Note that the plan is over, carried out or not; reports come every `report_interval` seconds, 0 is never."""
        self.plan, self.finished_at = None, now
        self.quiet_until = now + max(COOL_DOWN, REPORTS * report_interval)
        self._allowed_until = now + max(RETURN_WINDOW, self.quiet_until - now)
