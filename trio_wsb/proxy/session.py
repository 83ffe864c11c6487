"""Sessions: what is known of each, the table of all of them, and the two log lines that each writes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import structlog
import trio
from attrs import define

from trio_wsb.balancing.backend import Backend
from trio_wsb.proxy.causes import Cause, Side
from trio_wsb.proxy.losses import Losses
from trio_wsb.proxy.record import Observers, RequestRecord, tell
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.relaying import RelayKind

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
    relay_kind: RelayKind = "stream"
    """Who moves its bytes."""
    relay_reason: str = ""
    """Why it is not the kernel."""
    id: int = 0
    opened_at: float = 0.0
    ended_at: float | None = None
    """Trio time; None while it is live."""
    record: RequestRecord | None = None
    """Of the handshake that it came from, until the observers have seen it."""
    at_end: tuple[Callable[[], None], ...] = ()
    """Called in this order when it is over, to give back what is its own."""

    @property
    def duration(self) -> float:
        """Seconds from its opening to its end, or until now."""
        return (trio.current_time() if self.ended_at is None else self.ended_at) - self.opened_at

    @property
    def cause(self) -> Cause:
        """Why it ended; that nobody knows why is a fault of ours."""
        return self.relay.cause or Cause.INTERNAL_ERROR

    @property
    def closed_by(self) -> Side | None:
        """Who began its end, as far as it has."""
        return self.relay.closed_by

    @property
    def close_code(self) -> int | None:
        """The code of the first Close frame, None before there was one; 1005 for one without a code."""
        return self.relay.close_code


class SessionTable:
    """Every live session, by id. The one owner of this state; it survives reloads."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._ids = itertools.count(1)
        self.opened_total = 0
        self.ended_total: Counter[Cause] = Counter()
        self.relays: Counter[tuple[RelayKind, str]] = Counter()
        """Live sessions by who moves their bytes, and why that is not the kernel."""
        self.relays_total: Counter[tuple[RelayKind, str]] = Counter()
        """All that were opened."""
        self.losses = Losses()
        self.observers: Observers = ()
        """Set by way of `Proxy.observers`."""
        self.lines = True
        """Whether the log takes the two lines of each session: to make up what nobody writes is 3 % of a handshake."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the sessions that live now; some may end meanwhile."""
        return iter(tuple(self._sessions.values()))

    def find(self, number: int) -> Session | None:
        """Return the live session with this id."""
        return self._sessions.get(number)

    def __contains__(self, session: Session) -> bool:
        return self._sessions.get(session.id) is session

    async def run(self, session: Session) -> None:
        """Count `session` as live, relay until it ends, and record why it did. Owns its channels, and what it gives back."""
        try:
            try:
                self._open(session)
            except BaseException:
                session.relay.close()
                raise
            try:
                await session.relay.run()
            finally:
                self._close(session)
        finally:
            for give_back in session.at_end:
                give_back()

    def _open(self, session: Session) -> None:
        record, session.record = session.record or RequestRecord(), None
        session.id = next(self._ids)
        self._sessions[session.id] = session
        self.opened_total += 1
        relay = session.relay_kind, session.relay_reason
        self.relays[relay] += 1
        self.relays_total[relay] += 1
        session.opened_at = trio.current_time()
        session.backend.session_opened(session.opened_at)
        if self.lines:
            log.info(
                "session opened",
                session=session.id,
                client=session.client,
                entryPoint=session.entry_point,
                router=session.router,
                service=session.service,
                backend=str(session.backend.url),
                **session.backend.pod,
                tries=session.tries,
                relay=session.relay_kind,
                **({"relayReason": session.relay_reason} if session.relay_reason else {}),
            )
        record.ended = session.opened_at
        tell(self.observers, lambda observer: observer.session_opened(session, record))

    def _close(self, session: Session) -> None:
        relay = session.relay
        cause = session.cause
        session.ended_at = now = trio.current_time()
        del self._sessions[session.id]
        self.ended_total[cause] += 1
        self.relays[session.relay_kind, session.relay_reason] -= 1
        cooling = session.backend.session_ended(
            now, session.opened_at, backend_fault=cause is Cause.BACKEND_LOST
        )
        if cause is Cause.BACKEND_LOST or cause is Cause.BACKEND_PING_TIMEOUT:
            self.losses.backend_lost(session.service, session.backend)
        elif cause is Cause.CLIENT_LOST or cause is Cause.CLIENT_PING_TIMEOUT:
            self.losses.client_lost(session.peer)
        if cooling:
            log.warning(
                "backend drops sessions",
                service=session.service,
                backend=str(session.backend.url),
                **session.backend.pod,
                coolDown=session.backend.passive.cool_down,
            )
        if self.lines:
            log.info(
                "session ended",
                session=session.id,
                client=session.client,
                service=session.service,
                backend=str(session.backend.url),
                **session.backend.pod,
                cause=cause.value,
                closeCode=relay.close_code,
                closedBy=relay.closed_by,
                duration=round(now - session.opened_at, 3),
                messagesIn=relay.up.scanner.messages,
                messagesOut=relay.down.scanner.messages,
                bytesIn=relay.up.scanner.bytes,
                bytesOut=relay.down.scanner.bytes,
            )
        tell(self.observers, lambda observer: observer.session_ended(session))
