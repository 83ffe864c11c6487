"""Reload: parse, check and build everything first, then swap; any error keeps the old configuration.

Requests that come while one is under way coalesce into one more: a storm of SIGHUPs costs two reloads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from trio_wsb.daemon.build import Prepared, prepare
from trio_wsb.errors import ConfigurationError

log = structlog.stdlib.get_logger("trio_wsb.reload")


class Reloader:
    """Reloads the file when asked to, one reload at a time."""

    def __init__(self, path: Path, apply: Callable[[Prepared], None]) -> None:
        """Prepare to reload.

        Args:
          path: the configuration file.
          apply: puts a configuration to work; raises ConfigurationError and changes nothing if it cannot.

        """
        self._path = path
        self._apply = apply
        self._current: Prepared | None = None
        self._wanted = trio.Event()
        self.succeeded = 0
        self.failed = 0

    def request(self) -> None:
        """Reload soon; safe to call at any time."""
        self._wanted.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self.reload()

    async def reload(self) -> bool:
        """Reload now; whether it worked. Every problem is logged."""
        begun = trio.current_time()
        try:
            # Reading and parsing a megabyte of YAML takes a tenth of a second, and sessions must not wait.
            prepared = await trio.to_thread.run_sync(prepare, self._path, self._current)
            self._apply(prepared)
            self._current = prepared
        except ConfigurationError as error:
            self.failed += 1
            for problem in error.problems:
                log.error("configuration problem", problem=problem)
            log.error(
                "reload failed, the old configuration stays in force",
                problems=len(error.problems),
                reloads=self.succeeded,
                reloadsFailed=self.failed,
            )
            return False
        self.succeeded += 1
        for warning in prepared.warnings:
            log.warning("configuration warning", problem=warning)
        log.info(
            "configuration reloaded",
            reloads=self.succeeded,
            reloadsFailed=self.failed,
            duration=round(trio.current_time() - begun, 3),
        )
        return True
