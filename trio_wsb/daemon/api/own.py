"""The balancer's own pages and redirections as the routers and middlewares that Traefik has for its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trio_wsb.config.internal import API, DASHBOARD, NOOP, PING, PROMETHEUS
from trio_wsb.config.model import Config
from trio_wsb.config.offered import ADMIN, redirection_name, redirection_port
from trio_wsb.daemon.entrypoints import redirections
from trio_wsb.daemon.views import View
from trio_wsb.proxy import redirection

INTERNAL: Final = "internal"
"""The provider of what the balancer has by itself."""

MAX_PRIORITY: Final = 2**63 - 1
"""Of the balancer's own pages, which are asked before any router. Traefik's figure."""


def own_routers(config: Config, direct: list[str]) -> Iterator[View]:
    """Yield a router for each page that answers without one, and for each redirection that runs.

    Args:
      config: what is in force.
      direct: the entry points that answer the API without a router.

    """
    pages = [
        (PING, "PathPrefix(`/ping`)", MAX_PRIORITY, _pinged(config)),
        (PROMETHEUS, "PathPrefix(`/metrics`)", MAX_PRIORITY, _scraped(config)),
    ]
    if direct and config.api is not None:
        base = config.api.base_path.rstrip("/")
        pages.append((API, f"PathPrefix(`{base}/api`)", MAX_PRIORITY - 1, direct))
        if config.api.dashboard:
            pages.append((DASHBOARD, f"PathPrefix(`{base}/`)", MAX_PRIORITY - 2, direct))
    for service, rule, priority, on in pages:
        if on:
            yield _router(service, service, rule, priority, on)
    for entry_point, target in redirections(config):
        name = redirection_name(entry_point, target)
        row = _router(name, NOOP, redirection.RULE, target.priority, [entry_point])
        row["middlewares"] = [f"redirect-{name}"]
        yield row


def own_middlewares(config: Config) -> Iterator[View]:
    """Yield the middleware of each redirection."""
    for entry_point, target in redirections(config):
        router = redirection_name(entry_point, target)
        port = redirection_port(config, target)
        yield {
            "redirectScheme": {"scheme": target.scheme, "port": str(port), "permanent": target.permanent},
            "status": "enabled",
            "usedBy": [router],
            "name": f"redirect-{router}",
            "provider": INTERNAL,
            "type": "redirectscheme",
        }


def _router(name: str, service: str, rule: str, priority: int, on: Sequence[str]) -> View:
    return {
        "entryPoints": list(on),
        "service": service,
        "rule": rule,
        "priority": priority,
        "status": "enabled",
        "using": list(on),
        "name": name,
        "provider": INTERNAL,
        "priorityStr": str(priority),
    }


def _pinged(config: Config) -> list[str]:
    if config.ping.manual_routing:
        return []
    wanted = config.ping.entry_point
    return [name for name in config.entry_points if wanted in {None, name}]


def _scraped(config: Config) -> list[str]:
    options = config.metrics.prometheus
    wanted = options.entry_point or ADMIN
    return [] if options.manual_routing or wanted not in config.entry_points else [wanted]
