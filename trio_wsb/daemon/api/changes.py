"""What is recorded in the event log because somebody looked: things that go bad, and that are good again.

Whatever the reason, what counts is what it is now; so nobody has to be told from where it happens. A look is each second: what
goes and comes back between two of them was nothing to be told of, but for a circuit breaker, which counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

import trio
from attrs import define

from trio_wsb.config.problems import printable
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.middlewares import MadeStep
from trio_wsb.daemon.reload import container_states
from trio_wsb.daemon.tlsviews import certificates
from trio_wsb.daemon.views import DaemonState, View
from trio_wsb.middleware.breaker import CircuitBreaker, State
from trio_wsb.observe.events import Kind, Severity, Value
from trio_wsb.proxy.steps import BreakerStep

Look = dict[str, View]
"""What is known of each backend, by service and URL."""

CERTIFICATES_INTERVAL: Final = 600.0
"""Seconds between two looks at when certificates expire."""

TRUSTED_AFTER: Final = 60.0
"""Seconds without another failure after which a backend is taken to work again, though no session has opened there."""

_UP: Final = frozenset({"ready", "full"})
_CERTIFICATES: Final[Mapping[str, Severity]] = {"expiring": "warning", "expired": "error"}


@define
class _Doubt:
    """A backend that is, or was, passed over for failures: the sessions that it had opened, and when it was seen so last."""

    opened: int
    seen: float


class Changes:
    """Compares each look at the daemon with the one before, and records. Owned by the feed."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._doubted: dict[str, _Doubt] = {}
        self._bad: set[tuple[str, str]] = set()
        self.breakers: Mapping[tuple[str, str], CircuitBreaker] = {}
        """Those in force, by the names of their middleware and router."""
        self._opened: dict[tuple[str, str], int] = {}
        self._open: set[tuple[str, str]] = set()
        self._certificates: dict[tuple[object, ...], str] = {}
        self._certificates_of: Prepared | None = None
        self._certificates_at = -inf
        state.proxy.sessions.losses.heard = self._sessions_lost

    def configure(self, steps: Sequence[MadeStep]) -> None:
        """Take over the steps of the middlewares that are in force now."""
        self.breakers = {
            (made.middleware, made.router): made.step.breaker
            for made in steps
            if isinstance(made.step, BreakerStep)
        }
        for key in self._opened.keys() - self.breakers.keys():
            del self._opened[key]
            self._open.discard(key)

    def record(self, before: Look | None, look: Look) -> None:
        """Record what has changed since the last call; `before` and `look` are what it knew of the backends and now is."""
        if before is not None:
            for key, row in look.items():
                old = before.get(key)
                if old is not None:
                    self._backend(key, old, row)
            for key in self._doubted.keys() - look.keys():
                del self._doubted[key]
        self._sources()
        self._circuits()
        self._expiry()

    def _sessions_lost(self, **details: Value) -> None:
        self._state.events.record(Kind.SESSIONS_LOST, "warning", **details)

    def _backend(self, key: str, old: View, row: View) -> None:
        events, state, before = self._state.events, str(row["state"]), old["state"]
        known: dict[str, Any] = {"service": row["service"], "backend": row["url"]}
        if state == "down" and before != state:
            self._doubted.pop(key, None)
            health = row.get("health")
            problem = health.get("problem") if isinstance(health, dict) else None
            events.record(Kind.BACKEND_DOWN, "warning", **known, reason=problem)
        elif state == "cooling_down" and before != state and key not in self._doubted:
            events.record(Kind.BACKEND_COOLING, "warning", **known)
            self._doubted[key] = _Doubt(_opened(row), trio.current_time())
        elif (state in _UP and before == "down") or self._proven(key, row):
            events.record(Kind.BACKEND_UP, **known)
        silent, was_silent = row.get("reportProblem"), old.get("reportProblem")
        if silent and not was_silent:
            events.record(Kind.BACKEND_SILENT, "warning", **known, reason=str(silent))
        elif was_silent and not silent and row.get("reportedAt") is not None:
            events.record(Kind.BACKEND_REPORTS, **known)

    def _proven(self, key: str, row: View) -> bool:
        """Whether a backend that was passed over for failures works again; that its time is over does not say so."""
        doubt = self._doubted.get(key)
        if doubt is None:
            return False
        now = trio.current_time()
        if row["state"] == "cooling_down":
            doubt.seen = now
        elif row["state"] in _UP and (_opened(row) > doubt.opened or now - doubt.seen >= TRUSTED_AFTER):
            del self._doubted[key]
            return True
        return False

    def _sources(self) -> None:
        """Look at dynamic files, containers and the Engine."""
        current, events = self._state.reloader.current, self._state.events
        files = () if current is None else current.files
        bad = {("file", each.path): str(each.problems[0]) for each in files if each.problems}
        for container in container_states(current):
            if container.problems:
                bad["container", container.name] = str(container.problems[0])
        docker = self._state.docker
        if docker is not None and docker.standing.state == "away":
            bad["endpoint", docker.standing.endpoint] = docker.standing.reason
        for (kind, name), problem in bad.items():
            if (kind, name) not in self._bad:
                details = {kind: printable(name), "problem": printable(problem)}
                events.record(Kind.PROVIDER_PROBLEM, "error", **details)
        for kind, name in self._bad - bad.keys():
            events.record(Kind.PROVIDER_RECOVERED, **{kind: printable(name)})
        self._bad = set(bad)

    def _circuits(self) -> None:
        events, now = self._state.events, trio.current_time()
        for key, breaker in self.breakers.items():
            middleware, router = key
            names: dict[str, Value] = {"middleware": middleware, "router": router or None}
            closed = breaker.state_at(now) is State.CLOSED
            # One whose options a reload has changed begins to count anew.
            before = min(self._opened.get(key, 0), breaker.opened_total)
            if breaker.opened_total > before:
                events.record(Kind.BREAKER_OPENED, "warning", **names)
                self._open.add(key)
            self._opened[key] = breaker.opened_total
            if closed and key in self._open:
                self._open.discard(key)
                events.record(Kind.BREAKER_CLOSED, **names)

    def _expiry(self) -> None:
        """Look now and then whether a certificate is about to expire."""
        current, now = self._state.reloader.current, trio.current_time()
        if current is None:
            return
        if current is self._certificates_of and now - self._certificates_at < CERTIFICATES_INTERVAL:
            return
        self._certificates_of, self._certificates_at = current, now
        started = self._state.started
        at = datetime.fromtimestamp(started.wall + now - started.now, UTC)
        known, self._certificates = self._certificates, {}
        for each in certificates(current.server_tls, at):
            state = str(each["state"])
            if each["file"] is None or state not in _CERTIFICATES:
                continue
            key = (each["file"], each["notAfter"])
            self._certificates[key] = state
            if known.get(key) != state:
                self._state.events.record(
                    Kind.CERTIFICATE,
                    _CERTIFICATES[state],
                    file=printable(str(each["file"])),
                    state=state,
                    notAfter=str(each["notAfter"]),
                )


def _opened(row: View) -> int:
    opened = row["opened"]
    return opened if isinstance(opened, int) else 0
