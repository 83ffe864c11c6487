"""One request on its way through: what the connection knows of it, handed to whoever answers it."""

from __future__ import annotations

from attrs import define

from trio_wsb.addresses import IPAddress
from trio_wsb.balancing.backend import Backend
from trio_wsb.http.forward import upstream_head
from trio_wsb.http.head import RequestHead, ResponseHead
from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.reader import RequestReader
from trio_wsb.net.channel import ByteChannel
from trio_wsb.proxy.chain import Passage
from trio_wsb.proxy.peer import Peer as Peer  # noqa: PLC0414 - part of this module's interface
from trio_wsb.proxy.record import RequestRecord, Stage
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy, ServiceRuntime
from trio_wsb.proxy.services import MirrorTarget
from trio_wsb.proxy.stickiness import Stickiness


@define(eq=False)  # frozen, each of its fields would cost as much as a call
class ProxiedRequest:
    """A request for which a router and a service were found.

    `reader` holds what the client sent after the head. The channel stays the connection's, except that a
    session takes it over.
    """

    proxy: Proxy
    entry: EntryPointRuntime
    router: str
    service: ServiceRuntime
    peer: Peer
    channel: ByteChannel
    reader: RequestReader
    head: RequestHead
    """As the middlewares left it."""
    passage: Passage
    client: IPAddress | None
    """The client's address: the peer's, or what a trusted peer says that it is."""
    vetted: bool
    """Whether what a stranger may not say is gone from the head, so that what it says is ours."""
    cookies: tuple[Field, ...] = ()
    """Fields that set the cookies of the services on the way."""
    sticky: Stickiness | None = None
    """The client's cookie at the service."""
    mirrors: tuple[MirrorTarget, ...] = ()
    """Where copies of it go."""

    @property
    def record(self) -> RequestRecord:
        """What observers will be told of it."""
        return self.passage.record

    @property
    def client_text(self) -> str:
        """The client for people: with its port when it is the peer, for which alone a port is known."""
        return self.peer.text if self.client == self.peer.address else str(self.client)

    def head_for(
        self, backend: Backend, service: ServiceRuntime, head: RequestHead, *, upgrade: bool
    ) -> bytes:
        """Return `head` as it goes to `backend` of `service`, which need not be the request's own: a mirror asks too."""
        entry, peer = self.entry, self.peer
        # A client of HTTP/1.0 may have sent no Host, and a backend wants one (RFC 9112 section 3.2).
        keeps_host = service.pass_host_header and head.authority
        return upstream_head(
            head,
            upgrade=upgrade,
            policy=entry.policy,
            peer=peer.address,
            entry_scheme=peer.scheme,
            entry_port=entry.port,
            server_name=self.proxy.server_name,
            host=None if keeps_host else service.transport.called(backend.url).authority,
            vetted=self.vetted,
            withheld=self.passage.request.withheld,
        )

    def answered(self, answer: ResponseHead) -> ResponseHead:
        """Return the backend's final answer as the client is to see it; whoever judges attempts learns of it."""
        self.passage.conclude(answer.status)
        record = self.record
        record.status, record.stage = answer.status, Stage.ANSWER
        headers = answer.headers if self.sticky is None else self.sticky.edit(answer.headers)
        if self.cookies:
            headers = Headers([*headers, *self.cookies])
        headers = self.passage.edited(headers)
        record.answer = headers
        return answer if headers is answer.headers else answer.with_headers(headers)
