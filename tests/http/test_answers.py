from __future__ import annotations

import h11
import pytest

from trio_wsb.http.answers import (
    NO_SERVER,
    NOT_FOUND,
    content_size,
    error_response,
    framed_response,
    json_response,
    text_response,
)


def test_an_error() -> None:
    assert error_response(503, NO_SERVER, [("Retry-After", "1")]) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"Content-Length: 20\r\n"
        b"Retry-After: 1\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"no available server\n"
    )


def test_an_answer_to_head_has_no_body() -> None:
    whole, head = error_response(404, NOT_FOUND), error_response(404, NOT_FOUND, head_only=True)
    assert whole == head + b"404 page not found\n"


def test_an_answer_that_keeps_the_connection() -> None:
    data = text_response(200, "OK", close=False, date=784111777.0)
    assert data.startswith(b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
    assert b"Connection" not in data


@pytest.mark.parametrize("status", [400, 404, 408, 414, 426, 431, 499, 501, 502, 503, 504, 505])
def test_h11_understands_it(status: int) -> None:
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(error_response(status, "why \xe9"))
    response, data, end = peer.next_event(), peer.next_event(), peer.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    assert isinstance(data, h11.Data)
    assert data.data.decode() == "why \xe9\n"
    assert isinstance(end, h11.EndOfMessage)


def test_a_field_cannot_split_it() -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        error_response(400, "bad", [("X", "a\r\nSet-Cookie: b")])


def test_a_document() -> None:
    assert json_response(200, {"a": [1, None]}, close=False) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: application/json\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"Content-Length: 17\r\n"
        b"Cache-Control: no-store\r\n"
        b"\r\n"
        b'{"a": [1, null]}\n'
    )


def test_a_number_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_response(200, {"load": float("inf")})


def test_the_fields_of_somebody_else_with_our_framing() -> None:
    fields = [("Location", "https://chat.example/"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
    whole = framed_response(302, fields, b"there", date=0.0)
    assert whole == (
        b"HTTP/1.1 302 Found\r\n"
        b"Location: https://chat.example/\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Length: 5\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"there"
    )
    assert content_size(whole) == 5
    head = framed_response(302, fields, b"there", head_only=True, close=False)
    assert b"Content-Length: 5\r\n" in head
    assert b"Connection" not in head
    assert content_size(head) == 0
