"""Content negotiation: which of the representations that we have a client would rather see."""

from __future__ import annotations

import re
from typing import Final

from trio_wsb.http.headers import Headers

# RFC 9110 section 12.4.2: at most three digits after the point.
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)

MAX_RANGES: Final = 64
"""Media ranges of an Accept field that are looked at; browsers send fewer than ten."""


def quality(headers: Headers, media_type: str) -> float:
    """Return how welcome `media_type` (in lower case) is, from 0 to 1 (RFC 9110 section 12.5.1).

    The most specific range that fits it counts. Without an Accept field everything is welcome. A range with parameters
    of its own is about representations that we do not have, and one that is malformed about none.
    """
    members = headers.tokens("accept")
    if not members:
        return 1.0
    main_type = media_type.partition("/")[0]
    found: dict[str, float] = {}
    for member in members[:MAX_RANGES]:
        media_range, *parameters = (part.strip(" \t") for part in member.split(";"))
        value = 1.0
        for parameter in parameters:
            match = _QUALITY.fullmatch(parameter)
            if match is None:
                break
            value = float(match[1])
        else:
            found[media_range] = max(value, found.get(media_range, 0.0))
    for media_range in (media_type, f"{main_type}/*", "*/*"):
        if media_range in found:
            return found[media_range]
    return 0.0


def prefers_html(headers: Headers) -> bool:
    """Whether a client is a browser rather than a program: it likes HTML better than JSON."""
    return quality(headers, "text/html") > quality(headers, "application/json")
