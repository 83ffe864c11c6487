"""Rounds: one task for each target, spread over the interval, with a bound on how many are at work.

What the count requests and the health checks have in common. Thousands of requests at once would block the event
loop for seconds, so at most `AT_ONCE` are under way, and the tasks of new targets begin spread over `FIRST_ROUND`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Final, Generic, Protocol, TypeVar

import trio
from attrs import frozen

AT_ONCE: Final = 16
"""Requests under way at once."""

FAILING_AT_ONCE: Final = AT_ONCE // 2
"""How many of them may go to backends whose last request failed: a few dozen that hang until their timeout would
otherwise take every place, and what is known of the healthy ones would grow stale."""

FIRST_ROUND: Final = 1.0
"""Seconds over which the first requests to new targets are spread."""

JITTER: Final = 0.1
"""By which part of it an interval varies, so that several instances do not ask in step."""

KeyT_co = TypeVar("KeyT_co", bound=Hashable, covariant=True)
KeyT = TypeVar("KeyT", bound=Hashable)
TargetT = TypeVar("TargetT", bound="Target[object]")


class Target(Protocol[KeyT_co]):
    """Something to ask again and again; targets compare by value."""

    @property
    def key(self) -> KeyT_co:
        """What it is known by: of several targets with one key only one is asked."""

    @property
    def interval(self) -> float:
        """Seconds between two requests."""


@frozen
class Statistics:
    """What is going on: targets, requests under way, and how many more wait for a place."""

    targets: int
    under_way: int
    waiting: int


class Rounds(Generic[TargetT]):
    """Runs the work of every target, from `run` on until that is cancelled.

    Args:
      work: runs for one target until cancelled and raises nothing; called with the target, the time at which its round
        began, and its place in that round, from 0 to 1.

    """

    def __init__(self, work: Callable[[TargetT, float, float], Awaitable[None]]) -> None:
        self._work = work
        self._wanted: dict[object, TargetT] = {}
        self._running: dict[object, tuple[TargetT, trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None
        self._places = trio.CapacityLimiter(AT_ONCE)
        self._failing_places = trio.CapacityLimiter(FAILING_AT_ONCE)

    def configure(self, targets: Iterable[TargetT]) -> Mapping[object, TargetT]:
        """Work for exactly `targets` from now on, and return them by key.

        New and changed targets begin within `FIRST_ROUND` seconds, the others are not disturbed. Of targets with one key
        the one with the shortest interval counts. May be called at any time, also before `run`.
        """
        wanted: dict[object, TargetT] = {}
        for target in targets:
            known = wanted.get(target.key)
            if known is None or target.interval < known.interval:
                wanted[target.key] = target
        self._wanted = wanted
        return wanted

    def apply(self) -> None:
        """Begin and end work as `configure` has said, if `run` is running; else that does."""
        if self._nursery is not None:
            self._reconcile(self._nursery)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._reconcile(nursery)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._running.clear()

    @asynccontextmanager
    async def place(self, *, failing: bool) -> AsyncIterator[None]:
        """Wait for a place among the `AT_ONCE`; `failing` says that the target's last request failed."""
        # The failing ones queue for a place of theirs first, and hold no general one while they do.
        async with self._failing_places if failing else nullcontext(), self._places:
            yield

    def statistics(self) -> Statistics:
        """Return what is going on."""
        places = self._places.statistics()
        waiting = places.tasks_waiting + self._failing_places.statistics().tasks_waiting
        return Statistics(len(self._wanted), places.borrowed_tokens, waiting)

    def _reconcile(self, nursery: trio.Nursery) -> None:
        for key, (target, scope) in list(self._running.items()):
            if self._wanted.get(key) != target:
                scope.cancel()
                del self._running[key]
        new = [target for key, target in self._wanted.items() if key not in self._running]
        now = trio.current_time()
        for place, target in enumerate(new):
            scope = trio.CancelScope()
            self._running[target.key] = target, scope
            nursery.start_soon(self._serve, target, scope, now, place / len(new))

    async def _serve(self, target: TargetT, scope: trio.CancelScope, started: float, phase: float) -> None:
        with scope:
            await self._work(target, started, phase)
