"""The control socket: HTTP/1.1 with JSON over a Unix socket, so that curl is a client too.

One request for each connection. Everything is bounded: connections, the size of a request, the time it takes. Who may
connect is said by the permissions of the socket, and whoever may, may do everything.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
import trio
from attrs import frozen

from trio_wsb.errors import BadRequest, HTTPError
from trio_wsb.http.answers import json_response
from trio_wsb.http.body import request_body
from trio_wsb.http.head import RequestHead
from trio_wsb.http.reader import RequestReader
from trio_wsb.net.channel import linger, receive_some, send_all
from trio_wsb.net.listener import accept_forever
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.net.unix import UnixListener, peer_credentials

log = structlog.stdlib.get_logger("trio_wsb.control")

MAX_CONNECTIONS: Final = 16
"""Connections served at once; one more is answered 503."""

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body."""

REQUEST_TIMEOUT: Final = 10.0
"""Seconds for a whole request to arrive, and as many for its answer to be taken."""

HANDLING_TIMEOUT: Final = 60.0
"""Seconds for a request to be carried out; what has begun goes on after them."""

LINGER_TIMEOUT: Final = 2.0
_CHUNK: Final = 65536


@frozen
class ControlRequest:
    """A request: the parameters of its query, and the JSON object in its body, empty without one."""

    query: Mapping[str, str]
    document: Mapping[str, Any]


@frozen
class ControlAnswer:
    """An answer: `document` becomes JSON."""

    status: int
    document: object


Handler = Callable[[ControlRequest], Awaitable[ControlAnswer]]
"""Carries a request out; raises HTTPError for one that it refuses."""

Routes = Mapping[tuple[str, str], Handler]
"""Handlers by method and path."""


class ControlServer:
    """Serves the requests of a control socket from a table of handlers."""

    def __init__(self, routes: Routes) -> None:
        self._routes = dict(routes)
        self._paths = {path for _, path in self._routes}
        self._open = 0

    async def serve(self, listener: UnixListener) -> None:
        """Accept connections until cancelled; the listener is closed then."""
        try:
            async with trio.open_nursery() as nursery:
                await accept_forever(
                    listener.sock,
                    lambda: "control",
                    lambda sock, _: self._accepted(nursery, sock),
                    clients=False,
                )
        finally:
            listener.close()

    def _accepted(self, nursery: trio.Nursery, sock: socket.socket) -> None:
        if self._open >= MAX_CONNECTIONS:
            with sock:
                try:
                    # It fits any socket buffer, and there is no task for it: that is the bound.
                    sock.send(_refusal(HTTPError(503, "too many control connections"), head_only=False))
                except OSError:
                    pass
            return
        self._open += 1
        nursery.start_soon(self._serve_connection, sock)

    async def _serve_connection(self, sock: socket.socket) -> None:
        channel = SocketChannel(sock)
        try:
            answer = await self._answer(sock, channel)
            if answer:
                with trio.move_on_after(REQUEST_TIMEOUT):
                    await send_all(channel, answer)
                scratch = bytearray(_CHUNK)
                await linger(channel, scratch, seconds=LINGER_TIMEOUT, limit=MAX_BODY)
        except OSError:
            pass  # the client went away
        finally:
            channel.close()
            self._open -= 1

    async def _answer(self, sock: socket.socket, channel: SocketChannel) -> bytes:
        """Return the whole answer, empty when the client left without a request."""
        head: RequestHead | None = None
        try:
            with trio.move_on_after(REQUEST_TIMEOUT) as receiving:
                reader = RequestReader()
                head = await _receive_head(channel, reader)
                if head is None:
                    return b""
                body = await _receive_body(channel, reader, head)
            if receiving.cancelled_caught:
                raise BadRequest(408, "the request did not come in time")
            assert head is not None
            return await self._handle(sock, head, body)
        except HTTPError as error:
            return _refusal(error, head_only=head is not None and head.method == "HEAD")

    async def _handle(self, sock: socket.socket, head: RequestHead, body: bytes) -> bytes:
        handler = self._route(head)
        request = ControlRequest(_query(head.query), _document(body))
        if head.method not in {"GET", "HEAD"}:
            peer = peer_credentials(sock)
            log.info("control request", method=head.method, path=head.path, uid=peer.uid, pid=peer.pid)
        try:
            with trio.fail_after(HANDLING_TIMEOUT):
                answer = await handler(request)
            return json_response(answer.status, answer.document, head_only=head.method == "HEAD")
        except trio.TooSlowError:
            raise HTTPError(504, "not finished yet; what was asked for goes on, the log will tell") from None
        except HTTPError:
            raise
        except Exception as error:
            # A fault in a view must not end the daemon that it looks at.
            log.exception("internal error", path=head.path)
            raise HTTPError(500, "internal error; the log has more") from error

    def _route(self, head: RequestHead) -> Handler:
        method = "GET" if head.method == "HEAD" else head.method
        handler = self._routes.get((method, head.path))
        if handler is not None:
            return handler
        if head.path not in self._paths:
            known = ", ".join(sorted(self._paths))
            raise HTTPError(404, f"there is no such path; there are {known}")
        allowed = ", ".join(sorted(method for method, path in self._routes if path == head.path))
        raise HTTPError(405, f"the method must be {allowed}", (("Allow", allowed),))


async def _receive_head(channel: SocketChannel, reader: RequestReader) -> RequestHead | None:
    scratch = memoryview(bytearray(_CHUNK))
    while (head := reader.next_head()) is None:
        received = await receive_some(channel, scratch)
        if not received:
            return None
        reader.feed(scratch[:received])
    return head


async def _receive_body(channel: SocketChannel, reader: RequestReader, head: RequestHead) -> bytes:
    if head.framing.length > MAX_BODY:
        raise _too_large()
    if head.expects_continue:
        await send_all(channel, b"HTTP/1.1 100 Continue\r\n\r\n")
    scanner = request_body(head)
    scratch = memoryview(bytearray(_CHUNK))
    data, body = memoryview(reader.take_rest()), bytearray()
    while True:
        for piece in scanner.feed_data(data)[1]:
            body += piece
        if len(body) > MAX_BODY:
            raise _too_large()
        if scanner.done:
            return bytes(body)
        received = await receive_some(channel, scratch)
        if not received:
            raise BadRequest(400, "the request's body was cut off")
        data = scratch[:received]


def _too_large() -> BadRequest:
    return BadRequest(413, f"the request's body is over {MAX_BODY // 1024} KiB")


def _query(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=20
        )
    except ValueError as error:
        raise BadRequest(400, "the query is malformed") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise BadRequest(400, "a parameter is there twice")
    return parameters


def _document(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, "the body is no JSON") from error
    if not isinstance(document, dict):
        raise BadRequest(400, "the body is no JSON object")
    return document


def _refusal(error: HTTPError, *, head_only: bool) -> bytes:
    return json_response(error.status, {"error": error.reason}, error.headers, head_only=head_only)
