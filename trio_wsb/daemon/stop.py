"""The stop: Close frames paced over the grace period, so that clients do not all come back in one instant.

Every client that is told to go reconnects somewhere; a thousand of them in the same millisecond are an attack
on whoever is left. So each session of an entry point is ended at a random moment of its grace period.
"""

from __future__ import annotations

import random

import structlog
import trio

from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.runtime import Proxy
from trio_wsb.proxy.session import Session

log = structlog.stdlib.get_logger("trio_wsb.stop")

GOING_AWAY = 1001
"""Close code: the endpoint is going away (RFC 6455 section 7.4.1)."""

CLOSING_SHARE = 0.8
"""The part of the grace period in which Close frames go out; the rest is for the answers to the last ones."""

TICK = 0.05
"""Seconds between two batches of Close frames."""


async def close_sessions(proxy: Proxy, entry_point: str, grace: float, rng: random.Random) -> None:
    """End every session of `entry_point` within `grace` seconds, those that still open meanwhile too.

    Sessions are drawn at random, as many in each tick as keep the pace; what has not ended when the grace
    period is over is cut.
    """
    begun = trio.current_time()
    closing_until = begun + grace * CLOSING_SHARE
    deadline = begun + grace
    while (now := trio.current_time()) < deadline:
        open_sessions = [session for session in _sessions(proxy, entry_point) if not session.relay.ending]
        ticks_left = max(1.0, (closing_until - now) / TICK)
        due = min(len(open_sessions), _probabilistic_round(len(open_sessions) / ticks_left, rng))
        for session in rng.sample(open_sessions, due):
            session.relay.end(Cause.SHUTDOWN, GOING_AWAY, deadline - now)
        if proxy.connections[entry_point] == 0:
            return
        await trio.sleep(TICK)
    remaining = list(_sessions(proxy, entry_point))
    if remaining:
        log.warning("grace period over, cutting sessions", entryPoint=entry_point, sessions=len(remaining))
    for session in remaining:
        session.relay.cut(Cause.SHUTDOWN)


def _sessions(proxy: Proxy, entry_point: str) -> list[Session]:
    return [session for session in proxy.sessions if session.entry_point == entry_point]


def _probabilistic_round(number: float, rng: random.Random) -> int:
    """Round so that the mean over many calls is `number`: three sessions over 160 ticks come one by one."""
    whole = int(number)
    return whole + (rng.random() < number - whole)
