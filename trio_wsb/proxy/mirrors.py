"""Copies of sessions and requests: where they are kept, who runs them, and what became of them.

A copy must never slow what it is a copy of. So a session only puts what its client sends into a feed, without ever waiting;
the copy's own task takes it from there, and when it does not keep up the copy is given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
import trio

from trio_wsb.balancing.backend import Backend
from trio_wsb.net.channel import Buffer, ByteChannel, Data

FEED_LIMIT: Final = 256 * 1024
"""Bytes that a session's copy may be behind; more, and it is dropped as slow."""

MAX_COPIES: Final = 4096
"""Copies at a time, since each costs a descriptor; more are not begun."""

LAST_WORDS: Final = 5.0
"""Seconds in which a copy must take what is left when its session has ended."""

log = structlog.stdlib.get_logger("trio_wsb.mirror")


class MirrorFeed:
    """What a session's client has sent and its copy has not taken yet."""

    __slots__ = ("_buffer", "_more", "_stopped", "over", "reason", "scope")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._more = trio.Event()
        self._stopped = False
        self.over = trio.Event()
        """Set when the session is."""
        self.reason: str | None = None
        """Why the copy was given up."""
        self.scope = trio.CancelScope()
        """What the copy runs in."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        return self.over.is_set()

    @property
    def behind(self) -> bool:
        """Whether there is something that the copy has not taken."""
        return bool(self._buffer)

    def give(self, data: Data) -> None:
        """Add what the client sent, unless the copy was given up. Never waits."""
        if self._stopped or self.ended:
            return
        if len(self._buffer) + len(data) > FEED_LIMIT:
            self.drop("slow")
            return
        self._buffer += data
        self._more.set()

    def end(self) -> None:
        """Note that the session is over; the copy gets what is left, and a moment for it."""
        if not self.ended:
            self.over.set()
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + LAST_WORDS)
            self._more.set()

    def drop(self, reason: str) -> None:
        """Give the copy up."""
        if self.reason is None:
            self.reason = reason
            self.stop()
            self.scope.cancel()

    def stop(self) -> None:
        """Keep nothing from now on: the copy takes no more."""
        self._stopped = True
        self._buffer.clear()

    async def take(self) -> bytes:
        """Wait for more and return all of it; nothing when the session is over."""
        while not (self._buffer or self.ended):
            self._more = trio.Event()
            await self._more.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class TappedChannel(ByteChannel):
    """A channel, what is received from which goes into feeds too. Owns the channel; the feeds end with it."""

    __slots__ = ("_feeds", "_inner", "can_half_close")

    def __init__(self, inner: ByteChannel, feeds: Sequence[MirrorFeed]) -> None:
        self._inner = inner
        self._feeds = tuple(feeds)
        self.can_half_close = inner.can_half_close

    def recv_into(self, buffer: Buffer, /) -> int:
        """See `ByteChannel`."""
        count = self._inner.recv_into(buffer)
        if count:
            for feed in self._feeds:
                feed.give(buffer[:count])
        else:
            self._end()
        return count

    def send(self, data: Data, /) -> int:
        """See `ByteChannel`."""
        return self._inner.send(data)

    def wait_readable(self) -> Awaitable[None]:
        """See `ByteChannel`."""
        return self._inner.wait_readable()

    def wait_writable(self) -> Awaitable[None]:
        """See `ByteChannel`."""
        return self._inner.wait_writable()

    def shutdown(self) -> None:
        """See `ByteChannel`."""
        self._inner.shutdown()

    def close(self) -> None:
        """See `ByteChannel`."""
        self._inner.close()
        self._end()

    def abort(self) -> None:
        """See `ByteChannel`."""
        self._inner.abort()
        self._end()

    def _end(self) -> None:
        for feed in self._feeds:
            feed.end()


class Mirrors:
    """Runs copies, from `run` on until that is cancelled; without it there are none."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self.running = 0
        """Copies that run now."""
        self.begun_total = 0
        self.dropped_total: Counter[str] = Counter()
        """Copies that were given up, or not begun, by reason."""
        self._open: dict[MirrorFeed, tuple[Backend, str]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run copies until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def begin(self, service: str, work: Callable[[], Awaitable[str | None]]) -> bool:
        """Begin a copy for `service`; whether it was begun.

        `work` returns None, or why the copy was given up; it raises nothing but Cancelled.
        """
        if self._nursery is None or self.running >= MAX_COPIES:
            self.dropped_total["too many"] += 1
            return False
        self.running += 1
        self.begun_total += 1
        self._nursery.start_soon(self._run, service, work)
        return True

    def opened(self, feed: MirrorFeed, backend: Backend, service: str) -> None:
        """Note that a session's copy is open at a backend; followed by one `closed`."""
        self._open[feed] = backend, service

    def closed(self, feed: MirrorFeed) -> None:
        """Note that it is not any more."""
        del self._open[feed]

    def drain(self, backend: Backend, service: str | None) -> int:
        """Give up the copies of sessions that are open at a backend, for a service or with None for all; how many.

        Nobody waits for what their backend answers, and nobody reconnects, so all go at once.
        """
        found = [
            feed
            for feed, (where, whose) in self._open.items()
            if where is backend and service in {None, whose}
        ]
        for feed in found:
            feed.drop("drained")
        return len(found)

    async def _run(self, service: str, work: Callable[[], Awaitable[str | None]]) -> None:
        reason: str | None = None
        try:
            reason = await work()
        except* Exception as group:
            # A copy's fault, ours or its backend's, must not end the others.
            reason = "internal error"
            log.error("internal error", service=service, exc_info=group)
        finally:
            self.running -= 1
        if reason is not None:
            self.dropped_total[reason] += 1
            log.info("mirror dropped", service=service, reason=reason)
