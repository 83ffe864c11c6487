"""Copies of one request: a session's, which gets the client's bytes live, and a plain request's, sent once it is complete.

What a copy's backend answers is read and thrown away. A session's copy exists only as long as its backend has agreed to the same
extensions and the same subprotocol, since the bytes would mean something else otherwise.
"""

from __future__ import annotations

import math
from functools import partial

import trio
from attrs import evolve

from trio_wsb.balancing.backend import Backend
from trio_wsb.errors import DialError, HTTPError
from trio_wsb.http.framing import NO_BODY
from trio_wsb.http.head import RequestHead, ResponseHead
from trio_wsb.http.reader import ResponseReader
from trio_wsb.net.channel import ByteChannel, receive_some, send_all
from trio_wsb.proxy.mirrors import LAST_WORDS, MirrorFeed, TappedChannel
from trio_wsb.proxy.request import ProxiedRequest
from trio_wsb.proxy.services import MirrorTarget, ServiceRuntime
from trio_wsb.proxy.upstream import Silence, log_failure, receive_response_head
from trio_wsb.websocket.handshake import check_answer, offered_protocols

ANSWER_LIMIT = 1 << 20
"""Bytes that are read of the answer to a copy of a plain request."""


def mirror_session(request: ProxiedRequest, answer: ResponseHead, early: bytes) -> ByteChannel:
    """Begin the copies of a session that is about to open; return the channel through which it is to read its client.

    Args:
      request: the handshake; its channel belongs to what is returned.
      answer: the 101 of the session's own backend.
      early: what the client has sent behind the handshake.

    """
    feeds: list[MirrorFeed] = []
    for target in request.mirrors:
        feed = MirrorFeed()
        work = partial(_copy_session, request, target.service, answer, feed)
        if request.proxy.mirrors.begin(target.service.name, work):
            feed.give(early)
            feeds.append(feed)
    return TappedChannel(request.channel, feeds) if feeds else request.channel


class RequestCopies:
    """The copies of one plain request: holds its body, as it is framed, until all of it is there."""

    def __init__(self, request: ProxiedRequest) -> None:
        self._request = request
        self._left = list(request.mirrors)
        self._most = max((target.max_body or 0 for target in self._left), default=0)
        self._body = bytearray()

    def add(self, data: memoryview) -> None:
        """Hold a part of the body. Those copies for which it is too long are not made."""
        if not self._left:
            return
        size = len(self._body) + len(data)
        for target in [each for each in self._left if each.max_body is not None and size > each.max_body]:
            self._left.remove(target)
            self._request.proxy.mirrors.dropped_total["body too long"] += 1
        if size <= self._most:
            self._body += data
        else:
            self._body.clear()

    def begin(self) -> None:
        """Send what is to be sent: the body is complete. Only the first call does."""
        left, self._left = self._left, []
        for target in left:
            work = partial(_copy_request, self._request, target, bytes(self._body))
            self._request.proxy.mirrors.begin(target.service.name, work)


async def _copy_session(
    request: ProxiedRequest, service: ServiceRuntime, answer: ResponseHead, feed: MirrorFeed
) -> str | None:
    with feed.scope:
        reason = await _Copy(request, service, request.head, upgrade=True).run_session(answer, feed)
        feed.drop(reason or "over")
        return reason
    return feed.reason or ("slow" if feed.behind else None)


async def _copy_request(request: ProxiedRequest, target: MirrorTarget, body: bytes) -> str | None:
    head = evolve(request.head, headers=request.head.headers.without({"expect"}))
    if target.max_body is None and head.framing.has_body:
        headers = head.headers.without({"content-length", "transfer-encoding"})
        head, body = evolve(head, headers=headers, framing=NO_BODY), b""
    return await _Copy(request, target.service, head, upgrade=False).run_request(body)


class _Copy:
    """One attempt at one backend; a copy is never tried again."""

    def __init__(
        self, request: ProxiedRequest, service: ServiceRuntime, head: RequestHead, *, upgrade: bool
    ) -> None:
        self._request = request
        self._service = service
        self._head = head
        self._upgrade = upgrade

    async def run_session(self, answer: ResponseHead, feed: MirrorFeed) -> str | None:
        """Open the session and feed it to its end; None or why it was given up."""
        backend = self._choose()
        if backend is None:
            return "no backend"
        mirrors = self._request.proxy.mirrors
        opened_at: float | None = None
        counted_out = False
        channel: ByteChannel | None = None
        try:
            channel = await self._request.proxy.dial(backend.url, self._service.transport)
            reader = ResponseReader()
            own = await self._ask(channel, backend, b"", reader)
            key = self._head.headers.get("sec-websocket-key") or ""
            if own.status == 101:
                check_answer(own, key, offered_protocols(self._head))
            if own.status != 101 or _negotiated(own) != _negotiated(answer):
                counted_out = True
                backend.handshake_ended(trio.current_time())
                return "refused" if own.status != 101 else "negotiated otherwise"
            opened_at = trio.current_time()
            backend.session_opened(opened_at)
            mirrors.opened(feed, backend, self._service.name)
            return await self._feed(channel, feed)
        except (DialError, Silence, HTTPError) as error:
            if isinstance(error, DialError) and error.stage == "own":
                return "failed"  # by no fault of the backend's
            counted_out = True
            log_failure(self._service.name, backend, str(error) or "no answer")
            return "failed"
        finally:
            if channel is not None:
                channel.close()
            if opened_at is not None:
                mirrors.closed(feed)
                backend.session_ended(trio.current_time(), opened_at)
            elif not counted_out:
                backend.handshake_ended()

    async def run_request(self, body: bytes) -> str | None:
        """Send the request and read what comes back; None or why it was given up."""
        backend = self._choose()
        if backend is None:
            return "no backend"
        channel: ByteChannel | None = None
        answered = counted_out = False
        try:
            channel = await self._request.proxy.dial(backend.url, self._service.transport)
            await self._ask(channel, backend, body, ResponseReader())
            answered = True
            await _read_up(channel, self._request.proxy.scratch)
            return None
        except (DialError, Silence, HTTPError) as error:
            if isinstance(error, DialError) and error.stage == "own":
                return "failed"  # by no fault of the backend's
            counted_out = True
            log_failure(self._service.name, backend, str(error) or "no answer")
            return "failed"
        finally:
            if channel is not None:
                channel.close()
            if not counted_out:
                backend.handshake_ended(trio.current_time() if answered else None)

    def _choose(self) -> Backend | None:
        pool, now = self._service.pool, trio.current_time()
        backend = pool.choose(self._request.client, now, opening=self._upgrade)
        if backend is not None:
            backend.begin_handshake()
        return backend

    async def _ask(
        self, channel: ByteChannel, backend: Backend, body: bytes, reader: ResponseReader
    ) -> ResponseHead:
        request, service = self._request, self._service
        head = request.head_for(backend, service, self._head, upgrade=self._upgrade)
        with trio.move_on_after(service.transport.response_header_timeout or math.inf):
            try:
                await send_all(channel, head + body, stall_timeout=service.write_timeout or math.inf)
            except OSError as error:
                raise Silence from error
            while True:
                answer = await receive_response_head(channel, reader, request.proxy.scratch)
                if answer.status >= 200 or answer.status == 101:
                    return answer
        raise HTTPError(504, "no answer in time")

    async def _feed(self, channel: ByteChannel, feed: MirrorFeed) -> str | None:
        """Pass on what the client sends until the session is over; None then, else why the copy is."""

        async def discard() -> None:
            try:
                while await receive_some(channel, self._request.proxy.scratch):
                    pass
            except OSError:
                pass
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(discard)
            try:
                while data := await feed.take():
                    await send_all(channel, data)
                channel.shutdown()
                # Its end is waited for, or our close would be a reset that overtakes what we have sent.
                await trio.sleep_forever()
            except OSError:
                nursery.cancel_scope.cancel()
        feed.stop()
        # A backend that has seen the client's Close frame may end a moment before the session does.
        with trio.move_on_after(LAST_WORDS):
            await feed.over.wait()
        return None if feed.ended else "ended"


async def _read_up(channel: ByteChannel, scratch: memoryview) -> None:
    """Read the rest of an answer, up to a limit, so that its sender can finish."""
    left = ANSWER_LIMIT
    with trio.move_on_after(LAST_WORDS):
        try:
            while left > 0 and (count := await receive_some(channel, scratch)):
                left -= count
        except OSError:
            pass


def _negotiated(answer: ResponseHead) -> tuple[list[str], list[str]]:
    """Return what a 101 has settled on: extensions, with their parameters, and subprotocol."""
    extensions = ",".join(answer.headers.get_all("sec-websocket-extensions")).replace(" ", "").lower()
    return extensions.split(","), answer.headers.get_all("sec-websocket-protocol")
