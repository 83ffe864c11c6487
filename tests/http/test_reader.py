from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http import strategies
from trio_wsb.errors import BadRequest, BadResponse, HTTPError
from trio_wsb.http.head import HeadLimits, RequestHead, ResponseHead, parse_request_head, parse_response_head
from trio_wsb.http.reader import HeadReader, RequestReader, ResponseReader

REQUEST = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nX: 1\r\n\r\n"


def drip(reader: HeadReader[RequestHead], data: bytes) -> tuple[RequestHead | None, int]:
    """Feed `data` byte by byte; return the head and how many bytes it took, or raise."""
    for count in range(1, len(data) + 1):
        reader.feed(data[count - 1 : count])
        head = reader.next_head()
        if head is not None:
            return head, count
    return None, len(data)


def refused_after(data: bytes, reader: RequestReader | None = None) -> tuple[int, int]:
    """Feed `data` byte by byte until it is refused; return the status and how many bytes it took."""
    reader = reader or RequestReader()
    for count in range(1, len(data) + 1):
        reader.feed(data[count - 1 : count])
        try:
            assert reader.next_head() is None
        except BadRequest as error:
            return error.status, count
    raise AssertionError("never refused")


def test_a_head_and_what_follows() -> None:
    reader = RequestReader()
    assert (reader.started, reader.next_head()) == (False, None)
    reader.feed(REQUEST + b"\r\nearly \x00\n")
    assert (reader.started, reader.buffered) == (True, len(REQUEST) + 10)
    head = reader.next_head()
    assert head == parse_request_head(REQUEST)
    assert reader.take_rest() == b"\r\nearly \x00\n"
    assert (reader.started, reader.buffered) == (False, 0)
    assert reader.take_rest() == b""


def test_pipelined_heads() -> None:
    reader = RequestReader()
    reader.feed(memoryview(REQUEST * 3))
    assert [reader.next_head() for _ in range(4)] == [parse_request_head(REQUEST)] * 3 + [None]


def test_what_follows_a_body_is_fed_again() -> None:
    reader = RequestReader()
    reader.feed(REQUEST + b"body" + REQUEST[:10])
    assert reader.next_head() is not None
    rest = reader.take_rest()
    reader.feed(rest[4:])
    assert reader.next_head() is None
    assert reader.started
    reader.feed(REQUEST[10:])
    assert reader.next_head() is not None


@given(st.data())
def test_any_cut_gives_the_same_requests(data: st.DataObject) -> None:
    heads = data.draw(st.lists(strategies.request_heads(), min_size=1, max_size=3))
    reader = RequestReader()
    found: list[RequestHead] = []
    for piece in data.draw(strategies.cuts(b"".join(heads))):
        reader.feed(piece)
        while (head := reader.next_head()) is not None:
            found.append(head)
    assert found == [parse_request_head(head) for head in heads]
    assert reader.buffered == 0


@given(st.data())
def test_any_cut_gives_the_same_response(data: st.DataObject) -> None:
    head = data.draw(strategies.response_heads())
    reader = ResponseReader()
    found: list[ResponseHead] = []
    for piece in data.draw(strategies.cuts(head + b"\r\n\r\nbody")):
        reader.feed(piece)
        if not found and (response := reader.next_head()) is not None:
            found.append(response)
    assert found == [parse_response_head(head)]
    assert reader.take_rest() == b"\r\n\r\nbody"


@given(st.data())
def test_garbage_is_refused_however_it_is_cut(data: st.DataObject) -> None:
    garbage = data.draw(
        st.binary(max_size=200) | st.text("GET /HTP1.\r\n: \tabHost", max_size=200).map(str.encode)
    )
    reader = RequestReader()
    with contextlib.suppress(HTTPError):
        for piece in data.draw(strategies.cuts(garbage)):
            reader.feed(piece)
            while reader.next_head() is not None:
                pass


@given(st.data())
def test_a_fault_is_found_whole_or_in_pieces(data: st.DataObject) -> None:
    head = bytearray(data.draw(strategies.request_heads()))
    place = data.draw(st.integers(0, len(head) - 1))
    head[place] = data.draw(st.sampled_from(b"\0\t\n\r :\x7f\xe9a"))

    def outcome(pieces: list[bytes]) -> RequestHead | str | None:
        reader = RequestReader()
        try:
            for piece in pieces:
                reader.feed(piece)
                found = reader.next_head()
                if found is not None:
                    return found
        except BadRequest:
            return "refused"
        return None

    assert outcome(data.draw(strategies.cuts(bytes(head)))) == outcome([bytes(head)])


# What can never become a head is refused as soon as that shows.


@pytest.mark.parametrize(
    ("data", "status", "after"),
    [
        (b"GET / HTTP/1.1\nHost: h\n\n", 400, 15),
        (b"\nGET /", 400, 1),
        (b"GET / HTTP/1.1\r\nHost: h\n\n", 400, 24),
        (b"GET / HTTP/1.1\rHost: h\r\n\r\n", 400, 16),
        (b"GET / HTTP/1.1\r\r\n", 400, 16),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, 1),  # a TLS ClientHello
        (b"GET / HTTP/1.1\r\nHost: h\0\r\n\r\n", 400, 24),
        (b"GET /\x7f", 400, 6),
    ],
)
def test_impossible_bytes_are_noticed_at_once(data: bytes, status: int, after: int) -> None:
    assert refused_after(data) == (status, after)


def test_a_cr_may_still_get_its_lf() -> None:
    head, count = drip(RequestReader(), REQUEST)
    assert head is not None
    assert count == len(REQUEST)


def test_limits_hold_before_the_head_is_complete() -> None:
    limits = HeadLimits(line=100, head=1000, fields=5)
    assert refused_after(b"a" * 5000, RequestReader(limits)) == (414, 101)
    line = b"GET / HTTP/1.1\r\n"
    assert refused_after(line + b"a" * 5000, RequestReader(limits)) == (431, 1001)
    assert refused_after(line + b"X: 1\r\n" * 100, RequestReader(limits)) == (431, len(line) + 6 * 6)
    # The same in one piece.
    for data, status in [
        (b"a" * 5000, 414),
        (b"a" * 5000 + b"\r\n", 414),
        (b"a" * 99 + b"\r\n", 414),
        (line + b"a" * 5000, 431),
        (line + b"X: 1\r\n" * 100, 431),
    ]:
        reader = RequestReader(limits)
        reader.feed(data)
        with pytest.raises(BadRequest) as caught:
            reader.next_head()
        assert caught.value.status == status
    reader = RequestReader(limits)
    reader.feed(b"a" * 98 + b"\r\n")
    assert reader.next_head() is None


def test_a_line_that_ended_within_the_limit_is_not_judged_by_the_head() -> None:
    reader = RequestReader(HeadLimits(line=20, head=1000, fields=5))
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 500)
    assert reader.next_head() is None
    reader.feed(b"\r\n\r\n")
    assert reader.next_head() is not None


def test_a_hundred_kilobyte_field_is_431() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
    with pytest.raises(BadRequest) as caught:
        reader.next_head()
    assert caught.value.status == 431


# Empty lines before a request line: RFC 9112 section 2.2.


def test_a_few_empty_lines_are_skipped() -> None:
    reader = RequestReader()
    reader.feed(b"\r\n")
    assert (reader.next_head(), reader.started) == (None, False)
    reader.feed(b"\r")
    assert (reader.next_head(), reader.started) == (None, True)
    reader.feed(b"\n" + REQUEST + b"\r\n" + REQUEST)
    assert reader.next_head() is not None
    assert reader.next_head() is not None


def test_many_empty_lines_are_refused() -> None:
    assert refused_after(b"\r\n" * 10) == (400, 6)
    reader = RequestReader()
    reader.feed(b"\r\n" * 3 + REQUEST)
    with pytest.raises(BadRequest):
        reader.next_head()


# Responses.


def test_interim_and_final_response() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\r\nbody")
    first, second = reader.next_head(), reader.next_head()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (100, 200)
    assert reader.take_rest() == b"body"


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\nServer: x\n\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"a" * 9000, b"\x15\x03\x01"]
)
def test_faulty_responses_are_the_backends_fault(data: bytes) -> None:
    reader = ResponseReader()
    reader.feed(data)
    with pytest.raises(BadResponse) as caught:
        reader.next_head()
    assert caught.value.status == 502


def test_dripping_never_scans_a_byte_twice() -> None:
    """What has been checked is not looked at again, or a slow sender would cost quadratic time."""
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
    for _ in range(1000):
        before = reader.buffered
        reader.next_head()
        assert reader._checked == before
        reader.feed(b"a")
