"""The stage of arrival that reads a PROXY header: who the client is, as the proxy in front of us says it.

As in Traefik, a header may be missing (a health check of the proxy's has none), and a header of a peer that is not
trusted is read and not believed. What begins as a header and is none ends the connection without a word: whoever sent
it does not expect an answer to it.
"""

from __future__ import annotations

import socket
from typing import Final

import structlog
import trio
from attrs import evolve

from trio_wsb.addresses import format_host
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.peek import peek, take
from trio_wsb.net.proxyheader import MAX_V2, ProxyHeader, ProxyHeaderError, parse_header
from trio_wsb.proxy.peer import Peer

log = structlog.stdlib.get_logger("trio_wsb.arrival")

_DRAINED: Final = 65536
_NO_TIME: Final = "the PROXY header did not come in time"
_CUT_OFF: Final = "the PROXY header was cut off"


async def receive_peer(
    sock: socket.socket, policy: ForwardPolicy, peer: Peer, deadline: float, *, entry_point: str
) -> Peer | None:
    """Take the PROXY header off the connection, and return who the client is; None for one that is to be closed.

    Exactly the header's bytes are taken; what follows stays for whoever is next.

    Args:
      sock: the connection; stays the caller's.
      policy: whose headers are believed.
      peer: who has connected.
      deadline: when the header must be there, on Trio's clock.
      entry_point: its name, for the log.

    """
    needed, certain = 1, False
    try:
        with trio.move_on_at(deadline):
            while True:
                data = await peek(sock, needed, MAX_V2)
                found = parse_header(data)
                if found is None:
                    return peer
                if isinstance(found, ProxyHeader):
                    take(sock, found.size)
                    return _believed(found, policy, peer, entry_point)
                certain = found.certain
                if len(data) < needed:  # it ended
                    if certain:
                        _refuse(sock, entry_point, peer, _CUT_OFF)
                    return None if certain else peer
                needed = found.needed
        if not certain:
            # Nothing, or a few bytes of whatever: it is late for a request too, and that is answered as such.
            return peer if needed > 1 else None
        _refuse(sock, entry_point, peer, _NO_TIME)
    except ProxyHeaderError as error:
        _refuse(sock, entry_point, peer, str(error))
    except OSError:
        pass  # reset by its client already
    return None


def _believed(header: ProxyHeader, policy: ForwardPolicy, peer: Peer, entry_point: str) -> Peer | None:
    if header.source is None:
        return peer
    if not policy.trusts(peer.address):
        log.debug("PROXY header of an untrusted peer ignored", client=peer.text, entryPoint=entry_point)
        return peer
    text = f"{format_host(str(header.source))}:{header.port}"
    return evolve(peer, address=header.source, text=text, proxy=peer.connected)


def _refuse(sock: socket.socket, entry_point: str, peer: Peer, reason: str) -> None:
    try:
        sock.recv(_DRAINED)  # a close with unread bytes would reset the connection
    except OSError:
        pass
    log.info("connection refused", client=peer.text, entryPoint=entry_point, reason=reason)
