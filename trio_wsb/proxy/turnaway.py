"""Connections that are turned away before anybody reads a request of theirs: over a limit of the entry point or of their address.

Observers are told of each as of a request that never came: it has no head, and its status is what the client was sent, 0 for
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trio_wsb.http.answers import content_size, error_response
from trio_wsb.net.channel import ByteChannel, linger
from trio_wsb.proxy.record import RequestRecord, Stage, tell

if TYPE_CHECKING:
    from trio_wsb.proxy.peer import Peer
    from trio_wsb.proxy.runtime import Proxy

REFUSAL_TIMEOUT: Final = 2.0
"""Seconds that a refused client gets to read its answer."""

REFUSAL_LIMIT: Final = 1 << 20
"""Bytes that a refused client may still send meanwhile."""

REASON: Final = "too many connections"


def drop_connection(proxy: Proxy, entry_point: str, channel: ByteChannel, peer: Peer) -> None:
    """Close a connection over a limit without a word."""
    _tell(proxy, entry_point, peer, 0, 0)
    channel.close()


async def refuse_connection(
    proxy: Proxy, entry_point: str, channel: ByteChannel, peer: Peer, status: int = 503
) -> None:
    """Answer a connection over a limit without reading its request, and close it.

    `status` is 503 when the entry point is full, 429 (RFC 6585 section 4) when the client's address has its share.
    """
    answer = error_response(status, REASON, (("Retry-After", "5"),), date=proxy.date())
    try:
        channel.send(answer)
    except OSError:
        drop_connection(proxy, entry_point, channel, peer)
        return
    _tell(proxy, entry_point, peer, status, content_size(answer))
    await linger(channel, proxy.scratch, seconds=REFUSAL_TIMEOUT, limit=REFUSAL_LIMIT)


def _tell(proxy: Proxy, entry_point: str, peer: Peer, status: int, size: int) -> None:
    now = trio.current_time()
    record = RequestRecord(
        entry_point,
        peer,
        proxy.next_request(),
        now,
        proxy.date() or 0.0,
        stage=Stage.ARRIVAL,
        status=status,
        bytes_out=size,
        reason=REASON,
        ended=now,
    )
    tell(proxy.observers, lambda observer: observer.request_ended(record))
