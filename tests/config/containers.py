"""Containers for tests of the pure part of the Docker provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trio_wsb.config.containers import Binding, Container, Found
from trio_wsb.config.discovery import Discovered, discover
from trio_wsb.config.docker import DockerProvider


def container(name: str = "c", labels: Mapping[str, str] | None = None, **changes: Any) -> Container:
    """Return a container at 10.0.0.1 in the network `net`, whose image exposes 8080."""
    made: dict[str, Any] = {
        "id": changes.pop("id", name * 3),
        "name": name,
        "networks": (("net", changes.pop("ip", "10.0.0.1")),),
        "ports": (Binding(8080),),
        "labels": tuple(sorted((labels or {}).items())),
    }
    return Container(**made | changes)


def found(*containers: Container, **options: Any) -> Discovered:
    """Return what `containers`, the first one the oldest, give with these options."""
    return discover(Found(containers), DockerProvider(**options))


def lines(discovered: Discovered) -> list[str]:
    """Return every problem of containers as it is shown."""
    errors = [problem for each in discovered.states for problem in each.problems]
    told = sorted([*errors, *discovered.problems], key=lambda problem: problem.position)
    return [f"{each}{' [warning]' * (each.severity == 'warning')}" for each in told]


def urls(discovered: Discovered, service: str) -> list[str]:
    balancer = discovered.config.http.services[service].load_balancer
    assert balancer is not None
    return [str(server.url) for server in balancer.servers]
