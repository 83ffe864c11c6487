"""What must hold between services: each is of one kind, names others that are there, and never leads back to itself."""

from __future__ import annotations

from collections.abc import Iterator

from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding, KeyPath, Severity
from trio_wsb.config.services import LoadBalancer, Service, Sticky

KINDS = ("loadBalancer", "weighted", "failover", "mirroring")


def service_references(service: Service, path: KeyPath) -> Iterator[tuple[str, KeyPath]]:
    """Yield the names of other services in `service`, each with its key path."""
    if service.weighted is not None:
        for index, part in enumerate(service.weighted.services):
            yield part.name, (*path, "weighted", "services", index, "name")
    if service.failover is not None:
        yield service.failover.service, (*path, "failover", "service")
        yield service.failover.fallback, (*path, "failover", "fallback")
    if service.mirroring is not None:
        yield service.mirroring.service, (*path, "mirroring", "service")
        for index, mirror in enumerate(service.mirroring.mirrors):
            yield mirror.name, (*path, "mirroring", "mirrors", index, "name")


def service_findings(config: Config) -> Iterator[Finding]:
    """Yield what is wrong with the services as a tree."""
    for name, service in config.http.services.items():
        path: KeyPath = ("http", "services", name)
        yield from _one_kind(service, path)
        yield from _weighted(service, path)
        yield from _without_effect(service, path)
    yield from _cycles(config)


def _without_effect(service: Service, path: KeyPath) -> Iterator[Finding]:
    balancer, weighted = service.load_balancer, service.weighted
    if balancer is not None:
        if balancer.slow_start and balancer.strategy == "iphash":
            here: KeyPath = (*path, "loadBalancer", "slowStart")
            message = "has no effect with the strategy iphash"
            yield Finding(here, message, "use hrw, which moves few clients at a time", "warning")
        yield from _cookie(balancer.sticky, (*path, "loadBalancer", "sticky"))
        if balancer.rebalance.enabled and (reason := comes_back(balancer)):
            here = (*path, "loadBalancer", "rebalance", "enabled")
            yield Finding(here, "has no effect", reason, "warning")
    if weighted is not None:
        yield from _cookie(weighted.sticky, (*path, "weighted", "sticky"))


def comes_back(balancer: LoadBalancer) -> str:
    """Return why a client that is sent away comes back to the same server, or "" if it does not."""
    if balancer.sticky is not None:
        return "a client comes back to the same server by its cookie"
    if balancer.strategy in {"hrw", "iphash"}:
        return f"with {balancer.strategy} a client comes back to the same server by its address"
    return ""


def _cookie(sticky: Sticky | None, path: KeyPath) -> Iterator[Finding]:
    if sticky is not None and sticky.cookie.same_site == "none" and not sticky.cookie.secure:
        message = "makes browsers refuse a cookie that is not secure"
        yield Finding((*path, "cookie", "sameSite"), message, "write secure: true beside it", "warning")


def _one_kind(service: Service, path: KeyPath) -> Iterator[Finding]:
    given = (service.load_balancer, service.weighted, service.failover, service.mirroring)
    kinds = [kind for kind, value in zip(KINDS, given, strict=True) if value is not None]
    if not kinds:
        hint = "write loadBalancer with its servers, or weighted, failover or mirroring"
        yield Finding(path, "says not how requests are answered", hint, code="empty")
    for kind in kinds[1:]:
        hint = "a service is of one kind: give the other a name of its own"
        yield Finding((*path, kind), "is given together with", hint, at="key", other=(*path, kinds[0]))


def _weighted(service: Service, path: KeyPath) -> Iterator[Finding]:
    if service.weighted is None:
        return
    here: KeyPath = (*path, "weighted", "services")
    parts = service.weighted.services
    if not parts:
        yield Finding(here, "is empty", "write at least one service", code="empty")
    elif not any(part.weight for part in parts):
        message = "has no service with a weight, so none could be chosen"
        yield Finding(here, message, "give one a weight of 1 or more", code="empty")
    first: dict[str, int] = {}
    for index, part in enumerate(parts):
        if first.setdefault(part.name, index) != index:
            message = f'"{part.name}" is the same service as'
            other = (*here, first[part.name])
            yield Finding((*here, index, "name"), message, "list each service once", other=other)


def _cycles(config: Config) -> Iterator[Finding]:
    """Yield each reference that closes a cycle; without them there would be none."""
    services = config.http.services
    done: set[str] = set()
    for root in services:
        # Depth first, without recursion: a file may have ten thousand services in a row.
        way: list[str] = []
        stack: list[tuple[str, Iterator[tuple[str, KeyPath]]]] = []

        def enter(
            name: str,
            way: list[str] = way,
            stack: list[tuple[str, Iterator[tuple[str, KeyPath]]]] = stack,
        ) -> None:
            way.append(name)
            stack.append((name, service_references(services[name], ("http", "services", name))))

        if root not in done:
            enter(root)
        while stack:
            name, references = stack[-1]
            for target, path in references:
                if target in way:
                    cycle = " -> ".join([*way[way.index(target) :], target])
                    # By its own name it may mean another provider's service, so it is no more wrong than a missing one.
                    severity: Severity = "warning" if target == name else "error"
                    message = f"leads back to itself: {cycle}"
                    yield Finding(path, message, "name a service that does not", severity, "cycle")
                elif target in services and target not in done:
                    enter(target)
                    break
            else:
                done.add(name)
                way.pop()
                stack.pop()
