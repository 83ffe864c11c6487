"""Notices that dynamic files change: by the kernel's notifications, through watchfiles.

Directories are watched, never files: a file that is replaced by a rename, or a link that is turned elsewhere (as Kubernetes does
with ``..data``), is another inode each time. Which directories these are follows from a survey, so with each change the survey is
made again, and when it names others they are watched instead. The order is always watch first, then look: what happens in
between is seen, perhaps twice, and to look twice costs nothing.

The parts of watchfiles used here are those that it documents as its Rust backend for direct usage.

Where notifications fail (no more inotify watches) or cannot be had (a network file system), files are looked at from time to time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from trio_wsb.config.directory import Place, Survey, is_dynamic

log = structlog.stdlib.get_logger("trio_wsb.watch")

QUIET: Final = 200
"""Milliseconds without a further change after which files are read: whoever is writing one is done, most likely."""

LONGEST_WAIT: Final = 2000
"""Milliseconds after which files are read although they go on changing."""

LOOK_INTERVAL: Final = 10_000
"""Milliseconds after which to look without being told, for file systems that do not tell."""

POLL_INTERVAL: Final = 1000
"""Milliseconds between two looks when there are no notifications."""

_PAUSE: Final = 0.5
"""Seconds before another attempt to watch directories that went away just then."""


class FileWatcher:
    """Calls `changed` whenever a dynamic file may have changed, once more too often rather than once too seldom."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Prepare to watch; nothing is watched before `configure`, and outside of `run`.

        Args:
          changed: called on the event loop; must not raise.

        """
        self._changed = changed
        self._place: Place | None = None
        self._scope: trio.CancelScope | None = None
        self._polling = False

    def configure(self, place: Place | None) -> None:
        """Watch `place` from now on, None to watch nothing; the one that is watched already is left alone."""
        if place != self._place:
            self._place = place
            if self._scope is not None:
                self._scope.cancel()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with trio.CancelScope() as self._scope:
                if self._place is None:
                    await trio.sleep_forever()
                else:
                    await self._watch(self._place)

    async def _watch(self, place: Place) -> None:
        limiter = trio.CapacityLimiter(1)
        survey = await trio.to_thread.run_sync(place.survey)
        log.info("watching dynamic files", path=place.root, directories=len(survey.watched))
        while True:
            notify = await self._open(survey)
            if notify is None:
                await trio.sleep(_PAUSE)
            before, survey = survey, await trio.to_thread.run_sync(place.survey)
            if notify is None:
                continue
            # Other directories may have come before these were watched, and nothing would tell of what is in them.
            if survey.watched == before.watched:
                self._changed()  # whatever happened before the watch began
                survey = await self._follow(notify, place, survey, limiter)
            notify.close()

    async def _open(self, survey: Survey) -> RustNotify | None:
        """Return what watches the directories of `survey`, None if one of them has just gone."""
        paths = sorted(path for path, _, _ in survey.watched)
        try:
            return await trio.to_thread.run_sync(_notify, paths, self._polling)
        except FileNotFoundError:
            return None
        except (OSError, WatchfilesRustInternalError) as error:
            if not self._polling:
                reason = getattr(error, "strerror", None) or str(error)
                log.warning("no notifications about files, looking at them each second", reason=reason)
                self._polling = True
            return None

    async def _follow(
        self, notify: RustNotify, place: Place, survey: Survey, limiter: trio.CapacityLimiter
    ) -> Survey:
        """Tell of changes until other directories are to be watched; return the survey that names them."""
        # Whoever was told has read the files some time after that, and what was there then may be gone again when the next
        # notification comes: a directory that came and went looks as if nothing had happened.
        doubtful = True
        stop = threading.Event()
        wait = partial(notify.watch, LONGEST_WAIT, QUIET, LOOK_INTERVAL, stop)
        while True:
            try:
                found = await trio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=limiter)
            except trio.Cancelled:
                stop.set()  # nobody waits for the thread; it ends by itself within `QUIET`
                raise
            now = await trio.to_thread.run_sync(place.survey)
            told = frozenset() if isinstance(found, str) else frozenset(path for _, path in found)
            differs = now.stamps != survey.stamps or now.missing != survey.missing or _concern(told, now)
            if differs or (doubtful and told):
                self._changed()
            doubtful = differs
            # A directory that went and came back may be the same one, but notifications about it have ended.
            if now.watched != survey.watched or any(path in told for path, _, _ in survey.watched):
                return now
            survey = now


def _notify(paths: list[str], polling: bool) -> RustNotify:
    debug, recursive, ignore_permission_denied = False, False, True
    return RustNotify(paths, debug, polling, POLL_INTERVAL, recursive, ignore_permission_denied)


def _concern(paths: Iterable[str], survey: Survey) -> bool:
    files = frozenset(survey.files)
    return any(path in files or is_dynamic(Path(path).name) for path in paths)
