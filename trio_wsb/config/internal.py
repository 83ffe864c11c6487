"""The services that are there without being defined: those of the balancer itself, by Traefik's names."""

from __future__ import annotations

from collections.abc import Mapping

PING = "ping@internal"
"""Answers as /ping does, on whatever path and behind whatever middlewares a router puts it."""

API = "api@internal"
"""The API and, unless it is switched off, the dashboard."""

DASHBOARD = "dashboard@internal"
"""The dashboard alone, which needs the API beside it."""

PROMETHEUS = "prometheus@internal"
"""The metrics, as Prometheus scrapes them."""

NOOP = "noop@internal"
"""What the redirections of entry points lead to; no router of a configuration can."""

AVAILABLE = frozenset({PING, API, DASHBOARD, PROMETHEUS})
"""Every service of the balancer itself that routers can lead to."""

UNAVAILABLE: Mapping[str, str] = {
    "rest@internal": "write routers and services in files",
    NOOP: "name a service that answers",
}
"""Services of Traefik that this version does not have, and what to do instead."""
