"""An obvious, slow reading of a frame stream, to compare the scanner with."""

from __future__ import annotations

import struct

from attrs import field, frozen, mutable

from trio_wsb.websocket.frames import FrameScanner


@frozen
class Expected:
    """What a scanner has to know after a stream."""

    wire_bytes: int
    payload_bytes: int
    frames: int
    messages: int
    opcodes: list[int]
    closed: bool
    close_code: int | None
    violation: str | None
    lost: bool
    at_boundary: bool


def observed(scanner: FrameScanner) -> Expected:
    return Expected(
        wire_bytes=scanner.bytes,
        payload_bytes=scanner.payload_bytes,
        frames=scanner.frames,
        messages=scanner.messages,
        opcodes=list(scanner.opcodes),
        closed=scanner.closed,
        close_code=scanner.close_code,
        violation=scanner.violation,
        lost=scanner.lost,
        at_boundary=scanner.at_boundary,
    )


@mutable
class _Model:
    masked: bool
    payload: int = 0
    messages: int = 0
    opcodes: list[int] = field(factory=lambda: [0] * 16)
    closed: bool = False
    close_code: int | None = None
    violations: list[str] = field(factory=list)
    lost: bool = False
    open_message: bool = False

    def read(self, data: bytes) -> bytes:
        """Read one frame as far as it goes and return what is after it, b"" if it is not all there."""
        if len(data) < 2:
            return b""
        final, opcode = bool(data[0] & 0x80), data[0] & 0x0F
        has_mask, length = bool(data[1] & 0x80), data[1] & 0x7F
        rest, minimal = data[2:], True
        if length == 126:
            if len(rest) < 2:
                return b""
            (length,) = struct.unpack(">H", rest[:2])
            rest, minimal = rest[2:], length >= 126
        elif length == 127:
            if len(rest) < 8:
                return b""
            (length,) = struct.unpack(">Q", rest[:8])
            rest, minimal = rest[8:], length >= 65536
        if length >= 2**63:
            self.violations.append("payload length over 2^63 - 1")
            self.lost = True
            return b""
        mask = b"\0\0\0\0"
        if has_mask:
            if len(rest) < 4:
                return b""
            mask, rest = rest[:4], rest[4:]
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(rest[: min(length, 2)]))
        if opcode == 8 and len(payload) < min(length, 2):
            return b""
        complete = len(rest) >= length
        self.judge(final, opcode, has_mask, length, minimal, payload, complete=complete)
        self.payload += min(length, len(rest))
        return rest[length:]

    def judge(
        self,
        final: bool,
        opcode: int,
        has_mask: bool,
        length: int,
        minimal: bool,
        payload: bytes,
        *,
        complete: bool,
    ) -> None:
        wrong = self.violations.append
        self.opcodes[opcode] += 1
        if not minimal:
            wrong("payload length not in its shortest form")
        if has_mask != self.masked:
            wrong("frame not masked" if self.masked else "frame masked")
        if opcode == 8:
            code = int.from_bytes(payload, "big") if len(payload) == 2 else 1005 if length == 0 else None
            if code is None:
                wrong("Close frame with half a code")
            elif length and code not in {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}:
                wrong("close code that may not be sent")
            if self.opcodes[8] == 1:
                self.close_code = code
        if opcode in {3, 4, 5, 6, 7, 11, 12, 13, 14, 15}:
            wrong("reserved opcode")
        elif opcode >= 8:
            if not final:
                wrong("fragmented control frame")
            elif length > 125:
                wrong("control frame over 125 bytes")
        else:
            if self.closed:
                wrong("data frame after Close")
            if opcode == 0 and not self.open_message:
                wrong("continuation without a message")
            if opcode != 0 and self.open_message:
                wrong("new message inside a fragmented one")
            self.open_message = not final
            self.messages += final and complete
        self.closed = self.closed or (opcode == 8 and complete)


def expected(data: bytes, masked: bool) -> Expected:
    """Return what a scanner has to know after `data`."""
    model = _Model(masked)
    left, boundary = data, True
    while left and not model.lost:
        before = left
        left = model.read(before)
        if not left:
            boundary = ends_a_frame(before, model)
    return Expected(
        wire_bytes=len(data),
        payload_bytes=model.payload,
        frames=sum(model.opcodes),
        messages=model.messages,
        opcodes=model.opcodes,
        closed=model.closed,
        close_code=model.close_code,
        violation=model.violations[0] if model.violations else None,
        lost=model.lost,
        at_boundary=boundary and not model.lost,
    )


def ends_a_frame(data: bytes, model: _Model) -> bool:
    """Whether `data`, which holds one frame or less, holds all of it: one byte more would be read as another."""
    probe = _Model(model.masked)
    return probe.read(data + b"\x81") == b"\x81"
