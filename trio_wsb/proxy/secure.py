"""How client connections are secured: which terms a host has, and that no request comes in on lesser ones.

A connection's terms are chosen by the name that the client asks for (SNI), a request's router by its Host. The two may
differ: RFC 9110 section 7.4 lets a client send requests for one host on a connection made for another. So a request
whose host has other terms than its connection is refused (421, RFC 9110 section 15.5.20), or a host that demands clients'
certificates could be reached over one that does not.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Hashable, Mapping

import trio
from attrs import frozen

from trio_wsb.errors import BadRequest
from trio_wsb.proxy.refusals import Refusals
from trio_wsb.routing.hosts import HostTable


@frozen
class Terms:
    """What a connection is secured by: TLS options as they were configured when it was made.

    Two are equal when nothing has changed since: neither the options nor what is in the files that they name.
    """

    name: str
    settings: Hashable
    client_auth: Hashable = None
    """What clients had to show; None for nothing."""


@frozen
class Secured:
    """A client connection that came by TLS."""

    terms: Terms
    server_name: str = ""
    """The name that the client asked for; "" for none."""
    version: str = ""
    cipher: str = ""


@frozen
class TLSEntry:
    """What an entry point serves TLS with."""

    terms: HostTable[Terms]
    fallback: Terms
    """For hosts that no router names."""
    certificates: HostTable[bytes]
    """Keys of certificates by the names in them."""
    default: bytes
    """The key of the certificate for every other name."""
    contexts: Mapping[tuple[Terms, bytes], ssl.SSLContext]
    strict: frozenset[Terms] = frozenset()
    """Terms under which only names that a certificate has are served."""
    max_handshakes: int = 0
    guards_pages: bool = False
    """Whether the entry point's own pages (/ping, the API, the count table) need TLS on its own terms too."""

    def terms_for(self, host: str) -> Terms:
        """Return the terms of `host`."""
        return self.terms.find(host) or self.fallback

    def choose(self, server_name: str, local: str = "") -> tuple[Terms, ssl.SSLContext | None]:
        """Return what to serve a client with that asks for `server_name`; no context when it is to be refused.

        One that asks for no name gets the certificate for the address `local` that it connected to, if there is one.
        """
        terms = self.terms_for(server_name)
        key = self.certificates.find(server_name or local)
        if key is None:
            if terms in self.strict:
                return terms, None
            key = self.default
        # For a name the certificates that suit it were given contexts, for an address the one may have none.
        context = self.contexts.get((terms, key)) or self.contexts[terms, self.default]
        return terms, context


def check_direction(
    entry: TLSEntry | None, secured: Secured, host: str, client_auth: Hashable = None
) -> None:
    """Check that a request may come in on a connection that is secured like this.

    Args:
      entry: what TLS is served with now, which may be other than when the connection was made.
      secured: the connection.
      host: the host that is asked for.
      client_auth: what the router of the request wants clients to have shown; its rule may take requests for hosts
        that it does not name.

    Raises:
      BadRequest: the host has other terms, or the router wants more (421).

    """
    other_terms = entry is None or entry.terms_for(host) != secured.terms
    if other_terms or (client_auth is not None and secured.terms.client_auth != client_auth):
        raise BadRequest(421, "Misdirected Request")


def may_see_pages(entry: TLSEntry | None, secured: Secured | None) -> bool:
    """Whether the pages that an entry point has without a router may be seen on a connection secured like this.

    They have no host. Where the entry point says TLS they are behind what it says, as if they had routers there.
    """
    if entry is None or not entry.guards_pages:
        return True
    return secured is not None and secured.terms.client_auth == entry.fallback.client_auth


class Handshakes(Refusals):
    """TLS handshakes under way and how they end, and connections that found no place in time; survives reloads."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = trio.Lock()
        """Held while OpenSSL computes."""
        self.under_way: Counter[str] = Counter()
        """By entry point."""
        self.completed_total: Counter[str] = Counter()
        self.failed_total: Counter[str] = Counter()
        self._limits: dict[str, trio.CapacityLimiter] = {}

    def places(self, entry_point: str, limit: int) -> trio.CapacityLimiter:
        """Return the places of `entry_point`, as many as `limit` says now."""
        tokens = limit or float("inf")
        found = self._limits.get(entry_point)
        if found is None:
            found = self._limits[entry_point] = trio.CapacityLimiter(tokens)
        elif found.total_tokens != tokens:
            found.total_tokens = tokens
        return found
