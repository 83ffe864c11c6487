"""From the services of a configuration to the tree that requests go through, and what the background tasks need of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random

from trio_wsb.addresses import BackendURL
from trio_wsb.background.counts import CountTarget
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.discovery import NameTable
from trio_wsb.balancing.drain import DrainTable
from trio_wsb.balancing.health import HealthTable, Question
from trio_wsb.balancing.moving import DrainPolicy, Moving, RebalancePolicy
from trio_wsb.balancing.passive import PassivePolicy
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.sticky import default_cookie_name, sticky_value
from trio_wsb.config.model import HTTP, ServersTransport
from trio_wsb.config.services import (
    ConnectionCount,
    Failover,
    HealthCheck,
    LoadBalancer,
    Mirroring,
    Sticky,
    Weighted,
)
from trio_wsb.config.servicetree import comes_back
from trio_wsb.config.session import Session
from trio_wsb.daemon.discovery import Place, missing, places_of
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.services import (
    FailoverRuntime,
    MirroringRuntime,
    MirrorRuntime,
    ServiceNode,
    ServiceRuntime,
    TransportRuntime,
    WeightedRuntime,
)

DEFAULT_TRANSPORT = "default@internal"
"""The transport of load balancers that name none; nobody can give one of his own this name."""

MAX_MIRRORED_BODY = 1 << 20
"""Bytes of a request's body that are held for its copies, whatever `maxBodySize` says."""

STALE_INTERVALS = 3
"""Intervals after which a report is stale where `staleAfter` does not say it."""

TLSOf = Callable[[LoadBalancer], ssl.SSLContext | None]


def transport_of(http: HTTP, balancer: LoadBalancer) -> ServersTransport:
    """Return the transport that `balancer` names, or the default one."""
    if balancer.servers_transport is None:
        return http.servers_transports.get(DEFAULT_TRANSPORT) or ServersTransport()
    return http.servers_transports[balancer.servers_transport]


def balancers_of(http: HTTP) -> dict[str, LoadBalancer]:
    """Return every load balancer by the name of its service."""
    found = ((name, service.load_balancer) for name, service in http.services.items())
    return {name: balancer for name, balancer in found if balancer is not None}


class ServiceBuilder:
    """Builds the tree of services on the tables that outlive it, which stay their owners'."""

    def __init__(
        self,
        backends: BackendTable,
        counts: CountTable,
        health: HealthTable,
        rng: Random,
        drains: DrainTable | None = None,
        names: NameTable | None = None,
    ) -> None:
        self._names = NameTable() if names is None else names
        self._backends = backends
        self._drains = DrainTable() if drains is None else drains
        self._counts = counts
        self._health = health
        self._rng = rng
        self._pools: dict[str, Pool] = {}
        self._weighted: dict[str, WeightedRuntime] = {}
        # What the balancers of the last build were made of, and what was made.
        self._balancers: dict[str, tuple[tuple[object, ...], ServiceRuntime]] = {}

    def build(self, http: HTTP, tls: TLSOf) -> dict[str, ServiceNode]:
        """Return every service by its name. A load balancer that is what it was in the last build is the same object.

        Args:
          http: checked: every name leads to a service, and none to itself.
          tls: gives the TLS context for a load balancer's backends.

        """
        built: dict[str, ServiceNode] = {}

        def node(name: str) -> ServiceNode:
            if name not in built:
                built[name] = self._node(http, name, node, tls)
            return built[name]

        nodes = {name: node(name) for name in http.services}
        for kept in (self._pools, self._weighted, self._balancers):
            for name in kept.keys() - nodes.keys():
                del kept[name]
        return nodes

    def _node(self, http: HTTP, name: str, node: Callable[[str], ServiceNode], tls: TLSOf) -> ServiceNode:
        service = http.services[name]
        match service.load_balancer or service.weighted or service.failover or service.mirroring:
            case LoadBalancer() as balancer:
                return self._balancer(http, name, balancer, tls)
            case Weighted() as given:
                made = WeightedRuntime(
                    name,
                    [(node(part.name), part.weight) for part in given.services],
                    sticky=_sticky(given.sticky, name),
                    rng=self._rng,
                    previous=self._weighted.get(name),
                )
                self._weighted[name] = made
                return made
            case Failover() as given:
                return FailoverRuntime(name, node(given.service), node(given.fallback))
            case Mirroring() as given:
                mirrors = tuple(
                    MirrorRuntime(node(mirror.name), mirror.percent / 100) for mirror in given.mirrors
                )
                return MirroringRuntime(name, node(given.service), mirrors, _max_body(given), self._rng)
            case None:
                raise AssertionError(f"{name} is no service")

    def _balancer(self, http: HTTP, name: str, balancer: LoadBalancer, tls: TLSOf) -> ServiceRuntime:
        places = places_of(balancer, self._names)
        made_of = (balancer, transport_of(http, balancer), tls(balancer), places)
        known = self._balancers.get(name)
        if known is None or known[0] != made_of:
            known = made_of, self._new_balancer(http, name, balancer, tls, places)
            self._balancers[name] = known
        return known[1]

    def _new_balancer(
        self, http: HTTP, name: str, balancer: LoadBalancer, tls: TLSOf, places: Sequence[Place]
    ) -> ServiceRuntime:
        count, check = balancer.connection_count, balancer.health_check
        pool = self._pools[name] = Pool(
            [self._member(place) for place in places],
            balancer.strategy,
            counts=self._counts,
            count=None if count is None else (count.path, count.field_name),
            rng=self._rng,
            previous=self._pools.get(name),
            health=None if check is None else (self._health, _question(check)),
            slow_start=balancer.slow_start,
            drains=self._drains,
            service=name,
            missing=lambda: missing(balancer, self._names),
        )
        transport = transport_of(http, balancer)
        return ServiceRuntime(
            name=name,
            pool=pool,
            transport=TransportRuntime(
                dial_timeout=transport.forwarding_timeouts.dial_timeout,
                response_header_timeout=transport.forwarding_timeouts.response_header_timeout,
                tls=tls(balancer),
                server_name=transport.server_name,
                names={place.url: place.name for place in places if place.name is not None},
            ),
            pass_host_header=balancer.pass_host_header,
            write_timeout=balancer.session.write_timeout,
            sticky=_sticky(balancer.sticky, name),
            pending_timeout=balancer.pending_timeout,
            moving=_moving(balancer),
            relay=balancer.relay,
            limits=_limits(balancer.session),
        )

    def _member(self, place: Place) -> Member:
        url = place.url
        return Member(
            self._backends.get(url),
            place.weight,
            place.max_connections,
            sticky_value(url.written or str(url)),
            place.max_pending,
            place.rank,
            "" if place.name is None else place.name.host,
        )


def count_targets(http: HTTP, tls: TLSOf, names: NameTable) -> list[CountTarget]:
    """Return the reports to ask for."""
    return [
        CountTarget(
            url=place.url,
            path=count.path,
            field=count.field_name,
            interval=count.interval,
            timeout=count.timeout,
            ssl_context=tls(balancer) if place.url.tls else None,
            server_name=_server_name(http, balancer, place),
            host=_host(place),
        )
        for balancer in balancers_of(http).values()
        if (count := balancer.connection_count) is not None
        for place in places_of(balancer, names)
    ]


def health_targets(http: HTTP, tls: TLSOf, names: NameTable) -> list[HealthTarget]:
    """Return the servers to check."""
    return [
        HealthTarget(
            url=place.url,
            question=_question(check),
            interval=check.interval,
            unhealthy_interval=check.unhealthy_interval or check.interval,
            timeout=check.timeout,
            rise=check.rise,
            fall=check.fall,
            ssl_context=tls(balancer),
            server_name=_server_name(http, balancer, place),
            host=_host(place),
        )
        for balancer in balancers_of(http).values()
        if (check := balancer.health_check) is not None
        for place in places_of(balancer, names)
    ]


def _server_name(http: HTTP, balancer: LoadBalancer, place: Place) -> str | None:
    """Return the name to expect in the certificate, None for the host in the URL."""
    given = transport_of(http, balancer).server_name
    return place.name.host if given is None and place.name is not None else given


def _host(place: Place) -> str | None:
    return None if place.name is None else place.name.authority


def passive_policies(http: HTTP, names: NameTable) -> Mapping[BackendURL, PassivePolicy]:
    """Return the policy for each server: of several the one that passes it over after the fewest failures."""
    policies: dict[BackendURL, PassivePolicy] = {}
    for balancer in balancers_of(http).values():
        given = balancer.passive_health_check
        policy = PassivePolicy(given.max_failed_attempts, given.failure_window)
        for place in places_of(balancer, names):
            known = policies.get(place.url, policy)
            policies[place.url] = min(known, policy, key=lambda each: each.failures or inf)
    return policies


def needs_tls(balancer: LoadBalancer) -> bool:
    """Whether a server of `balancer` is spoken to, or checked, under TLS."""
    check = balancer.health_check
    checked = check is not None and check.scheme == "https"
    return checked or any(server.url.tls for server in balancer.servers)


def _question(check: HealthCheck) -> Question:
    return Question(
        path=check.path,
        mode=check.mode,
        scheme=check.scheme,
        hostname=check.hostname,
        port=check.port,
        method=check.method,
        status=check.status,
        follow_redirects=check.follow_redirects,
        headers=tuple(check.headers.items()),
    )


def _sticky(given: Sticky | None, service: str) -> StickyCookie | None:
    if given is None:
        return None
    cookie = given.cookie
    return StickyCookie(
        name=cookie.name or default_cookie_name(service),
        path=cookie.path,
        domain=cookie.domain,
        max_age=cookie.max_age,
        http_only=cookie.http_only,
        secure=cookie.secure,
        same_site=cookie.same_site,
    )


def _moving(balancer: LoadBalancer) -> Moving:
    drain, given, count = balancer.drain, balancer.rebalance, balancer.connection_count
    return Moving(
        DrainPolicy(drain.rate, drain.close_code, drain.timeout),
        balancer.on_remove == "drain",
        RebalancePolicy(given.enabled, given.tolerance, given.rate, given.min_age, given.close_code),
        report_interval=0.0 if count is None else count.interval,
        stale_after=0.0 if count is None else stale_after(count),
        stays=comes_back(balancer),
    )


def _limits(session: Session) -> SessionLimits:
    limits = SessionLimits(
        idle_timeout=session.idle_timeout,
        max_lifetime=session.max_lifetime,
        lifetime_jitter=session.lifetime_jitter,
        ping_interval=session.ping_interval,
        pong_timeout=session.pong_timeout,
        max_message_bytes=session.max_message_bytes,
        message_rate=session.message_rate,
        message_burst=session.message_burst,
        byte_rate=session.byte_rate,
        byte_burst=session.byte_burst,
    )
    return limits if limits.any else NO_LIMITS


def stale_after(count: ConnectionCount) -> float:
    """Return the age in seconds from which a report is stale."""
    return STALE_INTERVALS * count.interval if count.stale_after is None else count.stale_after


def _max_body(mirroring: Mirroring) -> int | None:
    if not mirroring.mirror_body:
        return None
    wanted = mirroring.max_body_size
    return MAX_MIRRORED_BODY if wanted < 0 else min(wanted, MAX_MIRRORED_BODY)
