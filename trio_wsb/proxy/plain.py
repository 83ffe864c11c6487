"""Plain requests: what is no upgrade is proxied too, streamed in both directions in constant memory.

Each request gets a backend connection of its own, which is never used again: what cannot be shared cannot be
smuggled into.
"""

from __future__ import annotations

import math

import trio
from attrs import evolve

from trio_wsb.balancing.backend import Backend
from trio_wsb.errors import BadRequest, BadResponse, Error, HTTPError
from trio_wsb.http.body import BodyScanner, request_body, response_body
from trio_wsb.http.forward import downstream_framing, downstream_head
from trio_wsb.http.framing import CHUNKED, NO_BODY, Framing, FramingKind
from trio_wsb.http.head import ResponseHead
from trio_wsb.http.reader import ResponseReader
from trio_wsb.middleware.compress import GzipBody
from trio_wsb.net.channel import ByteChannel, receive_some, send_all, send_shared
from trio_wsb.proxy.client import ClientLeft, beside, to_client, watch_client
from trio_wsb.proxy.mirroring import RequestCopies
from trio_wsb.proxy.request import ProxiedRequest
from trio_wsb.proxy.upstream import MAX_INTERIM, Silence, Tries, log_failure, receive_response_head

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated when it is not known whether they were acted on (RFC 9110 section 9.2.2)."""

BODY_PIECE = 64 * 1024
CHUNKED_PIECE = 16 * 1024
"""Bytes of a body taken in one turn. Thousands of chunks may be in them, and each costs time."""


class ResponseCutOff(Error):
    """The backend broke its response off; the client can only be told by a reset of its connection."""


async def proxy_request(request: ProxiedRequest) -> bool:
    """Answer a plain request from a backend; whether the client's connection can serve another one.

    A backend that cannot be reached is replaced by the next best; one that ends the connection before any
    answer is too, if the request is idempotent and has no body.

    Raises:
      HTTPError: nothing was sent to the client yet; answer with it and close.
      ResponseCutOff: the response broke off; abort the client's connection.
      ClientLeft: the client did.

    """
    head = request.head
    repeatable = head.method in IDEMPOTENT and not head.framing.has_body
    tries = Tries(
        request.proxy.dial,
        request.service,
        request.client,
        request.record,
        request.passage.retry,
        request.sticky,
    )
    copies = RequestCopies(request) if request.mirrors else None
    while True:
        backend, upstream = await tries.connect()
        exchange = _Exchange(request, backend, upstream, copies)
        counted_out = False
        try:
            return await exchange.run()
        except Silence as error:
            counted_out = True
            tries.failed(backend, "the connection ended before an answer")
            if not repeatable:
                raise HTTPError(502, "the backend ended the connection before an answer") from error
        except BadRequest:
            raise  # the client's fault: its body was cut off or is malformed
        except (HTTPError, ResponseCutOff) as error:
            counted_out = True
            reason = error.reason if isinstance(error, HTTPError) else "the response broke off"
            log_failure(request.service.name, backend, reason)
            raise
        finally:
            upstream.close()
            if not (counted_out or exchange.over):
                backend.handshake_ended(trio.current_time() if exchange.answered else None)


class _Exchange:
    """One request and its response over one backend connection."""

    def __init__(
        self,
        request: ProxiedRequest,
        backend: Backend,
        upstream: ByteChannel,
        copies: RequestCopies | None,
    ) -> None:
        self._copies = copies
        self._request = request
        self._backend = backend
        self._upstream = upstream
        self._body_sent = not request.head.framing.has_body
        self._head_scope = trio.CancelScope()
        self.answered = False
        """Whether the backend has given its final answer, as far as its head."""
        self.over = False
        """Whether the client has all of it, and the attempt is counted out for that."""

    async def run(self) -> bool:
        """Send the request and pass the response on, as `proxy_request` says."""
        request, service = self._request, self._request.service
        head = request.head_for(self._backend, service, request.head, upgrade=False)
        try:
            await send_all(self._upstream, head, stall_timeout=service.write_timeout or math.inf)
        except OSError as error:
            raise Silence from error
        # An answer may come before the end of the request (413, say); the rest of the body is not waited for.
        keep_alive = await beside(self._pass_answer_on, self._attend_client)
        return keep_alive and self._body_sent

    async def _pass_answer_on(self) -> bool:
        request = self._request
        reader = ResponseReader()
        answer = None
        with self._head_scope:
            answer = await self._receive_answer(reader)
        if answer is None:
            raise HTTPError(504, "the backend did not answer in time")
        self.answered = True
        request.record.origin_answered(answer.status, answer.headers, trio.current_time())
        # Where a body that nobody wants ends, only its sender could say: no further request can be found then.
        keep_alive = request.head.keep_alive and self._body_sent and not request.proxy.stopping
        keep_alive = await forward_response(request, self._upstream, answer, reader, keep_alive=keep_alive)
        if self._body_sent:  # else the rest of it is still being written to the backend
            self._upstream.close()
            self._backend.handshake_ended(trio.current_time())
            self.over = True
        return keep_alive

    async def _receive_answer(self, reader: ResponseReader) -> ResponseHead:
        """Return the final response head; interim ones are passed on (RFC 9110 section 15.2)."""
        request = self._request
        for count in range(MAX_INTERIM + 1):
            answer = await receive_response_head(self._upstream, reader, request.proxy.scratch)
            if answer.status == 101:
                raise BadResponse("the backend switched protocols without being asked")
            if answer.status >= 200:
                return answer
            if count < MAX_INTERIM and request.head.version >= (1, 1):
                interim = downstream_head(answer, upgrade=False, framing=NO_BODY, keep_alive=True)
                await to_client(request, interim)
        raise BadResponse("too many interim answers")

    def _limit_answer(self) -> None:
        timeout = self._request.service.transport.response_header_timeout
        self._head_scope.deadline = trio.current_time() + (timeout or math.inf)

    async def _attend_client(self) -> Error | None:
        """Pass the request's body on, then watch whether the client stays; what to end the exchange with."""
        if not self._body_sent:
            try:
                await self._send_body()
            except BadRequest as fault:
                # After the head of an answer there is no other way to tell the client than its connection.
                return ClientLeft() if self.answered else fault
            except OSError:
                # The backend takes no more of it; it may have answered all the same (RFC 9112 section 9.5).
                self._limit_answer()
                return None
            self._body_sent = True
        if self._copies is not None:
            self._copies.begin()
        self._limit_answer()
        return await watch_client(self._request)

    async def _send_body(self) -> None:
        request = self._request
        scratch = request.proxy.scratch
        stall_timeout = request.service.write_timeout or math.inf
        body = request_body(request.head)
        data = memoryview(request.reader.take_rest())
        while True:
            size = body.feed(data)
            request.record.bytes_in = body.content
            if body.done:
                # Now, for while the write waits the scratch buffer belongs to others.
                request.reader.feed(data[size:])
            if self._copies is not None:
                self._copies.add(data[:size])
            await send_shared(self._upstream, data[:size], stall_timeout=stall_timeout)
            if body.done:
                return
            await trio.lowlevel.checkpoint()  # its bytes may always be there, and others must have their turn
            data = scratch[: await self._receive_body(_piece(body))]

    async def _receive_body(self, most: int) -> int:
        """Receive up to `most` bytes of the body into the scratch buffer and return how many."""
        request = self._request
        with trio.move_on_after(request.entry.read_timeout or math.inf):
            try:
                received = await receive_some(request.channel, request.proxy.scratch[:most])
            except OSError:
                received = 0
            if not received:
                raise BadRequest(400, "the request's body was cut off")
            return received
        raise BadRequest(408, "the request's body did not come in time")


def _piece(body: BodyScanner) -> int:
    """Return how many bytes of `body` to take in one turn."""
    return CHUNKED_PIECE if body.framing.kind is FramingKind.CHUNKED else BODY_PIECE


async def forward_response(
    request: ProxiedRequest,
    upstream: ByteChannel,
    answer: ResponseHead,
    reader: ResponseReader,
    *,
    keep_alive: bool,
) -> bool:
    """Pass a final response on, head and body; whether the client's connection can serve another request.

    What the middlewares took for the request is given back with the last byte.

    Args:
      request: what it answers.
      upstream: where the body comes from; stays the caller's.
      answer: the response's head.
      reader: holds what came after the head.
      keep_alive: whether another request would be welcome.

    Raises:
      BadResponse: the response's framing is wrong; nothing was sent yet.
      ResponseCutOff: the response broke off; abort the client's connection.
      ClientLeft: the client did.

    """
    head, scratch = request.head, request.proxy.scratch
    body = response_body(answer, head.method)
    answer, gzip = _compressed(request, answer, body)
    framing = downstream_framing(CHUNKED if gzip is not None else body.framing, head.version)
    keep_alive = keep_alive and framing.kind is not FramingKind.UNTIL_CLOSE
    answer = request.answered(answer)
    head_bytes = downstream_head(
        answer, upgrade=False, framing=framing, keep_alive=keep_alive, date=request.proxy.date()
    )
    await to_client(request, head_bytes)
    # Chunks are taken off for a client that does not know them, and for what is coded anew.
    bare = gzip is not None or framing is not body.framing
    record = request.record
    data = memoryview(reader.take_rest())
    try:
        while True:
            if bare:
                _, pieces = body.feed_data(data)
                payload = b"".join(pieces)
                if gzip is not None:
                    payload = gzip.feed(payload, flush=True)
                record.bytes_out += len(payload)
                await to_client(request, payload if gzip is None else _chunk(payload, framing))
            else:
                size = body.feed(data)
                record.bytes_out = body.content
                await to_client(request, data[:size])
            record.origin_bytes = body.content
            if body.done:
                break
            # How long a backend may think between two pieces is its own affair: there are long polls and event streams.
            await trio.lowlevel.checkpoint()
            received = await receive_some(upstream, scratch[: _piece(body)])
            if not received:
                body.finish()
                break
            data = scratch[:received]
    except (HTTPError, OSError) as error:
        raise ResponseCutOff from error
    if gzip is not None:
        payload = gzip.finish()
        record.bytes_out += len(payload)
        await to_client(request, _chunk(payload, framing, last=True))
    # The client may ask again as soon as it has the last byte: what this request took must be free by then, so there is no
    # checkpoint between that byte and here, nor until the caller has counted the attempt out.
    request.passage.remains.end()
    return keep_alive


def _compressed(
    request: ProxiedRequest, answer: ResponseHead, body: BodyScanner
) -> tuple[ResponseHead, GzipBody | None]:
    """Return the head as the compress middleware leaves it, and the coder if the body is to be compressed."""
    compress = request.passage.compress
    if compress is None or body.done:
        return answer, None
    length = body.framing.length if body.framing.kind is FramingKind.LENGTH else None
    decision = compress.decide(request.passage.request, answer, length)
    return evolve(answer, headers=decision.headers), GzipBody() if decision.compress else None


def _chunk(payload: bytes, framing: Framing, *, last: bool = False) -> bytes:
    """Return `payload` as a chunk (RFC 9112 section 7.1), or as it is where the connection's end ends the body."""
    if framing.kind is not FramingKind.CHUNKED:
        return payload
    chunk = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
    return chunk + b"0\r\n\r\n" if last else chunk
