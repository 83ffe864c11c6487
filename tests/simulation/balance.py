"""The bound that the load formula promises, measured at each choice against what the backends really have.

docs/explanation/load.md states it: with true reports and equal weights a chosen backend has, its new client included, at
most ``1 + 2E`` connections more than any other that could have been chosen, where E is by how much the known load of
a backend can differ from the real one: what moved while its last report was under way, sessions whose end had not got
through from one side to the other when it counted, and connections that are not ours and came or went since. Where
nothing moves but clients that come after the reports, E is 0 and the counts differ by one.
"""

from __future__ import annotations

import trio

from tests.simulation.ledger import Violation
from tests.simulation.world import World
from trio_wsb.addresses import BackendURL
from trio_wsb.proxy.runtime import TransportRuntime

LONG_AGO = 1e9
"""Seconds; a report that is older never was."""


class Balance:
    """Looks at each choice of a story."""

    def __init__(self, world: World, *, bound: bool) -> None:
        self.world = world
        self.bound = bound
        self.choices = 0
        self.widest = 0
        """The largest excess of a chosen backend over another one, in connections."""
        self.closest: int | None = None
        """By how much the bound was kept at its closest."""
        world.on_dial.append(self._chosen)

    def _chosen(self, url: BackendURL, transport: TransportRuntime) -> None:
        world = self.world
        service = world.service
        pool, now = service.pool, trio.current_time()
        member = next((each for each in pool.members if each.backend.url == url), None)
        if member is None:
            return  # a request that began before a reload
        self.choices += 1
        if world.drains.covering(url, service.name) is not None:
            world.fail(Violation(f"{url} was chosen while it is drained"))
        if member.max_connections and member.backend.own > member.max_connections:
            world.fail(Violation(f"{url} was chosen beyond its {member.max_connections} connections"))
        if member.max_pending and member.backend.opening > member.max_pending:
            world.fail(Violation(f"{url} was chosen beyond its {member.max_pending} handshakes"))
        if transport is not service.transport:
            return  # chosen by a request from before a reload, which keeps to what it began with; the checks may be others now
        health = pool.health(member.backend)
        if health is not None and health.down:
            world.fail(Violation(f"{url} was chosen while it is down"))
        if not self.bound or pool.strategy != "leastconn" or pool.ramping(now):
            return
        figures = [
            (each.backend, world.servers[each.backend.url])
            for each, figure in zip(pool.members, pool.standing(now, LONG_AGO), strict=True)
            if figure.counts and world.drains.covering(each.backend.url, service.name) is None
        ]
        if len(figures) < 2 or member.backend not in (backend for backend, _ in figures):
            return
        # With the attempt that was just counted in.
        real = {backend: backend.own + server.foreign for backend, server in figures}
        error = max(world.counts.error(server) for _, server in figures)
        excess = real[member.backend] - min(real.values())
        self.widest = max(self.widest, excess)
        left = 1 + 2 * error - excess
        self.closest = left if self.closest is None else min(self.closest, left)
        if left < 0:
            world.fail(
                Violation(
                    f"{url} was chosen with {real[member.backend]}, another one has {min(real.values())}, "
                    f"and no report was off by more than {error}"
                )
            )
