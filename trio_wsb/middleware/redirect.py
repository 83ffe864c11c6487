"""redirectScheme and redirectRegex: the client is sent elsewhere.

Browsers follow no redirect of a WebSocket handshake (the WebSocket API treats it as a failure); other clients may.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NewType

from attrs import frozen

from trio_wsb.addresses import format_host
from trio_wsb.errors import BadRequest
from trio_wsb.http.head import split_authority
from trio_wsb.middleware.exchange import Answer, Request, status_text
from trio_wsb.middleware.options import OptionProblem, option
from trio_wsb.middleware.rewrite import Rewrite
from trio_wsb.routing.regex import Regex

Port = NewType("Port", int)
"""A TCP port; written ``"8443"`` as Traefik's documentation does, or ``8443``."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UNSAFE: Final = re.compile(r"[^!-~]")


def parse_port(value: object) -> Port:
    """Return the port that `value` means.

    Raises:
      ValueError: it means none.

    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError("is no port; write a number from 1 to 65535")
    return Port(value)


@frozen
class RedirectSchemeOptions:
    """Redirect to another scheme of the same URL."""

    scheme: Literal["http", "https"] = option("The scheme to redirect to.")
    port: Port | None = option("The port to redirect to; the scheme's own unless given.", None)
    permanent: bool = option("Answer 301 or 308, which browsers remember, not 302 or 307.", default=False)


@frozen
class RedirectRegexOptions:
    """Redirect what matches a pattern."""

    regex: Regex = option("Pattern (RE2) for the whole URL, such as `^http://([^/]+)/old/(.*)`.")
    replacement: str = option("The URL that matches become; `${1}` is the first group.")
    permanent: bool = option("Answer 301 or 308, which browsers remember, not 302 or 307.", default=False)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        yield from group_problems(self.regex, self.replacement)


def group_problems(regex: Regex, replacement: str) -> Iterator[OptionProblem]:
    """Yield a warning for each group that `replacement` names and `regex` does not have."""
    for name in Rewrite(regex, replacement).unknown:
        message = f"names the group {name}, which the pattern does not have, and which is empty therefore"
        hint = "write ${1}x where a letter, digit or _ follows a number"
        yield OptionProblem(("replacement",), message, hint, "warning")


class RedirectScheme:
    """Redirects what came by another scheme, or to another port than the one it is to be."""

    def __init__(self, options: RedirectSchemeOptions) -> None:
        self._scheme = options.scheme
        port = options.port
        self._port = "" if port is None or _DEFAULT_PORTS[options.scheme] == port else f":{port}"
        self._permanent = options.permanent

    def on_request(self, request: Request) -> Answer | None:
        """Return the redirect, None for a request that may go on."""
        host, port = _client_authority(request)
        default = _DEFAULT_PORTS[request.scheme]
        old_port = "" if port is None or port == default else f":{port}"
        if host and request.scheme == self._scheme and old_port == self._port:
            return None
        return self.answer(request)

    def answer(self, request: Request) -> Answer:
        """Return the redirect, wherever the request came to."""
        host, _ = _client_authority(request)
        if not host:
            return Answer(400, "no Host, so there is nowhere to redirect to")
        new = f"{self._scheme}://{host}{self._port}{request.head.target}"
        return redirect(request, new, permanent=self._permanent)


class RedirectRegex:
    """Redirects what matches."""

    def __init__(self, options: RedirectRegexOptions) -> None:
        self._rewrite = Rewrite(options.regex, options.replacement)
        self._permanent = options.permanent

    def on_request(self, request: Request) -> Answer | None:
        """Return the redirect, None for a request that may go on."""
        old = f"{request.scheme}://{request.head.authority}{request.head.target}"
        if not self._rewrite.matches(old):
            return None
        try:
            new = self._rewrite.apply(old)
        except ValueError:
            return Answer(500, "the redirect is too long")
        return None if new == old else redirect(request, new, permanent=self._permanent)


def redirect(request: Request, location: str, *, permanent: bool) -> Answer:
    """Return the answer that sends the client to `location`.

    301 and 302 for GET; 308 and 307 for the rest, since clients make a GET of other methods on a 301 or 302 (RFC 9110
    section 15.4).
    """
    changeable = request.head.method == "GET"
    status = (301 if changeable else 308) if permanent else (302 if changeable else 307)
    # What is no URL character would at best be a broken link, at worst a second header field.
    safe = _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), location)
    return Answer(status, "redirected", (("Location", safe),), status_text(status))


def _client_authority(request: Request) -> tuple[str, int | None]:
    try:
        host, port = split_authority(request.head.authority)
    except BadRequest:  # an HTTP/1.0 client without a Host
        return request.head.host, None
    return format_host(host), port
