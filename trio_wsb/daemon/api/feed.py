"""The live feed: a look at the daemon each second, for whoever listens at /api/events.

One task looks and everybody hears the same, so that a listener costs little more than its bytes. Of the backends only those
are told whose figures have changed. The last minutes are remembered, so that who comes sees where things come from.
What goes bad, and what is good again, is recorded in the event log by way of it (`trio_wsb.daemon.api.changes`).
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from heapq import nlargest
from math import inf
from typing import Final

import structlog
import trio
from attrs import define, field

from trio_wsb import __version__
from trio_wsb.config.internal import API, DASHBOARD
from trio_wsb.daemon.api.changes import Changes, Look
from trio_wsb.daemon.api.tally import Tally
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.metrics.figures import Traffic
from trio_wsb.daemon.views import DaemonState, View, backends, configuration, kernel_relay
from trio_wsb.observe.broadcast import Broadcast
from trio_wsb.observe.events import Event, Kind
from trio_wsb.proxy.causes import Cause

log = structlog.stdlib.get_logger("trio_wsb.api")

INTERVAL: Final = 1.0
"""Seconds between two looks."""

KEPT: Final = 300
"""Looks that are remembered, and that is five minutes."""

KEPT_BACKENDS: Final = 12
"""Backends whose sessions are remembered at each look: those with the most."""

MAX_LISTENERS: Final = 32
QUEUE: Final = 16
"""Looks that wait for a slow listener; after them it is dropped."""

TOLD_EVENTS: Final = 100
"""Events that a new listener is told."""

FEW_SESSIONS: Final = 1000
SUM_INTERVAL: Final = 5.0
"""Seconds between two sums over all sessions when there are more than `FEW_SESSIONS`."""

BATCH: Final = 50
"""Backends looked at before other tasks run."""


@define
class Sample:
    """What is remembered of a look."""

    at: int
    """Seconds since 1970."""
    open: int
    opened: int
    ended: int
    live: Mapping[str, int] = field(factory=dict)
    """Sessions by backend, of those with the most."""


class Feed:
    """Looks at the daemon and tells. Owned by the API; lives as long as the daemon."""

    def __init__(self, state: DaemonState, tally: Tally) -> None:
        self._state = state
        self._tally = tally
        self._listeners: Broadcast[str] = Broadcast(queue=QUEUE, listeners=MAX_LISTENERS)
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._look: Look | None = None
        self._told = 0
        self._prepared: Prepared | None = None
        self._access: tuple[object, ...] | None = None
        self.changes = Changes(state)
        """Records what a look finds changed."""
        self._stopped = False
        self._traffic: Traffic | None = None
        self._traffic_at = -inf
        self._offset = state.started.wall - state.started.now
        """From the event loop's clock to seconds since 1970."""

    @property
    def listeners(self) -> Broadcast[str]:
        """Who hears of each look; messages are JSON texts."""
        return self._listeners

    async def run(self) -> None:
        """Look each `INTERVAL` until cancelled."""
        due = trio.current_time()
        while True:
            try:
                await self.look()
            except Exception:
                # It only looks on: its fault must not be the daemon's end.
                log.exception("internal error in a look at the daemon")
            due = max(due + INTERVAL, trio.current_time())
            await trio.sleep_until(due)

    async def look(self) -> None:
        """Look once and tell what has changed."""
        if self._stopped:
            self._listeners.end()
            return
        if self._state.proxy.stopping:
            self._stopped = True
            self._state.events.record(Kind.STOPPING, sessions=len(self._state.proxy.sessions))
        self._look_at_access()
        look = await self._look_at_backends()
        before, self._look = self._look, look
        self.changes.record(before, look)
        self._remember(look)
        if not len(self._listeners):
            self._told = self._state.events.recorded_total
            return
        changed = [row for key, row in look.items() if before is None or before.get(key) != row]
        gone = [] if before is None else [key for key in before if key not in look]
        tick: View = {
            "type": "tick",
            "at": int(time.time()),
            **await self._totals(),
            "backends": changed,
            "removed": gone,
            "events": [event_view(event) for event in self._state.events.since(self._told)],
        }
        self._told = self._state.events.recorded_total
        self._listeners.send(_text(tick))
        if self._stopped:
            self._listeners.end()

    async def greeting(self) -> AsyncGenerator[str, None]:
        """Yield the messages that a new listener gets first: the whole state, in pieces."""
        state = self._state
        look = self._look if self._look is not None else await self._look_at_backends()
        rows = list(look.values())
        events = [event_view(event) for event in list(state.events)[-TOLD_EVENTS:]]
        yield _text(
            {
                "type": "hello",
                "version": __version__,
                "server": state.proxy.server_name,
                "startedAt": state.started.wall,
                "interval": INTERVAL,
                "at": int(time.time()),
                **await self._totals(),
                "configuration": configuration(state.reloader, state.docker, time.time()),
                "backendsTotal": len(rows),
                "events": events,
                "history": self._history(),
            }
        )
        for first in range(0, len(rows), BATCH):
            yield _text({"type": "backends", "backends": rows[first : first + BATCH]})

    def _look_at_access(self) -> None:
        """End all listening when a reload has changed who may listen: those who still may come again."""
        current = self._state.reloader.current
        if current is None or current is self._prepared:
            return
        self._prepared, before = current, self._access
        config = current.config
        self._access = (
            config.api,
            {
                name: router
                for name, router in config.http.routers.items()
                if router.service in {API, DASHBOARD}
            },
            config.http.middlewares,
            {name: entry.http.middlewares for name, entry in config.entry_points.items()},
        )
        if before is not None and before != self._access:
            self._listeners.end()

    async def _totals(self) -> View:
        sessions = self._state.proxy.sessions
        traffic = await self._recent_traffic()
        return {
            "sessions": {
                "open": len(sessions),
                "opened": sessions.opened_total,
                "ended": {cause.value: sessions.ended_total[cause] for cause in Cause},
                "closeCodes": dict(self._tally.close_codes),
            },
            "traffic": {
                "messagesIn": traffic.messages_in,
                "messagesOut": traffic.messages_out,
                "bytesIn": traffic.bytes_in,
                "bytesOut": traffic.bytes_out,
                "at": round(self._traffic_at + self._offset, 3),
            },
            "connections": sum(self._state.proxy.connections.values()),
            "kernelRelay": kernel_relay(self._state),
        }

    async def _recent_traffic(self) -> Traffic:
        """Return what all sessions have relayed; of many sessions it is not summed up each second."""
        sessions, now = self._state.proxy.sessions, trio.current_time()
        often = len(sessions) <= FEW_SESSIONS
        if self._traffic is None or often or now - self._traffic_at >= SUM_INTERVAL:
            self._traffic, self._traffic_at = await self._tally.traffic(sessions), now
        return self._traffic

    async def _look_at_backends(self) -> Look:
        look: Look = {}
        now = trio.current_time()
        for index, row in enumerate(backends(self._state, now)):
            if index % BATCH == BATCH - 1:
                await trio.lowlevel.checkpoint()
            look[f"{row['service'] or ''} {row['url']}"] = self._lasting(row, now)
        return look

    def _lasting(self, row: View, now: float) -> View:
        """Return a view of a backend that only changes when the backend does: moments instead of ages and times left."""
        age, left = row.pop("reportAge", None), row.pop("coolDownLeft", 0.0)
        row["reportedAt"] = None if not isinstance(age, float) else round(now - age + self._offset)
        row["coolDownUntil"] = round(now + left + self._offset) if isinstance(left, float) and left else None
        health = row.get("health")
        if isinstance(health, dict):
            row["health"] = {key: value for key, value in health.items() if key != "checkedAgo"}
        row["key"] = f"{row['service'] or ''} {row['url']}"
        return row

    def _remember(self, look: Look) -> None:
        sessions = self._state.proxy.sessions
        most = nlargest(KEPT_BACKENDS, look.items(), key=lambda item: _live(item[1]))
        self._samples.append(
            Sample(
                int(time.time()),
                len(sessions),
                sessions.opened_total,
                sessions.ended_total.total(),
                {key: _live(row) for key, row in most if _live(row)},
            )
        )

    def _history(self) -> View:
        samples = list(self._samples)
        keys = sorted({key for sample in samples for key in sample.live})
        return {
            "at": [sample.at for sample in samples],
            "open": [sample.open for sample in samples],
            "opened": [sample.opened for sample in samples],
            "ended": [sample.ended for sample in samples],
            "live": {key: [sample.live.get(key, 0) for sample in samples] for key in keys},
        }


def event_view(event: Event) -> View:
    """Return an event as plain values."""
    return {
        "number": event.number,
        "at": round(event.at, 3),
        "kind": event.kind.value,
        "severity": event.severity,
        "details": dict(event.details),
    }


def _live(row: View) -> int:
    live = row["live"]
    return live if isinstance(live, int) else 0


def _text(document: View) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))
