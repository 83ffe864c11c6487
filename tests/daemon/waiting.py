"""Waiting for what nobody tells: the state of another program, which shows only to who asks for it.

Where somebody does tell (a line in a log, the end of a process, an event in this one) that is what to wait for: see
`tests.daemon.harness.Running.line`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio

from tests.daemon.harness import PATIENCE, Backend

_PAUSE: Final = 0.02
"""Seconds between two looks. Each costs the other program time that it could use to get there."""

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], fits: Callable[[T], bool] = bool, *, what: str = ""
) -> T:
    """Look until what is seen fits, and return it; fail with `what` and what was seen last when it never does."""
    seen: list[T] = []
    with trio.move_on_after(PATIENCE):
        while True:
            seen = [await look()]
            if fits(seen[0]):
                return seen[0]
            await trio.sleep(_PAUSE)
    raise AssertionError(f"never came true: {what or look}; last seen: {seen}")


async def until(holds: Callable[[], bool], what: str = "") -> None:
    """Wait until `holds` does, which asks nobody: what a file has, what a program has printed."""

    async def look() -> bool:
        return holds()

    await eventually(look, what=what)


async def sessions(started: Sequence[Backend]) -> list[int]:
    """Return how many sessions each backend has."""
    return [(await each.stats())["sessions"] for each in started]


async def reports_arrived(started: Sequence[Backend], *, balancers: int = 1) -> None:
    """Wait until what each backend reports from now on has come to so many balancers.

    Each of them has then asked twice: one that asks again has taken the last answer.
    """

    async def asked() -> list[int]:
        return [(await each.stats())["metricRequests"] for each in started]

    begun = await asked()

    def enough(now: list[int]) -> bool:
        return all(count - before >= 2 * balancers for count, before in zip(now, begun, strict=True))

    await eventually(asked, enough, what="every backend was asked")
