"""Questions to the system's resolver, in threads of their own.

getaddrinfo(3) blocks, for half a minute where no name server answers, and nothing ends it before. In the threads that all of the
process shares, a few dozen such questions would stop whatever else needs one: a reload, the access log, the metrics page.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Final, Literal, TypeAlias

import trio
from trio.abc import HostnameResolver

AT_ONCE: Final = 64
"""Questions under way at once, those that nobody waits for any more included; the next ones wait for a thread."""

_Address: TypeAlias = (
    tuple[Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, tuple[str, int]]
    | tuple[
        Literal[socket.AddressFamily.AF_INET6],
        socket.SocketKind,
        int,
        str,
        tuple[str, int, int, int] | tuple[int, bytes],
    ]
)


class OwnThreads(HostnameResolver):
    """Asks as Trio does, with a limit of its own; `trio.socket.set_custom_hostname_resolver` puts it in place."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._places = trio.CapacityLimiter(at_once)

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name that Trio gives it
        proto: int = 0,
        flags: int = 0,
    ) -> list[_Address]:
        """Return the addresses of `host`; raises OSError. A question that is cancelled is left to itself."""
        ask = partial(socket.getaddrinfo, host, port, family, type, proto, flags)
        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._places)

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        """Return the name of an address; raises OSError. A question that is cancelled is left to itself."""
        ask = partial(socket.getnameinfo, sockaddr, flags)
        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._places)
