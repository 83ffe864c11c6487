"""When Python looks for cyclic garbage: never in the way of the sessions.

A full collection visits every object, and stops the event loop for as long: 0.4 s were seen with 9,000 sessions, again
and again while they opened. A session leaves no cycles behind (a test holds that), so what a full collection finds is
little: what reloads replace, and exceptions. It can wait until there is little to visit.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

import trio

INTERVAL: Final = 60.0
"""Seconds between two looks at whether it is a good moment."""

FEW_SESSIONS: Final = 500
"""With fewer, a full collection takes 20 ms at most."""

LONGEST: Final = 360
"""Intervals after which it is done all the same: what a day of reloads leaves must not stay for ever."""

_YOUNG: Final = 10_000
_MIDDLE: Final = 20
_NEVER: Final = 1_000_000


def _collect() -> None:
    gc.collect()


async def collect_garbage(sessions: Callable[[], int], collect: Callable[[], None] = _collect) -> None:
    """Take over from the automatic full collections until cancelled.

    Args:
      sessions: gives how many sessions there are.
      collect: does a full collection.

    """
    before = gc.get_threshold()
    # What is there by now stays until the end: code, modules, the first configuration.
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    waited = 0
    try:
        while True:
            await trio.sleep(INTERVAL)
            waited += 1
            if sessions() < FEW_SESSIONS or waited >= LONGEST:
                collect()
                waited = 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
