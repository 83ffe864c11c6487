"""Three daemons behind the real Traefik, over the same backends: they keep them even without talking to each other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import Daemon, backend, daemon
from tests.daemon.waiting import reports_arrived, sessions
from tests.traefik.harness import Traefik, Visitors, traefik_program, visitors

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(
        traefik_program() is None, reason="traefik is not installed (pip install 'trio-wsb[peers]')"
    ),
]

INTERVAL = 2.0
"""Seconds between two reports. A burst takes about as long, or less, so that most of it goes by what was known before."""


async def burst(made: Visitors, url: str, count: int) -> None:
    """Let clients come at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(made.visit, url)


async def test_three_daemons_keep_the_backends_even(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(backend(name=f"pod-{index}")) for index in range(3)]
        balancers: list[Daemon] = []
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            running = daemon(tmp_path / name, [each.url for each in started], cacheTTL=f"{INTERVAL:g}s")
            balancers.append(await stack.enter_async_context(running))
        traefik = Traefik(tmp_path / "traefik", [each.url for each in balancers])
        await stack.enter_async_context(traefik.running())
        made = await stack.enter_async_context(visitors())

        await reports_arrived(started, balancers=3)
        await burst(made, traefik.ws, 180)
        # Traefik takes them in turn, but for a request of its own health check now and then.
        assert all(len(each.log("session opened")) > 50 for each in balancers)
        first = await sessions(started)
        assert all(57 <= count <= 63 for count in first), first

        # One goes with its sessions and comes back empty. Each daemon sees the same gap of 60 and gets 40 clients: each could fill
        # most of it alone, and by itself would send all of them there, 120 in the end.
        gone = started.pop()
        gone.running.process.kill()
        await gone.running.exit()
        started.append(await stack.enter_async_context(backend(name="pod-2", port=gone.port)))
        await reports_arrived(started, balancers=3)
        await burst(made, traefik.ws, 120)
        counts = await sessions(started)
        assert sum(counts) == sum(first[:2]) + 120
        assert all(70 <= count <= 92 for count in counts), counts
