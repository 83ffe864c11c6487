"""A fleet in virtual time: backends, balancers with the real rebalancing code, and clients that reconnect; no network.

Only sockets are missing. Pools, count tables, plans and the task that carries them out are those of the daemon; time is that
of `trio.testing.MockClock`, so that an hour takes seconds. Reports are taken at one moment and arrive later, clients come back
after a pause of their own, to any of the balancers.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence

import trio
from attrs import define, evolve, field, frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountKey, CountTable
from trio_wsb.balancing.moving import Moving, RebalancePolicy
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.daemon.rebalance import Rebalancer
from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.runtime import Proxy, Runtime
from trio_wsb.proxy.services import ServiceRuntime, TransportRuntime
from trio_wsb.proxy.session import Session, SessionTable

SERVICE = "fleet"
COUNT = ("/metric", "agentsConnections")
HANDSHAKE = 0.02
"""Seconds that a handshake takes."""

LAST_WORDS = 0.05
"""Seconds from a Close frame to the end of its session."""

REPORT_DELAY = 0.2
"""Seconds from the moment that a backend counts to the arrival of its report."""


@frozen
class Scenario:
    """What happens in a fleet. Times are seconds.

    `loads` are the sessions of each backend at the beginning, one that is to be added later has none; `reconnect` is the
    range from which each client draws its pause. `churn` is the mean life of a session whose client then comes back as a
    new one; 0 is for ever.
    """

    loads: tuple[int, ...]
    weights: tuple[int, ...] = ()
    balancers: int = 1
    strategy: str = "leastconn"
    interval: float = 30.0
    reconnect: tuple[float, float] = (0.5, 5.0)
    churn: float = 0.0
    policy: RebalancePolicy = field(factory=lambda: RebalancePolicy(enabled=True, min_age=0.0))
    duration: float = 600.0
    seed: int = 1


class _Told(Relay):
    """The one thing of a relay that moving sessions needs: that it can be told to end."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self.cause = None
        self.ending = False

    def end(self, cause: Cause, code: int, timeout: float, reason: str = "") -> None:  # noqa: ARG002 - the relay's
        """See `Relay.end`."""
        self.cause, self.ending = cause, True
        self._told()


class _Sessions(SessionTable):
    """A session table whose sessions come and go without a connection, and without a line in the log."""

    def add(self, session: Session) -> None:
        session.id = next(self._ids)
        session.opened_at = trio.current_time()
        self._sessions[session.id] = session
        session.backend.session_opened(session.opened_at)

    def remove(self, session: Session) -> None:
        del self._sessions[session.id]
        session.backend.session_ended(trio.current_time(), session.opened_at)


@define(eq=False)
class Balancer:
    """One daemon: what it knows and does."""

    backends: list[Backend]
    counts: CountTable
    pool: Pool
    sessions: _Sessions
    rebalancer: Rebalancer


@define
class Sample:
    """The fleet at one moment: the connections of each backend, and how many clients have none."""

    time: float
    loads: list[int]
    away: int


class Fleet:
    """A scenario that runs; `run` it once, under a mock clock."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed)
        self.shed: list[tuple[float, int]] = []
        """When a session was told to go, and of which backend."""
        self.samples: list[Sample] = []
        self.lowest_after_shed: dict[int, int] = {}
        """The least connections that a backend had left when it shed, those that were told to go not counted."""
        self._told = [0] * len(scenario.loads)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._away = 0
        self._wake = trio.Event()
        self.balancers = [self._balancer() for _ in range(scenario.balancers)]

    @property
    def loads(self) -> list[int]:
        """The connections of each backend."""
        return [
            sum(each.backends[index].live for each in self.balancers)
            for index in range(len(self.scenario.loads))
        ]

    async def run(self, every: float = 5.0) -> None:
        """Let the scenario happen, and take a sample `every` so many seconds."""
        scenario = self.scenario
        for index, count in enumerate(scenario.loads):
            for number in range(count):
                self._open(self.balancers[number % scenario.balancers], index)
        for balancer in self.balancers:
            for index in range(len(scenario.loads)):
                self._ask(balancer, index)
                first = scenario.interval * self.rng.random()
                self.after(first, lambda b=balancer, i=index: self._ask_again(b, i))  # type: ignore[misc]
        async with trio.open_nursery() as nursery:
            for balancer in self.balancers:
                nursery.start_soon(balancer.rebalancer.run)
            nursery.start_soon(self._happen)
            until = trio.current_time() + scenario.duration
            begun = trio.current_time()
            while trio.current_time() < until:
                self.samples.append(Sample(trio.current_time() - begun, self.loads, self._away))
                await trio.sleep(every)
            nursery.cancel_scope.cancel()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let `event` happen in so many seconds."""
        heapq.heappush(self._events, (trio.current_time() + seconds, next(self._order), event))
        self._wake.set()

    async def _happen(self) -> None:
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2]()
            with trio.move_on_at(self._events[0][0] if self._events else float("inf")):
                await self._wake.wait()

    def _balancer(self) -> Balancer:
        scenario, counts = self.scenario, CountTable()
        backends = [
            Backend(BackendURL("http", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80))
            for n in range(len(scenario.loads))
        ]
        weights = scenario.weights or (1,) * len(backends)
        pool = Pool(
            [Member(backend, weight) for backend, weight in zip(backends, weights, strict=True)],
            scenario.strategy,
            counts=counts,
            count=COUNT,
            rng=self.rng,
        )
        moving = Moving(
            rebalance=scenario.policy, report_interval=scenario.interval, stale_after=3 * scenario.interval
        )
        transport = TransportRuntime(10.0, 30.0, None, None)
        service = ServiceRuntime(SERVICE, pool, transport, True, 10.0, moving=moving)
        proxy = Proxy(Runtime({}, {SERVICE: service}), dial=_never)
        proxy.sessions = sessions = _Sessions()
        return Balancer(backends, counts, pool, sessions, Rebalancer(proxy, self.rng))

    # Sessions.

    def _open(self, balancer: Balancer, index: int | None = None) -> None:
        """Open a session, at the backend that the balancer chooses unless one is given."""
        backend = (
            balancer.pool.choose(None, trio.current_time()) if index is None else balancer.backends[index]
        )
        assert backend is not None
        backend.begin_handshake()
        if index is None:
            self.after(HANDSHAKE, lambda: self._opened(balancer, backend))
        else:
            self._opened(balancer, backend)

    def _opened(self, balancer: Balancer, backend: Backend) -> None:
        relay = _Told(lambda: self._was_told(balancer, session))
        session = Session(relay, backend, SERVICE, "r", "web", "c", "c", "h", "/", 1)
        balancer.sessions.add(session)
        self._away = max(0, self._away - 1)
        if self.scenario.churn:
            life = self.rng.expovariate(1 / self.scenario.churn)
            self.after(life, lambda: self._leave(balancer, session))

    def _was_told(self, balancer: Balancer, session: Session) -> None:
        index = balancer.backends.index(session.backend)
        self.shed.append((trio.current_time(), index))
        self._told[index] += 1
        left = self.loads_of(index) - self._told[index]
        self.lowest_after_shed[index] = min(left, self.lowest_after_shed.get(index, left))

        def end() -> None:
            self._told[index] -= 1
            self._leave(balancer, session)

        self.after(LAST_WORDS, end)

    def loads_of(self, index: int) -> int:
        """Return the connections of one backend."""
        return sum(each.backends[index].live for each in self.balancers)

    def _leave(self, balancer: Balancer, session: Session) -> None:
        if session not in balancer.sessions:
            return
        balancer.sessions.remove(session)
        self._away += 1
        low, high = self.scenario.reconnect
        self.after(self.rng.uniform(low, high), lambda: self._open(self.rng.choice(self.balancers)))

    # Reports.

    def _ask_again(self, balancer: Balancer, index: int) -> None:
        self._ask(balancer, index, REPORT_DELAY)
        self.after(self.scenario.interval, lambda: self._ask_again(balancer, index))

    def _ask(self, balancer: Balancer, index: int, delay: float = 0.0) -> None:
        backend = balancer.backends[index]
        sample = balancer.counts.start(CountKey(backend.url, *COUNT), backend.live, trio.current_time())
        reported = self.loads_of(index)

        def arrived() -> None:
            balancer.counts.finish(sample, reported, backend.live, backend.pending, trio.current_time())

        if delay:
            self.after(delay, arrived)
        else:
            arrived()


async def _never(*_: object) -> ByteChannel:
    raise AssertionError("nobody dials here")


def scale_out(old: int, new: int, sessions: int, **changes: object) -> Scenario:
    """Return the scenario of a service to which empty backends were added: `sessions` on each of the old ones."""
    return evolve(Scenario((sessions,) * old + (0,) * new), **changes)  # type: ignore[arg-type]


def spread(loads: Sequence[int]) -> tuple[int, int]:
    """Return the least and the most."""
    return min(loads), max(loads)
