"""Places for handshakes: what waits while every backend of a service has as many under way as it may have.

After a backend or a network came back, thousands of clients knock in the same second. A backend gets a bounded number of their
handshakes at a time, the next ones wait in line for a moment, and what is left is told to come back later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from trio_wsb.balancing.backend import Backend

MAX_WAITING: Final = 1024
"""Handshakes of one service that wait at a time; one more is refused at once."""


class HandshakePlaces:
    """The lines of all services, by name; they outlive reloads. Nothing is kept for a service where nobody waits."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[trio.Event]] = {}

    def waiting(self, service: str) -> int:
        """Return how many handshakes wait for a backend of `service`."""
        return len(self._lines.get(service, ()))

    def taken(self, backend: Backend) -> None:
        """Count a handshake in, without a checkpoint after the choice."""
        backend.opening += 1

    def freed(self, backend: Backend) -> None:
        """Count a handshake out, and let the first one in each line look again."""
        backend.opening -= 1
        self._wake()

    async def wait(
        self, service: str, choose: Callable[[], Backend | None], seconds: float
    ) -> Backend | None:
        """Wait in line until `choose` finds a backend; None after `seconds`, or when the line is too long.

        There is no checkpoint between the choice and the return.
        """
        line = self._lines.setdefault(service, deque())
        if len(line) >= MAX_WAITING:
            return None
        turn = trio.Event()
        line.append(turn)
        found: Backend | None = None
        try:
            with trio.move_on_after(seconds):
                while found is None:
                    await turn.wait()
                    found = choose()
                    if found is None:
                        # Somebody was quicker, or the place was another service's: first in line again.
                        turn = trio.Event()
                        line.appendleft(turn)
        finally:
            if turn in line:
                line.remove(turn)
            if not line and self._lines.get(service) is line:
                del self._lines[service]
            if found is None and turn.is_set():
                self._wake()  # it was our turn and we did not use it
        return found

    def _wake(self) -> None:
        for line in self._lines.values():
            if line:
                line.popleft().set()
