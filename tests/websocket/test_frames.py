from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong

from tests.websocket.model import expected, observed
from trio_wsb.websocket import frames
from trio_wsb.websocket.frames import FrameScanner

MASK = b"\xa1\x02\x73\xfe"


def frame(
    first: int, payload: bytes = b"", *, masked: bool = True, form: int | None = None, mask: bytes = MASK
) -> bytes:
    """Return a frame; `form` forces the length into 7, 16 or 64 bits."""
    size = len(payload)
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    bit = 0x80 if masked else 0
    if form == 7:
        head = bytes((first, bit | size))
    elif form == 16:
        head = bytes((first, bit | 126)) + struct.pack(">H", size)
    else:
        head = bytes((first, bit | 127)) + struct.pack(">Q", size)
    return head + (mask + frames.mask_payload(payload, mask) if masked else payload)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


def scan(data: bytes, masked: bool, cuts: list[int] | None = None) -> FrameScanner:
    scanner = FrameScanner(masked)
    edges = [0, *sorted(cuts or []), len(data)]
    for begin, end in itertools.pairwise(edges):
        scanner.feed(memoryview(data)[begin:end])
    return scanner


@st.composite
def wire_frames(draw: st.DrawFn, masked: bool, most: int = 65537) -> bytes:
    first = draw(
        st.sampled_from(
            [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0xC1, 0x41, 0x88, 0x89, 0x8A, 0x08, 0x09, 0x83, 0x8B]
        )
        | st.integers(0, 255)
    )
    if first & 0x0F == 8:
        code = draw(st.sampled_from([1000, 1001, 1005, 999, 1012, 3000, 4999, 5000]))
        payload = draw(st.sampled_from([b"", b"\x03", close_payload(code), close_payload(code, b"bye")]))
    else:
        size = draw(
            st.sampled_from(
                [n for n in (0, 1, 2, 5, 124, 125, 126, 127, 300, 65535, 65536, 65537) if n <= most]
            )
        )
        payload = bytes((size + index) & 0xFF for index in range(min(size, 300))).ljust(size, b"x")
    right = draw(st.sampled_from([True, True, True, True, False]))
    forms = [form for form, limit in ((7, 125), (16, 65535), (64, 2**63)) if len(payload) <= limit]
    form = draw(st.sampled_from([forms[0], forms[0], *forms]))
    return frame(
        first, payload, masked=masked is right, form=form, mask=draw(st.sampled_from([MASK, bytes(4)]))
    )


@st.composite
def streams(draw: st.DrawFn, most: int = 65537) -> tuple[bytes, bool]:
    masked = draw(st.booleans())
    data = b"".join(draw(st.lists(wire_frames(masked, most), max_size=12)))
    tail = draw(st.binary(max_size=20) | st.just(b"\x82\xff" + b"\xff" * 20))
    return data + tail, masked


@settings(deadline=None)
@given(streams(), st.data())
def test_any_stream_in_any_chunks_is_what_the_model_says(
    stream: tuple[bytes, bool], data: st.DataObject
) -> None:
    wire, masked = stream
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8).map(sorted))
    scanner = FrameScanner(masked)
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        scanner.feed(memoryview(wire)[begin:end])
        assert observed(scanner) == expected(wire[:end], masked)


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.lists(st.integers(0, 400), max_size=10))
def test_garbage_never_raises(wire: bytes, masked: bool, cuts: list[int]) -> None:
    scanner = scan(wire, masked, [min(cut, len(wire)) for cut in cuts])
    assert observed(scanner) == expected(wire, masked)
    assert FrameScanner.from_state(scanner.state()).feed_to_boundary(wire) <= len(wire)


@settings(deadline=None)
@given(streams(most=300), st.data())
def test_a_saved_state_goes_on_where_it_was(stream: tuple[bytes, bool], data: st.DataObject) -> None:
    wire, masked = stream
    cut = data.draw(st.integers(0, len(wire)))
    restored = FrameScanner.from_state(scan(wire[:cut], masked).state())
    restored.feed(wire[cut:])
    assert restored.state() == scan(wire, masked).state()


def sample(masked: bool) -> bytes:
    """Return a stream with every kind of header, short enough to be cut at every byte."""
    return b"".join(
        frame(first, payload, masked=masked, form=form)
        for first, payload, form in [
            (0x81, b"hello", None),
            (0x01, b"", None),
            (0x89, b"ping", None),
            (0x00, b"more", None),
            (0x80, b"end", None),
            (0xC2, bytes(126), None),
            (0x82, b"long form", 64),
            (0x82, b"", None),
            (0x8A, b"", None),
            (0x88, close_payload(4321, b"because"), None),
            (0x88, close_payload(1000), 16),
            (0x81, b"late", None),
        ]
    )


@pytest.mark.parametrize("masked", [True, False])
def test_cut_at_every_byte(masked: bool) -> None:
    wire = sample(masked)
    whole = scan(wire, masked).state()
    assert scan(wire, masked, list(range(len(wire)))).state() == whole
    for cut in range(len(wire) + 1):
        first = scan(wire[:cut], masked)
        assert observed(first) == expected(wire[:cut], masked)
        second = FrameScanner.from_state(first.state())
        assert second.state() == first.state()
        second.feed(memoryview(wire)[cut:])
        first.feed(memoryview(wire)[cut:])
        assert first.state() == second.state() == whole


@pytest.mark.parametrize("masked", [True, False])
def test_a_state_is_small_and_plain(masked: bool) -> None:
    wire = sample(masked)
    for cut in range(len(wire) + 1):
        state = scan(wire[:cut], masked).state()
        assert len(state.header) < 16
        assert state.left == 0 or state.header == b""


@pytest.mark.parametrize("masked", [True, False])
def test_feed_to_boundary_stops_at_the_end_of_the_frame_from_every_byte(masked: bool) -> None:
    wire = sample(masked)
    boundaries = [end for end in range(len(wire) + 1) if expected(wire[:end], masked).at_boundary]
    assert len(boundaries) == 13
    for cut in range(len(wire) + 1):
        scanner = scan(wire[:cut], masked)
        end = next(boundary for boundary in boundaries if boundary >= cut)
        assert scanner.feed_to_boundary(memoryview(wire)[cut:]) == end - cut
        assert scanner.at_boundary
        assert scanner.state() == scan(wire[:end], masked).state()


def test_feed_to_boundary_takes_a_chunk_that_ends_before_the_frame() -> None:
    wire = frame(0x82, bytes(1000))
    for begin, end in [(1, 1), (1, 3), (3, 8), (5, 900), (900, 1007)]:
        scanner = scan(wire[:begin], masked=True)
        assert scanner.feed_to_boundary(wire[begin:end]) == end - begin
        assert not scanner.at_boundary
        assert scanner.bytes == end


@pytest.mark.parametrize("before", [1, 2, 9, 10, 30])
def test_a_length_that_cannot_be_loses_the_boundaries(before: int) -> None:
    wire = b"\x82\xff\x80" + bytes(40)
    scanner = scan(wire[:before], masked=True)
    rest = wire[before:]
    assert scanner.feed_to_boundary(rest) == len(rest)
    scanner.feed(frame(0x81, b"not seen"))
    assert scanner.lost
    assert not scanner.at_boundary
    assert scanner.violation == "payload length over 2^63 - 1"
    assert (scanner.frames, scanner.messages, scanner.bytes) == (0, 0, len(wire) + 14)
    assert FrameScanner.from_state(scanner.state()).state() == scanner.state()


def test_the_longest_length_keeps_the_boundaries() -> None:
    scanner = scan(b"\x82\xff\x7f" + b"\xff" * 7 + MASK, masked=True)
    scanner.feed(bytes(65536))
    assert not scanner.lost
    assert scanner.violation is None
    assert scanner.state().left == 2**63 - 1 - 65536


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 1024, 65535, 65536])
@pytest.mark.parametrize("masked", [True, False])
def test_a_message_counts_when_its_last_byte_has_passed(size: int, masked: bool) -> None:
    wire = frame(0x82, bytes(size), masked=masked)
    scanner = scan(wire[:-1], masked)
    assert scanner.messages == 0
    scanner.feed(wire[-1:])
    assert (scanner.messages, scanner.frames, scanner.payload_bytes) == (1, 1, size)
    scanner.feed(wire)
    scanner.feed(wire * 3)
    assert (scanner.messages, scanner.frames, scanner.payload_bytes) == (5, 5, 5 * size)
    assert scanner.bytes == 5 * len(wire)
    assert scanner.violation is None
    assert scanner.at_boundary


def test_many_small_frames_in_one_chunk() -> None:
    one = (
        frame(0x81, b"a") + frame(0x01) + frame(0x8A, b"pong") + frame(0x80, b"bc") + frame(0x82, bytes(130))
    )
    scanner = scan(one * 500, masked=True)
    assert (scanner.messages, scanner.frames, scanner.payload_bytes) == (1500, 2500, 500 * 137)
    assert scanner.opcodes == [500, 1000, 500, 0, 0, 0, 0, 0, 0, 0, 500, 0, 0, 0, 0, 0]
    assert scanner.violation is None


@pytest.mark.parametrize(
    ("wire", "violation"),
    [
        (frame(0x83), "reserved opcode"),
        (frame(0x8B), "reserved opcode"),
        (frame(0x09), "fragmented control frame"),
        (frame(0x89, bytes(126)), "control frame over 125 bytes"),
        (frame(0x81, b"a", form=16), "payload length not in its shortest form"),
        (frame(0x81, bytes(65535), form=64), "payload length not in its shortest form"),
        (frame(0x81, b"a", masked=False), "frame not masked"),
        (frame(0x80), "continuation without a message"),
        (frame(0x01) + frame(0x81), "new message inside a fragmented one"),
        (frame(0x88) + frame(0x81), "data frame after Close"),
        (frame(0x88, b"\x03"), "Close frame with half a code"),
        (frame(0x88, close_payload(1006)), "close code that may not be sent"),
        (frame(0x81) + frame(0x83) + frame(0x80), "reserved opcode"),
    ],
)
def test_the_first_violation_is_kept_and_the_boundaries_too(wire: bytes, violation: str) -> None:
    scanner = scan(wire, masked=True)
    assert scanner.violation == violation
    assert scanner.at_boundary
    assert not scanner.lost
    scanner.feed(frame(0x82, b"x", masked=False))
    assert scanner.violation == violation


def test_frames_from_a_server_are_not_masked() -> None:
    assert scan(frame(0x81, b"a"), masked=False).violation == "frame masked"
    assert scan(frame(0x81, b"a", masked=False), masked=False).violation is None


@pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10, 0x70])
def test_rsv_bits_belong_to_the_extensions(rsv: int) -> None:
    scanner = scan(frame(0x81 | rsv, b"deflated") + frame(0x01 | rsv) + frame(0x80), masked=True)
    assert scanner.violation is None
    assert scanner.messages == 2


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 1005), (close_payload(1000), 1000), (close_payload(1012, b"restart"), 1012), (b"\x03", None)],
)
def test_close_codes_split_anywhere(payload: bytes, code: int | None, masked: bool) -> None:
    wire = frame(0x88, payload, masked=masked)
    for cut in range(len(wire) + 1):
        scanner = scan(wire, masked, [cut])
        assert (scanner.closed, scanner.close_code) == (True, code)
        assert scanner.payload_bytes == len(payload)
        partial = scan(wire[:cut], masked)
        assert partial.closed is (cut == len(wire))


def test_the_first_close_code_counts() -> None:
    wire = frame(0x88, close_payload(1001)) + frame(0x88, close_payload(1000)) + frame(0x8A)
    scanner = scan(wire, masked=True)
    assert scanner.close_code == 1001
    assert scanner.opcodes[8] == 2
    assert scanner.violation is None


@st.composite
def library_frames(draw: st.DrawFn) -> list[Frame]:
    """Return a control frame, a message, or a message in two frames with a Ping between them."""
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG]))
    if opcode in {Opcode.PING, Opcode.PONG}:
        return [Frame(opcode, draw(st.binary(max_size=125)))]
    body = draw(st.binary(max_size=125) | st.sampled_from([bytes(126), bytes(65535), bytes(65536)]))
    if draw(st.booleans()):
        return [Frame(opcode, body)]
    return [Frame(opcode, body, fin=False), Frame(Opcode.PING, b""), Frame(Opcode.CONT, body)]


@settings(deadline=None)
@given(st.lists(library_frames(), max_size=8), st.booleans(), st.data())
def test_frames_of_the_websockets_library(
    groups: list[list[Frame]], masked: bool, data: st.DataObject
) -> None:
    sent = [*itertools.chain.from_iterable(groups), Frame(Opcode.CLOSE, Close(1000, "done").serialize())]
    wire = b"".join(each.serialize(mask=masked) for each in sent)
    scanner = scan(wire, masked, data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    assert scanner.frames == len(sent)
    assert scanner.messages == sum(group[0].opcode in {Opcode.TEXT, Opcode.BINARY} for group in groups)
    assert scanner.payload_bytes == sum(len(each.data) for each in sent)
    assert scanner.opcodes[Opcode.PING] == sum(each.opcode is Opcode.PING for each in sent)
    assert scanner.close_code == 1000
    assert scanner.violation is None
    assert scanner.at_boundary


def test_encoded_frames_are_those_of_the_websockets_library() -> None:
    assert frames.encode_close(1001, "bye ✓") == Frame(
        Opcode.CLOSE, Close(1001, "bye ✓").serialize()
    ).serialize(mask=False)
    assert frames.encode_ping(b"abc") == Frame(Opcode.PING, b"abc").serialize(mask=False)
    assert frames.encode_pong() == Frame(Opcode.PONG, b"").serialize(mask=False)


def test_masked_frames_are_understood_by_a_server() -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(
        frames.encode_ping(b"abcde", MASK)
        + frames.encode_pong(b"", MASK)
        + frames.encode_close(1012, "later", MASK)
    )
    ping, pong, close = server.events()
    assert isinstance(ping, Ping)
    assert bytes(ping.payload) == b"abcde"
    assert isinstance(pong, Pong)
    assert close == CloseConnection(code=1012, reason="later")


def test_encoded_frames_scan_without_violation() -> None:
    scanner = scan(
        frames.encode_ping(bytes(125), MASK) + frames.encode_close(4000, "x" * 123, MASK), masked=True
    )
    assert scanner.violation is None
    assert scanner.close_code == 4000


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, -1])
def test_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match="not a close code that may be sent"):
        frames.encode_close(code)


def test_control_frames_are_short_and_masks_have_four_bytes() -> None:
    with pytest.raises(ValueError, match="at most 125 bytes"):
        frames.encode_close(1000, "x" * 124)
    with pytest.raises(ValueError, match="at most 125 bytes"):
        frames.encode_ping(bytes(126))
    with pytest.raises(ValueError, match="at most 125 bytes"):
        frames.encode_pong(bytes(126))
    with pytest.raises(ValueError, match="four bytes"):
        frames.encode_pong(b"", b"abc")


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_twice_gives_the_payload_back(payload: bytes, mask: bytes) -> None:
    masked = frames.mask_payload(payload, mask)
    assert masked == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    assert frames.mask_payload(masked, mask) == payload


@st.composite
def library_stream(draw: st.DrawFn) -> tuple[list[Frame], bool]:
    groups = draw(st.lists(library_frames(), max_size=8))
    return list(itertools.chain.from_iterable(groups)), draw(st.booleans())


@settings(deadline=None)
@given(library_stream(), st.lists(st.integers(0, 400), max_size=8))
def test_progress_is_made_by_data_frames_alone(stream: tuple[list[Frame], bool], cuts: list[int]) -> None:
    sent, masked = stream
    scanner = FrameScanner(masked)
    highest = 0
    for each in sent:
        wire = each.serialize(mask=masked)
        edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
        grew = False
        for begin, end in itertools.pairwise(edges):
            scanner.feed(wire[begin:end])
            grew |= scanner.data_progress > highest
            highest = max(highest, scanner.data_progress)
        assert grew is (each.opcode < 8)
    assert scanner.data_progress == highest


def test_an_end_to_end_ping_waits_for_its_pong() -> None:
    up, down, unanswered = FrameScanner(masked=True), FrameScanner(masked=False), bytearray(2)
    up.unanswered = down.unanswered = unanswered
    up.feed(frame(0x89, b"to the backend"))
    assert unanswered == b"\0\1"
    up.feed(frame(0x8A, b"unasked"))
    assert unanswered == b"\0\1"
    down.feed(frame(0x82, b"data", masked=False) + frame(0x89, b"to the client", masked=False))
    assert unanswered == b"\1\1"
    down.feed(frame(0x8A, b"to the backend", masked=False))
    assert unanswered == b"\1\0"
    up.feed(frame(0x8A, b"to the client"))
    assert unanswered == b"\0\0"


@pytest.mark.parametrize("masked", [True, False])
def test_whole_messages_are_known(masked: bool) -> None:
    scanner = FrameScanner(masked)
    wire = frame(0x82, b"abc", masked=masked)
    assert scanner.whole_message(wire) == 3
    assert scanner.bytes == 0
    assert scanner.whole_message(wire + wire) == -1
    assert scanner.whole_message(wire[:-1]) == -1
    assert scanner.whole_message(frame(0x89, b"abc", masked=masked)) == -1
    assert scanner.whole_message(frame(0x02, b"abc", masked=masked)) == -1
    assert scanner.whole_message(frame(0x82, b"abc", masked=not masked)) == -1
    scanner.feed(wire[:3])
    assert scanner.whole_message(wire) == -1


@pytest.mark.parametrize("masked", [True, False])
@given(data=st.data())
def test_another_scanner_may_go_on_for_a_while(masked: bool, data: st.DataObject) -> None:
    """What one is given and what is taken back from it is all that there is to know: two by turns are as one."""
    pieces = data.draw(
        st.lists(
            st.sampled_from([(0x82, 0), (0x82, 200), (0x01, 3), (0x80, 70000), (0x89, 5), (0x8A, 125)]),
            max_size=8,
        )
    )
    stream, inside = b"", False
    for first, size in pieces:
        opcode, final = first & 0x0F, first & 0x80
        if opcode < 8:
            opcode = 0 if inside else max(1, opcode)
            inside = not final
        stream += frame(final | opcode, bytes(size), masked=masked)
    alone, ours = FrameScanner(masked), FrameScanner(masked)
    alone.feed(stream)
    split = data.draw(st.integers(0, len(stream)))
    again = data.draw(st.integers(split, len(stream)))
    ours.feed(stream[:split])
    if not ours.plain:
        return  # amid a header: the other one cannot begin there
    theirs = FrameScanner(masked)
    theirs.take(*ours.give())
    theirs.feed(stream[split:again])
    if not theirs.plain:
        return
    ours.take(*theirs.give())
    ours.count(
        theirs.bytes,
        theirs.payload_bytes,
        theirs.messages,
        theirs.control_payload,
        *(theirs.opcodes[opcode] for opcode in (0, 1, 2, 9, 10)),
    )
    assert ours.give() == theirs.give()
    assert ours.fragmented == theirs.fragmented
    ours.feed(stream[again:])
    assert observed(ours) == observed(alone)
    assert ours.fragmented == alone.fragmented == inside


def test_what_is_not_plain() -> None:
    def plain(data: bytes) -> bool:
        scanner = FrameScanner(True)
        scanner.feed(data)
        return scanner.plain

    assert plain(frame(0x82, b"hello")[:-1])
    assert not plain(b"\x82"), "a header that is cut"
    assert not plain(frame(0x88, close_payload(1000))), "a Close"
    assert not plain(frame(0x83, b"x")), "no opcode that is known"
