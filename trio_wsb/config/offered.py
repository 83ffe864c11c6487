"""Which routers an entry point offers its requests to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from trio_wsb.config.entrypoints import RedirectionTarget
from trio_wsb.config.model import Config, Router

ADMIN: Final = "admin"
"""The entry point that no router is offered on unless it says so."""


def places(router: Router, entry_points: Iterable[str]) -> tuple[str, ...]:
    """Return the names, of those in `entry_points`, of the entry points that `router` listens to."""
    if router.entry_points:
        return tuple(name for name in entry_points if name in router.entry_points)
    return tuple(name for name in entry_points if name != ADMIN)


def routers_on(config: Config, entry_point: str) -> Iterator[tuple[str, Router]]:
    """Yield the routers of an entry point with their names."""
    for name, router in config.http.routers.items():
        if places(router, (entry_point,)):
            yield name, router


def redirection_port(config: Config, target: RedirectionTarget) -> int:
    """Return the port that a redirection leads to."""
    return target.port or config.entry_points[target.to].address.port


def redirection_name(entry_point: str, target: RedirectionTarget) -> str:
    """Return the name of the router that redirects what comes to an entry point; Traefik's."""
    return f"{entry_point}-to-{target.to.removeprefix(':')}@internal"
