"""The background task that checks the backends and keeps the health table.

The schedule is that of the count requests: a task for each target, the first check of all within `FIRST_ROUND` seconds of
the start or of the reload that brought it, the next ones spread over the interval with some jitter, and at most `AT_ONCE`
under way. Where a check contradicts what held until then, the next one comes soon, so that `rise` and `fall`
say how sure to be and not how long to wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from random import Random
from typing import Final

import structlog
import trio
from attrs import frozen

from trio_wsb.background.probe import HealthTarget, probe
from trio_wsb.balancing.health import HealthEntry, HealthKey, HealthTable

AT_ONCE: Final = 16
"""Checks under way at once."""

FAILING_AT_ONCE: Final = AT_ONCE // 2
"""How many of them may go to servers whose last check failed: those that hang until their timeout would otherwise take
every place, and the healthy ones would be found out too late."""

FIRST_ROUND: Final = 1.0
"""Seconds over which the first checks of new targets are spread."""

SECOND_LOOK: Final = 1.0
"""Seconds until a check is repeated that contradicts what held, where the interval is longer."""

JITTER: Final = 0.1
"""By which part of it an interval varies, so that several instances do not ask in step."""

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trio_wsb.health")


@frozen
class CheckerStatistics:
    """What a `HealthChecker` is doing: targets, checks under way, and how many of those wait for a place."""

    targets: int
    checking: int
    waiting: int


class HealthChecker:
    """Keeps checking every target, from `run` on until that is cancelled.

    Nothing that a server does or fails to do raises out of it: it goes into the table, and into the log when a server goes
    up or down.

    Args:
      table: where the answers go; times in it are `trio.current_time`.
      rng: what varies the intervals.
      ask: checks a target once; returns None or why it failed, raises nothing.

    """

    def __init__(
        self,
        table: HealthTable,
        *,
        rng: Random | None = None,
        ask: Callable[[HealthTarget], Awaitable[str | None]] = probe,
    ) -> None:
        self._table = table
        self._rng = rng or Random()
        self._ask = ask
        self._wanted: dict[HealthKey, HealthTarget] = {}
        self._scopes: dict[HealthKey, tuple[HealthTarget, trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None
        self._places = trio.CapacityLimiter(AT_ONCE)
        self._failing_places = trio.CapacityLimiter(FAILING_AT_ONCE)

    def configure(self, targets: Iterable[HealthTarget]) -> None:
        """Check exactly `targets` from now on, and keep no others in the table.

        New and changed targets are checked within `FIRST_ROUND` seconds, the others keep their schedule; what is known of
        a server stays as long as the question is the same. Of targets with one question to one server that with the
        shortest interval counts. May be called at any time, also before `run`.
        """
        wanted: dict[HealthKey, HealthTarget] = {}
        for target in targets:
            known = wanted.get(target.key)
            if known is None or target.interval < known.interval:
                wanted[target.key] = target
        self._wanted = wanted
        self._table.retain(wanted)
        for key in wanted:
            self._table.entry(key)
        if self._nursery is not None:
            self._reconcile(self._nursery)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._reconcile(nursery)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._scopes.clear()

    def statistics(self) -> CheckerStatistics:
        """Return what is going on."""
        places = self._places.statistics()
        waiting = places.tasks_waiting + self._failing_places.statistics().tasks_waiting
        return CheckerStatistics(len(self._wanted), places.borrowed_tokens, waiting)

    def _reconcile(self, nursery: trio.Nursery) -> None:
        for key, (target, scope) in list(self._scopes.items()):
            if self._wanted.get(key) != target:
                scope.cancel()
                del self._scopes[key]
        new = [target for key, target in self._wanted.items() if key not in self._scopes]
        now = trio.current_time()
        for place, target in enumerate(new):
            scope = trio.CancelScope()
            self._scopes[target.key] = target, scope
            nursery.start_soon(self._keep_checking, target, scope, now, place / len(new))

    async def _keep_checking(
        self, target: HealthTarget, scope: trio.CancelScope, started: float, phase: float
    ) -> None:
        entry = self._table.entry(target.key)
        with scope:
            await trio.sleep_until(started + phase * min(FIRST_ROUND, target.interval))
            await self._check(target, entry)
            # From the dense first round to the spread schedule: the second check comes after 0.5 to 1.5 intervals.
            spread = phase if phase >= 0.5 else phase + 1
            while True:
                await trio.sleep(self._pause(target, entry) * spread)
                await self._check(target, entry)
                spread = self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _pause(self, target: HealthTarget, entry: HealthEntry) -> float:
        interval = target.unhealthy_interval if entry.down else target.interval
        return min(interval, SECOND_LOOK) if entry.wavering else interval

    async def _check(self, target: HealthTarget, entry: HealthEntry) -> None:
        """Check once; see that the table and the log learn what came of it."""
        # The failing ones queue for a place of theirs first, and hold no general one while they do.
        async with self._failing_places if entry.reason else nullcontext(), self._places:
            reason = await self._ask(target)
        now = trio.current_time()
        path = target.question.path
        if reason is None:
            if self._table.passed(target.key, now, rise=target.rise):
                log.info("backend up", backend=str(target.url), path=path)
        elif self._table.failed(target.key, reason, now, fall=target.fall):
            log.warning("backend down", backend=str(target.url), path=path, reason=reason)
