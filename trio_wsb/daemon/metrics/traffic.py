"""Traffic: what the sessions have relayed, those that are over and those that are open, added up when asked for.

Each session counts exactly once: what was counted of those that are over and the list of those that are open are taken at
one moment, and a session that ends while its neighbours are added up is still in the list. So no figure ever goes back.
"""

from __future__ import annotations

from typing import Final, TypeVar

from attrs import define, evolve, field

from trio_wsb.balancing.backend import Backend
from trio_wsb.daemon.metrics.figures import Figures, Traffic
from trio_wsb.daemon.metrics.turns import Turns
from trio_wsb.proxy.session import SessionTable

Key = TypeVar("Key")

BATCH: Final = 250
"""Sessions added up before other tasks run: a fraction of a millisecond."""


@define
class LiveTraffic:
    """What was relayed by one moment or a little later, by what it came through."""

    total: Traffic
    entry_points: dict[str, Traffic] = field(factory=dict)
    routers: dict[str, Traffic] = field(factory=dict)
    services: dict[str, Traffic] = field(factory=dict)
    backends: dict[tuple[Backend, str], Traffic] = field(factory=dict)
    """By backend and service."""


async def live_traffic(figures: Figures, sessions: SessionTable, turns: Turns) -> LiveTraffic:
    """Add up; other tasks run meanwhile."""
    live = tuple(sessions)
    found = LiveTraffic(
        evolve(figures.traffic),
        {name: evolve(level.traffic) for name, level in figures.entry_points.items()},
        {name: evolve(level.traffic) for name, level in figures.routers.items()},
        {name: evolve(level.traffic) for name, level in figures.services.items()},
        {
            (backend, service): evolve(each.traffic)
            for backend, by_service in figures.backends()
            for service, each in by_service.items()
        },
    )
    ways: dict[tuple[str, str, str, Backend], Traffic] = {}
    for start in range(0, len(live), BATCH):
        for session in live[start : start + BATCH]:
            way = (session.entry_point, session.router, session.service, session.backend)
            traffic = ways.get(way)
            if traffic is None:
                traffic = ways[way] = Traffic()
            traffic.add(session)
        await turns.rest()
    for (entry_point, router, service, backend), traffic in ways.items():
        found.total += traffic
        _add(found.entry_points, entry_point, traffic)
        _add(found.routers, router, traffic)
        _add(found.services, service, traffic)
        _add(found.backends, (backend, service), traffic)
    return found


def _add(table: dict[Key, Traffic], key: Key, traffic: Traffic) -> None:
    known = table.get(key)
    table[key] = traffic if known is None else known + traffic
