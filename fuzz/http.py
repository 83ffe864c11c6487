"""HTTP from peers: heads and bodies.

The promises: the same verdict however the bytes are cut up; what is accepted, another strict parser (h11) reads as we do;
what we send on of it is accepted by ourselves, says the same, and has nothing of it that a stranger may not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import h11

from trio_wsb.errors import HTTPError
from trio_wsb.http.accept import prefers_html
from trio_wsb.http.body import BodyScanner, request_body, response_body
from trio_wsb.http.cookies import StickyCookie
from trio_wsb.http.forward import ForwardPolicy, downstream_framing, downstream_head, upstream_head
from trio_wsb.http.framing import CHUNKED, FramingKind
from trio_wsb.http.head import RequestHead, ResponseHead, parse_request_head, parse_response_head
from trio_wsb.http.reader import RequestReader, ResponseReader
from trio_wsb.middleware.compress import accepts_gzip
from trio_wsb.routing.request import RequestView
from trio_wsb.websocket.handshake import check_answer, check_request, is_upgrade, offered_protocols

CLIENT = IPv4Address("192.0.2.7")
STICKY = StickyCookie("lb")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """Yield `data` cut up: `seed` 0 into bytes, else into pieces of changing sizes."""
    at, size = 0, seed
    while at < len(data):
        size = (size * 31 + 7) % 61 if seed else 1
        yield data[at : at + max(1, size)]
        at += max(1, size)


def _heads(
    reader: RequestReader | ResponseReader, parts: Iterator[bytes]
) -> tuple[list[RequestHead | ResponseHead], int, bytes]:
    """Return the heads until the first error, the status of that (0 without), and what is left without one."""
    heads: list[RequestHead | ResponseHead] = []
    try:
        for part in parts:
            reader.feed(part)
            while (head := reader.next_head()) is not None:
                heads.append(head)
    except HTTPError as error:
        return heads, error.status, b""
    return heads, 0, reader.take_rest()


def request_head(data: bytes) -> None:
    """Heads of requests, one after another."""
    seed, data = data[0] if data else 0, data[1:]
    # Bodies are another target's: here what follows a head is read as another one.
    whole, status, rest = _heads(RequestReader(), iter([data]))
    cut, cut_status, cut_rest = _heads(RequestReader(), pieces(data, seed))
    assert whole == cut, "heads depend on how the bytes are cut up"
    # Which of two faults is seen first may depend on the cuts; whether there is one may not.
    assert bool(status) == bool(cut_status), "a refusal depends on how the bytes are cut up"
    assert rest == cut_rest, "what is left depends on how the bytes are cut up"
    for head in whole:
        assert isinstance(head, RequestHead)
        _check_request(head)


def _check_request(head: RequestHead) -> None:
    upgrade = is_upgrade(head)
    if upgrade:
        try:
            check_request(head)
        except HTTPError:
            return
        offered_protocols(head)
    RequestView.of_request(head, CLIENT).parameter("a")
    STICKY.find(head.headers)
    prefers_html(head.headers)
    accepts_gzip(head.headers)
    sent = upstream_head(
        head,
        upgrade=upgrade,
        policy=ForwardPolicy(),
        peer=CLIENT,
        entry_scheme="http",
        entry_port=80,
        server_name="us",
    )
    if (
        not head.authority
    ):  # of HTTP/1.0; we send an empty Host on, as RFC 9112 section 3.2 says, and take none
        return
    again = parse_request_head(sent)
    assert (again.method, again.target, again.framing) == (head.method, head.target, head.framing)
    assert is_upgrade(again) is upgrade
    assert again.headers.get_all("x-forwarded-for") == [str(CLIENT)]
    assert again.headers.get_all("x-forwarded-server") == ["us"]
    assert again.headers.get_all("x-real-ip") == [str(CLIENT)]
    assert again.headers.get_all("connection") == ["Upgrade" if upgrade else "close"]
    for gone in ("x_forwarded_for", "forwarded", "proxy", "keep-alive", "te", "trailer", "proxy-connection"):
        assert gone not in again.headers, f"{gone} went on to the backend"
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    theirs.receive_data(sent)
    event = theirs.next_event()
    assert isinstance(event, h11.Request), "h11 does not read what we send on"
    assert (event.method.decode(), event.target.decode()) == (head.method, head.target)
    body = theirs.next_event()
    ended = isinstance(body, h11.EndOfMessage)
    assert ended is not head.framing.has_body, "h11 sees another framing"


def response_head(data: bytes) -> None:
    """Heads of responses, those to an upgrade too."""
    seed, data = data[0] if data else 0, data[1:]
    whole, status, rest = _heads(ResponseReader(), iter([data]))
    cut, cut_status, cut_rest = _heads(ResponseReader(), pieces(data, seed))
    assert (whole, bool(status), rest) == (cut, bool(cut_status), cut_rest), (
        "depends on how the bytes are cut up"
    )
    for head in whole:
        assert isinstance(head, ResponseHead)
        try:
            check_answer(head, KEY, ["chat"])
        except HTTPError:
            pass
        try:
            framing = response_body(head, "GET").framing
        except HTTPError:
            continue
        sent = downstream_head(
            head, upgrade=False, framing=downstream_framing(framing, (1, 1)), keep_alive=True
        )
        again = parse_response_head(sent)
        assert (again.status, again.reason) == (head.status, head.reason)
        if head.status >= 200:
            assert response_body(again, "GET").framing == framing


def _consume(scanner: BodyScanner, parts: Iterator[bytes]) -> tuple[bytes, bytes, bool]:
    """Return the payload, what came behind the body, and whether it is wrong."""
    payload, rest = bytearray(), bytearray()
    try:
        for part in parts:
            used, slices = scanner.feed_data(part)
            for piece in slices:
                payload += piece
            rest += part[used:]
    except HTTPError:
        return bytes(payload), b"", True
    return bytes(payload), bytes(rest), False


def chunked_body(data: bytes) -> None:
    """A chunked body and what follows it."""
    seed, data = data[0] if data else 0, data[1:]
    scanner, other = BodyScanner(CHUNKED, "request"), BodyScanner(CHUNKED, "request")
    payload, rest, wrong = _consume(scanner, iter([data]))
    cut_payload, cut_rest, cut_wrong = _consume(other, pieces(data, seed))
    assert wrong is cut_wrong, "the verdict depends on how the bytes are cut up"
    if wrong:
        return
    assert (payload, rest, scanner.done, scanner.content) == (cut_payload, cut_rest, other.done, len(payload))
    if not scanner.done:
        return
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    theirs.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    theirs.next_event()
    seen = bytearray()
    while isinstance(event := theirs.next_event(), h11.Data):
        seen += event.data
    assert isinstance(event, h11.EndOfMessage), "h11 sees no end"
    assert bytes(seen) == payload, "h11 sees another body"
    assert theirs.trailing_data[0] == rest, "h11 sees the end elsewhere"


def request(data: bytes) -> None:
    """A whole request with its body, against the framing that h11 sees in the very same bytes."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return
    try:
        head = parse_request_head(data[:end])
        scanner = request_body(head)
        payload, _, wrong = _consume(scanner, iter([data[end:]]))
    except HTTPError:
        return
    if wrong or not scanner.done or head.version < (1, 1):
        return
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    theirs.receive_data(data)
    try:
        first = theirs.next_event()
        seen = bytearray()
        while isinstance(event := theirs.next_event(), h11.Data):
            seen += event.data
    except h11.RemoteProtocolError:
        return  # it refuses what we take: nothing can be smuggled past it
    if not isinstance(first, h11.Request):
        return
    assert isinstance(event, h11.EndOfMessage)
    assert bytes(seen) == payload, "h11 sees another body"
    assert head.framing.kind is not FramingKind.UNTIL_CLOSE


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request_head": request_head,
    "response_head": response_head,
    "chunked_body": chunked_body,
    "request": request,
}
