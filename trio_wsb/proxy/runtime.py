"""The runtime snapshot: a checked configuration turned into what a connection asks for.

Every value here is immutable; a reload builds a whole new `Runtime` and one assignment swaps it in. What must
outlive a reload (backends, counts, sessions) is only referred to: it lives in the tables that `Proxy` owns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import trio
from attrs import field, frozen

from trio_wsb.addresses import BackendURL, IPAddress
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.http.head import REQUEST_LIMITS, HeadLimits, RequestHead
from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.chain import Step
from trio_wsb.proxy.mirrors import Mirrors
from trio_wsb.proxy.places import HandshakePlaces
from trio_wsb.proxy.relay import SCRATCH_SIZE
from trio_wsb.proxy.services import ServiceNode as ServiceNode  # noqa: PLC0414 - part of this module's interface
from trio_wsb.proxy.services import ServiceRuntime as ServiceRuntime  # noqa: PLC0414
from trio_wsb.proxy.services import TransportRuntime as TransportRuntime  # noqa: PLC0414
from trio_wsb.proxy.session import SessionTable
from trio_wsb.proxy.sweeper import Sweeper
from trio_wsb.routing.table import RouterTable


@frozen
class PingService:
    """The service that answers as /ping does, with this status while the daemon stops."""

    status_stopping: int = 503


@frozen
class Route:
    """Where a router leads: through the steps of its middlewares to its service."""

    service: ServiceNode | PingService
    steps: tuple[Step, ...] = ()


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
    head_limits: HeadLimits = REQUEST_LIMITS


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


Internal = Callable[[EntryPointRuntime, IPAddress | None, RequestHead, bool], bytes | None]
"""Answers a request that is for the balancer itself, or returns None for one that is to be routed.

Called with the entry point, the peer's address, the head, and whether the connection stays open after the answer.
"""


class Proxy:
    """What every connection shares: the current runtime, and the state that outlives it."""

    def __init__(self, runtime: Runtime, *, dial: Dial, server_name: str = "") -> None:
        self.runtime = runtime
        """Replaced as a whole by a reload; a connection looks it up for each request."""
        self.dial = dial
        """Connects to a backend; another one lets the whole proxy run without a network."""
        self.server_name = server_name
        """This host's name, for X-Forwarded-Server; "" sends none."""
        self.internal: Internal | None = None
        """Asked before the routers, if whoever made the proxy has set it."""
        self.sessions = SessionTable()
        self.sweeper = Sweeper(self.sessions.losses.report)
        self.mirrors = Mirrors()
        self.places = HandshakePlaces()
        """Bounds the handshakes under way."""
        self.connections: Counter[str] = Counter()
        """Open client connections by entry point."""
        self.stopping = False
        self.scratch = memoryview(bytearray(SCRATCH_SIZE))
        """Receive buffer of all connections: what is read is used up or copied before the next checkpoint."""
        self._idle: set[trio.CancelScope] = set()

    def stop(self) -> None:
        """From now on: /ping says so, requests are the last of their connections, idle ones end."""
        self.stopping = True
        for scope in self._idle:
            scope.cancel()

    def idle_begins(self, scope: trio.CancelScope) -> None:
        """`scope` waits for a client's next request; a stop may cancel it."""
        self._idle.add(scope)

    def idle_ends(self, scope: trio.CancelScope) -> None:
        """`scope` is needed again, or over."""
        self._idle.discard(scope)
