"""Turns: long work on the event loop in short pieces, and how long each of them kept it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import frozen


@frozen
class Spent:
    """What a piece of work took: from its beginning to its end, and its longest turn in processor time, in seconds."""

    seconds: float = 0.0
    longest_turn: float = 0.0


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector away for as long as the block lasts, a fraction of a second.

    What the block makes and drops would set it off, and going through everything that ten thousand sessions hold takes it
    400 ms. References are counted all the same, so nothing but cycles waits. Not to be nested.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Turns:
    """One piece of work, from its making on. Processor time, since a busy machine is no fault of ours."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._turn_begun = time.thread_time()
        self._longest = 0.0

    async def rest(self) -> None:
        """Let other tasks run: the end of a turn, and the beginning of the next one."""
        self._longest = max(self._longest, time.thread_time() - self._turn_begun)
        await trio.lowlevel.checkpoint()
        self._turn_begun = time.thread_time()

    def spent(self) -> Spent:
        """Return what was spent by now."""
        longest = max(self._longest, time.thread_time() - self._turn_begun)
        return Spent(time.perf_counter() - self._begun, longest)
