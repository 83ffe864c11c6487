"""The sweeper: one task that enforces the deadlines of every session.

A cancel scope whose deadline moves with every read costs five times a frame scan; looking once a second at
the few sessions that have a deadline costs nothing while they are fine.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_wsb.proxy.relay import Relay

SWEEP_INTERVAL = 1.0
"""Seconds between two looks: deadlines of sessions are that exact."""


class Sweeper:
    """Knows the relays that have a deadline, and ends those that are over it."""

    def __init__(self, also: Callable[[], None] | None = None) -> None:
        """Watch nothing yet; `also` is called after each look."""
        self._also = also
        self._watched: set[Relay] = set()

    def watch(self, relay: Relay) -> None:
        """Look at `relay` once a second until it has no deadline any more."""
        self._watched.add(relay)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            now = trio.current_time()
            self._watched -= {relay for relay in self._watched if not relay.check(now)}
            if self._also is not None:
                self._also()
