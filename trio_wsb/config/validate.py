"""What must hold between the parts of a configuration that each are well formed.

Bounds of a single value stand beside it in `trio_wsb.config.model`. Key paths in findings are those of the long form;
`trio_wsb.config.document` leads them back to what the user wrote.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping

from attrs import frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.config.accesslog import access_log_findings
from trio_wsb.config.dns import dns_findings
from trio_wsb.config.entrychecks import entry_point_findings
from trio_wsb.config.internal import API, AVAILABLE, DASHBOARD, UNAVAILABLE
from trio_wsb.config.model import Config, EntryPoint, ServersTransport
from trio_wsb.config.problems import Finding, KeyPath, nearest, printable
from trio_wsb.config.providers import provider_findings
from trio_wsb.config.resolving import resolve_findings
from trio_wsb.config.scalars import show
from trio_wsb.config.services import LoadBalancer
from trio_wsb.config.servicetree import service_findings, service_references
from trio_wsb.config.session import session_findings
from trio_wsb.config.tlschecks import tls_findings
from trio_wsb.config.wiring import middleware_findings

_FEW = 20
"""Names that a message may list, and that the nearest is looked for among."""


@frozen
class Names:
    """What references can lead to."""

    entry_points: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    servers_transports: frozenset[str] = frozenset()
    middlewares: frozenset[str] = frozenset()
    tls_options: frozenset[str] = frozenset()

    def __or__(self, other: Names) -> Names:
        return Names(
            self.entry_points | other.entry_points,
            self.services | other.services,
            self.servers_transports | other.servers_transports,
            self.middlewares | other.middlewares,
            self.tls_options | other.tls_options,
        )


def names_of(config: Config) -> Names:
    """Return what `config` defines."""
    http = config.http
    return Names(
        frozenset(config.entry_points),
        frozenset(http.services),
        frozenset(http.servers_transports),
        frozenset(http.middlewares),
        frozenset(config.tls.options),
    )


def validate(config: Config, names: Names) -> Iterator[Finding]:
    """Yield what is wrong with `config` as a whole.

    A reference that leads to none of `names` is a warning with the code "reference": another file may define it.
    """
    yield from _entry_points(config.entry_points)
    yield from entry_point_findings(config, names.entry_points)
    for name, service in config.http.services.items():
        if service.load_balancer is not None:
            # What is discovered comes and goes: an empty service answers 503 until somebody is there.
            may_be_empty = "@" in name
            path: KeyPath = ("http", "services", name, "loadBalancer")
            yield from _load_balancer(service.load_balancer, path, may_be_empty=may_be_empty)
            if service.load_balancer.relay == "kernel" and not config.kernel_relay.enabled:
                message = "has no effect, since kernelRelay.enabled is false"
                yield Finding(
                    (*path, "relay"), message, "enable it, or write stream or nothing here", "warning"
                )
    yield from _transports(config)
    yield from service_findings(config)
    yield from _references(config, names)
    yield from middleware_findings(config, names.middlewares)
    yield from provider_findings(config.providers)
    yield from dns_findings(config.dns)
    yield from access_log_findings(config.access_log)
    yield from tls_findings(config, names.tls_options)


def _transports(config: Config) -> Iterator[Finding]:
    transports: dict[KeyPath, ServersTransport] = {("serversTransport",): config.servers_transport}
    for name, each in config.http.servers_transports.items():
        transports["http", "serversTransports", name] = each
    for path, transport in transports.items():
        # The names of versions sort as the versions do.
        if transport.max_version is not None and transport.max_version < transport.min_version:
            message = f"is lower than minVersion, which is {transport.min_version}"
            yield Finding((*path, "maxVersion"), message, "write VersionTLS13, or leave it out")


def _entry_points(entry_points: Mapping[str, EntryPoint]) -> Iterator[Finding]:
    taken: dict[tuple[int, str], str] = {}
    for name, entry_point in entry_points.items():
        address = entry_point.address
        if not address.port:  # any free port never clashes
            continue
        is_one_of, clashes_with = _claims(address.host)
        other = next(
            (taken[address.port, each] for each in clashes_with if (address.port, each) in taken), None
        )
        if other is not None:
            message = f'{address} is taken by the entry point "{other}"'
            path: KeyPath = ("entryPoints", name, "address")
            yield Finding(path, message, "give each entry point an address of its own")
        for each in is_one_of:
            taken.setdefault((address.port, each), name)


def _claims(host: str) -> tuple[list[str], list[str]]:
    """Return the sets of addresses that `host` belongs to, and those whose members keep others from listening on it.

    "" is every address, "0.0.0.0" every IPv4 address and "::" every IPv6 address; "some", "some 4" and "some 6" are
    the sets that whatever is one of these cannot listen beside.
    """
    if not host:
        return ["", "some", "some 4", "some 6"], ["some"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host.lower(), "some"], [host.lower(), ""]
    family, own = f"some {address.version}", str(address)
    if address.is_unspecified:
        return [own, "some", family], [family, ""]
    every = str(type(address)(0))
    return [own, "some", family], [own, every, ""]


def _load_balancer(
    load_balancer: LoadBalancer, path: KeyPath, *, may_be_empty: bool = False
) -> Iterator[Finding]:
    servers = load_balancer.servers
    if may_be_empty and not any(server.weight for server in servers):
        pass
    elif not servers:
        yield Finding((*path, "servers"), "is empty", "write at least one server", code="empty")
    elif not any(server.weight for server in servers):
        message = "has no server with a weight, so none could be chosen"
        yield Finding((*path, "servers"), message, "give one a weight of 1 or more", code="empty")
    first: dict[BackendURL, int] = {}
    for index, server in enumerate(servers):
        if first.setdefault(server.url, index) != index:
            yield Finding(
                (*path, "servers", index, "url"),
                f"{server.url} is the same server as",
                "list each server once",
                other=(*path, "servers", first[server.url]),
            )
    yield from resolve_findings(servers, (*path, "servers"))
    counts = load_balancer.connection_count
    if counts is not None and counts.stale_after is not None and counts.stale_after < counts.interval:
        message = "is shorter than interval, so that every report would be stale before the next one"
        hint = "write at least the interval, better three times as much"
        yield Finding((*path, "connectionCount", "staleAfter"), message, hint)
    yield from session_findings(load_balancer.session, (*path, "session"))


def _references(config: Config, names: Names) -> Iterator[Finding]:
    http = config.http
    for name, router in http.routers.items():
        path: KeyPath = ("http", "routers", name)
        yield from _service(config, router.service, names.services, (*path, "service"))
        for index, entry_point in enumerate(router.entry_points):
            yield from _reference(
                entry_point, "entry point", names.entry_points, (*path, "entryPoints", index)
            )
    for name, service in http.services.items():
        path = ("http", "services", name)
        for part, where in service_references(service, path):
            yield from _reference(part, "service", names.services, where, user=name)
        balancer = service.load_balancer
        if balancer is not None and balancer.servers_transport is not None:
            here = (*path, "loadBalancer", "serversTransport")
            known = names.servers_transports
            yield from _reference(balancer.servers_transport, "serversTransport", known, here)
    for named, path in (
        (config.ping.entry_point, ("ping", "entryPoint")),
        (config.metrics.prometheus.entry_point, ("metrics", "prometheus", "entryPoint")),
    ):
        if named is not None:
            yield from _reference(named, "entry point", names.entry_points, path)


def _service(config: Config, name: str, known: Collection[str], path: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with the service that a router names, which may be one of the balancer's own."""
    if name in UNAVAILABLE:
        message = f"{show(name)} is not available in this version"
        yield Finding(path, message, UNAVAILABLE[name], "warning", "reference")
    elif (switch := _switched_off(config, name)) is not None:
        message, hint = f"{show(name)} is switched off", f"write {switch}: true"
        yield Finding(path, message, hint, "warning", "reference")
    elif name not in AVAILABLE:
        yield from _reference(name, "service", known, path)


def _switched_off(config: Config, name: str) -> str | None:
    """Return the key that would have to be true for the service `name` to be there, None when it is."""
    if name in {API, DASHBOARD} and config.api is None:
        return "api"
    if name == DASHBOARD and config.api is not None and not config.api.dashboard:
        return "api.dashboard"
    return None


def _reference(
    name: str, what: str, known: Collection[str], path: KeyPath, user: str | None = None
) -> Iterator[Finding]:
    """Yield that `name` is none of `known`; `user`, one of these, is who refers to it and cannot have meant itself."""
    if name in known:
        return
    known = {*known} - {user}
    hint, near = "define it", None
    if len(known) <= _FEW:
        near = nearest(name, known)
        hint = f"define it, or name one of: {', '.join(sorted(known))}" if known else hint
    if near is not None:
        hint = f'did you mean "{near}"?'
    if name.endswith("@docker"):
        hint = "the labels of a container define it, once there is one that providers.docker finds"
    elif "@" in name:
        hint = f"write a name that a file defines, without @{printable(name.partition('@')[2])}"
    yield Finding(path, f"no {what} {show(name)} is defined", hint, "warning", "reference")
