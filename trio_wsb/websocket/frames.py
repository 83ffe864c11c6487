"""Following a WebSocket byte stream by its frame headers alone (RFC 6455 section 5), without I/O.

A relay moves bytes and never looks into payload, yet it has to know how many messages passed, which close
code was sent and, above all, where one frame ends and the next begins: only there may a frame of its own
go out. `FrameScanner` knows that for one direction, whatever the chunks are.

It runs for every chunk of every session, so it is written for few operations rather than for small
functions: the two common cases are decided in `FrameScanner.feed` itself.
"""

from __future__ import annotations

from typing import Final, Self

from attrs import frozen

from trio_wsb.websocket.closecodes import NO_STATUS_RECEIVED, is_valid_close_code

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_CONTROL_PAYLOAD: Final = 125
"""A control frame carries no more than this (RFC 6455 section 5.5)."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_MEDIUM: Final = 1
_MAX_KEPT: Final = 16
"""The longest header, 14 bytes (section 5.2), and the two bytes of a close code."""


def _whole_sizes(masked: bool) -> tuple[int, ...]:
    """By the second byte of a header: size on the wire of a short frame; `_MEDIUM` for a length in 16 bits; 0 for the rest.

    The rest are lengths in 64 bits and frames with the wrong mask bit.
    """
    mask_bit, overhead = (_MASKED, 6) if masked else (0, 2)
    sizes = [0] * 256
    for length in range(126):
        sizes[mask_bit | length] = overhead + length
    sizes[mask_bit | 126] = _MEDIUM
    return tuple(sizes)


_INCOMPLETE: Final = -1
_LOST: Final = -2

_MESSAGE: Final = 0x10
_TOGGLE: Final = 0x20


def _steps(fragmented: bool) -> tuple[int, ...]:
    """By the first byte of a header: its opcode and what it does; -1 for what is not legal here and control frames.

    `_MESSAGE` says that the frame ends a message, `_TOGGLE` that it begins or ends a fragmented one.
    """
    steps = []
    for first in range(256):
        opcode, final = first & 0xF, first & _FIN
        if opcode in ({CONTINUATION} if fragmented else {TEXT, BINARY}):
            # A data frame changes the state when it starts a fragmented message or ends one.
            step = opcode | (_MESSAGE if final else 0) | (_TOGGLE if bool(final) == fragmented else 0)
        else:
            step = -1
        steps.append(step)
    return tuple(steps)


_SIZES: Final = (_whole_sizes(masked=False), _whole_sizes(masked=True))
_STEPS: Final = (_steps(fragmented=False), _steps(fragmented=True))
_WHOLE_MESSAGE: Final = tuple(
    step & 0xF if step in {TEXT | _MESSAGE, BINARY | _MESSAGE} else 0 for step in _STEPS[0]
)
"""By the first byte of a header: the opcode of a message in one frame, whatever its RSV bits, else 0."""


@frozen
class ScannerState:
    """Everything a scanner knows, as plain values: where it stands in the stream, and its counters.

    `left` is how many payload bytes of the current frame are still to come and `first` that frame's first byte (FIN,
    RSV, opcode; 0 when none are left); `header` is what there is of a header that is not complete (the two bytes of
    a close code belong to the header of their frame). Equal states have seen equal streams, whatever the chunks.
    """

    masked: bool
    left: int
    header: bytes
    first: int
    fragmented: bool
    lost: bool
    closed: bool
    close_code: int | None
    violation: str | None
    wire_bytes: int
    payload_bytes: int
    messages: int
    opcodes: tuple[int, ...]
    control_payload: int = 0


class FrameScanner:
    """Follows the frames of one direction; `masked` is whether they must be masked (client to server).

    It judges but never stops: after a violation it scans on, for the relay is transparent and the endpoints
    decide. Only a length that cannot be (section 5.2: the most significant bit must be 0) loses the frame
    boundaries; from then on `lost` is true and only bytes are counted. RSV bits are no violation, they belong to
    the extensions that the endpoints have negotiated.
    """

    __slots__ = (
        "_first", "_fragmented", "_header", "_left", "_overhead", "_ready", "_sizes", "bytes",
        "close_code", "closed", "control_payload", "lost", "masked", "messages", "opcodes", "payload_bytes",
        "unanswered", "violation",
    )  # fmt: skip

    def __init__(self, masked: bool) -> None:
        self.masked: Final = masked
        self.bytes = 0
        """Bytes on the wire, headers included."""
        self.payload_bytes = 0
        self.control_payload = 0
        """What control frames have of it, counted when their headers are complete."""
        self.unanswered: bytearray | None = None
        """Shared by the scanners of a session, if anybody asks: whether an end-to-end Ping waits for its answer.
        The first is of the pings that went to the client, the second of those that went to the backend.
        """
        self.messages = 0
        """Data messages, counted when their last frame ends."""
        self.opcodes = [0] * 16
        """Frames by opcode, counted when the header is complete (that of a Close with its code)."""
        self.closed = False
        """Whether a Close frame has passed completely."""
        self.close_code: int | None = None
        """The code of the first Close frame; 1005 if it has none."""
        self.violation: str | None = None
        """The first thing that RFC 6455 forbids."""
        self.lost = False
        """Whether the frame boundaries are lost for good."""
        self._left = 0
        self._header = b""
        self._first = 0
        self._fragmented = False
        # At a boundary, outside a fragmented message, no Close before: the state in which a frame may be a message.
        self._ready = True
        self._sizes = _SIZES[masked]
        self._overhead = 6 if masked else 2

    @property
    def frames(self) -> int:
        """How many frames have begun, counted like `opcodes`."""
        return sum(self.opcodes)

    @property
    def data_progress(self) -> int:
        """A number that is higher than ever before whenever something of a data frame has passed, and only then.

        It may fall back for as long as a control frame is incomplete.
        """
        opcodes = self.opcodes
        data_payload = self.payload_bytes - self.control_payload
        return data_payload + opcodes[CONTINUATION] + opcodes[TEXT] + opcodes[BINARY]

    @property
    def at_boundary(self) -> bool:
        """Whether the stream stands between two frames."""
        return not (self._left or self._header or self.lost)

    @property
    def fragmented(self) -> bool:
        """Whether a message has begun that has more frames to come."""
        return self._fragmented

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Scan the next chunk, of any size; nothing of it is kept but an incomplete header."""
        size = len(data)
        self.bytes += size
        if self._ready:
            if size > 1 and self._sizes[data[1]] == size:
                opcode = _WHOLE_MESSAGE[data[0]]
                if opcode:
                    self.opcodes[opcode] += 1
                    self.messages += 1
                    self.payload_bytes += size - self._overhead
                    return
        elif size < self._left:
            self._left -= size
            self.payload_bytes += size
            return
        self._scan(data, size)

    def whole_message(self, data: bytes | bytearray | memoryview) -> int:
        """Return the payload's size if `data` is exactly one message in one frame, the next that is due; else -1."""
        size = len(data)
        if self._ready and size > 1 and self._sizes[data[1]] == size and _WHOLE_MESSAGE[data[0]]:
            return size - self._overhead
        return -1

    def feed_to_boundary(self, data: bytes | bytearray | memoryview) -> int:
        """Scan no further than the end of the current frame and return how many bytes that was.

        That is 0 at a boundary, and all of `data` if the frame goes on after it (or boundaries are lost).
        """
        size, done = len(data), 0
        while done < size and not self.at_boundary:
            # A header is completed byte by byte: what follows it may already belong to the next frame.
            step = size - done if self.lost else min(self._left or 1, size - done)
            self.feed(data[done : done + step])
            done += step
        return done

    def state(self) -> ScannerState:
        """Return what another scanner needs to go on from here."""
        return ScannerState(
            masked=self.masked,
            left=self._left,
            header=self._header,
            first=self._first if self._left else 0,
            fragmented=self._fragmented,
            lost=self.lost,
            closed=self.closed,
            close_code=self.close_code,
            violation=self.violation,
            wire_bytes=self.bytes,
            payload_bytes=self.payload_bytes,
            messages=self.messages,
            opcodes=tuple(self.opcodes),
            control_payload=self.control_payload,
        )

    @classmethod
    def from_state(cls, state: ScannerState) -> Self:
        """Return a scanner that goes on where the one that gave `state` was."""
        scanner = cls(state.masked)
        scanner._left = state.left
        scanner._header = state.header
        scanner._first = state.first
        scanner._fragmented = state.fragmented
        scanner.lost = state.lost
        scanner.closed = state.closed
        scanner.close_code = state.close_code
        scanner.violation = state.violation
        scanner.bytes = state.wire_bytes
        scanner.payload_bytes = state.payload_bytes
        scanner.messages = state.messages
        scanner.opcodes = list(state.opcodes)
        scanner.control_payload = state.control_payload
        scanner._ready = scanner.at_boundary and not (state.fragmented or state.closed)
        return scanner

    # Another scanner that takes over for a while, such as the one in the kernel.

    @property
    def plain(self) -> bool:
        """Whether another scanner can go on from here with `give` alone: no cut header, no Close, nothing illegal."""
        return not (self._header or self.closed or self.lost or self.violation)

    def give(self) -> tuple[int, int, bool]:
        """Return what it needs: payload bytes left of the current frame, that frame's first byte, inside a fragmented message."""
        return self._left, self._first, self._fragmented

    def take(self, left: int, first: int, fragmented: bool) -> None:
        """Go on where the other one, which met legal data, Ping and Pong frames alone, has stopped."""
        self._left, self._first, self._fragmented = left, first, fragmented
        self._ready = not (left or fragmented)

    def count(self, wire: int, payload: int, messages: int, control: int, *frames: int) -> None:
        """Add what the other one has counted; `frames` are those by opcode 0 to 2, Ping and Pong, `control` the payload of the last two."""
        self.bytes += wire
        self.payload_bytes += payload
        self.messages += messages
        self.control_payload += control
        for opcode, number in zip((CONTINUATION, TEXT, BINARY, PING, PONG), frames, strict=True):
            self.opcodes[opcode] += number

    def _scan(self, data: bytes | bytearray | memoryview, size: int) -> None:
        """Scan a chunk that `feed` could not decide; `self.bytes` has it already."""
        if self.lost:
            return
        pos = 0
        inside = self._left > 0
        if self._header:
            kept = len(self._header)
            head = self._header + bytes(data[: _MAX_KEPT - kept])
            end = self._begin(head, 0, len(head))
            if end == _INCOMPLETE:
                self._header = head
                return
            self._header = b""
            if end == _LOST:
                return
            pos = end - kept
            inside = True

        opcodes, sizes, overhead = self.opcodes, self._sizes, self._overhead
        messages = payload = 0
        while True:
            if inside:
                left, rest = self._left, size - pos
                if left > rest:
                    self._left = left - rest
                    payload += rest
                    break
                pos += left
                payload += left
                self._left = 0
                first = self._first
                if first & 0xF == CLOSE:
                    self.closed = True
                elif first >= _FIN and first & 0xF <= BINARY:
                    messages += 1

            # Legal frames under 64 KiB that are here in full, the many messages of a busy stream.
            if not self.closed:
                fragmented = self._fragmented
                steps = _STEPS[fragmented]
                while pos + 3 < size:
                    step = steps[data[pos]]
                    wire = sizes[data[pos + 1]]
                    length = wire - overhead
                    if wire == _MEDIUM:
                        length = data[pos + 2] << 8 | data[pos + 3]
                        wire = 2 + overhead + length
                        if length < 126:
                            break
                    if step < 0 or not wire or pos + wire > size:
                        break
                    pos += wire
                    payload += length
                    opcodes[step & 0xF] += 1
                    if step & _MESSAGE:
                        messages += 1
                    if step & _TOGGLE:
                        fragmented = not fragmented
                        steps = _STEPS[fragmented]
                self._fragmented = fragmented
            if pos == size:
                break

            end = self._begin(data, pos, size)
            if end == _INCOMPLETE:
                self._header = bytes(data[pos:])
                break
            if end == _LOST:
                break
            pos = end
            inside = True
        self.messages += messages
        self.payload_bytes += payload
        self._ready = not (self._left or self._header or self._fragmented or self.closed or self.lost)

    def _begin(self, data: bytes | bytearray | memoryview, pos: int, size: int) -> int:
        """Read the header at `pos` of `data[:size]`; return where it ends, `_INCOMPLETE` or `_LOST`.

        Counts and judges the frame and sets `_left`. The two bytes of a close code are taken as part of the header.
        """
        if size - pos < 2:
            return _INCOMPLETE
        first, second = data[pos], data[pos + 1]
        opcode, length = first & 0xF, second & 0x7F
        end = pos + 2
        least = 0
        if length > 125:
            least = 126 if length == 126 else 1 << 16
            end += 2 if length == 126 else 8
            if end > size:
                return _INCOMPLETE
            length = int.from_bytes(data[pos + 2 : end], "big")
            if length >> 63:
                self._violate("payload length over 2^63 - 1")
                self.lost = True
                return _LOST
        end += 4 if second & _MASKED else 0
        coded = min(length, 2) if opcode == CLOSE else 0
        if end + coded > size:
            return _INCOMPLETE

        if length < least:
            self._violate("payload length not in its shortest form")
        if bool(second & _MASKED) is not self.masked:
            self._violate("frame not masked" if self.masked else "frame masked")
        if opcode == CLOSE:
            code = bytes(data[end : end + coded])
            self._close(mask_payload(code, bytes(data[end - 4 : end])) if second & _MASKED else code, length)
        if opcode >= CLOSE:
            self._judge_control(first, length)
            self.control_payload += length
            if self.unanswered is not None and opcode in {PING, PONG}:
                # A Ping waits for its Pong, and a Pong answers the last Ping that went the other way.
                self.unanswered[self.masked is (opcode == PING)] = opcode == PING
        else:
            self._judge_data(first)
        self.opcodes[opcode] += 1
        self.payload_bytes += coded
        self._first = first
        self._left = length - coded
        return end + coded

    def _close(self, code: bytes, length: int) -> None:
        """Take note of a Close frame with `length` bytes of payload that begins with `code`, unmasked (section 5.5.1)."""
        if length == 1:
            self._violate("Close frame with half a code")
            return
        number = int.from_bytes(code, "big") if length else NO_STATUS_RECEIVED
        if length and not is_valid_close_code(number):
            self._violate("close code that may not be sent")
        if self.close_code is None and not self.closed:
            self.close_code = number

    def _judge_control(self, first: int, length: int) -> None:
        if first & 0xF > PONG:
            self._violate("reserved opcode")
        elif not first & _FIN:
            self._violate("fragmented control frame")
        elif length > MAX_CONTROL_PAYLOAD:
            self._violate("control frame over 125 bytes")

    def _judge_data(self, first: int) -> None:
        opcode = first & 0xF
        if opcode > BINARY:
            self._violate("reserved opcode")
            return
        if self.closed:
            self._violate("data frame after Close")
        elif opcode == CONTINUATION and not self._fragmented:
            self._violate("continuation without a message")
        elif opcode != CONTINUATION and self._fragmented:
            self._violate("new message inside a fragmented one")
        self._fragmented = not first & _FIN

    def _violate(self, what: str) -> None:
        if self.violation is None:
            self.violation = what


def mask_payload(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` masked, or unmasked, with the four bytes of `mask` (RFC 6455 section 5.3)."""
    size = len(payload)
    keys = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def encode_close(code: int, reason: str = "", mask: bytes | None = None) -> bytes:
    """Return a Close frame (RFC 6455 section 5.5.1), masked if `mask` has the four bytes to do it with.

    Raises:
      ValueError: `code` may not be sent, or `reason` has more than 123 bytes in UTF-8.

    """
    if not is_valid_close_code(code):
        raise ValueError(f"{code} is not a close code that may be sent")
    return _encode_control(CLOSE, code.to_bytes(2, "big") + reason.encode(), mask)


def encode_ping(payload: bytes = b"", mask: bytes | None = None) -> bytes:
    """Return a Ping frame (RFC 6455 section 5.5.2), masked if `mask` has the four bytes to do it with.

    Raises:
      ValueError: `payload` has more than 125 bytes.

    """
    return _encode_control(PING, payload, mask)


def encode_pong(payload: bytes = b"", mask: bytes | None = None) -> bytes:
    """Return a Pong frame (RFC 6455 section 5.5.3), masked if `mask` has the four bytes to do it with.

    Raises:
      ValueError: `payload` has more than 125 bytes.

    """
    return _encode_control(PONG, payload, mask)


def _encode_control(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"the payload of a control frame has at most {MAX_CONTROL_PAYLOAD} bytes")
    if mask is None:
        return bytes((_FIN | opcode, len(payload))) + payload
    if len(mask) != 4:
        raise ValueError("a mask has four bytes")
    return bytes((_FIN | opcode, _MASKED | len(payload))) + mask + mask_payload(payload, mask)
