"""What the daemon says of itself: the first lines of its log, and one line for the service manager."""

from __future__ import annotations

import os

import structlog

from trio_wsb import __version__
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.limits import raise_descriptor_limit, sessions_possible
from trio_wsb.daemon.reload import ReloadOutcome, log_disabled
from trio_wsb.daemon.services import balancers_of

log = structlog.stdlib.get_logger("trio_wsb.daemon")


def log_start(prepared: Prepared) -> None:
    """Raise the limits that can be raised, and log what is balanced, within which limits, and what to look at.

    Where it listens has been logged by then, by whoever opened the sockets.
    """
    for warning in prepared.warnings:
        log.warning("configuration warning", problem=warning)
    log_disabled(prepared.disabled)
    for name, balancer in balancers_of(prepared.config.http).items():
        log.info(
            "balancing",
            service=name,
            strategy=balancer.strategy,
            backends=[str(server.url) for server in balancer.servers],
        )
    before, limit = raise_descriptor_limit()
    possible = sessions_possible(limit)
    if limit == before:
        log.info("descriptor limit found", descriptors=limit, sessionsPossible=possible)
    else:
        log.info(
            "descriptor limit raised", descriptors=limit, descriptorsBefore=before, sessionsPossible=possible
        )
    wanted = max((entry.max_connections for entry in prepared.config.entry_points.values()), default=0)
    if possible < wanted:
        log.warning(
            "descriptor limit too low for maxConnections",
            maxConnections=wanted,
            sessionsPossible=possible,
            hint="raise LimitNOFILE= in the unit or ulimit -n",
        )
    log.info("started", version=__version__, pid=os.getpid())


def status_line(sessions: int, last: ReloadOutcome | None, *, stopping: bool) -> str:
    """Return what `systemctl status` shows: the live sessions and what came of the last reload."""
    counted = f"{sessions} session" if sessions == 1 else f"{sessions} sessions"
    if stopping:
        return f"stopping, {counted} left"
    if last is None:
        return f"serving {counted}"
    if last.succeeded:
        return f"serving {counted}; last reload succeeded"
    more = f" (and {len(last.problems) - 1} more)" if len(last.problems) > 1 else ""
    return f"serving {counted}; last reload failed, the old configuration stays in force: {last.problems[0]}{more}"
