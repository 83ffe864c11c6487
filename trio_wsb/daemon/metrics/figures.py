"""Figures: what happened since the start, counted as it happens, once for each request and for each session.

Nothing is counted for a message: the relay's scanners know that, and `traffic` adds them up when somebody asks.

What has a name from the configuration (entry point, router, service) is forgotten when a reload has removed it and its last
session is over; what is counted for a backend lives exactly as long as the backend does. The figures of the whole instance
never go back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

import trio
from attrs import define, field

from trio_wsb.balancing.backend import Backend
from trio_wsb.config.metrics import DEFAULT_BUCKETS, DEFAULT_SESSION_BUCKETS
from trio_wsb.observe.histogram import Histogram
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.record import RequestRecord, Stage
from trio_wsb.proxy.session import Session
from trio_wsb.websocket.closecodes import CLOSE_CODE_NAMES

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

EXTENSION_METHOD: Final = "EXTENSION_METHOD"
"""What stands for any other method, which a client may make up. Traefik's word."""

MAX_REASONS: Final = 100
"""Different reasons for a failure; the program has fewer, and a fault in it must not fill the memory."""

OTHER: Final = "other"


def code_label(code: int | None) -> str:
    """Return the label for a close code: registered codes as they are, the others by their range."""
    if code is None:
        return "none"
    if code in CLOSE_CODE_NAMES:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else OTHER


@define
class Traffic:
    """What sessions have relayed; `in` is from clients."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, session: Session) -> None:
        """Add what `session` has relayed by now."""
        session.relay.merge()
        up, down = session.relay.up.scanner, session.relay.down.scanner
        self.messages_in += up.messages
        self.messages_out += down.messages
        self.bytes_in += up.bytes
        self.bytes_out += down.bytes

    def join(self, other: Traffic) -> None:
        """Add `other`."""
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.messages_in + other.messages_in,
            self.messages_out + other.messages_out,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
        )


class Cell:
    """Requests that were answered alike."""

    __slots__ = ("bytes_in", "bytes_out", "seconds")

    def __init__(self, buckets: Sequence[float]) -> None:
        self.seconds = Histogram(buckets)
        self.bytes_in = 0
        self.bytes_out = 0


Answered = tuple[str, str, str]
"""Status code, method and protocol (`http` or `websocket`) of a request."""

_UPGRADED: Final[Answered] = ("101", "GET", "websocket")


class Level:
    """What came through one entry point, router or service."""

    def __init__(self) -> None:
        self.requests: dict[Answered, Cell] = {}
        self.open = 0
        self.traffic = Traffic()
        """Of sessions that are over."""

    def answered(self, key: Answered, seconds: float, buckets: Sequence[float]) -> Cell:
        """Count a request that took `seconds`, and return the cell that it is counted in."""
        cell = self.requests.get(key)
        if cell is None:
            cell = self.requests[key] = Cell(buckets)
        cell.seconds.observe(seconds)
        return cell

    def restart_histograms(self, buckets: Sequence[float]) -> None:
        """Count durations anew, in other ranges."""
        for cell in self.requests.values():
            cell.seconds = Histogram(buckets)


class ServiceLevel(Level):
    """What a service did."""

    def __init__(self, buckets: Sequence[float], session_buckets: Sequence[float]) -> None:
        super().__init__()
        self.opened = 0
        self.ended: Counter[tuple[Cause, str]] = Counter()
        self.failures: Counter[Stage] = Counter()
        self.retries = 0
        self.handshakes = Histogram(buckets)
        self.durations = Histogram(session_buckets)


@define(eq=False)
class BackendFigures:
    """What a backend did for one service."""

    open: int = 0
    opened: int = 0
    ended: Counter[Cause] = field(factory=Counter)
    traffic: Traffic = field(factory=Traffic)


class Figures:
    """Counts requests and sessions: an `Observer`. One for the life of the daemon; `configure` after each reload."""

    def __init__(self) -> None:
        self._buckets: tuple[float, ...] = DEFAULT_BUCKETS
        self._session_buckets: tuple[float, ...] = DEFAULT_SESSION_BUCKETS
        self.opened = 0
        self.ended: Counter[tuple[Cause, str]] = Counter()
        self.traffic = Traffic()
        """Of sessions that are over."""
        self.durations = Histogram(self._session_buckets)
        self.handshakes = Histogram(self._buckets)
        self.handshake_failures: Counter[tuple[Stage, str]] = Counter()
        self.request_failures: Counter[tuple[Stage, str]] = Counter()
        self.retries = 0
        self.middleware_answers: Counter[tuple[str, str, str]] = Counter()
        """By the middleware's name, its kind and the status."""
        self._middlewares: WeakKeyDictionary[object, tuple[str, str]] = WeakKeyDictionary()
        self.entry_points: dict[str, Level] = {}
        self.routers: dict[str, Level] = {}
        self.router_services: dict[str, str] = {}
        """What each router leads to, those among them that are gone and still have sessions."""
        self.services: dict[str, ServiceLevel] = {}
        self._backends: WeakKeyDictionary[Backend, dict[str, BackendFigures]] = WeakKeyDictionary()
        self.internals = False
        """Whether requests for the balancer itself are counted too."""

    def configure(
        self,
        *,
        entry_points: Collection[str],
        routers: Mapping[str, str],
        services: Collection[str],
        middlewares: Mapping[object, tuple[str, str]] | None = None,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        session_buckets: Sequence[float] = DEFAULT_SESSION_BUCKETS,
        internals: bool = False,
    ) -> None:
        """Forget what is neither configured nor in use, and count in these ranges from now on.

        Args:
          entry_points: their names.
          routers: the service that each leads to.
          services: their names.
          middlewares: name and kind of each step; what a step of before answers still counts as its middleware's.
          buckets: upper bounds for the time that requests and handshakes take, ascending, in seconds. When they
            change, these histograms begin anew.
          session_buckets: the same for how long sessions live.
          internals: whether requests for the balancer itself are counted too.

        """
        self.internals = internals
        named = middlewares or {}
        self._middlewares.update(named)
        configured = set(named.values())
        _retain(self.entry_points, entry_points)
        _retain(self.services, services)
        _retain(self.routers, routers)
        kept = {name: service for name, service in self.router_services.items() if name in self.routers}
        self.router_services = kept | dict(routers)
        for answer in [answer for answer in self.middleware_answers if answer[:2] not in configured]:
            del self.middleware_answers[answer]
        for by_service in self._backends.values():
            for name in [name for name, each in by_service.items() if name not in services and not each.open]:
                del by_service[name]
        if tuple(buckets) != self._buckets:
            self._buckets = tuple(buckets)
            self.handshakes = Histogram(buckets)
            for level in (*self.entry_points.values(), *self.routers.values(), *self.services.values()):
                level.restart_histograms(buckets)
            for service in self.services.values():
                service.handshakes = Histogram(buckets)
        if tuple(session_buckets) != self._session_buckets:
            self._session_buckets = tuple(session_buckets)
            self.durations = Histogram(session_buckets)
            for service in self.services.values():
                service.durations = Histogram(session_buckets)

    # Observer.

    def request_ended(self, record: RequestRecord) -> None:
        """See `Observer`."""
        if record.internal and not self.internals:
            return
        ended = trio.current_time() if record.ended is None else record.ended
        status = record.status
        code = str(status) if 100 <= status <= 599 else "0" if status == 0 else OTHER
        protocol = "websocket" if record.upgrade else "http"
        levels: list[Level] = [self._entry_point(record.entry_point)]
        if record.router:
            levels.append(self._router(record.router))
        if record.service:
            levels.append(self._service(record.service))
        method = "" if record.head is None else record.head.method
        seconds = max(0.0, ended - record.started)
        for cell in self._answered(levels, code, method, protocol, seconds):
            cell.bytes_in += record.bytes_in
            cell.bytes_out += record.bytes_out
        self._retried(record)
        if record.answered_by is not None:
            name, kind = self._middlewares.get(record.answered_by, (OTHER, OTHER))
            self.middleware_answers[name, kind, code] += 1
        if record.upgrade:
            self._count_failure(self.handshake_failures, record, record.reason or _REFUSED)
            if record.service and not record.internal:
                self._service(record.service).failures[record.stage] += 1
        elif record.reason:
            self._count_failure(self.request_failures, record, record.reason)

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        """See `Observer`."""
        seconds = max(0.0, session.opened_at - record.started)
        self.opened += 1
        self.handshakes.observe(seconds)
        if record.tries > 1:
            self._retried(record)
        levels = self._levels(session)
        for level in levels:
            level.answered(_UPGRADED, seconds, self._buckets)
            level.open += 1
        service = levels[2]
        service.opened += 1
        service.handshakes.observe(seconds)
        backend = self._backend(session)
        backend.open += 1
        backend.opened += 1

    def session_ended(self, session: Session) -> None:
        """See `Observer`."""
        seconds = max(0.0, session.duration)
        cause = session.cause
        ended = cause, code_label(session.close_code)
        self.ended[ended] += 1
        self.durations.observe(seconds)
        relayed = Traffic()
        relayed.add(session)
        self.traffic.join(relayed)
        levels = self._levels(session)
        for level in levels:
            level.open -= 1
            level.traffic.join(relayed)
        service = levels[2]
        service.ended[ended] += 1
        service.durations.observe(seconds)
        backend = self._backend(session)
        backend.open -= 1
        backend.ended[cause] += 1
        backend.traffic.join(relayed)

    def backends(self) -> list[tuple[Backend, dict[str, BackendFigures]]]:
        """Return what each backend did, by service; to be read only."""
        return list(self._backends.items())

    def backend(self, backend: Backend, service: str) -> BackendFigures:
        """Return what `backend` did for `service`; to be read only."""
        return self._backends.get(backend, {}).get(service) or BackendFigures()

    def service(self, name: str) -> ServiceLevel:
        """Return what the service did; to be read only."""
        return self._service(name)

    # Where things are counted.

    def _answered(
        self, levels: Sequence[Level], code: str, method: str, protocol: str, seconds: float
    ) -> list[Cell]:
        key = (code, method if method in METHODS else EXTENSION_METHOD, protocol)
        return [level.answered(key, seconds, self._buckets) for level in levels]

    def _retried(self, record: RequestRecord) -> None:
        again = record.tries - 1
        if again > 0:
            self.retries += again
            if record.service:
                self._service(record.service).retries += again

    def _count_failure(self, counter: Counter[tuple[Stage, str]], record: RequestRecord, reason: str) -> None:
        key = record.stage, reason
        if key not in counter and len(counter) >= MAX_REASONS:
            key = record.stage, OTHER
        counter[key] += 1

    def _levels(self, session: Session) -> tuple[Level, Level, ServiceLevel]:
        return (
            self._entry_point(session.entry_point),
            self._router(session.router),
            self._service(session.service),
        )

    def _entry_point(self, name: str) -> Level:
        level = self.entry_points.get(name)
        if level is None:
            level = self.entry_points[name] = Level()
        return level

    def _router(self, name: str) -> Level:
        level = self.routers.get(name)
        if level is None:
            level = self.routers[name] = Level()
        return level

    def _service(self, name: str) -> ServiceLevel:
        level = self.services.get(name)
        if level is None:
            level = self.services[name] = ServiceLevel(self._buckets, self._session_buckets)
        return level

    def _backend(self, session: Session) -> BackendFigures:
        by_service = self._backends.get(session.backend)
        if by_service is None:
            by_service = self._backends[session.backend] = {}
        found = by_service.get(session.service)
        if found is None:
            found = by_service[session.service] = BackendFigures()
        return found


_REFUSED: Final = "the backend refused it"
"""The reason of a handshake that the backend answered otherwise than with a session."""


def _retain(levels: dict[str, Level] | dict[str, ServiceLevel], names: Collection[str]) -> None:
    for name in [name for name, level in levels.items() if name not in names and not level.open]:
        del levels[name]
