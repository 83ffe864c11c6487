"""Follows what the names of servers stand for: learnt before a configuration is put to work, and again and again after that.

When it changes, the configuration in force is built anew, by the way of a reload and with its guarantees: one assignment, and
nothing happens to sessions but what `onRemove` says. Nothing is read, and the load balancers that are as they were stay the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import structlog
import trio

from trio_wsb.balancing.discovery import NameTable
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.discovery import resolver_settings
from trio_wsb.providers.names import NameResolver

log = structlog.stdlib.get_logger("trio_wsb.names")


class NameFollower:
    """Owns the resolver.

    Args:
      table: where answers go; stays the caller's.
      rng: what varies the pauses between questions.
      rebuild: builds the configuration in force anew; called on the event loop.

    """

    def __init__(self, table: NameTable, rng: Random, rebuild: Callable[[], None]) -> None:
        self._rebuild = rebuild
        self._stale = False
        self._wake = trio.Event()
        self._throttle = 0.0
        self._resolver = NameResolver(table, rng=rng, changed=self._name_changed)

    async def learn(self, prepared: Prepared) -> None:
        """Wait for the first answers about names that `prepared` brings, a moment at most."""
        await self._resolver.learn(prepared.names, resolver_settings(prepared.config.dns))

    def configure(self, prepared: Prepared) -> None:
        """Follow the names of `prepared`, which has just been put to work with what is known of them."""
        self._throttle = prepared.config.providers.providers_throttle_duration
        self._resolver.configure(prepared.names, resolver_settings(prepared.config.dns))
        self._stale = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._resolver.run)
            task_status.started()
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._stale:
                    self._stale = False
                    self._build_anew()
                    await trio.sleep(self._throttle)

    def _build_anew(self) -> None:
        try:
            self._rebuild()
        except Exception:
            # Our own fault, and the log has where; what was in force goes on.
            log.exception("internal error while following names")

    def _name_changed(self) -> None:
        self._stale = True
        self._wake.set()
