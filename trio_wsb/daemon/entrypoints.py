"""From an entry point of a configuration to its part of the runtime snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import evolve

from trio_wsb.addresses import Networks
from trio_wsb.config.entrypoints import ProxyProtocol, RedirectionTarget
from trio_wsb.config.model import Config, EntryPoint, ForwardedHeaders, Ping, Router
from trio_wsb.config.offered import redirection_name, redirection_port, routers_on
from trio_wsb.config.tlschecks import router_tls
from trio_wsb.daemon.middlewares import Chains, is_open
from trio_wsb.daemon.tls import ServerTLS
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.http.head import REQUEST_LIMITS
from trio_wsb.proxy.redirection import Redirection
from trio_wsb.proxy.runtime import EntryPointRuntime, InternalService, Route, ServiceNode
from trio_wsb.routing.rules import Rule
from trio_wsb.routing.table import RouterTable

Answering = Callable[[Router], ServiceNode | InternalService]
"""Returns what a router leads to."""

_Row = tuple[str, Rule, int, Route]


def entry_points(
    config: Config, chains: Chains, answering: Answering, server_tls: ServerTLS
) -> Mapping[str, EntryPointRuntime]:
    """Return all of them by their names.

    Args:
      config: checked, without what cannot run.
      chains: the steps of every way through it.
      answering: what a router leads to.
      server_tls: certificates and options for clients.

    """
    return {
        name: _entry_point(config, name, entry, chains, answering, server_tls)
        for name, entry in config.entry_points.items()
    }


def _entry_point(
    config: Config,
    name: str,
    entry: EntryPoint,
    chains: Chains,
    answering: Answering,
    server_tls: ServerTLS,
) -> EntryPointRuntime:
    timeouts, life_cycle = entry.transport.responding_timeouts, entry.transport.life_cycle
    plain: list[_Row] = []
    secured: list[_Row] = []
    for router_name, router in routers_on(config, name):
        tls, route = router_tls(router, entry), Route(answering(router), chains[name, router_name])
        if tls is None:
            plain.append((router_name, router.rule, router.priority, route))
        else:
            route = evolve(route, client_auth=server_tls.client_auth.get(tls.options))
            secured.append((router_name, router.rule, router.priority, route))
    if (target := dict(redirections(config)).get(name)) is not None:
        row = _redirection(config, name, target, chains)
        plain.append(row)
        if entry.http.tls is not None:  # it is a router of this entry point as any other
            secured.append(row)
    return EntryPointRuntime(
        name=name,
        port=entry.address.port or 80,
        read_timeout=timeouts.read_timeout,
        idle_timeout=timeouts.idle_timeout,
        max_connections=entry.max_connections,
        pending_per_address=entry.max_pending_per_address,
        connections_per_address=entry.max_connections_per_address,
        accept_grace=life_cycle.request_accept_grace_timeout,
        grace=life_cycle.grace_time_out,
        policy=_trust(entry.forwarded_headers),
        head_limits=evolve(REQUEST_LIMITS, head=entry.http.max_header_bytes),
        ping=_pings(config.ping, name),
        ping_status_stopping=config.ping.terminating_status_code,
        routers=RouterTable(plain),
        tls=server_tls.entries.get(name),
        tls_routers=RouterTable(secured),
        proxy_protocol=None if entry.proxy_protocol is None else _trust(entry.proxy_protocol),
        steps=chains[name, ""],
    )


def redirections(config: Config) -> Iterator[tuple[str, RedirectionTarget]]:
    """Yield the redirections that run, with the names of their entry points."""
    for name, entry in config.entry_points.items():
        target = entry.http.redirections.entry_point
        # One behind a middleware that is not there is among the disabled routers.
        if target is not None and is_open(config, entry.http.middlewares):
            yield name, target


def _redirection(config: Config, name: str, target: RedirectionTarget, chains: Chains) -> _Row:
    redirection = Redirection(target.scheme, redirection_port(config, target), permanent=target.permanent)
    route = Route(redirection.service, chains[name, ""])
    return redirection_name(name, target), redirection.rule, target.priority, route


def _trust(section: ForwardedHeaders | ProxyProtocol) -> ForwardPolicy:
    return ForwardPolicy(Networks(section.trusted_ips), insecure=section.insecure)


def _pings(ping: Ping, entry_point: str) -> bool:
    return not ping.manual_routing and ping.entry_point in {None, entry_point}
