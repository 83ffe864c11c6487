"""From a configuration file to a runtime snapshot and the list of backends to ask.

Two steps, because a reload must not make live sessions wait: `prepare` does what takes time (reading,
parsing, loading certificates) and runs in a worker thread; `Builder.build` touches the tables that outlive
the snapshot and runs on the event loop.
"""

from __future__ import annotations

import hashlib
import random
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from trio_wsb.addresses import BackendURL, ListenAddress
from trio_wsb.background.counts import CountTarget
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.discovery import Name, NameTable
from trio_wsb.balancing.drain import DrainTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.balancing.passive import PassivePolicy
from trio_wsb.config.containers import Found
from trio_wsb.config.disable import DisabledRouter
from trio_wsb.config.discovery import Discovered
from trio_wsb.config.entrypoints import UnixSocket
from trio_wsb.config.internal import PING
from trio_wsb.config.load import load, refresh, without
from trio_wsb.config.model import Config, ServersTransport
from trio_wsb.config.offered import ADMIN as ADMIN  # noqa: PLC0414 - part of this module's interface
from trio_wsb.config.services import LoadBalancer
from trio_wsb.config.sources import FileState
from trio_wsb.config.sources import Loaded as Sources
from trio_wsb.daemon.discovery import names_in
from trio_wsb.daemon.entrypoints import entry_points
from trio_wsb.daemon.middlewares import Loaded, MadeStep, StepFactory, load_files
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
from trio_wsb.daemon.tls import VERSIONS, ServerTLS, load_server_tls, now_utc
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.tls import ANY_VERSION, CertificateError, client_context
from trio_wsb.proxy.internal import ping
from trio_wsb.proxy.runtime import (
    Handler,
    InternalService,
    Runtime,
    ServiceNode,
    ServiceRuntime,
)


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
    server_tls: ServerTLS = field(factory=ServerTLS)
    """What clients are served with that connect by TLS."""
    disabled: tuple[DisabledRouter, ...] = ()
    """The routers that the files have and `config` has not."""
    loaded: Sources | None = None
    """What it was made from."""

    @property
    def files(self) -> tuple[FileState, ...]:
        """The dynamic files, in the order in which they count."""
        return () if self.loaded is None else self.loaded.files

    @property
    def discovered(self) -> Discovered | None:
        """What the containers give, None where nobody wants or knows them."""
        return None if self.loaded is None else self.loaded.discovered

    @property
    def names(self) -> tuple[Name, ...]:
        """The names to resolve."""
        return tuple(names_in(balancers_of(self.config.http).values()))

    @property
    def addresses(self) -> dict[str, ListenAddress]:
        """Where each entry point listens."""
        return {name: entry.address for name, entry in self.config.entry_points.items()}

    @property
    def shared(self) -> frozenset[str]:
        """The entry points at whose addresses other instances may listen too."""
        return frozenset(name for name, entry in self.config.entry_points.items() if entry.reuse_port)

    @property
    def unix(self) -> dict[str, UnixSocket]:
        """Who may connect to each entry point that listens at a path."""
        return {name: entry.unix_socket for name, entry in self.config.entry_points.items()}

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
    steps: tuple[MadeStep, ...] = ()
    """Every step of a middleware, with whose it is."""


def prepare(path: Path, previous: Prepared | None = None, found: Found | None = None) -> Prepared:
    """Read, check and load everything; takes its time, so call it off the event loop.

    Args:
      path: the configuration file.
      previous: what is in force; a dynamic file that is bad now keeps its good version, and TLS contexts whose settings
        and files are the same are taken from it, so that connections made with them go on being used.
      found: the containers, None as long as nobody knows them.

    Raises:
      ConfigurationError: with every problem found, none of them in dynamic files.

    """
    before = None if previous is None else previous.loaded
    return _made_ready(load(path, before, now=time.time(), found=found), previous)


def prepare_again(previous: Prepared, found: Found | None = None) -> Prepared | None:
    """Return `previous` with its dynamic files read again and the containers `found`; None when nothing has changed.

    Takes its time too.

    Raises:
      ConfigurationError: as `prepare` does.

    """
    assert previous.loaded is not None
    loaded = refresh(previous.loaded, now=time.time(), found=found)
    return None if loaded is None else _made_ready(loaded, previous)


def _made_ready(loaded: Sources, previous: Prepared | None) -> Prepared:
    """Load what `loaded` names. Where that fails for a dynamic file its last good version takes its place."""
    while True:
        try:
            return _make_ready(loaded, previous)
        except ConfigurationError as error:
            blamed = loaded.blame(error.problems)
            if not blamed:
                raise
            loaded = without(loaded, blamed)  # there is one version less each time


def _make_ready(loaded: Sources, previous: Prepared | None) -> Prepared:
    config = _with_default_transport(loaded.config)
    known = {} if previous is None else {tls.source: tls for tls in previous.tls.values()}
    server_tls = load_server_tls(config, None if previous is None else previous.server_tls, now_utc())
    return Prepared(
        config,
        (*map(str, loaded.warnings), *server_tls.warnings),
        _load_tls(config, known),
        load_files(config),
        server_tls,
        loaded.disabled,
        loaded,
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
            VERSIONS[transport.min_version],
            VERSIONS[transport.max_version] if transport.max_version else ANY_VERSION[1],
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
        self,
        backends: BackendTable,
        counts: CountTable,
        health: HealthTable,
        rng: random.Random,
        drains: DrainTable | None = None,
        names: NameTable | None = None,
    ) -> None:
        self._names = NameTable() if names is None else names
        self._backends = backends
        self._internal = {PING: InternalService(PING, ping)}
        self._services = ServiceBuilder(backends, counts, health, rng, drains, self._names)
        self._steps = StepFactory(rng)

    def serve_internal(self, handlers: Mapping[str, Handler]) -> None:
        """Let the routers of the next snapshots lead to `handlers`, by the names of their services."""
        self._internal |= {name: InternalService(name, handler) for name, handler in handlers.items()}

    def build(self, prepared: Prepared) -> Built:
        """Return the snapshot; nothing of it is in force yet."""
        config = prepared.config
        nodes = self._services.build(config.http, prepared.tls_context)
        answering: dict[str, ServiceNode | InternalService] = {**self._internal, **nodes}
        services = {name: node for name, node in nodes.items() if isinstance(node, ServiceRuntime)}
        parents = {name: node for name, node in nodes.items() if name not in services}
        chains = self._steps.chains(config, prepared.middleware_files)
        by_name = entry_points(config, chains, lambda router: answering[router.service], prepared.server_tls)
        runtime = Runtime(by_name, services, parents, config.balancer_metric_path)
        return Built(
            runtime,
            tuple(count_targets(config.http, prepared.tls_context, self._names)),
            tuple(health_targets(config.http, prepared.tls_context, self._names)),
            passive_policies(config.http, self._names),
            tuple(self._steps.made(config)),
        )

    def install(self, built: Built) -> None:
        """Take note that `built` is in force: what only the one before it needed may be forgotten."""
        self._backends.retain(built.passive)
        for url, policy in built.passive.items():
            self._backends.get(url).passive.policy = policy
