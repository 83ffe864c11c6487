"""From a configuration file to a runtime snapshot and the list of backends to ask.

Two steps, because a reload must not make live sessions wait: `prepare` does what takes time (reading,
parsing, loading certificates) and runs in a worker thread; `Builder.build` touches the tables that outlive
the snapshot and runs on the event loop.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Mapping
from math import inf
from pathlib import Path

from attrs import field, frozen

from trio_wsb.addresses import BackendURL, ListenAddress, Networks
from trio_wsb.background.counts import CountTarget
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthTable, Question
from trio_wsb.balancing.passive import PassivePolicy
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.config.load import load
from trio_wsb.config.model import Config, EntryPoint, Ping, ServersTransport
from trio_wsb.config.services import HealthCheck, LoadBalancer, Service
from trio_wsb.daemon.middlewares import Loaded, StepFactory, load_files
from trio_wsb.errors import ConfigurationError
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.tls import client_context
from trio_wsb.proxy.runtime import EntryPointRuntime, Route, Runtime, ServiceRuntime, TransportRuntime
from trio_wsb.routing.table import RouterTable

ADMIN = "admin"
"""The entry point that no router is offered on unless it says so."""

DEFAULT_TRANSPORT = ServersTransport()


@frozen
class ClientTLS:
    """A TLS context for connections to backends, and the settings and file contents that it was made from."""

    source: tuple[object, ...]
    context: ssl.SSLContext


@frozen
class Prepared:
    """A checked configuration with everything that takes time to load."""

    config: Config
    warnings: tuple[str, ...]
    tls: Mapping[str | None, ClientTLS]
    """By serversTransport name (None is the default one), for services with a backend that needs it."""
    middleware_files: Loaded = field(factory=dict)
    """What middlewares name in files, by their names."""

    @property
    def addresses(self) -> dict[str, ListenAddress]:
        """Where each entry point listens."""
        return {name: entry.address for name, entry in self.config.entry_points.items()}

    def tls_context(self, balancer: LoadBalancer) -> ssl.SSLContext | None:
        """Return the context for the backends of `balancer`, None if they do not speak TLS."""
        found = self.tls.get(balancer.servers_transport)
        return None if found is None else found.context


@frozen
class Built:
    """A runtime snapshot and what the background tasks need to know of it."""

    runtime: Runtime
    count_targets: tuple[CountTarget, ...]
    health_targets: tuple[HealthTarget, ...]
    passive: Mapping[BackendURL, PassivePolicy]
    backends: frozenset[BackendURL]


def prepare(path: Path, previous: Prepared | None = None) -> Prepared:
    """Read, check and load everything; takes its time, so call it off the event loop.

    Args:
      path: the configuration file.
      previous: what is in force; TLS contexts whose settings and files are the same are taken from it, so
        that connections made with them go on being used.

    Raises:
      ConfigurationError: with every problem found.

    """
    loaded = load(path)
    known = {} if previous is None else {tls.source: tls for tls in previous.tls.values()}
    return Prepared(
        loaded.config,
        tuple(map(str, loaded.warnings)),
        _load_tls(loaded.config, known),
        load_files(loaded.config),
    )


def _load_tls(config: Config, known: Mapping[tuple[object, ...], ClientTLS]) -> dict[str | None, ClientTLS]:
    contexts: dict[str | None, ClientTLS] = {}
    problems = []
    for service in config.http.services.values():
        balancer = service.load_balancer
        name = balancer.servers_transport
        if name in contexts or not _needs_tls(balancer):
            continue
        transport = _transport(config, balancer)
        verify, files = not transport.insecure_skip_verify, transport.root_cas
        try:
            source = (verify, *((file, Path(file).read_bytes()) for file in files))
            contexts[name] = known.get(source) or ClientTLS(
                source, client_context(verify=verify, root_cas=files)
            )
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or getattr(error, "reason", None) or "no certificate in it"
            problems.append(f"http.serversTransports.{name}.rootCAs: cannot be used: {str(reason).lower()}")
    if problems:
        raise ConfigurationError(problems)
    return contexts


def _needs_tls(balancer: LoadBalancer) -> bool:
    check = balancer.health_check
    checked = check is not None and check.scheme == "https"
    return checked or any(server.url.tls for server in balancer.servers)


def _transport(config: Config, balancer: LoadBalancer) -> ServersTransport:
    if balancer.servers_transport is None:
        return DEFAULT_TRANSPORT
    return config.http.servers_transports[balancer.servers_transport]


class Builder:
    """Builds runtime snapshots on the tables that outlive them, which stay their owner's."""

    def __init__(
        self, backends: BackendTable, counts: CountTable, health: HealthTable, rng: random.Random
    ) -> None:
        self._backends = backends
        self._counts = counts
        self._health = health
        self._rng = rng
        self._pools: dict[str, Pool] = {}
        self._steps = StepFactory(rng)

    def build(self, prepared: Prepared) -> Built:
        """Return the snapshot; nothing of it is in force yet."""
        config = prepared.config
        counts: list[CountTarget] = []
        checks: list[HealthTarget] = []
        services: dict[str, ServiceRuntime] = {}
        for name, service in config.http.services.items():
            services[name] = self._service(prepared, name, service)
            counts += _count_targets(prepared, service.load_balancer)
            checks += _health_targets(prepared, service.load_balancer)
        chains = self._steps.chains(config, prepared.middleware_files)
        routes = {
            name: Route(services[router.service], chains[name])
            for name, router in config.http.routers.items()
        }
        entry_points = {
            name: _entry_point(config, name, entry, routes) for name, entry in config.entry_points.items()
        }
        urls = frozenset(
            server.url
            for service in config.http.services.values()
            for server in service.load_balancer.servers
        )
        runtime = Runtime(entry_points, services, config.balancer_metric_path)
        return Built(runtime, tuple(counts), tuple(checks), _passive_policies(config), urls)

    def install(self, built: Built) -> None:
        """Take note that `built` is in force: what only the one before it needed may be forgotten."""
        self._backends.retain(built.backends)
        for url, policy in built.passive.items():
            self._backends.get(url).passive.policy = policy

    def _service(self, prepared: Prepared, name: str, service: Service) -> ServiceRuntime:
        balancer = service.load_balancer
        count, check = balancer.connection_count, balancer.health_check
        pool = self._pools[name] = Pool(
            [
                Member(self._backends.get(server.url), server.weight, server.max_connections)
                for server in balancer.servers
            ],
            balancer.strategy,
            counts=self._counts,
            count=None if count is None else (count.path, count.field_name),
            rng=self._rng,
            previous=self._pools.get(name),
            health=None if check is None else (self._health, _question(check)),
            slow_start=balancer.slow_start,
        )
        transport = _transport(prepared.config, balancer)
        return ServiceRuntime(
            name=name,
            pool=pool,
            transport=TransportRuntime(
                dial_timeout=transport.forwarding_timeouts.dial_timeout,
                response_header_timeout=transport.forwarding_timeouts.response_header_timeout,
                tls=prepared.tls_context(balancer),
                server_name=transport.server_name,
            ),
            pass_host_header=balancer.pass_host_header,
            write_timeout=balancer.session.write_timeout,
        )


def _count_targets(prepared: Prepared, balancer: LoadBalancer) -> list[CountTarget]:
    count = balancer.connection_count
    if count is None:
        return []
    return [
        CountTarget(
            url=server.url,
            path=count.path,
            field=count.field_name,
            interval=count.interval,
            timeout=count.timeout,
            ssl_context=prepared.tls_context(balancer) if server.url.tls else None,
            server_name=_transport(prepared.config, balancer).server_name,
        )
        for server in balancer.servers
    ]


def _passive_policies(config: Config) -> dict[BackendURL, PassivePolicy]:
    """Return the policy for each server: of several the one that passes it over after the fewest failures."""
    policies: dict[BackendURL, PassivePolicy] = {}
    for service in config.http.services.values():
        given = service.load_balancer.passive_health_check
        policy = PassivePolicy(given.max_failed_attempts, given.failure_window)
        for server in service.load_balancer.servers:
            known = policies.get(server.url, policy)
            policies[server.url] = min(known, policy, key=lambda each: each.failures or inf)
    return policies


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


def _health_targets(prepared: Prepared, balancer: LoadBalancer) -> list[HealthTarget]:
    check = balancer.health_check
    if check is None:
        return []
    return [
        HealthTarget(
            url=server.url,
            question=_question(check),
            interval=check.interval,
            unhealthy_interval=check.unhealthy_interval or check.interval,
            timeout=check.timeout,
            rise=check.rise,
            fall=check.fall,
            ssl_context=prepared.tls_context(balancer),
            server_name=_transport(prepared.config, balancer).server_name,
        )
        for server in balancer.servers
    ]


def _entry_point(
    config: Config, name: str, entry: EntryPoint, routes: Mapping[str, Route]
) -> EntryPointRuntime:
    timeouts, life_cycle = entry.transport.responding_timeouts, entry.transport.life_cycle
    routers = [
        (router_name, router.rule, router.priority, routes[router_name])
        for router_name, router in config.http.routers.items()
        if (name in router.entry_points if router.entry_points else name != ADMIN)
    ]
    return EntryPointRuntime(
        name=name,
        port=entry.address.port,
        read_timeout=timeouts.read_timeout,
        idle_timeout=timeouts.idle_timeout,
        max_connections=entry.max_connections,
        accept_grace=life_cycle.request_accept_grace_timeout,
        grace=life_cycle.grace_time_out,
        policy=ForwardPolicy(
            Networks(entry.forwarded_headers.trusted_ips), insecure=entry.forwarded_headers.insecure
        ),
        ping=_pings(config.ping, name),
        ping_status_stopping=config.ping.terminating_status_code,
        routers=RouterTable(routers),
    )


def _pings(ping: Ping, entry_point: str) -> bool:
    return not ping.manual_routing and ping.entry_point in {None, entry_point}
