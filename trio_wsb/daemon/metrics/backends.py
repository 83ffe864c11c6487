"""The families of backends: what they report, how they are, and what they did for each service.

A thousand of them take some milliseconds to look at, so that is done first, in pieces; the families are made of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Final

from attrs import frozen

from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountEntry
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.daemon.metrics import catalogue as c
from trio_wsb.daemon.metrics.collect import Scene
from trio_wsb.daemon.metrics.definition import Definition
from trio_wsb.daemon.metrics.figures import BackendFigures, Traffic
from trio_wsb.daemon.metrics.turns import Turns
from trio_wsb.daemon.views import DaemonState, member_state, report_stale_after
from trio_wsb.observe.exposition import Family, Rows
from trio_wsb.proxy.causes import Cause

BATCH: Final = 100
"""Backends looked at before other tasks run: less than a millisecond."""

STATES: Final = ("ready", "full", "cooling_down", "down", "draining", "drained", "off")
"""What `member_state` may say."""

_SEEN: Final = (Cause.BACKEND_LOST, Cause.BACKEND_CLOSED, Cause.DRAIN, Cause.REBALANCE)
"""Causes that are there with 0, so that the first session that ends so is seen as a rise."""


@frozen
class BackendRow:
    """A backend in a service. Without a place in a pool it is one that the configuration has no more."""

    labels: tuple[str, str]
    backend: Backend
    figures: BackendFigures
    traffic: Traffic
    place: Place | None = None


@frozen
class Place:
    """What a backend is in its pool at this moment."""

    state: str
    up: bool
    weight: int
    limit: int
    load: int
    foreign: int
    report: CountEntry | None
    stale_after: float | None


async def look_at_backends(state: DaemonState, scene: Scene, turns: Turns) -> list[BackendRow]:
    """Return every backend of every service, and those with sessions that are left; other tasks run meanwhile."""
    current, figures, traffic = state.reloader.current, scene.figures, scene.traffic.backends
    rows: list[BackendRow] = []
    configured: set[tuple[Backend, str]] = set()

    def row(backend: Backend, service: str, place: Place | None) -> BackendRow:
        did = figures.backend(backend, service)
        relayed = traffic.get((backend, service)) or did.traffic
        return BackendRow((service, str(backend.url)), backend, did, relayed, place)

    for name, service in state.proxy.runtime.services.items():
        stale_after = None if current is None else report_stale_after(current.config, name)
        members = service.pool.members
        for start in range(0, len(members), BATCH):
            for member in members[start : start + BATCH]:
                configured.add((member.backend, name))
                rows.append(row(member.backend, name, _place(service.pool, member, stale_after, scene.now)))
            await turns.rest()
    for backend, by_service in figures.backends():
        for name, did in by_service.items():
            if did.open and (backend, name) not in configured:
                rows.append(row(backend, name, None))
    return rows


def _place(pool: Pool, member: Member, stale_after: float | None, now: float) -> Place:
    backend = member.backend
    health = pool.health(backend)
    return Place(
        state=member_state(pool, member, now),
        up=health is None or not health.down,
        weight=member.weight,
        limit=member.max_connections,
        load=pool.load(backend),
        foreign=pool.foreign(backend),
        report=pool.report(backend),
        stale_after=stale_after,
    )


def service_backends(rows: Sequence[BackendRow]) -> Iterator[Family]:
    """Yield how many backends of each service are what."""
    words: dict[str, Counter[str]] = {}
    for row in rows:
        if row.place is not None:
            words.setdefault(row.labels[0], Counter())[row.place.state] += 1
    yield c.SERVICE_BACKENDS.family(
        ((name, word), count[word]) for name, count in words.items() for word in STATES
    )


def backends(rows: Sequence[BackendRow], state: DaemonState, now: float) -> Iterator[Family]:
    """Yield what there is to say of each backend."""

    def of_all(definition: Definition, value: Callable[[BackendRow], float]) -> Family:
        return definition.family((row.labels, value(row)) for row in rows)

    def of_placed(definition: Definition, value: Callable[[Place], float]) -> Family:
        return definition.family((row.labels, value(row.place)) for row in rows if row.place is not None)

    def of_reporting(definition: Definition, value: Callable[[CountEntry, Place], float | None]) -> Family:
        return definition.family(
            (row.labels, found)
            for row in rows
            if (place := row.place) is not None
            and place.report is not None
            and (found := value(place.report, place)) is not None
        )

    yield of_all(c.BACKEND_SESSIONS, lambda row: row.figures.open)
    yield of_all(c.BACKEND_HANDSHAKES, lambda row: row.backend.pending)
    yield of_all(c.BACKEND_OPENED, lambda row: row.figures.opened)
    yield c.BACKEND_ENDED.family(_ended(rows))
    yield c.BACKEND_MESSAGES.family(
        item
        for row in rows
        for item in (
            ((*row.labels, "in"), row.traffic.messages_in),
            ((*row.labels, "out"), row.traffic.messages_out),
        )
    )
    yield c.BACKEND_BYTES.family(
        item
        for row in rows
        for item in (
            ((*row.labels, "in"), row.traffic.bytes_in),
            ((*row.labels, "out"), row.traffic.bytes_out),
        )
    )
    yield of_all(c.BACKEND_FAILURES, lambda row: row.backend.failures_total)
    yield of_all(c.BACKEND_DROPS, lambda row: row.backend.drops_total)
    yield of_placed(c.BACKEND_UP, lambda place: place.up)
    yield of_placed(c.BACKEND_READY, lambda place: place.state == "ready")
    yield of_placed(c.BACKEND_DRAINING, lambda place: place.state in {"draining", "drained"})
    yield of_placed(c.BACKEND_COOLING, lambda place: place.state == "cooling_down")
    yield of_placed(c.BACKEND_WEIGHT, lambda place: place.weight)
    yield of_placed(c.BACKEND_LIMIT, lambda place: place.limit)
    yield of_placed(c.BACKEND_LOAD, lambda place: place.load)
    yield of_reporting(c.BACKEND_REPORTED, lambda report, _: report.reported)
    yield of_placed(c.BACKEND_FOREIGN, lambda place: place.foreign)
    yield of_reporting(c.BACKEND_REPORT_AGE, lambda report, _: _finite(report.age(now)))
    yield of_reporting(c.BACKEND_REPORT_STALE, lambda report, place: _stale(report, place, now))
    yield of_reporting(c.BACKEND_REPORTS, lambda report, _: report.reports_total)
    yield c.BACKEND_INFO.family(
        ((*row.labels, *(name or "" for name in names)), 1)
        for row in rows
        if any(names := (row.backend.pod_name, row.backend.pod_ip, row.backend.node_name))
    )
    yield c.DRAIN_LEFT.family(
        ((drain.key.service or "", str(drain.key.url)), drain.left) for drain in state.mover.drains
    )


def _ended(rows: Sequence[BackendRow]) -> Rows:
    for row in rows:
        ended = row.figures.ended
        for cause in dict.fromkeys([*_SEEN, *ended]):
            yield (*row.labels, cause.value), ended[cause]


def _stale(report: CountEntry, place: Place, now: float) -> bool:
    return place.stale_after is not None and report.stale(now, place.stale_after)


def _finite(seconds: float) -> float | None:
    return seconds if isfinite(seconds) else None
