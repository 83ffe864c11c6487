"""Sessions: what is known of each, the table of all of them, and the two log lines that each writes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import structlog
import trio
from attrs import define

from trio_wsb.balancing.backend import Backend
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.losses import Losses
from trio_wsb.proxy.relay import Relay

log = structlog.stdlib.get_logger("trio_wsb.session")


@define(eq=False)
class Session:
    """One client connection after its upgrade."""

    relay: Relay
    backend: Backend
    service: str
    router: str
    entry_point: str
    client: str
    """The client's address, with its port where that is known."""
    peer: str
    """The address that the connection came from: the client's, or that of a proxy in front of us."""
    host: str
    path: str
    tries: int
    id: int = 0
    opened_at: float = 0.0


class SessionTable:
    """Every live session, by id. The one owner of this state; it survives reloads."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._ids = itertools.count(1)
        self.opened_total = 0
        self.ended_total: Counter[Cause] = Counter()
        self.losses = Losses()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the sessions that live now; some may end meanwhile."""
        return iter(tuple(self._sessions.values()))

    def __contains__(self, session: Session) -> bool:
        return self._sessions.get(session.id) is session

    async def run(self, session: Session) -> None:
        """Count `session` as live, relay until it ends, and record why it did. Owns its channels."""
        self._open(session)
        try:
            await session.relay.run()
        finally:
            self._close(session)

    def _open(self, session: Session) -> None:
        session.id = next(self._ids)
        self._sessions[session.id] = session
        self.opened_total += 1
        session.opened_at = trio.current_time()
        session.backend.session_opened(session.opened_at)
        log.info(
            "session opened",
            session=session.id,
            client=session.client,
            entryPoint=session.entry_point,
            router=session.router,
            service=session.service,
            backend=str(session.backend.url),
            tries=session.tries,
        )

    def _close(self, session: Session) -> None:
        relay = session.relay
        cause = relay.cause or Cause.INTERNAL_ERROR
        now = trio.current_time()
        del self._sessions[session.id]
        self.ended_total[cause] += 1
        cooling = session.backend.session_ended(
            now, session.opened_at, backend_fault=cause is Cause.BACKEND_LOST
        )
        if cause is Cause.BACKEND_LOST:
            self.losses.backend_lost(session.service, session.backend)
        elif cause is Cause.CLIENT_LOST:
            self.losses.client_lost(session.peer)
        if cooling:
            log.warning(
                "backend drops sessions",
                service=session.service,
                backend=str(session.backend.url),
                coolDown=session.backend.passive.cool_down,
            )
        log.info(
            "session ended",
            session=session.id,
            client=session.client,
            service=session.service,
            backend=str(session.backend.url),
            cause=cause.value,
            closeCode=relay.close_code,
            duration=round(now - session.opened_at, 3),
            messagesIn=relay.up.scanner.messages,
            messagesOut=relay.down.scanner.messages,
            bytesIn=relay.up.scanner.bytes,
            bytesOut=relay.down.scanner.bytes,
        )
