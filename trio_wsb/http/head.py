"""The head of a message, start line and fields, from bytes to values and back (RFC 9112 sections 2 to 5).

A head that parses is unambiguous: one Host, one framing, no byte that another parser could read differently.
Whatever is not, is refused; nothing is repaired.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from attrs import define, frozen

from trio_wsb.addresses import is_host
from trio_wsb.errors import BadRequest, BadResponse
from trio_wsb.http.framing import Framing, Version, request_framing
from trio_wsb.http.headers import Field, Headers, serialise_fields


@frozen
class HeadLimits:
    """How large a head may be: `line` and `head` in bytes with their line ends, `fields` a number."""

    line: int
    head: int
    fields: int


REQUEST_LIMITS: Final = HeadLimits(line=8192, head=65536, fields=100)
RESPONSE_LIMITS: Final = HeadLimits(line=8192, head=65536, fields=200)

_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 3986 has no fragment in a request target; controls, space and non-ASCII are in no URI at all.
_REQUEST_LINE = re.compile(rf"({_NAME}) ([!\"$-~]++) HTTP/([0-9])\.([0-9])\r\n")
# RFC 9112 section 4 wants the space before an absent reason phrase too; many servers leave it out.
_STATUS_LINE = re.compile(r"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*+))?\r\n")
# Each find is one whole line, since it begins behind a line's end and has but one itself: where there are as many as
# lines, there is nothing else. Possessive throughout: no backtracking, whatever comes.
_FIELD_LINES = re.compile(rf"(?<=\n)({_NAME}):[ \t]*+([\t -~\x80-\xff]*+)\r\n")
# The last alternative swallows the rest from the first byte that fits no field line.
_FIELDS_AND_FAULT = re.compile(rf"({_NAME}):[ \t]*+([\t -~\x80-\xff]*+)\r\n|([\x00-\xff]++)")
_ABSOLUTE = re.compile(r"(https?)://([^/?]*+)(.*+)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]++)\]|([0-9A-Za-z._-]++))(?::([0-9]{0,5}))?")
_DEFAULT_PORT = {"http": 80, "https": 443}
_VERSIONS: Final[dict[tuple[str, str], Version]] = {("1", "1"): (1, 1), ("1", "0"): (1, 0)}
"""The versions that are spoken here, by their digits."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@define
class RequestHead:
    """The head of a request, checked.

    `target` is in origin-form (or ``*``), whichever form it came in; `path` and `query` are its parts before
    and after the first ``?``, as sent. `authority` is the Host field as sent, "" when an HTTP/1.0 client sent
    none; `host` is its host alone for routing: lower-case, no port, no trailing dot, an IPv6 address without
    its brackets. `framing` says how the body is delimited.
    """

    method: str
    target: str
    version: Version
    headers: Headers
    path: str
    query: str
    authority: str
    host: str
    framing: Framing

    def with_headers(self, headers: Headers) -> RequestHead:
        """Return a copy with other fields, made in a tenth of the time that `attrs.evolve` takes."""
        return RequestHead(
            self.method,
            self.target,
            self.version,
            headers,
            self.path,
            self.query,
            self.authority,
            self.host,
            self.framing,
        )

    @property
    def keep_alive(self) -> bool:
        """Whether the client lets the connection serve another request (RFC 9112 section 9.3).

        Never for HTTP/1.0: its keep-alive is not understood by every hop on the way (RFC 9112 appendix C.2.2).
        """
        return self.version >= (1, 1) and "close" not in self.headers.tokens("connection")

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before its body (RFC 9110 section 10.1.1)."""
        return (
            self.version >= (1, 1)
            and self.framing.has_body
            and "100-continue" in self.headers.tokens("expect")
        )


@define
class ResponseHead:
    """The head of a response, checked. `reason` is "" when the server sent none."""

    status: int
    reason: str
    version: Version
    headers: Headers

    def with_headers(self, headers: Headers) -> ResponseHead:
        """Return a copy with other fields."""
        return ResponseHead(self.status, self.reason, self.version, headers)


def parse_request_head(data: bytes | bytearray, limits: HeadLimits = REQUEST_LIMITS) -> RequestHead:
    """Return the head that `data` is, from the first byte of the request line to the empty line.

    Raises:
      BadRequest: with the status to answer: 400, 414 (request line too long), 431 (head too large or too many
        fields), 501 (CONNECT, unknown transfer coding), 505 (a version of HTTP other than 1.0 and 1.1).

    """
    text = data.decode("latin-1")
    line = _REQUEST_LINE.match(text)
    line_end = text.find("\n") + 1 if line is None else line.end()
    if line_end > limits.line or (line_end == 0 and len(text) > limits.line):
        raise BadRequest(414, "request line too long")
    if len(text) > limits.head:
        raise BadRequest(431, "request head too large")
    if line is None:
        raise BadRequest(400, _request_line_fault(text))
    method, target, major, minor = line.groups()
    version = _VERSIONS.get((major, minor))
    if version is None:
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    fields, fault = _parse_fields(text, line_end)
    if len(fields) > limits.fields:
        raise BadRequest(431, "too many header fields")
    if fault:
        raise BadRequest(400, fault)
    headers = Headers(fields)

    hosts = headers.get_all("host")
    if len(hosts) > 1:
        raise BadRequest(400, "repeated Host")
    if not hosts and version == (1, 1):
        # RFC 9112 section 3.2.
        raise BadRequest(400, "no Host")
    authority = hosts[0] if hosts else ""
    host = split_authority(authority)[0] if hosts else ""
    if method == "CONNECT":
        # RFC 9110 section 9.1: 405 is for a method that some resource allows; tunnels to anywhere are not
        # implemented at all.
        raise BadRequest(501, "CONNECT is not implemented")
    if target[0] != "/":
        target, authority, host = _other_form(method, target, authority, host)
    path, _, query = target.partition("?")
    return RequestHead(
        method, target, version, headers, path, query, authority, host, request_framing(version, headers)
    )


def parse_response_head(data: bytes | bytearray, limits: HeadLimits = RESPONSE_LIMITS) -> ResponseHead:
    """Return the head that `data` is, from the first byte of the status line to the empty line.

    As strict as with requests: what we pass on of a backend's bare LF or folded line could be read as another
    field, or another response, by the client or a cache in between.

    Raises:
      BadResponse: it is malformed or too large.

    """
    text = data.decode("latin-1")
    if len(text) > limits.head:
        raise BadResponse("response head too large")
    line = _STATUS_LINE.match(text)
    if line is None:
        raise BadResponse("malformed status line")
    if line.end() > limits.line:
        raise BadResponse("status line too long")
    major, minor, status, reason = line.groups()
    version = _VERSIONS.get((major, minor))
    if version is None:
        raise BadResponse("only HTTP/1.0 and HTTP/1.1 are spoken here")
    fields, fault = _parse_fields(text, line.end())
    if len(fields) > limits.fields:
        raise BadResponse("too many header fields")
    if fault:
        raise BadResponse(fault)
    return ResponseHead(int(status), reason or "", version, Headers(fields))


def serialise_response(status: int, headers: Headers | list[Field], reason: str | None = None) -> bytes:
    """Return the head of a response, status line to empty line; `reason` None is the standard phrase.

    The version is ours, HTTP/1.1, whatever the client's is (RFC 9110 section 6.2).

    Raises:
      ValueError: a field or the reason has CR, LF or NUL in it.

    """
    phrase = _REASONS.get(status, "") if reason is None else reason
    return serialise_fields(headers, f"HTTP/1.1 {status} {phrase}") + b"\r\n"


@lru_cache(maxsize=1024)
def split_authority(authority: str) -> tuple[str, int | None]:
    """Return host (lower-case, no trailing dot, no brackets) and port of ``host[:port]``.

    Raises:
      BadRequest: it is malformed, or the host is empty, which no http URI may have (RFC 9110 section 4.2.1).

    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadRequest(400, "malformed Host")
    bracketed, name, digits = match.groups()
    host: str = name if bracketed is None else bracketed
    if not is_host(host) or (bracketed is not None and ":" not in bracketed):
        raise BadRequest(400, "malformed Host")
    port = int(digits) if digits else None
    if port is not None and port > 65535:
        raise BadRequest(400, "malformed Host")
    return host.lower().removesuffix("."), port


def _parse_fields(text: str, start: int) -> tuple[list[Field], str | None]:
    """Return the fields from `start` to the empty line that ends `text`, and what is wrong if anything is."""
    fields: list[Field] = _FIELD_LINES.findall(text, start)
    if text.count("\n", start) != len(fields) + 1 or not text.endswith("\n\r\n"):
        return _before_fault(text, start)
    if " \r" in text or "\t" in text:
        fields = [(name, value.rstrip(" \t")) for name, value in fields]
    return fields, None


def _before_fault(text: str, start: int) -> tuple[list[Field], str]:
    """Return the fields before the first line that is none, and what is wrong with that one."""
    rows = _FIELDS_AND_FAULT.findall(text, start)
    rest: str = rows.pop()[2] if rows and rows[-1][2] else ""
    return [(name, value) for name, value, _ in rows], _field_fault(rest, first=not rows)


def _field_fault(rest: str, *, first: bool) -> str:
    """Say why `rest` begins with no field line; never with what the peer sent."""
    line = rest.partition("\n")[0]
    name, colon, _ = line.partition(":")
    if rest.startswith("\r\n"):
        return "bytes after the head"
    if rest[:1] in {" ", "\t"}:
        # RFC 9112 sections 2.2 and 5.2.
        return "whitespace before the first field" if first else "obsolete line folding"
    if not rest.startswith(line + "\n"):
        return "the head is not complete"
    if not line.endswith("\r"):
        return "bare LF in the head"
    if "\r" in line[:-1]:
        return "bare CR in the head"
    if not colon:
        return "a header line without a colon"
    if not name:
        return "an empty field name"
    if name[-1] in " \t":
        # RFC 9112 section 5.1: a server must refuse it.
        return "whitespace before a colon"
    return "an invalid character in a header field"


def _request_line_fault(text: str) -> str:
    line = text.partition("\n")[0]
    if "#" in line and _REQUEST_LINE.match(line.replace("#", "") + "\n"):
        return "a fragment in the request target"
    return "malformed request line"


def _other_form(method: str, target: str, authority: str, host: str) -> tuple[str, str, str]:
    """Return origin-form, authority and host for a target in one of the other forms of RFC 9112 section 3.2."""
    if target == "*":
        if method != "OPTIONS":
            raise BadRequest(400, "the target * is for OPTIONS alone")
        return target, authority, host
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest(400, "malformed request target")
    scheme, target_authority, rest = match.groups()
    name, port = split_authority(target_authority)
    if not authority:
        authority, host = target_authority, name
    else:
        # RFC 9112 section 3.2.2 lets the target win. Some hops look at one, some at the other: refused.
        default = _DEFAULT_PORT[scheme.lower()]
        _, host_port = split_authority(authority)
        if (name, port or default) != (host, host_port or default):
            raise BadRequest(400, "the request target and Host name different hosts")
    if not rest:
        # RFC 9112 section 3.2.4: OPTIONS of a whole server, in the form for proxies.
        return "*" if method == "OPTIONS" else "/", authority, host
    return rest if rest[0] == "/" else "/" + rest, authority, host
