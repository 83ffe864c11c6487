"""The arrival of a connection: what stands between its acceptance and its first request.

    accepted -> its address has a share left -> PROXY header, where the entry point reads one -> TLS, where it is spoken -> served

Each stage is a function of a module of its own. They share one deadline: the time that a client has until its first
request head is complete (`readTimeout`), however many stages it has to pass.
"""

from __future__ import annotations

import math
import socket
from typing import Final

import structlog
import trio

from trio_wsb.addresses import format_host, parse_ip
from trio_wsb.daemon.proxyheader import receive_peer
from trio_wsb.daemon.tlsarrival import secure
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.crowd import Visit
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy
from trio_wsb.proxy.session import Session
from trio_wsb.proxy.turnaway import drop_connection, refuse_connection

log = structlog.stdlib.get_logger("trio_wsb.arrival")

MAX_ANSWERED: Final = 64
"""Connections over an address's share that are told so at a time; more are closed without a word."""


async def arrive(proxy: Proxy, entry_point: str, sock: socket.socket, address: object) -> Session | None:
    """Take an accepted connection through its stages, and serve it until it is a session, which is to be run, or over.

    Args:
      proxy: what all connections share.
      entry_point: where it was accepted.
      sock: the connection, non-blocking; closed on every way out, or the session's.
      address: its peer, as `socket.accept` gives it.

    """
    session: Session | None = None
    channel: ByteChannel = SocketChannel(sock)
    visit: Visit | None = None
    try:
        entry = proxy.runtime.entry_points.get(entry_point)
        if entry is None:  # a reload has removed it since the connection was accepted
            return None
        deadline = trio.current_time() + (entry.read_timeout or math.inf)
        connected = peer_of(address)
        visit = proxy.crowd.visit(entry, connected.address)
        if visit is None:
            await _refuse(proxy, entry, channel, connected)
            return None
        peer = connected
        if entry.proxy_protocol is not None:
            said = await receive_peer(
                sock, entry.proxy_protocol, connected, deadline, entry_point=entry_point
            )
            if said is None:
                return None
            peer = said
            if peer.proxy:  # it is somebody else's connection
                visit.end()
                visit = proxy.crowd.visit(entry, peer.address)
                if visit is None:
                    await _refuse(proxy, entry, channel, peer)
                    return None
        if entry.tls is not None:
            found = await secure(proxy, entry, entry.tls, sock, peer, deadline)
            if found is None:
                return None
            channel, peer = found
        connection = Connection(proxy, entry_point, channel, peer, deadline=deadline, visit=visit)
        session = await connection.serve()
        return session
    finally:
        if session is None:
            if visit is not None:
                visit.end()
            channel.close()


async def _refuse(proxy: Proxy, entry: EntryPointRuntime, channel: ByteChannel, peer: Peer) -> None:
    """End a connection whose address has its share."""
    crowd = proxy.crowd
    if crowd.refused(entry.name, trio.current_time()):
        log.warning(
            "too many connections of one address, refusing more",
            entryPoint=entry.name,
            client=peer.text,
            maxPendingPerAddress=entry.pending_per_address,
            maxConnectionsPerAddress=entry.connections_per_address,
            refused=crowd.refused_total[entry.name],
        )
    # To a client that waits for a ServerHello our words would be noise.
    if entry.tls is not None or crowd.answering >= MAX_ANSWERED:
        drop_connection(proxy, entry.name, channel, peer)
        return
    crowd.answering += 1
    try:
        await refuse_connection(proxy, entry.name, channel, peer, status=429)
    finally:
        crowd.answering -= 1


def peer_of(address: object) -> Peer:
    """Return who is at the other end, from what `socket.accept` says of it."""
    if not isinstance(address, tuple):
        return Peer(None, "unix")
    host, port = address[:2]
    ip = parse_ip(host)
    # The kernel writes an IPv4 address as we do.
    return Peer(ip, f"{format_host(str(ip)) if ':' in host else host}:{port}")
