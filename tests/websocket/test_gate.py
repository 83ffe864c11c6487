"""The gate: limits and answers to our pings are kept back, and nothing else ever."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tests.websocket.model import expected, observed
from trio_wsb.websocket.frames import FrameScanner
from trio_wsb.websocket.gate import PING_TOKEN_SIZE, UNLIMITED, FrameGate, OwnPings

TOKEN = b"token678"


def wire(opcode: Opcode, payload: bytes = b"", *, masked: bool, fin: bool = True) -> bytes:
    """Return a frame made by somebody else's code."""
    return Frame(opcode, payload, fin).serialize(mask=masked)


def waiting(pings: OwnPings) -> bool:
    return pings.waiting


class Through:
    """Brings a stream to a gate in chunks, as a pump does, and keeps what passed."""

    def __init__(self, gate: FrameGate) -> None:
        self.gate = gate
        self.passed = bytearray()
        self.pending = b""
        self.frames = 0

    def bring(self, chunk: bytes, allowed: int = UNLIMITED) -> bool:
        """Bring `chunk` after what is pending; whether the gate would go on if more frames were allowed."""
        data = memoryview(self.pending + chunk)
        admission = self.gate.admit(data, allowed)
        self.passed += admission.joined()
        self.pending = bytes(data[admission.used :])
        self.frames += admission.frames
        return admission.starved

    def bring_all(self, stream: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for begin, end in itertools.pairwise(edges):
            if begin < end:
                self.bring(stream[begin:end])


@st.composite
def groups(draw: st.DrawFn, masked: bool) -> list[tuple[bytes, int]]:
    """Return pieces of a stream, each with the size of the message that it is or ends, or 0."""
    pieces: list[tuple[bytes, int]] = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["message", "fragments", "ping", "pong"]))
        body = draw(st.binary(max_size=40) | st.sampled_from([bytes(126), bytes(300), bytes(66000)]))
        if kind == "message":
            pieces.append((wire(Opcode.BINARY, body, masked=masked), len(body)))
        elif kind == "fragments":
            first, second = body[: len(body) // 2], body[len(body) // 2 :]
            pieces.append((wire(Opcode.TEXT, first, masked=masked, fin=False), 0))
            if draw(st.booleans()):
                pieces.append((wire(Opcode.PING, b"between", masked=masked), 0))
            pieces.append((wire(Opcode.CONT, second, masked=masked), len(body)))
        else:
            opcode = Opcode.PING if kind == "ping" else Opcode.PONG
            pieces.append((wire(opcode, body[:125], masked=masked), 0))
    return pieces


CUTS = st.lists(st.integers(0, 70_000) | st.integers(0, 60), max_size=12)


@settings(deadline=None)
@given(st.booleans().flatmap(lambda m: st.tuples(st.just(m), groups(m))), CUTS, st.booleans())
def test_what_keeps_the_limits_passes_unchanged_and_is_scanned(
    stream: tuple[bool, list[tuple[bytes, int]]], cuts: list[int], waiting: bool
) -> None:
    masked, pieces = stream
    data = b"".join(piece for piece, _ in pieces)
    pings = OwnPings(TOKEN)
    if waiting:
        pings.next()
    through = Through(FrameGate(FrameScanner(masked), max_message=66_000, pings=pings))
    through.bring_all(data, cuts)
    assert through.passed == data
    assert through.pending == b""
    assert observed(through.gate.scanner) == expected(data, masked)
    assert not through.gate.too_big
    fragments = sum(1 for piece, _ in pieces if piece[0] & 0xF == Opcode.CONT)
    assert through.frames == len(pieces) - fragments


@settings(deadline=None)
@given(
    st.booleans().flatmap(lambda m: st.tuples(st.just(m), groups(m))),
    CUTS,
    st.lists(st.integers(0, 8), max_size=4),
)
def test_answers_to_our_pings_are_taken_out_exactly(
    stream: tuple[bool, list[tuple[bytes, int]]], cuts: list[int], places: list[int]
) -> None:
    masked, pieces = stream
    pings = OwnPings(TOKEN)
    answers = [wire(Opcode.PONG, pings.next(), masked=masked) for _ in places]
    frames = [piece for piece, _ in pieces]
    mixed = list(frames)
    for place, answer in zip(sorted(places, reverse=True), reversed(answers), strict=True):
        mixed.insert(min(place, len(frames)), answer)
    through = Through(FrameGate(FrameScanner(masked), pings=pings))
    through.bring_all(b"".join(mixed), cuts)
    assert through.passed == b"".join(frames)
    assert through.pending == b""
    assert not pings.waiting
    assert observed(through.gate.scanner) == expected(b"".join(frames), masked)


@settings(deadline=None)
@given(st.booleans().flatmap(lambda m: st.tuples(st.just(m), groups(m))), CUTS, st.integers(1, 400))
def test_nothing_of_a_frame_that_is_too_much_passes_and_all_before_it_does(
    stream: tuple[bool, list[tuple[bytes, int]]], cuts: list[int], limit: int
) -> None:
    masked, pieces = stream
    fitting, size, over = b"", 0, False
    for piece, message in pieces:
        scanner = FrameScanner(masked)
        scanner.feed(piece)
        if piece[0] & 0xF <= 2:
            size = scanner.payload_bytes + (size if piece[0] & 0xF == 0 else 0)
            assert not message or size == message
            over = size > limit
        if over:
            break
        fitting += piece
    through = Through(FrameGate(FrameScanner(masked), max_message=limit))
    through.bring_all(b"".join(piece for piece, _ in pieces), cuts)
    assert through.passed == fitting
    assert through.gate.too_big is over
    assert through.gate.scanner.at_boundary


@settings(deadline=None)
@given(groups(masked=True), CUTS, st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_no_more_frames_begin_than_are_allowed(
    pieces: list[tuple[bytes, int]], cuts: list[int], allowances: list[int]
) -> None:
    data = b"".join(piece for piece, _ in pieces)
    through = Through(FrameGate(FrameScanner(masked=True)))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        starved = through.bring(data[begin:end], 0) if begin < end else False
        assert through.gate.scanner.at_boundary or not starved
        for allowed in allowances:
            if starved:
                before = through.frames
                starved = through.bring(b"", allowed)
                assert through.frames - before <= allowed
    through.bring(b"")
    assert through.passed == data
    assert through.gate.scanner.frames == len(pieces)


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans(), CUTS)
def test_garbage_passes_too(data: bytes, masked: bool, cuts: list[int]) -> None:
    pings = OwnPings(TOKEN)
    pings.next()
    through = Through(FrameGate(FrameScanner(masked), pings=pings))
    through.bring_all(data, cuts)
    assert bytes(through.passed) + through.pending == data
    assert len(through.pending) < 40
    assert observed(through.gate.scanner) == expected(bytes(through.passed), masked)


@pytest.mark.parametrize("split", range(19))
def test_a_gate_may_be_put_up_anywhere_in_the_stream(split: int) -> None:
    pings = OwnPings(TOKEN)
    answer = wire(Opcode.PONG, pings.next(), masked=True)
    before = wire(Opcode.BINARY, bytes(130), masked=True)[:19]
    rest = bytes(138 - 19)
    scanner = FrameScanner(masked=True)
    scanner.feed(before[:split])  # passed already
    through = Through(FrameGate(scanner, pings=pings))
    through.bring_all(before[split:] + rest + answer + answer, [1, 2, 3])
    # The second is not expected any more, so somebody else may want it.
    assert through.passed == before[split:] + rest + answer
    assert scanner.messages == 1


def test_an_answer_to_the_latest_ping_answers_those_before_it() -> None:
    pings = OwnPings(TOKEN)
    first, second = pings.next(), pings.next()
    assert pings.take(second)
    assert not waiting(pings)
    assert not pings.take(first)
    third = pings.next()
    assert waiting(pings)
    assert not pings.take(TOKEN + bytes(4))
    assert not pings.take(bytes(PING_TOKEN_SIZE) + third[PING_TOKEN_SIZE:])
    assert pings.take(third)


@pytest.mark.parametrize("change", [b"", b"x", b"?" * 12])
def test_a_pong_that_is_not_ours_passes(change: bytes) -> None:
    pings = OwnPings(TOKEN)
    pings.next()
    pong = wire(Opcode.PONG, change, masked=False)
    through = Through(FrameGate(FrameScanner(masked=False), pings=pings))
    through.bring(pong)
    assert through.passed == pong
    assert pings.waiting


def test_a_gate_is_needed_as_long_as_something_may_be_kept_back() -> None:
    pings = OwnPings(TOKEN)
    gate = FrameGate(FrameScanner(masked=False), pings=pings)
    needed = [gate.needed]
    payload = pings.next()
    needed.append(gate.needed)
    pings.take(payload)
    assert [*needed, gate.needed] == [False, True, False]
    assert FrameGate(FrameScanner(masked=False), max_message=1).needed


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_limit_of_a_message_counts_its_frames_together(chunk: int) -> None:
    fits = wire(Opcode.TEXT, bytes(60), masked=True, fin=False) + wire(Opcode.CONT, bytes(40), masked=True)
    head = wire(Opcode.TEXT, bytes(60), masked=True, fin=False)
    too_much = wire(Opcode.CONT, bytes(41), masked=True)
    through = Through(FrameGate(FrameScanner(masked=True), max_message=100))
    stream = fits + head + too_much + fits
    for begin in range(0, len(stream), chunk):
        through.bring(stream[begin : begin + chunk])
    assert through.passed == fits + head
    assert through.gate.too_big
    assert through.gate.scanner.at_boundary


def test_a_control_frame_that_is_no_control_frame_is_no_way_round_the_limit() -> None:
    ping = b"\x89\xfe\x10\x00" + bytes(4)  # a Ping that says it has 4096 bytes
    through = Through(FrameGate(FrameScanner(masked=True), max_message=1000))
    through.bring(ping)
    assert through.gate.too_big
    small = Through(FrameGate(FrameScanner(masked=True), max_message=1))
    small.bring(wire(Opcode.PING, bytes(125), masked=True))
    assert not small.gate.too_big


def test_a_close_needs_no_allowance() -> None:
    close = wire(Opcode.CLOSE, b"\x03\xe8", masked=True)
    through = Through(FrameGate(FrameScanner(masked=True)))
    assert not through.bring(close, 0)
    assert through.passed == close
    assert through.gate.scanner.closed


def test_a_gate_with_nothing_but_a_limit() -> None:
    pings = OwnPings(TOKEN)
    gate = FrameGate(FrameScanner(True), max_message=10, pings=pings)
    through, found = Through(gate), [gate.bare]
    through.bring(wire(Opcode.TEXT, b"123456", masked=True, fin=False))
    found.append(gate.bare)  # a message has begun
    through.bring(wire(Opcode.CONT, b"1234", masked=True))
    found.append(gate.bare)
    through.bring(wire(Opcode.BINARY, b"12345678901", masked=True))
    found.append(gate.bare)  # it has refused something
    assert found == [True, False, True, False]


def test_who_kept_the_limit_meanwhile_says_how_far_the_message_is() -> None:
    scanner = FrameScanner(True)
    scanner.feed(wire(Opcode.TEXT, bytes(6), masked=True, fin=False))
    gate = FrameGate(scanner, max_message=10)
    gate.resume(6)
    through = Through(gate)
    rest = wire(Opcode.CONT, bytes(4), masked=True)
    through.bring(rest)
    assert (bytes(through.passed), gate.too_big) == (rest, False)
    scanner = FrameScanner(True)
    scanner.feed(wire(Opcode.TEXT, bytes(6), masked=True, fin=False))
    gate = FrameGate(scanner, max_message=10)
    gate.resume(6)
    through = Through(gate)
    through.bring(wire(Opcode.CONT, bytes(5), masked=True))
    assert (bytes(through.passed), gate.too_big) == (b"", True)
