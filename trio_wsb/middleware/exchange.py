"""A request on its way through the chain, and an answer that ends it there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Literal

import attrs
from attrs import frozen

from trio_wsb.addresses import IPAddress
from trio_wsb.http.head import RequestHead
from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.names import HOP_BY_HOP, ORDINARY, is_disguised, is_forwarding, nominated

_HANDSHAKE: Final = "sec-websocket-"
_CONNECTION_OPTIONS: Final = frozenset({"upgrade", "close"})
_DROPPED_BUT_UPGRADE: Final = HOP_BY_HOP - {"upgrade"}
_TEXTS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


@frozen
class Request:
    """A request as a middleware sees it; immutable, so that a refused or retried one is still what it was.

    `peer` is who is connected, None on a Unix socket. `secure` says that the connection came by TLS, `upgrade` that
    the request is a checked opening handshake. `withheld` are names (in lower case) that an operator wants no backend
    to see: whoever adds X-Forwarded-* later leaves these out.
    """

    head: RequestHead
    peer: IPAddress | None = None
    secure: bool = False
    upgrade: bool = False
    withheld: frozenset[str] = frozenset()

    @property
    def headers(self) -> Headers:
        """The fields of the head."""
        return self.head.headers

    @property
    def scheme(self) -> Literal["http", "https"]:
        """The scheme of the client's URL.

        A proxy in front of us may have said it; the field of one that is not trusted was removed. It says ws or wss
        for a handshake (RFC 6455 section 3), which are http and https here.
        """
        forwarded = (self.headers.get("x-forwarded-proto") or "").lower()
        if forwarded in {"http", "ws"}:
            return "http"
        if forwarded in {"https", "wss"}:
            return "https"
        return "https" if self.secure else "http"

    def with_headers(self, headers: Headers) -> Request:
        """Return the request with other fields; authority and host stay what the client asked for."""
        return Request(self.head.with_headers(headers), self.peer, self.secure, self.upgrade, self.withheld)

    def with_path(self, path: str) -> Request:
        """Return the request with another path, escaped as in a request target; the query stays."""
        query = f"?{self.head.query}" if "?" in self.head.target else ""
        return attrs.evolve(self, head=attrs.evolve(self.head, target=path + query, path=path))


@frozen
class Answer:
    """A middleware's own answer to the client.

    `reason` is for the log and never has in it what the peer sent. `headers` are those of the answer beside
    Content-Length, Connection and Date, which whoever sends it adds; `body` is left out for HEAD.
    """

    status: int
    reason: str
    headers: tuple[Field, ...] = ()
    body: bytes = b""


def received(head: RequestHead, *, trusted: bool) -> RequestHead:
    """Return `head` as the first middleware may see it.

    What ends at this hop is gone, except what Connection says of it (``Upgrade`` and ``close``) and the Upgrade field;
    so are fields that pass for others at a backend, and, unless the peer is `trusted`, what says who the client is.
    """
    headers = head.headers
    options = [token for token in headers.tokens("connection") if token in _CONNECTION_OPTIONS]
    dropped, ordinary = _DROPPED_BUT_UPGRADE if "upgrade" in options else HOP_BY_HOP, ORDINARY
    if ended := nominated(headers):
        dropped, ordinary = dropped.union(ended), ORDINARY.difference(ended)
    fields = [
        line
        for lower, line in headers.named()
        if lower in ordinary
        or not (lower in dropped or is_disguised(lower) or (not trusted and is_forwarding(lower)))
    ]
    if options:
        fields.append(("Connection", ", ".join(map(canonical, options))))
    return head.with_headers(Headers(fields))


def is_protected(lower: str) -> bool:
    """Whether a field of this name (in lower case) is no middleware's to change.

    It belongs to a connection, frames the message, or is part of the opening handshake, which is the two endpoints' own.
    """
    return lower in HOP_BY_HOP or lower == "content-length" or lower.startswith(_HANDSHAKE)


def edited(headers: Headers, removed: Collection[str], added: Iterable[Field] = ()) -> Headers:
    """Return a copy without the fields `removed` (names in lower case) and with the fields `added` at the end."""
    fields = [line for lower, line in headers.named() if lower not in removed]
    fields.extend(added)
    return Headers(fields)


@lru_cache(maxsize=64)
def canonical(name: str) -> str:
    """Return the name of a field in its customary case: ``x-real-ip`` is ``X-Real-Ip``."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def status_text(code: int) -> bytes:
    """Return the standard phrase of a status as a body; empty for a status without one."""
    return _TEXTS.get(code, b"")
