"""What may pass of one direction's frames: a limit for messages, and the answers to our own pings, which may not.

A `FrameGate` stands before the `FrameScanner` of its direction: it looks at whole headers, says which bytes may go on,
and lets the scanner see those alone, so that the scanner counts what the other side gets. It keeps no bytes: what
cannot be judged yet (a header that is not complete, a Pong that may be an answer to us) stays with the caller, who
brings it again with what came after it. That is also what makes every place between two of its frames a place where
a frame of ours may go out.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from trio_wsb.websocket.frames import (
    CLOSE,
    CONTINUATION,
    MAX_CONTROL_PAYLOAD,
    PONG,
    FrameScanner,
    mask_payload,
)

PING_TOKEN_SIZE: Final = 8
"""Random bytes at the beginning of our pings, by which their answers are known."""

_PING_SIZE: Final = PING_TOKEN_SIZE + 4
_FIN: Final = 0x80
_MASKED: Final = 0x80
UNLIMITED: Final = 1 << 62

FRAMES_AT_ONCE: Final = 1024
"""Frames judged by one call, a millisecond: a buffer full of empty ones would keep everybody else waiting for twenty."""


@frozen
class Admission:
    """What became of a piece of the stream.

    `passing` may go on, in this order, and the scanner has seen it; what is in `used` and not in `passing` ends here.
    The bytes after `used` are to be brought again, together with what follows them.
    """

    used: int
    passing: tuple[memoryview, ...]
    frames: int
    """How many messages and control frames began in `passing`."""
    starved: bool = False
    """Whether more could be judged at once: more frames would have to be allowed, or these were `FRAMES_AT_ONCE`."""

    def joined(self) -> memoryview:
        """Return the bytes of `passing` in one piece."""
        return self.passing[0] if len(self.passing) == 1 else memoryview(b"".join(self.passing))


class OwnPings:
    """The pings that we have sent to one peer, and which of them it has answered.

    A peer may answer just the latest of several (RFC 6455 section 5.5.3), so each has a number, and an answer to one
    is an answer to those before it. Nobody but the peer can know the token.
    """

    __slots__ = ("_token", "answered", "sent")

    def __init__(self, token: bytes) -> None:
        """Send and expect nothing yet. `token` are `PING_TOKEN_SIZE` random bytes."""
        assert len(token) == PING_TOKEN_SIZE
        self._token = token
        self.sent = 0
        self.answered = 0

    def next(self) -> bytes:
        """Return the payload of the next ping, which counts as sent."""
        self.sent += 1
        return self._token + (self.sent & 0xFFFFFFFF).to_bytes(4, "big")

    @property
    def waiting(self) -> bool:
        """Whether the latest ping has no answer yet."""
        return self.answered < self.sent

    def take(self, payload: bytes) -> bool:
        """Whether `payload` is that of an answer which is still due; it is due no more then."""
        if payload[:PING_TOKEN_SIZE] != self._token:
            return False
        number = int.from_bytes(payload[PING_TOKEN_SIZE:], "big")
        if not self.answered < number <= self.sent:
            return False
        self.answered = number
        return True


class FrameGate:
    """Decides frame by frame what passes in one direction.

    Args:
      scanner: of the same direction; nobody else feeds it meanwhile.
      max_message: bytes of payload, as they are on the wire, that a message may have; 0 is no limit.
      pings: our pings to the peer that sends here; their answers do not pass.

    """

    __slots__ = ("_message", "max_message", "pings", "scanner", "too_big")

    def __init__(self, scanner: FrameScanner, *, max_message: int = 0, pings: OwnPings | None = None) -> None:
        self.scanner = scanner
        self.max_message = max_message
        self.pings = pings
        self.too_big = False
        """Whether a frame was refused that would make its message too big; nothing passes from then on."""
        self._message = 0  # bytes of the message under way, of its frames that have begun

    @property
    def needed(self) -> bool:
        """Whether anything can still be refused."""
        return bool(self.max_message) or (self.pings is not None and self.pings.waiting)

    @property
    def bare(self) -> bool:
        """Whether the limit alone is to be kept, and no message has begun that has more frames to come."""
        waiting = self.pings is not None and self.pings.waiting
        return not (waiting or self.too_big or self.scanner.fragmented)

    def resume(self, message: int) -> None:
        """Go on after somebody else has kept the limit, with so many bytes of a message under way."""
        self._message = message

    def admit(self, data: memoryview, frames: int = UNLIMITED) -> Admission:
        """Judge `data`, in which at most so many messages and control frames may begin."""
        scanner = self.scanner
        whole = scanner.whole_message(data)
        if whole >= 0 and frames and (whole <= self.max_message or not self.max_message):
            self._message = whole
            scanner.feed(data)
            return Admission(len(data), (data,), 1)
        if self.too_big:
            return Admission(0, (), 0)
        return self._walk(data, frames)

    def _walk(self, data: memoryview, frames: int) -> Admission:
        scanner, size, allowed = self.scanner, len(data), frames
        # Inside a frame, or inside a header of which the first part had passed before this gate was put up.
        pos = fed = 0 if scanner.at_boundary else scanner.feed_to_boundary(data)
        start = 0
        passing: list[memoryview] = []
        starved = False
        judged = 0
        while pos < size and not scanner.lost:
            if judged == FRAMES_AT_ONCE:
                starved = True
                break
            judged += 1
            header = _read_header(data, pos, size)
            if header is None:
                break
            end, first, length = header
            opcode = first & 0xF
            if opcode == PONG and self.pings is not None and length == _PING_SIZE and first & _FIN:
                if end + length > size:
                    break
                if self._is_ours(data[pos : end + length]):
                    passing.append(data[start:pos])
                    pos = start = end + length
                    continue
            if opcode not in {CONTINUATION, CLOSE}:
                if not frames:
                    starved = True
                    break
                frames -= 1
            if self.max_message and self._over(opcode, length):
                self.too_big = True
                break
            pos = min(end + length, size)
        passing.append(data[start : size if scanner.lost else pos])
        for piece in passing:
            scanner.feed(piece[fed:] if fed else piece)
            fed = 0  # only the first piece can have been fed by part
        shown = tuple(piece for piece in passing if piece)
        return Admission(size if scanner.lost else pos, shown, allowed - frames, starved)

    def _over(self, opcode: int, length: int) -> bool:
        """Whether a frame makes its message too big; the message is that long otherwise."""
        if opcode >= CLOSE:
            # Control frames stand between those of a message. One that is longer than they may be is no way round.
            return length > max(self.max_message, MAX_CONTROL_PAYLOAD)
        self._message = length + (self._message if opcode == CONTINUATION else 0)
        return self._message > self.max_message

    def _is_ours(self, frame: memoryview) -> bool:
        assert self.pings is not None
        payload = bytes(frame[-_PING_SIZE:])
        if frame[1] & _MASKED:
            payload = mask_payload(payload, bytes(frame[2:6]))
        return self.pings.take(payload)


def _read_header(data: memoryview, pos: int, size: int) -> tuple[int, int, int] | None:
    """Return where the header at `pos` ends, its first byte and the payload's length; None if it is not all there.

    The two bytes of a close code are not waited for: a Close always passes.
    """
    if size - pos < 2:
        return None
    first, second = data[pos], data[pos + 1]
    length, end = second & 0x7F, pos + 2
    if length > 125:
        end += 2 if length == 126 else 8
        if end > size:
            return None
        length = int.from_bytes(data[pos + 2 : end], "big")
    end += 4 if second & _MASKED else 0
    return None if end > size else (end, first, length)
