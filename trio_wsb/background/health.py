"""The background task that checks the backends and keeps the health table.

The schedule is that of the count requests: a task for each target, the first check of all within `FIRST_ROUND` seconds of
the start or of the reload that brought it, the next ones spread over the interval with some jitter, and few under way at once
(`trio_wsb.background.rounds`). Where a check contradicts what held until then, the next one comes soon, so that `rise` and `fall`
say how sure to be and not how long to wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final

import structlog
import trio

from trio_wsb.background.probe import HealthTarget, NotAsked, probe
from trio_wsb.background.rounds import FIRST_ROUND, JITTER, Rounds, Statistics
from trio_wsb.balancing.health import HealthEntry, HealthTable

SECOND_LOOK: Final = 1.0
"""Seconds until a check is repeated that contradicts what held, where the interval is longer."""

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trio_wsb.health")


class HealthChecker:
    """Keeps checking every target, from `run` on until that is cancelled.

    Nothing that a server does or fails to do raises out of it: it goes into the table, and into the log when a server goes
    up or down.

    Args:
      table: where the answers go; times in it are `trio.current_time`.
      rng: what varies the intervals.
      ask: checks a target once; returns None or why it failed, raises nothing but NotAsked.

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
        self._rounds = Rounds(self._keep_checking)

    def configure(self, targets: Iterable[HealthTarget]) -> None:
        """Check exactly `targets` from now on, and keep no others in the table.

        New and changed targets are checked within `FIRST_ROUND` seconds, the others keep their schedule; what is known of
        a server stays as long as the question is the same. Of targets with one question to one server that with the
        shortest interval counts. May be called at any time, also before `run`.
        """
        wanted = [target.key for target in self._rounds.configure(targets).values()]
        self._table.retain(wanted)
        for key in wanted:
            self._table.entry(key)
        self._rounds.apply()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check until cancelled."""
        await self._rounds.run(task_status=task_status)

    def statistics(self) -> Statistics:
        """Return what is going on."""
        return self._rounds.statistics()

    async def _keep_checking(self, target: HealthTarget, started: float, phase: float) -> None:
        entry = self._table.entry(target.key)
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
        async with self._rounds.place(failing=bool(entry.reason)):
            try:
                reason = await self._ask(target)
            except NotAsked:
                return  # what held holds; that descriptors are gone is said where connections are accepted and dialled
        now = trio.current_time()
        path = target.question.path
        if reason is None:
            if self._table.passed(target.key, now, rise=target.rise):
                log.info("backend up", backend=str(target.url), path=path)
        elif self._table.failed(target.key, reason, now, fall=target.fall):
            log.warning("backend down", backend=str(target.url), path=path, reason=reason)
