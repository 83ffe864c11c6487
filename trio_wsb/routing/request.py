"""What routing knows of a request: normalised values to match, not the message itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self
from urllib.parse import unquote_to_bytes

from trio_wsb.addresses import IPAddress

# RFC 3986 section 2.2, and the percent sign: decoding one of these would change what a path means.
_RESERVED: Final = frozenset(b":/?#[]@!$&'()*+,;=%")
_ESCAPES: Final = re.compile(r"(?:%(?:[0-9A-Fa-f]{2})?)+")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PAIR_ENDS: Final = re.compile(r"[&;]")

FieldValues = Callable[[str], Sequence[str]]
"""Returns the values of every field of a name (in lower case), in order, as latin-1 text."""


class Fields(Protocol):
    """The fields of a request."""

    def get_all(self, name: str, /) -> Sequence[str]:
        """Return the values of every field of that name (in lower case), in order."""


class Head(Protocol):
    """The head of a request: method, host without port, path and query as sent, fields."""

    @property
    def method(self) -> str:
        """The method; its case counts."""

    @property
    def host(self) -> str:
        """The host, in the form of `normal_host`."""

    @property
    def path(self) -> str:
        """The path of the target."""

    @property
    def query(self) -> str:
        """What follows the first question mark of the target."""

    @property
    def headers(self) -> Fields:
        """The fields."""


class RequestView:
    """A request as rules see it; immutable.

    `host` is in lower case, without port, trailing dot or brackets; `path` is the path of the target in the form of
    `normal_path`; `client` is the address of the peer, None for one without; `field_values` looks fields up. The query
    is taken apart when a rule first asks for it.
    """

    __slots__ = ("_parameters", "_query", "client", "field_values", "host", "method", "path")

    def __init__(
        self,
        host: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        client: IPAddress | None = None,
        field_values: FieldValues = lambda _: (),
    ) -> None:
        self.host = host
        self.path = path
        self.method = method
        self.client = client
        self.field_values = field_values
        self._query = query
        self._parameters: dict[str, list[str]] | None = None

    @classmethod
    def of(cls, host: str, target: str, *, method: str = "GET", client: IPAddress | None = None) -> Self:
        """Return the view of a request with this Host field and this target, and no other fields."""
        path, _, query = target.partition("?")
        return cls(normal_host(host), normal_path(path), method=method, query=query, client=client)

    @classmethod
    def of_request(
        cls, head: Head, client: IPAddress | None, field_values: FieldValues | None = None
    ) -> Self:
        """Return the view of the request with this head.

        Args:
          head: the checked head.
          client: the peer's address.
          field_values: looks fields up in the head's place, where not everything that was sent is to be believed.

        """
        return cls(
            head.host,
            normal_path(head.path),
            method=head.method,
            query=head.query,
            client=client,
            field_values=head.headers.get_all if field_values is None else field_values,
        )

    def parameter(self, name: str) -> Sequence[str]:
        """Return the values of every query parameter of that name, in order."""
        if self._parameters is None:
            self._parameters = parse_query(self._query)
        return self._parameters.get(name, ())

    def __repr__(self) -> str:
        # Neither fields nor query: they may be secrets, and a repr ends up in logs.
        return f"<RequestView {self.method} {self.host!r} {self.path!r}>"


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
    """Return `path` as rules compare it, so that a way of writing it is no way around a rule.

    Escapes are undone, those of reserved characters excepted (see `normal_escapes`); then repeated slashes become
    one, since many backends read them so, and dot segments are removed (RFC 3986 section 5.2.4). So
    ``/public/..//%61dmin`` is judged as the ``/admin`` that a backend may take it for.
    """
    if "%" in path:
        path = normal_escapes(path)
    return _cleaned(path) if ("//" in path or "/." in path) and path[0] == "/" else path


def normal_escapes(path: str) -> str:
    """Return `path` with its escapes undone, as UTF-8 text.

    The escapes of reserved characters and of ``%`` stay, in upper case (RFC 3986 section 6.2.2.1): ``%2F`` is no
    slash. A ``%`` that begins no escape becomes ``%25``. Bytes that are no UTF-8 become U+FFFD.
    """
    return _ESCAPES.sub(_unescape_run, path)


def parse_query(query: str) -> dict[str, list[str]]:
    """Return the parameters of a query by name.

    Pairs end with ``&`` or ``;``, ``+`` is a space, escapes are undone as UTF-8 text (invalid bytes become U+FFFD);
    a parameter without ``=`` has an empty value. A pair with a malformed escape is left out.
    """
    parameters: dict[str, list[str]] = {}
    for pair in _PAIR_ENDS.split(query):
        if not pair or ("%" in pair and _BAD_ESCAPE.search(pair) is not None):
            continue
        name, _, value = pair.partition("=")
        parameters.setdefault(_unescape_form(name), []).append(_unescape_form(value))
    return parameters


def _unescape_form(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")


def _unescape_run(match: re.Match[str]) -> str:
    # A run at a time, for a character may take several escapes.
    return _ESCAPE.sub(_unescape, match[0]).encode("latin-1").decode("utf-8", "replace")


def _unescape(match: re.Match[str]) -> str:
    digits = match[1]
    if digits is None:
        return "%25"
    code = int(digits, 16)
    return match[0].upper() if code in _RESERVED else chr(code)


def _cleaned(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    end = "/" if kept and segments[-1] in {"", ".", ".."} else ""
    return f"/{'/'.join(kept)}{end}"
