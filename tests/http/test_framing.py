"""Content-Length and Transfer-Encoding, with the variants that desync proxies from servers."""

from __future__ import annotations

import pytest

from trio_wsb.errors import BadRequest, BadResponse
from trio_wsb.http.body import request_body, response_body, response_framing
from trio_wsb.http.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind, request_framing
from trio_wsb.http.head import ResponseHead, parse_request_head
from trio_wsb.http.headers import Field, Headers


def length(size: int) -> Framing:
    return Framing(FramingKind.LENGTH, size)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], NO_BODY),
        ([("Content-Length", "0")], length(0)),
        ([("content-length", "42")], length(42)),
        ([("Content-Length", "007")], length(7)),
        ([("Content-Length", "9" * 18)], length(10**18 - 1)),
        ([("Transfer-Encoding", "chunked")], CHUNKED),
        # RFC 9112 section 7: coding names are case-insensitive.
        ([("TRANSFER-ENCODING", "ChUnKeD")], CHUNKED),
    ],
)
def test_honest_requests(fields: list[Field], expected: Framing) -> None:
    assert request_framing((1, 1), Headers(fields)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        # RFC 9112 section 6.3 item 3, in either order.
        [("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "4")],
        [("Transfer-Encoding", "xchunked"), ("Content-Length", "4")],
        [("Transfer-Encoding", ""), ("Content-Length", "4")],
        # RFC 9112 section 6.3 item 5.
        [("Content-Length", "4"), ("Content-Length", "5")],
        [("Content-Length", "4"), ("Content-Length", "4")],
        [("Content-Length", "4, 4")],
        [("Content-Length", "4,5")],
        [("Content-Length", "")],
        [("Content-Length", "+4")],
        [("Content-Length", "-4")],
        [("Content-Length", "-0")],
        [("Content-Length", "4 ")],
        [("Content-Length", "4 4")],
        [("Content-Length", "0x4")],
        [("Content-Length", "4.0")],
        [("Content-Length", "4e0")],
        [("Content-Length", "1_0")],
        [("Content-Length", "\xb2")],
        [("Content-Length", "\xa04")],
        [("Content-Length", "4;a")],
        [("Content-Length", "1" * 19)],
        [("Content-Length", "0" * 19)],
        [("Content-Length", "1" * 5000)],
    ],
)
def test_faulty_lengths_are_refused(fields: list[Field]) -> None:
    with pytest.raises(BadRequest) as caught:
        request_framing((1, 1), Headers(fields))
    assert caught.value.status == 400
    head = ResponseHead(200, "", (1, 1), Headers(fields))
    with pytest.raises(BadResponse):
        response_framing(head, "GET")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("xchunked", 400),
        ("chunkedx", 400),
        ("chunke", 400),
        ("chunked, identity", 400),
        ("identity", 400),
        ("gzip", 400),
        ("chunked, chunked", 400),
        ("chunked,", 400),
        (",chunked", 400),
        ("chunked;q=1", 400),
        ("chunked chunked", 400),
        ("\tchunked", 400),
        ("chunked\t", 400),
        ("chunked \xa0", 400),
        ("'chunked'", 400),
        ('"chunked"', 400),
        ("", 400),
        ("x, , chunked", 400),
        # RFC 9112 section 6.1: the length could be told, only the coding is unknown.
        ("gzip, chunked", 501),
        ("identity, chunked", 501),
        ("x , y\t,chunked", 501),
    ],
)
def test_faulty_codings_are_refused(value: str, status: int) -> None:
    headers = Headers([("Transfer-Encoding", value)])
    with pytest.raises(BadRequest) as caught:
        request_framing((1, 1), headers)
    assert caught.value.status == status
    with pytest.raises(BadResponse):
        response_framing(ResponseHead(200, "", (1, 1), headers), "GET")


@pytest.mark.parametrize("values", [("chunked", "chunked"), ("chunked", "identity"), ("", "chunked")])
def test_repeated_transfer_encoding_is_refused(values: tuple[str, str]) -> None:
    with pytest.raises(BadRequest) as caught:
        request_framing((1, 1), Headers([("Transfer-Encoding", value) for value in values]))
    assert caught.value.status == 400


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    headers = Headers([("Transfer-Encoding", "chunked")])
    with pytest.raises(BadRequest, match=r"HTTP/1\.0"):
        request_framing((1, 0), headers)
    with pytest.raises(BadResponse):
        response_framing(ResponseHead(200, "", (1, 0), headers), "GET")


def test_has_body() -> None:
    assert not NO_BODY.has_body
    assert not length(0).has_body
    assert length(1).has_body
    assert CHUNKED.has_body
    assert UNTIL_CLOSE.has_body


@pytest.mark.parametrize(
    ("status", "method", "fields", "expected"),
    [
        (200, "GET", [], UNTIL_CLOSE),
        (200, "GET", [("Content-Length", "5")], length(5)),
        (200, "GET", [("Transfer-Encoding", "chunked")], CHUNKED),
        (404, "POST", [("Content-Length", "0")], length(0)),
        # RFC 9112 section 6.3 item 1.
        (200, "HEAD", [("Content-Length", "5")], NO_BODY),
        (200, "HEAD", [("Transfer-Encoding", "chunked")], NO_BODY),
        (200, "HEAD", [], NO_BODY),
        (204, "GET", [("Content-Length", "5")], NO_BODY),
        (304, "GET", [("Content-Length", "5")], NO_BODY),
        (100, "POST", [], NO_BODY),
        (101, "GET", [], NO_BODY),
        (103, "GET", [("Content-Length", "5")], NO_BODY),
        (205, "GET", [("Content-Length", "0")], length(0)),
    ],
)
def test_responses(status: int, method: str, fields: list[Field], expected: Framing) -> None:
    head = ResponseHead(status, "", (1, 1), Headers(fields))
    assert response_framing(head, method) == expected
    assert response_body(head, method).framing == expected


def test_ambiguous_framing_is_refused_even_without_a_body() -> None:
    head = ResponseHead(304, "", (1, 1), Headers([("Content-Length", "5"), ("Transfer-Encoding", "chunked")]))
    with pytest.raises(BadResponse):
        response_framing(head, "GET")


def test_a_parsed_request_knows_its_framing() -> None:
    head = parse_request_head(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
    assert head.framing == length(3)
    assert request_body(head).framing == length(3)
