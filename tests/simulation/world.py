"""The world of one story: the real balancer without sockets and files, its backends, its clients.

The balancer is put together as `trio_wsb.daemon.supervisor` does it. What is not the real thing: the connections
(`network`), what count requests and checks travel through, and the reading of configuration files.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import structlog
import structlog.testing
import trio
from attrs import define, field

from tests.simulation.backend import ReportTransport, SimBackend
from tests.simulation.kernel import SimTable
from tests.simulation.ledger import Violation
from tests.simulation.network import Network, SimChannel
from tests.simulation.psock import drawn_temper
from trio_wsb.addresses import BackendURL, parse_backend_url, parse_ip
from trio_wsb.background.counts import CountRefresher, CountTarget
from trio_wsb.background.health import HealthChecker
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.balancing.counts import CountKey, CountTable, Sample
from trio_wsb.balancing.drain import DrainKey, DrainTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.config.document import read_document
from trio_wsb.config.sources import Sources, assemble
from trio_wsb.daemon.api.pages import APIPages
from trio_wsb.daemon.build import Builder, Prepared, _made_ready
from trio_wsb.daemon.metrics.page import Metrics
from trio_wsb.daemon.mover import Mover
from trio_wsb.daemon.reload import Reloader
from trio_wsb.daemon.stop import close_sessions
from trio_wsb.daemon.views import DaemonState, Moment
from trio_wsb.errors import DialError
from trio_wsb.net.channel import ByteChannel
from trio_wsb.observe.events import EventLog
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import RequestRecord
from trio_wsb.proxy.relaying import KernelState
from trio_wsb.proxy.runtime import Proxy, Runtime, ServiceRuntime, TransportRuntime
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.turnaway import refuse_connection

SERVICE = "chat"
COPIES = "copies"
COPIES_AT = (7, 8)
"""Numbers of the backends that get copies."""
FRONT = "front"
ENTRY = "web"

Document = dict[str, Any]


def document(
    servers: list[Document], *, grace: str = "12s", copies: Document | None = None, **balancer: Any
) -> Document:
    """Return a configuration with one service over `servers`; `balancer` are its other keys.

    `copies` is the load balancer that gets copies, with `percent` beside its keys.
    """
    services: Document = {SERVICE: {"loadBalancer": {"servers": servers, **balancer}}}
    if copies is not None:
        others = {**copies}
        mirrors = [{"name": COPIES, "percent": others.pop("percent")}]
        services[COPIES] = {"loadBalancer": others}
        services[FRONT] = {"mirroring": {"service": SERVICE, "mirrors": mirrors}}
    return {
        "entryPoints": {
            ENTRY: {"address": "127.0.0.1:9000", "transport": {"lifeCycle": {"graceTimeOut": grace}}}
        },
        "http": {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": SERVICE if copies is None else FRONT}},
            "services": services,
        },
    }


@lru_cache(maxsize=4096)
def _prepared(text: str) -> Prepared:
    sources = Sources(read_document(text.encode(), "simulated.yaml"), now=0.0)
    return _made_ready(assemble(sources, lambda _: iter(())), None)


def prepared(made_of: Document) -> Prepared:
    """Return the configuration ready to be built. Raises ConfigurationError."""
    return _prepared(json.dumps(made_of))


class SimReloader(Reloader):
    """The reloader, with a configuration from memory that takes a while to be read."""

    def __init__(self, apply: Callable[[Prepared], None], rng: random.Random) -> None:
        super().__init__(Path("simulated.yaml"), apply)
        self._rng = rng
        self.document: Document = {}

    async def _prepare_all(self) -> Prepared | None:
        read = self.document
        await trio.sleep(self._rng.uniform(0.0, 0.3))
        return prepared(read)


class WatchedCounts(CountTable):
    """The count table, and by how much each of its figures may be off."""

    def __init__(self, find: Callable[[BackendURL], Backend]) -> None:
        super().__init__()
        self._find = find
        self._begun: dict[CountKey, tuple[int, int]] = {}
        self._moved: dict[BackendURL, int] = {}

    def start(self, key: CountKey, own_live: int, now: float) -> Sample:
        """See `CountTable`."""
        backend = self._find(key.url)
        self._begun[key] = backend.opened_total, backend.live
        return super().start(key, own_live, now)

    def finish(self, sample: Sample, *args: Any) -> bool:
        """See `CountTable`."""
        opened, live = self._begun.pop(sample.key)
        backend = self._find(sample.key.url)
        came = backend.opened_total - opened
        went = live + came - backend.live
        self._moved[sample.key.url] = came + went + backend.pending
        return super().finish(sample, *args)

    def error(self, server: SimBackend) -> int:
        """Return by how much the foreign connections of a server may really be others than the table has."""
        moved = self._moved.get(server.url, 0)
        return moved + server.in_doubt + abs(server.foreign - server.foreign_then)


@define(eq=False)
class Witness:
    """An observer that counts by itself what the tables count. `ended` are ids: an end that is told twice is a fault."""

    fail: Callable[[Violation], None]
    live: dict[int, Session] = field(factory=dict)
    opened: int = 0
    ended: int = 0
    requests: int = 0
    in_kernel: int = 0
    """Sessions whose bytes the kernel moves."""
    sessions: dict[str, Session] = field(factory=dict)
    """By the client's address and port, which no two have."""

    def request_ended(self, record: RequestRecord) -> None:
        self.requests += 1

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        self.opened += 1
        self.in_kernel += session.relay_kind == "kernel"
        if session.id in self.live or session.client in self.sessions:
            self.fail(Violation(f"session {session.id} was opened twice"))
        self.live[session.id] = self.sessions[session.client] = session

    def session_ended(self, session: Session) -> None:
        self.ended += 1
        if self.live.pop(session.id, None) is not session:
            self.fail(
                Violation(f"the end of session {session.id} was counted without its beginning, or twice")
            )
        if session.relay.cause is None:
            self.fail(Violation(f"session {session.id} ended for no cause"))


@define(eq=False)
class World:
    """Everything of one story."""

    seed: int
    rng: random.Random
    network: Network
    logs: list[MutableMapping[str, Any]]
    document: Document
    rough: float = 0.0
    """How likely each kind of trouble is for a connection."""
    tls: float = 0.0
    """How many of the connections are TLS."""
    in_kernel: bool = False
    """Whether the kernel relay moves the bytes of those sessions that it can."""
    failure: BaseException | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    servers: dict[BackendURL, SimBackend] = field(factory=dict)
    on_dial: list[Callable[[BackendURL, TransportRuntime], None]] = field(factory=list)
    """Called when a backend was chosen, in the same step, with the transport of the service that chose it."""
    accepted: Callable[[SimBackend, SimChannel], Any] = field(init=False)
    """Runs a backend's end of a connection."""
    trace: list[str] = field(factory=list)
    done: Counter[str] = field(factory=Counter)
    """Plain requests that backends have done, by path."""
    copies_done: Counter[str] = field(factory=Counter)
    """Those that came as copies."""
    serving: int = 0
    """Tasks that serve a client's connection."""
    _ports: int = 10_000

    def __attrs_post_init__(self) -> None:
        rng = self.rng
        self.tables = BackendTable()
        self.counts, self.health, self.drains = WatchedCounts(self.tables.get), HealthTable(), DrainTable()
        self.events = EventLog()
        self.refresher = CountRefresher(self.counts, self.tables, rng=rng, transport=self._report_transport)
        self.checker = HealthChecker(self.health, rng=rng, ask=self._check)
        self.builder = Builder(self.tables, self.counts, self.health, rng, self.drains)
        self.proxy = Proxy(Runtime({}), dial=self._dial, wall_clock=lambda: 1.7e9 + trio.current_time())
        self.mover = Mover(self.proxy, self.tables, self.drains, rng, self.events)
        self.reloader = SimReloader(self._install, rng)
        self.reloader.document = self.document
        self.witness = Witness(self.fail)
        self.table: SimTable | None = None
        if self.in_kernel:
            own = random.Random(rng.random())
            self.table = SimTable(self.network, own, drawn_temper(own))
            self.proxy.kernel = KernelState(self.table, "")

    @property
    def service(self) -> ServiceRuntime:
        """The one service, as it is now."""
        return self.proxy.runtime.services[SERVICE]

    def fail(self, error: BaseException) -> None:
        """Note what must not have happened, and end the story."""
        if self.failure is None:
            self.failure = error
            self.scope.cancel()

    def say(self, text: str) -> None:
        """Write down what the story does."""
        self.trace.append(f"{trio.current_time():10.3f}  {text}")

    # The balancer.

    async def begin(self) -> None:
        """Put the first configuration to work, as the supervisor does."""
        self.state = DaemonState(
            self.proxy,
            self.tables,
            self.reloader,
            list,
            Moment(trio.current_time(), 1.7e9),
            self.events,
            mover=self.mover,
        )
        self.metrics, self.api = Metrics(self.state), APIPages(self.state)
        first = prepared(self.document)
        self._install(first)
        self.reloader.begin(first)

    def _install(self, ready: Prepared) -> None:
        config = ready.config
        built = self.builder.build(ready)
        self.proxy.observers = (self.metrics.figures, self.api.tally, self.witness)
        before = self.proxy.runtime.services
        self.proxy.swap(built.runtime)
        self.refresher.configure(built.count_targets)
        self.checker.configure(built.health_targets)
        self.builder.install(built)
        self.metrics.configure(config, built.steps)
        self.mover.configuration_changed(before, built.runtime.services)

    def reload(self, made_of: Document) -> None:
        """Let the file be another one, and ask for a reload."""
        self.document = self.reloader.document = made_of
        self.reloader.request()

    def connect(self, near: SimChannel) -> tuple[str, trio.Event]:
        """Accept a connection; who it is for the balancer, and an event for its end."""
        self._ports += 1
        address, done = parse_ip(f"192.0.2.{self._ports % 200 + 1}"), trio.Event()
        text = f"{address}:{self._ports}"
        self.nursery.start_soon(self._serve, self._channel(near), Peer(address, text), done)
        return text, done

    def _channel(self, near: SimChannel) -> ByteChannel:
        return near if self.table is None else self.table.channel(near)

    async def _serve(self, near: ByteChannel, peer: Peer, done: trio.Event) -> None:
        proxy = self.proxy
        entry = proxy.runtime.entry_points[ENTRY]
        self.serving += 1
        try:
            if entry.max_connections and proxy.connections[ENTRY] >= entry.max_connections:
                await refuse_connection(proxy, ENTRY, near, peer)
                return
            proxy.connections[ENTRY] += 1
            try:
                await Connection(proxy, ENTRY, near, peer).run()
            except* Exception as group:
                self.fail(group)
            finally:
                proxy.connections[ENTRY] -= 1
                near.close()
        finally:
            self.serving -= 1
            done.set()

    async def stop(self) -> None:
        """Stop as the supervisor does, until every connection is over."""
        self.say("stop")
        proxy, entry = self.proxy, self.proxy.runtime.entry_points[ENTRY]
        proxy.stop()
        await close_sessions(proxy, ENTRY, entry.grace, self.rng)
        await trio.sleep(0.5)

    def drain(
        self, url: BackendURL, policy: DrainPolicy | None = None, *, service: str | None = None
    ) -> None:
        self.say(f"drain {url}")
        self.mover.drainer.drain(DrainKey(url, service), policy or self.service.moving.drain)

    def ready(self, url: BackendURL, *, service: str | None = None) -> None:
        self.say(f"ready {url}")
        self.mover.drainer.ready(DrainKey(url, service))

    # Its backends.

    def server(self, number: int) -> SimBackend:
        """Return backend number `number`, from 1; it is made when it is first asked for."""
        url = parse_backend_url(f"http://10.0.0.{number}:8080")
        found = self.servers.get(url)
        if found is None:
            found = self.servers[url] = SimBackend(
                url,
                self.network,
                self.rng,
                rough=self.rough,
                tls=self.tls,
                done=self.copies_done if number in COPIES_AT else self.done,
            )
        return found

    @property
    def copied(self) -> set[BackendURL]:
        """The backends that get copies alone."""
        service = self.proxy.runtime.services.get(COPIES)
        return set() if service is None else {member.backend.url for member in service.pool.members}

    async def _dial(self, url: BackendURL, transport: TransportRuntime) -> ByteChannel:
        for hook in self.on_dial:
            hook(url, transport)
        backend = self.servers.get(url)
        if backend is None:
            raise DialError("connect", "no route to host")
        near = await backend.dial(transport.dial_timeout)
        self.nursery.start_soon(self.accepted, backend, near.peer)
        return self._channel(near)

    async def _check(self, target: HealthTarget) -> str | None:
        backend = self.servers.get(target.url)
        return "cannot connect: no route to host" if backend is None else await backend.check()

    def _report_transport(self, target: CountTarget) -> httpx.AsyncBaseTransport:
        return ReportTransport(self.servers.get, target)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the balancer for as long as the block lasts."""
        async with trio.open_nursery() as background:
            await background.start(self.network.run)
            await self.begin()
            background.start_soon(self.proxy.sweeper.run)
            await background.start(self.refresher.run)
            await background.start(self.checker.run)
            await background.start(self.proxy.mirrors.run)
            await background.start(self.mover.run)
            background.start_soon(self.reloader.run)
            if self.table is not None:
                background.start_soon(self.table.run)
            async with trio.open_nursery() as self.nursery:
                yield
                self.nursery.cancel_scope.cancel()
            background.cancel_scope.cancel()

    nursery: trio.Nursery = field(init=False)
    state: DaemonState = field(init=False)
    metrics: Metrics = field(init=False)
    api: APIPages = field(init=False)
    tables: BackendTable = field(init=False)
    counts: WatchedCounts = field(init=False)
    health: HealthTable = field(init=False)
    drains: DrainTable = field(init=False)
    events: EventLog = field(init=False)
    refresher: CountRefresher = field(init=False)
    checker: HealthChecker = field(init=False)
    builder: Builder = field(init=False)
    proxy: Proxy = field(init=False)
    mover: Mover = field(init=False)
    reloader: SimReloader = field(init=False)
    witness: Witness = field(init=False)
    table: SimTable | None = field(init=False)


@asynccontextmanager
async def world(
    seed: int,
    made_of: Document,
    rng: random.Random,
    *,
    rough: float = 0.0,
    tls: float = 0.0,
    in_kernel: bool = False,
) -> AsyncIterator[World]:
    """Make the world of one story; whatever goes wrong in it raises at the end."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as logs:
        made = World(seed, rng, Network(rng), logs, made_of, rough, tls, in_kernel)
        with made.scope:
            yield made
        if made.failure is not None:
            raise made.failure
