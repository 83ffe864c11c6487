from __future__ import annotations

import contextlib
import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http import strategies
from trio_wsb.errors import BadRequest, BadResponse, HTTPError
from trio_wsb.http.head import (
    HeadLimits,
    parse_request_head,
    parse_response_head,
    serialise_response,
    split_authority,
)
from trio_wsb.http.headers import Field, Headers


def status_of(data: bytes) -> int:
    with pytest.raises(BadRequest) as caught:
        parse_request_head(data)
    return caught.value.status


def reason_of(data: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        parse_request_head(data)
    return caught.value.reason


def with_target(target: str, host: str = "example.com", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")


def with_field(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\nX-Last: 1\r\n\r\n"


def test_a_request() -> None:
    head = parse_request_head(
        b"GET /chat%20room/?a=1?b HTTP/1.1\r\nhOST: Example.COM.:8080\r\nX-Empty:\r\nX-Pad: \t a \xe9 b\t \r\n\r\n"
    )
    assert head.method == "GET"
    assert head.target == "/chat%20room/?a=1?b"
    assert head.path == "/chat%20room/"
    assert head.query == "a=1?b"
    assert head.version == (1, 1)
    assert head.authority == "Example.COM.:8080"
    assert head.host == "example.com"
    assert list(head.headers) == [("hOST", "Example.COM.:8080"), ("X-Empty", ""), ("X-Pad", "a \xe9 b")]
    assert head.keep_alive


# Request line: RFC 9112 section 3.


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET /", 400),  # HTTP/0.9
        (b"GET / ", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\x0b HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /#fragment HTTP/1.1", 400),
        (b"GET /a\rb HTTP/1.1", 400),
        (b"G\xc9T / HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"GET: / HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1.1", 400),
        (b"GET / HTTP/01.1", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/1,1", 400),
        (b"GET / HTTP/1.\xb2", 400),
        (b"GET / XTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/3.0", 505),
    ],
)
def test_faulty_request_lines(line: bytes, status: int) -> None:
    assert status_of(line + b"\r\nHost: h\r\n\r\n") == status


def test_a_fragment_is_named() -> None:
    assert reason_of(with_target("/a#b")) == "a fragment in the request target"


def test_connect_is_not_implemented() -> None:
    # RFC 9110 section 9.1.
    assert status_of(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n") == 501


# Request target: RFC 9112 section 3.2.


@pytest.mark.parametrize(
    ("target", "host", "origin_form"),
    [
        ("http://example.com/a?b", "example.com", "/a?b"),
        ("http://example.com", "example.com", "/"),
        ("http://example.com?x=1", "example.com", "/?x=1"),
        ("http://example.com/?", "example.com", "/?"),
        ("HTTP://EXAMPLE.com/", "Example.com.", "/"),
        ("http://example.com:80/", "example.com", "/"),
        ("https://example.com/", "example.com:443", "/"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ("http://example.com//a//b", "example.com", "//a//b"),
    ],
)
def test_absolute_form_becomes_origin_form(target: str, host: str, origin_form: str) -> None:
    head = parse_request_head(with_target(target, host))
    assert head.target == origin_form
    assert head.path + ("?" + head.query if "?" in origin_form else "") == origin_form
    assert head.authority == host


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://evil.example/", "example.com"),
        ("http://example.com:8080/", "example.com"),
        ("http://example.com/", "example.com:8080"),
        ("http://example.com/", "example.com:443"),
        ("https://example.com/", "example.com:80"),
        ("http://user@example.com/", "example.com"),
        ("http://example.com@evil.example/", "example.com"),
        ("http:///", "example.com"),
        ("http://", "example.com"),
        ("http:/example.com/", "example.com"),
        ("ftp://example.com/", "example.com"),
        ("ws://example.com/", "example.com"),
        ("example.com/", "example.com"),
        ("example.com:80", "example.com"),
        ("?a", "example.com"),
        ("*a", "example.com"),
        ("\\a", "example.com"),
    ],
)
def test_other_targets_are_refused(target: str, host: str) -> None:
    assert status_of(with_target(target, host)) == 400


def test_absolute_form_without_host_in_http_1_0() -> None:
    head = parse_request_head(b"GET http://Example.com:81/x HTTP/1.0\r\n\r\n")
    assert (head.target, head.authority, head.host) == ("/x", "Example.com:81", "example.com")


def test_asterisk_form_is_for_options() -> None:
    # RFC 9112 section 3.2.4.
    assert parse_request_head(with_target("*", method="OPTIONS")).target == "*"
    assert parse_request_head(with_target("http://example.com", method="OPTIONS")).target == "*"
    assert parse_request_head(with_target("http://example.com/", method="OPTIONS")).target == "/"
    assert status_of(with_target("*")) == 400


# Host: RFC 9112 section 3.2, RFC 9110 section 7.2.


def test_repeated_or_absent_host() -> None:
    assert reason_of(b"GET / HTTP/1.1\r\n\r\n") == "no Host"
    assert reason_of(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n") == "repeated Host"
    assert reason_of(b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n") == "repeated Host"
    head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.authority, head.host) == ("", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("example.com", ("example.com", None)),
        ("EXAMPLE.com.", ("example.com", None)),
        ("example.com:8080", ("example.com", 8080)),
        ("example.com:", ("example.com", None)),
        ("my_service:80", ("my_service", 80)),
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("[::1]", ("::1", None)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_split_authority(value: str, expected: tuple[str, int | None]) -> None:
    assert split_authority(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":80",
        "a b",
        "a,b",
        "a:b",
        "a:80:80",
        "a:65536",
        "a:123456",
        "a:-1",
        "a:+1",
        "a:\xb2",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[1.2.3.4]",
        "[fe80::1%eth0]",
        "[example.com]",
        "1.2.3",
        "300.1.1.1",
        "a/b",
        "a?b",
        "a#b",
        "user@a",
        "a\\b",
        "a%00",
        "a..b",
        ".a",
        "-a",
        "a" * 64,
        "a." * 127 + "a",
        "\xe9.example",
        "a\tb",
        "http://a",
    ],
)
def test_malformed_host(value: str) -> None:
    assert status_of(f"GET / HTTP/1.1\r\nHost: {value}\r\n\r\n".encode("latin-1")) == 400


# Fields: RFC 9112 section 5.


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"X: a\r\n b", "obsolete line folding"),
        (b"X: a\r\n\tb", "obsolete line folding"),
        (b"Transfer-Encoding:\r\n chunked", "obsolete line folding"),
        (b"Transfer-Encoding : chunked", "whitespace before a colon"),
        (b"Transfer-Encoding\t: chunked", "whitespace before a colon"),
        (b"X Y: a", "an invalid character in a header field"),
        (b": a", "an empty field name"),
        (b"no colon", "a header line without a colon"),
        (b"X: a\nY: b", "bare LF in the head"),
        (b"X: a\n\nGET /evil HTTP/1.1", "bare LF in the head"),
        (b"X: a\rY: b", "bare CR in the head"),
        (b"X: a\r\r", "bare CR in the head"),
        (b"\rX: a", "bare CR in the head"),
        (b"X: a\0b", "an invalid character in a header field"),
        (b"X: a\x08", "an invalid character in a header field"),
        (b"X: a\x1b[2J", "an invalid character in a header field"),
        (b"X: a\x7f", "an invalid character in a header field"),
        (b"Transfer-Encoding: \x0bchunked", "an invalid character in a header field"),
        (b"Transfer-Encoding: chunked\x0c", "an invalid character in a header field"),
        (b"X\0: a", "an invalid character in a header field"),
        (b"X\xe9: a", "an invalid character in a header field"),
        (b"(X): a", "an invalid character in a header field"),
        (b'"X": a', "an invalid character in a header field"),
        (b"X;Y: a", "an invalid character in a header field"),
        (b"\xef\xbb\xbfX: a", "an invalid character in a header field"),
        (b"X: a\r\n", "bytes after the head"),
    ],
)
def test_faulty_fields(line: bytes, reason: str) -> None:
    assert reason_of(with_field(line)) == reason
    # The same fault in a response is the backend's.
    with pytest.raises(BadResponse, match=reason):
        parse_response_head(b"HTTP/1.1 200 OK\r\nX: 1\r\n" + line + b"\r\nX-Last: 1\r\n\r\n")


def test_whitespace_before_the_first_field() -> None:
    # RFC 9112 section 2.2.
    data = b"GET / HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n"
    assert reason_of(data) == "whitespace before the first field"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"X:a", "X", "a"),
        (b"X: \t a \t ", "X", "a"),
        (b"X:", "X", ""),
        (b"X:  ", "X", ""),
        (b"X: a\tb", "X", "a\tb"),
        (b"X: a: b", "X", "a: b"),
        (b"X: \x80\xff", "X", "\x80\xff"),
        (b"!#$%&'*+-.^_`|~09: 1", "!#$%&'*+-.^_`|~09", "1"),
    ],
)
def test_unusual_but_honest_fields(line: bytes, name: str, value: str) -> None:
    assert list(parse_request_head(with_field(line)).headers)[1] == (name, value)


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n", b"GET / HTTP/1.1\r\nHost: h", b"\r\n\r\n"],
)
def test_incomplete_heads(data: bytes) -> None:
    assert status_of(data) == 400


# Limits.


def test_request_line_limit() -> None:
    longest = b"GET /" + b"a" * (8192 - len(b"GET / HTTP/1.1\r\n")) + b" HTTP/1.1\r\n"
    assert len(longest) == 8192
    assert len(parse_request_head(longest + b"Host: h\r\n\r\n").target) > 8000
    assert status_of(longest.replace(b"/a", b"/aa") + b"Host: h\r\n\r\n") == 414
    assert status_of(b"a" * 9000) == 414
    assert status_of(b"a" * 9000 + b"\r\n\r\n") == 414


def test_head_limit() -> None:
    start = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
    fits = start + b"a" * (65536 - len(start) - 4) + b"\r\n\r\n"
    assert len(fits) == 65536
    assert len(parse_request_head(fits).headers) == 2
    assert status_of(fits.replace(b": a", b": aa", 1)) == 431
    assert status_of(start + b"a" * 100_000 + b"\r\n\r\n") == 431


def test_field_limit() -> None:
    start = b"GET / HTTP/1.1\r\nHost: h\r\n"
    assert len(parse_request_head(start + b"X: 1\r\n" * 99 + b"\r\n").headers) == 100
    assert status_of(start + b"X: 1\r\n" * 100 + b"\r\n") == 431


def test_limits_are_an_argument() -> None:
    limits = HeadLimits(line=20, head=60, fields=2)
    assert parse_request_head(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", limits).host == "h"
    for data, status in [
        (b"GET /aaaaaaaa HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 40 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX:\r\nY:\r\n\r\n", 431),
    ]:
        with pytest.raises(BadRequest) as caught:
            parse_request_head(data, limits)
        assert caught.value.status == status


# Connection management: RFC 9112 section 9.3, RFC 9110 section 10.1.1.


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        ("1.1", "", True),
        ("1.1", "keep-alive", True),
        ("1.1", "Close", False),
        ("1.1", "x, close", False),
        ("1.0", "", False),
        ("1.0", "keep-alive", False),
    ],
)
def test_keep_alive(version: str, connection: str, expected: bool) -> None:
    data = f"GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n".encode()
    assert parse_request_head(data).keep_alive is expected


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n", True),
        ("1.1", "expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", True),
        ("1.1", "Expect: 100-continue\r\n", False),
        ("1.1", "Content-Length: 5\r\n", False),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", False),
    ],
)
def test_expects_continue(version: str, fields: str, expected: bool) -> None:
    data = f"POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n".encode()
    assert parse_request_head(data).expects_continue is expected


# Responses: RFC 9112 section 4.


@pytest.mark.parametrize(
    ("line", "status", "reason", "version"),
    [
        (b"HTTP/1.1 200 OK", 200, "OK", (1, 1)),
        (b"HTTP/1.1 200 ", 200, "", (1, 1)),
        (b"HTTP/1.1 200", 200, "", (1, 1)),
        (b"HTTP/1.0 404 Not\tFound  here", 404, "Not\tFound  here", (1, 0)),
        (b"HTTP/1.1 101 Switching Protocols", 101, "Switching Protocols", (1, 1)),
        (b"HTTP/1.1 999 \xe9", 999, "\xe9", (1, 1)),
    ],
)
def test_status_lines(line: bytes, status: int, reason: str, version: tuple[int, int]) -> None:
    head = parse_response_head(line + b"\r\nServer: x\r\n\r\n")
    assert (head.status, head.reason, head.version) == (status, reason, version)
    assert list(head.headers) == [("Server", "x")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 099",
        b"HTTP/1.1 +20",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1\t200 OK",
        b"http/1.1 200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/0.9 200 OK",
        b"ICY 200 OK",
        b"\r\nHTTP/1.1 200 OK",
    ],
)
def test_faulty_status_lines(line: bytes) -> None:
    with pytest.raises(BadResponse) as caught:
        parse_response_head(line + b"\r\nServer: x\r\n\r\n")
    assert caught.value.status == 502


def test_response_limits() -> None:
    start = b"HTTP/1.1 200 OK\r\n"
    assert len(parse_response_head(start + b"X: 1\r\n" * 200 + b"\r\n").headers) == 200
    for data in [
        start + b"X: 1\r\n" * 201 + b"\r\n",
        start + b"X: " + b"a" * 65536 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 8192 + b"\r\n\r\n",
    ]:
        with pytest.raises(BadResponse):
            parse_response_head(data)


# Serialising.


def test_serialise_response() -> None:
    fields: list[Field] = [("Server", "x")]
    assert serialise_response(404, fields) == b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n"
    assert serialise_response(404, Headers(fields), "Gone fishing").startswith(
        b"HTTP/1.1 404 Gone fishing\r\n"
    )
    assert serialise_response(799, [], "") == b"HTTP/1.1 799 \r\n\r\n"
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        serialise_response(200, [], "OK\r\nX: y")


# Properties.


def reads_as_h11_does(data: bytes) -> None:
    ours = parse_request_head(data)
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == ours.method
    assert event.target.decode() == ours.target
    assert [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()
    ] == list(ours.headers)


@given(strategies.request_heads())
def test_valid_requests_read_as_h11_reads_them(data: bytes) -> None:
    reads_as_h11_does(data)


@given(strategies.response_heads())
def test_responses_parse_back(data: bytes) -> None:
    head = parse_response_head(data)
    again = parse_response_head(serialise_response(head.status, head.headers, head.reason))
    assert again.status == head.status
    assert again.reason == head.reason
    assert again.headers == head.headers


@given(st.binary(max_size=300) | st.text("GET /HTP1.\r\n: \tabHost", max_size=200).map(str.encode))
def test_garbage_raises_nothing_but_http_errors(data: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        with contextlib.suppress(HTTPError):
            parse(data)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_is_refused_or_read_as_h11_reads_it(data: st.DataObject) -> None:
    """Whatever we accept, a strict parser accepts too and reads the same."""
    head = bytearray(data.draw(strategies.request_heads()))
    place = data.draw(st.integers(0, len(head) - 1))
    head[place] = data.draw(st.sampled_from(b"\0\t\n\r :;,#\x0b\x7f\xe9aZ0/?*."))
    try:
        parse_request_head(bytes(head))
    except BadRequest:
        return
    if head.split(b" ", 2)[1].startswith(b"/"):
        reads_as_h11_does(bytes(head))


_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")

odd_lines = st.text("aB-:; \t\r\n\0\x7f\xe9", max_size=12)


@given(st.lists(odd_lines, max_size=5))
def test_a_head_is_what_it_is_line_by_line(lines: list[str]) -> None:
    text = "\r\n".join(["GET / HTTP/1.1", "Host: h", *lines, "", ""])
    expected: list[Field] | None = []
    for line in text.removesuffix("\r\n\r\n").split("\r\n")[1:]:
        match = _LINE.fullmatch(line)
        if match is None or expected is None:
            expected = None
            break
        expected.append((match[1], match[2].rstrip(" \t")))
    try:
        found = list(parse_request_head(text.encode("latin-1")).headers)
    except BadRequest:
        assert expected is None
    else:
        assert found == expected
