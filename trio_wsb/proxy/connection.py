"""One client's life, from the accepted socket to its end.

    accepted -> head -> routed -> upgrade -> session
                 ^         |
                 |         +----> plain request -> answered
                 +---- keep-alive ------+

Every way out closes the client's channel; every refusal is one answer and one log line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import structlog
import trio
from attrs import evolve

from trio_wsb.errors import BadRequest, HTTPError
from trio_wsb.http.answers import closing_response, error_response, text_response
from trio_wsb.http.forward import believed_values, client_address
from trio_wsb.http.head import REQUEST_LIMITS, RequestHead
from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.reader import RequestReader
from trio_wsb.middleware.exchange import Request, received
from trio_wsb.net.channel import ByteChannel, linger, receive_some, send_all
from trio_wsb.proxy.chain import Answered, Passage, Remains
from trio_wsb.proxy.client import ClientLeft
from trio_wsb.proxy.plain import ResponseCutOff, proxy_request
from trio_wsb.proxy.request import Peer, ProxiedRequest
from trio_wsb.proxy.runtime import EntryPointRuntime, PingService, Proxy
from trio_wsb.proxy.services import find_way
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.stickiness import Stickiness
from trio_wsb.proxy.upgrade import open_session
from trio_wsb.proxy.upstream import NoBackend
from trio_wsb.routing.request import RequestView
from trio_wsb.websocket.handshake import check_request, is_upgrade

log = structlog.stdlib.get_logger("trio_wsb.connection")

PING_PATH = "/ping"

REFUSAL_TIMEOUT = 2.0
"""Seconds that a refused client gets to read its answer."""

ANSWER_TIMEOUT = 10.0
"""Seconds that a client gets to read an answer of our own."""

REFUSAL_LIMIT = 1 << 20
"""Bytes that a refused client may still send meanwhile."""


class Connection:
    """A client connection.

    Resource handling: owns the channel from its creation; it is closed when `run` returns or is cancelled.
    """

    def __init__(self, proxy: Proxy, entry_point: str, channel: ByteChannel, peer: Peer) -> None:
        self._proxy = proxy
        self._entry_point = entry_point
        self._channel = channel
        self._peer = peer
        entry = self._entry()
        self._reader = RequestReader(REQUEST_LIMITS if entry is None else entry.head_limits)
        self._passage: Passage | None = None
        """Of the request that is being answered."""
        self._remains: Remains | None = None
        """Of the session's passage, if it has taken something."""

    async def run(self) -> None:
        """Serve requests until one becomes a session, and that to its end; or until there are no more."""
        try:
            session = await self._serve_requests()
            if session is not None:
                # Sessions live for hours, and by the thousand: nothing of the handshake may live with them, but
                # what is to be given back at the end.
                del self._reader
                passage, self._passage = self._passage, None
                if passage is not None and passage.remains:
                    self._remains = passage.remains
                del passage
                await self._proxy.sessions.run(session)
        except (ClientLeft, ResponseCutOff):
            # An orderly end would make what was sent of an answer look like all of it.
            self._channel.abort()
        finally:
            self._end_passage()
            self._channel.close()

    def _end_passage(self) -> None:
        if self._passage is not None:
            self._passage.remains.end()
            self._passage = None
        if self._remains is not None:
            self._remains.end()

    async def _serve_requests(self) -> Session | None:
        first = True
        head: RequestHead | None = None
        while (entry := self._entry()) is not None:
            try:
                head = await self._receive_head(entry, first=first)
                if head is None:
                    return None
                # Looked up again: a reload may have changed or removed it while the client was silent.
                current = self._entry()
                if current is None:
                    return None
                entry = current
                found = await self._answer(entry, head)
            except HTTPError as error:
                await self._refuse(entry, error, head)
                return None
            if isinstance(found, Session):
                return found
            self._end_passage()
            if not found:
                await linger(self._channel, self._proxy.scratch, seconds=REFUSAL_TIMEOUT, limit=REFUSAL_LIMIT)
                return None
            first, head = False, None
        return None

    def _entry(self) -> EntryPointRuntime | None:
        return self._proxy.runtime.entry_points.get(self._entry_point)

    async def _receive_head(self, entry: EntryPointRuntime, *, first: bool) -> RequestHead | None:
        """Return the next request's head, or None when the client has no more.

        A head must be complete `read_timeout` after the connection, or its first byte, came: an absolute
        deadline, since a slow sender can keep any other one from passing.
        """
        reader = self._reader
        head = reader.next_head()  # a pipelined request may be here already
        if head is not None:
            return head
        if not first and not reader.started and not await self._receive_next(entry):
            return None
        with trio.move_on_after(entry.read_timeout or math.inf):
            while (head := reader.next_head()) is None:
                if not await self._receive():
                    return None
            return head
        if reader.started:
            raise BadRequest(408, "the request head did not come in time")
        return None  # a connection opened in advance and not used: nothing to complain about

    async def _receive_next(self, entry: EntryPointRuntime) -> bool:
        """Wait for the first byte of another request; whether one came."""
        if self._proxy.stopping:
            return False
        with trio.move_on_after(entry.idle_timeout or math.inf) as idle:
            self._proxy.idle_begins(idle)
            try:
                return await self._receive()
            finally:
                self._proxy.idle_ends(idle)
        return False

    async def _receive(self) -> bool:
        scratch = self._proxy.scratch
        try:
            received = await receive_some(self._channel, scratch)
        except OSError:
            return False
        self._reader.feed(scratch[:received])
        return received > 0

    async def _answer(self, entry: EntryPointRuntime, head: RequestHead) -> Session | bool:
        """Answer one request; the session it became, or whether the connection can serve another one."""
        keep_alive = head.keep_alive and not self._proxy.stopping and not head.framing.has_body
        own = self._own_answer(entry, head, keep_alive=keep_alive)
        if own is not None:
            await self._send(own, ANSWER_TIMEOUT)
            return keep_alive
        believed = partial(self._believed_values, entry, head)
        found = entry.routers.find(RequestView.of_request(head, self._peer.address, believed))
        if found is None:
            raise HTTPError(404, "404 page not found")
        router, route = found
        upgrade = is_upgrade(head)
        if upgrade:
            check_request(head)
        self._passage = passage = Passage(Request(head, self._peer.address, upgrade=upgrade))
        client = client_address(self._peer.address, head.headers, entry.policy)
        if route.steps:
            vetted = received(head, trusted=entry.policy.trusts(self._peer.address))
            passage.request = evolve(passage.request, head=vetted)
            await passage.run(route.steps)
        if isinstance(route.service, PingService):
            # An upgrade is refused by this answer, and what may follow it is no request.
            keep_alive = keep_alive and not upgrade
            passage.conclude(200)
            headers = passage.edited(Headers())
            status = route.service.status_stopping
            await self._send(self._ping(head, status, headers, keep_alive=keep_alive), ANSWER_TIMEOUT)
            return keep_alive
        fields = passage.request.head.headers
        way, failed = find_way(route.service, fields, trio.current_time()), set[str]()
        while True:
            service = way.service
            request = ProxiedRequest(
                self._proxy,
                entry,
                router,
                service,
                self._peer,
                self._channel,
                self._reader,
                passage.request.head,
                passage,
                client,
                vetted=bool(route.steps),
                cookies=tuple(way.cookies),
                sticky=Stickiness(service, service.sticky, fields) if service.sticky is not None else None,
                mirrors=tuple(way.mirrors),
            )
            try:
                if upgrade:
                    return await open_session(request) or False
                return await proxy_request(request)
            except NoBackend:
                # The request may go elsewhere, and what failed may have made another service the one to go to.
                failed.add(service.name)
                way = find_way(route.service, fields, trio.current_time())
                if way.service.name in failed:
                    raise

    def _believed_values(self, entry: EntryPointRuntime, head: RequestHead, lower: str) -> list[str]:
        """Return the values of a field for the rules of routers."""
        return believed_values(
            head,
            lower,
            upgrade=is_upgrade(head),
            policy=entry.policy,
            peer=self._peer.address,
            entry_scheme="http",
            entry_port=entry.port,
        )

    def _own_answer(self, entry: EntryPointRuntime, head: RequestHead, *, keep_alive: bool) -> bytes | None:
        """Return the balancer's own answer, or None for a request that is to be routed."""
        if not (entry.ping and head.path == PING_PATH and head.method in {"GET", "HEAD"}):
            internal = self._proxy.internal
            return None if internal is None else internal(entry, self._peer.address, head, keep_alive)
        return self._ping(head, entry.ping_status_stopping, (), keep_alive=keep_alive)

    def _ping(
        self, head: RequestHead, status_stopping: int, headers: Iterable[Field], *, keep_alive: bool
    ) -> bytes:
        """Return the answer of /ping."""
        stopping = self._proxy.stopping
        return text_response(
            status_stopping if stopping else 200,
            "stopping" if stopping else "OK",
            headers,
            head_only=head.method == "HEAD",
            close=not keep_alive,
        )

    async def _refuse(self, entry: EntryPointRuntime, error: HTTPError, head: RequestHead | None) -> None:
        # Traffic that a stranger can send at will is logged below the level of what an operator must see.
        ours = error.status >= 500 and not isinstance(error, BadRequest)
        emit = log.warning if ours else log.info
        emit(
            "request refused",
            client=self._peer.text,
            entryPoint=entry.name,
            status=error.status,
            reason=error.reason,
        )
        head_only = head is not None and head.method == "HEAD"
        await self._send(self._refusal(error, head_only=head_only))
        await linger(self._channel, self._proxy.scratch, seconds=REFUSAL_TIMEOUT, limit=REFUSAL_LIMIT)

    def _refusal(self, error: HTTPError, *, head_only: bool) -> bytes:
        """Return the answer for `error`, with what the middlewares that the request has passed say to it."""
        fields, passage = list(error.headers), self._passage
        if passage is not None:
            passage.conclude(error.status, network_error=error.status in {502, 504})
            fields = list(passage.edited(Headers(fields)))
        if isinstance(error, Answered):
            return closing_response(error.status, fields, error.body, head_only=head_only)
        return error_response(error.status, error.reason, fields, head_only=head_only)

    async def _send(self, data: bytes, seconds: float = REFUSAL_TIMEOUT) -> None:
        with trio.move_on_after(seconds):
            try:
                await send_all(self._channel, data)
            except OSError as error:
                raise ClientLeft from error
            return
        raise ClientLeft


async def refuse_connection(channel: ByteChannel, scratch: memoryview) -> None:
    """Answer a connection over the entry point's limit with 503, without reading its request; closes it."""
    answer = error_response(503, "too many connections", (("Retry-After", "5"),))
    try:
        channel.send(answer)
    except OSError:
        channel.close()
        return
    await linger(channel, scratch, seconds=REFUSAL_TIMEOUT, limit=REFUSAL_LIMIT)
