"""The services that are there without being defined: those of the balancer itself, by Traefik's names."""

from __future__ import annotations

from collections.abc import Mapping

PING = "ping@internal"
"""Answers as /ping does, on whatever path and behind whatever middlewares a router puts it."""

UNAVAILABLE: Mapping[str, str] = {
    "api@internal": "`trio-wsb status` shows what the API would",
    "dashboard@internal": "`trio-wsb status --watch` shows what the dashboard would",
    "prometheus@internal": "balancerMetricPath shows the count table",
    "rest@internal": "write routers and services in files",
    "noop@internal": "name a service that answers",
}
"""Services of Traefik that this version does not have, and what to do instead."""
