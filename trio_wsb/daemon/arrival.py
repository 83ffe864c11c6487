"""The arrival of a connection: what stands between its acceptance and its first request.

    accepted -> PROXY header, where the entry point reads one -> TLS, where it is spoken -> served

Each stage is a function of a module of its own. They share one deadline: the time that a client has until its first
request head is complete (`readTimeout`), however many stages it has to pass.
"""

from __future__ import annotations

import math
import socket

import trio

from trio_wsb.addresses import format_host, parse_ip
from trio_wsb.daemon.proxyheader import receive_peer
from trio_wsb.daemon.tlsarrival import secure
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import Proxy


async def arrive(proxy: Proxy, entry_point: str, sock: socket.socket, address: object) -> None:
    """Take an accepted connection through its stages, and serve it to its end.

    Args:
      proxy: what all connections share.
      entry_point: where it was accepted.
      sock: the connection, non-blocking; closed on every way out.
      address: its peer, as `socket.accept` gives it.

    """
    channel: ByteChannel = SocketChannel(sock)
    try:
        entry = proxy.runtime.entry_points.get(entry_point)
        if entry is None:  # a reload has removed it since the connection was accepted
            return
        deadline = trio.current_time() + (entry.read_timeout or math.inf)
        peer: Peer | None = peer_of(address)
        if entry.proxy_protocol is not None and peer is not None:
            peer = await receive_peer(sock, entry.proxy_protocol, peer, deadline, entry_point=entry_point)
        if peer is None:
            return
        if entry.tls is not None:
            found = await secure(proxy, entry, entry.tls, sock, peer, deadline)
            if found is None:
                return
            channel, peer = found
        await Connection(proxy, entry_point, channel, peer, deadline=deadline).run()
    finally:
        channel.close()


def peer_of(address: object) -> Peer:
    """Return who is at the other end, from what `socket.accept` says of it."""
    match address:
        case (str(host), int(port), *_):
            ip = parse_ip(host)
            return Peer(ip, f"{format_host(str(ip))}:{port}")
        case _:
            return Peer(None, "unix")
