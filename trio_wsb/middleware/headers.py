"""headers: fields set and removed in requests and responses, checks of Host, and CORS."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.names import is_forwarding
from trio_wsb.middleware.cors import CORS
from trio_wsb.middleware.exchange import Answer, Request, edited, is_protected
from trio_wsb.middleware.header_options import HeadersOptions


class HeaderEditor:
    """Does what `HeadersOptions` say.

    `ignored` are the configured names that are no middleware's to change, such as Connection.
    """

    def __init__(self, options: HeadersOptions) -> None:
        self._removed, self._set, ignored = _plan(options.custom_request_headers)
        self._withheld = frozenset(
            name.lower()
            for name, value in options.custom_request_headers.items()
            if not value and is_forwarding(name.lower())
        )
        self._response_removed, self._response_set, more_ignored = _plan(options.custom_response_headers)
        self.ignored = (*ignored, *more_ignored)
        self._cors = CORS(options) if options.cors else None
        production = not options.is_development
        self._hosts = frozenset(host.lower() for host in options.allowed_hosts) if production else frozenset()
        self._host_fields = tuple(name.lower() for name in options.hosts_proxy_headers)
        self._tls_fields = [(name.lower(), value) for name, value in options.ssl_proxy_headers.items()]
        self._safety = _safety_fields(options)
        self._tls_safety = _tls_fields(options) if production else []
        self._force_sts = options.force_sts_header

    def on_request(self, request: Request) -> Request | Answer:
        """Return the changed request, or the answer to a preflight or to a Host that is not allowed.

        Such an answer has all its fields: `on_response` is not for it.
        """
        if self._cors is not None:
            answer = self._cors.preflight(request)
            if answer is not None:
                return answer
        if self._hosts and not self._is_host_allowed(request):
            fields = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
            return Answer(
                500,
                "the Host is not allowed",
                tuple(self._customised(request, Headers(fields))),
                b"Bad Host\n",
            )
        if self._removed:
            request = request.with_headers(edited(request.headers, self._removed, self._set))
        if self._withheld:
            request = attrs.evolve(request, withheld=request.withheld | self._withheld)
        return request

    def on_response(self, request: Request, headers: Headers) -> Headers:
        """Return the changed fields of a response to `request`, whoever made it: a backend, its 101, a middleware after us.

        `request` is as `on_request` returned it.
        """
        safety = self._safety
        if self._tls_safety:
            secure = self._is_secure(request)
            safety = safety + [
                field
                for field in self._tls_safety
                if secure or (self._force_sts and field[0] == "Strict-Transport-Security")
            ]
        if safety:
            headers = edited(headers, {name.lower() for name, _ in safety}, safety)
        return self._customised(request, headers)

    def _customised(self, request: Request, headers: Headers) -> Headers:
        if self._response_removed:
            headers = edited(headers, self._response_removed, self._response_set)
        return headers if self._cors is None else self._cors.respond(request, headers)

    def _is_host_allowed(self, request: Request) -> bool:
        host = request.head.authority
        for name in self._host_fields:
            named = request.headers.get(name)
            if named:
                host = named
                break
        return host.lower() in self._hosts

    def _is_secure(self, request: Request) -> bool:
        return request.secure or any(request.headers.get(name) == value for name, value in self._tls_fields)


def _plan(fields: Mapping[str, str]) -> tuple[frozenset[str], list[Field], list[str]]:
    """Return the names (in lower case) to remove, the fields to add, and the names that are ignored."""
    ignored = [name for name in fields if is_protected(name.lower())]
    kept = {name: value for name, value in fields.items() if name not in ignored}
    removed = frozenset(name.lower() for name, value in kept.items() if value or name.lower() != "host")
    return removed, [(name, value) for name, value in kept.items() if value], ignored


def _safety_fields(options: HeadersOptions) -> list[Field]:
    fields = [
        ("X-Frame-Options", options.custom_frame_options_value or ("DENY" if options.frame_deny else "")),
        ("X-Content-Type-Options", "nosniff" if options.content_type_nosniff else ""),
        (
            "X-XSS-Protection",
            options.custom_browser_xss_value or ("1; mode=block" if options.browser_xss_filter else ""),
        ),
        ("Content-Security-Policy", options.content_security_policy),
        ("Content-Security-Policy-Report-Only", options.content_security_policy_report_only),
        ("Referrer-Policy", options.referrer_policy),
        ("Permissions-Policy", options.permissions_policy),
    ]
    return [field for field in fields if field[1]]


def _tls_fields(options: HeadersOptions) -> list[Field]:
    """Return the fields that make sense on HTTPS alone (RFC 6797 section 7.2)."""
    fields: list[Field] = []
    if options.sts_seconds:
        subdomains = "; includeSubDomains" if options.sts_include_subdomains else ""
        preload = "; preload" if options.sts_preload else ""
        fields.append(("Strict-Transport-Security", f"max-age={options.sts_seconds}{subdomains}{preload}"))
    if options.public_key:
        fields.append(("Public-Key-Pins", options.public_key))
    return fields
