"""The upgrade: from a client's opening handshake to a session, or to the backend's refusal.

A byte tunnel exists only after the backend's 101 was checked (RFC 6455 section 4.1). Until then what the
client sends early is held; on any other answer it is thrown away with the connection, for it is the way in
which requests are smuggled past a proxy that believes in an upgrade which did not happen.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import trio

from trio_wsb.balancing.backend import Backend
from trio_wsb.errors import BadResponse, HTTPError
from trio_wsb.http.forward import downstream_head
from trio_wsb.http.framing import NO_BODY
from trio_wsb.http.head import ResponseHead
from trio_wsb.http.reader import ResponseReader
from trio_wsb.net.channel import ByteChannel, send_all
from trio_wsb.proxy.client import beside, to_client, watch_client
from trio_wsb.proxy.mirroring import mirror_session
from trio_wsb.proxy.plain import forward_response
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.relaying import choose_relay
from trio_wsb.proxy.request import ProxiedRequest
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.upstream import MAX_INTERIM, Silence, Tries, log_failure, receive_response_head
from trio_wsb.websocket.handshake import check_answer, offered_protocols

QUICK_ANSWER: Final = 0.2
"""Seconds that a backend may take before the client is watched too. Most need less, and a nursery for each is
a tenth of what a handshake costs."""


async def open_session(request: ProxiedRequest) -> Session | None:
    """Open a session for a checked handshake, or pass the backend's refusal on and return None.

    A backend that cannot be reached, or whose connection ends before any answer, is replaced by the next
    best; one that takes too long is not, for it may have acted on the request.

    The session that is returned owns the client's channel; otherwise the caller still does, and must
    close it without reading another request.

    Raises:
      HTTPError: there is no session and nothing was sent to the client yet.
      ClientLeft: the client gave up, or did not take the 101 or the refusal.

    """
    tries = Tries(
        request.proxy.dial,
        request.service,
        request.client,
        request.record,
        request.passage.retry,
        request.sticky,
        request.proxy.places,
    )
    while True:
        backend, upstream = await tries.connect()
        counted_out = False
        try:
            reader = ResponseReader()
            try:
                try:
                    answer = await _ask(request, backend, upstream, reader)
                finally:
                    tries.leave()
                request.record.origin_answered(answer.status, answer.headers, trio.current_time())
                if answer.status == 101:
                    return await _accept(request, backend, upstream, answer, reader, tries.count)
            except Silence:
                counted_out = True
                tries.failed(backend, "the connection ended before an answer")
                upstream.close()
                continue
            except HTTPError as error:
                counted_out = True
                log_failure(request.service.name, backend, error.reason)
                raise
            counted_out = True
            backend.handshake_ended(trio.current_time())
            await beside(
                partial(forward_response, request, upstream, answer, reader, keep_alive=False),
                partial(watch_client, request),
            )
            upstream.close()
            return None
        except BaseException:
            if not counted_out:
                backend.handshake_ended()
            upstream.close()
            raise


async def _ask(
    request: ProxiedRequest, backend: Backend, upstream: ByteChannel, reader: ResponseReader
) -> ResponseHead:
    """Send the handshake and return the backend's final answer."""
    service = request.service
    head = request.head_for(backend, service, request.head, upgrade=True)
    now = trio.current_time()
    deadline = now + (service.transport.response_header_timeout or math.inf)
    rest = _send_at_once(upstream, head)
    if rest:
        with trio.CancelScope(deadline=deadline):
            try:
                await send_all(upstream, rest)
            except OSError as error:
                raise Silence from error
            rest = memoryview(b"")
    if not rest:
        # Under load others have their turn now, and the answer is there when they have had it: to look is cheaper than
        # a scope and a wait, which are a twentieth of a handshake.
        await trio.lowlevel.checkpoint()
        answer = _receive_at_once(upstream, reader, request.proxy.scratch)
        if answer is not None:
            return answer
        receive = partial(_receive_answer, request, upstream, reader)
        # A receive that is cancelled has lost nothing, so that the wait can begin again. One scope is enough for most.
        with trio.CancelScope(deadline=min(deadline, now + QUICK_ANSWER)):
            return await receive()
        with trio.CancelScope(deadline=deadline):
            return await beside(receive, partial(watch_client, request))
    raise HTTPError(504, "the backend did not answer the handshake in time")


def _send_at_once(upstream: ByteChannel, head: bytes) -> memoryview:
    """Write what is taken without waiting, and return the rest."""
    data = memoryview(head)
    try:
        return data[upstream.send(data) :]
    except BlockingIOError:
        return data
    except OSError as error:
        raise Silence from error


def _receive_at_once(
    upstream: ByteChannel, reader: ResponseReader, scratch: memoryview
) -> ResponseHead | None:
    """Return the final answer if it is there; what there is of one is in the reader."""
    try:
        received = upstream.recv_into(scratch)
    except BlockingIOError:
        return None
    except OSError as error:
        raise Silence from error
    if not received:
        raise Silence
    reader.feed(scratch[:received])
    answer = reader.next_head()
    return answer if answer is not None and _is_final(answer) else None


def _is_final(answer: ResponseHead) -> bool:
    """Whether it is no interim answer (RFC 9110 section 15.2), which says nothing that a handshake needs."""
    return answer.status >= 200 or answer.status == 101


async def _receive_answer(
    request: ProxiedRequest, upstream: ByteChannel, reader: ResponseReader
) -> ResponseHead:
    for _ in range(MAX_INTERIM + 1):
        answer = await receive_response_head(upstream, reader, request.proxy.scratch)
        if _is_final(answer):
            return answer
    raise BadResponse("too many interim answers")


async def _accept(
    request: ProxiedRequest,
    backend: Backend,
    upstream: ByteChannel,
    answer: ResponseHead,
    reader: ResponseReader,
    tries: int,
) -> Session:
    """Check the 101, pass it on and make the session."""
    proxy, service, head = request.proxy, request.service, request.head
    check_answer(answer, head.headers.get("sec-websocket-key") or "", offered_protocols(head))
    accepted = request.answered(answer)
    await to_client(request, downstream_head(accepted, upgrade=True, framing=NO_BODY, keep_alive=True))
    # Who has come for the 101 alone, as a probe does, is seen to have left when the others have had their turn.
    await trio.lowlevel.checkpoint()
    early, client = request.reader.take_rest(), request.channel
    if request.mirrors:
        client = mirror_session(request, answer, early)
    relayed = choose_relay(
        proxy.kernel.table, service.relay, client, upstream, mirrored=bool(request.mirrors)
    )
    relay = Relay(
        relayed.client,
        relayed.backend,
        scratch=proxy.scratch,
        write_timeout=service.write_timeout,
        watch=proxy.sweeper.watch,
        limits=service.limits,
        client_early=early + relayed.client_early,
        backend_early=reader.take_rest() + relayed.backend_early,
    )
    return Session(
        relay=relay,
        backend=backend,
        service=service.name,
        router=request.router,
        entry_point=request.entry.name,
        client=request.client_text,
        peer=request.peer.connected,
        host=head.host,
        path=head.path,
        tries=tries,
        relay_kind=relayed.kind,
        relay_reason=relayed.reason,
    )
