"""compress: plain responses in gzip for clients that take it.

Never a session: what goes over a WebSocket is compressed by its endpoints, if they agree on it (RFC 7692). The other
codings that Traefik has are not written here; a client that takes them takes gzip too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final, Literal

from attrs import frozen

from trio_wsb.http.head import ResponseHead
from trio_wsb.http.headers import Headers
from trio_wsb.middleware.exchange import Request, edited
from trio_wsb.middleware.options import MANY, NOT_EMPTY, OptionProblem, between, option

Coding = Literal["gzip", "br", "zstd"]

LEVEL: Final = 6
"""Of zlib: more costs twice the time for a few percent."""

_MEMBER: Final = re.compile(r"([^;\s]+)\s*(?:;\s*q\s*=\s*([0-9.]{1,5}))?", re.IGNORECASE)
_MEDIA_TYPE: Final = re.compile(r"[^\s/;,]+/[^\s/;,]+")
_NEVER: Final = frozenset({
    # Each event would wait for the coder's buffer.
    "text/event-stream",
    "application/grpc",
})  # fmt: skip


@frozen
class CompressOptions:
    """Which plain responses are compressed."""

    excluded_content_types: tuple[str, ...] = option("Types that are not compressed.", ())
    included_content_types: tuple[str, ...] = option(
        "The only types that are compressed; all others are not.", ()
    )
    min_response_body_bytes: int = option(
        "Shorter bodies are not compressed; one of unknown length always is.", 1024, check=between(0, MANY)
    )
    encodings: tuple[Coding, ...] = option(
        "Codings that may be used. Only `gzip` is here; without it nothing is compressed.",
        ("gzip", "br", "zstd"),
        check=NOT_EMPTY,
    )
    default_encoding: Literal["", "gzip", "br", "zstd"] = option(
        "Accepted for Traefik's sake; who names no coding gets none.", ""
    )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong with and between the options."""
        if self.excluded_content_types and self.included_content_types:
            yield OptionProblem(
                ("included_content_types",), "cannot stand beside excludedContentTypes", "write one of them"
            )
        for option_name in ("excluded_content_types", "included_content_types"):
            for index, text in enumerate(getattr(self, option_name)):
                if not _MEDIA_TYPE.match(text):
                    yield OptionProblem(
                        (option_name, index), "is no media type", "write one such as text/html"
                    )
        if "gzip" not in self.encodings:
            yield OptionProblem(
                ("encodings",),
                "has no gzip, the only coding here, so nothing is compressed",
                "add gzip",
                "warning",
            )


@frozen
class Decision:
    """What becomes of a response: its fields, and whether its body goes through a `GzipBody`."""

    headers: Headers
    compress: bool


class Compress:
    """Decides which responses are compressed; immutable."""

    def __init__(self, options: CompressOptions) -> None:
        self._excluded = tuple(map(_media_type, options.excluded_content_types))
        self._included = tuple(map(_media_type, options.included_content_types))
        self._least = options.min_response_body_bytes
        self._active = "gzip" in options.encodings

    def decide(self, request: Request, response: ResponseHead, length: int | None) -> Decision:
        """Return what becomes of `response`.

        Args:
          request: what it answers.
          response: its final head.
          length: of the body in bytes, None when it is not known in advance.

        """
        headers = response.headers
        if not self._active or request.upgrade or request.head.method == "HEAD":
            return Decision(headers, compress=False)
        accepted = accepts_gzip(request.headers)
        if not accepted and "*" not in request.headers.tokens("accept-encoding"):
            return Decision(headers, compress=False)
        # Caches must know even if this one is not compressed: the next one may be.
        vary: list[tuple[str, str]] = []
        if not {"accept-encoding", "*"} & set(headers.tokens("vary")):
            vary.append(("Vary", "Accept-Encoding"))
        if not accepted or not self._is_suited(response, length):
            return Decision(edited(headers, (), vary) if vary else headers, compress=False)
        # Ranges would be of the body as the backend has it, which the client never sees (RFC 9110 section 14).
        removed = {"content-length", "accept-ranges"}
        added = [*vary, ("Content-Encoding", "gzip")]
        tag = headers.get("etag")
        if tag is not None and not tag.startswith("W/"):
            # RFC 9110 section 8.8.1: a strong validator changes with every byte of the representation.
            removed.add("etag")
            added.append(("ETag", f"W/{tag}"))
        return Decision(edited(headers, removed, added), compress=True)

    def _is_suited(self, response: ResponseHead, length: int | None) -> bool:
        headers = response.headers
        if response.status in {204, 205, 206, 304} or response.status < 200:
            # A part of something (206) cannot be put together any more once it is compressed.
            return False
        if (length is not None and length < self._least) or "content-encoding" in headers:
            return False
        if "no-transform" in headers.tokens("cache-control"):
            return False
        content_type = headers.get("content-type") or ""
        media_type = _media_type(content_type)
        if media_type in _NEVER or (content_type and not _MEDIA_TYPE.match(content_type)):
            return False
        if self._included:
            return media_type in self._included
        return media_type not in self._excluded


class GzipBody:
    """A body on its way through gzip.

    Resource handling: 256 KiB of memory until `finish`; an object that is dropped instead needs no clean-up.
    """

    __slots__ = ("_coder",)

    def __init__(self) -> None:
        self._coder = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def feed(self, data: bytes | bytearray | memoryview, *, flush: bool) -> bytes:
        """Return what is to be sent for `data`, perhaps nothing yet.

        Args:
          data: of the body.
          flush: hold nothing back; for a body of unknown length, whose reader may wait for just this piece.

        """
        coded = self._coder.compress(data)
        return coded + self._coder.flush(zlib.Z_SYNC_FLUSH) if flush and len(data) else coded

    def finish(self) -> bytes:
        """Return the end; nothing may be fed after it."""
        return self._coder.flush()


def accepts_gzip(headers: Headers) -> bool:
    """Whether the client asks for gzip by its name with a quality above 0 (RFC 9110 section 12.5.3).

    ``*`` is no such wish: like Traefik, we take it to say that nothing is minded.
    """
    for member in headers.tokens("accept-encoding"):
        match = _MEMBER.fullmatch(member)
        if match is not None and match[1] == "gzip":
            return match[2] is None or _quality(match[2]) > 0
    return False


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip(" \t").lower()
