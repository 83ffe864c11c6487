"""Records: what became of one request, and who is told.

A connection makes a record for each request head, also for one that it refuses; whoever works on the request writes down
what it learns. When the request is over, or has become a session, the observers see the record, and then it is gone:
an idle session keeps none. Observers are the access log, the metrics, and whatever else counts.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import structlog
from attrs import define

from trio_wsb.addresses import IPAddress
from trio_wsb.http.head import RequestHead
from trio_wsb.http.headers import Headers
from trio_wsb.proxy.peer import Peer

if TYPE_CHECKING:
    from trio_wsb.balancing.backend import Backend
    from trio_wsb.proxy.session import Session

log = structlog.stdlib.get_logger("trio_wsb.observers")

CLIENT_LEFT = 499
"""The status of a request whose client left before it was answered: nobody was sent it. Traefik's figure."""

INTERNAL = "@internal"
"""How the names of the balancer's own services end."""


_NOBODY = Peer(None, "")


class Stage(StrEnum):
    """Where a request is, and where it was when it failed: a closed list, for logs and as a metric's label."""

    ARRIVAL = "arrival"
    """The connection has come, and may be one too many."""

    HEAD = "head"
    """Its head is read and checked, the opening handshake included."""

    ROUTING = "routing"
    """A router is looked for."""

    MIDDLEWARE = "middleware"
    """The middlewares are passed; or a page of the balancer itself answers."""

    CHOOSING = "choosing"
    """A backend is chosen, or a place at one is waited for."""

    DIAL = "dial"
    """The backend is connected to."""

    HANDSHAKE = "handshake"
    """The backend has been asked and its answer is waited for and checked."""

    ANSWER = "answer"
    """The answer goes to the client."""


@define(eq=False)
class RequestRecord:
    """One request, from its head to its end. Times are Trio's unless they say otherwise, sizes bytes of content.

    Written by those who work on the request, read by observers, who may keep it.
    """

    entry_point: str = ""
    peer: Peer = _NOBODY
    number: int = 0
    """Which request of the daemon it is, from 1."""
    started: float = 0.0
    """When its head was complete, or was refused."""
    started_wall: float = 0.0
    """The same in seconds since 1970."""
    head: RequestHead | None = None
    """As the client sent it; None for one that could not be read."""
    client: IPAddress | None = None
    """The client's address: the peer's, or what a trusted peer says that it is."""
    upgrade: bool = False
    """Whether it is an opening handshake."""
    stage: Stage = Stage.HEAD
    router: str = ""
    service: str = ""
    """The load balancer, or a service of the balancer itself."""
    backend: Backend | None = None
    """The last one that was tried."""
    tries: int = 0
    """Backends tried; 0 when none was."""
    username: str = ""
    """Who the client says to be (basicAuth), whether its password was right or not."""
    status: int = 0
    """What the client was sent; 0 for nothing, `CLIENT_LEFT` if that was its own doing."""
    answer: Headers | None = None
    """The fields that the client was sent, as far as they are not of one hop or an answer of our own."""
    origin_status: int = 0
    """What the backend answered; 0 without an answer."""
    origin_answer: Headers | None = None
    """The fields of the backend's answer."""
    origin_started: float | None = None
    """When the last try began."""
    origin_duration: float | None = None
    """Seconds from the beginning of the last try to the head of the backend's answer."""
    bytes_in: int = 0
    """Of the request's body."""
    bytes_out: int = 0
    """Of the answer's body, as it was sent."""
    origin_bytes: int = 0
    """Of the backend's answer, before it was compressed."""
    answered_by: object = None
    """The step of the middleware that answered it itself, if one did."""
    reason: str = ""
    """Why it was refused or given up; never has in it what a peer sent."""
    ended: float | None = None

    @property
    def secure(self) -> bool:
        """Whether it came by TLS."""
        return self.peer.secured is not None

    @property
    def internal(self) -> bool:
        """Whether the balancer itself was asked: /ping, the API and their like."""
        return self.service.endswith(INTERNAL)

    @property
    def client_text(self) -> str:
        """The client for people: with its port when it is the peer, for which alone a port is known."""
        return self.peer.text if self.client in {None, self.peer.address} else str(self.client)

    def begin_try(self, backend: Backend, now: float) -> None:
        """Note that `backend` is tried from `now` on."""
        self.stage = Stage.DIAL
        self.backend = backend
        self.tries += 1
        self.origin_started = now

    def origin_answered(self, status: int, headers: Headers, now: float) -> None:
        """Note the head of the backend's final answer."""
        self.origin_status = status
        self.origin_answer = headers
        if self.origin_started is not None:
            self.origin_duration = now - self.origin_started


class Observer(Protocol):
    """Is told what becomes of requests and sessions.

    All three are called on the event loop, must be cheap and must not raise: what they raise is logged and passed over.
    Who needs something of a record until its session ends keeps that itself, by `Session.id`.
    """

    def request_ended(self, record: RequestRecord) -> None:
        """Note a request that became no session; it was answered, refused or given up."""
        ...

    def session_opened(self, session: Session, record: RequestRecord) -> None:
        """Note a session that has opened, and the handshake that it came from."""
        ...

    def session_ended(self, session: Session) -> None:
        """Note the end of a session: `ended_at`, its cause and its close code are known."""
        ...


Observers = tuple[Observer, ...]


def tell(observers: Observers, say: Callable[[Observer], None]) -> None:
    """Say something to each of the observers: the fault of one is logged, and neither the others' nor the client's."""
    for observer in observers:
        try:
            say(observer)
        except Exception:
            log.exception("internal error in an observer", observer=type(observer).__name__)
