"""Listening: sockets for an entry point, and the accept loop that survives every error a stranger can cause."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable

import structlog
import trio

from trio_wsb.addresses import ListenAddress
from trio_wsb.net.sockets import OWN_SHORTAGES, has_session_options, set_session_options

log = structlog.stdlib.get_logger("trio_wsb.net.listener")

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel caps it at net.core.somaxconn."""

ACCEPT_PAUSE = 0.1
"""Seconds before accepting is tried again when the process or the system is out of descriptors or memory."""

ACCEPT_BATCH = 64
"""Connections accepted before other tasks run: a reconnect storm must not starve the live sessions."""

RESERVE = 64
"""Descriptors that are not for clients, at most an eighth of all: with the last one taken by a client nobody could dial for
those who are in, ask backends how they are, or ask the control socket what is wrong."""

_FATAL = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


def bind(address: ListenAddress, *, reuse_port: bool = False) -> socket.socket:
    """Return a listening, non-blocking socket for `address`; the caller owns it.

    An empty host means every address of both families, or of IPv4 only where IPv6 is switched off. With `reuse_port`
    others who say so too may listen there beside us (SO_REUSEPORT in socket(7)).

    Raises:
      OSError: the address is in use, not of this host or not permitted.

    """
    if address.host:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return _listen(family, address.host, address.port, reuse_port=reuse_port)
    try:
        return _listen(socket.AF_INET6, "::", address.port, reuse_port=reuse_port)
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
    any_ipv4 = "0.0.0.0"  # noqa: S104 - an empty host asks for it
    return _listen(socket.AF_INET, any_ipv4, address.port, reuse_port=reuse_port)


def _listen(family: socket.AddressFamily, host: str, port: int, *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Without it a restart would have to wait for the old connections' TIME_WAIT to pass.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        # Linux hands them on to what is accepted later, which spares each connection six calls of the system.
        set_session_options(sock)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def most_for_clients() -> int:
    """Return the number from which on descriptors are not for clients; the lowest free one is always taken (socket(2))."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit - min(RESERVE, limit // 8)


async def accept_forever(
    listener: socket.socket,
    entry_point: Callable[[], str],
    handle: Callable[[socket.socket, object], None],
    *,
    clients: bool = True,
    waits: Callable[[bool], None] = lambda _: None,
) -> None:
    """Accept connections and hand each to `handle`, which owns it, until cancelled or the listener is closed.

    Errors of a single connection are passed over. When descriptors or memory run out, or only the `RESERVE` is left,
    accepting pauses for `ACCEPT_PAUSE` seconds at a time (spinning would take the processor from the live sessions, and
    giving up would end the service). One line says so, and another one that nobody waits any more.

    Args:
      listener: a listening, non-blocking socket; stays the caller's.
      entry_point: gives the name for the log; a reload may change it.
      handle: called with a non-blocking socket that has the session options, and its peer's address; must not block or raise.
      clients: whether these connections may not have what is reserved.
      waits: called with True when accepting begins to pause, and with False when that is over; must not block or raise.

    """
    exhausted = False
    most = 0
    handed_on = listener.fileno() != -1 and has_session_options(listener)
    while listener.fileno() != -1:
        try:
            await trio.lowlevel.wait_readable(listener)
        except trio.ClosedResourceError:
            return
        for _ in range(ACCEPT_BATCH):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                if exhausted:
                    # Only now: at the limit each end of a session makes room for one, and that is no news.
                    exhausted = False
                    log.info("accepting connections again", entryPoint=entry_point())
                    waits(False)
                break
            except OSError as error:
                if error.errno in _FATAL:
                    return
                if error.errno in OWN_SHORTAGES:
                    if not exhausted:
                        exhausted = True
                        _log_exhausted(entry_point(), os.strerror(error.errno))
                        waits(True)
                    await trio.sleep(ACCEPT_PAUSE)
                    break
                continue  # ECONNABORTED and the network errors that accept(2) passes on: the client's loss only
            if clients and sock.fileno() >= most and sock.fileno() >= (most := most_for_clients()):
                if not exhausted:
                    exhausted = True
                    _log_exhausted(entry_point(), os.strerror(errno.EMFILE))
                    waits(True)
                sock = await _until_there_is_room(sock, most)
            try:
                sock.setblocking(False)
                if not handed_on:
                    set_session_options(sock)
            except OSError:
                sock.close()  # reset by its client already
                continue
            handle(sock, peer)


def _log_exhausted(entry_point: str, reason: str) -> None:
    log.error("cannot accept connections, waiting", entryPoint=entry_point, error=reason)


async def _until_there_is_room(sock: socket.socket, most: int) -> socket.socket:
    """Return `sock` once it has, or can have, a descriptor below `most`; owns it until then."""
    try:
        while sock.fileno() >= most:
            await trio.sleep(ACCEPT_PAUSE)
            # Others may have it by now: the number says whether there is room, and then it is the connection's own.
            try:
                lower = os.dup(sock.fileno())
            except OSError:
                continue
            if lower < sock.fileno():
                sock.close()
                sock = socket.socket(fileno=lower)
            else:
                os.close(lower)
    except BaseException:
        sock.close()
        raise
    return sock
