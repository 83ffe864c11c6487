"""Which field names mean something to a hop, and which only pretend to."""

from __future__ import annotations

import re
from typing import Final

from trio_wsb.http.headers import Headers

# RFC 9110 section 7.6.1, and what belongs with it: Proxy-Authorization and its kin are between a client and a
# forward proxy, which we are not; Trailer announces what Transfer-Encoding carries; HTTP2-Settings belongs to the
# h2c upgrade, which we do not make.
HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip

# Never removed because a Connection field names them.
_PROTECTED: Final = frozenset({"host", "content-length", "forwarded", "x-real-ip"})
_PROTECTED_PREFIXES: Final = ("x-forwarded-", "sec-websocket-")

_FORWARDED: Final = re.compile(r"x-real-ip|forwarded|x-forwarded(?:-.*+)?")
_UNSAFE_TRAILER: Final = re.compile(
    r"authorization|cache-control|content-(?:encoding|length|range|type)|cookie|expect|host|if-.*+|max-forwards"
    r"|origin|pragma|range|sec-websocket-.*+|set-cookie|www-authenticate"
)
# Servers in the manner of CGI turn what is no letter or digit in a name into "_", so that X_Forwarded_For
# arrives as if it were X-Forwarded-For.
_FOLDED: Final = re.compile(r"[^0-9a-z]")
_ALIASED: Final = re.compile(
    rf"{_FORWARDED.pattern}|connection|content-(?:length|type)|host|sec-websocket-.*+|transfer-encoding|upgrade"
)

ORDINARY: Final = frozenset({
    "accept", "accept-encoding", "accept-language", "authorization", "cache-control", "cookie", "origin", "pragma",
    "referer", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-websocket-extensions", "sec-websocket-key",
    "sec-websocket-protocol", "sec-websocket-version", "user-agent",
})  # fmt: skip
"""Names that are neither forwarding nor disguised, and make up nearly all that is sent: asked first, for speed alone."""


def hop_by_hop(headers: Headers) -> set[str]:
    """Return the names that end at this hop: those that always do, and those that Connection nominates.

    Framing, routing and identity are never nominated away (CVE-2022-31813, CVE-2024-45410).
    """
    return {*nominated(headers), *HOP_BY_HOP}


def nominated(headers: Headers) -> list[str]:
    """Return the names that end at this hop because Connection says so, without those that do always; mostly none."""
    return [
        name
        for name in headers.tokens("connection")
        if name not in HOP_BY_HOP and name not in _PROTECTED and not name.startswith(_PROTECTED_PREFIXES)
    ]


def is_forwarding(lower: str) -> bool:
    """Whether a field of this name says who the client is or what it asked for: X-Forwarded-*, Forwarded, X-Real-Ip."""
    return lower[0] in "xf" and _FORWARDED.fullmatch(lower) is not None


def is_disguised(lower: str) -> bool:
    """Whether a field of this name passes for another one at the backend; never honest, whoever sends it."""
    if lower == "proxy":
        # CGI makes it HTTP_PROXY, which libraries take for their outgoing proxy (CVE-2016-5385).
        return True
    if lower.replace("-", "").isalnum():
        return False
    return _ALIASED.fullmatch(_FOLDED.sub("-", lower)) is not None


def is_unsafe_trailer(lower: str) -> bool:
    """Whether a trailer field of this name could decide about framing, routing, identity or content.

    Some servers merge trailers into the header section, where such a field was checked and this one was not;
    RFC 9110 section 6.5.1 says that nobody may send one.
    """
    return (
        lower in HOP_BY_HOP
        or is_forwarding(lower)
        or is_disguised(lower)
        or _UNSAFE_TRAILER.fullmatch(lower) is not None
    )
