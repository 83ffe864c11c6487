"""Reload: parse, check and build everything first, then swap; any error keeps the old configuration.

One reload at a time. Whoever asks while one is under way gets the next one, since the file may have changed after the
present one has read it; all who ask meanwhile share that one, so a storm of SIGHUPs costs two reloads.

When only dynamic files or containers have changed the main file is not read, and nothing is said of what is as it was. Such rounds keep the
distance of `providers.providersThrottleDuration`; a reload that somebody asks for waits for nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import structlog
import trio
from attrs import define, field, frozen

from trio_wsb.config.containers import Found
from trio_wsb.config.disable import DisabledRouter
from trio_wsb.config.discovery import ContainerState
from trio_wsb.config.sources import FileState
from trio_wsb.daemon.build import Prepared, prepare, prepare_again
from trio_wsb.daemon.containerlog import log_containers
from trio_wsb.daemon.filelog import log_files
from trio_wsb.daemon.kernelrelay import wanted_relay
from trio_wsb.errors import ConfigurationError

log = structlog.stdlib.get_logger("trio_wsb.reload")


@frozen
class ReloadOutcome:
    """What came of a reload.

    `problems` and `warnings` are lines, ready to be shown; there are problems if and only if it failed. `finished_at`
    is in seconds since 1970, `duration` in seconds. `disabled` are the routers that the configuration now in force leaves
    out, `files` the dynamic files as they stand: one with problems is not in force as it is now.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    finished_at: float
    duration: float
    disabled: tuple[DisabledRouter, ...] = ()
    files: tuple[FileState, ...] = ()
    containers: tuple[ContainerState, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the configuration in the main file is in force now; else the one before still is."""
        return not self.problems

    @property
    def bad_files(self) -> tuple[FileState, ...]:
        """The dynamic files whose last good version, or nothing of which, is in force."""
        return tuple(each for each in self.files if each.problems)

    @property
    def bad_containers(self) -> tuple[ContainerState, ...]:
        """The containers that give nothing since something is wrong with them."""
        return tuple(each for each in self.containers if each.verdict == "bad")


@define(eq=False)
class _Round:
    """A reload that is wanted or under way, and those who wait for it.

    `asked` is set when it must read everything; else the dynamic files alone.
    """

    wanted: trio.Event = field(factory=trio.Event)
    asked: trio.Event = field(factory=trio.Event)
    finished: trio.Event = field(factory=trio.Event)
    outcome: ReloadOutcome | None = None


def log_disabled(disabled: Iterable[DisabledRouter]) -> None:
    """Log a line for each router that does not run."""
    for router in disabled:
        where = {"entryPoints": list(router.entry_points)} if router.entry_points else {}
        log.warning("router disabled", router=router.name, **where, reason="; ".join(router.reasons))


def _nothing_found() -> None:
    return None


def _nothing() -> None:
    pass


async def _at_once(_: Prepared) -> None:
    pass


class Reloader:
    """Reloads the file when asked to, one reload at a time."""

    def __init__(
        self,
        path: Path,
        apply: Callable[[Prepared], None],
        *,
        begins: Callable[[], None] = _nothing,
        ends: Callable[[], None] = _nothing,
        followed: Callable[[ReloadOutcome], None] = lambda _: None,
        learn: Callable[[Prepared], Awaitable[None]] = _at_once,
        found: Callable[[], Found | None] = _nothing_found,
    ) -> None:
        """Prepare to reload.

        Args:
          path: the configuration file.
          apply: puts a configuration to work; raises ConfigurationError and changes nothing if it cannot.
          begins: called before each reload that somebody asked for; must not raise.
          ends: called after it, when `last` has what came of it and nobody who waits for it knows; must not raise.
          learn: waits for what a configuration needs to know before it is put to work, for a moment at most; must not raise.
          followed: called with what came of it when dynamic files or containers alone have changed; must not raise.
          found: gives the containers as they are known now, None as long as they are not.

        """
        self.path = path
        self._apply = apply
        self._begins = begins
        self._ends = ends
        self._followed = followed
        self._found = found
        self._learn = learn
        self._next = _Round()
        self._first: Prepared | None = None
        self.current: Prepared | None = None
        """The configuration in force."""
        self.loaded_at = 0.0
        """When it came into force, in seconds since 1970."""
        self.last: ReloadOutcome | None = None
        """What came of the last reload."""
        self.succeeded = 0
        self.failed = 0
        self._not_before = -math.inf
        self._refused = False

    def begin(self, first: Prepared) -> None:
        """Take note of the configuration that the daemon begins with."""
        self._first = first
        self._take(first)

    def request(self) -> None:
        """Reload soon; safe to call at any time."""
        self._next.asked.set()
        self._next.wanted.set()

    def files_changed(self) -> None:
        """Read the dynamic files again and look at the containers, soon; safe to call at any time and as often as one likes."""
        self._next.wanted.set()

    async def reload(self) -> ReloadOutcome:
        """Reload and return what came of it. A caller that is cancelled has still asked for it."""
        mine = self._next
        mine.asked.set()
        mine.wanted.set()
        await mine.finished.wait()
        assert mine.outcome is not None
        return mine.outcome

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._next.wanted.wait()
            with trio.move_on_at(self._not_before):
                await self._next.asked.wait()
            # From here on others ask for the round after this one: the file is about to be read.
            current, self._next = self._next, _Round()
            if current.asked.is_set():
                self._begins()
                current.outcome = self.last = await self._reload(self._prepare_all)
                self._refused = self.last is not None and not self.last.succeeded
                self._ends()
            else:
                outcome = await self._reload(self._prepare_files)
                if outcome is not None:
                    # That the main file is bad stays the last word until somebody has it read again.
                    if not (self._refused and outcome.succeeded):
                        self.last = outcome
                    self._followed(outcome)
            current.finished.set()

    async def _prepare_all(self) -> Prepared | None:
        # Reading and parsing a megabyte of YAML takes a tenth of a second, and sessions must not wait.
        return await trio.to_thread.run_sync(prepare, self.path, self.current, self._found())

    async def _prepare_files(self) -> Prepared | None:
        if self.current is None:
            return None
        return await trio.to_thread.run_sync(prepare_again, self.current, self._found())

    async def _reload(self, prepare_it: Callable[[], Awaitable[Prepared | None]]) -> ReloadOutcome | None:
        """Reload what `prepare_it` gives; None if that is None, which is that nothing has changed."""
        before, begun = self.current, trio.current_time()
        warnings: tuple[str, ...] = ()
        problems: tuple[str, ...] = ()
        disabled: tuple[DisabledRouter, ...] = ()
        try:
            prepared = await prepare_it()
            if prepared is None:
                return None
            warnings = (*prepared.warnings, *_needs_restart(self._first, prepared))
            await self._learn(prepared)
            self._apply(prepared)
            self._take(prepared)
            disabled = prepared.disabled
        except ConfigurationError as error:
            problems = tuple(error.problems)
        except Exception as error:
            # Our own fault, and the log has where; the sessions are not to pay for it.
            log.exception("internal error in a reload")
            problems = (f"internal error: {type(error).__name__}; the log has more",)
        duration = round(trio.current_time() - begun, 3)
        files = () if self.current is None else self.current.files
        containers = container_states(self.current)
        outcome = ReloadOutcome(problems, warnings, time.time(), duration, disabled, files, containers)
        if prepare_it == self._prepare_files:
            assert self.current is not None
            throttle = self.current.config.providers.providers_throttle_duration
            self._not_before = trio.current_time() + throttle
            known = () if before is None else (*before.warnings, *map(str, before.disabled))
            self._tell(outcome, before, frozenset(known))
        else:
            self._tell(outcome, before)
        return outcome

    def _take(self, prepared: Prepared) -> None:
        self.current, self.loaded_at = prepared, time.time()

    def _tell(
        self, outcome: ReloadOutcome, before: Prepared | None, known: frozenset[str] = frozenset()
    ) -> None:
        """Count the outcome and log it, every line of it but those that are `known`."""
        if outcome.succeeded:
            self.succeeded += 1
        else:
            self.failed += 1
        counts = {"reloads": self.succeeded, "reloadsFailed": self.failed}
        if outcome.succeeded:
            log_files(() if before is None else before.files, outcome.files)
            log_containers(container_states(before), outcome.containers)
            for warning in outcome.warnings:
                if warning not in known:
                    log.warning("configuration warning", problem=warning)
            log_disabled(router for router in outcome.disabled if str(router) not in known)
            log.info(
                "configuration reloaded",
                **counts,
                duration=outcome.duration,
                **({"routersDisabled": len(outcome.disabled)} if outcome.disabled else {}),
            )
            return
        for problem in outcome.problems:
            log.error("configuration problem", problem=problem)
        log.error(
            "reload failed, the old configuration stays in force", problems=len(outcome.problems), **counts
        )


def container_states(prepared: Prepared | None) -> tuple[ContainerState, ...]:
    """Return how the containers stand in a configuration."""
    discovered = None if prepared is None else prepared.discovered
    return () if discovered is None else discovered.states


def _needs_restart(first: Prepared | None, new: Prepared) -> list[str]:
    """Return a line for what differs from the start and is read there alone."""
    if first is None:
        return []
    before, after = first.config, new.config
    lines = []
    if before.control != after.control:
        lines.append("control: the control socket stays where it is until a restart")
    if before.kernel_relay != after.kernel_relay:
        lines.append("kernelRelay: the relay in the kernel stays as it is until a restart")
    elif after.kernel_relay.enabled and wanted_relay(after.http) and not wanted_relay(before.http):
        lines.append(
            "relay: no service wanted the relay in the kernel at the start, so there is none until a restart"
        )
    return lines
