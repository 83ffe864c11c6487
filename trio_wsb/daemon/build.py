"""From a configuration file to a runtime snapshot and the list of backends to ask.

Two steps, because a reload must not make live sessions wait: `prepare` does what takes time (reading,
parsing, loading certificates) and runs in a worker thread; `Builder.build` touches the tables that outlive
the snapshot and runs on the event loop.
"""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from trio_wsb.addresses import BackendURL, ListenAddress, Networks
from trio_wsb.background.counts import CountTarget
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.balancing.passive import PassivePolicy
from trio_wsb.config.disable import DisabledRouter
from trio_wsb.config.internal import PING
from trio_wsb.config.load import load
from trio_wsb.config.model import Config, EntryPoint, Ping, ServersTransport
from trio_wsb.config.services import LoadBalancer
from trio_wsb.config.tls import Version
from trio_wsb.daemon.middlewares import Loaded, StepFactory, load_files
from trio_wsb.daemon.services import (
    DEFAULT_TRANSPORT,
    ServiceBuilder,
    balancers_of,
    count_targets,
    health_targets,
    needs_tls,
    passive_policies,
    transport_of,
)
from trio_wsb.errors import ConfigurationError
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.http.head import REQUEST_LIMITS
from trio_wsb.net.tls import ANY_VERSION, CertificateError, client_context
from trio_wsb.proxy.runtime import EntryPointRuntime, PingService, Route, Runtime, ServiceRuntime
from trio_wsb.routing.table import RouterTable

ADMIN = "admin"
"""The entry point that no router is offered on unless it says so."""


_VERSIONS: Mapping[Version, ssl.TLSVersion] = {
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


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
    disabled: tuple[DisabledRouter, ...] = ()
    """The routers that the file has and `config` has not."""

    @property
    def addresses(self) -> dict[str, ListenAddress]:
        """Where each entry point listens."""
        return {name: entry.address for name, entry in self.config.entry_points.items()}

    @property
    def shared(self) -> frozenset[str]:
        """The entry points at whose addresses other instances may listen too."""
        return frozenset(name for name, entry in self.config.entry_points.items() if entry.reuse_port)

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
    """For every backend."""


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
    config = _with_default_transport(loaded.config)
    known = {} if previous is None else {tls.source: tls for tls in previous.tls.values()}
    return Prepared(
        config,
        tuple(map(str, loaded.warnings)),
        _load_tls(config, known),
        load_files(config),
        loaded.disabled,
    )


def _with_default_transport(config: Config) -> Config:
    """Return `config` with `serversTransport` where load balancers that name none look for it."""
    transports = {**config.http.servers_transports, DEFAULT_TRANSPORT: config.servers_transport}
    return evolve(config, http=evolve(config.http, servers_transports=transports))


def _load_tls(config: Config, known: Mapping[tuple[object, ...], ClientTLS]) -> dict[str | None, ClientTLS]:
    contexts: dict[str | None, ClientTLS] = {}
    problems = []
    for balancer in balancers_of(config.http).values():
        name = balancer.servers_transport
        if name in contexts or not needs_tls(balancer):
            continue
        transport = transport_of(config.http, balancer)
        place = "serversTransport" if name is None else f"http.serversTransports.{name}"
        try:
            contexts[name] = _client_tls(transport, known)
        except CertificateError as error:
            problems.append(f"{place}.certificates: cannot be used: {error}")
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or getattr(error, "reason", None) or "no certificate in it"
            problems.append(f"{place}.rootCAs: cannot be used: {str(reason).lower()}")
    if problems:
        raise ConfigurationError(problems)
    return contexts


def _client_tls(transport: ServersTransport, known: Mapping[tuple[object, ...], ClientTLS]) -> ClientTLS:
    """Return the context for `transport`, the `known` one if nothing has changed, not even in the files.

    Raises:
      OSError: as `client_context` does.

    """
    verify, files = not transport.insecure_skip_verify, transport.root_cas
    shown = transport.certificates[0] if transport.certificates else None
    source: tuple[object, ...] = (
        verify,
        transport.min_version,
        transport.max_version,
        *((file, Path(file).read_bytes()) for file in files),
    )
    if shown is not None:
        source = (*source, shown, *_contents(shown.cert_file, shown.key_file))
    if (found := known.get(source)) is not None:
        return found
    context = client_context(
        verify=verify,
        root_cas=files,
        certificate=None if shown is None else (shown.cert_file, shown.key_file),
        versions=(
            _VERSIONS[transport.min_version],
            _VERSIONS[transport.max_version] if transport.max_version else ANY_VERSION[1],
        ),
    )
    return ClientTLS(source, context)


def _contents(*files: str) -> Iterator[bytes]:
    """Yield digests of what the files hold, so that no key is kept; nothing for one that cannot be read."""
    for file in files:
        try:
            yield hashlib.sha256(Path(file).read_bytes()).digest()
        except OSError:
            pass  # whoever loads it says so


class Builder:
    """Builds runtime snapshots on the tables that outlive them, which stay their owner's."""

    def __init__(
        self, backends: BackendTable, counts: CountTable, health: HealthTable, rng: random.Random
    ) -> None:
        self._backends = backends
        self._services = ServiceBuilder(backends, counts, health, rng)
        self._steps = StepFactory(rng)

    def build(self, prepared: Prepared) -> Built:
        """Return the snapshot; nothing of it is in force yet."""
        config = prepared.config
        nodes = self._services.build(config.http, prepared.tls_context)
        answering = {PING: PingService(config.ping.terminating_status_code), **nodes}
        services = {name: node for name, node in nodes.items() if isinstance(node, ServiceRuntime)}
        parents = {name: node for name, node in nodes.items() if name not in services}
        chains = self._steps.chains(config, prepared.middleware_files)
        routes = {
            name: Route(answering[router.service], chains[name])
            for name, router in config.http.routers.items()
        }
        entry_points = {
            name: _entry_point(config, name, entry, routes) for name, entry in config.entry_points.items()
        }
        runtime = Runtime(entry_points, services, parents, config.balancer_metric_path)
        return Built(
            runtime,
            tuple(count_targets(config.http, prepared.tls_context)),
            tuple(health_targets(config.http, prepared.tls_context)),
            passive_policies(config.http),
        )

    def install(self, built: Built) -> None:
        """Take note that `built` is in force: what only the one before it needed may be forgotten."""
        self._backends.retain(built.passive)
        for url, policy in built.passive.items():
            self._backends.get(url).passive.policy = policy


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
        head_limits=evolve(REQUEST_LIMITS, head=entry.http.max_header_bytes),
        ping=_pings(config.ping, name),
        ping_status_stopping=config.ping.terminating_status_code,
        routers=RouterTable(routers),
    )


def _pings(ping: Ping, entry_point: str) -> bool:
    return not ping.manual_routing and ping.entry_point in {None, entry_point}
