"""Views: the state of the daemon as plain values, ready for JSON.

Every function reads what is true at this moment and keeps nothing. Names are those of configuration and log; times
are seconds, moments are given in the format of RFC 3339, in UTC.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from attrs import field, frozen

from trio_wsb import __version__
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.balancing.discovery import NameTable
from trio_wsb.balancing.health import HealthEntry
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.config.entrypoints import RedirectionTarget
from trio_wsb.config.model import Config, Router
from trio_wsb.config.offered import redirection_name, redirection_port
from trio_wsb.config.sources import FileState
from trio_wsb.daemon.accesslog import AccessLogging
from trio_wsb.daemon.dockerviews import container_view, docker_view
from trio_wsb.daemon.entrypoints import redirections
from trio_wsb.daemon.filelog import in_force
from trio_wsb.daemon.instants import moment as moment  # noqa: PLC0414 - part of this module's interface
from trio_wsb.daemon.kernelrelay import wanted_relay
from trio_wsb.daemon.mover import Mover
from trio_wsb.daemon.movingviews import drain_state, drain_view, rebalance_view
from trio_wsb.daemon.reload import Reloader, ReloadOutcome
from trio_wsb.daemon.services import stale_after
from trio_wsb.daemon.tlsviews import certificates, handshakes
from trio_wsb.net.resolver import Resolver
from trio_wsb.observe.events import EventLog
from trio_wsb.providers.docker import DockerProviderTask
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.runtime import Proxy
from trio_wsb.proxy.services import kind_of, parts_of
from trio_wsb.proxy.session import SessionTable

View = dict[str, object]


@frozen
class Moment:
    """One moment on both clocks: `now` on that of the event loop, `wall` in seconds since 1970."""

    now: float
    wall: float


@frozen
class DaemonState:
    """What views look at. Everything in it is live and belongs to the supervisor."""

    proxy: Proxy
    backends: BackendTable
    reloader: Reloader
    bound: Callable[[], list[tuple[str, str]]]
    """Gives names of entry points and the addresses that they really listen on."""
    started: Moment
    events: EventLog = field(factory=EventLog)
    names: NameTable = field(factory=NameTable)
    """What the names of servers stand for."""
    waiting: Callable[[], Collection[str]] = tuple
    """Gives the entry points whose clients wait, because there are no descriptors for them."""
    mover: Mover = field()
    """Drains and rebalances."""
    access_log: AccessLogging = field(factory=AccessLogging)
    docker: DockerProviderTask | None = None
    """Who follows the Docker Engine."""
    resolver: Resolver = field(factory=Resolver)
    """What asks for the addresses of names without `resolve`."""

    @mover.default
    def _(self) -> Mover:
        return Mover(self.proxy, self.backends)


def status(state: DaemonState, at: Moment) -> View:
    """Return what ``GET /status`` answers."""
    current = state.reloader.current
    return {
        "version": __version__,
        "pid": os.getpid(),
        "startedAt": moment(state.started.wall),
        "uptime": round(at.now - state.started.now, 3),
        "stopping": state.proxy.stopping,
        "configuration": configuration(state.reloader, state.docker, at.wall),
        "entryPoints": entry_points(state),
        "certificates": []
        if current is None
        else certificates(current.server_tls, datetime.fromtimestamp(at.wall, UTC)),
        "routers": routers(state),
        "services": services(state),
        "backends": list(backends(state, at.now)),
        "names": names(state, at.now),
        "sessions": session_totals(state),
        "kernelRelay": kernel_relay(state),
        "mirrors": mirrors(state),
        "accessLog": access_log(state),
    }


def configuration(reloader: Reloader, docker: DockerProviderTask | None = None, wall: float = 0.0) -> View:
    """Return which configuration is in force, what came of the last reload, and at the time `wall` how `docker` stands."""
    current = reloader.current
    return {
        "file": _path_text(reloader.path),
        "loadedAt": moment(reloader.loaded_at),
        "warnings": [] if current is None else list(current.warnings),
        "reloads": reloader.succeeded,
        "reloadsFailed": reloader.failed,
        "lastReload": None if reloader.last is None else reload_outcome(reloader.last),
        "files": [] if current is None else [file_state(each) for each in current.files],
        "providers": docker_view(docker, None if current is None else current.discovered, wall),
    }


def file_state(state: FileState) -> View:
    """Return how a dynamic file stands: `ok`, or `bad` with its problems, since when, and which version is in force."""
    return {
        "path": _path_text(Path(state.path)),
        "state": "bad" if state.problems else "ok",
        "since": moment(state.since),
        "inForce": in_force(state),
        "problems": list(map(str, state.problems)),
    }


def reload_outcome(outcome: ReloadOutcome) -> View:
    """Return what came of a reload."""
    return {
        "succeeded": outcome.succeeded,
        "finishedAt": moment(outcome.finished_at),
        "duration": outcome.duration,
        "problems": list(outcome.problems),
        "warnings": [*outcome.warnings, *map(str, outcome.disabled)],
        "badFiles": [file_state(each) for each in outcome.bad_files],
        "badContainers": [container_view(each) for each in outcome.bad_containers],
    }


def entry_points(state: DaemonState) -> list[View]:
    """Return each entry point with the addresses that it listens on, none once a stop has closed them."""
    bound, waiting, connections = state.bound(), state.waiting(), state.proxy.connections
    current = state.reloader.current
    redirecting = {} if current is None else dict(redirections(current.config))
    return [
        {
            "name": name,
            "addresses": [address for each, address in bound if each == name],
            "connections": connections[name],
            "maxConnections": entry.max_connections,
            "waiting": name in waiting,
            "tlsHandshakes": handshakes(state.proxy, name),
            "redirection": None
            if current is None or name not in redirecting
            else _redirection(current.config, name, redirecting[name]),
        }
        for name, entry in state.proxy.runtime.entry_points.items()
    ]


def _redirection(config: Config, entry_point: str, target: RedirectionTarget) -> View:
    return {
        "router": redirection_name(entry_point, target),
        "to": target.to,
        "scheme": target.scheme,
        "port": redirection_port(config, target),
        "permanent": target.permanent,
        "priority": target.priority,
    }


def routers(state: DaemonState) -> list[View]:
    """Return each router by its name: those that run are "enabled", the others "disabled" with the reasons in `error`.

    Of a disabled router nothing is given but what of it could be read.
    """
    current = state.reloader.current
    if current is None:
        return []
    views = [
        {"name": name, "status": "enabled", "error": [], **_router(router)}
        for name, router in current.config.http.routers.items()
    ]
    for each in current.disabled:
        known: View = {} if each.router is None else _router(each.router)
        if each.entry_points:  # elsewhere it runs
            known["entryPoints"] = list(each.entry_points)
        views.append({"name": each.name, "status": "disabled", "error": list(each.reasons), **known})
    return sorted(views, key=lambda view: str(view["name"]))


def _router(router: Router) -> View:
    return {
        "rule": router.rule.text,
        "service": router.service,
        "entryPoints": list(router.entry_points),
        "middlewares": list(router.middlewares),
        "priority": router.priority or router.rule.default_priority,
    }


def services(state: DaemonState) -> list[View]:
    """Return each service of the configuration: load balancers with their strategy, others with their parts."""
    runtime = state.proxy.runtime
    balancers: list[View] = [
        {
            "name": name,
            "strategy": service.pool.strategy,
            "rebalance": rebalance_view(state.mover.rebalancer, service),
        }
        for name, service in runtime.services.items()
    ]
    return balancers + [
        {"name": name, "strategy": kind_of(node), "parts": parts_of(node)}
        for name, node in runtime.parents.items()
    ]


def kernel_relay(state: DaemonState) -> View:
    """Return whether the kernel moves bytes, of how many sessions, and why it does not: at all, and of which sessions."""
    table, reason = state.proxy.kernel.table, state.proxy.kernel.reason
    relays = relay_counts(state.proxy.sessions)
    current = state.reloader.current
    wanted = "" if current is None else wanted_relay(current.config.http)
    if table is None:
        return {
            "available": False,
            "reason": reason,
            "wanted": wanted,
            "sessions": 0,
            "strays": None,
            "capacity": 0,
            "stalls": 0,
            "relays": relays,
        }
    return {
        "available": True,
        "reason": "",
        "wanted": wanted,
        "sessions": len(table),
        # A system call for each, so it is asked where it must be none.
        "strays": None if len(table) else table.entries(),
        "capacity": table.capacity,
        "stalls": table.stalls,
        "relays": relays,
    }


def relay_counts(sessions: SessionTable) -> list[View]:
    """Return how many sessions there are, and were, by who moves their bytes and why; the most first."""
    return [
        {"relay": relay, "reason": why, "sessions": sessions.relays[relay, why], "opened": opened}
        for (relay, why), opened in sessions.relays_total.most_common()
    ]


def names(state: DaemonState, now: float) -> list[View]:
    """Return each name that is resolved, with what it stands for and what is wrong with it."""
    return [
        {
            "name": entry.name.host,
            "resolve": entry.name.resolve,
            "endpoints": len(entry.endpoints),
            "resolvedAgo": None if (at := _finite(entry.resolved_at)) is None else round(now - at, 3),
            "nextIn": None if (due := _finite(entry.next_due())) is None else round(max(0.0, due - now), 3),
            "problem": entry.problem,
        }
        for entry in state.names.entries.values()
    ]


def session_totals(state: DaemonState) -> View:
    """Return how many sessions there are and were; causes that never occurred are there with 0."""
    sessions = state.proxy.sessions
    return {
        "open": len(sessions),
        "opened": sessions.opened_total,
        "ended": {cause.value: sessions.ended_total[cause] for cause in Cause},
    }


def access_log(state: DaemonState) -> View | None:
    """Return where the access log goes, how many lines wait for it and were lost, and why if it cannot be written."""
    writer = state.access_log.writer
    if writer is None:
        return None
    return {
        "file": writer.name,
        "linesWaiting": writer.queued,
        "linesLost": writer.lost,
        "problem": writer.problem,
    }


def mirrors(state: DaemonState) -> View:
    """Return how many copies of sessions and requests there are and were, and why some were given up."""
    found = state.proxy.mirrors
    return {"running": found.running, "begun": found.begun_total, "dropped": dict(found.dropped_total)}


def backends(state: DaemonState, now: float) -> Iterator[View]:
    """Yield each service's backends, and those that are no longer configured but still have sessions."""
    current = state.reloader.current
    shown: set[Backend] = set()
    for name, service in state.proxy.runtime.services.items():
        stale_after = report_stale_after(current.config, name) if current is not None else None
        for member in service.pool.members:
            shown.add(member.backend)
            yield _member(name, service.pool, member, now, stale_after)
    for backend in state.backends:
        if backend not in shown:
            drains = [each for each in state.mover.drains if each.key.url == backend.url]
            yield {
                "service": None,
                "url": str(backend.url),
                "state": "draining" if drains and backend.own else "removed",
                **_own_figures(backend, now),
                "drain": drain_view(drains[0], now) if drains else None,
            }


def _member(name: str, pool: Pool, member: Member, now: float, stale_after: float | None) -> View:
    backend = member.backend
    report = pool.report(backend)
    age = None if report is None else _finite(report.age(now))
    return {
        "service": name,
        "url": str(backend.url),
        "dnsName": member.name or None,
        "standby": member.rank > 0,
        "state": member_state(pool, member, now),
        "weight": member.weight,
        "maxConnections": member.max_connections,
        **_own_figures(backend, now),
        "foreign": pool.foreign(backend),
        "load": pool.load(backend),
        "reported": None if report is None else report.reported,
        "reportAge": None if age is None else round(age, 3),
        "reportStale": report is not None and (age is None or age > (stale_after or age)),
        "reportProblem": None if report is None else report.reason,
        "health": None if (known := pool.health(backend)) is None else _health(known, now),
        "drain": None if (drain := pool.drain(backend)) is None else drain_view(drain, now),
    }


def _health(entry: HealthEntry, now: float) -> View:
    """Return what the checks say of a backend; `up` is None before the first one has ended."""
    age = _finite(entry.checked_at)
    return {
        "path": entry.key.question.path,
        "mode": entry.key.question.mode,
        "up": not entry.down if entry.known else None,
        "checkedAgo": None if age is None else round(now - age, 3),
        "problem": entry.reason,
    }


def _own_figures(backend: Backend, now: float) -> View:
    """Return what is known of a backend whatever service it is in."""
    return {
        "live": backend.live,
        "handshakes": backend.pending,
        "opened": backend.opened_total,
        "failures": backend.failures_total,
        "drops": backend.drops_total,
        "coolDownLeft": round(max(0.0, _finite(backend.passive.retry_at - now) or 0.0), 3),
        "podName": backend.pod_name,
        "podIP": backend.pod_ip,
        "nodeName": backend.node_name,
    }


def member_state(pool: Pool, member: Member, now: float) -> str:
    """Return in a word whether a backend gets new sessions: it does when it is ready."""
    drain = pool.drain(member.backend)
    if drain is not None:
        return drain_state(drain)
    if member.weight == 0:
        return "off"
    health = pool.health(member.backend)
    if health is not None and health.down:
        return "down"
    if not member.backend.passive.available(now):
        return "cooling_down"
    if member.max_connections and pool.load(member.backend) >= member.max_connections:
        return "full"
    return "ready"


def report_stale_after(config: Config, service: str) -> float | None:
    """Return the age in seconds from which a report of `service` is stale; None for a service without reports."""
    found = config.http.services.get(service)
    balancer = None if found is None else found.load_balancer
    count = None if balancer is None else balancer.connection_count
    return None if count is None else stale_after(count)


def balancer_metrics(state: DaemonState, wall: float) -> View:
    """Return the count table as ``balancerMetricPath`` shows it at `wall`, each backend once.

    `connections` is what a backend has now as far as we know: our own live sessions and the foreign connections of its
    last report. The pod metrics are what it has reported itself. `agentsConnections` makes the document a report, so that another balancer
    can ask this one as it asks a backend.
    """
    table: dict[str, int] = {}
    pods: dict[str, list[View]] = {}
    for each, foreign, reported in _figures(state):
        url = str(each.url)
        table[url] = max(table.get(url, 0), each.live + foreign)
        if reported is not None:
            pod: View = {
                "agentsConnections": reported,
                "podName": each.pod_name or "",
                "podIP": each.pod_ip or "",
                "nodeName": each.node_name or "",
            }
            pods[url] = [pod]
    total = sum(table.values())
    return {
        "timestamp": moment(wall),
        "services": [{"url": url, "connections": count} for url, count in table.items()],
        "podMetrics": pods,
        "totalConnections": total,
        "agentsConnections": total,
    }


def _figures(state: DaemonState) -> Iterator[tuple[Backend, int, int | None]]:
    """Yield each backend with its foreign connections and what it has reported."""
    shown: set[Backend] = set()
    for service in state.proxy.runtime.services.values():
        for member in service.pool.members:
            shown.add(member.backend)
            report = service.pool.report(member.backend)
            if report is None:
                yield member.backend, 0, None
            else:
                yield member.backend, report.foreign or 0, report.reported
    for backend in state.backends:
        if backend not in shown:
            yield backend, 0, None


def _finite(seconds: float) -> float | None:
    return seconds if isfinite(seconds) else None


def _path_text(path: Path) -> str:
    # A name that is no UTF-8 is shown, not refused.
    return os.fsencode(path).decode("utf-8", "replace")
