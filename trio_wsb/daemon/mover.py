"""What moves sessions from one backend to others: drains and rebalancing, as one part of the daemon."""

from __future__ import annotations

import random
from collections.abc import Mapping

import trio

from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.drain import DrainTable
from trio_wsb.daemon.drain import Drainer
from trio_wsb.daemon.rebalance import Rebalancer
from trio_wsb.observe.events import EventLog
from trio_wsb.proxy.runtime import Proxy
from trio_wsb.proxy.services import ServiceRuntime


class Mover:
    """Both, from `run` on until that is cancelled; what is drained outlives reloads.

    Args:
      proxy: whose services and sessions they are.
      backends: where backends are found.
      drains: what is drained; the pools look at it too.
      rng: for the order of sessions and the moments of their ends.
      events: where the beginnings and ends are recorded.

    """

    def __init__(
        self,
        proxy: Proxy,
        backends: BackendTable,
        drains: DrainTable | None = None,
        rng: random.Random | None = None,
        events: EventLog | None = None,
    ) -> None:
        events = EventLog() if events is None else events
        self.drains = DrainTable() if drains is None else drains
        self.drainer = Drainer(proxy, self.drains, backends, rng, events)
        self.rebalancer = Rebalancer(proxy, rng, events)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.drainer.run)
            await nursery.start(self.rebalancer.run)
            task_status.started()

    def configuration_changed(
        self, before: Mapping[str, ServiceRuntime], after: Mapping[str, ServiceRuntime]
    ) -> None:
        """Take note of a reload: what has left the configuration may be to be drained."""
        self.drainer.configuration_changed(before, after)
