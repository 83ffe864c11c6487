"""One direction of a session whose bytes the kernel moves, and the hand-over between it and user space.

The invariants, each of which was seen to break something when it did not hold:

- The way is opened only when nothing is in flight to us: `passed` is read first, and then all that TCP has
  received must have been scanned. What comes in between moves `passed` on, and the way stays shut.
- User space writes to a socket only after everything that the kernel has sent on to it is in its send queue:
  what is acknowledged is read first, so that a racing acknowledgement makes the sum too small, never too large.
- The same holds before a shutdown, and before the sockets leave the map.
- The end of a stream is believed only when all that TCP has received was read or sent on.
- TCP may bring bytes twice: what it retransmits may have old bytes and new ones, and a segment of which a part was
  read before the socket entered the map comes whole. The program cuts off what is old, but where the first segment
  should have begun it cannot know; so that one always comes to us, and we compare what came with what TCP counted.
- After the way is shut by us a run of the program may still see it open; it holds the socket's lock, and so
  does whoever asks for TCP_INFO, who therefore sees all that it did.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import trio

from trio_wsb.net.channel import FREELY, Carried, Terms

if TYPE_CHECKING:
    from trio_wsb.websocket.frames import FrameScanner

NEVER: Final = (1 << 64) - 1
"""A gate that no count of bytes reaches, and a limit that no message does."""

OVER: Final = NEVER - 1
"""The gate of a session that is over: the program drops what comes."""

_REST: Final = bytearray(1 << 16)
"""Where bytes go that nobody wants."""

_INFO_SIZE: Final = 136
_ACKED_RECEIVED: Final = struct.Struct("=120xQQ")
"""`tcpi_bytes_acked` and `tcpi_bytes_received` of struct tcp_info, whose first byte is the state."""

_TCP_CLOSE: Final = 7
"""The state of a connection that is over, of include/net/tcp_states.h."""

_FIN_RECEIVED: Final = frozenset({6, 8, 9, 11})
"""The states after the peer's end of sending, which counts as a byte: TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING; a reset
leads to CLOSE without it."""

_MOST_LOOKS: Final = 10_000
"""Looks at what was received until it stands still: a peer whom nobody reads from fills its window in milliseconds."""

FLUSH_PAUSES: Final = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Seconds between looks at what the kernel has still to write; the last one repeats."""

END_PATIENCE: Final = 10.0
"""Seconds that an end waits for what came before it, while the peer takes nothing of what stands before that."""

FRUITLESS: Final = 4
"""Openings in a row through which nothing went before the way stays shut for a while."""

_MOST_SKIPPED: Final = 256
"""Waits for which it may stay shut."""

# Words of struct direction in relay.bpf.c.
_PASSED, _REDIRECTED, _SEGMENTS, _NOTED, _GATE, _CREDIT, _THRESHOLD, _LIMIT = range(8)
_LEFT, _MESSAGE, _PAYLOAD, _MESSAGES, _CONTROL, _TEXTS, _FLAGS, _ALLOWED = 8, 9, 10, 11, 12, 14, 18, 30
_REPEATED, _NEXT = 31, 32
WORDS: Final = 34
"""Words of 8 bytes in one direction."""

_NOTHING_YET: Final = memoryview(bytes(8 * WORDS)).cast("Q")


def tcp_counts(sock: socket.socket) -> tuple[int, int]:
    """Return the bytes that the peer has acknowledged and those that were received. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    acked, received = _ACKED_RECEIVED.unpack(info)
    return acked, received


def is_closed(sock: socket.socket) -> bool:
    """Whether the connection is over, and nobody will send or take anything any more. Raises OSError."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def _queued(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), request, b"\0\0\0\0"))[0])


class Direction:
    """One direction of a session in the kernel: everything that `source` receives goes to `sink`."""

    __slots__ = (
        "_before", "_ceiling", "_credit", "_fruitless", "_held_at", "_looked", "_offset", "_read_before", "_seen", "_sink_base", "_skip", "_task", "at", "ended",
        "flushed", "forwarded", "held_since", "is_open", "read", "scanner", "sink", "slot", "source", "words",
    )  # fmt: skip

    def __init__(
        self, slot: int, words: memoryview, source: socket.socket, sink: socket.socket, credit: int
    ) -> None:
        self.slot = slot
        self.words = words
        self.at = slot * WORDS
        self.source = source
        self.sink = sink
        self._credit = credit  # bytes that may be under way in the kernel
        self.scanner: FrameScanner | None = None
        self.is_open = False
        self.flushed = True  # known to be: everything that the kernel sent on is in the sink's queue
        self.ended = False  # the source has sent its last byte, or broke
        self.forwarded = 0  # bytes that user space wrote to the sink
        self.read = 0  # bytes that user space read from the source
        self.held_since: float | None = (
            None  # since when the end waits for bytes that came before it, and nothing moves
        )
        self._held_at = 0  # what the source's peer had taken then
        self._offset = 0
        self._seen: tuple[int, ...] = (0,) * 9
        self._task: trio.lowlevel.Task | None = None
        self._before = (0, 0)  # bytes and frames sent on when the way was opened last
        self._ceiling = 0  # what `redirected` may become on the terms that it was opened on
        self._fruitless = 0
        self._looked = (0, 0)  # what had moved when somebody looked last whether anything is stuck
        self._skip = 0
        words[self.at : self.at + WORDS] = _NOTHING_YET
        words[self.at + _GATE] = NEVER
        # Before the sockets enter the map: how much of the source was read, and how much was written to the sink.
        while True:
            received = tcp_counts(source)[1]
            waiting = self._queued(source, termios.FIONREAD)
            # Where nothing waits, nothing has come between the two.
            if not waiting or tcp_counts(source)[1] == received:
                break
        self._read_before = received - waiting
        acked = tcp_counts(sink)[0]
        self._sink_base = acked + self._queued(sink, termios.TIOCOUTQ)

    _queued = staticmethod(_queued)

    def follow(self, scanner: FrameScanner, early: int) -> None:
        """Hand `scanner` over with the way from now on; it is fed with `early` bytes that were read before."""
        self.scanner = scanner
        self._offset = self._read_before - early

    # The gate.

    def open(self, terms: Terms = FREELY) -> bool:
        """Let the kernel send on what keeps the terms, if nothing is under way to us; whether it does."""
        scanner = self.scanner
        if scanner is None or self.ended or not scanner.plain:
            return False
        if self._skip:
            self._skip -= 1
            return False
        words, at = self.words, self.at
        passed = words[at + _PASSED]
        try:
            received = tcp_counts(self.source)[1]
            if received != self._offset + scanner.bytes:
                return False
            room = self._credit - self.outstanding()
        except OSError:
            return False  # reset; the next receive says so
        if room < self._credit // 4:
            return False
        left, first, fragmented = scanner.give()
        words[at + _LEFT] = left
        words[at + _MESSAGE] = 0
        words[at + _LIMIT] = terms.message
        self._before = self._totals()
        words[at + _ALLOWED] = min(NEVER, self._before[1] + terms.frames)
        self._ceiling = self._before[0] + terms.bytes
        mask_bit, watched = 0x80 if scanner.masked else 0, scanner.unanswered is not None
        words[at + _FLAGS] = first | fragmented << 8 | mask_bit << 16 | watched << 24
        self._grant(room)
        self.flushed = False
        self.is_open = True
        words[at + _GATE] = passed
        # A run that saw the gate shut moves `passed` on without a note, and may have begun before. It is over when
        # this has had the lock.
        try:
            tcp_counts(self.source)
        except OSError:
            pass
        if words[at + _PASSED] != passed:
            self.shut()
            return False
        return True

    def top_up(self) -> None:
        """Give the open way more credit, as far as the sink's peer keeps up."""
        if self.is_open:
            try:
                self._grant(self._credit - self.outstanding())
            except OSError:
                pass  # reset: the descriptor tells

    def _grant(self, room: int) -> None:
        words, at = self.words, self.at
        credit = words[at + _REDIRECTED] + room
        if credit > self._ceiling:
            # What the terms allow is used up before the credit, and nobody is to be asked for more.
            words[at + _CREDIT], words[at + _THRESHOLD] = self._ceiling, NEVER
        elif credit > words[at + _CREDIT] or words[at + _THRESHOLD] == NEVER:
            words[at + _CREDIT] = credit
            words[at + _THRESHOLD] = credit - room // 2

    def _totals(self) -> tuple[int, int]:
        """Return the bytes and the messages and control frames that the kernel has sent on."""
        words, at = self.words, self.at
        return int(words[at + _REDIRECTED]), int(sum(words[at + _TEXTS : at + _FLAGS]))

    @property
    def carried(self) -> Carried:
        """What went on since the way was opened last."""
        sent, frames = self._totals()
        return Carried(int(self.words[self.at + _MESSAGE]), sent - self._before[0], frames - self._before[1])

    @property
    def redirected(self) -> int:
        """How many bytes the kernel has sent on."""
        return int(self.words[self.at + _REDIRECTED])

    @property
    def moved(self) -> tuple[int, int]:
        """How many bytes the kernel has sent on, and how many it has given to user space."""
        words, at = self.words, self.at
        return int(words[at + _REDIRECTED]), int(words[at + _PASSED])

    @property
    def repeated(self) -> int:
        """How many bytes TCP brought a second time, that went nowhere."""
        return int(self.words[self.at + _REPEATED])

    @property
    def next_sequence(self) -> int:
        """TCP's sequence number of the first byte that has not come yet, if any has."""
        return int(self.words[self.at + _NEXT] & 0xFFFFFFFF)

    def has_old_bytes(self) -> bool:
        """Whether bytes that were read before the source entered the map have come again, with the first that can be read now.

        The way must not have been open for anything yet. Raises OSError.
        """
        for _ in range(_MOST_LOOKS):
            info = self.source.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
            passed = self.words[self.at + _PASSED]
            received = _ACKED_RECEIVED.unpack(info)[1]
            if tcp_counts(self.source)[1] == received:
                return bool(passed > received - (info[0] in _FIN_RECEIVED) - self._read_before)
        raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))

    def outstanding(self) -> int:
        """Return how many bytes are in the kernel for the sink, not yet acknowledged by its peer. Raises OSError."""
        sent = self.words[self.at + _REDIRECTED] + self.forwarded
        if not sent:
            return 0  # which needs no call of the system: so it is whenever a session begins
        return max(0, sent - self._written(tcp_counts(self.sink)[0]))

    @property
    def taken(self) -> int:
        """How many bytes the sink's peer has acknowledged; 0 for one that broke."""
        try:
            return tcp_counts(self.sink)[0]
        except OSError:
            return 0

    def _written(self, count: int) -> int:
        return count - self._sink_base

    def shut(self) -> None:
        """Take the way back: from now on what comes waits for user space, and the scanner knows where it stands."""
        if not self.is_open:
            return
        self.is_open = False
        self.words[self.at + _GATE] = NEVER
        try:
            tcp_counts(self.source)  # a run of the program that saw it open is over now
        except OSError:
            pass
        before = self._seen[0]
        self.merge()
        assert self.scanner is not None
        words, at = self.words, self.at
        flags = words[at + _FLAGS]
        self.scanner.take(words[at + _LEFT], flags & 0xFF, bool(flags >> 8 & 0xFF))
        if self._seen[0] != before:
            self._fruitless = 0
        else:
            self._fruitless += 1
            if self._fruitless >= FRUITLESS:
                self._skip = min(1 << self._fruitless, _MOST_SKIPPED)

    def lags(self) -> bool:
        """Whether bytes have come that went nowhere: that lasts for microseconds, unless the kernel lost sight of them."""
        if not self.is_open or self.ended or self.scanner is None:
            return False
        if (moved := self.moved) != self._looked:
            # What moved since the last look is not stuck, and to ask TCP is a call of the system.
            self._looked = moved
            return False
        self.merge()
        try:
            return tcp_counts(self.source)[1] > self._offset + self.scanner.bytes
        except OSError:
            return False

    def drop_rest(self) -> None:
        """Take out of the source what nobody will read any more, just before it leaves the map.

        What is left there Linux gives back later and without the socket's lock; in thousands of endings it was seen to lose count
        of the memory once, when acknowledgements came at the same time.
        """
        self.words[self.at + _GATE] = OVER
        try:
            tcp_counts(self.source)  # a run of the program that saw it otherwise is over now
            while self.source.recv_into(_REST):
                pass
        except OSError:
            pass

    def give_up(self) -> None:
        """Never open the way again: user space does it from now on."""
        self.ended = True
        self.wake()

    def merge(self) -> None:
        """Bring the scanner's counters up to date."""
        scanner = self.scanner
        if scanner is None:
            return
        words, at = self.words, self.at
        seen = (words[at + _REDIRECTED], *words[at + _PAYLOAD : at + _FLAGS])
        if seen != self._seen:
            scanner.count(*(new - old for new, old in zip(seen, self._seen, strict=True)))
            self._seen = seen

    def is_flushed(self) -> bool:
        """Whether everything that the kernel sent on is in the sink's queue. True for a sink that broke."""
        if not self.flushed:
            if not self.is_open and not self.words[self.at + _REDIRECTED]:
                # It has sent on nothing: so it is of a short session.
                self.flushed = True
                return True
            try:
                if is_closed(self.sink):
                    self.flushed = not self.is_open
                    return self.flushed
                acked = tcp_counts(self.sink)[0]
                written = self._written(acked + self._queued(self.sink, termios.TIOCOUTQ))
            except OSError:
                written = 1 << 62
            self.flushed = not self.is_open and written >= self.words[self.at + _REDIRECTED] + self.forwarded
        return self.flushed

    def is_behind(self) -> bool:
        """Whether the end of the source is seen already, and bytes that came before it are not.

        What the program gives to user space stands in one queue with what the kernel has still to write to the same
        socket, behind that, and the end does not wait for it. The end counts as a byte received.
        """
        try:
            if is_closed(self.source):
                return False  # nothing comes any more, whatever is missing
            acked, received = tcp_counts(self.source)
        except OSError:
            return False
        now = trio.current_time()
        if self.held_since is None or acked != self._held_at:
            self.held_since, self._held_at = now, acked
        missing = received - 1 > self._read_before + self.read + self.words[self.at + _REDIRECTED]
        return missing and now - self.held_since < END_PATIENCE

    # Waiting.

    def wait(self) -> Awaitable[None]:
        """Wait until user space is wanted; to be awaited at once."""
        # No coroutine and no closure of its own: each session has two of them for as long as it lives.
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """End the wait, if there is one."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def noted(self) -> None:
        """Do what a note from the program asks for."""
        if self.is_open and self.words[self.at + _PASSED] == self.words[self.at + _GATE]:
            self.top_up()
        else:
            self.wake()
