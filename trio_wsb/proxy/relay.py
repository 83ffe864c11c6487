"""The relay: two pumps in one cancel scope that move a session's bytes, and nothing but bytes.

A pump reads what is there, lets the frame scanner look at the headers, and writes it on; only when a peer
does not take everything are the rest copied and the reading stopped, so that TCP pushes back on the sender.
Between a read and its write there is no checkpoint, hence one scratch buffer serves every session of the
process, and an idle session holds no buffer at all.

Rules that everything here obeys:

- A send is never cancelled but to give the session up: a cancelled send has lost its position.
- Each direction has one writer, its pump. A frame of ours goes out through it, at a frame boundary: at once
  when the pump is parked at one, else when it gets there. So no pump ever has to be woken, and none needs
  a cancel scope of its own, which would be a tenth of an idle session's memory.
- The end of one direction is passed on as the end of that direction where the channel can do it; a channel
  that cannot (TLS) ends both. Errors and timeouts end both.
- The first thing that ends a session is its cause; what follows from it changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.causes import Cause
from trio_wsb.websocket.frames import FrameScanner, encode_close

SCRATCH_SIZE: Final = 65536
"""Bytes read at once."""

FULL_READS: Final = 8
"""Full buffers moved before other tasks run: one bulk transfer must not delay everybody's small messages."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds for the TCP connections to end after both Close frames went by (RFC 6455 section 7.1.1)."""

LINGER_TIMEOUT: Final = 5.0
"""Seconds for what is left of the other direction after a peer broke off."""

HALF_CLOSED_TIMEOUT: Final = 5.0
"""Seconds of silence in the remaining direction after the other one ended.

An end of stream without a Close frame is nearly always a peer that died, and its session must not seem to
live; but one that only stopped sending still gets all that is on its way.
"""


class Pump:
    """One direction of a relay: everything that `source` sends goes to `sink`."""

    __slots__ = (
        "_close_code",
        "_close_noted",
        "_close_sent",
        "_early",
        "_parked",
        "_relay",
        "_scratch",
        "blocked_since",
        "ended",
        "scanner",
        "sink",
        "source",
    )

    def __init__(
        self, relay: Relay, source: ByteChannel, sink: ByteChannel, scanner: FrameScanner, early: bytes
    ) -> None:
        self._relay = relay
        self._scratch = relay.scratch
        self._early = early
        self._parked = False  # in a receive, with nothing left to write
        self._close_code: int | None = None  # of the Close that we want to send
        self._close_sent = False
        self._close_noted = False
        self.source = source
        self.sink = sink
        self.scanner = scanner
        self.ended = False
        self.blocked_since: float | None = None  # trio time since when the sink takes nothing

    async def run(self) -> None:
        """Move bytes until this direction ends. Raises nothing but Cancelled."""
        try:
            if await self._start() and await self._forward():
                await self._close()
        finally:
            self.ended = True

    def request_close(self, code: int) -> None:
        """Send a Close frame to the sink at the next frame boundary, and no data after it."""
        self._close_code = code
        if self._parked and self.scanner.at_boundary:
            self._send_close()

    async def _start(self) -> bool:
        early, self._early = memoryview(self._early), b""
        if not early:
            return True
        self.scanner.feed(early)
        self._note_close()
        return await self._write(early)

    async def _forward(self) -> bool:
        """Relay until the direction ends (False) or is to be closed by us (True)."""
        scanner, scratch = self.scanner, self._scratch
        feed = scanner.feed
        recv_into, send = self.source.recv_into, self.sink.send
        wait_readable = self.source.wait_readable
        full_reads = 0
        # After the source's own Close ours would be one too many.
        while self._close_code is None or scanner.closed:
            try:
                count = recv_into(scratch)
            except BlockingIOError:
                count = -1
            except OSError:
                self._relay.source_broke(self)
                return False
            if count > 0:
                chunk = scratch[:count]
                feed(chunk)
                if scanner.closed and not self._close_noted:
                    self._note_close()
                try:
                    sent = send(chunk)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    return await self._sink_broke()
                if sent != count and not await self._flush(chunk[sent:]):
                    return False
                if count == SCRATCH_SIZE:
                    full_reads += 1
                    if full_reads % FULL_READS == 0:
                        await trio.lowlevel.checkpoint()
                    continue
            elif count == 0:
                self._relay.source_ended(self)
                return False
            # Fewer bytes than asked for: there are no more now, and epoll will say when there are. One
            # receive that only finds that out is saved for each message.
            if self._close_code is None or scanner.closed:
                self._parked = True
                await wait_readable()
                self._parked = False
        return True

    async def _write(self, data: memoryview) -> bool:
        """Write all of `data`; False when the sink broke, which is dealt with."""
        try:
            sent = self.sink.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return await self._sink_broke()
        return sent == len(data) or await self._flush(data[sent:])

    async def _flush(self, rest: memoryview) -> bool:
        """Write `rest`, which the sink did not take at once; False when the sink broke, which is dealt with."""
        pending = memoryview(bytes(rest))  # the scratch buffer belongs to others while this waits
        sink = self.sink
        self.blocked_since = trio.current_time()
        self._relay.watch()
        try:
            while pending:
                await sink.wait_writable()
                try:
                    pending = pending[sink.send(pending) :]
                except BlockingIOError:
                    continue
                self.blocked_since = trio.current_time()
        except OSError:
            self.blocked_since = None
            return await self._sink_broke()
        finally:
            self.blocked_since = None
        return True

    async def _close(self) -> None:
        """Finish the frame under way, send our Close unless it is out already, and from then on only listen."""
        while not self._close_sent:
            if self.scanner.at_boundary:
                self._send_close()
                break
            if self.scanner.lost:
                self._relay.cut()  # no boundary in what is no WebSocket traffic
                return
            try:
                count = await self._receive()
            except OSError:
                self._relay.source_broke(self)
                return
            if count == 0:
                self._relay.source_ended(self)
                return
            frame_end = self.scanner.feed_to_boundary(self._scratch[:count])
            if not await self._write(self._scratch[:frame_end]):
                return
            if self._note_close():
                break  # the frame under way was the source's own Close: ours would be one too many
        await self._discard()

    def _send_close(self) -> None:
        """Write our Close frame; only at a boundary, and only when nothing else is being written."""
        assert self._close_code is not None
        self._close_sent = True
        frame = memoryview(encode_close(self._close_code))
        try:
            sent = self.sink.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.sink_broke(self)
            return
        if sent < len(frame):
            # The sink's buffer was full to the last byte. The pump may be parked, so somebody else must wait.
            self._relay.start_soon(self._flush, frame[sent:])

    async def _receive(self) -> int:
        while True:
            try:
                return self.source.recv_into(self._scratch)
            except BlockingIOError:
                await self.source.wait_readable()

    async def _sink_broke(self) -> bool:
        self._relay.sink_broke(self)
        await self._discard()
        return False

    async def _discard(self) -> None:
        """Read on without passing anything on, so that what the source still says about its end is seen.

        Unread bytes would also make our close of the source a reset, which destroys what it has not read yet.
        """
        try:
            while await self._receive():
                pass
        except OSError:
            self._relay.source_broke(self)
        else:
            self._relay.source_ended(self)

    def _note_close(self) -> bool:
        """Report the source's Close frame if it has gone by; whether it has."""
        if not self.scanner.closed:
            return False
        self._close_noted = True
        self._relay.close_seen(self)
        return True


class Relay:
    """Both directions of one session.

    Resource handling: owns both channels; they are closed when `run` returns or is cancelled.
    """

    __slots__ = (
        "_deadline",
        "_nursery",
        "_progress",
        "_progress_at",
        "_suspected",
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
          client_early: what the client sent after its handshake before the backend had agreed.
          backend_early: what the backend sent right after its 101.

        """
        self.client = client
        self.backend = backend
        self.scratch = scratch
        self.write_timeout = write_timeout
        self.up = Pump(self, client, backend, FrameScanner(masked=True), client_early)
        self.down = Pump(self, backend, client, FrameScanner(masked=False), backend_early)
        self.cause: Cause | None = None
        self._suspected: Cause | None = None  # unless what is still to be read says otherwise
        self.close_code: int | None = None
        self.ending = False
        self._watch = watch
        self._nursery: trio.Nursery | None = None
        self._deadline = math.inf
        self._progress = -1
        self._progress_at = 0.0

    async def run(self) -> None:
        """Relay until the session ends. Raises nothing but Cancelled; `cause` says why it ended."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.down.run)
                await self.up.run()
        finally:
            self._nursery = None
            self._record(self._suspected)
            self.backend.close()
            self.client.close()

    def end(self, cause: Cause, code: int, timeout: float) -> None:
        """End the session politely: a Close frame to the client and no more data to it.

        What the client still sends, its Close echo included, reaches the backend, which then ends its side.
        What has not ended within `timeout` seconds is cut.
        """
        self._record(cause)
        self.ending = True
        if self.close_code is None:
            self.close_code = code
        self._limit(timeout)
        if not self.down.scanner.closed:
            self.down.request_close(code)

    def cut(self, cause: Cause | None = None) -> None:
        """End both directions at once."""
        if cause is not None:
            self._record(cause)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def check(self, now: float) -> bool:
        """Enforce the deadlines that are due at `now` (trio time); whether there are any left to watch."""
        if self._nursery is None:
            return False
        if now >= self._deadline:
            self.cut()
            return False
        if self.write_timeout:
            for pump, cause in (
                (self.down, Cause.CLIENT_WRITE_TIMEOUT),
                (self.up, Cause.BACKEND_WRITE_TIMEOUT),
            ):
                if pump.blocked_since is not None and now - pump.blocked_since >= self.write_timeout:
                    self.cut(cause)
                    return False
        if self.up.ended is not self.down.ended:
            progress = self.up.scanner.bytes + self.down.scanner.bytes
            if progress != self._progress:
                self._progress, self._progress_at = progress, now
            elif now - self._progress_at >= HALF_CLOSED_TIMEOUT:
                self.cut()
                return False
            return True
        return self._deadline < math.inf or self.blocked

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
        if self.cause is None:
            self._record(Cause.CLIENT_CLOSED if pump is self.up else Cause.BACKEND_CLOSED)
            self.close_code = pump.scanner.close_code
        if self.up.scanner.closed and self.down.scanner.closed:
            self._limit(CLOSE_TIMEOUT)

    def source_ended(self, pump: Pump) -> None:
        """End one direction: the pump's source sends no more."""
        self._record(Cause.CLIENT_LOST if pump is self.up else Cause.BACKEND_LOST)
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

    def _record(self, cause: Cause | None) -> None:
        if self.cause is None:
            self.cause = cause

    def _limit(self, seconds: float) -> None:
        self._deadline = min(self._deadline, trio.current_time() + seconds)
        self._watch(self)
