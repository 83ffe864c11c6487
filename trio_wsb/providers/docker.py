"""Keeps the table of running containers as the Docker Engine has it: a list, and then what its events say has changed.

The order is always listen first, then look: what happens in between is told, perhaps of a container that the list has already, and to
ask for one twice costs nothing. From time to time everything is looked at again, as though no event could be trusted.

While the Engine is away the last table stays, and it is tried again with a growing pause. A container of which the Engine cannot give
a proper answer stays what it was, and is asked for again; it holds up no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, Literal, TypeAlias

import structlog
import trio
from attrs import evolve, frozen

from trio_wsb.background.faults import leaves
from trio_wsb.config.containers import Container, Found
from trio_wsb.config.docker import DockerProvider
from trio_wsb.providers.engine import (
    Engine,
    EngineError,
    NoContainer,
    TransportFactory,
    Version,
    engine_transport,
    open_engine,
    show_engine,
)

log = structlog.stdlib.get_logger("trio_wsb.docker")

AT_ONCE: Final = 8
"""Containers that are asked for at the same time."""

FIRST_PAUSE: Final = 0.5
"""Seconds before the first new attempt; twice as long after each one that fails."""

LONGEST_PAUSE: Final = 30.0

RESYNC: Final = 300.0
"""Seconds after which everything is looked at again."""

RETRY: Final = 10.0
"""Seconds after which a container is asked for again that gave no proper answer."""

QUIET: Final = 0.02
"""Seconds in which further events are gathered: a container that starts gives three."""

_HOST_NAMES: Final = ("host.docker.internal", "host.containers.internal")
_LOOK_UP: Final = 2.0
_LOOPBACK: Final = "127.0.0.1"

State: TypeAlias = Literal["off", "starting", "ok", "away"]


@frozen
class Standing:
    """How the provider stands.

    `since` is when that began, on the clock of `trio.current_time`; `reason` why it is away, `unread` how many containers gave no proper answer.
    """

    state: State = "off"
    since: float = 0.0
    reason: str = ""
    endpoint: str = ""
    version: Version | None = None
    unread: int = 0


class DockerProviderTask:
    """Follows the Engine that it is told to, from `run` on until that is cancelled.

    `found` is the table, None as long as the Engine has never answered; `standing` tells how it stands. Neither is ever half done.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        rng: Random | None = None,
        transport: TransportFactory = engine_transport,
        host: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """Prepare; nothing is asked before `configure`, and outside of `run`.

        Args:
          changed: called on the event loop when `found` is another one; must not raise.
          rng: what varies the pauses.
          transport: makes what reaches the Engine.
          host: finds the address of the Engine's host.

        """
        self.found: Found | None = None
        self.standing = Standing()
        self._changed = changed
        self._rng = rng or Random()
        self._transport = transport
        self._find_host = host or _host_address
        self._host = ""
        self._options: DockerProvider | None = None
        self._scope: trio.CancelScope | None = None
        self._known = trio.Event()
        self._containers: dict[str, Container] = {}
        self._dirty: set[str] = set()
        self._all = False
        self._news = trio.Event()

    def configure(self, options: DockerProvider | None) -> None:
        """Follow the Engine of `options` from now on, None for none. One that is followed already goes on being followed.

        The table stays until another Engine has given its own.
        """
        before, self._options = self._options, options
        if options is None:
            self.found, self._known = None, trio.Event()
            self._containers.clear()
        if _way(before) != _way(options) and self._scope is not None:
            self._scope.cancel()

    def look_again(self) -> None:
        """Ask for everything again, soon, and try at once where the Engine is away; safe to call at any time."""
        self._all = True
        self._news.set()

    async def known(self, timeout: float) -> None:
        """Wait until there is a table, `timeout` seconds at most; not at all where no Engine is followed."""
        if self._options is not None:
            with trio.move_on_after(timeout):
                await self._known.wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with trio.CancelScope() as self._scope:
                if self._options is None:
                    self.standing = Standing(since=trio.current_time())
                    await trio.sleep_forever()
                else:
                    await self._keep_following(self._options)

    async def _keep_following(self, options: DockerProvider) -> None:
        endpoint = show_engine(options)
        self.standing = Standing("starting", trio.current_time(), endpoint=endpoint)
        self._containers = {}
        pause = FIRST_PAUSE
        while True:
            reason = ""
            try:
                await self._follow(options)
            except* (EngineError, NoContainer) as group:
                reason = str(next(leaves(group))) or "answered 404"
            except* Exception as group:
                # Our own fault; what is known of the containers goes on being used.
                log.error("internal error in the Docker provider", exc_info=group)
                reason = f"internal error: {type(next(leaves(group))).__name__}; the log has more"
            standing = self.standing
            if standing.state == "ok" and trio.current_time() - standing.since > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._away(reason)
            self._news = trio.Event()
            with trio.move_on_after(pause * self._rng.uniform(0.75, 1.25)):
                await self._news.wait()
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _follow(self, options: DockerProvider) -> None:
        """Follow the Engine until it fails."""
        async with open_engine(options, self._transport) as engine:
            version = await engine.greet()
            self._host = ""
            self._dirty, self._all = set(), True
            async with trio.open_nursery() as nursery:
                if options.watch:
                    await nursery.start(engine.follow, self._told)
                while True:
                    self._news = trio.Event()
                    unread = await self._look(engine)
                    self._publish(await self._address_of_host(options))
                    self._well(version, len(unread))
                    due = RETRY if unread else RESYNC
                    with trio.move_on_after(due if options.watch or unread else float("inf")) as waiting:
                        await self._news.wait()
                        await trio.sleep(QUIET)
                    self._dirty |= unread
                    if waiting.cancelled_caught and not unread:
                        self._all = True

    def _told(self, identity: str) -> None:
        self._dirty.add(identity)
        self._news.set()

    async def _look(self, engine: Engine) -> set[str]:
        """Bring the table up to date, and return which containers gave no proper answer."""
        everything, self._all = self._all, False
        ids, self._dirty = self._dirty, set()
        if everything:
            running = await engine.running()
            for gone in self._containers.keys() - set(running):
                del self._containers[gone]
            ids = set(running)
        unread: set[str] = set()
        limit = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for identity in sorted(ids):
                nursery.start_soon(self._inspect, engine, identity, limit, unread)
        if everything and unread and unread == ids:
            # Not one answer: it is the Engine, not the containers.
            raise EngineError(f"no proper answer for any of {len(ids)} containers")
        return unread

    async def _inspect(
        self, engine: Engine, identity: str, limit: trio.CapacityLimiter, unread: set[str]
    ) -> None:
        async with limit:
            try:
                container = await engine.inspect(identity)
            except NoContainer:
                container = None
            except EngineError as error:
                log.debug("container not read", container=identity[:12], reason=error.reason)
                unread.add(identity)
                return
        if container is None:
            self._containers.pop(identity, None)
        else:
            self._containers[identity] = container

    async def _address_of_host(self, options: DockerProvider) -> str:
        """Return the address of the Engine's host; it is looked up when there is a container that is there."""
        if options.endpoint.host:
            return options.endpoint.host
        if not self._host and any(each.network_mode == "host" for each in self._containers.values()):
            with trio.move_on_after(_LOOK_UP):
                self._host = await self._find_host()
        return self._host or _LOOPBACK

    def _publish(self, host: str) -> None:
        found = Found(
            tuple(sorted(self._containers.values(), key=lambda each: (each.created, each.name, each.id))),
            host,
        )
        if found != self.found:
            self.found = found
            self._known.set()
            self._changed()

    def _well(self, version: Version, unread: int) -> None:
        standing = self.standing
        if standing.state != "ok":
            log.info(
                "containers known",
                endpoint=standing.endpoint,
                engine=version.engine,
                api=version.api,
                containers=len(self._containers),
            )
            standing = Standing("ok", trio.current_time(), endpoint=standing.endpoint)
        if unread and unread != standing.unread:
            log.warning(
                "containers not read, they stay as they were", containers=unread, endpoint=standing.endpoint
            )
        self.standing = evolve(standing, version=version, unread=unread)

    def _away(self, reason: str) -> None:
        standing = self.standing
        if standing.state != "away" or standing.reason != reason:
            kept = None if self.found is None else len(self.found.containers)
            hint = {"hint": _HINT} if "Permission denied" in reason else {}
            log.error(
                "Docker Engine away", endpoint=standing.endpoint, reason=reason, containersKept=kept, **hint
            )
        since = standing.since if standing.state == "away" else trio.current_time()
        self.standing = evolve(standing, state="away", since=since, reason=reason)


_HINT: Final = "the daemon's user must be in the group that owns the socket, mostly docker"


def _way(options: DockerProvider | None) -> tuple[object, ...] | None:
    """Return those of the options on which the requests to the Engine depend."""
    if options is None:
        return None
    return (
        options.endpoint,
        options.tls,
        options.username,
        options.password,
        options.watch,
        options.http_client_timeout,
    )


async def _host_address() -> str:
    """Return the address of the host of the Engine, as seen from in a container of it or from the host itself."""
    for name in _HOST_NAMES:
        try:
            return str((await trio.socket.getaddrinfo(name, None, type=trio.socket.SOCK_STREAM))[0][4][0])
        except OSError:
            continue
    return _LOOPBACK
