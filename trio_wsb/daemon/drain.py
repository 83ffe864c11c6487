"""Draining: taking the sessions of a backend away, at a pace that the other backends can bear.

The backend is out of the choice from the moment its drain is in the table. Its sessions get their Close frames one by one on
the schedule of a `Pacer`, in random order; the clients reconnect, to other backends. What a Close frame does not end within
`CLOSE_TIMEOUT` is cut. Sessions that open late, of handshakes that were under way, are found by looking again.

A finished drain stays, and with it the watch for stragglers, until somebody takes it back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import inf
from typing import Final

import structlog
import trio
from attrs import define, evolve, field

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.balancing.drain import Drain, DrainKey, DrainTable
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.balancing.pacing import Pacer
from trio_wsb.daemon.scan import sessions_where
from trio_wsb.observe.events import EventLog, Kind, Value
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.runtime import Proxy
from trio_wsb.proxy.services import ServiceRuntime
from trio_wsb.proxy.session import Session

log = structlog.stdlib.get_logger("trio_wsb.drain")

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that a session has to end after its Close frame."""

CLOSING_SHARE: Final = 0.8
"""The part of a timeout in which Close frames go out, unless the last `CLOSE_TIMEOUT` seconds are enough for the rest."""

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks for sessions that are new at the backend."""

TICK: Final = 0.1
"""Seconds between two looks at who has ended."""

SHORTEST_NAP: Final = 0.002
"""Seconds between two Close frames at least, where the rate asks for less several go out at once."""


@define(eq=False)
class _Work:
    """What a drain is about at the moment."""

    drain: Drain
    backend: Backend
    pacer: Pacer
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    queue: list[Session] = field(factory=list)
    """Those that are to be told."""
    closing: dict[Session, float] = field(factory=dict)
    """Those that were told, and when they are cut."""
    cutting: set[Session] = field(factory=set)
    """Those that were cut, until they are gone."""

    @property
    def left(self) -> int:
        """Sessions, and for a whole backend handshakes, requests and copies too."""
        own = len(self.queue) + len(self.closing) + len(self.cutting)
        return max(own, self.backend.own) if self.drain.key.service is None else own


class Drainer:
    """Carries out drains, from `run` on until that is cancelled.

    Args:
      proxy: whose sessions they are.
      table: where drains are kept; nobody else begins or ends any.
      backends: where their backends are found.
      rng: for the order of the sessions and the moments of their ends.
      events: where beginnings and ends are recorded.

    """

    def __init__(
        self,
        proxy: Proxy,
        table: DrainTable,
        backends: BackendTable,
        rng: random.Random | None = None,
        events: EventLog | None = None,
    ) -> None:
        self._events = EventLog() if events is None else events
        self._proxy = proxy
        self._backends = backends
        self._rng = rng or random.Random()
        self._work: dict[DrainKey, _Work] = {}
        self._nursery: trio.Nursery | None = None
        self.table = table

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drain until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for work in self._work.values():
                    nursery.start_soon(self._run, work)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def drain(self, key: DrainKey, policy: DrainPolicy, *, removal: bool = False) -> Drain:
        """Begin a drain, or let the one that is under way go on with another policy.

        A timeout counts from the beginning of the drain; another one than before counts from now.
        """
        now = trio.current_time()
        drain = self.table.get(key)
        if drain is None:
            drain = self.table.begin(key, policy, now, removal=removal)
            backend = self._backends.get(key.url)
            work = self._work[key] = _Work(drain, backend, Pacer(policy.rate, now, self._rng))
            drain.left = work.left
            details = {**_words(drain), "sessions": backend.live, **_policy_words(policy)}
            log.info("drain begins", **details)
            self._events.record(Kind.DRAIN_STARTED, **details)
            if self._nursery is not None:
                self._nursery.start_soon(self._run, work)
            return drain
        drain.removal = drain.removal and removal
        if policy != drain.policy:
            if drain.finished_at is None and policy.timeout != drain.policy.timeout and policy.timeout:
                policy = evolve(policy, timeout=now - drain.begun_at + policy.timeout)
            drain.policy = policy
            log.info("drain changed", **_words(drain), **_policy_words(policy))
        return drain

    def ready(self, key: DrainKey) -> Drain | None:
        """Take a drain back: what was not told to go stays. Returns it, or None when there is none."""
        drain = self.table.end(key)
        if drain is not None:
            work = self._work.pop(key)
            work.scope.cancel()
            _settle(work, self._proxy)
            details = {**_words(drain), **_outcome(drain)}
            log.info("backend ready again", **details)
            self._events.record(Kind.BACKEND_READY, **details)
        return drain

    def configuration_changed(
        self, before: Mapping[str, ServiceRuntime], after: Mapping[str, ServiceRuntime]
    ) -> None:
        """Drain what has left the configuration where it says so, and take that back for what has returned."""
        for drain in self.table:
            service = after.get(drain.key.service or "")
            if drain.removal and service is not None and _member(service, drain.key.url):
                self.ready(drain.key)
        for name, old in before.items():
            new = after.get(name)
            moving = (new or old).moving
            if not moving.drain_removed:
                continue
            for member in old.pool.members:
                url = member.backend.url
                gone = new is None or not _member(new, url)
                if gone and member.backend.own and self.table.covering(url, name) is None:
                    self.drain(DrainKey(url, name), moving.drain, removal=True)

    async def _run(self, work: _Work) -> None:
        with work.scope:
            try:
                await self._drain(work)
            except Exception:
                # A fault in here must not end the daemon; the backend stays out of the choice.
                log.exception("internal error", **_words(work.drain))

    async def _drain(self, work: _Work) -> None:
        drain, look_at = work.drain, trio.current_time()
        while not self._proxy.stopping:  # the stop has a pace of its own
            looked = False
            if not work.queue and trio.current_time() >= look_at:
                await self._look(work)
                looked, look_at = True, trio.current_time() + LOOK_AGAIN
            now = trio.current_time()
            _settle(work, self._proxy)
            if drain.finished_at is None and drain.deadline is not None and now >= drain.deadline:
                self._cut(work)
            self._keep_pace(work, now)
            self._end_those_due(work, now)
            drain.left = work.left
            over = drain.timed_out and not work.cutting
            if drain.finished_at is None and (over or (looked and not drain.left)):
                self._finish(drain, now)
            if drain.removal and drain.finished_at is not None and not (work.queue or work.closing):
                # Nothing can choose it any more, so that there is nothing to remember.
                self.table.end(drain.key)
                del self._work[drain.key]
                return
            await trio.sleep_until(self._next_step(work, look_at))

    def _next_step(self, work: _Work, look_at: float) -> float:
        now = trio.current_time()
        if work.queue:
            return min(max(work.pacer.next_at, now + SHORTEST_NAP), now + TICK)
        return now + TICK if work.closing or work.cutting else look_at

    async def _look(self, work: _Work) -> None:
        """Find the sessions that are at the backend and not known yet."""
        key, known = work.drain.key, work.closing.keys() | work.cutting
        self._proxy.mirrors.drain(work.backend, key.service)
        if not work.backend.live:
            return

        def fits(session: Session) -> bool:
            return (
                session.backend is work.backend
                and key.service in {None, session.service}
                and session not in known
            )

        work.queue = await sessions_where(self._proxy.sessions, fits)
        self._rng.shuffle(work.queue)
        work.drain.total += len(work.queue)

    def _keep_pace(self, work: _Work, now: float) -> None:
        """Go at the policy's rate, or faster if the time would not be enough."""
        drain = work.drain
        rate, deadline = drain.policy.rate, drain.deadline
        if deadline is not None and drain.finished_at is None and work.queue:
            timeout = drain.policy.timeout
            until = drain.begun_at + max(timeout * CLOSING_SHARE, timeout - CLOSE_TIMEOUT)
            needed = len(work.queue) / max(until - now, TICK)
            if needed > rate:
                # Not at each look a little: the schedule would begin anew each time.
                rate = needed if abs(needed - work.pacer.rate) > work.pacer.rate / 20 else work.pacer.rate
        drain.rate = rate
        work.pacer.change(rate, now)

    def _end_those_due(self, work: _Work, now: float) -> None:
        drain, sessions = work.drain, self._proxy.sessions
        while work.queue:
            session = work.queue[-1]
            if session not in sessions:
                work.queue.pop()
                drain.ended += 1
            elif session.relay.ending:  # somebody else was quicker
                work.queue.pop()
                work.closing[session] = inf
            elif work.pacer.take(now):
                work.queue.pop()
                left = CLOSE_TIMEOUT if drain.deadline is None else drain.deadline - now
                timeout = min(CLOSE_TIMEOUT, left) if left > 0 else CLOSE_TIMEOUT
                session.relay.end(Cause.DRAIN, drain.policy.close_code, timeout)
                work.closing[session] = now + timeout
            else:
                break
        drain.closing = len(work.closing)

    def _cut(self, work: _Work) -> None:
        work.drain.timed_out = True
        rest = [session for session in (*work.queue, *work.closing) if session in self._proxy.sessions]
        work.drain.ended += len(work.queue) + len(work.closing) - len(rest)
        work.queue.clear()
        work.closing.clear()
        if rest:
            log.warning("drain over its timeout, cutting sessions", **_words(work.drain), sessions=len(rest))
        for session in rest:
            session.relay.cut(Cause.DRAIN)
            work.cutting.add(session)
        work.drain.cut += len(rest)

    def _finish(self, drain: Drain, now: float) -> None:
        drain.finished_at = now
        details = {**_words(drain), **_outcome(drain), "duration": round(now - drain.begun_at, 3)}
        emit = log.warning if drain.left else log.info
        emit("drained", **details)
        self._events.record(Kind.DRAIN_DONE, "warning" if drain.left else "info", **details)


def _settle(work: _Work, proxy: Proxy) -> None:
    """Count those that have ended since the last time."""
    over = [session for session in work.closing if session not in proxy.sessions]
    for session in over:
        # A client that breaks off instead of answering has ended it all the same.
        cut_at = work.closing.pop(session)
        if (session.ended_at or -inf) >= cut_at and not session.relay.up.scanner.closed:
            work.drain.cut += 1
        else:
            work.drain.ended += 1
    work.drain.closing = len(work.closing)
    work.cutting = {session for session in work.cutting if session in proxy.sessions}


def _member(service: ServiceRuntime, url: BackendURL) -> bool:
    return any(member.backend.url == url for member in service.pool.members)


def _words(drain: Drain) -> dict[str, Value]:
    words: dict[str, Value] = {"backend": str(drain.key.url)}
    return words if drain.key.service is None else {"service": drain.key.service, **words}


def _policy_words(policy: DrainPolicy) -> dict[str, Value]:
    return {
        "rate": round(policy.rate, 3),
        "closeCode": policy.close_code,
        "timeout": round(policy.timeout, 3),
    }


def _outcome(drain: Drain) -> dict[str, Value]:
    return {"ended": drain.ended, "cut": drain.cut, "left": drain.left}
