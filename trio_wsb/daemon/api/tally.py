"""The tally: what sessions that are over leave behind, for the dashboard and the guide's WebSocketMetrics document."""

from __future__ import annotations

import time
from collections import Counter, deque
from itertools import islice
from typing import Final

import trio
from attrs import evolve

from trio_wsb.daemon.metrics.figures import Traffic
from trio_wsb.daemon.views import View, moment
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.record import RequestRecord
from trio_wsb.proxy.session import Session, SessionTable

DURATIONS: Final = 100
"""Sessions that are over whose durations are remembered."""

MAX_CODES: Final = 64
"""Close codes that are told apart: peers may send any from 3000 to 4999."""

OTHER_CODES: Final = "other"
NO_CODE: Final = "none"
"""Of a session that ended without a Close frame."""

BATCH: Final = 200
"""Sessions looked at before other tasks run."""

_FAULTS: Final = frozenset(Cause) - {
    Cause.CLIENT_CLOSED,
    Cause.BACKEND_CLOSED,
    Cause.SHUTDOWN,
    *(cause for cause in Cause if cause.value in {"drain", "rebalance", "idle_timeout", "max_lifetime"}),
}


class Tally:
    """Counts what is over. An `Observer` of requests and sessions; what lives is counted where it lives."""

    def __init__(self) -> None:
        self.ended = Traffic()
        """Of sessions that are over."""
        self.close_codes: Counter[str] = Counter()
        self.durations: deque[float] = deque(maxlen=DURATIONS)
        """Seconds, of the last sessions that ended, the latest last."""
        self.last_error = ""
        self.last_error_at: float | None = None
        """In seconds since 1970."""

    def request_ended(self, record: RequestRecord) -> None:
        """Note a request that failed by no fault of its sender."""
        if record.status >= 500 and not record.internal:
            where = f" at {record.backend.url}" if record.backend is not None else ""
            self._fault(f"{record.status} {record.reason}{where}")

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        """Nothing to note: it is counted while it lives."""

    def session_ended(self, session: Session) -> None:
        """Count a session that is over."""
        self.ended.add(session)
        self.durations.append(round(session.duration, 3))
        code = NO_CODE if session.close_code is None else str(session.close_code)
        if code not in self.close_codes and len(self.close_codes) >= MAX_CODES:
            code = OTHER_CODES
        self.close_codes[code] += 1
        if session.cause in _FAULTS:
            self._fault(f"session {session.id} at {session.backend.url}: {session.cause.value}")

    def _fault(self, text: str) -> None:
        self.last_error, self.last_error_at = text, time.time()

    async def traffic(self, sessions: SessionTable) -> Traffic:
        """Return what all sessions have relayed, those that live included. Other tasks run meanwhile."""
        # Both at one moment: who ends meanwhile is among those that live, once, so that no figure goes back.
        found, ordered = evolve(self.ended), iter(tuple(sessions))
        while batch := list(islice(ordered, BATCH)):
            for session in batch:
                found.add(session)
            await trio.lowlevel.checkpoint()
        return found

    async def websocket_metrics(self, sessions: SessionTable) -> View:
        """Return the document that the guide calls WebSocketMetrics, which its backends show of themselves."""
        traffic = await self.traffic(sessions)
        return {
            "active_connections": len(sessions),
            "total_connections": sessions.opened_total,
            "messages_received": traffic.messages_in,
            "messages_sent": traffic.messages_out,
            "connection_duration_seconds": list(self.durations),
            "last_error": self.last_error,
            # Go's zero time, which is what the guide's type shows before there was an error.
            "last_error_time": "0001-01-01T00:00:00Z"
            if self.last_error_at is None
            else moment(self.last_error_at),
        }
