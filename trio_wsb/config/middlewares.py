"""The middlewares as the configuration has them: each name has exactly one kind with its options.

The options of a kind belong to the middleware itself, in `trio_wsb.middleware`; here they get their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from attrs import frozen

from trio_wsb.config.options import key_of, option
from trio_wsb.middleware.basic_auth import BasicAuthOptions
from trio_wsb.middleware.breaker import CircuitBreakerOptions
from trio_wsb.middleware.compress import CompressOptions
from trio_wsb.middleware.forward_auth import ForwardAuthOptions
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.in_flight import InFlightReqOptions
from trio_wsb.middleware.ip_allow import IPAllowListOptions
from trio_wsb.middleware.origin import OriginAllowListOptions
from trio_wsb.middleware.path import (
    AddPrefixOptions,
    ReplacePathOptions,
    ReplacePathRegexOptions,
    StripPrefixOptions,
    StripPrefixRegexOptions,
)
from trio_wsb.middleware.rate_limit import RateLimitOptions
from trio_wsb.middleware.redirect import RedirectRegexOptions, RedirectSchemeOptions
from trio_wsb.middleware.retry import RetryOptions


@frozen
class ChainOptions:
    """Several middlewares under one name."""

    middlewares: tuple[str, ...] = option(
        "Names of the middlewares, in the order in which they are passed.", refers="http.middlewares"
    )


@frozen
class Middleware:
    """One middleware: exactly one kind, with its options."""

    add_prefix: AddPrefixOptions | None = option("Put a prefix in front of the path.", None)
    basic_auth: BasicAuthOptions | None = option("Ask for a user name and a password (RFC 7617).", None)
    chain: ChainOptions | None = option("Several middlewares under one name.", None)
    circuit_breaker: CircuitBreakerOptions | None = option(
        "Refuse for a while when handshakes go wrong. Judged on the handshake, never on a session's life.",
        None,
    )
    compress: CompressOptions | None = option(
        "Compress plain answers (gzip). Sessions are never touched.", None
    )
    forward_auth: ForwardAuthOptions | None = option("Let an authentication server decide.", None)
    headers: HeadersOptions | None = option("Change fields of requests and answers, the 101 included.", None)
    in_flight_req: InFlightReqOptions | None = option(
        "Limit what a source has in flight; a session counts for its life.", None
    )
    ip_allow_list: IPAllowListOptions | None = option("Let only these addresses pass.", None)
    origin_allow_list: OriginAllowListOptions | None = option(
        "Let only pages of these origins open sessions, against cross-site WebSocket hijacking.", None
    )
    rate_limit: RateLimitOptions | None = option("Limit how many requests a source makes.", None)
    redirect_regex: RedirectRegexOptions | None = option("Redirect URLs that match.", None)
    redirect_scheme: RedirectSchemeOptions | None = option("Redirect to another scheme.", None)
    replace_path: ReplacePathOptions | None = option("Replace the path.", None)
    replace_path_regex: ReplacePathRegexOptions | None = option("Replace what matches in the path.", None)
    retry: RetryOptions | None = option("Try other backends while none has got the request.", None)
    strip_prefix: StripPrefixOptions | None = option("Take a prefix off the path.", None)
    strip_prefix_regex: StripPrefixRegexOptions | None = option("Take what matches off the path.", None)

    def kinds(self) -> Iterator[tuple[str, Any]]:
        """Yield the YAML name and the options of each kind that is given; a valid middleware has one."""
        for attribute in attrs.fields(Middleware):
            options = getattr(self, attribute.name)
            if options is not None:
                yield key_of(attribute), options

    @property
    def options(self) -> Any:
        """The options of the one kind."""
        return next(self.kinds())[1]
