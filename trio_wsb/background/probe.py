"""One health check: asking a server a question and judging its answer, over HTTP or as a WebSocket client.

Each check is a connection of its own, as a client's would be: a server that accepts no more is not well, however
quickly it answers on a connection that is open already. Nothing of the answer is believed or kept but its status.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

import attrs
import httpx
import trio
import trio_websocket
from attrs import frozen

from trio_wsb.addresses import BackendURL, format_host
from trio_wsb.background.counts import system_context
from trio_wsb.background.faults import connect_reason, describe_fault, leaves, own_shortage
from trio_wsb.balancing.health import HealthKey, Question
from trio_wsb.errors import DialError, Error

MAX_REDIRECTS: Final = 5

_CLOSE_TIMEOUT: Final = 1.0
_FIELDS: Final = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", "trio-wsb"))
_MESSAGE_LIMIT: Final = 64 * 1024


class NotAsked(Error):
    """A check could not be made for want of descriptors or memory here, which says nothing of the server."""


class ProbeFailed(Error):
    """A check has no good answer; `reason` says why in a few words and never repeats what the server sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class HealthTarget:
    """A server to check, how often, and what its answers mean.

    Times are seconds. `ssl_context` is for https; without one the system's authorities decide. Contexts are
    compared by identity. `server_name` is the name to expect in the certificate where it is not the host, `host` the Host
    to send where neither the question nor the URL has it.
    """

    url: BackendURL
    question: Question
    interval: float
    unhealthy_interval: float
    timeout: float
    rise: int = 1
    fall: int = 2
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    server_name: str | None = None
    host: str | None = None

    @property
    def key(self) -> HealthKey:
        """What the answers are kept under."""
        return HealthKey(self.url, self.question)

    @property
    def address(self) -> BackendURL:
        """Where the check really goes."""
        question = self.question
        return BackendURL(question.scheme or self.url.scheme, self.url.host, question.port or self.url.port)


Transport = Callable[[HealthTarget], httpx.AsyncBaseTransport]
"""Makes the transport of one check, which whoever asked closes."""


def http_transport(target: HealthTarget) -> httpx.AsyncBaseTransport:
    """Return a transport for one check."""
    return httpx.AsyncHTTPTransport(verify=target.ssl_context or system_context(), trust_env=False)


async def probe(target: HealthTarget, transport: Transport = http_transport) -> str | None:
    """Check once; return None when all is well, else why not.

    Raises:
      NotAsked: this host is out of descriptors or memory.

    """
    reason: str | None = None
    shortage: str | None = None
    try:
        with trio.fail_after(target.timeout):
            if target.question.mode == "websocket":
                await _probe_websocket(target)
            else:
                await _probe_http(target, transport)
    except* Exception as group:  # noqa: BLE001 - whatever it is, it is this server's alone
        shortage = own_shortage(group)
        reason = _describe(group, target.timeout)
    if shortage is not None:
        raise NotAsked(shortage)
    return reason


async def _probe_http(target: HealthTarget, transport: Transport) -> None:
    question = target.question
    extensions = {} if target.server_name is None else {"sni_hostname": target.server_name}
    client = httpx.AsyncClient(transport=transport(target), trust_env=False, timeout=target.timeout)
    try:
        request = client.build_request(
            question.method,
            f"{target.address}{question.path}",
            headers=_fields(target),
            extensions=extensions,
        )
        for _ in range(MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True)
            # The body is left unread, however large it is: the connection is closed with it.
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await response.aclose()
            if not (question.follow_redirects and response.next_request):
                break
            request = response.next_request
        else:
            raise ProbeFailed(f"more than {MAX_REDIRECTS} redirects")
    finally:
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await client.aclose()
    status = response.status_code
    good = status == question.status if question.status else 200 <= status < 400
    if not good:
        raise ProbeFailed(f"answered {status}")


def _fields(target: HealthTarget) -> list[tuple[str, str]]:
    question, host = target.question, target.question.hostname or target.host
    given = {name.lower() for name, _ in question.headers}
    fields = [field for field in _FIELDS if field[0].lower() not in given]
    if host and "host" not in given:
        fields.append(("Host", host))
    return [*fields, *question.headers]


async def _probe_websocket(target: HealthTarget) -> None:
    question, address = target.question, target.address
    stream = await _connect(target)
    try:
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                question.hostname or target.host or address.authority,
                question.path,
                extra_headers=[(name.encode(), value.encode()) for name, value in question.headers],
                max_message_size=_MESSAGE_LIMIT,
            )
            await connection.ping()
            # The answer is here: a server that is slow to say goodbye is well all the same.
            with trio.move_on_after(_CLOSE_TIMEOUT):
                await connection.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _connect(target: HealthTarget) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    address = target.address
    try:
        tcp = await trio.open_tcp_stream(address.host, address.port)
        if not address.tls:
            return tcp
        stream = trio.SSLStream(
            tcp,
            target.ssl_context or system_context(),
            server_hostname=target.server_name or format_host(address.host).strip("[]"),
            https_compatible=True,
        )
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return stream
    except (OSError, trio.BrokenResourceError) as error:
        raise DialError("connect", connect_reason(error)) from error


def _describe(group: BaseExceptionGroup[Exception], timeout: float) -> str:
    match next(leaves(group)):
        case ProbeFailed() as error:
            return error.reason
        case DialError() as error:
            return f"cannot connect: {error.reason}"
        case trio_websocket.ConnectionRejected() as error:
            return f"answered {error.status_code} to the handshake"
        case trio_websocket.HandshakeError():
            return "no valid answer to the handshake"
        case trio_websocket.ConnectionClosed():
            return "ended the session before it answered a ping"
        case error:
            return describe_fault(error, timeout)
