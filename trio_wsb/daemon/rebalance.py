"""Rebalancing in the running daemon: looks at the services, and lets backends with too much shed sessions at a pace.

What is to be shed says `trio_wsb.balancing.rebalance`; here sessions are picked and told, each after another look at whether it
is still right. They are picked at random among those that are old enough: by age the same group of clients, such as all that
connected at the last restart, would be hit together, and the same ones again and again.
"""

from __future__ import annotations

import random
from typing import Final

import structlog
import trio
from attrs import define, field

from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.pacing import Pacer
from trio_wsb.balancing.rebalance import Figure, Plan, Rebalance, Verdict
from trio_wsb.daemon.drain import CLOSE_TIMEOUT
from trio_wsb.daemon.scan import sessions_where
from trio_wsb.observe.events import EventLog, Kind, Value
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.runtime import Proxy
from trio_wsb.proxy.services import ServiceRuntime
from trio_wsb.proxy.session import Session

log = structlog.stdlib.get_logger("trio_wsb.rebalance")

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the services that rebalance by themselves."""

FRESH: Final = 0.25
"""Seconds for which the loads of a service are taken as they were: a thousand backends cost a millisecond to look at."""


@define(eq=False)
class Progress:
    """How far the present plan of a service is, or the last one was."""

    plan: Plan
    backends: tuple[Backend, ...]
    """Of the pool that it was made for; the plan has their indices."""
    weights: tuple[int, ...]
    begun_at: float
    asked_for: bool
    """Whether it was a command, not the configuration."""
    queue: list[tuple[int, Session]] = field(factory=list)
    closing: dict[int, set[Session]] = field(factory=dict)
    shed: int = 0
    """Sessions that were told to go."""
    kept: int = 0
    """Sessions that were to go and were not needed any more, or ended by themselves."""
    finished_at: float | None = None

    def fits(self, service: ServiceRuntime) -> bool:
        """Whether the service still has the backends and weights that the plan is about."""
        members = service.pool.members
        same = self.backends == tuple(member.backend for member in members)
        return same and self.weights == tuple(member.weight for member in members)


class Rebalancer:
    """Rebalances services, from `run` on until that is cancelled.

    Args:
      proxy: whose services and sessions they are.
      rng: picks the sessions and draws the moments.
      events: where beginnings and ends are recorded.

    """

    def __init__(
        self, proxy: Proxy, rng: random.Random | None = None, events: EventLog | None = None
    ) -> None:
        self._events = EventLog() if events is None else events
        self._proxy = proxy
        self._rng = rng or random.Random()
        self.states: dict[str, Rebalance] = {}
        """What is known of each service that was looked at."""
        self._nursery: trio.Nursery | None = None
        self.progress: dict[str, Progress] = {}
        """What is under way, or was the last that was, by service."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Rebalance until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                while True:
                    await trio.sleep(LOOK_INTERVAL)
                    await self._look()
            finally:
                self._nursery = None

    def verdict(self, service: ServiceRuntime) -> Verdict:
        """Return what would be shed if somebody asked for it now."""
        hindrance = self._hindrance(service)
        if hindrance is not None:
            return hindrance
        now = trio.current_time()
        state, tolerance = self._state(service.name), service.moving.rebalance.tolerance
        return state.look(figures_of(service, now), tolerance, now, self._rng, wanted=True)

    def start(self, service: ServiceRuntime) -> Verdict:
        """Begin what `verdict` says."""
        verdict = self.verdict(service)
        if verdict.plan is not None:
            self._begin(service, verdict.plan, asked_for=True)
        return verdict

    def running(self, service: str) -> bool:
        """Whether a plan for the service is under way."""
        state = self.states.get(service)
        return state is not None and state.plan is not None

    def quiet_for(self, service: str) -> float:
        """Return the seconds until the next plan for the service may begin."""
        state = self.states.get(service)
        return max(0.0, state.quiet_until - trio.current_time()) if state is not None else 0.0

    def _state(self, name: str) -> Rebalance:
        return self.states.setdefault(name, Rebalance())

    def _hindrance(self, service: ServiceRuntime) -> Verdict | None:
        if self._proxy.stopping:
            return Verdict("impossible", "the daemon is stopping")
        if service.moving.stays:
            return Verdict("impossible", service.moving.stays)
        if service.pool.ramping(trio.current_time()):
            return Verdict("waiting", "a backend is in its slow start")
        return None

    async def _look(self) -> None:
        services = self._proxy.runtime.services
        for name in [name for name in self.states if name not in services and not self.running(name)]:
            del self.states[name]
            self.progress.pop(name, None)
        for service in list(services.values()):
            policy = service.moving.rebalance
            if not policy.enabled or self.running(service.name) or self._hindrance(service) is not None:
                continue
            now = trio.current_time()
            state = self._state(service.name)
            verdict = state.look(figures_of(service, now), policy.tolerance, now, self._rng)
            if verdict.plan is not None:
                self._begin(service, verdict.plan, asked_for=False)
            await trio.lowlevel.checkpoint()

    def _begin(self, service: ServiceRuntime, plan: Plan, *, asked_for: bool) -> None:
        assert self._nursery is not None, "it does not run"
        now, members = trio.current_time(), service.pool.members
        progress = self.progress[service.name] = Progress(
            plan,
            tuple(member.backend for member in members),
            tuple(member.weight for member in members),
            now,
            asked_for,
        )
        self._state(service.name).begin(plan, figures_of(service, now), now)
        details: dict[str, Value] = {
            "service": service.name,
            "sessions": plan.size,
            "backends": len(plan.sheds),
            "rate": service.moving.rebalance.rate,
        }
        log.info("rebalancing", **details)
        self._events.record(Kind.REBALANCE_STARTED, **details)
        self._nursery.start_soon(self._run, service.name, progress)

    async def _run(self, name: str, progress: Progress) -> None:
        state, reason = self.states[name], "stopped"
        try:
            reason = await self._shed(name, state, progress)
        except Exception:
            # A fault in here must not end the daemon.
            log.exception("internal error", service=name)
            reason = "internal error"
        finally:
            now = trio.current_time()
            service = self._proxy.runtime.services.get(name)
            state.finish(now, 0.0 if service is None else service.moving.report_interval)
            progress.finished_at = now
            progress.queue.clear()
            progress.closing.clear()  # or it would keep sessions that are long over
            details: dict[str, Value] = {
                "service": name,
                "shed": progress.shed,
                "kept": progress.kept,
                "reason": reason,
                "duration": round(now - progress.begun_at, 3),
            }
            log.info("rebalanced", **details)
            self._events.record(Kind.REBALANCE_DONE, **details)

    async def _shed(self, name: str, state: Rebalance, progress: Progress) -> str:
        """Carry the plan out as long as it is right; return why it ended."""
        service = self._proxy.runtime.services[name]
        await self._pick(service, progress)
        pacer = Pacer(service.moving.rebalance.rate, trio.current_time(), self._rng)
        figures, missing, looked = list[Figure](), 0, -1.0
        while progress.queue:
            now = trio.current_time()
            if now - looked >= FRESH:
                found = self._proxy.runtime.services.get(name)
                if found is None or not progress.fits(found):
                    return "its backends have changed"
                service = found
                policy = service.moving.rebalance
                hindrance = self._hindrance(service)
                if hindrance is not None:
                    return hindrance.reason
                if not (policy.enabled or progress.asked_for):
                    return "switched off"
                pacer.change(policy.rate, now)
                figures, looked = figures_of(service, now), now
                missing = state.missing(figures, now)
                for index, closing in progress.closing.items():
                    progress.closing[index] = {each for each in closing if each in self._proxy.sessions}
            index, session = progress.queue[-1]
            closing = progress.closing.setdefault(index, set())
            if (
                session not in self._proxy.sessions
                or session.relay.cause is not None
                or not progress.plan.may_shed(index, figures, len(closing), missing)
            ):
                progress.queue.pop()
                progress.kept += 1
                if progress.kept % 100 == 0:
                    await trio.lowlevel.checkpoint()
            elif pacer.take(now):
                progress.queue.pop()
                session.relay.end(Cause.REBALANCE, service.moving.rebalance.close_code, CLOSE_TIMEOUT)
                closing.add(session)
                progress.shed += 1
            else:
                await trio.sleep_until(pacer.next_at)
        return "done"

    async def _pick(self, service: ServiceRuntime, progress: Progress) -> None:
        """Put as many sessions as are to be shed into the queue, of each backend at random, in random order."""
        indices = {progress.backends[index]: index for index in progress.plan.sheds}
        opened_before = trio.current_time() - service.moving.rebalance.min_age

        def fits(session: Session) -> bool:
            return (
                session.backend in indices
                and session.service == service.name
                and session.opened_at <= opened_before
                and session.relay.cause is None
            )

        found: dict[int, list[Session]] = {index: [] for index in progress.plan.sheds}
        for session in await sessions_where(self._proxy.sessions, fits):
            found[indices[session.backend]].append(session)
        for index, count in progress.plan.sheds.items():
            picked = self._rng.sample(found[index], min(count, len(found[index])))
            progress.queue += [(index, session) for session in picked]
        self._rng.shuffle(progress.queue)


def figures_of(service: ServiceRuntime, now: float) -> list[Figure]:
    """Return how the backends of a service stand."""
    return service.pool.standing(now, service.moving.stale_after)
