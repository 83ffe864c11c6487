"""Redirections of an entry point: every request is sent to another scheme and port, as a router of the balancer's own does.

Traefik's router of this kind takes every request that has a Host. Ours takes those without one too (they are answered 400,
and not let through), and none that is where it would be sent already: a proxy in front of us that ends TLS has said so.
"""

from __future__ import annotations

from typing import Final, Literal

from trio_wsb.config.internal import NOOP
from trio_wsb.errors import BadRequest
from trio_wsb.http.head import split_authority
from trio_wsb.middleware.redirect import Port, RedirectScheme, RedirectSchemeOptions
from trio_wsb.proxy.chain import Answered
from trio_wsb.proxy.internal import InternalRequest
from trio_wsb.proxy.runtime import InternalService
from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import Rule

RULE: Final = "HostRegexp(`^.+$`)"
"""Of the router, as Traefik writes it."""

_SCHEMES: Final = {"ws": "http", "wss": "https"}
_PORTS: Final = {"http": 80, "https": 443}


class Redirection:
    """Sends every request to `scheme` and `port`."""

    def __init__(self, scheme: Literal["http", "https"], port: int, *, permanent: bool) -> None:
        self._scheme, self._port = scheme, port
        self._redirect = RedirectScheme(RedirectSchemeOptions(scheme, Port(port), permanent))
        self.service = InternalService(NOOP, self._answer)
        """Answers with the redirect."""
        self.rule = Rule(RULE, self._takes)
        """Which requests it takes."""

    def _takes(self, request: RequestView) -> bool:
        said = "".join(request.field_values("x-forwarded-proto")).strip().lower()
        scheme = _SCHEMES.get(said, said)
        if scheme != self._scheme:
            return True
        try:
            host, port = split_authority("".join(request.field_values("host")))
        except BadRequest:
            return True
        return not host or (port or _PORTS[scheme]) != self._port

    async def _answer(self, request: InternalRequest) -> bool:
        raise Answered(self._redirect.answer(request.passage.request))
