"""The way to a backend: dialling, trying the next one, and reading the head of its answer."""

from __future__ import annotations

import math

import structlog
import trio

from trio_wsb.addresses import BackendURL, IPAddress
from trio_wsb.balancing.backend import Backend
from trio_wsb.errors import BadResponse, DialError, Error, HTTPError
from trio_wsb.http.head import ResponseHead
from trio_wsb.http.reader import ResponseReader
from trio_wsb.net.channel import ByteChannel, receive_some
from trio_wsb.net.sockets import FindAddresses, SocketChannel, dial_tcp
from trio_wsb.net.tls import handshake
from trio_wsb.proxy.chain import RetryPolicy
from trio_wsb.proxy.places import HandshakePlaces
from trio_wsb.proxy.record import RequestRecord, Stage
from trio_wsb.proxy.runtime import Dial, ServiceRuntime, TransportRuntime
from trio_wsb.proxy.stickiness import Stickiness

log = structlog.stdlib.get_logger("trio_wsb.upstream")

MAX_TRIES = 3
"""Backends tried for one request before the client is told 502."""

RETRY_AFTER = 5
"""Seconds after which a client that found no backend should come back (RFC 9110 section 10.2.3)."""

MAX_INTERIM = 100
"""Interim answers (RFC 9110 section 15.2) to one request. Servers send a few; one that floods us with them gives nobody else a turn,
since bytes that are there are read without a checkpoint, and no deadline a chance."""

_COME_BACK = (("Retry-After", str(RETRY_AFTER)),)


async def dial(
    url: BackendURL, transport: TransportRuntime, *, addresses: FindAddresses | None = None
) -> ByteChannel:
    """Connect to the backend at `url`, under TLS where its scheme says so; the caller owns the channel.

    Args:
      url: the backend.
      transport: deadlines and TLS.
      addresses: finds the addresses of a name; None asks the system each time.

    Raises:
      DialError: it cannot be reached within the transport's dial timeout.

    """
    deadline = trio.current_time() + (transport.dial_timeout or math.inf)
    sock = await dial_tcp(url.host, url.port, deadline=deadline, addresses=addresses)
    if transport.tls is None or not url.tls:
        return SocketChannel(sock)
    with trio.CancelScope(deadline=deadline):
        return await handshake(sock, transport.tls, transport.server_name or transport.called(url).host)
    raise DialError("timeout", "no connection in time")


class NoBackend(HTTPError):
    """No backend of the service could be tried, or none that was answered; the request may still go elsewhere."""


class Tries:
    """The backends tried for one request.

    A backend that `connect` returns has an attempt counted in: the caller counts it out, by `failed` when the
    backend did not answer at all.
    """

    def __init__(
        self,
        dial: Dial,
        service: ServiceRuntime,
        client: IPAddress | None,
        record: RequestRecord,
        retry: RetryPolicy | None = None,
        sticky: Stickiness | None = None,
        places: HandshakePlaces | None = None,
    ) -> None:
        """Prepare to try.

        Args:
          dial: connects to a backend.
          service: whom to choose from.
          client: the client's address, for the strategies that hash it.
          record: where each try is written down.
          retry: what replaces `MAX_TRIES` tries without a pause; with it backends may be tried again when
            all have failed.
          sticky: the client's cookie, which says whom to try first.
          places: bounds the handshakes under way; None for a request that is none. With it each `connect` that
            returns is followed by one `leave`.

        """
        self._dial = dial
        self._service = service
        self._client = client
        self._record = record
        self._limit = MAX_TRIES if retry is None else retry.attempts
        self._pauses = iter(()) if retry is None else retry.pauses()
        self._again = retry is not None
        self._sticky = sticky
        self._places = places
        self._placed: Backend | None = None
        self._tried: set[Backend] = set()
        self.count = 0
        """How many backends were tried."""

    async def connect(self) -> tuple[Backend, ByteChannel]:
        """Choose and dial until a backend accepts; the caller owns the channel.

        Raises:
          NoBackend: 503 when no backend is eligible or this host is out of descriptors, 502 when all that were
            tried failed.

        """
        pool = self._service.pool
        if not self.count:  # else it is noted where the last try failed
            self._record.stage = Stage.CHOOSING
        while self.count < self._limit:
            if self.count and (pause := next(self._pauses, 0.0)):
                await trio.sleep(pause)
            backend = await self._find()
            if backend is None and self._again and self._tried:
                self._tried.clear()
                backend = await self._find()
            if backend is None:
                break
            self.count += 1
            backend.begin_handshake()
            self._enter(backend)
            self._record.begin_try(backend, trio.current_time())
            try:
                channel = await self._dial(backend.url, self._service.transport)
                self._record.stage = Stage.HANDSHAKE
                return backend, channel
            except DialError as error:
                self.leave()
                if error.stage == "own":
                    # Blamed on the backend it would take one after the other out of service, and another one
                    # could not be reached either.
                    backend.handshake_ended()
                    log.error("cannot dial", service=self._service.name, reason=error.reason)
                    raise NoBackend(503, f"cannot dial: {error.reason}", _COME_BACK) from error
                self.failed(backend, str(error))
            except BaseException:
                self.leave()
                backend.handshake_ended()
                raise
        if self.count:
            raise NoBackend(502, "no backend could be reached")
        now, opening = trio.current_time(), self._places is not None
        log.warning(
            "no backend",
            service=self._service.name,
            reason=pool.reason(now, self._tried, opening=opening),
        )
        raise NoBackend(503, "no available server", _COME_BACK)

    def leave(self) -> None:
        """Give the place of the handshake back: it was answered, or came to nothing. May be called again."""
        backend, self._placed = self._placed, None
        if backend is not None and self._places is not None:
            self._places.freed(backend)

    def _enter(self, backend: Backend) -> None:
        if self._places is not None:
            self._placed = backend
            self._places.taken(backend)

    async def _find(self) -> Backend | None:
        """Choose a backend; wait for a place where only handshakes under way are in the way."""
        places, service = self._places, self._service
        if places is None:
            return self._choose()
        if not places.waiting(service.name):  # else those who came before are first
            backend = self._choose()
            if backend is not None:
                return backend
        if not service.pool.crowded(self._tried):
            return self._choose()
        return await places.wait(service.name, self._choose, service.pending_timeout)

    def _choose(self) -> Backend | None:
        now, sticky, opening = trio.current_time(), self._sticky, self._places is not None
        backend = None if sticky is None else sticky.preferred(now, opening=opening)
        if backend is None:
            backend = self._service.pool.choose(self._client, now, self._tried, opening=opening)
        if sticky is not None and backend is not None:
            sticky.tried(backend)
        return backend

    def failed(self, backend: Backend, reason: str) -> None:
        """`backend` did not answer at all: count the attempt out, try others, avoid it for a while."""
        self._tried.add(backend)
        if self._sticky is not None:
            self._sticky.failed()
        log_failure(self._service.name, backend, reason)


def log_failure(service: str, backend: Backend, reason: str) -> None:
    """Count an attempt out that failed by the backend's fault; one line when that begins a cool-down."""
    cooling = backend.handshake_failed(trio.current_time())
    emit = log.warning if cooling else log.info
    emit(
        "backend failed",
        service=service,
        backend=str(backend.url),
        **backend.pod,
        reason=reason,
        coolDown=backend.passive.cool_down,
    )


class Silence(Error):
    """The backend's connection ended before a single byte of its answer."""


async def receive_response_head(
    channel: ByteChannel, reader: ResponseReader, scratch: memoryview
) -> ResponseHead:
    """Read until the next response head is complete; the caller sets the deadline.

    Raises:
      Silence: the connection ended before a byte of it.
      BadResponse: it is malformed, too large, or was cut off.

    """
    while (head := reader.next_head()) is None:
        try:
            received = await receive_some(channel, scratch)
        except OSError as error:
            if reader.started:
                raise BadResponse("the backend's answer was cut off") from error
            raise Silence from error
        if not received:
            if reader.started:
                raise BadResponse("the backend's answer was cut off")
            raise Silence
        reader.feed(scratch[:received])
    return head
