"""From the servers of a load balancer to the places of its backends: what is configured, or what its names stand for now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.discovery import DiscoveryPolicy, Name, NameTable
from trio_wsb.config.dns import DNS
from trio_wsb.config.services import LoadBalancer, Server
from trio_wsb.providers.names import ResolverSettings


@frozen
class Place:
    """Where a backend of a load balancer is, and on which terms.

    `name` is what the server is called whose name leads there: it is the Host and the name in the certificate, whatever the
    address; None where the URL says both. `rank` is 0 for a backend, more for one that stands by.
    """

    url: BackendURL
    weight: int
    max_connections: int
    max_pending: int
    name: BackendURL | None = None
    rank: int = 0


def places_of(balancer: LoadBalancer, names: NameTable) -> tuple[Place, ...]:
    """Return the places of the backends of `balancer`, each once; of two servers that lead to one the first counts."""
    found: dict[BackendURL, Place] = {}
    for server in balancer.servers:
        for place in _places(server, names):
            found.setdefault(place.url, place)
    return tuple(found.values())


def names_in(balancers: Iterable[LoadBalancer]) -> dict[Name, list[Server]]:
    """Return the names to resolve, each with the servers that are called so."""
    found: dict[Name, list[Server]] = {}
    for balancer in balancers:
        for server in balancer.servers:
            if (name := name_of(server)) is not None:
                found.setdefault(name, []).append(server)
    return found


def name_of(server: Server) -> Name | None:
    """Return the name of `server` to resolve; None where the host is left to the system."""
    return None if server.resolve is None else Name(server.url.host.lower(), server.resolve)


def missing(balancer: LoadBalancer, names: NameTable) -> str:
    """Return why `balancer` has no backends at all."""
    wanted = names_in([balancer])
    return ", ".join(names.missing(name) for name in wanted) or "no servers"


def resolver_settings(dns: DNS) -> ResolverSettings:
    """Return how names are to be resolved."""
    policy = DiscoveryPolicy(dns.families, dns.min_ttl, dns.max_ttl, dns.remove_after)
    return ResolverSettings(dns.nameservers, dns.timeout, policy)


def _places(server: Server, names: NameTable) -> Iterator[Place]:
    url, terms = server.url, (server.max_connections, server.max_pending)
    name = name_of(server)
    if name is None:
        yield Place(url, server.weight, *terms)
        return
    host = _host_to_name(url.host) if server.resolve == "srv" else url.host
    for each in names.endpoints(name):
        port = url.port if each.port is None else each.port
        yield Place(
            BackendURL(url.scheme, each.address, port),
            server.weight * each.weight,
            *terms,
            name=BackendURL(url.scheme, host, port),
            rank=each.priority,
        )


def _host_to_name(host: str) -> str:
    """Return the name of the service ``_ws._tcp.chat.internal``: ``chat.internal``.

    It is not that of the target, which nothing but DNS vouches for (RFC 6125 section 6.2.1).
    """
    labels = host.split(".")
    while len(labels) > 1 and labels[0].startswith("_"):
        del labels[0]
    return ".".join(labels).rstrip(".")
