"""The sweeper: one task that enforces the deadlines of every session.

A cancel scope whose deadline moves with every read costs five times a frame scan; looking once a second at
the sessions that have a deadline costs nothing while they are fine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from trio_wsb.proxy.relay import Relay

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks: deadlines of sessions are that exact."""

BATCH: Final = 256
"""Relays that are looked at before other tasks run: a look takes about 2 us, and ten thousand must not delay a message."""


class Sweeper:
    """Knows the relays that have a deadline, and ends those that are over it."""

    def __init__(self, also: Callable[[], None] | None = None) -> None:
        """Watch nothing yet; `also` is called after each look."""
        self._also = also
        # Ordered, so that a simulated world does the same again; a set goes by addresses in memory.
        self._watched: dict[Relay, None] = {}

    def watch(self, relay: Relay) -> None:
        """Look at `relay` once a second until it has no deadline any more."""
        self._watched[relay] = None

    async def run(self) -> None:
        """Sweep until cancelled."""
        next_look = trio.current_time()
        while True:
            # Not a pause of a second: what a sweep takes would be added to each.
            next_look = max(next_look + SWEEP_INTERVAL, trio.current_time())
            await trio.sleep_until(next_look)
            await self._sweep()
            if self._also is not None:
                self._also()

    async def _sweep(self) -> None:
        now = trio.current_time()
        for index, relay in enumerate(tuple(self._watched), 1):
            if not relay.check(now):
                self._watched.pop(relay, None)
            if index % BATCH == 0:
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
