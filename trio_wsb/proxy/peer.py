"""Who is at the other end of a client connection."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from trio_wsb.addresses import IPAddress, ip_text
from trio_wsb.proxy.secure import Secured


@frozen
class Peer:
    """Who is at the other end of a client connection."""

    address: IPAddress | None
    """None on a Unix socket."""
    text: str
    """Address and port, for the log."""
    proxy: str = ""
    """The address of the proxy that has connected, where a PROXY header of its own says who the client is."""
    secured: Secured | None = None
    """How the connection is secured; None for a plain one."""

    @property
    def scheme(self) -> Literal["http", "https"]:
        """How the connection came."""
        return "http" if self.secured is None else "https"

    @property
    def connected(self) -> str:
        """The address that the connection really came from: the client's, or that of a proxy in front of us."""
        return self.proxy or (self.text if self.address is None else ip_text(self.address))

    @property
    def local(self) -> IPAddress | None:
        """The address, None behind a PROXY header: what it says must not make a stranger a program on this host."""
        return None if self.proxy else self.address
