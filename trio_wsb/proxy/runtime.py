"""The runtime snapshot: a checked configuration turned into what a connection asks for.

Every value here is immutable; a reload builds a whole new `Runtime` and one assignment swaps it in. What must
outlive a reload (backends, counts, sessions) is only referred to: it lives in the tables that `Proxy` owns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import trio
from attrs import field, frozen

from trio_wsb.addresses import BackendURL, IPAddress
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.http.head import REQUEST_LIMITS, HeadLimits, RequestHead
from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.chain import Step
from trio_wsb.proxy.crowd import Crowd
from trio_wsb.proxy.mirrors import Mirrors
from trio_wsb.proxy.places import HandshakePlaces
from trio_wsb.proxy.record import Observers
from trio_wsb.proxy.relay import SCRATCH_SIZE
from trio_wsb.proxy.relaying import KernelState
from trio_wsb.proxy.secure import Handshakes, TLSEntry
from trio_wsb.proxy.services import ServiceNode as ServiceNode  # noqa: PLC0414 - part of this module's interface
from trio_wsb.proxy.services import ServiceRuntime as ServiceRuntime  # noqa: PLC0414
from trio_wsb.proxy.services import TransportRuntime as TransportRuntime  # noqa: PLC0414
from trio_wsb.proxy.session import SessionTable
from trio_wsb.proxy.sweeper import Sweeper
from trio_wsb.routing.table import RouterTable

if TYPE_CHECKING:
    from trio_wsb.proxy.internal import InternalRequest

Handler: TypeAlias = "Callable[[InternalRequest], Awaitable[bool]]"
"""Answers a request that is for the balancer itself; whether the connection can serve another one.

It may raise HTTPError, which becomes a refusal as any other, and ClientLeft.
"""


@frozen
class InternalService:
    """A service of the balancer itself: `ping@internal`, `api@internal` and their like."""

    name: str
    handler: Handler


@frozen
class Route:
    """Where a router leads: through the steps of its middlewares to its service."""

    service: ServiceNode | InternalService
    steps: tuple[Step, ...] = ()
    client_auth: Hashable = None
    """What a client must have shown of itself when it connected; see `trio_wsb.proxy.secure`."""


@frozen
class EntryPointRuntime:
    """An entry point: limits, trust, and the routers that it offers requests to. Times in seconds."""

    name: str
    port: int
    read_timeout: float
    idle_timeout: float
    max_connections: int
    accept_grace: float
    grace: float
    policy: ForwardPolicy
    ping: bool
    ping_status_stopping: int
    routers: RouterTable[Route]
    """For plain requests."""
    head_limits: HeadLimits = REQUEST_LIMITS
    tls: TLSEntry | None = None
    """What TLS is served with; None where it is not spoken."""
    tls_routers: RouterTable[Route] = field(factory=lambda: RouterTable[Route](()))
    """For requests over TLS."""
    proxy_protocol: ForwardPolicy | None = None
    """Whose PROXY headers are believed; None where none is read."""
    pending_per_address: int = 0
    connections_per_address: int = 0
    steps: tuple[Step, ...] = ()
    """Middlewares of the entry point, for its pages that need no router; a route has them among its own."""


@frozen
class Runtime:
    """One configuration, ready to serve."""

    entry_points: Mapping[str, EntryPointRuntime]
    services: Mapping[str, ServiceRuntime] = field(factory=dict)
    """Every load balancer, those that no router names included."""
    parents: Mapping[str, ServiceNode] = field(factory=dict)
    """Every other service."""
    balancer_metric_path: str = ""


Dial = Callable[[BackendURL, TransportRuntime], Awaitable[ByteChannel]]
"""Connects to a backend under its dial timeout; raises DialError; the caller owns the channel."""


Internal: TypeAlias = "Callable[[EntryPointRuntime, IPAddress | None, RequestHead], Handler | None]"
"""Finds who answers a request that is for the balancer itself, or returns None for one that is to be routed.

Called with the entry point, the peer's address and the head.
"""


class Proxy:
    """What every connection shares: the current runtime, and the state that outlives it."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        dial: Dial,
        server_name: str = "",
        wall_clock: Callable[[], float] | None = None,
    ) -> None:
        self.runtime = runtime
        """Replaced as a whole by `swap`; a connection looks it up for each request."""
        self.dial = dial
        """Connects to a backend; another one lets the whole proxy run without a network."""
        self.server_name = server_name
        """This host's name, for X-Forwarded-Server; "" sends none."""
        self._wall_clock = wall_clock
        self.internal: Internal | None = None
        """Asked before the routers, if whoever made the proxy has set it."""
        self.sessions = SessionTable()
        self.sweeper = Sweeper(self.sessions.losses.report)
        self.kernel = KernelState()
        """The sessions whose bytes the kernel moves, where it can."""
        self.mirrors = Mirrors()
        self.places = HandshakePlaces()
        """Bounds the handshakes under way."""
        self.handshakes = Handshakes()
        """TLS handshakes of clients."""
        self.crowd = Crowd()
        """What each client address takes of an entry point."""
        self.connections: Counter[str] = Counter()
        """Open client connections by entry point."""
        self.over_limit: Counter[str] = Counter()
        """Connections refused over maxConnections, by entry point; survives reloads."""
        self.stopping = False
        self.scratch = memoryview(bytearray(SCRATCH_SIZE))
        """Receive buffer of all connections: what is read is used up or copied before the next checkpoint."""
        self._idle: dict[trio.CancelScope, str] = {}
        self._requests = itertools.count(1)

    @property
    def observers(self) -> Observers:
        """Who is told of requests and sessions; replaced as a whole."""
        return self.sessions.observers

    @observers.setter
    def observers(self, observers: Observers) -> None:
        self.sessions.observers = observers

    def next_request(self) -> int:
        """Return the number of the request that begins now, from 1."""
        return next(self._requests)

    def date(self) -> float | None:
        """Return the time for the Date of an answer that has none, in seconds since 1970; None without a clock."""
        return None if self._wall_clock is None else self._wall_clock()

    def swap(self, runtime: Runtime) -> None:
        """Put another runtime in force; idle connections of entry points that it has not end."""
        self.runtime = runtime
        for scope, entry_point in self._idle.items():
            if entry_point not in runtime.entry_points:
                scope.cancel()

    def stop(self) -> None:
        """From now on: /ping says so, requests are the last of their connections, idle ones end."""
        self.stopping = True
        for scope in self._idle:
            scope.cancel()

    def idle_begins(self, scope: trio.CancelScope, entry_point: str) -> None:
        """`scope` waits for the next request of a client of `entry_point`; a stop or a reload may cancel it."""
        self._idle[scope] = entry_point

    def idle_ends(self, scope: trio.CancelScope) -> None:
        """`scope` is needed again, or over."""
        self._idle.pop(scope, None)
