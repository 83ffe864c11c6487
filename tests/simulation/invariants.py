"""What must hold after every step of every task, now and then in full, and when all is over."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Sequence

import trio
from trio.abc import Instrument
from trio.lowlevel import Task

from tests.simulation.crowd import Crowd
from tests.simulation.ledger import Violation
from tests.simulation.world import ENTRY, SERVICE, World
from trio_wsb.balancing.backend import Backend
from trio_wsb.daemon import views
from trio_wsb.daemon.views import Moment
from trio_wsb.proxy.mirrors import TappedChannel

FULL_CHECK = 1.0
"""Seconds between two full checks."""

QUIET = 30.0
"""Seconds after the last conversation until nothing may be left of it anywhere."""


class EveryStep(Instrument):
    """Checks the counts after each step of each task."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions = world.proxy.sessions
        self._copied = world.copied
        # As few look-ups as can be: this is done a million times.
        self._backends: Sequence[weakref.ref[Backend]] = ()
        self.steps = 0

    def after_task_step(self, task: Task) -> None:
        """Compare what is counted in several places. What this raises would be swallowed."""
        self.steps += 1
        world = self._world
        live = 0
        copied = self._copied
        known = world.tables._known
        if len(known) != len(self._backends):
            self._backends = known.valuerefs()
        for ref in self._backends:
            backend = ref()
            if backend is None:
                self._backends = ()
                continue
            own = backend.live
            if backend.url not in copied:
                live += own
            if own < 0 or backend.own < own or backend.opening < 0:
                world.fail(Violation(f"after a step of {task.name}: {backend!r} own={backend.own}"))
        if live != len(self._sessions) or live != len(world.witness.live):
            world.fail(
                Violation(
                    f"after a step of {task.name}: {live} sessions at backends, {len(self._sessions)} in the table, "
                    f"{len(world.witness.live)} told to observers"
                )
            )


def equal(what: str, **figures: object) -> None:
    """Raise Violation unless all figures are the same."""
    if len(set(figures.values())) != 1:
        raise Violation(f"{what}: " + ", ".join(f"{name} {figure}" for name, figure in figures.items()))


def check(world: World) -> None:
    """Compare everything that counts sessions. Raises Violation."""
    proxy, witness, figures = world.proxy, world.witness, world.metrics.figures
    sessions = proxy.sessions
    copied = world.copied
    backends = [backend for backend in world.tables if backend.url not in copied]
    totals = views.session_totals(world.state)
    equal(
        "open sessions",
        table=len(sessions),
        observers=witness.opened - witness.ended,
        backends=sum(backend.live for backend in backends),
        metrics=figures.opened - sum(figures.ended.values()),
        service=figures.service(SERVICE).open,
        status=totals["open"],
        entry=sum(level.open for level in figures.entry_points.values()),
        routers=sum(level.open for level in figures.routers.values()),
        by_backend=sum(each.open for _, found in figures.backends() for each in found.values()),
    )
    equal("sessions opened", table=sessions.opened_total, observers=witness.opened, metrics=figures.opened)
    equal(
        "sessions ended",
        table=sum(sessions.ended_total.values()),
        observers=witness.ended,
        metrics=sum(figures.ended.values()),
        tally=sum(world.api.tally.close_codes.values()),
    )
    open_copies = Counter(backend.url for backend, _ in proxy.mirrors._open.values())
    for backend in world.tables:
        if backend.url in copied and backend.live != open_copies[backend.url]:
            raise Violation(
                f"{backend.live} copies counted at {backend.url}, {open_copies[backend.url]} are open"
            )
    if any(count > 1 for count in world.copies_done.values()):
        raise Violation("a copy of a plain request was sent twice")
    for session in sessions:
        if session.relay.up.ended and session.relay.down.ended:
            raise Violation(f"session {session.id} is counted as live and both directions have ended")
    if proxy.connections[ENTRY] > world.serving or proxy.connections[ENTRY] < len(sessions):
        raise Violation(f"{proxy.connections[ENTRY]} connections counted, {world.serving} are served")
    for drain in world.drains:
        if min(drain.total, drain.ended, drain.cut, drain.left, drain.closing) < 0:
            raise Violation(f"a drain counts below 0: {drain}")
    for entry in world.counts:
        if entry.foreign is not None and entry.foreign < 0:
            raise Violation(f"foreign connections below 0: {entry.key}")
    if world.table is not None and world.table.stalls:
        raise Violation("the kernel relay lost sight of bytes")
    for line in world.logs:
        if str(line["event"]).startswith("internal error"):
            raise Violation(f"a fault of the balancer's own: {line}")


async def keep_checking(world: World) -> None:
    """Check in full once a second until cancelled, and whenever a page or a command would look."""
    while True:
        try:
            check(world)
        except Violation as violation:
            world.fail(violation)
        await trio.sleep(FULL_CHECK)


async def nothing_left(world: World, crowd: Crowd) -> None:
    """Wait until all is over and see that nothing of it is left. Raises Violation."""
    await trio.sleep(QUIET)
    check(world)
    proxy = world.proxy
    left = {
        "sessions": len(proxy.sessions),
        "connections": proxy.connections[ENTRY],
        "tasks": world.serving,
        "children of the connections' nursery": len(world.nursery.child_tasks),
        "attempts at backends": sum(backend.own for backend in world.tables),
        "bounded attempts": sum(backend.opening for backend in world.tables),
        "waiting for a place": proxy.places.waiting(SERVICE),
        "watched by the sweeper": len(proxy.sweeper._watched),
        "channels": sum(not channel.closed for channel in world.network.open),
        "sessions never judged": len(world.witness.sessions),
        "sessions of drains": sum(drain.left for drain in world.drains),
        "idle requests": len(proxy._idle),
        "copies": proxy.mirrors.running + len(proxy.mirrors._open),
    }
    if world.table is not None:
        left |= {"sessions in the kernel": len(world.table), "sockets in the map": world.table.entries()}
    found = {name: count for name, count in left.items() if count}
    if found:
        raise Violation(f"left over: {found}")
    if crowd.open:
        raise Violation("a conversation was never judged")
    views.status(world.state, Moment(trio.current_time(), 1.7e9))


class Memory:
    """Sees that nothing keeps sessions that are over."""

    def __init__(self, world: World) -> None:
        self._alive: weakref.WeakSet[object] = weakref.WeakSet()
        self._world = world
        world.on_dial.append(lambda _, __: self._note())

    def _note(self) -> None:
        for session in self._world.proxy.sessions:
            client = session.relay.client
            self._alive.add(client._inner if isinstance(client, TappedChannel) else client)

    def check(self) -> None:
        """Raise Violation if anything still holds a session that is over."""
        gc.collect()
        if len(self._alive):
            raise Violation(f"{len(self._alive)} sessions that are over are still in memory")
