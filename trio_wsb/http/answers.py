"""The answers that we give ourselves, small and plain."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from trio_wsb.http.head import serialise_response
from trio_wsb.http.headers import Field

# Traefik's words, which monitoring looks for.
NOT_FOUND: Final = "404 page not found"
NO_SERVER: Final = "no available server"


def text_response(
    status: int,
    text: str,
    headers: Iterable[Field] = (),
    *,
    close: bool = True,
    head_only: bool = False,
    date: float | None = None,
) -> bytes:
    """Return a whole response with a line of plain text.

    Args:
      status: the status code, one that has a body.
      text: the line without its end; never what a peer sent.
      headers: fields to add, such as Retry-After.
      close: whether the connection ends after it.
      head_only: the request was HEAD: the fields alone (RFC 9110 section 9.3.2).
      date: the time for the Date field in seconds since 1970 (RFC 9110 section 6.6.1); None leaves it out.

    """
    return content_response(
        status,
        "text/plain; charset=utf-8",
        f"{text}\n".encode(),
        headers,
        close=close,
        head_only=head_only,
        date=date,
    )


def json_response(
    status: int,
    document: object,
    headers: Iterable[Field] = (),
    *,
    close: bool = True,
    head_only: bool = False,
) -> bytes:
    """Return a whole response with `document` as JSON and a line end; never kept by a cache.

    Raises:
      ValueError: `document` has a number that JSON cannot express (RFC 8259 section 6).

    """
    body = json.dumps(document, allow_nan=False).encode() + b"\n"
    return content_response(
        status,
        "application/json",
        body,
        [("Cache-Control", "no-store"), *headers],
        close=close,
        head_only=head_only,
    )


def content_response(
    status: int,
    content_type: str,
    body: bytes,
    headers: Iterable[Field] = (),
    *,
    close: bool = True,
    head_only: bool = False,
    date: float | None = None,
) -> bytes:
    """Return a whole response; the arguments mean what they do in `text_response`."""
    headers = list(headers)
    fields: list[Field] = [
        *dated(headers, date),
        ("Content-Type", content_type),
        # Browsers must not take it for anything else, whatever it says.
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Length", str(len(body))),
        *headers,
    ]
    if close:
        fields.append(("Connection", "close"))
    return serialise_response(status, fields) + (b"" if head_only else body)


def content_size(message: bytes) -> int:
    """Return how many bytes of `message`, a whole response of ours, are its body."""
    return len(message) - message.index(b"\r\n\r\n") - 4


def framed_response(
    status: int,
    fields: Iterable[Field],
    body: bytes,
    *,
    close: bool = True,
    head_only: bool = False,
    date: float | None = None,
) -> bytes:
    """Return a whole response with exactly these fields, its Date and its framing; see `text_response`."""
    fields = list(fields)
    framed = [*fields, *dated(fields, date), ("Content-Length", str(len(body)))]
    if close:
        framed.append(("Connection", "close"))
    return serialise_response(status, framed) + (b"" if head_only else body)


def error_response(
    status: int,
    reason: str,
    headers: Iterable[Field] = (),
    *,
    close: bool = True,
    head_only: bool = False,
    date: float | None = None,
) -> bytes:
    """Return a response that refuses a request; the arguments mean what they do in `text_response`."""
    return text_response(status, reason, headers, close=close, head_only=head_only, date=date)


def dated(headers: Iterable[Field], date: float | None) -> list[Field]:
    """Return the Date field to add to `headers`, if they have none.

    Whoever forwards or makes an answer adds it (RFC 9110 section 6.6.1).
    """
    if date is None or any(name.lower() == "date" for name, _ in headers):
        return []
    return [("Date", _http_date(int(date)))]


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
