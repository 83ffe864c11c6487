"""Cross-origin resource sharing: which web pages a browser lets read a response (Fetch, section 3.2).

Nothing here keeps anybody from a WebSocket, for which browsers ask no permission: see `trio_wsb.middleware.origin`.
"""

from __future__ import annotations

from trio_wsb.http.headers import Field, Headers
from trio_wsb.middleware.exchange import Answer, Request, edited
from trio_wsb.middleware.header_options import HeadersOptions


class CORS:
    """Answers preflights, and says in responses what pages may do with them."""

    def __init__(self, options: HeadersOptions) -> None:
        self._credentials = options.access_control_allow_credentials
        self._headers = options.access_control_allow_headers
        self._methods = options.access_control_allow_methods
        self._any_origin = "*" in options.access_control_allow_origin_list
        self._origins = frozenset(options.access_control_allow_origin_list)
        self._patterns = options.access_control_allow_origin_list_regex
        self._exposed = ",".join(options.access_control_expose_headers)
        self._max_age = options.access_control_max_age
        self._vary = options.add_vary_header

    def preflight(self, request: Request) -> Answer | None:
        """Return the answer if the request is a preflight; the backend never sees one."""
        headers = request.headers
        origin = headers.get("origin")
        method = headers.get("access-control-request-method")
        if request.head.method != "OPTIONS" or not origin or not method:
            return None
        fields = self._common(origin)
        allowed_headers = self._allowed(self._headers, headers.get("access-control-request-headers"))
        allowed_methods = self._allowed(self._methods, method)
        fields += [
            (name, value)
            for name, value in (
                ("Access-Control-Allow-Headers", allowed_headers),
                ("Access-Control-Allow-Methods", allowed_methods),
                ("Access-Control-Max-Age", str(self._max_age) if self._max_age else ""),
            )
            if value
        ]
        return Answer(200, "the answer to a preflight", tuple(fields))

    def respond(self, request: Request, headers: Headers) -> Headers:
        """Return the fields of a response with what is to be said added."""
        added = self._common(request.headers.get("origin") or "")
        removed = {name.lower() for name, _ in added}
        if self._vary and not {"origin", "*"} & set(headers.tokens("vary")):
            values = headers.get_all("vary")
            added.append(("Vary", ",".join([*values, "Origin"])))
            removed.add("vary")
        return edited(headers, removed, added) if added else headers

    def _common(self, origin: str) -> list[Field]:
        fields = [
            ("Access-Control-Allow-Origin", self._allow_origin(origin)),
            ("Access-Control-Allow-Credentials", "true" if self._credentials else ""),
            ("Access-Control-Expose-Headers", self._exposed),
        ]
        return [field for field in fields if field[1]]

    def _allow_origin(self, origin: str) -> str:
        """Return the value of Access-Control-Allow-Origin, "" for none."""
        if self._any_origin:
            # Beside credentials the asterisk has no special meaning to a browser (Fetch, section 3.2.5).
            return origin if self._credentials else "*"
        if origin and (origin in self._origins or any(pattern.search(origin) for pattern in self._patterns)):
            return origin
        return ""

    def _allowed(self, allowed: tuple[str, ...], asked: str | None) -> str:
        if self._credentials and "*" in allowed:
            return asked or ""
        return ",".join(allowed)
