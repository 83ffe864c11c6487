"""One client's life, from the accepted socket to its end.

    accepted -> head -> routed -> upgrade -> session
                 ^         |
                 |         +----> plain request -> answered
                 +---- keep-alive ------+

Every way out closes the client's channel; every refusal is one answer and one log line.
"""

from __future__ import annotations

import math
from functools import partial

import structlog
import trio

from trio_wsb.errors import BadRequest, HTTPError
from trio_wsb.http.answers import content_size, error_response, framed_response
from trio_wsb.http.forward import believed_values, client_address
from trio_wsb.http.head import REQUEST_LIMITS, RequestHead
from trio_wsb.http.headers import Headers
from trio_wsb.http.reader import RequestReader
from trio_wsb.middleware.exchange import Request, received
from trio_wsb.net.channel import ByteChannel, linger, receive_some, send_all
from trio_wsb.proxy.chain import Answered, Passage, Step
from trio_wsb.proxy.client import EARLY_LIMIT, ClientLeft
from trio_wsb.proxy.crowd import Visit
from trio_wsb.proxy.internal import READING, InternalRequest, ping
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.plain import ResponseCutOff, proxy_request
from trio_wsb.proxy.record import CLIENT_LEFT, RequestRecord, Stage, tell
from trio_wsb.proxy.request import ProxiedRequest
from trio_wsb.proxy.runtime import EntryPointRuntime, Handler, InternalService, Proxy
from trio_wsb.proxy.secure import check_direction, may_see_pages
from trio_wsb.proxy.services import find_way
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.stickiness import Stickiness
from trio_wsb.proxy.turnaway import REFUSAL_LIMIT, REFUSAL_TIMEOUT
from trio_wsb.proxy.upgrade import open_session
from trio_wsb.proxy.upstream import NoBackend
from trio_wsb.routing.request import RequestView
from trio_wsb.websocket.handshake import check_request, is_upgrade

log = structlog.stdlib.get_logger("trio_wsb.connection")

PING_PATH = "/ping"

PING = "ping@internal"
PAGES = "pages@internal"
"""The names of the services that answer without a router, for records."""


class Connection:
    """A client connection.

    Resource handling: owns the channel from its creation; it is closed when `run` returns or is cancelled.
    """

    __slots__ = (
        "_channel",
        "_deadline",
        "_entry_point",
        "_passage",
        "_peer",
        "_proxy",
        "_reader",
        "_record",
        "_visit",
    )

    def __init__(
        self,
        proxy: Proxy,
        entry_point: str,
        channel: ByteChannel,
        peer: Peer,
        *,
        deadline: float | None = None,
        visit: Visit | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
          proxy: what all connections share.
          entry_point: where it came in.
          channel: the connection.
          peer: who is at its other end.
          deadline: when the first head must be complete, on Trio's clock; without it after the entry point's `read_timeout`.
          visit: what it takes of its address's share; ended here, or by the session.

        """
        self._proxy = proxy
        self._entry_point = entry_point
        self._channel = channel
        self._peer = peer
        self._deadline = deadline
        self._visit = visit
        entry = self._entry()
        self._reader = RequestReader(REQUEST_LIMITS if entry is None else entry.head_limits)
        self._passage: Passage | None = None
        """Of the request that is being answered."""
        self._record: RequestRecord | None = None
        """Of the request that is being answered."""

    async def run(self) -> None:
        """Serve requests until one becomes a session, and that to its end; or until there are no more."""
        session = await self.serve()
        if session is not None:
            await self._proxy.sessions.run(session)

    async def serve(self) -> Session | None:
        """Serve requests until one becomes a session, which is returned to be run; or until there are no more.

        Sessions live for hours, and by the thousand: nothing of the handshake need live with them, neither the
        connection nor the frames that led here. What a session takes with it owns the channel, and gives back at its
        end what the middlewares and the visit have taken.
        """
        session: Session | None = None
        try:
            session = await self._serve_requests()
        except (ClientLeft, ResponseCutOff) as error:
            self._give_up(error)
            # An orderly end would make what was sent of an answer look like all of it.
            self._channel.abort()
        finally:
            if session is None:
                if self._record is not None:
                    self._record.reason = "the daemon stopped" if self._proxy.stopping else "internal error"
                    self._end_request()
                self._end_passage()
                if self._visit is not None:
                    self._visit.end()
                self._channel.close()
        if session is not None:
            session.record = self._take_record()
            passage, self._passage = self._passage, None
            if passage is not None and passage.remains:
                session.at_end += (passage.remains.end,)
            if self._visit is not None and self._visit.lasts:
                session.at_end += (self._visit.end,)
        return session

    def _end_passage(self) -> None:
        if self._passage is not None:
            self._passage.remains.end()
            self._passage = None

    def _begin_request(self, entry: EntryPointRuntime, head: RequestHead | None) -> RequestRecord:
        self._record = record = RequestRecord(
            entry.name,
            self._peer,
            self._proxy.next_request(),
            trio.current_time(),
            self._proxy.date() or 0.0,
            head=head,
            upgrade=head is not None and is_upgrade(head),
        )
        return record

    def _give_up(self, error: ClientLeft | ResponseCutOff) -> None:
        record = self._record
        if record is not None:
            left = isinstance(error, ClientLeft)
            record.reason = "the client left" if left else "the response broke off"
            # A 101 that was not taken made no session; our own pages may have one.
            if not record.status or (record.status == 101 and not record.internal):
                record.status = CLIENT_LEFT
            self._end_request()

    def _end_request(self) -> None:
        """Tell the observers of a request that became no session, once."""
        record = self._take_record()
        if record is not None:
            record.ended = trio.current_time()
            tell(self._proxy.observers, lambda observer: observer.request_ended(record))

    def _take_record(self) -> RequestRecord | None:
        record, self._record = self._record, None
        return record

    async def _serve_requests(self) -> Session | None:
        first = True
        head: RequestHead | None = None
        while (entry := self._entry()) is not None:
            try:
                head = await self._receive_head(entry, first=first)
                if head is None:
                    return None
                if self._visit is not None:
                    self._visit.asked()
                # Looked up again: a reload may have changed or removed it while the client was silent.
                current = self._entry()
                if current is None:
                    return None
                entry = current
                found = await self._answer(entry, head)
            except HTTPError as error:
                found = await self._refuse(entry, error, head)
            if isinstance(found, Session):
                return found
            self._end_request()
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
            # There may be thousands, each with an answer that need not wait: others must have their turn.
            await trio.lowlevel.checkpoint()
            return head
        if self._visit is not None and not self._visit.wait():
            return None  # too many of its address wait already: keeping it open is a favour
        if not first and not reader.started and not await self._receive_next(entry):
            return None
        # Most clients have sent it by now, and a wait costs more than to look.
        if first and (found := self._receive_at_once()) is not None:
            if not found:
                return None
            if (head := reader.next_head()) is not None:
                return head
        until = self._deadline if first else None
        if until is None:
            until = trio.current_time() + (entry.read_timeout or math.inf)
        with trio.move_on_at(until):
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
            self._proxy.idle_begins(idle, entry.name)
            try:
                return await self._receive()
            finally:
                self._proxy.idle_ends(idle)
        return False

    def _receive_at_once(self) -> bool | None:
        """Take what is there; whether there can be more, None if nothing is there yet."""
        scratch = self._proxy.scratch[:EARLY_LIMIT]
        try:
            received = self._channel.recv_into(scratch)
        except BlockingIOError:
            return None
        except OSError:
            return False
        self._reader.feed(scratch[:received])
        return received > 0

    async def _receive(self) -> bool:
        scratch = self._proxy.scratch[:EARLY_LIMIT]
        try:
            received = await receive_some(self._channel, scratch)
        except OSError:
            return False
        self._reader.feed(scratch[:received])
        return received > 0

    async def _answer(self, entry: EntryPointRuntime, head: RequestHead) -> Session | bool:
        """Answer one request; the session it became, or whether the connection can serve another one."""
        record = self._begin_request(entry, head)
        record.client = client = client_address(self._peer.address, head.headers, entry.policy)
        page = self._own_page(entry, head)
        if page is not None:
            record.service = PING if page is ping else PAGES
            return await self._answer_ourselves(entry, record, head, page)
        believed = partial(self._believed_values, entry, head)
        secured = self._peer.secured
        routers = entry.routers if secured is None else entry.tls_routers
        found = routers.find(RequestView.of_request(head, self._peer.address, believed))
        if found is None:
            record.stage = Stage.ROUTING
            raise HTTPError(404, "404 page not found")
        router, route = found
        if secured is not None:
            check_direction(entry.tls, secured, head.host, route.client_auth)
        record.router = router
        upgrade = record.upgrade
        if upgrade:
            check_request(head)
        if isinstance(route.service, InternalService):
            handler, steps = route.service.handler, route.steps
            record.service = route.service.name
            return await self._answer_ourselves(entry, record, head, handler, steps=steps, router=router)
        passage = await self._pass(entry, record, head, route.steps)
        fields = passage.request.head.headers
        way, failed = find_way(route.service, fields, trio.current_time()), set[str]()
        while True:
            service = way.service
            record.service = service.name
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
            entry_scheme=self._peer.scheme,
            entry_port=entry.port,
        )

    async def _pass(
        self, entry: EntryPointRuntime, record: RequestRecord, head: RequestHead, steps: tuple[Step, ...]
    ) -> Passage:
        """Take the request through the middlewares and return its passage.

        Raises:
          Answered: one of them answers it.

        """
        peer = self._peer
        if steps:
            head = received(head, trusted=entry.policy.trusts(peer.address))
        request = Request(head, peer.address, secure=peer.secured is not None, upgrade=record.upgrade)
        self._passage = passage = Passage(request, record)
        record.stage = Stage.MIDDLEWARE
        if steps:
            await passage.run(steps)
        return passage

    def _own_page(self, entry: EntryPointRuntime, head: RequestHead) -> Handler | None:
        """Return who answers a request that is for the balancer itself, or None for one that is to be routed."""
        if not may_see_pages(entry.tls, self._peer.secured):
            return None
        if entry.ping and head.path == PING_PATH and head.method in READING:
            return ping
        internal = self._proxy.internal
        return None if internal is None else internal(entry, self._peer.local, head)

    async def _answer_ourselves(
        self,
        entry: EntryPointRuntime,
        record: RequestRecord,
        head: RequestHead,
        handler: Handler,
        *,
        steps: tuple[Step, ...] | None = None,
        router: str = "",
    ) -> bool:
        """Let `handler` answer behind `steps`, by default those of the entry point; as `_answer`."""
        if record.upgrade:
            check_request(head)
        if steps is None:
            # Whoever balances us has no password, and learns nothing but that we are there.
            steps = () if handler is ping else entry.steps
        passage = await self._pass(entry, record, head, steps)
        return await handler(
            InternalRequest(
                proxy=self._proxy,
                entry=entry,
                router=router,
                peer=self._peer,
                client=record.client,
                head=passage.request.head,
                passage=passage,
                channel=self._channel,
                reader=self._reader,
                # What may follow an upgrade that becomes none is no request.
                keep_alive=not record.upgrade
                and not self._proxy.stopping
                and head.keep_alive
                and not head.framing.has_body,
            )
        )

    async def _refuse(self, entry: EntryPointRuntime, error: HTTPError, head: RequestHead | None) -> bool:
        """Answer with `error`; whether the connection can serve another request.

        It can when the request was understood and has ended with its head: what follows a body that nobody read, or
        an upgrade that was refused, is not known to be a request.
        """
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
        keep_alive = (
            head is not None
            and not isinstance(error, BadRequest)
            and head.keep_alive
            and not head.framing.has_body
            and not is_upgrade(head)
            and not self._proxy.stopping
        )
        answer = self._refusal(error, head_only=head_only, keep_alive=keep_alive)
        record = self._record or self._begin_request(entry, head)
        record.status, record.reason = error.status, error.reason
        record.bytes_out = content_size(answer)
        await self._send(answer)
        return keep_alive

    def _refusal(self, error: HTTPError, *, head_only: bool, keep_alive: bool) -> bytes:
        """Return the answer for `error`, with what the middlewares that the request has passed say to it."""
        fields, passage, date = list(error.headers), self._passage, self._proxy.date()
        if passage is not None:
            passage.conclude(error.status, network_error=error.status in {502, 504})
            fields = list(passage.edited(Headers(fields)))
        if isinstance(error, Answered):
            return framed_response(
                error.status, fields, error.body, close=not keep_alive, head_only=head_only, date=date
            )
        return error_response(
            error.status, error.reason, fields, close=not keep_alive, head_only=head_only, date=date
        )

    async def _send(self, data: bytes, seconds: float = REFUSAL_TIMEOUT) -> None:
        with trio.move_on_after(seconds):
            try:
                await send_all(self._channel, data)
            except OSError as error:
                raise ClientLeft from error
            return
        raise ClientLeft
