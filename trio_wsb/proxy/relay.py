"""The relay: two pumps in one cancel scope that move a session's bytes, and nothing but bytes.

Rules that everything here and in `trio_wsb.proxy.pump` obeys:

- A send is never cancelled but to give the session up: a cancelled send has lost its position.
- Each direction has one writer, its pump. A frame of ours goes out through it, at a frame boundary.
- The end of one direction is passed on as the end of that direction where the channel can do it; a channel
  that cannot (TLS) ends both. Errors and timeouts end both.
- The first thing that ends a session is its cause; what follows from it changes nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.causes import CLOSE_CODES, Cause, Side
from trio_wsb.proxy.guard import NO_LIMITS, Guard, SessionLimits
from trio_wsb.proxy.pump import SCRATCH_SIZE as SCRATCH_SIZE  # noqa: PLC0414 - part of this module's interface
from trio_wsb.proxy.pump import Pump
from trio_wsb.websocket.frames import FrameScanner
from trio_wsb.websocket.gate import FrameGate

_DOWN: Final = "relay, down"
"""The name of the task; Trio would make one up for each session."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds for the TCP connections to end after both Close frames went by (RFC 6455 section 7.1.1), and for a client to
answer the Close frame by which a limit ends its session."""

LINGER_TIMEOUT: Final = 5.0
"""Seconds for what is left of the other direction after a peer broke off."""

SILENT_TIMEOUT: Final = 2.0
"""Seconds for the other side to answer our Close frame after a peer fell silent, which will not answer its own."""

LAST_WORD_TIMEOUT: Final = 1.0
"""Seconds between a Close frame to the side that is still there and the cut, when the other side let a timeout pass."""

HALF_CLOSED_TIMEOUT: Final = 5.0
"""Seconds of silence in the remaining direction after the other one ended.

An end of stream without a Close frame is nearly always a peer that died, and its session must not seem to
live; but one that only stopped sending still gets all that is on its way.
"""


class Relay:
    """Both directions of one session.

    Resource handling: owns both channels; they are closed when `run` returns or is cancelled.
    """

    __slots__ = (
        "_close",
        "_cut",
        "_deadline",
        "_guard",
        "_limits",
        "_nursery",
        "_progress",
        "_progress_at",
        "_suspected",
        "_telling",
        "_watch",
        "backend",
        "cause",
        "client",
        "close_code",
        "down",
        "ending",
        "scratch",
        "up",
        "write_timeout",
    )

    def __init__(
        self,
        client: ByteChannel,
        backend: ByteChannel,
        *,
        scratch: memoryview,
        write_timeout: float,
        watch: Callable[[Relay], None],
        limits: SessionLimits = NO_LIMITS,
        client_early: bytes = b"",
        backend_early: bytes = b"",
    ) -> None:
        """Prepare a relay.

        Args:
          client: the client's channel.
          backend: the backend's channel.
          scratch: `SCRATCH_SIZE` bytes that every relay of this thread may share.
          write_timeout: seconds that a peer may accept nothing while bytes wait for it; 0 is no limit.
          watch: called with the relay when it has a deadline; whoever is called then calls `check` about
            once a second until that returns False.
          limits: what the session may do.
          client_early: what the client sent after its handshake before the backend had agreed.
          backend_early: what the backend sent right after its 101.

        """
        self.client = client
        self.backend = backend
        self.scratch = scratch
        self.write_timeout = write_timeout
        self.up = Pump(self, client, backend, FrameScanner(masked=True), client_early)
        self.down = Pump(self, backend, client, FrameScanner(masked=False), backend_early)
        client.follow(self.up.scanner, len(client_early))
        backend.follow(self.down.scanner, len(backend_early))
        self.cause: Cause | None = None
        """Why the session ended or is about to."""
        self._suspected: Cause | None = None  # unless what is still to be read says otherwise
        self.close_code: int | None = None
        """Code of the first Close frame, by whoever; 1005 if that had none, None as long as there was no such frame.

        Where we tell both sides, and not the same, it is the code that names the cause.
        """
        self.ending = False
        """Whether we have begun to end it."""
        # Code and reason of the Close for a backend that gets no other.
        self._close: tuple[int, str] | None = None
        self._cut = False
        self._telling: int | None = None  # the code to be recorded where the two sides get different ones
        self._limits = limits
        self._guard: Guard | None = None
        self._watch = watch
        self._nursery: trio.Nursery | None = None
        self._deadline = math.inf
        self._progress = -1
        self._progress_at = 0.0

    async def run(self) -> None:
        """Relay until the session ends. Raises nothing but Cancelled; `cause` says why it ended."""
        if self._limits is not NO_LIMITS:
            self._begin_limits()
        try:
            if self.client.has_ended() and await self._both_have_left():
                return
            async with trio.open_nursery() as self._nursery:
                if self._cut:
                    self.cut()
                self._nursery.start_soon(self.down.run, name=_DOWN)
                await self.up.run()
        finally:
            self._nursery = None
            self._record(self._suspected)
            self.close()
            self.up.leave()
            self.down.leave()

    async def _both_have_left(self) -> bool:
        """End the session of a client that has left already, if the backend does so at once; whether it did.

        Probes do that, and clients by the thousand that come back in panic: neither is worth a nursery and a second task,
        which are a tenth of a handshake.
        """
        up, down = self.up, self.down
        if up.has_early or down.has_early or not self.backend.can_half_close:
            return False
        self.source_ended(up)  # the pump says so once more, which changes nothing
        await trio.lowlevel.checkpoint()
        if self._cut or self.ending or not self.backend.has_ended():
            return False
        up.ended = down.ended = True
        return True

    def close(self) -> None:
        """Close the channels, which nobody may use any more."""
        self.backend.release()
        self.client.release()

    def _begin_limits(self) -> None:
        limits, now = self._limits, trio.current_time()
        allowance = limits.allowance(now)
        if limits.max_message_bytes:
            self.down.check_frames(FrameGate(self.down.scanner, max_message=limits.max_message_bytes), None)
        if limits.max_message_bytes or allowance is not None:
            self.up.check_frames(FrameGate(self.up.scanner, max_message=limits.max_message_bytes), allowance)
        if limits.timed:
            # Jitter decides nothing that an adversary could use.
            self._guard = Guard(self, limits, now, random.random())
            self._watch(self)

    def end(self, cause: Cause, code: int, timeout: float, reason: str = "") -> None:
        """End the session politely: a Close frame to the client and no more data to it.

        What the client still sends, its Close echo included, reaches the backend, which then ends its side. When
        that has not happened within `timeout` seconds, the backend gets a Close frame with the same code, and both
        are cut a moment later.
        """
        self._record(cause)
        self.ending = True
        if self._close is None:
            self._close = (code, reason)
        self._limit(timeout)
        self.down.request_close(code, reason)

    def end_by_limit(self, cause: Cause) -> None:
        """End the session as `end` does, for a cause that has its own code and is its own reason."""
        self.end(cause, CLOSE_CODES[cause][0], CLOSE_TIMEOUT, cause.value)

    def end_both(self, cause: Cause, timeout: float = SILENT_TIMEOUT) -> None:
        """End both directions at their next frame boundary, each by a Close frame, and cut them `timeout` seconds later.

        For causes after which nothing more may or can pass.
        """
        self._record(cause)
        self.ending = True
        to_client, to_backend = CLOSE_CODES[cause]
        # One side is told what happened, and the other one that the balancer goes away (1001), if that.
        self._telling = max(to_client, to_backend)
        self.down.request_close(to_client, cause.value)
        self.up.request_close(to_backend, cause.value)
        self._limit(timeout)

    def cut(self, cause: Cause | None = None) -> None:
        """End both directions at once. A backend whose client has not answered our Close gets one before that."""
        if cause is not None:
            self._record(cause)
        if self._nursery is not None:
            self._close_backend()
            self._nursery.cancel_scope.cancel()
        else:
            self._cut = True  # it has not begun yet, or is over

    def check(self, now: float) -> bool:
        """Enforce the deadlines that are due at `now` (trio time); whether there are any left to watch."""
        if self._nursery is None:
            return False
        if now >= self._deadline:
            if self._finishes():
                self._deadline = now + CLOSE_TIMEOUT
            elif self._close_backend():
                self._deadline = now + LAST_WORD_TIMEOUT
                return True
            else:
                self.cut()
                return False
        if self.write_timeout:
            for pump, cause in (
                (self.down, Cause.CLIENT_WRITE_TIMEOUT),
                (self.up, Cause.BACKEND_WRITE_TIMEOUT),
            ):
                pump.look_at_sink(now)
                if pump.blocked_since is not None and now - pump.blocked_since >= self.write_timeout:
                    if self.ending:
                        self.cut()
                        return False
                    self.end_both(cause, LAST_WORD_TIMEOUT)
                    return True
        self.merge()
        if self.up.ended is not self.down.ended:
            progress = self.up.scanner.bytes + self.down.scanner.bytes
            if progress != self._progress:
                self._progress, self._progress_at = progress, now
            elif now - self._progress_at >= HALF_CLOSED_TIMEOUT:
                self.cut()
                return False
            return True
        if self._guard is not None:
            self._guard.look(self, now)
            return True
        return self._deadline < math.inf or self.blocked

    def merge(self) -> None:
        """Bring the counters of both scanners up to date, where others move the bytes."""
        self.client.merge()
        self.backend.merge()

    @property
    def closed_by(self) -> Side | None:
        """Whose end it was: "client" or "backend" when that side closed or was lost, else "balancer"; None while it lives."""
        return None if self.cause is None else self.cause.side

    @property
    def code_to_client(self) -> int | None:
        """Code of the Close frame that the client got, the backend's or ours; None if it got none."""
        return self.down.close_code

    @property
    def code_to_backend(self) -> int | None:
        """Code of the Close frame that the backend got, the client's or ours; None if it got none."""
        return self.up.close_code

    @property
    def blocked(self) -> bool:
        """Whether a peer does not take what waits for it."""
        return self.up.blocked_since is not None or self.down.blocked_since is not None

    # What the pumps need and report.

    def start_soon(self, work: Callable[[memoryview], Awaitable[object]], data: memoryview) -> None:
        """Do `work` beside the pumps, as part of the session."""
        if self._nursery is not None:
            self._nursery.start_soon(work, data)

    def watch(self) -> None:
        """Note that a deadline may apply from now on."""
        self._watch(self)

    def close_seen(self, pump: Pump) -> None:
        """Note that a whole Close frame of the pump's source went by."""
        self._record(Cause.CLIENT_CLOSED if pump is self.up else Cause.BACKEND_CLOSED)
        if self.close_code is None:
            self.close_code = pump.scanner.close_code
        if self.up.scanner.closed and self.down.scanner.closed:
            self._limit(CLOSE_TIMEOUT)

    def close_sent(self, code: int) -> None:
        """Note that a Close frame of ours went out."""
        if self.close_code is None:
            self.close_code = self._telling or code

    def message_too_big(self, pump: Pump) -> None:
        """End the session: the pump's source sends a message over the limit, of which no more has passed than fits."""
        self.end_both(
            Cause.CLIENT_MESSAGE_TOO_BIG if pump is self.up else Cause.BACKEND_MESSAGE_TOO_BIG, CLOSE_TIMEOUT
        )

    def source_ended(self, pump: Pump) -> None:
        """End one direction: the pump's source sends no more."""
        self._record(Cause.CLIENT_LOST if pump is self.up else Cause.BACKEND_LOST)
        if (self.down if pump is self.up else self.up).ended:
            return  # nothing is left to be relayed, and both are closed at once
        if pump.sink.can_half_close:
            pump.sink.shutdown()
            self._watch(self)
        else:
            self.cut()

    def source_broke(self, pump: Pump) -> None:
        """End what can be ended: the pump's source is gone, with all that it had not sent yet.

        The other side is told by the end of our direction and gets a moment to react: closing it at once,
        with bytes of it unread, would reset the connection and destroy what was just written to it.
        """
        self._record(Cause.CLIENT_LOST if pump is self.up else Cause.BACKEND_LOST)
        if pump.sink.can_half_close:
            pump.sink.shutdown()
            self._limit(LINGER_TIMEOUT)
        else:
            self.cut()

    def sink_broke(self, pump: Pump) -> None:
        """Wait for the rest: the pump's sink reads no more, but may have sent something before, a Close frame even."""
        self._suspected = Cause.BACKEND_LOST if pump is self.up else Cause.CLIENT_LOST
        self._limit(LINGER_TIMEOUT)

    def _finishes(self) -> bool:
        """Whether both sides have said Close and one of them still takes what was sent before it.

        The time to end counts from when all of it is there; meanwhile a peer that takes nothing has its write timeout.
        """
        closed = self.up.scanner.closed and self.down.scanner.closed
        return closed and self.blocked and bool(self.write_timeout) and not self.ending

    def _close_backend(self) -> bool:
        """Send the backend the Close frame that the client has not answered; whether that was still to be done."""
        if self._close is None or self.up.ended or self.up.scanner.closed:
            return False
        (code, reason), self._close = self._close, None
        self.up.request_close(code, reason)
        return True

    def _record(self, cause: Cause | None) -> None:
        if self.cause is None:
            self.cause = cause

    def _limit(self, seconds: float) -> None:
        self._deadline = min(self._deadline, trio.current_time() + seconds)
        self._watch(self)
