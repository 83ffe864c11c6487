"""Views of drains and rebalancing as plain values, ready for JSON. Times are seconds, rates sessions per second."""

from __future__ import annotations

import trio

from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.drain import Drain
from trio_wsb.balancing.rebalance import Figure, Verdict
from trio_wsb.daemon.rebalance import Progress, Rebalancer, figures_of
from trio_wsb.proxy.services import ServiceRuntime

View = dict[str, object]


def drain_state(drain: Drain) -> str:
    """Return in a word how far a drain is."""
    return "draining" if drain.finished_at is None else "drained"


def drain_view(drain: Drain, now: float) -> View:
    """Return a drain and how far it is."""
    policy = drain.policy
    until = now if drain.finished_at is None else drain.finished_at
    return {
        "backend": str(drain.key.url),
        "service": drain.key.service,
        "state": drain_state(drain),
        "onRemove": drain.removal,
        "rate": round(policy.rate, 3),
        "currentRate": round(drain.rate, 3),
        "closeCode": policy.close_code,
        "timeout": round(policy.timeout, 3),
        "timedOut": drain.timed_out,
        "total": drain.total,
        "closing": drain.closing,
        "ended": drain.ended,
        "cut": drain.cut,
        "left": drain.left,
        "duration": round(until - drain.begun_at, 3),
    }


def rebalance_view(rebalancer: Rebalancer, service: ServiceRuntime) -> View:
    """Return how the rebalancing of a service stands; `plan` is the present or the last one."""
    progress = rebalancer.progress.get(service.name)
    return {
        "enabled": service.moving.rebalance.enabled,
        "running": rebalancer.running(service.name),
        "quietFor": round(rebalancer.quiet_for(service.name), 3),
        "plan": None if progress is None else _progress(progress),
    }


def _progress(progress: Progress) -> View:
    until = trio.current_time() if progress.finished_at is None else progress.finished_at
    return {
        "sessions": progress.plan.size,
        "shed": progress.shed,
        "kept": progress.kept,
        "askedFor": progress.asked_for,
        "duration": round(until - progress.begun_at, 3),
    }


def verdict_view(service: ServiceRuntime, verdict: Verdict) -> View:
    """Return what came of a look at a service, with its backends: their loads, their shares and what they are to shed."""
    sheds = {} if verdict.plan is None else verdict.plan.sheds
    figures = figures_of(service, trio.current_time())
    return {
        "service": service.name,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "sessions": sum(sheds.values()),
        "backends": [
            _standing(member.backend, figure, verdict.level, sheds.get(index, 0))
            for index, (member, figure) in enumerate(zip(service.pool.members, figures, strict=True))
        ],
    }


def _standing(backend: Backend, figure: Figure, level: float | None, sheds: int) -> View:
    known = level is not None and figure.counts
    return {
        "url": str(backend.url),
        "load": figure.load,
        "live": figure.own,
        "share": round(level * figure.weight, 1) if level is not None and known else None,
        "sheds": sheds,
    }
