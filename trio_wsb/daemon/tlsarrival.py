"""The TLS stage of a connection's arrival: looked at, matched with a certificate and options, shaken hands with."""

from __future__ import annotations

import socket
from typing import Final

import structlog
import trio
from attrs import evolve

from trio_wsb.addresses import parse_ip
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.clienthello import (
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    ClientHello,
    ClientHelloError,
)
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.net.tls import TLSChannel
from trio_wsb.net.tlsserver import HandshakeError, peek_client_hello, say_goodbye, shake_hands
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.runtime import EntryPointRuntime, Proxy
from trio_wsb.proxy.secure import Secured, TLSEntry

log = structlog.stdlib.get_logger("trio_wsb.tls")

HANDSHAKE_TIME: Final = 10.0
"""Seconds that a client may keep a place among the handshakes; what is left of `readTimeout` if that is less."""

_PROTOCOL: Final = b"http/1.1"


async def secure(
    proxy: Proxy, entry: EntryPointRuntime, tls: TLSEntry, sock: socket.socket, peer: Peer, deadline: float
) -> tuple[ByteChannel, Peer] | None:
    """Secure an accepted connection if its client speaks TLS.

    Args:
      proxy: what all connections share.
      entry: where it was accepted.
      tls: what the entry point serves TLS with.
      sock: the connection; belongs to the channel that is returned, and is closed on every other way out.
      peer: who is at its other end.
      deadline: when it must be over, on Trio's clock.

    Returns:
      The channel and the peer to go on with, plain ones for a client that does not speak TLS; None when the
      connection is over, and was accounted for.

    """
    hello: ClientHello | None = None
    try:
        with trio.move_on_at(deadline) as waiting:
            hello = await peek_client_hello(sock, proxy.scratch)
        if waiting.cancelled_caught:
            # One that never said anything was opened in advance, or looks whether we are there.
            if _has_said_something(sock):
                _failed(proxy, entry, peer, "no complete ClientHello came in time")
            sock.close()
            return None
        if hello is None:
            return SocketChannel(sock), peer
        return await _serve(proxy, entry, tls, sock, peer, hello, deadline)
    except (ClientHelloError, HandshakeError) as error:
        _failed(proxy, entry, peer, error.reason, hello)
        await say_goodbye(sock, error, proxy.scratch)
    except OSError:
        log.debug("connection lost before the TLS handshake", client=peer.text, entryPoint=entry.name)
        sock.close()
    except BaseException:
        sock.close()
        raise
    return None


async def _serve(
    proxy: Proxy,
    entry: EntryPointRuntime,
    tls: TLSEntry,
    sock: socket.socket,
    peer: Peer,
    hello: ClientHello,
    deadline: float,
) -> tuple[ByteChannel, Peer] | None:
    """Do the handshake that `hello` asks for.

    Raises:
      ClientHelloError, HandshakeError: it failed.

    """
    if hello.protocols is not None and _PROTOCOL not in hello.protocols:
        # RFC 7301 section 3.2. OpenSSL would go on without a protocol, and an HTTP/2 preface come next.
        raise ClientHelloError("the client does not offer http/1.1", NO_APPLICATION_PROTOCOL)
    terms, context = tls.choose(hello.server_name, _local_address(sock))
    if context is None:
        raise ClientHelloError("no certificate has the name that the client asks for", UNRECOGNIZED_NAME)
    handshakes = proxy.handshakes
    places = handshakes.places(entry.name, tls.max_handshakes)
    # Not before the ClientHello is here: silent connections must not be able to take all places.
    with trio.move_on_at(deadline) as waiting:
        await places.acquire()
    if waiting.cancelled_caught:
        if handshakes.refused(entry.name, trio.current_time()):
            log.warning(
                "too many TLS handshakes at once, refusing connections",
                entryPoint=entry.name,
                maxTLSHandshakes=tls.max_handshakes,
                refused=handshakes.refused_total[entry.name],
            )
        sock.close()
        return None
    channel: TLSChannel | None = None
    handshakes.under_way[entry.name] += 1
    try:
        with trio.move_on_at(min(deadline, trio.current_time() + HANDSHAKE_TIME)):
            channel = await shake_hands(sock, context, handshakes.turn)
    finally:
        handshakes.under_way[entry.name] -= 1
        places.release()
    if channel is None:
        _failed(proxy, entry, peer, "the handshake was not complete in time", hello)
        return None
    handshakes.completed_total[entry.name] += 1
    version, cipher = channel.agreed()
    return channel, evolve(peer, secured=Secured(terms, hello.server_name, version, cipher))


def _failed(
    proxy: Proxy, entry: EntryPointRuntime, peer: Peer, reason: str, hello: ClientHello | None = None
) -> None:
    proxy.handshakes.failed_total[entry.name] += 1
    name = {"serverName": hello.server_name} if hello is not None and hello.server_name else {}
    log.info("TLS handshake failed", client=peer.text, entryPoint=entry.name, reason=reason, **name)


def _has_said_something(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _local_address(sock: socket.socket) -> str:
    """Return the address that the client connected to, "" for a Unix socket."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return ""
    return str(parse_ip(sock.getsockname()[0]))
