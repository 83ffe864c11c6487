"""The questions that the bench asks, each with how it is measured on one peer.

Each measurement starts a fresh proxy, so that neither a grown heap nor connections in TIME_WAIT of one
measurement count in the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen

from bench.native import Backends, Figures, LoadGenerator
from bench.peers import Peer, Running
from bench.processes import BenchError, cpu_seconds, resident_bytes

HANDSHAKE_CLIENTS = 32
"""Handshakes that are under way at a time."""

WARM_SESSIONS = 100
"""Idle sessions that are open before RSS is read for the first time, and stay open."""

SETTLE_TIMEOUT = 3.0
"""Seconds that RSS may take to stay the same for `SETTLE_STEP` seconds, `SETTLE_SLACK` bytes apart at most."""
SETTLE_STEP = 0.25
SETTLE_SLACK = 64 * 1024


@frozen
class Bench:
    """What all measurements of a run share."""

    backends: Backends
    clients: LoadGenerator
    sessions: int
    size: int
    seconds: float
    idle: int


@frozen
class Scenario:
    """One question: `figure` names its main answer among what `measure` returns, `format` writes it."""

    name: str
    title: Callable[[Bench], str]
    figure: str
    measure: Callable[[Bench, Peer], Figures]
    direct: bool = True
    """Whether it makes sense without a proxy."""


def measure_echo(bench: Bench, peer: Peer) -> Figures:
    """Messages per second, their latency, and the cores that the proxy used meanwhile."""
    with peer.running(bench.backends.ports, bench.sessions) as target:
        return _with_cores(
            target,
            lambda: bench.clients.echo(
                target.ports, sessions=bench.sessions, size=bench.size, seconds=bench.seconds
            ),
        )


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
    with `WARM_SESSIONS` open, and again when `bench.idle` more are. The warm ones stay open meanwhile, since
    memory that they gave back would be used again and make the others look cheaper. Each session has
    exchanged one message, and all of them echo one more at the end.

    Raises:
      BenchError: a session was lost, or the backends have not as many as the clients.

    """
    with peer.running(bench.backends.ports, bench.idle + WARM_SESSIONS) as target:
        assert target.process is not None
        pid = target.process.pid
        with bench.clients.idle(target.ports, sessions=WARM_SESSIONS):
            before = _settled_rss(pid)
            with bench.clients.idle(target.ports, sessions=bench.idle):
                after = _settled_rss(pid)
                there = sum(bench.backends.sessions())
    if there != bench.idle + WARM_SESSIONS:
        raise BenchError(f"the backends had {there} sessions, the clients {bench.idle + WARM_SESSIONS}")
    return {"bytes_per_session": (after - before) / bench.idle, "rss_before": before, "rss_after": after}


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "echo",
            lambda bench: f"Echo, {bench.size} B, {bench.sessions} sessions (messages/s)",
            "messages_per_s",
            measure_echo,
        ),
        Scenario(
            "handshakes",
            lambda _: f"Handshakes, {HANDSHAKE_CLIENTS} at a time (1/s)",
            "handshakes_per_s",
            measure_handshakes,
        ),
        Scenario(
            "idle",
            lambda bench: f"RSS per idle session, {bench.idle} sessions (bytes)",
            "bytes_per_session",
            measure_idle,
            direct=False,
        ),
    )
}


def _with_cores(target: Running, measure: Callable[[], Figures]) -> Figures:
    if target.process is None:
        return measure()
    cpu, start = cpu_seconds(target.process.pid), time.monotonic()
    figures = measure()
    elapsed = time.monotonic() - start
    return figures | {"proxy_cores": (cpu_seconds(target.process.pid) - cpu) / elapsed}


def _settled_rss(pid: int) -> int:
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last = resident_bytes(pid)
    while True:
        time.sleep(SETTLE_STEP)
        now = resident_bytes(pid)
        if abs(now - last) <= SETTLE_SLACK or time.monotonic() > deadline:
            return now
        last = now
