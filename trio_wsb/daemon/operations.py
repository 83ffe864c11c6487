"""What can be asked of a running daemon and done to it: the handlers behind the control socket.

A handler checks what it was given, reads a view or starts something, and answers; the table says where each is found.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Final

import trio

from trio_wsb.daemon.control import ControlAnswer, ControlRequest, Routes
from trio_wsb.daemon.moveoperations import MoveOperations
from trio_wsb.daemon.sessionviews import session_filter, session_view
from trio_wsb.daemon.views import DaemonState, Moment, View, reload_outcome, status
from trio_wsb.errors import BadRequest, HTTPError

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
"""Sessions in one answer."""

BATCH: Final = 200
"""Sessions looked at before other tasks run: looking at ten thousand takes longer than a message may wait."""


class Operations:
    """The handlers of a daemon."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state

    @property
    def routes(self) -> Routes:
        """Every handler by method and path."""
        return {
            ("GET", "/status"): self.status,
            ("GET", "/sessions"): self.sessions,
            ("POST", "/reload"): self.reload,
            **MoveOperations(self._state).routes,
        }

    async def status(self, request: ControlRequest) -> ControlAnswer:
        """Answer what the daemon is, has and does, on one screen."""
        _only(request, set())
        return ControlAnswer(200, status(self._state, Moment(trio.current_time(), time.time())))

    async def sessions(self, request: ControlRequest) -> ControlAnswer:
        """Answer a page of the sessions that fit, the oldest first, and how many fit in all."""
        _only(request, {"backend", "service", "client", "limit", "offset"})
        limit = _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        offset = _number(request, "offset", 0, 10**9)
        fits = session_filter(
            self._state.backends,
            backend=request.query.get("backend"),
            service=request.query.get("service"),
            client=request.query.get("client"),
        )
        total, page = 0, list[View]()
        drains = self._state.mover.drains
        sessions = iter(self._state.proxy.sessions)
        while batch := list(islice(sessions, BATCH)):
            now = trio.current_time()
            for session in batch:
                # It may have ended since the iteration began.
                if session in self._state.proxy.sessions and fits(session):
                    if offset <= total < offset + limit:
                        drain = drains.covering(session.backend.url, session.service)
                        page.append(session_view(session, now, draining=drain is not None))
                    total += 1
            await trio.lowlevel.checkpoint()
        return ControlAnswer(200, {"total": total, "offset": offset, "limit": limit, "sessions": page})

    async def reload(self, request: ControlRequest) -> ControlAnswer:
        """Reload, wait for the outcome and answer it: 200, or 422 when the old configuration stays in force."""
        _only(request, set())
        if self._state.proxy.stopping:
            raise HTTPError(503, "the daemon is stopping")
        outcome = await self._state.reloader.reload()
        return ControlAnswer(200 if outcome.succeeded else 422, reload_outcome(outcome))


def _only(request: ControlRequest, known: set[str]) -> None:
    unknown = sorted(request.query.keys() - known)
    if unknown:
        hint = f"; there are {', '.join(sorted(known))}" if known else ""
        raise BadRequest(400, f"there is no parameter of that name{hint}")


def _number(request: ControlRequest, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= most):
        raise BadRequest(400, f"{name} must be a number from 0 to {most}")
    return int(text)
