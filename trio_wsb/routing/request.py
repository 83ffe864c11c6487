"""What routing knows of a request: normalised values to match, not the message itself."""

from __future__ import annotations

import re
from typing import Final, Self

from attrs import frozen

_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@frozen
class RequestView:
    """A request as rules see it.

    `host` is in lower case, without port, trailing dot or brackets; `path` is the path of the request target
    without the query. `RequestView.of` makes one from what stands in a request.
    """

    host: str
    path: str

    @classmethod
    def of(cls, host: str, target: str) -> Self:
        """Return the view of a request with this Host field and this request target."""
        return cls(normal_host(host), normal_path(target.partition("?")[0]))


def normal_host(host: str) -> str:
    """Return `host` (``Example.COM.:8080``, ``[::1]:80``) as rules compare it: ``example.com``, ``::1``.

    Nothing is checked: whoever parsed the request has done that.
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".").lower()


def normal_path(path: str) -> str:
    """Return `path` with the normalisations that RFC 3986 section 6.2.2 calls safe.

    Escapes of characters that never need one are undone, the others are written in upper case, and dot segments
    are removed, so that ``/public/../%61dmin`` is judged as the ``/admin`` that a backend may take it for.
    """
    path = normal_escapes(path)
    return _without_dots(path) if "/." in path and path.startswith("/") else path


def normal_escapes(path: str) -> str:
    """Return `path` without the escapes that it does not need, the others in upper case (RFC 3986 section 6.2.2.2)."""
    return _ESCAPE.sub(_unescape, path) if "%" in path else path


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
