"""Services as a tree: what a router leads to, and how a request finds its way down to one load balancer.

    weighted      one of several services, in turn by weight, or the one that the client's cookie names
    failover      a service, or another one while nothing in the first is well
    mirroring     a service, and copies of some requests to others
    ServiceRuntime   a load balancer: the leaf, which everything behind this module deals with

Health decides in `weighted` and `failover` at the moment of the request; a service that is only full is well.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from math import inf
from random import Random
from typing import TypeAlias

from attrs import define, field, frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.moving import Moving
from trio_wsb.balancing.pool import Pool
from trio_wsb.balancing.sticky import sticky_value
from trio_wsb.balancing.strategies import WeightedRoundRobin
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.http.headers import Field, Headers
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.relaying import RelayMode


@frozen
class TransportRuntime:
    """How connections to the backends of a service are made. Times in seconds, 0 is no limit."""

    dial_timeout: float
    response_header_timeout: float
    tls: ssl.SSLContext | None
    server_name: str | None
    names: Mapping[BackendURL, BackendURL] = field(factory=dict)
    """What backends are called whose URLs have an address in place of the name that led there."""

    def called(self, url: BackendURL) -> BackendURL:
        """Return the URL by whose host the backend at `url` is spoken to, in Host and certificate."""
        return self.names.get(url, url)


@frozen
class ServiceRuntime:
    """A load balancer: whom to choose from and how to talk to the chosen one."""

    name: str
    pool: Pool
    transport: TransportRuntime
    pass_host_header: bool
    write_timeout: float
    sticky: StickyCookie | None = None
    pending_timeout: float = 1.0
    """Seconds that a handshake waits for a place at a backend."""
    moving: Moving = Moving()  # noqa: RUF009 - frozen
    """How its sessions may be moved to other backends."""
    relay: RelayMode = "auto"
    """Who moves the bytes of its sessions."""
    limits: SessionLimits = NO_LIMITS
    """What its sessions may do. A session keeps those with which it began."""


class WeightedRuntime:
    """Several services in turn, in proportion to their weights.

    Args:
      name: its own name.
      parts: the services, each once and with its weight.
      sticky: the cookie that keeps a client at its service.
      rng: for the choice.
      previous: the same service before a reload, whose round goes on.

    """

    def __init__(
        self,
        name: str,
        parts: Sequence[tuple[ServiceNode, int]],
        *,
        sticky: StickyCookie | None,
        rng: Random,
        previous: WeightedRuntime | None = None,
    ) -> None:
        self.name = name
        self.parts = tuple(parts)
        self.sticky = sticky
        self._by_cookie = {sticky_value(part.name): part for part, weight in parts if weight}
        names = [part.name for part, _ in parts]
        self.chooser = WeightedRoundRobin(names, [weight for _, weight in parts], rng)
        if previous is not None:
            self.chooser.adopt(previous.chooser)

    def choose(self, now: float) -> ServiceNode:
        """Return the service whose turn it is; those that are not well are passed over while another one is."""
        loads = [0.0 if well(part, now) else inf for part, _ in self.parts]
        index = self.chooser.choose(loads, None)
        if index is None:
            index = self.chooser.choose([0.0] * len(loads), None)
        return self.parts[index or 0][0]

    def stuck(self, value: str, now: float) -> ServiceNode | None:
        """Return the service that a cookie of that value stands for, if it is well."""
        part = self._by_cookie.get(value)
        return part if part is not None and well(part, now) else None


@frozen
class FailoverRuntime:
    """A service, and another one for when nothing in the first is well."""

    name: str
    service: ServiceNode
    fallback: ServiceNode


@frozen
class MirrorRuntime:
    """A service that gets copies: of which part of the requests, from 0 to 1."""

    service: ServiceNode
    share: float


@frozen
class MirroringRuntime:
    """A service, and others that get copies of some of its requests.

    `max_body` is the number of bytes, as they are framed, up to which a request's body is copied, and a request
    with a longer one is not; None copies requests without their bodies.
    """

    name: str
    service: ServiceNode
    mirrors: tuple[MirrorRuntime, ...]
    max_body: int | None
    rng: Random


ServiceNode: TypeAlias = ServiceRuntime | WeightedRuntime | FailoverRuntime | MirroringRuntime


@frozen
class MirrorTarget:
    """Where a copy of one request goes."""

    service: ServiceRuntime
    max_body: int | None


@define
class Way:
    """A request's way down the tree: the load balancer, cookies to set on the way, and where copies go."""

    service: ServiceRuntime
    cookies: list[Field]
    mirrors: list[MirrorTarget]


def find_way(node: ServiceNode, headers: Headers, now: float) -> Way:
    """Return the way of a request with these fields, which the client's cookies and what is well now decide."""
    cookies: list[Field] = []
    mirrors: list[MirrorTarget] = []
    while not isinstance(node, ServiceRuntime):
        match node:
            case WeightedRuntime():
                node = _weighted(node, headers, now, cookies)
            case FailoverRuntime():
                node = (
                    node.service if well(node.service, now) or not well(node.fallback, now) else node.fallback
                )
            case MirroringRuntime():
                mirrors += _mirrors(node, headers, now)
                node = node.service
    return Way(node, cookies, mirrors)


def well(node: ServiceNode, now: float) -> bool:
    """Whether a request that `node` gets would find a backend that is well."""
    match node:
        case ServiceRuntime():
            return node.pool.available(now)
        case WeightedRuntime():
            return any(weight and well(part, now) for part, weight in node.parts)
        case FailoverRuntime():
            return well(node.service, now) or well(node.fallback, now)
        case MirroringRuntime():
            return well(node.service, now)


def kind_of(node: ServiceNode) -> str:
    """Return the word for what `node` is, as the configuration has it."""
    match node:
        case ServiceRuntime():
            return "loadBalancer"
        case WeightedRuntime():
            return "weighted"
        case FailoverRuntime():
            return "failover"
        case MirroringRuntime():
            return "mirroring"


def parts_of(node: ServiceNode) -> list[str]:
    """Return the names of the services right below `node`."""
    match node:
        case ServiceRuntime():
            return []
        case WeightedRuntime():
            return [part.name for part, _ in node.parts]
        case FailoverRuntime():
            return [node.service.name, node.fallback.name]
        case MirroringRuntime():
            return [node.service.name, *(mirror.service.name for mirror in node.mirrors)]


def _weighted(node: WeightedRuntime, headers: Headers, now: float, cookies: list[Field]) -> ServiceNode:
    if node.sticky is None:
        return node.choose(now)
    value = node.sticky.find(headers)
    found = node.stuck(value, now) if value is not None else None
    if found is None:
        found = node.choose(now)
        cookies.append(node.sticky.field(sticky_value(found.name)))
    return found


def _mirrors(node: MirroringRuntime, headers: Headers, now: float) -> list[MirrorTarget]:
    return [
        MirrorTarget(find_way(mirror.service, headers, now).service, node.max_body)
        for mirror in node.mirrors
        if mirror.share and node.rng.random() < mirror.share
    ]
