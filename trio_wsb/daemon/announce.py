"""What the daemon says of itself: the first lines of its log, and one line for the service manager."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice

import structlog

from trio_wsb import __version__
from trio_wsb.config.disable import DisabledRouter
from trio_wsb.config.problems import printable
from trio_wsb.config.sources import FileState
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.containerlog import log_containers
from trio_wsb.daemon.filelog import log_files
from trio_wsb.daemon.limits import raise_descriptor_limit, sessions_possible
from trio_wsb.daemon.reload import ReloadOutcome, container_states, log_disabled
from trio_wsb.daemon.services import balancers_of
from trio_wsb.daemon.tlsviews import log_certificates
from trio_wsb.observe.events import EventLog, Kind

MAX_DISABLED = 20
"""Disabled routers that are told one by one as events."""

log = structlog.stdlib.get_logger("trio_wsb.daemon")


def log_start(prepared: Prepared) -> None:
    """Raise the limits that can be raised, and log what is balanced, within which limits, and what to look at.

    Where it listens has been logged by then, by whoever opened the sockets.
    """
    for warning in prepared.warnings:
        log.warning("configuration warning", problem=warning)
    log_files((), prepared.files)
    log_containers((), container_states(prepared))
    log_disabled(prepared.disabled)
    log_certificates(prepared.server_tls)
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


def record_start(events: EventLog, prepared: Prepared) -> None:
    """Record that the daemon has started, and which routers do not run."""
    events.record(Kind.STARTED, version=__version__)
    _record_disabled(events, prepared.disabled)


def record_reload(events: EventLog, last: ReloadOutcome | None) -> None:
    """Record what came of a reload."""
    if last is None:
        return
    if last.succeeded:
        events.record(
            Kind.RELOADED,
            "warning" if last.bad_files else "info",
            duration=last.duration,
            warnings=len(last.warnings),
            **({"badFiles": len(last.bad_files)} if last.bad_files else {}),
            **({"badContainers": len(last.bad_containers)} if last.bad_containers else {}),
        )
        _record_disabled(events, last.disabled)
    else:
        events.record(
            Kind.RELOAD_FAILED, "error", problems=len(last.problems), problem=printable(last.problems[0])
        )


def _record_disabled(events: EventLog, disabled: Iterable[DisabledRouter]) -> None:
    for router in islice(disabled, MAX_DISABLED):
        reason = printable("; ".join(router.reasons))
        events.record(Kind.ROUTER_DISABLED, "warning", router=printable(router.name), reason=reason)


def status_line(
    sessions: int,
    last: ReloadOutcome | None,
    files: Sequence[FileState] = (),
    more: Sequence[str] = (),
    *,
    stopping: bool,
) -> str:
    """Return what `systemctl status` shows: the live sessions, what came of the last reload, bad dynamic files, and `more`."""
    counted = f"{sessions} session" if sessions == 1 else f"{sessions} sessions"
    if stopping:
        return f"stopping, {counted} left"
    parts = [f"serving {counted}"]
    if last is not None and last.succeeded:
        parts.append("last reload succeeded")
    elif last is not None:
        problems = _first_of(last.problems)
        parts.append(f"last reload failed, the old configuration stays in force: {problems}")
    bad = [each for each in files if each.problems]
    if bad:
        few = "a dynamic file is" if len(bad) == 1 else f"{len(bad)} dynamic files are"
        parts.append(f"{few} bad: {_first_of([problem for each in bad for problem in each.problems])}")
    return "; ".join([*parts, *more])


def _first_of(problems: Sequence[object]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"
