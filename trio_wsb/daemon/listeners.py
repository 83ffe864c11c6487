"""The listeners of all entry points, and how a reload changes them without closing one that stays."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import structlog
import trio
from attrs import define, field

from trio_wsb.addresses import ListenAddress
from trio_wsb.config.entrypoints import UnixSocket
from trio_wsb.daemon.activation import InheritedSocket, assign, bound_address
from trio_wsb.daemon.unixsocket import listen_unix
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.listener import accept_forever, bind
from trio_wsb.net.unix import UnixListener

log = structlog.stdlib.get_logger("trio_wsb.listeners")

Accepted = Callable[[str, socket.socket, object], None]
"""Called with an entry point's name, a connection that it accepted and hands over, and the peer's address."""


Opened: TypeAlias = socket.socket | UnixListener
"""A listening socket of ours; closing that of a path takes its name away too."""

_Source: TypeAlias = ListenAddress | InheritedSocket
"""Where a listening socket comes from: bound by us to an address as it is configured, or handed over."""


@define(eq=False)
class _Listener:
    """One listening socket. `entry_point` may change: the name is configuration, the source is the identity."""

    source: _Source
    opened: InheritedSocket | Opened
    entry_point: str
    waits: bool = False
    """Whether its clients wait, because this process has no descriptors for them."""
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    @property
    def sock(self) -> socket.socket:
        """What is listened with."""
        return self.opened if isinstance(self.opened, socket.socket) else self.opened.sock

    @property
    def address(self) -> ListenAddress:
        """Where it really listens: port 0 was a wish, but a path is what it is."""
        if isinstance(self.source, ListenAddress) and self.source.path:
            return self.source  # the socket itself knows only the name under which it was made
        return bound_address(self.sock)

    def pauses(self, waits: bool) -> None:
        """Note whether clients have to wait from now on."""
        self.waits = waits

    @property
    def inherited(self) -> bool:
        """Whether the socket stays open when nobody accepts its connections any more."""
        return isinstance(self.source, InheritedSocket)

    def told(self) -> dict[str, str]:
        """Return the fields of a log line about it."""
        fields = {"entryPoint": self.entry_point, "address": str(self.address)}
        return {**fields, "source": "systemd"} if self.inherited else fields


class ListenerSet:
    """Owns the listening sockets; `apply` makes them what a configuration says.

    Sockets are kept by the address as it is configured, so that one that stays is never closed, not even for
    a moment: connections that wait in its queue would be lost.

    Sockets that the service manager handed over go before the configured address of their entry point. They
    are never closed before `close`, even when a reload takes their entry point away: the manager listens on
    with its copy, so the address would not become free, and the next reload may want them again.
    """

    def __init__(self, accepted: Accepted, inherited: Sequence[InheritedSocket] = ()) -> None:
        self._accepted = accepted
        self._inherited = list(inherited)
        self._listeners: dict[_Source, _Listener] = {}

    def bind_new(
        self,
        wanted: Mapping[str, ListenAddress],
        shared: Collection[str] = (),
        unix: Mapping[str, UnixSocket] | None = None,
    ) -> dict[ListenAddress, Opened]:
        """Return listening sockets for the addresses that are not listened on yet; all or none.

        Args:
          wanted: the address of each entry point.
          shared: the entry points that leave room for other instances at their address.
          unix: who may connect to those that listen at a path.

        Raises:
          ConfigurationError: an address cannot be listened on; nothing has changed.

        """
        fresh: dict[ListenAddress, Opened] = {}
        problems: list[str] = []
        for address, name in self._sources(wanted).items():
            if isinstance(address, InheritedSocket) or address in self._listeners:
                continue
            try:
                if address.path:
                    options = (unix or {}).get(name, UnixSocket())
                    fresh[address] = listen_unix(address.path, options, name)
                else:
                    fresh[address] = bind(address, reuse_port=name in shared)
            except ConfigurationError as error:
                problems += error.problems
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                problems.append(f"entryPoints.{name}.address: cannot listen on {address}: {reason}")
        if problems:
            for opened in fresh.values():
                opened.close()
            raise ConfigurationError(problems)
        return fresh

    def apply(
        self,
        wanted: Mapping[str, ListenAddress],
        fresh: Mapping[ListenAddress, Opened],
        nursery: trio.Nursery,
    ) -> None:
        """Listen on exactly the `wanted` addresses: take over the `fresh` sockets, close those no longer wanted."""
        sources = self._sources(wanted)
        for source in [source for source in self._listeners if source not in sources]:
            self._listeners.pop(source).scope.cancel()
        for source, name in sources.items():
            if source in self._listeners:
                self._listeners[source].entry_point = name
                continue
            opened = source if isinstance(source, InheritedSocket) else fresh[source]
            listener = self._listeners[source] = _Listener(source, opened, name)
            nursery.start_soon(self._serve, listener)
            log.info("listening", **listener.told())

    def drop_unclaimed(self) -> None:
        """Close and name the sockets that were handed over and that no entry point has taken; once, at the start."""
        for each in [each for each in self._inherited if each not in self._listeners]:
            log.warning(
                "no entry point takes a socket from systemd",
                name=each.name,
                address=str(each.address),
                hint="set FileDescriptorName= to the name of an entry point",
            )
            each.sock.close()
            self._inherited.remove(each)

    def close(self) -> None:
        """Close the sockets that were handed over; all others are closed when their accept loop is cancelled."""
        for each in self._inherited:
            each.sock.close()

    def bound(self) -> list[tuple[str, str]]:
        """Return entry points and the addresses that they really listen on (port 0 was a wish); one may have several."""
        return [
            (listener.entry_point, str(listener.address))
            for listener in self._listeners.values()
            if listener.sock.fileno() != -1  # closed when a stop has begun
        ]

    def waiting(self) -> set[str]:
        """Return the entry points whose clients wait, because this process has no descriptors for them."""
        return {listener.entry_point for listener in self._listeners.values() if listener.waits}

    def _sources(self, wanted: Mapping[str, ListenAddress]) -> dict[_Source, str]:
        """Return what is to be listened on, and for which entry point; several sockets may serve one."""
        sources: dict[_Source, str] = dict(assign(self._inherited, wanted).items())
        served = set(sources.values())
        sources.update((address, name) for name, address in wanted.items() if name not in served)
        return sources

    async def _serve(self, listener: _Listener) -> None:
        told = listener.told()  # a closed socket has no address
        try:
            with listener.scope:
                await accept_forever(
                    listener.sock,
                    lambda: listener.entry_point,
                    lambda sock, peer: self._accepted(listener.entry_point, sock, peer),
                    waits=listener.pauses,
                )
        finally:
            if not isinstance(listener.opened, InheritedSocket):
                listener.opened.close()
        # A reload has taken it away. Said once it is true, for whoever waits for the address or the path.
        told["entryPoint"] = listener.entry_point
        if listener.inherited:
            log.warning(
                "no longer accepting, but systemd listens on",
                **told,
                hint="stop the socket unit, or clients will wait",
            )
        else:
            log.info("no longer listening", **told)
