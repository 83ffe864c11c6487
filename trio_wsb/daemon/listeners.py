"""The listeners of all entry points, and how a reload changes them without closing one that stays."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

import structlog
import trio
from attrs import define

from trio_wsb.addresses import ListenAddress
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.listener import accept_forever, bind

log = structlog.stdlib.get_logger("trio_wsb.listeners")

Accepted = Callable[[str, socket.socket, object], None]
"""Called with an entry point's name, a connection that it accepted and hands over, and the peer's address."""


@define(eq=False)
class _Listener:
    """One listening socket. `entry_point` may change: the name is configuration, the address is the identity."""

    sock: socket.socket
    entry_point: str
    scope: trio.CancelScope


class ListenerSet:
    """Owns the listening sockets; `apply` makes them what a configuration says.

    Sockets are kept by the address as it is configured, so that one that stays is never closed, not even for
    a moment: connections that wait in its queue would be lost.
    """

    def __init__(self, accepted: Accepted) -> None:
        self._accepted = accepted
        self._listeners: dict[ListenAddress, _Listener] = {}

    def bind_new(self, wanted: Mapping[str, ListenAddress]) -> dict[ListenAddress, socket.socket]:
        """Return listening sockets for the addresses that are not listened on yet; all or none.

        Raises:
          ConfigurationError: an address cannot be listened on; nothing has changed.

        """
        fresh: dict[ListenAddress, socket.socket] = {}
        problems = []
        for name, address in wanted.items():
            if address in self._listeners or address in fresh:
                continue
            try:
                fresh[address] = bind(address)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                problems.append(f"entryPoints.{name}.address: cannot listen on {address}: {reason}")
        if problems:
            for sock in fresh.values():
                sock.close()
            raise ConfigurationError(problems)
        return fresh

    def apply(
        self,
        wanted: Mapping[str, ListenAddress],
        fresh: Mapping[ListenAddress, socket.socket],
        nursery: trio.Nursery,
    ) -> None:
        """Listen on exactly the `wanted` addresses: take over the `fresh` sockets, close those no longer wanted."""
        addresses = {address: name for name, address in wanted.items()}
        for address in [address for address in self._listeners if address not in addresses]:
            listener = self._listeners.pop(address)
            listener.scope.cancel()
            log.info(
                "no longer listening", entryPoint=listener.entry_point, address=_bound_name(listener.sock)
            )
        for address, name in addresses.items():
            if address in fresh:
                self._listeners[address] = _Listener(fresh[address], name, trio.CancelScope())
                nursery.start_soon(self._serve, self._listeners[address])
                log.info("listening", entryPoint=name, address=_bound_name(fresh[address]))
            else:
                self._listeners[address].entry_point = name

    def bound(self) -> list[tuple[str, str]]:
        """Return each entry point's name and the address that it really listens on (port 0 was a wish)."""
        return [(listener.entry_point, _bound_name(listener.sock)) for listener in self._listeners.values()]

    async def _serve(self, listener: _Listener) -> None:
        with listener.scope, listener.sock:
            await accept_forever(
                listener.sock,
                lambda: listener.entry_point,
                lambda sock, peer: self._accepted(listener.entry_point, sock, peer),
            )


def _bound_name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return str(ListenAddress(host, port))
