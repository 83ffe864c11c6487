"""The questions that the bench asks, each with how it is measured on one peer.

Each measurement starts a fresh proxy, so that neither a grown heap nor connections in TIME_WAIT of one
measurement count in the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from attrs import evolve, frozen

from bench.machine import busy_seconds
from bench.native import Backends, Figures, LoadGenerator, backends
from bench.network import steered, why_not
from bench.peer import Peer, Running
from bench.processes import BenchError, cpu_seconds, resident_bytes
from bench.report import CARD

SIZES = {"64": 64, "1k": 1024, "16k": 16 * 1024, "64k": 64 * 1024}
SESSIONS = (20, 1000)

RATE = 8000
"""Messages a second that every peer can keep up with: what they cost is compared."""
RATE_SIZES = ("64", "1k")
RATE_LENGTH = 3.0
"""How much longer a rate is measured than other things: CPU time is counted in hundredths of a second."""

FROM_A_CARD = frozenset({"echo-64-20", "echo-1k-20", "rate-64"})
"""What is asked twice: small messages, for which it matters most how packets arrive."""

HANDSHAKE_CLIENTS = 32
"""Handshakes that are under way at a time."""

WARM_SESSIONS = 100
"""Idle sessions that are open before RSS is read for the first time, and stay open."""

SETTLE_TIMEOUT = 3.0
"""Seconds that RSS may take to stay the same for `SETTLE_STEP` seconds, `SETTLE_SLACK` bytes apart at most."""
SETTLE_STEP = 0.25
SETTLE_SLACK = 64 * 1024

STARTED = 1.5
"""Seconds that a proxy has for what it does at its start, such as asking its backends something, before messages are timed: in a
short round that would be what the p99.9 shows."""

IDLE_TIMEOUT, IDLE_STEP, IDLE_STEPS, IDLE_CORES = 20.0, 0.25, 6, 0.08
"""A proxy is idle that uses no more than so many cores for so many steps in a row, of so many seconds."""

BACKEND_COUNTS = (3, 100, 1000)
"""How many backends there are to choose from."""

PROBES = 5
PROBE_RATE = 1000
"""Sessions that exchange so many messages a second while a reload goes on: what it stalls, they feel."""
RELOAD_AFTER, RELOAD_WATCH = 1.0, 3.0


@frozen
class Bench:
    """What all measurements of a run share."""

    backends: Backends
    clients: LoadGenerator
    seconds: float
    held: int
    """Sessions of the scenarios that hold many."""


@frozen
class Scenario:
    """One question: `figure` names its main answer among what `measure` returns.

    `more_is_better` says which of two answers is. `columns` are further figures for the tables, with their titles.
    """

    name: str
    title: str
    figure: str
    unit: str
    measure: Callable[[Bench, Peer], Figures]
    columns: tuple[tuple[str, str], ...] = ()
    more_is_better: bool = False
    direct: bool = True
    """Whether it makes sense without a proxy."""
    quick: bool = True
    """Whether a short run asks it."""
    once: bool = False
    """Whether the first round is enough: it takes long, and its answer hardly changes."""
    holds: bool = False
    """Whether it opens as many sessions as are to be held."""
    why_not: Callable[[], str] = str
    """Tells why it cannot be asked on this machine, "" if it can."""


LATENCIES = (("p50_us", "p50 (µs)"), ("p99_us", "p99 (µs)"), ("p999_us", "p99.9 (µs)"))
CORES = ("proxy_cores", "proxy CPU (cores)")


def measure_echo(size: int, sessions: int, bench: Bench, peer: Peer) -> Figures:
    """Messages per second, their latency, and the cores that the proxy used meanwhile."""
    with peer.running(bench.backends.ports, sessions) as target:
        _let_start(target)
        return _with_cores(
            target,
            lambda: bench.clients.echo(target.ports, sessions=sessions, size=size, seconds=bench.seconds),
        )


def measure_rate(size: int, bench: Bench, peer: Peer) -> Figures:
    """CPU time of the whole machine for each message, at a rate that leaves all of them room.

    Load generator, backends and kernel are in it, so that nobody gains by leaving work to others; and so is whatever
    else runs there. What the proxy's own processes use is told beside it. Handshakes and warm-up are in neither.
    """
    with peer.running(bench.backends.ports, SESSIONS[0]) as target:
        _let_start(target)
        pid = None if target.process is None else target.process.pid
        marks: list[tuple[float, float, float]] = []

        def mark() -> None:
            marks.append((time.monotonic(), busy_seconds(), 0.0 if pid is None else cpu_seconds(pid)))

        figures = bench.clients.rate(
            target.ports,
            sessions=SESSIONS[0],
            size=size,
            seconds=RATE_LENGTH * bench.seconds,
            rate=RATE,
            mark=mark,
        )
        (begun, *before), (ended, *after) = marks
        sent = figures["messages_per_s"] * (ended - begun)
        busy, own = ((late - early) / sent * 1e6 for early, late in zip(before, after, strict=True))
        figures |= {"cpu_us": busy, "kept_up": figures["messages_per_s"] / RATE}
        return figures if pid is None else figures | {"proxy_us": own}


def as_from_a_card(measure: Callable[[Bench, Peer], Figures], bench: Bench, peer: Peer) -> Figures:
    """Measure the same where packets arrive as from a network card (`bench.network`)."""
    with steered(), backends(len(bench.backends.ports)) as servers:
        figures = measure(evolve(bench, backends=servers), peer)
        servers.wait_until_quiet()
        return figures


def measure_handshakes(bench: Bench, peer: Peer) -> Figures:
    """Handshakes per second (connect, upgrade, drop), their latency, and the cores that the proxy used."""
    with peer.running(bench.backends.ports, HANDSHAKE_CLIENTS) as target:
        return _with_cores(
            target,
            lambda: bench.clients.handshakes(target.ports, clients=HANDSHAKE_CLIENTS, seconds=bench.seconds),
        )


def measure_idle(bench: Bench, peer: Peer) -> Figures:
    """Bytes of RSS that an idle session costs.

    What is allocated once (code loaded at the first session, a first arena) is no part of it: RSS is read
    with `WARM_SESSIONS` open, and again when `bench.held` more are. The warm ones stay open meanwhile, since
    memory that they gave back would be used again and make the others look cheaper. Each session has
    exchanged one message, and all of them echo one more at the end.

    Raises:
      BenchError: a session was lost, or the backends have not as many as the clients.

    """
    with peer.running(bench.backends.ports, bench.held + WARM_SESSIONS) as target:
        assert target.process is not None
        pid = target.process.pid
        with bench.clients.idle(target.ports, sessions=WARM_SESSIONS):
            before = _settled_rss(pid)
            with bench.clients.idle(target.ports, sessions=bench.held):
                after = _settled_rss(pid)
                there = sum(bench.backends.sessions())
    if there != bench.held + WARM_SESSIONS:
        raise BenchError(f"the backends had {there} sessions, the clients {bench.held + WARM_SESSIONS}")
    return {"bytes_per_session": (after - before) / bench.held, "rss_before": before, "rss_after": after}


def measure_storm(bench: Bench, peer: Peer) -> Figures:
    """Seconds until as many clients as are held, who all connect at once, have their session and its first echo."""
    with peer.running(bench.backends.ports, bench.held) as target:
        return bench.clients.storm(target.ports, sessions=bench.held)


def measure_choosing(bench: Bench, peer: Peer) -> Figures:
    """Median time of a handshake, one at a time, over ever more backends; and how much longer it gets.

    A proxy that asks its backends something when it starts is given the time for that.
    """
    figures = {}
    for count in BACKEND_COUNTS:
        with backends(count) as servers, peer.running(servers.ports, 16) as target:
            _wait_until_idle(target)
            done = bench.clients.handshakes(target.ports, clients=1, seconds=bench.seconds)
        figures[f"p50_us_{count}"] = done["p50_us"]
    least, *_, most = BACKEND_COUNTS
    return figures | {"added_us": figures[f"p50_us_{most}"] - figures[f"p50_us_{least}"]}


def measure_reload(bench: Bench, peer: Peer) -> Figures:
    """How long the slowest message takes while the configuration is read again under many sessions."""
    with peer.running(bench.backends.ports, bench.held + PROBES) as target:
        if target.reload is None:
            return {}
        with bench.clients.idle(target.ports, sessions=bench.held):
            timer = threading.Timer(RELOAD_AFTER, target.reload)
            timer.start()
            try:
                return bench.clients.rate(
                    target.ports, sessions=PROBES, size=64, seconds=RELOAD_WATCH, rate=PROBE_RATE
                )
            finally:
                timer.join()


def _scenarios() -> list[Scenario]:
    found = [
        Scenario(
            f"echo-{word}-{sessions}",
            f"Echo of {size if size < 1024 else size // 1024} {'B' if size < 1024 else 'KiB'}, {sessions} sessions",
            "messages_per_s",
            "messages/s",
            partial(measure_echo, size, sessions),
            (*LATENCIES, CORES),
            more_is_better=True,
            quick=sessions == SESSIONS[0] or word == "1k",
        )
        for sessions in SESSIONS
        for word, size in SIZES.items()
    ]
    found += [
        Scenario(
            f"rate-{word}",
            f"{RATE:,} messages of {SIZES[word]} B a second over {SESSIONS[0]} sessions",
            "cpu_us",
            "µs of all CPUs for each",
            partial(measure_rate, SIZES[word]),
            (("proxy_us", "of the proxy alone"), *LATENCIES, ("kept_up", "part of the rate that was kept")),
            quick=word == "64",
        )
        for word in RATE_SIZES
    ]
    return [
        *found,
        *(_from_a_card(each) for each in found if each.name in FROM_A_CARD),
        Scenario(
            "handshakes",
            f"Handshakes, {HANDSHAKE_CLIENTS} at a time",
            "handshakes_per_s",
            "handshakes/s",
            measure_handshakes,
            (*LATENCIES, CORES),
            more_is_better=True,
        ),
        Scenario(
            "idle",
            "Memory of idle sessions",
            "bytes_per_session",
            "bytes of RSS for each",
            measure_idle,
            direct=False,
            once=True,
            holds=True,
        ),
        Scenario(
            "storm",
            "All clients come back at once",
            "storm_s",
            "seconds until the last one has its first echo",
            measure_storm,
            (("refused", "refused and back again"), ("p50_us", "p50 of a handshake (µs)")),
            once=True,
            holds=True,
        ),
        Scenario(
            "choose",
            "Choosing among 1,000 backends rather than 3",
            "added_us",
            "µs that a handshake takes longer",
            measure_choosing,
            tuple((f"p50_us_{count}", f"p50 with {count:,} (µs)") for count in BACKEND_COUNTS),
            direct=False,
        ),
        Scenario(
            "reload",
            "A reload under idle sessions",
            "max_us",
            "µs of the slowest message meanwhile",
            measure_reload,
            LATENCIES,
            direct=False,
            once=True,
            holds=True,
        ),
    ]


def _from_a_card(scenario: Scenario) -> Scenario:
    return evolve(
        scenario,
        name=f"{scenario.name}-card",
        title=f"{scenario.title}, {CARD}",
        measure=partial(as_from_a_card, scenario.measure),
        why_not=why_not,
    )


SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _scenarios()}


def _with_cores(target: Running, measure: Callable[[], Figures]) -> Figures:
    if target.process is None:
        return measure()
    cpu, start = cpu_seconds(target.process.pid), time.monotonic()
    figures = measure()
    elapsed = time.monotonic() - start
    return figures | {"proxy_cores": (cpu_seconds(target.process.pid) - cpu) / elapsed}


def _let_start(target: Running) -> None:
    if target.process is not None:
        time.sleep(STARTED)


def _wait_until_idle(target: Running) -> None:
    """Return when the proxy has nothing to do, or after `IDLE_TIMEOUT`."""
    if target.process is None:
        return
    deadline, before = time.monotonic() + IDLE_TIMEOUT, cpu_seconds(target.process.pid)
    idle = 0
    while idle < IDLE_STEPS and time.monotonic() < deadline:
        time.sleep(IDLE_STEP)
        now = cpu_seconds(target.process.pid)
        idle = idle + 1 if now - before <= IDLE_CORES * IDLE_STEP else 0
        before = now


def _settled_rss(pid: int) -> int:
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last = resident_bytes(pid)
    while True:
        time.sleep(SETTLE_STEP)
        now = resident_bytes(pid)
        if abs(now - last) <= SETTLE_SLACK or time.monotonic() > deadline:
            return now
        last = now
