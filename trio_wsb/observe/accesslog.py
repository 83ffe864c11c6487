"""The access log: a line for each request, and two for each session, when it opens and when it has ended.

`AccessLog` is an observer of the proxy. It outlives reloads, each of which may give it other options; what it must know of
a session's handshake when the session ends is kept here, so that a session without an access log keeps nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen

from trio_wsb.config import accesslog as options
from trio_wsb.http.headers import Headers
from trio_wsb.observe.accessline import Entry, Formatter, formatter
from trio_wsb.observe.redaction import HeaderRules, QueryRules, cut, path_text
from trio_wsb.proxy.record import RequestRecord
from trio_wsb.proxy.secure import Secured
from trio_wsb.proxy.session import Session

_SWITCHED = 101
_SUCCESS = 200


class Output(Protocol):
    """Where lines go."""

    def put(self, line: str) -> None:
        """Take a line with its end; never waits and never raises."""
        ...


@frozen
class _Opened:
    """What the end of a session says of its handshake. Small: there is one for each live session."""

    started: float
    started_wall: float
    number: int
    secured: Secured | None
    username: str
    authority: str
    path: str
    origin_duration: float
    overhead: float
    peer: str
    client: str
    referer: str
    agent: str


class AccessLog:
    """Writes lines for what it observes.

    Args:
      settings: what is written and how.
      output: where to; stays the caller's.

    """

    def __init__(self, settings: options.AccessLog, output: Output) -> None:
        self._opened: dict[int, _Opened] = {}
        self.configure(settings, output)

    def configure(self, settings: options.AccessLog, output: Output) -> None:
        """Write by other options from now on; sessions that have opened are remembered."""
        fields = settings.fields
        self._output = output
        self._format: Formatter = formatter(settings.format, fields)
        self._internals = settings.add_internals
        self._filters = _Filters(settings.filters)
        self._query = QueryRules(fields.query_parameters)
        self._headers = HeaderRules(fields.headers, self._query)
        self._json = settings.format == "json"

    # What it observes.

    def request_ended(self, record: RequestRecord) -> None:
        """Write the line of a request that became no session."""
        if record.internal and not self._internals:
            return
        ended = record.started if record.ended is None else record.ended
        duration = ended - record.started
        if not self._filters.let_pass(record.status, record.tries, duration):
            return
        entry = self._entry(record, duration)
        entry.own = self._own(record)
        entry.handshake = record.upgrade
        self._write(entry)

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        """Write the line of a session that opens, which took as long as its handshake."""
        duration = session.opened_at - record.started
        entry = self._entry(record, duration)
        entry.event, entry.handshake = "session_opened", True
        entry.own = {"session": session.id, "tries": session.tries}
        self._opened[session.id] = _Opened(
            record.started,
            record.started_wall,
            record.number,
            record.peer.secured,
            entry.username,
            entry.authority,
            entry.path,
            entry.origin_duration,
            max(0.0, duration - entry.origin_duration),
            entry.peer,
            entry.client,
            entry.referer,
            entry.agent,
        )
        if self._filters.let_pass(_SWITCHED, record.tries, duration):
            self._write(entry)

    def session_ended(self, session: Session) -> None:
        """Write the line of a session that has ended; its duration is that of request and session together."""
        opened = self._opened.pop(session.id, None)
        if opened is None:
            return  # it opened when there was no access log
        ended = session.opened_at + session.duration
        duration = ended - opened.started
        if not self._filters.let_pass(_SWITCHED, session.tries, duration):
            return
        up, down = session.relay.up.scanner, session.relay.down.scanner
        own: dict[str, Any] = {"session": session.id, "tries": session.tries, "cause": session.cause.value}
        if session.close_code is not None:
            own["closeCode"] = session.close_code
        if session.closed_by is not None:
            own["closedBy"] = session.closed_by
        own |= {
            "messagesIn": up.messages,
            "messagesOut": down.messages,
            "bytesIn": up.bytes,
            "bytesOut": down.bytes,
        }
        entry = Entry(
            "session_ended",
            opened.started_wall,
            duration,
            session.entry_point,
            opened.peer,
            opened.client,
            number=opened.number,
            secured=opened.secured,
            username=opened.username,
            method="GET",
            path=opened.path,
            protocol="HTTP/1.1",
            authority=opened.authority,
            router=session.router,
            service=session.service,
            backend=session.backend.url,
            status=_SWITCHED,
            bytes_in=up.bytes,
            bytes_out=down.bytes,
            origin_status=_SWITCHED,
            origin_bytes=down.bytes,
            origin_duration=opened.origin_duration,
            overhead=opened.overhead,
            tries=session.tries,
            referer=opened.referer,
            agent=opened.agent,
            own=own,
        )
        self._write(entry)

    # Entries.

    def _entry(self, record: RequestRecord, duration: float) -> Entry:
        """Return what is known of a request, without what must not be logged."""
        head = record.head
        entry = Entry(
            "request",
            record.started_wall,
            duration,
            record.entry_point,
            record.peer.text,
            str(record.client or record.peer.address or record.peer.text),
            record.number,
            record.peer.secured,
            cut(record.username),
        )
        entry.router, entry.service = record.router, record.service
        if record.backend is not None:
            entry.backend = record.backend.url
        entry.status, entry.tries = record.status, record.tries
        entry.bytes_in, entry.bytes_out = record.bytes_in, record.bytes_out
        entry.origin_status, entry.origin_bytes = record.origin_status, record.origin_bytes
        entry.origin_duration = record.origin_duration or 0.0
        if head is not None:
            major, minor = head.version
            entry.method, entry.authority = cut(head.method), cut(head.authority)
            entry.protocol = f"HTTP/{major}.{minor}"
            query = head.query if "?" in head.target else None
            entry.path = path_text(head.path, query, self._query)
            self._add_headers(entry, record, head.headers)
        return entry

    def _add_headers(self, entry: Entry, record: RequestRecord, headers: Headers) -> None:
        rules = self._headers
        if rules.drops_all:
            return
        if not self._json:
            entry.referer = rules.value("referer", headers.get_all("referer")) or ""
            entry.agent = rules.value("user-agent", headers.get_all("user-agent")) or ""
            return
        found = rules.apply("request_", headers)
        if record.origin_answer is not None:
            found |= rules.apply("origin_", record.origin_answer)
        if record.answer is not None:
            found |= rules.apply("downstream_", record.answer)
        entry.headers = found

    @staticmethod
    def _own(record: RequestRecord) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if record.tries:
            own["tries"] = record.tries
        if record.reason:
            own["stage"], own["reason"] = record.stage.value, record.reason
        return own

    def _write(self, entry: Entry) -> None:
        line = self._format(entry)
        if line is not None:
            self._output.put(line)


class _Filters:
    """Which lines are written: Traefik's rule, by which one filter that lets a line pass is enough."""

    def __init__(self, settings: options.AccessLogFilters) -> None:
        self._codes = settings.status_codes
        self._retries = settings.retry_attempts
        self._min_duration = settings.min_duration
        self._any = bool(self._codes or self._retries or self._min_duration)

    def let_pass(self, status: int, tries: int, duration: float) -> bool:
        """Whether a line with these figures is written; `duration` in seconds."""
        if not self._any:
            return True
        if any(status in each or (status == _SWITCHED and _SUCCESS in each) for each in self._codes):
            return True
        if self._retries and tries > 1:
            return True
        return bool(self._min_duration) and duration > self._min_duration
