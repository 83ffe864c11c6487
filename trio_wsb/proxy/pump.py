"""One direction of a relay: a pump, which moves the bytes of its source to its sink.

A pump reads what is there, lets the frame scanner look at the headers, and writes it on; only when a peer
does not take everything are the rest copied and the reading stopped, so that TCP pushes back on the sender.
Between a read and its write there is no checkpoint, hence one scratch buffer serves every session of the
process, and an idle session holds no buffer at all.

It has two ways to do that. `_forward` is the short one. `_forward_checked` looks at each frame before it passes and
may wait before it reads on; it is taken while something has to be kept back: a message over its limit, what comes
faster than the session may send, the answer to a ping of ours.

Frames of our own go out through the pump, the one writer of its direction, and only between two frames: at once when
the pump is at rest there, else when it gets there. So no pump ever has to be woken, and none needs a cancel
scope of its own, which would be a tenth of an idle session's memory.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import TYPE_CHECKING, Final

import trio

from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.checks import Checks
from trio_wsb.websocket.allowance import Allowance
from trio_wsb.websocket.frames import FrameScanner, encode_close, encode_ping
from trio_wsb.websocket.gate import UNLIMITED, FrameGate, OwnPings

if TYPE_CHECKING:
    from trio_wsb.proxy.relay import Relay

SCRATCH_SIZE: Final = 131072
"""Bytes read at once. A message of 64 KiB and its header fit: cut in two they took half as long again. More than
the caches of a core hold would be slower."""

FULL_READS: Final = 4
"""Full buffers moved before other tasks run: one bulk transfer must not delay everybody's small messages."""

MANY_FRAMES: Final = 4096
"""Frames after which they run in any case, since frames cost and not bytes: a flood of empty ones fills a buffer with twenty
thousand."""


class Pump:
    """One direction of a relay: everything that `source` sends goes to `sink`."""

    __slots__ = (
        "_checks",
        "_close_noted",
        "_closing",
        "_early",
        "_parked",
        "_relay",
        "_scratch",
        "_spilled",
        "_taken",
        "_turn",
        "blocked_since",
        "ended",
        "scanner",
        "sent_close",
        "sink",
        "source",
    )

    def __init__(
        self, relay: Relay, source: ByteChannel, sink: ByteChannel, scanner: FrameScanner, early: bytes
    ) -> None:
        self._relay = relay
        self._scratch = relay.scratch
        self._early = early
        self._checks: Checks | None = None
        self._closing: tuple[int, str] | None = None  # code and reason of the Close that we want to send
        self._close_noted = False
        self._parked = False  # waits for its source or its allowance, with nothing left to write
        self._spilled: trio.Event | None = None  # the rest of a frame of ours is still to be written
        self._taken = 0  # what the sink's peer had taken when that was looked at last
        self._turn = False  # how it goes on is to be decided again
        self.source = source
        self.sink = sink
        self.scanner = scanner
        self.sent_close: int | None = None
        """Code of the Close frame of ours that went out."""
        self.ended = False
        self.blocked_since: float | None = None
        """Trio time since when the sink takes nothing."""

    async def run(self) -> None:
        """Move bytes until this direction ends. Raises nothing but Cancelled."""
        try:
            if not await self._start():
                return
            while await (self._forward() if self._checks is None else self._forward_checked()):
                self._turn = False
                if self._spilled is not None:
                    await self._spilled.wait()
                # After the source's own Close ours would be one too many.
                if self._closing is not None and not self.scanner.closed:
                    await self._close()
                    return
        finally:
            self.ended = True

    def leave(self) -> None:
        """Know the relay no more: the session is over, and without a cycle its memory is free at once."""
        self._parked = False
        del self._relay

    # What others ask of it, from outside its task.

    @property
    def has_early(self) -> bool:
        """Whether there are bytes that were read before it runs."""
        return bool(self._early)

    @property
    def at_rest(self) -> bool:
        """Whether a frame of ours could go out now: nothing is being written, and the last frame is through."""
        return self._parked and self._spilled is None and self.scanner.at_boundary

    @property
    def spilling(self) -> bool:
        """Whether the rest of a frame of ours is still to be written."""
        return self._spilled is not None

    @property
    def close_code(self) -> int | None:
        """Code of the Close frame that went to the sink, ours or the source's; None if none did."""
        return self.scanner.close_code if self.sent_close is None else self.sent_close

    @property
    def held_up(self) -> bool:
        """Whether it is not reading, for its sink takes nothing or the allowance is used up."""
        return self.blocked_since is not None or self.paused

    @property
    def paused(self) -> bool:
        """Whether it is not reading because the allowance is used up."""
        return self._checks is not None and self._checks.pause is not None

    def look_at_sink(self, now: float) -> None:
        """Note whether the sink's peer takes something, though not from us: what the kernel has to write goes first."""
        if self.blocked_since is not None and (taken := self.sink.taken) > self._taken:
            self.blocked_since, self._taken = now, taken

    def check_frames(self, gate: FrameGate, allowance: Allowance | None) -> None:
        """Look at each frame from the beginning on. To be called before `run`."""
        self._checks = Checks(gate, allowance)

    def request_close(self, code: int, reason: str = "") -> None:
        """Send a Close frame to the sink at the next frame boundary, and no data after it.

        Only the first call counts, and none after the source's own Close.
        """
        if self._closing is not None or self.scanner.closed:
            return
        self._closing = (code, reason)
        self.source.reclaim()
        self._decide_again()
        if self.at_rest:
            self._send_close()

    def can_ping(self) -> bool:
        """Whether `ping` would do anything."""
        self.source.reclaim()
        return self.at_rest and self._closing is None and not self.scanner.closed and not self.ended

    def ping(self, payload: bytes) -> None:
        """Send a Ping to the sink if that is possible at once; `can_ping` says whether it is."""
        if self.can_ping():
            self._inject(encode_ping(payload, self._mask()))

    def withhold_answers(self, pings: OwnPings) -> None:
        """Keep the source's answers to `pings` from the sink, from the next read on until all have come."""
        self.source.reclaim()
        if self._checks is None:
            self._checks = Checks(FrameGate(self.scanner, pings=pings))
            self._decide_again()
        else:
            self._checks.gate.pings = pings

    # Moving bytes.

    async def _start(self) -> bool:
        early, self._early = self._early, b""
        if not early:
            return True
        if self._checks is not None:
            self._checks.pending, self._checks.ready = early, True
            return True
        self.scanner.feed(early)
        self._note_close()
        return await self._write(memoryview(early))

    async def _forward(self) -> bool:
        """Relay until the direction ends (False) or something else is to be done (True)."""
        scanner, scratch = self.scanner, self._scratch
        feed = scanner.feed
        recv_into, send = self.source.recv_into, self.sink.send
        carry = self.source.carry
        full_reads = 0
        frames = scanner.frames
        while not self._turn:
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
                    if full_reads % FULL_READS == 0 or scanner.frames - frames >= MANY_FRAMES:
                        await trio.lowlevel.checkpoint()
                        frames = scanner.frames
                    continue
            elif count == 0:
                self._relay.source_ended(self)
                return False
            # Fewer bytes than asked for: there are no more now, and epoll will say when there are. One
            # receive that only finds that out is saved for each message.
            if not self._turn:
                self._parked = True
                chunk = scratch  # an idle session keeps no view of its own
                await carry()
                self._parked = False
        return True

    async def _forward_checked(self) -> bool:
        """Relay as `_forward` does, but what `_checks` allows."""
        checks, scanner = self._checks, self.scanner
        assert checks is not None
        gate, allowance = checks.gate, checks.allowance
        rounds = 0
        more = False  # whether the last read was a full one, so that there may be more
        while not self._turn:
            data, now = memoryview(checks.pending), trio.current_time()
            frames = UNLIMITED if allowance is None else allowance.messages(now, UNLIMITED)
            if checks.ready:
                if not frames and allowance is not None:
                    await self._pause(allowance.wait_for_messages())
                    continue
            else:
                room = SCRATCH_SIZE if allowance is None else allowance.bytes(now, SCRATCH_SIZE)
                if not room and allowance is not None:
                    await self._pause(allowance.wait_for_bytes())
                    continue
                try:
                    count = self.source.recv_into(self._scratch[:room])
                except BlockingIOError:
                    more = False
                    await self._park()
                    continue
                except OSError:
                    self._relay.source_broke(self)
                    return False
                if not count:
                    return await self._end_checked(checks)
                if allowance is not None:
                    allowance.spend_bytes(count)
                more = count == room
                chunk = self._scratch[:count]
                data = memoryview(b"".join((data, chunk))) if data else chunk
            admission = gate.admit(data, frames)
            if allowance is not None:
                allowance.spend_messages(admission.frames)
            checks.pending, checks.ready = bytes(data[admission.used :]), admission.starved
            if scanner.closed and not self._close_noted:
                self._note_close()
            if admission.passing and not await self._write(admission.joined()):
                return False
            if gate.too_big:
                self._relay.message_too_big(self)
            elif not checks.needed:
                self._checks = None
                return True
            elif more or checks.ready:
                rounds += 1
                if rounds % FULL_READS == 0 or checks.ready:
                    await trio.lowlevel.checkpoint()
            elif not self._turn:
                await self._park()
        return True

    async def _end_checked(self, checks: Checks) -> bool:
        """Let the beginning of a frame go that was held back: there will be no more of it."""
        rest, checks.pending = checks.pending, b""
        self.scanner.feed(rest)
        if rest and not await self._write(memoryview(rest)):
            return False
        self._relay.source_ended(self)
        return False

    async def _park(self) -> None:
        checks = self._checks
        assert checks is not None
        self._parked = True
        if not checks.pending and checks.gate.bare:
            await self.source.carry(checks.terms(trio.current_time()))
            checks.note(self.source.carried)
        else:
            await self.source.wait_readable()
        self._parked = False

    async def _pause(self, seconds: float) -> None:
        """Read nothing for so long, or until something else is to be done."""
        assert self._checks is not None
        self._parked = True
        with trio.CancelScope(deadline=trio.current_time() + seconds) as self._checks.pause:
            await trio.sleep_forever()
        self._checks.pause = None
        self._parked = False

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
        try:
            await self._send_patiently(pending)
        except OSError:
            return await self._sink_broke()
        return True

    async def _send_patiently(self, pending: memoryview) -> None:
        sink = self.sink
        self.blocked_since, self._taken = trio.current_time(), sink.taken
        self._relay.watch()
        try:
            while pending:
                await sink.wait_writable()
                try:
                    pending = pending[sink.send(pending) :]
                except BlockingIOError:
                    continue
                self.blocked_since = trio.current_time()
        finally:
            self.blocked_since = None

    # Frames of our own.

    def _decide_again(self) -> None:
        self._turn = True
        if self._checks is not None and self._checks.pause is not None:
            self._checks.pause.cancel()

    def _mask(self) -> bytes | None:
        """Return what to mask a frame with that goes out here: a client's frames are masked (RFC 6455 section 5.3)."""
        return token_bytes(4) if self.scanner.masked else None

    def _send_close(self) -> None:
        """Write our Close frame; only at a boundary, and only when nothing else is being written."""
        assert self._closing is not None
        self.sent_close, reason = self._closing
        if self._inject(encode_close(self.sent_close, reason, self._mask())):
            self._relay.close_sent(self.sent_close)

    def _inject(self, frame: bytes) -> bool:
        """Write a frame of ours, the rest of it in a task of its own where the sink's buffer is full.

        Only while at rest, or from `run`. False when the sink broke, which is dealt with.
        """
        try:
            sent = self.sink.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.sink_broke(self)
            return False
        if sent < len(frame):
            # The pump may be parked, so somebody else must wait; it writes nothing itself until that is done.
            self._spilled = trio.Event()
            self._decide_again()
            self._relay.start_soon(self._spill, memoryview(frame)[sent:])
        return True

    async def _spill(self, rest: memoryview) -> None:
        spilled = self._spilled
        assert spilled is not None
        try:
            await self._send_patiently(rest)
        except OSError:
            self._relay.sink_broke(self)
        finally:
            self._spilled = None
            spilled.set()
        if self._closing is not None and self.sent_close is None and self.at_rest:
            self._send_close()

    async def _close(self) -> None:
        """Finish the frame under way, send our Close unless it is out already, and from then on only listen."""
        while self.sent_close is None:
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
        if self._spilled is not None:
            await self._spilled.wait()
        await self._discard()

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
