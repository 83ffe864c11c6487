"""Losses in numbers: one line for an operator when a backend, or a proxy in front of us, takes many sessions with it.

Each session has its own line anyway; three hundred of them in a second say what happened only to who counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import structlog

from trio_wsb.balancing.backend import Backend

log = structlog.stdlib.get_logger("trio_wsb.session")

FEW_BY_BACKEND = 3
"""Sessions lost with one backend in about a second that are worth a line of their own."""

FEW_BY_PEER = 10
"""The same for sessions whose clients came through one peer: fewer are a browser that was closed."""


class Losses:
    """Collects the sessions that ended without a Close frame; `report` is called about once a second."""

    def __init__(self) -> None:
        self._backends: Counter[tuple[str, Backend]] = Counter()
        self._peers: Counter[str] = Counter()
        self.heard: Callable[..., None] = _nobody
        """Told what each line of the log says, under the same names."""

    def backend_lost(self, service: str, backend: Backend) -> None:
        """Note a session that went with its backend."""
        self._backends[service, backend] += 1

    def client_lost(self, peer: str) -> None:
        """Note a session whose client's connection, which came from `peer`, went."""
        self._peers[peer] += 1

    def report(self) -> None:
        """Say what was lost since the last call, and forget it."""
        for (service, backend), count in self._backends.items():
            if count >= FEW_BY_BACKEND:
                self._say(
                    "backend lost sessions",
                    service=service,
                    backend=str(backend.url),
                    **backend.pod,
                    sessions=count,
                    left=backend.live,
                )
        for peer, count in self._peers.items():
            if count >= FEW_BY_PEER:
                self._say("clients lost", peer=peer, sessions=count)
        self._backends.clear()
        self._peers.clear()

    def _say(self, line: str, **details: str | int) -> None:
        log.warning(line, **details)
        self.heard(**details)


def _nobody(**_: str | int) -> None:
    """Hear nothing."""
