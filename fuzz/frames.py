"""WebSocket frames: the scanner and the gate, in both directions.

The promises: the same knowledge however the bytes are cut up, and the same as a slow and obvious reading has; the gate
passes bytes unchanged and in order, none of a message over its limit, and never holds more than a header and a Pong.
"""

from __future__ import annotations

from collections.abc import Callable

from fuzz.http import pieces
from tests.websocket.model import expected, observed
from trio_wsb.websocket.frames import FrameScanner
from trio_wsb.websocket.gate import FrameGate, OwnPings

MOST_HELD = 14 + 12
"""Bytes that a gate may leave with its caller: the longest header, and the payload of an answer to a ping of ours."""


def scanner(data: bytes) -> None:
    """One direction's frames."""
    seed, masked, data = (data[0], bool(data[1] & 1), data[2:]) if len(data) > 1 else (0, True, data)
    whole, cut, taken = FrameScanner(masked), FrameScanner(masked), FrameScanner(masked)
    whole.feed(data)
    for part in pieces(data, seed):
        cut.feed(part)
        # Another scanner may take over anywhere.
        taken = FrameScanner.from_state(taken.state())
        taken.feed(part)
    model = expected(data, masked)
    assert observed(whole) == model, "the scanner and the model differ"
    assert observed(cut) == model, "it depends on how the bytes are cut up"
    assert taken.state() == cut.state() == whole.state()


def _pass(gate: FrameGate, data: bytes, seed: int) -> tuple[bytes, bytes]:
    """Bring `data` to a gate in pieces as the pump does; return what has passed and what is still held."""
    passed, held = bytearray(), b""
    for part in pieces(data, seed):
        held += part
        while held:
            admission = gate.admit(memoryview(held), seed % 5 + 1)
            for piece in admission.passing:
                passed += piece
            held = held[admission.used :]
            if not admission.used or gate.too_big:
                break
        if gate.too_big:
            break
        assert len(held) <= MOST_HELD, "it holds more than it needs"
    return bytes(passed), held


def gate(data: bytes) -> None:
    """What passes with a limit for messages, and with pings of ours under way."""
    if len(data) < 3:
        return
    seed, masked, most, data = data[0], bool(data[1] & 1), data[2] * 16, data[3:]
    limited = FrameGate(FrameScanner(masked), max_message=most)
    passed, held = _pass(limited, data, seed)
    assert data.startswith(passed), "the stream was changed"
    if most and not limited.scanner.lost and limited.scanner.violation is None:
        assert limited.scanner.payload_bytes <= max(most, 125) * max(1, limited.scanner.frames)
    if not limited.too_big:
        assert passed + held == data, "bytes were lost"
    pings = OwnPings(b"\x01" * 8)
    pings.next()
    answered = FrameGate(FrameScanner(masked), pings=pings)
    passed, held = _pass(answered, data, seed)
    gone = len(data) - len(passed) - len(held)
    assert gone in ({0, 2 + 12, 4 + 12, 10 + 12, 6 + 12, 8 + 12, 14 + 12} if pings.answered else {0})
    direct = FrameScanner(masked)
    direct.feed(passed)
    assert observed(direct) == observed(answered.scanner), "the scanner has not seen what passed"


TARGETS: dict[str, Callable[[bytes], None]] = {"frames": scanner, "gate": gate}
