"""Traefik's metrics under Traefik's names, labels and values, for the dashboards that ask for them.

What differs does so because Traefik's figures say nothing of WebSockets: it counts one when it ends, with status 0, its
lifetime as duration and no bytes. Here it counts when it opens, as a success: code 200, with the time of its handshake and the
bytes that it relays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trio_wsb.daemon.metrics import catalogue as c
from trio_wsb.daemon.metrics.backends import BackendRow
from trio_wsb.daemon.metrics.collect import Scene
from trio_wsb.daemon.metrics.figures import Answered, Level, Traffic
from trio_wsb.observe.exposition import Family
from trio_wsb.observe.histogram import Histogram
from trio_wsb.proxy.record import INTERNAL

SUCCESS: Final = "200"
"""What a 101 is counted as: panels that take whatever is not 2xx for an error would call every WebSocket one."""

_FILE: Final = "@file"
"""How Traefik's names of what a file defines end."""


def traefik(
    scene: Scene, rows: Sequence[BackendRow], *, entry_points: bool, routers: bool, services: bool
) -> Iterator[Family]:
    """Yield the families; the three flags are those of the configuration, as in Traefik."""
    state, figures, traffic = scene.state, scene.figures, scene.traffic
    reloader, proxy = state.reloader, state.proxy
    # Traefik counts the first configuration too, and gives the time of the last success.
    yield c.T_RELOADS.of(reloader.succeeded + reloader.failed + 1)
    yield c.T_LAST_SUCCESS.of(reloader.loaded_at)
    yield c.T_OPEN.family(((name, "TCP"), proxy.connections[name]) for name in proxy.runtime.entry_points)
    if services:
        yield c.T_SERVICE_OPEN.family(
            (("GET", "websocket", _named(name)), figures.service(name).open)
            for name in dict.fromkeys([*proxy.runtime.services, *figures.services])
            if not name.endswith(INTERNAL)
        )
        yield c.T_SERVER_UP.family(
            ((_named(row.labels[0]), row.backend.url.written or row.labels[1]), row.place.state in _UP)
            for row in rows
            if row.place is not None
        )
        yield c.T_RETRIES.family(
            [((_named(name),), level.retries) for name, level in figures.services.items()]
        )
    if entry_points:
        yield from _level(
            "entrypoint",
            [
                ((name,), level, traffic.entry_points.get(name))
                for name, level in figures.entry_points.items()
            ],
        )
    if routers:
        yield from _level(
            "router",
            [
                (
                    (_named(name), _named(figures.router_services.get(name, ""))),
                    level,
                    traffic.routers.get(name),
                )
                for name, level in figures.routers.items()
            ],
        )
    if services:
        yield from _level(
            "service",
            [
                ((_named(name),), level, traffic.services.get(name))
                for name, level in figures.services.items()
            ],
        )


_UP: Final = frozenset({"ready", "full", "draining", "drained", "off"})
"""States of a backend that works, whether it gets new sessions or not."""

_Levels = Sequence[tuple[tuple[str, ...], Level, Traffic | None]]


def _level(kind: str, levels: _Levels) -> Iterator[Family]:
    rows = [(key, traffic or level.traffic, _cells(level)) for key, level, traffic in levels]
    yield c.T_REQUESTS[kind].family(
        ((*answered, *key), histogram.count)
        for key, _, cells in rows
        for answered, (histogram, _, _) in cells.items()
    )
    yield c.T_DURATION[kind].histograms(
        ((*answered, *key), histogram)
        for key, _, cells in rows
        for answered, (histogram, _, _) in cells.items()
    )
    yield c.T_BYTES_IN[kind].family(
        ((*answered, *key), size + (traffic.bytes_in if answered == _SESSION else 0))
        for key, traffic, cells in rows
        for answered, (_, size, _) in cells.items()
    )
    yield c.T_BYTES_OUT[kind].family(
        ((*answered, *key), size + (traffic.bytes_out if answered == _SESSION else 0))
        for key, traffic, cells in rows
        for answered, (_, _, size) in cells.items()
    )


_SESSION: Final = (SUCCESS, "GET", "websocket")
"""What sessions are counted under."""


def _cells(level: Level) -> dict[Answered, tuple[Histogram, int, int]]:
    """Return what was answered as Traefik would have it: histogram of times, bytes in, bytes out."""
    found: dict[Answered, tuple[Histogram, int, int]] = {}
    for (code, method, protocol), cell in level.requests.items():
        key = (SUCCESS if code == "101" else code, method, protocol)
        histogram, bytes_in, bytes_out = cell.seconds, cell.bytes_in, cell.bytes_out
        if key in found:
            other = found[key]
            histogram = Histogram.sum_of([other[0], histogram])
            bytes_in, bytes_out = bytes_in + other[1], bytes_out + other[2]
        found[key] = (histogram, bytes_in, bytes_out)
    return found


def _named(name: str) -> str:
    return name if "@" in name else name + _FILE
