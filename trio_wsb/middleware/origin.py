"""originAllowList: which web pages may open WebSocket connections (RFC 6455 sections 4.2.2 and 10.2).

The same-origin policy does not hold for WebSockets: any page may open one, and the browser sends the user's cookies with
the handshake. What keeps strangers' pages out is the server's look at Origin, which no page can forge. Traefik has no
such middleware.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from trio_wsb.addresses import is_host
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.options import NOT_EMPTY, STATUS, OptionProblem, option

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\*\.)?(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::([0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_HINT: Final = 'write an origin such as "https://example.com" or "https://*.example.com", or "null"'


@frozen
class Origin:
    """An origin (RFC 6454 section 4), or with `wildcard` those of all names below `host`; `scheme` "" means ``null``."""

    scheme: str
    host: str = ""
    port: int | None = None
    wildcard: bool = False

    def __str__(self) -> str:
        if not self.scheme:
            return "null"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in {None, _DEFAULT_PORTS.get(self.scheme)} else f":{self.port}"
        return f"{self.scheme}://{'*.' if self.wildcard else ''}{host}{port}"


NULL: Final = Origin("")
"""What browsers send for sandboxed frames, local files and after some redirects; anybody can make them do so."""


def parse_origin(text: str) -> Origin:
    """Return the origin that an option names.

    Raises:
      ValueError: it names none; the message says what would be right.

    """
    origin = _read(text.lower())
    if origin is not None:
        return origin
    if text == "*":
        raise ValueError("would allow every page; leave the middleware out instead")
    if re.fullmatch(r"\S+://[^/]+/.*", text):
        raise ValueError(f"has a path, which no origin has; {_HINT}")
    if "://" not in text:
        raise ValueError(f"has no scheme; {_HINT}")
    raise ValueError(f"is not an origin; {_HINT}")


def _read(text: str) -> Origin | None:
    if text == "null":
        return NULL
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, wildcard, bracketed, name, digits = match.groups()
    host: str = (name.removesuffix(".") if bracketed is None else bracketed) or ""
    port = int(digits) if digits else _DEFAULT_PORTS.get(scheme)
    if not is_host(host) or (port is not None and port > 65535):
        return None
    if wildcard and (bracketed is not None or host.replace(".", "").isdigit()):
        return None
    return Origin(scheme, host, port, wildcard is not None)


@frozen
class OriginAllowListOptions:
    """Pages that may open WebSocket connections."""

    origins: tuple[Origin, ...] = option(
        'Origins that may: `https://example.com`, `https://*.example.com` (every name below it) or `"null"`.',
        check=NOT_EMPTY,
    )
    allow_absent: bool = option(
        "Let handshakes without Origin pass: those of programs. Browsers always send one.", default=True
    )
    reject_status_code: int = option("Status for everybody else.", 403, check=STATUS)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is doubtful about the options."""
        for index, origin in enumerate(self.origins):
            if origin == NULL:
                message = "lets every page in that puts itself into a sandbox"
                yield OptionProblem(("origins", index), message, "name the origins that you mean", "warning")


class OriginAllowList:
    """Decides by Origin; about opening handshakes alone."""

    def __init__(self, options: OriginAllowListOptions) -> None:
        self._exact = frozenset(each for each in options.origins if not each.wildcard)
        self._below = tuple(each for each in options.origins if each.wildcard)
        self._absent = options.allow_absent
        self._status = options.reject_status_code

    def judge(self, request: Request) -> Answer | None:
        """Return None if the request may pass, else the answer to it."""
        if not request.upgrade or self._allows(request.headers.get_all("origin")):
            return None
        return Answer(
            self._status,
            "the page's origin is not allowed",
            (("Content-Type", "text/plain; charset=utf-8"),),
            b"this origin may not connect\n",
        )

    def _allows(self, values: list[str]) -> bool:
        if not values:
            return self._absent
        if len(values) > 1:
            # Nobody could say which of them the backend will believe.
            return False
        origin = _read(values[0].lower())
        if origin is None or origin.wildcard:
            return False
        return origin in self._exact or any(_is_below(origin, each) for each in self._below)


def _is_below(origin: Origin, wildcard: Origin) -> bool:
    return (
        origin.scheme == wildcard.scheme
        and origin.port == wildcard.port
        and origin.host.endswith(f".{wildcard.host}")
    )
