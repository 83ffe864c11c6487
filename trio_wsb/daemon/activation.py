"""Sockets that the service manager has opened for us and hands over, as sd_listen_fds(3) describes it.

They arrive as descriptors from 3 on, counted by LISTEN_FDS, addressed by LISTEN_PID and named by
LISTEN_FDNAMES (FileDescriptorName= of a socket unit). An entry point takes those that have its name, and those
that are bound to its address under a name that no entry point has.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping

from attrs import define

from trio_wsb.addresses import ListenAddress, parse_ip
from trio_wsb.errors import ConfigurationError

FIRST = 3
"""The first descriptor handed over: SD_LISTEN_FDS_START."""

UNNAMED = "unknown"
"""The name that sd_listen_fds_with_names(3) gives where the manager gave none."""

VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES")

_KINDS = {
    socket.SOCK_STREAM: "stream",
    socket.SOCK_DGRAM: "datagram",
    socket.SOCK_SEQPACKET: "sequential-packet",
}


@define(eq=False)
class InheritedSocket:
    """A listening socket from the service manager, which keeps a copy and may listen on when we do not."""

    name: str
    sock: socket.socket

    @property
    def address(self) -> ListenAddress:
        """Where it listens."""
        return bound_address(self.sock)

    def fits(self, wanted: ListenAddress) -> bool:
        """Whether it listens where an entry point with the address `wanted` would."""
        address = self.address
        if wanted.path or address.path:
            return wanted.path == address.path
        host, port = address.host, address.port
        if port != wanted.port:
            return False
        try:
            bound = parse_ip(host)
            return bound.is_unspecified if not wanted.host else bound == parse_ip(wanted.host)
        except ValueError:  # a host name: what it means may change, so it is matched by name only
            return False


def bound_address(sock: socket.socket) -> ListenAddress:
    """Return where a listening socket is bound."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        # An abstract one, which no file guards, has its name after a NUL.
        return ListenAddress("", 0, os.fsdecode(name).replace("\0", "@"))
    return ListenAddress(name[0], name[1])


def assign(
    sockets: Iterable[InheritedSocket], wanted: Mapping[str, ListenAddress]
) -> dict[InheritedSocket, str]:
    """Return which of the entry points in `wanted` takes which of the sockets; the others are not in it."""
    assigned: dict[InheritedSocket, str] = {}
    for each in sockets:
        fitting = (name for name, address in wanted.items() if each.fits(address))
        name = each.name if each.name in wanted else next(fitting, None)
        if name is not None:
            assigned[each] = name
    return assigned


def take_sockets(
    environment: MutableMapping[str, str], *, pid: int, first: int = FIRST
) -> list[InheritedSocket]:
    """Return the sockets that the variables of `environment` hand to the process `pid`; removes the variables.

    The sockets are the caller's; they do not block, and programs started later do not get them.

    Raises:
      ConfigurationError: something was handed over that no entry point can listen on; all of it is closed.

    """
    values = {name: environment.pop(name, "") for name in VARIABLES}
    if values["LISTEN_PID"] != str(pid) or not values["LISTEN_FDS"]:
        return []
    if not (values["LISTEN_FDS"].isascii() and values["LISTEN_FDS"].isdigit()):
        raise ConfigurationError(["LISTEN_FDS: is not a number"])
    count = int(values["LISTEN_FDS"])
    names = values["LISTEN_FDNAMES"].split(":") if values["LISTEN_FDNAMES"] else [UNNAMED] * count
    if len(names) != count:
        raise ConfigurationError([f"LISTEN_FDNAMES: has {len(names)} names for {count} descriptors"])
    taken: list[InheritedSocket] = []
    problems = []
    for descriptor, name in enumerate(names, first):
        try:
            taken.append(InheritedSocket(name, _take(descriptor)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(f'LISTEN_FDS: descriptor {descriptor} ("{name}") {reason}')
    if problems:
        for each in taken:
            each.sock.close()
        raise ConfigurationError(problems)
    return taken


def _take(descriptor: int) -> socket.socket:
    """Return the socket behind `descriptor`, ready to be used; closes the descriptor if it cannot be."""
    try:
        os.set_inheritable(descriptor, False)
    except OSError:
        raise ValueError("is not open") from None
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise ValueError("is not a socket") from None
    try:
        _judge(sock)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _judge(sock: socket.socket) -> None:
    if sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        raise ValueError("is neither an IP nor a Unix socket (write ListenStream=PORT or ListenStream=/PATH)")
    if sock.type != socket.SOCK_STREAM:
        kind = _KINDS.get(sock.type, "raw")
        raise ValueError(f"is a {kind} socket (an entry point listens on streams; write ListenStream=)")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("does not listen (a socket unit for this service has Accept=no)")
