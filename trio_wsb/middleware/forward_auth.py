"""forwardAuth: an authentication server decides about each request; here is what it is asked and what its answer means.

The caller makes the HTTP request that `question` describes, without following redirects, with a deadline and with a bound
on the body, and hands the answer to `judge`. Whatever goes wrong with that is `failure`: never a pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

from attrs import frozen

from trio_wsb.addresses import format_host, is_host
from trio_wsb.http.headers import Field, Headers
from trio_wsb.http.names import hop_by_hop
from trio_wsb.middleware.exchange import Answer, Request, canonical, edited, is_protected
from trio_wsb.middleware.options import Bound, OptionProblem, is_token, option
from trio_wsb.routing.regex import Regex
from trio_wsb.units import Size

_HINT: Final = 'write a URL such as "http://auth.internal:8080/verify"'
_URL: Final = re.compile(r"[!-~]+")
_NOT_COPIED: Final = frozenset({"host", "expect"})
_TOKENS: Final = "sec-websocket-protocol"
"""Pages cannot set Authorization on a handshake, so that many of them put a token here."""


@frozen
class AuthAddress:
    """The URL of an authentication server: `target` is what follows host and port, path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as a Host field has them: the scheme's default port is left out."""
        default = 443 if self.scheme == "https" else 80
        host = format_host(self.host)
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_auth_address(text: str) -> AuthAddress:
    """Return the address that `text` writes.

    Raises:
      ValueError: it writes none; the message says what would be right.

    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a URL; {_HINT}") from None
    if parts.scheme not in {"http", "https"} or not _URL.fullmatch(text):
        raise ValueError(f"is not a URL with http or https; {_HINT}")
    if "@" in parts.netloc:
        raise ValueError(f"has a user name or password, which is not supported; {_HINT}")
    if parts.fragment:
        raise ValueError(f"has a fragment, which is never sent; {_HINT}")
    host = parts.hostname or ""
    if not is_host(host) or port == 0:
        raise ValueError(f"has a bad or no host or port; {_HINT}")
    query = f"?{parts.query}" if parts.query else ""
    default = 443 if parts.scheme == "https" else 80
    return AuthAddress(parts.scheme, host, port or default, (parts.path or "/") + query)


@frozen
class AuthTLSOptions:
    """How a connection to the authentication server is protected."""

    ca: str | None = option("PEM file with the authorities to trust instead of the system's.", None)
    cert: str | None = option("PEM file with the certificate to show.", None)
    key: str | None = option("PEM file with its key.", None)
    insecure_skip_verify: bool = option("Do not verify the server's certificate.", default=False)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        if (self.cert is None) != (self.key is None):
            missing = "cert" if self.cert is None else "key"
            yield OptionProblem((), f'has no "{missing}"', "write cert and key, or neither")


_BODY_SIZE: Final = Bound(
    "more than 0", lambda value: value > 0, "is not more than 0", 'write a size such as "64KiB"'
)


@frozen
class ForwardAuthOptions:
    """Which server decides, and what passes between it, the client and the backend."""

    address: AuthAddress = option("URL of the authentication server.")
    trust_forward_header: bool = option("Pass the request's own X-Forwarded-* on, not ours.", default=False)
    auth_response_headers: tuple[str, ...] = option(
        "Fields of its answer that the backend gets, in place of the client's.", ()
    )
    auth_response_headers_regex: Regex | None = option(
        "Pattern (RE2) for the names of more such fields, written like `X-Auth-User`.", None
    )
    auth_request_headers: tuple[str, ...] = option(
        "The only fields of the request that the server gets; all of them unless given.", ()
    )
    add_auth_cookies_to_response: tuple[str, ...] = option(
        "Names of cookies of its answer that the client gets, in place of the backend's.", ()
    )
    preserve_location_header: bool = option(
        "Leave Location as it is; else a relative one is completed with the server's address.", default=False
    )
    max_response_body_size: Size = option(
        "The largest body of an answer that is taken; a larger one is a failure.",
        Size(1 << 20),
        check=_BODY_SIZE,
    )
    tls: AuthTLSOptions = option("How the connection is protected.", AuthTLSOptions())

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong with names."""
        for option_name in ("auth_response_headers", "auth_request_headers", "add_auth_cookies_to_response"):
            for index, name in enumerate(getattr(self, option_name)):
                if not is_token(name):
                    yield OptionProblem((option_name, index), "is no name", "write one name for each item")
                elif option_name == "auth_response_headers" and _is_kept(name.lower()):
                    message = "belongs to the connection or the handshake and is ignored"
                    yield OptionProblem((option_name, index), message, "leave it out", "warning")
        for each in self.tls.problems():
            yield OptionProblem(("tls", *each.path), each.message, each.hint, each.severity)


@frozen
class Question:
    """The request to the authentication server, without a body; Host is among the fields."""

    method: str
    address: AuthAddress
    headers: Headers


@frozen
class Allowed:
    """The server lets the request pass: what goes on to the backend, and what its response is to get."""

    request: Request
    cookie_names: frozenset[str]
    cookies: tuple[str, ...]

    def on_response(self, headers: Headers) -> Headers:
        """Return the fields of the response with the server's cookies in place of the backend's of the same names."""
        if not self.cookie_names:
            return headers
        fields = [field for field in headers if not _is_cookie_of(field, self.cookie_names)]
        fields += [("Set-Cookie", cookie) for cookie in self.cookies]
        return Headers(fields)


class ForwardAuth:
    """The question and what the answer means; immutable."""

    def __init__(self, options: ForwardAuthOptions) -> None:
        self._address = options.address
        self._trust = options.trust_forward_header
        self._to_backend = frozenset(
            lower for name in options.auth_response_headers if not _is_kept(lower := name.lower())
        )
        self._pattern = options.auth_response_headers_regex
        self._to_server = frozenset(name.lower() for name in options.auth_request_headers)
        self._cookies = frozenset(options.add_auth_cookies_to_response)
        self._preserve_location = options.preserve_location_header

    def question(self, request: Request) -> Question:
        """Return what to ask about `request`."""
        fields: list[Field] = [("Host", self._address.authority)]
        headers = request.headers
        forwarded = self._forwarded(request)
        dropped = hop_by_hop(headers) | {name.lower() for name, _ in forwarded}
        for name, value in headers:
            lower = name.lower()
            if lower in dropped or (_is_kept(lower) and lower != _TOKENS):
                continue
            if not self._to_server or lower in self._to_server:
                fields.append((name, value))
        fields += [field for field in forwarded if field[1]]
        return Question("GET", self._address, Headers(fields))

    def judge(self, request: Request, status: int, headers: Headers, body: bytes) -> Allowed | Answer:
        """Return what the server's answer means for `request`.

        Args:
          request: what the question was about.
          status: of the answer.
          headers: its fields.
          body: its content as it came, undecoded.

        """
        if 200 <= status < 300:
            return self._allowed(request, headers)
        if status < 200:
            # 101 to a question that has no Upgrade: nothing that a client could be given.
            return self.failure()
        fields: list[Field] = []
        dropped = hop_by_hop(headers) | {"content-length"}
        for name, value in headers:
            lower = name.lower()
            if lower in dropped:
                continue
            if lower == "location" and not self._preserve_location:
                try:
                    value = urljoin(str(self._address), value)  # noqa: PLW2901 - the same field
                except ValueError:
                    return self.failure()
            fields.append((name, value))
        return Answer(status, "refused by the authentication server", tuple(fields), body)

    def failure(self) -> Answer:
        """Return the answer when the server cannot be asked or understood."""
        return Answer(500, "the authentication server gave no answer that could be used")

    def _allowed(self, request: Request, headers: Headers) -> Allowed:
        chosen = [(name, value) for name, value in headers if self._is_for_backend(name)]
        # The client's own fields of these names go even if the server sent none: they were for us to vouch for.
        removed = {
            lower for name, _ in request.headers if self._is_for_backend(name) for lower in [name.lower()]
        }
        cookies = headers.get_all("set-cookie") if self._cookies else []
        mine = tuple(cookie for cookie in cookies if _cookie_name(cookie) in self._cookies)
        if removed or chosen:
            request = request.with_headers(edited(request.headers, removed, chosen))
        return Allowed(request, self._cookies if cookies else frozenset(), mine)

    def _is_for_backend(self, name: str) -> bool:
        lower = name.lower()
        if lower in self._to_backend:
            return True
        return self._pattern is not None and not _is_kept(lower) and self._pattern.search(canonical(name))

    def _forwarded(self, request: Request) -> list[Field]:
        """Return the fields that describe the client's request; one with "" is not sent."""
        headers = request.headers
        hops = headers.get_all("x-forwarded-for") if self._trust else []
        if request.peer is not None:
            hops.append(str(request.peer))
        ours = {
            "X-Forwarded-Method": request.head.method,
            "X-Forwarded-Proto": "https" if request.secure else "http",
            "X-Forwarded-Host": request.head.authority,
            "X-Forwarded-Uri": request.head.target,
        }
        if self._trust:
            ours = {name: headers.get(name.lower()) or value for name, value in ours.items()}
        return [("X-Forwarded-For", ", ".join(hops)), *ours.items()]


def _is_kept(lower: str) -> bool:
    """Whether a field of the client's request is never replaced by one of the server's answer."""
    return is_protected(lower) or lower in _NOT_COPIED


def _is_cookie_of(field: Field, names: Collection[str]) -> bool:
    return field[0].lower() == "set-cookie" and _cookie_name(field[1]) in names


def _cookie_name(cookie: str) -> str:
    """Return the name in a Set-Cookie field (RFC 6265 section 5.2)."""
    return cookie.partition(";")[0].partition("=")[0].strip(" \t")
