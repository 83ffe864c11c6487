"""TCP: the socket channel, dialling, and the options that both legs of a session get."""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from attrs import frozen

from trio_wsb.addresses import parse_ip
from trio_wsb.errors import DialError
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.poller import Watched, watch

KEEPALIVE_IDLE = 30
"""Seconds of silence before TCP asks whether the peer is still there."""

KEEPALIVE_IDLE_SPREAD = 11
"""Seconds by which connections differ in that, by their descriptors."""

KEEPALIVE_INTERVAL = 10
"""Seconds between two such questions."""

KEEPALIVE_INTERVAL_SPREAD = 3
"""Seconds by which they differ in that."""

KEEPALIVE_COUNT = 3
"""Unanswered questions that end the connection: a dead peer is found within a minute."""

USER_TIMEOUT_MS = 60_000
"""How long sent bytes may go unacknowledged (RFC 5482): keepalive does not run while bytes are in flight."""

_Address: TypeAlias = tuple[str | bytes, int] | tuple[str, int, int, int] | tuple[int, bytes]

SocketAddress: TypeAlias = tuple[int, _Address]
"""A family, and an address of it with its port."""


@frozen
class Found:
    """What a name stands for: its addresses, at least one, each with the port."""

    addresses: Sequence[SocketAddress]
    doubt: Callable[[], None] = lambda: None
    """To be called when none of them could be connected to, since the name may have moved; keeps nobody waiting."""


FindAddresses: TypeAlias = Callable[[str, int], Awaitable[Found]]
"""Returns what is known of a name, with the port; raises DialError with the stage "resolve"."""

OWN_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What a call fails with when this process or host is out of descriptors or memory: no peer has a part in it."""

_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})

# As plain numbers: those of the enumeration are looked up anew by each socket that is made.
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def set_session_options(sock: socket.socket) -> None:
    """Set what long-lived connections need: no Nagle delay, and a dead peer found in about a minute."""
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        _set_tcp_options(sock)


def _set_tcp_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Spread, since thousands that opened together would ask together, again and again: where so many packets at once are
    # lost (a host's own backlog holds a thousand), live connections were given up after a minute.
    number = sock.fileno()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE - number % KEEPALIVE_IDLE_SPREAD)
    sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL - number % KEEPALIVE_INTERVAL_SPREAD
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def has_session_options(sock: socket.socket) -> bool:
    """Whether `set_session_options` was called for `sock`, or for the listener that it came from before it came."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return True
    # The last one that it sets, and the one that nobody else does.
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS


def set_reset_on_close(sock: socket.socket) -> None:
    """Make the coming close of `sock` throw unsent bytes away and reset the connection."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # closed already


def check_open(sock: socket.socket) -> None:
    """Raise `trio.ClosedResourceError` if `sock` is closed; Trio itself raises ValueError for the lost descriptor."""
    if sock.fileno() == -1:
        raise trio.ClosedResourceError


_NOBODY = socket.socket()
_NOBODY.close()


class SocketChannel(ByteChannel):
    """A byte channel over a connected, non-blocking stream socket, which it owns from then on."""

    __slots__ = ("_sock", "_watched", "recv_into", "send")

    can_half_close = True

    if TYPE_CHECKING:
        recv_into: Callable[..., int]
        send: Callable[..., int]

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._watched: Watched | None = None
        # The socket's own methods, not wrappers around them: this is the relay's hot path.
        self.recv_into = sock.recv_into
        self.send = sock.send

    @property
    def socket(self) -> socket.socket:
        """The socket, which stays the channel's."""
        return self._sock

    @property
    def is_tcp(self) -> bool:
        """Whether it is TCP, and no Unix socket."""
        return self._sock.family in {socket.AF_INET, socket.AF_INET6}

    def disown(self) -> None:
        """Leave the socket to somebody else, who has it already; the channel is closed from then on."""
        if self._watched is not None:
            self._watched.give_up()
            self._watched = None
        self._sock = _NOBODY
        self.recv_into, self.send = _NOBODY.recv_into, _NOBODY.send

    def wait_readable(self) -> Awaitable[None]:
        watched = self._watched
        if watched is None:
            check_open(self._sock)
            watched = self._watched = watch(self._sock)
        return watched.wait()

    def wait_writable(self) -> Awaitable[None]:
        check_open(self._sock)
        return trio.lowlevel.wait_writable(self._sock)

    def has_ended(self) -> bool:
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:  # that there is nothing, or that it broke, which the next receive says
            return False

    def shutdown(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self.release()

    def release(self) -> None:
        if self._watched is not None:
            self._watched.forget()
            self._watched = None
        self._sock.close()

    def abort(self) -> None:
        set_reset_on_close(self._sock)
        self.close()


async def dial_tcp(
    host: str, port: int, *, deadline: float = math.inf, addresses: FindAddresses | None = None
) -> socket.socket:
    """Connect to `host`, a name or an address, and return the connected, non-blocking socket.

    A name's addresses are tried one after another, in the resolver's order; when none accepts, or not in time, they
    are doubted. The caller owns the socket.

    Args:
      host: whom to connect to.
      port: where.
      deadline: Trio time at which it is given up.
      addresses: finds the addresses of a name; None asks the system each time.

    Raises:
      DialError: the name does not resolve (stage "resolve"), no address accepts ("connect"), it took too
        long ("timeout"), or this host is short of something ("own").

    """
    address = _literal(host)
    if address:
        sock, connected = _begin(_IPV6 if ":" in address else _IPV4, (address, port))
        if not connected:
            with _given_up_at(deadline):
                await _finish(sock)
        return sock
    with _given_up_at(deadline, "no answer about its name in time"):
        found = Found(await ask_system(host, port)) if addresses is None else await addresses(host, port)
    try:
        with _given_up_at(deadline):
            return await _dial_any(found.addresses)
    except DialError as error:
        if error.stage != "own":
            found.doubt()
        raise


@lru_cache(maxsize=4096)
def _literal(host: str) -> str:
    """Return the address that `host` writes, "" if it is a name."""
    try:
        return str(parse_ip(host)) if host[:1].isdigit() or ":" in host else ""
    except ValueError:
        return ""


@contextmanager
def _given_up_at(deadline: float, reason: str = "no connection in time") -> Iterator[None]:
    with trio.CancelScope(deadline=deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise DialError("timeout", reason)


async def ask_system(host: str, port: int) -> Sequence[SocketAddress]:
    """Return the addresses of a name, as the system's resolver has them (a thread of its own asks it).

    Raises:
      DialError: the name does not resolve, stage "resolve".

    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DialError(
            "resolve", getattr(error, "strerror", None) or "the name cannot be looked up"
        ) from error
    if not found:
        raise DialError("resolve", "the name has no address")
    return [(family, address) for family, _, _, _, address in found]


async def _dial_any(addresses: Sequence[SocketAddress]) -> socket.socket:
    last: DialError | None = None
    for family, address in addresses:
        try:
            sock, connected = _begin(family, address)
            if not connected:
                await _finish(sock)
            return sock
        except DialError as error:
            last = error
    assert last is not None, "a name has at least one address"
    raise last


# `trio.open_tcp_stream` would do, but its happy eyeballs cost a nursery and several tasks for an address that
# is already known: half of the handshakes per second.


def _begin(family: int, address: _Address) -> tuple[socket.socket, bool]:
    """Begin to connect, and return the socket and whether it is connected already."""
    try:
        sock = socket.socket(family, _STREAM)
    except OSError as error:
        raise _dial_error(error.errno) from error
    try:
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            # A backend on this host, whose part the kernel did meanwhile: asking once more is cheaper than epoll.
            code = sock.connect_ex(address)
        if code and code not in _UNDER_WAY:
            raise _dial_error(code)
        _set_tcp_options(sock)
    except OSError as error:
        sock.close()
        raise _dial_error(error.errno) from error
    except BaseException:
        sock.close()
        raise
    return sock, not code


async def _finish(sock: socket.socket) -> None:
    """Wait until `sock` is connected; closes it when it will not be."""
    try:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise DialError("connect", _strerror(code))
    except BaseException:
        sock.close()
        raise


def _dial_error(code: int | None) -> DialError:
    return DialError("own" if code in OWN_SHORTAGES else "connect", _strerror(code))


def _strerror(code: int | None) -> str:
    return os.strerror(code).lower() if code else "failed"
