"""How long a message's body is (RFC 9112 section 6): where request smuggling is won or lost.

The RFC lets a recipient repair several kinds of ambiguous framing. Nothing is repaired here: two parsers
that repair differently are what an attacker looks for, and no honest sender needs it.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from attrs import frozen

from trio_wsb.errors import BadRequest
from trio_wsb.http.headers import Headers

Version = tuple[int, int]
"""Major and minor version of HTTP, such as ``(1, 1)``."""

# 18 digits are an exabyte less one, and fit a signed 64-bit integer, so that no peer's parser can overflow.
_LENGTH = re.compile(r"[0-9]{1,18}")
_TOKEN_LIST = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++(?:[ \t]*+,[ \t]*+[!#$%&'*+\-.^_`|~0-9A-Za-z]++)*")


class FramingKind(Enum):
    """The ways to tell where a body ends."""

    NONE = auto()
    """There is no body."""
    LENGTH = auto()
    """By Content-Length."""
    CHUNKED = auto()
    """By the chunked transfer coding."""
    UNTIL_CLOSE = auto()
    """By the end of the connection; only responses."""


@frozen
class Framing:
    """How a body is delimited; `length` is its size in bytes where `kind` is LENGTH, else 0."""

    kind: FramingKind
    length: int = 0

    @property
    def has_body(self) -> bool:
        """Whether body bytes (or the framing of an empty chunked body) follow the head."""
        kind = self.kind
        return self.length > 0 or kind is FramingKind.CHUNKED or kind is FramingKind.UNTIL_CLOSE


NO_BODY: Final = Framing(FramingKind.NONE)
CHUNKED: Final = Framing(FramingKind.CHUNKED)
UNTIL_CLOSE: Final = Framing(FramingKind.UNTIL_CLOSE)


class FramingError(ValueError):
    """The framing fields are wrong or ambiguous; `status` is what to answer a client with."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def declared_framing(version: Version, headers: Headers) -> Framing:
    """Return what Content-Length and Transfer-Encoding say, `NO_BODY` when neither is there.

    Raises:
      FramingError: they are malformed, repeated, contradict each other, or name a coding other than chunked.

    """
    coding_fields = headers.get_all("transfer-encoding") if "transfer-encoding" in headers else None
    length_fields = headers.get_all("content-length") if "content-length" in headers else None
    if coding_fields is None:
        return NO_BODY if length_fields is None else _declared_length(length_fields)
    if length_fields is not None:
        # RFC 9112 section 6.3 item 3: "ought to be handled as an error".
        raise FramingError("Content-Length together with Transfer-Encoding")
    if version < (1, 1):
        # RFC 9112 section 6.1: its presence there means that the framing is faulty.
        raise FramingError("Transfer-Encoding in HTTP/1.0")
    # RFC 9112 section 7: names of codings are case-insensitive. What goes on is our own spelling of it.
    if len(coding_fields) == 1 and coding_fields[0].lower() == "chunked":
        return CHUNKED
    raise _coding_error(coding_fields)


def _declared_length(fields: list[str]) -> Framing:
    if len(fields) > 1:
        raise FramingError("several Content-Length fields")
    if "," in fields[0]:
        # RFC 9110 section 8.6 allows to take "5, 5" as 5, and to refuse it.
        raise FramingError("a list in Content-Length")
    if _LENGTH.fullmatch(fields[0]) is None:
        raise FramingError("Content-Length is not a number of bytes")
    return Framing(FramingKind.LENGTH, int(fields[0]))


def _coding_error(fields: list[str]) -> FramingError:
    value = ", ".join(fields).lower()
    codings = [coding.strip(" \t") for coding in value.split(",")]
    if _TOKEN_LIST.fullmatch(value) and codings[-1] == "chunked" and "chunked" not in codings[:-1]:
        # The length could be told, only the coding is unknown: RFC 9112 section 6.1.
        return FramingError("a transfer coding other than chunked", 501)
    # RFC 9112 section 6.3 item 4.3: chunked is not last, so the length cannot be told; or applied twice (7.1).
    return FramingError("Transfer-Encoding is not chunked")


def request_framing(version: Version, headers: Headers) -> Framing:
    """Return how the body of a request with these fields is delimited (RFC 9112 section 6.3).

    Raises:
      BadRequest: 400, or 501 for a transfer coding that is not implemented.

    """
    try:
        return declared_framing(version, headers)
    except FramingError as error:
        raise BadRequest(error.status, error.reason) from error


def has_no_body(status: int, request_method: str) -> bool:
    """Whether a response has no body whatever its fields say (RFC 9112 section 6.3 item 1)."""
    return request_method == "HEAD" or status in {204, 304} or status < 200
