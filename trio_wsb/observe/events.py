"""The event log: the last things that happened to the daemon as a whole.

Reloads, backends that go and come back, drains: what an operator would want to have seen. Not what happens to single
sessions and requests; those are in the log and the access log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from time import time
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

KEPT: Final = 500
"""Events that are remembered."""

MAX_TEXT: Final = 500
"""Characters of a text in an event: some come from backends."""

Value: TypeAlias = str | int | float | bool | None
Severity: TypeAlias = Literal["info", "warning", "error"]


class Kind(StrEnum):
    """What happened; the closed list."""

    STARTED = "started"
    STOPPING = "stopping"
    RELOADED = "reloaded"
    RELOAD_FAILED = "reload_failed"
    PROVIDER_PROBLEM = "provider_problem"
    PROVIDER_RECOVERED = "provider_recovered"
    ROUTER_DISABLED = "router_disabled"
    BACKEND_DOWN = "backend_down"
    BACKEND_UP = "backend_up"
    BACKEND_COOLING = "backend_cooling"
    BACKEND_SILENT = "backend_silent"
    """Its report has no usable answer."""
    BACKEND_REPORTS = "backend_reports"
    """It reports again."""
    BREAKER_OPENED = "breaker_opened"
    BREAKER_CLOSED = "breaker_closed"
    DRAIN_STARTED = "drain_started"
    DRAIN_DONE = "drain_done"
    BACKEND_READY = "backend_ready"
    REBALANCE_STARTED = "rebalance_started"
    REBALANCE_DONE = "rebalance_done"
    SESSIONS_LOST = "sessions_lost"
    CERTIFICATE = "certificate"


@frozen
class Event:
    """One thing that happened. `number` counts from 1 and never repeats, `at` is in seconds since 1970."""

    number: int
    at: float
    kind: Kind
    severity: Severity
    details: Mapping[str, Value] = field(factory=dict)
    """Under the names that the log uses."""


class EventLog:
    """The last events. Lives as long as the daemon; whoever learns of something records it here."""

    def __init__(self, *, clock: Callable[[], float] = time, kept: int = KEPT) -> None:
        """Make an empty log.

        Args:
          clock: gives the time in seconds since 1970.
          kept: how many events are remembered.

        """
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=kept)
        self.recorded_total = 0
        """Events since the start; the number of the last one."""

    def __iter__(self) -> Iterator[Event]:
        """Iterate over the events that are remembered, the oldest first."""
        return iter(tuple(self._kept))

    def since(self, number: int) -> list[Event]:
        """Return the events after that of this number, the oldest first, as far as they are remembered."""
        new = min(self.recorded_total - number, len(self._kept))
        return [] if new <= 0 else [self._kept[index] for index in range(-new, 0)]

    def record(self, kind: Kind, severity: Severity = "info", /, **details: Value) -> Event:
        """Remember that something happened. Synchronous, cheap, and never raises.

        Args:
          kind: what.
          severity: how bad it is.
          details: names as the log has them; texts are cut at `MAX_TEXT`.

        """
        self.recorded_total += 1
        cut = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in details.items()}
        event = Event(self.recorded_total, self._clock(), kind, severity, cut)
        self._kept.append(event)
        return event
