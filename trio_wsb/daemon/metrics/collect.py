"""The families of an instance, its entry points, routers and services, from what was counted and from live state."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import trio
from attrs import frozen

from trio_wsb import __version__
from trio_wsb.daemon.metrics import catalogue as c
from trio_wsb.daemon.metrics.figures import Cell, Figures, Level
from trio_wsb.daemon.metrics.traffic import LiveTraffic
from trio_wsb.daemon.metrics.turns import Spent
from trio_wsb.daemon.middlewares import MadeStep
from trio_wsb.daemon.reload import container_states
from trio_wsb.daemon.views import DaemonState
from trio_wsb.middleware.breaker import State
from trio_wsb.observe.exposition import Family, Rows
from trio_wsb.observe.histogram import Histogram
from trio_wsb.observe.looplag import LoopLag
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.steps import BreakerStep, InFlightStep, RateLimitStep

_NO_CODE: Final = "none"


@frozen
class Scene:
    """What a scrape looks at."""

    state: DaemonState
    figures: Figures
    lag: LoopLag
    traffic: LiveTraffic
    steps: Sequence[MadeStep]
    now: float
    last_scrape: Spent
    """What the scrape before this one took."""


def instance(scene: Scene) -> Iterator[Family]:
    """Yield what there is once."""
    proxy, lag, figures = scene.state.proxy, scene.lag, scene.figures
    yield c.BUILD.family([((__version__, platform.python_version(), trio.__version__), 1)])
    yield c.STOPPING.of(proxy.stopping)
    yield c.TASKS.of(trio.lowlevel.current_statistics().tasks_living)
    yield c.LOOP_LAG.histograms([((), lag.histogram)])
    yield c.LOOP_LAG_WORST.of(lag.worst(scene.now))
    yield c.SCRAPE_DURATION.of(scene.last_scrape.seconds)
    yield c.SCRAPE_TURN.of(scene.last_scrape.longest_turn)
    yield c.SESSIONS_OPEN.of(len(proxy.sessions))
    table = proxy.kernel.table
    yield c.SESSIONS_IN_KERNEL.of(0 if table is None else len(table))
    yield c.RELAYS.family(list(proxy.sessions.relays_total.items()))
    yield c.KERNEL_RELAY_STALLS.of(0 if table is None else table.stalls)
    yield c.SESSIONS_OPENED.of(figures.opened)
    yield c.SESSIONS_ENDED.family(_ended((), figures.ended))
    yield c.SESSION_DURATION.histograms([((), figures.durations)])
    total = scene.traffic.total
    yield c.MESSAGES.family([(("in",), total.messages_in), (("out",), total.messages_out)])
    yield c.BYTES.family([(("in",), total.bytes_in), (("out",), total.bytes_out)])
    yield c.HANDSHAKE_DURATION.histograms([((), figures.handshakes)])
    yield c.HANDSHAKE_FAILURES.family(list(figures.handshake_failures.items()))
    yield c.REQUEST_FAILURES.family(list(figures.request_failures.items()))
    yield c.RETRIES.of(figures.retries)


def configuration(scene: Scene) -> Iterator[Family]:
    """Yield what there is to say of the configuration in force and of the reloads."""
    reloader = scene.state.reloader
    last, current = reloader.last, reloader.current
    yield c.RELOADS.family([(("success",), reloader.succeeded), (("failure",), reloader.failed)])
    yield c.RELOAD_SUCCESS.of(last is None or last.succeeded)
    yield c.RELOAD_TIME.of(reloader.loaded_at)
    yield c.RELOAD_DURATION.of(0.0 if last is None else last.duration)
    yield c.CONFIG_WARNINGS.of(0 if current is None else len(current.warnings))
    files = () if current is None else current.files
    bad = sum(bool(each.problems) for each in files)
    yield c.CONFIG_FILES.family([(("ok",), len(files) - bad), (("bad",), bad)])
    docker = scene.state.docker
    yield c.ENGINE_AWAY.of(docker is not None and docker.standing.state == "away")
    verdicts = Counter[str](each.verdict for each in container_states(current))
    yield c.CONTAINERS.family([((verdict,), verdicts[verdict]) for verdict in ("used", "ignored", "bad")])
    yield from _names(scene.state)
    yield c.ROUTERS_DISABLED.of(0 if current is None else len(current.disabled))
    yield c.CERTIFICATE.family(
        ((each.place, each.facts.common_name), each.facts.not_after.timestamp())
        for each in (() if current is None else current.server_tls.certificates)
    )


def _names(state: DaemonState) -> Iterator[Family]:
    resolver, table = state.resolver, state.names
    yield c.NAME_LOOKUPS.family(
        ((source, result), count)
        for source, asker in (("discovery", table), ("system", resolver))
        for result, count in (("answered", asker.answered_total), ("failed", asker.failed_total))
    )
    failing = dict(resolver.failing)
    for name, entry in table.entries.items():
        failing[name.host] = failing.get(name.host, False) or entry.problem is not None
    yield c.NAME_FAILING.family(((name,), bad) for name, bad in failing.items())
    yield c.NAME_ENDPOINTS.family(
        ((name.host, name.resolve), len(entry.endpoints)) for name, entry in table.entries.items()
    )


def middlewares(scene: Scene) -> Iterator[Family]:
    """Yield what middlewares and mirrors do."""
    now = scene.now
    answers = scene.figures.middleware_answers
    limited = [((made.middleware, made.kind, "429"), 0) for made in scene.steps if made.kind in _LIMITERS]
    yield c.MIDDLEWARE_ANSWERS.family(list((dict(limited) | dict(answers)).items()))
    breakers = [
        ((made.middleware, made.router), made.step.breaker)
        for made in scene.steps
        if isinstance(made.step, BreakerStep)
    ]
    yield c.BREAKER_STATE.family(
        [
            ((*name, state.value), breaker.state_at(now) is state)
            for name, breaker in breakers
            for state in State
        ]
    )
    yield c.BREAKER_PASSING.family([(name, breaker.passing(now)) for name, breaker in breakers])
    yield c.BREAKER_OPENED.family([(name, breaker.opened_total) for name, breaker in breakers])
    figures = [(name, breaker.figures_at(now)) for name, breaker in breakers]
    yield c.BREAKER_ATTEMPTS.family([(name, each.attempts) for name, each in figures])
    yield c.BREAKER_ERRORS.family([(name, each.network_error_ratio()) for name, each in figures])
    yield c.RATE_LIMIT_SOURCES.family(
        ((made.middleware,), made.step.limiter.sources)
        for made in scene.steps
        if isinstance(made.step, RateLimitStep)
    )
    yield c.IN_FLIGHT.family(
        ((made.middleware,), made.step.limiter.total)
        for made in scene.steps
        if isinstance(made.step, InFlightStep)
    )
    mirrors = scene.state.proxy.mirrors
    yield c.MIRROR_OPEN.of(mirrors.running)
    yield c.MIRROR_BEGUN.of(mirrors.begun_total)
    yield c.MIRROR_DROPPED.family([((reason,), count) for reason, count in mirrors.dropped_total.items()])


_LIMITERS: Final = frozenset({"rateLimit", "inFlightReq"})


def entry_points(scene: Scene) -> Iterator[Family]:
    """Yield what came in by each entry point."""
    proxy, levels = scene.state.proxy, scene.figures.entry_points
    entries = proxy.runtime.entry_points
    yield c.ENTRYPOINT_CONNECTIONS.family([((name,), proxy.connections[name]) for name in entries])
    yield c.ENTRYPOINT_LIMIT.family(((name,), entry.max_connections) for name, entry in entries.items())
    yield c.ENTRYPOINT_OVER_LIMIT.family([((name,), proxy.over_limit[name]) for name in entries])
    yield c.ENTRYPOINT_REFUSED.family([((name,), proxy.crowd.refused_total[name]) for name in entries])
    open_now = dict.fromkeys(entries, 0) | {name: level.open for name, level in levels.items()}
    yield c.ENTRYPOINT_SESSIONS.family(((name,), count) for name, count in open_now.items())
    yield c.ENTRYPOINT_REQUESTS.family(_requests({(name,): level for name, level in levels.items()}))
    yield c.ENTRYPOINT_DURATION.histograms(_durations({(name,): level for name, level in levels.items()}))
    yield c.ENTRYPOINT_BYTES.family(list(_entry_point_bytes(scene)))
    tls = proxy.handshakes
    yield c.ENTRYPOINT_TLS.family(
        ((name, result), counter[name])
        for name in entries
        for result, counter in (
            ("completed", tls.completed_total),
            ("failed", tls.failed_total),
            ("refused", tls.refused_total),
        )
    )


def routers(scene: Scene) -> Iterator[Family]:
    """Yield what each router found."""
    services = scene.figures.router_services
    levels = {(name, services.get(name, "")): level for name, level in scene.figures.routers.items()}
    yield c.ROUTER_SESSIONS.family((key, level.open) for key, level in levels.items())
    yield c.ROUTER_REQUESTS.family(_requests(levels))
    yield c.ROUTER_DURATION.histograms(_durations(levels))


def services(scene: Scene) -> Iterator[Family]:
    """Yield what each service did."""
    state, figures, traffic = scene.state, scene.figures, scene.traffic.services
    runtime = state.proxy.runtime.services
    names = list(dict.fromkeys([*runtime, *figures.services]))
    levels = {name: figures.service(name) for name in names}
    yield c.SERVICE_SESSIONS.family([((name,), level.open) for name, level in levels.items()])
    yield c.SERVICE_OPENED.family([((name,), level.opened) for name, level in levels.items()])
    yield c.SERVICE_ENDED.family(
        row for name, level in levels.items() for row in _ended((name,), level.ended)
    )
    yield c.SERVICE_DURATION.histograms([((name,), level.durations) for name, level in levels.items()])
    yield c.SERVICE_HANDSHAKES.histograms([((name,), level.handshakes) for name, level in levels.items()])
    yield c.SERVICE_FAILURES.family(
        [
            ((name, stage.value), count)
            for name, level in levels.items()
            for stage, count in level.failures.items()
        ]
    )
    yield c.SERVICE_REQUESTS.family(_requests({(name,): level for name, level in levels.items()}))
    yield c.SERVICE_RETRIES.family([((name,), level.retries) for name, level in levels.items()])
    waiting = state.proxy.places.waiting
    yield c.SERVICE_WAITING.family(((name,), waiting(name)) for name in runtime)
    relayed = [(name, traffic.get(name) or level.traffic) for name, level in levels.items()]
    yield c.SERVICE_MESSAGES.family(
        row
        for name, each in relayed
        for row in (((name, "in"), each.messages_in), ((name, "out"), each.messages_out))
    )
    yield c.SERVICE_BYTES.family(
        row
        for name, each in relayed
        for row in (((name, "in"), each.bytes_in), ((name, "out"), each.bytes_out))
    )
    rebalancer = state.mover.rebalancer
    yield c.SERVICE_REBALANCING.family(((name,), rebalancer.running(name)) for name in runtime)


def _ended(prefix: tuple[str, ...], counter: Counter[tuple[Cause, str]]) -> Rows:
    """Return the rows of ended sessions, every cause among them, so that the first one of its kind is seen as a rise."""
    known: dict[tuple[Cause, str], int] = dict(counter)
    for cause in Cause:
        known.setdefault((cause, _NO_CODE), 0)
    return [((*prefix, cause.value, code), count) for (cause, code), count in known.items()]


def _requests(levels: Mapping[tuple[str], Level] | Mapping[tuple[str, str], Level]) -> Rows:
    return [
        ((*key, *answered), cell.seconds.count)
        for key, level in levels.items()
        for answered, cell in level.requests.items()
    ]


def _durations(
    levels: Mapping[tuple[str], Level] | Mapping[tuple[str, str], Level],
) -> Iterable[tuple[Sequence[str], Histogram]]:
    """Return a histogram for each level and protocol, of all statuses and methods together."""
    for key, level in levels.items():
        by_protocol: dict[str, list[Cell]] = {}
        for (_, _, protocol), cell in level.requests.items():
            by_protocol.setdefault(protocol, []).append(cell)
        for protocol, cells in by_protocol.items():
            yield (*key, protocol), Histogram.sum_of([cell.seconds for cell in cells])


def _entry_point_bytes(scene: Scene) -> Rows:
    for name, level in scene.figures.entry_points.items():
        for protocol in ("http", "websocket"):
            cells = [cell for (_, _, each), cell in level.requests.items() if each == protocol]
            sizes = [sum(cell.bytes_in for cell in cells), sum(cell.bytes_out for cell in cells)]
            if protocol == "websocket":
                relayed = scene.traffic.entry_points.get(name) or level.traffic
                sizes = [sizes[0] + relayed.bytes_in, sizes[1] + relayed.bytes_out]
            yield (name, protocol, "in"), sizes[0]
            yield (name, protocol, "out"), sizes[1]
