"""What entry points say of their sockets, of who is believed, and of every request."""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

from trio_wsb.addresses import IPNetwork
from trio_wsb.config.checks import NOT_EMPTY, REDIRECT_TARGET, SOCKET_MODE
from trio_wsb.config.options import option
from trio_wsb.config.tls import RouterTLS
from trio_wsb.middleware.options import between
from trio_wsb.units import Size

HEAD_SIZE: Final = between(1024, 16 * 2**20)
"""Bytes of a request head: less than the least refuses browsers, more than the most invites to fill the memory."""


HIGHEST_PRIORITY: Final = 2**63 - 1
"""The highest priority of a router; those of the balancer itself have it or are just below."""


@frozen
class ProxyProtocol:
    """Whose PROXY headers are believed. With this section they are read, from everybody."""

    trusted_ips: tuple[IPNetwork, ...] = option(
        "Addresses and networks of the proxies whose PROXY header says who the client is; anybody else's is passed over. "
        "They must write one in front of every connection of a client's.",
        (),
        key="trustedIPs",
    )
    insecure: bool = option(
        "Believe everybody's; only where no stranger can connect, such as a Unix socket.", default=False
    )


@frozen
class UnixSocket:
    """Who may connect to an entry point that listens at a path."""

    group: str | None = option(
        "Name or number of a group whose members may connect (mode 0660). Without it the daemon's own user and root "
        "alone may (0600).",
        None,
        reload="restart",
        check=NOT_EMPTY,
    )
    permissions: str | None = option(
        'Permissions instead of these, such as "0666"; who may write to the socket may connect.',
        None,
        key="mode",
        reload="restart",
        check=SOCKET_MODE,
    )

    @property
    def mode(self) -> int | None:
        """The permissions as a number; None for the usual ones."""
        return None if self.permissions is None else int(self.permissions, 8)


@frozen
class RedirectionTarget:
    """Every request of the entry point is sent elsewhere, before any router but those of a higher priority."""

    to: str = option("Name of the entry point whose port it is sent to, or `:PORT`.", check=REDIRECT_TARGET)
    scheme: Literal["http", "https"] = option("The scheme it is sent to.", "https")
    permanent: bool = option("Answer 301 or 308, which browsers remember, not 302 or 307.", default=True)
    priority: int = option("As that of a router.", HIGHEST_PRIORITY - 1)

    @property
    def port(self) -> int | None:
        """The port, if it is given; else `to` is the name of an entry point."""
        return int(self.to[1:]) if self.to.startswith(":") else None


@frozen
class Redirections:
    """Where requests of this entry point are sent."""

    entry_point: RedirectionTarget | None = option("To another entry point, or port.", None)


@frozen
class EntryPointHTTP:
    """What holds for every request of an entry point."""

    max_header_bytes: Size = option(
        "Size of a request head, with its request line (which has 8 KiB at most); 431 over it.",
        Size(64 * 1024),
        check=HEAD_SIZE,
    )
    tls: RouterTLS | None = option(
        "For the routers of this entry point that have no `tls` themselves; `true` is all of its defaults.",
        None,
        switch=True,
    )
    redirections: Redirections = option("Where requests are sent.", Redirections())
    middlewares: tuple[str, ...] = option(
        "Names of the middlewares that a request passes before those of its router, in this order. While one of them "
        "cannot be used, no router answers here.",
        (),
        refers="http.middlewares",
    )
