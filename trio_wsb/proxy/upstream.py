"""The way to a backend: dialling, trying the next one, and reading the head of its answer."""

from __future__ import annotations

import math

import structlog
import trio

from trio_wsb.addresses import BackendURL, IPAddress
from trio_wsb.balancing.backend import Backend
from trio_wsb.errors import BadResponse, DialError, Error, HTTPError
from trio_wsb.http.head import RequestHead, ResponseHead
from trio_wsb.http.reader import ResponseReader
from trio_wsb.net.channel import ByteChannel, receive_some
from trio_wsb.net.sockets import SocketChannel, dial_tcp
from trio_wsb.net.tls import handshake
from trio_wsb.proxy.chain import RetryPolicy
from trio_wsb.proxy.runtime import Dial, ServiceRuntime, TransportRuntime

log = structlog.stdlib.get_logger("trio_wsb.upstream")

MAX_TRIES = 3
"""Backends tried for one request before the client is told 502."""

RETRY_AFTER = 5
"""Seconds after which a client that found no backend should come back (RFC 9110 section 10.2.3)."""


async def dial(url: BackendURL, transport: TransportRuntime) -> ByteChannel:
    """Connect to the backend at `url`, under TLS where its scheme says so; the caller owns the channel.

    Raises:
      DialError: it cannot be reached within the transport's dial timeout.

    """
    with trio.move_on_after(transport.dial_timeout or math.inf):
        sock = await dial_tcp(url.host, url.port)
        if transport.tls is not None and url.tls:
            return await handshake(sock, transport.tls, transport.server_name or url.host)
        return SocketChannel(sock)
    raise DialError("timeout", "no connection in time")


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
        retry: RetryPolicy | None = None,
    ) -> None:
        """Prepare to try.

        Args:
          dial: connects to a backend.
          service: whom to choose from.
          client: the client's address, for the strategies that hash it.
          retry: what replaces `MAX_TRIES` tries without a pause; with it backends may be tried again when
            all have failed.

        """
        self._dial = dial
        self._service = service
        self._client = client
        self._limit = MAX_TRIES if retry is None else retry.attempts
        self._pauses = iter(()) if retry is None else retry.pauses()
        self._again = retry is not None
        self._tried: set[Backend] = set()
        self.count = 0
        """How many backends were tried."""

    async def connect(self) -> tuple[Backend, ByteChannel]:
        """Choose and dial until a backend accepts; the caller owns the channel.

        Raises:
          HTTPError: 503 when no backend is eligible, 502 when all that were tried failed.

        """
        pool = self._service.pool
        while self.count < self._limit:
            if self.count and (pause := next(self._pauses, 0.0)):
                await trio.sleep(pause)
            backend = pool.choose(self._client, trio.current_time(), self._tried)
            if backend is None and self._again and self._tried:
                self._tried.clear()
                backend = pool.choose(self._client, trio.current_time(), self._tried)
            if backend is None:
                break
            self.count += 1
            backend.begin_handshake()
            try:
                return backend, await self._dial(backend.url, self._service.transport)
            except DialError as error:
                self.failed(backend, str(error))
            except BaseException:
                backend.handshake_ended()
                raise
        if self.count:
            raise HTTPError(502, "no backend could be reached")
        log.warning(
            "no backend", service=self._service.name, reason=pool.reason(trio.current_time(), self._tried)
        )
        raise HTTPError(503, "no available server", (("Retry-After", str(RETRY_AFTER)),))

    def failed(self, backend: Backend, reason: str) -> None:
        """`backend` did not answer at all: count the attempt out, try others, avoid it for a while."""
        self._tried.add(backend)
        log_failure(self._service.name, backend, reason)


def log_failure(service: str, backend: Backend, reason: str) -> None:
    """Count an attempt out that failed by the backend's fault; one line when that begins a cool-down."""
    cooling = backend.handshake_failed(trio.current_time())
    emit = log.warning if cooling else log.info
    emit(
        "backend failed",
        service=service,
        backend=str(backend.url),
        reason=reason,
        coolDown=backend.passive.cool_down,
    )


def host_for(service: ServiceRuntime, head: RequestHead, backend: Backend) -> str | None:
    """Return the Host to send instead of the client's; None keeps it.

    A client of HTTP/1.0 may have sent none, and a backend wants one (RFC 9112 section 3.2).
    """
    return None if service.pass_host_header and head.authority else backend.url.authority


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
