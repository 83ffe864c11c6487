"""What each side of a conversation has sent, and what of it has arrived: byte for byte, once, and in order.

The balancer may add frames of its own (Ping, Close) between two frames and may keep back the answers to its pings; every
other difference between what was sent here and what comes there is a fault.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field
from websockets.frames import Frame, Opcode

from trio_wsb.websocket.frames import mask_payload

OWN_PING_SIZE = 12
"""Payload bytes of a ping of the balancer's, which is longer than any of the peers' here."""


class Violation(AssertionError):
    """Something that must never happen has happened."""


def encode(payload: bytes, opcode: Opcode, *, mask: bool, fin: bool = True) -> bytes:
    """Return a frame made by somebody else's code."""
    return Frame(opcode, payload, fin).serialize(mask=mask)


@define
class Received:
    """A whole frame as it came."""

    opcode: int
    fin: bool
    payload: bytes
    raw: bytes
    ours: bool = False
    """Whether the balancer has made it."""

    @property
    def code(self) -> int:
        """Of a Close frame; 1005 for one without."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005


@define(eq=False)
class Lane:
    """One direction of a conversation."""

    name: str
    masked: bool
    """Whether it leads from the client to the backend."""
    sent: deque[bytes] = field(factory=deque)
    """Frames that were sent and have not arrived."""
    frames_sent: int = 0
    frames_received: int = 0
    own_frames: int = 0
    close: Received | None = None
    """The Close frame that arrived."""
    written: bytearray = field(factory=bytearray)
    """All that its sender has begun to write, where anybody asks."""
    _rest: bytearray = field(factory=bytearray)

    def send(self, frame: bytes) -> None:
        """Note that the sender begins to write `frame`."""
        self.sent.append(frame)
        self.frames_sent += 1

    def receive(self, data: bytes | bytearray) -> list[Received]:
        """Return the frames that are complete with `data`. Raises Violation."""
        self._rest += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def finish(self, *, whole: bool) -> None:
        """Check what is there when nothing more will come; `whole` says that nothing may be missing. Raises Violation."""
        rest = bytes(self._rest)
        if rest and not (self.sent and self.sent[0].startswith(rest)) and not _begins_own(rest):
            raise Violation(f"{self.name}: the stream ends within {rest[:20].hex()}, which nobody sent")
        if whole and (self.sent or rest):
            raise Violation(
                f"{self.name}: {len(self.sent)} frames never arrived (of {self.frames_sent}), "
                f"{len(rest)} bytes of the next one did"
            )

    def _next(self) -> Received | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        length, head = rest[1] & 0x7F, 2
        if length > 125:
            head += 2 if length == 126 else 8
            if len(rest) < head:
                return None
            length = int.from_bytes(rest[2:head], "big")
        masked = bool(rest[1] & 0x80)
        if masked is not self.masked:
            raise Violation(f"{self.name}: a frame with the wrong mask bit: {bytes(rest[:20]).hex()}")
        key_at, head = head, head + 4 * masked
        if length > 1 << 24:
            raise Violation(f"{self.name}: no frame was that long: {bytes(rest[:20]).hex()}")
        if len(rest) < head + length:
            return None
        raw = bytes(rest[: head + length])
        del rest[: head + length]
        payload = mask_payload(raw[head:], raw[key_at:head]) if masked else raw[head:]
        frame = Received(raw[0] & 0xF, bool(raw[0] & 0x80), payload, raw)
        self._account(frame)
        return frame

    def _account(self, frame: Received) -> None:
        if self.close is not None:
            raise Violation(f"{self.name}: frame {frame.opcode} after the Close frame")
        self.frames_received += 1
        if frame.opcode == Opcode.CLOSE:
            self.close = frame
        if self.sent and self.sent[0] == frame.raw:
            self.sent.popleft()
        elif frame.fin and (
            frame.opcode == Opcode.CLOSE
            or (frame.opcode == Opcode.PING and len(frame.payload) == OWN_PING_SIZE)
        ):
            frame.ours = True
            self.own_frames += 1
        else:
            due = self.sent[0][:20].hex() if self.sent else "nothing"
            raise Violation(f"{self.name}: {frame.raw[:20].hex()} came where {due} was due")


def _begins_own(rest: bytes) -> bool:
    """Whether the bytes may begin a frame of the balancer's that was cut off."""
    return rest[0] in {0x88, 0x89}
